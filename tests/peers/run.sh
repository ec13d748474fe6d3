#!/bin/sh
# Loads what lora-convert writes with real peers: PEFT (logits; and what it merges, read back), mlx-lm (fused weights, both ways). Not part of .ci/run:
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
"$python" "$here/peft_logits.py" "$build" "$@"
"$python" "$here/peft_reads_back.py" "$build"

# MLX's adapters against mlx-lm's own load_adapters() and fuse(), both ways (mlx for the CPU: 200 MB).
mlx=${PEERS_MLX_PYTHON:-$build/peers_mlx/bin/python}
if ! [ -x "$mlx" ]; then
  python3 -m venv "$build/peers_mlx"
  "$build/peers_mlx/bin/pip" install -q mlx-lm==0.32.2 'mlx[cpu]==0.32.4' numpy safetensors
fi
exec "$mlx" "$here/mlx_fuse.py" "$build"
