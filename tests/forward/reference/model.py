"""The whole model: embedding, layers, final norm, head, and the log-probability of each next token."""

import numpy as np

from . import adapter, attention, base, moe

ATTENTION = {
    "gpt_oss": attention.grouped,
    "qwen3_moe": attention.grouped,
    "deepseek_v3": attention.latent,
    "llama": attention.grouped,
    "qwen3": attention.grouped,
}
SUPPORTED = frozenset(ATTENTION)


class Layer:
    """Weights of model.layers.N by the rest of their name."""

    def __init__(self, config, weights, number):
        self.config, self.number = config, number
        self._weights, self._stem = weights, f"model.layers.{number}."

    def has(self, name):
        return self._stem + name in self._weights

    def __getitem__(self, name):
        return self._weights[self._stem + name]

    def linear(self, name, x):
        y = x @ self[name + ".weight"].T
        return y + self[name + ".bias"] if self.has(name + ".bias") else y


def run_layer(layer, x):
    eps = layer.config["rms_norm_eps"]
    attend = ATTENTION[layer.config["model_type"]]
    x = x + attend(layer, attention.rms_norm(x, layer["input_layernorm.weight"], eps))
    return x + moe.mlp(layer, attention.rms_norm(x, layer["post_attention_layernorm.weight"], eps))


def head(config, weights):
    return weights["model.embed_tokens.weight" if config.get("tie_word_embeddings") else "lm_head.weight"]


def logits(config, weights, ids):
    """[n, t, vocabulary] of ids [n, t]."""
    x = weights["model.embed_tokens.weight"][ids]
    for number in range(config["num_hidden_layers"]):
        x = run_layer(Layer(config, weights, number), x)
    return attention.rms_norm(x, weights["model.norm.weight"], config["rms_norm_eps"]) @ head(config, weights).T


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def token_logprobs(base_folder, ids, adapter_folder=None, changes=None):
    """[n, t-1]: of each token but the first, given those before it; ids is [n, t] without padding. changes
    replace keys of config.json."""
    config, weights = base.load(base_folder, changes)
    if config["model_type"] not in SUPPORTED:
        raise ValueError(f"{base_folder}: no reference of {config['model_type']}")
    if adapter_folder is not None:
        weights = adapter.merged(config, weights, adapter_folder)
    return logprobs_of(config, weights, ids)


def logprobs_of(config, weights, ids):
    """The same of weights as base.load() names them."""
    ids = np.asarray(ids)
    scores = log_softmax(logits(config, weights, ids)[:, :-1])
    return np.take_along_axis(scores, ids[:, 1:, None], -1)[..., 0]
