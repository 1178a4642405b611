// SPDX-License-Identifier: MIT
//
// An include alone.

#include "../../../hub_session.hpp"
