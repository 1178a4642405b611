// SPDX-License-Identifier: MIT
//
// What a fuzz target asserts: libFuzzer counts an abort as a find, and keeps the input.

#pragma once

#include <cstdio>
#include <cstdlib>
#include <string_view>

#define HUB_SESSION_NO_HTTPLIB
#include "../../hub_session.hpp"

inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

// libFuzzer's input as text.
inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}
