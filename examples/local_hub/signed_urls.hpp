// SPDX-License-Identifier: MIT
//
// Addresses that let in whoever has them, for a while: a path, when it ends, and a signature over
// both. The key to it is made anew with every process, so a restart ends them all; clients ask for
// fresh ones.

#pragma once

#include "hub_session.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

namespace local_hub {

class url_signer {
 public:
  explicit url_signer(std::string key) : key_(std::move(key)) {}

  std::string sign(std::string_view path) const {
    const auto end = std::chrono::system_clock::now().time_since_epoch() + life;
    return with_signature(std::string(path) + "?expires=" +
                          std::to_string(std::chrono::ceil<std::chrono::seconds>(end).count()));
  }

  // The path of an address that was signed here and has not ended.
  std::optional<std::string> path_of(std::string_view target) const {
    constexpr std::string_view mark = "?expires=";
    const std::size_t query = target.find(mark);
    const std::size_t tail = target.find(signature_mark);
    if (query == target.npos || tail == target.npos || tail < query) return std::nullopt;
    const std::string right = with_signature(std::string(target.substr(0, tail)));
    if (right.size() != target.size() ||
        CRYPTO_memcmp(right.data(), target.data(), right.size()) != 0)
      return std::nullopt;
    const auto end =
        hub::text::parse_size(target.substr(query + mark.size(), tail - query - mark.size()));
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    if (!end || std::chrono::seconds(*end) <= now) return std::nullopt;
    return std::string(target.substr(0, query));
  }

 private:
  static constexpr std::chrono::seconds life{900};  // as long as HUB's
  static constexpr std::string_view signature_mark = "&signature=";

  std::string with_signature(std::string text) const {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()),
         reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
    text += signature_mark;
    constexpr std::string_view digits = "0123456789abcdef";
    for (unsigned int i = 0; i < size; ++i) {
      text += digits[digest[i] >> 4];
      text += digits[digest[i] & 15];
    }
    return text;
  }

  std::string key_;
};

}  // namespace local_hub
