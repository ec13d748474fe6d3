#!/usr/bin/env python3
"""Makes every system call of a conversion fail in turn, and kills it at every one, under strace.

    syscall_torture.py BUILD/bin/lora-convert BUILD/test_data [--all]

A failed call must give a non-zero exit, nothing at the final path (with --force: the old output,
untouched) and no temporary folder; a call whose failure does not matter must still give the whole
output. A kill may leave a temporary folder, never half an output. Without --all about 200 of the
calls are taken, the same ones every time. Exits 77, which ctest counts as skipped, where strace is
absent or may not trace, of a build with a sanitizer, and of one that counts lines for coverage.
"""

import collections
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

FAULTS = {  # system call -> the error it is given
    "openat": "EACCES", "read": "EIO", "pread64": "EIO", "write": "EIO", "pwrite64": "ENOSPC",
    "fallocate": "ENOSPC", "fsync": "EIO", "renameat2": "EACCES", "close": "EIO", "mkdir": "EACCES",
    "newfstatat": "EACCES", "mmap": "ENOMEM", "clone3": "EAGAIN",
}
FATAL = ("pwrite64", "fallocate", "fsync", "renameat2", "mkdir")  # where no failure may be passed over
LOADER = ("openat", "read", "pread64", "close", "newfstatat", "mmap")  # what runs before main is not ours
KILLED_AT = ["pwrite64", "fsync", "renameat2", "close", "mkdir", "unlinkat", "openat"]
# After the output is in place only two things can fail, and both say so.
LATE = ("stdout: could not be written", "is complete, but the folder it replaced is left as")
PER_CALL = 12  # injections for each system call, without --all


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def digest(folder):
    """Names and bytes of a folder; None when it is absent."""
    if not folder.exists():
        return None
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


class Torture:
    def __init__(self, tool, data, folder, take_all):
        self.tool, self.data, self.folder, self.take_all = tool, data, folder, take_all
        self.target, self.log = folder / "there" / "out", folder / "strace.txt"
        self.faults, self.runs, self.refused = [], 0, 0

    def trace(self, command, strace):
        command = ["strace", "-f", "-qq", "-o", self.log, *strace, *command] if strace else command
        return subprocess.run(list(map(str, command)), capture_output=True, text=True)

    def convert(self, strace=(), force=False):
        command = [self.tool, "adapter", self.data / "qwen3_moe/peft_params", self.target, "--to", "peft-linear",
                   "--base", self.data / "qwen3_moe/base", "--threads", "2", "--quiet"] + ["--force"] * force
        return self.trace(command, strace)

    def prepare(self, force):
        shutil.rmtree(self.target.parent, ignore_errors=True)
        self.target.parent.mkdir()
        if force:
            self.target.mkdir()
            (self.target / "adapter_config.json").write_text("old")

    def count_calls(self, run):
        done = run(["-e", "trace=" + ",".join([*FAULTS, "unlinkat"])])
        if done.returncode != 0 or not self.log.exists():
            skip(f"strace does not run here: {done.stderr.strip()}")
        return collections.Counter(re.findall(r"^\d+ +(\w+)\(", self.log.read_text(), re.M))

    def numbers(self, first, last):
        """Which of the calls to take: all, or evenly spread ones, first and last included."""
        if self.take_all or last - first < PER_CALL:
            return range(first, last + 1)
        return sorted({first + i * (last - first) // (PER_CALL - 1) for i in range(PER_CALL)})

    def run_one(self, call, number, what, force):
        self.prepare(force)
        old = digest(self.target)
        done = self.convert(["-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}"], force)
        self.runs += 1
        found, left = digest(self.target), [p.name for p in self.target.parent.iterdir() if p != self.target]
        wrong = []
        if done.returncode == 0:
            if found != self.complete:
                wrong.append("exit 0 without the whole output")
        elif found not in (old, self.complete):
            wrong.append("half an output")
        if "signal" not in what:
            self.refused += done.returncode != 0
            if done.returncode < 0 or done.returncode > 127:
                wrong.append(f"ended with {done.returncode}")
            late = any(words in done.stderr for words in LATE)
            if done.returncode != 0 and found != old and not late:
                wrong.append("an output in spite of the failure")
            if done.returncode == 0 and call in FATAL:
                wrong.append("exit 0")
            if left and not late:
                wrong.append(f"left {left}")
        if wrong:
            self.faults.append(f"{call} number {number}, {what}, force={force}: {'; '.join(wrong)}\n    {done.stderr.strip()}")

    def run(self):
        self.prepare(False)
        clean = self.convert()
        if clean.returncode != 0:
            sys.exit(f"the conversion itself fails: {clean.stderr}")
        self.complete = digest(self.target)
        start = self.count_calls(lambda strace: self.trace([self.tool, "--version"], strace))
        for force in (False, True):
            self.prepare(force)
            counts = self.count_calls(lambda strace: self.convert(strace, force))
            for call, error in FAULTS.items():
                first = 1 + start[call] if call in LOADER else 1
                for number in self.numbers(first, counts[call]):
                    self.run_one(call, number, f"error={error}", force)
            for call in KILLED_AT:
                for number in self.numbers(1, counts[call]):
                    self.run_one(call, number, "signal=SIGKILL", force)
        print(f"{self.runs} runs, {self.refused} refused, {len(self.faults)} faults")
        print("\n".join(self.faults))
        return 1 if self.faults else 0


def main():
    if shutil.which("strace") is None:
        skip("strace is not installed")
    binary = pathlib.Path(sys.argv[1]).read_bytes()
    if re.search(rb"__[at]san_init", binary):
        skip("a sanitizer's own system calls would fail")
    if b"__gcov_exit" in binary:
        skip("the counts of every later process would be lost with the file that a failed call leaves")
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(Torture(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(folder), "--all" in sys.argv).run())


if __name__ == "__main__":
    main()
