#!/usr/bin/env python3
"""lora-diff score against a NumPy forward in fp64, and both against transformers' answers.

    reference_test.py BUILD/bin BUILD/test_data [FAMILY ...]

"-" for the folder of the tools checks the NumPy forward alone. forward/answers.safetensors are what transformers says
in fp64 with some parts in fp32; forward_exact what it says with none.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
    import safetensors.numpy
except ImportError as missing:
    print(f"skipped: no Python package {missing.name}; tests/run.sh installs it where PyPI can be reached")
    sys.exit(77)

import reference
from reference import base, files

BIN, DATA, FAMILIES = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
OF_REFERENCE, OF_EXACT, OF_GOLDEN = 1e-11, 1e-11, 2e-5
OF_GOLDEN_BY_FAMILY = {"qwen3_5_moe_text": 1e-4}  # of forward_exact too: what fp32 costs transformers' gated delta rule

# The same adapter in other forms: (family, form, the golden, options that say what its bytes do not).
FORMS = [(family, form, golden, options)
         for family in ("gpt_oss", "qwen3_moe")
         for form, golden, options in (
             ("attention_only_bin", "attention_only", []),
             ("attention_only_sharded", "attention_only", []),
             ("peft_params_alphabetical", "peft_params", []),
             ("peft_params_grouped_b", "peft_params", []),
             ("peft_params_grouped_b_unmarked", "peft_params", ["--b-order", "expert-major"]),
             ("peft_params_swapped_roles", "peft_params", []),
             ("tinker.build_lora_adapter", "tinker", []))]


def is_wanted(family):
    return not FAMILIES or family in FAMILIES


def cases():
    rows = json.loads((DATA / "forward/cases.json").read_text())
    return [row for row in rows if is_wanted(row["family"])]


def title(row):
    return f"{row['family']}/{row['name']}"


def golden(row):
    """(ids, log-probabilities)"""
    answers = files.read(DATA / "forward" / row["family"] / "answers.safetensors")
    return answers["input_ids"], answers[row["name"] + ".token_logprobs"]


def exact(row):
    """None for the few adapters that transformers and PEFT do not load."""
    return files.read(DATA / "forward_exact" / f"{row['family']}.safetensors").get(row["name"] + ".token_logprobs")


def adapter_of(row):
    return DATA / row["adapter"] if "adapter" in row else None


def has_reference(folder):
    return files.read_config(folder, "config.json")["model_type"] in reference.SUPPORTED


def by_reference(row):
    return reference.token_logprobs(DATA / row["base"], golden(row)[0], adapter_of(row))


def variants():
    """Configs that no golden has, over the same weights: (row, ids, what transformers says without fp32)."""
    rows = json.loads((DATA / "forward_exact/variants.json").read_text())
    answers = files.read(DATA / "forward_exact/variants.safetensors")
    for row in rows:
        if is_wanted(row["family"]):
            ids = files.read(DATA / "forward" / row["family"] / "answers.safetensors")["input_ids"]
            yield row, ids, answers[f"{row['family']}.{row['name']}.token_logprobs"]


class Agreement(unittest.TestCase):
    def assert_near(self, found, expected, bound, what):
        self.assertEqual(found.shape, expected.shape, what)
        error = np.abs(found - expected).max()  # a NaN is not below the bound
        self.assertLess(error, bound, f"{what}: off by {error:.1e}, allowed is {bound:.0e}")


class ReferenceTest(Agreement):
    def test_every_answer_of_transformers(self):
        compared = 0
        for row in cases():
            if not has_reference(DATA / row["base"]):
                continue
            with self.subTest(title(row)):
                found = by_reference(row)
                self.assert_near(found, golden(row)[1], OF_GOLDEN, "transformers")
                if exact(row) is not None:
                    self.assert_near(found, exact(row), OF_EXACT, "transformers without fp32")
                compared += 1
        self.assertGreater(compared, 0)

    def test_every_variant_of_a_config(self):
        for row, ids, expected in variants():
            if has_reference(DATA / row["base"]):
                with self.subTest(title(row)):
                    found = reference.token_logprobs(DATA / row["base"], ids, changes=row["config"])
                    self.assert_near(found, expected, OF_EXACT, "transformers without fp32")

    def test_mxfp4_experts_are_what_transformers_decodes(self):
        _, weights = base.load(DATA / "mxfp4/base")
        for name, tensor in files.read(DATA / "mxfp4/base.dequantized.safetensors").items():
            stem, word = name.rsplit(".", 1)
            parts = (("gate_proj", tensor[:, :, 0::2]), ("up_proj", tensor[:, :, 1::2]))
            for part, expected in parts if word == "gate_up_proj" else (("down_proj", tensor),):
                self.assertTrue(np.array_equal(weights[f"{stem}.{part}"], expected.swapaxes(1, 2)), name)


def made_adapter(folder, config):
    """A rank-3 rsLoRA on both expert parameters and the router of each layer of a gpt-oss base, as PEFT names it."""
    random = np.random.default_rng(14)
    experts, hidden, inner = (config[k] for k in ("num_local_experts", "hidden_size", "intermediate_size"))
    pairs = {"experts.base_layer": (hidden, 2 * inner, 3 * experts), "experts": (inner, hidden, 3 * experts),
             "router": (hidden, experts, 3)}
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module, (inputs, outputs, rank) in pairs.items():
            stem = f"base_model.model.model.layers.{layer}.mlp.{module}.lora_"
            tensors[stem + "A.weight"] = random.normal(0, 0.2, (rank, inputs)).astype(np.float32)
            tensors[stem + "B.weight"] = random.normal(0, 0.2, (outputs, rank)).astype(np.float32)
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.router.weight"]
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 6, "use_rslora": True,
        "target_modules": [], "target_parameters": parameters}))
    return folder


@unittest.skipIf(BIN == "-", "no tools")
class ScoreTest(Agreement):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def score(self, ids, model, adapter=None, options=()):
        tokens, out = self.folder / "tokens.json", self.folder / "scores.safetensors"
        out.unlink(missing_ok=True)
        tokens.write_text(json.dumps(ids.tolist()))
        command = [pathlib.Path(BIN) / "lora-diff", "score", tokens, "--base", model, "--precision", "double",
                   "--output", out, *options]
        if adapter is not None:
            command += ["--adapter", adapter]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        scores = files.read(out)
        self.assertTrue(np.array_equal(scores["tokens"], ids))
        return scores["logprobs"]

    def test_every_answer_of_transformers(self):
        for row in cases():
            with self.subTest(title(row)):
                ids, expected = golden(row)
                found = self.score(ids, DATA / row["base"], adapter_of(row))
                self.assert_near(found, expected, OF_GOLDEN_BY_FAMILY.get(row["family"], OF_GOLDEN), "transformers")
                if exact(row) is not None:
                    self.assert_near(found, exact(row), OF_EXACT, "transformers without fp32")
                if has_reference(DATA / row["base"]):
                    self.assert_near(found, by_reference(row), OF_REFERENCE, "NumPy")

    def changed_base(self, row):
        folder = self.folder / "base"
        shutil.copytree(DATA / row["base"], folder, dirs_exist_ok=True)
        config = files.read_config(folder, "config.json") | row["config"]
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def test_every_variant_of_a_config(self):
        for row, ids, expected in variants():
            with self.subTest(title(row)):
                found = self.score(ids, self.changed_base(row))
                self.assert_near(found, expected, OF_EXACT, "transformers without fp32")

    def test_other_forms_of_an_adapter_are_the_same_adapter(self):
        for row in cases():
            for family, form, name, options in FORMS:
                if (row["family"], row["name"]) != (family, name):
                    continue
                with self.subTest(f"{family}/{form}"):
                    found = self.score(golden(row)[0], DATA / row["base"], DATA / family / form, options)
                    self.assert_near(found, by_reference(row), OF_REFERENCE, "NumPy of the golden")

    def test_mxfp4_experts_with_and_without_an_adapter(self):
        if not is_wanted("gpt_oss"):
            self.skipTest("gpt_oss not asked for")
        model = DATA / "mxfp4/base"
        made = self.folder / "made"
        made.mkdir()
        made_adapter(made, files.read_config(model, "config.json"))
        ids = golden({"family": "gpt_oss", "name": "base"})[0]
        for adapter in (None, DATA / "gpt_oss/attention_only", DATA / "gpt_oss/lora_bias", made):
            with self.subTest(str(adapter)):
                expected = reference.token_logprobs(model, ids, adapter)
                self.assert_near(self.score(ids, model, adapter), expected, OF_REFERENCE, "NumPy")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
