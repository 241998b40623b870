-- Makes a smaller copy of each picture beside it, in a directory that is not looked at itself.
settings{ nodaemon = true }

local kinds = { jpg = true, png = true, gif = true }

local function kind_of(path)
	return kinds[(path:match("%.([^.]+)$") or ""):lower()]
end

sync{
	source = "/srv/source",
	delay = 0.2,
	maxProcesses = 2,
	checkgauge = { exclude = true },
	exclude = { "small/" },

	action = function(inlet)
		local event, event2 = inlet.getEvent()
		local new = event2 or event
		if event.isdir or not kind_of(new.pathname) then
			inlet.discardEvent(event)
		elseif event.etype == "Delete" then
			spawn(event, "/bin/rm", "-f", event.sourcePathdir .. "small/" .. event.basename)
		else
			spawnShell(event, 'mkdir -p "$2" && convert "$1" -resize 50% "$2/$3"', new.sourcePathname,
				new.sourcePathdir .. "small", new.basename)
		end
	end,

	collect = function(event, exitcode)
		if exitcode ~= 0 then
			log("Error", "could not convert ", event.name, ": ", exitcode)
		end
	end,
}
