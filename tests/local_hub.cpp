// SPDX-License-Identifier: MIT
//
// local_hub's page as a program sees it, without a browser: who may look, what is made, changed and
// taken away, what survives a crash, and what a hostile or a slow client cannot do. The page itself
// is shown to a browser by tests/browser.sh.

#include "support/local_hub.hpp"
#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/programs.hpp"
#include "support/sha256.hpp"

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

namespace local_hub_tests {

#if !defined(HUB_SESSION_TEST_DATA)
#error "define HUB_SESSION_TEST_DATA as the path of tests/data"
#endif

namespace {

using namespace hub_test;

// ---- who may ------------------------------------------------------------------------------------

TEST_CASE("the page on a loopback address is for this machine alone", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  for (const char* path : {"/", "/api/models", "/api/status", "/api/events"}) {
    CAPTURE(path);
    CHECK(send(hub, "GET", path, "", {{"Host", "evil.example"}}).status == 403);
    CHECK(send(hub, "GET", path, "", {{"Host", "127.0.0.1.evil.example:80"}}).status == 403);
    CHECK(send(hub, "GET", path, "", {{"Host", "localhost@evil.example"}}).status == 403);
  }
  for (const char* host : {"localhost", "localhost:8100", "127.0.0.1:1", "[::1]:8100"})
    CHECK(send(hub, "GET", "/api/models", "", {{"Host", host}}).status == 200);
}

TEST_CASE("another page changes nothing", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  const std::string self = "127.0.0.1:" + std::to_string(hub.port());
  const std::string at_model = "/api/models/" + model.id;
  const std::array<httplib::Headers, 4> elsewhere = {{
      {{"Host", self}, {"Origin", "https://evil.example"}},
      {{"Host", self}, {"Origin", "null"}},
      {{"Host", self}, {"Origin", "http://" + self + ".evil.example"}},
      {{"Host", self}, {"Sec-Fetch-Site", "cross-site"}},
  }};
  for (const httplib::Headers& each : elsewhere) {
    CHECK(send(hub, "POST", "/api/models", "{\"name\": \"x\"}", each).status == 403);
    CHECK(send(hub, "DELETE", at_model, "", each).status == 403);
    CHECK(send(hub, "POST", at_model + "/reset", "{}", each).status == 403);
    CHECK(send(hub, "POST", at_model + "/key", "{}", each).status == 403);
    CHECK(send(hub, "PATCH", at_model, "{\"name\": \"x\"}", each).status == 403);
  }
  CHECK(send(hub, "GET", "/api/models").value().at("models").size() == 1);
  CHECK(send(hub, "PATCH", at_model, "{\"name\": \"renamed\"}",
             {{"Host", self}, {"Origin", "http://" + self}})
            .status == 200);
}

TEST_CASE("the page asks for a key where others can reach it", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at, {"--page-needs-key", "--api-key", good_key});
  CHECK(send(hub, "GET", "/").status == 200);
  for (const char* path : {"/api/models", "/api/events", "/api/refused", "/api/models/x/metrics"})
    CHECK(send(hub, "GET", path).status == 401);
  CHECK(send(hub, "POST", "/api/models", "{\"name\": \"x\"}").status == 401);
  CHECK_FALSE(send(hub, "GET", "/api/status").value().at("signed_in").get<bool>());
  CHECK(send(hub, "GET", "/api/models", "", {{"x-api-key", good_key}}).status == 200);

  CHECK(send(hub, "POST", "/api/sign-in", json{{"key", bad_key}}.dump()).status == 401);
  const answer in = send(hub, "POST", "/api/sign-in", json{{"key", good_key}}.dump());
  CHECK(in.status == 200);
  const std::string cookie = in.header("Set-Cookie");
  CHECK(contains(cookie, "HttpOnly"));
  CHECK(contains(cookie, "SameSite=Strict"));
  CHECK_FALSE(contains(cookie, good_key));
  const httplib::Headers with = {{"Cookie", "a=b; " + cookie.substr(0, cookie.find(';'))}};
  CHECK(send(hub, "GET", "/api/models", "", with).status == 200);
  CHECK(send(hub, "POST", "/api/sign-out", "{}", with).status == 200);
  CHECK(send(hub, "GET", "/api/models", "", with).status == 401);
}

TEST_CASE("every reply of the page says what a browser may do with it", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  for (const char* path : {"/", "/page/main.js", "/page/style.css", "/api/models", "/nothing"}) {
    const answer got = send(hub, "GET", path);
    CAPTURE(path);
    CHECK(contains(got.header("Content-Security-Policy"), "default-src 'none'; script-src 'self'"));
    CHECK(contains(got.header("Content-Security-Policy"), "frame-ancestors 'none'"));
    CHECK_FALSE(contains(got.header("Content-Security-Policy"), "unsafe"));
    CHECK(got.header("X-Content-Type-Options") == "nosniff");
    CHECK(got.header("Cache-Control") == "no-store");
  }
}

TEST_CASE("the page's files ask for nothing elsewhere and make no markup of text", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const fs::path sources =
      fs::path(HUB_SESSION_TEST_DATA).parent_path().parent_path() / "examples/local_hub/page";
  std::size_t count = 0;
  for (const auto& each : fs::directory_iterator(sources)) {
    const std::string name = each.path().filename().string();
    const answer got = send(hub, "GET", name == "index.html" ? "/" : "/page/" + name);
    CAPTURE(name);
    REQUIRE(got.status == 200);
    CHECK(contains(read_file(each.path()), got.body));
    CHECK(got.body.size() < 16 * 1024);  // where some compilers stop
    for (const char* never : {"innerHTML", "insertAdjacentHTML", "document.write", "eval(", "//cdn",
                              "https://", "style=\"", "onclick=\""})
      CHECK_FALSE(contains(got.body, never));
    ++count;
  }
  CHECK(count >= 20);
}

TEST_CASE("the page finds its files from each of its addresses", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  CHECK(contains(send(hub, "GET", "/keys").body, "src=\"page/main.js\""));
  CHECK(contains(send(hub, "GET", "/models/x").body, "src=\"../page/main.js\""));
  CHECK(contains(send(hub, "GET", "/models/x/").body, "src=\"../../page/main.js\""));
}

// ---- models -------------------------------------------------------------------------------------

TEST_CASE("a model is made, reported to, renamed, reset and deleted", "[local_hub]") {
  const home at;
  running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine", 7);
  const std::string path = "/api/models/" + model.id;
  CHECK(model.key.size() == hub::hub_v1_wire::api_key_length);
  CHECK(send(hub, "GET", path).value().at("state") == "new");
  CHECK(report(hub, model, 0, {{"train/loss", 2.5}, {"metrics/mAP50-95(B)", 0.25}}).status == 200);
  CHECK(report(hub, model, 1, {{"train/loss", 1.5}, {"metrics/mAP50-95(B)", 0.125}}).status == 200);
  CHECK(upload(hub, model, 1, "weights").status == 200);
  json shown = send(hub, "GET", path).value();
  CHECK(shown.at("epoch") == 2);
  CHECK(shown.at("epochs") == 7);
  CHECK(shown.at("best").at("value") == 0.25);
  CHECK(shown.at("best").at("epoch") == 1);
  CHECK(shown.at("checkpoints").at(0).at("sha256") == sha256("weights"));
  CHECK(shown.at("checkpoints").at(0).at("bytes") == 7);

  CHECK(send(hub, "PATCH", path, "{\"name\": \"" + std::string(201, 'x') + "\"}").status == 400);
  CHECK(send(hub, "PATCH", path, "{\"name\": \"other\"}").status == 200);
  hub.stop();
  hub = start_plain(at);
  CHECK(send(hub, "GET", path).value().at("name") == "other");
  CHECK(send(hub, "GET", path).value().at("checkpoints").size() == 1);

  CHECK(send(hub, "POST", path + "/reset", "{}").status == 200);
  shown = send(hub, "GET", path).value();
  CHECK(shown.at("state") == "new");
  CHECK(shown.at("checkpoints").empty());
  CHECK(report(hub, model, 0, {{"train/loss", 9.5}}).status == 200);
  hub.stop();
  hub = start_plain(at);
  CHECK(send(hub, "GET", path + "/metrics").value().at("columns") == json{{"train/loss", {9.5}}});

  CHECK(send(hub, "DELETE", path).status == 200);
  CHECK(send(hub, "GET", path).status == 404);
  CHECK(send(hub, "DELETE", path).status == 404);
  CHECK(report(hub, model, 1, {{"train/loss", 1.5}}).status == 404);
  CHECK_FALSE(fs::exists(at.data / "models" / model.id));
}

TEST_CASE("a model that was deleted can be brought back, or erased for good", "[local_hub]") {
  const home at;
  running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  CHECK(report(hub, model, 4, {{"train/loss", 2.5}}).status == 200);
  CHECK(upload(hub, model, 4, "weights").status == 200);
  const std::string path = "/api/models/" + model.id, trashed = "/api/trash/" + model.id;
  CHECK(send(hub, "POST", trashed, "{}").status == 404);
  const json before = send(hub, "GET", path + "/metrics").value().at("columns");
  CHECK(send(hub, "DELETE", path).status == 200);
  CHECK(send(hub, "GET", "/api/trash").value().at("trash").at(0).at("name") == "mine");
  hub.stop();
  hub = start_plain(at);
  CHECK(send(hub, "GET", path).status == 404);
  CHECK(send(hub, "POST", trashed, "{}").status == 200);
  CHECK(send(hub, "GET", path + "/metrics").value().at("columns") == before);
  CHECK(send(hub, "GET", path + "/files/checkpoints/epoch-4.pt").body == "weights");
  CHECK(report(hub, model, 5, {{"train/loss", 1.5}}).status == 200);
  CHECK(send(hub, "GET", "/api/trash").value().at("trash").empty());

  CHECK(send(hub, "DELETE", trashed).status == 404);
  CHECK(send(hub, "DELETE", path).status == 200);
  CHECK(send(hub, "DELETE", trashed).status == 200);
  CHECK(fs::is_empty(at.data / "trash"));
  CHECK(send(hub, "POST", trashed, "{}").status == 404);
}

TEST_CASE("what is in the trash for a day is gone at the next start", "[local_hub]") {
  const home at;
  running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  CHECK(send(hub, "DELETE", "/api/models/" + model.id).status == 200);
  hub.stop();
  for (const auto& each : fs::directory_iterator(at.data / "trash"))
    fs::rename(each.path(), at.data / "trash" / (model.id + "-1000"));
  hub = start_plain(at);
  CHECK(fs::is_empty(at.data / "trash"));
}

TEST_CASE("a model has a project, tags and a note", "[local_hub]") {
  const home at;
  running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  const std::string path = "/api/models/" + model.id;
  const json said = {{"project", "helmets"}, {"tags", {"night", "640"}}, {"note", "two\nlines"}};
  CHECK(send(hub, "PATCH", path, said.dump()).status == 200);
  CHECK(send(hub, "PATCH", path, R"({"name": "other"})").status == 200);
  CHECK(send(hub, "PATCH", path, R"({"note": "shorter"})").status == 200);
  for (const std::string& bad :
       {json{{"tags", std::vector<std::string>(21, "x")}}.dump(),
        json{{"project", std::string(101, 'x')}}.dump(), json{{"name", ""}, {"note", "n"}}.dump(),
        json{{"note", std::string(10'001, 'x')}}.dump()})
    CHECK(send(hub, "PATCH", path, bad).status == 400);
  hub.stop();
  hub = start_plain(at);
  for (const json& shown : {send(hub, "GET", path).value(),
                            send(hub, "GET", "/api/models").value().at("models").at(0)}) {
    CHECK(shown.at("name") == "other");
    CHECK(shown.at("project") == "helmets");
    CHECK(shown.at("tags") == json{"night", "640"});
    CHECK(shown.at("note") == "shorter");
  }
}

TEST_CASE("when epochs arrived is shown, also after a restart", "[local_hub]") {
  const home at;
  running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  for (int epoch = 0; epoch < 3; ++epoch) report(hub, model, epoch, {{"a", epoch}});
  hub.stop();
  // An hour's break, which is longer than a training may be silent, says nothing about the pace.
  std::ofstream lines(at.data / "models" / model.id / "metrics.jsonl");
  for (const auto& [epoch, time] :
       {std::pair(0, "10:00:00"), {1, "10:00:20"}, {2, "11:00:20"}, {3, "11:00:40"}})
    lines << json{{"epoch", epoch},
                  {"time", std::string("2026-07-31T") + time + "Z"},
                  {"metrics", {{"a", epoch}}}}
                 .dump()
          << '\n';
  lines.close();
  hub = start_plain(at);
  const std::string path = "/api/models/" + model.id;
  const json shown = send(hub, "GET", path).value();
  CHECK(shown.at("took") == 3640);
  CHECK(shown.at("pace") == 20.0);
  const json times = send(hub, "GET", path + "/metrics").value().at("times");
  CHECK(times.at(0) == shown.at("began"));
  CHECK(times.at(3).get<int>() - times.at(0).get<int>() == 3640);
  CHECK(contains(
      send(hub, "GET", path + "/metrics.csv").body,
      "epoch,time,seconds,\"a\"\r\n1,2026-07-31T10:00:00Z,0,0\r\n2,2026-07-31T10:00:20Z,20,1"));
}

TEST_CASE("only the epochs that changed are sent again", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  const std::string path = "/api/models/" + model.id + "/metrics?since=";
  for (int epoch : {0, 1, 2}) report(hub, model, epoch, {{"a", epoch}});
  const json all = send(hub, "GET", path + "0").value();
  CHECK(all.at("epochs") == json{1, 2, 3});
  const std::string version = std::to_string(all.at("version").get<std::uint64_t>());
  CHECK(send(hub, "GET", path + version).value().at("epochs").empty());
  report(hub, model, 1, {{"a", 7}, {"b", nullptr}, {"c", "text"}});
  const json news = send(hub, "GET", path + version).value();
  CHECK(news.at("epochs") == json{2});
  CHECK(news.at("count") == 3);
  CHECK(news.at("columns").at("a") == json{7});
  CHECK(news.at("columns").at("c") == json{nullptr});
}

TEST_CASE("what was refused is shown with the reason, and no secret of the request",
          "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  send(hub, "POST", "/v1/models/" + model.id, "{}", {{"x-api-key", model.key}});
  send(hub, "GET", "/v1/models/" + model.id, "", {{"x-api-key", bad_key}});
  send(hub, "GET", "/v1/nothing?X-Goog-Signature=secret");
  const json refused = send(hub, "GET", "/api/refused").value().at("refused");
  REQUIRE(refused.size() == 3);
  CHECK(refused[0].at("what") == "GET /v1/nothing");
  CHECK(refused[1].at("why") == "unknown API key");
  CHECK(refused[2].at("why") == "metrics and type are needed");
  CHECK_FALSE(contains(refused.dump(), "secret"));
  CHECK_FALSE(contains(refused.dump(), bad_key));
  CHECK(send(hub, "GET", "/api/models/" + model.id).value().at("refused").size() == 2);
  for (int i = 0; i < 250; ++i) send(hub, "GET", "/v1/nothing");
  CHECK(send(hub, "GET", "/api/refused").value().at("refused").size() == 200);
}

// ---- to take away -------------------------------------------------------------------------------

TEST_CASE("metrics come as CSV that no spreadsheet runs", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  report(hub, model, 0, {{"=cmd()", 1}, {"say \"a,b\"", 0.5}});
  report(hub, model, 2, {{"=cmd()", 2}});
  const answer csv = send(hub, "GET", "/api/models/" + model.id + "/metrics.csv");
  const std::regex times(",\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ,\\d+,");
  CHECK(std::regex_replace(csv.body, times, ",,,") ==
        "epoch,time,seconds,\"'=cmd()\",\"say \"\"a,b\"\"\"\r\n1,,,1,0.5\r\n3,,,2,\r\n");
  CHECK(contains(csv.header("Content-Disposition"), "attachment"));
}

TEST_CASE("a checkpoint comes back byte for byte, and nothing else does", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  std::string weights(3'000'000, 'w');
  for (std::size_t i = 0; i < weights.size(); i += 1000) weights[i] = static_cast<char>(i / 1000);
  REQUIRE(upload(hub, model, 4, weights).status == 200);
  const std::string files = "/api/models/" + model.id + "/files/";
  const answer got = send(hub, "GET", files + "checkpoints/epoch-4.pt");
  CHECK(got.body == weights);
  CHECK(contains(got.header("Content-Disposition"), "epoch-5.pt"));  // as the page counts
  const answer part =
      send(hub, "GET", files + "checkpoints/epoch-4.pt", "", {{"Range", "bytes=1000-1999"}});
  CHECK(part.status == 206);
  CHECK(part.body == weights.substr(1000, 1000));
  for (const char* path :
       {"model.json", "checkpoints/epoch-4.json", "checkpoints/epoch-5.pt", "../../../keys.json",
        "..%2f..%2f..%2fkeys.json", "checkpoints/../../../../keys.json", "/etc/passwd", "", ".."}) {
    CAPTURE(path);
    CHECK(send(hub, "GET", files + path).status == 404);
  }
  for (const char* path : {"/page/../keys.json", "/page/%2e%2e/keys.json", "/../keys.json",
                           "/page//etc/passwd", "/models/../keys.json"}) {
    CAPTURE(path);
    CHECK_FALSE(contains(send(hub, "GET", path).body, "\"keys\""));
  }
}

TEST_CASE("everything comes as a zip", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  report(hub, model, 0, {{"a", 1}});
  REQUIRE(upload(hub, model, 4, std::string(500'000, 'w')).status == 200);
  const answer zip = send(hub, "GET", "/api/models/" + model.id + "/everything.zip");
  CHECK(std::to_string(zip.body.size()) == zip.header("Content-Length"));
  const fs::path file = at.folder.write("all.zip", zip.body);
  // Python's zipfile checks every checksum.
  const std::string check =
      "python3 -c \"import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); "
      "sys.exit(z.testzip() is not None or len(z.namelist()) != 4)\" '" +
      file.string() + "'";
  CHECK(std::system(check.c_str()) == 0);
  CHECK(contains(zip.body, std::string(500'000, 'w')));
}

// ---- hostile and slow clients -------------------------------------------------------------------

TEST_CASE("bodies have a bound", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  const std::string long_name = json{{"name", std::string(100'000, 'x')}}.dump();
  CHECK(send(hub, "POST", "/api/models", long_name).status == 413);
  const std::string long_body(34'000'000, ' ');
  CHECK(send(hub, "POST", "/v1/models/" + model.id, long_body, {{"x-api-key", model.key}}).status ==
        413);
  CHECK(send(hub, "GET", "/" + std::string(20'000, 'x')).status == 414);
  CHECK(send(hub, "GET", "/api/models").status == 200);
}

TEST_CASE("a range that lies beyond the end ends nothing but its connection", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  REQUIRE(upload(hub, model, 4, "weights").status == 200);
  const std::string of_model = "/api/models/" + model.id;
  for (const std::string& path :
       {std::string("/"), of_model, of_model + "/metrics.csv", of_model + "/everything.zip",
        of_model + "/files/checkpoints/epoch-4.pt"})
    for (const char* range : {"bytes=99999999-", "bytes=99999998-99999999", "bytes=1-"}) {
      httplib::Client client("127.0.0.1", hub.port());
      client.Get(path, httplib::Headers{{"Range", range}});  // whatever comes back
      CHECK(send(hub, "GET", of_model).status == 200);
    }
}

TEST_CASE("a thousand idle and dripping connections keep nobody waiting", "[local_hub]") {
  const home at;
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  const rlimit before = files;
  files.rlim_cur = 512;  // local_hub is to raise its own
  ::setrlimit(RLIMIT_NOFILE, &files);
  const running_hub hub = start_plain(at);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  std::vector<int> connections;
  for (int i = 0; i < 1000; ++i) {
    connections.push_back(connect_to(hub));
    const std::string_view beginning = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n";
    if (i % 2) CHECK(::send(connections.back(), beginning.data(), beginning.size(), 0) > 0);
  }
  CHECK(send(hub, "GET", "/api/models").status == 200);
  for (const int each : connections) ::close(each);
  ::setrlimit(RLIMIT_NOFILE, &before);
}

// ---- a crash ------------------------------------------------------------------------------------

TEST_CASE("what was confirmed is there after kill -9, whenever it comes", "[local_hub]") {
  const home at;
  running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  int epoch = 0;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 5; ++i) {
      REQUIRE(report(hub, model, epoch, {{"a", epoch}}).status == 200);
      REQUIRE(upload(hub, model, epoch, "weights of " + std::to_string(epoch)).status == 200);
      ++epoch;
    }
    hub.program->send(SIGKILL);
    CHECK(hub.program->wait_for_end().signal == SIGKILL);
    hub = start_plain(at);
    const json shown = send(hub, "GET", "/api/models/" + model.id).value();
    CHECK(shown.at("epoch") == epoch);
    REQUIRE(shown.at("checkpoints").size() == static_cast<std::size_t>(epoch));
    for (const json& each : shown.at("checkpoints"))
      CHECK(each.at("sha256") ==
            sha256("weights of " + std::to_string(each.at("epoch").get<int>() - 1)));
  }
}

}  // namespace

}  // namespace local_hub_tests
