-- default.rsync, and a command at the end of each transfer: here it notes that the target is up to date.
settings{ nodaemon = true }

local after = 'echo "transferred" >> "$1"'

local with_command = {
	default.rsync,

	action = function(inlet)
		-- The blanket stays behind everything that is queued now, and holds up what comes later.
		local event = inlet.getEvent()
		if event.etype == "Blanket" then
			log("Normal", "running the command after a transfer")
			spawnShell(event, after, inlet.getConfig().notes)
			return
		end
		inlet.createBlanketEvent()
		return default.rsync.action(inlet)
	end,

	collect = function(agent, exitcode)
		if not agent.isList and agent.etype == "Blanket" then
			if exitcode ~= 0 then
				log("Error", "the command failed: ", exitcode)
			end
			return
		end
		return default.collect(agent, exitcode)
	end,

	checkgauge = { default.rsync.checkgauge, notes = true },
}

sync{ with_command, source = "/srv/source", target = "/srv/target", delay = 0.2, notes = "/srv/notes" }
