// SPDX-License-Identifier: MIT
//
// The examples as processes: programs that run beside a test, a local_hub among them, and a folder
// for what they leave on disk. Nothing here sleeps: a test waits for a line of output or for the end
// of a process.
//
// HUB_TRAIN, HUB_UPLOAD, HUB_SYNC and HUB_LOCAL_HUB name the programs, and HUB_TRAIN_CURL where there is
// libcurl; meson.build sets them.

#pragma once

#include "../../hub_session.hpp"
#include "catch.hpp"
#include "own_signals.hpp"
#include "scratch.hpp"
#include "sockets.hpp"
#include "text.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;  // NOLINT(readability-redundant-declaration): only GNU's headers have it

namespace hub_test {

namespace fs = std::filesystem;

using nlohmann::json;
using words = std::vector<std::string>;
using variables = std::map<std::string, std::string>;

// ---- a process ----------------------------------------------------------------------------------

// How a process ended: by itself with a code, or by a signal.
struct ending {
  int code = -1;
  int signal = 0;
};

// A program that runs beside the test. Its stdout comes line by line, its stderr when it has ended.
class process {
 public:
  process(const std::string& program, const words& arguments, const variables& environment) {
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    from_stdout_ = pipe[0];
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions, pipe[1], 1);
    ::posix_spawn_file_actions_addopen(&actions, 2, stderr_file().c_str(), O_WRONLY | O_CREAT,
                                       0600);
    words line{program};
    line.insert(line.end(), arguments.begin(), arguments.end());
    words pairs = environment_with(environment);
    const int failed = ::posix_spawn(&id_, program.c_str(), &actions, own_signals().get(),
                                     pointers(line).data(), pointers(pairs).data());
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(pipe[1]);
    if (failed != 0) throw std::runtime_error("cannot run '" + program + "'");
  }
  process(const process&) = delete;
  process& operator=(const process&) = delete;
  ~process() {
    if (id_ > 0) {
      send(SIGKILL);
      ::waitpid(id_, nullptr, 0);
    }
    ::close(from_stdout_);
  }

  pid_t id() const { return id_; }
  void send(int signal) const { ::kill(id_, signal); }

  // The next line of stdout that begins so. Fails the test where there is none.
  std::string wait_for_line(std::string_view beginning) {
    std::string line = wait_for_line_or_end(beginning);
    if (line.empty())
      FAIL("no line '" << beginning << "' in:\n" << out_ << read_file(stderr_file()));
    return line;
  }

  // The same; "" where the output ends without it.
  std::string wait_for_line_or_end(std::string_view beginning) {
    for (;;) {
      const std::size_t end = out_.find('\n', seen_);
      if (end != std::string::npos) {
        std::string line = out_.substr(seen_, end - seen_);
        seen_ = end + 1;
        if (line.starts_with(beginning)) return line;
      } else if (!read_more()) {
        return "";
      }
    }
  }

  ending wait_for_end() {
    while (read_more()) {
    }
    int status = 0;
    ::waitpid(std::exchange(id_, -1), &status, 0);
    if (WIFSIGNALED(status)) return {.signal = WTERMSIG(status)};
    return {.code = WEXITSTATUS(status)};
  }

  const std::string& out() const { return out_; }
  std::string err() const { return read_file(stderr_file()); }
  std::string last_line() const {
    const std::string text = out_.substr(0, out_.find_last_not_of('\n') + 1);
    return text.substr(text.rfind('\n') + 1);
  }

 private:
  static constexpr int patience_ms = 120'000;  // then it hangs, and the test is to say so

  std::string stderr_file() const { return (folder_ / "stderr").string(); }

  // What is set where the tests run must not reach the programs.
  static words environment_with(const variables& added) {
    static const std::set<std::string> removed = [] {
      std::set<std::string> names = {"ULTRALYTICS_API_KEY", "ULTRALYTICS_HUB_API",
                                     "ULTRALYTICS_HUB_WEB", "ULTRALYTICS_PLATFORM_URL",
                                     "PLATFORM_API_URL",    "LOCAL_HUB_API_KEY"};
      for (const auto& each : hub::machine::rank_variables) names.insert(each.rank);
      return names;
    }();
    words out;
    for (char** each = environ; *each; ++each) {
      const std::string pair = *each;
      const std::string name = pair.substr(0, pair.find('='));
      if (!removed.contains(name) && !added.contains(name)) out.push_back(pair);
    }
    for (const auto& [name, value] : added) out.emplace_back(name).append("=").append(value);
    return out;
  }

  static std::vector<char*> pointers(words& texts) {
    std::vector<char*> out;
    for (std::string& each : texts) out.push_back(each.data());
    out.push_back(nullptr);
    return out;
  }

  // False at the end of the output.
  bool read_more() {
    pollfd watched{from_stdout_, POLLIN, 0};
    if (::poll(&watched, 1, patience_ms) == 0)
      FAIL("nothing happens any more after:\n" << out_ << err());
    std::array<char, 4096> piece{};
    const ssize_t got = ::read(from_stdout_, piece.data(), piece.size());
    if (got <= 0) return false;
    out_.append(piece.data(), static_cast<std::size_t>(got));
    return true;
  }

  scratch_folder folder_;
  pid_t id_ = -1;
  int from_stdout_ = -1;
  std::string out_;
  std::size_t seen_ = 0;
};

inline std::string program(const char* variable) {
  const char* path = std::getenv(variable);
  if (!path) throw std::runtime_error(std::string(variable) + " is not set; run meson test");
  return path;
}

// ---- a home -------------------------------------------------------------------------------------

inline const std::string good_key(42, 'k');
inline const std::string bad_key(42, 'z');

// A local_hub that listens, and the model that it was asked to make, if it was.
struct running_hub {
  std::unique_ptr<process> program;
  std::string url;
  std::string model;
  std::shared_ptr<const bound_socket> place;  // where another can take its place, if so

  std::string page() const { return url + "/models/" + model; }  // of its model
  int port() const { return std::stoi(url.substr(url.rfind(':') + 1)); }

  void stop() {
    program->send(SIGTERM);
    REQUIRE(program->wait_for_end().code == 0);
  }
};

// A folder with a HUB's data and a user's files.
struct home {
  scratch_folder folder;
  fs::path data = folder / "data";
  fs::path out = folder / "out";
  fs::path spool = folder / "spool";

  fs::path model_folder(const running_hub& hub) const { return data / "models" / hub.model; }

  std::unique_ptr<process> run(const char* which, const words& arguments,
                               variables environment = {}) const {
    environment["YOLO_CONFIG_DIR"] = (folder / "settings").string();
    return std::make_unique<process>(program(which), arguments, environment);
  }

  std::unique_ptr<process> launch_hub(words arguments, const variables& environment = {}) const {
    arguments.insert(arguments.end(), {"--data", data.string()});
    return run("HUB_LOCAL_HUB", arguments, environment);
  }

  running_hub start_hub(words arguments = {"--make-model", "spirals"},
                        std::shared_ptr<const bound_socket> place = {}) const {
    const bool makes_model =
        std::find(arguments.begin(), arguments.end(), "--make-model") != arguments.end();
    const int port = place ? place->port() : 0;
    arguments.insert(arguments.end(), {"--api-key", good_key, "--port", std::to_string(port)});
    running_hub hub;
    hub.place = std::move(place);
    hub.program = launch_hub(arguments);
    const auto after = [&](const std::string& lead) {
      return hub.program->wait_for_line(lead).substr(lead.size());
    };
    if (makes_model) hub.model = after("local_hub: model ");
    hub.url = after("local_hub: listening on ");
    return hub;
  }

  // One that ends and comes back where it was.
  running_hub start_hub_to_return() const {
    return start_hub({"--make-model", "spirals"}, std::make_shared<const bound_socket>());
  }

  // The same data, another process, and the same place if it has one.
  running_hub start_hub_again(const running_hub& before) const {
    running_hub hub = start_hub({}, before.place);
    hub.model = before.model;
    return hub;
  }

  std::unique_ptr<process> start_client(const char* which, const running_hub& hub,
                                        const words& arguments,
                                        const std::string& key = good_key) const {
    return run(which, arguments, {{"ULTRALYTICS_HUB_API", hub.url}, {"ULTRALYTICS_API_KEY", key}});
  }

  std::unique_ptr<process> start_train(const running_hub& hub, words arguments) const {
    arguments.insert(arguments.end(),
                     {"--model", hub.model, "--out", out.string(), "--metrics-interval", "0.02",
                      "--checkpoint-interval", "0.02", "--heartbeat-interval", "0.1"});
    return start_client("HUB_TRAIN", hub, arguments);
  }

  // Expects that it ends with this code.
  std::unique_ptr<process> upload(const running_hub& hub, words arguments, const fs::path& file,
                                  int code = 0) const {
    arguments.insert(arguments.end(), {hub.model, file.string()});
    auto done = start_client("HUB_UPLOAD", hub, arguments);
    const int ended = done->wait_for_end().code;
    INFO(done->out() << done->err());
    CHECK(ended == code);
    return done;
  }

  // The same, of what the spool holds.
  std::unique_ptr<process> sync(const running_hub& hub, words arguments, int code) const {
    arguments.push_back(spool.string());
    auto done = start_client("HUB_SYNC", hub, arguments);
    const int ended = done->wait_for_end().code;
    INFO(done->out() << done->err());
    CHECK(ended == code);
    return done;
  }
};

}  // namespace hub_test
