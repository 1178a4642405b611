// SPDX-License-Identifier: MIT
//
// Sockets that never block, plain or with TLS, and a wait for several of them at once. All that
// differs between POSIX and Windows is at the top.

#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <openssl/err.h>
#include <openssl/ssl.h>

#if defined(_WIN32)
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

namespace local_hub::http {

// ---- the system ---------------------------------------------------------------------------------

#if defined(_WIN32)
using native_socket = SOCKET;
using poll_entry = WSAPOLLFD;
inline constexpr native_socket no_socket = INVALID_SOCKET;
inline void close_native(native_socket socket) { ::closesocket(socket); }
inline void make_nonblocking(native_socket socket) {
  u_long yes = 1;
  ::ioctlsocket(socket, FIONBIO, &yes);
}
inline bool would_block() { return ::WSAGetLastError() == WSAEWOULDBLOCK; }
inline int poll_native(poll_entry* all, std::size_t count, int timeout_ms) {
  return ::WSAPoll(all, static_cast<ULONG>(count), timeout_ms);
}
// Another program could listen on the same port otherwise.
inline constexpr int port_option = SO_EXCLUSIVEADDRUSE;
inline constexpr int send_flags = 0;
#else
using native_socket = int;
using poll_entry = pollfd;
inline constexpr native_socket no_socket = -1;
inline void close_native(native_socket socket) { ::close(socket); }
inline void make_nonblocking(native_socket socket) {
  ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
  ::fcntl(socket, F_SETFD, FD_CLOEXEC);
}
inline bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }
inline int poll_native(poll_entry* all, std::size_t count, int timeout_ms) {
  return ::poll(all, static_cast<nfds_t>(count), timeout_ms);
}
// So that a restart need not wait for the last connections of the process before.
inline constexpr int port_option = SO_REUSEADDR;
#if defined(MSG_NOSIGNAL)
inline constexpr int send_flags = MSG_NOSIGNAL;
#else
inline constexpr int send_flags = 0;  // whoever serves ignores SIGPIPE
#endif
#endif

// ---- a socket -----------------------------------------------------------------------------------

class socket_handle {
 public:
  socket_handle() = default;
  explicit socket_handle(native_socket socket) : socket_(socket) {
    if (socket_ != no_socket) make_nonblocking(socket_);
  }
  socket_handle(socket_handle&& other) noexcept
      : socket_(std::exchange(other.socket_, no_socket)) {}
  socket_handle& operator=(socket_handle&& other) noexcept {
    std::swap(socket_, other.socket_);
    return *this;
  }
  ~socket_handle() {
    if (socket_ != no_socket) close_native(socket_);
  }
  explicit operator bool() const { return socket_ != no_socket; }
  native_socket get() const { return socket_; }

 private:
  native_socket socket_ = no_socket;
};

inline void set_option(const socket_handle& socket, int level, int name) {
  const int yes = 1;
  ::setsockopt(socket.get(), level, name, reinterpret_cast<const char*>(&yes), sizeof yes);
}

struct address_list {
  struct release {
    void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
  };
  std::unique_ptr<addrinfo, release> first;

  address_list(const std::string& host, int port, int kind) {
    addrinfo wanted{};
    wanted.ai_family = AF_UNSPEC;
    wanted.ai_socktype = kind;
    wanted.ai_flags = AI_PASSIVE;
    addrinfo* list = nullptr;
    if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &list) == 0)
      first.reset(list);
  }
};

inline int port_of(const socket_handle& socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size);
  if (address.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

// Listens at the first of the host's addresses where that is possible; port 0 picks a free one.
// Without a socket where it is possible at none.
inline socket_handle listen_on(const std::string& host, int port) {
  const address_list addresses(host, port, SOCK_STREAM);
  for (const addrinfo* each = addresses.first.get(); each; each = each->ai_next) {
    socket_handle socket(::socket(each->ai_family, each->ai_socktype, each->ai_protocol));
    if (!socket) continue;
    set_option(socket, SOL_SOCKET, port_option);
    if (::bind(socket.get(), each->ai_addr, static_cast<socklen_t>(each->ai_addrlen)) == 0 &&
        ::listen(socket.get(), SOMAXCONN) == 0)
      return socket;
  }
  return {};
}

// "::1" for "0:0:0:0:0:0:0:1", and "192.0.2.1" for "::ffff:192.0.2.1", so that equal addresses are equal
// texts; nothing for a name.
inline std::optional<std::string> numeric_address(const std::string& text) {
  constexpr std::string_view of_version_4 = "::ffff:";
  for (const int family : {AF_INET, AF_INET6}) {
    in6_addr address{};  // has room for either
    char out[INET6_ADDRSTRLEN] = "";
    if (::inet_pton(family, text.c_str(), &address) != 1) continue;
    ::inet_ntop(family, &address, out, sizeof out);
    const std::string_view found = out;
    const bool mapped = found.starts_with(of_version_4) && found.find('.') != found.npos;
    return std::string(found.substr(mapped ? of_version_4.size() : 0));
  }
  return std::nullopt;
}

struct accepted_socket {
  socket_handle socket;
  std::string remote_address;
};

inline accepted_socket accept_from(const socket_handle& listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  socket_handle socket(::accept(listener.get(), reinterpret_cast<sockaddr*>(&address), &size));
  if (!socket) return {};
  set_option(socket, IPPROTO_TCP, TCP_NODELAY);
  char text[NI_MAXHOST] = "";
  ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, text, sizeof text, nullptr, 0,
                NI_NUMERICHOST);
  return {std::move(socket), numeric_address(text).value_or(text)};
}

// Wakes whoever waits for its socket. It talks to itself, as a pipe does, which Windows cannot wait
// for.
class waker {
 public:
  waker() : socket_(::socket(AF_INET, SOCK_DGRAM, 0)) {
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof here;
    auto* address = reinterpret_cast<sockaddr*>(&here);
    if (!socket_ || ::bind(socket_.get(), address, size) != 0 ||
        ::getsockname(socket_.get(), address, &size) != 0 ||
        ::connect(socket_.get(), address, size) != 0)
      throw std::runtime_error("this machine has no loopback network, or no more sockets");
  }
  native_socket get() const { return socket_.get(); }
  void wake() const { ::send(socket_.get(), "", 1, send_flags); }
  void clear() const {
    char ignored[64];
    while (::recv(socket_.get(), ignored, sizeof ignored, 0) > 0) {
    }
  }

 private:
  socket_handle socket_;
};

// ---- TLS ----------------------------------------------------------------------------------------

// A certificate and its key, from files in PEM.
class tls_context {
 public:
  tls_context(const std::string& certificate_file, const std::string& key_file)
      : context_(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free) {
    if (!context_ ||
        SSL_CTX_use_certificate_chain_file(context_.get(), certificate_file.c_str()) != 1 ||
        SSL_CTX_use_PrivateKey_file(context_.get(), key_file.c_str(), SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context_.get()) != 1)
      throw std::runtime_error("cannot use the certificate " + certificate_file + " with the key " +
                               key_file);
    SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
    SSL_CTX_set_options(context_.get(), SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context_.get(),
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  }
  SSL_CTX* get() const { return context_.get(); }

 private:
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
};

// ---- a connection's bytes -----------------------------------------------------------------------

enum class io { done, wants_to_read, wants_to_write, closed };

struct io_result {
  io what;
  std::size_t bytes = 0;
};

// Bytes to and from a client. No member blocks but wait().
class byte_stream {
 public:
  // Without a context the bytes are plain.
  byte_stream(socket_handle socket, const tls_context* tls) : socket_(std::move(socket)) {
    if (!tls) return;
    ssl_.reset(SSL_new(tls->get()));
    if (!ssl_) throw std::bad_alloc();
    SSL_set_fd(ssl_.get(), static_cast<int>(socket_.get()));
    SSL_set_accept_state(ssl_.get());
  }

  native_socket get() const { return socket_.get(); }

  io_result read(char* to, std::size_t count) {
    if (ssl_) {
      std::size_t got = 0;
      ERR_clear_error();
      const int done = SSL_read_ex(ssl_.get(), to, count, &got);
      return of_tls(done, got);
    }
    const auto got = ::recv(socket_.get(), to, count, 0);
    if (got > 0) return {io::done, static_cast<std::size_t>(got)};
    return {got < 0 && would_block() ? io::wants_to_read : io::closed};
  }

  io_result write(std::string_view bytes) {
    if (ssl_) {
      std::size_t sent = 0;
      ERR_clear_error();
      const int done = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &sent);
      return of_tls(done, sent);
    }
    const auto sent = ::send(socket_.get(), bytes.data(), bytes.size(), send_flags);
    if (sent >= 0) return {io::done, static_cast<std::size_t>(sent)};
    return {would_block() ? io::wants_to_write : io::closed};
  }

  // Nothing more will be written.
  void finish() {
    if (ssl_) SSL_shutdown(ssl_.get());
#if defined(_WIN32)
    ::shutdown(socket_.get(), SD_SEND);
#else
    ::shutdown(socket_.get(), SHUT_WR);
#endif
  }

  // Whether it can go on within this time.
  bool wait(io wanted, std::chrono::milliseconds patience) const {
    poll_entry entry{};
    entry.fd = socket_.get();
    entry.events = wanted == io::wants_to_write ? POLLOUT : POLLIN;
    return poll_native(&entry, 1, static_cast<int>(patience.count())) > 0;
  }

 private:
  io_result of_tls(int done, std::size_t count) const {
    if (done == 1) return {io::done, count};
    switch (SSL_get_error(ssl_.get(), done)) {
      case SSL_ERROR_WANT_READ: return {io::wants_to_read};
      case SSL_ERROR_WANT_WRITE: return {io::wants_to_write};
      default: return {io::closed};
    }
  }

  struct release {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };
  socket_handle socket_;
  std::unique_ptr<SSL, release> ssl_;
};

}  // namespace local_hub::http
