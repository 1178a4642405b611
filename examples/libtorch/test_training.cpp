// SPDX-License-Identifier: MIT
//
// The training of this folder, tested against a HUB in memory on virtual time: no network, no
// threads but libtorch's, no waiting.

#define HUB_SESSION_NO_HTTPLIB
#include "hub_session.hpp"

#include "training.hpp"

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "shapes.hpp"

using namespace std::chrono_literals;

namespace {

// A folder for the training's files that goes with the test.
struct temp_folder {
  std::filesystem::path path;
  temp_folder() {
    static std::atomic<int> made = 0;
    const std::filesystem::path all = std::filesystem::temp_directory_path();
    do {
      path = all / ("test_training-" + std::to_string(++made));
    } while (!std::filesystem::create_directory(path));
  }
  ~temp_folder() { std::filesystem::remove_all(path); }
};

// Few pictures: what is tested is the loop, and not how well it learns.
training_options small_training(const temp_folder& folder) {
  return {.epochs = 4, .training_pictures = 200, .validation_pictures = 50, .folder = folder.path};
}

std::string content_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// What the HUB got in an epoch.
double metric(hub::testing::simulation& sim, const std::string& id, int epoch, const char* name) {
  return sim.hub.model(id).metrics.at(epoch).at(name).get<double>();
}

}  // namespace

TEST_CASE("every epoch arrives, with a precision and a recall for each class") {
  const temp_folder folder;
  hub::testing::simulation sim;
  const std::string id = sim.hub.add_model();
  training_options options = small_training(folder);
  options.say = [&](const epoch_summary&) { sim.advance(10min); };

  auto session = sim.start(id);
  const training_outcome outcome = train(options, session);

  CHECK(outcome.epochs_done == 4);
  CHECK(outcome.delivered.complete());
  const auto& model = sim.hub.model(id);
  REQUIRE(model.metrics.size() == 4);
  for (const auto& [epoch, values] : model.metrics)
    for (const std::string_view name : shapes::names) {
      CHECK(values.contains("metrics/precision(" + std::string(name) + ")"));
      CHECK(values.contains("metrics/recall(" + std::string(name) + ")"));
    }
  CHECK(model.checkpoints.size() >= 2);
  CHECK(model.final_model() != nullptr);
  CHECK(sim.hub.problems().empty());
}

TEST_CASE("a training without progress ends when its patience does") {
  const temp_folder folder;
  hub::testing::simulation sim;
  const std::string id = sim.hub.add_model();
  training_options options = small_training(folder);
  options.epochs = 50;
  options.patience = 3;
  options.learning_rate = 0;

  auto session = sim.start(id);
  const training_outcome outcome = train(options, session);

  CHECK(outcome.gave_up);
  CHECK(outcome.epochs_done == 4);  // the first is the best, and three are no better
  CHECK(sim.hub.model(id).metrics.size() == 4);
  CHECK(outcome.delivered.final_model_delivered);
}

TEST_CASE("Stop on the Platform's page ends the training, and what there is of it is sent") {
  const temp_folder folder;
  hub::testing::simulation sim;
  auto session = sim.start({.project = "lab/shapes", .name = "network", .epochs = 50});
  training_options options = small_training(folder);
  options.epochs = 50;
  options.say = [&](const epoch_summary& done) {
    if (done.epoch == 1) sim.platform.cancel(sim.platform.models().begin()->first);
    sim.advance(1min);
  };
  const training_outcome outcome = train(options, session);

  CHECK(session.stop_requested());
  CHECK(outcome.epochs_done == 2);  // the reply to the second says so
  CHECK(outcome.delivered.complete());
  CHECK(outcome.delivered.final_model_delivered);
}

TEST_CASE("a training that goes on from HUB's checkpoint ends where a whole one does") {
  const temp_folder whole;
  const temp_folder first;
  const temp_folder second;
  hub::testing::simulation sim;
  sim.hub.keep_contents = true;
  const std::string whole_id = sim.hub.add_model();
  const std::string id = sim.hub.add_model();
  {
    auto session = sim.start(whole_id);
    train(small_training(whole), session);
  }
  struct killed {};
  try {
    training_options options = small_training(first);
    options.say = [&](const epoch_summary& done) {
      sim.advance(20min);
      if (done.epoch == 1) throw killed();
    };
    auto session = sim.start(id);
    train(options, session);
  } catch (const killed&) {
  }
  auto session = sim.start(id);
  REQUIRE(session.fetch_model_file(second.path / "last.pt"));
  training_options options = small_training(second);
  options.resume = true;
  const training_outcome outcome = train(options, session);

  CHECK(outcome.epochs_done == 4);
  REQUIRE(sim.hub.model(id).metrics.size() == 4);
  for (const int epoch : {2, 3})
    for (const char* name : {"train/loss", "val/loss"})
      CHECK(metric(sim, id, epoch, name) == Approx(metric(sim, whole_id, epoch, name)));
  CHECK(sim.hub.problems().empty());
}

TEST_CASE("a file of another program is refused, and named") {
  const temp_folder folder;
  hub::testing::simulation sim;
  auto session = sim.start(sim.hub.add_model());
  std::ofstream(folder.path / "last.pt") << "weights of something else";
  training_options options = small_training(folder);
  options.resume = true;
  CHECK_THROWS_WITH(train(options, session),
                    (folder.path / "last.pt").string() + " holds no training of this program");
}

TEST_CASE("a checkpoint is replaced and never overwritten, so that an upload of it stays whole") {
  const temp_folder folder;
  hub::testing::simulation sim;
  auto session = sim.start(sim.hub.add_model());
  const std::filesystem::path held = folder.path / "held.pt";  // as an upload holds its file
  std::string first;
  training_options options = small_training(folder);
  options.say = [&](const epoch_summary& done) {
    if (done.epoch > 0) return;
    std::filesystem::create_hard_link(folder.path / "last.pt", held);
    first = content_of(held);
  };
  train(options, session);
  CHECK((content_of(held) == first));  // bytes that nobody wants to see printed
  CHECK((content_of(folder.path / "last.pt") != first));
  const auto files = std::filesystem::directory_iterator(folder.path);
  CHECK(std::distance(begin(files), end(files)) == 3);  // best.pt, held.pt, last.pt
}

TEST_CASE("precision and recall follow from the confusion matrix") {
  confusion_matrix matrix(3);
  for (int i = 0; i < 3; ++i) matrix.add(0, 0);
  matrix.add(0, 1);
  for (int i = 0; i < 2; ++i) matrix.add(1, 1);
  CHECK(matrix.accuracy() == Approx(5.0 / 6));
  CHECK(matrix.precision(1) == Approx(2.0 / 3));
  CHECK(matrix.recall(0) == Approx(0.75));
  CHECK(matrix.precision(2) == 0);  // never taken for it
  CHECK(matrix.recall(2) == 0);     // never there
}

TEST_CASE("every shape is drawn as often as the others, and the same for the same seed") {
  const shapes::pictures first = shapes::artist(7).draw(50);
  CHECK(first.pixels == shapes::artist(7).draw(50).pixels);
  CHECK(first.pixels != shapes::artist(8).draw(50).pixels);
  std::vector<int> counts(shapes::names.size());
  for (const std::int64_t label : first.labels) ++counts[static_cast<std::size_t>(label)];
  CHECK(counts == std::vector<int>(shapes::names.size(), 10));
}
