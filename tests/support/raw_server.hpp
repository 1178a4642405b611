// SPDX-License-Identifier: MIT
//
// A TCP server on loopback that does to its clients what the test's script says, byte for byte:
// half an answer, a hang, a drip, a reset; plain or TLS. Each connection plays the script on a
// thread of its own. Nothing here waits for a time to pass: a script hangs until its client is gone
// or the server ends, and the test is told by marks how far the script got.

#pragma once

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if !defined(HUB_SESSION_NO_OPENSSL)
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

#include "certificates.hpp"
#include "long_variant.hpp"
#include "scratch.hpp"
#include "sockets.hpp"

namespace hub_test {

// How long a test waits for something that must happen, before it fails instead of hanging for
// ever.
inline constexpr std::chrono::seconds patience{120};

inline int rounds() { return long_variant() ? 1000 : 50; }

// A proxy in the environment would take what is meant for these servers, so it goes, before main().
inline const bool environment_has_no_proxy = [] {
  for (const char* name : {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY",
                           "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
    set_variable_of_environment(name, nullptr);
  return true;
}();

// Whether these servers can, and with them what is tested.
#if defined(HUB_SESSION_NO_OPENSSL)
inline constexpr bool speak_tls = false;
#else
inline constexpr bool speak_tls = true;
#endif

// While it lives, this thread takes no signal, and neither do the threads that it starts. So a test
// server never takes a signal, SIGPIPE included, that is meant to show what the client did.
#if defined(_WIN32)
struct signals_blocked {  // there are none for a thread to take
  signals_blocked() {}
};
#else
class signals_blocked {
 public:
  signals_blocked() {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  signals_blocked(const signals_blocked&) = delete;
  signals_blocked& operator=(const signals_blocked&) = delete;
  ~signals_blocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};
#endif

#if !defined(_WIN32)
// A port at which nobody answers a connection attempt: its queue of connections is full. Windows
// refuses such an attempt, so that what needs a silent port is not tested there.
class deaf_port {
 public:
  deaf_port() : listener_(0) {
    for (int i = 0; i < attempts_max; ++i) {
      const int client = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      fillers_.push_back(client);
      const sockaddr_in address = loopback_address(listener_.port());
      ::connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address);
      tcp_info info{};
      socklen_t size = sizeof info;
      ::getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &size);
      if (info.tcpi_state == TCP_SYN_SENT) return;  // it was not let in, so nobody else will be
    }
    throw std::runtime_error("the queue of a listening socket does not fill");
  }
  deaf_port(const deaf_port&) = delete;
  deaf_port& operator=(const deaf_port&) = delete;
  ~deaf_port() {
    for (int each : fillers_) ::close(each);
  }

  int port() const { return listener_.port(); }

  // Blocks until so many connections wait for an answer to their first packet, with the one that
  // found the queue full.
  void wait_for_connecting(std::size_t count) const {
    char remote[32];
    std::snprintf(remote, sizeof remote, "0100007F:%04X 02 ", static_cast<unsigned>(port()));
    const auto end = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < end) {
      std::ifstream table("/proc/self/net/tcp");
      std::size_t found = 0;
      for (std::string line; std::getline(table, line);)
        if (line.find(remote) != std::string::npos) ++found;
      if (found >= count) return;
      std::this_thread::yield();
    }
    throw std::runtime_error("the client does not connect");
  }

 private:
  static constexpr int attempts_max = 64;
  listening_socket listener_;
  std::vector<int> fillers_;
};
#endif

// A well-formed reply that keeps the connection.
inline std::string http_reply(int status, std::string_view body) {
  return "HTTP/1.1 " + std::to_string(status) +
         " \r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}
inline std::string ok(std::string_view body) { return http_reply(200, body); }

struct tls_settings {
  server_identity identity;
  int version_max = 0;                     // such as TLS1_1_VERSION; 0: the newest
  std::string client_authority_file = {};  // asks the client for a certificate of this authority
  bool client_has_to = false;              // show one
};

class raw_server {
 public:
  // The client went away while the script wanted something from it. Ends the script quietly.
  struct client_gone {};

  struct received_request {
    std::string head;  // up to and with the empty line
    std::string body;
  };

  class connection {
   public:
    connection(raw_server& server, socket_handle socket) : server_(server), socket_(socket) {}
    connection(const connection&) = delete;
    connection& operator=(const connection&) = delete;
    ~connection() { close(); }

    std::string read_head() {
      std::size_t end = 0;
      while ((end = unread_.find("\r\n\r\n")) == std::string::npos) read_more();
      return take(end + 4);
    }

    // What follows this head.
    std::string read_body(const std::string& head) { return read_bytes(content_length(head)); }

    received_request read_request() {
      received_request out;
      out.head = read_head();
      out.body = read_body(out.head);
      return out;
    }

    // Forgets what came and was not read yet, and tells how much that was.
    std::size_t drop_unread() { return take(unread_.size()).size(); }

    std::string read_bytes(std::size_t count) {
      while (unread_.size() < count) read_more();
      return take(count);
    }

    // Throws where the client is gone already; bytes may also get lost unnoticed, as with any TCP.
    void send(std::string_view text) {
      while (!text.empty()) {
        const std::ptrdiff_t sent = write_some(text);
        if (sent <= 0) throw client_gone();
        text.remove_prefix(static_cast<std::size_t>(sent));
      }
    }

    // Sends `text` over and over, a byte at a time, until the client has had enough. Its patience
    // decides how long that takes; the pause only keeps the byte from being one of many.
    [[noreturn]] void drip(std::string_view text) {
      for (std::size_t i = 0;; i = (i + 1) % text.size()) {
        send(text.substr(i, 1));
        polled_socket watched{socket_, client_ended, 0};
        poll_sockets(&watched, 1, 5);
        if (watched.revents != 0) throw client_gone();
      }
    }

    // Reads and drops whatever comes until the client is gone or the server ends.
    [[noreturn]] void hang() {
      for (;;) {
        unread_.clear();
        read_more();
      }
    }

    // Reads nothing, so that the client's writes stall, until it resets or the server ends. (An
    // orderly goodbye would stand behind all that was not read.)
    [[noreturn]] void ignore() {
      polled_socket watched{socket_, 0, 0};
      while (!cut_ && (watched.revents & (POLLHUP | POLLERR)) == 0) poll_sockets(&watched, 1, 5);
      throw client_gone();
    }

    // Passes bytes on between the client and a port, as a proxy does, until either closes.
    [[noreturn]] void tunnel_to(int port) {
      struct end {
        socket_handle socket = open_socket();
        ~end() { close_socket(socket); }
      } const other;
      const sockaddr_in address = loopback_address(port);
      if (::connect(other.socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        throw client_gone();
      for (;;) {
        polled_socket both[] = {{socket_, POLLIN, 0}, {other.socket, POLLIN, 0}};
        poll_sockets(both, 2, -1);
        if (both[0].revents != 0) {
          if (unread_.empty()) read_more();
          const std::string text = take(unread_.size());
          send_some(other.socket, text.data(), text.size());
        }
        if (both[1].revents != 0) {
          char piece[16384];
          const std::ptrdiff_t got = receive_some(other.socket, piece, sizeof piece);
          if (got <= 0) throw client_gone();
          send({piece, static_cast<std::size_t>(got)});
        }
      }
    }

#if !defined(HUB_SESSION_NO_OPENSSL)
    // Whether the client showed a certificate.
    bool has_certificate() const { return tls_ && SSL_get0_peer_certificate(tls_.get()); }
#endif

    // Tells the test that the script is here. See raw_server::wait_for_marks.
    void mark() { server_.add_mark(); }

    // No more bytes from here, but the connection stays.
    void end_output() { ::shutdown(socket_, end_sending); }

    // Ends the connection as a crash does: with RST, what is on the way being lost.
    void reset() {
      const linger at_once{1, 0};
      set_socket_option(socket_, SOL_SOCKET, SO_LINGER, at_once);
      forget_tls();
      close();
    }

    void close() {
      end_tls();
      const std::lock_guard lock(mutex_);
      if (socket_ != no_socket) close_socket(std::exchange(socket_, no_socket));
    }

   private:
    friend class raw_server;

#if defined(HUB_SESSION_NO_OPENSSL)
    void end_tls() {}
    void forget_tls() {}
    // Windows wakes nobody whose socket was cut.
    std::ptrdiff_t read_some(char* to, std::size_t room) {
      polled_socket watched{socket_, POLLIN, 0};
      while (!cut_ && poll_sockets(&watched, 1, 5) == 0) continue;
      return cut_ ? -1 : receive_some(socket_, to, room);
    }
    std::ptrdiff_t write_some(std::string_view text) {
      return send_some(socket_, text.data(), text.size());
    }
#else
    struct free_tls {
      void operator()(SSL* what) const { SSL_free(what); }
    };

    void shake_hands(SSL_CTX* context) {
      tls_.reset(SSL_new(context));
      SSL_set_fd(tls_.get(), socket_);
      if (SSL_accept(tls_.get()) != 1) throw client_gone();
      shaken_hands_ = true;
    }

    void end_tls() {
      if (tls_ && shaken_hands_) SSL_shutdown(tls_.get());
      forget_tls();
    }

    void forget_tls() {
      tls_.reset();
      ERR_clear_error();
    }

    std::ptrdiff_t read_some(char* to, std::size_t room) {
      if (!tls_) return receive_some(socket_, to, room);
      return SSL_read(tls_.get(), to, static_cast<int>(room));
    }

    std::ptrdiff_t write_some(std::string_view text) {
      if (!tls_) return send_some(socket_, text.data(), text.size());
      return SSL_write(tls_.get(), text.data(),
                       static_cast<int>(std::min<std::size_t>(text.size(), 1 << 20)));
    }
#endif

    // From the test's thread, when the server ends: whatever blocks here returns.
    void cut() {
      const std::lock_guard lock(mutex_);
      cut_ = true;
      if (socket_ != no_socket) ::shutdown(socket_, end_both);
    }

    void read_more() {
      char piece[16384];
      const std::ptrdiff_t got = read_some(piece, sizeof piece);
      if (got <= 0) throw client_gone();
      const std::string_view text(piece, static_cast<std::size_t>(got));
      server_.add_received(text);
      unread_ += text;
    }

    std::string take(std::size_t count) {
      std::string out = unread_.substr(0, count);
      unread_.erase(0, count);
      return out;
    }

    static std::size_t content_length(const std::string& head) {
      std::string lowered(head);
      for (char& c : lowered)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      constexpr std::string_view name = "\r\ncontent-length: ";
      const std::size_t at = lowered.find(name);
      std::size_t length = 0;
      if (at != std::string::npos)
        std::from_chars(lowered.data() + at + name.size(), lowered.data() + lowered.size(), length);
      return length;
    }

    raw_server& server_;
    std::mutex mutex_;  // of socket_ against cut(), which is the only call from another thread
    socket_handle socket_;
    std::atomic<bool> cut_ = false;
#if !defined(HUB_SESSION_NO_OPENSSL)
    std::unique_ptr<SSL, free_tls> tls_;
    bool shaken_hands_ = false;
#endif
    std::string unread_;
  };

  using script = std::function<void(connection&)>;

  explicit raw_server(script play, const std::optional<tls_settings>& tls = {}, int port = 0)
      : play_(std::move(play)), listener_(128, port) {
#if defined(HUB_SESSION_NO_OPENSSL)
    if (tls) throw std::runtime_error("without OpenSSL no server speaks TLS");
#else
    if (tls) prepare_tls(*tls);
#endif
    const signals_blocked quiet;
    acceptor_ = std::thread([this] { accept_clients(); });
  }
  raw_server(const raw_server&) = delete;
  raw_server& operator=(const raw_server&) = delete;

  ~raw_server() {
    ending_ = true;
    wake_acceptor(listener_);
    acceptor_.join();
    for (client& each : clients_) {
      each.link.cut();
      each.player.join();
    }
  }

  int port() const { return listener_.port(); }

  std::string url(std::string_view path = "/", std::string_view scheme = {}) const {
#if !defined(HUB_SESSION_NO_OPENSSL)
    if (scheme.empty() && context_) scheme = "https";
#endif
    if (scheme.empty()) scheme = "http";
    return std::string(scheme) + "://127.0.0.1:" + std::to_string(port()) + std::string(path);
  }

  // How many connections were accepted so far.
  std::size_t connections() const {
    const std::lock_guard lock(mutex_);
    return accepted_;
  }

  // Every byte that came, after decryption where there is any, up to a bound.
  std::string received() const {
    const std::lock_guard lock(mutex_);
    return received_;
  }

  // How many times scripts have come to a mark.
  std::size_t marks() const {
    const std::lock_guard lock(mutex_);
    return marks_;
  }

  // Blocks until so many connections have been served to their end.
  void wait_for_end_of_scripts(std::size_t count) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, patience, [&] { return ended_ >= count; }))
      throw std::runtime_error("the server's script did not come to its end");
  }

  // Blocks until scripts have come to a mark so many times.
  void wait_for_marks(std::size_t count) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, patience, [&] { return marks_ >= count; }))
      throw std::runtime_error("the server's script did not get to its mark");
  }

 private:
#if !defined(HUB_SESSION_NO_OPENSSL)
  struct free_context {
    void operator()(SSL_CTX* what) const { SSL_CTX_free(what); }
  };
#endif
  struct client {
    client(raw_server& server, socket_handle socket) : link(server, socket) {}
    connection link;
    std::thread player;
  };
  static constexpr std::size_t received_bytes_max = 1 << 20;

#if !defined(HUB_SESSION_NO_OPENSSL)
  void prepare_tls(const tls_settings& wanted) {
    context_.reset(SSL_CTX_new(TLS_server_method()));
    SSL_CTX* const context = context_.get();
    if (wanted.version_max != 0) {
      // OpenSSL 3 speaks the old versions at security level 0 only.
      SSL_CTX_set_cipher_list(context, "ALL:@SECLEVEL=0");
      SSL_CTX_set_min_proto_version(context, 0);
      SSL_CTX_set_max_proto_version(context, wanted.version_max);
    }
    if (SSL_CTX_use_certificate_file(context, wanted.identity.certificate_file.c_str(),
                                     SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, wanted.identity.key_file.c_str(), SSL_FILETYPE_PEM) !=
            1)
      throw std::runtime_error("the server's certificate cannot be used");
    if (wanted.client_authority_file.empty()) return;
    SSL_CTX_load_verify_locations(context, wanted.client_authority_file.c_str(), nullptr);
    SSL_CTX_set_verify(
        context, SSL_VERIFY_PEER | (wanted.client_has_to ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
        nullptr);
  }

#endif

  void accept_clients() {
    for (;;) {
      const socket_handle socket = accept_from(listener_.descriptor());
      if (ending_) {
        if (socket != no_socket) close_socket(socket);
        return;
      }
      if (socket == no_socket && goes_on_accepting()) continue;
      if (socket == no_socket) return;
      const int at_once = 1;
      set_socket_option(socket, IPPROTO_TCP, TCP_NODELAY, at_once);
      {
        const std::lock_guard lock(mutex_);
        ++accepted_;
      }
      client& fresh = clients_.emplace_back(*this, socket);
      fresh.player = std::thread([this, &fresh] { serve(fresh.link); });
    }
  }

  void serve(connection& link) {
    try {
#if !defined(HUB_SESSION_NO_OPENSSL)
      if (context_) link.shake_hands(context_.get());
#endif
      play_(link);
    } catch (const client_gone&) {
    }
    link.close();
    const std::lock_guard lock(mutex_);
    ++ended_;
    changed_.notify_all();
  }

  void add_received(std::string_view text) {
    const std::lock_guard lock(mutex_);
    received_ += text.substr(
        0,
        std::min(text.size(), received_bytes_max - std::min(received_.size(), received_bytes_max)));
  }

  void add_mark() {
    const std::lock_guard lock(mutex_);
    ++marks_;
    changed_.notify_all();
  }

  script play_;
#if !defined(HUB_SESSION_NO_OPENSSL)
  std::unique_ptr<SSL_CTX, free_context> context_;
#endif
  std::atomic<bool> ending_ = false;
  listening_socket listener_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t accepted_ = 0;
  std::size_t marks_ = 0;
  std::size_t ended_ = 0;
  std::string received_;
  std::list<client> clients_;  // the acceptor's until it has ended
  std::thread acceptor_;
};

// Runs a server with cpp-httplib's interface, on loopback, for as long as it lives.
template <class Server>
class running_server {
 public:
  explicit running_server(Server& server, int port = 0) : server_(server), port_(port) {
#if !defined(_WIN32)
    // httplib's servers ignore SIGPIPE for the whole process, which would hide what clients do.
    ::signal(SIGPIPE, SIG_DFL);
#endif
    server.set_keep_alive_timeout(1);  // how long stop() waits for clients that stay connected
    if (port == 0)
      port_ = server.bind_to_any_port("127.0.0.1");
    else if (!server.bind_to_port("127.0.0.1", port))
      port_ = -1;
    if (port_ <= 0) throw std::runtime_error("the server cannot listen on 127.0.0.1");
    const signals_blocked quiet;
    thread_ = std::thread([&server] { server.listen_after_bind(); });
    while (!server.is_running()) std::this_thread::yield();
  }
  running_server(const running_server&) = delete;
  running_server& operator=(const running_server&) = delete;
  ~running_server() {
    server_.stop();
    thread_.join();
  }

  int port() const { return port_; }

 private:
  Server& server_;
  int port_;
  std::thread thread_;
};

}  // namespace hub_test
