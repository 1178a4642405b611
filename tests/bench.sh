#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/bench.sh [--quick] [--keep] [--pairs N] [ROW...]
#
# Installs what is missing (Debian, Ubuntu), builds with -O2, and prints a Markdown table: each
# measurement beside its goal. Without a ROW it prints all of them, which takes some minutes on a
# machine that has nothing else to do; `sh tests/bench.sh upload` measures that row again.
#   upload tls memory epochs spool save backlog start hub compile parts
# --quick is a fraction of the work, once: it shows that the measurements work, not what they
# measure. --keep appends the figures to tests/bench/history.tsv. BENCH_FOLDER names a folder for the
# files to upload (else the build folder), for example on a file system that can reflink. BUILD_DIR names
# another build folder than build-bench/.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh

remove_temporary_build_at_exit

BUILD_DIR=${BUILD_DIR:-build-bench}
also_needed='curl'
set_up='-Dtests=false -Dexamples=false -Dbenchmarks=true -Doptimization=2 -Ddebug=false'
# shellcheck disable=SC2086 # one word per option
install_missing $set_up && choose_build_folder && configure $set_up &&
  meson compile -C "$build" >&2 || exit 1
forget_environment
python3 tests/bench/table.py --build "$build" "$@"
