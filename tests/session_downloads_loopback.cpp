// SPDX-License-Identifier: MIT
//
// Downloads over real sockets of 127.0.0.1: a HUB that names a file, and a storage host that breaks
// off, stalls, drips, or sends more than fits into memory. What a storage host may lie about is in
// session_downloads.cpp.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#if !defined(_WIN32)
#include <sys/resource.h>
#endif

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/raw_server.hpp"
#include "support/scratch.hpp"
#include "support/text.hpp"

namespace session_downloads_loopback_tests {

using namespace hub_test;
using namespace std::chrono_literals;
using hub::errc;

namespace {

const std::string api_key(42, 'k');
const std::string model_id(20, 'm');
const std::string path = "/b%20c/last.pt?X-Sig=a+b/c==";

std::string pattern(std::size_t bytes) {
  std::string out(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) out[i] = static_cast<char>(i * 2654435761u >> 13);
  return out;
}

// Where the range that is asked for begins; 0 where the whole file is.
std::uint64_t offset_in(const std::string& head) {
  const std::size_t at = head.find("range: bytes=");
  return at == std::string::npos ? 0 : std::stoull(head.substr(at + 13));
}

std::string head_of(std::uint64_t offset, std::uint64_t total) {
  std::string out = offset == 0 ? "HTTP/1.1 200 OK\r\n"
                                : "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes " +
                                      std::to_string(offset) + "-" + std::to_string(total - 1) +
                                      "/" + std::to_string(total) + "\r\n";
  return out + "ETag: \"v1\"\r\nContent-Length: " + std::to_string(total - offset) + "\r\n\r\n";
}

// A HUB whose one model's file lies on `storage`, and a session with it.
struct stage {
  explicit stage(const raw_server& storage)
      : hub([url = storage.url(path)](raw_server::connection& client) {
          for (;;) {
            client.read_request();
            const std::string body = R"({"success": true, "data": {"status": "training", "data": )"
                                     R"("d.yaml", "resume": ")" +
                                     url + "\"}}";
            client.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) +
                        "\r\n\r\n" + body);
          }
        }) {
    options.endpoints = {.api = hub.url(""), .web = hub.url("")};
    options.credentials = {.api_key = api_key, .prompt = false, .settings_file = folder / "none"};
    options.retry.first_delay = 1ms;
    options.retry.seed = 1;
    options.log = [](hub::log_level, std::string_view) {};
    options.progress = [](const hub::transfer_progress&) {};
    options.handle_signals = false;
    options.rank = 0;
  }

  hub::result<hub::fetched_file> fetch() {
    return hub::training_session(model_id, options).fetch_model_file(target);
  }

  scratch_folder folder;
  std::filesystem::path target = folder / "last.pt";
  raw_server hub;
  hub::session_options options;
};

void check_no_key(const raw_server& storage) {
  CHECK(contains(storage.received(), "GET " + path + " HTTP/1.1"));
  for (std::string_view word : {"x-api-key", "authorization", "kkkkkkkk"})
    CHECK_FALSE(contains(storage.received(), word));
}

}  // namespace

TEST_CASE("a download over a connection that resets again and again comes byte for byte") {
  const std::string content = pattern(5'000'000);
  raw_server storage([&](raw_server::connection& client) {
    const std::uint64_t offset = offset_in(client.read_head());
    client.send(head_of(offset, content.size()));
    const std::string_view rest = std::string_view(content).substr(offset);
    client.send(rest.substr(0, 1'500'000));
    if (rest.size() > 1'500'000) client.end_output();
  });
  stage at(storage);
  const auto got = at.fetch();
  INFO((got ? std::string() : got.error().message));
  REQUIRE(got);
  CHECK(got->size_bytes == content.size());
  CHECK((read_file(at.target) == content));
  CHECK(storage.connections() == 4);
  CHECK(contains(storage.received(), "if-range: \"v1\"\r\n"));
  check_no_key(storage);
}

TEST_CASE("a storage host that stalls is left, and the download goes on") {
  const std::string content = pattern(300'000);
  std::atomic<int> connections = 0;
  raw_server storage([&](raw_server::connection& client) {
    const std::uint64_t offset = offset_in(client.read_head());
    client.send(head_of(offset, content.size()));
    if (connections++ == 0) {
      client.send(std::string_view(content).substr(0, 100'000));
      client.hang();
    }
    client.send(std::string_view(content).substr(offset));
  });
  stage at(storage);
  at.options.limits.stall_timeout = 200ms;
  const auto got = at.fetch();
  INFO((got ? std::string() : got.error().message));
  REQUIRE(got);
  CHECK((read_file(at.target) == content));
}

TEST_CASE("no download outlives its deadline, however its bytes drip") {
  raw_server storage([](raw_server::connection& client) {
    client.read_head();
    client.send(head_of(0, 1'000'000'000));
    client.mark();
    client.drip("x");
  });
  stage at(storage);
  // A slow machine may need longer to get there; what matters is that it ends there.
  for (at.options.limits.download_deadline = 100ms; storage.marks() == 0;
       at.options.limits.download_deadline *= 2) {
    const auto got = at.fetch();
    REQUIRE_FALSE(got);
    CHECK(to_string(got.error().code) == to_string(errc::timed_out));
    CHECK_FALSE(contains(got.error().message, "X-Sig"));
  }
  CHECK_FALSE(std::filesystem::exists(at.target));
}

TEST_CASE("a redirect of a storage host is followed byte for byte, without the key") {
  const std::string content = pattern(300'000);
  const std::string there = "/x%2Fy?X-Sig=%2Bc%2F%3D&e=a+b";
  raw_server elsewhere([&](raw_server::connection& client) {
    const std::string head = client.read_head();
    if (head.starts_with("GET " + there + " HTTP/1.1\r\n"))
      client.send(head_of(0, content.size()) + content);
  });
  raw_server storage([&](raw_server::connection& client) {
    for (;;) {
      const std::string head = client.read_head();
      const bool first = head.starts_with("GET " + path);
      client.send(
          "HTTP/1.1 302 Found\r\nLocation: " + (first ? "../next?a=b" : elsewhere.url(there)) +
          "\r\nContent-Length: 5\r\n\r\nMoved");
    }
  });
  stage at(storage);
  const auto got = at.fetch();
  INFO((got ? std::string() : got.error().message));
  REQUIRE(got);
  CHECK((read_file(at.target) == content));
  CHECK(contains(storage.received(), "GET /next?a=b HTTP/1.1"));
  check_no_key(storage);
  for (std::string_view word : {"x-api-key", "authorization", "kkkkkkkk"})
    CHECK_FALSE(contains(elsewhere.received(), word));
}

TEST_CASE("a file in chunks comes whole, and one whose last chunk is missing is asked for again") {
  const std::string content = pattern(300'000);
  std::atomic<int> connections = 0;
  raw_server storage([&](raw_server::connection& client) {
    client.read_head();
    client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    const bool whole = ++connections > 2;
    for (std::size_t i = 0; i < content.size(); i += 60'000) {
      if (!whole && i == 120'000) break;
      client.send("EA60\r\n" + content.substr(i, 60'000) + "\r\n");
    }
    if (connections == 2) client.send("3\r\nabcd\r\n");  // and no end
    if (whole) client.send("0\r\n\r\n");
  });
  stage at(storage);
  const auto got = at.fetch();
  INFO((got ? std::string() : got.error().message));
  REQUIRE(got);
  CHECK((read_file(at.target) == content));
  CHECK(storage.connections() == 3);
}

#if !defined(_WIN32)  // which counts memory in a way of its own
TEST_CASE("a large download needs no memory") {
  constexpr std::uint64_t total = 192 * hub::mebibyte;
  raw_server storage([](raw_server::connection& client) {
    client.read_head();
    client.send(head_of(0, total));
    const std::string piece(hub::mebibyte, '\0');
    for (std::uint64_t sent = 0; sent < total; sent += piece.size()) client.send(piece);
  });
  stage at(storage);
  const auto peak_bytes = [] {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    return static_cast<std::uint64_t>(used.ru_maxrss) * 1024;
  };
  const std::uint64_t before = peak_bytes();
  const auto got = at.fetch();
  REQUIRE(got);
  CHECK(std::filesystem::file_size(at.target) == total);
  CHECK(peak_bytes() - before < 32 * hub::mebibyte);
}
#endif

}  // namespace session_downloads_loopback_tests
