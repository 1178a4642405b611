// expect: the sleeper lacks 'bool wait_until\(hub::time_point
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct sleeper_wait_until_returns_nothing {
  static constexpr bool concurrent = false;
  void start(std::vector<hub::background_task>) {}
  void wake(std::size_t) noexcept {}
#if defined(FIXED)
  bool wait_until(hub::time_point, const std::function<bool()>& done) { return done(); }
#else
  void wait_until(hub::time_point, const std::function<bool()>&) {}
#endif
  void stop() {}
};
static_assert(
    sizeof(hub::basic_training_session<hub::testing::fake_transport, hub::testing::virtual_clock,
                                       sleeper_wait_until_returns_nothing>) > 0);
