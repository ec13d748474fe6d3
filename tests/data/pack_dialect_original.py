"""Adapters of torchtune and of the models' original code (mistral-finetune).

Usage: pack_dialect_original.py TEST_DATA OUT; OUT/dialect_torchtune and OUT/dialect_original are
made. Facts:
- torchtune, models/convert_weights.py: _FROM_HF (names) and hf_to_tune, whose _permute of q and k
  is repeated here on lora_B; models/qwen2, qwen3, phi3, llama4/_convert_weights.py do not permute;
  phi3 cuts qkv_proj and gate_up_proj; llama4 stands below "decoder.";
  modules/moe/experts.py (LoRAGroupedExperts): A [E, in, r], B [E, r, out];
  training/checkpointing/_checkpointer.py: adapter_model.pt by torch.save, adapter_config.json.
- transformers, models/mistral/convert_mistral_weights_to_hf.py (permute_for_rope): the inverse of
  hf_to_tune's. mistral-finetune, finetune/checkpointing.py: lora.safetensors with names as in
  model/transformer.py, model/moe.py, and params.json (ModelArgs.to_dict(), "lora": {"enable",
  "rank", "dropout", "scaling"}); model/lora.py: y += scaling * B A x.
"""
import os
import re
import sys

from dialect_goldens import PREFIX, Golden, plain_config, shuffled, write_case

TEST_DATA, OUT = sys.argv[1], sys.argv[2]
TUNE, ORIGINAL = os.path.join(OUT, "dialect_torchtune"), os.path.join(OUT, "dialect_original")
ORDER = [2, 0, 3, 1]


def heads(golden):
    c = golden.base_config
    dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    return c["num_attention_heads"], c["num_key_value_heads"], dim


def rotary_pairs(b, n_heads, head_dim):
    """hf_to_tune's _permute: from halves of a head to pairs side by side."""
    rank = b.shape[-1]
    b = b.reshape(n_heads, 2, head_dim // 2, rank).transpose(0, 2, 1, 3)
    return b.reshape(n_heads * head_dim, rank)


def in_pairs(golden, module, b):
    q, kv, dim = heads(golden)
    if module.endswith("q_proj"):
        return rotary_pairs(b, q, dim)
    return rotary_pairs(b, kv, dim) if module.endswith("k_proj") else b


def renamed(module, rows):
    for pattern, to in rows:
        if re.fullmatch(pattern, module):
            return re.sub(pattern, to, module)
    raise KeyError(module)


TUNE_NAMES = [
    (r"model\.layers\.(\d+)\.self_attn\.([qkv]_proj)", r"layers.\1.attn.\2"),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj", r"layers.\1.attn.output_proj"),
    (r"model\.layers\.(\d+)\.mlp\.gate_proj", r"layers.\1.mlp.w1"),
    (r"model\.layers\.(\d+)\.mlp\.down_proj", r"layers.\1.mlp.w2"),
    (r"model\.layers\.(\d+)\.mlp\.up_proj", r"layers.\1.mlp.w3"),
    (r"lm_head", "output"),
]


def tune_config(golden):
    return {"r": golden.config["r"], "lora_alpha": golden.config["lora_alpha"],
            "target_modules": ["q_proj", "v_proj", "o_proj"], "peft_type": "LORA"}


def tune_dense(golden, permuted, prefix=""):
    out = {}
    for module, a, b in golden.dense():
        name = prefix + renamed(module, TUNE_NAMES)
        out[name + ".lora_a.weight"] = a
        out[name + ".lora_b.weight"] = in_pairs(golden, module, b) if permuted else b
    return out


def tune(name, golden, tensors, weights="adapter_model.pt"):
    write_case(TUNE, name, "torchtune", tensors, tune_config(golden), golden.base, golden.name,
               weights=weights)


def tune_phi3(golden):
    """Each part of a joined matrix has factors of its own."""
    out = {}
    q, kv, dim = heads(golden)
    parts = {"qkv_proj": [("attn.q_proj", q * dim), ("attn.k_proj", kv * dim),
                          ("attn.v_proj", kv * dim)],
             "gate_up_proj": [("mlp.w1", golden.base_config["intermediate_size"]),
                              ("mlp.w3", golden.base_config["intermediate_size"])]}
    for module, a, b in golden.dense():
        leaf = module.rsplit(".", 1)[1]
        if leaf not in parts:
            name = renamed(module, TUNE_NAMES)
            out[name + ".lora_a.weight"], out[name + ".lora_b.weight"] = a, b
            continue
        row = 0
        for path, rows in parts[leaf]:
            a, part = shuffled(a, b[row : row + rows], ORDER)
            b = shuffled(a, b, ORDER)[1]
            name = f"layers.{module.split('.')[2]}.{path}"
            out[name + ".lora_a.weight"], out[name + ".lora_b.weight"] = a, part
            row += rows
    return out


def tune_experts(golden, prefix):
    out = {}
    for module, which, a, b in golden.stacks():
        stem = f"{prefix}layers.{module.split('.')[2]}.mlp.experts.lora_"
        half = b.shape[1] // 2
        pairs = {"down": (a, b)}
        if which == "gate_up":
            pairs = {"gate": (a, b[:, :half]), "up": shuffled(a, b[:, half:], ORDER)}
        for word, (in_side, out_side) in pairs.items():
            out[f"{stem}{word}_a"] = in_side.transpose(0, 2, 1)
            out[f"{stem}{word}_b"] = out_side.transpose(0, 2, 1)
    return out


llama = Golden(TEST_DATA, "family_goldens/llama/all_linear")
qwen3 = Golden(TEST_DATA, "family_goldens/qwen3/all_linear")
phi3 = Golden(TEST_DATA, "family_goldens/phi3/all_linear")
llama4 = Golden(TEST_DATA, "family_goldens/llama4_text/peft_params", "swapped")
tune("llama", llama, tune_dense(llama, True))
tune("llama_safetensors", llama, tune_dense(llama, True), "adapter_model.safetensors")
tune("qwen3", qwen3, tune_dense(qwen3, False))
tune("phi3", phi3, tune_phi3(phi3))
tune("llama4", llama4,
     tune_dense(llama4, False, "decoder.") | tune_experts(llama4, "decoder."))

MISTRAL_NAMES = [
    (r"model\.layers\.(\d+)\.self_attn\.([qkvo])_proj", r"layers.\1.attention.w\2"),
    (r"model\.layers\.(\d+)\.mlp\.gate_proj", r"layers.\1.feed_forward.w1"),
    (r"model\.layers\.(\d+)\.mlp\.down_proj", r"layers.\1.feed_forward.w2"),
    (r"model\.layers\.(\d+)\.mlp\.up_proj", r"layers.\1.feed_forward.w3"),
]


def original_dense(golden, prefix=""):
    out = {}
    for module, a, b in golden.dense():
        name = prefix + renamed(module, MISTRAL_NAMES)
        out[name + ".lora_A.weight"], out[name + ".lora_B.weight"] = a, in_pairs(golden, module, b)
    return out


def original_experts(golden):
    out = {}
    for module, which, a, b in golden.stacks():
        half = b.shape[1] // 2
        for e in range(golden.experts):
            stem = f"layers.{module.split('.')[2]}.feed_forward.experts.{e}."
            pairs = {"w2": (a[e], b[e])}
            if which == "gate_up":
                pairs = {"w1": (a[e], b[e, :half]), "w3": shuffled(a[e], b[e, half:], ORDER)}
            for word, (in_side, out_side) in pairs.items():
                out[f"{stem}{word}.lora_A.weight"] = in_side
                out[f"{stem}{word}.lora_B.weight"] = out_side
    return out


def params(golden, moe=None):
    q, kv, dim = heads(golden)
    c = golden.base_config
    lora = {"enable": True, "rank": golden.config["r"], "dropout": 0.0, "scaling": golden.scale}
    return {"params.json": {
        "dim": c["hidden_size"], "n_layers": c["num_hidden_layers"], "head_dim": dim,
        "hidden_dim": c["intermediate_size"], "n_heads": q, "n_kv_heads": kv,
        "norm_eps": 1e-5, "vocab_size": c["vocab_size"], "rope_theta": 10000.0, "lora": lora,
        "moe": moe}}


mixtral = Golden(TEST_DATA, "mixtral/peft_params")
mistral_base = dict(llama.base_config, model_type="mistral", architectures=["MistralForCausalLM"])
write_case(ORIGINAL, "mistral_finetune", "original", original_dense(llama), None, mistral_base,
           llama.name, weights="lora.safetensors", files=params(llama))
write_case(ORIGINAL, "mistral_finetune_mixtral", "original",
           original_dense(mixtral) | original_experts(mixtral), None, mixtral.base, mixtral.name,
           weights="lora.safetensors", files=params(mixtral, {"num_experts": 4, "num_experts_per_tok": 2}))
write_case(ORIGINAL, "peft_on_meta", "original", original_dense(llama, PREFIX),
           plain_config(llama.config), llama.base, llama.name)
