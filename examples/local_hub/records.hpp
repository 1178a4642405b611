// SPDX-License-Identifier: MIT
//
// How local_hub writes down what it knows, as JSON that a person can read and edit: each thing to
// text, and back. Reading never throws; what is missing or spoiled takes its default.

#pragma once

#include "files.hpp"
#include "hub_session.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace local_hub {

using hub::testing::checkpoint_record;
using hub::testing::model_options;
using nlohmann::json;
using nlohmann::ordered_json;  // keeps the members in the order that reads best

inline std::string to_line(const ordered_json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace) + '\n';
}

inline std::string to_page(const ordered_json& value) {
  return value.dump(2, ' ', false, json::error_handler_t::replace) + '\n';
}

inline hub::testing::server_reply refusal(int status, std::string_view why) {
  return {status, json{{"message", why}}.dump(-1, ' ', false, json::error_handler_t::replace)};
}

inline ordered_json to_json(const model_options& about) {
  return {{"id", about.id},         {"name", about.name},       {"data", about.data},
          {"cfg", about.cfg},       {"weights", about.weights}, {"epochs", about.epochs},
          {"batch", about.batch},   {"imgsz", about.imgsz},     {"patience", about.patience},
          {"device", about.device}, {"cache", about.cache}};
}

inline model_options model_from(const json& written) {
  model_options about;
  about.id = hub::text::get_string(written, "id");
  about.name = hub::text::get_string(written, "name");
  about.data = hub::text::get_string(written, "data");
  about.cfg = hub::text::get_string(written, "cfg");
  about.weights = hub::text::get_string(written, "weights");
  about.epochs = hub::text::get_int(written, "epochs").value_or(about.epochs);
  about.batch = hub::text::get_number(written, "batch").value_or(about.batch);
  about.imgsz = hub::text::get_int(written, "imgsz").value_or(about.imgsz);
  about.patience = hub::text::get_int(written, "patience").value_or(about.patience);
  if (const json* device = hub::text::get_member(written, "device")) about.device = *device;
  if (const json* cache = hub::text::get_member(written, "cache")) about.cache = *cache;
  return about;
}

// hub_logic counts in steady time, which means nothing in another process.
inline wall_time wall_time_of(hub::time_point when) {
  const auto ago = std::chrono::steady_clock::now() - when;
  return std::chrono::system_clock::now() - std::chrono::duration_cast<wall_time::duration>(ago);
}

inline hub::time_point time_from(const json& written) {
  // One pair of readings for all, so that what is from the same second stays so.
  static const auto steady_now = std::chrono::steady_clock::now();
  static const auto wall_now = std::chrono::system_clock::now();
  const auto then = parse_time(hub::text::get_string(written, "time")).value_or(wall_now);
  return steady_now - std::max(wall_now - then, wall_time::duration::zero());
}

inline ordered_json to_json(const checkpoint_record& record) {
  ordered_json out = {{"epoch", record.epoch}, {"type", record.is_final ? "final" : "epoch"}};
  if (record.is_final)
    out["map"] = record.map;
  else
    out["is_best"] = record.is_best;
  out["bytes"] = record.size_bytes;
  out["sha256"] = record.sha256;
  out["time"] = to_text(wall_time_of(record.at));
  return out;
}

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();  // null in JSON

inline checkpoint_record checkpoint_from(const json& written) {
  constexpr double bytes_max = 9e15;  // up to where a double counts in ones
  return {.at = time_from(written),
          .epoch = hub::text::get_int(written, "epoch").value_or(0),
          .is_final = hub::text::get_string(written, "type") == "final",
          .is_best = hub::text::get_flag(written, "is_best"),
          .map = hub::text::get_number(written, "map").value_or(not_a_number),
          .size_bytes = static_cast<std::uint64_t>(
              std::clamp(hub::text::get_number(written, "bytes").value_or(0), 0.0, bytes_max)),
          .hash = 0,
          .content = {},
          .sha256 = hub::text::get_string(written, "sha256")};
}

}  // namespace local_hub
