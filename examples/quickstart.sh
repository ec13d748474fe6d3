#!/bin/sh
# Builds the three tools and runs their main jobs: an adapter that PEFT saved for a (tiny) GPT-OSS model goes in, the one
# that SGLang serves comes out, provably the same, and lora-validate says so.
#   examples/quickstart.sh             builds into build/portable first
#   examples/quickstart.sh --installed takes the tools from PATH
set -eu
cd "$(dirname "$0")/.."

say() {
  printf '\n$ %s\n' "$*"
  "$@"
}
build() {
  packages=$(tests/install_packages.sh --list build | tr '\n' ' ')
  sources=$(find lib tools -name '*.cpp' | wc -l)
  cores=$(nproc)
  echo "This compiles $sources files: about $((sources * 4 / 60 / cores + 1)) minutes on $cores cores, 100 MB below build/portable, nothing elsewhere."
  echo "Packages to install first: ${packages:-none}"
  tests/install_packages.sh build
  mkdir -p build
  cmake --preset portable >build/portable.log || { cat build/portable.log; exit 1; }
  cmake --build --preset portable
  PATH=$PWD/build/portable/bin:$PATH
}
[ "${1:-}" = --installed ] || build

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
say lora-convert init --demo demo
cd demo
say lora-convert inspect gpt_oss_adapter --base gpt_oss_base
say lora-convert adapter gpt_oss_adapter served --for sglang --base gpt_oss_base --verify
say lora-validate served --engine sglang --base gpt_oss_base
say lora-diff weights gpt_oss_adapter served --base gpt_oss_base
tools=$(dirname "$(command -v lora-convert)")
cat <<END

sglang serves it: lora-validate found no error in what lora-convert wrote.
The tools are in $tools: lora-convert, lora-validate, lora-diff. They need nothing of this machine but its glibc:
  export PATH=$tools:\$PATH
END
