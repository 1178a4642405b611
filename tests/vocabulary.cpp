// SPDX-License-Identifier: MIT
//
// Tests of the vocabulary.

#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"

namespace vocabulary_tests {

namespace {

using named_value = std::pair<std::string, double>;

std::vector<named_value> seen(hub::metrics_view view) {
  std::vector<named_value> out;
  view.for_each([&](std::string_view name, double value) { out.emplace_back(name, value); });
  return out;
}

// Owns its pairs and is no standard container: begin() and end() are all that is asked for.
struct own_range {
  std::vector<std::pair<const char*, long>> rows = {{"b", 2}, {"a", 1}};
  auto begin() const { return rows.begin(); }
  auto end() const { return rows.end(); }
};

static_assert(hub::metric_range<std::map<std::string, float>>);
static_assert(hub::metric_range<std::unordered_map<std::string, int>>);
static_assert(hub::metric_range<std::vector<std::pair<std::string_view, double>>>);
static_assert(hub::metric_range<own_range>);
static_assert(!hub::metric_range<std::vector<double>>);
static_assert(!hub::metric_range<std::map<std::string, std::string>>);
static_assert(!hub::metric_range<std::map<int, double>>);

static_assert(std::is_base_of_v<std::runtime_error, hub::session_error>);
static_assert(hub::to_string(hub::errc::timed_out) == "timed_out");

}  // namespace

TEST_CASE("every error code has a name of its own, and nothing else has one") {
  constexpr int codes = static_cast<int>(hub::errc::internal_error) + 1;
  std::set<std::string> names;
  for (int code = 0; code < codes; ++code)
    names.emplace(hub::to_string(static_cast<hub::errc>(code)));
  CHECK(names.size() == std::size_t{codes});
  CHECK(names.count("unknown") == 0);
  CHECK(names.count("") == 0);
  CHECK(hub::to_string(static_cast<hub::errc>(codes)) == "unknown");
}

TEST_CASE("every lane has a name of its own") {
  std::set<std::string> names;
  for (hub::lane which : hub::all_lanes) names.emplace(hub::to_string(which));
  CHECK(names == std::set<std::string>{"console", "epochs", "signs of life", "uploads"});
}

TEST_CASE("a session_error carries its error, and says its message") {
  const hub::session_error thrown({hub::errc::access_denied, "No entry.", 403});
  CHECK(thrown.code() == hub::errc::access_denied);
  CHECK(thrown.error().http_status == 403);
  CHECK(std::string(thrown.what()) == "No entry.");
}

TEST_CASE("a result holds a value or an error, never both") {
  hub::result<std::string> good = std::string("four");
  REQUIRE(good);
  CHECK(*good == "four");
  CHECK(good->size() == 4);
  good.value() += "teen";
  CHECK(good.value() == "fourteen");
  CHECK_THROWS_AS(good.error(), std::bad_variant_access);

  const hub::result<std::string> bad = hub::error{hub::errc::bad_reply, "Garbled.", 200};
  REQUIRE_FALSE(bad);
  CHECK(bad.error().code == hub::errc::bad_reply);
  CHECK(bad.error().message == "Garbled.");
  CHECK_THROWS_AS(bad.value(), std::bad_variant_access);
  CHECK_THROWS_AS(*bad, std::bad_variant_access);
  CHECK_THROWS_AS(bad->size(), std::bad_variant_access);
}

TEST_CASE("a result of something that only moves gives it away") {
  hub::result<std::unique_ptr<int>> made = std::make_unique<int>(7);
  const std::unique_ptr<int> taken = *std::move(made);
  REQUIRE(taken);
  CHECK(*taken == 7);
  CHECK(*std::move(hub::result<std::unique_ptr<int>>(std::make_unique<int>(8))).value() == 8);
}

TEST_CASE("metrics come from braces, whatever the type of their numbers") {
  const float loss = 0.5F;
  const int images = 3;
  const std::string name = "from a string";
  CHECK(seen({{"train/loss", loss}, {"images", images}, {name, 2.25L}, {"lr", 1e-3}}) ==
        std::vector<named_value>{
            {"train/loss", 0.5}, {"images", 3}, {"from a string", 2.25}, {"lr", 1e-3}});
  CHECK(seen({{"one", 1.0}}) == std::vector<named_value>{{"one", 1}});
  CHECK(seen({}).empty());
}

TEST_CASE("metrics come from whatever holds pairs of a name and a number") {
  CHECK(seen(std::map<std::string, float>{{"b", 2.5F}, {"a", 1.5F}}) ==
        std::vector<named_value>{{"a", 1.5}, {"b", 2.5}});
  CHECK(seen(std::vector<std::pair<std::string, double>>{{"b", 2}, {"a", 1}}) ==
        std::vector<named_value>{{"b", 2}, {"a", 1}});
  CHECK(seen(std::vector<std::pair<const char*, unsigned char>>{{"byte", 255}}) ==
        std::vector<named_value>{{"byte", 255}});
  CHECK(seen(std::unordered_map<std::string, int>{{"only", -1}}) ==
        std::vector<named_value>{{"only", -1}});
  CHECK(seen(own_range{}) == std::vector<named_value>{{"b", 2}, {"a", 1}});
  CHECK(seen(std::map<std::string, float>{}).empty());
}

TEST_CASE("metrics keep their order and their repetitions, and can be read twice") {
  const std::vector<std::pair<std::string, double>> rows = {{"z", 1}, {"a", 2}, {"z", 3}, {"", 4}};
  const hub::metrics_view view = rows;
  CHECK(seen(view) == rows);
  CHECK(seen(view) == rows);
}

TEST_CASE("a metric's value arrives with every bit") {
  const std::vector<std::pair<std::string, double>> rows = {
      {"not a number", std::nan("")}, {"minus zero", -0.0}, {"denormal", 5e-324}};
  const auto arrived = seen(rows);
  REQUIRE(arrived.size() == 3);
  CHECK(std::isnan(arrived[0].second));
  CHECK(std::signbit(arrived[1].second));
  CHECK(arrived[2].second == 5e-324);
}

TEST_CASE("a delivery is complete only where nothing is missing") {
  for (int bits = 0; bits < 32; ++bits) {
    const bool queued = (bits & 1) != 0, set_aside = (bits & 2) != 0, wanted = (bits & 4) != 0,
               arrived = (bits & 8) != 0, reason = (bits & 16) != 0;
    if (arrived && !wanted) continue;  // cannot be
    hub::delivery delivery;
    delivery.epochs_queued = queued ? 1 : 0;
    delivery.epochs_set_aside = set_aside ? 1 : 0;
    delivery.final_model_wanted = wanted;
    delivery.final_model_delivered = arrived;
    if (reason) delivery.why = hub::error{hub::errc::server_error, "why"};
    CAPTURE(queued, set_aside, wanted, arrived, reason);
    CHECK(delivery.complete() == (!queued && !set_aside && !(wanted && !arrived) && !reason));
  }
}

TEST_CASE("what was delivered does not make a delivery incomplete") {
  hub::delivery delivery;
  CHECK(delivery.complete());
  delivery.epochs_delivered = 300;
  delivery.checkpoints_delivered = 20;
  CHECK(delivery.complete());
}

TEST_CASE("the defaults are the original's cadence and retries") {
  using namespace std::chrono_literals;
  const hub::session_options options;
  CHECK(options.rate_limits.metrics == 3s);
  CHECK(options.rate_limits.checkpoint == 900s);
  CHECK(options.rate_limits.heartbeat == 300s);
  CHECK(options.retry.final_retries_max == 10);
  CHECK(options.limits.train_end_deadline == 3600s);
  CHECK(options.limits.shutdown_deadline == 2s);
  CHECK(options.handle_signals);
  CHECK_FALSE(options.credentials.save);
}

}  // namespace vocabulary_tests
