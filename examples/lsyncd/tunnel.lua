-- rsync through an ssh tunnel that is kept up, to a daemon that is only reachable from that host; and the whole tree
-- again each night, whatever was seen.
settings{ nodaemon = true, insist = true, statusFile = "/srv/status", statusInterval = 1 }

sync{
	default.rsync,
	source = "/srv/source",
	target = "rsync://localhost:^localport/module/",
	delay = 0.2,
	tunnel = tunnel{
		command = { "ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-L", "^localport:localhost:8730", "there" },
		readyDelay = 1,
		retryDelay = 1,
	},
	crontab = { "0 30 3 * * *" },
	rsync = { archive = true },
}
