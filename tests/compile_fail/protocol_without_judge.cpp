// expect: the protocol lacks 'make' or 'judge' for one of the engine's orders
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct protocol_without_judge : hub::hub_v1 {
#if !defined(FIXED)  // hides what HUB v1 has
  static void judge();
#endif
};
static_assert(
    sizeof(hub::basic_training_session<hub::testing::fake_transport, hub::testing::virtual_clock,
                                       hub::testing::virtual_sleeper, protocol_without_judge>) > 0);
