// SPDX-License-Identifier: MIT
//
// One seed: a program that trains, is killed and started again, against a HUB that fails. First
// there are faults; then they stop, and everything must complete.
//
// Rules: whatever happens is rolled, in an order that the seed alone decides. Each call of the
// program is told to the referee, and after each the rules are checked.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "../../hub_session.hpp"
#include "course.hpp"
#include "dice.hpp"
#include "files.hpp"
#include "metrics.hpp"
#include "plan.hpp"
#include "referee.hpp"
#include "rules.hpp"
#include "trace.hpp"

namespace simulate {

using hub::testing::fault;

class training {
 public:
  training(std::uint64_t seed, const fs::path& folder, bool aloud)
      : seed_(seed), trace_(aloud), rolls_(seed), files_(folder) {}

  course run() {
    course out;
    out.broken = first_broken_rule(world_, session_, [this] { play(); });
    out.hash = trace_.hash();
    out.sessions = sessions_;
    out.epochs = told_;
    out.requests = referee_.requests();
    out.steps = world_.time.steps();
    out.simulated = now() - beginning;
    return out;
  }

 private:
  time_point now() const { return world_.time.now(); }

  void play() {
    set_up();
    start_session();
    while (epoch_ < plan_.epochs) train_epoch();
    if (faulty_) end_under_faults();
    if (session_) end_training();
    session_.reset();
    rules::no_snapshot_is_left_behind(files_.leftovers());
  }

  // A call of the program, told to the referee before: it returns at once.
  template <class Call>
  void call(Call&& callback) {
    const time_point before = now();
    callback(*session_);
    rules::training_is_not_held_up(now() - before);
    referee_.rethrow();
  }

  // The same for a call that lets time pass, up to a deadline.
  template <class Call>
  hub::delivery blocking_call(duration deadline, Call&& callback) {
    const time_point before = now();
    const hub::delivery said = callback(*session_);
    rules::deadline_is_kept(now() - before, deadline);
    referee_.check_delivery(said);
    return said;
  }

  void advance(duration by) {
    world_.advance(by);
    referee_.rethrow();
  }

  // ---- before it begins ------------------------------------------------------------------------

  void set_up() {
    plan_ = roll_plan(rolls_);
    hub_rolls_ = dice(rolls_.next());
    options_ = world_.options();
    roll_options(options_, rolls_);
    options_.temp_folder = files_.folder();
    options_.log = [this](hub::log_level level, std::string_view text) { heard(level, text); };
    world_.hub.keep_requests = false;
    model_id_ = referee_.model_id =
        world_.hub.add_model({.shape = rolls_.percent(50) ? hub::testing::reply_shape::flat
                                                          : hub::testing::reply_shape::nested});
    referee_.content_refusal = rolls_.pick<int>({400, 413, 422});
    if (rolls_.percent(10)) referee_.metrics_bytes_max = 200 + rolls_.below(std::uint64_t{3000});
    referee_.upload_answered = [this] { files_.finish(plan_.file_bytes_max, hub_rolls_); };
    world_.hub.on_half_upload = [this] { touch_upload(); };
    choose_credentials();
    trace_.say(now(), plan_.epochs, " epochs of ", seconds(plan_.epoch_min), " to ",
               seconds(plan_.epoch_max), " s, faults until epoch ", plan_.calm_from, ", snapshot ",
               options_.snapshot == hub::snapshot::copy ? "copy" : "none", ", rates ",
               seconds(options_.rate_limits.metrics), ", ",
               seconds(options_.rate_limits.checkpoint), ", ",
               seconds(options_.rate_limits.heartbeat), " s");
    if (plan_.calm_from > 0 || plan_.hard_end) begin_faults();
  }

  void choose_credentials() {
    const std::string key = fake_hub::api_key;
    switch (rolls_.below(4)) {
      case 0: identifier_ = model_id_; return;
      case 1:
        identifier_ = key + "_" + model_id_;
        options_.credentials.api_key.clear();
        return;
      case 2:
        identifier_ = std::string(fake_hub::web_root) + "/models/" + model_id_ + "?tab=1";
        return;
      default:
        identifier_ = model_id_;
        options_.credentials.id_token = referee_.secret = "a-secret-id-token";
        world_.hub.add_token(referee_.secret);
    }
  }

  // ---- faults ----------------------------------------------------------------------------------

  void begin_faults() {
    faulty_ = referee_.faulty = true;
    world_.time.add({"trouble", [this] { return make_trouble(); }});
  }

  void stop_faults() {
    trace_.say(now(), "the faults stop");
    faulty_ = referee_.faulty = false;
    world_.hub.no_more_faults();
    world_.hub.latency = hub_rolls_.pick<duration>({0ms, 20ms, 500ms});
    world_.hub.latency_per_upload_byte = hub_rolls_.pick<duration>({0ns, 1us, 100us});
    calm_since_ = now();
  }

  // Something goes wrong every now and then, between the steps of the lanes.
  time_point make_trouble() {
    if (!faulty_) return hub::never;
    fake_hub& hub = world_.hub;
    dice& rolls = hub_rolls_;
    switch (rolls.below(10)) {
      case 0: {
        const auto longest = rolls.pick<duration>({30s, 10min, 2h});
        const duration lasts = rolls.between(1s, longest);
        trace_.say(now(), "an outage of ", seconds(lasts), " s");
        hub.outage(0s, lasts);
        break;
      }
      case 1: {
        const fault next = roll_fault();
        hub.fail_next(next, 1 + rolls.below(std::uint64_t{6}));
        break;
      }
      case 2: {
        const auto which =
            rolls.pick<endpoint>({endpoint::heartbeat, endpoint::metrics, endpoint::upload});
        const fault next = roll_fault();
        hub.fail_next(which, next, 1 + rolls.below(std::uint64_t{6}));
        break;
      }
      case 3: {
        const auto longest = rolls.pick<duration>({100ms, 2s, 40s});
        hub.latency = rolls.between(0s, longest);
        break;
      }
      case 4: {
        const auto longest = rolls.pick<duration>({1us, 1ms, 30ms});
        hub.latency_per_upload_byte = rolls.between(0ns, longest);
        break;
      }
      case 5: world_.time.jump_wall_clock(rolls.between(0s, 48h) - 24h); break;
      case 6: change_file("last.pt", {change::overwrite, change::replace, change::remove}); break;
      default: {
        const std::uint64_t seed = rolls.next();
        hub.fail_randomly(plan_.faults * static_cast<double>(rolls.below(100)) / 1e4, seed);
      }
    }
    return now() + rolls.between(plan_.epoch_min / 4, plan_.epoch_max * 8);
  }

  fault roll_fault() {
    dice& rolls = hub_rolls_;
    fault out{hub::testing::all_faults[rolls.below(hub::testing::all_faults.size())]};
    out.status = rolls.pick<int>({301, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 504});
    out.retry_after = rolls.pick<const char*>(
        {"", "0", "2", "40", "600", "3600", "99999999999999999999", "Thu, 01 Jan 2026 00:00:30 GMT",
         "Thu, 01 Jan 2026 03:04:05 GMT", "Fri, 31 Dec 9999 23:59:60 GMT", "Thu, 32 Foo 2026", "-1",
         "1e9", "1.5", " 7", "soon\x7f"});
    trace_.say(now(), "fault ", static_cast<int>(out.kind), " with status ", out.status);
    return out;
  }

  void change_file(const std::string& name, std::initializer_list<change> among) {
    const change how = hub_rolls_.pick<change>(among);
    trace_.say(now(), name, " changes (", static_cast<int>(how), ")");
    files_.apply(name, how, plan_.file_bytes_max, hub_rolls_);
  }

  // In the middle of an upload. Even without faults the final model may be overwritten, but less
  // often than would make the session give up.
  void touch_upload() {
    if (!hub_rolls_.percent(plan_.touches)) return;
    if (faulty_) {
      using enum change;
      change_file(hub_rolls_.percent(70) ? "last.pt" : "best.pt",
                  {overwrite, overwrite, replace, truncate, grow, remove});
    } else if (ending_ && ++calm_touches_ < 4) {
      change_file("best.pt", {change::overwrite, change::truncate, change::grow});
    }
  }

  // ---- the program -----------------------------------------------------------------------------

  // A program that cannot start is started again by whoever wants it to run.
  void start_session() {
    for (int tries = 0;; ++tries) {
      const time_point before = now();
      try {
        session_ = std::make_unique<session_type>(identifier_, options_, hub_transport(referee_),
                                                  hub::testing::virtual_clock(world_.time),
                                                  hub::testing::virtual_sleeper(world_.time));
        referee_.session_begins(session_.get(), options_);
        ++sessions_;
        trace_.say(now(), "a session begins");
        return;
      } catch (const hub::session_error& why) {
        trace_.say(now(), "no session: ", why.what());
        referee_.check_words(why.what());
        // Where HUB has the final model already, and only there, nothing is left to do.
        const bool trained = why.code() == errc::already_trained;
        rules::require(!trained || world_.hub.model(model_id_).final_model(),
                       "only a trained model is refused as trained");
        if (trained) return;
      }
      rules::deadline_is_kept(now() - before, options_.limits.start_deadline);
      if (tries > 10 && faulty_) stop_faults();
      rules::require(tries < 20, "a session starts where nothing fails");
      advance(rolls_.between(1s, 10min));
    }
  }

  void kill_session() {
    if (rolls_.percent(70)) advance(rolls_.between(0s, plan_.epoch_max / 2));
    referee_.check_standing();
    trace_.say(now(), "the program dies");
    const duration shutdown = options_.limits.shutdown_deadline;
    const bool good = good_times() && referee_.flush_time(world_.hub.latency) < shutdown;
    const time_point before = now();
    referee_.flushes_metrics();
    referee_.flushes_uploads();
    session_.reset();
    referee_.session_dies();
    rules::deadline_is_kept(now() - before, shutdown);
    referee_.check_hub_after_kill(values_of_version(), good);
  }

  // Whether nothing has failed for so long that nothing of it is left on the way.
  bool good_times() const {
    return !faulty_ && now() - calm_since_ > 2min && !plan_.poison &&
           referee_.metrics_bytes_max == SIZE_MAX;
  }

  void train_epoch() {
    if (faulty_ && epoch_ >= plan_.calm_from && !plan_.hard_end) stop_faults();
    if (rolls_.percent(20)) pretrain();
    advance(rolls_.between(plan_.epoch_min, plan_.epoch_max));
    tell(epoch_);
    if (rolls_.percent(plan_.repeats)) {
      if (rolls_.percent(50)) advance(rolls_.between(0s, plan_.epoch_max));
      tell(rolls_.percent(30) ? rolls_.below(epoch_ + 1) : epoch_);
    }
    save();
    if (rolls_.percent(plan_.nudges)) nudge();
    referee_.check_standing();
    ++epoch_;
    if (rolls_.percent(plan_.kills) && epoch_ < plan_.epochs) {
      kill_session();
      advance(rolls_.between(1s, 10min));
      start_session();
      epoch_ -= rolls_.below(std::min(3, epoch_ + 1));  // it goes on from its last checkpoint
    }
  }

  void pretrain() {
    trace_.say(now(), "on_pretrain_routine_end");
    referee_.train_starts();
    call([](session_type& session) { session.on_pretrain_routine_end(); });
  }

  void tell(int epoch) {
    ++version_;
    const metric_list values = values_of(version_);
    trace_.say(now(), "epoch ", epoch, " is told, version ", version_);
    referee_.train_starts();
    referee_.check_standing();
    call([&](session_type& session) { session.on_fit_epoch_end(epoch, values); });
    referee_.told(epoch, version_, hub::epoch_record(values).size_bytes());
    ++told_;
  }

  // Poison is among the faults.
  metric_list values_of(std::uint64_t version) {
    const bool poison = plan_.poison && dice(seed_ + version).percent(4);
    return metrics_of(seed_, version, plan_.metrics, poison);
  }
  std::function<metric_list(std::uint64_t)> values_of_version() {
    return [this](std::uint64_t version) { return values_of(version); };
  }

  void save() {
    if ((epoch_ + 1) % plan_.save_period != 0 || epoch_ <= saved_epoch_) return;
    const bool missing = faulty_ && rolls_.percent(5);
    const change how =
        missing ? change::remove : rolls_.pick<change>({change::overwrite, change::replace});
    files_.apply("last.pt", how, plan_.file_bytes_max, rolls_);
    saved_epoch_ = epoch_;  // each save has an epoch of its own
    referee_.train_starts();
    referee_.saves(epoch_, files_.hash("last.pt"));
    const bool best = rolls_.percent(30);
    trace_.say(now(), "on_model_save ", epoch_);
    call([&](session_type& session) {
      session.on_model_save(epoch_, files_.path("last.pt"), best);
    });
  }

  void nudge() {
    switch (rolls_.below(4)) {
      case 0:
        trace_.say(now(), "upload_metrics");
        referee_.flushes_metrics();
        return call([](session_type& session) { session.upload_metrics(); });
      case 1:
        trace_.say(now(), "upload_model ", epoch_);
        referee_.saves(epoch_, files_.hash("last.pt"));
        referee_.flushes_uploads();
        return call([&](session_type& session) {
          session.upload_model(epoch_, files_.path("last.pt"), false);
        });
      case 2:
        if (!rolls_.percent(10)) return;
        trace_.say(now(), "stop_heartbeat");
        referee_.stops_heartbeat();
        return call([](session_type& session) { session.stop_heartbeat(); });
      default: return flush();
    }
  }

  void flush() {
    const duration timeout = rolls_.between(0s, 1min);
    trace_.say(now(), "flush, up to ", seconds(timeout), " s");
    const bool good = good_times() && referee_.flush_time(world_.hub.latency) < timeout;
    referee_.flushes_metrics();
    referee_.flushes_uploads();
    const hub::delivery said =
        blocking_call(timeout, [&](session_type& session) { return session.flush(timeout); });
    rules::require(!good || said.epochs_queued == 0, "a flush that can deliver does");
  }

  // ---- the end ---------------------------------------------------------------------------------

  // Whatever on_train_end could not deliver, the next session of the program can.
  void end_under_faults() {
    finish();
    session_.reset();
    referee_.session_dies();
    referee_.check_hub_after_kill(values_of_version(), false);
    stop_faults();
    saved_epoch_ = -1;
    start_session();
    if (!session_) return;
    for (int epoch = 0; epoch < plan_.epochs; ++epoch) tell(epoch);
  }

  void end_training() {
    if (faulty_) stop_faults();
    const hub::session_status before = session_->status();
    const hub::delivery said = finish();
    const hub::session_status after = session_->status();
    if (!plan_.final_file) rules::last_checkpoint_is_tried_at_the_end(before, after);
    const bool may_miss = plan_.final_missing || referee_.set_aside() > 0 ||
                          (!plan_.final_file && after.checkpoints_failed > 0);
    rules::without_faults_all_completes(said, may_miss, plan_.final_file && !plan_.final_missing);
    referee_.check_hub_is_complete(values_of_version());
    stay_silent();
    if (said.final_model_delivered)
      rules::final_model_is_the_last_upload(
          true, world_.hub.model(model_id_).checkpoints.back().is_final);
  }

  // Whatever a program still calls after the end.
  void stay_silent() {
    const std::uint64_t requests = referee_.requests();
    session_->on_fit_epoch_end(plan_.epochs, values_of(++version_));
    session_->on_model_save(plan_.epochs, files_.path("last.pt"), false);
    world_.advance(3h);
    rules::nothing_follows_the_end(requests, referee_.requests());
    referee_.rethrow();
  }

  hub::delivery finish() {
    trace_.say(now(), "on_train_end");
    if (plan_.final_missing)
      files_.apply("best.pt", change::remove, 1, rolls_);
    else if (plan_.final_file)
      files_.apply("best.pt", change::replace, plan_.file_bytes_max, rolls_);
    ending_ = true;
    referee_.flushes_metrics();
    referee_.flushes_uploads();
    constexpr double map = 0.1 + 0.2;  // which takes all its digits
    referee_.ends_with(map);
    const fs::path best = plan_.final_file ? files_.path("best.pt") : fs::path();
    const hub::delivery said = blocking_call(
        options_.limits.train_end_deadline,
        [&](session_type& session) { return session.on_train_end(plan_.epochs - 1, best, map); });
    referee_.stops_heartbeat();
    return said;
  }

  // ---- what the session says -------------------------------------------------------------------

  void heard(hub::log_level level, std::string_view text) {
    referee_.watch([&] { referee_.check_words(text); });
    const std::string shown = without_folders(std::string(text));
    trace_.add(static_cast<std::uint64_t>(level));
    trace_.add(shown);
    trace_.say(now(), "log: ", shown);
  }

  // The folders' names differ from run to run.
  std::string without_folders(std::string text) const {
    const std::string folder = files_.folder().string() + "/";
    for (std::size_t at; (at = text.find(folder)) != text.npos;) text.erase(at, folder.size());
    for (std::size_t at = 0; (at = text.find("hub_session-", at)) != text.npos;)
      text.erase(at, text.find('/', at) - at + 1);
    return text;
  }

  std::uint64_t seed_;
  plan plan_;
  hub::session_options options_;
  trace trace_;
  dice rolls_;
  dice hub_rolls_{0};
  trainer_files files_;
  hub::testing::simulation world_;
  referee referee_{world_, files_, trace_};
  std::string model_id_;
  std::string identifier_;
  std::unique_ptr<session_type> session_;
  bool faulty_ = false;
  time_point calm_since_ = beginning;
  bool ending_ = false;
  int calm_touches_ = 0;
  int epoch_ = 0;
  int saved_epoch_ = -1;
  std::uint64_t version_ = 0;
  std::uint64_t told_ = 0;
  std::uint64_t sessions_ = 0;
};

}  // namespace simulate
