#!/usr/bin/env python3
"""Compares what the translator makes of the sequences (the program codegen) with expected.txt.

    codegen_test.py PROGRAM             fails if anything changed
    codegen_test.py --accept PROGRAM    writes expected.txt, and says what changed (./dev codegen does this)

Fewer instructions are not always faster: what counts is ./dev bench. This shows what a change touches, and that it touches
what it was meant to.
"""

import argparse
import os
import subprocess
import sys

import assemble

HERE = os.path.dirname(os.path.abspath(__file__))
EXPECTED = os.path.join(HERE, "expected.txt")
SKIPPED = 77


def parse(text):
    """(column names, {(section, title): counts}), in order."""
    lines = [line for line in text.splitlines() if line]
    names = [name.strip() for name in lines[0].split("|")[1:]] if lines else []
    rows, section = {}, ""
    for line in lines[1:]:
        if line.startswith("["):
            section = line[1:-1]
            continue
        title, *counts = line.split("|")
        section = "" if title.strip() == "total" else section
        rows[section, title.strip()] = [int(count) for count in counts]
    return names, rows


def describe(key):
    return ": ".join(part for part in key if part)


def changed_counts(names, old, new):
    return ", ".join(f"{name} {a}" if a == b else f"{name} {a} -> {b}" for name, a, b in zip(names, old, new)
                     if a != b or name in ("hot", "bytes"))


def differences(expected, actual):
    """Lines; none: the same."""
    old_names, old = parse(expected)
    names, new = parse(actual)
    lines = []
    if old and old_names != names:
        return ["other columns than before"]
    better = worse = 0
    hot = names.index("hot")
    for key, counts in new.items():
        if key not in old:
            lines.append(f"+ {describe(key)}: " + ", ".join(f"{name} {count}" for name, count in zip(names, counts)))
        elif counts != old[key]:
            lines.append(f"  {describe(key)}: {changed_counts(names, old[key], counts)}")
            if key[0]:
                better += counts[hot] < old[key][hot]
                worse += counts[hot] > old[key][hot]
    lines += [f"- {describe(key)}" for key in old if key not in new]
    if not lines and expected != actual:
        lines.append("the order of the lines")
    if lines:
        lines.append(f"  {better} sequences with fewer hot instructions, {worse} with more")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("program")
    options = parser.parse_args()

    if assemble.digest() != assemble.checked_in_digest():
        sys.exit("sequences.def was made of other sequences/*.txt than these: run ./dev codegen")
    result = subprocess.run([options.program], check=False, stdout=subprocess.PIPE, text=True)
    if result.returncode == SKIPPED and not options.accept:
        sys.exit(SKIPPED)
    if result.returncode:
        sys.exit(f"{options.program}: status {result.returncode}")
    expected = ""
    if os.path.exists(EXPECTED):
        with open(EXPECTED, encoding="ascii") as file:
            expected = file.read()
    found = differences(expected, result.stdout)
    print("\n".join(found) if found else "no change")
    if options.accept:
        with open(EXPECTED, "w", encoding="ascii") as file:
            file.write(result.stdout)
    elif found:
        sys.exit("the translator makes other code than expected.txt says: if that is meant, run ./dev codegen and commit the file")


if __name__ == "__main__":
    main()
