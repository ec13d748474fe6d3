#!/usr/bin/env python3
"""Makes sglang_adapters/ for pack.sh out of the SGLang oracle: the hand-made adapters and one table
of what the real server did with them and with the goldens.

    pack_sglang.py ORACLE GOLDENS OUT      (needs numpy; then: pack.sh OUT sglang_adapters)
    pack_sglang.py ORACLE > tests/engine/sglang_scenario_pools.txt

ORACLE holds adapters/, results/ and pools/ of the oracle, GOLDENS the folders of the goldens. The
values of an adapter that is refused in every setting become 0.5 but for NaN, infinities and zeros:
no test looks at them. From the pools the table learns which tensors of a served adapter reach the
server whole, in part or not at all: a row of a factor counts as there when the same row stands
anywhere in the buffers of its layer. Of every buffer it keeps a CRC-32. The second form prints one of all buffers
of each adapter in each scenario.
"""
import collections, glob, json, os, re, shutil, struct, sys, zlib
import numpy as np

FAMILIES = ["deepseek_v3", "glm4_moe", "gpt_oss", "gpt_oss_square", "mixtral", "qwen2_moe",
            "qwen3_dense", "qwen3_dense_tied", "qwen3_moe"]
WIDTH = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}


def read_safetensors(path):
    """-> {name: (dtype, shape, bytes)}, metadata"""
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", None)
    body = data[8 + size:]
    return {n: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])])
            for n, t in header.items()}, metadata


def write_safetensors(path, tensors, metadata):
    header, body = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + body)


def as_float(dtype, data):
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype])


def as_bf16(values):
    """Rounded to nearest even, as 16-bit patterns."""
    bits = values.astype(np.float32).view(np.uint32)
    with np.errstate(over="ignore"):
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def constant(dtype, data):
    """0.5 for every finite value that is not zero."""
    values = as_float(dtype, data).copy()
    values[np.isfinite(values) & (values != 0)] = 0.5
    if dtype == "BF16":
        return as_bf16(values).tobytes()
    return values.tobytes()


# Goldens that tests/data has no archive of.
SQUARE = ["all_linear", "attention_only", "dora_attention", "embed_lm_head", "layers_subset", "lm_head_saved",
          "lone_q", "lora_bias", "peft_params_bf16", "regex_targets", "router"]


def copy_adapters(oracle, goldens, out, served):
    square = [f"{goldens}/gpt_oss_square/{name}" for name in SQUARE]
    for folder in sorted(glob.glob(f"{oracle}/adapters/*/*")) + square:
        family, name = folder.split("/")[-2:]
        target = f"{out}/{family}/{name}"
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("README.md"))
        if (family, name) in served or name == "base":
            continue
        for path in glob.glob(target + "/*.safetensors"):
            tensors, metadata = read_safetensors(path)
            write_safetensors(path, {n: (d, s, constant(d, b) if d in WIDTH else b)
                                     for n, (d, s, b) in tensors.items()}, metadata)


def scaled(dtype, values, factor):
    """MoE lora_B: multiplied in the adapter's type."""
    with np.errstate(over="ignore", invalid="ignore"):
        product = values.astype(np.float32) * np.float32(factor)
        return product.astype(np.float16).astype(np.float32) if dtype == "F16" else product


def layer_of(key):
    found = re.search(r"\|layers\.(\d+)\.", key)
    return int(found.group(1)) if found else -1


class Pools:
    def __init__(self, path):
        self.tensors, _ = read_safetensors(path)
        self.rows = collections.defaultdict(lambda: collections.defaultdict(set))
        for key, (_, shape, data) in self.tensors.items():
            prefix, place = key.rsplit("|", 1)
            layer = re.match(r"layers\.(\d+)\.", place)
            where = (prefix, layer.group(1) if layer else "")
            rows = np.frombuffer(data, "<u2").reshape(-1, shape[-1])
            self.rows[where][shape[-1]].update(r.tobytes() for r in rows)

    def digests(self, prefix):
        """CRC-32 of each buffer, layer after layer: {"qkv_proj.A": crc}."""
        out = {}
        for key in sorted((k for k in self.tensors if k.startswith(prefix + "|")), key=layer_of):
            name = re.sub(r"^layers\.\d+\.", "", key[len(prefix) + 1:])
            out[name] = zlib.crc32(self.tensors[key][2], out.get(name, 0))
        return out

    def look(self, prefix, layer, dtype, shape, data, factor):
        """"whole", "part" or "none" of the tensor's rows are there."""
        if len(shape) < 2 or 0 in shape:
            return "none" if 0 not in shape else "whole"
        values = as_float(dtype, data)
        there = self.rows.get((prefix, layer), {})
        best = "none"
        for form in (values, scaled(dtype, values, factor)):
            finite = np.isfinite(values).reshape(-1, shape[-1]).all(axis=1)
            rows = [r.tobytes() for r in as_bf16(form).reshape(-1, shape[-1])[finite] if r.any()]
            hits = sum(r in there.get(shape[-1], ()) for r in rows)
            if hits == len(rows):
                return "whole"
            shorter = [w for w in there if w < shape[-1]]
            if hits or any(r[:2 * w] in there[w] for w in shorter for r in rows if any(r[:2 * w])):
                best = "part"
        return best


def folder_of(oracle, goldens, family, adapter):
    shared = family.replace("_tied", "")
    hand = f"{oracle}/adapters/{shared}/{adapter}"
    return hand if os.path.isdir(hand) else f"{goldens}/{family}/{adapter}"


def lost_tensors(oracle, goldens, family, record, pools):
    folder = folder_of(oracle, goldens, family, record["adapter"])
    config = json.load(open(folder + "/adapter_config.json"))
    factor = config["lora_alpha"] / config["r"]
    prefix, out = record["label"] + "|id0", {}
    for path in sorted(glob.glob(folder + "/*.safetensors")):
        for name, (dtype, shape, data) in read_safetensors(path)[0].items():
            layer = re.search(r"layers\.(\d+)\.", name)
            how = pools.look(prefix, layer.group(1) if layer else "", dtype, shape, data, factor)
            if how != "whole":
                out[f"{os.path.basename(path)}:{name}" if "stray" in record["adapter"] else name] = how
    return out


def compact(record):
    out = {k: record[k] for k in ("adapter", "setting", "scenario", "stage", "type", "text",
                                  "target_modules", "max_lora_rank", "shared_outer", "owned", "buffers",
                                  "slots") if record.get(k) is not None}
    if record.get("inner"):
        out["inner"] = [record["inner"]["type"], record["inner"]["text"]]
    return out


def main(oracle, goldens, out):
    out += "/sglang_adapters"
    os.makedirs(out)
    served, table = set(), {}
    for family in FAMILIES:
        records = json.load(open(f"{oracle}/results/{family}.json"))
        pools = Pools(f"{oracle}/pools/{family}.safetensors")
        table[family] = rows = []
        for record in records:
            row = compact(record)
            if record["outcome"] == "ok" and "adapter" in record:
                served.add((family.replace("_tied", ""), record["adapter"]))
                row["pool"] = pools.digests(record["label"] + "|id0")
                if record["setting"] == "r" and not record["adapter"].endswith("_bin"):
                    row["lost"] = lost_tensors(oracle, goldens, family, record, pools)
            rows.append(row)
    # Scenarios read these whole.
    for family in FAMILIES:
        served.update((family, n) for n in ("hand.stacked3d", "hand.shared_outer", "hand.stacked3d_attn"))
    copy_adapters(oracle, goldens, out, served)
    shutil.copy(os.path.dirname(os.path.abspath(__file__)) + "/sglang_qwen3.json",
                out + "/qwen3_dense/family.json")
    with open(out + "/outcomes.json", "w") as f:
        json.dump(table, f, separators=(",", ":"), sort_keys=True)


def print_scenario_pools(oracle):
    """FAMILY/scenario/NAME idK COUNT CRC: of names and bytes, sorted by name."""
    for family in FAMILIES:
        pools, _ = read_safetensors(f"{oracle}/pools/{family}.safetensors")
        crcs = {}
        for key in sorted(k for k in pools if k.startswith("scenario.")):
            scenario, adapter, name = key.split("|")
            place = f"{family}/scenario/{scenario[len('scenario.'):]} {adapter}"
            count, crc = crcs.get(place, (0, 0))
            crcs[place] = count + 1, zlib.crc32(pools[key][2], zlib.crc32(name.encode(), crc))
        for place, (count, crc) in crcs.items():
            print(place, count, crc)


if __name__ == "__main__":
    (main if len(sys.argv) == 4 else print_scenario_pools)(*sys.argv[1:])
