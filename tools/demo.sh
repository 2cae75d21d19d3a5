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

# Applying a pool is an engine's work: a small one, built against the library as installed.
cmake --install "$build" --prefix "$out/installed" >/dev/null
cmake -S examples/programs -B "$out/programs" -G Ninja -DCMAKE_PREFIX_PATH="$PWD/$out/installed" >/dev/null
cmake --build "$out/programs" >/dev/null
show "$out/programs/tiny_engine" "$out/pool.hlp" examples/prompts/unpaid-invoices.npy examples/prompts/translate-letter.npy
