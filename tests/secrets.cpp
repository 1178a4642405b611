// SPDX-License-Identifier: MIT
//
// No secret gets out, whatever fails: runs with each kind of credential, in which HUB, or the Platform
// and its storage host, fails in each way at each request and quotes the secrets in each of its
// replies. Looked at are the log, every
// error and exception, the addresses and bodies of all requests, the names and contents of all
// files while each request is made, and who may read them.

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/long_variant.hpp"
#include "support/world.hpp"

namespace secrets_tests {

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using hub::testing::fault;

const std::string token = "tttttttttt.tttttttttt";

enum class source { options, identifier, settings, saved_by_us, bearer };

// What the two protocols differ in here.
template <class Protocol>
struct stage;

template <>
struct stage<hub::hub_v1> {
  static inline const std::string& key = hub::testing::fake_hub::api_key;
  static constexpr std::array<source, 5> sources = {
      source::options, source::identifier, source::settings, source::saved_by_us, source::bearer};

  static hub::testing::fake_server& server(world& sim) {
    sim.hub.add_token(token);
    return sim.hub;
  }
  static std::string opening(world& sim, source where) {
    return where == source::identifier ? key + "_" + sim.id : sim.id;
  }
};

template <>
struct stage<hub::platform> {
  static inline const std::string key = "ul_" + std::string(40, 'e');
  static constexpr std::array<source, 3> sources = {source::options, source::settings,
                                                    source::saved_by_us};

  static hub::testing::fake_server& server(world& sim) {
    sim.platform.add_key(key, "lab");
    sim.with.endpoints = sim.platform_options().endpoints;
    return sim.platform;
  }
  static hub::platform_run opening(world&, source) {
    return {.project = "lab/helmets", .name = "nano", .resume = true};
  }
};

// A server's way to say everything that it should not.
std::string quoting_body(const std::string& secret) {
  return nlohmann::json{
      {"message", "no " + secret + " at https://storage.test/a?X-Goog-Signature=zzzzzzzzzzzz"},
      {"data", secret},
      {"success", secret}}
      .dump();
}

struct witness {
  world& sim;
  std::size_t requests = 0;
  std::size_t files_seen = 0;

  void look_at(const hub::error& why) const {
    if (!world::says_no_secret(why.message)) FAIL_CHECK("an error says: " << why.message);
  }
  void look_at(const hub::delivery& what) const {
    if (what.why) look_at(*what.why);
  }
  void look_at(const hub::session_status& now) const {
    if (now.unanswered_why) look_at(*now.unanswered_why);
    if (!world::says_no_secret(now.agent_id)) FAIL_CHECK("the status says: " << now.agent_id);
  }

  // The headers are where the secrets belong.
  void look_at(const hub::request& what) {
    ++requests;
    const bool is_signed = what.url.starts_with(hub::testing::fake_server::storage_root);
    const std::string url = is_signed ? hub::text::without_query(what.url) : what.url;
    if (!world::says_no_secret(url + what.body)) FAIL_CHECK("a request: " << what.url);
    look_at_files();
  }

  void look_at_files() {
    for (const auto& each : fs::recursive_directory_iterator(sim.folder.path())) {
      if (!world::says_no_secret(each.path().filename().string()))
        FAIL_CHECK("a file is called " << each.path());
      if (each.path().parent_path() == sim.folder.path() && !is_settings(each.path())) continue;
      if (each.path() == sim.folder / "temp") continue;  // the program's, not ours
      ++files_seen;
#if !defined(_WIN32)  // where tests/windows.cpp looks at access lists
      if ((each.status().permissions() & (fs::perms::group_all | fs::perms::others_all)) !=
          fs::perms::none)
        FAIL_CHECK("others may read " << each.path());
#endif
      if (!each.is_regular_file() || is_settings(each.path())) continue;
      std::ifstream in(each.path(), std::ios::binary);
      if (!world::says_no_secret(std::string(std::istreambuf_iterator<char>(in), {})))
        FAIL_CHECK("a secret is in " << each.path());
    }
  }

  static bool is_settings(const fs::path& file) {
    return file.filename().string().starts_with("settings.json");
  }
};

// A world with the secrets where this source has them.
void prepare(world& sim, source where, const std::string& key) {
  sim.with.credentials.api_key = "";
  const fs::path settings = sim.folder / "settings.json";
  sim.with.credentials.settings_file = settings;
  switch (where) {
    case source::options: sim.with.credentials.api_key = key; break;
    case source::identifier: break;
    case source::settings:
      sim.folder.write("settings.json", nlohmann::json{{"api_key", key}}.dump());
      fs::permissions(settings, fs::perms::owner_read | fs::perms::owner_write);
      break;
    case source::saved_by_us:
      sim.with.credentials.api_key = key;
      sim.with.credentials.save = true;
      break;
    case source::bearer: sim.with.credentials.id_token = token; break;
  }
}

// Plays a training in which request number `index` meets the fault. False where there was none.
template <class Protocol>
bool play(source where, const fault& meets, std::size_t index) {
  using here = stage<Protocol>;
  world sim;
  prepare(sim, where, here::key);
  if (where == source::settings) sim.with.spool.directory = sim.folder / "spool";
  hub::testing::fake_server& server = here::server(sim);
  server.refusals_are_problems = false;  // some faults make the session say odd things
  witness see{sim};
  server.fail_at(index, meets);
  const auto quoting = [&](const hub::request& what) -> std::optional<hub::reply> {
    see.look_at(what);
    hub::reply answer = hub::testing::fake_transport(server).send(what);
    if (answer.status >= 300)
      answer.body = quoting_body(where == source::bearer ? token : here::key);
    return answer;
  };
  try {
    scripted_session_with<Protocol> session(
        here::opening(sim, where), sim.with, scripted_transport(server, quoting),
        hub::testing::virtual_clock(sim.time), hub::testing::virtual_sleeper(sim.time));
    session.on_pretrain_routine_end();
    sim.advance(15min);
    session.on_fit_epoch_end(0, {{"train/loss", 1}});
    session.console("the first epoch\n");
    session.on_model_save(0, sim.folder.write("last.pt", "weights"), true);
    see.look_at_files();
    sim.advance(1s);
    see.look_at(session.status());
    see.look_at(session.flush(1s));
    session.on_fit_epoch_end(1, {{"train/loss", 0.5}});
    see.look_at(session.on_train_end(1, sim.folder.write("best.pt", "weights"), 0.5));
    see.look_at(session.status());
    CHECK(world::says_no_secret(session.model_url()));
  } catch (const hub::session_error& problem) {
    see.look_at(problem.error());
    if (!world::says_no_secret(problem.what())) FAIL_CHECK("it throws: " << problem.what());
  }
  see.look_at_files();
  return see.requests > index;
}

// Each request in the long variant, else every third: which third differs from play to play.
const std::size_t step = hub_test::long_variant() ? 1 : 3;

template <class Protocol>
void play_all() {
  std::size_t plays = 0;
  for (source where : stage<Protocol>::sources)
    for (const named_fault& each : every_fault()) {
      INFO("credentials " << static_cast<int>(where) << ", " << each.name);
      std::size_t index = plays++ % step;
      while (play<Protocol>(where, each.what, index)) index += step;
      CHECK(index >= 2);
    }
}

}  // namespace

TEST_CASE("no secret is said, sent in an address or left in a file, whatever fails") {
  play_all<hub::hub_v1>();
}

TEST_CASE("no secret of the Platform's gets out, nor what its signed URLs have, whatever fails") {
  play_all<hub::platform>();
}

}  // namespace secrets_tests
