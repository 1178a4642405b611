// SPDX-License-Identifier: MIT
//
// The test kit's Platform and its storage host behind a raw_server: requests fail as a test says, on
// the wire, before or after they were acted on.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../../hub_session.hpp"
#include "raw_hub.hpp"
#include "raw_server.hpp"

namespace hub_test {

// How one request fails.
enum class wire_fault {
  answered,    // with other bytes than the Platform's, which did not act on it
  cut,         // the connection is reset, and it was not acted on
  cut_reply,   // it was acted on, and half of the reply comes
  lost_reply,  // it was acted on, and no reply comes
  hangs,       // it was not acted on, and no reply comes for as long as the client waits
};

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
    const std::lock_guard lock(mutex_);  // no request before server_ is there
    server_.emplace([this](raw_server::connection& client) { serve(client); }, std::nullopt, port);
  }
  raw_platform(const raw_platform&) = delete;
  raw_platform& operator=(const raw_platform&) = delete;
  ~raw_platform() { server_.reset(); }

  std::string root() const { return server_->url(""); }

  // The next requests of a call fail so: an event by its name, "upload" or "storage".
  void fail(std::string call, wire_fault how, std::size_t times, std::string bytes = "") {
    const std::lock_guard lock(mutex_);
    faults_.push_back({std::move(call), how, times, std::move(bytes)});
  }

  // What it took in so far.
  std::vector<hub::testing::platform_model> models() const {
    const std::lock_guard lock(mutex_);
    std::vector<hub::testing::platform_model> out;
    for (const auto& [id, model] : logic_.models()) out.push_back(model);
    return out;
  }
  // The calls that came, failed ones among them.
  std::vector<std::string> calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  // What it had to refuse, and keys at the storage host.
  std::vector<std::string> problems() const {
    const std::lock_guard lock(mutex_);
    return problems_;
  }
  bool has_faults_left() const {
    const std::lock_guard lock(mutex_);
    return std::any_of(faults_.begin(), faults_.end(),
                       [](const fault& each) { return each.times > 0; });
  }

 private:
  static inline const std::string storage = "/storage/";

  struct fault {
    std::string call;
    wire_fault how;
    std::size_t times;
    std::string bytes;
  };

  void serve(raw_server::connection& client) {
    for (;;) {
      const std::string head = client.read_head();
      const auto what = request_of(head);
      const std::string body = client.read_body(head);
      const std::optional<fault> meets = note_call(call_of(what.path, body));
      if (meets && meets->how == wire_fault::cut) return client.reset();
      if (meets && meets->how == wire_fault::hangs) client.hang();
      if (meets && meets->how == wire_fault::answered) {
        client.send(meets->bytes);
        continue;
      }
      const std::string reply = answer(what, body);
      if (meets && meets->how == wire_fault::lost_reply) return client.reset();
      if (meets) return client.send(reply.substr(0, reply.size() / 2));
      client.send(reply);
    }
  }

  static std::string call_of(std::string_view path, const std::string& body) {
    if (path.starts_with(storage)) return "storage";
    if (path.ends_with("/models/upload")) return "upload";
    const auto said = hub::text::parse_json(body);
    return said ? hub::text::get_string(*said, "event") : std::string(path);
  }

  // Returns the fault that it meets, if any.
  std::optional<fault> note_call(const std::string& call) {
    const std::lock_guard lock(mutex_);
    calls_.push_back(call);
    for (fault& each : faults_)
      if (each.call == call && each.times > 0) {
        --each.times;
        return each;
      }
    return std::nullopt;
  }

  std::string answer(const hub::testing::server_request& what, const std::string& body) {
    const std::lock_guard lock(mutex_);
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
  std::vector<fault> faults_;
  std::vector<std::string> calls_;
  std::vector<std::string> problems_;
  std::optional<raw_server> server_;
};

}  // namespace hub_test
