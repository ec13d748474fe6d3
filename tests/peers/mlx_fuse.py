#!/usr/bin/env python3
"""Holds lora-convert against mlx-lm's own load_adapters() and fuse(), both ways.

    mlx_fuse.py BUILD [LORA_CONVERT]

BUILD: a build folder with bin/lora-convert and test_data. Needs mlx-lm 0.32.2, mlx[cpu], numpy, safetensors.

read:  what mlx-lm saved (test_data/dialect_mlx, and DoRA and an embedding made here), fused by mlx-lm, minus the base;
       against scale * B A, or DoRA's formula, of what `--to stacked` wrote.
write: what PEFT saved (the goldens with deltas in fp64), written with `--to mlx`, loaded and fused by mlx-lm, minus
       the base; against PEFT's deltas. What lora-convert refuses is listed.
again: what was written, converted to stacked and back, is the same file.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.tuner import utils as tuner
from safetensors.numpy import load_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data"))
import pack_dialect_mlx as pack  # noqa: E402

BUILD = sys.argv[1]
CONVERT = sys.argv[2] if len(sys.argv) > 2 else BUILD + "/bin/lora-convert"
pack.DATA = BUILD + "/test_data"
TOLERANCE = 1e-5  # of the largest element: mlx computes in fp32


def convert(source, out, base, to):
    """None, or why it was refused."""
    run = subprocess.run([CONVERT, "adapter", source, out, "--to", to, "--base", f"{pack.DATA}/{base}", "--verify"],
                         capture_output=True, text=True)
    return None if run.returncode == 0 else run.stderr.strip().splitlines()[-2:][0]


def error(found, expected):
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def inner(module):
    return module["linear"] if "linear" in module else module["embedding"]


def fused_deltas(model):
    """By mlx-lm's names. DoRA changes weights by what they are: the base stays."""
    out, fused = {}, []
    for name, module in model.named_modules():
        if hasattr(module, "fuse") and "lora_a" in module:
            weight = module.fuse().weight
            fused.append((name, module.fuse()))
            out[name] = np.array(weight).astype(np.float64) - np.array(inner(module).weight).astype(np.float64)
    model.update_modules(tree_unflatten(fused))  # as mlx_lm.fuse does
    return out


def load(folder, base, weights=None):
    model, _ = pack.make_model(base)
    if weights is not None:
        model.load_weights(weights, strict=False)
    kept = list(tree_flatten(model.parameters()))
    for name, module in model.named_modules():  # so that the delta is not lost in rounding
        if weights is None and "weight" in module and isinstance(module, pack.LORA):
            module.weight = mx.zeros_like(module.weight)
    model = tuner.load_adapters(model, folder)
    for _, module in model.named_modules():  # fuse() multiplies in the factors' type
        if "lora_a" in module:
            module.lora_a, module.lora_b = module.lora_a.astype(mx.float32), module.lora_b.astype(mx.float32)
    return model, kept


def factors(folder):
    """(module, side) -> fp64 of a folder of PEFT's; and scale."""
    config = json.load(open(folder + "/adapter_config.json"))
    assert not config.get("rank_pattern") and not config.get("alpha_pattern")
    tensors = load_file(folder + "/adapter_model.safetensors")
    out = {}
    for name, tensor in tensors.items():
        path, _, end = name.removeprefix("base_model.model.").rpartition(".lora_")
        out.setdefault(path, {})[end.removesuffix(".weight")] = tensor.astype(np.float64)
    return out, config["lora_alpha"] / config["r"]


def stacked_name(mlx, hub):
    """What --to stacked calls a module."""
    if not hub.startswith("experts "):
        return hub
    layer = re.search(r"layers\.\d+\.", mlx)
    return layer.group(0), hub.split()[1]


def deltas_of_peft(folder, names):
    """By mlx-lm's names."""
    parts, scale = factors(folder)
    by_name = {}
    for path, sides in parts.items():
        expert = re.search(r"(layers\.\d+\.)(?:.*\.)?experts\.(\w+)$", path)
        by_name[(expert.group(1), expert.group(2)) if expert else path] = sides
    out = {}
    for mlx, hub in names.items():
        sides = by_name.pop(stacked_name(mlx, hub), None)
        if sides is None and not hub.startswith("experts "):
            sides = by_name.pop(hub.replace("block_sparse_moe", "mlp"), None)
        if sides is None:
            continue
        if "embedding_A" in sides:
            out[mlx] = scale * (sides["embedding_B"] @ sides["embedding_A"]).T
        else:
            out[mlx] = scale * sides["B"] @ sides["A"]
        if "magnitude_vector" in sides:
            out[mlx] = out[mlx], sides["magnitude_vector"]
    assert not by_name, by_name.keys()
    return out


def compare(title, found, expected):
    assert found.keys() == expected.keys(), (title, found.keys() ^ expected.keys())
    worst = max(error(found[name], expected[name]) for name in expected)
    print(f"{title}: {len(expected)} modules, worst relative error {worst:.1e}")
    assert worst <= TOLERANCE, title
    return worst


# ---- read -----------------------------------------------------------------------------------------------------------


def check_read(temp):
    root, worst = pack.DATA + "/dialect_mlx", []
    for case in sorted(os.listdir(root)):
        if not os.path.isdir(f"{root}/{case}"):
            continue
        base = json.load(open(f"{root}/{case}/case.json"))["base"]
        adapter, out = f"{root}/{case}/adapter", f"{temp}/read_{case}"
        refused = convert(adapter, out, base, "stacked")
        assert refused is None, refused
        names = pack.names_of_golden(pack.make_model(base)[0], base)
        expected = deltas_of_peft(out, names)
        if case.endswith("_flat"):  # load_adapters of today wants [E, r, in]: reshaped as 0.27's fuse() did
            adapter = reshaped(adapter, temp)
        worst.append(compare("read " + case, fused_deltas(load(adapter, base)[0]), expected))
    return worst


def reshaped(adapter, temp):
    os.makedirs(temp + "/flat")
    tensors = mx.load(adapter + "/adapters.safetensors")
    for name, b in list(tensors.items()):
        if name.endswith("lora_b") and b.ndim == 3:
            a = name[:-1] + "a"
            tensors[a] = tensors[a].reshape(b.shape[0], -1, tensors[a].shape[-1])
    mx.save_safetensors(temp + "/flat/adapters.safetensors", tensors)
    json.dump(json.load(open(adapter + "/adapter_config.json")), open(temp + "/flat/adapter_config.json", "w"))
    return temp + "/flat"


def trained(base, keys, temp, name, kind="lora", rank=4, scale=3.0):
    """A folder of mlx-lm's with random factors, and the base's parameters."""
    mx.random.seed(1)
    model, _ = pack.make_model(base)
    kept = [(k, v) for k, v in tree_flatten(model.parameters())]
    model.freeze()
    parameters = {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys}
    tuner.linear_to_lora_layers(model, -1, parameters, use_dora=kind == "dora")
    for _, module in model.named_modules():
        if "lora_a" in module:
            module.lora_b = 0.1 * mx.random.normal(module.lora_b.shape)
        if "m" in module:
            module.m = module.m * (1 + 0.2 * mx.random.normal(module.m.shape))
    folder = f"{temp}/{name}"
    os.makedirs(folder)
    mx.save_safetensors(folder + "/adapters.safetensors", dict(tree_flatten(model.trainable_parameters())))
    json.dump({"fine_tune_type": kind, "num_layers": -1, "lora_parameters": parameters},
              open(folder + "/adapter_config.json", "w"))
    return folder, kept


def check_dora(temp):
    base = "family_goldens/llama/base"
    folder, kept = trained(base, ["self_attn.q_proj", "mlp.down_proj"], temp, "dora", "dora")
    out = temp + "/dora_stacked"
    refused = convert(folder, out, base, "stacked")
    assert refused is None, refused
    names = pack.names_of_golden(pack.make_model(base)[0], base)
    weights, expected = dict(kept), {}
    for name, (delta, magnitude) in deltas_of_peft(out, names).items():  # peft/tuners/lora/dora.py
        w = np.array(weights[name + ".weight"]).astype(np.float64)
        sum_ = w + delta
        expected[name] = (magnitude / np.linalg.norm(sum_, axis=1))[:, None] * sum_ - w
    worst = [compare("read DoRA", fused_deltas(load(folder, base, kept)[0]), expected)]
    refused = convert(out, temp + "/dora_mlx", base, "mlx")
    assert refused is None, refused
    return worst + [compare("write DoRA", fused_deltas(load(temp + "/dora_mlx", base, kept)[0]), expected)]


def check_embedding(temp):
    base = "family_goldens/llama/base"
    folder, _ = trained(base, ["model.embed_tokens", "self_attn.q_proj"], temp, "embedding")
    out = temp + "/embedding_stacked"
    refused = convert(folder, out, base, "stacked")
    assert refused is None, refused
    names = pack.names_of_golden(pack.make_model(base)[0], base)
    expected = deltas_of_peft(out, names)
    worst = [compare("read embedding", fused_deltas(load(folder, base)[0]), expected)]
    refused = convert(out, temp + "/embedding_mlx", base, "mlx")
    assert refused is None, refused
    return worst + [compare("write embedding", fused_deltas(load(temp + "/embedding_mlx", base)[0]), expected)]


def check_no_gate(temp):
    base = "catalogue/nemotron_h"  # experts without a gate: fc1 and fc2
    folder, _ = trained(base, ["mixer.switch_mlp.fc1", "mixer.switch_mlp.fc2"], temp, "no_gate")
    out = temp + "/no_gate_stacked"
    refused = convert(folder, out, base, "stacked")
    assert refused is None, refused
    expected = deltas_of_peft(out, pack.names_of(base)["modules"])
    worst = [compare("read nemotron_h", fused_deltas(load(folder, base)[0]), expected)]
    refused = convert(out, temp + "/no_gate_mlx", base, "mlx")
    assert refused is None, refused
    return worst + [compare("write nemotron_h", fused_deltas(load(temp + "/no_gate_mlx", base)[0]), expected)]


# ---- write ----------------------------------------------------------------------------------------------------------


def goldens():
    """(adapter, base, answer) of what PEFT saved and answered in fp64."""
    families = [(f, f) for f in ("qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "glm4_moe", "qwen2_moe")]
    families += [("family_goldens/" + f, f) for f in sorted(os.listdir(pack.DATA + "/family_goldens"))]
    for folder, family in families:
        for file in sorted(os.listdir(f"{pack.DATA}/{folder}")):
            stem = file.removesuffix(".expect.safetensors")
            if stem == file or stem in ("base", "dora_attention") or not os.path.isdir(f"{pack.DATA}/{folder}/{stem}"):
                continue
            answer = f"{pack.DATA}/{folder}/{file}"
            if any(name.startswith("delta.") for name in load_file(answer)):  # else answered by hand
                yield f"{pack.DATA}/{folder}/{stem}", folder + "/base", answer


def expected_deltas(answer, names, family):
    """PEFT's deltas by mlx-lm's names, those of all zeros left out."""
    by_hub, experts = {}, {}
    for mlx, hub in names.items():
        if hub.startswith("experts "):
            experts[(int(re.search(r"layers\.(\d+)", mlx).group(1)), hub.split()[1])] = mlx
        else:
            by_hub[hub] = by_hub[hub.replace("block_sparse_moe", "mlp")] = mlx
    out = {}
    for name, delta in load_file(answer).items():
        if not name.startswith("delta.") or delta.ndim == 1:
            continue
        delta, path = delta.astype(np.float64), name.removeprefix("delta.").removesuffix(".weight")
        expert = re.search(r"layers\.(\d+)\.(?:.*\.)?experts\.(gate_up_proj|down_proj)$", path)
        if not expert:
            out[by_hub[path]] = delta
            continue
        layer = int(expert.group(1))
        if family in ("gpt_oss", "llama4_text"):
            delta = delta.swapaxes(1, 2)  # [E, in, out] in memory
        if expert.group(2) == "down_proj":
            out[experts[(layer, "down_proj")]] = delta
            continue
        half = delta.shape[1] // 2
        gate, up = (delta[:, 0::2], delta[:, 1::2]) if family == "gpt_oss" else (delta[:, :half], delta[:, half:])
        out[experts[(layer, "gate_proj")]], out[experts[(layer, "up_proj")]] = gate, up
    return {name: delta for name, delta in out.items() if np.any(delta)}


def check_write(temp):
    worst, refusals = [], {}
    for i, (adapter, base, answer) in enumerate(goldens()):
        family, title = base.split("/")[-2], adapter.removeprefix(pack.DATA + "/")
        out = f"{temp}/write_{i}"
        refused = convert(adapter, out, base, "mlx")
        if refused is not None:
            refusals.setdefault(re.sub(r"\d+", "N", refused), []).append(title)
            continue
        names = pack.names_of_golden(pack.make_model(base)[0], base)
        found = {name: delta for name, delta in fused_deltas(load(out, base)[0]).items() if np.any(delta)}
        worst.append(compare("write " + title, found, expected_deltas(answer, names, family)))
        again(out, base, f"{temp}/again_{i}")
    for line, titles in refusals.items():
        print(f"refused ({len(titles)}, {titles[0]} ...): {line}")
    return worst, sum(len(t) for t in refusals.values())


def again(folder, base, temp):
    for source, out, to in ((folder, temp + "_stacked", "stacked"), (temp + "_stacked", temp, "mlx")):
        refused = convert(source, out, base, to)
        assert refused is None, refused
    for name in ("adapters.safetensors", "adapter_config.json"):
        assert open(f"{folder}/{name}", "rb").read() == open(f"{temp}/{name}", "rb").read(), (folder, name)


def main():
    with tempfile.TemporaryDirectory() as temp:
        read = check_read(temp) + check_dora(temp) + check_embedding(temp) + check_no_gate(temp)
        written, refused = check_write(temp)
    print(f"{len(read)} checks of reading, DoRA and embeddings, worst {max(read):.1e}; {len(written)} adapters of PEFT "
          f"written for mlx-lm, worst {max(written):.1e}, each the same after stacked and back; {refused} refused")


main()
