"""uniform_base.py FROM TO: random weights for the config of FROM, whose attention looks at all tokens alike: queries
and keys are 0, and values are the tokens themselves."""
import json
import pathlib
import random
import struct
import sys

source, folder = map(pathlib.Path, sys.argv[1:])
config = json.loads((source / "config.json").read_text())
hidden, width, vocab = config["hidden_size"], config["moe_intermediate_size"], config["vocab_size"]
config["num_key_value_heads"] = config["num_attention_heads"]
chance = random.Random(14)


def matrix(rows, columns):
    return (rows, columns), [chance.gauss(0, columns**-0.5) for _ in range(rows * columns)]


identity = [float(i == j) for i in range(hidden) for j in range(hidden)]
tensors = {"model.word_embeddings.weight": matrix(vocab, hidden), "lm_head.weight": matrix(vocab, hidden),
           "model.norm.weight": ((hidden,), [1.0] * hidden)}
for layer in range(config["num_hidden_layers"]):
    path = f"model.layers.{layer}."
    for norm in "input_layernorm", "post_attention_layernorm":
        tensors[f"{path}{norm}.weight"] = (hidden,), [1.0] * hidden
    tensors[path + "attention.query_key_value.weight"] = (3 * hidden, hidden), [0.0] * 2 * hidden**2 + identity
    tensors[path + "attention.dense.weight"] = matrix(hidden, hidden)
    tensors[path + "mlp.gate.weight"] = matrix(config["num_experts"], hidden)
    for mlp in ["shared_experts"] + [f"experts.{e}" for e in range(config["num_experts"])]:
        for name in "gate_proj", "up_proj":
            tensors[f"{path}mlp.{mlp}.{name}.weight"] = matrix(width, hidden)
        tensors[f"{path}mlp.{mlp}.down_proj.weight"] = matrix(hidden, width)

header, data = {}, b""
for name, (shape, values) in tensors.items():
    start = len(data)
    data += struct.pack(f"<{len(values)}f", *values)
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(data)]}
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
folder.mkdir()
(folder / "config.json").write_text(json.dumps(config))
(folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
