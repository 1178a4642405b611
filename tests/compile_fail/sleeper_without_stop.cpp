// expect: the sleeper lacks 'void stop\(\)'
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct sleeper_without_stop {
  static constexpr bool concurrent = false;
  void start(std::vector<hub::background_task>) {}
  void wake(std::size_t) noexcept {}
  bool wait_until(hub::time_point, const std::function<bool()>& done) { return done(); }
#if defined(FIXED)
  void stop() {}
#endif
};
static_assert(
    sizeof(hub::basic_training_session<hub::testing::fake_transport, hub::testing::virtual_clock,
                                       sleeper_without_stop>) > 0);
