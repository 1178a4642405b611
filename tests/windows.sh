# SPDX-License-Identifier: MIT
#
# How the tests are compiled, linked and run for Windows: by Debian's mingw-w64 and under its wine. To be
# sourced behind tests/setup.sh, at the top of a checkout.

windows_compiler=x86_64-w64-mingw32-g++-posix

# windows_folder FOLDER: where all of it goes, by its full name. Of this system's headers only these two
# libraries are found.
windows_folder() {
  folder=$1
  mkdir -p "$folder/include" &&
    ln -sfn /usr/include/nlohmann /usr/include/catch2 "$folder/include"
}

install_for_windows() {
  missing=
  have $windows_compiler || missing="$missing g++-mingw-w64-x86-64-posix"
  have ld.lld || missing="$missing lld"
  have wine || missing="$missing wine wine64"
  # shellcheck disable=SC2086 # one word per package
  [ -z "$missing" ] || install_packages $missing
}

# windows_compile ARGUMENT...: as of every file for Windows, without a network.
windows_compile() {
  # shellcheck disable=SC2086 # one word per flag
  $windows_compiler -std=c++20 -O0 -Wa,-mbig-obj $warnings --param=ggc-min-heapsize=524288 \
    -idirafter "$folder/include" -I. -DHUB_SESSION_NO_HTTPLIB -DHUB_SESSION_ASSERT=assert \
    "-DHUB_SESSION_TEST_DATA=\"$PWD/tests/data\"" "$@"
}

windows_compile_main() {
  windows_compile -c tests/support/catch_main.cpp -o "$folder/catch_main.o"
}

# What they share is read once, as by meson.build: g++ takes the .gch where it is asked for the other.
windows_precompile() {
  echo "#include \"$PWD/tests/support/precompiled.hpp\"" >"$folder/precompiled.hpp"
  windows_compile -x c++-header "$folder/precompiled.hpp" -o "$folder/precompiled.hpp.gch"
}

# windows_object NAME FILE...: the files, compiled as one.
windows_object() {
  name=$1
  shift
  printf '#include "%s"\n' "$@" |
    windows_compile -include "$folder/precompiled.hpp" -x c++ - -c -o "$folder/$name.o"
}

# The tests over loopback: HTTPLIB_DIR is the folder of upstream's single-file httplib.h, as Debian's is
# a library for this system. From 0.20 on it keeps regular expressions in variables of each thread, and
# mingw-w64's g++ frees those before it destroys them, which overwrites the heap; 0.19 has none.
windows_compile_loopback() {
  printf '#include "%s"\n' tests/transport_httplib.cpp tests/connections.cpp \
    tests/session_downloads_loopback.cpp |
    $windows_compiler -std=c++20 -O0 -Wa,-mbig-obj $warnings --param=ggc-min-heapsize=524288 \
      -isystem "$HTTPLIB_DIR" -idirafter "$folder/include" -I. -DHUB_SESSION_NO_OPENSSL \
      -DHUB_SESSION_ASSERT=assert "-DHUB_SESSION_TEST_DATA=\"$PWD/tests/data\"" \
      -x c++ - -c -o "$folder/loopback.o"
}

# windows_program NAME OBJECT...: GNU's ld takes minutes for what lld links in a second, and g++ for
# Windows calls no other, so that lld is called by hand.
windows_program() {
  name=$1
  shift
  gcc=$(dirname "$($windows_compiler -print-libgcc-file-name)")
  system=$(dirname "$($windows_compiler -print-file-name=crt2.o)")
  ld.lld -m i386pep -Bstatic -o "$folder/$name.exe" "$system/crt2.o" "$gcc/crtbegin.o" -L"$gcc" \
    -L"$system" $(for object in catch_main "$@"; do echo "$folder/$object.o"; done) \
    --start-group -lstdc++ -lmingw32 -lgcc -lgcc_eh -lmoldname -lmingwex -lmsvcrt -lpthread \
    -ladvapi32 -lshell32 -luser32 -lkernel32 -lws2_32 -lcrypt32 --end-group "$gcc/crtend.o"
}

# Whose <windows.h> comes first, and with which of its macros.
windows_beside() {
  for macros in '' '#define NOMINMAX'; do
    for first in windows.h hub_session.hpp; do
      printf '%s\n' "$macros" "#include <$first>" '#include <windows.h>' \
        '#include <hub_session.hpp>' '#ifndef NOMINMAX' '#if !defined(min)' '#error' '#endif' '#endif' |
        $windows_compiler -std=c++20 -fsyntax-only -Wall -Werror -idirafter "$folder/include" -I. \
          -DHUB_SESSION_NO_HTTPLIB -x c++ - || return
    done
  done
}

windows_compile_sessions() {
  windows_object session tests/session.cpp tests/session_start.cpp tests/session_reports.cpp \
    tests/session_uploads.cpp tests/session_access.cpp tests/session_downloads.cpp &&
    windows_object spool tests/spool.cpp &&
    windows_object windows tests/windows.cpp tests/large_files.cpp &&
    windows_object sessions tests/support/sessions.cpp
}

windows_compile_engine() {
  windows_object platform_session tests/platform_session.cpp tests/fail_loop.cpp \
    tests/policies.cpp tests/secrets.cpp &&
    windows_object engine tests/vocabulary.cpp tests/engine.cpp tests/engine_metrics.cpp \
      tests/engine_uploads.cpp tests/text.cpp tests/settings_file.cpp tests/protocol.cpp \
      tests/wire.cpp &&
    windows_object test_kit tests/platform_wire.cpp tests/test_kit.cpp tests/test_platform.cpp \
      tests/hostile_input.cpp tests/machine.cpp
}

# windows_run PROGRAM [ARGUMENT...]
windows_run() {
  program=$1
  shift
  WINEPREFIX=$folder/prefix WINEDEBUG=-all wine "$folder/$program.exe" "$@" </dev/null
}

# windows_run_on_console PROGRAM TESTS [ARGUMENT...]: which no program has where nobody looks. What
# Catch2 reports goes past it, and the exit code is the program's, or 124 after five minutes.
windows_run_on_console() {
  rm -f "$folder/$1-on-console"
  (cd "$folder" && timeout -k 10 300 script -qec "WINEPREFIX='$folder/prefix' WINEDEBUG=-all \
    wine '$1.exe' '$2' -o '$1-on-console' ${3:-}" /dev/null </dev/null >/dev/null)
  set -- $? "$1"
  cat "$folder/$2-on-console"
  return "$1"
}
