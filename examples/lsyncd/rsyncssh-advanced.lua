-- default.rsyncssh with a key and a port of its own, to several hosts, without what editors leave behind.
settings{ nodaemon = true, insist = true }

for _, host in ipairs{ "there", "there2" } do
	sync{
		default.rsyncssh,
		source = "/srv/source",
		host = host,
		targetdir = "/srv/target/" .. host,
		delay = 0.3,
		exclude = { "*~", ".*.sw?" },
		rsync = { archive = true, compress = true, _extra = { "--omit-dir-times" } },
		ssh = { options = { BatchMode = "yes", ConnectTimeout = "10" } },
	}
end
