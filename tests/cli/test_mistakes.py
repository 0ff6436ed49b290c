#!/usr/bin/env python3
"""Bad input: each gives exactly one line on stderr that names the option, the value and the reason, and exit status 1."""

import os
import re
import tempfile

import cli

tests = cli.Tests()
folder = tempfile.TemporaryDirectory()


def file(name, data):
    path = os.path.join(folder.name, name)
    with open(path, "wb") as out:
        out.write(data)
    return path


with open(tests.kernel, "rb") as kernel_file:
    kernel = kernel_file.read()
with open(tests.multiboot, "rb") as multiboot_file:
    multiboot = multiboot_file.read()
k = ["-kernel", tests.multiboot]
linux = ["-kernel", tests.kernel]
text = file("text", b"this is not a kernel\n" * 500)
empty = file("empty", b"")
with open(f"{tests.guest}/initrd.img", "rb") as initrd_file:
    initrd = initrd_file.read()

# arguments, what the line must contain (regular expressions)
CASES = [
    (["-kernel", "/dev/null"], ["-kernel /dev/null"]),
    (["-kernel", "/nonexistent"], ["-kernel /nonexistent", "No such file"]),
    (["-kernel", "/"], ["-kernel /"]),
    (["-kernel", text], ["-kernel " + text]),
    (["-kernel", empty], ["-kernel " + empty]),
    (["-kernel", file("cut1", kernel[:600])], ["-kernel .*cut1"]),
    (["-kernel", file("cut2", kernel[:100000])], ["-kernel .*cut2"]),
    (["-kernel", file("cut3", kernel[: len(kernel) * 2 // 3])], ["-kernel .*cut3"]),
    (["-kernel", file("cut4", multiboot[:60])], ["-kernel .*cut4"]),
    (["-kernel", file("cut5", multiboot[: len(multiboot) // 2])], ["-kernel .*cut5"]),
    (["-kernel", "/dev/zero"], ["-kernel /dev/zero"]),
    ([*linux, "-initrd", "/nonexistent"], ["-initrd /nonexistent", "No such file"]),
    ([*linux, "-initrd", "/"], ["-initrd /"]),
    ([*linux, "-initrd", empty], ["-initrd .*empty"]),
    ([*linux, "-initrd", file("cut6", initrd[: len(initrd) // 2])], ["-initrd .*cut6"]),
    ([*linux, "-m", "8M"], ["-m|memory"]),
    ([*linux, "-m", "64M", "-initrd", f"{tests.guest}/initrd-programs.img"], ["-m|memory"]),
    (["-initrd", text], ["-initrd", "-kernel"]),
    (["-append", "x"], ["-append", "-kernel"]),
    ([*k, "-m", ""], ["-m: the argument is empty"]),
    ([*k, "-cpu", ""], ["-cpu: the argument is empty"]),
    ([*k, "-cpu", "max,phys-bits=32", "-m", "8G"], ["-m: .*32 physical address bits"]),
    (["-kernel", "/dev/urandom"], ["-kernel /dev/urandom: it is a device"]),
    ([*k, "-d", "warp_asm"], ["-d warp_asm", "unknown log category"]),
    ([*k, "-m", "0"], ["-m 0", "memory"]),
    ([*k, "-m", "1x"], ["-m 1x"]),
    ([*k, "-m", "-5"], ["-m -5"]),
    ([*k, "-m", "100T"], ["-m 100T", "memory"]),
    ([*k, "-m", "99999999999999999999"], ["-m 9999", "too large"]),
    ([*k, "-m", "64M,colour=red"], ["-m", "colour"]),
    ([*k, "-m"], ["-m", "argument"]),
    ([*k, "-name", "web,colour=red"], ["-name web,colour=red: unknown property 'colour'"]),
    ([*k, "-smp", "2"], ["-smp 2", "CPU"]),
    ([*k, "-smp", "0"], ["-smp 0"]),
    ([*k, "-smp", "many"], ["-smp many", "number"]),
    ([*k, "-smp", "1,sockets=2"], ["-smp 1,sockets=2"]),
    ([*k, "-smp", "cpus=1,x=2"], ["-smp", "'x'"]),
    ([*k, "-cpu", "i486sx"], ["-cpu i486sx"]),
    ([*k, "-cpu", "max,+nosuch"], ["-cpu max,\\+nosuch", "nosuch"]),
    ([*k, "-cpu", "max,-nosuch"], ["-cpu max,-nosuch", "nosuch"]),
    ([*k, "-machine", "q36"], ["-machine q36", "q35"]),
    ([*k, "-machine", "microvm"], ["-machine microvm", "q35"]),
    ([*k, "-boot", "order=cz"], ["-boot order=cz", "'z'"]),
    ([*k, "-boot", "order=cc"], ["-boot order=cc", "twice"]),
    ([*k, "-boot", "splash=x"], ["-boot splash=x", "display"]),
    ([*k, "-fw_cfg", "name=opt/x"], ["-fw_cfg name=opt/x", "string="]),
    ([*k, "-fw_cfg", "name=opt/x,file=/nonexistent/f"], ["-fw_cfg", "/nonexistent/f"]),
    ([*k, "-smbios", "type=17"], ["-smbios type=17", "types 0, 1 and 3"]),
    ([*k, "-smbios", "type=1,uuid=12"], ["-smbios type=1,uuid=12", "UUID"]),
    ([*k, "-uuid", "x"], ["-uuid x", "UUID"]),
    ([*k, "-M", "q35,smm=on"], ["-M q35,smm=on", "smm"]),
    ([*k, "-machine", "q35,colour=red"], ["-machine", "colour"]),
    ([*k, "-machine", "hpet=perhaps"], ["-machine", "perhaps"]),
    ([*k, "-accel", "warp"], ["-accel warp", "help"]),
    ([*k, "-accel", "kvm"], ["-accel kvm", "not available"]),
    ([*k, "-accel", "kvm", "-accel", "hvf"], ["-accel kvm", "not available"]),
    ([*k, "-machine", "accel=kvm:xen"], ["-accel kvm", "not available"]),
    ([*k, "-accel", "interp,speed=9"], ["-accel interp", "speed"]),
    ([*k, "-device", "flux-capacitor"], ["-device flux-capacitor"]),
    ([*k, "-device", "isa-debug-exit,colour=red"], ["-device isa-debug-exit", "colour"]),
    ([*k, "-device", "isa-debug-exit,iobase=x"], ["-device isa-debug-exit", "iobase", "'x'"]),
    ([*k, "-device", "isa-debug-exit,iobase=0x10000"], ["-device isa-debug-exit", "iobase"]),
    ([*k, "-device", "isa-debug-exit,iosize=3"], ["-device isa-debug-exit", "iosize"]),
    ([*k, "-device", "flux,help"], ["-device flux"]),
    ([*k, "-global", "nonsense"], ["-global nonsense"]),
    ([*k, "-serial", "telepathy"], ["-serial telepathy"]),
    ([*k, "-serial", "file:/nonexistent/x"], ["-serial file:/nonexistent/x", "No such file"]),
    ([*k, "-serial", "stdio", "-serial", "stdio"], ["-serial stdio", "terminal"]),
    ([*k, *["-serial", "null"] * 5], ["-serial", "4"]),
    ([*k, "-debugcon", "telepathy"], ["-debugcon telepathy"]),
    ([*k, "-parallel", "stdio"], ["-parallel stdio"]),
    ([*k, "-monitor", "stdio"], ["-monitor stdio"]),
    ([*k, "-display", "gtk"], ["-display gtk"]),
    ([*k, "-vga", "std"], ["-vga std"]),
    ([*k, "-net", "usr"], ["-net usr", "did you mean 'user'"]),
    ([*k, "-nic", "user,model=e1000f"], ["-nic user,model=e1000f", "did you mean 'e1000e'"]),
    ([*k, "-netdev", "user"], ["-netdev user", "id= is missing"]),
    ([*k, "-device", "e1000e,netdev=n"], ["netdev=n", "no such back end"]),
    ([*k, "-netdev", "user,id=n,smb=/tmp"], ["smb="]),
    ([*k, "-object", "filter-dump,id=f,netdev=n,file=/tmp/x"], ["no such back end"]),
    ([*k, "-rtc", "base=yesterday"], ["-rtc base=yesterday"]),
    ([*k, "-rtc", "base=1012-01-02"], ["-rtc base=1012-01-02", "1970 to 2199"]),
    ([*k, "-rtc", "clock=vm"], ["-rtc clock=vm"]),
    ([*k, "-d", "guest_error"], ["-d guest_error", "guest_errors"]),
    ([*k, "-d", "int", "-D", "/nonexistent/log"], ["-D", "/nonexistent/log", "No such file"]),
    (["-bios", "/nonexistent/bios.bin"], ["-bios /nonexistent/bios.bin"]),
    (["-bios", "nosuch.bin"], ["-bios nosuch.bin", "no such file"]),
    ([*k, "-bios", "bios-256k.bin"], ["-kernel", "bzImage"]),
    (["-kernal", "x"], ["-kernal", "-kernel"]),
    (["--nographics"], ["--nographics", "-nographic"]),
    ([*k, "-drive", "file=x"], ["-drive file=x: x: No such file"]),
    (["-"], ["unknown option"]),
    (["--"], ["unknown option"]),
    ([*k, "disk.img"], ["disk.img: No such file"]),
    ([*k, "-hda", "/nonexistent"], ["-hda /nonexistent: No such file"]),
    ([*k, "-cdrom", "/"], ["-cdrom /: is a directory"]),
    ([*k, "-hda", "/dev/zero"], ["-hda /dev/zero: neither a regular file nor a block device"]),
    ([*k, "-drive", f"file={text},format=vmdk"], ["-drive file=.*text,format=vmdk: ", "qemu-nbd"]),
    ([*k, "-drive", f"file={text},format=raw,colour=red"], ["-drive", "unknown property 'colour'"]),
    ([*k, "-drive", f"file={text},format=raw,cache=lots"], ["-drive", "cache=lots: one of writeback, none"]),
    ([*k, "-drive", "file=http://host/disk"], ["-drive", "unknown protocol 'http'"]),
    ([*k, "-drive", f"file={text},index=3,format=raw", "-hdd", "/x"], ["-hdd /x: there is a drive at .*bus=3"]),
    ([*k, "-drive", f"file={text},if=none,format=raw", "-hda", text], ["-hda .*text: another virtual machine"]),
    ([*k, "-blockdev", f"driver=file,filename={text}"], ["-blockdev", "node-name is missing"]),
    ([*k, "-blockdev", "{"], ["-blockdev {: JSON"]),
    ([""], ["not an option"]),
]

for arguments, patterns in CASES:
    name = " ".join(arguments)
    try:
        # What is accepted by mistake would run: end it at once.
        result = tests.run([*arguments, "-display", "none"] if arguments[-1] != "-m" else arguments, timeout=20)
    except Exception as problem:  # pylint: disable=broad-except
        tests.check(name, False, repr(problem))
        continue
    lines = result.stderr.decode("utf-8", "replace").splitlines()
    if not tests.check(name, result.returncode == 1, f"exit status {result.returncode}, stderr {lines}"):
        continue
    if not tests.check(name, len(lines) == 1 and lines[0].startswith("eidolon: ") and len(lines[0]) < 400, lines):
        continue
    tests.check(name, result.stdout == b"", result.stdout)
    for pattern in patterns:
        tests.check(name, re.search(pattern, lines[0]), f"{pattern!r} not in {lines[0]!r}")
tests.finish()
