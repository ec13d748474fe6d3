#!/usr/bin/env python3
"""Times lora-convert against cp and dd on the same bytes, and says how much memory it took.

    convert_bench.py BUILD/bin/lora-convert FOLDER [--rounds N] [--model NAME] [--rank R] [--threads N]

Makes a fresh stacked adapter in FOLDER (default: Qwen3-30B-A3B, rank 16, bf16: 1.26 GB) and converts
it: stacked to per-expert and back (every lora_B is transposed), stacked to 3-D stacked, and per-expert
to per-expert (a copy). Each round times every contender once, in turn, from a warm page cache into a
new file; the first round is thrown away. Without fsync unless the contender's name says so. Prints a
Markdown table: median and range of the wall time, GB/s of output, CPU time, peak memory, and the
ratio to the better of cp and dd in the same rounds.
"""

import argparse
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import time


def timed(command):
    """Wall seconds, CPU seconds and peak RSS in MB of a command, which must succeed."""
    start = time.monotonic()
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {message.decode()}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


class Bench:
    def __init__(self, options):
        self.o, self.rows = options, []
        self.folder = pathlib.Path(options.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def convert(self, source, target, layout, *more):
        return [self.o.tool, "adapter", source, target, "--to", layout, "--base", self.o.model, "--quiet",
                "--threads", self.o.threads, *more]

    def make(self):
        stacked, linear = self.folder / "stacked", self.folder / "linear"
        if not stacked.exists():
            timed([self.o.tool, "init", stacked, "--base", self.o.model, "--rank", self.o.rank, "--random-b",
                   "--targets", "experts", "--to", "peft-params", "--dtype", "bf16", "--quiet"])
        if not linear.exists():
            timed(self.convert(stacked, linear, "peft-linear"))
        return stacked, linear

    def case(self, name, source, layout):
        target, copy = self.folder / "out", self.folder / "copy"
        shutil.rmtree(target, ignore_errors=True)
        timed(self.convert(source, target, layout))
        weights = self.folder / "reference.safetensors"
        (target / "adapter_model.safetensors").replace(weights)
        contenders = {
            "cp": ["cp", weights, copy],
            "dd direct": ["dd", f"if={weights}", f"of={copy}", "bs=4M", "oflag=direct"],
            "lora-convert": self.convert(source, target, layout, "--no-sync"),
            "cp + fsync": ["sh", "-c", f"cp {weights} {copy} && sync {copy}"],
            "dd direct + fsync": ["dd", f"if={weights}", f"of={copy}", "bs=4M", "oflag=direct", "conv=fsync"],
            "lora-convert + fsync": self.convert(source, target, layout),
        }
        times = {contender: [] for contender in contenders}
        for round_number in range(self.o.rounds + 1):
            for contender, command in contenders.items():
                shutil.rmtree(target, ignore_errors=True)
                copy.unlink(missing_ok=True)
                os.sync()
                measured = timed(command)
                if round_number > 0:
                    times[contender].append(measured)
        self.report(name, weights.stat().st_size, times)
        weights.unlink()

    def report(self, name, size, times):
        median = {c: statistics.median(t[0] for t in runs) for c, runs in times.items()}
        for contender, runs in times.items():
            suffix = " + fsync" if "fsync" in contender else ""
            best = min(median["cp" + suffix], median["dd direct" + suffix])
            walls = [t[0] for t in runs]
            print(f"| {name} | {contender} | {median[contender]:.2f} ({min(walls):.2f}–{max(walls):.2f}) | "
                  f"{size / median[contender] / 1e9:.2f} | {statistics.median(t[1] for t in runs):.2f} | "
                  f"{max(t[2] for t in runs):.0f} | {best / median[contender]:.2f} |", flush=True)

    def run(self):
        stacked, linear = self.make()
        print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, "
              f"load {os.getloadavg()[0]:.1f}; {self.o.model}, rank {self.o.rank}, {self.o.rounds} rounds, "
              f"--threads {self.o.threads}\n")
        print("| case | contender | wall s | GB/s of output | CPU s | peak MB | speed against the better copy |")
        print("|---|---|---|---|---|---|---|")
        self.case("stacked to per-expert", stacked, "peft-linear")
        self.case("per-expert to stacked", linear, "peft-params")
        self.case("stacked to 3-D stacked", stacked, "stacked")
        self.case("per-expert to itself", linear, "peft-linear")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="Qwen/Qwen3-30B-A3B")
    parser.add_argument("--rank", default=16)
    parser.add_argument("--threads", default=len(os.sched_getaffinity(0)))
    Bench(parser.parse_args()).run()


if __name__ == "__main__":
    main()
