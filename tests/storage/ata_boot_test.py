#!/usr/bin/env python3
"""Debian's kernels with their own drivers (ahci, ata_piix) use a disk and a CD-ROM: they read what the host has put there, write
what the host then finds, make a file system live through it, mount the CD, and find everything again after a reset.

usage: ata_boot_test.py [--eidolon PROGRAM] [--guest FOLDER] ahci|piix"""

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile

import iso_image

DISK_SIZE = 48 << 20
FILES_SIZE = 40 << 20  # another one, so that the guest can tell them: ports are probed in any order
COMPLAINTS = [r"Kernel panic", r"\bOops:", r"I/O error", r"failed command", r"exception Emask", r"soft lockup", r"EXT4-fs error", r"hard resetting"]

# The second time round, after the reset, the guest finds the mark on the disk and ends.
GUEST = """exec 2>&1
set -e
sh /storage/load
n=0; until [ -e /dev/sdb ] && [ -e /dev/sr0 ] || [ $n = 20 ]; do sleep 0.5; n=$((n+1)); done
mkdir -p /disk /cd
a=/dev/sda b=/dev/sdb
if [ $(cat /sys/block/sda/size) = 81920 ]; then a=/dev/sdb b=/dev/sda; fi
if [ "$(dd if=$a bs=512 skip=90000 count=1 2>/dev/null | head -c 4)" = done ]; then echo second boot; mount -o ro $b /disk; md5sum </disk/three; poweroff -f; fi
echo first read $(dd if=$a bs=1M count=16 iflag=direct 2>/dev/null | md5sum)
for i in 0 1 2 3; do dd if=$a bs=64k skip=$((i*32)) count=32 iflag=direct of=/tmp/part$i 2>/dev/null & done; wait
echo parallel read $(cat /tmp/part0 /tmp/part1 /tmp/part2 /tmp/part3 | md5sum)
dd if=$a of=$a bs=4k count=512 seek=6000 oflag=direct 2>/dev/null
mount $b /disk
for f in one two three; do dd if=/dev/urandom of=/disk/$f bs=64k count=64 2>/dev/null & done; wait
rm /disk/one; sync
echo file $(md5sum </disk/three)
umount /disk
mount -t iso9660 -o ro /dev/sr0 /cd
ls -l /cd
echo cd $(md5sum </cd/data.bin)
cat /cd/hello.txt
umount /cd
printf done | dd of=$a bs=512 seek=90000 conv=sync 2>/dev/null
sync
reboot -f
"""


def guest_initrd(folder, guest, modules):
    """initrd.img, the modules, and the commands, one after the other."""
    script = GUEST.encode()
    header = ["070701"] + [f"{value:08x}" for value in (1, 0o100755, 0, 0, 1, 0, len(script), 0, 0, 0, 0, 10, 0)]
    archive = "".join(header).encode() + b"commands\0\0"
    archive = archive.ljust((len(archive) + 3) // 4 * 4, b"\0") + script
    archive = archive.ljust((len(archive) + 3) // 4 * 4, b"\0")
    trailer = ["070701"] + [f"{value:08x}" for value in (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0)]
    archive += "".join(trailer).encode() + b"TRAILER!!!\0\0\0\0"
    path = f"{folder}/initrd"
    with open(path, "wb") as out:
        for part in (f"{guest}/initrd.img", f"{guest}/{modules}"):
            with open(part, "rb") as file:
                out.write(file.read())
        out.write(archive.ljust((len(archive) + 511) // 512 * 512, b"\0"))
    return path


def make_images(folder):
    generator = random.Random(4)
    disk, files, cd = f"{folder}/disk", f"{folder}/files", f"{folder}/cd"
    data = generator.randbytes(16 << 20)
    with open(disk, "wb") as file:
        file.write(data)
        file.truncate(DISK_SIZE)
    with open(files, "wb") as file:
        file.truncate(FILES_SIZE)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", files], check=True)
    blob = generator.randbytes(3000001)
    with open(cd, "wb") as file:
        file.write(iso_image.make({"DATA.BIN": blob, "HELLO.TXT": b"hello from the CD\n"}))
    return disk, files, cd, data, blob


def check(output, status, disk, files, data, blob):
    def md5(text):
        return hashlib.md5(text).hexdigest()

    problems = []
    expected = [f"first read {md5(data)}", f"parallel read {md5(data[: 8 << 20])}", f"cd {md5(blob)}", "hello from the CD", "second boot"]
    problems += [f"not found: {text}" for text in expected if text not in output]
    problems += [f"must not appear: {pattern}" for pattern in COMPLAINTS if re.search(pattern, output)]
    match = re.search(r"^file ([0-9a-f]{32})", output, re.M)
    if not match or output.count(match.group(1)) < 2:
        problems.append("the file is not the same after the reset")
    if status != 0:
        problems.append(f"exit status {status}")
    with open(disk, "rb") as file:
        after = file.read()
    if after[6000 * 4096 : 6000 * 4096 + (2 << 20)] != data[: 2 << 20] or after[90000 * 512 :][:4] != b"done":
        problems.append("what the guest wrote is not in the image")
    if after[: 16 << 20] != data:
        problems.append("what the guest did not write has changed")
    fsck = subprocess.run(["/sbin/e2fsck", "-f", "-n", files], capture_output=True, text=True, check=False)
    if fsck.returncode != 0:
        problems.append("e2fsck: " + fsck.stdout + fsck.stderr)
    return problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--eidolon", default="build/eidolon")
    parser.add_argument("--guest", default="build/guest")
    parser.add_argument("case", choices=["ahci", "piix"])
    options = parser.parse_args()
    program = os.environ.get("EIDOLON", options.eidolon).split()
    limit = 200 * float(os.environ.get("EIDOLON_TIME_SCALE", "1"))
    ahci = options.case == "ahci"
    with tempfile.TemporaryDirectory(prefix="eidolon-ata-") as folder:
        disk, files, cd, data, blob = make_images(folder)
        initrd = guest_initrd(folder, options.guest, "storage-generic.img" if ahci else "storage-cloud.img")
        command = program + ["-machine", "q35", "-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512M"]
        command += ["-kernel", f"{options.guest}/vmlinuz-generic" if ahci else f"{options.guest}/vmlinuz", "-initrd", initrd]
        command += ["-append", 'console=ttyS0 quiet eidolon.run="sh /commands"']
        for name, path, more in (("a", disk, ""), ("b", files, ""), ("c", cd, ",media=cdrom,readonly=on")):
            command += ["-drive", f"file={path},if=none,id={name},format=raw{more}"]
        if ahci:
            places = ["ide.0", "ide.1", "ide.4"]
        else:
            places = ["p.0,unit=0", "p.0,unit=1", "p.1"]
            command += ["-device", "piix3-ide,id=p"]
        for name, kind, place in zip("abc", ("ide-hd", "ide-hd", "ide-cd"), places):
            command += ["-device", f"{kind},drive={name},bus={place}"]
        print(" ".join(command), flush=True)
        try:
            result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                    timeout=limit, check=False)
            output, status = result.stdout, result.returncode
        except subprocess.TimeoutExpired as error:
            output, status = error.stdout or b"", f"none: not finished after {limit:.0f} s"
        output = output.decode("utf-8", "replace").replace("\r", "")
        problems = check(output, status, disk, files, data, blob)
    if problems:
        print("---- output ----", output[-20000:], "---- problems ----", *problems, sep="\n")
        return 1
    print(f"{options.case}: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
