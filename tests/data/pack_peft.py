#!/usr/bin/env python3
"""Makes peft_oracle/ for pack.sh out of PEFT's oracle: one FAMILY.json each with the base's config,
every adapter's config, names and shapes, and what each release of real PEFT did with it.

    pack_peft.py ADAPTERS RESULTS.json OUT      (ADAPTERS: the unpacked adapters.tar.xz)

A tensor is [part, shape]; parts ("" for what was not looked at) are those of the results: "attn", "exp.g" (gate of the routed
experts), "exp.gu" (gate and up in one), "shared" ... A record is [form, release, parts, raised]:
parts {"attn": "whole"} or {"exp.g": ["scaled", 1.41421]}, raised [type, file and function, text].
"""
import collections, glob, json, os, re, struct, sys

WORDS = {"gate_proj": "exp.g", "w1": "exp.g", "up_proj": "exp.u", "w3": "exp.u", "down_proj": "exp.d",
         "w2": "exp.d", "gate_up_proj": "exp.gu"}


def header(path):
    data = open(path, "rb").read(8)
    with open(path, "rb") as f:
        f.seek(8)
        tensors = json.loads(f.read(struct.unpack("<Q", data)[0]))
    tensors.pop("__metadata__", None)
    return {name: t["shape"] for name, t in tensors.items()}


def expert_part(rest, parts):
    found = re.match(r"(?:\d+\.)?(\w+)\.", rest)
    if found and found.group(1) in WORDS:
        part = WORDS[found.group(1)]
        return "exp.u" if part == "exp.gu" and "exp.u" in parts and "exp.g" not in parts else part
    if not {"exp.g", "exp.u"} & parts:
        return "exp.d"
    if "exp.d" not in parts or rest.startswith("base_layer") or rest.startswith("input"):
        return "exp.gu" if "exp.g" in parts else "exp.u"
    return "exp.d"


def part_of(name, parts):
    if name.endswith(".bias"):
        return "bias"
    if "lm_head" in name:
        return "lm_head"
    if re.search(r"\.(embed_tokens|embeddings)\.", name):
        return "embed" if "embed" in parts or not parts else ""  # nemotron_h's is not looked at
    if "shared_expert_gate" in name:
        return "sgate"
    if re.search(r"\.shared_", name):
        return "shared"
    if found := re.search(r"(?<!shared_)experts\.(.*)", name):
        return expert_part(found.group(1), parts)
    if re.search(r"\.(router|gate)\.", name):
        return "router"
    if re.search(r"\.(mamba|ssm)\.|\.(in_proj|out_proj|conv1d|x_proj|dt_proj)\.", name) and "ssm" in parts:
        return "ssm"
    if "self_attn" not in name and re.search(r"\.(mlp|feed_forward)\.|\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.", name):
        return "dense"
    return "attn"


def record(row):
    parts = {name: [p["outcome"], p["k"]] if p["outcome"] == "scaled" else p["outcome"]
             for name, p in row.get("parts", {}).items()}
    raised = row.get("raised")
    if raised is None or raised.get("stage") == "merge":
        return [row["form"], row["version"], parts, None]
    file, function = raised["where"].split(":")[0], raised["where"].split()[-1]
    return [row["form"], row["version"], parts, [raised["type"], f"{file} {function}", raised["text"]]]


def main(adapters, results, out):
    rows, parts = collections.defaultdict(list), collections.defaultdict(set)
    for row in json.load(open(results)):
        if "form" not in row:
            continue  # transformers has no such model
        rows[row["family"]].append(record(row))
        parts[row["family"], row["form"]].update(row.get("parts", {}))
    os.makedirs(out + "/peft_oracle", exist_ok=True)
    for family, records in sorted(rows.items()):
        table = {"config": json.load(open(f"{adapters}/bases/{family}/config.json")), "forms": {}}
        for folder in sorted(glob.glob(f"{adapters}/adapters/{family}/*")):
            form = os.path.basename(folder)
            named = parts[family, form]
            table["forms"][form] = {
                "config": json.load(open(folder + "/adapter_config.json")),
                "tensors": {name: [part_of(name, named), shape] for name, shape in
                            sorted(header(folder + "/adapter_model.safetensors").items())}}
        table["records"] = records
        with open(f"{out}/peft_oracle/{family}.json", "w") as f:
            json.dump(table, f, separators=(",", ":"))


if __name__ == "__main__":
    main(*sys.argv[1:])
