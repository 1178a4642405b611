// SPDX-License-Identifier: MIT
//
// Sends a checkpoint that was trained elsewhere to its model on HUB, or to Ultralytics Platform as a
// run of its own.
//
//     upload [--epoch N] [--map X] [--best|--last] MODEL FILE
//     upload --platform PROJECT [--name NAME] [--epoch N] [--map X] FILE
//
// Endpoints and key come from the environment or the settings file, as for every session.
// Exit status: 0 all was delivered, 1 something is missing, 2 usage, or the session was refused.

#include "flags.hpp"
#include "hub_session.hpp"

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>
#include <utility>

using namespace std::chrono_literals;

static constexpr char usage[] =
    R"(usage: upload [--epoch N] [--map X] [--best|--last] MODEL FILE
       upload --platform PROJECT [--name NAME] [--epoch N] [--map X] FILE

  MODEL               an ID, a KEY_ID, or the model's URL on HUB
  FILE                the weights
  --platform PROJECT  make a run on Ultralytics Platform that has FILE and is complete: PROJECT or
                      OWNER/PROJECT
  --name NAME         of the model there (default train)
  --best              FILE is the final model; ends the model's training on HUB (the default)
  --last              FILE is a checkpoint of a training that goes on
  --epoch N           the epoch it was saved after, counted from 0 (default 0)
  --map X             its score, from 0 to 1, with --best only (default 0)
  --help              this text
)";

struct settings {
  std::string model;  // on HUB, or ...
  bool on_platform = false;
  hub::platform_run run;  // ... the one that is made on the Platform
  std::filesystem::path file;
  int epoch = 0;
  double map = 0;
  bool is_final = true;
};

static settings read_settings(const examples::flags& flags) {
  const bool on_platform = flags.has("--platform");
  if (on_platform && flags.operands().size() != 1)
    throw examples::usage_error("FILE is needed, and nothing else: the Platform makes the model");
  if (!on_platform && flags.operands().size() != 2)
    throw examples::usage_error("MODEL and FILE are needed, and nothing else");
  if (on_platform && flags.has("--last"))
    throw examples::usage_error("--last: on the Platform the run ends with FILE");
  if (!on_platform && flags.has("--name"))
    throw examples::usage_error("--name: a model on HUB has its name already");
  if (flags.has("--best") && flags.has("--last"))
    throw examples::usage_error("--best, --last: only one of them can be meant");
  if (flags.has("--last") && flags.has("--map"))
    throw examples::usage_error("--map: only a final model has a score, so not with --last");

  settings wanted;
  wanted.model = flags.operands().front();
  wanted.on_platform = on_platform;
  wanted.file = flags.operands().back();
  wanted.run.project = flags.text("--platform").value_or("");
  wanted.run.name = flags.text("--name").value_or("");
  wanted.epoch = flags.whole_number("--epoch", 0, 1'000'000).value_or(0);
  wanted.map = flags.number("--map", 0, 1).value_or(0);
  wanted.is_final = !flags.has("--last");

  // The session would say so too, but only after it has signed in.
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(wanted.file, ignored))
    throw examples::usage_error("FILE: " + wanted.file.string() + " is not a file");
  return wanted;
}

struct sent {
  hub::delivery delivered;
  std::string page;  // where it is shown
};

static sent send(const settings& wanted) {
  if (wanted.on_platform) {
    hub::platform_session session{wanted.run};
    hub::delivery delivered = session.on_train_end(wanted.epoch, wanted.file, wanted.map);
    return {.delivered = std::move(delivered), .page = session.model_url()};
  }
  hub::training_session session{wanted.model};
  if (!wanted.is_final) session.upload_model(wanted.epoch, wanted.file, false);
  hub::delivery delivered = wanted.is_final
                                ? session.on_train_end(wanted.epoch, wanted.file, wanted.map)
                                : session.flush(1h);
  return {.delivered = std::move(delivered), .page = session.model_url()};
}

// Says what arrived and returns the exit status.
static int report(const settings& wanted, const sent& what) {
  const hub::delivery& delivered = what.delivered;
  const std::string file = wanted.file.string();
  const char* role = wanted.is_final ? "final model" : "checkpoint";
  const char* server = wanted.on_platform ? "The Platform" : "HUB";
  const bool arrived =
      wanted.is_final ? delivered.final_model_delivered : delivered.checkpoints_delivered == 1;
  if (arrived && delivered.complete()) {
    std::printf("%s has %s as the %s of epoch %d. See %s\n", server, file.c_str(), role,
                wanted.epoch, what.page.c_str());
    return 0;
  }
  const std::string why = delivered.why ? delivered.why->message : "only rank 0 sends";
  std::printf("%s does not have %s: %s\n", server, file.c_str(), why.c_str());
  return 1;
}

int main(int argc, char** argv) {
  try {
    const examples::flags flags(argc, argv, {"--platform", "--name", "--epoch", "--map"},
                                {"--best", "--last", "--help"});
    if (flags.has("--help")) {
      std::cout << usage;
      return 0;
    }
    const settings wanted = read_settings(flags);
    return report(wanted, send(wanted));
  } catch (const examples::usage_error& problem) {
    std::cerr << "upload: " << problem.what() << "; see upload --help\n";
    return 2;
  } catch (const hub::session_error& problem) {
    std::cerr << "upload: " << problem.what() << '\n';
    return 2;
  }
}
