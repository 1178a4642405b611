// SPDX-License-Identifier: MIT
//
// One of many translation units that report, none of which knows the network. PART is its number.

#define HUB_SESSION_INTERFACE_ONLY
#include "../../../hub_session.hpp"

#define HUB_SESSION_BENCH_JOIN(a, b) a##b
#define HUB_SESSION_BENCH_NAME(number) HUB_SESSION_BENCH_JOIN(report_, number)

void HUB_SESSION_BENCH_NAME(PART)(hub::training_callbacks& session) {
  session.on_fit_epoch_end(PART, {{"train/loss", 0.5}});
}
