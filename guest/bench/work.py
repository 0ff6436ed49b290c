"""The Python workload: objects, dictionaries, comprehensions, big integers, json, regular expressions. Argument: units."""
import json
import re
import sys


class Node:
    __slots__ = ("key", "left", "right")

    def __init__(self, key):
        self.key, self.left, self.right = key, None, None


def tree(count):
    root, x, depth = Node(1 << 30), 7, 0
    for _ in range(count):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
        node, level = root, 0
        while True:
            side = "left" if x < node.key else "right"
            child = getattr(node, side)
            level += 1
            if child is None:
                setattr(node, side, Node(x))
                break
            node = child
        depth = max(depth, level)
    return depth


def primes(limit):
    sieve = bytearray([1]) * limit
    for i in range(2, int(limit ** 0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, limit, i)))
    return sum(sieve) - 2


def documents(count):
    data = [{"id": i, "name": f"item {i % 17}", "price": i / 8, "tags": [str(j) for j in range(i % 5)]} for i in range(count)]
    again = json.loads(json.dumps(data, sort_keys=True))
    totals = {}
    for row in again:
        totals[row["name"]] = totals.get(row["name"], 0) + row["price"] * len(row["tags"])
    return sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))[:3]


def unit():
    text = " ".join(f"level{i} noon{i * 7 % 13} civic eidolon" for i in range(150))
    return (tree(600), primes(20000), documents(150), pow(3, 2000, 2 ** 521 - 1) % 1000007,
            len(re.findall(r"\b(\w)\w*?(\d+)\b", text)), sum(len(w) for w in sorted(set(text.split()))))


first = unit()
for number in range(1, int(sys.argv[1])):
    if unit() != first:
        sys.exit(f"unit {number}")
print(first)
