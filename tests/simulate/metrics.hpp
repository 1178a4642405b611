// SPDX-License-Identifier: MIT
//
// Rules: an epoch's metrics follow from the seed and their version, so that whoever reads them, in a
// request or on HUB, knows which telling they are of. The version comes first.

#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../../hub_session.hpp"
#include "dice.hpp"

namespace simulate {

using metric_list = std::vector<std::pair<std::string, double>>;

// Numbers that a text may spoil, and ordinary ones.
inline double odd_value(dice& rolls) {
  using limits = std::numeric_limits<double>;
  switch (rolls.below(12)) {
    case 0: return limits::quiet_NaN();
    case 1: return -limits::infinity();
    case 2: return -0.0;
    case 3: return limits::denorm_min();
    case 4: return limits::max();
    case 5: return rolls.below(1000);
    default: {
      const auto mantissa = static_cast<double>(rolls.next() >> 11);
      return std::ldexp(mantissa, rolls.below(60) - 90);
    }
  }
}

// `poison` is what HUB refuses for good.
inline metric_list metrics_of(std::uint64_t seed, std::uint64_t version, std::size_t count,
                              bool poison) {
  static const std::array<std::string, 6> names = {
      "train/box_loss", "metrics/mAP50-95(B)", "val/\"quoted\"", "lr\\pg0", "pr\xC3\xA9", "a\tb"};
  dice rolls(seed ^ (version * 0xD1B54A32D192ED03u));
  metric_list out = {{"version", static_cast<double>(version)}};
  for (std::size_t i = 0; i < count; ++i)
    out.emplace_back(names[i % names.size()] + (i < names.size() ? "" : std::to_string(i)),
                     odd_value(rolls));
  if (poison) out.emplace_back("poison", 1);
  return out;
}

// Whether HUB holds exactly these values; null stands for what JSON has no number for.
inline bool same_metrics(const nlohmann::json& on_hub, const metric_list& told) {
  if (!on_hub.is_object() || on_hub.size() != told.size()) return false;
  for (const auto& [name, value] : told) {
    const auto found = on_hub.find(name);
    if (found == on_hub.end()) return false;
    if (!std::isfinite(value) ? !found->is_null()
                              : !found->is_number() || found->get<double>() != value)
      return false;
  }
  return true;
}

inline std::uint64_t version_of(const nlohmann::json& values) {
  return static_cast<std::uint64_t>(hub::text::get_number(values, "version").value_or(0));
}

struct sent_epoch {
  int epoch;
  std::uint64_t version;
  std::size_t bytes;  // of its text
};

// Reads {"metrics": {"0": "{\"version\": 1, ...}", ...}, ...} as it came, in its own order. Whether
// it is proper JSON is the fake HUB's to say.
inline std::optional<std::vector<sent_epoch>> read_batch(std::string_view body) {
  constexpr std::string_view lead = "{\"metrics\": {";
  constexpr std::string_view opening = "\": \"{\\\"version\\\": ";
  if (!body.starts_with(lead)) return std::nullopt;
  body.remove_prefix(lead.size());
  std::vector<sent_epoch> out;
  while (body.starts_with('"') || body.starts_with(", \"")) {
    body.remove_prefix(body.find('"') + 1);
    sent_epoch next{};
    const char* const end = body.data() + body.size();
    const auto epoch = std::from_chars(body.data(), end, next.epoch);
    body.remove_prefix(static_cast<std::size_t>(epoch.ptr - body.data()));
    if (epoch.ec != std::errc() || !body.starts_with(opening)) return std::nullopt;
    std::from_chars(body.data() + opening.size(), end, next.version);
    std::size_t close = std::string_view("\": \"").size();
    for (; close < body.size() && body[close] != '"'; ++next.bytes)
      close += body[close] == '\\' ? 2 : 1;
    if (close >= body.size()) return std::nullopt;
    out.push_back(next);
    body.remove_prefix(close + 1);
  }
  if (!body.starts_with('}')) return std::nullopt;
  return out;
}

}  // namespace simulate
