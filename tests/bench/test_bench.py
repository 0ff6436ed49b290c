#!/usr/bin/env python3
"""bench/ against emulators that are shell scripts: right figures from good ones, and a complaint about each kind of bad one."""

import io
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, f"{ROOT}/bench")
import engines  # noqa: E402
import report  # noqa: E402
import workloads  # noqa: E402

# $1: seconds that the workload takes; $2: seconds that it claims; $3: checksum
GUEST = """
echo booted; echo bench begin sort
sleep $1; echo bench result sort 500 $2 $3
echo bench end; read x; exit 0
"""


class Runs(unittest.TestCase):
    """Whole runs of bench.py."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="eidolon-bench-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def script(self, name, text):
        path = f"{self.folder}/{name}.sh"
        with open(path, "w", encoding="ascii") as out:
            out.write(text)
        return f"sh {path}"

    def guest(self, name, takes="0.5", claims=None, checksum="aaaa"):
        return self.script(name, f"set -- {takes} {claims or takes} {checksum}\n{GUEST}")

    def bench(self, ours, tcg, *options):
        command = [sys.executable, "-B", f"{ROOT}/bench/bench.py", "--only", "^sort$", "--engines", "jit,tcg", "--rounds", "1", "--eidolon", ours,
                   "--qemu", tcg, "--output", f"{self.folder}/bench.json", "--guest", self.folder, *options]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=100, check=False)
        return result.returncode, result.stdout.decode()

    def test_good(self):
        status, text = self.bench(self.guest("jit"), self.guest("tcg", "1.5"))
        self.assertEqual(status, 0, text)
        self.assertRegex(text, r"\| sort +\| 1\.00 ms +\| 3\.00 ms +\| 3\.00x")
        with open(f"{self.folder}/bench.json", encoding="utf-8") as out:
            self.assertEqual(json.load(out)["results"]["sort"]["tcg"][0]["seconds"], 1.5)

    def test_missed_figure(self):
        status, text = self.bench(self.guest("jit"), self.guest("tcg", "1.5"), "--check")  # 4 times is the bar
        self.assertEqual(status, 1, text)
        self.assertRegex(text, r"times faster than TCG +\| 3\.00 +\| 4 +\| NO")

    def test_compare(self):
        tcg = self.guest("tcg")
        self.bench(self.guest("jit", "1.0"), tcg)
        os.rename(f"{self.folder}/bench.json", f"{self.folder}/old.json")
        _, text = self.bench(self.guest("jit", "0.5"), tcg, "--compare", f"{self.folder}/old.json")
        self.assertRegex(text, r"\| sort +\| 2\.00 ms +\| 1\.00 ms +\| 0\.50 +\|")

    def test_other_checksum(self):
        status, text = self.bench(self.guest("jit"), self.guest("tcg", checksum="bbbb"))
        self.assertEqual(status, 1)
        self.assertIn("sort: results differ: jit aaaa; tcg bbbb", text)

    def test_slow_clock(self):
        status, text = self.bench(self.guest("jit", "1.0", claims="0.3"), self.guest("tcg"))
        self.assertEqual(status, 1)
        self.assertRegex(text, r"sort took 0\.30 s by the guest's clock, 1\.0\d s by the host's")

    def test_fast_clock(self):
        status, text = self.bench(self.guest("jit"), self.guest("tcg", "0.5", claims="2.0"))
        self.assertEqual(status, 1)
        self.assertIn("QEMU TCG: sort took 2.00 s by the guest's clock", text)

    def test_dies(self):
        status, text = self.bench(self.script("jit", "echo booted; echo bench begin sort; echo oops; exit 3"), self.guest("tcg"))
        self.assertEqual(status, 1)
        self.assertIn("eidolon jit: ended early; last line: oops", text)

    def test_bad_status(self):
        script = GUEST.replace("exit 0", "exit 5").replace("$1", "0.2").replace("$2", "0.2").replace("$3", "aaaa")
        status, text = self.bench(self.script("jit", script), self.guest("tcg"))
        self.assertEqual(status, 1)
        self.assertIn("exit status 5", text)

    def test_workload_fails(self):
        script = "echo bench begin sort; echo bench failed sort signal 11; echo bench end; read x"
        status, text = self.bench(self.script("jit", script), self.guest("tcg"))
        self.assertEqual(status, 1)
        self.assertIn("eidolon jit: sort signal 11", text)

    def test_refuses(self):
        status, text = self.bench(self.script("jit", "echo no such engine; exit 1"), self.guest("tcg"))
        self.assertEqual(status, 0)
        self.assertIn("Left out: jit: exit status 1: no such engine", text)

    def test_not_there(self):
        status, text = self.bench(self.guest("jit"), "/nonexistent/qemu")
        self.assertEqual(status, 0)
        self.assertIn("Left out: tcg", text)

    def test_refuses_later(self):
        once = f"if [ -e {self.folder}/ran ]; then echo gone; exit 1; fi; touch {self.folder}/ran; set -- 0.2 0.2 aaaa;{GUEST}"
        status, text = self.bench(self.script("jit", once), self.guest("tcg"), "--rounds", "2")
        self.assertEqual(status, 1)
        self.assertIn("PROBLEM: eidolon jit: exit status 1: gone", text)


class Parts(unittest.TestCase):
    """What needs no whole run."""

    def engine(self, script, stall=10.0):
        return engines.Engine("jit", "eidolon jit", ["sh", "-c", script], stall=stall)

    def test_boot_mark(self):
        script = r"sleep 0.5; printf '\002'; sleep 0.3; echo 'eidolon-init: up after 1 s'"
        times = engines.boot(self.engine(script), "k", "i", io.BytesIO())
        self.assertAlmostEqual(times["instruction"], 0.3, delta=0.15)
        self.assertAlmostEqual(times["command"], 0.8, delta=0.2)

    def test_stall(self):
        begin = time.monotonic()
        _, problems, _ = engines.run_guest(self.engine("echo bench begin sort; exec sleep 30", 0.5), "k", "i", "", io.BytesIO())
        self.assertLess(time.monotonic() - begin, 15)
        self.assertIn("no output for", problems[0])

    def test_memory(self):
        before = engines.memory(os.getpid())
        ram = os.memfd_create("eidolon-ram")
        os.ftruncate(ram, 64 << 20)
        with mmap.mmap(ram, 64 << 20) as view, mmap.mmap(-1, 8 << 20) as other:
            view[: 32 << 20] = bytes(32 << 20)
            other[:] = bytes(8 << 20)
            after = engines.memory(os.getpid())
        os.close(ram)
        self.assertAlmostEqual(after["ram"] - before["ram"], 32, delta=1)
        self.assertAlmostEqual(after["overhead"] - before["overhead"], 8, delta=4)

    def test_memory_of_qemu(self):
        before = engines.memory(os.getpid())
        with mmap.mmap(-1, engines.MEMORY_MIB << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as view:
            view[: 16 << 20] = bytes(16 << 20)
            after = engines.memory(os.getpid())
        self.assertGreater(after["ram"] - before["ram"], 15)

    def test_means(self):
        self.assertAlmostEqual(report.geometric_mean([1, 4, 16]), 4)
        self.assertIsNone(report.geometric_mean([]))

    def test_list(self):
        """At least what the project says it measures, in each group, and no name twice."""
        found = workloads.read()
        names = [w.name for w in found]
        self.assertEqual(len(names), len(set(names)))
        self.assertGreaterEqual(len(found), 35)
        for name in ("sort", "gcc", "nbody", "aes_gcm", "pipe_pingpong", "shell_loop"):
            self.assertIn(name, names)
        self.assertEqual({w.group for w in found}, set(workloads.GROUPS))


if __name__ == "__main__":
    unittest.main()
