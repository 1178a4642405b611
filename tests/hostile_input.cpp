// SPDX-License-Identifier: MIT
//
// The session, given what no training should give it: any byte in a key, a token, an
// identifier, an address or a file's name; epochs and metrics of every kind; a checkpoint beyond 4
// GiB, or on a disk that is full. Bad input is an error that says so; good input of an odd kind
// arrives.

#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/resource.h>
#endif

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/world.hpp"

namespace hostile_input_tests {

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using namespace std::string_literals;
using hub::errc;
using nlohmann::json;

bool is_plain_text(std::string_view text) {
  return hub::text::all_of(text, [](char c) { return c >= 0x20 && c <= 0x7E; });
}

// Puts each byte at each place of `text` and calls use(changed).
template <class Use>
void with_any_byte(const std::string& text, Use use) {
  for (std::size_t at = 0; at < text.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = text;
      changed[at] = static_cast<char>(byte);
      use(changed);
    }
}

// What a start comes to: the error's name, or "started". Notes each request that is made.
std::string start(world& sim, std::string_view identifier, const hub::session_options& options,
                  const std::function<void(const hub::request&)>& look) {
  const auto script = [&](const hub::request& what) -> std::optional<hub::reply> {
    look(what);
    return hub::reply{.status = 404};  // so that the start ends here
  };
  try {
    scripted_session(identifier, options, scripted_transport(sim.hub, script),
                     hub::testing::virtual_clock(sim.time),
                     hub::testing::virtual_sleeper(sim.time));
  } catch (const hub::session_error& problem) {
    if (!is_plain_text(problem.what())) FAIL_CHECK("not plain: " << problem.what());
    return std::string(to_string(problem.code()));
  }
  return "started";
}

std::string header_of(const hub::request& what, std::string_view name) {
  for (const auto& [header, value] : what.headers)
    if (header == name) return value;
  return {};
}

bool is_visible(std::string_view text) { return hub::text::all_of(text, hub::text::is_visible); }

}  // namespace

// ---- keys, identifiers, addresses ---------------------------------------------------------------

TEST_CASE("any byte at any place of a key or token is sent as it is, or nothing is sent") {
  for (const bool token : {false, true}) {
    world sim;
    with_any_byte(token ? "token.of-mine" : sim.hub.api_key, [&](const std::string& secret) {
      hub::session_options options = sim.with;
      options.credentials.api_key = token ? "" : secret;
      options.credentials.id_token = token ? secret : "";
      std::string seen;
      const std::string came_to = start(sim, sim.id, options, [&](const hub::request& what) {
        seen = header_of(what, token ? "authorization" : "x-api-key");
      });
      const std::string meant(hub::text::trimmed(secret));  // blanks around it do not count
      const bool fits = is_visible(meant);
      if (came_to != (fits ? "unexpected_status" : "invalid_credentials") ||
          seen != (fits ? (token ? "Bearer " : "") + meant : ""))
        FAIL_CHECK("byte of " << hub::text::printable(secret) << ": " << came_to);
    });
  }
}

TEST_CASE("any byte at any place of an identifier or address makes no other request than meant") {
  world sim;
  const std::string web(hub::testing::fake_hub::web_root);
  with_any_byte(web + "/models/" + sim.id, [&](const std::string& identifier) {
    start(sim, identifier, sim.with, [&](const hub::request& what) {
      if (!is_visible(what.url) || !what.url.starts_with(hub::testing::fake_hub::api_root))
        FAIL_CHECK(hub::text::printable(identifier) << " asks " << what.url);
    });
  });
  with_any_byte("https://hub.test:8443/api", [&](const std::string& address) {
    hub::session_options options = sim.with;
    options.endpoints.api = address;
    const std::string came_to = start(sim, sim.id, options, [&](const hub::request& what) {
      if (!is_visible(what.url) || !what.url.starts_with("https://"))
        FAIL_CHECK(hub::text::printable(address) << " asks " << what.url);
    });
    if (!is_visible(hub::text::trimmed(address)) && came_to != "invalid_endpoint")
      FAIL_CHECK(hub::text::printable(address) << " comes to " << came_to);
  });
}

// ---- epochs and metrics -------------------------------------------------------------------------

TEST_CASE("epochs of any number arrive, in whatever order they are reported") {
  constexpr int least = std::numeric_limits<int>::min();
  constexpr int most = std::numeric_limits<int>::max();
  world sim;
  auto session = sim.start();
  for (int epoch : {most, 5, 4, 4, 3, 0, -1, -1, least, most})
    session.on_fit_epoch_end(epoch, {{"a", epoch}});
  session.upload_model(least, sim.folder.write("last.pt", "weights"), false);
  const hub::delivery delivered =
      session.on_train_end(most, sim.folder.write("best.pt", "weights"), 0.5);
  CHECK(delivered.complete());
  CHECK(delivered.epochs_delivered == 7);
  CHECK(sim.epochs_on_hub() == std::vector<int>{least, -1, 0, 3, 4, 5, most});
  for (const auto& [epoch, values] : sim.model().metrics) CHECK(values.at("a") == epoch);
  REQUIRE(sim.model().final_model());
  CHECK(sim.model().final_model()->epoch == most);
}

TEST_CASE("numbers of every kind arrive with every bit") {
  using limits = std::numeric_limits<double>;
  const std::vector<double> numbers = {0.0,
                                       -0.0,
                                       limits::denorm_min(),
                                       -limits::denorm_min(),
                                       limits::min() / 3,
                                       limits::max(),
                                       -limits::max(),
                                       0.1,
                                       1.0 / 3,
                                       1e22,
                                       9007199254740993.0};
  world sim;
  auto session = sim.start();
  for (std::size_t i = 0; i < numbers.size(); ++i)
    session.on_fit_epoch_end(static_cast<int>(i), {{"a", numbers[i]}});
  CHECK(session.flush(1min).complete());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const json& arrived = sim.model().metrics.at(static_cast<int>(i)).at("a");
    CHECK(std::bit_cast<std::uint64_t>(arrived.get<double>()) ==
          std::bit_cast<std::uint64_t>(numbers[i]));
  }
}

TEST_CASE("metrics with names of any bytes and any length arrive, and hold up no other") {
  world sim;
  auto session = sim.start();
  const std::string long_name(hub::mebibyte, 'n');
  std::string any_bytes;
  for (int byte = 0; byte < 256; ++byte) any_bytes += static_cast<char>(byte);
  session.on_fit_epoch_end(0, {{"a", 1}});
  session.on_fit_epoch_end(1, {{long_name, 2}, {"", 3}});
  session.on_fit_epoch_end(2, {{any_bytes, 4}, {"\xff", 5}});
  session.on_fit_epoch_end(3, {{"a", 6}});
  CHECK(session.flush(1min).complete());
  CHECK(sim.model().metrics.at(0).at("a") == 1);
  CHECK(sim.model().metrics.at(1).at(long_name) == 2);
  CHECK(sim.model().metrics.at(1).at("") == 3);
  CHECK(sim.model().metrics.at(2).size() == 2);
  CHECK(sim.model().metrics.at(2).at("\xef\xbf\xbd") == 5);
  CHECK(sim.model().metrics.at(3).at("a") == 6);
}

// ---- checkpoints --------------------------------------------------------------------------------

TEST_CASE("a checkpoint's name may hold any byte, and one that is missing is named in plain text") {
  world sim;
  auto session = sim.start();
  std::size_t arrived = 0;
#if defined(_WIN32)  // where names are characters, and some of these none
  constexpr std::size_t few = 80;
  constexpr int end = 128;
#else
  constexpr std::size_t few = 200;
  constexpr int end = 256;
#endif
  for (int byte = 1; byte < end; ++byte) {
    if (byte == '/') continue;
    const std::string name = "a"s + static_cast<char>(byte) + "b.pt";
    std::ofstream file(sim.folder / name, std::ios::binary);
    if (!(file << "weights")) continue;  // a file system may have its own ideas
    file.close();
    session.upload_model(byte, sim.folder / name, false);
    sim.advance(1s);
    ++arrived;
    if (sim.model().checkpoints.size() != arrived) FAIL_CHECK("byte " << byte);
    session.upload_model(byte, sim.folder / (name + ".missing"), false);
    if (!is_plain_text(sim.log.back())) FAIL_CHECK("byte " << byte << ": " << sim.log.back());
  }
  CHECK(arrived > few);
  CHECK(sim.lines_with("does not exist") == arrived);
}

TEST_CASE("a checkpoint beyond 4 GiB is read to its last byte") {
  const std::string ending = "the last bytes";
  constexpr std::uint64_t size = (std::uint64_t{1} << 32) + 12'345;
  world sim;
  sim.with.snapshot = hub::snapshot::none;  // a copy would fill the disk with zeros
  const fs::path file = sim.folder.write("large.pt", "");
  fs::resize_file(file, size);
  {
    std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(static_cast<std::streamoff>(size - ending.size()));
    out << ending;
  }
  std::uint64_t body_bytes = 0;
  std::string read(ending.size(), '\0');
  std::uint64_t told = 0;
  sim.with.progress = [&](const hub::transfer_progress& now) { told = now.bytes_done; };
  auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
    if (!what.content) return std::nullopt;
    body_bytes = what.content->size_bytes();
    // The multipart framing's tail is behind the file's end: "\r\n--" + boundary + "--\r\n".
    const std::uint64_t tail = 4 + 32 + 4;
    const auto got = what.content->read(body_bytes - tail - ending.size(), read);
    CHECK((got && *got == ending.size()));
    return hub::reply{.status = 200};
  });
  const hub::delivery delivered = session.on_train_end(0, file, 0.5);
  CHECK(delivered.complete());
  CHECK(body_bytes > size);
  CHECK(read == ending);
  CHECK(told > std::uint64_t{1} << 32);
}

#if defined(__unix__) || defined(__APPLE__)
namespace {

// While it lives no file of this process grows beyond so many bytes, as on a full disk.
class full_disk {
 public:
  explicit full_disk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &now);
  }
  full_disk(const full_disk&) = delete;
  full_disk& operator=(const full_disk&) = delete;
  ~full_disk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, signalled_before_);
  }

 private:
  rlimit before_{};
  void (*signalled_before_)(int) = std::signal(SIGXFSZ, SIG_IGN);
};

}  // namespace

TEST_CASE("on a full disk a snapshot fails and says so, and training goes on") {
  world sim;
  auto session = sim.start();
  session.on_pretrain_routine_end();
  const fs::path last = sim.folder.write("last.pt", std::string(200'000, 'L'));
  sim.advance(15min);
  {
    const full_disk full(50'000);
    session.on_model_save(0, last, false);
  }
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.advance(1min);
  CHECK(session.status().checkpoints_failed == 1);
  CHECK(sim.said("cannot be copied"));
  CHECK(sim.model().checkpoints.empty());
  CHECK(sim.epochs_on_hub() == epochs(0, 0));
  for (const auto& each : fs::recursive_directory_iterator(sim.folder / "temp"))
    CHECK_FALSE(each.is_regular_file());
  // The next one saved is taken: the rate limit was not used up.
  session.on_model_save(1, last, false);
  sim.advance(1min);
  CHECK(sim.model().checkpoints.size() == 1);
}

TEST_CASE("on a full disk a key is not saved, the settings stay whole, and training goes on") {
  world sim;
  const std::string before = "{\"a\": \"" + std::string(20'000, 'x') + "\"}";
  sim.with.credentials.settings_file = sim.folder.write("settings.json", before);
  sim.with.credentials.save = true;
  {
    const full_disk full(10'000);
    auto session = sim.start();
    CHECK(session.flush(1min).complete());
  }
  CHECK(sim.said("cannot be saved"));
  std::ifstream in(sim.folder / "settings.json", std::ios::binary);
  CHECK(std::string(std::istreambuf_iterator<char>(in), {}) == before);
  CHECK(std::distance(fs::directory_iterator(sim.folder.path()), {}) == 1);
}
#endif

}  // namespace hostile_input_tests
