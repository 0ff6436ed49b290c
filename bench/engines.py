"""What runs the workloads: emulators, started side by side with the same arguments, and the host itself."""

import os
import re
import select
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field

MARK = b"\x02"  # what guest/extract_kernel.py makes the kernel send first
UP = "eidolon-init: up"
MEMORY_MIB = 1024
MACHINE = ["-machine", "q35", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-cpu", "max", "-m", f"{MEMORY_MIB}M"]
APPEND = "console=ttyS0 quiet"


class Refused(Exception):
    """The engine ended before the guest did anything."""


class Stalled(Exception):
    """No output for too long."""


@dataclass
class Engine:
    name: str
    title: str
    command: list = field(default_factory=list)  # empty: native
    percent: int = 100  # of the units of work in the list
    times: int = 1  # how often each workload runs in one round
    once: bool = False  # too slow for more than one round
    stall: float = 240  # seconds without output

    @property
    def is_native(self):
        return not self.command


def table(eidolon, qemu, options=""):
    """All engines by name. `options`: more arguments for eidolon."""
    ours = [*shlex.split(eidolon), *shlex.split(options)]
    return {
        "jit": Engine("jit", "eidolon jit", [*ours, "-accel", "jit"]),
        "interp": Engine("interp", "eidolon interp", [*ours, "-accel", "interp"], percent=10, once=True, stall=600),
        "tcg": Engine("tcg", "QEMU TCG", [*shlex.split(qemu), "-accel", "tcg"]),
        "native": Engine("native", "native", times=3),
    }


class Console:
    """A process and its output, as lines with the time at which each was complete."""

    def __init__(self, command, log, stall, stdin=subprocess.PIPE):
        self.log, self.stall, self.text, self.pending = log, stall, b"", b""
        self.mark = None  # when the kernel's first instruction ran
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def _read(self):
        if not select.select([self.process.stdout], [], [], self.stall)[0]:
            raise Stalled(f"no output for {self.stall:.0f} s")
        chunk = os.read(self.process.stdout.fileno(), 65536)
        now = time.monotonic()
        if self.mark is None and MARK in chunk:
            self.mark = now
        self.log.write(chunk)
        return chunk, now

    def lines(self):
        """(time, line) until the output ends."""
        while True:
            chunk, now = self._read()
            if not chunk:
                if self.pending:
                    yield now, self.pending.decode("utf-8", "replace")
                return
            *complete, self.pending = (self.pending + chunk).split(b"\n")
            for line in complete:
                yield now, line.replace(MARK, b"").decode("utf-8", "replace").rstrip("\r")

    def write(self, text):
        try:
            self.process.stdin.write(text)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def end(self, seconds=20):
        """Exit status; the process is ended if it does not end by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            return self.process.wait()
        finally:
            self.process.stdout.close()
            if self.process.stdin:
                self.process.stdin.close()


def guest_command(engine, kernel, initrd, run):
    return [*engine.command, *MACHINE, "-kernel", kernel, "-initrd", initrd, "-append", f'{APPEND} eidolon.run="{run}"']


def refuse(console, last):
    status = console.end()
    raise Refused(f"exit status {status}: {last or 'no output'}")


def boot(engine, kernel, initrd, log):
    """Seconds until init speaks: {"command": since the process was started, "instruction": since the kernel's first instruction, or None}."""
    console = Console(guest_command(engine, kernel, initrd, "true"), log, engine.stall)
    last = ""
    try:
        for now, line in console.lines():
            if UP in line:
                return {"command": now - console.started, "instruction": now - console.mark if console.mark else None}
            last = line or last
        return refuse(console, last)
    finally:
        console.end(10)


def memory(pid):
    """Of a process: {"ram": guest memory that was touched, "overhead": all else}, both PSS in MiB.

    Guest RAM is a memfd of ours (eidolon-ram), or, in QEMU, one anonymous mapping as large as -m says."""
    ram = other = 0
    is_ram = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            header = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+) *(.*)", line)
            if header:
                size = int(header.group(2), 16) - int(header.group(1), 16)
                name = header.group(4)
                is_ram = "memfd:eidolon-ram" in name or (not name and MEMORY_MIB << 20 <= size < (MEMORY_MIB + 64) << 20)
            elif line.startswith("Pss:"):
                if is_ram:
                    ram += int(line.split()[1])
                else:
                    other += int(line.split()[1])
    return {"ram": ram / 1024, "overhead": other / 1024}


@dataclass
class Result:
    units: int
    seconds: float  # by the guest's clock
    host_seconds: float  # by ours, from the line before to the line after
    checksum: str


def parse(console, on_end):
    """Results by name, a list each, and what went wrong. Calls on_end() when the last workload is done."""
    results, problems, begun, last, ended = {}, [], None, "", False
    try:
        for now, line in console.lines():
            words = line.split()
            if words[:2] == ["bench", "begin"]:
                begun = now
            elif words[:2] == ["bench", "result"] and len(words) == 6 and begun:
                results.setdefault(words[2], []).append(Result(int(words[3]), float(words[4]), now - begun, words[5]))
            elif words[:2] == ["bench", "failed"]:
                problems.append(" ".join(words[2:]))
            elif words[:2] == ["bench", "end"]:
                ended = True
                on_end()
            last = line or last
    except Stalled as stalled:
        problems.append(f"{stalled}; last line: {last}")
        console.process.kill()
    if not ended and not problems:
        if not results and begun is None:
            refuse(console, last)
        problems.append(f"ended early; last line: {last}")
    return results, problems


def run_guest(engine, kernel, initrd, arguments, log):
    """(results, problems, memory) of one boot that runs the suite. Memory is looked at when all workloads are done and the guest waits."""
    console = Console(guest_command(engine, kernel, initrd, f"/bench/run {arguments}; read x"), log, engine.stall)
    used = {}

    def on_end():
        time.sleep(0.5)  # what the guest's last process leaves is given back
        used.update(memory(console.process.pid))
        console.write(b"\n")

    try:
        results, problems = parse(console, on_end)
    finally:
        status = console.end()
    if status and not problems:
        problems.append(f"exit status {status}")
    return results, problems, used


def run_native(engine, tree, arguments, log):
    """The same files, inside the unpacked image, on one CPU, as the guest has one."""
    cpu = max(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(cpu), f"{tree}/bench/run", "-r", tree, *arguments.split()]
    console = Console(command, log, engine.stall, stdin=subprocess.DEVNULL)
    try:
        results, problems = parse(console, lambda: None)
    finally:
        status = console.end()
    if status and not problems:
        problems.append(f"exit status {status}")
    return results, problems, {}
