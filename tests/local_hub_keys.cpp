// SPDX-License-Identifier: MIT
//
// Who may: keys as the page and the command line make, list and revoke them, what each is good for,
// and what becomes of those who guess.

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/local_hub.hpp"
#include "support/programs.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <utility>

namespace local_hub_keys_tests {

namespace {

using namespace hub_test;

int status_of(const running_hub& hub, const std::string& path, const std::string& key) {
  return send(hub, "GET", path, "", {{"x-api-key", key}}).status;
}

json all_keys(const running_hub& hub) { return send(hub, "GET", "/api/keys").value().at("keys"); }

TEST_CASE("a person's key is made, listed and revoked on the page", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  CHECK(all_keys(hub).empty());
  const std::string key = send(hub, "POST", "/api/keys", R"({"name": "laptop"})").value().at("key");
  CHECK(key.size() == 42);
  CHECK(key.starts_with("ul"));
  CHECK(key.find_first_not_of("0123456789abcdef", 2) == std::string::npos);
  const json listed = all_keys(hub);
  REQUIRE(listed.size() == 1);
  CHECK(listed[0].at("name") == "laptop");
  CHECK_FALSE(contains(listed.dump(), key));
  CHECK_FALSE(contains(read_file(at.data / "keys.json"), key));
  const made_model model = make(hub, "mine");
  const std::string path = "/v1/models/" + model.id;
  CHECK(status_of(hub, path, key) == 200);
  CHECK(status_of(hub, path, "ul_" + key.substr(2)) == 200);  // as the Platform's clients have it
  CHECK(send(hub, "POST", "/api/keys", R"({"name": ""})").status == 400);
  CHECK(send(hub, "POST", "/api/keys", "[]").status == 400);
  const std::string id = listed[0].at("id");
  CHECK(send(hub, "DELETE", "/api/keys/" + id).status == 200);
  CHECK(send(hub, "DELETE", "/api/keys/" + id).status == 404);
  CHECK(status_of(hub, path, key) == 401);
}

TEST_CASE("a model's key is good for that model alone, and goes with it", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at, {"--page-needs-key", "--api-key", good_key});
  const httplib::Headers owner = {{"x-api-key", good_key}};
  const auto make_one = [&](const char* name) {
    const json made = send(hub, "POST", "/api/models", json{{"name", name}}.dump(), owner).value();
    return made_model{made.at("id"), made.at("key")};
  };
  const made_model mine = make_one("mine");
  const made_model other = make_one("other");
  CHECK(status_of(hub, "/v1/models/" + mine.id, mine.key) == 200);
  CHECK(send(hub, "POST", "/v1/auth", "", {{"x-api-key", mine.key}}).value().at("success") == true);
  CHECK(status_of(hub, "/v1/models/" + other.id, mine.key) == 403);
  CHECK(report(hub, {other.id, mine.key}, 0, {{"a", 1}}).status == 403);
  CHECK(send(hub, "POST", "/v1/models", "{}", {{"x-api-key", mine.key}}).status == 403);
  CHECK(status_of(hub, "/api/models", mine.key) == 401);
  CHECK(send(hub, "POST", "/api/sign-in", json{{"key", mine.key}}.dump()).status == 403);

  // Another one takes its place.
  const std::string next =
      send(hub, "POST", "/api/models/" + mine.id + "/key", "{}", owner).value().at("key");
  CHECK(status_of(hub, "/v1/models/" + mine.id, mine.key) == 401);
  CHECK(status_of(hub, "/v1/models/" + mine.id, next) == 200);
  CHECK(send(hub, "GET", "/api/keys", "", owner).value().at("keys").size() == 2);
  CHECK(send(hub, "DELETE", "/api/models/" + mine.id, "", owner).status == 200);
  CHECK(status_of(hub, "/v1/models/" + mine.id, next) == 404);  // it can still be brought back
  CHECK(send(hub, "DELETE", "/api/trash/" + mine.id, "", owner).status == 200);
  CHECK(send(hub, "GET", "/api/keys", "", owner).value().at("keys").size() == 1);
  CHECK(status_of(hub, "/v1/models/" + other.id, next) == 401);
}

TEST_CASE("`keys make` prints both forms and what to paste", "[local_hub]") {
  const home at;
  const auto made = at.launch_hub({"keys", "make", "laptop", "--port", "8123"});
  CHECK(made->wait_for_end().code == 0);
  const std::string& out = made->out();
  const std::string key = out.substr(0, out.find('\n'));
  REQUIRE(key.size() == 42);
  CHECK(contains(out, "\nexport ULTRALYTICS_API_KEY=" + key + "\n"));
  CHECK(contains(out, "\nexport ULTRALYTICS_API_KEY=ul_" + key.substr(2) + "\n"));
  CHECK(contains(out, "ULTRALYTICS_PLATFORM_URL=http://127.0.0.1:8123\n"));
  CHECK(contains(out, "ULTRALYTICS_HUB_API=http://127.0.0.1:8123 "));
  const auto listed = at.launch_hub({"keys"});
  CHECK(listed->wait_for_end().code == 0);
  CHECK(contains(listed->out(), "laptop"));
  CHECK_FALSE(contains(listed->out(), key));
}

TEST_CASE("where clients send a person for a key, the page of keys is", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at, {});
  const answer there = send(hub, "GET", "/settings?tab=api+keys");
  CHECK(there.status == 302);
  CHECK(there.header("Location") == "keys");
  CHECK(send(hub, "GET", "/keys").status == 200);
}

TEST_CASE("who guesses keys is slowed and told of, and whoever has one goes on", "[local_hub]") {
  const home at;
  running_hub hub = start_plain(at, {"--api-key", good_key, "--page-needs-key"});
  const httplib::Headers right = {{"x-api-key", good_key}};
  const std::string id =
      send(hub, "POST", "/api/models", R"({"name": "mine"})", right).value().at("id");
  std::size_t looked_at = 0;
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) {
    const std::string guess = "guess" + std::to_string(i) + std::string(37, 'x');
    const auto one = [&] {
      if (i % 4 == 0) return send(hub, "GET", "/v1/models/" + id, "", {{"x-api-key", guess}});
      if (i % 4 == 1)
        return send(hub, "GET", "/v1/models/" + id, "", {{"Authorization", "Bearer " + guess}});
      if (i % 4 == 2) return send(hub, "POST", "/v1/auth", "", {{"x-api-key", guess}});
      return send(hub, "POST", "/api/sign-in", json{{"key", guess}}.dump());
    }();
    CHECK_FALSE(contains(one.body, "\"success\": true"));
    if (one.status != 429)
      ++looked_at;
    else
      CHECK_FALSE(one.header("Retry-After").empty());
  }
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begun)
          .count();
  CHECK(looked_at <= 11 + static_cast<std::size_t>(seconds));
  CHECK(send(hub, "GET", "/v1/models/" + id, "", right).status == 200);
  CHECK(send(hub, "GET", "/api/models", "", right).status == 200);
  hub.stop();
  CHECK(contains(hub.program->err(), "wrong keys come from 127.0.0.1"));
  CHECK_FALSE(contains(hub.program->err(), "guess1"));
}

}  // namespace

}  // namespace local_hub_keys_tests
