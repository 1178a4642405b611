// SPDX-License-Identifier: MIT
//
// Rules: what happened in a run, as one number, and as text where somebody wants to read it. Only
// what is the same on every machine goes in: no path, no clock, no address.

#pragma once

#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>

#include "../../hub_session.hpp"

namespace simulate {

using namespace std::chrono_literals;
using hub::duration;
using hub::time_point;

inline constexpr time_point beginning{24h};  // of virtual time

inline double seconds(duration time) { return std::chrono::duration<double>(time).count(); }
inline double hours(duration time) { return seconds(time) / 3600; }

// h:mm:ss.mmm of virtual time.
inline std::string clock_text(time_point at) {
  const auto all = std::chrono::duration_cast<std::chrono::milliseconds>(at - beginning).count();
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%" PRId64 ":%02d:%02d.%03d",
                static_cast<std::int64_t>(all / 3'600'000), static_cast<int>(all / 60'000 % 60),
                static_cast<int>(all / 1'000 % 60), static_cast<int>(all % 1'000));
  return text.data();
}

class trace {
 public:
  explicit trace(bool aloud) : aloud_(aloud) {}

  std::uint64_t hash() const { return hash_; }
  bool aloud() const { return aloud_; }

  void add(std::uint64_t number) {
    hash_ = (hash_ ^ number) * 0x9E3779B97F4A7C15u;
    hash_ ^= hash_ >> 32;
  }
  void add(std::string_view text) { add(hub::testing::content_hash(text)); }

  template <class... Parts>
  void say(time_point at, const Parts&... parts) const {
    if (!aloud_) return;
    std::cout << clock_text(at) << "  ";
    (std::cout << ... << parts) << '\n';
  }

 private:
  bool aloud_;
  std::uint64_t hash_ = 0;
};

}  // namespace simulate
