#!/usr/bin/env python3
"""PythonRegex and PathPatterns against Python's re, called as PEFT calls it:
    python_regex_test.py MAIN        MAIN: python_regex_main
The expressions of real_patterns.txt and thousands made at random; each on paths made to fit and at random."""
import os
import random
import re
import subprocess
import sys
import warnings

GENERATED = 8000
PIECES = r"""a b . * + ? ( ) | [ab] [^a] \. \d \w \s (?: {2} {1,} {,2} {,} {} {a {1,2} ^ $ 1 (?= (?! (?<= (?<! [a-c] []a]
[^]a] [a-] *? +? ?? a- _ q_proj layers (a) (b|) (?:a|bc) \D \W \S \Z \A \b \B (?P<n> (?P=n) (?P<n>a) \1 \2 [[:alpha:]]
\K \Q \E \G \C \R \h \z \N \N{DOT} \v \n \x61 \x6 \07 \141 \0 \8 \p{L} \u0062 \U00000062 { } ] (?i) (?i: (?s) (?m) (?-i:
(?x) (?a) (?u) (?L) (?#c) (?> (?(1) (?(n) *+ ++ ?+ {2}? {2}+ (*F) (*UTF) \/ \_ é [é] [\d-z] [a-\d] [\b] [\w.] [^\W] [\S]
[b-a] [ (?P>n) (?<n> (?| (?R) (?1) [.-1]""".split()
PATHS = [
    "", "q", "a.q", "q_proj", "x.xq_proj", "model.layers.0.self_attn.q_proj", "model.layers.10.self_attn.v_proj",
    "model.layers.12.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj", "model.layers.1.mlp",
    "model.layers.3.mlp.experts.7.w1", "model.language_model.layers.3.linear_attn.in_proj_qkv", "lm_head",
    "model.layers.2.mlp.gate", "model.visual.blocks.0.attn.qkv", "gate_up_projs.31", "model.layers.5.MLP.Q_PROJ",
    "model.layers.2.mlp.experts.down_proj\n", "qqq_proj", "q" * 65, "vision_tower.x", "text_tower.x",
]


def hexed(text):
    return text.encode().hex()


def made_pattern(rng):
    pieces = PIECES if rng.random() < 0.4 else PIECES[:42]
    text = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 9)))
    missing = text.count("(") - text.count(")")
    return text + ")" * missing if missing > 0 and rng.random() < 0.8 else text


def made_path(rng):
    letters = "ab.1c_q\nA é" if rng.random() < 0.2 else "ab.1c_q"
    return "".join(rng.choice(letters) for _ in range(rng.randint(0, 7)))


def rows(rng):
    with open(os.path.join(os.path.dirname(__file__), "real_patterns.txt"), encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                mode, text = line.rstrip("\n").split("\t")
                yield mode, text, PATHS
    for _ in range(GENERATED):
        yield rng.choice(["full", "key"]), made_pattern(rng), [made_path(rng) for _ in range(8)] + [rng.choice(PATHS)]


def theirs(mode, text):
    """What Python makes of it; None where it refuses."""
    try:
        return re.compile(text if mode == "full" else rf"(.*\.)?({text})$")
    except (re.error, OverflowError, RecursionError, ValueError):
        return None


def main():
    if sys.version_info < (3, 11):
        print("skipped: re before Python 3.11 has neither possessive repeats nor atomic groups")
        return 77
    warnings.simplefilter("ignore")
    cases = list(rows(random.Random(11)))
    lines = ["\t".join([mode, hexed(text), *map(hexed, paths), ""]) for mode, text, paths in cases]
    printed = subprocess.run([sys.argv[1]], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    wrong, compared, matched, unread, refused = [], 0, 0, 0, 0
    for (mode, text, paths), ours in zip(cases, printed.stdout.splitlines(), strict=True):
        expression = theirs(mode, text)
        if expression is None or ours == "invalid":
            refused += 1
            if (expression is None) != (ours in ("invalid", "unread")):
                wrong.append(f"{mode} {text!r}: Python {'refuses' if expression is None else 'takes'} it, we: {ours}")
            continue
        if ours == "unread":
            unread += 1
            continue
        for path, answer in zip(paths, ours):
            expected = expression.fullmatch(path) if mode == "full" else expression.match(path)
            compared += answer != "?"
            matched += expected is not None
            if answer != "?" and (answer == "1") != (expected is not None):
                wrong.append(f"{mode} {text!r} on {path!r}: Python {bool(expected)}, we {answer}")
        if len(ours) != len(paths):
            wrong.append(f"{mode} {text!r}: {len(ours)} answers for {len(paths)} paths")
    print(f"{len(cases)} expressions, {refused} refused by both, {unread} not evaluated here; "
          f"{compared} matches compared, {matched} of them true, {len(wrong)} differ")
    print("\n".join(wrong[:20]))
    assert compared > 10000 and matched > 500 and unread < len(cases) / 50
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
