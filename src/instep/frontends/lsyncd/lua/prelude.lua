-- The world that a configuration finds: sync, settings, spawn, log and the objects that are handed to its functions.
-- Runs once, with the primitives of the host as its only argument; answers with what the host calls.
-- Everything that must not be forged lives in locals. Positions in messages are those of the caller: error(msg, level).

local core = ...

lsyncd_version = core.version()

local raise_at = 2  -- the level of whoever called the function that complains

---------------------------------------------------------------------------------------------------------------- time

local Time = {}

local function timestamp(seconds)
	return setmetatable({ [Time] = seconds }, Time)
end

local function seconds_of(value)
	return type(value) == "table" and rawget(value, Time) or nil
end

Time.__index = function(self, name)
	if name == "seconds" then
		return rawget(self, Time)
	elseif name == "string" then
		return string.format("%.2f", rawget(self, Time))
	end
end
Time.__add = function(a, b)
	local one, other = seconds_of(a), seconds_of(b)
	if one and other then
		error("Cannot add two timestamps.", raise_at)
	end
	return timestamp((one or a) + (other or b))
end
Time.__sub = function(a, b)
	local one, other = seconds_of(a), seconds_of(b)
	if one and other then
		return one - other
	elseif not one then
		error("Cannot subtract a timestamp from a number.", raise_at)
	end
	return timestamp(one - b)
end
Time.__eq = function(a, b) return seconds_of(a) == seconds_of(b) end
Time.__lt = function(a, b) return seconds_of(a) < seconds_of(b) end
Time.__le = function(a, b) return seconds_of(a) <= seconds_of(b) end
Time.__concat = function(a, b)
	local function text(value)
		return seconds_of(value) and value.string or value
	end
	return text(a) .. text(b)
end

function now()
	return timestamp(core.now())
end

----------------------------------------------------------------------------------------------------------------- log

local function shown(value)
	local kind = type(value)
	if kind == "string" then
		return value
	elseif kind == "number" then
		return tostring(value)
	elseif seconds_of(value) then
		return "(Timestamp: " .. value.string .. ")"
	elseif kind == "table" then
		return "(Table: " .. tostring(value):gsub("^table: ", "") .. ")"
	end
	return "(" .. tostring(value) .. ")"
end

function log(category, ...)
	category = core.text(category, "the category of a log line", raise_at)
	local words = {}
	for n = 1, select("#", ...) do
		words[n] = shown((select(n, ...)))
	end
	core.log(category, table.concat(words))
end

function terminate(code)
	if type(tonumber(code)) ~= "number" then
		error("terminate needs a number", raise_at)
	end
	core.terminate(tonumber(code))
	error("terminating")
end

function readdir(path)
	path = core.text(path, "the path for readdir", raise_at)
	local names = core.readdir(path)
	if not names then
		log("Error", "Cannot open dir ", path, ".")
	end
	return names
end

-- Calls one function whenever a descriptor can be read, another whenever it can be written; nil: of no interest.
function observefd(fd, ready, writey)
	if math.type(fd) ~= "integer" or fd < 0 or fd >= 1 << 31 then
		error("observefd needs a file descriptor", raise_at)
	end
	core.observe(fd, ready and function() ready(fd) end or nil, writey and function() writey(fd) end or nil)
end

function nonobservefd(fd)
	core.observe(fd, nil, nil)
end

function dump(value)
	if type(value) ~= "table" then
		return shown(value)
	end
	local parts = {}
	for key, each in pairs(value) do
		parts[#parts + 1] = "[" .. shown(key) .. "] = " .. dump(each)
	end
	return "{ " .. table.concat(parts, ", ") .. " }"
end

-- The table of 2.3, without what takes part in the inside of that program.
lsyncd = {
	log = log, now = now, readdir = readdir, terminate = terminate, dump = dump,
	observe_fd = observefd, nonobserve_fd = nonobservefd,
	get_free_port = core.free_port,
	get_file_size = function(path) return core.size(core.text(path, "the path for get_file_size", raise_at)) end,
	get_process_info = function() return core.processes() end,
	jiffies_from_seconds = timestamp,
	kill = core.kill,
	realdir = function(path) return core.realdir(core.text(path, "the path for realdir", raise_at)) end,
	splitQuotedString = function(text)
		return core.split(core.text(text, "what splitQuotedString is given", raise_at))
	end,
	stackdump = function() log("Error", debug.traceback("", 2)) end,
}

------------------------------------------------------------------------------------------------------------ settings

local values = {}
settings = setmetatable({}, {
	__call = function(_, given)
		if type(given) ~= "table" then
			return values[given]
		end
		for key, value in pairs(given) do
			if type(key) == "number" then
				key, value = value, true
			end
			values[key] = core.setting(key, value, raise_at)
		end
	end,
	__index = function(_, key)
		return values[key]
	end,
	__newindex = function(_, key, value)
		values[key] = core.setting(key, value, raise_at)
		log("Warn", "settings.", key, " = ... is the style of 2.0; write settings{ ", key, " = ... }")
	end,
})
local settings_object = settings

------------------------------------------------------------------------------------------------------------- tunnels

local Tunneled = {}  -- the key, and the metatable, of what tunnel{ ... } answers

-- Replaces ^name and ${name} by the values for these names, in a text or in all texts of a list.
function substitudeCommands(given, data)
	if type(given) == "table" then
		local found = {}
		for n, each in ipairs(given) do
			found[n] = substitudeCommands(each, data)
		end
		return found
	end
	local function value(whole, name)
		return data[name] and tostring(data[name]) or whole
	end
	return (tostring(given):gsub("(%^(%a+))", value):gsub("(%${(%a+)})", value))
end

local tunnel_keys = {
	command = true, mode = true, parallel = true, readyDelay = true, retryDelay = true, localhost = true, name = true,
	checkExitCodes = true,
}

function tunnel(given)
	if type(given) ~= "table" or given.command == nil then
		error('tunnel needs a "command"', raise_at)
	end
	for key in pairs(given) do
		if not tunnel_keys[key] then
			error('Parameter "tunnel.' .. tostring(key) .. '" unknown.', raise_at)
		end
	end
	if given.mode ~= nil and given.mode ~= "command" and given.mode ~= "pool" then
		error('"tunnel.mode" must be "command" or "pool"', raise_at)
	end
	local words = {}
	if type(given.command) == "table" then
		for n, word in ipairs(given.command) do
			words[n] = core.text(word, '"tunnel.command"', raise_at)
		end
	else
		words = core.split(core.text(given.command, '"tunnel.command"', raise_at))
	end
	if not words or #words == 0 then
		error('"tunnel.command" is not to be understood: close the quotes, and name a program', raise_at)
	end
	local most = 86400  -- programs, or seconds
	local count = given.mode == "pool" and given.parallel or 1
	for name, number in pairs{ parallel = count, readyDelay = given.readyDelay or 0, retryDelay = given.retryDelay or 0 } do
		if type(number) ~= "number" or not (number >= (name == "parallel" and 1 or 0) and number <= most) then
			error('"tunnel.' .. name .. '" must be a number, at most ' .. most, raise_at)
		end
	end
	local number = core.tunnel(words, core.text(given.name or "", '"tunnel.name"', raise_at),
		core.text(given.localhost or "localhost", '"tunnel.localhost"', raise_at), count, given.readyDelay or 5,
		given.retryDelay or 10)
	return setmetatable({ [Tunneled] = number }, Tunneled)
end

-------------------------------------------------------------------------------------------------------- inheritance

-- Copies what is not there yet: first the named keys, then, in order, what is inherited by position.
local function inherit(into, from, by_key)
	by_key = by_key or from._verbatim == true
	local only = type(from._merge) == "table" and from._merge or nil
	local function wanted(key)
		return key ~= "_verbatim" and key ~= "_merge" and (not only or only[key])
	end
	local function take(key, value)
		local have = rawget(into, key)
		if type(value) ~= "table" or getmetatable(value) then
			if have == nil then
				into[key] = value
			end
		elseif have == nil then
			local copy = {}
			inherit(copy, value, key == "exitcodes")
			into[key] = copy
		elseif type(have) == "table" and value._merge ~= false then
			inherit(have, value, key == "exitcodes")
		end
	end
	for key, value in pairs(from) do
		if (type(key) ~= "number" or by_key) and wanted(key) then
			take(key, value)
		end
	end
	if by_key then
		for _, value in ipairs(from) do
			if type(value) == "table" then
				inherit(into, value, true)
			end
		end
		return into
	end
	for _, value in ipairs(from) do
		if type(value) == "table" and not getmetatable(value) then
			inherit(into, value)
		else
			into[#into + 1] = value
		end
	end
	return into
end

--------------------------------------------------------------------------------------------------------------- events

local Hidden = {}  -- the key under which an object keeps what identifies it
local syncs = {}  -- by number: { number, config, inlet }
local objects = {}  -- the object of each entry, by the entry's ident; the same one until the entry is gone

local event_fields = {}

local function part(name)
	return function(ident)
		return core.field(ident, name)
	end
end

for _, name in ipairs{ "etype", "status", "isdir", "name", "basename", "path", "pathname", "pathdir" } do
	event_fields[name] = part(name)
end
event_fields.isList = function() return false end
event_fields.config = function(_, sync) return sync.config end
event_fields.inlet = function(_, sync) return sync.inlet end
event_fields.source = function(_, sync) return sync.config.source end
event_fields.target = function(_, sync) return sync.config.target end
for _, side in ipairs{ "source", "target" } do
	for _, name in ipairs{ "Path", "Pathname", "Pathdir" } do
		event_fields[side .. name] = function(ident, sync)
			local root = sync.config[side]
			if not root then
				error("the sync has no " .. side, 3)
			end
			return root .. core.field(ident, name == "Pathdir" and "below_dir" or "below_" .. name:lower())
		end
	end
end
event_fields.move = function(_, _, side) return side end

local Event = {
	__index = function(self, name)
		local field = event_fields[name]
		if not field then
			if type(name) ~= "string" then
				return nil
			end
			error('event does not have field "' .. tostring(name) .. '"', raise_at)
		end
		local hidden = rawget(self, Hidden)
		return field(hidden.handle, hidden.sync, hidden.side)
	end,
}

-- The object, or the two of a move, for an entry.
local function event_of(sync, ident)
	local known = objects[ident]
	if not known then
		local is_move = core.hold(ident)
		known = { setmetatable({ [Hidden] = { ident = ident, handle = ident, sync = sync, side = is_move and "Fr" or nil } }, Event) }
		if is_move then
			-- The destination is the same entry, looked at from its other end.
			known[2] = setmetatable({ [Hidden] = { ident = ident, handle = -1 - ident, sync = sync, side = "To" } }, Event)
		end
		objects[ident] = known
	end
	return known[1], known[2]
end

local list_functions = {}

function list_functions.getPaths(entries)
	return function(change)
		local told, paths, count = core.told(entries), {}, 0
		for at = 1, #told, 3 do
			local path, path2 = told[at + 1], told[at + 2] or nil
			if change then
				path, path2 = change(told[at], path, path2)
			end
			if path ~= nil then
				count = count + 1
				paths[count] = path
			end
			if path2 ~= nil then
				count = count + 1
				paths[count] = path2
			end
		end
		return paths
	end
end

function list_functions.size(entries)
	return function() return core.count(entries) end
end

function list_functions.getList(entries, sync)
	return function()
		local found = {}
		for n, ident in ipairs(core.events(sync.number, entries)) do
			found[n] = event_of(sync, ident)
		end
		return found
	end
end

local List = {
	__index = function(self, name)
		local hidden = rawget(self, Hidden)
		if name == "isList" then
			return true
		elseif name == "config" then
			return hidden.sync.config
		elseif name == "inlet" then
			return hidden.sync.inlet
		elseif name == "status" then
			return core.list_status(hidden.entries)
		elseif name == "etype" then
			return "List"
		elseif list_functions[name] then
			return list_functions[name](hidden.entries, hidden.sync)
		elseif type(name) ~= "string" then
			return nil
		end
		error('event list does not have function "' .. tostring(name) .. '"', raise_at)
	end,
}

-- What the host knows an event, or a list of events, by; nothing of it is for configurations to see.
local function entries_of(agent)
	local hidden = type(agent) == "table" and rawget(agent, Hidden)
	if not hidden then
		return nil
	end
	return hidden.entries or core.single(hidden.ident), hidden.sync
end

---------------------------------------------------------------------------------------------------------------- inlet

local inlet_functions = {}

function inlet_functions.getEvent(sync)
	local ident = core.next_event(sync.number)
	if not ident then
		error("There is no event to get.", raise_at)
	end
	return event_of(sync, ident)
end

function inlet_functions.getEvents(sync, test)
	local entries = core.batch(sync.number, test and function(ident)
		return test(event_of(sync, ident))
	end or nil)
	return setmetatable({ [Hidden] = { entries = entries, sync = sync } }, List)
end

function inlet_functions.discardEvent(_, event)
	local entries, sync = entries_of(event)
	if not entries then
		error("discardEvent needs an event", raise_at)
	end
	core.discard(sync.number, entries)
end

function inlet_functions.getConfig(sync)
	return sync.config
end

function inlet_functions.addExclude(sync, pattern)
	local wrong = core.exclude(sync.number, core.text(pattern, "a pattern", raise_at))
	if wrong then
		error(wrong, raise_at)
	end
end

function inlet_functions.rmExclude(sync, pattern)
	pattern = core.text(pattern, "a pattern", raise_at)
	if not core.include_again(sync.number, pattern) then
		log("Normal", 'Removing not excluded exclude "', pattern, '"')
	end
end

function inlet_functions.getExcludes(sync)
	return core.excludes(sync.number)
end

function inlet_functions.appendFilter(sync, rule, pattern)
	rule = core.text(rule, "a rule", raise_at)
	if pattern ~= nil then
		rule = rule .. " " .. core.text(pattern, "a pattern", raise_at)
	end
	local wrong = core.filter(sync.number, rule)
	if wrong then
		error(wrong, raise_at)
	end
end

-- The rules, and behind them the excludes as rules.
function inlet_functions.getFilters(sync)
	local found = core.filters(sync.number)
	for _, pattern in ipairs(core.excludes(sync.number)) do
		found[#found + 1] = "- " .. pattern
	end
	return found
end

function inlet_functions.hasFilters(sync)
	return #core.filters(sync.number) > 0
end

function inlet_functions.createBlanketEvent(sync)
	return event_of(sync, core.special(sync.number, "Blanket", ""))
end

function inlet_functions.createFullEvent(sync, path)
	return event_of(sync, core.special(sync.number, "Full", path or "/"))
end

-- What a tunnel's variables stand for now; with what is in a table besides.
function inlet_functions.getSubstitutionData(sync, _, data)
	local found = {}
	for name, value in pairs(data or {}) do
		found[name] = value
	end
	for name, value in pairs(core.tunnel_values(sync.number)) do
		found[name] = value
	end
	return found
end

local sync_of = setmetatable({}, { __mode = "k" })  -- by inlet

local function make_inlet(sync)
	local bound = {}
	local inlet = setmetatable({}, {
		__index = function(_, name)
			local known = inlet_functions[name]
			if not known then
				if type(name) ~= "string" then
					return nil
				end
				error('inlet does not have function "' .. tostring(name) .. '"', raise_at)
			end
			bound[name] = bound[name] or function(...)
				return known(sync, ...)
			end
			return bound[name]
		end,
	})
	sync_of[inlet] = sync
	return inlet
end

-- For the defaults: what getEvents answers for a test that takes all changes, up to the first move if so asked; without
-- a call for each of them.
function core.all_changes(inlet, until_move)
	local sync = sync_of[inlet]
	return setmetatable({ [Hidden] = { entries = core.changes(sync.number, until_move), sync = sync } }, List)
end

-- For the defaults: the list for rsync, and the destination of a move as something new.
function core.include_list(list)
	return core.patterns((entries_of(list)))
end

-- The words by which ssh, or the ssh of rsync, goes over the connection that is kept for a sync.
function core.kept_words(inlet, for_rsync)
	local sync = sync_of[inlet]
	return sync and core.kept(sync.number, for_rsync) or {}
end

function core.bring_destination(event)
	core.bring(rawget(event, Hidden).ident)
end

-------------------------------------------------------------------------------------------------------------- programs

function spawn(agent, binary, ...)
	local entries, sync = entries_of(agent)
	if not entries then
		error("spawning with an invalid agent", raise_at)
	end
	local count = core.count(entries)
	if count == 0 and agent.isList then
		error("spawn() called on an empty list", raise_at)
	end
	if count == 0 or not core.all_waiting(entries) then
		error("spawn() called on an non-waiting event", raise_at)
	end
	if type(binary) ~= "string" then
		error("calling spawn(agent, binary, ...): binary is not a string", raise_at)
	end
	local words, stdin = { core.word(binary, "the name of a program", raise_at) }, nil
	local function add(value)
		for _, each in ipairs(type(value) == "table" and value or { value }) do
			words[#words + 1] = core.text(each, "an argument of a program", raise_at + 1)
		end
	end
	local from = 1
	if select(1, ...) == "<" then
		stdin = select(2, ...)
		if type(stdin) == "table" then
			stdin = table.concat(stdin)
		elseif type(stdin) == "number" then
			stdin = tostring(stdin)
		elseif stdin ~= nil and type(stdin) ~= "string" then
			error("what a program is to read must be a text", raise_at)
		end
		if stdin == "" then
			stdin = nil
		end
		from = 3
	end
	for n = from, select("#", ...) do
		add((select(n, ...)))
	end
	core.spawn(sync.number, entries, agent, words, stdin)
end

function spawnShell(agent, command, ...)
	return spawn(agent, "/bin/sh", "-c", command, "sh", ...)
end

function alarm(at, func, extra)
	local seconds = seconds_of(at)
	if not seconds or type(func) ~= "function" then
		error("alarm needs a timestamp and a function", raise_at)
	end
	core.alarm(seconds, function()
		func(timestamp(core.now()), extra)
	end)
end

---------------------------------------------------------------------------------------------------- commands as text

local variables = {}  -- in the order in which they are looked for, longer names before those they begin with
do
	local function define(prefix, names, destination)
		for _, name in ipairs(names) do
			variables[#variables + 1] = {
				name = "^" .. prefix .. name,
				value = function(origin, other)
					local event = origin
					if destination then
						event = other or error(
							"^" .. prefix .. name .. " is only known where something is moved (onMove)", 0)
					end
					return event[name]
				end,
			}
		end
	end
	define("", { "pathname", "pathdir", "path", "sourcePathname", "sourcePathdir", "sourcePath", "source",
		"targetPathname", "targetPathdir", "targetPath", "target" })
	local ends = { "pathname", "path", "sourcePathname", "sourcePathdir", "sourcePath", "targetPathname",
		"targetPathdir", "targetPath" }
	define("o.", ends)
	define("d.", ends, true)
end

local function replace_all(text, what, by)
	local out, at = {}, 1
	while true do
		local first, last = text:find(what, at, true)
		if not first then
			out[#out + 1] = text:sub(at)
			return table.concat(out), at > 1
		end
		out[#out + 1] = text:sub(at, first - 1)
		out[#out + 1] = by
		at = last + 1
	end
end

local function words_of(text)
	local words, word, quoted = {}, "", false
	for char in text:gmatch(".") do
		if char == " " and not quoted then
			if word ~= "" then
				words[#words + 1] = word
			end
			word = ""
		else
			if char == '"' then
				quoted = not quoted
			end
			word = word .. char
		end
	end
	if word ~= "" then
		words[#words + 1] = word
	end
	return words
end

-- A function that does what a command given as text says.
local function command(text)
	text = text:match("^%s*(.-)%s*$")
	if text:sub(1, 1) == "/" then
		local template = words_of(text)
		return function(event, event2)
			log("Normal", "Event ", event.etype, ' spawns action "', text, '"')
			local words = {}
			for n, word in ipairs(template) do
				for _, variable in ipairs(variables) do
					if word:find(variable.name, 1, true) then
						word = replace_all(word, variable.name, variable.value(event, event2))
					end
				end
				words[n] = word
			end
			spawn(event, table.unpack(words))
		end
	end
	if text:sub(1, 1) == "^" then
		text = text:sub(2)
	end
	local script, used = text, {}
	for _, variable in ipairs(variables) do
		local found
		local number = #used + 1
		-- The shell reads "$10" as $1 and a zero.
		script, found = replace_all(script, variable.name, number < 10 and '"$' .. number .. '"' or '"${' .. number .. '}"')
		if found then
			used[number] = variable
		end
	end
	return function(event, event2)
		local given, told = {}, text
		for n, variable in ipairs(used) do
			given[n] = variable.value(event, event2)
			told = replace_all(told, variable.name, given[n])
		end
		log("Normal", "Event ", event.etype, ' spawns shell "', told, '"')
		spawnShell(event, script, table.unpack(given))
	end
end

----------------------------------------------------------------------------------------------------------------- sync

default = {}

local initializing = true
local inherited = { "action", "checkgauge", "collect", "delay", "init", "maxDelays", "maxProcesses", "prepare" }

function sync(given)
	if not initializing then
		error("Sync can only be created during initialization.", raise_at)
	end
	if type(given) ~= "table" then
		error("sync needs a table", raise_at)
	end
	local config = inherit({}, given)
	local base = {}
	for _, name in ipairs(inherited) do
		base[name] = default[name]
	end
	inherit(config, base)
	for name, value in pairs(core.overrides()) do
		config[name] = value
	end
	if config.tunnel ~= nil and getmetatable(config.tunnel) ~= Tunneled then
		error('Parameter "tunnel" must be made by tunnel{ ... }', raise_at)
	end
	core.check_sync(config, raise_at)
	config.delay = config.delay or 0
	if type(config.prepare) == "function" then
		config.prepare(config, 3)
		core.check_sync(config, raise_at)  -- what it made of it
	end
	if not config.source then
		error("source missing from sync.", raise_at)
	end
	for _, name in ipairs{ "onAttrib", "onCreate", "onDelete", "onModify", "onMove", "onStartup", "onFull" } do
		if type(config[name]) == "string" then
			config[name] = command(config[name])
		end
	end
	local number = #syncs + 1
	local object = { number = number, config = config }
	object.inlet = make_inlet(object)
	local source, wrong = core.add(number, config)
	if not source then
		error(wrong, raise_at)
	end
	if config.tunnel then
		core.bind_tunnel(number, rawget(config.tunnel, Tunneled))
	end
	config._source = config.source
	config.source = source
	syncs[number] = object
	return object.inlet
end

local function lock()
	initializing = false
	if settings ~= settings_object and type(settings) == "table" then
		log("Warn", "settings = { ... } is the style of 2.0; write settings{ ... }")
		local old = settings
		settings = settings_object
		local fine, wrong = pcall(settings, old)
		if not fine then
			error("settings = { ... }: " .. tostring(wrong):gsub("^" .. core.origin .. "%S+ ", ""), 0)
		end
	end
	setmetatable(_G, {
		__index = function(_, name)
			if name ~= "_" and not tostring(name):starts("__") then
				error('Access of non-existing global "' .. tostring(name) .. '"', raise_at)
			end
		end,
		__newindex = function(self, name, value)
			if name ~= "_" and not tostring(name):starts("__") then
				error("Lsyncd does not allow GLOBALS to be created on the fly. Declare \"" .. tostring(name)
					.. "\" local or declare global on load.", raise_at)
			end
			rawset(self, name, value)
		end,
	})
end

---------------------------------------------------------------------------------------------------- called by the host

-- Where the configuration was when something went wrong, for what went wrong inside of what it called.
local function place()
	for level = 3, 100 do  -- what calls itself for ever has many more
		local frame = debug.getinfo(level, "Sl")
		if not frame then
			break
		elseif frame.currentline > 0 and not frame.short_src:starts(core.origin) then
			return frame.short_src .. ":" .. frame.currentline .. ": "
		end
	end
	return ""
end

local function traced(message)
	local text = type(message) == "string" and message or shown(message)
	if type(message) == "userdata" or text:starts(core.origin) then
		text = place() .. text
	end
	return { message = text, trace = debug.traceback("", 2) }
end

-- Calls one of the configuration's functions: true and what it answered, or false and what went wrong.
local function guarded(func, ...)
	local outcome = table.pack(xpcall(func, traced, ...))
	if outcome[1] then
		return true, outcome[2]
	end
	return false, outcome[2].message, outcome[2].trace
end

return {
	inherit = inherit,
	lock = function()
		return guarded(lock)
	end,
	values = values,
	load = function(text, name)
		local chunk, wrong = load(text, "@" .. name, "t")
		if not chunk then
			return false, wrong, ""
		end
		return guarded(chunk)
	end,
	call = function(func)
		return guarded(func)
	end,
	init = function(number, ident)
		local init = syncs[number].config.init
		if not init then
			return true
		end
		return guarded(init, (event_of(syncs[number], ident)))
	end,
	full = function(number, ident)
		local config = syncs[number].config
		local event = event_of(syncs[number], ident)
		if config.full then
			return guarded(config.full, event)
		end
		return guarded(config.action, syncs[number].inlet)
	end,
	action = function(number)
		return guarded(syncs[number].config.action, syncs[number].inlet)
	end,
	collect = function(number, agent, code)
		local collect = syncs[number].config.collect
		if not collect then
			return true
		end
		return guarded(collect, agent, code)
	end,
	gone = function(ident)
		objects[ident] = nil
		return true
	end,
	shown = shown,
}
