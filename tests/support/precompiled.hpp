// SPDX-License-Identifier: MIT
//
// What meson.build precompiles once for every file of a set. No file counts on it: each includes what
// it uses, which tests/matrix.sh shows by compiling each alone.

#include "sessions.hpp"

#if defined(HUB_SESSION_TEST_DATA)
#include "catch.hpp"
#endif
