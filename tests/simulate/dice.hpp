// SPDX-License-Identifier: MIT
//
// Rules: the same rolls on every machine, so nothing of std:: that maps random numbers. Never roll
// twice in one expression whose order of evaluation the language leaves open.

#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "../../hub_session.hpp"

namespace simulate {

class dice {
 public:
  explicit dice(std::uint64_t seed) : state_(seed * golden_ + 1) {}

  // splitmix64
  std::uint64_t next() {
    std::uint64_t z = (state_ += golden_);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  int below(int bound) { return static_cast<int>(below(static_cast<std::uint64_t>(bound))); }
  bool percent(unsigned chance) { return below(std::uint64_t{100}) < chance; }
  hub::duration between(hub::duration low, hub::duration high) {
    return low + hub::duration(static_cast<hub::duration::rep>(
                     below(static_cast<std::uint64_t>((high - low).count()) + 1)));
  }
  template <class T>
  T pick(std::initializer_list<T> among) {
    return among.begin()[below(std::uint64_t{among.size()})];
  }

 private:
  static constexpr std::uint64_t golden_ = 0x9E3779B97F4A7C15u;
  std::uint64_t state_;
};

}  // namespace simulate
