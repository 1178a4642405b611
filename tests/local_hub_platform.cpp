// SPDX-License-Identifier: MIT
//
// The runs of the Platform's clients at a local_hub: Python's recordings replayed, and what repeats,
// comes late, is stopped, or is killed in between.

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/local_hub.hpp"
#include "support/programs.hpp"
#include "support/sha256.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace local_hub_platform_tests {

#if !defined(HUB_SESSION_TEST_DATA)
#error "define HUB_SESSION_TEST_DATA as the path of tests/data"
#endif

namespace {

using namespace hub_test;

const std::string platform_key = "ul_0123456789abcdef0123456789abcdef01234567";

running_hub start_platform(const home& at, words flags = {}) {
  flags.insert(flags.end(), {"--api-key", platform_key});
  return start_plain(at, flags);
}

answer post(const running_hub& hub, const std::string& path, const json& body,
            const std::string& key = platform_key) {
  return send(hub, "POST", path, body.dump(), {{"Authorization", "Bearer " + key}});
}

answer tell(const running_hub& hub, const json& body) {
  return post(hub, "/api/webhooks/training/metrics", body);
}

answer put(const running_hub& hub, const std::string& url, const std::string& content) {
  httplib::Client client("127.0.0.1", hub.port());
  const auto got =
      client.Put(url.substr(url.find('/', 8)).c_str(), content, "application/octet-stream");
  REQUIRE(got);
  return {got->status, got->body, got->headers};
}

// A run of which a test knows the ids.
struct run {
  std::string id;
  std::string run_id;
  std::string name;

  json event(const char* what, json data) const {
    return {{"event", what}, {"modelId", id}, {"data", std::move(data)}};
  }
};

run start_run(const running_hub& hub, const std::string& name = "train",
              const std::string& project = "spirals") {
  const answer got = tell(hub, {{"event", "training_started"},
                                {"project", project},
                                {"name", name},
                                {"data",
                                 {{"trainArgs", {{"epochs", "5"}, {"data", "coco8.yaml"}}},
                                  {"epochs", 5},
                                  {"device", "cpu"}}}});
  INFO(got.body);
  REQUIRE(got.status == 200);
  const json said = got.value();
  return {said.at("modelId"), said.at("runId"), said.at("modelSlug")};
}

json epoch(int number, double loss) {
  return {{"epoch", number},
          {"metrics", {{"train/loss", loss}}},
          {"fitness", 1 - loss},
          {"best_fitness", 1 - loss}};
}

json shown(const running_hub& hub, const run& of, const std::string& rest = "") {
  const answer got = send(hub, "GET", "/api/models/" + of.id + rest);
  REQUIRE(got.status == 200);
  return got.value();
}

// Uploads a file as clients do; returns its gcsPath.
std::string upload_to(const running_hub& hub, const run& to, const std::string& content) {
  const answer place = post(hub, "/api/webhooks/models/upload",
                            {{"filename", "best.pt"}, {"modelId", to.id}, {"runId", to.run_id}});
  INFO(place.body);
  REQUIRE(place.status == 200);
  REQUIRE(put(hub, place.value().at("uploadUrl"), content).status == 200);
  return place.value().at("gcsPath");
}

// ---- Python's recordings ------------------------------------------------------------------------

// What the recorded Platform answered stands for what local_hub answers.
void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

TEST_CASE("the recorded requests of the Platform's clients are taken", "[local_hub]") {
  const home at;
  const char* const name = GENERATE("platform_session.jsonl", "platform_session_8_4_53.jsonl");
  CAPTURE(name);
  running_hub hub = start_platform(at);
  std::ifstream recording(std::string(HUB_SESSION_TEST_DATA) + '/' + name);
  std::vector<std::pair<std::string, std::string>> renamed;
  std::string url;
  run of;
  for (std::string line; std::getline(recording, line);) {
    const json reply = json::parse(line).at("reply");
    for (const auto& [theirs, ours] : renamed) replace_all(line, theirs, ours);
    const json request = json::parse(line);
    CAPTURE(line);
    const std::string method = request.at("method");
    const answer got = method == "PUT" ? put(hub, url, std::string(2000, 'B'))
                                       : post(hub, request.at("path"), request.at("body"));
    INFO(got.body);
    REQUIRE(got.status == 200);
    if (reply.contains("uploadUrl")) url = got.value().at("uploadUrl");
    for (const char* each : {"modelId", "runId", "gcsPath", "uploadPath"})
      if (reply.contains(each)) renamed.emplace_back(reply.at(each), got.value().at(each));
    if (reply.contains("modelSlug")) of = {got.value().at("modelId"), got.value().at("runId"), ""};
  }
  const auto check = [&] {
    const json model = shown(hub, of);
    CHECK(model.at("state") == "trained");
    CHECK(model.at("name") == "yolo11n-640");
    CHECK(model.at("project") == "my-helmets");
    CHECK(model.at("run").at("owner") == "lab");
    CHECK(model.at("epoch") == 5);
    CHECK(model.at("epochs") == 5);
    CHECK(model.at("run").at("environment").contains("ultralyticsVersion"));
    CHECK(model.at("run").at("args").contains("epochs"));
    CHECK(model.at("best").at("epoch") == 5);
    REQUIRE(model.at("checkpoints").size() == 1);
    CHECK(model.at("checkpoints")[0].at("sha256") == sha256(std::string(2000, 'B')));
    const json metrics = shown(hub, of, "/metrics");
    CHECK(metrics.at("epochs") == json{1, 2, 3, 4, 5});
    CHECK(metrics.at("columns").at("val/cls_loss")[1].is_null());
    CHECK(metrics.at("columns").at("train/box_loss")[4] == 0.3);
    CHECK(shown(hub, of, "/console").at("chunks").size() == 3);
    CHECK(shown(hub, of, "/console?since=2").at("chunks").size() == 1);
    CHECK(shown(hub, of, "/system").at("columns").at("cpu").size() == 5);
    const json ending = shown(hub, of, "/ending");
    CHECK(ending.at("plots").size() == 2);
    CHECK(ending.at("best_epoch") == 5);
    CHECK(ending.at("class_names") == json{"helmet", "head"});
    CHECK(send(hub, "GET", "/api/models/" + of.id + "/files/best.pt").body ==
          std::string(2000, 'B'));
    const answer page = send(hub, "GET", "/lab/my-helmets/yolo11n-640");
    CHECK(page.status == 302);
    CHECK(page.header("Location") == "../../models/" + of.id);
  };
  check();
  hub.program->send(SIGKILL);
  hub.program->wait_for_end();
  hub = start_platform(at);
  check();
}

// ---- events -------------------------------------------------------------------------------------

TEST_CASE("names are counted up, and a run is found by them or by its id", "[local_hub]") {
  const home at;
  running_hub hub = start_platform(at);
  const run first = start_run(hub);
  const run second = start_run(hub);
  CHECK(first.name == "train");
  CHECK(second.name == "train-2");
  CHECK(start_run(hub, "train", "other").name == "train");
  CHECK(start_run(hub, "train", "lab/spirals").name == "train");
  CHECK(first.id.size() == 24);
  CHECK(first.id.find_first_not_of("0123456789abcdef") == std::string::npos);
  json by_name = second.event("epoch_end", epoch(0, 0.5));
  by_name.erase("modelId");
  by_name["project"] = "spirals";
  by_name["name"] = "train";
  CHECK(tell(hub, by_name).status == 200);
  CHECK(shown(hub, first).at("epoch") == 0);
  CHECK(shown(hub, second).at("epoch") == 1);
  hub.stop();
  hub = start_platform(at);
  CHECK(start_run(hub).name == "train-3");
}

TEST_CASE("events repeat, overtake each other and come after the end", "[local_hub]") {
  const home at;
  running_hub hub = start_platform(at);
  const run of = start_run(hub);
  const json console = {{"chunkId", 2}, {"content", "two\nlines"}, {"lineCount", 2}};
  const json results = {{"metrics", {{"fitness", 0.5}}}, {"bestEpoch", 1}, {"bestFitness", 0.5}};
  const json complete = {{"results", results}, {"classNames", nullptr}, {"plots", json::array()}};
  for (int times = 0; times < 3; ++times) {
    CHECK(tell(hub, of.event("epoch_end", epoch(1, 0.25))).status == 200);
    CHECK(tell(hub, of.event("console_output", console)).status == 200);
    CHECK(tell(hub, of.event("training_complete", complete)).status == 200);
  }
  CHECK(tell(hub, of.event("epoch_end", epoch(0, 0.5))).status == 200);
  const std::string events = read_file(at.data / "models" / of.id / "events.jsonl");
  CHECK(std::count(events.begin(), events.end(), '\n') == 4);  // each is stored once
  CHECK(shown(hub, of).at("state") == "trained");
  CHECK(shown(hub, of, "/metrics").at("columns").at("train/loss") == json{0.5, 0.25});
  // The last epoch comes once more, with what the final validation found.
  CHECK(tell(hub, of.event("epoch_end", epoch(1, 0.125))).status == 200);
  CHECK(shown(hub, of, "/metrics").at("columns").at("train/loss") == json{0.5, 0.125});
}

TEST_CASE("what no contract has is kept, and what no event can be without is asked for",
          "[local_hub]") {
  const home at;
  const running_hub hub = start_platform(at);
  const run of = start_run(hub);
  json data = epoch(0, 0.5);
  data["from_the_future"] = {{"a", 1}};
  CHECK(tell(hub, of.event("epoch_end", data)).status == 200);
  CHECK(tell(hub, of.event("event_of_the_future", {{"a", 1}})).status == 200);
  CHECK(contains(read_file(at.data / "models" / of.id / "events.jsonl"), "event_of_the_future"));
  const std::string with_nan = R"({"event": "epoch_end", "modelId": ")" + of.id +
                               R"(", "data": {"epoch": 1, "metrics": {"train/loss": NaN}}})";
  CHECK(send(hub, "POST", "/api/webhooks/training/metrics", with_nan,
             {{"Authorization", "Bearer " + platform_key}})
            .status == 200);
  CHECK(shown(hub, of).at("epoch") == 2);
  for (const json& wrong :
       {json{{"epoch", -1}, {"metrics", json::object()}}, json{{"epoch", 2}},
        json{{"epoch", 2'147'483'647}, {"metrics", json::object()}}, json{{"metrics", 1}}}) {
    const answer got = tell(hub, of.event("epoch_end", wrong));
    CHECK(got.status == 400);
    CHECK(got.value().contains("error"));
  }
  CHECK(tell(hub, of.event("console_output", {{"chunkId", 1}})).status == 400);
  CHECK(tell(hub, of.event("training_complete", json::object())).status == 400);
  CHECK(tell(hub, of.event("epoch_end", "text")).status == 400);
  CHECK(
      tell(hub, {{"event", "epoch_end"}, {"modelId", std::string(24, '0')}, {"data", epoch(0, 1)}})
          .status == 404);
  CHECK(send(hub, "POST", "/api/webhooks/training/metrics", "[",
             {{"Authorization", "Bearer " + platform_key}})
            .status == 400);
  CHECK(shown(hub, of).at("refused").empty());
}

// ---- a kill -------------------------------------------------------------------------------------

// What a client was told is there.
struct confirmed {
  std::string id;
  int epochs = 0;
  int chunks = 0;
};

// Trains until nobody answers any more, and counts each reply.
confirmed train_until_killed(int port, std::atomic<int>& replies) {
  httplib::Client client("127.0.0.1", port);
  client.set_keep_alive(true);
  const auto tell = [&](const json& body) -> std::optional<json> {
    const auto got =
        client.Post("/api/webhooks/training/metrics", {{"Authorization", "Bearer " + platform_key}},
                    body.dump(), "application/json");
    if (!got || got->status != 200) return std::nullopt;
    ++replies;
    replies.notify_all();
    return json::parse(got->body);
  };
  confirmed out;
  const auto started = tell({{"event", "training_started"},
                             {"project", "spirals"},
                             {"name", "train"},
                             {"data", {{"trainArgs", json::object()}, {"epochs", 100'000}}}});
  if (!started) return out;
  out.id = started->at("modelId");
  const run of = {out.id, "", ""};
  for (;;) {
    if (!tell(of.event("epoch_end", epoch(out.epochs, out.epochs + 0.5)))) return out;
    ++out.epochs;
    const json lines = {{"chunkId", out.chunks + 1}, {"content", "a line"}, {"lineCount", 1}};
    if (!tell(of.event("console_output", lines))) return out;
    ++out.chunks;
  }
}

// More than that may be there, as a reply may have been on its way.
void check_confirmed(const running_hub& hub, const confirmed& work) {
  const run of = {work.id, "", ""};
  CHECK(shown(hub, of).at("state") == "training");
  const json metrics = shown(hub, of, "/metrics");
  REQUIRE(metrics.at("epochs").size() >= static_cast<std::size_t>(work.epochs));
  for (int number = 0; number < work.epochs; ++number) {
    const auto at = static_cast<std::size_t>(number);
    CHECK(metrics.at("epochs")[at] == number + 1);
    CHECK(metrics.at("columns").at("train/loss")[at] == number + 0.5);
  }
  CHECK(shown(hub, of, "/console").at("chunks").size() >= static_cast<std::size_t>(work.chunks));
}

TEST_CASE("runs, epochs and console lines that were confirmed survive a kill", "[local_hub]") {
  const home at;
  std::vector<confirmed> all;
  for (const int replies_before : {3, 40, 200}) {
    running_hub hub = start_platform(at);
    std::atomic<int> replies = 0;
    std::vector<std::future<confirmed>> clients;
    for (int i = 0; i < 4; ++i)
      clients.push_back(std::async(std::launch::async, [&] {
        confirmed work = train_until_killed(hub.port(), replies);
        replies = replies_before;  // whoever waits waits for nobody that ended by itself
        replies.notify_all();
        return work;
      }));
    for (int seen = 0; seen < replies_before; seen = replies) replies.wait(seen);
    hub.program->send(SIGKILL);
    hub.program->wait_for_end();
    for (auto& each : clients) {
      const confirmed work = each.get();
      if (!work.id.empty()) all.push_back(work);
    }
  }
  const running_hub hub = start_platform(at);
  CHECK(all.size() >= 3);
  for (const confirmed& each : all) check_confirmed(hub, each);
}

// ---- files --------------------------------------------------------------------------------------

TEST_CASE("a file is put where a signed URL leads, again if need be, and handed out",
          "[local_hub]") {
  const home at;
  running_hub hub = start_platform(at);
  const run of = start_run(hub);
  const json ask = {{"filename", "best.pt"}, {"modelId", of.id}};
  const json place = post(hub, "/api/webhooks/models/upload", ask).value();
  const std::string url = place.at("uploadUrl");
  CHECK(url.starts_with(hub.url + "/uploads/"));
  const json saved = {{"modelPath", place.at("gcsPath")}, {"runId", of.run_id}};
  CHECK(tell(hub, of.event("checkpoint_saved", saved)).status == 409);  // nothing arrived
  CHECK(put(hub, url, "first").status == 200);
  CHECK(put(hub, url, "second").status == 200);
  std::string forged = url;
  forged.back() = forged.back() == '0' ? '1' : '0';
  CHECK(put(hub, forged, "forged").status == 403);
  CHECK(put(hub, url.substr(0, url.find('?')), "unsigned").status == 403);
  CHECK(put(hub, url, "").status == 400);
  json of_another_run = saved;
  of_another_run["runId"] = "another";
  CHECK(tell(hub, of.event("checkpoint_saved", of_another_run)).status == 409);
  CHECK(tell(hub, of.event("checkpoint_saved", saved)).status == 200);

  // A later file takes its place, and one that was announced before and comes late does not.
  const std::string early = post(hub, "/api/webhooks/models/upload", ask).value().at("uploadUrl");
  upload_to(hub, of, "third");
  CHECK(put(hub, early, "late").status == 200);
  const auto check = [&] {
    const httplib::Headers key = {{"Authorization", "Bearer " + platform_key}};
    const json files =
        send(hub, "GET", "/api/models/local/spirals/train/files", "", key).value().at("files");
    REQUIRE(files.size() == 1);
    CHECK(files[0].at("name") == "best.pt");
    CHECK(files[0].at("size") == 5);
    const std::string from = files[0].at("downloadUrl");
    CHECK(send(hub, "GET", from.substr(hub.url.size())).body == "third");
    const answer older =
        send(hub, "HEAD", "/api/webhooks/models/local/spirals/train/download", "", key);
    CHECK(older.status == 302);
    CHECK(send(hub, "GET", older.header("Location").substr(hub.url.size())).body == "third");
    CHECK(send(hub, "GET", "/api/models/local/spirals/none/files", "", key).status == 404);
    CHECK(send(hub, "GET", "/api/models/local/spirals/train/files").status == 401);
  };
  check();
  hub.stop();
  hub = start_platform(at);
  check();
  CHECK(put(hub, url, "first").status == 403);  // signatures end with the process
}

TEST_CASE("a file that is too large, or finds no room, leaves nothing", "[local_hub]") {
  const home at;
  running_hub hub = start_platform(at, {"--upload-bytes-max", "1000"});
  const run of = start_run(hub);
  const json ask = {{"filename", "best.pt"}, {"modelId", of.id}};
  const std::string url = post(hub, "/api/webhooks/models/upload", ask).value().at("uploadUrl");
  CHECK(put(hub, url, std::string(1000, 'x')).status == 200);
  CHECK(put(hub, url, std::string(1001, 'x')).status == 413);
  CHECK(put(hub, url, std::string(10'000'000, 'x')).status == 413);
  CHECK(shown(hub, of).at("checkpoints")[0].at("bytes") == 1000);
  hub.stop();
  hub = start_platform(at, {"--free-bytes-min", "1e17"});
  const std::string next = post(hub, "/api/webhooks/models/upload", ask).value().at("uploadUrl");
  CHECK(put(hub, next, "x").status == 507);
  for (const auto& each : fs::recursive_directory_iterator(at.data))
    CHECK(each.path().extension() != ".part");
}

TEST_CASE("a dataset that lies in its folder is handed out", "[local_hub]") {
  const home at;
  fs::create_directories(at.data / "datasets" / "lab");
  std::ofstream(at.data / "datasets" / "lab" / "helmets.ndjson") << "{\"type\": \"dataset\"}\n";
  const running_hub hub = start_platform(at);
  const httplib::Headers key = {{"Authorization", "Bearer " + platform_key}};
  const answer got = send(hub, "GET", "/api/datasets/lab/helmets/export", "", key);
  REQUIRE(got.status == 200);
  const std::string url = got.value().at("downloadUrl");
  CHECK(send(hub, "GET", url.substr(hub.url.size())).body == "{\"type\": \"dataset\"}\n");
  CHECK(send(hub, "HEAD", "/api/webhooks/datasets/lab/helmets/export", "", key).status == 302);
  CHECK(send(hub, "GET", "/api/datasets/lab/none/export", "", key).status == 404);
}

// ---- its owner ----------------------------------------------------------------------------------

TEST_CASE("a run is stopped, on the page or by a call, at its next epoch", "[local_hub]") {
  const home at;
  running_hub hub = start_platform(at);
  const bool on_page = GENERATE(true, false);
  const run of = start_run(hub);
  const httplib::Headers key = {{"Authorization", "Bearer " + platform_key}};
  const auto stop = [&] {
    if (on_page) return send(hub, "POST", "/api/models/" + of.id + "/stop", "{}").status;
    return send(hub, "DELETE", "/api/models/local/spirals/train/training", "", key).status;
  };
  CHECK(tell(hub, of.event("epoch_end", epoch(0, 0.5))).value().at("cancelled") == false);
  CHECK(stop() == 200);
  CHECK(stop() == 200);
  CHECK(shown(hub, of).at("state") == "stopping");
  hub.program->send(SIGKILL);
  hub.program->wait_for_end();
  hub = start_platform(at);
  CHECK(tell(hub, of.event("epoch_end", epoch(1, 0.25))).value().at("cancelled") == true);
  const json results = {{"metrics", json::object()}, {"bestEpoch", 1}, {"bestFitness", 0.75}};
  CHECK(tell(hub, of.event("training_complete",
                           {{"results", results}, {"classNames", nullptr}, {"plots", {}}}))
            .status == 200);
  CHECK(shown(hub, of).at("state") == "trained");
  CHECK(stop() == 409);
}

TEST_CASE("a run is deleted and brought back with everything", "[local_hub]") {
  const home at;
  running_hub hub = start_platform(at);
  const run of = start_run(hub);
  CHECK(tell(hub, of.event("epoch_end", epoch(0, 0.5))).status == 200);
  upload_to(hub, of, "weights");
  const std::string path = "/api/models/" + of.id;
  CHECK(send(hub, "POST", path + "/reset", "{}").status == 409);
  CHECK(send(hub, "PATCH", path, R"({"note": "the good one", "name": "renamed"})").status == 200);
  CHECK(send(hub, "DELETE", path).status == 200);
  CHECK(send(hub, "GET", path).status == 404);
  CHECK(tell(hub, of.event("epoch_end", epoch(1, 0.25))).status == 404);
  CHECK(send(hub, "POST", "/api/trash/" + of.id, "{}").status == 200);
  CHECK(tell(hub, of.event("epoch_end", epoch(1, 0.25))).status == 200);
  hub.stop();
  hub = start_platform(at);
  const json run = shown(hub, of);
  CHECK(run.at("epoch") == 2);
  CHECK(run.at("note") == "the good one");
  CHECK(run.at("name") == "renamed");
  CHECK(run.at("checkpoints").size() == 1);
  CHECK(run.at("run").at("name") == "train");
}

TEST_CASE("each key opens what it is for, on either wire", "[local_hub]") {
  const home at;
  const running_hub hub = start_platform(at);
  const run of = start_run(hub);
  const made_model model = make(hub, "mine");
  const std::string account = "/api/account/summary";
  const auto status = [&](const httplib::Headers& headers) {
    return send(hub, "GET", account, "", headers).status;
  };
  CHECK(send(hub, "GET", account, "", {{"Authorization", "Bearer " + platform_key}})
            .value()
            .at("username") == "local");
  CHECK(status({{"Authorization", "Bearer ul" + platform_key.substr(3)}}) == 200);
  CHECK(status({{"Authorization", "Bearer " + model.key}}) == 403);
  CHECK(status({{"Authorization", "Bearer " + bad_key}}) == 401);
  CHECK(status({}) == 401);
  const httplib::Headers owner = {{"x-api-key", platform_key}};
  CHECK(send(hub, "GET", "/v1/models/" + model.id, "", owner).status == 200);
  CHECK(send(hub, "GET", "/v1/models/" + of.id, "", owner).status == 404);  // a run is none
  const json refused = send(hub, "GET", "/api/refused").value().at("refused");
  CHECK(refused.size() == 4);
  CHECK_FALSE(contains(refused.dump(), platform_key));
}

}  // namespace

}  // namespace local_hub_platform_tests
