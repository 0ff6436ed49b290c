#!/usr/bin/env python3
"""Resets the machine in every way that a guest has, with and without -no-reboot, under the engine under test and under
QEMU's TCG where it is installed: with it the emulator exits with status 0, without it the guest starts again."""

import argparse
import os
import shutil
import subprocess
import sys

WAYS = ["triple", "triple-page-fault", "triple-interrupt", "triple-step", "cf9", "keyboard", "port92"]
SCALE = float(os.environ.get("EIDOLON_TIME_SCALE", "1"))


def attempt(program, image, way, no_reboot):
    arguments = program.split() + ["-machine", "q35", "-cpu", "max", "-m", "64M", "-kernel", image, "-append", way]
    arguments += "-display none -nodefaults -serial null -monitor none -debugcon stdio".split()
    arguments += "-device isa-debug-exit,iobase=0xf4,iosize=4".split() + (["-no-reboot"] if no_reboot else [])
    try:
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=20 * SCALE, check=False)
    except subprocess.TimeoutExpired:
        return "time-out", ""
    return done.returncode, done.stdout.decode("latin-1")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eidolon", default="build/eidolon")
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    parser.add_argument("--images", default="build/tests/guest")
    options = parser.parse_args()
    programs = [options.eidolon]
    if options.qemu and shutil.which(options.qemu):
        programs.append(options.qemu + " -accel tcg")
    failures = 0
    for program in programs:
        for way in WAYS:
            first, again = f"case reset-{way}: first\n", f"case reset-{way}: again\nend\n"
            for no_reboot, want in ((True, (0, first)), (False, (33, first + again))):
                got = attempt(program, f"{options.images}/reset.elf", way, no_reboot)
                if got != want:
                    failures += 1
                    option = "with" if no_reboot else "without"
                    print(f"{program}: {way}, {option} -no-reboot: got {got}, expected {want}")
    print(f"{len(programs) * len(WAYS) * 2} resets, {failures} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
