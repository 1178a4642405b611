// SPDX-License-Identifier: MIT
//
// Tests of the session: checkpoints, files that change under them, and the end of training, as
// scripts on virtual time. Times are in seconds from the script's beginning.

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "support/world.hpp"

namespace session_uploads_tests {

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
using hub::errc;
using hub::testing::content_hash;
using hub::testing::endpoint;
using hub::testing::fake_hub;
using hub::testing::fault;
using hub::testing::fault_kind;

std::string weights(char fill, std::size_t size = 100'000) { return std::string(size, fill); }

// One request to /upload, and the time until its reply was there.
struct interval {
  double from;
  double to;
};

// Watches uploads for what must never be: two at a time, or one after the final model.
class upload_watch {
 public:
  explicit upload_watch(world& sim) : sim_(sim) {
    sim.hub.on_request = [this](const hub::testing::seen_request& seen) {
      if (seen.to != endpoint::upload) return;
      const double length =
          std::chrono::duration<double>(sim_.hub.latency_per_upload_byte).count() *
          static_cast<double>(seen.body_bytes);
      const double now = sim_.seconds(seen.at);
      intervals.push_back({now, now + length});
    };
  }
  std::vector<interval> intervals;

 private:
  world& sim_;
};

// The files of a folder that this process has open, those without a name among them.
std::vector<fs::path> open_files_in(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& each : fs::directory_iterator("/proc/self/fd")) {
    std::error_code closed;
    if (fs::read_symlink(each, closed).string().starts_with(folder.string() + "/"))
      out.push_back(each.path());
  }
  return out;
}

// Makes an upload of `bytes` take `time`, framing aside.
void slow_down(world& sim, std::size_t bytes, hub::duration time) {
  sim.hub.latency_per_upload_byte = time / static_cast<hub::duration::rep>(bytes);
}

}  // namespace

// ---- when checkpoints go ------------------------------------------------------------------------

TEST_CASE("the first checkpoint leaves after 15 minutes of training, then one every 15 minutes") {
  world sim;
  auto session = sim.start();
  sim.advance(1h);
  session.on_pretrain_routine_end();
  const auto last = sim.folder.write("last.pt", weights('L'));
  for (int epoch = 0; epoch < 60; ++epoch) {
    sim.advance(1min);
    session.on_model_save(epoch, last, epoch == 29);
  }
  sim.advance(1s);
  CHECK(sim.moments(endpoint::upload) == std::vector<double>{4500, 5400, 6300, 7200});
  REQUIRE(sim.model().checkpoints.size() == 4);
  CHECK(sim.model().checkpoints[0].epoch == 14);
  CHECK_FALSE(sim.model().checkpoints[0].is_best);
  CHECK(sim.model().checkpoints[1].epoch == 29);
  CHECK(sim.model().checkpoints[1].is_best);
  CHECK(session.status().checkpoints_delivered == 4);
  CHECK_FALSE(session.status().checkpoint_waiting);
}

TEST_CASE("epochs that take longer than the limit give a checkpoint each") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  const auto last = sim.folder.write("last.pt", weights('L'));
  for (int epoch = 0; epoch < 3; ++epoch) {
    sim.advance(40min);
    session.on_model_save(epoch, last, false);
  }
  sim.advance(1s);
  CHECK(sim.moments(endpoint::upload) == std::vector<double>{2400, 4800, 7200});
}

TEST_CASE("a checkpoint that is not due is not looked at") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(14min);
  session.on_model_save(0, sim.folder / "not there", false);
  CHECK(session.status().checkpoints_failed == 0);
  CHECK_FALSE(fs::exists(sim.folder / "temp"));
  sim.advance(1min);
  session.on_model_save(1, sim.folder / "not there", false);
  CHECK(session.status().checkpoints_failed == 1);
}

TEST_CASE("a newer checkpoint replaces one that still waits") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.hub.outage(0s, 70min);
  for (int epoch = 0; epoch < 70; ++epoch) {
    sim.advance(1min);
    session.on_model_save(
        epoch, sim.folder.write("last.pt", weights('a', 1000 + static_cast<std::size_t>(epoch))),
        false);
    CHECK(open_files_in(sim.folder / "temp").size() <= 1);
  }
  CHECK(session.status().checkpoint_waiting);
  sim.advance(5min);
  REQUIRE(sim.model().checkpoints.size() == 1);
  CHECK(sim.model().checkpoints[0].epoch == 59);
  CHECK(sim.model().checkpoints[0].size_bytes == 1059);
  CHECK(session.status().checkpoints_delivered == 1);
  CHECK(session.status().checkpoints_failed == 0);
}

TEST_CASE("an upload of twenty minutes holds up neither heartbeats nor metrics, nor a second one") {
  world sim;
  upload_watch watch(sim);
  slow_down(sim, 100'000, 20min);
  auto session = sim.start();
  session.on_pretrain_routine_end();
  const auto last = sim.folder.write("last.pt", weights('L'));
  for (int epoch = 0; epoch < 120; ++epoch) {
    sim.advance(30s);
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    session.on_model_save(epoch, last, false);
    CHECK(session.status().epochs_queued <= 1);
  }
  sim.advance(1h);
  std::vector<double> beats;
  for (int i = 0; i <= 24; ++i) beats.push_back(300 * i);
  CHECK(sim.moments(endpoint::heartbeat) == beats);
  CHECK(sim.hub.count(endpoint::metrics) == 120);
  CHECK(sim.model().metrics.size() == 120);
  REQUIRE(watch.intervals.size() >= 3);
  CHECK(watch.intervals[0].from == 900);
  for (std::size_t i = 1; i < watch.intervals.size(); ++i)
    CHECK(watch.intervals[i].from >= watch.intervals[i - 1].to - 1e-6);
  CHECK(session.status().checkpoints_delivered == watch.intervals.size());
}

TEST_CASE("a checkpoint that waits behind a long upload is the newest one, in its own words") {
  world sim;
  sim.hub.keep_contents = true;
  slow_down(sim, 100'000, 50min);
  auto session = sim.start();
  session.on_pretrain_routine_end();
  const auto save = [&](int epoch, char fill) {
    session.on_model_save(epoch, sim.folder.write("last.pt", weights(fill)), epoch == 3);
  };
  sim.advance(15min);
  save(1, 'a');
  sim.advance(16min);
  save(2, 'b');
  sim.advance(16min);
  save(3, 'c');
  sim.folder.write("last.pt", weights('d'));
  sim.advance(2h);
  REQUIRE(sim.model().checkpoints.size() == 2);
  CHECK(sim.model().checkpoints[0].content == weights('a'));
  CHECK(sim.model().checkpoints[1].content == weights('c'));
  CHECK(sim.model().checkpoints[1].epoch == 3);
  CHECK(sim.model().checkpoints[1].is_best);
  CHECK(session.status().checkpoints_delivered == 2);
  CHECK(open_files_in(sim.folder / "temp").empty());
}

TEST_CASE("a checkpoint survives every kind of fault, whole") {
  for (const named_fault& each : every_fault()) {
    INFO(each.name);
    world sim;
    sim.hub.keep_contents = true;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(15min);
    sim.hub.fail_next(endpoint::upload, each.what, 2);
    session.on_model_save(3, sim.folder.write("last.pt", weights('L')), true);
    sim.folder.write("last.pt", weights('M'));
    sim.advance(14min);
    if (each.what.kind == fault_kind::timed_out || each.what.kind == fault_kind::drips)
      sim.advance(3h);
    if (ends_delivery(each.what)) {
      CHECK(sim.model().checkpoints.empty());
      CHECK(session.status().checkpoint_waiting == false);
      CHECK(session.status().checkpoints_failed == 1);
      continue;
    }
    // Where HUB acted and its reply was lost, it has the checkpoint twice.
    REQUIRE_FALSE(sim.model().checkpoints.empty());
    for (const auto& checkpoint : sim.model().checkpoints) {
      CHECK(checkpoint.content == weights('L'));
      CHECK(checkpoint.epoch == 3);
      CHECK(checkpoint.is_best);
    }
    CHECK(session.status().checkpoints_delivered == 1);
    CHECK(session.status().checkpoints_failed == 0);
    CHECK_FALSE(session.status().checkpoint_waiting);
    CHECK(open_files_in(sim.folder / "temp").empty());
  }
}

TEST_CASE("a checkpoint that HUB refuses for good is counted, said and not sent again") {
  for (int status : {400, 413, 422}) {
    world sim;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(15min);
    const auto last = sim.folder.write("last.pt", weights('L'));
    sim.hub.fail_next(endpoint::upload, answered(status));
    session.on_model_save(3, last, true);
    sim.advance(10min);
    CHECK(sim.hub.count(endpoint::upload) == 1);
    CHECK(session.status().checkpoints_failed == 1);
    CHECK(sim.said(std::to_string(status)));
    CHECK(open_files_in(sim.folder / "temp").empty());
    // The next one goes at the usual pace.
    session.on_model_save(4, last, true);
    sim.advance(5min);
    session.on_model_save(5, last, true);
    sim.advance(1s);
    CHECK(sim.moments(endpoint::upload) == std::vector<double>{900, 1800});
    CHECK(session.status().checkpoints_delivered == 1);
  }
}

TEST_CASE("upload_model sends a checkpoint at once, whatever the rate limit") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  const auto last = sim.folder.write("last.pt", weights('L'));
  sim.advance(1s);
  session.upload_model(1, last, true);
  sim.advance(1s);
  session.upload_model(2, last, false);
  sim.advance(1s);
  CHECK(sim.moments(endpoint::upload) == std::vector<double>{1, 2});
  CHECK(sim.model().checkpoints.at(1).epoch == 2);
  session.upload_model(3, sim.folder / "not there", false);
  CHECK(session.status().checkpoints_failed == 1);
  // The rate limit runs from the last one.
  sim.advance(14min);
  session.on_model_save(4, last, false);
  sim.advance(3min);
  session.on_model_save(5, last, false);
  sim.advance(1s);
  CHECK(sim.model().checkpoints.back().epoch == 5);
  CHECK(sim.model().checkpoints.size() == 3);
}

TEST_CASE("flush waits for a checkpoint that is on its way or that waits") {
  world sim;
  slow_down(sim, 100'000, 1min);
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  const auto last = sim.folder.write("last.pt", weights('L'));
  session.on_model_save(1, last, true);
  sim.advance(1s);
  const hub::delivery some = session.flush(10s);
  CHECK(sim.now() == 911);
  CHECK(some.checkpoints_delivered == 0);
  CHECK_FALSE(some.complete());
  REQUIRE(some.why);
  CHECK(session.flush(10min).checkpoints_delivered == 1);
  CHECK(sim.now() < 965);
}

// ---- files that change --------------------------------------------------------------------------

namespace {

// Something that a program may do to a checkpoint while it is uploaded.
struct mishap {
  std::string name;
  std::function<void(const scratch_folder&)> happen;
  bool same_file;  // what was opened is written to
};

std::vector<mishap> all_mishaps() {
  return {
    {"overwritten in place", [](const scratch_folder& in) { in.write("last.pt", weights('B')); },
     true},
        {"overwritten in place in its second half",
         [](const scratch_folder& in) {
           std::fstream file(in / "last.pt", std::ios::in | std::ios::out | std::ios::binary);
           file.seekp(60'000);
           file << weights('B', 40'000);
         },
         true},
        {"overwritten in place in its first half",
         [](const scratch_folder& in) {
           std::fstream file(in / "last.pt", std::ios::in | std::ios::out | std::ios::binary);
           file << weights('B', 40'000);
         },
         true},
        {"truncated", [](const scratch_folder& in) { fs::resize_file(in / "last.pt", 60'000); },
         true},
        {"truncated to nothing and written anew",
         [](const scratch_folder& in) {
           std::ofstream(in / "last.pt", std::ios::binary) << weights('B', 70'000);
         },
         true},
        {"growing",
         [](const scratch_folder& in) {
           std::ofstream(in / "last.pt", std::ios::binary | std::ios::app) << weights('B', 30'000);
         },
         true},
        {"replaced by rename",
         [](const scratch_folder& in) {
           in.write("last.new", weights('B'));
           REQUIRE(!hub::machine::replace(in / "last.new", in / "last.pt"));
         },
         false},
        {"removed", [](const scratch_folder& in) { fs::remove(in / "last.pt"); }, false},
#if !defined( \
    _WIN32)  // before 2019 Windows kept a name until what it named was closed, as wine does
        {"removed and written anew",
         [](const scratch_folder& in) {
           fs::remove(in / "last.pt");
           in.write("last.pt", weights('B'));
         },
         false},
#endif
  };
}

}  // namespace

TEST_CASE("a snapshot arrives as it was saved, whatever happens to the file") {
  for (const mishap& each : all_mishaps()) {
    INFO(each.name);
    world sim;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(15min);
    sim.folder.write("last.pt", weights('A'));
    sim.hub.on_half_upload = [&] { each.happen(sim.folder); };
    session.on_model_save(1, sim.folder / "last.pt", false);
    sim.advance(1h);
    REQUIRE(sim.model().checkpoints.size() == 1);
    CHECK(sim.model().checkpoints[0].hash == content_hash(weights('A')));
    CHECK(sim.hub.count(endpoint::upload) == 1);
    CHECK(session.status().checkpoints_failed == 0);
  }
}

TEST_CASE("a snapshot is of the moment of the save, however long it waits for HUB") {
  for (const mishap& each : all_mishaps()) {
    INFO(each.name);
    world sim;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.hub.outage(0s, 1h);
    sim.advance(15min);
    sim.folder.write("last.pt", weights('A'));
    session.on_model_save(1, sim.folder / "last.pt", false);
    each.happen(sim.folder);
    sim.advance(2h);
    REQUIRE(sim.model().checkpoints.size() == 1);
    CHECK(sim.model().checkpoints[0].hash == content_hash(weights('A')));
  }
}

TEST_CASE("without a snapshot a file that changes once is never delivered torn") {
  for (const mishap& each : all_mishaps()) {
    INFO(each.name);
    world sim;
    sim.hub.keep_contents = true;
    sim.with.snapshot = hub::snapshot::none;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(15min);
    sim.folder.write("last.pt", weights('A'));
    std::set<std::string> versions = {weights('A')};
    bool happened = false;
    sim.hub.on_half_upload = [&] {
      if (std::exchange(happened, true)) return;
      each.happen(sim.folder);
      if (std::ifstream file{sim.folder / "last.pt", std::ios::binary})
        versions.insert(std::string(std::istreambuf_iterator<char>(file), {}));
    };
    session.on_model_save(1, sim.folder / "last.pt", false);
    sim.advance(1h);
    CHECK(happened);
    REQUIRE(sim.model().checkpoints.size() == 1);
    CHECK(versions.count(sim.model().checkpoints[0].content) == 1);
    CHECK((sim.model().checkpoints[0].content == weights('A')) == !each.same_file);
    CHECK(sim.hub.count(endpoint::upload) == (each.same_file ? 2 : 1));
    CHECK(session.status().checkpoints_delivered == 1);
    CHECK(session.status().checkpoints_failed == 0);
    CHECK_FALSE(fs::exists(sim.folder / "temp"));
  }
}

TEST_CASE("without a snapshot a file that never rests is given up, and never delivered") {
  world sim;
  sim.with.snapshot = hub::snapshot::none;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  sim.folder.write("last.pt", weights('A'));
  std::size_t size = 100'000;
  sim.hub.on_half_upload = [&] { sim.folder.write("last.pt", weights('B', ++size)); };
  session.on_model_save(1, sim.folder / "last.pt", false);
  sim.advance(14min);
  CHECK(sim.model().checkpoints.empty());
  CHECK(sim.hub.count(endpoint::upload) == 1 + sim.with.limits.upload_restarts_max);
  CHECK(session.status().checkpoints_failed == 1);
  CHECK(sim.said("was overwritten"));
  // It is not HUB that failed.
  CHECK_FALSE(session.status().unanswered_since);

  sim.hub.on_half_upload = {};
  sim.advance(1min);
  session.on_model_save(2, sim.folder / "last.pt", false);
  sim.advance(15min);
  CHECK(sim.model().checkpoints.size() == 1);
}

TEST_CASE("a file that is gone when its turn comes is an error, not a request") {
  world sim;
  sim.with.snapshot = hub::snapshot::none;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.hub.outage(0s, 30min);
  sim.advance(15min);
  session.on_model_save(1, sim.folder.write("last.pt", weights('A')), false);
  sim.advance(1min);
  fs::remove(sim.folder / "last.pt");
  sim.advance(30min);
  CHECK(sim.model().checkpoints.empty());
  CHECK(session.status().checkpoints_failed == 1);
  CHECK_FALSE(session.status().checkpoint_waiting);
  CHECK(sim.said("does not exist"));
}

// ---- files that are none ------------------------------------------------------------------------

TEST_CASE("what is no readable file is an error in the log, and nothing is sent") {
  for (hub::snapshot mode : {hub::snapshot::copy, hub::snapshot::none}) {
    world sim;
    sim.with.snapshot = mode;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(15min);
    sim.folder.write("empty", "");
    fs::create_directory(sim.folder / "folder");
    std::vector<std::pair<fs::path, std::string>> files = {
        {"", "not exist"},
        {sim.folder / "not there", "not exist"},
        {sim.folder / "folder", "not a regular file"},
        {sim.folder / "empty" / "deeper", "not exist"},
        {sim.folder / "empty", "is empty"},
    };
#if defined(__unix__) || defined(__APPLE__)
    fs::create_symlink("circle", sim.folder / "circle");
    files.emplace_back(sim.folder / "circle", "cannot be looked at");
    fs::create_symlink("not there", sim.folder / "dangling");
    files.emplace_back(sim.folder / "dangling", "not exist");
    REQUIRE(::mkfifo((sim.folder / "fifo").c_str(), 0600) == 0);
    files.emplace_back(sim.folder / "fifo", "not a regular file");
    files.emplace_back("/dev/null", "not a regular file");
#endif
    for (const auto& [file, words] : files) {
      INFO(file.string());
      const std::size_t failed = session.status().checkpoints_failed;
      const std::size_t lines = sim.log.size();
      session.on_model_save(1, file, false);
      sim.advance(1s);
      CHECK(session.status().checkpoints_failed == failed + 1);
      REQUIRE(sim.log.size() == lines + 1);
      CHECK(contains(sim.log.back(), words));
      CHECK_FALSE(session.status().checkpoint_waiting);
    }
    CHECK(sim.hub.count(endpoint::upload) == 0);
    CHECK(open_files_in(sim.folder / "temp").empty());
    // The next good one is taken.
    session.on_model_save(2, sim.folder.write("last.pt", weights('L')), false);
    sim.advance(15min);
    CHECK(sim.model().checkpoints.size() == 1);
  }
}

TEST_CASE("a key in the name of a file is shown neither in the log nor in an error") {
  world sim;
  const fs::path no_folder = sim.folder.write(fake_hub::api_key, "a file");
  sim.with.credentials.save = true;
  sim.with.credentials.settings_file = no_folder / "settings.json";
  auto session = sim.start();
  CHECK(sim.said("cannot be saved to"));
  CHECK(sim.said("***"));

  const fs::path missing = sim.folder / (fake_hub::api_key + ".pt");
  session.upload_model(1, missing, false);
  CHECK(sim.said("***.pt does not exist"));
  for (const hub::delivery& missed : {session.flush(1s), session.on_train_end(1, missing, 0.5)}) {
    REQUIRE(missed.why);
    CHECK(contains(missed.why->message, "does not exist"));
    CHECK(world::says_no_secret(missed.why->message));
  }
}

#if defined(__unix__) || defined(__APPLE__)
TEST_CASE("a file that may not be read is an error in the log, and nothing is sent") {
  // Root may read everything, so that it steps aside.
  struct other_user {
    uid_t before = ::geteuid();
    bool changed = before == 0 && ::seteuid(65534) == 0;
    ~other_user() {
      if (changed && ::seteuid(before) != 0) std::abort();
    }
  };
  for (hub::snapshot mode : {hub::snapshot::copy, hub::snapshot::none}) {
    world sim;
    fs::permissions(sim.folder.path(), fs::perms::all);
    sim.with.snapshot = mode;
    const auto file = sim.folder.write("last.pt", weights('L'));
    fs::permissions(file, fs::perms::none);
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(15min);
    {
      const other_user step_aside;
      if (::access(file.c_str(), R_OK) == 0 && ::geteuid() == 0) {
        WARN("this user may read everything");
        return;
      }
      session.on_model_save(1, file, false);
      sim.advance(1s);
    }
    CHECK(session.status().checkpoints_failed == 1);
    CHECK(sim.hub.count(endpoint::upload) == 0);
    CHECK(sim.lines_with("last.pt cannot be") == 1);
    fs::permissions(file, fs::perms::owner_all);
  }
}

TEST_CASE("a snapshot has no name from the start, and is for this user alone") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.hub.outage(0s, 1h);
  sim.advance(15min);
  const auto last = sim.folder.write("last.pt", weights('L'));
  fs::permissions(last, fs::perms::all);
  session.on_model_save(1, last, false);
  CHECK(fs::is_empty(sim.folder / "temp"));
  const std::vector<fs::path> held = open_files_in(sim.folder / "temp");
  REQUIRE(held.size() == 1);
  CHECK(fs::status(held.front()).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
  CHECK(fs::hard_link_count(held.front()) == 0);
}

TEST_CASE("snapshots are gone when they have arrived, and when the session ends") {
  world sim;
  {
    auto session = sim.start();
    session.on_pretrain_routine_end();
    const auto last = sim.folder.write("last.pt", weights('L'));
    sim.advance(15min);
    session.on_model_save(1, last, false);
    CHECK(open_files_in(sim.folder / "temp").size() == 1);
    sim.advance(1s);
    CHECK(open_files_in(sim.folder / "temp").empty());
    sim.hub.outage(0s, 2h);
    sim.advance(15min);
    session.on_model_save(2, last, false);
    CHECK(open_files_in(sim.folder / "temp").size() == 1);
    CHECK(fs::exists(last));
  }
  CHECK(open_files_in(sim.folder / "temp").empty());
  CHECK(fs::is_empty(sim.folder / "temp"));
}
#endif

TEST_CASE("a temp folder that cannot be used is an error that says what to do") {
  world sim;
  sim.with.temp_folder = sim.folder.write("a file", "in the way");
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  session.on_model_save(1, sim.folder.write("last.pt", weights('L')), false);
  sim.advance(1s);
  CHECK(session.status().checkpoints_failed == 1);
  CHECK(sim.said("temp_folder"));
  CHECK(sim.hub.count(endpoint::upload) == 0);
}

TEST_CASE("a folder for snapshots that was cleaned away is made again") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  const auto last = sim.folder.write("last.pt", weights('L'));
  sim.advance(15min);
  session.on_model_save(1, last, false);
  sim.advance(1s);
  fs::remove_all(sim.folder / "temp");
  sim.advance(15min);
  session.on_model_save(2, last, false);
  sim.advance(1s);
  CHECK(sim.model().checkpoints.size() == 2);
}

// ---- the end of training ------------------------------------------------------------------------

TEST_CASE(
    "on_train_end sends what is queued, then the final model, and returns when HUB has both") {
  world sim;
  sim.hub.latency = 1s;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < 250; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
  const double began = sim.now();
  const hub::delivery delivered =
      session.on_train_end(249, sim.folder.write("best.pt", weights('B')), 0.75);
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 250);
  CHECK(delivered.final_model_wanted);
  CHECK(delivered.final_model_delivered);
  CHECK_FALSE(delivered.why);
  CHECK(sim.model().metrics.size() == 250);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{began, began + 1, began + 2});
  CHECK(sim.moments(endpoint::upload) == std::vector<double>{began + 3});
  CHECK(sim.now() == began + 4);
  CHECK(sim.said("Done"));
}

TEST_CASE("the final model is the last, also where the metrics need retries") {
  for (const named_fault& each : every_fault()) {
    if (ends_delivery(each.what)) continue;
    INFO(each.name);
    world sim;
    auto session = sim.start();
    sim.advance(1min);
    for (int epoch = 0; epoch < 10; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
    sim.hub.fail_next(endpoint::metrics, each.what, 3);
    const hub::delivery delivered =
        session.on_train_end(9, sim.folder.write("best.pt", weights('B')), 0.5);
    CHECK(delivered.complete());
    CHECK(sim.model().metrics.size() == 10);
    REQUIRE(sim.model().final_model());
    CHECK(sim.hub.requests().back().to == endpoint::upload);
    CHECK(sim.moments(endpoint::upload).front() >= sim.moments(endpoint::metrics).back());
  }
}

TEST_CASE("a HUB that takes the final model but no metrics still gets the final model") {
  world sim;
  auto session = sim.start();
  sim.advance(1min);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.hub.fail_next(endpoint::metrics, answered(503), 1'000'000);
  const hub::delivery delivered =
      session.on_train_end(0, sim.folder.write("best.pt", weights('B')), 0.5);
  CHECK(delivered.final_model_delivered);
  CHECK_FALSE(delivered.complete());
  CHECK(delivered.epochs_queued == 1);
  REQUIRE(delivered.why);
  CHECK(delivered.why->code == errc::server_error);
}

TEST_CASE("a checkpoint in flight is finished within its grace before the final model leaves") {
  world sim;
  upload_watch watch(sim);
  slow_down(sim, 100'000, 20s);
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  session.on_model_save(1, sim.folder.write("last.pt", weights('L')), false);
  sim.advance(5s);
  const hub::delivery delivered =
      session.on_train_end(2, sim.folder.write("best.pt", weights('B')), 0.5);
  CHECK(delivered.complete());
  CHECK(delivered.checkpoints_delivered == 1);
  REQUIRE(watch.intervals.size() == 2);
  CHECK(watch.intervals[0].from == 900);
  CHECK(watch.intervals[1].from >= watch.intervals[0].to - 1e-6);
  CHECK(watch.intervals[1].from < 921);
}

TEST_CASE("a checkpoint that outlasts its grace is cut, and the final model leaves then") {
  world sim;
  upload_watch watch(sim);
  slow_down(sim, 100'000, 20min);
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  session.on_model_save(1, sim.folder.write("last.pt", weights('L')), false);
  sim.advance(5s);
  const hub::delivery delivered =
      session.on_train_end(2, sim.folder.write("best.pt", weights('B')), 0.5);
  CHECK(delivered.complete());
  CHECK(delivered.checkpoints_delivered == 0);
  REQUIRE(watch.intervals.size() == 2);
  CHECK(watch.intervals[1].from == 935);
  CHECK(std::abs(sim.now() - watch.intervals[1].to) < 1e-6);
  CHECK(sim.model().final_model()->hash == content_hash(weights('B')));
  CHECK(open_files_in(sim.folder / "temp").empty());
}

TEST_CASE("a checkpoint in flight that fails in its grace makes way for the final model") {
  world sim;
  slow_down(sim, 100'000, 20s);
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  sim.hub.fail_next(endpoint::upload, {fault_kind::reset_after_body});
  session.on_model_save(1, sim.folder.write("last.pt", weights('L')), false);
  sim.advance(5s);
  CHECK(session.on_train_end(2, sim.folder.write("best.pt", weights('B')), 0.5).complete());
  CHECK(sim.hub.count(endpoint::upload) == 2);
  REQUIRE(sim.model().checkpoints.size() == 1);
  CHECK(sim.model().checkpoints[0].is_final);
}

TEST_CASE("a checkpoint that waits at the end gives way to the final model") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  sim.hub.fail_next(endpoint::upload, answered(503), 3);
  session.on_model_save(1, sim.folder.write("last.pt", weights('L')), false);
  sim.advance(0s);
  CHECK(session.on_train_end(2, sim.folder.write("best.pt", weights('B')), 0.5).complete());
  REQUIRE(sim.model().checkpoints.size() == 1);
  CHECK(sim.model().checkpoints[0].is_final);
}

TEST_CASE("without a final model, a checkpoint that waits at the end is still sent") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  sim.hub.fail_next(endpoint::upload, answered(503), 3);
  session.on_model_save(1, sim.folder.write("last.pt", weights('L')), false);
  sim.advance(0s);
  const hub::delivery delivered = session.on_train_end(1, "", 0);
  CHECK(delivered.complete());
  CHECK_FALSE(delivered.final_model_wanted);
  CHECK(delivered.checkpoints_delivered == 1);
  CHECK(sim.model().checkpoints.size() == 1);
}

TEST_CASE("without a final model, a checkpoint in flight at the end is waited for") {
  world sim;
  slow_down(sim, 100'000, 20min);
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  session.on_model_save(1, sim.folder.write("last.pt", weights('L')), false);
  sim.advance(5s);
  const hub::delivery delivered = session.on_train_end(1, {}, 0);
  CHECK(delivered.complete());
  CHECK(delivered.checkpoints_delivered == 1);
  CHECK(sim.now() > 2000);
}

TEST_CASE("with a dead HUB on_train_end returns at its deadline and tells what is missing") {
  for (hub::duration deadline : {hub::duration(1h), hub::duration(10s), hub::duration(0s)}) {
    world sim;
    sim.with.limits.train_end_deadline = deadline;
    sim.with.retry.final_retries_max = 1000;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(10s);
    sim.hub.fail_next({fault_kind::timed_out}, 1'000'000);
    for (int epoch = 0; epoch < 7; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
    const hub::delivery delivered =
        session.on_train_end(6, sim.folder.write("best.pt", weights('B')), 0.5);
    CHECK(sim.now() == 10 + std::chrono::duration<double>(deadline).count());
    CHECK_FALSE(delivered.complete());
    CHECK(delivered.epochs_delivered == 0);
    CHECK(delivered.epochs_queued == 7);
    CHECK(delivered.final_model_wanted);
    CHECK_FALSE(delivered.final_model_delivered);
    REQUIRE(delivered.why);
    CHECK(delivered.why->code == errc::timed_out);
    CHECK_FALSE(delivered.why->message.empty());
    CHECK(sim.said("Missing: 7 epochs and the final model."));
    CHECK_FALSE(sim.said("Done"));
    // What was still on its way is not counted later on, and nothing follows.
    const std::size_t requests = sim.hub.requests().size();
    sim.hub.no_more_faults();
    sim.advance(2h);
    CHECK(sim.hub.requests().size() == requests);
    CHECK(session.status().epochs_queued == 7);
  }
}

TEST_CASE("a long outage before the end leaves the final model all its tries") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.hub.outage(1min, 10h + 1min);
  const auto last = sim.folder.write("last.pt", weights('L'));
  for (int epoch = 0; epoch < 600; ++epoch) {
    sim.advance(1min);
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    session.on_model_save(epoch, last, false);
  }
  const hub::delivery delivered =
      session.on_train_end(599, sim.folder.write("best.pt", weights('B')), 0.5);
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 600);
  CHECK(sim.now() < 10 * 3600 + 20 * 60);
}

TEST_CASE("the final metrics and the final model are each tried eleven times") {
  world sim;
  sim.with.retry.jitter = false;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(10s);
  session.on_fit_epoch_end(0, {{"a", 1}});
  const auto best = sim.folder.write("best.pt", weights('B'));
  SECTION("and given up then, before the deadline") {
    sim.hub.fail_next(endpoint::metrics, {fault_kind::refused}, 1000);
    sim.hub.fail_next(endpoint::upload, {fault_kind::refused}, 1000);
    const hub::delivery delivered = session.on_train_end(0, best, 0.5);
    CHECK(sim.hub.count(endpoint::metrics) == 11);
    CHECK(sim.hub.count(endpoint::upload) == 11);
    CHECK(sim.now() < 3600);
    CHECK_FALSE(delivered.final_model_delivered);
    REQUIRE(delivered.why);
    CHECK(delivered.why->code == errc::not_reachable);
  }
  SECTION("where the eleventh still gets through") {
    sim.hub.fail_next(endpoint::metrics, {fault_kind::refused}, 10);
    sim.hub.fail_next(endpoint::upload, {fault_kind::refused}, 10);
    CHECK(session.on_train_end(0, best, 0.5).complete());
    CHECK(sim.hub.count(endpoint::metrics) == 11);
    CHECK(sim.hub.count(endpoint::upload) == 11);
  }
}

TEST_CASE("the final model survives every kind of fault") {
  for (const named_fault& each : every_fault()) {
    INFO(each.name);
    world sim;
    sim.with.limits.train_end_deadline = 4h;
    auto session = sim.start();
    sim.advance(1min);
    sim.hub.fail_next(endpoint::upload, each.what, 2);
    const hub::delivery delivered =
        session.on_train_end(9, sim.folder.write("best.pt", weights('B')), 0.5);
    if (ends_delivery(each.what)) {
      CHECK(sim.hub.count(endpoint::upload) == 1);
      CHECK_FALSE(delivered.final_model_delivered);
      continue;
    }
    CHECK(delivered.complete());
    REQUIRE(sim.model().final_model());
    CHECK(sim.model().final_model()->hash == content_hash(weights('B')));
    CHECK(sim.said("Done"));
  }
}

TEST_CASE("a final model that HUB refuses for good is not sent again, and said to be missing") {
  world sim;
  auto session = sim.start();
  sim.advance(1min);
  sim.hub.fail_next(endpoint::upload, answered(413));
  const double before = sim.now();
  const hub::delivery delivered =
      session.on_train_end(9, sim.folder.write("best.pt", weights('B')), 0.5);
  CHECK(sim.now() == before);
  CHECK(sim.hub.count(endpoint::upload) == 1);
  CHECK(delivered.final_model_wanted);
  CHECK_FALSE(delivered.final_model_delivered);
  REQUIRE(delivered.why);
  CHECK(delivered.why->code == errc::rejected);
  CHECK(delivered.why->http_status == 413);
  CHECK_FALSE(sim.said("Done"));
}

TEST_CASE("a final model that is missing or no file is said, and not waited for") {
  for (const char* name : {"not there", "folder", "empty"}) {
    INFO(name);
    world sim;
    fs::create_directory(sim.folder / "folder");
    sim.folder.write("empty", "");
    auto session = sim.start();
    sim.advance(1min);
    session.on_fit_epoch_end(0, {{"a", 1}});
    const hub::delivery delivered = session.on_train_end(0, sim.folder / name, 0.5);
    CHECK(sim.now() == 60);
    CHECK(delivered.epochs_delivered == 1);
    CHECK_FALSE(delivered.final_model_delivered);
    REQUIRE(delivered.why);
    CHECK(delivered.why->code == errc::file_error);
    CHECK(contains(delivered.why->message, name));
    CHECK(sim.hub.count(endpoint::upload) == 0);
    CHECK_FALSE(sim.said("Done"));
  }
}

TEST_CASE("an ending that failed can be repeated with another file, and with what came meanwhile") {
  world sim;
  auto session = sim.start();
  sim.advance(1min);
  session.on_fit_epoch_end(0, {{"a", 1}});
  CHECK_FALSE(session.on_train_end(0, sim.folder / "missing.pt", 0.5).complete());
  session.on_fit_epoch_end(1, {{"a", 1}});
  session.on_model_save(1, sim.folder.write("last.pt", weights('L')), false);
  sim.advance(10min);
  CHECK(sim.lines_with("Epoch 1 came after on_train_end") == 1);
  CHECK(sim.lines_with("came after on_train_end") == 1);
  CHECK(sim.epochs_on_hub() == epochs(0, 0));

  sim.hub.fail_next(endpoint::upload, answered(413));
  CHECK_FALSE(session.on_train_end(1, sim.folder / "last.pt", 0.5).complete());
  CHECK(sim.lines_with("Missing: the final model.") == 2);
  const hub::delivery delivered = session.on_train_end(1, sim.folder / "last.pt", 0.5);
  CHECK(delivered.complete());
  CHECK(delivered.final_model_delivered);
  CHECK(sim.epochs_on_hub() == epochs(0, 1));
  REQUIRE(sim.model().final_model() != nullptr);
  CHECK(sim.model().final_model()->hash == content_hash(weights('L')));
}

TEST_CASE("an ending without a model can be followed by one with it") {
  world sim;
  auto session = sim.start();
  sim.advance(1min);
  CHECK(session.on_train_end(0, "", 0.5).complete());
  CHECK(session.on_train_end(0, sim.folder.write("best.pt", weights('B')), 0.5).complete());
  CHECK(sim.model().final_model() != nullptr);
}

TEST_CASE("once HUB has the final model the session is over, and says so to a further one") {
  world sim;
  auto session = sim.start();
  sim.advance(1min);
  CHECK(session.on_train_end(0, sim.folder.write("best.pt", weights('B')), 0.5).complete());
  const hub::delivery over =
      session.on_train_end(0, sim.folder.write("gr\u00F6\u00DFer.pt", "o"), 0.5);
  CHECK_FALSE(over.complete());
  CHECK(over.final_model_delivered);
  REQUIRE(over.why);
  CHECK(over.why->code == errc::already_trained);
  CHECK(contains(over.why->message, "The session is over"));
  CHECK(contains(over.why->message, "gr\u00F6\u00DFer.pt"));
  CHECK(sim.hub.count(endpoint::upload) == 1);
  CHECK(session.on_train_end(0, "", 0.5).complete());
}

TEST_CASE("what a session leaves unsent is counted in one line, with where it is") {
  for (bool keeps : {true, false}) {
    INFO((keeps ? "with" : "without") << " a spool");
    world sim;
    if (keeps) sim.with.spool.directory = sim.folder / "sp\u00FCle";
    try {
      auto session = sim.start();
      session.on_pretrain_routine_end();
      sim.advance(20min);
      sim.hub.fail_next(answered(503), 1'000'000);
      for (int epoch = 0; epoch < 5; ++epoch) session.on_fit_epoch_end(epoch, {{"a", 1}});
      session.on_model_save(4, sim.folder.write("last.pt", weights('L')), false);
      throw std::runtime_error("CUDA out of memory");
    } catch (const std::runtime_error&) {
    }
    CHECK(sim.lines_with("Missing: 5 epochs and 1 checkpoint.") == 1);
    CHECK(sim.lines_with("Not everything arrived") == 1);
    CHECK(sim.said((sim.folder / "sp\u00FCle").string()) == keeps);
    CHECK(sim.said("the next session on this model sends it, and so does sync") == keeps);
    CHECK(sim.said("is lost with this process") != keeps);
  }
}

TEST_CASE("what is missing is said once, and not where nothing is") {
  world sim;
  {
    auto session = sim.start();
    session.on_fit_epoch_end(0, {{"a", 1}});
  }
  CHECK_FALSE(sim.said("Not everything arrived"));
  {
    auto session = sim.start();
    session.on_train_end(0, sim.folder / "missing.pt", 0.5);
  }
  CHECK(sim.lines_with("Missing: the final model.") == 1);
  CHECK(sim.lines_with("Not everything arrived") == 1);
  CHECK_FALSE(sim.said("is lost with this process"));  // nothing was there that could wait
}

#if !defined(_WIN32)  // which keeps a folder in which a program works
TEST_CASE("a final model named from a working folder that is gone is not called complete") {
  world sim;
  const fs::path before = fs::current_path();
  fs::create_directory(sim.folder / "work");
  auto session = sim.start();
  sim.advance(1min);
  session.on_fit_epoch_end(0, {{"a", 1}});
  fs::current_path(sim.folder / "work");
  fs::remove(sim.folder / "work");
  const hub::delivery delivered = session.on_train_end(0, "best.pt", 0.5);
  fs::current_path(before);
  CHECK_FALSE(delivered.complete());
  REQUIRE(delivered.why);
  CHECK(delivered.why->code == errc::file_error);
  CHECK(sim.model().metrics.size() == 1);
}
#endif

TEST_CASE("a checkpoint named by a relative path is the file of that moment's folder") {
  world sim;
  sim.with.snapshot = hub::snapshot::none;
  const fs::path before = fs::current_path();
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  sim.folder.write("last.pt", weights('L'));
  fs::current_path(sim.folder.path());
  session.on_model_save(0, "last.pt", false);
  fs::current_path(before);
  sim.advance(1s);
  REQUIRE(sim.model().checkpoints.size() == 1);
  CHECK(sim.model().checkpoints[0].hash == content_hash(weights('L')));
}

TEST_CASE("a final model that changes on its way is never delivered torn") {
  for (hub::snapshot mode : {hub::snapshot::copy, hub::snapshot::none}) {
    world sim;
    sim.with.snapshot = mode;
    auto session = sim.start();
    sim.advance(1min);
    const auto best = sim.folder.write("best.pt", weights('A'));
    bool happened = false;
    sim.hub.on_half_upload = [&] {
      if (!std::exchange(happened, true)) sim.folder.write("best.pt", weights('B', 120'000));
    };
    CHECK(session.on_train_end(0, best, 0.5).complete());
    CHECK(happened);
    REQUIRE(sim.model().checkpoints.size() == 1);
    const std::uint64_t hash = sim.model().checkpoints[0].hash;
    CHECK((hash == content_hash(weights('A')) || hash == content_hash(weights('B', 120'000))));
  }
}

TEST_CASE("while the final model takes twenty minutes the heart beats on") {
  world sim;
  slow_down(sim, 100'000, 20min);
  auto session = sim.start();
  sim.advance(1min);
  CHECK(session.on_train_end(0, sim.folder.write("best.pt", weights('B')), 0.5).complete());
  CHECK(sim.moments(endpoint::heartbeat) == std::vector<double>{0, 300, 600, 900, 1200});
  sim.advance(1h);
  CHECK(sim.hub.count(endpoint::heartbeat) == 5);
}

TEST_CASE("a key that HUB refuses at the end is tried again soon, for a minute") {
  world sim;
  sim.with.retry.jitter = false;
  auto session = sim.start();
  sim.advance(1min);
  sim.hub.fail_next(endpoint::upload, answered(403), 3);
  CHECK(session.on_train_end(0, sim.folder.write("best.pt", weights('B')), 0.5).complete());
  CHECK(sim.moments(endpoint::upload) == std::vector<double>{60, 61, 63, 67});
}

TEST_CASE("a refusal that lasts ends the training within its bound, and the spool has everything") {
  for (int refusal : {401, 403, 404, 410}) {
    INFO("status " << refusal);
    world sim;
    sim.with.spool.directory = sim.folder / "spool";
    {
      auto session = sim.start();
      sim.advance(1min);
      sim.hub.fail_next(answered(refusal), 1'000'000);
      session.on_fit_epoch_end(0, {{"a", 1}});
      sim.advance(20min);
      session.on_fit_epoch_end(1, {{"a", 2}});
      const double before = sim.now();
      const hub::delivery left =
          session.on_train_end(1, sim.folder.write("best.pt", weights('B')), 0.5);
      CHECK(sim.now() - before <= 60);
      CHECK_FALSE(left.complete());
      CHECK(left.epochs_queued == 2);
      REQUIRE(left.why);
      CHECK(left.why->http_status == refusal);
      CHECK(sim.said("limits.denied_deadline"));
    }
    sim.hub.no_more_faults();
    auto next = sim.start();
    sim.advance(1min);
    CHECK(sim.epochs_on_hub() == epochs(0, 1));
    CHECK(sim.model().final_model() != nullptr);
  }
}

TEST_CASE("uploads tell of their progress by bytes sent") {
  world sim;
  struct step {
    std::string file;
    std::uint64_t sent;
    std::uint64_t total;
  };
  std::vector<step> steps;
  sim.with.progress = [&](const hub::transfer_progress& now) {
    steps.push_back({std::string(now.file), now.bytes_done, now.bytes_total});
  };
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  session.on_model_save(0, sim.folder.write("weights.bin", weights('L')), false);
  sim.advance(1s);
  const std::size_t checkpoint_steps = steps.size();
  session.on_train_end(1, sim.folder.write("other.bin", weights('B')), 0.5);
  REQUIRE(checkpoint_steps >= 4);
  REQUIRE(steps.size() >= 2 * checkpoint_steps);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const bool first = i == 0 || i == checkpoint_steps;
    CHECK(steps[i].file == (i < checkpoint_steps ? "last.pt" : "best.pt"));
    CHECK(steps[i].total == 100'000);
    CHECK(steps[i].sent > (first ? 0 : steps[i - 1].sent));
  }
  CHECK(steps[checkpoint_steps - 1].sent == steps[checkpoint_steps - 1].total);
  CHECK(steps.back().sent == steps.back().total);
}

TEST_CASE("a failed checkpoint that a later one made good does not keep the end from complete") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(15min);
  session.on_model_save(1, sim.folder / "not there", false);
  session.on_model_save(2, sim.folder.write("last.pt", weights('L')), false);
  sim.advance(1s);
  REQUIRE(sim.model().checkpoints.size() == 1);
  SECTION("with a final model") {
    CHECK(session.on_train_end(2, sim.folder.write("best.pt", weights('B')), 0.5).complete());
  }
  SECTION("without one") { CHECK(session.on_train_end(2, "", 0).complete()); }
}

TEST_CASE("the destructor does not wait for a long upload, and tidies up") {
  world sim;
  slow_down(sim, 100'000, 20min);
  double before = 0;
  {
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(15min);
    session.on_model_save(1, sim.folder.write("last.pt", weights('L')), false);
    sim.advance(1min);
    session.on_fit_epoch_end(1, {{"a", 1}});
    before = sim.now();
  }
  CHECK(sim.now() == before + 2);
  CHECK(sim.model().metrics.size() == 1);
  CHECK(fs::is_empty(sim.folder / "temp"));
}

}  // namespace session_uploads_tests
