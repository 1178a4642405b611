// SPDX-License-Identifier: MIT
//
// What a program compiled with -ffast-math or -ffinite-math-only reports. Such a compiler takes it that
// there is no NaN, no infinity and no sign of zero, so nothing here may ask for them but by bits.

#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/world.hpp"

using hub::text::form_number;

namespace {

constexpr std::uint64_t sign = std::uint64_t{1} << 63;
constexpr std::uint64_t infinity_bits = std::uint64_t{0x7FF} << 52;
constexpr std::uint64_t nan_bits = infinity_bits | std::uint64_t{1} << 51;

// As a training has them: known when the program runs and not before.
double from_bits(std::uint64_t bits) {
  volatile std::uint64_t hidden = bits;
  return std::bit_cast<double>(std::uint64_t{hidden});
}
float float_from_bits(std::uint32_t bits) {
  volatile std::uint32_t hidden = bits;
  return std::bit_cast<float>(std::uint32_t{hidden});
}

}  // namespace

TEST_CASE("a number is judged by its bits") {
  for (std::uint64_t bits :
       {nan_bits, nan_bits | sign, infinity_bits + 1, infinity_bits, infinity_bits | sign}) {
    CAPTURE(bits);
    CHECK_FALSE(hub::is_finite(from_bits(bits)));
    CHECK(hub::is_nan(from_bits(bits)) == ((bits & ~sign) != infinity_bits));
  }
  for (std::uint64_t bits :
       {std::uint64_t{0}, sign, infinity_bits - 1, (infinity_bits - 1) | sign}) {
    CAPTURE(bits);
    CHECK(hub::is_finite(from_bits(bits)));
    CHECK_FALSE(hub::is_nan(from_bits(bits)));
    CHECK(hub::is_negative(from_bits(bits)) == ((bits & sign) != 0));
  }
}

TEST_CASE("an epoch with NaN and infinities arrives with null for them, and so do its neighbours") {
  world sim;
  {
    auto session = sim.start();
    session.on_fit_epoch_end(0, {{"a", 1.5}});
    session.on_fit_epoch_end(1, {{"nan", from_bits(nan_bits)},
                                 {"-nan", from_bits(nan_bits | sign)},
                                 {"inf", from_bits(infinity_bits)},
                                 {"-inf", from_bits(infinity_bits | sign)},
                                 {"-0", from_bits(sign)},
                                 {"float nan", float_from_bits(0x7FC00000)},
                                 {"float -inf", float_from_bits(0xFF800000)},
                                 {"b", 2.5}});
    session.on_fit_epoch_end(2, {{"a", 3.5F}});
    CHECK(session.on_train_end(2, "", 0).complete());
  }
  CHECK(sim.epochs_on_hub() == epochs(0, 2));
  const nlohmann::json& epoch = sim.model().metrics.at(1);
  for (const char* name : {"nan", "-nan", "inf", "-inf", "float nan", "float -inf"}) {
    CAPTURE(name);
    CHECK(epoch.at(name).is_null());
  }
  CHECK(std::bit_cast<std::uint64_t>(epoch.at("-0").get<double>()) == sign);
  CHECK(epoch.at("b") == 2.5);
  CHECK(sim.lines_with("NaN") == 1);
}

TEST_CASE("a map that is not finite goes out as Python writes it") {
  CHECK(form_number(from_bits(nan_bits)) == "nan");
  CHECK(form_number(from_bits(nan_bits | sign)) == "nan");
  CHECK(form_number(from_bits(infinity_bits)) == "inf");
  CHECK(form_number(from_bits(infinity_bits | sign)) == "-inf");
  CHECK(form_number(0.5) == "0.5");

  world sim;
  const auto best = sim.folder.write("best.pt", "weights");
  {
    auto session = sim.start();
    CHECK(session.on_train_end(0, best, from_bits(nan_bits)).complete());
  }
  REQUIRE(sim.model().final_model());
  CHECK(hub::is_nan(sim.model().final_model()->map));
}

TEST_CASE("a spool's lines with numbers that are not finite are read back whole") {
  namespace journal = hub::spool::journal;
  std::string text;
  const std::vector<std::pair<std::string, double>> values = {
      {"a", from_bits(nan_bits)}, {"b", from_bits(infinity_bits | sign)}, {"c", 2}};
  journal::append_epoch(text, 4, 1, hub::epoch_record(values));
  for (std::uint64_t bits : {nan_bits, infinity_bits, infinity_bits | sign})
    journal::append(text,
                    journal::upload_line{2, {.is_final = true, .map = from_bits(bits)}, 5, 6});

  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  REQUIRE(lines.size() == 4);
  const auto epoch = journal::read_line(lines[0]);
  REQUIRE(epoch);
  CHECK(std::get<journal::epoch_line>(*epoch).values->not_finite() == 2);
  std::vector<std::string> maps;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const auto upload = journal::read_line(lines[i]);
    REQUIRE(upload);
    maps.push_back(form_number(std::get<journal::upload_line>(*upload).fields.map));
  }
  CHECK(maps == std::vector<std::string>{"nan", "inf", "-inf"});
}

TEST_CASE("a reply's numbers that are none count as missing") {
  const auto model = hub::hub_v1_wire::parse_model(
      R"({"data": {"data": "a", "cfg": "b.yaml", "batch": NaN, "epochs": -Infinity, "imgsz": 320}})",
      "abcdefghij0123456789");
  REQUIRE(model);
  CHECK_FALSE(model->train_args.batch);
  CHECK_FALSE(model->train_args.epochs);
  CHECK(model->train_args.imgsz == 320);
}
