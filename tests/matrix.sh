#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/matrix.sh [--long] [CELL...]
#
# Every compiler, switch and tool that the project names, each in a cell of its own that looks at what
# differs from tests/run.sh:
#
#   clang++       every file is compiled alone, with all warnings as errors, but those that the cell asan
#                 compiles so
#   libc++        clang++ with libc++: the tests without a network are linked and run, and the
#                 simulator's seeds do the same as when g++ has compiled them. Debian's
#                 libcpp-httplib.so is built with libstdc++, so that nothing that needs it can be linked
#                 with libc++
#   switches      every template of the header instantiated, whole, with HUB_SESSION_NO_HTTPLIB, with
#                 HUB_SESSION_NO_OPENSSL and with HUB_SESSION_INTERFACE_ONLY, under -fno-rtti, with g++
#                 and with libc++; what the header does to the file that includes it and what must not
#                 compile, with clang++
#   foreign       other machines: the tests without a network on 32 bits, where files above 2 GiB are
#                 read or refused by what a program is compiled with; and those of the engine and the
#                 protocols on aarch64, under qemu-user
#   packaging     what the README says of compiling, vendoring and installing, and of files to copy
#   asan          the tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   tsan          those that have threads under ThreadSanitizer
#   tidy, format  clang-tidy and clang-format with the checked-in configurations
#   windows       the tests without a network, compiled with Debian's mingw-w64 and run under its wine,
#                 with tests/windows.cpp, which is for Windows alone; and the header beside <windows.h>,
#                 whichever comes first, with NOMINMAX or not. Says which tests it leaves out: those
#                 over loopback where HTTPLIB_DIR names no folder of upstream's single httplib.h
#
# --long adds what has found nothing for long that the short form had not: the cell g++, every file
# alone under g++, where tests/run.sh compiles the same together; with clang++ and libc++ every test
# and every file, optimized; each switch with and without RTTI under each compiler; memory that runs out
# and thousands of sessions on 32 bits; hostile_replies under ThreadSanitizer, which alone takes twelve
# minutes.
#
# Without cells all of them. Prints a line for each and at the end what took longest and what failed; the
# last line is `N passed, N failed`, in cells. Each leaves its log in build-matrix/. Installs what is
# missing, as tests/run.sh does.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh
. tests/windows.sh

work=build-matrix
offline_tests='engine unit session'
threaded_tests='loopback processes deadlines'
tests="$offline_tests hostile_replies $threaded_tests"
warnings='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror'

# What tests/run.sh does not need, by Debian's names.
missing_tools() {
  tools=
  have clang++ || tools="$tools clang"
  have clang-tidy || tools="$tools clang-tidy"
  have clang-format || tools="$tools clang-format"
  echo '#include <version>' | clang++ -stdlib=libc++ -x c++ -fsyntax-only - 2>/dev/null ||
    tools="$tools libc++-dev libc++abi-dev"
  have i686-linux-gnu-g++ || tools="$tools g++-i686-linux-gnu"
  have aarch64-linux-gnu-g++ || tools="$tools g++-aarch64-linux-gnu"
  have qemu-aarch64 || tools="$tools qemu-user"
  echo 'int main() {}' | clang++ -x c++ - -fsanitize=address -o /dev/null 2>/dev/null ||
    tools="$tools libclang-rt-dev"
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

# run FOLDER TESTS [ARGUMENT...]: beside each other; the arguments go to each of them.
run() {
  folder=$work/$1
  tests_to_run=$2
  shift 2
  # shellcheck disable=SC2086 # one word per test
  meson test -C "$folder" --no-rebuild --print-errorlogs --timeout-multiplier 3 \
    --test-args "$*" $tests_to_run
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

# What every file includes, read once: for clang++, which takes it for the header wherever that is
# included.
precompile() {
  # shellcheck disable=SC2086 # one word per flag
  clang++ -std=c++20 $warnings -I. '-DHUB_SESSION_TEST_DATA="tests/data"' $libraries \
    -x c++-header hub_session.hpp -fpch-instantiate-templates -o "$work/hub_session.pch"
}

# files_of PROGRAM...: what meson.build makes it of.
files_of() {
  python3 - "$@" <<'PYTHON'
import re, sys
text = open('meson.build').read()
for name in sys.argv[1:]:
    files = re.search(rf"'{name}': \[(.*?)\],?\s*\]", text, re.S)[1]
    print(*re.findall(r"'(tests/.*?)'", files), sep='\n')
PYTHON
}

# compile_all COMPILER FLAGS [FILE...]: but for these files. Those that leave a part of the header out
# read it by themselves.
compile_all() {
  compiler=$1
  flags=$2
  shift 2
  spared=" $* "
  whole=
  parts=
  for file in tests/*.cpp tests/*/*.cpp tests/bench/compile/*.cpp examples/*.cpp; do
    case $file in
      tests/compile_fail/* | tests/fuzz/* | tests/windows.cpp) continue ;;
    esac
    case $spared in
      *" $file "*) continue ;;
    esac
    if grep -qE '^ *#(define|undef) HUB_SESSION_' "$file"; then
      parts="$parts $file"
    else
      whole="$whole $file"
    fi
  done
  # shellcheck disable=SC2086 # one word per file
  compile "$compiler" '' $parts && compile "$compiler" "$flags" $whole
}

cell_gxx() {
  compile_all "${CXX:-g++}" ''
}

cell_clangxx() {
  precompile || return
  read_header="-include-pch $work/hub_session.pch"
  if is_long; then
    compile_all clang++ "$read_header" && build clang++ clang++ '' -Doptimization=2 &&
      run clang++ "$tests"
  else
    # The cell asan compiles the others, with the same warnings.
    # shellcheck disable=SC2046,SC2086 # one word per file
    compile_all clang++ "$read_header" $(files_of $tests)
  fi
}

cell_libcxx() {
  if is_long; then compile_all 'clang++ -stdlib=libc++' '' || return; fi
  optimization=0
  if is_long; then optimization=2; fi
  build libc++ 'clang++ -stdlib=libc++' "$offline_tests simulate" -Doptimization=$optimization &&
    run libc++ "$offline_tests" && sh tests/simulate.sh "$work/libc++/simulate" "${CXX:-g++}"
}

cell_switches() {
  set -- "${CXX:-g++}" 'clang++ -stdlib=libc++'
  if is_long; then set -- "$@" clang++; fi
  for compiler in "$@"; do
    # As with upstream's header: Debian's would be linked with the macro that it was compiled with.
    for left_out in '' -DHUB_SESSION_NO_HTTPLIB -DHUB_SESSION_INTERFACE_ONLY \
      '-DHUB_SESSION_NO_OPENSSL -UCPPHTTPLIB_OPENSSL_SUPPORT'; do
      echo "$compiler $left_out -fno-rtti"
      compile "$compiler" "$left_out -fno-rtti" tests/support/sessions.cpp || return
      is_long || continue
      compile "$compiler" "$left_out" tests/support/sessions.cpp || return
    done
  done
  sh tests/including.sh clang++ && sh tests/compile_fail.sh clang++
}

# build_for MACHINE TARGETS FLAGS: linked without shared libraries, so that nothing of that machine's
# has to be installed here, and with all warnings as errors.
build_for() {
  cat >"$work/$1.ini" <<EOF
[binaries]
cpp = '$1-linux-gnu-g++'
pkgconfig = 'pkg-config'
$([ "$1" = i686 ] || echo "exe_wrapper = 'qemu-$1'")
[host_machine]
system = 'linux'
cpu_family = '$([ "$1" = i686 ] && echo x86 || echo "$1")'
cpu = '$1'
endian = 'little'
EOF
  build "$1" "${CXX:-g++}" "$2" --cross-file "$work/$1.ini" -Dwerror=true \
    "-Dcpp_args=-Wconversion -Wshadow -Wno-psabi $3" -Dcpp_link_args=-static
}

cell_foreign() {
  # SSE, as the tests repeat what others have computed: the old unit rounds what it stores once more.
  programs="$offline_tests spool large_files"
  # Thousands of sessions each.
  spared='"~whichever *"'
  if is_long; then
    programs="$programs out_of_memory"
    spared=
  fi
  build_for i686 "$programs" '-D_FILE_OFFSET_BITS=64 -msse2 -mfpmath=sse' &&
    run i686 "$programs" "$spared" || return
  # The same file in a program that counts files in 32 bits.
  i686-linux-gnu-g++ -std=c++20 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror \
    -DHUB_SESSION_ASSERT=assert tests/large_files.cpp "$work"/i686/libcatch_main.a -static \
    -o "$work/small_files" && "$work/small_files" || return
  # Hostile replies take qemu longer than all the rest.
  build_for aarch64 engine '' && run aarch64 engine '"~hostile replies *"'
}

cell_packaging() {
  sh tests/copied_files.sh >"$work/copied_files.log" 2>&1 &
  copied_files=$!
  sh tests/packaging.sh || return
  wait $copied_files || { cat "$work/copied_files.log" && return 1; }
}

# A sanitizer's runtime does not survive the fork of a program with threads: in the child, locks that
# another thread held stay held. Whoever leaves tests out has to name the hidden ones as well. With
# clang++, which compiles what sanitizers need in half of g++'s time.
cell_asan() {
  build asan clang++ "$tests" -Db_sanitize=address,undefined -Db_lundef=false -Dwerror=true \
    '-Dcpp_args=-Wconversion -Wshadow -fno-sanitize-recover=undefined' && run asan "$tests" '~[fork]~[.]'
}

cell_tsan() {
  # A child that ends by a signal or by _Exit would keep what was found to itself.
  export TSAN_OPTIONS=halt_on_error=1
  if is_long; then threaded_tests="$threaded_tests hostile_replies"; fi
  # glibc's getaddrinfo_a starts threads behind ThreadSanitizer's back, which it does not survive. And
  # it keeps a signal back until the program calls something: one that came while threads began and
  # ended never got to the program's handler in 3 of 9,000 children, in none of 6,000 without it.
  # Those that come while the program waits stay: they are what shows the relay to be free of races.
  build tsan clang++ "$threaded_tests" -Db_sanitize=thread -Db_lundef=false &&
    run tsan "$threaded_tests" '~[fork]~[names]~[signals]~[.]'
}

# The examples in one file, so that the header is looked at once for all of them: first what they
# include, but for other systems' headers, then each in a namespace of its own.
examples_as_one() {
  echo '#include "hub_session.hpp"'
  grep -hE '^#include ' examples/*.cpp examples/*.hpp | grep -v 'catch_all\|process\.h' | sort -u
  for file in examples/*.cpp; do
    echo "namespace of_$(basename "$file" .cpp) {"
    sed '/^#include /d' "$file"
    echo '}'
  done
}

cell_tidy() {
  examples_as_one >"$work/examples.cpp"
  # shellcheck disable=SC2086 # one word per flag
  printf '%s\n' tests/support/sessions.cpp "$work/examples.cpp" | xargs -I FILE -P "$(nproc)" \
    clang-tidy --quiet FILE -- -std=c++20 -I. -Iexamples $libraries
}

cell_format() {
  find hub_session.hpp tests examples \( -name '*.cpp' -o -name '*.hpp' \) -exec \
    clang-format --dry-run -Werror {} +
}

# Thousands of sessions each, which take wine minutes. What is promised of the disk has tests of its own
# there.
windows_left_out='whichever *'

cell_windows() {
  install_for_windows && windows_folder "$PWD/$work/windows" || return
  windows_precompile &
  compiles=$!
  windows_compile_main && windows_beside || return
  wait $compiles || return
  windows_compile_sessions &
  compiles=$!
  windows_compile_engine || return
  wait $compiles || return
  windows_program unit sessions session platform_session engine test_kit &&
    windows_program spool sessions spool && windows_program windows sessions windows ||
    return
  echo "Left out: $windows_left_out, and what stands in the tests under #if, each with its reason."
  windows_run windows || return
  if [ -n "${HTTPLIB_DIR:-}" ]; then
    windows_compile_loopback && windows_program loopback loopback && windows_run loopback || return
  else
    echo "Left out: the tests over loopback, as HTTPLIB_DIR names no folder of upstream's httplib.h."
  fi
  windows_run_on_console windows '[console]' || return
  windows_run spool "~$windows_left_out" &
  spool=$!
  windows_run unit "~$windows_left_out" || return
  wait $spool
}

# What failed in a cell, by the words of Catch2, Meson, compilers, sanitizers and the scripts, in a few
# lines that begin as those of tests/run.sh do.
failure_of() {
  grep -aE -A 1 'error: |ERROR: |FAILED|SUMMARY: |WARNING: Thread|TIMEOUT|failed' "$work/$1.log" |
    grep -av '^--$' | head -n 3 | sed "s|^|FAILED: $1: |" | cut -c 1-200
}

# Runs a cell, with its log beside its build, and says how it went and how long it took.
play() {
  log=$work/$1.log
  began=$(date +%s)
  result=passed
  "cell_$(printf '%s' "$1" | tr + x)" >"$log" 2>&1 || result=failed
  took=$(($(date +%s) - began))
  echo "$1: $result in $took s"
  times="$times$took s  $1
"
  if [ "$result" = failed ]; then
    tail -n 60 "$log" >&2
    failed=$((failed + 1))
    failures="${failures}FAILED: $1, all of it is in $log
$(failure_of "$1")
  again: sh tests/matrix.sh$long_form $1
"
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

long_form=
if [ "${1:-}" = --long ]; then
  long_form=' --long'
  shift
fi
is_long() {
  [ -n "$long_form" ]
}

passed=0
failed=0
times=
failures=
if [ $# -eq 0 ]; then
  set -- clang++ libc++ switches foreign windows packaging asan tsan tidy format
  if is_long; then set -- g++ "$@"; fi
fi
for cell in "$@"; do
  case $cell in
    g++ | clang++ | libc++ | switches | foreign | packaging) play "$cell" ;;
    asan | tsan | tidy | format | windows) play "$cell" ;;
    *) give_up "There is no cell $cell; see the top of tests/matrix.sh." ;;
  esac
done
echo 'What took longest:'
printf '%s' "$times" | sort -rn
printf '%s' "$failures"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
