// SPDX-License-Identifier: MIT
//
// The HUB's calls over HTTP and HTTPS, on cpp-httplib's server: 0.11.4 as Debian splits it, or
// upstream's single header. Takes requests apart, streams uploads to disk, and leaves every
// decision to model_store. What is no call of HUB's is for the page (page_server.hpp).
//
// httplib gives each connection a thread for as long as it lasts, idle or not. So there are many
// threads, which cost little while they wait, and connections that are idle are closed soon.

#pragma once

#include "hub_session.hpp"  // includes httplib.h the way that it has to be
#include "page_server.hpp"
#include "store.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace local_hub {

struct server_options {
  std::string certificate_file = {};  // PEM; with key_file, else plain HTTP
  std::string key_file = {};
  std::uint64_t upload_bytes_max = 0;
  bool page_needs_key = true;
  bool log_requests = true;
};

inline constexpr std::size_t json_bytes_max = std::size_t{4} * 1024 * 1024;
inline constexpr std::size_t page_body_bytes_max = std::size_t{64} * 1024;
inline constexpr std::size_t form_field_bytes_max = 1024;
inline constexpr std::size_t form_parts_max = 16;
inline constexpr std::size_t connections_max = 1200;  // served at once; others wait for their turn
inline constexpr std::chrono::seconds idle_max{5};    // between two requests on one connection
inline constexpr std::chrono::seconds stall_max{30};  // within a request or a reply

// ---- an upload ----------------------------------------------------------------------------------

// Takes a multipart form as it comes in: fields into memory, the file to disk, whatever its size.
class upload_form {
 public:
  upload_form(const model_store& store, std::string model_id, std::uint64_t bytes_max)
      : store_(store), model_id_(std::move(model_id)), bytes_max_(bytes_max) {}

  // Both return false where the rest need not be read, and problem() says why.
  bool begin_part(const std::string& name, const std::string& file_name) {
    if (parts_.size() == form_parts_max) return fail(400, "the form has too many parts");
    parts_.push_back({name, file_name});
    if (file_name.empty()) return true;
    if (file_) return fail(400, "the form has more than one file");
    return on_disk([&] { file_ = store_.new_upload(model_id_); });
  }

  bool add(std::string_view bytes) {
    if (parts_.empty()) return fail(400, "an upload has to be multipart/form-data");
    hub::testing::form_part& part = parts_.back();
    const bool is_file = !part.file_name.empty();
    part.size_bytes += bytes.size();
    if (part.size_bytes > (is_file ? bytes_max_ : form_field_bytes_max))
      return fail(413, is_file ? "the file is larger than this HUB takes"
                               : "a field of the form is too long");
    if (!is_file) {
      part.content += bytes;
      return true;
    }
    hash_.add(bytes);
    if (part.size_bytes >= next_look_ && !look_for_room(part.size_bytes)) return false;
    return on_disk([&] { file_->write(bytes); });
  }

  const std::optional<server_reply>& problem() const { return problem_; }
  std::vector<hub::testing::form_part> take_parts() {
    if (file_) parts_.back().sha256 = hash_.hexadecimal();  // no call takes a file that is not last
    return std::move(parts_);
  }
  unfinished_file* file() { return file_.get(); }

 private:
  // Other uploads take their room meanwhile.
  bool look_for_room(std::uint64_t received) {
    constexpr std::uint64_t step = std::uint64_t{16} * 1024 * 1024;
    next_look_ = received + step;
    problem_ = store_.no_room_for(0);
    return !problem_;
  }

  bool fail(int status, std::string_view why) {
    problem_ = refusal(status, why);
    return false;
  }

  template <class Work>
  bool on_disk(Work work) {
    try {
      work();
      return true;
    } catch (const std::exception& problem) {
      problem_ = model_store::reply_to(problem);
      return false;
    }
  }

  const model_store& store_;
  std::string model_id_;
  std::uint64_t bytes_max_;
  std::vector<hub::testing::form_part> parts_;
  std::unique_ptr<unfinished_file> file_;
  sha256 hash_;
  std::uint64_t next_look_ = 0;
  std::optional<server_reply> problem_;
};

// ---- the server ---------------------------------------------------------------------------------

class hub_server {
 public:
  hub_server(model_store& store, key_ring& keys, server_options options)
      : store_(store),
        options_(std::move(options)),
        page_(store, keys, options_.page_needs_key, !options_.certificate_file.empty()),
        http_(make_server(options_)) {
    if (!http_->is_valid())
      throw std::runtime_error("cannot use the certificate " + options_.certificate_file +
                               " with the key " + options_.key_file);
    set_limits();
    set_handlers();
  }

  // Returns the port, from where on connections are accepted; they are served by serve().
  int bind(const std::string& host, int port) {
    int bound = port;
    if (port == 0)
      bound = http_->bind_to_any_port(host);
    else if (!http_->bind_to_port(host, port))
      bound = -1;
    page_.set_port(bound);
    if (bound > 0) return bound;
    throw std::runtime_error("cannot listen on " + host + ":" + std::to_string(port) +
                             "; is another program there, or is it no address of this machine?");
  }

  // Blocks until stop(), then until the requests in flight are answered.
  void serve() { http_->listen_after_bind(); }
  bool is_serving() const { return http_->is_running(); }

  // Only while is_serving(). Uploads in flight are given up: their sender will try again.
  void stop() {
    stopping_ = true;
    page_.stop();
    http_->stop();
  }

 private:
  using request = httplib::Request;
  using response = httplib::Response;
  using content_reader = httplib::ContentReader;

  static std::unique_ptr<httplib::Server> make_server(const server_options& options) {
    if (options.certificate_file.empty()) return std::make_unique<httplib::Server>();
    auto server = std::make_unique<httplib::SSLServer>(options.certificate_file.c_str(),
                                                       options.key_file.c_str());
    require_tls_1_2(*server);
    return server;
  }

  // Newer versions of httplib ask for TLS 1.2 themselves, and name the context otherwise.
  template <class Server>
  static void require_tls_1_2(Server& server) {
    if constexpr (requires { server.ssl_context(); })
      if (server.ssl_context()) SSL_CTX_set_min_proto_version(server.ssl_context(), TLS1_2_VERSION);
  }

  void set_limits() {
    constexpr std::size_t framing_bytes_max = std::size_t{64} * 1024;
    http_->set_payload_max_length(static_cast<std::size_t>(options_.upload_bytes_max) +
                                  framing_bytes_max);
    http_->set_read_timeout(stall_max);
    http_->set_write_timeout(stall_max);
    http_->set_keep_alive_timeout(idle_max.count());
    http_->set_keep_alive_max_count(1000);  // a TLS handshake is dear
    http_->set_tcp_nodelay(true);
    http_->new_task_queue = [] { return new httplib::ThreadPool(connections_max); };
    // By default, httplib lets a second server listen on the same port, and each gets some of the
    // connections.
    http_->set_socket_options([](socket_t socket) {
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, reinterpret_cast<const char*>(&yes),
                   sizeof yes);
    });
  }

  void set_handlers() {
    // One handler for everything: hub_logic knows the calls. The pattern has to match any path, as
    // httplib reads the body of a request without a handler into memory.
    constexpr const char* any_path = R"([\s\S]*)";
    const auto with_body = [this](const request& from, response& to, const content_reader& body) {
      answer(from, to, &body);
    };
    http_->Get(any_path, [this](const request& from, response& to) { answer(from, to, nullptr); });
    http_->Post(any_path, with_body);
    http_->Put(any_path, with_body);
    http_->Patch(any_path, with_body);
    http_->Delete(any_path, with_body);
    // What httplib itself refuses gets a body that clients can read.
    http_->set_error_handler([](const request&, response& to) {
      if (!to.has_header("Content-Type"))
        reply(to, refusal(to.status, "the request cannot be read, or is not for a HUB"));
    });
    if (options_.log_requests) http_->set_logger(log);
  }

  // Without the query, which may hold a signature, and without any header.
  static void log(const request& from, const response& to) {
    const std::string_view target(from.target);
    std::fprintf(stderr, "%s %s %s %s %d\n", to_text(std::chrono::system_clock::now()).c_str(),
                 from.remote_addr.c_str(), hub::text::printable(from.method).c_str(),
                 hub::text::printable(target.substr(0, target.find('?'))).c_str(), to.status);
  }

  void answer(const request& from, response& to, const content_reader* body) {
    server_request what;
    what.method = from.method;
    what.path = from.target;
    what.api_key = key_of(from);
    what.root = root_for(from);
    if (!body && model_store::is_download(what.path)) return answer_download(from, to);
    const auto call = hub_logic::route(what.method, what.path);
    if (!what.path.starts_with("/v1/"))
      answer_page(from, to, body);
    else if (!body)
      reply(to, store_.handle(what));
    else if (call && call->first == endpoint::upload)
      answer_upload(from, to, *body, std::move(what), call->second);
    else
      answer_json(from, to, *body, std::move(what));
  }

  // A gate in front may have a login of its own in Authorization, which hides no key.
  std::string key_of(const request& from) const {
    constexpr std::string_view bearer = "Bearer ";
    const std::string key = from.get_header_value("x-api-key");
    const std::string authorization = from.get_header_value("authorization");
    if (!authorization.starts_with(bearer) || store_.accepts(key)) return key;
    return authorization.substr(bearer.size());
  }

  // How the client reaches this HUB, where it says so in a way that makes a URL.
  std::string root_for(const request& from) const {
    const std::string scheme = options_.certificate_file.empty() ? "http://" : "https://";
    const auto root = hub::text::parse_url(scheme + from.get_header_value("Host"));
    return root && root->path.empty() ? root->text() : std::string();
  }

  // The range, if any, is httplib's to serve, which in 0.11.4 trusts that there is one, and only
  // of a file: a refusal must not look like one.
  void answer_download(const request& from, response& to) {
    const auto file = store_.open_download(from.target);
    if (!file) return refuse_download(to, 403, "this URL is not valid, or not any more");
    if (!serves(from, *file)) return refuse_download(to, 416, "there is no such part of the file");
    to.set_header("ETag", file->etag);
    to.set_content_provider(
        static_cast<std::size_t>(file->size_bytes), "application/octet-stream",
        [bytes = file->bytes](std::size_t offset, std::size_t length, httplib::DataSink& sink) {
          std::string piece(std::min(length, std::size_t{1024} * 1024), '\0');
          bytes->seekg(static_cast<std::streamoff>(offset));
          return bytes->read(piece.data(), static_cast<std::streamsize>(piece.size())) &&
                 sink.write(piece.data(), piece.size());
        });
  }

  // The whole, or one range of the version that the URL names.
  static bool serves(const request& from, const download& file) {
    if (from.ranges.empty()) return true;
    const std::string version = from.get_header_value("If-Range");
    const auto [first, last] = from.ranges.front();
    const auto size = static_cast<std::int64_t>(file.size_bytes);
    return from.ranges.size() == 1 && (version.empty() || version == file.etag) && first >= 0 &&
           first < size && last < size;
  }

  static void refuse_download(response& to, int status, std::string_view why) {
    to.status = status;
    to.set_chunked_content_provider("application/json", [text = refusal(status, why).body](
                                                            std::size_t, httplib::DataSink& sink) {
      sink.write(text.data(), text.size());
      sink.done();
      return true;
    });
  }

  void answer_json(const request& from, response& to, const content_reader& body,
                   server_request what) {
    bool too_long = false;
    const bool whole = read(from, body, [&](std::string_view bytes) {
      too_long = what.body.size() + bytes.size() > json_bytes_max;
      if (!too_long) what.body += bytes;
      return !too_long;
    });
    if (whole) return reply(to, store_.handle(what));
    refuse_and_close(to, what, too_long ? refusal(413, "the body is too long") : broken_off());
  }

  void answer_page(const request& from, response& to, const content_reader* body) {
    std::string text;
    const bool whole = !body || read(from, *body, [&](std::string_view bytes) {
      if (text.size() + bytes.size() > page_body_bytes_max) return false;
      text += bytes;
      return true;
    });
    if (whole) return page_.answer(from, to, text);
    reply_and_close(to, refusal(413, "the body is too long"));
  }

  void answer_upload(const request& from, response& to, const content_reader& body,
                     server_request what, const std::string& model_id) {
    auto refused = store_.refusal_of_head(what);
    if (!refused) refused = store_.no_room_for(announced_bytes(from));
    if (refused) {
      store_.note_refusal(what, *refused);
      // The client looks for the reply when all is sent, so what it sends has to go somewhere.
      const bool whole = read(from, body, [](std::string_view) { return true; });
      return whole ? reply(to, *refused) : reply_and_close(to, *refused);
    }
    upload_form form(store_, model_id, options_.upload_bytes_max);
    const bool whole = read(
        from, body, [&](std::string_view bytes) { return form.add(bytes); },
        [&](const auto& part) { return form.begin_part(part.name, part.filename); });
    if (!whole) return refuse_and_close(to, what, form.problem().value_or(broken_off()));
    what.form = form.take_parts();
    reply(to, store_.handle(what, form.file()));
  }

  // Reads the body piece by piece, and of a form only what is in its parts. False where it was not
  // read to its end. A part's head is an object of another type in each version of httplib.
  template <class Add>
  bool read(const request& from, const content_reader& body, Add add) const {
    return read(from, body, add, [](const auto&) { return true; });
  }
  template <class Add, class BeginPart>
  bool read(const request& from, const content_reader& body, Add add, BeginPart begin_part) const {
    // httplib 0.11.4 would wait for a body until the connection ends.
    if (!from.has_header("Content-Length") && !from.has_header("Transfer-Encoding")) return true;
    const auto take = [&](const char* bytes, std::size_t count) {
      return !stopping_ && add(std::string_view(bytes, count));
    };
    return from.is_multipart_form_data() ? body(begin_part, take) : body(take);
  }

  static std::uint64_t announced_bytes(const request& from) {
    const std::string text = from.get_header_value("Content-Length");
    std::uint64_t bytes = 0;
    std::from_chars(text.data(), text.data() + text.size(), bytes);
    return bytes;
  }

  // No fault of the content, as far as can be seen: the client is to try again.
  static server_reply broken_off() { return refusal(408, "the request broke off or is garbled"); }

  static void reply(response& to, const server_reply& what) {
    to.status = what.status;
    to.set_content(what.body, "application/json");
    if (!what.retry_after.empty()) to.set_header("Retry-After", what.retry_after);
  }

  void refuse_and_close(response& to, const server_request& what, const server_reply& why) {
    store_.note_refusal(what, why);
    reply_and_close(to, why);
  }

  // For a request that was not read to its end, whose rest must not be taken for the next one.
  // httplib closes a connection where the content of a reply ends with an error.
  static void reply_and_close(response& to, const server_reply& what) {
    to.status = what.status;
    to.set_header("Connection", "close");
    to.set_content_provider(what.body.size(), "application/json",
                            [text = what.body](std::size_t, std::size_t, httplib::DataSink& sink) {
                              sink.write(text.data(), text.size());
                              return false;
                            });
  }

  model_store& store_;
  server_options options_;
  page_server page_;
  std::unique_ptr<httplib::Server> http_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace local_hub
