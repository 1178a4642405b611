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
#include "hub_session.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numbers>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

// ---- chance -------------------------------------------------------------------------------------

// The standard fixes the numbers of std::mt19937, but not what its distributions and std::shuffle
// make of them. With a mapping of our own every machine sees the same data in the same order.
class random_source {
 public:
  explicit random_source(std::uint32_t seed) : engine_(seed) {}

  double uniform(double low, double high) {
    return low + (high - low) * (static_cast<double>(engine_()) / 4294967296.0);
  }

  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t left = items.size(); left > 1; --left) {
      const auto pick = static_cast<std::size_t>(uniform(0, static_cast<double>(left)));
      std::swap(items[pick], items[left - 1]);
    }
  }

 private:
  std::mt19937 engine_;
};

// ---- data ---------------------------------------------------------------------------------------

struct sample {
  std::array<double, 2> position;
  double label;  // 0 or 1: the spiral it belongs to
};

std::vector<sample> make_two_spirals(std::size_t count, random_source& random) {
  constexpr double turns = 1.5;
  constexpr double radius = 3.0;
  constexpr double noise = 0.35;
  std::vector<sample> samples;
  for (std::size_t i = 0; i < count; ++i) {
    const auto label = static_cast<double>(i % 2);
    const double along = std::sqrt(random.uniform(0.01, 1));  // about evenly along the arm
    const double angle = std::numbers::pi * (2 * turns * along + label);
    const double x = radius * along * std::cos(angle) + random.uniform(-noise, noise);
    const double y = radius * along * std::sin(angle) + random.uniform(-noise, noise);
    samples.push_back({{x, y}, label});
  }
  return samples;
}

// ---- the network --------------------------------------------------------------------------------

enum class activation { none, tanh };

// A fully connected layer. A row of weights_ leads to one output, and its last entry is the bias.
class dense_layer {
 public:
  dense_layer(std::size_t inputs, std::size_t outputs, activation kind, random_source& random)
      : inputs_(inputs),
        kind_(kind),
        weights_(outputs * (inputs + 1)),
        gradients_(weights_.size()),
        velocities_(weights_.size()),
        outputs_(outputs),
        input_gradients_(inputs) {
    const double bound = std::sqrt(6.0 / static_cast<double>(inputs + outputs));
    for (double& weight : weights_) weight = random.uniform(-bound, bound);
  }

  std::span<const double> forward(std::span<const double> input) {
    for (std::size_t o = 0; o < outputs_.size(); ++o) {
      const double* row = &weights_[o * (inputs_ + 1)];
      double sum = row[inputs_];
      for (std::size_t i = 0; i < inputs_; ++i) sum += row[i] * input[i];
      outputs_[o] = kind_ == activation::tanh ? std::tanh(sum) : sum;
    }
    return outputs_;
  }

  // Adds to the gradients for the `input` of the last forward(); returns those of the input.
  std::span<const double> backward(std::span<const double> input,
                                   std::span<const double> output_gradients) {
    input_gradients_.assign(inputs_, 0);
    for (std::size_t o = 0; o < outputs_.size(); ++o) {
      const double slope = kind_ == activation::tanh ? 1 - outputs_[o] * outputs_[o] : 1;
      const double delta = output_gradients[o] * slope;
      const std::size_t row = o * (inputs_ + 1);
      for (std::size_t i = 0; i < inputs_; ++i) {
        gradients_[row + i] += delta * input[i];
        input_gradients_[i] += delta * weights_[row + i];
      }
      gradients_[row + inputs_] += delta;
    }
    return input_gradients_;
  }

  // One step of gradient descent with momentum, over the gradients of `batch` samples.
  void step(std::size_t batch, double rate, double momentum) {
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const double gradient = gradients_[i] / static_cast<double>(batch);
      velocities_[i] = momentum * velocities_[i] - rate * gradient;
      weights_[i] += velocities_[i];
      gradients_[i] = 0;
    }
  }

  std::span<const double> outputs() const { return outputs_; }
  std::span<const double> weights() const { return weights_; }
  std::span<double> weights() { return weights_; }
  std::size_t input_count() const { return inputs_; }

 private:
  std::size_t inputs_;
  activation kind_;
  std::vector<double> weights_;
  std::vector<double> gradients_;
  std::vector<double> velocities_;
  std::vector<double> outputs_;
  std::vector<double> input_gradients_;
};

class network {
 public:
  explicit network(random_source& random)
      : layers_{{2, 32, activation::tanh, random},
                {32, 32, activation::tanh, random},
                {32, 1, activation::none, random}} {}

  // The logit: above 0 the network takes the sample for label 1.
  double forward(const sample& what) {
    std::span<const double> values = what.position;
    for (dense_layer& layer : layers_) values = layer.forward(values);
    return values[0];
  }

  void backward(const sample& what, double logit_gradient) {
    std::span<const double> gradients(&logit_gradient, 1);
    for (std::size_t i = layers_.size(); i-- > 0;) {
      const std::span<const double> input = i > 0 ? layers_[i - 1].outputs() : what.position;
      gradients = layers_[i].backward(input, gradients);
    }
  }

  void step(std::size_t batch, double rate, double momentum) {
    for (dense_layer& layer : layers_) layer.step(batch, rate, momentum);
  }

  std::span<const dense_layer> layers() const { return layers_; }
  std::span<dense_layer> layers() { return layers_; }

  std::size_t parameter_count() const {
    std::size_t count = 0;
    for (const dense_layer& layer : layers_) count += layer.weights().size();
    return count;
  }

 private:
  std::vector<dense_layer> layers_;
};

// ---- learning -----------------------------------------------------------------------------------

struct score {
  double loss = 0;      // mean cross-entropy
  double accuracy = 0;  // from 0 to 1

  void add(double logit, double label, std::size_t of) {
    // log(1 + e^|z|) is written so that no logit, however large, overflows.
    const double log_sum = std::max(logit, 0.0) + std::log1p(std::exp(-std::abs(logit)));
    loss += (log_sum - logit * label) / static_cast<double>(of);
    accuracy += (logit > 0) == (label > 0.5) ? 1.0 / static_cast<double>(of) : 0.0;
  }
};

score evaluate(network& net, const std::vector<sample>& samples) {
  score result;
  for (const sample& one : samples) result.add(net.forward(one), one.label, samples.size());
  return result;
}

// The score is taken while the weights change, as usual: it lags behind evaluate() a little.
score train_one_epoch(network& net, std::vector<sample>& samples, double rate,
                      random_source& random) {
  constexpr std::size_t batch_max = 16;
  constexpr double momentum = 0.9;
  score result;
  random.shuffle(samples);
  std::size_t batch = 0;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const double logit = net.forward(samples[i]);
    result.add(logit, samples[i].label, samples.size());
    const double probability = 1 / (1 + std::exp(-logit));
    net.backward(samples[i], probability - samples[i].label);
    if (++batch < batch_max && i + 1 < samples.size()) continue;
    net.step(batch, rate, momentum);
    batch = 0;
  }
  return result;
}

// ---- weights on disk ----------------------------------------------------------------------------

void put_u32(std::ostream& out, std::uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.put(static_cast<char>(value >> shift & 0xFF));
}

std::uint32_t get_u32(std::istream& in) {
  std::uint32_t value = 0;
  for (int shift = 0; shift < 32; shift += 8)
    value |= static_cast<std::uint32_t>(in.get() & 0xFF) << shift;
  return value;
}

// How far a training is.
struct stage {
  int done = 0;    // epochs
  int epochs = 0;  // in all
};

constexpr std::string_view magic = "SPIRALS2";

// Eight bytes of magic, the epochs that are done and those in all, the number of layers, then for
// each layer its inputs, its number of weights and the weights as 32-bit floats, all little-endian.
// No PyTorch file: .pt is the name that HUB expects, and it never looks inside.
void save_weights(const network& net, const stage& at, const std::filesystem::path& file) {
  // Written aside and renamed, so that whoever opens `file` finds it whole, old or new.
  const std::filesystem::path unfinished = file.string() + ".tmp";
  std::ofstream out(unfinished, std::ios::binary);
  out << magic;
  put_u32(out, static_cast<std::uint32_t>(at.done));
  put_u32(out, static_cast<std::uint32_t>(at.epochs));
  put_u32(out, static_cast<std::uint32_t>(net.layers().size()));
  for (const dense_layer& layer : net.layers()) {
    put_u32(out, static_cast<std::uint32_t>(layer.input_count()));
    put_u32(out, static_cast<std::uint32_t>(layer.weights().size()));
    for (const double weight : layer.weights())
      put_u32(out, std::bit_cast<std::uint32_t>(static_cast<float>(weight)));
  }
  out.close();
  if (!out) throw std::runtime_error("cannot write " + unfinished.string());
  std::filesystem::rename(unfinished, file);
}

// The other way; throws where the file is not what save_weights() made of such a network.
stage load_weights(network& net, const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string beginning(magic.size(), '\0');
  in.read(beginning.data(), static_cast<std::streamsize>(beginning.size()));
  stage at;
  at.done = static_cast<int>(get_u32(in));
  at.epochs = static_cast<int>(get_u32(in));
  bool fits = beginning == magic && get_u32(in) == net.layers().size();
  for (dense_layer& layer : net.layers()) {
    fits = fits && get_u32(in) == layer.input_count() && get_u32(in) == layer.weights().size();
    if (!fits) break;
    for (double& weight : layer.weights()) weight = std::bit_cast<float>(get_u32(in));
  }
  if (!fits || !in || at.done < 1 || at.epochs < 1)
    throw std::runtime_error(file.string() + " holds no weights of this program");
  return at;
}

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
};

void print_epoch(int epoch, int epochs, const score& train, const score& validation) {
  std::printf("epoch %d of %d: loss %.4f, accuracy %.3f; validation loss %.4f, accuracy %.3f\n",
              epoch + 1, epochs, train.loss, train.accuracy, validation.loss, validation.accuracy);
  std::fflush(stdout);  // a log that is read while the training goes on
}

// What is trained, and on what: the same at every start, unless weights are loaded.
struct trainee {
  random_source random{1};
  std::vector<sample> training_set = make_two_spirals(2000, random);
  std::vector<sample> validation_set = make_two_spirals(500, random);
  network net{random};
  stage at;
};

// Trains to the end and reports every epoch to `hub`; returns what HUB got of it.
hub::delivery train(const settings& wanted, trainee& it, hub::training_callbacks& hub) {
  constexpr double first_rate = 0.05;
  double best_accuracy = -1;
  if (it.at.done > 0) {  // what was loaded is the best so far
    best_accuracy = evaluate(it.net, it.validation_set).accuracy;
    save_weights(it.net, it.at, wanted.folder / "best.pt");
  }

  hub.on_pretrain_routine_end();
  const int epochs = it.at.epochs;
  for (int epoch = it.at.done; epoch < epochs && !hub.stop_requested(); ++epoch) {
    const auto epoch_end = std::chrono::steady_clock::now() + wanted.epoch_time;
    const double rate = first_rate * 0.5 * (1 + std::cos(std::numbers::pi * epoch / epochs));
    const score train = train_one_epoch(it.net, it.training_set, rate, it.random);
    const score validation = evaluate(it.net, it.validation_set);
    std::this_thread::sleep_until(epoch_end);
    print_epoch(epoch, epochs, train, validation);

    std::vector<std::pair<std::string, double>> values{
        {"train/loss", train.loss},
        {"train/accuracy", train.accuracy},
        {"val/loss", validation.loss},
        {"metrics/accuracy_top1", validation.accuracy},
        {"lr/pg0", rate}};
    if (epoch == 0)  // HUB shows the model's size from the first epoch's values
      values.emplace_back("model/parameters", static_cast<double>(it.net.parameter_count()));
    hub.on_fit_epoch_end(epoch, values);

    it.at.done = epoch + 1;
    const bool is_best = validation.accuracy > best_accuracy;
    if (is_best) {
      best_accuracy = validation.accuracy;
      save_weights(it.net, it.at, wanted.folder / "best.pt");
    }
    save_weights(it.net, it.at, wanted.folder / "last.pt");
    hub.on_model_save(epoch, wanted.folder / "last.pt", is_best);
  }
  return hub.on_train_end(it.at.done - 1, wanted.folder / "best.pt", best_accuracy);
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

  std::error_code problem;
  std::filesystem::create_directories(wanted.folder, problem);
  if (problem)
    throw examples::usage_error("--out: cannot create " + wanted.folder.string() + ": " +
                                problem.message());
  return wanted;
}

// Prints the last line and returns the exit status.
int report(int epochs, const hub::delivery& delivered) {
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
  std::printf("%s\n", line.c_str());
  return delivered.complete() ? 0 : 1;
}

// Loads the last checkpoint that HUB has, if it has one.
void resume(hub::training_session& session, const std::filesystem::path& last, trainee& it) {
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
          // save_weights() renames, so no copy is needed to upload in peace.
          .snapshot = hub::snapshot::none,
          .spool = {.directory = wanted.spool, .offline = hub::offline_start::allow}};
}

// On the Platform the run is made by the session, and goes on from the weights that lie here.
int run_on_platform(const settings& wanted) {
  trainee it;
  const std::filesystem::path last = wanted.folder / "last.pt";
  if (wanted.resume && std::filesystem::exists(last)) it.at = load_weights(it.net, last);
  if (it.at.done == 0) it.at.epochs = 60;
  it.at.epochs = wanted.epochs.value_or(it.at.epochs);
  const int left = std::max(it.at.epochs - it.at.done, 0);
  hub::platform_session session{{.project = wanted.project,
                                 .name = wanted.run_name,
                                 .epochs = it.at.epochs,
                                 .resume = wanted.resume},
                                options(wanted)};
  return report(left, train(wanted, it, session));
}

int run(const settings& wanted) {
  if (!wanted.project.empty()) return run_on_platform(wanted);
  hub::training_session session{wanted.model, options(wanted)};
  trainee it;
  if (wanted.resume) resume(session, wanted.folder / "last.pt", it);
  if (it.at.done == 0) it.at.epochs = std::max(session.train_args().epochs.value_or(60), 1);
  it.at.epochs = wanted.epochs.value_or(it.at.epochs);
  const int left = std::max(it.at.epochs - it.at.done, 0);
  if (it.at.done > 0) std::printf("Going on after epoch %d of %d.\n", it.at.done, it.at.epochs);
  return report(left, train(wanted, it, session));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const examples::flags flags(
        argc, argv,
        {"--model", "--platform", "--name", "--epochs", "--out", "--spool", "--epoch-seconds",
         "--metrics-interval", "--checkpoint-interval", "--heartbeat-interval"},
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
