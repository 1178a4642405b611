// SPDX-License-Identifier: MIT
//
// How httplib_transport gets through to a host and hears it: which of several addresses answers,
// proxies and what is exempt from them, certificates, and what a host says before it has the whole
// request. Real sockets of loopback; no test waits for a time to pass.

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "support/exchanges.hpp"
#include "support/raw_server.hpp"
#include "support/scratch.hpp"

namespace connections_tests {

using namespace hub_test;
using namespace std::chrono_literals;
using namespace std::string_literals;
using hub::errc;

// ---- addresses ----------------------------------------------------------------------------------

namespace {

hub::detail::address address_of(const std::string& ip, int port) {
  const auto found = hub::detail::look_up(ip, port, [] { return false; });
  REQUIRE(found);
  REQUIRE(found->size() == 1);
  return found->front();
}

const auto patiently = [] { return false; };

// The port that a connected socket is connected to; 0 where there is none.
int port_of(const std::optional<hub::detail::connection_race::winner>& first) {
  return first ? ntohs(reinterpret_cast<const sockaddr_in*>(&first->at.at)->sin_port) : 0;
}

}  // namespace

#if !defined(_WIN32)  // where no port is deaf
TEST_CASE("an address that says nothing costs no more than the stagger, one that refuses nothing") {
  const deaf_port deaf;
  raw_server good([](raw_server::connection& client) { client.hang(); });
  const auto silent = address_of("127.0.0.1", deaf.port());
  const bound_socket refusing;
  const auto refuses = address_of("127.0.0.1", refusing.port());
  const auto answers = address_of("127.0.0.1", good.port());
  using order = std::vector<hub::detail::address>;
  for (const order& addresses : {order{silent, answers}, order{silent, silent, silent, answers},
                                 order{refuses, silent, answers}, order{answers, silent}}) {
    hub::detail::connection_race race(addresses, 1ms, 24h);
    CHECK(port_of(race.run(patiently)) == good.port());
  }
  // The next is not waited for where one refuses, nor started where one answers.
  hub::detail::connection_race at_once({refuses, refuses, answers}, 24h, 24h);
  CHECK(port_of(at_once.run(patiently)) == good.port());
  // A server of its own: those that lost a race to the other one may still wait to be counted there.
  raw_server alone([](raw_server::connection& client) { client.hang(); });
  const auto answers_alone = address_of("127.0.0.1", alone.port());
  hub::detail::connection_race first({answers_alone, answers_alone}, 24h, 24h);
  CHECK(port_of(first.run(patiently)) == alone.port());
  CHECK(alone.connections() <= 1);
}

TEST_CASE("a race that nobody wins says what each address said, and can be given up") {
  const deaf_port deaf;
  const bound_socket refusing;
  const auto silent = address_of("127.0.0.1", deaf.port());
  hub::detail::connection_race lost(
      {address_of("127.0.0.1", refusing.port()), address_of("127.0.0.2", deaf.port()), silent}, 1ms,
      20ms);
  CHECK_FALSE(lost.run(patiently));
  CHECK(contains(lost.said(), "127.0.0.1 (Connection refused)"));
  CHECK(contains(lost.said(), "127.0.0.2 (Connection refused)"));
  CHECK(contains(lost.said(), "127.0.0.1 (no answer in time)"));
  CHECK(lost.timed_out());

  hub::detail::connection_race given_up({silent}, 24h, 24h);
  int asked = 0;
  CHECK_FALSE(given_up.run([&] { return ++asked == 3; }));
}
#endif

#if defined(_WIN32)
TEST_CASE("programs that are started meanwhile do not inherit a connection") {
  raw_server good([](raw_server::connection& client) { client.hang(); });
  hub::detail::connection_race race({address_of("127.0.0.1", good.port())}, 24h, 24h);
  const auto won = race.run(patiently);
  REQUIRE(won);
  DWORD flags = HANDLE_FLAG_INHERIT;
  REQUIRE(::GetHandleInformation(reinterpret_cast<HANDLE>(won->socket.get()), &flags));
  CHECK((flags & HANDLE_FLAG_INHERIT) == 0);
}
#endif

TEST_CASE("an address that refuses is said so, and costs nothing where another one answers") {
  raw_server good([](raw_server::connection& client) { client.hang(); });
  const bound_socket refusing;
  const auto refuses = address_of("127.0.0.1", refusing.port());
  const auto answers = address_of("127.0.0.1", good.port());
  hub::detail::connection_race won({refuses, refuses, answers}, 24h, 24h);
  CHECK(port_of(won.run(patiently)) == good.port());
  hub::detail::connection_race lost({refuses, refuses}, 24h, 24h);
  CHECK_FALSE(lost.run(patiently));
  CHECK(count_of(lost.said(), "127.0.0.1 (Connection refused)") == 2);
  CHECK_FALSE(lost.timed_out());
}

TEST_CASE("the families of addresses take turns, behind the one that worked last") {
  const std::vector<std::string> found = {"::1", "fd00::2", "fd00::3", "10.0.0.1", "10.0.0.2"};
  struct expectation {
    std::string worked;
    std::vector<std::string> order;
  };
  const std::vector<expectation> all = {
      {"", {"::1", "10.0.0.1", "fd00::2", "10.0.0.2", "fd00::3"}},
      {"192.0.2.1", {"::1", "10.0.0.1", "fd00::2", "10.0.0.2", "fd00::3"}},
      {"10.0.0.2", {"10.0.0.2", "::1", "10.0.0.1", "fd00::2", "fd00::3"}},
      {"fd00::3", {"fd00::3", "10.0.0.1", "::1", "10.0.0.2", "fd00::2"}}};
  for (const expectation& each : all) {
    std::vector<hub::detail::address> addresses;
    for (const std::string& ip : found) addresses.push_back(address_of(ip, 443));
    std::vector<std::string> order;
    for (const auto& at : hub::detail::racing_order(addresses, each.worked))
      order.push_back(at.text());
    CHECK(order == each.order);
  }
}

TEST_CASE("an IPv6 address is spoken to, and named with its brackets") {
  hub::httplib_transport transport;
  const bound_socket on_ipv4;
  const int port = on_ipv4.port();
  const hub::reply reply = transport.send(get("http://[::1]:" + std::to_string(port) + "/"));
  CHECK(failure_of(reply) == "not_reachable");
  CHECK(contains(message_of(reply), "[::1]:" + std::to_string(port)));
}

// ---- a host that answers before it has the whole request ----------------------------------------

namespace {

enum class afterwards { closes, reads_nothing, reads_on };

// Answers as soon as it has the head, and then behaves as told.
raw_server::script answers_early(std::string answer, afterwards then) {
  return [answer = std::move(answer), then](raw_server::connection& client) {
    client.read_head();
    client.send(answer);
    if (then == afterwards::reads_nothing) client.ignore();
    if (then == afterwards::reads_on) client.hang();
  };
}

}  // namespace

TEST_CASE("a refusal in the middle of an upload is heard, and the rest is not sent") {
  const certificate_authority authority;
  const bool tls = GENERATE(false, true);
  if (tls && !speak_tls) return;
  const auto settings = tls ? std::optional(tls_settings{authority.issue()}) : std::nullopt;
  for (const int status : {302, 401, 403, 404, 413, 429, 503})
    for (const afterwards then :
         {afterwards::closes, afterwards::reads_nothing, afterwards::reads_on}) {
      CAPTURE(tls, status, static_cast<int>(then));
      raw_server server(answers_early("HTTP/1.1 " + std::to_string(status) +
                                          " No\r\nRetry-After: 7\r\nContent-Length: 19\r\n\r\n"
                                          "{\"message\": \"full\"}",
                                      then),
                        settings);
      hub::httplib_transport transport = trusting(authority);
      for (std::size_t i = 1; i <= 2; ++i) {
        const auto body = std::make_shared<pattern_body>(64 * hub::mebibyte);
        const hub::reply reply = transport.send(upload(server.url(), body));
        INFO(message_of(reply));
        CHECK(failure_of(reply) == "none");
        CHECK(reply.status == status);
        CHECK(reply.retry_after == "7");
        CHECK(body->reads < 32);
        CHECK(server.connections() == i);  // half a request was on it
      }
    }
}

TEST_CASE("a refusal that is there before the request goes out ends the upload, too") {
  raw_server server([](raw_server::connection& client) {
    client.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    client.mark();
    client.ignore();
  });
  // Asked for its size once the connection stands, and before anything is sent.
  struct waiting_body final : hub::body_source {
    explicit waiting_body(raw_server& refusing) : server(refusing) {}
    std::uint64_t size_bytes() const override {
      server.wait_for_marks(1);
      return 1;
    }
    hub::result<std::size_t> read(std::uint64_t, std::span<char>) override { return 1; }
    raw_server& server;
  };
  const hub::reply reply =
      hub::httplib_transport().send(upload(server.url(), std::make_shared<waiting_body>(server)));
  INFO(message_of(reply));
  CHECK(reply.status == 503);
}

TEST_CASE("a refusal whose words are cut off counts as soon as its head is there") {
  raw_server server(
      answers_early("HTTP/1.1 413 No\r\nContent-Length: 1000\r\n\r\n{", afterwards::closes));
  const auto body = std::make_shared<pattern_body>(64 * hub::mebibyte);
  const hub::reply reply = hub::httplib_transport().send(upload(server.url(), body));
  INFO(message_of(reply));
  CHECK(reply.status == 413);
}

TEST_CASE("what is no refusal does not stop an upload") {
  const certificate_authority authority;
  const bool tls = GENERATE(false, true);
  if (tls && !speak_tls) return;
  const auto settings = tls ? std::optional(tls_settings{authority.issue()}) : std::nullopt;
  constexpr std::size_t size = 8 * hub::mebibyte;
  for (const std::string first : {"HTTP/1.1 100 Continue\r\n\r\n",
                                  "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n"
                                  "link: </a>\r\n\r\n",
                                  "HTTP/1.1 20"}) {
    INFO(first);
    std::atomic<std::size_t> arrived = 0;
    raw_server server(
        [&](raw_server::connection& client) {
          client.read_head();
          client.send(first);
          for (std::size_t i = 0; i < size; i += 64 * hub::kibibyte)
            arrived += client.read_bytes(64 * hub::kibibyte).size();
          client.send(first.ends_with("20")
                          ? "1 Created\r\nContent-Length: 2\r\n\r\n{}"
                          : "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}");
        },
        settings);
    hub::httplib_transport transport = trusting(authority);
    const hub::reply reply =
        transport.send(upload(server.url(), std::make_shared<pattern_body>(size)));
    INFO(message_of(reply));
    CHECK(reply.status == 201);
    CHECK(reply.body == "{}");
    CHECK(arrived == size);
  }
}

TEST_CASE("an early success takes the whole upload, and is none where the rest cannot be sent") {
  constexpr std::size_t size = 32 * hub::mebibyte;
  std::atomic<std::size_t> arrived = 0;
  raw_server patient_one([&](raw_server::connection& client) {
    client.read_head();
    client.send(ok("{}"));
    while (arrived < size) arrived += client.read_bytes(1).size() + client.drop_unread();
  });
  const hub::reply whole = hub::httplib_transport().send(
      upload(patient_one.url(), std::make_shared<pattern_body>(size)));
  INFO(message_of(whole));
  CHECK(whole.status == 200);
  patient_one.wait_for_end_of_scripts(1);
  CHECK(arrived == size);

  raw_server hasty(answers_early(ok("{}"), afterwards::closes));
  const hub::reply cut =
      hub::httplib_transport().send(upload(hasty.url(), std::make_shared<pattern_body>(size)));
  CHECK(failure_of(cut) == "not_reachable");
}

TEST_CASE(
    "a host that closes in the middle of an upload without a word is one try, not an answer") {
  raw_server server([](raw_server::connection& client) { client.read_head(); });
  const auto body = std::make_shared<pattern_body>(64 * hub::mebibyte);
  const hub::reply reply = hub::httplib_transport().send(upload(server.url(), body));
  CHECK(failure_of(reply) == "not_reachable");
  CHECK(contains(message_of(reply), std::to_string(server.port())));
  CHECK_FALSE(contains(message_of(reply), "Canceled"));
}

// ---- proxies ------------------------------------------------------------------------------------

namespace {

hub::httplib_transport through(const std::string& proxy, const std::string& ca_file = {}) {
  return hub::httplib_transport{hub::httplib_options{.ca_file = ca_file, .proxy = proxy}};
}

}  // namespace

TEST_CASE("a proxy is asked for the whole address, with its own password and nobody else's") {
  raw_server proxy(answer_all(ok("from the proxy")));
  raw_server server(answer_all(ok("direct")));
  const std::string at = "127.0.0.1:" + std::to_string(proxy.port());
  hub::httplib_transport transport = through("http://user:pass@" + at + "/");
  const hub::reply reply = transport.send(get(server.url("/v1/models/x")));
  INFO(message_of(reply));
  CHECK(reply.body == "from the proxy");
  CHECK(proxy.received().starts_with("GET " + server.url("/v1/models/x") + " HTTP/1.1\r\n"));
  CHECK(contains(hub::text::lowered(proxy.received()),
                 "\r\nproxy-authorization: " + hub::text::lowered("Basic dXNlcjpwYXNz") + "\r\n"));
  CHECK(server.connections() == 0);
}

#if !defined(HUB_SESSION_NO_OPENSSL)
TEST_CASE(
    "behind a proxy an https address is still spoken to in secret, with its own certificate") {
  const certificate_authority authority;
  const certificate_authority stranger;
  raw_server server(answer_all(ok("in secret")), tls_settings{authority.issue()});
  raw_server proxy([&](raw_server::connection& client) {
    const std::string head = client.read_head();
    if (!head.starts_with("CONNECT 127.0.0.1:" + std::to_string(server.port()) + " ")) return;
    client.send("HTTP/1.1 200 Connection established\r\n\r\n");
    client.tunnel_to(server.port());
  });
  hub::httplib_transport transport = through(proxy.url(), authority.file());
  for (int i = 0; i < 2; ++i) {
    const hub::reply reply = transport.send(get(server.url()));
    INFO(message_of(reply));
    CHECK(reply.body == "in secret");
  }
  CHECK(proxy.connections() == 1);

  hub::httplib_transport wary = through(proxy.url(), stranger.file());
  const hub::reply refused = wary.send(get(server.url()));
  INFO(message_of(refused));
  CHECK(failure_of(refused) == "tls_failed");
  CHECK(count_of(server.received(), secret_key) == 2);
  CHECK_FALSE(contains(proxy.received(), secret_key));
}

TEST_CASE(
    "a proxy that refuses, hangs or lies sees no key of an https address, and the deadline holds") {
  struct misdeed {
    const char* name;
    raw_server::script script;
  };
  const auto after_connect = [](std::string text) {
    return [text](raw_server::connection& client) {
      client.read_head();
      client.send(text);
      client.hang();
    };
  };
  const std::vector<misdeed> all = {
      {"it hangs", after_connect("")},
      {"it refuses", after_connect("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")},
      {"it wants a password", after_connect("HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic "
                                            "realm=\"x\"\r\nContent-Length: 0\r\n\r\n")},
      {"it answers itself", after_connect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")},
      {"it speaks no HTTP", after_connect("what?\r\n")},
  };
  const listening_socket target(1);  // nobody is to come here
  for (const misdeed& each : all) {
    INFO(each.name);
    raw_server proxy(each.script);
    hub::httplib_transport transport = through(proxy.url());
    hub::request what = get("https://127.0.0.1:" + std::to_string(target.port()));
    what.deadline = 250ms;
    for (int i = 0; i < 2; ++i) {
      const hub::reply reply = transport.send(what);
      INFO(message_of(reply));
      CHECK((reply.failure || reply.status == 407));
      CHECK_FALSE(contains(proxy.received(), secret_key));
    }
  }
}

#endif

TEST_CASE(
    "the proxy of the environment is used, but not for what it exempts, and the options win") {
  raw_server proxy(answer_all(ok("from the proxy")));
  raw_server server(answer_all(ok("direct")));
  const environment variable("http_proxy", proxy.url().c_str());
  CHECK(hub::httplib_transport().send(get(server.url())).body == "from the proxy");
  CHECK(through("").send(get(server.url())).body == "direct");
  for (const char* exempt : {"127.0.0.1", "example.org, 127.0.0.1", "*"}) {
    const environment exemption("no_proxy", exempt);
    CHECK(hub::httplib_transport().send(get(server.url())).body == "direct");
  }
  {
    const environment exemption("no_proxy", "27.0.0.1,example.org");
    CHECK(hub::httplib_transport().send(get(server.url())).body == "from the proxy");
  }
  if (!speak_tls) return;
  // An https address has a proxy of its own, under either name, and the same exemptions.
  const certificate_authority authority;
  raw_server secure(answer_all(ok("in secret")), tls_settings{authority.issue()});
  raw_server closed(answer_once("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"));
  CHECK(trusting(authority).send(get(secure.url())).body == "in secret");
  for (const char* name : {"https_proxy", "HTTPS_PROXY", "all_proxy"}) {
    INFO(name);
    const environment secure_variable(name, closed.url().c_str());
    const std::size_t before = closed.connections();
    CHECK(trusting(authority).send(get(secure.url())).failure);
    CHECK(closed.connections() > before);
    const environment exemption("NO_PROXY", "127.0.0.1");
    CHECK(trusting(authority).send(get(secure.url())).body == "in secret");
  }
  CHECK(closed.received().starts_with("CONNECT "));
  CHECK_FALSE(contains(closed.received(), secret_key));
}

TEST_CASE("a proxy that cannot be used is an error that names where it stands, but no password") {
  raw_server server(answer_all(ok("{}")));
  for (const std::string proxy :
       {"https://127.0.0.1:1", "socks5://127.0.0.1:1", "SOCKS5H://user:hunter2@127.0.0.1:1",
        "socks4://127.0.0.1:1", "socks://127.0.0.1", "ftp://127.0.0.1", "http://user:hunter2@",
        "http://user:hunter2@127.0.0.1:port", "127.0.0.1:99999", "http://"}) {
    INFO(proxy);
    const hub::reply by_option = through(proxy).send(get(server.url()));
    CHECK(failure_of(by_option) == "invalid_endpoint");
    CHECK(contains(message_of(by_option), "httplib_options::proxy"));
    const environment variable("all_proxy", proxy.c_str());
    const hub::reply by_variable = hub::httplib_transport().send(get(server.url()));
    CHECK(failure_of(by_variable) == "invalid_endpoint");
    CHECK(contains(message_of(by_variable), "all_proxy"));
    for (const hub::reply* each : {&by_option, &by_variable}) {
      CHECK_FALSE(contains(message_of(*each), "hunter2"));
      if (hub::text::lowered(proxy).starts_with("socks5"))
        CHECK(contains(message_of(*each), "socks5"));
    }
  }
  CHECK(server.connections() == 0);
}

TEST_CASE("a proxy's login is read as curl reads it") {
  struct login {
    const char* written;
    std::string sent;  // in base64; "" for none
  };
  const std::vector<login> all = {{"", ""},
                                  {"user:pass@", "dXNlcjpwYXNz"},              // user:pass
                                  {"user:p%40ss@", "dXNlcjpwQHNz"},            // user:p@ss
                                  {"us%3aer:p%2Fs%25s@", "dXM6ZXI6cC9zJXM="},  // us:er:p/s%s
                                  {"user:p@ss@", "dXNlcjpwQHNz"},              // the last @ counts
                                  {"user:a:b@", "dXNlcjphOmI="},  // the first colon counts
                                  {"user:@", "dXNlcjo="},
                                  {"user@", "dXNlcjo="},           // user:
                                  {":pass@", "OnBhc3M="},          // :pass
                                  {"user:100%@", "dXNlcjoxMDAl"},  // no escape
                                  {"us%C3%A9r:p@", "dXPDqXI6cA=="}};
#if !defined(HUB_SESSION_NO_OPENSSL)
  const certificate_authority authority;
  raw_server secure(answer_all(ok("in secret")), tls_settings{authority.issue()});
#endif
  for (const login& each : all) {
    INFO(each.written);
    raw_server plain(answer_all(ok("from the proxy")));
    const auto url_of = [&](const raw_server& proxy) {
      return "http://"s + each.written + "127.0.0.1:" + std::to_string(proxy.port());
    };
    CHECK(through(url_of(plain)).send(get("http://127.0.0.1:1/")).body == "from the proxy");
    std::vector<const raw_server*> asked = {&plain};
#if !defined(HUB_SESSION_NO_OPENSSL)
    raw_server tunnel([&](raw_server::connection& client) {
      client.read_head();
      client.send("HTTP/1.1 200 OK\r\n\r\n");
      client.tunnel_to(secure.port());
    });
    CHECK(through(url_of(tunnel), authority.file()).send(get(secure.url())).body == "in secret");
    asked.push_back(&tunnel);
#endif
    for (const raw_server* proxy : asked) {
      const bool sent = contains(hub::text::lowered(proxy->received()), "proxy-authorization:");
      CHECK(sent == !each.sent.empty());
      if (sent) CHECK(contains(proxy->received(), "Basic " + each.sent + "\r\n"));
    }
  }
#if !defined(HUB_SESSION_NO_OPENSSL)
  CHECK_FALSE(contains(hub::text::lowered(secure.received()), "proxy-authorization"));
#endif
}

TEST_CASE("what a proxy refuses is told as the proxy's, by its name") {
#if !defined(HUB_SESSION_NO_OPENSSL)
  struct refusal {
    int status;
    errc code;
  };
  const listening_socket target(1);  // nobody is to come here
  const certificate_authority authority;
  for (const refusal& each :
       {refusal{302, errc::access_denied}, refusal{403, errc::access_denied},
        refusal{404, errc::access_denied}, refusal{407, errc::access_denied},
        refusal{429, errc::rate_limited}, refusal{502, errc::not_reachable},
        refusal{503, errc::not_reachable}, refusal{504, errc::not_reachable}}) {
    raw_server proxy(answer_once("HTTP/1.1 " + std::to_string(each.status) +
                                 " No\r\nContent-Length: 5\r\n\r\n<html"));
    const std::string place = "127.0.0.1:" + std::to_string(proxy.port());
    const std::string url = "https://127.0.0.1:" + std::to_string(target.port());
    const environment variable("https_proxy", ("http://user:hunter2@" + place).c_str());
    const hub::reply reply = trusting(authority).send(get(url));
    INFO(message_of(reply));
    CHECK(failure_of(reply) == to_string(each.code));
    CHECK(contains(message_of(reply), place + " (from https_proxy)"));
    CHECK(contains(message_of(reply), std::to_string(each.status)));
    CHECK_FALSE(contains(message_of(reply), "certificate"));
    CHECK_FALSE(contains(message_of(reply), "HUB"));
    CHECK_FALSE(contains(message_of(reply), "hunter2"));
  }
#endif
  // In the clear only 407 is certain to be its own; elsewhere the reply says who may have spoken.
  raw_server wants_login(answer_once(http_reply(407, "")));
  const hub::reply asked = through(wants_login.url()).send(get("http://127.0.0.1:1/"));
  CHECK(failure_of(asked) == "access_denied");
  CHECK(contains(message_of(asked), "127.0.0.1:" + std::to_string(wants_login.port())));
  raw_server refuses(answer_all(http_reply(403, "<html>")));
  const hub::reply refused = through(refuses.url()).send(get("http://127.0.0.1:1/"));
  CHECK(refused.status == 403);
  CHECK(refused.proxy == "127.0.0.1:" + std::to_string(refuses.port()));
  raw_server direct(answer_all(http_reply(403, "")));
  CHECK(hub::httplib_transport().send(get(direct.url())).proxy.empty());
}

TEST_CASE("a proxy that is not there, or says nothing, is the one that is named") {
  const std::string target = GENERATE("http://127.0.0.1:1/", "https://127.0.0.1:1/");
  if (target.starts_with("https") && !speak_tls) return;
  const bound_socket refusing;
  std::vector<std::pair<int, std::string>> ports = {{refusing.port(), "not_reachable"}};
#if !defined(_WIN32)
  const deaf_port deaf;
  ports.emplace_back(deaf.port(), "timed_out");
#endif
  for (const auto& [port, failure] : ports) {
    const std::string place = "127.0.0.1:" + std::to_string(port);
    hub::request what = get(target);
    what.connect_timeout = failure == "timed_out" ? 20ms : hub::duration(24h);
    const hub::reply reply = through(place).send(what);
    INFO(message_of(reply));
    CHECK(failure_of(reply) == failure);
    CHECK(contains(message_of(reply), "The proxy " + place + " (from httplib_options::proxy)"));
  }
}

TEST_CASE("the environment's proxies are those of the moment when the transport was made") {
  raw_server proxy(answer_all(ok("from the proxy")));
  raw_server server(answer_all(ok("direct")));
  hub::httplib_transport before;
  const environment variable("http_proxy", proxy.url().c_str());
  hub::httplib_transport after;
  const environment exemption("no_proxy", "*");
  hub::httplib_transport copy(before);
  CHECK(before.send(get(server.url())).body == "direct");
  CHECK(copy.send(get(server.url())).body == "direct");
  CHECK(after.send(get(server.url())).body == "from the proxy");
  CHECK(hub::httplib_transport(after).send(get(server.url())).body == "from the proxy");
}

#if !defined(_WIN32)  // where small letters and capitals name one variable
TEST_CASE("the variables that name a proxy are those that curl reads, in its order") {
  const auto found = [](const std::string& url) {
    const auto proxy = hub::detail::proxies_of_environment().find(*hub::text::parse_target(url));
    return proxy && *proxy ? (*proxy)->named_by : std::string();
  };
  const std::string plain = "http://hub.example.org/";
  const std::string secure = "https://hub.example.org/";
  const environment cgi("HTTP_PROXY", "http://p:1");  // anybody's word, where a web server runs us
  CHECK(found(plain).empty());
  CHECK(found(secure).empty());
  const environment all_capital("ALL_PROXY", "http://p:1");
  CHECK(found(plain) == "ALL_PROXY");
  const environment all("all_proxy", "http://p:1");
  CHECK(found(secure) == "all_proxy");
  const environment secure_capital("HTTPS_PROXY", "http://p:1");
  CHECK(found(secure) == "HTTPS_PROXY");
  CHECK(found(plain) == "all_proxy");
  const environment both("https_proxy", "http://p:1");
  CHECK(found(secure) == "https_proxy");
  const environment own("http_proxy", "http://p:1");
  CHECK(found(plain) == "http_proxy");
  const environment capital("NO_PROXY", "hub.example.org");
  CHECK(found(plain).empty());
  const environment exemption("no_proxy", "elsewhere.example.org");
  CHECK(found(plain) == "http_proxy");
}

#endif

TEST_CASE("NO_PROXY is read as curl and Python read it") {
  struct form {
    const char* source;
    std::string url, no_proxy;
    bool exempt;
  };
  const std::string www = "https://www.example.com";
  const std::vector<form> all = {
      // curl 7.88 and 8: lib/noproxy.c, tests/unit/unit1614.c, docs/cmdline-opts/noproxy.md.
      {"curl", www, "*", true},
      {"curl: an asterisk only alone", www, "example.org,*", false},
      {"curl: no other pattern", www, "*.example.com", false},
      {"curl", www, "", false},
      {"curl", www, "www.example.com", true},
      {"curl: a domain", www, "example.com", true},
      {"curl: a domain", "https://example.com", "example.com", true},
      {"curl: on the border of a dot", "https://nonexample.com", "example.com", false},
      {"curl: a leading dot", www, "localhost,.example.com,.example.de", true},
      {"curl: a leading dot", "https://example.com", ".example.com", true},
      {"curl: a leading dot", "https://nonexample.com", ".example.com, .example.net", false},
      {"curl: trailing dots", www, "www.example.com.", true},
      {"curl: trailing dots", "https://www.example.com.", "example.com", true},
      {"curl: trailing dots", "https://example.com.", ".example.com.", true},
      {"curl: case", "https://BAr", "foo,,,,,              bar", true},
      {"curl 7.88: blanks between", www, "localhost example.com", true},
      {"curl: blanks around", www, "  example.org ,\t example.com ", true},
      {"curl: a part of a name", "https://foobar", "bar", false},
      {"curl", "https://127.0.0.1", "127.0.0.1,localhost,", true},
      {"curl", "https://192.168.0.1", "192.168.0.0", false},
      {"curl: an address is no domain", "https://10.1.2.3", "2.3", false},
      {"curl: a network", "https://10.1.2.3", "10.0.0.0/8", true},
      {"curl: a network", "https://11.1.2.3", "10.0.0.0/8", false},
      {"curl: a network", "https://127.0.0.1", "127.0.0.1/31,localhost", true},
      {"curl: a network", "https://192.168.1.1", "foo, bar, 192.168.0.0/24", false},
      {"curl: a network", "https://192.168.1.1", "foo, bar, 192.168.0.0/16", true},
      {"curl: a network of one", "https://192.168.0.1", "192.168.0.1/32", true},
      {"curl: a network of one", "https://192.168.0.1", "192.168.0.0/32", false},
      {"curl: 0 bits are none", "https://192.168.0.1", "10.0.0.0/0", false},
      {"curl: too many bits", "https://192.168.0.1", "192.168.0.1/33", false},
      {"curl: no number of bits", "https://192.168.0.1", "192.168.0.0/16a", false},
      {"curl: no number of bits", "https://192.168.0.1", "192.168.0.0/a16", false},
      {"curl: a name is in no network", www, "0.0.0.0/1", false},
      {"curl", "https://[::1]", "::1", true},
      {"curl: compared as addresses", "https://[::1]", "0:0::1", true},
      {"curl: compared as addresses", "https://[FD00:0::1]", "fd00::1", true},
      {"curl: a network", "https://[::1]", "foo, bar, ::1/64", true},
      {"curl: a network", "https://[::1]", "::1/129", false},
      {"curl: a network", "https://[2001:db8:8000::1]", "2001:db8::/65", false},
      {"curl: a network", "https://[2001:db8::1]", "2001:db8::/65", true},
      {"curl: a network of the other family", "https://[::1]", "192.168.0.0/16", false},
      // Python 3.11, urllib.request.proxy_bypass_environment; requests.utils.should_bypass_proxies.
      {"Python: leading dots", www, "..example.com", true},
      {"Python: a port", "https://www.example.com:8443", "www.example.com:8443", true},
      {"Python: a port of a domain", "https://www.example.com:8443", "example.com:8443", true},
      {"Python: another port", "https://www.example.com:8443", "www.example.com:443", false},
      {"Python: the scheme's port", www, "www.example.com:443", true},
      {"Python: a port", "https://10.1.2.3:8443", "10.1.2.3:8443", true},
      {"Python: a bracketed address", "https://[::1]", "[::1]", true},
      {"Python: a bracketed address with a port", "https://[::1]:8443", "[::1]:8443", true},
      {"Python: a bracketed address with another port", "https://[::1]:8443", "[::1]:80", false},
      {"Python: a network", "https://192.168.0.1", "192.168.0.0/24", true},
  };
  for (const form& each : all) {
    INFO(each.source << ": " << each.url << " with no_proxy=" << each.no_proxy);
    const auto to = hub::text::parse_target(each.url);
    REQUIRE(to);
    CHECK(hub::detail::bypasses_proxy(*to, each.no_proxy) == each.exempt);
  }
}

// ---- whom to trust, and who we are --------------------------------------------------------------

#if !defined(HUB_SESSION_NO_OPENSSL)

TEST_CASE("the system's certificates are those of the moment when the transport was made") {
  const certificate_authority authority;
  raw_server server(answer_all(ok("{}")), tls_settings{authority.issue()});
  const hub::httplib_transport before;
  std::unique_ptr<hub::httplib_transport> made;
  {
    const environment variable("SSL_CERT_FILE", authority.file().c_str());
    made = std::make_unique<hub::httplib_transport>();
    CHECK(failure_of(hub::httplib_transport(before).send(get(server.url()))) == "tls_failed");
  }
  const hub::reply reply = hub::httplib_transport(*made).send(get(server.url()));
  INFO(message_of(reply));
  CHECK(reply.status == 200);
}

TEST_CASE("where a certificate is not trusted, the host is named, and what was to vouch for it") {
  const certificate_authority authority;
  const certificate_authority stranger;
  raw_server server(answer_all(ok("{}")), tls_settings{authority.issue()});
  const std::string place = "127.0.0.1:" + std::to_string(server.port());
  const auto message = [&](const std::string& ca_file) {
    const hub::reply reply =
        hub::httplib_transport{hub::httplib_options{.ca_file = ca_file}}.send(get(server.url()));
    CHECK(failure_of(reply) == "tls_failed");
    return message_of(reply);
  };
  const scratch_folder folder;
  const std::string own = (folder / "gr\u00F6\u00DFer.pem").string();
  std::filesystem::copy_file(stranger.file(), own);
  const std::string by_stranger = message(own);
  CHECK(contains(by_stranger, place));
  CHECK(contains(by_stranger, own + ", the file of httplib_options::ca_file"));
  CHECK(contains(by_stranger, "in place of the system's"));
  const std::string by_system = message("");
  CHECK(contains(by_system, place));
  CHECK(contains(by_system, "name its file in httplib_options::ca_file"));
  // Where the file itself is the trouble, the host is not.
  std::ofstream(folder / "empty.pem") << "no certificate\n";
  for (const std::string& file : {(folder / "missing.pem").string(),
                                  (folder / "empty.pem").string(), folder.path().string()}) {
    INFO(file);
    const std::string told = message(file);
    CHECK(contains(told, "The file " + file + " of httplib_options::ca_file"));
    CHECK_FALSE(contains(told, place));
  }
}

TEST_CASE("a client certificate is shown where the request says so, and nowhere else") {
  const certificate_authority authority;
  const certificate_authority clients;
  const server_identity mine = clients.issue({.usage = "clientAuth"});
  std::atomic<int> shown = 0;
  const auto script = [&](raw_server::connection& client) {
    for (;;) {
      client.read_request();
      if (client.has_certificate()) ++shown;
      client.send(ok("{}"));
    }
  };
  raw_server gateway(script, tls_settings{.identity = authority.issue(),
                                          .client_authority_file = clients.file(),
                                          .client_has_to = true});
  raw_server storage(
      script, tls_settings{.identity = authority.issue(), .client_authority_file = clients.file()});
  hub::httplib_transport transport{
      hub::httplib_options{.ca_file = authority.file(),
                           .client_certificate_file = mine.certificate_file,
                           .client_key_file = mine.key_file}};
  hub::request to_hub = get(gateway.url());
  to_hub.show_client_certificate = true;
  const hub::reply reply = transport.send(to_hub);
  INFO(message_of(reply));
  CHECK(reply.status == 200);
  CHECK(shown == 1);
  CHECK(transport.send(get(storage.url())).status == 200);
  CHECK(shown == 1);
  // Not even on a connection on which it was shown.
  to_hub.url = storage.url();
  CHECK(transport.send(to_hub).status == 200);
  CHECK(shown == 2);
  CHECK(transport.send(get(storage.url())).status == 200);
  CHECK(shown == 2);
  // A gateway that wants one says so.
  const hub::reply refused = trusting(authority).send(get(gateway.url()));
  INFO(message_of(refused));
  CHECK(contains(message_of(refused), "certificate required"));
}

TEST_CASE(
    "a client certificate that cannot be used is an error that names the file, not the password") {
  const certificate_authority authority;
  const certificate_authority clients;
  raw_server gateway(answer_all(ok("{}")), tls_settings{.identity = authority.issue(),
                                                        .client_authority_file = clients.file(),
                                                        .client_has_to = true});
  const server_identity mine =
      clients.issue({.usage = "clientAuth", .key_password = "correct horse"});
  const server_identity other = clients.issue({.usage = "clientAuth"});
  const auto send = [&](const std::string& certificate, const std::string& key,
                        const std::string& password) {
    hub::httplib_transport transport{hub::httplib_options{.ca_file = authority.file(),
                                                          .client_certificate_file = certificate,
                                                          .client_key_file = key,
                                                          .client_key_password = password}};
    hub::request what = get(gateway.url());
    what.show_client_certificate = true;
    return transport.send(what);
  };
  CHECK(send(mine.certificate_file, mine.key_file, "correct horse").status == 200);
  struct mistake {
    std::string certificate, key, password, blamed;
  };
  for (const mistake& each :
       {mistake{mine.certificate_file, mine.key_file, "wrong horse", mine.key_file},
        mistake{mine.certificate_file, mine.key_file, "", mine.key_file},
        mistake{mine.certificate_file, other.key_file, "", other.key_file},
        mistake{mine.certificate_file, "", "", mine.certificate_file},
        mistake{mine.certificate_file + ".missing", mine.key_file, "",
                mine.certificate_file + ".missing"},
        mistake{mine.key_file, mine.key_file, "correct horse", mine.key_file}}) {
    INFO(each.certificate << ", " << each.key << ", " << each.password);
    const hub::reply reply = send(each.certificate, each.key, each.password);
    CHECK(failure_of(reply) == "invalid_credentials");
    CHECK(contains(message_of(reply), each.blamed + " "));
    CHECK_FALSE(contains(message_of(reply), "horse"));
  }
}

#endif

// ---- heads --------------------------------------------------------------------------------------

TEST_CASE("a redirect's address comes byte for byte, and says what else a head may hold") {
  const std::string location = "/a%20b%2Fc?X-Sig=i%2Bj%26k==&d=\xC3\xA9 f#g";
  raw_server server(answer_all("HTTP/1.1 302 Found\r\nx-location: no\r\nLOCATION:  " + location +
                               " \r\nContent-Length: 0\r\n\r\n"));
  hub::httplib_transport transport;
  for (int i = 0; i < 2; ++i) CHECK(transport.send(get(server.url())).location == location);
  raw_server other(answer_all(ok("{}")));
  CHECK(transport.send(get(other.url())).location.empty());
}

TEST_CASE("a head of any length does no harm, and one beyond its bound is an error") {
  const std::string many = [] {
    std::string out;
    for (int i = 0; i < 100'000; ++i) out += "x-" + std::to_string(i) + ": y\r\n";
    return out;
  }();
  const std::vector<std::string> too_long = {"x-long: " + std::string(1'000'000, 'y') + "\r\n",
                                             many};
  for (const std::string& lines : too_long) {
    raw_server server(answer_once("HTTP/1.1 200 OK\r\n" + lines + "Content-Length: 2\r\n\r\n{}"));
    const hub::reply reply = hub::httplib_transport().send(get(server.url()));
    CHECK(failure_of(reply) == "bad_reply");
    CHECK(contains(message_of(reply), "reply_head_bytes_max"));
  }
  // What stands behind the status would overflow httplib's stack.
  for (const std::size_t length : {std::size_t{4'000}, std::size_t{60'000}}) {
    raw_server server(answer_once("HTTP/1.1 200 " + std::string(length, 'O') +
                                  "\r\nContent-Length: 2\r\n\r\n{}"));
    CHECK(hub::httplib_transport().send(get(server.url())).body == "{}");
  }
  for (const std::string& line :
       {std::string(60'000, 'O'), "HTTP/1.1 2" + std::string(60'000, '0')}) {
    raw_server server(answer_once(line));
    CHECK(failure_of(hub::httplib_transport().send(get(server.url()))) == "not_reachable");
  }
}

TEST_CASE("chunks that break off are no whole body, however httplib reads them") {
  const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  hub::httplib_transport transport;
  for (const char* chunks : {"3\r\nabc\r\n0\r\n\r\n", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"}) {
    raw_server server(answer_once(head + chunks));
    const hub::reply reply = transport.send(get(server.url()));
    INFO(message_of(reply));
    CHECK(reply.body == "abc");
    CHECK(reply.is_chunked);
  }
  for (const char* chunks :
       {"3\r\nabcdef\r\n0\r\n\r\n", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n", "zz\r\n"}) {
    INFO(chunks);
    raw_server server(answer_once(head + chunks));
    CHECK(failure_of(transport.send(get(server.url()))) == "not_reachable");
  }
}

}  // namespace connections_tests
