#!/usr/bin/env python3
"""Runs a guest image of this folder under the engine under test, and under QEMU's TCG where it is installed, and
compares what its cases print with expected/IMAGE.txt and with each other.

The expectation is what the manuals say that hardware does. Where QEMU does something else, a row of
qemu_differences.py names the manual section that decides; a difference without a row is a failure, and so is a
pattern that no difference needs.

    guest_test.py IMAGE                 compare
    guest_test.py --accept IMAGE        write expected/IMAGE.txt from the engine under test: read the diff then
"""

import argparse
import difflib
import fnmatch
import os
import re
import shutil
import subprocess
import sys

import qemu_differences

HERE = os.path.dirname(os.path.abspath(__file__))
SCALE = float(os.environ.get("EIDOLON_TIME_SCALE", "1"))
DONE = 33  # the image's own exit value 0x10, as isa-debug-exit makes it
NOT_HERE = re.compile(r"n/a \((.*)\)$")


def command(program, image, cpu, append=""):
    arguments = program.split() + ["-machine", "q35", "-cpu", cpu, "-m", "64M", "-kernel", image]
    arguments += "-display none -nodefaults -serial null -monitor none -debugcon stdio -no-reboot".split()
    arguments += "-device isa-debug-exit,iobase=0xf4,iosize=4".split()
    return arguments + (["-append", append] if append else [])


def execute(arguments, limit):
    """(output, exit status or None for a time-out, stderr)"""
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": limit * SCALE, "check": False}
    try:
        done = subprocess.run(arguments, **options)
        return done.stdout.decode("latin-1"), done.returncode, done.stderr.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode("latin-1"), None, (late.stderr or b"").decode("utf-8", "replace")


def parse(text):
    """The cases in order: {name: what happened}."""
    return {m[1]: m[2] for m in re.finditer(r"^case ([^:\n]+):? ?(.*)$", text, re.M)}


def host_vendor():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        return "AuthenticAMD" if "AuthenticAMD" in info.read() else "GenuineIntel"


def other_vendor(name):
    return name.endswith("-intel" if host_vendor() == "AuthenticAMD" else "-amd")


def load_expected(image):
    with open(f"{HERE}/expected/{image}.txt", encoding="ascii") as file:
        lines = [line for line in file if not line.startswith("#")]
    return parse("".join(lines))


def compare_engine(got, expected):
    """Problems of the engine under test. A case that this CPU lacks is left out, one of the other vendor too."""
    problems = []
    for name, want in expected.items():
        if other_vendor(name):
            continue
        if name not in got:
            problems.append(f"{name}: missing (expected: {want})")
        elif got[name] != want and not NOT_HERE.match(got[name]):
            problems.append(f"{name}:\n    got      {got[name]}\n    expected {want}")
    problems += [f"{name}: not in the expectation: {text}" for name, text in got.items() if name not in expected]
    return problems


def difference_of(image, name):
    """(row, pattern) or None"""
    for row in qemu_differences.ROWS:
        for pattern in row.cases:
            if fnmatch.fnmatchcase(f"{image}/{name}", pattern):
                return row, pattern
    return None


def skipped_cases(image, expected):
    """Cases that QEMU does not survive."""
    return [name for name in expected if (found := difference_of(image, name)) and found[0].skip]


def compare_qemu(image, got, expected):
    problems, needed = [], set()
    for name, want in expected.items():
        if other_vendor(name):
            continue
        found = difference_of(image, name)
        text = got.get(name)
        if text is None:
            problems.append(f"QEMU, {name}: missing")
        elif text == want:
            continue
        elif found:
            needed.add(found[1])
        elif not NOT_HERE.match(text):
            problems.append(f"QEMU, {name}: no row in qemu_differences.py\n    QEMU     {text}\n    expected {want}")
    for row in qemu_differences.ROWS:
        for pattern in row.cases:
            if pattern.startswith(image + "/") and pattern not in needed and not pattern.endswith("-intel"):
                problems.append(f"qemu_differences.py: nothing needs {pattern}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eidolon", default="build/eidolon", help="the program, with options such as -accel interp")
    parser.add_argument("--qemu", default="qemu-system-x86_64", help="'' for none")
    parser.add_argument("--images", default="build/tests/guest", help="folder of the guest images")
    parser.add_argument("--accept", action="store_true", help="write the expectation from what the engine printed")
    parser.add_argument("--diff", action="store_true", help="also print every difference between the two")
    parser.add_argument("image")
    options = parser.parse_args()
    image = f"{options.images}/{options.image}.elf"

    text, status, errors = execute(command(options.eidolon, image, "max"), 60)
    got = parse(text)
    if options.accept:
        if status == DONE:
            accept(options.image, text)
        print(f"{len(got)} cases, exit status {status}")
        return status != DONE
    expected = load_expected(options.image)
    problems = [] if status == DONE else [f"exit status {status}\n{text[-300:]}\n{errors[-3000:]}"]
    problems += compare_engine(got, expected) if got else []
    absent = sum(1 for t in got.values() if NOT_HERE.match(t))
    print(f"{len(got)} cases, {absent} of them need what this CPU model does not have")

    if options.qemu and shutil.which(options.qemu.split()[0]):
        skip = ",".join(skipped_cases(options.image, expected))
        append = f"skip={skip}" if skip else ""
        arguments = command(options.qemu + " -accel tcg", image, f"max,vendor={host_vendor()}", append)
        for _ in range(3):  # QEMU's timers depend on how busy the host is: what it does every time counts
            qemu_text, qemu_status, _ = execute(arguments, 60)
            qemu = parse(qemu_text)
            found = compare_qemu(options.image, qemu, expected) if qemu else []
            if qemu_status != DONE:
                found.append(f"QEMU: exit status {qemu_status}, {qemu_text[-200:]}")
            if not found:
                break
        problems += found
        print(f"QEMU: {sum(1 for n, t in qemu.items() if t == expected.get(n))} cases agree")
        if options.diff:
            both = text.split("\n"), qemu_text.split("\n")
            print("\n".join(difflib.unified_diff(*both, "engine", "QEMU", lineterm="", n=0)))
    else:
        print("QEMU is not installed: not compared with it")
    print("\n".join(problems))
    return 1 if problems else 0


def accept(image, text):
    """Keeps the head of the file, and the cases that this host cannot run."""
    path = f"{HERE}/expected/{image}.txt"
    old = {}
    head = "# What the cases of this image print: see guest_test.py.\n"
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            head = "".join(line for line in file if line.startswith("#"))
        old = load_expected(image)
    with open(path, "w", encoding="ascii") as file:
        file.write(head)
        for name, result in parse(text).items():
            if NOT_HERE.match(result) and name in old:
                result = old[name]
            file.write(f"case {name}: {result}\n")
        for name, result in old.items():
            if other_vendor(name):
                file.write(f"case {name}: {result}\n")


if __name__ == "__main__":
    sys.exit(main())
