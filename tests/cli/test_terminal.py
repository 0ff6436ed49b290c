#!/usr/bin/env python3
"""The terminal: raw while the guest runs, as before after every way out. On a pseudo-terminal of our own."""

import os
import pty
import re
import select
import signal
import termios
import time

import cli

tests = cli.Tests()
arguments = ["-nographic", "-m", "32", "-kernel", tests.multiboot, "-append"]


def attributes(fd):
    """Modes only: the kernel flips PENDIN by itself."""
    mode = termios.tcgetattr(fd)
    return mode[:3] + [mode[3] & ~getattr(termios, "PENDIN", 0o40000)]


class Session:
    """The program as the leader of a session on a fresh pseudo-terminal."""

    def __init__(self, append, extra=()):
        self.master, slave = pty.openpty()
        self.slave = slave
        self.before = attributes(slave)
        self.flags = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.close(self.master)
            import fcntl

            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
            os.execvp(tests.program[0], [*tests.program, *arguments, append, *extra])
        self.output = b""

    def wait_for(self, pattern, seconds=20):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.output):
            left = end - time.monotonic()
            ready, _, _ = select.select([self.master], [], [], max(left, 0))
            if not ready:
                return False
            try:
                self.output += os.read(self.master, 4096)
            except OSError:
                return False
        return True

    def wait(self, seconds=20):
        """Exit status as the shell would say it, or None."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.read_rest()
                return os.waitstatus_to_exitcode(status)
            ready, _, _ = select.select([self.master], [], [], 0.02)
            if ready:
                try:
                    self.output += os.read(self.master, 4096)
                except OSError:
                    pass
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return None

    def read_rest(self):
        """What it printed last may still be on its way through the terminal."""
        while select.select([self.master], [], [], 0.1)[0]:
            try:
                self.output += os.read(self.master, 4096)
            except OSError:
                return

    def is_raw(self):
        return not attributes(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def restored(self):
        return attributes(self.slave) == self.before


def ended(name, session, status):
    got = session.wait()
    tests.check(f"{name}: exit status", got == status, f"{got}, output {session.output[-300:]}")
    tests.check(f"{name}: terminal restored", session.restored(), f"{attributes(session.slave)} != {session.before}")
    tests.check(f"{name}: not left non-blocking", os.get_blocking(session.slave), "")


running = b"multiboot: ok"

session = Session("hang")
tests.check("starts", session.wait_for(running), session.output)
tests.check("raw while it runs", session.is_raw(), attributes(session.slave))
os.write(session.master, b"\x03\x1a")  # Ctrl-C and Ctrl-Z are the guest's
time.sleep(0.3)
tests.check("Ctrl-C does not end it", os.waitpid(session.pid, os.WNOHANG)[0] == 0)
os.write(session.master, b"\x01x")
ended("Ctrl-A X", session, 0)

CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)
if os.environ.get("EIDOLON_SANITIZE"):
    CRASHES = ()  # a sanitizer reports crashes in its own way
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, *CRASHES):
    session = Session("hang")
    session.wait_for(running)
    os.kill(session.pid, number)
    ended(number.name, session, -number)
    if number in CRASHES:
        tests.check(f"{number.name}: says so", b"internal error: " + number.name.encode() in session.output, session.output[-300:])

session = Session("poweroff")
ended("power-off", session, 0)
session = Session("exit=3", ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
ended("isa-debug-exit", session, 7)
session = Session("x", ["-device", "nosuch"])
ended("user mistake", session, 1)

# Stop and continue: the terminal is lent back meanwhile.
session = Session("hang")
session.wait_for(running)
os.kill(session.pid, signal.SIGTSTP)
os.waitpid(session.pid, os.WUNTRACED)
tests.check("SIGTSTP: restored while stopped", session.restored(), attributes(session.slave))
os.kill(session.pid, signal.SIGCONT)
time.sleep(0.5)
tests.check("SIGCONT: raw again", session.is_raw(), attributes(session.slave))
os.write(session.master, b"\x01x")
ended("Ctrl-A X after SIGCONT", session, 0)
tests.finish()
