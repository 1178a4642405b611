// SPDX-License-Identifier: MIT
//
// The session and the default policies together: hub::training_session over real sockets of
// 127.0.0.1, against a HUB that is held in memory and does what the test's script says. What
// concerns a whole process (signals, forks, terminals, threads) happens in a child: this program,
// run again with one of the scenarios at the end of this file.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "support/child_process.hpp"
#include "support/raw_server.hpp"
#include "support/scratch.hpp"
#include "support/text.hpp"

namespace session_loopback_tests {

using namespace hub_test;
using namespace std::chrono_literals;
using hub::errc;
using nlohmann::json;

namespace {

const std::string good_key = "goodKEYgoodKEYgoodKEYgoodKEYgoodKEYgoodKEY";
const std::string bad_key = "badKEY0badKEY0badKEY0badKEY0badKEY0badKEY0";
const std::string good_token = "token.good-TOKEN_good";
const std::string model_id = "abcdefghij0123456789";

void write_file(const std::filesystem::path& file, std::string_view text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

// Text that differs in every place and from seed to seed.
std::string pattern(std::size_t size, unsigned seed) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i)
    out[i] = static_cast<char>(((i + seed) * 2654435761U >> 9) & 0xFF);
  return out;
}

// ---- the environment ----------------------------------------------------------------------------

// What a session looks up, taken away for the time of a test, so that nobody's own account or job
// changes what it does. Values set meanwhile go with it.
class clean_environment {
 public:
  clean_environment() {
    for (const char* name :
         {"ULTRALYTICS_API_KEY", "ULTRALYTICS_HUB_API", "ULTRALYTICS_HUB_WEB", "YOLO_CONFIG_DIR",
          "XDG_CONFIG_HOME", "COLAB_RELEASE_TAG", "COLAB_BACKEND_VERSION", "HOME"})
      put_away(name);
    for (const auto& each : hub::machine::rank_variables) put_away(each.rank);
    set("HOME", home_.path().string());
  }
  clean_environment(const clean_environment&) = delete;
  clean_environment& operator=(const clean_environment&) = delete;
  ~clean_environment() {
    for (const auto& [name, value] : before_) {
      if (value)
        ::setenv(name.c_str(), value->c_str(), 1);
      else
        ::unsetenv(name.c_str());
    }
  }

  void set(const std::string& name, const std::string& value) {
    if (!before_.contains(name)) put_away(name);
    ::setenv(name.c_str(), value.c_str(), 1);
  }
  const std::filesystem::path& home() const { return home_.path(); }

 private:
  void put_away(const std::string& name) {
    const char* value = std::getenv(name.c_str());
    before_.emplace(name, value ? std::optional<std::string>(value) : std::nullopt);
    ::unsetenv(name.c_str());
  }
  scratch_folder home_;
  std::map<std::string, std::optional<std::string>> before_;
};

// ---- the HUB ------------------------------------------------------------------------------------

struct call {
  std::string method;
  std::string path;
  std::string key;
  std::string authorization;
};

struct upload {
  std::vector<std::pair<std::string, std::string>> fields;  // in their order, the file last
  std::string file_name;
};

// Everything that a HUB took in.
struct ledger {
  std::vector<call> calls;
  std::size_t auths = 0;
  std::vector<json> heartbeats;
  std::map<int, json> epochs;
  std::vector<upload> uploads;
  std::vector<json> created;
  std::size_t held = 0;  // requests that wait in a fault, see scripted_hub::hold

  std::size_t count(std::string_view method, std::string_view path) const {
    return static_cast<std::size_t>(std::count_if(
        calls.begin(), calls.end(),
        [&](const call& each) { return each.method == method && each.path == path; }));
  }
};

const std::string api_prefix = "/api";  // as behind a reverse proxy
const std::string model_path = api_prefix + "/v1/models/" + model_id;
const std::string upload_path = model_path + "/upload";
const std::string beat_path = api_prefix + "/v1/agent/heartbeat/models/" + model_id;
const std::string auth_path = api_prefix + "/v1/auth";

class scripted_hub {
 public:
  // Answers instead of the HUB where it returns true. Called for every request that carries a key.
  using fault =
      std::function<bool(const std::string& method, const std::string& path, httplib::Response&)>;

  explicit scripted_hub(std::optional<server_identity> identity = {})
      : identity_(std::move(identity)) {
    start();
  }
  scripted_hub(const scripted_hub&) = delete;
  scripted_hub& operator=(const scripted_hub&) = delete;
  ~scripted_hub() {
    release();
    stop();
  }

  // Where it was before, if it was.
  void start() {
    server_ = identity_ ? std::make_unique<httplib::SSLServer>(identity_->certificate_file.c_str(),
                                                               identity_->key_file.c_str())
                        : std::make_unique<httplib::Server>();
    add_routes();
    running_.emplace(*server_, port_);
    port_ = running_->port();
  }
  void stop() {
    running_.reset();
    server_.reset();
  }

  std::string root() const {
    return (identity_ ? "https" : "http") + std::string("://127.0.0.1:") + std::to_string(port_);
  }

  void set_model(json model) {
    const std::lock_guard lock(mutex_);
    model_ = std::move(model);
  }
  void set_fault(fault what) {
    const std::lock_guard lock(mutex_);
    fault_ = std::move(what);
  }

  // From now on requests whose path begins so get no answer until release().
  void hold(const std::string& path) {
    {
      const std::lock_guard lock(mutex_);
      holding_ = true;
    }
    set_fault([this, path](const std::string& method, const std::string& at, httplib::Response&) {
      if (method == "POST" && at.starts_with(path)) wait_for_release();
      return false;
    });
  }
  void release() {
    const std::lock_guard lock(mutex_);
    holding_ = false;
    changed_.notify_all();
  }

  ledger seen() const {
    const std::lock_guard lock(mutex_);
    return ledger_;
  }

  // Blocks until the HUB has seen what `done` asks for; false where that does not happen.
  bool wait(const std::function<bool(const ledger&)>& done) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return done(ledger_); });
  }

 private:
  using request = httplib::Request;
  using response = httplib::Response;

  void add_routes() {
    const std::string models = api_prefix + "/v1/models";
    const auto handle = [this](auto take) {
      return [this, take](const request& what, response& answer) {
        if (enter(what, answer)) record([&] { take(what, answer); });
      };
    };
    server_->Post(auth_path, handle([this](const request& what, response& answer) {
                    ++ledger_.auths;
                    reply(answer, {{"success", what.get_header_value("x-api-key") == good_key}});
                  }));
    server_->Get(models + "/" + model_id, handle([this](const request&, response& answer) {
                   reply(answer, {{"data", model_}});
                 }));
    server_->Post(models, handle([this](const request& what, response& answer) {
                    ledger_.created.push_back(json::parse(what.body));
                    reply(answer, {{"data", {{"id", model_id}}}});
                  }));
    server_->Post(models + "/" + model_id, handle([this](const request& what, response& answer) {
                    const json body = json::parse(what.body);
                    for (const auto& [epoch, text] : body.at("metrics").items())
                      ledger_.epochs[std::stoi(epoch)] = json::parse(text.get<std::string>());
                    reply(answer, {{"data", {{"id", model_id}}}});
                  }));
    server_->Post(beat_path, handle([this](const request& what, response& answer) {
                    ledger_.heartbeats.push_back(json::parse(what.body));
                    reply(answer, {{"data", {{"agentId", "agent-1"}}}});
                  }));
    server_->Post(upload_path, [this](const request& what, response& answer,
                                      const httplib::ContentReader& read) {
      upload arriving;
      read(
          [&](const auto& part) {
            if (!part.filename.empty()) arriving.file_name = part.filename;
            arriving.fields.emplace_back(part.name, std::string());
            return true;
          },
          [&](const char* data, std::size_t length) {
            arriving.fields.back().second.append(data, length);
            return true;
          });
      if (enter(what, answer)) record([&] { ledger_.uploads.push_back(std::move(arriving)); });
    });
  }

  static void reply(response& answer, const json& body) {
    answer.set_content(body.dump(), "application/json");
  }

  // Notes the request; false where it is answered already.
  bool enter(const request& what, response& answer) {
    const std::string key = what.get_header_value("x-api-key");
    const std::string token = what.get_header_value("authorization");
    fault first;
    record([&] {
      ledger_.calls.push_back({what.method, what.path, key, token});
      first = fault_;
    });
    if (first && first(what.method, what.path, answer)) return false;
    if (key == good_key || token == "Bearer " + good_token || what.path == auth_path) return true;
    answer.status = 401;
    reply(answer, {{"message", "who are you?"}});
    return false;
  }

  template <class Work>
  void record(Work&& work) {
    const std::lock_guard lock(mutex_);
    work();
    changed_.notify_all();
  }

  void wait_for_release() {
    std::unique_lock lock(mutex_);
    ++ledger_.held;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !holding_; });
  }

  std::optional<server_identity> identity_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  json model_ = {{"id", model_id},
                 {"status", "new"},
                 {"data", "https://example.org/coco8.zip?signature=secret"},
                 {"cfg", "yolov8n.yaml"},
                 {"batch_size", 16},
                 {"epochs", 3},
                 {"imgsz", 640},
                 {"patience", 100},
                 {"device", ""},
                 {"cache", "ram"}};
  fault fault_;
  bool holding_ = false;
  ledger ledger_;
  int port_ = 0;
  std::unique_ptr<httplib::Server> server_;
  std::optional<running_server<httplib::Server>> running_;
};

// ---- the session's side -------------------------------------------------------------------------

// What a session says, to be looked at and to be waited for.
class journal {
 public:
  std::function<void(hub::log_level, std::string_view)> writer() {
    return [this](hub::log_level, std::string_view text) {
      const std::lock_guard lock(mutex_);
      text_ += text;
      text_ += '\n';
      changed_.notify_all();
    };
  }
  std::string text() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }
  bool wait(std::string_view part) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return contains(text_, part); });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
};

// A test's surroundings: a clean environment, a folder, a HUB, and options for a session with it
// that waits for nothing but the HUB.
struct stage {
  clean_environment environment = {};
  scratch_folder folder = {};
  journal said = {};
  scripted_hub hub;

  explicit stage(std::optional<server_identity> identity = {}) : hub(std::move(identity)) {}

  hub::session_options options() {
    hub::session_options out;
    out.endpoints = {.api = hub.root() + api_prefix, .web = hub.root()};
    out.credentials = {.api_key = good_key, .prompt = false};
    out.rate_limits = {.metrics = 0s, .checkpoint = 0s, .heartbeat = 1h};
    out.retry = {.first_delay = 1ms,
                 .delay_max = 20ms,
                 .denied_interval = 20ms,
                 .retry_after_max = 20ms,
                 .start_retries_max = 0,
                 .final_retries_max = 1'000'000,
                 .budget = 1'000'000,
                 .seed = 1};
    out.limits.shutdown_deadline = 1h;  // a HUB that works needs none of it
    out.temp_folder = folder.path();
    out.log = said.writer();
    out.progress = [](const hub::transfer_progress&) {};
    return out;
  }
};

// What the constructor makes of it; no message where it succeeds.
hub::error start_error(std::string_view identifier, hub::session_options options) {
  try {
    hub::training_session session{identifier, std::move(options)};
    return {};
  } catch (const hub::session_error& why) {
    CHECK(std::string(why.what()) == why.error().message);
    return why.error();
  }
}

std::string code_of(const hub::error& why) {
  return why.message.empty() ? "none" : std::string(to_string(why.code));
}

std::size_t thread_count() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task"))
    ++count;
  return count;
}

// A joined thread stays in the list for the moment in which the kernel takes it out.
bool threads_are_again(std::size_t count) {
  for (int i = 0; i < 1'000'000 && thread_count() != count; ++i) std::this_thread::yield();
  return thread_count() == count;
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
    const upload& each = seen.uploads[static_cast<std::size_t>(epoch)];
    REQUIRE(each.fields.size() == 4);
    CHECK(each.fields[0] == std::pair<std::string, std::string>("epoch", std::to_string(epoch)));
    CHECK(each.fields[1] == std::pair<std::string, std::string>("type", "epoch"));
    CHECK(each.fields[2] ==
          std::pair<std::string, std::string>("isBest", epoch == 3 ? "True" : "False"));
    CHECK(each.fields[3].first == "last.pt");
    CHECK(each.file_name == "last.pt");
    CHECK((each.fields[3].second == pattern(300'000, static_cast<unsigned>(epoch))));
  }
  const upload& final_one = seen.uploads.back();
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

// ---- what the constructor refuses ---------------------------------------------------------------

namespace {

// A reply instead of the HUB's to the model request.
struct answer {
  int status;
  std::string type;
  std::string body;
};

scripted_hub::fault answer_model(answer what) {
  return [what](const std::string& method, const std::string&, httplib::Response& to) {
    if (method != "GET") return false;
    to.status = what.status;
    to.set_content(what.body, what.type.c_str());
    return true;
  };
}

std::string with_data(const json& data) { return json{{"data", data}}.dump(); }

}  // namespace

TEST_CASE("each reason not to start has its code and a message that helps and holds no key") {
  struct reason {
    const char* name;
    answer what;
    const char* code;
    std::vector<std::string> words;
  };
  const std::string page = "<!DOCTYPE html><html><body>hello</body></html>";
  const std::string echo = json{{"message", "no access for " + good_key}}.dump();
  const std::vector<reason> all = {
      {"401",
       {401, "application/json", echo},
       "not_authenticated",
       {"401", "key", "no access for ***"}},
      {"403", {403, "application/json", echo}, "access_denied", {"403", "owner"}},
      {"404", {404, "application/json", echo}, "unexpected_status", {"404", "id"}},
      {"404 as a page", {404, "text/html", page}, "unexpected_status", {"404"}},
      {"400", {400, "application/json", echo}, "rejected", {"400"}},
      {"429", {429, "application/json", echo}, "rate_limited", {"429"}},
      {"500", {500, "text/html", page}, "server_error", {"500"}},
      {"503", {503, "text/plain", ""}, "server_error", {"503"}},
      {"a redirect", {302, "text/html", page}, "unexpected_status", {"302", "edirect"}},
      {"a trained model",
       {200, "application/json", with_data({{"status", "trained"}, {"data", "d"}})},
       "already_trained",
       {model_id}},
      {"no dataset yet",
       {200, "application/json", with_data({{"status", "new"}, {"data", nullptr}})},
       "dataset_not_ready",
       {model_id, "dataset"}},
      {"no dataset at all",
       {200, "application/json", with_data({{"status", "new"}})},
       "dataset_not_ready",
       {"dataset"}},
      {"a dataset of the wrong type",
       {200, "application/json", with_data({{"status", "new"}, {"data", 5}})},
       "dataset_not_ready",
       {"dataset"}},
      {"a page", {200, "text/html", page}, "bad_reply", {"HTML", "address"}},
      {"nothing", {200, "application/json", ""}, "bad_reply", {"address"}},
      {"half a reply", {200, "application/json", "{\"data\": {\"id\": "}, "bad_reply", {"address"}},
      {"a number", {200, "application/json", "5"}, "bad_reply", {}},
      {"a list", {200, "application/json", "[{}]"}, "bad_reply", {}},
      {"data that is null", {200, "application/json", with_data(nullptr)}, "bad_reply", {}},
      {"data that is text", {200, "application/json", with_data("text")}, "bad_reply", {}},
      {"data that is a list",
       {200, "application/json", with_data(json::array({1}))},
       "bad_reply",
       {}},
      {"bytes that are no text",
       {200, "application/json", "{\"data\": \"\xff\xfe\"}"},
       "bad_reply",
       {}},
      {"a million brackets",
       {200, "application/json", std::string(1'000'000, '[')},
       "bad_reply",
       {}},
      {"three million bytes",
       {200, "application/json", with_data(std::string(3'000'000, 'x'))},
       "bad_reply",
       {"longer", "reply_bytes_max"}},
  };
  stage at;
  for (const reason& each : all) {
    INFO(each.name);
    at.hub.set_fault(answer_model(each.what));
    const hub::error why = start_error(model_id, at.options());
    INFO(why.message);
    CHECK(code_of(why) == each.code);
    for (const std::string& word : each.words) CHECK(contains(why.message, word));
    CHECK_FALSE(contains(why.message, good_key));
    CHECK(why.message.size() < 500);
  }
  CHECK_FALSE(contains(at.said.text(), good_key));
  CHECK(at.hub.seen().heartbeats.empty());
}

TEST_CASE("wrong types beside a good dataset are taken for missing") {
  stage at;
  at.hub.set_model({{"id", 5},
                    {"status", json::array()},
                    {"data", "coco8.yaml"},
                    {"cfg", "yolov8n.yaml"},
                    {"epochs", "many"},
                    {"imgsz", 1e300},
                    {"patience", json::object()},
                    {"batch", nullptr},
                    {"device", {0, 1}},
                    {"cache", true}});
  hub::training_session session{model_id, at.options()};
  CHECK(session.train_args().data == "coco8.yaml");
  CHECK_FALSE(session.train_args().epochs);
  CHECK_FALSE(session.train_args().imgsz);
  CHECK_FALSE(session.train_args().patience);
  CHECK_FALSE(session.train_args().batch);
  CHECK(session.train_args().device == "0,1");
  CHECK(session.train_args().cache == "ram");
}

TEST_CASE("no server, and a server that hangs, have their codes") {
  stage at;
  hub::session_options options = at.options();
  SECTION("no server") {
    at.hub.stop();
    const hub::error why = start_error(good_key + "_" + model_id, options);
    CHECK(code_of(why) == "not_reachable");
    CHECK(contains(why.message, "127.0.0.1:"));
    CHECK_FALSE(contains(why.message, good_key));
  }
  SECTION("a server that hangs") {
    raw_server silent([](raw_server::connection& client) { client.hang(); });
    options.endpoints.api = silent.url("/api");
    options.limits.request_deadline = 200ms;
    const hub::error why = start_error(model_id, options);
    CHECK(code_of(why) == "timed_out");
    CHECK(contains(why.message, "127.0.0.1:" + std::to_string(silent.port())));
  }
  SECTION("a server that drops the connection") {
    raw_server rude([](raw_server::connection& client) {
      client.read_request();
      client.reset();
    });
    options.endpoints.api = rude.url("/api");
    CHECK(code_of(start_error(model_id, options)) == "not_reachable");
  }
  SECTION("a server that cannot be trusted") {
    const certificate_authority authority;
    raw_server untrusted([](raw_server::connection& client) { client.hang(); },
                         tls_settings{authority.issue()});
    options.endpoints.api = untrusted.url("/api");
    const hub::error why = start_error(model_id, options);
    CHECK(code_of(why) == "tls_failed");
    CHECK(contains(why.message, "certificate"));
    CHECK(untrusted.received().empty());
  }
}

TEST_CASE("starting is tried again as often as the options say") {
  stage at;
  std::atomic<int> failures = 2;
  // Of the sign-in alone: a heartbeat of the first session may come late and must not use one up.
  at.hub.set_fault([&](const std::string&, const std::string& path, httplib::Response& to) {
    if (path != auth_path || failures-- <= 0) return false;
    to.status = 503;
    return true;
  });
  hub::session_options options = at.options();
  options.retry.start_retries_max = 2;
  CHECK(code_of(start_error(model_id, options)) == "none");
  CHECK(at.hub.seen().count("POST", auth_path) == 3);
  failures = 3;
  CHECK(code_of(start_error(model_id, options)) == "server_error");
  CHECK(at.hub.seen().count("POST", auth_path) == 6);
}

TEST_CASE("what cannot name a model or a HUB is refused before anything is sent") {
  stage at;
  for (const std::string& identifier :
       {std::string(), std::string("short"), bad_key, good_key + "_" + "x",
        "https://elsewhere.example.org/models/" + model_id,
        at.hub.root() + "/models/" + good_key + "/x"}) {
    const hub::error why = start_error(identifier, at.options());
    INFO(why.message);
    CHECK(code_of(why) == "invalid_identifier");
    CHECK_FALSE(contains(why.message, good_key));
    CHECK_FALSE(contains(why.message, bad_key));
  }
  for (const std::string address :
       {"127.0.0.1", "ftp://127.0.0.1", "https://user:pass@127.0.0.1", "http://127.0.0.1:0"}) {
    hub::session_options options = at.options();
    options.endpoints.api = address;
    CHECK(code_of(start_error(model_id, options)) == "invalid_endpoint");
  }
  for (const std::string& key : {std::string("key\r\nx-evil: 1"), std::string("key with spaces"),
                                 std::string("key\0nul", 7)}) {
    hub::session_options options = at.options();
    options.credentials.api_key = key;
    const hub::error why = start_error(model_id, options);
    CHECK(code_of(why) == "invalid_credentials");
    CHECK_FALSE(contains(why.message, key));
  }
  CHECK(at.hub.seen().calls.empty());
}

// ---- signing in ---------------------------------------------------------------------------------

TEST_CASE(
    "a key is found in the identifier, the options, the environment and the settings, in that "
    "order") {
  stage at;
  hub::session_options options = at.options();
  options.credentials.api_key.clear();
  const auto sign_in = [&](const std::string& identifier) {
    const hub::error why = start_error(identifier, options);
    INFO(why.message);
    CHECK(code_of(why) == "none");
    return at.hub.seen();
  };
  const std::filesystem::path config = at.folder / "config";

  SECTION("the identifier, even where others know a worse one") {
    options.credentials.api_key = bad_key;
    at.environment.set("ULTRALYTICS_API_KEY", bad_key);
    CHECK(sign_in(good_key + "_" + model_id).auths == 1);
  }
  SECTION("the identifier as a page") {
    CHECK(sign_in(at.hub.root() + "/models/" + good_key + "_" + model_id).auths == 1);
  }
  SECTION("the options") {
    options.credentials.api_key = good_key;
    at.environment.set("ULTRALYTICS_API_KEY", bad_key);
    CHECK(sign_in(model_id).auths == 1);
  }
  SECTION("the environment") {
    at.environment.set("ULTRALYTICS_API_KEY", good_key);
    at.environment.set("YOLO_CONFIG_DIR", config.string());
    write_file(config / "settings.json", json{{"api_key", bad_key}}.dump());
    CHECK(sign_in(model_id).auths == 1);
  }
  SECTION("settings.json, which needs no sign-in, before settings.yaml") {
    at.environment.set("YOLO_CONFIG_DIR", config.string());
    write_file(config / "settings.json", json{{"api_key", good_key}}.dump(2));
    write_file(config / "settings.yaml", "api_key: " + bad_key + "\n");
    CHECK(sign_in(model_id).auths == 0);
  }
  SECTION("settings.yaml") {
    at.environment.set("YOLO_CONFIG_DIR", config.string());
    write_file(config / "settings.yaml",
               "# Ultralytics\nuuid: abc\napi_key: '" + good_key + "'\nsync: true\n");
    CHECK(sign_in(model_id).auths == 0);
  }
  SECTION("a folder Ultralytics in the config folder") {
    at.environment.set("YOLO_CONFIG_DIR", config.string());
    write_file(config / "Ultralytics" / "settings.json", json{{"api_key", good_key}}.dump());
    CHECK(sign_in(model_id).auths == 0);
  }
#if defined(__linux__)
  SECTION("the home folder") {
    write_file(at.environment.home() / ".config" / "Ultralytics" / "settings.json",
               json{{"api_key", good_key}}.dump());
    CHECK(sign_in(model_id).auths == 0);
  }
#endif
  SECTION("a settings file of the program's own choice") {
    options.credentials.settings_file = at.folder / "my.json";
    at.environment.set("YOLO_CONFIG_DIR", config.string());
    write_file(config / "settings.json", json{{"api_key", bad_key}}.dump());
    write_file(at.folder / "my.json", json{{"api_key", good_key}}.dump());
    CHECK(sign_in(model_id).auths == 0);
  }
  for (const call& each : at.hub.seen().calls) CHECK(each.key == good_key);
  CHECK(at.hub.seen().count("GET", model_path) == 1);
}

TEST_CASE("the endpoints are found in the environment") {
  stage at;
  at.environment.set("ULTRALYTICS_HUB_API", at.hub.root() + api_prefix + "/");
  at.environment.set("ULTRALYTICS_HUB_WEB", at.hub.root());
  hub::session_options options = at.options();
  options.endpoints = {};
  CHECK(code_of(start_error(at.hub.root() + "/models/" + model_id, options)) == "none");
  CHECK(at.hub.seen().count("GET", model_path) == 1);
}

TEST_CASE("a token wins over every key and needs no sign-in") {
  stage at;
  at.environment.set("ULTRALYTICS_API_KEY", bad_key);
  hub::session_options options = at.options();
  options.credentials.api_key = bad_key;
  options.credentials.id_token = good_token;
  CHECK(code_of(start_error(bad_key + "_" + model_id, options)) == "none");
  const ledger seen = at.hub.seen();
  CHECK(seen.auths == 0);
  for (const call& each : seen.calls) {
    CHECK(each.authorization == "Bearer " + good_token);
    CHECK(each.key.empty());
  }
}

TEST_CASE("without a key, or with one that HUB refuses, the message says where to get one") {
  stage at;
  hub::session_options options = at.options();
  SECTION("no key anywhere: nothing is sent") {
    options.credentials.api_key.clear();
    const hub::error why = start_error(model_id, options);
    CHECK(code_of(why) == "not_authenticated");
    CHECK(contains(why.message, at.hub.root() + "/settings"));
    CHECK(contains(why.message, "ULTRALYTICS_API_KEY"));
    CHECK(at.hub.seen().calls.empty());
  }
  SECTION("success: false") {}
  SECTION("401 or 403") {
    const int status = GENERATE(401, 403);
    at.hub.set_fault([status](const std::string&, const std::string&, httplib::Response& to) {
      to.status = status;
      return true;
    });
  }
  SECTION("nobody is asked without a terminal") { options.credentials.prompt = true; }
  if (!options.credentials.api_key.empty()) {
    options.credentials.api_key = bad_key;
    const hub::error why = start_error(model_id, options);
    CHECK(code_of(why) == "not_authenticated");
    CHECK(contains(why.message, at.hub.root() + "/settings"));
    CHECK_FALSE(contains(why.message, bad_key));
    CHECK(at.hub.seen().calls.size() == 1);
  }
}

TEST_CASE(
    "an accepted key is saved where asked for, for its owner alone, and nothing else changes") {
  struct shape {
    const char* file;
    std::string before;
    std::string after;
  };
  const std::vector<shape> all = {
      {"settings.json", "{\n    \"uuid\" : \"x\",\r\n\t\"api_key\": \"\", \"sync\":true }\n\n",
       "{\n    \"uuid\" : \"x\",\r\n\t\"api_key\": \"" + good_key + "\", \"sync\":true }\n\n"},
      {"settings.yaml", "# mine\nuuid: x\napi_key: '" + bad_key + "'  # old\nsync: true",
       "# mine\nuuid: x\napi_key: \"" + good_key + "\"  # old\nsync: true"},
      {"settings.yaml", "uuid: x\n", "uuid: x\napi_key: \"" + good_key + "\"\n"},
  };
  for (const shape& each : all) {
    stage at;
    hub::session_options options = at.options();
    options.credentials.save = true;
    at.environment.set("YOLO_CONFIG_DIR", at.folder.path().string());
    write_file(at.folder / each.file, each.before);
    ::chmod((at.folder / each.file).c_str(), 0644);
    CHECK(code_of(start_error(model_id, options)) == "none");
    CHECK(read_file(at.folder / each.file) == each.after);
    struct stat now {};
    REQUIRE(::stat((at.folder / each.file).c_str(), &now) == 0);
    CHECK((now.st_mode & 07777) == 0600);
    // Saved, it is known: no further sign-in, and without being given again.
    options.credentials = {.prompt = false};
    CHECK(code_of(start_error(model_id, options)) == "none");
    CHECK(at.hub.seen().auths == 1);
  }
}

TEST_CASE("a key is saved to a new file where there was none, and only if HUB accepts it") {
  stage at;
  hub::session_options options = at.options();
  at.environment.set("YOLO_CONFIG_DIR", (at.folder / "new").string());
  const auto file = at.folder / "new" / "settings.json";
  SECTION("not where nobody asked for it") {
    CHECK(code_of(start_error(model_id, options)) == "none");
    CHECK_FALSE(std::filesystem::exists(at.folder / "new"));
  }
  SECTION("not one that is refused") {
    options.credentials.save = true;
    options.credentials.api_key = bad_key;
    CHECK(code_of(start_error(model_id, options)) == "not_authenticated");
    CHECK_FALSE(std::filesystem::exists(at.folder / "new"));
  }
  SECTION("one that is accepted") {
    options.credentials.save = true;
    CHECK(code_of(start_error(model_id, options)) == "none");
    CHECK(json::parse(read_file(file)) == json{{"api_key", good_key}});
    struct stat now {};
    REQUIRE(::stat(file.c_str(), &now) == 0);
    CHECK((now.st_mode & 07777) == 0600);
  }
  SECTION("a file that is no settings file stays as it is, and training goes on") {
    options.credentials.save = true;
    write_file(file, "this is no JSON");
    CHECK(code_of(start_error(model_id, options)) == "none");
    CHECK(read_file(file) == "this is no JSON");
    CHECK(contains(at.said.text(), "cannot be saved"));
  }
}

// ---- ranks --------------------------------------------------------------------------------------

TEST_CASE("a rank above 0 sends nothing, and every call does nothing") {
  stage at;
  hub::session_options options = at.options();
  SECTION("by torchrun") { at.environment.set("RANK", "1"); }
  SECTION("by Open MPI") { at.environment.set("OMPI_COMM_WORLD_RANK", "2"); }
  SECTION("by PMI") { at.environment.set("PMI_RANK", "3"); }
  SECTION("by Slurm") { at.environment.set("SLURM_PROCID", "4"); }
  SECTION("by the options") {
    at.environment.set("RANK", "0");
    options.rank = 1;
  }
  write_file(at.folder / "best.pt", "model");
  {
    hub::training_session session{model_id, options};
    session.on_pretrain_routine_end();
    session.on_fit_epoch_end(0, {{"loss", 1}});
    session.on_model_save(0, at.folder / "best.pt", true);
    session.upload_metrics();
    session.upload_model(0, at.folder / "best.pt", true);
    session.stop_heartbeat();
    CHECK(session.flush(1h).epochs_delivered == 0);
    CHECK_FALSE(session.on_train_end(0, at.folder / "best.pt", 0.5).final_model_delivered);
    CHECK(session.status().epochs_accepted == 0);
    CHECK(session.model().id.empty());
  }
  CHECK(at.hub.seen().calls.empty());
  CHECK(contains(at.said.text(), "session_options::rank"));
}

TEST_CASE("rank 0 reports, and the options have the last word") {
  stage at;
  hub::session_options options = at.options();
  SECTION("by torchrun") { at.environment.set("RANK", "0"); }
  SECTION("by the options") {
    at.environment.set("RANK", "1");
    options.rank = 0;
  }
  CHECK(code_of(start_error(model_id, options)) == "none");
  CHECK(at.hub.seen().count("GET", model_path) == 1);
}

// ---- what concerns the whole process ------------------------------------------------------------

namespace {

// What a child needs to know to report to the stage's HUB.
std::vector<std::string> child_variables(const stage& at, std::vector<std::string> more = {}) {
  more.push_back("HUB_TEST_ROOT=" + at.hub.root());
  more.push_back("HUB_TEST_FOLDER=" + at.folder.path().string());
  return more;
}

// A user of whom the system knows nothing.
constexpr uid_t no_user = 54321;

std::string signal_variable(int number) { return "HUB_TEST_SIGNAL=" + std::to_string(number); }

}  // namespace

TEST_CASE("who has no home saves no key, and takes none from where anybody could have put it") {
  if (::getuid() != 0) return;  // nobody else can become somebody without a home
  stage at;
  namespace fs = std::filesystem;
  write_file(at.folder / "Ultralytics" / "settings.json", json{{"api_key", good_key}}.dump());
  fs::permissions(at.folder.path(), fs::perms::all);
  child_process child("homeless", child_variables(at, {"TMPDIR=" + at.folder.path().string()}));
  CHECK(child.read_until("not_authenticated\n") == "not_authenticated\n");
  const std::string said = child.read_to_the_end();
  CHECK(contains(said, "signed in\n"));
  CHECK(contains(said, "The API key is not saved: this user has no home folder. Set HOME,"));
  CHECK(child.wait() == "exit 0");
  std::size_t files = 0;
  for (const auto& each : fs::recursive_directory_iterator(at.folder.path()))
    files += each.is_regular_file() ? 1 : 0;
  CHECK(files == 1);
}

TEST_CASE("a signal ends the program as it would have, but after the last metrics") {
  const int number = GENERATE(SIGTERM, SIGINT, SIGHUP);
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(number), "HUB_TEST_ACTION=default"}));
  child.read_until("ready\n");
  CHECK(at.hub.seen().epochs.empty());
  child.send(number);
  CHECK(child.wait() == "signal " + std::to_string(number));
  CHECK(at.hub.seen().epochs.size() == 3);
}

TEST_CASE(
    "the program's own handler is called once, after the last metrics, and is there afterwards") {
  const int number = GENERATE(SIGTERM, SIGINT);
  const std::string action = GENERATE(as<std::string>(), "own", "own_with_info");
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(number), "HUB_TEST_ACTION=" + action}));
  child.read_until("ready\n");
  child.send(number);
  child.read_until("handled once\n");
  CHECK(at.hub.seen().epochs.size() == 3);
  CHECK(child.wait() == "exit 0");
}

TEST_CASE("an ignored signal stays ignored, such as SIGHUP under nohup") {
  const int number = GENERATE(SIGINT, SIGHUP);
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(number), "HUB_TEST_ACTION=ignore"}));
  child.read_until("ready\n");
  child.send(number);
  child.write("go on\n");
  child.read_until("still ignored\n");
  CHECK(at.hub.seen().epochs.empty());
  CHECK(child.wait() == "exit 0");
}

TEST_CASE("handle_signals = false leaves signals alone") {
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(SIGTERM), "HUB_TEST_ACTION=off"}));
  child.read_until("ready\n");
  child.send(SIGTERM);
  CHECK(child.wait() == "signal " + std::to_string(SIGTERM));
  CHECK(at.hub.seen().count("POST", model_path) == 0);
}

TEST_CASE("a second signal goes through while the first one is flushed") {
  const int second = GENERATE(SIGTERM, SIGINT);
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(SIGTERM), "HUB_TEST_ACTION=default",
                                           "HUB_TEST_MOMENT=0"}));
  child.read_until("ready\n");
  at.hub.hold(model_path);
  child.send(SIGTERM);
  REQUIRE(at.hub.wait([](const ledger& seen) { return seen.held == 1; }));
  child.send(second);
  CHECK(child.wait() == "signal " + std::to_string(second));
}

TEST_CASE("signals that come within a moment are one, and do not cut what the first has sent") {
  const int second = GENERATE(SIGTERM, SIGINT);
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(SIGINT), "HUB_TEST_ACTION=default",
                                           "HUB_TEST_MOMENT=3600"}));
  child.read_until("ready\n");
  at.hub.hold(model_path);
  child.send(SIGINT);
  REQUIRE(at.hub.wait([](const ledger& seen) { return seen.held == 1; }));
  child.send(second);
  at.hub.release();
  CHECK(child.wait() == "signal " + std::to_string(SIGINT));
  CHECK(at.hub.seen().epochs.size() == 3);
}

TEST_CASE("a program's own handler of SIGHUP is left alone") {
  stage at;
  const auto own = [](int) {};
  struct sigaction before {};
  struct sigaction during {};
  ::sigaction(SIGHUP, nullptr, &before);
  ::signal(SIGHUP, own);
  {
    hub::training_session session{model_id, at.options()};
    ::sigaction(SIGHUP, nullptr, &during);
  }
  CHECK(during.sa_handler == static_cast<void (*)(int)>(own));
  ::sigaction(SIGHUP, &before, nullptr);
}

TEST_CASE("a signal at the very end of a session is neither lost nor a deadlock") {
  stage at;
  child_process child("signal_at_the_end", child_variables(at));
  CHECK(child.wait() == "exit 0");
  CHECK(at.hub.seen().count("GET", model_path) == 30);
}

TEST_CASE("a session gives the signals back as it found them") {
  struct sigaction before {};
  struct sigaction during {};
  struct sigaction after {};
  const auto own = [](int) {};
  for (const int number : {SIGINT, SIGTERM}) {
    stage at;
    ::sigaction(number, nullptr, &before);
    {
      hub::training_session session{model_id, at.options()};
      ::sigaction(number, nullptr, &during);
      CHECK(during.sa_handler != before.sa_handler);
      { hub::training_session second{model_id, at.options()}; }
      ::sigaction(number, nullptr, &after);
      CHECK(after.sa_handler == during.sa_handler);  // the first one is still there
    }
    ::sigaction(number, nullptr, &after);
    CHECK(after.sa_handler == before.sa_handler);
    CHECK(after.sa_flags == before.sa_flags);
    {
      hub::training_session session{model_id, at.options()};
      ::signal(number, own);  // the program's, after the session's: it stays
    }
    ::sigaction(number, nullptr, &after);
    CHECK(after.sa_handler == static_cast<void (*)(int)>(own));
    ::sigaction(number, &before, nullptr);
  }
}

TEST_CASE("the destructor cuts what hangs, and leaves no thread") {
  stage at;
  at.hub.hold(api_prefix);
  child_process child("hang", child_variables(at));
  child.read_until("started\n");
  // All three lanes wait for an answer that does not come.
  REQUIRE(at.hub.wait([](const ledger& seen) {
    return seen.count("POST", beat_path) >= 1 && seen.count("POST", model_path) >= 1 &&
           seen.count("POST", upload_path) >= 1;
  }));
  child.write("end\n");
  child.read_until("no thread is left\n");
  CHECK(child.wait() == "exit 0");
  CHECK(at.hub.seen().epochs.empty());
}

TEST_CASE("however a program ends, what did not arrive is said in one line, with where it is") {
  const std::string way = GENERATE(as<std::string>(), "exception", "signal", "global", "exit");
  const std::string spool = GENERATE(as<std::string>(), "", "spool");
  INFO(way << ' ' << spool);
  stage at;
  at.hub.set_fault(
      [](const std::string& method, const std::string& path, httplib::Response& answer) {
        if (method != "POST" || path != model_path) return false;
        answer.status = 503;
        return true;
      });
  child_process child("lost",
                      child_variables(at, {"HUB_TEST_WAY=" + way, "HUB_TEST_SPOOL=" + spool}));
  const std::string said = child.read_to_the_end();
  CHECK(child.wait() == (way == "signal" ? "signal " + std::to_string(SIGTERM) : "exit 0"));
  CHECK(contains(said, "Missing: 5 epochs."));
  CHECK(said.find("Missing") == said.rfind("Missing"));
  CHECK(
      contains(said, spool.empty() ? "is lost with this process" : "What waits is in the spool "));
}

TEST_CASE("a rank above 0 keeps no thread and touches no signal") {
  stage at;
  child_process child("rank", child_variables(at, {"RANK=1"}));
  CHECK(child.wait() == "exit 0");
  CHECK(at.hub.seen().calls.empty());
}

TEST_CASE("a forked child sends nothing and ends cleanly, and its parent goes on", "[fork]") {
  stage at;
  write_file(at.folder / "last.pt", "model");
  child_process child("fork", child_variables(at));
  CHECK(child.wait() == "exit 0");
  const ledger seen = at.hub.seen();
  CHECK(seen.epochs.size() == 2);
  CHECK(seen.epochs.contains(0));
  CHECK(seen.epochs.contains(1));
  CHECK(seen.uploads.empty());
}

namespace {

// Reads from a terminal until it was asked so many times.
void wait_for_prompts(const terminal& screen, const stage& at, std::size_t wanted,
                      std::string& shown) {
  const std::string prompt = "API key, from " + at.hub.root() + "/settings (it is not shown): ";
  const auto prompts = [&] {
    std::size_t count = 0;
    for (std::size_t i = 0; (i = shown.find(prompt, i)) != std::string::npos; i += prompt.size())
      ++count;
    return count;
  };
  while (prompts() < wanted) REQUIRE(child_process::read_more(screen.ours.get(), shown));
}

void type(const terminal& screen, const std::string& keys) {
  REQUIRE(::write(screen.ours.get(), keys.data(), keys.size()) ==
          static_cast<ssize_t>(keys.size()));
}

}  // namespace

TEST_CASE("on a terminal a key is asked for, without echo, and three times at most") {
  stage at;
  terminal screen;
  REQUIRE(screen.echoes());
  const std::vector<std::string> typed =
      GENERATE(std::vector<std::string>{good_key}, std::vector<std::string>{bad_key, good_key},
               std::vector<std::string>{bad_key, bad_key, bad_key}, std::vector<std::string>{""},
               std::vector<std::string>{"  " + good_key + " "},
               std::vector<std::string>{"two words", good_key});
  child_process child("ask", child_variables(at), &screen);
  std::string shown;
  std::size_t prompts = 0;
  for (const std::string& key : typed) {
    wait_for_prompts(screen, at, ++prompts, shown);
    CHECK_FALSE(screen.echoes());  // before anybody can have seen that it is time to type
    type(screen, key + "\n");
  }
  const bool accepted = contains(typed.back(), good_key);
  child.read_until(accepted ? "signed in\n" : "not_authenticated\n");
  CHECK(child.wait() == "exit 0");
  CHECK(screen.echoes());

  // What is still on its way to the screen ends with what we put behind it.
  REQUIRE(::write(screen.theirs.get(), "the end", 7) == 7);
  while (!shown.ends_with("the end")) REQUIRE(child_process::read_more(screen.ours.get(), shown));
  CHECK_FALSE(contains(shown, good_key));
  CHECK_FALSE(contains(shown, bad_key));
  CHECK(contains(shown, "from the prompt") == (typed.size() > 1));
  const bool could_be_keys = !typed.back().empty() && typed.front() != "two words";
  CHECK(at.hub.seen().auths == (could_be_keys ? typed.size() : typed.size() - 1));
}

TEST_CASE("the prompt lasts no longer than the start may, also where it cannot be shown") {
  const bool stopped = GENERATE(false, true);
  stage at;
  terminal screen;
  if (stopped) REQUIRE(::tcflow(screen.theirs.get(), TCOOFF) == 0);
  child_process child("ask", child_variables(at, {"HUB_TEST_START_MS=50"}), &screen);
  child.read_until("not_authenticated\n");
  CHECK(child.wait() == "exit 0");
  CHECK(screen.echoes());
}

TEST_CASE("a program that is ended at the prompt leaves the terminal as it was") {
  const auto [number, from_keyboard] = GENERATE(std::pair(SIGHUP, false), std::pair(SIGTERM, false),
                                                std::pair(SIGINT, false), std::pair(SIGINT, true));
  stage at;
  terminal screen;
  child_process child("ask", child_variables(at), &screen);
  std::string shown;
  wait_for_prompts(screen, at, 1, shown);
  CHECK_FALSE(screen.echoes());
  if (from_keyboard)
    type(screen, "\003");
  else
    child.send(number);
  CHECK(child.wait() == "signal " + std::to_string(number));
  CHECK(screen.echoes());
}

TEST_CASE("in the background nobody is asked, and nothing is stopped") {
  stage at;
  terminal screen;
  child_process child("ask_in_background", child_variables(at), &screen);
  child.read_until("not_authenticated\n");
  CHECK(child.wait() == "exit 0");
}

// ---- scenarios for children ---------------------------------------------------------------------

namespace {

// As stage::options, but nothing is sent before its time.
hub::session_options child_options() {
  hub::session_options out;
  out.endpoints = {.api = variable("HUB_TEST_ROOT") + api_prefix, .web = variable("HUB_TEST_ROOT")};
  out.credentials = {.id_token = good_token};
  out.rate_limits = {.metrics = 1h, .checkpoint = 1h, .heartbeat = 1h};
  out.limits.shutdown_deadline = 1h;
  out.temp_folder = variable("HUB_TEST_FOLDER");
  out.log = [](hub::log_level, std::string_view) {};
  return out;
}

void play_signal() {
  const int number = std::stoi(variable("HUB_TEST_SIGNAL"));
  const std::string action = variable("HUB_TEST_ACTION");
  act_as_told(number, action);
  hub::session_options options = child_options();
  options.handle_signals = action != "off";
  const std::string moment = variable("HUB_TEST_MOMENT");
  if (!moment.empty()) options.limits.signal_moment = hub::duration(1s) * std::stoi(moment);
  std::optional<hub::training_session> session(std::in_place, model_id, options);
  for (int epoch = 0; epoch < 3; ++epoch) session->on_fit_epoch_end(epoch, {{"loss", epoch}});
  say("ready\n");
  if (action.starts_with("own")) {
    wait_until_handled();
    session.reset();
    struct sigaction now {};
    ::sigaction(number, nullptr, &now);
    if (action == "own" ? now.sa_handler != &on_own_signal
                        : now.sa_sigaction != &on_own_signal_with_info)
      end_child(false, 2);
    if (handled != 1) end_child(false, 3);
    say("handled once\n");
    end_child(true);
  }
  if (action == "ignore") {
    wait_for_line();
    struct sigaction now {};
    ::sigaction(number, nullptr, &now);
    if (now.sa_handler != SIG_IGN) end_child(false, 4);
    say("still ignored\n");
    end_child(true);
  }
  for (;;) ::pause();
}

void play_signal_at_the_end() {
  act_as_told(SIGTERM, "own");
  for (int i = 1; i <= 30; ++i) {
    {
      hub::training_session session{model_id, child_options()};
      ::raise(SIGTERM);
    }
    wait_until_handled();
    if (handled != i) end_child(false, 2);
  }
  end_child(true);
}

void play_hang() {
  std::thread([] {}).join();  // with the first thread, ThreadSanitizer starts one of its own
  const std::size_t before = thread_count();
  hub::session_options options = child_options();
  options.limits.shutdown_deadline = 10ms;
  options.limits.request_deadline = 24h;
  options.limits.stall_timeout = 24h;
  options.rate_limits = {.metrics = 0s, .checkpoint = 0s, .heartbeat = 1h};
  const std::filesystem::path file = std::filesystem::path(variable("HUB_TEST_FOLDER")) / "last.pt";
  write_file(file, "model");
  {
    hub::training_session session{model_id, options};
    session.on_fit_epoch_end(0, {{"loss", 1}});
    session.upload_model(0, file, false);
    say("started\n");
    wait_for_line();
  }
  if (!threads_are_again(before)) end_child(false, 2);
  say("no thread is left\n");
  end_child(true);
}

void play_lost() {
  ::signal(SIGTERM, SIG_DFL);  // and not Catch2's handler, which is not safe in a signal
  const std::string way = variable("HUB_TEST_WAY");
  hub::session_options options = child_options();
  options.limits.shutdown_deadline = 100ms;
  options.log = [](hub::log_level, std::string_view text) {
    if (contains(text, "Not everything arrived")) say(std::string(text) + "\n");
  };
  if (!variable("HUB_TEST_SPOOL").empty())
    options.spool.directory = std::filesystem::path(variable("HUB_TEST_FOLDER")) / "spool";
  static std::unique_ptr<hub::training_session> global;
  try {
    auto session = std::make_unique<hub::training_session>(model_id, options);
    for (int epoch = 0; epoch < 5; ++epoch) session->on_fit_epoch_end(epoch, {{"loss", epoch}});
    if (way == "global") global = std::move(session);
    if (way == "exit" || way == "global") std::exit(0);
    if (way == "signal") ::raise(SIGTERM);
    while (way == "signal") ::pause();
    throw std::runtime_error("CUDA out of memory");
  } catch (const std::runtime_error&) {
  }
  end_child(true);
}

void play_rank() {
  std::thread([] {}).join();  // ThreadSanitizer starts one of its own with the first
  const std::size_t before = thread_count();
  act_as_told(SIGTERM, "own");
  hub::training_session session{model_id, child_options()};
  session.on_fit_epoch_end(0, {{"loss", 1}});
  struct sigaction now {};
  ::sigaction(SIGTERM, nullptr, &now);
  end_child(threads_are_again(before) && now.sa_handler == &on_own_signal);
}

void play_fork() {
  hub::session_options options = child_options();
  options.rate_limits = {.metrics = 0s, .checkpoint = 0s, .heartbeat = 1ms};
  const std::filesystem::path file = std::filesystem::path(variable("HUB_TEST_FOLDER")) / "last.pt";
  std::optional<hub::training_session> session(std::in_place, model_id, options);
  session->on_fit_epoch_end(0, {{"loss", 0}});
  const pid_t child = fork_with_limit();
  if (child == 0) {
    session->on_fit_epoch_end(99, {{"loss", 99}});
    session->on_model_save(99, file, true);
    session->upload_model(99, file, true);
    session->upload_metrics();
    const hub::delivery nothing = session->flush(1h);
    const hub::delivery delivered = session->on_train_end(99, file, 0.5);
    const hub::session_status status = session->status();
    session.reset();
    end_child(nothing.epochs_delivered == 0 && !delivered.final_model_delivered &&
              delivered.silent == hub::silence::by_fork && !delivered.complete() && delivered.why &&
              status.silent == hub::silence::by_fork);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) end_child(false, 2);

  // A signal to a child is the child's alone.
  const pid_t second = fork_with_limit();
  if (second == 0) {
    for (int each : {SIGALRM, SIGINT}) ::signal(each, SIG_DFL);
    ::raise(SIGTERM);
    end_child(false);
  }
  ::waitpid(second, &status, 0);
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGTERM) end_child(false, 3);

  session->on_fit_epoch_end(1, {{"loss", 1}});
  const hub::delivery delivered = session->on_train_end(1, "", 0);
  session.reset();
  end_child(delivered.complete() && delivered.epochs_delivered == 2, 4);
}

void say_how_it_starts(const hub::session_options& options) {
  try {
    hub::training_session session{model_id, options};
    say("signed in\n");
  } catch (const hub::session_error& why) {
    say(std::string(to_string(why.code())) + "\n");
  }
}

void play_ask() {
  ::setsid();  // a signal to its group is for it alone
  for (int each : {SIGHUP, SIGINT, SIGTERM}) ::signal(each, SIG_DFL);
  hub::session_options options = child_options();
  const std::string milliseconds = variable("HUB_TEST_START_MS");
  if (!milliseconds.empty()) options.limits.start_deadline = 1ms * std::stoi(milliseconds);
  options.credentials = {};
  options.log = {};  // the default: on the terminal
  say_how_it_starts(options);
  end_child(true);
}

void play_homeless() {
  std::filesystem::current_path(variable("HUB_TEST_FOLDER"));
  if (::setuid(no_user) != 0) end_child(false, 2);
  ::unsetenv("HOME");
  hub::session_options options = child_options();
  options.credentials = {.prompt = false};
  options.log = [](hub::log_level, std::string_view text) { say(std::string(text) + "\n"); };
  for (const std::string& key : {std::string(), std::string(good_key)}) {
    options.credentials.api_key = key;
    options.credentials.save = true;
    say_how_it_starts(options);
  }
  end_child(true);
}

// Its terminal's turn is its own; that of the child which asks is not.
void play_ask_in_background() {
  if (::setsid() < 0 || ::ioctl(0, TIOCSCTTY, 0) != 0) end_child(false, 2);
  const pid_t child = fork_with_limit();
  if (child == 0) {
    ::setpgid(0, 0);
    play_ask();
  }
  int status = 0;
  end_child(::waitpid(child, &status, WUNTRACED) == child && WIFEXITED(status) &&
                WEXITSTATUS(status) == 0,
            3);
}

}  // namespace

// Hidden: only a child_process runs it.
TEST_CASE("a scenario is played in a child", "[.][child_process]") {
  play_scenario({{"signal", &play_signal},
                 {"signal_at_the_end", &play_signal_at_the_end},
                 {"hang", &play_hang},
                 {"lost", &play_lost},
                 {"rank", &play_rank},
                 {"fork", &play_fork},
                 {"ask", &play_ask},
                 {"homeless", &play_homeless},
                 {"ask_in_background", &play_ask_in_background}});
}

}  // namespace session_loopback_tests
