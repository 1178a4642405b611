// SPDX-License-Identifier: MIT
//
// Any text as an identifier, and as one behind a key: what is taken is a model's id and perhaps a
// key, and what is refused is refused in plain text that holds no key.

#include <string>

#include "check.hpp"

using namespace hub::text;
using namespace hub::protocols;
using namespace hub::hub_v1_wire;

namespace {

const std::string key = "Zq7Xk2Vw9Jr4Hy6Tn8Qb3Gx5Wd1Kz0Mv7Pf2Yj4Lc8";

void read(std::string_view text) {
  const auto named = parse_identifier(text, default_web_root);
  if (named) {
    const identifier& found = *named;
    check(found.model_id.size() == model_id_length, "a model id has its length");
    check(all_of(found.model_id, is_alphanumeric), "a model id is letters and digits");
    if (text.find("://") != text.npos)
      return;  // where escapes are undone, and the query has its key
    check(found.api_key.empty() || found.api_key.size() == api_key_length, "a key has its length");
    check(all_of(found.api_key, is_alphanumeric), "a key is letters and digits");
    check(contains(text, found.model_id) && contains(text, found.api_key), "both are in the text");
    const auto again =
        parse_identifier((found.api_key.empty() ? "" : found.api_key + "_") + found.model_id, "");
    check(again && again->model_id == found.model_id && again->api_key == found.api_key,
          "what was read reads back");
  } else {
    check(named.error().code == hub::errc::invalid_identifier, "the error's code");
    check(all_of(named.error().message, [](char c) { return c >= 0x20 && c <= 0x7E; }),
          "the error is plain text");
    check(named.error().message.size() < 1024, "the error is short");
    // What is no longer than an id may be shown, as it may be a mistyped one.
    for (std::size_t at = 0; at + model_id_length < key.size(); ++at)
      check(!contains(named.error().message, std::string_view(key).substr(at, model_id_length + 1)),
            "the error holds no key");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = text_of(data, size);
  read(text);
  read(key + std::string(text));
  read(std::string(text) + key);
  return 0;
}
