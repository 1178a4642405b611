// SPDX-License-Identifier: MIT
//
// local_hub below a path and behind proxies: what it hands out, whom it believes, and who may. That
// nginx in front of it does the same is shown by tests/nginx.sh.

#include "../examples/local_hub/addresses.hpp"
#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/local_hub.hpp"
#include "support/programs.hpp"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace local_hub_proxy_tests {

namespace {

using namespace hub_test;

namespace http = local_hub::http;

using fields = std::vector<std::pair<std::string, std::string>>;

const std::string near = "192.0.2.1";
const std::string far = "2001:db8::1";

// What becomes of a request from this address.
http::request settled(const std::string& address, const fields& said, bool tls = false,
                      const std::string& public_url = "") {
  http::request from;
  from.target = "/hub/models/x";
  from.remote_address = address;
  from.fields = {{"host", "127.0.0.1:8100"}};
  from.fields.insert(from.fields.end(), said.begin(), said.end());
  const local_hub::addresses of({"/hub", public_url, {near, far}}, tls);
  REQUIRE_FALSE(of.settle(from));
  CHECK(from.target == "/models/x");
  return from;
}

std::string root_of(const fields& said) { return settled(near, said).root; }
std::string client_of(const fields& said) { return settled(near, said).remote_address; }

// ---- whom it believes ---------------------------------------------------------------------------

TEST_CASE("what a proxy says counts where the owner named it", "[local_hub]") {
  const fields standard = {{"forwarded", "for=198.51.100.7;proto=https;host=\"lab.example:8443\""}};
  const fields common = {{"x-forwarded-for", "198.51.100.7"},
                         {"x-forwarded-proto", "HTTPS"},
                         {"x-forwarded-host", "lab.example:8443"}};
  for (const fields& said : {standard, common}) {
    CHECK(root_of(said) == "https://lab.example:8443/hub");
    CHECK(client_of(said) == "198.51.100.7");
    for (const char* stranger : {"127.0.0.1", "192.0.2.10", "198.51.100.7"}) {
      const http::request other = settled(stranger, said);
      CHECK(other.root == "http://127.0.0.1:8100/hub");
      CHECK(other.remote_address == stranger);
    }
    CHECK(settled(near, said, false, "https://other.example/a").root == "https://other.example/a");
  }
  CHECK(settled(near, {}).root == "http://127.0.0.1:8100/hub");
  CHECK(settled(near, {}, true).root == "https://127.0.0.1:8100/hub");
  CHECK(settled(near, {{"x-forwarded-proto", "http"}}, true).root == "http://127.0.0.1:8100/hub");
  CHECK(settled(near, {{"x-forwarded-proto", "https"}}).root == "https://127.0.0.1:8100/hub");
}

TEST_CASE("where both kinds are there, neither counts", "[local_hub]") {
  const fields mixed = {{"forwarded", "for=198.51.100.7;host=evil.example"},
                        {"x-forwarded-for", "198.51.100.8"},
                        {"x-forwarded-host", "lab.example"}};
  CHECK(root_of(mixed) == "http://127.0.0.1:8100/hub");
  CHECK(client_of(mixed) == near);
}

TEST_CASE("what stands before the farthest proxy that is trusted does not count", "[local_hub]") {
  const fields standard = {
      {"forwarded", "for=10.0.0.1;host=evil.example;proto=http"},
      {"forwarded", "for=198.51.100.7;proto=https;host=lab.example, for=\"[2001:DB8:0::1]:80\""}};
  const fields common = {{"x-forwarded-for", "10.0.0.1, 198.51.100.7:5000"},
                         {"x-forwarded-for", "2001:db8::1"},
                         {"x-forwarded-proto", "http, https, http"},
                         {"x-forwarded-host", "evil.example, lab.example, inner"}};
  for (const fields& said : {standard, common}) {
    CHECK(root_of(said) == "https://lab.example/hub");
    CHECK(client_of(said) == "198.51.100.7");
  }
  // A quote that is left open takes nothing of what the proxy adds.
  CHECK(client_of({{"forwarded", "for=\"10.0.0.1, for=198.51.100.7"}}) == "198.51.100.7");
  // A proxy may replace the others and add to the list of clients.
  CHECK(root_of({{"x-forwarded-for", "10.0.0.1, 198.51.100.7"},
                 {"x-forwarded-host", "lab.example"}}) == "http://lab.example/hub");
}

TEST_CASE("what no address can be made of is left out", "[local_hub]") {
  for (const char* name : {"unknown", "_hidden", "", "198.51.100", "198.51.100.7 evil"})
    CHECK(client_of({{"x-forwarded-for", name}}) == near);
  CHECK(root_of({{"x-forwarded-proto", "javascript"}}) == "http://127.0.0.1:8100/hub");
  for (const char* host : {"lab.example/path", "a b", "user@lab.example", "lab.example:99999"})
    CHECK(root_of({{"x-forwarded-host", host}}).empty());
  CHECK(root_of({{"x-forwarded-prefix", "/user/ann/proxy/8100/"}}) ==
        "http://127.0.0.1:8100/user/ann/proxy/8100/hub");
  CHECK(root_of({{"x-forwarded-prefix", "evil?x"}}) == "http://127.0.0.1:8100/hub");
}

TEST_CASE("equal addresses are equal texts", "[local_hub]") {
  CHECK(http::numeric_address("0:0:0:0:0:0:0:1") == "::1");
  CHECK(http::numeric_address("::ffff:192.0.2.1") == "192.0.2.1");
  CHECK(http::numeric_address("192.0.2.1") == "192.0.2.1");
  CHECK_FALSE(http::numeric_address("localhost"));
  CHECK(local_hub::parse_base_path("/a/b/") == "/a/b");
  for (const char* no_path : {"", "/", "hub", "/hub?x", "//", "https://a/hub"})
    CHECK_FALSE(local_hub::parse_base_path(no_path));
}

// ---- what it hands out --------------------------------------------------------------------------

const std::string platform_key = "ul_0123456789abcdef0123456789abcdef01234567";

json tell(const running_hub& hub, const std::string& path, const json& body,
          httplib::Headers headers = {}) {
  headers.emplace("Authorization", "Bearer " + platform_key);
  const answer got = send(hub, "POST", path, body.dump(), std::move(headers));
  INFO(got.body);
  REQUIRE(got.status == 200);
  return got.value();
}

// Every address that both kinds of clients are handed begins with `root`, and leads to something
// below `base` at this HUB.
void check_addresses(const running_hub& hub, const std::string& base, const std::string& root,
                     const httplib::Headers& headers = {}) {
  const auto here = [&](const std::string& url) {
    INFO(url);
    REQUIRE(url.starts_with(root + '/'));
    return base + url.substr(root.size());
  };
  const json started = tell(hub, base + "/api/webhooks/training/metrics",
                            {{"event", "training_started"},
                             {"project", "spirals"},
                             {"name", "train"},
                             {"data", {{"trainArgs", json::object()}, {"epochs", 5}}}},
                            headers);
  const std::string id = started.at("modelId");
  CHECK(started.at("modelUrl") == root + "/models/" + id);
  CHECK(send(hub, "GET", here(started.at("modelUrl"))).status == 200);
  const json place = tell(hub, base + "/api/webhooks/models/upload",
                          {{"filename", "best.pt"}, {"modelId", id}}, headers);
  CHECK(send(hub, "PUT", here(place.at("uploadUrl")), "weights").status == 200);

  httplib::Headers with_key = headers;
  with_key.emplace("Authorization", "Bearer " + platform_key);
  with_key.emplace("x-api-key", platform_key);
  const std::string name = base + "/api/models/local/spirals/train/files";
  const json files = send(hub, "GET", name, "", with_key).value().at("files");
  CHECK(send(hub, "GET", here(files.at(0).at("downloadUrl"))).body == "weights");
  const answer older =
      send(hub, "HEAD", base + "/api/webhooks/models/local/spirals/train/download", "", with_key);
  CHECK(older.status == 302);
  CHECK(send(hub, "GET", here(older.header("Location"))).body == "weights");

  const json made =
      send(hub, "POST", base + "/api/models", R"({"name": "mine"})", with_key).value();
  const std::string model = made.at("id");
  const std::string form =
      "--edge\r\nContent-Disposition: form-data; name=\"epoch\"\r\n\r\n0\r\n--edge\r\n"
      "Content-Disposition: form-data; name=\"type\"\r\n\r\nepoch\r\n--edge\r\n"
      "Content-Disposition: form-data; name=\"isBest\"\r\n\r\nTrue\r\n--edge\r\n"
      "Content-Disposition: form-data; name=\"last.pt\"; filename=\"last.pt\"\r\n\r\n"
      "weights of HUB v1\r\n--edge--\r\n";
  httplib::Client client("127.0.0.1", hub.port());
  const auto sent = client.Post((base + "/v1/models/" + model + "/upload").c_str(), with_key, form,
                                "multipart/form-data; boundary=edge");
  REQUIRE(sent);
  REQUIRE(sent->status == 200);
  const json resumed = send(hub, "GET", base + "/v1/models/" + model, "", with_key).value();
  CHECK(send(hub, "GET", here(resumed.at("data").at("resume"))).body == "weights of HUB v1");
}

TEST_CASE("everything is below the base path, and nothing beside it", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at, {"--base-path", "/lab/hub/", "--api-key", platform_key});
  CHECK(hub.url == "http://127.0.0.1:" + std::to_string(hub.port()) + "/lab/hub");
  check_addresses(hub, "/lab/hub", hub.url);
  const answer page = send(hub, "GET", "/lab/hub/models/x");
  CHECK(contains(page.body, "src=\"../page/main.js\""));
  CHECK(send(hub, "GET", "/lab/hub/page/main.js").status == 200);
  const answer bare = send(hub, "GET", "/lab/hub");
  CHECK(bare.status == 302);
  CHECK(bare.header("Location") == "hub/");
  for (const char* path : {"/", "/lab", "/lab/hubs/", "/page/main.js", "/v1/auth", "/api/models",
                           "/api/account/summary", "/storage/x", "/LAB/HUB/"}) {
    CAPTURE(path);
    const answer got = send(hub, "GET", path, "", {{"x-api-key", platform_key}});
    CHECK(got.status == 404);
    CHECK(contains(got.body, "this HUB is below /lab/hub/"));
  }
}

TEST_CASE("the public URL is what is handed out, whatever a request says", "[local_hub]") {
  const home at;
  const std::string root = "https://lab.example/hub";
  const running_hub hub = start_plain(at, {"--public-url", root + '/', "--api-key", platform_key});
  CHECK(contains(hub.program->out(), "local_hub: clients reach it at " + root + '\n'));
  check_addresses(hub, "", root,
                  {{"X-Forwarded-Host", "evil.example"}, {"X-Forwarded-Proto", "http"}});
  const auto made = at.launch_hub({"keys", "make", "laptop", "--public-url", root});
  CHECK(made->wait_for_end().code == 0);
  CHECK(contains(made->out(), "ULTRALYTICS_PLATFORM_URL=" + root + '\n'));
}

TEST_CASE("a trusted proxy says how clients reach this HUB", "[local_hub]") {
  const home at;
  const running_hub hub =
      start_plain(at, {"--trusted-proxy", "127.0.0.1", "--api-key", platform_key});
  check_addresses(hub, "", "https://lab.example/user/ann/proxy/8100",
                  {{"X-Forwarded-Host", "lab.example"},
                   {"X-Forwarded-Proto", "https"},
                   {"X-Forwarded-Prefix", "/user/ann/proxy/8100"}});
}

TEST_CASE("nobody else says how clients reach this HUB", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(
      at, {"--trusted-proxy", "127.0.0.2", "--trusted-proxy", "::1", "--api-key", platform_key});
  check_addresses(hub, "", hub.url,
                  {{"X-Forwarded-Host", "evil.example"}, {"X-Forwarded-Prefix", "/evil"}});
}

// ---- who may ------------------------------------------------------------------------------------

TEST_CASE("behind a proxy the page asks for a key, and its cookie stays below its path",
          "[local_hub]") {
  const home at;
  const running_hub hub =
      start_plain(at, {"--public-url", "https://lab.example/hub", "--api-key", good_key});
  CHECK(send(hub, "GET", "/api/models").status == 401);
  const std::string key = json{{"key", good_key}}.dump();
  // What nginx passes on, unless it is told otherwise: a host of its own, and the page's origin.
  const httplib::Headers page = {{"Host", "127.0.0.1:8100"}, {"Origin", "https://lab.example"}};
  for (const char* origin : {"https://evil.example", "https://lab.example.evil.example",
                             "http://lab.example", "https://lab.example:8443", "null"})
    CHECK(send(hub, "POST", "/api/sign-in", key, {{"Host", "127.0.0.1:8100"}, {"Origin", origin}})
              .status == 403);
  const answer in = send(hub, "POST", "/api/sign-in", key, page);
  CHECK(in.status == 200);
  const std::string cookie = in.header("Set-Cookie");
  CHECK(contains(cookie, "; Secure"));
  CHECK_FALSE(contains(cookie, "Path="));  // so that a browser takes the folder of .../api/sign-in
  const httplib::Headers signed_in = {{"Cookie", cookie.substr(0, cookie.find(';'))}};
  CHECK(send(hub, "GET", "/api/models", "", signed_in).status == 200);
}

TEST_CASE("a cookie is for TLS alone where the page came over it", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at, {"--trusted-proxy", "127.0.0.1", "--api-key", good_key});
  const auto cookie_over = [&](const char* scheme) {
    return send(hub, "POST", "/api/sign-in", json{{"key", good_key}}.dump(),
                {{"Forwarded", std::string("proto=") + scheme}})
        .header("Set-Cookie");
  };
  CHECK(contains(cookie_over("https"), "; Secure"));
  CHECK_FALSE(contains(cookie_over("http"), "Secure"));
}

TEST_CASE("who guesses keys behind a proxy slows nobody else behind it", "[local_hub]") {
  const home at;
  running_hub hub = start_plain(at, {"--trusted-proxy", "127.0.0.1", "--api-key", good_key});
  const auto status_for = [&](const std::string& client, const std::string& key) {
    return send(hub, "GET", "/api/account/summary", "",
                {{"X-Forwarded-For", "203.0.113.1, " + client}, {"x-api-key", key}})
        .status;
  };
  int last = 0;
  for (int i = 0; i < 100 && last != 429; ++i)
    last = status_for("198.51.100.7", "guess" + std::to_string(i) + std::string(37, 'x'));
  CHECK(last == 429);
  CHECK(status_for("198.51.100.8", bad_key) == 401);
  hub.stop();
  CHECK(contains(hub.program->err(), "wrong keys come from 198.51.100.7"));
}

// ---- the command line ---------------------------------------------------------------------------

TEST_CASE("what is no address is said before anything is served", "[local_hub]") {
  const home at;
  for (const auto& [given, why] : std::vector<std::pair<words, std::string>>{
           {{"--base-path", "hub"}, "--base-path: \"hub\" is no path such as /hub"},
           {{"--base-path", "/"}, "--base-path: \"/\" is no path such as /hub"},
           {{"--public-url", "lab.example"}, "--public-url: This address cannot be used"},
           {{"--public-url", "https://a/?x"}, "--public-url: This address cannot be used"},
           {{"--trusted-proxy", "10.0.0.0/8"}, "--trusted-proxy: \"10.0.0.0/8\" is no address"},
           {{"--trusted-proxy", "::1", "--trusted-proxy", "localhost"}, "\"localhost\" is no"},
           {{"--trusted-proxy", "::1"}, "--trusted-proxy: what is behind a proxy can be reached"},
           {{"--public-url", "https://lab.example"},
            "--public-url: https://lab.example can be reached by others, so a key is needed"}}) {
    const auto tried = at.launch_hub(given);
    CHECK(tried->wait_for_end().code == 2);
    CHECK(contains(tried->err(), why));
  }
  const running_hub hub = start_plain(at, {"--public-url", "https://localhost:8443/hub"});
  CHECK(send(hub, "GET", "/api/models").status ==
        200);  // which is this machine, and asks for no key
}

TEST_CASE("the stream of events asks proxies to pass it on at once", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  httplib::Client client("127.0.0.1", hub.port());
  httplib::Headers got;
  client.Get(
      "/api/events", {},
      [&](const httplib::Response& reply) {
        got = reply.headers;
        return true;
      },
      [](const char*, std::size_t) { return false; });
  const answer stream{200, "", got};
  CHECK(stream.header("X-Accel-Buffering") == "no");
  CHECK(stream.header("Cache-Control") == "no-cache, no-store, no-transform");
  CHECK(stream.header("Content-Type") == "text/event-stream");
}

}  // namespace

}  // namespace local_hub_proxy_tests
