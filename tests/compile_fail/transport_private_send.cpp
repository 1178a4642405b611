// expect: the transport lacks 'hub::reply send\(const hub::request&\)'
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct transport_private_send {
  void cancel() noexcept {}

#if defined(FIXED)
 public:
#else
 private:
#endif
  hub::reply send(const hub::request&) { return {}; }
};
static_assert(
    sizeof(hub::basic_training_session<transport_private_send, hub::testing::virtual_clock,
                                       hub::testing::virtual_sleeper>) > 0);
