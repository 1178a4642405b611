// SPDX-License-Identifier: MIT
//
// The translation unit that has httplib and OpenSSL in it. See one.cpp.

#undef HUB_SESSION_NO_HTTPLIB
#include "../../hub_session.hpp"
#include "layout.hpp"

#if defined(HUB_SESSION_POSIX) || defined(HUB_SESSION_WINDOWS)
#error "an internal macro is left"
#endif
#if defined(HUB_SESSION_NO_HTTPLIB)
#error "a switch was turned on that nobody asked for"
#endif

static_assert(hub::http_transport<hub::httplib_transport>);
static_assert(std::is_base_of_v<hub::training_callbacks, hub::training_session>);

layout layout_with_httplib() { return layout_here(); }

void report_with_httplib(hub::training_callbacks& session, int epoch) {
  session.on_fit_epoch_end(epoch, {{"from two.cpp", 1}});
}

hub::any_transport transport_with_httplib() { return hub::httplib_transport(); }
