#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh examples/mpi/run.sh
#
# Installs what is missing (Debian, Ubuntu; Open MPI), builds the training of this folder and
# local_hub, and trains on four processes against a HUB on this machine: a first run ends when one of
# its processes is killed, and a second one goes on from the checkpoint that the HUB has. BUILD_DIR
# names another build folder than build/. The last line is `N passed, N failed`.

unset CDPATH
cd "$(dirname "$0")/../.." || exit 1
. tests/setup.sh
. examples/hub.sh
stop_hub_at_exit

install_missing || give_up 'The example cannot be built without these packages.'
have mpicxx || install_packages libopenmpi-dev openmpi-bin || give_up 'The example needs MPI.'
choose_build_folder || give_up 'There is no folder to build in.'
can_be_used_again || set_up_anew || give_up 'meson setup failed; see above.'
meson compile -C "$build" local_hub || give_up 'local_hub could not be built; see above.'
# shellcheck disable=SC2046 # flags are words
mpicxx -std=c++20 -I. examples/mpi/train.cpp -o "$build/train_mpi" \
  $(pkg-config --cflags --libs cpp-httplib openssl nlohmann_json) -pthread ||
  give_up 'The example could not be built; see above.'
forget_environment
start_hub mpi || give_up 'There is no HUB to train against.'

# Open MPI asks before it runs as root, or more processes than there are processors.
as_root=
[ "$(id -u)" -ne 0 ] || as_root=--allow-run-as-root

# train FOLDER [FLAG...]: on four processes, in the place of the shell that calls it.
train() {
  folder=$1
  shift
  # shellcheck disable=SC2086 # no word where there is none
  exec mpirun $as_root --oversubscribe -n 4 "$build/train_mpi" --model "${key}_$model" \
    --out "$work/$folder" --epochs 20 --metrics-interval 0.2 --checkpoint-interval 1 "$@"
}

# Prints the process of $1, an mpirun, that has this rank.
process_of_rank() {
  for status in /proc/[0-9]*/status; do
    grep -qs "^PPid:[[:space:]]*$1\$" "$status" || continue
    process=${status#/proc/}
    process=${process%/status}
    tr '\0' '\n' <"/proc/$process/environ" 2>/dev/null |
      grep -qx "OMPI_COMM_WORLD_RANK=$2" && echo "$process"
  done
}

# ---- a training of which a process dies ---------------------------------------------------------

train first --epoch-seconds 0.5 &
launcher=$!
tries=0
while [ -z "$(files_on_hub 'epoch-*.pt')" ] && kill -0 $launcher 2>/dev/null && [ $tries -lt 600 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
kill -9 "$(process_of_rank $launcher 3)"
wait $launcher
first_status=$?
echo
check 'the training failed when a process of it did' [ $first_status -ne 0 ]
check 'the HUB has a checkpoint of it, and no final model' \
  [ -n "$(files_on_hub 'epoch-*.pt')" -a -z "$(files_on_hub best.pt)" ]

# ---- another that goes on -----------------------------------------------------------------------

(train second --resume) >"$work/second.log" 2>&1
second_status=$?
cat "$work/second.log"
check 'the second training sent everything' [ $second_status -eq 0 ]
check 'the second training went on where the first one had been' \
  grep -q '^Going on after epoch' "$work/second.log"
check 'the HUB has the best model' [ -n "$(files_on_hub best.pt)" ]

# Four processes made a session in each run, and only one of each spoke to the HUB.
check 'the HUB was signed in to by one process of each run' \
  [ "$(grep -c 'GET /v1/models/' "$work/local_hub.log")" -eq 2 ]
show_what_arrived

end_with_counts
