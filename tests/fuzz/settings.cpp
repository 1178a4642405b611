// SPDX-License-Identifier: MIT
//
// Any text as a settings file, JSON and YAML, and a key to put in it: whatever the file, the key is
// read back and nothing else is changed, or the file is left alone.

#include <string>

#include "check.hpp"

using namespace hub::text;
using namespace hub::protocols;
using namespace hub::hub_v1_wire;
using namespace hub::storage_host;
using namespace hub::machine;
using namespace hub::storage_host;
using namespace hub::machine;

namespace {

const std::string key = "Zq7Xk2Vw9Jr4Hy6Tn8Qb3Gx5Wd1Kz0Mv7Pf2Yj4Lc8";

// Whether a YAML file is as it was but for the value, or for the place where it was put in.
bool is_else_the_same(std::string_view before, std::string_view after) {
  const yaml_reader settings(before);
  const auto [begin, length] =
      settings.api_key() ? settings.api_key()->where : hub::text::extent{settings.room(), 0};
  return after.starts_with(before.substr(0, begin)) &&
         after.ends_with(before.substr(begin + length));
}

void replace_in(std::string_view text, settings_format format) {
  static_cast<void>(find_api_key(text, format));
  const auto replaced = replace_api_key(text, key, format);
  if (!replaced) return;
  check(find_api_key(*replaced, format) == key, "the key is read back");
  const auto again = replace_api_key(*replaced, key, format);
  check(again && *again == *replaced, "the same key again changes nothing");
  if (format == settings_format::yaml_text) {
    check(is_else_the_same(text, *replaced), "everything else is as it was");
    return;
  }
  json before = parse_json(text).value_or(json::object());
  json after = parse_json(*replaced).value_or(json());
  check(after.is_object(), "JSON stays JSON");
  before.erase("api_key");
  after.erase("api_key");
  check(before == after, "every other setting is as it was");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = text_of(data, size);
  replace_in(text, settings_format::json_text);
  replace_in(text, settings_format::yaml_text);
  return 0;
}
