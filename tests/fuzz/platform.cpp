// SPDX-License-Identifier: MIT
//
// Any body as the Platform's reply to each call, any text as a name or an address, and any bytes as
// what a program prints, in pieces of any length: what is read is fit to be sent and shown, and no
// printed line is lost or garbled. The first byte chooses the status and the length of the pieces.

#include <array>
#include <string>
#include <vector>

#include "check.hpp"

using namespace hub::text;
using namespace hub::platform_wire;

namespace {

const std::string key = "ul_0123456789abcdef0123456789abcdef01234567";
const std::string web = "https://platform.test";

bool is_plain_text(std::string_view text) {
  return all_of(text, [](char c) { return c >= 0x20 && c <= 0x7E; });
}

void check_error(const hub::error& why) {
  check(!why.message.empty() && is_plain_text(why.message),
        "an error says something in plain text");
  check(why.message.size() < 1024, "and shortly");
  check(!contains(why.message, key), "an error holds no key");
}

run any_run() {
  run out{
      .at = {web, web + "/api/webhooks"}, .api_key = key, .project = "lab/helmets", .name = "n"};
  out.registration = "{}";
  return out;
}

// ---- replies --------------------------------------------------------------------------------

void read_event(const hub::reply& answer) {
  event_reply told;
  const hub::outcome came = judge_start(answer, {}, told);
  check((came.verdict == hub::verdict::delivered) == came.why.message.empty(), "failures say why");
  if (!came.why.message.empty()) check_error(came.why);
  check(is_plain_text(told.warning), "a warning can be shown");
  check(told.page.empty() || (parse_url(told.page) && !contains(told.page, "?")),
        "a page is a URL");
  if (came.verdict != hub::verdict::delivered) return;
  run of = any_run();
  of.model_id = told.model_id;
  of.run_id = told.run_id;
  of.page = page_of(of, told);
  check(is_id(of.model_id), "a run has an id");
  check(parse_json(event_request(of, "epoch_end", "{}").body).has_value(), "an event is JSON");
  const auto again = parse_run(encode_run(of));
  check(again && encode_run(*again) == encode_run(of), "what was read is kept as it is");
}

void read_place(std::string_view body) {
  const auto place = parse_upload_place(body, any_run());
  if (!place) return check_error(place.error());
  check(lowered(place->url).starts_with("https://"), "a file goes to https alone");
  const upload_place again = parse_place(encode_place(*place, true));
  check(again.url == place->url && again.path == place->path, "a place is kept as it is");
  check(parse_json(saved_request(any_run(), *place).body).has_value(), "an event is JSON");
}

void read_reply(const hub::reply& answer) {
  read_event(answer);
  read_place(answer.body);
  const resource model{.owner = "lab", .project = "helmets", .name = "n"};
  const resource dataset{.is_dataset = true, .owner = "lab", .name = "n"};
  for (const resource& each : {model, dataset})
    if (const auto url = parse_resource_reply(answer.body, each); !url) check_error(url.error());
  if (const auto user = parse_account(answer.body); !user) check_error(user.error());
  const auto wait = retry_after_of(answer, {});
  check(!wait || (*wait >= hub::duration::zero() && *wait <= std::chrono::hours(24)),
        "a wait is within a day");
  parse_run(answer.body);
}

// ---- names ----------------------------------------------------------------------------------

void read_name(std::string_view text) {
  const std::string name = slug(text);
  check(slug(name) == name, "a name that is one stays");
  check(name.empty() || is_segment(name), "a name can stand in an address");
  check(!name.starts_with('-') && !name.ends_with('-') && !contains(name, "--"), "and looks well");
  const auto project = parse_project(text);
  if (!project) check_error(project.error());
  check(!project || *parse_project(*project) == *project, "a project that is one stays");
  if (const auto why = check_key(text)) check_error(*why);
  const auto what = parse_resource(text, web);
  if (!what) return check_error(what.error());
  check(parse_target(resource_request(any_run(), *what).url) &&
            parse_target(older_resource_request(any_run(), *what).url),
        "a resource has an address");
}

// ---- console --------------------------------------------------------------------------------

// What must arrive, however often a line was broken.
std::string letters_of(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (is_alphanumeric(c)) out += c;
  return out;
}

void print(std::string_view text, std::size_t piece) {
  console_lines console({.line_bytes_max = 64, .repeat_window = {}});
  std::vector<std::string> shown;
  hub::time_point now{};
  const auto take = [&](std::vector<std::string> lines) {
    shown.insert(shown.end(), lines.begin(), lines.end());
    now += std::chrono::seconds(1);
  };
  for (std::size_t at = 0; at < text.size(); at += piece)
    take(console.add(text.substr(at, piece), now, {}));
  take(console.finish(now, {}));
  std::string letters;
  for (const std::string& line : shown) {
    check(!contains(line, "\n") && !contains(line, "\r") && !contains(line, "\x1b[K"), "a line");
    check(line.starts_with("[1970-01-01 00:00:00] ") || line.starts_with("[20"), "with its time");
    check(line.size() <= 64 + 22, "within its bound");
    letters += letters_of(line.starts_with("[1970") ? line.substr(22) : line);
  }
  const bool nothing_is_taken_out = !contains(text, "\r") && !contains(text, "\x1b[K");
  if (nothing_is_taken_out) check(letters == letters_of(text), "every letter is shown");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::array<int, 12> statuses = {200, 201, 204, 302, 400, 401,
                                            403, 404, 409, 429, 500, 503};
  if (size < 2) return 0;
  const std::string_view text = text_of(data + 1, size - 1);
  hub::reply answer{.status = statuses[data[0] % statuses.size()]};
  answer.body = redact(std::string(text), std::vector<std::string>{key});
  read_reply(answer);
  read_name(text);
  print(text, data[0] % 16 + 1);
  return 0;
}
