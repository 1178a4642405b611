// SPDX-License-Identifier: MIT
//
// Tests of the protocols, of HUB v1's above all. Where a test walks through thousands of inputs, it
// reports each wrong one and asserts nothing for the right ones.

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/inputs.hpp"
#include "support/memory_body.hpp"
#include "support/statuses.hpp"
#include "support/text.hpp"

namespace protocol_tests {

namespace {

using namespace hub_test;
using namespace hub::text;
using namespace hub::protocols;
using namespace hub::hub_v1_wire;
using namespace hub::storage_host;
using namespace hub::machine;
using namespace std::chrono_literals;
using namespace std::string_literals;
using namespace std::string_view_literals;
using nlohmann::json;

const std::string web(default_web_root);

const std::string* header(const hub::request& what, std::string_view name) {
  const std::string* found = nullptr;
  for (const auto& [header_name, value] : what.headers) {
    if (header_name != name) continue;
    REQUIRE(found == nullptr);  // no header twice
    found = &value;
  }
  return found;
}

caller key_caller() { return {"https://hub.example.org/api", key, {}, id}; }

}  // namespace

// ---- identifiers ----------------------------------------------------------------------------

TEST_CASE("an identifier may be a model's id, its page, or either with the key in front") {
  const std::string root = GENERATE(as<std::string>{}, "https://hub.ultralytics.com",
                                    "http://127.0.0.1:8080/behind/a/proxy");
  const std::string key_part = GENERATE(as<std::string>{}, "", key + "_");
  const std::string name = key_part + id;
  for (const std::string& text :
       {name, root + "/models/" + name, root + "/models/" + name + "/",
        root + "/models/" + name + "?tab=train", root + "/models/" + name + "#charts",
        root + "/models/" + name + "/?tab=train#charts", root + "/models/" + name + "/#charts?no",
        root + "/models/" + name + "?from=https://elsewhere.example/a/"}) {
    CAPTURE(text);
    const auto named = parse_identifier(text, root);
    REQUIRE(named);
    CHECK(named->model_id == id);
    CHECK(named->api_key == (key_part.empty() ? "" : key));
  }
}

TEST_CASE("the pages are on the server that has the API, unless it is said where they are") {
  struct row {
    std::string api;
    std::string web;
    std::string page_root;
  };
  const auto [api, web_given, page_root] = GENERATE(values<row>({
      {"", "", "https://hub.ultralytics.com"},
      {"https://api.ultralytics.com/", "", "https://hub.ultralytics.com"},
      {"http://127.0.0.1:8000", "", "http://127.0.0.1:8000"},
      {"https://hub.example.org/api/", "", "https://hub.example.org"},
      {"https://example.org/behind/a/proxy", "", "https://example.org/behind/a/proxy"},
      {"https://example.org/behind/api", "", "https://example.org/behind"},
      {"https://api.example.org", "", "https://api.example.org"},
      {"https://api.example.org", "https://www.example.org", "https://www.example.org"},
      {"", "https://www.example.org", "https://www.example.org"},
  }));
  CAPTURE(api, web_given);
  const bool by_option = GENERATE(true, false);
  const hub::endpoint_options given{.api = api, .web = web_given};
  const auto variable = [&, &api = api, &web_given = web_given](std::string_view name) {
    if (by_option) return ""s;
    return name == "ULTRALYTICS_HUB_API" ? api : name == "ULTRALYTICS_HUB_WEB" ? web_given : ""s;
  };
  const auto run = hub::hub_v1::identify(id, by_option ? given : hub::endpoint_options(), variable);
  REQUIRE(run);
  CHECK(hub::hub_v1::page(*run) == page_root + "/models/" + id);
  CHECK(hub::hub_v1::identify(page_root + "/models/" + id, given, variable));
  CHECK(contains(hub::hub_v1::no_key(*run).message, "from " + page_root + "/settings"));
}

TEST_CASE("a model's page is compared as an address, not as a text") {
  struct row {
    std::string_view root;
    std::string_view page;  // up to the id
  };
  const auto [root, page] = GENERATE(values<row>({
      {"https://hub.example.org", "https://hub.example.org:443/models/"},
      {"https://hub.example.org:443", "https://hub.example.org/models/"},
      {"http://hub.example.org", "http://hub.example.org:80/models/"},
      {"https://hub.example.org", "HTTPS://Hub.Example.ORG/models/"},
      {"https://HUB.example.org", "https://hub.EXAMPLE.org/models/"},
      {"https://hub.example.org/", "https://hub.example.org/models/"},
      {"https://hub.example.org", "https://hub.example.org./models/"},
      {"https://hub.example.org.", "https://hub.example.org/models/"},
      {"https://hub.example.org", "https://hub%2Eexample.org/models/"},
      {"https://hub.example.org/a~b", "https://hub.example.org:443/a%7eb/%6dodels/"},
      {"http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080/models/"},
      {"http://[2001:DB8::7]", "http://[2001:db8:0:0::0007]:80/models/"},
      {"http://[2001:db8::]", "http://[2001:db8:0:0:0:0:0:0]/models/"},
      {"http://[::]", "http://[0::0]/models/"},
  }));
  CAPTURE(root, page);
  for (const std::string& name : {id, key + "_" + id}) {
    const auto named = parse_identifier(std::string(page) + name + "/?tab=a#b", root);
    REQUIRE(named);
    CHECK(named->model_id == id);
    CHECK(named->api_key == (name == id ? "" : key));
  }
}

TEST_CASE("another server, port, scheme or folder is another address, and both are shown") {
  struct row {
    std::string_view root;
    std::string_view page;
    std::string_view shown;
  };
  const auto [root, page, shown] = GENERATE(values<row>({
      {"https://hub.example.org", "https://other.example.org/models/",
       "https://other.example.org/models/***"},
      {"https://hub.example.org", "https://hub.example.org:8443/models/",
       "https://hub.example.org:8443/models/***"},
      {"https://hub.example.org", "http://hub.example.org/models/",
       "http://hub.example.org/models/***"},
      {"https://hub.example.org", "http://hub.example.org:443/models/",
       "http://hub.example.org:443/models/***"},
      {"https://hub.example.org/hub", "https://hub.example.org/models/",
       "https://hub.example.org/models/***"},
      {"https://hub.example.org", "https://hub.example.org/hub/models/",
       "https://hub.example.org/hub/models/***"},
      {"https://hub.example.org", "https://hub.example.org..//models/",
       "https://hub.example.org..//models/***"},
      {"https://hub.example.org", "https://hub.example.org/projects/",
       "https://hub.example.org/***"},
      {"http://[::1]", "http://[::2]/models/", "http://[::2]/models/***"},
      {"http://[1::1]", "http://[1:1::]/models/", "http://[1:1::]/models/***"},
  }));
  CAPTURE(root, page);
  const auto named = parse_identifier(std::string(page) + key + "_" + id, root);
  REQUIRE_FALSE(named);
  CHECK(contains(named.error().message, "'" + std::string(shown) + "'"));
  CHECK(contains(named.error().message, "the HUB at " + std::string(root)));
  CHECK_FALSE(shows(named.error().message, key));
}

TEST_CASE("a model's page may hold the key in its query, as HUB's later pages give it out") {
  for (const std::string& query :
       {"?api_key=" + key, "?tab=train&api_key=" + key, "?api_key=" + key + "&tab=train#charts",
        "/?api_key=" + key + "#charts?api_key=no", "?api_key=" + key + "%0A",
        "?api_key=" + key + "\n", "?my_api_key=no&api_key=" + key,
        "?api_key=%5A" + key.substr(1)}) {
    CAPTURE(query);
    const auto named = parse_identifier(web + "/models/" + id + query, web);
    REQUIRE(named);
    CHECK(named->model_id == id);
    CHECK(named->api_key == key);
  }
  CHECK(parse_identifier(web + "/models/" + key + "_" + id + "?api_key=other", web)->api_key ==
        key);
  CHECK(parse_identifier(web + "/models/" + id + "?api_key=&api_key", web)->api_key == "");
}

TEST_CASE("what stuck to an identifier when it was copied does not count") {
  for (const std::string& text :
       {id + "\n", " " + id, "\t" + id + " \r\n", "\xEF\xBB\xBF" + id,
        "\xC2\xA0" + id + "\xE2\x80\x8B", std::string(1, '\0') + id + std::string(2, '\0'),
        "\n\n" + web + "/models/" + id + "\n", " " + web + "/models/" + id + "?tab=a \n"}) {
    CAPTURE(text);
    const auto named = parse_identifier(text, web);
    REQUIRE(named);
    CHECK(named->model_id == id);
  }
  CHECK(parse_identifier("\n" + key + "_" + id + " ", web)->api_key == key);
  CHECK(trimmed("") == "");
  CHECK(trimmed(" \n") == "");
  CHECK(trimmed("a b") == "a b");
}

TEST_CASE("what is no identifier is refused with the accepted forms and without the key") {
  // KEY and ID stand for themselves, PAGE for everything in front of the id on the model's page.
  // clang-format off
  for (std::string_view form : {
      "", " ", "_", "/", "short", "ID0", "KEY", "KEY_", "_ID", "KEYID", "KEY__ID", "KEY-ID",
      "KEY_ID_", "ID_KEY", "0KEY_ID", "KEY0_ID", "KEY_short", "KEY_ID0", "KEY_\nID", "KEY _ID",
      "KEY_ID\xc3\xa9", "ID ID", "\"ID\"", "ID/", "ID?tab", "ID#charts", "PAGE", "PAGE?ID", "PAGE/ID",
      "PAGEID//", "PAGEID/export", "PAGEPAGEID", "PAGEKEY", "PAGEKEY_", "PAGEKEY/ID",
      "PAGE?api_key=KEY", "PAGEshort?api_key=KEY", "https://hub.ultralytics.com:8443/models/KEY_ID",
      "https://KEY_ID/models/", "https://KEY/models/ID", "https://evil.example/KEY/models/ID",
      "https://[::1]/models/ID?api_key=KEY",
      "https://hub.ultralytics.com/ID", "https://hub.ultralytics.com/projects/ID",
      "https://hub.ultralytics.com/Models/ID", "https://hub.ultralytics.com/modelsID",
      "https://hub.ultralytics.com.evil.example/models/ID", "hub.ultralytics.com/models/ID",
      "https://evil.example/models/KEY_ID", "https://evil.example/?PAGEID", "://KEY_ID",
      "https://u:KEY@hub.ultralytics.com/models/ID", "http://hub.ultralytics.com/models/ID",
      "ftp://hub.ultralytics.com/models/ID"}) {
    // clang-format on
    std::string text(form);
    for (const auto& [name, meaning] :
         {std::pair("PAGE"sv, web + "/models/"), {"KEY"sv, key}, {"ID"sv, id}})
      for (std::size_t at = 0; (at = text.find(name, at)) != std::string::npos;
           at += meaning.size())
        text.replace(at, name.size(), meaning);
    CAPTURE(text);
    const auto named = parse_identifier(text, web);
    REQUIRE_FALSE(named);
    CHECK(named.error().code == hub::errc::invalid_identifier);
    const std::string& message = named.error().message;
    CHECK_FALSE(shows(message, key));
    CHECK(is_plain_text(message));
    CHECK(contains(message, web + "/models/"));
    CHECK(contains(message, "20 letters and digits"));
    CHECK(contains(message, "42 letters and digits"));
  }
}

TEST_CASE("any byte at any place of KEY_ID is taken only where the form allows it") {
  const std::string whole = key + "_" + id;
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      const std::string text = with_byte(whole, at, byte);
      const bool fits = at == key.size() ? byte == '_' : is_alphanumeric(static_cast<char>(byte));
      const auto named = parse_identifier(text, web);
      if (static_cast<bool>(named) != fits)
        FAIL_CHECK("byte " << byte << " at " << at << (fits ? " is refused" : " is taken"));
      else if (fits && named->api_key + "_" + named->model_id != text)
        FAIL_CHECK("byte " << byte << " at " << at << " is read as something else");
      else if (!fits &&
               (shows(named.error().message, key) || !is_plain_text(named.error().message)))
        FAIL_CHECK("byte " << byte << " at " << at << " gives: " << named.error().message);
    }
}

TEST_CASE("any byte at any place of a model's page never shows the key nor lets a wrong id in") {
  // A '?' or '#' in the key leaves its beginning, which may look like a mistyped id and be quoted.
  const std::string whole = web + "/models/" + key + "_" + id;
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      const auto named = parse_identifier(with_byte(whole, at, byte), web);
      if (named && !(named->model_id.size() == 20 && all_of(named->model_id, is_alphanumeric) &&
                     (named->api_key.empty() || named->api_key.size() == 42) &&
                     all_of(named->api_key, is_alphanumeric)))
        FAIL_CHECK("byte " << byte << " at " << at << " is taken");
      const std::size_t telling = byte == '?' || byte == '#' ? model_id_length + 1 : 5;
      if (!named &&
          (shows(named.error().message, key, telling) || !is_plain_text(named.error().message)))
        FAIL_CHECK("byte " << byte << " at " << at << " gives: " << named.error().message);
    }
}

// ---- model file names -----------------------------------------------------------------------

TEST_CASE("weights of YOLOv3 and YOLOv5 are asked for under their name of today") {
  using row = std::pair<std::string_view, std::string_view>;
  const auto [given, wanted] = GENERATE(values<row>({
      {"yolov5n.pt", "yolov5nu.pt"},
      {"yolov5s.pt", "yolov5su.pt"},
      {"yolov5m.pt", "yolov5mu.pt"},
      {"yolov5l.pt", "yolov5lu.pt"},
      {"yolov5x.pt", "yolov5xu.pt"},
      {"yolov5n6.pt", "yolov5n6u.pt"},
      {"yolov5x6.pt", "yolov5x6u.pt"},
      {"yolov3.pt", "yolov3u.pt"},
      {"yolov3-tiny.pt", "yolov3-tinyu.pt"},
      {"yolov3-spp.pt", "yolov3-sppu.pt"},
      // The file name alone counts: a `u` or a slash in front of it changes nothing.
      {"runs/yolov5n.pt", "runs/yolov5nu.pt"},
      {"/u/yolov3.pt", "/u/yolov3u.pt"},
      {"https://github.com/ultralytics/assets/yolov5s6.pt",
       "https://github.com/ultralytics/assets/yolov5s6u.pt"},
      {"my-yolov5n.pt", "my-yolov5nu.pt"},
      {"yolov5-yolov5n.pt", "yolov5-yolov5nu.pt"},
      // What is not one of these stays.
      {"yolov5nu.pt", "yolov5nu.pt"},
      {"yolov5n6u.pt", "yolov5n6u.pt"},
      {"yolov3u.pt", "yolov3u.pt"},
      {"yolov5n-seg.pt", "yolov5n-seg.pt"},
      {"YOLOv5n.pt", "YOLOv5n.pt"},
      {"yolov5n.yaml", "yolov5n.yaml"},
      {"yolov5n", "yolov5n"},
      {"yolov5.pt", "yolov5.pt"},
      {"yolov5t.pt", "yolov5t.pt"},
      {"yolov56.pt", "yolov56.pt"},
      {"yolov5n66.pt", "yolov5n66.pt"},
      {"yolov5nn.pt", "yolov5nn.pt"},
      {"yolov5n.PT", "yolov5n.PT"},
      {"yolov3-big.pt", "yolov3-big.pt"},
      {"yolov3s.pt", "yolov3s.pt"},
      {"yolov8n.pt", "yolov8n.pt"},
      {"mouse-yolov5n.pt", "mouse-yolov5n.pt"},
      {"yolov5n.pt/last.pt", "yolov5n.pt/last.pt"},
      {".pt", ".pt"},
      {"pt", "pt"},
      {"/", "/"},
      {"", ""},
  }));
  CHECK(rename_yolov5(given) == wanted);
}

// ---- the model ------------------------------------------------------------------------------

namespace {

// A value of every JSON type, and the odd ones of each.
// clang-format off
const std::vector<json> every_type = {
    nullptr, true, false, 0, 1, -1, 7, 2147483648, 18446744073709551615U, 0.5, 1e300, -1e300, "",
    "text", "trained", json::array(), json::array({1, "a", nullptr}), json::array({json::array()}),
    json::object(), {{"data", "a"}}};
// clang-format on

const json first_shape = *parse_json(R"({"data": {
  "id": "abcdefghij0123456789", "status": "new",
  "data": "https://storage.example/coco8.zip?X-Goog-Expires=900",
  "cfg": "yolov8n.yaml", "weights": "yolov8n.pt", "resume": "https://storage.example/last.pt",
  "batch": 16, "batch_size": 8, "epochs": 100, "imgsz": 640, "patience": 50, "device": "0,1",
  "cache": "ram", "time": 1.5, "more": [1]}})");

const json second_shape = *parse_json(R"({"data": {
  "id": "abcdefghij0123456789", "status": "new", "cfg": "yolov8n.yaml", "weights": "yolov8n.pt",
  "resume": "https://storage.example/last.pt", "has_last_weights": false, "has_best_weights": false,
  "is_pretrained": true, "is_custom": false,
  "train_args": {"batch": 0.75, "cache": false, "data": "coco8.yaml", "device": null, "epochs": 3,
                 "imgsz": 320, "patience": 100, "time": null}}})");

hub::result<hub::model_info> read(const json& reply) { return parse_model(reply.dump(), id); }

json changed(json reply, const std::map<std::string, json>& fields) {
  for (const auto& [name, value] : fields) reply["data"][name] = value;
  return reply;
}

// Everything that was read, as one text to compare.
std::string summary(const hub::result<hub::model_info>& model) {
  if (!model) return std::string(to_string(model.error().code));
  const hub::train_args& args = model->train_args;
  const auto shown = [](const auto& number) { return number ? json(*number).dump() : "none"s; };
  return std::to_string(static_cast<int>(model->state)) + "|" + model->model_file + "|" +
         args.data + "|" + (args.resume ? "resume" : "") + "|" + shown(args.batch) + "|" +
         shown(args.epochs) + "|" + shown(args.imgsz) + "|" + shown(args.patience) + "|" +
         shown(args.time_hours) + "|" + args.device + "|" + args.cache;
}

}  // namespace

TEST_CASE("a new model is read in its first shape") {
  const auto model = read(first_shape);
  REQUIRE(model);
  CHECK(model->id == id);
  CHECK(model->state == hub::model_state::fresh);
  CHECK(model->model_file == "yolov8n.yaml");
  CHECK(model->raw.at("more").at(0) == 1);
  const hub::train_args& args = model->train_args;
  CHECK(args.data == "https://storage.example/coco8.zip?X-Goog-Expires=900");
  CHECK_FALSE(args.resume);
  CHECK(args.batch == 16.0);
  CHECK(args.epochs == 100);
  CHECK(args.imgsz == 640);
  CHECK(args.patience == 50);
  CHECK(args.time_hours == 1.5);
  CHECK(args.device == "0,1");
  CHECK(args.cache == "ram");
  CHECK(args.raw.at("batch_size") == 8);
}

TEST_CASE("a new model is read in its second shape") {
  const auto model = read(second_shape);
  REQUIRE(model);
  CHECK(model->state == hub::model_state::fresh);
  CHECK(model->model_file == "yolov8n.pt");
  const hub::train_args& args = model->train_args;
  CHECK(args.data == "coco8.yaml");
  CHECK_FALSE(args.resume);
  CHECK(args.batch == 0.75);
  CHECK(args.epochs == 3);
  CHECK(args.imgsz == 320);
  CHECK(args.patience == 100);
  CHECK_FALSE(args.time_hours);
  CHECK(args.device == "");
  CHECK(args.cache == "");
  CHECK(args.raw.at("cache") == false);
}

TEST_CASE("the model file is cfg, else weights, renamed where YOLOv5 is meant") {
  const auto file = [](const json& reply) { return read(reply)->model_file; };
  CHECK(file(changed(first_shape, {{"cfg", ""}})) == "yolov8n.pt");
  CHECK(file(changed(first_shape, {{"cfg", nullptr}})) == "yolov8n.pt");
  CHECK(file(changed(first_shape, {{"cfg", ""}, {"weights", "yolov5n.pt"}})) == "yolov5nu.pt");
  CHECK(file(changed(first_shape, {{"cfg", ""}, {"weights", ""}})) == "");
  CHECK(file(changed(second_shape, {{"is_pretrained", false}})) == "yolov8n.yaml");
  CHECK(file(changed(second_shape, {{"is_pretrained", nullptr}})) == "yolov8n.yaml");
  CHECK(file(changed(second_shape, {{"weights", "yolov3.pt"}})) == "yolov3u.pt");
}

TEST_CASE("a training that can go on is told where to go on, and all else that HUB says of it") {
  const json reply =
      GENERATE(changed(first_shape, {{"status", "training"}}),
               changed(second_shape, {{"has_last_weights", true}}),
               changed(second_shape, {{"has_last_weights", true}, {"status", "training"}}));
  const auto model = read(reply);
  REQUIRE(model);
  CHECK(model->state == hub::model_state::training);
  CHECK(model->model_file == "https://storage.example/last.pt");
  CHECK(model->train_args.resume);
  const bool nested = reply["data"].contains("train_args");
  CHECK(summary(model) ==
        (nested ? "1|https://storage.example/last.pt|coco8.yaml|resume|0.75|3|320|100|none||"
                : "1|https://storage.example/last.pt|"
                  "https://storage.example/coco8.zip?X-Goog-Expires=900|resume|16.0|100|640|50|1.5|"
                  "0,1|ram"));
  CHECK_FALSE(model->last_epoch);
  CHECK(read(changed(reply, {{"last_epoch", 41}}))->last_epoch == 41);
  CHECK_FALSE(read(changed(reply, {{"last_epoch", "41"}}))->last_epoch);
  CHECK_FALSE(read(changed(first_shape, {{"last_epoch", 41}}))->last_epoch);
}

TEST_CASE("in the second shape has_last_weights decides whether a training goes on") {
  const auto model = read(changed(second_shape, {{"status", "training"}}));
  REQUIRE(model);
  CHECK(model->state == hub::model_state::fresh);
  CHECK_FALSE(model->train_args.resume);
}

TEST_CASE(
    "a model that is trained is refused, in both shapes and before its dataset is looked at") {
  CHECK(code_of(read(changed(first_shape, {{"status", "trained"}}))) == hub::errc::already_trained);
  CHECK(code_of(read(changed(second_shape, {{"status", "trained"}}))) ==
        hub::errc::already_trained);
  CHECK(code_of(read(changed(first_shape, {{"status", "trained"}, {"data", nullptr}}))) ==
        hub::errc::already_trained);
}

TEST_CASE("a dataset that is null, missing or empty is not ready, in every state") {
  for (const char* status : {"new", "training"}) {
    json reply = changed(first_shape, {{"status", status}});
    CHECK(code_of(read(changed(reply, {{"data", nullptr}}))) == hub::errc::dataset_not_ready);
    CHECK(code_of(read(changed(reply, {{"data", ""}}))) == hub::errc::dataset_not_ready);
    reply["data"].erase("data");
    CHECK(code_of(read(reply)) == hub::errc::dataset_not_ready);
  }
  json reply = second_shape;
  reply["data"]["train_args"]["data"] = nullptr;
  CHECK(code_of(read(reply)) == hub::errc::dataset_not_ready);
  CHECK(code_of(read(changed(reply, {{"has_last_weights", true}}))) ==
        hub::errc::dataset_not_ready);
}

TEST_CASE("a device is text, a number, a list or nothing") {
  const auto device = [](const json& sent) {
    return read(changed(first_shape, {{"device", sent}}))->train_args.device;
  };
  CHECK(device("cpu") == "cpu");
  CHECK(device(0) == "0");
  CHECK(device({0, 1}) == "0,1");
  CHECK(device({"0", 1}) == "0,1");
  CHECK(device(json::array()) == "");
  CHECK(device(nullptr) == "");
}

TEST_CASE("a batch is a count, -1 or a fraction, under its new or its old name") {
  const auto batch = [](const json& now, const json& old) {
    return read(changed(first_shape, {{"batch", now}, {"batch_size", old}}))->train_args.batch;
  };
  CHECK(batch(-1, 8) == -1.0);
  CHECK(batch(0.75, 8) == 0.75);
  CHECK(batch(nullptr, 8) == 8.0);
  CHECK_FALSE(batch(nullptr, nullptr));
}

TEST_CASE("a cache may be a bool or a string") {
  const auto cache = [](const json& sent) {
    return read(changed(first_shape, {{"cache", sent}}))->train_args.cache;
  };
  CHECK(cache(true) == "ram");
  CHECK(cache(false) == "");
  CHECK(cache("disk") == "disk");
  CHECK(cache(nullptr) == "");
}

TEST_CASE("every field of the model reply with a wrong type counts as missing") {
  // What each field may be. A field that is not named may be anything.
  const std::map<std::string, std::function<bool(const json&)>> right = {
      {"status", [](const json& v) { return v.is_string(); }},
      {"data", [](const json& v) { return v.is_string(); }},
      {"cfg", [](const json& v) { return v.is_string(); }},
      {"weights", [](const json& v) { return v.is_string(); }},
      {"resume", [](const json& v) { return v.is_string(); }},
      {"batch", [](const json& v) { return v.is_number(); }},
      {"batch_size", [](const json& v) { return v.is_number(); }},
      {"time", [](const json& v) { return v.is_number(); }},
      {"epochs",
       [](const json& v) {
         return get_int({{"v", v}}, "v").has_value();
       }},
      {"imgsz",
       [](const json& v) {
         return get_int({{"v", v}}, "v").has_value();
       }},
      {"patience",
       [](const json& v) {
         return get_int({{"v", v}}, "v").has_value();
       }},
      {"device",
       [](const json& v) { return v.is_string() || v.is_number_integer() || v.is_array(); }},
      {"cache", [](const json& v) { return v.is_string() || v.is_boolean(); }},
      {"has_last_weights", [](const json& v) { return v.is_boolean(); }},
      {"is_pretrained", [](const json& v) { return v.is_boolean(); }},
      {"train_args", [](const json& v) { return v.is_object(); }},
  };
  const json whole = GENERATE(as<json>{}, first_shape, second_shape,
                              changed(first_shape, {{"status", "training"}}),
                              changed(second_shape, {{"has_last_weights", true}}));
  for (const char* place : {"/data", "/data/train_args"}) {
    const json::json_pointer object(place);
    if (!whole.contains(object)) continue;
    for (const auto& item : whole.at(object).items()) {
      json missing = whole;
      missing[object].erase(item.key());
      const auto rule = right.find(item.key());
      for (const json& value : every_type) {
        json reply = whole;
        reply[object][item.key()] = value;
        const std::string now = summary(read(reply));
        const bool ignored = rule == right.end();
        if ((ignored || !rule->second(value)) && now != summary(read(missing)))
          FAIL_CHECK(place << "/" << item.key() << " as " << value.dump() << " gives " << now);
      }
    }
  }
}

TEST_CASE("a reply of another type altogether, or to another request, is a bad reply") {
  for (const json& value : every_type) {
    CHECK(code_of(read(value)) == (value.is_object() && value.contains("data")
                                       ? code_of(read({{"data", "a"}}))
                                       : hub::errc::bad_reply));
    if (!value.is_object()) CHECK(code_of(read({{"data", value}})) == hub::errc::bad_reply);
    if (!value.is_boolean())
      CHECK(code_of(parse_auth(json{{"success", value}}.dump())) == hub::errc::bad_reply);
    CHECK(code_of(parse_auth(value.dump())) == hub::errc::bad_reply);
    CHECK(code_of(parse_created(value.dump())) == hub::errc::bad_reply);
    CHECK(code_of(parse_created(json{{"data", value}}.dump())) == hub::errc::bad_reply);
    CHECK(code_of(parse_created(json{{"data", {{"id", value}}}}.dump())) == hub::errc::bad_reply);
    if (!value.is_object()) CHECK(code_of(parse_heartbeat(value.dump())) == hub::errc::bad_reply);
    if (!value.is_object() && !value.is_null())
      CHECK(code_of(parse_heartbeat(json{{"data", value}}.dump())) == hub::errc::bad_reply);
    if (!value.is_string() && !value.is_null())
      CHECK(code_of(parse_heartbeat(json{{"data", {{"agentId", value}}}}.dump())) ==
            hub::errc::bad_reply);
  }
  CHECK(code_of(read({{"data", json::object()}})) == hub::errc::dataset_not_ready);
}

TEST_CASE("the replies to signing in, to making a model and to a heartbeat are read") {
  CHECK(*parse_auth(R"({"success": true})"));
  CHECK_FALSE(*parse_auth(R"({"success": false, "message": "Invalid key"})"));
  CHECK(*parse_created(R"({"data": {"id": "abcdefghij0123456789"}, "message": "created"})") == id);
  CHECK(*parse_heartbeat(R"({"data": {"agentId": "agent-1"}})") == "agent-1");
  CHECK(*parse_heartbeat(R"({"data": {"agentId": null}})") == "");
  CHECK(*parse_heartbeat(R"({"data": {}})") == "");
  CHECK(*parse_heartbeat("{}") == "");
}

TEST_CASE("what Python writes for a number that is not finite counts as missing in every reply") {
  const auto word = GENERATE("NaN"s, "Infinity"s, "-Infinity"s);
  const auto model = [&](const std::string& fields) {
    return parse_model(
        R"({"more": [)" + word + R"(], "data": {"data": "a", "cfg": "NaN.yaml", )" + fields + "}}",
        id);
  };
  const auto flat =
      model(R"("epochs": )" + word + R"(, "batch":)" + word + R"(, "batch_size": 8,
                             "imgsz": 320, "time": )" +
            word + R"(, "device": [0, )" + word + R"(, 1], "odd": {"deep": [)" + word + "]}");
  REQUIRE(flat);
  CHECK(flat->model_file == "NaN.yaml");
  CHECK_FALSE(flat->train_args.epochs);
  CHECK(flat->train_args.batch == 8.0);
  CHECK(flat->train_args.imgsz == 320);
  CHECK_FALSE(flat->train_args.time_hours);
  CHECK(flat->train_args.device == "0,1");
  CHECK(flat->raw["odd"]["deep"][0].is_null());
  const auto nested =
      model(R"("train_args": {"data": "b", "epochs": 3, "patience": )" + word + "}");
  REQUIRE(nested);
  CHECK(nested->train_args.epochs == 3);
  CHECK_FALSE(nested->train_args.patience);
  CHECK(code_of(parse_model(R"({"data": {"data": )" + word + "}}", id)) ==
        hub::errc::dataset_not_ready);
  CHECK(code_of(parse_model(R"({"data": )" + word + "}", id)) == hub::errc::bad_reply);

  CHECK(*parse_auth(R"({"score": )" + word + R"(, "success": true})"));
  CHECK(code_of(parse_auth(R"({"success": )" + word + "}")) == hub::errc::bad_reply);
  CHECK(*parse_created(R"({"data": {"map": )" + word + R"(, "id": ")" + id + "\"}}") == id);
  CHECK(*parse_heartbeat(R"({"data": {"agentId": )" + word + "}}") == "");
  CHECK(*parse_heartbeat(R"({"load": [)" + word + R"(, 1], "data": {"agentId": "a"}})") == "a");
  CHECK(*parse_heartbeat(R"({"data": )" + word + "}") == "");
  const hub::reply refused{.status = 400,
                           .body = R"({"map": )" + word + R"(, "message": "no NaN \" here"})"};
  CHECK(contains(judge(refused, "metrics", {}, "HUB").why.message, "no NaN"));
}

TEST_CASE("words within texts, and other words that are no JSON, are left alone") {
  CHECK(standard_json(R"({"NaN": "Infinity \" NaN", "a": NaN, "b":[-Infinity,Infinity]})") ==
        R"({"NaN": "Infinity \" NaN", "a": null, "b":[null,null]})");
  CHECK(standard_json(R"("\\" NaN)") == R"("\\" null)");
  for (std::string_view same : {""sv, "\""sv, "\"\\"sv, "Na"sv, "-Infinit"sv, "{\"a\": nan}"sv})
    CHECK(standard_json(same) == same);
  for (std::string_view odd :
       {"{\"success\": true, \"a\": nan}"sv, "{\"success\": true, \"a\": NaNs}"sv,
        "{\"success\": true, \"a\": -NaN}"sv, "NaN"sv, "{NaN: true}"sv})
    CHECK(code_of(parse_auth(odd)) == hub::errc::bad_reply);
}

TEST_CASE("the id of a new model must be one that can stand in a URL") {
  for (const std::string& odd :
       {""s, "short"s, id + "0", "../../../v1/secrets0"s, "abcdefghij 123456789"s,
        "abcdefghij\\r\\n3456789"s, "abcdefghij\\u00fc12345678"s})
    CHECK(code_of(parse_created(R"({"data": {"id": ")" + odd + "\"}}")) == hub::errc::bad_reply);
}

TEST_CASE("a reply that is cut at any byte is a bad reply") {
  const std::string model = first_shape.dump(), resumed = second_shape.dump(2);
  const std::string auth = R"({"success": true})",
                    created = R"({"data": {"id": "abcdefghij0123456789"}})";
  const std::string beat = R"({"data": {"agentId": "agent-1"}})";
  const auto cut_everywhere = [](const std::string& whole, const auto& parse) {
    REQUIRE(parse(whole));
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const auto outcome = parse(whole.substr(0, size));
      if (outcome || outcome.error().code != hub::errc::bad_reply)
        FAIL_CHECK("taken after " << size << " bytes of " << whole);
    }
  };
  cut_everywhere(model, [](const std::string& body) { return parse_model(body, id); });
  cut_everywhere(resumed, [](const std::string& body) { return parse_model(body, id); });
  cut_everywhere(auth, [](const std::string& body) { return parse_auth(body); });
  cut_everywhere(created, [](const std::string& body) { return parse_created(body); });
  cut_everywhere(beat, [](const std::string& body) { return parse_heartbeat(body); });
}

TEST_CASE("hostile replies are bad replies to every request") {
  const std::string open(1 << 20, '{'), deep = nested(1000000, '[', ']');
  const std::string quotes(1 << 20, '"'), spaces(1 << 20, ' ');
  for (std::string_view body :
       {""sv, "<html><body>Please sign in to the guest network</body></html>"sv,
        "\xff\xfe\x00\x01"sv, "{\"data\": {\"a\": 1e400}}"sv,
        "{\"data\": {\"id\": \"abcdefghij0123456789\"}, \"success\": true}\0"sv,
        "{\"success\": true, \"data\": {\"\xff\": 1}}"sv, std::string_view(open),
        std::string_view(deep), std::string_view(quotes), std::string_view(spaces)}) {
    CAPTURE(body.substr(0, 60));
    CHECK(code_of(parse_model(body, id)) == hub::errc::bad_reply);
    CHECK(code_of(parse_auth(body)) == hub::errc::bad_reply);
    CHECK(code_of(parse_created(body)) == hub::errc::bad_reply);
    CHECK(code_of(parse_heartbeat(body)) == hub::errc::bad_reply);
  }
}

TEST_CASE("a model with many classes, or with a long description, is read") {
  json names, list;
  for (int i = 0; i < 30'000; ++i) {
    names[std::to_string(i)] = "class number " + std::to_string(i);
    list.push_back("class number " + std::to_string(i));
  }
  const auto model = read(changed(first_shape, {{"names", names}}));
  REQUIRE(model);
  CHECK(model->raw["names"]["29999"] == "class number 29999");
  CHECK(read(changed(second_shape, {{"names", list}})));
  CHECK(read(changed(first_shape, {{"description", std::string(200'000, 'x')}})));
  json beat = {{"data", {{"agentId", "agent-1"}, {"names", list}}}};
  CHECK(*parse_heartbeat(beat.dump()) == "agent-1");
}

TEST_CASE("a bound that a reply meets is named") {
  const auto why = [](const json& value) {
    const auto model = read(changed(first_shape, {{"odd", value}}));
    REQUIRE_FALSE(model);
    CHECK(model.error().code == hub::errc::bad_reply);
    CHECK(parse_auth(json{{"success", true}, {"odd", value}}.dump()).error().code ==
          hub::errc::bad_reply);
    CHECK_FALSE(contains(model.error().message, "address"));
    return model.error().message;
  };
  CHECK(contains(why(json(std::vector<int>(70'000))), "text::reply_memory_max"));
  CHECK(contains(why(std::string(300'000, 'x')), "text::reply_token_bytes_max"));
  CHECK(contains(why(json::parse(nested(64, '[', ']'))), "text::json_depth_max"));
}

TEST_CASE("a reply that is an HTML page is called so") {
  const auto model = parse_model("\r\n<!DOCTYPE html><html></html>", id);
  REQUIRE_FALSE(model);
  CHECK(contains(model.error().message, "HTML page"));
  CHECK(contains(model.error().message, "Check the server's address"));
  CHECK_FALSE(contains(parse_model("{\"data\": 5}", id).error().message, "HTML"));
}

// ---- metrics --------------------------------------------------------------------------------

namespace {

using rows = std::vector<std::pair<std::string, double>>;

std::string encoded(const rows& metrics) { return encode_metrics(hub::epoch_record(metrics)); }

std::shared_ptr<const hub::epoch_record> record(const rows& metrics) {
  return std::make_shared<const hub::epoch_record>(metrics);
}

std::uint64_t bits(double value) { return std::bit_cast<std::uint64_t>(value); }

// Whether the value arrives with every bit where JSON has it, else as null and counted.
bool survives(double value) {
  const auto sent = record({{"m", value}});
  const json arrived = json::parse(encode_metrics(*sent), nullptr, false);
  if (!arrived.is_object() || arrived.size() != 1) return false;
  const json& number = arrived.at("m");
  if (!std::isfinite(value)) return number.is_null() && sent->not_finite() == 1;
  return number.is_number() && bits(number.get<double>()) == bits(value) && sent->not_finite() == 0;
}

}  // namespace

TEST_CASE("metrics are encoded in their order, as Python's json would write them") {
  CHECK(encoded({}) == "{}");
  CHECK(encoded({{"train/box_loss", 1.5}, {"metrics/mAP50-95(B)", 0.123456789}, {"a", -2}}) ==
        "{\"train/box_loss\": 1.5, \"metrics/mAP50-95(B)\": 0.123456789, \"a\": -2}");
}

TEST_CASE("every finite number arrives with every bit, the others as null") {
  using limits = std::numeric_limits<double>;
  // clang-format off
  for (double value : {
      0.0, 1.0, 0.1, 1.0 / 3, 1e15, 1e16, 1e17, 1e21, 1e22, 1e23, 123456789012345680000.0, 1e300,
      9007199254740992.0, 9007199254740994.0, 9223372036854775807.0, 18446744073709551616.0,
      limits::max(), limits::min(), limits::denorm_min(), limits::epsilon(), 5e-324,
      2.2250738585072011e-308, limits::infinity(), limits::quiet_NaN(),
      static_cast<double>(0.1F)}) {
    // clang-format on
    CAPTURE(value);
    CHECK(survives(value));
    CHECK(survives(-value));
  }
  std::mt19937_64 random(8);
  for (int i = 0; i < 50000; ++i) {
    const double value = std::bit_cast<double>(std::uint64_t{random()});
    if (!survives(value)) FAIL_CHECK("lost: 0x" << std::hex << bits(value));
  }
}

TEST_CASE("NaN and infinities are counted, one by one") {
  const auto sent =
      record({{"a", std::nan("")}, {"b", 1}, {"c", -HUGE_VAL}, {"d", HUGE_VAL}, {"e", 0}});
  CHECK(sent->not_finite() == 3);
  CHECK(encode_metrics(*sent) == R"({"a": null, "b": 1, "c": null, "d": null, "e": 0})");
}

TEST_CASE("a name arrives as it was wherever it is UTF-8, and never breaks the request") {
  const std::string letters(1 << 20, 'n'), quotes(1 << 20, '"');
  for (std::string_view name :
       {""sv, "\""sv, "\\"sv, "\\\""sv, "a\"b\\c/d"sv, "\n\r\t\b\f"sv, "\0"sv, "nul\0inside"sv,
        "\x1f\x7f"sv, "ü\xe2\x82\xac\xf0\x9f\x99\x82"sv, "\xe2\x80\xa8"sv, "</script>"sv,
        "{\"a\": 1}"sv, std::string_view(letters), std::string_view(quotes)}) {
    CAPTURE(name.substr(0, 60));
    const json arrived = json::parse(encoded({{std::string(name), 1}}), nullptr, false);
    REQUIRE(arrived.is_object());
    REQUIRE(arrived.size() == 1);
    CHECK(arrived.begin().key() == name);
  }
}

TEST_CASE("any byte at any place of a name gives one metric whose name is UTF-8") {
  const std::string name = "a/b(c)";
  for (std::size_t at = 0; at < name.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      const std::string odd = with_byte(name, at, byte);
      const json arrived = json::parse(encoded({{odd, 0.5}}), nullptr, false);
      std::string wanted = odd;
      if (byte >= 0x80) wanted.replace(at, 1, "\xef\xbf\xbd");
      if (!arrived.is_object() || arrived.size() != 1 || arrived.begin().key() != wanted)
        FAIL_CHECK("byte " << byte << " at " << at << " gives " << arrived.size() << " metrics");
    }
}

TEST_CASE("bytes that are no UTF-8 become replacement characters, also encoded twice") {
  const std::vector<hub::queued_epoch> batch = {
      {0, record({{"\xff\xc3 ok \xed\xa0\x80 \xf4\x90\x80\x80", 1}})}};
  const json body = json::parse(metrics_request(key_caller(), batch).body, nullptr, false);
  REQUIRE(body.is_object());
  const json metrics = json::parse(body["metrics"]["0"].get<std::string>(), nullptr, false);
  REQUIRE(metrics.is_object());
  CHECK(metrics.begin().key().starts_with("\xef\xbf\xbd"));
  CHECK(contains(metrics.begin().key(), " ok "));
}

TEST_CASE(
    "a metrics request carries each epoch's object encoded once more, as a string, in order") {
  std::vector<hub::queued_epoch> batch;
  for (int epoch : {std::numeric_limits<int>::min(), -1, 0, 9, 10, std::numeric_limits<int>::max()})
    batch.emplace_back(epoch, record({{"quote\" and \\", 0.1 * epoch}, {"ü", -0.0}}));
  const hub::request what = metrics_request(key_caller(), batch);
  CHECK(what.method == "POST");
  CHECK(what.url == "https://hub.example.org/api/v1/models/" + id);
  REQUIRE(header(what, "content-type"));
  CHECK(*header(what, "content-type") == "application/json");
  CHECK_FALSE(what.content);

  const auto body = nlohmann::ordered_json::parse(what.body);
  REQUIRE(body.size() == 2);
  CHECK(body["type"] == "metrics");
  REQUIRE(body["metrics"].size() == batch.size());
  std::size_t at = 0;
  for (const auto& item : body["metrics"].items()) {
    CHECK(item.key() == std::to_string(batch[at].first));
    CHECK(item.value().get<std::string>() == encode_metrics(*batch[at].second));
    ++at;
  }
  const json last = json::parse(body["metrics"]["2147483647"].get<std::string>());
  CHECK(last.at("quote\" and \\").get<double>() == 0.1 * 2147483647);
  CHECK(std::signbit(last.at("ü").get<double>()));
}

TEST_CASE("a metrics request of nothing is still JSON") {
  CHECK(metrics_request(key_caller(), {}).body == R"({"metrics": {}, "type": "metrics"})");
}

// ---- requests -------------------------------------------------------------------------------

TEST_CASE("each request goes to its place") {
  const caller who = key_caller();
  const auto file = std::make_shared<memory_body>("file");
  CHECK(auth_request(who).method + " " + auth_request(who).url ==
        "POST https://hub.example.org/api/v1/auth");
  CHECK(model_request(who).method + " " + model_request(who).url ==
        "GET https://hub.example.org/api/v1/models/" + id);
  CHECK(heartbeat_request(who, "a", "").method + " " + heartbeat_request(who, "a", "").url ==
        "POST https://hub.example.org/api/v1/agent/heartbeat/models/" + id);
  CHECK(create_model_request(who, {}).method + " " + create_model_request(who, {}).url ==
        "POST https://hub.example.org/api/v1/models");
  CHECK(upload_request(who, {}, file, "b").method + " " + upload_request(who, {}, file, "b").url ==
        "POST https://hub.example.org/api/v1/models/" + id + "/upload");
  CHECK(auth_request(who).body == "");
  CHECK(model_request(who).body == "");
}

TEST_CASE("every request carries the key or the token, the token where there are both") {
  const auto file = std::make_shared<memory_body>("file");
  const auto every_request = [&](const caller& who) {
    return std::vector<hub::request>{auth_request(who),
                                     model_request(who),
                                     heartbeat_request(who, "a", ""),
                                     metrics_request(who, {}),
                                     create_model_request(who, {}),
                                     upload_request(who, {}, file, "b")};
  };
  for (const hub::request& what : every_request({"https://host", key, "", id})) {
    REQUIRE(header(what, "x-api-key"));
    CHECK(*header(what, "x-api-key") == key);
    CHECK_FALSE(header(what, "authorization"));
  }
  for (const hub::request& what : every_request({"https://host", key, "token.of.mine", id})) {
    REQUIRE(header(what, "authorization"));
    CHECK(*header(what, "authorization") == "Bearer token.of.mine");
    CHECK_FALSE(header(what, "x-api-key"));
  }
  for (const hub::request& what : every_request({"https://host", "", "", id})) {
    CHECK_FALSE(header(what, "authorization"));
    CHECK_FALSE(header(what, "x-api-key"));
  }
}

TEST_CASE("a heartbeat names the agent, and its id once HUB has given one") {
  const hub::request first = heartbeat_request(key_caller(), "cpp-0.1.0-local", "");
  CHECK((json::parse(first.body) == json{{"agent", "cpp-0.1.0-local"}, {"agentId", nullptr}}));
  CHECK(*header(first, "content-type") == "application/json");
  const json odd = json::parse(heartbeat_request(key_caller(), "cpp", "agent \"1\"\n\xff").body);
  CHECK(odd["agentId"] == "agent \"1\"\n\xef\xbf\xbd");
}

TEST_CASE("a new model is described as later clients do") {
  const auto body = [](const hub::new_model& wanted) {
    return json::parse(create_model_request(key_caller(), wanted).body);
  };
  CHECK((body({.name = "my run", .dataset = "coco8"}) == json::parse(R"({
    "config": {"batchSize": -1, "epochs": 300, "imageSize": 640, "patience": 100, "device": "",
               "cache": "ram"},
    "dataset": {"name": "coco8"}, "lineage": {"architecture": {"name": "yolov8n"}},
    "meta": {"name": "my run"}})")));
  CHECK((body({.name = "n\"\xff",
               .dataset = "d",
               .architecture = "yolov8s.pt",
               .batch = 0.5,
               .epochs = 3,
               .imgsz = 32,
               .patience = 1,
               .device = "0,1",
               .cache = "disk"}) == json::parse(R"({
    "config": {"batchSize": 0.5, "epochs": 3, "imageSize": 32, "patience": 1, "device": "0,1",
               "cache": "disk"},
    "dataset": {"name": "d"},
    "lineage": {"architecture": {"name": "yolov8s"}, "parent": {"name": "yolov8s.pt"}},
    "meta": {"name": "n\"�"}})")));
  CHECK((body({.architecture = "custom"})["lineage"] ==
         json::parse(R"({"architecture": {"name": "custom"}})")));
}

// ---- uploads --------------------------------------------------------------------------------

namespace {

std::string body_of(const hub::request& what, std::size_t piece_bytes = 4096) {
  REQUIRE(what.content);
  return *read_all(*what.content, piece_bytes);
}

std::string file_text() {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text += static_cast<char>(byte);
  return text + "\r\n--BOUNDARY--\r\n";
}

}  // namespace

TEST_CASE("a checkpoint is framed byte for byte as the original frames it") {
  const hub::request what = upload_request(key_caller(), {.epoch = 7, .is_best = true},
                                           std::make_shared<memory_body>(file_text()), "BOUNDARY");
  REQUIRE(header(what, "content-type"));
  CHECK(*header(what, "content-type") == "multipart/form-data; boundary=BOUNDARY");
  CHECK(what.body == "");
  const std::string wanted =
      "--BOUNDARY\r\nContent-Disposition: form-data; name=\"epoch\"\r\n\r\n7\r\n"
      "--BOUNDARY\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nepoch\r\n"
      "--BOUNDARY\r\nContent-Disposition: form-data; name=\"isBest\"\r\n\r\nTrue\r\n"
      "--BOUNDARY\r\nContent-Disposition: form-data; name=\"last.pt\"; "
      "filename=\"last.pt\"\r\n\r\n" +
      file_text() + "\r\n--BOUNDARY--\r\n";
  CHECK(what.content->size_bytes() == wanted.size());
  CHECK(body_of(what) == wanted);
}

TEST_CASE("a final model is framed byte for byte as the original frames it") {
  const hub::request what = upload_request(
      key_caller(), {.epoch = 299, .is_final = true, .is_best = true, .map = 0.123456789},
      std::make_shared<memory_body>("weights"), "b0");
  CHECK(body_of(what) ==
        "--b0\r\nContent-Disposition: form-data; name=\"epoch\"\r\n\r\n299\r\n"
        "--b0\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nfinal\r\n"
        "--b0\r\nContent-Disposition: form-data; name=\"map\"\r\n\r\n0.123456789\r\n"
        "--b0\r\nContent-Disposition: form-data; name=\"best.pt\"; filename=\"best.pt\"\r\n\r\n"
        "weights\r\n--b0--\r\n");
}

TEST_CASE("the fields of an upload say what they mean for odd values too") {
  const auto field = [](const hub::upload_fields& fields, std::string_view name) {
    const std::string body =
        body_of(upload_request(key_caller(), fields, std::make_shared<memory_body>("f"), "b"));
    const std::string front = "name=\"" + std::string(name) + "\"\r\n\r\n";
    const std::size_t begin = body.find(front);
    REQUIRE(begin != std::string::npos);
    return body.substr(begin + front.size(),
                       body.find("\r\n", begin + front.size()) - begin - front.size());
  };
  CHECK(field({.epoch = std::numeric_limits<int>::min()}, "epoch") == "-2147483648");
  CHECK(field({.is_best = false}, "isBest") == "False");
  CHECK(std::stod(field({.is_final = true, .map = 1.0 / 3}, "map")) == 1.0 / 3);
  CHECK(std::stod(field({.is_final = true, .map = 0}, "map")) == 0);
  CHECK(field({.is_final = true, .map = std::nan("")}, "map") == "nan");
  CHECK(field({.is_final = true, .map = -std::nan("")}, "map") == "nan");
  CHECK(field({.is_final = true, .map = HUGE_VAL}, "map") == "inf");
  CHECK(field({.is_final = true, .map = -HUGE_VAL}, "map") == "-inf");
}

TEST_CASE("a body read in pieces of any size is the same body, whatever pieces the file gives") {
  for (std::size_t file_piece : {std::size_t{1}, std::size_t{7}, std::size_t{1000}}) {
    const hub::request what =
        upload_request(key_caller(), {.epoch = 1},
                       std::make_shared<memory_body>(file_text(), file_piece), "BOUNDARY");
    const std::string whole = body_of(what, 1 << 20);
    REQUIRE(whole.size() == what.content->size_bytes());
    for (std::size_t piece = 1; piece <= whole.size() + 1; ++piece)
      if (body_of(what, piece) != whole)
        FAIL_CHECK("pieces of " << piece << " over pieces of " << file_piece);
  }
}

TEST_CASE("a body can be read from any place, any number of times, up to its end") {
  const hub::request what = upload_request(key_caller(), {.epoch = 1},
                                           std::make_shared<memory_body>("weights"), "BOUNDARY");
  const std::string whole = body_of(what);
  for (std::size_t at = whole.size() + 1; at-- > 0;) {
    std::array<char, 16> out{};
    const auto got = what.content->read(at, out);
    REQUIRE(got);
    if ((*got == 0) != (at == whole.size()) || whole.compare(at, *got, out.data(), *got) != 0)
      FAIL_CHECK("at " << at);
  }
}

TEST_CASE("an empty file has a body too, and nothing is read into no room") {
  const hub::request what =
      upload_request(key_caller(), {}, std::make_shared<memory_body>(""), "b");
  CHECK(body_of(what, 1).size() == what.content->size_bytes());
  CHECK(body_of(what).ends_with("filename=\"last.pt\"\r\n\r\n\r\n--b--\r\n"));
  CHECK(*what.content->read(0, {}) == 0);
}

TEST_CASE("a file that fails under the upload fails the body there") {
  struct failing_body final : hub::body_source {
    std::uint64_t size_bytes() const override { return 100; }
    hub::result<std::size_t> read(std::uint64_t offset, std::span<char> out) override {
      if (offset >= 50) return hub::error{hub::errc::file_changed, "It changed."};
      return std::min<std::size_t>(out.size(), 50 - static_cast<std::size_t>(offset));
    }
  };
  const hub::request what = upload_request(key_caller(), {}, std::make_shared<failing_body>(), "b");
  const auto read = read_all(*what.content, 16);
  REQUIRE_FALSE(read);
  CHECK(read.error().code == hub::errc::file_changed);
}

// ---- replies --------------------------------------------------------------------------------

namespace {

constexpr auto wall = std::chrono::sys_days(std::chrono::October / 21 / 2026) + 7h + 28min;

hub::outcome judged(hub::reply answer) { return judge(answer, "an upload", wall, "HUB"); }

}  // namespace

TEST_CASE("each status means what HTTP says of it") {
  for (int status = 100; status < 700; ++status)
    if (meaning_of(status).verdict != verdict_of_status(status)) FAIL_CHECK(status);
}

TEST_CASE("a page of HTML is no confirmation, whatever its status") {
  for (const char* page : {"<html>", " \r\n<!doctype html>", "\xEF\xBB\xBF<p>"}) {
    const hub::outcome got = judged({.status = 200, .body = page});
    CHECK(got.verdict == hub::verdict::retry);
    CHECK(got.why.code == hub::errc::bad_reply);
  }
  for (const char* body : {"", "{}", "ok", "3 < 4"})
    CHECK(judged({.status = 200, .body = body}).verdict == hub::verdict::delivered);
}

TEST_CASE("every status has its verdict") {
  const std::map<int, hub::verdict> named = {
      {408, hub::verdict::retry},    {421, hub::verdict::retry},   {425, hub::verdict::retry},
      {429, hub::verdict::retry},    {499, hub::verdict::retry},   {400, hub::verdict::rejected},
      {413, hub::verdict::rejected}, {422, hub::verdict::rejected}};
  for (int status = 0; status < 1000; ++status) {
    const auto found = named.find(status);
    const hub::verdict wanted = status >= 200 && status < 300   ? hub::verdict::delivered
                                : found != named.end()          ? found->second
                                : status >= 500 && status < 600 ? hub::verdict::retry
                                                                : hub::verdict::denied;
    const hub::outcome got = judged({.status = status, .body = "{}"});
    if (got.verdict != wanted)
      FAIL_CHECK(status << " gives verdict " << static_cast<int>(got.verdict));
    if (wanted == hub::verdict::delivered) continue;
    if (got.why.http_status != status) FAIL_CHECK(status << " is not in the error");
    if (!contains(got.why.message, std::to_string(status)) ||
        !contains(got.why.message, "an upload"))
      FAIL_CHECK(status << " gives: " << got.why.message);
  }
}

TEST_CASE("what is tried again is said to be, and its code lets a session start without HUB") {
  for (int status = 300; status < 1000; ++status) {
    const hub::outcome got = judged({.status = status});
    const bool again = got.verdict == hub::verdict::retry;
    CAPTURE(status, got.why.message);
    if ((got.why.code == hub::errc::server_error || got.why.code == hub::errc::rate_limited) !=
        again)
      FAIL_CHECK("its code does not fit its verdict");
    if (contains(got.why.message, "tried again") != (again && status != 429))
      FAIL_CHECK("its words do not fit its verdict");
    if (contains(got.why.message, "not sent again") != (got.verdict == hub::verdict::rejected))
      FAIL_CHECK("its words do not fit its verdict");
    const hub::outcome download =
        hub::storage_host::judge_download({.status = status}, "storage.example", wall);
    if ((download.verdict == hub::verdict::retry) != again)
      FAIL_CHECK("a download has another verdict");
  }
}

TEST_CASE("every status that means something has its error") {
  const auto code = [](int status) { return judged({.status = status}).why.code; };
  CHECK(code(400) == hub::errc::rejected);
  CHECK(code(401) == hub::errc::not_authenticated);
  CHECK(code(403) == hub::errc::access_denied);
  CHECK(code(404) == hub::errc::unexpected_status);
  CHECK(code(408) == hub::errc::server_error);
  CHECK(code(413) == hub::errc::rejected);
  CHECK(code(418) == hub::errc::unexpected_status);
  CHECK(code(422) == hub::errc::rejected);
  CHECK(code(429) == hub::errc::rate_limited);
  for (int status = 500; status < 600; ++status) CHECK(code(status) == hub::errc::server_error);
  for (int status : {301, 302, 303, 307, 308}) {
    CHECK(code(status) == hub::errc::unexpected_status);
    CHECK(contains(judged({.status = status}).why.message, "Redirects are not followed"));
  }
}

TEST_CASE("a failure below HTTP is tried again, but for a file that changed or cannot be read") {
  for (hub::errc code : {hub::errc::not_reachable, hub::errc::tls_failed, hub::errc::timed_out,
                         hub::errc::cancelled, hub::errc::bad_reply, hub::errc::internal_error})
    CHECK(judged({.failure = hub::error{code, "why"}}).verdict == hub::verdict::retry);
  CHECK(judged({.failure = hub::error{hub::errc::file_changed, "why"}}).verdict ==
        hub::verdict::restart);
  CHECK(judged({.failure = hub::error{hub::errc::file_error, "why"}}).verdict ==
        hub::verdict::rejected);
  CHECK(judged({.failure = hub::error{hub::errc::timed_out, "It took too long."}}).why.message ==
        "It took too long.");
}

TEST_CASE("a reply that broke off is a failure, whatever its status was") {
  CHECK(judged({.status = 200, .failure = hub::error{hub::errc::not_reachable, "cut"}}).verdict ==
        hub::verdict::retry);
  CHECK(judged({.status = 400, .failure = hub::error{hub::errc::not_reachable, "cut"}}).verdict ==
        hub::verdict::retry);
}

TEST_CASE("HUB's own words are shown, made harmless") {
  const auto message = [](std::string body) {
    return judged({.status = 422, .body = std::move(body)}).why.message;
  };
  CHECK(contains(message(R"({"message": "Epoch 5 is too late"})"), "(\"Epoch 5 is too late\")"));
  CHECK(contains(message(R"({"message": "\u001b[2Jgone\n"})"), "?[2Jgone?"));
  CHECK(message(R"({"message": ")" + std::string(10000, 'a') + "\"}").size() < 600);
  for (const char* body :
       {"", "<html>", "{}", R"({"message": 5})", R"({"message": null})", R"(["message"])"})
    CHECK(contains(message(body), "HUB answered 422 to an upload. "));
}

TEST_CASE("a heartbeat counts only with content that can be read") {
  std::string agent_id;
  const auto beat = [&](int status, std::string body) {
    agent_id.clear();
    return judge_heartbeat({.status = status, .body = std::move(body)}, wall, agent_id);
  };
  CHECK(beat(200, R"({"data": {"agentId": "agent-1"}})").verdict == hub::verdict::delivered);
  CHECK(agent_id == "agent-1");
  CHECK(beat(200, "{}").verdict == hub::verdict::delivered);
  CHECK(agent_id == "");
  for (const char* body :
       {"", "ok", "<html>", R"({"data": {"agentId": )", R"({"data": {"agentId": 5}})"}) {
    CHECK(beat(200, body).verdict == hub::verdict::retry);
    CHECK(beat(200, body).why.code == hub::errc::bad_reply);
  }
  CHECK(beat(503, R"({"data": {"agentId": "agent-1"}})").verdict == hub::verdict::retry);
  CHECK(agent_id == "");
  CHECK(contains(beat(503, "").why.message, "a heartbeat"));
}

TEST_CASE("Retry-After may be seconds") {
  CHECK(parse_retry_after("0", wall) == 0s);
  CHECK(parse_retry_after("1", wall) == 1s);
  CHECK(parse_retry_after("0120", wall) == 120s);
  CHECK(parse_retry_after("86400", wall) == 24h);
  CHECK(parse_retry_after("86401", wall) == 24h);
  CHECK(parse_retry_after("9223372036854775807", wall) == 24h);
  CHECK(parse_retry_after("9223372036854775808", wall) == 24h);
  CHECK(parse_retry_after(std::string(1 << 20, '9'), wall) == 24h);
}

TEST_CASE("Retry-After may be a date, and one that is past is now") {
  CHECK(parse_retry_after("Wed, 21 Oct 2026 07:28:00 GMT", wall) == 0s);
  CHECK(parse_retry_after("Wed, 21 Oct 2026 07:28:01 GMT", wall) == 1s);
  CHECK(parse_retry_after("Wed, 21 Oct 2026 07:28:01 GMT", wall + 200ms) == 1s);
  CHECK(parse_retry_after("Wed, 21 Oct 2026 07:30:00 GMT", wall) == 2min);
  CHECK(parse_retry_after("Wed, 21 Oct 2026 07:27:59 GMT", wall) == 0s);
  CHECK(parse_retry_after("Thu, 22 Oct 2026 07:28:00 GMT", wall) == 24h);
  CHECK(parse_retry_after("Wed, 21 Oct 2037 07:28:00 GMT", wall) == 24h);
  CHECK(parse_retry_after("Thu, 01 Jan 1970 00:00:00 GMT", wall) == 0s);
  CHECK(parse_retry_after("Wed, 21 Oct 2026 07:28:60 GMT", wall) == 1min);  // a leap second
  const auto new_year = std::chrono::sys_days(std::chrono::January / 1 / 2027);
  CHECK(parse_retry_after("Thu, 31 Dec 2026 23:59:60 GMT", new_year - 1s) == 1s);
}

TEST_CASE("Retry-After may be a date that a clock of nanoseconds cannot hold") {
  CHECK(parse_retry_after("Fri, 31 Dec 9999 23:59:59 GMT", wall) == 24h);
  CHECK(parse_retry_after("Sat, 01 Jan 2300 00:00:00 GMT", wall) == 24h);
  CHECK(parse_retry_after("Mon, 01 Jan 0001 00:00:00 GMT", wall) == 0s);
  CHECK(parse_retry_after("Mon, 01 Jan 1601 00:00:00 GMT", wall) == 0s);
}

TEST_CASE("Retry-After knows every month and leap days") {
  int month = 0;
  for (const char* name :
       {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}) {
    const std::chrono::year_month_day day(std::chrono::year(2026),
                                          std::chrono::month(static_cast<unsigned>(++month)),
                                          std::chrono::day(15));
    CHECK(parse_retry_after("Mon, 15 "s + name + " 2026 00:00:09 GMT",
                            std::chrono::sys_days(day)) == 9s);
  }
  const auto march = std::chrono::sys_days(std::chrono::March / 1 / 2028);
  CHECK(parse_retry_after("Tue, 29 Feb 2028 23:59:59 GMT", march - 2s) == 1s);
}

TEST_CASE("Retry-After of any other form is nothing") {
  // clang-format off
  for (std::string_view text : {
      ""sv, " "sv, "-1"sv, "+1"sv, "1.5"sv, "1s"sv, "0x10"sv, "soon"sv, "1e3"sv, "1\0"sv,
      "\xef\xbc\x91"sv, "1, 2"sv, "Tue, 29 Feb 2026 00:00:00 GMT"sv,
      "Wed, 31 Sep 2026 07:28:00 GMT"sv, "Wed, 00 Oct 2026 07:28:00 GMT"sv,
      "Wed, 32 Oct 2026 07:28:00 GMT"sv, "Wed, 21 oct 2026 07:28:00 GMT"sv,
      "Wed, 21 Okt 2026 07:28:00 GMT"sv, "Wed, 21 anF 2026 07:28:00 GMT"sv,
      "Wed, 21 Oct 2026 24:00:00 GMT"sv, "Wed, 21 Oct 2026 07:60:00 GMT"sv,
      "Wed, 21 Oct 2026 07:28:61 GMT"sv, "Wed, 21 Oct 2026 07:28:00 UTC"sv,
      "Wed, 21 Oct 2026 07:28:00"sv, "Wed, 21 Oct 2026 07:28:00 GMT "sv,
      "Wed, 1 Oct 2026 07:28:00 GMT"sv, "Wed, 21 Oct 26 07:28:00 GMT"sv,
      "Wed, -1 Oct 2026 07:28:00 GMT"sv, "Wednesday, 21-Oct-26 07:28:00 GMT"sv,
      "Wed Oct 21 07:28:00 2026"sv, "Wed, 21 Oct 2026 07-28-00 GMT"sv,
      "Wed, 21 Oct 2026 07:28:00\0GMT"sv, "2026-10-21T07:28:00Z"sv}) {
    // clang-format on
    CAPTURE(text);
    CHECK_FALSE(parse_retry_after(text, wall));
  }
  CHECK_FALSE(parse_retry_after(std::string(1 << 20, 'a'), wall));
}

TEST_CASE("any byte at any place of a date gives a wait within a day, or none") {
  const std::string whole = "Wed, 21 Oct 2026 07:29:00 GMT";
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      const auto wait = parse_retry_after(with_byte(whole, at, byte), wall);
      if (wait && (*wait < 0s || *wait > 24h)) FAIL_CHECK("byte " << byte << " at " << at);
    }
}

TEST_CASE("what is set up wrong is not tried again at once, what may pass is") {
  for (hub::errc code :
       {hub::errc::invalid_endpoint, hub::errc::invalid_credentials, hub::errc::access_denied})
    CHECK(judged({.failure = hub::error{code, "the proxy"}}).verdict == hub::verdict::denied);
  for (hub::errc code : {hub::errc::not_reachable, hub::errc::timed_out, hub::errc::tls_failed,
                         hub::errc::cancelled})
    CHECK(judged({.failure = hub::error{code, "the network"}}).verdict == hub::verdict::retry);
}

TEST_CASE("where a proxy may have spoken, it is named beside the server") {
  const std::string words = "HUB, or the proxy p:3128 on the way, answered 403";
  CHECK(
      judged({.status = 403, .body = "<html>", .proxy = "p:3128"}).why.message.starts_with(words));
  CHECK(judged({.status = 403, .proxy = "p:3128"}).why.message.starts_with(words));
  CHECK(judged({.status = 403, .body = "{}", .proxy = "p:3128"})
            .why.message.starts_with("HUB answered 403"));
  CHECK(judged({.status = 403, .body = "<html>"}).why.message.starts_with("HUB answered 403"));
}

TEST_CASE("HUB's wish to wait is taken from every reply that is no success, and from no success") {
  for (int status : {401, 408, 429, 500, 503})
    CHECK(judged({.status = status, .retry_after = "7"}).retry_after == 7s);
  CHECK_FALSE(judged({.status = 429}).retry_after);
  CHECK_FALSE(judged({.status = 429, .retry_after = "later"}).retry_after);
  CHECK_FALSE(judged({.status = 200, .retry_after = "7"}).retry_after);
}

// ---- downloads ----------------------------------------------------------------------------------

TEST_CASE("a download asks for the whole, or for the rest of one version, and carries no key") {
  const std::string url = "https://storage.example/last.pt?sig=1";
  const hub::request whole = download_request(url, {.address = "https://storage.example/last.pt"});
  CHECK(whole.method == "GET");
  CHECK(whole.url == url);
  REQUIRE(whole.headers.size() == 1);
  CHECK(whole.headers[0].first == "user-agent");
  const hub::request rest = download_request(url, {"", "\"v1\"", 100, 7});
  REQUIRE(rest.headers.size() == 3);
  CHECK(rest.headers[1] == std::pair("range"s, "bytes=7-"s));
  CHECK(rest.headers[2] == std::pair("if-range"s, "\"v1\""s));
}

TEST_CASE("a redirect leads where clients would go, but from https to nothing else") {
  const auto leads = [](std::string_view from, std::string to) {
    const auto address =
        hub::storage_host::redirected_address(from, {.status = 302, .location = std::move(to)});
    return address ? *address : address.error().message;
  };
  CHECK(leads("http://a/b", "https://c/d") == "https://c/d");
  CHECK(leads("http://a/b", "http://c/d e") == "http://c/d%20e");
  CHECK(leads("https://a/b/c?x", "d?y#z") == "https://a/b/d?y");
  CHECK(contains(leads("https://a/b", "http://a/b"), "from https to http"));
  CHECK(contains(leads("https://a/b", ""), "does not say where to"));
  CHECK(contains(leads("https://a/b", "https://c:d/"), "its port is not a number"));
}

TEST_CASE("the size in a head is digits that fit, or none") {
  CHECK(parse_size("0") == 0u);
  CHECK(parse_size("18446744073709551615") == std::numeric_limits<std::uint64_t>::max());
  for (std::string_view text : {""sv, "-1"sv, "+1"sv, " 1"sv, "1 "sv, "1e3"sv, "0x10"sv, "1.0"sv,
                                "18446744073709551616"sv, "1\0"sv, "1\r\n"sv})
    CHECK_FALSE(parse_size(text));
}

}  // namespace protocol_tests
