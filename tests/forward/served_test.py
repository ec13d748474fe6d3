#!/usr/bin/env python3
"""lora-diff score --as against a NumPy forward made of the buffers that the real servers held.

    served_test.py BUILD/bin BUILD/test_data [CASE ...]

served_buffers/ is what SGLang's and vLLM's own code put into its buffers; reference/served.py says what their kernels
make of that. Nothing here asks lib/engine what a server does. The buffers are the same bits, so the scores are the
same but for the order of sums.
"""

import functools
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
    import safetensors.numpy

    from reference import base, files, logprobs_of, served
except ImportError as missing:
    print(f"skipped: no Python package {missing.name}; tests/run.sh installs it where PyPI can be reached")
    sys.exit(77)

BIN, DATA, CASES = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve(), sys.argv[3:]
MADE = tempfile.TemporaryDirectory()
BOUND = 1e-11
# Where the server computes what the files mean; elsewhere the scores are at least this far from theirs.
AS_MEANT, LEAST_HARM = 1e-11, 1e-8  # the least is a scale of 1/3, in fp32
HARMED = {"sglang": {"rounded_scale", "lost_dense_layer", "down_of_one_expert", "halves", "halves_on_two_ranks",
                     "shared_outer_and_attention", "third"},
          "vllm": {"rounded_scale", "shared_outer", "other_column_order", "lost_gate_up"}}


def cases():
    for row in json.loads((DATA / "served_buffers/cases.json").read_text()):
        row["server"] = row["engine"].partition("@")[0]
        row["title"] = f"{row['server']}/{row['name']}"
        if not CASES or row["title"] in CASES:
            yield row


def random_weights(config):
    """Of a dense Qwen3."""
    random = np.random.default_rng(14)
    hidden, inner, head = (config[key] for key in ("hidden_size", "intermediate_size", "head_dim"))
    q, kv = (config[key] * head for key in ("num_attention_heads", "num_key_value_heads"))
    vocabulary = (config["vocab_size"], hidden)
    shapes = {"model.embed_tokens": vocabulary, "lm_head": vocabulary, "model.norm": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        of_layer = {"self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
                    "self_attn.o_proj": (hidden, q), "self_attn.q_norm": (head,), "self_attn.k_norm": (head,),
                    "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
                    "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
    centers = {1: (1, 0.1), 2: (0, 0.2)}  # of norms, of matrices
    return {name + ".weight": random.normal(*centers[len(shape)], shape).astype(np.float32)
            for name, shape in shapes.items()}


@functools.cache
def base_of(row_base):
    """The folder of a base; one that is a config alone gets weights."""
    folder = DATA / row_base
    if list(folder.glob("model*.safetensors")):
        return folder
    made = pathlib.Path(MADE.name) / row_base
    made.mkdir(parents=True)
    config = files.read_config(folder, "config.json")
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    (made / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(random_weights(config), made / "model.safetensors")
    return made


def buffers_of(row):
    """[{buffer: array}], a dict a rank."""
    held = files.read(DATA / f"served_buffers/{row['server']}.safetensors")
    ranks = [{} for _ in range(row["ranks"])]
    for key, value in held.items():
        case, rank, name = key.split("|")
        if case == row["name"]:
            ranks[int(rank)][name] = value
    return ranks


def ids_of(row):
    family = files.read_config(DATA / row["base"], "config.json")["model_type"]
    return files.read(DATA / f"forward/{family}/answers.safetensors")["input_ids"]


def by_buffers(row, ids, **faults):
    config, weights = base.load(base_of(row["base"]))
    deltas = served.Deltas(config, weights)
    options = dict(pair.split("=") for pair in row["options"])
    adapter = files.read_config(DATA / row["adapter"], "adapter_config.json")
    server = served.SERVERS[row["server"]](deltas, buffers_of(row), options, adapter, **faults)
    server.merge()
    return logprobs_of(config, deltas.weights, ids)


def score(row, ids, as_server=True):
    with tempfile.TemporaryDirectory() as folder:
        tokens, out = pathlib.Path(folder) / "tokens.json", pathlib.Path(folder) / "scores.safetensors"
        tokens.write_text(json.dumps(ids.tolist()))
        command = [BIN / "lora-diff", "score", tokens, "--base", base_of(row["base"]), "--precision", "double",
                   "--adapter", DATA / row["adapter"], "--output", out]
        if as_server:
            command += ["--as", row["engine"]]
            for pair in row["options"]:
                command += ["--server-option", pair]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return files.read(out)["logprobs"]


def apart(a, b):
    return np.abs(a - b).max()


class ServedTest(unittest.TestCase):
    def test_scores_are_those_of_the_buffers_that_the_server_held(self):
        compared = 0
        for row in cases():
            with self.subTest(row["title"]):
                ids = ids_of(row)
                self.assertLess(apart(score(row, ids), by_buffers(row, ids)), BOUND)
                compared += 1
        self.assertGreater(compared, 0)

    def test_what_a_server_makes_of_an_adapter_is_what_the_files_mean_or_far_from_it(self):
        for row in cases():
            with self.subTest(row["title"]):
                ids = ids_of(row)
                harm = apart(score(row, ids, as_server=False), by_buffers(row, ids))
                if row["name"] in HARMED[row["server"]]:
                    self.assertGreater(harm, LEAST_HARM)
                else:
                    self.assertLess(harm, AS_MEANT)

    def test_the_interleaved_defect_is_in_the_kernel_and_not_in_the_buffers(self):
        for row in cases():
            if row["title"] in ("sglang/halves", "sglang/halves_on_two_ranks"):
                with self.subTest(row["title"]):
                    ids = ids_of(row)
                    self.assertLess(apart(by_buffers(row, ids, halves=False), score(row, ids, as_server=False)), BOUND)
                    self.assertGreater(apart(by_buffers(row, ids, halves=False), score(row, ids)), LEAST_HARM)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
