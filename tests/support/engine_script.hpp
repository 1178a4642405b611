// SPDX-License-Identifier: MIT
//
// Drives an engine by hand: the test says what the trainer does, what HUB answers and how time
// passes, and asks what goes out. Times are counted from the beginning of the test.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "../../hub_session.hpp"
#include "catch.hpp"

namespace script {

using namespace std::chrono_literals;
using hub::duration;
using hub::lane;
using hub::outcome;
using hub::verdict;

// ---- what a request may come to -------------------------------------------------------------

inline outcome delivered() { return {}; }
inline outcome failed(hub::errc code = hub::errc::server_error,
                      std::optional<duration> retry_after = {}) {
  return {verdict::retry, {code, "It failed.", 0}, retry_after, {}};
}
inline outcome denied(std::optional<duration> retry_after = {}) {
  return {verdict::denied, {hub::errc::not_authenticated, "It was denied.", 401}, retry_after, {}};
}
inline outcome refused() {
  return {verdict::rejected, {hub::errc::rejected, "It was refused.", 422}, {}, {}};
}
inline outcome file_missing() {
  return {verdict::rejected, {hub::errc::file_error, "The file is missing.", 0}, {}, {}};
}
inline outcome file_changed() {
  return {verdict::restart, {hub::errc::file_changed, "The file changed.", 0}, {}, {}};
}

// ---- what a test says and asks ---------------------------------------------------------------

// Waits that a test can name.
inline hub::session_options steady(hub::session_options options = {}) {
  options.retry.jitter = false;
  return options;
}

inline std::vector<int> from_to(int first, int last) {
  std::vector<int> out;
  for (int number = first; number <= last; ++number) out.push_back(number);
  return out;
}

inline bool says(const std::vector<hub::note>& notes, std::string_view piece) {
  return std::any_of(notes.begin(), notes.end(), [&](const hub::note& said) {
    return said.text.find(piece) != std::string::npos;
  });
}

// Whether every accepted epoch is accounted for.
inline bool adds_up(const hub::session_status& status) {
  return status.epochs_accepted ==
         status.epochs_delivered + status.epochs_queued + status.epochs_set_aside;
}

// ---- the training ---------------------------------------------------------------------------

inline std::shared_ptr<const hub::epoch_record> values(double loss) {
  return std::make_shared<const hub::epoch_record>(hub::metrics_view({{"loss", loss}}));
}

inline double loss_of(const hub::epoch_record& record) {
  double loss = 0;
  record.for_each([&](std::string_view, double value) { loss = value; });
  return loss;
}

class training {
 public:
  explicit training(const hub::session_options& options = {})
      : engine(options.rate_limits, options.retry, options.limits, options.retry.seed) {}

  hub::engine engine;

  // ---- time -----------------------------------------------------------------------------------

  hub::time_point now() const { return now_; }
  duration elapsed() const { return now_ - begin; }
  void wait(duration time) { now_ += time; }
  void wait_until(duration since_begin) {
    REQUIRE(begin + since_begin >= now_);
    now_ = begin + since_begin;
  }
  // When the lane is due, counted from the beginning; nothing where it is not.
  std::optional<duration> due(lane which) const {
    const hub::time_point when = engine.deadline(which);
    return when == hub::never ? std::nullopt : std::optional<duration>(when - begin);
  }
  // Lets time pass until the lane is due, if it is not. A script that never ends fails here.
  void wait_for(lane which) {
    REQUIRE(++waits_ < 100000);
    const hub::time_point when = engine.deadline(which);
    REQUIRE(when != hub::never);
    now_ = std::max(now_, when);
  }

  // ---- the trainer ----------------------------------------------------------------------------

  void sign_in() { engine.handle_signed_in(now_); }
  void start() { engine.handle_train_start(now_); }
  void epoch(int number, double loss = 0) { engine.handle_epoch(number, values(loss), now_); }
  void epochs(int first, int last) {
    for (int number = first; number <= last; ++number) epoch(number, number);
  }
  bool wants_checkpoint() { return engine.wants_checkpoint(now_); }
  void save(int number, std::shared_ptr<const hub::upload_copy> keep = nullptr) {
    engine.handle_checkpoint({{.epoch = number}, "last.pt", std::move(keep)}, now_);
  }
  // Ends the training with a final model.
  void end(int number) {
    engine.handle_train_end(
        hub::checkpoint{{.epoch = number, .is_final = true}, "best.pt", nullptr}, now_);
  }
  void end_without_model() { engine.handle_train_end(std::nullopt, now_); }
  void flush(lane which) { engine.handle_flush(which, now_); }

  // ---- what goes out now ----------------------------------------------------------------------

  // Whether a heartbeat goes out.
  bool beat() { return engine.poll(lane::life, now_).has_value(); }
  // The epochs that go out, in order; none where no request does.
  std::vector<int> batch() {
    std::vector<int> epochs;
    losses.clear();
    if (const auto order = engine.poll(lane::epochs, now_)) {
      for (const auto& [number, record] : std::get<hub::epochs_order>(order->content).batch) {
        epochs.push_back(number);
        losses.push_back(loss_of(*record));
      }
      REQUIRE_FALSE(epochs.empty());
    }
    return epochs;
  }
  // The upload that goes out.
  std::optional<hub::checkpoint> upload() {
    const auto order = engine.poll(lane::uploads, now_);
    if (!order) return std::nullopt;
    return std::get<hub::upload_order>(order->content).file;
  }
  // The epoch of the upload that goes out; -1 where none does.
  int uploaded_epoch() {
    const auto what = upload();
    return what ? what->fields.epoch : -1;
  }
  std::vector<double> losses;  // of the last batch

  // ---- what comes back ------------------------------------------------------------------------

  void answer(lane which, const outcome& what) {
    REQUIRE(engine.in_flight(which));
    engine.handle_outcome(which, what, now_);
  }

  // What the engine wants said since it was last asked.
  std::vector<hub::note> notes() { return engine.take_notes(); }
  // The same, counted.
  std::size_t said() { return notes().size(); }

 private:
  static constexpr hub::time_point begin = hub::time_point{} + 1000h;
  hub::time_point now_ = begin;
  int waits_ = 0;
};

}  // namespace script
