#!/bin/sh
# Builds the wheel, installs it into a fresh virtual environment and tests it there as its users have it, with no
# compiler on PATH. Skips, with the reason, where PyPI is not to be reached.
#   tests/python/run.sh [fleet] [transformers]     which of the tests that want much (Ray, 70 MB; torch, 5 GB) to run too
# MOELORA_PYTHON names the interpreter (3.10 or newer); MOELORA_WHEEL a wheel that is built already.
set -eu
cd "$(dirname "$0")/../.."
here=$PWD
work=$here/build/python_test
python=${MOELORA_PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "skipped: $("$python" --version) is older than 3.10, which nanobind needs"
  exit 0
}
fetch() { timeout 1800 "$@" --quiet --disable-pip-version-check --retries 1 --timeout 15 </dev/null; }

rm -rf "$work/venv" "$work/wheel"
mkdir -p "$work"
"$python" -m venv "$work/venv"
fetch "$work/venv/bin/python" -m pip install pytest numpy safetensors ml_dtypes tqdm fsspec || {
  echo "skipped: no Python packages are to be had here"
  exit 0
}

wheel=${MOELORA_WHEEL:-}
if [ -z "$wheel" ]; then
  # -Werror makes the objects those of the release build, which a compiler cache has.
  "$python" -m pip wheel --quiet --no-deps --config-settings=cmake.define.MOELORA_WERROR=ON --wheel-dir "$work/wheel" .
  wheel=$(echo "$work"/wheel/moelora-*.whl)
fi
size=$(wc -c <"$wheel")
echo "$(basename "$wheel"): $size bytes"
[ "$size" -le 15000000 ] || { echo "a wheel has at most 15 MB" >&2; exit 1; }
# One for all Pythons from 3.12 on, one for this Python before.
tag=$("$python" -c 'import sys; v = sys.version_info; print("cp312-abi3" if v >= (3, 12) else "cp3{0}-cp3{0}".format(v[1]))')
case $wheel in *-"$tag"-*) ;; *) echo "not a wheel of $tag" >&2; exit 1 ;; esac
# Where it runs: what auditwheel grants, and made with Debian 12 what the servers' images have (Ubuntu 22.04: glibc 2.35).
if fetch "$work/venv/bin/python" -m pip install auditwheel; then
  tag=$("$work/venv/bin/auditwheel" show "$wheel" 2>/dev/null | grep -o 'manylinux_2_[0-9]*_[a-z0-9_]*' | head -n 1) || true
  echo "auditwheel grants: ${tag:-none}"
  [ -n "$tag" ] || { echo "it needs more of a machine than glibc" >&2; exit 1; }
  glibc=${tag#manylinux_2_}
  ! grep -q '^VERSION_CODENAME=bookworm' /etc/os-release || [ "${glibc%%_*}" -le 35 ] || { echo "it needs a newer glibc than 2.35" >&2; exit 1; }
else
  echo "no auditwheel to be had: not asked which glibc the wheel needs"
fi
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps "$wheel"

tests="package_test.py deltas_test.py fleet_test.py"
for more; do
  case $more in
    fleet) fetch "$work/venv/bin/python" -m pip install 'ray>=2.9' || echo "no Ray to be had: its tests will skip" ;;
    transformers)
      fetch "$work/venv/bin/python" -m pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2 accelerate trl==1.16.0 ||
        echo "no torch to be had: its tests will skip"
      tests="$tests transformers_test.py"
      ;;
    *) echo "unknown word: $more" >&2; exit 2 ;;
  esac
done

# As a user without a compiler: PATH has the environment and what a shell needs.
mkdir -p "$work/path" "$work/elsewhere"
for tool in sh bash awk env cat ls mkdir rm ps uname id sleep true; do ln -sf "$(command -v $tool)" "$work/path/$tool"; done
cd "$work/elsewhere"  # no sources to be imported by accident
env -i PATH="$work/venv/bin:$work/path" HOME="$work" LANG=C.UTF-8 MOELORA_SOURCE_DIR="$here" MOELORA_NO_COMPILER=1 \
  PYTHONDONTWRITEBYTECODE=1 RAY_USAGE_STATS_ENABLED=0 \
  "$work/venv/bin/python" -m pytest -q -rs -p no:cacheprovider --rootdir "$here/tests/python" \
  $(for test in $tests; do echo "$here/tests/python/$test"; done)
