"""An adapter put into a base's weights in fp64: W + scale B A, and what else PEFT saves.

Read are PEFT's pairs, DoRA magnitudes, lora_bias, embeddings, saved modules, stacked parameters of
experts, numbered experts, and Tinker's stacks with a shared outer factor.
"""

import math
import re

import numpy as np

from . import base, files

PART = re.compile(r"(?:base_model\.model\.)?(.*?)\.(lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|"
                  r"lora_embedding_B|lora_magnitude_vector)")
STACKED = re.compile(r"(.*\.experts)(\.base_layer)?")
NUMBERED = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)")
SHARED_OUTER = re.compile(r"(.*\.experts)\.(w1|w2|w3)")
LETTERS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def canonical_module(module):
    """Tinker's two names of its own, and no others."""
    if module == "model.unembed_tokens":
        return "lm_head"
    return module.replace(".attn.", ".self_attn.")


def parts_by_module(tensors):
    """({module: {part: tensor}}, {weight: tensor} that replaces the base's)."""
    modules, saved = {}, {}
    for name, tensor in tensors.items():
        match = PART.fullmatch(name)
        if match:
            modules.setdefault(canonical_module(match[1]), {})[match[2]] = tensor
        else:
            saved[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = tensor
    return modules, saved


def of_pattern(patterns, name, default):
    """PEFT's rule: the first key that is the name's end after a dot, or all of it; a key is a regular expression."""
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default


def scale(config, name, rank):
    expected = of_pattern(config.get("rank_pattern"), name, config["r"])
    if expected != rank:
        raise ValueError(f"{name}: rank {rank}, and the config says {expected}")
    alpha = of_pattern(config.get("alpha_pattern"), name, config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


class Merger:
    def __init__(self, base_config, weights, config):
        self.base_config, self.weights, self.config = base_config, weights, config

    def merge(self, module, parts):
        if "lora_embedding_A" in parts:
            self.merge_embedding(module, parts)
        elif match := NUMBERED.fullmatch(module):
            self.merge_numbered(match, parts)
        elif match := SHARED_OUTER.fullmatch(module):
            self.merge_shared_outer(match, parts)
        elif (match := STACKED.fullmatch(module)) and module + ".weight" not in self.weights:
            self.merge_stacked(match[1], parts)
        else:
            self.merge_module(module, parts)

    def scale(self, module, rank):
        return scale(self.config, module, rank)

    def add(self, name, delta, index=...):
        """A copy, as a tensor of the base may be a view of bytes that cannot be written."""
        if delta.shape != self.weights[name][index].shape:
            raise ValueError(f"{name}: a delta of {delta.shape} for {self.weights[name][index].shape}")
        changed = self.weights[name].copy()
        changed[index] += delta
        self.weights[name] = changed

    def merge_embedding(self, module, parts):
        a, b = parts["lora_embedding_A"], parts["lora_embedding_B"]
        self.add(module + ".weight", self.scale(module, len(a)) * (b @ a).T)

    def merge_module(self, module, parts):
        a, b = parts["lora_A.weight"], parts["lora_B.weight"]
        factor = self.scale(module, len(a))
        name = module + ".weight"
        self.add(name, factor * (b @ a))
        if "lora_magnitude_vector" in parts:
            length = np.linalg.norm(self.weights[name], axis=1)
            self.weights[name] = self.weights[name] * (parts["lora_magnitude_vector"] / length)[:, None]
        if "lora_B.bias" in parts:
            bias = self.weights.get(module + ".bias", 0)
            self.weights[module + ".bias"] = bias + factor * parts["lora_B.bias"]

    def merge_numbered(self, match, parts):
        a, b = parts["lora_A.weight"], parts["lora_B.weight"]
        self.add(f"{match[1]}.{match[3]}", self.scale(match[0], len(a)) * (b @ a), int(match[2]))

    def merge_shared_outer(self, match, parts):
        """A leading 1 stands for every expert."""
        a, b = parts["lora_A.weight"], parts["lora_B.weight"]
        self.add(f"{match[1]}.{LETTERS[match[2]]}", self.scale(match[0], a.shape[1]) * (b @ a))

    def merge_stacked(self, experts, parts):
        name, delta = self.stacked_delta(experts, parts["lora_A.weight"], parts["lora_B.weight"])
        if name == "down_proj":
            self.add(experts + ".down_proj", delta)
            return
        gate, up = base.split_gate_up(delta, self.base_config)
        self.add(experts + ".gate_proj", gate)
        self.add(experts + ".up_proj", up)

    def stacked_delta(self, experts, a, b):
        """(parameter, [E, out, in]). PEFT's names do not say which parameter a pair belongs to, nor, before
        0.19, which factor is on the input: the shapes do."""
        count, inner, hidden = self.weights[experts + ".gate_proj"].shape
        rank = len(a) // count
        a, b = a.reshape(count, rank, -1), self.columns(b, count, rank)
        shape = (b.shape[1], a.shape[2])
        for name, wanted in (("gate_up_proj", (2 * inner, hidden)), ("down_proj", (hidden, inner))):
            delta = b @ a
            if shape == wanted[::-1] != wanted:
                delta = delta.swapaxes(1, 2)
            elif shape != wanted:
                continue
            return name, self.scale(f"{experts}.{name}", rank) * delta
        raise ValueError(f"{experts}: no parameter is {shape}")

    def columns(self, b, count, rank):
        """[E, out, r]: column k E + e, or e r + k where the writer says so."""
        if self.config.get("lora_B_layout") == "grouped_by_expert":
            return b.reshape(-1, count, rank).transpose(1, 0, 2)
        return b.reshape(-1, rank, count).transpose(2, 0, 1)


def merged(base_config, weights, folder):
    """The base's weights with the adapter of the folder in them."""
    config = files.read_config(folder, "adapter_config.json")
    modules, saved = parts_by_module(files.read_folder(folder, "adapter_model"))
    for name in saved:
        if name not in weights:
            raise ValueError(f"{name}: the base has no such weight")
    merger = Merger(base_config, weights | saved, config)
    for module, parts in sorted(modules.items()):
        merger.merge(module, parts)
    return merger.weights
