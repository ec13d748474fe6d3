#!/bin/sh
# Installs the packages of packages.txt that are missing:  tests/install_packages.sh build test
set -eu
list=$(dirname "$0")/packages.txt

missing=
for need; do
  for package in $(awk -v need="$need" '!/^#/ && $2 == need { print $1 }' "$list"); do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
  done
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "no apt-get here: make sure that these, by their Debian names, are installed:$missing" >&2
  exit 0
fi
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
  echo "as root, run: apt-get install$missing" >&2
  exit 1
fi
echo "installing:$missing"
$as_root apt-get update -q </dev/null >/dev/null
# shellcheck disable=SC2086 # a list of names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing </dev/null
