-- Mirrors to an ftp server by lftp: what changed becomes one script.
settings{ nodaemon = true }

local server = "ftp://user:password@server"

local function quoted(path)
	return '"' .. path:gsub('[\\"]', "\\%0") .. '"'
end

sync{
	source = "/srv/source",
	target = "/backup/",
	delay = 0.3,

	init = function(event)
		spawn(event, "lftp", "<",
			"open " .. server .. "\nmirror -R -e " .. quoted(event.source) .. " " .. quoted(event.target) .. "\n")
	end,

	action = function(inlet)
		local list = inlet.getEvents(function(event) return event.etype ~= "Init" end)
		local config = inlet.getConfig()
		local script = { "open " .. server }
		list.getPaths(function(etype, path, path2)
			local below = path:sub(2)
			if etype == "Delete" then
				script[#script + 1] = "rm -rf " .. quoted(config.target .. below)
			elseif below:ends("/") then
				script[#script + 1] = "mkdir -p " .. quoted(config.target .. below)
			else
				script[#script + 1] = "put " .. quoted(config.source .. below) .. " -o " .. quoted(config.target .. below)
			end
			return path, path2
		end)
		spawn(list, "lftp", "<", table.concat(script, "\n") .. "\n")
	end,

	collect = function(_, exitcode)
		return exitcode ~= 0 and "again" or "ok"
	end,
}
