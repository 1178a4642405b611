// SPDX-License-Identifier: MIT
//
// Any body as the reply to each call, with any status: the first byte chooses the status. Each
// reader takes it or says what is wrong, in plain words without the key that the body may quote.

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "check.hpp"

using namespace hub::text;
using namespace hub::protocols;
using namespace hub::hub_v1_wire;
using namespace hub::storage_host;
using namespace hub::machine;
using namespace hub::storage_host;
using namespace hub::machine;

namespace {

const std::string id = "abcdefghij0123456789";
const std::vector<std::string> secrets = {"Zq7Xk2Vw9Jr4Hy6Tn8Qb3Gx5Wd1Kz0Mv7Pf2Yj4Lc8"};

void check_error(const hub::error& why) {
  check(!why.message.empty(), "an error says something");
  check(all_of(why.message, [](char c) { return c >= 0x20 && c <= 0x7E; }), "in plain text");
  check(why.message.size() < 1024, "and shortly");
  check(!contains(why.message, secrets[0]), "an error holds no key");
}

// What is read from a value taken apart as text is what the parsed value says.
void check_members(std::string_view body) {
  const std::optional<json> whole = is_object(body) ? parse_json(body) : std::nullopt;
  check(whole.has_value() == is_object(body), "an object parses");
  if (!whole) return;
  for (const char* name : {"success", "data", "message"}) {
    const json* member = get_member(*whole, name);
    const std::string_view text = member_text(body, name);
    check(text.empty() == (member == nullptr), "a member is found where it is");
    if (!member) continue;
    const std::optional<json> again = parse_json(text);
    check(again && *again == *member, "a member is found whole");
    check(member_string(body, name) == get_string(*whole, name), "a string is read as it is");
  }
}

void check_content(std::string_view body) {
  if (const auto model = parse_model(body, id)) {
    check(model->id == id && !model->train_args.data.empty(), "a model has a dataset");
    check(model->raw.is_object() && model->train_args.raw.is_object(), "and its fields");
    check(!model->raw.dump(-1, ' ', false, json::error_handler_t::replace).empty(), "that print");
  } else {
    check_error(model.error());
  }
  if (const auto accepted = parse_auth(body); !accepted) check_error(accepted.error());
  if (const auto made = parse_created(body))
    check(made->size() == model_id_length && all_of(*made, is_alphanumeric), "an id is one");
  else
    check_error(made.error());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::array<int, 16> statuses = {200, 201, 204, 301, 307, 400, 401, 403,
                                            404, 408, 413, 422, 429, 500, 503, 599};
  if (size == 0) return 0;
  hub::reply answer{.status = statuses[data[0] % statuses.size()]};
  answer.body = redact(std::string(text_of(data + 1, size - 1)), secrets);
  check_members(answer.body);
  check_content(answer.body);
  std::string agent_id;
  for (const hub::outcome& each :
       {judge(answer, "metrics", {}, "HUB"), judge_heartbeat(answer, {}, agent_id)}) {
    check((each.verdict == hub::verdict::delivered) == each.why.message.empty(),
          "failures say why");
    if (each.verdict != hub::verdict::delivered) check_error(each.why);
    check(answer.status / 100 == 2 || each.verdict != hub::verdict::delivered,
          "2xx alone delivers");
  }
  return 0;
}
