#!/bin/sh
# The tests, in tiers (TESTING.md):
#   ./test.sh            quick, then sanitizers, program and interoperability tests; no PyTorch
#   ./test.sh quick      a release build with its unit and API tests, and the checks of the source tree
#   ./test.sh live       against the real peft and transformers
#   ./test.sh engines    inside llama.cpp, which is built for it
#   ./test.sh all        everything above: what continuous integration runs
#   ./test.sh fuzz       a minute of fuzzing for each target, with clang; part of no other tier
# The last lines printed are the test runners' own summaries.
set -eu
cd "$(dirname "$0")"
. tools/packages.sh

tier=${1:-standard}
case $tier in quick | standard | live | all | engines | fuzz) ;; *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac

logs=build/logs
mkdir -p "$logs"
rm -f "$logs"/*.summary

# step NAME COMMAND...: runs it with its output shown and logged.
step() {
  name=$1
  shift
  echo
  echo "== $name"
  start=$(date +%s)
  { "$@" && echo ok >"$logs/status"; } 2>&1 | tee "$logs/$name.log"
  [ -f "$logs/status" ] || { echo "FAILED: $name" >&2; exit 1; }
  rm "$logs/status"
  echo "== $name: $(($(date +%s) - start)) s"
}

build() {
  cmake --preset "$1" >/dev/null && cmake --build "build/$1"
}

# run_ctest PRESET [CTEST OPTION...]; ctest and pytest steps keep their own closing lines for the end.
run_ctest() {
  step "ctest-$1" ctest --preset "$@" -j "$(nproc)"
  { echo "ctest, $1:"; tail -n 40 "$logs/ctest-$1.log" | grep -E 'tests passed|tests failed|Total Test time'; } >"$logs/ctest-$1.summary"
}

# One process per core, so the arithmetic of the oracles is left on one thread each.
run_pytest() {
  tests=$1
  shift
  step "pytest-$tests" env OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 "$@"
  { echo "pytest, $tests:"; tail -n 1 "$logs/pytest-$tests.log"; } >"$logs/pytest-$tests.summary"
}

quick() {
  install_packages $packages_build $packages_test
  step tree tools/check_tree.sh
  step build-release build release
  run_ctest release
}

standard() {
  quick
  step build-asan build asan
  run_ctest asan
  step build-tsan build tsan
  run_ctest tsan -R 'api|workers|pool_stats|calibration|linalg|rivals|runtime|session' # those with threads
  step venv tools/venv.sh tests tests/interop/requirements.txt
  run_pytest programs env HILORA_BIN="$PWD/build/release/compiler/cli" build/venv/tests/bin/python -m pytest -q -n "$(nproc)" tests/cli tests/interop --ignore tests/interop/live
  run_pytest programs-asan env HILORA_BIN="$PWD/build/asan/compiler/cli" build/venv/tests/bin/python -m pytest -q -n "$(nproc)" tests/cli tests/interop/test_format.py tests/interop/test_roundtrip.py -m "not slow"
  step python-wheel tools/python_wheel.sh
  run_pytest python env HILORA_BIN="$PWD/build/venv/package/bin" build/venv/package/bin/python -m pytest -q plugins/python/tests
}

live() {
  install_packages $packages_build $packages_test
  step build-release build release
  step venv-live tools/venv.sh live tests/interop/requirements.txt tests/interop/requirements-live.txt
  run_pytest live env HILORA_BIN="$PWD/build/release/compiler/cli" build/venv/live/bin/python -m pytest -q -n "$(nproc)" tests/interop/live
  run_pytest live-python env HILORA_BIN="$PWD/build/release/compiler/cli" build/venv/live/bin/python -m pytest -q -n "$(nproc)" plugins/python/tests/live
  run_pytest live-vllm env HILORA_BIN="$PWD/build/release/compiler/cli" build/venv/live/bin/python -m pytest -q plugins/vllm/tests
}

build_engines() {
  cmake --preset release -B build/engines -DHILORA_LLAMA_CPP="$(PYTHON=build/venv/live/bin/python tools/llama_cpp.sh)" >/dev/null &&
    cmake --build build/engines
}

engines() {
  install_packages $packages_build $packages_test
  step venv-live tools/venv.sh live tests/interop/requirements.txt tests/interop/requirements-live.txt
  step build-engines build_engines
  run_pytest engines env HILORA_BIN="$PWD/build/engines/compiler/cli" HILORA_LIBRARY="$PWD/build/engines/runtime/libhilora.so.0.1" \
    HILORA_LLAMA="$PWD/build/engines/plugins/llama.cpp/hilora-llama" build/venv/live/bin/python -m pytest -q -n "$(nproc)" plugins/llama.cpp/tests
}

# A finding is kept in build/fuzz-found and ends the tier.
fuzz_target() {
  target=$1
  seeds=$2
  mkdir -p "build/fuzz-corpus/$target" build/fuzz-found
  set -- -max_total_time="${FUZZ_SECONDS:-60}" -timeout=30 -rss_limit_mb=2048 -print_final_stats=1
  [ ! -f "tests/fuzz/dict/$target.dict" ] || set -- "$@" -dict="tests/fuzz/dict/$target.dict"
  "build/fuzz/tests/fuzz/$target" "$@" -artifact_prefix="build/fuzz-found/$target-" "build/fuzz-corpus/$target" "$seeds" 2>&1 |
    grep -vE 'NEW  |REDUCE|NEW_FUNC|pulse' # the progress
  "build/fuzz/tests/fuzz/$target" -runs=0 "build/fuzz-corpus/$target" >/dev/null 2>&1 && ! ls build/fuzz-found/"$target"-* >/dev/null 2>&1
}

fuzz() {
  install_packages $packages_build $packages_test $packages_fuzz
  step build-fuzz build fuzz
  mkdir -p build/fuzz-corpus/pools
  build/fuzz/tests/fuzz/seed_pools build/fuzz-corpus/pools
  step fuzz_pool fuzz_target fuzz_pool build/fuzz-corpus/pools
  for seeds in tests/fuzz/corpus/*; do
    step "$(basename "$seeds")" fuzz_target "$(basename "$seeds")" "$seeds"
  done
}

case $tier in
  quick) quick ;;
  fuzz) fuzz ;;
  engines) engines ;;
  standard) standard ;;
  live) live ;;
  all)
    standard
    live
    engines
    ;;
esac

[ "$tier" != fuzz ] || exit 0
echo
cat "$logs"/*.summary
