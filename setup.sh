#!/bin/sh
# Installs what hilora needs (Debian 12), builds it, and runs the main job on the example adapters.
set -eu
cd "$(dirname "$0")"
. tools/packages.sh

install_packages $packages_build
cmake -S . -B build/setup -G Ninja -DCMAKE_BUILD_TYPE=Release -DHILORA_TESTS=OFF >/dev/null
cmake --build build/setup
exec tools/demo.sh build/setup
