#!/usr/bin/env python3
"""Sets forward_bench's times beside peer_forward.py's of the same machine.

    compare_forward.py forward.json peer.json

Microseconds on the device, medians; ours and the peers replayed as CUDA graphs, the eager loop as it is. "peer" is the
fastest that takes the routing as it comes (grouped, or gather at few tokens); "presorted" has the order of rows worked
out before the clock starts, as ours has. The floor is an H200's.
"""
import json
import sys


def graphs(row):
    return {n: t["median"] for n, t in row["microseconds"].items() if isinstance(t, dict) and n.endswith("graph")}


def line(shape, row, other):
    mine, theirs = graphs(row), graphs(other)
    auto, presorted, floor = mine.pop("auto graph"), theirs.pop("presorted graph", float("nan")), other["floor_h200_us"]
    best, peer = min(mine, key=mine.get), min(theirs.values(), default=float("nan"))
    return {
        "shape": shape, "tokens": row["tokens"], "auto": auto, "best": mine[best], "path": best.removesuffix(" graph"),
        "peer": peer, "presorted": presorted, "loop": other["microseconds"]["loop"]["median"], "floor": floor,
        "auto/peer": auto / peer, "auto/presorted": auto / presorted, "auto/floor": auto / floor,
        "peer/floor": peer / floor}


def lines(ours, peer):
    theirs = {(p["shape"], r["tokens"]): r for p in peer["results"] for r in p["rows"]}
    for shape in ours["results"]:
        for row in shape["rows"]:
            other = theirs.get((shape["shape"], row["tokens"]))
            if other is not None:
                yield line(shape["shape"], row, other)


def text(value):
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else \
        f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def main():
    ours, peer = (json.load(open(path)) for path in sys.argv[1:3])
    rows = list(lines(ours, peer))
    table = [list(rows[0])] + [[text(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths)))


if __name__ == "__main__":
    main()
