// expect: the transport lacks 'hub::reply send\(const hub::request&\)'
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct transport_without_send {
#if defined(FIXED)
  hub::reply send(const hub::request&) { return {}; }
#endif
  void cancel() noexcept {}
};
static_assert(
    sizeof(hub::basic_training_session<transport_without_send, hub::testing::virtual_clock,
                                       hub::testing::virtual_sleeper>) > 0);
