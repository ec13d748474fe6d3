#!/usr/bin/env python3
"""Writes examples/data/logprobs/tiny.vllm.json: what a server that takes rank_pattern and alpha_pattern for not there, as vLLM
up to 0.31 does, says of tiny_adapter, in the form of vLLM's answers. Computed by the second opinion of tests/forward, which
shares no code with what is compared with it, and rounded to float32.

    demo_server.py GOLDENS      whose gpt_oss_square holds the tokens
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples/data"
sys.path.insert(0, str(ROOT / "tests/forward"))

from reference import adapter, token_logprobs  # noqa: E402


def one_scale(config, name, rank):
    """lora_alpha / r of the whole adapter, whatever a module's own are."""
    return config["lora_alpha"] / config["r"]


def answer(ids, scores):
    values = [{str(token): {"logprob": float(np.float32(value)), "rank": None, "decoded_token": None}}
              for token, value in zip(ids[1:], scores)]
    return {"prompt_token_ids": list(ids), "prompt_logprobs": [None, *values]}


def main(goldens):
    tokens = safetensors.numpy.load_file(pathlib.Path(goldens) / "gpt_oss_square/base.expect.safetensors")["input_ids"]
    adapter.scale = one_scale
    scores = token_logprobs(DEMO / "tiny_base", tokens, DEMO / "tiny_adapter")
    answers = [answer(ids, row) for ids, row in zip(tokens.tolist(), scores)]
    (DEMO / "logprobs/tiny.vllm.json").write_text("[" + ",\n".join(map(json.dumps, answers)) + "]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
