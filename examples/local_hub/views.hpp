// SPDX-License-Identifier: MIT
//
// What the page shows of a model, as JSON and as CSV. Pure functions of what the store has: no
// clock, no file. Times are seconds since 1970, which is what JavaScript needs; names go out as they
// came in, and it is the page's part to show them as text and nothing else.

#pragma once

#include "records.hpp"
#include "runs.hpp"
#include "store.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace local_hub {

inline constexpr std::size_t spark_points_max = 60;
inline constexpr std::size_t spans_max = 1000;

inline std::int64_t seconds_of(wall_time when) {
  return std::chrono::duration_cast<std::chrono::seconds>(when.time_since_epoch()).count();
}

inline std::string to_text(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// Epochs are counted from 0 on the wire, and from 1 wherever a person reads of them.
inline int counted(int epoch) { return epoch + 1; }

// ---- a model in a list --------------------------------------------------------------------------

// The metric that a model is judged by, and whether less of it is better: HUB's own where it is
// there, else an accuracy, else any metric, else the validation loss, else any.
struct yardstick {
  std::string name;
  bool less_is_better;
};

inline std::optional<yardstick> yardstick_of(const json& values) {
  for (const char* name : {"metrics/mAP50-95(B)", "metrics/accuracy_top1"})
    if (hub::text::get_number(values, name)) return yardstick{name, false};
  for (const std::string_view prefix : {"metrics/", "val/", "train/"})
    for (const auto& entry : values.items())
      if (entry.key().starts_with(prefix) && entry.value().is_number())
        return yardstick{entry.key(), entry.key().find("loss") != std::string::npos};
  return std::nullopt;
}

// The best value so far, and a few points of the way there.
inline json best_of(const hub_model& model) {
  if (model.metrics.empty()) return nullptr;
  const auto by = yardstick_of(model.metrics.rbegin()->second);
  if (!by) return nullptr;
  std::optional<double> best;
  int best_epoch = 0;
  std::vector<double> way;
  for (const auto& [epoch, values] : model.metrics) {
    const auto value = hub::text::get_number(values, by->name.c_str());
    if (!value) continue;
    way.push_back(*value);
    if (best && (by->less_is_better ? *value >= *best : *value <= *best)) continue;
    best = value;
    best_epoch = epoch;
  }
  json spark = json::array();
  const std::size_t points = std::min(way.size(), spark_points_max);
  for (std::size_t i = 0; i < points; ++i)
    spark.push_back(way[points < 2 ? 0 : i * (way.size() - 1) / (points - 1)]);
  return {{"name", by->name}, {"value", *best}, {"epoch", counted(best_epoch)}, {"spark", spark}};
}

inline std::string_view state_of(const hub_model& model, const run_facts* run, hub::time_point now,
                                 hub::duration silence) {
  if (run && run->has_failed) return "failed";
  if (run && run->is_stopping) return "stopping";
  if (model.about.state == hub::model_state::trained) return "trained";
  if (model.connected(now, silence)) return "training";
  const bool untouched =
      model.heartbeats.empty() && model.metrics.empty() && model.checkpoints.empty();
  return untouched ? "new" : "disconnected";
}

// ---- time ----

using arrivals = std::map<int, wall_time>;  // epoch -> when its values came

// When the first and the last thing of a model arrived.
struct lifetime {
  std::optional<wall_time> first = {};
  std::optional<wall_time> last = {};

  void add(wall_time when) {
    first = std::min(first.value_or(when), when);
    last = std::max(last.value_or(when), when);
  }
};

inline lifetime lifetime_of(const hub_model& model, const arrivals& arrived) {
  lifetime found;
  if (!model.heartbeats.empty()) {
    found.add(wall_time_of(model.heartbeats.front().at));
    found.add(wall_time_of(model.heartbeats.back().at));
  }
  for (const auto& [epoch, when] : arrived) found.add(when);
  for (const checkpoint_record& each : model.checkpoints) found.add(wall_time_of(each.at));
  return found;
}

// Seconds for an epoch, by those that arrived last. What took longer than a training may be silent was
// a break; several epochs may arrive in one message, so one by itself says nothing.
inline std::optional<double> pace_of(const arrivals& arrived, hub::duration silence) {
  constexpr std::size_t looked_at = 50;
  std::vector<wall_time> times;
  for (auto at = arrived.rbegin(); at != arrived.rend() && times.size() <= looked_at; ++at)
    times.push_back(at->second);
  std::sort(times.begin(), times.end());
  double seconds = 0;
  int steps = 0;
  for (std::size_t i = 1; i < times.size(); ++i) {
    const std::chrono::duration<double> step = times[i] - times[i - 1];
    if (step > silence) continue;
    seconds += step.count();
    ++steps;
  }
  if (steps == 0) return std::nullopt;
  return seconds / steps;
}

// When it began, how long it took until the last that was heard of it, and seconds for an epoch.
inline json times_of(const hub_model& model, const arrivals& arrived, hub::duration silence) {
  const lifetime life = lifetime_of(model, arrived);
  const auto pace = pace_of(arrived, silence);
  return {{"began", life.first ? json(seconds_of(*life.first)) : json()},
          {"took", life.first ? json(seconds_of(*life.last) - seconds_of(*life.first)) : json()},
          {"pace", pace ? json(*pace) : json()}};
}

// All but the best metric, which takes long enough to be worth keeping.
inline json row_of(const hub_model& model, const run_facts* run, hub::time_point now,
                   hub::duration silence) {
  json row = {{"id", model.about.id},
              {"name", model.about.name},
              {"state", state_of(model, run, now, silence)},
              {"epochs", model.about.epochs},
              {"epoch", model.metrics.empty() ? 0 : counted(model.metrics.rbegin()->first)},
              {"last", nullptr},
              {"agent", nullptr}};
  if (!model.heartbeats.empty()) {
    row["last"] = seconds_of(wall_time_of(model.heartbeats.back().at));
    row["agent"] = model.heartbeats.back().agent;
  }
  return row;
}

// ---- a model by itself --------------------------------------------------------------------------

// Heartbeats without a gap, from the first to the last of them.
inline json spans_of(const hub_model& model, hub::duration silence) {
  json spans = json::array();
  const hub::testing::heartbeat_record* before = nullptr;
  for (const auto& beat : model.heartbeats) {
    const std::int64_t at = seconds_of(wall_time_of(beat.at));
    if (before && beat.at - before->at <= silence && beat.agent == before->agent) {
      spans.back()["to"] = at;
      spans.back()["beats"] = spans.back()["beats"].get<int>() + 1;
    } else {
      spans.push_back({{"from", at}, {"to", at}, {"beats", 1}, {"agent", beat.agent}});
    }
    before = &beat;
  }
  if (spans.size() > spans_max)
    spans.erase(spans.begin(), spans.end() - static_cast<std::ptrdiff_t>(spans_max));
  return spans;
}

// The checkpoints that are on disk: of several with one name, the last.
inline std::map<std::string, checkpoint_record> kept_checkpoints(const hub_model& model) {
  std::map<std::string, checkpoint_record> kept;
  for (const checkpoint_record& each : model.checkpoints)
    kept.insert_or_assign(model_store::name_of(each), each);
  return kept;
}

inline json checkpoints_of(const hub_model& model) {
  json out = json::array();
  for (const auto& [name, record] : kept_checkpoints(model))
    out.push_back({{"name", name},
                   {"epoch", counted(record.epoch)},
                   {"final", record.is_final},
                   {"best", record.is_best},
                   {"map", record.is_final ? json(record.map) : json()},
                   {"bytes", record.size_bytes},
                   {"sha256", record.sha256},
                   {"time", seconds_of(wall_time_of(record.at))}});
  std::sort(out.begin(), out.end(), [](const json& a, const json& b) {
    return std::pair(a["final"].get<bool>(), a["epoch"].get<int>()) >
           std::pair(b["final"].get<bool>(), b["epoch"].get<int>());
  });
  return out;
}

inline json train_args_of(const hub_model& model) {
  json args = to_json(model.about);
  for (const char* each : {"id", "name"}) args.erase(each);
  return args;
}

// The values of the epochs, a column for each name: 10,000 epochs are to be drawn within a second.
inline json columns_of(const hub_model& model, const arrivals& arrived,
                       const std::vector<int>& epochs) {
  std::map<std::string, std::vector<json>> columns;
  for (std::size_t row = 0; row < epochs.size(); ++row)
    for (const auto& entry : model.metrics.at(epochs[row]).items()) {
      std::vector<json>& column = columns[entry.key()];
      column.resize(epochs.size());
      if (entry.value().is_number()) column[row] = entry.value();
    }
  std::vector<int> counts;
  std::vector<std::int64_t> times;
  for (const int epoch : epochs) {
    counts.push_back(counted(epoch));
    times.push_back(seconds_of(arrived.at(epoch)));
  }
  return {{"epochs", counts}, {"times", times}, {"columns", columns}};
}

// ---- a run of the Platform's clients ------------------------------------------------------------

inline json to_json(const run_facts& run) {
  return {{"owner", run.owner},     {"project", run.project},
          {"name", run.name},       {"stopping", run.is_stopping},
          {"ended", run.has_ended}, {"failed", run.has_failed},
          {"why", run.why}};
}

inline json member_of(const json& object, const char* name) {
  const json* found = hub::text::get_member(object, name);
  return found ? *found : json();
}

// How it was started, and what is known of its end.
inline json details_of(const platform_model& run) {
  return {{"owner", run.owner},
          {"project", run.project},
          {"name", run.name},
          {"run_id", run.run_id},
          {"stopping", run.cancelled && run.state == platform_state::training},
          {"ended", run.state == platform_state::completed},
          {"failed", run.state == platform_state::failed},
          {"why", hub::text::get_string(run.ending, "error")},
          {"cancelled", run.cancelled},
          {"args", member_of(run.started, "trainArgs")},
          {"environment", member_of(run.started, "environment")},
          {"started", seconds_of(wall_time_of(run.started_at))},
          {"chunks", run.console.empty() ? 0 : run.console.rbegin()->first}};
}

// What it printed after the chunk `since`, as far as it is at hand.
inline json console_of(const platform_model& run, std::uint64_t since) {
  json chunks = json::array();
  for (auto each = run.console.upper_bound(since); each != run.console.end(); ++each)
    chunks.push_back(
        {{"chunk", each->first}, {"content", hub::text::get_string(each->second, "content")}});
  return {{"chunks", chunks}};
}

// Numbers of a value, however deep they lie: "gpus/0/temp". Disks are told apart by where they are.
inline void add_numbers(const json& value, const std::string& name,
                        std::map<std::string, json>& numbers) {
  if (value.is_number()) numbers[name] = value;
  if (!value.is_structured()) return;
  std::size_t index = 0;
  for (const auto& [key, member] : value.items()) {
    const std::string mount = hub::text::get_string(member, "mount");
    const std::string part = value.is_object() ? key
                             : mount.empty()   ? std::to_string(index)
                                               : mount;
    add_numbers(member, name.empty() ? part : name + '/' + part, numbers);
    ++index;
  }
}

// The figures of its machine, a column for each.
inline json system_of(const platform_model& run) {
  std::map<std::string, std::vector<json>> columns;
  std::vector<int> epochs;
  for (const auto& [epoch, data] : run.epochs) {
    std::map<std::string, json> numbers;
    add_numbers(member_of(data, "system"), "", numbers);
    if (numbers.empty()) continue;
    epochs.push_back(counted(epoch));
    for (auto& [name, number] : numbers) {
      columns[name].resize(epochs.size());
      columns[name].back() = std::move(number);
    }
  }
  for (auto& [name, column] : columns) column.resize(epochs.size());
  return {{"epochs", epochs}, {"columns", columns}};
}

// What it told when it was complete.
inline json ending_of(const platform_model& run) {
  const json results = member_of(run.ending, "results");
  const auto best = hub::text::get_int(results, "bestEpoch");
  return {{"metrics", member_of(results, "metrics")},
          {"best_epoch", best ? json(counted(*best)) : json()},
          {"best_fitness", member_of(results, "bestFitness")},
          {"validation", member_of(results, "validation")},
          {"class_names", member_of(run.ending, "classNames")},
          {"plots", member_of(run.ending, "plots")}};
}

// ---- CSV ----------------------------------------------------------------------------------------

// One cell. A spreadsheet would run a name that begins like a formula, so such a name is quoted for
// it as well.
inline std::string csv_cell(const std::string& text) {
  std::string cell = "\"";
  if (!text.empty() && std::string_view("=+-@\t\r").find(text[0]) != std::string_view::npos)
    cell += '\'';
  for (const char c : text) cell.append(c == '"' ? 2 : 1, c);
  return cell + '"';
}

// An epoch a line: when its values arrived, in words and in seconds since the training began, and the
// values.
inline std::string csv_of(const hub_model& model, const arrivals& arrived) {
  const lifetime life = lifetime_of(model, arrived);
  std::set<std::string> names;
  for (const auto& [epoch, values] : model.metrics)
    for (const auto& entry : values.items()) names.insert(entry.key());
  std::string csv = "epoch,time,seconds";
  for (const std::string& name : names) csv += ',' + csv_cell(name);
  csv += "\r\n";
  for (const auto& [epoch, values] : model.metrics) {
    const wall_time when = arrived.at(epoch);
    csv += std::to_string(counted(epoch)) + ',' + to_text(when) + ',' +
           std::to_string(seconds_of(when) - seconds_of(*life.first));
    for (const std::string& name : names) {
      csv += ',';
      if (const auto value = hub::text::get_number(values, name.c_str()))
        hub::text::append_number(csv, *value);
    }
    csv += "\r\n";
  }
  return csv;
}

}  // namespace local_hub
