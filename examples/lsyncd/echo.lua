-- Shows what each kind of event hands to a command: nothing is synced.
settings{ nodaemon = true }

sync{
	source = "/srv/source",
	target = "/srv/target/",
	delay = 1,
	onStartup = "/bin/echo began ^sourcePath",
	onCreate = "/bin/echo created ^pathname in ^pathdir goes to ^targetPathname",
	onModify = "/bin/echo modified ^pathname",
	onAttrib = "/bin/echo touched ^pathname",
	onDelete = "/bin/echo deleted ^pathname",
	onMove = "/bin/echo moved ^o.pathname to ^d.pathname",
}
