#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh examples/libtorch/run.sh
#
# Installs what is missing (Debian, Ubuntu; libtorch is large), builds the training of this folder and
# local_hub, tests the training, and trains against a HUB on this machine: a first run is interrupted
# when the HUB has a checkpoint of it, and a second one, in another folder, goes on from that. Both
# are in $build/libtorch. BUILD_DIR names another build folder than build/. The last line is
# `N passed, N failed`, counted in test cases and in what the two runs must have done.

unset CDPATH
cd "$(dirname "$0")/../.." || exit 1
. tests/setup.sh
. examples/hub.sh
stop_hub_at_exit

# libtorch's own CMake files give warnings to its developers.
configure_example() {
  cmake -S examples/libtorch -B "$build/libtorch" -Wno-dev >&2
}

also_needed=cmake
install_missing || give_up 'The example cannot be built without these packages.'
choose_build_folder || give_up 'There is no folder to build in.'
can_be_used_again || set_up_anew || give_up 'meson setup failed; see above.'
meson compile -C "$build" local_hub || give_up 'local_hub could not be built; see above.'

# Where libtorch is not found as it is, it is missing.
configure_example 2>/dev/null || { install_packages libtorch-dev && configure_example; } ||
  give_up 'The example cannot be built without libtorch; see above.'
cmake --build "$build/libtorch" --parallel >&2 || give_up 'The build failed; see above.'
forget_environment

# ---- the tests ----------------------------------------------------------------------------------

if "$build/libtorch/test_training" >"$build/libtorch/test.log"; then
  cases=$(sed -n 's/^All tests passed (.* in \([0-9]*\) test case.*/\1/p' \
    "$build/libtorch/test.log")
  passed=$((passed + cases))
  echo "ok: the $cases tests of the training"
else
  cat "$build/libtorch/test.log"
  give_up 'The tests of the training failed.'
fi

# ---- a training that is interrupted -------------------------------------------------------------

start_hub libtorch || give_up 'There is no HUB to train against.'

# train FOLDER [FLAG...]: into a folder of its own; reported often enough to have something to show.
train() {
  folder=$1
  shift
  exec "$build/libtorch/train" --model "${key}_$model" --out "$work/$folder" --epochs 15 --patience 5 \
    --metrics-interval 0.2 --checkpoint-interval 1 "$@"
}

train first &
trainer=$!
tries=0
while [ -z "$(files_on_hub 'epoch-*.pt')" ] && kill -0 $trainer 2>/dev/null && [ $tries -lt 600 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
kill -TERM $trainer 2>/dev/null
wait $trainer
first_status=$?
echo

# 143 is SIGTERM's: a session sends what it has and hands the signal on.
check 'the first training was interrupted, with a checkpoint on the HUB' \
  [ $first_status -eq 143 -a -n "$(files_on_hub 'epoch-*.pt')" ]

# ---- another that goes on -----------------------------------------------------------------------

(train second --resume) >"$work/second.log"
second_status=$?
cat "$work/second.log"
check 'the second training sent everything' [ $second_status -eq 0 ]
check 'the second training did not begin with the first epoch' \
  sh -c "grep '^epoch ' '$work/second.log' | head -n 1 | grep -qv '^epoch 1 '"
check 'the HUB has the best model' [ -n "$(files_on_hub best.pt)" ]
show_what_arrived

end_with_counts
