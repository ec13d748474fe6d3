#!/bin/bash
# examples/slurm_array.sh on a Slurm cluster of this machine: munged, slurmctld and one slurmd, started here with
# a configuration of their own, and ended with it. Where they are not installed or do not start, the same script under an
# sbatch that runs the tasks one after the other, and the reason is said. As root:
#   tests/python/slurm_test.sh BUILD/bin
set -euo pipefail
bin=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
chmod 755 "$work"
started=()
end() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap end EXIT
export PATH=$bin:$PATH
why=

start() {  # NAME LOG COMMAND..
  local name=$1 log=$2
  shift 2
  "$@" >"$log" 2>&1 &
  started+=($!)
  sleep 1
  kill -0 "${started[-1]}" 2>/dev/null || { why="$name ends at once: $(tail -n 2 "$log" | tr '\n' ' ')"; return 1; }
}

cluster() {
  local tool
  for tool in munged slurmctld slurmd sbatch; do
    command -v "$tool" >/dev/null || { why="$tool is not installed (slurm-wlm, munge)"; return 1; }
  done
  [ "$(id -u)" = 0 ] || { why="slurmd wants root"; return 1; }
  mkdir -m 700 "$work/munge"
  dd if=/dev/urandom bs=1 count=1024 of="$work/munge/key" 2>/dev/null
  chmod 400 "$work/munge/key"
  local host port=$((20000 + RANDOM % 20000))
  host=$(hostname -s)
  start munged "$work/munged.log" munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge.socket" \
    --pid-file="$work/munge/pid" --log-file="$work/munge/log" --seed-file="$work/munge/seed" --num-threads=1 || return 1
  mkdir "$work/state" "$work/spool"
  cat >"$work/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=8192 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$work/slurm.conf
  start slurmctld "$work/slurmctld.log" slurmctld -D -c -f "$SLURM_CONF" || return 1
  start slurmd "$work/slurmd.log" slurmd -D -f "$SLURM_CONF" -N "$host" || return 1
  local second
  for second in $(seq 30); do
    sinfo -h -o %T 2>/dev/null | grep -q '^idle' && return 0
    sleep 1
  done
  why="no node gets idle in 30 s: $(sinfo -h -o '%T %E' 2>&1 | tail -n 1); $(tail -n 2 "$work/slurmd.log" | tr '\n' ' ')"
  return 1
}

# As sbatch --wait --array=1-N[%M] SCRIPT ARGUMENTS..: the tasks one after the other, each with Slurm's variables.
fake_sbatch() {
  local array=${2#--array=} status=0 task
  shift 2
  local count=${array#1-}
  count=${count%%%*}
  for ((task = 1; task <= count; ++task)); do
    SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_COUNT=$count SLURM_CPUS_PER_TASK=2 bash "$@" || status=1
  done
  return $status
}

if cluster; then
  echo "a cluster of this machine: $(slurmctld -V)"
  submit() { sbatch --wait --quiet --output="$work/log-%a" "$@"; }
else
  echo "no cluster ($why): under an sbatch that runs the tasks one after the other"
  submit() { fake_sbatch --wait "$@" >>"$work/log-fake" 2>&1; }
fi

fail() { echo "FAILED: $1"; tail -n 5 "$work"/log-* 2>/dev/null || true; exit 1; }
cd "$work"
for n in $(seq 1 6); do cp -r "$root/examples/data/gpt_oss_attention" "unit-$n"; done
cp -r "$root/examples/data/gpt_oss_lone_q" unit-broken
printf '%s\n' "$work"/unit-[1-6] "$work/unit-broken" >units.txt
script=$root/examples/slurm_array.sh
options=(--base "$root/examples/data/gpt_oss_base" --engine sglang)

submit --array=1-7%2 "$script" units.txt out "${options[@]}" || fail "the array"
summary=$("$script" --summary units.txt out) && fail "the summary is green"
[ "$(tail -n 1 <<<"$summary")" = "7 adapters: 1 failed, 0 without a report" ] || fail "the summary: $summary"
grep -q "^failed  $work/unit-broken" <<<"$summary" || fail "the broken one is not named"

# Again: what is missing and what is newer, nothing else.
stat -c '%n %Y %i' out/*.json | sort >before
rm "$(grep -l '"summary".*"failed": true' out/*.json)"
touch -d '1 minute' unit-3/adapter_config.json
submit --array=1-7 "$script" units.txt out "${options[@]}" || fail "the array again"
stat -c '%n %Y %i' out/*.json | sort >after
changed=$(comm -13 before after | wc -l)
[ "$changed" = 2 ] || fail "$changed reports were written again, not 2"

# Another question, and another version's answers, want another folder.
submit --array=1-2 "$script" units.txt out --base "$root/examples/data/gpt_oss_base" --engine vllm && fail "other options pass"
cat "$work"/log-* | grep -q "out: holds reports of .*sglang.*, not of .*vllm.*: name another folder" || fail "the options are not named"
sed -i '1s/.*/lora-validate 0.0.0/' out/options
submit --array=1-1 "$script" units.txt out "${options[@]}" && fail "another version passes"
rm out/options  # by its user, who knows better
submit --array=1-7 "$script" units.txt out "${options[@]}" || fail "the array a third time"
stat -c '%n %Y %i' out/*.json | sort | cmp - after || fail "reports were written again"
[ -z "$(find out -name '.options*')" ] || fail "files are left"

# Whatever changes: an older adapter in the place of one, a link that leads elsewhere, a file behind a link, one that is gone.
mkdir linked
ln -s ../unit-1/adapter_config.json ../unit-2/adapter_model.safetensors linked
ln -s unit-1 latest
printf '%s\n%s\n\n%s' "$work/unit-4" "$work/linked" "$work/latest" >links.txt  # the last line has no end
submit --array=1-3 "$script" links.txt changed --follow-links "${options[@]}" || fail "the array of links"
"$script" --summary links.txt changed >last || fail "$(cat last)"
grep -q '^3 adapters: 0 failed, 0 without a report' last || fail "the last line is left out: $(cat last)"
cp -rp unit-5 older
touch -d '2001-01-01' older/*
rm -r unit-4
mv older unit-4
ln -sfn unit-6 latest
touch -d '2001-01-01' unit-2/adapter_model.safetensors
"$script" --summary links.txt changed >last && fail "stale reports count"
[ "$(grep -c '^changed ' last)" = 3 ] || fail "$(cat last)"
grep -q '^3 adapters: 0 failed, 3 without a report' last || fail "$(cat last)"
submit --array=1-3 "$script" links.txt changed --follow-links "${options[@]}" || fail "the array of links again"
"$script" --summary links.txt changed >last || fail "$(cat last)"
rm -r unit-4
"$script" --summary links.txt changed >last && fail "one that is gone is done"
grep -q "^gone    $work/unit-4" last || fail "$(cat last)"

# A task without a report fails, and the summary says so.
printf '%s\n' "$work/unit-1" >one.txt
submit --array=1-1 "$script" one.txt none --engine nobody && fail "a task without a report passes"
"$script" --summary one.txt none >last && fail "nothing is missing"
grep -q '^1 adapters: 0 failed, 1 without a report' last || fail "$(cat last)"
echo >empty.txt
status=0
"$script" --summary empty.txt none 2>last || status=$?
[ "$status" = 2 ] || fail "an empty list passes"
grep -q 'empty.txt: names no adapter' last || fail "$(cat last)"
echo "passed"
