// SPDX-License-Identifier: MIT
//
// A real training that reports to HUB: a small multi-layer perceptron learns to tell two spirals
// apart. Everything that is about HUB is in train(), which knows hub::training_callbacks alone, and
// in run(), which opens the session.
//
//     train --model MODEL [--epochs N] [--out DIR] ...        (--help lists every flag)
//     train --model MODEL --resume       goes on from the last checkpoint that HUB has
//
// Exit status: 0 all was delivered, 1 something is missing, 2 usage, or HUB refused the session.

#include "flags.hpp"
#include "spirals.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

// With -DTRAIN_OVER_CURL the session speaks through libcurl, and nothing else changes.
#if defined(TRAIN_OVER_CURL)
#define HUB_SESSION_NO_HTTPLIB
#include "curl_transport.hpp"
template <class Protocol>
using session_with =
    hub::basic_training_session<curl_transport, hub::steady_clock, hub::thread_sleeper, Protocol>;
using training_session = session_with<hub::hub_v1>;
using platform_session = session_with<hub::platform>;
#else
#include "hub_session.hpp"
using hub::platform_session;
using hub::training_session;
#endif

namespace {

// ---- the training -------------------------------------------------------------------------------

struct settings {
  std::string model;     // on HUB, or ...
  std::string project;   // ... on Ultralytics Platform, and
  std::string run_name;  // the model's name there
  std::optional<int> epochs;
  bool resume = false;
  std::filesystem::path folder = "runs";
  std::filesystem::path spool;             // "" for none
  std::chrono::nanoseconds epoch_time{0};  // an epoch takes at least this long
  hub::rate_limit_options rate_limits;
  hub::limit_options limits;
};

// Trains to the end and reports every epoch to `session`; returns what HUB got of it.
hub::delivery train(const settings& wanted, spirals::trainee& it,
                    hub::training_callbacks& session) {
  double best_accuracy = -1;
  if (it.at.done > 0) {  // what was loaded is the best so far
    best_accuracy = evaluate(it.net, it.validation_set).accuracy;
    save_weights(it.net, it.at, wanted.folder / "best.pt");
  }

  session.on_pretrain_routine_end();
  const int epochs = it.at.epochs;
  for (int epoch = it.at.done; epoch < epochs && !session.stop_requested(); ++epoch) {
    const auto epoch_end = std::chrono::steady_clock::now() + wanted.epoch_time;
    spirals::epoch_summary done{.epoch = epoch, .rate = spirals::learning_rate(epoch, epochs)};
    done.train = train_one_epoch(it.net, it.training_set, done.rate, it.random);
    done.validation = evaluate(it.net, it.validation_set);
    std::this_thread::sleep_until(epoch_end);
    print(done, epochs);
    session.on_fit_epoch_end(epoch, metrics_of(done, it.net));

    it.at.done = epoch + 1;
    const bool is_best = done.validation.accuracy > best_accuracy;
    if (is_best) {
      best_accuracy = done.validation.accuracy;
      save_weights(it.net, it.at, wanted.folder / "best.pt");
    }
    save_weights(it.net, it.at, wanted.folder / "last.pt");
    session.on_model_save(epoch, wanted.folder / "last.pt", is_best);
  }
  return session.on_train_end(it.at.done - 1, wanted.folder / "best.pt", best_accuracy);
}

// ---- the program --------------------------------------------------------------------------------

constexpr char usage[] =
    R"(usage: train --model MODEL [flags]
       train --platform PROJECT [--name NAME] [flags]

  --model MODEL            an ID, a KEY_ID, or the model's URL on HUB
  --platform PROJECT       report to Ultralytics Platform: PROJECT or OWNER/PROJECT
  --name NAME              of the model there (default train)
  --epochs N               how long to train (default: what HUB says, else 60)
  --resume                 go on from the last checkpoint on HUB, if it has one
  --out DIR                where last.pt and best.pt go (default runs)
  --spool DIR              keep in DIR what HUB has not confirmed, for the next start on this model
                           or for sync; with it, training starts also while HUB is away
  --epoch-seconds S        stretch every epoch to at least S seconds (default 0)
  --metrics-interval S     at most one metrics request in S seconds (default 3)
  --checkpoint-interval S  at most one checkpoint in S seconds (default 900)
  --heartbeat-interval S   one heartbeat every S seconds (default 300)
  --request-deadline S     a small request that takes longer than S seconds is made again (default 30)
  --shutdown-deadline S    on a signal, what is left is sent for S seconds at most (default 2)
  --help                   this text

Endpoints and key come from ULTRALYTICS_HUB_API, ULTRALYTICS_HUB_WEB and ULTRALYTICS_API_KEY, and
for the Platform from ULTRALYTICS_PLATFORM_URL and ULTRALYTICS_API_KEY.
)";

settings read_settings(const examples::flags& flags) {
  settings wanted;
  if (!flags.operands().empty())
    throw examples::usage_error("\"" + flags.operands()[0] + "\": only flags are accepted");
  if (flags.has("--model") == flags.has("--platform"))
    throw examples::usage_error(
        "--model: an ID, a KEY_ID or the model's URL is needed, or --platform PROJECT in its "
        "place");

  wanted.model = flags.text("--model").value_or("");
  wanted.project = flags.text("--platform").value_or("");
  wanted.run_name = flags.text("--name").value_or("");
  wanted.epochs = flags.whole_number("--epochs", 1, 1'000'000);
  wanted.resume = flags.has("--resume");
  wanted.folder = flags.text("--out").value_or("runs");
  wanted.spool = flags.text("--spool").value_or("");
  wanted.epoch_time = flags.seconds("--epoch-seconds", 0).value_or(wanted.epoch_time);
  if (const auto s = flags.seconds("--metrics-interval", 0)) wanted.rate_limits.metrics = *s;
  if (const auto s = flags.seconds("--checkpoint-interval", 0)) wanted.rate_limits.checkpoint = *s;
  if (const auto s = flags.seconds("--heartbeat-interval", 0.01)) wanted.rate_limits.heartbeat = *s;
  if (const auto s = flags.seconds("--request-deadline", 0.01)) wanted.limits.request_deadline = *s;
  if (const auto s = flags.seconds("--shutdown-deadline", 0)) wanted.limits.shutdown_deadline = *s;

  std::error_code problem;
  std::filesystem::create_directories(wanted.folder, problem);
  if (problem)
    throw examples::usage_error("--out: cannot create " + wanted.folder.string() + ": " +
                                problem.message());
  return wanted;
}

// Prints the last line and returns the exit status. `page` is where the run is shown.
int report(int epochs, const hub::delivery& delivered, const std::string& page) {
  if (delivered.complete() && !delivered.final_model_wanted) {
    std::printf("This process reports nothing to HUB: rank 0 does.\n");
    return 0;
  }
  const std::size_t checkpoints = delivered.checkpoints_delivered;
  std::string line = "HUB has " + std::to_string(delivered.epochs_delivered) + " of " +
                     std::to_string(epochs) + " epochs, " + std::to_string(checkpoints) +
                     (checkpoints == 1 ? " checkpoint, " : " checkpoints, ");
  line += delivered.final_model_delivered ? "and the final model." : "but not the final model.";
  if (delivered.why) line += " Incomplete: " + delivered.why->message;
  if (!page.empty()) line += " See " + page;
  std::printf("%s\n", line.c_str());
  return delivered.complete() ? 0 : 1;
}

// Loads the last checkpoint that HUB has, if it has one.
void resume(training_session& session, const std::filesystem::path& last, spirals::trainee& it) {
  const auto anew = [](const std::string& why) {
    std::printf("The training starts anew: %s\n", why.c_str());
  };
  if (session.model().state != hub::model_state::training)
    return anew("HUB has no checkpoint of this model yet.");
  const hub::result<hub::fetched_file> fetched = session.fetch_model_file(last);
  if (fetched)
    it.at = load_weights(it.net, last);
  else if (fetched.error().code == hub::errc::not_downloadable)
    anew(fetched.error().message);
  else  // it may be there the next time, so nothing takes its place
    throw std::runtime_error(fetched.error().message);
}

hub::session_options options(const settings& wanted) {
  return {.rate_limits = wanted.rate_limits,
          .limits = wanted.limits,
          // save_weights() renames, so no copy is needed to upload in peace.
          .snapshot = hub::snapshot::none,
          .spool = {.directory = wanted.spool, .offline = hub::offline_start::allow}};
}

// On the Platform the run is made by the session, and goes on from the weights that lie here.
int run_on_platform(const settings& wanted) {
  spirals::trainee it;
  const std::filesystem::path last = wanted.folder / "last.pt";
  if (wanted.resume && std::filesystem::exists(last)) it.at = load_weights(it.net, last);
  if (it.at.done == 0) it.at.epochs = 60;
  it.at.epochs = wanted.epochs.value_or(it.at.epochs);
  const int left = std::max(it.at.epochs - it.at.done, 0);
  platform_session session{{.project = wanted.project,
                            .name = wanted.run_name,
                            .epochs = it.at.epochs,
                            .resume = wanted.resume},
                           options(wanted)};
  const hub::console_tee shown(session);  // what is printed stands on the run's page as well
  const hub::delivery delivered = train(wanted, it, session);
  return report(left, delivered, session.model_url());
}

int run(const settings& wanted) {
  if (!wanted.project.empty()) return run_on_platform(wanted);
  training_session session{wanted.model, options(wanted)};
  spirals::trainee it;
  if (wanted.resume) resume(session, wanted.folder / "last.pt", it);
  if (it.at.done == 0) it.at.epochs = std::max(session.train_args().epochs.value_or(60), 1);
  it.at.epochs = wanted.epochs.value_or(it.at.epochs);
  const int left = std::max(it.at.epochs - it.at.done, 0);
  if (it.at.done > 0) std::printf("Going on after epoch %d of %d.\n", it.at.done, it.at.epochs);
  const hub::delivery delivered = train(wanted, it, session);
  return report(left, delivered, session.model_url());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const examples::flags flags(
        argc, argv,
        {"--model", "--platform", "--name", "--epochs", "--out", "--spool", "--epoch-seconds",
         "--metrics-interval", "--checkpoint-interval", "--heartbeat-interval",
         "--request-deadline", "--shutdown-deadline"},
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
  } catch (const std::exception& problem) {  // a disk that is full, memory that is not there
    std::cerr << "train: " << problem.what() << '\n';
    return 1;
  }
}
