// SPDX-License-Identifier: MIT
//
// The training, for whoever calls it: neither libtorch nor a network is needed to include this.

#pragma once

#define HUB_SESSION_INTERFACE_ONLY
#include "hub_session.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>

#include "confusion.hpp"

struct epoch_summary {
  int epoch = 0;   // counted from 0
  int epochs = 0;  // planned in all
  double train_loss = 0;
  double validation_loss = 0;
  double learning_rate = 0;
  bool is_best = false;
  const confusion_matrix& validation;
};

struct training_options {
  int epochs = 15;
  int patience = 5;  // epochs without a better accuracy, after which the training ends
  int batch = 32;
  double learning_rate = 0.1;  // the highest; it rises in the first epoch and falls to nothing
  std::size_t training_pictures = 2000;
  std::size_t validation_pictures = 500;
  std::uint32_t seed = 1;
  std::filesystem::path folder = "runs";               // takes last.pt and best.pt
  bool resume = false;                                 // go on from last.pt, if it is there
  std::function<void(const epoch_summary&)> say = {};  // called after every epoch
};

struct training_outcome {
  int epochs_done = 0;   // those before a resumption too
  bool gave_up = false;  // patience was at its end
  double best_accuracy = 0;
  hub::delivery delivered = {};
};

// Trains to the end, and reports every epoch to `session`. Throws std::runtime_error where a file
// cannot be written, or is not what such a training wrote.
training_outcome train(const training_options& options, hub::training_callbacks& session);
