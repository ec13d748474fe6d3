#!/usr/bin/env python3
"""What `lora-convert --for peft` writes for tiny models of several families, loaded by real PEFT: its
logits against those of the base with every delta of the input added to its weights, all in fp64 (but
transformers' norms, which round to fp32: differences below 1e-7 do not show). Beside it, what PEFT makes
of the input as it is.

    peft_logits.py BUILD [--update]        (run.sh says more)

The reference knows nothing of moelora: it reads the fresh adapter (one pair for every expert, as the
hub names them) and transformers' own parameters.
"""
import json, os, re, subprocess, sys, tempfile, warnings

import peft, torch, transformers
from safetensors.torch import load_file

RANK, ALPHA, SEED = 4, 8, 7
TOLERANCE = 1e-6  # of the largest logit
# family of tests/data/catalogue: targets. Together: halves, interleaved rows with biases, w1/w3/w2, shared
# experts and dense layers whose names PEFT takes, a family that it does not convert, MLA, mixers.
FAMILIES = {
    "deepseek_v3": "attention,experts,shared,mlp",
    "glm4_moe": "attention,experts,shared,mlp",
    "gpt_oss": "attention,experts",
    "mixtral": "attention,experts",
    "qwen2_moe": "attention,experts,shared",
    "qwen3_5_moe_text": "attention,mixer,experts,shared",
    "qwen3_moe": "attention,experts,mlp",
}
WORDS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def run(build, *words):
    subprocess.run([f"{build}/bin/lora-convert", *words, "--quiet", "--no-sync", "--output", os.devnull], check=True)


def make_model(base):
    torch.manual_seed(SEED)
    config = transformers.AutoConfig.from_pretrained(base)
    config._attn_implementation = config._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    for parameter in model.parameters():  # spread, so that logits differ
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


def pairs(folder):
    tensors = {k: v.double() for k, v in load_file(f"{folder}/adapter_model.safetensors").items()}
    for name, a in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            yield module, ALPHA / RANK * tensors[name.replace("lora_A", "lora_B")] @ a


def add_to_experts(parameters, stem, expert, word, delta, family):
    """The in-memory parameter of an expert: gate_up_proj and down_proj, [E, out, in] in halves; gpt-oss'
    are [E, in, out], gate and up rows in turn."""
    word = WORDS.get(word, word)
    stem = stem.replace("block_sparse_moe", "mlp")
    weight = parameters[f"{stem}.{'down_proj' if word == 'down_proj' else 'gate_up_proj'}"][int(expert)]
    if family == "gpt_oss":
        weight = weight.T
    if word == "down_proj":
        weight += delta
    elif family == "gpt_oss":
        weight[(0 if word == "gate_proj" else 1)::2] += delta
    else:
        half = weight.shape[0] // 2
        (weight[:half] if word == "gate_proj" else weight[half:]).add_(delta)


def merge(model, folder, family):
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for module, delta in pairs(folder):
            found = re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)", module)
            if found:
                add_to_experts(parameters, *found.groups(), delta, family)
            else:
                parameters[f"{module}.weight"] += delta


def logits(model):
    ids = torch.arange(24).reshape(2, 12) * 5 % 60 + 2
    with torch.no_grad():
        return model(input_ids=ids).logits


def loaded(base, folder):
    """PEFT's logits, and what it says of keys that are missing; the exception's class where it raises."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            adapted = peft.PeftModel.from_pretrained(make_model(base), folder)
        except (ValueError, RuntimeError, KeyError) as error:
            return None, type(error).__name__
    return logits(adapted), " ".join(str(w.message) for w in said if "missing" in str(w.message))


def check(build, family, targets):
    """What was measured, relative to the largest logit, and what was loaded."""
    base = f"{build}/test_data/catalogue/{family}"
    with tempfile.TemporaryDirectory() as folder:
        run(build, "init", f"{folder}/in", "--base", base, "--rank", str(RANK), "--alpha", str(ALPHA), "--targets", targets,
            "--to", "peft-linear", "--seed", str(SEED), "--random-b")
        run(build, "adapter", f"{folder}/in", f"{folder}/out", "--base", base, "--for", f"peft@{peft.__version__}", "--verify")
        plain = logits(make_model(base))
        reference = make_model(base)
        merge(reference, f"{folder}/in", family)
        wanted = logits(reference)
        found, missing = loaded(base, f"{folder}/out")
        unchanged, raised = loaded(base, f"{folder}/in")
        config = json.load(open(f"{folder}/out/adapter_config.json"))
        report = json.load(open(f"{folder}/out/conversion.json"))

    def apart(other):
        return ((other - wanted).abs().max() / wanted.abs().max()).item()

    config.pop("base_model_name_or_path")
    config["auto_mapping"]["moelora"].pop("version")
    return (missing if found is None else ""), {
        "targets": targets, "effect": apart(plain), "off": None if found is None else apart(found), "missing": missing,
        "unchanged": raised if unchanged is None else f"{apart(unchanged):.2g}", "config": config,
        "tensors": {name: tensor["xxh3_128"] for name, tensor in report["tensors"].items()}}


def main(build, update=False):
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "peft": peft.__version__}
    print(versions)
    outputs, failed = {}, False
    for family, targets in FAMILIES.items():
        raised, seen = check(build, family, targets)
        outputs[family] = seen
        bad = raised or seen.pop("missing") or not seen["off"] < TOLERANCE or not seen["effect"] > 0.01
        failed = failed or bool(bad)
        print(f"| {family} | {targets} | {seen['effect']:.2g} | {seen['off']} | {seen['unchanged']} |"
              + (f" FAILED {bad}" if bad else ""), flush=True)
    if update and not failed:
        with open(os.path.dirname(os.path.abspath(__file__)) + "/peft_outputs.json", "w") as file:
            json.dump({"versions": versions, "rank": RANK, "alpha": ALPHA, "seed": SEED, "families": outputs}, file, indent=1)
            file.write("\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].rstrip("/"), "--update" in sys.argv[2:]))
