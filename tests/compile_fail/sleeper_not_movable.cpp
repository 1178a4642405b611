// expect: the sleeper cannot be moved
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct sleeper_not_movable {
  static constexpr bool concurrent = false;
  void start(std::vector<hub::background_task>) {}
  void wake(std::size_t) noexcept {}
  bool wait_until(hub::time_point, const std::function<bool()>& done) { return done(); }
  void stop() {}
#if defined(FIXED)
  sleeper_not_movable(sleeper_not_movable&&) = default;
#else
  sleeper_not_movable(sleeper_not_movable&&) = delete;
#endif
};
static_assert(
    sizeof(hub::basic_training_session<hub::testing::fake_transport, hub::testing::virtual_clock,
                                       sleeper_not_movable>) > 0);
