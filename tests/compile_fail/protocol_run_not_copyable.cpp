// expect: the protocol lacks identity, run or news, or its run cannot be copied
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct protocol_run_not_copyable : hub::hub_v1 {
#if !defined(FIXED)  // hides what HUB v1 has
  struct run : hub::hub_v1::run {
    run(const run&) = delete;
  };
#endif
};
static_assert(
    sizeof(hub::basic_training_session<hub::testing::fake_transport, hub::testing::virtual_clock,
                                       hub::testing::virtual_sleeper, protocol_run_not_copyable>) >
    0);
