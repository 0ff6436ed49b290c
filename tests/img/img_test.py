#!/usr/bin/env python3
"""eidolon-img beside qemu-img: what it makes is accepted and equal, what it prints and the status that it exits with are the
same; mistakes are one line.

    img_test.py --img build/eidolon-img [TEST]...
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

K, M, G = 1 << 10, 1 << 20, 1 << 30
IMG = None


class Failure(Exception):
    pass


def run(*command, status=0, timeout=60):
    """Standard output. `status`: what it must exit with, or None."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if status is not None and result.returncode != status:
        raise Failure(f"{' '.join(command)}: status {result.returncode}, not {status}\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.stdout


def img(*arguments, **others):
    return run(IMG, *arguments, **others)


def qemu(*arguments, **others):
    return run("qemu-img", *arguments, **others)


def refused(*arguments, says, status=1):
    result = subprocess.run([IMG, *arguments], capture_output=True, text=True, timeout=60)
    line = result.stderr.strip()
    if result.returncode != status or "\n" in line or not line.startswith("eidolon-img: ") or says not in line:
        raise Failure(f"{' '.join(arguments)}: status {result.returncode}, {line!r}, expected {says!r}")


def same(a, b, what):
    if a != b:
        raise Failure(f"{what}:\n{a}\n--- qemu-img ---\n{b}")


def content(path, size, seed, holes=True):
    """A raw file of runs: zeroes, text, noise; the end is not a round number."""
    rng = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        at = 0
        while at < size:
            length = min(rng.choice((700, 4 * K, 30 * K, 70 * K, 600 * K)), size - at)
            kind = rng.randrange(4)
            file.seek(at)
            if kind == 0 and not holes:
                file.write(bytes(length))
            elif kind == 1:
                file.write((b"all work and no play " * (length // 20 + 1))[:length])
            elif kind == 2:
                file.write(rng.randbytes(length))
            elif kind == 3:
                file.write(bytes([rng.randrange(256)]) * length)
            at += length


def equal(a, a_format, b, b_format):
    run("qemu-img", "compare", "-q", "-f", a_format, "-F", b_format, a, b)


# ---- Tests: each in a folder of its own ----

def test_create():
    for n, options in enumerate((
            "", "compat=0.10", "compat=v3", "cluster_size=512", "cluster_size=2M", "cluster_size=4k,lazy_refcounts=on",
            "refcount_bits=1", "refcount_bits=64,cluster_size=512", "compression_type=zstd", "preallocation=metadata",
            "preallocation=falloc", "preallocation=full,cluster_size=1k", "preallocation=metadata,cluster_size=512,refcount_bits=32",
            "extended_l2=off")):
        for size in ("0", "1M", "12345678") if "preallocation" in options else ("0", "1M", "12345678", "3G"):
            name = f"{n}-{size}.qcow2"
            ours = img("create", "-f", "qcow2", *(["-o", options] if options else []), name, size)
            qemu("check", "-q", name)
            text = qemu("info", "--output=json", name)
            qemus = qemu("create", "-f", "qcow2", *(["-o", options] if options else []), name + ".q", size)
            theirs = json.loads(qemu("info", "--output=json", name + ".q"))
            mine = json.loads(text)
            for field in ("virtual-size", "cluster-size", "format-specific", "dirty-flag"):
                same(mine[field], theirs[field], f"create -o {options}: {field}")
            if "preallocation" not in options and "compat" not in options:
                same(ours, qemus.replace(name + ".q", name), "create prints")
            run("qemu-io", "-c", "write -z 0 0", name)
            os.unlink(name)
            os.unlink(name + ".q")
    img("create", "-q", "-f", "raw", "plain", "1000000")
    same(os.path.getsize("plain"), 1000448, "size of a raw image")
    img("create", "-q", "-f", "raw", "-o", "preallocation=falloc", "plain", "1M")
    same(os.stat("plain").st_blocks * 512, M, "space of a raw image")


def test_create_limits():
    qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "most", "128G")
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "most", "128G")
    qemu("check", "-q", "most")
    refused("create", "-f", "qcow2", "-o", "cluster_size=512", "x", "129G", says="too big")
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", "huge", "1E")
    qemu("check", "-q", "huge", timeout=120)


def test_create_backing():
    content("base.raw", 3 * M + 512, 1)
    img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "a.qcow2")
    img("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2", "5M")
    qemu("check", "-q", "b.qcow2")
    equal("b.qcow2", "qcow2", "base.raw", "raw")
    same(img("info", "--backing-chain", "b.qcow2"), qemu("info", "--backing-chain", "b.qcow2"), "info of a chain")
    os.mkdir("sub")
    img("create", "-q", "-f", "qcow2", "-b", "../b.qcow2", "-F", "qcow2", "sub/c.qcow2")
    for how in ("human", "json"):
        same(img("info", "--backing-chain", f"--output={how}", "sub/c.qcow2"),
             qemu("info", "--backing-chain", f"--output={how}", "sub/c.qcow2"), "info of a chain in folders")
    img("convert", "sub/c.qcow2", "flat.raw")
    equal("sub/c.qcow2", "qcow2", "flat.raw", "raw")
    # A name that fills the header cluster
    img("create", "-q", "-u", "-f", "qcow2", "-o", "cluster_size=512", "-b", "n" * 300, "-F", "raw", "long.qcow2", "1M")
    same(json.loads(qemu("info", "--output=json", "long.qcow2"))["backing-filename"], "n" * 300, "a long name")
    refused("create", "-u", "-f", "qcow2", "-o", "cluster_size=512", "-b", "n" * 500, "-F", "raw", "x", "1M", says="does not fit")


def test_convert():
    content("in.raw", 9 * M + 1536, 2)
    content("dense.raw", 2 * M, 3, holes=False)
    for source in ("in.raw", "dense.raw"):
        for n, arguments in enumerate((
                [], ["-o", "compat=0.10"], ["-o", "cluster_size=512"], ["-o", "cluster_size=2M"], ["-c"], ["-c", "-o", "compression_type=zstd"],
                ["-c", "-o", "cluster_size=4k,refcount_bits=2"], ["-c", "-o", "cluster_size=512,refcount_bits=1"], ["-c", "-o", "compat=0.10"],
                ["-m", "1"], ["-m", "16", "-W"], ["-c", "-W"], ["-S", "0"], ["-S", "64k"], ["-o", "lazy_refcounts=on"], ["-t", "writeback"],
                ["-o", "preallocation=metadata"], ["-c", "-o", "cluster_size=2M"])):
            target = f"{n}.qcow2"
            img("convert", "-f", "raw", "-O", "qcow2", *arguments, source, target)
            qemu("check", "-q", target)
            equal(source, "raw", target, "qcow2")
            img("check", "-q", target)
            img("convert", "-O", "raw", target, "back.raw")
            run("cmp", source, "back.raw")
            os.unlink(target)
    # As small as QEMU's
    img("convert", "-c", "-O", "qcow2", "in.raw", "ours.qcow2")
    qemu("convert", "-c", "-O", "qcow2", "in.raw", "theirs.qcow2")
    if os.path.getsize("ours.qcow2") > os.path.getsize("theirs.qcow2") * 1.05:
        raise Failure("compressed images are bigger than QEMU's")
    # What QEMU has made
    for options in ("compression_type=zstd", "extended_l2=on,cluster_size=32k", "cluster_size=512", "compat=0.10"):
        qemu("convert", "-O", "qcow2", "-o", options, *(["-c"] if "ext" not in options else []), "in.raw", "theirs.qcow2")
        img("convert", "theirs.qcow2", "back.raw")
        run("cmp", "in.raw", "back.raw")


def test_convert_existing():
    content("in.raw", 5 * M, 4)
    for fmt in ("qcow2", "raw"):
        content("old.raw", 7 * M, 5, holes=False)
        qemu("convert", "-O", fmt, "old.raw", "target")
        img("convert", "-n", "-O", fmt, "in.raw", "target")
        equal("in.raw", "raw", "target", fmt)
    img("create", "-q", "-f", "qcow2", "small", "4M")
    refused("convert", "-n", "-O", "qcow2", "in.raw", "small", says="smaller than the source")


def test_progress():
    content("in.raw", 3 * M, 6)
    text = img("convert", "-p", "-O", "qcow2", "in.raw", "out.qcow2")
    values = [float(value) for value in re.findall(r"\((\d+\.\d\d)/100%\)", text)]
    if values != sorted(values) or values[0] != 0 or values[-1] != 100 or len(values) < 3:
        raise Failure(f"progress: {text!r}")


def test_extended_l2():
    qemu("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "base.qcow2", "4M")
    run("qemu-io", "-c", "write -P 3 0 1M", "base.qcow2")
    qemu("create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=64k", "-b", "base.qcow2", "-F", "qcow2", "ext.qcow2")
    rng = random.Random(7)
    for _ in range(40):
        at = rng.randrange(4 * M // 512) * 512
        run("qemu-io", "-c", f"{rng.choice(('write -P 9', 'write -P 8', 'write -z', 'discard'))} {at} {min(rng.randrange(1, 64) * 512, 4 * M - at)}",
            "ext.qcow2")
    img("convert", "ext.qcow2", "out.raw")
    equal("ext.qcow2", "qcow2", "out.raw", "raw")
    same(img("check", "ext.qcow2"), qemu("check", "ext.qcow2"), "check")
    same(img("map", "--output=json", "ext.qcow2"), qemu("map", "--output=json", "ext.qcow2"), "map")
    refused("resize", "ext.qcow2", "8M", says="extended L2 entries can only be read")


def test_info_map_check():
    content("base.raw", 3 * M + 512, 8)
    qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base.raw", "-F", "raw", "a.qcow2", "6M")
    rng = random.Random(9)
    for n in range(40):
        at = rng.randrange(6 * M // 512) * 512
        length = min(rng.randrange(1, 300) * 512, 6 * M - at)
        run("qemu-io", "-c", f"{rng.choice(('write', 'write -z', 'write -zu', 'discard'))} {at} {length}", "a.qcow2")
        if n in (10, 20):
            qemu("snapshot", "-c", f"snap {n}", "a.qcow2")
    qemu("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2")
    run("qemu-io", "-c", "write 100k 300k", "b.qcow2")
    for name in ("base.raw", "a.qcow2", "b.qcow2"):
        for how in ("human", "json"):
            same(img("info", f"--output={how}", name), qemu("info", f"--output={how}", name), f"info {name}")
            same(img("map", f"--output={how}", name), qemu("map", f"--output={how}", name), f"map {name}")
            if name != "base.raw":
                same(img("check", f"--output={how}", name), qemu("check", f"--output={how}", name), f"check {name}")
    same(img("map", "--output=json", "-s", "1M", "-l", "100k", "b.qcow2"), qemu("map", "--output=json", "-s", "1M", "-l", "100k", "b.qcow2"), "map of a part")


def test_resize():
    content("in.raw", 3 * M, 10)
    for options in ("", "compat=0.10", "cluster_size=512", "cluster_size=512,refcount_bits=64"):
        arguments = ["-o", options] if options else []
        qemu("convert", "-O", "qcow2", *arguments, "in.raw", "a.qcow2")
        shutil.copy("in.raw", "model.raw")
        for size in ("+1M", "8M", "-2M", "3500k", "1M", "20M", "+2G", "1536", "4M"):
            img("resize", "-q", "--shrink", "a.qcow2", size)
            run("truncate", "-s", size, "model.raw")
            qemu("check", "-q", "a.qcow2")
            equal("a.qcow2", "qcow2", "model.raw", "raw")
        for mode in ("metadata", "falloc", "full"):
            img("resize", "-q", f"--preallocation={mode}", "a.qcow2", "+1M")
            qemu("check", "-q", "a.qcow2")
        run("truncate", "-s", "7M", "model.raw")
        equal("a.qcow2", "qcow2", "model.raw", "raw")
    # What a bigger backing file has behind the old end stays hidden.
    content("base.raw", 6 * M, 11, holes=False)
    qemu("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "over.qcow2", "2M")
    img("resize", "-q", "over.qcow2", "5M")
    run("truncate", "-s", "2M", "base.cut")
    run("cp", "base.raw", "model.raw")
    run("truncate", "-s", "2M", "model.raw")
    run("truncate", "-s", "5M", "model.raw")
    equal("over.qcow2", "qcow2", "model.raw", "raw")
    img("create", "-q", "-f", "raw", "r.raw", "1M")
    same(img("resize", "-f", "raw", "r.raw", "+1M"), "Image resized.\n", "resize prints")
    same(os.path.getsize("r.raw"), 2 * M, "a raw image's size")
    refused("resize", "a.qcow2", "1M", says="--shrink")
    refused("resize", "a.qcow2", "-9999G", says="below 0")


def hurt(name, changes):
    with open(name, "r+b") as file:
        for offset, data in changes:
            file.seek(offset)
            file.write(data)


def test_repair():
    qemu("create", "-q", "-f", "qcow2", "clean.qcow2", "8M")
    run("qemu-io", "-c", "write -P 5 0 3M", "clean.qcow2")
    shutil.copy("clean.qcow2", "model.qcow2")
    table = 0x10000  # of refcounts
    block = 0x20000
    l1 = 0x30000
    l2 = 0x40000
    cases = {
        "leaks": ([(block + 2 * 70, b"\0\1"), (0x10000 * 71 - 1, b"\0")], 3),
        "counts_too_low": ([(block + 2 * 10, b"\0\0\0\0")], 2),
        "block_lost": ([(block, bytes(0x10000))], 2),
        "table_lost": ([(table, bytes(8))], 2),
        "table_wild": ([(table, b"\0\0\0\0\0\x12\x34\0")], 2),
        "block_is_l2": ([(table, l2.to_bytes(8, "big"))], 2),
        "copied": ([(l2, b"\0")], 2),
        "copied_l1": ([(l1, b"\0")], 2),
    }
    for name, (changes, status) in cases.items():
        shutil.copy("clean.qcow2", "bad.qcow2")
        hurt("bad.qcow2", changes)
        if subprocess.run(["qemu-img", "check", "-q", "bad.qcow2"], capture_output=True).returncode not in (1, status):
            raise Failure(f"{name}: the damage is none")
        ours = json.loads(img("check", "--output=json", "bad.qcow2", status=status))
        if status == 3:
            theirs = json.loads(qemu("check", "--output=json", "bad.qcow2", status=status))
            same(ours, theirs, "check of leaks")
            img("check", "-q", "-r", "leaks", "bad.qcow2")
        else:
            img("check", "-q", "-r", "leaks", "bad.qcow2", status=status)
            img("check", "-q", "-r", "all", "bad.qcow2")
        qemu("check", "-q", "bad.qcow2")
        equal("bad.qcow2", "qcow2", "model.qcow2", "qcow2")
        img("check", "-q", "bad.qcow2")


def test_dirty():
    qemu("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", "a.qcow2", "8M")
    run("qemu-io", "-c", "write -P 5 0 1M", "-c", "flush", "-c", "abort", "a.qcow2", status=None)
    same(json.loads(img("info", "--output=json", "a.qcow2"))["dirty-flag"], True, "dirty-flag")
    img("resize", "-q", "a.qcow2", "9M")
    same(json.loads(qemu("info", "--output=json", "a.qcow2"))["dirty-flag"], False, "dirty-flag after a repair")
    qemu("check", "-q", "a.qcow2")
    run("qemu-io", "-c", "read -P 5 0 1M", "a.qcow2")


def test_compare():
    content("a.raw", 3 * M, 12)
    img("convert", "-c", "-O", "qcow2", "a.raw", "b.qcow2")
    same(img("compare", "a.raw", "b.qcow2"), qemu("compare", "a.raw", "b.qcow2"), "compare")
    run("qemu-io", "-c", "write -P 77 1000k 512", "b.qcow2")
    same(img("compare", "a.raw", "b.qcow2", status=1), qemu("compare", "a.raw", "b.qcow2", status=1), "compare")
    img("resize", "-q", "b.qcow2", "4M")
    shutil.copy("b.qcow2", "c.qcow2")
    img("resize", "-q", "c.qcow2", "5M")
    same(img("compare", "b.qcow2", "c.qcow2"), qemu("compare", "b.qcow2", "c.qcow2"), "compare")
    same(img("compare", "-s", "b.qcow2", "c.qcow2", status=1), qemu("compare", "-s", "b.qcow2", "c.qcow2", status=1), "compare -s")
    img("compare", "nothing", "b.qcow2", status=2)


def test_rebase():
    content("one.raw", 2 * M, 13)
    content("two.raw", 2 * M, 14)
    qemu("create", "-q", "-f", "qcow2", "-b", "one.raw", "-F", "raw", "a.qcow2")
    qemu("bitmap", "--add", "a.qcow2", "bits")
    img("rebase", "-u", "-b", "two.raw", "-F", "raw", "a.qcow2")
    equal("a.qcow2", "qcow2", "two.raw", "raw")
    qemu("check", "-q", "-r", "leaks", "a.qcow2", status=None)
    qemu("check", "-q", "a.qcow2")
    img("rebase", "-u", "-b", "", "a.qcow2")
    if "backing-filename" in json.loads(qemu("info", "--output=json", "a.qcow2")):
        raise Failure("rebase -b '' left a backing file")
    refused("rebase", "-b", "one.raw", "-F", "raw", "a.qcow2", says="only -u")


@contextlib.contextmanager
def qemu_holds(name):
    """qemu-io with the image open for writing."""
    process = subprocess.Popen(["qemu-io", name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            # The byte of the permission to write, in the kernel's list of locks
            if re.search(rf"OFDLCK.*READ.*:{os.stat(name).st_ino} 10[01] 10[1-3]\b", open("/proc/locks").read()):
                break
            time.sleep(0.05)
        else:
            raise Failure("qemu-io does not lock the image")
        yield
    finally:
        process.communicate(b"quit\n")


def test_locks():
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    qemu("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2")
    with qemu_holds("a.qcow2"):
        refused("info", "a.qcow2", says='Failed to get shared "write" lock'.lower())
        refused("check", "a.qcow2", says="in use")
        refused("resize", "a.qcow2", "2M", says="in use")
        refused("convert", "over.qcow2", "x.raw", says="in use")
        refused("create", "-f", "qcow2", "a.qcow2", "1M", says="in use")
        img("info", "-U", "a.qcow2")
    with qemu_holds("over.qcow2"):
        img("info", "a.qcow2")
        refused("resize", "a.qcow2", "2M", says="in use")
    same(qemu("info", "--output=json", "a.qcow2"), img("info", "--output=json", "a.qcow2"), "it is as it was")
    refused("convert", "-O", "qcow2", "a.qcow2", "a.qcow2", says="in use")


def test_refused():
    content("in.raw", M, 15)
    img("create", "-q", "-f", "qcow2", "good.qcow2", "1M")
    good = open("good.qcow2", "rb").read()

    def bad(changes, says, keep=None):
        with open("bad.qcow2", "wb") as file:
            file.write(good[:keep])
        hurt("bad.qcow2", changes)
        refused("convert", "bad.qcow2", "out.raw", says=says)

    be32, be64 = (lambda n: n.to_bytes(4, "big")), (lambda n: n.to_bytes(8, "big"))
    bad([(4, be32(4))], "version 4")
    bad([(20, be32(8))], "cluster size of 2^8")
    bad([(20, be32(40))], "cluster size of 2^40")
    bad([(24, be64(1 << 62))], "too big")
    bad([(32, be32(1))], "encrypted (AES)")
    bad([(32, be32(2))], "encrypted (LUKS)")
    bad([(36, be32(1 << 30))], "L1 table of")
    bad([(36, be32(0))], "L1 table has 0 entries")
    bad([(40, be64(1 << 40))], "not inside of the file")
    bad([(40, be64(0x30200))], "not inside of the file")
    bad([(56, be32(1 << 20))], "refcount table of")
    bad([(60, be32(1 << 20))], "snapshots")
    bad([(60, be32(1)), (64, be64(1 << 40))], "snapshot table")
    bad([(72, be64(4))], "external data file")
    bad([(72, be64(1 << 20))], "bit 20")
    bad([(72, be64(8))], "compression type")
    bad([(72, be64(8)), (104, b"\7")], "compression type 7")
    bad([(96, be32(9))], "2^9 bits")
    bad([(100, be32(3))], "header length")
    bad([(116, be32(1 << 30))], "longer than its place")
    bad([(8, be64(1 << 30)), (16, be32(5))], "outside of the header")
    bad([(8, be64(1000)), (16, be32(2000))], "outside of the header")
    bad([], "not inside of the file", keep=100000)
    # The name of an unknown feature is in the image.
    name_at = good.index(b"dirty bit") - 2
    bad([(72, be64(1 << 30)), (name_at, bytes((0, 30)) + b"time travel\0")], "'time travel'")

    os.symlink("loop.qcow2", "link.qcow2")
    img("create", "-q", "-u", "-f", "qcow2", "-b", "link.qcow2", "-F", "qcow2", "loop.qcow2", "1M")
    refused("convert", "loop.qcow2", "out.raw", says="its own backing file")
    img("create", "-q", "-u", "-f", "qcow2", "-b", "missing", "-F", "raw", "m.qcow2", "1M")
    refused("convert", "m.qcow2", "out.raw", says="'missing' cannot be opened: No such file")
    img("info", "m.qcow2")
    refused("info", "--backing-chain", "m.qcow2", says="'missing'")
    img("create", "-q", "-u", "-f", "qcow2", "-b", "nbd://host/x", "-F", "raw", "m.qcow2", "1M")
    refused("convert", "m.qcow2", "out.raw", says="protocol")
    for says, *arguments in (
            ("no such command: creat (did you mean 'create'?)", "creat"),
            ("format 'vmdk'", "create", "-f", "vmdk", "x", "1M"),
            ("extended_l2=on", "create", "-f", "qcow2", "-o", "extended_l2=on", "x", "1M"),
            ("data_file=y", "create", "-f", "qcow2", "-o", "data_file=y", "x", "1M"),
            ("unknown property 'colour'", "create", "-f", "qcow2", "-o", "colour=red", "x", "1M"),
            ("'12Q'", "create", "-f", "qcow2", "x", "12Q"),
            ("size is missing", "create", "-f", "qcow2", "x"),
            ("power of two", "create", "-f", "qcow2", "-o", "cluster_size=3000", "x", "1M"),
            ("-F raw or -F qcow2", "create", "-f", "qcow2", "-b", "good.qcow2", "x"),
            ("neither a file nor a block device", "info", "."),
            ("No such file", "info", "nothing"),
            ("cannot be compressed", "convert", "-c", "-O", "raw", "in.raw", "out"),
            ("-t none", "convert", "-t", "none", "in.raw", "out"),
            ("--output=xml", "info", "--output=xml", "good.qcow2"),
            ("-r some", "check", "-r", "some", "good.qcow2")):
        refused(*arguments, says=says)
    refused("check", "in.raw", says="no check", status=63)


def test_deep_chain():
    content("0.raw", M, 16)
    below = ("0.raw", "raw")
    for n in range(1, 121):
        img("create", "-q", "-u", "-f", "qcow2", "-o", "cluster_size=4k", "-b", below[0], "-F", below[1], f"{n}.qcow2", "1M")
        below = (f"{n}.qcow2", "qcow2")
    img("convert", below[0], "out.raw")
    run("cmp", "0.raw", "out.raw")


def test_full_disk():
    """A target that the host has no room for."""
    content("in.raw", 4 * M, 17, holes=False)
    result = subprocess.run(["bash", "-c", f"ulimit -f 1000; trap '' XFSZ; exec {IMG} convert -O qcow2 in.raw out.qcow2"],
                            capture_output=True, text=True, timeout=60)
    if result.returncode != 1 or "copying failed: File too large" not in result.stderr:
        raise Failure(f"full disk: status {result.returncode}, {result.stderr}")


def main():
    global IMG
    tests = {name[5:]: function for name, function in globals().items() if name.startswith("test_")}
    parser = argparse.ArgumentParser()
    parser.add_argument("--img", required=True)
    parser.add_argument("tests", nargs="*", help=" ".join(tests))
    options = parser.parse_args()
    IMG = os.path.abspath(options.img)
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        sys.exit("qemu-img and qemu-io are needed: package qemu-utils")
    failed = []
    for name in options.tests or tests:
        folder = tempfile.mkdtemp(prefix=f"img-{name}-")
        os.chdir(folder)
        start = time.monotonic()
        try:
            tests[name]()
            print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
            shutil.rmtree(folder)
        except (Failure, subprocess.TimeoutExpired) as failure:
            print(f"{name}: FAILED: {failure}\nleft in {folder}", flush=True)
            failed.append(name)
    sys.exit(1 if failed else 0)


main()
