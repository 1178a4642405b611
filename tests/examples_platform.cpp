// SPDX-License-Identifier: MIT
//
// train and upload against a Platform over real sockets, and train against a local_hub: every fault
// that costs Python's client an epoch, a model or a run, and what becomes of a run whose program a
// signal ends.

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/faulty_wire.hpp"
#include "support/local_hub.hpp"
#include "support/programs.hpp"
#include "support/raw_platform.hpp"
#include "support/text.hpp"

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace examples_platform_tests {

namespace {

using namespace hub_test;
using hub::testing::platform_model;
using hub::testing::platform_state;

constexpr int epochs = 6;

std::unique_ptr<process> start(const home& at, const char* which, const std::string& root,
                               const words& arguments,
                               const std::string& key = raw_platform::api_key) {
  return at.run(which, arguments,
                {{"ULTRALYTICS_PLATFORM_URL", root}, {"ULTRALYTICS_API_KEY", key}});
}

std::unique_ptr<process> start_train(const home& at, const std::string& root, words arguments) {
  arguments.insert(arguments.end(), {"--platform", "lab/spirals", "--name", "two arms", "--out",
                                     at.out.string(), "--metrics-interval", "0"});
  if (std::find(arguments.begin(), arguments.end(), "--checkpoint-interval") == arguments.end())
    arguments.insert(arguments.end(), {"--checkpoint-interval", "0.1"});
  return start(at, "HUB_TRAIN", root, arguments);
}

// An answer in the Platform's stead.
std::string refusal(int status, const std::string& headers = "",
                    const std::string& body = R"({"error": "of this test"})") {
  return "HTTP/1.1 " + std::to_string(status) + " \r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

// The run that has what there is: where the reply to a registration is lost, the Platform has another,
// of which nobody knows.
platform_model run_at(const raw_platform& platform) {
  for (const platform_model& each : platform.models())
    if (!each.epochs.empty()) return each;
  FAIL("no run has any epoch");
  return {};
}

std::string console_of(const platform_model& run) {
  std::string out;
  for (const auto& [chunk, data] : run.console) out += data.at("content").get<std::string>() + '\n';
  return out;
}

std::size_t count_of(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != text.npos; ++at) ++count;
  return count;
}

void check_whole(const raw_platform& platform, const home& at, bool has_console = true) {
  const platform_model run = run_at(platform);
  REQUIRE(run.epochs.size() == epochs);
  for (int epoch = 0; epoch < epochs; ++epoch)
    CHECK(run.epochs.at(epoch).at("metrics").contains("train/loss"));
  if (has_console)
    for (int epoch = 1; epoch <= epochs; ++epoch)
      CHECK(count_of(console_of(run), "epoch " + std::to_string(epoch) + " of 6: ") == 1);
  REQUIRE(run.latest_file());
  CHECK((run.latest_file()->content == read_file(at.out / "best.pt")));
  CHECK(run.latest_file()->saved);
  CHECK(run.state == platform_state::completed);
  CHECK(run.ending.at("results").at("modelSize") == run.latest_file()->size_bytes);
  CHECK(run.after_the_end == 0);
  CHECK(platform.wire().calls().back() == "training_complete");
  CHECK(platform.problems() == words());
}

// ---- faults -------------------------------------------------------------------------------------

struct fault_case {
  const char* name;
  std::function<void(faulty_wire&)> fail;
  words flags = {};
  bool has_console = true;  // the lines arrive as well
};

std::vector<fault_case> fault_cases() {
  using enum wire_fault;
  // A call fails so many times with these bytes.
  const auto answers = [](const char* call, std::size_t times, const std::string& bytes) {
    return [=](faulty_wire& to) { to.fail(call, answered, times, bytes); };
  };
  const auto breaks = [](const char* call, wire_fault how) {
    return [=](faulty_wire& to) { to.fail(call, how, 1); };
  };
  const words soon = {"--request-deadline", "2"};
  // The final model is the only upload, so that it is what the fault meets, and nothing makes up for it.
  const words alone = {"--checkpoint-interval", "60"};
  return {
      {"nothing fails", [](faulty_wire&) {}},
      {"epoch_end answered 503 once", answers("epoch_end", 1, refusal(503))},
      {"epoch_end answered 429, with a wait in its header",
       answers("epoch_end", 1, refusal(429, "Retry-After: 1\r\n"))},
      {"epoch_end answered 429, with a wait in its body",
       answers("epoch_end", 1, refusal(429, "", R"({"error": "limit", "retryAfter": 1})"))},
      {"epoch_end answered 401 once", answers("epoch_end", 1, refusal(401))},
      {"epoch_end answered 403 for a while", answers("epoch_end", 3, refusal(403))},
      {"epoch_end answered by somebody else", answers("epoch_end", 1, "SSH-2.0-OpenSSH_9.2\r\n"),
       soon},
      {"epoch_end cut off before it was acted on", breaks("epoch_end", cut)},
      {"epoch_end cut off in its reply", breaks("epoch_end", cut_reply)},
      {"epoch_end, of which the reply is lost", breaks("epoch_end", lost_reply)},
      {"epoch_end without an answer", breaks("epoch_end", hangs), soon},
      {"training_started answered 503 four times", answers("training_started", 4, refusal(503))},
      {"training_started, of which the reply is lost", breaks("training_started", lost_reply)},
      {"training_started without an answer", breaks("training_started", hangs), soon},
      {"the upload's URL refused three times", answers("upload", 3, refusal(503)), alone},
      {"the upload's URL, of which the reply is lost", breaks("upload", lost_reply), alone},
      {"PUT answered 403, as where a URL has expired", answers("storage", 2, refusal(403)), alone},
      {"PUT answered 503 by the storage host", answers("storage", 2, refusal(503)), alone},
      {"PUT cut off", breaks("storage", cut), alone},
      {"PUT, of which the reply is lost", breaks("storage", lost_reply), alone},
      {"checkpoint_saved answered 503 twice", answers("checkpoint_saved", 2, refusal(503)), alone},
      {"checkpoint_saved, of which the reply is lost", breaks("checkpoint_saved", lost_reply),
       alone},
      {"training_complete answered 503 four times", answers("training_complete", 4, refusal(503))},
      {"training_complete, of which the reply is lost", breaks("training_complete", lost_reply)},
      {"console_output answered 503 twice", answers("console_output", 2, refusal(503))},
      {"console_output, of which the reply is lost", breaks("console_output", lost_reply)},
      {"console_output refused for good", answers("console_output", 1, refusal(400)), {}, false},
      {"system_metrics refused for good",
       answers("system_metrics", 1, refusal(404)),
       {"--heartbeat-interval", "0.01", "--epoch-seconds", "0.3"}},
  };
}

// A local_hub of which the clients see another address: what they send it, and where it tells them to
// put files, leads through a faulty_wire.
class relayed_hub {
 public:
  relayed_hub() {
    hub_ = start_plain(at_, {"--api-key", raw_platform::api_key, "--public-url", wire_.root()});
  }

  faulty_wire& wire() { return wire_; }
  const faulty_wire& wire() const { return wire_; }
  std::string root() const { return wire_.root(); }
  const running_hub& hub() const { return hub_; }
  std::string events_of(const std::string& id) const {
    return read_file(at_.data / "models" / id / "events.jsonl");
  }

  // What it had to refuse, and keys that came with a file.
  words problems() const {
    const std::lock_guard lock(mutex_);
    return problems_;
  }

 private:
  std::string pass(const std::string& head, const std::string& body) {
    const auto asked = request_of(head);
    httplib::Request what;
    what.method = asked.method;
    what.path = asked.path;
    what.body = body;
    for (const char* name : {"authorization", "content-type", "content-encoding"})
      if (const std::string value = header_of(head, name); !value.empty())
        what.headers.emplace(name, value);
    httplib::Client client("127.0.0.1", hub_.port());
    const auto got = client.send(what);
    const int status = got ? got->status : 502;
    const std::string reply = got ? got->body : "no reply of local_hub";
    const std::lock_guard lock(mutex_);
    if (status >= 300) problems_.push_back(asked.path + ": " + reply);
    if (asked.method == "PUT" && !asked.authorization.empty())
      problems_.emplace_back("a key was sent with a file");
    return http_reply(status, reply);
  }

  mutable std::mutex mutex_;
  words problems_;
  home at_;
  running_hub hub_;
  faulty_wire wire_{"/uploads/", [this](const std::string& head, const std::string& body) {
                      return pass(head, body);
                    }};
};

// The same of local_hub, of which the page and the folder are looked at.
void check_whole(const relayed_hub& relayed, const home& at, bool has_console = true) {
  const running_hub& hub = relayed.hub();
  const json listed = send(hub, "GET", "/api/models").value();
  json run;
  for (const json& each : listed.at("models"))
    if (each.at("epoch") == epochs) run = each;
  REQUIRE(run.is_object());
  const std::string id = run.at("id");
  const auto shown = [&](const std::string& rest) {
    return send(hub, "GET", "/api/models/" + id + rest).value();
  };
  CHECK(run.at("state") == "trained");
  const json metrics = shown("/metrics");
  CHECK(metrics.at("epochs") == json{1, 2, 3, 4, 5, 6});
  for (const json& loss : metrics.at("columns").at("train/loss")) CHECK(loss.is_number());
  const json chunks = shown("/console").at("chunks");
  std::string console;
  for (const json& each : chunks) console += each.at("content").get<std::string>() + '\n';
  if (has_console)
    for (int epoch = 1; epoch <= epochs; ++epoch)
      CHECK(count_of(console, "epoch " + std::to_string(epoch) + " of 6: ") == 1);
  CHECK(shown("").at("checkpoints").size() == 1);
  const std::string model = send(hub, "GET", "/api/models/" + id + "/files/best.pt").body;
  CHECK((model == read_file(at.out / "best.pt")));
  std::set<std::string> events;
  std::istringstream lines(relayed.events_of(id));
  for (std::string line; std::getline(lines, line);) {
    json event = json::parse(line);
    event.erase("time");
    CAPTURE(line);
    CHECK(events.insert(event.dump()).second);
  }
  CHECK(relayed.wire().calls().back() == "training_complete");
  CHECK(relayed.problems() == words());
}

// A training that meets a fault of a server.
template <class Server>
struct trial {
  explicit trial(fault_case which) : what(std::move(which)) {
    what.fail(server.wire());
    words arguments = {"--epochs", std::to_string(epochs)};
    arguments.insert(arguments.end(), what.flags.begin(), what.flags.end());
    program = start_train(at, server.root(), arguments);
  }

  fault_case what;
  home at;
  Server server;
  std::unique_ptr<process> program;
};

// They are all under way at once: most of the time that a fault takes is a wait before a retry.
template <class Server>
void meet_all_faults() {
  std::list<trial<Server>> trials;
  for (const fault_case& each : fault_cases()) trials.emplace_back(each);
  for (trial<Server>& each : trials) {
    INFO(each.what.name);
    const ending ended = each.program->wait_for_end();
    INFO(each.program->out() << each.program->err());
    CHECK(ended.code == 0);
    CHECK(each.program->last_line().starts_with("HUB has 6 of 6 epochs, "));
    CHECK(contains(each.program->last_line(), ", and the final model. See "));
    CHECK_FALSE(each.server.wire().has_faults_left());
    check_whole(each.server, each.at, each.what.has_console);
  }
}

}  // namespace

TEST_CASE("no fault that costs Python's client something costs train anything", "[examples]") {
  meet_all_faults<raw_platform>();
}

TEST_CASE("no such fault costs a training at a local_hub anything", "[examples]") {
  meet_all_faults<relayed_hub>();
}

TEST_CASE("train begins while the Platform is away, and all is there once it is back",
          "[examples]") {
  const home at;
  const bound_socket place;
  const auto train = start_train(at, "http://127.0.0.1:" + std::to_string(place.port()),
                                 {"--epochs", std::to_string(epochs)});
  train->wait_for_line("epoch 3 of ");
  const raw_platform platform(place.port());
  const ending ended = train->wait_for_end();
  INFO(train->out() << train->err());
  CHECK(ended.code == 0);
  check_whole(platform, at);
}

// ---- a program that dies ------------------------------------------------------------------------

// Until the Platform has taken what this call brings.
void wait_for_call(const raw_platform& platform, process& program, const char* call) {
  const auto came = [&] {
    const words all = platform.wire().calls();
    return std::find(all.begin(), all.end(), call) != all.end();
  };
  while (!came()) program.wait_for_line("epoch ");
}

TEST_CASE("a run whose program a signal ends is told as failed, with the reason", "[examples]") {
  const int signal = GENERATE(SIGTERM, SIGINT, SIGHUP);
  CAPTURE(signal);
  const home at;
  const raw_platform platform;
  const auto train =
      start_train(at, platform.root(),
                  {"--epochs", "100000", "--epoch-seconds", "0.1", "--shutdown-deadline", "60"});
  wait_for_call(platform, *train, "epoch_end");
  train->send(signal);
  CHECK(train->wait_for_end().signal == signal);
  INFO(train->err());
  const platform_model run = run_at(platform);
  CHECK(run.state == platform_state::failed);
  CHECK(run.ending.at("error") == "Signal " + std::to_string(signal) + " ended the training.");
  CHECK(platform.problems() == words());
  CHECK(contains(train->err(), "Ultralytics Platform: "));
  CHECK_FALSE(contains(train->err(), "HUB"));
}

TEST_CASE("a run that will go on stays open when a signal ends its program", "[examples]") {
  const int signal = GENERATE(SIGTERM, SIGKILL);
  CAPTURE(signal);
  const home at;
  const raw_platform platform;
  const words flags = {"--resume", "--spool", at.spool.string(), "--epochs"};
  const auto with_epochs = [&](words more) {
    more.insert(more.begin(), flags.begin(), flags.end());
    return more;
  };
  const auto first = start_train(at, platform.root(), with_epochs({"6", "--epoch-seconds", "0.3"}));
  wait_for_call(platform, *first, "epoch_end");
  first->send(signal);
  CHECK(first->wait_for_end().signal == signal);
  REQUIRE(platform.models().size() == 1);
  CHECK(platform.models()[0].state == platform_state::training);

  const auto again = start_train(at, platform.root(), with_epochs({"6"}));
  const ending ended = again->wait_for_end();
  INFO(again->out() << again->err());
  CHECK(ended.code == 0);
  CHECK(platform.models().size() == 1);
  check_whole(platform, at, false);  // the line of an epoch that is trained again is there twice
}

TEST_CASE("sync sends a run that never met the Platform", "[examples]") {
  const home at;
  const bound_socket place;
  const std::string root = "http://127.0.0.1:" + std::to_string(place.port());
  const auto train = start_train(
      at, root, {"--epochs", "100000", "--epoch-seconds", "0.01", "--spool", at.spool.string()});
  train->wait_for_line("epoch 7 of ");
  train->send(SIGKILL);
  train->wait_for_end();
  const auto sync = [&](words arguments, int code) {
    arguments.push_back(at.spool.string());
    auto done = start(at, "HUB_SYNC", root, arguments);
    const int ended = done->wait_for_end().code;
    INFO(done->out() << done->err());
    CHECK(ended == code);
    return done;
  };
  const auto shown = sync({"--dry-run"}, 1);
  CHECK(shown->out().starts_with("lab/spirals/two-arms: "));
  CHECK(contains(shown->out(), "and the run is not made yet"));
  CHECK(contains(shown->out(), "(platform)"));

  const raw_platform platform(place.port());
  CHECK(sync({}, 0)->last_line() == "Nothing is left in " + at.spool.string() + ".");
  const platform_model run = run_at(platform);
  for (int epoch = 0; epoch < epochs; ++epoch) CHECK(run.epochs.contains(epoch));
  CHECK(contains(console_of(run), "epoch 6 of 100000: "));
  REQUIRE(run.latest_file());
  CHECK(run.latest_file()->saved);
  CHECK(platform.problems() == words());
}

// ---- upload -------------------------------------------------------------------------------------

TEST_CASE("upload makes a run on the Platform that has the file and is complete", "[examples]") {
  const home at;
  raw_platform platform;
  platform.wire().fail("storage", wire_fault::answered, 1, refusal(403));
  const fs::path file = at.folder.write("the best.pt", std::string(3'000'000, 'B'));
  const auto upload = [&](words arguments, const std::string& key = raw_platform::api_key) {
    arguments.push_back(file.string());
    return start(at, "HUB_UPLOAD", platform.root(), arguments, key);
  };
  const auto done =
      upload({"--platform", "lab/helmets", "--name", "Nano 2", "--epoch", "9", "--map", "0.5"});
  CHECK(done->wait_for_end().code == 0);
  INFO(done->out() << done->err());
  CHECK(done->last_line() == "The Platform has " + file.string() +
                                 " as the final model of epoch 9. See " + platform.root() +
                                 "/lab/helmets/nano-2");
  REQUIRE(platform.models().size() == 1);
  const platform_model run = platform.models()[0];
  CHECK(run.owner + '/' + run.project + '/' + run.name == "lab/helmets/nano-2");
  CHECK(run.state == platform_state::completed);
  REQUIRE(run.latest_file());
  CHECK((run.latest_file()->content == read_file(file)));
  CHECK(run.latest_file()->saved);
  CHECK(run.ending.at("results").at("bestFitness") == 0.5);
  CHECK(run.ending.at("results").at("modelSize") == 3'000'000);
  CHECK(platform.problems() == words());

  const auto nameless = upload({"--platform", "lab/___"});
  CHECK(nameless->wait_for_end().code == 2);
  CHECK(contains(nameless->err(), "project"));
  const std::string unknown_key = "ul_" + std::string(40, '8');
  const auto stranger = upload({"--platform", "lab/helmets"}, unknown_key);
  CHECK(stranger->wait_for_end().code == 2);
  CHECK(contains(stranger->err(), "401"));
  CHECK_FALSE(contains(stranger->err(), unknown_key));
}

}  // namespace examples_platform_tests
