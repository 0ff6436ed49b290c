#!/usr/bin/env python3
"""Boots Linux with the virtio drivers of its distribution, and checks what reaches the disk and comes from it.

The modules are taken out of the kernel's package (build/cache), and appended to the initrd as a second archive. For each case: the
guest reads the whole disk, writes random bytes in two ways and says what it wrote and read by checksums; the host compares them with
the file. The program under test comes from --eidolon or the environment variable EIDOLON.
"""

import argparse
import glob
import gzip
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile

MODULES = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk", "virtio-rng",
           "virtio_balloon"]
DISK_MIB = 24
RNG, BALLOON = ["-device", "virtio-rng-pci"], ["-device", "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on"]

# name: (options of the disk's -device, further options, what the guest must print beside the checksums)
CASES = {
    "modern": ("virtio-blk-pci-non-transitional", RNG + BALLOON, [r"virtio0-req", r"^rng 4096$", r"^balloon virtio_balloon$"]),
    "packed": ("virtio-blk-pci,packed=on", [], [r"virtio0-req"]),
    "transitional_intx": ("virtio-blk-pci-transitional,vectors=0", [], [r"IO-APIC.*virtio0"]),
    "legacy": ("virtio-blk-pci,disable-modern=on", RNG, [r"virtio0-req", r"^rng 4096$"]),
    "legacy_intx": ("virtio-blk-pci,disable-modern=on,vectors=0", BALLOON, [r"IO-APIC.*virtio0", r"^balloon virtio_balloon$"]),
    "plain_rings": ("virtio-blk-pci,event_idx=off,indirect_desc=off,write-cache=off", [], [r"virtio0-req"]),
    "iothread": ("virtio-blk-pci,iothread=io1,num-queues=4,serial=EID-17,logical_block_size=4096", ["-object", "iothread,id=io1"],
                 [r"^serial EID-17$", r"^block 4096$"]),
}

SCRIPT = f"""
for m in {' '.join(MODULES)}; do insmod /virtio/$m.ko || echo "insmod $m failed"; done
echo "read $(sha256sum </dev/vda)"
dd if=/dev/urandom of=/tmp/r bs=1M count=8 2>/dev/null
dd if=/tmp/r of=/dev/vda bs=64k seek=16 conv=fsync 2>/dev/null
dd if=/tmp/r of=/dev/vda bs=4k seek=4096 count=300 oflag=direct 2>/dev/null
echo "written $(sha256sum </tmp/r)"
sync
echo 3 >/proc/sys/vm/drop_caches
echo "back $(dd if=/dev/vda bs=1M skip=1 count=8 2>/dev/null | sha256sum)"
blkdiscard -z -o 20971520 -l 1048576 /dev/vda 2>/dev/null
echo "all $(sha256sum </dev/vda)"
echo "serial $(cat /sys/block/vda/serial)"
echo "block $(cat /sys/block/vda/queue/logical_block_size)"
[ -e /dev/hwrng ] && echo "rng $(dd if=/dev/hwrng bs=4096 count=1 iflag=fullblock 2>/dev/null | wc -c)"
for d in /sys/bus/virtio/drivers/virtio_balloon/virtio*; do [ -e $d ] && echo "balloon virtio_balloon"; done
grep virtio /proc/interrupts
"""


def cpio_entry(name, data, mode):
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    entry = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    entry += b"\0" * (-len(entry) % 4) + data
    return entry + b"\0" * (-len(data) % 4)


def module_archive(cache):
    packages = glob.glob(f"{cache}/linux-image-*-cloud-amd64_*.deb")
    if not packages:
        raise SystemExit(f"no kernel package in {cache}: run ./dev guest")
    archive = cpio_entry("virtio", b"", 0o40755)
    with tempfile.TemporaryDirectory() as folder:
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", packages[0]], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "x", "-C", folder, "--wildcards", "*virtio*.ko*"], input=tar, check=True)
        for name in MODULES:
            found = glob.glob(f"{folder}/**/{name}.ko", recursive=True)
            if len(found) != 1:
                raise SystemExit(f"{packages[0]} has no {name}.ko")
            with open(found[0], "rb") as file:
                archive += cpio_entry(f"virtio/{name}.ko", file.read(), 0o100644)
    archive += cpio_entry("virtio/run", SCRIPT.encode(), 0o100755)
    return gzip.compress(archive + cpio_entry("TRAILER!!!", b"", 0), 1)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def boot(command, limit):
    read_end, write_end = os.pipe()  # a serial console whose input does not end
    process = subprocess.Popen(command, stdin=read_end, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.close(read_end)
    try:
        output = process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        output = process.communicate()[0] + b"\nnot finished in time\n"
    os.close(write_end)
    return output.decode("utf-8", "replace").replace("\r", ""), process.returncode


def check(output, status, before, after, expect):
    problems = [] if status == 0 else [f"exit status {status}"]
    sums = dict(re.findall(r"^(read|written|back|all) ([0-9a-f]{64})", output, re.M))
    wanted = {"read": sha256(before), "written": sha256(after[1 << 20:9 << 20]), "back": sums.get("written"), "all": sha256(after)}
    problems += [f"{name}: guest {sums.get(name)}, host {value}" for name, value in wanted.items() if sums.get(name) != value]
    if before[9 << 20:16 << 20] != after[9 << 20:16 << 20]:
        problems.append("bytes that nobody wrote have changed")
    if after[1 << 20:(1 << 20) + 300 * 4096] != after[16 << 20:(16 << 20) + 300 * 4096]:
        problems.append("what was written directly differs")
    problems += [f"not found: {pattern}" for pattern in expect + ["eidolon-run: end 0"] if not re.search(pattern, output, re.M)]
    problems += [f"complaint: {line}" for line in output.splitlines()
                 if re.search(r"I/O error|BUG:|WARNING:|Call Trace|nobody cared|insmod .* failed|hung task", line)]
    return problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--eidolon", default="build/eidolon")
    parser.add_argument("--guest", default="build/guest")
    parser.add_argument("--cache", default="build/cache")
    parser.add_argument("case", help="name of a case, or 'list'")
    options = parser.parse_args()
    if options.case == "list":
        print("\n".join(CASES))
        return 0
    disk_options, more, expect = CASES[options.case]
    program = os.environ.get("EIDOLON", options.eidolon).split()
    limit = 60 * float(os.environ.get("EIDOLON_TIME_SCALE", "1"))
    with tempfile.TemporaryDirectory() as folder:
        disk, initrd = f"{folder}/disk.img", f"{folder}/initrd.img"
        before = random.Random(1).randbytes(DISK_MIB << 20)
        with open(disk, "wb") as file:
            file.write(before)
        with open(initrd, "wb") as file, open(f"{options.guest}/initrd.img", "rb") as base:
            data = base.read()
            file.write(data + b"\0" * (-len(data) % 4) + module_archive(options.cache))
        command = program + [
            "-machine", "q35", "-nodefaults", "-display", "none", "-serial", "stdio", "-m", "256M", "-no-reboot",
            "-kernel", f"{options.guest}/vmlinuz", "-initrd", initrd, "-append", 'console=ttyS0 quiet eidolon.run="sh /virtio/run"',
            "-drive", f"file={disk},format=raw,if=none,id=d0,discard=unmap", *more, "-device", f"{disk_options},drive=d0"]
        print(" ".join(command), flush=True)
        output, status = boot(command, limit)
        with open(disk, "rb") as file:
            after = file.read()
    # Devices are numbered as they are found; the disk is the last one.
    disk_number = more.count("-device")
    expect = [pattern.replace("virtio0", f"virtio{disk_number}") for pattern in expect]
    problems = check(output, status, before, after, expect)
    if problems:
        print("---- output ----\n" + output[-8000:] + "\n---- problems ----")
        print("\n".join(problems))
        return 1
    print(f"{options.case}: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
