// expect: it lacks 'is_registered'
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct protocol_without_is_registered : hub::platform {
#if !defined(FIXED)  // hides what the Platform has
  static void is_registered();
#endif
};
static_assert(sizeof(hub::basic_training_session<
                     hub::testing::fake_transport, hub::testing::virtual_clock,
                     hub::testing::virtual_sleeper, protocol_without_is_registered>) > 0);
