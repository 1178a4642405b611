// SPDX-License-Identifier: MIT
//
// The peer of a test with the test kit: a test with the same libraries.

#include <nlohmann/json.hpp>
#include <string>

#include "../../support/catch.hpp"

TEST_CASE("a reply is answered") {
  auto reply = nlohmann::json::parse(R"({"data": {"id": "abc"}})");
  REQUIRE(reply.contains("data"));
  reply["data"]["seen"] = true;
  CHECK(reply["data"]["id"] == "abc");
  CHECK(reply.dump() == R"({"data":{"id":"abc","seen":true}})");
}
