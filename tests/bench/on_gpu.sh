#!/bin/bash
# All evidence that needs a card, in one go of at most eight minutes:
#   on_gpu.sh BIN OUT    BIN: numeric_tests, forward_bench, forward_check_bench, libmoelora_cuda.so (cmake --preset cuda
#                        -DMOELORA_BENCH=ON) and a folder lib of what they need beside them; OUT: where results go
# Tests on the card; times of ours and of PyTorch; a whole adapter checked; the tests under compute-sanitizer. Needs
# python3 with PyTorch for the peers, and cuBLAS 13, which is looked for in CUDA's and PyTorch's folders.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd)
out=$(mkdir -p "$2" && cd "$2" && pwd)
limit_s=480
exec > >(tee "$out/log.txt") 2>&1

left() { echo $((limit_s - SECONDS > 5 ? limit_s - SECONDS : 5)); }
verdicts=()
step() {  # step NAME SECONDS COMMAND...: at most that long, and never beyond the limit
  local name=$1 most=$2 begin=$SECONDS
  shift 2
  printf '\n=== %s (%d s into the run)\n' "$name" "$begin"
  timeout "$((most < $(left) ? most : $(left)))" bash -c '"$@"' - "$@"
  local status=$?
  local result=ok
  ((status == 0)) || result="status $status"
  verdicts+=("$(printf '%-46s %-11s %4d s' "$name" "$result" $((SECONDS - begin)))")
}
into() { "${@:2}" >"$1"; }  # into FILE COMMAND...
whole_adapter() { into "$1" "$bin/forward_check_bench" --device cuda --base "$2"; }
memcheck() {  # memcheck TESTS
  [[ -n $sanitizer ]] || return 127
  "$sanitizer" --tool memcheck --report-api-errors no --error-exitcode 9 --print-limit 20 \
    "$bin/numeric_tests" --test-suite=card --test-case="$1" --duration=true
}
export -f into whole_adapter memcheck

site=$(python3 -c 'import site; print(*site.getsitepackages())')
# shellcheck disable=SC2086  # several folders
blas=$(find -L $site /usr/local/cuda*/lib64 /usr/local/cuda*/targets -name libcublas.so.13 2>/dev/null | head -1)
export LD_LIBRARY_PATH=${blas%/*}:${LD_LIBRARY_PATH:-}:$bin/lib
export MOELORA_CUDA_MODULE=$bin/libmoelora_cuda.so MOELORA_REQUIRE_CARD=1 PYTHONUNBUFFERED=1
PATH=$PATH:/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer
sanitizer=$(command -v compute-sanitizer)
date -u
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit --format=csv
echo "cuBLAS: ${blas:-not found}; sanitizer: ${sanitizer:-not found}; CPUs: $(nproc)"
ldd "$MOELORA_CUDA_MODULE" "$bin/numeric_tests" | grep -E 'not found|cublas|fmt'

export bin here sanitizer

cd "$out" || exit
step "tests on the card" 170 "$bin/numeric_tests" --test-suite=card --duration=true
step "forward_bench" 120 into forward.json "$bin/forward_bench"
step "PyTorch" 110 into peer.json python3 "$here/peer_forward.py"
step "a whole adapter, base of its own" 90 whole_adapter check_own_base.json own
step "a whole adapter, base that stands in" 60 whole_adapter check_stand_in.json stand-in
step "memcheck: ugly shapes, exact sums, same bits" 160 memcheck "*ugly*,*whole numbers*,*same bits*"
step "memcheck: gpt-oss-20b, Qwen3-30B-A3B" 160 memcheck "*gpt-oss*,*Qwen3*"

printf '\n=== Summary after %d s\n' "$SECONDS"
python3 "$here/compare_forward.py" forward.json peer.json
grep -h -E '"(base|seconds|deltas|differences|relative)"' check_*.json
printf '%s\n' "${verdicts[@]}"
[[ ! ${verdicts[*]} =~ "status" ]]
