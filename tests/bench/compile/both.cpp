// SPDX-License-Identifier: MIT
//
// A file that makes a session of either protocol.

#include <iostream>

#include "../../../hub_session.hpp"

template <class Session>
int train(Session& session) {
  for (int epoch = session.next_epoch(); epoch < 100 && !session.stop_requested(); ++epoch) {
    session.on_fit_epoch_end(epoch, {{"train/loss", 1.0 / (epoch + 1)}});
    session.on_model_save(epoch, "last.pt", false);
  }
  return session.on_train_end(99, "best.pt", 0.87).complete() ? 0 : 1;
}

int main(int argc, char** argv) {
  try {
    if (argc == 2) {
      hub::training_session session{argv[1]};
      return train(session);
    }
    hub::platform_session session{{.project = "lab/helmets", .name = "yolo11n 640", .epochs = 100}};
    return train(session);
  } catch (const hub::session_error& problem) {
    std::cerr << problem.what() << '\n';
    return 2;
  }
}
