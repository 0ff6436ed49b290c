#!/usr/bin/env python3
"""Starts real firmware from the reset vector: SeaBIOS, whose debug messages are compared with those that it prints on QEMU
(or with the list below where there is no QEMU), and OVMF, up to its shell.

firmware_test.py --eidolon PROGRAM CASE; CASE list prints the names. Status 77: the firmware is not installed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

SEABIOS = "/usr/share/seabios/bios-256k.bin"
OVMF = "/usr/share/ovmf/OVMF.fd"
OVMF_CODE, OVMF_VARS = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
SCALE = float(os.environ.get("EIDOLON_TIME_SCALE", "1"))

# What must be the same on any emulator: what the board is, where things are, how it ends. Devices that come and go with
# options, addresses that depend on the size of tables, and what the CPU model says are left out.
IMPORTANT = [
    r"SeaBIOS \(version", r"No Xen", r"Running on QEMU", r"Found QEMU fw_cfg", r"QEMU fw_cfg DMA", r"qemu/e820", r"Relocating init",
    r"Moving pm_base", r"=== PCI", r"PCI: pci_bios_init_bus_rec", r"PCIe: using", r"PCI: 32: ",
    r"PCI: init bdf=\S+ id=8086:(29c0|2918|1237|7000|7113)", r"(Q35 LPC|PIIX3/PIIX4) init", r"PCI: No VGA", r"Found \d+ cpu",
    r"Copying PIR", r"Turning on vga", r"PS2 keyboard initialized", r"Found \d+ (lpt|serial)", r"All threads complete",
    r"Scan for option roms", r"enter handle_1", r"Boot failed", r"No bootable device", r"parse error", r"WARNING", r"ERROR|[Ff]ault",
    r"000000000009fc00", r"000000000000f0000 -", r"00000000000f0000 -", r"00000000fffc0000", r"00000000b0000000", r"00000000fed1c000",
]
EXPECTED = {
    "q35": ["Running on QEMU (q35)", "Moving pm_base to 0x600", "PCIe: using q35 mmconfig at 0xb0000000", "Q35 LPC init: elcr=00 0c",
            "PCI: 32: 00000000c0000000 - 00000000fec00000", "No bootable device."],
    "pc": ["Running on QEMU (i440fx)", "Moving pm_base to 0x600", "PIIX3/PIIX4 init: elcr=00 0c",
           "PCI: 32: 0000000080000000 - 00000000fec00000", "No bootable device."],
}


def fail(message, *details):
    print(f"FAILED: {message}")
    for detail in details:
        print(detail)
    sys.exit(1)


def run_until(command, path, pattern, limit):
    """Runs until `pattern` is in the file (or in the output, if that is None); the text and the seconds it took."""
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        read_end, write_end = os.pipe()
        process = subprocess.Popen(command, stdin=read_end, stdout=output, stderr=subprocess.STDOUT)
        os.close(read_end)
        text = ""
        while time.monotonic() - start < limit * SCALE:
            time.sleep(0.05)
            if path:
                text = open(path, errors="replace").read() if os.path.exists(path) else ""
            else:
                text = os.pread(output.fileno(), 1 << 24, 0).decode(errors="replace")
            if re.search(pattern, text) or process.poll() is not None:
                break
        elapsed = time.monotonic() - start
        process.terminate()
        process.wait()
        os.close(write_end)
        if not re.search(pattern, text):
            fail(f"no '{pattern}' after {elapsed:.1f} s", text[-3000:],
                 os.pread(output.fileno(), 1 << 20, 0).decode(errors="replace")[-2000:])
        return text, elapsed


def seabios_log(command, folder, machine):
    path = os.path.join(folder, "log")
    if os.path.exists(path):
        os.unlink(path)
    return run_until(command + ["-nodefaults", "-display", "none", "-m", "512M", "-machine", machine, "-serial", "null",
                                "-debugcon", f"file:{path}", "-global", "isa-debugcon.iobase=0x402"],
                     path, r"No bootable device", 30)


def important(text):
    lines = [line.strip() for line in text.splitlines() if any(re.search(p, line) for p in IMPORTANT)]
    # Numbers of list entries; threads and boot attempts may come in another order.
    return sorted(re.sub(r"^\d+: ", "", line) for line in lines)


def seabios(eidolon, folder, machine):
    ours, elapsed = seabios_log(eidolon, folder, machine)
    for line in EXPECTED[machine]:
        if line not in ours:
            fail(f"SeaBIOS did not print '{line}'", ours)
    if shutil.which("qemu-system-x86_64"):
        theirs, qemu_elapsed = seabios_log(["qemu-system-x86_64", "-accel", "tcg", "-vga", "none", "-bios", SEABIOS], folder,
                                           f"{machine},smm=off")
        mine, other = important(ours), important(theirs)
        if mine != other:
            fail("SeaBIOS's messages differ from those on QEMU", "only here:", *[f"  {line}" for line in mine if line not in other],
                 "only there:", *[f"  {line}" for line in other if line not in mine])
        print(f"{len(mine)} lines as on QEMU; {elapsed:.2f} s, QEMU {qemu_elapsed:.2f} s")


def seabios_serial(eidolon, folder, machine):
    """The same messages on the serial port, for people."""
    text, _ = run_until(eidolon + ["-nodefaults", "-display", "none", "-machine", machine, "-serial", "stdio", "-bios", SEABIOS], None,
                        r"No bootable device", 30)
    if "SeaBIOS (version" not in text:
        fail("no banner on the serial port", text)


def reboot(eidolon, folder, machine):
    """A boot that fails is tried again after reboot-timeout: a reset through the firmware, several times."""
    path = os.path.join(folder, "log")
    run_until(eidolon + ["-nodefaults", "-display", "none", "-machine", machine, "-serial", "null", "-boot", "reboot-timeout=100",
                         "-debugcon", f"file:{path}", "-global", "isa-debugcon.iobase=0x402"],
              path, r"(?s)(No bootable device.*){4}", 40)


def ovmf(eidolon, folder, machine):
    _, elapsed = run_until(eidolon + ["-nodefaults", "-display", "none", "-machine", machine, "-serial", "stdio", "-m", "512M",
                                      "-bios", OVMF], None, r"UEFI Interactive Shell", 120)
    print(f"OVMF's shell after {elapsed:.2f} s")


def ovmf_flash(eidolon, folder, machine):
    """Two flash drives: the variables that the first run makes are there in the second."""
    variables = os.path.join(folder, "vars.fd")
    shutil.copy(OVMF_VARS, variables)
    os.chmod(variables, 0o600)
    command = eidolon + ["-nodefaults", "-display", "none", "-machine", machine, "-serial", "stdio", "-m", "512M",
                         "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}",
                         "-drive", f"if=pflash,format=raw,unit=1,file={variables}"]
    run_until(command, None, r"UEFI Interactive Shell", 120)
    first = open(variables, "rb").read()
    if "Boot0000".encode("utf-16-le") not in first:
        fail("no boot variable in the flash file")
    run_until(command, None, r"UEFI Interactive Shell", 120)
    if "Boot0000".encode("utf-16-le") not in open(variables, "rb").read():
        fail("the second run lost the variables")


CASES = {
    "seabios_q35": (seabios, "q35", [SEABIOS]),
    "seabios_pc": (seabios, "pc", [SEABIOS]),
    "seabios_serial": (seabios_serial, "q35", [SEABIOS]),
    "seabios_reboot": (reboot, "q35", [SEABIOS]),
    "ovmf_q35": (ovmf, "q35", [OVMF]),
    "ovmf_pc": (ovmf, "pc", [OVMF]),
    "ovmf_flash": (ovmf_flash, "q35", [OVMF_CODE, OVMF_VARS]),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--eidolon", default=os.environ.get("EIDOLON", "build/eidolon"))
    parser.add_argument("case")
    arguments = parser.parse_args()
    if arguments.case == "list":
        print("\n".join(CASES))
        return
    function, machine, files = CASES[arguments.case]
    missing = [path for path in files if not os.path.exists(path)]
    if missing:
        print(f"not installed: {' '.join(missing)}")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        function(arguments.eidolon.split(), folder, machine)


main()
