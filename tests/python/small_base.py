"""A base checkpoint with weights, for tests that convert one."""

import json

import numpy
from safetensors.numpy import load_file, save_file

LAYERS = 6  # the first without experts


def make_base(folder, seed=1):
    """A model of Qwen3's kind whose experts are Linears of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "qwen3_moe", "hidden_size": 16, "num_hidden_layers": LAYERS, "vocab_size": 24,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "num_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 12, "intermediate_size": 20,
        "mlp_only_layers": [0], "rms_norm_eps": 1e-06,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    random = numpy.random.default_rng(seed)
    save_file(
        {name: random.standard_normal(shape, dtype=numpy.float32) for name, shape in _shapes().items()},
        folder / "model.safetensors",
    )
    return folder


def _shapes():
    out = {"model.embed_tokens.weight": (24, 16), "model.norm.weight": (16,), "lm_head.weight": (24, 16)}
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}."
        out[stem + "input_layernorm.weight"] = (16,)
        for name, shape in {"q": (16, 16), "k": (8, 16), "v": (8, 16), "o": (16, 16)}.items():
            out[f"{stem}self_attn.{name}_proj.weight"] = shape
        experts = [""] if layer == 0 else [f"experts.{expert}." for expert in range(4)]
        width = 20 if layer == 0 else 12
        for expert in experts:
            for name, shape in {"gate": (width, 16), "up": (width, 16), "down": (16, width)}.items():
                out[f"{stem}mlp.{expert}{name}_proj.weight"] = shape
        if layer > 0:
            out[stem + "mlp.gate.weight"] = (4, 16)
    return out


def tensors_of(folder):
    """Name: type, shape and bytes of what a loader finds, by the index where there is one."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return _described(load_file(folder / "model.safetensors"))
    weight_map = json.loads(index.read_text())["weight_map"]
    files = {name: load_file(folder / name) for name in set(weight_map.values())}
    assert sum(map(len, files.values())) == len(weight_map)
    return _described({name: files[file][name] for name, file in weight_map.items()})


def _described(arrays):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
