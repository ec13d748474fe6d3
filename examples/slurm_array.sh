#!/bin/bash
# Checks a list of adapters on a Slurm cluster with lora-validate: a task an adapter, or every Nth where the array is shorter
# than the list. slurm_fleet.sh converts and compares too and makes one report; it needs the Python package.
#
#   find /checkpoints -name adapter_config.json -printf '%h\n' | sort >units.txt
#   sbatch --array=1-"$(wc -l <units.txt)"%64 slurm_array.sh units.txt reports --base openai/gpt-oss-20b --engine sglang
#   slurm_array.sh --summary units.txt reports
#
# A report appears whole or not at all, under a name made of the adapter's path. So the same line again does what is
# missing: adapters that were added, tasks that died, adapters whose files are newer than their report. What is found
# is no failure of a task: it ends with 0 for a report, whatever it says, and fails where there is none.
# --summary prints the adapters that failed and those without a report; its status is 0, 1 (findings) or 2 (missing).
#SBATCH --job-name=lora-validate
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=00:30:00
#SBATCH --requeue
set -euo pipefail

usage() { sed -n '2,/^#SBATCH/{/^#SBATCH/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }

report_of() { printf '%s/%s.json' "$2" "$(printf '%s' "$1" | sha256sum | cut -c1-32)"; }

is_done() {
  local report
  report=$(report_of "$1" "$2")
  [ -f "$report" ] && [ -z "$(find -H "$1" -maxdepth 1 -type f -newer "$report" -print -quit 2>/dev/null)" ]
}

summary() {
  local unit report found=0 missing=0 all=0
  while IFS= read -r unit; do
    [ -n "$unit" ] || continue
    all=$((all + 1))
    report=$(report_of "$unit" "$2")
    if [ ! -f "$report" ]; then
      missing=$((missing + 1))
      printf 'missing %s\n' "$unit"
    elif grep -q '^  "summary": .*\("failed": true\|"unjudged": true\)' "$report"; then
      found=$((found + 1))
      printf 'failed  %s  %s\n' "$unit" "$report"
    fi
  done <"$1"
  printf '%d adapters: %d failed, %d without a report\n' "$all" "$found" "$missing"
  [ "$missing" = 0 ] || return 2
  [ "$found" = 0 ]
}

check() {
  local unit=$1 out=$2 report status=0
  shift 2
  if is_done "$unit" "$out"; then
    echo "done before: $unit"
    return 0
  fi
  report=$(report_of "$unit" "$out")
  lora-validate "$unit" "$@" --threads "${SLURM_CPUS_PER_TASK:-2}" --format json --output "$report" || status=$?
  # 2: something was not judged, and the report says what; or there is no report of this run.
  [ "$status" -le 1 ] || { [ "$status" = 2 ] && is_done "$unit" "$out"; }
}

if [ "${1-}" = --summary ]; then
  [ $# = 3 ] || usage
  summary "$2" "$3"
  exit
fi
if [ $# -lt 2 ] || [ ! -r "$1" ]; then usage; fi
units=$1 out=$2
shift 2
mkdir -p "$out"
first=${SLURM_ARRAY_TASK_ID:?is not set: submit this with sbatch --array, see the head of it}
begin=${SLURM_ARRAY_TASK_MIN:-1}
tasks=${SLURM_ARRAY_TASK_COUNT:-1}
step=${SLURM_ARRAY_TASK_STEP:-1}  # of --array=A-B:STEP
failed=0
number=0
while IFS= read -r unit <&3; do
  [ -n "$unit" ] || continue
  if ((number % tasks == (first - begin) / step % tasks)); then check "$unit" "$out" "$@" || failed=1; fi
  number=$((number + 1))
done 3<"$units"
exit "$failed"
