// SPDX-License-Identifier: MIT
//
// Replays two recordings of Python's Platform callbacks (tests/data/platform_session*.jsonl, one JSON
// object per request): what the protocol builds must mean the same to the Platform. Then the rules of
// names, keys, replies, curves and console lines, one by one.
//
// These differences are intended, and stand below where they are met:
//   - an empty line is no line: Python sends the line feed of each print as a line of its own;
//   - 8.4.53 names project and name beside the id; as in 8.4.120, we send them only without one;
//   - 8.4.53 sends no runId and no checkpoint_saved; as 8.4.120, we do.

#include <array>
#include <chrono>
#include <cstddef>
#include <fstream>
#include <limits>
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

namespace platform_wire_tests {

#if !defined(HUB_SESSION_TEST_DATA)
#error "define HUB_SESSION_TEST_DATA as the path of tests/data"
#endif

namespace {

using namespace hub::text;
using namespace hub::platform_wire;
using namespace std::chrono_literals;
using namespace std::string_literals;
using nlohmann::json;

const std::string key = "ul_0123456789abcdef0123456789abcdef01234567";
const std::string root = "http://127.0.0.1:8100";
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

std::vector<json> recording(const std::string& name) {
  std::ifstream file(std::string(HUB_SESSION_TEST_DATA) + "/" + name);
  std::vector<json> out;
  for (std::string line; std::getline(file, line);) out.push_back(json::parse(line));
  REQUIRE_FALSE(out.empty());
  return out;
}

std::optional<std::string> sent_header(const hub::request& what, std::string_view name) {
  for (const auto& [sent_name, value] : what.headers)
    if (sent_name == name) return value;
  return std::nullopt;
}

std::optional<std::string> recorded_header(const json& record, const char* name) {
  const json& headers = record.at("headers");
  if (!headers.contains(name)) return std::nullopt;
  return headers.at(name).get<std::string>();
}

std::string reply_of(const json& record) { return record.at("reply").dump(); }

// ---- the recorded training ------------------------------------------------------------------

hub::platform_run recorded_training() {
  return {.project = "lab/My Helmets",
          .name = "YOLO11n 640",
          .epochs = 5,
          .arguments = {{"task", "detect"},
                        {"model", "yolo11n.pt"},
                        {"data", "ul://lab/datasets/helmets"},
                        {"imgsz", "640"},
                        {"batch", "16"},
                        {"lr0", "0.01"},
                        {"device", "None"}},
          .device = "cpu"};
}

hub::queued_epoch recorded_epoch(int epoch, double rate) {
  constexpr std::array box = {1.5, 0.75, 0.5, 0.375, 0.3};
  constexpr std::array classes = {2.5, 1.25, 0.83333, 0.625, 0.5};
  constexpr std::array precision = {0.18, 0.324, 0.4392, 0.53136, 0.60509};
  constexpr std::array map = {0.126, 0.2268, 0.30744, 0.37195, 0.42356};
  const auto at = static_cast<std::size_t>(epoch);
  std::vector<std::pair<std::string, double>> values = {
      {"train/box_loss", box[at]},
      {"train/cls_loss", classes[at]},
      {"train/dfl_loss", 1.1},
      {"metrics/precision(B)", precision[at]},
      {"metrics/recall(B)", precision[at]},
      {"metrics/mAP50(B)", precision[at]},
      {"metrics/mAP50-95(B)", map[at]},
      {"val/box_loss", 1.2},
      {"val/cls_loss", at == 1 ? not_a_number : 1.3},
      {"val/dfl_loss", 1.0},
      {"lr", rate},
      {"fitness", map[at]},
      {"best_fitness", map[at]}};
  if (epoch == 0) {
    values.emplace_back("model/parameters", 3157200);
    values.emplace_back("model/GFLOPs", 8.858);
    values.emplace_back("model/speed_PyTorch(ms)", 1.9);
  }
  return {epoch, std::make_shared<const hub::epoch_record>(values)};
}

hub::training_results recorded_results() {
  hub::training_results out{.metrics = {{"metrics/precision(B)", 0.60509},
                                        {"metrics/recall(B)", 0.60509},
                                        {"metrics/mAP50(B)", 0.60509},
                                        {"metrics/mAP50-95(B)", 0.42356},
                                        {"val/box_loss", 1.2},
                                        {"val/cls_loss", 1.3},
                                        {"val/dfl_loss", 1.0}},
                            .best_epoch = 4,
                            .best_fitness = 0.42356,
                            .class_names = {"helmet", "head"}};
  out.plots.confusion_matrix = {{9, 1}, {2, 8}};
  std::vector<double> x, y;
  for (int i = 0; i <= 100; ++i) {
    x.push_back(i * 0.01);
    y.push_back(1 - i * 0.01);
  }
  out.plots.pr_curve = {.x = x, .y = {y, y}, .ap = {std::vector(10, 0.5), std::vector(10, 0.4)}};
  return out;
}

// ---- comparison -----------------------------------------------------------------------------

void check_call(const json& record, const hub::request& what) {
  CHECK(what.method == record.at("method").get<std::string>());
  CHECK(what.url == root + record.at("path").get<std::string>());
  CHECK(sent_header(what, "authorization") == recorded_header(record, "authorization"));
  CHECK(sent_header(what, "content-type") == recorded_header(record, "content-type"));
}

void check_same(const json& record, const hub::request& what) {
  check_call(record, what);
  CHECK(json::parse(what.body) == record.at("body"));
}

void check_put(const json& record, const hub::request& what) {
  check_call(record, what);
  REQUIRE(what.content);
  CHECK(*read_all(*what.content) == std::string(2000, 'B'));
  CHECK(std::to_string(what.content->size_bytes()) == recorded_header(record, "content-length"));
}

// An intended difference: what Python sends for the line feeds of its prints is left out.
json without_empty_lines(json body) {
  std::string content;
  int count = 0;
  const std::string text = body.at("data").at("content").get<std::string>() + "\n";
  for (std::size_t at = 0; at < text.size();) {
    const std::string line = text.substr(at, text.find('\n', at) - at);
    at += line.size() + 1;
    if (line.ends_with("] ")) continue;
    content += (count++ == 0 ? "" : "\n") + line;
  }
  body["data"]["content"] = content;
  body["data"]["lineCount"] = count;
  return body;
}

std::chrono::local_seconds at_clock(int seconds) {
  using namespace std::chrono;
  return local_days(year(2026) / 11 / 26) + 15h + 13min + std::chrono::seconds(seconds);
}

// What the program printed, chunk by chunk: when, and what.
using printed_text = std::vector<std::pair<int, std::string>>;
const std::array<printed_text, 3> printed = {
    {{{0, "Platform: View model at " + root + "/lab/my-helmets/yolo11n-640-2\n"},
      {0, "Epoch 1/5: box_loss 1.0\n"},
      {1, "Epoch 2/5: box_loss 1.0\n"}},
     {{2, "Epoch 3/5: box_loss 1.0\n"},
      {2, "Uploaded best.pt \u2705\n"},
      {3, "Epoch 4/5: box_loss 1.0\n"}},
     {{4, "Epoch 5/5: box_loss 1.0\n"}, {4, "Uploaded best.pt \u2705\n"}}}};

// Says one recording again, record by record.
class repetition {
 public:
  repetition(const json& first, int began_at) : began_at_(began_at) {
    run_ = *make_run(recorded_training(), *parse_roots(root, ""));
    run_.api_key = key;
    run_.environment = first.at("body").at("data").at("environment").dump();
  }

  const run& of() const { return run_; }

  void check(const json& record) {
    const json& body = record.at("body");
    const std::string event = body.is_object() ? body.value("event", "") : "";
    if (event == "training_started") {
      check_same(record, start_request(run_));
      const event_reply told = parse_event_reply(reply_of(record));
      run_.model_id = told.model_id;
      run_.run_id = told.run_id;
    } else if (event == "epoch_end") {
      check_epoch(record);
    } else if (event == "console_output") {
      check_console(record);
    } else if (event == "checkpoint_saved") {
      check_same(record, saved_request(run_, place_));
    } else if (event == "training_complete") {
      const ending_facts facts{
          .epoch = 4, .map = 0.42356, .model_path = place_.path, .model_bytes = 2000};
      check_same(record,
                 event_request(run_, event,
                               encode_completion(run_, encode_results(recorded_results()), facts)));
    } else if (body.is_object()) {
      check_same(record, upload_request(run_, {.epoch = 0, .is_best = true}));
      place_ = *parse_upload_place(reply_of(record), run_);
    } else {
      check_put(record, hub::storage_host::put_request(
                            place_.url, std::make_shared<memory_body>(std::string(2000, 'B'))));
    }
  }

  void check_end() const {
    CHECK(epochs_ == 6);  // the last one once more, after the final validation
    CHECK(chunks_ == printed.size());
  }

 private:
  void check_epoch(const json& record) {
    const json& data = record.at("body").at("data");
    const double rate = data.at("metrics").at("lr").get<double>();
    const hub::queued_epoch epoch = recorded_epoch(std::min(epochs_++, 4), rate);
    check_same(record,
               event_request(run_, "epoch_end", encode_epoch(epoch, data.at("system").dump())));
  }

  void check_console(json record) {
    std::string content;
    std::size_t lines = 0;
    for (const auto& [second, text] : printed.at(chunks_++))
      for (const std::string& line : console_.add(
               text, hub::time_point(std::chrono::seconds(second)), at_clock(began_at_ + second)))
        content += (lines++ == 0 ? "" : "\n") + line;
    record["body"] = without_empty_lines(record.at("body"));
    check_same(record,
               event_request(run_, "console_output", encode_console(chunks_, content, lines)));
  }

  run run_;
  int began_at_;
  console_lines console_;
  upload_place place_;
  int epochs_ = 0;
  std::size_t chunks_ = 0;
};

}  // namespace

// ---- the recordings -------------------------------------------------------------------------

TEST_CASE("a run of Python's 8.4.120 on the Platform is said again, request by request") {
  const std::vector<json> records = recording("platform_session.jsonl");
  REQUIRE(records.size() == 20);
  repetition ours(records[0], 40);
  for (const json& record : records) {
    CAPTURE(record.dump());
    ours.check(record);
  }
  ours.check_end();
}

TEST_CASE("a run of Python's 8.4.53 is said again in the words of 8.4.120") {
  const std::vector<json> records = recording("platform_session_8_4_53.jsonl");
  REQUIRE(records.size() == 17);
  repetition ours(records[0], 46);
  for (json record : records) {
    CAPTURE(record.dump());
    json& body = record.at("body");
    if (!ours.of().model_id.empty() && body.is_object()) {
      CHECK(body.erase("project") == 1);
      CHECK(body.erase("name") == 1);
      if (body.contains("filename")) body["runId"] = ours.of().run_id;
      if (body.value("event", "") == "training_complete") body["data"]["runId"] = ours.of().run_id;
    }
    ours.check(record);
  }
  ours.check_end();
}

// ---- names, keys and addresses --------------------------------------------------------------

TEST_CASE("a name becomes what stands in an address, and nothing else of it stays") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"My Helmets", "my-helmets"},
      {"YOLO11n 640", "yolo11n-640"},
      {"a_b.c", "abc"},
      {"  a \t b  ", "a-b"},
      {"--a--b--", "a-b"},
      {"a - b", "a-b"},
      {"Gr\u00f6\u00dfe", "gre"},
      {"\u7f51", ""},
      {"_", ""},
      {"", ""},
      {std::string(200, 'x'), std::string(128, 'x')},
      {std::string(127, 'x') + " y", std::string(127, 'x')},
      {"a\0b"s, "ab"}};
  for (const auto& [name, wanted] : cases) {
    CAPTURE(name);
    CHECK(slug(name) == wanted);
    CHECK(slug(wanted) == wanted);
  }
}

TEST_CASE("a project keeps its owner, and what has nothing left of it is an error that says so") {
  CHECK(*parse_project("lab/My Helmets") == "lab/my-helmets");
  CHECK(*parse_project("My Helmets") == "my-helmets");
  CHECK(*parse_project("Lab/a/b") == "Lab/ab");
  for (const char* bad : {"", "/", "lab/", "/helmets", "la b/helmets", "../helmets", "___"}) {
    CAPTURE(bad);
    const auto project = parse_project(bad);
    REQUIRE_FALSE(project);
    CHECK(project.error().code == hub::errc::invalid_identifier);
    CHECK(contains(project.error().message, "Give it"));
  }
  const auto unnamed = make_run({.project = "helmets"}, *parse_roots("", ""));
  REQUIRE(unnamed);
  CHECK(unnamed->name == "train");
  CHECK_FALSE(make_run({.project = "helmets", .name = "\u7f51"}, *parse_roots("", "")));
}

TEST_CASE("a key of the Platform is told from one of the old HUB, and neither is shown") {
  CHECK_FALSE(check_key(key));
  CHECK_FALSE(check_key("ul_ABCDEFABCDEF0123456789012345678901234567"));
  const std::string old_key = "Zq7Xk2Vw9Jr4Hy6Tn8Qb3Gx5Wd1Kz0Mv7Pf2Yj4Lc8";
  REQUIRE(old_key.size() == 42);
  CHECK(contains(check_key(old_key)->message, "a key of the old HUB"));
  CHECK(check_key("")->code == hub::errc::not_authenticated);
  for (const std::string& bad :
       {old_key, key.substr(1), key + "0", "ul_" + std::string(40, 'g'), key + "\r\n"}) {
    const auto why = check_key(bad);
    REQUIRE(why);
    CHECK(why->code == hub::errc::invalid_credentials);
    CHECK(contains(why->message, "begins with 'ul_'"));
    CHECK_FALSE(contains(why->message, bad.substr(3, 8)));
  }
}

TEST_CASE("a key where a name should be is neither sent nor shown") {
  for (const auto& refused :
       {parse_project(key), parse_project("lab/a " + key), parse_project(key + "/helmets")}) {
    REQUIRE_FALSE(refused);
    CHECK_FALSE(contains(refused.error().message, key.substr(3, 8)));
  }
  CHECK_FALSE(contains(parse_resource("ul://" + key, root).error().message, key.substr(3, 8)));
  CHECK(*parse_project("ul_helmets") == "ulhelmets");
}

TEST_CASE("the webhooks lie beside the pages, or where they are said to") {
  CHECK(parse_roots("", "")->web == "https://platform.ultralytics.com");
  CHECK(parse_roots("", "")->webhooks == "https://platform.ultralytics.com/api/webhooks");
  CHECK(parse_roots("http://h:1/p/", "")->webhooks == "http://h:1/p/api/webhooks");
  CHECK(parse_roots("", "https://hooks.test/")->webhooks == "https://hooks.test");
  CHECK(parse_roots("", "https://hooks.test/")->web == "https://platform.ultralytics.com");
  CHECK(parse_roots("", "http://h:1/p/api/webhooks/")->web == "http://h:1/p");
  CHECK(parse_roots("https://pages.test", "http://h:1/api/webhooks")->web == "https://pages.test");
  CHECK_FALSE(parse_roots("platform", ""));
  CHECK_FALSE(parse_roots("", "ftp://hooks.test"));
}

TEST_CASE("a resource is read from ul:// and from a page, and nothing else") {
  const std::string web = "https://platform.test";
  for (const char* text : {"ul://lab/helmets/train-2", "https://platform.test/lab/helmets/train-2",
                           "https://platform.test/lab/helmets/train-2/?tab=charts#top"}) {
    const auto model = parse_resource(text, web);
    REQUIRE(model);
    CHECK_FALSE(model->is_dataset);
    CHECK(model->owner + "/" + model->project + "/" + model->name == "lab/helmets/train-2");
  }
  const auto dataset = parse_resource("ul://lab/datasets/coco8", web);
  REQUIRE(dataset);
  CHECK(dataset->is_dataset);
  CHECK(dataset->owner + "/" + dataset->name == "lab/coco8");
  for (const char* bad :
       {"", "ul://", "ul://lab", "ul://lab/helmets", "ul://lab//train", "ul://lab/a/b/c",
        "ul://lab/../train", "ul://l b/a/b", "https://elsewhere.test/lab/helmets/train",
        "https://platform.test.evil/lab/helmets/train", "lab/helmets/train"}) {
    CAPTURE(bad);
    REQUIRE_FALSE(parse_resource(bad, web));
    CHECK(parse_resource(bad, web).error().code == hub::errc::invalid_identifier);
  }
  CHECK_FALSE(contains(parse_resource("ul://lab?sig=secret", web).error().message, "secret"));
}

TEST_CASE("a resource is asked for in the newest way and in the older one, always with the key") {
  run of{.at = *parse_roots("https://p.test", ""), .api_key = key};
  const resource model{.owner = "lab", .project = "helmets", .name = "train"};
  const resource dataset{.is_dataset = true, .owner = "lab", .name = "coco8"};
  CHECK(resource_request(of, model).method == "GET");
  CHECK(resource_request(of, model).url == "https://p.test/api/models/lab/helmets/train/files");
  CHECK(resource_request(of, dataset).url == "https://p.test/api/datasets/lab/coco8/export");
  CHECK(older_resource_request(of, model).method == "HEAD");
  CHECK(older_resource_request(of, model).url ==
        "https://p.test/api/webhooks/models/lab/helmets/train/download");
  CHECK(older_resource_request(of, dataset).url ==
        "https://p.test/api/webhooks/datasets/lab/coco8/export");
  CHECK(sent_header(older_resource_request(of, model), "authorization") == "Bearer " + key);

  const std::string files =
      R"({"files": [{"name": "last.pt", "downloadUrl": "https://s/l"}, {"name": "args.yaml",
          "downloadUrl": "https://s/a"}, 7,
          {"name": "best.pt", "size": 1, "downloadUrl": "https://s/b"}]})";
  CHECK(*parse_resource_reply(files, model) == "https://s/b");
  CHECK(*parse_resource_reply(R"({"files": []})", model) == "");
  CHECK_FALSE(parse_resource_reply(R"({"files": "none"})", model));
  CHECK(*parse_resource_reply(R"({"downloadUrl": "https://s/d"})", dataset) == "https://s/d");
  CHECK_FALSE(parse_resource_reply("[]", dataset));
  CHECK(*parse_older_resource_reply({.status = 302, .location = "https://s/x?sig=1"}) ==
        "https://s/x?sig=1");
  CHECK_FALSE(parse_older_resource_reply({.status = 302}));
  CHECK_FALSE(parse_older_resource_reply({.status = 200, .location = "https://s/x"}));
}

// ---- what is sent ---------------------------------------------------------------------------

TEST_CASE("arguments are text as Python prints it, and the program's own win") {
  const json start = json::parse(encode_start({.project = "lab/Helmets",
                                               .epochs = 3,
                                               .arguments = {{"epochs", "auto"}, {"a\"b", "\xff"}},
                                               .resume = true}));
  CHECK(start.at("trainArgs") == json({{"project", "lab/Helmets"},
                                       {"epochs", "auto"},
                                       {"resume", "True"},
                                       {"a\"b", "\ufffd"}}));
  CHECK(start.at("epochs") == 3);
  CHECK_FALSE(start.contains("device"));
  CHECK_FALSE(start.contains("environment"));
  CHECK_FALSE(json::parse(encode_start({.project = "a"})).contains("epochs"));
}

TEST_CASE("numbers that are not finite become null in every event") {
  const std::vector<std::pair<std::string, double>> values = {
      {"train/loss", infinity}, {"fitness", not_a_number}, {"model/GFLOPs", -infinity}};
  const json epoch =
      json::parse(encode_epoch({7, std::make_shared<const hub::epoch_record>(values)}, ""));
  CHECK(epoch == json::parse(R"({"epoch": 7, "metrics": {"train/loss": null}, "fitness": null,
                                 "modelInfo": {"gflops": null}})"));
  hub::training_results results{.metrics = {{"val/loss", not_a_number}}, .best_fitness = infinity};
  results.plots.confusion_matrix = {{not_a_number}};
  const json end = json::parse(encode_completion({}, encode_results(results), {.epoch = 2}));
  CHECK(end.at("results").at("metrics") == json({{"val/loss", nullptr}, {"fitness", nullptr}}));
  CHECK(end.at("results").at("bestFitness").is_null());
  CHECK(end.at("plots").at(0).at("matrix") == json::parse("[[null]]"));
}

TEST_CASE("an end of which the program says nothing still says what is known") {
  const json end = json::parse(encode_completion({}, {}, {.epoch = 9, .map = 0.5}));
  CHECK(end == json::parse(R"({"results": {"metrics": {"fitness": 0.5}, "bestEpoch": 9,
                               "bestFitness": 0.5}, "classNames": null, "plots": []})"));
}

TEST_CASE("a run is named by its id once it has one, and by its names until then") {
  run of{.project = "lab/helmets", .name = "train"};
  CHECK(json::parse(event_request(of, "epoch_end", "{}").body) ==
        json::parse(R"({"event": "epoch_end", "data": {}, "project": "lab/helmets",
                        "name": "train"})"));
  CHECK(json::parse(upload_request(of, {.is_final = true}).body) ==
        json::parse(R"({"filename": "best.pt", "project": "lab/helmets", "name": "train"})"));
  of.model_id = "65f0c0ffee0123456789abcd";
  CHECK(json::parse(upload_request(of, {.is_best = false}).body) ==
        json::parse(R"({"filename": "last.pt", "modelId": "65f0c0ffee0123456789abcd"})"));
}

TEST_CASE("the machine's figures go under the names that their own event has") {
  const json figures = json::parse(
      encode_system(R"({"cpu": 1.5, "ram": 2, "disk": [], "disk_io": {"read_mbs": 1}, "x": 1})"));
  CHECK(figures ==
        json::parse(R"({"cpu": 1.5, "memory": 2, "disk": [], "diskIo": {"read_mbs": 1}})"));
  CHECK(encode_system("") == "{}");
}

TEST_CASE("a run survives a spool, all but its key, and what is no run is none") {
  run of = *make_run({.project = "lab/helmets", .name = "n"}, *parse_roots("http://h:1", ""));
  of.api_key = key;
  of.environment = R"({"cpuCount": 8})";
  of.model_id = "65f0c0ffee0123456789abcd";
  of.run_id = "run_7";
  of.page = "http://h:1/lab/helmets/n-2";
  const std::string text = encode_run(of);
  CHECK_FALSE(contains(text, key));
  const auto again = parse_run(text);
  REQUIRE(again);
  CHECK(again->api_key.empty());
  CHECK(encode_run(*again) == text);
  CHECK(again->registration == of.registration);
  CHECK(again->environment == of.environment);
  for (const char* bad : {"", "{}", "[]", R"({"web": "http://h", "project": "A B", "name": "n",
                                              "registration": {}})"})
    CHECK_FALSE(parse_run(bad));
}

// ---- curves and validation ------------------------------------------------------------------

TEST_CASE("a curve of too many points is drawn through 101 of its places, from end to end") {
  std::vector<double> line;
  for (int i = 0; i < 1000; ++i) line.push_back(i / 999.0);
  const std::vector<double> fewer = resample(line);
  REQUIRE(fewer.size() == 101);
  CHECK(fewer.front() == 0.0);
  CHECK(fewer.back() == 1.0);
  for (std::size_t i = 0; i < fewer.size(); ++i)
    CHECK(fewer[i] == Approx(static_cast<double>(i) / 100));
  CHECK(resample(std::vector(101, 0.1)) == std::vector(101, 0.1));
  CHECK(resample({}).empty());
  std::vector<double> gap(201, 1.0);
  gap[101] = not_a_number;  // between two of the places, and so not taken for either
  for (double value : resample(gap)) CHECK(value == 1.0);
}

TEST_CASE("a curve whose rows do not fit is left out and named; the others are sent") {
  hub::training_results results;
  results.plots.pr_curve = {.x = {0, 1}, .y = {{1, 0}, {1}}};
  results.plots.f1_curve = {.x = {0, 1}, .y = {{1, 0}}};
  results.plots.recall_curve = {.y = {{}}};
  CHECK(results_problem(results) ==
        "pr_curve: row 1 has 1 points over the 2 of x; recall_curve: it has no points");
  CHECK(json::parse(encode_plots(results.plots)) ==
        json::parse(R"([{"type": "f1_curve", "x": [0, 1], "y": [[1, 0]]}])"));
  CHECK(results_problem({}) == "");
}

TEST_CASE("validation rows are ranked by F1, and of too many a sample from end to end is sent") {
  std::vector<hub::validation_row> all;
  for (unsigned i = 0; i < 12'000; ++i)
    all.push_back({"i" + std::to_string(i) + ".jpg", i, 12'000 - i, 0});
  const json many = json::parse(encode_validation(all));
  CHECK(many.at("population") == 12'000);
  CHECK(many.at("sampling") == "f1_rank");
  CHECK(many.at("rows").size() == 5000);
  CHECK(many.at("rows").at(0) == json::parse(R"(["i0.jpg", 0, 12000, 0])"));
  CHECK(many.at("rows").at(4999).at(0) == "i11999.jpg");
  CHECK(many.at("extremes").at("worst").size() == 100);
  CHECK(many.at("extremes").at("best").at(0).at(0) == "i11999.jpg");

  const json few = json::parse(encode_validation({{"empty.jpg"}, {"bad.jpg", 0, 0, 1}}));
  CHECK(few.at("rows") == json::parse(R"([["bad.jpg", 0, 0, 1], ["empty.jpg", 0, 0, 0]])"));
  CHECK(few.at("extremes").at("best").at(0).at(0) == "empty.jpg");
}

// ---- what is read ---------------------------------------------------------------------------

TEST_CASE("a reply's members are taken where they are what they should be, and no others matter") {
  const event_reply told = parse_event_reply(
      R"({"received": true, "cancelled": true, "modelId": "65f0c0ffee0123456789abcd", "runId": "run_7",
          "modelSlug": "train-2", "modelUrl": "https://p.test/lab/helmets/train-2?token=secret",
          "warnings": ["the disk is nearly full", 3], "warning": "old client", "more": [1]})");
  CHECK(told.received);
  CHECK(told.cancelled);
  CHECK(told.model_id == "65f0c0ffee0123456789abcd");
  CHECK(told.run_id == "run_7");
  CHECK(told.slug == "train-2");
  CHECK(told.page == "https://p.test/lab/helmets/train-2");
  CHECK(told.warning == "old client; the disk is nearly full");

  constexpr const char* of_other_types =
      R"({"cancelled": "true", "modelId": 7, "runId": "a b", "modelSlug": "../..",
          "modelUrl": "javascript:alert", "warnings": {"a": 1}})";
  for (const char* odd : {"", "[]", "null", "{", of_other_types}) {
    CAPTURE(odd);
    const event_reply none = parse_event_reply(odd);
    CHECK(none.received);
    CHECK_FALSE(none.cancelled);
    CHECK(none.model_id + none.run_id + none.slug + none.page + none.warning == "");
  }
  CHECK_FALSE(parse_event_reply(R"({"received": false})").received);
}

TEST_CASE("what a reply to an event comes to, with the Platform's words and its wish to stop") {
  event_reply told;
  const auto come_to = [&](int status, std::string body) {
    return judge_event({.status = status, .body = std::move(body)}, "epoch 3", {}, told);
  };
  CHECK(come_to(200, R"({"received": true, "cancelled": false})").verdict ==
        hub::verdict::delivered);
  CHECK(come_to(204, "").verdict == hub::verdict::delivered);
  CHECK(come_to(200, R"({"cancelled": true})").cancelled);
  CHECK(come_to(409, R"({"error": "stopped", "cancelled": true})").cancelled);
  CHECK(come_to(200, "<!doctype html>").verdict == hub::verdict::retry);
  CHECK(come_to(200, R"({"received": false})").verdict == hub::verdict::retry);
  // Who was cancelled is not listened to any more, and need not come again.
  CHECK(come_to(200, R"({"received": false, "cancelled": true})").verdict ==
        hub::verdict::delivered);
  const hub::outcome limited = come_to(429, R"({"error": "slow down", "retryAfter": 40})");
  CHECK(limited.verdict == hub::verdict::retry);
  CHECK(limited.retry_after == 40s);
  CHECK(limited.why.message ==
        "The Platform answered 429 to epoch 3 (\"slow down\"). It wants fewer requests; they go on "
        "more slowly.");
}

TEST_CASE("a registration needs an id in its reply, and is tried again without one") {
  event_reply told;
  const auto come_to = [&](std::string body) {
    return judge_start({.status = 200, .body = std::move(body)}, {}, told).verdict;
  };
  CHECK(come_to(R"({"modelId": "65f0c0ffee0123456789abcd"})") == hub::verdict::delivered);
  CHECK(told.model_id == "65f0c0ffee0123456789abcd");
  for (const char* body : {"", "{}", R"({"received": true, "modelI)", R"({"modelId": 7})"})
    CHECK(come_to(body) == hub::verdict::retry);
}

TEST_CASE("a page is the reply's own, else it is made of its names") {
  run of{.at = *parse_roots("https://p.test", ""), .project = "lab/helmets", .name = "train"};
  CHECK(page_of(of, {}) == "https://p.test/lab/helmets/train");
  CHECK(page_of(of, {.slug = "train-2"}) == "https://p.test/lab/helmets/train-2");
  CHECK(page_of(of, {.slug = "train-2", .page = "https://p.test/x"}) == "https://p.test/x");
}

TEST_CASE("the wait that a refusal asks for stands in its header or in its body") {
  const auto wait = [](std::string header, std::string body) {
    return retry_after_of(
        {.status = 429, .body = std::move(body), .retry_after = std::move(header)}, {});
  };
  CHECK(wait("7", "") == 7s);
  CHECK(wait("7", R"({"retryAfter": 30})") == 7s);
  CHECK(wait("", R"({"retryAfter": 30, "resetAt": "2026-11-26T15:13:40Z"})") == 30s);
  CHECK(wait("soon", R"({"retryAfter": "31"})") == 31s);
  CHECK(wait("", R"({"retryAfter": 1.9})") == 1s);
  CHECK_FALSE(wait("", R"({"retryAfter": -1})"));
  CHECK_FALSE(wait("", R"({"retryAfter": [3]})"));
  CHECK_FALSE(wait("", "<html>"));
}

TEST_CASE(
    "an upload's place is read, kept without its URL, and never plain where the server is not") {
  const run safe{.at = *parse_roots("https://p.test", "")};
  const run plain{.at = *parse_roots("http://p.test", "")};
  const std::string body =
      R"({"uploadUrl": "https://s.test/u1?sig=secret", "gcsPath": "gs://b/u1", "uploadPath": "u1"})";
  const auto place = parse_upload_place(body, safe);
  REQUIRE(place);
  CHECK(parse_place(encode_place(*place, true)).url == "https://s.test/u1?sig=secret");
  CHECK_FALSE(contains(encode_place(*place, false), "secret"));
  CHECK(parse_place(encode_place(*place, false)).path == "gs://b/u1");
  CHECK(parse_place("no memo").url.empty());

  const std::string unsafe = R"({"uploadUrl": "http://s.test/u1?sig=secret"})";
  REQUIRE_FALSE(parse_upload_place(unsafe, safe));
  CHECK_FALSE(contains(parse_upload_place(unsafe, safe).error().message, "secret"));
  CHECK(parse_upload_place(unsafe, plain));
  for (const char* bad : {"", "[]", "{}", R"({"uploadUrl": 3})", R"({"uploadUrl": "gs://b/u1"})"})
    CHECK_FALSE(parse_upload_place(bad, plain));
}

TEST_CASE("a file's storage host gets no key, and a URL that has expired is asked for anew") {
  const auto file = std::make_shared<memory_body>(std::string(3, 'B'));
  const hub::request put = hub::storage_host::put_request("https://s.test/u1?sig=1", file);
  CHECK_FALSE(sent_header(put, "authorization"));
  CHECK_FALSE(sent_header(put, "x-api-key"));
  const auto verdict_of = [](int status) {
    return hub::storage_host::judge_put({.status = status}, "s.test", {}).verdict;
  };
  for (int status : {400, 401, 403, 404, 410}) CHECK(verdict_of(status) == hub::verdict::restart);
  for (int status : {408, 429, 500, 503}) CHECK(verdict_of(status) == hub::verdict::retry);
  CHECK(verdict_of(413) == hub::verdict::rejected);
  CHECK(verdict_of(302) == hub::verdict::denied);
  CHECK(verdict_of(200) == hub::verdict::delivered);
  const hub::outcome portal =
      hub::storage_host::judge_put({.status = 200, .body = "<html>"}, "s", {});
  CHECK(portal.verdict == hub::verdict::retry);
}

// ---- the protocol ---------------------------------------------------------------------------

namespace {

hub::platform::run registered_run() {
  run of = *make_run({.project = "lab/a-b", .name = "c"}, *parse_roots("https://p.test", ""));
  of.model_id = "65f0c0ffee0123456789abcd";
  of.run_id = "run_7";
  of.page = "https://p.test/lab/a-b/c-2";
  return {.of = std::move(of)};
}

}  // namespace

TEST_CASE("a run's ids and page are those of its registration, whatever later replies name") {
  hub::platform::run of = registered_run();
  hub::platform::adopt(of, {.told = {.model_id = "0123456789abcdef01234567", .run_id = "run_8"}});
  CHECK(of.of.model_id == "65f0c0ffee0123456789abcd");
  CHECK(of.of.run_id == "run_7");
  CHECK(hub::platform::page(of) == "https://p.test/lab/a-b/c-2");
}

TEST_CASE("a spool's run is taken up by its own names alone, and reached where it is said now") {
  const std::string kept = hub::platform::remember(registered_run());
  const auto wanted = [](const char* project, const char* name, const char* webhooks = "") {
    return hub::platform::run{.of = *make_run({.project = project, .name = name},
                                              *parse_roots("https://p.test", webhooks))};
  };
  // Both have one folder.
  hub::platform::run other = wanted("lab/a", "b-c");
  CHECK(hub::platform::folder(other, 1) == hub::platform::folder(registered_run(), 1));
  CHECK_FALSE(hub::platform::recall(other, kept));
  CHECK(other.of.model_id.empty());

  hub::platform::run same = wanted("lab/a-b", "c", "https://hooks.test");
  same.of.api_key = key;
  CHECK(hub::platform::recall(same, kept));
  CHECK(same.of.model_id == "65f0c0ffee0123456789abcd");
  CHECK(same.of.at.webhooks == "https://hooks.test");
  CHECK(same.of.api_key == key);
}

TEST_CASE(
    "a file is announced where its server has a run and a path for it, and is there without") {
  hub::platform::run of = registered_run();
  const hub::upload_order upload{{.fields = {.is_final = true}, .file = "best.pt"}};
  hub::platform::news learned;
  const auto come_to = [&](const std::string& path) {
    const hub::progress at{1, encode_place({.url = "https://s.test/u1", .path = path}, true)};
    return hub::platform::judge(of, upload, at, {.status = 200}, {}, learned).verdict;
  };
  CHECK(come_to("gs://b/u1") == hub::verdict::advanced);
  CHECK(come_to("") == hub::verdict::delivered);
  of.of.run_id.clear();
  CHECK(come_to("gs://b/u1") == hub::verdict::delivered);
}

// ---- console --------------------------------------------------------------------------------

namespace {

// A program that prints, as the Platform shows it; without the time in front.
class screen {
 public:
  explicit screen(const console_rules& rules = {}) : lines_(rules) {}

  screen& print(std::string_view text) { return take(lines_.add(text, now_, at_clock(0))); }
  screen& wait(hub::duration time) {
    now_ += time;
    return *this;
  }
  screen& end() { return take(lines_.finish(now_, at_clock(0))); }

  std::vector<std::string> shown;

 private:
  screen& take(const std::vector<std::string>& lines) {
    constexpr std::string_view stamp = "[2026-11-26 15:13:00] ";
    for (const std::string& line : lines)
      shown.push_back(line.starts_with(stamp) ? line.substr(stamp.size()) : "bare " + line);
    return *this;
  }

  console_lines lines_;
  hub::time_point now_ = {};
};

using strings = std::vector<std::string>;

}  // namespace

TEST_CASE("lines are shown when they end, wherever the pieces were cut") {
  CHECK(screen().print("one\ntwo\nthr").print("ee").print("\n").shown ==
        strings{"one", "two", "three"});
  CHECK(screen().print("a\r").print("\nb\r\n").shown == strings{"a", "b"});
  CHECK(screen().print("a\r\r\n").shown == strings{"a"});
  CHECK(screen().print("no end").shown.empty());
  CHECK(screen().print("no end").end().end().shown == strings{"no end"});
}

TEST_CASE("empty lines and the codes that clear a line are left out") {
  CHECK(screen().print("\n \t\n\r\n\x1b[K\na\x1b[Kb\x1b[K\n").shown == strings{"ab"});
  CHECK(screen().print("\x1b[").print("Ka\n").shown == strings{"a"});
  CHECK(screen().print("\x1b\x1b[K[Ka\n").shown == strings{"a"});
  CHECK(screen().print("\x1b[31mred\x1b[0m\n").shown == strings{"\x1b[31mred\x1b[0m"});
}

TEST_CASE("of a line that is drawn anew the last state is shown, and one on the way each second") {
  CHECK(screen().print("old\rnew\n").shown == strings{"new"});
  screen bar;
  for (int percent = 0; percent <= 100; percent += 10)
    bar.print("\r" + std::to_string(percent) + "%").wait(300ms);
  CHECK(bar.shown == strings{"0%", "40%", "80%"});
  CHECK(bar.print("\n").shown == strings{"0%", "40%", "80%", "100%"});
}

TEST_CASE("a line that repeats the last one at once is shown once") {
  CHECK(screen().print("a\na\nb\na\n").shown == strings{"a", "b", "a"});
  CHECK(screen().print("a\n").wait(99ms).print("a\n").shown == strings{"a"});
  CHECK(screen().print("a\n").wait(100ms).print("a\n").shown == strings{"a", "a"});
  CHECK(screen().print("a\n").wait(60ms).print("a\n").wait(60ms).print("a\n").shown ==
        strings{"a", "a"});
}

TEST_CASE("the local time stands in front, but for a line that has one") {
  CHECK(screen().print("[2026-01-01 00:00:00] mine\n").shown ==
        strings{"bare [2026-01-01 00:00:00] mine"});
  CHECK(screen().print("[19:00] a\n").shown == strings{"[19:00] a"});
  console_lines lines;
  using namespace std::chrono;
  CHECK(lines.add("a\n", {}, local_days(year(2027) / 1 / 2) + 3h + 4min + 5s) ==
        strings{"[2027-01-02 03:04:05] a"});
}

TEST_CASE("a line without an end is broken at its bound, and never within a character") {
  CHECK(screen({.line_bytes_max = 8}).print("abcdefghijkl\n").shown == strings{"abcdefgh", "ijkl"});
  CHECK(screen({.line_bytes_max = 8}).print("abcdef\u2705gh\n").shown ==
        strings{"abcdef", "\u2705gh"});
  const strings odd = screen({.line_bytes_max = 8}).print(std::string(99, '\x80') + "\n").shown;
  std::string bytes;
  for (const std::string& line : odd) bytes += line;
  CHECK(bytes == std::string(99, '\x80'));
}

}  // namespace platform_wire_tests
