// SPDX-License-Identifier: MIT
//
// The default policies: httplib_transport on real sockets of 127.0.0.1, against httplib's own server
// and against one that misbehaves; thread_sleeper, steady_clock and sigpipe_guard. No test waits
// for a time to pass or measures one: deadlines are proved by what comes back, not by when.

#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <future>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "support/exchanges.hpp"
#include "support/raw_server.hpp"
#include "support/stalls.hpp"

namespace default_policies_tests {

using namespace hub_test;
using namespace std::chrono_literals;
using namespace std::string_literals;
using hub::errc;

namespace {

bool sigpipe_is_pending() {
  sigset_t now;
  ::sigpending(&now);
  return sigismember(&now, SIGPIPE) == 1;
}

void (*disposition_of(int number))(int) {
  struct sigaction now {};
  ::sigaction(number, nullptr, &now);
  return now.sa_handler;
}

bool same_mask(const sigset_t& one, const sigset_t& other) {
  for (int number = 1; number < NSIG; ++number)
    if (sigismember(&one, number) != sigismember(&other, number)) return false;
  return true;
}

sigset_t signal_mask() {
  sigset_t out;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &out);
  return out;
}

}  // namespace

// ---- exchanges ----------------------------------------------------------------------------------

TEST_CASE("requests reach httplib's server as they were meant") {
  struct seen {
    std::string method, path, key, type, body;
  };
  std::mutex mutex;
  std::vector<seen> all;
  httplib::Server server;
  const auto note = [&](const httplib::Request& what, httplib::Response& answer) {
    const std::lock_guard lock(mutex);
    all.push_back({what.method, what.path, what.get_header_value("x-api-key"),
                   what.get_header_value("content-type"), what.body});
    answer.set_header("Retry-After", "17");
    answer.set_content("{\"n\": " + std::to_string(all.size()) + "}", "application/json");
  };
  server.Get(".*", note);
  server.Post(".*", note);
  const running_server running(server);
  const std::string root = "http://127.0.0.1:" + std::to_string(running.port());

  hub::httplib_transport transport;
  const hub::reply first = transport.send(get(root + "/v1/models/abc"));
  const hub::reply second = transport.send(post(root + "/prefix/v1/models", "{\"a\": 1}"));
  const hub::reply third = transport.send(post(root, ""));

  for (const hub::reply* each : {&first, &second, &third}) {
    INFO(message_of(*each));
    CHECK(failure_of(*each) == "none");
    CHECK(each->status == 200);
    CHECK(each->retry_after == "17");
    CHECK(each->latency == hub::duration::zero());
  }
  CHECK(first.body == "{\"n\": 1}");
  CHECK(third.body == "{\"n\": 3}");
  const std::lock_guard lock(mutex);
  REQUIRE(all.size() == 3);
  CHECK(all[0].method == "GET");
  CHECK(all[0].path == "/v1/models/abc");
  CHECK(all[0].key == secret_key);
  CHECK(all[0].body.empty());
  CHECK(all[1].method == "POST");
  CHECK(all[1].path == "/prefix/v1/models");
  CHECK(all[1].type == "application/json");
  CHECK(all[1].body == "{\"a\": 1}");
  CHECK(all[2].path == "/");
  CHECK(all[2].body.empty());
}

TEST_CASE("a request's head says each thing once and asks for no encoding") {
  raw_server server(answer_all(ok("{}")));
  hub::httplib_transport transport;

  REQUIRE(transport.send(post(server.url("/v1/auth"), "")).status == 200);
  const std::string head = hub::text::lowered(server.received());
  CHECK(head.starts_with("post /v1/auth http/1.1\r\n"));
  CHECK(count_of(head, "\r\nhost: 127.0.0.1:" + std::to_string(server.port()) + "\r\n") == 1);
  CHECK(count_of(head, "\r\nx-api-key: ") == 1);
  CHECK(count_of(head, "\r\ncontent-length: 0\r\n") == 1);
  CHECK(count_of(head, "\r\naccept-encoding: identity\r\n") == 1);
  CHECK(count_of(head, "\r\naccept-encoding:") == 1);
  CHECK_FALSE(contains(head, "\r\nexpect:"));
  CHECK_FALSE(contains(head, "\r\ntransfer-encoding:"));
}

TEST_CASE("one connection carries many requests to the same host, and each host has its own") {
  raw_server one(answer_all(ok("one")));
  raw_server other(answer_all(ok("other")));
  hub::httplib_transport transport;

  for (int i = 0; i < 5; ++i) CHECK(transport.send(get(one.url())).body == "one");
  CHECK(one.connections() == 1);
  CHECK(transport.send(get(other.url())).body == "other");
  CHECK(one.connections() == 1);
  CHECK(other.connections() == 1);
}

TEST_CASE("a copy of a transport has a connection of its own") {
  raw_server server(answer_all(ok("{}")));
  hub::httplib_transport transport;
  CHECK(transport.send(get(server.url())).status == 200);
  hub::httplib_transport copy(transport);
  CHECK(copy.send(get(server.url())).status == 200);
  CHECK(transport.send(get(server.url())).status == 200);
  CHECK(server.connections() == 2);
}

TEST_CASE("a connection that idled for longer than idle_max is not used again") {
  raw_server server(answer_all(ok("{}")));
  hub::httplib_transport transport{hub::httplib_options{.idle_max = 0s}};
  for (int i = 0; i < 3; ++i) CHECK(transport.send(get(server.url())).status == 200);
  CHECK(server.connections() == 3);
}

TEST_CASE("a server that closes after each reply, announced or not, costs no request") {
  const bool announced = GENERATE(true, false);
  std::string answer = ok("{}");
  if (announced) answer.insert(answer.find("\r\n") + 2, "Connection: close\r\n");
  raw_server server([&](raw_server::connection& client) {
    client.read_request();
    client.send(answer);
    client.close();
    client.mark();
  });
  hub::httplib_transport transport;
  for (std::size_t i = 1; i <= 3; ++i) {
    const hub::reply reply = transport.send(get(server.url()));
    INFO(message_of(reply));
    CHECK(reply.status == 200);
    CHECK(reply.body == "{}");
    server.wait_for_marks(i);  // closed before the next request, so that nothing is left to luck
  }
  CHECK(server.connections() == 3);
}

TEST_CASE("a body is streamed in pieces and arrives whole") {
  constexpr std::uint64_t size = 32 * 1024 * 1024 + 12345;
  const bool tls = GENERATE(false, true);
  const certificate_authority authority;
  const server_identity identity = authority.issue();
  std::unique_ptr<httplib::Server> server =
      tls ? std::make_unique<httplib::SSLServer>(identity.certificate_file.c_str(),
                                                 identity.key_file.c_str())
          : std::make_unique<httplib::Server>();
  std::uint64_t arrived = 0;
  checksum sum;
  server->Post("/upload", [&](const httplib::Request&, httplib::Response& answer,
                              const httplib::ContentReader& read) {
    read([&](const char* data, std::size_t length) {
      arrived += length;
      sum.add({data, length});
      return true;
    });
    answer.status = 201;
  });
  const auto body = std::make_shared<pattern_body>(size);
  hub::reply reply;
  {
    const running_server running(*server);
    hub::httplib_transport transport{
        hub::httplib_options{.ca_file = authority.file(), .piece_bytes = 100'000}};
    hub::request what = upload((tls ? "https" : "http") + std::string("://127.0.0.1:") +
                                   std::to_string(running.port()) + "/upload",
                               body);
    reply = transport.send(what);
  }
  INFO(message_of(reply));
  CHECK(failure_of(reply) == "none");
  CHECK(reply.status == 201);
  CHECK(arrived == size);
  CHECK(sum.value() == body->checksum_of_all());
  CHECK(body->largest_read <= 100'000);
  CHECK(body->reads >= size / 100'000);
}

TEST_CASE(
    "a body that fails in the middle gives its own error, and the connection is not used again") {
  raw_server server([](raw_server::connection& client) {
    for (;;) {
      client.read_request();
      client.send(ok("{}"));
    }
  });
  hub::httplib_transport transport;
  const auto broken =
      std::make_shared<pattern_body>(5'000'000, pattern_body::ending::error, 3'000'000);
  const hub::reply reply = transport.send(upload(server.url(), broken));
  CHECK(failure_of(reply) == "file_changed");
  CHECK(message_of(reply) == "the pattern changed");
  CHECK(reply.status == 0);
  CHECK(transport.send(get(server.url())).status == 200);
  CHECK(server.connections() == 2);
}

TEST_CASE("a body that ends too early without an error ends the exchange instead of spinning") {
  raw_server server(answer_all(ok("{}")));
  hub::httplib_transport transport;
  const auto last = GENERATE(std::uint64_t{0}, std::uint64_t{2'000'000});
  const auto broken =
      std::make_shared<pattern_body>(5'000'000, pattern_body::ending::nothing, last);
  const hub::reply reply = transport.send(upload(server.url(), broken));
  CHECK(failure_of(reply) == "internal_error");
  CHECK(broken->reads <= 2 + last / 1'000'000);
}

// ---- replies ------------------------------------------------------------------------------------

TEST_CASE("a reply may be as long as asked for and not a byte longer") {
  struct shape {
    const char* name;
    std::function<std::string(const std::string&)> wrap;
  };
  const std::vector<shape> shapes = {
      {"with its length", [](const std::string& body) { return ok(body); }},
      {"until the end of the connection",
       [](const std::string& body) { return "HTTP/1.1 200 OK\r\n\r\n" + body; }},
      {"in chunks", [](const std::string& body) {
         std::ostringstream out;
         out << "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
         for (std::size_t at = 0; at < body.size(); at += 1000) {
           const std::string piece = body.substr(at, 1000);
           out << std::hex << piece.size() << "\r\n" << piece << "\r\n";
         }
         out << "0\r\n\r\n";
         return out.str();
       }}};
  constexpr std::size_t cap = 5000;
  for (const shape& each : shapes) {
    for (const std::size_t size : {std::size_t{0}, cap - 1, cap, cap + 1, 100 * cap}) {
      INFO(each.name << ", " << size << " bytes");
      raw_server server(answer_once(each.wrap(std::string(size, 'x'))));
      hub::httplib_transport transport;
      hub::request what = get(server.url());
      what.reply_bytes_max = cap;
      const hub::reply reply = transport.send(what);
      INFO(message_of(reply));
      CHECK(reply.body.size() <= cap + 1);
      if (size <= cap) {
        CHECK(failure_of(reply) == "none");
        CHECK(reply.status == 200);
        CHECK(reply.body.size() == size);
      } else {
        CHECK(failure_of(reply) == "bad_reply");
      }
    }
  }
}

TEST_CASE("a reply without an end is cut at the cap") {
  raw_server server([](raw_server::connection& client) {
    client.read_request();
    client.send("HTTP/1.1 200 OK\r\n\r\n");
    const std::string piece(1 << 16, 'x');
    for (;;) client.send(piece);
  });
  hub::httplib_transport transport;
  hub::request what = get(server.url());
  CHECK(failure_of(transport.send(what)) == "bad_reply");
}

// ---- replies that go to a sink ------------------------------------------------------------------

namespace {

hub::request get_into(std::string url, const std::shared_ptr<memory_sink>& sink) {
  hub::request out = get(std::move(url));
  out.sink = sink;
  out.reply_bytes_max = 1000;
  return out;
}

}  // namespace

TEST_CASE("the body of a 2xx goes to the sink, however long, behind the head as it came") {
  const std::string body(100'000, 'x');
  for (const char* status : {"200 OK", "206 Partial Content"}) {
    raw_server server(answer_all("HTTP/1.1 "s + status +
                                 "\r\nContent-Length: 100000\r\nContent-Type: a/b\r\n"
                                 "Content-Range: bytes 1-2/3\r\nETag: \"v1\"\r\n\r\n" +
                                 body));
    hub::httplib_transport transport;
    for (int i = 0; i < 2; ++i) {
      const auto sink = std::make_shared<memory_sink>();
      const hub::reply reply = transport.send(get_into(server.url(), sink));
      CHECK(failure_of(reply) == "none");
      CHECK(reply.body.empty());
      CHECK(sink->begun == 1);
      CHECK((sink->body == body));
      for (const hub::reply* each : {&reply, &std::as_const(sink->head)}) {
        CHECK(each->status == std::atoi(status));
        CHECK(each->content_length == "100000");
        CHECK(each->content_type == "a/b");
        CHECK(each->content_range == "bytes 1-2/3");
        CHECK(each->etag == "\"v1\"");
        CHECK(each->body.empty());
      }
    }
    CHECK(server.connections() == 1);
  }
}

TEST_CASE(
    "the body of any other status stays in the reply, under its cap, and the sink sees none") {
  for (const char* status : {"302 Found", "403 Forbidden", "416 Range Not Satisfiable", "503 No"}) {
    for (const std::size_t size : {std::size_t{10}, std::size_t{2000}}) {
      raw_server server(answer_once("HTTP/1.1 "s + status + "\r\nContent-Length: " +
                                    std::to_string(size) + "\r\n\r\n" + std::string(size, 'e')));
      const auto sink = std::make_shared<memory_sink>();
      const hub::reply reply = hub::httplib_transport().send(get_into(server.url(), sink));
      CHECK(sink->begun == 0);
      CHECK(sink->body.empty());
      if (size == 10)
        CHECK(reply.body == "eeeeeeeeee");
      else
        CHECK(failure_of(reply) == "bad_reply");
    }
  }
}

TEST_CASE("what the sink refuses ends the exchange, with its error, and spoils no later one") {
  raw_server server(answer_all(ok(std::string(10'000'000, 'x'))));
  hub::httplib_transport transport;
  const auto refusing = std::make_shared<memory_sink>();
  SECTION("the head") {
    refusing->refuses_head = true;
    CHECK(failure_of(transport.send(get_into(server.url(), refusing))) == "bad_reply");
    CHECK(refusing->body.empty());
  }
  SECTION("a piece") {
    refusing->full_at = 5000;
    CHECK(failure_of(transport.send(get_into(server.url(), refusing))) == "file_error");
    CHECK(refusing->body.size() < 1'000'000);
  }
  SECTION("by an exception") {
    refusing->throws = true;
    CHECK(failure_of(transport.send(get_into(server.url(), refusing))) == "internal_error");
  }
  const auto sink = std::make_shared<memory_sink>();
  CHECK(failure_of(transport.send(get_into(server.url(), sink))) == "none");
  CHECK(sink->body.size() == 10'000'000);
}

TEST_CASE("a body that breaks off is a failure, and the sink has what came before") {
  raw_server server(answer_once("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"));
  const auto sink = std::make_shared<memory_sink>();
  const hub::reply reply = hub::httplib_transport().send(get_into(server.url(), sink));
  CHECK(failure_of(reply) == "not_reachable");
  CHECK(reply.status == 0);
  CHECK(sink->body == "half");
}

TEST_CASE("a path and a query reach the server byte for byte") {
  raw_server server(answer_all(ok("{}")));
  hub::httplib_transport transport;
  const std::string target = "/a%20b%2Fc/d+e,f;g'h?X-Sig=i+j/k==&l=%2B%26&m&n=o%0d?p";
  CHECK(transport.send(get(server.url(target))).body == "{}");
  CHECK(contains(server.received(), "GET " + target + " HTTP/1.1\r\n"));
}

TEST_CASE("a compressed reply stays as it is") {
  // 20 bytes of gzip that would become nothing at all.
  const std::string gzip = "\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0"s;
  REQUIRE(gzip.size() == 20);
  std::string answer = ok(gzip);
  answer.insert(answer.find("\r\n") + 2, "Content-Encoding: gzip\r\n");
  raw_server server(answer_all(answer));
  hub::httplib_transport transport;
  const hub::reply reply = transport.send(get(server.url()));
  INFO(message_of(reply));
  CHECK(reply.status == 200);
  CHECK(reply.body == gzip);
}

TEST_CASE("replies without a body leave the connection in step") {
  const std::string answer =
      GENERATE(as<std::string>(), "HTTP/1.1 204 No Content\r\n\r\n",
               "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
               "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
  raw_server server(answer_all(answer));
  hub::httplib_transport transport;
  for (int i = 0; i < 3; ++i) {
    const hub::reply reply = transport.send(post(server.url(), "{}"));
    INFO(answer << message_of(reply));
    CHECK(failure_of(reply) == "none");
    CHECK(reply.status == std::stoi(answer.substr(9, 3)));
    CHECK(reply.body.empty());
  }
  CHECK(server.connections() == 1);
}

TEST_CASE("an error reply comes with its body and its Retry-After") {
  raw_server server(answer_all(
      "HTTP/1.1 429 Slow\r\nRetry-After: 120\r\nContent-Length: 18\r\n\r\n{\"message\":\"slow\"}"));
  hub::httplib_transport transport;
  const hub::reply reply = transport.send(post(server.url(), "{}"));
  CHECK(failure_of(reply) == "none");
  CHECK(reply.status == 429);
  CHECK(reply.retry_after == "120");
  CHECK(reply.body == "{\"message\":\"slow\"}");
}

TEST_CASE("an HTML page is a reply like any other") {
  const std::string page =
      "<!DOCTYPE html><html><body>Sign in to the hotel's network</body></html>";
  raw_server server(answer_all("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: " +
                               std::to_string(page.size()) + "\r\n\r\n" + page));
  hub::httplib_transport transport;
  CHECK(transport.send(get(server.url())).body == page);
}

TEST_CASE("a broken reply ends the exchange, stays small, and spoils no later one") {
  enum class expected { failure, either };
  struct broken {
    const char* name;
    std::string bytes;
    expected what;
  };
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::vector<broken> all = {
      {"nothing", "", expected::failure},
      {"half a status line", "HTTP/1.1 20", expected::failure},
      {"another protocol", "SSH-2.0-OpenSSH_9.2\r\n", expected::failure},
      {"no number", "HTTP/1.1 abc OK\r\n\r\n", expected::failure},
      {"half a head", "HTTP/1.1 200 OK\r\nContent-Le", expected::failure},
      {"a cut body", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort", expected::failure},
      {"a length beyond all memory",
       "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nx", expected::failure},
      {"a length beyond all numbers",
       "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx", expected::failure},
      // Versions of httplib differ in the rest: what they take is short, and no JSON of HUB's.
      {"a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx", expected::either},
      {"a length in words", "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx", expected::either},
      {"chunks cut off", chunked + "5\r\nabc", expected::failure},
      {"no last chunk", chunked + "3\r\nabc\r\n", expected::either},
      {"a chunk without a size", chunked + "zz\r\nabc\r\n0\r\n\r\n", expected::either},
      {"a chunk longer than said", chunked + "3\r\nabcdef\r\n0\r\n\r\n", expected::either},
      {"a chunk of size -2", chunked + "-2\r\n" + std::string(20'000, 'x'), expected::failure},
      {"a chunk of size 2^64 - 2", chunked + "fffffffffffffffe\r\n" + std::string(20'000, 'x'),
       expected::failure},
      {"a header line without a colon",
       "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\n{}", expected::either},
      {"a header line with a NUL", "HTTP/1.1 200 OK\r\nx: a\0b\r\nContent-Length: 2\r\n\r\n{}"s,
       expected::either},
  };
  for (const broken& each : all) {
    INFO(each.name);
    raw_server server(answer_once(each.bytes));
    raw_server good(answer_all(ok("good")));
    hub::httplib_transport transport;
    hub::request what = get(server.url());
    what.reply_bytes_max = 4096;
    for (int i = 0; i < 2; ++i) {
      const hub::reply reply = transport.send(what);
      INFO(message_of(reply));
      CHECK(reply.body.size() <= 4097);
      if (each.what == expected::failure) CHECK(failure_of(reply) != "none");
      CHECK((reply.failure ? reply.status == 0 : reply.status == 200));
      CHECK_FALSE(contains(message_of(reply), secret_key));
    }
    CHECK(transport.send(get(good.url())).body == "good");
  }
}

TEST_CASE("long header lines and many of them do no harm") {
  struct shape {
    const char* name;
    std::string head;
  };
  std::string many;
  for (int i = 0; i < 500; ++i)
    many += "x-header-" + std::to_string(i) + ": " + std::string(50, 'y') + "\r\n";
  std::vector<shape> all = {
      {"a status line of 4 kB", "HTTP/1.1 200 " + std::string(4'000, 'O') + "\r\n"},
      {"a header of 8 kB", "HTTP/1.1 200 OK\r\nx-long: " + std::string(8'000, 'y') + "\r\n"},
      {"a header of 1 MB", "HTTP/1.1 200 OK\r\nx-long: " + std::string(1'000'000, 'y') + "\r\n"},
      {"500 headers", "HTTP/1.1 200 OK\r\n" + many},
  };
#if defined(CPPHTTPLIB_MAX_LINE_LENGTH) && CPPHTTPLIB_MAX_LINE_LENGTH <= 8192
  // Where httplib takes longer lines it overflows the stack, before anything of ours can see it.
  all.push_back({"a status line of 30 kB", "HTTP/1.1 200 " + std::string(30'000, 'O') + "\r\n"});
#endif
  for (const shape& each : all) {
    INFO(each.name);
    raw_server server(answer_once(each.head + "Content-Length: 2\r\n\r\n{}"));
    raw_server good(answer_all(ok("good")));
    hub::httplib_transport transport;
    const hub::reply reply = transport.send(get(server.url()));
    INFO(message_of(reply));
    CHECK((reply.failure || (reply.status == 200 && reply.body == "{}")));
    CHECK(transport.send(get(good.url())).body == "good");
  }
}

TEST_CASE("no redirect is followed, and no key goes to where it points") {
  const certificate_authority authority;
  raw_server thief(answer_all(ok("{}")));
  raw_server tls_thief(answer_all(ok("{}")), tls_settings{authority.issue()});
  const std::string port = std::to_string(thief.port());
  const std::vector<std::string> targets = {thief.url("/v1/models/x"),        tls_thief.url("/v1"),
                                            "http://localhost:" + port + "/", "//127.0.0.1:" + port,
                                            "http://127.0.0.1:99999999999/",  "/elsewhere"};
  for (const bool tls : {false, true})
    for (int status = 300; status <= 308; ++status)
      for (const std::string& target : targets) {
        INFO((tls ? "https, " : "http, ") << status << " to " << target);
        raw_server server(
            answer_once("HTTP/1.1 " + std::to_string(status) + " Moved\r\nLocation: " + target +
                        "\r\nContent-Length: 0\r\n\r\n"),
            tls ? std::optional(tls_settings{authority.issue()}) : std::nullopt);
        for (const hub::request& what : {get(server.url()), post(server.url(), "{}")}) {
          const hub::reply reply = trusting(authority).send(what);
          INFO(message_of(reply));
          CHECK(failure_of(reply) == "none");
          CHECK(reply.status == status);
        }
        CHECK(server.connections() == 2);
      }
  CHECK(thief.connections() == 0);
  CHECK(tls_thief.connections() == 0);
}

// ---- servers that go away -----------------------------------------------------------------------

TEST_CASE("a server that closes in the middle of an upload costs the upload and not the process") {
  // The disposition is the default one, so a SIGPIPE that gets out ends this process.
  REQUIRE(disposition_of(SIGPIPE) == SIG_DFL);
  const bool tls = GENERATE(false, true);
  const bool reset = GENERATE(false, true);
  CAPTURE(tls, reset);
  const certificate_authority authority;
  const auto settings = tls ? std::optional(tls_settings{authority.issue()}) : std::nullopt;
  raw_server server(
      [reset](raw_server::connection& client) {
        client.read_head();
        client.read_bytes(100'000);
        if (reset) client.reset();
      },
      settings);
  const sigset_t mask = signal_mask();
  hub::httplib_transport transport{
      hub::httplib_options{.ca_file = authority.file(), .piece_bytes = 64 * 1024}};
  for (int i = 0; i < rounds(); ++i) {
    const hub::reply reply =
        transport.send(upload(server.url(), std::make_shared<pattern_body>(16 * 1024 * 1024)));
    INFO(message_of(reply));
    CHECK(failure_of(reply) == "not_reachable");
    CHECK(reply.status == 0);
    CHECK_FALSE(sigpipe_is_pending());
  }
  CHECK(same_mask(mask, signal_mask()));
  CHECK(disposition_of(SIGPIPE) == SIG_DFL);
}

TEST_CASE("dropping a kept TLS connection that the server has reset raises no SIGPIPE") {
  const certificate_authority authority;
  raw_server server(
      [](raw_server::connection& client) {
        client.read_request();
        client.send(ok("{}"));
        client.end_output();  // FIN, then RST: what the client writes next would raise SIGPIPE
        client.reset();
        client.mark();
      },
      tls_settings{authority.issue()});
  // Blocked here, so that one that is raised stays to be seen instead of ending this process.
  const signals_blocked quiet;
  {
    hub::httplib_transport transport = trusting(authority);
    CHECK(transport.send(get(server.url())).status == 200);
    server.wait_for_marks(1);
  }
  const bool raised = sigpipe_is_pending();
  CHECK_FALSE(raised);
  if (raised) {
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, SIGPIPE);
    int taken = 0;
    ::sigwait(&only, &taken);
  }
}

TEST_CASE("where nobody listens, the host and port are named") {
  const bound_socket refusing;
  const int port = refusing.port();
  hub::httplib_transport transport;
  for (const char* scheme : {"http", "https"}) {
    const hub::reply reply =
        transport.send(get(scheme + std::string("://127.0.0.1:") + std::to_string(port) + "/"));
    CHECK(failure_of(reply) == "not_reachable");
    CHECK(contains(message_of(reply), "127.0.0.1:" + std::to_string(port)));
    CHECK_FALSE(contains(message_of(reply), secret_key));
  }
}

// ---- deadlines and cancellation -----------------------------------------------------------------

namespace {

hub::request request_for(const stall& where, std::string url) {
  if (!where.uploads) return get(std::move(url));
  return upload(std::move(url), std::make_shared<pattern_body>(std::uint64_t{1} << 30));
}

}  // namespace

TEST_CASE("no exchange outlives its deadline, wherever the server leaves it") {
  const certificate_authority authority;
  const server_identity identity = authority.issue();
  for (const stall& where : all_stalls()) {
    INFO(where.name << ", " << where.scheme);
    raw_server server(where.script,
                      where.tls ? std::optional(tls_settings{identity}) : std::nullopt);
    raw_server good(answer_all(ok("good")));
    hub::httplib_transport transport = trusting(authority);
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

TEST_CASE("no exchange outlives its deadline while it connects") {
  const deaf_port deaf;
  raw_server good(answer_all(ok("good")));
  const std::string scheme = GENERATE("http", "https");
  hub::httplib_transport transport;
  hub::request what = get(scheme + "://127.0.0.1:" + std::to_string(deaf.port()) + "/");
  what.deadline = 250ms;
  const hub::reply reply = transport.send(what);
  INFO(message_of(reply));
  CHECK(failure_of(reply) == "timed_out");
  CHECK(transport.send(get(good.url())).body == "good");
}

TEST_CASE(
    "an exchange that ran out of time says so, however the race with httplib's time-outs ends") {
  raw_server server([](raw_server::connection& client) { client.hang(); });
  for (int i = 0; i < 100; ++i) {
    hub::httplib_transport transport;
    hub::request what = get(server.url());
    what.deadline = std::chrono::microseconds(500 + 20 * i);
    const hub::reply reply = transport.send(what);
    INFO("deadline " << 500 + 20 * i << " us: " << message_of(reply));
    CHECK(failure_of(reply) == "timed_out");
  }
}

TEST_CASE("a deadline that has passed already is a time-out, and nothing is sent") {
  raw_server server(answer_all(ok("{}")));
  hub::httplib_transport transport;
  hub::request what = get(server.url());
  what.deadline = GENERATE(hub::duration(0s), hub::duration(-1h));
  CHECK(failure_of(transport.send(what)) == "timed_out");
  CHECK(transport.send(get(server.url())).status == 200);
}

TEST_CASE("a server that stalls is given up, and so is one that does not take a connection") {
  raw_server server([](raw_server::connection& client) { client.hang(); });
  const deaf_port deaf;
  hub::httplib_transport transport;
  hub::request stalls = get(server.url());
  stalls.stall_timeout = 20ms;
  hub::request connects = get("http://127.0.0.1:" + std::to_string(deaf.port()));
  connects.connect_timeout = 20ms;
  for (const hub::request& what : {stalls, connects}) {
    const hub::reply reply = transport.send(what);
    INFO(message_of(reply));
    CHECK((failure_of(reply) == "timed_out" || failure_of(reply) == "not_reachable"));
  }
}

TEST_CASE("a long exchange that moves is not cut before its deadline") {
  raw_server server([](raw_server::connection& client) {
    client.read_request();
    for (char c : ok("{}")) client.send({&c, 1});
  });
  hub::httplib_transport transport;
  hub::request what = get(server.url());
  what.deadline = hub::duration::max() / 4;
  CHECK(transport.send(what).body == "{}");
}

TEST_CASE("cancel ends an exchange from another thread, wherever it is, and every later one") {
  const certificate_authority authority;
  const server_identity identity = authority.issue();
  for (const stall& where : all_stalls()) {
    INFO(where.name << ", " << where.scheme);
    raw_server server(where.script,
                      where.tls ? std::optional(tls_settings{identity}) : std::nullopt);
    raw_server good(answer_all(ok("good")));
    hub::httplib_transport transport = trusting(authority);
    hub::request what = request_for(where, server.url("/", where.scheme));
    auto sent = std::async(std::launch::async, [&] { return transport.send(what); });
    server.wait_for_marks(1);
    transport.cancel();
    const hub::reply reply = sent.get();
    INFO(message_of(reply));
    CHECK(failure_of(reply) == "cancelled");
    CHECK(reply.status == 0);

    CHECK(failure_of(transport.send(get(good.url()))) == "cancelled");
    CHECK(good.connections() == 0);
    hub::httplib_transport copy(transport);
    CHECK(copy.send(get(good.url())).body == "good");
  }
}

TEST_CASE("cancel ends an exchange that waits for its connection") {
  const deaf_port deaf;
  const std::string scheme = GENERATE("http", "https");
  hub::httplib_transport transport;
  hub::request what = get(scheme + "://127.0.0.1:" + std::to_string(deaf.port()) + "/");
  auto sent = std::async(std::launch::async, [&] { return transport.send(what); });
  deaf.wait_for_connecting(2);  // the one that filled the queue, and ours
  transport.cancel();
  const hub::reply reply = sent.get();
  INFO(message_of(reply));
  CHECK(failure_of(reply) == "cancelled");
}

TEST_CASE("cancel ends no exchange of a copy") {
  std::promise<void> cancelled;
  auto go_on = cancelled.get_future().share();
  raw_server server([go_on](raw_server::connection& client) {
    client.read_request();
    client.mark();
    go_on.wait();
    client.send(ok("{}"));
  });
  hub::httplib_transport original;
  hub::httplib_transport copy(original);
  auto lost = std::async(std::launch::async, [&] { return original.send(get(server.url())); });
  auto kept = std::async(std::launch::async, [&] { return copy.send(get(server.url())); });
  server.wait_for_marks(2);
  original.cancel();
  CHECK(failure_of(lost.get()) == "cancelled");
  cancelled.set_value();
  CHECK(kept.get().body == "{}");
}

// ---- TLS ----------------------------------------------------------------------------------------

TEST_CASE("a server with a certificate of a known authority is spoken to") {
  const certificate_authority authority;
  raw_server server(answer_all(ok("{}")), tls_settings{authority.issue()});
  hub::httplib_transport transport = trusting(authority);
  for (int i = 0; i < 3; ++i) {
    const hub::reply reply = transport.send(post(server.url("/v1"), "[]"));
    INFO(message_of(reply));
    CHECK(failure_of(reply) == "none");
    CHECK(reply.status == 200);
    CHECK(reply.body == "{}");
  }
  CHECK(server.connections() == 1);
  CHECK(contains(server.received(), secret_key));
}

// The tag is for ThreadSanitizer's sake, which does not survive glibc's getaddrinfo_a.
TEST_CASE("a server is found by its name, and its certificate has to have it", "[names]") {
  const certificate_authority authority;
  raw_server named(answer_all(ok("named")), tls_settings{authority.issue()});
  raw_server other(answer_all(ok("other")),
                   tls_settings{authority.issue({.alternative_names = "IP:127.0.0.1"})});
  raw_server plain(answer_all(ok("plain")));
  const auto url = [](const char* scheme, const raw_server& server) {
    return scheme + std::string("://localhost:") + std::to_string(server.port());
  };
  hub::httplib_transport transport = trusting(authority);
  const hub::reply reply = transport.send(get(url("https", named)));
  INFO(message_of(reply));
  CHECK(reply.body == "named");
  CHECK(failure_of(transport.send(get(url("https", other)))) == "tls_failed");
  CHECK(other.received().empty());
  CHECK(transport.send(get(url("http", plain))).body == "plain");
  CHECK(contains(plain.received(), "localhost:" + std::to_string(plain.port())));
}

TEST_CASE("a server that cannot be trusted never sees a byte of the request") {
  const certificate_authority authority;
  const certificate_authority stranger;
  struct untrusted {
    const char* name;
    server_identity identity;
    std::string ca_file;
  };
  const auto issue = [&](const certificate_wish& wish) { return authority.issue(wish); };
  const std::vector<untrusted> all = {
      {"an authority that nobody knows", issue({}), ""},
      {"another authority than the one known", stranger.issue(), authority.file()},
      {"an authority's file that is missing", issue({}), authority.file() + ".missing"},
      {"its own signature", issue({.self_signed = true}), authority.file()},
      {"a certificate that has expired",
       issue({.valid_from_seconds = -7200, .valid_until_seconds = -3600}), authority.file()},
      {"a certificate that is not valid yet",
       issue({.valid_from_seconds = 3600, .valid_until_seconds = 7200}), authority.file()},
      {"another host's name", issue({.alternative_names = "DNS:hub.example.org"}),
       authority.file()},
      {"another address", issue({.alternative_names = "IP:127.0.0.2"}), authority.file()},
      {"its name where the address is asked for", issue({.alternative_names = "DNS:localhost"}),
       authority.file()},
  };
  for (const untrusted& each : all) {
    INFO(each.name);
    raw_server server(answer_all(ok("{}")), tls_settings{each.identity});
    hub::httplib_transport transport{hub::httplib_options{.ca_file = each.ca_file}};
    for (int i = 0; i < 2; ++i) {
      const hub::reply reply = transport.send(post(server.url("/v1/auth"), "{}"));
      INFO(message_of(reply));
      CHECK(failure_of(reply) == "tls_failed");
      CHECK(reply.status == 0);
      CHECK_FALSE(contains(message_of(reply), secret_key));
    }
    CHECK(server.received().empty());
  }
}

namespace {

// The TLS version that a client with no scruples gets from the port.
int tls_version_spoken(int port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback_address(port);
  SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_cipher_list(context, "ALL:@SECLEVEL=0");
  SSL_CTX_set_min_proto_version(context, 0);
  SSL* const tls = SSL_new(context);
  SSL_set_fd(tls, socket);
  const bool connected =
      ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
      SSL_connect(tls) == 1;
  const int version = connected ? SSL_version(tls) : 0;
  SSL_free(tls);
  SSL_CTX_free(context);
  ::close(socket);
  return version;
}

}  // namespace

TEST_CASE("a server that speaks no TLS newer than 1.1 is refused") {
  const certificate_authority authority;
  raw_server server(answer_all(ok("{}")), tls_settings{authority.issue(), TLS1_1_VERSION});
  REQUIRE(tls_version_spoken(server.port()) == TLS1_1_VERSION);  // it would speak, if we would
  hub::httplib_transport transport = trusting(authority);
  const hub::reply reply = transport.send(get(server.url()));
  INFO(message_of(reply));
  CHECK(failure_of(reply) == "tls_failed");
  CHECK(server.received().empty());

  raw_server newer(answer_all(ok("{}")), tls_settings{authority.issue(), TLS1_2_VERSION});
  CHECK(transport.send(get(newer.url())).status == 200);
}

TEST_CASE("an https address is never spoken to in the clear") {
  raw_server plain([](raw_server::connection& client) {
    client.read_bytes(1);  // and what came with it
    client.reset();
  });
  const std::string port = std::to_string(plain.port());
  hub::httplib_transport transport;
  for (const std::string& url :
       {"https://127.0.0.1:" + port, "https://127.0.0.1:" + port + "/",
        "HTTPS://127.0.0.1:" + port + "/v1", "hTtPs://127.0.0.1:" + port}) {
    INFO(url);
    const std::size_t before = plain.connections();
    const hub::reply reply = transport.send(post(url, "{\"body\": 1}"));
    INFO(message_of(reply));
    CHECK(failure_of(reply) == "tls_failed");
    CHECK(plain.connections() == before + 1);
  }
  REQUIRE_FALSE(plain.received().empty());
  CHECK(plain.received()[0] == '\x16');  // a TLS handshake
  CHECK_FALSE(contains(plain.received(), secret_key));
  CHECK_FALSE(contains(hub::text::lowered(plain.received()), "x-api-key"));
}

TEST_CASE("a server without TLS behind an https address is a TLS failure") {
  raw_server plain(
      [](raw_server::connection& client) { client.send("HTTP/1.1 400 Bad Request\r\n\r\n"); });
  hub::httplib_transport transport;
  const hub::reply reply = transport.send(get(plain.url("/", "https")));
  INFO(message_of(reply));
  CHECK(failure_of(reply) == "tls_failed");
  CHECK_FALSE(contains(plain.received(), secret_key));
}

TEST_CASE("an http address at a TLS server is no answer") {
  const certificate_authority authority;
  raw_server server(answer_all(ok("{}")), tls_settings{authority.issue()});
  hub::httplib_transport transport;
  const hub::reply reply = transport.send(get(server.url("/", "http")));
  CHECK(failure_of(reply) == "not_reachable");
  CHECK(reply.status == 0);
}

TEST_CASE("an address that httplib would misread is refused before anything is sent") {
  raw_server plain(answer_all(ok("{}")));
  const std::string place = "127.0.0.1:" + std::to_string(plain.port());
  hub::httplib_transport transport;
  for (const std::string& url :
       {place, "//" + place, "ftp://" + place, "https://u:p@" + place, "http://u@" + place,
        std::string("https://127.0.0.1:99999999999"), std::string("https://127.0.0.1:0"),
        std::string("https://"), "http:/" + place, std::string(), "http://" + place + "/a#b",
        "http://" + place + "/a b", "http://" + place + "/a\r\nx-evil: 1"}) {
    INFO(url);
    CHECK(failure_of(transport.send(get(url))) == "invalid_endpoint");
  }
  CHECK(plain.connections() == 0);
}

// ---- thread_sleeper and steady_clock ------------------------------------------------------------

namespace {

hub::time_point now() { return std::chrono::steady_clock::now(); }

// Blocks until `done`, asking whenever a task ran; false where nothing came of it.
template <class Done>
bool wait_for(hub::thread_sleeper& sleeper, Done done) {
  return sleeper.wait_until(now() + patience, done);
}

}  // namespace

static_assert(hub::http_transport<hub::httplib_transport>);
static_assert(hub::monotonic_clock<hub::steady_clock>);
static_assert(hub::sleeper<hub::thread_sleeper>);
static_assert(hub::thread_sleeper::concurrent);

TEST_CASE("steady_clock never goes back, and its wall clock is the calendar's") {
  const hub::steady_clock clock;
  hub::time_point last = clock.now();
  for (int i = 0; i < 1000; ++i) {
    const hub::time_point next = clock.now();
    CHECK(next >= last);
    last = next;
  }
  const auto before = std::chrono::system_clock::now();
  const auto told = clock.wall_now();
  CHECK(told >= before);
  CHECK(told <= std::chrono::system_clock::now());
}

TEST_CASE("a thread_sleeper runs each task at once, then when it is due and never before") {
  std::atomic<int> early = 0;
  std::atomic<int> runs = 0;
  std::atomic<int> other = 0;
  hub::time_point due = {};  // the task's own
  hub::thread_sleeper sleeper;
  sleeper.start({{"regular",
                  [&] {
                    if (now() < due) ++early;
                    ++runs;
                    return due = now() + 2ms;
                  }},
                 {"once", [&] {
                    ++other;
                    return hub::never;
                  }}});
  CHECK(wait_for(sleeper, [&] { return runs >= 5 && other >= 1; }));
  sleeper.stop();
  CHECK(early == 0);
  CHECK(other == 1);
}

TEST_CASE("wake brings a task forward, and only that one") {
  std::atomic<int> first = 0;
  std::atomic<int> second = 0;
  hub::thread_sleeper sleeper;
  sleeper.start({{"first", [&] { return ++first, hub::never; }},
                 {"second", [&] { return ++second, now() + 24h; }}});
  CHECK(wait_for(sleeper, [&] { return first == 1 && second == 1; }));
  sleeper.wake(1);
  CHECK(wait_for(sleeper, [&] { return second == 2; }));
  sleeper.wake(0);
  CHECK(wait_for(sleeper, [&] { return first == 2; }));
  sleeper.stop();
  CHECK(first == 2);
  CHECK(second == 2);
}

TEST_CASE("a wake that comes while the task runs is not lost") {
  std::atomic<int> runs = 0;
  std::promise<void> woken;
  std::promise<void> running;
  hub::thread_sleeper sleeper;
  sleeper.start({{"busy", [&] {
                    if (++runs == 1) {
                      running.set_value();
                      woken.get_future().wait();
                    }
                    return hub::never;
                  }}});
  running.get_future().wait();
  sleeper.wake(0);
  woken.set_value();
  CHECK(wait_for(sleeper, [&] { return runs == 2; }));
}

TEST_CASE("one task that blocks holds up no other") {
  std::promise<void> release;
  auto released = release.get_future().share();
  std::atomic<int> runs = 0;
  hub::thread_sleeper sleeper;
  sleeper.start({{"stuck", [released] { return released.wait(), hub::never; }},
                 {"quick", [&] { return ++runs, now(); }}});
  CHECK(wait_for(sleeper, [&] { return runs >= 3; }));
  release.set_value();
}

TEST_CASE("wait_until asks at once, gives up at its time, and needs no task") {
  hub::thread_sleeper sleeper;
  int asked = 0;
  CHECK(sleeper.wait_until(now() - 1h, [&] { return ++asked, true; }));
  CHECK(asked == 1);
  CHECK_FALSE(sleeper.wait_until(now() - 1h, [] { return false; }));
  const hub::time_point until = now() + 5ms;
  CHECK_FALSE(sleeper.wait_until(until, [] { return false; }));
  CHECK(now() >= until);
}

TEST_CASE("after stop no task runs and no thread is left") {
  std::atomic<int> runs = 0;
  hub::thread_sleeper sleeper;
  sleeper.start(
      {{"one", [&] { return ++runs, now(); }}, {"two", [&] { return ++runs, hub::never; }}});
  CHECK(wait_for(sleeper, [&] { return runs >= 10; }));
  sleeper.stop();
  const int last = runs;
  sleeper.wake(0);
  sleeper.wake(1);
  sleeper.stop();
  CHECK(runs == last);
}

TEST_CASE("a thread_sleeper moves with its tasks, and its destructor stops them") {
  std::atomic<int> runs = 0;
  {
    hub::thread_sleeper first;
    first.start({{"one", [&] { return ++runs, hub::never; }}});
    hub::thread_sleeper second(std::move(first));
    second.wake(0);
    CHECK(wait_for(second, [&] { return runs >= 1; }));
  }
  const int last = runs;
  CHECK(runs == last);
}

TEST_CASE("a task that throws is called again") {
  std::atomic<int> runs = 0;
  hub::thread_sleeper sleeper;
  sleeper.start({{"throws", [&]() -> hub::time_point {
                    if (++runs == 1) throw std::bad_alloc();
                    if (runs == 2) throw 42;
                    return hub::never;
                  }}});
  CHECK(wait_for(sleeper, [&] { return runs == 3; }));
}

TEST_CASE("background threads take none of the program's signals") {
  std::promise<sigset_t> told;
  hub::thread_sleeper sleeper;
  const sigset_t mine = signal_mask();
  sleeper.start({{"asks", [&] { return told.set_value(signal_mask()), hub::never; }}});
  CHECK(same_mask(mine, signal_mask()));
  const sigset_t theirs = told.get_future().get();
  for (int number :
       {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD, SIGWINCH}) {
    CAPTURE(number);
    CHECK(sigismember(&theirs, number) == 1);
  }
}

// ---- sigpipe_guard ------------------------------------------------------------------------------

TEST_CASE("sigpipe_guard drains what it caught and leaves mask and disposition as they were") {
  REQUIRE(disposition_of(SIGPIPE) == SIG_DFL);
  const sigset_t before = signal_mask();
  REQUIRE(sigismember(&before, SIGPIPE) == 0);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  for (int i = 0; i < 3; ++i) {
    {
      const hub::detail::sigpipe_guard guard;
      CHECK(::write(ends[1], "x", 1) == -1);
      CHECK(sigpipe_is_pending());
      CHECK(disposition_of(SIGPIPE) == SIG_DFL);
    }
    CHECK_FALSE(sigpipe_is_pending());
    CHECK(same_mask(before, signal_mask()));
  }
  { const hub::detail::sigpipe_guard idle; }
  CHECK(same_mask(before, signal_mask()));
  CHECK(disposition_of(SIGPIPE) == SIG_DFL);
  ::close(ends[1]);
}

TEST_CASE("a SIGPIPE that the program had pending before is still there afterwards") {
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, SIGPIPE);
  sigset_t before;
  ::pthread_sigmask(SIG_BLOCK, &only, &before);
  ::pthread_kill(::pthread_self(), SIGPIPE);
  { const hub::detail::sigpipe_guard guard; }
  CHECK(sigpipe_is_pending());
  int taken = 0;
  ::sigwait(&only, &taken);
  CHECK(taken == SIGPIPE);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace default_policies_tests
