// SPDX-License-Identifier: MIT
//
// The peer of an include alone: nlohmann/json, used once in each direction.

#include <nlohmann/json.hpp>
#include <string>

std::string answered(const std::string& text) {
  auto reply = nlohmann::json::parse(text, nullptr, false);
  reply["seen"] = true;
  return reply.dump();
}
