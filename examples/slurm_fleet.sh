#!/bin/bash
# An array job over a list of adapters (a path a line), for clusters without Ray:
#   sbatch --array=0-99 --cpus-per-task=1 examples/slurm_fleet.sh LIST STATE validate --engine sglang --base BASE
# STATE is a folder that all nodes see. When the job has ended, the one report is made of it; what no task has done is done now:
#   python -m moelora.fleet validate - --state STATE --address local --engine sglang --base BASE <LIST
# Needs the Python package on every node. convert takes --out FOLDER --root FOLDER, diff takes --other FOLDER --root FOLDER.
set -euo pipefail
list=$1 state=$2 command=$3
shift 3
mkdir -p "$state"

# Every n-th adapter, so that neighbours of one size are spread.
awk -v n="$SLURM_ARRAY_TASK_COUNT" -v i="$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))" 'NR % n == i' "$list" |
  python3 -m moelora.fleet "$command" - --state "$state" --address local --output "$state/task.$SLURM_ARRAY_TASK_ID.txt" "$@" ||
  [ $? = 1 ]  # findings are no fault of the job
