// SPDX-License-Identifier: MIT
//
// A file that is held in memory, for tests of what is built around files.

#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "../../hub_session.hpp"

// Hands out its text in pieces of at most `piece_bytes_max`, as a slow disk would.
class memory_body final : public hub::body_source {
 public:
  explicit memory_body(std::string text, std::size_t piece_bytes_max = SIZE_MAX)
      : text_(std::move(text)), piece_bytes_max_(piece_bytes_max) {}

  std::uint64_t size_bytes() const override { return text_.size(); }
  hub::result<std::size_t> read(std::uint64_t offset, std::span<char> out) override {
    const std::string_view rest = std::string_view(text_).substr(static_cast<std::size_t>(offset));
    return rest.copy(out.data(), std::min(out.size(), piece_bytes_max_));
  }

 private:
  std::string text_;
  std::size_t piece_bytes_max_;
};

// All of a body, read in pieces of at most `piece_bytes`. Stops where a read makes no progress.
inline hub::result<std::string> read_all(hub::body_source& body, std::size_t piece_bytes = 4096) {
  std::string whole;
  std::string piece(piece_bytes, '\0');
  while (whole.size() < body.size_bytes()) {
    const auto got = body.read(whole.size(), piece);
    if (!got) return got.error();
    if (*got == 0) break;
    whole.append(piece, 0, *got);
  }
  return whole;
}
