// SPDX-License-Identifier: MIT
//
// Tests of the engine, as scripts: what the trainer does, what goes out, what comes back. Here are
// heartbeats, and what all lanes have in common: waits, the retry budget, status and notes, the plans of
// a start and of a download. Metrics and uploads have files of their own beside this one.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/engine_script.hpp"
#include "support/text.hpp"

#if defined(HUB_SESSION_ASSERT) && defined(__unix__)
#include <csignal>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace engine_tests {

namespace {

using namespace script;
using hub::session_options;
using epochs = std::vector<int>;

}  // namespace

// ---- heartbeats -----------------------------------------------------------------------------

TEST_CASE("the first heartbeat is due when the session is signed in, and not before") {
  training run;
  CHECK_FALSE(run.due(lane::life));
  CHECK_FALSE(run.beat());
  run.wait(10s);
  run.sign_in();
  CHECK(run.due(lane::life) == 10s);
  CHECK(run.beat());
}

TEST_CASE("heartbeats go out at the interval, from the start of one to the start of the next") {
  training run;
  run.sign_in();
  for (int beats = 0; beats < 5; ++beats) {
    CHECK(run.due(lane::life) == beats * 5min);
    run.wait_for(lane::life);
    REQUIRE(run.beat());
    run.wait(7s);
    run.answer(lane::life, delivered());
    run.wait(4min);
    CHECK_FALSE(run.beat());
  }
  CHECK(run.engine.status().heartbeats_answered == 5);
}

TEST_CASE("there is one heartbeat at a time, and a slow one is followed at once") {
  training run;
  run.sign_in();
  REQUIRE(run.beat());
  CHECK_FALSE(run.due(lane::life));
  run.wait(7min);
  CHECK_FALSE(run.beat());
  run.answer(lane::life, delivered());
  CHECK(run.due(lane::life) == 7min);
  REQUIRE(run.beat());
  run.answer(lane::life, delivered());
  CHECK(run.due(lane::life) == 12min);
}

TEST_CASE("after a long pause of the machine there is one heartbeat, not one for each missed") {
  training run;
  run.sign_in();
  REQUIRE(run.beat());
  run.answer(lane::life, delivered());
  run.wait(10h);
  REQUIRE(run.beat());
  run.answer(lane::life, delivered());
  CHECK_FALSE(run.beat());
  CHECK(run.due(lane::life) == 10h + 5min);
}

TEST_CASE("status() says when a heartbeat was answered and when the next is due or left") {
  training run;
  run.sign_in();
  const auto asked = [&] { return run.engine.status(); };
  CHECK_FALSE(asked().last_heartbeat);
  CHECK(asked().next_heartbeat == run.now());
  run.wait(2s);
  REQUIRE(run.beat());
  const hub::time_point left = run.now();
  run.wait(3s);
  CHECK(asked().next_heartbeat == left);
  run.answer(lane::life, delivered());
  CHECK(asked().last_heartbeat == run.now());
  CHECK(asked().next_heartbeat == left + 5min);
  run.engine.handle_stop_heartbeat();
  CHECK_FALSE(asked().next_heartbeat);
}

TEST_CASE("a heartbeat that was answered late is noted, with how long its own request took") {
  training run;
  run.sign_in();
  REQUIRE(run.beat());
  run.answer(lane::life, delivered());
  for (const auto& [held_up, took, is_late] :
       {std::tuple(0s, 0s, false), {299s, 0s, false}, {400s, 30s, true}, {0s, 700s, true}}) {
    const hub::time_point before = run.now();
    run.wait_for(lane::life);
    run.wait(held_up);
    REQUIRE(run.beat());
    run.wait(took);
    run.answer(lane::life, delivered());
    const auto notes = run.notes();
    REQUIRE(notes.size() == (is_late ? 1 : 0));
    if (!is_late) continue;
    const std::string gap = std::to_string((run.now() - before) / 1s);
    INFO(notes[0].text);
    CHECK(contains(notes[0].text, "answered " + gap + " s after the one before"));
    CHECK(contains(notes[0].text, std::to_string(took / 1s) + " s of which its own request took"));
  }
}

TEST_CASE("a failed heartbeat is repeated with growing waits, up to the interval") {
  training run(steady());
  run.sign_in();
  std::vector<duration> gaps;
  duration last = 0s;
  for (int i = 0; i < 12; ++i) {
    run.wait_for(lane::life);
    REQUIRE(run.beat());
    gaps.push_back(run.elapsed() - last);
    last = run.elapsed();
    run.answer(lane::life, failed());
  }
  CHECK(gaps == std::vector<duration>{0s, 1s, 2s, 4s, 8s, 16s, 32s, 64s, 128s, 256s, 5min, 5min});
}

TEST_CASE("a heartbeat that gets through ends the growing waits") {
  training run(steady());
  run.sign_in();
  for (int i = 0; i < 6; ++i) {
    run.wait_for(lane::life);
    REQUIRE(run.beat());
    run.answer(lane::life, i == 4 ? delivered() : failed());
  }
  CHECK(run.due(lane::life) == run.elapsed() + 1s);
}

TEST_CASE("whatever heartbeats come to, they go on and are never further apart than the interval") {
  const auto seed = GENERATE(range(1U, 20U));
  CAPTURE(seed);
  session_options options;
  options.retry.seed = seed;
  training run(options);
  run.sign_in();
  std::mt19937_64 random(seed);
  const std::vector<outcome> answers = {
      delivered(), failed(),       failed(hub::errc::rate_limited, 15min), denied(),
      refused(),   file_missing(), failed(hub::errc::cancelled),           denied(24h)};
  for (int i = 0; i < 500; ++i) {
    run.wait_for(lane::life);
    const duration began = run.elapsed();
    REQUIRE(run.beat());
    const duration took = std::chrono::seconds(random() % 400);
    run.wait(took);
    run.answer(lane::life, answers[static_cast<std::size_t>(random() % answers.size())]);
    const auto next = run.due(lane::life);
    REQUIRE(next);
    if (*next < run.elapsed() || *next > began + std::max<duration>(took, 5min))
      FAIL_CHECK("beat " << i << " is followed after " << (*next - began) / 1s << " s");
  }
}

TEST_CASE("a heartbeat that HUB refuses for good is repeated, said, and in the status") {
  training run(steady());
  run.sign_in();
  REQUIRE(run.beat());
  run.answer(lane::life, refused());
  CHECK(run.due(lane::life) == 1s);
  CHECK(run.engine.status().heartbeats_answered == 0);
  CHECK(run.engine.status().unanswered_since == run.now());
  CHECK(run.said() == 1);
}

TEST_CASE("heartbeats end when they are told to, also one that is in flight") {
  training run;
  run.sign_in();
  REQUIRE(run.beat());
  run.engine.handle_stop_heartbeat();
  run.answer(lane::life, failed());
  CHECK_FALSE(run.due(lane::life));
  run.wait(1h);
  CHECK_FALSE(run.beat());
}

// ---- backoff and the retry budget -----------------------------------------------------------

namespace {

std::vector<duration> waits(const hub::retry_options& options, std::uint64_t seed, int count,
                            const outcome& why = failed()) {
  hub::backoff backoff(options);
  std::mt19937_64 random(seed);
  std::vector<duration> out;
  for (int i = 0; i < count; ++i) out.push_back(backoff.next(why, random));
  return out;
}

}  // namespace

TEST_CASE("without jitter the wait doubles from the first delay to the longest") {
  CHECK(waits({.jitter = false}, 1, 11) ==
        std::vector<duration>{1s, 2s, 4s, 8s, 16s, 32s, 64s, 128s, 256s, 300s, 300s});
  CHECK(waits({.first_delay = 10s, .delay_max = 3s, .jitter = false}, 1, 2) ==
        std::vector<duration>{3s, 3s});
  CHECK(waits({.first_delay = 0s, .jitter = false}, 1, 3) == std::vector<duration>{0s, 0s, 0s});
}

TEST_CASE("with jitter each wait is spread over all of what it would be without") {
  const auto longest = waits({.jitter = false}, 0, 12);
  std::array<duration, 12> least, most, sum{};
  least.fill(duration::max());
  most.fill(duration::min());
  constexpr int runs = 2000;
  for (std::uint64_t seed = 0; seed < runs; ++seed) {
    const auto row = waits({}, seed, 12);
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (row[i] < 0s || row[i] > longest[i]) FAIL_CHECK("out of bounds with seed " << seed);
      least[i] = std::min(least[i], row[i]);
      most[i] = std::max(most[i], row[i]);
      sum[i] += row[i];
    }
  }
  for (std::size_t i = 0; i < longest.size(); ++i) {
    CHECK(least[i] < longest[i] / 100);
    CHECK(most[i] > longest[i] - longest[i] / 100);
    CHECK(sum[i] / runs > longest[i] * 46 / 100);
    CHECK(sum[i] / runs < longest[i] * 54 / 100);
  }
}

TEST_CASE("the same seed gives the same waits, another seed others") {
  CHECK(waits({}, 7, 10) == waits({}, 7, 10));
  CHECK(waits({}, 7, 10) != waits({}, 8, 10));
}

TEST_CASE("a reset begins the doubling anew") {
  hub::backoff backoff(hub::retry_options{.jitter = false});
  std::mt19937_64 random(1);
  for (int i = 0; i < 5; ++i) static_cast<void>(backoff.next(failed(), random));
  CHECK(backoff.failures() == 5);
  backoff.reset();
  CHECK(backoff.failures() == 0);
  CHECK(backoff.next(failed(), random) == 1s);
}

TEST_CASE("HUB's Retry-After is the least that is waited, up to its bound") {
  using row = std::pair<duration, duration>;
  const auto [asked, granted] = GENERATE(values<row>({{0s, 0s},
                                                      {1ns, 1ns},
                                                      {90s, 90s},
                                                      {15min, 15min},
                                                      {15min + 1ns, 15min},
                                                      {24h, 15min},
                                                      {duration::max(), 15min},
                                                      {-1s, 0s},
                                                      {duration::min(), 0s}}));
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const auto wait = waits({}, seed, 1, failed(hub::errc::rate_limited, asked)).front();
    if (wait < granted || wait > granted + 1s)
      FAIL_CHECK("asked " << asked / 1ms << " ms, got " << wait / 1ms);
  }
  CHECK(waits({.jitter = false}, 1, 1, failed(hub::errc::rate_limited, asked)).front() ==
        granted + 1s);
}

TEST_CASE("while HUB refuses us there is a try per interval, or later where it says so") {
  CHECK(waits({}, 1, 4, denied()) == std::vector<duration>{5min, 5min, 5min, 5min});
  CHECK(waits({}, 1, 1, denied(10min)) == std::vector<duration>{10min});
  CHECK(waits({}, 1, 1, denied(24h)) == std::vector<duration>{15min});
  CHECK(waits({}, 1, 1, denied(1s)) == std::vector<duration>{5min});
}

TEST_CASE("a longest delay without bound does not turn the waits over") {
  const auto row = waits({.delay_max = duration::max(), .jitter = false}, 1, 100);
  CHECK(std::is_sorted(row.begin(), row.end()));
  CHECK(row.front() == 1s);
  CHECK(row.back() > 24h);
  for (duration wait : waits({.delay_max = duration::max()}, 1, 100)) CHECK(wait >= 0s);
}

TEST_CASE("the retry budget lets a burst through, and then one per refill") {
  constexpr hub::time_point begin{1000h};
  hub::retry_budget budget(3, 30s);
  std::vector<duration> granted;
  for (int i = 0; i < 6; ++i) granted.push_back(budget.take(begin, begin) - begin);
  CHECK(granted == std::vector<duration>{0s, 0s, 0s, 30s, 60s, 90s});
}

TEST_CASE("the retry budget fills up again, to a burst and no further") {
  constexpr hub::time_point begin{1000h};
  hub::retry_budget budget(2, 30s);
  for (int i = 0; i < 3; ++i) static_cast<void>(budget.take(begin, begin));
  const hub::time_point later = begin + 10h;
  CHECK(budget.take(later, later) == later);
  CHECK(budget.take(later, later) == later);
  CHECK(budget.take(later, later) == later + 30s);
}

TEST_CASE("a retry that is wanted later than the budget allows is not moved") {
  constexpr hub::time_point begin{1000h};
  hub::retry_budget budget(1, 30s);
  CHECK(budget.take(begin, begin) == begin);
  CHECK(budget.take(begin + 31s, begin + 31s) == begin + 31s);
  CHECK(budget.take(begin + 45s, begin + 45s) == begin + 61s);
}

TEST_CASE("a retry far ahead takes one from the budget, not all that would come until then") {
  session_options options = steady();
  options.retry.budget = 5;
  options.rate_limits.heartbeat = 1h;
  training run(options);
  run.sign_in();
  run.epoch(0);
  REQUIRE(run.beat());
  run.answer(lane::life, failed(hub::errc::rate_limited, 15min));
  CHECK(run.due(lane::life) == 15min + 1s);
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  run.wait(5s);
  run.answer(lane::epochs, failed());
  CHECK(run.due(lane::epochs) == 8s + 1s);
}

TEST_CASE("heartbeats in their time take nothing from the budget") {
  session_options options = steady();
  options.rate_limits.heartbeat = 10s;
  training run(options);
  run.sign_in();
  run.start();
  for (int i = 0; i < 100; ++i) {
    run.wait_for(lane::life);
    REQUIRE(run.beat());
    run.answer(lane::life, failed());
  }
  run.epoch(0);
  REQUIRE(run.batch() == epochs{0});
  const duration failed_at = run.elapsed();
  run.answer(lane::epochs, failed());
  CHECK(run.due(lane::epochs) == failed_at + 3s);  // its rate limit
}

TEST_CASE("a checkpoint that is replaced gives its retry back to the budget") {
  session_options options = steady();
  options.rate_limits.checkpoint = 0s;
  training run(options);
  run.start();
  run.wait(3s);
  for (int i = 0; i < 100; ++i) {
    run.save(i);
    REQUIRE(run.uploaded_epoch() == i);
    run.answer(lane::uploads, failed());
  }
  run.epoch(0);
  REQUIRE(run.batch() == epochs{0});
  run.answer(lane::epochs, failed());
  CHECK(run.due(lane::epochs) == 3s + 3s);  // its rate limit
}

TEST_CASE("a budget may be without bound, or of nothing but its refill") {
  constexpr hub::time_point begin{1000h};
  hub::retry_budget boundless(std::numeric_limits<unsigned>::max(), 30s);
  int delayed = 0;
  for (int i = 0; i < 1000; ++i)
    if (boundless.take(begin, begin) != begin) ++delayed;
  CHECK(delayed == 0);
  hub::retry_budget none(0, 30s);
  CHECK(none.take(begin, begin) == begin);
  CHECK(none.take(begin, begin) == begin + 30s);
}

TEST_CASE("all lanes share the budget, so that a dead HUB gets little") {
  session_options options;
  options.retry.seed = 3;
  training run(options);
  run.sign_in();
  run.start();
  run.wait(15min);
  run.epochs(0, 9);
  run.save(9);
  constexpr duration outage = 24h;
  const duration begin = run.elapsed();
  std::map<lane, std::size_t> requests;
  while (run.elapsed() - begin < outage) {
    lane next = lane::life;
    for (lane which : hub::all_lanes)
      if (run.engine.deadline(which) < run.engine.deadline(next)) next = which;
    run.wait_for(next);
    REQUIRE(run.engine.poll(next, run.now()));
    ++requests[next];
    run.answer(next, failed(hub::errc::not_reachable));
  }
  // The doubling alone leaves a request per five minutes at most, 150 s on average.
  CHECK(requests[lane::life] <= outage / 150s * 11 / 10);
  CHECK(requests[lane::epochs] <= outage / 150s * 11 / 10);
  CHECK(requests[lane::uploads] <= outage / 150s * 11 / 10);
  CHECK(requests[lane::life] >= static_cast<std::size_t>(outage / 5min));
}

TEST_CASE(
    "the budget bounds what three quickly failing lanes send, heartbeats in their time aside") {
  session_options options;
  options.retry.first_delay = options.retry.delay_max = 10ms;
  options.retry.seed = 4;
  options.rate_limits.metrics = 0s;
  training run(options);
  run.sign_in();
  run.start();
  run.wait(15min);
  run.epoch(0);
  run.save(0);
  constexpr duration outage = 1h;
  const duration begin = run.elapsed();
  std::size_t requests = 0;
  for (;; ++requests) {
    lane next = lane::life;
    for (lane which : hub::all_lanes)
      if (run.engine.deadline(which) < run.engine.deadline(next)) next = which;
    run.wait_for(next);
    if (run.elapsed() - begin > outage) break;
    REQUIRE(run.engine.poll(next, run.now()));
    run.answer(next, failed(hub::errc::not_reachable));
  }
  CHECK(requests >= 100);
  CHECK(requests <=
        30 + static_cast<std::size_t>(outage / 30s) + static_cast<std::size_t>(outage / 5min) + 3);
}

TEST_CASE("a rate limit without end means never") {
  session_options options;
  options.rate_limits = {
      .metrics = duration::max(), .checkpoint = duration::max(), .heartbeat = duration::max()};
  training run(options);
  run.sign_in();
  REQUIRE(run.beat());
  run.answer(lane::life, delivered());
  CHECK_FALSE(run.due(lane::life));
  run.epoch(0);
  CHECK_FALSE(run.due(lane::epochs));
  run.wait(10000h);
  CHECK_FALSE(run.wants_checkpoint());
  CHECK(run.batch().empty());
  run.end(0);
  CHECK(run.batch() == epochs{0});
}

// ---- status and notes -----------------------------------------------------------------------

TEST_CASE("the status says since when HUB has not answered, and the latest reason") {
  training run(steady());
  run.sign_in();
  CHECK_FALSE(run.engine.status().unanswered_since);
  REQUIRE(run.beat());
  run.wait(5s);
  run.answer(lane::life, failed(hub::errc::not_reachable));
  const hub::time_point since = run.now();
  run.wait_for(lane::life);
  REQUIRE(run.beat());
  run.answer(lane::life, failed(hub::errc::timed_out));
  CHECK(run.engine.status().unanswered_since == since);
  REQUIRE(run.engine.status().unanswered_why);
  CHECK(run.engine.status().unanswered_why->code == hub::errc::timed_out);
  run.wait_for(lane::life);
  REQUIRE(run.beat());
  run.answer(lane::life, delivered());
  CHECK_FALSE(run.engine.status().unanswered_since);
  CHECK_FALSE(run.engine.status().unanswered_why);
}

TEST_CASE("a row of failures is said once, and so is its end") {
  training run(steady());
  run.sign_in();
  for (int i = 0; i < 20; ++i) {
    run.wait_for(lane::life);
    REQUIRE(run.beat());
    run.answer(lane::life, failed(hub::errc::not_reachable));
  }
  auto notes = run.notes();
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].level == hub::log_level::warning);
  CHECK(says(notes, "It failed."));
  CHECK(says(notes, "signs of life"));
  for (int i = 0; i < 3; ++i) {
    run.wait_for(lane::life);
    REQUIRE(run.beat());
    run.answer(lane::life, delivered());
  }
  notes = run.notes();
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].level == hub::log_level::info);
  CHECK(says(notes, "answers again"));
}

TEST_CASE("a row of failures whose reasons take turns says each reason once") {
  training run(steady());
  run.sign_in();
  for (int i = 0; i < 30; ++i) {
    run.wait_for(lane::life);
    REQUIRE(run.beat());
    run.answer(lane::life, i % 3 == 0   ? failed(hub::errc::not_reachable)
                           : i % 3 == 1 ? failed(hub::errc::timed_out)
                                        : denied());
  }
  CHECK(run.said() <= 3);
}

TEST_CASE("each lane says its own failures, and a request that we cut is none") {
  training run(steady());
  run.sign_in();
  run.epoch(0);
  REQUIRE(run.beat());
  run.answer(lane::life, failed(hub::errc::not_reachable));
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  run.answer(lane::epochs, failed(hub::errc::not_reachable));
  CHECK(run.said() == 2);
  run.wait_for(lane::life);
  REQUIRE(run.beat());
  run.answer(lane::life, failed(hub::errc::cancelled));
  CHECK(run.said() == 0);
}

// ---- the accounting, over long random runs --------------------------------------------------

namespace {

// A HUB that takes what arrives, refuses some epochs for good, and loses some of its answers.
struct model_hub {
  std::map<int, double> losses = {};
  std::size_t checkpoints = 0;
  bool refuses(int number) const { return number % 13 == 5; }
};

// What a long run did, to compare two of them.
using trace = std::vector<std::pair<std::uint64_t, hub::duration::rep>>;

// One training against one HUB, whose events are drawn from a seed.
class random_training {
 public:
  explicit random_training(std::uint64_t seed)
      : seed_(seed), random_(seed), run_(drawn_options()), faults_(10 + below(60)) {
    run_.sign_in();
    run_.start();
  }

  // Epochs, checkpoints and flushes as they come, and answers that may be bad or lost.
  void live(int events) {
    for (int i = 0; i < events; ++i) {
      if (chance(30)) report(i);
      if (chance(10) && run_.wants_checkpoint()) run_.save(next_epoch_);
      if (chance(1)) run_.flush(hub::all_lanes[random_() % hub::lane_count]);
      run_.wait(std::chrono::milliseconds(random_() % 4000));
      for (lane which : hub::all_lanes)
        if (chance(60)) step(which, false);
      check();
    }
  }

  // The faults are over: everything completes.
  void end() {
    run_.end(next_epoch_);
    for (int i = 0; i < 10000 && !(run_.engine.epochs_done() && run_.engine.done()); ++i) {
      run_.wait(1s);
      for (lane which : hub::all_lanes) step(which, true);
      check();
    }
    const auto status = run_.engine.status();
    CHECK(status.epochs_queued == 0);
    CHECK(run_.engine.delivery().final_model_delivered);
    CHECK(status.epochs_delivered + status.epochs_set_aside == status.epochs_accepted);
    CHECK(missing() <= status.epochs_set_aside);
    done_.emplace_back(status.epochs_accepted, run_.elapsed().count());
  }

  const trace& done() const { return done_; }

 private:
  unsigned below(unsigned end) { return static_cast<unsigned>(random_() % end); }
  bool chance(unsigned percent) { return below(100) < percent; }

  session_options drawn_options() {
    session_options options;
    options.retry.seed = seed_;
    options.limits.metrics_batch_epochs_max = 1 + below(20);
    options.limits.metrics_queue_bytes_max =
        chance(50) ? 40 * (values(0)->size_bytes() + 128) : 1 << 20;
    return options;
  }

  // Mostly the next epoch, now and then an earlier one again.
  void report(double loss) {
    const int epoch = chance(80) ? next_epoch_++
                                 : static_cast<int>(below(static_cast<unsigned>(next_epoch_) + 1));
    written_[epoch] = loss;
    run_.epoch(epoch, loss);
  }

  void step(lane which, bool healthy) {
    if (run_.engine.in_flight(which)) {
      run_.answer(which, answer_to(which, healthy));
    } else if (which == lane::epochs) {
      flying_ = run_.batch();
      flying_losses_ = run_.losses;
      done_.emplace_back(flying_.size(), run_.elapsed().count());
    } else if (which == lane::uploads) {
      const auto what = run_.upload();
      final_flies_ = what && what->fields.is_final;
      if (what)
        done_.emplace_back(2000 + static_cast<std::uint64_t>(what->fields.epoch),
                           run_.elapsed().count());
    } else if (run_.beat()) {
      done_.emplace_back(1000, run_.elapsed().count());
    }
  }

  outcome answer_to(lane which, bool healthy) {
    const bool lost = !healthy && chance(faults_);
    outcome answer = delivered();
    if (lost) answer = chance(70) ? failed() : denied();
    if (which == lane::epochs) {
      const bool bad =
          std::any_of(flying_.begin(), flying_.end(), [&](int n) { return hub_.refuses(n); });
      const bool arrived = !bad && (!lost || chance(50));  // an answer may be lost after the fact
      for (std::size_t i = 0; arrived && i < flying_.size(); ++i)
        hub_.losses[flying_[i]] = flying_losses_[i];
      if (bad && !lost) answer = refused();
    }
    if (which == lane::uploads && !lost) {
      if (!healthy && chance(20)) answer = chance(50) ? file_changed() : refused();
      if (answer.verdict == verdict::delivered && !final_flies_) ++hub_.checkpoints;
    }
    return answer;
  }

  void check() {
    const auto status = run_.engine.status();
    if (!adds_up(status)) FAIL_CHECK("seed " << seed_ << ": the counts do not add up");
    if (status.checkpoints_delivered != hub_.checkpoints)
      FAIL_CHECK("seed " << seed_ << ": " << status.checkpoints_delivered
                         << " checkpoints are counted");
  }

  // Epochs whose last values HUB does not have.
  std::size_t missing() const {
    return static_cast<std::size_t>(
        std::count_if(written_.begin(), written_.end(), [&](const auto& epoch) {
          const auto arrived = hub_.losses.find(epoch.first);
          return arrived == hub_.losses.end() || arrived->second != epoch.second;
        }));
  }

  std::uint64_t seed_;
  std::mt19937_64 random_;
  training run_;
  unsigned faults_;  // in a hundred answers
  model_hub hub_;
  std::map<int, double> written_;
  int next_epoch_ = 0;
  std::vector<int> flying_;
  std::vector<double> flying_losses_;
  bool final_flies_ = false;
  trace done_;
};

trace long_run(std::uint64_t seed, int events) {
  random_training run(seed);
  run.live(events);
  run.end();
  return run.done();
}

}  // namespace

TEST_CASE(
    "over long random runs every epoch is delivered with its last values, or counted as not") {
  const auto seed = GENERATE(range(1U, 40U));
  CAPTURE(seed);
  const trace first = long_run(seed, 3000);
  CHECK(first.size() > 500);
  CHECK(long_run(seed, 3000) == first);  // the same calls give the same answers
}

// ---- the plans of a start and of a download -----------------------------------------------------

TEST_CASE("a start is tried again where the fault passes, up to its deadline or its last retry") {
  using enum hub::start_plan::step;
  std::mt19937_64 random(1);
  hub::retry_options options = steady().retry;
  options.start_retries_max = 2;
  const hub::time_point end = hub::time_point{} + 1h;
  const auto asked = [&](hub::start_plan& plan, const outcome& came, duration at = 0s) {
    return plan.what_next(came, hub::time_point{} + at, random);
  };
  hub::start_plan plan(options, end);
  CHECK(asked(plan, delivered()) == go_on);
  CHECK(asked(plan, {.verdict = hub::verdict::advanced}) == go_on);
  CHECK(asked(plan, {.verdict = hub::verdict::rejected,
                     .why = {hub::errc::not_authenticated, "key"}}) == go_on);
  CHECK(asked(plan, refused()) == give_up);
  CHECK(asked(plan, {.verdict = hub::verdict::retry, .why = {hub::errc::bad_reply, "a page"}}) ==
        give_up);

  CHECK(asked(plan, failed(), 10s) == wait);
  CHECK(plan.again_at() == hub::time_point{} + 11s);
  CHECK(asked(plan, failed(), 20s) == wait);
  CHECK(plan.again_at() == hub::time_point{} + 22s);
  CHECK(asked(plan, failed(), 30s) == give_up);

  hub::start_plan late(options, end);
  CHECK(asked(late, failed(), 1h - 1s) == give_up);
}

TEST_CASE(
    "a download asks for a fresh URL where its own is refused, and counts what brings nothing") {
  std::mt19937_64 random(1);
  hub::retry_options options = steady().retry;
  options.download_retries_max = 2;
  const hub::time_point end = hub::time_point{} + 1h;
  const outcome denied{.verdict = hub::verdict::denied,
                       .why = {hub::errc::access_denied, "expired"}};
  std::uint64_t bytes = 0;
  const auto asked = [&](hub::download_plan& plan, const outcome& came, std::uint64_t brought = 0) {
    const std::uint64_t before = std::exchange(bytes, bytes + brought);
    return plan.again_at(came, before, bytes, hub::time_point{}, random);
  };
  const auto after = [](duration wait) { return std::optional(hub::time_point{} + wait); };

  hub::download_plan plan(options, end, false);
  CHECK(plan.wants_url());
  CHECK(asked(plan, failed()) == after(1s));
  CHECK(plan.wants_url());
  CHECK(asked(plan, delivered()) == after(0s));
  CHECK_FALSE(plan.wants_url());
  for (int i = 0; i < 5; ++i) CHECK(asked(plan, failed(), 10) == after(1s));
  CHECK(asked(plan, denied) == after(2s));
  CHECK(plan.wants_url());
  CHECK(asked(plan, denied) == std::nullopt);  // the server itself

  hub::download_plan idle(options, end, true);
  CHECK_FALSE(idle.wants_url());
  CHECK(asked(idle, failed()) == after(1s));
  CHECK(asked(idle, failed()) == after(2s));
  CHECK(asked(idle, failed()) == std::nullopt);

  hub::download_plan refused_one(options, end, true);
  CHECK(asked(refused_one, refused()) == std::nullopt);
  hub::download_plan late(options, hub::time_point{} + 1s, true);
  CHECK(asked(late, failed()) == std::nullopt);
}

// ---- what it believes of itself --------------------------------------------------------------

#if defined(HUB_SESSION_ASSERT) && defined(__unix__)
TEST_CASE("where assertions are on, an outcome that no order waits for ends the program") {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);
    ::close(STDERR_FILENO);
    training run;
    run.engine.handle_outcome(lane::epochs, delivered(), hub::time_point{});
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGABRT);
}
#endif

}  // namespace engine_tests
