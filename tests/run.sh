#!/bin/sh
# Installs what is missing, builds a release (without CUDA) in build/release and passes every test.
set -eu
cd "$(dirname "$0")/.."
tests/install_packages.sh build test

# For the tests that ask the Python world; without it they skip and say so.
if ! build/python/bin/python -c 'import numpy, safetensors, jsonschema' 2>/dev/null; then
  /usr/bin/env python3 -m venv build/python &&
    timeout 300 build/python/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 15 \
      numpy safetensors jsonschema </dev/null ||
    echo "no Python packages to be had: the tests that need them will skip"
fi

cmake --preset release
cmake --build --preset release
ctest --preset release "$@"
