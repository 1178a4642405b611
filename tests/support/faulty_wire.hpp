// SPDX-License-Identifier: MIT
//
// A server for the Platform's clients of which requests fail as a test says, on the wire, before or
// after they were acted on. Who acts on them is for the owner to say.

#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
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
  answered,    // with other bytes than the server's, which did not act on it
  cut,         // the connection is reset, and it was not acted on
  cut_reply,   // it was acted on, and half of the reply comes
  lost_reply,  // it was acted on, and no reply comes
  hangs,       // it was not acted on, and no reply comes for as long as the client waits
};

class faulty_wire {
 public:
  // Acts on a request and returns the whole reply. Called from the threads of several connections.
  using act = std::function<std::string(const std::string& head, const std::string& body)>;

  // Files are put below this path. Where no port is given, the system picks one.
  faulty_wire(std::string storage, act answer, int port = 0)
      : storage_(std::move(storage)), answer_(std::move(answer)) {
    server_.emplace([this](raw_server::connection& client) { serve(client); }, std::nullopt, port);
  }
  faulty_wire(const faulty_wire&) = delete;
  faulty_wire& operator=(const faulty_wire&) = delete;
  ~faulty_wire() { server_.reset(); }

  std::string root() const { return server_->url(""); }

  // The next requests of a call fail so: an event by its name, "upload" or "storage".
  void fail(std::string call, wire_fault how, std::size_t times, std::string bytes = "") {
    const std::lock_guard lock(mutex_);
    faults_.push_back({std::move(call), how, times, std::move(bytes)});
  }
  bool has_faults_left() const {
    const std::lock_guard lock(mutex_);
    return std::any_of(faults_.begin(), faults_.end(),
                       [](const fault& each) { return each.times > 0; });
  }

  // The calls that came, failed ones among them.
  std::vector<std::string> calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

 private:
  struct fault {
    std::string call;
    wire_fault how;
    std::size_t times;
    std::string bytes;
  };

  void serve(raw_server::connection& client) {
    for (;;) {
      const std::string head = client.read_head();
      const std::string body = client.read_body(head);
      const std::optional<fault> meets = note_call(call_of(request_of(head).path, body));
      if (meets && meets->how == wire_fault::cut) return client.reset();
      if (meets && meets->how == wire_fault::hangs) client.hang();
      if (meets && meets->how == wire_fault::answered) {
        client.send(meets->bytes);
        continue;
      }
      const std::string reply = answer_(head, body);
      if (meets && meets->how == wire_fault::lost_reply) return client.reset();
      if (meets) return client.send(reply.substr(0, reply.size() / 2));
      client.send(reply);
    }
  }

  std::string call_of(std::string_view path, const std::string& body) const {
    if (path.starts_with(storage_)) return "storage";
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

  const std::string storage_;
  const act answer_;
  mutable std::mutex mutex_;
  std::vector<fault> faults_;
  std::vector<std::string> calls_;
  std::optional<raw_server> server_;
};

}  // namespace hub_test
