#!/usr/bin/env python3
"""Makes sglang_newest/ for pack.sh: what the real SGLang 0.5.23 did with the adapters of sglang_adapters and
with the goldens, in the form of its table.

    pack_sglang_newest.py NEWEST ORACLE GOLDENS ADAPTERS OUT      (needs numpy; then: pack.sh OUT sglang_newest)

NEWEST is sgl023/ of the oracle, ORACLE the older one, ADAPTERS the unpacked sglang_adapters. Adapters that the older
release refused hold 0.5 there: those that this one serves come along whole. The CRC-32 of a buffer takes every NaN for
0x7fc0: which one torch makes of a NaN depends on its version.
"""
import json, os, shutil, sys
import numpy as np
import pack_sglang as old


def one_nan(data):
    bits = np.frombuffer(data, "<u2").copy()
    bits[(bits & 0x7FFF) > 0x7F80] = 0x7FC0
    return bits.tobytes()


def copy_values(oracle, adapters, out, family, name):
    """The adapter as the oracle had it, where ADAPTERS has other values."""
    path = f"{family.replace('_tied', '')}/{name}"
    if not os.path.isdir(f"{oracle}/adapters/{path}"):
        return
    file = path + "/adapter_model.safetensors"
    if open(f"{oracle}/adapters/{file}", "rb").read() != open(f"{adapters}/{file}", "rb").read():
        shutil.copytree(f"{oracle}/adapters/{path}", f"{out}/sglang_newest/{path}", dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("README.md"))


def main(newest, oracle, goldens, adapters, out):
    table = {}
    for family in old.FAMILIES:
        pools = old.Pools(f"{newest}/{family}.safetensors")
        pools.tensors = {k: (d, s, one_nan(b)) for k, (d, s, b) in pools.tensors.items()}
        rows = table[family] = []
        for record in json.load(open(f"{newest}/{family}.json")):
            row = old.compact(record)
            if "adapter" in record:
                hand = f"{adapters}/{family.replace('_tied', '')}/{record['adapter']}"
                if not os.path.isdir(hand) and not os.path.isdir(f"{goldens}/{family}/{record['adapter']}"):
                    continue  # kept apart
                if record["outcome"] == "ok":
                    row["pool"] = pools.digests(record["label"] + "|id0")
                    copy_values(oracle, adapters, out, family, record["adapter"])
            rows.append(row)
    os.makedirs(out + "/sglang_newest", exist_ok=True)
    with open(out + "/sglang_newest/outcomes.json", "w") as f:
        json.dump(table, f, separators=(",", ":"), sort_keys=True)
    print({family: len(rows) for family, rows in table.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
