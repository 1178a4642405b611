// expect: no matching (member )?function
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

void use_identifier_forgotten(hub::testing::simulation& sim) {
#if defined(FIXED)
  auto session = sim.start("ID");
#else
  auto session = sim.start();
#endif
  session.upload_metrics();
}
