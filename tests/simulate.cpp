// SPDX-License-Identifier: MIT
//
// Whole trainings on virtual time, one per seed, each against rules that must hold all along.
//
//   simulate --seeds N [--first S]   N seeds, from S or 1 on, until one breaks a rule
//   simulate --seed S [--trace]      one seed, and everything that happens in it
//   simulate --fleet N               N sessions on one HUB that goes down for an hour
//   simulate --speed                 sessions and lane steps a second
//
// The same seed does the same on every machine: the dice are our own, and nothing reads a clock but
// the figures at the end. The last line is `N passed, N failed`; the exit code is zero only if none
// failed.

#if !defined(HUB_SESSION_NO_HTTPLIB)
#define HUB_SESSION_NO_HTTPLIB
#endif

#include <atomic>
#include <cinttypes>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <system_error>

#include "../examples/flags.hpp"
#include "../hub_session.hpp"
#include "simulate/fleet.hpp"
#include "simulate/speed.hpp"
#include "simulate/spooled.hpp"
#include "simulate/training.hpp"
#include "support/scratch.hpp"

namespace {

using namespace simulate;

constexpr const char* usage =
    "simulate --seeds N [--first S]\n"
    "simulate --seed S [--trace]\n"
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

// A crash, too, says which seed it was.
extern "C" void on_crash(int signal_number) {
  std::fprintf(stderr, "crashed; replay: simulate --seed %d --trace\n", current_seed.load());
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
}

// Every third training has a spool.
course run_seed(int seed, const scratch_folder& scratch, bool aloud) {
  current_seed = seed;
  const auto number = static_cast<std::uint64_t>(seed);
  if (seed % 3 == 0) return spooled_training(number, scratch.path(), aloud).run();
  return training(number, scratch.path(), aloud).run();
}

bool held(int seed, const course& one) {
  if (one.broken.empty()) return true;
  std::printf("seed %d at %s\n  replay: simulate --seed %d --trace\n", seed, one.broken.c_str(),
              seed);
  return false;
}

struct totals {
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
    std::printf("%d seeds, trace %016" PRIx64 "\n", seeds, all.hash());
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
int run_seeds(int first, int count) {
  constexpr int twice_each = 50;
  const scratch_folder scratch(fast_folder());
  const stopwatch clock;
  totals sum;
  int unequal = 0;
  for (int i = 0; i < count; ++i) {
    const int seed = first + i;
    const course one = run_seed(seed, scratch, false);
    sum.add(one);
    if (!held(seed, one)) return conclude(0, 1);
    if (i % twice_each == 0 && run_seed(seed, scratch, false).hash != one.hash) {
      std::printf("seed %d does not do the same twice\n", seed);
      ++unequal;
    }
  }
  sum.print(clock);
  return conclude(unequal == 0 ? 2 : 1, unequal == 0 ? 0 : 1);
}

int replay(int seed, bool aloud) {
  const scratch_folder scratch(fast_folder());
  const stopwatch clock;
  const course one = run_seed(seed, scratch, aloud);
  totals sum;
  sum.add(one);
  sum.print(clock);
  return held(seed, one) ? conclude(1, 0) : conclude(0, 1);
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
    const examples::flags given(argc, argv, {"--seeds", "--first", "--seed", "--fleet"},
                                {"--trace", "--speed"});
    for (int number : {SIGABRT, SIGSEGV, SIGFPE}) std::signal(number, on_crash);
    if (const auto count = given.whole_number("--seeds", 1, most))
      return run_seeds(given.whole_number("--first", 0, most).value_or(1), *count);
    if (const auto seed = given.whole_number("--seed", 0, most))
      return replay(*seed, given.has("--trace"));
    if (const auto size = given.whole_number("--fleet", 1, 1'000'000)) return run_fleet(*size);
    if (given.has("--speed")) return print_speed(), 0;
    std::fputs(usage, stderr);
  } catch (const examples::usage_error& problem) {
    std::fprintf(stderr, "%s\n%s", problem.what(), usage);
  }
  return 2;
}
