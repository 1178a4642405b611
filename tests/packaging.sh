#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/packaging.sh
#
# What the README says of using the header elsewhere, done as it is said: each C++ example of the
# README and of the header's first page compiles; the compile line makes a program that runs, and so
# do the lines for CMake, Meson and make, each in a project of its own; the installed header is found
# through pkg-config; and without OpenSSL there is a session over plain HTTP. Installs what is missing.
# The last line is `N passed, N failed`; the exit code is zero only if none failed.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh
also_needed='cmake git make'
if ! install_missing; then
  echo '0 passed, 1 failed'
  exit 1
fi
forget_environment
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

# ---- programs that use the header ---------------------------------------------------------------

# Prints block number $2 of the language $1 in the README.
block() {
  awk -v open="^\`\`\`$1\$" -v wanted="$2" '
    $0 ~ open { inside = ++n == wanted; next }
    /^```/ { inside = 0 }
    inside { print }' README.md
}

# The least that has to be compiled and linked as a session has: in the folder $1, made new.
program_in() {
  mkdir -p "$1" || return
  cat >"$1/train.cpp" <<'CODE'
#include <cstdio>
#include "hub_session.hpp"

int main() {
  hub::httplib_transport transport;
  std::printf("%d\n", transport.send({.method = "GET", .url = "http://127.0.0.1:1"}).status);
}
CODE
}

# Nobody listens there, so that no status comes.
runs() {
  [ "$("$1")" = 0 ]
}

# The README's words, on a training that is all there: the smallest example.
compile_line() {
  line=$(grep '^g++ -std=c++20 train.cpp' README.md) && mkdir "$work/line" &&
    cp hub_session.hpp "$work/line" && cp examples/minimal.cpp "$work/line/train.cpp" &&
    (cd "$work/line" && eval "$line" && ./a.out 2>&1 | grep usage)
}
check 'the compile line makes a program that runs' compile_line

with_make() {
  program_in "$work/make" && cp hub_session.hpp "$work/make" && block make 1 >"$work/make/Makefile" &&
    make -C "$work/make" CXX="$cxx" train && runs "$work/make/train"
}
check 'the lines for make make a program that runs' with_make

# Linked without libssl and libcrypto, so that nothing in the header may use them. Debian's httplib has
# to be included with the macros that it was compiled with, and calls OpenSSL by itself.
without_openssl() {
  # shellcheck disable=SC2046 # flags are words
  "$cxx" -std=c++20 -Wall -Wextra -Werror tests/hygiene/plain_http.cpp -o "$work/plain_http" \
    $(pkg-config --cflags --libs cpp-httplib nlohmann_json) -pthread && "$work/plain_http"
}
check 'without OpenSSL a session speaks plain HTTP alone' without_openssl

# ---- CMake --------------------------------------------------------------------------------------

# A project whose CMakeLists.txt goes on with what is on stdin.
cmake_project() {
  program_in "$1" && {
    printf 'cmake_minimum_required(VERSION 3.18)\nproject(vendored CXX)\n'
    cat
  } >"$1/CMakeLists.txt"
}

vendor() {
  mkdir -p "$1/third_party/hub_session" &&
    cp hub_session.hpp examples/cmake/CMakeLists.txt "$1/third_party/hub_session"
}

# built_by_cmake FOLDER [ARGUMENT...]
built_by_cmake() {
  folder=$1
  shift
  cmake -S "$folder" -B "$folder/build" -DCMAKE_CXX_COMPILER="$cxx" "$@" &&
    cmake --build "$folder/build" && runs "$folder/build/train"
}

with_subdirectory() {
  block cmake 1 | cmake_project "$work/subdirectory" && vendor "$work/subdirectory" &&
    built_by_cmake "$work/subdirectory"
}
check 'a copy and add_subdirectory make a program that runs' with_subdirectory

with_fetch_content() {
  block cmake 2 | cmake_project "$work/fetch" &&
    built_by_cmake "$work/fetch" "-DFETCHCONTENT_SOURCE_DIR_HUB_SESSION=$root"
}
check 'FetchContent makes a program that runs' with_fetch_content

# As upstream's package has it: a file for find_package() that makes a target. Here it names what Debian
# has, and there is no pkg-config to fall back on.
with_packages_of_upstream() {
  block cmake 1 | cmake_project "$work/upstream" && vendor "$work/upstream" &&
    mkdir -p "$work/prefix/lib/cmake/httplib" &&
    cat >"$work/prefix/lib/cmake/httplib/httplibConfig.cmake" <<CMAKE &&
add_library(httplib::httplib INTERFACE IMPORTED)
target_compile_options(httplib::httplib INTERFACE $(pkg-config --cflags cpp-httplib))
target_link_libraries(httplib::httplib INTERFACE $(pkg-config --libs cpp-httplib))
CMAKE
    built_by_cmake "$work/upstream" "-DCMAKE_PREFIX_PATH=$work/prefix" -DPKG_CONFIG_EXECUTABLE=false
}
check "upstream's packages are found without pkg-config" with_packages_of_upstream

# OpenSSL cannot be found there, so that asking for it ends the configuration.
without_openssl_by_cmake() {
  cmake_project "$work/plain" <<'CMAKE' && vendor "$work/plain" &&
add_subdirectory(third_party/hub_session)
get_target_property(definitions hub_session INTERFACE_COMPILE_DEFINITIONS)
message(STATUS "definitions: ${definitions}")
CMAKE
    cmake -S "$work/plain" -B "$work/plain/build" -DCMAKE_CXX_COMPILER="$cxx" \
      -DHUB_SESSION_NO_OPENSSL=ON -DCMAKE_DISABLE_FIND_PACKAGE_OpenSSL=ON >"$work/plain/said" &&
    grep 'definitions:.*HUB_SESSION_NO_OPENSSL' "$work/plain/said"
}
check 'with CMake, HUB_SESSION_NO_OPENSSL asks for no OpenSSL' without_openssl_by_cmake

# ---- Meson --------------------------------------------------------------------------------------

meson_project() {
  program_in "$1" && mkdir "$1/subprojects" &&
    { printf "project('vendored', 'cpp', default_options: ['cpp_std=c++20'])\n"; block meson 1; } \
      >"$1/meson.build"
}

built_by_meson() {
  meson setup "$1/build" "$1" && meson compile -C "$1/build" && runs "$1/build/train"
}

with_subproject() {
  meson_project "$work/subproject" && mkdir "$work/subproject/subprojects/hub_session" &&
    cp hub_session.hpp meson.build meson_options.txt "$work/subproject/subprojects/hub_session" &&
    built_by_meson "$work/subproject"
}
check 'a subproject of Meson makes a program that runs' with_subproject

# The repository is one of this machine, with nothing in it but what a subproject needs.
with_wrap() {
  meson_project "$work/wrap" && mkdir "$work/repository" &&
    cp hub_session.hpp meson.build meson_options.txt "$work/repository" &&
    (cd "$work/repository" && git init -q && git add . &&
      git -c user.name=packaging -c user.email=packaging@localhost commit -q -m copy) &&
    block ini 1 | sed "s|URL|file://$work/repository|; s|REVISION|$(git -C "$work/repository" \
      rev-parse HEAD)|" >"$work/wrap/subprojects/hub_session.wrap" &&
    built_by_meson "$work/wrap"
}
check 'a wrap of Meson makes a program that runs' with_wrap

installed() {
  meson setup "$work/build" . --prefix "$work/prefix" -Dtests=false -Dexamples=false &&
    meson install -C "$work/build" && program_in "$work/user" || return
  flags=$(PKG_CONFIG_PATH=$work/prefix/share/pkgconfig pkg-config --cflags --libs hub_session) ||
    return
  # shellcheck disable=SC2086 # flags are words
  "$cxx" -std=c++20 "$work/user/train.cpp" -o "$work/user/train" $flags &&
    runs "$work/user/train"
}
check 'the installed header is found through pkg-config' installed

without_openssl_by_meson() {
  meson setup "$work/plain-build" . --prefix "$work/plain-prefix" -Dtests=false -Dexamples=false \
    -Dopenssl=disabled && meson install -C "$work/plain-build" &&
    grep -- -DHUB_SESSION_NO_OPENSSL "$work/plain-prefix/share/pkgconfig/hub_session.pc" &&
    ! grep '^Requires.*openssl' "$work/plain-prefix/share/pkgconfig/hub_session.pc"
}
check 'with Meson, -Dopenssl=disabled asks for no OpenSSL' without_openssl_by_meson

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
