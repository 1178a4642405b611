// expect: a second copy of another version is included in this translation unit
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

#if !defined(FIXED)
// What version 0.9.0 would have left.
#undef HUB_SESSION_HPP_INCLUDED
#define HUB_SESSION_HPP_INCLUDED 900
#endif
#include "hub_session.hpp"
