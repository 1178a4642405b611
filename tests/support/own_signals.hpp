// SPDX-License-Identifier: MIT
//
// A test's children meet signals as programs that a user starts do, whatever became of them where the
// tests were started: `nohup` has SIGHUP ignored, a shell's `&` SIGINT, and both are inherited.

#pragma once

#include <csignal>

#include <spawn.h>

namespace hub_test {

// For posix_spawn: the signals that end a program from outside do so, and none is blocked. The others
// stay as the test has set them.
class own_signals {
 public:
  own_signals() {
    sigset_t ending;
    sigset_t none;
    ::sigemptyset(&ending);
    for (int each : {SIGHUP, SIGINT, SIGQUIT, SIGTERM}) ::sigaddset(&ending, each);
    ::sigemptyset(&none);
    ::posix_spawnattr_init(&value_);
    ::posix_spawnattr_setsigdefault(&value_, &ending);
    ::posix_spawnattr_setsigmask(&value_, &none);
    ::posix_spawnattr_setflags(&value_, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  }
  own_signals(const own_signals&) = delete;
  own_signals& operator=(const own_signals&) = delete;
  ~own_signals() { ::posix_spawnattr_destroy(&value_); }

  const posix_spawnattr_t* get() const { return &value_; }

 private:
  posix_spawnattr_t value_;
};

}  // namespace hub_test
