// SPDX-License-Identifier: MIT
//
// Any text as Retry-After, at any moment of the calendar: the wait that it asks for is within a
// day. The first eight bytes are the moment.

#include <chrono>
#include <cstring>

#include "check.hpp"

using namespace hub::text;
using namespace hub::protocols;
using namespace hub::hub_v1_wire;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using clock = std::chrono::system_clock;
  std::int64_t ticks = 0;
  if (size < sizeof ticks) return 0;
  std::memcpy(&ticks, data, sizeof ticks);
  const clock::time_point now{clock::duration(ticks)};
  const auto wait = parse_retry_after(text_of(data + sizeof ticks, size - sizeof ticks), now);
  if (wait)
    check(*wait >= hub::duration::zero() && *wait <= std::chrono::hours(24), "a day at most");
  return 0;
}
