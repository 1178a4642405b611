// SPDX-License-Identifier: MIT
//
// Tests of the test kit's Platform, which tests of sessions rest on and local_hub is built on: that it
// takes what Python sends, keeps each thing once, and refuses what the contract does not have.

#include <chrono>
#include <cstddef>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/memory_body.hpp"
#include "support/text.hpp"

namespace test_platform_tests {

#if !defined(HUB_SESSION_TEST_DATA)
#error "define HUB_SESSION_TEST_DATA as the path of tests/data"
#endif

namespace {

using namespace std::chrono_literals;
using hub::testing::form_part;
using hub::testing::platform_call;
using hub::testing::platform_change;
using hub::testing::platform_logic;
using hub::testing::platform_model;
using hub::testing::platform_state;
using hub::testing::platform_upload;
using hub::testing::server_reply;
using hub::testing::server_request;
using nlohmann::json;

const std::string key = "ul_0123456789abcdef0123456789abcdef01234567";
constexpr hub::time_point now{};

platform_logic make_platform() {
  platform_logic out;
  out.add_key(key, "lab");
  return out;
}

server_request post(const std::string& path, const json& body) {
  return {.method = "POST",
          .path = "/api/webhooks" + path,
          .authorization = "Bearer " + key,
          .body = body.dump()};
}

server_request ask(const std::string& method, const std::string& path) {
  return {.method = method, .path = path, .authorization = "Bearer " + key};
}

server_reply send(platform_logic& to, const json& body) {
  return to.handle(post("/training/metrics", body), now);
}

json event(const std::string& model, const std::string& name, const json& data) {
  return {{"event", name}, {"data", data}, {"modelId", model}};
}

json start_of(const std::string& project, const std::string& name) {
  return {{"event", "training_started"},
          {"data", {{"trainArgs", {{"imgsz", "640"}}}, {"epochs", 5}}},
          {"project", project},
          {"name", name}};
}

// Starts a run and returns its model's id.
std::string start(platform_logic& at, const std::string& name = "train") {
  const server_reply reply = send(at, start_of("lab/helmets", name));
  REQUIRE(reply.status == 200);
  return json::parse(reply.body).at("modelId");
}

form_part file_of(const std::string& content) {
  return {.content = content,
          .size_bytes = content.size(),
          .hash = hub::testing::content_hash(content),
          .sha256 = "digest"};
}

server_reply put(platform_logic& at, const std::string& upload_path, const std::string& content) {
  auto decision = at.decide_file(upload_path, file_of(content), now);
  if (decision.change) at.apply(*std::move(decision.change));
  return decision.reply;
}

// Uploads a file and returns the path by which it is known from then on.
std::string upload(platform_logic& at, const std::string& model, const std::string& content) {
  const server_reply place =
      at.handle(post("/models/upload", {{"filename", "best.pt"}, {"modelId", model}}), now);
  REQUIRE(place.status == 200);
  const json told = json::parse(place.body);
  REQUIRE(put(at, told.at("uploadPath"), content).status == 200);
  return told.at("gcsPath");
}

std::vector<json> recording(const std::string& name) {
  std::ifstream file(std::string(HUB_SESSION_TEST_DATA) + "/" + name);
  std::vector<json> out;
  for (std::string line; std::getline(file, line);) out.push_back(json::parse(line));
  REQUIRE_FALSE(out.empty());
  return out;
}

// Gives a whole recording of Python's to a Platform, with that Platform's own ids and paths in place
// of the recorded ones.
class recorded_client {
 public:
  explicit recorded_client(platform_logic& at) : at_(at) {}

  void send(const json& record) {
    CAPTURE(record.dump());
    if (record.at("method") == "PUT") {
      REQUIRE(put(at_, place_.at("uploadPath"), std::string(2000, 'B')).status == 200);
      return;
    }
    json body = record.at("body");
    if (body.contains("modelId")) body["modelId"] = ids_.at("modelId");
    adapt(body);
    if (body.contains("data")) adapt(body["data"]);
    const std::string path = record.at("path").get<std::string>().substr(13);
    const server_reply reply = at_.handle(post(path, body), now);
    INFO(reply.body);
    REQUIRE(reply.status == 200);
    const json told = json::parse(reply.body);
    if (told.contains("runId")) ids_ = told;
    if (told.contains("uploadUrl")) place_ = told;
    for (const auto& member : record.at("reply").items()) CHECK(told.contains(member.key()));
  }

  std::string model_id() const { return ids_.at("modelId"); }

 private:
  void adapt(json& members) const {
    if (members.contains("runId")) members["runId"] = ids_.at("runId");
    if (members.contains("uploadPath")) members["uploadPath"] = place_.at("uploadPath");
    if (members.contains("modelPath")) members["modelPath"] = place_.at("gcsPath");
    if (members.contains("results")) adapt(members["results"]);
  }

  platform_logic& at_;
  json ids_;
  json place_;
};

}  // namespace

TEST_CASE("both of Python's recordings are taken, and what they brought is there once") {
  for (const char* name : {"platform_session.jsonl", "platform_session_8_4_53.jsonl"}) {
    CAPTURE(name);
    platform_logic at = make_platform();
    recorded_client client(at);
    for (const json& record : recording(name)) client.send(record);
    const platform_model& model = at.model(client.model_id());
    CHECK(model.owner + "/" + model.project + "/" + model.name == "lab/my-helmets/yolo11n-640");
    CHECK(model.epochs.size() == 5);
    CHECK(model.epochs.at(4).at("metrics").at("lr") == 0.005904900000000002);  // the repeat's
    CHECK(model.console.size() == 3);
    REQUIRE(model.uploads.size() == 3);
    const bool says_so = contains(name, "session.jsonl");
    for (const platform_upload& each : model.uploads) {
      CHECK(each.arrived);
      CHECK(each.size_bytes == 2000);
      CHECK(each.saved == says_so);
    }
    CHECK(model.state == platform_state::completed);
    CHECK(model.ending.at("classNames") == json({"helmet", "head"}));
    CHECK(model.after_the_end == 0);
  }
}

TEST_CASE("a call that the Platform does not have, and an unknown key, are refused at once") {
  platform_logic at = make_platform();
  using enum platform_call;
  CHECK(platform_logic::route("POST", "/api/webhooks/training/metrics")->call == event);
  CHECK(platform_logic::route("HEAD", "/api/webhooks/models/a/b/c/download")->call == older_files);
  CHECK(platform_logic::route("GET", "/api/models/a/b/c/files?x=1")->name == "c");
  for (const auto& [method, path] :
       std::vector<std::pair<std::string, std::string>>{{"GET", "/api/webhooks/training/metrics"},
                                                        {"POST", "/api/webhooks/models"},
                                                        {"GET", "/api/models/a/b/files"},
                                                        {"GET", "/api/models/a/b/c/d/files"},
                                                        {"GET", "/api/models/a/../c/files"},
                                                        {"POST", "/v1/auth"}}) {
    CAPTURE(path);
    CHECK_FALSE(platform_logic::route(method, path));
    CHECK(at.refusal(ask(method, path))->status == 404);
  }
  server_request stranger = ask("GET", "/api/account/summary");
  CHECK_FALSE(at.refusal(stranger));
  stranger.authorization = "Bearer ul_ffff";
  CHECK(at.refusal(stranger)->status == 401);
  stranger.authorization = key;
  CHECK(at.refusal(stranger)->status == 401);
  at.user_of = [](const std::string& given) {
    return given == "ul_ffff" ? std::optional<std::string>("other") : std::nullopt;
  };
  stranger.authorization = "Bearer ul_ffff";
  CHECK(json::parse(at.handle(stranger, now).body) == json({{"username", "other"}}));
}

TEST_CASE("a name that is taken is counted up, and events by name go to the newest") {
  platform_logic at = make_platform();
  const std::string first = start(at);
  const std::string second = start(at);
  CHECK(at.model(first).name == "train");
  CHECK(at.model(second).name == "train-2");
  CHECK(at.model(start(at)).name == "train-3");
  CHECK(at.model(start(at, "train-2")).name == "train-2-2");
  at.remove_model(second);
  CHECK(at.model(start(at)).name == "train-2");

  json by_name = event("", "epoch_end", {{"epoch", 0}, {"metrics", json::object()}});
  by_name.erase("modelId");
  by_name["project"] = "helmets";
  by_name["name"] = "other";
  CHECK(send(at, by_name).status == 404);
  const std::string other = start(at, "other");
  CHECK(send(at, by_name).status == 200);  // the project's owner is the key's
  CHECK(at.model(other).epochs.size() == 1);
}

TEST_CASE(
    "an epoch that is sent again takes the place of the first, and a chunk must be the same") {
  platform_logic at = make_platform();
  const std::string id = start(at);
  for (double loss : {2.0, 1.0})
    CHECK(send(at, event(id, "epoch_end", {{"epoch", 3}, {"metrics", {{"train/loss", loss}}}}))
              .status == 200);
  CHECK(at.model(id).epochs.size() == 1);
  CHECK(at.model(id).epochs.at(3).at("metrics").at("train/loss") == 1.0);

  const auto chunk = [&](int number, const std::string& content, int lines) {
    return send(at, event(id, "console_output",
                          {{"chunkId", number}, {"content", content}, {"lineCount", lines}}))
        .status;
  };
  CHECK(chunk(1, "a\nb", 2) == 200);
  CHECK(chunk(1, "a\nb", 2) == 200);
  CHECK(chunk(1, "a\nc", 2) == 409);
  CHECK(chunk(2, "a\nb", 1) == 400);
  CHECK(at.model(id).console.size() == 1);
}

TEST_CASE("a checkpoint is announced for the current run and for a file that has arrived") {
  platform_logic at = make_platform();
  at.keep_contents = true;
  const std::string id = start(at);
  const std::string run = at.model(id).run_id;
  const auto saved = [&](const std::string& path, const std::string& of) {
    return send(at, event(id, "checkpoint_saved", {{"modelPath", path}, {"runId", of}})).status;
  };
  const server_reply place =
      at.handle(post("/models/upload", {{"filename", "last.pt"}, {"modelId", id}}), now);
  const json told = json::parse(place.body);
  CHECK(saved(told.at("gcsPath"), run) == 409);
  CHECK(put(at, "elsewhere", "x").status == 404);
  CHECK(put(at, told.at("uploadPath"), "").status == 400);
  CHECK(at.model(id).latest_file() == nullptr);
  CHECK(put(at, told.at("uploadPath"), "weights").status == 200);
  CHECK(at.model(id).latest_file()->content == "weights");
  CHECK(at.model(id).latest_file()->sha256 == "digest");
  CHECK(saved(told.at("gcsPath"), "run-other") == 409);
  CHECK_FALSE(at.model(id).latest_file()->saved);
  CHECK(saved(told.at("gcsPath"), run) == 200);
  CHECK(at.model(id).latest_file()->saved);
  CHECK(at.handle(post("/models/upload", {{"filename", "../best.pt"}, {"modelId", id}}), now)
            .status == 400);
  CHECK(at.handle(post("/models/upload",
                       {{"filename", "best.pt"}, {"modelId", id}, {"runId", "run-other"}}),
                  now)
            .status == 409);
}

TEST_CASE("what the contract does not have is refused, and the reason names it") {
  platform_logic at = make_platform();
  const std::string id = start(at);
  const json metrics = json::object();
  const json results = {{"metrics", metrics}, {"bestEpoch", 1}, {"bestFitness", nullptr}};
  const auto ending = [&](const json& changed, json plots = json::array()) {
    json all = results;
    all.update(changed);
    return event(id, "training_complete",
                 {{"results", all}, {"classNames", nullptr}, {"plots", std::move(plots)}});
  };
  json stray = event(id, "epoch_end", {{"epoch", 0}, {"metrics", metrics}});
  stray["run"] = 1;
  json unslugged = start_of("lab/My Helmets", "train");
  const std::vector<std::pair<json, std::string>> cases = {
      {json::array(), "event and data"},
      {{{"event", "epoch_end"}}, "event and data"},
      {stray, "'run'"},
      {unslugged, "project"},
      {start_of("lab/helmets", "Train"), "name"},
      {{{"event", "epoch_end"}, {"data", {{"epoch", 0}, {"metrics", metrics}}}}, "project"},
      {event(id, "epoch_started", metrics), "no such event"},
      {event(id, "epoch_end", {{"metrics", metrics}}), "epoch"},
      {event(id, "epoch_end", {{"epoch", -1}, {"metrics", metrics}}), "epoch"},
      {event(id, "epoch_end", {{"epoch", 0}, {"metrics", {{"a", "1"}}}}), "metrics"},
      {event(id, "epoch_end", {{"epoch", 0}, {"metrics", metrics}, {"loss", 1}}), "'loss'"},
      {event(id, "epoch_end", {{"epoch", 0}, {"metrics", metrics}, {"modelInfo", {{"a", 1}}}}),
       "'a'"},
      {event(id, "console_output", {{"chunkId", 0}, {"content", "a"}, {"lineCount", 1}}),
       "chunkId"},
      {event(id, "training_failed", metrics), "error"},
      {event(id, "system_metrics", {{"ram", 1}}), "'ram'"},
      {ending({{"bestEpoch", "4"}}), "bestEpoch"},
      {ending({{"more", 4}}), "'more'"},
      {ending(json::object(), {{{"type", "roc_curve"}}}), "plot"},
      {ending(json::object(), {{{"type", "f1_curve"}, {"x", {1}}, {"y", {{1, 2}}}}}), "f1_curve"},
      {ending(json::object(), {{{"type", "f1_curve"}, {"x", std::vector(102, 1)}, {"y", metrics}}}),
       "f1_curve"}};
  for (const auto& [body, reason] : cases) {
    const server_reply reply = send(at, body);
    CAPTURE(body.dump(), reply.body);
    CHECK(reply.status == 400);
    CHECK(contains(json::parse(reply.body).at("error").get<std::string>(), reason));
  }
  server_request garbled = post("/training/metrics", {});
  garbled.body = "{\"event\": \"epoch_";
  CHECK(at.handle(garbled, now).status == 400);
  CHECK(at.model(id).epochs.empty());
  CHECK(at.model(id).state == platform_state::training);
}

TEST_CASE("a run ends complete or failed; what comes after a complete one is counted") {
  platform_logic at = make_platform();
  const std::string id = start(at);
  const json end =
      event(id, "training_complete",
            {{"results", {{"metrics", json::object()}, {"bestEpoch", 0}, {"bestFitness", 1}}},
             {"classNames", nullptr},
             {"plots", json::array()}});
  const json epoch = event(id, "epoch_end", {{"epoch", 0}, {"metrics", json::object()}});
  CHECK(send(at, event(id, "training_failed", {{"error", "killed"}})).status == 200);
  CHECK(at.model(id).state == platform_state::failed);
  CHECK(send(at, epoch).status == 200);  // it was taken up again
  CHECK(at.model(id).state == platform_state::training);
  CHECK(send(at, end).status == 200);
  CHECK(send(at, end).status == 200);  // the reply was lost
  CHECK(at.model(id).state == platform_state::completed);
  CHECK(at.model(id).after_the_end == 0);
  CHECK(send(at, epoch).status == 200);
  CHECK(at.model(id).after_the_end == 1);
  CHECK(at.model(id).state == platform_state::completed);

  const std::string other = start(at);
  json with_file = end;
  with_file["modelId"] = other;
  with_file["data"]["results"]["modelPath"] = "gs://bucket/none";
  CHECK(send(at, with_file).status == 409);
  with_file["data"]["results"]["modelPath"] = upload(at, other, "B");
  CHECK(send(at, with_file).status == 200);
}

TEST_CASE("an owner stops a training, which learns of it with its next epoch") {
  platform_logic at = make_platform();
  const std::string id = start(at);
  const auto told = [&] {
    const server_reply reply =
        send(at, event(id, "epoch_end", {{"epoch", 0}, {"metrics", json::object()}}));
    return json::parse(reply.body).at("cancelled").get<bool>();
  };
  CHECK_FALSE(told());
  CHECK(at.handle(ask("DELETE", "/api/models/lab/helmets/none/training"), now).status == 404);
  CHECK(at.handle(ask("DELETE", "/api/models/lab/helmets/train/training"), now).status == 200);
  CHECK(told());
  CHECK(send(at, event(id, "training_failed", {{"error", "stopped"}})).status == 200);
  CHECK(at.handle(ask("DELETE", "/api/models/lab/helmets/train/training"), now).status == 409);
  CHECK_FALSE(at.cancel(id));
  CHECK(at.cancel(start(at)));
  CHECK_FALSE(at.cancel("none"));
}

TEST_CASE("files and datasets are handed out in the newer way and in the older one") {
  platform_logic at = make_platform();
  at.add_dataset({"lab", "coco8", "https://s.test/coco8.ndjson"});
  at.add_dataset({"lab", "new", ""});
  const std::string id = start(at);
  const auto get = [&](const char* path) { return at.handle(ask("GET", path), now); };
  const auto head = [&](const char* path) { return at.handle(ask("HEAD", path), now); };
  CHECK(get("/api/models/lab/helmets/train/files").body == R"({"files":[]})");
  CHECK(head("/api/webhooks/models/lab/helmets/train/download").status == 404);
  const std::string path = upload(at, id, "weights");
  at.url_of_file = [](const platform_upload& file, hub::time_point) {
    return "https://s.test/" + file.file_name + "?sig=1";
  };
  CHECK(json::parse(get("/api/models/lab/helmets/train/files").body).at("files").at(0) ==
        json({{"name", "best.pt"}, {"size", 7}, {"downloadUrl", "https://s.test/best.pt?sig=1"}}));
  const server_reply older = head("/api/webhooks/models/lab/helmets/train/download");
  CHECK(older.status == 302);
  CHECK(older.location == "https://s.test/best.pt?sig=1");
  CHECK(json::parse(get("/api/datasets/lab/coco8/export").body).at("downloadUrl") ==
        "https://s.test/coco8.ndjson");
  CHECK(head("/api/webhooks/datasets/lab/coco8/export").location == "https://s.test/coco8.ndjson");
  CHECK(get("/api/datasets/lab/new/export").status == 409);
  CHECK(get("/api/datasets/lab/none/export").status == 404);
  at.has_newer_calls = false;
  CHECK(get("/api/models/lab/helmets/train/files").status == 404);
  at.has_older_calls = false;
  CHECK(head("/api/webhooks/datasets/lab/coco8/export").status == 404);
}

TEST_CASE("a Platform is what its changes make it: applied again they make the same") {
  platform_logic at = make_platform();
  std::vector<platform_change> kept;
  const auto decide = [&](const server_request& what) {
    auto decision = at.decide(what, now);
    REQUIRE(decision.reply.status == 200);
    REQUIRE(decision.change);
    kept.push_back(*decision.change);
    at.apply(*std::move(decision.change));
    return json::parse(decision.reply.body);
  };
  const std::string id =
      decide(post("/training/metrics", start_of("lab/helmets", "train"))).at("modelId");
  CHECK(at.models().size() == 1);
  decide(post("/training/metrics",
              event(id, "epoch_end", {{"epoch", 1}, {"metrics", {{"train/loss", 1}}}})));
  const json place = decide(post("/models/upload", {{"filename", "best.pt"}, {"modelId", id}}));
  kept.push_back(*at.decide_file(std::string(place.at("uploadPath")), file_of("B"), now).change);
  at.apply(kept.back());
  decide(ask("DELETE", "/api/models/lab/helmets/train/training"));

  platform_logic again = make_platform();
  for (const platform_change& each : kept) again.apply(each);
  const platform_model& was = at.model(id);
  const platform_model& is = again.model(id);
  CHECK(is.owner + is.project + is.name + is.run_id ==
        was.owner + was.project + was.name + was.run_id);
  CHECK(is.started == was.started);
  CHECK(is.epochs == was.epochs);
  REQUIRE(is.uploads.size() == 1);
  CHECK(is.uploads[0].path == was.uploads[0].path);
  CHECK(is.uploads[0].hash == hub::testing::content_hash("B"));
  CHECK(is.cancelled);
  const auto undecided = again.decide(post("/training/metrics", start_of("lab/helmets", "x")), now);
  CHECK(undecided.change);
  CHECK(again.models().size() == 1);
}

// ---- the Platform in memory -----------------------------------------------------------------

namespace {

using hub::testing::endpoint;
using hub::testing::fake_platform;
using hub::testing::fake_transport;
using hub::testing::fault;
using hub::testing::fault_kind;
using hub::testing::timeline;
namespace wire = hub::platform_wire;

// Virtual time, a Platform in it, and a run that speaks to it request by request.
struct world {
  timeline time;
  fake_platform platform{time};
  fake_transport transport{platform};
  wire::run run = *wire::make_run({.project = "lab/helmets", .epochs = 2},
                                  *wire::parse_roots(fake_platform::web_root, ""));

  world() { run.api_key = fake_platform::api_key; }

  hub::reply send(std::string_view event, const std::string& data) {
    return transport.send(wire::event_request(run, event, data));
  }
  void start() {
    const hub::reply reply = send("training_started", run.registration);
    REQUIRE(reply.status == 200);
    const wire::event_reply told = wire::parse_event_reply(reply.body);
    run.model_id = told.model_id;
    run.run_id = told.run_id;
  }
  hub::reply send_epoch(int epoch) {
    const std::vector<std::pair<std::string, double>> values = {{"train/loss", 1.0}};
    return send("epoch_end",
                wire::encode_epoch({epoch, std::make_shared<const hub::epoch_record>(values)}, ""));
  }
  wire::upload_place ask_for_place() {
    const hub::reply reply = transport.send(wire::upload_request(run, {.is_final = true}));
    return *wire::parse_upload_place(reply.body, run);
  }
  hub::reply put(const std::string& url, const std::string& content = "weights") {
    return transport.send(
        hub::storage_host::put_request(url, std::make_shared<memory_body>(content)));
  }
  hub::reply complete() {
    return send("training_complete", wire::encode_completion(run, {}, {.epoch = 1}));
  }
};

}  // namespace

TEST_CASE("a whole run reaches the Platform in memory through a transport") {
  world sim;
  sim.start();
  CHECK(sim.send_epoch(0).status == 200);
  const wire::upload_place place = sim.ask_for_place();
  CHECK(sim.put(place.url).status == 200);
  CHECK(sim.transport.send(wire::saved_request(sim.run, place)).status == 200);
  CHECK(sim.send("console_output", wire::encode_console(1, "a\nb", 2)).status == 200);
  CHECK(sim.send("system_metrics", "{}").status == 200);
  CHECK(sim.complete().status == 200);
  const platform_model& made = sim.platform.model(sim.run.model_id);
  CHECK(made.state == platform_state::completed);
  REQUIRE(made.latest_file());
  CHECK(made.latest_file()->content == "weights");
  CHECK(made.latest_file()->saved);
  std::vector<endpoint> seen;
  for (const auto& each : sim.platform.requests()) seen.push_back(each.to.value());
  using enum endpoint;
  CHECK(seen == std::vector{training_started, epoch_end, upload, storage, checkpoint_saved,
                            console_output, system_metrics, training_complete});
  CHECK(sim.transport.send(wire::account_request(sim.run)).body == R"({"username":"lab"})");
}

TEST_CASE("faults meet the events that they are for, and the Platform acted or did not") {
  world sim;
  sim.start();
  sim.platform.fail_next(endpoint::epoch_end, {fault_kind::status, 503, "7"});
  sim.platform.fail_next(endpoint::epoch_end, {fault_kind::reply_lost});
  CHECK(sim.send("system_metrics", "{}").status == 200);
  const hub::reply refused = sim.send_epoch(0);
  CHECK(refused.status == 503);
  CHECK(refused.retry_after == "7");
  CHECK(contains(refused.body, R"("error": "scripted")"));
  CHECK(sim.platform.model(sim.run.model_id).epochs.empty());
  CHECK(sim.send_epoch(0).failure);
  CHECK(sim.platform.model(sim.run.model_id).epochs.size() == 1);
  sim.platform.fail_next(
      {.kind = fault_kind::status, .status = 429, .retry_after = "30", .wait_in_body = true});
  const hub::reply limited = sim.send_epoch(1);
  CHECK(limited.retry_after.empty());
  CHECK(wire::retry_after_of(limited, {}) == 30s);
}

TEST_CASE("a registration whose reply is lost has made a run all the same") {
  world sim;
  sim.platform.fail_next(endpoint::training_started, {fault_kind::reply_lost});
  CHECK(sim.send("training_started", sim.run.registration).failure);
  sim.start();
  CHECK(sim.platform.models().size() == 2);
  CHECK(sim.platform.model(sim.run.model_id).name == "train-2");
}

TEST_CASE("a signed URL lets in whoever has it until its time is over, and a key is a problem") {
  world sim;
  sim.start();
  const std::string first = sim.ask_for_place().url;
  sim.time.advance(899s);
  CHECK(sim.put(first).status == 200);
  sim.time.advance(1s);
  CHECK(sim.put(first).status == 403);
  const std::string second = sim.ask_for_place().url;
  sim.platform.expire_urls();
  CHECK(sim.put(second).status == 403);
  const std::string third = sim.ask_for_place().url;
  CHECK(sim.put(third.substr(0, third.size() - 1)).status == 403);
  CHECK(sim.put(third).status == 200);
  CHECK(sim.platform.problems().empty());
  hub::request with_key = hub::storage_host::put_request(third, std::make_shared<memory_body>("B"));
  with_key.headers.emplace_back("authorization", "Bearer " + fake_platform::api_key);
  sim.transport.send(with_key);
  CHECK(sim.platform.problems() == std::vector<std::string>{"a key was sent to the storage host"});
}

TEST_CASE("a file is downloaded from where the Platform says, in either way") {
  world sim;
  sim.start();
  sim.put(sim.ask_for_place().url, "weights");
  sim.platform.add_dataset({"lab", "coco8", sim.platform.put_file("coco8.ndjson", "{}\n")});
  const wire::resource model{.owner = "lab", .project = "helmets", .name = "train"};
  const wire::resource dataset{.is_dataset = true, .owner = "lab", .name = "coco8"};
  const auto content = [&](const std::string& url) {
    return sim.transport.send(hub::storage_host::download_request(url, {})).body;
  };
  const auto newer = [&](const wire::resource& what) {
    return *wire::parse_resource_reply(
        sim.transport.send(wire::resource_request(sim.run, what)).body, what);
  };
  const auto older = [&](const wire::resource& what) {
    return *wire::parse_older_resource_reply(
        sim.transport.send(wire::older_resource_request(sim.run, what)));
  };
  CHECK(content(newer(model)) == "weights");
  CHECK(content(older(model)) == "weights");
  CHECK(content(newer(dataset)) == "{}\n");
  CHECK(content(older(dataset)) == "{}\n");
}

TEST_CASE("more requests within a minute than the limit are refused, and are a problem") {
  world sim;
  sim.start();
  for (int i = 0; i < 99; ++i) sim.send_epoch(i);
  const hub::reply limited = sim.send_epoch(99);
  CHECK(limited.status == 429);
  CHECK(wire::retry_after_of(limited, {}) == 60s);
  CHECK(sim.platform.problems().size() == 1);
  sim.time.advance(60s);
  CHECK(sim.send_epoch(99).status == 200);
}

TEST_CASE("what comes after the end of a run is a problem") {
  world sim;
  sim.start();
  sim.complete();
  sim.complete();  // as after a reply that was lost
  CHECK(sim.platform.problems().empty());
  sim.send_epoch(0);
  CHECK(sim.platform.problems() ==
        std::vector<std::string>{"an event came after training_complete"});
}

}  // namespace test_platform_tests
