#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/including.sh [COMPILER...]
#
# What the header does to the file that includes it: the macros that it brings, its manners about macros
# of others, warnings, and being included again with other switches. Without arguments: g++ and clang++,
# whichever there are. CXXFLAGS is passed on; HTTPLIB_FLAGS stands in for what pkg-config says of
# cpp-httplib, and where neither says anything, what needs httplib is left out. The last line is
# `N passed, N failed`; the exit code is zero only if none failed.

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
  LC_ALL=C $cxx -std=c++20 -fsyntax-only $json_flags ${CXXFLAGS:-} -I. "$@" >"$work/output" 2>&1
}

# expect_good NAME FLAG...: that $work/NAME.cpp compiles, and without a word.
expect_good() {
  name=$1
  shift
  if ! compile "$@" "$work/$name.cpp"; then
    fail "$name" 'does not compile'
  elif [ -s "$work/output" ]; then
    fail "$name" 'the compiler warns'
  else
    pass
  fi
}

# What the header includes of the standard library, which alone may bring macros.
standard_includes() {
  sed -n '/^#include <nlohmann/q; /^#include <[a-z_]*>$/p' hub_session.hpp
  echo '#include <nlohmann/json.hpp>'
}

macros_of() {
  LC_ALL=C $cxx -std=c++20 $json_flags ${CXXFLAGS:-} -I. -dM -E "$@" 2>"$work/output" |
    sed -n 's/^#define \([A-Za-z0-9_]*\).*/\1/p' | sort
}

# check_macros SWITCH FLAG...: that the header brings no macro but its own, and says its version.
check_macros() {
  switch=$1
  shift
  standard_includes >"$work/standard.cpp"
  [ "$switch" != HTTPLIB ] || echo '#include <httplib.h>' >>"$work/standard.cpp"
  { cat "$work/standard.cpp" && echo '#include "hub_session.hpp"'; } >"$work/macros.cpp"
  macros_of "$@" "$work/standard.cpp" >"$work/before"
  macros_of "$@" "-DHUB_SESSION_$switch" "$work/macros.cpp" >"$work/names"
  comm -13 "$work/before" "$work/names" | grep -v "^HUB_SESSION_$switch\$" >"$work/added"
  grep -Ev '^HUB_SESSION_(VERSION(_MAJOR|_MINOR|_PATCH)?|HPP(_SESSION|_HTTPLIB)?_INCLUDED)$' \
    "$work/added" >"$work/output"
  if [ -s "$work/output" ]; then
    fail "macros, $switch" 'the header leaves these defined'
  elif ! grep -q '^HUB_SESSION_VERSION$' "$work/added"; then
    fail "macros, $switch" 'the header cannot be read, or does not say its version'
  else
    pass
  fi
}

# check_order "SWITCH..." FLAG...: each part is guarded by itself, so that a later inclusion adds what an
# earlier one left out, whatever comes first.
check_order() {
  for switch in $1; do
    printf '#define HUB_SESSION_%s\n#include "hub_session.hpp"\n#undef HUB_SESSION_%s\n' \
      "$switch" "$switch"
    case $switch in
      INTERFACE_ONLY) echo 'using hub::training_callbacks; using hub::any_transport;' ;;
      NO_HTTPLIB) echo 'using hub::engine; using hub::testing::simulation; using hub::thread_sleeper;' ;;
      HTTPLIB) echo 'using hub::training_session; using hub::httplib_transport;' ;;
    esac
  done >"$work/order.cpp"
  shift
  expect_good order "$@"
}

# Words that are macros elsewhere: on Windows, in X11, Qt, macOS and the system's own headers.
check_words() {
  {
    standard_includes
    for word in interface small near far IN OUT OPTIONAL CONST VOID DELETE ERROR TRUE FALSE None Status \
      Bool Success Always signals slots emit foreach linux unix ECHO B0 I BLOCK_SIZE MS_RDONLY; do
      printf '#undef %s\n#define %s a word of somebody else\n' $word $word
    done
    for word in min max check verify require major minor CTRL LOG CHECK; do
      printf '#define %s(x) a word of somebody else\n' $word
    done
    echo '#include "hub_session.hpp"'
    printf '#if !defined(min) || !defined(max) || !defined(check)\n#error "it is gone"\n#endif\n'
  } >"$work/words.cpp"
  expect_good words -DHUB_SESSION_NO_HTTPLIB
}

# Numbers with a leading 0 are octal, so that 0.1.8 and 0.1.9 could not be included twice.
check_version() {
  number=$(sed -n 's/^#define HUB_SESSION_HPP_INCLUDED \([0-9]*\).*/\1/p' hub_session.hpp)
  later=${number%?}8
  mkdir -p "$work/later"
  sed "s/HPP_INCLUDED \(!= \)\{0,1\}$number/HPP_INCLUDED \1$later/
    s/VERSION_PATCH [0-9]*/VERSION_PATCH 8/" hub_session.hpp >"$work/later/hub_session.hpp"
  for header in "$PWD/hub_session.hpp" "$work/later/hub_session.hpp"; do
    printf '#include "%s"\n#include "%s"\n' "$header" "$header" >"$work/version.cpp"
    cat >>"$work/version.cpp" <<'EOF'
static_assert(HUB_SESSION_HPP_INCLUDED == HUB_SESSION_VERSION_MAJOR * 10000 +
                                              HUB_SESSION_VERSION_MINOR * 100 +
                                              HUB_SESSION_VERSION_PATCH);
EOF
    expect_good version -DHUB_SESSION_INTERFACE_ONLY
  done
}

# Without the macro that httplib.h was, or will be, compiled with elsewhere.
check_abi_macro() {
  echo '#include "hub_session.hpp"' >"$work/abi.cpp"
  if compile "$@" -UCPPHTTPLIB_OPENSSL_SUPPORT "$work/abi.cpp"; then
    fail abi 'compiles without CPPHTTPLIB_OPENSSL_SUPPORT'
  elif ! grep -q 'error.*-DCPPHTTPLIB_OPENSSL_SUPPORT' "$work/output"; then
    fail abi 'CPPHTTPLIB_OPENSSL_SUPPORT is not named'
  else
    pass
  fi
}

# A part that the switch leaves out needs neither the macro nor OpenSSL's headers.
check_without_openssl() {
  printf '#include "hub_session.hpp"\nusing hub::training_session;\n%s\n%s\n#endif\n' \
    '#if defined(OPENSSL_VERSION_NUMBER)' '#error "OpenSSL came in where it was left out"' \
    >"$work/without_openssl.cpp"
  expect_good without_openssl "$@" -DHUB_SESSION_NO_OPENSSL -UCPPHTTPLIB_OPENSSL_SUPPORT
}

check_header() {
  warnings='-Wall -Wextra -Wpedantic -Wundef -Wswitch-enum -Wshadow -Wconversion -Wsign-conversion'
  $cxx --version | grep -qi clang || warnings="$warnings -Wuseless-cast"
  check_macros NO_HTTPLIB
  check_macros INTERFACE_ONLY
  check_words
  check_version
  if [ -z "$httplib_flags" ]; then
    check_order 'INTERFACE_ONLY NO_HTTPLIB' $warnings
    return
  fi
  check_macros HTTPLIB $httplib_flags
  check_order 'INTERFACE_ONLY NO_HTTPLIB HTTPLIB' $warnings $httplib_flags
  check_order 'HTTPLIB NO_HTTPLIB INTERFACE_ONLY' $httplib_flags
  check_abi_macro $httplib_flags
  check_without_openssl $httplib_flags
}

if [ $# -eq 0 ]; then
  for candidate in g++ clang++; do
    command -v "$candidate" >/dev/null 2>&1 && set -- "$@" "$candidate"
  done
fi
json_flags=$(pkg-config --cflags nlohmann_json 2>/dev/null)
httplib_flags=${HTTPLIB_FLAGS:-$(pkg-config --cflags cpp-httplib 2>/dev/null)}
for cxx in "$@"; do
  check_header
done
[ $((passed + failed)) -gt 0 ] || failed=1

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
