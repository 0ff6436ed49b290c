#!/usr/bin/env python3
"""extract_kernel.py VMLINUZ ELF: unpacks the kernel of a bzImage and marks its beginning.

The ELF file inside a bzImage has a PVH entry point (a Xen note of type 18), at which emulators start it without a decompressor.
Here that entry is moved to a few instructions that send one byte, 02 (STX), to the first serial port and jump to the kernel's
own entry. Whoever reads the console so learns when the kernel's first instruction ran, on every emulator in the same way.
See Linux Documentation/arch/x86/boot.rst (fields at 1f1, 248), and xen/include/public/elfnote.h.
"""

import lzma
import struct
import subprocess
import sys
import zlib

PVH_NOTE = 18
MARK = 2
MARK_ADDRESS = 0xF00000  # guest-physical: free memory below the kernel, which is loaded from 16 MiB on
PT_LOAD, PT_NOTE = 1, 4
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")  # type, flags, offset, vaddr, paddr, filesz, memsz, align


def filtered(command, data):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def unpack(image):
    if image[0x202:0x206] != b"HdrS":
        sys.exit("extract_kernel: not a bzImage")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length - 4]  # the last four bytes are the size of what was packed
    if payload.startswith(b"\x7fELF"):
        return payload
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return filtered(["zstd", "-d", "-c"], payload)
    if payload.startswith(b"\x02\x21\x4c\x18"):
        return filtered(["lz4", "-d", "-c"], payload)
    sys.exit(f"extract_kernel: the kernel is packed in a way that is not known here: {payload[:4].hex()}")


def program_headers(elf):
    table, = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    return [(table + i * size, PROGRAM_HEADER.unpack_from(elf, table + i * size)) for i in range(count)]


def find_entry(elf):
    """Offset and size of the PVH note's value."""
    for _, (kind, _, offset, _, _, size, _, _) in program_headers(elf):
        end = offset + size
        while kind == PT_NOTE and offset + 12 <= end:
            name_size, value_size, note = struct.unpack_from("<III", elf, offset)
            value = offset + 12 + (name_size + 3 & ~3)
            if note == PVH_NOTE and elf[offset + 12 : offset + 16] == b"Xen\0":
                return value, value_size
            offset = value + (value_size + 3 & ~3)
    sys.exit("extract_kernel: the kernel has no PVH entry (CONFIG_PVH)")


def mark(elf):
    elf = bytearray(elf)
    value, size = find_entry(elf)
    entry = int.from_bytes(elf[value : value + size], "little")
    code = b"\x66\xba\xf8\x03" + bytes([0xB0, MARK]) + b"\xee"  # mov dx, 3f8; mov al, MARK; out dx, al
    code += b"\xe9" + struct.pack("<i", entry - (MARK_ADDRESS + len(code) + 5))  # jmp entry
    headers = program_headers(elf)
    place, code_offset = headers[-1][0] + PROGRAM_HEADER.size, 0x1000
    first = min(offset for _, (kind, _, offset, *_) in headers if kind == PT_LOAD)
    if first < code_offset + len(code) or any(elf[place : place + PROGRAM_HEADER.size]):
        sys.exit("extract_kernel: no room for another program header")
    for _, (kind, _, _, _, address, _, length, _) in headers:
        if kind == PT_LOAD and address < MARK_ADDRESS + 4096 and MARK_ADDRESS < address + length:
            sys.exit("extract_kernel: the kernel occupies the place of the mark")
    PROGRAM_HEADER.pack_into(elf, place, PT_LOAD, 5, code_offset, MARK_ADDRESS, MARK_ADDRESS, len(code), len(code), 4096)
    struct.pack_into("<H", elf, 56, len(headers) + 1)
    elf[code_offset : code_offset + len(code)] = code
    elf[value : value + size] = MARK_ADDRESS.to_bytes(size, "little")
    return elf


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n", 1)[0])
    with open(sys.argv[1], "rb") as vmlinuz, open(sys.argv[2], "wb") as out:
        out.write(mark(unpack(vmlinuz.read())))


if __name__ == "__main__":
    main()
