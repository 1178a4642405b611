// SPDX-License-Identifier: MIT
//
// Sends what trainings that died left in a spool.
//
//     sync [--dry-run] SPOOL_DIR [MODEL...]
//
// Serves both protocols: a model of HUB v1 is named by its id, a run on the Platform as PROJECT/NAME. A
// run that was killed stays open, so that it can be resumed.
//
// Endpoints and key come from the environment or the settings file, as for every session.
// Exit status: 0 nothing is left, 1 something is, 2 usage.

#include "flags.hpp"
#include "hub_session.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

static constexpr char usage[] =
    R"(usage: sync [--dry-run] SPOOL_DIR [MODEL...]

  SPOOL_DIR  what the trainings had as --spool or spool.directory
  MODEL      the ids of the models to send, or PROJECT/NAME of runs on the Platform
             (default: all that are there)
  --dry-run  only show what is there
  --help     this text
)";

struct settings {
  std::filesystem::path folder;
  std::vector<std::string> models;  // none: all
  bool dry_run = false;
};

static settings read_settings(const examples::flags& flags) {
  if (flags.operands().empty()) throw examples::usage_error("SPOOL_DIR is needed");
  settings wanted{.folder = flags.operands()[0],
                  .models = {flags.operands().begin() + 1, flags.operands().end()},
                  .dry_run = flags.has("--dry-run")};
  std::error_code ignored;
  if (!std::filesystem::is_directory(wanted.folder, ignored))
    throw examples::usage_error("SPOOL_DIR: " + wanted.folder.string() + " is not a folder");
  return wanted;
}

static bool is_on_platform(const hub::spooled_model& model) { return model.protocol == "platform"; }

// What a person calls it, here and on the command line.
static std::string label(const hub::spooled_model& model) {
  return is_on_platform(model) ? model.project + '/' + model.name : model.model_id;
}

// What the spool holds of the models that are wanted, those with nothing left aside.
static std::vector<hub::spooled_model> find_left(const settings& wanted) {
  std::vector<hub::spooled_model> left = hub::list_spool(wanted.folder);
  std::erase_if(left, [&](const hub::spooled_model& model) {
    const bool is_wanted =
        wanted.models.empty() ||
        std::find(wanted.models.begin(), wanted.models.end(), label(model)) != wanted.models.end();
    return model.empty() || !is_wanted;
  });
  return left;
}

static std::string counted(std::uintmax_t count, const char* what) {
  return std::to_string(count) + ' ' + what + (count == 1 ? "" : "s");
}

// Such as "12 epochs, the final model of epoch 3 (7000 bytes)".
static std::string describe(const hub::spooled_model& model) {
  std::string out = counted(model.epochs, "epoch");
  if (model.checkpoint_epoch)
    out += std::string(", the ") + (model.is_final ? "final model" : "checkpoint") + " of epoch " +
           std::to_string(*model.checkpoint_epoch) + " (" +
           counted(model.checkpoint_bytes, "byte") + ")";
  if (model.console_lines > 0) out += ", " + counted(model.console_lines, "line");
  if (model.has_ending) out += ", the end of the training";
  if (model.model_id.empty()) out += ", and the run is not made yet";
  return out;
}

static void show(const std::vector<hub::spooled_model>& left) {
  for (const hub::spooled_model& model : left)
    std::printf("%s: %s, in a journal of %s (%s)\n", label(model).c_str(), describe(model).c_str(),
                counted(model.journal_bytes, "byte").c_str(), model.protocol.c_str());
}

// Sends what the spool has for it, and says where that is to be seen.
template <class Session>
void flush(Session& session, const std::string& name) {
  session.stop_heartbeat();
  const hub::delivery sent = session.flush(1h);
  if (sent.why) std::cerr << "sync: " << name << ": " << sent.why->message << '\n';
  const std::string page = session.model_url();
  if (!page.empty()) std::printf("%s is shown at %s\n", name.c_str(), page.c_str());
}

// One session on a model. On HUB v1 its constructor sends what there is even where it throws, because
// HUB takes the model for trained; what was sent then shows in what is left.
static void send(const settings& wanted, const hub::spooled_model& model) {
  const hub::session_options options{.spool = {.directory = wanted.folder}};
  try {
    if (is_on_platform(model)) {
      hub::platform_session session{{.project = model.project,
                                     .name = model.name,
                                     .resume = true,
                                     .spool_number = model.number},
                                    options};
      flush(session, label(model));
    } else {
      hub::training_session session{model.model_id, options};
      flush(session, label(model));
    }
  } catch (const hub::session_error& problem) {
    if (problem.code() != hub::errc::already_trained)
      std::cerr << "sync: " << label(model) << ": " << problem.what() << '\n';
  }
}

// Sends what one model has left, in as many sessions as it takes while each of them gets on.
static void send_all(const settings& wanted, const hub::spooled_model& model) {
  for (hub::spooled_model before = model;;) {
    send(wanted, before);
    std::vector<hub::spooled_model> left =
        find_left({.folder = wanted.folder, .models = {label(model)}});
    std::erase_if(left, [&](const auto& each) { return each.number != model.number; });
    if (left.empty() || left[0].epochs >= before.epochs) return;
    before = std::move(left[0]);
  }
}

static int run(const settings& wanted) {
  const std::vector<hub::spooled_model> found = find_left(wanted);
  show(found);
  if (!wanted.dry_run)
    for (const hub::spooled_model& model : found) send_all(wanted, model);
  const std::size_t left = wanted.dry_run ? found.size() : find_left(wanted).size();
  if (left == 0)
    std::printf("Nothing is left in %s.\n", wanted.folder.string().c_str());
  else
    std::printf("%s left in %s.\n", counted(left, "model").c_str(), wanted.folder.string().c_str());
  return left == 0 ? 0 : 1;
}

int main(int argc, char** argv) {
  try {
    const examples::flags flags(argc, argv, {}, {"--dry-run", "--help"});
    if (flags.has("--help")) {
      std::cout << usage;
      return 0;
    }
    return run(read_settings(flags));
  } catch (const examples::usage_error& problem) {
    std::cerr << "sync: " << problem.what() << "; see sync --help\n";
    return 2;
  }
}
