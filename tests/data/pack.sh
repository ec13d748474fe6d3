#!/bin/sh
# Packs FOLDER into tests/data/NAME.tar.xz, the same bytes for the same files: sorted, owner 0,
# time 0, plain modes, no access lists. The build unpacks every archive here into test_data/.
#   tests/data/pack.sh PARENT NAME [EXCLUDE...]     packs PARENT/NAME
set -eu
here=$(CDPATH="" cd -- "$(dirname -- "$0")" && pwd)
parent=$1 name=$2
shift 2
excludes=
for pattern; do excludes="$excludes --exclude=$pattern"; done
# shellcheck disable=SC2086 # the patterns hold no blanks
tar -C "$parent" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar \
  --mode=u=rwX,go=rX $excludes -cf - "$name" | xz -9e -T1 > "$here/$name.tar.xz"
ls -l "$here/$name.tar.xz"
