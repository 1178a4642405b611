// expect: deleted
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

void use_session_copied(hub::testing::training_session& session) {
#if defined(FIXED)
  auto& other = session;
#else
  auto other = session;
#endif
  other.upload_metrics();
}
