// expect: the protocol lacks 'opening' or 'judge_opening'
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct protocol_without_opening : hub::hub_v1 {
#if !defined(FIXED)  // hides what HUB v1 has
  static void opening();
#endif
};
static_assert(
    sizeof(hub::basic_training_session<hub::testing::fake_transport, hub::testing::virtual_clock,
                                       hub::testing::virtual_sleeper, protocol_without_opening>) >
    0);
