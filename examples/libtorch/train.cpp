// SPDX-License-Identifier: MIT
//
// A training with libtorch that reports to HUB. This is the one file that makes a session, and so
// the one that knows the network; the training itself is in training.cpp.
//
//     train --model MODEL [--epochs N] [--out DIR] ...     (--help lists every flag)
//     train --model MODEL --resume       goes on from the last checkpoint that HUB has
//
// Exit status: 0 all was delivered, 1 something is missing, 2 usage, or HUB refused the session.

#include "hub_session.hpp"

#include "../flags.hpp"
#include "shapes.hpp"
#include "training.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>

namespace {

constexpr char usage[] =
    R"(usage: train --model MODEL [flags]

  --model MODEL            an ID, a KEY_ID, or the model's URL on HUB
  --epochs N               how long to train at most (default: what HUB says, else 15)
  --patience N             end after N epochs without progress (default: what HUB says, else 5)
  --resume                 go on from the last checkpoint on HUB, if it has one
  --out DIR                where last.pt and best.pt go (default runs)
  --metrics-interval S     at most one metrics request in S seconds (default 3)
  --checkpoint-interval S  at most one checkpoint in S seconds (default 900)
  --help                   this text

Endpoints and key come from ULTRALYTICS_HUB_API, ULTRALYTICS_HUB_WEB and ULTRALYTICS_API_KEY.
)";

struct settings {
  std::string model;
  std::optional<int> epochs;
  std::optional<int> patience;
  bool resume = false;
  std::filesystem::path folder = "runs";
  hub::rate_limit_options rate_limits;
};

settings read_settings(const examples::flags& flags) {
  settings wanted;
  if (!flags.operands().empty())
    throw examples::usage_error("\"" + flags.operands()[0] + "\": only flags are accepted");
  if (!flags.has("--model"))
    throw examples::usage_error("--model: an ID, a KEY_ID or the model's URL is needed");
  wanted.model = *flags.text("--model");
  wanted.epochs = flags.whole_number("--epochs", 1, 1'000'000);
  wanted.patience = flags.whole_number("--patience", 1, 1'000'000);
  wanted.resume = flags.has("--resume");
  wanted.folder = flags.text("--out").value_or("runs");
  if (const auto s = flags.seconds("--metrics-interval", 0)) wanted.rate_limits.metrics = *s;
  if (const auto s = flags.seconds("--checkpoint-interval", 0)) wanted.rate_limits.checkpoint = *s;
  return wanted;
}

// The checkpoint that HUB has takes the place of last.pt. Returns whether there is one.
bool fetch_last(hub::training_session& session, const std::filesystem::path& last) {
  if (session.model().state != hub::model_state::training) {
    std::printf("The training starts anew: HUB has no checkpoint of this model yet.\n");
    return false;
  }
  const hub::result<hub::fetched_file> fetched = session.fetch_model_file(last);
  // It may be there the next time, so that no new training takes its place.
  if (!fetched) throw std::runtime_error(fetched.error().message);
  return true;
}

void print_epoch(const epoch_summary& done) {
  std::printf("epoch %d of %d: loss %.4f; validation loss %.4f, accuracy %.3f%s\n", done.epoch + 1,
              done.epochs, done.train_loss, done.validation_loss, done.validation.accuracy(),
              done.is_best ? ", the best so far" : "");
  std::fflush(stdout);  // a log that is read while the training goes on
}

// Prints the last lines and returns the exit status.
int report(const training_outcome& outcome, const std::string& page) {
  std::printf("%d epochs done%s; the best accuracy is %.3f.\n", outcome.epochs_done,
              outcome.gave_up ? ", the last of them without progress" : "", outcome.best_accuracy);
  const hub::delivery& delivered = outcome.delivered;
  if (delivered.complete()) {
    std::printf("HUB has all of it: %s\n", page.c_str());
    return 0;
  }
  const std::string why = delivered.why ? delivered.why->message : "no reason is known";
  std::printf("Something is missing on HUB: %s\n", why.c_str());
  return 1;
}

int run(const settings& wanted) {
  std::filesystem::create_directories(wanted.folder);
  // save() in training.cpp renames, so no copy is needed to upload in peace.
  hub::training_session session{
      wanted.model, {.rate_limits = wanted.rate_limits, .snapshot = hub::snapshot::none}};
  const hub::train_args& asked = session.train_args();
  training_options options{.folder = wanted.folder};
  options.epochs = std::max(wanted.epochs.value_or(asked.epochs.value_or(options.epochs)), 1);
  options.patience =
      std::max(wanted.patience.value_or(asked.patience.value_or(options.patience)), 1);
  if (asked.batch.value_or(-1) >= 1) options.batch = static_cast<int>(*asked.batch);
  options.resume = wanted.resume && fetch_last(session, wanted.folder / "last.pt");
  std::optional<confusion_matrix> best;  // of this run
  options.say = [&](const epoch_summary& done) {
    print_epoch(done);
    if (done.is_best) best = done.validation;
  };
  const training_outcome outcome = train(options, session);
  if (best) best->print(shapes::names);
  return report(outcome, session.model_url());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const examples::flags flags(argc, argv,
                                {"--model", "--epochs", "--patience", "--out", "--metrics-interval",
                                 "--checkpoint-interval"},
                                {"--resume", "--help"});
    if (flags.has("--help")) {
      std::cout << usage;
      return 0;
    }
    return run(read_settings(flags));
  } catch (const examples::usage_error& problem) {
    std::cerr << "train: " << problem.what() << "; see train --help\n";
    return 2;
  } catch (const hub::session_error& problem) {
    std::cerr << "train: " << problem.what() << '\n';
    return 2;
  } catch (const std::exception& problem) {  // a disk that is full, a file that is not a training
    std::cerr << "train: " << problem.what() << '\n';
    return 1;
  }
}
