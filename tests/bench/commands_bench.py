#!/usr/bin/env python3
"""Times whole commands against cp and dd on the same bytes, and against another build of the tools.

    commands_bench.py BIN FOLDER [--baseline BIN] [--rounds N] [--only WORDS] [--threads N]

BIN holds lora-convert, lora-validate and lora-diff. Makes its inputs in FOLDER (fresh adapters with random factors for
Qwen3-30B-A3B, rank 16: 36,864 tensors; gpt-oss-20b; four MXFP4 layers of gpt-oss-20b) and runs each job once per round
and contender, in turn, from a warm page cache into new files; the first round is thrown away. Without fsync unless the job
says so. Prints a Markdown table: median and range of the wall time, CPU time, peak memory, and how many times as long
cp of the output (dd direct where that is faster) and the baseline take.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import time

QWEN, GPT_OSS = "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b"


@dataclasses.dataclass
class Measured:
    wall: float
    cpu: float
    peak_mb: float


@dataclasses.dataclass
class Job:
    name: str
    tool: str
    arguments: list
    out: bool = False  # writes FOLDER/out, to be compared with cp of what that holds
    sync: bool = False
    exits: tuple = (0,)


def timed(command, exits=(0,)):
    start = time.monotonic()
    child = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
    message = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in exits:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {child.returncode}: {message.decode()[-500:]}")
    return Measured(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3)


def write_mxfp4_base(folder, layers):
    """Layers of gpt-oss-20b as its checkpoint has them; the values do not matter."""
    rows, hidden, experts = 5760, 2880, 32
    header, at = {}, 0
    for layer in range(layers):
        stem = f"model.layers.{layer}.mlp.experts."
        for name, shape, dtype, width in (
                ("gate_up_proj_blocks", [experts, rows, hidden // 32, 16], "U8", 1),
                ("gate_up_proj_scales", [experts, rows, hidden // 32], "U8", 1),
                ("gate_up_proj_bias", [experts, rows], "BF16", 2),
                ("down_proj_blocks", [experts, hidden, hidden // 32, 16], "U8", 1),
                ("down_proj_scales", [experts, hidden, hidden // 32], "U8", 1),
                ("down_proj_bias", [experts, hidden], "BF16", 2)):
            size = width
            for extent in shape:
                size *= extent
            header[stem + name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    folder.mkdir()
    block = bytes(range(96, 128)) * (1 << 15)  # scales between 2^-31 and 1
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for begin in range(0, at, len(block)):
            file.write(block[:at - begin])
    config = {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_hidden_layers": layers,
              "hidden_size": hidden, "intermediate_size": hidden, "num_local_experts": experts,
              "num_experts_per_tok": 4, "head_dim": 64, "num_attention_heads": 64, "num_key_value_heads": 8,
              "vocab_size": 201088, "quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config))


class Bench:
    def __init__(self, options):
        self.o = options
        self.folder = pathlib.Path(options.folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.out, self.copy = self.folder / "out", self.folder / "copy"
        self.threads = ["--threads", options.threads]

    def made(self, name, command, options):
        path = self.folder / name
        if not path.exists():
            timed([f"{self.o.bin}/lora-convert", *command, path, *options, "--quiet"])
        return path

    def init(self, name, base, layout, rank, *more):
        return self.made(name, ["init"], ["--base", base, "--rank", rank, "--random-b", "--targets", "experts", "--to",
                                          layout, "--dtype", "bf16", *more])

    def jobs(self):
        stacked = self.init("stacked", QWEN, "peft-params", 16)
        linear = self.made("linear", ["adapter", stacked], ["--to", "peft-linear", "--base", QWEN])
        other = self.init("other", QWEN, "peft-linear", 16, "--seed", 2)
        outer = self.init("outer", QWEN, "shared-outer", 32, "--shared-outer")
        fused = self.init("fused", GPT_OSS, "shared-outer", 32, "--shared-outer")
        mxfp4 = self.folder / "mxfp4"
        if not mxfp4.exists():
            write_mxfp4_base(mxfp4, 4)

        def adapter(source, *more, base=QWEN):
            return ["adapter", source, self.out, "--base", base, "--quiet", *self.threads, *more]

        def convert(name, *arguments, **more):
            sync = more.get("sync", False)
            return Job(name, "lora-convert", [*arguments, *([] if sync else ["--no-sync"])], out=True, **more)

        validate = ["--base", QWEN, *self.threads]
        return [
            convert("stacked to per-expert", *adapter(stacked, "--to", "peft-linear")),
            convert("per-expert to stacked", *adapter(linear, "--to", "peft-params")),
            convert("per-expert to itself", *adapter(linear, "--to", "peft-linear")),
            convert("shared outer, rank 32, to per-expert", *adapter(outer, "--to", "peft-linear")),
            convert("gpt-oss-20b, shared outer to stacked", *adapter(fused, "--to", "stacked-fused", base=GPT_OSS)),
            convert("MXFP4 base, 4 layers", "base", mxfp4, self.out, "--to", "per-expert", "--quiet", *self.threads),
            convert("stacked to per-expert, --verify", *adapter(stacked, "--to", "peft-linear", "--verify")),
            convert("stacked to per-expert, fsync", *adapter(stacked, "--to", "peft-linear"), sync=True),
            convert("stacked, --for sglang", *adapter(stacked, "--for", "sglang")),
            Job("inspect", "lora-convert", ["inspect", linear]),
            Job("validate, one engine, headers", "lora-validate", [linear, *validate, "--engine", "sglang", "--no-values"],
                exits=(0, 1)),
            Job("validate, one engine, values", "lora-validate", [linear, *validate, "--engine", "sglang"], exits=(0, 1)),
            Job("validate --numeric", "lora-validate",
                [linear, *validate, "--engine", "sglang", "--numeric", "--device", "cpu"], exits=(0, 1)),
            Job("validate --source --numeric", "lora-validate",
                [linear, *validate, "--source", stacked, "--numeric", "--device", "cpu"], exits=(0, 1)),
            Job("validate --source --numeric --no-forward", "lora-validate",
                [linear, *validate, "--source", stacked, "--numeric", "--no-forward"], exits=(0, 1)),
            Job("diff weights, identical", "lora-diff", ["weights", linear, linear, *validate]),
            Job("diff weights, all different", "lora-diff", ["weights", linear, other, *validate], exits=(0, 1)),
        ]

    def remove_outputs(self):
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.copy, ignore_errors=True)

    def copies(self, job, result):
        """cp and dd of what the job writes: its largest file for dd, all of them for cp."""
        largest = max(result.iterdir(), key=lambda file: file.stat().st_size)
        sync = f" && sync {self.copy}/*" if job.sync else ""
        return {"cp": ["sh", "-c", f"cp -r {result} {self.copy}{sync}"],
                "dd": ["sh", "-c", f"mkdir {self.copy} && dd if={largest} of={self.copy}/file bs=4M oflag=direct"
                                   f"{' conv=fsync' if job.sync else ''} 2>/dev/null"]}

    def contenders(self, job):
        commands = {"ours": [f"{self.o.bin}/{job.tool}", *job.arguments]}
        if self.o.baseline:
            commands["baseline"] = [f"{self.o.baseline}/{job.tool}", *job.arguments]
        if job.out:
            self.remove_outputs()
            timed(commands["ours"])
            result = self.folder / "result"
            shutil.rmtree(result, ignore_errors=True)
            self.out.rename(result)
            commands |= self.copies(job, result)
        return commands

    def run(self, job):
        runs = {}
        for round_number in range(self.o.rounds + 1):
            for contender, command in (commands := self.contenders(job) if round_number == 0 else commands).items():
                self.remove_outputs()
                if job.out:
                    os.sync()
                try:
                    measured = timed(command, job.exits)
                except RuntimeError as error:
                    if contender == "ours":
                        raise
                    runs.setdefault(contender, []).append(None)
                    if round_number == 0:
                        print(f"<!-- {job.name}: {error} -->")
                    continue
                if round_number > 0:
                    runs.setdefault(contender, []).append(measured)
        return runs

    def row(self, job, runs):
        def wall(contender):
            times = [run.wall for run in runs.get(contender, []) if run]
            return statistics.median(times) if times else None

        ours, walls = wall("ours"), [run.wall for run in runs["ours"]]
        copies = [time for time in (wall("cp"), wall("dd")) if time]
        against = f"{min(copies):.2f} ({min(copies) / ours:.2f}x)" if copies else ""
        baseline = f"{wall('baseline'):.2f} ({wall('baseline') / ours:.2f}x)" if wall("baseline") else ""
        cpu = statistics.median(run.cpu for run in runs["ours"])
        peak = max(run.peak_mb for run in runs["ours"])
        return (f"| {job.name} | {ours:.2f} ({min(walls):.2f}-{max(walls):.2f}) | {cpu:.2f} | {peak:.0f} | {against} | "
                f"{baseline} |")

    def print_table(self):
        print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, load "
              f"{os.getloadavg()[0]:.1f}, {self.o.rounds} rounds, --threads {self.o.threads}\n")
        print("| job | s | CPU s | peak MB | better of cp and dd, s | baseline, s |\n|---|---|---|---|---|---|")
        for job in self.jobs():
            if self.o.only in job.name:
                print(self.row(job, self.run(job)), flush=True)
        self.remove_outputs()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("folder")
    parser.add_argument("--baseline", help="a folder with the same tools of another build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="jobs with these words in their names")
    parser.add_argument("--threads", default=len(os.sched_getaffinity(0)))
    Bench(parser.parse_args()).print_table()


if __name__ == "__main__":
    main()
