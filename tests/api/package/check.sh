#!/bin/sh
# check.sh BUILD SOURCE: installs the build into a fresh prefix and builds the consumer against it, with find_package
# and with pkg-config.
set -eu
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/prefix" >/dev/null
cmake -G Ninja -S "$source" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
cmake --build "$work/consumer" >/dev/null
"$work/consumer/consumer"
"$work/consumer/consumer_static"

libraries=$(dirname "$(find "$work/prefix" -name hilora.pc)")
export PKG_CONFIG_PATH="$libraries"
# The prefix of the file is the one it was configured for; this installation is elsewhere.
flags=$(pkg-config --define-variable=prefix="$work/prefix" --cflags --libs hilora)
cc -o "$work/program" "$source/main.c" $flags
LD_LIBRARY_PATH="${libraries%/pkgconfig}" "$work/program"
