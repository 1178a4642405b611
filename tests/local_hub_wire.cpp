// SPDX-License-Identifier: MIT
//
// What trainings send to local_hub, as Python's clients were recorded to send it, and what it makes
// of the parts that are no JSON, no epoch or no key.

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/local_hub.hpp"
#include "support/programs.hpp"
#include "support/sha256.hpp"

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace local_hub_wire_tests {

#if !defined(HUB_SESSION_TEST_DATA)
#error "define HUB_SESSION_TEST_DATA as the path of tests/data"
#endif

namespace {

using namespace hub_test;

// ---- Python's clients ---------------------------------------------------------------------------

std::vector<json> recorded(const std::string& name) {
  std::ifstream recording(std::string(HUB_SESSION_TEST_DATA) + '/' + name);
  std::vector<json> requests;
  for (std::string line; std::getline(recording, line);) requests.push_back(json::parse(line));
  REQUIRE_FALSE(requests.empty());
  return requests;
}

struct recorded_body {
  std::string text;
  bool has_file = false;
};

// Files are not in a recording: they are one letter, as often as they are long.
recorded_body form_of(const json& request) {
  const std::string type = request.at("headers").at("content-type");
  const std::string edge = "--" + type.substr(type.find("boundary=") + 9);
  recorded_body out;
  for (const json& part : request.at("parts")) {
    const std::string disposition = part.at("disposition");
    std::string content = part.value("text", "");
    if (contains(disposition, "filename=")) {
      out.has_file = true;
      content.assign(part.at("bytes"), contains(disposition, "best.pt") ? 'B' : 'L');
      CHECK(sha256(content) == part.at("sha256"));
    }
    out.text += edge + "\r\nContent-Disposition: " + disposition + "\r\n\r\n" + content + "\r\n";
  }
  out.text += edge + "--\r\n";
  return out;
}

// Sends a recorded request again; returns whether it had a file.
bool replay(const running_hub& hub, const json& request) {
  httplib::Request what;
  what.method = request.at("method");
  what.path = request.at("path");
  for (const auto& header : request.at("headers").items())
    if (header.key() != "host" && header.key() != "content-length" && header.key() != "connection")
      what.headers.emplace(header.key(), header.value().get<std::string>());
  const recorded_body form = request.contains("parts") ? form_of(request) : recorded_body();
  what.body = request.contains("json") ? request.at("json").dump() : form.text;
  httplib::Client client("127.0.0.1", hub.port());
  const auto got = client.send(what);
  REQUIRE(got);
  INFO(what.method << ' ' << what.path << ": " << got->body);
  // Two uploads of a file that was not there carry none, and a HUB cannot keep one.
  CHECK(got->status == (request.contains("parts") && !form.has_file ? 400 : 200));
  return form.has_file;
}

struct recording {
  const char* file;
  const char* agent;
  int epoch;
  const char* state;
};

TEST_CASE("the recorded requests of Python's HUB clients are taken", "[local_hub]") {
  const home at;
  const std::string id = "abcdefghij0123456789";
  const recording of =
      GENERATE(recording{"original_session.jsonl", "python-8.0.147-local", 3, "trained"},
               recording{"original_resume.jsonl", "python-8.0.147-local", 0, "training"},
               recording{"later_session.jsonl", "python-3.11.2-local", 6, "trained"});
  CAPTURE(of.file);
  fs::create_directories(at.data / "models" / id);
  std::ofstream(at.data / "models" / id / "model.json")
      << json{{"id", id}, {"name", "recorded"}, {"data", "coco8.yaml"}};
  const std::vector<json> requests = recorded(of.file);
  // One client has a saved key that is shorter than any that this HUB would make.
  std::ofstream(at.data / "keys.json")
      << json{{"keys",
               {{{"name", "recorded"},
                 {"sha256", sha256(requests[0].at("headers").at("x-api-key").get<std::string>())},
                 {"made", "2026-07-31T12:00:00Z"}}}}};
  const running_hub hub = start_plain(at);
  std::size_t files = 0;
  for (const json& each : requests) files += replay(hub, each) ? 1 : 0;
  const json shown = send(hub, "GET", "/api/models/" + id).value();
  CHECK(shown.at("agent") == of.agent);
  CHECK(shown.at("checkpoints").size() == files);
  CHECK(shown.at("state") == of.state);
  CHECK(shown.at("epoch") == of.epoch);
}

TEST_CASE("a model is described for the first clients and for the later ones", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine", 7);
  const httplib::Headers key = {{"x-api-key", model.key}};
  const auto described = [&] {
    return send(hub, "GET", "/v1/models/" + model.id, "", key).value().at("data");
  };
  json about = described();
  CHECK(about.at("status") == "new");
  CHECK(about.at("epochs") == 7);
  for (const char* each : {"batch", "cache", "data", "device", "epochs", "imgsz", "patience"})
    CHECK(about.at("train_args").at(each) == about.at(each));
  CHECK(about.at("train_args").at("time").is_null());
  CHECK(about.at("has_last_weights") == false);
  CHECK(about.at("is_pretrained") == false);
  REQUIRE(upload(hub, model, 1, "weights").status == 200);
  about = described();
  CHECK(about.at("has_last_weights") == true);
  CHECK(about.at("has_best_weights") == false);
  CHECK(contains(about.at("resume").get<std::string>(), "/storage/"));
}

// ---- what Python writes for no number -----------------------------------------------------------

answer report_text(const running_hub& hub, const made_model& model, const json& epochs) {
  return send(hub, "POST", "/v1/models/" + model.id,
              json{{"type", "metrics"}, {"metrics", epochs}}.dump(), {{"x-api-key", model.key}});
}

TEST_CASE("NaN and Infinity are no values, and their epochs are kept", "[local_hub]") {
  const home at;
  running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  const json epochs = {
      {"0", R"({"a": 1.5, "b": 2})"},
      {"1", R"({"a": NaN, "b": -Infinity, "NaN\"": 3, "text": "Infinity \\\" NaN"})"},
      {"2", R"({"a": [NaN, Infinity], "b": 4})"}};
  CHECK(report_text(hub, model, epochs).status == 200);
  const auto check = [&] {
    const json shown = send(hub, "GET", "/api/models/" + model.id + "/metrics").value();
    CHECK(shown.at("epochs") == json{1, 2, 3});
    CHECK(shown.at("columns").at("a") == json{1.5, nullptr, nullptr});
    CHECK(shown.at("columns").at("b") == json{2, nullptr, 4});
    CHECK(shown.at("columns").at("NaN\"") == json{nullptr, 3, nullptr});
  };
  check();
  hub.stop();
  hub = start_plain(at);
  check();
  CHECK(contains(read_file(at.data / "models" / model.id / "metrics.jsonl"),
                 R"("Infinity \\\" NaN")"));
}

TEST_CASE("a final model without a number for its map is kept", "[local_hub]") {
  const home at;
  const std::string map = GENERATE("nan", "inf", "-inf", "null");
  running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  const std::string field = "--edge\r\nContent-Disposition: form-data; name=\"";
  const std::string form = field + "epoch\"\r\n\r\n3\r\n" + field + "type\"\r\n\r\nfinal\r\n" +
                           field + "map\"\r\n\r\n" + map + "\r\n" + field +
                           "best.pt\"; filename=\"best.pt\"\r\n\r\nweights\r\n--edge--\r\n";
  httplib::Client client("127.0.0.1", hub.port());
  const auto got =
      client.Post(("/v1/models/" + model.id + "/upload").c_str(), {{"x-api-key", model.key}}, form,
                  "multipart/form-data; boundary=edge");
  REQUIRE(got);
  CHECK(got->status == 200);
  const auto check = [&] {
    const json shown = send(hub, "GET", "/api/models/" + model.id).value();
    REQUIRE(shown.at("checkpoints").size() == 1);
    CHECK(shown.at("checkpoints")[0].at("map").is_null());
  };
  check();
  hub.stop();
  hub = start_plain(at);
  check();
}

TEST_CASE("what is no epoch is refused, wherever it comes from", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at, {"--api-key", good_key});
  const made_model model = make(hub, "mine");
  for (const char* epoch : {"-1", "2147483647", "1000000", "2147483648", "1.5", "x", ""}) {
    CAPTURE(epoch);
    CHECK(report_text(hub, model, {{"0", "{\"a\": 1}"}, {epoch, "{\"a\": 1}"}}).status == 400);
  }
  for (const int epoch : {-1, 1'000'000, 2'147'483'647})
    CHECK(upload(hub, model, epoch, "weights").status == 400);
  const auto create = [&](const json& epochs) {
    const json wanted = {{"config", {{"epochs", epochs}}},
                         {"dataset", {{"name", "coco8.yaml"}}},
                         {"lineage", {{"architecture", {{"name", "yolov8n"}}}}},
                         {"meta", {{"name", "x"}}}};
    return send(hub, "POST", "/v1/models", wanted.dump(), {{"x-api-key", good_key}}).status;
  };
  CHECK(create(-1) == 400);
  CHECK(create(2'000'000) == 400);
  const json shown = send(hub, "GET", "/api/models/" + model.id).value();
  CHECK(shown.at("epoch") == 0);
  CHECK(shown.at("state") == "new");
  CHECK(send(hub, "GET", "/api/models").value().at("models").size() == 1);
  CHECK(report(hub, model, 999'999, {{"a", 1}}).status == 200);
  CHECK(send(hub, "GET", "/api/models/" + model.id).value().at("epoch") == 1'000'000);
}

// ---- keys in other headers ----------------------------------------------------------------------

TEST_CASE("a gate's own login hides no key", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at, {"--api-key", good_key});
  const made_model model = make(hub, "mine");
  const std::string path = "/v1/models/" + model.id;
  const auto status = [&](const httplib::Headers& headers) {
    return send(hub, "GET", path, "", headers).status;
  };
  CHECK(status({{"x-api-key", good_key}, {"Authorization", "Basic bGFiOnNlY3JldA=="}}) == 200);
  CHECK(status({{"x-api-key", good_key}, {"Authorization", "Bearer a.gate's.token"}}) == 200);
  CHECK(status({{"Authorization", "Bearer " + good_key}}) == 200);
  CHECK(status({{"x-api-key", bad_key}, {"Authorization", "Bearer " + good_key}}) == 200);
  CHECK(status({{"x-api-key", bad_key}, {"Authorization", "Basic bGFiOnNlY3JldA=="}}) == 401);
  CHECK(status({{"Authorization", "Basic " + good_key}}) == 401);
}

}  // namespace

}  // namespace local_hub_wire_tests
