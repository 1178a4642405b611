// SPDX-License-Identifier: MIT
//
// The test kit's HUB behind a raw_server: it can be cut off at any moment and started again at the
// same port, with everything that it took in, and it can leave its clients hanging.

#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "../../hub_session.hpp"
#include "raw_server.hpp"

namespace hub_test {

// The value of a header, "" where there is none. Names come as the session writes them.
inline std::string header_of(std::string_view head, std::string_view name) {
  const std::string line = "\r\n" + std::string(name) + ": ";
  const std::size_t at = head.find(line);
  if (at == std::string_view::npos) return {};
  const std::size_t begin = at + line.size();
  return std::string(head.substr(begin, head.find("\r\n", begin) - begin));
}

// What a head asks for, for the test kit's servers.
inline hub::testing::server_request request_of(const std::string& head) {
  const std::size_t path = head.find(' ') + 1;
  return {.method = head.substr(0, path - 1),
          .path = head.substr(path, head.find(' ', path) - path),
          .authorization = header_of(head, "authorization")};
}

class raw_hub {
 public:
  static inline const std::string token = "token.of-RAW_hub";
  static inline const std::string model_id = "abcdefghij0123456789";

  // Every server shows the same certificate, if one is given.
  explicit raw_hub(const std::optional<tls_settings>& tls = {}) : tls_(tls) {
    logic_.add_token(token);
    logic_.add_model({.id = model_id});
    start();
  }
  raw_hub(const raw_hub&) = delete;
  raw_hub& operator=(const raw_hub&) = delete;
  ~raw_hub() { stop(); }

  void start() {
    server_.emplace([this](raw_server::connection& client) { serve(client); }, tls_, port());
  }

  // Cuts every connection wherever it is, as when the power goes.
  void stop() {
    release();
    server_.reset();
  }

  int port() const { return place_.port(); }
  std::string root() const {
    return (tls_ ? "https" : "http") + std::string("://127.0.0.1:") + std::to_string(port());
  }

  // From now on no POST is answered, until release().
  void hold() {
    const std::lock_guard lock(mutex_);
    holding_ = true;
  }
  void release() {
    const std::lock_guard lock(mutex_);
    holding_ = false;
    changed_.notify_all();
  }
  // Blocks until so many requests are held back at once; false where that does not happen.
  bool wait_for_held(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return held_ == count; });
  }

  // What it took in so far.
  hub::testing::hub_model model() {
    const std::lock_guard lock(mutex_);
    return logic_.model(model_id);
  }
  // How many requests it has answered, and how many of them with a refusal.
  std::size_t answered() const {
    const std::lock_guard lock(mutex_);
    return answered_;
  }
  std::size_t refused() const {
    const std::lock_guard lock(mutex_);
    return refused_;
  }

 private:
  void serve(raw_server::connection& client) {
    for (;;) {
      const std::string head = client.read_head();
      const std::string body = client.read_body(head);
      if (head.starts_with("POST")) wait_for_release();
      client.send(answer(head, body));
    }
  }

  void wait_for_release() {
    std::unique_lock lock(mutex_);
    if (!holding_) return;
    ++held_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !holding_; });
    --held_;
  }

  std::string answer(const std::string& head, const std::string& body) {
    hub::testing::server_request what = request_of(head);
    constexpr std::string_view multipart = "multipart/form-data; boundary=";
    const std::string type = header_of(head, "content-type");
    if (type.starts_with(multipart))
      what.form = hub::testing::parse_form(body, type.substr(multipart.size())).value();
    else
      what.body = body;
    const std::lock_guard lock(mutex_);
    const auto out = logic_.handle(what, std::chrono::steady_clock::now());
    ++answered_;
    if (out.status >= 300) ++refused_;
    return http_reply(out.status, out.body);
  }

  const std::optional<tls_settings> tls_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  hub::testing::hub_logic logic_;
  bool holding_ = false;
  std::size_t held_ = 0;
  std::size_t answered_ = 0;
  std::size_t refused_ = 0;
  const bound_socket place_;  // also while there is no server
  std::optional<raw_server> server_;
};

}  // namespace hub_test
