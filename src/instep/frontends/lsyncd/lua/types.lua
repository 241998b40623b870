-- Which values may stand where: in a sync, in its tables, in the settings, and as arguments. As in Lua itself a number
-- does where a text is wanted, and whatever is neither nil nor false is true. What is refused is refused where it was
-- written, before anything runs. A level is what the caller of these functions would give to error(). (No call is the
-- last thing that a function returns: such a call takes its caller's place on the stack.)

local core = ...

---------------------------------------------------------------------------------------------------------------- kinds

-- The value as it is meant; or nil, and what it should be.
local kinds = {}

function kinds.word(value)
	if type(value) ~= "string" then
		return nil, "must be a text"
	elseif value:find("\0", 1, true) then
		return nil, "holds a NUL byte, which no name and no argument of a program can"
	end
	return value
end

function kinds.text(value)
	return kinds.word(type(value) == "number" and tostring(value) or value)
end

-- What a configuration of its own may use as it likes; but a text that is one can be given to programs.
function kinds.any(value)
	if type(value) == "string" then
		return kinds.word(value)
	end
	return value
end

function kinds.flag(value)
	return value and true
end

function kinds.number(value)
	if type(value) ~= "number" or not (value >= 0) then
		return nil, "must be a number and >= 0"
	end
	return value
end

-- A name or a number, for syslog.
function kinds.facility(value)
	if type(value) ~= "number" and type(value) ~= "string" then
		return nil, "must be a number or string"
	end
	return value
end

kinds["function"] = function(value)
	if type(value) ~= "function" then
		return nil, "must be a function"
	end
	return value
end

function kinds.table(value)
	if type(value) ~= "table" then
		return nil, "must be a table"
	end
	return value
end

function kinds.texts(value)
	if type(value) ~= "table" then
		return nil, 'must be a list: { "..." }'
	end
	for key, each in pairs(value) do
		local text, wrong = kinds.text(each)
		if not text then
			return nil, "[" .. tostring(key) .. "] " .. wrong
		end
		value[key] = text
	end
	return value
end

local function checked(value, kind, what, level)
	local found, wrong = kinds[kind](value)
	if wrong then
		error(what .. " " .. wrong, level + 1)
	end
	return found
end

-- An argument that must be a text.
function core.text(value, what, level)
	return (checked(value, "text", what, level + 1))
end

-- As it, but a number is none: the name of a program.
function core.word(value, what, level)
	return (checked(value, "word", what, level + 1))
end

----------------------------------------------------------------------------------------------------------------- keys

-- { kind = "names" }, as a list of each name with its kind.
local function keys(by_kind)
	local found = {}
	for kind, names in pairs(by_kind) do
		for name in names:gmatch("%S+") do
			found[#found + 1] = { name = name, kind = kind }
		end
	end
	table.sort(found, function(one, other) return one.name < other.name end)
	return found
end

-- nil and false are for what is not given.
local function check(given, known, prefix, level)
	for _, key in ipairs(known) do
		local value = given[key.name]
		if value ~= nil and value ~= false then
			given[key.name] = checked(value, key.kind, '"' .. prefix .. key.name .. '"', level + 1)
		end
	end
end

local of_any_sync = keys{
	any = "target", text = "source name excludeFrom filterFrom", table = "checkgauge exitcodes",
	["function"] = "action collect init full",
}
local of_numbers = { "delay", "maxDelays", "maxProcesses" }
local of_patterns = { "exclude", "filter", "crontab" }
local of_built_in = keys{
	text = "target host targetdir", number = "batchSizeLimit", table = "rsync ssh rsyncExitCodes sshExitCodes",
}
local of_rsync = keys{
	word = "binary", texts = "_extra",
	text = "backup_dir bwlimit chmod chown groupmap password_file rsh rsync_path suffix temp_dir timeout usermap",
}
local of_ssh = keys{ word = "binary", texts = "_extra", text = "identityFile port", table = "options" }

-- What is read of every sync.
function core.check_sync(config, level)
	for _, name in ipairs(of_numbers) do
		local value = config[name]
		if value ~= nil then
			local _, wrong = kinds.number(value)
			if wrong then
				error(name .. " " .. wrong, level + 1)
			end
		end
	end
	check(config, of_any_sync, "", level + 1)
	for _, name in ipairs(of_patterns) do
		local value = config[name]
		if type(value) == "table" then
			checked(value, "texts", name, level + 1)
		elseif type(value) == "string" then
			checked(value, "word", name, level + 1)
		elseif value then
			error("type for " .. name .. " must be table or string", level + 1)
		end
	end
end

-- What the built-in kinds read besides.
function core.check_built_in(config, level)
	check(config, of_built_in, "", level + 1)
	for name, known in pairs{ rsync = of_rsync, ssh = of_ssh } do
		local given = config[name]
		if given then
			check(given, known, name .. ".", level + 1)
			if not given.binary then
				error('"' .. name .. '.binary" must be a text', level + 1)
			end
		end
	end
	for name, value in pairs(config.ssh and config.ssh.options or {}) do
		if type(name) ~= "string" then
			error('"ssh.options" must be a table of names and values: { Name = "value" }', level + 1)
		end
		checked(value, "text", '"ssh.options.' .. name .. '"', level + 1)
	end
	for _, name in ipairs{ "target", "targetdir" } do
		if config[name] == "" then
			error('"' .. name .. '" is empty: with the slash that is put behind it, it would be the root', level + 1)
		end
	end
end

------------------------------------------------------------------------------------------------------------- settings

local settings_kinds = {}
for _, key in ipairs(keys{
	text = "logfile pidfile logident statusFile inotifyMode", flag = "nodaemon insist onepass",
	number = "statusInterval maxProcesses maxDelays", facility = "logfacility",
}) do
	settings_kinds[key.name] = key.kind
end

-- Seen in configurations; they never meant anything.
local tolerated = {
	statusIntervall = 'write "statusInterval"', monitor = "leave it out", delay = "it belongs into a sync",
	log = "give it as an option, -log", verbose = "leave it out",
}

-- A setting's value as it is meant; nothing for one that has no effect.
function core.setting(key, value, level)
	if tolerated[key] then
		log("Warn", 'setting "', key, '" has no effect: ', tolerated[key], ".")
		return nil
	end
	local kind = settings_kinds[key]
	if not kind then
		error('setting "' .. tostring(key) .. '" unknown.', level + 1)
	elseif value == nil or value == false then
		return value
	end
	return (checked(value, kind, 'setting "' .. key .. '"', level + 1))
end
