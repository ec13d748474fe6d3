#!/usr/bin/env python3
"""CPU time and peak memory of the tools on inputs that are large or hostile, against their limits.

    trust_bench.py BUILD/bin FOLDER [--baseline OTHER/bin] [--rounds N] [--only WORD]

Makes the inputs in FOLDER where they are missing (2 GB): a Qwen3-30B-A3B adapter with every expert (36,864
tensors, r = 16), configs whose rank_pattern is a bomb on the same names at r = 1, headers of as many empty
tensors as are read and of 940,000, and files of log-probabilities. Medians of user + system seconds and of
peak RSS; a row that breaks its limit ends in "!".
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import struct
import subprocess

CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 16, "lora_alpha": 32, "bias": "none",
          "target_modules": ["gate_proj", "up_proj", "down_proj"], "base_model_name_or_path": "Qwen/Qwen3-30B-A3B"}
SIZES = {"down_proj": (768, 2048), "gate_proj": (2048, 768), "up_proj": (2048, 768)}
MIB = 1 << 20


def expert_name(layer, expert, projection, side):
    return f"base_model.model.model.layers.{layer}.mlp.experts.{expert}.{projection}.lora_{side}.weight"


def qwen(rank):
    entries, at = {"__metadata__": {"format": "pt"}}, 0
    places = [(layer, expert, p, side) for layer in range(48) for expert in range(128) for p in SIZES for side in "AB"]
    for place in sorted(places, key=lambda at: expert_name(*at)):
        of_in, out = SIZES[place[2]]
        shape = [rank, of_in] if place[3] == "A" else [out, rank]
        entries[expert_name(*place)] = {"dtype": "BF16", "shape": shape,
                                        "data_offsets": [at, at := at + 2 * shape[0] * shape[1]]}
    return entries


def empty(name, count):
    return {name(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(count)}


def adapter(folder, entries, values=None, **config):
    if folder.exists():
        return
    folder.mkdir(parents=True)
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    left = max(entry.get("data_offsets", [0, 0])[1] for entry in entries.values())
    with open(folder / "adapter_model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if values is None:
            file.truncate(file.tell() + left)  # sparse zeros
        while values and left > 0:
            left -= file.write(values[:left])
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))


def noise():
    """BF16 values of a few hundredths."""
    out = bytearray(random.Random(1).randbytes(MIB))
    out[1::2] = bytes(byte & 0x80 | 0x3C for byte in out[1::2])
    return bytes(out)


def keys(make, count=None):
    """So many keys, or as many as make 1 MiB of config."""
    out, size = {}, 0
    while len(out) < count if count else size < MIB - 1000:
        out[make(len(out))] = 4
        size += len(make(len(out) - 1)) + 6
    return out


def dotted(i):
    return "".join("." if i >> bit & 1 else "experts.1.gate_proj"[bit] for bit in range(19))


BOMBS = {
    "100 regex keys": (keys(lambda i: f".*(a|b|c)*.*{i}.*z", 100), 1),
    "100 keys with look-around": (keys(lambda i: f"(?!.*zz).*(a|b|c)*.*{i}.*z", 100), 3),
    "1 MiB of regex keys": (keys(lambda i: f".*(a|b|c)*.*{i}.*j"), 3),
    "1 MiB of keys with look-around": (keys(lambda i: f"(?=.*(a|b|c)*.*{i}.*j).*"), 3),
    "1 MiB of plain keys, dots anywhere": (keys(dotted), 3),
    "1 MiB of plain keys": (keys(lambda i: f"layers.{i}.mlp.experts.7.gate_proj"), 3),
}


def numbers(path, count, line):
    if path.exists():
        return
    rng = random.Random(2)
    with open(path, "w") as file:
        line(file, (f"{-rng.expovariate(1):.12f}" for _ in range(count)))


def flat(file, values):
    file.write("[" + ",\n".join(values) + "]")


def unknown(file, values):
    file.writelines(f'{{"id": {i}, "score": {value}, "why": ["a", "b"]}}\n' for i, value in enumerate(values))


def table(file, values):
    file.write("token_id,logprob_a,logprob_b\n")
    file.writelines(f"{i % 50000},{a},{next(values)}\n" for i, a in enumerate(values))


def inputs(folder):
    adapter(folder / "qwen", qwen(16), noise())
    small = qwen(1)
    for name, (bomb, _) in BOMBS.items():
        adapter(folder / name.replace(" ", "_"), small, r=1, rank_pattern=bomb)
    kinds = [(layer, e, p, s) for layer in range(400) for e in range(128) for p in SIZES for s in "AB"]
    adapter(folder / "most", empty(lambda i: expert_name(*kinds[i]), 1 << 18))
    adapter(folder / "940000", empty(lambda i: f"tensor.with.the.longer.name.of.no.adapter.{i:07d}", 940_000))
    numbers(folder / "flat.json", 1_200_000, flat)
    numbers(folder / "unknown.jsonl", 500_000, unknown)
    numbers(folder / "scores.csv", 600_000, table)


def cases(folder):
    """Name, command, seconds and MB at most (0: none), MB of input that they are for."""
    weights = "adapter_model.safetensors"
    server = ["--engine", "sglang", "--threads", "1"]
    yield "inspect, 36,864 tensors", ["lora-convert", "inspect", folder / "qwen"], 0, 0
    yield "validate, headers", ["lora-validate", folder / "qwen", "--no-values", *server], 0, 0
    yield "validate, values", ["lora-validate", folder / "qwen", *server], 0, 0
    for name, (_, seconds) in BOMBS.items():
        yield name, ["lora-validate", folder / name.replace(" ", "_"), "--no-values", "--threads", "1"], seconds, 0
    for name in ("most", "940000"):
        header = (folder / name / weights).stat().st_size / 1e6
        for tool in (["lora-convert", "inspect"], ["lora-convert", "inspect", "--format", "json"],
                     ["lora-validate", "--threads", "1"], ["lora-validate", "--format", "sarif", "--threads", "1"]):
            yield f"{name} empty tensors, {' '.join(tool)}", [*tool, folder / name], 3, 1.2 * header + 256
    for name, more in (("flat.json", []), ("unknown.jsonl", []), ("scores.csv", ["--format", "json", "--with-scores"])):
        size = (folder / name).stat().st_size / 1e6
        sides = [folder / name] * (1 if name.endswith("csv") else 2)
        yield name, ["lora-diff", "logprobs", *sides, *more], 0, 3 * size + 64


def measured(binaries, command):
    with open(os.devnull, "w") as nowhere:
        child = subprocess.Popen([binaries / command[0], *map(str, command[1:])], stdout=nowhere, stderr=nowhere)
        _, _, used = os.wait4(child.pid, 0)
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--baseline", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    o = parser.parse_args()
    inputs(o.folder)
    print("| case | CPU s | peak MB | limits: s, MB | baseline: CPU s | peak MB | ratio of CPU |\n|---|---|---|---|---|---|---|")
    for name, command, seconds, most in cases(o.folder):
        if o.only not in name:
            continue
        cpu, peak = (statistics.median(column) for column in zip(*(measured(o.binaries, command) for _ in range(o.rounds))))
        before = measured(o.baseline, command) if o.baseline else None
        broken = "!" if (seconds and cpu > seconds) or (most and peak > most) else ""
        old = f"{before[0]:.2f} | {before[1]:.0f} | {cpu / before[0]:.2f}" if before else " | | "
        print(f"| {name} | {cpu:.3f} | {peak:.0f} | {seconds or ''}, {most and round(most) or ''} | {old} | {broken}", flush=True)


if __name__ == "__main__":
    main()
