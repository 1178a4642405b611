// SPDX-License-Identifier: MIT
//
// Tests of the spool: the journal's text, the folder on the disk, and whole sessions that die and
// start again, on virtual time and a disk in memory that loses what it may lose. What is written on
// the disk of this machine is in a folder of the test's own.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/long_variant.hpp"
#include "support/scratch.hpp"
#include "support/text.hpp"
#include "support/world.hpp"

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
namespace journal = hub::spool::journal;
using hub::errc;
using hub::spool_sync;
using hub::testing::content_hash;
using hub::testing::crash_disk;
using hub::testing::crash_kind;
using hub::testing::endpoint;
using hub::testing::fault;
using hub::testing::fault_kind;
using hub::testing::training_session;

// ---- journals -----------------------------------------------------------------------------------

using pairs = std::vector<std::pair<std::string, double>>;

std::shared_ptr<const hub::epoch_record> record(const pairs& values) {
  return std::make_shared<const hub::epoch_record>(values);
}

pairs values_of(const hub::epoch_record& from) {
  pairs out;
  from.for_each([&](std::string_view name, double value) { out.emplace_back(name, value); });
  return out;
}

std::string epoch_line(int epoch, std::uint64_t number, const pairs& values) {
  std::string out;
  journal::append_epoch(out, epoch, number, *record(values));
  return out;
}

template <class Line>
std::string text_of(const Line& what) {
  std::string out;
  journal::append(out, what);
  return out;
}

std::optional<journal::line> read_back(std::string text) {
  REQUIRE(text.ends_with('\n'));
  text.pop_back();
  return journal::read_line(text);
}

journal::contents read_all(std::string_view text) {
  journal::contents out;
  out.read(text);
  return out;
}

// epoch -> number, of what is alive.
std::map<int, std::uint64_t> alive(const journal::contents& in) {
  std::map<int, std::uint64_t> out;
  for (const auto& [epoch, line] : in.epochs) out[epoch] = line.number;
  return out;
}

// ---- sessions that die --------------------------------------------------------------------------

// A world whose sessions have a spool on a disk in memory, one session after the other.
template <class Session>
struct world_with_spool : world {
  std::shared_ptr<crash_disk> disk = std::make_shared<crash_disk>();
  std::unique_ptr<Session> session;

  ~world_with_spool() { session.reset(); }

  void die(crash_kind what = crash_kind::process, std::uint64_t seed = 0) {
    crash(session, *disk, what, seed);
  }

  crash_disk::files& files_in(const fs::path& of) { return disk->folder(of); }
  // What the next session would find.
  journal::contents left_in(const fs::path& of) {
    journal::contents out;
    std::map<std::uint64_t, std::string> segments;
    for (const auto& [name, content] : files_in(of))
      if (const auto index = journal::segment_index(name)) segments[*index] = content;
    for (const auto& [index, content] : segments) out.read(content);
    return out;
  }

 protected:
  void keep_in_spool() {
    with.spool.directory = "spool";
    with.spool.storage = disk;
  }
};

struct spooled_world : world_with_spool<training_session> {
  spooled_world() { keep_in_spool(); }

  training_session& begin() {
    session.reset();
    session = std::unique_ptr<training_session>(new training_session(start()));
    return *session;
  }

  fs::path model_folder() const { return hub::machine::full_path("spool") / id; }
  crash_disk::files& files() { return files_in(model_folder()); }
  journal::contents left() { return left_in(model_folder()); }
  std::string journal_text() {
    std::string out;
    for (const auto& [name, content] : files())
      if (journal::segment_index(name)) out += content;
    return out;
  }
  double loss_on_hub(int epoch) { return model().metrics.at(epoch).at("loss"); }
  std::size_t times_sent(int epoch) const {
    const auto found = sent.find(epoch);
    return found == sent.end() ? 0 : found->second;
  }
  std::map<int, std::size_t> sent = {};  // for those who fill it
};

}  // namespace

// ---- the journal's text -------------------------------------------------------------------------

TEST_CASE("an epoch reads back from the journal exactly, in order and with duplicates") {
  const pairs values = {{"train/loss", 0.1},
                        {"train/loss", -0.0},
                        {"a", 5e-324},
                        {"b", 1.7976931348623157e308},
                        {"c", 123456789012345680.0},
                        {"d", 3},
                        {"quotes \" and \\ and \n", 1.0 / 3},
                        {"metrics/mAP50-95(B)", -12.5}};
  const auto line = read_back(epoch_line(-7, 18446744073709551615u, values));
  REQUIRE(line);
  const auto& epoch = std::get<journal::epoch_line>(*line);
  CHECK(epoch.epoch == -7);
  CHECK(epoch.number == 18446744073709551615u);
  REQUIRE(values_of(*epoch.values) == values);
  CHECK(std::signbit(values_of(*epoch.values)[1].second));

  const auto nothing = read_back(epoch_line(0, 1, {}));
  REQUIRE(nothing);
  CHECK(values_of(*std::get<journal::epoch_line>(*nothing).values).empty());

  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto odd = read_back(epoch_line(0, 1, {{"x", infinity}, {"y", std::nan("")}}));
  REQUIRE(odd);
  CHECK(std::get<journal::epoch_line>(*odd).values->not_finite() == 2);
}

TEST_CASE("every kind of line reads back from the journal, and is JSON") {
  const std::vector<std::string> lines = {
      epoch_line(3, 7, {{"train/loss", 0.5}}),
      text_of(journal::head_line{.base = true}),
      text_of(journal::done_line{{{3, 7}, {-1, 8}}}),
      text_of(journal::upload_line{9, {.epoch = 4, .is_best = true}, 1000, 77}),
      text_of(journal::upload_line{10, {.epoch = 5, .is_final = true, .map = 0.1}, 2000, 78}),
      text_of(journal::upload_done_line{9})};
  for (const std::string& each : lines) {
    INFO(each);
    CHECK(nlohmann::json::accept(each));
    CHECK(each.find('\n') == each.size() - 1);
  }
  CHECK(lines[0].ends_with("\"epoch\":3,\"number\":7,\"metrics\":[[\"train/loss\",0.5]]}\n"));
  CHECK(std::get<journal::head_line>(*read_back(lines[1])).base);
  CHECK(std::get<journal::done_line>(*read_back(lines[2])).epochs ==
        std::vector<std::pair<int, std::uint64_t>>{{3, 7}, {-1, 8}});
  const auto checkpoint = std::get<journal::upload_line>(*read_back(lines[3]));
  CHECK(checkpoint.number == 9);
  CHECK(checkpoint.fields.epoch == 4);
  CHECK(checkpoint.fields.is_best);
  CHECK_FALSE(checkpoint.fields.is_final);
  CHECK(checkpoint.bytes == 1000);
  CHECK(checkpoint.sample == 77);
  const auto model = std::get<journal::upload_line>(*read_back(lines[4]));
  CHECK(model.fields.is_final);
  CHECK(model.fields.map == 0.1);
  for (const double map : {HUGE_VAL, -HUGE_VAL}) {
    const std::string line =
        text_of(journal::upload_line{10, {.is_final = true, .map = map}, 5, 6});
    CHECK(nlohmann::json::accept(line));
    CHECK(std::get<journal::upload_line>(*read_back(line)).fields.map == map);
  }
  CHECK(std::get<journal::upload_done_line>(*read_back(lines[5])).number == 9);
}

TEST_CASE("a line that is whole but of a kind to come is passed over, and is no damage") {
  std::string text = epoch_line(1, 1, {{"loss", 1}});
  journal::append_line(text, [&] { text += "\"invented\":{\"later\":1}"; });
  text += epoch_line(2, 2, {{"loss", 2}});
  const journal::contents found = read_all(text);
  CHECK(found.damaged == 0);
  CHECK(alive(found) == std::map<int, std::uint64_t>{{1, 1}, {2, 2}});
}

TEST_CASE("what the journal comes to does not depend on the order of its lines") {
  std::vector<std::string> lines = {epoch_line(1, 1, {{"loss", 1}}),
                                    epoch_line(1, 4, {{"loss", 4}}),
                                    epoch_line(2, 2, {{"loss", 2}}),
                                    epoch_line(3, 6, {{"loss", 6}}),
                                    text_of(journal::done_line{{{1, 1}, {2, 2}}}),
                                    text_of(journal::upload_line{3, {.epoch = 1}, 10, 1}),
                                    text_of(journal::upload_line{5, {.epoch = 2}, 10, 1}),
                                    text_of(journal::upload_done_line{3})};
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    std::shuffle(lines.begin(), lines.end(), random);
    std::string text;
    for (const std::string& each : lines) text += each + (random() % 2 ? each : "");
    const journal::contents found = read_all(text);
    REQUIRE(alive(found) == std::map<int, std::uint64_t>{{1, 4}, {3, 6}});
    REQUIRE(found.upload);
    REQUIRE(found.upload->number == 5);
    REQUIRE(found.last_number == 6);
    REQUIRE(alive(read_all(found.text())) == alive(found));
    REQUIRE(read_all(found.text()).upload->number == 5);
  }
}

TEST_CASE("a lost strike does not bring an older value back") {
  // Epoch 3 was reported twice and struck out twice; whichever of the strikes is lost, the value
  // that HUB has is not replaced by the older one.
  const std::string first = epoch_line(3, 1, {{"loss", 1}});
  const std::string second = epoch_line(3, 2, {{"loss", 2}});
  CHECK(alive(read_all(first + second + text_of(journal::done_line{{{3, 2}}}))).empty());
  CHECK(alive(read_all(first + second + text_of(journal::done_line{{{3, 1}}}))) ==
        std::map<int, std::uint64_t>{{3, 2}});
  CHECK(alive(read_all(first + text_of(journal::done_line{{{3, 2}}}))).empty());
}

TEST_CASE("a base stands for all before it") {
  const std::string old =
      epoch_line(1, 1, {{"loss", 1}}) + text_of(journal::upload_line{2, {.epoch = 1}, 10, 1});
  const std::string base =
      text_of(journal::head_line{.base = true}) + epoch_line(2, 3, {{"loss", 3}});
  const journal::contents found = read_all(old + base);
  CHECK(alive(found) == std::map<int, std::uint64_t>{{2, 3}});
  CHECK_FALSE(found.upload);
  CHECK(found.last_number == 3);
}

namespace {

// A journal of distinct epochs, line by line.
std::vector<std::string> damage_sample() {
  std::vector<std::string> lines = {text_of(journal::head_line{})};
  for (int epoch = 0; epoch < 6; ++epoch)
    lines.push_back(epoch_line(epoch, static_cast<std::uint64_t>(epoch) + 1,
                               {{"train/loss", 1.0 / (epoch + 1)}, {"metrics/mAP50(B)", 0.25}}));
  return lines;
}

// Which epochs are in the lines that the byte at `offset` is in or, as a line break, between.
std::set<int> touched(const std::vector<std::string>& lines, std::size_t offset) {
  std::set<int> out;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::size_t end = begin + lines[i].size();
    if (offset >= begin && offset < end) {
      out.insert(static_cast<int>(i) - 1);
      if (offset == end - 1) out.insert(static_cast<int>(i));
    }
    begin = end;
  }
  return out;
}

}  // namespace

TEST_CASE("whichever byte of the journal flips, every line that it is not in is used") {
  const std::vector<std::string> lines = damage_sample();
  std::string text;
  for (const std::string& each : lines) text += each;
  for (std::size_t offset = 0; offset < text.size(); ++offset)
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = text;
      damaged[offset] = static_cast<char>(damaged[offset] ^ (1 << bit));
      const journal::contents found = read_all(damaged);
      const std::set<int> hit = touched(lines, offset);
      INFO("bit " << bit << " of byte " << offset);
      for (int epoch = 0; epoch < 6; ++epoch)
        if (!hit.contains(epoch)) REQUIRE(found.epochs.contains(epoch));
      for (const auto& [epoch, line] : found.epochs)
        REQUIRE(values_of(*line.values)[0].second == 1.0 / (epoch + 1));
      REQUIRE(found.damaged >= 1);
    }
}

TEST_CASE("wherever the journal is cut, every whole line before is used") {
  const std::vector<std::string> lines = damage_sample();
  std::string text;
  for (const std::string& each : lines) text += each;
  for (std::size_t length = 0; length <= text.size(); ++length) {
    const journal::contents found = read_all(std::string_view(text).substr(0, length));
    std::size_t end = lines[0].size();
    std::size_t whole = 0;
    // Without its line break a line is whole as well.
    for (std::size_t i = 1; i < lines.size(); ++i)
      if ((end += lines[i].size()) <= length + 1) ++whole;
    INFO("cut at " << length);
    REQUIRE(found.epochs.size() == whole);
  }
}

TEST_CASE("a journal of any bytes is read without harm") {
  std::mt19937_64 random(3);
  const std::string sample = epoch_line(1, 2, {{"loss", 3}});
  for (int round = 0; round < 2000; ++round) {
    std::string text = round % 2 == 0 ? sample + sample : std::string(200, '\0');
    for (std::uint64_t i = random() % 20; i > 0; --i)
      text[static_cast<std::size_t>(random() % text.size())] = static_cast<char>(random());
    read_all(text);
  }
  // Whole by its checksum, but nothing that was ever written.
  for (const char* rest :
       {"\"epoch\":1e300,\"number\":1,\"metrics\":[]", "\"epoch\":1,\"number\":-1,\"metrics\":[]",
        "\"epoch\":1,\"number\":1,\"metrics\":[1]", "\"epoch\":1,\"number\":1,\"metrics\":[[1,2]]",
        "\"done\":[[1]]", "\"done\":7", "\"upload\":\"x\"", "\"upload_done\":-1", "\"format\":[]",
        "[", "\"a\":\"\\ud800\""}) {
    std::string text;
    journal::append_line(text, [&] { text += rest; });
    INFO(text);
    const journal::contents found = read_all(text);
    CHECK(found.epochs.empty());
    CHECK_FALSE(found.upload);
  }
}

// ---- restarts -----------------------------------------------------------------------------------

TEST_CASE("what a dead session left is delivered first, in order and once") {
  spooled_world sim;
  sim.hub.outage(1s, 1h);
  auto& first = sim.begin();
  first.on_pretrain_routine_end();
  sim.advance(10s);
  for (int epoch : {3, 1, 2}) first.on_fit_epoch_end(epoch, {{"loss", epoch}});
  first.on_fit_epoch_end(2, {{"loss", 20}});
  sim.advance(1min);
  sim.die();
  CHECK(sim.epochs_on_hub().empty());
  sim.advance(1h);

  std::vector<std::string> bodies;
  const std::size_t before = sim.hub.count(endpoint::metrics);
  auto& second = sim.begin();
  CHECK(second.status().epochs_restored == 3);
  CHECK(sim.said("The last session left 3 epochs in the spool"));
  sim.advance(1s);
  CHECK(sim.epochs_on_hub() == std::vector<int>{1, 2, 3});
  CHECK(sim.loss_on_hub(2) == 20);
  CHECK(sim.hub.count(endpoint::metrics) == before + 1);
  CHECK(second.status().epochs_delivered == 3);

  second.on_pretrain_routine_end();
  second.on_fit_epoch_end(4, {{"loss", 4}});
  CHECK(second.on_train_end(4, "", 0).complete());
  CHECK(sim.epochs_on_hub() == std::vector<int>{1, 2, 3, 4});
  CHECK(sim.left().epochs.empty());

  auto& third = sim.begin();
  sim.advance(1min);
  CHECK(third.status().epochs_restored == 0);
  CHECK(sim.hub.count(endpoint::metrics) == before + 2);
}

TEST_CASE("without a spool nothing is written and nothing is kept") {
  spooled_world sim;
  sim.with.spool.directory.clear();
  sim.begin().on_fit_epoch_end(0, {{"loss", 1}});
  sim.die();
  CHECK(sim.disk->bytes() == 0);
  CHECK(sim.begin().status().epochs_restored == 0);
}

TEST_CASE("the newest value of an epoch survives, whichever session reported it") {
  spooled_world sim;
  sim.hub.outage(1s, 1h);
  sim.begin().on_fit_epoch_end(0, {{"loss", 1}});
  sim.advance(5s);
  sim.die();
  sim.hub.no_more_faults();
  sim.hub.fail_next(endpoint::metrics, {fault_kind::status, 503}, 5);
  auto& second = sim.begin();
  second.on_fit_epoch_end(0, {{"loss", 2}});
  sim.advance(100ms);
  sim.die();
  sim.hub.no_more_faults();
  sim.begin();
  sim.advance(1min);
  CHECK(sim.loss_on_hub(0) == 2);
  CHECK(sim.left().epochs.empty());
}

TEST_CASE("an epoch that HUB refuses for good does not come back") {
  spooled_world sim;
  sim.hub.fail_next(endpoint::metrics, {fault_kind::status, 422});
  sim.begin().on_fit_epoch_end(0, {{"loss", 1}});
  sim.advance(1min);
  CHECK(sim.session->status().epochs_set_aside == 1);
  CHECK(sim.left().epochs.empty());
}

TEST_CASE("an epoch that the queue has no room for stays in the spool for the next session") {
  spooled_world sim;
  sim.with.limits.metrics_queue_bytes_max = 1000;
  sim.hub.outage(1s, 1h);
  auto& first = sim.begin();
  sim.advance(2s);
  for (int epoch = 0; epoch < 20; ++epoch) first.on_fit_epoch_end(epoch, {{"loss", epoch}});
  const std::size_t aside = first.status().epochs_set_aside;
  CHECK(aside > 5);
  CHECK(sim.said("and sent by the next session"));
  sim.die();
  sim.advance(1h);
  std::size_t sessions = 0;
  while (!sim.left().epochs.empty() && ++sessions < 10) {
    sim.begin();
    sim.advance(1min);
    sim.die();
  }
  CHECK(sessions == (20 + 5) / 6);  // six fit at a time
  CHECK(sim.epochs_on_hub() == epochs(0, 19));
}

TEST_CASE("a damaged journal gives what is whole, and says so") {
  spooled_world sim;
  sim.hub.outage(1s, 1h);
  auto& first = sim.begin();
  sim.advance(2s);
  for (int epoch = 0; epoch < 5; ++epoch) first.on_fit_epoch_end(epoch, {{"loss", epoch}});
  sim.die();
  sim.advance(1h);
  std::string& text = sim.files().at("journal-1.jsonl");
  text[text.find("\"epoch\":2") + 8] = '7';
  text.resize(text.size() - 10);
  sim.begin();
  sim.advance(1min);
  CHECK(sim.epochs_on_hub() == std::vector<int>{0, 1, 3});
  CHECK(sim.said("2 damaged lines"));
}

TEST_CASE("a spool of a newer version is left alone") {
  spooled_world sim;
  sim.files()["journal-1.jsonl"] =
      text_of(journal::head_line{.format = 2}) + epoch_line(1, 1, {{"loss", 1}});
  const auto before = sim.files();
  auto& session = sim.begin();
  CHECK(sim.said("newer version"));
  session.on_fit_epoch_end(0, {{"loss", 1}});
  sim.advance(1min);
  CHECK(sim.epochs_on_hub() == std::vector<int>{0});
  CHECK(sim.files() == before);
}

// ---- checkpoints --------------------------------------------------------------------------------

TEST_CASE("a checkpoint that waits is delivered by the next session as it was saved") {
  for (const hub::snapshot how : {hub::snapshot::copy, hub::snapshot::none}) {
    spooled_world sim;
    sim.with.snapshot = how;
    sim.hub.outage(1s, 2h);
    auto& first = sim.begin();
    first.on_pretrain_routine_end();
    sim.advance(20min);
    first.on_model_save(4, sim.folder.write("last.pt", "the weights"), true);
    sim.advance(1min);
    CHECK(sim.files().at("checkpoint-1.pt") == "the weights");
    sim.die();
    fs::remove(sim.folder / "last.pt");
    sim.advance(2h);

    auto& second = sim.begin();
    CHECK(sim.said("left 0 epochs and a checkpoint"));
    sim.advance(1min);
    REQUIRE(sim.model().checkpoints.size() == 1);
    CHECK(sim.model().checkpoints[0].hash == content_hash("the weights"));
    CHECK(sim.model().checkpoints[0].epoch == 4);
    CHECK(sim.model().checkpoints[0].is_best);
    CHECK(second.status().checkpoints_delivered == 1);
    CHECK_FALSE(sim.files().contains("checkpoint-1.pt"));
    CHECK_FALSE(sim.left().upload);
  }
}

TEST_CASE("checkpoints that were delivered, replaced or refused leave nothing behind") {
  spooled_world sim;
  auto& session = sim.begin();
  const auto last = sim.folder.write("last.pt", "weights");
  session.upload_model(0, last, false);
  sim.advance(1s);
  CHECK_FALSE(sim.files().contains("checkpoint-1.pt"));
  sim.hub.fail_next(endpoint::upload, {fault_kind::status, 422});
  session.upload_model(1, last, false);
  sim.advance(1s);
  CHECK_FALSE(sim.files().contains("checkpoint-2.pt"));
  sim.hub.outage(0s, 1h);
  session.upload_model(2, last, false);
  session.upload_model(3, last, false);
  sim.advance(10min);
  CHECK_FALSE(sim.files().contains("checkpoint-3.pt"));
  CHECK(sim.files().contains("checkpoint-4.pt"));
  CHECK(sim.left().upload->number == 4);
}

TEST_CASE("a session that ends in an outage leaves its checkpoint to the next one") {
  spooled_world sim;
  sim.hub.outage(1s, 1h);
  auto& first = sim.begin();
  sim.advance(2s);
  first.upload_model(0, sim.folder.write("last.pt", "weights"), false);
  sim.session.reset();
  CHECK(sim.files().contains("checkpoint-1.pt"));
  sim.advance(1h);
  sim.begin();
  sim.advance(1min);
  CHECK(sim.model().checkpoints.size() == 1);
}

TEST_CASE("a final model that was left is delivered after the metrics") {
  spooled_world sim;
  sim.with.limits.train_end_deadline = 1min;
  sim.hub.outage(1s, 1h);
  auto& first = sim.begin();
  sim.advance(2s);
  first.on_fit_epoch_end(0, {{"loss", 1}});
  const auto delivered = first.on_train_end(0, sim.folder.write("best.pt", "best"), 0.5);
  CHECK_FALSE(delivered.complete());
  sim.die();
  sim.advance(1h);
  const std::size_t before = sim.hub.requests().size();
  auto& second = sim.begin();
  const auto sent = second.flush(1min);
  CHECK(sent.complete());
  CHECK(sent.final_model_delivered);
  std::vector<endpoint> order;
  for (std::size_t i = before; i < sim.hub.requests().size(); ++i)
    if (const auto to = sim.hub.requests()[i].to; to == endpoint::metrics || to == endpoint::upload)
      order.push_back(*to);
  CHECK(order == std::vector<endpoint>{endpoint::metrics, endpoint::upload});
  REQUIRE(sim.model().final_model());
  CHECK(sim.model().final_model()->map == 0.5);
  CHECK(sim.left().last_number > 0);
  CHECK_FALSE(sim.left().upload);
}

TEST_CASE("a new training supersedes a final model that was left") {
  spooled_world sim;
  sim.with.limits.train_end_deadline = 1min;
  sim.hub.outage(1s, 1h);
  sim.begin();
  sim.advance(2s);
  sim.session->on_train_end(0, sim.folder.write("best.pt", "old"), 0.5);
  sim.die();
  sim.advance(1h);
  auto& second = sim.begin();
  second.on_pretrain_routine_end();
  CHECK(sim.said("is not sent: a new training begins"));
  sim.advance(1min);
  CHECK(sim.model().checkpoints.empty());
  CHECK_FALSE(sim.left().upload);
  const auto delivered = second.on_train_end(0, sim.folder.write("best.pt", "new"), 0.6);
  CHECK(delivered.complete());
  REQUIRE(sim.model().checkpoints.size() == 1);
  CHECK(sim.model().final_model()->hash == content_hash("new"));
}

TEST_CASE("a final model left by one training does not count as the next one's") {
  spooled_world sim;
  sim.with.limits.train_end_deadline = 1min;
  sim.hub.outage(1s, 1h);
  sim.begin();
  sim.advance(2s);
  sim.session->on_train_end(0, sim.folder.write("best.pt", "old"), 0.5);
  sim.die();
  sim.advance(1h);
  auto& second = sim.begin();
  sim.advance(1min);
  CHECK(sim.model().checkpoints.size() == 1);
  second.on_pretrain_routine_end();
  sim.hub.outage(0s, 1h);
  const auto delivered = second.on_train_end(0, sim.folder.write("best.pt", "new"), 0.6);
  CHECK_FALSE(delivered.final_model_delivered);
  CHECK_FALSE(delivered.complete());
}

TEST_CASE("what is left of a model that HUB takes for trained is delivered before it is refused") {
  spooled_world sim;
  sim.hub.fail_next(endpoint::metrics, {fault_kind::status, 503}, 30);
  auto& first = sim.begin();
  first.on_fit_epoch_end(0, {{"loss", 1}});
  const auto delivered = first.on_train_end(0, sim.folder.write("best.pt", "best"), 0.5);
  CHECK(delivered.final_model_delivered);
  CHECK(delivered.epochs_queued == 1);
  sim.session.reset();
  sim.hub.no_more_faults();
  const std::size_t beats = sim.model().heartbeats.size();
  errc code = errc::internal_error;
  try {
    sim.begin();
  } catch (const hub::session_error& problem) {
    code = problem.code();
  }
  CHECK(code == errc::already_trained);
  CHECK(sim.epochs_on_hub() == std::vector<int>{0});
  CHECK(sim.model().heartbeats.size() == beats);
  CHECK(sim.left().epochs.empty());
}

TEST_CASE("no checkpoint that was left follows the final model that HUB has") {
  spooled_world sim;
  sim.hub.outage(1s, 1h);
  auto& first = sim.begin();
  sim.advance(2s);
  first.upload_model(3, sim.folder.write("last.pt", "weights"), false);
  sim.die();
  REQUIRE(sim.left().upload);
  sim.advance(2h);
  sim.model().about.state = hub::model_state::trained;
  try {
    sim.begin();
    FAIL("not refused");
  } catch (const hub::session_error& problem) {
    CHECK(problem.code() == errc::already_trained);
  }
  CHECK(sim.model().checkpoints.empty());
  CHECK_FALSE(sim.left().upload);
}

// ---- death at every operation -------------------------------------------------------------------

namespace {

// What a course of sessions had been promised at the moment of its death.
struct promises {
  struct value {
    double loss;
    hub::time_point at;
  };
  std::map<int, std::vector<value>> epochs = {};  // accepted, in order
  std::map<int, double> in_doubt = {};            // the callback had not returned
  std::optional<int> checkpoint = {};             // the epoch of the newest one accepted ...
  hub::time_point checkpoint_at = {};
  std::set<std::uint64_t> contents = {};       // ... and the hashes of all that were saved
  std::vector<hub::time_point> lines = {};     // when each line that was printed was accepted
  std::optional<hub::time_point> end_at = {};  // when on_train_end was
};

// What a death leaves, by the protocol.
struct hub_deaths : spooled_world {
  static constexpr hub::duration calm = 1h;  // until all that was left has arrived

  hub::testing::fake_server& server() { return hub; }
  // Of each epoch that is there.
  std::map<int, double> losses() {
    std::map<int, double> out;
    for (const int epoch : epochs_on_hub()) out[epoch] = loss_on_hub(epoch);
    return out;
  }
  // The hash and the epoch of each file that is there.
  std::vector<std::pair<std::uint64_t, int>> uploads() {
    std::vector<std::pair<std::uint64_t, int>> out;
    for (const auto& each : model().checkpoints) out.emplace_back(each.hash, each.epoch);
    return out;
  }
  template <class Kept>
  void require_rest(const promises&, const Kept&, crash_kind, spool_sync) {}
};

// A run that goes on as the same one; where its ids were lost before they were on the disk, another has
// what came later.
struct platform_deaths : world_with_spool<hub::testing::platform_session> {
  // Shorter than it takes to a sign of life: that the run has ended only the server may know.
  static constexpr hub::duration calm = 4min;

  platform_deaths() {
    const hub::session_options options = platform_options();
    with.endpoints = options.endpoints;
    with.credentials = options.credentials;
    keep_in_spool();
  }

  void begin() {
    session.reset();
    session.reset(new hub::testing::platform_session(simulation::start(
        hub::platform_run{.project = "lab/helmets", .name = "nano", .resume = true}, with)));
  }
  hub::testing::fake_server& server() { return platform; }
  fs::path model_folder() const {
    return hub::machine::full_path("spool") / "platform-lab-helmets-nano";
  }
  journal::contents left() { return left_in(model_folder()); }

  std::map<int, double> losses() const {
    std::map<int, double> out;
    for (const auto& [model_id, run] : platform.models())
      for (const auto& [epoch, data] : run.epochs)
        out[epoch] = std::max(out[epoch], data.at("metrics").at("loss").get<double>());
    return out;
  }
  std::vector<std::pair<std::uint64_t, int>> uploads() const {
    std::vector<std::pair<std::uint64_t, int>> out;
    for (const auto& [model_id, run] : platform.models())
      for (const auto& file : run.uploads)
        if (file.arrived)
          out.emplace_back(file.hash, std::stoi(file.content.substr(file.content.find(' '))));
    return out;
  }
  // Each line once and in order, and the end once and last.
  template <class Kept>
  void require_rest(const promises& made, const Kept& kept, crash_kind kind, spool_sync mode) {
    may_repeat_after_the_end = kind == crash_kind::power;
    const bool may_repeat = may_repeat_after_the_end && mode != spool_sync::each;
    session->flush(1h);  // an end that was left is told where nothing goes on
    std::vector<std::size_t> there(made.lines.size() + 2);  // by number, with one in doubt
    std::size_t completed = 0;
    for (const auto& [model_id, run] : platform.models()) {
      REQUIRE((run.after_the_end == 0 || may_repeat_after_the_end));
      if (run.state == hub::testing::platform_state::completed) ++completed;
      std::size_t last = 0;
      for (const auto& [chunk, data] : run.console) {
        const std::string text = data.at("content");
        std::istringstream content(text);
        for (std::string line; std::getline(content, line);) {
          const std::size_t number = std::stoul(line.substr(line.find(' ')));
          REQUIRE((number > last || may_repeat));
          last = number;
          ++there.at(number);
        }
      }
    }
    for (std::size_t i = 0; i < made.lines.size(); ++i) {
      if (kept(made.lines[i])) REQUIRE(there[i + 1] >= 1);
      if (!may_repeat) REQUIRE(there[i + 1] <= 1);
    }
    REQUIRE(completed <= 1);
    if (made.end_at && kept(*made.end_at)) REQUIRE(completed == 1);
    REQUIRE(left().empty());
  }
};

// Reports to the session at hand and keeps count of what it promised.
template <class World>
class trainer {
 public:
  trainer(World& sim, promises& made) : sim_(sim), made_(made) {}

  void report(int epoch, double loss) {
    if (!sim_.disk->dead()) print();
    sim_.session->on_fit_epoch_end(epoch, {{"loss", loss}, {"metrics/mAP50-95(B)", 0.5}});
    if (!sim_.disk->dead())
      made_.epochs[epoch].push_back({loss, sim_.time.now()});
    else if (!std::exchange(died_, true))
      made_.in_doubt[epoch] = loss;
  }
  void save(int epoch) {
    const std::string content = "weights " + std::to_string(epoch);
    made_.contents.insert(content_hash(content));
    const auto file = sim_.folder.write("last.pt", content);
    sim_.session->upload_model(epoch, file, false);
    accept(epoch);
  }
  void end(int epoch) {
    const std::string content = "best " + std::to_string(epoch);
    made_.contents.insert(content_hash(content));
    const auto file = sim_.folder.write("best.pt", content);
    sim_.session->on_train_end(epoch, file, 0.5);
    accept(epoch);
    if (!sim_.disk->dead()) made_.end_at = sim_.time.now();
  }

 private:
  void print() {
    sim_.session->console("[2026] " + std::to_string(made_.lines.size() + 1) + "\n");
    if (!sim_.disk->dead()) made_.lines.push_back(sim_.time.now());
  }
  void accept(int epoch) {
    if (sim_.disk->dead()) return;
    made_.checkpoint = epoch;
    made_.checkpoint_at = sim_.time.now();
  }

  World& sim_;
  promises& made_;
  bool died_ = false;
};

template <class World>
struct course {
  std::string name;
  std::function<void(World&, trainer<World>&)> run;
};

// The server answers: what is accepted is struck out soon.
template <class World>
void steady(World& sim, trainer<World>& train) {
  sim.begin();
  for (int epoch = 0; epoch < 12; ++epoch) {
    train.report(epoch, epoch);
    if (epoch % 4 == 1) train.save(epoch);
    sim.advance(700ms);
  }
  train.report(3, 33);
  train.end(11);
}

// The server is away, and values are reported anew.
template <class World>
void outage(World& sim, trainer<World>& train) {
  sim.server().outage(1s, 10h);
  sim.begin();
  sim.advance(2s);
  for (int epoch = 0; epoch < 10; ++epoch) {
    train.report(epoch, epoch);
    if (epoch % 3 == 2) train.report(epoch - 1, 100 + epoch);
    if (epoch == 4 || epoch == 7) train.save(epoch);
    sim.advance(400ms);
  }
}

// Sessions one after the other, some of which end without having sent everything; the journal is
// rewritten at each start.
template <class World>
void relay(World& sim, trainer<World>& train) {
  for (int leg = 0; leg < 4; ++leg) {
    sim.server().no_more_faults();
    if (leg % 2 == 0) sim.server().outage(1s, 1h);
    sim.begin();
    sim.advance(2s);
    for (int epoch = 2 * leg; epoch < 2 * leg + 4; ++epoch) train.report(epoch, 10 * leg + epoch);
    train.save(2 * leg);
    sim.advance(leg == 1 ? 100ms : 4s);
  }
}

// The journal is rewritten again and again while the session goes on.
template <class World>
void rewriting(World& sim, trainer<World>& train) {
  sim.with.spool.rewrite_bytes_min = 1000;
  sim.server().outage(20s, 40s);
  sim.begin();
  for (int epoch = 0; epoch < 30; ++epoch) {
    train.report(epoch, epoch);
    if (epoch > 0) train.report(epoch - 1, 100 + epoch);
    if (epoch == 10) train.save(epoch);
    sim.advance(1500ms);
  }
}

// What the server has in the end: all that was promised and `kept` says outlives its death, and nothing
// that nobody reported.
template <class World, class Kept>
void require_promises(World& sim, promises& made, const Kept& kept) {
  const std::map<int, double> losses = sim.losses();
  for (const auto& [epoch, values] : made.epochs) {
    double least = -1;
    for (const auto& value : values)
      if (kept(value.at)) least = value.loss;
    if (least < 0) continue;
    REQUIRE(losses.contains(epoch));
    REQUIRE(losses.at(epoch) >= least);
  }
  for (const auto& [epoch, loss] : losses) {
    std::set<double> reported;
    if (made.in_doubt.contains(epoch)) reported.insert(made.in_doubt.at(epoch));
    for (const auto& value : made.epochs[epoch]) reported.insert(value.loss);
    REQUIRE(reported.contains(loss));
  }
  int newest = -1;
  for (const auto& [hash, epoch] : sim.uploads()) {
    REQUIRE(made.contents.contains(hash));
    newest = std::max(newest, epoch);
  }
  if (made.checkpoint && kept(made.checkpoint_at)) REQUIRE(newest >= *made.checkpoint);
  REQUIRE(sim.left().epochs.empty());
  REQUIRE_FALSE(sim.left().upload);
  REQUIRE(sim.disk->folder(sim.model_folder()).size() <= 4);
}

// Runs a course and kills it at operation `at`; the next session may die as well. False where the
// course was over before.
template <class World>
bool die_in(const course<World>& what, spool_sync mode, crash_kind kind, std::uint64_t at,
            std::uint64_t seed) {
  World sim;
  sim.with.spool.sync = mode;
  promises made;
  trainer<World> train(sim, made);
  std::optional<hub::time_point> first_death;
  const auto dies = [&](std::uint64_t operation) {
    sim.disk->die_at(operation, [&] {
      sim.server().unreachable = true;
      if (!first_death) first_death = sim.time.now();
    });
  };
  dies(at);
  try {
    what.run(sim, train);
  } catch (const hub::session_error&) {  // of a constructor in a process that is dead already
    REQUIRE(sim.disk->dead());
  }
  const bool died = sim.disk->dead();
  if (!first_death) first_death = sim.time.now();
  const auto start_again = [&](std::uint64_t loss_seed) {
    sim.die(kind, loss_seed);
    sim.server().unreachable = false;
    sim.server().no_more_faults();
  };
  start_again(seed);

  const auto live = [&](hub::duration time) {
    try {
      sim.begin();
      sim.advance(time);
    } catch (const hub::session_error& problem) {
      REQUIRE((sim.disk->dead() || problem.code() == errc::already_trained));
    }
  };
  dies(at % 11);
  live(10s);
  start_again(seed == 0 ? 0 : seed + 1);
  live(World::calm);

  INFO(what.name << ", sync " << static_cast<int>(mode) << ", crash " << static_cast<int>(kind)
                 << ", seed " << seed << ", operation " << at);
  const auto kept = [&](hub::time_point when) {
    if (kind == crash_kind::process || mode == spool_sync::each) return true;
    return mode == spool_sync::interval && *first_death - when > sim.with.spool.sync_interval;
  };
  require_promises(sim, made, kept);
  sim.require_rest(made, kept, kind, mode);
  return died;
}

// At each operation in the long variant, else at every fifth: which fifth differs from course to course.
template <class World>
void die_everywhere() {
  const std::vector<course<World>> courses = {{"steady", steady<World>},
                                              {"outage", outage<World>},
                                              {"relay", relay<World>},
                                              {"rewriting", rewriting<World>}};
  const std::uint64_t step = hub_test::long_variant() ? 1 : 5;
  std::uint64_t first = 0;
  std::uint64_t points = 0;
  for (const course<World>& what : courses)
    for (const spool_sync mode : {spool_sync::each, spool_sync::interval, spool_sync::none}) {
      const auto every = [&](crash_kind kind, std::uint64_t seed) {
        for (std::uint64_t at = first++ % step;
             die_in(what, mode, kind, at, seed == 0 ? 0 : seed + at); at += step)
          ++points;
      };
      every(crash_kind::process, 0);
      every(crash_kind::power, 0);
      every(crash_kind::power, 1000);
    }
  CAPTURE(points);
  CHECK(points * step >= 1000);
}

}  // namespace

TEST_CASE("whichever operation a session dies at, what it promised is delivered") {
  die_everywhere<hub_deaths>();
}

TEST_CASE(
    "whichever operation a session on the Platform dies at, the run is there, lines and end") {
  die_everywhere<platform_deaths>();
}

// ---- bounds and faults --------------------------------------------------------------------------

TEST_CASE("a week without HUB stays within the bound, and what was dropped is counted and said") {
  spooled_world sim;
  sim.with.spool.bytes_max = 400'000;
  sim.with.spool.rewrite_bytes_min = 20'000;
  sim.hub.outage(1s, 7 * 24h);
  sim.hub.keep_requests = false;
  auto& session = sim.begin();
  session.on_pretrain_routine_end();
  const auto last = sim.folder.write("last.pt", std::string(100'000, 'w'));
  int epoch = 0;
  for (; epoch < 7 * 24 * 12; ++epoch) {  // five minutes each
    sim.advance(5min);
    session.on_fit_epoch_end(epoch, {{"train/box_loss", 1.0 / (epoch + 1)},
                                     {"train/cls_loss", 2.0 / (epoch + 1)},
                                     {"metrics/mAP50-95(B)", 0.5}});
    session.on_model_save(epoch, last, false);
    REQUIRE(sim.disk->bytes() <= 400'000 + 1000);  // model.json and the rest are not of it
  }
  const hub::session_status status = session.status();
  CHECK(status.spool_dropped > 100);
  CHECK(status.epochs_queued == static_cast<std::size_t>(epoch));
  CHECK(sim.lines_with("the spool is full") == 1);
  const std::size_t kept = sim.left().epochs.size();
  CHECK(kept > 1000);
  sim.die();
  sim.advance(1h);
  sim.begin();
  sim.advance(1h);
  CHECK(sim.epochs_on_hub().size() == kept);
  CHECK(sim.left().epochs.empty());
  CHECK(sim.disk->bytes() < 250'000);
}

TEST_CASE("checkpoints make way for metrics, and the session says why one is not sent") {
  spooled_world sim;
  sim.with.spool.bytes_max = 10'000;
  sim.hub.outage(1s, 1h);
  auto& session = sim.begin();
  sim.advance(2s);
  session.upload_model(0, sim.folder.write("last.pt", std::string(9'000, 'w')), false);
  CHECK(sim.files().contains("checkpoint-1.pt"));
  for (int epoch = 0; epoch < 20; ++epoch) session.on_fit_epoch_end(epoch, {{"loss", epoch}});
  CHECK_FALSE(sim.files().contains("checkpoint-1.pt"));
  CHECK(sim.left().epochs.size() == 20);
  CHECK(session.status().spool_dropped == 1);
  sim.advance(2h);
  CHECK(sim.said("the spool needed its room for metrics"));
  CHECK(session.status().checkpoints_failed == 1);
  CHECK(sim.epochs_on_hub() == epochs(0, 19));

  // One that cannot fit is sent from a copy elsewhere, as without a spool.
  session.upload_model(1, sim.folder.write("last.pt", std::string(20'000, 'x')), false);
  sim.advance(1s);
  REQUIRE(sim.model().checkpoints.size() == 1);
  CHECK(sim.model().checkpoints[0].hash == content_hash(std::string(20'000, 'x')));
}

TEST_CASE("a disk that is full or broken is said once, and the training goes on") {
  for (const bool full : {true, false}) {
    spooled_world sim;
    sim.hub.outage(1s, 1h);
    auto& session = sim.begin();
    sim.advance(2s);
    session.on_fit_epoch_end(0, {{"loss", 0}});
    if (full)
      sim.disk->bytes_max = sim.disk->bytes() + 20;
    else
      sim.disk->broken = true;
    for (int epoch = 1; epoch < 5; ++epoch) {
      session.on_fit_epoch_end(epoch, {{"loss", epoch}});
      sim.advance(10s);
    }
    CHECK(sim.lines_with("in memory alone") == 1);
    CHECK(session.status().spool_dropped == 4);
    CHECK(session.status().epochs_queued == 5);
    sim.disk->bytes_max = 1'000'000;
    sim.disk->broken = false;
    session.on_fit_epoch_end(5, {{"loss", 5}});
    CHECK(sim.lines_with("can be written to again") == 1);
    CHECK(alive(sim.left()) == std::map<int, std::uint64_t>{{0, 1}, {5, 6}});
    sim.advance(2h);
    CHECK(sim.epochs_on_hub() == epochs(0, 5));
    CHECK(sim.left().epochs.empty());
  }
}

TEST_CASE("what could not be struck out while the disk was full is struck out later") {
  spooled_world sim;
  auto& session = sim.begin();
  session.on_fit_epoch_end(0, {{"loss", 0}});
  sim.disk->broken = true;
  sim.advance(1min);
  CHECK(sim.epochs_on_hub() == std::vector<int>{0});
  CHECK(sim.left().epochs.size() == 1);
  session.on_fit_epoch_end(0, {{"loss", 1}});  // supersedes, though it cannot be written down
  sim.advance(1min);
  sim.disk->broken = false;
  session.on_fit_epoch_end(1, {{"loss", 2}});
  CHECK(alive(sim.left()) == std::map<int, std::uint64_t>{{1, 3}});
}

TEST_CASE("a spool that cannot be opened is said, and the session starts without it") {
  spooled_world sim;
  sim.with.spool.storage = nullptr;
  sim.with.spool.directory = sim.folder.write("a file", "") / "spool";
  auto& session = sim.begin();
  CHECK(sim.lines_with("goes on in memory alone") == 1);
  session.on_fit_epoch_end(0, {{"loss", 1}});
  sim.advance(1min);
  CHECK(sim.epochs_on_hub() == std::vector<int>{0});
}

TEST_CASE("with sync each the callback returns when the epoch is safe from a power failure") {
  for (const spool_sync mode : {spool_sync::each, spool_sync::interval, spool_sync::none}) {
    spooled_world sim;
    sim.with.spool.sync = mode;
    sim.with.spool.sync_interval = 10s;
    sim.hub.outage(1s, 1h);
    sim.begin();
    sim.advance(2s);
    for (int epoch = 0; epoch < 3; ++epoch) {
      sim.session->on_fit_epoch_end(epoch, {{"loss", epoch}});
      sim.advance(4s);
    }
    sim.session->on_fit_epoch_end(3, {{"loss", 3}});  // 12 s after the first
    sim.die(crash_kind::power);
    const std::size_t kept = sim.left().epochs.size();
    CHECK(kept == (mode == spool_sync::each ? 4u : mode == spool_sync::interval ? 3u : 0u));
  }
}

TEST_CASE("one model's folder has one session at a time, and another model is no matter") {
  spooled_world sim;
  sim.begin();
  errc code = errc::internal_error;
  try {
    sim.start();
  } catch (const hub::session_error& problem) {
    code = problem.code();
  }
  CHECK(code == errc::spool_locked);
  const std::string other = sim.hub.add_model();
  auto beside = static_cast<hub::testing::simulation&>(sim).start(other, sim.with);
  beside.on_fit_epoch_end(0, {{"loss", 1}});
  CHECK(sim.disk->folder(hub::machine::full_path("spool") / other).size() > 1);
  sim.session.reset();
  sim.start();
}

// ---- starting without HUB -----------------------------------------------------------------------

namespace {

std::optional<hub::error> refusal(spooled_world& sim) {
  try {
    sim.begin();
    return std::nullopt;
  } catch (const hub::session_error& problem) {
    return problem.error();
  }
}

}  // namespace

TEST_CASE("without HUB a session starts on what HUB said last, if that is allowed") {
  spooled_world sim;
  sim.begin();
  CHECK(sim.session->train_args().epochs == 100);
  sim.die();
  sim.hub.unreachable = true;
  const auto why = refusal(sim);
  REQUIRE(why);
  CHECK(why->code == errc::not_reachable);
  CHECK(contains(why->message, "spool.offline"));

  sim.with.spool.offline = hub::offline_start::allow;
  auto& session = sim.begin();
  CHECK(sim.said("starts without the server"));
  CHECK(session.model().id == sim.id);
  CHECK(session.train_args().epochs == 100);
  CHECK(session.model_file() == "yolov8n.yaml");
  CHECK(session.train_args().data == "https://storage.example/dataset.zip");
  session.on_fit_epoch_end(0, {{"loss", 1}});
  sim.advance(1h);
  CHECK(sim.epochs_on_hub().empty());
  sim.hub.unreachable = false;
  sim.advance(10min);
  CHECK(sim.epochs_on_hub() == std::vector<int>{0});
  CHECK(session.status().heartbeats_answered > 0);
  for (const auto& [name, content] : sim.files()) CHECK_FALSE(contains(content, "Signature"));
}

TEST_CASE("a first start without HUB needs the program's train args and a key") {
  spooled_world sim;
  sim.hub.unreachable = true;
  sim.with.spool.offline = hub::offline_start::allow;
  REQUIRE(refusal(sim));
  sim.with.spool.train_args = hub::train_args{.data = "coco8.yaml", .epochs = 7};
  CHECK_FALSE(refusal(sim));
  CHECK(sim.session->train_args().epochs == 7);
  CHECK(sim.session->model_url() == "https://hub.test/models/" + sim.id);
  sim.session.reset();

  sim.with.credentials.api_key.clear();
  const environment no_key("ULTRALYTICS_API_KEY", nullptr);
  const auto why = refusal(sim);
  REQUIRE(why);
  CHECK(why->code == errc::not_authenticated);
}

TEST_CASE("a refusal of HUB's is no reason to start without it") {
  for (const fault& each :
       {fault{fault_kind::status, 401}, fault{fault_kind::status, 403},
        fault{fault_kind::status, 404}, fault{fault_kind::status, 422}, fault{fault_kind::html}}) {
    spooled_world sim;
    sim.begin();
    sim.session.reset();
    sim.with.spool.offline = hub::offline_start::allow;
    sim.hub.fail_next(endpoint::model, each, 10);
    CHECK(refusal(sim));
  }
  for (const fault& each : {fault{fault_kind::status, 503}, fault{fault_kind::status, 429},
                            fault{fault_kind::timed_out}, fault{fault_kind::reply_lost}}) {
    spooled_world sim;
    sim.begin();
    sim.session.reset();
    sim.with.spool.offline = hub::offline_start::allow;
    sim.hub.fail_next(endpoint::model, each, 10);
    CHECK_FALSE(refusal(sim));
  }
}

// ---- the disk -----------------------------------------------------------------------------------

namespace {

// A world whose sessions have a spool in a real folder.
struct world_on_disk : world {
  std::unique_ptr<training_session> session;

  world_on_disk() { with.spool.directory = folder / "spool"; }
  training_session& begin() {
    session.reset();
    session = std::unique_ptr<training_session>(new training_session(start()));
    return *session;
  }
  fs::path model_folder() const { return folder / "spool" / id; }
};

}  // namespace

TEST_CASE("on the disk what a session left is delivered by the next one") {
  for (const spool_sync mode : {spool_sync::each, spool_sync::interval, spool_sync::none})
    for (const hub::snapshot how : {hub::snapshot::copy, hub::snapshot::none}) {
      world_on_disk sim;
      sim.with.spool.sync = mode;
      sim.with.snapshot = how;
      sim.hub.outage(1s, 1h);
      auto& first = sim.begin();
      sim.advance(2s);
      for (int epoch = 0; epoch < 5; ++epoch) first.on_fit_epoch_end(epoch, {{"loss", epoch}});
      const auto last = sim.folder.write("last.pt", "weights");
      first.upload_model(4, last, false);
      sim.advance(1min);
#if !defined(_WIN32)  // where the standard library counts no links
      CHECK(fs::hard_link_count(last) == (how == hub::snapshot::none ? 2u : 1u));
#endif
      sim.session.reset();

      const auto left = hub::list_spool(sim.folder / "spool");
      REQUIRE(left.size() == 1);
      CHECK(left[0].model_id == sim.id);
      CHECK(left[0].epochs == 5);
      CHECK(left[0].checkpoint_epoch == 4);
      CHECK(left[0].checkpoint_bytes == 7);
      CHECK_FALSE(left[0].is_final);
      CHECK(left[0].journal_bytes > 0);
      CHECK(left[0].journal_bytes == fs::file_size(sim.model_folder() / "journal-1.jsonl"));

      fs::remove(last);
      sim.advance(1h);
      sim.begin();
      sim.advance(1min);
      CHECK(sim.epochs_on_hub() == epochs(0, 4));
      REQUIRE(sim.model().checkpoints.size() == 1);
      CHECK(sim.model().checkpoints[0].hash == content_hash("weights"));
      sim.session.reset();
      CHECK(hub::list_spool(sim.folder / "spool").at(0).empty());
    }
}

#if !defined(_WIN32)  // where tests/windows.cpp looks at access lists
TEST_CASE("a spool's files are for this user alone") {
  world_on_disk sim;
  sim.hub.outage(1s, 1h);
  auto& session = sim.begin();
  sim.advance(2s);
  session.on_fit_epoch_end(0, {{"loss", 1}});
  session.upload_model(0, sim.folder.write("last.pt", "weights"), false);
  const auto open_to_others = [](const fs::path& what) {
    return (fs::status(what).permissions() & (fs::perms::group_all | fs::perms::others_all)) !=
           fs::perms::none;
  };
  CHECK_FALSE(open_to_others(sim.model_folder()));
  std::set<std::string> names;
  for (const auto& each : fs::directory_iterator(sim.model_folder())) {
    names.insert(each.path().filename().string());
    INFO(each.path());
    CHECK_FALSE(open_to_others(each.path()));
    CHECK(read_file(each.path()).find(std::string(10, 'k')) == std::string::npos);
  }
  CHECK(names == std::set<std::string>{"checkpoint-2.pt", "journal-1.jsonl", "lock", "model.json"});
}
#endif

TEST_CASE("on the disk a second session on a model is refused, and told what to do") {
  world_on_disk sim;
  sim.begin();
  try {
    sim.start();
    FAIL("it was not refused");
  } catch (const hub::session_error& problem) {
    CHECK(problem.code() == errc::spool_locked);
    CHECK(contains(problem.what(), sim.id));
    CHECK(contains(problem.what(), "process " + std::to_string(hub::machine::process_id())));
    CHECK(contains(problem.what(), "spool.directory"));
  }
  sim.session.reset();
  sim.begin();
}

#if !defined(_WIN32)  // which keeps a folder in which a file is open
TEST_CASE("a spool's folder that is removed is made again, and the training goes on") {
  world_on_disk sim;
  sim.hub.outage(1s, 1h);
  auto& session = sim.begin();
  sim.advance(2s);
  session.on_fit_epoch_end(0, {{"loss", 0}});
  fs::remove_all(sim.folder / "spool");
  session.on_fit_epoch_end(1, {{"loss", 1}});
  sim.advance(1min);
  CHECK(hub::list_spool(sim.folder / "spool").at(0).epochs == 1);
  CHECK_THROWS_AS(sim.start(), hub::session_error);  // its lock is there again as well
  sim.advance(2h);
  CHECK(sim.epochs_on_hub() == epochs(0, 1));
}

TEST_CASE("a removed folder whose place is taken is said once, and the training goes on") {
  world_on_disk sim;
  sim.hub.outage(1s, 1h);
  auto& session = sim.begin();
  sim.advance(2s);
  fs::remove_all(sim.folder / "spool");
  sim.folder.write("spool", "a file");
  for (int epoch = 0; epoch < 3; ++epoch) session.on_fit_epoch_end(epoch, {{"loss", epoch}});
  sim.advance(2h);
  CHECK(sim.lines_with("in memory alone") == 1);
  CHECK(session.status().spool_dropped == 3);
  CHECK(sim.epochs_on_hub() == epochs(0, 2));
}
#endif

TEST_CASE("what crashes left in a spool's folder is tidied up, and nothing else") {
  world_on_disk sim;
  sim.begin();
  sim.session.reset();
  for (const char* name : {"checkpoint-77.pt", "journal-1.jsonl.new-Ab12cd", "notes.txt"})
    std::ofstream(sim.model_folder() / name) << "x";
  sim.begin();
  CHECK_FALSE(fs::exists(sim.model_folder() / "checkpoint-77.pt"));
  CHECK_FALSE(fs::exists(sim.model_folder() / "journal-1.jsonl.new-Ab12cd"));
  CHECK(fs::exists(sim.model_folder() / "notes.txt"));
}

TEST_CASE("no spool is listed where there is none") {
  const scratch_folder folder;
  CHECK(hub::list_spool(folder / "nothing").empty());
  fs::create_directories(folder / "no model");
  CHECK(hub::list_spool(folder.path()).empty());
}
