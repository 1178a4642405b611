#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/matrix.sh [CELL...]
#
# Every compiler, switch and tool that the project names, each in a cell of its own:
#
#   g++, clang++  everything is compiled with all warnings as errors; with clang++ it is also built
#                 and the tests of $tests run (those of g++ run in tests/run.sh)
#   libc++        clang++ with libc++: everything is compiled, the tests without a network are
#                 linked and run. Debian's libcpp-httplib.so is built with libstdc++, so that
#                 nothing that needs it can be linked with libc++
#   switches      the header, every template of it instantiated, under each compiler, whole, with
#                 HUB_SESSION_NO_HTTPLIB and with HUB_SESSION_INTERFACE_ONLY; with and without
#                 -fno-rtti
#   asan, tsan    the tests of $tests under AddressSanitizer and UndefinedBehaviorSanitizer, and
#                 those that have threads under ThreadSanitizer
#   tidy, format  clang-tidy and clang-format with the checked-in configurations
#
# Without arguments all of them. Prints a line for each; the last line is `N passed, N failed`, in
# cells. Each leaves its log in build-matrix/. Installs what is missing, as tests/run.sh does.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh

work=build-matrix
threaded_tests='hostile_replies loopback processes deadlines'
tests="unit $threaded_tests"
warnings='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror'

give_up() {
  say "$*"
  echo '0 passed, 1 failed'
  exit 1
}

# What tests/run.sh does not need, by Debian's names.
missing_tools() {
  tools=
  have clang++ || tools="$tools clang"
  have clang-tidy || tools="$tools clang-tidy"
  have clang-format || tools="$tools clang-format"
  echo '#include <version>' | clang++ -stdlib=libc++ -x c++ -fsyntax-only - 2>/dev/null ||
    tools="$tools libc++-dev libc++abi-dev"
  printf '%s\n' "${tools# }"
}

# build FOLDER COMPILER TARGETS [ARGUMENT...]: the arguments go to `meson setup`. No targets: all.
build() {
  folder=$work/$1
  compiler=$2
  targets=$3
  shift 3
  if [ ! -e "$folder/build.ninja" ]; then
    CXX=$compiler meson setup "$folder" -Dbuildtype=debug "$@" || return
  fi
  # shellcheck disable=SC2086 # one word per target
  meson compile -C "$folder" $targets
}

# run FOLDER TEST [ARGUMENT...]: the arguments go to the test.
run() {
  folder=$work/$1
  test=$2
  shift 2
  meson test -C "$folder" --no-rebuild --print-errorlogs --timeout-multiplier 3 \
    --test-args "$*" "$test"
}

# compile COMPILER FLAGS [FILE...]: looks at the files, as many at a time as there are processors, and
# keeps nothing of them.
compile() {
  compiler=$1
  flags=$2
  shift 2
  # shellcheck disable=SC2086 # one word per flag
  printf '%s\n' "$@" | xargs -n 1 -P "$(nproc)" $compiler -std=c++20 -fsyntax-only $warnings -I. \
    '-DHUB_SESSION_TEST_DATA="tests/data"' $libraries $flags
}

compile_all() {
  compiler=$1
  set --
  for file in tests/*.cpp tests/*/*.cpp examples/*.cpp; do
    case $file in tests/compile_fail/* | tests/fuzz/*) ;; *) set -- "$@" "$file" ;; esac
  done
  compile "$compiler" '' "$@"
}

cell_gxx() {
  compile_all "${CXX:-g++}"
}

cell_clangxx() {
  build clang++ clang++ '' -Dwerror=true "-Dcpp_args=-Wconversion -Wshadow" || return
  for test in $tests; do run clang++ "$test" || return; done
}

cell_libcxx() {
  compile_all 'clang++ -stdlib=libc++' || return
  build libc++ 'clang++ -stdlib=libc++' unit && run libc++ unit
}

cell_switches() {
  for compiler in "${CXX:-g++}" clang++ 'clang++ -stdlib=libc++'; do
    for left_out in '' -DHUB_SESSION_NO_HTTPLIB -DHUB_SESSION_INTERFACE_ONLY; do
      for rtti in '' -fno-rtti; do
        echo "$compiler $left_out $rtti"
        compile "$compiler" "$left_out $rtti" tests/support/sessions.cpp || return
      done
    done
  done
}

# A sanitizer's runtime does not survive the fork of a program with threads: in the child, locks that
# another thread held stay held. Whoever leaves tests out has to name the hidden ones as well.
cell_asan() {
  build asan "${CXX:-g++}" "$tests" -Db_sanitize=address,undefined \
    '-Dcpp_args=-fno-sanitize-recover=undefined' || return
  for test in $tests; do run asan "$test" '~[fork]~[.]' || return; done
}

cell_tsan() {
  build tsan "${CXX:-g++}" "$threaded_tests" -Db_sanitize=thread || return
  # A child that ends by a signal or by _Exit would keep what was found to itself.
  export TSAN_OPTIONS=halt_on_error=1
  # glibc's getaddrinfo_a starts threads behind ThreadSanitizer's back, which it does not survive. And
  # it keeps a signal back until the program calls something: one that came while threads began and
  # ended never got to the program's handler in 3 of 9,000 children, in none of 6,000 without it.
  # Those that come while the program waits stay: they are what shows the relay to be free of races.
  for test in $threaded_tests; do run tsan "$test" '~[fork]~[names]~[signals]~[.]' || return; done
}

cell_tidy() {
  # shellcheck disable=SC2086 # one word per flag
  printf '%s\n' tests/support/sessions.cpp examples/*.cpp | xargs -I FILE -P "$(nproc)" \
    clang-tidy --quiet FILE -- -std=c++20 -I. $libraries
}

cell_format() {
  find hub_session.hpp tests examples \( -name '*.cpp' -o -name '*.hpp' \) -exec \
    clang-format --dry-run -Werror {} +
}

# Runs a cell, with its log beside its build, and says how it went and how long it took.
play() {
  log=$work/$1.log
  began=$(date +%s)
  result=passed
  "cell_$(printf '%s' "$1" | tr + x)" >"$log" 2>&1 || result=failed
  echo "$1: $result in $(($(date +%s) - began)) s"
  if [ "$result" = failed ]; then
    tail -n 60 "$log" >&2
    say "All of it is in $log."
    failed=$((failed + 1))
  else
    passed=$((passed + 1))
  fi
}

trap 'exit 130' INT
trap 'exit 143' TERM

install_missing || give_up 'The cells cannot be built without these packages.'
missing=$(missing_tools)
# shellcheck disable=SC2086 # one word per package
[ -z "$missing" ] || install_packages $missing || give_up 'The cells need these packages.'
libraries=$(pkg-config --cflags cpp-httplib openssl nlohmann_json) ||
  give_up 'pkg-config does not know the libraries.'
mkdir -p "$work" || give_up "$work cannot be made."
forget_environment

passed=0
failed=0
[ $# -gt 0 ] || set -- g++ clang++ libc++ switches asan tsan tidy format
for cell in "$@"; do
  case $cell in
    g++ | clang++ | libc++ | switches | asan | tsan | tidy | format) play "$cell" ;;
    *) give_up "There is no cell $cell; see the top of tests/matrix.sh." ;;
  esac
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
