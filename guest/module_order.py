#!/usr/bin/env python3
"""Prints the files of kernel modules and of what they depend on, in the order in which insmod must take them.

usage: module_order.py FOLDER MODULE...     FOLDER: lib/modules/VERSION of an unpacked kernel package

There is no depmod here, which is run when the package is installed: what a module needs is in its own .modinfo section."""

import os
import re
import sys


def needs(path):
    with open(path, "rb") as file:
        match = re.search(rb"\0depends=([^\0]*)\0", file.read())
    return [name for name in match.group(1).decode().split(",") if name] if match else []


def main():
    folder, wanted = sys.argv[1], sys.argv[2:]
    files = {}
    for where, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".ko"):
                files[name[:-3].replace("-", "_")] = os.path.join(where, name)
    with open(os.path.join(folder, "modules.builtin"), encoding="ascii") as file:
        builtin = {os.path.basename(line.strip())[:-3].replace("-", "_") for line in file}
    done = []

    def add(name):
        name = name.replace("-", "_")
        if name in builtin or files.get(name) in done:
            return
        if name not in files:
            sys.exit(f"module_order: no module {name} below {folder}")
        for needed in needs(files[name]):
            add(needed)
        done.append(files[name])

    for name in wanted:
        add(name)
    print("\n".join(done))


if __name__ == "__main__":
    main()
