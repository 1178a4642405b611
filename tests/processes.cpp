// SPDX-License-Identifier: MIT
//
// What a session does to the process around it, at moments that nobody chose: signals, forks and
// exits. A child, this program run again, trains against a HUB that answers, or that leaves it
// hanging. HUB_TEST_LONG in the environment asks for 1,000 children of each kind instead of 50,
// HUB_TEST_SEED for the moments of an earlier run.

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "support/child_process.hpp"
#include "support/raw_hub.hpp"
#include "support/raw_server.hpp"
#include "support/scratch.hpp"

using namespace hub_test;
using namespace std::chrono_literals;

namespace {

// Chance that can be had again: a failed test shows the seed.
class chance {
 public:
  chance() {
    const std::string given = variable("HUB_TEST_SEED");
    seed_ = given.empty() ? std::random_device{}() : std::stoul(given);
    random_.seed(seed_);
  }
  std::uint64_t seed() const { return seed_; }
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  template <class T>
  T one_of(std::vector<T> all) {
    return all[below(all.size())];
  }
  // Lets up to 30 ms pass, which takes a child anywhere from before its session to after it.
  void wait() { std::this_thread::sleep_for(std::chrono::microseconds(below(30'000))); }

 private:
  std::uint64_t seed_;
  std::mt19937_64 random_;
};

// A HUB for the children, in the clear or over TLS.
struct stage {
  certificate_authority authority = {};
  scratch_folder folder = {};
  raw_hub hub;

  explicit stage(bool tls)
      : hub(tls ? std::optional(tls_settings{authority.issue()}) : std::nullopt) {
    std::ofstream(folder / "last.pt") << std::string(100'000, 'm');
  }

  std::vector<std::string> variables(std::vector<std::string> more) const {
    more.push_back("HUB_TEST_ROOT=" + hub.root());
    more.push_back("HUB_TEST_CA=" + authority.file());
    more.push_back("HUB_TEST_FOLDER=" + folder.path().string());
    return more;
  }
};

// Both, and whether they leave their clients hanging, change from child to child.
struct two_stages {
  stage plain{false};
  stage tls{true};

  stage& pick(chance& luck, bool hangs) {
    stage& at = luck.below(2) == 0 ? plain : tls;
    if (hangs)
      at.hub.hold();
    else
      at.hub.release();
    return at;
  }
  ~two_stages() {
    CHECK(plain.hub.refused() == 0);
    CHECK(tls.hub.refused() == 0);
  }
};

std::string ended_by(int number) { return "signal " + std::to_string(number); }

}  // namespace

// ---- signals ------------------------------------------------------------------------------------

TEST_CASE("a signal at any moment ends the program as it would have without a session",
          "[signals]") {
  chance luck;
  two_stages stages;
  for (int i = 0; i < rounds(); ++i) {
    const int number = luck.one_of<int>({SIGINT, SIGTERM, SIGHUP});
    const std::string action = luck.one_of<std::string>({"default", "own", "own_with_info"});
    INFO("HUB_TEST_SEED=" << luck.seed() << ", round " << i << ", signal " << number << ", "
                          << action);
    const stage& at = stages.pick(luck, luck.below(2) == 0);
    child_process child("train", at.variables({"HUB_TEST_SIGNAL=" + std::to_string(number),
                                               "HUB_TEST_ACTION=" + action}));
    child.read_until("ready\n");
    luck.wait();
    child.send(number);
    const std::string end = child.wait();
    if (end != (action == "default" ? ended_by(number) : "exit 0")) FAIL(end);
  }
}

TEST_CASE("a second signal at any moment ends the program at once, whatever hangs", "[signals]") {
  chance luck;
  two_stages stages;
  for (int i = 0; i < rounds(); ++i) {
    const int first = luck.one_of<int>({SIGINT, SIGTERM});
    const int second = luck.one_of<int>({SIGINT, SIGTERM});
    INFO("HUB_TEST_SEED=" << luck.seed() << ", round " << i << ", signals " << first << ", "
                          << second);
    // Without the second one the flush would take an hour.
    const stage& at = stages.pick(luck, true);
    child_process child(
        "train",
        at.variables({"HUB_TEST_SIGNAL=" + std::to_string(first), "HUB_TEST_ACTION=default",
                      "HUB_TEST_SHUTDOWN_SECONDS=3600", "HUB_TEST_MOMENT=0"}));
    child.read_until("ready\n");
    luck.wait();
    child.send(first);
    luck.wait();
    child.send(second);
    // The first one ends it where it comes before the session or after it.
    const std::string end = child.wait();
    if (end != ended_by(first) && end != ended_by(second)) FAIL(end);
  }
}

TEST_CASE(
    "a signal that is handed on while the last session goes reaches the program, and leaves no "
    "handler behind for the next",
    "[signals]") {
  child_process child("hand_on", {"HUB_TEST_ROUNDS=" + std::to_string(200 * rounds())});
  CHECK(child.wait() == "exit 0");
}

// ---- forks --------------------------------------------------------------------------------------

TEST_CASE("a child that is forked while every lane sends does not touch what is sent", "[fork]") {
  stage at(GENERATE(false, true));
  const std::string way = GENERATE(as<std::string>(), "destroy", "exit");
  at.hub.hold();
  child_process child("fork_in_flight", at.variables({"HUB_TEST_WAY=" + way}));
  child.read_until("started\n");
  constexpr std::size_t lanes = 3;  // on HUB v1: signs of life, epochs, uploads
  REQUIRE(at.hub.wait_for_held(lanes));
  const std::size_t before = at.hub.answered();
  child.write("fork\n");
  child.read_until("forked\n");
  CHECK(at.hub.answered() == before);
  at.hub.release();
  CHECK(child.wait() == "exit 0");
  // The three in flight, the second epoch and the final model. Had the forked child spoken on its
  // parent's connections, some would have come twice.
  CHECK(at.hub.answered() == before + lanes + 2);
  CHECK(at.hub.model().metrics.size() == 2);
  CHECK(at.hub.model().checkpoints.size() == 2);
}

TEST_CASE("a child that is forked at any moment sends nothing and ends cleanly", "[fork]") {
  chance luck;
  INFO("HUB_TEST_SEED=" << luck.seed());
  stage at(GENERATE(false, true));
  child_process child("fork_often", at.variables({"HUB_TEST_SEED=" + std::to_string(luck.seed())}));
  const std::string end = child.wait();
  CHECK(end == "exit 0");
  const hub::testing::hub_model model = at.hub.model();
  CHECK(model.metrics.size() == static_cast<std::size_t>(rounds()));
  CHECK(model.metrics.rbegin()->first == rounds() - 1);
  for (const hub::testing::checkpoint_record& each : model.checkpoints)
    CHECK(each.epoch < rounds());
  CHECK(at.hub.refused() == 0);
}

// ---- exits --------------------------------------------------------------------------------------

TEST_CASE("a program that ends at any moment ends cleanly") {
  chance luck;
  two_stages stages;
  for (int i = 0; i < rounds(); ++i) {
    const std::string way = luck.one_of<std::string>({"destroy", "global", "exit"});
    const std::string seed = std::to_string(luck.below(1'000'000));
    INFO("HUB_TEST_SEED=" << luck.seed() << ", round " << i << ", " << way);
    const stage& at = stages.pick(luck, luck.below(4) == 0);
    child_process child("exit", at.variables({"HUB_TEST_WAY=" + way, "HUB_TEST_SEED=" + seed}));
    const std::string end = child.wait();
    if (end != "exit 0") FAIL(end);
  }
}

// ---- the log ------------------------------------------------------------------------------------

namespace {

// Standard error as nobody reads it.
struct deaf_ear {
  pipe_ends pipe = make_pipe();
  terminal screen = {};

  void fill_pipe() const {
    ::fcntl(pipe.in.get(), F_SETFL, O_NONBLOCK);
    const std::string piece(4096, '.');
    while (::write(pipe.in.get(), piece.data(), piece.size()) > 0) {
    }
    ::fcntl(pipe.in.get(), F_SETFL, 0);
  }
};

}  // namespace

TEST_CASE("a log that nobody takes stops no callback, no signal and no ending", "[log]") {
  const std::string where =
      GENERATE(as<std::string>(), "full pipe", "stopped terminal", "function");
  const std::string way = GENERATE(as<std::string>(), "destroy", "signal");
  INFO(where << ", " << way);
  stage at(false);
  const deaf_ear ear;
  ear.fill_pipe();
  REQUIRE(::tcflow(ear.screen.theirs.get(), TCOOFF) == 0);
  const descriptor& error = where == "stopped terminal" ? ear.screen.theirs : ear.pipe.in;
  child_process child("unheard", at.variables({"HUB_TEST_WAY=" + way, "HUB_TEST_LOG=" + where}),
                      nullptr, &error);
  child.read_until("trained\n");
  if (way == "signal") {
    child.send(SIGTERM);
    CHECK(child.wait() == ended_by(SIGTERM));
  } else {
    child.read_until("gone\n");
    CHECK(child.wait() == "exit 0");
  }
  CHECK(at.hub.model().metrics.size() == 3);
  ::tcflow(ear.screen.theirs.get(), TCOON);
}

TEST_CASE("a log whose reader is gone does not end the program", "[log]") {
  stage at(false);
  pipe_ends pipe = make_pipe();
  pipe.out = descriptor();
  child_process child("unheard", at.variables({"HUB_TEST_WAY=destroy", "HUB_TEST_LOG=closed pipe"}),
                      nullptr, &pipe.in);
  child.read_until("gone\n");
  CHECK(child.wait() == "exit 0");
  CHECK(at.hub.model().metrics.size() == 3);
}

// ---- scenarios for children ---------------------------------------------------------------------

namespace {

// Everything is due at once, and what fails is tried again at once.
hub::session_options child_options() {
  hub::session_options out;
  out.endpoints = {.api = variable("HUB_TEST_ROOT"), .web = variable("HUB_TEST_ROOT")};
  out.credentials = {.id_token = raw_hub::token, .prompt = false};
  out.rate_limits = {.metrics = 0s, .checkpoint = 0s, .heartbeat = 1ms};
  out.retry = {.first_delay = 1ms, .delay_max = 10ms, .budget = 1'000'000};
  const std::string seconds = variable("HUB_TEST_SHUTDOWN_SECONDS");
  out.limits.shutdown_deadline = seconds.empty() ? 20ms : hub::duration(1s) * std::stoi(seconds);
  if (variable("HUB_TEST_MOMENT") == "0") out.limits.signal_moment = 0s;
  out.limits.train_end_deadline = 20ms;
  out.temp_folder = variable("HUB_TEST_FOLDER");
  out.log = [](hub::log_level, std::string_view) {};
  out.progress = [](const hub::transfer_progress&) {};
  return out;
}

hub::httplib_transport child_transport() {
  return hub::httplib_transport{hub::httplib_options{.ca_file = variable("HUB_TEST_CA")}};
}

std::filesystem::path checkpoint() {
  return std::filesystem::path(variable("HUB_TEST_FOLDER")) / "last.pt";
}

void train_one_epoch(hub::training_session& session, int epoch) {
  session.on_fit_epoch_end(epoch, {{"loss", epoch}});
  session.on_model_save(epoch, checkpoint(), false);
}

// Trains, one session after the other, until a signal ends it or its own handler was called.
void play_train() {
  act_as_told(std::stoi(variable("HUB_TEST_SIGNAL")), variable("HUB_TEST_ACTION"));
  say("ready\n");
  while (handled == 0) {
    hub::training_session session{raw_hub::model_id, child_options(), child_transport()};
    session.on_pretrain_routine_end();
    for (int epoch = 0; epoch < 20 && handled == 0; ++epoch) {
      train_one_epoch(session, epoch);
      std::this_thread::yield();
    }
    session.on_train_end(19, "", 0);
  }
  end_child(handled == 1, 2);
}

// Only what a session has of signals, so that many of the moments are met that last for nanoseconds.
void play_hand_on() {
  act_as_told(SIGTERM, "own");
  auto& relay = hub::machine::signal_relay::instance();
  for (int i = 1; i <= std::stoi(variable("HUB_TEST_ROUNDS")); ++i) {
    const std::size_t id = relay.subscribe([](int) {}, 500ms);
    ::raise(SIGTERM);
    relay.unsubscribe(id);
    wait_until_handled();
    if (handled != i) end_child(false, 2);
  }
  end_child(true);
}

// Everything that a session can be asked for.
void ask_for_everything(hub::training_session& session) {
  constexpr int epoch = 1'000'000;
  session.on_pretrain_routine_end();
  train_one_epoch(session, epoch);
  session.upload_model(epoch, checkpoint(), true);
  session.upload_metrics();
  session.stop_heartbeat();
  session.flush(1h);
  session.on_train_end(epoch, checkpoint(), 0.5);
}

// Forks; the child asks for everything and ends, whether it destroys its session or not. True where
// it ended cleanly.
bool fork_one(std::optional<hub::training_session>& session, bool destroys) {
  const pid_t child = fork_with_limit();
  if (child == 0) {
    ask_for_everything(*session);
    if (destroys) session.reset();
    std::exit(0);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void play_fork_in_flight() {
  hub::session_options options = child_options();
  options.rate_limits.heartbeat = 1h;
  options.limits.train_end_deadline = 1h;
  std::optional<hub::training_session> session(std::in_place, raw_hub::model_id, options,
                                               child_transport());
  train_one_epoch(*session, 0);
  say("started\n");
  wait_for_line();
  if (!fork_one(session, variable("HUB_TEST_WAY") == "destroy")) end_child(false, 2);
  say("forked\n");
  session->flush(1h);
  session->on_fit_epoch_end(1, {{"loss", 1}});
  const hub::delivery delivered = session->on_train_end(1, checkpoint(), 0.5);
  session.reset();
  end_child(delivered.complete() && delivered.checkpoints_delivered == 1, 3);
}

void play_fork_often() {
  chance luck;
  hub::session_options options = child_options();
  options.limits.train_end_deadline = 1h;
  std::optional<hub::training_session> session(std::in_place, raw_hub::model_id, options,
                                               child_transport());
  for (int epoch = 0; epoch < rounds(); ++epoch) {
    limit_time();
    train_one_epoch(*session, epoch);
    std::this_thread::sleep_for(std::chrono::microseconds(luck.below(1000)));
    if (!fork_one(session, luck.below(2) == 0)) end_child(false, 2);
  }
  const hub::delivery delivered = session->on_train_end(rounds() - 1, "", 0);
  session.reset();
  end_child(delivered.complete(), 3);
}

std::optional<hub::training_session> global_session;

void play_exit() {
  chance luck;
  std::optional<hub::training_session> local;
  auto& session = variable("HUB_TEST_WAY") == "global" ? global_session : local;
  session.emplace(raw_hub::model_id, child_options(), child_transport());
  for (std::uint64_t epoch = luck.below(20); epoch > 0; --epoch) {
    train_one_epoch(*session, static_cast<int>(epoch));
    std::this_thread::sleep_for(std::chrono::microseconds(luck.below(1000)));
  }
  if (variable("HUB_TEST_WAY") == "destroy") session.reset();
  std::exit(0);
}

// Trains with the default log, or with one that never returns.
void play_unheard() {
  for (int each : {SIGPIPE, SIGTERM}) ::signal(each, SIG_DFL);
  hub::session_options options = child_options();
  options.limits.train_end_deadline = 1h;
  options.limits.log_deadline = 10ms;
  options.log = {};
  options.progress = {};
  if (variable("HUB_TEST_LOG") == "function")
    options.log = [](hub::log_level, std::string_view) {
      for (;;) ::pause();
    };
  {
    hub::training_session session{raw_hub::model_id, options, child_transport()};
    session.on_pretrain_routine_end();
    for (int epoch = 0; epoch < 3; ++epoch) train_one_epoch(session, epoch);
    if (variable("HUB_TEST_WAY") == "signal") {
      session.flush(1h);
      say("trained\n");
      for (;;) ::pause();
    }
    if (!session.on_train_end(2, checkpoint(), 0.5).complete()) end_child(false, 2);
    say("trained\n");
  }
  say("gone\n");
  struct sigaction now {};
  ::sigaction(SIGPIPE, nullptr, &now);
  std::exit(now.sa_handler == SIG_DFL ? 0 : 3);
}

}  // namespace

// Hidden: only a child_process runs it.
TEST_CASE("a scenario is played in a child", "[.][child_process]") {
  play_scenario({{"train", &play_train},
                 {"hand_on", &play_hand_on},
                 {"fork_in_flight", &play_fork_in_flight},
                 {"fork_often", &play_fork_often},
                 {"exit", &play_exit},
                 {"unheard", &play_unheard}});
}
