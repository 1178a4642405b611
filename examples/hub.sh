# SPDX-License-Identifier: MIT
#
# What the scripts that show something against a HUB of their own share, beside tests/setup.sh. To be
# sourced after it, at the top of the checkout.

hub=
work=

# ---- what a script checks -----------------------------------------------------------------------

passed=0
failed=0

# check WHAT COMMAND...
check() {
  what=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    echo "ok: $what"
  else
    failed=$((failed + 1))
    echo "FAILED: $what"
  fi
}

# The last lines of a script that has checked something, and its end.
end_with_counts() {
  [ "$failed" -eq 0 ] || echo "  again: sh $0"
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
}

# For what nothing can be checked without.
give_up() {
  failed=$((failed + 1))
  echo "FAILED: $*"
  end_with_counts
}

# ---- a HUB --------------------------------------------------------------------------------------

# Stops the HUB and takes away what start_hub made.
stop_hub() {
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

# Whatever ends the script from here on, stop_hub is called first.
stop_hub_at_exit() {
  trap stop_hub EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# Prints what follows the given words in the HUB's log.
hub_said() {
  sed -n "s/^local_hub: $1 //p" "$work/local_hub.log" | head -n 1
}

# Blocks until the HUB listens. A process that has ended never will; one that hangs for half a minute
# won't either.
wait_for_hub() {
  tries=0
  while url=$(hub_said 'listening on'); [ -z "$url" ]; do
    tries=$((tries + 1))
    if ! kill -0 "$hub" 2>/dev/null || [ $tries -gt 300 ]; then
      say 'local_hub did not start:'
      cat "$work/local_hub.log" >&2
      return 1
    fi
    sleep 0.1
  done
}

# Starts $build/local_hub with one model of the given name. Sets $url, $key and $model, and $work, a
# folder that goes with the HUB, whose data is in $work/data. Programs that are started from here on
# find the HUB in the environment, and a settings folder that is not the user's.
start_hub() {
  work=$(mktemp -d) || return
  key=$(head -c 4096 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c 42)
  "$build/local_hub" --host 127.0.0.1 --port 0 --data "$work/data" --api-key "$key" \
    --make-model "$1" </dev/null >"$work/local_hub.log" 2>&1 &
  hub=$!
  wait_for_hub || return
  model=$(hub_said model)
  YOLO_CONFIG_DIR=$work/settings ULTRALYTICS_HUB_API=$url
  export YOLO_CONFIG_DIR ULTRALYTICS_HUB_API
  echo "A HUB listens on $url and has one model, $model. Its page: $url/models/$model"
}

# The model's folder on the HUB's disk, or nothing where it has none yet.
files_on_hub() {
  find "$work/data" -type f -name "$1" 2>/dev/null
}

show_what_arrived() {
  echo
  echo 'What the HUB has now, in bytes:'
  find "$work/data" -type f | sort | while read -r file; do
    printf '%10d  %s\n' "$(wc -c <"$file")" "${file#"$work/data/"}"
  done
}
