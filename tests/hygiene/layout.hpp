// SPDX-License-Identifier: MIT
//
// What must be the same in every translation unit, whatever switches it includes the header with.
// Everything here has internal linkage: each translation unit has its own, made of what it sees.

#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "../../hub_session.hpp"

namespace {

using layout = std::map<std::string, std::size_t>;

template <class Whole, class Part>
std::size_t offset(const Whole& whole, const Part& part) {
  return static_cast<std::size_t>(reinterpret_cast<const char*>(&part) -
                                  reinterpret_cast<const char*>(&whole));
}

template <class T>
void add_size(layout& out, const char* name) {
  out[std::string("size of ") + name] = sizeof(T);
  out[std::string("alignment of ") + name] = alignof(T);
}

[[maybe_unused]] layout interface_layout_here() {
  layout out;
  add_size<hub::session_options>(out, "session_options");
  add_size<hub::session_status>(out, "session_status");
  add_size<hub::delivery>(out, "delivery");
  add_size<hub::train_args>(out, "train_args");
  add_size<hub::model_info>(out, "model_info");
  add_size<hub::request>(out, "request");
  add_size<hub::reply>(out, "reply");
  add_size<hub::error>(out, "error");
  add_size<hub::any_transport>(out, "any_transport");

  const hub::session_options options;
  out["endpoints"] = offset(options, options.endpoints);
  out["credentials"] = offset(options, options.credentials);
  out["rate_limits"] = offset(options, options.rate_limits);
  out["retry"] = offset(options, options.retry);
  out["limits"] = offset(options, options.limits);
  out["snapshot"] = offset(options, options.snapshot);
  out["temp_folder"] = offset(options, options.temp_folder);
  out["log"] = offset(options, options.log);
  out["progress"] = offset(options, options.progress);
  out["handle_signals"] = offset(options, options.handle_signals);
  out["rank"] = offset(options, options.rank);
  return out;
}

#if !defined(HUB_SESSION_INTERFACE_ONLY)
[[maybe_unused]] layout layout_here() {
  layout out = interface_layout_here();
  add_size<hub::testing::training_session>(out, "testing::training_session");
  add_size<hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                       hub::testing::virtual_sleeper>>(
      out, "a session on any_transport");
  add_size<hub::basic_training_session<hub::any_transport, hub::steady_clock, hub::thread_sleeper>>(
      out, "a session on real time");
  add_size<hub::engine>(out, "engine");
  add_size<hub::testing::simulation>(out, "testing::simulation");
  return out;
}
#endif

}  // namespace

// What two.cpp has for one.cpp.
layout layout_with_httplib();
void report_with_httplib(hub::training_callbacks& session, int epoch);
hub::any_transport transport_with_httplib();

// What three.cpp has for it.
layout layout_with_interface();
void report_with_interface(hub::training_callbacks& session, int epoch);
