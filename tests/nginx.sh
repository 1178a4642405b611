#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/nginx.sh
#
# Puts local_hub behind nginx, below a path and behind TLS: installs what is missing (Debian, Ubuntu;
# nginx and Chromium included), builds local_hub and train, and runs tests/nginx.py, whose nginx has its
# own folder, port and configuration. Where Chromium cannot be had, it says so and does without. The last
# line is `N passed, N failed`. BUILD_DIR names another build folder than build/.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh

remove_temporary_build_at_exit

PATH=$PATH:/usr/sbin
also_needed="openssl nginx"
install_missing || give_up 'local_hub cannot be put behind nginx without these packages.'
install_browser || say 'Left out: the page in a browser.'
choose_build_folder || give_up 'There is no folder to build in.'
can_be_used_again || set_up_anew || give_up 'meson setup failed; see above.'
meson compile -C "$build" train local_hub >&2 || give_up 'The build failed; see above.'
forget_environment
python3 tests/nginx.py "$build/local_hub" "$build/train"
