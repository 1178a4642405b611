// SPDX-License-Identifier: MIT
//
// A test of training code with the test kit, as the README has it.

#define HUB_SESSION_NO_HTTPLIB
#include "../../../hub_session.hpp"
#include "../../support/catch.hpp"

using namespace std::chrono_literals;

TEST_CASE("a ten-minute outage loses no epoch") {
  hub::testing::simulation sim;
  const std::string id = sim.hub.add_model({.epochs = 60});
  {
    auto session = sim.start(id);
    sim.hub.outage(20min, 30min);
    for (int epoch = 0; epoch < 60; ++epoch) {
      sim.advance(1min);
      session.on_fit_epoch_end(epoch, {{"train/loss", 1.0 / (epoch + 1)}});
    }
  }
  CHECK(sim.hub.model(id).metrics.size() == 60);
  CHECK(sim.hub.problems().empty());
}
