// expect: the clock cannot be copied
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct clock_not_copyable {
  hub::time_point now() const { return {}; }
  std::chrono::system_clock::time_point wall_now() const { return {}; }
#if defined(FIXED)
  clock_not_copyable(const clock_not_copyable&) = default;
#else
  clock_not_copyable(const clock_not_copyable&) = delete;
#endif
};
static_assert(sizeof(hub::basic_training_session<hub::testing::fake_transport, clock_not_copyable,
                                                 hub::testing::virtual_sleeper>) > 0);
