// SPDX-License-Identifier: MIT
//
// The least that a training needs: the example of the README, with a training to go with it.
//
//     export ULTRALYTICS_HUB_API=https://hub.example.org/api ULTRALYTICS_API_KEY=...
//     ./minimal abcdefghij0123456789

#include "hub_session.hpp"

#include <fstream>
#include <iostream>

// Stands in for your training: a loss that falls, and the two files that it would leave behind.
static float train_one_epoch() {
  static float loss = 2.0F;
  loss *= 0.95F;
  for (const char* file : {"last.pt", "best.pt"}) std::ofstream(file) << "weights at loss " << loss;
  return loss;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: minimal MODEL   (an ID, a KEY_ID or the model's URL)\n";
    return 2;
  }
  try {
    hub::training_session session{argv[1]};  // endpoints: from the environment
    session.on_pretrain_routine_end();       // the timers start
    const int epochs = session.train_args().epochs.value_or(100);
    for (int epoch = session.next_epoch(); epoch < epochs; ++epoch) {
      const float loss = train_one_epoch();  // yours
      session.on_fit_epoch_end(epoch, {{"train/loss", loss}});
      session.on_model_save(epoch, "last.pt", false);
    }
    return session.on_train_end(epochs - 1, "best.pt", 0.87).complete() ? 0 : 1;
  } catch (const hub::session_error& problem) {
    std::cerr << problem.what() << '\n';  // what, to what, what next
    return 2;
  }
}
