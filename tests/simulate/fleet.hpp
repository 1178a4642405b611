// SPDX-License-Identifier: MIT
//
// Many sessions on one HUB that goes down and comes back, and how hard they fall on it then.
//
// All sessions begin at the same moment, as one job of a cluster does, which is the worst that
// backoff can meet: without jitter their heartbeats, and all that fails at once, stay in step for
// ever. Trainers differ in how long their epochs take. What is measured is the busiest second in the
// time in which every lane comes back, which is the longest wait of the backoff, against the mean
// of that time.

#pragma once

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "../../hub_session.hpp"
#include "dice.hpp"
#include "trace.hpp"

namespace simulate {

// Requests by second.
class load {
 public:
  void count(time_point at) {
    const auto second = static_cast<std::size_t>((at - beginning) / 1s);
    if (by_second_.size() <= second) by_second_.resize(second + 1);
    ++by_second_[second];
  }

  struct window {
    std::uint64_t busiest = 0;
    double mean = 0;
    double ratio() const { return mean > 0 ? static_cast<double>(busiest) / mean : 0; }
  };
  window between(time_point from, time_point to) const {
    window out;
    std::uint64_t sum = 0;
    for (time_point at = from; at < to; at += 1s) {
      const auto second = static_cast<std::size_t>((at - beginning) / 1s);
      const std::uint64_t here = second < by_second_.size() ? by_second_[second] : 0;
      out.busiest = std::max(out.busiest, here);
      sum += here;
    }
    out.mean = static_cast<double>(sum) / seconds(to - from);
    return out;
  }

 private:
  std::vector<std::uint64_t> by_second_;
};

class fleet {
 public:
  static constexpr duration down = 1h;
  static constexpr duration window = hub::retry_options{}.delay_max;

  fleet(std::size_t size, bool jitter) : members_(size), jitter_(jitter) {
    world_.hub.keep_requests = false;
    world_.hub.on_request = [this](const hub::testing::seen_request& seen) {
      load_.count(seen.at);
    };
  }
  fleet(const fleet&) = delete;
  fleet& operator=(const fleet&) = delete;
  ~fleet() { members_.clear(); }

  // The busiest second after the return, against the mean.
  double run() {
    start();
    world_.advance(30min);
    const load::window before = load_.between(world_.time.now() - 10min, world_.time.now());
    world_.hub.outage(0s, down);
    world_.advance(down);
    const time_point back = world_.time.now();
    world_.advance(30min);
    std::printf("%zu sessions, HUB down for %.0f h, %s jitter:\n", members_.size(), hours(down),
                jitter_ ? "with" : "without");
    print("in the 10 minutes before", before);
    print("in the last 10 minutes of the outage", load_.between(back - 10min, back));
    print("in the 5 minutes after the return", load_.between(back, back + window));
    print("in the 30 minutes after the return", load_.between(back, back + 30min));
    return load_.between(back, back + window).ratio();
  }

  std::uint64_t steps() const { return world_.time.steps(); }

 private:
  struct member {
    std::string model = {};
    std::unique_ptr<hub::testing::training_session> session = {};
    duration epoch_length = {};
    int epoch = 0;
  };

  void start() {
    hub::session_options options = world_.options();
    options.retry.jitter = jitter_;
    options.log = [](hub::log_level, std::string_view) {};
    for (member& each : members_) {
      options.retry.seed = rolls_.next() | 1;
      each.model = world_.hub.add_model();
      each.session = std::make_unique<hub::testing::training_session>(
          each.model, options, hub::testing::fake_transport(world_.hub),
          hub::testing::virtual_clock(world_.time), hub::testing::virtual_sleeper(world_.time));
      each.session->on_pretrain_routine_end();
      each.epoch_length = rolls_.between(1min, 3min);
      each.epoch = -1;  // its first call comes at once and tells nothing
      world_.time.add({"training", [this, &each] { return train(each); }});
    }
    world_.hub.latency = 50ms;
  }

  time_point train(member& each) {
    if (each.epoch >= 0)
      each.session->on_fit_epoch_end(
          each.epoch, {{"train/box_loss", 1.5 / (each.epoch + 1)}, {"metrics/mAP50-95(B)", 0.42}});
    ++each.epoch;
    return world_.time.now() + each.epoch_length;
  }

  static void print(const char* when, const load::window& what) {
    std::printf("  %-38s busiest second %6" PRIu64 ", mean %7.1f, ratio %.2f\n", when, what.busiest,
                what.mean, what.ratio());
  }

  hub::testing::simulation world_;
  std::vector<member> members_;
  bool jitter_;
  dice rolls_{1};
  load load_;
};

}  // namespace simulate
