// expect: the transport cannot be copied
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct transport_not_copyable {
  hub::reply send(const hub::request&) { return {}; }
  void cancel() noexcept {}
#if defined(FIXED)
  transport_not_copyable(const transport_not_copyable&) = default;
#else
  transport_not_copyable(const transport_not_copyable&) = delete;
#endif
};
static_assert(
    sizeof(hub::basic_training_session<transport_not_copyable, hub::testing::virtual_clock,
                                       hub::testing::virtual_sleeper>) > 0);
