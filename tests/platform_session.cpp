// SPDX-License-Identifier: MIT
//
// Tests of sessions on the Platform: whole trainings on virtual time, and every fault that costs
// Python's client an epoch, a model or a run.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <set>
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
  const hub::delivery first = at.on_train_end(0, "", 0.5);
  CHECK(first.complete());
  const hub::delivery second = at.on_train_end(0, in.folder.write("last.pt", "L"), 0.5);
  CHECK_FALSE(second.final_model_delivered);
  REQUIRE(second.why);
  CHECK(second.why->code == hub::errc::already_trained);
  CHECK(in.said("The session is over"));
  CHECK(in.model().after_the_end == 0);
}

TEST_CASE("a run whose final model is missing can be ended again with another file") {
  for (int status : {0, 413, 503}) {
    INFO((status == 0 ? "no file" : "status ") << status);
    scene in;
    in.platform.refusals_are_problems = false;
    session at = in.start(in.run);
    at.on_fit_epoch_end(0, {{"loss", 1}});
    if (status != 0) {
      in.folder.write("best.pt", "B");
      in.platform.fail_next(endpoint::storage, {.kind = fault_kind::status, .status = status}, 11);
    }
    const hub::delivery first = at.on_train_end(0, in.folder / "best.pt", 0.5);
    CHECK_FALSE(first.complete());
    CHECK(first.epochs_delivered == 1);
    CHECK(first.final_model_wanted);
    CHECK(first.ending_wanted);
    CHECK_FALSE(first.ending_delivered);
    REQUIRE(first.why);
    CHECK(first.why->http_status == status);
    CHECK(in.said("Missing: the final model and the word that it has ended."));
    in.advance(1h);
    CHECK(in.model().state == platform_state::training);

    in.platform.no_more_faults();
    CHECK(at.on_train_end(0, in.folder.write("last.pt", "L"), 0.5).complete());
    CHECK(in.model().state == platform_state::completed);
    REQUIRE(in.model().latest_file() != nullptr);
    CHECK(in.model().latest_file()->content == "L");
    CHECK(in.model().ending["results"]["modelSize"] == 1);
    CHECK(in.model().after_the_end == 0);
    CHECK(in.platform.count(endpoint::training_complete) == 1);
  }
}

TEST_CASE("a run whose final model is missing is told as ended without one, in the end") {
  scene in;
  std::unique_ptr<session> at(new session(in.start(in.run)));
  at->on_fit_epoch_end(0, {{"loss", 1}});
  CHECK_FALSE(at->on_train_end(0, in.folder / "missing.pt", 0.5).ending_delivered);
  SECTION("where on_train_end is called again without a file") {
    const hub::delivery again = at->on_train_end(0, "", 0.5);
    CHECK(again.ending_delivered);
    CHECK(again.final_model_wanted);
    CHECK_FALSE(again.complete());
    CHECK(in.model().state == platform_state::completed);
  }
  SECTION("where the session ends") {}
  SECTION("where the session ends, with what came meanwhile") {
    at->on_fit_epoch_end(1, {{"loss", 1}});
  }
  SECTION("where the same file is missing once more") {
    CHECK_FALSE(at->on_train_end(0, in.folder / "missing.pt", 0.5).ending_delivered);
  }
  const std::size_t told = at->status().epochs_accepted;
  at.reset();
  CHECK(in.model().state == platform_state::completed);
  CHECK(in.model().epochs.size() == told);
  CHECK(in.model().latest_file() == nullptr);
  CHECK(in.model().after_the_end == 0);
  CHECK(in.platform.count(endpoint::training_complete) == 1);
  CHECK(in.platform.problems().empty());
}

TEST_CASE("lines that were given up go once more before an end that is told without a model") {
  scene in;
  std::unique_ptr<session> at(new session(in.start(in.run)));
  at->console("[2026] a line\n");
  in.platform.fail_next(endpoint::console_output, {.kind = fault_kind::status, .status = 503}, 11);
  CHECK_FALSE(at->on_train_end(0, in.folder / "missing.pt", 0.5).ending_delivered);
  CHECK(in.model().console.empty());
  at.reset();
  CHECK(in.model().console.size() == 1);
  CHECK(in.model().state == platform_state::completed);
  CHECK(in.model().after_the_end == 0);
}

TEST_CASE("the end of a run waits in the spool where its final model does, and no longer") {
  scene in;
  hub::platform_run run = in.run;
  run.resume = true;
  const bool is_lost = GENERATE(false, true);
  INFO((is_lost ? "the file is missing" : "the storage host fails"));
  in.platform.fail_next(endpoint::storage, {.kind = fault_kind::status, .status = 503}, 11);
  {
    session at = in.start(run, in.spooled());
    at.on_fit_epoch_end(0, {{"loss", 1}});
    const auto file = in.folder / "best.pt";
    if (!is_lost) in.folder.write("best.pt", "B");
    CHECK_FALSE(at.on_train_end(0, file, 0.5).complete());
    CHECK(in.model().state == platform_state::training);
  }
  CHECK((in.model().state == platform_state::completed) == is_lost);
  if (is_lost) return;
  in.platform.no_more_faults();
  session at = in.start(run, in.spooled());
  CHECK(at.flush(1h).complete());
  CHECK(in.model().state == platform_state::completed);
  CHECK(in.model().latest_file()->content == "B");
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

// ---- what the spool keeps ------------------------------------------------------------------------

namespace {

hub::platform_run resumed(const scene& in) {
  hub::platform_run out = in.run;
  out.resume = true;
  return out;
}

std::string lines_of(const hub::testing::platform_model& model) {
  std::string out;
  for (const auto& [chunk, data] : model.console) out += data["content"].get<std::string>() + "\n";
  return out;
}

}  // namespace

TEST_CASE(
    "a run that never had a network is whole once there is one: epochs, lines, model and end") {
  scene in;
  in.platform.unreachable = true;
  {
    session at = in.start(in.run, in.spooled());
    at.console("[2026] a line\n");
    at.set_results({.best_epoch = 3, .class_names = {"helmet"}});
    CHECK_FALSE(train(at, in).complete());
  }
  const auto left = hub::list_spool(in.folder / "spool");
  REQUIRE(left.size() == 1);
  CHECK(left[0].protocol == "platform");
  CHECK(left[0].project + "/" + left[0].name == "lab/helmets/yolo11n-640");
  CHECK(left[0].model_id.empty());
  CHECK(left[0].epochs == 5);
  CHECK(left[0].console_lines == 1);
  CHECK(left[0].is_final);
  CHECK(left[0].has_ending);
  CHECK_FALSE(left[0].empty());

  in.platform.unreachable = false;
  {
    session at = in.start(resumed(in), in.spooled());
    in.advance(1min);
    CHECK(in.model().state == platform_state::training);  // it might go on
    check_whole(in, at.flush(1h));
  }
  CHECK(lines_of(in.model()) == "[2026] a line\n");
  CHECK(in.model().ending["results"]["bestEpoch"] == 3);
  CHECK(in.model().ending["results"]["modelSize"] == 2000);
  CHECK(in.model().ending["classNames"][0] == "helmet");
  CHECK(in.platform.problems().empty());
  CHECK(hub::list_spool(in.folder / "spool").empty());
}

TEST_CASE("the end that a session could not tell is not told where the training goes on") {
  scene in;
  {
    session at = in.start(resumed(in), in.spooled());
    at.on_fit_epoch_end(0, {{"loss", 1}});
    in.advance(10s);
    in.platform.unreachable = true;
    CHECK_FALSE(at.on_train_end(0, "", 0.25).complete());
  }
  in.platform.unreachable = false;
  {
    session at = in.start(resumed(in), in.spooled());
    at.on_fit_epoch_end(1, {{"loss", 1}});
    at.flush(1min);
    CHECK(in.model().state == platform_state::training);
    CHECK(in.said("The end that an earlier session left is not sent: the training goes on."));
    check_whole(in, train(at, in, 2));
  }
  CHECK(in.model().ending["results"]["bestFitness"] == 0.5);
}

TEST_CASE("the final model that arrived before its program died is named by the end all the same") {
  scene in;
  {
    session at = in.start(resumed(in), in.spooled());
    in.platform.fail_next(endpoint::training_complete, {.kind = fault_kind::status, .status = 503},
                          100);
    CHECK_FALSE(train(at, in).ending_delivered);
  }
  in.platform.no_more_faults();
  {
    session at = in.start(resumed(in), in.spooled());
    check_whole(in, at.flush(1h));
  }
  CHECK(in.platform.count(endpoint::upload) == 1);
  CHECK(in.model().ending["results"]["modelSize"] == 2000);
}

TEST_CASE("lines that may have arrived before the program died are sent again as the same chunk") {
  scene in;
  hub::session_options with = in.spooled();
  const auto disk = std::make_shared<hub::testing::crash_disk>();
  with.spool.storage = disk;
  std::unique_ptr<session> at(new session(in.start(resumed(in), with)));
  in.platform.fail_next(endpoint::console_output, {.kind = fault_kind::reply_lost}, 100);
  for (int i = 0; i < 7; ++i) at->console("[2026] line " + std::to_string(i) + "\n");
  in.advance(1min);
  REQUIRE(in.model().console.size() == 1);
  in.crash(at, *disk);
  in.platform.no_more_faults();
  at.reset(new session(in.start(resumed(in), with)));
  at->console("[2026] line 7\n");
  in.advance(1min);
  std::string wanted;
  for (int i = 0; i < 8; ++i) wanted += "[2026] line " + std::to_string(i) + "\n";
  CHECK(lines_of(in.model()) == wanted);
  CHECK(at->on_train_end(0, "", 0).complete());
  CHECK(in.platform.problems().empty());
}

TEST_CASE("a number of a chunk that the server has for other lines is passed over") {
  scene in;
  session at = in.start(in.run);
  in.platform.fail_next(endpoint::console_output, {.kind = fault_kind::status, .status = 409});
  at.console("[2026] a line\n");
  CHECK(at.on_train_end(0, "", 0).complete());
  REQUIRE(in.model().console.size() == 1);
  CHECK(in.model().console.begin()->first == 2);
  CHECK(at.status().console_lines_delivered == 1);
}

TEST_CASE("numbers of many chunks that a spool has lost are passed over in wider and wider steps") {
  scene in;
  in.platform.refusals_are_problems = false;
  hub::session_options with = in.spooled();
  const auto disk = std::make_shared<hub::testing::crash_disk>();
  with.spool.storage = disk;
  {
    session at = in.start(resumed(in), with);
    for (int line = 0; line < 100; ++line) {
      at.console("[2026] before\n");
      in.advance(10s);
    }
  }
  CHECK(in.model().console.size() == 100);
  std::erase_if(disk->folder(hub::machine::full_path(with.spool.directory) /
                             "platform-lab-helmets-yolo11n-640"),
                [](const auto& file) { return file.first.starts_with("journal"); });
  session at = in.start(resumed(in), with);
  at.console("[2026] after\n");
  CHECK(at.on_train_end(0, "", 0).complete());
  CHECK(at.status().console_lines_queued == 0);
  CHECK(lines_of(in.model()).ends_with("before\n[2026] after\n"));
}

TEST_CASE("lines that cannot be sent before the end are counted and said, and hold up nothing") {
  scene in;
  session at = in.start(in.run);
  in.platform.fail_next(endpoint::console_output, {.kind = fault_kind::status, .status = 401},
                        1000);
  at.console("[2026] a line\n[2026] another\n");
  check_whole(in, train(at, in));
  CHECK(at.status().console_lines_queued == 2);
  CHECK(in.said("helmets/yolo11n-640, but 2 printed lines could not be sent"));
  CHECK_FALSE(in.said("Not everything arrived"));
}

TEST_CASE("each of several unfinished runs of one name is reached by its number") {
  scene in;
  for (int run = 0; run < 3; ++run) {
    session at = in.start(in.run, in.spooled());
    in.platform.unreachable = true;
    at.on_fit_epoch_end(run, {{"loss", 1}});
    CHECK_FALSE(at.on_train_end(run, "", 0).complete());
    in.platform.unreachable = false;
  }
  auto left = hub::list_spool(in.folder / "spool");
  REQUIRE(left.size() == 3);
  for (const hub::spooled_model& each : left) {
    hub::platform_run run = resumed(in);
    run.spool_number = each.number;
    session at = in.start(run, in.spooled());
    CHECK(at.flush(1h).complete());
  }
  CHECK(hub::list_spool(in.folder / "spool").empty());
  REQUIRE(in.platform.models().size() == 3);
  std::set<int> epochs;
  for (const auto& [id, model] : in.platform.models()) {
    CHECK(model.state == platform_state::completed);
    for (const auto& [epoch, data] : model.epochs) epochs.insert(epoch);
  }
  CHECK(epochs == std::set<int>{0, 1, 2});
}

TEST_CASE("what a folder holds of no run does not get into the next one") {
  scene in;
  {
    session at = in.start(in.run, in.spooled());
    in.platform.unreachable = true;
    at.on_fit_epoch_end(7, {{"loss", 1}});
  }
  in.platform.unreachable = false;
  std::filesystem::remove(in.folder / "spool" / "platform-lab-helmets-yolo11n-640" /
                          "platform.json");
  session at = in.start(in.run, in.spooled());
  CHECK(in.said("holds what belongs to no run any more"));
  CHECK(at.status().epochs_restored == 0);
  CHECK(at.on_train_end(0, "", 0).complete());
}

TEST_CASE("what the Platform warns of is said once") {
  scene in;
  in.platform.warning = "Your plan keeps runs for a week.";
  session at = in.start(in.run);
  for (int epoch = 0; epoch < 3; ++epoch) {
    at.on_fit_epoch_end(epoch, {{"loss", 1}});
    in.advance(10s);
  }
  CHECK(std::count(in.log.begin(), in.log.end(),
                   "The server warns: Your plan keeps runs for a week.") == 1);
  at.on_train_end(2, "", 0);
}

TEST_CASE("a failure is told last: no upload is begun any more, and none is waited for") {
  scene in;
  hub::session_options with = in.platform_options();
  with.rate_limits.checkpoint = 0s;
  {
    session at = in.start(in.run, with);
    at.on_fit_epoch_end(0, {{"loss", 1}});
    at.console("[2026] a line\n");
    in.platform.latency_per_upload_byte = 1s;
    at.on_model_save(0, in.folder.write("last.pt", std::string(5000, 'L')), false);
    in.advance(1s);
  }
  CHECK(in.model().state == platform_state::failed);
  CHECK(in.model().epochs.size() == 1);
  CHECK(lines_of(in.model()) == "[2026] a line\n");
  CHECK(in.model().ending["error"] == "The program ended before the training did.");
}

// When the Platform was asked where to put a file, and when it heard that the training failed, where the
// program ended in between.
std::pair<hub::time_point, hub::time_point> asked_and_failed(scene& in, hub::duration latency) {
  hub::session_options with = in.platform_options();
  with.rate_limits.checkpoint = 0s;
  {
    session at = in.start(in.run, with);
    at.on_fit_epoch_end(0, {{"loss", 1}});
    in.advance(10s);
    in.platform.latency = latency;
    at.on_model_save(0, in.folder.write("last.pt", "weights"), false);
    in.advance(1ms);
    in.platform.latency = {};
  }
  const auto moment = [&](endpoint which) {
    const auto& all = in.platform.requests();
    return std::find_if(all.rbegin(), all.rend(),
                        [&](const auto& each) { return each.to == which; })
        ->at;
  };
  CHECK(in.model().state == platform_state::failed);
  return {moment(endpoint::upload), moment(endpoint::training_failed)};
}

TEST_CASE("a failure is told once what the Platform was asked before is answered") {
  scene in;
  const auto [asked, failed] = asked_and_failed(in, 200ms);
  CHECK(failed == asked + 200ms);
}

TEST_CASE("a failure waits for an answer no longer than half of what time there is") {
  scene in;
  const auto [asked, failed] = asked_and_failed(in, 20s);
  CHECK(failed == asked + 1ms + 1s);
}

TEST_CASE("figures of the machine go with each epoch and with each sign of life") {
  scene in;
  hub::session_options with = in.platform_options();
  int readings = 0;
  with.read_system = [&] {
    return hub::system_figures{.cpu_percent = 12.3456,
                               .disks = {{"/", 10, 100.5}},
                               .gpus = {{.usage_percent = ++readings}}};
  };
  session at = in.start(in.run, with);
  at.on_fit_epoch_end(0, {{"loss", 1}});
  in.advance(1h);
  at.on_fit_epoch_end(1, {{"loss", 1}});
  in.advance(1min);
  const auto& model = in.model();
  CHECK(model.epochs.at(0)["system"]["cpu"] == 12.346);
  CHECK(model.epochs.at(0)["system"]["disk"][0]["total_gb"] == 100.5);
  CHECK(model.epochs.at(0)["system"]["gpus"]["0"]["usage"] == 1);
  CHECK(model.epochs.at(1)["system"]["gpus"]["0"]["usage"] > 100);
  REQUIRE_FALSE(model.system.empty());
  CHECK(model.system[0]["cpu"] == 12.346);
  CHECK_FALSE(model.system[0].contains("memory"));
  at.on_train_end(1, "", 0);
}

TEST_CASE("figures that cannot be read, or are not to be told, cost nothing else") {
  scene in;
  hub::session_options with = in.platform_options();
  int readings = 0;
  with.read_system = [&]() -> hub::system_figures {
    ++readings;
    throw std::runtime_error("no driver");
  };
  hub::platform_run silent = in.run;
  silent.environment = hub::environment_disclosure::none;
  {
    session at = in.start(silent, with);
    in.advance(1h);
    at.on_train_end(0, "", 0);
  }
  CHECK(readings == 0);
  CHECK(in.model().started.count("environment") == 0);
  session at = in.start(in.run, with);
  in.advance(1h);
  CHECK(train(at, in).complete());
  CHECK(readings == 1);
  CHECK(in.said("The machine's figures are not told any more: no driver"));
}

TEST_CASE("a function that throws what is no exception is not asked for figures again") {
  scene in;
  hub::session_options with = in.platform_options();
  int readings = 0;
  with.read_system = [&]() -> hub::system_figures {
    ++readings;
    throw 7;
  };
  session at = in.start(in.run, with);
  in.advance(1h);
  CHECK(train(at, in).complete());
  CHECK(readings == 1);
  CHECK(in.said("The machine's figures are not told any more: session_options::read_system threw"));
}

TEST_CASE("a session whose HUB is the retired one says so, and where to report instead") {
  scene in;
  in.hub.unreachable = true;
  hub::session_options with = in.options();
  with.endpoints = {};
  try {
    in.start("abcdefghij0123456789", with);
    FAIL("started");
  } catch (const hub::session_error& problem) {
    const std::string said = problem.what();
    CHECK(said.find("was retired") != said.npos);
    CHECK(said.find("hub::platform_session") != said.npos);
    CHECK(said.find("ULTRALYTICS_HUB_API") != said.npos);
  }
  try {
    in.start("abcdefghij0123456789", in.options());
    FAIL("started");
  } catch (const hub::session_error& problem) {
    CHECK(std::string(problem.what()).find("retired") == std::string::npos);
  }
}

// ---- files by address ----------------------------------------------------------------------------

namespace {

// A Platform that has a model with weights, and a dataset.
struct library : scene {
  const std::string weights = std::string(300'000, 'W');
  library() {
    hub::platform_run earlier = run;
    earlier.name = "trained";
    session at = start(earlier);
    at.on_train_end(0, folder.write("best.pt", weights), 0.5);
    platform.add_dataset(
        {.owner = "lab",
         .name = "helmets",
         .file = platform.put_file("helmets.ndjson", "{\"type\": \"dataset\"}\n")});
    platform.add_dataset({.owner = "lab", .name = "new"});
    platform.refusals_are_problems = false;
  }
  std::string read(const char* name) const {
    std::ifstream in(folder / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

}  // namespace

TEST_CASE("weights and datasets are fetched by their address or page, in the newest way there is") {
  for (const bool newer : {true, false}) {
    library in;
    in.platform.has_newer_calls = newer;
    in.platform.has_older_calls = !newer;
    session at = in.start(in.run);
    for (const char* address :
         {"ul://lab/helmets/trained", "https://platform.test/lab/helmets/trained/?tab=files"}) {
      const auto fetched = at.fetch_model_file(address, in.folder / "start.pt");
      REQUIRE(fetched);
      CHECK(fetched->size_bytes == in.weights.size());
      CHECK(in.read("start.pt") == in.weights);
    }
    REQUIRE(at.fetch_dataset("ul://lab/datasets/helmets", in.folder / "data.ndjson"));
    CHECK(in.read("data.ndjson") == "{\"type\": \"dataset\"}\n");
    at.on_train_end(0, "", 0);
    CHECK(in.platform.problems().empty());  // no key at the storage host
  }
}

TEST_CASE("a download from the Platform survives a break and a URL whose time is over") {
  library in;
  session at = in.start(in.run);
  in.platform.fail_next(endpoint::files, {.kind = fault_kind::status, .status = 503});
  in.platform.fail_next(endpoint::storage, {.kind = fault_kind::reset_in_body});
  in.platform.fail_next(endpoint::storage, {.kind = fault_kind::status, .status = 403});
  REQUIRE(at.fetch_model_file("ul://lab/helmets/trained", in.folder / "start.pt"));
  CHECK(in.read("start.pt") == in.weights);
  CHECK(in.platform.count(endpoint::files) == 3);
  at.on_train_end(0, "", 0);
}

TEST_CASE("why a file of the Platform cannot be fetched is said, and nothing is left behind") {
  library in;
  session at = in.start(in.run);
  const auto code_of = [&](const hub::result<hub::fetched_file>& fetched) {
    REQUIRE_FALSE(fetched);
    CHECK_FALSE(fetched.error().message.empty());
    CHECK(in.read("file").empty());
    return fetched.error().code;
  };
  using hub::errc;
  const auto file = in.folder / "file";
  CHECK(code_of(at.fetch_model_file("ul://lab/helmets", file)) == errc::invalid_identifier);
  CHECK(code_of(at.fetch_model_file("ul://lab/datasets/helmets", file)) ==
        errc::invalid_identifier);
  CHECK(code_of(at.fetch_dataset("ul://lab/helmets/trained", file)) == errc::invalid_identifier);
  CHECK(code_of(at.fetch_model_file("ul://lab/helmets/none", file)) == errc::unexpected_status);
  CHECK(code_of(at.fetch_model_file("ul://lab/helmets/yolo11n-640", file)) ==
        errc::not_downloadable);
  CHECK(code_of(at.fetch_dataset("ul://lab/datasets/new", file)) == errc::dataset_not_ready);
  at.on_train_end(0, "", 0);
}

}  // namespace platform_session_tests
