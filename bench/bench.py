#!/usr/bin/env python3
"""Measures Eidolon beside QEMU's TCG and the host itself: the same programs, files, kernel and command line, in one go and interleaved.

Every round boots each engine for the boot times, then once more to run all workloads, which time themselves in the guest. Prints
Markdown tables of medians and ratios and writes build/bench.json. Exit status 0; 1 if a workload failed, an engine's clock was wrong or two
engines computed different things. docs/performance.md says how to read the result."""

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time

import engines
import report
import workloads as lists

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", metavar="REGEX", help="workloads whose names match; 'boot' alone measures only boots")
    parser.add_argument("--engines", default="jit,interp,tcg,native",
                        help="of these (interp is slow: it does a tenth of the work, in the first round)")
    parser.add_argument("--quick", action="store_true", help="one round, a fifth of the work, no interp")
    parser.add_argument("--no-boot", action="store_true", help="no boot times")
    parser.add_argument("--statistic", choices=("median", "min"), default="median", help="min: for a host that others use too")
    parser.add_argument("--compare", metavar="JSON", help="an earlier run's file: print our times against it")
    parser.add_argument("--check", action="store_true", help="exit status 1 also when a figure is not reached")
    parser.add_argument("--eidolon", default=f"{ROOT}/build/eidolon")
    parser.add_argument("--eidolon-options", default="", help="more arguments for eidolon")
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    parser.add_argument("--guest", default=f"{ROOT}/build/guest", help="folder of the images (guest/build-bench.sh)")
    parser.add_argument("--output", default=f"{ROOT}/build/bench.json")
    return parser.parse_args()


def cpu_seconds():
    """(busy time of all CPUs, of the children that have ended)"""
    with open("/proc/stat", encoding="ascii") as stat:
        fields = [int(word) for word in stat.readline().split()[1:9]]
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK"), usage.ru_utime + usage.ru_stime


def host_description():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        model = re.search(r"model name\s*: (.*)", info.read())
    return {"cpu": model.group(1) if model else "unknown", "cpus": os.cpu_count(), "kernel": f"Linux {platform.release()}"}


def first_line(command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode().split("\n")[0]
    except OSError:
        return ""


class Bench:
    """One run: the rounds, and what they gave."""

    def __init__(self, options):
        self.options = options
        everything = lists.read()
        self.only_boot = options.only == "boot"
        self.selected = [] if self.only_boot else lists.select(everything, options.only)
        self.names = "" if len(self.selected) == len(everything) else " ".join(w.name for w in self.selected)
        self.engines = self.choose_engines()
        self.rounds = 1 if options.quick else options.rounds
        self.problems = []
        self.logs = os.path.join(os.path.dirname(os.path.abspath(options.output)), "bench")
        os.makedirs(self.logs, exist_ok=True)
        self.data = {"engines": {}, "results": {}, "boot": {}, "memory": {}, "left_out": {}, "rounds": self.rounds,
                     "statistic": options.statistic}

    def choose_engines(self):
        table = engines.table(self.options.eidolon, self.options.qemu, self.options.eidolon_options)
        names = self.options.engines.split(",")
        unknown = [name for name in names if name not in table]
        if unknown:
            sys.exit(f"bench: no such engine: {', '.join(unknown)} (there are {', '.join(table)})")
        chosen = [table[name] for name in table if name in names and not (self.options.quick and name == "interp")]
        if self.options.quick:
            for engine in chosen:
                engine.percent = max(engine.percent // 5, 1)
        return chosen

    def log(self, name):
        return open(os.path.join(self.logs, name), "wb", buffering=0)

    def problem(self, text):
        self.problems.append(text)
        say(f"PROBLEM: {text}")

    def leave_out(self, engine, reason):
        """An engine that does not start is reported; one that has already run must go on running."""
        if engine.name in self.data["engines"]:
            self.problem(f"{engine.title}: {reason}")
        else:
            say(f"{engine.title} is left out: {reason}")
        self.data["left_out"][engine.name] = reason
        self.engines.remove(engine)

    def boot(self, engine, number, kernel):
        image = {"elf": "vmlinux.elf", "bzimage": "vmlinuz"}[kernel]
        with self.log(f"{engine.name}-{number}-{kernel}.log") as log:
            times = engines.boot(engine, f"{self.options.guest}/{image}", f"{self.options.guest}/initrd.img", log)
        if kernel == "elf" and times["instruction"] is None:
            self.problem(f"{engine.title}: the mark of the kernel's first instruction did not appear")
        self.data["engines"].setdefault(engine.name, {"title": engine.title})
        self.data["boot"].setdefault(engine.name, {}).setdefault(kernel, []).append(times)
        say(f"round {number}: {engine.title}: boot ({kernel}) {times['command']:.2f} s"
            + (f", {times['instruction']:.2f} s since the first instruction" if times["instruction"] else ""))

    def suite(self, engine, number):
        begin = time.monotonic()
        work = f"-p {engine.percent} -t {engine.times} {self.names}".strip()
        guest = self.options.guest
        with self.log(f"{engine.name}-{number}-suite.log") as log:
            if engine.is_native:
                results, problems, memory = engines.run_native(engine, f"{guest}/bench", work, log)
            else:
                results, problems, memory = engines.run_guest(engine, f"{guest}/vmlinuz", f"{guest}/initrd-bench.img", work, log)
        self.data["engines"].setdefault(engine.name, {"title": engine.title})
        for text in problems:
            self.problem(f"{engine.title}: {text}")
        for name, runs in results.items():
            for result in runs:
                self.check_clock(engine, name, result)
            self.data["results"].setdefault(name, {}).setdefault(engine.name, []).extend(map(vars, runs))
        if memory:
            self.data["memory"].setdefault(engine.name, []).append(memory)
        say(f"round {number}: {engine.title}: {len(results)} workloads in {time.monotonic() - begin:.0f} s")

    def check_clock(self, engine, name, result):
        """A guest whose clock runs slow would look fast. What differs by right is console output and hashing between the runs."""
        if abs(result.host_seconds - result.seconds) > 0.3 + 0.15 * result.host_seconds:
            self.problem(f"{engine.title}: {name} took {result.seconds:.2f} s by the guest's clock, {result.host_seconds:.2f} s by the host's")

    def check_results(self):
        for workload in self.selected:
            by_engine = {name: sorted({r["checksum"] for r in runs}) for name, runs in self.data["results"].get(workload.name, {}).items()}
            if len({checksum for sums in by_engine.values() for checksum in sums}) > 1:
                self.problem(f"{workload.name}: results differ: " + "; ".join(f"{name} {' '.join(sums)}" for name, sums in by_engine.items()))

    def round(self, number):
        order = [engine for engine in self.engines if number == 1 or not engine.once]
        order = order if number % 2 else order[::-1]
        steps = []
        if not self.options.no_boot and (self.only_boot or not self.options.only):
            steps += [lambda engine: self.boot(engine, number, "elf"), lambda engine: self.boot(engine, number, "bzimage")]
        if self.selected:
            steps.append(lambda engine: self.suite(engine, number))
        for step in steps:
            for engine in order:
                if engine not in self.engines or (engine.is_native and step is not steps[-1]) or (engine.is_native and self.only_boot):
                    continue
                try:
                    step(engine)
                except (engines.Refused, engines.Stalled, OSError) as reason:
                    self.leave_out(engine, str(reason))

    def run(self):
        options = self.options
        busy, own = cpu_seconds()
        begin = time.monotonic()
        for number in range(1, self.rounds + 1):
            self.round(number)
        wall = time.monotonic() - begin
        busy_now, own_now = cpu_seconds()
        self.data["host"] = {**host_description(), "other_load": max(0.0, ((busy_now - busy) - (own_now - own)) / wall), "seconds": wall}
        self.data["versions"] = {"tcg": first_line([options.qemu, "--version"]), "eidolon": first_line([options.eidolon, "--version"]),
                                 "commit": first_line(["git", "-C", ROOT, "rev-parse", "HEAD"])}
        # As in the list of engines, not as the rounds met them.
        known = [name for name in ("jit", "interp", "tcg", "native") if name in self.data["engines"]]
        self.data["engines"] = {name: self.data["engines"][name] for name in known}
        self.check_results()
        self.data["problems"] = self.problems


def main():
    options = arguments()
    bench = Bench(options)
    if not bench.selected and not bench.only_boot:
        sys.exit(f"bench: no workload matches {options.only}")
    bench.run()
    data = bench.data
    if not data["engines"]:
        sys.exit("bench: no engine could be started")
    with open(options.output, "w", encoding="utf-8") as out:
        json.dump(data, out, indent=1)
    result = report.Report(data, bench.selected)
    print(result.text())
    if options.compare:
        with open(options.compare, encoding="utf-8") as old:
            print(report.compare(data, json.load(old), bench.selected))
    for name, reason in data["left_out"].items():
        print(f"Left out: {name}: {reason}")
    for problem in bench.problems:
        print(f"PROBLEM: {problem}")
    missed = options.check and any(not reached for _, _, _, reached in result.bars())
    return 1 if bench.problems or missed else 0


if __name__ == "__main__":
    sys.exit(main())
