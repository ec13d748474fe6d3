#!/usr/bin/env python3
"""Times moelora.fleet: adapters a second with 1 and 2 workers, and what a unit costs beside its work.

    PYTHON tests/bench/fleet_bench.py FOLDER [--adapters N] [--rounds N] [--workers 1,2] [--no-ray]

PYTHON has the wheel (and Ray) installed: build/python_test/venv/bin/python after `tests/python/run.sh fleet`. Makes N tiny
adapters in FOLDER (copies of the three of examples/data). The work is what one thread takes for all of them, one call of
moelora.validate (or convert) after the other, without a fleet; overhead a unit = workers x wall / units - work / units. Ray is started
with as many CPUs as workers, and its workers are warm: each has run a unit. Prints what RESULTS.md holds: date, machine,
command, a Markdown table with medians (range), and whether the goal holds: under 20 ms a unit on Ray.
"""

import argparse
import os
import pathlib
import platform
import shutil
import statistics
import sys
import time

import moelora
from moelora import fleet

DATA = pathlib.Path(__file__).resolve().parents[2] / "examples/data"
BASE = DATA / "gpt_oss_base"
KINDS = ("gpt_oss_adapter", "gpt_oss_attention", "gpt_oss_lone_q")
GOAL_MS = 20
JUDGED = {"engines": ["sglang"], "base": BASE, "threads": 1}
CONVERTED = {"to": "peft-linear", "base": BASE, "threads": 1}


def seconds(job):
    begin = time.monotonic()
    job()
    return time.monotonic() - begin


def words(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


class Bench:
    def __init__(self, given):
        self.given, self.folder, self.count = given, given.folder, given.adapters
        self.folder.mkdir(parents=True)
        for i in range(self.count):
            shutil.copytree(DATA / KINDS[i % len(KINDS)], self.folder / "in" / f"{i:05}")
        self.pattern = str(self.folder / "in/*")
        self.overheads = []

    def clear(self, name):
        shutil.rmtree(self.folder / name, ignore_errors=True)

    # ---- the jobs, each with what clears its place before ----

    def validate(self, how, state=False):
        made = fleet.validate(self.pattern, state=self.folder / "state" if state else None, **how, **JUDGED)
        assert len(made) == self.count and "failed" not in made.counts, made

    def convert(self, how):
        made = fleet.convert(self.pattern, self.folder / "out", **how, **CONVERTED)
        assert len(made) == self.count and made.ok, made

    def jobs(self, how):
        yield "validate", "validate", lambda: None, lambda: self.validate(how)
        yield "validate, --state", "validate", lambda: self.clear("state"), lambda: self.validate(how, True)
        yield "the same again: all done before", None, lambda: None, lambda: self.validate(how, True)
        yield "convert", "convert", lambda: self.clear("out"), lambda: self.convert(how)

    def alone(self):
        """Seconds a unit of each kind of work, without a fleet."""
        paths = sorted((self.folder / "in").iterdir())
        rounds = {"validate": [], "convert": []}
        for _ in range(self.given.rounds):
            rounds["validate"].append(seconds(lambda: [moelora.validate(p, project=False, **JUDGED) for p in paths]))
            self.clear("alone")
            (self.folder / "alone").mkdir()
            rounds["convert"].append(
                seconds(lambda: [moelora.convert(p, self.folder / "alone" / p.name, **CONVERTED) for p in paths]))
        for kind, walls in rounds.items():
            print(f"| the work: {kind}, one call after the other | | {words(walls)} | "
                  f"{self.count / statistics.median(walls):.0f} | |", flush=True)
        return {kind: statistics.median(walls) / self.count for kind, walls in rounds.items()}

    def rows(self, where, workers, how, work):
        for name, kind, clear, job in self.jobs(how):
            walls = []
            for _ in range(self.given.rounds):
                clear()
                walls.append(seconds(job))
            beside = [1e3 * (workers * wall / self.count - work.get(kind, 0)) for wall in walls]
            if where == "Ray":
                self.overheads.append((statistics.median(beside), f"{name}, {workers} workers"))
            print(f"| {where}: {name} | {workers} | {words(walls)} | {self.count / statistics.median(walls):.0f} | "
                  f"{words(beside, 1)} |", flush=True)

    def on_ray(self, workers, work):
        import ray

        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            fleet.validate([self.folder / "in" / f"{i:05}" for i in range(min(8 * workers, self.count))], **JUDGED)  # warm
            self.rows("Ray", workers, {}, work)
        finally:
            ray.shutdown()

    def run(self):
        print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, load "
              f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, moelora {moelora.__version__}; "
              f"`{' '.join(['python', *sys.argv])}`: {self.count} adapters of a GPT-OSS of two layers, "
              f"{self.given.rounds} rounds, page cache warm\n")
        print("| job | workers | s | adapters/s | overhead a unit, ms |\n|---|---|---|---|---|")
        work = self.alone()
        for workers in self.given.workers:
            cpus = len(os.sched_getaffinity(0)) / workers
            self.rows("threads", workers, {"address": "local", "cpus": cpus}, work)
        if not self.given.no_ray:
            for workers in self.given.workers:
                self.on_ray(workers, work)
            worst, job = max(self.overheads)
            said = "holds" if worst < GOAL_MS else "does not hold"
            print(f"\nGoal of {GOAL_MS} ms a unit beside the work on Ray: {said}; most is {worst:.1f} ms ({job}).")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--adapters", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2])
    parser.add_argument("--no-ray", action="store_true")
    Bench(parser.parse_args()).run()


if __name__ == "__main__":
    main()
