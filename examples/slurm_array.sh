#!/bin/bash
# Checks a list of adapters on a Slurm cluster with lora-validate: a task an adapter, or every Nth where the array is shorter
# than the list. slurm_fleet.sh converts and compares too and makes one report; it needs the Python package.
#
#   find /checkpoints -name adapter_config.json -printf '%h\n' | sort >units.txt
#   sbatch --array=1-"$(wc -l <units.txt)"%64 slurm_array.sh units.txt reports --base openai/gpt-oss-20b --engine sglang
#   slurm_array.sh --summary units.txt reports
#
# A report appears whole or not at all, under a name made of the adapter's path. So the same line again does what is
# missing: adapters that were added, tasks that died, adapters whose files are others than those of their report. Other
# options or another lora-validate want another folder of reports. What is found is no failure of a task: it ends with
# 0 for a report, whatever it says, and fails where there is none.
# --summary prints the adapters that failed and those without a report of what is there now; its status is 0, 1
# (findings) or 2 (missing).
#SBATCH --job-name=lora-validate
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=00:30:00
#SBATCH --requeue
set -euo pipefail

usage() { sed -n '2,/^#SBATCH/{/^#SBATCH/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }

die() { printf 'slurm_array.sh: error: %s\n' "$1" >&2; exit 2; }

report_of() { printf '%s/%s.json' "$2" "$(printf '%s' "$1" | sha256sum | cut -c1-32)"; }

# What changes when a file of the adapter does, whichever is older; nothing and a failure where there is no adapter.
stamp_of() { find -L "$1" -maxdepth 1 -type f -printf '%P %s %T@ %C@\n' 2>/dev/null | LC_ALL=C sort | sha256sum; }

is_done() {
  local report stamp
  report=$(report_of "$1" "$2")
  [ -f "$report" ] && stamp=$(stamp_of "$1") && [ "$(cat "$report.stamp" 2>/dev/null)" = "$stamp" ]
}

# A report says what these options and this lora-validate made of an adapter. Tasks begin at the same time: the first
# link that is made is the record.
keep_options() {
  local out=$1 version mine
  shift
  version=$(lora-validate --version | head -n 1) || die "lora-validate does not run here: put its folder on PATH"
  mine=$(mktemp "$out/.options.XXXXXX")
  { printf '%s\n' "${version% (*}"; [ $# = 0 ] || printf '%q\n' "$@"; } >"$mine"
  chmod a+r "$mine"
  [ -e "$out/options" ] || ln "$mine" "$out/options" 2>/dev/null || [ -e "$out/options" ] || cp "$mine" "$out/options"
  if ! cmp -s "$mine" "$out/options"; then
    compgen -G "$out/*.json" >/dev/null || { mv "$mine" "$out/options"; return; }  # theirs led to no report
    version=$(paste -sd' ' "$mine")
    rm -f "$mine"
    die "$out: holds reports of '$(paste -sd' ' "$out/options")', not of '$version': name another folder"
  fi
  rm -f "$mine"
}

summary() {
  local unit report found=0 missing=0 all=0
  while IFS= read -r unit || [ -n "$unit" ]; do
    [ -n "$unit" ] || continue
    all=$((all + 1))
    report=$(report_of "$unit" "$2")
    if ! is_done "$unit" "$2"; then
      missing=$((missing + 1))
      if [ ! -e "$unit" ]; then
        printf 'gone    %s\n' "$unit"
      elif [ -f "$report" ]; then
        printf 'changed %s\n' "$unit"
      else
        printf 'missing %s\n' "$unit"
      fi
    elif grep -q '^  "summary": .*\("failed": true\|"unjudged": true\)' "$report"; then
      found=$((found + 1))
      printf 'failed  %s  %s\n' "$unit" "$report"
    fi
  done <"$1"
  [ "$all" -gt 0 ] || die "$1: names no adapter: write one path a line"
  printf '%d adapters: %d failed, %d without a report\n' "$all" "$found" "$missing"
  [ "$missing" = 0 ] || return 2
  [ "$found" = 0 ]
}

check() {
  local unit=$1 out=$2 report stamp status=0
  shift 2
  if is_done "$unit" "$out"; then
    echo "done before: $unit"
    return 0
  fi
  report=$(report_of "$unit" "$out")
  rm -f "$report" "$report.stamp"  # so that what is there afterwards is of this run
  stamp=$(stamp_of "$unit") || stamp=  # before it is read: what changes meanwhile is done again
  lora-validate "$unit" "$@" --threads "${SLURM_CPUS_PER_TASK:-2}" --format json --output "$report" || status=$?
  # 2: something was not judged, and the report says what; or there is no report.
  [ "$status" -le 2 ] && [ -f "$report" ] || return 1
  [ -z "$stamp" ] || { printf '%s\n' "$stamp" >"$report.$$" && mv "$report.$$" "$report.stamp"; }
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
keep_options "$out" "$@"
failed=0
number=0
while IFS= read -r unit <&3 || [ -n "$unit" ]; do
  [ -n "$unit" ] || continue
  if ((number % tasks == (first - begin) / step % tasks)); then check "$unit" "$out" "$@" || failed=1; fi
  number=$((number + 1))
done 3<"$units"
[ "$number" -gt 0 ] || die "$units: names no adapter: write one path a line"
exit "$failed"
