// SPDX-License-Identifier: MIT
//
// Tests of text: addresses, what may be shown, and JSON from outside. Where a test walks through
// thousands of inputs, it reports each wrong one and asserts nothing for the right ones.

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/inputs.hpp"
#include "support/text.hpp"

namespace text_tests {

namespace {

using namespace hub_test;
using namespace hub::text;
using namespace hub::protocols;
using namespace hub::hub_v1_wire;
using namespace hub::machine;
using namespace std::string_literals;
using namespace std::string_view_literals;

}  // namespace

// ---- addresses ------------------------------------------------------------------------------

TEST_CASE("a HUB address is http or https, a host, and maybe a port and a path") {
  struct row {
    std::string_view given;
    bool tls;
    std::string_view host;
    int port;
    std::string_view path;
    std::string_view text;
  };
  const auto [given, tls, host, port, path, text] = GENERATE(values<row>({
      {"https://host", true, "host", 443, "", "https://host"},
      {"http://host", false, "host", 80, "", "http://host"},
      {"https://host/", true, "host", 443, "", "https://host"},
      {"https://host//", true, "host", 443, "", "https://host"},
      {"HTTPS://host", true, "host", 443, "", "https://host"},
      {"hTTp://host", false, "host", 80, "", "http://host"},
      {"https://host:443", true, "host", 443, "", "https://host"},
      {"https://host:80", true, "host", 80, "", "https://host:80"},
      {"http://host:443", false, "host", 443, "", "http://host:443"},
      {"http://host:1", false, "host", 1, "", "http://host:1"},
      {"http://host:65535/", false, "host", 65535, "", "http://host:65535"},
      {"http://127.0.0.1:8080", false, "127.0.0.1", 8080, "", "http://127.0.0.1:8080"},
      {"https://a-b_c.example.org", true, "a-b_c.example.org", 443, "",
       "https://a-b_c.example.org"},
      {"https://[::1]", true, "::1", 443, "", "https://[::1]"},
      {"https://[2001:db8::7]:8443/hub", true, "2001:db8::7", 8443, "/hub",
       "https://[2001:db8::7]:8443/hub"},
      {"https://[::ffff:127.0.0.1]", true, "::ffff:127.0.0.1", 443, "",
       "https://[::ffff:127.0.0.1]"},
      {"https://host/api/v2/", true, "host", 443, "/api/v2", "https://host/api/v2"},
      {"https://host/a:b@c", true, "host", 443, "/a:b@c", "https://host/a:b@c"},
  }));
  CAPTURE(given);
  const auto parsed = parse_url(given);
  REQUIRE(parsed);
  CHECK(parsed->tls == tls);
  CHECK(parsed->host == host);
  CHECK(parsed->port == port);
  CHECK(parsed->path == path);
  CHECK(parsed->text() == text);
  CHECK(parse_url(parsed->text())->text() == text);
}

TEST_CASE("what httplib would take for a plain-HTTP host, and other traps, is no HUB address") {
  // clang-format off
  for (std::string_view text : {
      "", " ", "host", "host:80", "host/path", "//host", "://host", "http", "https", "HTTP",
      "HTTPS", "https:", "https:/", "https:/host", "https://", "https:///", "https:///path",
      "https://:443", "ftp://host", "ws://host", "file:///etc/passwd", "httpss://host",
      " https://host", "https ://host", "\xef\xbb\xbfhttps://host", "https://https://host",
      "https://host ", "https://host\n", "https://ho st", "https://host\r\nx-api-key: a",
      "https://h\xc3\xbcst", "https://host?query", "https://host#fragment", "https://host/?query",
      "https://host/#fragment", "https://host/a b", "https://host/a\tb", "https://host/a%20b",
      "https://host/a\\b", "https://host\\@evil.example", "https://host/\x7f", "https://host/\xff",
      "https://host:", "https://host:/path", "https://host:0", "https://host:65536",
      "https://host:99999999999999999999", "https://host:-1", "https://host:+1", "https://host: 80",
      "https://host:80 ", "https://host:80x", "https://host:0x50", "https://host:80:90",
      "https://::1", "https://[::1", "https://[::1/path", "https://::1]", "https://[]",
      "https://[]:80", "https://[::1]x", "https://[::1]80", "https://[::1]]", "https://[::1%eth0]",
      "https://[fe80::1 ]", "https://[host]", "https://[127.0.0.1]", "https://*"}) {
    // clang-format on
    CAPTURE(text);
    const auto parsed = parse_url(text);
    CHECK_FALSE(parsed);
    if (parsed) continue;
    CHECK(parsed.error().code == hub::errc::invalid_endpoint);
    CHECK(contains(parsed.error().message, "http(s)://host[:port][/path]"));
    CHECK(is_plain_text(parsed.error().message));
  }
  CHECK_FALSE(parse_url("https://host\0.evil.example"sv));
  CHECK_FALSE(parse_url("https://" + std::string(254, 'a')));
  CHECK(parse_url("https://" + std::string(253, 'a')));
}

TEST_CASE("a scheme alone is no address, and nothing behind it is read") {
  const std::string_view memory = "httpsXXXevil.example/";
  for (std::size_t length : {std::size_t{4}, std::size_t{5}}) {
    const auto parsed = parse_url(memory.substr(0, length));
    REQUIRE_FALSE(parsed);
    CHECK(contains(parsed.error().message, "it does not begin with http:// or https://"));
  }
}

TEST_CASE("an address with a user name is refused without showing the password") {
  for (const std::string& text :
       {"https://user:" + key + "@host", "https://" + key + "@host/path", "https://@" + key,
        "https://host/:" + key + "?" + key, "https://" + key + ":" + key, key, key + "://" + key}) {
    const auto parsed = parse_url(text);
    REQUIRE_FALSE(parsed);
    CHECK_FALSE(shows(parsed.error().message, key));
  }
}

TEST_CASE("any byte at any place of an address gives an address that reads back, or none") {
  const std::string whole = "https://hub.example.org:8443/api/v2";
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      const auto parsed = parse_url(with_byte(whole, at, byte));
      if (!parsed) continue;
      const auto again = parse_url(parsed->text());
      if (byte <= 0x20 || byte >= 0x7F ||
          contains("?#\\%", std::string(1, static_cast<char>(byte))))
        FAIL_CHECK("byte " << byte << " at " << at << " is taken");
      if (!parsed->tls) FAIL_CHECK("byte " << byte << " at " << at << " turns TLS off");
      if (!again || again->text() != parsed->text() || again->host != parsed->host ||
          again->port != parsed->port || again->path != parsed->path)
        FAIL_CHECK("byte " << byte << " at " << at << " does not read back");
    }
}

TEST_CASE("the address of a request may hold escapes and end in a query, which stay as they are") {
  const std::string signed_url =
      "https://storage.example:8443/b%20c/last.pt?X-Sig=a+b/c==&u=https://x%2Fy?z";
  const auto parsed = parse_target(signed_url);
  REQUIRE(parsed);
  CHECK(parsed->text() == signed_url);
  CHECK(parsed->host == "storage.example");
  CHECK(without_query(signed_url) == "https://storage.example:8443/b%20c/last.pt");
  CHECK(parse_target("https://host/")->path == "/");
  CHECK(parse_target("https://host")->path.empty());
  for (std::string_view text :
       {"https://host/a b"sv, "https://host/a\r\nx: y"sv, "https://host/a#b"sv,
        "https://host/a\\b"sv, "https://host/?a=\0b"sv, "https://host/?\xc3\xbc"sv,
        "https://host?a=b"sv, "https://user@host/a"sv, "https://host:0/a"sv, "last.pt"sv, ""sv}) {
    CAPTURE(text);
    CHECK_FALSE(parse_target(text));
  }
}

TEST_CASE("a reference means what RFC 3986 says that it means") {
  // Section 5.4, without what no http URL may hold.
  const auto base = parse_target("http://a/b/c/d;p?q");
  REQUIRE(base);
  const std::vector<std::pair<std::string, std::string>> all = {
      {"g:h", "g:h"},
      {"g", "http://a/b/c/g"},
      {"./g", "http://a/b/c/g"},
      {"g/", "http://a/b/c/g/"},
      {"/g", "http://a/g"},
      {"//g", "http://g"},
      {"?y", "http://a/b/c/d;p?y"},
      {"g?y", "http://a/b/c/g?y"},
      {"#s", "http://a/b/c/d;p?q#s"},
      {"g#s", "http://a/b/c/g#s"},
      {"g?y#s", "http://a/b/c/g?y#s"},
      {";x", "http://a/b/c/;x"},
      {"g;x?y#s", "http://a/b/c/g;x?y#s"},
      {"", "http://a/b/c/d;p?q"},
      {".", "http://a/b/c/"},
      {"./", "http://a/b/c/"},
      {"..", "http://a/b/"},
      {"../", "http://a/b/"},
      {"../g", "http://a/b/g"},
      {"../..", "http://a/"},
      {"../../g", "http://a/g"},
      {"../../../g", "http://a/g"},
      {"/./g", "http://a/g"},
      {"/../g", "http://a/g"},
      {"g.", "http://a/b/c/g."},
      {".g", "http://a/b/c/.g"},
      {"g..", "http://a/b/c/g.."},
      {"./../g", "http://a/b/g"},
      {"./g/.", "http://a/b/c/g/"},
      {"g/./h", "http://a/b/c/g/h"},
      {"g/../h", "http://a/b/c/h"},
      {"g;x=1/../y", "http://a/b/c/y"},
      {"g?y/../x", "http://a/b/c/g?y/../x"},
      {"g#s/../x", "http://a/b/c/g#s/../x"},
      {"/g//h", "http://a/g//h"},
      {"https://x:8443/y?z", "https://x:8443/y?z"},
      {"/g?u=http://x/y", "http://a/g?u=http://x/y"},
  };
  for (const auto& [reference, meant] : all) {
    CAPTURE(reference);
    CHECK(resolved_url(*base, reference) == meant);
  }
  CHECK(resolved_url(*parse_target("https://a:8443"), "g") == "https://a:8443/g");
}

TEST_CASE("a URL is escaped where it has to be, and nowhere else") {
  const std::vector<std::pair<std::string, std::string>> all = {
      {"https://h/a%20b%2Fc/d+e,f;g'h?X-Sig=i+j/k==&l=%2B%26&m&n=o%0d?p",
       "https://h/a%20b%2Fc/d+e,f;g'h?X-Sig=i+j/k==&l=%2B%26&m&n=o%0d?p"},
      {" https://h/a b ", "https://h/a%20b"},
      {"https://h/a#b?c", "https://h/a"},
      {"https://h?a=b c", "https://h/?a=b%20c"},
      {"https://h", "https://h"},
      {"https://h#a", "https://h"},
      {"https://h/\xC3\xBC\x7F\x01", "https://h/%C3%BC%7F%01"},
      {"https://h/a\r\nx: y", "https://h/a%0D%0Ax:%20y"},
      {"https://h o/a b", "https://h o/a%20b"},
      {"", ""}};
  for (const auto& [url, escaped] : all) {
    CAPTURE(url);
    CHECK(escaped_url(url) == escaped);
    CHECK(escaped_url(escaped) == escaped);
  }
}

TEST_CASE("base64 is RFC 4648's") {
  const std::vector<std::pair<std::string, std::string>> all = {{"", ""},
                                                                {"f", "Zg=="},
                                                                {"fo", "Zm8="},
                                                                {"foo", "Zm9v"},
                                                                {"foob", "Zm9vYg=="},
                                                                {"fooba", "Zm9vYmE="},
                                                                {"foobar", "Zm9vYmFy"},
                                                                {"\xFB\xFF\xBE", "+/++"}};
  for (const auto& [bytes, text] : all) CHECK(base64(bytes) == text);
}

// ---- credentials and what may be shown ------------------------------------------------------

TEST_CASE("a key or token holds visible ASCII and nothing else") {
  for (std::size_t at : {std::size_t{0}, key.size() / 2, key.size() - 1})
    for (int byte = 0; byte < 256; ++byte) {
      const auto why = check_secret(with_byte(key, at, byte), "API key");
      if (why.has_value() == (byte >= 0x21 && byte <= 0x7E))
        FAIL_CHECK("byte " << byte << " at " << at << (why ? " is refused" : " is taken"));
      if (why && (why->code != hub::errc::invalid_credentials || shows(why->message, key) ||
                  !contains(why->message, "API key") || !is_plain_text(why->message)))
        FAIL_CHECK("byte " << byte << " at " << at << " gives: " << why->message);
    }
  CHECK_FALSE(check_secret("", "API key"));
}

TEST_CASE("foreign text is shown as bounded, plain ASCII") {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string given(1, static_cast<char>(byte));
    if (printable(given) != (is_plain_text(given) ? given : "?")) FAIL_CHECK("byte " << byte);
  }
  CHECK(printable("\033[31mred\r\n") == "?[31mred??");
  CHECK(printable(std::string(200, 'a')) == std::string(200, 'a'));
  CHECK(printable(std::string(1 << 20, 'a')) == std::string(200, 'a') + "...");
}

TEST_CASE("what is said holds no secret and no URL query") {
  const std::vector<std::string> secrets = {key, "", "tok.en"};
  const auto said = [&](std::string text) { return redact(std::move(text), secrets); };
  CHECK(said("nothing to hide?") == "nothing to hide?");
  CHECK(said("key " + key + ".") == "key ***.");
  CHECK(said(key + key + "tok.en" + key) == "************");
  CHECK(said("tok.en") == "***");
  CHECK(said("at https://host/path?X-Goog-Signature=abc&b=c then") ==
        "at https://host/path?*** then");
  CHECK(said("\"https://host/path?a=b\", <http://host?c>") ==
        "\"https://host/path?***\", <http://host?***>");
  CHECK(said("https://a?b https://c?d\nhttps://e?f") ==
        "https://a?*** https://c?***\nhttps://e?***");
  CHECK(said("https://host/path is what? Nothing.") == "https://host/path is what? Nothing.");
  CHECK(said("https://host?a=https://other?b=c") == "https://host?***");
  CHECK(said("HTTPS://host/?" + key) == "HTTPS://host/?***");
  CHECK(said("") == "");
}

TEST_CASE("a secret that begins like another one is hidden to its end") {
  const std::vector<std::string> secrets = {"secret", "secret-and-more"};
  CHECK(redact("secret-and-more", secrets) == "***");
  CHECK(redact("secret-and-less", secrets) == "***-and-less");
}

TEST_CASE("a query is hidden to its end, also past an apostrophe") {
  CHECK_FALSE(contains(redact("https://host/file?name='a'&signature=" + key, {}), key));
}

// ---- JSON from outside ----------------------------------------------------------------------

TEST_CASE("JSON is read up to 64 levels and refused beyond, at any size") {
  CHECK(parse_json(nested(10, '[', ']')));
  CHECK(parse_json(nested(64, '[', ']')));
  CHECK_FALSE(parse_json(nested(65, '[', ']')));
  for (std::size_t depth : {65U, 100000U, 1000000U}) {
    CHECK_FALSE(parse_json(nested(depth, '[', ']')));
    CHECK_FALSE(parse_json(std::string(depth, '[')));
    std::string objects;
    for (std::size_t i = 0; i < depth; ++i) objects += "{\"a\":";
    CHECK_FALSE(parse_json(objects + "1" + std::string(depth, '}')));
    CHECK_FALSE(parse_json(objects));
  }
  std::string beside = "[";
  for (int i = 0; i < 1000; ++i) beside += "[{}],";
  CHECK(parse_json(beside + "[]]"));
  CHECK(parse_json("\"" + std::string(1000, '[') + "\\\"" + std::string(1000, '{') + "\""));
}

TEST_CASE("JSON that is broken, cut or not UTF-8 is refused") {
  // clang-format off
  for (std::string_view text : {
      ""sv, " "sv, "{"sv, "}"sv, "]"sv, "{]"sv, "nul"sv, "{\"a\"}"sv, "{\"a\":}"sv, "{\"a\":1,}"sv,
      "[1,]"sv, "{'a':1}"sv, "{a:1}"sv, "1 2"sv, "{}{}"sv, "{} x"sv, "\"open"sv, "\"\\\""sv,
      "\"\\x\""sv, "\"\n\""sv, "01"sv, "+1"sv, ".5"sv, "1."sv, "NaN"sv, "Infinity"sv, "-"sv,
      "1e400"sv, "-1e400"sv, "{\"a\": 1e400}"sv, "\xff"sv, "\"\xff\""sv, "\"\xc3\""sv,
      "\"\xc0\xaf\""sv, "\"\xed\xa0\x80\""sv, "\"\xf4\x90\x80\x80\""sv, "\"\\ud800\""sv,
      "{\"\xfe\": 1}"sv, "\0"sv, "{}\0"sv, "{\"a\": 1}\0{\"a\": 2}"sv, "{\"a\": \"\0\"}"sv,
      "{\"a\": \"\\\0\"}"sv, "\xef\xbb"sv, "\xff\xfe{\0}\0"sv,
      "<html><body>Sign in</body></html>"sv}) {
    // clang-format on
    CAPTURE(text);
    CHECK_FALSE(parse_json(text));
  }
}

TEST_CASE("JSON that is odd but right is read") {
  CHECK(parse_json("null")->is_null());
  CHECK(parse_json(" \t\r\n{} \n")->empty());
  CHECK(get_string(*parse_json("\xef\xbb\xbf{\"a\": \"after a BOM\"}"), "a") == "after a BOM");
  CHECK(get_string(*parse_json(R"({"a": "first", "a": "second"})"), "a") == "second");
  CHECK(get_string(*parse_json(R"({"a": "\u0000b"})"), "a") == "\0b"s);
  CHECK(get_number(*parse_json("{\"a\": 1e308}"), "a") == 1e308);
  CHECK(get_number(*parse_json("{\"a\": 1e-400}"), "a") == 0.0);
}

TEST_CASE("a typed getter gives what is there in its type, and nothing else") {
  const json object =
      *parse_json(R"({"text": "t", "int": 7, "whole": 7.0, "half": 7.5, "yes": true, "no": false,
    "null": null, "list": [7], "object": {"int": 8}, "max": 2147483647, "min": -2147483648,
    "above": 2147483648, "below": -2147483649, "u64": 18446744073709551615,
    "i64": -9223372036854775808, "large": 1e300, "small": -1e300, "minus one": -1})");
  std::map<std::string, int> ints;
  std::string numbers, strings, flags;
  for (const auto& item : object.items()) {
    const char* name = item.key().c_str();
    if (const auto value = get_int(object, name)) ints[item.key()] = *value;
    if (get_number(object, name)) numbers += item.key() + " ";
    if (!get_string(object, name).empty()) strings += item.key() + " ";
    if (get_flag(object, name)) flags += item.key() + " ";
  }
  CHECK(ints == std::map<std::string, int>{{"int", 7},
                                           {"whole", 7},
                                           {"minus one", -1},
                                           {"max", 2147483647},
                                           {"min", -2147483647 - 1}});
  CHECK(numbers == "above below half i64 int large max min minus one small u64 whole ");
  CHECK(strings == "text ");
  CHECK(flags == "yes ");
  for (const json& no_object :
       {json(nullptr), json(5), json("text"), json::array({1}), json(true)}) {
    CHECK(get_member(no_object, "a") == nullptr);
    CHECK(get_string(no_object, "a") == "");
    CHECK_FALSE(get_int(no_object, "a"));
  }
}

}  // namespace text_tests
