#!/bin/sh
# One adapter, two servers, neither of them started: which would compute what the files mean, and what would the other
# cost, in nats? A gate, --max, lets through the one that does. Needs lora-diff on PATH (examples/quickstart.sh builds a
# release).
set -eu
cd "$(dirname "$0")/data"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

shown() {
  printf '\n$ %s\n' "$*"
  "$@"
}

predict() { shown lora-diff predict tokens.json --base tiny_base --adapter tiny_adapter "$@"; }

# What base and adapter mean, of tokens of the kind that the adapter was trained for: to be kept beside it, for whoever
# compares a server with it.
shown lora-diff score tokens.json --base tiny_base --adapter tiny_adapter --output "$work/scores.safetensors"

# The adapter has ranks and scales by module, and the older vLLM takes them for one: the gate stays shut.
predict --as vllm@0.29 --as vllm@0.33 --max k2=1e-3 && status=0 || status=$?
[ "$status" = 1 ] || { echo "expected a closed gate, got status $status" >&2; exit 1; }

# The newer one alone passes, to within what float rounds: exit status 0.
predict --as vllm@0.33 --max k2=1e-3
