#!/usr/bin/env python3
"""Turns sequences/*.txt (Intel syntax) into sequences.def (bytes), with GNU as (--if-changed: if they have changed).

The bytes are checked in: assemblers choose encodings as they like, and the test has to count the same everywhere.

    # comment
    [section | mode]                mode: user64, kernel64, user32, kernel32; then, if not in the middle of a page, its offset
    title: instruction; instruction
        instruction                 continues the line above
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = os.path.join(HERE, "sequences")
RESULT = os.path.join(HERE, "sequences.def")
# The order of the expectation, too.
FILES = ["registers", "memory", "flags", "stack", "idioms", "vector", "system"]
MODES = ["user64", "kernel64", "user32", "kernel32"]
MIDDLE = 0x800
SECTION = re.compile(r"\[(.+) \| (\w+)(?: (0x[0-9a-f]+))?\]$")


class Sequence:
    def __init__(self, place, section, mode, offset, title, text):
        self.place, self.section, self.mode, self.offset = place, section, mode, offset
        self.title, self.text, self.code = title, text, b""

    @property
    def name(self):
        return f"{self.section}: {self.title}"


def fail(place, message):
    sys.exit(f"{place}: {message}")


def parse_file(name):
    path = os.path.join(SOURCES, name + ".txt")
    section = mode = offset = None
    found = []
    with open(path, encoding="ascii") as source:
        for number, line in enumerate(source, 1):
            place = f"sequences/{name}.txt:{number}"
            line = line.rstrip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("["):
                match = SECTION.match(line)
                if not match or match[2] not in MODES:
                    fail(place, "no section and mode")
                section, mode, offset = match[1], match[2], int(match[3] or str(MIDDLE), 0)
            elif line.startswith(" "):
                found[-1].text += " " + line.strip()
            else:
                title, colon, text = line.partition(": ")
                if not colon or not section or "|" in title:
                    fail(place, "no title")
                found.append(Sequence(place, section, mode, offset, title, text.strip()))
    return found


def parse():
    sequences = [sequence for name in FILES for sequence in parse_file(name)]
    seen = {}
    for sequence in sequences:
        if seen.setdefault(sequence.name, sequence) is not sequence:
            fail(sequence.place, f"'{sequence.name}' is there already")
    return sequences


def digest():
    """What sequences.def was made of."""
    whole = hashlib.sha256()
    for name in FILES:
        with open(os.path.join(SOURCES, name + ".txt"), "rb") as source:
            whole.update(source.read())
    return whole.hexdigest()


def checked_in_digest():
    with open(RESULT, encoding="ascii") as result:
        match = re.search(r"sha256 (\w+)", result.read(1000))
    return match and match[1]


def assemble(sequences):
    """Each in a section of its own, .0 .1 ..., so that labels and `.` are its own."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = os.path.join(folder, "s.s"), os.path.join(folder, "s.o")
        with open(source, "w", encoding="ascii") as out:
            out.write(".intel_syntax noprefix\n")
            for number, sequence in enumerate(sequences):
                out.write(f'.section .{number},"ax"\n.code{sequence.mode[-2:]}\n')
                out.write(f'# 1 "{sequence.place}"\n{sequence.text}\n')
        if subprocess.run(["as", "--64", "-o", binary, source], check=False).returncode:
            sys.exit("as: the places above are lines of sequences/*.txt, where the sequence begins")
        if b"RELOC" in subprocess.run(["objdump", "-r", binary], check=True, capture_output=True).stdout:
            sys.exit("as: a symbol in a sequence\n" + subprocess.run(["objdump", "-r", binary], check=True, text=True,
                                                                     capture_output=True).stdout)
        dump = subprocess.run(["objdump", "-s", binary], check=True, capture_output=True, text=True).stdout
    current = None
    for line in dump.splitlines():
        if match := re.match(r"Contents of section \.(\w+):", line):
            current = sequences[int(match[1])] if match[1].isdigit() else None
        elif current and (match := re.match(r" [0-9a-f]{4,} ((?:[0-9a-f]{2,8} ){1,4}) ", line)):
            current.code += bytes.fromhex(match[1])
    for sequence in sequences:
        if not sequence.code:
            fail(sequence.place, "no bytes")


def write(sequences):
    with open(RESULT, "w", encoding="ascii") as out:
        out.write("/* SEQUENCE(section, title, mode, page_offset, size, bytes): guest code to translate. Made by assemble.py from\n"
                  f" * the text files in sequences/, sha256 {digest()}. */\n")
        for sequence in sequences:
            text = "".join(f"\\x{byte:02x}" for byte in sequence.code)
            out.write(f'SEQUENCE("{sequence.section}", "{sequence.title}", {sequence.mode.upper()}, {sequence.offset:#x}, '
                      f'{len(sequence.code)},\n         "{text}")\n')
        out.write("#undef SEQUENCE\n")


def main():
    if sys.argv[1:] == ["--if-changed"] and os.path.exists(RESULT) and digest() == checked_in_digest():
        return
    sequences = parse()
    assemble(sequences)
    write(sequences)
    print(f"{len(sequences)} sequences", file=sys.stderr)


if __name__ == "__main__":
    main()
