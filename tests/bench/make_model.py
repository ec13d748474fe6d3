#!/usr/bin/env python3
"""Writes a checkpoint of a real model's shape with random weights, for benchmarks of the forward.

    make_model.py gpt-oss-20b|Qwen3-30B-A3B DIR [--layers N]

Names, dtypes and shapes are the hub's; gpt-oss's experts are MXFP4. The values do not matter beyond being
finite and of a trained model's size. NumPy alone, one tensor in memory at a time.
"""
import argparse
import json
import pathlib
import struct

import numpy

SHAPES = {
    "gpt-oss-20b": dict(layers=24, hidden=2880, heads=64, kv_heads=8, head_dim=64, experts=32, top_k=4, inner=2880,
                        vocab=201088),
    "Qwen3-30B-A3B": dict(layers=48, hidden=2048, heads=32, kv_heads=4, head_dim=128, experts=128, top_k=8, inner=768,
                          vocab=151936),
}


def gpt_oss_config(s):
    return {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": s["hidden"],
        "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"], "num_key_value_heads": s["kv_heads"],
        "head_dim": s["head_dim"], "num_local_experts": s["experts"], "num_experts_per_tok": s["top_k"],
        "intermediate_size": s["inner"], "vocab_size": s["vocab"], "rms_norm_eps": 1e-5, "sliding_window": 128,
        "attention_bias": True, "swiglu_limit": 7.0, "tie_word_embeddings": False, "max_position_embeddings": 131072,
        "rope_theta": 150000,
        "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                         "original_max_position_embeddings": 4096},
        "layer_types": ["full_attention" if i % 2 else "sliding_attention" for i in range(s["layers"])],
        "quantization_config": {"quant_method": "mxfp4"}}


def qwen3_config(s):
    return {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": s["hidden"],
        "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"], "num_key_value_heads": s["kv_heads"],
        "head_dim": s["head_dim"], "num_experts": s["experts"], "num_experts_per_tok": s["top_k"],
        "moe_intermediate_size": s["inner"], "intermediate_size": 6144, "vocab_size": s["vocab"], "rms_norm_eps": 1e-6,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "hidden_act": "silu",
        "tie_word_embeddings": False, "max_position_embeddings": 40960, "rope_theta": 1000000.0}


def attention(s, stem):
    h, d = s["hidden"], s["head_dim"]
    for name, rows, columns in (("q", s["heads"] * d, h), ("k", s["kv_heads"] * d, h), ("v", s["kv_heads"] * d, h),
                                ("o", h, s["heads"] * d)):
        yield f"{stem}self_attn.{name}_proj.weight", "BF16", [rows, columns]


def gpt_oss_layer(s, stem):
    h, e, i = s["hidden"], s["experts"], s["inner"]
    for name, dtype, shape in attention(s, stem):
        yield name, dtype, shape
        yield name.replace(".weight", ".bias"), dtype, shape[:1]
    yield f"{stem}self_attn.sinks", "BF16", [s["heads"]]
    yield f"{stem}mlp.router.weight", "BF16", [e, h]
    yield f"{stem}mlp.router.bias", "BF16", [e]
    for name, rows, columns in (("gate_up_proj", 2 * i, h), ("down_proj", h, i)):
        yield f"{stem}mlp.experts.{name}_blocks", "U8", [e, rows, columns // 32, 16]
        yield f"{stem}mlp.experts.{name}_scales", "SCALES", [e, rows, columns // 32]
        yield f"{stem}mlp.experts.{name}_bias", "BF16", [e, rows]


def qwen3_layer(s, stem):
    h, i = s["hidden"], s["inner"]
    yield from attention(s, stem)
    for name in ("q_norm", "k_norm"):
        yield f"{stem}self_attn.{name}.weight", "ONES", [s["head_dim"]]
    yield f"{stem}mlp.gate.weight", "BF16", [s["experts"], h]
    for e in range(s["experts"]):
        for name, rows, columns in (("gate_proj", i, h), ("up_proj", i, h), ("down_proj", h, i)):
            yield f"{stem}mlp.experts.{e}.{name}.weight", "BF16", [rows, columns]


def tensors(name, s):
    layer = gpt_oss_layer if name == "gpt-oss-20b" else qwen3_layer
    yield "model.embed_tokens.weight", "BF16", [s["vocab"], s["hidden"]]
    for index in range(s["layers"]):
        stem = f"model.layers.{index}."
        yield from layer(s, stem)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{stem}{norm}.weight", "ONES", [s["hidden"]]
    yield "model.norm.weight", "ONES", [s["hidden"]]
    yield "lm_head.weight", "BF16", [s["vocab"], s["hidden"]]


def values(kind, shape, random):
    count = int(numpy.prod(shape))
    if kind == "U8":
        return random.integers(0, 256, count, numpy.uint8)
    if kind == "SCALES":  # 2^-7 to 2^-5
        return random.integers(120, 123, count, numpy.uint8)
    if kind == "ONES":
        return numpy.full(count, 0x3F80, numpy.uint16)
    width = shape[-1] if len(shape) > 1 else 100
    floats = random.standard_normal(count, numpy.float32) / numpy.float32(width**0.5)
    return (floats.view(numpy.uint32) >> 16).astype(numpy.uint16)


def write(path, listed, seed):
    header, at = {}, 0
    for name, kind, shape in listed:
        size = int(numpy.prod(shape)) * (1 if kind in ("U8", "SCALES") else 2)
        dtype = "U8" if kind in ("U8", "SCALES") else "BF16"
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = numpy.random.default_rng(seed)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, kind, shape in listed:
            values(kind, shape, random).tofile(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int)
    given = parser.parse_args()
    shape = dict(SHAPES[given.shape])
    shape["layers"] = given.layers or shape["layers"]
    given.folder.mkdir(parents=True)
    config = gpt_oss_config(shape) if given.shape == "gpt-oss-20b" else qwen3_config(shape)
    (given.folder / "config.json").write_text(json.dumps(config, indent=2))
    write(given.folder / "model.safetensors", list(tensors(given.shape, shape)), seed=1)


if __name__ == "__main__":
    main()
