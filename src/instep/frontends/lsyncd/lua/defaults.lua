-- What a sync does unless told otherwise: default, default.rsync, default.rsyncssh and default.direct.
-- Plain functions in plain tables, for configurations to use, wrap and replace.

local core = ...

---------------------------------------------------------------------------------------------------------- exit codes

local function codes(map)
	map._verbatim = true
	return map
end

local rsync_codes = codes{ [0] = "ok", [1] = "die", [2] = "die", [4] = "die", [23] = "ok", [24] = "ok", [25] = "die" }
for _, code in ipairs{ 3, 5, 6, 10, 11, 12, 14, 20, 21, 22, 30, 35, 255 } do
	rsync_codes[code] = "again"
end
default.rsyncExitCodes = rsync_codes
default.sshExitCodes = codes{ [0] = "ok", [255] = "again" }

local KILLED = 128  -- from here on up to 254 a signal ended the program: what it did is not known

local function verdict(map, code)
	local known = map and map[code]
	if known then
		return known
	elseif code > KILLED and code < 255 then
		return "again"
	end
end

------------------------------------------------------------------------------------------------------------- default

default.maxDelays = 1000
default.maxProcesses = 1

function default.action(inlet)
	local event, event2 = inlet.getEvent()
	local func = inlet.getConfig()["on" .. event.etype]
	if type(func) == "function" then
		func(event, event2)
	end
	if event.status == "wait" then
		inlet.discardEvent(event)
	end
end

function default.init(event)
	local config = event.config
	if type(config.onStartup) == "function" then
		log("Normal", "Startup of ", event.source, " -> ", event.target or "(none)", " ...")
		config.onStartup(event)
	end
	if event.status == "wait" then
		event.inlet.discardEvent(event)
	end
end

-- Where some of a whole tree could not be brought over it is brought over again, and again. Between the tries events are
-- acted on as ever: a sync that has begun is not held up by one file that cannot be read.
local PARTIAL, VANISHED = 23, 24
local AGAIN_MIN, AGAIN_MAX = 60, 3600  -- seconds
local missing = setmetatable({}, { __mode = "k" })  -- by configuration: { tries = how many in a row were not enough }

-- Whether a run that was allowed to be partial was. What vanished while rsync looked has an event of its own, as a rule:
-- one more look is enough, or a busy source would be looked at for ever.
local function is_partial(agent, code)
	return agent.config.rsync and agent.config.full
		and (code == PARTIAL or code == VANISHED and not missing[agent.config])
end

local function way_of(config)
	return config.source .. " -> " .. (config.target or (config.host and config.host .. ":" .. config.targetdir) or "")
end

local function again_later(agent, code)
	local config, inlet, way = agent.config, agent.inlet, way_of(agent.config)
	local tries = (missing[config] or { tries = 0 }).tries + 1
	local mine = { tries = tries }
	missing[config] = mine
	if tries == 1 then
		log("Warn", "Some of ", way, " could not be transferred (exitcode ", code, "); see the messages of rsync. All of it",
			" is tried again in ", AGAIN_MIN, " seconds, then ever more rarely.")
	end
	alarm(now() + math.min(AGAIN_MAX, AGAIN_MIN * 2 ^ math.min(tries - 1, 30)), function()
		if missing[config] == mine then  -- else all of it went over anew meanwhile
			inlet.createFullEvent()
		end
	end)
end

-- All of the tree went over, as far as the exit code counts as success.
local function went_over(agent, code)
	local config = agent.config
	if is_partial(agent, code) then
		again_later(agent, code)
	elseif missing[config] then
		missing[config] = nil
		log("Normal", "All of ", way_of(config), " could be transferred now.")
	end
end

-- What follows from the exit code of an initial sync. Without insist a target that cannot be reached ends the daemon,
-- so that whoever starts it learns of it.
local function after_start(agent, map, code, done)
	local config = agent.config
	local found = verdict(map, code)
	local way = way_of(config)
	if found == "ok" then
		went_over(agent, code)
		log("Normal", done or ("Startup of " .. way .. " finished."))
		return "ok"
	elseif found == "again" then
		if agent.etype ~= "Init" or core.insists() then
			log("Normal", "Retrying startup of ", way, ": ", code)
			return "again"
		end
		log("Error", "Temporary or permanent failure on startup of ", way,
			'. Terminating since "insist" is not set.')
		return "die"
	elseif found == "die" then
		log("Error", "Failure on startup of ", way, ".")
		return "die"
	end
	log("Error", 'Unknown exitcode "', code, '" on startup of ', way, ".")
	return "die"
end

function default.collect(agent, code)
	local config = agent.config
	local map = config.exitcodes
	if not agent.isList and agent.etype == "Init" then
		if not map then
			map = { [0] = "ok" }
		end
		return after_start(agent, map, code)
	end
	local found = verdict(map, code) or (code == 0 and not map and "ok") or nil
	if agent.isList then
		-- What could not be transferred stays on the list: it is tried again, with growing pauses.
		if code == 23 and found == "ok" and config.rsync then
			found = "again"
		end
		if found == "ok" then
			log("Normal", "Finished a list after exitcode: ", code)
		elseif found == "again" then
			log("Normal", "Retrying a list after exitcode = ", code)
		elseif found == "die" then
			log("Error", "Failure with a list with exitcode = ", code)
		else
			log("Error", 'Unknown exitcode "', code, '" with a list')
			return "die"
		end
		return found
	end
	local what = agent.etype .. " on " .. (agent.etype == "Full" and agent.source or agent.sourcePath)
	if found == "ok" then
		if agent.etype == "Full" then
			went_over(agent, code)
		end
		log("Normal", "Finished ", what, " = ", code)
	elseif found == "again" then
		log("Normal", "Retrying ", what, " = ", code)
	else
		-- Only a map of exit codes can say that a failed command is the end of everything.
		log("Error", "Failure with ", what, " = ", code)
		return map and "die" or "ok"
	end
	return found
end

-------------------------------------------------------------------------------------------------------- allowed keys

local function gauge(names)
	local found = {}
	for name in names:gmatch("%S+") do
		found[name] = true
	end
	return found
end

default.checkgauge = gauge[[
	action checkgauge collect delay exitcodes init maxDelays maxProcesses onAttrib onCreate onModify onDelete onStartup
	onMove prepare source target full onFull collapse crontab tunnel name
]]

-- Keys of other versions, or that people write though they never meant anything, with what to do about them; they are
-- ignored, and told of once.
local options = "write rsync = { ... }, with the names of rsync's options"
local setting = "write settings{ statusInterval = ... }"
local tolerated = {
	subdirs = "leave it out", recursive = "leave it out", monitor = "leave it out", xargs = "leave it out",
	rsyncOps = options, rsyncOpts = options, statusIntervall = setting, statusInterval = setting,
}

local told = {}

local function check_keys(config, allowed, prefix, level)
	for key, value in pairs(config) do
		local known = allowed[key]
		if not known then
			if tolerated[key] then
				if not told[key] then
					told[key] = true
					log("Warn", 'Parameter "', prefix, key, '" has no effect: ', tolerated[key], ".")
				end
			elseif key ~= "_source" then
				error('Parameter "' .. prefix .. tostring(key)
					.. '" unknown. ( if this is not a typo add it to checkgauge )', level)
			end
		elseif type(known) == "table" and not (type(value) == "table" and getmetatable(value)) then
			if type(value) ~= "table" then
				error('Parameter "' .. prefix .. key .. '" must be a table.', level)
			end
			check_keys(value, known, prefix .. key .. ".", level + 1)
		end
	end
end

function default.prepare(config, level)
	local allowed = config.checkgauge
	if allowed then
		check_keys(config, allowed, "", (level or 2) + 1)
	end
end

--------------------------------------------------------------------------------------------------------------- rsync

local rsync = {
	delete = true,
	delay = 15,
	exitcodes = rsync_codes,
	rsync = { binary = "rsync", links = true, times = true, protect_args = true },
}
default.rsync = rsync

rsync.checkgauge = {
	default.checkgauge,
	onCreate = false, onModify = false, onDelete = false, onStartup = false, onMove = false,
	delete = true, exclude = true, excludeFrom = true, filter = true, filterFrom = true, batchSizeLimit = true,
	rsync = gauge[[
		_extra acls append append_verify archive backup backup_dir binary bwlimit checksum chmod chown compress
		copy_dirlinks copy_links copy_unsafe_links cvs_exclude delete_excluded dry_run executability existing group
		groupmap hard_links ignore_times inplace ipv4 ipv6 keep_dirlinks links one_file_system omit_dir_times
		omit_link_times owner password_file perms protect_args prune_empty_dirs quiet rsh rsync_path sparse suffix
		temp_dir timeout times update usermap verbose whole_file xattrs
	]],
}

local letters = {
	{ "links", "l" }, { "times", "t" }, { "protect_args", "s" }, { "acls", "A" }, { "backup", "b" },
	{ "checksum", "c" }, { "compress", "z" }, { "copy_dirlinks", "k" }, { "copy_links", "L" },
	{ "cvs_exclude", "C" }, { "dry_run", "n" }, { "executability", "E" }, { "group", "g" }, { "hard_links", "H" },
	{ "ignore_times", "I" }, { "ipv4", "4" }, { "ipv6", "6" }, { "keep_dirlinks", "K" },
	{ "one_file_system", "x" }, { "omit_dir_times", "O" }, { "omit_link_times", "J" }, { "owner", "o" },
	{ "perms", "p" }, { "prune_empty_dirs", "m" }, { "quiet", "q" }, { "sparse", "S" }, { "update", "u" },
	{ "verbose", "v" }, { "whole_file", "W" }, { "xattrs", "X" },
}
local long = {
	{ "append" }, { "append_verify" }, { "backup_dir", true }, { "bwlimit", true }, { "chmod", true },
	{ "chown", true }, { "copy_unsafe_links" }, { "groupmap", true }, { "existing" }, { "inplace" },
	{ "password_file", true }, { "rsh", true }, { "rsync_path", true }, { "suffix", true }, { "temp_dir", true },
	{ "timeout", true }, { "usermap", true },
}

-- The words for rsync that follow from the table of its options.
local function rsync_words(options)
	local cluster, words = "-", {}
	local archive = options.archive
	if archive then
		for _, name in ipairs{ "links", "perms", "times", "group", "owner" } do
			if options[name] == nil then
				options[name] = true
			end
		end
	end
	for _, each in ipairs(letters) do
		if options[each[1]] then
			cluster = cluster .. each[2]
		end
	end
	if archive then
		cluster = cluster .. "D"
	end
	if cluster ~= "-" then
		words[1] = cluster
	end
	for _, word in ipairs(options._extra or {}) do
		words[#words + 1] = word
	end
	for _, each in ipairs(long) do
		local value = options[each[1]]
		if value then
			local word = "--" .. each[1]:gsub("_", "-")
			words[#words + 1] = each[2] and (word .. "=" .. tostring(value)) or word
		end
	end
	return words
end

local function with_slash(target)
	return (target:ends("/") or target:ends(":")) and target or target .. "/"
end

function rsync.prepare(config, level, without_target)
	level = level or 2
	default.prepare(config, level + 1)
	core.check_built_in(config, level)
	if not without_target then
		if not config.target then
			error('default.rsync needs "target" configured', level)
		end
		config.target = with_slash(config.target)
	end
	if config.rsync._computed then
		error('"rsync._computed" is made by instep and cannot be given', level)
	end
	config.rsync._computed = rsync_words(config.rsync)
end

local function deletes(config, phase)
	return config.delete == true or config.delete == phase
end

-- The words for rsync, and its target, for one run: over the tunnel, or the connection that is kept, if there is one.
local function rsync_way(config, inlet)
	local target = config.host and (config.host .. ":" .. config.targetdir) or config.target
	local words = config.rsync._computed
	if config.tunnel then
		local data = inlet.getSubstitutionData(nil, {})
		return substitudeCommands(words, data), substitudeCommands(target, data)
	end
	local kept = config.ssh and core.kept_words(inlet, true) or {}
	if #kept == 0 then
		return words, target
	end
	local found = {}
	for _, word in ipairs(words) do
		if not word:starts("--rsh=") then
			found[#found + 1] = word
		end
	end
	found[#found + 1] = "--rsh=ssh " .. table.concat(kept, " ") .. " " .. table.concat(config.ssh._computed, " ")
	return found, target
end

-- Brings the whole tree over.
local function rsync_all(event, label)
	local config, inlet = event.config, event.inlet
	local excludes = inlet.getExcludes()
	local delete = deletes(config, "startup") and { "--delete", "--ignore-errors" } or {}
	if config.rsync.delete_excluded then
		delete[#delete + 1] = "--delete-excluded"
	end
	local computed, target = rsync_way(config, inlet)
	local words = {}
	if inlet.hasFilters() then
		local filters = inlet.getFilters()
		log("Normal", "recursive ", label, " rsync: ", config.source, " -> ", target, " filtering\n",
			table.concat(filters, "\n"))
		words = { "<", table.concat(filters, "\n"), "--filter=. -" }
	elseif #excludes > 0 then
		log("Normal", "recursive ", label, " rsync: ", config.source, " -> ", target, " excluding\n",
			table.concat(excludes, "\n"))
		words = { "<", table.concat(excludes, "\n"), "--exclude-from=-" }
	else
		log("Normal", "recursive ", label, " rsync: ", config.source, " -> ", target)
	end
	words[#words + 1] = delete
	words[#words + 1] = computed
	words[#words + 1] = "-r"
	words[#words + 1] = config.source
	words[#words + 1] = target
	spawn(event, config.rsync.binary, table.unpack(words))
end

function rsync.init(event)
	rsync_all(event, "startup")
end

function rsync.full(event)
	rsync_all(event, "full")
end

-- Brings a list of changes over.
local function rsync_list(inlet, list)
	local config = inlet.getConfig()
	local computed, target = rsync_way(config, inlet)
	local names = core.include_list(list)
	log("Normal", "Calling rsync with filter-list of new/modified files/dirs\n", table.concat(names, "\n"))
	spawn(list, config.rsync.binary, "<", table.concat(names, "\000"), computed, "-r",
		deletes(config, "running") and { "--delete", "--ignore-errors" } or {}, "--force", "--from0",
		"--include-from=-", "--exclude=*", config.source, target)
end

local function is_whole(event)
	return event.etype == "Init" or event.etype == "Blanket" or event.etype == "Full"
end

function rsync.action(inlet)
	local config = inlet.getConfig()
	local limit = config.batchSizeLimit
	local list = not limit and core.all_changes(inlet, false) or inlet.getEvents(function(event)
		if is_whole(event) then
			return false
		elseif event.etype == "Delete" or event.etype == "Move" or event.isdir then
			return true
		end
		return core.size(event.sourcePath) <= limit
	end)
	if list.size() == 0 then
		-- Only large files are left: each goes by itself.
		local first = true
		list = inlet.getEvents(function(event)
			if is_whole(event) then
				return false
			elseif first then
				first = false
				return true
			end
			return "break"
		end)
	end
	if list.size() > 0 then
		rsync_list(inlet, list)
	else
		inlet.discardEvent((inlet.getEvent()))
	end
end

------------------------------------------------------------------------------------------------------------ rsyncssh

local rsyncssh = {
	default.rsync,
	onMove = true,
	maxProcesses = 1,
	rsyncExitCodes = rsync_codes,
	sshExitCodes = default.sshExitCodes,
	ssh = { binary = "ssh", _extra = {} },
}
default.rsyncssh = rsyncssh

rsyncssh.checkgauge = {
	default.rsync.checkgauge,
	target = false, onMove = true, host = true, targetdir = true, sshExitCodes = true, rsyncExitCodes = true,
	ssh = gauge[[binary identityFile options port _extra]],
}

local function ssh_words(ssh)
	local words = {}
	if ssh.identityFile then
		words = { "-i", ssh.identityFile }
	end
	local names = {}
	for name in pairs(ssh.options or {}) do
		names[#names + 1] = name
	end
	table.sort(names)
	for _, name in ipairs(names) do
		words[#words + 1] = "-o"
		words[#words + 1] = name .. "=" .. tostring(ssh.options[name])
	end
	if ssh.port then
		words[#words + 1] = "-p"
		words[#words + 1] = tostring(ssh.port)
	end
	for _, word in ipairs(ssh._extra or {}) do
		words[#words + 1] = word
	end
	return words
end

function rsyncssh.prepare(config, level)
	level = level or 2
	if not config.host then
		error('default.rsyncssh needs "host" configured', level)
	elseif not config.targetdir then
		error('default.rsyncssh needs "targetdir" configured', level)
	elseif config.target then
		error('default.rsyncssh needs no "target": give "host" and "targetdir"', level)
	elseif config.maxProcesses and config.maxProcesses ~= 1 then
		error("default.rsyncssh must have maxProcesses set to 1.", level)
	end
	default.rsync.prepare(config, level + 1, true)
	if config.host:starts("-") then
		error('"host" begins with a hyphen: ssh would take it for an option', level)
	end
	config.targetdir = with_slash(config.targetdir)
	config.ssh._computed = ssh_words(config.ssh)
	if #config.ssh._computed > 0 and not config.rsync.rsh then
		local computed = config.rsync._computed
		computed[#computed + 1] = "--rsh=ssh " .. table.concat(config.ssh._computed, " ")
	end
end

local NOT_MOVED = 9  -- what the far side answers when the move failed

local function quoted(path)
	return "'" .. path:gsub("'", "'\"'\"'") .. "'"
end

function rsyncssh.action(inlet)
	local event, event2 = inlet.getEvent()
	local config = inlet.getConfig()
	if event.etype == "Move" then
		log("Normal", "Moving ", event.path, " -> ", event2.path)
		local from, to = quoted(config.targetdir .. event.path), quoted(config.targetdir .. event2.path)
		-- With a slash at the end rm would empty what a link leads to.
		local bare = quoted(config.targetdir .. event.pathname)
		-- A name that was not there to be moved is brought over instead: the exit code tells.
		local words, host = config.ssh._computed, config.host
		if config.tunnel then
			local data = inlet.getSubstitutionData(nil, {})
			words, host = substitudeCommands(words, data), substitudeCommands(host, data)
		end
		spawn(event, config.ssh.binary, core.kept_words(inlet, false), words, host, "mv", from, to, "||", "{", "rm", "-rf",
			bare .. ";", "exit", NOT_MOVED .. ";", "}")
		return
	end
	local list = core.all_changes(inlet, true)
	if list.size() > 0 then
		rsync_list(inlet, list)
	else
		inlet.discardEvent(event)
	end
end

function rsyncssh.collect(agent, code)
	local config = agent.config
	if not agent.isList and (agent.etype == "Init" or agent.etype == "Full") then
		return after_start(agent, config.rsyncExitCodes, code,
			'Startup of "' .. config.source .. '" finished: ' .. code)
	end
	local map, what = config.rsyncExitCodes, "(list)"
	if not agent.isList then
		map, what = config.sshExitCodes, agent.etype .. " " .. agent.sourcePath
	end
	local found = verdict(map, code)
	if agent.isList and code == 23 and found == "ok" then
		found = "again"
	elseif agent.etype == "Move" and code == NOT_MOVED then
		log("Normal", "Not there to be moved, so transferred: ", agent.sourcePath)
		core.bring_destination(agent)
		return "ok"
	end
	if found == "ok" then
		log("Normal", "Finished ", what, ": ", code)
	elseif found == "again" then
		log("Normal", "Retrying ", what, ": ", code)
	else
		log("Error", "Failure ", what, ": ", code)
		return "die"
	end
	return found
end

-------------------------------------------------------------------------------------------------------------- direct

local direct = {
	default.rsync,
	delay = 1,
	onMove = true,
	rsyncExitCodes = rsync_codes,
}
default.direct = direct

direct.checkgauge = { default.rsync.checkgauge, onMove = true, rsyncExitCodes = true }

function direct.action(inlet)
	local event, event2 = inlet.getEvent()
	local config = inlet.getConfig()
	local etype, target = event.etype, event.targetPath  -- each look at an event is a call of the host
	if target == "" or target:gsub("/", "") == "" or config.target:gsub("/", "") == "" then
		error("Refusing to touch the root directory as a target.")
	end
	if core.leads_out(config.target, event.pathdir) or event2 and core.leads_out(config.target, event2.pathdir) then
		log("Error", "A link, or a file, at the target is in the way of ", target, ": nothing was done there.")
		inlet.discardEvent(event)
	elseif etype == "Create" and event.isdir then
		spawn(event, "mkdir", "--", target)
	elseif etype == "Create" or etype == "Modify" then
		spawn(event, "cp", "-p", "--", event.sourcePath, event.targetPathdir)
	elseif etype == "Delete" then
		if deletes(config, "running") then
			spawn(event, "rm", "-rf", "--", event.targetPathname)
		else
			inlet.discardEvent(event)
		end
	elseif etype == "Move" then
		local script = 'mv -- "$1" "$2"'
		if deletes(config, "running") then
			script = script .. ' || rm -rf -- "${1%/}"'
		end
		spawn(event, "/bin/sh", "-c", script, "sh", target, event2.targetPath)
	else
		log("Warn", 'ignored an event of type "', etype, '"')
		inlet.discardEvent(event)
	end
end

function direct.collect(agent, code)
	if not agent.isList and (agent.etype == "Init" or agent.etype == "Full") then
		local config = agent.config
		return after_start(agent, config.rsyncExitCodes, code,
			'Startup of "' .. config.source .. '" finished: ' .. code)
	end
	return "ok"
end

-- What makes a sync one of the built-in kinds, for the host to recognize, whatever a configuration puts in their place.
return {
	rsync = {
		action = rsync.action, init = rsync.init, collect = default.collect, prepare = rsync.prepare,
		full = rsync.full, exitcodes = rsync_codes,
	},
	rsyncssh = {
		action = rsyncssh.action, init = rsync.init, collect = rsyncssh.collect, prepare = rsyncssh.prepare,
		full = rsync.full, exitcodes = rsync_codes,
	},
	direct = {
		action = direct.action, init = rsync.init, collect = direct.collect, prepare = rsync.prepare,
		full = rsync.full, exitcodes = rsync_codes,
	},
}
