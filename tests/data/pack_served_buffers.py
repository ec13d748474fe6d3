#!/usr/bin/env python3
"""Makes served_buffers/ for pack.sh: what the real SGLang 0.5.23 and vLLM 0.33 held in every buffer, of some adapters.

    pack_served_buffers.py NEWEST OUT      (then: pack.sh OUT served_buffers)

NEWEST is the unpacked newest.tar.xz of the oracles. cases.json says which adapter on which base, both below the
test data, and the server's options; ENGINE.safetensors holds CASE|RANK|BUFFER as the oracle names and shapes them.
"""
import json
import os
import sys

from pack_sglang_forward import read_safetensors, write_safetensors

GPT_OSS, QWEN3 = "gpt_oss/base", "forward/qwen3_moe/base"
DENSE = "sglang_adapters/qwen3_dense/base"  # a config alone: the test makes weights
TP2 = ["tp-size=2"]
# (case, base, adapter, the oracle's setting or mode, ranks, options)
SGLANG = [
    ("whole", QWEN3, "sglang_adapters/qwen3_moe/hand.stacked3d_attn", "r", 1, []),
    ("experts_on_two_ranks", QWEN3, "sglang_adapters/qwen3_moe/hand.stacked3d_attn", "tp2ep2", 2, TP2 + ["ep-size=2"]),
    ("padded_rank", QWEN3, "qwen3_moe/per_expert", "R8", 1, ["max-lora-rank=8"]),
    ("rounded_scale", QWEN3, "sglang_adapters/qwen3_moe/hand.scale_1p5_f32", "r", 1, []),
    ("shared_outer", QWEN3, "sglang_adapters/qwen3_moe/hand.shared_outer", "tp2", 2, TP2),
    ("lost_dense_layer", QWEN3, "sglang_adapters/qwen3_moe/hand.dense_layer_and_experts", "r", 1, []),
    ("down_of_one_expert", QWEN3, "sglang_adapters/qwen3_moe/hand.half_shared_down_b_only", "r", 1, []),
    ("vocabulary", QWEN3, "sglang_adapters/qwen3_moe/hand.embed_lm_head", "tp2", 2, TP2),
    ("dense", DENSE, "sglang_adapters/qwen3_dense/hand.dense_gud", "tp2", 2, TP2),
    ("dense_gate_alone", DENSE, "sglang_adapters/qwen3_dense/hand.dense_gate_only", "r", 1, []),
    ("third", DENSE, "sglang_adapters/qwen3_dense/hand.scale_third_attn_bf16", "r", 1, []),
    ("halves", GPT_OSS, "gpt_oss/per_expert", "r", 1, []),
    ("halves_on_two_ranks", GPT_OSS, "gpt_oss/per_expert", "tp2", 2, TP2),
    ("shared_outer_and_attention", GPT_OSS, "sglang_adapters/gpt_oss/hand.shared_outer_attn_bf16", "r", 1, []),
]
VLLM = [
    ("whole", QWEN3, "vllm_adapters/qwen3_moe/pe_attn", "default", 1, []),
    ("experts_on_two_ranks", QWEN3, "qwen3_moe/per_expert", "ep", 2, TP2 + ["enable-expert-parallel=on"]),
    ("fully_sharded", QWEN3, "qwen3_moe/per_expert", "fs", 2, TP2 + ["fully-sharded-loras=on"]),
    ("rslora", QWEN3, "vllm_adapters/qwen3_moe/pe_rslora", "default", 1, []),
    ("shared_outer", QWEN3, "vllm_adapters/qwen3_moe/shared_outer_bf16", "shared", 1, ["enable-moe-shared-loras=on"]),
    ("rounded_scale", QWEN3, "vllm_adapters/qwen3_moe/pe_raw_scale_5_3", "default", 1, []),
    ("dense_layer", QWEN3, "vllm_adapters/qwen3_moe/dense_only", "default", 2, TP2),
    ("vocabulary", QWEN3, "vllm_adapters/qwen3_moe/embed_lm_head_lora", "default", 2, TP2),
    ("stacked", GPT_OSS, "gpt_oss/peft_params", "default", 2, TP2),
    ("patterns", GPT_OSS, "gpt_oss/peft_patterns", "default", 1, []),
    ("other_column_order", GPT_OSS, "gpt_oss/peft_params_grouped_b", "default", 1, []),
    ("lost_gate_up", GPT_OSS, "vllm_adapters/gpt_oss/stacked_base_layer_only", "default", 1, []),
    ("router", GPT_OSS, "gpt_oss/all_linear", "default", 1, []),
]


def family_and_name(adapter):
    return adapter.split("/")[-2:]


def sglang_buffers(newest, adapter, setting, rank, ranks):
    family, name = family_and_name(adapter)
    label = f"{name}|{setting}" + (f".{rank}" if ranks > 1 else "") + "|id0|"
    pool = read_safetensors(f"{newest}/sgl023/{family}.safetensors")
    return {key[len(label):]: value for key, value in pool.items() if key.startswith(label)}


def vllm_buffers(newest, adapter, mode, rank, ranks):
    return read_safetensors(f"{newest}/vllm/v033/{adapter_path(adapter)}/{mode}.tp{ranks}r{rank}.safetensors")


def adapter_path(adapter):
    return "/".join(family_and_name(adapter))


def pack(newest, out, engine, label, cases, read):
    rows, kept = [], {}
    for case, base, adapter, setting, ranks, options in cases:
        for rank in range(ranks):
            held = read(newest, adapter, setting, rank, ranks)
            if not held:
                raise SystemExit(f"{engine} {case}: the oracle holds nothing of {adapter} at {setting}")
            kept.update({f"{case}|{rank}|{name}": value for name, value in held.items()})
        rows.append({"engine": label, "name": case, "base": base, "adapter": adapter, "ranks": ranks,
                     "options": options})
    write_safetensors(f"{out}/{engine}.safetensors", kept)
    return rows


def main(newest, out):
    out += "/served_buffers"
    os.makedirs(out)
    rows = pack(newest, out, "sglang", "sglang@0.5.23", SGLANG, sglang_buffers)
    rows += pack(newest, out, "vllm", "vllm@0.33", VLLM, vllm_buffers)
    with open(f"{out}/cases.json", "w") as file:
        file.write("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
