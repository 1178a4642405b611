// SPDX-License-Identifier: MIT
//
// What the examples train: a small multi-layer perceptron that learns to tell two spirals apart. It
// needs no library, gives the same numbers on every machine, and does not speak to HUB.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <istream>
#include <numbers>
#include <ostream>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spirals {

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

inline std::vector<sample> make_two_spirals(std::size_t count, random_source& random) {
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
  std::span<double> gradients() { return gradients_; }
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

inline score evaluate(network& net, const std::vector<sample>& samples) {
  score result;
  for (const sample& one : samples) result.add(net.forward(one), one.label, samples.size());
  return result;
}

// Adds what a sample says to the gradients; returns its logit.
inline double learn(network& net, const sample& what) {
  const double logit = net.forward(what);
  const double probability = 1 / (1 + std::exp(-logit));
  net.backward(what, probability - what.label);
  return logit;
}

inline constexpr std::size_t batch_max = 16;  // samples in a step
inline constexpr double momentum = 0.9;

// The score is taken while the weights change, as usual: it lags behind evaluate() a little.
inline score train_one_epoch(network& net, std::vector<sample>& samples, double rate,
                             random_source& random) {
  score result;
  random.shuffle(samples);
  for (std::size_t begin = 0; begin < samples.size(); begin += batch_max) {
    const std::size_t end = std::min(begin + batch_max, samples.size());
    for (std::size_t i = begin; i < end; ++i)
      result.add(learn(net, samples[i]), samples[i].label, samples.size());
    net.step(end - begin, rate, momentum);
  }
  return result;
}

// Falls as a cosine does.
inline double learning_rate(int epoch, int epochs) {
  constexpr double first = 0.05;
  return first * 0.5 * (1 + std::cos(std::numbers::pi * epoch / epochs));
}

struct epoch_summary {
  int epoch = 0;  // counted from 0
  double rate = 0;
  score train = {};
  score validation = {};
};

// As HUB names them.
inline std::vector<std::pair<std::string, double>> metrics_of(const epoch_summary& done,
                                                              const network& net) {
  std::vector<std::pair<std::string, double>> out{
      {"train/loss", done.train.loss},
      {"train/accuracy", done.train.accuracy},
      {"val/loss", done.validation.loss},
      {"metrics/accuracy_top1", done.validation.accuracy},
      {"lr/pg0", done.rate}};
  if (done.epoch == 0)  // HUB shows the model's size from the first epoch's values
    out.emplace_back("model/parameters", static_cast<double>(net.parameter_count()));
  return out;
}

inline void print(const epoch_summary& done, int epochs) {
  std::array<char, 160> line{};
  std::snprintf(line.data(), line.size(),
                "epoch %d of %d: loss %.4f, accuracy %.3f; validation loss %.4f, accuracy %.3f",
                done.epoch + 1, epochs, done.train.loss, done.train.accuracy, done.validation.loss,
                done.validation.accuracy);
  std::cout << line.data() << std::endl;  // a log that is read while the training goes on
}

// ---- weights on disk ----------------------------------------------------------------------------

inline void put_u32(std::ostream& out, std::uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.put(static_cast<char>(value >> shift & 0xFF));
}

inline std::uint32_t get_u32(std::istream& in) {
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

inline constexpr std::string_view magic = "SPIRALS2";

// Eight bytes of magic, the epochs that are done and those in all, the number of layers, then for
// each layer its inputs, its number of weights and the weights as 32-bit floats, all little-endian.
// No PyTorch file: .pt is the name that HUB expects, and it never looks inside.
inline void save_weights(const network& net, const stage& at, const std::filesystem::path& file) {
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
inline stage load_weights(network& net, const std::filesystem::path& file) {
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

// What is trained, and on what: the same at every start, unless weights are loaded.
struct trainee {
  random_source random{1};
  std::vector<sample> training_set = make_two_spirals(2000, random);
  std::vector<sample> validation_set = make_two_spirals(500, random);
  network net{random};
  stage at;
};

}  // namespace spirals
