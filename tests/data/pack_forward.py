#!/usr/bin/env python3
"""Makes forward/ for pack.sh: base weights that no other archive holds, and the models' answers.

    pack_forward.py GOLDENS FAMILIES OUT      (then: pack.sh OUT forward)

GOLDENS is the folder of the seven older families, FAMILIES the unpacked families.tar.xz. Adapters are
looked up in the archives beside this script, by their bytes: cases.json says where each one lies, and
what no archive holds is printed and copied too.
"""
import hashlib
import json
import os
import shutil
import struct
import sys
import tarfile

OLDER = ["gpt_oss", "gpt_oss_square", "qwen3_moe", "mixtral", "deepseek_v3", "glm4_moe", "qwen2_moe"]
ANSWER = ".expect.safetensors"
WEIGHTS = "model.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Those made for a server's oracle hold 0.5 where no server reads them: the bytes decide.
ADAPTER_HOMES = ["", "family_goldens/", "sglang_adapters/", "vllm_adapters/"]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def file_digest(path):
    with open(path, "rb") as file:
        return digest(file.read())


def weights_of_archives():
    """Path below test_data -> digest, of every weights file of every archive but the one made here."""
    held = {}
    here = os.path.dirname(os.path.abspath(__file__))
    for name in sorted(os.listdir(here)):
        if not name.endswith(".tar.xz") or name == "forward.tar.xz":
            continue
        with tarfile.open(os.path.join(here, name)) as archive:
            for member in archive:
                if os.path.basename(member.name) in (WEIGHTS, ADAPTER_WEIGHTS):
                    held[member.name] = digest(archive.extractfile(member).read())
    return held


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    body = data[8 + size :]
    return {n: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for n, t in header.items()}


def write_safetensors(path, tensors):
    header, body = {}, b""
    for name, (dtype, shape, data) in sorted(tensors.items()):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)


def answer_names(folder):
    """The base first, then the adapters by name."""
    names = sorted(n[: -len(ANSWER)] for n in os.listdir(folder) if n.endswith(ANSWER))
    return ["base"] + [name for name in names if name != "base"]


def answers(folder):
    kept = {}
    for name in answer_names(folder):
        answer = read_safetensors(os.path.join(folder, name + ANSWER))
        ids = kept.setdefault("input_ids", answer["input_ids"])
        if answer["input_ids"] != ids:
            raise SystemExit(f"{folder}/{name}: other tokens than the base's")
        kept[name + ".token_logprobs"] = answer["token_logprobs"]
    return kept


def home_of_base(folder, family, held, out):
    """Where the tests find the base; copied into OUT unless an archive has its weights."""
    weights = os.path.join(folder, "base", WEIGHTS)
    if held.get(f"{family}/base/{WEIGHTS}") == file_digest(weights):
        return f"{family}/base"
    target = os.path.join(out, family, "base")
    os.makedirs(target)
    for name in ("config.json", WEIGHTS):
        shutil.copyfile(os.path.join(folder, "base", name), os.path.join(target, name))
    return f"forward/{family}/base"


def home_of_adapter(folder, family, name, held, out):
    """Where the tests find the adapter; copied into OUT if no archive has it."""
    adapter = os.path.join(folder, name)
    wanted = file_digest(os.path.join(adapter, ADAPTER_WEIGHTS))
    for home in ADAPTER_HOMES:
        if held.get(f"{home}{family}/{name}/{ADAPTER_WEIGHTS}") == wanted:
            return f"{home}{family}/{name}"
    print(f"no archive holds {family}/{name}: it goes into forward")
    target = os.path.join(out, family, name)
    os.makedirs(target)
    for file in ("adapter_config.json", ADAPTER_WEIGHTS):
        shutil.copyfile(os.path.join(adapter, file), os.path.join(target, file))
    return f"forward/{family}/{name}"


def cases_of(folder, family, held, out):
    base = home_of_base(folder, family, held, out)
    write_safetensors(os.path.join(out, family, "answers.safetensors"), answers(folder))
    rows = []
    for name in answer_names(folder):
        row = {"family": family, "name": name, "base": base}
        if name != "base":
            row["adapter"] = home_of_adapter(folder, family, name, held, out)
        rows.append(row)
    return rows


def main(goldens, families, out):
    out = os.path.join(out, "forward")
    os.makedirs(out)
    held = weights_of_archives()
    newer = sorted(n for n in os.listdir(families) if os.path.exists(os.path.join(families, n, "base" + ANSWER)))
    rows = []
    for parent, names in ((goldens, OLDER), (families, newer)):
        for family in names:
            os.makedirs(os.path.join(out, family))
            rows += cases_of(os.path.join(parent, family), family, held, out)
    with open(os.path.join(out, "cases.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
