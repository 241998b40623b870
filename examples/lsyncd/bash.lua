-- Mirrors a tree on this machine by shell commands alone. A failing command is logged; the daemon goes on.
settings{ nodaemon = true }

sync{
	source = "/srv/source",
	target = "/srv/target/",
	delay = 0.1,
	maxProcesses = 3,
	onStartup = [[mkdir -p ^target && cp -a ^source/. ^target]],
	onCreate = [[if [ -d ^sourcePath ]; then mkdir -p ^targetPath; else cp -p ^sourcePath ^targetPathdir; fi]],
	onModify = [[cp -p ^sourcePath ^targetPathdir]],
	onAttrib = [[touch -r ^sourcePath ^targetPath]],
	onDelete = [[rm -rf ^targetPath]],
	onMove = [[mv ^o.targetPathname ^d.targetPathname || cp -a ^d.sourcePathname ^d.targetPathname]],
}
