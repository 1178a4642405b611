// SPDX-License-Identifier: MIT
//
// What must hold, whatever fails. Each rule is a function of plain values that throws `broken` where
// they break it; the referee says when, and main which seed and how to replay it.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "../../hub_session.hpp"
#include "metrics.hpp"
#include "trace.hpp"

namespace simulate {

struct broken : std::runtime_error {
  using std::runtime_error::runtime_error;
  std::optional<time_point> at = {};  // where it was not thrown at once
};

// What the referee counts, to be compared with what the session says of itself.
struct account {
  std::size_t accepted = 0;
  std::size_t delivered = 0;
  std::size_t set_aside = 0;
  std::size_t checkpoints = 0;
};

// An epoch that was told and not confirmed.
struct waiting_epoch {
  std::uint64_t version = 0;
  std::size_t bytes = 0;
};
using waiting_epochs = std::map<int, waiting_epoch>;

namespace rules {

inline void require(bool holds, const char* rule) {
  if (!holds) throw broken(rule);
}

// ---- nothing is lost ---------------------------------------------------------------------------

inline void accepted_is_delivered_queued_or_set_aside(const hub::session_status& said) {
  require(
      said.epochs_accepted == said.epochs_delivered + said.epochs_queued + said.epochs_set_aside,
      "accepted = delivered + queued + set aside");
}

inline void every_epoch_is_accounted_for(const hub::session_status& said, const account& counted,
                                         std::size_t queued) {
  require(said.epochs_accepted == counted.accepted, "every epoch told is accepted, once");
  require(said.epochs_queued == queued, "what is not confirmed stays queued");
  require(said.epochs_delivered == counted.delivered, "what HUB confirmed counts as delivered");
  require(said.epochs_set_aside == counted.set_aside, "only what HUB refuses alone is set aside");
  require(said.checkpoints_delivered == counted.checkpoints,
          "checkpoints on HUB count as delivered");
}

inline void delivered_is_on_hub(bool counted, bool on_hub) {
  require(!counted || on_hub, "what counts as delivered is on HUB");
}

inline void last_value_is_on_hub(std::uint64_t there, std::uint64_t told, bool set_aside) {
  require(set_aside || there == told, "the last value of every epoch is on HUB");
}

// Where a program dies, `least` is the last value that its spool promised to keep.
inline void promised_value_is_on_hub(std::uint64_t there, std::uint64_t least) {
  require(there >= least, "what the spool promised to keep is on HUB");
}

inline void values_arrive_exactly(const nlohmann::json& there, const metric_list& told) {
  require(same_metrics(there, told), "values arrive exactly");
}

// A session that ends takes with it what HUB had not confirmed, and nothing else.
inline void kill_loses_only_unconfirmed(std::uint64_t there, std::uint64_t told, bool unconfirmed,
                                        bool set_aside) {
  require(there == told || unconfirmed || set_aside,
          "an end loses only what HUB had not confirmed");
}

inline void kill_in_good_times_loses_nothing(const waiting_epochs& left) {
  require(left.empty(), "where nothing fails and time is enough, an end loses nothing");
}

inline void delivery_is_honest(const hub::delivery& said, const account& counted,
                               std::size_t queued, bool final_on_hub, bool checkpoint_waits) {
  require(said.epochs_delivered == counted.delivered && said.epochs_queued == queued &&
              said.epochs_set_aside == counted.set_aside &&
              said.checkpoints_delivered == counted.checkpoints,
          "a delivery says what was delivered");
  require(!said.final_model_delivered || final_on_hub,
          "a final model that is said to be delivered is on HUB");
  require(!said.complete() || (queued == 0 && counted.set_aside == 0 && !checkpoint_waits),
          "complete means that nothing is missing");
}

inline void without_faults_all_completes(const hub::delivery& said, bool may_miss,
                                         bool final_possible) {
  require(may_miss || said.complete(), "without faults everything completes");
  require(said.final_model_delivered == final_possible, "without faults the final model arrives");
}

inline void last_checkpoint_is_tried_at_the_end(const hub::session_status& before,
                                                const hub::session_status& after) {
  require(!before.checkpoint_waiting ||
              after.checkpoints_delivered > before.checkpoints_delivered ||
              after.checkpoints_failed > before.checkpoints_failed,
          "without a final model the last checkpoint is still delivered");
}

// ---- order -------------------------------------------------------------------------------------

inline void batch_is_the_beginning_of_the_queue(std::span<const sent_epoch> batch,
                                                const waiting_epochs& queue) {
  require(!batch.empty(), "a request holds at least one epoch");
  auto next = queue.begin();
  for (const sent_epoch& each : batch) {
    require(next != queue.end() && next->first == each.epoch,
            "a request holds the first epochs that wait, in order");
    require(next->second.version == each.version, "the last value of an epoch wins");
    ++next;
  }
}

inline void final_model_is_the_last_upload(bool final_was_sent, bool is_final) {
  require(is_final || !final_was_sent, "the final model is the last upload");
}

inline void final_model_waits_for_metrics(bool is_final, std::size_t queued, bool given_up) {
  require(!is_final || queued == 0 || given_up, "the final model comes after the metrics");
}

inline void nothing_follows_the_end(std::uint64_t requests_then, std::uint64_t requests_now) {
  require(requests_then == requests_now, "after the end nothing is sent");
}

inline void epochs_go_in_order(bool earlier_are_there) {
  require(earlier_are_there, "an epoch goes after those before it");
}

inline void ending_is_last(bool all_is_there) {
  require(all_is_there, "the end goes after everything else");
}

inline void chunks_are_numbered(bool follows) {
  require(follows, "chunks of lines are numbered from 1 on, without a gap");
}

inline void lines_are_in_order(bool follows) {
  require(follows, "lines arrive in the order in which they were printed, each once");
}

// `promised`: the session was not killed before the spool had it.
inline void line_is_there_once(int times, bool promised) {
  require(times <= 1, "a line that was printed once is there once");
  require(times == 1 || !promised, "every line that was promised is there");
}

// ---- a run on the Platform -----------------------------------------------------------------------

inline void nothing_is_refused(bool may_be) {
  require(may_be, "the Platform is sent nothing that it refuses");
}

inline void run_is_made_once(std::size_t models, std::size_t most) {
  require(models <= most, "a run is made once, however often its session is killed");
}

inline void run_ends_once(std::size_t completed) {
  require(completed == 1, "a run is completed, and only once");
}

inline void run_stays_open(bool is_open) {
  require(is_open, "a run that will be resumed stays open");
}

inline void end_in_the_middle_is_told(bool failed) {
  require(failed, "a run that ends in the middle is told as failed");
}

inline void stop_is_heard(bool heard) { require(heard, "a wish to stop reaches the program"); }

// ---- pace --------------------------------------------------------------------------------------

inline void metrics_keep_their_rate_limit(time_point now, time_point earlier, duration limit,
                                          bool flushed) {
  require(flushed || now >= earlier + limit, "metrics are never faster than their rate limit");
}

inline void checkpoints_keep_their_rate_limit(time_point now, time_point earlier, duration limit,
                                              bool flushed) {
  require(flushed || now >= earlier + limit, "checkpoints are never faster than their rate limit");
}

inline void heartbeats_keep_their_rate_limit(time_point now, time_point earlier, duration limit,
                                             bool answered) {
  require(!answered || now >= earlier + limit, "heartbeats are never faster than their interval");
}

// Not even while HUB fails: backoff may bring a beat forward, never put it off.
inline void heart_beats_in_time(time_point now, time_point due) {
  require(now <= due, "heartbeats are never further apart than their interval");
}

inline void heart_rests_when_stopped(bool beats) {
  require(beats, "no heartbeat after it was stopped");
}

inline void one_request_at_a_time(time_point now, time_point busy_until) {
  require(now >= busy_until, "a lane sends one request at a time");
}

inline void one_upload_at_a_time(time_point now, time_point busy_until) {
  require(now >= busy_until, "one upload at a time");
}

inline void backoff_is_kept(time_point now, time_point not_before) {
  require(now >= not_before, "Retry-After and the wait after a refusal are kept");
}

inline void retry_budget_is_kept(time_point used_until, time_point allowed_until) {
  require(used_until <= allowed_until, "the retry budget is kept");
}

inline void minute_limit_is_kept(std::size_t in_a_minute, std::size_t most) {
  require(in_a_minute < most, "no minute has more requests than the server allows");
}

inline void what_waits_is_tried(time_point now, time_point latest) {
  require(now <= latest, "what waits is tried before long");
}

inline void deadline_is_kept(duration took, duration deadline) {
  require(took <= deadline, "a call that blocks keeps to its deadline");
}

inline void training_is_not_held_up(duration took) {
  require(took == duration::zero(), "a callback of the training takes no time");
}

// ---- checkpoints -------------------------------------------------------------------------------

inline void no_torn_checkpoint(bool was_written_whole) {
  require(was_written_whole, "no torn checkpoint arrives");
}

inline void checkpoint_arrives_as_it_was_saved(const std::set<std::uint64_t>& saved,
                                               std::uint64_t arrived) {
  require(saved.contains(arrived), "a checkpoint arrives as it was when it was saved");
}

inline void upload_says_what_it_is(bool as_sent) { require(as_sent, "an upload says what it is"); }

inline void no_snapshot_is_left_behind(std::size_t leftovers) {
  require(leftovers == 0, "no snapshot outlives its session");
}

// ---- bounds ------------------------------------------------------------------------------------

inline void queue_keeps_to_its_bound(std::size_t bytes, std::size_t bytes_max) {
  require(bytes <= bytes_max, "the queue keeps to its bound");
}

// With 256 bytes for what an entry costs beside its values, which is more than it counts for.
inline void only_a_full_queue_drops(std::size_t bytes, std::size_t epochs, std::size_t bytes_max) {
  require(bytes + 256 * epochs > bytes_max, "nothing that fits into the queue is dropped");
}

inline void batch_keeps_to_its_bounds(std::span<const sent_epoch> batch,
                                      const hub::limit_options& limits) {
  std::size_t bytes = 0;
  for (const sent_epoch& each : batch) bytes += each.bytes;
  require(batch.size() <= limits.metrics_batch_epochs_max, "a batch holds few epochs");
  require(batch.size() == 1 || bytes <= limits.metrics_batch_bytes_max, "a batch holds few bytes");
}

// ---- words -------------------------------------------------------------------------------------

inline void no_secret_is_said(std::string_view text, std::string_view secret) {
  require(text.find(secret) == text.npos, "no log line, error or address holds the key");
  require(text.find("Signature=") == text.npos, "no log line or error holds a URL's query");
}

inline void no_callback_fails(std::string_view text) {
  require(text.find("A report is lost") == text.npos, "no callback throws");
}

inline void agent_id_is_sent_back(bool sent_back) {
  require(sent_back, "the agent id is adopted and sent back");
}

}  // namespace rules
}  // namespace simulate
