// SPDX-License-Identifier: MIT
//
// One seed on the Platform: a program that trains, prints and saves, that is killed and started again,
// against a Platform and a disk that fail. First there are faults; then they stop, and the run must be
// there: every epoch and every line once and in order, the final model, and the end last.
//
// Every second seed has a spool and goes on as the same run. The others begin a new run whenever they
// die.
//
// Rules: whatever happens is rolled, in an order that the seed alone decides.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
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
#include "platform_referee.hpp"
#include "promises.hpp"
#include "rules.hpp"
#include "trace.hpp"

namespace simulate {

class platform_training {
 public:
  platform_training(std::uint64_t seed, const fs::path& folder, bool aloud)
      : seed_(seed), spooled_(seed % 2 == 0), trace_(aloud), rolls_(seed), files_(folder) {}

  course run() {
    course out;
    out.broken = first_broken_rule(world_, session_, [this] { play(); });
    out.hash = trace_.hash();
    out.sessions = sessions_;
    out.epochs = version_;
    out.requests = referee_.requests();
    out.steps = world_.time.steps();
    out.simulated = now() - beginning;
    return out;
  }

 private:
  using models = std::vector<const hub::testing::platform_model*>;

  time_point now() const { return world_.time.now(); }
  hub::testing::crash_disk& disk() { return *promises_.disk; }

  void play() {
    set_up();
    begin_run();
    start_session();
    while (epoch_ < plan_.epochs) train_epoch();
    if (faulty_ && plan_.hard_end) end_under_faults();
    stop_faults();
    if (session_) end_training();
    check_run();
    rules::no_snapshot_is_left_behind(files_.leftovers());
  }

  // ---- before it begins ------------------------------------------------------------------------

  void set_up() {
    plan_ = roll_plan(rolls_);
    plan_.epochs = std::min(plan_.epochs, 80);
    plan_.poison = plan_.poison && !spooled_;
    kills_ = spooled_ ? rolls_.pick<unsigned>({0, 5, 15, 40}) : plan_.kills;
    options_ = world_.platform_options();
    roll_options(options_, rolls_);
    options_.limits.metrics_queue_bytes_max = hub::limit_options().metrics_queue_bytes_max;
    if (rolls_.percent(20))
      options_.limits.requests_per_minute_max = 5 + static_cast<unsigned>(rolls_.below(40));
    options_.rate_limits.console_gap = rolls_.pick<duration>({0s, 1s, 1s});
    options_.rate_limits.console_lines = static_cast<std::size_t>(1 + rolls_.below(8));
    options_.limits.console_chunk_lines_max = static_cast<std::size_t>(1 + rolls_.below(30));
    options_.temp_folder = files_.folder();
    options_.log = [this](hub::log_level level, std::string_view text) { heard(level, text); };
    run_ = {.project = "helmets", .name = "nano", .epochs = plan_.epochs, .resume = spooled_};
    if (spooled_) set_up_spool();
    world_.platform.keep_requests = false;
    world_.platform.refusals_are_problems = false;      // the referee knows which may be
    world_.platform.requests_per_minute_max = 100'000;  // the referee counts, for each session
    world_.platform.on_half_upload = [this] { touch_upload(); };
    referee_.content_refusal = rolls_.pick<int>({400, 413, 422});
    faulty_ = referee_.faulty = plan_.calm_from > 0;
    trace_.say(now(), plan_.epochs, " epochs, faults until epoch ", plan_.calm_from,
               spooled_ ? ", with a spool" : "");
  }

  void set_up_spool() {
    options_.spool.directory = "spool";
    options_.spool.storage = promises_.disk;
    options_.spool.sync = rolls_.pick<hub::spool_sync>(
        {hub::spool_sync::each, hub::spool_sync::interval, hub::spool_sync::none});
    options_.spool.sync_interval = rolls_.pick<duration>({100ms, 1s, 1s, 20s});
    options_.spool.rewrite_bytes_min = rolls_.pick<std::uintmax_t>({0, 500, 5'000, hub::mebibyte});
  }

  void heard(hub::log_level level, std::string_view text) {
    referee_.watch([&] { platform_referee::check_words(text); });
    trace_.add(static_cast<std::uint64_t>(level));
    trace_.say(now(), "log: ", text);
  }

  // ---- what fails ------------------------------------------------------------------------------

  void make_trouble() {
    fake_platform& platform = world_.platform;
    switch (rolls_.below(spooled_ ? 10 : 8)) {
      case 0: {
        const auto longest = rolls_.pick<duration>({30s, 10min, 2h, 24h});
        const duration lasts = rolls_.between(1s, longest);
        trace_.say(now(), "an outage of ", seconds(lasts), " s");
        return platform.outage(0s, lasts);
      }
      case 1: {
        const hub::testing::fault next = roll_fault();
        return platform.fail_next(next, 1 + rolls_.below(std::uint64_t{6}));
      }
      case 2: {
        using enum endpoint;
        const auto which =
            rolls_.pick<endpoint>({training_started, epoch_end, console_output, upload, storage,
                                   checkpoint_saved, training_complete, system_metrics});
        const hub::testing::fault next = roll_fault();
        return platform.fail_next(which, next, 1 + rolls_.below(std::uint64_t{6}));
      }
      case 3: return refuse_url();
      case 4: {
        platform.latency = rolls_.pick<duration>({0ms, 20ms, 3s, 40s});
        platform.latency_per_upload_byte = rolls_.pick<duration>({0ns, 1us, 1ms});
        return;
      }
      case 5: return world_.time.jump_wall_clock(rolls_.between(0s, 48h) - 24h);
      case 6: return cancel();
      case 7: {
        const std::uint64_t seed = rolls_.next();
        return platform.fail_randomly(plan_.faults * static_cast<double>(rolls_.below(100)) / 1e4,
                                      seed);
      }
      case 8:
        trace_.say(now(), "the disk is full or broken");
        may_forget_ = true;
        repeat_lines();
        return promises_.break_disk(now(), rolls_);
      default: return promises_.mend_disk(now());
    }
  }

  // Of those that pass by themselves.
  hub::testing::fault roll_fault() {
    hub::testing::fault out{
        hub::testing::all_faults[rolls_.below(hub::testing::all_faults.size())]};
    out.status = rolls_.pick<int>({301, 401, 403, 404, 408, 429, 500, 503, 504});
    out.retry_after = rolls_.pick<const char*>({"", "0", "2", "40", "600", "99999999999999999999",
                                                "Thu, 01 Jan 2026 00:00:30 GMT", "-1", "1.5"});
    out.wait_in_body = rolls_.percent(20);
    trace_.say(now(), "fault ", static_cast<int>(out.kind), " with status ", out.status);
    return out;
  }

  void refuse_url() {
    trace_.say(now(), "the URLs expire");
    world_.platform.url_life = rolls_.pick<duration>({1s, 900s});
    if (rolls_.percent(50)) world_.platform.expire_urls();
    const int status = rolls_.pick<int>({400, 401, 403, 404, 410, 503});
    const std::uint64_t times = 1 + rolls_.below(std::uint64_t{8});
    world_.platform.fail_next(endpoint::storage, {hub::testing::fault_kind::status, status}, times);
  }

  // What the spool does not know to be a chunk goes out in another, and one number is tried for both.
  void repeat_lines() { may_repeat_lines_ = referee_.may_clash = true; }

  void cancel() {
    for (const auto* model : models_of_run()) {
      trace_.say(now(), "somebody presses Stop");
      world_.platform.cancel(model->id);
    }
  }

  // Of the run that the session knows: one that was made without its hearing of it is an older one.
  bool is_cancelled() const {
    const models all = models_of_run();
    return session_->status().registered && !all.empty() && all.back()->cancelled;
  }

  void stop_faults() {
    if (!faulty_) return;
    trace_.say(now(), "the faults stop");
    faulty_ = referee_.faulty = false;
    world_.platform.no_more_faults();
    world_.platform.latency = rolls_.pick<duration>({0ms, 20ms, 500ms});
    world_.platform.latency_per_upload_byte = {};
    world_.platform.url_life = 900s;
    promises_.mend_disk(now());
    calm_since_ = now();
  }

  void change_file(const std::string& name, std::initializer_list<change> among) {
    const change how = rolls_.pick<change>(among);
    trace_.say(now(), name, " changes (", static_cast<int>(how), ")");
    files_.apply(name, how, plan_.file_bytes_max, rolls_);
    files_.finish(plan_.file_bytes_max, rolls_);
  }

  // In the middle of an upload.
  void touch_upload() {
    if (!faulty_ || !rolls_.percent(plan_.touches)) return;
    using enum change;
    change_file(rolls_.percent(70) ? "last.pt" : "best.pt", {overwrite, replace, truncate, remove});
  }

  // ---- the run -----------------------------------------------------------------------------------

  void begin_run() {
    promises_.epochs.clear();
    lines_.clear();
    run_began_ = now();
    lines_given_up_ = 0;
    may_forget_ = remembered_ = may_repeat_lines_ = referee_.may_clash = false;
    registrations_lost_before_ = referee_.registrations_lost();
    extra_models_ = 0;
  }

  models models_of_run() const {
    models out;
    for (const auto& [id, model] : world_.platform.models())
      if (model.started_at >= run_began_) out.push_back(&model);
    return out;
  }

  // The spool has the run's ids from the moment on at which the session knows them.
  void note_registered() {
    if (session_ && !disk().dead() && session_->status().registered) remembered_ = true;
  }

  // One run is made once, but for a reply that was lost, and for what a spool could not keep.
  void check_one_model() const {
    if (may_forget_) return;
    const std::size_t most =
        1 + extra_models_ + referee_.registrations_lost() - registrations_lost_before_;
    rules::run_is_made_once(models_of_run().size(), most);
  }

  // ---- death -------------------------------------------------------------------------------------

  // At one of the next operations on the disk, whoever makes it.
  void doom() {
    disk().die_at(rolls_.below(std::uint64_t{30}), [this] {
      world_.platform.unreachable = true;
      promises_.program_dies(now());
      trace_.say(now(), "the program dies");
    });
  }

  void crash() {
    using hub::testing::crash_kind;
    const auto kind = rolls_.percent(60) ? crash_kind::process : crash_kind::power;
    if (!disk().dead()) promises_.program_dies(now());
    trace_.say(now(), kind == crash_kind::power ? "the power is gone" : "the process is gone");
    note_registered();
    referee_.flushes();
    if (kind == crash_kind::power && options_.spool.sync != hub::spool_sync::each) repeat_lines();
    world_.crash(session_, disk(), kind, rolls_.below(std::uint64_t{4}));
    world_.platform.unreachable = false;
    if (!remembered_) ++extra_models_;
    promises_.settle(lines_, kind);
    promises_.settle(kind, now());
    referee_.rethrow();
    rules::no_snapshot_is_left_behind(files_.leftovers());
  }

  void force_all() {
    promises_.force_all();
    promises_.force_all(lines_);
  }

  // How long a flush of what waits takes at most, where nothing fails: an epoch a request, and beside
  // them the lines.
  duration flush_time() const {
    const hub::session_status said = session_->status();
    const std::size_t chunks = said.console_lines_queued / options_.limits.console_chunk_lines_max;
    const std::size_t requests = 3 + std::max(said.epochs_queued, chunks);
    return world_.platform.latency * static_cast<duration::rep>(requests);
  }

  // A session without a spool that ends without on_train_end is told as failed.
  void end_in_the_middle() {
    const bool good = !faulty_ && now() - calm_since_ > 10min && !plan_.poison &&
                      options_.limits.shutdown_deadline > flush_time() &&
                      referee_.requests_in_a_minute() + session_->status().epochs_queued < 50 &&
                      options_.limits.requests_per_minute_max.value_or(100) >= 100;
    trace_.say(now(), "the program ends in the middle");
    referee_.ends();
    const time_point before = now();
    session_.reset();
    rules::deadline_is_kept(now() - before, options_.limits.shutdown_deadline);
    referee_.rethrow();
    if (good && models_of_run().size() == 1)
      rules::end_in_the_middle_is_told(models_of_run().front()->state ==
                                       hub::testing::platform_state::failed);
    check_values(false);
    advance(1s);  // so that what was made last is of this run
    begin_run();
  }

  // ---- the program -----------------------------------------------------------------------------

  void start_session() {
    for (int tries = 0; tries < 30; ++tries) {
      if (tries > 10) stop_faults();
      if (spooled_ && faulty_ && rolls_.percent(kills_)) doom();
      promises_.program_starts();
      const time_point before = now();
      referee_.session_begins(options_);
      try {
        session_ = std::make_unique<platform_session_type>(
            run_, options_, platform_transport(referee_), hub::testing::virtual_clock(world_.time),
            hub::testing::virtual_sleeper(world_.time));
        ++sessions_;
        if (!disk().dead()) force_all();
        trace_.say(now(), "a session begins");
      } catch (const hub::session_error& why) {
        trace_.say(now(), "no session: ", why.what());
        platform_referee::check_words(why.what());
      }
      referee_.rethrow();
      rules::deadline_is_kept(now() - before,
                              options_.limits.start_deadline + options_.limits.shutdown_deadline);
      if (disk().dead())
        crash();
      else if (session_)
        return begin_training();
      advance(rolls_.between(1s, 10min));
    }
    throw broken("a session starts where nothing fails");
  }

  void begin_training() {
    must_hear_ = false;
    constexpr std::uint64_t not_soon = std::uint64_t{1} << 60;
    disk().die_at(not_soon);
    note_registered();
    session_->on_pretrain_routine_end();
  }

  void advance(duration by) {
    world_.advance(by);
    referee_.rethrow();
    note_registered();
  }

  void train_epoch() {
    if (faulty_ && epoch_ >= plan_.calm_from && !plan_.hard_end) stop_faults();
    if (faulty_ && rolls_.percent(20)) make_trouble();
    const bool dies = rolls_.percent(kills_) && (!spooled_ || faulty_);
    if (spooled_ && dies) doom();
    print();
    advance(rolls_.between(plan_.epoch_min, plan_.epoch_max));
    tell(epoch_);
    if (rolls_.percent(plan_.repeats)) tell(rolls_.percent(30) ? rolls_.below(epoch_ + 1) : epoch_);
    if ((epoch_ + 1) % plan_.save_period == 0) save();
    if (rolls_.percent(plan_.nudges)) nudge();
    if (rolls_.percent(30)) advance(rolls_.between(0s, plan_.epoch_max));
    check_standing();
    ++epoch_;
    if (dies)
      die();
    else if (spooled_ && rolls_.percent(3))
      end_in_order();
  }

  void die() {
    if (spooled_)
      crash();
    else
      end_in_the_middle();
    advance(rolls_.between(1s, 10min));
    start_session();
    if (spooled_) epoch_ -= rolls_.below(std::min(3, epoch_ + 1));  // its last checkpoint
  }

  // A run that will be resumed is left open.
  void end_in_order() {
    trace_.say(now(), "the program ends, to go on later");
    referee_.flushes();
    note_registered();
    session_.reset();
    force_all();
    if (!remembered_) ++extra_models_;
    for (const auto* model : models_of_run())
      rules::run_stays_open(model->state == hub::testing::platform_state::training);
    start_session();
  }

  void tell(int epoch) {
    const metric_list values = values_of(++version_);
    const std::size_t dropped = session_->status().spool_dropped;
    const time_point before = now();
    referee_.tells(epoch, version_);
    must_hear_ = must_hear_ || (!faulty_ && !plan_.poison && is_cancelled());
    session_->on_fit_epoch_end(epoch, values);
    rules::training_is_not_held_up(now() - before);
    const bool written = !disk().dead() && session_->status().spool_dropped == dropped;
    trace_.say(now(), "epoch ", epoch, " is told, version ", version_, written ? "" : ", in vain");
    promises_.told(epoch, version_, now(), written);
  }

  metric_list values_of(std::uint64_t version) const {
    const bool poison = plan_.poison && dice(seed_ + version).percent(4);
    return metrics_of(seed_, version, plan_.metrics, poison);
  }

  void print() {
    const int count = rolls_.below(4) * rolls_.below(4);
    for (int i = 0; i < count; ++i) {
      const std::size_t dropped = session_->status().spool_dropped;
      const std::string text = "[2026] line " + std::to_string(++printed_);
      session_->console(text + (rolls_.percent(20) ? "\r\n" : "\n"));
      const bool written = !disk().dead() && session_->status().spool_dropped == dropped;
      lines_.push_back({printed_, promises_.starts(), now(), written});
    }
  }

  void save() {
    files_.apply("last.pt", rolls_.pick<change>({change::overwrite, change::replace}),
                 plan_.file_bytes_max, rolls_);
    session_->on_model_save(epoch_, files_.path("last.pt"), rolls_.percent(30));
  }

  void nudge() {
    switch (rolls_.below(4)) {
      case 0: referee_.flushes(); return session_->upload_metrics();
      case 1:
        referee_.flushes();
        return session_->upload_model(epoch_, files_.path("last.pt"), false);
      case 2: {
        const duration timeout = rolls_.between(0s, 1min);
        const time_point before = now();
        referee_.flushes();
        session_->flush(timeout);
        rules::deadline_is_kept(now() - before, timeout);
        return referee_.rethrow();
      }
      default: return;
    }
  }

  void check_standing() {
    referee_.rethrow();
    const hub::session_status said = session_->status();
    if (said.unanswered_why) platform_referee::check_words(said.unanswered_why->message);
    rules::accepted_is_delivered_queued_or_set_aside(said);
    check_one_model();
  }

  // ---- the end ---------------------------------------------------------------------------------

  hub::delivery finish() {
    trace_.say(now(), "on_train_end");
    if (plan_.final_file) files_.apply("best.pt", change::replace, plan_.file_bytes_max, rolls_);
    referee_.ends();
    const time_point before = now();
    const hub::delivery said = session_->on_train_end(
        plan_.epochs - 1, plan_.final_file ? files_.path("best.pt") : fs::path(), 0.5);
    rules::deadline_is_kept(now() - before, options_.limits.train_end_deadline);
    referee_.rethrow();
    if (said.why) platform_referee::check_words(said.why->message);
    lines_given_up_ = session_->status().console_lines_queued;
    rules::require(lines_given_up_ == 0 || faulty_, "without faults every line arrives");
    return said;
  }

  // What on_train_end could not deliver, the next session can; without a spool it is another run.
  void end_under_faults() {
    if (spooled_ && rolls_.percent(50)) doom();
    const hub::delivery said = finish();
    referee_.flushes();  // what is left is tried once more when the session ends
    if (said.ending_delivered && !disk().dead()) {
      complete_ = said.complete();
      return session_.reset();
    }
    if (spooled_ && disk().dead())
      crash();
    else
      session_.reset();
    // Where it died between the reply and the note of it, only the server knows that it is over.
    for (const auto* model : models_of_run())
      if (model->state == hub::testing::platform_state::completed) return;
    stop_faults();
    advance(1s);
    if (!spooled_) begin_run();
    start_session();
    if (!spooled_) tell(plan_.epochs - 1);
  }

  void end_training() {
    // Whatever a fault has put off.
    advance(rolls_.between(0s, 1min));
    const hub::delivery said = finish();
    const bool may_miss = plan_.poison || session_->status().checkpoints_failed > 0;
    complete_ = said.complete();
    rules::require(may_miss || said.complete(), "without faults everything completes");
    rules::require(said.ending_delivered, "without faults the end arrives");
    if (must_hear_) rules::stop_is_heard(session_->stop_requested());
    promises_.all_arrived();
    for (telling& each : lines_) each.written = each.written || each.start == promises_.starts();
    const std::uint64_t requests = referee_.requests();
    session_->on_fit_epoch_end(plan_.epochs, values_of(++version_));
    session_->console("[2026] too late\n");
    advance(3h);
    rules::nothing_follows_the_end(requests, referee_.requests());
    session_.reset();
    rules::nothing_follows_the_end(requests, referee_.requests());
  }

  // ---- what is on the Platform -------------------------------------------------------------------

  void check_run() const {
    check_one_model();
    check_values(complete_);
    check_lines();
    const models all = models_of_run();
    std::size_t completed = 0;
    for (const auto* model : all) {
      if (model->state != hub::testing::platform_state::completed) continue;
      ++completed;
      if (complete_ && plan_.final_file) check_final_model(*model);
    }
    rules::run_ends_once(completed);
  }

  void check_final_model(const hub::testing::platform_model& model) const {
    const hub::testing::platform_upload* last = model.latest_file();
    rules::require(last && last->file_name == "best.pt" && last->saved,
                   "the final model is there, and the Platform knows");
    const nlohmann::json& results = model.ending.at("results");
    rules::require(hub::text::get_string(results, "modelPath") == last->path &&
                       hub::text::get_unsigned(results, "modelSize") == last->size_bytes,
                   "the end names the final model");
  }

  // `all`: nothing that was promised may be missing.
  void check_values(bool all) const {
    for (const auto& [number, tellings] : promises_.epochs) {
      std::uint64_t there = 0;
      for (const auto* model : models_of_run())
        if (const auto found = model->epochs.find(number); found != model->epochs.end()) {
          const nlohmann::json& metrics = found->second.at("metrics");
          there = std::max(there, version_of(metrics));
          rules::values_arrive_exactly(metrics, values_of(version_of(metrics)));
        }
      if (all) rules::promised_value_is_on_hub(there, spool_promises::least(tellings));
    }
  }

  void check_lines() const {
    std::map<std::uint64_t, int> there;
    for (const auto* model : models_of_run()) {
      std::uint64_t chunk = 0;
      std::uint64_t last = 0;
      for (const auto& [number, data] : model->console) {
        rules::chunks_are_numbered(number == ++chunk || may_repeat_lines_);
        for (const std::uint64_t line : numbers_of(hub::text::get_string(data, "content"))) {
          rules::lines_are_in_order(line > last || may_repeat_lines_);
          last = line;
          ++there[line];
        }
      }
    }
    if (may_forget_ || extra_models_ > 0) return;
    std::size_t missing = 0;
    for (const telling& each : lines_) {
      if (!there.contains(each.version) && missing++ < lines_given_up_) continue;
      const auto found = there.find(each.version);
      const int times = found == there.end() ? 0 : found->second;
      rules::line_is_there_once(may_repeat_lines_ ? std::min(times, 1) : times, each.written);
    }
  }

  static std::vector<std::uint64_t> numbers_of(const std::string& content) {
    constexpr std::string_view lead = "[2026] line ";
    std::vector<std::uint64_t> out;
    for (std::size_t at = content.find(lead); at != content.npos; at = content.find(lead, at + 1))
      out.push_back(hub::text::parse_size(
                        content.substr(at + lead.size(), content.find('\n', at) - at - lead.size()))
                        .value_or(0));
    return out;
  }

  std::uint64_t seed_;
  bool spooled_;
  plan plan_;
  unsigned kills_ = 0;  // in percent, of the epochs and of the starts
  hub::session_options options_;
  hub::platform_run run_;
  trace trace_;
  dice rolls_;
  trainer_files files_;
  spool_promises promises_{options_.spool};
  hub::testing::simulation world_;
  platform_referee referee_{world_, trace_};
  std::unique_ptr<platform_session_type> session_;
  std::vector<telling> lines_;  // what was printed; the version is the line's number
  time_point run_began_ = beginning;
  time_point calm_since_ = beginning;
  std::size_t registrations_lost_before_ = 0;
  std::size_t lines_given_up_ = 0;  // at the end, as the session said
  std::size_t extra_models_ = 0;    // that may have been made, as the spool could not know of them
  bool remembered_ = false;         // the spool has the run's ids
  bool may_forget_ = false;         // the disk failed, and may have none of it
  bool may_repeat_lines_ = false;   // power took the note that they had arrived
  bool must_hear_ = false;          // of the wish to stop
  bool complete_ = false;
  bool faulty_ = false;
  int epoch_ = 0;
  std::uint64_t version_ = 0;
  std::uint64_t printed_ = 0;
  std::uint64_t sessions_ = 0;
};

}  // namespace simulate
