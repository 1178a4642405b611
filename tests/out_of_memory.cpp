// SPDX-License-Identifier: MIT
//
// The session, where memory runs out: each of its functions runs again with its first
// allocation failing, then its second, then its third, until a run has no allocation of that
// number; once with that allocation alone and once with all from there on. Nothing may escape, what
// was reported before must arrive, and what is missing must be missing in the session's account.
// This program replaces operator new, so it has no other tests.

#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/long_variant.hpp"
#include "support/world.hpp"

namespace {

// Which allocations fail: the one of that number, counted from zero, and perhaps all that follow.
struct shortage {
  bool on = false;
  bool lasting = false;
  std::size_t number = 0;
  std::size_t allocations = 0;

  bool fails_now() noexcept {
    if (!on) return false;
    const std::size_t now = allocations++;
    return now == number || (lasting && now > number);
  }
};
thread_local shortage memory;

// Whether all threads but the test's own have none.
std::atomic<bool> others_are_short = false;
thread_local bool is_tests_own = false;

// Runs `work` short of memory. False where it had no allocation of that number.
template <class Work>
bool run_short_of_memory(std::size_t number, bool lasting, Work work) {
  memory = {.on = true, .lasting = lasting, .number = number};
  work();
  memory.on = false;
  return memory.allocations > number;
}

}  // namespace

void* operator new(std::size_t size) {
  if (!memory.fails_now() && (is_tests_own || !others_are_short))
    if (void* room = std::malloc(size == 0 ? 1 : size)) return room;
  throw std::bad_alloc();
}
void operator delete(void* room) noexcept { std::free(room); }
void operator delete(void* room, std::size_t) noexcept { std::free(room); }

namespace {

using namespace std::chrono_literals;
using hub::testing::fault;
using hub::testing::fault_kind;

constexpr int epochs_before = 5;  // are reported before memory runs out
constexpr int epoch_then = 50;    // while it is short
constexpr int epoch_after = 100;  // when there is enough again

// The server's own memory is not ours.
class roomy_transport {
 public:
  explicit roomy_transport(hub::testing::fake_server& to) : server_(to) {}

  hub::reply send(const hub::request& what) {
    struct relief {
      bool before = std::exchange(memory.on, false);
      ~relief() { memory.on = before; }
    } const relief;
    return server_.send(what);
  }
  void cancel() noexcept { server_.cancel(); }

 private:
  hub::testing::fake_transport server_;
};

// What the two protocols differ in here.
template <class Protocol>
struct stage;

template <>
struct stage<hub::hub_v1> {
  static hub::testing::fake_server& server(world& sim) { return sim.hub; }
  static std::string opening(world& sim) { return sim.id; }
  static bool has(world& sim, int epoch) { return sim.model().metrics.contains(epoch); }
  static bool has_final_model(world& sim) { return sim.model().final_model() != nullptr; }
};

template <>
struct stage<hub::platform> {
  static hub::testing::fake_server& server(world& sim) { return sim.platform; }
  static hub::platform_run opening(world& sim) {
    sim.with.endpoints = sim.platform_options().endpoints;
    sim.with.credentials = sim.platform_options().credentials;
    return {.project = "lab/helmets"};
  }
  static const hub::testing::platform_model& run(world& sim) {
    return sim.platform.models().begin()->second;
  }
  static bool has(world& sim, int epoch) { return run(sim).epochs.contains(epoch); }
  static bool has_final_model(world& sim) {
    const auto* file = run(sim).latest_file();
    return file && file->file_name == "best.pt" && file->saved;
  }
};

// A training in which everything that a session does is about to happen.
template <class Protocol>
struct training : world {
  using here = stage<Protocol>;
  using session_type = hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                                   hub::testing::virtual_sleeper, Protocol>;

  std::filesystem::path last = folder.write("last.pt", std::string(50'000, 'L'));
  std::filesystem::path best = folder.write("best.pt", std::string(60'000, 'B'));
  std::filesystem::path missing = folder / "missing.pt";
  hub::testing::fake_server& server = here::server(*this);
  hub::training_results results{.best_epoch = 3, .class_names = {"helmet", "head"}};
  std::optional<session_type> session;
  hub::delivery delivered = {};

  explicit training(const fault& meets, bool has_spool = false) {
    results.plots.f1_curve = {.x = {0, 1}, .y = {{0.5, 0.25}}};
    with.limits.train_end_deadline = 1min;  // a lane without memory tries again every second
    // On a real disk, whose calls need memory as well.
    if (has_spool) with.spool = {.directory = folder / "spool", .sync = hub::spool_sync::none};
    auto opening = here::opening(*this);
    session.emplace(std::move(opening), with, roomy_transport(server),
                    hub::testing::virtual_clock(time), hub::testing::virtual_sleeper(time));
    session->on_pretrain_routine_end();
    for (int epoch = 0; epoch < epochs_before; ++epoch)
      session->on_fit_epoch_end(epoch, {{"train/loss", epoch}});
    advance(15min);
    session->on_fit_epoch_end(epochs_before, {{"train/loss", epochs_before}});
    session->console("a line that was printed before\n");
    if (meets.kind != fault_kind::none) server.fail_next(meets, 2);
  }

  bool has(int epoch) { return here::has(*this, epoch); }
  bool has_final_model() { return here::has_final_model(*this); }
};

template <class Protocol>
struct verb {
  std::string name;
  std::function<void(training<Protocol>&)> call;
  bool hands_in_an_epoch = false;
  bool ends_training = false;  // so that nothing is sent any more
};

template <class Protocol>
const std::vector<verb<Protocol>> verbs = {
    {"on_pretrain_routine_end", [](auto& at) { at.session->on_pretrain_routine_end(); }},
    {"on_fit_epoch_end",
     [](auto& at) {
       at.session->on_fit_epoch_end(epoch_then, {{"train/loss", 1.5}, {"train/nan", std::nan("")}});
     },
     true},
    {"on_model_save", [](auto& at) { at.session->on_model_save(epoch_then, at.last, true); }},
    {"upload_model", [](auto& at) { at.session->upload_model(epoch_then, at.last, true); }},
    {"upload_model of no file",
     [](auto& at) { at.session->upload_model(epoch_then, at.missing, true); }},
    {"upload_metrics", [](auto& at) { at.session->upload_metrics(); }},
    {"flush", [](auto& at) { at.session->flush(1min); }},
    {"console", [](auto& at) { at.session->console("a line\nand another\n"); }},
    {"set_results", [](auto& at) { at.session->set_results(std::move(at.results)); }},
    {"status", [](auto& at) { static_cast<void>(at.session->status()); }},
    {"stop_heartbeat", [](auto& at) { at.session->stop_heartbeat(); }},
    {"on_train_end",
     [](auto& at) { at.delivered = at.session->on_train_end(epoch_then, at.best, 0.5); }, false,
     true},
    // What goes on in the background: heartbeats, metrics, a checkpoint.
    {"a quarter of an hour",
     [](auto& at) {
       at.session->on_model_save(epoch_then, at.last, true);
       at.advance(15min);
     }},
};

// With enough memory again everything goes on, and the account agrees with the HUB's.
template <class Protocol>
void check_what_follows(training<Protocol>& at, const verb<Protocol>& what) {
  at.advance(15min);
  at.session->on_fit_epoch_end(epoch_after, {{"train/loss", 2.5}});
  at.session->upload_model(epoch_after, at.last, false);
  at.advance(15min);
  const hub::delivery delivered = at.session->on_train_end(epoch_after, at.best, 0.5);
  const hub::session_status now = at.session->status();
  CHECK(now.epochs_accepted == now.epochs_delivered + now.epochs_set_aside);
  CHECK(now.console_lines_queued == 0);
  for (int epoch = 0; epoch <= epochs_before; ++epoch) CHECK(at.has(epoch));
  CHECK(at.has(epoch_after));
  CHECK(at.has_final_model());
  CHECK(delivered.complete() == (!what.hands_in_an_epoch || at.has(epoch_then)));
  CHECK((delivered.complete() || (delivered.why && !delivered.why->message.empty())));
}

// An end that did not come about is asked for again.
template <class Protocol>
void check_the_end(training<Protocol>& at, bool lasting) {
  CHECK((at.delivered.complete() || at.delivered.why));
  const bool said_complete =
      at.delivered.complete() || at.session->on_train_end(epoch_then, at.best, 0.5).complete();
  bool all = at.has_final_model();
  for (int epoch = 0; epoch <= epochs_before; ++epoch) all = all && at.has(epoch);
  CHECK((all || lasting));
  CHECK((all || !said_complete));
}

// Each allocation in the long variant, else every thirteenth: which of them differs from call to call.
const std::size_t step = hub_test::long_variant() ? 1 : 13;
std::size_t first_of_next() {
  static std::size_t calls = 0;
  return calls++ % step;
}

template <class Protocol>
void fail_each_allocation(const verb<Protocol>& what, bool lasting, const fault& meets,
                          bool has_spool = false) {
  std::size_t number = first_of_next();
  for (bool failed = true; failed; number += step) {
    INFO(what.name << ", allocation " << number << (lasting ? " and all after it" : " alone"));
    training<Protocol> at(meets, has_spool);
    failed = run_short_of_memory(number, lasting, [&] { what.call(at); });
    if (what.ends_training)
      check_the_end(at, lasting);
    else
      check_what_follows(at, what);
    REQUIRE(number < 20'000);
  }
}

template <class Protocol>
void fail_each_call(bool has_spool = false) {
  for (const verb<Protocol>& what : verbs<Protocol>)
    for (bool lasting : {false, true}) fail_each_allocation<Protocol>(what, lasting, {}, has_spool);
}

template <class Protocol>
void fail_while_the_server_fails() {
  const auto& all = verbs<Protocol>;
  for (const fault& meets : {fault{fault_kind::refused}, fault{fault_kind::status, 503}})
    for (const auto* what : {&all[all.size() - 2], &all.back()})
      fail_each_allocation<Protocol>(*what, false, meets);
}

template <class Protocol>
void fail_in_the_destructor() {
  for (bool lasting : {false, true}) {
    std::size_t number = first_of_next();
    for (bool failed = true; failed; number += step) {
      INFO("allocation " << number << (lasting ? " and all after it" : " alone"));
      training<Protocol> at({});
      failed = run_short_of_memory(number, lasting, [&] { at.session.reset(); });
      const std::size_t requests = at.server.requests().size();
      at.advance(15min);
      CHECK(at.server.requests().size() == requests);
      REQUIRE(number < 20'000);
    }
  }
}

}  // namespace

TEST_CASE("whichever allocation fails in a call, nothing escapes and nothing is lost in silence") {
  fail_each_call<hub::hub_v1>();
}

TEST_CASE("whichever allocation fails in a call on the Platform, nothing is lost in silence") {
  fail_each_call<hub::platform>();
}

TEST_CASE("whichever allocation fails in a call, a spool makes nothing worse") {
  fail_each_call<hub::hub_v1>(true);
  fail_each_call<hub::platform>(true);
}

TEST_CASE("whichever allocation fails while the server fails too, nothing is lost in silence") {
  fail_while_the_server_fails<hub::hub_v1>();
  fail_while_the_server_fails<hub::platform>();
}

TEST_CASE("whichever allocation fails in the destructor, it ends all that goes on") {
  fail_in_the_destructor<hub::hub_v1>();
  fail_in_the_destructor<hub::platform>();
}

TEST_CASE(
    "a run that is made while memory is short is the one that the next session goes on with") {
  using session_type = training<hub::platform>::session_type;
  std::size_t number = first_of_next();
  for (bool failed = true; failed; number += step) {
    INFO("allocation " << number);
    world sim;
    hub::platform_run run = stage<hub::platform>::opening(sim);
    run.resume = true;
    const auto disk = std::make_shared<hub::testing::crash_disk>();
    sim.with.spool = {.directory = "/spool", .storage = disk};
    const auto start = [&] {
      return std::make_unique<session_type>(run, sim.with, roomy_transport(sim.platform),
                                            hub::testing::virtual_clock(sim.time),
                                            hub::testing::virtual_sleeper(sim.time));
    };
    sim.platform.unreachable = true;
    auto session = start();
    session->on_fit_epoch_end(0, {{"train/loss", 1}});
    sim.platform.unreachable = false;
    failed = run_short_of_memory(number, false, [&] { sim.advance(15min); });
    sim.advance(15min);
    sim.crash(session, *disk);
    session = start();
    session->on_fit_epoch_end(1, {{"train/loss", 2}});
    CHECK(session->on_train_end(1, "", 0.5).complete());
    CHECK(sim.platform.models().size() == 1);
    CHECK(stage<hub::platform>::has(sim, 0));
    CHECK(stage<hub::platform>::has(sim, 1));
    REQUIRE(number < 20'000);
  }
}

TEST_CASE("whichever allocation fails at the start of a sleeper, it throws and nothing runs") {
  const hub::background_task task{"idle", [] { return hub::never; }};
  const auto start = [&](auto& sleeper, std::size_t number) {
    const std::vector<hub::background_task> tasks(3, task);
    bool thrown = false;
    const bool failed = run_short_of_memory(number, true, [&] {
      try {
        sleeper.start(tasks);
      } catch (const std::bad_alloc&) {
        thrown = true;
      }
    });
    CHECK(thrown == failed);
    return failed;
  };
  std::size_t number = 0;
  for (bool failed = true; failed; ++number) {
    hub::thread_sleeper sleeper;
    failed = start(sleeper, number);
  }
  CHECK(number > 5);
  number = 0;
  for (bool failed = true; failed; ++number) {
    hub::testing::timeline time;
    {
      hub::testing::virtual_sleeper sleeper(time);
      failed = start(sleeper, number);
    }
    time.advance(1h);
    CHECK(time.steps() == 0);
  }
  CHECK(number > 5);
}

TEST_CASE("a signal is handed on although memory ran out for whoever hears it first") {
  static std::atomic<bool> handed_on = false;
  std::atomic<bool> flushed = false;
  auto* const before = std::signal(SIGTERM, [](int) { handed_on = true; });
  auto& relay = hub::machine::signal_relay::instance();
  const std::size_t id = relay.subscribe([&](int) { flushed = true; }, 0s);
  is_tests_own = others_are_short = true;
  std::raise(SIGTERM);
  while (!handed_on) std::this_thread::yield();
  is_tests_own = others_are_short = false;
  relay.unsubscribe(id);
  CHECK_FALSE(flushed);
  std::signal(SIGTERM, before);
}
