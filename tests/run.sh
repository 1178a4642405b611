#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/run.sh [ARGUMENT...]
#
# Installs what is missing (Debian, Ubuntu), builds, and runs every test. Says at its end what took
# longest and what failed; the last line is `N passed, N failed`, counted in test cases; the exit
# code is zero only if none failed. The arguments go to `meson setup`, for example
# -Dhttplib_dir=DIR, -Ddebug=true or -Db_sanitize=address,undefined. BUILD_DIR names another build
# folder than build/.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh

remove_temporary_build_at_exit

also_needed=curl
install_missing "$@" || give_up 'The tests cannot be built without these packages.'
choose_build_folder || give_up 'There is no folder to build in.'
configure "$@" || give_up 'meson setup failed; see above.'
began=$(date +%s)
meson compile -C "$build" || give_up 'The build failed; see above.'

# An old log must not be counted if meson dies before it writes a new one.
rm -f "$build/meson-logs/testlog.json"
forget_environment
# One more than there are processors, as some of them wait for sockets and children.
meson test -C "$build" --no-rebuild --print-errorlogs --num-processes $(($(nproc) + 1))
python3 tests/summary.py "$build" $? "$began"
