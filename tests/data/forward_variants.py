"""Configs that the goldens' bases do not have: what is replaced in config.json, over the same weights.

The goldens leave multipliers at one, windows and chunks longer than the tokens, and RoPE mostly plain.
"""

ORIGINAL = 16  # shorter than the 24 tokens, so that scaled positions differ


def rope(kind, theta=10000.0, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def yarn(**more):
    return rope("yarn", original_max_position_embeddings=ORIGINAL, beta_fast=32.0, beta_slow=1.0, **more)


def longrope(pairs):
    short, long = [1 + 0.1 * i for i in range(pairs)], [2 + 0.5 * i for i in range(pairs)]
    return {"short_factor": short, "long_factor": long, "original_max_position_embeddings": ORIGINAL}


GRANITE = {"embedding_multiplier": 12.0, "attention_multiplier": 0.0625, "residual_multiplier": 0.22,
           "logits_scaling": 6.0}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": ORIGINAL}

VARIANTS = {
    "gpt_oss": {
        "yarn_truncated": yarn(factor=32.0, truncate=True),
        "yarn_attention_factor": yarn(factor=32.0, truncate=False, attention_factor=1.25),
        "plain_rope": rope("default"),
        "full_then_sliding": {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 3},
        "swiglu": {"swiglu_limit": 0.5, "swiglu_alpha": 1.5},
        "one_expert": {"num_experts_per_tok": 1},
    },
    "qwen3_moe": {
        "not_renormalised": {"norm_topk_prob": False},
        "yarn": yarn(factor=4.0),
        "eps": {"rms_norm_eps": 1e-2},
    },
    "qwen2_moe": {"renormalised": {"norm_topk_prob": True}},
    "mixtral": {"window": {"sliding_window": 5}},
    "deepseek_v3": {
        "yarn_mscale": yarn(factor=40.0, mscale=1.0, mscale_all_dim=0.8),
        "halves": {"rope_interleave": False},
        "not_renormalised": {"norm_topk_prob": False, "routed_scaling_factor": 1.5},
        "eps": {"rms_norm_eps": 1e-2},
        "both_groups": {"topk_group": 2, "num_experts_per_tok": 5},
    },
    "glm4_moe": {
        "groups": {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 3, "routed_scaling_factor": 2.5},
        "whole_rotary": rope("default", partial_rotary_factor=1.0),
        "not_renormalised": {"norm_topk_prob": False},
    },
    "llama": {
        "llama3": rope("llama3", **LLAMA3),
        "linear": rope("linear", factor=4.0),
        "yarn": yarn(factor=4.0),
        "dynamic": {**rope("dynamic", factor=2.0), "max_position_embeddings": ORIGINAL},
    },
    "qwen3": {"window": {"use_sliding_window": True, "sliding_window": 5,
                         "layer_types": ["sliding_attention", "full_attention"]}},
    "phi3": {
        "partial": rope("default", partial_rotary_factor=0.5),
        "longrope": {**rope("longrope", **longrope(5)), "original_max_position_embeddings": ORIGINAL},
        "window": {"sliding_window": 5},
    },
    "phimoe": {"longrope": {**rope("longrope", short_mscale=1.1, long_mscale=1.3, **longrope(5)),
                            "original_max_position_embeddings": ORIGINAL}},
    "gemma3_text": {
        "soft_caps": {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 20},
        "full": {"layer_types": ["sliding_attention", "full_attention"]},
    },
    "gemma4_moe_text": {"no_soft_cap": {"final_logit_softcapping": None}},
    "granitemoe": {"multipliers": GRANITE},
    "granitemoeshared": {"multipliers": GRANITE},
    "granitemoehybrid": {"multipliers": GRANITE, "no_positions": {"position_embedding_type": "nope"}},
    "llama4_text": {
        "no_rope": {"no_rope_layers": [1, 0], "layer_types": ["chunked_attention", "full_attention"],
                    "floor_scale": 4},
        "no_rope_untuned": {"no_rope_layers": [1, 0], "layer_types": ["chunked_attention", "full_attention"],
                            "attn_temperature_tuning": False},
        "chunks": {"attention_chunk_size": 7},
        "no_norm": {"use_qk_norm": False},
        "two_experts": {"num_experts_per_tok": 2},
    },
    "olmoe": {"renormalised": {"norm_topk_prob": True}, "clipped": {"clip_qkv": 0.5}},
    "minimax_m2": {"partial": rope("default", 5000000.0, partial_rotary_factor=0.5)},
    "dots1": {"scaled": {"routed_scaling_factor": 2.5, "norm_topk_prob": False}},
    "ernie4_5_moe": {"least_norm": {"moe_norm_min": 0.9}},
    "lfm2_moe": {"scaled": {"routed_scaling_factor": 1.5, "norm_topk_prob": False},
                 "no_bias": {"use_expert_bias": False}},
    "hunyuan_v1_moe": {"alpha": rope("dynamic", factor=1.0, alpha=1000.0)},
    "qwen3_next": {"half_rotary": rope("default", partial_rotary_factor=0.5),
                   "not_renormalised": {"norm_topk_prob": False}},
    "glm4_moe_lite": {"halves": {"rope_interleave": False}},
    "deepseek_v32": {"every_token": {"index_topk": 64}},
    "glm_moe_dsa": {"every_token": {"index_topk": 64}},
}
