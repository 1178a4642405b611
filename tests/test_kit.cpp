// SPDX-License-Identifier: MIT
//
// Tests of the test kit, which other people's tests rest on: that virtual time runs what is due
// and nothing else and catches what spins, that the HUB in memory is as strict as it says, that each
// fault does what its name says, and that what goes wrong unnoticed ends the test.

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/memory_body.hpp"
#include "support/scratch.hpp"
#include "support/text.hpp"
#include "support/world.hpp"

namespace test_kit_tests {

namespace {

using namespace std::chrono_literals;
using hub::errc;
using hub::testing::content_hash;
using hub::testing::endpoint;
using hub::testing::fake_hub;
using hub::testing::fake_transport;
using hub::testing::fault;
using hub::testing::fault_kind;
using hub::testing::http_date;
using hub::testing::server_reply;
using hub::testing::server_request;
using hub::testing::simulation;
using hub::testing::timeline;
using hub::testing::virtual_clock;
using hub::testing::virtual_sleeper;
using nlohmann::json;

using strings = std::vector<std::string>;

// What a piece of code throws as std::logic_error, "" where it does not.
template <class Work>
std::string logic_error_of(Work&& work) {
  try {
    work();
    return "";
  } catch (const std::logic_error& problem) {
    return problem.what();
  }
}

}  // namespace

// ---- virtual time -------------------------------------------------------------------------------

TEST_CASE("steps run in the order of their deadlines, ties in the order of registration") {
  timeline time;
  const hub::time_point begin = time.now();
  std::vector<std::string> ran;
  const auto every = [&](hub::duration interval, std::string_view name) {
    return hub::background_task{
        name, [&, interval, name] {
          ran.push_back(std::string(name) + " " + std::to_string((time.now() - begin) / 1s));
          return time.now() + interval;
        }};
  };
  time.add(every(3s, "slow"));
  time.add(every(2s, "fast"));
  time.add(every(3s, "late"));
  time.advance(6s);
  CHECK(ran == strings{"slow 0", "fast 0", "late 0", "fast 2", "slow 3", "late 3", "fast 4",
                       "slow 6", "fast 6", "late 6"});
  CHECK(time.now() == begin + 6s);
  CHECK(time.steps() == 10);
}

TEST_CASE("advance runs what is due by its end and not a nanosecond more") {
  timeline time;
  int ran = 0;
  time.add({"one", [&] { return ++ran, time.now() + 10s; }});
  time.advance(0s);
  CHECK(ran == 1);
  time.advance(10s - 1ns);
  CHECK(ran == 1);
  time.advance(1ns);
  CHECK(ran == 2);
}

TEST_CASE("a task that is done for ever is not called again unless it is woken") {
  timeline time;
  int ran = 0;
  const std::size_t id = time.add({"one", [&] { return ++ran, hub::never; }});
  time.advance(1000h);
  CHECK(ran == 1);
  time.wake(id);
  CHECK(ran == 1);  // on the next advance, never inside wake()
  time.advance(0s);
  CHECK(ran == 2);
}

TEST_CASE("a wake brings a task forward, also one that comes while it runs, and never back") {
  timeline time;
  std::vector<hub::time_point> ran;
  std::size_t id = 0;
  id = time.add({"one", [&] {
                   ran.push_back(time.now());
                   if (ran.size() == 1) time.wake(id);
                   return time.now() + 1h;
                 }});
  time.advance(1min);
  CHECK(ran.size() == 2);
  CHECK(ran[1] == ran[0]);
  time.wake(id);
  time.wake(id);
  time.advance(1min);
  CHECK(ran.size() == 3);
  CHECK(ran[2] == ran[0] + 1min);
  time.advance(1h);
  CHECK(ran.size() == 4);
}

TEST_CASE("a task that is removed is not called, and waking it does no harm") {
  timeline time;
  int ran = 0;
  const std::size_t id = time.add({"one", [&] { return ++ran, time.now() + 1s; }});
  time.remove(id);
  time.remove(id);
  time.wake(id);
  time.advance(1h);
  CHECK(ran == 0);
}

TEST_CASE("a deadline in the past is now: time never goes back") {
  timeline time;
  std::vector<hub::time_point> ran;
  time.add({"one", [&] {
              ran.push_back(time.now());
              return ran.size() < 3 ? time.now() - 1h : hub::never;
            }});
  const hub::time_point begin = time.now();
  time.advance(1s);
  CHECK(ran == std::vector<hub::time_point>(3, begin));
  CHECK(time.now() == begin + 1s);
}

TEST_CASE("a lane that spins at one moment is named, at a bound that can be set") {
  timeline time;
  int ran = 0;
  time.add({"good", [&] { return time.now() + 1s; }});
  time.add({"bad", [&] { return ++ran, time.now(); }});
  const std::string said = logic_error_of([&] { time.advance(1min); });
  INFO(said);
  CHECK(contains(said, "the lane 'bad' spins"));
  CHECK(contains(said, "without time going on"));
  CHECK(contains(said, "steps_at_once_max"));
  CHECK(ran == 10'000);
  ran = 0;
  time.steps_at_once_max = 20;
  CHECK(contains(logic_error_of([&] { time.advance(1min); }), "'bad'"));
  CHECK(ran == 20);
}

TEST_CASE("a lane that goes on in tiny steps is named, at a bound that can be set") {
  timeline time;
  std::uint64_t ran = 0;
  time.add({"good", [&] { return time.now() + 1s; }});
  time.add({"bad", [&] { return ++ran, time.now() + 1ns; }});
  const std::string said = logic_error_of([&] { time.advance(10h); });
  INFO(said);
  CHECK(contains(said, "the lane 'bad' spins"));
  CHECK(contains(said, "steps in one run"));
  CHECK(contains(said, "steps_per_run_max"));
  CHECK(ran == 1'000'000);
  ran = 0;
  time.steps_per_run_max = 500;
  CHECK(contains(logic_error_of([&] { time.advance(10h); }), "'bad'"));
  CHECK(ran == 500);
}

TEST_CASE(
    "the bounds are for one lane in one run, so that many runs and lanes may take their time") {
  timeline time;
  time.steps_at_once_max = 5;
  time.steps_per_run_max = 20;
  std::array<int, 3> left = {};
  for (int& each : left)
    time.add({"lane", [&] { return each-- > 0 ? time.now() : time.now() + 1min; }});
  for (int i = 0; i < 10; ++i) {
    left.fill(4);
    CHECK(logic_error_of([&] { time.advance(10min); }) == "");
  }
  for (int i = 0; i < 10; ++i) CHECK(logic_error_of([&] { time.advance(0s); }) == "");
}

TEST_CASE("a session's blocking call has the bound too, and says which lane spins") {
  world sim;
  auto session = sim.start();
  session.stop_heartbeat();
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.time.steps_per_run_max = 3;
  sim.hub.outage(0s, 1000h);
  CHECK_FALSE(session.on_train_end(0, "", 0).complete());
  CHECK(sim.said("the lane 'epochs' spins"));
}

TEST_CASE("a step that throws ends the run and is called again in the next") {
  timeline time;
  int ran = 0;
  const std::size_t id = time.add({"one", [&] {
                                     if (++ran == 1) throw std::runtime_error("it failed");
                                     return time.now() + 1h;
                                   }});
  CHECK_THROWS_AS(time.advance(1s), std::runtime_error);
  CHECK(ran == 1);
  time.advance(1s);
  CHECK(ran == 2);
  time.wake(id);
  time.advance(1s);
  CHECK(ran == 3);
}

TEST_CASE("the wall clock goes with virtual time, and jumps without it") {
  timeline time;
  const virtual_clock clock(time);
  const auto steady = clock.now();
  const auto wall = clock.wall_now();
  int ran = 0;
  time.add({"one", [&] { return ++ran, time.now() + 1h; }});
  time.advance(90min);
  CHECK(clock.now() == steady + 90min);
  CHECK(clock.wall_now() == wall + 90min);
  for (hub::duration by : {hub::duration(24h * 365), hub::duration(-24h * 365 * 30)}) {
    const auto before = clock.wall_now();
    time.jump_wall_clock(by);
    CHECK((clock.wall_now() == before + by));  // Catch2 cannot print libc++'s
    CHECK(clock.now() == steady + 90min);
  }
  time.advance(30min);
  CHECK(ran == 3);
}

TEST_CASE("a blocking wait lets time pass until it is done, or to its end") {
  timeline time;
  const hub::time_point begin = time.now();
  virtual_sleeper sleeper(time);
  int ran = 0;
  sleeper.start({{"one", [&] { return ++ran, time.now() + 10s; }}});
  CHECK(sleeper.wait_until(begin + 1h, [&] { return ran == 4; }));
  CHECK(time.now() == begin + 30s);
  CHECK_FALSE(sleeper.wait_until(begin + 35s, [] { return false; }));
  CHECK(time.now() == begin + 35s);
  CHECK(sleeper.wait_until(begin + 1h, [&] { return true; }));
  CHECK(time.now() == begin + 35s);
  CHECK_FALSE(sleeper.wait_until(begin, [] { return false; }));  // in the past
  CHECK(time.now() == begin + 35s);
  CHECK(ran == 4);
  CHECK(sleeper.wait_until(begin + 36s, [&] { return time.now() == begin + 36s; }));
}

TEST_CASE("while one session blocks, the others go on; a sleeper that stops stops its own tasks") {
  timeline time;
  virtual_sleeper one(time), other(time);
  int ones = 0, others = 0;
  one.start({{"one", [&] { return ++ones, time.now() + 1s; }}});
  other.start({{"other", [&] { return ++others, time.now() + 1s; }}});
  one.wait_until(time.now() + 10s, [] { return false; });
  CHECK(ones == 11);
  CHECK(others == 11);
  one.stop();
  other.wake(0);
  time.advance(1s);
  CHECK(ones == 11);
  CHECK(others == 13);
  other.stop();
  time.advance(1h);
  CHECK(others == 13);
}

// ---- what a HUB takes ---------------------------------------------------------------------------

namespace {

constexpr hub::time_point noon{12h};
const std::string model_id(20, 'm');
const std::string key(42, 'q');

// A HUB's logic with one key, one token and one model.
struct server : hub::testing::hub_logic {
  server() {
    add_key(key);
    add_token("token");
    add_model({.id = model_id});
  }
  server_reply post(std::string path, std::string body, hub::time_point now = noon) {
    server_request what;
    what.method = "POST";
    what.path = std::move(path);
    what.api_key = key;
    what.body = std::move(body);
    return handle(what, now);
  }
  server_reply upload(std::vector<hub::testing::form_part> form) {
    server_request what;
    what.method = "POST";
    what.path = "/v1/models/" + model_id + "/upload";
    what.api_key = key;
    what.form = std::move(form);
    return handle(what, noon);
  }
};

hub::testing::form_part field(std::string name, std::string content) {
  hub::testing::form_part out;
  out.name = std::move(name);
  out.size_bytes = content.size();
  out.hash = content_hash(content);
  out.content = std::move(content);
  return out;
}
hub::testing::form_part file(const std::string& name, std::string content = "weights") {
  hub::testing::form_part out = field(name, std::move(content));
  out.file_name = name;
  return out;
}

const std::string metrics_path = "/v1/models/" + model_id;
const std::string heartbeat_path = "/v1/agent/heartbeat/models/" + model_id;

std::string message_of(const server_reply& reply) {
  return hub::text::get_string(json::parse(reply.body), "message");
}

}  // namespace

TEST_CASE("a call that is none, an unknown key or model: refused, and before the body is there") {
  server hub;
  const auto asks = [&](std::string method, std::string path, std::string api_key,
                        std::string authorization = "") {
    server_request what;
    what.method = std::move(method);
    what.path = std::move(path);
    what.api_key = std::move(api_key);
    what.authorization = std::move(authorization);
    const auto early = hub.refusal(what);
    const server_reply reply = hub.handle(what, noon);
    CHECK((early ? early->status : 0) == (reply.status == 200 ? 0 : reply.status));
    return reply.status;
  };
  CHECK(asks("GET", metrics_path, key) == 200);
  CHECK(asks("GET", metrics_path, "", "Bearer token") == 200);
  CHECK(asks("GET", metrics_path, key, "Bearer other") ==
        401);  // the token counts where there is one
  CHECK(asks("GET", metrics_path, "") == 401);
  CHECK(asks("GET", metrics_path, key + "q") == 401);
  CHECK(asks("GET", "/v1/models/" + std::string(20, 'n'), key) == 404);
  for (const char* path : {"", "/", "/v1", "/v1/models/", "/v1/models//upload", "/v2/models",
                           "/v1/models/m/other", "/v1/agent/heartbeat/models/", "/v1/auth/"}) {
    CHECK(asks("POST", path, key) == 404);
    CHECK(asks("GET", path, key) == 404);
  }
  CHECK(asks("GET", metrics_path + "?x", key) == 404);
  CHECK(asks("PUT", metrics_path, key) == 404);
  CHECK(asks("GET", "/v1/auth", key) == 404);
  CHECK(asks("GET", "/v1/models/" + model_id + "/upload", key) == 404);
}

TEST_CASE("signing in says whether the key is known, and is refused to nobody") {
  server hub;
  server_request what;
  what.method = "POST";
  what.path = "/v1/auth";
  CHECK(json::parse(hub.handle(what, noon).body) == json{{"success", false}});
  what.api_key = key;
  CHECK(json::parse(hub.handle(what, noon).body) == json{{"success", true}});
}

TEST_CASE("metrics are taken as HUB takes them: each epoch's object encoded as a string") {
  server hub;
  CHECK(hub.post(metrics_path, R"({"metrics": {"3": "{\"a\": 1.5}", "4": "{\"a\": null}"},
                                   "type": "metrics"})")
            .status == 200);
  CHECK(hub.model(model_id).metrics.at(3) == json{{"a", 1.5}});
  CHECK(hub.model(model_id).metrics.at(4) == json{{"a", nullptr}});
  CHECK(hub.post(metrics_path, R"({"metrics": {"3": "{\"a\": 2}"}, "type": "metrics"})").status ==
        200);
  CHECK(hub.model(model_id).metrics.at(3) == json{{"a", 2}});
}

TEST_CASE("metrics that are anything else are refused, and none of them is taken") {
  server hub;
  for (const char* body : {
           "",
           "metrics",
           "[]",
           "{}",
           R"({"metrics": {"1": "{}"}})",
           R"({"metrics": {"1": "{}"}, "type": "other"})",
           R"({"metrics": ["{}"], "type": "metrics"})",
           R"({"metrics": null, "type": "metrics"})",
           R"({"metrics": {"1": {"a": 1}}, "type": "metrics"})",
           R"({"metrics": {"1": "{\"a\": NaN}"}, "type": "metrics"})",
           R"({"metrics": {"1": "[1]"}, "type": "metrics"})",
           R"({"metrics": {"1": "{\"a\": 1"}, "type": "metrics"})",
           R"({"metrics": {"one": "{}"}, "type": "metrics"})",
           R"({"metrics": {"1.0": "{}"}, "type": "metrics"})",
           R"({"metrics": {"": "{}"}, "type": "metrics"})",
           R"({"metrics": {"1": "{}", "2 ": "{}"}, "type": "metrics"})",
           R"({"metrics": {"1": "{}"}, "type": "metrics"} and more)",
           R"({"metrics": {"1": "{}"}, "type": "metrics")",
       }) {
    INFO(body);
    const server_reply reply = hub.post(metrics_path, body);
    CHECK(reply.status == 400);
    CHECK_FALSE(message_of(reply).empty());
    CHECK(hub.model(model_id).metrics.empty());
  }
}

TEST_CASE("a heartbeat names its agent, and gets an id where it has none") {
  server hub;
  const auto first = hub.post(heartbeat_path, R"({"agent": "cpp", "agentId": null})");
  const json id = json::parse(first.body).at("data").at("agentId");
  CHECK(id.is_string());
  const auto second = hub.post(heartbeat_path, json{{"agent", "cpp"}, {"agentId", id}}.dump());
  CHECK(json::parse(second.body).at("data").at("agentId") == id);
  CHECK(json::parse(hub.post(heartbeat_path, R"({"agent": "cpp", "agentId": null})").body)
            .at("data")
            .at("agentId") != id);
  CHECK(hub.model(model_id).heartbeats.size() == 3);
  CHECK(hub.model(model_id).heartbeats[1].agent_id == id);
  for (const char* body : {"", "[]", "{}", R"({"agent": "cpp"})", R"({"agentId": null})",
                           R"({"agent": "", "agentId": null})", R"({"agent": 7, "agentId": null})"})
    CHECK(hub.post(heartbeat_path, body).status == 400);
  CHECK(hub.model(model_id).heartbeats.size() == 3);
}

TEST_CASE("uploads are taken with their size, hash and fields, and contents where that is wanted") {
  server hub;
  const auto checkpoint = [&] {
    return hub.upload(
        {field("epoch", "7"), field("type", "epoch"), field("isBest", "True"), file("last.pt")});
  };
  CHECK(checkpoint().status == 200);
  hub.keep_contents = true;
  CHECK(checkpoint().status == 200);
  CHECK(hub.upload({field("epoch", "8"), field("type", "final"), field("map", "0.5"),
                    file("best.pt", "better")})
            .status == 200);
  const auto& all = hub.model(model_id).checkpoints;
  REQUIRE(all.size() == 3);
  CHECK(all[0].at == noon);
  CHECK(all[0].epoch == 7);
  CHECK(all[0].is_best);
  CHECK_FALSE(all[0].is_final);
  CHECK(all[0].size_bytes == 7);
  CHECK(all[0].hash == content_hash("weights"));
  CHECK(all[0].content == "");
  CHECK(all[1].content == "weights");
  CHECK(all[2].is_final);
  CHECK(all[2].map == 0.5);
  CHECK(hub.model(model_id).final_model() == &all[2]);
  CHECK(hub.model(model_id).about.state == hub::model_state::trained);
}

TEST_CASE("a map that is not finite is taken as Python writes it") {
  const auto taken = [](std::string_view map) {
    server hub;
    const server_reply reply = hub.upload({field("epoch", "8"), field("type", "final"),
                                           field("map", std::string(map)), file("best.pt")});
    CHECK(reply.status == 200);
    return hub.model(model_id).final_model()->map;
  };
  CHECK(std::isnan(taken("nan")));
  CHECK(taken("inf") == HUGE_VAL);
  CHECK(taken("-inf") == -HUGE_VAL);
}

TEST_CASE("uploads with a field or a file that is not what it must be are refused") {
  server hub;
  using form = std::vector<hub::testing::form_part>;
  const auto epoch = field("epoch", "7"), type = field("type", "epoch"),
             best = field("isBest", "False"), final_type = field("type", "final");
  hub::testing::form_part unnamed = field("last.pt", "weights");
  hub::testing::form_part misnamed = file("last.pt");
  misnamed.file_name = "model.pt";
  const std::vector<form> refused = {
      {},
      {file("last.pt")},
      {type, best, file("last.pt")},
      {field("epoch", ""), type, best, file("last.pt")},
      {field("epoch", "7x"), type, best, file("last.pt")},
      {field("epoch", "7.0"), type, best, file("last.pt")},
      {epoch, best, file("last.pt")},
      {epoch, field("type", "other"), best, file("last.pt")},
      {epoch, type, file("last.pt")},
      {epoch, type, field("isBest", "true"), file("last.pt")},
      {epoch, type, best},
      {epoch, type, best, file("best.pt")},
      {epoch, type, best, file("last.pt", "")},
      {epoch, type, best, unnamed},
      {epoch, type, best, misnamed},
      {epoch, type, file("last.pt"), best},
      {epoch, final_type, file("best.pt")},
      {epoch, final_type, field("map", ""), file("best.pt")},
      {epoch, final_type, field("map", "high"), file("best.pt")},
      {epoch, final_type, field("map", "0,5"), file("best.pt")},
      {epoch, final_type, field("map", "null"), file("best.pt")},
      {epoch, final_type, field("map", "NaN"), file("best.pt")},
      {epoch, final_type, field("map", "0.5"), file("last.pt")},
  };
  for (const form& each : refused) {
    INFO("form " << &each - refused.data());
    const server_reply reply = hub.upload(each);
    CHECK(reply.status == 400);
    CHECK_FALSE(message_of(reply).empty());
  }
  CHECK(hub.model(model_id).checkpoints.empty());
}

TEST_CASE("what the library sends is what the strict reader of forms takes apart") {
  const std::string content("\r\n--boundary \0 \xff--\r\n", 21);
  const hub::request sent = hub::hub_v1_wire::upload_request(
      {"https://hub", key, "", model_id}, {.epoch = 3, .is_best = true},
      std::make_shared<memory_body>(content), "boundaryBOUNDARY");
  const std::string body = *read_all(*sent.content);
  const auto form = hub::testing::parse_form(body, "boundaryBOUNDARY");
  REQUIRE(form);
  REQUIRE(form->size() == 4);
  CHECK(form->at(0).name == "epoch");
  CHECK(form->at(0).content == "3");
  CHECK(form->at(0).file_name == "");
  CHECK(form->at(3).name == "last.pt");
  CHECK(form->at(3).file_name == "last.pt");
  CHECK(form->at(3).content == content);
  CHECK(form->at(3).size_bytes == content.size());
  CHECK(form->at(3).hash == content_hash(content));
  // Cut anywhere, or followed by anything, it is none.
  for (std::size_t end = 0; end < body.size(); ++end)
    CHECK_FALSE(
        hub::testing::parse_form(std::string_view(body).substr(0, end), "boundaryBOUNDARY"));
  CHECK_FALSE(hub::testing::parse_form(body + "\r\n", "boundaryBOUNDARY"));
  CHECK_FALSE(hub::testing::parse_form("\r\n" + body, "boundaryBOUNDARY"));
  CHECK_FALSE(hub::testing::parse_form(body, "another"));
}

TEST_CASE("a form whose framing is off by a little is none") {
  const std::string head = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n";
  CHECK(hub::testing::parse_form(head + "1\r\n--b--\r\n", "b"));
  CHECK(hub::testing::parse_form(head + "\r\n--b--\r\n", "b"));
  CHECK(hub::testing::parse_form("--b--\r\n", "b"));
  for (const std::string& body : strings{
           "",
           "--b",
           "--b--",
           head + "1--b--\r\n",
           head + "1\n--b--\n",
           head + "1\r\n--b\r\n",
           head + "1\r\n--c--\r\n",
           "--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--\r\n",
           "--b\r\nContent-Disposition: form-data; filename=\"a\"\r\n\r\n1\r\n--b--\r\n",
           "--b\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n1\r\n--b--\r\n",
           "--b\r\nname=\"a\"\r\n\r\n1\r\n--b--\r\n",
           "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n1\r\n--b--\r\n",
       }) {
    INFO(body);
    CHECK_FALSE(hub::testing::parse_form(body, "b"));
  }
}

TEST_CASE("the content hash is FNV-1a, and can be taken piece by piece") {
  CHECK(content_hash("") == 0xcbf29ce484222325u);
  CHECK(content_hash("a") == 0xaf63dc4c8601ec8cu);
  CHECK(content_hash("foobar") == 0x85944171f73967e8u);
  CHECK(content_hash("bar", content_hash("foo")) == content_hash("foobar"));
}

TEST_CASE("models of every state and shape are described so that the library reads them") {
  using hub::testing::reply_shape;
  for (reply_shape shape : {reply_shape::flat, reply_shape::nested})
    for (hub::model_state state : {hub::model_state::fresh, hub::model_state::training}) {
      server hub;
      const std::string id = hub.add_model({.state = state, .shape = shape, .epochs = 17});
      CHECK(id.size() == hub::hub_v1_wire::model_id_length);
      server_request what;
      what.method = "GET";
      what.path = "/v1/models/" + id;
      what.api_key = key;
      const auto model = hub::hub_v1_wire::parse_model(hub.handle(what, noon).body, id);
      REQUIRE(model);
      CHECK(model->id == id);
      CHECK(model->state == state);
      const bool resumes = state == hub::model_state::training;
      CHECK(model->train_args.resume == resumes);
      CHECK(model->train_args.epochs == 17);
      CHECK_FALSE(model->model_file.empty());
      CHECK_FALSE(model->train_args.data.empty());
    }
}

TEST_CASE("a new model is made from what was asked for, and refused where something is missing") {
  server hub;
  const hub::request asked = hub::hub_v1_wire::create_model_request(
      {"https://hub", key, "", ""},
      {.name = "n", .dataset = "d", .architecture = "yolov8s.pt", .batch = 8, .epochs = 9});
  const server_reply reply = hub.post("/v1/models", asked.body);
  const std::string id = json::parse(reply.body).at("data").at("id");
  const auto& about = hub.model(id).about;
  CHECK(about.name == "n");
  CHECK(about.data == "d");
  CHECK(about.weights == "yolov8s.pt");
  CHECK(about.cfg == "");
  CHECK(about.batch == 8);
  CHECK(about.epochs == 9);
  json body = json::parse(asked.body);
  for (const char* part : {"config", "dataset", "lineage", "meta"}) {
    json without = body;
    without.erase(part);
    CHECK(hub.post("/v1/models", without.dump()).status == 400);
  }
  hub.make_id = [] { return std::string(20, 'x'); };
  CHECK(json::parse(hub.post("/v1/models", asked.body).body).at("data").at("id") ==
        std::string(20, 'x'));
}

TEST_CASE("an agent is disconnected after more than 15 minutes of silence, and is counted") {
  server hub;
  const std::string other = hub.add_model();
  const auto beat = [&](const std::string& id, const char* agent, hub::time_point now) {
    hub.post("/v1/agent/heartbeat/models/" + id, json{{"agent", "cpp"}, {"agentId", agent}}.dump(),
             now);
  };
  const hub::testing::hub_model& model = hub.model(model_id);
  CHECK_FALSE(model.connected(noon));
  CHECK(model.disconnections(noon) == 0);
  CHECK(hub.agents_disconnected(noon) == 0);  // it was never there

  beat(model_id, "a", noon);
  beat(other, "b", noon + 10min);
  CHECK(model.connected(noon + 15min));
  CHECK(model.disconnections(noon + 15min) == 0);
  CHECK(hub.agents_disconnected(noon + 15min) == 0);
  CHECK_FALSE(model.connected(noon + 15min + 1ns));
  CHECK(model.disconnections(noon + 15min + 1ns) == 1);
  CHECK(hub.agents_disconnected(noon + 15min + 1ns) == 1);
  CHECK(hub.agents_disconnected(noon + 30min) == 2);

  beat(model_id, "a", noon + 30min);
  CHECK(model.connected(noon + 30min));
  CHECK(model.disconnections(noon + 30min) == 1);
  CHECK(hub.agents_disconnected(noon + 30min) == 1);
  CHECK(model.disconnections(noon + 1h) == 2);

  // With another HUB's patience.
  CHECK_FALSE(model.connected(noon + 32min, 1min));
  CHECK(model.disconnections(noon + 1h, 45min) == 0);
  CHECK(hub.agents_disconnected(noon + 1h, 30min) == 1);
}

// ---- faults -------------------------------------------------------------------------------------

namespace {

// Time, a HUB with one model, and requests to it without a session.
struct bench {
  timeline time = {};
  fake_hub hub{time};
  std::string id = hub.add_model();
  fake_transport transport{hub};
  hub::hub_v1_wire::caller caller{std::string(fake_hub::api_root), fake_hub::api_key, "", id};

  hub::reply beat() {
    return transport.send(hub::hub_v1_wire::heartbeat_request(caller, "cpp", "agent"));
  }
  hub::reply fetch() { return transport.send(hub::hub_v1_wire::model_request(caller)); }
  hub::reply upload(std::string content = std::string(1000, 'w')) {
    hub::request what = hub::hub_v1_wire::upload_request(
        caller, {.epoch = 1}, std::make_shared<memory_body>(std::move(content)), "boundary");
    what.deadline = 1h;
    return transport.send(what);
  }
};

std::string code_of(const hub::reply& reply) {
  return reply.failure ? std::string(to_string(reply.failure->code)) : "";
}

}  // namespace

TEST_CASE("each fault does what its name says, and HUB acted or did not") {
  struct row {
    fault_kind kind;
    bool acted;
    int status;
    std::string code;
  };
  using enum fault_kind;
  const std::vector<row> rows = {{none, true, 200, ""},
                                 {refused, false, 0, "not_reachable"},
                                 {reset_before_body, false, 0, "not_reachable"},
                                 {reset_in_body, false, 0, "not_reachable"},
                                 {reset_after_body, false, 0, "not_reachable"},
                                 {reply_lost, true, 0, "not_reachable"},
                                 {timed_out, false, 0, "timed_out"},
                                 {drips, true, 0, "timed_out"},
                                 {status, false, 503, ""},
                                 {html, false, 200, ""},
                                 {truncated, true, 200, ""},
                                 {wrong_types, true, 200, ""}};
  CHECK(rows.size() == 1 + hub::testing::all_faults.size());
  for (const row& each : rows) {
    INFO("fault " << static_cast<int>(each.kind));
    for (bool uploads : {false, true}) {
      bench with;
      with.hub.latency = 2s;
      with.hub.fail_next({.kind = each.kind, .latency = 5s});
      const hub::reply reply = uploads ? with.upload() : with.beat();
      CHECK(reply.status == each.status);
      CHECK(code_of(reply) == each.code);
      const auto& model = with.hub.model(with.id);
      CHECK((uploads ? model.checkpoints.size() : model.heartbeats.size()) == (each.acted ? 1 : 0));
      CHECK(reply.latency == (each.code == "timed_out" ? (uploads ? hub::duration(1h) : 30s) : 7s));
      REQUIRE(with.hub.requests().size() == 1);
      CHECK(with.hub.requests()[0].fault == each.kind);
      CHECK(with.hub.requests()[0].status == each.status);
      CHECK((uploads ? with.upload() : with.beat()).status == 200);  // the next is as usual
    }
  }
}

TEST_CASE("replies that are garbled are so in their own way") {
  bench with;
  const std::string whole = with.fetch().body;
  const auto garbled = [&](fault_kind how) {
    with.hub.fail_next({how});
    return with.fetch().body;
  };
  CHECK(hub::text::is_page(garbled(fault_kind::html)));
  CHECK(garbled(fault_kind::truncated) == whole.substr(0, whole.size() / 2));
  const json wrong = json::parse(garbled(fault_kind::wrong_types));
  CHECK_FALSE(wrong.at("data").is_object());
  CHECK_FALSE(wrong.at("success").is_boolean());
}

TEST_CASE("a status comes with HUB's words and the Retry-After that the script wants") {
  bench with;
  const std::string date = http_date(with.time.wall_now() + 40s);
  for (const std::string& wish : strings{"", "0", "20", "100000", date, "soon"}) {
    with.hub.fail_next({fault_kind::status, 429, wish});
    const hub::reply reply = with.beat();
    CHECK(reply.status == 429);
    CHECK(reply.retry_after == wish);
    CHECK(json::parse(reply.body).contains("message"));
  }
  const auto asked = hub::text::parse_retry_after(date, with.time.wall_now());
  CHECK(asked == 40s);
}

TEST_CASE("a moment is written as HTTP writes it, whatever the locale") {
  const auto at = [](int year, unsigned month, unsigned day, hub::duration time) {
    const std::chrono::sys_days date =
        std::chrono::year(year) / std::chrono::month(month) / std::chrono::day(day);
    return http_date(std::chrono::system_clock::time_point(date) +
                     std::chrono::duration_cast<std::chrono::system_clock::duration>(time));
  };
  CHECK(at(1994, 11, 6, 8h + 49min + 37s) == "Sun, 06 Nov 1994 08:49:37 GMT");
  CHECK(at(2026, 1, 1, 30s) == "Thu, 01 Jan 2026 00:00:30 GMT");
  CHECK(at(2024, 2, 29, 24h - 1ns) == "Thu, 29 Feb 2024 23:59:59 GMT");
  CHECK(at(1969, 12, 31, 12h) == "Wed, 31 Dec 1969 12:00:00 GMT");
}

TEST_CASE("a reply that is later than the request's deadline is a time-out at that moment") {
  bench with;
  with.hub.fail_next({.latency = 31s});
  const hub::reply reply = with.beat();
  CHECK(code_of(reply) == "timed_out");
  CHECK(reply.latency == 30s);
  CHECK(with.hub.model(with.id).heartbeats.size() == 1);
  with.hub.latency_per_upload_byte = 1ms;
  const hub::reply slow = with.upload();
  CHECK(slow.latency > 1s);
  CHECK(slow.latency < 2s);
}

TEST_CASE("faults are met in the order of the script, each by what it is for") {
  bench with;
  with.hub.fail_next({fault_kind::refused});
  with.hub.fail_next(endpoint::model, {fault_kind::status, 500}, 2);
  with.hub.fail_next(endpoint::heartbeat, {fault_kind::status, 502});
  with.hub.fail_at(4, {fault_kind::status, 504});
  CHECK(with.fetch().status == 0);
  CHECK(with.beat().status == 502);
  CHECK(with.beat().status == 200);
  CHECK(with.fetch().status == 500);
  CHECK(with.fetch().status == 504);
  CHECK(with.fetch().status == 500);
  CHECK(with.fetch().status == 200);
  with.hub.fail_next({fault_kind::refused}, 1000);
  with.hub.no_more_faults();
  CHECK(with.fetch().status == 200);
}

TEST_CASE("an outage begins and ends at its moment") {
  bench with;
  with.hub.outage(10s, 20s);
  std::vector<int> statuses;
  for (int second : {0, 9, 10, 19, 20, 21}) {
    with.time.advance(hub::time_point(24h + std::chrono::seconds(second)) - with.time.now());
    statuses.push_back(with.beat().status);
  }
  CHECK(statuses == std::vector<int>{200, 200, 0, 0, 200, 200});
}

TEST_CASE("faults by seed: every kind, the same for the same seed, as often as asked for") {
  const auto run = [](std::uint64_t seed) {
    bench with;
    with.hub.fail_randomly(0.5, seed);
    for (int i = 0; i < 3000; ++i) static_cast<void>(with.beat());
    std::vector<std::pair<fault_kind, int>> out;
    for (const auto& each : with.hub.requests()) out.emplace_back(each.fault, each.status);
    return out;
  };
  const auto first = run(1);
  CHECK(first == run(1));
  CHECK(first != run(2));
  std::set<fault_kind> kinds;
  std::set<int> statuses;
  for (const auto& [kind, status] : first) {
    kinds.insert(kind);
    statuses.insert(status);
  }
  CHECK(kinds.size() == 1 + hub::testing::all_faults.size());
  CHECK(statuses == std::set<int>{0, 200, 401, 403, 408, 429, 500, 502, 503, 504});
  const auto faulty = std::count_if(
      first.begin(), first.end(), [](const auto& each) { return each.first != fault_kind::none; });
  CHECK(faulty > 1250);  // the others of the half are late
  CHECK(faulty < 1500);
}

TEST_CASE("faults by seed bring Retry-After of every kind, and replies that are late") {
  bench with;
  with.hub.fail_randomly(1, 1);
  std::set<std::optional<hub::duration>> wishes;
  std::set<std::string> texts;
  std::set<hub::duration> latencies;
  for (int i = 0; i < 3000; ++i) {
    const hub::reply reply = with.beat();
    latencies.insert(reply.latency);
    if (reply.status < 400) continue;
    texts.insert(reply.retry_after);
    wishes.insert(hub::text::parse_retry_after(reply.retry_after, with.time.wall_now()));
  }
  CHECK(latencies == std::set<hub::duration>{0s, 10ms, 1s, 10s, 30s});  // and then it is too late
  CHECK(texts.size() == 11);
  CHECK(wishes == std::set<std::optional<hub::duration>>{std::nullopt, 0s, 7s, 30s, 24h});
}

// ---- what happens to a file ---------------------------------------------------------------------

TEST_CASE("each thing that happens to a file happens to it, and can be seen") {
  using enum fault_kind;
  const std::string before(100, 'L');
  const auto after = [&](fault_kind how) -> std::optional<std::string> {
    const scratch_folder folder;
    const auto path = folder.write("last.pt", before);
    const auto seen = hub::machine::fingerprint_of(path);
    hub::testing::spoil(path, how);
    CHECK((hub::machine::fingerprint_of(path) == seen) == (how == none));
    if (!std::filesystem::exists(path)) return std::nullopt;
    return hub::machine::read_text_file(path);
  };
  CHECK(after(none) == before);
  CHECK(after(file_missing) == std::nullopt);
  CHECK(after(file_truncated) == before.substr(0, 50));
  CHECK(after(file_growing)->substr(0, 100) == before);
  CHECK(after(file_growing)->size() > 100);
  CHECK(after(file_overwritten)->size() == 100);
  CHECK(after(file_overwritten) != before);
  CHECK(after(file_replaced) != before);
  const scratch_folder folder;
  for (fault_kind how : hub::testing::all_file_faults) {
    hub::testing::spoil(folder / "none.pt", how);  // nothing to be done to
    CHECK_FALSE(std::filesystem::exists(folder / "none.pt"));
  }
}

TEST_CASE("what happens to a checkpoint in the middle of its upload never tears it") {
  using enum fault_kind;
  for (fault_kind how : hub::testing::all_file_faults)
    for (hub::snapshot kept : {hub::snapshot::copy, hub::snapshot::none}) {
      INFO("fault " << static_cast<int>(how) << (kept == hub::snapshot::copy ? ", copied" : ""));
      world sim;
      sim.with.snapshot = kept;
      sim.hub.keep_contents = true;
      const std::string before(4000, 'L');
      const auto last = sim.folder.write("last.pt", before);
      auto session = sim.start();
      session.on_pretrain_routine_end();
      sim.advance(15min);
      sim.hub.fail_next(endpoint::upload, {.kind = how, .file = last});
      session.on_model_save(1, last, false);
      sim.advance(10min);
      // A file that is replaced or gone stays readable as it was; one that was written to does not.
      const bool again = kept == hub::snapshot::none && how != file_missing && how != file_replaced;
      CHECK(sim.hub.count(endpoint::upload) == (again ? 2 : 1));
      REQUIRE(sim.model().checkpoints.size() == 1);
      CHECK(sim.model().checkpoints[0].content ==
            (again ? hub::machine::read_text_file(last) : before));
    }
}

TEST_CASE("what happens to a checkpoint may be left to a seed") {
  bench with;
  const scratch_folder folder;
  const auto last = folder.write("last.pt", "weights");
  with.hub.fail_randomly(1, 1, last);
  std::set<fault_kind> kinds;
  for (int i = 0; i < 300; ++i) {
    static_cast<void>(with.upload());
    static_cast<void>(with.beat());
  }
  for (const auto& each : with.hub.requests()) {
    kinds.insert(each.fault);
    if (each.to == endpoint::heartbeat)
      CHECK(std::count(hub::testing::all_file_faults.begin(), hub::testing::all_file_faults.end(),
                       each.fault) == 0);
  }
  CHECK(kinds.size() == 1 + hub::testing::all_faults.size() + hub::testing::all_file_faults.size());
  CHECK_FALSE(std::filesystem::exists(last));
}

// ---- what the test is told ----------------------------------------------------------------------

TEST_CASE("every request is listed with its moment, what it was and what became of it") {
  bench with;
  static_cast<void>(with.beat());
  with.time.advance(5min);
  with.hub.fail_next({fault_kind::refused});
  static_cast<void>(with.upload("weights"));
  const auto& all = with.hub.requests();
  REQUIRE(all.size() == 2);
  CHECK(all[0].at + 5min == all[1].at);
  CHECK(all[0].to == endpoint::heartbeat);
  CHECK(all[1].to == endpoint::upload);
  CHECK(all[0].method == "POST");
  CHECK(all[0].path == "/v1/agent/heartbeat/models/" + with.id);
  CHECK(all[1].body_bytes > 7);
  CHECK(all[0].status == 200);
  CHECK(all[1].status == 0);
  CHECK(with.hub.count(endpoint::upload) == 1);
  CHECK(with.hub.count(endpoint::metrics) == 0);
  with.hub.keep_requests = false;
  static_cast<void>(with.beat());
  CHECK(all.size() == 2);
}

TEST_CASE(
    "a test may change the world before a request is answered, and in the middle of an upload") {
  bench with;
  strings told;
  with.hub.on_request = [&](const hub::testing::seen_request& seen) {
    told.push_back(std::string(to_string(*seen.to)) + " " +
                   std::to_string(with.hub.model(with.id).heartbeats.size()));
  };
  with.hub.on_half_upload = [&] { told.push_back("half"); };
  static_cast<void>(with.beat());
  static_cast<void>(with.upload());
  with.hub.fail_next({fault_kind::reset_before_body});
  static_cast<void>(with.upload());
  CHECK(told == strings{"heartbeat 0", "upload 1", "half", "upload 1"});
}

TEST_CASE("a transport that was cancelled sends nothing more, and its copy does") {
  bench with;
  fake_transport copy = with.transport;
  with.transport.cancel();
  CHECK(code_of(with.beat()) == "cancelled");
  CHECK(with.hub.requests().empty());
  CHECK(copy.send(hub::hub_v1_wire::model_request(with.caller)).status == 200);
}

TEST_CASE("what HUB refuses is a problem, and what the script made fail is none") {
  bench with;
  with.hub.fail_next({fault_kind::status, 400}, 2);
  static_cast<void>(with.beat());
  static_cast<void>(with.upload());
  CHECK(with.hub.problems().empty());
  with.caller.model_id = std::string(20, 'n');
  CHECK(with.beat().status == 404);
  with.caller.model_id = with.id;
  with.caller.api_key = "other";
  CHECK(with.beat().status == 401);
  with.caller.api_key = fake_hub::api_key;
  with.caller.api_root += "/v0";
  CHECK(with.fetch().status == 404);
  with.caller.api_root = "https://elsewhere.test";
  CHECK(with.fetch().status == 404);
  const strings problems = with.hub.problems();
  REQUIRE(problems.size() == 4);
  CHECK(contains(problems[0], "404 to POST /v1/agent/heartbeat/models/nnn"));
  CHECK(contains(problems[1], "401"));
  CHECK(contains(problems[2], "404 to GET /v0/v1/models/"));
  CHECK(contains(problems[3], "404 to GET https://elsewhere.test/v1/models/"));
  with.hub.refusals_are_problems = false;
  CHECK(with.fetch().status == 404);
  CHECK(with.hub.problems().size() == 4);
}

TEST_CASE("a form that cannot be read is a problem of its own") {
  bench with;
  with.hub.refusals_are_problems = false;
  hub::request what = hub::hub_v1_wire::upload_request(
      with.caller, {.epoch = 1}, std::make_shared<memory_body>("weights"), "boundary");
  for (auto& [name, value] : what.headers)
    if (name == "content-type") value = "multipart/form-data; boundary=other";
  CHECK(with.transport.send(what).status == 400);
  REQUIRE(with.hub.problems().size() == 1);
  CHECK(contains(with.hub.problems()[0], "multipart body that cannot be read"));
}

TEST_CASE("a script of expectations answers in its order and tells of what else came or did not") {
  bench with;
  with.hub.expect(endpoint::model);
  with.hub.expect(endpoint::heartbeat, {fault_kind::status, 503});
  with.hub.expect(endpoint::upload, {fault_kind::refused});
  with.hub.expect(endpoint::heartbeat);
  CHECK(with.fetch().status == 200);
  CHECK(with.beat().status == 503);
  CHECK(with.hub.problems() ==
        strings{"expected but not seen: upload", "expected but not seen: heartbeat"});
  CHECK(with.beat().status == 200);  // out of turn
  CHECK(with.upload().status == 0);
  CHECK(with.hub.problems() == strings{"not expected: POST /v1/agent/heartbeat/models/" + with.id,
                                       "expected but not seen: heartbeat"});
  CHECK(with.beat().status == 200);
  CHECK(with.beat().status == 200);  // one too many
  CHECK(with.hub.problems().size() == 2);
}

TEST_CASE("an expectation looks at the body that arrives, whatever the answer is") {
  bench with;
  std::vector<std::string> bodies;
  const auto refuses = [&](std::string_view body) {
    bodies.emplace_back(body);
    return std::string("not as I like it");
  };
  with.hub.expect(endpoint::heartbeat, {}, [](std::string_view) { return std::string(); });
  with.hub.expect(endpoint::heartbeat, {}, refuses);
  with.hub.expect(endpoint::heartbeat, {fault_kind::refused}, refuses);  // never arrives
  with.hub.expect(endpoint::heartbeat, {fault_kind::status, 503}, refuses);
  with.hub.expect(endpoint::upload, {fault_kind::reset_in_body}, refuses);  // arrives by half
  with.hub.expect(endpoint::upload, {}, refuses);
  with.hub.expect(endpoint::heartbeat);
  for (int i = 0; i < 4; ++i) with.beat();
  for (int i = 0; i < 2; ++i) with.upload();
  with.beat();
  const std::string beat = "not as expected: POST /v1/agent/heartbeat/models/" + with.id;
  const std::string upload = "not as expected: POST /v1/models/" + with.id + "/upload";
  CHECK(with.hub.problems() == strings{beat + ": not as I like it", beat + ": not as I like it",
                                       upload + ": not as I like it"});
  REQUIRE(bodies.size() == 3);
  CHECK(contains(bodies[0], "\"agent\""));
  CHECK(bodies[2].size() > bodies[0].size());  // the file with what belongs to it
}

TEST_CASE("a whole session can be held to a script") {
  world sim;
  sim.hub.expect(endpoint::auth);
  sim.hub.expect(endpoint::model, {fault_kind::reply_lost});
  sim.hub.expect(endpoint::model);
  sim.hub.expect(endpoint::heartbeat);
  sim.hub.expect(endpoint::metrics, {fault_kind::drips});
  sim.hub.expect(endpoint::metrics);
  auto session = sim.start();
  sim.advance(1s);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(2min);
  CHECK(session.status().epochs_delivered == 1);
}

#if defined(__unix__) || defined(__APPLE__)
namespace {

// Whether `play` ends its process by abort(), and what it said on stderr meanwhile.
std::pair<bool, std::string> ends_the_program(const std::function<void()>& play) {
  std::array<int, 2> ends = {};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::signal(SIGABRT, SIG_DFL);  // Catch2 would report it
    ::dup2(ends[1], STDERR_FILENO);
    play();
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string said;
  std::array<char, 512> piece{};
  for (ssize_t got; (got = ::read(ends[0], piece.data(), piece.size())) > 0;)
    said.append(piece.data(), static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return {WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, said};
}

}  // namespace

TEST_CASE("problems that nobody asks for end the test with their text") {
  const auto stray = ends_the_program([] {
    bench with;
    with.caller.api_root += "/v0";
    static_cast<void>(with.fetch());
  });
  CHECK(stray.first);
  CHECK(contains(stray.second, "fake_hub: 404 to GET /v0/v1/models/"));

  const auto unexpected = ends_the_program([] {
    bench with;
    with.hub.expect(endpoint::model);
    static_cast<void>(with.fetch());
    static_cast<void>(with.beat());
  });
  CHECK(unexpected.first);
  CHECK(contains(unexpected.second, "fake_hub: not expected: POST"));

  const auto left = ends_the_program([] {
    bench with;
    with.hub.expect(endpoint::model);
  });
  CHECK(left.first);
  CHECK(contains(left.second, "fake_hub: expected but not seen: model"));
}

TEST_CASE(
    "a test without problems, one that asked, and one that fails by itself end as they would") {
  CHECK(ends_the_program([] {
          bench with;
          with.hub.expect(endpoint::model);
          static_cast<void>(with.fetch());
        }) == std::pair(false, std::string()));
  CHECK(ends_the_program([] {
          bench with;
          with.hub.expect(endpoint::model);
          static_cast<void>(with.hub.problems());
        }) == std::pair(false, std::string()));
  CHECK(ends_the_program([] {
          try {
            bench with;
            with.hub.expect(endpoint::model);
            throw std::runtime_error("the test's own failure");
          } catch (const std::runtime_error&) {
          }
        }) == std::pair(false, std::string()));
}
#endif

// ---- simulation ---------------------------------------------------------------------------------

TEST_CASE("a simulation's sessions ask nothing of the machine and say all in its log") {
  const environment no_key("ULTRALYTICS_API_KEY", "from the environment");
  const environment no_hub("ULTRALYTICS_HUB_API", "http://127.0.0.1:9");
  const environment no_rank("RANK", "3");
  simulation sim;
  const std::string id = sim.hub.add_model();
  {
    auto session = sim.start(id);
    session.on_pretrain_routine_end();
    CHECK(sim.log.size() == 1);
    CHECK(contains(sim.log[0], std::string(fake_hub::web_root) + "/models/" + id));
    sim.advance(10min);
    CHECK(sim.hub.model(id).heartbeats.size() == 3);
  }
  sim.advance(1h);
  CHECK(sim.hub.model(id).heartbeats.size() == 3);
  CHECK(sim.hub.problems().empty());
}

TEST_CASE("ten hours of training take some thousand steps and no time") {
  world sim;
  auto session = sim.start();
  for (int epoch = 0; epoch < 600; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    sim.advance(1min);
  }
  CHECK(session.on_train_end(599, "", 0).complete());
  CHECK(sim.now() == 36'000);
  CHECK(sim.time.steps() < 5000);
  CHECK(sim.model().disconnections(sim.time.now()) == 0);
  CHECK(sim.hub.agents_disconnected(sim.time.now() + 1h) == 1);
}

}  // namespace test_kit_tests
