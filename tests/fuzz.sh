#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/fuzz.sh [RUNS]
#
# Installs clang and its sanitizers where they are missing (Debian, Ubuntu), builds the targets of
# tests/fuzz with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, and gives each its
# corpus and then RUNS inputs (default 100,000, about a minute in all). The last line is
# `N passed, N failed`, counted in targets. An input that fails is kept in the build folder, named
# on the line before. BUILD_DIR names another folder than build/.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh

runs=${1:-100000}
sanitizers=fuzzer,address,undefined

give_up() {
  say "$*"
  echo '0 passed, 1 failed'
  exit 1
}

clang_can_fuzz() {
  echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, int) { return 0; }' |
    clang++ -x c++ - -fsanitize=$sanitizers -o /dev/null 2>/dev/null
}

trap remove_temporary_build EXIT
choose_build_folder || give_up 'There is no folder to build in.'
out=$build/fuzz
mkdir -p "$out" || give_up "$out cannot be made."
clang_can_fuzz || install_packages clang libclang-rt-dev && clang_can_fuzz ||
  give_up 'clang with libFuzzer is needed.'
have_library nlohmann_json || install_packages pkg-config nlohmann-json3-dev ||
  give_up 'nlohmann/json is needed.'

passed=0
failed=0
for source in tests/fuzz/*.cpp; do
  target=$(basename "$source" .cpp)
  # The inputs that were found go to a folder of their own: the corpus is kept small by hand.
  mkdir -p "$out/found-$target"
  # shellcheck disable=SC2046 # one word per flag
  if clang++ -std=c++20 -O1 -g -fsanitize=$sanitizers -fno-sanitize-recover=all \
    $(pkg-config --cflags nlohmann_json) "$source" -o "$out/$target" &&
    "$out/$target" -runs="$runs" -seed=1 -max_len=512 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix="$out/$target-" "$out/found-$target" "tests/fuzz/corpus/$target" >&2; then
    passed=$((passed + 1))
  else
    say "$target failed."
    failed=$((failed + 1))
  fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
