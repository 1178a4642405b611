#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/compile_fail.sh [COMPILER...]
#
# What must not compile. Each file in tests/compile_fail/ holds one mistake, and in its first line,
# `// expect: REGEX`, what the compiler's first error must say about it. With -DFIXED the mistake is
# out, and the file must compile: so it fails for its mistake and not for a slip elsewhere. Names are
# unique over all files, as the fixed ones are compiled together. Without arguments: g++ and clang++,
# whichever there are. CXXFLAGS is passed on. The last line is `N passed, N failed`; the exit code is
# zero only if none failed.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

passed=0
failed=0

pass() {
  passed=$((passed + 1))
}

# fail NAME WHY: with what the compiler said.
fail() {
  failed=$((failed + 1))
  printf '%s: %s: %s\n' "$cxx" "$1" "$2"
  sed 's/^/  /' "$work/output" | head -n 12
}

compile() {
  LC_ALL=C $cxx -std=c++20 -fsyntax-only -Wfatal-errors -DHUB_SESSION_NO_HTTPLIB \
    $json_flags ${CXXFLAGS:-} "-I$include" $precompiled "$@" >"$work/output" 2>&1
}

# A copy of the header, read once for all files, which is many times as fast. Where the compiler
# will not do that, it reads it each time.
prepare_header() {
  include=$work/$(printf '%s' "$cxx" | tr -c 'A-Za-z0-9' _)
  mkdir -p "$include" && cp hub_session.hpp "$include" || exit 1
  header=$include/hub_session.hpp
  precompiled=
  if $cxx --version 2>/dev/null | grep -qi clang; then
    precompiled="-include-pch $header.pch"
    output=$header.pch
  else
    output=$header.gch  # found beside the header without being asked for
  fi
  $cxx -std=c++20 -DHUB_SESSION_NO_HTTPLIB $json_flags ${CXXFLAGS:-} -x c++-header "$header" \
    -o "$output" >/dev/null 2>&1 || precompiled=
}

check_file() {
  name=$(basename "$1" .cpp)
  expected=$(sed -n '1s,^// expect: ,,p' "$1")
  if [ -z "$expected" ]; then
    : >"$work/output"
    fail "$name" 'its first line is not "// expect: REGEX"'
  elif [ "$all_fixed" = no ] && ! compile -DFIXED "$1"; then
    fail "$name" 'does not compile even without its mistake'
  elif compile "$1"; then
    fail "$name" 'compiles, mistake and all'
  elif ! grep -Eq -e "$expected" "$work/output"; then
    fail "$name" "the first error does not match: $expected"
  else
    pass
  fi
}

# Each alone would take most of the time; only where they do not compile together does it matter
# which one it is.
compile_all_fixed() {
  for file in tests/compile_fail/*.cpp; do
    printf '#include "%s/%s"\n' "$PWD" "$file"
  done >"$work/all.cpp"
  all_fixed=no
  compile -DFIXED "$work/all.cpp" && all_fixed=yes
}

if [ $# -eq 0 ]; then
  for candidate in g++ clang++; do
    command -v "$candidate" >/dev/null 2>&1 && set -- "$@" "$candidate"
  done
fi
json_flags=$(pkg-config --cflags nlohmann_json 2>/dev/null)
for cxx in "$@"; do
  prepare_header
  compile_all_fixed
  for file in tests/compile_fail/*.cpp; do
    check_file "$file"
  done
done
[ $((passed + failed)) -gt 0 ] || failed=1

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
