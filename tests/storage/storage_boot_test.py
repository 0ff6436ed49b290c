#!/usr/bin/env python3
"""Linux' own drivers for NVMe and virtio-scsi (sd, sr): a guest reads a disk, writes it, makes a file system on it and
powers off; the host compares what the guest saw and what is in the image.

The kernel's modules come from its package in the cache; they are put into an archive behind the initial RAM disk.
"""

import argparse
import glob
import hashlib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading

DISK = 64 << 20
HALF = DISK // 2

MODULES = {
    "nvme": [],
    "scsi": ["virtio_pci", "virtio_scsi", "sd_mod", "sr_mod"],
}
DEVICES = {
    "nvme": lambda disk, cd: ["-drive", f"file={disk},if=none,id=d,format=raw,discard=unmap", "-device", "nvme,drive=d,serial=nvme-1"],
    "scsi": lambda disk, cd: ["-drive", f"file={disk},if=none,id=d,format=raw,discard=unmap", "-drive",
                              f"file={cd},if=none,id=c,media=cdrom,format=raw,read-only=on", "-device", "virtio-scsi-pci,id=s,num_queues=2",
                              "-device", "scsi-hd,drive=d,bus=s.0,serial=scsi-1", "-device", "scsi-cd,drive=c"],
}
NODES = {"nvme": "/dev/nvme0n1", "scsi": "/dev/sda"}

SCRIPT = """
for module in {modules}; do insmod /modules/$module.ko || echo "MISTAKE: insmod $module"; done
d={node}
n=0
while [ ! -b $d ] && [ $n -lt 50 ]; do sleep 0.2; n=$((n + 1)); done
b=/sys/block/${{d#/dev/}}
echo "SIZE $(cat $b/size) $(cat $b/queue/logical_block_size) cache $(cat $b/queue/write_cache) discard $(cat $b/queue/discard_max_bytes)"
echo "READ $(sha256sum < $d)"
echo "DIRECT $(dd if=$d bs=1M iflag=direct 2>/dev/null | sha256sum)"
# The upper half: written by four at once, with caches and without.
for i in 0 1 2 3; do
    dd if=/dev/urandom of=/tmp/part$i bs=1M count=8 2>/dev/null
    if [ $((i % 2)) = 0 ]; then flag=oflag=direct; else flag=conv=fsync; fi
    dd if=/tmp/part$i of=$d bs=1M seek=$((32 + i * 8)) $flag conv=notrunc 2>/dev/null &
done
wait
sync
echo 3 > /proc/sys/vm/drop_caches
for i in 0 1 2 3; do echo "PART$i $(sha256sum < /tmp/part$i)"; done
for i in 0 1 2 3; do echo "BACK$i $(dd if=$d bs=1M skip=$((32 + i * 8)) count=8 2>/dev/null | sha256sum)"; done
blkdiscard -o {half} -l 1048576 $d || echo "MISTAKE: blkdiscard"
# The lower half: a file system.
mke2fs -F $d 32768 >/dev/null 2>&1 || echo "MISTAKE: mke2fs"
mkdir -p /mnt
mount -t ext4 $d /mnt 2>/dev/null || mount -t ext2 $d /mnt || echo "MISTAKE: mount"
cp -a /bin /mnt/ && cp /tmp/part0 /mnt/file && sync
echo 3 > /proc/sys/vm/drop_caches
echo "FILE $(sha256sum < /mnt/file)"
umount /mnt || echo "MISTAKE: umount"
sync
if [ -b /dev/sr0 ]; then echo "CD $(sha256sum < /dev/sr0)"; fi
dmesg | grep -iE "i/o error|timed out|timeout,|abort|resetting|sense key" | sed 's/^/COMPLAINT: /'
grep -E "nvme|virtio" /proc/interrupts | sed 's/^/INTERRUPTS /'
echo "FINISHED"
"""


def elf_depends(data):
    match = re.search(rb"(?:^|\0)depends=([^\0]*)\0", data)
    return [name for name in match.group(1).decode().split(",") if name] if match else []


def load_modules(package, wanted):
    """[(name, bytes)] in the order of insmod; what is built into the kernel is left out."""
    stream = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=subprocess.PIPE).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        for member in archive:
            if member.name.endswith(".ko"):
                found[os.path.basename(member.name)[:-3].replace("-", "_")] = member
        order = []

        def add(name):
            name = name.replace("-", "_")
            if name not in found or any(name == n for n, _ in order):
                return
            data = archive.extractfile(found[name]).read()
            for other in elf_depends(data):
                add(other)
            order.append((name, data))

        for name in wanted:
            add(name)
    return order


def cpio(files):
    """An archive in the "newc" form; directories are made where they are first needed."""
    out = bytearray()

    def entry(name, mode, data):
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out.extend(b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0")
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    entry("modules", 0o040755, b"")
    for name, data in files:
        entry(name, 0o100755, data)
    entry("TRAILER!!!", 0, b"")
    return bytes(out)


def run_guest(program, guest, kind, package, disk, cd, folder, limit):
    modules = load_modules(package, MODULES[kind])
    script = SCRIPT.format(modules=" ".join(name for name, _ in modules), node=NODES[kind], half=HALF)
    initrd = os.path.join(folder, "initrd.img")
    with open(initrd, "wb") as out, open(f"{guest}/initrd.img", "rb") as base:
        shutil.copyfileobj(base, out)
        out.write(b"\0" * (-out.tell() % 512))
        out.write(cpio([(f"modules/{name}.ko", data) for name, data in modules] + [("storage.sh", script.encode())]))
    command = program + ["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512M", "-no-reboot", "-kernel",
                         f"{guest}/vmlinuz", "-initrd", initrd, "-append", 'console=ttyS0 quiet eidolon.run="sh /storage.sh"']
    command += DEVICES[kind](disk, cd)
    print(" ".join(command), flush=True)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    timer = threading.Timer(limit, process.kill)
    timer.start()
    output = process.communicate()[0].decode("utf-8", "replace").replace("\r", "")
    timer.cancel()
    return output, process.returncode


def sha(data):
    return hashlib.sha256(data).hexdigest()


def check(kind, output, before, after, cd, folder):
    found = dict(re.findall(r"^([A-Z]+\d?) ([0-9a-f]{64})\b", output, re.M))
    problems = [line for line in output.splitlines() if line.startswith(("MISTAKE", "COMPLAINT"))]

    def same(name, value, what):
        if found.get(name) != value:
            problems.append(f"{what}: {name} is {found.get(name)}, expected {value}")

    if "FINISHED" not in output:
        problems.append("the guest did not come to its end")
    if f"SIZE {DISK // 512} 512 cache write back discard " not in output or "discard 0" in output:
        problems.append("size, write cache or discard: " + "".join(re.findall(r"^SIZE.*", output, re.M)))
    same("READ", sha(before), "what the guest read")
    same("DIRECT", sha(before), "what the guest read, without its cache")
    for i in range(4):
        same(f"BACK{i}", found.get(f"PART{i}"), "read back")
        part = after[HALF + i * (8 << 20) : HALF + (i + 1) * (8 << 20)]
        if i == 0:
            if any(part[: 1 << 20]):
                problems.append("what was discarded is still there")
            continue
        same(f"PART{i}", sha(part), "in the image")
    same("FILE", found.get("PART0"), "file in the file system")
    if kind == "scsi":
        same("CD", sha(cd), "CD-ROM")
    image = os.path.join(folder, "half.img")
    with open(image, "wb") as out:
        out.write(after[:HALF])
    if shutil.which("e2fsck") or os.path.exists("/sbin/e2fsck"):
        checked = subprocess.run([shutil.which("e2fsck") or "/sbin/e2fsck", "-fn", image], capture_output=True, text=True)
        if checked.returncode:
            problems.append("e2fsck: " + checked.stdout[-2000:])
    return problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--eidolon", default="build/eidolon")
    parser.add_argument("--guest", default="build/guest", help="folder of the guest images")
    parser.add_argument("--cache", default="build/cache", help="folder of packages")
    parser.add_argument("kind", choices=sorted(DEVICES))
    options = parser.parse_args()
    program = os.environ.get("EIDOLON", options.eidolon).split()
    limit = 240 * float(os.environ.get("EIDOLON_TIME_SCALE", "1"))
    packages = sorted(glob.glob(f"{options.cache}/linux-image-*-cloud-amd64_*.deb"))
    if not packages:
        sys.exit(f"no kernel package in {options.cache}: ./dev guest fetches it")
    with tempfile.TemporaryDirectory() as folder:
        before, cd = random.Random(4).randbytes(DISK), random.Random(5).randbytes(4 << 20)
        disk, disc = os.path.join(folder, "disk.img"), os.path.join(folder, "cd.iso")
        for path, data in ((disk, before), (disc, cd)):
            with open(path, "wb") as out:
                out.write(data)
        output, status = run_guest(program, options.guest, options.kind, packages[-1], disk, disc, folder, limit)
        with open(disk, "rb") as image:
            problems = check(options.kind, output, before, image.read(), cd, folder)
        if status:
            problems.append(f"exit status {status}")
    if problems:
        print("---- output ----")
        print(output[-10000:])
        for problem in problems:
            print(f"{options.kind}: {problem}")
        return 1
    print("\n".join(re.findall(r"^INTERRUPTS.*|^SIZE.*", output, re.M)))
    print(f"{options.kind}: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
