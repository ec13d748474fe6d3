#!/bin/sh
# Loads what `lora-convert --for peft` writes with real PEFT and compares logits. Not part of .ci/run:
# PyPI's torch brings its CUDA libraries (5 GB, minutes). Run once before an issue is closed:
#   tests/peers/run.sh BUILD [--update]     BUILD: a build folder with bin/lora-convert and test_data
# PEERS_PYTHON names an interpreter that has torch, transformers and peft; without it a virtual
# environment is made in BUILD/peers. --update writes what was loaded (configs and digests) to
# peft_outputs.json, which .ci/run compares without torch (tests/front/peft_outputs_test.cpp).
set -eu
here=$(CDPATH="" cd -- "$(dirname -- "$0")" && pwd)
build=${1:?"a build folder"}
shift
python=${PEERS_PYTHON:-$build/peers/bin/python}
if ! [ -x "$python" ]; then
  python3 -m venv "$build/peers"
  "$build/peers/bin/pip" install -q torch==2.15.0 transformers==5.24.0 peft==0.21.2 safetensors
fi
exec "$python" "$here/peft_logits.py" "$build" "$@"
