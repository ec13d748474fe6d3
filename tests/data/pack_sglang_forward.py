#!/usr/bin/env python3
"""Makes sglang_forward/ for pack.sh: what SGLang's kernels added on a GPU, of the SGLang oracle.

    pack_sglang_forward.py ORACLE OUT      (then: pack.sh OUT sglang_forward)

Of each adapter that tests/data has too, by the classic path and by virtual experts: layer 1, tokens
0 to 3 with the adapter and token 4 without. Keys: FAMILY|ADAPTER|PATH|SETTING|NAME; names and
shapes are those of the oracle, tokens first.
"""
import glob, json, os, struct, sys

ADAPTERS = ["per_expert", "hand.fused_3d", "hand.numbered_tied_a", "hand.numbered_w123_declared",
            "hand.r3", "hand.shared_outer", "hand.stacked3d_attn"]
NAMES = ["x", "topk_ids", "topk_weights", "h", "gate_up_delta", "down_delta", "qkv_x", "qkv_delta"]
TOKENS, KEPT = 6, [0, 1, 2, 3, 4]
LAYER = "layers.1."


def read_safetensors(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    body = data[8 + size:]
    return {n: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for n, t in header.items()}


def write_safetensors(path, tensors):
    header, body = {}, b""
    for name, (dtype, shape, data) in sorted(tensors.items()):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + body)


def kept_tokens(shape, data):
    """`h` has a row a token and chosen expert, everything else tokens first."""
    size = len(data) // TOKENS
    return [shape[0] // TOKENS * len(KEPT)] + shape[1:], b"".join(data[t * size:(t + 1) * size] for t in KEPT)


def is_kept(adapter, setting):
    return adapter in ADAPTERS and (setting == "r" or adapter == "hand.r3")


def main(oracle, out):
    out += "/sglang_forward"
    os.makedirs(out)
    kept = {}
    for path in glob.glob(f"{oracle}/forward/*.safetensors"):
        for key, (dtype, shape, data) in read_safetensors(path).items():
            family, adapter, *rest = key.split("|")
            if len(rest) != 3 or not is_kept(adapter, rest[1]) or not rest[2].startswith(LAYER):
                continue
            name = rest[2][len(LAYER):]
            if name in NAMES:
                kept["|".join([family, adapter, *rest[:2], name])] = (dtype, *kept_tokens(shape, data))
    write_safetensors(out + "/forward.safetensors", kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
