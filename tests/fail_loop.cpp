// SPDX-License-Identifier: MIT
//
// The fail loop: each scenario runs again with its first request failing, then its second, then its
// third, until a run has no request of that number; for each kind of fault, once and three times in
// a row. Whatever fails, either the constructor throws what it documents, or afterwards everything
// that could be delivered is on the HUB, and the session's own account agrees with the HUB's.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/long_variant.hpp"
#include "support/statuses.hpp"
#include "support/world.hpp"

namespace fail_loop_tests {

namespace {

using namespace std::chrono_literals;
using hub::errc;
using hub::testing::content_hash;
using hub::testing::endpoint;
using hub::testing::fault;
using hub::testing::fault_kind;
using hub::testing::seen_request;

// What a scenario handed to its session, and what came of it.
struct course {
  std::optional<hub::error> thrown = {};
  hub::delivery delivered = {};
  hub::session_status status = {};
  int epoch_count = 0;
  bool checkpoint = false;
  bool final_model = false;
};

struct scenario {
  std::string name;
  std::function<void(world&, course&)> play;
};

const std::string last_weights(4'000, 'L');
const std::string best_weights(6'000, 'B');

// Epochs of four minutes, so that the fourth one's checkpoint is due, and time for three retries
// that are five minutes apart; a final model.
void train(world& sim, hub::testing::training_session& session, course& out) {
  session.on_pretrain_routine_end();
  const auto last = sim.folder.write("last.pt", last_weights);
  const auto best = sim.folder.write("best.pt", best_weights);
  for (out.epoch_count = 0; out.epoch_count < 8; ++out.epoch_count) {
    sim.advance(4min);
    session.on_fit_epoch_end(out.epoch_count, {{"train/loss", 10 - out.epoch_count}});
    session.on_model_save(out.epoch_count, last, false);
  }
  out.checkpoint = true;
  out.final_model = true;
  out.delivered = session.on_train_end(out.epoch_count - 1, best, 0.5);
  out.status = session.status();
}

void short_training(world& sim, course& out) {
  auto session = sim.start();
  train(sim, session, out);
}

// Fast epochs, in batches, behind a slow HUB; the end comes while things are on their way.
void hurried_training(world& sim, course& out) {
  sim.hub.latency = 900ms;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(1s);
  session.upload_model(0, sim.folder.write("last.pt", last_weights), true);
  for (out.epoch_count = 0; out.epoch_count < 40; ++out.epoch_count) {
    session.on_fit_epoch_end(out.epoch_count, {{"train/loss", 10 - out.epoch_count}});
    sim.advance(200ms);
  }
  out.final_model = true;
  out.delivered =
      session.on_train_end(out.epoch_count - 1, sim.folder.write("best.pt", best_weights), 0.5);
  out.status = session.status();
}

// A model that HUB has begun already, a saved key, a checkpoint straight from disk.
void resumed_training(world& sim, course& out) {
  sim.id = sim.hub.add_model({.state = hub::model_state::training});
  sim.with.snapshot = hub::snapshot::none;
  sim.with.credentials.settings_file =
      sim.folder.write("settings.json", nlohmann::json{{"api_key", sim.hub.api_key}}.dump());
  auto session = sim.start();
  CHECK(session.train_args().resume);
  train(sim, session, out);
}

// A run that HUB does not know yet, metrics only.
void created_training(world& sim, course& out) {
  sim.id = hub::testing::training_session::create_model(
      {.name = "spirals", .dataset = "coco8"}, sim.with, hub::testing::fake_transport(sim.hub),
      hub::testing::virtual_clock(sim.time), hub::testing::virtual_sleeper(sim.time));
  auto session = sim.start();
  session.on_pretrain_routine_end();
  for (out.epoch_count = 0; out.epoch_count < 5; ++out.epoch_count) {
    sim.advance(4min);
    session.on_fit_epoch_end(out.epoch_count, {{"train/loss", 10 - out.epoch_count}});
  }
  out.delivered = session.on_train_end(out.epoch_count - 1, "", 0);
  out.status = session.status();
}

const std::vector<scenario> scenarios = {{"short training", short_training},
                                         {"hurried training", hurried_training},
                                         {"resumed training", resumed_training},
                                         {"created training", created_training}};

// What the constructor or create_model throws where this fault meets its last try, or its only one.
errc documented(const fault& what, endpoint met) {
  using enum fault_kind;
  switch (what.kind) {
    case html:
    case truncated:
    case wrong_types: return errc::bad_reply;
    case timed_out:
    case drips: return errc::timed_out;
    case status: break;
    default: return errc::not_reachable;
  }
  switch (what.status) {
    case 400:
    case 413:
    case 422: return errc::rejected;
    case 401: return errc::not_authenticated;
    case 403: return met == endpoint::auth ? errc::not_authenticated : errc::access_denied;
    case 429: return errc::rate_limited;
    case 302:
    case 404: return errc::unexpected_status;
    default: return errc::server_error;
  }
}

bool is_start(const seen_request& seen) {
  return seen.to == endpoint::auth || seen.to == endpoint::model ||
         seen.to == endpoint::create_model;
}

// Whether a try at the start that meets this fault is followed by another.
bool passes_by(const fault& what) {
  using enum fault_kind;
  if (what.kind == html || what.kind == truncated || what.kind == wrong_types) return false;
  return what.kind != status || verdict_of_status(what.status) == hub::verdict::retry;
}

// HUB refused these for good: they count as done with.
std::size_t ended_deliveries(const world& sim, const fault& what, endpoint which) {
  if (!ends_delivery(what)) return 0;
  std::size_t count = 0;
  for (const seen_request& each : sim.hub.requests())
    if (each.to == which && each.fault == what.kind) ++count;
  return count;
}

void check_metrics(world& sim, const fault& what, const course& out) {
  const auto& arrived = sim.model().metrics;
  CHECK(out.delivered.epochs_queued == 0);
  CHECK(out.status.epochs_accepted == static_cast<std::size_t>(out.epoch_count));
  CHECK(out.delivered.epochs_delivered + out.delivered.epochs_set_aside ==
        static_cast<std::size_t>(out.epoch_count));
  for (const auto& [epoch, values] : arrived) CHECK(values.at("train/loss") == 10 - epoch);
  if (ended_deliveries(sim, what, endpoint::metrics) == 0) {
    CHECK(arrived.size() == static_cast<std::size_t>(out.epoch_count));
    CHECK(out.delivered.epochs_set_aside == 0);
  } else if (what.kind == fault_kind::status) {
    CHECK(arrived.size() + out.delivered.epochs_set_aside ==
          static_cast<std::size_t>(out.epoch_count));
    CHECK(out.delivered.epochs_set_aside <= ended_deliveries(sim, what, endpoint::metrics));
  }
}

void check_uploads(world& sim, const fault& what, const course& out) {
  std::size_t checkpoints = 0;
  for (const auto& each : sim.model().checkpoints) {
    CHECK(each.hash == content_hash(each.is_final ? best_weights : last_weights));
    if (!each.is_final) ++checkpoints;
  }
  CHECK(out.delivered.final_model_wanted == out.final_model);
  const bool ended = ended_deliveries(sim, what, endpoint::upload) > 0;
  CHECK(checkpoints >= out.delivered.checkpoints_delivered);
  CHECK(out.delivered.final_model_delivered == (sim.model().final_model() != nullptr));
  if (ended) return;
  if (out.checkpoint) CHECK(checkpoints >= 1);
  if (out.final_model) {
    REQUIRE_FALSE(sim.model().checkpoints.empty());
    CHECK(sim.model().checkpoints.back().is_final);
  }
}

// The request that met the fault last, of those that count.
const seen_request* last_met(const world& sim, const fault& what) {
  const seen_request* found = nullptr;
  for (const seen_request& each : sim.hub.requests())
    if (each.fault == what.kind) found = &each;
  return found;
}

// Plays the scenario with `times` faults from request `index` on. False where none of them was met.
bool play(const scenario& what, const fault& meets, std::size_t index, std::size_t times) {
  world sim;
  sim.with.limits.upload_deadline = 5min;  // else one that hangs takes all the time there is
  for (std::size_t i = 0; i < times; ++i) sim.hub.fail_at(index + i, meets);
  course out;
  try {
    what.play(sim, out);
  } catch (const hub::session_error& problem) {
    out.thrown = problem.error();
  }
  const seen_request* met = last_met(sim, meets);
  if (!met) {
    CHECK_FALSE(out.thrown);
    CHECK(out.delivered.complete());
    return false;
  }
  if (out.thrown) {
    CHECK(is_start(*met));
    CHECK_FALSE(passes_by(meets));
    CHECK(to_string(out.thrown->code) == to_string(documented(meets, *met->to)));
    CHECK_FALSE(out.thrown->message.empty());
    CHECK(world::says_no_secret(out.thrown->message));
    return true;
  }
  check_metrics(sim, meets, out);
  check_uploads(sim, meets, out);
  if (!ends_delivery(meets)) CHECK(out.delivered.complete());
  CHECK(sim.said("Done") == out.delivered.complete());
  CHECK(sim.said("Not everything arrived") == !out.delivered.complete());
  return true;
}

// Each request in the long variant, else every third: which third differs from fault to fault.
const std::size_t step = hub_test::long_variant() ? 1 : 3;

template <class Play>
void loop(const std::string& name, std::size_t times, Play play_once) {
  std::size_t faults = 0;
  for (const named_fault& each : every_fault()) {
    std::size_t index = faults++ % step;
    for (bool met = true; met; index += step) {
      INFO(name << ", " << times << " x " << each.name << " from request " << index << " on");
      met = play_once(each.what, index, times);
      REQUIRE(index < 1000);
    }
    CHECK(index > 5);
  }
}

void loop_all(std::size_t times) {
  for (const scenario& each : scenarios)
    loop(each.name, times, [&](const fault& meets, std::size_t index, std::size_t count) {
      return play(each, meets, index, count);
    });
}

// ---- on the Platform ----------------------------------------------------------------------------

constexpr int epochs_on_platform = 6;

// Epochs of four minutes that print a line each, a checkpoint that is due, results, a final model.
course train_on_platform(world& sim) {
  course out;
  hub::session_options with = sim.platform_options();
  with.temp_folder = sim.with.temp_folder;
  with.limits.upload_deadline = 5min;  // else one that hangs takes all the time there is
  try {
    auto session = sim.simulation::start(
        hub::platform_run{.project = "lab/helmets", .name = "nano", .epochs = epochs_on_platform},
        with);
    for (; out.epoch_count < epochs_on_platform; ++out.epoch_count) {
      sim.advance(4min);
      session.console("[2026] epoch " + std::to_string(out.epoch_count) + "\n");
      session.on_fit_epoch_end(out.epoch_count, {{"train/loss", 10 - out.epoch_count}});
      session.on_model_save(out.epoch_count, sim.folder.write("last.pt", last_weights), false);
    }
    session.set_results({.best_epoch = 3, .class_names = {"helmet"}});
    out.delivered =
        session.on_train_end(out.epoch_count - 1, sim.folder.write("best.pt", best_weights), 0.5);
    out.status = session.status();
  } catch (const hub::session_error& problem) {
    out.thrown = problem.error();
  }
  return out;
}

// The run that the session knows: one whose registration it did not hear of has nothing.
const hub::testing::platform_model& run_on(const world& sim) {
  REQUIRE_FALSE(sim.platform.models().empty());
  return sim.platform.models().rbegin()->second;
}

void check_whole_run(const world& sim, const course& out) {
  const hub::testing::platform_model& run = run_on(sim);
  CHECK(run.epochs.size() == epochs_on_platform);
  for (const auto& [epoch, data] : run.epochs)
    CHECK(data.at("metrics").at("train/loss") == 10 - epoch);
  std::string lines;
  std::uint64_t chunk = 0;
  for (const auto& [number, data] : run.console) {
    CHECK(number == ++chunk);
    lines += data.at("content").get<std::string>() + '\n';
  }
  std::string wanted;
  for (int epoch = 0; epoch < epochs_on_platform; ++epoch)
    wanted += "[2026] epoch " + std::to_string(epoch) + "\n";
  CHECK(lines == wanted);
  REQUIRE(run.latest_file());
  CHECK(run.latest_file()->content == best_weights);
  CHECK(run.latest_file()->saved);
  CHECK(run.state == hub::testing::platform_state::completed);
  CHECK(run.ending.at("results").at("bestEpoch") == 3);
  CHECK(run.ending.at("results").at("modelSize") == best_weights.size());
  CHECK(run.after_the_end == 0);
  CHECK(out.delivered.complete());
  for (const auto& [id, other] : sim.platform.models())
    CHECK((&other == &run || (other.epochs.empty() && other.console.empty())));
}

// What the Platform refused for good is missing, and is counted as missing.
void check_refused_run(const world& sim, const course& out) {
  const hub::testing::platform_model& run = run_on(sim);
  CHECK(run.epochs.size() == out.status.epochs_delivered);
  CHECK(out.status.epochs_delivered + out.status.epochs_set_aside == epochs_on_platform);
  // Without its final model a run is told as ended where the session ends.
  CHECK((!out.delivered.ending_delivered || run.state == hub::testing::platform_state::completed));
  CHECK(out.delivered.final_model_delivered ==
        (run.latest_file() && run.latest_file()->content == best_weights &&
         run.latest_file()->saved));
  CHECK(run.after_the_end == 0);
}

bool play_on_platform(const fault& meets, std::size_t index, std::size_t times) {
  world sim;
  for (std::size_t i = 0; i < times; ++i) sim.platform.fail_at(index + i, meets);
  const course out = train_on_platform(sim);
  const auto& seen = sim.platform.requests();
  const bool met = std::any_of(seen.begin(), seen.end(),
                               [&](const seen_request& each) { return each.fault == meets.kind; });
  if (out.thrown) {
    CHECK(seen.back().to == endpoint::training_started);
    CHECK(seen.back().fault == meets.kind);
    CHECK(to_string(out.thrown->code) == to_string(documented(meets, *seen.back().to)));
    CHECK(world::says_no_secret(out.thrown->message));
  } else if (ends_delivery(meets) && met) {
    check_refused_run(sim, out);
  } else {
    check_whole_run(sim, out);
  }
  return met;
}

}  // namespace

TEST_CASE("whichever request fails once, everything arrives or the constructor says why not") {
  loop_all(1);
}

TEST_CASE(
    "whichever three requests in a row fail, everything arrives or the constructor says why") {
  loop_all(3);
}

TEST_CASE("whichever request to the Platform fails, once or three times, everything arrives") {
  for (const std::size_t times : {std::size_t{1}, std::size_t{3}})
    loop("on the Platform", times, play_on_platform);
}

}  // namespace fail_loop_tests
