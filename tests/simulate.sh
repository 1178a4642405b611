#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/simulate.sh PROGRAM [COMPILER...]
#
# Plays the seeds of tests/simulate/seeds.txt with PROGRAM, a built tests/simulate.cpp. Then, if there
# are compilers, whether a seed does the same whatever compiled it: what PROGRAM says of some seeds must
# be what it says when each of them has built it without optimization. CXXFLAGS is passed on. The last
# line is `N passed, N failed`; the exit code is zero only if none failed.

unset CDPATH
program=$(realpath "$1") || exit 1
shift
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

seeds=60
passed=0
failed=0

trace_of() {
  "$1" --seeds $seeds | sed -n 's/^.*, trace //p'
}

fail() {
  failed=$((failed + 1))
  printf '%s: %s\n' "$1" "$2"
}

for seed in $(sed -n 's/^\([0-9][0-9]*\) .*/\1/p' tests/simulate/seeds.txt); do
  if "$program" --seed "$seed" >"$work/seed.log" 2>&1; then
    passed=$((passed + 1))
  else
    fail "seed $seed" "$(cat "$work/seed.log")"
  fi
done
[ "$passed" -gt 0 ] || fail tests/simulate/seeds.txt 'no seed of it could be played'

expected=$(trace_of "$program")
json_flags=$(pkg-config --cflags nlohmann_json 2>/dev/null)
[ -n "$expected" ] || fail "$program" "its $seeds seeds have no trace"
for cxx in "$@"; do
  # shellcheck disable=SC2086 # flags are words
  if ! $cxx -std=c++20 -O0 -DHUB_SESSION_ASSERT=assert $json_flags ${CXXFLAGS:-} \
    tests/simulate.cpp -o "$work/simulate" -pthread; then
    fail "$cxx" 'does not compile tests/simulate.cpp'
  elif [ "$(trace_of "$work/simulate")" != "$expected" ]; then
    fail "$cxx" 'the same seeds do something else'
  else
    passed=$((passed + 1))
  fi
done
[ $((passed + failed)) -gt 0 ] || failed=1

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
