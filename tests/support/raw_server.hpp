// SPDX-License-Identifier: MIT
//
// A TCP server on loopback that does to its clients what the test's script says, byte for byte:
// half an answer, a hang, a drip, a reset; plain or TLS. Each connection plays the script on a
// thread of its own. Nothing here waits for a time to pass: a script hangs until its client is gone
// or the server ends, and the test is told by marks how far the script got.

#pragma once

#include <algorithm>
#include <cerrno>
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

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "certificates.hpp"
#include "long_variant.hpp"

namespace hub_test {

// How long a test waits for something that must happen, before it fails instead of hanging for
// ever.
inline constexpr std::chrono::seconds patience{120};

inline int rounds() { return long_variant() ? 1000 : 50; }

// A proxy in the environment would take what is meant for these servers, so it goes, before main().
inline const bool environment_has_no_proxy = [] {
  for (const char* name : {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY",
                           "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
    ::unsetenv(name);
  return true;
}();

// While it lives, this thread takes no signal, and neither do the threads that it starts. So a test
// server never takes a signal, SIGPIPE included, that is meant to show what the client did.
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

inline sockaddr_in loopback_address(int port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  out.sin_port = htons(static_cast<std::uint16_t>(port));
  return out;
}

// A socket that listens on 127.0.0.1, at a port that the system picks unless one is given.
class listening_socket {
 public:
  explicit listening_socket(int backlog, int port = 0)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int again = 1;  // the port of a server that has just ended
    ::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &again, sizeof again);
    sockaddr_in address = loopback_address(port);
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (socket_ < 0 || ::bind(socket_, generic, size) != 0 || ::listen(socket_, backlog) != 0 ||
        ::getsockname(socket_, generic, &size) != 0)
      throw std::runtime_error("no socket can listen on 127.0.0.1");
    port_ = ntohs(address.sin_port);
  }
  listening_socket(const listening_socket&) = delete;
  listening_socket& operator=(const listening_socket&) = delete;
  ~listening_socket() { ::close(socket_); }

  int descriptor() const { return socket_; }
  int port() const { return port_; }

 private:
  int socket_;
  int port_ = 0;
};

// A port at which nobody answers a connection attempt: its queue of connections is full.
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
    connection(raw_server& server, int socket) : server_(server), socket_(socket) {}
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
        pollfd watched{socket_, POLLRDHUP, 0};
        ::poll(&watched, 1, 5);
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
      pollfd watched{socket_, 0, 0};
      while ((watched.revents & (POLLHUP | POLLERR)) == 0) ::poll(&watched, 1, -1);
      throw client_gone();
    }

    // Passes bytes on between the client and a port, as a proxy does, until either closes.
    [[noreturn]] void tunnel_to(int port) {
      struct end {
        int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ~end() { ::close(socket); }
      } const other;
      const sockaddr_in address = loopback_address(port);
      if (::connect(other.socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        throw client_gone();
      for (;;) {
        pollfd both[] = {{socket_, POLLIN, 0}, {other.socket, POLLIN, 0}};
        ::poll(both, 2, -1);
        if (both[0].revents != 0) {
          if (unread_.empty()) read_more();
          const std::string text = take(unread_.size());
          ::send(other.socket, text.data(), text.size(), MSG_NOSIGNAL);
        }
        if (both[1].revents != 0) {
          char piece[16384];
          const ssize_t got = ::recv(other.socket, piece, sizeof piece, 0);
          if (got <= 0) throw client_gone();
          send({piece, static_cast<std::size_t>(got)});
        }
      }
    }

    // Whether the client showed a certificate.
    bool has_certificate() const { return tls_ && SSL_get0_peer_certificate(tls_.get()); }

    // Tells the test that the script is here. See raw_server::wait_for_marks.
    void mark() { server_.add_mark(); }

    // No more bytes from here, but the connection stays.
    void end_output() { ::shutdown(socket_, SHUT_WR); }

    // Ends the connection as a crash does: with RST, what is on the way being lost.
    void reset() {
      const linger at_once{1, 0};
      ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
      forget_tls();
      close();
    }

    void close() {
      if (tls_ && shaken_hands_) SSL_shutdown(tls_.get());
      forget_tls();
      const std::lock_guard lock(mutex_);
      if (socket_ >= 0) ::close(std::exchange(socket_, -1));
    }

   private:
    friend class raw_server;
    struct free_tls {
      void operator()(SSL* what) const { SSL_free(what); }
    };

    void shake_hands(SSL_CTX* context) {
      tls_.reset(SSL_new(context));
      SSL_set_fd(tls_.get(), socket_);
      if (SSL_accept(tls_.get()) != 1) throw client_gone();
      shaken_hands_ = true;
    }

    void forget_tls() {
      tls_.reset();
      ERR_clear_error();
    }

    // From the test's thread, when the server ends: whatever blocks here returns.
    void cut() {
      const std::lock_guard lock(mutex_);
      if (socket_ >= 0) ::shutdown(socket_, SHUT_RDWR);
    }

    void read_more() {
      char piece[16384];
      std::ptrdiff_t got = 0;
      do {
        got = tls_ ? SSL_read(tls_.get(), piece, sizeof piece)
                   : ::recv(socket_, piece, sizeof piece, 0);
      } while (!tls_ && got < 0 && errno == EINTR);
      if (got <= 0) throw client_gone();
      const std::string_view text(piece, static_cast<std::size_t>(got));
      server_.add_received(text);
      unread_ += text;
    }

    std::ptrdiff_t write_some(std::string_view text) {
      if (!tls_) return ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
      return SSL_write(tls_.get(), text.data(),
                       static_cast<int>(std::min<std::size_t>(text.size(), 1 << 20)));
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
    int socket_;
    std::unique_ptr<SSL, free_tls> tls_;
    bool shaken_hands_ = false;
    std::string unread_;
  };

  using script = std::function<void(connection&)>;

  explicit raw_server(script play, const std::optional<tls_settings>& tls = {}, int port = 0)
      : play_(std::move(play)), listener_(128, port) {
    if (tls) prepare_tls(*tls);
    const signals_blocked quiet;
    acceptor_ = std::thread([this] { accept_clients(); });
  }
  raw_server(const raw_server&) = delete;
  raw_server& operator=(const raw_server&) = delete;

  ~raw_server() {
    ::shutdown(listener_.descriptor(), SHUT_RDWR);
    acceptor_.join();
    for (client& each : clients_) {
      each.link.cut();
      each.player.join();
    }
  }

  int port() const { return listener_.port(); }

  std::string url(std::string_view path = "/", std::string_view scheme = {}) const {
    if (scheme.empty()) scheme = context_ ? "https" : "http";
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
  struct free_context {
    void operator()(SSL_CTX* what) const { SSL_CTX_free(what); }
  };
  struct client {
    client(raw_server& server, int socket) : link(server, socket) {}
    connection link;
    std::thread player;
  };
  static constexpr std::size_t received_bytes_max = 1 << 20;

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

  void accept_clients() {
    for (;;) {
      const int socket = ::accept4(listener_.descriptor(), nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
      if (socket < 0) return;
      const int at_once = 1;
      ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
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
      if (context_) link.shake_hands(context_.get());
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
  std::unique_ptr<SSL_CTX, free_context> context_;
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
    // httplib's servers ignore SIGPIPE for the whole process, which would hide what clients do.
    ::signal(SIGPIPE, SIG_DFL);
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
