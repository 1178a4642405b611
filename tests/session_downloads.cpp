// SPDX-License-Identifier: MIT
//
// Downloads on virtual time: the model's file and its dataset, from a storage host that breaks off,
// expires, changes its mind and lies. Whatever it does, the file is byte for byte one version of
// what HUB names, or it is not there and the error says why; and the key stays with HUB, which the
// fake HUB watches over in every test.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/resource.h>
#include <sys/stat.h>
#endif

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/text.hpp"
#include "support/world.hpp"

namespace session_downloads_tests {

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using hub::errc;
using hub::testing::endpoint;
using hub::testing::fault;
using hub::testing::fault_kind;
using hub::testing::seen_request;

// Two files of the same size are told apart at every byte.
std::string weights(char of, std::size_t bytes = 100'000) {
  std::string out(bytes, of);
  for (std::size_t i = 0; i < bytes; i += 97) out[i] = static_cast<char>('0' + i % 10);
  return out;
}

struct download_world : world {
  std::string address = hub.put_file("models/m/last.pt", weights('A'));
  fs::path target = folder / "last.pt";
  fs::path part = folder / "last.pt.part";
  fs::path record = folder / "last.pt.part.json";
  std::vector<hub::request> sent;  // to the storage host

  download_world() { id = hub.add_model({.cfg = "", .weights = address}); }

  // A session whose requests to the storage host are kept in `sent`; `first` may answer them.
  scripted_session start_watched(scripted_transport::script first = {}) {
    return start_scripted(*this, [this, first = std::move(first)](const hub::request& what) {
      std::optional<hub::reply> own;
      if (!what.url.starts_with(hub.storage_root)) return own;
      sent.push_back(what);
      sent.back().sink.reset();  // which keeps the file locked
      if (first) own = first(what);
      return own;
    });
  }

  std::vector<std::string> ranges() const {
    std::vector<std::string> out;
    for (const hub::request& each : sent) out.push_back(header(each, "range"));
    return out;
  }
  static std::string header(const hub::request& what, std::string_view name) {
    for (const auto& [key, value] : what.headers)
      if (key == name) return value;
    return "";
  }

  // That the file is this and nothing is left beside it.
  void check_fetched(const hub::result<hub::fetched_file>& got, const std::string& content) const {
    INFO((got ? std::string("fetched") : got.error().message));
    REQUIRE(got);
    CHECK(got->path == target);
    CHECK(got->size_bytes == content.size());
    CHECK((read_file(target) == content));
    CHECK_FALSE(fs::exists(part));
    CHECK_FALSE(fs::exists(record));
  }

  std::size_t storage_requests() const { return hub.count(endpoint::storage); }
};

void check_error(const hub::result<hub::fetched_file>& got, errc code, std::string_view words) {
  REQUIRE_FALSE(got);
  INFO(got.error().message);
  CHECK(to_string(got.error().code) == to_string(code));
  CHECK(contains(got.error().message, words));
  CHECK(world::says_no_secret(got.error().message));
  CHECK_FALSE(contains(got.error().message, "?"));
}

}  // namespace

TEST_CASE("the model's file comes whole and without a trace") {
  download_world sim;
  std::vector<hub::transfer_progress> told;
  sim.with.progress = [&](const hub::transfer_progress& now) {
    CHECK(now.kind == hub::transfer::download);
    CHECK(now.file == "last.pt");
    told.push_back(now);
  };
  const std::string content = weights('A', 3 * hub::mebibyte + 5);
  sim.hub.put_file("models/m/last.pt", content);
  auto session = sim.start_watched();
  sim.check_fetched(session.fetch_model_file(sim.target), content);

  REQUIRE(sim.sent.size() == 1);
  CHECK(sim.sent[0].method == "GET");
  CHECK(sim.sent[0].url == session.model_file());
  CHECK(sim.ranges() == std::vector<std::string>{""});
  REQUIRE(told.size() >= 2);
  for (const hub::transfer_progress& each : told) {
    CHECK(each.bytes_total == content.size());
    CHECK(each.bytes_before == 0);
  }
  for (std::size_t i = 1; i < told.size(); ++i) CHECK(told[i].bytes_done > told[i - 1].bytes_done);
  CHECK(told.back().bytes_done == content.size());
}

#if defined(__unix__) || defined(__APPLE__)
TEST_CASE("a file that was fetched has the rights of any file that the program makes") {
  download_world sim;
  auto session = sim.start_watched();
  const mode_t before = ::umask(027);
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  ::umask(before);
  struct stat facts {};
  REQUIRE(::stat(sim.target.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0640);
}
#endif

TEST_CASE("the checkpoint of a model in training is what model_file leads to") {
  world sim;
  sim.hub.keep_contents = true;
  {
    auto session = sim.start();
    session.upload_model(3, sim.folder.write("mine.pt", weights('L')), false);
    REQUIRE(session.flush(1min).checkpoints_delivered == 1);
  }
  auto session = sim.start();
  CHECK(session.train_args().resume);
  const auto got = session.fetch_model_file(sim.folder / "last.pt");
  REQUIRE(got);
  CHECK((read_file(sim.folder / "last.pt") == weights('L')));
}

TEST_CASE("the dataset comes in the same way") {
  download_world sim;
  sim.id = sim.hub.add_model({.data = sim.hub.put_file("datasets/d.zip", weights('D'))});
  sim.target = sim.folder / "d.zip";
  auto session = sim.start();
  sim.check_fetched(session.fetch_dataset(sim.target), weights('D'));
}

TEST_CASE("the dataset is the same after the training began") {
  download_world sim;
  sim.hub.keep_contents = true;
  sim.id = sim.hub.add_model({.data = sim.hub.put_file("datasets/d.zip", weights('D'))});
  sim.target = sim.folder / "d.zip";
  auto session = sim.start();
  session.upload_model(0, sim.folder.write("mine.pt", weights('L')), false);
  sim.advance(20min);  // and its URL has expired
  REQUIRE(sim.model().about.state == hub::model_state::training);
  sim.check_fetched(session.fetch_dataset(sim.target), weights('D'));
}

TEST_CASE("what is no URL cannot be downloaded, and nothing is sent") {
  download_world sim;
  sim.id = sim.hub.add_model({.data = "coco8.yaml", .cfg = "yolov8n.yaml"});
  auto session = sim.start();
  check_error(session.fetch_model_file(sim.target), errc::not_downloadable, "'yolov8n.yaml'");
  check_error(session.fetch_dataset(sim.target), errc::not_downloadable, "'coco8.yaml'");
  CHECK(sim.storage_requests() == 0);
  CHECK(fs::is_empty(sim.folder.path()));
}

TEST_CASE("a URL that no download may use is refused before anything is sent") {
  download_world sim;
  const auto fetch = [&](const std::string& url) {
    sim.id = sim.hub.add_model({.cfg = url});
    return sim.start().fetch_model_file(sim.target);
  };
  check_error(fetch("http://storage.test/last.pt?X-Goog-Signature=1"), errc::invalid_endpoint,
              "not https");
  check_error(fetch("https://user:kkkkkkkkkkkk@storage.test/last.pt"), errc::invalid_endpoint,
              "cannot be used: it holds a user name or password");
  check_error(fetch("ftp://storage.test/last.pt"), errc::invalid_endpoint,
              "cannot be used: it does not begin with http");
  check_error(fetch("https://m\xC3\xBCller.test/last.pt"), errc::invalid_endpoint, "xn--");
  check_error(fetch("https://storage .test/last.pt"), errc::invalid_endpoint, "has a blank");
  check_error(fetch("https://storage.test:port/last.pt"), errc::invalid_endpoint, "its port");
  CHECK(sim.storage_requests() == 0);
}

TEST_CASE("on a rank above 0 nothing is fetched, and that is no error") {
  download_world sim;
  sim.with.rank = 1;
  auto session = sim.start();
  for (const auto& got :
       {session.fetch_model_file(sim.target), session.fetch_dataset(sim.target)}) {
    REQUIRE(got);
    CHECK(got->path.empty());
    CHECK(got->size_bytes == 0);
  }
  CHECK(sim.hub.requests().empty());
  CHECK_FALSE(fs::exists(sim.target));
}

// ---- breaks -------------------------------------------------------------------------------------

TEST_CASE("a download that breaks off goes on where it was") {
  download_world sim;
  std::vector<hub::transfer_progress> told;
  sim.with.progress = [&](const hub::transfer_progress& now) { told.push_back(now); };
  sim.hub.fail_next(endpoint::storage, {fault_kind::reset_in_body}, 3);
  auto session = sim.start_watched();
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  CHECK(sim.ranges() ==
        std::vector<std::string>{"", "bytes=50000-", "bytes=75000-", "bytes=87500-"});
  const std::string etag = download_world::header(sim.sent[1], "if-range");
  CHECK(etag.size() > 2);
  CHECK(download_world::header(sim.sent[3], "if-range") == etag);
  REQUIRE(told.size() == 4);
  CHECK(told[1].bytes_before == 50'000);
  CHECK(told[1].bytes_done == 75'000);
}

TEST_CASE("tries that bring bytes are not counted, and those that bring none are") {
  download_world sim;
  sim.with.retry.download_retries_max = 2;
  auto session = sim.start();
  SECTION("each brings half of the rest") {
    sim.hub.fail_next(endpoint::storage, {fault_kind::reset_in_body}, 15);
    sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  }
  SECTION("none brings any") {
    sim.hub.fail_next(endpoint::storage, {fault_kind::refused}, 100);
    check_error(session.fetch_model_file(sim.target), errc::not_reachable, "refused");
    CHECK(sim.storage_requests() == 3);
    CHECK(fs::is_empty(sim.folder.path()));
  }
}

TEST_CASE("another version between two ranges is fetched whole") {
  download_world sim;
  sim.hub.fail_next(endpoint::storage, {fault_kind::reset_in_body});
  sim.hub.on_request = [&](const seen_request& seen) {
    if (seen.to == endpoint::storage && sim.storage_requests() == 1)
      sim.hub.put_file("models/m/last.pt", weights('B'));  // of the same size
  };
  auto session = sim.start_watched();
  sim.check_fetched(session.fetch_model_file(sim.target), weights('B'));
  CHECK(sim.ranges() == std::vector<std::string>{"", "bytes=50000-"});
}

TEST_CASE("a version that is shorter than what is there is fetched whole") {
  download_world sim;
  sim.hub.fail_next(endpoint::storage, {fault_kind::reset_in_body});
  sim.hub.on_request = [&](const seen_request& seen) {
    if (seen.to == endpoint::storage && sim.storage_requests() == 1)
      sim.hub.put_file("models/m/last.pt", weights('B', 10));
  };
  auto session = sim.start();
  sim.check_fetched(session.fetch_model_file(sim.target), weights('B', 10));
}

TEST_CASE("while a download takes its time, the lanes go on") {
  download_world sim;
  sim.hub.latency_per_download_byte = 36ms;  // an hour in all
  auto session = sim.start();
  session.on_pretrain_routine_end();
  session.on_fit_epoch_end(0, {{"a", 1}});
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  CHECK(std::abs(sim.now() - 3600) < 5);
  CHECK(sim.model().heartbeats.size() >= 12);
  CHECK(sim.epochs_on_hub() == epochs(0, 0));
}

// ---- URLs that expire ---------------------------------------------------------------------------

TEST_CASE("where the URL has expired, HUB is asked for a fresh one") {
  download_world sim;
  auto session = sim.start_watched();
  sim.advance(20min);
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  REQUIRE(sim.sent.size() == 2);
  CHECK(sim.sent[0].url == session.model_file());
  CHECK(sim.sent[1].url != session.model_file());
  CHECK(sim.hub.count(endpoint::model) == 2);
}

TEST_CASE("a download that takes longer than a URL lives goes on with fresh ones") {
  download_world sim;
  sim.hub.latency_per_download_byte = 36ms;
  sim.hub.fail_next(endpoint::storage, {fault_kind::reset_in_body});  // after half an hour
  auto session = sim.start_watched();
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  CHECK(sim.ranges() == std::vector<std::string>{"", "bytes=50000-", "bytes=50000-"});
}

TEST_CASE("each status that a storage host refuses a URL with asks for a fresh one") {
  for (int status : {400, 401, 403, 404, 410}) {
    download_world sim;
    auto session = sim.start_watched();
    sim.advance(1s);
    sim.hub.fail_next(endpoint::storage, {fault_kind::status, status});
    sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
    CHECK(sim.hub.count(endpoint::model) == 2);
  }
}

TEST_CASE("a storage host that refuses every URL is given up") {
  download_world sim;
  sim.with.retry.download_retries_max = 4;
  sim.hub.fail_next(endpoint::storage, {fault_kind::status, 403}, 100);
  auto session = sim.start();
  check_error(session.fetch_model_file(sim.target), errc::access_denied, "storage.test");
  CHECK(sim.storage_requests() == 5);
}

TEST_CASE("where HUB has no other URL, that is the end") {
  download_world sim;
  sim.hub.url_of = [](const auto&, const std::string& name, auto) { return name; };
  auto session = sim.start();
  check_error(session.fetch_model_file(sim.target), errc::access_denied, "HUB has no other");
  CHECK(sim.storage_requests() == 1);
}

TEST_CASE("a file of another kind is not taken for the model's") {
  download_world sim;
  auto session = sim.start();
  sim.advance(20min);
  sim.model().about.state = hub::model_state::training;  // its file would be the last checkpoint
  sim.hub.url_of = [&](const auto&, const std::string&, auto) { return sim.address + "?b"; };
  check_error(session.fetch_model_file(sim.target), errc::access_denied, "training began");
  CHECK_FALSE(fs::exists(sim.target));
}

TEST_CASE("HUB's own refusal of a fresh URL is final, and its silence is not") {
  download_world sim;
  sim.with.retry.download_retries_max = 3;
  auto session = sim.start();
  sim.advance(20min);
  SECTION("it does not know the key any more") {
    sim.hub.fail_next(endpoint::model, {fault_kind::status, 401});
    check_error(session.fetch_model_file(sim.target), errc::not_authenticated, "API key");
  }
  SECTION("the model is trained by now") {
    sim.model().about.state = hub::model_state::trained;
    check_error(session.fetch_model_file(sim.target), errc::already_trained, "trained already");
  }
  SECTION("it names a file without a URL by now") {
    sim.hub.url_of = [](const auto&, const std::string&, auto) { return "best.pt"; };
    check_error(session.fetch_model_file(sim.target), errc::not_downloadable, "'best.pt'");
  }
  SECTION("it is away for a moment") {
    sim.hub.fail_next(endpoint::model, {fault_kind::status, 503}, 2);
    sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
    CHECK(sim.storage_requests() == 2);  // the dead URL is not tried again meanwhile
  }
  SECTION("it stays away") {
    sim.hub.fail_next(endpoint::model, {fault_kind::status, 503}, 100);
    check_error(session.fetch_model_file(sim.target), errc::server_error, "503");
  }
  CHECK(sim.hub.problems().empty());
}

// ---- the fail loop ------------------------------------------------------------------------------

namespace {

// What a download comes to where this fault goes on until it gives up.
bool may_end(const hub::error& why, const fault& what) {
  if (what.kind != fault_kind::status) return false;
  const bool passes = verdict_of_status(what.status) == hub::verdict::retry;
  return !passes && why.http_status == what.status;
}

// One download with `times` faults from request `index` on. False where none of them was met.
bool play(const fault& meets, std::size_t index, std::size_t times) {
  download_world sim;
  auto session = sim.start();
  sim.advance(20min);  // so that HUB is asked for a fresh URL, too
  for (std::size_t i = 0; i < times; ++i) sim.hub.fail_at(index + i, meets);
  const auto got = session.fetch_model_file(sim.target);
  bool met = false;
  for (const seen_request& each : sim.hub.requests()) met = met || each.fault == meets.kind;
  if (got) {
    sim.check_fetched(got, weights('A'));
  } else {
    INFO(got.error().message);
    CHECK(met);
    CHECK(may_end(got.error(), meets));
    CHECK(world::says_no_secret(got.error().message));
    CHECK_FALSE(fs::exists(sim.target));
  }
  return met;
}

}  // namespace

TEST_CASE("whichever request of a download fails, once or three times, the file comes whole") {
  for (std::size_t times : {1u, 3u})
    for (const named_fault& each : every_fault()) {
      std::size_t index = 0;
      for (bool met = true; met; ++index) {
        INFO(times << " x " << each.name << " from request " << index << " on");
        met = play(each.what, index, times);
        REQUIRE(index < 100);
      }
      CHECK(index > 3);
    }
}

TEST_CASE("with faults at random for as long as it takes, the file comes whole or not at all") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    INFO("seed " << seed);
    download_world sim;
    auto session = sim.start();
    sim.hub.fail_randomly(0.6, seed);
    std::optional<hub::result<hub::fetched_file>> got;
    for (int i = 0; i < 50 && !(got && *got); ++i) {
      got.emplace(session.fetch_model_file(sim.target));
      if (!*got) {
        CHECK_FALSE(fs::exists(sim.target));
        CHECK(world::says_no_secret(got->error().message));
      }
    }
    sim.check_fetched(*got, weights('A'));
  }
}

// ---- hostile replies ----------------------------------------------------------------------------

namespace {

// A 2xx that hands `body` to the sink, `times` over, as long as the sink takes it.
hub::reply say(const hub::request& what, hub::reply head, std::string_view body,
               std::size_t times = 1) {
  if (auto why = what.sink->begin(head)) return {.failure = *why};
  for (std::size_t i = 0; i < times; ++i)
    if (auto why = what.sink->write(body)) return {.failure = *why};
  return head;
}

const std::string good_etag = "\"v1\"";

// The first half of weights('A'), then a break.
hub::reply first_half(const hub::request& what, std::string etag = good_etag) {
  say(what, {.status = 200, .content_length = "100000", .etag = std::move(etag)},
      weights('A').substr(0, 50'000));
  return {.failure = hub::error{errc::not_reachable, "it broke"}};
}

hub::reply whole_file(const hub::request& what) {
  return say(what, {.status = 200, .content_length = "100000", .etag = good_etag}, weights('A'));
}

using answer = std::function<hub::reply(const hub::request&)>;

// What a storage host may answer to "the rest from 50,000 on" that must not be put behind the first
// half. The body is always of 'X', which is in no version.
struct lie {
  std::string name;
  answer tell;
};

hub::reply part_of(std::string range, std::string etag = good_etag, std::string length = "50000") {
  hub::reply out{.status = 206};
  out.content_length = std::move(length);
  out.content_range = std::move(range);
  out.etag = std::move(etag);
  return out;
}

std::vector<lie> lies() {
  const std::string rest(50'000, 'X');
  const std::string range = "bytes 50000-99999/100000";
  const auto tells = [rest](hub::reply head) {
    return [head, rest](const hub::request& what) { return say(what, head, rest); };
  };
  return {
      {"another offset", tells(part_of("bytes 40000-89999/100000"))},
      {"another end", tells(part_of("bytes 50000-99998/100000", good_etag, "49999"))},
      {"another total", tells(part_of("bytes 50000-99999/100001"))},
      {"an unknown total", tells(part_of("bytes 50000-99999/*"))},
      {"no range", tells(part_of(""))},
      {"a range that is none", tells(part_of("bytes fifty"))},
      {"a range with more behind", tells(part_of(range + ", bytes 0-1/2"))},
      {"another length", tells(part_of(range, good_etag, "50001"))},
      {"another version", tells(part_of(range, "\"v2\""))},
      {"a weak version", tells(part_of(range, "W/\"v1\""))},
      {"no version", tells(part_of(range, ""))},
      {"several parts",
       [](const hub::request& what) {
         hub::reply head = part_of("");
         head.content_type = "multipart/byteranges; boundary=x";
         return say(what, head, "--x\r\n");
       }},
      {"a page",
       [](const hub::request& what) {
         return say(what, {.status = 200, .content_length = "21", .content_type = "Text/HTML"},
                    "<html>Sign in!</html>");
       }},
      {"chunks that are those of a page",
       [](const hub::request& what) {
         return say(what, {.status = 200, .content_type = "text/html", .is_chunked = true},
                    "<html>Sign in!</html>");
       }},
      {"a length below zero", tells({.status = 200, .content_length = "-5", .etag = good_etag})},
      {"a length of words", tells({.status = 200, .content_length = "1e5", .etag = good_etag})},
      {"a length beyond all", tells({.status = 200, .content_length = std::string(30, '9')})},
      {"an empty file", tells({.status = 200, .content_length = "0", .etag = good_etag})},
      {"no content", [](const hub::request&) { return hub::reply{.status = 204}; }},
      {"another 2xx", tells({.status = 226, .content_length = "50000", .etag = good_etag})},
      {"more than it said",
       [rest](const hub::request& what) {
         return say(what, part_of("bytes 50000-99999/100000"), rest + 'X');
       }},
      {"a body without an end",
       [rest](const hub::request& what) {
         return say(what, part_of("bytes 50000-99999/100000"), rest, SIZE_MAX);
       }},
      {"a whole file without an end",
       [rest](const hub::request& what) {
         return say(what, {.status = 200, .content_length = "100000", .etag = "\"v2\""}, rest,
                    SIZE_MAX);
       }},
      {"no such range",
       [](const hub::request&) { return hub::reply{.status = 416, .content_range = "bytes */7"}; }},
  };
}

}  // namespace

TEST_CASE("no lie of a storage host gets into the file") {
  for (const lie& each : lies()) {
    INFO(each.name);
    download_world sim;
    auto session = sim.start_watched([&](const hub::request& what) {
      return sim.sent.size() == 1   ? first_half(what)
             : sim.sent.size() == 2 ? each.tell(what)
             : download_world::header(what, "range").empty()
                 ? whole_file(what)
                 : say(what, part_of("bytes 50000-99999/100000"), weights('A').substr(50'000));
    });
    sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
    CHECK(sim.ranges()[1] == "bytes=50000-");
    CHECK(sim.sent.size() == 3);
  }
}

TEST_CASE("a storage host that only lies is given up, and leaves no file") {
  for (const lie& each : lies()) {
    INFO(each.name);
    download_world sim;
    auto session = sim.start_watched([&](const hub::request& what) { return each.tell(what); });
    const auto got = session.fetch_model_file(sim.target);
    REQUIRE_FALSE(got);
    CHECK_FALSE(got.error().message.empty());
    CHECK(sim.sent.size() == sim.with.retry.download_retries_max + 1);
    CHECK_FALSE(fs::exists(sim.target));
    CHECK_FALSE(fs::exists(sim.part));
  }
}

TEST_CASE("a page in front of the storage host costs nothing of what is there") {
  download_world sim;
  sim.hub.fail_next(endpoint::storage, {fault_kind::reset_in_body});
  sim.hub.fail_next(endpoint::storage, {fault_kind::html}, 2);
  auto session = sim.start_watched();
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  CHECK(sim.ranges() ==
        std::vector<std::string>{"", "bytes=50000-", "bytes=50000-", "bytes=50000-"});
}

TEST_CASE("without an ETag that tells versions apart, every break begins anew") {
  for (const std::string& etag :
       {std::string(), std::string("W/\"v1\""), std::string("v1"), std::string("\"\""),
        std::string("\"a\r\nx-evil: 1\""), std::string("\"a b\""), std::string("\"a\"b\""),
        '"' + std::string(300, 'e') + '"'}) {
    INFO(etag);
    download_world sim;
    auto session = sim.start_watched([&](const hub::request& what) {
      return sim.sent.size() == 1 ? first_half(what, etag) : whole_file(what);
    });
    sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
    CHECK(sim.ranges() == std::vector<std::string>{"", ""});
  }
}

TEST_CASE("what says neither its length nor its end is refused at once") {
  download_world sim;
  auto session = sim.start_watched([&](const hub::request& what) {
    return say(what, {.status = 200, .etag = good_etag}, weights('A'));
  });
  check_error(session.fetch_model_file(sim.target), errc::not_downloadable,
              "neither how long the file is nor where it ends");
  CHECK(sim.sent.size() == 1);
  CHECK(fs::is_empty(sim.folder.path()));
}

// ---- chunks -------------------------------------------------------------------------------------

namespace {

const hub::reply chunked_head = {.status = 200, .etag = good_etag, .is_chunked = true};

}  // namespace

TEST_CASE("a file in chunks, of a length that nobody said, comes whole") {
  download_world sim;
  std::vector<hub::transfer_progress> told;
  sim.with.progress = [&](const hub::transfer_progress& now) { told.push_back(now); };
  const std::string content = weights('A', 3 * hub::mebibyte + 5);
  auto session =
      sim.start_watched([&](const hub::request& what) { return say(what, chunked_head, content); });
  sim.check_fetched(session.fetch_model_file(sim.target), content);
  REQUIRE(told.size() >= 2);
  CHECK(told.front().bytes_total == 0);
  CHECK(told.back().bytes_total == content.size());
  CHECK(told.back().bytes_done == content.size());
}

TEST_CASE("a file in chunks that breaks off begins anew") {
  download_world sim;
  auto session = sim.start_watched([&](const hub::request& what) {
    if (sim.sent.size() > 1) return say(what, chunked_head, weights('A'));
    say(what, chunked_head, weights('X').substr(0, 50'000));
    return hub::reply{.failure = hub::error{errc::not_reachable, "it broke"}};
  });
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  CHECK(sim.ranges() == std::vector<std::string>{"", ""});
}

TEST_CASE("a file in chunks is bounded, and no file where there is none") {
  download_world sim;
  sim.with.limits.download_bytes_max = 150'000;
  SECTION("up to the bound") {
    const std::string content(150'000, 'A');
    auto session = sim.start_watched(
        [&](const hub::request& what) { return say(what, chunked_head, content); });
    sim.check_fetched(session.fetch_model_file(sim.target), content);
  }
  SECTION("and not a byte more") {
    auto session = sim.start_watched([&](const hub::request& what) {
      return say(what, chunked_head, std::string(50'000, 'A'), SIZE_MAX);
    });
    check_error(session.fetch_model_file(sim.target), errc::file_error,
                "limits.download_bytes_max, which are 150000");
    CHECK(sim.sent.size() == 1);
  }
  SECTION("nothing at all") {
    auto session =
        sim.start_watched([&](const hub::request& what) { return say(what, chunked_head, ""); });
    REQUIRE_FALSE(session.fetch_model_file(sim.target));
    CHECK_FALSE(fs::exists(sim.target));
  }
  CHECK_FALSE(fs::exists(sim.part));
}

// ---- redirects ----------------------------------------------------------------------------------

namespace {

hub::reply redirect(int status, std::string location) {
  return {.status = status, .location = std::move(location)};
}

}  // namespace

TEST_CASE("redirects are followed, each with the rest that is missing and without the key") {
  for (int status : {301, 302, 303, 307, 308}) {
    download_world sim;
    std::vector<std::string> urls;
    auto session = start_scripted(sim, [&](const hub::request& what) -> std::optional<hub::reply> {
      if (!what.url.starts_with("https://storage.test/") && !what.url.starts_with("https://cdn."))
        return std::nullopt;
      urls.push_back(what.url);
      for (const auto& [name, value] : what.headers) {
        CHECK(name != "x-api-key");
        CHECK(name != "authorization");
      }
      CHECK(what.method == "GET");
      switch (urls.size()) {
        case 1: return redirect(status, "https://cdn.test:8443/a/b?sig=%2B%20x");
        case 2: return redirect(status, "../c d?e=\xC3\xA9#fragment");
        case 3: return redirect(status, "//cdn.test/f");
        case 4: return first_half(what);
        case 5: return redirect(status, "https://cdn.test/g");
        default: return say(what, part_of("bytes 50000-99999/100000"), weights('A').substr(50'000));
      }
    });
    sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
    REQUIRE(urls.size() == 6);
    CHECK(urls[1] == "https://cdn.test:8443/a/b?sig=%2B%20x");
    CHECK(urls[2] == "https://cdn.test:8443/c%20d?e=%C3%A9");
    CHECK(urls[3] == "https://cdn.test/f");
    CHECK(urls[4] == urls[0]);  // what a break cut off is asked for where HUB says
    CHECK(urls[5] == "https://cdn.test/g");
  }
}

TEST_CASE("no redirect leads from https to http, nowhere, or round and round") {
  struct way {
    std::string location;
    std::string words;
    std::size_t requests;
  };
  for (const way& each :
       {way{"http://cdn.test/last.pt", "from https to http", 1},
        way{"HTTP://storage.test/last.pt", "from https to http", 1},
        way{"", "does not say where to", 1}, way{"ftp://cdn.test/last.pt", "cannot be used", 1},
        way{"https://", "cannot be used", 1},
        way{"/last.pt", "limits.download_redirects_max", 11}}) {
    INFO(each.location);
    download_world sim;
    auto session =
        sim.start_watched([&](const hub::request&) { return redirect(302, each.location); });
    check_error(session.fetch_model_file(sim.target), errc::unexpected_status, each.words);
    CHECK(sim.sent.size() == each.requests);
    CHECK(fs::is_empty(sim.folder.path()));
  }
}

TEST_CASE("what follows a redirect is judged as if it had come at once") {
  download_world sim;
  int status = 0;
  auto session = sim.start_watched([&](const hub::request& what) -> std::optional<hub::reply> {
    if (!what.url.ends_with("/moved")) return redirect(302, "/moved");
    return hub::reply{.status = status};
  });
  status = 403;
  check_error(session.fetch_model_file(sim.target), errc::access_denied, "storage.test");
  status = 418;
  check_error(session.fetch_model_file(sim.target), errc::unexpected_status, "answered 418");
}

// ---- URLs that clients escape -------------------------------------------------------------------

TEST_CASE("a URL with what no URL may hold is asked for as clients do") {
  struct form {
    std::string named, sent;
  };
  for (const form& each :
       {form{"/my data/last.pt", "/my%20data/last.pt"},
        form{"/d\xC3\xA9j\xC3\xA0.pt", "/d%C3%A9j%C3%A0.pt"}, form{"/last.pt#v2", "/last.pt"},
        form{"/a%20b+c.pt?x=%2F&y=a b", "/a%20b+c.pt?x=%2F&y=a%20b"},
        form{"/a\"<>\\^`{|}b", "/a%22%3C%3E%5C%5E%60%7B%7C%7Db"}}) {
    INFO(each.named);
    download_world sim;
    const std::string storage(sim.hub.storage_root);
    sim.id = sim.hub.add_model({.cfg = storage + each.named});
    sim.hub.url_of = [](const auto&, const std::string& name, auto) { return name; };
    auto session = sim.start_watched(whole_file);
    sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
    REQUIRE(sim.sent.size() == 1);
    CHECK(sim.sent[0].url == storage + each.sent);
  }
}

TEST_CASE("a transport that throws is one that failed") {
  download_world sim;
  auto session = sim.start_watched([&](const hub::request& what) -> std::optional<hub::reply> {
    if (sim.sent.size() == 1) throw 42;
    return whole_file(what);
  });
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
}

// ---- bounds -------------------------------------------------------------------------------------

TEST_CASE("a file that is larger than the limit is refused before it comes") {
  download_world sim;
  auto session = [&](std::uint64_t bytes_max) {
    sim.with.limits.download_bytes_max = bytes_max;
    return sim.start().fetch_model_file(sim.target);
  };
  check_error(session(99'999), errc::file_error, "limits.download_bytes_max, which are 99999");
  CHECK(sim.storage_requests() == 1);
  CHECK(fs::is_empty(sim.folder.path()));
  sim.check_fetched(session(100'000), weights('A'));
}

TEST_CASE("no download outlives its deadline") {
  download_world sim;
  sim.with.limits.download_deadline = 10min;
  SECTION("however slow it is") {
    sim.hub.latency_per_download_byte = 36ms;
    auto session = sim.start();
    const double began = sim.now();
    check_error(session.fetch_model_file(sim.target), errc::not_reachable, "");
    CHECK(sim.now() - began <= 600);
    CHECK(sim.now() - began > 500);
    CHECK(fs::exists(sim.record));  // for the next time
  }
  SECTION("however long it waits") {
    sim.with.retry.download_retries_max = 1'000'000;
    sim.hub.fail_next(endpoint::storage, {fault_kind::refused}, 1'000'000);
    auto session = sim.start();
    const double began = sim.now();
    check_error(session.fetch_model_file(sim.target), errc::not_reachable, "refused");
    CHECK(sim.now() - began <= 600);
  }
}

// ---- the next run -------------------------------------------------------------------------------

namespace {

// Leaves the first half of weights('A'), as a run does whose storage host went away.
void leave_half(download_world& sim) {
  sim.hub.fail_next(endpoint::storage, {fault_kind::reset_in_body});
  sim.hub.fail_next(endpoint::storage, {fault_kind::refused}, 10);
  auto session = sim.start();
  check_error(session.fetch_model_file(sim.target), errc::not_reachable, "refused");
  REQUIRE(fs::exists(sim.part));
  REQUIRE(fs::file_size(sim.part) == 50'000);
  REQUIRE(fs::exists(sim.record));
}

}  // namespace

TEST_CASE("a later run goes on where the last one was") {
  download_world sim;
  leave_half(sim);
#if defined(__unix__) || defined(__APPLE__)
  struct stat facts {};
  REQUIRE(::stat(sim.record.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0600);
#endif
  CHECK_FALSE(contains(read_file(sim.record), "Signature"));
  sim.advance(24h);  // and its URL is a fresh one
  auto session = sim.start_watched();
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  CHECK(sim.ranges() == std::vector<std::string>{"bytes=50000-"});
}

TEST_CASE("what an earlier run brought is no success of this one") {
  download_world sim;
  leave_half(sim);
  sim.hub.fail_next(endpoint::storage, {fault_kind::refused}, 100);
  const std::size_t before = sim.storage_requests();
  auto session = sim.start();
  check_error(session.fetch_model_file(sim.target), errc::not_reachable, "refused");
  CHECK(sim.storage_requests() - before == sim.with.retry.download_retries_max + 1);
  CHECK(fs::file_size(sim.part) == 50'000);
}

TEST_CASE("a later run does not go on with another version or another file") {
  download_world sim;
  leave_half(sim);
  SECTION("of the same size at the same address") {
    sim.hub.put_file("models/m/last.pt", weights('B'));
    auto session = sim.start_watched();
    sim.check_fetched(session.fetch_model_file(sim.target), weights('B'));
    CHECK(sim.ranges() == std::vector<std::string>{"bytes=50000-"});
  }
  SECTION("of the same version at another address") {
    sim.id = sim.hub.add_model(
        {.cfg = "", .weights = sim.hub.put_file("models/other.pt", weights('A'))});
    auto session = sim.start_watched();
    sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
    CHECK(sim.ranges() == std::vector<std::string>{""});
  }
}

TEST_CASE("whatever a crash made of what is there, the file is right") {
  download_world sim;
  leave_half(sim);
  fs::path unfinished = sim.record;
  std::ofstream(unfinished += ".new-aBcDeF") << "{";
  const std::string part = read_file(sim.part);
  const std::string record = read_file(sim.record);
  const auto fetch_after = [&](const std::string& left, const std::string& written) {
    std::ofstream(sim.part, std::ios::binary) << left;
    std::ofstream(sim.record, std::ios::binary) << written;
    fs::remove(sim.target);
    auto session = sim.start();
    sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  };
  for (std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{49'999}})
    fetch_after(part.substr(0, size), record);
  fetch_after(part + "more than was written down", record);
  fetch_after(weights('B').substr(0, 50'000), record);
  fetch_after(std::string(50'000, '\0'), record);
  for (std::size_t at = 0; at < part.size(); at += 4999) {
    std::string flipped = part;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    fetch_after(flipped, record);
  }
  for (std::size_t at = 0; at < record.size(); ++at) {
    std::string flipped = record;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    fetch_after(part, flipped);
    fetch_after(part, record.substr(0, at));
  }
  CHECK_FALSE(fs::exists(unfinished));
}

TEST_CASE("a long download writes down how far it is, for the run after a kill") {
  download_world sim;
  const std::string piece(64 * hub::kibibyte, 'A');
  std::set<std::uint64_t> written;
  sim.with.progress = [&](const hub::transfer_progress&) {
    if (const auto record = hub::text::parse_json(read_file(sim.record)))
      written.insert(hub::text::get_unsigned(*record, "bytes"));
  };
  auto session = sim.start_watched([&](const hub::request& what) {
    return say(
        what,
        {.status = 200, .content_length = std::to_string(20 * hub::mebibyte), .etag = good_etag},
        piece, 320);
  });
  REQUIRE(session.fetch_model_file(sim.target));
  CHECK(written == std::set<std::uint64_t>{8 * hub::mebibyte, 16 * hub::mebibyte});
}

// ---- the disk -----------------------------------------------------------------------------------

TEST_CASE("an older file stays until the new one is whole") {
  download_world sim;
  sim.folder.write("last.pt", "the old one");
  sim.with.progress = [&](const hub::transfer_progress&) {
    CHECK(read_file(sim.target) == "the old one");
  };
  auto session = sim.start();
  sim.hub.fail_next(endpoint::storage, {fault_kind::status, 302});
  CHECK_FALSE(session.fetch_model_file(sim.target));
  CHECK(read_file(sim.target) == "the old one");
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
}

#if !defined(_WIN32)  // where only an administrator may make a link
TEST_CASE("where the name is a link, the file is fetched to where that leads") {
  download_world sim;
  fs::create_directory(sim.folder / "real");
  sim.folder.write("real/last.pt", "the old one");
  fs::create_symlink(fs::path("real") / "last.pt", sim.target);
  auto session = sim.start();
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  CHECK(fs::is_symlink(sim.target));
  CHECK(read_file(sim.folder / "real" / "last.pt") == weights('A'));
  CHECK(std::distance(fs::directory_iterator(sim.folder / "real"), fs::directory_iterator()) == 1);
}
#endif

TEST_CASE("where no file can be, the error says so and nothing is sent") {
  download_world sim;
  auto session = sim.start();
  check_error(session.fetch_model_file(sim.folder / "no such" / "last.pt"), errc::file_error,
              "cannot be made");
  check_error(session.fetch_model_file(sim.folder.path()), errc::file_error, "is a folder");
#if !defined(_WIN32)
  fs::create_symlink(sim.folder / "elsewhere", sim.part);
  check_error(session.fetch_model_file(sim.target), errc::file_error, "cannot be made");
  CHECK_FALSE(fs::exists(sim.folder / "elsewhere"));
  fs::remove(sim.part);
#endif
  fs::create_directory(sim.part);
  check_error(session.fetch_model_file(sim.target), errc::file_error, "cannot be made");
  CHECK(sim.storage_requests() == 0);
}

#if defined(__unix__) || defined(__APPLE__)  // others cannot bound a file
TEST_CASE("a disk that is full ends the download, and the next one goes on") {
  download_world sim;
  const std::string content = weights('A', 3 * hub::mebibyte);
  sim.hub.put_file("models/m/last.pt", content);
  auto session = sim.start_watched();
  {
    struct limit {
      limit() {
        ::signal(SIGXFSZ, SIG_IGN);
        ::getrlimit(RLIMIT_FSIZE, &before);
        const rlimit small{2 * hub::mebibyte + 1000, before.rlim_max};
        ::setrlimit(RLIMIT_FSIZE, &small);
      }
      ~limit() {
        ::setrlimit(RLIMIT_FSIZE, &before);
        ::signal(SIGXFSZ, SIG_DFL);
      }
      rlimit before{};
    } const full;
    check_error(session.fetch_model_file(sim.target), errc::file_error, "its disk may be full");
  }
  CHECK_FALSE(fs::exists(sim.target));
  sim.check_fetched(session.fetch_model_file(sim.target), content);
  REQUIRE(sim.sent.size() == 2);
  CHECK(sim.ranges()[1].starts_with("bytes=1"));  // of what was written before
}
#endif

TEST_CASE("two downloads do not write to one file") {
  download_world sim;
  auto other = sim.start();
  bool tried = false;
  sim.with.progress = [&](const hub::transfer_progress&) {
    if (std::exchange(tried, true)) return;
    check_error(other.fetch_model_file(sim.target), errc::file_error, "another session or program");
  };
  auto session = sim.start();
  sim.check_fetched(session.fetch_model_file(sim.target), weights('A'));
  CHECK(tried);
}

}  // namespace session_downloads_tests
