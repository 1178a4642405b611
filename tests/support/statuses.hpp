// SPDX-License-Identifier: MIT
//
// What a reply's status comes to, by a table of the tests' own. It is written from what HTTP says of
// each status and not from the header, whose table it judges: a wrong row there would else be right
// here.

#pragma once

#include "../../hub_session.hpp"

inline hub::verdict verdict_of_status(int status) {
  using enum hub::verdict;
  if (status >= 200 && status < 300) return delivered;
  if (status >= 500 && status < 600)
    return retry;  // the server's own fault, or that of what stands in front of it
  switch (status) {
    case 400:                   // malformed
    case 413:                   // too large
    case 422: return rejected;  // not as the server wants it
    case 408:                   // it took too long
    case 421:                   // it came over the wrong connection
    case 425:                   // too early
    case 429:                   // too many
    case 499: return retry;     // nginx: the client was gone
    default: return denied;     // keys, addresses, redirects: somebody has to do something
  }
}
