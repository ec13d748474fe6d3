#!/bin/bash
# Makes the .deb, installs it into clean Debian roots of this release and the next, and runs the quickstart from it; an
# outside project is built against what it holds.  tests/package/run.sh [SUITES...]
# What cannot be done here is said, and is no failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${MOELORA_PACKAGE_BUILD:-$PWD/build/package}
suites=("$@")
((${#suites[@]})) || suites=(bookworm trixie)

# -Werror makes the objects those of the release build, which a compiler cache has.
cmake --preset portable -DMOELORA_WERROR=ON -B "$build" >/dev/null
cmake --build "$build"
rm -f "$build"/*.deb
(cd "$build" && cpack -G DEB >/dev/null)
deb=$(echo "$build"/moelora_*.deb)
dpkg-deb --info "$deb"
[[ $(dpkg-deb -f "$deb" Depends) =~ ^libc6\ \(\>=\ ([0-9.]+)\)$ ]] || { echo "it needs more than glibc"; exit 1; }
# Made with Debian 12 it runs where servers run: their images are of Ubuntu 22.04, which has glibc 2.35.
source /etc/os-release
[[ ${VERSION_CODENAME:-} != bookworm ]] || dpkg --compare-versions "${BASH_REMATCH[1]}" le 2.35 ||
  { echo "it needs glibc ${BASH_REMATCH[1]}"; exit 1; }

held=$(dpkg-deb -c "$deb")
for tool in lora-convert lora-validate lora-diff; do
  for file in bin/$tool share/man/man1/$tool.1 share/bash-completion/completions/$tool share/zsh/vendor-completions/_$tool \
    share/fish/vendor_completions.d/$tool.fish; do
    grep -q " ./usr/$file$" <<<"$held" || { echo "$file is not in it"; exit 1; }
  done
done
grep -q ' ./usr/share/doc/moelora/THIRD_PARTY_LICENSES$' <<<"$held" || { echo "no licenses in it"; exit 1; }

echo "=== an outside project, built against what it holds"
rm -rf "$build/held" "$build/outside"
dpkg-deb -x "$deb" "$build/held"
cmake -S examples -B "$build/outside" -G Ninja -DCMAKE_PREFIX_PATH="$build/held/usr" >/dev/null
cmake --build "$build/outside"
rm -rf "$build/minimal"
"$build/outside/minimal_api" examples/data/gpt_oss_adapter examples/data/gpt_oss_base "$build/minimal" >/dev/null

in_root() {
  local suite=$1 root=$build/root-$1
  rm -rf "$root"
  if ! debootstrap --variant=minbase "$suite" "$root" >"$build/debootstrap-$suite.log" 2>&1; then
    echo "not run in $suite: debootstrap says: $(tail -n 1 "$build/debootstrap-$suite.log")"
    return 0
  fi
  mkdir -p "$root/moelora/examples"
  cp "$deb" "$root/moelora/moelora.deb"
  cp examples/quickstart.sh "$root/moelora/examples"
  chroot "$root" dpkg -i /moelora/moelora.deb &&
    chroot "$root" /moelora/examples/quickstart.sh --installed | tee "$build/quickstart-$suite.log" &&
    grep -q '^sglang serves it: ' "$build/quickstart-$suite.log" &&
    grep -q '^The tools are in /usr/bin: ' "$build/quickstart-$suite.log" &&
    grep -q -- '---- PCRE2 ----' <<<"$(chroot "$root" lora-validate --version --verbose)" &&
    chroot "$root" dpkg -r moelora && [[ ! -e $root/usr/bin/lora-convert ]] && rm -rf "$root"
}
if [[ $(id -u) != 0 ]] || ! command -v debootstrap >/dev/null; then
  echo "not run in clean roots: that needs debootstrap, and root"
else
  for suite in "${suites[@]}"; do
    echo "=== $suite"
    in_root "$suite"
  done
fi
