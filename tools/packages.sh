# Debian packages by purpose, and a function that installs what is missing. Sourced by setup.sh and test.sh.

packages_build="gcc g++ cmake ninja-build pkg-config libhdf5-dev liblapacke-dev libopenblas-dev libzstd-dev libjansson-dev libpcre2-dev libxxhash-dev"
packages_test="check libgtest-dev python3 python3-venv hdf5-tools binutils man-db groff"
packages_fuzz="clang libclang-rt-14-dev"

# install_packages NAME...: nothing happens, and no network is needed, when all are there.
install_packages() {
  missing=""
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  as_root=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
      echo "missing packages, and neither root nor sudo to install them:$missing" >&2
      return 3
    }
    as_root="sudo"
  fi
  echo "installing:$missing"
  $as_root env DEBIAN_FRONTEND=noninteractive sh -c "apt-get update -q && apt-get install -qy --no-install-recommends $missing" >/dev/null
}
