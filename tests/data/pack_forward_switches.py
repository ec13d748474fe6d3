#!/usr/bin/env python3
"""Makes forward_switches/ for pack.sh: what config keys do that the goldens leave at one value.

    pack_forward_switches.py OUT      (then: pack.sh OUT forward_switches)

Needs torch and transformers. Each case is a tiny random model, saved, its config changed as older ones
are written, loaded again and asked. transformers computes norms, routers, rotary tables and recurrences
in float32 whatever the weights are; here `torch.float32` means float64 to its modeling files, so that the
answers are those of its formulas, without rounding.
"""
import importlib
import json
import os
import sys
import types

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1")
import torch
import transformers
from safetensors.torch import save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

TOKENS = (2, 70)  # more than one chunk of the linear mixers
SPREAD = 0.2  # added to what weights are initialized with, norms too

COMMON = dict(vocab_size=50, hidden_size=24, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
              num_hidden_layers=2, num_experts_per_tok=2, pad_token_id=None)
QWEN = dict(COMMON, head_dim=8, num_experts=5, moe_intermediate_size=10, shared_expert_intermediate_size=12,
            intermediate_size=20, linear_num_key_heads=2, linear_key_head_dim=5, linear_num_value_heads=4,
            linear_value_head_dim=6)
GRANITE = dict(COMMON, num_local_experts=5, intermediate_size=10, shared_intermediate_size=12, mamba_n_heads=6,
               mamba_d_head=8, mamba_d_state=5, mamba_chunk_size=16, layer_types=["linear_attention", "full_attention"])
LFM2 = dict(COMMON, num_experts=5, moe_intermediate_size=10, intermediate_size=20, num_hidden_layers=3,
            num_dense_layers=1, layer_types=["conv", "full_attention", "conv"])
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4,
        "partial_rotary_factor": 0.5}

# name: model_type, its config, and keys of the saved config.json that are set, or left out with None.
CASES = {
    "qwen3_next_dense_layers": (
        "qwen3_next",
        dict(QWEN, num_hidden_layers=4, full_attention_interval=2, mlp_only_layers=[1], norm_topk_prob=False,
             rope_parameters=YARN),
        {}),
    "qwen3_next_older_keys": (
        "qwen3_next",
        dict(QWEN, num_hidden_layers=4, decoder_sparse_step=2, attention_bias=True, linear_num_key_heads=4,
             linear_conv_kernel_dim=3),
        {"rope_parameters": None, "layer_types": None, "full_attention_interval": 4, "rope_theta": 5000.0}),
    "qwen3_5_moe_text": (
        "qwen3_5_moe_text",
        dict(QWEN, num_hidden_layers=3, linear_num_value_heads=6, attention_bias=True, tie_word_embeddings=True,
             layer_types=["full_attention", "linear_attention", "linear_attention"]),
        {}),
    "qwen3_5_text": ("qwen3_5_text", dict(QWEN, layer_types=["linear_attention", "full_attention"]), {}),
    "granitemoehybrid_multipliers": (
        "granitemoehybrid",
        dict(GRANITE, embedding_multiplier=12.0, residual_multiplier=0.22, attention_multiplier=0.0625,
             logits_scaling=6.0, mamba_n_groups=3, mamba_conv_bias=False, mamba_proj_bias=True,
             time_step_limit=[0.7, 1.2]),
        {}),
    "granitemoehybrid_dense": (
        "granitemoehybrid",
        dict(GRANITE, num_local_experts=0, attention_bias=True, mamba_n_groups=2, position_embedding_type="rope",
             tie_word_embeddings=True),
        {"time_step_limit": None, "mamba_d_head": "auto"}),
    "lfm2_moe_biased": (
        "lfm2_moe",
        dict(LFM2, conv_bias=True, norm_topk_prob=False, use_expert_bias=False, routed_scaling_factor=2.5,
             conv_L_cache=4),
        {}),
    "lfm2_moe_untied": (
        "lfm2_moe",
        dict(LFM2, num_dense_layers=0, conv_L_cache=1, tie_word_embeddings=False),
        {"rope_parameters": None, "rope_theta": 5000.0}),
}


class Float64Torch(types.ModuleType):
    """torch, but for what its float32 is."""

    float32 = torch.float64
    float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def lift(model_type):
    family = model_type.removesuffix("_text")
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    module.torch = transformers.modeling_rope_utils.torch = Float64Torch("torch")
    torch.Tensor.float = torch.Tensor.double


def exact_rotations(model):
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            plain = module.rope_type == "default"
            make = module.compute_default_rope_parameters if plain else ROPE_INIT_FUNCTIONS[module.rope_type]
            module.inv_freq, module.attention_scaling = make(module.config, device="cpu")
            assert module.inv_freq.dtype == torch.float64


def save_random(model_type, keys, folder):
    config = transformers.AutoConfig.for_model(model_type, **keys)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in list(model.named_parameters()) + list(model.named_buffers()):
            if "inv_freq" not in name:
                weight += SPREAD * torch.randn_like(weight)
    model.to(torch.bfloat16).save_pretrained(folder)
    os.remove(folder + "/generation_config.json")


def edit(path, changes):
    with open(path) as file:
        config = json.load(file)
    config.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del config[key]
    with open(path, "w") as file:
        json.dump(config, file, indent=2)
        file.write("\n")


def answer(folder, ids):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager").eval()
    exact_rotations(model)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    assert logits.dtype == torch.float64
    return torch.log_softmax(logits, -1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]


def main():
    out = sys.argv[1] + "/forward_switches"
    torch.set_default_dtype(torch.float32)
    for seed, (name, (model_type, keys, changes)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        folder = f"{out}/{name}"
        save_random(model_type, keys, folder)
        edit(folder + "/config.json", changes)
        ids = torch.randint(0, keys["vocab_size"], TOKENS)
        lift(model_type)
        torch.set_default_dtype(torch.float64)
        scores = answer(folder, ids)
        torch.set_default_dtype(torch.float32)
        save_file({"input_ids": ids, "token_logprobs": scores.contiguous()}, folder + "/answers.safetensors")
        print(name, "scores from", scores.min().item())


if __name__ == "__main__":
    main()
