-- What a configuration expects of Lua itself: the library of the Lua 5.3 that distributions build lsyncd with, where the
-- one in lupa lacks something, and lsyncd's small additions to it. Runs first, with the primitives of the host.

local core = ...

--------------------------------------------------------------------------------------------------------------- words

function string.starts(text, beginning)
	return string.sub(text, 1, string.len(beginning)) == tostring(beginning)
end

function string.ends(text, ending)
	return ending == "" or string.sub(text, -string.len(ending)) == tostring(ending)
end

function table.contains(list, value)
	for _, each in pairs(list) do
		if each == value then
			return true
		end
	end
	return false
end

-- Lua 5.3 as distributions build it still has these.
if not bit32 then
	local function word(value)
		return math.floor(value) & 0xffffffff
	end
	local function all(combine, start)
		return function(...)
			local found = start
			for n = 1, select("#", ...) do
				found = combine(found, word((select(n, ...))))
			end
			return found
		end
	end
	local function shift(value, by)  -- to the left; to the right where it is negative
		if by <= -32 or by >= 32 then
			return 0
		end
		return word(by >= 0 and word(value) << by or word(value) >> -by)
	end
	local function mask(width)
		return (1 << (width or 1)) - 1
	end
	bit32 = {
		band = all(function(a, b) return a & b end, 0xffffffff),
		bor = all(function(a, b) return a | b end, 0),
		bxor = all(function(a, b) return a ~ b end, 0),
		bnot = function(a) return ~word(a) & 0xffffffff end,
		lshift = shift,
		rshift = function(a, by) return shift(a, -by) end,
		arshift = function(a, by)
			local high = by > 0 and word(a) >= 0x80000000 and ~shift(0xffffffff, -by) & 0xffffffff or 0
			return shift(a, -by) | high
		end,
		lrotate = function(a, by) return shift(a, by % 32) | shift(a, by % 32 - 32) end,
		rrotate = function(a, by) return shift(a, -by % 32) | shift(a, -by % 32 - 32) end,
		extract = function(a, at, width) return word(a) >> at & mask(width) end,
		replace = function(a, by, at, width)
			return word(a) & ~(mask(width) << at) | (word(by) & mask(width)) << at
		end,
	}
	function bit32.btest(...)
		return bit32.band(...) ~= 0
	end
end
math.pow = math.pow or function(a, b) return a ^ b end
math.log10 = math.log10 or function(a) return math.log(a, 10) end
math.ldexp = math.ldexp or function(a, b) return a * 2.0 ^ b end
math.atan2 = math.atan2 or function(y, x) return math.atan(y, x) end
math.cosh = math.cosh or function(a) return (math.exp(a) + math.exp(-a)) / 2 end
math.sinh = math.sinh or function(a) return (math.exp(a) - math.exp(-a)) / 2 end
math.tanh = math.tanh or function(a) return 1 - 2 / (math.exp(2 * a) + 1) end
math.frexp = math.frexp or function(a)
	if a == 0 or a ~= a or a == math.huge or a == -math.huge then
		return a, 0
	end
	local exponent = 0
	while math.abs(a) >= 1 do
		a, exponent = a / 2, exponent + 1
	end
	while math.abs(a) < 0.5 do
		a, exponent = a * 2, exponent - 1
	end
	return a, exponent
end

--------------------------------------------------------------------------------------------------------------- shell

-- What a command came to, as Lua tells it.
local function outcome(kind, code)
	return kind == "exit" and code == 0 or nil, kind, code
end

function os.execute(given)
	if given == nil then
		return true
	end
	return outcome(core.execute(tostring(given)))
end

local Pipe = {}  -- the key under which a pipe keeps its file and its command's number
local pipe_functions = {}
local is_pipe = { __index = pipe_functions, __name = "FILE*" }

for _, name in ipairs{ "read", "lines", "write", "flush", "seek", "setvbuf" } do
	pipe_functions[name] = function(self, ...)
		local file = rawget(self, Pipe).file
		local found = table.pack(file[name](file, ...))
		if found[1] == file then
			return self
		end
		return table.unpack(found, 1, found.n)
	end
end

function pipe_functions.close(self)
	local pipe = rawget(self, Pipe)
	pipe.file:close()
	return outcome(core.pclose(pipe.number))
end

function io.popen(given, mode)
	mode = mode or "r"
	if mode ~= "r" and mode ~= "w" then
		error("bad argument #2 to 'popen' (invalid mode)", 2)
	end
	local number, place = core.popen(tostring(given), mode)
	if number < 0 then
		return nil, tostring(given) .. ": " .. place
	end
	local file = assert(io.open(place, mode))
	core.popened(number)
	return setmetatable({ [Pipe] = { file = file, number = number } }, is_pipe)
end

do
	local close, kind = io.close, io.type
	function io.close(file)
		if getmetatable(file) == is_pipe then
			return file:close()
		elseif file == nil then
			return close()
		end
		return close(file)
	end
	function io.type(file)
		return kind(getmetatable(file) == is_pipe and rawget(file, Pipe).file or file)
	end
end

--------------------------------------------------------------------------------------------------------------- queue

-- Values by positions that stay theirs; new ones come at the end, or are injected before the first.
Queue = {}
Queue.__index = Queue

function Queue.new()
	return setmetatable({ first = 1, last = 0, count = 0 }, Queue)
end

function Queue:push(value)
	self.last = self.last + 1
	self[self.last] = value
	self.count = self.count + 1
	return self.last
end

function Queue:inject(value)
	self.first = self.first - 1
	self[self.first] = value
	self.count = self.count + 1
	return self.first
end

-- Takes the value at a position out; nil where there is none.
function Queue:remove(position)
	local value = self[position]
	if value == nil then
		return nil
	end
	self[position] = nil
	self.count = self.count - 1
	while self.first <= self.last and self[self.first] == nil do
		self.first = self.first + 1
	end
	while self.last >= self.first and self[self.last] == nil do
		self.last = self.last - 1
	end
	return value
end

function Queue:size()
	return self.count
end
