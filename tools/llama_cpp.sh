#!/bin/sh
# Builds the llama.cpp that the plugin is tested against, as shared libraries for the CPU, and prints its prefix.
#
#   tools/llama_cpp.sh
#
# The source is the one inside the llama-cpp-python source distribution pinned in tools/requirements-llama.txt, whose
# hash pip checks. An installation of that version is left alone. HILORA_BUILD names the build folder (default: build
# beside tools), PYTHON an interpreter with pip. Runs at the same time wait for each other.
set -eu
cd "$(dirname "$0")/.."
build=${HILORA_BUILD:-$PWD/build}
python=${PYTHON:-python3}
root=$build/llama.cpp
stamp=$root/.stamp
mkdir -p "$root"

# Vector instructions by what this processor has; never -march=native, so that a cached build stays good elsewhere.
flags=""
for pair in avx:AVX avx2:AVX2 fma:FMA f16c:F16C bmi2:BMI2; do
  grep -qw "${pair%%:*}" /proc/cpuinfo 2>/dev/null && on=ON || on=OFF
  flags="$flags -DGGML_${pair##*:}=$on"
done

wanted=$({ cat tools/requirements-llama.txt tools/llama_cpp.sh && echo "$flags"; } | sha256sum | cut -d ' ' -f 1)
exec 9>"$root.lock"
flock 9
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$root"
  mkdir -p "$root/source"
  {
    "$python" -m pip --disable-pip-version-check --quiet download --no-deps --no-binary :all: --require-hashes \
      -r tools/requirements-llama.txt -d "$root"
    # Without the models of its tests and the Python package around it.
    tar -xzf "$root"/llama_cpp_python-*.tar.gz -C "$root/source" --strip-components=3 --wildcards \
      --exclude='*/vendor/llama.cpp/models/*' --exclude='*/vendor/llama.cpp/tools/*' '*/vendor/llama.cpp/*'
    rm "$root"/llama_cpp_python-*.tar.gz
    cmake -G Ninja -S "$root/source" -B "$root/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$root/prefix" \
      -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_INSTALL_RPATH='$ORIGIN' -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=OFF $flags \
      -DGGML_OPENMP=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF \
      -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF
    cmake --build "$root/build"
    cmake --install "$root/build"
    rm -rf "$root/build" "$root/source"
  } >&2
  echo "$wanted" >"$stamp"
fi
echo "$root/prefix"
