// SPDX-License-Identifier: MIT
//
// What people write beside a model, for nobody but the page: DATA/models/ID/labels.json. Reading never
// throws; what is missing or spoiled is empty.

#pragma once

#include "hub_session.hpp"
#include "records.hpp"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace local_hub {

struct labels {
  std::string project = {};
  std::vector<std::string> tags = {};
  std::string note = {};
};

inline constexpr std::size_t tags_max = 20;
inline constexpr std::size_t tag_bytes_max = 100;  // and of a project
inline constexpr std::size_t note_bytes_max = 10'000;

inline ordered_json to_json(const labels& what) {
  return {{"project", what.project}, {"tags", what.tags}, {"note", what.note}};
}

// What is said replaces what is known; of the rest nothing changes.
inline labels labels_from(const json& said, labels known = {}) {
  if (said.contains("project")) known.project = hub::text::get_string(said, "project");
  if (said.contains("note")) known.note = hub::text::get_string(said, "note");
  if (const json* tags = hub::text::get_member(said, "tags"); tags && tags->is_array()) {
    known.tags.clear();
    for (const json& each : *tags)
      if (each.is_string() && !each.get_ref<const std::string&>().empty())
        known.tags.push_back(each.get<std::string>());
  }
  return known;
}

// Why there can be no such labels; "" where there can.
inline std::string_view fault_of(const labels& what) {
  const auto too_long = [](const std::string& text) { return text.size() > tag_bytes_max; };
  if (what.tags.size() > tags_max) return "a model can have 20 tags";
  if (too_long(what.project) || std::any_of(what.tags.begin(), what.tags.end(), too_long))
    return "a project or a tag has up to 100 bytes";
  if (what.note.size() > note_bytes_max) return "a note has up to 10000 bytes";
  return "";
}

}  // namespace local_hub
