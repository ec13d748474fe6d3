"""Experts in forms of Megatron-Bridge (shared outer), xorl and NeMo AutoModel.

Usage: pack_dialect_experts.py TEST_DATA OUT; OUT/dialect_experts is made. Facts:
- Megatron-Bridge 067f987d, models/conversion/peft_bridge.py and tests/unit_tests/models/
  test_adapter_export.py (test_shared_side_default_emits_shared_1d_aggregate): the shared side is
  unsqueezed to [1, out, in] under the name without the expert's index, the other side is 2-D for
  each expert. gate and up have factors A of their own here, so that a mix-up shows.
- xorl, src/xorl/lora/utils.py (save_lora_checkpoint, _unmerge_moe_lora_weights): [1, ..] becomes
  experts.shared.PROJ.lora_X.weight, [E, ..] experts.{e}.PROJ.lora_X.weight, each transposed into
  PEFT's orientation; models/layers/moe/lora.py: in memory A [E or 1, in, r], B [E or 1, r, out].
- NeMo AutoModel, components/_peft/lora_experts.py: A [E, in, r], B [E, r, out], y += x A B alpha/r;
  components/moe/experts.py: swiglu chunks [gate | up], quick_geglu (gpt-oss) takes [::2], [1::2].
- GraniteMoE of transformers 4.57: GraniteMoeParallelExperts, a module with one batched `weight`,
  twice: input_linear and output_linear. PEFT's ParamWrapper saves a parameter's pair under its
  module's name, hence under two names without nesting.
"""
import os
import sys

import numpy as np

from dialect_goldens import PREFIX, Golden, plain_config, shuffled, write_case

TEST_DATA, OUT = sys.argv[1], os.path.join(sys.argv[2], "dialect_experts")
granite = Golden(TEST_DATA, "family_goldens/granitemoe/peft_params")
qwen = Golden(TEST_DATA, "qwen3_moe/peft_params")
oss = Golden(TEST_DATA, "gpt_oss/peft_params")


def dense(golden, prefix=PREFIX, ending=".weight"):
    out = {}
    for module, a, b in golden.dense():
        out[f"{prefix}{module}.lora_A{ending}"] = a
        out[f"{prefix}{module}.lora_B{ending}"] = b
    return out


def apart(golden):
    """(experts module, "gate_proj" ..., A [E, r, in], B [E, out, r]), gate and up with own A."""
    for module, which, a, b in golden.stacks():
        if which == "down":
            yield module, "down_proj", a, b
            continue
        half = b.shape[1] // 2
        yield module, "gate_proj", a, b[:, :half]
        yield (module, "up_proj", *shuffled(a, b[:, half:], [2, 0, 3, 1]))


def with_shared_outer(golden):
    """Those of layer 1 with expert 1's outer factor for all, and the deltas of that."""
    answer = {k: v for k, v in golden.answer.items() if k.startswith("delta.") and "experts" not in k}
    rows, deltas = [], {}
    for module, word, a, b in apart(golden):
        if ".layers.1." not in module:
            continue
        outer = (a if word != "down_proj" else b)[1:2]
        a, b = (outer, b) if word != "down_proj" else (a, outer)
        rows.append((module, word, a, b))
        delta = golden.scale * np.matmul(b.astype(np.float64), a.astype(np.float64))
        deltas[module, word] = delta
    for module in {module for module, _ in deltas}:
        gate_up = [deltas[module, "gate_proj"], deltas[module, "up_proj"]]
        answer[f"delta.{module}.gate_up_proj"] = np.concatenate(gate_up, axis=1)
        answer[f"delta.{module}.down_proj"] = deltas[module, "down_proj"]
    return rows, {k: np.ascontiguousarray(v, np.float32) for k, v in answer.items()}


def per_expert(stack, name):
    return {name.format(e): stack[e] for e in range(len(stack))}


def megatron_bridge(name, two_dims):
    rows, answer = with_shared_outer(qwen)
    tensors = dense(qwen)
    for module, word, a, b in rows:
        for letter, side in (("A", a), ("B", b)):
            if len(side) > 1:
                tensors |= per_expert(side, f"{PREFIX}{module}.{{}}.{word}.lora_{letter}.weight")
            else:
                key = f"{PREFIX}{module}.{word}.lora_{letter}.weight"
                tensors[key] = side[0] if two_dims else side
    write_case(OUT, name, "mixed-shared", tensors, plain_config(qwen.config), qwen.base, answer,
               shared_outer=True)


def xorl_saved():
    rows, answer = with_shared_outer(qwen)
    tensors = dense(qwen)
    for module, word, a, b in rows:
        for letter, side in (("A", a), ("B", b)):
            if len(side) > 1:
                tensors |= per_expert(side, f"{PREFIX}{module}.{{}}.{word}.lora_{letter}.weight")
            else:
                tensors[f"{PREFIX}{module}.shared.{word}.lora_{letter}.weight"] = side[0]
    config = {"r": qwen.config["r"], "lora_alpha": qwen.config["lora_alpha"],
              "target_modules": ["q_proj", "gate_proj"], "lora_dropout": 0.0, "bias": "none",
              "task_type": "CAUSAL_LM", "base_model_name_or_path": "", "peft_type": "LORA",
              "inference_mode": True, "fan_in_fan_out": False, "moe_hybrid_shared_lora": True}
    write_case(OUT, "xorl_shared", "xorl", tensors, config, qwen.base, answer, shared_outer=True)


def xorl_in_memory(name, rows, answer, shared):
    tensors = dense(qwen, "", "")
    for module, word, a, b in rows:
        tensors[f"{module}.{word}_lora_A"] = a.transpose(0, 2, 1)
        tensors[f"{module}.{word}_lora_B"] = b.transpose(0, 2, 1)
    write_case(OUT, name, "xorl", tensors, plain_config(qwen.config), qwen.base, answer,
               shared_outer=shared)


def automodel(name, golden):
    """gpt-oss' gate_up_proj [E, H, 2I] has gate and up in turns, and so has AutoModel's copy of it;
    of the others PEFT's rows are [gate; up], and AutoModel's columns [gate | up]."""
    tensors = dense(golden)
    for module, which, a, b in golden.stacks():
        word = {"gate_up": "lora_gate_and_up", "down": "lora_down"}[which]
        tensors[f"{PREFIX}{module}.{word}_A"] = a.transpose(0, 2, 1)
        tensors[f"{PREFIX}{module}.{word}_B"] = b.transpose(0, 2, 1)
    write_case(OUT, name, "automodel", tensors, plain_config(golden.config), golden.base,
               golden.name)


def granite_before_5_13():
    tensors = {}
    for name, tensor in granite.tensors.items():
        name = name.replace(".experts.base_layer.", ".input_linear.")
        tensors[name.replace(".experts.", ".output_linear.")] = tensor
    config = plain_config(granite.config) | {"target_parameters": [
        "block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"]}
    write_case(OUT, "granite_parallel_experts", "granite-parallel-experts", tensors, config,
               granite.base, granite.name)


megatron_bridge("megatron_bridge_shared", False)
megatron_bridge("megatron_bridge_shared_two_dims", True)
xorl_saved()
xorl_in_memory("xorl_in_memory", list(apart(qwen)), qwen.name, False)
xorl_in_memory("xorl_in_memory_shared", *with_shared_outer(qwen), True)
automodel("automodel_qwen3_moe", qwen)
automodel("automodel_gpt_oss", oss)
granite_before_5_13()
