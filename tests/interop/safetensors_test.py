#!/usr/bin/env python3
"""Python's safetensors and NumPy read what lora-convert writes and come to the same numbers.

    safetensors_test.py BUILD/bin/lora-convert BUILD/test_data

Every conversion is done here once more, by plain indexing, without any code of this project.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

try:
    import jsonschema
    import numpy as np
    import safetensors
    import safetensors.numpy
except ImportError as missing:
    print(f"skipped: no Python package {missing.name}; tests/run.sh installs it where PyPI can be reached")
    sys.exit(77)

TOOL, DATA = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "schemas"
PREFIX = "base_model.model."
STEM = PREFIX + "model.layers.{}.mlp.experts."
NUMPY = {"F32": np.float32, "BF16": np.uint16, "F16": np.float16}


def read(path):
    """Name -> array; BF16 as its bits."""
    return {name: np.frombuffer(t["data"], NUMPY[t["dtype"]]).reshape(t["shape"])
            for name, t in safetensors.deserialize(pathlib.Path(path).read_bytes())}


def split_stacked(a, b, experts):
    """PEFT's stacked pair of a parameter: A [E r, in] and B [out, r E], rank slowest in B, as E pairs."""
    r = a.shape[0] // experts
    return [(a[e * r:(e + 1) * r], b[:, e::experts]) for e in range(experts)]


class InteropTest(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_tool(self, *arguments):
        done = subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def convert(self, adapter, layout, *more):
        out = self.folder / f"{adapter.replace('/', '_')}_{layout}"
        base = DATA / adapter.split("/")[0] / "base"
        self.run_tool("adapter", DATA / adapter, out, "--to", layout, "--base", base, "--quiet", *more)
        return out

    def assert_same(self, found, expected):
        self.assertEqual(sorted(found), sorted(expected))
        for name, array in expected.items():
            self.assertTrue(found[name].dtype == array.dtype and np.array_equal(found[name], array), name)

    def gpt_oss_experts(self):
        """(layer, expert, projection) -> (A, B) of gpt_oss/peft_params, sliced here."""
        stacked = read(DATA / "gpt_oss/peft_params/adapter_model.safetensors")
        pairs = {}
        for layer in range(2):
            stem = STEM.format(layer)
            side = lambda name: (stacked[stem + name + "lora_A.weight"], stacked[stem + name + "lora_B.weight"])
            for e, (a, b) in enumerate(split_stacked(*side("base_layer."), 4)):
                pairs[layer, e, "gate_proj"] = (a, b[0::2])
                pairs[layer, e, "up_proj"] = (a, b[1::2])
            for e, pair in enumerate(split_stacked(*side(""), 4)):
                pairs[layer, e, "down_proj"] = pair
        dense = {name: t for name, t in stacked.items() if ".mlp." not in name}
        return pairs, dense

    def test_peft_params_to_per_expert_linears(self):
        pairs, expected = self.gpt_oss_experts()
        for (layer, e, projection), (a, b) in pairs.items():
            expected[f"{STEM.format(layer)}{e}.{projection}.lora_A.weight"] = a
            expected[f"{STEM.format(layer)}{e}.{projection}.lora_B.weight"] = b
        out = self.convert("gpt_oss/peft_params", "peft-linear")
        self.assert_same(read(out / "adapter_model.safetensors"), expected)

    def test_peft_params_to_stacked(self):
        pairs, expected = self.gpt_oss_experts()
        for layer in range(2):
            for projection in ("gate_proj", "up_proj", "down_proj"):
                for side, letter in enumerate("AB"):
                    expected[f"{STEM.format(layer)}{projection}.lora_{letter}.weight"] = np.stack(
                        [pairs[layer, e, projection][side] for e in range(4)])
        out = self.convert("gpt_oss/peft_params", "stacked")
        self.assert_same(read(out / "adapter_model.safetensors"), expected)

    def test_shared_outer_expands_to_linears(self):
        source = read(DATA / "qwen3_moe/tinker/adapter_model.safetensors")
        found = read(self.convert("qwen3_moe/tinker", "peft-linear") / "adapter_model.safetensors")
        spelled = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
        compared = 0
        for name, tensor in source.items():
            if ".experts.w" not in name:
                continue
            stem, rest = name.split(".experts.")
            word, side = rest.split(".", 1)
            stem = stem.replace("base_model.model.", PREFIX).replace(".attn.", ".self_attn.")
            for e in range(8):
                other = found[f"{stem}.experts.{e}.{spelled[word]}.{side}"]
                self.assertTrue(np.array_equal(other, tensor[min(e, tensor.shape[0] - 1)]), name)
                compared += 1
        self.assertEqual(compared, 2 * 3 * 2 * 8)

    def test_a_cast_rounds_to_nearest_even(self):
        before = read(self.convert("qwen3_moe/peft_params", "stacked") / "adapter_model.safetensors")
        out = self.folder / "cast"
        self.run_tool("adapter", DATA / "qwen3_moe/peft_params", out, "--to", "stacked", "--base",
                      DATA / "qwen3_moe/base", "--dtype", "bf16", "--quiet")
        bits = {n: t.view(np.uint32) for n, t in before.items()}
        self.assert_same(read(out / "adapter_model.safetensors"),
                         {n: ((b + 0x7FFF + ((b >> 16) & 1)) >> 16).astype(np.uint16) for n, b in bits.items()})

    def test_our_bytes_are_those_of_python(self):
        for adapter in ("gpt_oss/peft_params", "qwen3_moe/per_expert", "mixtral/per_expert"):
            for layout in ("peft-linear", "peft-params", "stacked", "stacked-fused", "linear-fused"):
                with self.subTest(adapter=adapter, layout=layout):
                    out = self.convert(adapter, layout) / "adapter_model.safetensors"
                    python = self.folder / "python.safetensors"
                    safetensors.numpy.save_file(safetensors.numpy.load_file(out), python, {"format": "pt"})
                    self.assertEqual(out.read_bytes(), python.read_bytes())

    def test_mxfp4_experts_are_what_transformers_decodes(self):
        out = self.folder / "plain"
        self.run_tool("base", DATA / "mxfp4/base", out, "--to", "per-expert", "--quiet")
        found, expected = read(out / "model.safetensors"), read(DATA / "mxfp4/base.dequantized.safetensors")
        compared = 0
        for name, tensor in expected.items():
            stem, _, word = name.partition(".experts.")
            if not word:
                continue
            for e in range(tensor.shape[0]):
                linears = {"gate_up_proj": [("gate_proj.weight", tensor[e].T[0::2]), ("up_proj.weight", tensor[e].T[1::2])]
                           if tensor.ndim == 3 else [],
                           "down_proj": [("down_proj.weight", tensor[e].T)],
                           "gate_up_proj_bias": [("gate_proj.bias", tensor[e][0::2]), ("up_proj.bias", tensor[e][1::2])],
                           "down_proj_bias": [("down_proj.bias", tensor[e])]}[word]
                for linear, array in linears:
                    self.assertTrue(np.array_equal(found[f"{stem}.experts.{e}.{linear}"], array), f"{name} {e}")
                    compared += 1
        self.assertGreater(compared, 0)

    def test_json_outputs_follow_their_schemas(self):
        out = self.convert("gpt_oss/peft_params", "peft-linear", "--dtype", "bf16")
        self.assert_follows((out / "conversion.json").read_text())
        base = DATA / "gpt_oss/base"
        for path in ("gpt_oss/peft_params", "gpt_oss/peft_params_down_only", "gpt_oss/embed_lm_head",
                     "gpt_oss/base.expect.safetensors", "mixtral/per_expert"):
            self.assert_follows(self.run_tool("inspect", DATA / path, "--format", "json"))
        self.assert_follows(self.run_tool("inspect", DATA / "gpt_oss/tinker", "--base", base, "--format", "json"))

    def assert_follows(self, text):
        document = json.loads(text)
        kind, version = document["schema"].removeprefix("moelora.").split("/")
        self.assertEqual(version, "1")
        schema = json.loads((SCHEMAS / f"{kind}.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(document)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
