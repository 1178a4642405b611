// SPDX-License-Identifier: MIT
//
// Whole trainings on virtual time, one per seed, each against rules that must hold all along.
//
//   simulate --seeds N [--first S]   N seeds, from S or 1 on, until one breaks a rule
//   simulate --seed S [--trace]      one seed, and everything that happens in it
//   simulate --fleet N               N sessions on one HUB that goes down for an hour
//   simulate --speed                 sessions and lane steps a second
//
// Seeds are played with both protocols, or with one of them: --protocol hub_v1, --protocol platform.
//
// The same seed does the same on every machine: the dice are our own, and nothing reads a clock but
// the figures at the end. The last line is `N passed, N failed`; the exit code is zero only if none
// failed.

#if !defined(HUB_SESSION_NO_HTTPLIB)
#define HUB_SESSION_NO_HTTPLIB
#endif

#include <array>
#include <atomic>
#include <cinttypes>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "../examples/flags.hpp"
#include "../hub_session.hpp"
#include "simulate/fleet.hpp"
#include "simulate/platform.hpp"
#include "simulate/speed.hpp"
#include "simulate/spooled.hpp"
#include "simulate/training.hpp"
#include "support/scratch.hpp"

namespace {

using namespace simulate;

constexpr const char* usage =
    "simulate --seeds N [--first S] [--protocol hub_v1|platform]\n"
    "simulate --seed S [--trace] [--protocol hub_v1|platform]\n"
    "simulate --fleet N\n"
    "simulate --speed\n";

int conclude(int passed, int failed) {
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

// ---- seeds -------------------------------------------------------------------------------------

// In memory where there is such a place: what is tested is the session, not the disk.
std::filesystem::path fast_folder() {
  std::error_code ignored;
  const std::filesystem::path memory = "/dev/shm";
  const bool chosen = std::getenv("TMPDIR") != nullptr;
  return !chosen && std::filesystem::is_directory(memory, ignored)
             ? memory
             : std::filesystem::temp_directory_path();
}

std::atomic<int> current_seed = 0;
std::atomic<const char*> current_protocol = "hub_v1";

// A crash, too, says which seed it was.
extern "C" void on_crash(int signal_number) {
  std::fprintf(stderr, "crashed; replay: simulate --seed %d --protocol %s --trace\n",
               current_seed.load(), current_protocol.load());
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
}

struct play {
  const char* protocol;
  course (*run)(std::uint64_t seed, const scratch_folder& scratch, bool aloud);
};

// Every third training has a spool.
course play_hub_v1(std::uint64_t seed, const scratch_folder& scratch, bool aloud) {
  if (seed % 3 == 0) return spooled_training(seed, scratch.path(), aloud).run();
  return training(seed, scratch.path(), aloud).run();
}

course play_platform(std::uint64_t seed, const scratch_folder& scratch, bool aloud) {
  return platform_training(seed, scratch.path(), aloud).run();
}

constexpr std::array<play, 2> all_plays = {{{"hub_v1", play_hub_v1}, {"platform", play_platform}}};

// All of them where none is named.
std::vector<play> plays_named(const std::optional<std::string>& protocol) {
  std::vector<play> out;
  for (const play& each : all_plays)
    if (!protocol || *protocol == each.protocol) out.push_back(each);
  if (out.empty())
    throw examples::usage_error("--protocol: there is no '" + *protocol +
                                "'; give hub_v1 or platform.");
  return out;
}

course run_seed(const play& how, int seed, const scratch_folder& scratch, bool aloud) {
  current_seed = seed;
  current_protocol = how.protocol;
  return how.run(static_cast<std::uint64_t>(seed), scratch, aloud);
}

bool held(const play& how, int seed, const course& one) {
  if (one.broken.empty()) return true;
  std::printf("seed %d at %s\n  replay: simulate --seed %d --protocol %s --trace\n", seed,
              one.broken.c_str(), seed, how.protocol);
  return false;
}

// Test cases.
struct score {
  int passed = 0;
  int failed = 0;
};

struct totals {
  const char* protocol;
  int seeds = 0;
  trace all{false};
  std::uint64_t sessions = 0;
  std::uint64_t epochs = 0;
  std::uint64_t requests = 0;
  std::uint64_t steps = 0;
  duration simulated = {};

  void add(const course& one) {
    ++seeds;
    all.add(one.hash);
    sessions += one.sessions;
    epochs += one.epochs;
    requests += one.requests;
    steps += one.steps;
    simulated += one.simulated;
  }

  void print(const stopwatch& clock) const {
    const double core = clock.processor();
    std::printf("%s: %d seeds, trace %016" PRIx64 "\n", protocol, seeds, all.hash());
    std::printf("%" PRIu64 " sessions, %" PRIu64 " epochs, %" PRIu64 " requests, %" PRIu64
                " lane steps, %.0f simulated hours in %.1f s, %.1f s of a core\n",
                sessions, epochs, requests, steps, hours(simulated), clock.wall(), core);
    std::printf(
        "a second: %.0f seeds, %.0f sessions of 100 epochs, %.0f lane steps, "
        "%.0f simulated hours\n",
        seeds / core, static_cast<double>(epochs) / 100 / core, static_cast<double>(steps) / core,
        hours(simulated) / core);
  }
};

// One test case is that every rule held, another that the same seed does the same twice.
score run_seeds(const play& how, int first, int count) {
  constexpr int twice_each = 50;
  const scratch_folder scratch(fast_folder());
  const stopwatch clock;
  totals sum{how.protocol};
  int unequal = 0;
  for (int i = 0; i < count; ++i) {
    const int seed = first + i;
    const course one = run_seed(how, seed, scratch, false);
    sum.add(one);
    if (!held(how, seed, one)) return {0, 1};
    if (i % twice_each == 0 && run_seed(how, seed, scratch, false).hash != one.hash) {
      std::printf("seed %d does not do the same twice\n", seed);
      ++unequal;
    }
  }
  sum.print(clock);
  return unequal == 0 ? score{2, 0} : score{1, 1};
}

int run_all_seeds(const std::vector<play>& plays, int first, int count) {
  score sum;
  for (const play& each : plays) {
    const score one = run_seeds(each, first, count);
    sum.passed += one.passed;
    sum.failed += one.failed;
  }
  return conclude(sum.passed, sum.failed);
}

bool replay(const play& how, int seed, bool aloud) {
  const scratch_folder scratch(fast_folder());
  const stopwatch clock;
  const course one = run_seed(how, seed, scratch, aloud);
  totals sum{how.protocol};
  sum.add(one);
  sum.print(clock);
  return held(how, seed, one);
}

int replay_all(const std::vector<play>& plays, int seed, bool aloud) {
  int passed = 0;
  for (const play& each : plays) passed += replay(each, seed, aloud) ? 1 : 0;
  return conclude(passed, static_cast<int>(plays.size()) - passed);
}

// ---- a fleet -----------------------------------------------------------------------------------

int run_fleet(int size) {
  constexpr double most = 2;
  const double ratio = fleet(static_cast<std::size_t>(size), true).run();
  const double without = fleet(static_cast<std::size_t>(size), false).run();
  std::printf(
      "busiest second after the return: %.2f times the mean, at most %.0f is wanted; "
      "without jitter %.2f\n",
      ratio, most, without);
  return ratio <= most ? conclude(1, 0) : conclude(0, 1);
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int most = std::numeric_limits<int>::max() / 2;
  try {
    const examples::flags given(argc, argv,
                                {"--seeds", "--first", "--seed", "--fleet", "--protocol"},
                                {"--trace", "--speed"});
    const std::vector<play> plays = plays_named(given.text("--protocol"));
    for (int number : {SIGABRT, SIGSEGV, SIGFPE}) std::signal(number, on_crash);
    if (const auto count = given.whole_number("--seeds", 1, most))
      return run_all_seeds(plays, given.whole_number("--first", 0, most).value_or(1), *count);
    if (const auto seed = given.whole_number("--seed", 0, most))
      return replay_all(plays, *seed, given.has("--trace"));
    if (const auto size = given.whole_number("--fleet", 1, 1'000'000)) return run_fleet(*size);
    if (given.has("--speed")) return print_speed(), 0;
    std::fputs(usage, stderr);
  } catch (const examples::usage_error& problem) {
    std::fprintf(stderr, "%s\n%s", problem.what(), usage);
  }
  return 2;
}
