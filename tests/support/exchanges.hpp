// SPDX-License-Identifier: MIT
//
// Requests, bodies and servers' scripts for the tests of hub::httplib_transport and of any other
// transport.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "../../hub_session.hpp"
#include "certificates.hpp"
#include "raw_server.hpp"
#include "text.hpp"

namespace hub_test {

using namespace std::chrono_literals;

inline const std::string secret_key = "K3yK3yK3yK3yK3yK3yK3yK3yK3yK3yK3yK3yK3yK3y";

#if !defined(HUB_SESSION_NO_HTTPLIB)
inline hub::httplib_transport trusting(const certificate_authority& authority) {
  return hub::httplib_transport{hub::httplib_options{.ca_file = authority.file()}};
}
#endif

// As patient as can be: what ends an exchange is then the thing under test.
inline hub::request patient(hub::request what) {
  what.connect_timeout = 24h;
  what.stall_timeout = 24h;
  return what;
}

inline hub::request get(std::string url) {
  return patient({.method = "GET", .url = std::move(url), .headers = {{"x-api-key", secret_key}}});
}

inline hub::request post(std::string url, std::string body) {
  return patient({.method = "POST",
                  .url = std::move(url),
                  .headers = {{"x-api-key", secret_key}, {"content-type", "application/json"}},
                  .body = std::move(body)});
}

inline hub::request upload(std::string url, std::shared_ptr<hub::body_source> content) {
  return patient(
      {.method = "POST",
       .url = std::move(url),
       .headers = {{"x-api-key", secret_key}, {"content-type", "application/octet-stream"}},
       .content = std::move(content)});
}

// A script that answers every request on a connection with `answer`.
inline raw_server::script answer_all(std::string answer) {
  return [answer = std::move(answer)](raw_server::connection& client) {
    for (;;) {
      client.read_request();
      client.send(answer);
    }
  };
}

// A script that answers one request and closes.
inline raw_server::script answer_once(std::string answer) {
  return [answer = std::move(answer)](raw_server::connection& client) {
    client.read_request();
    client.send(answer);
  };
}

// FNV-1a, 64 bits: enough to notice a byte that is lost, doubled or out of place.
class checksum {
 public:
  void add(std::string_view text) {
    for (char c : text) state_ = (state_ ^ static_cast<unsigned char>(c)) * 1099511628211U;
  }
  std::uint64_t value() const { return state_; }

 private:
  std::uint64_t state_ = 14695981039346656037U;
};

// A body of any size that needs no memory. May end early: with an error, or with nothing at all.
class pattern_body final : public hub::body_source {
 public:
  enum class ending { whole, error, nothing };

  explicit pattern_body(std::uint64_t size, ending how = ending::whole, std::uint64_t last = 0)
      : size_(size), how_(how), last_(last) {}

  static char byte_at(std::uint64_t offset) {
    return static_cast<char>((offset * 2654435761U >> 11) & 0xFF);
  }

  std::uint64_t checksum_of_all() const {
    checksum sum;
    for (std::uint64_t i = 0; i < size_; ++i) {
      const char c = byte_at(i);
      sum.add({&c, 1});
    }
    return sum.value();
  }

  std::uint64_t size_bytes() const override { return size_; }

  hub::result<std::size_t> read(std::uint64_t offset, std::span<char> out) override {
    ++reads;
    largest_read = std::max(largest_read, out.size());
    if (how_ != ending::whole && offset >= last_) {
      if (++refusals > 1000) std::abort();  // asked for ever
      if (how_ == ending::error) return hub::error{hub::errc::file_changed, "the pattern changed"};
      return std::size_t{0};
    }
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), size_ - offset));
    for (std::size_t i = 0; i < count; ++i) out[i] = byte_at(offset + i);
    return count;
  }

  std::size_t reads = 0;
  std::size_t largest_read = 0;
  int refusals = 0;

 private:
  std::uint64_t size_;
  ending how_;
  std::uint64_t last_;
};

// Keeps what comes; refuses it at the head, or once there are so many bytes.
struct memory_sink final : hub::body_sink {
  std::optional<hub::error> begin(const hub::reply& what) override {
    ++begun;
    head = what;
    if (refuses_head) return hub::error{hub::errc::bad_reply, "no such head is wanted"};
    return std::nullopt;
  }
  std::optional<hub::error> write(std::string_view piece) override {
    if (throws) throw std::bad_alloc();
    body += piece;
    if (body.size() >= full_at) return hub::error{hub::errc::file_error, "it is full"};
    return std::nullopt;
  }

  bool refuses_head = false;
  bool throws = false;
  std::size_t full_at = SIZE_MAX;
  int begun = 0;
  hub::reply head;
  std::string body;
};

// For CHECK: a code reads better than a number, and "none" better than a crash.
inline std::string failure_of(const hub::reply& answer) {
  return answer.failure ? std::string(to_string(answer.failure->code)) : "none";
}

inline std::string message_of(const hub::reply& answer) {
  return answer.failure ? answer.failure->message : std::string();
}

inline std::size_t count_of(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size())
    ++count;
  return count;
}

}  // namespace hub_test
