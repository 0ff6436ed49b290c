#!/usr/bin/env python3
"""Measures Eidolon: boot time, instructions a second, small workloads in the guest against the same binary on the host, memory.
Prints a Markdown table for docs/performance.md. Options: --eidolon PROGRAM, --factor N (amount of work)."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GUEST = f"{ROOT}/build/guest"


def run_guest(program, image, command, memory="512M", options=()):
    """Returns (console output, cpustats text, seconds to init, peak PSS in KiB)."""
    log = tempfile.NamedTemporaryFile(prefix="eidolon-bench-")
    start = time.monotonic()
    process = subprocess.Popen(
        [*program, "-nodefaults", "-display", "none", "-serial", "stdio", "-m", memory, "-kernel", f"{GUEST}/vmlinuz", "-initrd", image,
         "-append", f'console=ttyS0 quiet eidolon.run="{command}"', *options, "-d", "cpustats", "-D", log.name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    peak = [0]

    def watch():
        while process.poll() is None:
            try:
                with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as rollup:
                    pss = re.search(r"^Pss:\s+(\d+)", rollup.read(), re.M)
                    peak[0] = max(peak[0], int(pss.group(1)) if pss else 0)
            except OSError:
                pass
            time.sleep(0.2)

    thread = threading.Thread(target=watch)
    thread.start()
    output, up = b"", None
    while True:
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            break
        output += chunk
        if up is None and b"eidolon-init: up" in output:
            up = time.monotonic() - start
    process.wait()
    thread.join()
    return output.decode("utf-8", "replace").replace("\r", ""), log.read().decode(), up, peak[0]


def speed(stats):
    match = re.search(r"instructions (\d+), .*?([\d.]+) million/s", stats)
    return (int(match.group(1)), float(match.group(2))) if match else (0, 0.0)


def loads(output):
    return {m.group(1): (float(m.group(2)), m.group(3)) for m in re.finditer(r"^(\w+) ([\d.]+) ([0-9a-f]{16})$", output, re.M)}


def host_cpu():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        return re.search(r"model name\s*: (.*)", info.read()).group(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eidolon", default=f"{ROOT}/build/eidolon")
    parser.add_argument("--factor", type=int, default=5)
    options = parser.parse_args()
    program = options.eidolon.split()

    output, stats, up, pss = run_guest(program, f"{GUEST}/initrd.img", "true")
    if up is None:
        print(output[-2000:], file=sys.stderr)
        sys.exit("bench: the guest did not boot")
    instructions, rate = speed(stats)
    print(f"Host: {host_cpu()}, {os.cpu_count()} CPUs.\n")
    print("| boot of Debian's cloud kernel to init | |\n| --- | --- |")
    print(f"| from start to init | {up:.1f} s |")
    print(f"| guest instructions | {instructions / 1e6:.0f} million |")
    print(f"| instructions a second | {rate:.1f} million |")
    print(f"| memory (PSS, guest memory that was touched included) | {pss / 1024:.0f} MiB |\n")

    output, stats, _, pss = run_guest(program, f"{GUEST}/initrd-programs.img", f"/tests/bench {options.factor}")
    guest = loads(output)
    host_text = subprocess.run([f"{GUEST}/programs/tests/bench", str(options.factor)], stdout=subprocess.PIPE, check=True).stdout.decode()
    print("| work | guest, s | host, s | slowdown |\n| --- | --- | --- | --- |")
    for name, (seconds, checksum) in loads(host_text).items():
        if name not in guest or guest[name][1] != checksum:
            sys.exit(f"bench: {name}: no result, or another checksum than the host's")
        print(f"| {name} | {guest[name][0]:.3f} | {seconds:.4f} | {guest[name][0] / max(seconds, 1e-4):.0f}x |")
    print(f"\nWhole run: {speed(stats)[1]:.1f} million instructions a second.")


if __name__ == "__main__":
    main()
