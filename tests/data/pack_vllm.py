#!/usr/bin/env python3
"""Makes tests/data/vllm_adapters.tar.xz of an unpacked vLLM oracle.

  tests/data/pack_vllm.py ORACLE NEWEST GOLDENS     ORACLE: the folder with adapters/ and
                                                    *.results.json; NEWEST: that of later releases

The archive holds the hand-made adapters, the goldens that no other archive has, and outcomes.json:
what each release of vLLM did with them and with all goldens on every rank, only what tests
compare, with a CRC-32 of the buffers they held. The values of adapters that no version served in any mode are replaced by 0.5 (what is not
finite or above 1e4 stays): nothing but their names and shapes was ever looked at.
"""

import functools
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib

TAGS = {"vllm_may": "0.22", "aphrodite_aug": "0.27", "v0271": "0.27.1", "v029": "0.29",
        "v030": "0.30", "v031": "0.31", "v032": "0.32", "v033": "0.33"}
LISTED = 8  # kListed of lib/engine/vllm/load/adapter.cpp: what a list or set prints of its entries
PATTERN = {"F32": ("f", 0.5), "F16": ("e", 0.5), "BF16": ("H", 0x3F00), "F64": ("d", 0.5)}


def abbreviated(text):
    """Sets as {SET} (their order is arbitrary), lists as our plan prints them, vLLM's own name."""
    text = re.sub(r"(modules in )\{[^}]*\}", r"\1{SET}", text).replace("Aphrodite ", "vLLM ")

    def shorten(match):
        items = match.group(1).split(", ")
        if len(items) <= LISTED:
            return match.group(0)
        return "received [%s, ... (%d entries)]" % (", ".join(items[:LISTED]), len(items))

    return re.sub(r"received \[([^]]*)\]", shorten, text)


def outcome(record):
    if not record["ok"]:
        return {"stage": record["stage"], "type": record["error"], "text": abbreviated(record["text"])}
    out = {"stage": "served"}
    for ours, theirs in (("unused", "unused_tensors"), ("unpaired", "unpaired_tensors"),
                         ("skipped", "skipped_tensors"), ("set", "set_modules"),
                         ("zero", "zero_modules")):
        out[ours] = sorted(record[theirs])
    return out


def buffers_crc(path):
    """Of every buffer, by name: "NAME EXTENT EXTENT ..\\n" without the slot's, and its bf16 values;
    None without a file."""
    if not path.exists():
        return None
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    crc = 0
    for name, entry in sorted(json.loads(data[8:8 + size]).items()):
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        shape = entry["shape"][1:] if ".experts.w" in name else entry["shape"][-2:]
        line = "%s %s\n" % (name, " ".join(map(str, shape)))
        crc = zlib.crc32(data[begin:end], zlib.crc32(line.encode(), crc))
    return crc


def catalogue(results):
    """Of each tiny model: class, what the gate accepts, what is wrapped by which layer class."""
    out = {}
    for name, entry in results["catalogue"].items():
        if name.startswith("golden:"):
            continue
        keys = ("class", "is_3d_moe_weight", "is_non_gated_moe", "expected", "wrappers")
        out[name] = ({"error": entry["FAILED"]} if "FAILED" in entry else
                     {key: list(map(list, entry[key].items())) if key == "wrappers" else entry[key]
                      for key in keys})
    return out


def table(folders, goldens):
    """Loads of adapters that are not at hand (39 of the later results) are left out."""
    outcomes, index, runs, classes = [], {}, [], {}
    for tag, version in TAGS.items():
        oracle = next(f for f in folders if (f / (tag + ".results.json")).exists())
        results = json.loads((oracle / (tag + ".results.json")).read_text())
        classes[version] = catalogue(results)
        for record in results["results"]:
            path = pathlib.Path(record["family"]) / record["adapter"]
            if not ((folders[0] / "adapters" / path).exists() or (goldens / path).exists()):
                continue
            entry = json.dumps(outcome(record), separators=(",", ":"))
            if entry not in index:
                index[entry] = len(outcomes)
                outcomes.append(entry)
            crc = None
            if record["ok"] and (oracle / tag).exists():
                crc = buffers_crc(oracle / tag / (record["buffers"] + ".safetensors"))
            runs.append([version, record["source"], record["family"], record["adapter"],
                         record["mode"], record["tp"], record["rank"], record["max_lora_rank"],
                         index[entry], crc])
    lines = lambda items: "[\n" + ",\n".join(items) + "\n]"
    text = '{"outcomes": %s,\n"runs": %s,\n"catalogue": %s}\n' % (
        lines(outcomes), lines(json.dumps(run, separators=(",", ":")) for run in runs),
        json.dumps(classes, separators=(",", ":")))
    return text, runs, [json.loads(entry) for entry in outcomes]


def is_special(kind, value):
    if kind == "H":  # bf16
        value = struct.unpack("<f", struct.pack("<I", value << 16))[0]
    return not abs(value) < 1e4


def blanked(path):
    """The file with 0.5 for every plain value."""
    data = bytearray(path.read_bytes())
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in PATTERN:
            continue
        kind, half = PATTERN[entry["dtype"]]
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        form = "<%d%s" % ((end - begin) // struct.calcsize("<" + kind), kind)
        values = struct.unpack(form, data[begin:end])
        data[begin:end] = struct.pack(form, *(v if is_special(kind, v) else half for v in values))
    return bytes(data)


@functools.lru_cache
def names_in(archive):
    if not archive.exists():
        return ()
    with tarfile.open(archive) as files:
        return tuple(files.getnames())


def in_repo(here, family, adapter):
    start = "%s/%s/" % (family, adapter)
    return any(name.startswith(start) for name in names_in(here / (family + ".tar.xz")))


def main():
    oracle, newest, goldens = map(pathlib.Path, sys.argv[1:])
    here = pathlib.Path(__file__).resolve().parent
    text, runs, outcomes = table([oracle, newest], goldens)
    served = {(run[2], run[3]) for run in runs if outcomes[run[8]]["stage"] == "served"}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "vllm_adapters"
        shutil.copytree(oracle / "adapters", root, ignore=shutil.ignore_patterns("notes.json"))
        for family, adapter in sorted({(run[2], run[3]) for run in runs if run[1] == "golden"}):
            if not in_repo(here, family, adapter):
                shutil.copytree(goldens / family / adapter, root / family / adapter)
        for weights in root.glob("*/*/*.safetensors"):
            if (weights.parent.parent.name, weights.parent.name) not in served:
                weights.write_bytes(blanked(weights))
        (root / "outcomes.json").write_text(text)
        subprocess.run([here / "pack.sh", folder, "vllm_adapters"], check=True)


main()
