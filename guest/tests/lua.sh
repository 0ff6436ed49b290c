lua5.4 - <<'LUA'
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
print("fib", fib(22))
local t, x = {}, 42
for i = 1, 20000 do x = (x * 1103515245 + 12345) & 0x7fffffff; t[i] = x end
table.sort(t)
print("sort", t[1], t[10000], t[20000])
local s = 0.0
for i = 1, 20000 do s = s + math.sin(i) * math.sqrt(i) / (1 + i % 7) end
print("float", string.format("%.17g %a", s, s))
local words = {}
for w in string.rep("the quick brown fox jumps over the lazy dog ", 200):gmatch("%a+") do words[w] = (words[w] or 0) + 1 end
local keys = {}
for k in pairs(words) do keys[#keys + 1] = k .. "=" .. words[k] end
table.sort(keys)
print(table.concat(keys, " "))
print(string.format("%q %5.2f %x %s", "a\nb", 3.14159, 255, tostring(2 ^ 53)), 7 // 2, -7 // 2, -7 % 3, 1 << 62)
LUA
