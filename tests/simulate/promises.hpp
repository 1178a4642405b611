// SPDX-License-Identifier: MIT
//
// What a spool has promised to keep, on a disk that fails, of a program that dies.
//
// Rules: what a session promises is worked out from what was called and when, and from spool_sync's
// words.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../../hub_session.hpp"
#include "dice.hpp"
#include "trace.hpp"

namespace simulate {

// One telling of an epoch, and how much of a promise there is that it is not lost.
struct telling {
  std::uint64_t version = 0;
  std::uint64_t start = 0;  // the program's, counted from 1
  time_point at = {};
  bool written = false;  // the spool took it: the death of the program leaves it
  bool forced = false;   // and it was forced to the disk: power may fail
};

class spool_promises {
 public:
  explicit spool_promises(const hub::spool_options& options) : options_(options) {}

  std::shared_ptr<hub::testing::crash_disk> disk = std::make_shared<hub::testing::crash_disk>();
  std::map<int, std::vector<telling>> epochs;

  std::uint64_t starts() const { return starts_; }
  bool disk_failed() const { return disk_failed_; }  // ever
  bool disk_fails() const { return trouble_until_ == hub::never; }

  void program_starts() { ++starts_; }
  void told(int epoch, std::uint64_t version, time_point now, bool written) {
    epochs[epoch].push_back({version, starts_, now, written});
  }

  void break_disk(time_point now, dice& rolls) {
    disk_failed_ = true;
    if (rolls.percent(50))
      disk->broken = true;
    else
      disk->bytes_max = disk->bytes() + rolls.below(std::uint64_t{400});
    if (!trouble_since_) trouble_since_ = now;
    trouble_until_ = hub::never;
  }
  void mend_disk(time_point now) {
    if (!disk_fails()) return;
    disk->broken = false;
    disk->bytes_max = std::numeric_limits<std::uintmax_t>::max();
    trouble_until_ = now;
  }

  void program_dies(time_point now) { died_at_ = now; }

  // What is left of what was promised.
  void settle(hub::testing::crash_kind kind, time_point now) {
    for (auto& [number, tellings] : epochs) settle(tellings, kind);
    trouble_since_ = disk_fails() ? std::optional(now) : std::nullopt;
  }
  void settle(std::vector<telling>& what, hub::testing::crash_kind kind) const {
    const bool power = kind == hub::testing::crash_kind::power;
    for (telling& each : what) each.forced = each.forced || was_forced(each);
    std::erase_if(what, [&](const telling& each) { return power ? !each.forced : !each.written; });
  }

  // A session that begins or ends in order forces all to the disk that it finds or has written.
  void force_all() {
    for (auto& [number, tellings] : epochs) force_all(tellings);
  }
  void force_all(std::vector<telling>& what) const {
    if (options_.sync == hub::spool_sync::none || disk_fails()) return;
    for (telling& each : what) each.forced = each.written;
  }

  // What the last session was told is at the server, whether the spool took it or not.
  void all_arrived() {
    for (auto& [number, tellings] : epochs)
      for (telling& each : tellings) each.written = each.written || each.start == starts_;
  }

  // The last value of an epoch that must be at the server in the end.
  static std::uint64_t least(const std::vector<telling>& tellings) {
    std::uint64_t out = 0;
    for (const telling& each : tellings)
      if (each.written) out = each.version;
    return out;
  }

 private:
  // Whether the session that wrote it has forced it to the disk before it died.
  bool was_forced(const telling& what) const {
    if (!what.written || options_.sync == hub::spool_sync::none) return false;
    if (options_.sync == hub::spool_sync::each) return true;
    const time_point due = what.at + options_.sync_interval;
    const bool before_trouble = !trouble_since_ || due < *trouble_since_;
    const bool after_trouble = !disk_fails() && what.at > trouble_until_;
    return what.start == starts_ && due < died_at_ && (before_trouble || after_trouble);
  }

  const hub::spool_options& options_;
  std::uint64_t starts_ = 0;
  std::optional<time_point> trouble_since_;
  time_point trouble_until_ = beginning;  // hub::never while it lasts
  time_point died_at_ = {};
  bool disk_failed_ = false;
};

}  // namespace simulate
