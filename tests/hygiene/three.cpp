// SPDX-License-Identifier: MIT
//
// The translation unit that has the interface only. See one.cpp.

#define HUB_SESSION_INTERFACE_ONLY
#include "../../hub_session.hpp"
#include "layout.hpp"

#if defined(HUB_SESSION_POSIX) || defined(HUB_SESSION_WINDOWS)
#error "an internal macro is left"
#endif
#if defined(CPPHTTPLIB_HTTPLIB_H) || defined(OPENSSL_VERSION_NUMBER)
#error "httplib or OpenSSL came in where the interface is enough"
#endif

layout layout_with_interface() { return interface_layout_here(); }

void report_with_interface(hub::training_callbacks& session, int epoch) {
  session.on_fit_epoch_end(epoch, {{"from three.cpp", 1}});
}
