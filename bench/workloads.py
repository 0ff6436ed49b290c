"""The list of workloads (the file `workloads` beside this one), which is also part of the guest image, where guest/programs/bench/run.c reads it."""

import os
import re
from dataclasses import dataclass

GROUPS = {
    "integer": "integer and scripting",
    "vector": "floating point, vector and crypto",
    "system": "system",
}


@dataclass(frozen=True)
class Workload:
    name: str
    group: str
    units: int


def read(path=os.path.join(os.path.dirname(os.path.abspath(__file__)), "workloads")):
    found = []
    with open(path, encoding="ascii") as lines:
        for line in lines:
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            name, group, units = words[0], words[1], int(words[2])
            if group not in GROUPS or units <= 0 or len(words) < 4:
                raise ValueError(f"{path}: {line.strip()}")
            found.append(Workload(name, group, units))
    return found


def select(workloads, pattern):
    return [w for w in workloads if re.search(pattern, w.name)] if pattern else list(workloads)
