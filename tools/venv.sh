#!/bin/sh
# Makes or refreshes a Python virtual environment under the build folder and prints its path.
#
#   tools/venv.sh NAME REQUIREMENTS...
#
# An environment that already holds exactly these requirements is left alone. Runs at the same time wait for each other.
# PYTHON names the interpreter (default: python3), HILORA_BUILD the build folder (default: build beside tools).
set -eu

if [ $# -lt 2 ]; then
    echo "usage: tools/venv.sh NAME REQUIREMENTS..." >&2
    exit 2
fi
name=$1
shift
case $name in
    */* | .* | '') echo "tools/venv.sh: '$name' is no name for an environment" >&2; exit 2 ;;
esac
for file in "$@"; do
    [ -r "$file" ] || { echo "tools/venv.sh: $file: cannot read" >&2; exit 3; }
done

python=${PYTHON:-python3}
build=${HILORA_BUILD:-$(cd "$(dirname "$0")/.." && pwd)/build}
mkdir -p "$build/venv"
venv=$(cd "$build/venv" && pwd)/$name
stamp=$venv/.requirements.sha256

wanted=$({ "$python" -c 'import sys; print(sys.version, sys.executable)' && cat "$@"; } | sha256sum | cut -d ' ' -f 1)

exec 9>"$venv.lock"
flock 9
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
    pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@" >&2; }
    # PyTorch comes first and alone, so that no other package's requirement chooses its build.
    torch=$(cat "$@" | grep -m 1 '^torch==' || true)
    [ -z "$torch" ] || pip install "$torch"
    for file in "$@"; do
        shift
        set -- "$@" -r "$file"
    done
    pip install "$@"
    echo "$wanted" >"$stamp"
fi
echo "$venv"
