python3 -S -E - <<'PYTHON'
import hashlib, json, math, re, struct, zlib, decimal, random, collections
random.seed(1)
data = bytes(random.getrandbits(8) for _ in range(20000))
print("hash", hashlib.sha256(data).hexdigest(), zlib.crc32(data), zlib.adler32(data))
print("zlib", zlib.decompress(zlib.compress(data, 6)) == data)
print("float", math.fsum(math.sin(i) / (i + 1) for i in range(5000)), math.gamma(10.5), float.hex(2 ** 0.5))
print("int", pow(3, 1000, 2 ** 127 - 1), math.factorial(60) // 7 ** 20, (1 << 200) % 1000003)
decimal.getcontext().prec = 60
print("decimal", decimal.Decimal(2).sqrt(), decimal.Decimal(1) / 7)
print("json", json.dumps(json.loads('{"a": [1, 2.5, null, true], "b": {"c": "\\u00e9"}}'), sort_keys=True))
print("re", len(re.findall(r"\b(\w)\w*\1\b", "level noon eidolon civic test stats " * 50)))
print("count", collections.Counter(data).most_common(3), struct.pack("<dQf", 1.5, 2 ** 63, 0.1).hex())
PYTHON
