// SPDX-License-Identifier: MIT
//
// bench_sink [--tls]
//
// The HUB that everything is measured against: it answers what a session asks with fixed text, and
// what is uploaded it reads and throws away. The first line on stdout is its port, with --tls
// followed by the file of the authority that vouches for it.
//
// GET /sink gives what it saw so far. POST /sink/fast, /sink/outage, /sink/hang and /sink/dead say
// what becomes of metrics from then on. After POST /sink/hash it also says what the uploaded files
// were, which costs time, so that is asked for in runs that are not measured.

#include <algorithm>
#include <atomic>
#include <cctype>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/ssl.h>

#include "../support/certificates.hpp"
#include "../support/raw_server.hpp"

namespace {

using clock_type = std::chrono::steady_clock;

enum class mood { fast, outage, hang };

// What the sink saw, for GET /sink.
class record {
 public:
  void add_connection() {
    const std::lock_guard lock(mutex_);
    ++connections_;
  }
  void add_request(std::string_view what) {
    const std::lock_guard lock(mutex_);
    requests_ += (requests_.empty() ? "\"" : ", \"") + std::string(what) + '"';
  }
  void add_metrics(std::size_t body_bytes) {
    const std::lock_guard lock(mutex_);
    ++batches_;
    batch_bytes_max_ = std::max(batch_bytes_max_, body_bytes);
  }
  void add_upload(double seconds, const std::string& cipher, const std::string& hash) {
    const std::lock_guard lock(mutex_);
    uploads_ += (uploads_.empty() ? "" : ", ");
    uploads_ += "{\"seconds\": " + std::to_string(seconds) + ", \"cipher\": \"" + cipher +
                "\", \"sha256\": \"" + hash + "\"}";
  }
  std::string json() const {
    const std::lock_guard lock(mutex_);
    return "{\"connections\": " + std::to_string(connections_) + ", \"requests\": [" + requests_ +
           "], \"batches\": " + std::to_string(batches_) +
           ", \"batch_bytes_max\": " + std::to_string(batch_bytes_max_) + ", \"uploads\": [" +
           uploads_ + "]}";
  }

 private:
  mutable std::mutex mutex_;
  std::size_t connections_ = 0;
  std::size_t batches_ = 0;
  std::size_t batch_bytes_max_ = 0;
  std::string requests_;
  std::string uploads_;
};

record seen;
std::atomic<mood> metrics_mood{mood::fast};
std::atomic<bool> hashes{false};

struct client_gone {};

struct free_tls {
  void operator()(SSL* what) const { SSL_free(what); }
  void operator()(EVP_MD_CTX* what) const { EVP_MD_CTX_free(what); }
};

class connection {
 public:
  connection(int socket, SSL_CTX* tls) : socket_(socket) {
    if (!tls) return;
    tls_.reset(SSL_new(tls));
    SSL_set_fd(tls_.get(), socket_);
    if (SSL_accept(tls_.get()) != 1) throw client_gone();
  }
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
  ~connection() { ::close(socket_); }

  [[noreturn]] void serve() {
    for (;;) answer_one();
  }

 private:
  static constexpr std::size_t buffer_bytes = 1 << 20;

  void answer_one() {
    if (unread_.empty()) unread_ = read_some();
    const auto began = clock_type::now();
    std::size_t end;
    while ((end = unread_.find("\r\n\r\n")) == std::string::npos) unread_ += read_some();
    const std::string head = unread_.substr(0, end + 4);
    unread_.erase(0, head.size());
    const std::string target = head.substr(0, head.find(" HTTP/"));
    const std::string length = header(head, "content-length");
    std::size_t body_bytes = 0;
    std::from_chars(length.data(), length.data() + length.size(), body_bytes);
    if (!header(head, "expect").empty()) write("HTTP/1.1 100 Continue\r\n\r\n");
    if (target.ends_with("/upload")) {
      const std::string hash = take_upload(head, body_bytes);
      const double seconds = std::chrono::duration<double>(clock_type::now() - began).count();
      seen.add_request("upload");
      seen.add_upload(seconds, tls_ ? SSL_get_cipher_name(tls_.get()) : "", hash);
      return reply(200, "{}");
    }
    take(body_bytes, [](std::string_view) {});
    route(target, body_bytes);
  }

  void route(std::string_view target, std::size_t body_bytes) {
    if (target == "GET /sink") return reply(200, seen.json());
    if (target == "POST /sink/dead") ::_exit(0);
    if (target.starts_with("POST /sink/")) {
      if (target.ends_with("/hash")) hashes = true;
      if (target.ends_with("/fast")) metrics_mood = mood::fast;
      if (target.ends_with("/outage")) metrics_mood = mood::outage;
      if (target.ends_with("/hang")) metrics_mood = mood::hang;
      return reply(200, "{}");
    }
    if (target == "POST /v1/auth") {
      seen.add_request("auth");
      return reply(200, R"({"success": true})");
    }
    if (target.starts_with("POST /v1/agent/heartbeat/")) {
      seen.add_request("heartbeat");
      return reply(200, R"({"data": {"agentId": "agent"}})");
    }
    if (target.starts_with("GET /v1/models/")) {
      seen.add_request("model");
      return reply(200, R"({"data": {"status": "new", "data": "coco8.yaml", "cfg": "yolov8n.yaml",)"
                        R"( "epochs": 100, "batch": 16, "imgsz": 640}})");
    }
    seen.add_request("metrics");
    if (metrics_mood == mood::hang)
      for (;;) read_some();
    if (metrics_mood == mood::outage) return reply(503, "{}");
    seen.add_metrics(body_bytes);
    reply(200, "{}");
  }

  // Reads an upload and says what the file in it was, where that is wanted.
  std::string take_upload(std::string_view head, std::size_t body_bytes) {
    if (!hashes) {
      take(body_bytes, [](std::string_view) {});
      return {};
    }
    const std::string type = header(head, "content-type");
    const std::size_t tail_bytes = type.size() - (type.find("boundary=") + 9) + 8;
    while (unread_.size() < body_bytes) {
      const std::size_t name = unread_.find("filename=");
      if (name != std::string::npos && unread_.find("\r\n\r\n", name) != std::string::npos) break;
      unread_ += read_some();
    }
    const std::size_t begin = unread_.find("\r\n\r\n", unread_.find("filename=")) + 4;
    unread_.erase(0, begin);
    const std::unique_ptr<EVP_MD_CTX, free_tls> sum(EVP_MD_CTX_new());
    EVP_DigestInit_ex(sum.get(), EVP_sha256(), nullptr);
    take(body_bytes - begin - tail_bytes,
         [&](std::string_view piece) { EVP_DigestUpdate(sum.get(), piece.data(), piece.size()); });
    take(tail_bytes, [](std::string_view) {});
    unsigned char digest[32];
    EVP_DigestFinal_ex(sum.get(), digest, nullptr);
    std::string out;
    for (unsigned char byte : digest) {
      char text[3];
      std::snprintf(text, sizeof text, "%02x", byte);
      out += text;
    }
    return out;
  }

  template <class Use>
  void take(std::size_t count, Use use) {
    const std::size_t here = std::min(count, unread_.size());
    use(std::string_view(unread_).substr(0, here));
    unread_.erase(0, here);
    for (count -= here; count > 0;) {
      const std::size_t got = read_into(std::min(count, buffer_bytes));
      use(std::string_view(buffer_.get(), got));
      count -= got;
    }
  }

  std::string read_some() { return std::string(buffer_.get(), read_into(buffer_bytes)); }

  std::size_t read_into(std::size_t count) {
    const std::ptrdiff_t got = tls_ ? SSL_read(tls_.get(), buffer_.get(), static_cast<int>(count))
                                    : ::recv(socket_, buffer_.get(), count, 0);
    if (got <= 0) throw client_gone();
    return static_cast<std::size_t>(got);
  }

  static std::string header(std::string_view head, std::string_view name) {
    for (std::size_t at = 0; (at = head.find("\r\n", at)) != std::string_view::npos;) {
      at += 2;
      const std::string_view line = head.substr(at, head.find("\r\n", at) - at);
      const std::size_t colon = line.find(':');
      if (colon == std::string_view::npos || colon != name.size()) continue;
      if (!std::equal(name.begin(), name.end(), line.begin(),
                      [](char a, char b) { return a == std::tolower(b); }))
        continue;
      return std::string(line.substr(std::min(colon + 2, line.size())));
    }
    return {};
  }

  void reply(int status, std::string_view body) {
    write("HTTP/1.1 " + std::to_string(status) +
          " X\r\ncontent-type: application/json\r\ncontent-length: " + std::to_string(body.size()) +
          "\r\n\r\n" + std::string(body));
  }

  void write(std::string_view text) {
    const auto count = static_cast<int>(text.size());
    const std::ptrdiff_t sent = tls_ ? SSL_write(tls_.get(), text.data(), count)
                                     : ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent != count) throw client_gone();
  }

  int socket_;
  std::unique_ptr<SSL, free_tls> tls_;
  std::unique_ptr<char[]> buffer_ = std::make_unique<char[]>(buffer_bytes);
  std::string unread_;
};

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  const hub_test::certificate_authority authority;
  SSL_CTX* tls = nullptr;
  if (argc > 1 && std::string_view(argv[1]) == "--tls") {
    const hub_test::server_identity identity = authority.issue();
    tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate_file(tls, identity.certificate_file.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(tls, identity.key_file.c_str(), SSL_FILETYPE_PEM);
  }
  const hub_test::listening_socket listener(128);
  std::printf("%d %s\n", listener.port(), authority.file().c_str());
  std::fflush(stdout);
  for (;;) {
    const int socket = ::accept4(listener.descriptor(), nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    const int at_once = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
    seen.add_connection();
    std::thread([socket, tls] {
      try {
        connection(socket, tls).serve();
      } catch (const client_gone&) {
      }
    }).detach();
  }
}
