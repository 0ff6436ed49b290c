#!/usr/bin/env python3
"""Help and version: on stdout, nothing on stderr, exit status 0, in the forms that programs which start VMs look for."""

import re

import cli

tests = cli.Tests()
CASES = [
    (["-version"], r"^Eidolon emulator version \d+\.\d+"),
    (["--version"], r"version \d+\.\d+"),
    (["-help"], r"-kernel FILE(.|\n)*-no-reboot"),
    (["--help"], r"-append"),
    (["-h"], r"-serial"),
    (["-accel", "help"], r"^interp\b"),
    (["-M", "none", "-accel", "help"], r"^interp\b"),
    (["-cpu", "help"], r"\bmax\b(.|\n)*\bqemu64\b"),
    (["-cpu", "?"], r"\bx86-64-v2\b"),
    (["-machine", "help"], r"^q35 .*\(default\)"),
    (["-M", "?"], r"^none\b"),
    (["-device", "help"], r'^name "isa-debug-exit"'),
    (["-device", "?"], r'"isa-debug-exit"'),
    (["-device", "isa-debug-exit,help"], r"iobase=<uint32>"),
    (["-d", "help"], r"^guest_errors\b(.|\n)*^cpustats\b"),
    (["-display", "help"], r"^none$"),
    (["-nodefaults", "-m", "64", "-version"], r"version"),
]
for arguments, pattern in CASES:
    name = " ".join(arguments)
    result = tests.run(arguments)
    text = result.stdout.decode()
    tests.check(name, result.returncode == 0 and not result.stderr, f"status {result.returncode}, stderr {result.stderr}")
    tests.check(name, re.search(pattern, text, re.M), f"{pattern!r} not in {text!r}")

with open("/dev/full", "w", encoding="ascii") as full:
    import subprocess

    status = subprocess.run([*tests.program, "-help"], stdout=full, stderr=subprocess.DEVNULL, check=False).returncode
    tests.check("-help to a full disk", status == 1, status)
tests.finish()
