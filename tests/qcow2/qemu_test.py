#!/usr/bin/env python3
"""Images that qemu-img makes, changed in turn by the library (qcow2_tool) and by qemu-io, beside a model in a raw file: after
every round `qemu-img check` finds nothing and `qemu-img compare` no difference, and the library reads what the model has.

    qemu_test.py --tool build/tests/qcow2/qcow2_tool [--seed N] [--rounds N] [CASE]...
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

K, M = 1 << 10, 1 << 20

# name, options for qemu-img create, size, what else
CASES = [
    ("default", "", 64 * M, {}),
    ("v2", "compat=0.10", 24 * M, {}),
    ("small_clusters", "cluster_size=512", 2 * M, {}),
    ("big_clusters", "cluster_size=2M", 64 * M, {}),
    ("cluster_4k", "cluster_size=4k", 20 * M + 1536, {}),
    ("refcount_1", "cluster_size=4k,refcount_bits=1", 8 * M, {}),
    ("refcount_2", "cluster_size=512,refcount_bits=2", 1 * M, {}),
    ("refcount_4", "cluster_size=1k,refcount_bits=4", 2 * M, {}),
    ("refcount_8", "refcount_bits=8", 16 * M, {}),
    ("refcount_32", "cluster_size=1k,refcount_bits=32", 4 * M, {}),
    ("refcount_64", "cluster_size=512,refcount_bits=64", 3 * M, {}),
    ("lazy", "lazy_refcounts=on,cluster_size=8k", 16 * M, {}),
    ("zstd", "compression_type=zstd", 16 * M, {"compress": True}),
    ("zlib", "cluster_size=16k", 16 * M, {"compress": True}),
    ("zlib_v2", "compat=0.10,cluster_size=4k", 4 * M, {"compress": True}),
    ("zlib_refcount_2", "refcount_bits=2,cluster_size=4k", 2 * M, {"compress": True}),
    ("metadata", "preallocation=metadata", 16 * M, {}),
    ("falloc", "preallocation=falloc,cluster_size=32k", 8 * M, {}),
    ("full", "preallocation=full,cluster_size=32k", 8 * M, {}),
    ("backing_raw", "", 16 * M + 512, {"backing": ["raw"]}),
    ("backing_v2", "compat=0.10,cluster_size=8k", 6 * M, {"backing": ["raw"]}),
    ("backing_deep", "cluster_size=16k", 12 * M, {"backing": ["raw", "qcow2", "qcow2", "qcow2"]}),
    ("backing_short", "cluster_size=64k", 12 * M, {"backing": ["raw"], "backing_size": 5 * M + 3 * 512}),
    ("backing_short_512", "cluster_size=512", 2 * M, {"backing": ["raw"], "backing_size": 1 * M - 512}),
    ("snapshots", "cluster_size=4k", 6 * M, {"snapshots": True}),
    ("snapshots_v2", "compat=0.10", 20 * M, {"snapshots": True}),
    ("snapshots_lazy", "lazy_refcounts=on,cluster_size=4k", 6 * M, {"snapshots": True}),
    ("snapshots_compressed", "cluster_size=4k", 6 * M, {"snapshots": True, "compress": True}),
    ("resize", "cluster_size=512", 1 * M, {"resize": True}),
    ("resize_backing", "cluster_size=4k", 3 * M, {"resize": True, "backing": ["raw"], "backing_size": 5 * M}),
    ("resize_snapshots", "", 10 * M, {"resize": True, "snapshots": True}),
    ("bitmaps", "cluster_size=8k", 8 * M, {"bitmaps": True}),
]


class Failure(Exception):
    pass


def run(*command, stdin=None, status=(0,)):
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
    if result.returncode not in status:
        raise Failure(f"{' '.join(command)}: status {result.returncode}\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.stdout


class Image:
    """One case: the image, and beside it the model, a raw file with the same content."""

    def __init__(self, folder, tool, rng, case):
        self.name, self.options, self.size, self.what = case
        self.folder, self.tool, self.rng = folder, tool, rng
        self.path, self.model_path = f"{folder}/image.qcow2", f"{folder}/model.raw"
        self.model = bytearray(self.size)
        self.make_backing()
        self.clusters_to = 65536

    def make_backing(self):
        chain = self.what.get("backing", [])
        below = None
        for n, fmt in enumerate(chain):
            path = f"{self.folder}/below{n}.{fmt}"
            size = self.what.get("backing_size", self.size)
            content = bytearray(self.model if n else size)
            if fmt == "raw":
                for _ in range(20):
                    at = self.rng.randrange(size)
                    length = min(self.rng.randrange(1, 300 * K), size - at)
                    content[at:at + length] = bytes([self.rng.randrange(256)]) * length
                with open(path, "wb") as file:
                    file.write(content)
                self.model[:] = (content + bytes(self.size))[:self.size]
            else:
                run("qemu-img", "create", "-q", "-f", fmt, "-b", os.path.basename(below[0]), "-F", below[1], path, str(self.size))
                for _ in range(6):
                    at, length, byte = self.piece()
                    run("qemu-io", "-c", f"write -P {byte} {at} {length}", path)
                    self.model[at:at + length] = bytes([byte]) * length
            below = (path, fmt)
        arguments = ["-b", os.path.basename(below[0]), "-F", below[1]] if below else []
        if self.options:
            arguments += ["-o", self.options]
        run("qemu-img", "create", "-q", "-f", "qcow2", *arguments, self.path, str(self.size))
        if self.what.get("compress"):
            cluster = self.cluster_size()
            for at in self.rng.sample(range(0, self.size - cluster, cluster), 20):
                byte = self.rng.randrange(256)
                run("qemu-io", "-c", f"write -c -P {byte} {at} {cluster}", self.path)
                self.change(at, cluster, byte)
        if self.what.get("bitmaps"):
            run("qemu-img", "bitmap", "--add", self.path, "bits")

    def piece(self):
        size = len(self.model)
        unit = 512
        at = self.rng.randrange(size // unit) * unit
        length = self.rng.choice((512, 4 * K, 16 * K, 64 * K, 200 * K, 1 * M))
        return at, min(self.rng.randrange(1, length // unit + 1) * unit, size - at), self.rng.randrange(1, 256)

    def change(self, at, length, byte):
        self.model[at:at + length] = bytes([byte]) * length

    def cluster_size(self):
        for option in self.options.split(","):
            if option.startswith("cluster_size="):
                value = option[13:]
                return int(value.rstrip("kM")) * {"k": K, "M": M}.get(value[-1], 1)
        return 64 * K

    def discard_reads_zero(self):
        return "0.10" not in self.options

    def our_round(self):
        script = []
        cluster = self.cluster_size()
        for _ in range(self.rng.randrange(5, 60)):
            at, length, byte = self.piece()
            kind = self.rng.random()
            if kind < 0.55:
                script.append(f"write {at} {length} {byte}")
                self.change(at, length, byte)
            elif kind < 0.65:
                script.append(f"zero {at} {length} {self.rng.randrange(2)}")
                self.change(at, length, 0)
            elif kind < 0.75:
                # Whole clusters, of which the model knows what they read as afterwards.
                first, last = -(-at // cluster) * cluster, (at + length) // cluster * cluster
                if first < last and self.discard_reads_zero():
                    script.append(f"discard {first} {last - first}")
                    self.change(first, last - first, 0)
            elif kind < 0.8 and self.what.get("compress"):
                first = at // cluster * cluster
                length = min(cluster, len(self.model) - first)
                script.append(f"compress {first} {length} {byte}")
                self.change(first, length, byte)
            elif kind < 0.85:
                script.append("flush")
            elif kind < 0.9 and self.what.get("resize"):
                size = self.rng.randrange(1, 2 * self.size // 512) * 512
                script.append(f"resize {size} 1 {self.rng.choice((0, 0, 1, 2, 3)) if size > len(self.model) and 'backing' not in self.what else 0}")
                self.model[:] = (self.model + bytes(max(0, size - len(self.model))))[:size]
            else:
                value = self.model[at]
                end = at
                while end < at + length and self.model[end] == value:
                    end += 1
                script.append(f"read {at} {end - at} {value}")
        with open(f"{self.folder}/script", "w") as file:
            file.write("\n".join(script) + "\n")
        run(self.tool, self.path, stdin="\n".join(script) + "\n")

    def qemu_round(self):
        commands = []
        for _ in range(self.rng.randrange(2, 8)):
            at, length, byte = self.piece()
            if self.rng.random() < 0.7:
                commands += ["-c", f"write -P {byte} {at} {length}"]
                self.change(at, length, byte)
            else:
                commands += ["-c", f"write -z {'-u' if self.rng.random() < 0.5 else ''} {at} {length}"]
                self.change(at, length, 0)
        output = run("qemu-io", *commands, self.path)
        if "error" in output.lower() or "failed" in output.lower():
            raise Failure(f"qemu-io: {output}")
        if self.what.get("snapshots") and self.rng.random() < 0.5:
            run("qemu-img", "snapshot", "-c", f"s{self.rng.randrange(1000000)}", self.path)

    def verify(self):
        with open(self.model_path, "wb") as file:
            file.write(self.model)
        if self.what.get("bitmaps"):
            # Bitmaps that somebody did not maintain are not valid any more, and their clusters lost: leaks, no errors.
            run("qemu-img", "check", "-q", "-r", "leaks", self.path, status=(0, 3))
        run("qemu-img", "check", "-q", self.path)
        run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", self.path, self.model_path)
        run(self.tool, self.path, "-r", stdin=f"same {self.model_path}\n")


def run_case(case, options, seed):
    rng = random.Random(f"{seed} {case[0]}")
    folder = tempfile.mkdtemp(prefix="qcow2-")
    try:
        image = Image(folder, options.tool, rng, case)
        image.verify()
        for _ in range(options.rounds):
            image.our_round()
            image.verify()
            image.qemu_round()
            image.verify()
    except Failure as failure:
        print(f"{case[0]} seed {seed}: {failure}\nleft in {folder}", flush=True)
        return False
    shutil.rmtree(folder)
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        sys.exit("qemu-img and qemu-io are needed: package qemu-utils")
    start, failed = time.monotonic(), []
    for case in CASES:
        if not options.cases or case[0] in options.cases:
            if not run_case(case, options, options.seed):
                failed.append(case[0])
    print(f"{len(failed)} failed {' '.join(failed)} ({time.monotonic() - start:.0f} s)")
    sys.exit(1 if failed else 0)


main()
