// SPDX-License-Identifier: MIT
//
// Tests of sessions on the Platform: whole trainings on virtual time, and every fault that costs
// Python's client an epoch, a model or a run.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace platform_session_tests {

namespace {

using namespace std::chrono_literals;
using hub::testing::endpoint;
using hub::testing::fault_kind;
using hub::testing::platform_state;
using session = hub::testing::platform_session;

// A simulation with files to upload.
struct scene : hub::testing::simulation {
  scratch_folder folder;
  const hub::platform_run run{.project = "lab/helmets", .name = "yolo11n 640", .epochs = 5};

  const hub::testing::platform_model& model() const {
    REQUIRE(platform.models().size() == 1);
    return platform.models().begin()->second;
  }
  bool said(std::string_view piece) const {
    return std::any_of(log.begin(), log.end(), [&](const std::string& line) {
      return line.find(piece) != std::string::npos;
    });
  }
  hub::session_options spooled() {
    hub::session_options out = platform_options();
    out.spool.directory = folder / "spool";
    return out;
  }
};

// Five epochs of a second each, and a final model.
hub::delivery train(session& at, scene& in, int first = 0) {
  at.on_pretrain_routine_end();
  for (int epoch = first; epoch < 5; ++epoch) {
    in.advance(1s);
    at.on_fit_epoch_end(epoch, {{"train/box_loss", 1.0 / (epoch + 1)}, {"fitness", 0.1 * epoch}});
  }
  return at.on_train_end(4, in.folder.write("best.pt", std::string(2000, 'B')), 0.5);
}

void check_whole(const scene& in, const hub::delivery& delivered) {
  CHECK(delivered.complete());
  CHECK(delivered.ending_delivered);
  const auto& model = in.model();
  CHECK(model.epochs.size() == 5);
  REQUIRE(model.latest_file() != nullptr);
  CHECK(model.latest_file()->content == std::string(2000, 'B'));
  CHECK(model.latest_file()->saved);
  CHECK(model.state == platform_state::completed);
  CHECK(model.after_the_end == 0);
}

}  // namespace

TEST_CASE("a training on the Platform: registration, epochs, the final model and the end") {
  scene in;
  hub::delivery delivered;
  {
    session at = in.start(in.run);
    CHECK(at.status().registered);
    CHECK(at.model_url() == "https://platform.test/lab/helmets/yolo11n-640");
    delivered = train(at, in);
  }
  check_whole(in, delivered);
  CHECK(in.model().ending["results"]["modelSize"] == 2000);
  CHECK(in.platform.problems().empty());
}

TEST_CASE("results go with the end; a curve that cannot be drawn is left out and said") {
  scene in;
  {
    session at = in.start(in.run);
    hub::training_results results{.best_epoch = 3, .class_names = {"helmet"}};
    results.plots.f1_curve = {.x = {0, 1}, .y = {{0.5, 0.25}}};
    results.plots.pr_curve = {.x = {0, 1}, .y = {{1}}};
    at.set_results(std::move(results));
    train(at, in);
  }
  CHECK(in.said("Not all of the results are sent: pr_curve: row 0 has 1 points over the 2 of x."));
  CHECK(in.model().ending["results"]["bestEpoch"] == 3);
  REQUIRE(in.model().ending["plots"].size() == 1);
  CHECK(in.model().ending["plots"][0]["type"] == "f1_curve");
}

TEST_CASE("no fault that costs Python's client something costs this one anything") {
  const std::vector<std::pair<const char*, std::function<void(scene&)>>> faults = {
      {"epoch_end answered 503 once",
       [](scene& in) {
         in.platform.fail_next(endpoint::epoch_end, {.kind = fault_kind::status, .status = 503});
       }},
      {"epoch_end answered 429 once",
       [](scene& in) {
         in.platform.fail_next(endpoint::epoch_end, {.kind = fault_kind::status, .status = 429});
       }},
      {"epoch_end answered 401 once",
       [](scene& in) {
         in.platform.fail_next(endpoint::epoch_end, {.kind = fault_kind::status, .status = 401});
       }},
      {"epoch_end dropped once",
       [](scene& in) {
         in.platform.fail_next(endpoint::epoch_end, {.kind = fault_kind::reset_after_body});
       }},
      {"the upload's URL refused three times",
       [](scene& in) {
         in.platform.fail_next(endpoint::upload, {.kind = fault_kind::status, .status = 503}, 3);
       }},
      {"the PUT answered 403",
       [](scene& in) {
         in.platform.fail_next(endpoint::storage, {.kind = fault_kind::status, .status = 403});
       }},
      {"the PUT answered 403 eight times",
       [](scene& in) {
         in.platform.fail_next(endpoint::storage, {.kind = fault_kind::status, .status = 403}, 8);
       }},
      {"checkpoint_saved answered 503 twice",
       [](scene& in) {
         in.platform.fail_next(endpoint::checkpoint_saved,
                               {.kind = fault_kind::status, .status = 503}, 2);
       }},
      {"training_complete answered 503 four times",
       [](scene& in) {
         in.platform.fail_next(endpoint::training_complete,
                               {.kind = fault_kind::status, .status = 503}, 4);
       }},
  };
  for (const auto& [name, fail] : faults) {
    INFO(name);
    scene in;
    hub::delivery delivered;
    {
      session at = in.start(in.run);
      fail(in);
      delivered = train(at, in);
    }
    check_whole(in, delivered);
    CHECK(in.platform.problems().empty());
  }
}

TEST_CASE("a training begins while the Platform is away, and is there once it is back") {
  scene in;
  in.platform.outage(0s, 1h);
  hub::delivery delivered;
  {
    session at = in.start(in.run);
    CHECK_FALSE(at.status().registered);
    at.on_fit_epoch_end(0, {{"loss", 1}});
    in.advance(2h);
    CHECK(at.status().registered);
    delivered = train(at, in);
  }
  check_whole(in, delivered);
}

TEST_CASE(
    "a key of HUB v1, and a name of which nothing is left, are refused before anything is sent") {
  scene in;
  hub::session_options with = in.platform_options();
  with.credentials.api_key = hub::testing::fake_hub::api_key;
  CHECK_THROWS_AS(in.start(in.run, with), hub::session_error);
  CHECK_THROWS_AS(in.start(hub::platform_run{.project = "lab/___"}), hub::session_error);
  CHECK(in.platform.requests().empty());
}

TEST_CASE("a key that the Platform does not know is said at the start") {
  scene in;
  in.platform.refusals_are_problems = false;
  hub::session_options with = in.platform_options();
  with.credentials.api_key = "ul_" + std::string(40, 'f');
  try {
    in.start(in.run, with);
    FAIL("started");
  } catch (const hub::session_error& problem) {
    CHECK(problem.code() == hub::errc::not_authenticated);
  }
}

TEST_CASE("Stop on the Platform's page reaches the training, and is said once") {
  scene in;
  session at = in.start(in.run);
  at.on_fit_epoch_end(0, {{"loss", 1}});
  in.advance(10s);
  CHECK_FALSE(at.stop_requested());
  in.platform.cancel(in.model().id);
  at.on_fit_epoch_end(1, {{"loss", 1}});
  in.advance(10s);
  CHECK(at.stop_requested());
  CHECK(at.status().stop_requested);
  const hub::training_callbacks& base = at;
  CHECK(base.stop_requested());
  at.on_fit_epoch_end(2, {{"loss", 1}});
  in.advance(10s);
  CHECK(std::count_if(in.log.begin(), in.log.end(), [](const std::string& line) {
          return line.find("cancelled on the server") != std::string::npos;
        }) == 1);
  CHECK(at.on_train_end(2, "", 0).complete());
}

TEST_CASE("a training that ends without on_train_end is told as failed, with the reason") {
  scene in;
  try {
    session at = in.start(in.run);
    at.on_fit_epoch_end(0, {{"loss", 1}});
    throw std::runtime_error("CUDA out of memory");
  } catch (const std::runtime_error&) {
  }
  CHECK(in.model().epochs.size() == 1);
  CHECK(in.model().state == platform_state::failed);
  CHECK(in.model().ending["error"] == "An exception ended the training.");
}

TEST_CASE("what the training prints arrives in order, each chunk once") {
  scene in;
  std::ostringstream terminal;
  std::streambuf* const before = std::clog.rdbuf(terminal.rdbuf());
  {
    session at = in.start(in.run);
    {
      hub::console_tee tee(at);
      for (int i = 0; i < 12; ++i) std::clog << "[2026] line " << i << '\n';
      in.platform.fail_next(endpoint::console_output, {.kind = fault_kind::status, .status = 503});
      in.advance(1min);
      std::clog << "[2026] the last, without an end";
    }
    at.on_train_end(0, "", 0);
  }
  std::clog.rdbuf(before);
  CHECK(terminal.str().ends_with("line 11\n[2026] the last, without an end"));
  std::string all;
  std::size_t number = 0;
  for (const auto& [chunk, data] : in.model().console) {
    CHECK(chunk == ++number);
    all += (all.empty() ? "" : "\n") + data["content"].get<std::string>();
  }
  std::string wanted;
  for (int i = 0; i < 12; ++i) wanted += "[2026] line " + std::to_string(i) + "\n";
  CHECK(all == wanted + "[2026] the last, without an end");
}

TEST_CASE("a long epoch shows signs of life, which may be refused without harm") {
  for (const int status : {200, 400, 404, 422}) {
    scene in;
    {
      session at = in.start(in.run);
      if (status != 200)
        in.platform.fail_next(endpoint::system_metrics,
                              {.kind = fault_kind::status, .status = status}, 100);
      in.advance(1h);
      CHECK((at.status().heartbeats_answered > 0) == (status == 200));
      check_whole(in, train(at, in));
    }
    const auto signs =
        std::count_if(in.platform.requests().begin(), in.platform.requests().end(),
                      [](const auto& seen) { return seen.to == endpoint::system_metrics; });
    CHECK((status == 200 ? signs > 5 : signs == 1));
  }
}

TEST_CASE("never more than a hundred requests in a minute, whatever happens") {
  scene in;
  hub::session_options with = in.platform_options();
  with.rate_limits = {.metrics = 0s, .checkpoint = 0s, .console = 0s, .console_gap = 0s};
  {
    session at = in.start(in.run, with);
    for (int i = 0; i < 1000; ++i) {
      at.on_fit_epoch_end(i, {{"loss", i}});
      at.console("a line\n");
      in.advance(50ms);
    }
    CHECK(at.on_train_end(999, "", 0).complete());
  }
  CHECK(in.model().epochs.size() == 1000);
  CHECK(in.platform.problems().empty());  // the fake holds its limit
  std::vector<hub::time_point> times;
  for (const auto& seen : in.platform.requests()) times.push_back(seen.at);
  for (std::size_t i = 100; i < times.size(); ++i) CHECK(times[i] - times[i - 100] >= 1min);
}

TEST_CASE(
    "a Platform that refuses at the end is waited for a minute, and the spool has everything") {
  for (int refusal : {401, 403, 404, 410}) {
    for (bool is_made : {true, false}) {
      INFO("status " << refusal << (is_made ? "" : ", before the run is made"));
      scene in;
      in.platform.refusals_are_problems = false;
      hub::platform_run run = in.run;
      run.resume = true;
      {
        in.platform.unreachable = !is_made;
        session at = in.start(run, in.spooled());
        in.platform.unreachable = false;
        in.platform.fail_next({.kind = fault_kind::status, .status = refusal}, 1'000'000);
        const hub::time_point before = in.time.now();
        const hub::delivery left = train(at, in);
        CHECK(in.time.now() - before <= 5s + 1min);
        CHECK_FALSE(left.complete());
        CHECK(left.epochs_queued == 5);
        CHECK_FALSE(left.final_model_delivered);
        CHECK_FALSE(left.ending_delivered);
        REQUIRE(left.why);
        CHECK(left.why->http_status == refusal);
        CHECK(in.said("limits.denied_deadline"));
      }
      in.platform.no_more_faults();
      session at = in.start(run, in.spooled());
      in.advance(1min);
      CHECK(in.model().epochs.size() == 5);
      REQUIRE(in.model().latest_file() != nullptr);
      CHECK(at.on_train_end(4, "", 0.5).complete());
    }
  }
}

TEST_CASE("once the Platform has the end of a run, the session is over, and says so") {
  scene in;
  session at = in.start(in.run);
  at.on_fit_epoch_end(0, {{"loss", 1}});
  const hub::delivery first = at.on_train_end(0, in.folder / "missing.pt", 0.5);
  CHECK_FALSE(first.complete());
  CHECK(first.ending_delivered);
  const hub::delivery second = at.on_train_end(0, in.folder.write("last.pt", "L"), 0.5);
  CHECK_FALSE(second.final_model_delivered);
  REQUIRE(second.why);
  CHECK(second.why->code == hub::errc::already_trained);
  CHECK(in.said("The session is over"));
  CHECK(in.model().after_the_end == 0);
}

TEST_CASE("a run that was killed goes on as the same run") {
  scene in;
  hub::platform_run again = in.run;
  again.resume = true;
  std::string id;
  {
    hub::platform_run first = in.run;
    first.resume = true;
    session at = in.start(first, in.spooled());
    at.on_fit_epoch_end(0, {{"loss", 1}});
    in.advance(10s);
    id = in.model().id;
    in.platform.unreachable = true;
    at.on_fit_epoch_end(1, {{"loss", 1}});
  }
  in.platform.unreachable = false;
  {
    session at = in.start(again, in.spooled());
    CHECK(at.status().registered);
    CHECK(at.status().epochs_restored == 1);
    check_whole(in, train(at, in, 2));
  }
  CHECK(in.model().id == id);
}

TEST_CASE("a run that begins anew leaves an unfinished one of its name alone") {
  scene in;
  {
    hub::platform_run first = in.run;
    first.resume = true;
    session at = in.start(first, in.spooled());
    at.on_fit_epoch_end(0, {{"loss", 1}});
  }
  session at = in.start(in.run, in.spooled());
  CHECK(in.platform.models().size() == 2);
  CHECK(at.status().epochs_restored == 0);
  at.on_train_end(0, "", 0);
}

}  // namespace platform_session_tests
