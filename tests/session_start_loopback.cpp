// SPDX-License-Identifier: MIT
//
// The start of a session over real sockets of 127.0.0.1: what the constructor refuses, signing in,
// saved keys, and ranks.

#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/stat.h>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "support/raw_server.hpp"
#include "support/scratch.hpp"
#include "support/scripted_hub.hpp"
#include "support/text.hpp"

namespace session_start_loopback_tests {

using namespace hub_test;
using namespace std::chrono_literals;
using hub::errc;
using nlohmann::json;

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

}  // namespace session_start_loopback_tests
