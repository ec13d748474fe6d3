# What .ci/run and .ci/full share: step NAME COMMAND runs a step whatever came before and reports its time;
# finish LOG ends with the summary that the test runner printed into LOG.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export CI=true
exec </dev/null
mkdir -p build

failed=()
times=()
step() {
  local name=$1 begin=$SECONDS
  shift
  printf '\n=== %s\n' "$name"
  if "$@"; then
    times+=("$(printf '%5d s  %s' $((SECONDS - begin)) "$name")")
  else
    times+=("$(printf '%5d s  %s  FAILED' $((SECONDS - begin)) "$name")")
    failed+=("$name")
  fi
  printf '=== %s\n' "${times[-1]}"
}

finish() {
  printf '\n=== all steps took %d s; failed: %s\n' "$SECONDS" "${failed[*]:-none}"
  printf '%s\n' "${times[@]}"
  printf '\n'
  sed -n '/% tests passed/,$p' "$1"
  ((${#failed[@]} == 0))
}
