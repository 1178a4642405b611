// SPDX-License-Identifier: MIT
//
// How fast virtual time passes: no files, no faults, no rules, one thread. A busy machine lends a
// core in turns, so speeds are given for a second of the processor.

#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>
#include <utility>

#include "../../hub_session.hpp"
#include "trace.hpp"

namespace simulate {

class stopwatch {
 public:
  double wall() const { return std::max(seconds(std::chrono::steady_clock::now() - began_), 1e-9); }
  double processor() const {
    return std::max(static_cast<double>(std::clock() - ticks_) / CLOCKS_PER_SEC, 1e-9);
  }

 private:
  time_point began_ = std::chrono::steady_clock::now();
  std::clock_t ticks_ = std::clock();
};

// 100 epochs against the fake HUB, which reads every request.
inline hub::testing::timeline train_plainly(std::uint64_t seed) {
  constexpr int epochs = 100;
  hub::testing::simulation world;
  world.hub.keep_requests = false;
  hub::session_options options = world.options();
  options.retry.seed = seed + 1;
  auto session = world.start(world.hub.add_model(), std::move(options));
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < epochs; ++epoch) {
    world.advance(20s);
    session.on_fit_epoch_end(epoch, {{"train/box_loss", 1.5 / (epoch + 1)},
                                     {"train/cls_loss", 0.5 / (epoch + 1)},
                                     {"metrics/mAP50-95(B)", 0.42}});
  }
  if (!session.on_train_end(epochs - 1, {}, 0.42).complete())
    throw std::runtime_error("a training without faults is not complete");
  return world.time;
}

// Answers at once, so that what is measured is the session and not the HUB that it is tested with.
class instant_transport {
 public:
  hub::reply send(const hub::request& what) {
    const bool begins = what.method == "GET" || what.url.ends_with("/auth");
    return {.status = 200, .body = begins ? model : "{}"};
  }
  void cancel() noexcept {}

 private:
  static inline const std::string model =
      R"({"success": true, "data": {"data": "coco8.yaml", "cfg": "a.yaml"}})";
};

inline std::uint64_t step_plainly(int epochs) {
  hub::testing::simulation world;
  hub::basic_training_session<instant_transport, hub::testing::virtual_clock,
                              hub::testing::virtual_sleeper>
      session(std::string(hub::hub_v1_wire::model_id_length, 'm'), world.options(),
              instant_transport(), hub::testing::virtual_clock(world.time),
              hub::testing::virtual_sleeper(world.time));
  for (int epoch = 0; epoch < epochs; ++epoch) {
    world.advance(20s);
    session.on_fit_epoch_end(epoch, {{"train/box_loss", 1.5}});
  }
  return world.time.steps();
}

inline void print_speed() {
  constexpr int sessions = 2'000;
  const stopwatch all;
  std::uint64_t steps = 0;
  duration simulated = {};
  for (std::uint64_t i = 0; i < sessions; ++i) {
    const hub::testing::timeline time = train_plainly(i);
    steps += time.steps();
    simulated += time.now() - beginning;
  }
  const double core = all.processor();
  std::printf(
      "the fake HUB: %.0f sessions of 100 epochs/s, %.0f lane steps/s, "
      "%.0f simulated hours/s\n",
      sessions / core, static_cast<double>(steps) / core, hours(simulated) / core);
  const stopwatch alone;
  const std::uint64_t more = step_plainly(500'000);
  std::printf("a transport that answers at once: %.0f lane steps/s\n",
              static_cast<double>(more) / alone.processor());
}

}  // namespace simulate
