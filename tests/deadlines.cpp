// SPDX-License-Identifier: MIT
//
// on_train_end and the destructor end by their deadlines, wherever every lane hangs: in the look-up
// of a name, in a connection, in a handshake, in an upload, in a slow reply. That they end, and with
// what, is tested always; how late they are is measured in the long variant (HUB_TEST_LONG), which
// prints it and allows 50 ms.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <netdb.h>
#include <time.h>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "support/raw_hub.hpp"
#include "support/raw_server.hpp"
#include "support/scratch.hpp"
#include "support/stalls.hpp"

using namespace hub_test;
using namespace std::chrono_literals;

namespace {

std::atomic<std::size_t> names_asked_for = 0;

}  // namespace

// In this program no name is ever found, and no look-up ends: these take the place of glibc's. The
// servers of the tests are found by their addresses.
extern "C" {
int getaddrinfo_a(int, gaicb**, int, sigevent*) {
  ++names_asked_for;
  return 0;
}
int gai_error(gaicb*) noexcept { return EAI_INPROGRESS; }
int gai_cancel(gaicb*) noexcept { return EAI_NOTCANCELED; }
int gai_suspend(const gaicb* const*, int, const timespec* timeout) {
  ::nanosleep(timeout, nullptr);
  return EAI_AGAIN;
}
}

namespace {

// Asks the HUB for the model and sends everything else to where it hangs.
class detour {
 public:
  detour(hub::httplib_transport transport, std::string elsewhere)
      : transport_(std::move(transport)), elsewhere_(std::move(elsewhere)) {}
  hub::reply send(const hub::request& what) {
    hub::request sent = what;
    if (what.method != "GET") sent.url = elsewhere_;
    return transport_.send(sent);
  }
  void cancel() noexcept { transport_.cancel(); }

 private:
  hub::httplib_transport transport_;
  std::string elsewhere_;
};

using session =
    hub::basic_training_session<hub::any_transport, hub::steady_clock, hub::thread_sleeper>;

// A place where every lane of a session hangs.
struct trap {
  std::string name;
  std::string url;
  bool uploads = false;
  std::function<void()> wait_until_caught = {};  // until two lanes are there
};

constexpr std::size_t lanes_caught = 2;  // the heartbeat, and what the test is about

class surroundings {
 public:
  surroundings() {
    std::ofstream(checkpoint()) << 'm';
    std::filesystem::resize_file(checkpoint(), 1 << 30);  // takes no room
  }

  std::filesystem::path checkpoint() const { return folder_ / "best.pt"; }

  std::unique_ptr<session> start(const trap& where, hub::duration deadline) {
    hub::session_options options;
    options.endpoints = {.api = hub_.root(), .web = hub_.root()};
    options.credentials = {.id_token = raw_hub::token};
    options.rate_limits = {.metrics = 0s, .checkpoint = 0s, .heartbeat = 1h};
    options.limits.connect_timeout = 1h;
    options.limits.stall_timeout = 1h;
    options.limits.request_deadline = 1h;
    options.limits.shutdown_deadline = deadline;
    options.limits.train_end_deadline = deadline;
    options.snapshot = hub::snapshot::none;
    options.log = [](hub::log_level, std::string_view) {};
    options.progress = [](const hub::transfer_progress&) {};
    auto out = std::make_unique<session>(
        raw_hub::model_id, std::move(options),
        detour(hub::httplib_transport{hub::httplib_options{.ca_file = authority.file()}},
               where.url));
    if (where.uploads)
      out->upload_model(0, checkpoint(), false);
    else
      out->on_fit_epoch_end(0, {{"loss", 1}});
    where.wait_until_caught();
    return out;
  }

  certificate_authority authority = {};

 private:
  scratch_folder folder_;
  raw_hub hub_;
};

// Tells how much longer than `deadline` the call took.
hub::duration lateness(hub::duration deadline, const std::function<void()>& call) {
  const auto began = std::chrono::steady_clock::now();
  call();
  return std::chrono::steady_clock::now() - began - deadline;
}

double milliseconds(hub::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

// Ends a session in both ways where every lane hangs, as often as asked for.
void end_in(surroundings& at, const std::function<trap()>& make_trap, int times) {
  constexpr hub::duration deadline = 50ms;
  constexpr hub::duration allowed = 50ms;
  hub::duration train_end = hub::duration::min();
  hub::duration destructor = hub::duration::min();
  std::string name;
  for (int i = 0; i < times; ++i) {
    const trap where = make_trap();
    name = where.name;
    INFO(where.name);
    auto ended = at.start(where, deadline);
    hub::delivery delivered;
    train_end = std::max(train_end, lateness(deadline, [&] {
                           delivered = ended->on_train_end(0, at.checkpoint(), 0.5);
                         }));
    CHECK_FALSE(delivered.complete());
    CHECK(delivered.final_model_wanted);
    CHECK_FALSE(delivered.final_model_delivered);
    CHECK(delivered.epochs_queued == (where.uploads ? 0 : 1));
    ended.reset();

    const trap again = make_trap();
    auto destroyed = at.start(again, deadline);
    destructor = std::max(destructor, lateness(deadline, [&] { destroyed.reset(); }));
  }
  if (!long_variant()) return;
  std::printf("%-45s on_train_end %+6.1f ms, destructor %+6.1f ms\n", name.c_str(),
              milliseconds(train_end), milliseconds(destructor));
  CHECK(train_end <= allowed);
  CHECK(destructor <= allowed);
}

int times() { return long_variant() ? 20 : 1; }

}  // namespace

TEST_CASE("a session ends by its deadlines wherever a server leaves it") {
  surroundings at;
  const server_identity identity = at.authority.issue();
  for (const stall& where : all_stalls()) {
    std::unique_ptr<raw_server> server;
    end_in(
        at,
        [&] {
          server = std::make_unique<raw_server>(
              where.script, where.tls ? std::optional(tls_settings{identity}) : std::nullopt);
          return trap{std::string(where.name) + ", " + where.scheme, server->url("/", where.scheme),
                      where.uploads, [&] { server->wait_for_marks(lanes_caught); }};
        },
        times());
  }
}

TEST_CASE("a session ends by its deadlines while it connects") {
  surroundings at;
  for (const std::string scheme : {"http", "https"}) {
    std::unique_ptr<deaf_port> deaf;
    end_in(
        at,
        [&] {
          deaf = std::make_unique<deaf_port>();
          return trap{"in the connection, " + scheme,
                      scheme + "://127.0.0.1:" + std::to_string(deaf->port()) + "/", false,
                      [&] { deaf->wait_for_connecting(1 + lanes_caught); }};
        },
        times());
  }
}

#if defined(__GLIBC__)
TEST_CASE("a session ends by its deadlines while it looks a name up") {
  surroundings at;
  end_in(
      at,
      [] {
        names_asked_for = 0;
        return trap{"in the look-up of a name", "http://name.invalid/", false, [] {
                      while (names_asked_for < lanes_caught) std::this_thread::yield();
                    }};
      },
      times());
}
#endif
