// SPDX-License-Identifier: MIT
//
// Tests of a session's start: what the constructor refuses and with which words, its retries, on which
// rank it reports, and a run that HUB does not know yet. Virtual time, as in tests/session.cpp.

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "support/world.hpp"

namespace session_start_tests {

namespace {

using namespace std::chrono_literals;
using hub::errc;
using hub::testing::endpoint;
using hub::testing::fault;
using hub::testing::fault_kind;
using hub::testing::http_date;
using nlohmann::json;

}  // namespace

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

}  // namespace session_start_tests
