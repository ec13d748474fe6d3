"""Attention over a whole sequence: grouped heads with what gpt-oss and Qwen add, and DeepSeek's MLA."""

import numpy as np

from . import rope

LATENT_EPS = 1e-6  # DeepSeek's two latent norms have no eps in the config


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def causal_mask(length, window=None):
    """[query, key]; a window counts the query itself."""
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    return (distance >= 0) & (distance < (window or length))


def probabilities(scores, sinks):
    """Softmax over the keys; a sink joins the sum and is dropped."""
    top = scores.max(axis=-1, keepdims=True)
    if sinks is not None:
        sinks = sinks[:, None, None]
        top = np.maximum(top, sinks)
    weights = np.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / (total if sinks is None else total + np.exp(sinks - top))


def attend(q, k, v, mask, factor, sinks=None):
    """q [n, t, heads, d], k [n, t, kv heads, d], v [n, t, kv heads, dv] -> [n, t, heads * dv]."""
    repeat = q.shape[2] // k.shape[2]
    k, v = np.repeat(k, repeat, axis=2), np.repeat(v, repeat, axis=2)
    scores = factor * np.einsum("nqhd,nkhd->nhqk", q, k)
    scores = np.where(mask, scores, -np.inf)
    mixed = np.einsum("nhqk,nkhd->nqhd", probabilities(scores, sinks), v)
    return mixed.reshape(*mixed.shape[:2], -1)


def window_of(config, layer):
    kinds = config.get("layer_types")
    return config["sliding_window"] if kinds and kinds[layer] == "sliding_attention" else None


def grouped(layer, x):
    """Biases, q and k norms and sinks are there where the layer has weights of them."""
    config = layer.config
    dim, eps = config["head_dim"], config["rms_norm_eps"]
    q, k, v = (layer.linear(f"self_attn.{name}_proj", x).reshape(*x.shape[:2], -1, dim) for name in "qkv")
    if layer.has("self_attn.q_norm.weight"):
        q = rms_norm(q, layer["self_attn.q_norm.weight"], eps)
        k = rms_norm(k, layer["self_attn.k_norm.weight"], eps)
    table = rope.tables(config, dim, x.shape[1])
    sinks = layer["self_attn.sinks"] if layer.has("self_attn.sinks") else None
    mask = causal_mask(x.shape[1], window_of(config, layer.number))
    mixed = attend(rope.rotate(q, table), rope.rotate(k, table), v, mask, dim**-0.5, sinks)
    return layer.linear("self_attn.o_proj", mixed)


def latent_queries(layer, x):
    if not layer.has("self_attn.q_a_proj.weight"):
        return layer.linear("self_attn.q_proj", x)
    latent = rms_norm(layer.linear("self_attn.q_a_proj", x), layer["self_attn.q_a_layernorm.weight"], LATENT_EPS)
    return layer.linear("self_attn.q_b_proj", latent)


def latent_scale(config):
    """YaRN's mscale_all_dim goes into the scores, twice."""
    parameters = config["rope_parameters"]
    factor = (config["qk_nope_head_dim"] + config["qk_rope_head_dim"]) ** -0.5
    if parameters["rope_type"] != "default" and parameters.get("mscale_all_dim"):
        factor *= rope.magnitude(parameters["factor"], parameters["mscale_all_dim"]) ** 2
    return factor


def latent(layer, x):
    """MLA: keys and values come out of one latent vector, and one rotary key serves every head."""
    config, batch = layer.config, x.shape[:2]
    heads, nope, turned = (config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim"))
    q = latent_queries(layer, x).reshape(*batch, heads, nope + turned)
    compressed = layer.linear("self_attn.kv_a_proj_with_mqa", x)
    rank = config["kv_lora_rank"]
    kv = rms_norm(compressed[..., :rank], layer["self_attn.kv_a_layernorm.weight"], LATENT_EPS)
    kv = layer.linear("self_attn.kv_b_proj", kv).reshape(*batch, heads, -1)
    table = rope.tables(config, turned, x.shape[1])
    paired = config.get("rope_interleave", True)
    key_turned = rope.rotate(compressed[..., None, rank:], table, paired)
    q = np.concatenate([q[..., :nope], rope.rotate(q[..., nope:], table, paired)], axis=-1)
    k = np.concatenate([kv[..., :nope], np.repeat(key_turned, heads, axis=2)], axis=-1)
    mixed = attend(q, k, kv[..., nope:], causal_mask(x.shape[1]), latent_scale(config))
    return layer.linear("self_attn.o_proj", mixed)
