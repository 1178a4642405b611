// SPDX-License-Identifier: MIT
//
// The HUB's calls over HTTP and HTTPS. Takes requests apart, streams uploads to disk, and leaves every
// decision to model_store. What is no call of HUB's is for the page (page_server.hpp).
//
// Whether a request is refused is known from its head, and a body is read only where it is not: so
// nobody without a key makes this HUB take in more than http::server gathers.

#pragma once

#include "addresses.hpp"
#include "http/server.hpp"
#include "hub_session.hpp"
#include "page_server.hpp"
#include "runs.hpp"
#include "store.hpp"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
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
  address_options reached_at = {};
};

// The curves of 1,200 classes are ten of these millions.
inline constexpr std::size_t json_bytes_max = std::size_t{32} * 1024 * 1024;
inline constexpr std::size_t form_field_bytes_max = 1024;
inline constexpr std::size_t form_parts_max = 16;
inline constexpr std::uint64_t framing_bytes_max = std::uint64_t{64} * 1024;  // of a form, in all

// ---- an upload ----------------------------------------------------------------------------------

// Takes a multipart form as it comes in: fields into memory, the file to disk, whatever its size.
class upload_form {
 public:
  upload_form(const model_store& store, std::string model_id, std::uint64_t bytes_max)
      : store_(store), model_id_(std::move(model_id)), bytes_max_(bytes_max) {}

  // Both return false where the rest need not be read, and problem() says why.
  bool begin_part(const http::part_head& head) {
    if (parts_.size() == form_parts_max) return fail(400, "the form has too many parts");
    parts_.push_back({head.name, head.file_name});
    if (head.file_name.empty()) return true;
    if (file_) return fail(400, "the form has more than one file");
    return on_disk([&] { file_ = store_.new_upload(model_id_); });
  }

  bool add(std::string_view bytes) {
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
  hub_server(model_store& store, run_store& runs, key_ring& keys, const server_options& options)
      : store_(store),
        runs_(runs),
        upload_bytes_max_(options.upload_bytes_max),
        addresses_(options.reached_at, !options.certificate_file.empty()),
        gate_(keys),
        page_(store, runs, keys, gate_, options.page_needs_key),
        http_(
            options_of(options), [this](http::exchange& with) { answer(with); },
            options.log_requests ? log : http::server::logger()) {}

  // Returns the port, from where on connections are accepted; they are served by serve().
  int bind(const std::string& host, int port) {
    const int bound = http_.bind(host, port);
    page_.set_port(bound);
    return bound;
  }

  // Blocks until stop(), then until the requests in flight are answered.
  void serve() { http_.run(); }

  // From any thread. Uploads in flight are given up: their sender will try again.
  void stop() { http_.stop(); }

 private:
  struct shown_key {
    std::string key;
    key_check check;
  };

  static http::server_options options_of(const server_options& options) {
    http::server_options out;
    if (!options.certificate_file.empty())
      out.tls.emplace(options.certificate_file, options.key_file);
    return out;
  }

  // Without the query, which may hold a signature, and without any header.
  static void log(const http::request& what, int status) {
    const std::string asked =
        what.method.empty() ? "-" : what.method + ' ' + std::string(what.path());
    narrator::instance().write(to_text(std::chrono::system_clock::now()) + ' ' +
                               what.remote_address + ' ' + hub::text::printable(asked) + ' ' +
                               std::to_string(status));
  }

  void answer(http::exchange& with) {
    if (const auto elsewhere = addresses_.settle(with.request))
      return reply(with.reply, *elsewhere);
    const http::request& from = with.request;
    if (from.reads_only() && model_store::is_download(from.target))
      return answer_download(with.reply, store_.open_download(from.target));
    if (from.reads_only() && run_store::is_dataset(from.target))
      return answer_download(with.reply, runs_.open_dataset(from.target));
    if (from.method == "PUT" && run_store::is_upload(from.target)) return answer_put(with);
    const bool is_platform = run_store::is_call(from.method, from.target);
    if (!is_platform && !from.target.starts_with("/v1/")) return page_.answer(with);
    const shown_key shown = key_of(from);
    server_request what;
    what.method = from.method;
    what.path = from.target;
    what.root = from.root;
    is_platform ? answer_platform(with, std::move(what), shown)
                : answer_v1(with, std::move(what), shown);
  }

  void answer_v1(http::exchange& with, server_request what, const shown_key& shown) {
    const http::request& from = with.request;
    what.api_key = shown.key;
    const auto call = hub_logic::route(what.method, what.path);
    auto refused = store_.refusal_of_head(what, shown.check);
    if (!refused && call->first == endpoint::auth)
      return reply(with.reply, store_.handle(what));  // which needs no body
    const bool uploads = !refused && call->first == endpoint::upload;
    if (uploads) refused = no_place_for(from.content_length);
    if (refused) return refuse(with.reply, what, *refused);
    if (uploads) return answer_upload(with, std::move(what), call->second);
    if (const auto problem = read_json(with, what.body)) return refuse(with.reply, what, *problem);
    reply(with.reply, store_.handle(what));
  }

  void answer_platform(http::exchange& with, server_request what, const shown_key& shown) {
    if (!shown.key.empty()) what.authorization = "Bearer " + shown.key;
    auto refused = runs_.refusal_of_head(what, shown.check);
    if (!refused) refused = read_json(with, what.body);
    const server_reply answer = refused ? *refused : runs_.handle(what);
    if (answer.status >= 400) store_.note_refusal(what, answer);
    reply(with.reply, answer);
  }

  // A file that a run's client puts where it was told to.
  void answer_put(http::exchange& with) {
    const auto place = runs_.place_of(with.request.target);
    auto refused = place ? no_place_for(with.request.content_length)
                         : refusal(403, "this URL is not valid, or not any more");
    if (refused) return reply(with.reply, *refused);
    upload_form file(store_, run_store::model_of(*place), upload_bytes_max_);
    file.begin_part({"file", "file"});
    const bool whole =
        !file.problem() && with.read_body([&](std::string_view bytes) { return file.add(bytes); });
    if (!whole) return reply(with.reply, file.problem().value_or(broken_off()));
    reply(with.reply, runs_.take_file(*place, file.take_parts().back(), *file.file()));
  }

  std::optional<server_reply> no_place_for(std::uint64_t bytes) const {
    if (bytes > upload_bytes_max_ + framing_bytes_max)
      return refusal(413, "the file is larger than this HUB takes");
    return store_.no_room_for(bytes);
  }

  // A gate in front may have a login of its own in Authorization, which hides no key.
  shown_key key_of(const http::request& from) {
    constexpr std::string_view bearer = "Bearer ";
    shown_key plain{from.field("x-api-key"), {}};
    plain.check = gate_.check(plain.key, from.remote_address);
    const std::string authorization = from.field("authorization");
    if (plain.check.who || !authorization.starts_with(bearer)) return plain;
    shown_key borne{authorization.substr(bearer.size()), {}};
    borne.check = gate_.check(borne.key, from.remote_address);
    return borne.check.who || plain.key.empty() ? borne : plain;
  }

  static void answer_download(http::response& to, std::optional<download> file) {
    if (!file) return reply(to, refusal(403, "this URL is not valid, or not any more"));
    to.etag = file->etag;
    to.set_source("application/octet-stream", file->size_bytes, source_of(std::move(file->bytes)),
                  true);
  }

  // Calls of trainings have small bodies, the checkpoints aside. Returns what is wrong with one.
  static std::optional<server_reply> read_json(http::exchange& with, std::string& body) {
    bool too_long = false;
    const bool whole = with.read_body([&](std::string_view bytes) {
      too_long = body.size() + bytes.size() > json_bytes_max;
      if (!too_long) body += bytes;
      return !too_long;
    });
    if (whole) return std::nullopt;
    return too_long ? refusal(413, "the body is too long") : broken_off();
  }

  void answer_upload(http::exchange& with, server_request what, const std::string& model_id) {
    const auto boundary = http::boundary_of(with.request.field("content-type"));
    if (!boundary)
      return refuse(with.reply, what, refusal(400, "an upload has to be multipart/form-data"));
    upload_form form(store_, model_id, upload_bytes_max_);
    http::form_reader parts(
        *boundary, [&](const http::part_head& part) { return form.begin_part(part); },
        [&](std::string_view bytes) { return form.add(bytes); });
    const bool read = with.read_body([&](std::string_view bytes) { return parts.take(bytes); });
    if (!read || !parts.done())
      return refuse(with.reply, what, form.problem().value_or(broken_off()));
    what.form = form.take_parts();
    reply(with.reply, store_.handle(what, form.file()));
  }

  // No fault of the content, as far as can be seen: the client is to try again.
  static server_reply broken_off() { return refusal(408, "the request broke off or is garbled"); }

  static void reply(http::response& to, const server_reply& what) {
    to.status = what.status;
    to.set_body("application/json", what.body);
    if (!what.retry_after.empty()) to.set("Retry-After", what.retry_after);
    if (!what.location.empty()) to.set("Location", what.location);
  }

  void refuse(http::response& to, const server_request& what, const server_reply& why) {
    store_.note_refusal(what, why);
    reply(to, why);
  }

  model_store& store_;
  run_store& runs_;
  std::uint64_t upload_bytes_max_;
  addresses addresses_;
  gate gate_;
  page_server page_;
  http::server http_;
};

}  // namespace local_hub
