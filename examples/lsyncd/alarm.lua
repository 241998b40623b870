-- Collects changes, and acts on them at fixed times only: every few seconds whatever has come is copied in one go.
settings{ nodaemon = true }

local every = 1
local rung = false

sync{
	source = "/srv/source",
	target = "/srv/target/",

	init = function(event)
		event.inlet.discardEvent(event)
	end,

	-- Events that are due stay where they are until the alarm has come.
	action = function(inlet)
		if not rung then
			return
		end
		rung = false
		local config, list = inlet.getConfig(), inlet.getEvents()
		log("Normal", "bringing over ", list.size(), " changes")
		spawnShell(list, 'rsync -a --delete "$1" "$2"', config.source, config.target)
	end,
}

local function ring(at)
	rung = true
	alarm(at + every, ring)
end
alarm(now() + every, ring)
