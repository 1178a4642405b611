// SPDX-License-Identifier: MIT
//
// Tests of the session as a whole: scripts on virtual time, of a run from its start to its end, of flush
// and of the program's own functions. Its start, what it reports and its uploads have files of their own
// beside this one. Nothing here sleeps or reads a clock, so every moment is exact; times are in seconds
// from the script's beginning.

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "support/world.hpp"

namespace session_tests {

namespace {

using namespace std::chrono_literals;
using hub::errc;
using hub::testing::endpoint;
using hub::testing::fault;
using hub::testing::fault_kind;
using hub::testing::http_date;
using nlohmann::json;

}  // namespace

// ---- a whole run --------------------------------------------------------------------------------

TEST_CASE("a session signs in, beats, reports, uploads and ends, in this order") {
  world sim;
  for (endpoint next :
       {endpoint::auth, endpoint::model, endpoint::heartbeat, endpoint::heartbeat,
        endpoint::metrics, endpoint::heartbeat, endpoint::heartbeat, endpoint::metrics,
        endpoint::upload, endpoint::heartbeat, endpoint::metrics, endpoint::upload})
    sim.hub.expect(next);
  auto session = sim.start();
  CHECK(session.model().id == sim.id);
  CHECK(session.model().state == hub::model_state::fresh);
  CHECK(session.model_file() == "yolov8n.yaml");
  CHECK(session.model_url() == "https://hub.test/models/" + sim.id);
  CHECK(session.train_args().epochs == 100);
  CHECK_FALSE(session.train_args().resume);

  session.on_pretrain_routine_end();
  const auto last = sim.folder.write("last.pt", "the last weights");
  for (int epoch = 0; epoch < 3; ++epoch) {
    sim.advance(8min);
    session.on_fit_epoch_end(epoch, {{"train/loss", 0.5 - 0.1 * epoch}, {"lr", 0.25}});
    if (epoch < 2) session.on_model_save(epoch, last, true);
  }
  const auto best = sim.folder.write("best.pt", "the best weights");
  const hub::delivery delivered = session.on_train_end(2, best, 0.4375);

  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 3);
  CHECK(delivered.checkpoints_delivered == 1);
  CHECK(delivered.final_model_delivered);
  CHECK(sim.now() == 3 * 480);
  CHECK(sim.moments(endpoint::upload) == std::vector<double>{960, 1440});

  CHECK(sim.epochs_on_hub() == epochs(0, 2));
  CHECK(sim.model().metrics.at(0).dump() == R"({"lr":0.25,"train/loss":0.5})");
  CHECK(sim.model().heartbeats.front().agent == "cpp-" HUB_SESSION_VERSION "-local");
  REQUIRE(sim.model().checkpoints.size() == 2);
  const auto& checkpoint = sim.model().checkpoints[0];
  CHECK(checkpoint.epoch == 1);
  CHECK(checkpoint.is_best);
  CHECK(checkpoint.hash == hub::testing::content_hash("the last weights"));
  REQUIRE(sim.model().final_model());
  CHECK(sim.model().final_model()->epoch == 2);
  CHECK(sim.model().final_model()->map == 0.4375);
  CHECK(sim.model().final_model()->hash == hub::testing::content_hash("the best weights"));
  CHECK(sim.said("Done"));
}

TEST_CASE("after the end of training nothing is sent any more") {
  world sim;
  auto session = sim.start();
  const hub::delivery delivered = train(sim, session, 3);
  const std::size_t requests = sim.hub.requests().size();
  session.on_fit_epoch_end(3, {{"a", 1}});
  session.on_model_save(3, sim.folder / "last.pt", true);
  session.upload_model(3, sim.folder / "last.pt", true);
  session.upload_metrics();
  sim.advance(1h);
  CHECK(sim.hub.requests().size() == requests);
  CHECK(session.on_train_end(3, sim.folder / "best.pt", 0.5).final_model_delivered);
  CHECK(sim.hub.requests().size() == requests);
  CHECK(delivered.complete());
}

TEST_CASE("a training that HUB has begun already goes on from its last weights") {
  world sim;
  for (auto shape : {hub::testing::reply_shape::flat, hub::testing::reply_shape::nested}) {
    sim.id = sim.hub.add_model({.state = hub::model_state::training, .shape = shape});
    auto session = sim.start();
    CHECK(session.model().state == hub::model_state::training);
    CHECK(session.train_args().resume);
    CHECK(session.model_file() == "last.pt");
    CHECK_FALSE(session.train_args().data.empty());
  }
}

TEST_CASE("a session whose first call is an epoch starts its timers then") {
  world sim;
  auto session = sim.start();
  sim.advance(1h);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(10s);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{3603});
  session.on_model_save(0, sim.folder.write("last.pt", "weights"), false);
  sim.advance(10s);
  CHECK(sim.hub.count(endpoint::upload) == 0);
}

TEST_CASE("training code that is no template reports through the abstract base") {
  world sim;
  auto session = sim.start();
  hub::training_callbacks& callbacks = session;
  CHECK(train(sim, callbacks, 20).complete());
  CHECK(sim.epochs_on_hub() == epochs(0, 19));
  CHECK(sim.model().checkpoints.size() == 2);
}

TEST_CASE("two sessions of one program go their own ways") {
  world sim;
  auto one = sim.start();
  sim.advance(100s);
  const std::string other = sim.hub.add_model();
  auto two = sim.simulation::start(other, sim.with);
  sim.advance(1s);
  one.on_fit_epoch_end(1, {{"a", 1}});
  two.on_fit_epoch_end(2, {{"a", 2}});
  sim.advance(20min);
  CHECK(sim.epochs_on_hub() == epochs(1, 1));
  CHECK(sim.hub.model(other).metrics.begin()->first == 2);
  CHECK(sim.model().heartbeats.front().agent_id !=
        sim.hub.model(other).heartbeats.front().agent_id);
  CHECK(sim.model().heartbeats.size() == 5);
  CHECK(sim.hub.model(other).heartbeats.size() == 5);
}

TEST_CASE("any_transport gives the same run as the transport that it holds") {
  world plain;
  plain.hub.fail_randomly(0.2, 7);
  plain.hub.fail_at(0, {});
  plain.hub.fail_at(1, {});
  {
    auto session = plain.start();
    train(plain, session);
  }
  world erased;
  erased.hub.fail_randomly(0.2, 7);
  erased.hub.fail_at(0, {});
  erased.hub.fail_at(1, {});
  {
    hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                hub::testing::virtual_sleeper>
        session(erased.id, erased.with, hub::testing::fake_transport(erased.hub),
                hub::testing::virtual_clock(erased.time),
                hub::testing::virtual_sleeper(erased.time));
    train(erased, session);
  }
  CHECK(trace_of(plain).size() > 100);
  CHECK(trace_of(plain) == trace_of(erased));
  CHECK(plain.log == erased.log);
}

TEST_CASE("the same seed gives the same run twice, another seed another one") {
  const auto run = [](std::uint64_t seed) {
    world sim;
    sim.with.retry.seed = seed;
    sim.hub.latency = 40ms;
    sim.hub.outage(20min, 50min);
    auto session = sim.start();
    sim.hub.fail_randomly(0.3, 11);
    train(sim, session);
    return std::pair(trace_of(sim), sim.log);
  };
  const auto first = run(5);
  CHECK(first == run(5));
  CHECK(first.first != run(6).first);
}

// ---- upload_metrics and flush -------------------------------------------------------------------

TEST_CASE("upload_metrics sends what is queued at once") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  session.on_fit_epoch_end(0, {{"a", 1}});
  session.upload_metrics();
  CHECK(sim.hub.count(endpoint::metrics) == 0);
  sim.advance(0s);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{0});
}

TEST_CASE("upload_metrics with nothing to send leaves the rate limit as it is") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(10s);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1s);
  session.upload_metrics();
  sim.advance(1s);
  session.on_fit_epoch_end(1, {{"a", 1}});
  sim.advance(1min);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{10, 13});
}

TEST_CASE("flush sends everything at once and says what HUB has") {
  world sim;
  sim.hub.latency = 2s;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < 250; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
  const double before = sim.now();
  const hub::delivery delivered = session.flush(1min);
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 250);
  CHECK_FALSE(delivered.final_model_wanted);
  CHECK(sim.now() == before + 6);
  CHECK(sim.epochs_on_hub() == epochs(0, 249));
}

TEST_CASE("flush with nothing to do takes no time") {
  world sim;
  auto session = sim.start();
  const hub::delivery delivered = session.flush(1h);
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 0);
  CHECK(sim.now() == 0);
}

TEST_CASE("flush gives up at its time-out and keeps what is missing") {
  for (fault_kind kind : {fault_kind::refused, fault_kind::timed_out}) {
    world sim;
    auto session = sim.start();
    sim.hub.fail_next({kind}, 1000);
    session.on_fit_epoch_end(0, {{"a", 1}});
    const hub::delivery delivered = session.flush(20s);
    CHECK(sim.now() == 20);
    CHECK_FALSE(delivered.complete());
    CHECK(delivered.epochs_delivered == 0);
    CHECK(delivered.epochs_queued == 1);
    REQUIRE(delivered.why);
    CHECK_FALSE(delivered.why->message.empty());
    sim.hub.no_more_faults();
    sim.advance(10min);
    CHECK(sim.epochs_on_hub() == epochs(0, 0));
    CHECK(session.flush(0s).complete());
  }
}

TEST_CASE("flush without time still sends once") {
  world sim;
  auto session = sim.start();
  session.on_fit_epoch_end(0, {{"a", 1}});
  CHECK(session.flush(0s).complete());
  CHECK(sim.now() == 0);
}

TEST_CASE("asking for uploads again and again in an outage does not use up later retries") {
  world sim;
  auto session = sim.start();
  sim.hub.outage(1s, 10min);
  for (int epoch = 0; epoch < 600; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    session.upload_metrics();
    sim.advance(1s);
  }
  sim.hub.fail_next(endpoint::metrics, answered(503), 3);
  session.on_fit_epoch_end(600, {{"a", 600}});
  sim.advance(20min);
  CHECK(sim.epochs_on_hub() == epochs(0, 600));
}

TEST_CASE("the destructor sends what is queued, for two seconds at most") {
  world sim;
  double before = 0;
  SECTION("a HUB that answers gets all of it") {
    {
      auto session = sim.start();
      session.on_pretrain_routine_end();
      for (int epoch = 0; epoch < 250; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
      before = sim.now();
    }
    CHECK(sim.epochs_on_hub() == epochs(0, 249));
    CHECK(sim.now() == before);
  }
  SECTION("a HUB that is down, hangs or is slow is left after two seconds") {
    for (int way = 0; way < 3; ++way) {
      world down;
      {
        auto session = down.start();
        if (way == 0) down.hub.fail_next({fault_kind::refused}, 1000);
        if (way == 1) down.hub.fail_next({fault_kind::timed_out}, 1000);
        if (way == 2) down.hub.latency = 20s;
        session.on_fit_epoch_end(0, {{"a", 1}});
        before = down.now();
      }
      CHECK(down.now() == before + 2);
    }
  }
  SECTION("with nothing queued it takes no time") {
    { auto session = sim.start(); }
    CHECK(sim.now() == 0);
  }
  SECTION("a deadline of zero sends nothing that has to wait") {
    sim.with.limits.shutdown_deadline = 0s;
    {
      auto session = sim.start();
      sim.hub.latency = 20s;
      session.on_fit_epoch_end(0, {{"a", 1}});
      before = sim.now();
    }
    CHECK(sim.now() == before);
  }
  const std::size_t requests = sim.hub.requests().size();
  sim.advance(1h);
  CHECK(sim.hub.requests().size() == requests);
}

// ---- the program's own functions ----------------------------------------------------------------

// What the default log and progress write.
struct console_output {
  std::string text = {};
  hub::machine::console console;

  explicit console_output(bool terminal)
      : console([this](std::string_view piece) { text += piece; }, terminal, "Ultralytics HUB") {}
};

TEST_CASE("the default log is a line with HUB's prefix, in colour on a terminal alone") {
  console_output plain(false), coloured(true);
  for (hub::log_level level : {hub::log_level::info, hub::log_level::error}) {
    plain.console.log(level, "It went wrong.");
    coloured.console.log(level, "It went wrong.");
  }
  const std::string line = "Ultralytics HUB: It went wrong.\n";
  CHECK(plain.text == line + line);
  CHECK(coloured.text ==
        "\033[34m\033[1mUltralytics HUB: \033[0mIt went wrong.\n"
        "\033[31m\033[1mUltralytics HUB: \033[0mIt went wrong.\n");
}

TEST_CASE("the default progress is a line every ten percent: percent, bytes, rate, time left") {
  console_output out(false);
  for (std::uint64_t sent = 0; sent <= 50; ++sent)
    out.console.progress({"best.pt", sent * hub::mebibyte, 50 * hub::mebibyte, sent * 100ms});
  CHECK(out.text ==
        "Ultralytics HUB: best.pt  10% of 50.0 MiB, 10.0 MiB/s, 4 s left\n"
        "Ultralytics HUB: best.pt  20% of 50.0 MiB, 10.0 MiB/s, 4 s left\n"
        "Ultralytics HUB: best.pt  30% of 50.0 MiB, 10.0 MiB/s, 4 s left\n"
        "Ultralytics HUB: best.pt  40% of 50.0 MiB, 10.0 MiB/s, 3 s left\n"
        "Ultralytics HUB: best.pt  50% of 50.0 MiB, 10.0 MiB/s, 2 s left\n"
        "Ultralytics HUB: best.pt  60% of 50.0 MiB, 10.0 MiB/s, 2 s left\n"
        "Ultralytics HUB: best.pt  70% of 50.0 MiB, 10.0 MiB/s, 2 s left\n"
        "Ultralytics HUB: best.pt  80% of 50.0 MiB, 10.0 MiB/s, 1 s left\n"
        "Ultralytics HUB: best.pt  90% of 50.0 MiB, 10.0 MiB/s, 0 s left\n"
        "Ultralytics HUB: best.pt 100% of 50.0 MiB, 10.0 MiB/s, 0 s left\n");
}

TEST_CASE("the default progress begins anew with an attempt, and its units fit") {
  console_output out(false);
  const std::uint64_t total = 1536 * hub::kibibyte;
  out.console.progress({"last.pt", 300 * hub::kibibyte, total, 1s});
  out.console.progress({"last.pt", total, total, 1s});
  out.console.progress({"last.pt", 160 * hub::kibibyte, total, 2s});
  out.console.progress(
      {"last.pt", 1024 * hub::kibibyte, total, 1s, hub::transfer::download, 512 * hub::kibibyte});
  CHECK(out.text ==
        "Ultralytics HUB: last.pt  19% of 1.5 MiB, 300.0 KiB/s, 4 s left\n"
        "Ultralytics HUB: last.pt 100% of 1.5 MiB, 1.5 MiB/s, 0 s left\n"
        "Ultralytics HUB: last.pt  10% of 1.5 MiB, 80.0 KiB/s, 17 s left\n"
        "Ultralytics HUB: last.pt  66% of 1.5 MiB, 512.0 KiB/s, 1 s left\n");
}

TEST_CASE("in a file or a pipe the default progress of a small file is one line") {
  console_output out(false);
  const auto send = [&](std::uint64_t total, std::initializer_list<std::uint64_t> states) {
    for (const std::uint64_t done : states) out.console.progress({"last.pt", done, total, 1s});
  };
  send(1536, {1, 1520, 1536});  // all but the last boundary in one piece
  send(1536, {1536});           // of which only the end was waited for
  send(hub::mebibyte, {0, hub::mebibyte - 1, hub::mebibyte});
  send(0, {0});
  CHECK(out.text ==
        "Ultralytics HUB: last.pt 100% of 1.5 KiB, 1.5 KiB/s, 0 s left\n"
        "Ultralytics HUB: last.pt 100% of 1.5 KiB, 1.5 KiB/s, 0 s left\n"
        "Ultralytics HUB: last.pt 100% of 1.0 MiB, 1.0 MiB/s, 0 s left\n"
        "Ultralytics HUB: last.pt 100% of 0.0 B, 0.0 B/s, 0 s left\n");
}

TEST_CASE("on a terminal the default progress is one line, and a log line does not break it") {
  console_output out(true);
  out.console.progress({"best.pt", 512, 1024, 1s});
  out.console.log(hub::log_level::info, "Hello.");
  out.console.progress({"best.pt", 1024, 1024, 1s});
  CHECK(out.text ==
        "\r\033[KUltralytics HUB: best.pt  50% of 1.0 KiB, 512.0 B/s, 1 s left\n"
        "\033[34m\033[1mUltralytics HUB: \033[0mHello.\n"
        "\r\033[KUltralytics HUB: best.pt 100% of 1.0 KiB, 1.0 KiB/s, 0 s left\n");
}

TEST_CASE("log and progress functions that throw harm nothing") {
  world sim;
  sim.with.log = [](hub::log_level, std::string_view) { throw std::runtime_error("log"); };
  sim.with.progress = [](const hub::transfer_progress&) { throw 42; };
  auto session = sim.start();
  sim.hub.outage(5min, 10min);
  const hub::delivery delivered = train(sim, session);
  CHECK(delivered.complete());
  CHECK(sim.epochs_on_hub() == epochs(0, 99));
}

}  // namespace session_tests
