// SPDX-License-Identifier: MIT
//
// What a session over real sockets of 127.0.0.1 does to its process: signals, forks, terminals and
// threads. Each happens in a child: this program, run again with one of the scenarios at the end of this
// file.

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/child_process.hpp"
#include "support/scratch.hpp"
#include "support/scripted_hub.hpp"
#include "support/text.hpp"

namespace session_process_loopback_tests {

using namespace hub_test;
using namespace std::chrono_literals;
using nlohmann::json;

// ---- what concerns the whole process ------------------------------------------------------------

namespace {

// What a child needs to know to report to the stage's HUB.
std::vector<std::string> child_variables(const stage& at, std::vector<std::string> more = {}) {
  more.push_back("HUB_TEST_ROOT=" + at.hub.root());
  more.push_back("HUB_TEST_FOLDER=" + at.folder.path().string());
  return more;
}

// A user of whom the system knows nothing.
constexpr uid_t no_user = 54321;

std::size_t thread_count() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task"))
    ++count;
  return count;
}

// A joined thread stays in the list for the moment in which the kernel takes it out.
bool threads_are_again(std::size_t count) {
  for (int i = 0; i < 1'000'000 && thread_count() != count; ++i) std::this_thread::yield();
  return thread_count() == count;
}

std::string signal_variable(int number) { return "HUB_TEST_SIGNAL=" + std::to_string(number); }

}  // namespace

TEST_CASE("who has no home saves no key, and takes none from where anybody could have put it") {
  if (::getuid() != 0) return;  // nobody else can become somebody without a home
  stage at;
  namespace fs = std::filesystem;
  write_file(at.folder / "Ultralytics" / "settings.json", json{{"api_key", good_key}}.dump());
  fs::permissions(at.folder.path(), fs::perms::all);
  child_process child("homeless", child_variables(at, {"TMPDIR=" + at.folder.path().string()}));
  CHECK(child.read_until("not_authenticated\n") == "not_authenticated\n");
  const std::string said = child.read_to_the_end();
  CHECK(contains(said, "signed in\n"));
  CHECK(contains(said, "The API key is not saved: this user has no home folder. Set HOME,"));
  CHECK(child.wait() == "exit 0");
  std::size_t files = 0;
  for (const auto& each : fs::recursive_directory_iterator(at.folder.path()))
    files += each.is_regular_file() ? 1 : 0;
  CHECK(files == 1);
}

TEST_CASE("a signal ends the program as it would have, but after the last metrics") {
  const int number = GENERATE(SIGTERM, SIGINT, SIGHUP);
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(number), "HUB_TEST_ACTION=default"}));
  child.read_until("ready\n");
  CHECK(at.hub.seen().epochs.empty());
  child.send(number);
  CHECK(child.wait() == "signal " + std::to_string(number));
  CHECK(at.hub.seen().epochs.size() == 3);
}

TEST_CASE(
    "the program's own handler is called once, after the last metrics, and is there afterwards") {
  const int number = GENERATE(SIGTERM, SIGINT);
  const std::string action = GENERATE(as<std::string>(), "own", "own_with_info");
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(number), "HUB_TEST_ACTION=" + action}));
  child.read_until("ready\n");
  child.send(number);
  child.read_until("handled once\n");
  CHECK(at.hub.seen().epochs.size() == 3);
  CHECK(child.wait() == "exit 0");
}

TEST_CASE("an ignored signal stays ignored, such as SIGHUP under nohup") {
  const int number = GENERATE(SIGINT, SIGHUP);
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(number), "HUB_TEST_ACTION=ignore"}));
  child.read_until("ready\n");
  child.send(number);
  child.write("go on\n");
  child.read_until("still ignored\n");
  CHECK(at.hub.seen().epochs.empty());
  CHECK(child.wait() == "exit 0");
}

TEST_CASE("handle_signals = false leaves signals alone") {
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(SIGTERM), "HUB_TEST_ACTION=off"}));
  child.read_until("ready\n");
  child.send(SIGTERM);
  CHECK(child.wait() == "signal " + std::to_string(SIGTERM));
  CHECK(at.hub.seen().count("POST", model_path) == 0);
}

TEST_CASE("a second signal goes through while the first one is flushed") {
  const int second = GENERATE(SIGTERM, SIGINT);
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(SIGTERM), "HUB_TEST_ACTION=default",
                                           "HUB_TEST_MOMENT=0"}));
  child.read_until("ready\n");
  at.hub.hold(model_path);
  child.send(SIGTERM);
  REQUIRE(at.hub.wait([](const ledger& seen) { return seen.held == 1; }));
  child.send(second);
  CHECK(child.wait() == "signal " + std::to_string(second));
}

TEST_CASE("signals that come within a moment are one, and do not cut what the first has sent") {
  const int second = GENERATE(SIGTERM, SIGINT);
  stage at;
  child_process child("signal",
                      child_variables(at, {signal_variable(SIGINT), "HUB_TEST_ACTION=default",
                                           "HUB_TEST_MOMENT=3600"}));
  child.read_until("ready\n");
  at.hub.hold(model_path);
  child.send(SIGINT);
  REQUIRE(at.hub.wait([](const ledger& seen) { return seen.held == 1; }));
  child.send(second);
  at.hub.release();
  CHECK(child.wait() == "signal " + std::to_string(SIGINT));
  CHECK(at.hub.seen().epochs.size() == 3);
}

TEST_CASE("a program's own handler of SIGHUP is left alone") {
  stage at;
  const auto own = [](int) {};
  struct sigaction before {};
  struct sigaction during {};
  ::sigaction(SIGHUP, nullptr, &before);
  ::signal(SIGHUP, own);
  {
    hub::training_session session{model_id, at.options()};
    ::sigaction(SIGHUP, nullptr, &during);
  }
  CHECK(during.sa_handler == static_cast<void (*)(int)>(own));
  ::sigaction(SIGHUP, &before, nullptr);
}

TEST_CASE("a signal at the very end of a session is neither lost nor a deadlock") {
  stage at;
  child_process child("signal_at_the_end", child_variables(at));
  CHECK(child.wait() == "exit 0");
  CHECK(at.hub.seen().count("GET", model_path) == 30);
}

TEST_CASE("a session gives the signals back as it found them") {
  struct sigaction before {};
  struct sigaction during {};
  struct sigaction after {};
  const auto own = [](int) {};
  for (const int number : {SIGINT, SIGTERM}) {
    stage at;
    ::sigaction(number, nullptr, &before);
    {
      hub::training_session session{model_id, at.options()};
      ::sigaction(number, nullptr, &during);
      CHECK(during.sa_handler != before.sa_handler);
      { hub::training_session second{model_id, at.options()}; }
      ::sigaction(number, nullptr, &after);
      CHECK(after.sa_handler == during.sa_handler);  // the first one is still there
    }
    ::sigaction(number, nullptr, &after);
    CHECK(after.sa_handler == before.sa_handler);
    CHECK(after.sa_flags == before.sa_flags);
    {
      hub::training_session session{model_id, at.options()};
      ::signal(number, own);  // the program's, after the session's: it stays
    }
    ::sigaction(number, nullptr, &after);
    CHECK(after.sa_handler == static_cast<void (*)(int)>(own));
    ::sigaction(number, &before, nullptr);
  }
}

TEST_CASE("the destructor cuts what hangs, and leaves no thread") {
  stage at;
  at.hub.hold(api_prefix);
  child_process child("hang", child_variables(at));
  child.read_until("started\n");
  // All three lanes wait for an answer that does not come.
  REQUIRE(at.hub.wait([](const ledger& seen) {
    return seen.count("POST", beat_path) >= 1 && seen.count("POST", model_path) >= 1 &&
           seen.count("POST", upload_path) >= 1;
  }));
  child.write("end\n");
  child.read_until("no thread is left\n");
  CHECK(child.wait() == "exit 0");
  CHECK(at.hub.seen().epochs.empty());
}

TEST_CASE("however a program ends, what did not arrive is said in one line, with where it is") {
  const std::string way = GENERATE(as<std::string>(), "exception", "signal", "global", "exit");
  const std::string spool = GENERATE(as<std::string>(), "", "spool");
  INFO(way << ' ' << spool);
  stage at;
  at.hub.set_fault(
      [](const std::string& method, const std::string& path, httplib::Response& answer) {
        if (method != "POST" || path != model_path) return false;
        answer.status = 503;
        return true;
      });
  child_process child("lost",
                      child_variables(at, {"HUB_TEST_WAY=" + way, "HUB_TEST_SPOOL=" + spool}));
  const std::string said = child.read_to_the_end();
  CHECK(child.wait() == (way == "signal" ? "signal " + std::to_string(SIGTERM) : "exit 0"));
  CHECK(contains(said, "Missing: 5 epochs."));
  CHECK(said.find("Missing") == said.rfind("Missing"));
  CHECK(
      contains(said, spool.empty() ? "is lost with this process" : "What waits is in the spool "));
}

TEST_CASE("a rank above 0 keeps no thread and touches no signal") {
  stage at;
  child_process child("rank", child_variables(at, {"RANK=1"}));
  CHECK(child.wait() == "exit 0");
  CHECK(at.hub.seen().calls.empty());
}

TEST_CASE("a forked child sends nothing and ends cleanly, and its parent goes on", "[fork]") {
  stage at;
  write_file(at.folder / "last.pt", "model");
  child_process child("fork", child_variables(at));
  CHECK(child.wait() == "exit 0");
  const ledger seen = at.hub.seen();
  CHECK(seen.epochs.size() == 2);
  CHECK(seen.epochs.contains(0));
  CHECK(seen.epochs.contains(1));
  CHECK(seen.uploads.empty());
}

namespace {

// Reads from a terminal until it was asked so many times.
void wait_for_prompts(const terminal& screen, const stage& at, std::size_t wanted,
                      std::string& shown) {
  const std::string prompt = "API key, from " + at.hub.root() + "/settings (it is not shown): ";
  const auto prompts = [&] {
    std::size_t count = 0;
    for (std::size_t i = 0; (i = shown.find(prompt, i)) != std::string::npos; i += prompt.size())
      ++count;
    return count;
  };
  while (prompts() < wanted) REQUIRE(child_process::read_more(screen.ours.get(), shown));
}

void type(const terminal& screen, const std::string& keys) {
  REQUIRE(::write(screen.ours.get(), keys.data(), keys.size()) ==
          static_cast<ssize_t>(keys.size()));
}

}  // namespace

TEST_CASE("on a terminal a key is asked for, without echo, and three times at most") {
  stage at;
  terminal screen;
  REQUIRE(screen.echoes());
  const std::vector<std::string> typed =
      GENERATE(std::vector<std::string>{good_key}, std::vector<std::string>{bad_key, good_key},
               std::vector<std::string>{bad_key, bad_key, bad_key}, std::vector<std::string>{""},
               std::vector<std::string>{"  " + good_key + " "},
               std::vector<std::string>{"two words", good_key});
  child_process child("ask", child_variables(at), &screen);
  std::string shown;
  std::size_t prompts = 0;
  for (const std::string& key : typed) {
    wait_for_prompts(screen, at, ++prompts, shown);
    CHECK_FALSE(screen.echoes());  // before anybody can have seen that it is time to type
    type(screen, key + "\n");
  }
  const bool accepted = contains(typed.back(), good_key);
  child.read_until(accepted ? "signed in\n" : "not_authenticated\n");
  CHECK(child.wait() == "exit 0");
  CHECK(screen.echoes());

  // What is still on its way to the screen ends with what we put behind it.
  REQUIRE(::write(screen.theirs.get(), "the end", 7) == 7);
  while (!shown.ends_with("the end")) REQUIRE(child_process::read_more(screen.ours.get(), shown));
  CHECK_FALSE(contains(shown, good_key));
  CHECK_FALSE(contains(shown, bad_key));
  CHECK(contains(shown, "from the prompt") == (typed.size() > 1));
  const bool could_be_keys = !typed.back().empty() && typed.front() != "two words";
  CHECK(at.hub.seen().auths == (could_be_keys ? typed.size() : typed.size() - 1));
}

TEST_CASE("the prompt lasts no longer than the start may, also where it cannot be shown") {
  const bool stopped = GENERATE(false, true);
  stage at;
  terminal screen;
  if (stopped) REQUIRE(::tcflow(screen.theirs.get(), TCOOFF) == 0);
  child_process child("ask", child_variables(at, {"HUB_TEST_START_MS=50"}), &screen);
  child.read_until("not_authenticated\n");
  CHECK(child.wait() == "exit 0");
  CHECK(screen.echoes());
}

TEST_CASE("a program that is ended at the prompt leaves the terminal as it was") {
  const auto [number, from_keyboard] = GENERATE(std::pair(SIGHUP, false), std::pair(SIGTERM, false),
                                                std::pair(SIGINT, false), std::pair(SIGINT, true));
  stage at;
  terminal screen;
  child_process child("ask", child_variables(at), &screen);
  std::string shown;
  wait_for_prompts(screen, at, 1, shown);
  CHECK_FALSE(screen.echoes());
  if (from_keyboard)
    type(screen, "\003");
  else
    child.send(number);
  CHECK(child.wait() == "signal " + std::to_string(number));
  CHECK(screen.echoes());
}

TEST_CASE("in the background nobody is asked, and nothing is stopped") {
  stage at;
  terminal screen;
  child_process child("ask_in_background", child_variables(at), &screen);
  child.read_until("not_authenticated\n");
  CHECK(child.wait() == "exit 0");
}

// ---- scenarios for children ---------------------------------------------------------------------

namespace {

// As stage::options, but nothing is sent before its time.
hub::session_options child_options() {
  hub::session_options out;
  out.endpoints = {.api = variable("HUB_TEST_ROOT") + api_prefix, .web = variable("HUB_TEST_ROOT")};
  out.credentials = {.id_token = good_token};
  out.rate_limits = {.metrics = 1h, .checkpoint = 1h, .heartbeat = 1h};
  out.limits.shutdown_deadline = 1h;
  out.temp_folder = variable("HUB_TEST_FOLDER");
  out.log = [](hub::log_level, std::string_view) {};
  return out;
}

void play_signal() {
  const int number = std::stoi(variable("HUB_TEST_SIGNAL"));
  const std::string action = variable("HUB_TEST_ACTION");
  act_as_told(number, action);
  hub::session_options options = child_options();
  options.handle_signals = action != "off";
  const std::string moment = variable("HUB_TEST_MOMENT");
  if (!moment.empty()) options.limits.signal_moment = hub::duration(1s) * std::stoi(moment);
  std::optional<hub::training_session> session(std::in_place, model_id, options);
  for (int epoch = 0; epoch < 3; ++epoch) session->on_fit_epoch_end(epoch, {{"loss", epoch}});
  say("ready\n");
  if (action.starts_with("own")) {
    wait_until_handled();
    session.reset();
    struct sigaction now {};
    ::sigaction(number, nullptr, &now);
    if (action == "own" ? now.sa_handler != &on_own_signal
                        : now.sa_sigaction != &on_own_signal_with_info)
      end_child(false, 2);
    if (handled != 1) end_child(false, 3);
    say("handled once\n");
    end_child(true);
  }
  if (action == "ignore") {
    wait_for_line();
    struct sigaction now {};
    ::sigaction(number, nullptr, &now);
    if (now.sa_handler != SIG_IGN) end_child(false, 4);
    say("still ignored\n");
    end_child(true);
  }
  for (;;) ::pause();
}

void play_signal_at_the_end() {
  act_as_told(SIGTERM, "own");
  for (int i = 1; i <= 30; ++i) {
    {
      hub::training_session session{model_id, child_options()};
      ::raise(SIGTERM);
    }
    wait_until_handled();
    if (handled != i) end_child(false, 2);
  }
  end_child(true);
}

void play_hang() {
  std::thread([] {}).join();  // with the first thread, ThreadSanitizer starts one of its own
  const std::size_t before = thread_count();
  hub::session_options options = child_options();
  options.limits.shutdown_deadline = 10ms;
  options.limits.request_deadline = 24h;
  options.limits.stall_timeout = 24h;
  options.rate_limits = {.metrics = 0s, .checkpoint = 0s, .heartbeat = 1h};
  const std::filesystem::path file = std::filesystem::path(variable("HUB_TEST_FOLDER")) / "last.pt";
  write_file(file, "model");
  {
    hub::training_session session{model_id, options};
    session.on_fit_epoch_end(0, {{"loss", 1}});
    session.upload_model(0, file, false);
    say("started\n");
    wait_for_line();
  }
  if (!threads_are_again(before)) end_child(false, 2);
  say("no thread is left\n");
  end_child(true);
}

void play_lost() {
  ::signal(SIGTERM, SIG_DFL);  // and not Catch2's handler, which is not safe in a signal
  const std::string way = variable("HUB_TEST_WAY");
  hub::session_options options = child_options();
  options.limits.shutdown_deadline = 100ms;
  options.log = [](hub::log_level, std::string_view text) {
    if (contains(text, "Not everything arrived")) say(std::string(text) + "\n");
  };
  if (!variable("HUB_TEST_SPOOL").empty())
    options.spool.directory = std::filesystem::path(variable("HUB_TEST_FOLDER")) / "spool";
  static std::unique_ptr<hub::training_session> global;
  try {
    auto session = std::make_unique<hub::training_session>(model_id, options);
    for (int epoch = 0; epoch < 5; ++epoch) session->on_fit_epoch_end(epoch, {{"loss", epoch}});
    if (way == "global") global = std::move(session);
    if (way == "exit" || way == "global") std::exit(0);
    if (way == "signal") ::raise(SIGTERM);
    while (way == "signal") ::pause();
    throw std::runtime_error("CUDA out of memory");
  } catch (const std::runtime_error&) {
  }
  end_child(true);
}

void play_rank() {
  std::thread([] {}).join();  // ThreadSanitizer starts one of its own with the first
  const std::size_t before = thread_count();
  act_as_told(SIGTERM, "own");
  hub::training_session session{model_id, child_options()};
  session.on_fit_epoch_end(0, {{"loss", 1}});
  struct sigaction now {};
  ::sigaction(SIGTERM, nullptr, &now);
  end_child(threads_are_again(before) && now.sa_handler == &on_own_signal);
}

void play_fork() {
  hub::session_options options = child_options();
  options.rate_limits = {.metrics = 0s, .checkpoint = 0s, .heartbeat = 1ms};
  const std::filesystem::path file = std::filesystem::path(variable("HUB_TEST_FOLDER")) / "last.pt";
  std::optional<hub::training_session> session(std::in_place, model_id, options);
  session->on_fit_epoch_end(0, {{"loss", 0}});
  const pid_t child = fork_with_limit();
  if (child == 0) {
    session->on_fit_epoch_end(99, {{"loss", 99}});
    session->on_model_save(99, file, true);
    session->upload_model(99, file, true);
    session->upload_metrics();
    const hub::delivery nothing = session->flush(1h);
    const hub::delivery delivered = session->on_train_end(99, file, 0.5);
    const hub::session_status status = session->status();
    session.reset();
    end_child(nothing.epochs_delivered == 0 && !delivered.final_model_delivered &&
              delivered.silent == hub::silence::by_fork && !delivered.complete() && delivered.why &&
              status.silent == hub::silence::by_fork);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) end_child(false, 2);

  // A signal to a child is the child's alone.
  const pid_t second = fork_with_limit();
  if (second == 0) {
    for (int each : {SIGALRM, SIGINT}) ::signal(each, SIG_DFL);
    ::raise(SIGTERM);
    end_child(false);
  }
  ::waitpid(second, &status, 0);
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGTERM) end_child(false, 3);

  session->on_fit_epoch_end(1, {{"loss", 1}});
  const hub::delivery delivered = session->on_train_end(1, "", 0);
  session.reset();
  end_child(delivered.complete() && delivered.epochs_delivered == 2, 4);
}

void say_how_it_starts(const hub::session_options& options) {
  try {
    hub::training_session session{model_id, options};
    say("signed in\n");
  } catch (const hub::session_error& why) {
    say(std::string(to_string(why.code())) + "\n");
  }
}

void play_ask() {
  ::setsid();  // a signal to its group is for it alone
  for (int each : {SIGHUP, SIGINT, SIGTERM}) ::signal(each, SIG_DFL);
  hub::session_options options = child_options();
  const std::string milliseconds = variable("HUB_TEST_START_MS");
  if (!milliseconds.empty()) options.limits.start_deadline = 1ms * std::stoi(milliseconds);
  options.credentials = {};
  options.log = {};  // the default: on the terminal
  say_how_it_starts(options);
  end_child(true);
}

void play_homeless() {
  std::filesystem::current_path(variable("HUB_TEST_FOLDER"));
  if (::setuid(no_user) != 0) end_child(false, 2);
  ::unsetenv("HOME");
  hub::session_options options = child_options();
  options.credentials = {.prompt = false};
  options.log = [](hub::log_level, std::string_view text) { say(std::string(text) + "\n"); };
  for (const std::string& key : {std::string(), std::string(good_key)}) {
    options.credentials.api_key = key;
    options.credentials.save = true;
    say_how_it_starts(options);
  }
  end_child(true);
}

// Its terminal's turn is its own; that of the child which asks is not.
void play_ask_in_background() {
  if (::setsid() < 0 || ::ioctl(0, TIOCSCTTY, 0) != 0) end_child(false, 2);
  const pid_t child = fork_with_limit();
  if (child == 0) {
    ::setpgid(0, 0);
    play_ask();
  }
  int status = 0;
  end_child(::waitpid(child, &status, WUNTRACED) == child && WIFEXITED(status) &&
                WEXITSTATUS(status) == 0,
            3);
}

}  // namespace

// Hidden: only a child_process runs it.
TEST_CASE("a scenario is played in a child", "[.][child_process]") {
  play_scenario({{"signal", &play_signal},
                 {"signal_at_the_end", &play_signal_at_the_end},
                 {"hang", &play_hang},
                 {"lost", &play_lost},
                 {"rank", &play_rank},
                 {"fork", &play_fork},
                 {"ask", &play_ask},
                 {"homeless", &play_homeless},
                 {"ask_in_background", &play_ask_in_background}});
}

}  // namespace session_process_loopback_tests
