// SPDX-License-Identifier: MIT
//
// The default transport keeps what every transport has to keep.

#include "transport_suite.hpp"

hub::any_transport hub_test::make_transport(const std::string& ca_file) {
  return hub::httplib_transport{{.ca_file = ca_file}};
}
