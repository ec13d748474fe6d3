#!/bin/sh
# Shows that an addition of each kind costs one file: lays the files of tests/extend/added (an option: a patch of
# one file) into a copy of the checkout, builds the tools there, and uses each addition. Minutes without a compiler
# cache, so .ci/full runs it. Arguments go to CMake.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
added=tests/extend/added
source=build/extend/source # with a build folder of its own, which is kept between runs
work=$root/build/extend/work
passed=0
failed=0

pass() {
  passed=$((passed + 1))
  printf 'ok      %s\n' "$1"
}
fail() { # NAME DETAIL
  failed=$((failed + 1))
  printf 'FAILED  %s\n%s\n' "$1" "$2"
}

# shows NAME TEXT COMMAND...: what the command prints holds TEXT. lacks: and does not.
shows() {
  name=$1 text=$2
  shift 2
  out=$("$@" 2>&1) || true
  case $out in *"$text"*) pass "$name" ;; *) fail "$name" "expected '$text' from: $*
$out" ;; esac
}
lacks() {
  name=$1 text=$2
  shift 2
  out=$("$@" 2>&1) || true
  case $out in *"$text"*) fail "$name" "'$text' from: $*
$out" ;; *) pass "$name" ;; esac
}
succeeds() {
  name=$1
  shift
  if out=$("$@" 2>&1); then pass "$name"; else fail "$name" "$*
$out"; fi
}

# The files of the copy that the checkout has not, or has otherwise (cp kept the times); one line each.
touched() {
  python3 - "$source" <<'PY'
import filecmp, os, sys
top = sys.argv[1]
for folder, folders, files in os.walk(top):
    if folder == top:
        folders[:] = [name for name in folders if name != "build"]
    for file in files:
        path = os.path.relpath(os.path.join(folder, file), top)
        if not os.path.exists(path) or not filecmp.cmp(path, os.path.join(top, path)):
            print(path)
PY
}

mkdir -p "$source"
find "$source" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
git ls-files -z | xargs -0 cp --parents --preserve=mode,timestamps --no-dereference --target-directory="$source"

before=0
for file in $(cd $added && find . -type f | sort | sed 's|^\./||'); do
  case $file in
  *.patch) git apply --directory="$source" "$added/$file" ;;
  *) mkdir -p "$source/$(dirname "$file")" && cp "$added/$file" "$source/$file" ;;
  esac
  now=$(touched)
  count=$(printf '%s\n' "$now" | wc -l)
  if [ "$count" -eq $((before + 1)) ] && printf '%s\n' "$now" | grep -qxF "${file%.patch}"; then
    pass "one file: $file"
  else
    fail "one file: $file" "$now"
  fi
  before=$count
done

cmake -S "$source" -B "$source/build/extend" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O0 \
  -DMOELORA_TESTS=OFF "$@" >build/extend/configure.log || { cat build/extend/configure.log && exit 1; }
cmake --build "$source/build/extend" --target lora-convert lora-validate lora-diff
PATH=$root/$source/build/extend/bin:$PATH

rm -rf "$work"
cp -r examples/data "$work"
cp -r tests/extend/input/. "$work"
cd "$work"

# A layout
succeeds "the layout is written" lora-convert adapter gpt_oss_adapter w13 --to linear-w13 --base gpt_oss_base
shows "the layout is recognized" "layout linear-w13" lora-convert inspect w13 --base gpt_oss_base
succeeds "the layout is read back" lora-convert adapter w13 back --to peft-params --base gpt_oss_base --quiet
succeeds "nothing is lost on the way" cmp gpt_oss_adapter/adapter_model.safetensors back/adapter_model.safetensors
shows "--verify, which shares no code with layouts, refuses a word it does not know" "of no known layout" \
  lora-convert adapter gpt_oss_adapter verified --to linear-w13 --base gpt_oss_base --verify
shows "an unknown layout is refused with it in the list" linear-w13 \
  lora-convert adapter gpt_oss_adapter x --to linear-w14 --base gpt_oss_base

# A rule
cp -r gpt_oss_attention no_scale
sed -i 's/"lora_alpha": *[0-9.]*/"lora_alpha": 0/' no_scale/adapter_config.json
shows "the rule explains itself and fires on its example" "lora_alpha: is 0: every delta" lora-validate --explain CFG901
shows "the rule fires" "CFG901 zero-alpha" lora-validate no_scale
lacks "the rule is silent on a sound adapter" CFG901 lora-validate gpt_oss_attention
lacks "the rule can be ignored by its name" "error CFG901" lora-validate no_scale --ignore zero-alpha

# A report format
shows "the report format is offered" csv lora-validate --help
shows "the report format is written" '"error","CFG901 zero-alpha","","no_scale","lora_alpha: is 0' \
  lora-validate no_scale --format csv

# A logprob format
shows "the logprob format is read" "llama-cpp, 1 sequence, 3 positions" \
  lora-diff logprobs llama_cpp_a.json llama_cpp_b.json

# A family, and its servers' classes
succeeds "an adapter is made for the family" \
  lora-convert init example_adapter --base example_moe --rank 4 --targets attention,experts --to peft-linear
shows "the family's modules are known" attention.query_key_value lora-convert inspect example_adapter --base example_moe
shows "vLLM's class is taken from the family's file" "mlp.shared_experts.gate_up_proj" \
  lora-validate example_adapter --base example_moe --engine vllm --verbose
succeeds "vLLM's plan finds nothing wrong" lora-validate example_adapter --base example_moe --engine vllm --no-values
lacks "SGLang's class is taken from the family's file" "get_hidden_dim not implemented" \
  lora-validate example_adapter --base example_moe --engine sglang

# How the family computes, and a kind of mixer: attention that looks at all tokens alike is their mean
python3 uniform_base.py example_moe uniform
printf '[[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11]]' >tokens.json
sed 's/{"kind": "softmax".*}\]/{"kind": "running_mean", "path": "attention.dense"}]/' \
  "$root/$added/schemas/models/example_moe.json" >means.json
sed 's/running_mean/runing_mean/' means.json >misspelled.json
succeeds "log-probabilities of the family" \
  lora-diff score tokens.json --base uniform --precision double --output attention.json
succeeds "log-probabilities by the mixer kind" \
  lora-diff score tokens.json --base uniform --model-spec means.json --precision double --output means_scores.json
succeeds "both are the same" lora-diff logprobs attention.json means_scores.json --max max_abs=1e-12
shows "an unknown kind of mixer is refused with the nearest" "did you mean 'running_mean'?" \
  lora-diff score tokens.json --base uniform --model-spec misspelled.json --output x.json

# An option of an engine
shows "the option is offered" max-cpu-loras lora-validate --help
shows "the option changes what is said" "max_cpu_loras (1) must be >= max_loras (2)" \
  lora-validate example_adapter --base example_moe --engine vllm --max-loras 2 --server-option max-cpu-loras=1
lacks "without the option it is not said" max_cpu_loras \
  lora-validate example_adapter --base example_moe --engine vllm --max-loras 2
shows "a value of the wrong kind is refused" "expected a number of 1 or more" \
  lora-validate example_adapter --base example_moe --engine vllm --server-option max-cpu-loras=many

# Releases that change nothing: a line each makes them the newest, known and the default
for release in sglang@0.5.24 vllm@0.34 peft@0.22; do
  engine=${release%@*}
  shows "$release is the default" "checked for $release" lora-validate gpt_oss_adapter --base gpt_oss_base --engine $engine
  lacks "$release is known" NUM003 lora-validate gpt_oss_adapter --base gpt_oss_base --engine $release
  shows "a release after $release is not" "NUM003" lora-validate gpt_oss_adapter --base gpt_oss_base --engine $release.1
done

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
