"""What a server's kernels make of the buffers it holds, as deltas of a base's weights in fp64.

Written from SGLang's and vLLM's kernels, and from nothing of lib/engine. Buffers come as a list, one dict of
arrays a rank. A weight's rows are the outputs; what is split over ranks is put together here.
"""

import numpy as np

from . import base


class Deltas:
    """Deltas on a copy of the base's weights, as base.load() names them."""

    def __init__(self, config, weights):
        self.config, self.weights, self.changed = config, dict(weights), set()

    def add(self, name, delta, rows=0, columns=0, index=None):
        """At rows and columns of the weight, or of its expert `index`."""
        if name not in self.changed:
            self.weights[name] = self.weights[name].copy()
            self.changed.add(name)
        weight = self.weights[name] if index is None else self.weights[name][index]
        weight[rows : rows + delta.shape[0], columns : columns + delta.shape[1]] += delta

    def rows_of(self, name):
        return self.weights[name].shape[0]

    def has_experts(self, layer):
        return f"model.layers.{layer}.mlp.experts.gate_proj" in self.weights

    def layers(self):
        return range(self.config["num_hidden_layers"])

    def add_gate_up(self, layer, expert, delta, first_unit):
        """delta [2J, H] in the order that the base's own rows have: in turns, or one after the other."""
        gate, up = (part[0] for part in base.split_gate_up(delta[None], self.config))
        experts = f"model.layers.{layer}.mlp.experts"
        self.add(f"{experts}.gate_proj", gate, rows=first_unit, index=expert)
        self.add(f"{experts}.up_proj", up, rows=first_unit, index=expert)


def of_expert(stack, number):
    """A stack of one stands for every expert."""
    return stack[0 if len(stack) == 1 else number]


# ---- SGLang ------------------------------------------------------------------------------------


class SGLang:
    """Scales: dense kernels multiply by alpha / r in fp32; the experts' B holds it already.

    Dense A stacks the parts at the adapter's r. The experts' A has gate's rows at 0 and up's at the pool's rank R,
    and the kernel gives the first half of B's rows the first R rows of A and the second half the next R, which for
    gpt-oss, whose rows are in turns, is not what gate and up are.
    """

    def __init__(self, deltas, ranks, options, adapter_config, halves=True):
        self.deltas, self.ranks, self.halves = deltas, ranks, halves
        self.rank = adapter_config["r"]
        self.scale = float(np.float32(adapter_config["lora_alpha"] / self.rank))
        self.groups = int(options.get("ep-size", 1))
        self.parts = len(ranks) // self.groups  # ranks that share an expert

    def merge(self):
        for number, held in enumerate(self.ranks):
            self.merge_vocabulary(number, held)
            for layer in self.deltas.layers():
                buffers, stem = f"layers.{layer}.", f"model.layers.{layer}."
                qkv = [f"{stem}self_attn.{name}_proj" for name in "qkv"]
                self.merge_columns(buffers + "qkv_proj", qkv, number, held)
                self.merge_row(buffers + "o_proj", stem + "self_attn.o_proj", number, held)
                gate_up = [f"{stem}mlp.{name}_proj" for name in ("gate", "up")]
                self.merge_columns(buffers + "gate_up_proj", gate_up, number, held)
                self.merge_row(buffers + "down_proj", stem + "mlp.down_proj", number, held)
                self.merge_experts(layer, number, held)

    def dense(self, held, buffer, part=0, rows=slice(None)):
        a = held[buffer + ".A"][part * self.rank : (part + 1) * self.rank]
        return self.scale * held[buffer + ".B"][rows, : self.rank] @ a

    def merge_columns(self, buffer, modules, number, held):
        """Each rank has its rows of each module, one module below the other."""
        if buffer + ".B" not in held:
            return
        first = 0
        for part, module in enumerate(modules):
            rows = self.deltas.rows_of(module + ".weight") // len(self.ranks)
            delta = self.dense(held, buffer, part, slice(first, first + rows))
            self.deltas.add(module + ".weight", delta, rows=number * rows)
            first += rows

    def merge_row(self, buffer, module, number, held):
        if buffer + ".B" in held:
            delta = self.dense(held, buffer)
            self.deltas.add(module + ".weight", delta, columns=number * delta.shape[1])

    def merge_vocabulary(self, number, held):
        if "embed_tokens.B" in held and number == 0:  # whole on every rank
            self.deltas.add("model.embed_tokens.weight", self.dense(held, "embed_tokens").T)
        if "lm_head.B" in held:  # the vocabulary is filled up to 64 rows a rank's share, the last share is what is left
            delta, vocabulary = self.dense(held, "lm_head"), self.deltas.rows_of("lm_head.weight")
            first = 0 if number == 0 else vocabulary - len(delta)
            self.deltas.add("lm_head.weight", delta[: vocabulary - first], rows=first)

    def merge_experts(self, layer, number, held):
        stem = f"layers.{layer}."
        if stem + "gate_up_proj_moe.A" not in held:
            return
        buffers = [held[f"{stem}{name}_proj_moe.{side}"] for name in ("gate_up", "down") for side in "AB"]
        if not self.deltas.has_experts(layer):  # SGLang has experts there, and the model has none
            assert not any(buffer.any() for buffer in buffers), f"experts in the dense layer {layer}"
            return
        a13, b13, a2, b2 = buffers
        local = max(len(a13), len(b13), len(a2), len(b2))
        units = a2.shape[2]
        first_unit, first_expert = number % self.parts * units, number // self.parts * local
        name = f"model.layers.{layer}.mlp.experts.down_proj"
        for e in range(local):
            gate_up = self.gate_up(of_expert(a13, e), of_expert(b13, e))
            self.deltas.add_gate_up(layer, first_expert + e, gate_up, first_unit)
            down = of_expert(b2, e) @ of_expert(a2, e)
            self.deltas.add(name, down, columns=first_unit, index=first_expert + e)

    def gate_up(self, a, b):
        half, rank = len(b) // 2, len(a) // 2
        if self.halves or not base.interleaves(self.deltas.config):
            return np.concatenate([b[:half] @ a[:rank], b[half:] @ a[rank:]])
        delta = np.empty((len(b), a.shape[1]))  # as the adapter means it, and no kernel computes it
        delta[0::2], delta[1::2] = b[0::2] @ a[:rank], b[1::2] @ a[rank:]
        return delta


# ---- vLLM --------------------------------------------------------------------------------------


class VLLM:
    """Scales are in B everywhere, and slots are filled up with zeros to max_lora_rank.

    Under fully sharded LoRAs A of a column-parallel module has R / tp rows on each rank, which are gathered, and B
    of a row-parallel one has its rows cut instead: A's partial sums are added up first.
    """

    def __init__(self, deltas, ranks, options, _):
        self.deltas, self.ranks = deltas, ranks
        self.fully = options.get("fully-sharded-loras") == "on"
        self.whole_experts = options.get("enable-expert-parallel") == "on"

    def merge(self):
        self.merge_vocabulary()
        for layer in self.deltas.layers():
            attention = "attn" if self.deltas.config["model_type"] == "gpt_oss" else "self_attn"
            held, stem = f"model.layers.{layer}.{attention}.", f"model.layers.{layer}.self_attn."
            for index, name in enumerate("qkv"):
                self.merge_column(held + "qkv_proj", index, f"{stem}{name}_proj.weight")
            self.merge_row(held + "o_proj", stem + "o_proj.weight")
            self.merge_router(layer)
            self.merge_mlp(layer)

    def side(self, module, side, index, number):
        """None for a module that is not wrapped."""
        buffer = self.ranks[number].get(f"{module}.{side}_stacked.{index}")
        return None if buffer is None else buffer[0]

    def sides(self, module, side, index=0):
        return [self.side(module, side, index, number) for number in range(len(self.ranks))]

    def merge_column(self, module, index, weight):
        a, b = self.sides(module, "lora_a", index), self.sides(module, "lora_b", index)
        if a[0] is None:
            return
        first = 0
        for number in range(len(self.ranks)):
            factor = np.concatenate([part[0] for part in a]) if self.fully else a[number][0]
            self.deltas.add(weight, b[number][0] @ factor, rows=first)
            first += b[number].shape[1]

    def merge_row(self, module, weight):
        a, b = self.sides(module, "lora_a"), self.sides(module, "lora_b")
        if a[0] is None:
            return
        if self.fully:
            b = [np.concatenate([part[0] for part in b])[None]] * len(b)
        width = a[0].shape[2]
        for number in range(len(self.ranks)):
            self.deltas.add(weight, b[number][0] @ a[number][0], columns=number * width)

    def merge_router(self, layer):
        name = "router" if self.deltas.config["model_type"] == "gpt_oss" else "gate"
        module = f"model.layers.{layer}.mlp.{name}"
        a = self.side(module, "lora_a", 0, 0)  # the same on every rank
        if a is not None:
            self.deltas.add(module + ".weight", self.side(module, "lora_b", 0, 0)[0] @ a[0])

    def merge_vocabulary(self):
        a = self.side("model.embed_tokens", "lora_a", 0, 0)
        if a is not None:
            self.deltas.add("model.embed_tokens.weight", a @ self.side("model.embed_tokens", "lora_b", 0, 0)[0].T)
        a = self.side("lm_head", "lora_a", 0, 0)
        if a is not None:
            self.deltas.add("lm_head.weight", self.side("lm_head", "lora_b", 0, 0)[0] @ a[0])

    def merge_mlp(self, layer):
        stem = f"model.layers.{layer}.mlp."
        if self.deltas.has_experts(layer):
            for number in range(len(self.ranks)):
                self.merge_experts(layer, number)
            return
        for index, name in enumerate(("gate", "up")):
            self.merge_column(stem + "gate_up_proj", index, f"{stem}{name}_proj.weight")
        self.merge_row(stem + "down_proj", stem + "down_proj.weight")

    def merge_experts(self, layer, number):
        module = f"model.layers.{layer}.mlp.experts"
        b13 = self.side(module, "w13_lora_b", 0, number)
        if b13 is None:
            return
        a2, b2 = self.side(module, "w2_lora_a", 0, number), self.side(module, "w2_lora_b", 0, number)
        local, units = len(a2), a2.shape[2]
        first_expert, first_unit = (number * local, 0) if self.whole_experts else (0, number * units)
        for e in range(local):
            self.deltas.add_gate_up(layer, first_expert + e, self.gate_up(module, number, e), first_unit)
            self.add_down(module, number, e, first_expert, first_unit, a2, b2)

    def gate_up(self, module, number, e):
        """One pair for both, its rows as the base has them; or a pair each."""
        found = []
        for index in (0, 1):
            b = self.side(module, "w13_lora_b", index, number)
            if b is not None:
                a = self.sides(module, "w13_lora_a", index)
                factor = [of_expert(part, e) for part in (a if self.fully else [a[number]])]
                found.append(of_expert(b, e) @ np.concatenate(factor))
        return np.concatenate(found)

    def add_down(self, module, number, e, first_expert, first_unit, a2, b2):
        b, name = of_expert(b2, e), module + ".down_proj"
        if self.fully:
            a = np.concatenate([of_expert(part, e) for part in self.sides(module, "w2_lora_a")], axis=1)
            self.deltas.add(name, b @ a, rows=number * len(b), index=first_expert + e)
        else:
            self.deltas.add(name, b @ of_expert(a2, e), columns=first_unit, index=first_expert + e)


SERVERS = {"sglang": SGLang, "vllm": VLLM}
