// SPDX-License-Identifier: MIT
//
// A transport that a referee watches. Each lane has a copy of its own, and `Which` is what the referee
// tells lanes apart by.

#pragma once

#include <optional>

#include "../../hub_session.hpp"

namespace simulate {

template <class Referee, class Which>
class watched_transport {
 public:
  explicit watched_transport(Referee& watch) : watch_(&watch) {}
  watched_transport(const watched_transport& other) : watch_(other.watch_) {}
  watched_transport& operator=(const watched_transport&) = delete;

  hub::reply send(const hub::request& what) {
    if (cancelled_)
      return {.failure = hub::error{hub::errc::cancelled, "The request was given up."}};
    return watch_->exchange(what, last_);
  }

  void cancel() noexcept {
    cancelled_ = true;
    if (last_) watch_->cut(*last_);
  }

 private:
  Referee* watch_;
  std::optional<Which> last_ = {};
  bool cancelled_ = false;
};

}  // namespace simulate
