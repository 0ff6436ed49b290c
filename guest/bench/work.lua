-- The Lua workload: calls, tables, strings, floating point. Argument: units. Each unit must give the same checksum.
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end

local function sorted(count)
    local items, x = {}, 42
    for i = 1, count do
        x = (x * 1103515245 + 12345) & 0x7fffffff
        items[i] = x
    end
    table.sort(items)
    return items[1] ~ items[count // 2] ~ items[count]
end

local function words(times)
    local text, count, keys = string.rep("the quick brown fox jumps over the lazy dog ", times), {}, {}
    for word in text:gmatch("%a+") do count[word] = (count[word] or 0) + 1 end
    for word, number in pairs(count) do keys[#keys + 1] = word .. "=" .. number end
    table.sort(keys)
    return table.concat(keys, " ")
end

local function waves(count)
    local sum = 0.0
    for i = 1, count do sum = sum + math.sqrt(i) * (i % 7) / (1 + i % 11) end
    return string.format("%.9g", sum)
end

local Point = {}
Point.__index = Point
function Point.new(x, y) return setmetatable({ x = x, y = y }, Point) end
function Point:add(other) return Point.new(self.x + other.x, self.y - other.y) end

local function objects(count)
    local sum, step = Point.new(0, 0), Point.new(3, 4)
    for _ = 1, count do sum = sum:add(step) end
    return sum.x * 7 + sum.y
end

local first
for unit = 1, tonumber(arg[1]) do
    local result = table.concat({ fib(18), sorted(2000), words(50), waves(5000), objects(5000) }, " ")
    first = first or result
    assert(result == first, "unit " .. unit)
end
print(first)
