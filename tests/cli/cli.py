"""What the command-line tests share: running the program, counting, the summary."""

import argparse
import os
import subprocess
import sys


class Tests:
    def __init__(self):
        parser = argparse.ArgumentParser()
        parser.add_argument("--eidolon", default="build/eidolon")
        parser.add_argument("--guest", default="build/guest")
        options = parser.parse_args()
        self.program = os.environ.get("EIDOLON", options.eidolon).split()
        self.guest = options.guest
        self.multiboot = f"{options.guest}/multiboot.elf"
        self.kernel = f"{options.guest}/vmlinuz"
        self.passed = self.failed = 0

    def command(self, arguments):
        """The program's own choice of an engine gives way to one among the arguments: the first -accel would win."""
        program = self.program
        if "-accel" in program and any("accel" in argument for argument in arguments):
            at = program.index("-accel")
            program = program[:at] + program[at + 2:]
        return program + list(arguments)

    def run(self, arguments, **keywords):
        keywords.setdefault("timeout", 60)
        return subprocess.run(self.command(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False, **keywords)

    def check(self, name, good, detail=""):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {name}: {detail}")
        return good

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.passed else 0)
