# SPDX-License-Identifier: MIT
#
# What the scripts of tests/ and examples/ share: the packages, the build folder, and how they give up.
# To be sourced, at the top of the checkout. All but the benchmarks, which are optimized, are built in
# one folder, so that nothing is compiled twice.

# stderr, so that what a script prints on stdout is its result.
say() {
  printf '%s\n' "$*" >&2
}

# Whatever keeps the tests from running is one failure, so that the last line is always there.
# examples/hub.sh has one of its own, which counts what went before as well.
give_up() {
  say "$*"
  echo '0 passed, 1 failed'
  exit 1
}

have() {
  command -v "$1" >/dev/null 2>&1
}

have_library() {
  have pkg-config && pkg-config --exists "$1" 2>/dev/null
}

# g++ 12 is the oldest that is supported, and some releases have it beside an older default.
default_compiler_is_old() {
  [ -z "${CXX:-}" ] && c++ --version 2>/dev/null | grep -q 'Free Software Foundation' &&
    [ "$(c++ -dumpversion | cut -d. -f1)" -lt 12 ]
}

# Prints the packages that a build with these arguments lacks, and the programs that the script
# names in $also_needed. It asks for the programs and libraries and not for the packages, because
# one that came from elsewhere is as good.
missing_packages() {
  with_packaged_httplib=yes
  for argument in "$@"; do
    case $argument in
      -Dhttplib_dir=) with_packaged_httplib=yes ;;
      -Dhttplib_dir=*) with_packaged_httplib=no ;;
    esac
  done

  missing=
  if [ -z "${CXX:-}" ] && ! have c++; then
    missing="$missing g++"
  elif default_compiler_is_old && ! have g++-12; then
    missing="$missing g++-12"
  fi
  have meson || missing="$missing meson"
  have ninja || missing="$missing ninja-build"
  have pkg-config || missing="$missing pkg-config"
  have_library openssl || missing="$missing libssl-dev"
  have_library nlohmann_json || missing="$missing nlohmann-json3-dev"
  have_library libcurl || missing="$missing libcurl4-openssl-dev"
  have_library catch2-with-main || have_library catch2 || missing="$missing catch2"
  if [ $with_packaged_httplib = yes ]; then
    have_library cpp-httplib || missing="$missing libcpp-httplib-dev"
  fi
  for program in ${also_needed:-}; do
    have "$program" || missing="$missing $program"
  done
  printf '%s\n' "${missing# }"
}

# A new machine may be busy with its own updates: wait for the lock instead of failing.
apt_install() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install "$@" >&2
}

# Installs these packages, as root or through sudo.
install_packages() {
  if ! have apt-get; then
    say "Missing, and there is no apt-get to install it with. Debian's names for it: $*"
    return 1
  fi
  if [ "$(id -u)" -eq 0 ]; then
    as_root=
  elif have sudo; then
    as_root=sudo
  else
    say 'Missing, and only root can install it. As root, run:'
    say "apt-get update && apt-get install $*"
    return 1
  fi
  say "Installing: $*"
  # A fresh machine has no package lists. Where they cannot be fetched, older ones may still do.
  $as_root apt-get -qq update >&2 || say 'apt-get update failed; trying with the lists at hand.'
  apt_install "$@" || say 'apt-get install failed; see above.'
}

# Installs what is missing, and touches neither apt nor sudo where nothing is.
install_missing() {
  missing=$(missing_packages "$@")
  if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # one word per package
    install_packages $missing || return
    # How old the default compiler is, is only known once it is there.
    missing=$(missing_packages "$@")
    [ "$missing" != g++-12 ] || apt_install g++-12
    missing=$(missing_packages "$@")
    if [ -n "$missing" ]; then
      say 'The installation failed. As root, run:'
      say "apt-get update && apt-get install $missing"
      return 1
    fi
  fi
  if default_compiler_is_old; then
    CXX=g++-12
    export CXX
  fi
}

# Sets $build to a folder that exists: BUILD_DIR, else build/. In somebody else's checkout it is a
# temporary one, which remove_temporary_build takes away again.
choose_build_folder() {
  build=${BUILD_DIR:-build}
  temporary_build=
  if mkdir -p "$build" 2>/dev/null && [ -w "$build" ]; then
    # Meson's own folder belongs to root if root was the first to build here.
    if [ ! -e "$build/meson-private" ] || [ -w "$build/meson-private" ]; then
      return
    fi
  fi
  temporary_build=$(mktemp -d) || return
  say "$build cannot be written to, so this run builds in $temporary_build and removes it."
  build=$temporary_build/build
  mkdir "$build"
}

remove_temporary_build() {
  [ -z "${temporary_build:-}" ] || rm -rf "$temporary_build"
}

# However the script ends. dash runs what is set for EXIT after a signal only where that one is caught.
remove_temporary_build_at_exit() {
  trap remove_temporary_build EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

have_browser() {
  have chromium && have chromedriver
}

# For the scripts that show local_hub's page to somebody. Says so where there is none to be had.
install_browser() {
  have_browser || install_packages chromium chromium-driver fonts-dejavu-core
  have_browser || say 'Chromium cannot be installed (packages chromium and chromium-driver).'
  have_browser
}

# Everything that says how to build, for comparison with the run that set the folder up.
build_arguments() {
  printf '%s\n' "${CXX:-}" "${CPPFLAGS:-}" "${CXXFLAGS:-}" "${LDFLAGS:-}" \
    "${PKG_CONFIG_PATH:-}" "$@"
}

# A folder that came along with a copied checkout points at the other one's sources.
is_of_this_checkout() {
  python3 - "$build/meson-info/meson-info.json" 2>/dev/null <<'PYTHON'
import json, os, sys
info = json.load(open(sys.argv[1], encoding='utf-8'))
folders = info['directories']
build = os.path.dirname(os.path.dirname(sys.argv[1]))
same = os.path.samefile
sys.exit(not (same(folders['source'], '.') and same(folders['build'], build)))
PYTHON
}

# True if what is in $build can be built again, as it was set up, from this checkout. An older Meson
# or a folder that lost files says no here, and not in the middle of the build.
can_be_used_again() {
  is_of_this_checkout && meson setup --reconfigure "$build" >&2
}

set_up_anew() {
  # BUILD_DIR may have been a slip: only what Meson made is wiped.
  if [ "$build" != build ] && [ ! -d "$build/meson-private" ] &&
    [ -n "$(ls -A "$build" 2>/dev/null)" ]; then
    say "$build is no build folder, and it is not empty."
    return 1
  fi
  say "Setting up $build from scratch."
  # Put aside until the new one stands: a slip in meson.build shall not cost a whole build.
  rm -rf "$build.aside" && mv "$build" "$build.aside" || return
  if meson setup "$build" "$@" >&2; then
    build_arguments "$@" >"$build/run-arguments"
    rm -rf "$build.aside"
  else
    rm -rf "$build" && mv "$build.aside" "$build"
    return 1
  fi
}

# Makes $build ready for these arguments to `meson setup`. What is there is used again if it was set
# up with the same ones (by hand counts as: with none), so that the command line alone says what is
# built, whatever ran before.
configure() {
  if [ -e "$build/run-arguments" ]; then
    used=$(cat "$build/run-arguments")
  else
    used=$(unset CXX CPPFLAGS CXXFLAGS LDFLAGS PKG_CONFIG_PATH; build_arguments)
  fi
  { [ "$used" = "$(build_arguments "$@")" ] && can_be_used_again; } || set_up_anew "$@"
}

# A job's rank, a proxy, or somebody's own account on a HUB would all change what the programs do.
# Only after install_missing, because apt may need the proxy.
forget_environment() {
  unset ULTRALYTICS_API_KEY ULTRALYTICS_HUB_API ULTRALYTICS_HUB_WEB
  unset RANK WORLD_SIZE OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE MV2_COMM_WORLD_RANK MV2_COMM_WORLD_SIZE
  unset MVP_COMM_WORLD_RANK MVP_COMM_WORLD_SIZE PMI_RANK PMI_SIZE PMIX_RANK PALS_RANKID
  unset FLUX_TASK_RANK FLUX_JOB_SIZE SLURM_PROCID SLURM_STEP_NUM_TASKS SLURM_NTASKS
  unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY
}
