// expect: no matching (function for call|constructor)|conversion from|no viable conversion
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

struct any_transport_of_no_transport {
  hub::reply send(const hub::request&) { return {}; }
#if defined(FIXED)
  void cancel() noexcept {}
#endif
};
hub::any_transport any_transport_of_no_transport_erased{any_transport_of_no_transport{}};
