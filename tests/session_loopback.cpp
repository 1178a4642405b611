// SPDX-License-Identifier: MIT
//
// The session and the default policies together: hub::training_session over real sockets of 127.0.0.1,
// against a HUB that is held in memory and does what the test's script says. Its start and what it does
// to its process have files of their own beside this one.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "support/raw_server.hpp"
#include "support/scratch.hpp"
#include "support/scripted_hub.hpp"
#include "support/text.hpp"

namespace session_loopback_tests {

using namespace hub_test;
using namespace std::chrono_literals;
using hub::errc;
using nlohmann::json;

namespace {

// Text that differs in every place and from seed to seed.
std::string pattern(std::size_t size, unsigned seed) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i)
    out[i] = static_cast<char>(((i + seed) * 2654435761U >> 9) & 0xFF);
  return out;
}

}  // namespace

// ---- a whole training ---------------------------------------------------------------------------

TEST_CASE("a training arrives whole, in the clear and over TLS") {
  const bool tls = GENERATE(false, true);
  const certificate_authority authority;
  stage at(tls ? std::optional(authority.issue()) : std::nullopt);
  hub::session_options options = at.options();
  options.rate_limits.heartbeat = 10ms;
  const auto last = at.folder / "last.pt";
  const auto best = at.folder / "best.pt";
  constexpr int epochs = 5;
  hub::delivery delivered;
  {
    hub::training_session session{
        at.hub.root() + "/models/" + model_id + "/?tab=train", options,
        hub::httplib_transport{hub::httplib_options{.ca_file = authority.file()}}};
    CHECK(session.model().id == model_id);
    CHECK(session.model().state == hub::model_state::fresh);
    CHECK(session.model_file() == "yolov8n.yaml");
    CHECK(session.model_url() == at.hub.root() + "/models/" + model_id);
    CHECK(session.train_args().epochs == 3);
    CHECK(session.train_args().batch == 16.0);
    CHECK(session.train_args().data == "https://example.org/coco8.zip?signature=secret");

    hub::training_callbacks& callbacks = session;
    callbacks.on_pretrain_routine_end();
    for (int epoch = 0; epoch < epochs; ++epoch) {
      callbacks.on_fit_epoch_end(
          epoch, {{"train/box_loss", 1.5 / (epoch + 1)}, {"metrics/mAP50-95(B)", 0.1 * epoch}});
      write_file(last, pattern(300'000, static_cast<unsigned>(epoch)));
      callbacks.on_model_save(epoch, last, epoch == 3);
      write_file(last, "overwritten");  // the session has its own copy
      REQUIRE(at.hub.wait([&](const ledger& seen) {
        return seen.uploads.size() == static_cast<std::size_t>(epoch) + 1;
      }));
    }
    REQUIRE(at.hub.wait([](const ledger& seen) { return seen.heartbeats.size() >= 3; }));
    write_file(best, pattern(700'000, 99));
    delivered = callbacks.on_train_end(epochs - 1, best, 0.123456789);
    CHECK(session.status().agent_id == "agent-1");
    CHECK_FALSE(session.status().unanswered_since);
  }
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == epochs);
  CHECK(delivered.checkpoints_delivered == epochs);
  CHECK(delivered.final_model_delivered);
  CHECK_FALSE(delivered.why);

  const ledger seen = at.hub.seen();
  REQUIRE(seen.calls.size() >= 2);
  CHECK(seen.calls[0].path == auth_path);
  CHECK(seen.calls[1].path == model_path);
  CHECK(seen.calls[1].method == "GET");
  CHECK(seen.auths == 1);
  CHECK(seen.count("GET", model_path) == 1);
  for (const call& each : seen.calls) {
    CHECK(each.key == good_key);
    CHECK(each.authorization.empty());
  }

  CHECK(seen.heartbeats[0] ==
        json{{"agent", "cpp-" HUB_SESSION_VERSION "-local"}, {"agentId", nullptr}});
  for (std::size_t i = 1; i < seen.heartbeats.size(); ++i)
    CHECK(seen.heartbeats[i].at("agentId") == "agent-1");

  REQUIRE(seen.epochs.size() == epochs);
  for (const auto& [epoch, values] : seen.epochs)
    CHECK(values ==
          json{{"train/box_loss", 1.5 / (epoch + 1)}, {"metrics/mAP50-95(B)", 0.1 * epoch}});

  REQUIRE(seen.uploads.size() == epochs + 1);
  for (int epoch = 0; epoch < epochs; ++epoch) {
    const seen_upload& each = seen.uploads[static_cast<std::size_t>(epoch)];
    REQUIRE(each.fields.size() == 4);
    CHECK(each.fields[0] == std::pair<std::string, std::string>("epoch", std::to_string(epoch)));
    CHECK(each.fields[1] == std::pair<std::string, std::string>("type", "epoch"));
    CHECK(each.fields[2] ==
          std::pair<std::string, std::string>("isBest", epoch == 3 ? "True" : "False"));
    CHECK(each.fields[3].first == "last.pt");
    CHECK(each.file_name == "last.pt");
    CHECK((each.fields[3].second == pattern(300'000, static_cast<unsigned>(epoch))));
  }
  const seen_upload& final_one = seen.uploads.back();
  REQUIRE(final_one.fields.size() == 4);
  CHECK(final_one.fields[0].second == std::to_string(epochs - 1));
  CHECK(final_one.fields[1] == std::pair<std::string, std::string>("type", "final"));
  CHECK(final_one.fields[2] == std::pair<std::string, std::string>("map", "0.123456789"));
  CHECK(final_one.file_name == "best.pt");
  CHECK((final_one.fields[3].second == pattern(700'000, 99)));

  CHECK_FALSE(contains(at.said.text(), good_key));
  CHECK(contains(at.said.text(), "Done"));
  // Nothing of the snapshots is left behind.
  for (const auto& entry : std::filesystem::directory_iterator(at.folder.path()))
    CHECK(entry.path().extension() == ".pt");
}

TEST_CASE("a session over an erased transport is a session") {
  stage at;
  using erased =
      hub::basic_training_session<hub::any_transport, hub::steady_clock, hub::thread_sleeper>;
  erased session{model_id, at.options(), hub::any_transport(hub::httplib_transport())};
  session.on_fit_epoch_end(0, {{"loss", 1}});
  CHECK(session.on_train_end(0, "", 0).complete());
  CHECK(at.hub.seen().epochs.size() == 1);
}

TEST_CASE("a model that HUB does not know yet is made and then trained") {
  stage at;
  const std::string id =
      hub::training_session::create_model({.name = "run 1", .dataset = "coco8"}, at.options());
  CHECK(id == model_id);
  const ledger seen = at.hub.seen();
  REQUIRE(seen.created.size() == 1);
  CHECK(seen.created[0].at("meta").at("name") == "run 1");
  CHECK(seen.created[0].at("dataset").at("name") == "coco8");
  CHECK(seen.created[0].at("config").at("epochs") == 300);
  CHECK(code_of(start_error(id, at.options())) == "none");
}

TEST_CASE("the progress of the final upload grows up to the whole") {
  stage at;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> told;
  bool named = true;
  hub::session_options options = at.options();
  options.progress = [&](const hub::transfer_progress& now) {
    named = named && now.file == "best.pt" && now.elapsed >= hub::duration::zero();
    told.emplace_back(now.bytes_done, now.bytes_total);
  };
  write_file(at.folder / "best.pt", pattern(5'000'000, 1));
  {
    hub::training_session session{model_id, options};
    CHECK(session.on_train_end(0, at.folder / "best.pt", 0.5).complete());
  }
  REQUIRE_FALSE(told.empty());  // states for which the function was too slow are left out
  CHECK(named);
  for (std::size_t i = 1; i < told.size(); ++i) CHECK(told[i].first > told[i - 1].first);
  for (const auto& [sent, total] : told) CHECK(total == told[0].second);
  CHECK(told.back().first == told.back().second);
  CHECK(told.back().second == 5'000'000);
  CHECK((at.hub.seen().uploads.at(0).fields.at(3).second == pattern(5'000'000, 1)));
}

TEST_CASE("a file that cannot be uploaded is said, and nothing is sent") {
  stage at;
  std::filesystem::create_directory(at.folder / "folder.pt");
  write_file(at.folder / "empty.pt", "");
  {
    hub::training_session session{model_id, at.options()};
    for (const char* name : {"missing.pt", "folder.pt", "empty.pt"})
      session.on_model_save(0, at.folder / name, false);
    const hub::delivery delivered = session.on_train_end(0, at.folder / "missing.pt", 0.5);
    CHECK_FALSE(delivered.complete());
    CHECK_FALSE(delivered.final_model_delivered);
    REQUIRE(delivered.why);
    CHECK(delivered.why->code == errc::file_error);
    CHECK(session.status().checkpoints_failed == 4);
  }
  CHECK(at.hub.seen().count("POST", upload_path) == 0);
  for (const char* part :
       {"missing.pt does not exist", "folder.pt is not a regular file", "empty.pt is empty"})
    CHECK(contains(at.said.text(), part));
}

TEST_CASE("faults in a training cost time and no data") {
  stage at;
  std::atomic<int> left = 12;  // every kind of request fails while there are any
  at.hub.set_fault([&](const std::string& method, const std::string&, httplib::Response& answer) {
    if (method == "GET" || left-- <= 0) return false;
    constexpr std::array<int, 4> kinds = {503, 429, 500, 401};
    answer.status = kinds[static_cast<std::size_t>(left & 3)];
    answer.set_content("<html>no</html>", "text/html");
    return true;
  });
  hub::session_options options = at.options();
  options.credentials = {.id_token = good_token};  // no sign-in that could fail
  options.rate_limits.heartbeat = 1ms;
  write_file(at.folder / "model.pt", pattern(1000, 1));
  {
    hub::training_session session{model_id, options};
    for (int epoch = 0; epoch < 20; ++epoch) session.on_fit_epoch_end(epoch, {{"loss", epoch}});
    session.upload_model(19, at.folder / "model.pt", true);
    const hub::delivery delivered = session.on_train_end(19, at.folder / "model.pt", 0.5);
    CHECK(delivered.complete());
    CHECK(delivered.epochs_delivered == 20);
  }
  CHECK(left <= 0);
  CHECK(at.hub.seen().epochs.size() == 20);
  CHECK(at.hub.seen().uploads.back().fields.at(1).second == "final");
}

TEST_CASE("a final model that HUB refuses for good is reported as missing") {
  stage at;
  at.hub.set_fault([&](const std::string&, const std::string& path, httplib::Response& answer) {
    if (path != upload_path) return false;
    answer.status = 413;
    answer.set_content("{\"message\": \"too large for " + good_key + "\"}", "application/json");
    return true;
  });
  write_file(at.folder / "best.pt", "model");
  hub::training_session session{model_id, at.options()};
  session.on_fit_epoch_end(0, {{"loss", 1}});
  const hub::delivery delivered = session.on_train_end(0, at.folder / "best.pt", 0.5);
  CHECK_FALSE(delivered.complete());
  CHECK(delivered.epochs_delivered == 1);
  CHECK(delivered.final_model_wanted);
  CHECK_FALSE(delivered.final_model_delivered);
  REQUIRE(delivered.why);
  CHECK(delivered.why->code == errc::rejected);
  CHECK(delivered.why->http_status == 413);
  CHECK(contains(delivered.why->message, "too large for ***"));
  CHECK_FALSE(contains(at.said.text(), good_key));
  CHECK(at.hub.seen().count("POST", upload_path) == 1);
}

TEST_CASE("a HUB that goes away during the training gets everything when it is back") {
  stage at;
  hub::session_options options = at.options();
  options.rate_limits.heartbeat = 5ms;
  constexpr int epochs = 50;
  hub::delivery delivered;
  {
    hub::training_session session{model_id, options};
    session.on_fit_epoch_end(0, {{"loss", 0}});
    REQUIRE(at.hub.wait([](const ledger& seen) { return seen.epochs.size() == 1; }));
    at.hub.stop();
    for (int epoch = 1; epoch < epochs; ++epoch) session.on_fit_epoch_end(epoch, {{"loss", epoch}});
    write_file(at.folder / "last.pt", pattern(1000, 7));
    session.on_model_save(epochs - 1, at.folder / "last.pt", false);
    for (const char* each : {"lane of signs of life tries again", "lane of epochs tries again",
                             "lane of uploads tries again"})
      CHECK(at.said.wait(each));
    CHECK(session.status().unanswered_since);
    REQUIRE(session.status().unanswered_why);
    CHECK(session.status().unanswered_why->code == errc::not_reachable);
    CHECK(session.status().epochs_queued == epochs - 1);

    at.hub.start();
    CHECK(at.hub.wait([](const ledger& seen) {
      return seen.epochs.size() == epochs && seen.uploads.size() == 1;
    }));
    for (const char* each : {"again on the lane of signs of life", "again on the lane of epochs",
                             "again on the lane of uploads"})
      CHECK(at.said.wait(each));
    delivered = session.on_train_end(epochs - 1, "", 0);
  }
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == epochs);
  CHECK(delivered.checkpoints_delivered == 1);
  const ledger seen = at.hub.seen();
  for (int epoch = 0; epoch < epochs; ++epoch)
    CHECK(seen.epochs.at(epoch) == json{{"loss", epoch}});
  CHECK((seen.uploads.at(0).fields.at(3).second == pattern(1000, 7)));
}

TEST_CASE("a HUB that stays away does not keep the program from ending") {
  stage at;
  hub::session_options options = at.options();
  options.limits.shutdown_deadline = 20ms;
  options.limits.train_end_deadline = 20ms;
  options.limits.checkpoint_grace = 20ms;
  const bool ends_training = GENERATE(false, true);
  {
    hub::training_session session{model_id, options};
    at.hub.stop();
    for (int epoch = 0; epoch < 10; ++epoch) session.on_fit_epoch_end(epoch, {{"loss", epoch}});
    CHECK(at.said.wait("lane of epochs tries again"));
    if (ends_training) {
      write_file(at.folder / "best.pt", "model");
      const hub::delivery delivered = session.on_train_end(9, at.folder / "best.pt", 0.5);
      CHECK_FALSE(delivered.complete());
      CHECK(delivered.epochs_queued == 10);
      CHECK_FALSE(delivered.final_model_delivered);
      REQUIRE(delivered.why);
      CHECK_FALSE(delivered.why->message.empty());
    }
  }
  CHECK(at.hub.seen().epochs.empty());
}

}  // namespace session_loopback_tests
