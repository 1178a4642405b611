// SPDX-License-Identifier: MIT
//
// Catch2 in whichever version there is: v2 is one header, v3 a library with many.

#pragma once

#define CATCH_CONFIG_ENABLE_ALL_STRINGMAKERS

#if defined(HUB_SESSION_TEST_CATCH2_V3) || !__has_include(<catch2/catch.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
