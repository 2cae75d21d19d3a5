#!/bin/sh
# tools/demo.sh BUILD: the main job on the example adapters, with the commands shown.
set -eu
cd "$(dirname "$0")/.."
build=$1
PATH="$PWD/$build/compiler/cli:$PATH"
out="$build/demo"
rm -rf "$out"
mkdir -p "$out"

show() {
  echo
  echo "\$ $*"
  "$@"
}

show hilora-compile -o "$out/pool.hlp" examples/adapters/*/
show hilora-validate --deep "$out/pool.hlp"
show hilora-inspect "$out/pool.hlp"
show hilora-route "$out/pool.hlp" --embedding examples/prompts/unpaid-invoices.npy
