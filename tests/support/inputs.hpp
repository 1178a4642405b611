// SPDX-License-Identifier: MIT
//
// Inputs that the tests of text, settings files and protocols share, and what is asked of answers.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "../../hub_session.hpp"
#include "catch.hpp"
#include "text.hpp"

namespace hub_test {

// Without a word of any message in them, so that a trace of them in a message is no accident.
inline const std::string key = "Zq7Xk2Vw9Jr4Hy6Tn8Qb3Gx5Wd1Kz0Mv7Pf2Yj4Lc8";
inline const std::string id = "abcdefghij0123456789";

// Whether so much of the secret stands in the text that it is no accident.
inline bool shows(std::string_view text, std::string_view secret, std::size_t telling = 5) {
  for (std::size_t at = 0; at + telling <= secret.size(); ++at)
    if (contains(text, secret.substr(at, telling))) return true;
  return false;
}

inline bool is_plain_text(std::string_view text) {
  return hub::text::all_of(text, [](char c) { return c >= 0x20 && c <= 0x7E; });
}

inline std::string with_byte(std::string text, std::size_t at, int byte) {
  text[at] = static_cast<char>(byte);
  return text;
}

inline std::string nested(std::size_t depth, char open, char close) {
  return std::string(depth, open) + std::string(depth, close);
}

template <class T>
hub::errc code_of(const hub::result<T>& outcome) {
  REQUIRE_FALSE(outcome);
  return outcome.error().code;
}

}  // namespace hub_test
