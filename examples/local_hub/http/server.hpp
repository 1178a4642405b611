// SPDX-License-Identifier: MIT
//
// An HTTP/1.1 server for a machine's own network. cpp-httplib's gives each connection a thread for as
// long as it lasts, and what comes before its handlers is without bound in the version that Debian
// has; so local_hub brings its own.
//
// One thread, run(), watches every connection: it gathers the head of a request and a small body,
// sends what a slow client has not taken yet, and holds the streams that have no end. A worker has a
// connection only while it answers a whole request, or moves a body that is too long to be gathered.
// So nobody who has shown no key can keep a worker, and who waits costs no thread.
//
// A connection goes on to its next request only where this one was read to its end. Else it is
// closed after the reply, once the client had time to read that (RFC 9112, 9.6).

#pragma once

#include "message.hpp"
#include "sockets.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

namespace local_hub::http {

inline constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";

using std::chrono::milliseconds;
using std::chrono::seconds;
using steady_clock = std::chrono::steady_clock;

struct server_options {
  std::optional<tls_context> tls = {};  // else plain HTTP
  std::size_t connections_max =
      4000;                     // beyond, who has waited longest without a request makes room
  std::size_t workers_min = 4;  // std::system_error where there are not even these
  std::size_t workers_max = 256;
  std::size_t gathered_body_bytes_max = std::size_t{16} * 1024;
  std::size_t stream_bytes_max = std::size_t{1024} * 1024;  // that a reader of a stream is behind
  seconds request_max{10};  // for the head of a request, and a body that is gathered with it
  seconds idle_max{30};     // between two requests on one connection
  seconds stall_max{30};    // without a byte; beyond, a body has to move at ...
  std::uint64_t rate_bytes_min = 1024;  // ... so many a second
  seconds linger_max{30};  // to read a reply while the rest of the request is thrown away
};

// Wakes a server that may have gone.
using shared_waker = std::shared_ptr<const waker>;

// The open end of a reply that goes on: what is sent to it reaches the client. Any thread may use it.
class outlet {
 public:
  outlet(shared_waker wakes, std::size_t bytes_max)
      : wakes_(std::move(wakes)), bytes_max_(bytes_max) {}

  // False once the client has gone, or is too far behind and is let go.
  bool send(std::string_view bytes) {
    {
      const std::lock_guard lock(mutex_);
      closed_ = closed_ || pending_.size() + bytes.size() > bytes_max_;
      if (!closed_) pending_ += bytes;
    }
    wakes_->wake();
    return !is_closed();
  }
  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    wakes_->wake();
  }
  bool is_closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  std::string take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(pending_, {});
  }

 private:
  shared_waker wakes_;
  std::size_t bytes_max_;
  mutable std::mutex mutex_;
  std::string pending_;
  bool closed_ = false;
};

// How long something may take that has moved so many bytes.
class pace {
 public:
  explicit pace(const server_options& options)
      : begun_(steady_clock::now()),
        stall_max_(options.stall_max),
        rate_bytes_min_(options.rate_bytes_min) {}
  steady_clock::time_point deadline(std::uint64_t bytes) const {
    return begun_ + stall_max_ + seconds(bytes / rate_bytes_min_);
  }

 private:
  steady_clock::time_point begun_;
  seconds stall_max_;
  std::uint64_t rate_bytes_min_;
};

enum class phase {
  request,  // its head and a small body are gathered
  reply,    // what is left of one is sent
  stream,   // a reply without an end
  linger,   // the reply is sent, and what comes is thrown away
};

struct connection {
  connection(byte_stream bytes, std::string remote)
      : stream(std::move(bytes)), remote_address(std::move(remote)) {}

  byte_stream stream;
  std::string remote_address;
  http::phase phase = phase::request;
  steady_clock::time_point since = steady_clock::now();  // in which it waits for a request
  steady_clock::time_point deadline = {};
  io wants = io::wants_to_read;
  head_parser parser = {};
  std::string in = {};                        // received, and not yet used
  std::optional<http::request> request = {};  // whose body is still gathered
  std::string out = {};
  std::size_t out_at = 0;
  bool keeps_open = false;              // after this reply
  std::shared_ptr<outlet> source = {};  // of a stream
};

// ---- one request and its reply ------------------------------------------------------------------

class exchange {
 public:
  exchange(connection& with, http::request asked, const server_options& options,
           const std::atomic<bool>& stopping)
      : request(std::move(asked)),
        with_(with),
        options_(options),
        stopping_(stopping),
        body_(request) {}

  http::request request;
  http::response reply = {};

  // Where reply.status is 200 it has no end; open() gets what the rest is sent to.
  std::function<void(std::shared_ptr<outlet>)> open = {};

  // Whether all of the body is here, so that reading it keeps nobody.
  bool has_gathered_body() const {
    return !request.chunked && request.content_length <= with_.in.size();
  }

  // Hands the body to add(bytes), piece by piece; blocks while it comes. False where it was not read
  // to its end: add() returned false, it is garbled, or it does not come.
  template <class Add>
  bool read_body(Add add) {
    const pace limit(options_);
    std::uint64_t received = with_.in.size();
    if (request.expects_continue && !has_gathered_body()) with_.stream.write(go_on);
    for (std::string piece = std::move(with_.in);;) {
      std::string_view bytes = piece;
      const bool wanted = body_.take(bytes, add);
      if (!wanted || body_.broken()) return false;
      if (body_.done()) {
        with_.in = bytes;  // the next request
        return true;
      }
      if (!receive(piece, limit.deadline(received))) return false;
      received += piece.size();
    }
  }

  // A connection whose body was not read, or not well, must not be read as the next request.
  bool is_read() const { return body_.done(); }

  // Sends all of it; false where the client does not take it.
  bool send(std::string_view bytes, steady_clock::time_point deadline) {
    while (!bytes.empty()) {
      const io_result sent = with_.stream.write(bytes);
      if (sent.what == io::closed) return false;
      if (sent.what == io::done)
        bytes.remove_prefix(sent.bytes);
      else if (!wait(sent.what, deadline))
        return false;
    }
    return true;
  }

 private:
  bool receive(std::string& piece, steady_clock::time_point deadline) {
    constexpr std::size_t piece_bytes = std::size_t{256} * 1024;
    piece.resize(piece_bytes);
    for (;;) {
      const io_result got = with_.stream.read(piece.data(), piece.size());
      if (got.what == io::closed) return false;
      if (got.what == io::done) {
        piece.resize(got.bytes);
        return true;
      }
      if (!wait(got.what, deadline)) return false;
    }
  }

  // In short steps, so that the server can stop meanwhile.
  bool wait(io wanted, steady_clock::time_point deadline) const {
    constexpr milliseconds step{250};
    while (!stopping_ && steady_clock::now() < deadline)
      if (with_.stream.wait(wanted, step)) return true;
    return false;
  }

  connection& with_;
  const server_options& options_;
  const std::atomic<bool>& stopping_;
  body_decoder body_;
};

// ---- the server ---------------------------------------------------------------------------------

class server {
 public:
  // Answers into exchange.reply; called by several threads at once.
  using handler = std::function<void(exchange&)>;
  // What there is to say of a request that was answered; `status` 0 for one that was never whole.
  using logger = std::function<void(const request&, int status)>;

  server(server_options options, handler answers, logger logs)
      : options_(std::move(options)), answers_(std::move(answers)), logs_(std::move(logs)) {
    try {
      while (workers_.size() < options_.workers_min) add_worker();
    } catch (const std::system_error&) {
      stop();
      join();
      throw std::runtime_error("this system gives no threads to serve with; see ulimit -u");
    }
  }
  server(const server&) = delete;
  server& operator=(const server&) = delete;
  ~server() {
    stop();
    join();
  }

  // Returns the port, from where on connections are accepted; they are served by run().
  int bind(const std::string& host, int port) {
    listener_ = listen_on(host, port);
    if (listener_) return port_of(listener_);
    throw std::runtime_error("cannot listen on " + host + ":" + std::to_string(port) +
                             "; is another program there, or is it no address of this machine?");
  }

  // Blocks until stop(), then until the requests that are being answered have been.
  void run() {
    while (!stopping_) {
      const std::vector<poll_entry> entries = wait();
      waker_->clear();
      std::size_t at = first_connection;
      for (auto each = waiting_.begin(); each != waiting_.end(); ++at)
        each = advance(*each, entries[at].revents != 0) ? std::next(each) : drop(waiting_, each);
      take_back();
      if (entries[1].revents != 0) accept_all();
    }
    join();
  }

  // May be called from any thread. Bodies that are still coming are given up; their sender tries
  // again.
  void stop() {
    stopping_ = true;
    {
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
    }
    waker_->wake();
  }

 private:
  // A place is empty once a worker has its connection.
  using place = std::unique_ptr<connection>;
  using places = std::list<place>;

  struct job {
    place with;
    http::request request;
  };

  static constexpr std::size_t first_connection = 2;  // among what is waited for

  // ---- all connections ----

  std::vector<poll_entry> wait() {
    std::vector<poll_entry> entries(first_connection);
    entries[0].fd = waker_->get();
    entries[0].events = POLLIN;
    entries[1].fd = listener_.get();
    entries[1].events = steady_clock::now() < accepts_again_ ? 0 : POLLIN;
    auto next = steady_clock::now() + seconds(1);
    for (const place& each : waiting_) {
      poll_entry entry{};
      entry.fd = each->stream.get();
      entry.events = each->wants == io::wants_to_write ? POLLOUT : POLLIN;
      entries.push_back(entry);
      next = std::min(next, each->deadline);
    }
    const auto patience = std::chrono::ceil<milliseconds>(next - steady_clock::now());
    poll_native(entries.data(), entries.size(),
                static_cast<int>(std::max<std::int64_t>(patience.count(), 0)));
    return entries;
  }

  // From the workers.
  void take_back() {
    places back;
    {
      const std::lock_guard lock(mutex_);
      back.swap(back_);
    }
    for (auto each = back.begin(); each != back.end();)
      each = advance(*each, true) ? std::next(each) : drop(back, each);
    waiting_.splice(waiting_.end(), back);
  }

  places::iterator drop(places& from, places::iterator which) {
    if (*which) --open_;
    return from.erase(which);
  }

  void accept_all() {
    constexpr int at_once_max = 64;  // the others have their turn
    for (int i = 0; i < at_once_max; ++i) {
      accepted_socket got = accept_from(listener_);
      if (!got.socket) {
        // No more descriptors, perhaps: asking again at once would be all that this thread does.
        if (!would_block()) accepts_again_ = steady_clock::now() + milliseconds(100);
        return;
      }
      if (open_ >= options_.connections_max && !make_room()) return;
      auto fresh = std::make_unique<connection>(
          byte_stream(std::move(got.socket), options_.tls ? &*options_.tls : nullptr),
          std::move(got.remote_address));
      fresh->deadline = fresh->since + options_.request_max;
      ++open_;
      waiting_.push_back(std::move(fresh));
    }
  }

  // Who is here to ask asks at once, so who has waited longest does not mean to.
  bool make_room() {
    const auto oldest =
        std::min_element(waiting_.begin(), waiting_.end(), [](const place& a, const place& b) {
          const bool a_waits = a->phase == phase::request;
          const bool b_waits = b->phase == phase::request;
          return a_waits != b_waits ? a_waits : a->since < b->since;
        });
    if (oldest == waiting_.end() || (*oldest)->phase != phase::request) return false;
    drop(waiting_, oldest);
    return true;
  }

  // ---- one connection; each is false where it does not stay in its place ----

  bool advance(place& at, bool awake) {
    if (at->phase == phase::stream) return advance_stream(*at, awake);
    if (!awake) return steady_clock::now() < at->deadline;
    if (at->phase == phase::request) return advance_request(at);
    if (at->phase == phase::reply) return advance_reply(at);
    return advance_linger(*at);
  }

  bool advance_request(place& at) {
    connection& with = *at;
    for (;;) {
      if (const int refused = gather(with)) return refuse(at, refused);
      if (with.request && has_all(with)) return hand_over(at);
      std::array<char, std::size_t{16} * 1024> piece;
      const io_result got = with.stream.read(piece.data(), piece.size());
      if (got.what == io::closed) return false;
      if (got.what != io::done) {
        with.wants = got.what;
        return steady_clock::now() < with.deadline;
      }
      if (with.in.empty() && !with.request)
        with.deadline = steady_clock::now() + options_.request_max;
      with.in.append(piece.data(), got.bytes);
    }
  }

  // Looks whether the head is whole; returns the status of a refusal, 0 for none.
  int gather(connection& with) const {
    if (with.request) return 0;
    while (with.in.starts_with("\r\n")) with.in.erase(0, 2);  // RFC 9112, 2.2
    parsed_head parsed = with.parser.parse(with.in);
    if (const int* refused = std::get_if<int>(&parsed)) return *refused;
    if (head* found = std::get_if<head>(&parsed)) {
      with.in.erase(0, found->size_bytes);
      with.request = std::move(found->request);
      with.request->remote_address = with.remote_address;
      if (with.request->expects_continue && !has_all(with)) with.stream.write(go_on);
    }
    return 0;
  }

  // What is not gathered is a worker's to read.
  bool has_all(const connection& with) const {
    const http::request& what = *with.request;
    return what.chunked || what.content_length > options_.gathered_body_bytes_max ||
           with.in.size() >= what.content_length;
  }

  bool refuse(place& at, int status) {
    if (logs_) logs_({.remote_address = at->remote_address}, status);
    response reply{.status = status};
    reply.set_body("application/json", R"({"message": "the request cannot be read"})");
    at->out = head_of(reply, reply.body.size(), false) + reply.body;
    at->keeps_open = false;
    begin_reply(*at);
    return advance_reply(at);
  }

  void begin_reply(connection& with) const {
    with.phase = phase::reply;
    with.deadline = pace(options_).deadline(with.out.size());
  }

  // As much as the client takes.
  static io_result flush(connection& with) {
    while (with.out_at < with.out.size()) {
      const io_result sent = with.stream.write(std::string_view(with.out).substr(with.out_at));
      if (sent.what != io::done) return sent;
      with.out_at += sent.bytes;
    }
    with.out.clear();
    with.out_at = 0;
    return {io::done};
  }

  bool advance_reply(place& at) {
    connection& with = *at;
    const io_result sent = flush(with);
    if (sent.what == io::closed) return false;
    if (sent.what != io::done) {
      with.wants = sent.what;
      return steady_clock::now() < with.deadline;
    }
    with.wants = io::wants_to_read;
    with.since = steady_clock::now();
    if (with.keeps_open) {
      with.phase = phase::request;
      with.deadline = with.since + (with.in.empty() ? options_.idle_max : options_.request_max);
      return advance_request(at);
    }
    with.phase = phase::linger;
    with.deadline = with.since + options_.linger_max;
    with.stream.finish();
    return advance_linger(with);
  }

  static bool advance_linger(connection& with) {
    constexpr int at_once_max = 64;
    std::array<char, std::size_t{16} * 1024> ignored;
    for (int i = 0; i < at_once_max; ++i) {
      const io_result got = with.stream.read(ignored.data(), ignored.size());
      if (got.what == io::closed) return false;
      if (got.what == io::done) continue;
      with.wants = got.what;
      break;
    }
    return steady_clock::now() < with.deadline;
  }

  // A reader says nothing more, so that all there is to read of it is its end.
  bool advance_stream(connection& with, bool awake) {
    with.deadline = steady_clock::now() + std::chrono::hours(1);
    if (awake && with.wants == io::wants_to_read && !advance_linger(with)) return false;
    with.out += with.source->take();
    const io_result sent = flush(with);
    with.wants = sent.what == io::wants_to_write ? io::wants_to_write : io::wants_to_read;
    return sent.what != io::closed && !with.source->is_closed() &&
           with.out.size() - with.out_at <= options_.stream_bytes_max;
  }

  // ---- workers ----

  bool hand_over(place& at) {
    job next{std::move(at), {}};
    next.request = *std::exchange(next.with->request, std::nullopt);
    bool wants_more = false;
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(next));
      wants_more = jobs_.size() > idle_ && workers_.size() < options_.workers_max;
      changed_.notify_one();
    }
    try {
      if (wants_more) add_worker();
    } catch (const std::system_error&) {  // those that there are have to do
    }
    return false;
  }

  void add_worker() {
    workers_.emplace_back([this] { work(); });
  }

  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      ++idle_;
      changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
      --idle_;
      if (stopping_) return;
      job next = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      answer(*next.with, std::move(next.request));
      lock.lock();
      back_.push_back(std::move(next.with));
      lock.unlock();
      waker_->wake();
    }
  }

  void answer(connection& with, http::request asked) {
    exchange of(with, std::move(asked), options_, stopping_);
    try {
      answers_(of);
    } catch (const std::exception&) {  // of memory, perhaps; the handler knows its own
      of.reply = response{.status = 500};
    }
    if (of.has_gathered_body()) of.read_body([](std::string_view) { return true; });
    if (logs_) logs_(of.request, of.reply.status);
    if (of.open && of.reply.status == 200) return begin_stream(with, of);
    const byte_range part = part_of(of);
    with.keeps_open = of.request.keeps_connection && of.is_read() && !stopping_;
    with.out = head_of(of.reply, part.count, with.keeps_open);
    const bool wants_body = of.request.method != "HEAD";
    if (wants_body && !of.reply.source) with.out += of.reply.body;
    begin_reply(with);
    if (!wants_body || !of.reply.source || send_source(with, of, part)) return;
    with.phase = phase::linger;
    with.deadline = {};  // it is over
  }

  void begin_stream(connection& with, exchange& of) const {
    with.out = head_of(of.reply, std::nullopt, false);
    with.phase = phase::stream;
    with.source = std::make_shared<outlet>(waker_, options_.stream_bytes_max);
    of.open(with.source);
  }

  // Which bytes of its body a reply has: all, or the part of a file that is asked for.
  static byte_range part_of(exchange& of) {
    response& reply = of.reply;
    const byte_range all{0, reply.source ? *reply.source_bytes : reply.body.size()};
    const std::string version = of.request.field("if-range");
    if (!reply.seekable || reply.status != 200 || (!version.empty() && version != reply.etag))
      return all;
    const auto wanted = range_of(of.request.field("range"), all.count);
    if (!wanted) return all;
    const std::string size = std::to_string(all.count);
    reply.status = wanted->count > 0 ? 206 : 416;
    reply.set("Content-Range", wanted->count == 0
                                   ? "bytes */" + size
                                   : "bytes " + std::to_string(wanted->first) + '-' +
                                         std::to_string(wanted->first + wanted->count - 1) + '/' +
                                         size);
    return *wanted;
  }

  bool send_source(connection& with, exchange& of, const byte_range& part) const {
    constexpr std::size_t piece_bytes_max = std::size_t{256} * 1024;
    const pace limit(options_);
    if (!of.send(std::exchange(with.out, {}), limit.deadline(0))) return false;
    std::string piece;
    for (std::uint64_t sent = 0; sent < part.count; sent += piece.size()) {
      const auto most = std::min<std::uint64_t>(part.count - sent, piece_bytes_max);
      if (!of.reply.source(part.first + sent, static_cast<std::size_t>(most), piece)) return false;
      if (piece.empty() || !of.send(piece, limit.deadline(sent))) return false;
    }
    return true;
  }

  void join() {
    for (std::thread& each : workers_) each.join();
    workers_.clear();
  }

  server_options options_;
  handler answers_;
  logger logs_;
  std::shared_ptr<const waker> waker_ = std::make_shared<const waker>();
  socket_handle listener_;
  steady_clock::time_point accepts_again_ = {};
  places waiting_;
  std::size_t open_ = 0;  // with those that workers have
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> workers_;
  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::deque<job> jobs_;
  places back_;
  std::size_t idle_ = 0;
};

}  // namespace local_hub::http
