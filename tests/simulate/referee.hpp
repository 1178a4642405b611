// SPDX-License-Identifier: MIT
//
// The referee sees every request of a session and every call of the program, keeps its own account
// of what must be so, and holds both against the rules.
//
// Rules: it works out what a reply means from what was done to the request, not with the code under
// test. Most of it runs inside the session, which swallows whatever a transport throws: so the first
// broken rule is kept, and rethrow() says it outside.

#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../../hub_session.hpp"
#include "../support/statuses.hpp"
#include "files.hpp"
#include "metrics.hpp"
#include "rules.hpp"
#include "trace.hpp"
#include "watched_transport.hpp"

namespace simulate {

using hub::errc;
using hub::testing::endpoint;
using hub::testing::fake_hub;
using hub::testing::fault_kind;

class referee;

using hub_transport = watched_transport<referee, endpoint>;
using session_type = hub::basic_training_session<hub_transport, hub::testing::virtual_clock,
                                                 hub::testing::virtual_sleeper>;

class referee {
 public:
  referee(hub::testing::simulation& world, trainer_files& files, trace& log)
      : world_(world), files_(files), trace_(log) {
    world_.hub.on_request = [this](const hub::testing::seen_request& seen) { met_ = seen.fault; };
  }
  referee(const referee&) = delete;
  referee& operator=(const referee&) = delete;

  // ---- what HUB refuses for good, and what its error texts hold --------------------------------

  std::size_t metrics_bytes_max = SIZE_MAX;
  int content_refusal = 413;
  bool faulty = false;
  std::string model_id = {};
  std::string secret = fake_hub::api_key;
  std::function<void()> upload_answered = {};

  std::uint64_t requests() const { return requests_; }

  // Runs what may break a rule, inside the session.
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

  void check_words(std::string_view text) const {
    rules::no_secret_is_said(text, secret);
    rules::no_callback_fails(text);
  }

  // ---- what the program does -------------------------------------------------------------------

  void session_begins(session_type* session, const hub::session_options& options) {
    books_ = {};
    session_ = session;
    options_ = options;
    lane(endpoint::heartbeat).started = now() - options.rate_limits.heartbeat;  // due at once
  }

  void train_starts() {
    if (books_.train_started) return;
    books_.train_started = true;
    lane(endpoint::metrics).started = books_.first_attempt_at = now();
  }

  // After on_fit_epoch_end: the newest value of an epoch is what counts.
  void told(int epoch, std::uint64_t version, std::size_t bytes) {
    if (books_.queue.empty()) books_.queue_since = now();
    const auto [at, is_new] = books_.queue.try_emplace(epoch);
    if (is_new) ++books_.counted.accepted;
    at->second = {version, bytes};
    set_aside_.erase(epoch);
    expected_[epoch] = newest_ = version;
    drop_what_did_not_fit();
  }

  void flushes_metrics() {
    books_.flushed_version = newest_;
    forget_backoff(endpoint::metrics);
  }
  void flushes_uploads() {
    books_.upload_flushed_at = now();
    forget_backoff(endpoint::upload);
  }
  void stops_heartbeat() { books_.beats = false; }
  void ends_with(double map) { map_ = map; }

  // Before on_model_save or upload_model. `hash` is of the file as it is now.
  void saves(int epoch, std::uint64_t hash) {
    books_.saves[epoch].hashes.insert(hash);
    books_.saves[epoch].at = books_.saved_at = now();
  }

  // ---- what must hold between the program's calls ----------------------------------------------

  void check_standing() {
    rethrow();
    settle();
    const hub::session_status said = session_->status();
    if (said.unanswered_why) check_words(said.unanswered_why->message);
    rules::accepted_is_delivered_queued_or_set_aside(said);
    rules::every_epoch_is_accounted_for(said, books_.counted, books_.queue.size());
    if (!said.checkpoint_waiting) forget_backoff(endpoint::upload);
    check_patience(said);
  }

  // What on_train_end and flush say must be so on HUB.
  void check_delivery(const hub::delivery& said) {
    rethrow();
    settle();
    if (said.why) check_words(said.why->message);
    rules::delivery_is_honest(said, books_.counted, books_.queue.size(),
                              world_.hub.model(model_id).final_model() != nullptr,
                              session_->status().checkpoint_waiting);
  }

  // After on_train_end in good times: every epoch on HUB has the newest value that was told.
  using values_by_version = std::function<metric_list(std::uint64_t)>;
  void check_hub_is_complete(const values_by_version& values_of) const {
    for (const auto& [epoch, told] : expected_)
      rules::last_value_is_on_hub(version_on_hub(epoch), told, set_aside_.contains(epoch));
    check_hub_values(values_of);
  }

  // After a session that died. Whatever it took with it is not expected any more.
  void check_hub_after_kill(const values_by_version& values_of, bool in_good_times) {
    rethrow();
    settle();
    if (in_good_times) rules::kill_in_good_times_loses_nothing(books_.queue);
    for (auto at = expected_.begin(); at != expected_.end();) {
      const auto [epoch, told] = *at;
      const std::uint64_t there = version_on_hub(epoch);
      rules::kill_loses_only_unconfirmed(there, told, books_.queue.contains(epoch),
                                         set_aside_.contains(epoch));
      at->second = there;
      at = there == 0 ? expected_.erase(at) : std::next(at);
    }
    check_hub_values(values_of);
  }

  // Before the session is destroyed: what it says is no longer to be had afterwards.
  void session_dies() { session_ = nullptr; }

  std::size_t set_aside() const { return books_.counted.set_aside; }

  // How long a flush of what is queued takes at most, where nothing fails.
  duration flush_time(duration latency) const {
    std::size_t bytes = 0;
    for (const auto& each : books_.queue) bytes += each.second.bytes;
    const hub::limit_options& limits = options_.limits;
    const std::size_t batches =
        3 + books_.queue.size() / limits.metrics_batch_epochs_max +
        4 * bytes / std::max<std::size_t>(limits.metrics_batch_bytes_max, 1);
    return latency * static_cast<duration::rep>(batches);
  }

  // ---- every request passes here ---------------------------------------------------------------

  // Notes in `last` where the request goes; one to no known place counts as one more of the same.
  hub::reply exchange(const hub::request& what, std::optional<endpoint>& last) {
    const auto root = std::min(what.url.size(), fake_hub::api_root.size());
    const auto to =
        hub::testing::hub_logic::route(what.method, std::string_view(what.url).substr(root));
    if (to) last = to->first;
    hub::reply out{.failure = hub::error{errc::cancelled, "a rule is broken"}};
    watch([&] { out = referee_exchange(what, last); });
    return out;
  }

  void cut(endpoint which) {
    lane(which).busy_until = std::min(lane(which).busy_until, now());
    if (which == endpoint::metrics) books_.sent.reset();
    if (which == endpoint::upload) books_.uploading.reset();
    forget_backoff(which);
  }

 private:
  struct lane_watch {
    time_point started = {};
    time_point busy_until = {};
    time_point not_before = {};  // what HUB asked for
    bool retries = false;        // what comes next repeats what failed
    bool answered = false;       // the last request was answered as it should be
  };
  struct sent_metrics {
    std::vector<sent_epoch> batch = {};
    time_point due = {};
    bool on_hub = false;     // HUB has the values
    bool confirmed = false;  // and says so without a doubt
    bool refused = false;    // for good
  };
  struct sent_upload {
    time_point due = {};
    bool arrived = false;
    bool is_final = false;
  };
  struct save_record {
    std::set<std::uint64_t> hashes = {};
    time_point at = {};
  };
  // Of the session that runs.
  struct books {
    std::array<lane_watch, hub::lane_count> lanes = {};
    bool beats = true;
    std::string agent_id = {};
    bool train_started = false;
    account counted = {};
    waiting_epochs queue = {};
    time_point queue_since = {};
    std::uint64_t flushed_version = 0;
    std::optional<sent_metrics> sent = {};
    time_point upload_flushed_at = {};
    std::map<int, save_record> saves = {};
    time_point saved_at = {};
    std::optional<sent_upload> uploading = {};
    std::optional<int> uploaded_epoch = {};
    std::size_t uploads_failed = 0;
    time_point first_attempt_at = {};  // at the latest upload that was no retry
    bool final_was_sent = false;
    time_point budget_used_until = {};
  };

  time_point now() const { return world_.time.now(); }

  lane_watch& lane(endpoint which) {
    rules::require(
        which == endpoint::heartbeat || which == endpoint::metrics || which == endpoint::upload,
        "each request belongs to a lane");
    const hub::lane name = which == endpoint::heartbeat ? hub::lane::life
                           : which == endpoint::metrics ? hub::lane::epochs
                                                        : hub::lane::uploads;
    return books_.lanes[static_cast<std::size_t>(name)];
  }

  void forget_backoff(endpoint which) {
    lane(which).not_before = {};
    lane(which).retries = false;
  }

  hub::reply referee_exchange(const hub::request& what, std::optional<endpoint> to) {
    ++requests_;
    check_words(what.url);
    rules::no_secret_is_said(what.body, secret);
    hub::reply out = to == endpoint::heartbeat ? beat(what)
                     : to == endpoint::metrics ? metrics(what)
                     : to == endpoint::upload  ? upload(what)
                                               : world_.hub.answer(what);
    if (to && *to != endpoint::auth && *to != endpoint::model) note_reply(*to, out);
    const std::uint64_t bytes = what.content ? what.content->size_bytes() : what.body.size();
    trace_.add(static_cast<std::uint64_t>(now().time_since_epoch().count()));
    trace_.add(static_cast<std::uint64_t>(out.latency.count()));
    trace_.add((static_cast<std::uint64_t>(to ? static_cast<int>(*to) : -1) << 32) |
               static_cast<unsigned>(out.status));
    trace_.add(bytes);
    if (trace_.aloud()) say_exchange(what, bytes, out);
    make_indiscreet(out);
    return out;
  }

  void say_exchange(const hub::request& what, std::uint64_t bytes, const hub::reply& out) const {
    trace_.say(now(), what.method, ' ', what.url.substr(fake_hub::api_root.size()), ", ", bytes,
               " bytes: ", out.failure ? out.failure->message : std::to_string(out.status),
               out.retry_after.empty() ? "" : ", Retry-After " + out.retry_after, ", after ",
               seconds(out.latency), " s");
  }

  // Error texts of this HUB quote what must not be shown.
  void make_indiscreet(hub::reply& out) const {
    if (out.status < 400 && !(out.failure && out.failure->code == errc::not_reachable)) return;
    const std::string text = "key " + secret + " at https://x.test/a?Signature=1 is bad";
    if (out.failure)
      out.failure->message += " " + text;
    else
      out.body = "{\"message\": \"" + text + "\"}";
  }

  // ---- every lane ------------------------------------------------------------------------------

  void check_lane(endpoint which, bool is_regular_beat) {
    lane_watch& at = lane(which);
    rules::one_request_at_a_time(now(), at.busy_until);
    if (is_regular_beat) return;  // which HUB's wish does not put off
    rules::backoff_is_kept(now(), at.not_before);
    if (at.retries) spend_retry();
  }

  // The retry budget as a leaky bucket: full after `budget` retries at once, leaking one a refill. A
  // retry counts from when it is decided, so each lane may have one that comes later.
  void spend_retry() {
    const duration refill = options_.retry.budget_refill;
    const auto burst =
        static_cast<duration::rep>(std::max(options_.retry.budget, 1u) - 1 + hub::lane_count);
    rules::retry_budget_is_kept(books_.budget_used_until, now() + refill * burst);
    books_.budget_used_until = std::max(books_.budget_used_until, now()) + refill;
  }

  void note_reply(endpoint which, const hub::reply& out) {
    lane_watch& at = lane(which);
    at = {.started = now(), .busy_until = now() + out.latency};
    if (out.failure) {
      at.retries = out.failure->code != errc::file_changed && out.failure->code != errc::file_error;
      return;
    }
    at.answered = out.status == 200 && met_ == fault_kind::none;
    using enum hub::verdict;
    const hub::verdict meaning = verdict_of_status(out.status);
    if (meaning == delivered || meaning == rejected) return;
    at.retries = true;
    duration wait = meaning == denied && !awaited(which) ? options_.retry.denied_interval : 0s;
    // A date is not binding: the wall clock may jump before the session reads it.
    if (const auto asked = whole_seconds(out.retry_after))
      wait = std::max(wait, std::min(*asked, options_.retry.retry_after_max));
    at.not_before = at.busy_until + wait;
  }

  // Whether a flush or the ending waits for it: then a refusal is asked about sooner.
  bool awaited(endpoint which) const {
    if (which == endpoint::metrics) return flushing();
    return which == endpoint::upload && books_.saved_at <= books_.upload_flushed_at;
  }

  static std::optional<duration> whole_seconds(const std::string& text) {
    if (text.empty() || text.find_first_not_of("0123456789") != text.npos) return std::nullopt;
    return text.size() > 6 ? duration(24h) : std::chrono::seconds(std::atoi(text.c_str()));
  }

  // The longest that a lane with work may rest.
  duration patience() const {
    const hub::retry_options& retry = options_.retry;
    return std::max(retry.denied_interval, retry.retry_after_max + retry.delay_max) +
           static_cast<duration::rep>(hub::lane_count) * retry.budget_refill + 1s;
  }

  void check_patience(const hub::session_status& said) {
    const hub::rate_limit_options& rates = options_.rate_limits;
    if (books_.beats) rules::heart_beats_in_time(now(), next_beat());
    if (!books_.queue.empty())
      rules::what_waits_is_tried(
          now(), std::max(lane(endpoint::metrics).busy_until, books_.queue_since) + rates.metrics +
                     patience());
    if (said.checkpoint_waiting)
      rules::what_waits_is_tried(
          now(), std::max(lane(endpoint::upload).busy_until, books_.saved_at) + rates.checkpoint +
                     patience());
  }

  // ---- heartbeats ------------------------------------------------------------------------------

  time_point next_beat() {
    const lane_watch& at = lane(endpoint::heartbeat);
    return std::max(at.busy_until, at.started + options_.rate_limits.heartbeat);
  }

  hub::reply beat(const hub::request& what) {
    const lane_watch& at = lane(endpoint::heartbeat);
    rules::heart_rests_when_stopped(books_.beats);
    rules::heart_beats_in_time(now(), next_beat());
    rules::heartbeats_keep_their_rate_limit(now(), at.started, options_.rate_limits.heartbeat,
                                            at.answered);
    check_lane(endpoint::heartbeat, now() == next_beat());
    const std::string id = books_.agent_id.empty() ? "null" : '"' + books_.agent_id + '"';
    rules::agent_id_is_sent_back(what.body.ends_with("\"agentId\": " + id + "}"));
    hub::reply out = world_.hub.answer(what);
    if (met_ == fault_kind::none && out.status == 200)
      books_.agent_id = world_.hub.model(model_id).heartbeats.back().agent_id;
    return out;
  }

  // ---- metrics ---------------------------------------------------------------------------------

  hub::reply metrics(const hub::request& what) {
    settle();
    check_lane(endpoint::metrics, false);
    rules::metrics_keep_their_rate_limit(now(), lane(endpoint::metrics).started,
                                         options_.rate_limits.metrics, flushing());
    sent_metrics sent;
    sent.batch = read_batch(what.body).value_or(std::vector<sent_epoch>());
    rules::batch_is_the_beginning_of_the_queue(sent.batch, books_.queue);
    rules::batch_keeps_to_its_bounds(sent.batch, options_.limits);
    const bool refuses =
        what.body.size() > metrics_bytes_max || what.body.find("poison") != what.body.npos;
    hub::reply out = refuses ? hub::reply{.status = content_refusal, .latency = world_.hub.latency}
                             : world_.hub.answer(what);
    sent.on_hub = std::all_of(sent.batch.begin(), sent.batch.end(), [this](const auto& each) {
      return version_on_hub(each.epoch) == each.version;
    });
    sent.due = now() + out.latency;
    sent.refused = !out.failure && (out.status == 400 || out.status == 413 || out.status == 422);
    sent.confirmed = sent.on_hub && out.status == 200 && out.body == "{}";
    books_.sent = std::move(sent);
    return out;
  }

  // Whether something still waits that was there when the program asked for it to be sent.
  bool flushing() const {
    return std::any_of(books_.queue.begin(), books_.queue.end(), [this](const auto& each) {
      return each.second.version <= books_.flushed_version;
    });
  }

  std::uint64_t version_on_hub(int epoch) const {
    const auto& there = world_.hub.models().at(model_id).metrics;
    const auto found = there.find(epoch);
    return found == there.end() ? 0 : version_of(found->second);
  }

  void check_hub_values(const values_by_version& values_of) const {
    for (const auto& [epoch, there] : world_.hub.models().at(model_id).metrics)
      rules::values_arrive_exactly(there, values_of(version_of(there)));
  }

  // Takes in the replies that have reached the session by now.
  void settle() {
    if (books_.sent && now() >= books_.sent->due)
      settle_metrics(*std::exchange(books_.sent, std::nullopt));
    if (books_.uploading && now() >= books_.uploading->due) {
      if (books_.uploading->arrived && !books_.uploading->is_final) ++books_.counted.checkpoints;
      books_.uploading.reset();
    }
  }

  // A reply that was spoilt on its way may count or not, but where it counts, HUB has the values.
  void settle_metrics(const sent_metrics& sent) {
    account& counted = books_.counted;
    if (sent.refused) {
      if (sent.batch.size() == 1) counted.set_aside += strike_out(sent, true);
      return;
    }
    const bool counts =
        session_ ? session_->status().epochs_delivered > counted.delivered : sent.confirmed;
    rules::delivered_is_on_hub(counts, sent.on_hub);
    if (counts || sent.confirmed) counted.delivered += strike_out(sent, false);
  }

  std::size_t strike_out(const sent_metrics& sent, bool for_good) {
    std::size_t count = 0;
    for (const sent_epoch& each : sent.batch) {
      const auto at = books_.queue.find(each.epoch);
      if (at == books_.queue.end() || at->second.version != each.version) continue;
      books_.queue.erase(at);
      if (for_good) set_aside_.insert(each.epoch);
      ++count;
    }
    return count;
  }

  // A full queue drops its oldest epochs, and only then.
  void drop_what_did_not_fit() {
    waiting_epochs& queue = books_.queue;
    std::size_t bytes = 0;
    for (const auto& each : queue) bytes += each.second.bytes;
    const std::size_t most = options_.limits.metrics_queue_bytes_max;
    for (auto left = session_->status().epochs_set_aside - set_aside(); left > 0; --left) {
      rules::only_a_full_queue_drops(bytes, queue.size(), most);
      rules::require(!queue.empty(), "an empty queue drops nothing");
      bytes -= queue.begin()->second.bytes;
      set_aside_.insert(queue.begin()->first);
      queue.erase(queue.begin());
      ++books_.counted.set_aside;
    }
    rules::queue_keeps_to_its_bound(bytes, most);
  }

  // ---- uploads ---------------------------------------------------------------------------------

  hub::reply upload(const hub::request& what) {
    settle();
    const std::string head = read_head(what);
    const bool is_final = field(head, "type") == "final";
    const int epoch = std::atoi(field(head, "epoch").c_str());
    rules::one_upload_at_a_time(now(), lane(endpoint::upload).busy_until);
    rules::final_model_is_the_last_upload(books_.final_was_sent, is_final);
    rules::final_model_waits_for_metrics(is_final, books_.queue.size(), faulty);
    const bool repeats = books_.uploaded_epoch == epoch && books_.final_was_sent == is_final;
    // A new checkpoint is held by its rate limit and not by the budget.
    if (!repeats) forget_backoff(endpoint::upload);
    check_lane(endpoint::upload, false);
    if (!repeats) check_first_attempt(epoch, is_final);
    books_.uploaded_epoch = epoch;
    books_.final_was_sent = is_final;

    const auto& there = world_.hub.model(model_id).checkpoints;
    const std::size_t before_it = there.size();
    hub::reply out = world_.hub.answer(what);
    if (upload_answered) upload_answered();
    const bool arrived = there.size() > before_it;
    if (arrived) check_arrived(there.back(), epoch, is_final);
    const bool confirmed = !out.failure && out.status >= 200 && out.status < 300;
    books_.uploading = sent_upload{now() + out.latency, confirmed && arrived, is_final};
    return out;
  }

  // The form's fields; the file that comes after them is not touched.
  static std::string read_head(const hub::request& what) {
    std::string head(1024, '\0');
    const auto got = what.content->read(0, head);
    head.resize(got ? *got : 0);
    return head;
  }

  static std::string field(const std::string& head, std::string_view name) {
    const std::string lead = "name=\"" + std::string(name) + "\"\r\n\r\n";
    const std::size_t at = head.find(lead);
    if (at == head.npos) return {};
    return head.substr(at + lead.size(), head.find("\r\n", at + lead.size()) - at - lead.size());
  }

  void check_first_attempt(int epoch, bool is_final) {
    const bool flushed = is_final || books_.saves[epoch].at <= books_.upload_flushed_at;
    // A checkpoint whose file failed was not sent, so the next one need not wait.
    const std::size_t failed = session_ ? session_->status().checkpoints_failed : 0;
    const bool unsent = failed > std::exchange(books_.uploads_failed, failed);
    rules::checkpoints_keep_their_rate_limit(now(), books_.first_attempt_at,
                                             options_.rate_limits.checkpoint, flushed || unsent);
    books_.first_attempt_at = now();
  }

  void check_arrived(const hub::testing::checkpoint_record& arrived, int epoch, bool is_final) {
    rules::upload_says_what_it_is(arrived.epoch == epoch && arrived.is_final == is_final &&
                                  arrived.map == (is_final ? map_ : 0));
    rules::no_torn_checkpoint(
        files_.was_written_whole(is_final ? "best.pt" : "last.pt", arrived.hash));
    if (!is_final && options_.snapshot == hub::snapshot::copy)
      rules::checkpoint_arrives_as_it_was_saved(books_.saves[epoch].hashes, arrived.hash);
  }

  hub::testing::simulation& world_;
  trainer_files& files_;
  trace& trace_;
  std::optional<broken> broken_;
  std::uint64_t requests_ = 0;

  // Of the program, over all of its sessions.
  std::map<int, std::uint64_t> expected_;  // epoch -> the newest version told
  std::set<int> set_aside_;                // of these
  std::uint64_t newest_ = 0;
  double map_ = 0;

  session_type* session_ = nullptr;
  fault_kind met_ = fault_kind::none;  // by the latest request
  hub::session_options options_;
  books books_;
};

}  // namespace simulate
