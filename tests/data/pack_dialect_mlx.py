#!/usr/bin/env python3
"""Makes tests/data/dialect_mlx.tar.xz with mlx-lm's own code.

    pack_dialect_mlx.py TEST_DATA OUT [OLD_LORA_PY]

TEST_DATA: BUILD/test_data. OUT: the folder dialect_mlx that is made. Needs mlx-lm 0.32.2 and mlx[cpu].
OLD_LORA_PY: mlx_lm/tuner/lora.py of mlx-lm 0.27.0, whose SwitchLinear keeps A of all experts as one matrix.

CASE/adapter: what mlx_lm.lora leaves behind (tuner/utils.py linear_to_lora_layers, tuner/trainer.py
mx.save_safetensors of the trainable parameters, utils.py save_config), of a tiny model made by mlx-lm's own class
of a base's config. CASE/expect.safetensors: scale * B A of every module in fp64, in PEFT's in-memory names; checked
here against the module's own fuse() minus its weight. Factors are small multiples of 1/8, so that everything is
exact and compresses.

names.json: of every family that mlx-lm has a class for, which module of the hub's each of its modules that takes LoRA
is made of: tensors of distinct values go through the class's sanitize(), and are found again by value. "takes": what
takes LoRA below a layer, those too that the checkpoint of the tiny model lacks.
"""
import bisect
import importlib
import importlib.util
import json
import os
import re
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.tuner import utils as tuner
from mlx_lm.utils import MODEL_REMAPPING, save_config
from safetensors.numpy import save_file

DATA, OUT, OLD_LORA = (sys.argv[1:] + [None] * 3)[:3]
LORA = (nn.Linear, SwitchLinear, nn.Embedding)


def completed(c):
    """Keys that mlx-lm's ModelArgs want and configs of transformers 5 spell otherwise or leave out."""
    for d in [c] + [v for v in c.values() if isinstance(v, dict)]:
        d.setdefault("rope_theta", (d.get("rope_parameters") or {}).get("rope_theta", 10000.0))
        if "num_local_experts" in d:
            d.setdefault("num_experts", d["num_local_experts"])
        d.setdefault("norm_topk_prob", True)
        if d.get("full_attention_interval") is None and "full_attention" in (d.get("layer_types") or []):
            d["full_attention_interval"] = d["layer_types"].index("full_attention") + 1
    sparse = [t == "sparse" for t in c.get("mlp_layer_types") or []]
    yarn = {"type": "yarn", "factor": 1.0, "mscale": 1, "mscale_all_dim": 0, "original_max_position_embeddings": 4096}
    more = {
        "deepseek_v2": {"rope_scaling": yarn},
        "exaone4": {"rope_scaling": {"rope_type": "default", "factor": 1.0}},
        "exaone_moe": {"head_dim": 16, "is_moe_layer": sparse},
        "gemma4_text": {"global_head_dim": next(
            (v["head_dim"] for v in (c.get("per_layer_config") or {}).values() if "head_dim" in v), 512)},
        "glm4": {"partial_rotary_factor": 0.5},
        "glm4_moe": {"rope_scaling": {}},
        "glm_moe_dsa": {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "moe_layer_freq": 1},
        "kimi_linear": {"first_k_dense_replace": sparse.count(False), "linear_attn_config": {
            "kda_layers": [1], "full_attn_layers": [2], "short_conv_kernel_size": 4,
            "num_heads": c.get("linear_num_heads", c.get("num_attention_heads")), "head_dim": c.get("head_dim", 16)}},
        "llama4": {},
        "minimax_m2": {"shared_intermediate_size": 0, "rotary_dim": 8},
        "mimo_v2_flash": {
            "hybrid_layer_pattern": [0, 1], "moe_layer_freq": [0, 1], "add_swa_attention_sink_bias": False,
            "add_full_attention_sink_bias": False, "sliding_window_size": 8, "n_shared_experts": None,
            "topk_method": "noaux_tc", "scoring_func": "sigmoid", "layernorm_epsilon": 1e-5, "swa_rope_theta": 1e4,
            "swa_num_attention_heads": c.get("num_attention_heads"), "partial_rotary_factor": 1,
            "swa_num_key_value_heads": c.get("num_key_value_heads"), "swa_head_dim": c.get("head_dim"),
            "swa_v_head_dim": c.get("v_head_dim")},
        "qwen3_next": {"partial_rotary_factor": 0.25},
        "solar_open": {"intermediate_size": c.get("moe_intermediate_size"), "partial_rotary_factor": 0.5,
                       "first_k_dense_replace": sparse.count(False)},
    }.get(c["model_type"], {})
    for key, value in more.items():
        if c.get(key) is None:
            c[key] = value
    for t in c.values():
        if isinstance(t, dict):
            t.setdefault("rope_scaling", None)
            if c["model_type"] == "qwen3_vl_moe":
                t["tie_word_embeddings"] = c["tie_word_embeddings"]
    if c["model_type"] == "exaone4":
        c["sliding_window_pattern"] = "LG"
    if c["model_type"] == "olmo3":
        c["layer_types"] = ["sliding_attention", "full_attention"]
    if c["model_type"] == "granitemoehybrid":
        c["layer_types"] = ["mamba" if t == "linear_attention" else "attention" for t in c["layer_types"]]
    return c


def make_model(base):
    config = completed(json.load(open(f"{DATA}/{base}/config.json")))
    kind = MODEL_REMAPPING.get(config["model_type"], config["model_type"])
    classes = importlib.import_module("mlx_lm.models." + kind)
    return classes.Model(classes.ModelArgs.from_dict(config)), config


# ---- names ----------------------------------------------------------------------------------------------------------


class Tagged:
    """Tensors of a checkpoint, every element another number."""

    def __init__(self, shapes):
        self.tensors, self.starts, self.names, n = {}, [], [], 1
        for name, (_, shape) in shapes.items():
            count = int(np.prod(shape))
            self.tensors[name] = mx.array(np.arange(n, n + count, dtype=np.float64).astype(np.float32).reshape(shape))
            self.starts.append(n)
            self.names.append(name)
            n += count
        assert n < 2**24  # exact in fp32

    def origins(self, tensor):
        flat = np.array(tensor).reshape(-1).astype(np.int64)
        return {self.names[bisect.bisect_right(self.starts, x) - 1] for x in flat[:: max(1, len(flat) // 64)].tolist()}


EXPERT = re.compile(r"\.experts\.(?:\d+\.)?(gate_proj|up_proj|gate_up_proj|down_proj|w1|w2|w3)(?:\.weight)?$"
                    r"|block_sparse_moe\.(input_linear|output_linear)\.weight$")
WORDS = {"gate_proj": "gate_proj", "w1": "gate_proj", "up_proj": "up_proj", "fc1": "up_proj", "w3": "up_proj",
         "down_proj": "down_proj", "w2": "down_proj", "fc2": "down_proj", "output_linear": "down_proj"}


def hub_of(module, layer, tensor, tagged):
    """The hub's module, or "experts gate_proj"."""
    origins = tagged.origins(tensor)
    if isinstance(module, SwitchLinear):
        words = {next(w for w in EXPERT.search(o).groups() if w) for o in origins}
        assert len(words) == 1, origins
        word = words.pop()
        if word in ("gate_up_proj", "input_linear"):  # one of the halves: gate has the lower numbers
            return "experts", min(np.array(tensor).reshape(-1))
        return "experts", WORDS[word]
    assert len(origins) == 1, (layer, origins)
    name = origins.pop()
    assert np.array_equal(np.array(tagged.tensors[name]), np.array(tensor)), name  # the same axes
    return "linear", name.removesuffix(".weight")


def names_of(base):
    model, config = make_model(base)
    shapes = json.load(open(f"{DATA}/{base}/names.json"))["saved"]
    tagged = Tagged(shapes)
    weights = model.sanitize(dict(tagged.tensors)) if hasattr(model, "sanitize") else dict(tagged.tensors)
    modules, halves, takes = {}, {}, set()
    for name, module in model.named_modules():
        if not isinstance(module, LORA):
            continue
        takes.add(re.sub(r".*layers\.\d+\.", "", name))
        tensor = weights.get(name + ".weight", weights.get(name))  # gpt_oss: a parameter without ".weight"
        if tensor is None:
            continue  # a layer of another kind in this tiny config
        kind, hub = hub_of(module, name, tensor, tagged)
        if isinstance(hub, str):
            modules[name] = "experts " + hub if kind == "experts" else hub
        else:
            halves.setdefault(name.rpartition(".")[0], []).append((hub, name))
    for pair in halves.values():
        for (_, name), word in zip(sorted(pair), ("gate_proj", "up_proj")):
            modules[name] = "experts " + word
    return {"base": base, "takes": sorted(takes), "modules": dict(sorted(modules.items()))}


# Families whose tensors transformers saves under other names than the hub's, or whose class is another model's, are
# left out: kimi_k25, minimax, bailing_hybrid, llama4_text.
NAMES = """
catalogue/deepseek_v2 catalogue/deepseek_v3 catalogue/dots1 catalogue/ernie4_5_moe catalogue/exaone_moe
catalogue/glm4_moe catalogue/gpt_oss catalogue/granitemoe catalogue/jamba catalogue/lfm2_moe catalogue/minimax_m2
catalogue/mixtral catalogue/nemotron_h catalogue/olmoe catalogue/phimoe catalogue/qwen2_moe catalogue/qwen3_moe
catalogue/qwen3_next families/afmoe families/deepseek_v32 families/exaone4 families/gemma3 families/gemma3_text
families/gemma4 families/gemma4_moe families/gemma4_moe_text families/gemma4_text families/glm4 families/glm4_moe_lite
families/glm_moe_dsa families/granite families/granitemoehybrid families/hunyuan_v1_dense families/kimi_linear
families/llama families/llama4 families/mimo_v2_flash families/ministral3 families/mistral families/mistral3
families/mistral4 families/olmo3 families/phi3 families/qwen2 families/qwen3 families/qwen3_5 families/qwen3_5_moe
families/qwen3_vl_moe families/seed_oss families/smollm3 families/solar_open
""".split()


def all_names():
    return {base.split("/")[1]: names_of(base) for base in NAMES}


# ---- adapters -------------------------------------------------------------------------------------------------------


def eighths(shape, rng):
    return mx.array((rng.integers(-3, 4, size=shape) / 8).astype(np.float32))


def memory_name(hub, family):
    return hub.replace("block_sparse_moe", "mlp") if family == "mixtral" else hub


def delta_of(module):
    """scale * B A in fp64, [out, in] or [E, out, in], held against the module's own fuse()."""
    a, b = np.array(module.lora_a).astype(np.float64), np.array(module.lora_b).astype(np.float64)
    base = module["linear"] if "linear" in module else module["embedding"]
    if isinstance(base, SwitchLinear):
        delta = module.scale * b @ a.reshape(b.shape[0], -1, a.shape[-1])
    else:
        delta = module.scale * (a @ b).T
    base.weight = mx.zeros_like(base.weight)
    assert np.allclose(np.array(module.fuse().weight), delta, rtol=1e-6, atol=1e-6)
    return delta


def write_case(name, base, keys, num_layers=-1, rank=3, scale=2.5, old=False, flip=None, seed=0):
    rng = np.random.default_rng(seed)
    model, config = make_model(base)
    names = names_of_golden(model, base)
    parameters = {"rank": rank, "dropout": 0.0, "scale": scale, "keys": keys}
    switch = tuner.LoRASwitchLinear
    if old:
        spec = importlib.util.spec_from_file_location("mlx_lm.tuner.lora_old", OLD_LORA)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        tuner.LoRASwitchLinear = module.LoRASwitchLinear
    model.freeze()
    tuner.linear_to_lora_layers(model, num_layers, parameters)
    tuner.LoRASwitchLinear = switch
    for _, module in model.named_modules():
        if "lora_a" in module:
            module.lora_a = eighths(module.lora_a.shape, rng)
            module.lora_b = eighths(module.lora_b.shape, rng)
    folder = f"{OUT}/{name}"
    os.makedirs(folder + "/adapter", exist_ok=True)
    weights = dict(tree_flatten(model.trainable_parameters()))  # tuner/trainer.py
    mx.save_safetensors(folder + "/adapter/adapters.safetensors", weights)
    run = {"fine_tune_type": "lora", "num_layers": num_layers, "lora_parameters": parameters, "seed": 0}
    save_config(run, folder + "/adapter/adapter_config.json")
    expect, halves = {}, {}
    for path, module in model.named_modules():
        if "lora_a" not in module:
            continue
        hub, delta = names[path], delta_of(module)
        if hub.startswith("experts "):
            layer = int(re.search(r"layers\.(\d+)", path).group(1))
            halves.setdefault(layer, {})[hub.split()[1]] = delta
        else:
            expect[f"delta.{memory_name(hub, config['model_type'])}.weight"] = delta
    for layer, w in halves.items():
        stem = f"delta.model.layers.{layer}.mlp.experts."
        gate, up, down = w["gate_proj"], w["up_proj"], w["down_proj"]
        if config["model_type"] == "gpt_oss":  # [E, in, out], gate and up row by row
            both = np.stack([gate, up], axis=2).reshape(gate.shape[0], -1, gate.shape[2])
            expect[stem + "gate_up_proj"], expect[stem + "down_proj"] = both.swapaxes(1, 2), down.swapaxes(1, 2)
        else:
            expect[stem + "gate_up_proj"], expect[stem + "down_proj"] = np.concatenate([gate, up], 1), down
    for key, value in expect.items():  # exact in F16, whose files are smaller
        half = np.ascontiguousarray(value.astype(np.float16))
        assert np.array_equal(half.astype(np.float64), value), key
        expect[key] = half
    save_file(expect, folder + "/expect.safetensors")
    case = {"dialect": "mlx", "adapter": "./adapter", "base": base, "answer": "./expect.safetensors"}
    json.dump(case, open(folder + "/case.json", "w"), indent=1)
    print(name, len(weights), "tensors,", len(expect), "deltas")


def names_of_golden(model, base):
    """The goldens' bases have no names.json; those of the catalogue are the same models."""
    family = base.split("/")[0] if base.endswith("/base") and base.count("/") == 1 else base.split("/")[-2]
    for folder in ("catalogue", "families"):
        if os.path.exists(f"{DATA}/{folder}/{family}/names.json"):
            return widened(names_of(f"{folder}/{family}")["modules"], model)
    raise FileNotFoundError(family)


def widened(names, model):
    """Names by what stands below a layer, for models with other numbers of layers."""
    below = {re.sub(r"layers\.\d+", "layers.N", k): re.sub(r"layers\.\d+", "layers.N", v) for k, v in names.items()}
    out = {}
    for path, module in model.named_modules():
        layer = re.search(r"layers\.(\d+)", path)
        key = re.sub(r"layers\.\d+", "layers.N", path)
        if key in below:
            out[path] = below[key].replace("layers.N", layer.group(0)) if layer else below[key]
    return out


def main():
    os.makedirs(OUT, exist_ok=True)
    json.dump(all_names(), open(OUT + "/names.json", "w"), indent=0)
    glu = ["mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"]
    attention = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj"]
    write_case("qwen3_moe", "qwen3_moe/base", glu + attention + ["mlp.gate"], num_layers=1)
    write_case("mixtral", "mixtral/base", ["block_sparse_moe." + k[4:] for k in glu] + attention +
               ["block_sparse_moe.gate"], num_layers=1, seed=1)
    write_case("gpt_oss", "gpt_oss/base", [k.replace("switch_mlp", "experts") for k in glu] + attention +
               ["mlp.router"], num_layers=1, seed=2)
    write_case("deepseek_v3", "deepseek_v3/base", glu + [
        "self_attn.q_a_proj", "self_attn.q_b_proj", "self_attn.kv_a_proj_with_mqa", "self_attn.o_proj",
        "mlp.shared_experts.down_proj", "mlp.gate_proj"], num_layers=1, seed=3)
    write_case("llama", "family_goldens/llama/base", attention + ["mlp.down_proj", "lm_head"], rank=5, scale=20.0,
               seed=4)
    write_case("lfm2_moe", "family_goldens/lfm2_moe/base", [
        "feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj", "conv.in_proj",
        "self_attn.out_proj"], seed=5)
    if OLD_LORA:
        write_case("qwen2_moe_flat", "qwen2_moe/base", glu + ["mlp.shared_expert.up_proj"], num_layers=1, old=True,
                   seed=6)


if __name__ == "__main__":
    main()
