// SPDX-License-Identifier: MIT
//
// bench_client MEASUREMENT ARGUMENT...
//
// One measurement of a session against bench_sink, or of what it is compared with, in a process of
// its own. What was measured goes to stdout as one JSON object. See main() for the measurements.

#include "../../hub_session.hpp"

#include <cstdio>
#include <iterator>
#include <spawn.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/wait.h>

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
using clock_type = std::chrono::steady_clock;

constexpr const char* model_id = "abcdefghij0123456789";

// Options that reach nothing outside.
hub::session_options options_for(const std::string& url) {
  hub::session_options out;
  out.endpoints = {.api = url, .web = url};
  out.credentials = {
      .api_key = std::string(42, 'k'), .prompt = false, .settings_file = "no-settings.json"};
  out.rank = 0;
  out.log = [](hub::log_level, std::string_view) {};
  out.handle_signals = false;
  return out;
}

void require(bool done, const char* what) {
  if (!done) throw std::runtime_error(what);
}

// Tells the sink what is to become of metrics from now on.
void tell_sink(const std::string& url, const std::string& mood) {
  hub::httplib_transport sink;
  sink.send({.method = "POST", .url = url + "/sink/" + mood});
}

double nanoseconds_since(clock_type::time_point began) {
  return std::chrono::duration<double, std::nano>(clock_type::now() - began).count();
}

// The most memory that this process ever had resident. (What the kernel tells the parent counts
// the parent's own memory as well.)
double peak_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024;
  return 0;
}

double percentile(std::vector<float>& values, double part) {
  const auto at =
      values.begin() + static_cast<std::ptrdiff_t>(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// ---- uploads -----------------------------------------------------------------------------------

// Sends the file as the final model, with the default progress on stderr.
void upload(const std::string& url, const std::string& file, const std::string& ca_file) {
  hub::training_session session{model_id, options_for(url),
                                hub::httplib_transport{{.ca_file = ca_file}}};
  const hub::delivery delivered = session.on_train_end(1, file, 0.5);
  require(delivered.complete(), "the upload did not arrive");
  std::printf("{\"peak_mib\": %.2f}\n", peak_mib());
}

// The limit: the kernel sends the file by itself, as one request without multipart.
void raw_sendfile(const std::string& port, const std::string& file) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(port)));
  require(::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0,
          "no connection to the sink");
  const int from = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  const auto size = static_cast<off_t>(fs::file_size(file));
  const std::string head =
      "POST /raw/upload HTTP/1.1\r\ncontent-length: " + std::to_string(size) + "\r\n\r\n";
  require(::send(socket, head.data(), head.size(), 0) == static_cast<ssize_t>(head.size()),
          "the sink takes nothing");
  for (off_t at = 0; at < size;)
    require(::sendfile(socket, from, &at, static_cast<std::size_t>(size - at)) > 0,
            "the sink took only a part");
  std::array<char, 1024> answer{};
  require(::recv(socket, answer.data(), answer.size(), 0) > 0, "the sink did not answer");
  ::close(from);
  ::close(socket);
  std::printf("{\"peak_mib\": %.2f}\n", peak_mib());
}

// ---- callbacks ---------------------------------------------------------------------------------

using metric_list = std::vector<std::pair<std::string, double>>;

metric_list twelve_metrics() {
  return {
      {"train/box_loss", 1.0214},       {"train/cls_loss", 0.5423},    {"train/dfl_loss", 1.1131},
      {"metrics/precision(B)", 0.7712}, {"metrics/recall(B)", 0.6921}, {"metrics/mAP50(B)", 0.7433},
      {"metrics/mAP50-95(B)", 0.5512},  {"val/box_loss", 1.2203},      {"val/cls_loss", 0.6134},
      {"val/dfl_loss", 1.2045},         {"lr/pg0", 0.00098},           {"lr/pg1", 0.00098}};
}

// on_fit_epoch_end, so many times without a pause, while metrics requests leave 300 times as often as
// by default; with a spool where a folder for one is named.
void epochs(const std::string& url, int count, const std::string& mood, const std::string& spool) {
  hub::session_options options = options_for(url);
  options.spool.directory = spool;
  options.rate_limits.metrics = 10ms;
  options.limits.shutdown_deadline = 0s;
  std::vector<float> taken(static_cast<std::size_t>(count));
  hub::training_session session{model_id, options};
  tell_sink(url, mood);
  metric_list values = twelve_metrics();
  for (int epoch = 0; epoch < count; ++epoch) {
    values.front().second += 1e-3;
    const auto began = clock_type::now();
    session.on_fit_epoch_end(epoch, values);
    taken[static_cast<std::size_t>(epoch)] = static_cast<float>(nanoseconds_since(began));
  }
  const hub::session_status reached = session.status();
  std::printf(
      "{\"median_us\": %.3f, \"p999_us\": %.3f, \"max_us\": %.1f, \"peak_mib\": %.1f, "
      "\"accepted\": %zu, \"delivered\": %zu}\n",
      percentile(taken, 0.5) / 1e3, percentile(taken, 0.999) / 1e3, percentile(taken, 1) / 1e3,
      peak_mib() - static_cast<double>(taken.size() * sizeof(float)) / hub::mebibyte,
      reached.epochs_accepted, reached.epochs_delivered);
}

// What it takes on this machine to touch memory for the first time, a page after the other, as a
// queue that grows does. No callback can be faster than that where it needs a new page.
void touch(std::size_t pages) {
  const auto page_bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  void* const memory = ::mmap(nullptr, pages * page_bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(memory != MAP_FAILED, "no memory");
  std::vector<float> taken(pages);
  for (std::size_t i = 0; i < pages; ++i) {
    const auto began = clock_type::now();
    static_cast<volatile char*>(memory)[i * page_bytes] = 1;
    taken[i] = static_cast<float>(nanoseconds_since(began));
  }
  ::munmap(memory, pages * page_bytes);
  std::printf("{\"median_us\": %.2f, \"p99_us\": %.2f, \"queue_pages\": %zu}\n",
              percentile(taken, 0.5) / 1e3, percentile(taken, 0.99) / 1e3,
              hub::limit_options().metrics_queue_bytes_max / page_bytes);
}

// on_model_save while no checkpoint is due, so many times.
void save_not_due(const std::string& url, int count, const fs::path& file) {
  hub::training_session session{model_id, options_for(url)};
  std::vector<float> taken(static_cast<std::size_t>(count));
  for (float& each : taken) {
    const auto began = clock_type::now();
    session.on_model_save(1, file, false);
    each = static_cast<float>(nanoseconds_since(began));
  }
  std::printf("{\"median_us\": %.3f, \"p999_us\": %.3f}\n", percentile(taken, 0.5) / 1e3,
              percentile(taken, 0.999) / 1e3);
}

double run_cp(const fs::path& from, const fs::path& to) {
  fs::remove(to);
  const auto began = clock_type::now();
  std::string program = "cp", source = from, target = to;
  std::array<char*, 4> arguments = {program.data(), source.data(), target.data(), nullptr};
  pid_t child = 0;
  int status = -1;
  require(::posix_spawnp(&child, "cp", nullptr, nullptr, arguments.data(), environ) == 0 &&
              ::waitpid(child, &status, 0) == child && status == 0,
          "cp failed");
  const double taken = nanoseconds_since(began);
  fs::remove(to);
  return taken / 1e3;
}

// on_model_save while a checkpoint is due, and cp of the same file in the same folder, in turn.
void save_due(const std::string& url, int pairs, const fs::path& file, bool with_copy) {
  hub::session_options options = options_for(url);
  options.rate_limits.checkpoint = 0s;
  options.snapshot = with_copy ? hub::snapshot::copy : hub::snapshot::none;
  options.temp_folder = file.parent_path();
  options.progress = [](const hub::transfer_progress&) {};
  hub::training_session session{model_id, options};
  std::string out;
  for (int i = 0; i < pairs; ++i) {
    const double copied = with_copy ? run_cp(file, file.parent_path() / "copy.pt") : 0;
    const auto began = clock_type::now();
    session.on_model_save(i, file, false);
    const double saved = nanoseconds_since(began) / 1e3;
    // Nothing is on the wire while the next pair is measured.
    require(session.flush(60s).complete(), "a checkpoint did not arrive");
    out +=
        (i == 0 ? "" : ", ") + ("[" + std::to_string(saved) + ", " + std::to_string(copied)) + "]";
  }
  std::printf("{\"saved_and_copied_us\": [%s]}\n", out.c_str());
}

// ---- metrics -----------------------------------------------------------------------------------

// An outage in which so many epochs are queued, and how long they take to arrive after it.
void backlog(const std::string& url, int count) {
  hub::training_session session{model_id, options_for(url)};
  tell_sink(url, "outage");
  const metric_list values = twelve_metrics();
  for (int epoch = 0; epoch < count; ++epoch) session.on_fit_epoch_end(epoch, values);
  tell_sink(url, "fast");
  const auto began = clock_type::now();
  const hub::delivery delivered = session.flush(5min);
  const double taken = nanoseconds_since(began) / 1e9;
  require(delivered.epochs_delivered == static_cast<std::size_t>(count), "epochs are missing");
  std::printf("{\"seconds\": %.4f}\n", taken);
}

// From the start of a session until HUB has its first epoch and has answered its first heartbeat.
void start(const std::string& url) {
  const auto began = clock_type::now();
  hub::training_session session{model_id, options_for(url)};
  session.on_fit_epoch_end(0, twelve_metrics());
  const hub::delivery delivered = session.flush(1min);
  const double taken = nanoseconds_since(began) / 1e6;
  require(delivered.epochs_delivered == 1, "the epoch did not arrive");
  while (session.status().heartbeats_answered == 0) std::this_thread::yield();
  std::printf("{\"milliseconds\": %.3f}\n", taken);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> given(argv + 1, argv + argc);
  const auto is = [&](std::string_view name, std::size_t arguments) {
    return given.size() == arguments + 1 && given[0] == name;
  };
  try {
    if (is("upload", 3))
      upload(given[1], given[2], given[3]);
    else if (is("sendfile", 2))
      raw_sendfile(given[1], given[2]);
    else if (is("epochs", 4))
      epochs(given[1], std::stoi(given[2]), given[3], given[4]);
    else if (is("touch", 1))
      touch(std::stoul(given[1]));
    else if (is("save_not_due", 3))
      save_not_due(given[1], std::stoi(given[2]), given[3]);
    else if (is("save_copy", 3))
      save_due(given[1], std::stoi(given[2]), given[3], true);
    else if (is("save_in_place", 3))
      save_due(given[1], std::stoi(given[2]), given[3], false);
    else if (is("backlog", 2))
      backlog(given[1], std::stoi(given[2]));
    else if (is("start", 1))
      start(given[1]);
    else
      throw std::runtime_error("bench_client: see main() in tests/bench/client.cpp");
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "bench_client: %s\n", problem.what());
    return 1;
  }
}
