"""The table of boot tests: command line, what the console must and must not show, exit status."""

import os
import re
import subprocess
from dataclasses import dataclass, field

# What an emulator is to blame for when a Linux guest prints it.
LINUX_COMPLAINTS = [
    r"BUG:", r"WARNING:", r"Oops", r"Call Trace", r"unable to handle", r"general protection fault",
    r"[Uu]nstable", r"[Uu]nknown NMI|NMI received for unknown reason", r"nobody cared", r"irq \d+: .*disabl",
    r"[Nn]o irq handler|no handler for vector|No irq handler for vector", r"stall", r"soft lockup|hung task|blocked for more than",
    r"ACPI (BIOS )?(Error|Exception|Warning)", r"ACPI: .*(failed|invalid|incorrect checksum)", r"\[Firmware (Bug|Warn)\]",
    r"APIC error", r"MP-BIOS bug", r"timer doesn't work", r"Unable to (calibrate|determine)", r"TSC calibration failed|TSC deadline.*disabl",
    r"unchecked MSR access", r"skew", r"\[Hardware Error\]", r"x86/fpu: .*(bad|mismatch|inconsisten)",
    r"spurious", r"PCI: (Fatal|MMCONFIG at .* not reserved)", r"rtc_cmos.*(error|fail)", r"RAMDISK: .*(bad|error)",
    r"Initramfs unpacking failed", r"hpet.*(fail|bad|lost)", r"clocksource: .*[Mm]arking", r"segfault|traps:",
]


@dataclass
class Case:
    name: str
    arguments: list
    expect: list = field(default_factory=list)  # regular expressions, in this order
    forbid: list = field(default_factory=list)
    status: int = 0
    limit: float = 240  # seconds
    until: tuple = None  # (regular expression, count): end the test there
    verify: object = None  # function(output) -> list of problems
    slow: bool = False


def verify_warnings(output):
    """`dmesg -r` between two marks: lines of level warning and worse must be known to be the guest's own."""
    known = [
        r"no config for cpu bugs", r"Speculative Store Bypass", r"[Ss]pectre", r"[Mm]itigation", r"L1TF|MDS|TAA|MMIO Stale|SRBDS|RETBleed|Retbleed",
        r"You have booted with nomodeset", r"Unless you actually understand what nomodeset", r"kvm-guest|kvm: ",
        r"i8042: (PNP|Warning|No controller|Can't)", r"ENERGY_PERF_BIAS", r"Running as unit", r"sched_clock: Marking",
        r"legacy ISA|ISAPNP", r"KASLR disabled", r"Kernel (command line|offset)", r"mtrr", r"nopti|page tables isolation",
        r"(Unknown|unknown) kernel command line parameters", r"init[^ ]* .*(exists|ELF interpreter)", r"acpi PNP0A08:00: fail to add MMCONFIG",
        r"acpi PNP0A0[38]:00: _OSC",
        r"PRNG|random: ", r"UNSAFE|unsafe", r"SELinux|AppArmor|LSM", r"cacheinfo: Unable to detect cache hierarchy",
    ]
    body = output.split("dmesg-begin", 1)[-1].split("dmesg-end", 1)[0]
    problems = []
    for line in body.splitlines():
        match = re.match(r"<(\d+)>", line)
        if match and int(match.group(1)) % 8 <= 4 and not any(re.search(k, line) for k in known):
            problems.append(f"kernel warning: {line}")
    return problems


def host_output(guest, script):
    """What the script prints on the host, with the very binaries that the guest runs."""
    tree = os.path.abspath(os.path.join(guest, "programs"))
    libs = f"{tree}/lib/x86_64-linux-gnu:{tree}/usr/lib/x86_64-linux-gnu"
    loader = f"{tree}/lib64/ld-linux-x86-64.so.2"
    functions = [f"busybox() {{ {tree}/bin/busybox \"$@\"; }}"]
    for name in ("cmp", "gzip"):
        functions.append(f"{name}() {{ {tree}/bin/busybox {name} \"$@\"; }}")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONHOME": f"{tree}/usr", "OPENSSL_CONF": "/dev/null", "HOME": "/tmp",
                   "OPENSSL_MODULES": f"{tree}/usr/lib/x86_64-linux-gnu/ossl-modules", "PERL5LIB": f"{tree}/usr/lib/x86_64-linux-gnu/perl-base"}
    for name, file in (("openssl", "openssl"), ("zstd", "zstd"), ("lua5.4", "lua5.4"), ("sqlite3", "sqlite3"),
                       ("perl", "perl"), ("python3", "python3.11")):
        # A function cannot have a dot in its name in every shell.
        functions.append(f"alias {name}='{loader} --library-path {libs} {tree}/usr/bin/{file}'")
    environment["XZ"] = f"{loader} --library-path {libs} {tree}/usr/bin/xz"
    text = "shopt -s expand_aliases\n" + "\n".join(functions) + "\n"
    text += f"set -- {tree}/bin/busybox\n" + open(f"{tree}/tests/{script}.sh", encoding="utf-8").read()
    result = subprocess.run(["bash", "-c", text], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            stdin=subprocess.DEVNULL, check=False)
    return result.stdout.decode("utf-8", "replace").splitlines()


def section(output, name):
    match = re.search(rf"^== begin {name}\n(.*?)^== end {name}$", output, re.M | re.S)
    return match.group(1).splitlines() if match else None


def differences(name, got, want):
    if got is None:
        return [f"{name}: no output section"]
    problems = []
    for i in range(max(len(got), len(want))):
        a = got[i] if i < len(got) else "(nothing)"
        b = want[i] if i < len(want) else "(nothing)"
        if a != b:
            problems.append(f"{name}, line {i + 1}: guest {a!r}, host {b!r}")
    return problems[:10]


def verify_scripts(guest, names):
    def verify(output):
        problems = []
        for name in names:
            problems += differences(name, section(output, name), host_output(guest, name))
        return problems

    return verify


def verify_test64(guest):
    def verify(output):
        result = subprocess.run([f"{guest}/programs/tests/test64"], stdout=subprocess.PIPE, check=False)
        return differences("test64", section(output, "test64"), result.stdout.decode().splitlines())

    return verify


def table(guest):
    kernel, initrd = f"{guest}/vmlinuz", f"{guest}/initrd.img"
    programs, multiboot = f"{guest}/initrd-programs.img", f"{guest}/multiboot.elf"
    cases = {}

    def add(case):
        cases[case.name] = case

    def linux(name, run, *, options=(), memory="256M", append="", image=initrd, kernel_options="console=ttyS0", **keywords):
        line = f'{kernel_options} {append} eidolon.run="{run}"' if run else f"{kernel_options} {append}"
        arguments = ["-machine", "q35", "-nodefaults", "-display", "none", "-serial", "stdio", "-m", memory, "-kernel", kernel,
                     "-initrd", image, "-append", line, *options]
        keywords.setdefault("forbid", LINUX_COMPLAINTS)
        if run and "expect" in keywords:
            keywords["expect"] = ["eidolon-run: begin", *keywords["expect"]]
        add(Case(name, arguments, **keywords))

    end = "eidolon-run: end 0"
    linux("normal", "uname -a; cat /proc/cpuinfo; cat /proc/interrupts; cat /sys/devices/system/clocksource/clocksource0/current_clocksource;"
          " echo dmesg-begin; dmesg -r; echo dmesg-end",
          expect=[r"^Linux eidolon 6\.", r"^processor\s+: 0", r"^flags\s+: .*\blm\b", r"^(kvm-clock|tsc)$", "dmesg-begin", "dmesg-end", end],
          verify=verify_warnings)
    linux("quiet_timekeeping", "date +%s; t=$(cut -d. -f1 /proc/uptime); sleep 3; u=$(cut -d. -f1 /proc/uptime); echo slept $((u - t))",
          append="quiet", expect=[r"^1[789]\d{8}$|^[2-9]\d{9}$", r"^slept [345]$", end])
    linux("memory_128m", "free -m", memory="128M", append="quiet", expect=[r"Mem:\s+(8|9|10|11|12)\d\b|Mem:\s+1[0-2]\d\b", end])
    linux("memory_8g", "free -m; grep -c RAM /proc/iomem; dd if=/dev/zero of=/tmp/big bs=1M count=300 2>/dev/null; ls -l /tmp/big",
          memory="8G", append="quiet", expect=[r"Mem:\s+[78]\d\d\d\b", r"314572800", end])
    linux("nokaslr", "grep -m1 ' _text$' /proc/kallsyms; echo done", append="quiet nokaslr", expect=[r"^ffffffff81000000 T _text", "done", end])
    linux("nopti", "echo done", append="quiet nopti", expect=["done", end])
    linux("pti_on", "dmesg | grep -i isolation; echo done", append="quiet pti=on", expect=["isolation: enabled", "done", end])
    linux("mitigations_off", "cat /sys/devices/system/cpu/vulnerabilities/*; echo done", append="quiet mitigations=off", expect=["done", end])
    linux("no_init", None, append="rdinit=/nonexistent panic=-1", options=["-no-reboot"], expect=["Kernel panic - not syncing"], forbid=[])
    linux("reboot", "reboot -f", append="quiet", expect=[r"eidolon-run: begin"], until=("eidolon-run: begin", 2))
    linux("reboot_no_reboot", "reboot -f", append="quiet", options=["-no-reboot"], forbid=LINUX_COMPLAINTS + [r"eidolon-run: begin(.|\n)*eidolon-run: begin"],
          expect=[])
    for letter, method in (("k", "keyboard"), ("t", "triple"), ("p", "pci")):
        linux(f"reboot_{method}", "reboot -f", append=f"quiet reboot={letter}", options=["-no-reboot"], expect=[])
    linux("shell_utilities", "find /sys | wc -l; ls -R /proc/1 | wc -l; seq 1 2000 | sha256sum; seq 1 500 | awk '{s+=$1*$1} END {print s}';"
          " for i in 1 2 3 4 5 6 7 8 9 10; do echo $i | grep -q $i || echo bad; done; seq 5 | sort -r | tr '\\n' ' '",
          append="quiet", expect=["e20dcf5c|[0-9a-f]{64}", r"^41791750$", "5 4 3 2 1", end])
    linux("programs_32bit", "/tests/test32", memory="384M", append="quiet", image=programs, expect=["test32: ok", end])
    linux("program_64bit", "echo == begin test64; /tests/test64; echo == end test64", memory="384M", append="quiet", image=programs,
          expect=["test64: end", end], forbid=[f for f in LINUX_COMPLAINTS if "segfault" not in f], verify=verify_test64(guest))
    # Beside equal output: a line that shows that the script did its work, on both sides.
    scripts = {"openssl": "Verified OK", "compress": "xz -3 ok", "lua": "^fib\t17711$", "sqlite": "^ok$", "perl": "^eidolon EID0",
               "python": "^zlib True$"}
    for name, proof in scripts.items():
        linux(f"program_{name}", f"echo == begin {name}; sh /tests/{name}.sh /bin/busybox 2>&1; echo == end {name}", memory="384M",
              append="quiet", image=programs, expect=[proof, end], verify=verify_scripts(guest, [name]), limit=300)
    for model in ("qemu64", "x86-64-v2", "x86-64-v3"):
        linux(f"cpu_{model}", "grep -m1 'model name' /proc/cpuinfo; echo done", append="quiet", options=["-cpu", model], expect=["done", end],
              slow=model == "x86-64-v3")

    def bare(name, append, *, options=(), memory="64M", **keywords):
        add(Case(name, ["-machine", "q35", "-nodefaults", "-display", "none", "-serial", "stdio", "-m", memory, "-kernel", multiboot,
                        "-append", append, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", *options], limit=30, **keywords))

    good = ["multiboot test kernel", "multiboot: ok"]
    bare("multiboot", "some words", expect=["command line: .*some words", "multiboot: ok"], forbid=["WRONG"], status=1)
    bare("multiboot_module", "x", options=["-initrd", multiboot], expect=["module bytes: 0{12}....", "multiboot: ok"], forbid=["WRONG"], status=1)
    bare("multiboot_exit", "exit=5", expect=good, status=(ord("5") - ord("0")) << 1 | 1)
    bare("multiboot_triple", "triple", options=["-no-reboot"], expect=good, status=0)
    bare("multiboot_triple_reboots", "triple", expect=good + good, until=("multiboot: ok", 3))
    bare("multiboot_keyboard_reset", "keyboard", options=["-no-reboot"], expect=good, status=0)
    bare("multiboot_reset", "reset", expect=good + good, until=("multiboot: ok", 3))
    bare("multiboot_poweroff", "poweroff", expect=good, status=0)
    bare("multiboot_8g", "x", memory="8G", expect=["usable memory: 00000001f", "multiboot: ok"], forbid=["WRONG"], status=1)
    return cases
