// SPDX-License-Identifier: MIT
//
// A transport over libcurl, for programs that have it anyway or need what httplib lacks: SOCKS and
// https proxies, client certificates, HTTP/2. Copy this file, link with -lcurl, and make sessions so:
//
//     #define HUB_SESSION_NO_HTTPLIB
//     #include "curl_transport.hpp"
//
//     hub::basic_training_session<curl_transport, hub::steady_clock, hub::thread_sleeper> session{
//         "MODEL", {}, curl_transport{{.prepare = [](CURL* curl) {
//           curl_easy_setopt(curl, CURLOPT_PROXY, "socks5h://127.0.0.1:1080");
//         }}}};
//
// It keeps what http_transport in the header promises; tests/transport_suite.hpp tries it.

#pragma once

#include "hub_session.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <curl/curl.h>
#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
#endif

// Older ones raise SIGPIPE where a TLS server goes away, and some of the options here are newer.
#if LIBCURL_VERSION_NUM < 0x075800
#error "curl_transport.hpp: libcurl 7.88 or newer is needed"
#endif

struct curl_options {
  std::string ca_file = {};  // PEM; else what libcurl was built to trust
  // Called before each request leaves, to set further options. What this file promises is set after
  // it and cannot be undone. Must not throw.
  std::function<void(CURL*)> prepare = {};
};

// Ends every exchange when the program calls std::exit, and lets none begin afterwards: OpenSSL takes
// itself apart then, and a thread that still spoke TLS would crash.
class curl_exit_watch {
 public:
  static curl_exit_watch& instance() {
    static auto* const watch = new curl_exit_watch;  // lives as long as the process
    return *watch;
  }
  bool enter() {
    const std::lock_guard lock(mutex_);
    if (!over_) ++exchanges_;
    return !over_;
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    --exchanges_;
    changed_.notify_all();
  }
  bool over() const { return over_; }
  bool is_forked_child() const { return process_ != process_id(); }

 private:
  curl_exit_watch() {
    curl_global_init(CURL_GLOBAL_DEFAULT);      // OpenSSL registers here what it does at exit, and
    std::atexit([] { instance().end_all(); });  // what is registered later is called earlier
  }
  void end_all() {
    if (is_forked_child()) return;  // the exchanges are the parent's
    std::unique_lock lock(mutex_);
    over_ = true;
    changed_.wait_for(lock, std::chrono::seconds(1), [this] { return exchanges_ == 0; });
  }

  static int process_id() {
#if defined(_WIN32)
    return ::_getpid();
#else
    return ::getpid();
#endif
  }

  const int process_ = process_id();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> over_ = false;
  int exchanges_ = 0;
};

// What libcurl calls back while one request is under way. No exception may reach libcurl.
class curl_exchange {
 public:
  curl_exchange(CURL* curl, const hub::request& what) : curl_(curl), what_(what) {
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &on_head_line);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &on_body);
    curl_easy_setopt(curl, CURLOPT_READDATA, this);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, &on_room);
    curl_easy_setopt(curl, CURLOPT_SEEKDATA, this);
    curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, &on_rewind);
  }
  curl_exchange(const curl_exchange&) = delete;
  curl_exchange& operator=(const curl_exchange&) = delete;

  // The server is done. Returns whether there is a whole reply.
  bool finish() {
    return head_is_whole_ && succeeds([&] { take_head(); });
  }

  hub::reply answer = {};
  std::optional<hub::error> failure = {};  // what ended the exchange, if it was one of us

 private:
  static curl_exchange& of(void* self) { return *static_cast<curl_exchange*>(self); }

  // A sink of a 2xx gets the head before the first piece of the body, or at the end.
  void take_head() {
    if (std::exchange(has_head_, true)) return;
    long status = 0;
    curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &status);
    answer.status = static_cast<int>(status);
    answer.retry_after = header("retry-after");
    answer.content_length = header("content-length");
    answer.content_range = header("content-range");
    answer.content_type = header("content-type");
    answer.etag = header("etag");
    to_sink_ = what_.sink && status >= 200 && status < 300;
    if (to_sink_) failure = what_.sink->begin(answer);
  }

  template <class Act>
  bool succeeds(Act act) noexcept {
    try {
      act();
    } catch (...) {
      failure = hub::error{hub::errc::internal_error, "An exchange ran out of memory."};
    }
    return !failure;
  }

  // libcurl takes half a head for a reply, where the server then closes the connection.
  static std::size_t on_head_line(char* text, std::size_t, std::size_t length, void* self) {
    const std::string_view line(text, length);
    if (line.starts_with("HTTP/")) of(self).head_is_whole_ = false;  // an interim one's was
    if (line == "\r\n" || line == "\n") of(self).head_is_whole_ = true;
    return length;
  }
  static std::size_t on_body(char* bytes, std::size_t, std::size_t length, void* self) {
    return of(self).succeeds([&] { of(self).take_body({bytes, length}); }) ? length : 0;
  }
  static std::size_t on_room(char* to, std::size_t, std::size_t room, void* self) {
    std::size_t got = 0;
    const bool well = of(self).succeeds([&] { got = of(self).give_body({to, room}); });
    return well ? got : std::size_t{CURL_READFUNC_ABORT};
  }
  // libcurl sends a body once more where a kept connection turned out to be closed.
  static int on_rewind(void* self, curl_off_t offset, int) {
    of(self).sent_ = static_cast<std::uint64_t>(offset);
    return CURL_SEEKFUNC_OK;
  }

  std::string header(const char* name) const {
    curl_header* found = nullptr;
    const bool there = curl_easy_header(curl_, name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK;
    return there ? found->value : "";
  }

  void take_body(std::string_view piece) {
    take_head();
    if (failure) return;
    if (to_sink_) {
      failure = what_.sink->write(piece);
      return;
    }
    answer.body += piece.substr(0, what_.reply_bytes_max + 1 - answer.body.size());
    if (answer.body.size() > what_.reply_bytes_max)
      failure =
          hub::error{hub::errc::bad_reply,
                     "The reply is longer than limits.reply_bytes_max. Check the HUB address."};
  }

  std::size_t give_body(std::span<char> room) {
    const hub::result<std::size_t> got = what_.content->read(sent_, room);
    if (!got)
      failure = got.error();
    else if (*got == 0)
      failure = hub::error{hub::errc::internal_error, "A request body ended too early."};
    else
      sent_ += *got;
    return got ? *got : 0;
  }

  CURL* curl_;
  const hub::request& what_;
  std::uint64_t sent_ = 0;  // of the body
  bool head_is_whole_ = false;
  bool has_head_ = false;
  bool to_sink_ = false;
};

class curl_transport {
 public:
  // Reads what the environment says of proxies. HTTP_PROXY in capitals is not read: a web server sets
  // it from a request's header.
  explicit curl_transport(curl_options options = {})
      : options_(std::move(options)),
        http_proxy_(env({"http_proxy", "all_proxy", "ALL_PROXY"})),
        https_proxy_(env({"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"})),
        no_proxy_(env({"no_proxy", "NO_PROXY"})) {
    if (!curl_ || !multi_) throw std::bad_alloc();
  }
  curl_transport(const curl_transport& other) : curl_transport(other.options_) {
    http_proxy_ = other.http_proxy_;
    https_proxy_ = other.https_proxy_;
    no_proxy_ = other.no_proxy_;
  }
  curl_transport& operator=(const curl_transport&) = delete;
  ~curl_transport() {
    if (!watch_.is_forked_child()) return;
    static_cast<void>(curl_.release());  // the connections are the parent's
    static_cast<void>(multi_.release());
  }

  // Blocks until the reply is whole, has failed, or is past the request's deadline. One at a time.
  hub::reply send(const hub::request& what) {
    if (what.deadline <= hub::duration::zero())
      return {.failure = failure_of(hub::errc::timed_out, what.url)};
    if (cancelled_ || !watch_.enter())
      return {.failure = failure_of(hub::errc::cancelled, what.url)};
    struct leaving {
      curl_exit_watch& watch;
      ~leaving() { watch.leave(); }
    } const leaving{watch_};
    curl_easy_reset(curl_.get());  // the connections stay
    const list headers = headers_of(what);
    set_options(what);
    curl_easy_setopt(curl_.get(), CURLOPT_HTTPHEADER, headers.get());
    curl_exchange exchange(curl_.get(), what);
    const std::optional<hub::error> failure = perform(exchange, what);
    if (exchange.failure) return {.failure = exchange.failure};
    if (failure) return {.failure = failure};
    return std::move(exchange.answer);
  }

  // From any thread: the request in flight and every later one on this copy fail within milliseconds.
  void cancel() noexcept {
    cancelled_ = true;
    curl_multi_wakeup(multi_.get());
  }

 private:
  using list = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;
  using handle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
  using connections = std::unique_ptr<CURLM, decltype(&curl_multi_cleanup)>;

  static std::string env(std::initializer_list<const char*> names) {
    for (const char* name : names)
      if (const char* value = std::getenv(name); value && *value) return value;
    return {};
  }

  static list headers_of(const hub::request& what) {
    list out(nullptr, &curl_slist_free_all);
    const auto add = [&](const std::string& line) {
      curl_slist* const longer = curl_slist_append(out.get(), line.c_str());
      if (!longer) throw std::bad_alloc();
      static_cast<void>(out.release());
      out.reset(longer);
    };
    add("accept-encoding: identity");
    add("expect:");  // a name without a value: libcurl adds none of its own
    add("content-type:");
    for (const auto& [name, value] : what.headers) add(name + ": " + value);
    return out;
  }

  void set_options(const hub::request& what) {
    const auto set = [curl = curl_.get()](CURLoption option, auto value) {
      curl_easy_setopt(curl, option, value);
    };
    const bool tls = curl_strnequal(what.url.c_str(), "https:", 6) != 0;
    set(CURLOPT_PROXY, (tls ? https_proxy_ : http_proxy_).c_str());
    set(CURLOPT_NOPROXY, no_proxy_.c_str());
    if (!options_.ca_file.empty()) {
      set(CURLOPT_CAINFO, options_.ca_file.c_str());
      set(CURLOPT_CAPATH, static_cast<char*>(nullptr));  // and nobody else
    }
    if (options_.prepare) options_.prepare(curl_.get());
    set(CURLOPT_URL, what.url.c_str());
    set(CURLOPT_PATH_AS_IS, 1L);  // a signed URL is valid only byte for byte
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_SSL_VERIFYPEER, 1L);
    set(CURLOPT_SSL_VERIFYHOST, 2L);
    set(CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
    set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_QUICK_EXIT, 1L);  // waits for no name that is still being looked up
    set(CURLOPT_TIMEOUT_MS, count<std::chrono::milliseconds>(what.deadline));
    set(CURLOPT_CONNECTTIMEOUT_MS, count<std::chrono::milliseconds>(what.connect_timeout));
    set(CURLOPT_LOW_SPEED_TIME, count<std::chrono::seconds>(what.stall_timeout));
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);  // byte in a second
    set_body(what);
  }

  void set_body(const hub::request& what) {
    if (what.method == "GET") return;
    const auto size = what.content ? what.content->size_bytes() : what.body.size();
    curl_easy_setopt(curl_.get(), CURLOPT_POST, 1L);
    curl_easy_setopt(curl_.get(), CURLOPT_CUSTOMREQUEST, what.method.c_str());
    curl_easy_setopt(curl_.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(size));
    if (!what.content) curl_easy_setopt(curl_.get(), CURLOPT_POSTFIELDS, what.body.c_str());
  }

  // In a unit of libcurl's, as it takes it: 0 would be no limit, or its own.
  template <class Unit>
  static long count(hub::duration time) {
    constexpr hub::duration most = std::chrono::hours(24 * 20);  // 32 bits hold it in milliseconds
    return std::max(static_cast<long>(std::chrono::ceil<Unit>(std::min(time, most)).count()), 1L);
  }

  // Returns why there is no whole reply, or nothing.
  std::optional<hub::error> perform(curl_exchange& exchange, const hub::request& what) {
    constexpr int look_again_ms = 50;  // whether the program ends
    struct ending {
      curl_transport& self;  // also where something throws
      ~ending() { curl_multi_remove_handle(self.multi_.get(), self.curl_.get()); }
    } const ended{*this};
    curl_multi_add_handle(multi_.get(), curl_.get());
    for (;;) {
      int running = 0;
      curl_multi_perform(multi_.get(), &running);
      if (running == 0) return outcome(exchange, what.url);
      if (cancelled_ || watch_.over()) return failure_of(hub::errc::cancelled, what.url);
      curl_multi_poll(multi_.get(), nullptr, 0, look_again_ms, nullptr);
    }
  }

  std::optional<hub::error> outcome(curl_exchange& exchange, const std::string& url) {
    int left = 0;
    const CURLMsg* const message = curl_multi_info_read(multi_.get(), &left);
    CURLcode code = message ? message->data.result : CURLE_OUT_OF_MEMORY;
    if (code == CURLE_OK && exchange.finish()) return std::nullopt;
    if (code == CURLE_OK) code = CURLE_GOT_NOTHING;
    return failure_of(errc_of(code), url, curl_easy_strerror(code));
  }

  static hub::errc errc_of(CURLcode code) {
    switch (code) {
      case CURLE_OPERATION_TIMEDOUT: return hub::errc::timed_out;
      case CURLE_SSL_CONNECT_ERROR:
      case CURLE_SSL_CERTPROBLEM:
      case CURLE_SSL_CACERT_BADFILE:
      case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
      case CURLE_PEER_FAILED_VERIFICATION: return hub::errc::tls_failed;
      default: return hub::errc::not_reachable;
    }
  }

  // Names the host, and never what stands behind it.
  static hub::error failure_of(hub::errc code, const std::string& url, const char* detail = "") {
    const std::size_t begin = std::min(url.find("://") + 3, url.size());
    const std::string host = url.substr(begin, url.find_first_of("/?#", begin) - begin);
    switch (code) {
      case hub::errc::cancelled: return {code, "The request to " + host + " was given up."};
      case hub::errc::timed_out:
        return {code, host + " did not answer in time. Check the network and the HUB."};
      case hub::errc::tls_failed:
        return {code, "No TLS connection to " + host + " that can be trusted (" + detail +
                          "). Check the HUB address and its certificate."};
      default:
        return {code, host + " cannot be reached or closed the connection (" + detail +
                          "). Check the network and the HUB address."};
    }
  }

  curl_exit_watch& watch_ = curl_exit_watch::instance();  // first: it starts libcurl
  curl_options options_;
  std::string http_proxy_;
  std::string https_proxy_;
  std::string no_proxy_;
  std::atomic<bool> cancelled_ = false;
  connections multi_{curl_multi_init(), &curl_multi_cleanup};
  handle curl_{curl_easy_init(), &curl_easy_cleanup};
};
