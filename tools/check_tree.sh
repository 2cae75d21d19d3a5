#!/bin/sh
# Checks of the source tree: who may include whom, one caller per library, file sizes, and no stray artefacts.
set -eu
cd "$(dirname "$0")/.."
status=0

complain() {
  echo "$1" >&2
  status=1
}

# forbid FOLDER PATTERN REASON: no file below FOLDER may include what matches.
forbid() {
  found=$(grep -rnE "#include [<\"]($2)" "$1" --include='*.c' --include='*.h' || true)
  [ -z "$found" ] || complain "$3:
$found"
}

# sole_caller PATTERN FILE...: only these files may include what matches.
sole_caller() {
  pattern=$1
  shift
  for found in $(grep -rlE "#include <($pattern)" format runtime compiler 2>/dev/null || true); do
    case " $* " in *" $found "*) ;; *) complain "$found includes <$pattern>: only $* may" ;; esac
  done
}

forbid include '(format|runtime|compiler)/' "public headers include internal ones"
forbid format '(runtime|compiler)/' "format/ includes a layer above it"
forbid format '(stdlib|unistd|fcntl|pthread|zstd|hdf5|jansson)\.h' "format/ is pure: no I/O, no allocation, no library"
[ ! -d runtime ] || forbid runtime 'compiler/' "runtime/ includes compiler/"
[ ! -d runtime ] || forbid runtime '(hdf5|lapacke|cblas|jansson|pcre2)\.h' "runtime/ links libc, libm, pthread and libzstd alone"
forbid compiler 'runtime/' "compiler/ includes runtime/"
sole_caller 'hdf5\.h' compiler/base/hdf5_file.c compiler/base/hdf5_driver.c
sole_caller '(lapacke|cblas|openblas_config)\.h' compiler/linalg.c
sole_caller 'sys/mman\.h' compiler/base/mapped_file.c runtime/map.c
sole_caller 'zstd\.h' compiler/emit/codec.c runtime/decode.c
sole_caller 'pcre2\.h' compiler/ingest/key_pattern.c

for file in $(git ls-files '*.c' '*.h' '*.cc' '*.cpp' '*.py' '*.sh'); do
  [ -f "$file" ] || continue
  lines=$(wc -l <"$file")
  [ "$lines" -le 1000 ] || complain "$file has $lines lines: at most 1,000"
done
for file in $(git ls-files); do
  [ -f "$file" ] || continue
  size=$(stat -c %s "$file")
  [ "$size" -le 1000000 ] || complain "$file has $size bytes: at most 1,000,000"
done
! git grep -nE 'file\(GLOB' -- '*.txt' '*.cmake' >&2 || complain "CMake lists name their files"
exit $status
