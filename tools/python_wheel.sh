#!/bin/sh
# tools/python_wheel.sh: packs the source distribution of the Python package, builds the wheel from it alone, and installs
# that in a clean environment (build/venv/package).
set -eu
cd "$(dirname "$0")/.."
build=$(tools/venv.sh wheel plugins/python/requirements-build.txt)
package=$(tools/venv.sh package plugins/python/tests/requirements.txt)
rm -rf build/dist
mkdir -p build/dist
"$build/bin/python" -c 'from scikit_build_core.build import build_sdist; build_sdist("build/dist")' >build/dist/sdist.log 2>&1 ||
  { cat build/dist/sdist.log >&2; exit 1; }
pip="-m pip --disable-pip-version-check --quiet"
"$build/bin/python" $pip wheel --no-build-isolation --no-deps -w build/dist build/dist/hilora-*.tar.gz
"$package/bin/python" $pip install --no-deps --force-reinstall build/dist/hilora-*.whl
"$package/bin/python" -m pip check
