#!/usr/bin/env python3
"""perf reads what we write: a program with code made at run time is recorded, and perf report has to name that code, from the map
and from the jitdump (where two pieces of code that shared an address are told apart by time).

Exit status 77 (skipped) if perf is not installed or may not record here.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77


def run(*command, folder):
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    return result.returncode, result.stdout, result.stderr


def report(data, folder):
    """{symbol: percent} of the samples."""
    status, text, errors = run("perf", "report", "-i", data, "--stdio", "-F", "overhead,sym", "-q", folder=folder)
    if status:
        sys.exit(f"perf report: {errors}")
    rows = re.findall(r"^\s*([\d.]+)%\s+\[\S+\] (.+?)\s*$", text, re.M)
    return {symbol: float(percent) for percent, symbol in rows}


def check(what, symbols, expected, least):
    share = symbols.get(expected, 0.0)
    if share < least:
        sys.exit(f"{what}: {expected} has {share} % of the samples, at least {least} expected: {symbols}")
    print(f"{what}: {expected} {share} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    program = os.path.abspath(parser.parse_args().program)
    if not shutil.which("perf"):
        print("perf is not installed")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        record = ["perf", "record", "-q", "-k", "mono", "-e", "cpu-clock", "-o"]
        if run(*record, "try", "true", folder=folder)[0]:
            print("perf may not record here")
            return SKIPPED

        status, out, errors = run(*record, "map.data", program, "perfmap", folder=folder)
        if status:
            sys.exit(f"perf record: {errors}")
        symbols = report("map.data", folder)
        os.unlink(f"/tmp/perf-{int(out)}.map")
        check("map", symbols, "guest:first_loop+0x10", 80)

        status, out, errors = run(*record, "dump.data", program, "jitdump", folder, folder=folder)
        if status:
            sys.exit(f"perf record: {errors}")
        status, out, errors = run("perf", "inject", "--jit", "-i", "dump.data", "-o", "jit.data", folder=folder)
        if status:
            sys.exit(f"perf inject: {errors}")
        symbols = report("jit.data", folder)
        check("jitdump", symbols, "guest:first_loop+0x10", 20)
        check("jitdump", symbols, "guest:second_loop+0x20", 20)
    return 0


sys.exit(main())
