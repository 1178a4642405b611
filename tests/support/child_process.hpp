// SPDX-License-Identifier: MIT
//
// What concerns a whole process is tested in a child: the test program, run again to play one of
// its scenarios. The first half of this file is for the test, the second for the child.
//
// A program that uses it has a hidden test case, tagged [child_process], which calls
// play_scenario().

#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "catch.hpp"
#include "own_signals.hpp"
#include "raw_server.hpp"

namespace hub_test {

// ---- for the test -------------------------------------------------------------------------------

// A file descriptor that closes itself.
class descriptor {
 public:
  explicit descriptor(int number = -1) : number_(number) {}
  descriptor(descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int get() const { return number_; }

 private:
  int number_;
};

struct pipe_ends {
  descriptor out;
  descriptor in;
};

inline pipe_ends make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  return {descriptor(ends[0]), descriptor(ends[1])};
}

// A pseudo terminal. Our end shows what a user would see and takes what one would type.
struct terminal {
  descriptor ours;
  descriptor theirs;

  terminal() : ours(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    if (ours.get() < 0 || ::grantpt(ours.get()) != 0 || ::unlockpt(ours.get()) != 0)
      throw std::runtime_error("no pseudo terminal");
    theirs = descriptor(::open(::ptsname(ours.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  }
  bool echoes() const {
    termios now{};
    ::tcgetattr(theirs.get(), &now);
    return (now.c_lflag & ECHO) != 0;
  }
};

// This program once more, playing one of its scenarios; killed where the test gives it up.
class child_process {
 public:
  child_process(const std::string& scenario, const std::vector<std::string>& variables,
                const terminal* on = nullptr, const descriptor* error = nullptr) {
    pipe_ends to_child = make_pipe();
    pipe_ends from_child = make_pipe();
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, on ? on->theirs.get() : to_child.out.get(), 0);
    ::posix_spawn_file_actions_adddup2(&actions, from_child.in.get(), 1);
    if (on) ::posix_spawn_file_actions_adddup2(&actions, on->theirs.get(), 2);
    if (error) ::posix_spawn_file_actions_adddup2(&actions, error->get(), 2);

    std::vector<std::string> texts = variables;
    texts.push_back("HUB_TEST_SCENARIO=" + scenario);
    std::vector<char*> environment;
    const auto is_set_anew = [&](std::string_view old) {
      const std::string_view name = old.substr(0, old.find('=') + 1);
      return std::any_of(texts.begin(), texts.end(),
                         [&](const std::string& text) { return text.starts_with(name); });
    };
    for (char** each = environ; *each; ++each)
      if (!is_set_anew(*each)) environment.push_back(*each);
    for (std::string& each : texts) environment.push_back(each.data());
    environment.push_back(nullptr);
    std::string name = "child";
    std::string filter = "[child_process]";
    char* arguments[] = {name.data(), filter.data(), nullptr};
    const int failed = ::posix_spawn(&process_, "/proc/self/exe", &actions, own_signals().get(),
                                     arguments, environment.data());
    ::posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) throw std::runtime_error("no child process");
    to_child_ = std::move(to_child.in);
    from_child_ = std::move(from_child.out);
  }
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;
  ~child_process() {
    if (process_ <= 0) return;
    ::kill(process_, SIGKILL);
    wait();
  }

  void send(int signal_number) const { ::kill(process_, signal_number); }
  void write(std::string_view text) const {
    REQUIRE(::write(to_child_.get(), text.data(), text.size()) > 0);
  }

  // Everything that it says up to and with `text`; fails the test where it ends before.
  std::string read_until(std::string_view text) {
    while (said_.find(text) == std::string::npos) REQUIRE(read_more(from_child_.get(), said_));
    const std::size_t end = said_.find(text) + text.size();
    const std::string out = said_.substr(0, end);
    said_.erase(0, end);
    return out;
  }

  // Everything else that it says.
  std::string read_to_the_end() {
    while (read_more(from_child_.get(), said_)) continue;
    return std::exchange(said_, {});
  }

  // How it ended, in words.
  std::string wait() {
    int status = 0;
    while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
    }
    process_ = 0;
    if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status));
    return "exit " + std::to_string(WEXITSTATUS(status));
  }

  static bool read_more(int from, std::string& to) {
    char piece[4096];
    const ssize_t got = ::read(from, piece, sizeof piece);
    if (got > 0) to.append(piece, static_cast<std::size_t>(got));
    return got > 0 || (got < 0 && errno == EINTR);
  }

 private:
  pid_t process_ = 0;
  descriptor to_child_;
  descriptor from_child_;
  std::string said_;
};

// ---- for the child ------------------------------------------------------------------------------

inline std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

inline void say(std::string_view text) {
  if (::write(1, text.data(), text.size()) < 0) std::_Exit(90);
}

inline void wait_for_line() {
  char c = 0;
  while (c != '\n')
    if (::read(0, &c, 1) == 0) std::_Exit(91);
}

[[noreturn]] inline void end_child(bool well, int otherwise = 1) {
  std::_Exit(well ? 0 : otherwise);
}

// The signal handler of a program that has one of its own.
inline std::atomic<int> handled = 0;
inline int handled_pipe[2];

inline void on_own_signal(int) {
  ++handled;
  if (::write(handled_pipe[1], "x", 1) < 0) std::_Exit(92);
}
inline void on_own_signal_with_info(int number, siginfo_t* info, void*) {
  if (info && info->si_signo == number) on_own_signal(number);
}

// Asks again and again, as ThreadSanitizer hands over a signal only to a thread that calls
// something.
inline void wait_until_handled() {
  char c = 0;
  while (::read(handled_pipe[0], &c, 1) < 0) std::this_thread::yield();
}

// Sets what the program does about a signal: "default", "ignore", "own", "own_with_info".
inline void act_as_told(int number, const std::string& action) {
  struct sigaction wanted {};
  sigemptyset(&wanted.sa_mask);
  wanted.sa_handler = action == "ignore" ? SIG_IGN : action == "own" ? &on_own_signal : SIG_DFL;
  if (action == "own_with_info") {
    wanted.sa_flags = SA_SIGINFO;
    wanted.sa_sigaction = &on_own_signal_with_info;
  }
  // Catch2 has handlers of its own for both; the program that is played here has none for the
  // other.
  for (int each : {SIGINT, SIGTERM}) ::signal(each, SIG_DFL);
  ::sigaction(number, &wanted, nullptr);
}

// A child that hangs is a test that fails. A long scenario says this again with each step.
inline void limit_time() { ::alarm(static_cast<unsigned>(patience.count())); }

// What a child forks inherits no limit, and would keep the test's output open if it hung.
inline pid_t fork_with_limit() {
  const pid_t child = ::fork();
  if (child == 0) limit_time();
  return child;
}

// Plays what the parent asked for.
inline void play_scenario(const std::map<std::string, void (*)()>& scenarios) {
  limit_time();
  if (::pipe2(handled_pipe, O_NONBLOCK | O_CLOEXEC) != 0) std::_Exit(93);
  const auto scenario = scenarios.find(variable("HUB_TEST_SCENARIO"));
  REQUIRE(scenario != scenarios.end());
  scenario->second();
}

}  // namespace hub_test
