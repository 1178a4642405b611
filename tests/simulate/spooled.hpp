// SPDX-License-Identifier: MIT
//
// One seed with a spool: a program that dies at any operation on the spool's disk, by itself or with
// the power, and is started again, while HUB and the disk fail. Then nothing fails any more, and
// every epoch that was promised must be on HUB with its last value.
//
// Rules: whatever happens is rolled, in an order that the seed alone decides.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../../hub_session.hpp"
#include "course.hpp"
#include "dice.hpp"
#include "files.hpp"
#include "metrics.hpp"
#include "plan.hpp"
#include "promises.hpp"
#include "rules.hpp"
#include "trace.hpp"

namespace simulate {

class spooled_training {
 public:
  spooled_training(std::uint64_t seed, const fs::path& folder, bool aloud)
      : seed_(seed), trace_(aloud), rolls_(seed), files_(folder) {}

  course run() {
    course out;
    out.broken = first_broken_rule(world_, session_, [this] { play(); });
    out.hash = trace_.hash();
    out.sessions = sessions_;
    out.epochs = version_;
    out.requests = requests_;
    out.steps = world_.time.steps();
    out.simulated = now() - beginning;
    return out;
  }

 private:
  time_point now() const { return world_.time.now(); }
  hub::testing::crash_disk& disk() { return *promises_.disk; }

  void play() {
    set_up();
    start_session();
    while (epoch_ < plan_.epochs) train_epoch();
    stop_faults();
    if (rolls_.percent(30)) die_at_the_end();
    if (session_) end_training();
    check_end();
  }

  // ---- before it begins ------------------------------------------------------------------------

  void set_up() {
    plan_ = roll_plan(rolls_);
    plan_.epochs = std::min(plan_.epochs, 80);
    kills_ = rolls_.pick<unsigned>({0, 5, 15, 40});
    options_ = world_.options();
    roll_options(options_, rolls_);
    options_.limits.metrics_queue_bytes_max = hub::limit_options().metrics_queue_bytes_max;
    options_.temp_folder = files_.folder();
    options_.spool.directory = "spool";
    options_.spool.storage = promises_.disk;
    options_.spool.sync = rolls_.pick<hub::spool_sync>(
        {hub::spool_sync::each, hub::spool_sync::interval, hub::spool_sync::none});
    options_.spool.sync_interval = rolls_.pick<duration>({100ms, 1s, 1s, 20s});
    options_.spool.rewrite_bytes_min = rolls_.pick<std::uintmax_t>({0, 500, 5'000, hub::mebibyte});
    if (rolls_.percent(15)) options_.spool.bytes_max = 5'000 + rolls_.below(std::uint64_t{20'000});
    options_.spool.offline = hub::offline_start::allow;
    options_.spool.train_args = hub::train_args();
    options_.log = [this](hub::log_level, std::string_view text) {
      trace_.say(now(), "log: ", text);
      secret_is_out_ = secret_is_out_ || holds_secret(text);
    };
    world_.hub.keep_requests = false;
    world_.hub.on_request = [this](const hub::testing::seen_request& seen) { count(seen); };
    model_id_ = world_.hub.add_model();
    faulty_ = plan_.calm_from > 0;
  }

  void count(const hub::testing::seen_request& seen) {
    ++requests_;
    if (seen.to == hub::testing::endpoint::metrics) ++metrics_requests_;
    trace_.add(static_cast<std::uint64_t>(seen.at.time_since_epoch().count()));
    trace_.add(seen.path);
  }

  // ---- what fails ------------------------------------------------------------------------------

  void make_trouble() {
    switch (rolls_.below(5)) {
      case 0: {
        const auto longest = rolls_.pick<duration>({1min, 1h, 24h});
        return world_.hub.outage(0s, rolls_.between(1s, longest));
      }
      case 1: {
        const std::uint64_t seed = rolls_.next();
        return world_.hub.fail_randomly(rolls_.below(80) / 100.0, seed);
      }
      case 2:
        world_.hub.latency = rolls_.pick<duration>({0ms, 20ms, 3s});
        world_.hub.latency_per_upload_byte = rolls_.pick<duration>({0ns, 1us, 1ms});
        return;
      case 3: return break_disk();
      default: return mend_disk();
    }
  }

  void break_disk() {
    trace_.say(now(), "the disk is full or broken");
    may_go_back_ = true;
    promises_.break_disk(now(), rolls_);
  }

  void mend_disk() {
    if (promises_.disk_fails()) trace_.say(now(), "the disk works again");
    promises_.mend_disk(now());
  }

  void stop_faults() {
    if (!std::exchange(faulty_, false)) return;
    trace_.say(now(), "the faults stop");
    world_.hub.no_more_faults();
    world_.hub.latency = 20ms;
    world_.hub.latency_per_upload_byte = {};
    mend_disk();
  }

  // ---- death -----------------------------------------------------------------------------------

  // At one of the next operations on the disk, whoever makes it.
  void doom() {
    disk().die_at(rolls_.below(std::uint64_t{30}), [this] {
      world_.hub.unreachable = true;
      promises_.program_dies(now());
      trace_.say(now(), "the program dies");
    });
  }

  // What the next process finds is what the last one left, or what was forced to the disk of it.
  void crash() {
    using hub::testing::crash_kind;
    const auto kind = rolls_.percent(60) ? crash_kind::process : crash_kind::power;
    if (!disk().dead()) promises_.program_dies(now());
    trace_.say(now(), kind == crash_kind::power ? "the power is gone" : "the process is gone");
    world_.crash(session_, disk(), kind, rolls_.below(std::uint64_t{4}));
    world_.hub.unreachable = false;
    promises_.settle(kind, now());
    rules::require(!secret_is_out_ && !disk_holds_secret(), "no log line or file holds the key");
    check_hub_never_goes_back(kind);
    rules::no_snapshot_is_left_behind(files_.leftovers());
  }

  static bool holds_secret(std::string_view text) {
    return text.find(hub::testing::fake_hub::api_key) != text.npos;
  }
  bool disk_holds_secret() {
    const auto& files = disk().folder(fs::absolute(options_.spool.directory) / model_id_);
    return std::any_of(files.begin(), files.end(),
                       [](const auto& file) { return holds_secret(file.second); });
  }

  // ---- the program -----------------------------------------------------------------------------

  // Started again for as long as it cannot start, or dies of it.
  void start_session() {
    for (int tries = 0; tries < 30; ++tries) {
      if (tries > 10) stop_faults();
      if (faulty_ && rolls_.percent(kills_)) doom();
      promises_.program_starts();
      try {
        session_.reset(new hub::testing::training_session(world_.start(model_id_, options_)));
        ++sessions_;
        if (!disk().dead()) promises_.force_all();
        trace_.say(now(), "a session begins");
      } catch (const hub::session_error& why) {
        trace_.say(now(), "no session: ", why.what());
        if (!disk().dead() && why.code() == hub::errc::already_trained) return;
      }
      if (disk().dead())
        crash();
      else if (session_)
        return begin_training();
      world_.advance(rolls_.between(1s, 10min));
    }
    throw broken("a session starts where nothing fails");
  }

  void begin_training() {
    constexpr std::uint64_t not_soon = std::uint64_t{1} << 60;
    disk().die_at(not_soon);
    session_->on_pretrain_routine_end();
  }

  void train_epoch() {
    if (faulty_ && epoch_ >= plan_.calm_from) stop_faults();
    if (faulty_ && rolls_.percent(20)) make_trouble();
    const bool dies = rolls_.percent(kills_);
    if (dies) doom();
    world_.advance(rolls_.between(plan_.epoch_min, plan_.epoch_max));
    tell(epoch_);
    if (rolls_.percent(plan_.repeats)) tell(rolls_.below(epoch_ + 1));
    if ((epoch_ + 1) % plan_.save_period == 0) save();
    if (rolls_.percent(30)) world_.advance(rolls_.between(0s, plan_.epoch_max));
    // A disk that fails may not let a rewritten journal go.
    rules::require(
        promises_.disk_failed() || disk().bytes() <= options_.spool.bytes_max + unbounded_bytes,
        "the spool keeps to its bound");
    ++epoch_;
    if (dies) {
      crash();
      world_.advance(rolls_.between(1s, 10min));
      start_session();
      epoch_ -= rolls_.below(std::min(3, epoch_ + 1));  // it goes on from its last checkpoint
    } else if (rolls_.percent(3)) {
      session_.reset();
      promises_.force_all();
      start_session();
    }
  }

  void tell(int epoch) {
    const metric_list values = metrics_of(seed_, ++version_, plan_.metrics, false);
    const std::size_t dropped = session_->status().spool_dropped;
    const time_point before = now();
    session_->on_fit_epoch_end(epoch, values);
    rules::training_is_not_held_up(now() - before);
    const bool written = !disk().dead() && session_->status().spool_dropped == dropped;
    trace_.say(now(), "epoch ", epoch, " is told, version ", version_, written ? "" : ", in vain");
    promises_.told(epoch, version_, now(), written);
  }

  void save() {
    files_.apply("last.pt", rolls_.pick<change>({change::overwrite, change::replace}),
                 plan_.file_bytes_max, rolls_);
    session_->on_model_save(epoch_, files_.path("last.pt"), rolls_.percent(30));
  }

  // ---- the end ---------------------------------------------------------------------------------

  hub::delivery finish() {
    trace_.say(now(), "on_train_end");
    files_.apply("best.pt", change::replace, plan_.file_bytes_max, rolls_);
    return session_->on_train_end(plan_.epochs - 1, files_.path("best.pt"), 0.5);
  }

  // Where HUB has the final model by then, no session begins any more.
  void die_at_the_end() {
    doom();
    finish();
    crash();
    start_session();
  }

  void end_training() {
    const hub::delivery said = finish();
    rules::without_faults_all_completes(said, false, true);
    promises_.all_arrived();
    session_.reset();
  }

  void check_end() {
    const hub::testing::hub_model& model = world_.hub.model(model_id_);
    for (const auto& [number, tellings] : promises_.epochs) {
      const auto found = model.metrics.find(number);
      const std::uint64_t there = found == model.metrics.end() ? 0 : version_of(found->second);
      rules::promised_value_is_on_hub(there, spool_promises::least(tellings));
      if (there != 0)
        rules::values_arrive_exactly(found->second, metrics_of(seed_, there, plan_.metrics, false));
    }
    rules::require(!model.checkpoints.empty() && model.checkpoints.back().is_final,
                   "the final model is the last upload");
    for (const auto& each : model.checkpoints)
      rules::no_torn_checkpoint(
          files_.was_written_whole(each.is_final ? "best.pt" : "last.pt", each.hash));
    check_nothing_is_sent_again();
  }

  // What HUB has confirmed is struck out, so that another session would find nothing to send.
  void check_nothing_is_sent_again() {
    const std::uint64_t before = metrics_requests_;
    start_session();
    rules::require(!session_ && metrics_requests_ == before,
                   "what HUB has confirmed is not sent again");
  }

  // Power may take newer values than those that it leaves, and a disk that fails does not take the
  // note that a newer value is on HUB. Nothing else brings an older one back.
  void check_hub_never_goes_back(hub::testing::crash_kind kind) {
    if (kind == hub::testing::crash_kind::power) may_go_back_ = true;
    for (const auto& [number, values] : world_.hub.model(model_id_).metrics) {
      const std::uint64_t there = version_of(values);
      rules::require(may_go_back_ || there >= seen_on_hub_[number],
                     "no older value takes the place of a newer one");
      seen_on_hub_[number] = there;
    }
  }

  static constexpr std::uintmax_t unbounded_bytes = 1'000;  // model.json is not of the bound

  std::uint64_t seed_;
  plan plan_;
  unsigned kills_ = 0;  // in percent, of the epochs and of the starts
  hub::session_options options_;
  trace trace_;
  dice rolls_;
  trainer_files files_;
  spool_promises promises_{options_.spool};
  hub::testing::simulation world_;
  std::string model_id_;
  std::unique_ptr<hub::testing::training_session> session_;
  std::map<int, std::uint64_t> seen_on_hub_;
  bool may_go_back_ = false;
  bool secret_is_out_ = false;
  bool faulty_ = false;
  int epoch_ = 0;
  std::uint64_t version_ = 0;
  std::uint64_t sessions_ = 0;  // that began
  std::uint64_t requests_ = 0;
  std::uint64_t metrics_requests_ = 0;
};

}  // namespace simulate
