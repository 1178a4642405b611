// SPDX-License-Identifier: MIT
//
// Where the tests of whole sessions play: virtual time, a HUB with one model, a folder. Whatever a
// test is about, at its end no key has been said and HUB was sent nothing that it had to refuse.

#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "../../hub_session.hpp"
#include "catch.hpp"
#include "scratch.hpp"
#include "statuses.hpp"
#include "text.hpp"

struct world : hub::testing::simulation {
  scratch_folder folder;
  std::string id = hub.add_model();
  hub::session_options with = options();
  hub::time_point beginning = time.now();
  bool may_repeat_after_the_end = false;  // on the Platform: power took the note that it has all

  world() { with.temp_folder = folder / "temp"; }
  ~world() {
    CHECK(hub.problems() == std::vector<std::string>());
    const std::vector<std::string> problems = platform.problems();
    if (!may_repeat_after_the_end) CHECK(problems == std::vector<std::string>());
    for (const std::string& line : log) CHECK(says_no_secret(line));
  }

  hub::testing::training_session start() { return simulation::start(id, with); }

  // Seconds from the beginning, of now and of each request to an endpoint.
  double now() const { return seconds(time.now()); }
  double seconds(hub::time_point when) const {
    return std::chrono::duration<double>(when - beginning).count();
  }
  std::vector<double> moments(hub::testing::endpoint which) const {
    std::vector<double> out;
    for (const hub::testing::seen_request& each : hub.requests())
      if (each.to == which) out.push_back(seconds(each.at));
    return out;
  }

  hub::testing::hub_model& model() { return hub.model(id); }
  std::vector<int> epochs_on_hub() {
    std::vector<int> out;
    for (const auto& [epoch, values] : model().metrics) out.push_back(epoch);
    return out;
  }

  bool said(std::string_view words) const { return lines_with(words) > 0; }
  std::size_t lines_with(std::string_view words) const {
    return static_cast<std::size_t>(std::count_if(
        log.begin(), log.end(), [&](const std::string& line) { return contains(line, words); }));
  }

  // The keys and tokens of these tests are rows of one letter.
  static bool says_no_secret(std::string_view text) {
    for (char c : {'k', 'z', 't', 'e'})
      if (contains(text, std::string(10, c))) return false;
    return !contains(text, "Signature");
  }
};

// The epochs from `first` to `last`.
inline std::vector<int> epochs(int first, int last) {
  std::vector<int> out;
  for (int epoch = first; epoch <= last; ++epoch) out.push_back(epoch);
  return out;
}

// A fake server's transport, but `script` may answer in its stead: for a HUB that looks at what it
// is sent. A copy shares the script.
class scripted_transport {
 public:
  using script = std::function<std::optional<hub::reply>(const hub::request&)>;

  scripted_transport(hub::testing::fake_server& to, script first)
      : server_(to), first_(std::move(first)) {}

  hub::reply send(const hub::request& what) {
    if (std::optional<hub::reply> own = first_(what)) return *std::move(own);
    return server_.send(what);
  }
  void cancel() noexcept { server_.cancel(); }

 private:
  hub::testing::fake_transport server_;
  script first_;
};

// Over an erased transport, whose sessions are compiled once, in sessions.cpp.
template <class Protocol>
using scripted_session_with =
    hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                hub::testing::virtual_sleeper, Protocol>;
using scripted_session = scripted_session_with<hub::hub_v1>;

inline scripted_session start_scripted(world& sim, scripted_transport::script script) {
  return scripted_session(sim.id, sim.with, scripted_transport(sim.hub, std::move(script)),
                          hub::testing::virtual_clock(sim.time),
                          hub::testing::virtual_sleeper(sim.time));
}

// A hundred epochs of a minute, with a checkpoint after each.
template <class Session>
hub::delivery train(world& sim, Session& session, int epoch_count = 100) {
  const auto last = sim.folder.write("last.pt", std::string(10'000, 'L'));
  const auto best = sim.folder.write("best.pt", std::string(20'000, 'B'));
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < epoch_count; ++epoch) {
    sim.advance(std::chrono::minutes(1));
    session.on_fit_epoch_end(epoch, {{"train/loss", 1.0 / (epoch + 1)}});
    session.on_model_save(epoch, last, epoch % 2 == 0);
  }
  return session.on_train_end(epoch_count - 1, best, 0.5);
}

// Everything that can be told of what a HUB saw.
using trace = std::vector<std::tuple<double, std::string, std::uint64_t, int>>;
inline trace trace_of(const world& sim) {
  trace out;
  for (const auto& each : sim.hub.requests())
    out.emplace_back(sim.seconds(each.at), each.method + " " + each.path, each.body_bytes,
                     each.status);
  return out;
}

inline hub::testing::fault answered(int status, std::string retry_after = "") {
  return {hub::testing::fault_kind::status, status, std::move(retry_after)};
}

// A fault for each kind and for each status that means something of its own, with its name.
struct named_fault {
  std::string name;
  hub::testing::fault what;
};

inline std::vector<named_fault> every_fault() {
  using hub::testing::fault_kind;
  constexpr std::array<const char*, 11> names = {
      "refused",    "reset_before_body", "reset_in_body", "reset_after_body",
      "reply_lost", "timed_out",         "drips",         "status",
      "html",       "truncated",         "wrong_types"};
  static_assert(hub::testing::all_faults.size() == names.size());
  std::vector<named_fault> out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const fault_kind kind = hub::testing::all_faults[i];
    if (kind != fault_kind::status) out.push_back({names[i], {kind}});
  }
  for (int status : {302, 400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504})
    out.push_back({"status " + std::to_string(status), {fault_kind::status, status}});
  out.push_back({"status 429, Retry-After 20", {fault_kind::status, 429, "20"}});
  return out;
}

// Such a fault is HUB's last word on this content.
inline bool ends_delivery(const hub::testing::fault& what) {
  using hub::testing::fault_kind;
  return what.kind == fault_kind::status &&
         verdict_of_status(what.status) == hub::verdict::rejected;
}
