#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/browser.sh [STEP...]
#
# Shows local_hub's page to a real browser: installs what is missing (Debian, Ubuntu; Chromium
# included), builds local_hub and train, and runs tests/browser.py: these functions of it, or all. The
# last line is `N passed, N failed`. Where Chromium cannot be had, it says so and passes none.
# BUILD_DIR names another build folder than build/; SCREENSHOTS a folder for pictures.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh

remove_temporary_build_at_exit

install_missing || give_up 'local_hub cannot be built without these packages.'
if ! install_browser; then
  say 'Skipped: there is no browser.'
  echo '0 passed, 0 failed'
  exit 0
fi

choose_build_folder || give_up 'There is no folder to build in.'
can_be_used_again || set_up_anew || give_up 'meson setup failed; see above.'
meson compile -C "$build" train local_hub >&2 || give_up 'The build failed; see above.'
forget_environment
python3 tests/browser.py "$build/local_hub" "$build/train" "$@"
