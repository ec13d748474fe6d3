#!/bin/sh
# What a running server says of fixed tokens, with the base model and with an adapter: the files that
# `lora-diff logprobs` compares. Nothing is sampled, so two systems answer about the same tokens.
#
#   capture_logprobs.sh sglang URL TOKENS OUT ADAPTER         ADAPTER as the server was told (--lora-paths ADAPTER=...)
#   capture_logprobs.sh vllm   URL TOKENS OUT ADAPTER BASE    BASE: the base model's name (--served-model-name)
#
# TOKENS holds lists of token ids, [[1, 2, 3], [4, 5]]: take prompts with their responses from your trainer's own
# data. OUT gets ENGINE.base.json and ENGINE.adapter.json. Then, with both servers' files:
#
#   lora-diff logprobs OUT/vllm.adapter.json OUT/sglang.adapter.json --base-a OUT/vllm.base.json --base-b OUT/sglang.base.json
set -eu
usage() { sed -n '5,6s/^#  *//p' "$0" >&2; exit 2; }
[ $# -ge 5 ] || usage
engine=$1 url=${2%/} tokens=$(cat "$3") out=$4 adapter=$5 base=${6-}
mkdir -p "$out"

# post PATH BODY FILE: the answer, or nothing where the server refuses.
post() {
  curl --fail-with-body --silent --show-error --max-time 600 -H 'Content-Type: application/json' \
    --data "$2" --output "$3.part" "$url$1" || { cat "$3.part" >&2; rm -f "$3.part"; exit 1; }
  mv "$3.part" "$3"
}

# The log-probabilities of the prompt from its first token on; none generated.
ask_sglang() {
  post /generate "{\"input_ids\": $tokens, \"lora_path\": $1, \"return_logprob\": true, \"logprob_start_len\": 0,
    \"sampling_params\": {\"temperature\": 0, \"max_new_tokens\": 0}}" "$2"
}

# vLLM generates one token at least; what counts is prompt_logprobs, with the ids they belong to.
ask_vllm() {
  post /v1/completions "{\"model\": $1, \"prompt\": $tokens, \"prompt_logprobs\": 1, \"return_token_ids\": true,
    \"temperature\": 0, \"max_tokens\": 1}" "$2"
}

case $engine in
  sglang) ask_sglang null "$out/sglang.base.json"; ask_sglang "\"$adapter\"" "$out/sglang.adapter.json" ;;
  vllm) [ -n "$base" ] || usage
        ask_vllm "\"$base\"" "$out/vllm.base.json"; ask_vllm "\"$adapter\"" "$out/vllm.adapter.json" ;;
  *) usage ;;
esac
