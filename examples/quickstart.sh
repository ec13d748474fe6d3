#!/bin/sh
# Builds the tools and runs their main jobs: an adapter that PEFT saved for a (tiny) GPT-OSS model goes in, one with
# per-expert Linear names comes out, provably the same; and what SGLang would do with it.
set -eu
cd "$(dirname "$0")/.."
tests/install_packages.sh build

mkdir -p build
cmake --preset release -DMOELORA_TESTS=OFF -B build/quickstart >build/quickstart.log || { cat build/quickstart.log; exit 1; }
cmake --build build/quickstart --target lora-convert lora-validate
PATH=$PWD/build/quickstart/bin:$PATH
cd examples/data

say() {
  printf '\n$ %s\n' "$*"
  "$@"
}
say lora-convert inspect gpt_oss_adapter --base gpt_oss_base
say lora-convert adapter gpt_oss_adapter ../../build/quickstart/per_expert --to peft-linear --base gpt_oss_base \
  --force --verify
say lora-validate ../../build/quickstart/per_expert --engine sglang --base gpt_oss_base
