// SPDX-License-Identifier: MIT
//
// What a session shows a server and takes up from it, on virtual time: tokens that end, what a gateway
// in front wants, and where a training goes on.

#include <chrono>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/world.hpp"

namespace session_access_tests {

namespace {

using namespace std::chrono_literals;
using hub::errc;
using hub::testing::endpoint;
using hub::testing::fault;
using hub::testing::fault_kind;

std::string header(const hub::request& what, std::string_view name) {
  for (const auto& [key, value] : what.headers)
    if (key == name) return value;
  return "";
}

// A HUB that accepts each token for an hour, and a program that can get another one.
struct token_world : world {
  int made = 0;
  std::string valid = {};
  hub::time_point valid_until = {};
  std::vector<std::string> shown = {};  // with what is accepted and what is not

  token_world() {
    with.credentials = {.renew_id_token = [this] { return fresh(); }, .prompt = false};
    with.retry.jitter = false;
  }

  std::string fresh() {
    valid_until = time.now() + 1h;
    return valid = "tttttttttt" + std::to_string(++made);
  }

  scripted_session start_watched() {
    return start_scripted(*this, [this](const hub::request& what) -> std::optional<hub::reply> {
      if (!what.url.starts_with(hub.api_root)) return std::nullopt;
      shown.push_back(header(what, "authorization"));
      if (shown.back() != "Bearer " + valid || time.now() >= valid_until)
        return hub::reply{.status = 401, .body = R"({"message": "token expired"})"};
      hub.add_token(valid);
      return std::nullopt;
    });
  }
};

std::string start_problem(world& sim) {
  try {
    sim.start();
  } catch (const hub::session_error& problem) {
    return std::string(to_string(problem.code())) + ": " + problem.what();
  }
  return "";
}

}  // namespace

// ---- tokens that end ----------------------------------------------------------------------------

TEST_CASE("a token that ends is renewed, and the training arrives whole") {
  token_world sim;
  auto session = sim.start_watched();
  CHECK(sim.made == 1);
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < 40; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    session.on_model_save(epoch, sim.folder.write("last.pt", "L"), false);
    sim.advance(5min);
    CHECK(session.status().epochs_queued == 0);
  }
  CHECK(session.on_train_end(39, sim.folder.write("best.pt", "B"), 0.5).complete());
  CHECK(sim.made == 4);
  CHECK(sim.epochs_on_hub() == epochs(0, 39));
  CHECK_FALSE(sim.said("API key"));
}

TEST_CASE("a token that has ended at the start is renewed, once") {
  token_world sim;
  sim.with.credentials.id_token = "tttttttttt0";
  auto session = sim.start_watched();
  CHECK(sim.made == 1);
  sim.with.credentials.renew_id_token = [] { return std::string("tttttttttt0"); };
  CHECK_THROWS_AS(sim.start_watched(), hub::session_error);
}

TEST_CASE("a function that cannot renew the token is said, and called again later") {
  token_world sim;
  bool fails = true;
  int called = 0;
  sim.with.credentials.renew_id_token = [&]() -> std::string {
    if (++called == 1 || !fails) return sim.fresh();
    throw std::runtime_error("the login server is away");
  };
  auto session = sim.start_watched();
  sim.advance(61min);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(30min);
  CHECK(sim.said("threw: the login server is away"));
  CHECK(session.status().epochs_queued == 1);
  CHECK(called > 2);
  CHECK(called < 30);
  fails = false;
  sim.advance(10min);
  CHECK(sim.epochs_on_hub() == epochs(0, 0));
}

TEST_CASE("tokens that are refused as soon as they are new are not asked for without end") {
  token_world sim;
  int called = 0;
  sim.with.credentials.renew_id_token = [&] {
    return ++called == 1 ? sim.fresh() : "tttttttttt" + std::to_string(1000 + called);
  };
  auto session = sim.start_watched();
  sim.advance(61min);
  session.on_fit_epoch_end(0, {{"a", 1}});
  const double before = sim.now();
  CHECK_FALSE(session.on_train_end(0, "", 0).complete());
  CHECK(sim.now() - before <= 60);
  CHECK(called < 20);
}

TEST_CASE("without a function the words fit: it is the token that ended") {
  token_world sim;
  sim.with.credentials = {.id_token = sim.fresh(), .prompt = false};
  auto session = sim.start_watched();
  sim.advance(61min);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1min);
  CHECK(sim.said("The id token is not accepted; one ends after an hour"));
  CHECK(sim.said("credentials.renew_id_token"));
  CHECK_FALSE(sim.said("Check the API key"));
  CHECK(session.status().epochs_queued == 1);
}

// ---- a gateway in front -------------------------------------------------------------------------

TEST_CASE("what a gateway wants goes to HUB with every request, and to nobody else") {
  world sim;
  const std::string address = sim.hub.put_file("models/m/last.pt", "weights");
  sim.id = sim.hub.add_model({.cfg = "", .weights = address});
  sim.with.endpoints.headers = {{"X-Gate", "zzzzzzzzzz1"}};
  sim.with.endpoints.login = "person:zzzzzzzzzz2";
  std::size_t to_hub = 0, to_storage = 0;
  {
    auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
      const bool own = what.url.starts_with(sim.hub.api_root);
      ++(own ? to_hub : to_storage);
      CHECK(header(what, "X-Gate") == (own ? "zzzzzzzzzz1" : ""));
      CHECK(header(what, "authorization") ==
            (own ? hub::text::basic_authorization("person:zzzzzzzzzz2") : ""));
      CHECK(header(what, "x-api-key") == (own ? sim.hub.api_key : ""));
      CHECK(what.show_client_certificate == own);
      return std::nullopt;
    });
    CHECK(session.fetch_model_file(sim.folder / "fetched.pt"));
    session.on_fit_epoch_end(0, {{"a", 1}});
    CHECK(session.on_train_end(0, sim.folder.write("best.pt", "B"), 0.5).complete());
  }
  CHECK(to_hub >= 5);
  CHECK(to_storage == 1);
}

TEST_CASE("what a gateway is shown stands in no log and no error, even where it is quoted") {
  world sim;
  sim.with.endpoints.headers = {{"X-Gate", "zzzzzzzzzz1"}};
  sim.with.endpoints.login = "person:zzzzzzzzzz2";
  const std::string quoted = "{\"message\": \"zzzzzzzzzz1 zzzzzzzzzz2 " +
                             hub::text::basic_authorization("person:zzzzzzzzzz2") + "\"}";
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (what.method != "POST" || !what.url.ends_with(sim.id)) return std::nullopt;
    return hub::reply{.status = 403, .body = quoted};
  });
  session.on_fit_epoch_end(0, {{"a", 1}});
  const hub::delivery left = session.flush(10s);
  REQUIRE(left.why);
  for (const std::string& text : {left.why->message, sim.log.back()}) {
    CHECK(world::says_no_secret(text));
    CHECK_FALSE(contains(text, hub::text::base64("person:zzzzzzzzzz2")));
  }
}

TEST_CASE("headers that cannot be sent, or that are the session's own, are refused at the start") {
  using headers = std::vector<std::pair<std::string, std::string>>;
  for (const auto& [given, words] : std::vector<std::pair<headers, std::string>>{
           {{{"X-Gate", "a\r\nX-Other: b"}}, "line breaks"},
           {{{"X Gate", "a"}}, "line breaks and colons"},
           {{{"", "a"}}, "line breaks and colons"},
           {{{"X-API-Key", "a"}}, "one that the session sends itself"},
           {{{"Host", "a"}}, "one that the session sends itself"},
           {{{"Content-Length", "7"}}, "one that the session sends itself"}}) {
    world sim;
    sim.with.endpoints.headers = given;
    const std::string problem = start_problem(sim);
    INFO(problem);
    CHECK(contains(problem, "invalid_credentials"));
    CHECK(contains(problem, words));
    CHECK(sim.hub.requests().empty());
  }
}

TEST_CASE("a login needs a colon, and a header that nothing else is in") {
  world sim;
  sim.with.endpoints.login = "person";
  CHECK(contains(start_problem(sim), "user:password"));
  sim.with.endpoints.login = "person:zzzzzzzzzz2";
  sim.with.credentials.id_token = "tttttttttt1";
  CHECK(contains(start_problem(sim), "in the same header"));
  CHECK(sim.hub.requests().empty());
}

TEST_CASE("the Platform's requests carry them too, and the storage host's do not") {
  hub::testing::simulation sim;
  scratch_folder folder;
  hub::session_options with = sim.platform_options();
  with.endpoints.headers = {{"X-Gate", "zzzzzzzzzz1"}};
  with.endpoints.login = "person:zzzzzzzzzz2";
  const hub::platform_run run{.project = "lab/helmets", .name = "gate"};
  try {
    sim.start(run, with);
    FAIL("started");
  } catch (const hub::session_error& problem) {
    CHECK(contains(problem.what(), "in the same header"));
  }
  with.endpoints.login = "";
  hub::testing::platform_session session = sim.start(run, with);
  session.on_fit_epoch_end(0, {{"a", 1}});
  CHECK(session.on_train_end(0, folder.write("best.pt", "B"), 0.5).complete());
  const hub::platform_wire::run who{.api_key = hub::testing::fake_platform::api_key};
  CHECK(hub::platform_wire::authorized_request(who, "GET", "https://platform.test/")
            .show_client_certificate);
}

// ---- where a training goes on -------------------------------------------------------------------

namespace {

// The loop of the README, which is killed after `stop_before`, if that is not its end.
std::vector<int> readme_loop(world& sim, int stop_before) {
  auto session = sim.start();
  session.on_pretrain_routine_end();
  const int epochs = session.train_args().epochs.value_or(100);
  std::vector<int> reported;
  for (int epoch = session.next_epoch(); epoch < epochs && epoch < stop_before; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"train/loss", 1.0 / (epoch + 1)}});
    reported.push_back(epoch);
    sim.advance(1min);
  }
  return reported;
}

}  // namespace

TEST_CASE("the loop of the README goes on after the last epoch that HUB confirmed") {
  for (bool keeps : {false, true}) {
    INFO((keeps ? "with" : "without") << " a spool");
    world sim;
    sim.id = sim.hub.add_model({.epochs = 300});
    if (keeps) sim.with.spool.directory = sim.folder / "spool";
    CHECK(readme_loop(sim, 100) == epochs(0, 99));
    sim.model().about.state = hub::model_state::training;
    CHECK(readme_loop(sim, 200) == epochs(100, 199));
    CHECK(readme_loop(sim, 1000) == epochs(200, 299));
    CHECK(readme_loop(sim, 1000).empty());
    CHECK(sim.epochs_on_hub() == epochs(0, 299));
  }
}

TEST_CASE("a spool knows where to go on where HUB does not say it, and without HUB") {
  world sim;
  sim.with.spool = {.directory = sim.folder / "spool", .offline = hub::offline_start::allow};
  sim.id = sim.hub.add_model({.state = hub::model_state::training, .epochs = 300});
  CHECK(readme_loop(sim, 50) == epochs(0, 49));
  sim.model().metrics.clear();
  CHECK(readme_loop(sim, 0).empty());
  CHECK(readme_loop(sim, 60) == epochs(50, 59));
  sim.hub.outage(0s, 1000h);
  {
    auto session = sim.start();
    CHECK(session.next_epoch() == 60);
    CHECK(session.train_args().epochs == 300);
  }
}

TEST_CASE("a model that HUB calls new begins at 0, whatever a spool remembers") {
  world sim;
  sim.with.spool.directory = sim.folder / "spool";
  CHECK(readme_loop(sim, 10) == epochs(0, 9));
  auto session = sim.start();
  CHECK(session.next_epoch() == 0);
}

TEST_CASE("a run on the Platform goes on after the last epoch that it confirmed") {
  hub::testing::simulation sim;
  scratch_folder folder;
  hub::session_options with = sim.platform_options();
  with.spool.directory = folder / "spool";
  const hub::platform_run run{.project = "lab/helmets", .name = "on", .resume = true};
  {
    hub::testing::platform_session session = sim.start(run, with);
    CHECK(session.next_epoch() == 0);
    for (int epoch = 0; epoch < 7; ++epoch) session.on_fit_epoch_end(epoch, {{"a", 1}});
    sim.advance(1min);
  }
  hub::testing::platform_session session = sim.start(run, with);
  CHECK(session.next_epoch() == 7);
  session.on_train_end(6, "", 0);
}

}  // namespace session_access_tests
