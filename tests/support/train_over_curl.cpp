// SPDX-License-Identifier: MIT
//
// examples/train.cpp over libcurl, compiled beside the tests that train with it.

#define TRAIN_OVER_CURL
#include "../../examples/train.cpp"
