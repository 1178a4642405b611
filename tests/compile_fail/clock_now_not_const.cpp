// expect: the clock lacks 'hub::time_point now\(\) const'
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct clock_now_not_const {
#if defined(FIXED)
  hub::time_point now() const { return {}; }
#else
  hub::time_point now() { return {}; }
#endif
  std::chrono::system_clock::time_point wall_now() const { return {}; }
};
static_assert(sizeof(hub::basic_training_session<hub::testing::fake_transport, clock_now_not_const,
                                                 hub::testing::virtual_sleeper>) > 0);
