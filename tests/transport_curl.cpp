// SPDX-License-Identifier: MIT
//
// So does the one over libcurl that users copy.

#define HUB_SESSION_NO_HTTPLIB
#include "transport_suite.hpp"

#include "../examples/curl_transport.hpp"

hub::any_transport hub_test::make_transport(const std::string& ca_file) {
  return curl_transport{{.ca_file = ca_file}};
}
