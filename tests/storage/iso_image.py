"""A small ISO 9660 image (ECMA-119) with some files in its root, so that tests need no other program for it."""

import struct

SECTOR = 2048


def both16(value):
    return struct.pack("<H", value) + struct.pack(">H", value)


def both32(value):
    return struct.pack("<I", value) + struct.pack(">I", value)


def record(name, sector, size, directory):
    """A directory record (9.1)."""
    length = 33 + len(name) + (len(name) + 1) % 2
    data = struct.pack("BB", length, 0) + both32(sector) + both32(size) + bytes([120, 1, 1, 0, 0, 0, 0])
    data += bytes([2 if directory else 0, 0, 0]) + both16(1) + bytes([len(name)]) + name
    return data.ljust(length, b"\0")


def primary_descriptor(total, path_size, root):
    """8.4: only what a reader looks at."""
    data = b"\x01CD001\x01\0" + b"EIDOLON".ljust(32) + b"TEST".ljust(32) + bytes(8) + both32(total) + bytes(32)
    data += both16(1) + both16(1) + both16(SECTOR) + both32(path_size)
    data += struct.pack("<II", 18, 0) + struct.pack(">II", 19, 0) + root
    data = data.ljust(813, b" ") + b"0" * 16 + b"\0" + b"0" * 16 + b"\0" + b"0" * 16 + b"\0" + b"0" * 16 + b"\0" + b"\x01"
    return data.ljust(SECTOR, b"\0")


def make(files):
    """files: {"NAME.EXT": bytes}. The image."""
    sector, entries, contents = 21, b"", b""
    for name, data in sorted(files.items()):
        entries += record(name.encode() + b";1", sector, len(data), False)
        padded = data.ljust((len(data) + SECTOR - 1) // SECTOR * SECTOR, b"\0")
        contents += padded
        sector += len(padded) // SECTOR
    directory = record(b"\0", 20, SECTOR, True) + record(b"\1", 20, SECTOR, True) + entries
    assert len(directory) <= SECTOR
    path = [bytes([1, 0]) + struct.pack(order + "IH", 20, 1) + b"\0\0" for order in "<>"]
    image = bytes(16 * SECTOR) + primary_descriptor(sector, len(path[0]), record(b"\0", 20, SECTOR, True))
    image += b"\xffCD001\x01".ljust(SECTOR, b"\0")
    for part in (*path, directory):
        image += part.ljust(SECTOR, b"\0")
    return image + contents
