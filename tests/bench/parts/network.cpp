// SPDX-License-Identifier: MIT
//
// The one translation unit that knows the network.

#include "../../../hub_session.hpp"

hub::any_transport network() { return hub::httplib_transport(); }
