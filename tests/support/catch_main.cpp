// SPDX-License-Identifier: MIT
//
// main() for Catch2 v2, compiled once for every test program. Catch2 v3 brings its own.

#if !defined(HUB_SESSION_TEST_CATCH2_V3) && __has_include(<catch2/catch.hpp>)
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif
