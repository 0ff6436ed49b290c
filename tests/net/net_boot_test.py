#!/usr/bin/env python3
"""Linux's own drivers on our network cards: a DHCP lease from the user network, a file over TCP from the host and one to it, a
connection from the host through hostfwd, and a packet capture of it all. Servers are the test's own, on loopback."""

import argparse
import hashlib
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

DOWN = os.urandom(3 << 20)
UP_SIZE = 2 << 20


def listen():
    server = socket.create_server(("127.0.0.1", 0))
    return server, server.getsockname()[1]


def serve_download(server):
    """HTTP, as far as wget needs it."""
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            client.recv(4096)
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DOWN) + DOWN)


class Upload(threading.Thread):
    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.size, self.digest = server, 0, hashlib.md5()

    def run(self):
        client, _ = self.server.accept()
        with client:
            while chunk := client.recv(1 << 16):
                self.size += len(chunk)
                self.digest.update(chunk)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def check_capture(path, problems):
    """Every record must be whole, in order of time, and the DHCP discover and some full-size TCP must be in it."""
    with open(path, "rb") as file:
        data = file.read()
    magic, major, minor, _, _, limit, link = struct.unpack_from("<IHHiIII", data)
    if (magic, major, minor, link) != (0xA1B2C3D4, 2, 4, 1):
        problems.append("capture: not a pcap header")
    at, last, dhcp, full = 24, 0, False, False
    while at < len(data):
        seconds, micro, captured, length = struct.unpack_from("<IIII", data, at)
        frame = data[at + 16 : at + 16 + captured]
        if len(frame) != captured or captured > limit or captured > length or seconds * 10**6 + micro < last:
            problems.append(f"capture: bad record at {at}")
            return
        last = seconds * 10**6 + micro
        dhcp |= frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:38] == b"\0\x44\0\x43"
        full |= frame[12:14] == b"\x08\x00" and frame[23] == 6 and length >= 1514
        at += 16 + captured
    if abs(last / 10**6 - time.time()) > 600:
        problems.append("capture: times are not of now")
    if not dhcp or not full:
        problems.append(f"capture: DHCP seen: {dhcp}, full TCP segments seen: {full}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--eidolon", default="build/eidolon")
    parser.add_argument("--guest", default="build/guest")
    parser.add_argument("card", choices=["virtio-net-pci", "e1000e", "nic"])
    options = parser.parse_args()
    generic = options.card == "e1000e"
    kernel = os.path.join(options.guest, "vmlinuz-generic" if generic else "vmlinuz")
    initrd = os.path.join(options.guest, "initrd-net-generic.img" if generic else "initrd-net.img")
    for path in (kernel, initrd):
        if not os.path.exists(path):
            sys.exit(f"{path} is missing: guest/build-net.sh makes it")

    down, down_port = listen()
    up_server, up_port = listen()
    threading.Thread(target=serve_download, args=(down,), daemon=True).start()
    upload = Upload(up_server)
    upload.start()
    forward = free_port()
    commands = "; ".join([
        ". /net/up",
        f"wget -q -O /tmp/down http://10.0.2.2:{down_port}/",
        "echo down: $(md5sum </tmp/down)",
        f"dd if=/dev/urandom of=/tmp/up bs=64k count={UP_SIZE >> 16} 2>/dev/null",
        "echo up: $(md5sum </tmp/up)",
        f"nc 10.0.2.2 {up_port} </tmp/up",
        "echo errors: $(cat /sys/class/net/eth0/statistics/rx_errors /sys/class/net/eth0/statistics/tx_errors)",
        "echo ready; nc -l -p 7 -e cat",
    ])
    with tempfile.TemporaryDirectory() as folder:
        capture = os.path.join(folder, "net.pcap")
        command = options.eidolon.split() + [
            "-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512M", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
            "-append", f'console=ttyS0 quiet eidolon.run="{commands}"',
        ]
        user = f"user,id=n0,hostfwd=tcp:127.0.0.1:{forward}-:7"
        if options.card == "nic":
            command += ["-nic", f"{user},model=virtio,mac=52:54:00:aa:bb:cc", "-netdump", capture]
        else:
            command += ["-netdev", user, "-device", f"{options.card},netdev=n0",
                        "-object", f"filter-dump,id=f0,netdev=n0,file={capture},maxlen=96"]
        print(" ".join(command), flush=True)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, problems, talked = b"", [], None
        end = time.monotonic() + 120 * float(os.environ.get("EIDOLON_TIME_SCALE", "1"))
        while time.monotonic() < end:
            if not select.select([process.stdout], [], [], 1)[0]:
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            output += chunk
            if talked is None and b"ready" in output:
                time.sleep(0.5)
                try:
                    with socket.create_connection(("127.0.0.1", forward), 10) as client:
                        client.settimeout(10)
                        client.sendall(b"through the wall")
                        talked = client.recv(100)
                except OSError as error:
                    talked = str(error).encode()
        else:
            problems.append("not finished in time")
            process.kill()
        status = process.wait()
        text = output.decode("utf-8", "replace").replace("\r", "")
        upload.join(5)
        expect = [
            "lease: 10.0.2.15 router 10.0.2.2 dns 10.0.2.3",
            f"down: {hashlib.md5(DOWN).hexdigest()}",
            f"up: {upload.digest.hexdigest()}",
            "errors: 0 0",
        ]
        problems += [f"not found: {line}" for line in expect if line not in text]
        if upload.size != UP_SIZE:
            problems.append(f"the host got {upload.size} bytes")
        if talked != b"through the wall":
            problems.append(f"through hostfwd: {talked}")
        if status:
            problems.append(f"exit status {status}")
        check_capture(capture, problems)
    if problems:
        print(text[-8000:])
        print("\n".join(f"{options.card}: {problem}" for problem in problems))
        return 1
    print(f"{options.card}: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
