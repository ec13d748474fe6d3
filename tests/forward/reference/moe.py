"""Dense MLPs, routers and routed experts. Tokens are [T, H]."""

import numpy as np

GPT_OSS_LIMIT, GPT_OSS_ALPHA = 7.0, 1.702  # what transformers takes where a config has no swiglu_limit


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softmax(x):
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def top(scores, count):
    return np.argsort(-scores, axis=-1, kind="stable")[..., :count]


def gpt_oss_router(layer, tokens):
    """Softmax over the chosen logits alone."""
    logits = layer.linear("mlp.router", tokens)
    chosen = top(logits, layer.config["num_experts_per_tok"])
    return chosen, softmax(np.take_along_axis(logits, chosen, -1))


def qwen_router(layer, tokens):
    weights = softmax(layer.linear("mlp.gate", tokens))
    chosen = top(weights, layer.config["num_experts_per_tok"])
    weights = np.take_along_axis(weights, chosen, -1)
    if layer.config.get("norm_topk_prob"):
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return chosen, weights


def kept_groups(scores, groups, kept):
    """Scores of groups that are not among the best by the sum of their two best become -inf."""
    grouped = scores.reshape(len(scores), groups, -1)
    best = np.sort(grouped, axis=-1)[..., -2:].sum(axis=-1)
    mask = np.zeros_like(best, dtype=bool)
    np.put_along_axis(mask, top(best, kept), True, axis=-1)
    return np.where(mask[..., None], grouped, -np.inf).reshape(scores.shape)


def deepseek_router(layer, tokens):
    """The correction bias has a say in the choice only."""
    config = layer.config
    scores = sigmoid(layer.linear("mlp.gate", tokens))
    wanted = scores + layer["mlp.gate.e_score_correction_bias"]
    chosen = top(kept_groups(wanted, config["n_group"], config["topk_group"]), config["num_experts_per_tok"])
    weights = np.take_along_axis(scores, chosen, -1)
    if config["norm_topk_prob"]:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + 1e-20)
    return chosen, weights * config["routed_scaling_factor"]


ROUTERS = {"gpt_oss": gpt_oss_router, "qwen3_moe": qwen_router, "deepseek_v3": deepseek_router}


def silu_gate(gate, up, config):
    return silu(gate) * up


def gpt_oss_gate(gate, up, config):
    """Clamped on one side and on both; config.json of older files has no limit."""
    limit, alpha = config.get("swiglu_limit", GPT_OSS_LIMIT), config.get("swiglu_alpha", GPT_OSS_ALPHA)
    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return (up + 1) * gate * sigmoid(alpha * gate)


def expert(layer, number, tokens):
    """Biases are part of the output that the router's weight multiplies."""
    def project(name, x):
        y = x @ layer[f"mlp.experts.{name}"][number].T
        bias = f"mlp.experts.{name}_bias"
        return y + layer[bias][number] if layer.has(bias) else y

    activation = gpt_oss_gate if layer.config["model_type"] == "gpt_oss" else silu_gate
    return project("down_proj", activation(project("gate_proj", tokens), project("up_proj", tokens), layer.config))


def routed(layer, tokens):
    chosen, weights = ROUTERS[layer.config["model_type"]](layer, tokens)
    total = np.zeros_like(tokens)
    for number in range(len(layer["mlp.experts.down_proj"])):
        rows, slots = np.nonzero(chosen == number)
        total[rows] += weights[rows, slots, None] * expert(layer, number, tokens[rows])
    return total


def dense(layer, stem, tokens):
    gate, up = (layer.linear(f"{stem}.{name}_proj", tokens) for name in ("gate", "up"))
    return layer.linear(f"{stem}.down_proj", silu(gate) * up)


def mlp(layer, x):
    """A layer is dense where it holds no routed experts."""
    tokens = x.reshape(-1, x.shape[-1])
    if not layer.has("mlp.experts.down_proj"):
        return dense(layer, "mlp", tokens).reshape(x.shape)
    total = routed(layer, tokens)
    if layer.has("mlp.shared_experts.down_proj.weight"):
        total = total + dense(layer, "mlp.shared_experts", tokens)
    return total.reshape(x.shape)
