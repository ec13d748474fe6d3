#!/bin/sh
# Installs the packages of packages.txt that are missing:  tests/install_packages.sh [--list] build test
# With --list it prints their names instead, one a line.
set -eu
list=$(dirname "$0")/packages.txt
only_list=
[ "${1:-}" != --list ] || { only_list=yes; shift; }

installed() {
  dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}
known() {
  apt-cache show --no-all-versions "$1" >/dev/null 2>&1
}
# The first of the names a|b|c that is installed, else the first that this release has; nothing for a last name of "-"
# (it can be done without), else the last.
chosen() (
  IFS='|'
  for name in $1; do ! installed "$name" || { echo "$name"; return; }; done
  for name in $1; do ! known "$name" || { echo "$name"; return; }; done
  [ "$name" = - ] || echo "$name"
)
missing_of() {
  for need; do
    for names in $(awk -v need="$need" '!/^#/ && $2 == need { print $1 }' "$list"); do
      name=$(chosen "$names")
      [ -z "$name" ] || installed "$name" || echo "$name"
    done
  done
}

missing=$(missing_of "$@")
if [ -n "$only_list" ]; then
  echo "$missing"
  exit 0
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "no apt-get here: make sure that these, by their Debian names, are installed:" $missing >&2
  exit 0
fi
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
  echo "as root, run: apt-get install" $missing >&2
  exit 1
fi
$as_root apt-get update -q </dev/null >/dev/null
missing=$(missing_of "$@")  # by what the release has: without a list of packages it could not be told
echo "installing:" $missing
# shellcheck disable=SC2086 # a list of names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing </dev/null
