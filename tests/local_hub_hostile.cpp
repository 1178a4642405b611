// SPDX-License-Identifier: MIT
//
// What somebody who has no key, or means no good, can send to local_hub: nothing of it is run, kept
// or waited for.

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/local_hub.hpp"
#include "support/programs.hpp"

#include <array>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace local_hub_hostile_tests {

namespace {

using namespace hub_test;

// Sends all of it, or as much as is taken, and returns everything that comes back until the
// connection ends.
std::string converse(const running_hub& hub, std::string_view bytes) {
  const int connection = connect_to(hub);
  while (!bytes.empty()) {
    const ssize_t sent = ::send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) break;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  ::shutdown(connection, SHUT_WR);
  std::string out;
  std::array<char, 4096> piece{};
  for (ssize_t got; (got = ::recv(connection, piece.data(), piece.size(), 0)) > 0;)
    out.append(piece.data(), static_cast<std::size_t>(got));
  ::close(connection);
  return out;
}

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++found;
  return found;
}

// In KiB.
std::size_t peak_memory(const running_hub& hub) {
  std::ifstream status("/proc/" + std::to_string(hub.program->id()) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6));
  return 0;
}

std::size_t thread_count(const running_hub& hub) {
  const fs::path tasks = "/proc/" + std::to_string(hub.program->id()) + "/task";
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(tasks), fs::directory_iterator()));
}

// ---- one request in the body of another ---------------------------------------------------------

TEST_CASE("a body is never run as a request", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at, {"--api-key", good_key});
  const made_model model = make(hub, "mine");
  const std::string host = "Host: 127.0.0.1:" + std::to_string(hub.port()) + "\r\n";
  const std::string inner = "DELETE /api/models/" + model.id + " HTTP/1.1\r\n" + host + "\r\n";
  const std::string padding = "\r\n" + std::string(20'000, ' ');
  const std::string page = "/" + std::string(9000, 'x');
  const std::string key = "x-api-key: " + good_key + "\r\n";
  struct outer {
    std::string line;
    std::string fields;
  };
  std::vector<outer> all;
  for (const char* method :
       {"GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "TRACE", "POST", "X"})
    for (const std::string& path :
         {std::string("/"), page, std::string("/api/models"), "/v1/models/" + model.id,
          "/v1/models/" + model.id + "/upload", std::string("/v1/auth"), std::string("/storage/x"),
          std::string("/api/events"), std::string("*")}) {
      all.push_back({std::string(method) + ' ' + path, ""});
      all.push_back({std::string(method) + ' ' + path, key});
    }
  all.push_back({"POST /v1/models/" + model.id, "Expect: 100-continue\r\n"});
  all.push_back({"POST /v1/models/" + model.id, "Content-Encoding: gzip\r\n"});
  all.push_back({"POST /v1/models/" + model.id, key + "X: " + std::string(20'000, 'x') + "\r\n"});
  for (const outer& each : all)
    for (const std::string& body : {inner, inner + padding}) {
      CAPTURE(each.line, body.size());
      const std::string length = "Content-Length: " + std::to_string(body.size()) + "\r\n";
      const std::string reply =
          converse(hub, each.line + " HTTP/1.1\r\n" + host + length +
                            "Content-Type: text/plain\r\n" + each.fields + "\r\n" + body);
      CHECK(count(reply, "HTTP/1.1 ") - count(reply, "HTTP/1.1 100 ") <= 1);
    }
  CHECK(send(hub, "GET", "/api/models/" + model.id).status == 200);
}

TEST_CASE("requests one behind the other are answered in their order", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  const std::string host = " HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  const std::string reply =
      converse(hub, "GET /api/status" + host + "\r\nPOST /api/models" + host +
                        "Content-Length: 13\r\n\r\n{\"name\": \"x\"}GET /nothing" + host + "\r\n");
  CHECK(count(reply, "HTTP/1.1 200 OK") == 2);
  CHECK(count(reply, "HTTP/1.1 404 ") == 1);
  CHECK(reply.find("\"version\"") < reply.find("\"id\""));
  CHECK(reply.find("\"id\"") < reply.find("no such thing"));
}

// ---- memory -------------------------------------------------------------------------------------

TEST_CASE("whoever has no key cannot fill the memory", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at, {"--page-needs-key", "--api-key", good_key});
  const std::size_t before = peak_memory(hub);
  const std::string much(std::size_t{32} * 1024 * 1024, 'x');
  std::string lines;
  while (lines.size() < much.size()) lines += "A: b\r\n";
  const std::string post = "POST /v1/models/x HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  const std::string sign_in = "POST /api/sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  for (const std::string& bytes :
       {"GET /" + much, post + "A: " + much, post + lines, much,
        post + "Transfer-Encoding: chunked\r\n\r\n" + much,
        post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + lines,
        post + "Content-Length: 33554432\r\n\r\n" + much,
        sign_in + "Content-Length: 33554432\r\n\r\n" + much,
        sign_in + "Transfer-Encoding: chunked\r\n\r\n2000000\r\n" + much}) {
    CAPTURE(bytes.substr(0, 40));
    CHECK_FALSE(contains(converse(hub, bytes), "HTTP/1.1 200"));
  }
  CHECK(peak_memory(hub) - before < 8 * 1024);
  CHECK(send(hub, "GET", "/api/status").status == 200);
}

// ---- stacks and threads -------------------------------------------------------------------------

// A local_hub under what `ulimit` says, such as "-s 256".
std::unique_ptr<process> launch_under(const std::string& limits, const home& at, words arguments) {
  const std::string script = "ulimit " + limits + " && exec \"$0\" \"$@\"";
  arguments.insert(arguments.begin(), {"-c", script, program("HUB_LOCAL_HUB")});
  arguments.insert(arguments.end(), {"--port", "0", "--data", at.data.string()});
  return std::make_unique<process>("/bin/sh", arguments, variables());
}

TEST_CASE("nothing that comes in needs a deep stack", "[local_hub]") {
  const home at;
  running_hub hub;
  hub.program = launch_under("-s 256", at, {"--api-key", good_key});
  const std::string lead = "local_hub: listening on ";
  hub.url = hub.program->wait_for_line(lead).substr(lead.size());
  const std::string key = "x-api-key: " + good_key + "\r\n";
  for (const std::size_t length : {700u, 4000u, 8000u}) {
    const std::string letters(length, 'a');
    send(hub, "GET", "/" + letters);
    send(hub, "GET", "/v1/models/" + letters, "", {{"x-api-key", good_key}});
    send(hub, "GET", "/", "", {{"Range", "bytes=" + letters}});
    converse(hub, "POST /v1/models/x/upload HTTP/1.1\r\nHost: a\r\n" + key +
                      "Content-Type: multipart/form-data; boundary=" + letters +
                      "\r\nContent-Length: 5\r\n\r\nhello");
    send(hub, "POST", "/api/models", std::string(length, '['));
    send(hub, "POST", "/v1/models", std::string(length * 100, '['), {{"x-api-key", good_key}});
  }
  CHECK(send(hub, "GET", "/api/status").status == 200);
}

TEST_CASE("where threads are few it serves with those, or says why it does not", "[local_hub]") {
  std::size_t served = 0;
  std::size_t refused = 0;
  for (int mebibytes = 16; mebibytes <= 256; mebibytes += 16) {
    CAPTURE(mebibytes);
    const home at;
    // Each thread takes a stack of 8 MiB from this.
    const auto program =
        launch_under("-s 8192 && ulimit -v " + std::to_string(mebibytes * 1024), at, {});
    const std::string lead = "local_hub: listening on ";
    if (!program->wait_for_line_or_end(lead).empty()) {
      running_hub hub;
      hub.url = program->last_line().substr(lead.size());
      CHECK(send(hub, "GET", "/api/status").status == 200);
      program->send(SIGTERM);
    }
    const ending end = program->wait_for_end();
    const bool loaded = end.code != 127;  // what the loader says is not local_hub's to say
    CHECK(end.signal == 0);
    if (loaded) CHECK((end.code == 0 || contains(program->err(), "threads")));
    served += end.code == 0 ? 1 : 0;
    refused += end.code == 1 ? 1 : 0;
  }
  CHECK(served > 0);
  CHECK(refused > 0);
}

TEST_CASE("a log that nobody reads holds up nobody", "[local_hub]") {
  const home at;
  const std::string log = (at.folder / "log").string();
  REQUIRE(::mkfifo(log.c_str(), 0600) == 0);
  const int ear = ::open(log.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);  // which never reads
  REQUIRE(ear >= 0);
  const std::string piece(4096, '.');
  while (::write(ear, piece.data(), piece.size()) > 0) {
  }
  running_hub hub;
  hub.program =
      std::make_unique<process>("/bin/sh",
                                words{"-c", "exec \"$0\" \"$@\" 2>" + log, program("HUB_LOCAL_HUB"),
                                      "--port", "0", "--data", at.data.string()},
                                variables());
  const std::string lead = "local_hub: listening on ";
  hub.url = hub.program->wait_for_line(lead).substr(lead.size());
  for (int i = 0; i < 20; ++i) CHECK(send(hub, "GET", "/api/status").status == 200);
  ::close(ear);  // and now the reader is gone
  for (int i = 0; i < 20; ++i) CHECK(send(hub, "GET", "/api/status").status == 200);
  hub.stop();
}

TEST_CASE("readers of events hold no thread", "[local_hub]") {
  const home at;
  const running_hub hub = start_plain(at);
  std::vector<int> readers;
  for (int i = 0; i < 100; ++i) {
    readers.push_back(connect_to(hub));
    const std::string_view ask = "GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    REQUIRE(::send(readers.back(), ask.data(), ask.size(), 0) > 0);
    std::array<char, 4096> piece{};
    std::string got;
    while (!contains(got, "event: ready")) {
      const ssize_t count = ::recv(readers.back(), piece.data(), piece.size(), 0);
      REQUIRE(count > 0);
      got.append(piece.data(), static_cast<std::size_t>(count));
    }
  }
  CHECK(thread_count(hub) < 20);
  const made_model model = make(hub, "mine");
  for (const int each : readers) {
    std::string got;
    std::array<char, 4096> piece{};
    while (!contains(got, model.id)) {
      const ssize_t count = ::recv(each, piece.data(), piece.size(), 0);
      REQUIRE(count > 0);
      got.append(piece.data(), static_cast<std::size_t>(count));
    }
    ::close(each);
  }
}

TEST_CASE("slow connections make room for those that ask", "[local_hub]") {
  const home at;
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const rlimit enough{5000, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &enough) == 0);
  const running_hub hub = start_plain(at);
  std::vector<int> slow;
  for (int i = 0; i < 4100; ++i) {  // more than it holds
    slow.push_back(connect_to(hub));
    CHECK(::send(slow.back(), "G", 1, MSG_NOSIGNAL) == 1);
    if (i % 500 == 0) CHECK(send(hub, "GET", "/api/status").status == 200);
  }
  CHECK(send(hub, "GET", "/api/status").status == 200);
  CHECK(thread_count(hub) < 20);
  for (const int each : slow) ::close(each);
  ::setrlimit(RLIMIT_NOFILE, &before);
}

}  // namespace

}  // namespace local_hub_hostile_tests
