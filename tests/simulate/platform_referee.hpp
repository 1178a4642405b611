// SPDX-License-Identifier: MIT
//
// The referee of a training on the Platform: sees every request, keeps its own account of what was told
// and printed, and holds the requests against the rules.
//
// Rules: as in referee.hpp. What the Platform itself refuses, such as an event after the end or a chunk
// that is there with another content, it says by itself.

#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../../hub_session.hpp"
#include "../support/statuses.hpp"
#include "metrics.hpp"
#include "rules.hpp"
#include "trace.hpp"
#include "watched_transport.hpp"

namespace simulate {

using hub::testing::endpoint;
using hub::testing::fake_platform;
using hub::testing::fault_kind;

class platform_referee;

using platform_transport = watched_transport<platform_referee, hub::lane>;
using platform_session_type =
    hub::basic_training_session<platform_transport, hub::testing::virtual_clock,
                                hub::testing::virtual_sleeper, hub::platform>;

class platform_referee {
 public:
  platform_referee(hub::testing::simulation& world, trace& log) : world_(world), trace_(log) {
    world_.platform.on_request = [this](const hub::testing::seen_request& seen) { seen_ = seen; };
  }
  platform_referee(const platform_referee&) = delete;
  platform_referee& operator=(const platform_referee&) = delete;

  int content_refusal = 413;  // of an epoch with poison in it
  bool faulty = false;
  bool may_clash = false;  // two chunks of lines may want one number

  std::uint64_t requests() const { return requests_; }
  std::size_t requests_in_a_minute() const { return times_.size(); }
  // Replies to a registration from which the session could not learn that it has succeeded.
  std::size_t registrations_lost() const { return registrations_lost_; }
  bool is_refused(int epoch, std::uint64_t version) const {
    return refused_.contains({epoch, version});
  }

  template <class Work>
  void watch(Work&& work) noexcept {
    if (broken_) return;
    try {
      work();
    } catch (const broken& rule) {
      broken_ = rule;
      broken_->at = now();
      trace_.say(now(), "BROKEN: ", rule.what());
    }
  }
  void rethrow() const {
    if (broken_) throw *broken_;
  }
  static void check_words(std::string_view text) {
    rules::no_secret_is_said(text, fake_platform::api_key);
    rules::no_callback_fails(text);
  }

  // ---- what the program does -------------------------------------------------------------------

  void session_begins(const hub::session_options& options) {
    options_ = options;
    left_ending_ = (ending_ || left_ending_) && !options.spool.directory.empty();
    lanes_ = {};
    times_.clear();
    told_.clear();
    ending_ = has_flushed_ = false;
  }
  // Before on_fit_epoch_end: the newest value of an epoch is what counts.
  void tells(int epoch, std::uint64_t version) {
    told_[epoch] = version;
    left_ending_ = false;
  }
  void flushes() {
    has_flushed_ = true;
    for (lane_watch& each : lanes_) each.not_before = {};
  }
  void ends() {
    flushes();
    ending_ = true;
  }

  // ---- every request passes here ---------------------------------------------------------------

  hub::reply exchange(const hub::request& what, std::optional<hub::lane>& lane) {
    hub::reply out{.failure = hub::error{hub::errc::cancelled, "a rule is broken"}};
    watch([&] { out = answer(what, lane); });
    return out;
  }
  void cut(hub::lane which) noexcept {
    lane_watch& at = lanes_[static_cast<std::size_t>(which)];
    at.busy_until = std::min(at.busy_until, now());
    at.not_before = {};
  }

 private:
  struct lane_watch {
    time_point busy_until = {};
    time_point not_before = {};  // what the server asked for
  };

  time_point now() const { return world_.time.now(); }

  hub::reply answer(const hub::request& what, std::optional<hub::lane>& lane) {
    ++requests_;
    seen_.reset();
    check_words(what.body);
    rules::require(what.url.find(fake_platform::api_key) == what.url.npos, "no URL holds the key");
    const auto said = hub::text::parse_json(what.body);
    const std::string event = said ? hub::text::get_string(*said, "event") : std::string();
    lane = lane_of(event);
    check_pace(*lane);
    if (event == "epoch_end") check_epoch(said->at("data"));
    if (event == "training_complete") check_ending();
    hub::reply out = refuses(what, event)
                         ? hub::reply{.status = content_refusal, .latency = world_.platform.latency}
                         : world_.platform.answer(what);
    if (event == "epoch_end") note_refusal(said->at("data"), out);
    if (event == "training_started") note_registration(out);
    check_refusal(event, out);
    note_reply(*lane, out);
    add_to_trace(what, event, out);
    make_indiscreet(out);
    return out;
  }

  static hub::lane lane_of(const std::string& event) {
    if (event == "system_metrics") return hub::lane::life;
    if (event == "console_output") return hub::lane::console;
    // Where to put a file is asked without an event.
    if (event.empty() || event == "checkpoint_saved") return hub::lane::uploads;
    const bool is_known = event == "training_started" || event == "epoch_end" ||
                          event == "training_complete" || event == "training_failed";
    rules::require(is_known, "each event belongs to a lane");
    return hub::lane::epochs;
  }

  static bool refuses(const hub::request& what, const std::string& event) {
    return event == "epoch_end" && what.body.find("poison") != what.body.npos;
  }

  // ---- pace --------------------------------------------------------------------------------------

  void check_pace(hub::lane lane) {
    const lane_watch& at = lanes_[static_cast<std::size_t>(lane)];
    rules::one_request_at_a_time(now(), at.busy_until);
    // A sign of life that is due, and a newer file, are not put off by what an earlier one met.
    if (lane == hub::lane::epochs || lane == hub::lane::console)
      rules::backoff_is_kept(now(), at.not_before);
    while (!times_.empty() && times_.front() <= now() - 1min) times_.pop_front();
    const std::size_t most = options_.limits.requests_per_minute_max.value_or(100);
    rules::minute_limit_is_kept(times_.size(), most);
    times_.push_back(now());
  }

  void note_reply(hub::lane lane, const hub::reply& out) {
    lane_watch& at = lanes_[static_cast<std::size_t>(lane)];
    at = {.busy_until = now() + out.latency};
    if (out.failure) return;
    using enum hub::verdict;
    const hub::verdict meaning = verdict_of_status(out.status);
    if (meaning == delivered || meaning == rejected) return;
    if (lane == hub::lane::console && out.status == 409) return;  // it goes on with another number
    // What a flush waits for is tried sooner, and for how long that is so only the session knows.
    duration wait = meaning == denied && !has_flushed_ ? options_.retry.denied_interval : 0s;
    // A date is not binding: the wall clock may jump before the session reads it.
    if (const auto asked = whole_seconds(out.retry_after))
      wait = std::max(wait, std::min(*asked, options_.retry.retry_after_max));
    at.not_before = at.busy_until + wait;
  }

  static std::optional<duration> whole_seconds(const std::string& text) {
    if (text.empty() || text.find_first_not_of("0123456789") != text.npos) return std::nullopt;
    return text.size() > 6 ? duration(24h) : std::chrono::seconds(std::atoi(text.c_str()));
  }

  // ---- order -------------------------------------------------------------------------------------

  const hub::testing::platform_model* model_of(const std::string& id) const {
    const auto found = world_.platform.models().find(id);
    return found == world_.platform.models().end() ? nullptr : &found->second;
  }

  void check_epoch(const nlohmann::json& data) const {
    const int epoch = hub::text::get_int(data, "epoch").value_or(-1);
    const std::uint64_t version = version_of(data.at("metrics"));
    const auto told = told_.find(epoch);
    if (told != told_.end())
      rules::require(told->second == version, "the last value of an epoch wins");
    for (const auto& [earlier, newest] : told_) {
      if (earlier >= epoch) break;
      rules::epochs_go_in_order(version_there(earlier) >= newest || is_refused(earlier, newest));
    }
  }

  // Of the newest model.
  std::uint64_t version_there(int epoch) const {
    std::uint64_t out = 0;
    for (const auto& [id, model] : world_.platform.models()) {
      const auto found = model.epochs.find(epoch);
      if (found != model.epochs.end()) out = std::max(out, version_of(found->second.at("metrics")));
    }
    return out;
  }

  void check_ending() const {
    rules::require(ending_ || left_ending_, "the end is told after on_train_end alone");
    if (faulty) return;
    for (const auto& [epoch, newest] : told_)
      rules::ending_is_last(version_there(epoch) >= newest || is_refused(epoch, newest));
    for (const hub::lane other : {hub::lane::uploads, hub::lane::console})
      rules::ending_is_last(lanes_[static_cast<std::size_t>(other)].busy_until <= now());
  }

  // What the Platform refuses by itself is wrong, but for a URL whose time is over.
  void check_refusal(const std::string& event, const hub::reply& out) const {
    if (!seen_ || seen_->fault != fault_kind::none || out.status < 400) return;
    const bool clashes = event == "console_output" && out.status == 409 && may_clash;
    rules::nothing_is_refused(seen_->to == endpoint::storage || clashes);
  }

  // ---- replies -----------------------------------------------------------------------------------

  void note_refusal(const nlohmann::json& data, const hub::reply& out) {
    if (out.failure || verdict_of_status(out.status) != hub::verdict::rejected) return;
    refused_.insert(
        {hub::text::get_int(data, "epoch").value_or(-1), version_of(data.at("metrics"))});
  }

  void note_registration(const hub::reply& out) {
    const bool learned = !out.failure && out.status == 200 && seen_ &&
                         (seen_->fault == fault_kind::none || seen_->fault == fault_kind::status);
    if (!learned) ++registrations_lost_;
  }

  // Error texts of this Platform quote what must not be shown.
  static void make_indiscreet(hub::reply& out) {
    if (out.status < 400 && !(out.failure && out.failure->code == hub::errc::not_reachable)) return;
    const std::string text =
        "key " + fake_platform::api_key + " at https://x.test/a?Signature=1 is bad";
    if (out.failure)
      out.failure->message += " " + text;
    else
      out.body = "{\"error\": \"" + text + "\"}";
  }

  void add_to_trace(const hub::request& what, const std::string& event, const hub::reply& out) {
    const std::uint64_t bytes = what.content ? what.content->size_bytes() : what.body.size();
    trace_.add(static_cast<std::uint64_t>(now().time_since_epoch().count()));
    trace_.add(static_cast<std::uint64_t>(out.latency.count()));
    trace_.add(event);
    trace_.add((bytes << 16) | static_cast<unsigned>(out.status));
    if (!trace_.aloud()) return;
    trace_.say(now(), what.method, ' ', hub::text::without_query(what.url), ' ', event, ", ", bytes,
               " bytes: ", out.failure ? out.failure->message : std::to_string(out.status),
               out.retry_after.empty() ? "" : ", Retry-After " + out.retry_after, ", after ",
               seconds(out.latency), " s");
  }

  hub::testing::simulation& world_;
  trace& trace_;
  std::optional<broken> broken_;
  std::optional<hub::testing::seen_request> seen_;
  std::uint64_t requests_ = 0;
  std::size_t registrations_lost_ = 0;
  hub::session_options options_;
  std::array<lane_watch, hub::lane_count> lanes_ = {};
  std::deque<time_point> times_;  // of the requests of the last minute
  std::map<int, std::uint64_t> told_;
  std::set<std::pair<int, std::uint64_t>> refused_;
  bool ending_ = false;
  bool left_ending_ = false;  // an earlier session told the end, and no epoch came after
  bool has_flushed_ = false;  // the session was asked to send at once
};

}  // namespace simulate
