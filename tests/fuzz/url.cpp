// SPDX-License-Identifier: MIT
//
// Any text as an address: what is taken prints, and what was printed reads back as the same;
// nothing in it could end a request line or a header. Any text behind or around a secret is
// redacted.

#include <string>
#include <vector>

#include "check.hpp"

using namespace hub::text;
using namespace hub::protocols;
using namespace hub::hub_v1_wire;

namespace {

void read(std::string_view text) {
  const auto parsed = parse_url(text);
  if (!parsed) {
    check(parsed.error().code == hub::errc::invalid_endpoint, "the error's code");
    check(all_of(parsed.error().message, [](char c) { return c >= 0x20 && c <= 0x7E; }),
          "the error is plain text");
    return;
  }
  const std::string printed = parsed->text();
  check(all_of(printed, is_visible), "an address is visible ASCII");
  check(!contains(parsed->host, "@") && !contains(printed, "?") && !contains(printed, "#"),
        "an address holds no user, query or fragment");
  check(parsed->tls == lowered(text).starts_with("https://"), "TLS where it was asked for");
  check(parsed->port >= 1 && parsed->port <= 65535, "a port is one");
  const auto again = parse_url(printed);
  check(again && again->tls == parsed->tls && again->host == parsed->host &&
            again->port == parsed->port && again->path == parsed->path,
        "what was printed reads back");
}

void hide(std::string_view text) {
  const std::vector<std::string> secrets = {"tok.en", "Zq7Xk2Vw9Jr4Hy6Tn8Qb3Gx5", "Zq7X"};
  for (const std::string& secret : secrets) {
    const std::string said = redact(std::string(text) + secret + std::string(text), secrets);
    for (const std::string& each : secrets) check(!contains(said, each), "no secret is said");
    check(redact(said, secrets) == said, "what was redacted stays");
  }
  check(printable(text).size() <= quoted_bytes_max + 3, "foreign text is shown shortened");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = text_of(data, size);
  read(text);
  read("https://" + std::string(text));
  hide(text);
  return 0;
}
