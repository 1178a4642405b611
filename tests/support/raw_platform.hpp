// SPDX-License-Identifier: MIT
//
// The test kit's Platform and its storage host behind a faulty_wire.

#pragma once

#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../../hub_session.hpp"
#include "faulty_wire.hpp"

namespace hub_test {

class raw_platform {
 public:
  static inline const std::string api_key = "ul_" + std::string(40, '7');

  // Where no port is given, the system picks one.
  explicit raw_platform(int port = 0) {
    logic_.add_key(api_key, "lab");
    logic_.keep_contents = true;
    logic_.url_to_put = [this](const hub::testing::platform_upload& upload, hub::time_point) {
      return root() + storage + upload.upload_path;
    };
    const std::lock_guard lock(mutex_);  // no request before wire_ is there
    wire_.emplace(
        storage,
        [this](const std::string& head, const std::string& body) { return answer(head, body); },
        port);
  }
  raw_platform(const raw_platform&) = delete;
  raw_platform& operator=(const raw_platform&) = delete;
  ~raw_platform() { wire_.reset(); }

  faulty_wire& wire() { return *wire_; }
  const faulty_wire& wire() const { return *wire_; }
  std::string root() const { return wire_->root(); }

  // What it took in so far.
  std::vector<hub::testing::platform_model> models() const {
    const std::lock_guard lock(mutex_);
    std::vector<hub::testing::platform_model> out;
    for (const auto& [id, model] : logic_.models()) out.push_back(model);
    return out;
  }
  // What it had to refuse, and keys at the storage host.
  std::vector<std::string> problems() const {
    const std::lock_guard lock(mutex_);
    return problems_;
  }

 private:
  static inline const std::string storage = "/storage/";

  std::string answer(const std::string& head, const std::string& body) {
    const std::lock_guard lock(mutex_);
    const auto what = request_of(head);
    const auto out = what.path.starts_with(storage) ? take_file(what, body) : act(what, body);
    if (out.status >= 300) problems_.push_back(what.path + ": " + out.body);
    return http_reply(out.status, out.body);
  }

  hub::testing::server_reply act(hub::testing::server_request what, const std::string& body) {
    what.body = body;
    return logic_.handle(what, std::chrono::steady_clock::now());
  }

  hub::testing::server_reply take_file(const hub::testing::server_request& what,
                                       const std::string& body) {
    if (!what.authorization.empty()) problems_.emplace_back("a key was sent to the storage host");
    auto decision = logic_.decide_file(
        what.path.substr(storage.size()),
        {.content = body, .size_bytes = body.size(), .hash = hub::testing::content_hash(body)},
        std::chrono::steady_clock::now());
    if (decision.change) logic_.apply(*std::move(decision.change));
    return decision.reply;
  }

  mutable std::mutex mutex_;
  hub::testing::platform_logic logic_;
  std::vector<std::string> problems_;
  std::optional<faulty_wire> wire_;
};

}  // namespace hub_test
