// SPDX-License-Identifier: MIT
//
// The long variant of a test.

#pragma once

#include <cstdlib>

namespace hub_test {

// HUB_TEST_LONG in the environment asks for the long variant: what depends on chance is tried 1,000
// times instead of 50, what goes through all places goes through each and not through some,
// and times are measured against their bounds, which only an idle machine keeps.
inline bool long_variant() { return std::getenv("HUB_TEST_LONG") != nullptr; }

}  // namespace hub_test
