#!/usr/bin/env python3
"""What ./dev run ends at: no arguments (or, for a program that is not in build/, the same as arguments), a terminal, a shell prompt,
job control, line editing, power-off."""

import argparse
import os
import pty
import re
import select
import sys
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--eidolon", default="build/eidolon")
    parser.add_argument("--guest", default="build/guest")
    options = parser.parse_args()
    program = os.environ.get("EIDOLON", options.eidolon).split()
    beside = os.path.dirname(os.path.abspath(program[-1]))
    if not any(os.path.exists(f"{beside}/{folder}/vmlinuz") for folder in ("guest", "../guest")):
        program += ["-nographic", "-m", "512M", "-kernel", f"{options.guest}/vmlinuz", "-initrd", f"{options.guest}/initrd.img",
                    "-append", "console=ttyS0"]
    limit = 240 * float(os.environ.get("EIDOLON_TIME_SCALE", "1"))
    print(" ".join(program), flush=True)

    start = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(program[0], program)
    output = b""

    def wait_for(pattern, reason):
        nonlocal output
        while not re.search(pattern, output):
            ready, _, _ = select.select([terminal], [], [], max(start + limit - time.monotonic(), 0))
            try:
                chunk = os.read(terminal, 65536) if ready else b""
            except OSError:
                chunk = b""
            if not chunk:
                print(output.decode("utf-8", "replace")[-5000:])
                sys.exit(f"shell: {reason}: not seen: {pattern!r}")
            output += chunk
        text, output = output, b""
        return text

    def send(text):
        os.write(terminal, text)

    prompt = rb"~ # (\x1b\[6n)?$"
    wait_for(prompt, "prompt")
    print(f"from start to the prompt: {time.monotonic() - start:.1f} s")
    send(b"echo $((6 * 7)) $(tty)\r")
    wait_for(rb"\n42 /dev/ttyS0\r*\n", "a command")
    send(b"sleep 1000\r")
    time.sleep(0.5)
    send(b"\x03")  # Ctrl-C ends the guest's sleep, not the emulator
    wait_for(prompt, "Ctrl-C")
    send(b"echo abX\x7fc\r")  # backspace
    wait_for(rb"\nabc\r*\n", "line editing")
    # A burst: nothing may be lost on the way into the 16-byte FIFO.
    line = b"x" * 900
    send(b"echo " + line + b" | wc -c\r")
    wait_for(rb"\n901\r*\n", "a long line")
    send(b"poweroff -f\r")
    try:
        while os.read(terminal, 65536):
            if time.monotonic() > start + limit:
                sys.exit("shell: does not power off")
    except OSError:
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        sys.exit(f"shell: exit status {status}")
    print("shell: ok")


if __name__ == "__main__":
    main()
