#!/bin/sh
# tools/check_exports.sh LIBRARY MAP HEADER...: what the library exports is what the map lists is what the headers declare.
set -eu
library=$1 map=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sed 's/@.*//' | sort -u >"$work/exported"
sed -n 's/^ *\(hl_[a-z0-9_]*\);.*/\1/p' "$map" | sort -u >"$work/listed"
# A declaration begins with HL_API; the name is the word before the first parenthesis.
cat "$@" | tr '\n' ' ' | sed 's/HL_API/\n&/g' | sed -n 's/^HL_API[^(]*[ *]\(hl_[a-z0-9_]*\)(.*/\1/p' | sort -u >"$work/declared"

diff -u "$work/listed" "$work/exported" || { echo "$library exports other names than $map lists" >&2; exit 1; }
diff -u "$work/declared" "$work/exported" || { echo "$library exports other names than the headers declare" >&2; exit 1; }
[ -s "$work/exported" ] || { echo "$library exports nothing" >&2; exit 1; }

# The plugin entry's table has a member for each function but the one that hands it out.
for header in "$@"; do
  case $header in
    */api.h) { echo hl_api_get; sed -n 's/.*(\*\([a-z0-9_]*\))(.*/hl_\1/p' "$header"; } | sort -u >"$work/members" ;;
  esac
done
diff -u "$work/exported" "$work/members" || { echo "hilora/api.h does not hand out every function (runtime/api.c)" >&2; exit 1; }
