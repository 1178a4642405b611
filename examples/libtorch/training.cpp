// SPDX-License-Identifier: MIT
//
// The training loop. This is the one file that knows libtorch, and it knows nothing of HUB but the
// callbacks: no session, no network. It takes both headers in either order.

#include <torch/torch.h>

#include "training.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "network.hpp"
#include "shapes.hpp"

namespace {

struct data_set {
  torch::Tensor pictures;  // N × 1 × side × side
  torch::Tensor labels;    // N
};

data_set make_data_set(std::size_t count, std::uint32_t seed) {
  shapes::pictures drawn = shapes::artist(seed).draw(count);
  const auto n = static_cast<std::int64_t>(count);
  // from_blob() only looks at the vectors, which are gone when this returns, so: clone().
  return {torch::from_blob(drawn.pixels.data(), {n, 1, shapes::side, shapes::side}).clone(),
          torch::from_blob(drawn.labels.data(), {n}, torch::kInt64).clone()};
}

// What a training is made of, and how far it is: what goes into a file and comes out of it.
struct trainee {
  explicit trainee(double learning_rate)
      : optimizer(network->parameters(), torch::optim::SGDOptions(learning_rate).momentum(0.9)) {}

  shape_network network{static_cast<std::int64_t>(shapes::names.size())};
  torch::optim::SGD optimizer;
  int epochs_done = 0;
  int epochs_without_progress = 0;
  double best_accuracy = -1;
};

// ---- files --------------------------------------------------------------------------------------

// Written aside and renamed, so that whoever opens `file` finds it whole, old or new.
void save(const trainee& it, const std::filesystem::path& file) {
  const std::filesystem::path unfinished = file.string() + ".tmp";
  torch::serialize::OutputArchive network;
  it.network->save(network);
  torch::serialize::OutputArchive optimizer;
  it.optimizer.save(optimizer);
  torch::serialize::OutputArchive out;
  out.write("network", network);
  out.write("optimizer", optimizer);
  out.write("epochs_done", c10::IValue(it.epochs_done));
  out.write("epochs_without_progress", c10::IValue(it.epochs_without_progress));
  out.write("best_accuracy", c10::IValue(it.best_accuracy));
  try {
    out.save_to(unfinished.string());  // as torch::save() does with one object
  } catch (const c10::Error&) {        // its text is a stack trace
    throw std::runtime_error("cannot write " + unfinished.string());
  }
  std::filesystem::rename(unfinished, file);
}

void load(trainee& it, const std::filesystem::path& file) {
  try {
    torch::serialize::InputArchive in;
    torch::serialize::InputArchive part;
    in.load_from(file.string());
    in.read("network", part);
    it.network->load(part);
    in.read("optimizer", part);
    it.optimizer.load(part);
    c10::IValue value;
    in.read("epochs_done", value);
    it.epochs_done = static_cast<int>(value.toInt());
    in.read("epochs_without_progress", value);
    it.epochs_without_progress = static_cast<int>(value.toInt());
    in.read("best_accuracy", value);
    it.best_accuracy = value.toDouble();
  } catch (const c10::Error&) {
    throw std::runtime_error(file.string() + " holds no training of this program");
  }
}

// ---- an epoch -----------------------------------------------------------------------------------

// Rises over the first epoch's steps, then falls as a cosine does. A function of the place alone, so
// that a resumed training goes on where it was.
double learning_rate(double highest, double epochs_done, int epochs) {
  if (epochs_done < 1) return highest * epochs_done;
  const double part = (epochs_done - 1) / std::max(epochs - 1, 1);
  return highest * 0.5 * (1 + std::cos(std::numbers::pi * part));
}

void set_learning_rate(torch::optim::Optimizer& optimizer, double rate) {
  for (torch::optim::OptimizerParamGroup& group : optimizer.param_groups())
    group.options().set_lr(rate);
}

// Returns the mean loss, which is taken while the weights change and so lags behind a little.
double train_one_epoch(trainee& it, const data_set& data, const training_options& options) {
  const auto count = data.labels.size(0);
  it.network->train();
  // The order is the epoch's own, so that a resumed training sees what the whole one would have.
  torch::manual_seed(options.seed + static_cast<std::uint64_t>(it.epochs_done));
  const torch::Tensor order = torch::randperm(count, torch::kInt64);
  double loss_sum = 0;
  for (std::int64_t begin = 0; begin < count; begin += options.batch) {
    const torch::Tensor batch = order.slice(0, begin, std::min(begin + options.batch, count));
    const double part = static_cast<double>(begin) / static_cast<double>(count);
    set_learning_rate(it.optimizer,
                      learning_rate(options.learning_rate, it.epochs_done + part, options.epochs));
    it.optimizer.zero_grad();
    const torch::Tensor scores = it.network(data.pictures.index_select(0, batch));
    const torch::Tensor loss =
        torch::nn::functional::cross_entropy(scores, data.labels.index_select(0, batch));
    loss.backward();
    it.optimizer.step();
    loss_sum += loss.item<double>() * static_cast<double>(batch.size(0));
  }
  return loss_sum / static_cast<double>(count);
}

struct validation_result {
  double loss = 0;
  confusion_matrix confusion{shapes::names.size()};
};

validation_result validate(trainee& it, const data_set& data) {
  const torch::NoGradGuard no_gradients;
  it.network->eval();
  validation_result out;
  const torch::Tensor scores = it.network(data.pictures);
  out.loss = torch::nn::functional::cross_entropy(scores, data.labels).item<double>();
  const torch::Tensor taken_for = scores.argmax(1);
  const auto truths = data.labels.accessor<std::int64_t, 1>();
  const auto guesses = taken_for.accessor<std::int64_t, 1>();
  for (std::int64_t i = 0; i < truths.size(0); ++i)
    out.confusion.add(static_cast<std::size_t>(truths[i]), static_cast<std::size_t>(guesses[i]));
  return out;
}

// ---- reporting ----------------------------------------------------------------------------------

using metrics = std::vector<std::pair<std::string, double>>;

metrics metrics_of(const epoch_summary& epoch, const trainee& it) {
  metrics out{{"train/loss", epoch.train_loss},
              {"val/loss", epoch.validation_loss},
              {"metrics/accuracy_top1", epoch.validation.accuracy()},
              {"lr/pg0", epoch.learning_rate}};
  for (std::size_t i = 0; i < shapes::names.size(); ++i) {
    const std::string name(shapes::names[i]);
    out.emplace_back("metrics/precision(" + name + ")", epoch.validation.precision(i));
    out.emplace_back("metrics/recall(" + name + ")", epoch.validation.recall(i));
  }
  if (epoch.epoch == 0) {  // HUB shows the model's size from the first epoch's values
    double count = 0;
    for (const torch::Tensor& each : it.network->parameters())
      count += static_cast<double>(each.numel());
    out.emplace_back("model/parameters", count);
  }
  return out;
}

// ---- the loop -----------------------------------------------------------------------------------

// Takes last.pt up, if it is there. The better weights that came before it, if there were any, may be
// on another machine: then what was loaded is the best so far.
void resume(trainee& it, const std::filesystem::path& folder, const data_set& validation_set) {
  if (!std::filesystem::exists(folder / "last.pt")) return;
  load(it, folder / "last.pt");
  if (std::filesystem::exists(folder / "best.pt")) return;
  it.best_accuracy = validate(it, validation_set).confusion.accuracy();
  save(it, folder / "best.pt");
}

// Counts an epoch that is over; returns whether it is the best so far.
bool count_epoch(trainee& it, double accuracy) {
  ++it.epochs_done;
  const bool is_best = accuracy > it.best_accuracy;
  it.epochs_without_progress = is_best ? 0 : it.epochs_without_progress + 1;
  it.best_accuracy = std::max(it.best_accuracy, accuracy);
  return is_best;
}

}  // namespace

training_outcome train(const training_options& options, hub::training_callbacks& session) {
  torch::manual_seed(options.seed);
  const data_set training_set = make_data_set(options.training_pictures, options.seed);
  const data_set validation_set = make_data_set(options.validation_pictures, options.seed + 1);
  const std::filesystem::path last = options.folder / "last.pt";
  const std::filesystem::path best = options.folder / "best.pt";
  trainee it(options.learning_rate);
  if (options.resume) resume(it, options.folder, validation_set);

  const auto patience_ends = [&] { return it.epochs_without_progress >= options.patience; };
  session.on_pretrain_routine_end();
  while (it.epochs_done < options.epochs && !patience_ends() && !session.stop_requested()) {
    const int epoch = it.epochs_done;
    const double train_loss = train_one_epoch(it, training_set, options);
    const validation_result validation = validate(it, validation_set);
    const bool is_best = count_epoch(it, validation.confusion.accuracy());
    const epoch_summary summary{
        .epoch = epoch,
        .epochs = options.epochs,
        .train_loss = train_loss,
        .validation_loss = validation.loss,
        .learning_rate = learning_rate(options.learning_rate, epoch + 1, options.epochs),
        .is_best = is_best,
        .validation = validation.confusion};
    session.on_fit_epoch_end(epoch, metrics_of(summary, it));
    if (is_best) save(it, best);
    save(it, last);
    session.on_model_save(epoch, last, is_best);
    if (options.say) options.say(summary);
  }
  return {.epochs_done = it.epochs_done,
          .gave_up = patience_ends(),
          .best_accuracy = it.best_accuracy,
          .delivered = session.on_train_end(it.epochs_done - 1, best, it.best_accuracy)};
}
