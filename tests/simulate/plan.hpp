// SPDX-License-Identifier: MIT
//
// Rules: what a seed decides once is here: how long the training is and how fast, how its session is
// set, how often what goes wrong. The rest is rolled as it goes.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "../../hub_session.hpp"
#include "dice.hpp"
#include "trace.hpp"

namespace simulate {

struct plan {
  int epochs = 0;
  int calm_from = 0;  // the epoch from which on nothing fails
  duration epoch_min = {};
  duration epoch_max = {};
  std::size_t metrics = 0;
  int save_period = 1;  // epochs from one checkpoint to the next
  std::uint64_t file_bytes_max = 0;
  bool final_file = true;
  bool final_missing = false;

  // In percent, of the epochs ...
  unsigned repeats = 0;  // one is told again
  unsigned nudges = 0;   // upload_metrics, upload_model, flush, stop_heartbeat
  unsigned kills = 0;    // the program dies and is started again
  // ... of the requests, at most ...
  unsigned faults = 0;
  // ... and of the uploads.
  unsigned touches = 0;   // the file is changed in the middle
  bool poison = false;    // HUB refuses some epochs for good
  bool hard_end = false;  // the faults go on through the first on_train_end
};

inline plan roll_plan(dice& rolls) {
  plan out;
  // Quick, ordinary and long epochs call for batches, for single epochs, and for beats in between.
  const auto longest = rolls.pick<duration>({2s, 30s, 30s, 10min, 1h});
  out.epoch_max = rolls.between(longest / 10, longest);
  out.epoch_min = rolls.between(out.epoch_max / 20, out.epoch_max);
  out.epochs = 1 + rolls.below(longest == 1h ? 60 : 240);
  out.calm_from = rolls.below(out.epochs + 1);
  out.metrics = static_cast<std::size_t>(rolls.below(9));
  // Every write is a file's worth of system calls, so a run has a few only.
  out.save_period = std::max(1, out.epochs / (1 + rolls.below(8)));
  out.file_bytes_max = rolls.pick<std::uint64_t>({20, 500, 500, 4000, 4000});
  if (rolls.percent(1)) out.file_bytes_max = 200 * hub::kibibyte;
  out.repeats = rolls.pick<unsigned>({0, 10, 50});
  out.nudges = rolls.pick<unsigned>({0, 2, 20});
  out.kills = rolls.pick<unsigned>({0, 0, 0, 1, 4});
  out.faults = rolls.pick<unsigned>({0, 5, 20, 50, 90});
  out.touches = rolls.pick<unsigned>({0, 20, 80});
  out.poison = rolls.percent(15);
  out.hard_end = rolls.percent(20);
  out.final_file = rolls.percent(85);
  out.final_missing = out.final_file && rolls.percent(5);
  return out;
}

inline void roll_options(hub::session_options& to, dice& rolls) {
  to.rate_limits.metrics = rolls.pick<duration>({0s, 50ms, 1s, 3s, 3s, 10s});
  to.rate_limits.checkpoint = rolls.pick<duration>({0s, 1s, 1min, 15min, 15min});
  to.rate_limits.heartbeat = rolls.pick<duration>({10s, 1min, 5min, 5min, 5min});
  to.retry.first_delay = rolls.pick<duration>({100ms, 1s, 1s});
  to.retry.delay_max = rolls.pick<duration>({30s, 5min});
  to.retry.denied_interval = rolls.pick<duration>({1min, 5min});
  to.retry.retry_after_max = rolls.pick<duration>({1min, 15min});
  to.retry.budget = rolls.pick<unsigned>({1, 5, 30, 30});
  to.retry.budget_refill = rolls.pick<duration>({5s, 30s});
  to.retry.jitter = !rolls.percent(10);
  to.retry.seed = rolls.next() | 1;
  to.limits.request_deadline = rolls.pick<duration>({5s, 30s, 30s});
  to.limits.upload_deadline = rolls.pick<duration>({1min, 1h, 1h});
  to.limits.metrics_batch_epochs_max = rolls.pick<std::size_t>({1, 3, 100, 100});
  to.limits.metrics_batch_bytes_max = rolls.pick<std::size_t>({300, 4096, 262144});
  if (rolls.percent(10)) to.limits.metrics_queue_bytes_max = 3000;
  to.limits.checkpoint_grace = rolls.pick<duration>({0s, 30s, 30s});
  to.limits.shutdown_deadline = rolls.pick<duration>({0s, 2s, 2s, 10s});
  to.snapshot = rolls.percent(50) ? hub::snapshot::copy : hub::snapshot::none;
}

}  // namespace simulate
