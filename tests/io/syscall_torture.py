#!/usr/bin/env python3
"""Makes the system calls of every verb of the tools fail, one at a time, and kills them there, under strace.

    syscall_torture.py BUILD/bin BUILD/test_data [--runs N] [--only WORDS]

A failed call may be of no consequence: then the exit status, stdout, the report file and the output are those of
an undisturbed run. Else the status is 2, with no output at its final path (with --force: the old one, untouched),
the report file as it was or whole, and nothing under a temporary name. A status of 2 says why in words of the tool,
not "internal error". A kill may leave a temporary name, never half an output. Inputs are never touched. N runs, the
same ones every time and of every job and call, are taken of all (about 15,000); 0 takes all. Exits 77, which ctest
counts as skipped, where strace is absent or may not trace, of a build with a sanitizer, and of one that counts lines
for coverage.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading

FAULTS = {  # system call -> the errors it is given
    "openat": ["EACCES", "EMFILE", "EIO"], "openat2": ["EACCES", "EMFILE", "ENOSYS"], "read": ["EIO"], "pread64": ["EIO"],
    "write": ["EIO", "ENOSPC"], "pwrite64": ["ENOSPC"], "fallocate": ["ENOSPC"], "fsync": ["EIO"], "fchmod": ["EPERM"],
    "renameat2": ["EACCES"], "rename": ["EACCES"], "close": ["EIO"], "mkdir": ["EACCES"], "newfstatat": ["EACCES"],
    "getdents64": ["EIO"], "unlink": ["EACCES"], "rmdir": ["EACCES"], "readlink": ["EACCES"], "mmap": ["ENOMEM"],
    "clone3": ["EAGAIN"],
}
FATAL = ("pwrite64", "fallocate", "fsync", "renameat2", "rename", "mkdir")  # where no failure may be passed over
LOADER = ("openat", "read", "pread64", "close", "newfstatat", "mmap", "readlink")  # what runs before main is not ours
KILLS = {"SIGKILL": ["pwrite64", "fsync", "renameat2", "rename", "close", "mkdir", "unlink", "openat"],
         "SIGTERM": ["pwrite64", "renameat2", "rename", "mkdir"], "SIGQUIT": ["pwrite64", "rename"]}


@dataclasses.dataclass(frozen=True)
class Job:
    """A command, run in a folder that holds its inputs; what it writes is there/out and there/report."""
    name: str
    command: str
    writes: bool = False  # there/out
    force: bool = False   # over an older one
    kept: bool = False    # the output stays though the report of it fails

    @property
    def reports(self):
        return "there/report" in self.command


ADAPTER = "lora-convert adapter in there/out --base base --threads 2 --to "
JOBS = [
    Job("inspect", "lora-convert inspect in --base base"),
    Job("inspect a base as JSON", "lora-convert inspect model --format json --output there/report"),
    Job("inspect as HTML", "lora-convert inspect in --base base --format html --output there/report --threads 2"),
    Job("adapter", ADAPTER + "peft-linear --quiet", writes=True),
    Job("adapter --force", ADAPTER + "peft-linear --force", writes=True, force=True),
    Job("adapter into shards", ADAPTER + "stacked --verify --max-shard-size 20KB --output there/report", writes=True),
    Job("adapter --for", "lora-convert adapter in there/out --for sglang --base base --verify --dtype bf16 --threads 2", writes=True),
    Job("adapter to buffers", "lora-convert adapter numbered there/out --base base --to sglang-pool --server-option max-lora-rank=8 --verify", writes=True),
    Job("adapter --dry-run", ADAPTER + "peft-linear --dry-run --output there/report"),
    Job("adapter of MLX", "lora-convert adapter mlx there/out --for vllm --base base --verify --threads 2", writes=True),
    Job("adapter to MLX", "lora-convert adapter in there/out --to mlx --base base --verify --threads 2", writes=True),
    Job("adapter of ranks", "lora-convert adapter ranks there/out --to stacked --base base --output there/report", writes=True),
    Job("adapter --drop", "lora-convert adapter all there/out --for sglang --drop router --base base --threads 2", writes=True),
    Job("spec", "lora-convert spec model --output there/report"),
    Job("init", "lora-convert init there/out --base base --rank 4 --targets attention,experts --to peft-params --threads 2", writes=True),
    Job("init --demo", "lora-convert init --demo there/out --output there/report", writes=True),
    Job("base", "lora-convert base model there/out --to per-expert --verify --threads 2 --quiet", writes=True),
    Job("base --force", "lora-convert base model there/out --to per-expert --force --output there/report --threads 2", writes=True, force=True),
    Job("validate", "lora-validate in --base base --engine sglang --engine vllm --threads 2"),
    Job("validate as SARIF", "lora-validate in made --base base --engine vllm --format sarif --output there/report --threads 2"),
    Job("validate as JUnit", "lora-validate in --base base --engine peft --format junit --no-values"),
    Job("validate for GitHub", "lora-validate in --base base --engine sglang --format github --output there/report --threads 2"),
    Job("validate as HTML", "lora-validate in made --base base --engine sglang --format html --output there/report --threads 2"),
    Job("validate --numeric", "lora-validate made --base base --source in --numeric --device cpu --format json --threads 2"),
    Job("validate --fix", "lora-validate rslora --base base --engine vllm --fix there/out --threads 2", writes=True, kept=True),
    Job("validate --project", "lora-validate in --project project.json --format markdown --output there/report --threads 2"),
    Job("validate a tree", "lora-validate -r tree --base base --engine vllm --fail-on never --quiet --format json --no-values"),
    Job("validate a tree with a cache", "lora-validate -r tree --base base --engine vllm --fail-on never --cache there/cache "
        "--threads 1 --quiet"),
    Job("list of rules", "lora-validate --list-rules --format json --output there/report"),
    Job("explain", "lora-validate --explain FMT001"),
    Job("diff weights", "lora-diff weights in made --base base --threads 2"),
    Job("diff weights as JSON", "lora-diff weights in rslora --base base --format json --output there/report --threads 2"),
    Job("diff weights as HTML", "lora-diff weights in rslora --base base --format html --output there/report --threads 2"),
    Job("diff logprobs", "lora-diff logprobs trainer.safetensors server.sglang.json --max k2=5e-3"),
    Job("diff logprobs as HTML", "lora-diff logprobs trainer.safetensors server.sglang.json --report --format html --output there/report"),
    Job("help", "lora-convert adapter --help"),
]


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def digest(path):
    """Names and bytes of a folder, or the bytes of a file; None when it is absent."""
    if not path.exists():
        return None
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return {p.relative_to(path).as_posix(): digest(p) for p in sorted(path.rglob("*")) if p.is_file()}


class Place:
    """A folder to run jobs in, with the inputs of all."""

    def __init__(self, tools, data, folder):
        self.tools, self.folder, self.there = tools, folder, folder / "there"
        self.log = folder / "strace.txt"
        folder.mkdir()
        for name, source in (("in", "qwen3_moe/peft_params"), ("numbered", "qwen3_moe/per_expert"), ("base", "qwen3_moe/base"), ("model", "gpt_oss/base"),
                             ("rslora", "vllm_adapters/qwen3_moe/pe_rslora"), ("all", "qwen3_moe/all_linear"),
                             ("mlx", "dialect_mlx/qwen3_moe/adapter"), ("ranks", "dialect_art/qwen3_moe_2_ranks/adapter")):
            shutil.copytree(data / source, folder / name)
        for name in ("trainer.safetensors", "server.sglang.json"):
            shutil.copy(data / "logprobs" / name, folder)
        (folder / "in" / "tokenizer.json").write_text("{}")
        (folder / "project.json").write_text('{"base": "base", "engines": ["vllm"]}')
        self.there.mkdir()
        for setup in (ADAPTER.replace("there/out", "made") + "peft-linear --quiet",
                      "lora-convert base model old_base --to per-expert --quiet"):
            if self.run(setup).returncode != 0:
                sys.exit(f"{setup} fails: {self.run(setup).stderr}")
        for name in ("in", "made"):
            shutil.copytree(folder / name, folder / "tree" / "below" / name)
        self.inputs = self.state()

    def state(self):
        return {p.name: digest(p) for p in sorted(self.folder.iterdir()) if p not in (self.there, self.log)}

    def run(self, command, strace=()):
        tool, *arguments = command.split()
        traced = ["strace", "-f", "-qq", "-o", str(self.log), *strace] if strace else []
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8",
                       "SOURCE_DATE_EPOCH": "1764547200", "MOELORA_CUDA_MODULE": "/nowhere/libmoelora_cuda.so"}
        if "github" in command:
            environment["GITHUB_STEP_SUMMARY"] = str(self.there / "summary")
        return subprocess.run([*traced, self.tools / tool, *arguments], cwd=self.folder, env=environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)

    def prepare(self, job):
        shutil.rmtree(self.there, ignore_errors=True)
        self.there.mkdir()
        if job.force:
            shutil.copytree(self.folder / ("old_base" if " base " in job.command[:20] else "made"), self.there / "out")
        if job.reports:
            (self.there / "report").write_text("the last good report")

    def found(self):
        return digest(self.there / "out"), digest(self.there / "report")


@dataclasses.dataclass
class Clean:
    """What an undisturbed run gives, and how often it makes each call."""
    done: subprocess.CompletedProcess
    before: tuple
    after: tuple
    counts: collections.Counter


def counted(log):
    return collections.Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(errors="replace"), re.M))


def clean_run(place, job):
    place.prepare(job)
    before = place.found()
    calls = sorted({*FAULTS, *(call for some in KILLS.values() for call in some)})
    done = place.run(job.command, ["-e", "trace=" + ",".join(calls)])
    if not place.log.exists():
        skip(f"strace does not run here: {done.stderr.strip()}")
    if done.returncode not in (0, 1) or (job.writes and place.found()[0] is None):
        sys.exit(f"{job.name} itself fails: {done.returncode} {done.stderr}")
    return Clean(done, before, place.found(), counted(place.log))


def is_whole(entry):
    """Of a cache: a verdict that was written to its end."""
    if entry.suffix != ".json":
        return entry.name == "CACHEDIR.TAG" and entry.read_bytes().endswith(b"any time.\n")
    try:
        return "skipped" in json.loads(entry.read_bytes())
    except ValueError:
        return False


def went_wrong(place):
    """Whether strace had that call to tamper with: it counts those of each thread, which differ from run to run."""
    return "(INJECTED)" in place.log.read_text(errors="replace")


def wrong_in(place, job, clean, done, call, what):
    """What may not be, after a run of which `call` went wrong."""
    wrong, killed = [], what == "signal=SIGKILL"
    (out, report), same = place.found(), done.returncode == clean.done.returncode
    left = [p.name for p in place.there.iterdir() if p.name not in ("out", "report", "summary", "cache")]
    cache = place.there / "cache"
    entries = [p.name for p in cache.iterdir()] if cache.is_dir() else []
    left += [name for name in entries if name.startswith(".")]
    if not all(is_whole(cache / name) for name in entries if not name.startswith(".")):
        wrong.append("a torn verdict")
    said = "is left as" in done.stderr
    if out not in (clean.before[0], clean.after[0]):
        wrong.append("half an output")
    if report not in (clean.before[1], clean.after[1]):
        wrong.append("a torn report")
    if left and not killed and not said:
        wrong.append(f"left {left}")
    if place.state() != place.inputs:
        wrong.append("an input is not what it was")
        place.inputs = place.state()
    if "signal" in what:
        return wrong
    if done.returncode not in (0, 1, 2):
        wrong.append(f"ended with {done.returncode}")
    if "internal error" in done.stderr:
        wrong.append("an internal error")
    if done.returncode == 2:
        if not done.stderr and "FMT021" not in done.stdout and call != "write":
            wrong.append("not a word")
        if out != clean.before[0] and not job.kept:
            wrong.append("an output in spite of the failure")
    elif "not kept in the cache" in done.stdout:
        pass  # said, and no answer is another
    elif not same or done.stdout != clean.done.stdout or place.found() != clean.after:
        wrong.append(f"exit {done.returncode} with another answer")
    elif call in FATAL and went_wrong(place):
        wrong.append("a failure passed over")
    return wrong


def numbered(clean, start):
    """(call, what, number) of everything that can happen to a job."""
    for call, errors in FAULTS.items():
        first = 1 + start[call] if call in LOADER else 1
        for number in range(first, clean.counts[call] + 1):
            yield from ((call, f"error={error}", number) for error in errors)
    for signal, calls in KILLS.items():
        for call in calls:
            yield from ((call, f"signal={signal}", number) for number in range(1, clean.counts[call] + 1))


def sample(cases, runs):
    """`runs` of the cases: of every job and call some, the first and the last first."""
    groups = collections.defaultdict(list)
    for case in cases:
        groups[case[0].name, case[1], case[2]].append(case)
    out, share = [], 1
    while runs and len(out) < runs and len(out) < len(cases):
        out, share = [], share + 1
        for group in groups.values():
            picked = sorted({i * (len(group) - 1) // (share - 1) for i in range(share)})
            out += [group[i] for i in picked]
    return (out if len(out) <= runs else [out[i * len(out) // runs] for i in range(runs)]) if runs else cases


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("tools", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    if shutil.which("strace") is None:
        skip("strace is not installed")
    binary = (arguments.tools / "lora-convert").read_bytes()
    if re.search(rb"__[at]san_init", binary):
        skip("a sanitizer's own system calls would fail")
    if b"__gcov_exit" in binary:
        skip("the counts of every later process would be lost with the file that a failed call leaves")
    return arguments


def main():
    arguments = parse_arguments()
    jobs = [job for job in JOBS if arguments.only in job.name]
    tally, faults, lock = collections.Counter(), [], threading.Lock()
    with tempfile.TemporaryDirectory() as folder:
        tools, data = arguments.tools.resolve(), arguments.data.resolve()
        workers = os.cpu_count() or 1
        places = [Place(tools, data, pathlib.Path(folder) / str(i)) for i in range(workers)]
        places[0].run("lora-convert --version", ["-e", "trace=" + ",".join(FAULTS)])
        start = counted(places[0].log) if places[0].log.exists() else skip("strace does not run here")
        clean = {job.name: clean_run(places[0], job) for job in jobs}
        cases = [(job, *what) for job in jobs for what in numbered(clean[job.name], start)]
        chosen = sample(cases, arguments.runs)

        def run_case(case):
            job, call, what, number = case
            with lock:
                place = places.pop()
            place.prepare(job)
            done = place.run(job.command, ["-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}"])
            wrong = wrong_in(place, job, clean[job.name], done, call, what)
            outcome = "killed" if "signal" in what else "refused" if done.returncode == 2 else (
                "without consequence" if went_wrong(place) else "not reached")
            with lock:
                places.append(place)
                tally[outcome] += 1
                if wrong:
                    faults.append(f"{job.name}: {call} number {number}, {what}: {'; '.join(wrong)}\n    {done.stderr.strip()}")

        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(run_case, chosen))
    print(f"{len(chosen)} of {len(cases)} runs of {len(jobs)} jobs ({', '.join(f'{n} {what}' for what, n in sorted(tally.items()))}), "
          f"{len(faults)} faults")
    print("\n".join(sorted(faults)))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
