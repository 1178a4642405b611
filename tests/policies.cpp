// SPDX-License-Identifier: MIT
//
// Tests of the policies: archetypes, which have what the concepts ask for and nothing else, and
// what a session promises to policies and expects of them. What must not compile is in
// tests/compile_fail/.

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "support/world.hpp"

namespace policies_tests {

namespace {

using namespace std::chrono_literals;
using hub::errc;
using hub::testing::endpoint;

// ---- archetypes --------------------------------------------------------------------------------

// The bodies of a HUB that takes everything.
std::string hub_v1_body(const hub::request& what) {
  return what.url.ends_with("/auth") ? R"({"success": true})"
         : what.method == "GET"      ? R"({"data": {"data": "coco8", "status": "new"}})"
                                     : "{}";
}

// Where the archetypes live: a time, tasks, what was sent, and what is answered.
struct stage {
  struct task {
    hub::background_task what;
    hub::time_point due;
  };
  hub::time_point now = {};
  std::vector<task> tasks = {};
  std::vector<std::string> sent = {};
  std::string (*body_of)(const hub::request&) = &hub_v1_body;

  // Runs what is due by `until`, earliest first.
  void run(hub::time_point until, const std::function<bool()>& done) {
    while (!done()) {
      task* next = nullptr;
      for (task& each : tasks)
        if (each.due <= until && (!next || each.due < next->due)) next = &each;
      if (!next) break;
      now = std::max(now, next->due);
      next->due = hub::never;
      next->due = std::min(next->due, next->what.run());
    }
    if (!done()) now = std::max(now, until);
  }
};

// Can be copied, but neither moved into another nor made from nothing.
class minimal_transport {
 public:
  explicit minimal_transport(stage& where) : stage_(where) {}
  minimal_transport(const minimal_transport&) = default;
  minimal_transport& operator=(const minimal_transport&) = delete;

  hub::reply send(const hub::request& what) {
    stage_.sent.push_back(what.method + " " + what.url.substr(what.url.find('/', 8)));
    hub::reply out;
    out.status = 200;
    out.body = stage_.body_of(what);
    return out;
  }
  void cancel() noexcept {}

 private:
  stage& stage_;
};

class minimal_clock {
 public:
  explicit minimal_clock(const stage& where) : stage_(where) {}
  minimal_clock(const minimal_clock&) = default;
  minimal_clock& operator=(const minimal_clock&) = delete;

  hub::time_point now() const { return stage_.now; }
  std::chrono::system_clock::time_point wall_now() const { return {}; }

 private:
  const stage& stage_;
};

// Can be moved, but not copied, assigned or made from nothing.
class minimal_sleeper {
 public:
  static constexpr bool concurrent = false;

  explicit minimal_sleeper(stage& where) : stage_(where) {}
  minimal_sleeper(minimal_sleeper&&) = default;
  minimal_sleeper& operator=(minimal_sleeper&&) = delete;

  void start(std::vector<hub::background_task> tasks) {
    for (hub::background_task& each : tasks) stage_.tasks.push_back({std::move(each), stage_.now});
  }
  void wake(std::size_t task) noexcept { stage_.tasks[task].due = stage_.now; }
  bool wait_until(hub::time_point when, const std::function<bool()>& done) {
    stage_.run(when, done);
    return done();
  }
  void stop() { stage_.tasks.clear(); }

 private:
  stage& stage_;
};

// A protocol for a server that takes three calls and answers 200. To write one of your own, begin here.
struct minimal_protocol : hub::without<hub::registration_order>,
                          hub::without<hub::completion_order>,
                          hub::without<hub::console_order> {
  struct identity {
    std::string name;
  };
  struct run {
    std::string api = {};
    std::string key = {};
    std::string name = {};
  };
  struct news {};
  static constexpr std::string_view name = "minimal";
  static constexpr std::string_view spool_file = "minimal.txt";
  static constexpr hub::protocol_traits traits = {};

  static hub::result<run> identify(const identity& who, const hub::endpoint_options& at,
                                   const hub::variable_reader&) {
    return run{.api = at.api, .name = who.name};
  }
  static std::string credentials(const run& of) { return of.key; }
  static std::optional<hub::error> accept(run& of, hub::credential what) {
    of.key = std::move(what.key);
    return std::nullopt;
  }
  static hub::error no_key(const run&) { return {errc::not_authenticated, "There is no key."}; }
  static std::string key_page(const run&) { return {}; }

  static std::optional<hub::request> opening(const run&, const hub::progress&) {
    return std::nullopt;
  }
  static hub::outcome judge_opening(run&, const hub::progress&, const hub::reply&, hub::wall_time) {
    return {};
  }

  using without<hub::registration_order>::make;
  using without<hub::registration_order>::judge;
  using without<hub::completion_order>::make;
  using without<hub::completion_order>::judge;
  using without<hub::console_order>::make;
  using without<hub::console_order>::judge;
  static hub::request make(const run& of, const hub::life_order&, const hub::progress&,
                           const hub::sending&) {
    return call(of, "life");
  }
  static hub::request make(const run& of, const hub::epochs_order& what, const hub::progress&,
                           const hub::sending&) {
    hub::request out = call(of, "epochs");
    for (const hub::queued_epoch& each : what.batch) out.body += std::to_string(each.first) + "\n";
    return out;
  }
  static hub::request make(const run& of, const hub::upload_order&, const hub::progress&,
                           const hub::sending& with) {
    hub::request out = call(of, "upload");
    out.content = with.file;
    return out;
  }
  static hub::outcome judge(const run&, const hub::life_order&, const hub::progress&,
                            const hub::reply& answer, hub::wall_time, news&) {
    return came(answer);
  }
  static hub::outcome judge(const run&, const hub::epochs_order&, const hub::progress&,
                            const hub::reply& answer, hub::wall_time, news&) {
    return came(answer);
  }
  static hub::outcome judge(const run&, const hub::upload_order&, const hub::progress&,
                            const hub::reply& answer, hub::wall_time, news&) {
    return came(answer);
  }

  static void adopt(run&, news&&) {}
  static std::string page(const run&) { return {}; }
  static bool sends_file(const hub::progress&) { return true; }
  static std::string upload_name(const hub::upload_fields&) { return "weights"; }
  static std::string folder(const run& of, unsigned) { return of.name; }
  static bool resumes(const run&) { return false; }
  static std::string remember(const run& of) { return of.name; }
  static bool recall(run& of, std::string_view remembered) { return of.name == remembered; }

 private:
  static hub::request call(const run& of, const std::string& what) {
    hub::request out;
    out.method = "POST";
    out.url = of.api + "/v1/" + what;
    out.headers.emplace_back("x-key", of.key);
    return out;
  }
  static hub::outcome came(const hub::reply& answer) {
    if (answer.status == 200) return {};
    return {.verdict = hub::verdict::retry,
            .why = {errc::server_error, "The server did not answer 200."}};
  }
};

static_assert(hub::session_protocol<minimal_protocol>);
static_assert(hub::session_protocol<hub::hub_v1>);
static_assert(hub::session_protocol<hub::platform>);
static_assert(!hub::session_protocol<minimal_transport>);
static_assert(hub::http_transport<minimal_transport>);
static_assert(hub::monotonic_clock<minimal_clock>);
static_assert(hub::sleeper<minimal_sleeper>);

static_assert(hub::http_transport<hub::any_transport>);
static_assert(hub::http_transport<hub::testing::fake_transport>);
static_assert(hub::monotonic_clock<hub::steady_clock>);
static_assert(hub::monotonic_clock<hub::testing::virtual_clock>);
static_assert(hub::sleeper<hub::thread_sleeper>);
static_assert(hub::sleeper<hub::testing::virtual_sleeper>);

// A policy is not taken for one of another kind, nor is what is none at all.
static_assert(!hub::http_transport<minimal_clock>);
static_assert(!hub::monotonic_clock<minimal_sleeper>);
static_assert(!hub::sleeper<minimal_transport>);
static_assert(!hub::http_transport<int>);
static_assert(!hub::monotonic_clock<std::chrono::steady_clock>);
static_assert(!hub::sleeper<void*>);
static_assert(!std::is_constructible_v<hub::any_transport, minimal_clock>);
static_assert(std::is_nothrow_move_constructible_v<hub::any_transport>);

// Every combination is a session of its own type.
template <class Transport, class Clock, class Sleeper>
using session_on = hub::basic_training_session<Transport, Clock, Sleeper>;
static_assert(
    !std::is_copy_constructible_v<session_on<minimal_transport, minimal_clock, minimal_sleeper>>);
static_assert(std::is_base_of_v<hub::training_callbacks,
                                session_on<minimal_transport, minimal_clock, minimal_sleeper>>);

hub::session_options quiet_options() {
  hub::session_options out;
  out.endpoints = {.api = "https://api.hub.test", .web = "https://hub.test"};
  out.credentials.api_key = std::string(42, 'k');
  out.credentials.prompt = false;
  out.credentials.settings_file = "no-settings.json";
  out.retry.seed = 1;
  out.log = [](hub::log_level, std::string_view) {};
  out.progress = [](const hub::transfer_progress&) {};
  out.handle_signals = false;
  out.rank = 0;
  return out;
}

const std::string model_id(20, 'm');

template <class Session>
void play_lifecycle(stage& where, Session& session) {
  const scratch_folder folder;
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < 4; ++epoch) {
    where.run(where.now + 5min, [] { return false; });
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    session.on_model_save(epoch, folder.write("last.pt", "weights"), false);
  }
  where.run(where.now, [] { return false; });
  const hub::delivery delivered = session.on_train_end(3, folder.write("best.pt", "weights"), 0.5);
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 4);
  CHECK(delivered.checkpoints_delivered == 1);
  CHECK(delivered.final_model_delivered);
}

void check_lifecycle(const stage& where) {
  const auto count = [&](const std::string& call) {
    return std::count(where.sent.begin(), where.sent.end(), call);
  };
  CHECK(count("POST /v1/auth") == 1);
  CHECK(count("GET /v1/models/" + model_id) == 1);
  CHECK(count("POST /v1/agent/heartbeat/models/" + model_id) == 5);
  CHECK(count("POST /v1/models/" + model_id) == 4);
  CHECK(count("POST /v1/models/" + model_id + "/upload") == 2);
  CHECK(where.tasks.empty());
}

}  // namespace

TEST_CASE("a session runs with a protocol that has nothing but what the concept asks for") {
  stage where;
  {
    hub::basic_training_session<minimal_transport, minimal_clock, minimal_sleeper, minimal_protocol>
        session({"a-run"}, quiet_options(), minimal_transport(where), minimal_clock(where),
                minimal_sleeper(where));
    play_lifecycle(where, session);
  }
  const auto count = [&](const char* call) {
    return std::count(where.sent.begin(), where.sent.end(), call);
  };
  CHECK(count("POST /v1/life") == 5);
  CHECK(count("POST /v1/epochs") == 4);
  CHECK(count("POST /v1/upload") == 2);
  CHECK(where.tasks.empty());
}

TEST_CASE("a session runs on policies that have what the concepts ask for and nothing else") {
  stage where;
  {
    session_on<minimal_transport, minimal_clock, minimal_sleeper> session(
        model_id, quiet_options(), minimal_transport(where), minimal_clock(where),
        minimal_sleeper(where));
    play_lifecycle(where, session);
  }
  check_lifecycle(where);
}

TEST_CASE("a session on the Platform runs on policies that have nothing else as well") {
  stage where;
  where.body_of = [](const hub::request& what) -> std::string {
    if (what.url.ends_with("/models/upload")) return R"({"uploadUrl": "https://store.test/put"})";
    return what.method == "PUT" ? "" : R"({"received": true, "modelId": "m1", "runId": "r1"})";
  };
  hub::session_options options = quiet_options();
  options.endpoints = {.api = "https://platform.test/api/webhooks", .web = "https://platform.test"};
  options.credentials.api_key = "ul_" + std::string(40, 'a');
  {
    hub::basic_training_session<minimal_transport, minimal_clock, minimal_sleeper, hub::platform>
        session({.project = "helmets"}, options, minimal_transport(where), minimal_clock(where),
                minimal_sleeper(where));
    play_lifecycle(where, session);
  }
  CHECK(std::count(where.sent.begin(), where.sent.end(), "PUT /put") == 2);
  CHECK(where.tasks.empty());
}

TEST_CASE("a session over any_transport runs the same, whatever is in it") {
  stage where;
  {
    session_on<hub::any_transport, minimal_clock, minimal_sleeper> session(
        model_id, quiet_options(), minimal_transport(where), minimal_clock(where),
        minimal_sleeper(where));
    play_lifecycle(where, session);
  }
  check_lifecycle(where);
}

TEST_CASE("create_model runs on minimal policies") {
  stage where;
  CHECK_THROWS_AS((session_on<minimal_transport, minimal_clock, minimal_sleeper>::create_model(
                      {.name = "n", .dataset = "d"}, quiet_options(), minimal_transport(where),
                      minimal_clock(where), minimal_sleeper(where))),
                  hub::session_error);
  CHECK(where.sent == std::vector<std::string>{"POST /v1/auth", "POST /v1/models"});
}

// ---- any_transport -----------------------------------------------------------------------------

namespace {

// Says which copy it is, and whether it was cancelled, in its replies.
class labelled_transport {
 public:
  explicit labelled_transport(int& copies) : copies_(&copies), label_(++copies) {}
  labelled_transport(const labelled_transport& other)
      : copies_(other.copies_), label_(++*copies_) {}
  labelled_transport& operator=(const labelled_transport&) = delete;

  hub::reply send(const hub::request&) {
    hub::reply out;
    out.status = cancelled_ ? 499 : 200;
    out.body = std::to_string(label_);
    return out;
  }
  void cancel() noexcept { cancelled_ = true; }

 private:
  int* copies_;
  int label_;
  bool cancelled_ = false;
};

}  // namespace

TEST_CASE("a copy of any_transport is another transport, cancelled by itself") {
  int copies = 0;
  hub::any_transport first{labelled_transport(copies)};
  hub::any_transport second = first;
  CHECK(first.send({}).body != second.send({}).body);
  first.cancel();
  CHECK(first.send({}).status == 499);
  CHECK(second.send({}).status == 200);
}

TEST_CASE("moving and assigning any_transport moves what it holds, without another copy") {
  int copies = 0;
  hub::any_transport first{labelled_transport(copies)};
  hub::any_transport second{labelled_transport(copies)};
  const std::string label = first.send({}).body;
  const int before = copies;
  hub::any_transport moved = std::move(first);
  CHECK(moved.send({}).body == label);
  second = std::move(moved);
  CHECK(second.send({}).body == label);
  CHECK(copies == before);
  moved = second;
  CHECK(copies > before);
  CHECK(moved.send({}).body != second.send({}).body);
}

// ---- what a session promises its policies ------------------------------------------------------

namespace {

// Passes on to the fake HUB and keeps count: which copy sent what, and whether one was asked for a
// second request before the first was answered, which on virtual time is when its latency is over.
struct usage {
  int copies = 0;
  std::map<int, std::set<endpoint>> sent_by = {};
  std::map<int, hub::time_point> busy_until = {};
  int overlaps = 0;
  int cancelled = 0;
  int sent_after_cancel = 0;
};

class counted_transport {
 public:
  counted_transport(world& sim, usage& count)
      : sim_(sim), hub_(sim.hub), count_(count), label_(++count.copies) {}
  counted_transport(const counted_transport& other)
      : sim_(other.sim_),
        hub_(other.sim_.hub),
        count_(other.count_),
        label_(++other.count_.copies) {}

  hub::reply send(const hub::request& what) {
    if (cancelled_) ++count_.sent_after_cancel;
    if (sim_.time.now() < count_.busy_until[label_]) ++count_.overlaps;
    hub::reply out = hub_.send(what);
    if (!sim_.hub.requests().empty())
      if (const auto to = sim_.hub.requests().back().to) count_.sent_by[label_].insert(*to);
    count_.busy_until[label_] = sim_.time.now() + out.latency;
    return out;
  }
  void cancel() noexcept {
    cancelled_ = true;
    ++count_.cancelled;
    hub_.cancel();
  }

 private:
  world& sim_;
  hub::testing::fake_transport hub_;
  usage& count_;
  int label_;
  bool cancelled_ = false;
};

using counted_session =
    session_on<counted_transport, hub::testing::virtual_clock, hub::testing::virtual_sleeper>;

}  // namespace

TEST_CASE("each lane sends on a transport of its own, one request at a time") {
  world sim;
  sim.hub.latency = 2s;
  sim.hub.fail_randomly(0.2, 4);
  sim.hub.fail_at(0, {});
  sim.hub.fail_at(1, {});
  usage count;
  const auto last = sim.folder.write("last.pt", "weights");
  counted_session session(sim.id, sim.with, counted_transport(sim, count),
                          hub::testing::virtual_clock(sim.time),
                          hub::testing::virtual_sleeper(sim.time));
  for (int epoch = 0; epoch < 100; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    session.on_model_save(epoch, last, false);
    sim.advance(20s);
  }
  CHECK(count.overlaps == 0);
  for (const auto& [label, calls] : count.sent_by) {
    int lanes = 0;
    for (endpoint each : {endpoint::heartbeat, endpoint::metrics, endpoint::upload})
      lanes += calls.count(each) > 0 ? 1 : 0;
    CHECK(lanes <= 1);
  }
  CHECK(sim.hub.count(endpoint::upload) > 0);
}

TEST_CASE("a transport that was cancelled is not sent on again; a fresh copy takes its place") {
  world sim;
  sim.hub.latency_per_upload_byte = 1s;
  usage count;
  const auto last = sim.folder.write("last.pt", std::string(1000, 'L'));
  const auto best = sim.folder.write("best.pt", "weights");
  counted_session session(sim.id, sim.with, counted_transport(sim, count),
                          hub::testing::virtual_clock(sim.time),
                          hub::testing::virtual_sleeper(sim.time));
  session.on_pretrain_routine_end();
  sim.advance(15min);
  session.on_model_save(0, last, false);
  sim.advance(1s);
  CHECK(session.on_train_end(0, best, 0.5).complete());
  CHECK(count.cancelled == 1);
  CHECK(count.sent_after_cancel == 0);
}

TEST_CASE("what is still on its way when the session ends is cancelled") {
  world sim;
  usage count;
  {
    counted_session session(sim.id, sim.with, counted_transport(sim, count),
                            hub::testing::virtual_clock(sim.time),
                            hub::testing::virtual_sleeper(sim.time));
    sim.advance(1s);
    sim.hub.latency = 20s;
    session.on_fit_epoch_end(0, {{"a", 1}});
    sim.advance(5s);
    CHECK(count.cancelled == 0);
  }
  CHECK(count.cancelled == 1);
}

// ---- policies that throw -----------------------------------------------------------------------

TEST_CASE("a transport that throws during training loses nothing and ends nothing") {
  world sim;
  int left = 0;
  auto session = start_scripted(sim, [&](const hub::request&) -> std::optional<hub::reply> {
    if (left > 0 && left-- % 2 == 0) throw std::runtime_error("transport");
    if (left > 0) throw 42;
    return std::nullopt;
  });
  session.on_pretrain_routine_end();
  sim.advance(15min);
  left = 10;
  session.on_fit_epoch_end(0, {{"a", 1}});
  session.on_model_save(0, sim.folder.write("last.pt", "weights"), false);
  sim.advance(1s);
  REQUIRE(session.status().unanswered_why);
  CHECK(session.status().unanswered_why->code == errc::internal_error);
  sim.advance(1h);
  CHECK(sim.epochs_on_hub() == epochs(0, 0));
  CHECK(sim.model().checkpoints.size() == 1);
  CHECK(sim.model().connected(sim.time.now()));
}

TEST_CASE("a transport that throws at the start is a session_error like any other") {
  const auto start = [](world& sim, scripted_transport::script script) {
    try {
      auto session = start_scripted(sim, std::move(script));
      return std::string("started");
    } catch (const hub::session_error& problem) {
      return std::string(to_string(problem.code()));
    } catch (...) {
      return std::string("something else");
    }
  };
  world sim;
  CHECK(start(sim, [](const hub::request&) -> std::optional<hub::reply> {
          throw std::runtime_error("transport");
        }) == "internal_error");
  int left = 2;
  CHECK(start(sim, [&](const hub::request&) -> std::optional<hub::reply> {
          if (left-- > 0) throw 42;
          return std::nullopt;
        }) == "started");
}

namespace {

// A sleeper that cannot wait.
class broken_sleeper {
 public:
  static constexpr bool concurrent = false;
  explicit broken_sleeper(hub::testing::timeline& time) : time_(time) {}

  void start(std::vector<hub::background_task> tasks) { time_.start(std::move(tasks)); }
  void wake(std::size_t task) noexcept { time_.wake(task); }
  bool wait_until(hub::time_point, const std::function<bool()>& done) {
    if (done()) return true;
    throw std::runtime_error("the sleeper is broken");
  }
  void stop() { time_.stop(); }

 private:
  hub::testing::virtual_sleeper time_;
};

}  // namespace

TEST_CASE("where a policy throws, on_train_end and flush do not say that all is delivered") {
  world sim;
  session_on<hub::testing::fake_transport, hub::testing::virtual_clock, broken_sleeper> session(
      sim.id, sim.with, hub::testing::fake_transport(sim.hub),
      hub::testing::virtual_clock(sim.time), broken_sleeper(sim.time));
  session.on_fit_epoch_end(0, {{"a", 1}});
  CHECK_FALSE(session.flush(1min).complete());
  CHECK(sim.said("the sleeper is broken"));
  const hub::delivery delivered =
      session.on_train_end(0, sim.folder.write("best.pt", "weights"), 0.5);
  CHECK_FALSE(delivered.complete());
  CHECK_FALSE(delivered.final_model_delivered);
  CHECK(delivered.why);
}

}  // namespace policies_tests
