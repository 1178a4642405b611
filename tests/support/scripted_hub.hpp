// SPDX-License-Identifier: MIT
//
// A stage for hub::training_session over real sockets: a HUB that is held in memory and does what the
// test's script says, and a clean environment.

#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../../hub_session.hpp"
#include "catch.hpp"
#include "certificates.hpp"
#include "raw_server.hpp"
#include "scratch.hpp"
#include "text.hpp"

namespace hub_test {

using namespace std::chrono_literals;
using nlohmann::json;

inline const std::string good_key = "goodKEYgoodKEYgoodKEYgoodKEYgoodKEYgoodKEY";
inline const std::string bad_key = "badKEY0badKEY0badKEY0badKEY0badKEY0badKEY0";
inline const std::string good_token = "token.good-TOKEN_good";
inline const std::string model_id = "abcdefghij0123456789";

inline void write_file(const std::filesystem::path& file, std::string_view text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
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

struct seen_upload {
  std::vector<std::pair<std::string, std::string>> fields;  // in their order, the file last
  std::string file_name;
};

// Everything that a HUB took in.
struct ledger {
  std::vector<call> calls;
  std::size_t auths = 0;
  std::vector<json> heartbeats;
  std::map<int, json> epochs;
  std::vector<seen_upload> uploads;
  std::vector<json> created;
  std::size_t held = 0;  // requests that wait in a fault, see scripted_hub::hold

  std::size_t count(std::string_view method, std::string_view path) const {
    return static_cast<std::size_t>(std::count_if(
        calls.begin(), calls.end(),
        [&](const call& each) { return each.method == method && each.path == path; }));
  }
};

inline const std::string api_prefix = "/api";  // as behind a reverse proxy
inline const std::string model_path = api_prefix + "/v1/models/" + model_id;
inline const std::string upload_path = model_path + "/upload";
inline const std::string beat_path = api_prefix + "/v1/agent/heartbeat/models/" + model_id;
inline const std::string auth_path = api_prefix + "/v1/auth";

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
      seen_upload arriving;
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
inline hub::error start_error(std::string_view identifier, hub::session_options options) {
  try {
    hub::training_session session{identifier, std::move(options)};
    return {};
  } catch (const hub::session_error& why) {
    CHECK(std::string(why.what()) == why.error().message);
    return why.error();
  }
}

inline std::string code_of(const hub::error& why) {
  return why.message.empty() ? "none" : std::string(to_string(why.code));
}

}  // namespace hub_test
