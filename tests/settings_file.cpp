// SPDX-License-Identifier: MIT
//
// Tests of the settings files that Ultralytics' Python package keeps: what is read of them, and how a
// key gets into one without a change of anything else.

#include <initializer_list>
#include <string>
#include <string_view>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/inputs.hpp"
#include "support/text.hpp"

namespace settings_file_tests {

namespace {

using namespace hub_test;
using namespace hub::text;
using namespace hub::machine;
using namespace std::string_literals;
using namespace std::string_view_literals;

}  // namespace

// ---- settings files -------------------------------------------------------------------------

namespace {

struct settings_case {
  std::string_view before, value, after;
  std::string_view key_read;
};

std::string joined(std::initializer_list<std::string_view> pieces) {
  std::string out;
  for (std::string_view piece : pieces) out += piece;
  return out;
}

constexpr settings_case json_settings[] = {
    {R"({"api_key": )", R"("old")", "}", "old"},
    {R"({"api_key":)", R"("old")", "}\n", "old"},
    {R"({"api_key": )", R"("")", "}", ""},
    {R"({"api_key": )", "null", "}", ""},
    {R"({"api_key": )", "12.5e3", "}", ""},
    {R"({"api_key":)", "true", R"(,"a":1})", ""},
    {R"({"api_key": )", R"({"old": [1, 2, "}"]})", R"(, "a": 1})", ""},
    {R"({"api_key":)", R"([ "old" , "]" ])", "\n}", ""},
    {"{\r\n  \"a\": 1,\r\n  \"api_key\": ", "\"old\"", ",\r\n  \"b\": 2\r\n}\r\n", "old"},
    {"\n\t {  \t\"b\"\n:\n[1,2]  , \"api_key\"\n :\n\t", "\"old\"", "\n  ,\"c\":{} }\n\n", "old"},
    {R"({"hub": {"api_key": "nested"}, "api_key": )", R"("old")", R"(, "x": {"api_key": "too"}})",
     "old"},
    {R"({"list": [{"api_key": "nested"}], "api_key": )", R"("old")", "}", "old"},
    {R"({"note": "say \"api_key\": \"no\", }{", "api_key": )", R"("old")", "}", "old"},
    {R"({"a\\": "\\", "b": "\\\"", "api_key": )", R"("old")", R"(, "c": "\"api_key\": 1"})", "old"},
    {R"({"my_api_key": "no", "api_key2": "no", "API_KEY": "no", "api_key": )", R"("old")", "}",
     "old"},
    {R"({"x": "api_key", "api_key": )", R"("old")", "}", "old"},
    {R"({"api_key": )", R"("o\"ld\\")", R"(, "d": 1})", "o\"ld\\"},
    {R"({"api_key": )", R"("\u006fld")", "}", "old"},
    {"\xef\xbb\xbf{\"api_key\": ", R"("old")", "}", "old"},
    {R"({"uuid": "ü", "api_key": )", R"("old")", R"(, "path": "C:\\dir\\"})", "old"},
};

constexpr settings_case yaml_settings[] = {
    {"api_key: ", "old", "\n", "old"},
    {"api_key: ", "old", "", "old"},
    {"api_key: ", "'old'", "\n", "old"},
    {"api_key: ", "\"old\"", "\n", "old"},
    {"api_key: ", "''", "\n", ""},
    {"api_key: ", "\"\"", "\n", ""},
    {"api_key:   \t ", "old", "   \n", "old"},
    {"a: 1\r\napi_key: ", "'old'", "\r\nb: 2\r\n", "old"},
    {"api_key: ", "old", " # the key\nb: 2\n", "old"},
    {"# api_key: no\na:\n  api_key: no\nmy_api_key: no\nhub_api_key: no\napi_key: ", "old", "\n",
     "old"},
    {"api_keys: no\nb: 'api_key: no'\napi_key: ", "old", "\nc: api_key: no\n", "old"},
    {"---\nuuid: \xc3\xbc\napi_key: ", "old", "\n...\n", "old"},
    {"a: 1\napi_key: ", "null", "\nb: 2\n", ""},
    {"a: 1\napi_key: ", "~", "\nb: 2\n", ""},
};

json without_key(const std::string& text) {
  json settings = json::parse(text);
  settings.erase("api_key");
  return settings;
}

}  // namespace

TEST_CASE("the key is read from JSON settings, and replaced with nothing else changed") {
  for (const auto& [before, value, after, key_read] : json_settings) {
    const std::string text = joined({before, value, after});
    CAPTURE(text);
    CHECK(find_api_key(text, settings_format::json_text) == key_read);
    const auto replaced = replace_api_key(text, "NEW", settings_format::json_text);
    REQUIRE(replaced);
    CHECK(*replaced == joined({before, "\"NEW\"", after}));
    CHECK(find_api_key(*replaced, settings_format::json_text) == "NEW");
  }
}

TEST_CASE("the key is read from YAML settings, and replaced with nothing else changed") {
  for (const auto& [before, value, after, key_read] : yaml_settings) {
    const std::string text = joined({before, value, after});
    CAPTURE(text);
    CHECK(find_api_key(text, settings_format::yaml_text) == key_read);
    const auto replaced = replace_api_key(text, "NEW", settings_format::yaml_text);
    REQUIRE(replaced);
    CHECK(*replaced == joined({before, "\"NEW\"", after}));
    CHECK(find_api_key(*replaced, settings_format::yaml_text) == "NEW");
  }
}

TEST_CASE("a YAML key without a value gets one, and a comment is no value") {
  const auto replaced = [](std::string_view text) {
    return replace_api_key(text, "NEW", settings_format::yaml_text).value_or("refused");
  };
  for (const char* text : {"api_key:", "api_key:\n", "api_key: \n", "api_key:\r\n",
                           "api_key: # none yet\n", "api_key:   # none yet", "api_key: #\n"}) {
    CAPTURE(text);
    CHECK(find_api_key(text, settings_format::yaml_text) == "");
    CHECK(find_api_key(replaced(text), settings_format::yaml_text) == "NEW");
  }
  CHECK(replaced("api_key:") == "api_key: \"NEW\"");
  CHECK(replaced("a: 1\napi_key:\nb: 2\n") == "a: 1\napi_key: \"NEW\"\nb: 2\n");
  CHECK(replaced("a: 1\r\napi_key:\r\nb: 2\r\n") == "a: 1\r\napi_key: \"NEW\"\r\nb: 2\r\n");
  CHECK(replaced("api_key: # none yet\n") == "api_key: \"NEW\" # none yet\n");
}

TEST_CASE("settings without a key get one, and keep the rest") {
  for (std::string_view text :
       {"{}"sv, "{ }"sv, " {\n}\n"sv, R"({"a": 1})"sv,
        "{\r\n  \"a\": {\"api_key\": \"nested\"}\r\n}\r\n"sv,
        R"({"note": "\"api_key\": \"no\""})"sv, R"(  {"list": [{"api_key": 1}], "b": "}"})"sv}) {
    CAPTURE(text);
    CHECK(find_api_key(text, settings_format::json_text) == "");
    const auto replaced = replace_api_key(text, "NEW", settings_format::json_text);
    REQUIRE(replaced);
    CHECK(find_api_key(*replaced, settings_format::json_text) == "NEW");
    CHECK(without_key(*replaced).dump() == json::parse(text).dump());
  }
  for (std::string_view text :
       {""sv, "a: 1\n"sv, "a: 1"sv, "a: 1\r\n"sv, "# api_key: no\n"sv, "a:\n  api_key: no\n"sv}) {
    CAPTURE(text);
    CHECK(find_api_key(text, settings_format::yaml_text) == "");
    const auto replaced = replace_api_key(text, "NEW", settings_format::yaml_text);
    REQUIRE(replaced);
    CHECK(replaced->starts_with(text));
    CHECK(find_api_key(*replaced, settings_format::yaml_text) == "NEW");
  }
}

TEST_CASE("an empty JSON settings file becomes one with the key") {
  for (const char* text : {"", " ", "\r\n\t"}) {
    CHECK(find_api_key(text, settings_format::json_text) == "");
    const auto replaced = replace_api_key(text, "NEW", settings_format::json_text);
    REQUIRE(replaced);
    CHECK((json::parse(*replaced) == json{{"api_key", "NEW"}}));
  }
}

TEST_CASE("settings that cannot be read are not rewritten") {
  const std::string deep = R"({"api_key": "old", "a": )" + nested(100000, '[', ']') + "}";
  for (std::string_view text :
       {"{"sv, "}"sv, "[]"sv, "[{\"api_key\": \"old\"}]"sv, "\"api_key\""sv, "null"sv, "5"sv,
        R"({"api_key": "old")"sv, R"({"api_key": "old",})"sv, R"({"api_key" "old"})"sv,
        R"({'api_key': 'old'})"sv, R"({"api_key": "old"} x)"sv, "{\"a\": 1 /* note */}"sv,
        "api_key: old\n"sv, "{\"api_key\": \"old\"}\0"sv, "{\"a\": \"\0\"}"sv,
        "{\"a\": \"\xff\"}"sv, R"({"api_key": 1e400})"sv, std::string_view(deep)}) {
    CAPTURE(text.substr(0, 60));
    CHECK(find_api_key(text, settings_format::json_text) == "");
    CHECK_FALSE(replace_api_key(text, "NEW", settings_format::json_text));
  }
}

TEST_CASE("JSON settings that name the key twice or with escapes hold the new one afterwards") {
  for (const char* text :
       {R"({"api_key": "one", "api_key": "two"})", R"({"a": 1, "api\u005fkey": "one"})",
        R"({"api_key": "one", "\u0061pi_key": "two"})"}) {
    CAPTURE(text);
    const auto replaced = replace_api_key(text, "NEW", settings_format::json_text);
    REQUIRE(replaced);
    CHECK(find_api_key(*replaced, settings_format::json_text) == "NEW");
  }
}

TEST_CASE("every key that a header may carry is read back as it was saved, or is not saved") {
  const auto format = GENERATE(settings_format::json_text, settings_format::yaml_text);
  const std::string text = format == settings_format::json_text ? "{\"a\": 1}" : "a: 1\n";
  for (int byte = 0x21; byte <= 0x7E; ++byte)
    for (const std::string& odd :
         {"k"s + static_cast<char>(byte) + "k", std::string(1, static_cast<char>(byte))}) {
      const auto replaced = replace_api_key(text, odd, format);
      if (replaced && find_api_key(*replaced, format) != odd)
        FAIL_CHECK("the key " << odd << " is lost");
      if (replaced && format == settings_format::json_text && !parse_json(*replaced))
        FAIL_CHECK("the key " << odd << " breaks the file");
    }
}

}  // namespace settings_file_tests
