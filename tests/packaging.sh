#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/packaging.sh
#
# What the README says of using the header elsewhere, done as it is said: each C++ example of the
# README and of the header's first page compiles, the compile line makes a program that runs, and so
# do the CMake and the Meson snippet for a vendored copy; the installed header is found through
# pkg-config. The snippets are for the packaged cpp-httplib: without it this exits with 77, which
# Meson takes for skipped. CMake's snippet is left out where there is no CMake. The last line is
# `N passed, N failed`; the exit code is zero only if none failed.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cxx=${CXX:-c++}

passed=0
failed=0

# check NAME COMMAND...: what the command says is shown only if it fails.
check() {
  name=$1
  shift
  if "$@" >"$work/output" 2>&1; then
    passed=$((passed + 1))
    echo "ok: $name"
  else
    failed=$((failed + 1))
    echo "FAILED: $name"
    head -n 30 "$work/output"
  fi
}

if ! pkg-config --exists cpp-httplib openssl nlohmann_json; then
  echo 'cpp-httplib, OpenSSL and nlohmann/json are not all known to pkg-config: nothing to check.'
  exit 77
fi

# ---- examples in prose --------------------------------------------------------------------------

# What the examples call "yours". Declared without the header, which each of them includes itself.
cat >"$work/yours.hpp" <<'CODE'
#pragma once
namespace hub { inline namespace v0_1 { class training_callbacks; } }
float train_one_epoch();
template <class Epoch>
void my_training(hub::training_callbacks& session, Epoch&& train_an_epoch) {
  static_cast<void>(session);
  train_an_epoch();
}
CODE

# Block number N of ```cpp in the README becomes readme-N.cpp.
awk -v folder="$work" '
  /^```cpp/ { ++n; inside = 1; next }
  /^```/ { inside = 0 }
  inside { print > (folder "/readme-" n ".cpp") }' README.md

# The example in the header opens its first comment, indented.
awk '/^\/\/ Contents/ { exit } /^\/\/     / { print substr($0, 8) }' hub_session.hpp \
  >"$work/header.cpp"

compiles() {
  # shellcheck disable=SC2046 # flags are words
  "$cxx" -std=c++20 -fsyntax-only "-I$root" -Wall -Wextra -Werror -include "$work/yours.hpp" \
    $(pkg-config --cflags cpp-httplib openssl nlohmann_json) "$1"
}

for example in "$work"/readme-*.cpp "$work/header.cpp"; do
  check "the example $(basename "$example" .cpp) compiles" compiles "$example"
done

# ---- a copied header ----------------------------------------------------------------------------

# Prints block number $2 of the language $1 in the README.
block() {
  awk -v open="^\`\`\`$1\$" -v wanted="$2" '
    $0 ~ open { inside = ++n == wanted; next }
    /^```/ { inside = 0 }
    inside { print }' README.md
}

# The README's words, on a training that is all there: the smallest example.
copied_folder() {
  mkdir -p "$1" && cp hub_session.hpp "$1" && cp examples/minimal.cpp "$1/train.cpp"
}

compile_line() {
  line=$(grep '^g++ -std=c++20 train.cpp' README.md) && copied_folder "$work/copied" &&
    (cd "$work/copied" && eval "$line" && ./a.out 2>&1 | grep usage)
}
check 'the compile line makes a program that runs' compile_line

with_cmake() {
  copied_folder "$work/cmake" && mkdir "$work/cmake/third_party" &&
    mv "$work/cmake/hub_session.hpp" "$work/cmake/third_party" &&
    { printf 'cmake_minimum_required(VERSION 3.16)\nproject(vendored CXX)\n'; block cmake 1; } \
      >"$work/cmake/CMakeLists.txt" &&
    cmake -S "$work/cmake" -B "$work/cmake/build" &&
    cmake --build "$work/cmake/build" && "$work/cmake/build/train" 2>&1 | grep usage
}
if command -v cmake >/dev/null 2>&1; then
  check 'the CMake snippet makes a program that runs' with_cmake
fi

# ---- a subproject, and an installed header ------------------------------------------------------

with_meson() {
  copied_folder "$work/meson" && mkdir -p "$work/meson/subprojects/hub_session" &&
    rm "$work/meson/hub_session.hpp" &&
    cp hub_session.hpp meson.build meson_options.txt "$work/meson/subprojects/hub_session" &&
    { printf "project('vendored', 'cpp', default_options: ['cpp_std=c++20'])\n"; block meson 1; } \
      >"$work/meson/meson.build" &&
    meson setup "$work/meson/build" "$work/meson" && meson compile -C "$work/meson/build" &&
    "$work/meson/build/train" 2>&1 | grep usage
}
check 'the Meson snippet makes a program that runs' with_meson

installed() {
  meson setup "$work/build" . --prefix "$work/prefix" -Dtests=false -Dexamples=false &&
    meson install -C "$work/build" && copied_folder "$work/user" &&
    rm "$work/user/hub_session.hpp" || return
  flags=$(PKG_CONFIG_PATH=$work/prefix/share/pkgconfig pkg-config --cflags --libs hub_session) ||
    return
  # shellcheck disable=SC2086 # flags are words
  "$cxx" -std=c++20 "$work/user/train.cpp" -o "$work/user/train" $flags &&
    "$work/user/train" 2>&1 | grep usage
}
check 'the installed header is found through pkg-config' installed

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
