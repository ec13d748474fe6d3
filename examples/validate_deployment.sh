#!/bin/sh
# Three adapters, one SGLang server: which of them would it serve? Two are refused, each in the server's own
# words. One can be fixed, by lora-convert; the other has to be trained again and stays out. The deployment that
# is left is sound. Needs lora-validate and lora-convert on PATH (examples/quickstart.sh builds a release).
set -eu
cd "$(dirname "$0")/data"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

validate() {
  set -- "$@" --engine sglang --base gpt_oss_base --max-lora-rank 16
  printf '\n$ lora-validate %s\n' "$*"
  lora-validate "$@"
}

validate gpt_oss_adapter gpt_oss_attention gpt_oss_lone_q && status=0 || status=$?
[ "$status" = 1 ] || { echo "expected findings, got status $status" >&2; exit 1; }

# What the server reads: one 3-D tensor a projection.
lora-convert adapter gpt_oss_adapter "$work/gpt_oss_adapter" --to stacked-fused --base gpt_oss_base --verify --quiet

validate "$work/gpt_oss_adapter" gpt_oss_attention
