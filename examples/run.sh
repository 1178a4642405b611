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

hub=
work=

clean_up() {
  if [ -n "$hub" ]; then
    kill "$hub" 2>/dev/null
    tries=0
    while kill -0 "$hub" 2>/dev/null && [ $tries -lt 100 ]; do
      tries=$((tries + 1))
      sleep 0.1
    done
    # Ten seconds are enough for requests in flight.
    kill -9 "$hub" 2>/dev/null
    wait "$hub" 2>/dev/null
  fi
  [ -z "$work" ] || rm -rf "$work"
  remove_temporary_build
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

install_missing || exit 1
choose_build_folder || exit 1
# Whatever the last test run set up will do, so that the two scripts do not undo each other's work.
can_be_used_again || set_up_anew || exit 1
meson compile -C "$build" train local_hub || exit 1
forget_environment

# ---- a HUB --------------------------------------------------------------------------------------

work=$(mktemp -d) || exit 1
key=$(head -c 4096 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c 42)

"$build/local_hub" --host 127.0.0.1 --port 0 --data "$work/data" --api-key "$key" \
  --make-model run-sh </dev/null >"$work/local_hub.log" 2>&1 &
hub=$!

# Prints what follows the given words in the HUB's log.
hub_said() {
  sed -n "s/^local_hub: $1 //p" "$work/local_hub.log" | head -n 1
}

# The HUB says so when it listens. A process that has ended never will; one that hangs for half a
# minute won't either.
tries=0
while url=$(hub_said 'listening on'); [ -z "$url" ]; do
  tries=$((tries + 1))
  if ! kill -0 "$hub" 2>/dev/null || [ $tries -gt 300 ]; then
    say 'local_hub did not start:'
    cat "$work/local_hub.log" >&2
    exit 1
  fi
  sleep 0.1
done
model=$(hub_said model)
echo "A HUB listens on $url and has one model, $model. Its page: $url/models/$model"

# ---- a training ---------------------------------------------------------------------------------

# A settings folder of its own: neither reads nor changes the user's.
YOLO_CONFIG_DIR=$work/settings ULTRALYTICS_HUB_API=$url ULTRALYTICS_HUB_WEB=$url \
  "$build/train" --model "${key}_$model" --epochs 30 --out "$work/out" \
  --metrics-interval 0.2 --checkpoint-interval 1 --heartbeat-interval 2 --epoch-seconds 0.1
status=$?
[ $status -eq 0 ] || say "train ended with exit code $status."

# ---- what arrived -------------------------------------------------------------------------------

echo
echo 'What the HUB has now, in bytes:'
find "$work/data" -type f | sort | while read -r file; do
  printf '%10d  %s\n' "$(wc -c <"$file")" "${file#"$work/data/"}"
done
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
