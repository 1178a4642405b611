// SPDX-License-Identifier: MIT
//
// Protocols and default policies against servers that mean harm: the answers below come to each of
// HUB's calls and each of the Platform's over a real socket of 127.0.0.1, are received by
// httplib_transport and read as the session reads them.
// Whatever comes, the exchange ends by its deadline, nothing crashes, and memory grows by no more
// than the cap on a reply and a mebibyte. This program counts its memory in operator new, where it can
// also run out, so it has no other tests.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/memory_body.hpp"
#include "support/raw_server.hpp"

namespace {

// What stands in front of each piece of memory.
struct alignas(std::max_align_t) piece_head {
  std::size_t size_bytes;
  bool counted;
};

// The server's threads are not what is measured.
thread_local bool memory_counts = true;
std::atomic<std::size_t> bytes_in_use = 0;
std::atomic<std::size_t> bytes_in_use_max = 0;

// How many of this thread's allocations succeed before one fails; none does where there is no number.
thread_local std::optional<std::size_t> allocations_left;

}  // namespace

void* operator new(std::size_t size) {
  if (allocations_left && (*allocations_left)-- == 0) {
    allocations_left.reset();
    throw std::bad_alloc();
  }
  auto* const head = static_cast<piece_head*>(std::malloc(sizeof(piece_head) + size));
  if (!head) throw std::bad_alloc();
  *head = {size, memory_counts};
  if (memory_counts) {
    const std::size_t now = bytes_in_use += size;
    std::size_t most = bytes_in_use_max;
    while (now > most && !bytes_in_use_max.compare_exchange_weak(most, now)) {
    }
  }
  return head + 1;
}
// The sanitizers bring one of their own, which would leave the head out.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* room) noexcept {
  if (!room) return;
  auto* const head = static_cast<piece_head*>(room) - 1;
  if (head->counted) bytes_in_use -= head->size_bytes;
  std::free(head);
}
void operator delete(void* room, std::size_t) noexcept { operator delete(room); }

namespace {

using namespace hub_test;
using namespace std::chrono_literals;
using namespace std::string_literals;
using hub::errc;
using hub::mebibyte;

const std::string id = "abcdefghij0123456789";
constexpr std::size_t cap = mebibyte;  // on a reply

// ---- calls --------------------------------------------------------------------------------------

// One of a server's calls: what is asked at its address, what it answers, and how that is read. What
// was read is not looked at here; reading "" is success, else it is the error's name.
struct server_call {
  const char* name;
  std::function<hub::request(const std::string& root)> ask;
  std::string good_body;
  std::function<std::string(const hub::reply&)> read;
  bool has_content = true;  // else any 2xx will do
};

std::string name_of(const hub::error& why) { return std::string(to_string(why.code)); }

std::string judged(const hub::outcome& result) {
  return result.verdict == hub::verdict::delivered ? "" : name_of(result.why);
}

// Reads what a 2xx says, as the constructor does it.
template <class Parse>
auto content(Parse parse) {
  return [parse](const hub::reply& answer) {
    const std::string failed = judged(hub::protocols::judge(answer, "this call", {}, "The server"));
    if (!failed.empty()) return failed;
    const auto read = parse(answer.body);
    return read ? std::string() : name_of(read.error());
  };
}

std::string read_status(const hub::reply& answer) {
  return judged(hub::protocols::judge(answer, "this call", {}, "The server"));
}

const auto any_epoch = std::make_shared<const hub::epoch_record>(
    std::vector<std::pair<std::string, double>>{{"train/loss", 0.5}});

std::shared_ptr<hub::body_source> any_file() {
  return std::make_shared<memory_body>(std::string(5000, 'w'));
}

std::vector<server_call> calls_of_hub() {
  using namespace hub::hub_v1_wire;
  const auto from = [](auto make) {
    return [make](const std::string& root) {
      return make(caller{root, std::string(api_key_length, 'k'), "", id});
    };
  };
  return {
      {"auth", from(auth_request), R"({"success": true})",
       content([](std::string_view body) { return parse_auth(body); })},
      {"model", from(model_request),
       R"({"data": {"id": "abcdefghij0123456789", "status": "new", "data": "coco8.yaml",
           "cfg": "yolov8n.yaml", "epochs": 100, "batch": 16, "device": "0", "cache": "ram"}})",
       content([](std::string_view body) { return parse_model(body, id); })},
      {"create_model",
       from([](const caller& who) { return create_model_request(who, {.name = "run"}); }),
       R"({"data": {"id": "abcdefghij0123456789"}})",
       content([](std::string_view body) { return parse_created(body); })},
      {"heartbeat",
       from([](const caller& who) { return heartbeat_request(who, "cpp", "agent-1"); }),
       R"({"data": {"agentId": "agent-1"}})",
       [](const hub::reply& answer) {
         std::string agent_id;
         return judged(judge_heartbeat(answer, {}, agent_id));
       }},
      {"metrics", from([](const caller& who) {
         return metrics_request(who, std::vector<hub::queued_epoch>{{0, any_epoch}});
       }),
       "{}", read_status, false},
      {"upload", from([](const caller& who) { return upload_request(who, {}, any_file(), "b"); }),
       "{}", read_status, false},
  };
}

std::vector<server_call> calls_of_platform() {
  using namespace hub::platform_wire;
  const auto who = [](const std::string& root) {
    run out = *make_run({.project = "lab/helmets", .epochs = 5}, *parse_roots(root, ""));
    out.api_key = "ul_" + std::string(api_key_digits, '0');
    return out;
  };
  const auto from = [who](auto make) {
    return [who, make](const std::string& root) { return make(who(root)); };
  };
  const run any = who("https://platform.test");
  const resource model{.owner = "lab", .project = "helmets", .name = "nano"};
  const auto read_event = [](const hub::reply& answer) {
    event_reply told;
    return judged(judge_event(answer, "epoch_end", {}, told));
  };
  return {
      {"training_started", from(start_request),
       R"({"received": true, "modelId": "65f0c0ffee00000000000001", "runId": "run-1",
           "modelSlug": "nano", "cancelled": false})",
       [](const hub::reply& answer) {
         event_reply told;
         return judged(judge_start(answer, {}, told));
       }},
      {"epoch_end", from([](const run& of) {
         return event_request(of, "epoch_end", encode_epoch({0, any_epoch}, ""));
       }),
       R"({"received": true, "cancelled": false})", read_event, false},
      {"where to put a file", from([](const run& of) { return upload_request(of, {}); }),
       R"({"uploadUrl": "https://storage.test/a?X-Goog-Signature=1", "gcsPath": "gs://a/b",
           "uploadPath": "a/b", "modelId": "65f0c0ffee00000000000001"})",
       content([any](std::string_view body) { return parse_upload_place(body, any); })},
      {"put",
       [](const std::string& root) {
         return hub::storage_host::put_request(root + "/a?X-Goog-Signature=1", any_file());
       },
       "",
       [](const hub::reply& answer) {
         return judged(hub::storage_host::judge_put(answer, "storage.test", {}));
       },
       false},
      {"files", from([model](const run& of) { return resource_request(of, model); }),
       R"({"files": [{"name": "best.pt", "size": 7, "downloadUrl": "https://storage.test/b"}]})",
       content([model](std::string_view body) { return parse_resource_reply(body, model); })},
  };
}

const std::vector<server_call>& calls() {
  static const std::vector<server_call> all = [] {
    std::vector<server_call> out = calls_of_hub();
    for (server_call& each : calls_of_platform()) out.push_back(std::move(each));
    return out;
  }();
  return all;
}

// What is not yet a reply of a server's is the same to every call, so one stands for all of them; in the
// long variant each for itself.
bool is_spared(const server_call& call) {
  return !hub_test::long_variant() && &call != &calls().front();
}

// ---- exchanges ----------------------------------------------------------------------------------

struct experience {
  std::string failed;  // "" where the reply was taken
  std::size_t growth_bytes;
};

// Makes the call at a server that answers with this script.
experience meet(const server_call& call, const raw_server::script& script,
                hub::duration deadline = patience) {
  raw_server server([&](raw_server::connection& client) {
    memory_counts = false;
    client.read_request();
    script(client);
  });
  hub::httplib_transport transport;
  hub::request what = call.ask(server.url(""));
  what.deadline = deadline;
  what.reply_bytes_max = cap;
  const std::size_t before = bytes_in_use;
  bytes_in_use_max = before;
  std::string failed = call.read(transport.send(what));
  return {std::move(failed), bytes_in_use_max - before};
}

raw_server::script send_and_close(std::string bytes) {
  return [bytes = std::move(bytes)](raw_server::connection& client) { client.send(bytes); };
}

std::string whole(std::string_view body, std::string_view status = "200 OK",
                  std::string_view header = "") {
  return "HTTP/1.1 " + std::string(status) + "\r\n" + std::string(header) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

// Ends when the client has had enough.
raw_server::script send_for_ever(std::string head, std::string piece) {
  return [=](raw_server::connection& client) {
    client.send(head);
    for (;;) client.send(piece);
  };
}

std::string repeated(std::string_view text, std::size_t count) {
  std::string out;
  out.reserve(text.size() * count);
  for (std::size_t i = 0; i < count; ++i) out += text;
  return out;
}

// As much of `text` again and again as a reply may hold, between `begin` and `end`.
std::string filled(std::string_view begin, std::string_view text, std::string_view end) {
  return std::string(begin) + repeated(text, (cap - begin.size() - end.size()) / text.size()) +
         std::string(end);
}

// 512 kB of gzip that stand for 80 MB: a literal, and then the longest match there is, for ever. By
// hand, in deflate's fixed codes (RFC 1951, 3.2.6).
std::string gzip_bomb() {
  std::string out = "\x1f\x8b\x08\0\0\0\0\0\0\x03"s;
  unsigned bits = 0;
  unsigned count = 0;
  const auto put = [&](unsigned code, unsigned length) {
    for (unsigned i = length; i-- > 0;) {
      bits |= (code >> i & 1U) << count;
      if (++count < 8) continue;
      out += static_cast<char>(bits);
      bits = count = 0;
    }
  };
  put(0b110, 3);       // the last block, in fixed codes
  put(0b10101000, 8);  // "x"
  while (out.size() < 512 * hub::kibibyte) {
    put(0b11000101, 8);  // 258 bytes again ...
    put(0b00000, 5);     // ... from one byte back
  }
  return out;
}

struct hostile {
  const char* name;
  raw_server::script script;
  // What reading it comes to: an error's name, or several where versions of httplib differ, or none
  // where that is the reader's affair.
  std::vector<std::string> failed = {};
};

// Answers that are broken below JSON.
std::vector<hostile> broken_answers() {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string mega(mebibyte, 'x');
  return {
      {"nothing", send_and_close(""), {"not_reachable"}},
      {"another protocol", send_and_close("SSH-2.0-OpenSSH_9.2\r\n"), {"not_reachable"}},
      {"a length of 4 GiB, and they come",
       send_for_ever("HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n", mega),
       {"bad_reply"}},
      {"a length of 4 GiB, and a few bytes",
       send_and_close("HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n{}"),
       {"not_reachable"}},
      {"no length and no end", send_for_ever("HTTP/1.1 200 OK\r\n\r\n", mega), {"bad_reply"}},
      {"chunks without end", send_for_ever(chunked, "100000\r\n" + mega + "\r\n"), {"bad_reply"}},
      {"one-byte chunks without end",
       send_for_ever(chunked, repeated("1\r\nx\r\n", 10'000)),
       {"bad_reply"}},
      {"a chunk of size -2",
       send_for_ever(chunked + "-2\r\n", mega),
       {"bad_reply", "not_reachable"}},
      {"a chunk of size 2^64 - 2",
       send_for_ever(chunked + "fffffffffffffffe\r\n", mega),
       {"bad_reply"}},
      {"a chunk cut off", send_and_close(chunked + "5\r\nabc"), {"not_reachable"}},
      {"a gzip bomb", send_and_close(whole(gzip_bomb(), "200 OK", "Content-Encoding: gzip\r\n"))},
      {"a body above the cap", send_and_close(whole(std::string(2 * cap, ' '))), {"bad_reply"}},
  };
}

// Bodies that come whole and are no JSON of a server's.
struct hostile_body {
  const char* name;
  std::string body;
};

std::vector<hostile_body> hostile_bodies() {
  const auto nested = [](std::size_t depth) {
    return std::string(std::min(depth, cap / 2), '[') + std::string(std::min(depth, cap / 2), ']');
  };
  return {
      {"nothing", ""},
      {"spaces", std::string(cap, ' ')},
      {"an object of spaces", filled("{", " ", "}")},
      {"a number of many digits", filled("{\"data\": ", "1", "}")},
      {"10 levels", nested(10)},
      {"64 levels", nested(64)},
      {"65 levels", nested(65)},
      {"100,000 levels", nested(100'000)},
      {"a million levels", std::string(1'000'000, '[')},
      {"65 levels in a good reply", R"({"success": true, "data": )" + nested(65) + "}"},
      {"1e400", R"({"success": true, "data": {"id": "abcdefghij0123456789", "epochs": 1e400}})"},
      {"a NUL", R"({"success": true})" + "\0"s},
      {"no UTF-8", "{\"success\": true, \"data\": {\"id\": \"\xff\"}}"},
      {"UTF-16", "\xff\xfe{\0}\0"s},
      {"duplicate keys, the last of a wrong type",
       R"({"success": true, "success": 1, "data": {"agentId": "a"}, "data": [1]})"},
      {"a captive portal", "<!DOCTYPE html><html><body>Sign in to the guest network</body></html>"},
      {"as many arrays as there is room for", filled("[", "[],", "[]]")},
      {"as many objects as there is room for", filled("{\"data\": [", "{},", "{}]}")},
      {"as many members as there is room for", filled("{\"data\": {", "\"\":{},", "\"a\":0}}")},
      {"as many numbers as there is room for", filled("[", "0,", "0]")},
      {"one string", filled("\"", "x", "\"")},
      {"one string of escapes", filled("\"", "\\u0000", "\"")},
      {"quotes", std::string(cap, '"')},
  };
}

void check_bounds(const experience& what, std::size_t usual_bytes) {
  INFO("memory grew by " << what.growth_bytes << " bytes");
  CHECK(what.growth_bytes <= usual_bytes + cap + mebibyte);
}

std::size_t usual_growth(const server_call& call) {
  const experience usual = meet(call, send_and_close(whole(call.good_body)));
  CHECK(usual.failed == "");
  return usual.growth_bytes;
}

}  // namespace

TEST_CASE("an answer that is broken on the wire is an error of each call, within bounds") {
  for (const server_call& call : calls()) {
    if (is_spared(call)) continue;
    const std::size_t usual = usual_growth(call);
    for (const hostile& each : broken_answers()) {
      INFO(call.name << ": " << each.name);
      const experience what = meet(call, each.script);
      check_bounds(what, usual);
      if (!each.failed.empty()) {
        INFO("it failed with " << what.failed);
        CHECK(std::count(each.failed.begin(), each.failed.end(), what.failed) == 1);
      }
    }
  }
}

TEST_CASE("an answer that drips is given up at the deadline, in each of its parts") {
  for (const server_call& call : calls()) {
    if (is_spared(call)) continue;
    const std::size_t usual = usual_growth(call);
    for (const char* head : {"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\n",
                             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"}) {
      INFO(call.name << " after " << head);
      const std::string drops = std::string_view(head).ends_with("\r\n\r\n") ? "1\r\n \r\n" : "x";
      const auto script = [&](raw_server::connection& client) {
        client.send(head);
        client.drip(drops);
      };
      const experience what = meet(call, script, 100ms);
      check_bounds(what, usual);
      CHECK(what.failed == "timed_out");
    }
  }
}

TEST_CASE("an answer that is cut at any byte is never taken for the whole") {
  for (const server_call& call : calls()) {
    const std::string good = whole(call.good_body);
    for (std::size_t size = 0; size < good.size(); ++size) {
      const experience what = meet(call, send_and_close(good.substr(0, size)));
      if (what.failed.empty()) FAIL_CHECK(call.name << " is taken after " << size << " bytes");
    }
  }
}

TEST_CASE(
    "a body that is none of the server's is an error where its content is needed, within bounds") {
  for (const server_call& call : calls()) {
    const std::size_t usual = usual_growth(call);
    for (const hostile_body& each : hostile_bodies()) {
      for (const char* status : {"200 OK", "400 Bad Request", "503 Service Unavailable"}) {
        if (status[0] != '2' && is_spared(call)) continue;
        INFO(call.name << ": " << status << ", " << each.name);
        const experience what = meet(call, send_and_close(whole(each.body, status)));
        check_bounds(what, usual);
        const bool page = std::string_view(each.body).starts_with('<');
        if (status[0] != '2' || call.has_content || page) CHECK(what.failed != "");
      }
    }
  }
}

TEST_CASE("what memory ran out for leaves nothing on a connection that the next call would read") {
  std::atomic<std::size_t> connections = 0;
  raw_server server([&](raw_server::connection& client) {
    ++connections;
    for (;;) {
      const std::string asked = client.read_request().head;
      client.send(whole(asked.substr(0, asked.find(" HTTP/"))));
    }
  });
  hub::httplib_transport transport;
  const auto ask = [&](std::string_view path) {
    return hub::request{
        .method = "GET", .url = server.url(std::string(path)), .deadline = patience};
  };
  const hub::request before = ask("/before"), meanwhile = ask("/meanwhile"), after = ask("/after");
  bool ran_out = true;
  for (std::size_t number = 0; ran_out; ++number) {
    INFO("after " << number << " allocations");
    REQUIRE(transport.send(before).body == "GET /before");
    const std::size_t connections_before = connections;
    bool failed = false;
    allocations_left = number;
    try {
      failed = transport.send(meanwhile).failure.has_value();
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    ran_out = !allocations_left;
    allocations_left.reset();
    CHECK(transport.send(after).body == "GET /after");
    CHECK(connections == connections_before + (failed ? 1 : 0));
  }
}
