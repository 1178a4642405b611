// SPDX-License-Identifier: MIT
//
// How to test training code that reports through hub_session.hpp: no network, no threads, no
// sleeping, no OpenSSL. Copy this file and the header into a folder, put your own training in the
// place of `my_training`, and compile:
//
//     g++ -std=c++20 test_your_training.cpp -o test_your_training
//
// With Catch2 v3, which is a library, add: -lCatch2Main -lCatch2

#define HUB_SESSION_NO_HTTPLIB
#include "hub_session.hpp"

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

using namespace std::chrono_literals;

// ---- the code under test: yours -----------------------------------------------------------------

// It knows nothing of HUB but the callbacks, and lets the test say what happens during an epoch.
static hub::delivery my_training(hub::training_callbacks& session, int epochs,
                                 const std::filesystem::path& folder,
                                 const std::function<void(int epoch)>& train_one_epoch) {
  session.on_pretrain_routine_end();
  for (int epoch = 0; epoch < epochs; ++epoch) {
    train_one_epoch(epoch);
    session.on_fit_epoch_end(epoch, {{"train/loss", std::exp(-0.1 * epoch)}, {"val/loss", 0.5}});
    std::ofstream(folder / "last.pt") << "weights of epoch " << epoch;
    session.on_model_save(epoch, folder / "last.pt", true);
  }
  std::ofstream(folder / "best.pt") << "the best weights";
  return session.on_train_end(epochs - 1, folder / "best.pt", 0.87);
}

// ---- the tests ----------------------------------------------------------------------------------

namespace {

// A folder for the training's files that goes with the test.
struct temp_folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() /
                               ("test_your_training-" + std::to_string(std::random_device{}()));
  temp_folder() { std::filesystem::create_directories(path); }
  ~temp_folder() { std::filesystem::remove_all(path); }
};

}  // namespace

TEST_CASE("metrics arrive, every epoch once and in order") {
  const temp_folder folder;
  hub::testing::simulation sim;
  const std::string id = sim.hub.add_model({.epochs = 20});

  std::vector<int> arrived;
  sim.hub.on_request = [&](const hub::testing::seen_request&) {
    const auto& metrics = sim.hub.model(id).metrics;
    if (!metrics.empty() && (arrived.empty() || arrived.back() != metrics.rbegin()->first))
      arrived.push_back(metrics.rbegin()->first);
  };

  auto session = sim.start(id);
  const int epochs = session.train_args().epochs.value();
  const auto delivered = my_training(session, epochs, folder.path, [&](int) { sim.advance(1min); });

  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 20);
  CHECK(std::is_sorted(arrived.begin(), arrived.end()));
  CHECK(sim.hub.model(id).metrics.at(0).at("train/loss") == 1.0);
  CHECK(sim.hub.problems().empty());  // nothing that a real HUB would refuse
}

TEST_CASE("a ten-minute outage loses nothing") {
  const temp_folder folder;
  hub::testing::simulation sim;
  const std::string id = sim.hub.add_model();

  auto session = sim.start(id);
  sim.hub.outage(20min, 30min);
  const auto delivered = my_training(session, 60, folder.path, [&](int) { sim.advance(1min); });

  CHECK(delivered.complete());
  CHECK(sim.hub.model(id).metrics.size() == 60);
  CHECK(sim.hub.model(id).final_model() != nullptr);
  CHECK(sim.hub.problems().empty());
}

TEST_CASE("the first checkpoint leaves after 15 minutes, the final model last") {
  const temp_folder folder;
  hub::testing::simulation sim;
  const std::string id = sim.hub.add_model();

  auto session = sim.start(id);
  my_training(session, 40, folder.path, [&](int epoch) {
    sim.advance(1min);
    CHECK(sim.hub.model(id).checkpoints.size() == static_cast<std::size_t>(epoch / 15));
  });

  CHECK(sim.hub.model(id).checkpoints.size() == 3);  // at 15 and 30 minutes, and the final model
  CHECK(sim.hub.model(id).checkpoints.back().is_final);
  CHECK(sim.hub.problems().empty());
}

TEST_CASE("a HUB that is down for good never stops the training") {
  const temp_folder folder;
  hub::testing::simulation sim;
  const std::string id = sim.hub.add_model();

  auto session = sim.start(id);
  sim.hub.outage(0s, 10000h);
  int trained = 0;
  const auto began = sim.time.now();
  const auto delivered = my_training(session, 100, folder.path, [&](int) {
    ++trained;
    sim.advance(1min);
  });

  CHECK(trained == 100);
  CHECK(sim.time.now() - began <= 100min + 1h);  // on_train_end gives up at its deadline
  CHECK_FALSE(delivered.complete());
  CHECK(delivered.epochs_queued == 100);
  CHECK(delivered.why->code == hub::errc::not_reachable);
  CHECK(sim.hub.problems().empty());
}
