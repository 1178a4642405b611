// SPDX-License-Identifier: MIT
//
// The examples as a user meets them: built programs, run as processes of their own, judged by what
// they print, how they end, and what they leave on disk. Loopback only.
//
// HUB_KILLS=200 has train killed so often, instead of ten times; HUB_KILLS_SEED repeats a run.

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "support/programs.hpp"
#include "support/sha256.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace examples_tests {

namespace {

using namespace hub_test;

// ---- what is on a HUB ---------------------------------------------------------------------------

hub::reply ask(const running_hub& to, const std::string& model, const std::string& key = good_key,
               hub::httplib_options with = {}) {
  hub::httplib_transport transport(std::move(with));
  return transport.send(hub::hub_v1_wire::model_request(
      {.api_root = to.url, .api_key = key, .id_token = {}, .model_id = model}));
}

std::string state(const running_hub& hub) {
  const hub::reply answer = ask(hub, hub.model);
  REQUIRE(answer.status == 200);
  return json::parse(answer.body).at("data").at("status");
}

std::set<int> epochs_in(const fs::path& metrics) {
  std::set<int> out;
  std::ifstream in(metrics);
  for (std::string line; std::getline(in, line);)
    out.insert(json::parse(line).at("epoch").get<int>());
  return out;
}

std::size_t count_files(const fs::path& folder, std::string_view extension) {
  std::size_t count = 0;
  for (const auto& each : fs::recursive_directory_iterator(folder))
    if (each.path().extension() == extension) ++count;
  return count;
}

// That the page beside a checkpoint describes the bytes that are there.
void check_whole(const fs::path& checkpoint) {
  const std::string bytes = read_file(checkpoint);
  const json page = json::parse(read_file(fs::path(checkpoint).replace_extension(".json")));
  INFO(checkpoint << ": " << page);
  CHECK(page.at("bytes") == bytes.size());
  CHECK(page.at("sha256") == sha256(bytes));
}

void check_all_whole(const fs::path& model) {
  for (const auto& each : fs::recursive_directory_iterator(model))
    if (each.path().extension() == ".pt") check_whole(each.path());
}

// ---- train and upload ---------------------------------------------------------------------------

TEST_CASE("train reports a whole run to local_hub", "[examples]") {
  const home at;
  running_hub hub = at.start_hub({"--make-model", "spirals", "--epochs", "5"});
  CHECK(hub.model.size() == hub::hub_v1_wire::model_id_length);
  CHECK(state(hub) == "new");

  const auto train = at.start_train(hub, {});
  const ending ended = train->wait_for_end();
  INFO(train->out() << train->err());
  REQUIRE(ended.code == 0);
  CHECK(train->last_line().starts_with("HUB has 5 of 5 epochs, "));
  CHECK(train->last_line().ends_with(", and the final model. See " + hub.page()));
  CHECK(state(hub) == "trained");

  const fs::path model = at.model_folder(hub);
  CHECK(epochs_in(model / "metrics.jsonl") == std::set<int>{0, 1, 2, 3, 4});
  CHECK(!read_file(model / "heartbeats.jsonl").empty());
  CHECK(read_file(model / "best.pt") == read_file(at.out / "best.pt"));
  if (fs::exists(model / "checkpoints" / "epoch-4.pt"))  // unless the final model overtook it
    CHECK(read_file(model / "checkpoints" / "epoch-4.pt") == read_file(at.out / "last.pt"));
  check_all_whole(model);
  const std::size_t checkpoints = count_files(model / "checkpoints", ".pt");
  CHECK(contains(train->last_line(), " " + std::to_string(checkpoints) + " checkpoint"));
  CHECK(count_files(at.data, ".part") == 0);
  hub.stop();
}

TEST_CASE("train built on libcurl reports a whole run as well", "[examples]") {
  if (!std::getenv("HUB_TRAIN_CURL")) {
    WARN("There was no libcurl to build it on.");
    return;
  }
  const home at;
  const running_hub hub = at.start_hub();
  const auto train = at.start_client(
      "HUB_TRAIN_CURL", hub, {"--model", hub.model, "--epochs", "5", "--out", at.out.string()});
  CHECK(train->wait_for_end().code == 0);
  INFO(train->out() << train->err());
  CHECK(train->last_line().ends_with(", and the final model. See " + hub.page()));
  CHECK(epochs_in(at.model_folder(hub) / "metrics.jsonl") == std::set<int>{0, 1, 2, 3, 4});
  CHECK(read_file(at.model_folder(hub) / "best.pt") == read_file(at.out / "best.pt"));
}

TEST_CASE("train takes --epochs over what the model says", "[examples]") {
  const home at;
  const running_hub hub = at.start_hub({"--make-model", "spirals", "--epochs", "1000"});
  const auto train = at.start_train(hub, {"--epochs", "2"});
  CHECK(train->wait_for_end().code == 0);
  CHECK(train->last_line().starts_with("HUB has 2 of 2 epochs, "));
}

TEST_CASE("train ended by SIGTERM leaves its metrics on the HUB", "[examples]") {
  const home at;
  const running_hub hub = at.start_hub();
  const auto train = at.start_train(
      hub, {"--epochs", "1000000", "--epoch-seconds", "0.01", "--shutdown-deadline", "60"});
  train->wait_for_line("epoch 4 of ");  // so the first three were reported
  train->send(SIGTERM);
  const ending ended = train->wait_for_end();
  CHECK(ended.signal == SIGTERM);
  const std::set<int> arrived = epochs_in(at.model_folder(hub) / "metrics.jsonl");
  for (int epoch : {0, 1, 2}) CHECK(arrived.contains(epoch));
}

TEST_CASE("a training that ended early goes on from its last checkpoint", "[examples]") {
  const home at;
  running_hub hub = at.start_hub();
  const auto first = at.start_train(hub, {"--epochs", "1000000", "--epoch-seconds", "0.02"});
  first->wait_for_line("epoch 10 of ");
  while (state(hub) != "training") first->wait_for_line("epoch ");
  bool killed = false;
  SECTION("by SIGTERM, on a machine that has nothing of it, with a HUB that began anew") {
    first->send(SIGTERM);
    CHECK(first->wait_for_end().signal == SIGTERM);
    fs::remove_all(at.out);
    hub.stop();
    hub = at.start_hub_again(hub);
  }
  SECTION("by SIGKILL, which costs what HUB had not confirmed") {
    killed = true;
    first->send(SIGKILL);
    CHECK(first->wait_for_end().signal == SIGKILL);
  }
  const fs::path metrics = at.model_folder(hub) / "metrics.jsonl";
  const std::set<int> before = epochs_in(metrics);
  REQUIRE_FALSE(before.empty());
  const int epochs = *before.rbegin() + 20;

  const auto train = at.start_train(hub, {"--resume", "--epochs", std::to_string(epochs)});
  const int done = std::stoi(train->wait_for_line("Going on after epoch ").substr(21));
  CHECK(done >= 1);
  train->wait_for_line("epoch " + std::to_string(done + 1) + " of ");
  const ending ended = train->wait_for_end();
  INFO(train->out() << train->err());
  CHECK(ended.code == 0);
  const std::string left = std::to_string(epochs - done);
  CHECK(train->last_line().starts_with("HUB has " + left + " of " + left + " epochs, "));
  CHECK(state(hub) == "trained");
  const std::set<int> after = epochs_in(metrics);
  for (int epoch = killed ? done : 0; epoch < epochs; ++epoch) CHECK(after.contains(epoch));
  CHECK(std::includes(after.begin(), after.end(), before.begin(), before.end()));
  CHECK(read_file(at.model_folder(hub) / "best.pt") == read_file(at.out / "best.pt"));
  check_all_whole(at.model_folder(hub));
}

TEST_CASE("train --resume without a checkpoint on the HUB starts anew and says so", "[examples]") {
  const home at;
  const running_hub hub = at.start_hub();
  const auto train = at.start_train(hub, {"--resume", "--epochs", "3"});
  train->wait_for_line("The training starts anew: ");
  train->wait_for_line("epoch 1 of 3: ");
  CHECK(train->wait_for_end().code == 0);
  CHECK(train->last_line().starts_with("HUB has 3 of 3 epochs, "));
}

TEST_CASE("train --resume takes no file for weights that holds none", "[examples]") {
  const home at;
  const running_hub hub = at.start_hub();
  at.upload(hub, {"--last"}, at.folder.write("last.pt", "no weights"));
  const auto train = at.start_train(hub, {"--resume"});
  CHECK(train->wait_for_end().code == 1);
  CHECK(contains(train->err(), "holds no weights of this program"));
}

TEST_CASE("train outlives a HUB that crashes and comes back", "[examples]") {
  const home at;
  running_hub hub = at.start_hub_to_return();
  const auto train = at.start_train(hub, {"--epochs", "30", "--epoch-seconds", "0.02"});
  train->wait_for_line("epoch 5 of ");
  hub.program->send(SIGKILL);
  CHECK(hub.program->wait_for_end().signal == SIGKILL);
  train->wait_for_line("epoch 10 of ");
  const running_hub again = at.start_hub_again(hub);

  const ending ended = train->wait_for_end();
  INFO(train->out() << train->err());
  CHECK(ended.code == 0);
  CHECK(train->last_line().starts_with("HUB has 30 of 30 epochs, "));
  CHECK(epochs_in(at.model_folder(hub) / "metrics.jsonl").size() == 30);
  CHECK(read_file(at.model_folder(hub) / "best.pt") == read_file(at.out / "best.pt"));
  check_all_whole(at.model_folder(hub));
}

TEST_CASE("upload sends a checkpoint, then the final model", "[examples]") {
  const home at;
  const running_hub hub = at.start_hub();
  const fs::path last = at.folder.write("mine.pt", std::string(1000, 'L'));
  const fs::path best = at.folder.write("the best.pt", std::string(3'000'000, 'B'));

  const auto first = at.upload(hub, {"--last", "--epoch", "7"}, last);
  CHECK(first->last_line() ==
        "HUB has " + last.string() + " as the checkpoint of epoch 7. See " + hub.page());
  CHECK(read_file(at.model_folder(hub) / "checkpoints" / "epoch-7.pt") == read_file(last));
  CHECK(state(hub) == "training");

  const auto second = at.upload(hub, {"--best", "--epoch", "9", "--map", "0.5"}, best);
  CHECK(second->last_line() ==
        "HUB has " + best.string() + " as the final model of epoch 9. See " + hub.page());
  CHECK(read_file(at.model_folder(hub) / "best.pt") == read_file(best));
  const json page = json::parse(read_file(at.model_folder(hub) / "best.json"));
  CHECK(page.at("map") == 0.5);
  CHECK(page.at("epoch") == 9);
  check_all_whole(at.model_folder(hub));

  const auto third = at.upload(hub, {"--last"}, last, 2);
  CHECK(contains(third->err(), "trained already"));
}

TEST_CASE("a checkpoint of the same epoch replaces the earlier one", "[examples]") {
  const home at;
  const running_hub hub = at.start_hub();
  at.upload(hub, {"--last", "--epoch", "7"}, at.folder.write("a.pt", std::string(1000, 'a')));
  at.upload(hub, {"--last", "--epoch", "7"}, at.folder.write("b.pt", std::string(2000, 'b')));
  const fs::path kept = at.model_folder(hub) / "checkpoints" / "epoch-7.pt";
  CHECK(read_file(kept) == std::string(2000, 'b'));
  check_whole(kept);
}

TEST_CASE("a wrong key is refused, and nobody prints it", "[examples]") {
  const home at;
  running_hub hub = at.start_hub();
  const std::string file = at.folder.write("last.pt", "weights").string();
  const std::string with_key = bad_key + "_" + hub.model;
  const std::array<std::unique_ptr<process>, 4> all = {
      at.start_client("HUB_TRAIN", hub, {"--model", hub.model}, bad_key),
      at.start_client("HUB_TRAIN", hub, {"--model", with_key}),
      at.start_client("HUB_UPLOAD", hub, {hub.model, file}, bad_key),
      at.start_client("HUB_UPLOAD", hub, {with_key, file})};
  for (const auto& each : all) {
    CHECK(each->wait_for_end().code == 2);
    const std::string said = each->out() + each->err();
    CHECK(contains(said, "key"));
    CHECK(!contains(said, bad_key));
    CHECK(!contains(said, good_key));
  }
  hub.stop();
  const std::string said = hub.program->out() + hub.program->err();
  CHECK(!contains(said, bad_key));
  CHECK(!contains(said, good_key));
}

TEST_CASE("what cannot be understood ends with code 2 and its name", "[examples]") {
  const home at;
  const auto refused = [&](const char* which, const words& arguments, std::string_view name) {
    const auto done = at.run(which, arguments);
    CAPTURE(which, name);
    CHECK(done->wait_for_end().code == 2);
    CHECK(contains(done->err(), name));
    CHECK(done->out().empty());
  };
  for (const char* which : {"HUB_TRAIN", "HUB_UPLOAD", "HUB_SYNC", "HUB_LOCAL_HUB"}) {
    refused(which, {"--no-such-flag"}, "--no-such-flag");
    refused(which, {"--no-such-flag=3"}, "--no-such-flag");
    const auto help = at.run(which, {"--help"});
    CHECK(help->wait_for_end().code == 0);
    CHECK(help->out().starts_with("usage: "));
  }
  refused("HUB_TRAIN", {}, "--model");
  refused("HUB_TRAIN", {"--model", "x", "--epochs", "none"}, "--epochs");
  refused("HUB_TRAIN", {"--model", "x", "--platform", "y"}, "--model");
  refused("HUB_UPLOAD", {"x"}, "FILE");
  refused("HUB_UPLOAD", {"x", (at.folder / "nothing.pt").string()}, "nothing.pt");
  refused("HUB_UPLOAD", {"--platform", "lab/x", "model", "file"}, "FILE");
  refused("HUB_UPLOAD", {"--platform", "lab/x", "--last", "file"}, "--last");
  refused("HUB_UPLOAD", {"--name", "n", "model", "file"}, "--name");
  refused("HUB_SYNC", {}, "SPOOL_DIR");
  refused("HUB_SYNC", {(at.folder / "nothing").string()}, "nothing is not a folder");
  refused("HUB_LOCAL_HUB", {"--port", "65536"}, "--port");
  refused("HUB_LOCAL_HUB", {"--cert", "x.pem"}, "--key");
  refused("HUB_LOCAL_HUB", {"--epochs", "3"}, "--make-model");
  refused("HUB_LOCAL_HUB", {"--api-key", "two words"}, "--api-key");
  refused("HUB_LOCAL_HUB", {"--api-key", "a"}, "--api-key");
  refused("HUB_LOCAL_HUB", {"--api-key", std::string(19, 'k')}, "--api-key");
  refused("HUB_LOCAL_HUB", {"--host", "0.0.0.0", "--data", at.data.string()}, "--api-key");
  refused("HUB_LOCAL_HUB", {"--host", "127.0.0.1.example.org", "--data", at.data.string()},
          "--api-key");
}

// ---- train and sync with a spool ----------------------------------------------------------------

// How many epochs train had reported when it ended: it prints an epoch before it reports it, so the
// last one that it printed is in doubt.
int reported(const process& train) {
  int lines = 0;
  for (std::size_t at = 0; (at = train.out().find("epoch ", at)) != std::string::npos; ++at)
    if (at == 0 || train.out()[at - 1] == '\n') ++lines;
  return std::max(lines - 1, 0);
}

TEST_CASE("sync shows what a dead training left, and sends it", "[examples]") {
  const home at;
  running_hub hub = at.start_hub();
  const auto train = at.start_train(
      hub, {"--epochs", "100000", "--epoch-seconds", "0.01", "--spool", at.spool.string()});
  train->wait_for_line("epoch 5 of ");
  hub.program->send(SIGKILL);
  hub.program->wait_for_end();
  train->wait_for_line("epoch 12 of ");
  train->send(SIGKILL);
  train->wait_for_end();
  const int epochs = reported(*train);

  const auto shown = at.sync(hub, {"--dry-run"}, 1);
  CHECK(shown->out().starts_with(hub.model + ": "));
  CHECK(contains(shown->out(), "the checkpoint of epoch "));
  CHECK(shown->last_line() == "1 model left in " + at.spool.string() + ".");
  const auto failed = at.sync(hub, {}, 1);
  CHECK(contains(failed->err(), hub.model));
  CHECK(failed->last_line() == shown->last_line());

  const running_hub again = at.start_hub_again(hub);
  const auto sent = at.sync(again, {}, 0);
  CHECK(sent->out().starts_with(hub.model + ": "));
  CHECK(contains(sent->out(), "\n" + hub.model + " is shown at " + again.page() + "\n"));
  CHECK(sent->last_line() == "Nothing is left in " + at.spool.string() + ".");
  const std::set<int> arrived = epochs_in(at.model_folder(again) / "metrics.jsonl");
  for (int epoch = 0; epoch < epochs; ++epoch) CHECK(arrived.contains(epoch));
  CHECK(count_files(at.spool, ".pt") == 0);
  check_all_whole(at.model_folder(again));
  CHECK(at.sync(again, {"--dry-run"}, 0)->last_line() == sent->last_line());
}

// A model whose training is killed five times while its HUB comes and goes. Returns how often it was.
int kill_five_times(std::mt19937& random) {
  const home at;
  running_hub hub = at.start_hub_to_return();
  bool hub_is_up = true;
  const auto flap = [&](unsigned one_in) {
    if (random() % one_in != 0) return;
    if (hub_is_up) {
      hub.program->send(SIGKILL);
      hub.program->wait_for_end();
    } else {
      hub = at.start_hub_again(hub);
    }
    hub_is_up = !hub_is_up;
  };
  int epochs = 0;
  int kills = 0;
  while (kills < 5) {
    const bool may_end = random() % 4 == 0;
    const auto train =
        at.start_train(hub, {"--epochs", may_end ? "12" : "100000", "--epoch-seconds", "0.005",
                             "--spool", at.spool.string()});
    const auto last = static_cast<unsigned>(2 + random() % 11);
    unsigned epoch = 1;
    const auto comes = [&] { return "epoch " + std::to_string(epoch) + " of "; };
    for (; epoch <= last && !train->wait_for_line_or_end(comes()).empty(); ++epoch) flap(8);
    // The one before was killed with the final model in the spool, which came now.
    if (epoch <= last) {
      CHECK(train->wait_for_end().code != 0);
      REQUIRE(contains(train->err(), "is trained already"));
      break;
    }
    // Not to wait for anything: this is the moment at which it dies.
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    train->send(SIGKILL);
    const bool was_killed = train->wait_for_end().signal == SIGKILL;
    epochs = std::max(epochs, reported(*train) + (was_killed ? 0 : 1));
    kills += was_killed ? 1 : 0;
    if (!was_killed) break;  // it was quicker, and HUB takes no further training
    if (random() % 3 != 0 && !hub_is_up) flap(1);
    if (hub_is_up && state(hub) == "trained") break;
  }
  if (!hub_is_up) flap(1);
  at.sync(hub, {}, 0);
  const std::set<int> arrived = epochs_in(at.model_folder(hub) / "metrics.jsonl");
  for (int epoch = 0; epoch < epochs; ++epoch) {
    INFO("epoch " << epoch << " of " << epochs);
    CHECK(arrived.contains(epoch));
  }
  CHECK(count_files(at.spool, ".pt") == 0);
  check_all_whole(at.model_folder(hub));
  return kills;
}

TEST_CASE("a training that is killed at any moment loses nothing that it had reported",
          "[examples]") {
  const char* count = std::getenv("HUB_KILLS");
  const char* given = std::getenv("HUB_KILLS_SEED");
  const auto seed =
      given ? static_cast<std::uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
  INFO("HUB_KILLS_SEED=" << seed);
  std::mt19937 random(seed);
  const int wanted = count ? std::atoi(count) : 10;
  for (int kills = 0; kills < wanted;) kills += kill_five_times(random);
}

// ---- local_hub ----------------------------------------------------------------------------------

TEST_CASE("local_hub has everything again after a restart", "[examples]") {
  const home at;
  running_hub hub = at.start_hub();
  const fs::path file = at.folder.write("last.pt", std::string(100'000, 'L'));
  at.upload(hub, {"--last", "--epoch", "3"}, file);
  hub.stop();
  std::map<fs::path, std::string> before;
  for (const auto& each : fs::recursive_directory_iterator(at.data))
    if (each.is_regular_file()) before[each.path()] = read_file(each.path());
  CHECK(before.size() >= 4);

  hub = at.start_hub_again(hub);
  CHECK(state(hub) == "training");
  for (const auto& [path, content] : before) {
    INFO(path);
    CHECK(read_file(path) == content);
  }
  const auto train = at.start_train(hub, {"--epochs", "3"});
  CHECK(train->wait_for_end().code == 0);
  hub.stop();

  hub = at.start_hub_again(hub);
  CHECK(state(hub) == "trained");
  CHECK(epochs_in(at.model_folder(hub) / "metrics.jsonl") == std::set<int>{0, 1, 2});
  CHECK(read_file(at.model_folder(hub) / "checkpoints" / "epoch-3.pt") == read_file(file));
  at.upload(hub, {"--last"}, file, 2);
}

TEST_CASE("local_hub makes models on request, each with an id of its own", "[examples]") {
  const home at;
  running_hub hub = at.start_hub({});
  const auto make = [&] {
    const hub::reply answer = hub::httplib_transport().send(hub::hub_v1_wire::create_model_request(
        {.api_root = hub.url, .api_key = good_key, .id_token = {}, .model_id = {}},
        {.name = "mine", .dataset = "coco8"}));
    INFO(answer.body);
    REQUIRE(answer.status == 200);
    const auto id = hub::hub_v1_wire::parse_created(answer.body);
    REQUIRE(id);
    return *id;
  };
  std::set<std::string> made = {make(), make()};
  hub.stop();
  hub = at.start_hub({});
  made.insert(make());
  REQUIRE(made.size() == 3);
  for (const std::string& id : made) {
    CHECK(ask(hub, id).status == 200);
    const json page = json::parse(read_file(at.data / "models" / id / "model.json"));
    CHECK(page.at("name") == "mine");
  }
}

// Sends the beginning of an upload: its form and `bytes` of the file, of which twice as many are
// announced. Returns the connection.
int begin_upload(const running_hub& hub, std::size_t bytes) {
  const int connection = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(hub.port()));
  REQUIRE(::connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  std::string text =
      "--edge\r\nContent-Disposition: form-data; name=\"epoch\"\r\n\r\n3\r\n"
      "--edge\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nepoch\r\n"
      "--edge\r\nContent-Disposition: form-data; name=\"isBest\"\r\n\r\nTrue\r\n"
      "--edge\r\nContent-Disposition: form-data; name=\"last.pt\"; filename=\"last.pt\"\r\n\r\n";
  const std::size_t announced = text.size() + 2 * bytes;
  text.insert(0, "POST /v1/models/" + hub.model + "/upload HTTP/1.1\r\nHost: test\r\nx-api-key: " +
                     good_key + "\r\nContent-Type: multipart/form-data; boundary=edge\r\n" +
                     "Content-Length: " + std::to_string(announced) + "\r\n\r\n");
  text.append(bytes, 'N');
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t sent = ::send(connection, rest.data(), rest.size(), MSG_NOSIGNAL);
    REQUIRE(sent > 0);
    rest.remove_prefix(static_cast<std::size_t>(sent));
  }
  return connection;
}

TEST_CASE("local_hub killed in the middle of an upload comes back without it", "[examples]") {
  const home at;
  running_hub hub = at.start_hub();
  const fs::path file = at.folder.write("last.pt", std::string(1000, 'L'));
  at.upload(hub, {"--last", "--epoch", "3"}, file);

  // More than the system buffers, so that when all is sent, much of it has come to local_hub.
  const int connection = begin_upload(hub, std::size_t{32} * 1024 * 1024);
  hub.program->send(SIGKILL);
  CHECK(hub.program->wait_for_end().signal == SIGKILL);
  ::close(connection);
  CHECK(count_files(at.data, ".part") == 1);

  hub = at.start_hub_again(hub);
  CHECK(count_files(at.data, ".part") == 0);
  CHECK(count_files(at.data, ".pt") == 1);
  CHECK(read_file(at.model_folder(hub) / "checkpoints" / "epoch-3.pt") == read_file(file));
  check_all_whole(at.model_folder(hub));
  CHECK(state(hub) == "training");
}

TEST_CASE("local_hub loads a folder that a crash left at any moment", "[examples]") {
  const home at;
  running_hub hub = at.start_hub();
  const fs::path folder = at.model_folder(hub);
  const fs::path kept = folder / "checkpoints" / "epoch-3.pt";
  const fs::path page = folder / "checkpoints" / "epoch-3.json";
  const fs::path next_page = folder / "checkpoints" / "epoch-3.json.next";
  at.upload(hub, {"--last", "--epoch", "3"}, at.folder.write("a.pt", std::string(500, 'a')));
  const std::string old_page = read_file(page);
  at.upload(hub, {"--last", "--epoch", "3"}, at.folder.write("b.pt", std::string(500, 'b')));
  const std::string new_page = read_file(page);
  hub.stop();
  REQUIRE(old_page != new_page);

  SECTION("between the renames of a checkpoint and of its page") {
    std::ofstream(page) << old_page;
    std::ofstream(next_page) << new_page;
  }
  SECTION("before either rename, with the same size") {
    std::ofstream(next_page) << old_page;  // as if the upload that was under way had been "a"
  }
  SECTION("in the middle of writing the page") {
    std::ofstream(next_page) << old_page.substr(0, 10);
  }
  SECTION("in the middle of a line") {
    std::ofstream(folder / "metrics.jsonl") << "{\"epoch\": 0, \"metrics\": {\"a\": 1}}\n{\"epo";
  }
  SECTION("before the new model had its description") {
    fs::create_directories(at.data / "models" / std::string(20, 'x') / "checkpoints");
  }
  hub = at.start_hub_again(hub);
  CHECK(read_file(kept) == std::string(500, 'b'));
  CHECK(read_file(page) == new_page);
  CHECK(!fs::exists(next_page));
  CHECK(state(hub) == "training");

  const auto train = at.start_train(hub, {"--epochs", "2"});
  CHECK(train->wait_for_end().code == 0);
  CHECK(epochs_in(folder / "metrics.jsonl") == std::set<int>{0, 1});
}

TEST_CASE("local_hub refuses a file that is too large and keeps nothing of it", "[examples]") {
  const home at;
  const running_hub hub = at.start_hub({"--make-model", "m", "--upload-bytes-max", "1000000"});
  at.upload(hub, {"--last"}, at.folder.write("fits.pt", std::string(1'000'000, 'L')));
  const fs::path large = at.folder.write("large.pt", std::string(1'000'001, 'L'));
  const auto refused = at.upload(hub, {"--last", "--epoch", "1"}, large, 1);
  CHECK(contains(refused->last_line(), "413"));
  CHECK(count_files(at.data, ".pt") == 1);
  CHECK(count_files(at.data, ".part") == 0);
}

TEST_CASE("local_hub takes no upload that its disk has no room for, and goes on", "[examples]") {
  const home at;
  running_hub hub = at.start_hub({"--make-model", "m", "--free-bytes-min", "1e17"});
  const int connection = begin_upload(hub, 1000);
  REQUIRE(::send(connection, std::string(1000, 'N').data(), 1000, MSG_NOSIGNAL) == 1000);
  std::string answer(12, '\0');  // HTTP/1.1 507
  REQUIRE(::recv(connection, answer.data(), answer.size(), MSG_WAITALL) == 12);
  ::close(connection);
  CHECK(answer.ends_with("507"));
  CHECK(count_files(at.data, ".part") == 0);
  CHECK(state(hub) == "new");

  hub.program->send(SIGTERM);
  CHECK(hub.program->wait_for_end().code == 0);
  hub = at.start_hub_again(hub);  // on a disk with room
  at.upload(hub, {"--last", "--epoch", "1"}, at.folder.write("last.pt", "weights"));
  CHECK(state(hub) == "training");
}

TEST_CASE("local_hub hands out the last checkpoint to whoever has its URL", "[examples]") {
  const home at;
  const running_hub hub = at.start_hub();
  std::string content(3'000'000, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7919 >> 8);
  at.upload(hub, {"--last", "--epoch", "1"}, at.folder.write("a.pt", content));
  const std::string url = json::parse(ask(hub, hub.model).body).at("data").at("resume");
  REQUIRE(url.starts_with(hub.url + "/storage/"));

  const auto get = [&](const std::string& from, const httplib::Headers& headers) {
    auto answer =
        httplib::Client("127.0.0.1", hub.port()).Get(from.substr(hub.url.size()), headers);
    REQUIRE(answer);
    return *answer;
  };
  const httplib::Response whole = get(url, {});
  CHECK(whole.status == 200);
  CHECK((whole.body == content));
  const std::string etag = whole.get_header_value("ETag");
  CHECK(hub::storage_host::is_strong_etag(etag));
  const httplib::Response rest = get(url, {{"Range", "bytes=1000001-"}, {"If-Range", etag}});
  CHECK(rest.status == 206);
  CHECK((rest.body == content.substr(1'000'001)));
  CHECK(rest.get_header_value("Content-Range") == "bytes 1000001-2999999/3000000");
  CHECK(rest.get_header_value("ETag") == etag);

  CHECK(get(url, {{"Range", "bytes=3000000-"}}).status == 416);
  // A part of another version is no use, so all of this one comes (RFC 9110, 13.1.5).
  CHECK(get(url, {{"Range", "bytes=1-"}, {"If-Range", "\"another\""}}).body == content);
  std::string later = url;
  ++later[later.find("expires=") + 8];
  for (const std::string& wrong :
       {later, url + "0", url.substr(0, url.size() - 1), url.substr(0, url.find('?')),
        hub.url + "/storage/", hub.url + "/storage/" + hub.model + "/x?expires=1&signature="}) {
    INFO(wrong);
    const httplib::Response refused = get(wrong, {{"Range", "bytes=1000001-"}});
    CHECK(refused.status == 403);
    CHECK(contains(refused.body, "not valid"));
  }
  at.upload(hub, {"--last", "--epoch", "2"}, at.folder.write("b.pt", "newer"));
  CHECK(get(url, {}).status == 403);
}

TEST_CASE("local_hub without a key makes one for its model, once", "[examples]") {
  const home at;
  const std::string lead = "local_hub: API key ";
  auto first = at.launch_hub({"--port", "0", "--make-model", "m"});
  const std::string line = first->wait_for_line(lead);
  const std::string key = line.substr(lead.size(), hub::hub_v1_wire::api_key_length);
  CHECK(hub::text::all_of(key, hub::text::is_alphanumeric));
  CHECK(line[lead.size() + key.size()] == ' ');
  first->wait_for_line("local_hub: listening on ");
  first->send(SIGINT);
  CHECK(first->wait_for_end().code == 0);
  struct stat facts {};
  REQUIRE(::stat((at.data / "keys.json").c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0600);
  CHECK(!contains(read_file(at.data / "keys.json"), key));
  CHECK(contains(read_file(at.data / "keys.json"), sha256(key)));

  running_hub hub;
  hub.program = at.launch_hub({"--port", "0", "--make-model", "m"});
  hub.model = hub.program->wait_for_line("local_hub: model ").substr(17);
  hub.url = hub.program->wait_for_line("local_hub: listening on ").substr(24);
  CHECK(!contains(hub.program->out(), lead));
  CHECK(ask(hub, hub.model, key).status == 200);
  CHECK(ask(hub, hub.model, good_key).status == 401);
}

TEST_CASE("local_hub's keys are made and revoked while it runs", "[examples]") {
  const home at;
  const auto keys = [&](words arguments) {
    arguments.insert(arguments.begin(), "keys");
    auto done = at.launch_hub(arguments);
    const int code = done->wait_for_end().code;
    return std::pair(code, done->out());
  };
  const running_hub hub = at.start_hub();
  const std::string laptop =
      keys({"make", "laptop"}).second.substr(0, hub::hub_v1_wire::api_key_length);
  const std::string office =
      keys({"make", "office"}).second.substr(0, hub::hub_v1_wire::api_key_length);
  CHECK(ask(hub, hub.model, laptop).status == 200);
  CHECK(ask(hub, hub.model, office).status == 200);
  const std::string listed = keys({}).second;
  CHECK(contains(listed, "laptop"));
  CHECK(contains(listed, "office"));
  CHECK(!contains(listed, laptop));

  CHECK(keys({"revoke", "laptop"}).first == 0);
  CHECK(ask(hub, hub.model, laptop).status == 401);
  CHECK(ask(hub, hub.model, office).status == 200);
  CHECK(keys({"revoke", "laptop"}).first == 1);
  CHECK(keys({"make"}).first == 2);
  CHECK(keys({"lose", "office"}).first == 2);
}

TEST_CASE("local_hub takes the key from its environment", "[examples]") {
  const home at;
  running_hub hub;
  hub.program =
      at.launch_hub({"--port", "0", "--make-model", "m"}, {{"LOCAL_HUB_API_KEY", good_key + "\n"}});
  hub.model = hub.program->wait_for_line("local_hub: model ").substr(17);
  hub.url = hub.program->wait_for_line("local_hub: listening on ").substr(24);
  CHECK(ask(hub, hub.model).status == 200);
  CHECK(!fs::exists(at.data / "keys.json"));
}

TEST_CASE("local_hub shares neither its port nor its folder", "[examples]") {
  const home at;
  const home elsewhere;
  const running_hub hub = at.start_hub();
  const auto same_folder = at.launch_hub({"--port", "0"});
  CHECK(same_folder->wait_for_end().code == 1);
  CHECK(contains(same_folder->err(), at.data.string()));
  const auto same_port = elsewhere.launch_hub({"--port", std::to_string(hub.port())});
  CHECK(same_port->wait_for_end().code == 1);
  CHECK(contains(same_port->err(), std::to_string(hub.port())));
}

TEST_CASE("local_hub logs a line for each request, without key and query", "[examples]") {
  const home at;
  running_hub hub = at.start_hub();
  CHECK(ask(hub, hub.model).status == 200);
  CHECK(ask(hub, std::string(20, 'a'), bad_key).status == 401);
  // hub::httplib_transport sends no queries.
  CHECK(httplib::Client("127.0.0.1", hub.port()).Get("/v1/models/x?X-Goog-Signature=secret"));
  hub.stop();
  const std::string log = hub.program->err();
  CHECK(std::count(log.begin(), log.end(), '\n') == 3);
  CHECK(contains(log, " 127.0.0.1 GET /v1/models/" + hub.model + " 200\n"));
  CHECK(contains(log, " 127.0.0.1 GET /v1/models/x 404\n"));
  CHECK(!contains(log, "secret"));
  CHECK(!contains(log, good_key));
  CHECK(!contains(log, bad_key));

  hub = at.start_hub({"--make-model", "m", "--quiet"});
  CHECK(ask(hub, hub.model).status == 200);
  hub.stop();
  CHECK(hub.program->err().empty());
}

TEST_CASE("local_hub speaks https with a certificate of one's own", "[examples]") {
  const home at;
  const hub_test::certificate_authority authority;
  const hub_test::server_identity identity = authority.issue();
  running_hub hub = at.start_hub(
      {"--make-model", "m", "--cert", identity.certificate_file, "--key", identity.key_file});
  CHECK(hub.url.starts_with("https://127.0.0.1:"));
  CHECK(ask(hub, hub.model, good_key, {.ca_file = authority.file()}).status == 200);
  const hub::reply distrusting = ask(hub, hub.model);
  REQUIRE(distrusting.failure);
  CHECK(distrusting.failure->code == hub::errc::tls_failed);
  hub.stop();

  const auto swapped = at.launch_hub({"--port", "0", "--api-key", good_key, "--cert",
                                      identity.key_file, "--key", identity.certificate_file});
  CHECK(swapped->wait_for_end().code == 1);
  CHECK(contains(swapped->err(), "certificate"));
}

}  // namespace

}  // namespace examples_tests
