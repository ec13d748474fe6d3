"""A base model's weights under one set of names, whatever the family stores.

Names are those of the hub, but for routed experts: P.gate_proj, P.up_proj [E, I, H] and P.down_proj
[E, H, I] with P = model.layers.N.mlp.experts, and their biases P.gate_proj_bias [E, I] and so on.
"""

import re

import numpy as np

from . import files

NUMBERED = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")
FUSED = re.compile(r"(.*\.experts)\.gate_up_proj(_bias)?")
DOWN = re.compile(r".*\.experts\.down_proj")


def interleaves(config):
    """gpt-oss has gate and up in turns, every other family one after the other."""
    return config["model_type"] == "gpt_oss"


def split_gate_up(rows, config):
    """[..., 2I, H] or, of a bias, [..., 2I] along the axis of 2I; the caller says which by its shape."""
    if interleaves(config):
        return rows[:, 0::2], rows[:, 1::2]
    half = rows.shape[1] // 2
    return rows[:, :half], rows[:, half:]


def decode_mxfp4(weights):
    """Packed experts are [E, out, in] on disk, and the bf16 ones of the same family [E, in, out]."""
    decoded = {name: t for name, t in weights.items() if not name.endswith(("_blocks", "_scales"))}
    for name, blocks in weights.items():
        if name.endswith("_blocks"):
            stem = name[: -len("_blocks")]
            decoded[stem] = files.mxfp4(blocks, weights[stem + "_scales"]).swapaxes(1, 2)
    return decoded


def stack_numbered(weights):
    found, rest = {}, {}
    for name, tensor in weights.items():
        match = NUMBERED.fullmatch(name)
        if match:
            found.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = tensor
        else:
            rest[name] = tensor
    for name, experts in found.items():
        rest[name] = np.stack([experts[e] for e in range(len(experts))])
    return rest


def split_fused(weights, config):
    split = {}
    for name, tensor in weights.items():
        match = FUSED.fullmatch(name)
        if match:
            bias = match[2] or ""
            rows = tensor if bias else tensor.swapaxes(1, 2)
            split[f"{match[1]}.gate_proj{bias}"], split[f"{match[1]}.up_proj{bias}"] = split_gate_up(rows, config)
        else:
            split[name] = tensor.swapaxes(1, 2) if DOWN.fullmatch(name) else tensor
    return split


def load(folder, changes=None):
    """(config, name -> fp64 array); changes replace keys of the config."""
    config = files.read_config(folder, "config.json") | (changes or {})
    weights = decode_mxfp4(files.read_folder(folder, "model"))
    if config["model_type"] == "gpt_oss":
        weights = split_fused(weights, config)
    return config, stack_numbered(weights)
