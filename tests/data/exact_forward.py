#!/usr/bin/env python3
"""Makes forward_exact/ for pack.sh: what transformers computes when none of it is left in fp32.

    exact_forward.py TEST_DATA OUT      (then: pack.sh OUT forward_exact)

TEST_DATA is the unpacked test data. Wants torch, transformers and peft. transformers names fp32 in norms, softmax,
RoPE tables and routers whatever the model's dtype is; here those names mean fp64 while a model is built and run. PEFT
puts the adapter on; where it cannot (numbered experts), the pairs are added to the numbered weights of the
checkpoint. The golden must be near: fp32 in the gated delta rule of qwen3_5_moe_text costs it 8e-5, all else 2e-5.
"""
import contextlib
import json
import pathlib
import shutil
import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from forward_variants import VARIANTS

TOLERANCE = 1e-4
PREFIX = "base_model.model."
NO_PEFT = ("tinker", "per_expert")


@contextlib.contextmanager
def nothing_in_fp32():
    """Not while fp32 files are read: their reader asks torch for the type by its name."""
    kept = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = kept
        torch.set_default_dtype(torch.float32)


def load(folder):
    with nothing_in_fp32():
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager").eval()


def token_logprobs(model, ids):
    with torch.no_grad(), nothing_in_fp32():
        logits = model.double()(input_ids=ids, use_cache=False).logits
        scores = torch.log_softmax(logits, -1)[:, :-1]
    assert scores.dtype == torch.float64
    return scores.gather(-1, ids[:, 1:, None])[..., 0].contiguous()


def with_numbered_pairs(base, adapter, out):
    """The checkpoint with scale B A added to each weight of the pair's own name."""
    weights = {name: t.double() for name, t in load_file(base / "model.safetensors").items()}
    config = json.loads((adapter / "adapter_config.json").read_text())
    pairs = load_file(adapter / "adapter_model.safetensors")
    for name, a in pairs.items():
        if name.endswith(".lora_A.weight"):
            b = pairs[name.replace("lora_A", "lora_B")].double()
            weight = name[len(PREFIX) :].replace(".lora_A.weight", ".weight")
            weights[weight] = weights[weight] + config["lora_alpha"] / config["r"] * (b @ a.double())
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(base / "config.json", out)


def answer(data, row, ids):
    base = data / row["base"]
    if "adapter" not in row:
        return token_logprobs(load(base), ids)
    if row["name"] in NO_PEFT:
        with tempfile.TemporaryDirectory() as folder:
            with_numbered_pairs(base, data / row["adapter"], pathlib.Path(folder))
            return token_logprobs(load(folder), ids)
    model = PeftModel.from_pretrained(load(base), str(data / row["adapter"]), autocast_adapter_dtype=False)
    return token_logprobs(model, ids)


def answers(data, family, rows):
    golden = load_file(data / "forward" / family / "answers.safetensors")
    found = {}
    for row in rows:
        key = row["name"] + ".token_logprobs"
        try:
            scores = answer(data, row, golden["input_ids"])
            error = float((scores - golden[key]).abs().max())
        except Exception as problem:  # what neither way loads is told, and left out
            print(f"{family}/{row['name']}: none: {str(problem).splitlines()[0][:200]!r}", flush=True)
            continue
        print(f"{family}/{row['name']}: {error:.1e} from the golden", flush=True)
        if not error < TOLERANCE:
            raise SystemExit(f"{family}/{row['name']}: that is too far")
        found[key] = scores
    return found


def variant(base, changes, ids):
    with tempfile.TemporaryDirectory() as folder:
        config = json.loads((base / "config.json").read_text())
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(config | changes))
        shutil.copy(base / "model.safetensors", folder)
        return token_logprobs(load(folder), ids)


def variants(data, bases):
    """(rows for the tests, answers): each variant's distance from its plain base is printed, as zero proves nothing."""
    rows, found = [], {}
    for family, named in VARIANTS.items():
        ids = load_file(data / "forward" / family / "answers.safetensors")["input_ids"]
        plain = token_logprobs(load(data / bases[family]), ids)
        for name, changes in named.items():
            scores = variant(data / bases[family], changes, ids)
            print(f"{family}/{name}: {float((scores - plain).abs().max()):.1e} from the base", flush=True)
            rows.append({"family": family, "name": name, "base": bases[family], "config": changes})
            found[f"{family}.{name}.token_logprobs"] = scores
    return rows, found


def main(data, out):
    data, out = pathlib.Path(data), pathlib.Path(out) / "forward_exact"
    out.mkdir()
    cases = json.loads((data / "forward" / "cases.json").read_text())
    for family in dict.fromkeys(row["family"] for row in cases):
        rows = [row for row in cases if row["family"] == family]
        save_file(answers(data, family, rows), out / f"{family}.safetensors")
    rows, found = variants(data, {row["family"]: row["base"] for row in cases})
    save_file(found, out / "variants.safetensors")
    (out / "variants.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
