#!/bin/sh
# tools/check_links.sh LIBRARY: it needs libc, libm, pthread and libzstd, and nothing else.
set -eu
status=0
needed=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p')
[ -n "$needed" ] || { echo "$1: no dynamic section" >&2; exit 1; }
for name in $needed; do
  case $name in
    libc.so.* | libm.so.* | libpthread.so.* | libzstd.so.* | ld-linux*) ;;
    *) echo "$1 links $name" >&2; status=1 ;;
  esac
done
exit $status
