#!/usr/bin/env python3
"""Real Linux on the other side: the drivers of virtio-serial and 9p, loaded from the kernel's package as ./dev has fetched it.

    linux_test.py serial     ports named as virtme-ng names them: input to its end, output, a console on a socket
    linux_test.py mux        one terminal for ttyS0 and hvc0; the escape key switches
    linux_test.py 9p         a tree is copied in and out (needs a kernel with 9p: not the cloud kernel; skipped without)
"""

import argparse
import filecmp
import glob
import io
import os
import select
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

VIRTIO = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_console"]
P9 = ["netfs", "fscache", "9pnet", "9pnet_virtio", "9p"]
SKIPPED = 77

parser = argparse.ArgumentParser()
parser.add_argument("--eidolon", default="build/eidolon")
parser.add_argument("--guest", default="build/guest")
parser.add_argument("--cache", default="build/cache")
parser.add_argument("what", choices=["serial", "mux", "9p"])
options = parser.parse_args()
program = os.environ.get("EIDOLON", options.eidolon).split()
work = tempfile.TemporaryDirectory(prefix="eidolon-linux-")
scale = float(os.environ.get("EIDOLON_TIME_SCALE", "1"))


def fail(text, output=b""):
    print(output.decode("utf-8", "replace")[-3000:])
    sys.exit(f"FAILED: {text}")


def newc(name, data, mode):
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def prepare(names, cloud):
    """(kernel, initrd) with these modules in /modules; None: there is no such package."""
    packages = sorted(p for p in glob.glob(f"{options.cache}/linux-image-[0-9]*_amd64.deb") if ("-cloud-" in p) == cloud)
    if not packages:
        return None
    wanted = {f"{name}.ko": name for name in names}
    with open(f"{options.guest}/initrd.img", "rb") as file:
        initrd = file.read()
    kernel = f"{options.guest}/vmlinuz" if cloud else f"{work.name}/vmlinuz"
    archive = newc("modules", b"", 0o40755)
    found = set()
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", packages[-1]], stdout=subprocess.PIPE, check=True).stdout
    for member in tarfile.open(fileobj=io.BytesIO(tar)):
        base = os.path.basename(member.name)
        if base in wanted:
            archive += newc(f"modules/{base}", tar_read(tar, member), 0o100644)
            found.add(base)
        elif not cloud and base.startswith("vmlinuz-"):
            with open(kernel, "wb") as file:
                file.write(tar_read(tar, member))
    if found != set(wanted):
        return None
    path = f"{work.name}/initrd"
    with open(path, "wb") as file:
        file.write(initrd + archive + newc("TRAILER!!!", b"", 0))
    return kernel, path


def tar_read(tar, member):
    return tar[member.offset_data:member.offset_data + member.size]


def command(image, modules, script, arguments):
    load = " ".join(modules)
    run = f"for m in {load}; do insmod /modules/$m.ko; done; {script}"
    return [*program, "-nodefaults", "-display", "none", "-m", "512M", "-no-reboot", "-kernel", image[0], "-initrd", image[1],
            "-append", f'console=ttyS0 quiet eidolon.run="{run}"', *arguments]


def test_serial():
    image = prepare(VIRTIO, True)
    if not image:
        fail(f"no kernel package in {options.cache}: ./dev guest fetches it")
    data = os.urandom(300000)
    with open(f"{work.name}/in", "wb") as file:
        file.write(data)
    out = os.open(f"{work.name}/out", os.O_CREAT | os.O_RDWR)
    script = ("cd /sys/class/virtio-ports; for p in *; do n=$(cat $p/name 2>/dev/null); eval port_$(echo $n | tr . _)=/dev/$p; done; "
              "cat $port_virtme_stdin > $port_virtme_stdout; echo ready > /dev/hvc0; read x < /dev/hvc0; echo got-$x > /dev/hvc0; sleep 1")
    arguments = ["-serial", "stdio", "-chardev", f"file,id=stdin,path=/dev/null,input-path={work.name}/in",
                 "-chardev", f"file,id=stdout,path=/proc/self/fd/{out}",
                 "-chardev", f"socket,id=console,path={work.name}/sock,server=on,wait=off",
                 "-device", "virtio-serial-pci", "-device", "virtserialport,name=virtme.stdin,chardev=stdin",
                 "-device", "virtio-serial-pci", "-device", "virtserialport,name=virtme.stdout,chardev=stdout",
                 "-device", "virtconsole,chardev=console"]
    process = subprocess.Popen(command(image, VIRTIO, script, arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, pass_fds=[out])
    peer = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + 60 * scale
    while time.monotonic() < end:
        try:
            peer.connect(f"{work.name}/sock")
            break
        except OSError:
            time.sleep(0.05)
    text, answered = b"", False
    while time.monotonic() < end and b"got-typed" not in text:
        if select.select([peer], [], [], 0.5)[0]:
            part = peer.recv(4096)
            if not part:
                break
            text += part
        if b"ready" in text and not answered:
            time.sleep(0.5)
            peer.sendall(b"typed\n")
            answered = True
    if b"got-typed" not in text:
        process.kill()
        fail(f"console: {text}", process.communicate()[0])
    output = process.communicate(timeout=60 * scale)[0]
    if process.returncode:
        fail(f"exit status {process.returncode}", output)
    with open(f"{work.name}/out", "rb") as file:
        if file.read() != data:
            fail("the bytes that went through two ports are not the same", output)


def test_mux():
    image = prepare(VIRTIO, True)
    if not image:
        fail(f"no kernel package in {options.cache}: ./dev guest fetches it")
    script = ("sleep 1; (read a < /dev/hvc0; echo hvc-$a > /dev/hvc0) & (read b < /dev/ttyS0; echo tty-$b > /dev/ttyS0) & "
              "echo set-up > /dev/ttyS0; wait; sleep 100")
    arguments = ["-echr", "0x14", "-chardev", "stdio,id=console,signal=off,mux=on", "-serial", "chardev:console",
                 "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=console", "-parallel", "none"]
    process = subprocess.Popen(command(image, VIRTIO, script, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    output = b""

    def wait_for(text):
        nonlocal output
        end = time.monotonic() + 60 * scale
        while text not in output:
            if not select.select([process.stdout], [], [], max(end - time.monotonic(), 0))[0]:
                process.kill()
                fail(f"not seen: {text}", output)
            part = os.read(process.stdout.fileno(), 4096)
            if not part:
                fail(f"ended before {text}", output)
            output += part

    def type_keys(keys):
        process.stdin.write(keys)
        process.stdin.flush()

    wait_for(b"set-up")
    time.sleep(0.5)
    type_keys(b"first\n")  # the console came last: it has the keys
    wait_for(b"hvc-first")
    type_keys(b"\x14csecond\n")
    wait_for(b"tty-second")
    type_keys(b"\x14x")
    if process.wait(20 * scale):
        fail(f"exit status {process.returncode}", output)


def test_9p():
    image = prepare(VIRTIO + P9, False)
    if not image:
        print(f"skipped: no package linux-image-*-amd64 with 9p in {options.cache}")
        sys.exit(SKIPPED)
    share = f"{work.name}/share"
    os.makedirs(f"{share}/tree/empty")
    for index in range(100):
        os.makedirs(f"{share}/tree/{index % 7}/deep", exist_ok=True)
        with open(f"{share}/tree/{index % 7}/deep/{index}", "wb") as file:
            file.write(os.urandom(index * 1000))
    os.symlink("../../../etc/passwd", f"{share}/tree/link")
    script = ("mkdir /mnt; mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 share /mnt && cp -a /mnt/tree /tmp/tree && "
              "cp -a /tmp/tree /mnt/copy && mkdir /mnt/x && mv /mnt/x /mnt/y && rmdir /mnt/y && umount /mnt && echo all-good")
    arguments = ["-serial", "stdio", "-virtfs", f"local,path={share},mount_tag=share,security_model=none,multidevs=remap"]
    done = subprocess.run(command(image, VIRTIO + P9, script, arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120 * scale, check=False)
    if done.returncode or b"all-good" not in done.stdout:
        fail(f"exit status {done.returncode}", done.stdout)
    compare(filecmp.dircmp(f"{share}/tree", f"{share}/copy"))
    if os.readlink(f"{share}/copy/link") != "../../../etc/passwd":
        fail("the symbolic link has changed")


def compare(folders):
    if folders.left_only or folders.right_only or folders.funny_files:
        fail(f"different: {folders.left} {folders.left_only} {folders.right_only} {folders.funny_files}")
    for name in folders.common_files:
        if not filecmp.cmp(f"{folders.left}/{name}", f"{folders.right}/{name}", shallow=False):
            fail(f"different: {name}")
    for part in folders.subdirs.values():
        compare(part)


{"serial": test_serial, "mux": test_mux, "9p": test_9p}[options.what]()
print("passed")
