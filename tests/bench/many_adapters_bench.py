#!/usr/bin/env python3
"""Times lora-validate on a tree of adapters of one base, for two servers, on as many cores as it has threads.

    many_adapters_bench.py BIN FOLDER [--adapters N] [--rounds N] [--threads N] [--only WORDS]

BIN holds lora-convert and lora-validate. Makes its inputs in FOLDER: a base folder with the config of Qwen3-30B-A3B and the
headers of all its weights (a sparse file), and N adapters of it, attention at rank 8 (384 tensors, 13 MB), each a folder
with a config of its own; their weights are hard links to one file, so that reading them is not the disk's time. In the
tree "mixed" one in fifteen holds stacked experts instead, which SGLang refuses and for which a repair is worked out. "small" is
such a mixture of the adapters in examples/data, of a GPT-OSS of two layers. Prints what RESULTS.md holds: date, machine, command, a
Markdown table (median and range of the wall time, CPU time, peak memory, lines of the report, exit status), and whether the goal
holds: 1,000 of one base in at most 10 s on 2 cores. That the base is read once, many_adapters_test.cpp checks.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
QWEN = "Qwen/Qwen3-30B-A3B"
GOAL = (1000, 10.0)  # adapters and seconds, of the jobs that are judged by it
JUDGED_BY_IT = ("sound, names and shapes", "sound")


def write_base(folder):
    """The hub's names and shapes of Qwen3-30B-A3B; no value is ever read."""
    builtin = [json.loads(p.read_text()) for p in (ROOT / "schemas/builtin_models").glob("*.json")]
    config = next(model["config"] for model in builtin if QWEN in model["names"])
    hidden, heads, kv = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    dim, inner, experts = config["head_dim"], config["moe_intermediate_size"], config["num_experts"]
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "lm_head.weight": [config["vocab_size"], hidden],
              "model.norm.weight": [hidden]}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for name, rows in (("q", heads * dim), ("k", kv * dim), ("v", kv * dim)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = [rows, hidden]
        shapes[f"{at}self_attn.o_proj.weight"] = [hidden, heads * dim]
        shapes[f"{at}mlp.gate.weight"] = [experts, hidden]
        for expert in range(experts):
            for name, shape in (("gate", [inner, hidden]), ("up", [inner, hidden]), ("down", [hidden, inner])):
                shapes[f"{at}mlp.experts.{expert}.{name}_proj.weight"] = shape
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)


def write_tree(folder, sources, count, every):
    """`count` adapters, every `every`-th (0: none) of the second source."""
    for i in range(count):
        source = sources[1 if every and i % every == 0 else 0]
        adapter = folder / f"run-{i % 10}" / f"checkpoint-{i}"
        adapter.mkdir(parents=True)
        os.link(source / "adapter_model.safetensors", adapter / "adapter_model.safetensors")
        config = json.loads((source / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "revision": f"r{i}"}))


def timed(command, report):
    start = time.monotonic()
    with open(report, "wb") as out:
        child = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out)
        _, status, used = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3, child.returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    cores = sorted(os.sched_getaffinity(0))[:given.threads]
    os.sched_setaffinity(0, cores)
    base = given.folder / "base"
    write_base(base)
    sources = []
    for targets, layout in (("attention", "peft-linear"), ("experts", "peft-params")):
        sources.append(given.folder / targets)
        subprocess.run([given.bin / "lora-convert", "init", sources[-1], "--base", base, "--rank", "8", "--targets", targets,
                        "--to", layout, "--random-b", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    write_tree(given.folder / "sound", sources, given.adapters, 0)
    write_tree(given.folder / "mixed", sources, given.adapters, 15)
    data = ROOT / "examples/data"
    for i in range(given.adapters):
        name = "gpt_oss_adapter" if i % 15 == 0 else "gpt_oss_attention"
        shutil.copytree(data / name, given.folder / "small" / f"run-{i % 10}" / f"checkpoint-{i}")
    command = [given.bin / "lora-validate", "-r", "--engine", "sglang", "--engine", "vllm", "--threads",
               given.threads, "--quiet"]
    cache = given.folder / "cache"
    jobs = [("small", ["small"]), ("sound, names and shapes", ["sound", "--no-values"]), ("sound", ["sound"]),
            ("sound, --cache, first", ["sound", "--cache", cache]), ("sound, --cache, again", ["sound", "--cache", cache]),
            ("mixed", ["mixed"]), ("mixed, JSON", ["mixed", "--format", "json"])]
    if given.only:
        jobs = [job for job in jobs if given.only in job[0]]
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {len(cores)} CPUs, load {os.getloadavg()[0]:.1f}; "
          f"`{' '.join(['python3', *sys.argv])}`: SGLang and vLLM, {given.rounds} rounds, page cache warm\n")
    print(f"| {given.adapters} adapters | s | CPU s | peak MB | lines | exit |\n|---|---|---|---|---|---|")
    reached = []
    for name, arguments in jobs:
        runs = []
        for _ in range(given.rounds):
            if name.endswith("first"):
                shutil.rmtree(cache, ignore_errors=True)
            of = data / "gpt_oss_base" if name == "small" else base
            runs.append(timed([*command, "--base", of, given.folder / arguments[0], *arguments[1:]], given.folder / "report"))
        walls = [run[0] for run in runs]
        lines = (given.folder / "report").read_bytes().count(b"\n")
        print(f"| {name} | {statistics.median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f}) | "
              f"{statistics.median(run[1] for run in runs):.2f} | {max(run[2] for run in runs):.0f} | {lines} | {runs[0][3]} |",
              flush=True)
        if name in JUDGED_BY_IT and given.adapters == GOAL[0]:
            reached.append(f"{name}: {'holds' if statistics.median(walls) <= GOAL[1] else 'does not hold'}")
    if reached:
        print(f"\nGoal of {GOAL[1]:g} s for {GOAL[0]} on 2 cores: {'; '.join(reached)}.")


if __name__ == "__main__":
    main()
