"""Made dialect_kohya, dialect_diffusers and dialect_transposed of the goldens beside this file.

python pack_dialect_sd.py TEST_DATA OUT, where TEST_DATA is the build's test_data and OUT gets the
three folders. The factors are those of adapters that PEFT saved; only names, axes and where the
scale is written are those of the other trainers:

kohya: networks/lora.py of kohya-ss/sd-scripts (02298e3): name = PREFIX + "_" + path with "_" for
  ".", then ".lora_down.weight" [r, in], ".lora_up.weight" [out, r], ".alpha"; the delta is
  alpha / r * up @ down; without an alpha it is up @ down.
  LyCORIS (00e635c, modules/locon.py) writes the same with alpha in front; OneTrainer (02ac9b4,
  LoRAModule.py) saves alpha as torch.tensor of a Python number, of no dims.
diffusers: utils/state_dict_utils.py: ".lora.down.weight", ".lora_linear_layer.down.weight"; prefix
  of the part of the pipeline; no alpha: up @ down.
transposed: y = x A B, with A [in, r] and B [r, out], of experts [E, in, r] and [E, r, out].
"""

import json
import os
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

DATA, OUT = sys.argv[1:]
PEFT = "base_model.model."


def golden(folder):
    """({module: (A [r, in], B [out, r])}, scale); experts by number, of PEFT's two parameters:
    A's row is e * r + k, B's column k * E + e, and lora_B of gate_up_proj is [gate; up]."""
    tensors = load_file(f"{DATA}/{folder}/adapter_model.safetensors")
    with open(f"{DATA}/{folder}/adapter_config.json") as file:
        config = json.load(file)
    r, out = config["r"], {}
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name[len(PEFT):-len(".lora_A.weight")]
        b = tensors[name.replace(".lora_A.", ".lora_B.")]
        if ".mlp.experts" not in module:
            out[module] = a, b
            continue
        stem = module.removesuffix(".base_layer")
        count = a.shape[0] // r
        gate_up = module.endswith(".base_layer")
        for e in range(count):
            a_e, b_e = a[e * r:(e + 1) * r], b[:, e::count]
            if gate_up:
                half = len(b_e) // 2
                out[f"{stem}.{e}.gate_proj"] = a_e, b_e[:half]
                out[f"{stem}.{e}.up_proj"] = a_e, b_e[half:]
            else:
                out[f"{stem}.{e}.down_proj"] = a_e, b_e
    check(folder, out, config["lora_alpha"] / r)
    return out, config["lora_alpha"] / r


def check(folder, factors, scale):
    """That the factors mean the answer."""
    answer = load_file(f"{DATA}/{folder}.expect.safetensors")
    for module, (a, b) in factors.items():
        delta = scale * (b.astype(np.float64) @ a)
        if ".experts." in module:
            stem, e, projection = module.rsplit(".", 2)
            if projection == "down_proj":
                expected = answer[f"delta.{stem}.down_proj"][int(e)]
            else:
                both = answer[f"delta.{stem}.gate_up_proj"][int(e)]
                half = len(both) // 2
                expected = both[:half] if projection == "gate_proj" else both[half:]
        else:
            expected = answer[f"delta.{module}.weight"]
        assert np.allclose(delta, expected, rtol=1e-5, atol=1e-7), (folder, module)


def write(dialect, case, file, tensors, base, answer, config=None):
    folder = f"{OUT}/dialect_{dialect}/{case}"
    os.makedirs(f"{folder}/adapter", exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, f"{folder}/adapter/{file}")
    with open(f"{folder}/case.json", "w") as out:
        json.dump({"dialect": dialect, "adapter": "./adapter", "base": base,
                   "answer": f"{answer}.expect.safetensors"}, out, indent=1)
    if config is not None:
        with open(f"{folder}/adapter/adapter_config.json", "w") as out:
            json.dump(config, out, indent=1)


def flat(prefix, module):
    return f"{prefix}.{module}".replace(".", "_")


def kohya():
    # An alpha of its own for every module of attention and for the experts of every layer (layouts
    # of joined experts have one scale a layer): up is scaled so that the delta stays.
    factors, scale = golden("qwen3_moe/peft_params")
    tensors = {}
    for i, (module, (a, b)) in enumerate(sorted(factors.items())):
        alpha = float(2 ** (i % 4))
        if ".experts." in module:
            alpha = float(2 ** int(module.split(".")[2]))
        name = flat("lora_te", module)
        tensors[f"{name}.lora_down.weight"] = a
        tensors[f"{name}.lora_up.weight"] = b * np.float32(scale / (alpha / len(a)))
        tensors[f"{name}.alpha"] = np.array(alpha, np.float32)
    write("kohya", "own_alphas", "my_lora.safetensors", tensors, "qwen3_moe/base",
          "qwen3_moe/peft_params")

    # Mixtral's own module names, the model without its head, an old file without alphas.
    factors, scale = golden("mixtral/peft_params")
    words = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
    tensors = {}
    for module, (a, b) in factors.items():
        if ".experts." in module:
            stem, e, projection = module.rsplit(".", 2)
            module = f"{stem.replace('.mlp.', '.block_sparse_moe.')}.{e}.{words[projection]}"
        name = flat("lora_te1", module.removeprefix("model."))
        tensors[f"{name}.lora_down.weight"] = a
        tensors[f"{name}.lora_up.weight"] = b * np.float32(scale)
    write("kohya", "no_alphas", "last.safetensors", tensors, "mixtral/base", "mixtral/peft_params")

    # A dense model; integers as alphas; every second module with a rank of its own.
    factors, scale = golden("family_goldens/llama/all_linear")
    tensors = {}
    for i, (module, (a, b)) in enumerate(sorted(factors.items())):
        if i % 2:
            a, b = np.concatenate([a, a]), np.concatenate([b, b], axis=1) / np.float32(2)
        name = flat("lora_llm", module)
        tensors[f"{name}.lora_down.weight"] = a
        tensors[f"{name}.lora_up.weight"] = b
        tensors[f"{name}.alpha"] = np.array(int(scale * len(a)), np.int64)
    write("kohya", "own_ranks", "lora.safetensors", tensors, "family_goldens/llama/base",
          "family_goldens/llama/all_linear")

    # Words with underscores of their own (kv_a_proj_with_mqa), dots kept as OneTrainer does, and
    # half of alphas that PEFT's config would say otherwise.
    factors, scale = golden("deepseek_v3/peft_params")
    tensors = {}
    for i, (module, (a, b)) in enumerate(sorted(factors.items())):
        name = f"lora_transformer.{module}" if i % 2 else flat("lora_transformer", module)
        tensors[f"{name}.lora_down.weight"] = a
        tensors[f"{name}.lora_up.weight"] = b
        tensors[f"{name}.alpha"] = np.array([scale * len(a)], np.float16)
    write("kohya", "dots", "adapter_model.safetensors", tensors, "deepseek_v3/base",
          "deepseek_v3/peft_params", {"peft_type": "LORA", "r": 4, "lora_alpha": 1})


def diffusers():
    factors, scale = golden("qwen3_moe/peft_params")
    tensors = {}
    for module, (a, b) in factors.items():
        tensors[f"text_encoder.{module}.lora_down.weight"] = a
        tensors[f"text_encoder.{module}.lora_up.weight"] = b
        tensors[f"text_encoder.{module}.alpha"] = np.array(scale * len(a), np.float32)
    write("diffusers", "down_up", "pytorch_lora_weights.safetensors", tensors, "qwen3_moe/base",
          "qwen3_moe/peft_params")

    # The older spellings, no alphas; a part of the model without its head.
    factors, scale = golden("glm4_moe/peft_params")
    tensors = {}
    for i, (module, (a, b)) in enumerate(sorted(factors.items())):
        name = f"transformer.{module.removeprefix('model.')}"
        name += ".lora" if i % 2 else ".lora_linear_layer"
        tensors[f"{name}.down.weight"] = a
        tensors[f"{name}.up.weight"] = b * np.float32(scale)
    write("diffusers", "dots", "pytorch_lora_weights.safetensors", tensors, "glm4_moe/base",
          "glm4_moe/peft_params")

    # Beside PEFT's config, which says alpha.
    factors, scale = golden("family_goldens/qwen3/all_linear")
    tensors = {}
    for module, (a, b) in factors.items():
        tensors[f"{PEFT}{module}.lora_down.weight"] = a
        tensors[f"{PEFT}{module}.lora_up.weight"] = b
    write("diffusers", "peft_config", "adapter_model.safetensors", tensors,
          "family_goldens/qwen3/base", "family_goldens/qwen3/all_linear",
          {"peft_type": "LORA", "r": 4, "lora_alpha": int(4 * scale)})


def transposed():
    # Experts stacked, in JAX's axes.
    for family in "qwen3_moe", "mixtral":
        factors, scale = golden(f"{family}/peft_params")
        tensors, stacks = {}, {}
        for module, (a, b) in factors.items():
            if ".experts." not in module:
                tensors[f"{PEFT}{module}.lora_A.weight"] = a.T
                tensors[f"{PEFT}{module}.lora_B.weight"] = b.T
                continue
            stem, e, projection = module.rsplit(".", 2)
            stacks.setdefault(f"{stem}.{projection}", {})[int(e)] = a.T, b.T
        for module, parts in stacks.items():
            pairs = [parts[e] for e in range(len(parts))]
            tensors[f"{PEFT}{module}.lora_A.weight"] = np.stack([a for a, b in pairs])
            tensors[f"{PEFT}{module}.lora_B.weight"] = np.stack([b for a, b in pairs])
        write("transposed", family, "adapter_model.safetensors", tensors, f"{family}/base",
              f"{family}/peft_params",
              {"peft_type": "LORA", "r": 4, "lora_alpha": int(4 * scale)})

    # A dense model, with ranks of their own (rank_pattern), without ".weight".
    factors, scale = golden("family_goldens/llama/all_linear")
    tensors, ranks = {}, {}
    for i, (module, (a, b)) in enumerate(sorted(factors.items())):
        if i % 2:
            a, b = np.concatenate([a, a]), np.concatenate([b, b], axis=1)
            ranks[module] = len(a)
        tensors[f"{module}.lora_A"] = a.T
        tensors[f"{module}.lora_B"] = b.T
    write("transposed", "own_ranks", "adapter_model.safetensors", tensors,
          "family_goldens/llama/base", "family_goldens/llama/all_linear",
          {"peft_type": "LORA", "r": 4, "lora_alpha": int(4 * scale), "rank_pattern": ranks})


kohya()
diffusers()
transposed()
