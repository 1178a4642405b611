// SPDX-License-Identifier: MIT
//
// Tests of the engine's lane of metrics, as scripts: batches, bounds, refusals, and flushes of them.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/engine_script.hpp"

namespace engine_metrics_tests {

namespace {

using namespace script;
using hub::session_options;
using epochs = std::vector<int>;

}  // namespace

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

}  // namespace engine_metrics_tests
