#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/fuzz.sh [RUNS]
#
# Installs clang and its sanitizers where they are missing (Debian, Ubuntu), builds the targets of
# tests/fuzz with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, and gives each its
# corpus and then RUNS inputs (default 100,000, about a minute in all). Prints a line for each; the
# last line is `N passed, N failed`, counted in targets. Each leaves its log in the build folder, and
# an input that fails beside it; the end of the log of one that failed is printed and names it.
# BUILD_DIR names another folder than build/.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh

runs=${1:-100000}
sanitizers=fuzzer,address,undefined

clang_can_fuzz() {
  echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, int) { return 0; }' |
    clang++ -x c++ - -fsanitize=$sanitizers -o /dev/null 2>/dev/null
}

remove_temporary_build_at_exit
choose_build_folder || give_up 'There is no folder to build in.'
out=$build/fuzz
mkdir -p "$out" || give_up "$out cannot be made."
clang_can_fuzz || install_packages clang libclang-rt-dev && clang_can_fuzz ||
  give_up 'clang with libFuzzer is needed.'
have_library nlohmann_json || install_packages pkg-config nlohmann-json3-dev ||
  give_up 'nlohmann/json is needed.'

# compile ARGUMENT...
compile() {
  # shellcheck disable=SC2046 # one word per flag
  clang++ -std=c++20 -O1 -g -fsanitize=$sanitizers -fno-sanitize-recover=all \
    -DHUB_SESSION_ASSERT=assert -DHUB_SESSION_NO_HTTPLIB= $(pkg-config --cflags nlohmann_json) "$@"
}

# attack TARGET: builds it and gives it the inputs. What it finds goes to a folder of its own: the
# corpus is kept small by hand.
attack() {
  mkdir -p "$out/found-$1"
  compile -include-pch "$out/hub_session.pch" "tests/fuzz/$1.cpp" -o "$out/$1" &&
    "$out/$1" -runs="$runs" -seed=1 -max_len=512 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix="$out/$1-" "$out/found-$1" "tests/fuzz/corpus/$1"
}

# What all of them read is read once.
compile -x c++-header hub_session.hpp -fpch-instantiate-templates -o "$out/hub_session.pch" ||
  give_up 'The header does not compile; see above.'

passed=0
failed=0
for source in tests/fuzz/*.cpp; do
  target=$(basename "$source" .cpp)
  log=$out/$target.log
  if attack "$target" >"$log" 2>&1; then
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: passed with $inputs inputs"
    passed=$((passed + 1))
  else
    tail -n 40 "$log" >&2
    say "All of it is in $log."
    echo "$target: failed"
    failed=$((failed + 1))
  fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
