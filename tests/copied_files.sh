#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/copied_files.sh
#
# What a stranger does: copies the header and test_your_training.cpp into an empty folder, compiles
# with the command in that file's head, and runs it. Where Catch2 is v3, its libraries are added as
# the head says; where a package lies outside the compiler's own folders, its flags; CXX replaces
# the command's g++. Ends as Catch2 does, or with `0 passed, 1 failed`.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
  printf '%s\n' "$*" >&2
  echo '0 passed, 1 failed'
  exit 1
}

cp hub_session.hpp examples/test_your_training.cpp "$work" || fail 'The files cannot be copied.'
cd "$work" || fail 'There is no folder to work in.'

# The head ends with the first line that is no comment.
command=$(sed -n '/^[^/]/q; s,^//     \(g++ .*\),\1,p' test_your_training.cpp)
libraries=$(sed -n '/^[^/]/q; s,^// With Catch2 v3.* add: \(-l.*\),\1,p' test_your_training.cpp)
[ "$(printf '%s\n' "$command" | grep -c .)" -eq 1 ] ||
  fail 'The head of test_your_training.cpp does not hold one command that begins with g++.'
[ -n "$libraries" ] || fail 'The head of test_your_training.cpp does not say what Catch2 v3 needs.'

flags=$(pkg-config --cflags nlohmann_json 2>/dev/null)
if pkg-config --exists catch2-with-main 2>/dev/null; then
  flags="$flags $(pkg-config --cflags --libs-only-L catch2-with-main)"
fi
if printf '#include <catch2/catch_all.hpp>\n' |
  ${CXX:-g++} -std=c++20 $flags -fsyntax-only -x c++ - 2>/dev/null; then
  flags="$flags $libraries"
fi
[ -z "${CXX:-}" ] || command="$CXX ${command#g++}"

printf '%s\n' "$command $flags"
eval "$command $flags" || fail 'This command does not compile test_your_training.cpp.'
./test_your_training || fail 'The tests in test_your_training.cpp fail.'
