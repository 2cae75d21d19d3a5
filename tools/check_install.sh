#!/bin/sh
# tools/check_install.sh BUILD WORK: installs a build into WORK and uses it as a stranger would: the example programs by
# find_package and by pkg-config, on a pool of the example adapters.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$1
rm -rf "$2"
mkdir -p "$2"
work=$(cd "$2" && pwd)
prefix=$work/prefix

cmake --install "$build" --prefix "$prefix" >/dev/null
"$prefix/bin/hilora-compile" -q -o "$work/pool.hlp" "$root"/examples/adapters/*/ >/dev/null

cmake -S "$root/examples/programs" -B "$work/examples" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS="-Wall -Wextra -Werror" >/dev/null
cmake --build "$work/examples" >/dev/null
"$work/examples/route_prompt" "$work/pool.hlp" "$root/examples/prompts/german-sql.npy" | tee "$work/route.txt"
grep -q german-translation "$work/route.txt"
grep -q sql "$work/route.txt"
"$work/examples/tiny_engine" "$work/pool.hlp" "$root/examples/prompts/unpaid-invoices.npy" "$root/examples/prompts/translate-letter.npy"

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name hilora.pc)")
export PKG_CONFIG_PATH
${CC:-cc} -std=c99 -Wall -Wextra -Werror $(pkg-config --cflags hilora) "$root/examples/programs/route_prompt.c" \
  -o "$work/by-pkg-config" $(pkg-config --libs hilora) "-Wl,-rpath,$(pkg-config --variable=libdir hilora)"
"$work/by-pkg-config" "$work/pool.hlp" "$root/examples/prompts/german-sql.npy" | cmp - "$work/route.txt"
