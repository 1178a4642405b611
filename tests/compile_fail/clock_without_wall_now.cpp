// expect: the clock lacks 'std::chrono::system_clock::time_point wall_now\(\)
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct clock_without_wall_now {
  hub::time_point now() const { return {}; }
#if defined(FIXED)
  std::chrono::system_clock::time_point wall_now() const { return {}; }
#endif
};
static_assert(
    sizeof(hub::basic_training_session<hub::testing::fake_transport, clock_without_wall_now,
                                       hub::testing::virtual_sleeper>) > 0);
