// SPDX-License-Identifier: MIT
//
// Tests of what a session reports while it trains, and when: heartbeats, its status, metrics, and the
// pace of all of them. Virtual time, as in tests/session.cpp; times are in seconds from the script's
// beginning.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "support/world.hpp"

namespace session_reports_tests {

namespace {

using namespace std::chrono_literals;
using hub::errc;
using hub::testing::endpoint;
using hub::testing::fault;
using hub::testing::fault_kind;
using hub::testing::http_date;
using nlohmann::json;

// The distances from one moment to the next, rounded to a microsecond.
std::vector<double> gaps(const std::vector<double>& moments) {
  std::vector<double> out;
  for (std::size_t i = 1; i < moments.size(); ++i)
    out.push_back(std::round((moments[i] - moments[i - 1]) * 1e6) / 1e6);
  return out;
}
double shortest_gap(const std::vector<double>& moments) {
  const std::vector<double> all = gaps(moments);
  return all.empty() ? std::numeric_limits<double>::infinity()
                     : *std::min_element(all.begin(), all.end());
}
double longest_gap(const std::vector<double>& moments) {
  const std::vector<double> all = gaps(moments);
  return all.empty() ? 0 : *std::max_element(all.begin(), all.end());
}

// The epochs that a metrics request holds, in the order in which it holds them.
std::vector<int> epochs_in(const hub::request& what) {
  std::vector<int> out;
  const auto body = nlohmann::ordered_json::parse(what.body);
  for (const auto& [epoch, values] : body.at("metrics").items()) out.push_back(std::stoi(epoch));
  return out;
}

bool carries_metrics(const hub::request& what) {
  return contains(what.body, "\"type\": \"metrics\"");
}
bool is_heartbeat(const hub::request& what) { return contains(what.url, "/heartbeat/"); }

}  // namespace

// ---- heartbeats ---------------------------------------------------------------------------------

TEST_CASE("a heartbeat goes out at once and then every five minutes") {
  world sim;
  auto session = sim.start();
  sim.advance(20min);
  CHECK(sim.moments(endpoint::heartbeat) == std::vector<double>{0, 300, 600, 900, 1200});
  CHECK(session.status().heartbeats_answered == 5);
}

TEST_CASE("heartbeats keep their rhythm however long their replies take") {
  world sim;
  sim.hub.latency = 25s;
  auto session = sim.start();
  const double first = sim.now();
  sim.advance(20min);
  CHECK(sim.moments(endpoint::heartbeat) ==
        std::vector<double>{first, first + 300, first + 600, first + 900, first + 1200});
}

TEST_CASE("the agent id that HUB gives is sent back from then on, and a new one replaces it") {
  world sim;
  std::vector<json> sent;
  bool renamed = false;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!is_heartbeat(what)) return std::nullopt;
    sent.push_back(json::parse(what.body).at("agentId"));
    if (sent.size() != 3) return std::nullopt;
    renamed = true;
    return hub::reply{.status = 200, .body = R"({"data": {"agentId": "renamed"}})"};
  });
  sim.advance(10min);
  CHECK(session.status().agent_id == "renamed");
  sim.advance(10min);
  CHECK(sent == std::vector<json>{nullptr, "agent-1", "agent-1", "renamed", "renamed"});
}

TEST_CASE("an answer without an agent id changes nothing") {
  world sim;
  std::vector<json> sent;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!is_heartbeat(what)) return std::nullopt;
    sent.push_back(json::parse(what.body).at("agentId"));
    if (sent.size() == 1) return std::nullopt;
    return hub::reply{.status = 200, .body = sent.size() == 2 ? "{}" : R"({"data": null})"};
  });
  sim.advance(15min);
  CHECK(sent == std::vector<json>{nullptr, "agent-1", "agent-1", "agent-1"});
  CHECK(session.status().heartbeats_answered == 4);
}

TEST_CASE("heartbeats survive every kind of fault, with backoff") {
  for (const named_fault& each : every_fault()) {
    INFO(each.name);
    world sim;
    auto session = sim.start();
    sim.advance(301s);
    const std::string agent = session.status().agent_id;
    sim.hub.fail_next(endpoint::heartbeat, each.what, 2);
    sim.advance(20min);
    CHECK(longest_gap(sim.moments(endpoint::heartbeat)) <= 300);
    CHECK(sim.model().connected(sim.time.now()));
    CHECK(session.status().agent_id == agent);
    CHECK(sim.model().heartbeats.back().agent_id == agent);
    CHECK_FALSE(session.status().unanswered_since);
    CHECK(sim.hub.count(endpoint::heartbeat) >= 6);
  }
}

TEST_CASE("a beat that failed is tried again after a second at most, then two, then four") {
  world sim;
  sim.with.retry.jitter = false;
  sim.hub.fail_next(endpoint::heartbeat, answered(503), 4);
  auto session = sim.start();
  sim.advance(10min);
  CHECK(sim.moments(endpoint::heartbeat) == std::vector<double>{0, 1, 3, 7, 15, 315});
}

TEST_CASE("no heartbeat is more than the interval behind the last one in ten hours of faults") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    world sim;
    sim.with.retry.seed = seed;
    sim.hub.latency = 300ms;
    auto session = sim.start();
    sim.hub.fail_randomly(0.6, seed);
    sim.advance(10h);
    sim.hub.no_more_faults();
    CHECK(longest_gap(sim.moments(endpoint::heartbeat)) <= 300);
    CHECK(sim.hub.count(endpoint::heartbeat) < 600);
    sim.advance(5min);
    CHECK(sim.model().connected(sim.time.now()));
  }
}

TEST_CASE("HUB shows a training as disconnected in an outage, and as connected soon after") {
  world sim;
  auto session = sim.start();
  sim.hub.outage(1min, 4h);
  sim.advance(15min);
  CHECK(sim.model().connected(sim.time.now()));
  sim.advance(1s);
  CHECK_FALSE(sim.model().connected(sim.time.now()));
  sim.advance(4h - 15min - 1s);
  CHECK_FALSE(sim.model().connected(sim.time.now()));
  sim.advance(5min);
  CHECK(sim.model().connected(sim.time.now()));
}

TEST_CASE("a key that HUB quotes is hidden, wherever HUB's words are cut") {
  for (std::size_t lead = 0; lead < 260; ++lead) {
    world sim;
    auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
      if (!carries_metrics(what)) return std::nullopt;
      return hub::reply{.status = 422,
                        .body = "{\"message\": \"" + std::string(lead, 'x') +
                                hub::testing::fake_hub::api_key + "\"}"};
    });
    session.on_fit_epoch_end(0, {{"a", 1}});
    sim.advance(10s);
    REQUIRE(session.status().epochs_set_aside == 1);
    for (const std::string& line : sim.log)
      if (line.find("kkkk") != std::string::npos) FAIL_CHECK("after " << lead << ": " << line);
  }
}

TEST_CASE("stop_heartbeat stops the heartbeat and nothing else") {
  world sim;
  auto session = sim.start();
  sim.advance(6min);
  session.stop_heartbeat();
  sim.advance(1h);
  CHECK(sim.moments(endpoint::heartbeat) == std::vector<double>{0, 300});
  CHECK_FALSE(sim.model().connected(sim.time.now()));
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(10s);
  CHECK(sim.epochs_on_hub() == epochs(0, 0));
}

TEST_CASE("a HUB that is slower than a request may take counts as one that does not answer") {
  world sim;
  auto session = sim.start();
  sim.hub.latency = 40s;
  sim.advance(10min);
  CHECK(session.status().heartbeats_answered == 0);
  REQUIRE(session.status().unanswered_since);
  CHECK(sim.seconds(*session.status().unanswered_since) == 30);
  CHECK(session.status().unanswered_why->code == errc::timed_out);
}

// ---- status -------------------------------------------------------------------------------------

TEST_CASE("status tells since when HUB has not answered, and why") {
  world sim;
  auto session = sim.start();
  sim.advance(1min);
  CHECK_FALSE(session.status().unanswered_since);
  CHECK_FALSE(session.status().unanswered_why);
  CHECK(session.status().agent_id == "agent-1");

  sim.hub.outage(1min, 2h);
  sim.advance(1h);
  const hub::session_status during = session.status();
  REQUIRE(during.unanswered_since);
  CHECK(sim.seconds(*during.unanswered_since) == 300);
  REQUIRE(during.unanswered_why);
  CHECK(during.unanswered_why->code == errc::not_reachable);
  CHECK_FALSE(during.unanswered_why->message.empty());

  sim.advance(2h);
  CHECK_FALSE(session.status().unanswered_since);
  CHECK_FALSE(session.status().unanswered_why);
}

TEST_CASE("status tells of every kind of answer to a heartbeat that is none") {
  using enum fault_kind;
  const std::map<fault_kind, errc> codes = {{refused, errc::not_reachable},
                                            {reset_before_body, errc::not_reachable},
                                            {reset_in_body, errc::not_reachable},
                                            {reset_after_body, errc::not_reachable},
                                            {reply_lost, errc::not_reachable},
                                            {timed_out, errc::timed_out},
                                            {drips, errc::timed_out},
                                            {html, errc::bad_reply},
                                            {truncated, errc::bad_reply},
                                            {wrong_types, errc::bad_reply}};
  const std::map<int, errc> statuses = {{302, errc::unexpected_status}, {400, errc::rejected},
                                        {401, errc::not_authenticated}, {403, errc::access_denied},
                                        {404, errc::unexpected_status}, {408, errc::server_error},
                                        {413, errc::rejected},          {422, errc::rejected},
                                        {429, errc::rate_limited},      {500, errc::server_error},
                                        {502, errc::server_error},      {503, errc::server_error},
                                        {504, errc::server_error}};
  for (const named_fault& each : every_fault()) {
    INFO(each.name);
    world sim;
    auto session = sim.start();
    sim.advance(1s);
    sim.hub.fail_next(endpoint::heartbeat, each.what, 1000);
    sim.advance(20min);
    const hub::session_status now = session.status();
    CHECK(now.heartbeats_answered == 1);
    CHECK(sim.log.size() == 1);
    CHECK(now.unanswered_since);
    CHECK(now.unanswered_why);
    if (!now.unanswered_since || !now.unanswered_why) continue;
    CHECK(sim.seconds(*now.unanswered_since) >= 300);
    CHECK(sim.seconds(*now.unanswered_since) <= 330);
    const errc expected =
        each.what.kind == status ? statuses.at(each.what.status) : codes.at(each.what.kind);
    CHECK(to_string(now.unanswered_why->code) == to_string(expected));
  }
}

TEST_CASE("what was accepted is delivered, queued or set aside, at every moment") {
  world sim;
  auto session = sim.start();
  sim.hub.fail_randomly(0.5, 3);
  for (int epoch = 0; epoch < 300; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    sim.advance(7s);
    const hub::session_status now = session.status();
    REQUIRE(now.epochs_accepted == static_cast<std::size_t>(epoch) + 1);
    REQUIRE(now.epochs_accepted == now.epochs_delivered + now.epochs_queued + now.epochs_set_aside);
  }
}

TEST_CASE("an outage of ten hours is said in a few lines") {
  world sim;
  auto session = sim.start();
  sim.hub.outage(5min, 10h);
  for (int epoch = 0; epoch < 660; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    sim.advance(1min);
  }
  CHECK(sim.epochs_on_hub() == epochs(0, 659));
  CHECK(sim.said("The server answers again"));
  CHECK(sim.log.size() <= 6);
}

// ---- metrics ------------------------------------------------------------------------------------

TEST_CASE("the first metrics leave three seconds after training started, not before") {
  world sim;
  auto session = sim.start();
  sim.advance(10s);
  session.on_pretrain_routine_end();
  sim.advance(1s);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1min);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{13});
}

TEST_CASE("an epoch that comes after a pause leaves at once") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(1min);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1min);
  session.on_fit_epoch_end(1, {{"a", 1}});
  sim.advance(1min);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{60, 120});
}

TEST_CASE("fast epochs leave together, every three seconds") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < 100; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
    sim.advance(100ms);
  }
  sim.advance(3s);
  CHECK(sim.moments(endpoint::metrics) == std::vector<double>{3, 6, 9, 12});
  CHECK(sim.epochs_on_hub() == epochs(0, 99));
}

TEST_CASE("metrics are not sent faster than their limit, whatever the faults and latencies") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    world sim;
    sim.with.retry.seed = seed;
    sim.hub.latency = std::chrono::milliseconds(seed * 500);
    auto session = sim.start();
    sim.hub.fail_randomly(0.4, seed);
    for (int epoch = 0; epoch < 200; ++epoch) {
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(std::chrono::milliseconds(500 + 37 * epoch));
    }
    CHECK(shortest_gap(sim.moments(endpoint::metrics)) >= 3);
  }
}

TEST_CASE("an outage loses nothing: what waited leaves in one go, in order") {
  world sim;
  std::vector<std::vector<int>> batches;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (carries_metrics(what)) batches.push_back(epochs_in(what));
    return std::nullopt;
  });
  sim.hub.outage(10min, 40min);
  for (int epoch = 0; epoch < 60; ++epoch) {
    session.on_fit_epoch_end(epoch, {{"train/loss", 60 - epoch}});
    sim.advance(1min);
  }
  CHECK(sim.epochs_on_hub() == epochs(0, 59));
  for (const auto& [epoch, values] : sim.model().metrics)
    CHECK(values.at("train/loss") == 60 - epoch);
  for (const std::vector<int>& batch : batches) CHECK(std::is_sorted(batch.begin(), batch.end()));
  const auto longest = std::max_element(batches.begin(), batches.end(),
                                        [](auto& a, auto& b) { return a.size() < b.size(); });
  CHECK(longest->size() >= 30);
  CHECK(longest->front() == 10);
  CHECK(session.status().epochs_delivered == 60);
  CHECK(session.status().epochs_queued == 0);
}

TEST_CASE("no kind of fault loses an epoch or puts two out of order") {
  for (const named_fault& each : every_fault()) {
    if (ends_delivery(each.what)) continue;
    INFO(each.name);
    world sim;
    sim.hub.latency = 700ms;
    int newest = -1;
    bool ordered = true;
    auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
      if (!carries_metrics(what)) return std::nullopt;
      const std::vector<int> batch = epochs_in(what);
      ordered =
          ordered && std::is_sorted(batch.begin(), batch.end()) && batch.front() <= newest + 1;
      newest = std::max(newest, batch.back());
      return std::nullopt;
    });
    for (int epoch = 0; epoch < 20; ++epoch) {
      if (epoch % 5 == 2) sim.hub.fail_next(endpoint::metrics, each.what, 2);
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(4s);
    }
    sim.advance(2h);
    CHECK(ordered);
    CHECK(sim.epochs_on_hub() == epochs(0, 19));
    CHECK(session.status().epochs_delivered == 20);
    CHECK(session.status().epochs_set_aside == 0);
  }
}

TEST_CASE("the last value of an epoch wins, also where another one is on its way") {
  world sim;
  sim.hub.latency = 2s;
  auto session = sim.start();
  session.on_fit_epoch_end(0, {{"a", 1}});
  session.on_fit_epoch_end(0, {{"a", 2}, {"b", 2}});
  sim.advance(4s);
  CHECK(sim.hub.count(endpoint::metrics) == 1);
  session.on_fit_epoch_end(0, {{"a", 3}});
  sim.advance(1min);
  CHECK(sim.model().metrics.at(0).dump() == R"({"a":3})");
  CHECK(sim.hub.count(endpoint::metrics) == 2);
  const hub::session_status now = session.status();
  CHECK(now.epochs_accepted == now.epochs_delivered);
  CHECK(now.epochs_queued == 0);
}

TEST_CASE("an old value that failed does not come back over a newer one") {
  world sim;
  sim.hub.fail_next(endpoint::metrics, {fault_kind::reply_lost});
  auto session = sim.start();
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(3s);
  session.on_fit_epoch_end(0, {{"a", 2}});
  sim.advance(1min);
  CHECK(sim.model().metrics.at(0).dump() == R"({"a":2})");
}

TEST_CASE("what waited long goes out in bounded batches at the usual pace") {
  world sim;
  sim.hub.outage(0s, 1h);
  std::vector<std::size_t> sizes;
  sim.hub.no_more_faults();
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!carries_metrics(what)) return std::nullopt;
    if (sim.now() < 3600) return hub::reply{.status = 503};
    sizes.push_back(epochs_in(what).size());
    return std::nullopt;
  });
  for (int epoch = 0; epoch < 250; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
  sim.advance(2h);
  CHECK(sizes == std::vector<std::size_t>{100, 100, 50});
  CHECK(shortest_gap(sim.moments(endpoint::metrics)) >= 3);
  CHECK(sim.epochs_on_hub() == epochs(0, 249));
}

TEST_CASE("a batch is bounded in bytes, and still takes an epoch that is larger alone") {
  world sim;
  sim.with.limits.metrics_batch_bytes_max = 4000;
  std::vector<std::size_t> sizes;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (carries_metrics(what)) {
      sizes.push_back(epochs_in(what).size());
      if (sizes.back() > 1) CHECK(what.body.size() < 8000);
    }
    return std::nullopt;
  });
  const std::string name(400, 'n');
  for (int epoch = 0; epoch < 50; ++epoch) session.on_fit_epoch_end(epoch, {{name, epoch}});
  const std::string huge(10'000, 'h');
  session.on_fit_epoch_end(50, {{huge, 50}});
  session.on_fit_epoch_end(51, {{name, 51}});
  sim.advance(1h);
  CHECK(sim.epochs_on_hub() == epochs(0, 51));
  CHECK(sizes.size() >= 7);
  CHECK(*std::max_element(sizes.begin(), sizes.end()) < 12);
}

TEST_CASE("a queue that is full sets the oldest epochs aside, counts them and says it once") {
  world sim;
  sim.with.limits.metrics_queue_bytes_max = 20'000;
  auto session = sim.start();
  sim.hub.outage(0s, 1h);
  const std::string name(500, 'n');
  for (int epoch = 0; epoch < 100; ++epoch) {
    session.on_fit_epoch_end(epoch, {{name, epoch}});
    sim.advance(10s);
  }
  const hub::session_status full = session.status();
  CHECK(full.epochs_accepted == 100);
  CHECK(full.epochs_queued < 40);
  CHECK(full.epochs_queued + full.epochs_set_aside == 100);
  CHECK(sim.lines_with("queue is full") == 1);
  sim.advance(2h);
  CHECK(sim.epochs_on_hub() == epochs(static_cast<int>(full.epochs_set_aside), 99));
  const hub::delivery delivered = session.on_train_end(99, "", 0);
  CHECK_FALSE(delivered.complete());
  CHECK(delivered.epochs_set_aside == full.epochs_set_aside);
  REQUIRE(delivered.why);
  CHECK(delivered.why->code == errc::queue_full);
}

TEST_CASE("NaN and infinities arrive as null, and the log says so once") {
  world sim;
  auto session = sim.start();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinite = std::numeric_limits<double>::infinity();
  session.on_fit_epoch_end(0, {{"a", nan}, {"b", infinite}, {"c", -infinite}, {"d", 4}});
  for (int epoch = 1; epoch < 10; ++epoch) session.on_fit_epoch_end(epoch, {{"a", nan}});
  sim.advance(1min);
  CHECK(sim.model().metrics.at(0).dump() == R"({"a":null,"b":null,"c":null,"d":4})");
  CHECK(sim.model().metrics.at(9).dump() == R"({"a":null})");
  CHECK(sim.lines_with("NaN") == 1);
  CHECK(sim.lines_with("epoch 0") == 1);
  CHECK(session.on_train_end(9, "", 0).complete());
}

TEST_CASE("metrics with names and numbers of every kind arrive as they were") {
  world sim;
  auto session = sim.start();
  session.on_fit_epoch_end(-3, {});
  session.on_fit_epoch_end(7, {{"metrics/mAP50-95(B)", 0.1},
                               {"quote\" slash\\ tab\t", 1e-300},
                               {"größe", -0.0},
                               {"", 1.7976931348623157e308}});
  sim.advance(1min);
  CHECK(sim.model().metrics.at(-3).dump() == "{}");
  const json& values = sim.model().metrics.at(7);
  CHECK(values.at("metrics/mAP50-95(B)") == 0.1);
  CHECK(values.at("quote\" slash\\ tab\t") == 1e-300);
  CHECK(std::signbit(values.at("größe").get<double>()));
  CHECK(values.at("") == 1.7976931348623157e308);
}

TEST_CASE("an epoch that HUB refuses for good is found, set aside, counted and said") {
  for (int refusal : {400, 413, 422}) {
    INFO("status " << refusal);
    for (const std::set<int>& culprits : {std::set<int>{0}, std::set<int>{7}, std::set<int>{99},
                                          std::set<int>{3, 4, 50}, std::set<int>{0, 31, 62, 93}}) {
      world sim;
      bool refusing = true;
      auto session =
          start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
            if (!refusing || !carries_metrics(what)) return std::nullopt;
            for (int epoch : epochs_in(what))
              if (culprits.count(epoch) > 0) return hub::reply{.status = refusal};
            return std::nullopt;
          });
      for (int epoch = 0; epoch < 100; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(10min);
      std::vector<int> expected = epochs(0, 99);
      std::erase_if(expected, [&](int epoch) { return culprits.count(epoch) > 0; });
      CHECK(sim.epochs_on_hub() == expected);
      const hub::session_status now = session.status();
      CHECK(now.epochs_set_aside == culprits.size());
      CHECK(now.epochs_delivered == 100 - culprits.size());
      CHECK(now.epochs_queued == 0);
      CHECK(sim.lines_with("set aside") == culprits.size());
      for (int culprit : culprits) CHECK(sim.said("epoch " + std::to_string(culprit) + " "));
      CHECK(shortest_gap(sim.moments(endpoint::metrics)) >= 3);

      // A new value of the same epoch has a new chance.
      refusing = false;
      session.on_fit_epoch_end(*culprits.begin(), {{"a", -1}});
      sim.advance(1min);
      CHECK(sim.model().metrics.at(*culprits.begin()).at("a") == -1);
      const hub::delivery delivered = session.on_train_end(99, "", 0);
      CHECK_FALSE(delivered.complete());
      REQUIRE(delivered.why);
      CHECK(delivered.why->code == errc::rejected);
      CHECK(delivered.why->http_status == refusal);
    }
  }
}

TEST_CASE("a HUB that takes only small requests gets small requests, and every epoch") {
  world sim;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (carries_metrics(what) && epochs_in(what).size() > 3) return hub::reply{.status = 413};
    return std::nullopt;
  });
  for (int epoch = 0; epoch < 100; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
  sim.advance(1h);
  CHECK(sim.epochs_on_hub() == epochs(0, 99));
  CHECK(session.status().epochs_set_aside == 0);
}

TEST_CASE("batches are large again once the culprit is set aside") {
  world sim;
  std::vector<std::size_t> sizes;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!carries_metrics(what)) return std::nullopt;
    const std::vector<int> batch = epochs_in(what);
    sizes.push_back(batch.size());
    if (batch.front() <= 5 && batch.back() >= 5) return hub::reply{.status = 400};
    return std::nullopt;
  });
  for (int epoch = 0; epoch < 400; ++epoch) session.on_fit_epoch_end(epoch, {{"a", epoch}});
  sim.advance(1h);
  CHECK(session.status().epochs_delivered == 399);
  CHECK(*std::max_element(sizes.begin() + 10, sizes.end()) == 100);
  CHECK(sizes.size() < 25);
}

// ---- pace: refusals, Retry-After, the wall clock, the budget ------------------------------------

TEST_CASE("while HUB refuses the key each lane tries once in five minutes and keeps everything") {
  for (int refusal : {401, 403, 404, 302}) {
    INFO("status " << refusal);
    world sim;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(10s);
    sim.hub.fail_next(answered(refusal), 1'000'000);
    for (int epoch = 0; epoch < 240; ++epoch) {
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(15s);
    }
    CHECK(shortest_gap(sim.moments(endpoint::metrics)) >= 300);
    CHECK(sim.hub.count(endpoint::metrics) == 13);
    CHECK(shortest_gap(sim.moments(endpoint::heartbeat)) >= 300);
    CHECK(longest_gap(sim.moments(endpoint::heartbeat)) == 300);
    CHECK(session.status().epochs_queued == 240);
    REQUIRE(session.status().unanswered_why);
    CHECK(session.status().unanswered_why->http_status == refusal);
    sim.hub.no_more_faults();
    sim.advance(10min);
    CHECK(sim.epochs_on_hub() == epochs(0, 239));
  }
}

TEST_CASE("Retry-After is waited for, in seconds or as a date, up to 15 minutes") {
  struct wish {
    std::string header;
    double least;
  };
  const std::vector<wish> wishes = {
      {"20", 20},
      {"0", 0},
      {"899", 899},
      {"100000", 900},
      {"99999999999999999999999999", 900},
      {"<date in 90 s>", 90},
      {"<date in 2 days>", 900},
      {"<date an hour ago>", 0},
      {"soon", 0},
      {"-5", 0},
      {"1e3", 0},
      {"Thu, 99 Jan 2026 00:00:00 GMT", 0},
  };
  for (const wish& each : wishes) {
    INFO("Retry-After: " << each.header);
    world sim;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(10s);
    const auto wall = sim.time.wall_now();
    std::string header = each.header;
    if (header == "<date in 90 s>") header = http_date(wall + 90s);
    if (header == "<date in 2 days>") header = http_date(wall + 48h);
    if (header == "<date an hour ago>") header = http_date(wall - 1h);
    sim.hub.fail_next(endpoint::metrics, answered(429, header));
    session.on_fit_epoch_end(0, {{"a", 1}});
    sim.advance(1h);
    const std::vector<double> tries = sim.moments(endpoint::metrics);
    REQUIRE(tries.size() == 2);
    // On top comes the backoff's jitter, and in any case the rate limit.
    CHECK(tries[1] - tries[0] >= std::max(each.least, 3.0));
    CHECK(tries[1] - tries[0] <= std::max(each.least + 1, 3.0));
  }
}

TEST_CASE("every status that passes by, and a refusal, may ask for a wait") {
  for (int status : {408, 429, 500, 502, 503, 504, 401, 403}) {
    world sim;
    auto session = sim.start();
    session.on_pretrain_routine_end();
    sim.advance(10s);
    sim.hub.fail_next(endpoint::metrics, answered(status, "600"));
    session.on_fit_epoch_end(0, {{"a", 1}});
    sim.advance(1h);
    const std::vector<double> tries = sim.moments(endpoint::metrics);
    REQUIRE(tries.size() == 2);
    CHECK(tries[1] - tries[0] >= 600);
    CHECK(tries[1] - tries[0] <= 601);
  }
}

TEST_CASE("jumps of the wall clock touch nothing but a date that is still to be read") {
  const auto run = [](bool jumping) {
    world sim;
    sim.hub.outage(30min, 45min);
    sim.hub.fail_next(endpoint::metrics, answered(429, "30"));
    auto session = sim.start();
    for (int epoch = 0; epoch < 100; ++epoch) {
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      sim.advance(1min);
      if (jumping) sim.time.jump_wall_clock(epoch % 2 == 0 ? -24h * 365 : 24h * 366);
    }
    return trace_of(sim);
  };
  CHECK(run(false) == run(true));

  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(10s);
  sim.hub.fail_next(endpoint::metrics, answered(429, http_date(sim.time.wall_now() + 60s)));
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1s);
  sim.time.jump_wall_clock(-1h);
  sim.advance(90s);
  const std::vector<double> tries = sim.moments(endpoint::metrics);
  REQUIRE(tries.size() == 2);
  CHECK(tries[1] >= 70);
  CHECK(tries[1] <= 71);
}

TEST_CASE("retries double their waits up to five minutes") {
  world sim;
  sim.with.retry.jitter = false;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(10s);
  sim.hub.fail_next(endpoint::metrics, answered(503), 12);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1h);
  // The waits of 1 and 2 s are below the rate limit.
  const std::vector<double> expected = {10, 13, 16, 20, 28, 44, 76, 140, 268, 524, 824, 1124, 1424};
  CHECK(sim.moments(endpoint::metrics) == expected);
}

TEST_CASE("a delivery makes the waits short again") {
  world sim;
  sim.with.retry.jitter = false;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  sim.advance(10s);
  sim.hub.fail_next(endpoint::metrics, answered(503), 5);
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(990s);
  sim.hub.fail_next(endpoint::metrics, answered(503), 1);
  session.on_fit_epoch_end(1, {{"a", 1}});
  sim.advance(1min);
  const std::vector<double> tries = sim.moments(endpoint::metrics);
  REQUIRE(tries.size() == 8);
  CHECK(tries[6] == 1000);
  CHECK(tries[7] == 1003);
}

TEST_CASE("a HUB that is dead for ten hours gets few requests") {
  for (fault_kind kind : {fault_kind::refused, fault_kind::timed_out, fault_kind::status}) {
    world sim;
    auto session = sim.start();
    sim.hub.fail_next({kind}, 1'000'000);
    const auto last = sim.folder.write("last.pt", std::string(1000, 'L'));
    for (int epoch = 0; epoch < 600; ++epoch) {
      session.on_fit_epoch_end(epoch, {{"a", epoch}});
      session.on_model_save(epoch, last, false);
      sim.advance(1min);
    }
    // 30 retries at once and one every 30 s, beside what goes out without a failure before it: 120
    // heartbeats and 40 checkpoints.
    CHECK(sim.hub.requests().size() < 30 + 1200 + 120 + 40);
    CHECK(sim.hub.count(endpoint::heartbeat) >= 120);
    CHECK(session.status().epochs_queued == 600);
    sim.hub.no_more_faults();
    sim.advance(20min);
    CHECK(sim.epochs_on_hub() == epochs(0, 599));
    CHECK(sim.model().checkpoints.size() >= 1);
  }
}

TEST_CASE("the retry budget holds over all lanes, however short the waits are set") {
  world sim;
  sim.with.retry.first_delay = 0s;
  sim.with.retry.delay_max = 0s;
  sim.with.rate_limits.metrics = 0s;
  auto session = sim.start();
  sim.hub.fail_next({fault_kind::refused}, 1'000'000);
  session.on_fit_epoch_end(0, {{"a", 1}});
  session.upload_model(0, sim.folder.write("last.pt", "weights"), false);
  sim.advance(1s);
  const std::size_t at_once = sim.hub.requests().size();
  CHECK(at_once <= 2 + 3 + 30);
  sim.advance(1h);
  CHECK(sim.hub.requests().size() - at_once <= 120 + 12);
}

TEST_CASE("the log and an error hold no key, even where HUB sends it back") {
  world sim;
  const std::string key = sim.hub.api_key;
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!carries_metrics(what)) return std::nullopt;
    return hub::reply{
        .status = 503,
        .body = json{{"message", "key " + key + " at https://x.test/a?Signature=1"}}.dump()};
  });
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1min);
  REQUIRE(session.status().unanswered_why);
  CHECK(world::says_no_secret(session.status().unanswered_why->message));
  CHECK(sim.said("***"));
  const hub::delivery delivered = session.flush(1s);
  REQUIRE(delivered.why);
  CHECK(world::says_no_secret(delivered.why->message));
}

}  // namespace session_reports_tests
