#!/usr/bin/env python3
"""Exit status, serial back ends, fall-back of engines, signals: with the bare-metal test kernel, so each takes a moment."""

import os
import signal
import subprocess
import tempfile
import time

import cli

tests = cli.Tests()
folder = tempfile.TemporaryDirectory()
base = ["-nodefaults", "-display", "none", "-m", "32", "-kernel", tests.multiboot]
debug_exit = ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"]


def path(name):
    return os.path.join(folder.name, name)


def content(name):
    with open(path(name), "rb") as data:
        return data.read()


result = tests.run([*base, *debug_exit, "-serial", "stdio"])
tests.check("exit 0", result.returncode == 1, result)
tests.check("serial on stdout", b"multiboot: ok" in result.stdout, result.stdout)
tests.check("nothing on stderr", result.stderr == b"", result.stderr)

for value in (0, 1, 4, 9):
    result = tests.run([*base, *debug_exit, "-append", f"exit={value}"])
    tests.check(f"isa-debug-exit {value}", result.returncode == (value << 1 | 1), result)
    tests.check("no serial port, no output", result.stdout == b"", result.stdout)

result = tests.run([*base, "-append", "poweroff"])
tests.check("power-off", result.returncode == 0, result)
for word in ("triple", "reset", "keyboard"):
    result = tests.run([*base, "-append", word, "-no-reboot"])
    tests.check(f"-no-reboot, {word}", result.returncode == 0, result)

# -name shows in the names of the process and of the vCPU's thread
process = subprocess.Popen([*tests.program, *base, "-append", "hang", "-name", "web,process=vm1"], stdin=subprocess.DEVNULL)
names, deadline = set(), time.monotonic() + 10
while "web/cpu0" not in names and time.monotonic() < deadline:
    time.sleep(0.05)
    names = set()
    for task in os.listdir(f"/proc/{process.pid}/task"):
        with open(f"/proc/{process.pid}/task/{task}/comm") as comm:
            names.add(comm.read().strip())
process.kill()
process.wait()
tests.check("-name", {"vm1", "web/cpu0"} <= names, names)

result = tests.run([*base, *debug_exit, "-serial", "file:" + path("serial")])
tests.check("-serial file", result.returncode == 1 and b"multiboot: ok" in content("serial"), result)
for serial in ("null", "none"):
    result = tests.run([*base, *debug_exit, "-serial", serial])
    tests.check(f"-serial {serial}", result.returncode == 1 and result.stdout == b"", result)
result = tests.run([*base, *debug_exit, "-serial", "none", "-serial", "stdio"])
tests.check("second port on stdio", result.returncode == 1 and result.stdout == b"", result)

result = tests.run([*base, *debug_exit, "-serial", "mon:stdio", "-accel", "kvm", "-accel", "hvf", "-accel", "tcg,thread=multi"])
tests.check("falling back to tcg", result.returncode == 1 and b"multiboot: ok" in result.stdout, result)
tests.check("notes about it", result.stderr.count(b"eidolon: note: ") == 2 and b"kvm" in result.stderr, result.stderr)
result = tests.run([*base, *debug_exit, "-machine", "accel=kvm:interp", "-serial", "stdio"])
tests.check("-machine accel list", result.returncode == 1 and b"multiboot: ok" in result.stdout, result)
result = tests.run([*base, *debug_exit, "-global", "kvm-pit.lost_tick_policy=discard", "-rtc", "base=utc,driftfix=slew", "-no-user-config",
                    "-name", "guest", "-vga", "none", "-net", "none", "-nic", "none", "-parallel", "none", "-monitor", "none",
                    "-cpu", "max", "--machine", "type=q35,vmport=off,graphics=off,smm=off,usb=off,hpet=on", "-smp", "1,sockets=1"])
tests.check("what clients pass", result.returncode == 1 and result.stderr.count(b"\n") == 1, result)

result = tests.run([*base, *debug_exit, "-d", "cpustats,int", "-D", path("log")])
tests.check("-d cpustats -D", result.returncode == 1 and b"cpu0: instructions" in content("log"), result)


def run_until_signal(arguments, signum, name):
    process = subprocess.Popen([*tests.program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = b""
    while b"multiboot: ok" not in seen:
        chunk = os.read(process.stdout.fileno(), 4096)
        if not chunk:
            break
        seen += chunk
    time.sleep(0.2)
    early = process.poll()
    process.send_signal(signum)
    try:
        _, errors = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        tests.check(name, False, "does not end")
        return b""
    tests.check(name, early is None and process.returncode == -signum, f"early {early}, status {process.returncode}, {errors}")
    return errors


for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    run_until_signal([*base, "-serial", "stdio", "-append", "hang"], number, f"halted guest, {number.name}")
run_until_signal([*base, "-serial", "stdio", "-append", "poweroff", "-no-shutdown"], signal.SIGTERM, "-no-shutdown stays")
tests.finish()
