// SPDX-License-Identifier: MIT
//
// The runs of the Platform's clients on disk. hub::testing::platform_logic decides, as it does for the
// test kit's fake Platform; what it takes is kept here, before the client hears of it, in the folder
// that models of HUB v1 have as well, DATA/models/ID:
//
//     run.json       how it was started: names, arguments, environment
//     events.jsonl   everything else that it told, one event a line, in the order in which it came
//     best.pt        the latest file that it sent, and beside it best.json about it
//
// A run is what its files say: when local_hub starts, platform_logic is told all of it again. The page
// sees a run as it sees a model; what only runs have is asked for here.
//
// Where platform_logic is strict because a client is judged, a HUB at home is not: what it does not
// know is kept for those who do.

#pragma once

#include "files.hpp"
#include "hub_session.hpp"
#include "keys.hpp"
#include "records.hpp"
#include "signed_urls.hpp"
#include "store.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace local_hub {

using hub::testing::platform_change;
using hub::testing::platform_logic;
using hub::testing::platform_model;
using hub::testing::platform_state;
using hub::testing::platform_upload;

// All members may be called from any thread.
class run_store {
 public:
  static constexpr std::string_view owner = "local";      // of what is in nobody's name
  static constexpr std::size_t console_lines_max = 2000;  // kept at hand; on disk are all

  // Reads what is there.
  run_store(const fs::path& data, model_store& models, key_ring& keys)
      : models_(models), keys_(keys), datasets_(data / "datasets") {
    logic_.is_strict = false;
    logic_.make_id = [] { return random_hexadecimal(24); };
    logic_.user_of = [this](const std::string& key) -> std::optional<std::string> {
      if (!keys_.find(key_ring::digest(key))) return std::nullopt;
      return std::string(owner);
    };
    logic_.url_to_put = [this](const platform_upload& to, hub::time_point) {
      return root_ + signer_.sign(std::string(upload_root) + to.upload_path);
    };
    logic_.url_of_file = [this](const platform_upload& of, hub::time_point) {
      return root_ + models_.sign_download(of.upload_path.substr(0, of.upload_path.find('/')),
                                           of.sha256, "best.pt");
    };
    logic_.url_of_dataset = [this](const hub::testing::platform_dataset& of, hub::time_point) {
      return root_ + signer_.sign(std::string(dataset_root) + of.file);
    };
    models_.on_runs([this](const fs::path& folder) { load(folder); },
                    [this](const std::string& id) { forget(id); });
    load_datasets();
  }

  // ---- what clients send ----

  static bool is_call(std::string_view method, std::string_view path) {
    return platform_logic::route(method, path).has_value();
  }

  // Why a request is refused before its body is read.
  std::optional<server_reply> refusal_of_head(const server_request& head,
                                              const key_check& key) const {
    if (key.is_slowed) return with_error(model_store::slowed());
    if (key.who && !key.who->model.empty())
      return error_reply(403, "this key is for one model of HUB v1; the page's Keys makes others");
    const std::lock_guard lock(mutex_);
    return logic_.refusal(head);
  }

  // Answers. What a 2xx confirms is on the disk by then.
  server_reply handle(server_request what) {
    try {
      what.body = hub::text::standard_json(what.body);
      if (const std::string why = fault_of(what); !why.empty()) return error_reply(400, why);
      return is_start(what) ? start(what) : take(what);
    } catch (const std::exception& problem) {
      return with_error(model_store::reply_to(problem));
    }
  }

  // ---- files that clients put ----

  static bool is_upload(std::string_view target) { return target.starts_with(upload_root); }

  // Where a signed URL leads to; nothing where it is not valid, or not any more.
  std::optional<std::string> place_of(std::string_view target) const {
    const auto path = signer_.path_of(target);
    if (!path || !is_upload(*path)) return std::nullopt;
    return path->substr(upload_root.size());
  }

  // A place is ID/NUMBER/FILE.
  static std::string model_of(const std::string& place) { return place.substr(0, place.find('/')); }

  server_reply take_file(const std::string& place, const hub::testing::form_part& file,
                         unfinished_file& upload) {
    try {
      upload.finish();
      const std::string id = model_of(place);
      const std::lock_guard one_by_one(models_.files_of(id));
      platform_logic::decision decided;
      bool is_newest = false;
      int epoch = 0;
      {
        const std::lock_guard lock(mutex_);
        decided = logic_.decide_file(place, file, now());
        if (!decided.change) return decided.reply;
        const platform_model& model = logic_.model(id);
        const platform_upload* latest = model.latest_file();
        is_newest = !latest || number_of(latest->upload_path) <= number_of(place);
        if (!model.epochs.empty()) epoch = model.epochs.rbegin()->first;
      }
      if (is_repeated(*decided.change)) return decided.reply;
      // A file that was announced before another, and comes after it, is older.
      if (is_newest)
        model_store::keep(upload, models_.folder_of(id) / "best.pt",
                          {.at = now(),
                           .epoch = epoch,
                           .is_final = true,
                           .is_best = false,
                           .map = not_a_number,
                           .size_bytes = file.size_bytes,
                           .hash = 0,
                           .content = {},
                           .sha256 = file.sha256});
      write(*decided.change);
      apply(*std::move(decided.change));
      if (is_newest) show_files(id);
      return decided.reply;
    } catch (const std::exception& problem) {
      return with_error(model_store::reply_to(problem));
    }
  }

  // ---- datasets ----

  static bool is_dataset(std::string_view target) { return target.starts_with(dataset_root); }

  // What a signed URL leads to; nothing where it is not valid, or not any more.
  std::optional<download> open_dataset(std::string_view target) const {
    const auto path = signer_.path_of(target);
    if (!path || !is_dataset(*path)) return std::nullopt;
    auto bytes = std::make_shared<std::ifstream>(datasets_ / path->substr(dataset_root.size()),
                                                 std::ios::binary | std::ios::ate);
    if (!*bytes) return std::nullopt;
    const auto size = static_cast<std::uint64_t>(bytes->tellg());
    return download{std::move(bytes), size, ""};
  }

  // ---- what the page asks for ----

  // The id of the run that an address such as /PROJECT/NAME or /OWNER/PROJECT/NAME means.
  std::optional<std::string> find(const std::vector<std::string>& words) const {
    if (words.size() < 2 || words.size() > 3) return std::nullopt;
    const std::lock_guard lock(mutex_);
    const platform_model* found =
        logic_.find(words.size() == 3 ? words[0] : owner, words[words.size() - 2], words.back());
    return found ? std::optional(found->id) : std::nullopt;
  }

  // Calls see(run) while nothing changes and returns what it returns; null where there is none.
  template <class Look>
  json look(const std::string& id, Look see) const {
    const std::lock_guard lock(mutex_);
    const auto found = logic_.models().find(id);
    return found == logic_.models().end() ? json() : json(see(found->second));
  }

  // Its training is to end at its next epoch. False where none is going on.
  bool stop(const std::string& id) {
    const std::lock_guard one_by_one(models_.files_of(id));
    {
      const std::lock_guard lock(mutex_);
      const auto found = logic_.models().find(id);
      if (found == logic_.models().end() || found->second.state != platform_state::training)
        return false;
    }
    platform_change change{now(), id, "cancel"};
    write(change);
    apply(std::move(change));
    return true;
  }

 private:
  static constexpr std::string_view upload_root = "/uploads/";
  static constexpr std::string_view dataset_root = "/datasets/";

  static hub::time_point now() { return std::chrono::steady_clock::now(); }

  static std::uint64_t number_of(const std::string& place) {
    std::uint64_t number = 0;
    const char* digits = place.data() + std::min(place.find('/') + 1, place.size());
    std::from_chars(digits, place.data() + place.size(), number);
    return number;
  }

  static server_reply error_reply(int status, std::string_view why) {
    return with_error(refusal(status, why));
  }
  // The Platform's clients look for what is wrong under another name than HUB's do.
  static server_reply with_error(server_reply reply) {
    const auto said = hub::text::parse_json(reply.body);
    reply.body = json{{"error", said ? hub::text::get_string(*said, "message") : ""}}.dump();
    return reply;
  }

  // ---- events ----

  static bool is_event(const server_request& what) {
    const auto call = platform_logic::route(what.method, what.path);
    return call && call->call == hub::testing::platform_call::event;
  }
  static bool is_start(const server_request& what) {
    const auto said = hub::text::parse_json(what.body);
    return is_event(what) && said && hub::text::get_string(*said, "event") == "training_started";
  }

  // What an event cannot be without, "" where nothing is missing.
  static std::string fault_of(const server_request& what) {
    if (!is_event(what)) return "";
    const auto said = hub::text::parse_json(what.body);
    const json* data = said ? hub::text::get_member(*said, "data") : nullptr;
    return data ? fault_of(hub::text::get_string(*said, "event"), *data)
                : "event and data are needed";
  }
  static std::string fault_of(const std::string& event, const json& data) {
    const auto has = [&](const char* name, json::value_t type) {
      const json* member = hub::text::get_member(data, name);
      return member && member->type() == type;
    };
    if (!data.is_object()) return "event and data are needed";
    if (event == "training_complete" && !has("results", json::value_t::object))
      return "results is needed";
    const int epoch = hub::text::get_int(data, "epoch").value_or(-1);
    if (event == "epoch_end" && !model_store::is_epoch(epoch)) return "this is no epoch";
    if (event == "epoch_end" && !has("metrics", json::value_t::object)) return "metrics is needed";
    if (event == "console_output" && !has("content", json::value_t::string))
      return "content is needed";
    return "";
  }

  // One after the other, as each takes the next name.
  server_reply start(const server_request& what) {
    const std::lock_guard one_by_one(starting_);
    platform_logic::decision decided = decide(what);
    if (!decided.change) return decided.reply;
    const platform_change& change = *decided.change;
    const fs::path folder = models_.folder_of(change.model_id);
    make_folder(folder);
    ordered_json page = {{"id", change.model_id}, {"time", to_text(wall_time_of(change.at))}};
    for (const auto& each : change.data.items()) page[each.key()] = each.value();
    write_file(folder / "run.json", to_page(page));
    json said = hub::text::parse_json(decided.reply.body).value_or(json::object());
    said["modelUrl"] = what.root + "/models/" + change.model_id;
    decided.reply.body = said.dump();
    apply(*std::move(decided.change));
    return decided.reply;
  }

  server_reply take(const server_request& what) {
    const platform_logic::decision first = decide(what);
    if (!first.change) return first.reply;
    const std::lock_guard one_by_one(models_.files_of(first.change->model_id));
    platform_logic::decision decided = decide(what);  // nothing of this run changes from here on
    if (!decided.change) return decided.reply;
    if (is_repeated(*decided.change)) return decided.reply;
    write(*decided.change);
    apply(*std::move(decided.change));
    return decided.reply;
  }

  platform_logic::decision decide(const server_request& what) {
    const std::lock_guard lock(mutex_);
    root_ = what.root;
    return logic_.decide(what, now());
  }

  // Clients repeat what they do not know to have arrived. It is stored once, and shows that they live.
  bool is_repeated(const platform_change& change) {
    if (!is_known(change)) return false;
    models_.show_run(change.model_id, [](hub_model& shown) { hear(shown, now()); });
    return true;
  }

  bool is_known(const platform_change& change) const {
    const std::lock_guard lock(mutex_);
    const platform_model& run = logic_.models().at(change.model_id);
    const auto has = [&](const auto& kept, auto number) {
      const auto found = kept.find(number);
      return found != kept.end() && found->second == change.data;
    };
    if (change.kind == "epoch_end") return has(run.epochs, change.data.at("epoch").get<int>());
    if (change.kind == "console_output")
      return has(run.console, hub::text::get_unsigned(change.data, "chunkId"));
    if (change.kind == "system_metrics")
      return !run.system.empty() && run.system.back() == change.data;
    if (change.kind == "checkpoint_saved")
      return std::any_of(run.uploads.begin(), run.uploads.end(), [&](const platform_upload& each) {
        return each.saved && each.path == hub::text::get_string(change.data, "modelPath");
      });
    if (change.kind == "file")
      return std::any_of(run.uploads.begin(), run.uploads.end(), [&](const platform_upload& each) {
        return each.arrived && each.upload_path == change.data.at("uploadPath") &&
               each.sha256 == change.data.at("sha256");
      });
    if (change.kind == "cancel") return run.cancelled;
    return (change.kind == "training_complete" || change.kind == "training_failed") &&
           run.ending == change.data;
  }

  // Lines of a console are many; a power cut may take the last of them, a crash of local_hub none.
  void write(const platform_change& change) const {
    const ordered_json line = {{"time", to_text(wall_time_of(change.at))},
                               {"kind", change.kind},
                               {"data", change.data.is_null() ? json::object() : change.data}};
    append_lines(
        models_.folder_of(change.model_id) / "events.jsonl", to_line(line),
        change.kind == "console_output" ? durability::at_some_time : durability::before_return);
  }

  // Tells platform_logic, and the page's view of the run.
  void apply(platform_change change, bool is_new = true) {
    const platform_change told = change;
    hub_model begun;
    run_facts facts;
    {
      const std::lock_guard lock(mutex_);
      logic_.apply(std::move(change));
      if (!logic_.models().contains(told.model_id)) return;
      platform_model& run = logic_.model(told.model_id);
      trim_console(run);
      facts = facts_of(run);
      begun.about = about_of(run);
    }
    const bool starts = told.kind == "training_started";
    std::vector<int> epochs;
    if (told.kind == "epoch_end") epochs.push_back(told.data.at("epoch").get<int>());
    if (starts) begun.heartbeats.push_back({told.at, agent_of(told.data), ""});
    const bool has_ended = facts.has_ended;
    models_.set_run(told.model_id, std::move(facts));
    models_.show_run(
        told.model_id,
        [&](hub_model& shown) {
          if (starts) shown = std::move(begun);
          for (const int epoch : epochs) shown.metrics[epoch] = metrics_of(told.data);
          if (has_ended) shown.about.state = hub::model_state::trained;
          hear(shown, told.at);
        },
        epochs, is_new ? std::chrono::system_clock::now() : wall_time_of(told.at));
  }

  // Whatever comes shows that the training is alive; the first and the last of it are kept.
  static void hear(hub_model& shown, hub::time_point at) {
    if (shown.heartbeats.size() == 1) shown.heartbeats.push_back(shown.heartbeats.front());
    if (!shown.heartbeats.empty()) shown.heartbeats.back().at = at;
  }

  static void trim_console(platform_model& run) {
    std::size_t lines = 0;
    for (auto each = run.console.rbegin(); each != run.console.rend(); ++each) {
      const std::string content = hub::text::get_string(each->second, "content");
      lines += 1 + static_cast<std::size_t>(std::count(content.begin(), content.end(), '\n'));
      if (lines <= console_lines_max) continue;
      run.console.erase(run.console.begin(), each.base());
      return;
    }
  }

  // ---- as the page sees a run ----

  static run_facts facts_of(const platform_model& run) {
    return {.is_stopping = run.cancelled && run.state == platform_state::training,
            .has_ended = run.state == platform_state::completed,
            .has_failed = run.state == platform_state::failed,
            .why = hub::text::get_string(run.ending, "error"),
            .owner = run.owner,
            .project = run.project,
            .name = run.name};
  }

  // Python sends arguments as it prints them.
  static model_options about_of(const platform_model& run) {
    const json* args = hub::text::get_member(run.started, "trainArgs");
    const auto text = [&](const char* name) {
      return args ? hub::text::get_string(*args, name) : std::string();
    };
    const auto number = [&](const char* name, auto otherwise) {
      decltype(otherwise) value = otherwise;
      const json said = hub::text::parse_json(text(name)).value_or(json());
      if (said.is_number())
        value = static_cast<decltype(otherwise)>(std::clamp(said.get<double>(), -1e6, 1e6));
      return value;
    };
    model_options about;
    about.id = run.id;
    about.name = run.name;
    about.state = hub::model_state::training;
    about.data = text("data");
    about.cfg = text("model");
    if (about.cfg.ends_with(".pt")) about.weights = std::exchange(about.cfg, "");
    about.epochs =
        hub::text::get_int(run.started, "epochs").value_or(number("epochs", about.epochs));
    about.batch = number("batch", about.batch);
    about.imgsz = number("imgsz", about.imgsz);
    about.patience = number("patience", about.patience);
    about.device = text("device");
    about.cache = text("cache");
    return about;
  }

  static json metrics_of(const json& data) {
    json metrics = data.at("metrics");
    if (data.contains("fitness")) metrics["fitness"] = data.at("fitness");
    return metrics;
  }

  static std::string agent_of(const json& start) {
    const json* started = hub::text::get_member(start, "started");
    const json* environment = started ? hub::text::get_member(*started, "environment") : nullptr;
    if (!environment) return "a client of the Platform";
    const std::string version = hub::text::get_string(*environment, "ultralyticsVersion");
    const std::string host = hub::text::get_string(*environment, "hostname");
    return (version.empty() ? "a client of the Platform" : "ultralytics " + version) +
           (host.empty() ? "" : " on " + host);
  }

  void show_files(const std::string& id) {
    hub_model with_files;
    model_store::load_checkpoints(models_.folder_of(id), with_files);
    models_.show_run(
        id, [&](hub_model& shown) { shown.checkpoints = std::move(with_files.checkpoints); });
  }

  // ---- what is there at the start ----

  // Under the run's files_of(), or while nothing is served.
  void load(const fs::path& folder) {
    json page = hub::text::parse_json(read_file(folder / "run.json").value_or("")).value_or(json());
    const std::string id = folder.filename().string();
    if (hub::text::get_string(page, "id") != id)
      return say("leaving out " + folder.string() + ": it has no run.json of its own");
    const hub::time_point began = time_from(page);
    apply({began, id, "training_started", std::move(page)}, false);
    for (json& line : read_lines(folder / "events.jsonl")) {
      const hub::time_point at = time_from(line);
      const std::string kind = hub::text::get_string(line, "kind");
      if (kind != "training_started" && line.contains("data") &&
          fault_of(kind, line["data"]).empty())
        apply({at, id, kind, std::move(line["data"])}, false);
    }
    show_files(id);
    const auto renamed = hub::text::parse_json(read_file(folder / "model.json").value_or(""));
    if (renamed)
      models_.show_run(id, [&](hub_model& shown) {
        shown.about.name = hub::text::get_string(*renamed, "name");
      });
  }

  void forget(const std::string& id) {
    const std::lock_guard lock(mutex_);
    logic_.remove_model(id);
  }

  // DATA/datasets/OWNER/NAME.ndjson, which a person puts there.
  void load_datasets() {
    std::error_code none;
    for (const auto& each : fs::recursive_directory_iterator(datasets_, none))
      if (each.is_regular_file() && each.path().extension() == ".ndjson")
        logic_.add_dataset({.owner = each.path().parent_path().filename().string(),
                            .name = each.path().stem().string(),
                            .file = each.path().lexically_relative(datasets_).generic_string()});
  }

  model_store& models_;
  key_ring& keys_;
  fs::path datasets_;
  const url_signer signer_{random_text(32)};
  mutable std::mutex mutex_;  // of logic_ and root_; nobody holds it during I/O
  platform_logic logic_;
  std::string root_;  // of the request that logic_ decides
  std::mutex starting_;
};

}  // namespace local_hub
