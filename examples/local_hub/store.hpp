// SPDX-License-Identifier: MIT
//
// The HUB's models on disk. hub::testing::hub_logic decides, as it does for the test kit's fake
// HUB; what it takes is kept here, before the client hears of it, in a folder that a person can
// read, DATA/models/ID:
//
//     model.json               what is to be trained; may be edited while local_hub is not running
//     labels.json              its project, tags and note, which are the page's alone
//     metrics.jsonl            one epoch a line; where an epoch has several, the last one counts
//     heartbeats.jsonl         one heartbeat a line
//     checkpoints/epoch-7.pt   a checkpoint, and beside it epoch-7.json about it
//     best.pt                  the final model, and beside it best.json about it
//     upload-*.part            an upload that is still being received
//
// A model that is deleted moves to DATA/trash as a whole, and can be brought back for a day.
//
// Whether a model is new, in training or trained is not written down anywhere: it follows from the
// files, so that it can't contradict them.

#pragma once

#include "files.hpp"
#include "hub_session.hpp"
#include "keys.hpp"
#include "labels.hpp"
#include "records.hpp"
#include "signed_urls.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace local_hub {

namespace fs = std::filesystem;

using hub::testing::endpoint;
using hub::testing::hub_logic;
using hub::testing::hub_model;
using hub::testing::server_reply;
using hub::testing::server_request;

// A request that was refused, for the page to show. Kept in memory only, and only the newest, so
// that nobody fills a disk by asking.
struct refused_request {
  wall_time at;
  std::string model_id;  // "" where it named none
  std::string what;      // method and path
  int status;
  std::string why;
};

// A checkpoint on its way to a client, open: it can be read to its end when another replaces it.
struct download {
  std::shared_ptr<std::ifstream> bytes;
  std::uint64_t size_bytes;
  std::string etag;
};

// What is known of a run of the Platform's clients beside what models of HUB v1 have as well.
struct run_facts {
  bool is_stopping = false;  // its owner wants it to end
  bool has_ended = false;
  bool has_failed = false;
  std::string why = {};  // it failed
  std::string owner = {};
  std::string project = {};
  std::string name = {};
};

struct store_options {
  hub::duration silence = hub_model::silence_max;  // after which a training counts as disconnected
  std::uint64_t free_bytes_min = std::uint64_t{64} * 1024 * 1024;  // of the disk, left to others
};

// All members may be called from any thread.
class model_store {
 public:
  static constexpr std::size_t refusals_max = 200;
  static constexpr std::size_t name_bytes_max = 200;
  static constexpr int epochs_max = 1'000'000;  // of a model, and of what is reported
  static constexpr std::chrono::hours trash_kept{24};

  // Reads what is there.
  model_store(const fs::path& data, key_ring& keys, store_options options)
      : folder_(data / "models"), trash_(data / "trash"), keys_(keys), options_(options) {
    logic_.make_id = [] { return random_text(hub::hub_v1_wire::model_id_length); };
    logic_.url_of = [this](const hub_model& model, const std::string& name, hub::time_point) {
      return name == "last.pt" ? url_of_last(model) : name;
    };
    logic_.is_key = [this](const std::string& key) {
      return keys_.find(key_ring::digest(key)).has_value();
    };
    make_folder(folder_);
    sweep_trash();
    for (const fs::directory_entry& each : fs::directory_iterator(folder_)) load(each.path());
  }

  hub::duration silence() const { return options_.silence; }

  // Returns the new model's id.
  std::string make_model(std::string name, std::optional<int> epochs) {
    model_options about;
    about.name = std::move(name);
    about.data = "coco8.yaml";  // a session trains nothing that has no dataset
    about.epochs = epochs.value_or(about.epochs);
    return make_model(std::move(about));
  }
  std::string make_model(model_options about) {
    about.id = logic_.make_id();
    add(about);
    return about.id;
  }

  // Why there can be no such model; "" where there can.
  static std::string_view fault_of(const model_options& about) {
    if (about.name.empty() || about.name.size() > name_bytes_max)
      return "a name of 1 to 200 bytes is needed";
    if (about.epochs < 1 || about.epochs > epochs_max) return "1 to 1000000 epochs can be trained";
    if (about.imgsz < 1 || about.patience < 0)
      return "an image has a size, and patience is not negative";
    return "";
  }

  // ---- what the owner does; each is false where there is no such model ----

  bool rename_model(const std::string& id, const std::string& name) {
    return change(
        id,
        [&](model_options about) {
          about.name = name;
          keep(about);
        },
        [&] { logic_.model(id).about.name = name; });
  }

  bool label_model(const std::string& id, const labels& next) {
    return change(
        id,
        [&](const model_options&) {
          write_file(folder_ / id / "labels.json", to_page(to_json(next)));
        },
        [&] { labels_[id] = next; });
  }

  // Whatever arrived goes away; a crash meanwhile leaves some of it.
  bool reset_model(const std::string& id) {
    return change(
        id,
        [&](const model_options&) {
          const fs::path at = folder_ / id;
          fs::remove_all(at / "checkpoints");
          for (const char* each : {"best.json", "best.pt", "metrics.jsonl", "heartbeats.jsonl"})
            fs::remove(at / each);
          make_folder(at / "checkpoints");
          sync_folder(at);
        },
        [&] {
          logic_.reset_model(id);
          history_.erase(id);
        });
  }

  // It can be brought back until it is swept.
  bool remove_model(const std::string& id) {
    const bool gone = change(
        id,
        [&](const model_options&) {
          make_folder(trash_);
          const auto now = std::chrono::system_clock::now().time_since_epoch();
          const auto second = std::chrono::duration_cast<std::chrono::seconds>(now).count();
          rename_file(folder_ / id, trash_ / (id + '-' + std::to_string(second)));
          sync_folder(folder_);
        },
        [&] {
          logic_.remove_model(id);
          labels_.erase(id);
        });
    if (gone && is_run(id)) forget_run(id);
    sweep_trash();
    return gone;
  }

  // What was deleted and can be brought back, the newest first.
  struct deleted_model {
    std::string id;
    std::string name;
    wall_time at;
  };
  std::vector<deleted_model> trash() const {
    std::vector<deleted_model> found;
    for (const auto& [folder, when] : folders_in_trash()) {
      const auto about = hub::text::parse_json(read_file(folder / "model.json").value_or(""));
      if (about)
        found.push_back({id_in_trash(folder), hub::text::get_string(*about, "name"), when});
    }
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.at > b.at; });
    return found;
  }

  // False where it is not in the trash.
  bool restore_model(const std::string& id) {
    const std::lock_guard one_by_one(files_of(id));
    for (const auto& [folder, when] : folders_in_trash()) {
      if (id_in_trash(folder) != id) continue;
      rename_file(folder, folder_ / id);
      sync_folder(folder_);
      load(folder_ / id);
      touch(id);
      return true;
    }
    return false;
  }

  // For good; false where it is not in the trash.
  bool erase_model(const std::string& id) {
    const std::lock_guard one_by_one(files_of(id));
    bool found = false;
    for (const auto& [folder, when] : folders_in_trash())
      if (id_in_trash(folder) == id) found = fs::remove_all(folder) > 0;
    if (found) keys_.revoke_of_model(id);
    return found;
  }

  // ---- runs of the Platform's clients, which run_store keeps in folders of the same kind ----

  // How a run's folder is read, and what is done when it goes. Reads those that are there.
  void on_runs(std::function<void(const fs::path&)> load,
               std::function<void(const std::string&)> gone) {
    load_run_ = std::move(load);
    run_gone_ = std::move(gone);
    for (const fs::directory_entry& each : fs::directory_iterator(folder_))
      if (is_folder_of_run(each.path())) load_run_(each.path());
  }

  bool is_run(const std::string& id) const {
    const std::lock_guard lock(mutex_);
    return runs_.contains(id);
  }

  void set_run(const std::string& id, run_facts facts) {
    const std::lock_guard lock(mutex_);
    runs_[id] = std::move(facts);
  }

  // Calls change(model) on what the page sees of a run; `epochs` are those whose values came, and when.
  template <class Change>
  void show_run(const std::string& id, Change change, const std::vector<int>& epochs = {},
                wall_time at = std::chrono::system_clock::now()) {
    const std::lock_guard lock(mutex_);
    if (!logic_.models().contains(id)) {
      logic_.add_model({.id = id});
      load_labels(id, runs_[id].project);
    }
    change(logic_.model(id));
    touch_locked(id, epochs, at);
  }

  // Only within look(); null for what is no run.
  const run_facts* run_of(const std::string& id) const {
    const auto found = runs_.find(id);
    return found == runs_.end() ? nullptr : &found->second;
  }

  // Under this one, a model's files change in the order in which its requests were taken, and no other
  // model waits for them. It is taken before any other mutex; nobody holds those during I/O.
  std::mutex& files_of(const std::string& id) {
    return file_mutexes_[std::hash<std::string>()(id) % file_mutexes_.size()];
  }

  static bool is_epoch(int epoch) { return epoch >= 0 && epoch < epochs_max; }

  // What a client may open for a while: a file of this content, where it is a model's latest.
  std::string sign_download(const std::string& id, const std::string& sha256,
                            const std::string& name) const {
    return signer_.sign(path_of(id, sha256, name));
  }

  // The checkpoint and the page about it are two files, and one of each may be there already. So
  // that a crash in between leaves no page beside the wrong checkpoint, settle() needs to tell from
  // what is there which of the two renames were made.
  static void keep(unfinished_file& upload, const fs::path& file, const checkpoint_record& record) {
    fs::path page = file;
    page.replace_extension(".json");
    const fs::path next_page = page.string() + ".next";
    write_file(next_page, to_page(to_json(record)));
    upload.rename_to(file);
    rename_file(next_page, page);
    sync_folder(file.parent_path());
  }

  // Throws away what was not complete when the last process ended, and takes in the rest.
  static void load_checkpoints(const fs::path& folder, hub_model& model) {
    make_folder(folder);
    std::vector<fs::path> files;
    for (const fs::directory_entry& each : fs::directory_iterator(folder))
      files.push_back(each.path());
    for (const fs::path& each : files) {
      if (each.extension() == ".part") fs::remove(each);
      if (each.extension() == ".next") settle(each);
    }
    for (const fs::path& each : files) {
      if (each.extension() != ".pt") continue;
      const auto record = read_page(fs::path(each).replace_extension(".json"));
      if (record && is_of(*record, each))
        model.checkpoints.push_back(*record);
      else
        say("leaving out " + each.string() + ": the .json beside it does not describe it");
    }
  }

  // ---- what the page sees ----

  // Calls look(models) while nothing changes.
  template <class Look>
  auto look(Look look) const {
    const std::lock_guard lock(mutex_);
    return look(logic_.models());
  }

  // What changed since this version of a model: the epochs, and the version that has them.
  struct news {
    std::uint64_t version = 0;
    std::vector<int> epochs = {};
  };
  // Only within look().
  news news_of(const std::string& id, std::uint64_t since) const {
    news out;
    const auto found = history_.find(id);
    if (found == history_.end()) return out;
    out.version = found->second.version;
    for (const auto& [epoch, came] : found->second.epochs)
      if (came.version > since) out.epochs.push_back(epoch);
    return out;
  }
  // When each epoch arrived. Only within look().
  std::map<int, wall_time> arrivals_of(const std::string& id) const {
    std::map<int, wall_time> out;
    if (const auto found = history_.find(id); found != history_.end())
      for (const auto& [epoch, came] : found->second.epochs) out[epoch] = came.at;
    return out;
  }
  // Only within look().
  labels labels_of(const std::string& id) const {
    const auto found = labels_.find(id);
    return found == labels_.end() ? labels() : found->second;
  }
  // Changes whenever the model does.
  std::uint64_t version_of(const std::string& id) const {
    const auto found = history_.find(id);
    return found == history_.end() ? 0 : found->second.version;
  }

  // Changes whenever anything does.
  std::uint64_t version() const {
    const std::lock_guard lock(mutex_);
    return version_;
  }

  std::vector<refused_request> refusals() const {
    const std::lock_guard lock(mutex_);
    return {refusals_.begin(), refusals_.end()};
  }

  fs::path folder_of(const std::string& id) const { return folder_ / id; }

  fs::path checkpoint_path(const std::string& id, const checkpoint_record& record) const {
    return folder_ / id / name_of(record);
  }
  static std::string name_of(const checkpoint_record& record) {
    if (record.is_final) return "best.pt";
    return "checkpoints/epoch-" + std::to_string(record.epoch) + ".pt";
  }

  // ---- what trainings send ----

  // Why an upload is refused before any of it is received: no such key or model.
  std::optional<server_reply> refusal_of_head(const server_request& head,
                                              const key_check& key) const {
    if (key.is_slowed) return slowed();
    const auto to = hub_logic::route(head.method, head.path);
    {
      const std::lock_guard lock(mutex_);
      if (auto refused = logic_.refusal(head)) return refused;
      if (runs_.contains(to->second)) return refusal(404, "this is a run, and no model of HUB's");
    }
    const bool signs_in = to->first == endpoint::auth;
    if (!signs_in && key.who && !key.who->model.empty() && key.who->model != to->second)
      return refusal(403, "this key is for another model");
    return std::nullopt;
  }

  static server_reply slowed() {
    server_reply out = refusal(429, "too many wrong keys came from this address; come again later");
    out.retry_after = "10";
    return out;
  }

  // No room is a state that passes, so the client is told to come again.
  std::optional<server_reply> no_room_for(std::uint64_t bytes) const {
    if (free_bytes(folder_) > bytes && free_bytes(folder_) - bytes >= options_.free_bytes_min)
      return std::nullopt;
    return disk_is_full();
  }

  // What a client is told where something went wrong here; the log has the rest, paths included.
  static server_reply reply_to(const std::exception& problem) {
    say(problem.what());
    const auto* of_disk = dynamic_cast<const file_error*>(&problem);
    if (of_disk && of_disk->disk_is_full()) return disk_is_full();
    return {500, R"({"message": "this HUB has a fault; its log says which"})"};
  }

  void note_refusal(const server_request& what, const server_reply& reply) {
    const auto to = hub_logic::route(what.method, what.path);
    const bool is_call =
        to || hub::testing::platform_logic::route(what.method, what.path).has_value();
    const json said = hub::text::parse_json(reply.body).value_or(json());
    const std::string_view path(what.path);
    refused_request note{
        std::chrono::system_clock::now(), to ? to->second : "",
        hub::text::printable(what.method + ' ' + std::string(path.substr(0, path.find('?')))),
        reply.status, "no such call"};
    // The message about an unknown call repeats its query, which may hold a signature.
    if (is_call)
      note.why = hub::text::printable(hub::text::get_string(said, "message") +
                                      hub::text::get_string(said, "error"));
    const std::lock_guard lock(mutex_);
    refusals_.push_back(std::move(note));
    if (refusals_.size() > refusals_max) refusals_.pop_front();
    if (to && logic_.models().contains(to->second)) history_[to->second].version = ++version_;
  }

  // A file to receive an upload in; to be handed to handle() when the last byte is there.
  std::unique_ptr<unfinished_file> new_upload(const std::string& id) const {
    return std::make_unique<unfinished_file>(folder_ / id / ("upload-" + random_text(8) + ".part"));
  }

  // Answers. What a 2xx confirms is on the disk by then, heartbeats aside: a lost one is no loss.
  server_reply handle(const server_request& what, unfinished_file* upload = nullptr) {
    server_reply reply = decide(what, upload);
    if (!accepted(reply)) note_refusal(what, reply);
    return reply;
  }

  // Whether a request is for a file; it needs no key, as its URL is signed.
  static bool is_download(std::string_view target) { return target.starts_with(download_root); }

  // The checkpoint that a signed URL leads to; nothing where it is not valid, or not any more.
  std::optional<download> open_download(std::string_view target) {
    const auto path = signer_.path_of(target);
    if (!path) return std::nullopt;
    const std::string rest = path->substr(download_root.size());
    const std::string id = rest.substr(0, rest.find('/'));
    const std::lock_guard one_by_one(files_of(id));
    std::unique_lock lock(mutex_);
    const auto found = logic_.models().find(id);
    if (found == logic_.models().end()) return std::nullopt;
    const checkpoint_record* last = handed_out(found->second);
    if (!last || *path != path_of(id, last->sha256, last->is_final ? "best.pt" : "last.pt"))
      return std::nullopt;
    const checkpoint_record record = *last;
    lock.unlock();
    auto bytes = std::make_shared<std::ifstream>(checkpoint_path(id, record), std::ios::binary);
    if (!*bytes) return std::nullopt;
    return download{std::move(bytes), record.size_bytes, '"' + record.sha256 + '"'};
  }

 private:
  static constexpr std::string_view download_root = "/storage/";

  // The path names the version, so that what lies under one never changes.
  static std::string path_of(const std::string& id, const std::string& sha256,
                             const std::string& name) {
    return std::string(download_root) + id + "/" + sha256 + "/" + name;
  }

  // What is handed out of a model: the last checkpoint, and the file of a run.
  const checkpoint_record* handed_out(const hub_model& model) const {
    return runs_.contains(model.about.id) ? model.final_model() : model.last_checkpoint();
  }

  // The name alone where the client did not say how it reaches this HUB.
  std::string url_of_last(const hub_model& model) const {
    const checkpoint_record* last = model.last_checkpoint();
    if (!last || client_root_.empty()) return "last.pt";
    return client_root_ + sign_download(model.about.id, last->sha256, "last.pt");
  }

  static hub::time_point now() { return std::chrono::steady_clock::now(); }
  static bool accepted(const server_reply& reply) { return reply.status < 300; }
  static server_reply disk_is_full() {
    return refusal(507, "the disk of this HUB is full; make room on it");
  }

  server_reply decide(const server_request& what, unfinished_file* upload) {
    const auto to = hub_logic::route(what.method, what.path);
    try {
      if (to && to->first == endpoint::create_model) return create(what);
      if (to && to->first == endpoint::heartbeat) return take_heartbeat(what, to->second);
      if (to && to->first == endpoint::metrics) return take_metrics(what, to->second);
      if (to && to->first == endpoint::upload) return take_upload(what, to->second, upload);
    } catch (const std::exception& problem) {
      return reply_to(problem);
    }
    const std::lock_guard lock(mutex_);
    client_root_ = what.root;
    server_reply reply = logic_.handle(what, now());
    if (to && to->first == endpoint::model && accepted(reply))
      reply.body = json{{"data", in_both_shapes(logic_.models().at(to->second))}}.dump(
          -1, ' ', false, json::error_handler_t::replace);
    return reply;
  }

  // The first clients read the one shape of a model, the later ones the other, and neither says
  // which it is. No member stands in both with different values.
  json in_both_shapes(const hub_model& model) const {
    hub_model later{.about = model.about, .checkpoints = model.checkpoints};
    later.about.shape = hub::testing::reply_shape::nested;
    json out = logic_.describe(model, now());
    out.update(logic_.describe(later, now()));
    return out;
  }

  // When a model changed, and when each of its epochs did, counted in changes of any model.
  struct arrival {
    std::uint64_t version = 0;
    wall_time at = {};
  };
  struct history {
    std::uint64_t version = 0;
    std::map<int, arrival> epochs = {};
  };

  void touch(const std::string& id) {
    const std::lock_guard lock(mutex_);
    touch_locked(id);
  }

  // Only where mutex_ is held.
  void touch_locked(const std::string& id, const std::vector<int>& epochs = {},
                    wall_time at = std::chrono::system_clock::now()) {
    ++version_;
    if (!logic_.models().contains(id)) {
      history_.erase(id);
      return;
    }
    history& of = history_[id];
    of.version = version_;
    for (const int epoch : epochs) of.epochs[epoch] = {version_, at};
  }

  // Changes a model's files, given its description, and then the model: so a disk that fails leaves
  // both as they were.
  template <class OnDisk, class InMemory>
  bool change(const std::string& id, OnDisk on_disk, InMemory in_memory) {
    const std::lock_guard one_by_one(files_of(id));
    std::unique_lock lock(mutex_);
    if (!logic_.models().contains(id)) return false;
    const model_options about = logic_.model(id).about;
    lock.unlock();
    on_disk(about);
    lock.lock();
    in_memory();
    lock.unlock();
    touch(id);
    return true;
  }

  // Nobody knows the model's id before this is done.
  void add(const model_options& about) {
    try {
      keep(about);
    } catch (...) {
      std::error_code ignored;  // the next start leaves out what has no description
      fs::remove_all(folder_ / about.id, ignored);
      throw;
    }
    {
      const std::lock_guard lock(mutex_);
      logic_.add_model(about);
    }
    touch(about.id);
  }

  // ---- what comes in ----

  // What hub_logic makes of a request, on a HUB that has but this model, and nothing of it yet: so
  // what a request brings is known, and can be brought to the disk, before anybody sees it.
  struct judgement {
    server_reply reply;
    hub_model brought;
  };
  judgement judge(const server_request& what, const std::string& id) const {
    hub_logic alone;
    alone.is_key = logic_.is_key;
    {
      const std::lock_guard lock(mutex_);
      if (const auto refused = logic_.refusal(what)) return {*refused, {}};
      alone.add_model(logic_.models().at(id).about);
    }
    server_reply reply = alone.handle(what, now());
    return {std::move(reply), std::move(alone.model(id))};
  }

  // It shows that a training is alive whether or not the disk has room for it.
  server_reply take_heartbeat(const server_request& what, const std::string& id) {
    const std::lock_guard one_by_one(files_of(id));
    std::unique_lock lock(mutex_);
    server_reply reply = logic_.handle(what, now());
    if (!accepted(reply)) return reply;
    const auto beat = logic_.model(id).heartbeats.back();
    lock.unlock();
    const ordered_json line = {{"time", to_text(wall_time_of(beat.at))},
                               {"agent", beat.agent},
                               {"agentId", beat.agent_id}};
    try {
      append_lines(folder_ / id / "heartbeats.jsonl", to_line(line), durability::at_some_time);
    } catch (const file_error& problem) {
      say(problem.what());
    }
    touch(id);
    return reply;
  }

  // Python sends what is not finite as NaN, in the text of each epoch.
  static std::string body_without_nan(const std::string& body) {
    if (body.find("NaN") == body.npos && body.find("Infinity") == body.npos) return body;
    auto said = hub::text::parse_json(hub::text::standard_json(body));
    if (!said || !said->is_object() || !said->contains("metrics")) return body;
    for (json& epoch : said->at("metrics"))
      if (epoch.is_string()) epoch = hub::text::standard_json(epoch.get_ref<const std::string&>());
    return to_line(*said);
  }

  server_reply take_metrics(server_request what, const std::string& id) {
    what.body = body_without_nan(what.body);
    const std::lock_guard one_by_one(files_of(id));
    const auto [reply, brought] = judge(what, id);
    if (!accepted(reply)) return reply;
    const std::string time = to_text(std::chrono::system_clock::now());
    std::string lines;
    std::vector<int> epochs;
    for (const auto& [epoch, values] : brought.metrics) {
      if (!is_epoch(epoch)) return refusal(400, no_epoch(epoch));
      lines += to_line({{"epoch", epoch}, {"time", time}, {"metrics", values}});
      epochs.push_back(epoch);
    }
    append_lines(folder_ / id / "metrics.jsonl", lines, durability::before_return);
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [epoch, values] : brought.metrics) logic_.model(id).metrics[epoch] = values;
      touch_locked(id, epochs);
    }
    return reply;
  }

  static std::string no_epoch(int epoch) {
    return "epoch " + std::to_string(epoch) + " is not from 0 to " + std::to_string(epochs_max - 1);
  }

  // Earlier versions of hub_session sent null where Python sends nan.
  static void take_map_of_null(server_request& what) {
    for (hub::testing::form_part& each : what.form)
      if (each.name == "map" && each.content == "null") each.content = "nan";
  }

  server_reply take_upload(server_request what, const std::string& id, unfinished_file* upload) {
    take_map_of_null(what);
    if (upload) upload->finish();  // the part that takes long, so before anybody has to wait for it
    const std::lock_guard one_by_one(files_of(id));
    const auto [reply, brought] = judge(what, id);
    if (!accepted(reply)) return reply;
    checkpoint_record record = brought.checkpoints.back();
    if (!is_epoch(record.epoch)) return refusal(400, no_epoch(record.epoch));
    keep(*upload, checkpoint_path(id, record), record);
    {
      const std::lock_guard lock(mutex_);
      logic_.model(id).checkpoints.push_back(record);
      logic_.model(id).about.state = brought.about.state;
    }
    touch(id);
    return reply;
  }

  server_reply create(const server_request& what) {
    hub_logic alone;
    alone.is_key = logic_.is_key;
    alone.make_id = logic_.make_id;
    server_reply reply = alone.handle(what, now());
    if (!accepted(reply)) return reply;
    const model_options& about = alone.models().begin()->second.about;
    if (const std::string_view why = fault_of(about); !why.empty()) return refusal(400, why);
    add(about);
    return reply;
  }

  void keep(const model_options& about) const {
    make_folder(folder_ / about.id / "checkpoints");
    write_file(folder_ / about.id / "model.json", to_page(to_json(about)));
  }

  // ---- checkpoints ----

  static void settle(const fs::path& next_page) {
    const fs::path page = fs::path(next_page).replace_extension();
    const auto record = read_page(next_page);
    const fs::path file = fs::path(page).replace_extension(".pt");
    if (record && is_of(*record, file) && sha256_of_file(file) == record->sha256)
      rename_file(next_page, page);
    else
      fs::remove(next_page);
  }

  static std::optional<checkpoint_record> read_page(const fs::path& page) {
    const auto written = hub::text::parse_json(read_file(page).value_or(""));
    if (!written) return std::nullopt;
    return checkpoint_from(*written);
  }

  static bool is_of(const checkpoint_record& record, const fs::path& file) {
    std::error_code problem;
    return fs::file_size(file, problem) == record.size_bytes && !problem;
  }

  // ---- the trash ----

  // Its folders are called ID-SECOND, after when they came there.
  static std::string id_in_trash(const fs::path& folder) {
    const std::string name = folder.filename().string();
    return name.substr(0, name.find('-'));
  }

  std::vector<std::pair<fs::path, wall_time>> folders_in_trash() const {
    std::vector<std::pair<fs::path, wall_time>> found;
    std::error_code missing;
    for (const fs::directory_entry& each : fs::directory_iterator(trash_, missing)) {
      const std::string name = each.path().filename().string();
      std::int64_t second = 0;
      const char* digits = name.c_str() + std::min(name.size(), name.find('-') + 1);
      std::from_chars(digits, name.c_str() + name.size(), second);
      found.emplace_back(each.path(), wall_time(std::chrono::seconds(second)));
    }
    return found;
  }

  void sweep_trash() {
    for (const auto& [folder, when] : folders_in_trash()) {
      if (std::chrono::system_clock::now() - when <= trash_kept) continue;
      std::error_code ignored;  // the next one tries again
      fs::remove_all(folder, ignored);
      keys_.revoke_of_model(id_in_trash(folder));
    }
  }

  // ---- what is there at the start ----

  static bool is_folder_of_run(const fs::path& folder) { return fs::exists(folder / "run.json"); }

  void forget_run(const std::string& id) {
    run_gone_(id);
    const std::lock_guard lock(mutex_);
    runs_.erase(id);
  }

  // What people wrote beside it; a run has a project of its own.
  void load_labels(const std::string& id, const std::string& project = "") {
    const auto beside = hub::text::parse_json(read_file(folder_ / id / "labels.json").value_or(""));
    labels_[id] = labels_from(beside.value_or(json()), {.project = project});
  }

  void load(const fs::path& folder) {
    if (is_folder_of_run(folder)) {
      if (load_run_) load_run_(folder);  // else on_runs() comes to it
      return;
    }
    const auto written = hub::text::parse_json(read_file(folder / "model.json").value_or(""));
    hub_model model{.about = model_from(written.value_or(json()))};
    const std::string id = folder.filename().string();
    if (model.about.id != id || !hub::text::all_of(id, hub::text::is_alphanumeric))
      return say("leaving out " + folder.string() + ": it has no model.json of its own");
    const std::map<int, wall_time> arrived = load_lines(folder, model);
    load_checkpoints(folder, model);
    load_checkpoints(folder / "checkpoints", model);
    std::sort(model.checkpoints.begin(), model.checkpoints.end(), [](const auto& a, const auto& b) {
      return std::tie(a.at, a.is_final, a.epoch) < std::tie(b.at, b.is_final, b.epoch);
    });
    if (!model.checkpoints.empty()) model.about.state = hub::model_state::training;
    if (model.final_model()) model.about.state = hub::model_state::trained;
    const std::lock_guard lock(mutex_);
    logic_.add_model(model.about);
    logic_.model(id) = std::move(model);
    load_labels(id);
    history& of = history_[id];
    of.version = ++version_;
    for (const auto& [epoch, when] : arrived) of.epochs[epoch] = {version_, when};
  }

  // Returns when each epoch arrived.
  static std::map<int, wall_time> load_lines(const fs::path& folder, hub_model& model) {
    std::map<int, wall_time> arrived;
    for (const json& line : read_lines(folder / "metrics.jsonl")) {
      const auto epoch = hub::text::get_int(line, "epoch");
      const json* values = hub::text::get_member(line, "metrics");
      if (!epoch || !is_epoch(*epoch) || !values) continue;
      model.metrics[*epoch] = *values;
      arrived[*epoch] = parse_time(hub::text::get_string(line, "time")).value_or(wall_time());
    }
    for (const json& line : read_lines(folder / "heartbeats.jsonl"))
      model.heartbeats.push_back({time_from(line), hub::text::get_string(line, "agent"),
                                  hub::text::get_string(line, "agentId")});
    return arrived;
  }

  fs::path folder_;
  fs::path trash_;
  key_ring& keys_;
  store_options options_;
  mutable std::mutex mutex_;  // of logic_ and what follows
  hub_logic logic_;
  std::string client_root_;  // of the request that logic_ handles
  const url_signer signer_{random_text(32)};
  // Versions start where no earlier process stopped, so that a page that outlives the process asks
  // for everything again.
  std::uint64_t version_ =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                     std::chrono::system_clock::now().time_since_epoch())
                                     .count());
  std::map<std::string, history> history_;
  std::map<std::string, labels> labels_;
  std::map<std::string, run_facts> runs_;
  std::function<void(const fs::path&)> load_run_;
  std::function<void(const std::string&)> run_gone_;
  std::deque<refused_request> refusals_;
  std::array<std::mutex, 64> file_mutexes_;
};

}  // namespace local_hub
