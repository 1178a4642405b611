// SPDX-License-Identifier: MIT
//
// Replays two recordings of the original Python session (tests/data/*.jsonl, one JSON object per
// request): what the protocol builds must mean the same to a HUB server.
//
// Two differences are intended, and stand below where they are met:
//   - the agent is named after this library, not after Python;
//   - for a file that is missing, the original sends the form without a file; we send nothing.

#include <array>
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
#include "support/sha256.hpp"
#include "support/text.hpp"

namespace wire_tests {

#if !defined(HUB_SESSION_TEST_DATA)
#error "define HUB_SESSION_TEST_DATA as the path of tests/data"
#endif

namespace {

using namespace hub::text;
using namespace hub::protocols;
using namespace hub::hub_v1_wire;
using namespace hub::storage_host;
using namespace hub::machine;
using namespace hub::storage_host;
using namespace hub::machine;
using nlohmann::json;

const std::string root = "https://hub.example.org";
const std::string id = "abcdefghij0123456789";
const caller session_caller{root, std::string(42, 'k'), {}, id};
const caller resume_caller{root, "savedkey", {}, id};

std::vector<json> recording(const std::string& name) {
  std::ifstream file(std::string(HUB_SESSION_TEST_DATA) + "/" + name);
  std::vector<json> out;
  for (std::string line; std::getline(file, line);) out.push_back(json::parse(line));
  REQUIRE_FALSE(out.empty());
  return out;
}

// ---- the recorded side ----------------------------------------------------------------------

std::string text_of(const json& record, const char* name) {
  return record.at(name).get<std::string>();
}

std::optional<std::string> recorded_header(const json& record, const char* name) {
  const json& headers = record.at("headers");
  if (!headers.contains(name)) return std::nullopt;
  return headers.at(name).get<std::string>();
}

// What follows "boundary=" in a content type.
std::string boundary_of(const std::string& content_type) {
  const std::size_t at = content_type.find("boundary=");
  REQUIRE(at != std::string::npos);
  return content_type.substr(at + 9);
}

std::string boundary_of(const json& record) {
  return boundary_of(*recorded_header(record, "content-type"));
}

// ---- our side -------------------------------------------------------------------------------

std::optional<std::string> sent_header(const hub::request& what, std::string_view name) {
  for (const auto& [sent_name, value] : what.headers)
    if (sent_name == name) return value;
  return std::nullopt;
}

struct part {
  std::vector<std::string> headers = {};
  std::string body = {};
};

// Takes a multipart body apart as RFC 2046 has it.
std::vector<part> parts_of(const std::string& body, const std::string& boundary) {
  const std::string delimiter = "\r\n--" + boundary;
  std::string rest = "\r\n" + body;
  std::vector<part> out;
  REQUIRE(rest.starts_with(delimiter));
  for (rest.erase(0, delimiter.size()); rest != "--\r\n"; rest.erase(0, delimiter.size())) {
    REQUIRE(rest.starts_with("\r\n"));
    const std::size_t end = rest.find(delimiter), blank = rest.find("\r\n\r\n");
    REQUIRE(end != std::string::npos);
    REQUIRE(blank < end);
    part found;
    for (std::size_t at = 2; at < blank + 2;) {
      const std::size_t line_end = rest.find("\r\n", at);
      found.headers.push_back(rest.substr(at, line_end - at));
      at = line_end + 2;
    }
    found.body = rest.substr(blank + 4, end - blank - 4);
    out.push_back(std::move(found));
    rest.erase(0, end);
  }
  return out;
}

// ---- comparison -----------------------------------------------------------------------------

void check_call(const json& record, const hub::request& what) {
  CHECK(what.method == text_of(record, "method"));
  CHECK(what.url == root + text_of(record, "path"));
  CHECK(sent_header(what, "x-api-key") == recorded_header(record, "x-api-key"));
  CHECK(sent_header(what, "authorization") == recorded_header(record, "authorization"));
}

void check_empty(const json& record, const hub::request& what) {
  check_call(record, what);
  CHECK(record.at("bytes") == 0);
  CHECK(what.body.empty());
  CHECK_FALSE(what.content);
  CHECK_FALSE(sent_header(what, "content-type"));
}

// An intended difference: the agent's name, and nothing else of the body.
void check_heartbeat(const json& record, const hub::request& what) {
  check_call(record, what);
  CHECK(sent_header(what, "content-type") == recorded_header(record, "content-type"));
  json sent = json::parse(what.body);
  CHECK(sent.at("agent") == "cpp-" HUB_SESSION_VERSION "-local");
  CHECK(record.at("json").at("agent") == "python-8.0.147-local");
  sent["agent"] = record.at("json").at("agent");
  CHECK((sent == record.at("json")));
}

// The epochs mean the same: each value is a string that holds the same JSON.
void check_metrics(const json& record, const hub::request& what) {
  check_call(record, what);
  CHECK(sent_header(what, "content-type") == recorded_header(record, "content-type"));
  const auto decoded = [](json body) {
    for (json& epoch : body.at("metrics")) epoch = json::parse(epoch.get<std::string>());
    return body;
  };
  CHECK((decoded(json::parse(what.body)) == decoded(record.at("json"))));
}

void check_upload(const json& record, const hub::request& what) {
  check_call(record, what);
  CHECK(sent_header(what, "content-type") == recorded_header(record, "content-type"));
  CHECK(what.body.empty());
  REQUIRE(what.content);
  const std::string body = *read_all(*what.content);
  const json& recorded = record.at("parts");
  const std::vector<part> sent = parts_of(body, boundary_of(*sent_header(what, "content-type")));
  REQUIRE(sent.size() == recorded.size());
  for (std::size_t i = 0; i < sent.size(); ++i) {
    CAPTURE(i);
    const json& wanted = recorded.at(i);
    CHECK(wanted.at("type").is_null());  // so the disposition is the part's only header
    CHECK(sent[i].headers ==
          std::vector<std::string>{"Content-Disposition: " + text_of(wanted, "disposition")});
    CHECK(sent[i].body.size() == wanted.at("bytes").get<std::size_t>());
    if (wanted.contains("text")) CHECK(sent[i].body == text_of(wanted, "text"));
    if (wanted.contains("sha256")) CHECK(sha256(sent[i].body) == text_of(wanted, "sha256"));
  }
  // With the original's boundary it is the original's body, byte for byte.
  CHECK(body.size() == record.at("bytes").get<std::size_t>());
  CHECK(sha256(body) == text_of(record, "sha256"));
}

// ---- what the recorded training did ---------------------------------------------------------

std::string agent() { return "cpp-" HUB_SESSION_VERSION "-local"; }

std::shared_ptr<hub::body_source> last_pt() {
  return std::make_shared<memory_body>(std::string(1000, 'L'));
}
std::shared_ptr<hub::body_source> best_pt() {
  return std::make_shared<memory_body>(std::string(2000, 'B'));
}

hub::queued_epoch recorded_epoch(int epoch) {
  std::vector<std::pair<std::string, double>> values = {
      {"train/box_loss", 1.5}, {"train/cls_loss", 2.25}, {"metrics/mAP50-95(B)", 0.123456789}};
  if (epoch == 0) {
    values.emplace_back("model/parameters", 3157200);
    values.emplace_back("model/GFLOPs", 8.858);
    values.emplace_back("model/speed_PyTorch(ms)", 1.234);
  }
  return {epoch, std::make_shared<const hub::epoch_record>(values)};
}

hub::request metrics_of(std::vector<int> epochs) {
  std::vector<hub::queued_epoch> batch;
  for (int epoch : epochs) batch.push_back(recorded_epoch(epoch));
  return metrics_request(session_caller, batch);
}

hub::request checkpoint_of(int epoch, const json& record) {
  return upload_request(session_caller, {.epoch = epoch, .is_best = true}, last_pt(),
                        boundary_of(record));
}

}  // namespace

TEST_CASE("the digest that the comparison rests on is SHA-256") {
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_CASE("a whole run of the original is said again, request by request") {
  const std::vector<json> records = recording("original_session.jsonl");
  REQUIRE(records.size() == 12);
  check_empty(records[0], auth_request(session_caller));
  check_empty(records[1], model_request(session_caller));
  check_heartbeat(records[2], heartbeat_request(session_caller, agent(), ""));
  check_metrics(records[3], metrics_of({0}));
  check_upload(records[4], checkpoint_of(0, records[4]));
  check_upload(records[5], checkpoint_of(1, records[5]));
  check_metrics(records[6], metrics_of({1}));
  check_heartbeat(records[7], heartbeat_request(session_caller, agent(), "agent-1"));
  check_metrics(records[8], metrics_of({2}));
  check_upload(records[9], checkpoint_of(2, records[9]));
  check_heartbeat(records[10], heartbeat_request(session_caller, agent(), "agent-1"));
  check_upload(records[11],
               upload_request(session_caller, {.epoch = 2, .is_final = true, .map = 0.123456789},
                              best_pt(), boundary_of(records[11])));
}

TEST_CASE("metrics are even written as the original writes them") {
  const std::vector<json> records = recording("original_session.jsonl");
  for (const auto& [at, epoch] :
       {std::pair(std::size_t{3}, 0), {std::size_t{6}, 1}, {std::size_t{8}, 2}}) {
    CHECK(metrics_of({epoch}).body.size() == records[at].at("bytes").get<std::size_t>());
    CHECK(sha256(metrics_of({epoch}).body) == text_of(records[at], "sha256"));
  }
}

TEST_CASE("epochs that wait together mean what the original says one by one") {
  json wanted = {{"metrics", json::object()}, {"type", "metrics"}};
  for (const json& record : recording("original_session.jsonl"))
    if (record.contains("json") && record.at("json").contains("metrics"))
      wanted["metrics"].update(record.at("json").at("metrics"));
  REQUIRE(wanted["metrics"].size() == 3);
  CHECK((json::parse(metrics_of({0, 1, 2}).body) == wanted));
}

TEST_CASE("a resumed run of the original is said again, but for its uploads of no file") {
  const std::vector<json> records = recording("original_resume.jsonl");
  REQUIRE(records.size() == 4);
  // The key is the saved one, so that there is no sign-in.
  check_empty(records[0], model_request(resume_caller));
  check_heartbeat(records[1], heartbeat_request(resume_caller, agent(), ""));

  // An intended difference: the original sends a form without a file. We have no body to send
  // without one, and with one the form is the recorded form and the file.
  const std::array<hub::upload_fields, 2> fields = {
      hub::upload_fields{.epoch = 7, .is_best = false}, {.epoch = 7, .is_final = true, .map = 0.5}};
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const json& record = records[2 + i];
    const auto missing = hub::machine::file_source::open("no/such/file.pt");
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == hub::errc::file_error);
    CHECK(contains(missing.error().message, "so it is not uploaded"));

    const hub::request what =
        upload_request(resume_caller, fields[i], last_pt(), boundary_of(record));
    check_call(record, what);
    const std::vector<part> sent = parts_of(*read_all(*what.content), boundary_of(record));
    REQUIRE(sent.size() == record.at("parts").size() + 1);
    for (std::size_t at = 0; at + 1 < sent.size(); ++at) {
      const json& wanted = record.at("parts").at(at);
      CHECK(sent[at].headers ==
            std::vector<std::string>{"Content-Disposition: " + text_of(wanted, "disposition")});
      CHECK(sent[at].body == text_of(wanted, "text"));
    }
  }
}

}  // namespace wire_tests
