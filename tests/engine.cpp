// SPDX-License-Identifier: MIT
//
// Tests of the engine, as scripts: what the trainer does, what goes out, what comes back.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
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

// Waits that a test can name.
session_options steady(session_options options = {}) {
  options.retry.jitter = false;
  return options;
}

epochs from_to(int first, int last) {
  epochs out;
  for (int number = first; number <= last; ++number) out.push_back(number);
  return out;
}

bool says(const std::vector<hub::note>& notes, std::string_view piece) {
  return std::any_of(notes.begin(), notes.end(), [&](const hub::note& said) {
    return said.text.find(piece) != std::string::npos;
  });
}

// Whether every accepted epoch is accounted for.
bool adds_up(const hub::session_status& status) {
  return status.epochs_accepted ==
         status.epochs_delivered + status.epochs_queued + status.epochs_set_aside;
}

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

// ---- metrics --------------------------------------------------------------------------------

TEST_CASE("the first metrics go out one interval after training starts") {
  training run;
  run.wait(1min);
  run.start();
  run.wait(1s);
  run.start();  // a second time changes nothing
  CHECK_FALSE(run.due(lane::epochs));
  run.epoch(0);
  CHECK(run.due(lane::epochs) == 1min + 3s);
  CHECK(run.batch().empty());
  run.wait_for(lane::epochs);
  CHECK(run.batch() == epochs{0});
}

TEST_CASE("training starts with the first epoch where nobody says so") {
  training run;
  run.wait(1min);
  run.epoch(0);
  CHECK(run.due(lane::epochs) == 1min + 3s);
}

TEST_CASE("what comes while metrics are in flight goes with the next request, in its time") {
  training run;
  run.epoch(0);
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  run.epoch(2);
  run.epoch(1);
  CHECK_FALSE(run.due(lane::epochs));
  run.wait(1s);
  run.answer(lane::epochs, delivered());
  CHECK(run.due(lane::epochs) == 6s);
  run.wait_for(lane::epochs);
  CHECK(run.batch() == epochs{1, 2});
  run.answer(lane::epochs, delivered());
  CHECK_FALSE(run.due(lane::epochs));
  CHECK(run.engine.status().epochs_delivered == 3);
}

TEST_CASE("epochs go out in order of their numbers, whatever order they came in") {
  constexpr int least = std::numeric_limits<int>::min(), most = std::numeric_limits<int>::max();
  training run;
  for (int number : {7, most, -1, 3, least, 0, 3}) run.epoch(number);
  run.wait_for(lane::epochs);
  CHECK(run.batch() == epochs{least, -1, 0, 3, 7, most});
  run.answer(lane::epochs, delivered());
  CHECK(run.engine.status().epochs_accepted == 6);
  CHECK(run.engine.epochs_done());
}

TEST_CASE("a batch is bounded in epochs") {
  training run;
  run.epochs(0, 204);
  std::vector<std::size_t> sizes;
  while (run.due(lane::epochs)) {
    run.wait_for(lane::epochs);
    sizes.push_back(run.batch().size());
    run.answer(lane::epochs, delivered());
  }
  CHECK(sizes == std::vector<std::size_t>{100, 100, 5});
}

TEST_CASE("a batch is bounded in bytes, but an epoch above the bound goes alone") {
  const std::size_t one = values(0)->json_bytes();
  session_options options;
  options.limits.metrics_batch_bytes_max = 3 * one;
  training run(options);
  const auto large = std::make_shared<const hub::epoch_record>(
      hub::metrics_view({{std::string(10 * one, 'n'), 1.0}}));
  run.epochs(0, 3);
  run.engine.handle_epoch(4, large, run.now());
  run.epoch(5);
  std::vector<epochs> batches;
  while (run.due(lane::epochs)) {
    run.wait_for(lane::epochs);
    batches.push_back(run.batch());
    run.answer(lane::epochs, delivered());
  }
  CHECK(batches == std::vector<epochs>{{0, 1, 2}, {3}, {4}, {5}});
}

TEST_CASE("bounds of zero still let one epoch through at a time") {
  session_options options;
  options.limits.metrics_batch_epochs_max = 0;
  options.limits.metrics_batch_bytes_max = 0;
  training run(options);
  run.epochs(0, 1);
  run.wait_for(lane::epochs);
  CHECK(run.batch() == epochs{0});
  run.answer(lane::epochs, delivered());
  run.wait_for(lane::epochs);
  CHECK(run.batch() == epochs{1});
}

TEST_CASE("the last write for an epoch wins while it waits") {
  training run;
  run.epoch(0, 1.5);
  run.epoch(0, 2.5);
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  CHECK(run.losses == std::vector<double>{2.5});
  run.answer(lane::epochs, delivered());
  CHECK(run.engine.status().epochs_accepted == 1);
  CHECK(run.engine.status().epochs_delivered == 1);
}

TEST_CASE("the last write for an epoch wins while its old values are in flight") {
  training run(steady());
  run.epoch(0, 1.5);
  run.epoch(1, 1.5);
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0, 1});
  run.epoch(0, 2.5);

  SECTION("and they arrive") {
    run.answer(lane::epochs, delivered());
    CHECK(run.engine.status().epochs_delivered == 1);
    CHECK(run.engine.status().epochs_queued == 1);
    run.wait_for(lane::epochs);
    CHECK(run.batch() == epochs{0});
    CHECK(run.losses == std::vector<double>{2.5});
  }
  SECTION("and they do not") {
    run.answer(lane::epochs, failed());
    run.wait_for(lane::epochs);
    CHECK(run.batch() == epochs{0, 1});
    CHECK(run.losses == std::vector<double>{2.5, 1.5});
  }
  run.answer(lane::epochs, delivered());
  CHECK(run.engine.status().epochs_accepted == 2);
  CHECK(run.engine.status().epochs_delivered == 2);
}

TEST_CASE("an epoch whose old values are refused while new ones wait is not set aside") {
  training run;
  run.epoch(0, 1.5);
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  run.epoch(0, 2.5);
  run.answer(lane::epochs, refused());
  CHECK(run.engine.status().epochs_set_aside == 0);
  CHECK(run.said() == 0);
  run.wait_for(lane::epochs);
  CHECK(run.batch() == epochs{0});
  CHECK(run.losses == std::vector<double>{2.5});
  run.answer(lane::epochs, delivered());
  CHECK(run.engine.status().epochs_delivered == 1);
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("nothing is dropped for a failed request, of whatever kind; all goes with the next") {
  const outcome failure = GENERATE(failed(), failed(hub::errc::not_reachable),
                                   failed(hub::errc::rate_limited, 20s), denied());
  training run(steady());
  run.epochs(0, 1);
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0, 1});
  run.answer(lane::epochs, failure);
  run.epoch(2);
  run.wait_for(lane::epochs);
  CHECK(run.batch() == epochs{0, 1, 2});
  run.answer(lane::epochs, delivered());
  CHECK(run.engine.status().epochs_delivered == 3);
}

TEST_CASE("failed metrics wait for their backoff and for their rate limit, whichever is later") {
  training run(steady());
  run.epoch(0);
  std::vector<duration> gaps;
  duration last = 0s;
  for (int i = 0; i < 6; ++i) {
    run.wait_for(lane::epochs);
    REQUIRE_FALSE(run.batch().empty());
    gaps.push_back(run.elapsed() - last);
    last = run.elapsed();
    run.answer(lane::epochs, failed());
  }
  CHECK(gaps == std::vector<duration>{3s, 3s, 3s, 4s, 8s, 16s});
}

TEST_CASE("before training ends metrics are never given up") {
  session_options options = steady();
  options.retry.final_retries_max = 2;
  training run(options);
  run.epoch(0);
  for (int i = 0; i < 300; ++i) {
    run.wait_for(lane::epochs);
    REQUIRE(run.batch() == epochs{0});
    run.answer(lane::epochs, i % 2 == 0 ? failed() : denied());
  }
  CHECK_FALSE(run.engine.epochs_done());
  CHECK(run.engine.status().epochs_queued == 1);
}

TEST_CASE("an epoch that HUB refuses for good is set aside, counted and said") {
  training run;
  run.epoch(0);
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  run.answer(lane::epochs, refused());
  CHECK(run.engine.epochs_done());
  CHECK(run.engine.status().epochs_set_aside == 1);
  CHECK(run.engine.status().epochs_queued == 0);
  const auto notes = run.notes();
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].level == hub::log_level::error);
  CHECK(says(notes, "epoch 0"));
  CHECK(says(notes, "It was refused."));
  REQUIRE(run.engine.delivery().why);
  CHECK(run.engine.delivery().why->code == hub::errc::rejected);
  CHECK_FALSE(run.engine.delivery().complete());
}

TEST_CASE("a refused batch is halved until the culprits are alone, and the others arrive") {
  const auto seed = GENERATE(range(1U, 60U));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const int size = 1 + static_cast<int>(random() % 64);
  std::set<int> culprits;
  const std::uint64_t wanted =
      1 + random() % std::min<std::uint64_t>(3, static_cast<unsigned>(size));
  while (culprits.size() < wanted)
    culprits.insert(static_cast<int>(random() % static_cast<unsigned>(size)));

  training run;
  run.epochs(0, size - 1);
  std::set<int> arrived;
  std::size_t requests = 0;
  while (!run.engine.epochs_done() && requests < 1000) {
    run.wait_for(lane::epochs);
    const epochs sent = run.batch();
    ++requests;
    const bool bad = std::any_of(sent.begin(), sent.end(),
                                 [&](int number) { return culprits.count(number) > 0; });
    if (!bad) arrived.insert(sent.begin(), sent.end());
    run.answer(lane::epochs, bad ? refused() : delivered());
    if (!adds_up(run.engine.status())) FAIL_CHECK("the counts do not add up");
  }
  CHECK(run.engine.status().epochs_set_aside == culprits.size());
  CHECK(run.engine.status().epochs_delivered == static_cast<std::size_t>(size) - culprits.size());
  CHECK(arrived.size() == static_cast<std::size_t>(size) - culprits.size());
  CHECK(run.said() == culprits.size());
  CHECK(requests <= culprits.size() * 16 + 16);  // each costs at most twice the halvings of 64

  // Afterwards batches are as large as ever.
  run.epochs(1000, 1099);
  run.wait_for(lane::epochs);
  CHECK(run.batch() == from_to(1000, 1099));
}

TEST_CASE("a batch that is refused for its size alone arrives in halves, and halving ends there") {
  training run;
  run.epochs(0, 9);
  std::vector<epochs> arrived;
  while (!run.engine.epochs_done()) {
    run.wait_for(lane::epochs);
    const epochs sent = run.batch();
    if (sent.size() <= 3) arrived.push_back(sent);
    run.answer(lane::epochs, sent.size() <= 3 ? delivered() : refused());
  }
  CHECK(arrived == std::vector<epochs>{{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}});
  CHECK(run.engine.status().epochs_set_aside == 0);
  CHECK(run.said() == 0);
  CHECK(run.engine.delivery().complete());
  run.epochs(10, 29);
  run.wait_for(lane::epochs);
  CHECK(run.batch() == from_to(10, 29));
}

TEST_CASE("halving keeps to the rate limit") {
  training run;
  run.epochs(0, 15);
  duration last = 0s;
  while (!run.engine.epochs_done()) {
    run.wait_for(lane::epochs);
    const epochs sent = run.batch();
    if (run.elapsed() - last < 3s) FAIL_CHECK("after " << (run.elapsed() - last) / 1ms << " ms");
    last = run.elapsed();
    run.answer(lane::epochs, sent.front() <= 9 && sent.back() >= 9 ? refused() : delivered());
  }
  CHECK(run.engine.status().epochs_set_aside == 1);
}

TEST_CASE("a failure amid halving loses neither the halves nor an epoch") {
  training run(steady());
  run.epochs(0, 7);
  std::mt19937_64 random(5);
  while (!run.engine.epochs_done()) {
    run.wait_for(lane::epochs);
    const epochs sent = run.batch();
    const bool bad = std::count(sent.begin(), sent.end(), 5) > 0;
    run.answer(lane::epochs, random() % 2 == 0 ? failed() : bad ? refused() : delivered());
  }
  CHECK(run.engine.status().epochs_set_aside == 1);
  CHECK(run.engine.status().epochs_delivered == 7);
}

TEST_CASE("above its bound of bytes the queue sets the oldest epochs aside, and says so once") {
  const std::size_t one = values(0)->size_bytes() + 128;
  session_options options;
  options.limits.metrics_queue_bytes_max = 10 * one;
  training run(options);
  run.epochs(0, 9);
  CHECK(run.engine.status().epochs_queued == 10);
  CHECK(run.said() == 0);
  run.epochs(10, 14);
  CHECK(run.engine.status().epochs_queued == 10);
  CHECK(run.engine.status().epochs_set_aside == 5);
  CHECK(run.engine.status().epochs_accepted == 15);
  const auto notes = run.notes();
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].level == hub::log_level::error);
  CHECK(says(notes, "metrics_queue_bytes_max"));
  REQUIRE(run.engine.delivery().why);
  CHECK(run.engine.delivery().why->code == hub::errc::queue_full);
  run.wait_for(lane::epochs);
  CHECK(run.batch() == from_to(5, 14));
}

TEST_CASE("rewriting an epoch does not fill the queue") {
  session_options options;
  options.limits.metrics_queue_bytes_max = 10 * (values(0)->size_bytes() + 128);
  training run(options);
  for (int i = 0; i < 1000; ++i) run.epoch(i % 10, i);
  CHECK(run.engine.status().epochs_queued == 10);
  CHECK(run.engine.status().epochs_set_aside == 0);
}

TEST_CASE("an epoch larger than the whole queue is set aside, and the queue still works") {
  session_options options;
  options.limits.metrics_queue_bytes_max = 4096;
  training run(options);
  run.engine.handle_epoch(0,
                          std::make_shared<const hub::epoch_record>(
                              hub::metrics_view({{std::string(1 << 20, 'n'), 1.0}})),
                          run.now());
  CHECK(run.engine.status().epochs_set_aside == 1);
  CHECK(run.engine.epochs_done());
  run.epoch(1);
  run.wait_for(lane::epochs);
  CHECK(run.batch() == epochs{1});
}

TEST_CASE("epochs that the queue sets aside while they are in flight are counted once") {
  session_options options;
  options.limits.metrics_queue_bytes_max = 2 * (values(0)->size_bytes() + 128);
  training run(options);
  run.epochs(0, 1);
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0, 1});
  run.epochs(2, 3);
  const auto answer = GENERATE(delivered(), failed(), refused());
  run.answer(lane::epochs, answer);
  CHECK(adds_up(run.engine.status()));
  CHECK(run.engine.status().epochs_accepted == 4);
  CHECK(run.engine.status().epochs_queued == 2);
}

TEST_CASE("a flush sends the queue at once, batch upon batch, and then the rate limit is back") {
  session_options options;
  options.limits.metrics_batch_epochs_max = 2;
  training run(options);
  run.epochs(0, 2);
  run.wait(1s);
  run.flush(lane::epochs);
  CHECK(run.batch() == epochs{0, 1});
  run.answer(lane::epochs, delivered());
  CHECK(run.batch() == epochs{2});
  run.answer(lane::epochs, delivered());
  run.epoch(3);
  CHECK(run.due(lane::epochs) == 4s);
}

TEST_CASE("a flush tries at once what waits for its backoff") {
  training run(steady());
  run.epoch(0);
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  run.answer(lane::epochs, denied());
  CHECK(run.due(lane::epochs) == 3s + 5min);
  run.wait(10s);
  run.flush(lane::epochs);
  CHECK(run.batch() == epochs{0});
  run.answer(lane::epochs, failed());
  CHECK(run.due(lane::epochs) == 13s + 1s);
}

TEST_CASE("a flush of an empty queue opens no gate for later epochs") {
  training run;
  run.start();
  run.flush(lane::epochs);
  run.wait(1s);
  run.epoch(0);
  CHECK(run.due(lane::epochs) == 3s);
}

TEST_CASE("a flush ends where HUB refuses the last of what it was for") {
  training run;
  run.epoch(0);
  run.wait(1s);
  run.flush(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  run.epoch(1);
  run.answer(lane::epochs, refused());
  CHECK(run.due(lane::epochs) == 4s);
}

TEST_CASE("a flush asks soon about a refusal, for a minute, and keeps everything") {
  training run(steady());
  run.epoch(0);
  run.flush(lane::epochs);
  const duration first = run.elapsed();
  std::vector<duration> tries;
  while (!run.engine.done()) {
    run.wait_for(lane::epochs);
    REQUIRE(run.batch() == epochs{0});
    tries.push_back(run.elapsed() - first);
    run.answer(lane::epochs, denied());
  }
  CHECK(tries == std::vector<duration>{0s, 1s, 3s, 7s, 15s, 31s, 60s});
  CHECK(says(run.notes(), "limits.denied_deadline"));
  CHECK(run.engine.delivery().epochs_queued == 1);
  CHECK_FALSE(run.engine.delivery().complete());

  // From here on it is asked as seldom as ever, and a further flush asks once.
  CHECK(run.due(lane::epochs) == run.elapsed() + 5min);
  run.flush(lane::epochs);
  CHECK_FALSE(run.engine.done());
  REQUIRE(run.batch() == epochs{0});
  run.answer(lane::epochs, denied());
  CHECK(run.engine.done());
  CHECK_FALSE(says(run.notes(), "limits.denied_deadline"));
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  run.answer(lane::epochs, delivered());
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("a refusal that passes within the minute costs nothing, and its minute is over with it") {
  training run(steady());
  for (int epoch = 0; epoch < 3; ++epoch) {
    run.epoch(epoch);
    run.flush(lane::epochs);
    for (int i = 0; i < 6; ++i) {
      run.wait_for(lane::epochs);
      REQUIRE(run.batch() == epochs{epoch});
      run.answer(lane::epochs, i < 5 ? denied() : delivered());
    }
    CHECK(run.elapsed() == (epoch + 1) * 31s);
  }
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("a refusal that names a wait beyond the bound ends a flush at once") {
  training run(steady());
  run.epoch(0);
  run.flush(lane::epochs);
  REQUIRE(run.batch() == epochs{0});
  run.answer(lane::epochs, denied(61s));
  CHECK(run.engine.done());
}

TEST_CASE("the end waits a minute for a server that refuses everything, not a minute a lane") {
  for (duration bound : {1min, 5min, 0min}) {
    session_options options = steady();
    options.limits.denied_deadline = bound;
    training run(options);
    run.sign_in();
    run.start();
    run.wait(1h);
    run.epoch(0);
    const duration before = run.elapsed();
    run.end(0);
    for (int i = 0; i < 100 && !run.engine.done(); ++i) {
      const lane next = run.engine.deadline(lane::epochs) <= run.engine.deadline(lane::uploads)
                            ? lane::epochs
                            : lane::uploads;
      run.wait_for(next);
      REQUIRE(run.engine.poll(next, run.now()));
      run.answer(next, denied());
    }
    CHECK(run.engine.done());
    CHECK(run.elapsed() - before == bound);
    const hub::delivery left = run.engine.delivery();
    CHECK(left.epochs_queued == 1);
    CHECK_FALSE(left.final_model_delivered);
    REQUIRE(left.why);
    CHECK(left.why->http_status == 401);
    CHECK(run.engine.take_struck().epochs.empty());
  }
}

TEST_CASE("a run that cannot be made holds up neither its uploads nor its console at the end") {
  const session_options options = steady();
  hub::engine decide(options.rate_limits, options.retry, options.limits, 1,
                     {.registers = true, .completes = true, .takes_console = true});
  hub::time_point now = hub::time_point{} + 1000h;
  decide.handle_signed_in(now, false);
  decide.handle_epoch(0, values(1), now);
  decide.handle_console({.lines = {"a line"}}, now);
  decide.handle_train_end(hub::checkpoint{{.epoch = 0, .is_final = true}, "best.pt"}, now,
                          std::make_shared<const hub::run_ending>());
  const hub::time_point before = now;
  for (int i = 0; i < 100 && !decide.done(); ++i) {
    now = std::max(now, decide.deadline(lane::epochs));
    REQUIRE(decide.poll(lane::epochs, now));
    decide.handle_outcome(lane::epochs, denied(), now);
  }
  CHECK(decide.done());
  CHECK(now - before == 1min);
}

TEST_CASE("a heartbeat that is refused at the end is asked about in its usual time") {
  training run(steady());
  run.sign_in();
  run.end_without_model();
  REQUIRE(run.beat());
  run.answer(lane::life, denied());
  CHECK(run.due(lane::life) == 5min);
  CHECK_FALSE(says(run.notes(), "limits.denied_deadline"));
}

TEST_CASE("values that are not finite are said once") {
  training run;
  const auto odd = std::make_shared<const hub::epoch_record>(hub::metrics_view(
      {{"a", std::numeric_limits<double>::infinity()}, {"b", 0.0}, {"c", std::nan("")}}));
  run.epoch(0);
  CHECK(run.said() == 0);
  run.engine.handle_epoch(1, odd, run.now());
  const auto notes = run.notes();
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].level == hub::log_level::warning);
  CHECK(says(notes, "2 metric(s) of epoch 1"));
  run.engine.handle_epoch(2, odd, run.now());
  CHECK(run.said() == 0);
}

// ---- checkpoints ----------------------------------------------------------------------------

TEST_CASE("a checkpoint is wanted an interval after training starts, and after the last one") {
  training run;
  run.start();
  CHECK_FALSE(run.wants_checkpoint());
  run.wait(15min - 1ns);
  CHECK_FALSE(run.wants_checkpoint());
  run.wait(1ns);
  CHECK(run.wants_checkpoint());
  run.wait(5min);
  CHECK(run.wants_checkpoint());
  run.save(1);
  CHECK_FALSE(run.wants_checkpoint());
  run.wait(15min);
  CHECK(run.wants_checkpoint());
}

TEST_CASE("the first question for a checkpoint starts the training where nothing else did") {
  training run;
  run.wait(1h);
  CHECK_FALSE(run.wants_checkpoint());
  run.wait(15min);
  CHECK(run.wants_checkpoint());
}

TEST_CASE("a checkpoint goes out at once, as it was given, one at a time") {
  training run;
  run.start();
  run.wait(15min);
  CHECK_FALSE(run.due(lane::uploads));
  run.engine.handle_checkpoint({{.epoch = 7, .is_best = true}, "runs/last.pt", nullptr}, run.now());
  CHECK(run.engine.status().checkpoint_waiting);
  const auto sent = run.upload();
  REQUIRE(sent);
  CHECK(sent->fields.epoch == 7);
  CHECK(sent->fields.is_best);
  CHECK_FALSE(sent->fields.is_final);
  CHECK(sent->file == "runs/last.pt");
  CHECK_FALSE(run.due(lane::uploads));
  run.wait(10min);
  run.answer(lane::uploads, delivered());
  CHECK_FALSE(run.due(lane::uploads));
  CHECK_FALSE(run.engine.status().checkpoint_waiting);
  CHECK(run.engine.status().checkpoints_delivered == 1);
}

TEST_CASE("a failed checkpoint is repeated with growing waits, whatever its rate limit") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  std::vector<duration> gaps;
  duration last = 15min;
  for (int i = 0; i < 5; ++i) {
    run.wait_for(lane::uploads);
    REQUIRE(run.uploaded_epoch() == 1);
    gaps.push_back(run.elapsed() - last);
    last = run.elapsed();
    run.answer(lane::uploads, i == 3 ? denied() : failed());
  }
  CHECK(gaps == std::vector<duration>{0s, 1s, 2s, 4s, 5min});
  CHECK(run.engine.status().checkpoints_failed == 0);
}

TEST_CASE("a newer checkpoint replaces one that waits, and begins anew") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, denied(15min));
  CHECK(run.due(lane::uploads) == 30min);
  run.wait(14min);
  run.save(2);
  CHECK(run.due(lane::uploads) == 30min);  // its own rate limit, not the old one's backoff
  run.wait_for(lane::uploads);
  CHECK(run.uploaded_epoch() == 2);
  run.answer(lane::uploads, failed());
  CHECK(run.due(lane::uploads) == 30min + 1s);
}

TEST_CASE("a newer checkpoint waits for one in flight, whatever becomes of that") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.wait(20min);
  run.save(2);
  run.save(3);
  CHECK(run.uploaded_epoch() == -1);
  CHECK(run.engine.replaced_upload_in_flight());
  const auto [answer, arrived, failures] =
      GENERATE(table<outcome, std::size_t, std::size_t>({{delivered(), 1, 0},
                                                         {failed(), 0, 0},
                                                         {denied(), 0, 0},
                                                         {refused(), 0, 0},
                                                         {file_changed(), 0, 0}}));
  run.answer(lane::uploads, answer);
  CHECK_FALSE(run.engine.replaced_upload_in_flight());
  CHECK(run.engine.status().checkpoints_delivered == arrived);
  CHECK(run.engine.status().checkpoints_failed == failures);
  CHECK(run.uploaded_epoch() == 3);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.status().checkpoints_delivered == arrived + 1);
  CHECK_FALSE(run.due(lane::uploads));
}

TEST_CASE("a checkpoint that replaces a flushed one waits for its own rate limit") {
  training run;
  run.start();
  run.wait(15min);
  run.save(1);
  run.flush(lane::uploads);
  REQUIRE(run.uploaded_epoch() == 1);
  run.save(2);
  run.answer(lane::uploads, failed());
  CHECK(run.due(lane::uploads) == 30min);
}

TEST_CASE("a flush sends a checkpoint whatever its rate limit, once") {
  training run(steady());
  run.start();
  run.wait(1min);
  run.save(1);
  run.flush(lane::uploads);
  CHECK(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, delivered());
  run.wait(1min);
  run.save(2);
  CHECK(run.due(lane::uploads) == 16min);
}

TEST_CASE("a file that changes under the upload is sent again at once, so often and no more") {
  session_options options = steady();
  options.limits.upload_restarts_max = 3;
  training run(options);
  run.start();
  run.wait(15min);
  run.save(1);
  for (int i = 0; i < 4; ++i) {
    CHECK(run.engine.status().checkpoints_failed == 0);
    REQUIRE(run.uploaded_epoch() == 1);
    run.answer(lane::uploads, file_changed());
  }
  CHECK_FALSE(run.due(lane::uploads));
  CHECK(run.engine.status().checkpoints_failed == 1);
  CHECK_FALSE(run.engine.status().checkpoint_waiting);
  const auto notes = run.notes();
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].level == hub::log_level::error);
  CHECK(says(notes, "The file changed."));
  CHECK(run.wants_checkpoint());
}

TEST_CASE("restarts are counted for each checkpoint by itself, and not as failures") {
  session_options options = steady();
  options.limits.upload_restarts_max = 1;
  training run(options);
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, file_changed());
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, failed());
  CHECK(run.due(lane::uploads) == 15min + 1s);
  run.wait(15min);
  run.save(2);
  REQUIRE(run.uploaded_epoch() == 2);
  run.answer(lane::uploads, file_changed());
  CHECK(run.uploaded_epoch() == 2);
}

TEST_CASE("an upload that begins anew for another reason waits longer each time, and is kept") {
  session_options options = steady();
  options.limits.upload_restarts_max = 1;
  training run(options);
  run.start();
  run.wait(15min);
  run.save(1);
  hub::duration wait = 1s;
  for (int i = 0; i < 6; ++i, wait *= 2) {
    REQUIRE(run.uploaded_epoch() == 1);
    run.answer(lane::uploads, {.verdict = hub::verdict::advanced, .so_far = {.step = 1}});
    REQUIRE(run.uploaded_epoch() == 1);  // the next step goes at once
    const hub::duration then = run.elapsed();
    run.answer(lane::uploads, {.verdict = hub::verdict::restart,
                               .why = {hub::errc::access_denied, "The URL is over.", 403}});
    REQUIRE(run.due(lane::uploads) == then + wait);
    run.wait(wait);
  }
  CHECK(run.engine.status().checkpoint_waiting);
  CHECK(run.notes().size() == 1);
}

TEST_CASE("a checkpoint that could not be read leaves its turn to the next one") {
  training run;
  run.start();
  run.wait(15min);
  SECTION("when it was saved") {
    REQUIRE(run.wants_checkpoint());
    run.engine.handle_checkpoint_failure({hub::errc::file_error, "It is a directory.", 0});
    CHECK_FALSE(run.due(lane::uploads));
  }
  SECTION("when it was to be sent") {
    run.save(1);
    REQUIRE(run.uploaded_epoch() == 1);
    run.answer(lane::uploads, file_missing());
  }
  CHECK(run.engine.status().checkpoints_failed == 1);
  CHECK(run.said() == 1);
  CHECK(run.wants_checkpoint());
  run.wait(1s);
  run.save(2);
  CHECK(run.uploaded_epoch() == 2);  // nothing was sent, so no rate limit has begun
}

TEST_CASE("a checkpoint that HUB refuses for good is counted and said, and the rate limit stands") {
  training run;
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, refused());
  CHECK(run.engine.status().checkpoints_failed == 1);
  CHECK_FALSE(run.engine.status().checkpoint_waiting);
  CHECK(run.said() == 1);
  run.wait(1s);
  if (run.wants_checkpoint()) run.save(2);
  run.wait(14min);
  CHECK(run.uploaded_epoch() == -1);
}

TEST_CASE("a snapshot is let go as soon as its upload is over, replaced or given up") {
  training run(steady());
  run.start();
  struct any_copy : hub::upload_copy {
    hub::result<std::shared_ptr<hub::body_source>> open() const override { return hub::error{}; }
  };
  const auto saved = [&](int number) {
    const auto snapshot = std::make_shared<const any_copy>();
    run.save(number, snapshot);
    return std::weak_ptr<const any_copy>(snapshot);
  };
  run.wait(15min);
  const auto replaced = saved(1);
  CHECK_FALSE(replaced.expired());
  const auto delivered_one = saved(2);
  CHECK(replaced.expired());
  { CHECK(run.uploaded_epoch() == 2); }
  CHECK_FALSE(delivered_one.expired());
  run.answer(lane::uploads, delivered());
  CHECK(delivered_one.expired());

  run.wait(15min);
  const auto refused_one = saved(3);
  CHECK(run.uploaded_epoch() == 3);
  run.answer(lane::uploads, refused());
  CHECK(refused_one.expired());

  run.wait(15min);
  const auto waiting = saved(4);
  run.end(5);
  CHECK(waiting.expired());
}

// ---- the end of training --------------------------------------------------------------------

TEST_CASE("at the end metrics go out without waiting, then the final model") {
  training run(steady());
  run.epochs(0, 149);
  run.wait(1s);
  run.end(149);
  CHECK_FALSE(run.engine.epochs_done());
  CHECK_FALSE(run.engine.done());
  CHECK(run.uploaded_epoch() == -1);
  CHECK(run.batch() == from_to(0, 99));
  run.answer(lane::epochs, delivered());
  CHECK(run.uploaded_epoch() == -1);
  CHECK(run.batch() == from_to(100, 149));
  run.answer(lane::epochs, delivered());
  CHECK(run.engine.epochs_done());
  const auto sent = run.upload();
  REQUIRE(sent);
  CHECK(sent->fields.is_final);
  CHECK(sent->file == "best.pt");
  CHECK_FALSE(run.engine.delivery().complete());
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.done());
  const hub::delivery delivery = run.engine.delivery();
  CHECK(delivery.complete());
  CHECK(delivery.epochs_delivered == 150);
  CHECK(delivery.final_model_wanted);
  CHECK(delivery.final_model_delivered);
  CHECK(delivery.checkpoints_delivered == 0);
}

TEST_CASE("at the end a checkpoint that waits gives way to the final model") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, denied());
  run.end(2);
  const auto sent = run.upload();
  REQUIRE(sent);
  CHECK(sent->fields.is_final);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.done());
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("at the end a checkpoint in flight is finished first, never alongside the final model") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.end(2);
  CHECK(run.engine.replaced_upload_in_flight());
  CHECK(run.uploaded_epoch() == -1);
  const auto [answer, arrived] = GENERATE(table<outcome, std::size_t>(
      {{delivered(), 1}, {failed(hub::errc::cancelled), 0}, {refused(), 0}, {file_changed(), 0}}));
  run.answer(lane::uploads, answer);
  CHECK_FALSE(run.engine.replaced_upload_in_flight());
  CHECK_FALSE(run.engine.done());
  const auto sent = run.upload();
  REQUIRE(sent);
  CHECK(sent->fields.is_final);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.delivery().complete());
  CHECK(run.engine.delivery().checkpoints_delivered == arrived);
}

TEST_CASE("without a final model the end waits for a checkpoint in flight alone") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.end_without_model();
  CHECK_FALSE(run.engine.replaced_upload_in_flight());
  CHECK_FALSE(run.engine.done());
  run.answer(lane::uploads, failed());
  CHECK_FALSE(run.engine.done());
  run.wait_for(lane::uploads);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.done());
  CHECK(run.engine.delivery().complete());
  CHECK_FALSE(run.engine.delivery().final_model_wanted);
}

TEST_CASE("without a final model a checkpoint that waits is still sent, or said to be missing") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, failed());
  run.end_without_model();
  const bool sent = run.uploaded_epoch() == 1;
  if (sent) run.answer(lane::uploads, delivered());
  CHECK(run.engine.delivery().complete() == sent);
}

TEST_CASE("an end with nothing left to send is done at once") {
  training run;
  run.start();
  run.end_without_model();
  CHECK(run.engine.epochs_done());
  CHECK(run.engine.done());
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("after the end no checkpoint is wanted or taken") {
  training run;
  run.start();
  run.end_without_model();
  run.wait(1h);
  CHECK_FALSE(run.wants_checkpoint());
  run.save(9);
  CHECK_FALSE(run.due(lane::uploads));
  CHECK_FALSE(run.engine.status().checkpoint_waiting);
}

TEST_CASE("after the end each lane is given up after its retries, and the reason is kept") {
  session_options options = steady();
  options.retry.final_retries_max = GENERATE(0U, 1U, 10U);
  const unsigned tries = options.retry.final_retries_max + 1;
  training run(options);
  run.epoch(0);
  run.end(0);
  for (unsigned i = 0; i < tries; ++i) {
    CHECK_FALSE(run.engine.epochs_done());
    run.wait_for(lane::epochs);
    REQUIRE(run.batch() == epochs{0});
    run.answer(lane::epochs, failed(hub::errc::not_reachable));
  }
  CHECK(run.engine.epochs_done());
  CHECK_FALSE(run.due(lane::epochs));
  for (unsigned i = 0; i < tries; ++i) {
    CHECK_FALSE(run.engine.done());
    run.wait_for(lane::uploads);
    REQUIRE(run.uploaded_epoch() == 0);
    run.answer(lane::uploads, failed(hub::errc::timed_out));
  }
  CHECK(run.engine.done());
  CHECK_FALSE(run.due(lane::uploads));
  const hub::delivery delivery = run.engine.delivery();
  CHECK_FALSE(delivery.complete());
  CHECK(delivery.epochs_queued == 1);
  CHECK(delivery.final_model_wanted);
  CHECK_FALSE(delivery.final_model_delivered);
  REQUIRE(delivery.why);
  CHECK(delivery.why->code == hub::errc::timed_out);
}

TEST_CASE("failures before the end do not count against the final retries") {
  training run(steady());
  run.epoch(0);
  for (int i = 0; i < 20; ++i) {
    run.wait_for(lane::epochs);
    REQUIRE_FALSE(run.batch().empty());
    run.answer(lane::epochs, failed());
  }
  run.end(0);
  CHECK_FALSE(run.engine.epochs_done());
  CHECK(run.batch() == epochs{0});
}

TEST_CASE("a final model that HUB refuses, or whose file is missing, is over at once and said") {
  const auto [answer, code] = GENERATE(table<outcome, hub::errc>(
      {{refused(), hub::errc::rejected}, {file_missing(), hub::errc::file_error}}));
  training run;
  run.start();
  run.end(3);
  REQUIRE(run.uploaded_epoch() == 3);
  run.answer(lane::uploads, answer);
  CHECK(run.engine.done());
  CHECK(run.said() == 1);
  CHECK_FALSE(run.engine.delivery().final_model_delivered);
  REQUIRE(run.engine.delivery().why);
  CHECK(run.engine.delivery().why->code == code);
}

TEST_CASE("a checkpoint that failed is no gap once the final model has arrived") {
  training run;
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, refused());
  CHECK_FALSE(run.engine.delivery().complete());
  run.end(2);
  REQUIRE(run.uploaded_epoch() == 2);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("a delivery is not complete while a checkpoint waits or is in flight") {
  training run;
  run.start();
  run.wait(15min);
  run.save(1);
  CHECK_FALSE(run.engine.delivery().complete());
  REQUIRE(run.uploaded_epoch() == 1);
  CHECK_FALSE(run.engine.delivery().complete());
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("after a stop nothing goes out, and what comes back still counts") {
  training run;
  run.sign_in();
  run.epochs(0, 1);
  REQUIRE(run.beat());
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0, 1});
  run.engine.handle_stop();
  run.answer(lane::epochs, delivered());
  run.answer(lane::life, delivered());
  run.epoch(2);
  run.save(2);
  run.wait(1h);
  for (lane which : hub::all_lanes) {
    CHECK_FALSE(run.due(which));
    CHECK_FALSE(run.engine.poll(which, run.now()));
  }
  CHECK(run.engine.epochs_done());
  CHECK(run.engine.done());
  CHECK(run.engine.status().epochs_delivered == 2);
  CHECK_FALSE(run.engine.delivery().complete());
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
