// SPDX-License-Identifier: MIT
//
// Tests of configuration and hygiene: four translation units of one program, of which this one and
// support/sessions.cpp leave httplib and OpenSSL out, two.cpp does not, and three.cpp has the interface
// only. What the header may leave defined is in tests/including.sh.

#if !defined(HUB_SESSION_NO_HTTPLIB)
#define HUB_SESSION_NO_HTTPLIB
#endif
#include "../../hub_session.hpp"

// A second time is harmless.
#include "../../hub_session.hpp"

#if defined(HUB_SESSION_POSIX) || defined(HUB_SESSION_WINDOWS)
#error "an internal macro is left"
#endif
#if !defined(HUB_SESSION_VERSION) || !defined(HUB_SESSION_VERSION_MAJOR) || \
    !defined(HUB_SESSION_VERSION_MINOR) || !defined(HUB_SESSION_VERSION_PATCH)
#error "the version is missing"
#endif
#if defined(CPPHTTPLIB_HTTPLIB_H)
#error "httplib came in where it was left out"
#endif
#if defined(OPENSSL_VERSION_NUMBER)
#error "OpenSSL came in where it was left out"
#endif

#include <string>

#include "../support/catch.hpp"
#include "../support/scratch.hpp"
#include "../support/sessions.hpp"
#include "layout.hpp"

TEST_CASE("types have one layout, whatever is left out") {
  const layout here = layout_here();
  CHECK(here.size() > 30);
  CHECK(here == layout_with_httplib());
  CHECK(interface_layout_here().size() > 10);
  CHECK(interface_layout_here() == layout_with_interface());
}

TEST_CASE("a session of one translation unit is reported to by others") {
  hub::testing::simulation sim;
  const std::string id = sim.hub.add_model();
  auto session = sim.start(id);
  session.on_pretrain_routine_end();
  report_with_httplib(session, 0);
  session.on_fit_epoch_end(1, {{"from one.cpp", 1}});
  report_with_httplib(session, 2);
  report_with_interface(session, 3);
  const scratch_folder folder;
  CHECK(session.on_train_end(3, folder.write("best.pt", "weights"), 0.5).complete());
  CHECK(sim.hub.model(id).metrics.at(0).dump() == R"({"from two.cpp":1})");
  CHECK(sim.hub.model(id).metrics.at(1).dump() == R"({"from one.cpp":1})");
  CHECK(sim.hub.model(id).metrics.at(2).dump() == R"({"from two.cpp":1})");
  CHECK(sim.hub.model(id).metrics.at(3).dump() == R"({"from three.cpp":1})");
}

TEST_CASE("a transport of one translation unit serves a session of another") {
  hub::testing::simulation sim;
  hub::session_options with = sim.options();
  with.endpoints.api = "http://127.0.0.1:1";  // where nobody listens
  with.retry.start_retries_max = 1;
  using session_type = hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                                   hub::testing::virtual_sleeper>;
  try {
    session_type(std::string(20, 'm'), with, transport_with_httplib(),
                 hub::testing::virtual_clock(sim.time), hub::testing::virtual_sleeper(sim.time));
    FAIL("not refused");
  } catch (const hub::session_error& problem) {
    CHECK(problem.code() == hub::errc::not_reachable);
  }
}
