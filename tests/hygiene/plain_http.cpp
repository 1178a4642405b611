// SPDX-License-Identifier: MIT
//
// A program with HUB_SESSION_NO_OPENSSL, which tests/packaging.sh links without OpenSSL: a session over
// plain HTTP, and the refusal of whatever would need TLS. Not a test of Catch2, as a program that people
// compile so is not one either. Exit code 0 if all is as it has to be.

#if !defined(HUB_SESSION_NO_OPENSSL)
#define HUB_SESSION_NO_OPENSSL
#endif
#include "../../hub_session.hpp"

#include <chrono>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include <httplib.h>

namespace {

int failures = 0;

void check(bool as_it_has_to_be, const std::string& what) {
  if (as_it_has_to_be) return;
  ++failures;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
}

// The test kit's HUB on a port of 127.0.0.1.
class plain_hub {
 public:
  hub::testing::simulation in_memory;

  plain_hub() {
    const auto answer = [this](const httplib::Request& asked, httplib::Response& out) {
      const std::lock_guard lock(mutex_);
      ++asked_;
      hub::request message{.method = asked.method,
                           .url = std::string(hub::testing::fake_hub::api_root) + asked.path,
                           .body = asked.body};
      for (const char* name : {"x-api-key", "authorization", "content-type", "user-agent"})
        if (asked.has_header(name))
          message.headers.emplace_back(name, asked.get_header_value(name));
      const hub::reply reply = transport_.send(message);
      out.status = reply.status;
      out.set_content(reply.body, "application/json");
    };
    server_.Get("/.*", answer);
    server_.Post("/.*", answer);
    port_ = server_.bind_to_any_port("127.0.0.1");
    listens_ = std::thread([this] { server_.listen_after_bind(); });
  }
  plain_hub(const plain_hub&) = delete;
  plain_hub& operator=(const plain_hub&) = delete;
  ~plain_hub() {
    server_.stop();
    listens_.join();
  }

  std::string address(const std::string& scheme) const {
    return scheme + "://127.0.0.1:" + std::to_string(port_);
  }
  int asked() {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  hub::testing::fake_transport transport_{in_memory.hub};
  httplib::Server server_;
  std::mutex mutex_;
  std::thread listens_;
  int port_ = 0;
  int asked_ = 0;
};

hub::session_options options(plain_hub& hub, const std::string& scheme) {
  hub::session_options out = hub.in_memory.options();
  out.endpoints = {.api = hub.address(scheme), .web = hub.address(scheme)};
  return out;
}

void reports_over_http(plain_hub& hub) {
  const std::string id = hub.in_memory.hub.add_model({.epochs = 1});
  {
    hub::training_session session(id, options(hub, "http"));
    session.on_pretrain_routine_end();
    session.on_fit_epoch_end(0, {{"train/loss", 0.5}});
    session.on_train_end(0, "there-is-no-such-file.pt", 0.5);
  }
  check(hub.in_memory.hub.model(id).metrics.size() == 1, "the metrics are there");
}

void refuses_https(plain_hub& hub) {
  const int before = hub.asked();
  try {
    const hub::training_session session("abcdefghij0123456789", options(hub, "https"));
    check(false, "a session with an https address is refused");
  } catch (const hub::session_error& problem) {
    const std::string said = problem.what();
    check(said.find("HUB_SESSION_NO_OPENSSL") != std::string::npos, "the switch is named: " + said);
    check(said.find(hub.address("https")) != std::string::npos, "the address is named: " + said);
    check(said.find(hub::testing::fake_hub::api_key) == std::string::npos, "the key is not told");
  }
  check(hub.asked() == before, "nothing was sent");
}

void refuses_options(plain_hub& hub) {
  const hub::request message{.method = "GET", .url = hub.address("http")};
  const int before = hub.asked();
  for (const auto& given : {hub::httplib_options{.ca_file = "ca.pem"},
                            hub::httplib_options{.client_certificate_file = "own.pem"},
                            hub::httplib_options{.client_key_file = "key.pem"}}) {
    const hub::reply reply = hub::httplib_transport(given).send(message);
    check(reply.failure && reply.failure->code == hub::errc::invalid_credentials &&
              reply.failure->message.find("HUB_SESSION_NO_OPENSSL") != std::string::npos,
          "what is for TLS is refused");
  }
  check(hub.asked() == before, "nothing was sent with it");
}

}  // namespace

int main() {
  plain_hub hub;
  reports_over_http(hub);
  refuses_https(hub);
  refuses_options(hub);
  static_cast<void>(hub.in_memory.hub.problems());
  return failures == 0 ? 0 : 1;
}
