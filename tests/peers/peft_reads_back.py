#!/usr/bin/env python3
"""What real PEFT saves of families whose experts are stored in ways of their own, converted to a pair for each
expert (or left as it is, where each expert is a Linear): the product of each pair in fp64 against what PEFT itself
adds to the weights when it merges.

    peft_reads_back.py BUILD               (run.sh says more)

The reference knows nothing of moelora: transformers' parameters before and after PEFT's merge_and_unload().
"""
import json, subprocess, sys, tempfile, warnings

import peft, torch, transformers
from safetensors.torch import load_file

RANK, ALPHA, SEED = 3, 5, 11
TOLERANCE = 1e-6  # of the largest element of a weight's delta: PEFT merges in fp32


def convert(build, *words):
    return subprocess.run([f"{build}/bin/lora-convert", "adapter", *words, "--no-sync"], capture_output=True, text=True)


def trained(base, folder, auto, **targets):
    """The adapter that PEFT saves into `folder`, and what it adds to each weight."""
    torch.manual_seed(SEED)
    model = auto.from_config(transformers.AutoConfig.from_pretrained(base)).to(torch.float32)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, **targets))
    for name, p in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.3)
    adapted.save_pretrained(folder)
    after = dict(adapted.merge_and_unload().named_parameters())
    return {n: (after[n] - before[n]).detach().double() for n in before if not torch.equal(after[n], before[n])}


class Written:
    """The pairs of an adapter of one scale."""

    def __init__(self, folder):
        self.tensors = load_file(f"{folder}/adapter_model.safetensors")
        with open(f"{folder}/adapter_config.json") as file:
            config = json.load(file)
        assert not config.get("alpha_pattern") and not config.get("rank_pattern"), config
        self.scale = config["lora_alpha"] / config["r"]

    def delta(self, module):
        a, b = (self.tensors[f"base_model.model.{module}.lora_{side}.weight"].double() for side in "AB")
        return self.scale * b @ a


def dbrx(deltas, config):
    """(module, delta) of each expert: rows of one matrix, down not transposed."""
    width = config.ffn_config.ffn_hidden_size
    for name, whole in deltas.items():
        stem, _, leaf = name.rpartition(".mlp.")
        if not stem:
            yield name.removesuffix(".weight"), whole
            continue
        for expert, rows in enumerate(whole.split(width)):
            projection = {"w1": "gate_proj", "v1": "up_proj", "w2": "down_proj"}[leaf]
            yield f"{stem}.{expert}.{projection}", rows.T if leaf == "w2" else rows


def jetmoe(deltas, config):
    for name, whole in deltas.items():
        stem, _, leaf = name.rpartition(".mlp.")
        if not stem:
            yield name.removesuffix(".weight"), whole
            continue
        for expert, delta in enumerate(whole):
            parts = {"down_proj": delta}
            if leaf == "input_linear.weight":
                parts = dict(zip(("gate_proj", "up_proj"), delta.chunk(2)))
            for projection, part in parts.items():
                yield f"{stem}.mlp.experts.{expert}.{projection}", part


def linears(deltas, config):
    for name, delta in deltas.items():
        yield name.removesuffix(".weight"), delta


CAUSAL, BOTH = transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM
FAMILIES = {
    "dbrx": (CAUSAL, {"target_modules": ["Wqkv"], "target_parameters": ["mlp.w1", "mlp.v1", "mlp.w2"]}, dbrx),
    "jetmoe": (CAUSAL, {"target_modules": ["kv_proj"],
                        "target_parameters": ["mlp.input_linear.weight", "mlp.output_linear.weight"]}, jetmoe),
    "nllb_moe": (BOTH, {"target_modules": ["fc1", "fc2", "q_proj", "out_proj"]}, linears),
    "switch_transformers": (BOTH, {"target_modules": ["wi", "wo", "q", "v"]}, linears),
}


def check(build, family):
    auto, targets, experts = FAMILIES[family]
    base = f"{build}/test_data/families/{family}"
    with tempfile.TemporaryDirectory() as temp:
        deltas = trained(base, f"{temp}/saved", auto, **targets)
        done = convert(build, f"{temp}/saved", f"{temp}/out", "--to", "peft-linear", "--base", base, "--verify")
        if done.returncode != 0:
            return done.stderr
        written, worst, pairs = Written(f"{temp}/out"), 0.0, 0
        for module, want in experts(deltas, transformers.AutoConfig.from_pretrained(base)):
            got = written.delta(module)
            if got.shape != want.shape:
                return f"{module} is {tuple(got.shape)}, not {tuple(want.shape)}"
            worst, pairs = max(worst, ((got - want).abs().max() / want.abs().max()).item()), pairs + 1
        if 2 * pairs != len(written.tensors):
            return f"{len(written.tensors)} tensors were written, {2 * pairs} compared"
        print(f"{family}: {pairs} pairs, off by at most {worst:.1e} of the largest element")
        return "" if worst < TOLERANCE else f"more than {TOLERANCE}"


def main():
    warnings.simplefilter("ignore")
    faults = {family: check(sys.argv[1], family) for family in FAMILIES}
    for family, fault in faults.items():
        if fault:
            print(f"{family}: {fault}", file=sys.stderr)
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
