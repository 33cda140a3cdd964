#!/bin/sh
# Puts onnxruntime_c_api.h and the headers beside it into <folder>/include:
# get_onnxruntime_headers.sh [folder]
#
# The wheels of onnxruntime carry no headers. On Debian they come from the package libonnxruntime-dev
# of trixie, from the machine's own mirror (downloaded and unpacked into the folder: nothing is
# installed, no root is needed); elsewhere from onnxruntime's release archive.
set -eu

folder=${1:-$(dirname "$0")/../build/onnxruntime}
release=1.21.0
header=onnxruntime_c_api.h

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ -f "$folder/include/$header" ] && exit 0
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

keep() { # keep <header>: with those beside it, as newer ones include others; moved whole or not at all
  rm -rf "$folder/include"
  mv "$(dirname "$1")" "$folder/include"
}

from_debian() (
  set -e
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -m 1 '/debian/*$') || return 1
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -f "$keyring" ] || return 1
  cd "$work"
  mkdir -p lists/partial cache/archives/partial
  printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: %s\n' \
    "$mirror" "$keyring" >trixie.sources
  set -- -q -o Dir::Etc::SourceList="$work/trixie.sources" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="" \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false
  apt-get "$@" update && apt-get "$@" download libonnxruntime-dev
  dpkg -x libonnxruntime-dev_*.deb unpacked
)

from_release() (
  set -e
  name=onnxruntime-linux-x64-$release
  address=https://github.com/microsoft/onnxruntime/releases/download/v$release/$name.tgz
  cd "$work"
  if command -v curl >/dev/null; then
    curl -fsSL -o archive.tgz "$address"
  elif command -v wget >/dev/null; then
    wget -q -O archive.tgz "$address"
  else
    python3 -c 'import sys, urllib.request as r; r.urlretrieve(*sys.argv[1:])' "$address" archive.tgz
  fi
  mkdir unpacked && tar -xzf archive.tgz -C unpacked
)

for source in from_debian from_release; do
  if $source >"$work/log" 2>&1; then
    found=$(find "$work/unpacked" -name "$header" | head -n 1)
    if [ -n "$found" ]; then
      keep "$found"
      echo "onnxruntime: $folder/include/$header"
      exit 0
    fi
  fi
  echo "get_onnxruntime_headers.sh: $source gave no $header:" >&2
  tail -n 3 "$work/log" >&2
  rm -rf "$work/unpacked"
done
echo "get_onnxruntime_headers.sh: put $header where ORT_INCLUDE_DIR points and build again" >&2
exit 1
