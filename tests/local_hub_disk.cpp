// SPDX-License-Identifier: MIT
//
// local_hub and its disk: who may read what it keeps, what a zip takes along, and that a disk which
// is full leaves everything as it was, in words that name no path.

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/local_hub.hpp"
#include "support/programs.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <sys/stat.h>

namespace local_hub_disk_tests {

namespace {

using namespace hub_test;

TEST_CASE("what trainings send is for nobody else on the machine", "[local_hub]") {
  const home at;
  const mode_t before = ::umask(0);
  const running_hub hub = start_plain(at);
  ::umask(before);
  const made_model model = make(hub, "mine");
  REQUIRE(report(hub, model, 0, {{"a", 1}}).status == 200);
  REQUIRE(upload(hub, model, 0, "weights").status == 200);
  std::vector<fs::path> all = {at.data};
  for (const auto& each : fs::recursive_directory_iterator(at.data)) all.push_back(each.path());
  CHECK(all.size() > 6);
  for (const fs::path& each : all) {
    CAPTURE(each.string());
    struct stat facts {};
    REQUIRE(::stat(each.c_str(), &facts) == 0);
    CHECK((facts.st_mode & 077) == 0);
  }
}

TEST_CASE("a zip has nothing that lies behind a link", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const made_model model = make(hub, "mine");
  const fs::path elsewhere = at.folder.write("elsewhere.txt", "not of this model");
  const fs::path folder = at.data / "models" / model.id;
  fs::create_symlink(elsewhere, folder / "link.txt");
  fs::create_directory_symlink(at.folder / "", folder / "links");
  const answer zip = send(hub, "GET", "/api/models/" + model.id + "/everything.zip");
  CHECK(zip.status == 200);
  CHECK(contains(zip.body, "model.json"));
  CHECK_FALSE(contains(zip.body, "not of this model"));
  CHECK_FALSE(contains(zip.body, "link"));
}

// As if the disk had no room for a file of more than so many bytes. A program that is started
// meanwhile inherits that it hears of it by an error, not by a signal.
class full_disk {
 public:
  full_disk() : before_(std::signal(SIGXFSZ, SIG_IGN)) {}
  full_disk(const full_disk&) = delete;
  full_disk& operator=(const full_disk&) = delete;
  ~full_disk() { std::signal(SIGXFSZ, before_); }

  static void fill(const running_hub& hub) { allow(hub, 0); }
  static void empty(const running_hub& hub) { allow(hub, RLIM_INFINITY); }

 private:
  static void allow(const running_hub& hub, rlim_t bytes) {
    const rlimit limit{bytes, RLIM_INFINITY};
    REQUIRE(::prlimit(hub.program->id(), RLIMIT_FSIZE, &limit, nullptr) == 0);
  }
  void (*before_)(int);
};

void check_refusal(const home& at, const answer& got) {
  CHECK(got.status == 507);
  CHECK(contains(got.value().at("message").get<std::string>(), "full"));
  CHECK_FALSE(contains(got.body, at.data.string()));
  for (const auto& [name, value] : got.headers) CHECK_FALSE(contains(value, at.data.string()));
}

TEST_CASE("a full disk changes nothing and is told as what it is", "[local_hub]") {
  const home at;
  const full_disk disk;
  running_hub hub = start_plain(at, {"--api-key", good_key});
  const made_model model = make(hub, "mine");
  const std::string path = "/api/models/" + model.id;
  REQUIRE(report(hub, model, 0, {{"a", 1}}).status == 200);
  REQUIRE(upload(hub, model, 0, "weights").status == 200);
  const json before = send(hub, "GET", "/api/models").value();

  full_disk::fill(hub);
  check_refusal(at, send(hub, "POST", "/api/models", "{\"name\": \"second\"}"));
  const json wanted = {{"config", {{"epochs", 3}}},
                       {"dataset", {{"name", "coco8.yaml"}}},
                       {"lineage", {{"architecture", {{"name", "yolov8n"}}}}},
                       {"meta", {{"name", "third"}}}};
  check_refusal(at, send(hub, "POST", "/v1/models", wanted.dump(), {{"x-api-key", good_key}}));
  check_refusal(at, send(hub, "PATCH", path, "{\"name\": \"renamed\"}"));
  check_refusal(at, report(hub, model, 1, {{"a", 2}}));
  check_refusal(at, upload(hub, model, 1, "more weights"));
  const std::string beat = R"({"agent": "python-8.0.147-local", "agentId": null})";
  CHECK(send(hub, "POST", "/v1/agent/heartbeat/models/" + model.id, beat, {{"x-api-key", good_key}})
            .status == 200);

  const auto check_unchanged = [&] {
    const json all = send(hub, "GET", "/api/models").value().at("models");
    REQUIRE(all.size() == 1);
    CHECK(all[0].at("name") == "mine");
    CHECK(all[0].at("epoch") == 1);
    CHECK(send(hub, "GET", path).value().at("checkpoints").size() == 1);
    CHECK(send(hub, "GET", path + "/metrics").value().at("columns").at("a") == json{1});
  };
  check_unchanged();
  full_disk::empty(hub);
  hub.stop();
  hub = start_plain(at, {"--api-key", good_key});
  check_unchanged();
  CHECK(report(hub, model, 1, {{"a", 2}}).status == 200);
}

}  // namespace

}  // namespace local_hub_disk_tests
