#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh examples/run.sh [--keep]
#
# Installs what is missing (Debian, Ubuntu), builds the examples, starts a HUB on this machine,
# trains a small model against it, prints what arrived, and stops the HUB. With --keep the HUB goes
# on and its data stays. BUILD_DIR names another build folder than build/.

keep=no
for argument in "$@"; do
  case $argument in
    --keep) keep=yes ;;
    *) echo 'usage: sh examples/run.sh [--keep]' >&2; exit 2 ;;
  esac
done

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh
. examples/hub.sh
stop_hub_at_exit

install_missing || exit 1
choose_build_folder || exit 1
# Whatever the last test run set up will do, so that the two scripts do not undo each other's work.
can_be_used_again || set_up_anew || exit 1
meson compile -C "$build" train local_hub || exit 1
forget_environment

start_hub run-sh || exit 1

# ---- a training ---------------------------------------------------------------------------------

"$build/train" --model "${key}_$model" --epochs 30 --out "$work/out" \
  --metrics-interval 0.2 --checkpoint-interval 1 --heartbeat-interval 2 --epoch-seconds 0.1
status=$?
[ $status -eq 0 ] || say "train ended with exit code $status."

# ---- what arrived -------------------------------------------------------------------------------

show_what_arrived
find "$work/data" -type f -name '*.jsonl' | sort | while read -r file; do
  printf '\nThe end of %s:\n' "${file#"$work/data/"}"
  tail -n 3 "$file" | cut -c 1-200
done
printf '\nThe end of what the HUB said:\n'
tail -n 5 "$work/local_hub.log"

if [ $keep = yes ]; then
  echo
  echo "The HUB goes on at $url, API key $key. Its data is in $work/data."
  if [ -n "$temporary_build" ]; then
    echo "Stop it and remove everything: kill $hub; rm -r $work $temporary_build"
  else
    echo "Stop it and remove its data: kill $hub; rm -r $work"
  fi
  trap - EXIT
fi
exit $status
