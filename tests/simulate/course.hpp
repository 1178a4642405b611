// SPDX-License-Identifier: MIT
//
// What one seed came to, and how it is played.

#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "../../hub_session.hpp"
#include "rules.hpp"
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

// Plays to the end, takes away the session that is left, and returns the first rule that did not hold
// and when, "" where all held.
template <class Session, class Play>
std::string first_broken_rule(hub::testing::simulation& world, std::unique_ptr<Session>& session,
                              Play play) {
  std::string out;
  try {
    play();
  } catch (const broken& rule) {
    out = clock_text(rule.at.value_or(world.time.now())) + ": " + rule.what();
  } catch (const std::exception& problem) {
    out = clock_text(world.time.now()) + ": " + problem.what();
  }
  session.reset();
  const auto refused = [&](const char* who, const std::vector<std::string>& problems) {
    if (out.empty() && !problems.empty())
      out = clock_text(world.time.now()) + ": " + who +
            " was sent what it refuses: " + problems.front();
  };
  refused("HUB", world.hub.problems());
  refused("the Platform", world.platform.problems());
  return out;
}

}  // namespace simulate
