// SPDX-License-Identifier: MIT
//
// long_run [--seconds N]
//
// A session over loopback at 1,000 times its normal rates, against a HUB that crashes every five
// seconds and comes back. In the end nothing may be missing, and file descriptors, threads and
// memory must be where they were in the beginning. Without arguments: ten seconds.

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "../hub_session.hpp"
#include "support/raw_hub.hpp"
#include "support/raw_server.hpp"
#include "support/scratch.hpp"

using namespace hub_test;
using namespace std::chrono_literals;

namespace {

using clock_type = std::chrono::steady_clock;

constexpr int acceleration = 1000;
constexpr hub::duration epoch_time = 3s / acceleration;

// Each of three lanes has a socket and a second descriptor to cut it by, and one of them a file. How
// many are open when somebody looks is a matter of chance. What leaks with every crash is soon more.
constexpr std::size_t descriptors_in_flight = 7;

// A sanitizer's own memory grows, so that it tells nothing about ours.
#if defined(__has_feature)
#define HUB_TEST_HAS_FEATURE(name) __has_feature(name)
#else
#define HUB_TEST_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    HUB_TEST_HAS_FEATURE(address_sanitizer) || HUB_TEST_HAS_FEATURE(thread_sanitizer)
constexpr bool memory_counts = false;
#else
constexpr bool memory_counts = true;
#endif

int failures = 0;

void check(bool holds, std::string_view what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %.*s\n", static_cast<int>(what.size()), what.data());
}

// What a checkpoint of this epoch holds.
std::string weights(int epoch) {
  std::string out(64 * 1024, static_cast<char>('a' + epoch % 26));
  return out.replace(0, 16, std::to_string(epoch));
}

// ---- the training, in a process of its own ------------------------------------------------------

// What a process has taken from the system.
struct footprint {
  std::size_t descriptors = 0;
  std::size_t threads = 0;
  std::size_t memory_kib = 0;

  static footprint now() {
    const auto entries = [](const char* folder) {
      const std::filesystem::directory_iterator all(folder);
      return static_cast<std::size_t>(std::distance(begin(all), end(all)));
    };
    footprint out{entries("/proc/self/fd"), entries("/proc/self/task"), 0};
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;)
      if (word == "VmRSS:") status >> out.memory_kib;
    return out;
  }
  void raise_to(const footprint& other) {
    descriptors = std::max(descriptors, other.descriptors);
    threads = std::max(threads, other.threads);
    memory_kib = std::max(memory_kib, other.memory_kib);
  }
  void print(const char* when) const {
    std::printf("%-14s at most %zu descriptors, %zu threads, %zu KiB\n", when, descriptors, threads,
                memory_kib);
  }
};

hub::session_options accelerated(const std::string& root, const std::filesystem::path& temp) {
  hub::session_options out;
  for (hub::duration* each :
       {&out.rate_limits.metrics, &out.rate_limits.checkpoint, &out.rate_limits.heartbeat,
        &out.retry.first_delay, &out.retry.delay_max, &out.retry.denied_interval,
        &out.retry.retry_after_max, &out.retry.budget_refill})
    *each /= acceleration;
  out.retry.final_retries_max = 1000;
  out.endpoints = {.api = root, .web = root};
  out.credentials = {.id_token = raw_hub::token, .prompt = false};
  out.temp_folder = temp;
  out.log = [](hub::log_level, std::string_view) {};
  out.progress = [](const hub::transfer_progress&) {};
  return out;
}

// Trains for so long and returns how many epochs that took.
int train_in_session(const std::string& root, std::chrono::seconds time,
                     const scratch_folder& folder) {
  const std::filesystem::path last = folder / "last.pt";
  hub::training_session session{raw_hub::model_id, accelerated(root, folder / "temp")};
  session.on_pretrain_routine_end();
  const auto began = clock_type::now();
  footprint early, late;
  int epoch = 0;
  for (auto now = began; now < began + time; now = clock_type::now()) {
    session.on_fit_epoch_end(epoch, {{"loss", epoch}});
    std::ofstream(last, std::ios::binary) << weights(epoch);
    session.on_model_save(epoch, last, false);
    ++epoch;
    if (epoch % 10 == 0) {
      const auto elapsed = now - began;
      if (elapsed > time / 5 && elapsed < time * 2 / 5) early.raise_to(footprint::now());
      if (elapsed > time * 4 / 5) late.raise_to(footprint::now());
    }
    std::this_thread::sleep_until(began + epoch * epoch_time);
  }
  const hub::delivery delivered = session.on_train_end(epoch - 1, last, 0.5);
  const hub::session_status status = session.status();
  early.print("second fifth:");
  late.print("last fifth:");
  check(delivered.complete(), "on_train_end did not deliver everything");
  check(delivered.epochs_delivered == static_cast<std::size_t>(epoch), "epochs are missing");
  check(status.checkpoints_failed == 0, "a checkpoint failed for good");
  check(late.descriptors <= early.descriptors + descriptors_in_flight,
        "there are ever more file descriptors");
  check(late.threads <= early.threads, "there are ever more threads");
  if (memory_counts)
    check(late.memory_kib <= early.memory_kib + 1024, "memory has grown by more than 1 MiB");
  return epoch;
}

// The same, and whatever the session took from the system is given back when it is gone.
int train(const std::string& root, std::chrono::seconds time, const scratch_folder& folder) {
  const footprint before = footprint::now();
  const int epochs = train_in_session(root, time, folder);
  const footprint after = footprint::now();
  check(after.descriptors == before.descriptors, "the session left file descriptors open");
  check(after.threads == before.threads, "the session left threads");
  return epochs;
}

// ---- the HUB, in this one -----------------------------------------------------------------------

// Crashes every five seconds, until the time is up. Returns how often. The first time is before
// anything is measured: what a new connection takes from the system for the first time is no growth.
int crash_every_five_seconds(raw_hub& hub, std::chrono::seconds time) {
  const auto end = clock_type::now() + time;
  int crashes = 0;
  for (auto next = clock_type::now() + 1s; next < end; next += 5s) {
    std::this_thread::sleep_until(next);
    hub.stop();
    std::this_thread::sleep_for(250ms);
    hub.start();
    ++crashes;
  }
  return crashes;
}

void check_what_arrived(const hub::testing::hub_model& model, std::size_t epochs) {
  check(model.metrics.size() == epochs, "epochs did not arrive");
  for (const auto& [epoch, values] : model.metrics)
    if (values.at("loss") != epoch) check(false, "an epoch arrived with other values");
  check(!model.heartbeats.empty(), "no heartbeat arrived");
  check(model.final_model() != nullptr, "the final model did not arrive");
  for (const hub::testing::checkpoint_record& each : model.checkpoints)
    if (each.hash != hub::testing::content_hash(weights(each.epoch)))
      check(false, "the checkpoint of epoch " + std::to_string(each.epoch) + " arrived torn");
}

std::optional<std::chrono::seconds> parse(int count, char** arguments) {
  if (count == 1) return 10s;
  int seconds = 0;
  if (count != 3 || std::strcmp(arguments[1], "--seconds") != 0) return std::nullopt;
  const char* const end = arguments[2] + std::strlen(arguments[2]);
  const auto read = std::from_chars(arguments[2], end, seconds);
  if (read.ec != std::errc() || read.ptr != end || seconds < 1) return std::nullopt;
  return std::chrono::seconds(seconds);
}

// What the two processes tell each other: the HUB's address, then how many epochs there were.
template <class T>
void tell(int to, const T& what) {
  if (::write(to, &what, sizeof what) != sizeof what) std::exit(2);
}
template <class T>
T hear(int from) {
  T out{};
  if (::read(from, &out, sizeof out) != sizeof out) std::exit(2);
  return out;
}

}  // namespace

int main(int count, char** arguments) {
  const auto time = parse(count, arguments);
  int to_training[2];
  int to_hub[2];
  if (!time || ::pipe(to_training) != 0 || ::pipe(to_hub) != 0) {
    std::fputs("usage: long_run [--seconds N]\n", stderr);
    return 2;
  }
  const pid_t training = ::fork();  // before there is any thread
  if (training == 0) {
    const int port = hear<int>(to_training[0]);
    const scratch_folder folder;
    tell(to_hub[1], train("http://127.0.0.1:" + std::to_string(port), *time, folder));
    return failures == 0 ? 0 : 1;
  }
  raw_hub hub;
  tell(to_training[1], hub.port());
  const int crashes = crash_every_five_seconds(hub, *time);
  const int epochs = hear<int>(to_hub[0]);
  int status = 0;
  ::waitpid(training, &status, 0);
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the training's process found faults");

  const hub::testing::hub_model model = hub.model();
  check_what_arrived(model, static_cast<std::size_t>(epochs));
  std::printf("%d epochs, %zu checkpoints, %zu heartbeats, %zu requests answered, %d crashes\n",
              epochs, model.checkpoints.size(), model.heartbeats.size(), hub.answered(), crashes);
  return failures == 0 ? 0 : 1;
}
