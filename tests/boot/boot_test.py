#!/usr/bin/env python3
"""Runs one boot test of the table in boot_cases.py: starts the emulator, feeds nothing, reads the
serial console, and compares output, exit status and time with what the case says.

The program under test comes from --eidolon or the environment variable EIDOLON (which wins, so that another
emulator with the same command line can stand in, to test the tests).
"""

import argparse
import os
import re
import select
import signal
import subprocess
import sys
import time

import boot_cases

ANSI = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|c)")


def clean(raw):
    return ANSI.sub("", raw.decode("utf-8", "replace")).replace("\r", "")


def run(command, until, limit):
    """Returns (output, status, seconds to init or None, timed out). status None: ended by us after `until`."""
    # stdin must not be a file at its end: a serial console on it would see that.
    read_end, write_end = os.pipe()
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=read_end, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.close(read_end)
    raw, up, timed_out, ended_by_us = b"", None, False, False
    fd = process.stdout.fileno()
    while True:
        left = start + limit - time.monotonic()
        if left <= 0:
            timed_out = True
            break
        ready, _, _ = select.select([fd], [], [], left)
        if not ready:
            continue
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        raw += chunk
        if up is None and b"eidolon-init: up" in raw:
            up = time.monotonic() - start
        if until and len(re.findall(until[0], clean(raw), re.M)) >= until[1]:
            ended_by_us = True
            break
    if timed_out or ended_by_us:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    status = process.wait()
    raw += process.stdout.read()
    os.close(write_end)
    return clean(raw), None if ended_by_us else status, up, timed_out


def check(case, output, status, timed_out, limit):
    problems = []
    if timed_out:
        problems.append(f"not finished after {limit:.0f} s")
    elif status != case.status and not case.until:
        problems.append(f"exit status {status}, expected {case.status}")
    position = 0
    for pattern in case.expect:
        match = re.compile(pattern, re.M).search(output, position)
        if match is None:
            problems.append(f"not found (in this place): {pattern}")
        else:
            position = match.end()
    for pattern in case.forbid:
        match = re.search(pattern, output, re.M)
        if match:
            line = output[output.rfind("\n", 0, match.start()) + 1 :].split("\n", 1)[0]
            problems.append(f"must not appear: {pattern}: {line}")
    if case.verify:
        problems += case.verify(output)
    return problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--eidolon", default="build/eidolon")
    parser.add_argument("--guest", default="build/guest", help="folder of the guest images")
    parser.add_argument("case", help="name of a case, or 'list'")
    options = parser.parse_args()
    cases = boot_cases.table(options.guest)
    if options.case == "list":
        for case in cases.values():
            print(f"{case.name}{' (slow)' if case.slow else ''}")
        return 0
    case = cases[options.case]
    program = os.environ.get("EIDOLON", options.eidolon).split()
    limit = case.limit * float(os.environ.get("EIDOLON_TIME_SCALE", "1"))
    command = program + case.arguments
    print(" ".join(command), flush=True)
    output, status, up, timed_out = run(command, case.until, limit)
    problems = check(case, output, status, timed_out, limit)
    if up is not None:
        print(f"from start to init: {up:.1f} s")
    if problems:
        print("---- output ----")
        print(output[-20000:])
        print("---- problems ----")
        for problem in problems:
            print(f"{case.name}: {problem}")
        return 1
    print(f"{case.name}: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
