#!/usr/bin/env python3
"""Guests that try to crash or hang the emulator.

absurd, absurd32: runs the image of that name (random privileged operations, round after round, each ended by a
reset) with a few seeds for some seconds. A guest that gets stuck is legitimate: it is ended by SIGTERM, which must
work at once, and the next process goes on with the next round. What is not: death by a signal of its own, an exit
status other than 0, a word from a sanitizer or about an internal error, no reaction to SIGTERM.

loops: the image `loops` has guests that never end; each is started, given a moment, and ended by SIGTERM.
"""

import argparse
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

SCALE = float(os.environ.get("EIDOLON_TIME_SCALE", "1"))
STUCK = 0.5 * SCALE  # seconds without a new round
OBEY = 5 * SCALE  # seconds until SIGTERM has worked
COMPLAINTS = re.compile(
    rb"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error|internal error|Assertion|fatal", re.I
)


def command(program, image, append):
    arguments = program.split() + "-machine q35 -cpu max -m 64M -display none -nodefaults".split()
    arguments += "-serial null -monitor none -debugcon stdio".split()
    return arguments + ["-kernel", image, "-append", append]


class Guest:
    """A running emulator whose output is read as it comes."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors)
        self.output = b""
        self.begun = False
        self.ended = False

    def read(self, seconds):
        """More output, or nothing within that time; False: the process has closed it."""
        ready, _, _ = select.select([self.process.stdout], [], [], max(0, seconds))
        if not ready:
            return True
        chunk = os.read(self.process.stdout.fileno(), 65536)
        self.output = (self.output + chunk)[-100000:]
        self.begun = self.begun or b"running" in self.output
        return bool(chunk)

    def terminate(self):
        """SIGTERM; a problem as text, or None."""
        self.ended = True
        self.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + OBEY
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return None
            self.read(0.02)
        self.process.send_signal(signal.SIGABRT)
        self.process.wait()
        return "does not obey SIGTERM"

    def verdict(self):
        status = self.process.wait()
        self.process.stdout.close()
        self.errors.seek(0)
        errors = self.errors.read()
        self.errors.close()
        allowed = (0, -signal.SIGTERM) if self.ended else (0,)
        problems = []
        if status not in allowed:
            problems.append(f"exit status {status}")
        if COMPLAINTS.search(errors):
            problems.append("stderr complains")
        if problems:
            problems.append(errors[-6000:].decode("utf-8", "replace"))
        return problems


def run_absurd_process(program, image, seed, first_round, deadline):
    """Runs until the deadline or until the guest is stuck. Returns (rounds seen, last round, problems)."""
    guest = Guest(command(program, image, f"seed={seed} round={first_round}"))
    last, moved = first_round, time.monotonic()
    seen = set()
    problem = None
    while True:
        now = time.monotonic()
        if now > deadline or now - moved > STUCK:
            problem = guest.terminate()
            break
        if not guest.read(min(deadline - now, moved + STUCK - now)):
            break
        rounds = [int(n) for n in re.findall(rb"round (\d+)\n", guest.output)]
        if rounds:
            guest.output = guest.output[guest.output.rindex(b"\n") + 1 :]
            last = rounds[-1]
            if not seen.issuperset(rounds):  # (a guest that repeats itself is as good as stuck)
                moved = time.monotonic()
            seen.update(rounds)
    problems = ([problem] if problem else []) + guest.verdict()
    if problems:
        problems = [f"seed={seed} round={last}: {p}" for p in problems]
    return len(seen), last, problems


def absurd(options):
    image = f"{options.images}/{options.what}.elf"
    deadline = time.monotonic() + options.seconds
    rounds = processes = 0
    for seed in range(options.seed, options.seed + 1000000):
        start = 0
        seed_deadline = min(deadline, time.monotonic() + max(options.seconds / 4, 1))
        while time.monotonic() < seed_deadline:
            seen, last, problems = run_absurd_process(options.eidolon, image, seed, start, seed_deadline)
            rounds += seen
            processes += 1
            start = last + 1
            if problems:
                print("\n".join(problems))
                return 1
        if time.monotonic() >= deadline:
            break
    print(f"{rounds} rounds from seed {options.seed}, {processes} processes: survived")
    return 0


def loops(options):
    image = f"{options.images}/loops.elf"
    listing = subprocess.run(
        command(options.eidolon, image, "loop=list") + "-device isa-debug-exit,iobase=0xf4,iosize=4".split(),
        stdout=subprocess.PIPE, check=False, timeout=20 * SCALE,
    )
    names = [n for n in listing.stdout.decode().split() if n != "end"]
    failures = 0 if names else 1
    for name in names:
        guest = Guest(command(options.eidolon, image, f"loop={name}"))
        start = time.monotonic()
        alive = True
        while alive and not guest.begun and time.monotonic() - start < 10 * SCALE:
            alive = guest.read(0.1)
        start = time.monotonic()
        while alive and time.monotonic() - start < options.moment:
            alive = guest.read(options.moment / 4)
        problems = [] if guest.begun else ["never began"]
        if not alive:
            problems.append("ended by itself")
        start = time.monotonic()
        problem = guest.terminate() if alive else None
        problems += ([problem] if problem else []) + guest.verdict()
        print(f"{name}: {'; '.join(problems) or f'ended in {time.monotonic() - start:.2f} s'}")
        failures += bool(problems)
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eidolon", default="build/eidolon")
    parser.add_argument("--images", default="build/tests/guest", help="folder of the guest images")
    parser.add_argument("--seconds", type=float, default=8, help="absurd: how long")
    parser.add_argument("--seed", type=int, default=1, help="absurd: the first seed")
    parser.add_argument("--moment", type=float, default=0.15, help="loops: seconds before SIGTERM")
    parser.add_argument("what", choices=["absurd", "absurd32", "loops"])
    options = parser.parse_args()
    return (loops if options.what == "loops" else absurd)(options)


if __name__ == "__main__":
    sys.exit(main())
