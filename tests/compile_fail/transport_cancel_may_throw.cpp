// expect: the transport lacks 'void cancel\(\) noexcept'
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct transport_cancel_may_throw {
  hub::reply send(const hub::request&) { return {}; }
#if defined(FIXED)
  void cancel() noexcept {}
#else
  void cancel() {}
#endif
};
static_assert(
    sizeof(hub::basic_training_session<transport_cancel_may_throw, hub::testing::virtual_clock,
                                       hub::testing::virtual_sleeper>) > 0);
