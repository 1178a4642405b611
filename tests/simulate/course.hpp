// SPDX-License-Identifier: MIT
//
// What one seed came to.

#pragma once

#include <cstdint>
#include <string>

#include "../../hub_session.hpp"
#include "trace.hpp"

namespace simulate {

struct course {
  std::string broken = {};  // the rule and when, "" where all held
  std::uint64_t hash = 0;
  std::uint64_t sessions = 0;
  std::uint64_t epochs = 0;
  std::uint64_t requests = 0;
  std::uint64_t steps = 0;
  duration simulated = {};
};

}  // namespace simulate
