// SPDX-License-Identifier: MIT
//
// One training on many processes: each works on its share of every batch, MPI adds their gradients,
// and all take the same step. Every process makes a session, and only rank 0's reports.
//
//     mpicxx -std=c++20 -I. examples/mpi/train.cpp -o train \
//       $(pkg-config --cflags --libs cpp-httplib openssl nlohmann_json) -pthread
//     mpirun -n 4 ./train --model MODEL [--epochs N] [--out DIR] ...     (--help lists every flag)
//
// A process that fails ends them all, and the run with them: HUB gets no final model, and the next
// run may go on with --resume. Exit status: 0 all was delivered, 1 something is missing, 2 usage, or
// HUB refused the session.

#include "hub_session.hpp"

#include "../flags.hpp"
#include "../spirals.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>

#include <mpi.h>

namespace {

constexpr char usage[] =
    R"(usage: mpirun -n PROCESSES train --model MODEL [flags]

  --model MODEL            an ID, a KEY_ID, or the model's URL on HUB
  --epochs N               how long to train (default: what HUB says, else 60)
  --resume                 go on from the last checkpoint on HUB, if it has one
  --out DIR                where rank 0 puts last.pt and best.pt (default runs)
  --epoch-seconds S        stretch every epoch to at least S seconds (default 0)
  --metrics-interval S     at most one metrics request in S seconds (default 3)
  --checkpoint-interval S  at most one checkpoint in S seconds (default 900)
  --help                   this text
)";

// ---- MPI ----------------------------------------------------------------------------------------

// Every function here is to be called by all processes alike. Where one of them fails, MPI ends the
// program, which is its default.

int rank() {
  int out = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &out);
  return out;
}

std::size_t processes() {
  int out = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &out);
  return static_cast<std::size_t>(out);
}

void add_over_processes(std::span<double> values) {
  MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE, MPI_SUM,
                MPI_COMM_WORLD);
}

template <class T>
void take_from_rank_0(std::span<T> values) {
  MPI_Bcast(values.data(), static_cast<int>(values.size_bytes()), MPI_BYTE, 0, MPI_COMM_WORLD);
}

// ---- the training -------------------------------------------------------------------------------

struct settings {
  std::string model;
  std::optional<int> epochs;
  bool resume = false;
  std::filesystem::path folder = "runs";
  std::chrono::nanoseconds epoch_time{0};
  hub::rate_limit_options rate_limits;
};

// As spirals::train_one_epoch, but that of each batch this process takes every n-th sample. All have
// the same samples in the same order, and so the same weights after each step.
spirals::score train_one_epoch(spirals::trainee& it, double rate) {
  const std::size_t count = it.training_set.size();
  spirals::score mine;
  it.random.shuffle(it.training_set);
  for (std::size_t begin = 0; begin < count; begin += spirals::batch_max) {
    const std::size_t end = std::min(begin + spirals::batch_max, count);
    for (std::size_t i = begin + static_cast<std::size_t>(rank()); i < end; i += processes())
      mine.add(spirals::learn(it.net, it.training_set[i]), it.training_set[i].label, count);
    for (spirals::dense_layer& layer : it.net.layers()) add_over_processes(layer.gradients());
    it.net.step(end - begin, rate, spirals::momentum);
  }
  std::array<double, 2> sums = {mine.loss, mine.accuracy};
  add_over_processes(sums);
  return {.loss = sums[0], .accuracy = sums[1]};
}

// Trains to the end; rank 0 keeps the files. On the others `session` does nothing.
hub::delivery train(const settings& wanted, spirals::trainee& it,
                    hub::training_callbacks& session) {
  const auto save = [&](const char* name) {
    if (rank() == 0) save_weights(it.net, it.at, wanted.folder / name);
  };
  double best_accuracy = -1;
  if (it.at.done > 0) {  // what was loaded is the best so far
    best_accuracy = evaluate(it.net, it.validation_set).accuracy;
    save("best.pt");
  }
  session.on_pretrain_routine_end();
  const int epochs = it.at.epochs;
  for (int epoch = it.at.done; epoch < epochs; ++epoch) {
    const auto epoch_end = std::chrono::steady_clock::now() + wanted.epoch_time;
    spirals::epoch_summary done{.epoch = epoch, .rate = spirals::learning_rate(epoch, epochs)};
    done.train = train_one_epoch(it, done.rate);
    done.validation = evaluate(it.net, it.validation_set);
    std::this_thread::sleep_until(epoch_end);
    if (rank() == 0) print(done, epochs);
    session.on_fit_epoch_end(epoch, metrics_of(done, it.net));

    it.at.done = epoch + 1;
    const bool is_best = done.validation.accuracy > best_accuracy;
    best_accuracy = std::max(best_accuracy, done.validation.accuracy);
    if (is_best) save("best.pt");
    save("last.pt");
    session.on_model_save(epoch, wanted.folder / "last.pt", is_best);
  }
  return session.on_train_end(epochs - 1, wanted.folder / "best.pt", best_accuracy);
}

// ---- the program --------------------------------------------------------------------------------

settings read_settings(const examples::flags& flags) {
  if (!flags.operands().empty())
    throw examples::usage_error("\"" + flags.operands()[0] + "\": only flags are accepted");
  if (!flags.has("--model"))
    throw examples::usage_error("--model: an ID, a KEY_ID or the model's URL is needed");
  settings wanted{.model = *flags.text("--model"),
                  .epochs = flags.whole_number("--epochs", 1, 1'000'000),
                  .resume = flags.has("--resume"),
                  .folder = flags.text("--out").value_or("runs")};
  wanted.epoch_time = flags.seconds("--epoch-seconds", 0).value_or(wanted.epoch_time);
  if (const auto s = flags.seconds("--metrics-interval", 0)) wanted.rate_limits.metrics = *s;
  if (const auto s = flags.seconds("--checkpoint-interval", 0)) wanted.rate_limits.checkpoint = *s;
  return wanted;
}

// Rank 0 knows how long to train and has what HUB has; the others take both from it.
void begin(const settings& wanted, hub::training_session& session, spirals::trainee& it) {
  if (rank() == 0) {
    it.at.epochs = wanted.epochs.value_or(session.train_args().epochs.value_or(60));
    const std::filesystem::path last = wanted.folder / "last.pt";
    if (wanted.resume && session.model().state == hub::model_state::training) {
      const auto fetched = session.fetch_model_file(last);
      if (!fetched) throw std::runtime_error(fetched.error().message);
      const int epochs = it.at.epochs;
      it.at = load_weights(it.net, last);
      it.at.epochs = epochs;
      std::printf("Going on after epoch %d of %d.\n", it.at.done, it.at.epochs);
    }
  }
  take_from_rank_0(std::span(&it.at, 1));
  for (spirals::dense_layer& layer : it.net.layers()) take_from_rank_0(layer.weights());
}

int run(const settings& wanted) {
  std::filesystem::create_directories(wanted.folder);
  // Which rank this is, the session reads from the environment, as mpirun sets it there;
  // session_options::rank says it where another launcher does not.
  hub::training_session session{
      wanted.model, {.rate_limits = wanted.rate_limits, .snapshot = hub::snapshot::none}};
  spirals::trainee it;
  begin(wanted, session, it);
  const hub::delivery delivered = train(wanted, it, session);
  if (rank() != 0) return 0;
  if (delivered.complete()) std::printf("HUB has all of it: %s\n", session.model_url().c_str());
  if (delivered.why) std::printf("Incomplete: %s\n", delivered.why->message.c_str());
  return delivered.complete() ? 0 : 1;
}

int complain(const std::exception& problem, int status) {
  std::cerr << "train, rank " << rank() << ": " << problem.what() << '\n';
  return status;
}

int run_with(int argc, char** argv) {
  try {
    const examples::flags flags(argc, argv,
                                {"--model", "--epochs", "--out", "--epoch-seconds",
                                 "--metrics-interval", "--checkpoint-interval"},
                                {"--resume", "--help"});
    if (!flags.has("--help")) return run(read_settings(flags));
    if (rank() == 0) std::cout << usage;
    return 0;
  } catch (const examples::usage_error& problem) {
    return complain(problem, 2);
  } catch (const hub::session_error& problem) {
    return complain(problem, 2);
  } catch (const std::exception& problem) {  // a disk that is full, memory that is not there
    return complain(problem, 1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const int status = run_with(argc, argv);
  if (status != 0) MPI_Abort(MPI_COMM_WORLD, status);  // the others may be waiting for this one
  MPI_Finalize();
  return 0;
}
