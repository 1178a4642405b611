// SPDX-License-Identifier: MIT
//
// Makes a session over whatever transport it is given, and hands it to the parts.

#define HUB_SESSION_NO_HTTPLIB
#include "../../../hub_session.hpp"

hub::any_transport network();
void report_1(hub::training_callbacks& session);

using session_over_any =
    hub::basic_training_session<hub::any_transport, hub::steady_clock, hub::thread_sleeper>;

int main() {
  try {
    session_over_any session("abcdefghij0123456789", {}, network());
    report_1(session);
  } catch (const hub::session_error&) {
    return 2;
  }
}
