// expect: the sleeper lacks 'void wake\(std::size_t\) noexcept'
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct sleeper_wake_may_throw {
  static constexpr bool concurrent = false;
  void start(std::vector<hub::background_task>) {}
#if defined(FIXED)
  void wake(std::size_t) noexcept {}
#else
  void wake(std::size_t) {}
#endif
  bool wait_until(hub::time_point, const std::function<bool()>& done) { return done(); }
  void stop() {}
};
static_assert(
    sizeof(hub::basic_training_session<hub::testing::fake_transport, hub::testing::virtual_clock,
                                       sleeper_wake_may_throw>) > 0);
