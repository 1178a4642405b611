// SPDX-License-Identifier: MIT
//
// What a transport has to keep, tried on real sockets of 127.0.0.1: the promises of http_transport in
// the header, and those that hub::request makes of its members. For a transport of your own, write
//
//     #include "transport_suite.hpp"
//     #include "my_transport.hpp"
//
//     hub::any_transport hub_test::make_transport(const std::string& ca_file) {
//       return my_transport{ca_file};  // trusts this PEM file alone; "": what it trusts by itself
//     }
//
// and compile it with Catch2 and OpenSSL, whose certificates the servers here show. The transport may
// not take a proxy from the environment for these servers: they unset what names one.
// No test waits for a time to pass or measures one: deadlines are proved by what comes back.

#pragma once

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/certificates.hpp"
#if !defined(_WIN32)
#include "support/child_process.hpp"
#endif
#include "support/exchanges.hpp"
#include "support/raw_server.hpp"
#include "support/scratch.hpp"
#include "support/stalls.hpp"

namespace hub_test {

// Yours.
hub::any_transport make_transport(const std::string& ca_file);

namespace suite {

using namespace std::chrono_literals;
using namespace std::string_view_literals;
using hub::errc;

// ---- servers ------------------------------------------------------------------------------------

inline std::string in_chunks(std::string_view body) {
  std::ostringstream out;
  out << "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (std::size_t at = 0; at < body.size(); at += 1000) {
    const std::string_view piece = body.substr(at, 1000);
    out << std::hex << piece.size() << "\r\n" << piece << "\r\n";
  }
  out << "0\r\n\r\n";
  return out.str();
}

// ---- what came back -----------------------------------------------------------------------------

// How many header lines of this name, in small letters, a request had.
inline int headers_named(std::string head, const std::string& name) {
  for (char& c : head)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  int count = 0;
  for (std::size_t at = 0; (at = head.find("\r\n" + name + ":", at)) != std::string::npos; ++at)
    ++count;
  return count;
}

}  // namespace suite

// ---- exchanges ----------------------------------------------------------------------------------

TEST_CASE("transport: a request reaches the server as it was meant") {
  using namespace suite;
  raw_server server(answer_all(ok("{}")));
  hub::any_transport transport = make_transport("");
  const std::string path = "/a/../b//c%2Fd/%7Ee?X-Sig=a%2Bb+c%20d&e=%25&&f=/?g";
  for (const std::string method : {"POST", "PUT"}) {
    hub::request what = post(server.url(path), "[1]");
    what.method = method;
    const hub::reply reply = transport.send(what);
    INFO(message_of(reply));
    CHECK(reply.status == 200);
    CHECK(reply.body == "{}");
    CHECK(contains(server.received(), method + " " + path + " HTTP/1.1\r\n"));
  }
  CHECK(transport.send(get(server.url(path))).status == 200);
  CHECK(contains(server.received(), "GET " + path + " HTTP/1.1\r\n"));
}

TEST_CASE("transport: a request's head says each thing once, and asks for no encoding") {
  using namespace suite;
  std::vector<raw_server::received_request> seen;
  raw_server server([&](raw_server::connection& client) {
    for (;;) {
      seen.push_back(client.read_request());
      client.send(ok("{}"));
    }
  });
  hub::any_transport transport = make_transport("");
  hub::request without_type = post(server.url(), "");
  without_type.headers.pop_back();
  for (const hub::request& what : {get(server.url()), post(server.url(), "[1]"), without_type})
    CHECK(transport.send(what).status == 200);
  REQUIRE(seen.size() == 3);
  for (const auto& [head, body] : seen) {
    INFO(head);
    CHECK(headers_named(head, "host") == 1);
    CHECK(headers_named(head, "x-api-key") == 1);
    CHECK(headers_named(head, "expect") == 0);
    CHECK(headers_named(head, "transfer-encoding") == 0);
    CHECK((headers_named(head, "accept-encoding") == 0 ||
           contains(head, "ccept-encoding: identity") ||
           contains(head, "ccept-Encoding: identity")));
  }
  CHECK(headers_named(seen[0].head, "content-length") == 0);
  CHECK(headers_named(seen[1].head, "content-length") == 1);
  CHECK(headers_named(seen[1].head, "content-type") == 1);
  CHECK(seen[1].body == "[1]");
  CHECK(contains(seen[2].head, "ength: 0\r\n"));
  CHECK(headers_named(seen[2].head, "content-type") == 0);
}

TEST_CASE("transport: one connection carries many requests, and a copy has its own") {
  using namespace suite;
  raw_server server(answer_all(ok("{}")));
  hub::any_transport transport = make_transport("");
  hub::any_transport copy(transport);
  for (int i = 0; i < 5; ++i) CHECK(transport.send(post(server.url(), "{}")).status == 200);
  CHECK(server.connections() == 1);
  CHECK(copy.send(get(server.url())).status == 200);
  CHECK(server.connections() == 2);
}

TEST_CASE("transport: a server that closes after a reply, announced or not, costs no request") {
  using namespace suite;
  const std::string announced = GENERATE("", "Connection: close\r\n");
  raw_server server([announced](raw_server::connection& client) {
    client.read_request();
    client.send("HTTP/1.1 200 OK\r\n" + announced + "Content-Length: 2\r\n\r\n{}");
    client.close();
    client.mark();
  });
  hub::any_transport transport = make_transport("");
  for (std::size_t i = 1; i <= 3; ++i) {
    const hub::reply reply = transport.send(post(server.url(), "{}"));
    INFO(message_of(reply));
    CHECK(reply.status == 200);
    server.wait_for_marks(i);  // closed before the next request, so that nothing is left to luck
  }
}

TEST_CASE("transport: a body is sent in pieces and arrives whole, plain and over TLS") {
  using namespace suite;
  constexpr std::size_t size = 5'000'003;
  const bool tls = GENERATE(false, true);
  if (tls && !speak_tls) return;
  const certificate_authority authority;
  std::string arrived;
  raw_server server(
      [&](raw_server::connection& client) {
        arrived = client.read_request().body;
        client.send(http_reply(201, ""));
      },
      tls ? std::optional(tls_settings{authority.issue()}) : std::nullopt);
  hub::any_transport transport = make_transport(authority.file());
  const hub::reply reply =
      transport.send(upload(server.url(), std::make_shared<pattern_body>(size)));
  INFO(message_of(reply));
  CHECK(reply.status == 201);
  REQUIRE(arrived.size() == size);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < size; ++i) wrong += arrived[i] == pattern_body::byte_at(i) ? 0 : 1;
  CHECK(wrong == 0);
}

TEST_CASE(
    "transport: a body that fails in the middle gives its own error, and spoils no later one") {
  using namespace suite;
  raw_server server(answer_all(ok("{}")));
  hub::any_transport transport = make_transport("");
  const auto broken =
      std::make_shared<pattern_body>(5'000'000, pattern_body::ending::error, 3'000'000);
  hub::request what = upload(server.url(), broken);
  what.deadline = 24h;
  const hub::reply reply = transport.send(what);
  CHECK(failure_of(reply) == "file_changed");
  CHECK(message_of(reply) == "the pattern changed");
  CHECK(reply.status == 0);
  CHECK(transport.send(get(server.url())).status == 200);
}

TEST_CASE("transport: a body that ends too early ends the exchange instead of spinning") {
  using namespace suite;
  raw_server server(answer_all(ok("{}")));
  hub::any_transport transport = make_transport("");
  const auto last = GENERATE(std::uint64_t{0}, std::uint64_t{2'000'000});
  const auto broken =
      std::make_shared<pattern_body>(5'000'000, pattern_body::ending::nothing, last);
  CHECK(transport.send(upload(server.url(), broken)).failure);
}

TEST_CASE("transport: a reply that comes in the middle of an upload is read") {
  using namespace suite;
  const bool tls = GENERATE(false, true);
  if (tls && !speak_tls) return;
  const certificate_authority authority;
  raw_server server(
      [](raw_server::connection& client) {
        client.read_head();
        client.send(http_reply(413, "too large"));
        client.hang();
      },
      tls ? std::optional(tls_settings{authority.issue()}) : std::nullopt);
  hub::any_transport transport = make_transport(authority.file());
  const hub::reply reply =
      transport.send(upload(server.url(), std::make_shared<pattern_body>(64'000'000)));
  INFO(message_of(reply));
  CHECK(reply.status == 413);
  CHECK(reply.body == "too large");
}

// ---- replies ------------------------------------------------------------------------------------

TEST_CASE("transport: an error reply comes with its body and the headers that are needed") {
  using namespace suite;
  raw_server server(
      answer_all("HTTP/1.1 429 Slow Down\r\nRETRY-AFTER: 120\r\ncontent-type: text/plain\r\n"
                 "ETag: \"abc\"\r\nContent-Range: bytes */5\r\nContent-Length: 4\r\n\r\nslow"));
  hub::any_transport transport = make_transport("");
  const hub::reply reply = transport.send(get(server.url()));
  CHECK(failure_of(reply) == "none");
  CHECK(reply.status == 429);
  CHECK(reply.body == "slow");
  CHECK(reply.retry_after == "120");
  CHECK(reply.content_type == "text/plain");
  CHECK(reply.content_length == "4");
  CHECK(reply.content_range == "bytes */5");
  CHECK(reply.etag == "\"abc\"");
}

TEST_CASE("transport: an interim reply is not the reply") {
  using namespace suite;
  raw_server server(answer_all("HTTP/1.1 100 Continue\r\n\r\n" + ok("{}")));
  hub::any_transport transport = make_transport("");
  for (int i = 0; i < 2; ++i) {
    const hub::reply reply = transport.send(get(server.url()));
    CHECK(reply.status == 200);
    CHECK(reply.body == "{}");
  }
}

TEST_CASE("transport: replies without a body leave the connection in step") {
  using namespace suite;
  raw_server server(answer_all("HTTP/1.1 204 No Content\r\n\r\n"));
  hub::any_transport transport = make_transport("");
  for (int i = 0; i < 3; ++i) {
    const hub::reply reply = transport.send(post(server.url(), "{}"));
    INFO(message_of(reply));
    CHECK(reply.status == 204);
    CHECK(reply.body.empty());
  }
}

TEST_CASE("transport: a compressed reply stays as it is") {
  using namespace suite;
  raw_server server(
      answer_all("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nzzzz"));
  hub::any_transport transport = make_transport("");
  CHECK(transport.send(get(server.url())).body == "zzzz");
}

TEST_CASE("transport: a reply may be as long as asked for and not a byte longer") {
  using namespace suite;
  constexpr std::size_t cap = 5000;
  for (const std::size_t size : {std::size_t{0}, cap, cap + 1, 100 * cap}) {
    const std::string body(size, 'x');
    for (const std::string& answer :
         {ok(body), "HTTP/1.1 200 OK\r\n\r\n" + body, in_chunks(body)}) {
      INFO(answer.substr(0, 60) << "..., " << size << " bytes");
      raw_server server(answer_once(answer));
      hub::any_transport transport = make_transport("");
      hub::request what = get(server.url());
      what.reply_bytes_max = cap;
      const hub::reply reply = transport.send(what);
      INFO(message_of(reply));
      CHECK(reply.body.size() <= cap + 1);
      CHECK(failure_of(reply) == (size <= cap ? "none" : "bad_reply"));
      if (size <= cap) CHECK(reply.body.size() == size);
    }
  }
}

TEST_CASE("transport: a reply without an end is cut") {
  using namespace suite;
  raw_server server([](raw_server::connection& client) {
    client.read_request();
    client.send("HTTP/1.1 200 OK\r\n\r\n");
    const std::string piece(1 << 16, 'x');
    for (;;) client.send(piece);
  });
  hub::any_transport transport = make_transport("");
  CHECK(failure_of(transport.send(get(server.url()))) == "bad_reply");
}

TEST_CASE("transport: what is no whole reply is a failure, and spoils no later one") {
  using namespace suite;
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  raw_server good(answer_all(ok("good")));
  for (const std::string& broken :
       {std::string(), std::string("HTTP/1.1 20"), std::string("SSH-2.0-OpenSSH_9.2\r\n"),
        std::string("HTTP/1.1 200 OK\r\nContent-Le"),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort"),
        chunked + "5\r\nabc"}) {
    INFO("\"" << broken << "\"");
    raw_server server(answer_once(broken));
    hub::any_transport transport = make_transport("");
    const hub::reply reply = transport.send(get(server.url()));
    CHECK(reply.failure);
    CHECK(reply.status == 0);
    CHECK_FALSE(contains(message_of(reply), secret_key));
    CHECK(transport.send(get(good.url())).body == "good");
  }
}

TEST_CASE("transport: no redirect is followed, and no key goes to where it points") {
  using namespace suite;
  raw_server thief(answer_all(ok("{}")));
  for (const int status : {301, 302, 303, 307, 308}) {
    for (const std::string& target : {thief.url("/v1"), std::string("/elsewhere")}) {
      INFO(status << " to " << target);
      raw_server server(answer_once("HTTP/1.1 " + std::to_string(status) + " Moved\r\nLocation: " +
                                    target + "\r\nContent-Length: 0\r\n\r\n"));
      for (const hub::request& what : {get(server.url()), post(server.url(), "{}")})
        CHECK(make_transport("").send(what).status == status);
      CHECK(server.connections() == 2);
    }
  }
  CHECK(thief.connections() == 0);
}

// ---- replies that go to a sink ------------------------------------------------------------------

TEST_CASE("transport: the body of a 2xx goes to the sink, however long, behind its head") {
  using namespace suite;
  const std::string body(300'000, 'x');
  raw_server server(
      answer_all("HTTP/1.1 206 Partial\r\nETag: \"e\"\r\nContent-Range: bytes 0-9/9\r\n"
                 "Content-Length: 300000\r\n\r\n" +
                 body));
  hub::any_transport transport = make_transport("");
  const auto sink = std::make_shared<memory_sink>();
  hub::request what = get(server.url());
  what.sink = sink;
  what.reply_bytes_max = 1000;  // of what goes to no sink
  const hub::reply reply = transport.send(what);
  INFO(message_of(reply));
  CHECK(failure_of(reply) == "none");
  CHECK(reply.status == 206);
  CHECK(reply.body.empty());
  CHECK(sink->begun == 1);
  CHECK(sink->head.status == 206);
  CHECK(sink->head.etag == "\"e\"");
  CHECK(sink->head.content_length == "300000");
  CHECK(sink->body == body);
}

TEST_CASE("transport: a sink hears of a 2xx without a body, and of no other reply") {
  using namespace suite;
  const int status = GENERATE(200, 404, 302, 500);
  raw_server server(answer_all(http_reply(status, status == 200 ? "" : "why")));
  const auto sink = std::make_shared<memory_sink>();
  hub::request what = get(server.url());
  what.sink = sink;
  const hub::reply reply = make_transport("").send(what);
  CHECK(reply.status == status);
  CHECK(sink->begun == (status == 200 ? 1 : 0));
  CHECK(reply.body == (status == 200 ? "" : "why"));
}

TEST_CASE("transport: what the sink refuses ends the exchange with its error") {
  using namespace suite;
  raw_server server(answer_all(ok(std::string(300'000, 'x'))));
  hub::any_transport transport = make_transport("");
  const auto sink = std::make_shared<memory_sink>();
  const std::string refuses = GENERATE("the head", "a piece", "by an exception");
  sink->refuses_head = refuses == "the head";
  sink->full_at = refuses == "a piece" ? 1000 : SIZE_MAX;
  sink->throws = refuses == "by an exception";
  hub::request what = get(server.url());
  what.sink = sink;
  const hub::reply reply = transport.send(what);
  INFO(refuses);
  REQUIRE(reply.failure);
  CHECK(reply.status == 0);
  if (sink->refuses_head) CHECK(message_of(reply) == "no such head is wanted");
  if (refuses == "a piece") CHECK(message_of(reply) == "it is full");
  CHECK(transport.send(get(server.url())).status == 200);
}

TEST_CASE("transport: a body that breaks off is a failure, and the sink has what came before") {
  using namespace suite;
  raw_server server(answer_once("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort"));
  const auto sink = std::make_shared<memory_sink>();
  hub::request what = get(server.url());
  what.sink = sink;
  const hub::reply reply = make_transport("").send(what);
  CHECK(failure_of(reply) == "not_reachable");
  CHECK(reply.status == 0);
  CHECK(sink->body == "short");
}

// ---- servers that go away -----------------------------------------------------------------------

namespace suite {

// Whether the signal that writing to a closed connection raises would still end the process.
inline bool leaves_sigpipe_alone() {
#if defined(_WIN32)
  return true;  // there is none
#else
  struct sigaction now {};
  ::sigaction(SIGPIPE, nullptr, &now);
  sigset_t mask;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  return now.sa_handler == SIG_DFL && sigismember(&mask, SIGPIPE) == 0;
#endif
}

}  // namespace suite

TEST_CASE("transport: a server that closes in the middle of an upload costs no process") {
  using namespace suite;
  // The disposition is the default one, so a SIGPIPE that gets out ends this process.
  const bool tls = GENERATE(false, true);
  if (tls && !speak_tls) return;
  const bool reset = GENERATE(false, true);
  CAPTURE(tls, reset);
  const certificate_authority authority;
  raw_server server(
      [reset](raw_server::connection& client) {
        client.read_head();
        client.read_bytes(100'000);
        if (reset) client.reset();
      },
      tls ? std::optional(tls_settings{authority.issue()}) : std::nullopt);
  REQUIRE(leaves_sigpipe_alone());
  hub::any_transport transport = make_transport(authority.file());
  for (int i = 0; i < rounds(); ++i) {
    const hub::reply reply =
        transport.send(upload(server.url(), std::make_shared<pattern_body>(16'000'000)));
    INFO(message_of(reply));
    CHECK(reply.failure);
    CHECK(reply.status == 0);
  }
  CHECK(leaves_sigpipe_alone());
}

TEST_CASE("transport: where nobody listens, the host and port are named, and no key") {
  using namespace suite;
  const bound_socket refusing;
  const std::string place = "127.0.0.1:" + std::to_string(refusing.port());
  const std::string scheme = GENERATE("http", "https");
  if (scheme == "https" && !speak_tls) return;
  const hub::reply reply = make_transport("").send(get(scheme + "://" + place + "/a?X-Sig=secret"));
  CHECK(failure_of(reply) == "not_reachable");
  CHECK(contains(message_of(reply), place));
  CHECK_FALSE(contains(message_of(reply), secret_key));
  CHECK_FALSE(contains(message_of(reply), "secret"));
}

// ---- deadlines and cancellation -----------------------------------------------------------------

namespace suite {

inline hub::request request_for(const stall& where, std::string url) {
  if (!where.uploads) return get(std::move(url));
  return upload(std::move(url), std::make_shared<pattern_body>(std::uint64_t{1} << 30));
}

}  // namespace suite

TEST_CASE("transport: no exchange outlives its deadline, wherever the server leaves it") {
  using namespace suite;
  const certificate_authority authority;
  const server_identity identity = authority.issue();
  raw_server good(answer_all(ok("good")));
  for (const stall& where : all_stalls()) {
    if (where.scheme == "https"sv && !speak_tls) continue;
    INFO(where.name << ", " << where.scheme);
    raw_server server(where.script,
                      where.tls ? std::optional(tls_settings{identity}) : std::nullopt);
    hub::any_transport transport = make_transport(authority.file());
    hub::request what = request_for(where, server.url("/", where.scheme));
    // A slow machine may need longer to get there; what matters is that it ends there.
    for (what.deadline = 100ms; server.marks() == 0; what.deadline *= 2) {
      const hub::reply reply = transport.send(what);
      INFO(message_of(reply));
      CHECK(failure_of(reply) == "timed_out");
      CHECK(reply.status == 0);
    }
    CHECK(transport.send(get(good.url())).body == "good");
  }
}

#if !defined(_WIN32)  // where no port is deaf
TEST_CASE("transport: no exchange outlives its deadline while it connects") {
  using namespace suite;
  const deaf_port deaf;
  const std::string scheme = GENERATE("http", "https");
  if (scheme == "https" && !speak_tls) return;
  hub::request what = get(scheme + "://127.0.0.1:" + std::to_string(deaf.port()) + "/");
  what.deadline = 250ms;
  CHECK(failure_of(make_transport("").send(what)) == "timed_out");
}
#endif

TEST_CASE("transport: a deadline that has passed already is a time-out, and nothing is sent") {
  using namespace suite;
  raw_server server(answer_all(ok("{}")));
  hub::any_transport transport = make_transport("");
  hub::request what = get(server.url());
  what.deadline = GENERATE(hub::duration(0s), hub::duration(-1h));
  CHECK(failure_of(transport.send(what)) == "timed_out");
  CHECK(server.connections() == 0);
}

TEST_CASE("transport: a server that stalls is given up, and so is one that takes no connection") {
  using namespace suite;
  raw_server server([](raw_server::connection& client) { client.hang(); });
  std::vector<hub::request> all;
  all.push_back(get(server.url()));
  all.back().stall_timeout = 20ms;
#if !defined(_WIN32)
  const deaf_port deaf;
  all.push_back(get("http://127.0.0.1:" + std::to_string(deaf.port())));
  all.back().connect_timeout = 20ms;
#endif
  for (hub::request& what : all) {
    what.deadline = 24h;
    const std::string failure = failure_of(make_transport("").send(what));
    CHECK((failure == "timed_out" || failure == "not_reachable"));
  }
}

TEST_CASE("transport: a long exchange that moves is not cut before its deadline") {
  using namespace suite;
  raw_server server([](raw_server::connection& client) {
    client.read_request();
    for (char c : ok("{}")) client.send({&c, 1});
  });
  hub::request what = get(server.url());
  what.deadline = hub::duration::max() / 4;
  CHECK(make_transport("").send(what).body == "{}");
}

TEST_CASE("transport: cancel ends an exchange from another thread, and every later one") {
  using namespace suite;
  const certificate_authority authority;
  const server_identity identity = authority.issue();
  raw_server good(answer_all(ok("good")));
  for (const stall& where : all_stalls()) {
    if (where.scheme == "https"sv && !speak_tls) continue;
    INFO(where.name << ", " << where.scheme);
    raw_server server(where.script,
                      where.tls ? std::optional(tls_settings{identity}) : std::nullopt);
    hub::any_transport transport = make_transport(authority.file());
    hub::request what = request_for(where, server.url("/", where.scheme));
    what.deadline = 24h;
    auto sent = std::async(std::launch::async, [&] { return transport.send(what); });
    server.wait_for_marks(1);
    transport.cancel();
    const hub::reply reply = sent.get();
    INFO(message_of(reply));
    CHECK(failure_of(reply) == "cancelled");
    CHECK(reply.status == 0);
    const std::size_t before = good.connections();
    CHECK(failure_of(transport.send(get(good.url()))) == "cancelled");
    CHECK(good.connections() == before);
    hub::any_transport copy(transport);
    CHECK(copy.send(get(good.url())).body == "good");
  }
}

#if !defined(_WIN32)
TEST_CASE("transport: cancel ends an exchange that waits for its connection") {
  using namespace suite;
  const deaf_port deaf;
  hub::any_transport transport = make_transport("");
  hub::request what = get("http://127.0.0.1:" + std::to_string(deaf.port()) + "/");
  what.deadline = 24h;
  auto sent = std::async(std::launch::async, [&] { return transport.send(what); });
  deaf.wait_for_connecting(2);  // the one that filled the queue, and ours
  transport.cancel();
  CHECK(failure_of(sent.get()) == "cancelled");
}
#endif

TEST_CASE("transport: cancel ends no exchange of a copy") {
  using namespace suite;
  std::promise<void> cancelled;
  auto go_on = cancelled.get_future().share();
  raw_server server([go_on](raw_server::connection& client) {
    client.read_request();
    client.mark();
    go_on.wait();
    client.send(ok("{}"));
  });
  hub::any_transport original = make_transport("");
  hub::any_transport copy(original);
  auto lost = std::async(std::launch::async, [&] { return original.send(get(server.url())); });
  auto kept = std::async(std::launch::async, [&] { return copy.send(get(server.url())); });
  server.wait_for_marks(2);
  original.cancel();
  CHECK(failure_of(lost.get()) == "cancelled");
  cancelled.set_value();
  CHECK(kept.get().body == "{}");
}

// ---- TLS ----------------------------------------------------------------------------------------

#if !defined(HUB_SESSION_NO_OPENSSL)

TEST_CASE("transport: a server that can be trusted is spoken to, by one connection") {
  using namespace suite;
  const certificate_authority authority;
  raw_server server(answer_all(ok("{}")), tls_settings{authority.issue()});
  hub::any_transport transport = make_transport(authority.file());
  for (int i = 0; i < 3; ++i) {
    const hub::reply reply = transport.send(post(server.url("/v1"), "[]"));
    INFO(message_of(reply));
    CHECK(reply.status == 200);
  }
  CHECK(server.connections() == 1);
}

TEST_CASE("transport: a server that cannot be trusted never sees a byte of the request") {
  using namespace suite;
  const certificate_authority authority;
  const certificate_authority stranger;
  struct untrusted {
    const char* name;
    server_identity identity;
    std::string ca_file;
  };
  const std::vector<untrusted> all = {
      {"an authority that nobody knows", authority.issue(), ""},
      {"another authority than the one known", stranger.issue(), authority.file()},
      {"an authority's file that is missing", authority.issue(), authority.file() + ".missing"},
      {"its own signature", authority.issue({.self_signed = true}), authority.file()},
      {"a certificate that has expired",
       authority.issue({.valid_from_seconds = -7200, .valid_until_seconds = -3600}),
       authority.file()},
      {"another host's name", authority.issue({.alternative_names = "DNS:hub.example.org"}),
       authority.file()},
      {"another address", authority.issue({.alternative_names = "IP:127.0.0.2"}),
       authority.file()}};
  for (const untrusted& each : all) {
    INFO(each.name);
    raw_server server(answer_all(ok("{}")), tls_settings{each.identity});
    const hub::reply reply = make_transport(each.ca_file).send(post(server.url(), "{}"));
    INFO(message_of(reply));
    CHECK(failure_of(reply) == "tls_failed");
    CHECK(reply.status == 0);
    CHECK(server.received().empty());
  }
}

TEST_CASE("transport: no TLS older than 1.2 is spoken") {
  using namespace suite;
  const certificate_authority authority;
  raw_server server(answer_all(ok("{}")), tls_settings{authority.issue(), TLS1_1_VERSION});
  CHECK(failure_of(make_transport(authority.file()).send(get(server.url()))) == "tls_failed");
  raw_server newer(answer_all(ok("{}")), tls_settings{authority.issue(), TLS1_2_VERSION});
  CHECK(make_transport(authority.file()).send(get(newer.url())).status == 200);
}

TEST_CASE("transport: an https address is never spoken to in the clear") {
  using namespace suite;
  raw_server plain([](raw_server::connection& client) {
    client.read_bytes(1);  // and what came with it
    client.reset();
  });
  const std::string scheme = GENERATE("https", "HTTPS");
  const hub::reply reply = make_transport("").send(post(plain.url("/", scheme), "{}"));
  CHECK(failure_of(reply) == "tls_failed");
  REQUIRE_FALSE(plain.received().empty());
  CHECK(plain.received()[0] == '\x16');  // a TLS handshake
  CHECK_FALSE(contains(plain.received(), secret_key));
}

#endif

#if !defined(_WIN32)  // where small letters and capitals name one variable
TEST_CASE("transport: what is sent from outside for a web server is no proxy here") {
  using namespace suite;
  raw_server proxy(answer_all(ok("proxy")));
  raw_server server(answer_all(ok("server")));
  const environment variable("HTTP_PROXY", proxy.url().c_str());
  hub::any_transport transport = make_transport("");
  CHECK(transport.send(get(server.url())).body == "server");
  CHECK(proxy.connections() == 0);
}
#endif

// ---- the end of the program ---------------------------------------------------------------------

// It is TLS that could crash there; and Windows makes no child in the way that these are made.
#if !defined(_WIN32) && !defined(HUB_SESSION_NO_OPENSSL)
namespace suite {

// Exchanges over TLS go on, each on a connection of its own, when the program calls std::exit. What
// is left of the threads ends with the process.
inline void exit_during_exchanges() {
  static const auto& original = *new hub::any_transport(make_transport(variable("SUITE_CA_FILE")));
  const hub::request what = get(variable("SUITE_URL"));
  for (int i = 0; i < 8; ++i)
    std::thread([what] {
      while (!hub::any_transport(original).send(what).failure) {
      }
      for (;;) std::this_thread::sleep_for(1h);
    }).detach();
  say("running\n");
  wait_for_line();
  std::exit(7);
}

}  // namespace suite

TEST_CASE("transport: a program that calls std::exit during exchanges ends as it meant to") {
  using namespace suite;
  const certificate_authority authority;
  raw_server server(
      [](raw_server::connection& client) {
        client.read_request();
        client.send(ok("{}"));
        client.mark();
      },
      tls_settings{authority.issue()});
  for (int i = 0; i < rounds() / 2; ++i) {
    child_process child("exit_during_exchanges",
                        {"SUITE_CA_FILE=" + authority.file(), "SUITE_URL=" + server.url()});
    child.read_until("running\n");
    server.wait_for_marks(server.marks() + 20);
    child.write("\n");
    CHECK(child.wait() == "exit 7");
  }
}

TEST_CASE("transport: a scenario is played in a child", "[.][child_process]") {
  play_scenario({{"exit_during_exchanges", &suite::exit_during_exchanges}});
}
#endif

}  // namespace hub_test
