// SPDX-License-Identifier: MIT
//
// The page and what it asks for, /api/...: models to look at, to make, to rename, to reset, to delete
// and to take away. What trainings send comes in elsewhere (server.hpp).
//
// Who may: on a loopback address the page asks for no key, so two things are watched instead. The
// Host header has to name this machine, or a page elsewhere could have its own name resolved to
// 127.0.0.1 and read everything (DNS rebinding). And whatever changes something is refused where the
// Origin header names another page (CSRF). Anywhere else the page asks for a key once and gets a
// cookie for it, which ends with the key.
//
// No reply may be framed, sniffed or kept by a cache, and the page's own scripts and styles are the
// only ones that run (Content-Security-Policy).

#pragma once

#include "http/server.hpp"
#include "hub_session.hpp"
#include "keys.hpp"
#include "page.hpp"
#include "runs.hpp"
#include "store.hpp"
#include "views.hpp"
#include "zip.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace local_hub {

// ---- a list that is always up to date -----------------------------------------------------------

// The rows of the list of models, each with its best metric and its times, which are looked for again
// only when its model has changed.
class model_rows {
 public:
  explicit model_rows(const model_store& store) : store_(store) {}

  json all() {
    const std::lock_guard lock(mutex_);
    return store_.look([&](const auto& models) {
      json rows = json::array();
      std::map<std::string, found> known;
      for (const auto& [id, model] : models) {
        const std::uint64_t version = store_.version_of(id);
        const auto before = known_.find(id);
        known[id] = before != known_.end() && before->second.version == version
                        ? std::move(before->second)
                        : look_for(id, model, version);
        json row =
            row_of(model, store_.run_of(id), std::chrono::steady_clock::now(), store_.silence());
        row.update(known[id].members);
        rows.push_back(std::move(row));
      }
      known_ = std::move(known);
      return rows;
    });
  }

 private:
  struct found {
    std::uint64_t version = 0;
    json members = {};
  };

  found look_for(const std::string& id, const hub_model& model, std::uint64_t version) const {
    json members = times_of(model, store_.arrivals_of(id), store_.silence());
    members.update(to_json(store_.labels_of(id)));
    members["best"] = best_of(model);
    members["version"] = version;
    if (const run_facts* run = store_.run_of(id)) members["run"] = to_json(*run);
    return {version, std::move(members)};
  }

  const model_store& store_;
  std::mutex mutex_;
  std::map<std::string, found> known_;
};

// Server-sent events for every page that is open: all rows at first, then those that changed, and the
// time once a second, so that a reader notices when nothing comes any more. One thread tells all of
// them the same.
class event_feed {
 public:
  static constexpr std::size_t readers_max = 200;
  static constexpr std::chrono::milliseconds pace{200};  // at most so often, whatever arrives

  event_feed(const model_store& store, model_rows& list)
      : store_(store), rows_(list), thread_([this] { run(); }) {}
  event_feed(const event_feed&) = delete;
  event_feed& operator=(const event_feed&) = delete;
  ~event_feed() {
    stopping_ = true;
    thread_.join();
  }

  bool is_full() const {
    const std::lock_guard lock(mutex_);
    return readers_.size() >= readers_max;
  }

  // Until the reader goes, or may_read() is false.
  void add(std::shared_ptr<http::outlet> to, std::function<bool()> may_read) {
    const std::lock_guard lock(mutex_);
    // What changed since the others were told reaches this one twice, which changes nothing.
    to->send(difference({}, rows_now()) + event("ready", "{}") + time());
    readers_.push_back({std::move(to), std::move(may_read)});
  }

 private:
  struct reader {
    std::shared_ptr<http::outlet> to;
    std::function<bool()> may_read;
  };

  void run() {
    std::uint64_t told = 0;
    for (auto next_time = std::chrono::steady_clock::now(); !stopping_;) {
      std::this_thread::sleep_for(pace);
      const std::uint64_t version = store_.version();
      if (version == told && std::chrono::steady_clock::now() < next_time) continue;
      told = version;
      next_time = std::chrono::steady_clock::now() + std::chrono::seconds(1) - pace;
      tell_all();
    }
  }

  void tell_all() {
    const std::lock_guard lock(mutex_);
    if (readers_.empty()) return;
    rows now = rows_now();
    const std::string news = difference(told_, now) + time();
    std::erase_if(readers_, [&](const reader& each) {
      const bool stays = each.may_read() && each.to->send(news);
      if (!stays) each.to->close();
      return !stays;
    });
    told_ = std::move(now);
  }

  using rows = std::map<std::string, std::string>;

  rows rows_now() const {
    rows now;
    for (const json& row : rows_.all()) now[row["id"]] = to_text(row);
    return now;
  }

  static std::string time() {
    return event("time", std::to_string(seconds_of(std::chrono::system_clock::now())));
  }

  static std::string event(const char* name, const std::string& data) {
    return "event: " + std::string(name) + "\ndata: " + data + "\n\n";
  }

  static std::string difference(const rows& before, const rows& now) {
    std::string out;
    for (const auto& [id, row] : now)
      if (const auto was = before.find(id); was == before.end() || was->second != row)
        out += event("row", row);
    for (const auto& [id, row] : before)
      if (!now.contains(id)) out += event("gone", to_text(json(id)));
    return out;
  }

  const model_store& store_;
  model_rows& rows_;
  mutable std::mutex mutex_;
  std::vector<reader> readers_;
  rows told_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

// ---- who is there -------------------------------------------------------------------------------

// Who has shown a key, by the text in their cookie. It is forgotten when the process ends.
class sign_ins {
 public:
  static constexpr std::size_t count_max = 1000;

  std::string add(std::string key_digest) {
    const std::lock_guard lock(mutex_);
    if (all_.size() >= count_max) all_.clear();
    std::string text = random_text(32);
    all_[text] = std::move(key_digest);
    return text;
  }
  void remove(const std::string& text) {
    const std::lock_guard lock(mutex_);
    all_.erase(text);
  }
  // The digest of the key that was shown; "" for nobody.
  std::string key_digest(const std::string& text) const {
    const std::lock_guard lock(mutex_);
    const auto found = all_.find(text);
    return found == all_.end() ? "" : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::string> all_;
};

// ---- the page -----------------------------------------------------------------------------------

class page_server {
 public:
  static constexpr std::size_t body_bytes_max = std::size_t{64} * 1024;

  using request = http::request;
  using response = http::response;

  page_server(model_store& store, run_store& runs, key_ring& keys, gate& gate, bool needs_key)
      : store_(store),
        runs_(runs),
        keys_(keys),
        gate_(gate),
        needs_key_(needs_key),
        rows_(store),
        feed_(store, rows_) {}

  // Cookies are shared between the ports of a host, so each port has its own name.
  void set_port(int port) { cookie_ = "local_hub_" + std::to_string(port); }

  void answer(http::exchange& with) {
    const request& from = with.request;
    response& to = with.reply;
    const std::string path(from.path());
    const std::vector<std::string> words = words_of(path);
    if (const auto refused = not_allowed(from)) return send(to, *refused);
    if (words.empty() || words[0] != "api") return send_page(from, to, path, words);
    const bool open = is_open(words);
    if (needs_key_ && !open && !is_signed_in(from))
      return send(to, refusal(401, "a key is needed"));
    if (words == std::vector<std::string>{"api", "events"} && from.method == "GET")
      return stream_events(with);
    // Who has not shown a key cannot keep a thread waiting for the rest.
    std::string body;
    if ((needs_key_ && open && !with.has_gathered_body()) || !read(with, body))
      return send(to, refusal(413, "the body is too long, or does not come"));
    try {
      answer_api(from, to, {words.begin() + 1, words.end()}, body);
    } catch (const std::exception& problem) {
      send(to, model_store::reply_to(problem));
    }
  }

 private:
  // "/api/models/x" -> api, models, x
  static std::vector<std::string> words_of(std::string_view path) {
    std::vector<std::string> words;
    while (!path.empty()) {
      path.remove_prefix(1);
      const std::size_t end = std::min(path.find('/'), path.size());
      if (end > 0 || end < path.size()) words.emplace_back(path.substr(0, end));
      path.remove_prefix(end);
    }
    return words;
  }

  static bool read(http::exchange& with, std::string& body) {
    return with.read_body([&](std::string_view bytes) {
      body += bytes;
      return body.size() <= body_bytes_max;
    });
  }

  // ---- who may ----

  // The host of "host:port", "[::1]:port" or "host".
  static std::string_view host_of(std::string_view authority) {
    if (authority.starts_with('[')) return authority.substr(0, authority.find(']') + 1);
    return authority.substr(0, authority.find(':'));
  }

  std::optional<server_reply> not_allowed(const request& from) const {
    const std::string authority = from.field("host");
    const std::string_view host = host_of(authority);
    if (!needs_key_ && host != "127.0.0.1" && host != "localhost" && host != "[::1]")
      return refusal(403,
                     "this page is for its own machine: open it as 127.0.0.1 or localhost, or "
                     "start local_hub with --public-url where a proxy brings others here");
    if (!from.reads_only() && is_from_elsewhere(from))
      return refusal(403,
                     "another page asked for this; if it is this one behind a proxy, local_hub "
                     "needs --public-url or --trusted-proxy");
    return std::nullopt;
  }

  // The page's own files, and how to come in.
  static bool is_open(const std::vector<std::string>& words) {
    return words.empty() || words[0] != "api" ||
           (words.size() == 2 && (words[1] == "status" || words[1] == "sign-in"));
  }

  // Browsers say which page asks, and other programs, which nobody can talk into asking, do not.
  static bool is_from_elsewhere(const request& from) {
    const std::string origin = from.field("origin");
    const std::string site = from.field("sec-fetch-site");
    const std::string host = from.field("host");
    const auto root = hub::text::parse_url(from.root);  // a proxy may have changed the host
    if (!origin.empty())
      return origin != "http://" + host && origin != "https://" + host &&
             !(root && origin == root->origin());
    return !site.empty() && site != "same-origin" && site != "none";
  }

  std::string cookie_of(const request& from) const {
    const std::string all = "; " + from.field("cookie");
    const std::string lead = "; " + cookie_ + '=';
    const std::size_t at = all.find(lead);
    if (at == std::string::npos) return "";
    return all.substr(at + lead.size(), all.find(';', at + lead.size()) - at - lead.size());
  }

  // What may see all and change all; a key of one model may not.
  static bool is_for_all(const std::optional<key_record>& key) { return key && key->model.empty(); }

  bool is_signed_in(const request& from) {
    const key_check shown = gate_.check(from.field("x-api-key"), from.remote_address);
    return is_for_all(shown.who) || has_cookie(from);
  }
  bool has_cookie(const request& from) {
    const std::string digest = signed_in_.key_digest(cookie_of(from));
    return !digest.empty() && is_for_all(keys_.find(digest));
  }

  void sign_in(const request& from, const std::string& body, response& to) {
    const auto said = hub::text::parse_json(body);
    const std::string key = said ? hub::text::get_string(*said, "key") : "";
    const key_check shown = gate_.check(key, from.remote_address);
    if (shown.is_slowed) return send(to, model_store::slowed());
    if (!shown.who) return send(to, refusal(401, "this HUB does not know the key"));
    if (!is_for_all(shown.who)) return send(to, refusal(403, "this key is for one model alone"));
    // Without a Path it goes where this came from, to api/ and below, wherever proxies have that.
    to.set("Set-Cookie", cookie_ + '=' + signed_in_.add(key_ring::digest(key)) +
                             "; HttpOnly; SameSite=Strict; Max-Age=2592000" +
                             (from.root.starts_with("https:") ? "; Secure" : ""));
    send(to, server_reply());
  }

  // ---- replies ----

  static void set_headers(response& to, const char* caching = "no-store") {
    to.set("Content-Security-Policy",
           "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
           "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'");
    to.set("X-Content-Type-Options", "nosniff");
    to.set("X-Frame-Options", "DENY");
    to.set("Referrer-Policy", "no-referrer");
    to.set("Cross-Origin-Resource-Policy", "same-origin");
    to.set("Cache-Control", caching);
  }

  static void send(response& to, int status, const char* type, std::string text) {
    set_headers(to);
    to.status = status;
    to.set_body(type, std::move(text));
  }
  static void send(response& to, const server_reply& what) {
    send(to, what.status, "application/json", what.body);
    if (!what.retry_after.empty()) to.set("Retry-After", what.retry_after);
  }
  static void send(response& to, const json& what) {
    send(to, 200, "application/json", to_text(what));
  }
  static void send_not_found(response& to) {
    send(to, refusal(404, "there is no such thing here"));
  }
  // For what the store does where it has the model.
  static void send_done(response& to, bool done) {
    done ? send(to, server_reply()) : send_not_found(to);
  }

  static void offer_as(response& to, const std::string& name) {
    to.set("Content-Disposition", "attachment; filename=\"" + name + '"');
  }

  // The page is one document, whichever address it shows. Python prints an address of its own.
  void send_page(const request& from, response& to, const std::string& path,
                 const std::vector<std::string>& words) const {
    if (!from.reads_only()) return send_not_found(to);
    if (words.size() == 1 && words[0] == "settings") {  // where clients look for a key
      to.set("Location", "keys");
      return send(to, 302, "text/plain", "");
    }
    if (const auto run = runs_.find(words)) {
      to.set("Location", words.size() == 2 ? "../models/" + *run : "../../models/" + *run);
      return send(to, 302, "text/plain", "");
    }
    const bool document = words.empty() || (words.size() == 2 && words[0] == "models") ||
                          (words.size() == 1 && (words[0] == "keys" || words[0] == "compare"));
    for (const page::file& each : page::files)
      if (document ? each.path == "/" : each.path == path)
        return send(to, 200, each.type, document ? document_at(path) : std::string(each.text));
    send_not_found(to);
  }

  // Its addresses are relative, so that it works below a path of somebody else's server as well: "../"
  // for each folder that this address is in.
  static std::string document_at(const std::string& path) {
    std::string up;
    for (auto folders = std::count(path.begin(), path.end(), '/'); folders > 1; --folders)
      up += "../";
    std::string document(page::index_html);
    for (std::size_t at = 0; (at = document.find("\"page/", at)) != std::string::npos;
         at += up.size() + 1)
      document.insert(at + 1, up);
    return document;
  }

  // ---- /api ----

  void answer_api(const request& from, response& to, std::vector<std::string> words,
                  const std::string& body) {
    const std::string& method = from.method;
    const bool get = method == "GET" || method == "HEAD";
    words.resize(std::max<std::size_t>(words.size(), 1));
    const std::string what = words[0];
    if (what == "keys" && words.size() <= 2)
      return answer_keys(method, words.size() == 2 ? words[1] : "", body, to);
    if (what == "trash" && words.size() <= 2)
      return answer_trash(method, words.size() == 2 ? words[1] : "", to);
    if (what != "models") {
      if (words.size() != 1) return send_not_found(to);
      if (get && what == "status") return send_status(from, to);
      if (get && what == "refused") return send(to, refusals_as_json(std::nullopt));
      if (method == "POST" && what == "sign-in") return sign_in(from, body, to);
      if (method == "POST" && what == "sign-out") {
        signed_in_.remove(cookie_of(from));
        return send(to, server_reply());
      }
      return send_not_found(to);
    }
    if (words.size() == 1 && get) return send(to, json{{"models", rows_.all()}});
    if (words.size() == 1 && method == "POST") return make_model(body, to);
    if (words.size() == 1) return send_not_found(to);
    const std::string id = words[1];
    if (words.size() == 2) return answer_model(method, id, body, to);
    std::string rest = words[2];
    for (std::size_t i = 3; i < words.size(); ++i) rest += '/' + words[i];
    const bool is_run = store_.is_run(id);
    if (method == "POST" && is_run && rest == "stop")
      return runs_.stop(id) ? send(to, server_reply())
                            : send(to, refusal(409, "nothing is trained here any more"));
    if (method == "POST" && is_run) return send(to, refusal(409, "a run has no such thing"));
    if (method == "POST" && rest == "reset") return send_done(to, store_.reset_model(id));
    if (method == "POST" && rest == "key") return send_new_key(id, to);
    if (get && (rest == "console" || rest == "system" || rest == "ending"))
      return send_of_run(id, rest, from, to);
    if (get && rest == "metrics") return send_metrics(id, from.parameter("since"), to);
    if (get && rest == "metrics.csv") return send_csv(id, to);
    if (get && rest == "everything.zip") return send_zip(id, to);
    if (get && rest.starts_with("files/")) return send_checkpoint(id, rest.substr(6), to);
    send_not_found(to);
  }

  void answer_model(const std::string& method, const std::string& id, const std::string& body,
                    response& to) {
    if (method == "DELETE") return send_done(to, store_.remove_model(id));
    if (method == "GET") return send_model(id, to);
    if (method == "PATCH") return change_model(id, body, to);
    send_not_found(to);
  }

  // A name, a project, tags, a note: those that are given.
  void change_model(const std::string& id, const std::string& body, response& to) {
    if (!knows(id)) return send_not_found(to);
    const json said = hub::text::parse_json(body).value_or(json());
    const labels next =
        labels_from(said, store_.look([&](const auto&) { return store_.labels_of(id); }));
    const std::string name = hub::text::get_string(said, "name");
    if (said.contains("name") && (name.empty() || name.size() > model_store::name_bytes_max))
      return send(to, refusal(400, "a name of 1 to 200 bytes is needed"));
    if (const std::string_view why = fault_of(next); !why.empty())
      return send(to, refusal(400, why));
    if (said.contains("name")) store_.rename_model(id, name);
    send_done(to, store_.label_model(id, next));
  }

  void answer_keys(const std::string& method, const std::string& id, const std::string& body,
                   response& to) {
    if (method == "DELETE") return send_done(to, keys_.revoke_id(id));
    if (!id.empty() || (method != "GET" && method != "POST")) return send_not_found(to);
    if (method == "GET") {
      json out = json::array();
      for (const key_record& each : keys_.list())
        out.push_back(
            {{"id", each.id()}, {"name", each.name}, {"made", each.made}, {"model", each.model}});
      return send(to, json{{"keys", out}});
    }
    const std::string name =
        hub::text::get_string(hub::text::parse_json(body).value_or(json()), "name");
    if (name.empty() || name.size() > key_ring::name_bytes_max)
      return send(to, refusal(400, "a name of 1 to 100 bytes is needed"));
    const std::string key = keys_.make(name);
    send(to, json{{"key", key}, {"platform_key", platform_form(key)}});
  }

  void answer_trash(const std::string& method, const std::string& id, response& to) {
    if (method == "POST") return send_done(to, store_.restore_model(id));
    if (method == "DELETE") return send_done(to, store_.erase_model(id));
    if (!id.empty()) return send_not_found(to);
    json out = json::array();
    for (const auto& each : store_.trash())
      out.push_back({{"id", each.id}, {"name", each.name}, {"time", seconds_of(each.at)}});
    send(to, json{{"trash", out}});
  }

  void send_status(const request& from, response& to) {
    using std::chrono::duration_cast;
    send(to, json{{"needs_key", needs_key_},
                  {"signed_in", !needs_key_ || is_signed_in(from)},
                  {"silence", duration_cast<std::chrono::seconds>(store_.silence()).count()},
                  {"version", HUB_SESSION_VERSION}});
  }

  json refusals_as_json(const std::optional<std::string>& id) const {
    json out = json::array();
    for (const refused_request& each : store_.refusals())
      if (!id || each.model_id == *id)
        out.push_back({{"time", seconds_of(each.at)},
                       {"what", each.what},
                       {"status", each.status},
                       {"why", each.why}});
    std::reverse(out.begin(), out.end());
    return {{"refused", out}};
  }

  static void take_numbers(const json& said, model_options& about) {
    about.epochs = hub::text::get_int(said, "epochs").value_or(about.epochs);
    about.batch = hub::text::get_number(said, "batch").value_or(about.batch);
    about.imgsz = hub::text::get_int(said, "imgsz").value_or(about.imgsz);
    about.patience = hub::text::get_int(said, "patience").value_or(about.patience);
  }

  void make_model(const std::string& body, response& to) {
    const auto said = hub::text::parse_json(body);
    model_options about;
    about.name = said ? hub::text::get_string(*said, "name") : "";
    if (said) take_numbers(*said, about);
    if (const std::string_view why = model_store::fault_of(about); !why.empty())
      return send(to, refusal(400, why));
    // A session trains nothing that has no dataset.
    const auto text_or = [&](const char* name, const char* otherwise) {
      const std::string text = hub::text::get_string(*said, name);
      return text.empty() ? std::string(otherwise) : text.substr(0, model_store::name_bytes_max);
    };
    about.data = text_or("data", "coco8.yaml");
    about.device = text_or("device", "");
    const std::string start = text_or("start", "yolov8n.yaml");
    const bool weights = start.ends_with(".pt");
    about.cfg = weights ? "" : start;
    about.weights = weights ? start : "";
    const std::string id = store_.make_model(about);
    send(to, json{{"id", id}, {"key", keys_.make_for_model(id)}});
  }

  bool knows(const std::string& id) const {
    return store_.look([&](const auto& models) { return models.contains(id); });
  }

  void send_new_key(const std::string& id, response& to) {
    if (!knows(id)) return send_not_found(to);
    send(to, json{{"id", id}, {"key", keys_.make_for_model(id)}});
  }

  // Calls look(model) and sends what it returns.
  template <class Look>
  void send_of(const std::string& id, response& to, Look look) {
    const json out = store_.look([&](const auto& models) {
      const auto found = models.find(id);
      return found == models.end() ? json() : look(found->second);
    });
    out.is_null() ? send_not_found(to) : send(to, out);
  }

  void send_model(const std::string& id, response& to) {
    const json refused = refusals_as_json(id);
    const json about_run = runs_.look(id, details_of);
    send_of(id, to, [&](const hub_model& model) {
      json out =
          row_of(model, store_.run_of(id), std::chrono::steady_clock::now(), store_.silence());
      out.update(times_of(model, store_.arrivals_of(id), store_.silence()));
      out.update(to_json(store_.labels_of(id)));
      out.update({{"best", best_of(model)},
                  {"spans", spans_of(model, store_.silence())},
                  {"checkpoints", checkpoints_of(model)},
                  {"train_args", train_args_of(model)},
                  {"version", store_.version_of(id)}});
      out.update(refused);
      if (!about_run.is_null()) out["run"] = about_run;
      return out;
    });
  }

  // What of a run changes as it goes is asked for apart: what it printed, its machine, its ending.
  void send_of_run(const std::string& id, const std::string& what, const request& from,
                   response& to) {
    const json out = runs_.look(id, [&](const platform_model& run) {
      if (what == "console")
        return console_of(run, http::number(from.parameter("since")).value_or(0));
      return what == "system" ? system_of(run) : ending_of(run);
    });
    out.is_null() ? send_not_found(to) : send(to, out);
  }

  // The epochs that changed after the version `since`, all of them without it.
  void send_metrics(const std::string& id, const std::string& since, response& to) {
    std::uint64_t from = 0;
    std::from_chars(since.data(), since.data() + since.size(), from);
    send_of(id, to, [&](const hub_model& model) {
      const model_store::news news = store_.news_of(id, from);
      json out = columns_of(model, store_.arrivals_of(id), news.epochs);
      out.update({{"version", news.version}, {"count", model.metrics.size()}});
      return out;
    });
  }

  // ---- to take away ----

  void send_csv(const std::string& id, response& to) {
    const auto csv = store_.look([&](const auto& models) {
      const auto found = models.find(id);
      return found == models.end() ? std::nullopt
                                   : std::optional(csv_of(found->second, store_.arrivals_of(id)));
    });
    if (!csv) return send_not_found(to);
    offer_as(to, id + ".csv");
    send(to, 200, "text/csv; charset=utf-8", *csv);
  }

  void send_zip(const std::string& id, response& to) {
    if (!knows(id)) return send_not_found(to);
    const auto zip = std::make_shared<zip_stream>(store_.folder_of(id), id);
    set_headers(to);
    offer_as(to, id + ".zip");
    to.set_source(
        "application/zip", zip->size_bytes(),
        [zip](std::uint64_t, std::size_t, std::string& piece) { return zip->next(piece); }, false);
  }

  // Only what the store knows by this name is opened: nothing of the name reaches the file system.
  void send_checkpoint(const std::string& id, const std::string& name, response& to) {
    const auto record = store_.look([&](const auto& models) -> std::optional<checkpoint_record> {
      const auto found = models.find(id);
      if (found == models.end()) return std::nullopt;
      const auto kept = kept_checkpoints(found->second);
      const auto at = kept.find(name);
      return at == kept.end() ? std::nullopt : std::optional(at->second);
    });
    // A file that is replaced meanwhile stays what it is for whoever has opened it.
    auto file = record ? std::make_shared<std::ifstream>(store_.checkpoint_path(id, *record),
                                                         std::ios::binary | std::ios::ate)
                       : nullptr;
    if (!file || !*file) return send_not_found(to);
    const auto size = static_cast<std::uint64_t>(file->tellg());
    set_headers(to);
    offer_as(to, record->is_final ? "best.pt"
                                  : "epoch-" + std::to_string(counted(record->epoch)) + ".pt");
    to.set_source("application/octet-stream", size, source_of(std::move(file)), true);
  }

  // ---- events ----

  void stream_events(http::exchange& with) {
    if (feed_.is_full()) return send(with.reply, refusal(503, "too many pages are open"));
    // Proxies gather what they compress or keep, and nginx gathers in any case: this is live.
    set_headers(with.reply, "no-cache, no-store, no-transform");
    with.reply.set("X-Accel-Buffering", "no");
    with.reply.set("Content-Type", "text/event-stream");
    with.open = [this, from = with.request](std::shared_ptr<http::outlet> to) {
      feed_.add(std::move(to), [this, from] { return !needs_key_ || is_signed_in(from); });
    };
  }

  model_store& store_;
  run_store& runs_;
  key_ring& keys_;
  gate& gate_;
  bool needs_key_;
  std::string cookie_;
  model_rows rows_;
  sign_ins signed_in_;
  event_feed feed_;
};

}  // namespace local_hub
