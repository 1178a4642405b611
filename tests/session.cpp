// SPDX-License-Identifier: MIT
//
// Tests of the session: scripts on virtual time, of everything but uploads, which have
// tests/session_uploads.cpp to themselves. Nothing here sleeps or reads a clock, so every moment is
// exact; times are in seconds from the script's beginning.

#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "support/world.hpp"

namespace session_tests {

namespace {

using namespace std::chrono_literals;
using hub::errc;
using hub::testing::endpoint;
using hub::testing::fault;
using hub::testing::fault_kind;
using hub::testing::http_date;
using nlohmann::json;

fault answered(int status, std::string retry_after = "") {
  return {fault_kind::status, status, std::move(retry_after)};
}

// The distances from one moment to the next, rounded to a microsecond.
std::vector<double> gaps(const std::vector<double>& moments) {
  std::vector<double> out;
  for (std::size_t i = 1; i < moments.size(); ++i)
    out.push_back(std::round((moments[i] - moments[i - 1]) * 1e6) / 1e6);
  return out;
}
double shortest_gap(const std::vector<double>& moments) {
  const std::vector<double> all = gaps(moments);
  return all.empty() ? std::numeric_limits<double>::infinity()
                     : *std::min_element(all.begin(), all.end());
}
double longest_gap(const std::vector<double>& moments) {
  const std::vector<double> all = gaps(moments);
  return all.empty() ? 0 : *std::max_element(all.begin(), all.end());
}

// The epochs that a metrics request holds, in the order in which it holds them.
std::vector<int> epochs_in(const hub::request& what) {
  std::vector<int> out;
  const auto body = nlohmann::ordered_json::parse(what.body);
  for (const auto& [epoch, values] : body.at("metrics").items()) out.push_back(std::stoi(epoch));
  return out;
}

bool carries_metrics(const hub::request& what) {
  return contains(what.body, "\"type\": \"metrics\"");
}
bool is_heartbeat(const hub::request& what) { return contains(what.url, "/heartbeat/"); }

// A hundred epochs of a minute, with a checkpoint after each.
template <class Session>
hub::delivery train(world& sim, Session& session, int epoch_count = 100) {
  const auto last = sim.folder.write("last.pt", std::string(10'000, 'L'));
  const auto best = sim.folder.write("best.pt", std::string(20'000, 'B'));
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < epoch_count; ++epoch) {
    sim.advance(1min);
    session.on_fit_epoch_end(epoch, {{"train/loss", 1.0 / (epoch + 1)}});
    session.on_model_save(epoch, last, epoch % 2 == 0);
  }
  return session.on_train_end(epoch_count - 1, best, 0.5);
}

// Everything that can be told of what a HUB saw.
using trace = std::vector<std::tuple<double, std::string, std::uint64_t, int>>;
trace trace_of(const world& sim) {
  trace out;
  for (const auto& each : sim.hub.requests())
    out.emplace_back(sim.seconds(each.at), each.method + " " + each.path, each.body_bytes,
                     each.status);
  return out;
}

}  // namespace

// ---- a whole run --------------------------------------------------------------------------------

TEST_CASE("a session signs in, beats, reports, uploads and ends, in this order") {
  world sim;
  for (endpoint next :
       {endpoint::auth, endpoint::model, endpoint::heartbeat, endpoint::heartbeat,
        endpoint::metrics, endpoint::heartbeat, endpoint::heartbeat, endpoint::metrics,
        endpoint::upload, endpoint::heartbeat, endpoint::metrics, endpoint::upload})
    sim.hub.expect(next);
  auto session = sim.start();
  CHECK(session.model().id == sim.id);
  CHECK(session.model().state == hub::model_state::fresh);
  CHECK(session.model_file() == "yolov8n.yaml");
  CHECK(session.model_url() == "https://hub.test/models/" + sim.id);
  CHECK(session.train_args().epochs == 100);
  CHECK_FALSE(session.train_args().resume);

  session.on_pretrain_routine_end();
  const auto last = sim.folder.write("last.pt", "the last weights");
  for (int epoch = 0; epoch < 3; ++epoch) {
    sim.advance(8min);
    session.on_fit_epoch_end(epoch, {{"train/loss", 0.5 - 0.1 * epoch}, {"lr", 0.25}});
    if (epoch < 2) session.on_model_save(epoch, last, true);
  }
  const auto best = sim.folder.write("best.pt", "the best weights");
  const hub::delivery delivered = session.on_train_end(2, best, 0.4375);

  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 3);
  CHECK(delivered.checkpoints_delivered == 1);
  CHECK(delivered.final_model_delivered);
  CHECK(sim.now() == 3 * 480);
  CHECK(sim.moments(endpoint::upload) == std::vector<double>{960, 1440});

  CHECK(sim.epochs_on_hub() == epochs(0, 2));
  CHECK(sim.model().metrics.at(0).dump() == R"({"lr":0.25,"train/loss":0.5})");
  CHECK(sim.model().heartbeats.front().agent == "cpp-" HUB_SESSION_VERSION "-local");
  REQUIRE(sim.model().checkpoints.size() == 2);
  const auto& checkpoint = sim.model().checkpoints[0];
  CHECK(checkpoint.epoch == 1);
  CHECK(checkpoint.is_best);
  CHECK(checkpoint.hash == hub::testing::content_hash("the last weights"));
  REQUIRE(sim.model().final_model());
  CHECK(sim.model().final_model()->epoch == 2);
  CHECK(sim.model().final_model()->map == 0.4375);
  CHECK(sim.model().final_model()->hash == hub::testing::content_hash("the best weights"));
  CHECK(sim.said("Done"));
}

TEST_CASE("after the end of training nothing is sent any more") {
  world sim;
  auto session = sim.start();
  const hub::delivery delivered = train(sim, session, 3);
  const std::size_t requests = sim.hub.requests().size();
  session.on_fit_epoch_end(3, {{"a", 1}});
  session.on_model_save(3, sim.folder / "last.pt", true);
  session.upload_model(3, sim.folder / "last.pt", true);
  session.upload_metrics();
  sim.advance(1h);
  CHECK(sim.hub.requests().size() == requests);
  CHECK(session.on_train_end(3, sim.folder / "best.pt", 0.5).final_model_delivered);
  CHECK(sim.hub.requests().size() == requests);
  CHECK(delivered.complete());
}

TEST_CASE("a training that HUB has begun already goes on from its last weights") {
  world sim;
  for (auto shape : {hub::testing::reply_shape::flat, hub::testing::reply_shape::nested}) {
    sim.id = sim.hub.add_model({.state = hub::model_state::training, .shape = shape});
    auto session = sim.start();
    CHECK(session.model().state == hub::model_state::training);
    CHECK(session.train_args().resume);
    CHECK(session.model_file() == "last.pt");
    CHECK_FALSE(session.train_args().data.empty());
  }
}

TEST_CASE("a session whose first call is an epoch starts its timers then") {
  world sim;
  auto session = sim.start();
  sim.advance(1h);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(10s);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{3603});
  session.on_model_save(0, sim.folder.write("last.pt", "weights"), false);
  sim.advance(10s);
  CHECK(sim.hub.count(endpoint::upload) == 0);
}

TEST_CASE("training code that is no template reports through the abstract base") {
  world sim;
  auto session = sim.start();
  hub::training_callbacks& callbacks = session;
  CHECK(train(sim, callbacks, 20).complete());
  CHECK(sim.epochs_on_hub() == epochs(0, 19));
  CHECK(sim.model().checkpoints.size() == 2);
}

TEST_CASE("two sessions of one program go their own ways") {
  world sim;
  auto one = sim.start();
  sim.advance(100s);
  const std::string other = sim.hub.add_model();
  auto two = sim.simulation::start(other, sim.with);
  sim.advance(1s);
  one.on_fit_epoch_end(1, {{"a", 1}});
  two.on_fit_epoch_end(2, {{"a", 2}});
  sim.advance(20min);
  CHECK(sim.epochs_on_hub() == epochs(1, 1));
  CHECK(sim.hub.model(other).metrics.begin()->first == 2);
  CHECK(sim.model().heartbeats.front().agent_id !=
        sim.hub.model(other).heartbeats.front().agent_id);
  CHECK(sim.model().heartbeats.size() == 5);
  CHECK(sim.hub.model(other).heartbeats.size() == 5);
}

TEST_CASE("any_transport gives the same run as the transport that it holds") {
  world plain;
  plain.hub.fail_randomly(0.2, 7);
  plain.hub.fail_at(0, {});
  plain.hub.fail_at(1, {});
  {
    auto session = plain.start();
    train(plain, session);
  }
  world erased;
  erased.hub.fail_randomly(0.2, 7);
  erased.hub.fail_at(0, {});
  erased.hub.fail_at(1, {});
  {
    hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                hub::testing::virtual_sleeper>
        session(erased.id, erased.with, hub::testing::fake_transport(erased.hub),
                hub::testing::virtual_clock(erased.time),
                hub::testing::virtual_sleeper(erased.time));
    train(erased, session);
  }
  CHECK(trace_of(plain).size() > 100);
  CHECK(trace_of(plain) == trace_of(erased));
  CHECK(plain.log == erased.log);
}

TEST_CASE("the same seed gives the same run twice, another seed another one") {
  const auto run = [](std::uint64_t seed) {
    world sim;
    sim.with.retry.seed = seed;
    sim.hub.latency = 40ms;
    sim.hub.outage(20min, 50min);
    auto session = sim.start();
    sim.hub.fail_randomly(0.3, 11);
    train(sim, session);
    return std::pair(trace_of(sim), sim.log);
  };
  const auto first = run(5);
  CHECK(first == run(5));
  CHECK(first.first != run(6).first);
}

// ---- what the constructor refuses ---------------------------------------------------------------

TEST_CASE("the constructor says what is wrong, to what, and what to do, and never the key") {
  const std::string key(42, 'z');
  struct refusal {
    std::string about;
    errc code;
    std::string advice;  // in the message
    std::function<void(world&, std::string& identifier)> arrange;
  };
  const auto status = [](endpoint which, int number) {
    return [=](world& sim, std::string&) { sim.hub.fail_next(which, answered(number), 100); };
  };
  const auto broken = [](endpoint which, fault_kind kind) {
    return [=](world& sim, std::string&) { sim.hub.fail_next(which, {kind}, 100); };
  };
  const auto named = [](std::string text) {
    return [=](world&, std::string& identifier) { identifier = text; };
  };
  const auto with_key = [](std::string text) {
    return [=](world& sim, std::string&) { sim.with.credentials.api_key = text; };
  };
  const auto with_token = [](std::string text) {
    return [=](world& sim, std::string&) { sim.with.credentials.id_token = text; };
  };
  const auto with_api = [](std::string text) {
    return [=](world& sim, std::string&) { sim.with.endpoints.api = text; };
  };
  const std::string forms = "42 letters and digits";
  const std::vector<refusal> refusals = {
      {"an empty identifier", errc::invalid_identifier, forms, named("")},
      {"a short id", errc::invalid_identifier, "'short'", named("short")},
      {"a key without a model", errc::invalid_identifier, forms, named(key)},
      {"a key and a short id", errc::invalid_identifier, forms, named(key + "_short")},
      {"key and id swapped", errc::invalid_identifier, forms,
       named(std::string(20, 'm') + "_" + key)},
      {"a key that is too long", errc::invalid_identifier, forms,
       named(key + "z_" + std::string(20, 'm'))},
      {"a key with a dash in it", errc::invalid_identifier, forms,
       named(std::string(41, 'z') + "-_" + std::string(20, 'm'))},
      {"a key in another HUB's URL", errc::invalid_identifier, "https://hub.test/models/",
       named("https://other.test/models/" + key + "_" + std::string(20, 'm'))},
      {"a key in the query of another HUB's URL", errc::invalid_identifier,
       "'https://other.test/models/***'",
       named("https://other.test/models/" + std::string(20, 'm') + "?api_key=" + key)},
      {"a key with a space in the query of a URL", errc::invalid_credentials,
       "The API key from the identifier holds",
       named("https://hub.test/models/" + std::string(20, 'm') + "?api_key=" + key + "%20z")},
      {"an endpoint of another scheme", errc::invalid_endpoint, "http(s)://host[:port][/path]",
       with_api("ftp://hub.test")},
      {"an endpoint without a host", errc::invalid_endpoint, "host name", with_api("https://")},
      {"an endpoint with a password", errc::invalid_endpoint, "password",
       with_api("https://me:" + key + "@hub.test")},
      {"a key with a line break in it", errc::invalid_credentials,
       "The API key from session_options::credentials holds", with_key(key + "\n" + key)},
      {"a token with a space", errc::invalid_credentials, "Copy it again",
       with_token(std::string(30, 't') + " x")},
      {"no key at all", errc::not_authenticated, "Get one from https://hub.test/settings",
       with_key("")},
      {"a key that HUB does not know", errc::not_authenticated, "https://hub.test/settings",
       with_key(key)},
      {"a sign-in answered 401", errc::not_authenticated, "https://hub.test/settings",
       status(endpoint::auth, 401)},
      {"a sign-in answered 403", errc::not_authenticated, "https://hub.test/settings",
       status(endpoint::auth, 403)},
      {"a token that HUB does not know", errc::not_authenticated, "credentials.renew_id_token",
       with_token(std::string(30, 't'))},
      {"a model of somebody else", errc::access_denied, "the key of its owner",
       status(endpoint::model, 403)},
      {"a model that is not there", errc::unexpected_status, "Check the model's id",
       named(std::string(20, 'm'))},
      {"a redirect", errc::unexpected_status, "give the server's final address",
       status(endpoint::model, 302)},
      {"a trained model", errc::already_trained, "Make a new model",
       [](world& sim, std::string&) { sim.model().about.state = hub::model_state::trained; }},
      {"a dataset that is not ready", errc::dataset_not_ready, "start again when it is ready",
       [](world& sim, std::string&) { sim.model().about.data = ""; }},
      {"a request that HUB rejects", errc::rejected, "", status(endpoint::model, 400)},
      {"a HUB that is overrun", errc::rate_limited, "fewer requests", status(endpoint::model, 429)},
      {"a HUB with a fault", errc::server_error, "on its side", status(endpoint::auth, 503)},
      {"a HUB that does not listen", errc::not_reachable, "",
       broken(endpoint::auth, fault_kind::refused)},
      {"a HUB that hangs", errc::timed_out, "", broken(endpoint::auth, fault_kind::timed_out)},
      {"a portal before the sign-in", errc::bad_reply, "HTML page",
       broken(endpoint::auth, fault_kind::html)},
      {"a portal before the model", errc::bad_reply, "HTML page",
       broken(endpoint::model, fault_kind::html)},
      {"a sign-in of the wrong types", errc::bad_reply, "Check the server's address",
       broken(endpoint::auth, fault_kind::wrong_types)},
      {"a model of the wrong types", errc::bad_reply, "Check the server's address",
       broken(endpoint::model, fault_kind::wrong_types)},
      {"a model cut short", errc::bad_reply, "Check the server's address",
       broken(endpoint::model, fault_kind::truncated)},
  };
  for (const refusal& each : refusals) {
    INFO(each.about);
    const environment no_key("ULTRALYTICS_API_KEY", nullptr);
    world sim;
    sim.hub.refusals_are_problems = false;
    std::string identifier = sim.id;
    each.arrange(sim, identifier);
    try {
      auto session = sim.simulation::start(identifier, sim.with);
      FAIL_CHECK("not refused");
    } catch (const hub::session_error& problem) {
      INFO(problem.what());
      CHECK(to_string(problem.code()) == to_string(each.code));
      CHECK(problem.error().message == problem.what());
      CHECK(contains(problem.what(), each.advice));
      CHECK(problem.error().message.size() >= 10);
      CHECK(world::says_no_secret(problem.what()));
    }
    // What was refused leaves nothing behind that goes on.
    const std::size_t requests = sim.hub.requests().size();
    sim.advance(1h);
    CHECK(sim.hub.requests().size() == requests);
  }
}

TEST_CASE("addresses come from the options, else from the environment") {
  world sim;
  const environment api("ULTRALYTICS_HUB_API", "not an address");
  const environment web("ULTRALYTICS_HUB_WEB", " https://hub.test/\n");
  CHECK_NOTHROW(sim.start());
  sim.with.endpoints.web = "";
  CHECK(sim.start().model_url() == "https://hub.test/models/" + sim.id);
  {
    const environment nowhere("ULTRALYTICS_HUB_WEB", nullptr);
    CHECK(sim.start().model_url() == "https://api.hub.test/models/" + sim.id);
  }
  sim.with.endpoints.api = "";
  try {
    sim.start();
    FAIL_CHECK("not refused");
  } catch (const hub::session_error& problem) {
    CHECK(problem.code() == errc::invalid_endpoint);
  }
}

TEST_CASE("a key comes from the identifier, the options, the environment or the settings") {
  world sim;
  const environment none("ULTRALYTICS_API_KEY", nullptr);
  const std::string good = sim.hub.api_key;
  const std::string other(42, 'z');
  sim.with.credentials.settings_file = sim.folder / "settings.json";
  sim.with.credentials.api_key = "";
  const auto save = [&](const std::string& key) {
    sim.folder.write("settings.json", json{{"api_key", key}}.dump());
  };
  save(other);
  SECTION("the identifier's is the first") {
    const environment key("ULTRALYTICS_API_KEY", other.c_str());
    sim.with.credentials.api_key = other;
    CHECK_NOTHROW(sim.simulation::start(good + "_" + sim.id, sim.with));
    CHECK(sim.hub.count(endpoint::auth) == 1);
  }
  SECTION("then the options'") {
    const environment key("ULTRALYTICS_API_KEY", other.c_str());
    sim.with.credentials.api_key = good;
    CHECK_NOTHROW(sim.start());
  }
  SECTION("then the environment's") {
    const environment key("ULTRALYTICS_API_KEY", good.c_str());
    CHECK_NOTHROW(sim.start());
  }
  SECTION("then the settings', which needs no sign-in") {
    save(good);
    CHECK_NOTHROW(sim.start());
    CHECK(sim.hub.count(endpoint::auth) == 0);
  }
  SECTION("a key that is saved already needs no sign-in either") {
    save(good);
    sim.with.credentials.api_key = good;
    CHECK_NOTHROW(sim.start());
    CHECK(sim.hub.count(endpoint::auth) == 0);
  }
  SECTION("blanks and line ends around it do not count, wherever it comes from") {
    const environment key("ULTRALYTICS_API_KEY", (" " + good + "\n").c_str());
    CHECK_NOTHROW(sim.start());
    sim.with.credentials.api_key = good + "\r\n";
    CHECK_NOTHROW(sim.start());
    sim.with.credentials.api_key = " \n";  // is none
    CHECK_NOTHROW(sim.start());
    CHECK_NOTHROW(sim.simulation::start("\n" + good + "_" + sim.id + "\n", sim.with));
    sim.hub.add_token("token");
    sim.with.credentials.id_token = "token\n";
    sim.with.credentials.api_key = other;
    CHECK_NOTHROW(sim.start());
  }
  SECTION("where HUB refuses it, the place is named") {
    const environment key("ULTRALYTICS_API_KEY", other.c_str());
    sim.hub.refusals_are_problems = false;
    const auto why = [&] {
      try {
        sim.start();
      } catch (const hub::session_error& problem) {
        return std::string(problem.what());
      }
      return std::string();
    };
    CHECK(contains(why(), "from ULTRALYTICS_API_KEY"));
    sim.with.credentials.api_key = other;
    CHECK(contains(why(), "from session_options::credentials"));
  }
  SECTION("a page's query may hold it") {
    const std::string page = "HTTPS://hub.test:443/models/" + sim.id + "?api_key=" + good;
    CHECK(sim.simulation::start(page, sim.with).model_url() == "https://hub.test/models/" + sim.id);
  }
  SECTION("a token wins over all of them") {
    sim.hub.add_token("token");
    sim.with.credentials.id_token = "token";
    sim.with.credentials.api_key = other;
    CHECK_NOTHROW(sim.start());
    CHECK(sim.hub.count(endpoint::auth) == 0);
  }
}

TEST_CASE("an accepted key is saved where that is asked for, and a refused one never") {
  world sim;
  const std::string file = (sim.folder / "settings.json").string();
  sim.with.credentials.settings_file = file;
  CHECK_NOTHROW(sim.start());
  CHECK_FALSE(std::filesystem::exists(file));
  sim.with.credentials.save = true;
  CHECK_NOTHROW(sim.start());
  CHECK(json::parse(std::ifstream(file)).at("api_key") == sim.hub.api_key);
  sim.with.credentials.api_key = std::string(42, 'z');
  CHECK_THROWS_AS(sim.start(), hub::session_error);
  CHECK(json::parse(std::ifstream(file)).at("api_key") == sim.hub.api_key);
}

// ---- retries at the start -----------------------------------------------------------------------

TEST_CASE("sign-in and model are each tried four times before the constructor gives up") {
  world sim;
  sim.with.retry.jitter = false;
  SECTION("the fourth try gets through") {
    sim.hub.fail_next(endpoint::auth, answered(500), 3);
    sim.hub.fail_next(endpoint::model, {fault_kind::refused}, 3);
    auto session = sim.start();
    CHECK(sim.moments(endpoint::auth) == std::vector<double>{0, 1, 3, 7});
    CHECK(sim.moments(endpoint::model) == std::vector<double>{7, 8, 10, 14});
    CHECK(sim.now() == 14);
  }
  SECTION("the fourth failure is the last") {
    sim.hub.fail_next(endpoint::model, answered(504), 4);
    CHECK_THROWS_AS(sim.start(), hub::session_error);
    CHECK(sim.moments(endpoint::model) == std::vector<double>{0, 1, 3, 7});
  }
  SECTION("what no retry helps gets none") {
    sim.hub.fail_next(endpoint::model, answered(404));
    CHECK_THROWS_AS(sim.start(), hub::session_error);
    CHECK(sim.now() == 0);
  }
  SECTION("no retries where none are allowed") {
    sim.with.retry.start_retries_max = 0;
    sim.hub.fail_next(endpoint::auth, answered(503));
    CHECK_THROWS_AS(sim.start(), hub::session_error);
    CHECK(sim.hub.requests().size() == 1);
  }
}

TEST_CASE("each fault of the sign-in or the model that passes by is survived") {
  for (endpoint which : {endpoint::auth, endpoint::model})
    for (const named_fault& each : every_fault()) {
      using enum fault_kind;
      const bool garbled =
          each.what.kind == html || each.what.kind == truncated || each.what.kind == wrong_types;
      if (garbled || (each.what.kind == fault_kind::status &&
                      verdict_of_status(each.what.status) != hub::verdict::retry))
        continue;
      INFO(to_string(which) << ": " << each.name);
      world sim;
      sim.hub.fail_next(which, each.what, 2);
      CHECK_NOTHROW(sim.start());
      CHECK(sim.hub.count(which) == 3);
    }
}

TEST_CASE(
    "what a proxy or an overloaded server says for itself is tried again, at the start and the "
    "end") {
  for (int status : {421, 425, 499, 502, 507, 511, 520, 521, 522, 523, 524, 525, 530, 599}) {
    CAPTURE(status);
    world sim;
    sim.with.retry.jitter = false;
    sim.hub.fail_next(endpoint::auth, answered(status), 2);
    auto session = sim.start();
    CHECK(sim.now() == 3);
    session.on_fit_epoch_end(0, {{"loss", 1}});
    sim.hub.fail_next(endpoint::metrics, answered(status), 3);
    const double before = sim.now();
    CHECK(session.on_train_end(0, "", 0).complete());
    CHECK(sim.now() - before == 7);
  }
}

TEST_CASE("waits at the start are jittered up to the doubled delay") {
  std::set<double> ends;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    world sim;
    sim.with.retry.seed = seed;
    sim.hub.fail_next(endpoint::auth, answered(503), 3);
    auto session = sim.start();
    const std::vector<double> tries = sim.moments(endpoint::auth);
    REQUIRE(tries.size() == 4);
    CHECK(tries[1] - tries[0] <= 1);
    CHECK(tries[2] - tries[1] <= 2);
    CHECK(tries[3] - tries[2] <= 4);
    ends.insert(sim.now());
  }
  CHECK(ends.size() == 50);
  CHECK(*ends.begin() < 3);
  CHECK(*ends.rbegin() > 4);
}

TEST_CASE("a HUB that hangs holds the constructor up for its deadline and no longer") {
  world sim;
  sim.hub.fail_next({fault_kind::timed_out}, 100);
  try {
    sim.start();
    FAIL_CHECK("not refused");
  } catch (const hub::session_error& problem) {
    CHECK(problem.code() == errc::timed_out);
  }
  CHECK(sim.now() <= 120);
  CHECK(sim.now() > 90);
}

TEST_CASE("the constructor honours Retry-After, unless that is past its deadline") {
  world sim;
  sim.with.retry.jitter = false;
  SECTION("in time") {
    sim.hub.fail_next(endpoint::model, answered(429, "20"));
    auto session = sim.start();
    CHECK(sim.now() == 21);
  }
  SECTION("a date in time") {
    sim.hub.fail_next(endpoint::model, answered(503, http_date(sim.time.wall_now() + 50s)));
    auto session = sim.start();
    CHECK(sim.now() == 51);
  }
  SECTION("too late to wait for") {
    sim.hub.fail_next(endpoint::model, answered(429, "600"));
    CHECK_THROWS_AS(sim.start(), hub::session_error);
    CHECK(sim.now() == 0);
  }
}

// ---- heartbeats ---------------------------------------------------------------------------------

TEST_CASE("a heartbeat goes out at once and then every five minutes") {
  world sim;
  auto session = sim.start();
  sim.advance(20min);
  CHECK(sim.moments(endpoint::heartbeat) == std::vector<double>{0, 300, 600, 900, 1200});
  CHECK(session.status().heartbeats_answered == 5);
}

TEST_CASE("heartbeats keep their rhythm however long their replies take") {
  world sim;
  sim.hub.latency = 25s;
  auto session = sim.start();
  const double first = sim.now();
  sim.advance(20min);
  CHECK(sim.moments(endpoint::heartbeat) ==
        std::vector<double>{first, first + 300, first + 600, first + 900, first + 1200});
}

TEST_CASE("the agent id that HUB gives is sent back from then on, and a new one replaces it") {
  world sim;
  std::vector<json> sent;
  bool renamed = false;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!is_heartbeat(what)) return std::nullopt;
    sent.push_back(json::parse(what.body).at("agentId"));
    if (sent.size() != 3) return std::nullopt;
    renamed = true;
    return hub::reply{.status = 200, .body = R"({"data": {"agentId": "renamed"}})"};
  });
  sim.advance(10min);
  CHECK(session.status().agent_id == "renamed");
  sim.advance(10min);
  CHECK(sent == std::vector<json>{nullptr, "agent-1", "agent-1", "renamed", "renamed"});
}

TEST_CASE("an answer without an agent id changes nothing") {
  world sim;
  std::vector<json> sent;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!is_heartbeat(what)) return std::nullopt;
    sent.push_back(json::parse(what.body).at("agentId"));
    if (sent.size() == 1) return std::nullopt;
    return hub::reply{.status = 200, .body = sent.size() == 2 ? "{}" : R"({"data": null})"};
  });
  sim.advance(15min);
  CHECK(sent == std::vector<json>{nullptr, "agent-1", "agent-1", "agent-1"});
  CHECK(session.status().heartbeats_answered == 4);
}

TEST_CASE("heartbeats survive every kind of fault, with backoff") {
  for (const named_fault& each : every_fault()) {
    INFO(each.name);
    world sim;
    auto session = sim.start();
    sim.advance(301s);
    const std::string agent = session.status().agent_id;
    sim.hub.fail_next(endpoint::heartbeat, each.what, 2);
    sim.advance(20min);
    CHECK(longest_gap(sim.moments(endpoint::heartbeat)) <= 300);
    CHECK(sim.model().connected(sim.time.now()));
    CHECK(session.status().agent_id == agent);
    CHECK(sim.model().heartbeats.back().agent_id == agent);
    CHECK_FALSE(session.status().unanswered_since);
    CHECK(sim.hub.count(endpoint::heartbeat) >= 6);
  }
}

TEST_CASE("a beat that failed is tried again after a second at most, then two, then four") {
  world sim;
  sim.with.retry.jitter = false;
  sim.hub.fail_next(endpoint::heartbeat, answered(503), 4);
  auto session = sim.start();
  sim.advance(10min);
  CHECK(sim.moments(endpoint::heartbeat) == std::vector<double>{0, 1, 3, 7, 15, 315});
}

TEST_CASE("no heartbeat is more than the interval behind the last one in ten hours of faults") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    world sim;
    sim.with.retry.seed = seed;
    sim.hub.latency = 300ms;
    auto session = sim.start();
    sim.hub.fail_randomly(0.6, seed);
    sim.advance(10h);
    sim.hub.no_more_faults();
    CHECK(longest_gap(sim.moments(endpoint::heartbeat)) <= 300);
    CHECK(sim.hub.count(endpoint::heartbeat) < 600);
    sim.advance(5min);
    CHECK(sim.model().connected(sim.time.now()));
  }
}

TEST_CASE("HUB shows a training as disconnected in an outage, and as connected soon after") {
  world sim;
  auto session = sim.start();
  sim.hub.outage(1min, 4h);
  sim.advance(15min);
  CHECK(sim.model().connected(sim.time.now()));
  sim.advance(1s);
  CHECK_FALSE(sim.model().connected(sim.time.now()));
  sim.advance(4h - 15min - 1s);
  CHECK_FALSE(sim.model().connected(sim.time.now()));
  sim.advance(5min);
  CHECK(sim.model().connected(sim.time.now()));
}

TEST_CASE("a key that HUB quotes is hidden, wherever HUB's words are cut") {
  for (std::size_t lead = 0; lead < 260; ++lead) {
    world sim;
    auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
      if (!carries_metrics(what)) return std::nullopt;
      return hub::reply{.status = 422,
                        .body = "{\"message\": \"" + std::string(lead, 'x') +
                                hub::testing::fake_hub::api_key + "\"}"};
    });
    session.on_fit_epoch_end(0, {{"a", 1}});
    sim.advance(10s);
    REQUIRE(session.status().epochs_set_aside == 1);
    for (const std::string& line : sim.log)
      if (line.find("kkkk") != std::string::npos) FAIL_CHECK("after " << lead << ": " << line);
  }
}

TEST_CASE("stop_heartbeat stops the heartbeat and nothing else") {
  world sim;
  auto session = sim.start();
  sim.advance(6min);
  session.stop_heartbeat();
  sim.advance(1h);
  CHECK(sim.moments(endpoint::heartbeat) == std::vector<double>{0, 300});
  CHECK_FALSE(sim.model().connected(sim.time.now()));
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(10s);
  CHECK(sim.epochs_on_hub() == epochs(0, 0));
}

TEST_CASE("a HUB that is slower than a request may take counts as one that does not answer") {
  world sim;
  auto session = sim.start();
  sim.hub.latency = 40s;
  sim.advance(10min);
  CHECK(session.status().heartbeats_answered == 0);
  REQUIRE(session.status().unanswered_since);
  CHECK(sim.seconds(*session.status().unanswered_since) == 30);
  CHECK(session.status().unanswered_why->code == errc::timed_out);
}

// ---- status -------------------------------------------------------------------------------------

TEST_CASE("status tells since when HUB has not answered, and why") {
  world sim;
  auto session = sim.start();
  sim.advance(1min);
  CHECK_FALSE(session.status().unanswered_since);
  CHECK_FALSE(session.status().unanswered_why);
  CHECK(session.status().agent_id == "agent-1");

  sim.hub.outage(1min, 2h);
  sim.advance(1h);
  const hub::session_status during = session.status();
  REQUIRE(during.unanswered_since);
  CHECK(sim.seconds(*during.unanswered_since) == 300);
  REQUIRE(during.unanswered_why);
  CHECK(during.unanswered_why->code == errc::not_reachable);
  CHECK_FALSE(during.unanswered_why->message.empty());

  sim.advance(2h);
  CHECK_FALSE(session.status().unanswered_since);
  CHECK_FALSE(session.status().unanswered_why);
}

TEST_CASE("status tells of every kind of answer to a heartbeat that is none") {
  using enum fault_kind;
  const std::map<fault_kind, errc> codes = {{refused, errc::not_reachable},
                                            {reset_before_body, errc::not_reachable},
                                            {reset_in_body, errc::not_reachable},
                                            {reset_after_body, errc::not_reachable},
                                            {reply_lost, errc::not_reachable},
                                            {timed_out, errc::timed_out},
                                            {drips, errc::timed_out},
                                            {html, errc::bad_reply},
                                            {truncated, errc::bad_reply},
                                            {wrong_types, errc::bad_reply}};
  const std::map<int, errc> statuses = {{302, errc::unexpected_status}, {400, errc::rejected},
                                        {401, errc::not_authenticated}, {403, errc::access_denied},
                                        {404, errc::unexpected_status}, {408, errc::server_error},
                                        {413, errc::rejected},          {422, errc::rejected},
                                        {429, errc::rate_limited},      {500, errc::server_error},
                                        {502, errc::server_error},      {503, errc::server_error},
                                        {504, errc::server_error}};
  for (const named_fault& each : every_fault()) {
    INFO(each.name);
    world sim;
    auto session = sim.start();
    sim.advance(1s);
    sim.hub.fail_next(endpoint::heartbeat, each.what, 1000);
    sim.advance(20min);
    const hub::session_status now = session.status();
    CHECK(now.heartbeats_answered == 1);
    CHECK(sim.log.size() == 1);
    CHECK(now.unanswered_since);
    CHECK(now.unanswered_why);
    if (!now.unanswered_since || !now.unanswered_why) continue;
    CHECK(sim.seconds(*now.unanswered_since) >= 300);
    CHECK(sim.seconds(*now.unanswered_since) <= 330);
    const errc expected =
        each.what.kind == status ? statuses.at(each.what.status) : codes.at(each.what.kind);
    CHECK(to_string(now.unanswered_why->code) == to_string(expected));
  }
}

TEST_CASE("what was accepted is delivered, queued or set aside, at every moment") {
  world sim;
  auto session = sim.start();
  sim.hub.fail_randomly(0.5, 3);
  for (int epoch = 0; epoch < 300; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    sim.advance(7s);
    const hub::session_status now = session.status();
    REQUIRE(now.epochs_accepted == static_cast<std::size_t>(epoch) + 1);
    REQUIRE(now.epochs_accepted == now.epochs_delivered + now.epochs_queued + now.epochs_set_aside);
  }
}

TEST_CASE("an outage of ten hours is said in a few lines") {
  world sim;
  auto session = sim.start();
  sim.hub.outage(5min, 10h);
  for (int epoch = 0; epoch < 660; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    sim.advance(1min);
  }
  CHECK(sim.epochs_on_hub() == epochs(0, 659));
  CHECK(sim.said("The server answers again"));
  CHECK(sim.log.size() <= 6);
}

// ---- metrics ------------------------------------------------------------------------------------

TEST_CASE("the first metrics leave three seconds after training started, not before") {
  world sim;
  auto session = sim.start();
  sim.advance(10s);
  session.on_pretrain_routine_end();
  sim.advance(1s);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1min);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{13});
}

TEST_CASE("an epoch that comes after a pause leaves at once") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(1min);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1min);
  session.on_fit_epoch_end(1, {{"a", 1}});
  sim.advance(1min);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{60, 120});
}

TEST_CASE("fast epochs leave together, every three seconds") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < 100; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    sim.advance(100ms);
  }
  sim.advance(3s);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{3, 6, 9, 12});
  CHECK(sim.epochs_on_hub() == epochs(0, 99));
}

TEST_CASE("metrics are not sent faster than their limit, whatever the faults and latencies") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    world sim;
    sim.with.retry.seed = seed;
    sim.hub.latency = std::chrono::milliseconds(seed * 500);
    auto session = sim.start();
    sim.hub.fail_randomly(0.4, seed);
    for (int epoch = 0; epoch < 200; ++epoch) {
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(std::chrono::milliseconds(500 + 37 * epoch));
    }
    CHECK(shortest_gap(sim.moments(endpoint::metrics)) >= 3);
  }
}

TEST_CASE("an outage loses nothing: what waited leaves in one go, in order") {
  world sim;
  std::vector<std::vector<int>> batches;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (carries_metrics(what)) batches.push_back(epochs_in(what));
    return std::nullopt;
  });
  sim.hub.outage(10min, 40min);
  for (int epoch = 0; epoch < 60; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"train/loss", 60 - epoch}});
    sim.advance(1min);
  }
  CHECK(sim.epochs_on_hub() == epochs(0, 59));
  for (const auto& [epoch, values] : sim.model().metrics)
    CHECK(values.at("train/loss") == 60 - epoch);
  for (const std::vector<int>& batch : batches) CHECK(std::is_sorted(batch.begin(), batch.end()));
  const auto longest = std::max_element(batches.begin(), batches.end(),
                                        [](auto& a, auto& b) { return a.size() < b.size(); });
  CHECK(longest->size() >= 30);
  CHECK(longest->front() == 10);
  CHECK(session.status().epochs_delivered == 60);
  CHECK(session.status().epochs_queued == 0);
}

TEST_CASE("no kind of fault loses an epoch or puts two out of order") {
  for (const named_fault& each : every_fault()) {
    if (ends_delivery(each.what)) continue;
    INFO(each.name);
    world sim;
    sim.hub.latency = 700ms;
    int newest = -1;
    bool ordered = true;
    auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
      if (!carries_metrics(what)) return std::nullopt;
      const std::vector<int> batch = epochs_in(what);
      ordered =
          ordered && std::is_sorted(batch.begin(), batch.end()) && batch.front() <= newest + 1;
      newest = std::max(newest, batch.back());
      return std::nullopt;
    });
    for (int epoch = 0; epoch < 20; ++epoch) {
      if (epoch % 5 == 2) sim.hub.fail_next(endpoint::metrics, each.what, 2);
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(4s);
    }
    sim.advance(2h);
    CHECK(ordered);
    CHECK(sim.epochs_on_hub() == epochs(0, 19));
    CHECK(session.status().epochs_delivered == 20);
    CHECK(session.status().epochs_set_aside == 0);
  }
}

TEST_CASE("the last value of an epoch wins, also where another one is on its way") {
  world sim;
  sim.hub.latency = 2s;
  auto session = sim.start();
  session.on_fit_epoch_end(0, {{"a", 1}});
  session.on_fit_epoch_end(0, {{"a", 2}, {"b", 2}});
  sim.advance(4s);
  CHECK(sim.hub.count(endpoint::metrics) == 1);
  session.on_fit_epoch_end(0, {{"a", 3}});
  sim.advance(1min);
  CHECK(sim.model().metrics.at(0).dump() == R"({"a":3})");
  CHECK(sim.hub.count(endpoint::metrics) == 2);
  const hub::session_status now = session.status();
  CHECK(now.epochs_accepted == now.epochs_delivered);
  CHECK(now.epochs_queued == 0);
}

TEST_CASE("an old value that failed does not come back over a newer one") {
  world sim;
  sim.hub.fail_next(endpoint::metrics, {fault_kind::reply_lost});
  auto session = sim.start();
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(3s);
  session.on_fit_epoch_end(0, {{"a", 2}});
  sim.advance(1min);
  CHECK(sim.model().metrics.at(0).dump() == R"({"a":2})");
}

TEST_CASE("what waited long goes out in bounded batches at the usual pace") {
  world sim;
  sim.hub.outage(0s, 1h);
  std::vector<std::size_t> sizes;
  sim.hub.no_more_faults();
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!carries_metrics(what)) return std::nullopt;
    if (sim.now() < 3600) return hub::reply{.status = 503};
    sizes.push_back(epochs_in(what).size());
    return std::nullopt;
  });
  for (int epoch = 0; epoch < 250; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
  sim.advance(2h);
  CHECK(sizes == std::vector<std::size_t>{100, 100, 50});
  CHECK(shortest_gap(sim.moments(endpoint::metrics)) >= 3);
  CHECK(sim.epochs_on_hub() == epochs(0, 249));
}

TEST_CASE("a batch is bounded in bytes, and still takes an epoch that is larger alone") {
  world sim;
  sim.with.limits.metrics_batch_bytes_max = 4000;
  std::vector<std::size_t> sizes;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (carries_metrics(what)) {
      sizes.push_back(epochs_in(what).size());
      if (sizes.back() > 1) CHECK(what.body.size() < 8000);
    }
    return std::nullopt;
  });
  const std::string name(400, 'n');
  for (int epoch = 0; epoch < 50; ++epoch) session.on_fit_epoch_end(epoch, {{name, epoch}});
  const std::string huge(10'000, 'h');
  session.on_fit_epoch_end(50, {{huge, 50}});
  session.on_fit_epoch_end(51, {{name, 51}});
  sim.advance(1h);
  CHECK(sim.epochs_on_hub() == epochs(0, 51));
  CHECK(sizes.size() >= 7);
  CHECK(*std::max_element(sizes.begin(), sizes.end()) < 12);
}

TEST_CASE("a queue that is full sets the oldest epochs aside, counts them and says it once") {
  world sim;
  sim.with.limits.metrics_queue_bytes_max = 20'000;
  auto session = sim.start();
  sim.hub.outage(0s, 1h);
  const std::string name(500, 'n');
  for (int epoch = 0; epoch < 100; ++epoch) {
    session.on_fit_epoch_end(epoch, {{name, epoch}});
    sim.advance(10s);
  }
  const hub::session_status full = session.status();
  CHECK(full.epochs_accepted == 100);
  CHECK(full.epochs_queued < 40);
  CHECK(full.epochs_queued + full.epochs_set_aside == 100);
  CHECK(sim.lines_with("queue is full") == 1);
  sim.advance(2h);
  CHECK(sim.epochs_on_hub() == epochs(static_cast<int>(full.epochs_set_aside), 99));
  const hub::delivery delivered = session.on_train_end(99, "", 0);
  CHECK_FALSE(delivered.complete());
  CHECK(delivered.epochs_set_aside == full.epochs_set_aside);
  REQUIRE(delivered.why);
  CHECK(delivered.why->code == errc::queue_full);
}

TEST_CASE("NaN and infinities arrive as null, and the log says so once") {
  world sim;
  auto session = sim.start();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinite = std::numeric_limits<double>::infinity();
  session.on_fit_epoch_end(0, {{"a", nan}, {"b", infinite}, {"c", -infinite}, {"d", 4}});
  for (int epoch = 1; epoch < 10; ++epoch) session.on_fit_epoch_end(epoch, {{"a", nan}});
  sim.advance(1min);
  CHECK(sim.model().metrics.at(0).dump() == R"({"a":null,"b":null,"c":null,"d":4})");
  CHECK(sim.model().metrics.at(9).dump() == R"({"a":null})");
  CHECK(sim.lines_with("NaN") == 1);
  CHECK(sim.lines_with("epoch 0") == 1);
  CHECK(session.on_train_end(9, "", 0).complete());
}

TEST_CASE("metrics with names and numbers of every kind arrive as they were") {
  world sim;
  auto session = sim.start();
  session.on_fit_epoch_end(-3, {});
  session.on_fit_epoch_end(7, {{"metrics/mAP50-95(B)", 0.1},
                               {"quote\" slash\\ tab\t", 1e-300},
                               {"größe", -0.0},
                               {"", 1.7976931348623157e308}});
  sim.advance(1min);
  CHECK(sim.model().metrics.at(-3).dump() == "{}");
  const json& values = sim.model().metrics.at(7);
  CHECK(values.at("metrics/mAP50-95(B)") == 0.1);
  CHECK(values.at("quote\" slash\\ tab\t") == 1e-300);
  CHECK(std::signbit(values.at("größe").get<double>()));
  CHECK(values.at("") == 1.7976931348623157e308);
}

TEST_CASE("an epoch that HUB refuses for good is found, set aside, counted and said") {
  for (int refusal : {400, 413, 422}) {
    INFO("status " << refusal);
    for (const std::set<int>& culprits : {std::set<int>{0}, std::set<int>{7}, std::set<int>{99},
                                          std::set<int>{3, 4, 50}, std::set<int>{0, 31, 62, 93}}) {
      world sim;
      bool refusing = true;
      auto session =
          start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
            if (!refusing || !carries_metrics(what)) return std::nullopt;
            for (int epoch : epochs_in(what))
              if (culprits.count(epoch) > 0) return hub::reply{.status = refusal};
            return std::nullopt;
          });
      for (int epoch = 0; epoch < 100; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(10min);
      std::vector<int> expected = epochs(0, 99);
      std::erase_if(expected, [&](int epoch) { return culprits.count(epoch) > 0; });
      CHECK(sim.epochs_on_hub() == expected);
      const hub::session_status now = session.status();
      CHECK(now.epochs_set_aside == culprits.size());
      CHECK(now.epochs_delivered == 100 - culprits.size());
      CHECK(now.epochs_queued == 0);
      CHECK(sim.lines_with("set aside") == culprits.size());
      for (int culprit : culprits) CHECK(sim.said("epoch " + std::to_string(culprit) + " "));
      CHECK(shortest_gap(sim.moments(endpoint::metrics)) >= 3);

      // A new value of the same epoch has a new chance.
      refusing = false;
      session.on_fit_epoch_end(*culprits.begin(), {{"a", -1}});
      sim.advance(1min);
      CHECK(sim.model().metrics.at(*culprits.begin()).at("a") == -1);
      const hub::delivery delivered = session.on_train_end(99, "", 0);
      CHECK_FALSE(delivered.complete());
      REQUIRE(delivered.why);
      CHECK(delivered.why->code == errc::rejected);
      CHECK(delivered.why->http_status == refusal);
    }
  }
}

TEST_CASE("a HUB that takes only small requests gets small requests, and every epoch") {
  world sim;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (carries_metrics(what) && epochs_in(what).size() > 3) return hub::reply{.status = 413};
    return std::nullopt;
  });
  for (int epoch = 0; epoch < 100; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
  sim.advance(1h);
  CHECK(sim.epochs_on_hub() == epochs(0, 99));
  CHECK(session.status().epochs_set_aside == 0);
}

TEST_CASE("batches are large again once the culprit is set aside") {
  world sim;
  std::vector<std::size_t> sizes;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!carries_metrics(what)) return std::nullopt;
    const std::vector<int> batch = epochs_in(what);
    sizes.push_back(batch.size());
    if (batch.front() <= 5 && batch.back() >= 5) return hub::reply{.status = 400};
    return std::nullopt;
  });
  for (int epoch = 0; epoch < 400; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
  sim.advance(1h);
  CHECK(session.status().epochs_delivered == 399);
  CHECK(*std::max_element(sizes.begin() + 10, sizes.end()) == 100);
  CHECK(sizes.size() < 25);
}

// ---- upload_metrics and flush -------------------------------------------------------------------

TEST_CASE("upload_metrics sends what is queued at once") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  session.on_fit_epoch_end(0, {{"a", 1}});
  session.upload_metrics();
  CHECK(sim.hub.count(endpoint::metrics) == 0);
  sim.advance(0s);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{0});
}

TEST_CASE("upload_metrics with nothing to send leaves the rate limit as it is") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(10s);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1s);
  session.upload_metrics();
  sim.advance(1s);
  session.on_fit_epoch_end(1, {{"a", 1}});
  sim.advance(1min);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{10, 13});
}

TEST_CASE("flush sends everything at once and says what HUB has") {
  world sim;
  sim.hub.latency = 2s;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < 250; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
  const double before = sim.now();
  const hub::delivery delivered = session.flush(1min);
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 250);
  CHECK_FALSE(delivered.final_model_wanted);
  CHECK(sim.now() == before + 6);
  CHECK(sim.epochs_on_hub() == epochs(0, 249));
}

TEST_CASE("flush with nothing to do takes no time") {
  world sim;
  auto session = sim.start();
  const hub::delivery delivered = session.flush(1h);
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 0);
  CHECK(sim.now() == 0);
}

TEST_CASE("flush gives up at its time-out and keeps what is missing") {
  for (fault_kind kind : {fault_kind::refused, fault_kind::timed_out}) {
    world sim;
    auto session = sim.start();
    sim.hub.fail_next({kind}, 1000);
    session.on_fit_epoch_end(0, {{"a", 1}});
    const hub::delivery delivered = session.flush(20s);
    CHECK(sim.now() == 20);
    CHECK_FALSE(delivered.complete());
    CHECK(delivered.epochs_delivered == 0);
    CHECK(delivered.epochs_queued == 1);
    REQUIRE(delivered.why);
    CHECK_FALSE(delivered.why->message.empty());
    sim.hub.no_more_faults();
    sim.advance(10min);
    CHECK(sim.epochs_on_hub() == epochs(0, 0));
    CHECK(session.flush(0s).complete());
  }
}

TEST_CASE("flush without time still sends once") {
  world sim;
  auto session = sim.start();
  session.on_fit_epoch_end(0, {{"a", 1}});
  CHECK(session.flush(0s).complete());
  CHECK(sim.now() == 0);
}

TEST_CASE("asking for uploads again and again in an outage does not use up later retries") {
  world sim;
  auto session = sim.start();
  sim.hub.outage(1s, 10min);
  for (int epoch = 0; epoch < 600; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    session.upload_metrics();
    sim.advance(1s);
  }
  sim.hub.fail_next(endpoint::metrics, answered(503), 3);
  session.on_fit_epoch_end(600, {{"a", 600}});
  sim.advance(20min);
  CHECK(sim.epochs_on_hub() == epochs(0, 600));
}

TEST_CASE("the destructor sends what is queued, for two seconds at most") {
  world sim;
  double before = 0;
  SECTION("a HUB that answers gets all of it") {
    {
      auto session = sim.start();
      session.on_pretrain_routine_end();
      for (int epoch = 0; epoch < 250; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
      before = sim.now();
    }
    CHECK(sim.epochs_on_hub() == epochs(0, 249));
    CHECK(sim.now() == before);
  }
  SECTION("a HUB that is down, hangs or is slow is left after two seconds") {
    for (int way = 0; way < 3; ++way) {
      world down;
      {
        auto session = down.start();
        if (way == 0) down.hub.fail_next({fault_kind::refused}, 1000);
        if (way == 1) down.hub.fail_next({fault_kind::timed_out}, 1000);
        if (way == 2) down.hub.latency = 20s;
        session.on_fit_epoch_end(0, {{"a", 1}});
        before = down.now();
      }
      CHECK(down.now() == before + 2);
    }
  }
  SECTION("with nothing queued it takes no time") {
    { auto session = sim.start(); }
    CHECK(sim.now() == 0);
  }
  SECTION("a deadline of zero sends nothing that has to wait") {
    sim.with.limits.shutdown_deadline = 0s;
    {
      auto session = sim.start();
      sim.hub.latency = 20s;
      session.on_fit_epoch_end(0, {{"a", 1}});
      before = sim.now();
    }
    CHECK(sim.now() == before);
  }
  const std::size_t requests = sim.hub.requests().size();
  sim.advance(1h);
  CHECK(sim.hub.requests().size() == requests);
}

// ---- pace: refusals, Retry-After, the wall clock, the budget ------------------------------------

TEST_CASE("while HUB refuses the key each lane tries once in five minutes and keeps everything") {
  for (int refusal : {401, 403, 404, 302}) {
    INFO("status " << refusal);
    world sim;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(10s);
    sim.hub.fail_next(answered(refusal), 1'000'000);
    for (int epoch = 0; epoch < 240; ++epoch) {
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(15s);
    }
    CHECK(shortest_gap(sim.moments(endpoint::metrics)) >= 300);
    CHECK(sim.hub.count(endpoint::metrics) == 13);
    CHECK(shortest_gap(sim.moments(endpoint::heartbeat)) >= 300);
    CHECK(longest_gap(sim.moments(endpoint::heartbeat)) == 300);
    CHECK(session.status().epochs_queued == 240);
    REQUIRE(session.status().unanswered_why);
    CHECK(session.status().unanswered_why->http_status == refusal);
    sim.hub.no_more_faults();
    sim.advance(10min);
    CHECK(sim.epochs_on_hub() == epochs(0, 239));
  }
}

TEST_CASE("Retry-After is waited for, in seconds or as a date, up to 15 minutes") {
  struct wish {
    std::string header;
    double least;
  };
  const std::vector<wish> wishes = {
      {"20", 20},
      {"0", 0},
      {"899", 899},
      {"100000", 900},
      {"99999999999999999999999999", 900},
      {"<date in 90 s>", 90},
      {"<date in 2 days>", 900},
      {"<date an hour ago>", 0},
      {"soon", 0},
      {"-5", 0},
      {"1e3", 0},
      {"Thu, 99 Jan 2026 00:00:00 GMT", 0},
  };
  for (const wish& each : wishes) {
    INFO("Retry-After: " << each.header);
    world sim;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(10s);
    const auto wall = sim.time.wall_now();
    std::string header = each.header;
    if (header == "<date in 90 s>") header = http_date(wall + 90s);
    if (header == "<date in 2 days>") header = http_date(wall + 48h);
    if (header == "<date an hour ago>") header = http_date(wall - 1h);
    sim.hub.fail_next(endpoint::metrics, answered(429, header));
    session.on_fit_epoch_end(0, {{"a", 1}});
    sim.advance(1h);
    const std::vector<double> tries = sim.moments(endpoint::metrics);
    REQUIRE(tries.size() == 2);
    // On top comes the backoff's jitter, and in any case the rate limit.
    CHECK(tries[1] - tries[0] >= std::max(each.least, 3.0));
    CHECK(tries[1] - tries[0] <= std::max(each.least + 1, 3.0));
  }
}

TEST_CASE("every status that passes by, and a refusal, may ask for a wait") {
  for (int status : {408, 429, 500, 502, 503, 504, 401, 403}) {
    world sim;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(10s);
    sim.hub.fail_next(endpoint::metrics, answered(status, "600"));
    session.on_fit_epoch_end(0, {{"a", 1}});
    sim.advance(1h);
    const std::vector<double> tries = sim.moments(endpoint::metrics);
    REQUIRE(tries.size() == 2);
    CHECK(tries[1] - tries[0] >= 600);
    CHECK(tries[1] - tries[0] <= 601);
  }
}

TEST_CASE("jumps of the wall clock touch nothing but a date that is still to be read") {
  const auto run = [](bool jumping) {
    world sim;
    sim.hub.outage(30min, 45min);
    sim.hub.fail_next(endpoint::metrics, answered(429, "30"));
    auto session = sim.start();
    for (int epoch = 0; epoch < 100; ++epoch) {
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(1min);
      if (jumping) sim.time.jump_wall_clock(epoch % 2 == 0 ? -24h * 365 : 24h * 366);
    }
    return trace_of(sim);
  };
  CHECK(run(false) == run(true));

  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(10s);
  sim.hub.fail_next(endpoint::metrics, answered(429, http_date(sim.time.wall_now() + 60s)));
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1s);
  sim.time.jump_wall_clock(-1h);
  sim.advance(90s);
  const std::vector<double> tries = sim.moments(endpoint::metrics);
  REQUIRE(tries.size() == 2);
  CHECK(tries[1] >= 70);
  CHECK(tries[1] <= 71);
}

TEST_CASE("retries double their waits up to five minutes") {
  world sim;
  sim.with.retry.jitter = false;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(10s);
  sim.hub.fail_next(endpoint::metrics, answered(503), 12);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1h);
  // The waits of 1 and 2 s are below the rate limit.
  const std::vector<double> expected = {10, 13, 16, 20, 28, 44, 76, 140, 268, 524, 824, 1124, 1424};
  CHECK(sim.moments(endpoint::metrics) == expected);
}

TEST_CASE("a delivery makes the waits short again") {
  world sim;
  sim.with.retry.jitter = false;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(10s);
  sim.hub.fail_next(endpoint::metrics, answered(503), 5);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(990s);
  sim.hub.fail_next(endpoint::metrics, answered(503), 1);
  session.on_fit_epoch_end(1, {{"a", 1}});
  sim.advance(1min);
  const std::vector<double> tries = sim.moments(endpoint::metrics);
  REQUIRE(tries.size() == 8);
  CHECK(tries[6] == 1000);
  CHECK(tries[7] == 1003);
}

TEST_CASE("a HUB that is dead for ten hours gets few requests") {
  for (fault_kind kind : {fault_kind::refused, fault_kind::timed_out, fault_kind::status}) {
    world sim;
    auto session = sim.start();
    sim.hub.fail_next({kind}, 1'000'000);
    const auto last = sim.folder.write("last.pt", std::string(1000, 'L'));
    for (int epoch = 0; epoch < 600; ++epoch) {
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      session.on_model_save(epoch, last, false);
      sim.advance(1min);
    }
    // 30 retries at once and one every 30 s, beside what goes out without a failure before it: 120
    // heartbeats and 40 checkpoints.
    CHECK(sim.hub.requests().size() < 30 + 1200 + 120 + 40);
    CHECK(sim.hub.count(endpoint::heartbeat) >= 120);
    CHECK(session.status().epochs_queued == 600);
    sim.hub.no_more_faults();
    sim.advance(20min);
    CHECK(sim.epochs_on_hub() == epochs(0, 599));
    CHECK(sim.model().checkpoints.size() >= 1);
  }
}

TEST_CASE("the retry budget holds over all lanes, however short the waits are set") {
  world sim;
  sim.with.retry.first_delay = 0s;
  sim.with.retry.delay_max = 0s;
  sim.with.rate_limits.metrics = 0s;
  auto session = sim.start();
  sim.hub.fail_next({fault_kind::refused}, 1'000'000);
  session.on_fit_epoch_end(0, {{"a", 1}});
  session.upload_model(0, sim.folder.write("last.pt", "weights"), false);
  sim.advance(1s);
  const std::size_t at_once = sim.hub.requests().size();
  CHECK(at_once <= 2 + 3 + 30);
  sim.advance(1h);
  CHECK(sim.hub.requests().size() - at_once <= 120 + 12);
}

TEST_CASE("the log and an error hold no key, even where HUB sends it back") {
  world sim;
  const std::string key = sim.hub.api_key;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!carries_metrics(what)) return std::nullopt;
    return hub::reply{
        .status = 503,
        .body = json{{"message", "key " + key + " at https://x.test/a?Signature=1"}}.dump()};
  });
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1min);
  REQUIRE(session.status().unanswered_why);
  CHECK(world::says_no_secret(session.status().unanswered_why->message));
  CHECK(sim.said("***"));
  const hub::delivery delivered = session.flush(1s);
  REQUIRE(delivered.why);
  CHECK(world::says_no_secret(delivered.why->message));
}

// ---- the program's own functions ----------------------------------------------------------------

// What the default log and progress write.
struct console_output {
  std::string text = {};
  hub::machine::console console;

  explicit console_output(bool terminal)
      : console([this](std::string_view piece) { text += piece; }, terminal) {}
};

TEST_CASE("the default log is a line with HUB's prefix, in colour on a terminal alone") {
  console_output plain(false), coloured(true);
  for (hub::log_level level : {hub::log_level::info, hub::log_level::error}) {
    plain.console.log(level, "It went wrong.");
    coloured.console.log(level, "It went wrong.");
  }
  const std::string line = "Ultralytics HUB: It went wrong.\n";
  CHECK(plain.text == line + line);
  CHECK(coloured.text ==
        "\033[34m\033[1mUltralytics HUB: \033[0mIt went wrong.\n"
        "\033[31m\033[1mUltralytics HUB: \033[0mIt went wrong.\n");
}

TEST_CASE("the default progress is a line every ten percent: percent, bytes, rate, time left") {
  console_output out(false);
  for (std::uint64_t sent = 0; sent <= 50; ++sent)
    out.console.progress({"best.pt", sent * hub::mebibyte, 50 * hub::mebibyte, sent * 100ms});
  CHECK(out.text ==
        "Ultralytics HUB: best.pt  10% of 50.0 MiB, 10.0 MiB/s, 4 s left\n"
        "Ultralytics HUB: best.pt  20% of 50.0 MiB, 10.0 MiB/s, 4 s left\n"
        "Ultralytics HUB: best.pt  30% of 50.0 MiB, 10.0 MiB/s, 4 s left\n"
        "Ultralytics HUB: best.pt  40% of 50.0 MiB, 10.0 MiB/s, 3 s left\n"
        "Ultralytics HUB: best.pt  50% of 50.0 MiB, 10.0 MiB/s, 2 s left\n"
        "Ultralytics HUB: best.pt  60% of 50.0 MiB, 10.0 MiB/s, 2 s left\n"
        "Ultralytics HUB: best.pt  70% of 50.0 MiB, 10.0 MiB/s, 2 s left\n"
        "Ultralytics HUB: best.pt  80% of 50.0 MiB, 10.0 MiB/s, 1 s left\n"
        "Ultralytics HUB: best.pt  90% of 50.0 MiB, 10.0 MiB/s, 0 s left\n"
        "Ultralytics HUB: best.pt 100% of 50.0 MiB, 10.0 MiB/s, 0 s left\n");
}

TEST_CASE("the default progress begins anew with an attempt, and its units fit") {
  console_output out(false);
  const std::uint64_t total = 1536 * hub::kibibyte;
  out.console.progress({"last.pt", 300 * hub::kibibyte, total, 1s});
  out.console.progress({"last.pt", total, total, 1s});
  out.console.progress({"last.pt", 160 * hub::kibibyte, total, 2s});
  out.console.progress(
      {"last.pt", 1024 * hub::kibibyte, total, 1s, hub::transfer::download, 512 * hub::kibibyte});
  CHECK(out.text ==
        "Ultralytics HUB: last.pt  19% of 1.5 MiB, 300.0 KiB/s, 4 s left\n"
        "Ultralytics HUB: last.pt 100% of 1.5 MiB, 1.5 MiB/s, 0 s left\n"
        "Ultralytics HUB: last.pt  10% of 1.5 MiB, 80.0 KiB/s, 17 s left\n"
        "Ultralytics HUB: last.pt  66% of 1.5 MiB, 512.0 KiB/s, 1 s left\n");
}

TEST_CASE("in a file or a pipe the default progress of a small file is one line") {
  console_output out(false);
  const auto send = [&](std::uint64_t total, std::initializer_list<std::uint64_t> states) {
    for (const std::uint64_t done : states) out.console.progress({"last.pt", done, total, 1s});
  };
  send(1536, {1, 1520, 1536});  // all but the last boundary in one piece
  send(1536, {1536});           // of which only the end was waited for
  send(hub::mebibyte, {0, hub::mebibyte - 1, hub::mebibyte});
  send(0, {0});
  CHECK(out.text ==
        "Ultralytics HUB: last.pt 100% of 1.5 KiB, 1.5 KiB/s, 0 s left\n"
        "Ultralytics HUB: last.pt 100% of 1.5 KiB, 1.5 KiB/s, 0 s left\n"
        "Ultralytics HUB: last.pt 100% of 1.0 MiB, 1.0 MiB/s, 0 s left\n"
        "Ultralytics HUB: last.pt 100% of 0.0 B, 0.0 B/s, 0 s left\n");
}

TEST_CASE("on a terminal the default progress is one line, and a log line does not break it") {
  console_output out(true);
  out.console.progress({"best.pt", 512, 1024, 1s});
  out.console.log(hub::log_level::info, "Hello.");
  out.console.progress({"best.pt", 1024, 1024, 1s});
  CHECK(out.text ==
        "\r\033[KUltralytics HUB: best.pt  50% of 1.0 KiB, 512.0 B/s, 1 s left\n"
        "\033[34m\033[1mUltralytics HUB: \033[0mHello.\n"
        "\r\033[KUltralytics HUB: best.pt 100% of 1.0 KiB, 1.0 KiB/s, 0 s left\n");
}

TEST_CASE("log and progress functions that throw harm nothing") {
  world sim;
  sim.with.log = [](hub::log_level, std::string_view) { throw std::runtime_error("log"); };
  sim.with.progress = [](const hub::transfer_progress&) { throw 42; };
  auto session = sim.start();
  sim.hub.outage(5min, 10min);
  const hub::delivery delivered = train(sim, session);
  CHECK(delivered.complete());
  CHECK(sim.epochs_on_hub() == epochs(0, 99));
}

// ---- ranks --------------------------------------------------------------------------------------

namespace {

// Takes away what launchers set, until the end of the scope.
class no_launcher {
 public:
  no_launcher() {
    for (const auto& each : hub::machine::rank_variables) {
      put_away_.push_back(std::make_unique<environment>(each.rank, nullptr));
      for (const char* size : each.sizes)
        if (size) put_away_.push_back(std::make_unique<environment>(size, nullptr));
    }
  }
  ~no_launcher() {
    while (!put_away_.empty()) put_away_.pop_back();  // some are named twice
  }

 private:
  std::vector<std::unique_ptr<environment>> put_away_;
};

}  // namespace

TEST_CASE("on a rank above 0 nothing is sent and every call does nothing") {
  const std::vector<const char*> variables = {
      "RANK",      "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "MVP_COMM_WORLD_RANK", "PMI_RANK",
      "PMIX_RANK", "PALS_RANKID",          "FLUX_TASK_RANK",      "SLURM_PROCID"};
  const no_launcher alone;
  world sim;
  sim.with.rank.reset();
  const auto is_silent = [&] {
    const std::size_t before = sim.hub.requests().size();
    auto session = sim.start();
    sim.advance(1s);
    return sim.hub.requests().size() == before;
  };
  for (const char* variable : variables) {
    INFO(variable);
    for (const char* rank : {"1", "7", "1023"}) {
      const environment own(variable, rank);
      CHECK(is_silent());
    }
    for (const char* rank : {"0", "", "one", "1x", " 1", "-1", "1.5", "99999999999"}) {
      const environment own(variable, rank);
      CHECK_FALSE(is_silent());
    }
  }
  {
    const environment rank("RANK", "0");
    const environment process("SLURM_PROCID", "3");
    CHECK_FALSE(is_silent());
  }
  {
    const environment rank("RANK", "3");
    sim.with.rank = 0;
    CHECK_FALSE(is_silent());
  }
}

TEST_CASE("a rank is believed as far as there are processes, and what was decided is said once") {
  struct row {
    std::string about;
    std::vector<std::pair<const char*, const char*>> variables;
    int rank;
    int size;
    std::string source;
    std::vector<std::string> words;  // of the one line that is said; none where nothing is
  };
  const std::vector<row> rows = {
      {"no launcher", {}, 0, 0, "", {}},
      {"torchrun",
       {{"RANK", "3"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"}},
       3,
       4,
       "RANK",
       {"rank 3 of 4 by RANK", "reports nothing", "session_options::rank to 0", "without RANK"}},
      {"torchrun's first",
       {{"RANK", "0"}, {"WORLD_SIZE", "4"}},
       0,
       4,
       "RANK",
       {"rank 0 of 4 by RANK", "reports for all"}},
      {"torchrun with one process", {{"RANK", "0"}, {"WORLD_SIZE", "1"}}, 0, 1, "RANK", {}},
      {"a rank without a size", {{"RANK", "3"}}, 3, 0, "RANK", {"rank 3 by RANK"}},
      {"a rank that there cannot be",
       {{"RANK", "4"}, {"WORLD_SIZE", "4"}},
       0,
       0,
       "",
       {"cannot be rank 4 of 4 by RANK"}},
      {"... before one that there can be",
       {{"RANK", "7"}, {"WORLD_SIZE", "1"}, {"PMI_RANK", "1"}, {"PMI_SIZE", "2"}},
       1,
       2,
       "PMI_RANK",
       {"cannot be rank 7 of 1 by RANK", "rank 1 of 2 by PMI_RANK"}},
      {"a job's other variables",
       {{"SLURM_ARRAY_TASK_ID", "5"},
        {"SLURM_LOCALID", "1"},
        {"SLURM_NODEID", "2"},
        {"LOCAL_RANK", "1"},
        {"PBS_ARRAY_INDEX", "3"}},
       0,
       0,
       "",
       {}},
      {"an element of an array",
       {{"SLURM_ARRAY_TASK_ID", "5"}, {"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}},
       0,
       1,
       "SLURM_PROCID",
       {}},
      {"one task",
       {{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "4"}},
       0,
       0,
       "",
       {"cannot be rank 1 of 1 by SLURM_PROCID"}},
      {"srun",
       {{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "4"}},
       1,
       4,
       "SLURM_PROCID",
       {"rank 1 of 4 by SLURM_PROCID"}},
      {"mpirun in a job",
       {{"OMPI_COMM_WORLD_RANK", "0"},
        {"OMPI_COMM_WORLD_SIZE", "2"},
        {"SLURM_PROCID", "3"},
        {"SLURM_NTASKS", "4"}},
       0,
       2,
       "OMPI_COMM_WORLD_RANK",
       {"reports for all"}},
      {"Flux",
       {{"FLUX_TASK_RANK", "2"}, {"FLUX_JOB_SIZE", "3"}},
       2,
       3,
       "FLUX_TASK_RANK",
       {"rank 2 of 3 by FLUX_TASK_RANK"}},
  };
  const no_launcher alone;
  for (const row& each : rows) {
    INFO(each.about);
    std::vector<std::unique_ptr<environment>> set;
    for (const auto& [name, value] : each.variables)
      set.push_back(std::make_unique<environment>(name, value));
    world sim;
    sim.with.rank.reset();
    auto session = sim.start();
    const hub::session_status status = session.status();
    CHECK(status.rank.rank == each.rank);
    CHECK(status.rank.size == each.size);
    CHECK(status.rank.source == each.source);
    CHECK(status.silent == (each.rank > 0 ? hub::silence::by_rank : hub::silence::none));
    CHECK(sim.log.size() == (each.words.empty() ? 0 : 1));
    for (const std::string& words : each.words) CHECK(sim.said(words));
  }
}

TEST_CASE("a silent rank needs neither key nor identifier, and ends as if all was well") {
  world sim;
  sim.with.rank = 2;
  sim.with.credentials.api_key = "";
  {
    auto session = sim.simulation::start("no identifier", sim.with);
    CHECK(session.train_args().data.empty());
    CHECK(session.model().id.empty());
    CHECK(session.model_url().empty());
    const hub::delivery delivered = train(sim, session, 20);
    CHECK(delivered.complete());
    CHECK(delivered.silent == hub::silence::by_rank);
    CHECK(delivered.epochs_delivered == 0);
    CHECK(session.status().silent == hub::silence::by_rank);
    CHECK(session.status().rank.rank == 2);
    CHECK(session.flush(1min).complete());
    session.upload_metrics();
    session.upload_model(1, sim.folder / "last.pt", true);
    session.stop_heartbeat();
    CHECK(session.status().epochs_accepted == 0);
    sim.advance(1h);
  }
  CHECK(sim.hub.requests().empty());
  CHECK(sim.log.size() == 1);
  CHECK(sim.said("rank 2 by session_options::rank"));
  CHECK_FALSE(std::filesystem::exists(sim.folder / "temp"));
}

// ---- a run that HUB does not know yet -----------------------------------------------------------

TEST_CASE("create_model makes a model that a session then trains") {
  world sim;
  sim.with.retry.jitter = false;
  sim.hub.fail_next(endpoint::create_model, answered(503), 2);
  hub::new_model wanted;
  wanted.name = "spirals";
  wanted.dataset = "coco8";
  wanted.architecture = "yolov8s.pt";
  wanted.epochs = 7;
  wanted.batch = 0.5;
  wanted.device = "0,1";
  const std::string id = hub::testing::training_session::create_model(
      wanted, sim.with, hub::testing::fake_transport(sim.hub),
      hub::testing::virtual_clock(sim.time), hub::testing::virtual_sleeper(sim.time));
  CHECK(sim.moments(endpoint::create_model) == std::vector<double>{0, 1, 3});
  CHECK(sim.hub.model(id).about.name == "spirals");
  auto session = sim.simulation::start(id, sim.with);
  CHECK(session.train_args().epochs == 7);
  CHECK(session.train_args().batch == 0.5);
  CHECK(session.train_args().device == "0,1");
  CHECK(session.model_file() == "yolov8s.pt");
  sim.id = id;
  CHECK(train(sim, session, 7).complete());
  CHECK(sim.epochs_on_hub() == epochs(0, 6));
}

TEST_CASE("create_model throws what a session would throw") {
  const auto code = [](world& sim) {
    try {
      hub::testing::training_session::create_model(
          {.name = "n", .dataset = "d"}, sim.with, hub::testing::fake_transport(sim.hub),
          hub::testing::virtual_clock(sim.time), hub::testing::virtual_sleeper(sim.time));
      return std::string("none");
    } catch (const hub::session_error& problem) {
      CHECK(world::says_no_secret(problem.what()));
      return std::string(to_string(problem.code()));
    }
  };
  const std::map<int, std::string> statuses = {{400, "rejected"},      {401, "not_authenticated"},
                                               {403, "access_denied"}, {404, "unexpected_status"},
                                               {429, "rate_limited"},  {500, "server_error"}};
  for (const auto& [status, expected] : statuses) {
    world sim;
    sim.hub.fail_next(endpoint::create_model, answered(status), 100);
    CHECK(code(sim) == expected);
  }
  const std::map<fault_kind, std::string> faults = {{fault_kind::refused, "not_reachable"},
                                                    {fault_kind::timed_out, "timed_out"},
                                                    {fault_kind::html, "bad_reply"},
                                                    {fault_kind::wrong_types, "bad_reply"}};
  for (const auto& [kind, expected] : faults) {
    world sim;
    sim.hub.fail_next(endpoint::create_model, {kind}, 100);
    CHECK(code(sim) == expected);
  }
  world sim;
  const environment no_key("ULTRALYTICS_API_KEY", nullptr);
  sim.with.credentials.api_key = "";
  CHECK(code(sim) == "not_authenticated");
}

}  // namespace session_tests
