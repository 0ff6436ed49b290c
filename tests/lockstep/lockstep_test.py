#!/usr/bin/env python3
"""Tests of the lockstep engine, which compares the translator with the interpreter, block by block.

    lockstep_test.py boot              a whole Linux boot: no difference, and nearly every instruction compared
    lockstep_test.py short             the same up to the kernel's first lines
    lockstep_test.py crash             a fault of translated code that is not the guest's ends with guest and host context
    lockstep_test.py catches [BUG...]  bugs built into the translator on purpose are reported, each in the way that it shows

--engine lockstep-blocks does the same with blocks that are not chained.
"""

import argparse
import dataclasses
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

SCALE = float(os.environ.get("EIDOLON_TIME_SCALE", "1"))
SUMMARY = re.compile(r"lockstep: (\d+) instructions executed, (\d+) compared .* (no difference|stopped at a difference)")
COMPARED_AT_LEAST = 0.999


@dataclasses.dataclass
class Bug:
    """A bug of jit/jit_sabotage.c. `shows`: regular expressions that the report must match."""

    name: str
    shows: list
    image: str = "soundness_flags"
    chained: bool = False  # single blocks do not show it


HOST_MEMORY = r"it accessed host memory that it must not"
DIFFERENT = r"^\* "
BUGS = [
    Bug("flags-stale", [r"^\* rflags"]),
    Bug("flags-clobbered", [r"^\* rflags"]),
    Bug("entry-flags", [r"^\* rflags"]),
    Bug("handed-flags", [r"^\* rflags", r"no difference when blocks are not chained"], image="soundness_vector", chained=True),
    Bug("group-displacement", [DIFFERENT]),
    Bug("check-limit", [HOST_MEMORY]),
    Bug("write-as-read", [HOST_MEMORY]),
    Bug("zero-extension", [r"^\* r(9|1[015]) +[0-9a-f]{16}  0{8}[0-9a-f]{8}  "], "soundness_operands"),
    Bug("lost-result", [r"^\* r(9|1[015]) "]),
    Bug("condition", [r"^\* rip"]),
    Bug("branch-target", [r"^\* rip"]),
    Bug("stack-direction", [r"^\* rsp", r"^memory:\n\* gpa "]),
    Bug("displacement", [DIFFERENT]),
    Bug("stored-comparison", [rf"{HOST_MEMORY}|^\* gpa "]),
    Bug("lost-vector", [r"^\* zmm\d+"]),
    Bug("lost-exception", [r"interpreter: .*vector"]),
    Bug("host-fault", [HOST_MEMORY]),
    Bug("lost-handler", [r"^\* rdi", r"^\* gpa "]),
]


def run(command, limit, until=None, environment=None):
    """(what the guest printed and then what the engine said, exit status or None if it was ended by us); ends it when
    `until` shows."""
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                              env={**os.environ, **(environment or {})}) as process:
            text, end, ended = "", time.monotonic() + limit * SCALE, False
            while not ended:
                left = end - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    text += f"\nnot finished after {limit * SCALE:.0f} s\n"
                    break
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    break
                text += chunk.decode("utf-8", "replace").replace("\r", "")
                ended = bool(until and re.search(until, text, re.M))
            process.terminate()
            text += process.stdout.read().decode("utf-8", "replace").replace("\r", "")
            status = process.wait()
        errors.seek(0)
        return text + "\n" + errors.read().decode("utf-8", "replace"), None if ended else status


def check_summary(text, least):
    summary = SUMMARY.search(text)
    if not summary:
        return ["no summary at the end"]
    executed, compared = int(summary[1]), int(summary[2])
    problems = [] if summary[3] == "no difference" else ["there is a difference"]
    if executed < least:
        problems.append(f"only {executed} instructions, at least {least} expected")
    if compared < executed * COMPARED_AT_LEAST:
        problems.append(f"only {100 * compared / executed:.3f} % compared")
    return problems


def finish(name, text, problems):
    if problems:
        print(text[-30000:])
        for problem in problems:
            print(f"{name}: {problem}")
    else:
        print(f"{name}: ok: {SUMMARY.search(text)[0] if SUMMARY.search(text) else ''}")
    return not problems


def linux(options, append):
    guest = options.guest
    return options.eidolon.split() + ["-accel", options.engine, "-machine", "q35", "-nodefaults", "-display", "none", "-serial", "stdio",
                                      "-m", "256M", "-kernel", f"{guest}/vmlinuz", "-initrd", f"{guest}/initrd.img", "-append", append]


def test_boot(options):
    commands = "uname -a; ps; ls -lR /sys/devices/system/cpu | sort | md5sum; gzip -c /bin/busybox | wc -c"
    text, status = run(linux(options, f'console=ttyS0 eidolon.run="{commands}"'), 1500)
    problems = check_summary(text, 1_000_000_000)
    if status != 0:
        problems.append(f"exit status {status}")
    if "eidolon-run: end 0" not in text:
        problems.append("the guest has not come to its end")
    return finish("boot", text, problems)


def test_short(options):
    text, _ = run(linux(options, "console=ttyS0 earlyprintk=ttyS0"), 300, until=r"Memory: \d+K/\d+K available")
    return finish("short", text, check_summary(text, 20_000_000))


def bare_metal(options, image):
    return options.eidolon.split() + ["-accel", options.engine, "-machine", "q35", "-m", "64M", "-kernel", f"{options.images}/{image}.elf",
                                      *"-display none -nodefaults -serial null -monitor none -debugcon stdio -no-reboot".split(),
                                      *"-device isa-debug-exit,iobase=0xf4,iosize=4".split()]


def test_bug(options, bug):
    text, status = run(bare_metal(options, bug.image), 120, environment={"EIDOLON_JIT_BREAK": bug.name})
    problems = [] if status == 1 else [f"exit status {status}, expected 1"]
    for pattern in [r"lockstep: translator and interpreter differ", r"^guest code, \d+ instructions:\n +0x", r"^host code.*:\n +0x",
                    r"stopped at a difference", *bug.shows]:
        if not re.search(pattern, text, re.M):
            problems.append(f"not in the report: {pattern}")
    return finish(bug.name, text, problems)


def test_catches(options, names):
    """First without a bug: what the engine reports then is none of ours."""
    good = True
    if not names:
        for image in sorted({bug.image for bug in BUGS}):
            text, status = run(bare_metal(options, image), 300)
            good &= finish(f"{image} without a bug", text, [] if status == 33 else [f"exit status {status}"])
    for bug in BUGS:
        if bug.name in names or not names and not (bug.chained and options.engine == "lockstep-blocks"):
            good &= test_bug(options, bug)
    return good


def test_crash(options):
    """The jit engine alone: host code that faults where the guest's instruction does not ends with both contexts, never in silence."""
    options.engine = "jit"
    text, status = run(bare_metal(options, "system"), 120, environment={"EIDOLON_JIT_BREAK": "host-fault"})
    problems = [] if status == -signal.SIGABRT else [f"exit status {status}, expected to be ended by SIGABRT"]
    for pattern in [r"^eidolon: fault in translated code at [0-9a-f]{16}, guest code page [0-9a-f]{16}", r"host registers: .* rsp=[0-9a-f]{16}",
                    r"host signal 11 in the block at guest-physical", r"^RIP=[0-9a-f]{16} RFL=", r"^CR0=", r"this is a bug in Eidolon's translator"]:
        if not re.search(pattern, text, re.M):
            problems.append(f"not in the report: {pattern}")
    return finish("crash", text, problems)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--eidolon", default="build/eidolon")
    parser.add_argument("--engine", default="lockstep", choices=["lockstep", "lockstep-blocks"])
    parser.add_argument("--guest", default="build/guest", help="folder of the Linux images")
    parser.add_argument("--images", default="build/tests/guest", help="folder of the bare-metal images")
    parser.add_argument("test", choices=["boot", "short", "catches", "crash"])
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.test == "catches":
        return 0 if test_catches(options, options.names) else 1
    return 0 if {"boot": test_boot, "short": test_short, "crash": test_crash}[options.test](options) else 1


if __name__ == "__main__":
    sys.exit(main())
