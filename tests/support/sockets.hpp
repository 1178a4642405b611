// SPDX-License-Identifier: MIT
//
// The sockets that the tests' servers are made of, under one name on each system.

#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#if defined(_WIN32)
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

namespace hub_test {

#if defined(_WIN32)
using socket_handle = SOCKET;
inline constexpr socket_handle no_socket = INVALID_SOCKET;
using polled_socket = WSAPOLLFD;
// An end of the client's output is told unasked.
inline constexpr short client_ended = 0;
inline constexpr int end_sending = SD_SEND, end_both = SD_BOTH;

inline void close_socket(socket_handle socket) { ::closesocket(socket); }
inline int poll_sockets(polled_socket* sockets, std::size_t count, int milliseconds) {
  return ::WSAPoll(sockets, static_cast<ULONG>(count), milliseconds);
}
inline socket_handle accept_from(socket_handle listener) {
  return ::accept(listener, nullptr, nullptr);
}
// Whether a client that went before it was let in is all that was wrong.
inline bool goes_on_accepting() { return ::WSAGetLastError() == WSAECONNRESET; }
inline std::ptrdiff_t receive_some(socket_handle socket, char* to, std::size_t room) {
  return ::recv(socket, to, static_cast<int>(room), 0);
}
inline std::ptrdiff_t send_some(socket_handle socket, const char* from, std::size_t size) {
  return ::send(socket, from, static_cast<int>(size), 0);
}
inline void set_socket_option(socket_handle socket, int level, int name, const auto& value) {
  ::setsockopt(socket, level, name, reinterpret_cast<const char*>(&value), sizeof value);
}
// The port of a server that has just ended is free at once there; the option would let two share it.
inline void let_port_be_used_again(socket_handle) {}
inline socket_handle open_socket() { return ::socket(AF_INET, SOCK_STREAM, 0); }

inline const bool sockets_are_started = [] {
  WSADATA ignored;
  if (::WSAStartup(MAKEWORD(2, 2), &ignored) != 0) throw std::runtime_error("no sockets");
  return true;
}();
#else
using socket_handle = int;
inline constexpr socket_handle no_socket = -1;
using polled_socket = pollfd;
inline constexpr short client_ended = POLLRDHUP;
inline constexpr int end_sending = SHUT_WR, end_both = SHUT_RDWR;

inline void close_socket(socket_handle socket) { ::close(socket); }
inline int poll_sockets(polled_socket* sockets, std::size_t count, int milliseconds) {
  return ::poll(sockets, count, milliseconds);
}
inline socket_handle accept_from(socket_handle listener) {
  return ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
}
inline bool goes_on_accepting() { return errno == EINTR || errno == ECONNABORTED; }
inline std::ptrdiff_t receive_some(socket_handle socket, char* to, std::size_t room) {
  std::ptrdiff_t got = 0;
  do {
    got = ::recv(socket, to, room, 0);
  } while (got < 0 && errno == EINTR);
  return got;
}
inline std::ptrdiff_t send_some(socket_handle socket, const char* from, std::size_t size) {
  return ::send(socket, from, size, MSG_NOSIGNAL);
}
inline void set_socket_option(socket_handle socket, int level, int name, const auto& value) {
  ::setsockopt(socket, level, name, &value, sizeof value);
}
inline void let_port_be_used_again(socket_handle socket) {
  const int again = 1;  // the port of a server that has just ended
  set_socket_option(socket, SOL_SOCKET, SO_REUSEADDR, again);
}
inline socket_handle open_socket() { return ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }
#endif

inline sockaddr_in loopback_address(int port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  out.sin_port = htons(static_cast<std::uint16_t>(port));
  return out;
}

// Holds a port of 127.0.0.1, which the system picks unless one is given. Whoever connects there is
// refused, and no other program gets it by chance; but who asks for just this one may listen there, on
// all systems but Windows.
class bound_socket {
 public:
  explicit bound_socket(int port = 0) : socket_(open_socket()) {
    let_port_be_used_again(socket_);
    sockaddr_in address = loopback_address(port);
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (socket_ == no_socket || ::bind(socket_, generic, size) != 0 ||
        ::getsockname(socket_, generic, &size) != 0)
      throw std::runtime_error("no socket can have this port of 127.0.0.1");
    port_ = ntohs(address.sin_port);
  }
  bound_socket(const bound_socket&) = delete;
  bound_socket& operator=(const bound_socket&) = delete;
  ~bound_socket() {
    if (socket_ != no_socket) close_socket(socket_);
  }

  socket_handle descriptor() const { return socket_; }
  int port() const { return port_; }

 private:
  socket_handle socket_;
  int port_ = 0;
};

class listening_socket : public bound_socket {
 public:
  explicit listening_socket(int backlog, int port = 0) : bound_socket(port) {
    if (::listen(descriptor(), backlog) != 0)
      throw std::runtime_error("no socket can listen on 127.0.0.1");
  }
};

// Lets whoever waits for a client of this socket return.
inline void wake_acceptor(const listening_socket& listener) {
#if defined(_WIN32)
  const socket_handle client = open_socket();
  const sockaddr_in address = loopback_address(listener.port());
  ::connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  close_socket(client);
#else
  ::shutdown(listener.descriptor(), end_both);
#endif
}

}  // namespace hub_test
