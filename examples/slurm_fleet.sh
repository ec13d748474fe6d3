#!/bin/bash
# An array job that does with a list of adapters (a path a line) what moelora.fleet does on Ray: validate, convert or diff,
# with one report. It needs the Python package on every node; slurm_array.sh needs lora-validate alone.
#   sbatch --array=0-99 --cpus-per-task=1 examples/slurm_fleet.sh LIST STATE validate --engine sglang --base BASE
# STATE is a folder that all nodes see. When the job has ended, the one report is made of it; what no task has done is done now:
#   python3 -m moelora.fleet validate - --state STATE --address local --engine sglang --base BASE <LIST
# convert takes --out FOLDER --root FOLDER, diff takes --other FOLDER --root FOLDER. PYTHON names another interpreter.
set -euo pipefail
if [ $# -lt 3 ] || [ ! -r "$1" ]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi
list=$1 state=$2 command=$3
shift 3
: "${SLURM_ARRAY_TASK_ID:?is not set: submit this with sbatch --array, see the head of it}"
mkdir -p "$state"
report=$state/task.$SLURM_ARRAY_TASK_ID.txt
rm -f "$report"

# Every n-th adapter, so that neighbors of one size are spread. --array=A-B:STEP counts by STEP.
share=$(awk -v n="${SLURM_ARRAY_TASK_COUNT:-1}" -v step="${SLURM_ARRAY_TASK_STEP:-1}" \
  -v i="$((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-SLURM_ARRAY_TASK_ID}))" 'NF && ++line % n == i / step % n' "$list")
if [ -z "$share" ]; then
  awk 'NF { found = 1 } END { exit !found }' "$list" || { echo "slurm_fleet.sh: error: $list: names no adapter: write one path a line" >&2; exit 2; }
  echo "nothing to do: the array has more tasks than the list has adapters"
  exit 0
fi
printf '%s\n' "$share" |
  "${PYTHON:-python3}" -m moelora.fleet "$command" - --state "$state" --address local --output "$report" "$@" ||
  { [ $? = 1 ] && [ -s "$report" ]; }  # findings are no fault of the job; Python that does not start also says 1
