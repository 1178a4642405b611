// SPDX-License-Identifier: MIT
//
// hub_session.hpp: report a C++ training to Ultralytics Platform, or to a server that speaks HUB v1.
//
// Signs in, learns what to train, shows signs of life, reports metrics every epoch, uploads
// checkpoints and the final model, retries, and ends cleanly. Training is never slowed, blocked or
// crashed by the reporting. On the Platform a session is made by
// hub::platform_session{{.project = "lab/helmets", .name = "yolo11n 640", .epochs = 100}}, and on HUB v1
// as here; all else is the same.
//
//     #include <iostream>
//     #include "hub_session.hpp"
//
//     int main() {
//       try {
//         hub::training_session session{"https://hub.example.org/models/abcdefghij0123456789",
//                                       {.endpoints = {.api = "https://hub.example.org/api",
//                                                      .web = "https://hub.example.org"}}};
//         session.on_pretrain_routine_end();                        // the timers start
//         const int epochs = session.train_args().epochs.value_or(100);
//         for (int epoch = session.next_epoch(); epoch < epochs; ++epoch) {
//           const float loss = train_one_epoch();                   // yours
//           session.on_fit_epoch_end(epoch, {{"train/loss", loss}});
//           session.on_model_save(epoch, "last.pt", false);
//         }
//         return session.on_train_end(epochs - 1, "best.pt", 0.87).complete() ? 0 : 1;
//       } catch (const hub::session_error& problem) {
//         std::cerr << problem.what() << '\n';                      // what, to what, what next
//         return 2;
//       }
//     }
//
// Contents: each room opens with a banner, and with the rules that it obeys
//   contents          this page
//   configuration     version, the HUB_SESSION_* switches, includes
//   vocabulary        errc, error, result<T>, metrics_view, train_args, model_info, request, reply,
//                     session_options, delivery, session_status, training_callbacks
//   policies          the concepts http_transport, monotonic_clock, sleeper; any_transport,
//                     spool_storage
//   engine            the lanes, and the plans of a start and a download: what to send, when, how often
//                     to retry; reads no clock, does no I/O
//   text              text, numbers, JSON, addresses and dates
//   protocols         what a protocol is; pure functions and a policy each: hub_v1, platform, and the
//                     storage host
//   machine           files, locks, settings, ranks, the terminal, the log, signals
//   spool             what is not confirmed yet, on the disk
//   session           session_base, and basic_training_session over it: drives the engine through the
//                     policies; start, lanes, transfers, ending; console_tee
//   default policies  httplib_transport, steady_clock, thread_sleeper
//   test kit          hub::testing: virtual time, a HUB in memory, faults, simulation
//   hygiene           every internal macro undefined
//
// How a metric travels: session_base::on_fit_epoch_end (session) packs the epoch into an
// epoch_record (vocabulary), writes it down if there is a spool, and hands it to
// engine::handle_epoch (engine), which queues it. The epochs lane's step (session) asks engine::poll
// for the next order, turns it into a request with the protocol's make(), here
// hub_v1_wire::metrics_request (protocols), sends it through the transport (default policies), reads the
// reply with protocols::judge and hands the outcome to engine::handle_outcome, which strikes the epoch
// out only after a 2xx, and then out of the spool.
//
// The rule: the engine decides and touches nothing; the session acts and decides nothing.
//
// Thread safety: every member function of a session may be called from any thread. Two sessions
// share only what belongs to the process: its signal handlers, what is done at std::exit, and look-ups
// of names that were given up. The log and progress functions are called on a thread of the session's
// own, never two at a time.
//
// When not to use it: to train without either server (there is nothing to report to; the hosted HUB was
// retired on 31 July 2026), or to upload from a program that cannot afford up to six background
// threads, eight on the Platform, and one more with a spool.

#if defined(HUB_SESSION_HPP_INCLUDED) && HUB_SESSION_HPP_INCLUDED != 100
#error \
    "hub_session.hpp: a second copy of another version is included in this translation unit; keep one"
#endif

// =================================================================================================
// configuration
//
// Rules: every switch is listed here with what it does; nothing below this room includes anything.
// =================================================================================================

#define HUB_SESSION_VERSION_MAJOR 0
#define HUB_SESSION_VERSION_MINOR 1
#define HUB_SESSION_VERSION_PATCH 0
#define HUB_SESSION_VERSION "0.1.0"

// HUB_SESSION_NO_HTTPLIB: define it before including to leave out httplib.h and OpenSSL. Removes
// hub::httplib_transport and the alias hub::training_session and nothing else.
//
// HUB_SESSION_NO_OPENSSL: define it in every file of a program whose hub::httplib_transport is to do
// without OpenSSL. It speaks plain HTTP alone then, and an https:// address is an error before anything
// is sent. Upstream's httplib.h needs no CPPHTTPLIB_OPENSSL_SUPPORT with it; a packaged cpp-httplib is
// still to be used with the macros that it was compiled with.
//
// HUB_SESSION_INTERFACE_ONLY: define it before including if a file makes no session, but reports
// to a hub::training_callbacks& or names a policy. Leaves out everything from the engine on, and
// httplib with it, and so most of the time to compile.
//
// The others change nothing of what they leave in, so translation units with different ones may meet in
// one program; and in one unit, each part is guarded by itself: a later inclusion adds what an earlier
// left out, in any order.

#if !defined(HUB_SESSION_HPP_INCLUDED)
#define HUB_SESSION_HPP_INCLUDED 100  // the version, as 10000 * major + 100 * minor + patch
#define HUB_SESSION_ADDS_INTERFACE
#endif
#if !defined(HUB_SESSION_INTERFACE_ONLY) && !defined(HUB_SESSION_HPP_SESSION_INCLUDED)
#define HUB_SESSION_HPP_SESSION_INCLUDED
#define HUB_SESSION_ADDS_SESSION
#endif
#if !defined(HUB_SESSION_INTERFACE_ONLY) && !defined(HUB_SESSION_NO_HTTPLIB) && \
    !defined(HUB_SESSION_HPP_HTTPLIB_INCLUDED)
#define HUB_SESSION_HPP_HTTPLIB_INCLUDED
#define HUB_SESSION_ADDS_HTTPLIB
#endif

// HUB_SESSION_ASSERT(condition): define it, in every file of a program, to have the library check what
// it believes of itself, as its own tests do with -DHUB_SESSION_ASSERT=assert. Does nothing otherwise.
#if !defined(HUB_SESSION_ASSERT)
#define HUB_SESSION_ASSERTS_NOTHING
#define HUB_SESSION_ASSERT(condition) static_cast<void>(0)
#endif

#if defined(_WIN32)
#define HUB_SESSION_WINDOWS 1
#elif defined(__unix__) || defined(__APPLE__)
#define HUB_SESSION_POSIX 1
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

// Nothing else of the system's: its headers define over a thousand macros, such as B0, ECHO and
// MS_RDONLY, which would reach whoever includes this one. What is needed of them is declared in the
// machine room. These two come with the standard library's headers anyway.
#if defined(HUB_SESSION_POSIX)
#include <pthread.h>
#include <sys/select.h>
#elif defined(HUB_SESSION_WINDOWS) && defined(HUB_SESSION_ADDS_SESSION)
#include <conio.h>
#include <csignal>
#include <io.h>
#include <process.h>
// As <windows.h> declares them: what finds everything else there.
extern "C" __declspec(dllimport) struct HINSTANCE__* __stdcall LoadLibraryW(const wchar_t* name);
extern "C" __declspec(dllimport) std::intptr_t(
    __stdcall* __stdcall GetProcAddress(struct HINSTANCE__* library, const char* name))();
#endif

#if defined(HUB_SESSION_ADDS_HTTPLIB)
#if defined(__has_include)
#if !__has_include(<httplib.h>)
#error \
    "hub_session.hpp: httplib.h not found; install cpp-httplib or define HUB_SESSION_NO_HTTPLIB and bring a transport"
#endif
#endif
// This macro changes the types in httplib.h. Were it defined here, another file of the program could
// include the same header without it: that links, and overwrites the heap.
#if !defined(CPPHTTPLIB_OPENSSL_SUPPORT) && !defined(HUB_SESSION_NO_OPENSSL)
#error \
    "hub_session.hpp: compile every file of the program with -DCPPHTTPLIB_OPENSSL_SUPPORT, or with what pkg-config --cflags cpp-httplib says"
#endif
#include <httplib.h>
#if defined(HUB_SESSION_POSIX)  // which httplib.h includes as well
#include <csignal>
#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>
#endif
#endif

// Words of ours that are macros elsewhere: in <windows.h>, and in macOS's <AssertMacros.h>.
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("check")
#undef min
#undef max
#undef check

namespace hub {
inline namespace v0_1 {

#if defined(HUB_SESSION_ADDS_INTERFACE)

using namespace std::chrono_literals;
using namespace std::string_view_literals;

// =================================================================================================
// vocabulary
//
// Rules: plain values with names from the field. No I/O, no clock, no policy. Every bound that a user
// may want to move is a member of an options struct here; what guards the reading of foreign text is a
// constant beside it. Times are std::chrono types.
// =================================================================================================

// Time as the engine counts it: only differences matter. Production reads the steady clock.
using time_point = std::chrono::steady_clock::time_point;
using duration = std::chrono::steady_clock::duration;
inline constexpr time_point never = time_point::max();

// `from` plus `wait`, or never if that cannot be counted any more: duration::max() never ends.
constexpr time_point later(time_point from, duration wait) noexcept {
  return wait > never - std::max(from, time_point{}) ? never : from + wait;
}

inline constexpr std::size_t kibibyte = 1024;
inline constexpr std::size_t mebibyte = 1024 * kibibyte;

// ---- errors ------------------------------------------------------------------------------------

enum class errc {
  invalid_identifier,   // the text that should name a model does not
  invalid_endpoint,     // a HUB address that is no http(s) URL
  invalid_credentials,  // a key or token with bytes that no header may carry
  not_authenticated,    // no key was found, or HUB does not accept it
  access_denied,        // HUB answers, but refuses this model to this key
  already_trained,      // the model's training has ended; it takes no further one
  dataset_not_ready,    // the dataset is missing or still being processed
  not_reachable,        // no answer: name, connection or a broken transfer
  tls_failed,           // no answer that could be trusted: handshake or certificate
  timed_out,            // the deadline passed before the whole answer was there
  rate_limited,         // HUB asks to slow down (429)
  server_error,         // HUB, or what stands in front of it, has a fault (408, 5xx)
  rejected,             // HUB refuses this content for good (400, 413, 422)
  unexpected_status,    // any other status, redirects included: they are never followed
  bad_reply,            // an answer that cannot be read as what was asked for
  file_error,           // a file is missing, not a regular file, empty, unreadable or unwritable
  file_changed,         // a file was overwritten while it was uploaded
  not_downloadable,     // HUB names a file, but no http(s) URL that leads to it
  queue_full,           // more metrics are waiting than limits allow
  spool_locked,         // another session uses this model's folder of the spool
  cancelled,            // given up on our side
  internal_error,       // out of memory or an exception from a policy
};

// The enumerator's name, for logs and tests.
constexpr std::string_view to_string(errc code) noexcept {
  switch (code) {
    using enum errc;
    case invalid_identifier: return "invalid_identifier";
    case invalid_endpoint: return "invalid_endpoint";
    case invalid_credentials: return "invalid_credentials";
    case not_authenticated: return "not_authenticated";
    case access_denied: return "access_denied";
    case already_trained: return "already_trained";
    case dataset_not_ready: return "dataset_not_ready";
    case not_reachable: return "not_reachable";
    case tls_failed: return "tls_failed";
    case timed_out: return "timed_out";
    case rate_limited: return "rate_limited";
    case server_error: return "server_error";
    case rejected: return "rejected";
    case unexpected_status: return "unexpected_status";
    case bad_reply: return "bad_reply";
    case file_error: return "file_error";
    case file_changed: return "file_changed";
    case not_downloadable: return "not_downloadable";
    case queue_full: return "queue_full";
    case spool_locked: return "spool_locked";
    case cancelled: return "cancelled";
    case internal_error: return "internal_error";
  }
  return "unknown";
}

// What happened, to what, and what to do next, in `message`. Holds no key and no URL query.
struct error {
  errc code = errc::internal_error;
  std::string message = {};
  int http_status = 0;  // 0 if no HTTP reply was involved
};

// Thrown by the constructor and by create_model, and by nothing else.
class session_error : public std::runtime_error {
 public:
  explicit session_error(hub::error why) : std::runtime_error(why.message), why_(std::move(why)) {}
  const hub::error& error() const noexcept { return why_; }
  errc code() const noexcept { return why_.code; }

 private:
  hub::error why_;
};

// A value or an error. Asking for the one that is not there throws std::bad_variant_access.
template <class T>
class [[nodiscard]] result {
 public:
  result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  result(hub::error why) : state_(std::in_place_index<1>, std::move(why)) {}

  explicit operator bool() const noexcept { return state_.index() == 0; }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  const hub::error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, hub::error> state_;
};

// ---- metrics -----------------------------------------------------------------------------------

// Numbers are judged by their bits: under -ffast-math a compiler takes it that there is no NaN, no
// infinity and no sign of zero, and folds away whatever asks for them.
constexpr std::uint64_t bits_of(double value) noexcept {
  return std::bit_cast<std::uint64_t>(value);
}
constexpr bool is_finite(double value) noexcept {
  constexpr std::uint64_t exponent = std::uint64_t{0x7FF} << 52;
  return (bits_of(value) & exponent) != exponent;
}
constexpr bool is_nan(double value) noexcept {
  constexpr std::uint64_t fraction = (std::uint64_t{1} << 52) - 1;
  return !is_finite(value) && (bits_of(value) & fraction) != 0;
}
constexpr bool is_negative(double value) noexcept { return bits_of(value) >> 63 != 0; }

// What holds metrics: anything whose elements are pairs of a name and a number. Names are HUB's,
// such as "train/box_loss" or "metrics/mAP50-95(B)"; the order is the order in which they are sent.
template <class Range>
concept metric_range = requires(const Range& range) {
  { range.begin()->first } -> std::convertible_to<std::string_view>;
  { range.begin()->second } -> std::convertible_to<double>;
  range.end();
};

// One epoch's metrics as a parameter: any such range (a std::map, a vector of pairs) or a braced
// list, without copying or allocating. Valid only as long as what it was made from: never store it.
class metrics_view {
 public:
  using metric = std::pair<std::string_view, double>;

  metrics_view(std::initializer_list<metric> list) noexcept
      : source_(list.begin()), size_(list.size()), visit_(&visit_array) {}

  template <metric_range Range>
  requires(!std::same_as<Range, metrics_view>) metrics_view(const Range& range)
  noexcept : source_(&range), visit_(&visit_range<Range>) {}

  // Calls use(std::string_view name, double value) for each metric in order.
  template <class Use>
  void for_each(Use&& use) const {
    visit_(*this, &use, [](void* context, std::string_view name, double value) {
      (*static_cast<std::remove_reference_t<Use>*>(context))(name, value);
    });
  }

 private:
  using sink = void (*)(void* context, std::string_view name, double value);

  static void visit_array(const metrics_view& self, void* context, sink put) {
    const auto* first = static_cast<const metric*>(self.source_);
    for (const metric& entry : std::span(first, self.size_))
      put(context, entry.first, entry.second);
  }
  template <class Range>
  static void visit_range(const metrics_view& self, void* context, sink put) {
    for (const auto& entry : *static_cast<const Range*>(self.source_))
      put(context, std::string_view(entry.first), static_cast<double>(entry.second));
  }

  const void* source_;
  std::size_t size_ = 0;
  void (*visit_)(const metrics_view&, void*, sink);
};

// One epoch's metrics as they are kept until HUB has them: names and values one after another in
// one allocation, so that the training thread formats no number and allocates nothing per metric.
class epoch_record {
 public:
  explicit epoch_record(metrics_view values) {
    std::size_t bytes = 0;
    values.for_each([&](std::string_view name, double) { bytes += name.size() + head_bytes; });
    bytes_.reserve(bytes);
    values.for_each([&](std::string_view name, double value) { append(name, value); });
  }

  std::size_t size_bytes() const noexcept { return bytes_.size(); }
  // How long its JSON is at most, unless names need escapes.
  std::size_t json_bytes() const noexcept { return bytes_.size() + count_ * 24; }
  // How many of its values JSON has no number for.
  std::size_t not_finite() const noexcept { return not_finite_; }

  // Calls use(std::string_view name, double value) for each metric in order.
  template <class Use>
  void for_each(Use&& use) const {
    for (std::size_t at = 0; at < bytes_.size();) {
      std::size_t length = 0;
      double value = 0;
      std::memcpy(&length, bytes_.data() + at, sizeof length);
      std::memcpy(&value, bytes_.data() + at + sizeof length, sizeof value);
      use(std::string_view(bytes_).substr(at + head_bytes, length), value);
      at += head_bytes + length;
    }
  }

 private:
  static constexpr std::size_t head_bytes = sizeof(std::size_t) + sizeof(double);

  void append(std::string_view name, double value) {
    const std::size_t length = name.size();
    std::array<char, head_bytes> head;
    std::memcpy(head.data(), &length, sizeof length);
    std::memcpy(head.data() + sizeof length, &value, sizeof value);
    bytes_.append(head.data(), head.size());
    bytes_.append(name);
    ++count_;
    if (!is_finite(value)) ++not_finite_;
  }

  std::string bytes_;
  std::size_t count_ = 0;
  std::size_t not_finite_ = 0;
};

// ---- the model ---------------------------------------------------------------------------------

// How HUB wants the model trained. A member is empty if HUB said nothing or nothing usable.
struct train_args {
  std::string data = {};                  // dataset: a URL, often signed and short-lived, or a name
  bool resume = false;                    // go on from model_file instead of starting anew
  std::optional<double> batch = {};       // -1: automatic; below 1: a fraction of the memory
  std::optional<int> epochs = {};         //
  std::optional<int> imgsz = {};          // pixels
  std::optional<int> patience = {};       // epochs without progress before stopping
  std::optional<double> time_hours = {};  // ends training after so many hours, if given
  std::string device = {};                // "", "cpu", "0", "0,1"
  std::string cache = {};                 // "", "ram" or "disk"
  nlohmann::json raw = {};                // the same as HUB sent it, for what is not named here
};

enum class model_state { fresh, training, trained };

struct model_info {
  std::string id = {};
  model_state state = model_state::fresh;
  hub::train_args train_args = {};
  std::string model_file = {};         // what to load: a name such as "yolov8n.pt", or a URL
  std::optional<int> last_epoch = {};  // that a training to go on with has reported, if HUB says so
  nlohmann::json raw = {};             // HUB's whole description of the model
};

struct training_results;

// A run that HUB does not know yet, for create_model.
struct new_model {
  std::string name = {};                      // the run's name on HUB
  std::string dataset = {};                   // the dataset's name
  std::string architecture = "yolov8n.yaml";  // a .yaml starts anew, a .pt from its weights
  double batch = -1;
  int epochs = 300;
  int imgsz = 640;  // pixels
  int patience = 100;
  std::string device = {};
  std::string cache = "ram";
};

// ---- a run on the Platform ---------------------------------------------------------------------

// How much of the machine the Platform is told with a run.
enum class environment_disclosure {
  none,     // nothing, and no figures of its load either
  machine,  // the system and processors; with the epochs its load, memory, disks, network and GPUs
  all,      // also the host's name, the command line with its paths, and the working folder
};

// What a machine and a program say of themselves, as far as the disclosure lets them.
struct machine_facts {
  struct private_part {  // only if all may be told
    std::string host = {};
    std::string command_line = {};
    std::string working_folder = {};
  };
  std::string system = {};  // "Linux", "macOS" or "Windows"; empty if nothing may be told
  unsigned processors = 0;
  std::optional<private_part> more = {};
};

// A run that the Platform makes with a session's first request.
struct platform_run {
  std::string project = {};  // "helmets", or "lab/helmets" where its owner is to be named
  std::string name = {};     // of the model in it; else "train"; counted up if it is taken
  int epochs = 0;            // how many there will be; 0: that is not known
  std::vector<std::pair<std::string, std::string>> arguments = {};  // shown as they are given
  std::string device = {};                                          // such as "cpu" or "cuda:0"
  bool resume = false;        // take up the run that an earlier session left in the spool
  unsigned spool_number = 0;  // which of several, as list_spool numbers them; 0: the first
  environment_disclosure environment = environment_disclosure::machine;
};

// Lines over the same points, one a class, such as precision over recall. Each row of `y` is as long
// as `x`. What has more points than the Platform takes is sent with fewer.
struct plot_curve {
  std::vector<double> x = {};
  std::vector<std::vector<double>> y = {};   // [class][point]
  std::vector<std::vector<double>> ap = {};  // of pr_curve: average precision, [class][threshold]
};

// One of each kind; what is empty is not sent.
struct training_plots {
  plot_curve pr_curve = {};  // precision over recall
  plot_curve f1_curve = {};  // this and the next two over confidence
  plot_curve precision_curve = {};
  plot_curve recall_curve = {};
  std::vector<std::vector<double>> confusion_matrix = {};  // [predicted class][true class]
};

// How an image of the validation set came out.
struct validation_row {
  std::string image = {};
  unsigned true_positives = 0;
  unsigned false_positives = 0;
  unsigned false_negatives = 0;
};

// What a training came to, for the end of a run on the Platform.
struct training_results {
  std::vector<std::pair<std::string, double>> metrics = {};
  std::optional<int> best_epoch = {};       // from 0; else the last one
  std::optional<double> best_fitness = {};  // else the mAP that on_train_end was given
  std::vector<std::string> class_names = {};
  training_plots plots = {};
  std::vector<validation_row> validation = {};  // all images; of many, the Platform gets a sample
};

// ---- requests and replies ----------------------------------------------------------------------

// A request body that is produced piece by piece. One thread at a time reads it.
class body_source {
 public:
  virtual ~body_source() = default;
  virtual std::uint64_t size_bytes() const = 0;
  // Fills `out` with what stands at `offset` and returns how many bytes; at least one unless
  // `offset` is the end. An error ends the transfer before it is complete.
  virtual result<std::size_t> read(std::uint64_t offset, std::span<char> out) = 0;
};

// A copy of a file that is to be uploaded, for as long as it is wanted.
class upload_copy {
 public:
  virtual ~upload_copy() = default;
  virtual result<std::shared_ptr<body_source>> open() const = 0;
};

struct reply;

// Where a reply's body goes piece by piece. One thread at a time writes to it.
class body_sink {
 public:
  virtual ~body_sink() = default;
  // Called with the reply, but for its body, before the first piece. An error refuses the body.
  virtual std::optional<error> begin(const reply& head) = 0;
  // Takes the next piece. An error ends the transfer.
  virtual std::optional<error> write(std::string_view piece) = 0;
};

struct request {
  std::string method = {};  // "GET", "POST", "PUT" or "HEAD"
  std::string url = {};     // absolute, checked by text::parse_target
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};  // used if `content` is null
  std::shared_ptr<body_source> content = nullptr;
  std::shared_ptr<body_sink> sink = nullptr;  // takes the body of a 2xx in place of reply::body
  duration deadline = 30s;                    // for the whole exchange, from send() on
  duration connect_timeout = 10s;             // for the name, each connection and the TLS handshake
  duration stall_timeout = 2min;              // without a byte going out or coming in
  std::size_t reply_bytes_max = mebibyte;     // a longer reply::body is cut and fails
  bool show_client_certificate = false;       // to the server alone, if the transport has one
};

struct reply {
  int status = 0;  // 0: no HTTP reply, and `failure` says why
  std::string body = {};
  std::string retry_after = {};     // the header as received, "" if there was none
  std::string content_length = {};  // this and the next three too; needed if there is a sink
  std::string content_range = {};   //
  std::string content_type = {};    //
  std::string etag = {};            //
  std::string location = {};        // of a redirect, byte for byte; it is never followed by itself
  bool is_chunked = false;          // the body says no length, but where it ends
  std::string proxy = {};           // host:port, if it may be the words of a proxy on the way
  std::optional<error> failure = {};  // set if there is no whole reply
  duration latency = {};  // virtual time until the reply is there; zero from a real transport
};

// ---- figures of the machine ----------------------------------------------------------------------

// What a machine does at the moment, as far as it could be read.
struct system_figures {
  struct disk {
    std::string mount = {};
    double used_gb = 0;  // of 10^9 bytes
    double total_gb = 0;
  };
  struct traffic {  // in 10^6 bytes a second
    double in_mbs = 0;
    double out_mbs = 0;
  };
  struct gpu {
    std::optional<double> usage_percent = {};
    std::optional<double> memory_percent = {};
    std::optional<double> celsius = {};
    std::optional<double> watts = {};
  };
  std::optional<double> cpu_percent = {};  // of all processors, since the reading before
  std::optional<double> memory_percent = {};
  std::vector<disk> disks = {};
  std::optional<traffic> disk_io = {};  // read and written
  std::optional<traffic> network = {};  // received and sent
  std::vector<gpu> gpus = {};
};

// ---- options -----------------------------------------------------------------------------------

enum class log_level { info, warning, error };

enum class transfer { upload, download };

struct transfer_progress {
  std::string_view file;      // "last.pt" or "best.pt" in an upload, the file's own name otherwise
  std::uint64_t bytes_done;   //
  std::uint64_t bytes_total;  // 0 if nobody says it before the end
  duration elapsed;           // since this attempt began
  transfer kind = transfer::upload;
  std::uint64_t bytes_before = 0;  // of bytes_done, from earlier attempts: if a download goes on
};

// How a checkpoint is kept from changing while it is uploaded.
enum class snapshot {
  copy,  // on_model_save takes a private copy first: by reflink if the file system can, else in
         // full. Right for trainers that overwrite the file in place.
  none,  // the file itself is read. For trainers that write a new file and rename it: a replaced
         // file is still sent whole, one that is overwritten in place is noticed and sent again.
         // What is noticed is a change of size or modification time.
};

struct endpoint_options {
  // Else ULTRALYTICS_HUB_API, else https://api.ultralytics.com; on the Platform PLATFORM_API_URL first.
  std::string api = {};
  // Where the pages are; else ULTRALYTICS_HUB_WEB, else the server of `api`.
  std::string web = {};
  // For a gateway in front of the server. Sent to the server alone, never to a storage host, and kept as
  // secret as the key.
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string login = {};  // "user:password", as Authorization: Basic; not beside a token there
};

struct credential_options {
  std::string api_key = {};   // else ULTRALYTICS_API_KEY, the settings file, a prompt on a terminal
  std::string id_token = {};  // a bearer token; wins over any key
  // Returns a fresh id token. Called if there is none, and if the server does not accept the
  // one it has any more, which is an hour later for HUB's. First on the constructor's thread, then on
  // background threads, never two at a time; it may block, which holds up what waits for the token and
  // an ending, and must not call the session. What it throws is said, and it is called again later.
  std::function<std::string()> renew_id_token = {};
  bool save = false;                         // write an accepted key to the settings file
  bool prompt = true;                        // ask on a terminal if no key is found
  std::filesystem::path settings_file = {};  // else settings.json or .yaml in the per-OS folder
};

struct rate_limit_options {
  duration metrics = 3s;          // at most one metrics request
  duration checkpoint = 15min;    // at most one checkpoint
  duration heartbeat = 5min;      // from the start of one beat to the start of the next
  duration console = 5s;          // a printed line waits no longer than this for others ...
  std::size_t console_lines = 5;  // ... or for so many, which are sent at once ...
  duration console_gap = 1s;      // ... unless the last ones left just now
  duration system = 10s;          // between two readings of the machine's figures
};

struct retry_options {
  duration first_delay = 1s;         // doubled with each failure; the wait is uniform in [0, delay]
  duration delay_max = 5min;         // where the doubling ends
  duration denied_interval = 5min;   // between tries while HUB refuses (401, 403, other statuses)
  duration retry_after_max = 15min;  // a longer Retry-After is cut to this
  unsigned start_retries_max = 3;    // sign-in and model, in the constructor
  unsigned final_retries_max = 10;   // final metrics and model, in on_train_end
  unsigned budget = 30;              // retries that may be made at once, over all lanes ...
  duration budget_refill = 30s;      // ... and the time after which one more may be made
  bool jitter = true;      // false: wait the whole delay. Only to measure what jitter does
  std::uint64_t seed = 0;  // of the jitter; 0 takes one from the system
  // Of fetch_model_file and fetch_dataset.
  unsigned download_retries_max = 10;  // in a row that brought no byte
};

struct limit_options {
  duration connect_timeout = 10s;
  duration stall_timeout = 2min;     // without a byte going out or coming in
  duration request_deadline = 30s;   // for a whole small request
  duration upload_deadline = 1h;     // for one attempt at an upload
  duration start_deadline = 2min;    // for the constructor
  duration train_end_deadline = 1h;  // for on_train_end
  duration denied_deadline = 1min;  // of that, from the first refusal in a row (401, 403, 404, ...)
  duration checkpoint_grace = 30s;  // for a checkpoint still in flight when training ends
  duration shutdown_deadline = 2s;  // for the flush in the destructor and on a signal
  duration signal_moment = 500ms;   // so long after the first, signals are one with it
  std::size_t reply_bytes_max = mebibyte;
  std::size_t metrics_batch_epochs_max = 100;
  std::size_t metrics_batch_bytes_max = 256 * kibibyte;
  std::size_t metrics_queue_bytes_max = 64 * mebibyte;
  std::size_t console_queue_bytes_max = mebibyte;  // beyond, the oldest lines are left out
  std::size_t console_chunk_lines_max = 200;
  std::size_t log_queue_bytes_max = 256 * kibibyte;  // beyond, messages are left out and counted
  duration log_deadline = 1s;  // for words that nobody has taken yet when a session ends
  std::optional<unsigned> requests_per_minute_max = {};  // else what the server names; 0: no limit
  unsigned upload_restarts_max = 5;  // a file that changes during this many uploads is given up
  // Of fetch_model_file and fetch_dataset.
  duration download_deadline = 6h;          // for the whole of it
  duration download_attempt_deadline = 1h;  // for one exchange; the next one goes on
  std::uint64_t download_bytes_max = std::uint64_t{64} * 1024 * mebibyte;
  unsigned download_redirects_max = 10;  // one after another
};

// When what was written to a spool is forced to the disk. A process that dies loses nothing, whatever
// is chosen here; this is about a machine that crashes or loses its power.
enum class spool_sync {
  each,      // before the callback returns, which waits for the disk: nothing is lost
  interval,  // in the background: what the last sync_interval brought may be lost
  none,      // when the system does so by itself: the last half minute or so may be lost
};

// Whether a session with a spool may start while HUB cannot be reached.
enum class offline_start { refuse, allow };

class spool_storage;  // policies

// A folder in which everything is kept until HUB has confirmed it, for the next session on the same
// model if this one dies. If the folder cannot be used any more, that is said once and the
// training goes on in memory alone.
struct spool_options {
  std::filesystem::path directory = {};         // "": no spool. Each model has its own folder in it
  std::uintmax_t bytes_max = 1024 * mebibyte;   // of a model's folder; checkpoints go first
  std::uintmax_t rewrite_bytes_min = mebibyte;  // a shorter journal is left alone
  spool_sync sync = spool_sync::interval;
  duration sync_interval = 1s;
  offline_start offline = offline_start::refuse;
  std::optional<hub::train_args> train_args = {};  // for a start without HUB before any with it
  std::shared_ptr<spool_storage> storage = {};     // else the disk
};

// Everything that can be set, for designated initialisers. The defaults are the original's cadence.
struct session_options {
  endpoint_options endpoints = {};
  credential_options credentials = {};
  rate_limit_options rate_limits = {};
  retry_options retry = {};
  limit_options limits = {};
  hub::snapshot snapshot = hub::snapshot::copy;
  std::filesystem::path temp_folder = {};  // for snapshots; else the system's
  spool_options spool = {};
  // Both are called one at a time, on a thread of the session's own, and must not call the session. They
  // may be slow: nobody waits for them, but an ending, for limits.log_deadline. One that takes longer is
  // left running, and is not called again. Of a transfer that is faster, states are left out.
  std::function<void(log_level, std::string_view)> log = {};    // else stderr
  std::function<void(const transfer_progress&)> progress = {};  // else a bar or lines on stderr
  // Reads the machine's figures, on a thread of the session's own, for a protocol that shows them; else
  // the system's and the NVIDIA driver's.
  std::function<system_figures()> read_system = {};
  bool handle_signals = true;    // flush on SIGINT, SIGTERM and SIGHUP, then hand them on
  std::optional<int> rank = {};  // else by the launcher's variables, see machine::rank_variables
};

// ---- what a session says of itself -------------------------------------------------------------

// Why a session reports nothing, if that is so.
enum class silence {
  none,
  by_rank,  // rank 0 reports for all processes of the training
  by_fork,  // this is a forked child of the process that began the session
};

// This process's place among those that train one model together.
struct process_rank {
  int rank = 0;
  int size = 0;             // how many there are; 0 if that is not known
  std::string source = {};  // the variable that says so, "session_options::rank", or ""
};

// What a download achieved.
struct fetched_file {
  std::filesystem::path path = {};  // "" on a rank above 0, which fetches nothing: rank 0 does
  std::uint64_t size_bytes = 0;
};

// What on_train_end and flush achieved. Epochs are counted since the session began.
struct delivery {
  std::size_t epochs_delivered = 0;
  std::size_t epochs_queued = 0;     // accepted but not confirmed by HUB
  std::size_t epochs_set_aside = 0;  // refused by HUB for good, or more than the queue holds
  std::size_t checkpoints_delivered = 0;
  bool checkpoint_missing = false;  // the latest one, if no final model takes its place
  bool final_model_wanted = false;
  bool final_model_delivered = false;
  bool ending_wanted = false;  // if the server is told by itself that the training has ended
  bool ending_delivered = false;
  hub::silence silent = {};       // if this session reports nothing, which leaves all else empty
  std::optional<error> why = {};  // if something is missing: the latest reason

  // True if nothing that was accepted is missing on HUB: on a rank above 0 as well, which accepts
  // nothing, but not in a forked child if the session was told anything before or after the fork.
  bool complete() const noexcept {
    return epochs_queued == 0 && epochs_set_aside == 0 &&
           final_model_wanted == final_model_delivered && ending_wanted == ending_delivered && !why;
  }
};

struct session_status {
  hub::silence silent = {};  // if this session reports nothing, only this and the rank are told
  process_rank rank = {};
  std::string agent_id = {};    // as HUB assigned it; empty before the first answer
  bool registered = false;      // the server knows the run
  bool stop_requested = false;  // the server wants the training to stop
  std::size_t heartbeats_answered = 0;
  std::optional<time_point> last_heartbeat = {};  // when it was answered
  std::optional<time_point> next_heartbeat = {};  // when it is due, or when it left
  std::size_t epochs_accepted = 0;                // = delivered + queued + set aside
  std::size_t epochs_delivered = 0;
  std::size_t epochs_queued = 0;
  std::size_t epochs_set_aside = 0;
  std::size_t epochs_restored = 0;  // of those accepted: what an earlier session left in the spool
  std::size_t spool_dropped = 0;    // epochs, checkpoints and lines that the spool could not keep
  std::size_t checkpoints_delivered = 0;
  std::size_t checkpoints_failed = 0;  // refused by HUB, or the file could not be read
  std::size_t console_lines_delivered = 0;
  std::size_t console_lines_queued = 0;
  std::size_t console_lines_dropped = 0;            // did not fit, or were refused
  bool checkpoint_waiting = false;                  // one is in flight or waiting for its turn
  std::optional<time_point> unanswered_since = {};  // set while HUB does not answer as it should
  std::optional<error> unanswered_why = {};
};

// What a folder in a spool holds that the server has not confirmed: a model's on HUB v1, a run's on the
// Platform.
struct spooled_model {
  std::string model_id = {};        // "" of a run that is not made yet
  std::string protocol = "hub-v1";  // or "platform"
  std::string project = {};         // of a run on the Platform, as its page's address has them
  std::string name = {};            //
  unsigned number = 1;              // among the runs of that name, for platform_run::spool_number
  std::size_t epochs = 0;
  std::size_t console_lines = 0;
  bool has_ending = false;  // the training ended, which the server does not know yet
  std::uintmax_t journal_bytes = 0;
  std::optional<int> checkpoint_epoch = {};  // of the checkpoint or final model, if there is one
  bool is_final = false;
  std::uintmax_t checkpoint_bytes = 0;

  bool empty() const noexcept {
    return epochs == 0 && !checkpoint_epoch && console_lines == 0 && !has_ending &&
           !model_id.empty();
  }
};

// The abstract base of every session, for training code that is no template. None of the calls throws,
// and each may be made from any thread.
class training_callbacks {
 public:
  virtual ~training_callbacks() = default;

  // Training is about to start: the rate limits of metrics and checkpoints run from now on, so the
  // first checkpoint leaves after rate_limits.checkpoint.
  virtual void on_pretrain_routine_end() noexcept = 0;

  // Queues an epoch's metrics; the last call for an epoch wins. They stay queued, and in the spool
  // if there is one, until the server has confirmed them. NaN and infinities are sent as null.
  // Protocol: HUB v1 POST /v1/models/{id}, at most once per rate_limits.metrics; Platform epoch_end.
  virtual void on_fit_epoch_end(int epoch, metrics_view values) noexcept = 0;

  // Takes a checkpoint for upload if one is due by rate_limits.checkpoint, else does nothing.
  // Blocks: with snapshot::copy or a spool, for the time of one file copy, and only if one is due.
  // Errors: a file that is missing, unreadable, empty or not regular is logged and not sent.
  // Protocol: HUB v1 POST /v1/models/{id}/upload with type=epoch; Platform models/upload, a PUT to the
  // storage host and checkpoint_saved; in the background.
  virtual void on_model_save(int epoch, const std::filesystem::path& file,
                             bool is_best) noexcept = 0;

  // Ends the training: sends what is queued and then the final model, with retry.final_retries_max
  // retries each, and stops the signs of life. `best` may be empty for none; `map` is
  // metrics/mAP50-95(B) or what stands for it. Afterwards the session sends nothing.
  // Blocks: up to limits.train_end_deadline, and where the server refuses all that time up to
  //   limits.denied_deadline. Returns what the server has confirmed; what it has not is in the log as
  //   well, with where it can be found again.
  // May be called again if it did not deliver everything, with the same file or another: what is
  //   missing is tried once more. On the Platform the end of the run waits for that, and is told without
  //   a model if `best` is empty, or when the session ends. Once the server has the final model, or
  //   the end of the run, the session is over: then nothing is sent, and a further file gets the error
  //   already_trained.
  // Protocol: HUB v1 .../upload with type=final; Platform the same upload, then training_complete.
  virtual delivery on_train_end(int epoch, const std::filesystem::path& best,
                                double map) noexcept = 0;

  // Whether the server wants the training to stop: somebody pressed Stop on its page. Ask at the end of
  // each epoch. Never true on HUB v1, whose servers have no such word.
  virtual bool stop_requested() const noexcept { return false; }
};

// =================================================================================================
// policies
//
// Rules: a concept names operations; what they promise stands in its comment. A policy that does
// not fit is named in one sentence by a static_assert in the class that wanted it.
// =================================================================================================

// Sends one HTTP request. A copy is a fresh connection with the same settings; each lane of a
// session sends on a copy of its own, one request at a time.
//   reply send(const request&)   blocks until the reply is whole, failed, or past its deadline;
//                                reports failures in the reply and follows no redirect. If the
//                                request has a sink, the body of a 2xx goes there: begin() with the
//                                head, then write() in order, both before send() returns. What the
//                                sink refuses ends the exchange, and its error is the failure
//   void cancel() noexcept       from any thread: the request in flight and every later one on this
//                                copy fail soon with errc::cancelled
template <class T>
concept has_send = requires(T transport, const request& message) {
  { transport.send(message) } -> std::same_as<reply>;
};
template <class T>
concept has_cancel = requires(T transport) {
  { transport.cancel() }
  noexcept;
};
template <class T>
concept http_transport = std::copy_constructible<T> && has_send<T> && has_cancel<T>;

// Says what time it is.
//   time_point now() const       never goes back; only differences are used
//   wall_now() const             the calendar's time, for the dates in Retry-After only
template <class C>
concept has_now = requires(const C clock) {
  { clock.now() } -> std::same_as<time_point>;
};
template <class C>
concept has_wall_now = requires(const C clock) {
  { clock.wall_now() } -> std::same_as<std::chrono::system_clock::time_point>;
};
template <class C>
concept monotonic_clock = std::copy_constructible<C> && has_now<C> && has_wall_now<C>;

// One thing that goes on by itself. run() does what is due and returns when to be called again;
// calls to one task never overlap.
struct background_task {
  std::string_view name;
  std::function<time_point()> run;
};

// Decides how background work waits.
//   start(std::vector<background_task>)    from now on calls each task when it is due
//   wake(std::size_t task) noexcept        from any thread: that task is due now
//   bool wait_until(time_point, done)      blocks the caller until done() or that time and returns
//                                          done(); asks done() again after every task's run
//   stop()                                 waits for running tasks; none runs afterwards
//   static constexpr bool concurrent       whether tasks run on threads of their own
template <class S>
concept has_start = requires(S sleeper, std::vector<background_task> tasks) {
  sleeper.start(std::move(tasks));
};
template <class S>
concept has_wake = requires(S sleeper, std::size_t task) {
  { sleeper.wake(task) }
  noexcept;
};
template <class S>
concept has_wait_until = requires(S sleeper, time_point when, const std::function<bool()>& done) {
  { sleeper.wait_until(when, done) } -> std::same_as<bool>;
};
template <class S>
concept has_stop = requires(S sleeper) {
  sleeper.stop();
};
template <class S>
concept has_concurrent = requires {
  { S::concurrent } -> std::convertible_to<bool>;
};
template <class S>
concept sleeper = std::move_constructible<S> && has_start<S> && has_wake<S> && has_wait_until<S> &&
    has_stop<S> && has_concurrent<S>;

// A model's folder in a spool: a few files, each named without a path. It belongs to whoever opened
// it until this object is gone. Files are for this user alone. append() is called by one thread at a
// time; beside it, other threads may call the rest.
//
// What was written is there for the next process as soon as the call returns; only what was synced
// or replaced is certain to be there after a power failure. An error means that the call may have
// been done in part, and that a later one may succeed again.
class spool_folder {
 public:
  struct entry {
    std::string name;
    std::uintmax_t bytes;
  };

  virtual ~spool_folder() = default;
  virtual std::vector<entry> list() const = 0;
  virtual result<std::string> read(std::string_view name) const = 0;
  // Adds to the end of a file, which is made if it is missing.
  virtual std::optional<error> append(std::string_view name, std::string_view bytes) = 0;
  // Returns when all of the file is safe from a power failure, its name and earlier removals too.
  virtual std::optional<error> sync(std::string_view name) = 0;
  // Puts `bytes` in the place of a file or of none: after any crash there is the old or the new one.
  virtual std::optional<error> replace(std::string_view name, std::string_view bytes) = 0;
  // Takes a file from elsewhere in, as `name`, and returns its size. `may_link`: nobody will write
  // to it, so that a second name for it will do.
  virtual result<std::uintmax_t> adopt(const std::filesystem::path& from, std::string_view name,
                                       bool may_link) = 0;
  virtual void remove(std::string_view name) = 0;
  virtual result<std::shared_ptr<body_source>> open(std::string_view name) const = 0;
};

// Where spools are kept: the disk, unless spool_options::storage says otherwise.
class spool_storage {
 public:
  virtual ~spool_storage() = default;
  // Makes the folder where it is missing. Fails with errc::spool_locked while another has it.
  virtual result<std::unique_ptr<spool_folder>> open(const std::filesystem::path& folder) = 0;
};

// Erases a transport's type, so that sessions over different transports are one type and httplib
// is compiled in one translation unit only.
class any_transport {
 public:
  template <class T>
  requires(!std::same_as<T, any_transport> && http_transport<T>) any_transport(T transport)
      : held_(std::make_unique<model<T>>(std::move(transport))) {}
  any_transport(const any_transport& other) : held_(other.held_->clone()) {}
  any_transport(any_transport&&) noexcept = default;
  any_transport& operator=(any_transport other) noexcept {
    held_ = std::move(other.held_);
    return *this;
  }
  ~any_transport() = default;

  reply send(const request& message) { return held_->send(message); }
  void cancel() noexcept { held_->cancel(); }

 private:
  struct erased {
    virtual ~erased() = default;
    virtual std::unique_ptr<erased> clone() const = 0;
    virtual reply send(const request& message) = 0;
    virtual void cancel() noexcept = 0;
  };
  template <class T>
  struct model final : erased {
    explicit model(T transport) : transport_(std::move(transport)) {}
    std::unique_ptr<erased> clone() const override {
      return std::make_unique<model>(T(transport_));
    }
    reply send(const request& message) override { return transport_.send(message); }
    void cancel() noexcept override { transport_.cancel(); }
    T transport_;
  };
  std::unique_ptr<erased> held_;
};

#endif  // HUB_SESSION_ADDS_INTERFACE

#if defined(HUB_SESSION_ADDS_SESSION)

// =================================================================================================
// engine
//
// Rules: no clock, no sleeping, no lock, no I/O, no callback, no wire. Time comes in as an argument,
// orders come out, outcomes go in; the same calls give the same answers on every machine. Not thread
// safe: the session holds its mutex around every call. What the engine wants said, it leaves as notes.
//
// Its four parts, in the order in which they build on each other: the orders and outcomes, which are
// the only words that it shares with a protocol; waits and budgets; the lanes, a class each with the
// same verbs; and the engine, which knows all lanes and what one of them waits for in another.
// =================================================================================================

// ---- orders and outcomes -----------------------------------------------------------------------

// An epoch on its way: its number and its metrics, shared with the queue.
using queued_epoch = std::pair<int, std::shared_ptr<const epoch_record>>;

// What stands beside the file in an upload.
struct upload_fields {
  int epoch = 0;
  bool is_final = false;
  bool is_best = false;  // of a checkpoint
  double map = 0;        // of the final model: metrics/mAP50-95(B) or what stands for it
};

// What a reply means for the request that it answers.
enum class verdict {
  delivered,  // the order is done
  advanced,   // one request of the order is done, and the next one may go
  retry,      // the fault passes by itself: try again, with backoff
  rejected,   // this content will never be accepted: do not send it again
  denied,     // the server refuses us or this address: try again, but seldom
  restart,    // what came so far is of no use any more: begin this order anew
};

// How far an order that takes several requests has come. Only the protocol reads it.
struct progress {
  unsigned step = 0;
  std::string memo = {};
};

struct outcome {
  hub::verdict verdict = hub::verdict::delivered;
  error why = {};                            // of every verdict but delivered and advanced
  std::optional<duration> retry_after = {};  // the server's own wish, not yet clamped
  progress so_far = {};                      // of advanced, and of a final model that is delivered
  bool cancelled = false;                    // the server wants the training to stop

  // Whether the server accepted what was sent, and who sent it.
  bool accepted() const { return verdict == verdict::delivered || verdict == verdict::advanced; }
  // Whether the server does not know who asks, or not any more.
  bool unauthorized() const { return verdict == verdict::denied && why.http_status == 401; }
};

// The request that was answered, once more and at once: nothing of it counts.
inline outcome once_more(const progress& so_far) {
  return {.verdict = verdict::advanced, .so_far = so_far};
}

// A lane is one thing that goes on by itself; a long upload on one holds up no other.
enum class lane : std::size_t { life, epochs, uploads, console };
inline constexpr std::array all_lanes = {lane::life, lane::epochs, lane::uploads, lane::console};
inline constexpr std::size_t lane_count = all_lanes.size();

constexpr std::string_view to_string(lane which) noexcept {
  constexpr std::array names = {"signs of life"sv, "epochs"sv, "uploads"sv, "console"sv};
  static_assert(names.size() == lane_count);
  return names[static_cast<std::size_t>(which)];
}

// What a lane is to the others. There is no default, so that the compiler asks what a new one is.
struct lane_role {
  bool carries_results = false;   // who waits for one of these has waited for the others
  bool outlasts_failure = false;  // the word that a training failed waits for it
};
constexpr lane_role role_of(lane which) noexcept {
  switch (which) {
    case lane::life: return {};
    case lane::epochs: return {.carries_results = true, .outlasts_failure = true};
    case lane::uploads: return {.carries_results = true};
    case lane::console: return {.outlasts_failure = true};
  }
  return {};
}

// A file to upload: `keep`, a snapshot of it that lives as long as it is wanted, if there is one.
struct checkpoint {
  upload_fields fields = {};
  std::filesystem::path file = {};
  std::shared_ptr<const upload_copy> keep = {};
  std::uint64_t number = 0;  // in the spool, which then has the file; 0 if it does not
  std::uint64_t bytes = 0;   // of the file, as far as that is known
};

// How a training ended.
struct run_ending {
  int epoch = 0;
  double map = 0;
  std::optional<std::string> failure = {};  // why it did not end well, if so
  std::string results = {};                 // what it came to, in the protocol's words
};

// Lines that were printed, in order; the first has a number in the spool, or 0, and the others follow.
struct printed_lines {
  std::uint64_t number = 0;
  std::vector<std::string> lines = {};
};

// What the spool need not keep any longer: it was delivered, refused for good or replaced. An epoch
// is named with the number of its values, and whatever is older goes as well.
struct struck_out {
  std::vector<std::pair<int, std::uint64_t>> epochs = {};
  std::vector<std::uint64_t> uploads = {};
  std::uint64_t chunk = 0;          // of lines, with ...
  std::uint64_t lines_through = 0;  // ... all lines up to this number
  std::string memo = {};            // of the final model in `uploads`, for the ending
  std::uint64_t ending = 0;

  bool empty() const noexcept {
    return epochs.empty() && uploads.empty() && chunk == 0 && ending == 0;
  }
};

// What a lane is to send next.
struct life_order {};
struct registration_order {};
struct epochs_order {
  std::vector<queued_epoch> batch;
};
struct completion_order {
  std::shared_ptr<const run_ending> how;
};
struct upload_order {
  checkpoint file;
};
struct console_order {
  std::uint64_t chunk = 0;  // 1, 2, ...
  std::shared_ptr<const std::vector<std::string>> lines = {};
  std::uint64_t through = 0;  // the number of the last of them in the spool
};
struct order {
  std::variant<life_order, registration_order, epochs_order, completion_order, upload_order,
               console_order>
      content;
  progress so_far = {};
};

// What the engine has to know of a protocol.
struct protocol_traits {
  std::string_view service = "hub_session";  // heads the lines of the default log
  bool registers = false;             // an order of its own makes the run, before its first epoch
  bool completes = false;             // an order of its own ends the run, after everything else
  bool takes_console = false;         // it has a place for the lines that a training prints
  bool shows_system = false;          // ... and for the machine's figures
  bool life_in_silence_only = false;  // signs of life only if nothing else was answered
  bool life_is_optional = false;      // one that is refused for good is the last, and harms nothing
  std::size_t epochs_per_request_max = std::numeric_limits<std::size_t>::max();
  unsigned requests_per_minute_max = 0;  // 0: the server names no limit
};

struct note {
  log_level level;
  std::string text;
};

// ---- waits and budgets -------------------------------------------------------------------------

// Exponential backoff with full jitter: the n-th wait is uniform in [0, first * 2^(n-1)], so that
// many clients that lost the same server do not return at the same moment.
class backoff {
 public:
  explicit backoff(const retry_options& options) : options_(options) {}

  unsigned failures() const noexcept { return failures_; }
  void reset() noexcept { failures_ = 0; }

  // Counts one more failure and says how long to wait.
  duration next(const outcome& why, std::mt19937_64& random) {
    ++failures_;
    const duration asked = std::clamp(why.retry_after.value_or(duration::zero()), duration::zero(),
                                      options_.retry_after_max);
    if (why.verdict == verdict::denied) return std::max(options_.denied_interval, asked);
    duration most = std::min(options_.first_delay, options_.delay_max);
    for (unsigned i = 1; i < failures_ && most < options_.delay_max; ++i)
      most = most > options_.delay_max / 2 ? options_.delay_max : most * 2;
    return asked + (options_.jitter ? uniform(most, random) : most);
  }

 private:
  // Our own mapping: the standard distributions differ between standard libraries.
  static duration uniform(duration most, std::mt19937_64& random) {
    const auto range = static_cast<std::uint64_t>(std::max<duration::rep>(most.count(), 0)) + 1;
    return duration(static_cast<duration::rep>(random() % range));
  }

  retry_options options_;
  unsigned failures_ = 0;
};

// At most `burst` retries at once and one more per `refill`, over all lanes of a session.
class retry_budget {
 public:
  retry_budget(unsigned burst, duration refill)
      : refill_(std::max(refill, duration::zero())),
        credit_(burst < 2                                 ? duration::zero()
                : refill_ > duration::max() / (burst - 1) ? duration::max()
                                                          : refill_ * (burst - 1)) {}

  // The first moment from `wanted` on at which a retry may be made; takes that retry.
  time_point take(time_point now, time_point wanted) {
    spent_until_ = std::max(spent_until_, now);
    const time_point allowed = spent_until_ - credit_;
    spent_until_ = later(spent_until_, refill_);
    return std::max(wanted, allowed);
  }

  // A retry that was taken will not be made.
  void give_back() { spent_until_ -= refill_; }

 private:
  duration refill_;
  duration credit_;
  time_point spent_until_ = {};
};

// What is asked while the caller waits for it, a start or a download, has no lane. The caller acts, and
// its plan says what comes next.
class start_plan {
 public:
  start_plan(const retry_options& options, time_point deadline)
      : options_(options), waits_(options), deadline_(deadline) {}

  enum class step { go_on, wait, give_up };
  step what_next(const outcome& came, time_point now, std::mt19937_64& random) {
    using enum verdict;
    if (came.verdict == delivered || came.verdict == advanced) return step::go_on;
    // Whoever knows another key, or a person who does, goes on with that.
    if (came.verdict == rejected && came.why.code == errc::not_authenticated) return step::go_on;
    // A page where the server should be will not go away by itself, and now somebody is there to help.
    const bool passes = came.verdict == retry && came.why.code != errc::bad_reply;
    if (!passes || waits_.failures() >= options_.start_retries_max) return step::give_up;
    again_at_ = later(now, waits_.next(came, random));
    return again_at_ < deadline_ ? step::wait : step::give_up;
  }
  time_point again_at() const { return again_at_; }

 private:
  retry_options options_;
  backoff waits_;
  time_point deadline_;
  time_point again_at_ = time_point::min();
};

class download_plan {
 public:
  // `knows_url`: whether the server named one already.
  download_plan(const retry_options& options, time_point deadline, bool knows_url)
      : options_(options), waits_(options), deadline_(deadline), wants_url_(!knows_url) {}

  // Whether the server is to be asked for a URL now, and the storage host for nothing.
  bool wants_url() const { return wants_url_; }

  // When to go on after this came of it, with so many bytes there before and now; nothing to give up. A
  // try that brought a byte more than any before it is none that failed.
  std::optional<time_point> again_at(const outcome& came, std::uint64_t bytes_before,
                                     std::uint64_t bytes, time_point now, std::mt19937_64& random) {
    using enum verdict;
    const bool asked_for_url = wants_url_;
    if (came.verdict == rejected || (asked_for_url && came.verdict == denied)) return std::nullopt;
    wants_url_ = asked_for_url ? came.verdict != delivered : came.verdict == denied;
    if (asked_for_url && !wants_url_) return now;
    most_bytes_ = std::max(most_bytes_, bytes_before);
    if (bytes > most_bytes_) waits_.reset();
    if (waits_.failures() >= options_.download_retries_max) return std::nullopt;
    outcome failure = came;
    failure.verdict = retry;  // somebody waits: not in the interval of a refusal
    const time_point again = later(now, waits_.next(failure, random));
    return again < deadline_ ? std::optional(again) : std::nullopt;
  }

 private:
  retry_options options_;
  backoff waits_;
  time_point deadline_;
  bool wants_url_;
  std::uint64_t most_bytes_ = 0;
};

// No more requests in any minute than the server allows. Lanes of a lower rank leave a part of them to
// the others: uploads a tenth, the console three, signs of life a half.
class minute_limit {
 public:
  explicit minute_limit(unsigned requests_max) : requests_max_(requests_max) {
    sent_.reserve(requests_max);  // so that counting a request needs no memory
  }

  // The first moment at which the lane may send.
  time_point free_at(lane which) const {
    if (requests_max_ == 0) return time_point::min();
    const std::size_t allowed = std::max<std::size_t>(requests_max_ - kept_from(which), 1);
    return sent_.size() < allowed ? time_point::min() : later(nth_last(allowed), 1min);
  }

  void count(time_point now) noexcept {
    if (requests_max_ == 0) return;
    HUB_SESSION_ASSERT(sent_.empty() || nth_last(1) <= now);  // time never goes back
    if (sent_.size() < requests_max_)
      sent_.push_back(now);
    else
      sent_[oldest_] = now;
    oldest_ = (oldest_ + 1) % requests_max_;
  }

 private:
  std::size_t kept_from(lane which) const {
    constexpr std::array<std::size_t, 4> tenths = {5, 0, 1, 3};
    static_assert(tenths.size() == lane_count);
    return requests_max_ * tenths[static_cast<std::size_t>(which)] / 10;
  }
  // When the n-th request before the next one left; there are at least n.
  time_point nth_last(std::size_t n) const {
    return sent_[(oldest_ + requests_max_ - n) % requests_max_];
  }

  std::size_t requests_max_;
  std::vector<time_point> sent_;  // a ring
  std::size_t oldest_ = 0;        // where the next one is written
};

// ---- lanes -------------------------------------------------------------------------------------

// What the lanes of an engine share.
struct lane_commons {
  rate_limit_options rates;
  retry_options retry;
  limit_options limits;
  protocol_traits traits;
  std::mt19937_64 random;
  retry_budget budget;
  minute_limit minute;
  std::array<class any_lane*, lane_count> lanes = {};
  std::vector<note> notes = {};
  struck_out struck = {};
  bool train_started = false;
  bool ended = false;    // the training: what is queued goes out, and nothing more is accepted
  bool stopped = false;  // the session: nothing is sent any more
  bool cancelled = false;
  bool too_late_said = false;
  time_point answered_at = time_point::min();  // when the server last took something
  std::optional<time_point> unanswered_since = {};
  error unanswered_why = {};

  void say(log_level level, std::string text) { notes.push_back({level, std::move(text)}); }
  void say_too_late(const std::string& subject) {
    if (!stopped || std::exchange(too_late_said, true)) return;
    say(log_level::warning,
        subject +
            " came after on_train_end, with which the session ended. It is not sent, "
            "unless the training is ended again. This is said once.");
  }
  class any_lane& at(lane which) const;  // the one place where a lane is told by its name
  bool done(lane which) const;
};

// What is the same in every lane: one request at a time, its retries, and what is said of them. A lane
// adds the verbs at the end, which are all that an engine asks of it.
class any_lane {
 public:
  any_lane(lane which, lane_commons& all) : all_(all), backoff_(all.retry), which_(which) {
    HUB_SESSION_ASSERT(!all.lanes[static_cast<std::size_t>(which)]);
    all.lanes[static_cast<std::size_t>(which)] = this;
  }
  any_lane(const any_lane&) = delete;
  any_lane& operator=(const any_lane&) = delete;

  bool in_flight() const noexcept { return in_flight_; }

  // The server has refused for so long that neither a flush nor the ending waits for this lane.
  bool refused() const noexcept { return refused_; }

  // What was refused while nobody waited does not shorten how long the ending may wait.
  void forget_refusals() noexcept { denied_since_ = never; }

  // When the lane's next request may go; never while one is on its way.
  time_point deadline() const {
    if (all_.stopped || in_flight_) return never;
    const time_point when = due();
    return when == never ? never : std::max(when, all_.minute.free_at(which_));
  }

  std::optional<order> poll(time_point now) {
    if (deadline() > now) return std::nullopt;
    // First: a lane whose order ran out of memory is not in flight.
    std::optional<order> out = next();
    in_flight_ = true;
    retry_reserved_ = false;
    started_ = now;
    all_.minute.count(now);
    HUB_SESSION_ASSERT(adds_up());
    leaves(now);
    return out;
  }

  void handle_outcome(const outcome& result, time_point now) {
    HUB_SESSION_ASSERT(in_flight_);  // one order at a time: nothing else can be answered
    HUB_SESSION_ASSERT(now >= started_);
    note_answer(result, now);
    if (result.cancelled && !std::exchange(all_.cancelled, true))
      all_.say(log_level::warning,
               "The run was cancelled on the server. The training is asked to stop: "
               "stop_requested() says so.");
    if (result.verdict == verdict::delivered) note_success();
    if (result.verdict == verdict::advanced) {
      so_far_ = result.so_far;
      if (!renewed_) {
        backoff_.reset();
        note_success();
      }
      retry_at_ = now;
    } else if (result.verdict == verdict::restart) {
      so_far_ = {};
      renewed_ = renews(result);
    }
    came(result, now);
    in_flight_ = false;  // only now: if memory ran out, the same outcome is handed in again
    HUB_SESSION_ASSERT(adds_up());
  }

  // The verbs of a lane.
  virtual bool done() const = 0;           // nothing is left that it could send
  virtual void flush(time_point now) = 0;  // what is queued now need not wait any longer
  virtual void report(session_status& out) const = 0;  // adds what this lane has to say
  virtual void report(delivery& out) const = 0;        // adds what this lane has to say

 protected:
  ~any_lane() = default;

  virtual time_point due() const = 0;                // of the next order, never for none
  virtual order next() = 0;                          // that order; nothing is lost if it throws
  virtual void leaves(time_point now) noexcept = 0;  // it is on its way
  virtual void came(const outcome& result, time_point now) = 0;  // and this came of it
  virtual bool adds_up() const { return true; }                  // what it counts, for assertions
  virtual bool is_awaited() const { return all_.ended; }         // somebody waits for what is next

  // After training has ended, a lane that failed too often in a row, or was refused for too long, is
  // given up.
  bool gave_up() const {
    return all_.ended && (refused_ || backoff_.failures() > all_.retry.final_retries_max);
  }

  time_point retry_time(const outcome& result, time_point now) {
    retry_reserved_ = true;
    if (result.verdict == verdict::denied) {
      denied_since_ = std::min(denied_since_, now);
      if (is_awaited() && !refused_)
        if (const auto soon = awaited_retry_time(result, now)) return *soon;
    }
    return all_.budget.take(now, later(now, backoff_.next(result, all_.random)));
  }

  // The retry that was reserved is not made: other lanes may make it.
  void drop_retry() {
    if (std::exchange(retry_reserved_, false)) all_.budget.give_back();
  }

  // What is next is tried at once, as if nothing had failed.
  void try_at_once(time_point now) {
    retry_at_ = now;
    backoff_.reset();
    renewed_ = false;
    refused_ = false;
    drop_retry();
  }

  // An order is over, whatever became of it.
  void begin_anew() {
    so_far_ = {};
    backoff_.reset();
    renewed_ = false;
  }

  lane_commons& all_;
  hub::backoff backoff_;
  progress so_far_ = {};                     // of the order that is next or in flight
  time_point started_ = time_point::min();   // of the request in flight
  time_point retry_at_ = time_point::min();  // the backoff: nothing before

 private:
  // The order begins anew, and not because its file changed: its first steps went well before, so that
  // they do so again is no end of the failures.
  static bool renews(const outcome& result) {
    return result.verdict == verdict::restart && result.why.code != errc::file_changed;
  }

  void note_success() {
    denied_since_ = never;
    refused_said_ = false;
  }

  // Since when the server has refused this lane, or one that carries what was reported: the final model
  // is not waited for anew if the epochs were refused all the time.
  time_point denied_since() const {
    time_point first = denied_since_;
    for (lane each : all_lanes)
      if (role_of(each).carries_results) first = std::min(first, all_.at(each).denied_since_);
    return first;
  }

  // While somebody waits, a refusal that may pass is asked about soon and not in its usual interval, up
  // to the deadline; nothing once that is over.
  std::optional<time_point> awaited_retry_time(outcome result, time_point now) {
    const time_point end = later(denied_since(), all_.limits.denied_deadline);
    const duration asked = result.retry_after.value_or(duration::zero());
    if (now < end && later(now, asked) <= end) {
      result.verdict = verdict::retry;
      const time_point wanted = later(now, backoff_.next(result, all_.random));
      const time_point soon = all_.budget.take(now, std::min(wanted, end));
      if (soon <= end) return soon;
      all_.budget.give_back();
    }
    refused_ = true;
    if (!std::exchange(refused_said_, true))
      all_.say(log_level::error,
               result.why.message + " It is not waited for any longer on the lane of " +
                   std::string(to_string(which_)) + "; limits.denied_deadline says how long.");
    return std::nullopt;
  }

  // Keeps what status() reports, and says each reason of a row of failures once, and its end.
  void note_answer(const outcome& result, time_point now) {
    using enum verdict;
    const std::string name(to_string(which_));
    if (result.verdict == advanced && renewed_) return;
    if (result.verdict == delivered || result.verdict == advanced) {
      all_.answered_at = now;
      all_.unanswered_since.reset();
      if (!complained_of_.empty())
        all_.say(log_level::info, "The server answers again on the lane of " + name + ".");
      complained_of_.clear();
    } else if (result.verdict == retry || result.verdict == denied || which_ == lane::life ||
               renews(result)) {
      if (result.why.code == errc::cancelled) return;
      if (result.verdict == rejected && all_.traits.life_is_optional) return;
      if (!all_.unanswered_since) all_.unanswered_since = now;
      all_.unanswered_why = result.why;
      if (complained_of_.count(result.why.code) > 0) return;
      all_.say(log_level::warning,
               result.why.message + " Nothing is lost; the lane of " + name + " tries again.");
      complained_of_.insert(result.why.code);
    }
  }

  lane which_;
  bool in_flight_ = false;
  bool renewed_ = false;               // the order began anew after a failure
  bool refused_ = false;               // see refused()
  bool refused_said_ = false;          // in the log
  time_point denied_since_ = never;    // the first refusal with no success after it
  bool retry_reserved_ = false;        // retry_at_ took a retry from the budget
  std::set<errc> complained_of_ = {};  // what the log says of the current row of failures
};

inline any_lane& lane_commons::at(lane which) const {
  any_lane* const found = lanes[static_cast<std::size_t>(which)];
  HUB_SESSION_ASSERT(found);  // each is a member of the engine
  return *found;
}

inline bool lane_commons::done(lane which) const { return stopped || at(which).done(); }

// The run itself, strictly in order: its registration, its epochs, its end.
class epochs_lane final : public any_lane {
 public:
  explicit epochs_lane(lane_commons& all)
      : any_lane(lane::epochs, all),
        state_(all.traits.registers ? unknown : made),
        batch_epochs_max_(full_batch()) {}

  // ---- what the trainer says ---------------------------------------------------------------------

  void start(time_point now) { gate_ = later(now, all_.rates.metrics); }

  // The run is known to the server, or will be made before its first epoch goes out.
  void sign_in(bool known) { state_ = all_.traits.registers && !known ? unmade : made; }
  bool registered() const { return state_ == made; }
  std::optional<error> registration_failure() const {
    return registered() ? std::nullopt : latest_error_;
  }

  // The last write for an epoch wins.
  void add(int epoch, std::shared_ptr<const epoch_record> values, std::uint64_t number) {
    if (all_.stopped) all_.say_too_late("Epoch " + std::to_string(epoch));
    if (values->not_finite() > 0) say_not_finite(epoch, values->not_finite());
    enqueue(epoch, std::move(values), number);
    while (queue_bytes_ > all_.limits.metrics_queue_bytes_max) drop_oldest();
  }

  void lose() noexcept {
    ++accepted_;
    ++set_aside_;
    set_aside_error_ = error{};
  }

  bool add_left(int epoch, std::shared_ptr<const epoch_record> values, std::uint64_t number) {
    const std::size_t bytes = values->size_bytes() + entry_bytes;
    if (queue_bytes_ + bytes > all_.limits.metrics_queue_bytes_max) return false;
    enqueue(epoch, std::move(values), number);
    ++restored_;
    return true;
  }

  // What ends the run once everything else has arrived. A failure does not wait for uploads, of which
  // none is begun any more. `number` is that of the ending in the spool, or 0.
  void complete(std::shared_ptr<const run_ending> how, std::uint64_t number, time_point now) {
    if (!all_.traits.completes || ending_delivered_) return strike_ending(number);
    strike_ending(ending_number_);
    fails_ = how->failure.has_value();  // also once that was told: nothing is begun after it
    ending_ = std::move(how);
    ending_number_ = number;
    ending_is_left_ = ending_is_held_ = ending_lacks_model_ = false;
    try_at_once(now);
  }
  // The final model is given up: its ending waits for another file. One that an earlier session left
  // does not, as nobody can name it a file any more.
  void lack_model() { ending_lacks_model_ = ending_ && !ending_is_left_; }
  // No other file comes, so that the ending goes out as it is; false if none waits for one.
  bool go_without_model(time_point now) {
    if (!std::exchange(ending_lacks_model_, false)) return false;
    try_at_once(now);
    return true;
  }
  // The end of a training that an earlier session could not tell. It waits until a flush says that no
  // training goes on.
  void take_left_ending(std::shared_ptr<const run_ending> how, std::uint64_t number,
                        std::string memo) {
    ending_ = std::move(how);
    ending_number_ = number;
    final_memo_ = std::move(memo);
    ending_is_left_ = ending_is_held_ = true;
  }
  void drop_left_ending() {
    if (!ending_is_left_ || !ending_) return;
    all_.say(log_level::info,
             "The end that an earlier session left is not sent: the training goes on.");
    strike_ending(ending_number_);
    ending_.reset();
    ending_is_left_ = ending_is_held_ = false;
    final_memo_.clear();
  }
  // What the final upload left to be said at the end.
  void take_memo(std::string memo) {
    final_memo_ = std::move(memo);
    all_.struck.memo = final_memo_;
  }
  bool ending_delivered() const { return ending_delivered_; }
  // Nothing else may arrive after it, and what was answered by nothing may have arrived.
  bool ends_now() const { return ending_delivered_ || ending_was_sent_; }
  // The end is on its way: until it is known what came of it, nothing else goes.
  bool is_ending() const { return in_flight() && flying_ == completion; }
  bool fails() const { return fails_; }

  // ---- the verbs ---------------------------------------------------------------------------------

  // Of the epochs alone: the final model goes once they have gone.
  bool epochs_done() const { return all_.stopped || queue_.empty() || gave_up(); }
  bool done() const override {
    return all_.stopped || gave_up() || refused() || (queue_.empty() && !ending_is_wanted());
  }
  // Nothing can be sent any more, as the run will not be made.
  bool never_registers() const { return !registered() && gave_up(); }

  void flush(time_point now) override {
    ending_is_held_ = false;
    if (queue_.empty()) return;
    flush_revision_ = revision_;
    try_at_once(now);
  }

  void report(session_status& out) const override {
    out.epochs_accepted = accepted_;
    out.epochs_delivered = delivered_;
    out.epochs_queued = queue_.size();
    out.epochs_set_aside = set_aside_;
    out.epochs_restored = restored_;
    out.registered = registered();
  }
  void report(delivery& out) const override {
    out.epochs_delivered = delivered_;
    out.epochs_queued = queue_.size();
    out.epochs_set_aside = set_aside_;
    out.ending_wanted = ending_ || ending_delivered_;
    out.ending_delivered = ending_delivered_;
    if (set_aside_ > 0) out.why = set_aside_error_;
    if (!queue_.empty() || ending_) out.why = latest_error_.value_or(out.why.value_or(out_of_time));
  }

  static inline const error out_of_time{errc::timed_out, "The time was over before all was sent."};

 private:
  struct entry {
    std::shared_ptr<const epoch_record> values = {};
    std::uint64_t revision = 0;
    std::uint64_t number = 0;  // in the spool
  };
  enum run_state { unknown, unmade, made };
  enum subject { registration, epochs, completion };
  static constexpr std::size_t entry_bytes = 128;  // what an entry costs beside its values

  subject next_subject() const {
    return state_ != made ? registration : queue_.empty() ? completion : epochs;
  }

  time_point due() const override {
    if (state_ == unknown || gave_up()) return never;
    switch (next_subject()) {
      case registration: return retry_at_;
      case epochs: return is_awaited() ? retry_at_ : std::max(gate_, retry_at_);
      case completion: return ending_is_wanted() && ending_may_go() ? retry_at_ : never;
    }
    return never;
  }

  bool ending_is_wanted() const { return ending_ && !ending_is_held_ && !ending_lacks_model_; }

  // It is the last word: no other lane has anything left, and no sign of life is on its way.
  bool ending_may_go() const {
    return std::all_of(all_lanes.begin(), all_lanes.end(), [this](lane each) {
      if (each == lane::epochs) return true;  // which has none left, or this would not be asked
      return each == lane::life ? !all_.at(each).in_flight() : all_.done(each);
    });
  }

  order next() override {
    switch (next_subject()) {
      case registration: return {registration_order{}, so_far_};
      case epochs: return {epochs_order{next_batch()}, so_far_};
      case completion: break;
    }
    HUB_SESSION_ASSERT(ending_ && ending_may_go());
    return {completion_order{ending_}, {so_far_.step, final_memo_}};
  }

  void leaves(time_point now) noexcept override {
    flying_ = next_subject();
    if (flying_ == epochs) gate_ = later(now, all_.rates.metrics);
    if (flying_ == completion) ending_was_sent_ = true;
  }

  void came(const outcome& result, time_point now) override {
    switch (flying_) {
      case registration: return registration_came(result, now);
      case epochs: return batch_came(result, now);
      case completion: return completion_came(result, now);
    }
  }

  // Every epoch that was accepted waits, was delivered or was set aside.
  bool adds_up() const override {
    return accepted_ == queue_.size() + delivered_ + set_aside_ &&
           queue_.empty() == (queue_bytes_ == 0);
  }

  // ---- registration and completion ---------------------------------------------------------------

  // Nothing can be sent before the run is made, so it is tried for as long as the session lives.
  void registration_came(const outcome& result, time_point now) {
    if (result.verdict == verdict::advanced) return;
    if (result.verdict == verdict::delivered) {
      state_ = made;
      begin_anew();
      retry_at_ = now;
      return;
    }
    latest_error_ = result.why;
    outcome again = result;
    if (result.verdict == verdict::rejected) {
      all_.say(log_level::error, result.why.message + " The run is not made; it is tried again.");
      again.verdict = verdict::denied;
    }
    retry_at_ = retry_time(again, now);
  }

  void completion_came(const outcome& result, time_point now) {
    if (result.verdict == verdict::advanced) return;
    if (result.verdict == verdict::delivered) {
      ending_.reset();
      ending_delivered_ = true;
      strike_ending(ending_number_);
      begin_anew();
      all_.stopped = true;  // nothing may follow it, whoever hears of it and when
    } else {
      latest_error_ = result.why;
      retry_at_ = retry_time(result, now);
    }
  }

  void strike_ending(std::uint64_t number) {
    if (number != 0) all_.struck.ending = number;
  }

  // ---- epochs ------------------------------------------------------------------------------------

  bool flushes() const {
    return !queue_.empty() && queue_.begin()->second.revision <= flush_revision_;
  }
  bool is_awaited() const override { return all_.ended || flushes(); }

  void enqueue(int epoch, std::shared_ptr<const epoch_record> values, std::uint64_t number) {
    const auto [at, is_new] = queue_.try_emplace(epoch);
    if (is_new) {
      ++accepted_;
      queue_bytes_ += entry_bytes;
    } else {
      queue_bytes_ -= at->second.values->size_bytes();
    }
    queue_bytes_ += values->size_bytes();
    at->second = {std::move(values), ++revision_, number};
  }

  // The first epochs of the queue, up to both bounds; always at least one.
  std::vector<queued_epoch> next_batch() {
    std::vector<queued_epoch> batch;
    batch_.clear();
    std::size_t bytes = 0;
    for (const auto& [epoch, waiting] : queue_) {
      bytes += waiting.values->json_bytes();
      if (!batch.empty() &&
          (batch.size() >= batch_epochs_max_ || bytes > all_.limits.metrics_batch_bytes_max))
        break;
      batch.emplace_back(epoch, waiting.values);
      batch_.emplace_back(epoch, waiting.revision);
    }
    return batch;
  }

  void batch_came(const outcome& result, time_point now) {
    using enum verdict;
    HUB_SESSION_ASSERT(!batch_.empty());
    switch (result.verdict) {
      case delivered:
        erase_batch(delivered_);
        // Past the batch that was refused whole, batches may be large again.
        if (batch_.back().first >= suspect_until_) batch_epochs_max_ = full_batch();
        begin_anew();
        retry_at_ = now;
        return;
      case advanced: return;
      case rejected: return batch_refused(result.why, now);
      case retry:
      case denied:
      case restart: latest_error_ = result.why; retry_at_ = retry_time(result, now);
    }
  }

  // Halves the batch until the epoch that the server will not take is alone, and sets that one aside.
  void batch_refused(const error& why, time_point now) {
    latest_error_ = why;
    begin_anew();
    retry_at_ = now;
    if (batch_.size() > 1) {
      if (batch_epochs_max_ == full_batch()) suspect_until_ = batch_.back().first;
      batch_epochs_max_ = batch_.size() / 2;
      return;
    }
    batch_epochs_max_ = full_batch();
    const std::size_t before = set_aside_;
    erase_batch(set_aside_);
    if (set_aside_ == before) return;  // newer values wait, which the server may take
    set_aside_error_ = why;
    all_.say(log_level::error, "The metrics of epoch " + std::to_string(batch_.front().first) +
                                   " are set aside, the others go on: " + why.message);
  }

  std::size_t full_batch() const {
    return std::max<std::size_t>(
        std::min(all_.limits.metrics_batch_epochs_max, all_.traits.epochs_per_request_max), 1);
  }

  // Strikes out the epochs of the last batch, but not one whose value was replaced meanwhile. Counts
  // each as it goes: memory may run out at any of them.
  void erase_batch(std::size_t& count) {
    for (const auto& [epoch, revision] : batch_) {
      const auto at = queue_.find(epoch);
      if (at == queue_.end() || at->second.revision != revision) continue;
      if (at->second.number != 0) all_.struck.epochs.emplace_back(epoch, at->second.number);
      erase_entry(at);
      ++count;
    }
  }

  void erase_entry(std::map<int, entry>::iterator at) {
    HUB_SESSION_ASSERT(queue_bytes_ >= at->second.values->size_bytes() + entry_bytes);
    queue_bytes_ -= at->second.values->size_bytes() + entry_bytes;
    queue_.erase(at);
  }

  void say_not_finite(int epoch, std::size_t count) {
    if (std::exchange(not_finite_said_, true)) return;
    all_.say(log_level::warning,
             std::to_string(count) + " metric(s) of epoch " + std::to_string(epoch) +
                 " are NaN or infinite; the server gets null for them. This is said once.");
  }

  // What is in the spool stays there, for the next session.
  void drop_oldest() {
    if (!std::exchange(queue_full_said_, true))
      all_.say(log_level::error,
               "The server has not taken metrics for so long that the queue is full; from epoch " +
                   std::to_string(queue_.begin()->first) + " on the oldest are set aside" +
                   (queue_.begin()->second.number != 0 ? ", and sent by the next session" : "") +
                   ". Raise limits.metrics_queue_bytes_max to keep more.");
    set_aside_error_ = error{
        errc::queue_full, "More metrics were waiting than limits.metrics_queue_bytes_max allows."};
    erase_entry(queue_.begin());
    ++set_aside_;
  }

  run_state state_;
  subject flying_ = epochs;
  time_point gate_ = time_point::min();  // the rate limit: no epoch before
  std::map<int, entry> queue_;           // every epoch that the server has not confirmed
  std::size_t queue_bytes_ = 0;
  std::uint64_t revision_ = 0;
  std::uint64_t flush_revision_ = 0;                  // the newest that a flush is for
  std::vector<std::pair<int, std::uint64_t>> batch_;  // last sent: epochs and their revisions
  std::size_t batch_epochs_max_;
  int suspect_until_ = std::numeric_limits<int>::min();
  bool not_finite_said_ = false;
  bool queue_full_said_ = false;
  std::size_t accepted_ = 0;  // counted by itself: what is lost for want of memory is accepted, too
  std::size_t delivered_ = 0;
  std::size_t set_aside_ = 0;
  std::size_t restored_ = 0;
  std::shared_ptr<const run_ending> ending_;  // until the server has it
  std::uint64_t ending_number_ = 0;           // in the spool
  bool ending_was_sent_ = false;              //
  bool ending_is_left_ = false;               // by an earlier session ...
  bool ending_is_held_ = false;               // ... and not flushed yet
  bool ending_lacks_model_ = false;           // and waits for another file
  bool ending_delivered_ = false;
  bool fails_ = false;
  std::string final_memo_;
  std::optional<error> latest_error_;     // of what may still be delivered
  std::optional<error> set_aside_error_;  // of what never will
};

// Signs of life, from the sign-in to the end: at the interval, or if nothing else was answered for
// so long.
class life_lane final : public any_lane {
 public:
  life_lane(lane_commons& all, const epochs_lane& epochs)
      : any_lane(lane::life, all), epochs_(epochs) {}

  void begin(time_point now) {
    next_at_ = all_.traits.life_in_silence_only ? later(now, all_.rates.heartbeat) : now;
    runs_ = true;
  }
  void end() { runs_ = false; }

  bool done() const override { return true; }
  void flush(time_point) override {}
  void report(session_status& out) const override {
    out.heartbeats_answered = answered_;
    out.last_heartbeat = last_answered_;
    if (runs_ && !all_.stopped) out.next_heartbeat = in_flight() ? started_ : due();
  }
  void report(delivery&) const override {}

 private:
  time_point due() const override {
    if (!runs_ || !epochs_.registered() || epochs_.ends_now()) return never;
    if (!all_.traits.life_in_silence_only) return next_at_;
    return std::max(next_at_, later(all_.answered_at, all_.rates.heartbeat));
  }
  bool is_awaited() const override { return false; }
  order next() override { return {life_order{}}; }
  void leaves(time_point) noexcept override {}

  void came(const outcome& result, time_point now) override {
    const time_point regular = std::max(now, later(started_, all_.rates.heartbeat));
    if (result.verdict == verdict::delivered) {
      note_late(now);
      last_answered_ = now;
      ++answered_;
      begin_anew();
      next_at_ = regular;
    } else if (result.verdict == verdict::rejected && all_.traits.life_is_optional) {
      all_.say(log_level::info,
               "The server takes no signs of life beside the epochs, so none is "
               "sent any more. " +
                   result.why.message);
      runs_ = false;
    } else {
      const time_point retry = retry_time(result, now);
      if (retry >= regular) drop_retry();
      next_at_ = std::min(retry, regular);
    }
  }

  // For whoever wonders why the server showed the run as gone.
  void note_late(time_point now) {
    if (all_.traits.life_in_silence_only || !last_answered_) return;
    const duration gap = now - *last_answered_;
    if (gap < all_.rates.heartbeat * 2) return;
    const auto seconds = [](duration time) {
      return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()) + " s";
    };
    all_.say(log_level::info, "A sign of life was late: it was answered " + seconds(gap) +
                                  " after the one before, " + seconds(now - started_) +
                                  " of which its own request took. The server may have shown the "
                                  "run as gone meanwhile.");
  }

  const epochs_lane& epochs_;
  bool runs_ = false;
  time_point next_at_ = time_point::min();
  std::size_t answered_ = 0;
  std::optional<time_point> last_answered_ = {};
};

// Checkpoints and the final model: one at a time, each newer one in the place of one that waits.
class uploads_lane final : public any_lane {
 public:
  uploads_lane(lane_commons& all, epochs_lane& epochs)
      : any_lane(lane::uploads, all), epochs_(epochs) {}

  // ---- what the trainer says ---------------------------------------------------------------------

  void start(time_point now) {
    if (!all_.ended) drop_left_final();
    wanted_at_ = later(now, all_.rates.checkpoint);
  }

  bool wants(time_point now) const { return !all_.ended && now >= wanted_at_; }

  void add(checkpoint file, time_point now) {
    all_.say_too_late("A checkpoint");
    if (all_.ended) return strike(file.number);
    wanted_at_ = later(now, all_.rates.checkpoint);
    replace(std::move(file), now);
  }

  void fail(const error& why) {
    all_.say(log_level::error, why.message);
    lose();
    error_ = why;
  }
  void lose() noexcept {
    ++failed_;
    missing_ = true;
    error_ = error{};
  }

  // An earlier training's final model may be delivered: that is not this one's.
  void end() {
    if (std::exchange(final_delivered_, false)) final_wanted_ = false;
  }

  void replace(checkpoint file, time_point now) {
    strike_replaced();
    final_wanted_ = final_wanted_ || file.fields.is_final;
    waiting_ = std::move(file);
    ++serial_;
    attempts_ = 0;
    restarts_ = 0;
    flushes_ = false;  // that was for what it replaces
    if (!in_flight()) so_far_ = {};
    try_at_once(now);
  }

  // Whether the spool has an upload for the next session, which must not come after the ending.
  bool waits_in_spool() const { return waiting_ && waiting_->number != 0; }

  // Whether an upload that train end replaced is still on the wire.
  bool replaced_in_flight() const { return in_flight() && flight_.serial != serial_; }

  // ---- the verbs ---------------------------------------------------------------------------------

  bool done() const override {
    return !in_flight() &&
           (!waiting_ || gave_up() || refused() || epochs_.never_registers() || epochs_.fails());
  }

  void flush(time_point now) override {
    if (!waiting_) return;
    flushes_ = true;
    try_at_once(now);
  }

  void report(session_status& out) const override {
    out.checkpoints_delivered = delivered_;
    out.checkpoints_failed = failed_;
    out.checkpoint_waiting = waiting_.has_value();
  }
  void report(delivery& out) const override {
    out.checkpoints_delivered = delivered_;
    out.final_model_wanted = final_wanted_;
    out.final_model_delivered = final_delivered_;
    out.checkpoint_missing = !final_wanted_ && (waiting_ || missing_);
    const bool failed = final_wanted_ ? !final_delivered_ : missing_;
    if (waiting_ || failed) out.why = error_.value_or(out.why.value_or(epochs_lane::out_of_time));
  }

 private:
  // The upload that is on the wire; another may have taken its place meanwhile.
  struct flight {
    std::uint64_t serial = 0;
    std::uint64_t number = 0;
    bool is_final = false;
  };

  time_point due() const override {
    if (!waiting_ || gave_up() || !epochs_.registered() || epochs_.fails() || epochs_.is_ending())
      return never;
    if (waiting_->fields.is_final && !epochs_.epochs_done()) return never;  // that one goes last
    const bool at_once = is_awaited() || attempts_ > 0 || so_far_.step > 0;
    return at_once ? retry_at_ : std::max(gate_, retry_at_);
  }
  bool is_awaited() const override { return all_.ended || flushes_; }
  order next() override { return {upload_order{*waiting_}, so_far_}; }

  void leaves(time_point now) noexcept override {
    if (so_far_.step == 0 && attempts_++ == 0) gate_ = later(now, all_.rates.checkpoint);
    flight_ = {serial_, waiting_->number, waiting_->fields.is_final};
  }

  // What is on the wire is the newest upload or one that it replaced.
  bool adds_up() const override { return flight_.serial <= serial_; }

  void came(const outcome& result, time_point now) override {
    using enum verdict;
    const bool current = waiting_ && flight_.serial == serial_;
    if (!current) {
      strike(flight_.number);
      so_far_ = {};
    }
    if (result.verdict == delivered) return arrived(current, result);
    if (!current || result.verdict == advanced) return;  // its successor goes on as if nothing was
    error_ = result.why;
    const bool changed = result.verdict == restart && result.why.code == errc::file_changed;
    if (changed && ++restarts_ <= all_.limits.upload_restarts_max) {
      retry_at_ = now;
    } else if (result.verdict == rejected || changed) {
      // The next one saved is taken; if nothing was sent, it need not wait either.
      if (!all_.ended) wanted_at_ = now;
      if (result.why.code == errc::file_error) gate_ = now;
      give_up(result.why);
      finish();
    } else {
      retry_at_ = retry_time(result, now);
      if (gave_up()) give_up(result.why);
    }
  }

  void give_up(const error& why) {
    fail(why);
    if (flight_.is_final) epochs_.lack_model();
  }

  void arrived(bool current, const outcome& result) {
    if (flight_.is_final && current) epochs_.take_memo(result.so_far.memo);
    if (current) finish();
    // Counted last: if memory runs out above, the same outcome comes again.
    if (flight_.is_final)
      final_delivered_ = final_delivered_ || current;
    else
      ++delivered_;
    missing_ = false;
  }

  void finish() {
    HUB_SESSION_ASSERT(waiting_);
    strike(waiting_->number);
    waiting_.reset();
    begin_anew();
    flushes_ = false;
  }

  void strike(std::uint64_t number) {
    if (number != 0) all_.struck.uploads.push_back(number);
  }

  // One that is on the wire is struck out when its answer is there.
  void strike_replaced() {
    if (waiting_ && !(in_flight() && flight_.serial == serial_)) strike(waiting_->number);
  }

  // The final model of a training that is not this one: the server would take this one for ended.
  void drop_left_final() {
    if (waiting_ && waiting_->fields.is_final) {
      all_.say(log_level::info,
               "The final model that an earlier session left is not sent: a new training begins.");
      strike_replaced();
      waiting_.reset();
      ++serial_;
    }
    final_wanted_ = final_delivered_ = false;
  }

  epochs_lane& epochs_;
  time_point wanted_at_ = time_point::min();  // from when on a checkpoint is taken
  time_point gate_ = time_point::min();       // the rate limit: no first attempt before
  std::optional<checkpoint> waiting_;         // being sent, or next to be sent
  std::uint64_t serial_ = 0;
  flight flight_ = {};
  unsigned attempts_ = 0;
  unsigned restarts_ = 0;
  bool flushes_ = false;
  std::size_t delivered_ = 0;
  std::size_t failed_ = 0;
  bool missing_ = false;  // the latest one failed
  bool final_wanted_ = false;
  bool final_delivered_ = false;
  std::optional<error> error_;
};

// What the training prints, in numbered chunks. A chunk that was sent once stays what it is, so that
// its number never means two things.
class console_lane final : public any_lane {
 public:
  console_lane(lane_commons& all, const epochs_lane& epochs)
      : any_lane(lane::console, all), epochs_(epochs) {}

  void add(printed_lines printed, time_point now) {
    if (!all_.traits.takes_console || all_.ended) return;
    enqueue(std::move(printed), now);
    while (bytes_ > all_.limits.console_queue_bytes_max && !lines_.empty()) drop_oldest();
  }

  // What an earlier session left: the chunk that it may have sent, with its number, or that of the next
  // one; and the lines behind it.
  void take_left(std::uint64_t chunk, std::uint64_t through,
                 std::shared_ptr<const std::vector<std::string>> sent) {
    number_ = chunk;
    through_ = through;
    chunk_ = std::move(sent);
  }

  bool done() const override {
    return !is_waiting() || gave_up() || refused() || epochs_.never_registers();
  }
  void flush(time_point now) override {
    if (!is_waiting()) return;
    flushes_ = true;
    try_at_once(now);
  }
  void report(session_status& out) const override {
    out.console_lines_delivered = delivered_;
    out.console_lines_queued = lines_.size() + (chunk_ ? chunk_->size() : 0);
    out.console_lines_dropped = dropped_;
  }
  void report(delivery&) const override {}

 private:
  static constexpr std::size_t line_bytes = 64;  // what a line costs beside its text
  static constexpr std::uint64_t step_at_once_max = 1 << 20;

  time_point due() const override {
    if (!epochs_.registered() || !is_waiting() || gave_up() || epochs_.is_ending()) return never;
    if (chunk_ || is_awaited()) return retry_at_;
    const bool enough = lines_.size() + (left_out_ > 0 ? 1 : 0) >= all_.rates.console_lines;
    return std::max(retry_at_, enough ? gate_ : later(waits_since_, all_.rates.console));
  }

  bool is_waiting() const { return chunk_ || !lines_.empty(); }
  bool is_awaited() const override { return all_.ended || flushes_; }

  order next() override {
    if (!chunk_) {
      auto lines = std::make_shared<std::vector<std::string>>();
      move_first_lines(*lines);
      chunk_ = std::move(lines);
    }
    return {console_order{number_, chunk_, through_}, so_far_};
  }
  void leaves(time_point now) noexcept override { gate_ = later(now, all_.rates.console_gap); }

  void came(const outcome& result, time_point now) override {
    if (result.verdict == verdict::advanced) return;
    if (result.verdict != verdict::delivered && result.verdict != verdict::rejected) {
      // The number is taken, by a chunk of which a spool that lost its power knows nothing. There may be
      // many, so each step is twice as wide as the last, and the first ones wait for nothing.
      const bool is_taken = result.verdict == verdict::restart;
      if (is_taken) number_ += std::exchange(step_, 2 * step_);
      retry_at_ = is_taken && step_ <= step_at_once_max ? now : retry_time(result, now);
      return;
    }
    HUB_SESSION_ASSERT(chunk_ && !chunk_->empty());
    (result.verdict == verdict::delivered ? delivered_ : dropped_) += chunk_->size();
    chunk_.reset();
    all_.struck.chunk = number_++;
    step_ = 1;
    all_.struck.lines_through = through_;
    begin_anew();
    retry_at_ = now;
    waits_since_ = now;
    if (lines_.empty()) flushes_ = false;
  }

  bool adds_up() const override { return lines_.empty() == (bytes_ == 0); }

  struct waiting_line {
    std::string text;
    std::uint64_t number;  // in the spool
  };

  void enqueue(printed_lines printed, time_point now) {
    if (lines_.empty() && !printed.lines.empty()) waits_since_ = now;
    for (std::string& line : printed.lines) {
      bytes_ += line.size() + line_bytes;
      lines_.push_back({std::move(line), printed.number});
      if (printed.number != 0) ++printed.number;
    }
  }

  // Moves the lines of the next chunk out of the queue; what did not fit is said in their place. Memory
  // may run out before the first has moved, and not after.
  void move_first_lines(std::vector<std::string>& out) {
    out.reserve(std::min(lines_.size(), all_.limits.console_chunk_lines_max) + 1);
    if (left_out_ > 0) {
      out.push_back("[" + std::to_string(left_out_) + " lines were left out here]");
      left_out_ = 0;
    }
    while (!lines_.empty() && out.size() < all_.limits.console_chunk_lines_max) {
      out.push_back(std::move(lines_.front().text));
      pop(out.back().size());
    }
  }

  void drop_oldest() {
    pop(lines_.front().text.size());
    ++left_out_;
    ++dropped_;
  }

  void pop(std::size_t bytes) {
    bytes_ -= bytes + line_bytes;
    through_ = std::max(through_, lines_.front().number);
    lines_.pop_front();
  }

  const epochs_lane& epochs_;
  std::deque<waiting_line> lines_;
  std::size_t bytes_ = 0;
  std::size_t left_out_ = 0;  // between the last chunk and the first line that waits
  time_point waits_since_ = time_point::min();
  time_point gate_ = time_point::min();
  std::uint64_t number_ = 1;
  std::uint64_t step_ = 1;     // to the number after one that is taken
  std::uint64_t through_ = 0;  // the last number in the spool that left the queue
  std::shared_ptr<const std::vector<std::string>> chunk_;  // being sent
  bool flushes_ = false;
  std::size_t delivered_ = 0;
  std::size_t dropped_ = 0;
};

// ---- the engine --------------------------------------------------------------------------------

// Decides what goes out, when, and how often it is tried. Four kinds of functions:
//   handle_*        what the trainer did, in the order in which it did it
//   deadline, poll  when a lane wants to send next; the order that it sends now. An order's outcome
//                   must be handed in before that lane is polled again
//   handle_outcome  what came of an order
//   the rest        questions, which change nothing; take_* hand over what has gathered
// Each call is told the time, which never goes back from one call to the next. After each of them the
// deadlines may have changed, there may be notes to log, and there may be something struck out that
// the spool need not keep.
class engine {
 public:
  engine(const rate_limit_options& rates, const retry_options& retry, const limit_options& limits,
         std::uint64_t seed, const protocol_traits& traits = {})
      : all_{.rates = rates,
             .retry = retry,
             .limits = limits,
             .traits = traits,
             .random = std::mt19937_64(seed),
             .budget = {retry.budget, retry.budget_refill},
             .minute = minute_limit(
                 limits.requests_per_minute_max.value_or(traits.requests_per_minute_max))} {}

  // ---- what the trainer says -------------------------------------------------------------------

  // The session is signed in: signs of life begin. `known`: the server has the run already.
  void handle_signed_in(time_point now, bool known = true) {
    life_.begin(now);
    epochs_.sign_in(known);
  }

  // Training starts: from now on the rate limits of metrics and checkpoints run.
  void handle_train_start(time_point now) {
    if (std::exchange(all_.train_started, true)) return;
    epochs_.drop_left_ending();
    uploads_.start(now);
    epochs_.start(now);
  }

  // One epoch's metrics. The last write for an epoch wins. `number` is that of these values in the
  // spool, or 0.
  void handle_epoch(int epoch, std::shared_ptr<const epoch_record> values, time_point now,
                    std::uint64_t number = 0) {
    handle_train_start(now);
    epochs_.add(epoch, std::move(values), number);
  }

  // An epoch's metrics that could not be kept. Allocates nothing.
  void handle_lost_epoch() noexcept { epochs_.lose(); }

  // What an earlier session left in the spool, which is sent without waiting for a training. False
  // if the queue is full, and the epoch stays where it is.
  bool handle_left_epoch(int epoch, std::shared_ptr<const epoch_record> values,
                         std::uint64_t number) {
    return epochs_.add_left(epoch, std::move(values), number);
  }
  void handle_left_upload(checkpoint file, time_point now) {
    uploads_.replace(std::move(file), now);
  }
  // The next chunk of lines has this number; `sent` are its lines, if it may have been sent already.
  void handle_left_chunk(std::uint64_t chunk, std::uint64_t through,
                         std::shared_ptr<const std::vector<std::string>> sent) {
    console_.take_left(chunk, through, std::move(sent));
  }
  // `memo` is what the final upload left to be said with it.
  void handle_left_ending(std::shared_ptr<const run_ending> how, std::uint64_t number,
                          std::string memo) {
    epochs_.take_left_ending(std::move(how), number, std::move(memo));
  }

  // Whether a checkpoint saved now would be taken; if not, it need not be read or copied.
  bool wants_checkpoint(time_point now) {
    handle_train_start(now);
    all_.say_too_late("A checkpoint");
    return uploads_.wants(now);
  }

  // A checkpoint to send; replaces one that still waits.
  void handle_checkpoint(checkpoint file, time_point now) { uploads_.add(std::move(file), now); }

  // A checkpoint that could not be read or copied. The next one saved is tried again.
  void handle_checkpoint_failure(const error& why) { uploads_.fail(why); }

  // The same if memory ran out. Allocates nothing.
  void handle_lost_checkpoint() noexcept { uploads_.lose(); }

  // Lines that the training printed.
  void handle_console(printed_lines printed, time_point now) {
    console_.add(std::move(printed), now);
  }

  // Training is over: what is queued goes out without waiting, then `final_model`, if any, then the
  // ending, and nothing more. An ending that failed may be repeated: if the final model is given up,
  // the ending waits for another one. `number` is that of the ending in the spool, or 0.
  void handle_train_end(std::optional<checkpoint> final_model, time_point now,
                        std::shared_ptr<const run_ending> how = {}, std::uint64_t number = 0) {
    if (!std::exchange(all_.ended, true)) uploads_.end();
    for (lane which : all_lanes) at(which).forget_refusals();
    all_.stopped = false;
    if (final_model) uploads_.replace(std::move(*final_model), now);
    if (how) epochs_.complete(std::move(how), number, now);
    for (lane which : all_lanes) handle_flush(which, now);
  }

  // What the lane has queued is tried now; its rate limit rests until that is done with, and not for
  // what has come since.
  void handle_flush(lane which, time_point now) { at(which).flush(now); }

  // The session is about to end: an ending that waits for another file goes out without one, unless the
  // next session can still bring both. False if there is none.
  bool handle_last_word(time_point now) {
    if (uploads_.waits_in_spool() || !epochs_.go_without_model(now)) return false;
    all_.stopped = false;
    console_.flush(now);  // what was printed comes before it
    return true;
  }

  void handle_stop_heartbeat() { life_.end(); }

  // Nothing is sent any more.
  void handle_stop() { all_.stopped = true; }

  // ---- what to send, and when ------------------------------------------------------------------

  time_point deadline(lane which) const { return at(which).deadline(); }

  // The lane's next order if one is due.
  std::optional<order> poll(lane which, time_point now) { return at(which).poll(now); }

  // ---- what came of it -------------------------------------------------------------------------

  void handle_outcome(lane which, const outcome& result, time_point now) {
    at(which).handle_outcome(result, now);
  }

  // ---- questions -------------------------------------------------------------------------------

  bool in_flight(lane which) const { return at(which).in_flight(); }
  bool registered() const { return epochs_.registered(); }
  bool ending_delivered() const { return epochs_.ending_delivered(); }
  // Why the run is not made yet, once that was tried.
  std::optional<error> registration_failure() const { return epochs_.registration_failure(); }
  bool stop_requested() const { return all_.cancelled; }
  bool replaced_upload_in_flight() const { return uploads_.replaced_in_flight(); }
  bool epochs_done() const { return epochs_.epochs_done() || epochs_.refused(); }
  // Whether everything that was accepted has arrived or was given up.
  bool done() const {
    return std::all_of(all_lanes.begin(), all_lanes.end(),
                       [&](lane which) { return all_.done(which); });
  }

  std::vector<note> take_notes() { return std::exchange(all_.notes, {}); }
  struck_out take_struck() { return std::exchange(all_.struck, {}); }

  session_status status() const {
    session_status out;
    for (lane which : all_lanes) at(which).report(out);
    out.unanswered_since = all_.unanswered_since;
    if (all_.unanswered_since) out.unanswered_why = all_.unanswered_why;
    out.stop_requested = all_.cancelled;
    return out;
  }

  // What was delivered so far. `why` is the latest reason for whatever is missing.
  hub::delivery delivery() const {
    hub::delivery out;
    for (lane which : all_lanes) at(which).report(out);
    if (out.why && out.why->message.empty())
      out.why->message = "Memory ran out while it was reported; free some and report it again.";
    return out;
  }

 private:
  any_lane& at(lane which) const { return all_.at(which); }

  lane_commons all_;
  epochs_lane epochs_{all_};
  life_lane life_{all_, epochs_};
  uploads_lane uploads_{all_, epochs_};
  console_lane console_{all_, epochs_};
};

// =================================================================================================
// text
//
// Rules: text, numbers, JSON, addresses and dates, which most rooms below use. Pure functions that know
// no server and no file; none throws on bad input, and what they quote of foreign text can be shown.
// =================================================================================================

namespace text {

using nlohmann::json;

// ---- text --------------------------------------------------------------------------------------

inline constexpr std::size_t json_depth_max = 64;
inline constexpr std::size_t json_value_bytes = 128;           // what a value takes beside its text
inline constexpr std::size_t reply_memory_max = 8 * mebibyte;  // of a reply once it is read
inline constexpr std::size_t reply_token_bytes_max = 256 * kibibyte;
inline constexpr std::size_t quoted_bytes_max = 200;  // of foreign text in one of our messages

constexpr bool is_alphanumeric(char c) noexcept {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}
constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_visible(char c) noexcept { return c >= 0x21 && c <= 0x7E; }
constexpr bool is_control(char c) noexcept {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
}
constexpr char to_lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

constexpr bool is_blank(char c) noexcept {
  return " \t\r\n\f\v"sv.find(c) != std::string_view::npos;
}

template <class Predicate>
constexpr bool all_of(std::string_view text, Predicate test) {
  return std::all_of(text.begin(), text.end(), test);
}

inline std::string lowered(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), to_lower);
  return out;
}

// Without the blanks at both ends: a line's end or a byte order mark of the file that it came from, or
// what was marked too much when it was copied.
inline std::string_view trimmed(std::string_view text) {
  constexpr std::array<std::string_view, 10> blanks = {
      " ", "\t", "\r", "\n", "\v", "\f", "\0"sv, "\xC2\xA0", "\xE2\x80\x8B", "\xEF\xBB\xBF"};
  for (bool found = true; found;) {
    found = false;
    for (std::string_view blank : blanks) {
      if (text.starts_with(blank)) text.remove_prefix(blank.size()), found = true;
      if (text.ends_with(blank)) text.remove_suffix(blank.size()), found = true;
    }
  }
  return text;
}

// How many bytes the character of UTF-8 at the beginning of a text has; 0 if it is none.
constexpr std::size_t utf8_length(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = text.empty() ? 0x80 : byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xC2 && first <= 0xDF   ? 2
                             : first >= 0xE0 && first <= 0xEF ? 3
                             : first >= 0xF0 && first <= 0xF4 ? 4
                                                              : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  const bool is_overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
  const bool is_none = (first == 0xED && byte(1) > 0x9F) || (first == 0xF4 && byte(1) > 0x8F);
  return is_overlong || is_none ? 0 : length;
}

// The program's own words, such as the name of a file, as they may be shown: whole, in whatever script,
// without what controls a terminal or turns the direction of writing.
inline std::string shown(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const std::string_view character = text.substr(0, std::max<std::size_t>(length, 1));
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
    const bool turns = length == 3 && byte(0) == 0xE2 &&
                       ((byte(1) == 0x80 && byte(2) >= 0xA8 && byte(2) <= 0xAE) ||
                        (byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9));
    const bool controls = turns || (length == 1 && is_control(character[0])) ||
                          (length == 2 && byte(0) == 0xC2 && byte(1) < 0xA0);
    if (length == 0 || controls)
      out += '?';
    else
      out += character;
    text.remove_prefix(character.size());
  }
  return out;
}

// Foreign text made safe for a terminal and a log: printable ASCII, bounded.
inline std::string printable(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, quoted_bytes_max)) out += is_visible(c) || c == ' ' ? c : '?';
  if (text.size() > quoted_bytes_max) out += "...";
  return out;
}

// `text` without any of `secrets` and without the query of any URL in it.
inline std::string redact(std::string text, std::span<const std::string> secrets) {
  // The longest first: one secret may begin like another.
  std::vector<std::string_view> ordered(secrets.begin(), secrets.end());
  std::sort(ordered.begin(), ordered.end(), [](auto a, auto b) { return a.size() > b.size(); });
  for (std::string_view secret : ordered) {
    if (secret.empty()) continue;
    for (std::size_t at = 0; (at = text.find(secret, at)) != std::string::npos; at += 3)
      text.replace(at, secret.size(), "***");
  }
  for (std::size_t at = 0; (at = text.find("://", at)) != std::string::npos; at += 3) {
    const std::size_t end = std::min(text.find_first_of(" \t\r\n\"<>", at), text.size());
    const std::size_t query = text.find('?', at);
    if (query < end) text.replace(query, end - query, "?***");
  }
  return text;
}

// FNV-1a, so that a content is the same number everywhere.
inline std::uint64_t content_hash(std::string_view content,
                                  std::uint64_t seed = 14695981039346656037u) {
  for (char c : content) seed = (seed ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return seed;
}

// The shortest decimal that reads back as exactly `value`, or "null" if JSON has no number.
inline void append_number(std::string& out, double value) {
  if (!is_finite(value)) {
    out += "null";
    return;
  }
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
  if (bits_of(value) == bits_of(-0.0)) out += ".0";  // "-0" alone reads back as the integer 0
}

// The same as Python writes it into a form, which knows no null.
inline std::string form_number(double value) {
  if (is_nan(value)) return "nan";
  if (!is_finite(value)) return is_negative(value) ? "-inf" : "inf";
  std::string out;
  append_number(out, value);
  return out;
}

// Reads what form_number writes for a number that JSON does not have.
inline std::optional<double> parse_not_finite(std::string_view text) {
  using limits = std::numeric_limits<double>;
  if (text == "nan") return limits::quiet_NaN();
  if (text == "inf") return limits::infinity();
  if (text == "-inf") return -limits::infinity();
  return std::nullopt;
}

// `text` as a JSON string; bytes that are no UTF-8 become U+FFFD.
inline void append_json_string(std::string& out, std::string_view text) {
  const auto plain = [](char c) { return c >= 0x20 && c <= 0x7E; };
  if (!all_of(text, plain)) {
    out += json(text).dump(-1, ' ', false, json::error_handler_t::replace);
    return;
  }
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  out += '"';
}

// The number that the whole text is.
template <class Number>
std::optional<Number> whole_number(std::string_view text) {
  Number number{};
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size()) return std::nullopt;
  return number;
}

// ---- JSON --------------------------------------------------------------------------------------

// The text of a JSON object, written member by member.
class object_writer {
 public:
  object_writer& raw(std::string_view name, std::string_view json_text) {
    begin(name);
    out_ += json_text;
    return *this;
  }
  object_writer& string(std::string_view name, std::string_view value) {
    begin(name);
    append_json_string(out_, value);
    return *this;
  }
  object_writer& number(std::string_view name, double value) {
    begin(name);
    append_number(out_, value);
    return *this;
  }
  template <std::integral Integer>
  object_writer& integer(std::string_view name, Integer value) {
    return raw(name, std::to_string(value));
  }

  // Those of another object.
  object_writer& members_of(const object_writer& other) {
    if (other.empty()) return *this;
    if (!empty()) out_ += ", ";
    out_ += std::string_view(other.out_).substr(1);
    return *this;
  }

  bool empty() const noexcept { return out_.size() == 1; }
  std::string text() const { return out_ + '}'; }

 private:
  void begin(std::string_view name) {
    if (!empty()) out_ += ", ";
    append_json_string(out_, name);
    out_ += ": ";
  }

  std::string out_ = "{";
};

struct json_bounds {
  std::size_t memory_max = std::numeric_limits<std::size_t>::max();
  std::size_t token_bytes_max = std::numeric_limits<std::size_t>::max();
};
inline constexpr json_bounds reply_bounds = {reply_memory_max, reply_token_bytes_max};

// Why a text is not read as JSON, whatever it says.
enum class json_bound { none, nul_byte, depth, memory, token_bytes };

// Finds NUL bytes, which end nlohmann's text early, nesting that would overflow the stack when the
// value is copied, and what would take too much room, which may be many times that of its text.
inline json_bound bound_met(std::string_view text, const json_bounds& bounds) {
  std::size_t depth = 0;
  std::size_t memory = text.size();
  bool in_string = false;
  std::size_t begin = 0;  // of the string, number or gap
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\0') return json_bound::nul_byte;
    if (i - begin > bounds.token_bytes_max) return json_bound::token_bytes;
    if (in_string) {
      if (c == '\\') ++i;
      if (c != '"') continue;
      in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > json_depth_max) return json_bound::depth;
    } else if (c == '}' || c == ']') {
      if (depth > 0) --depth;
    } else if (c == ',') {
      if ((memory += json_value_bytes) > bounds.memory_max) return json_bound::memory;
    } else if (c != ':') {
      continue;
    }
    begin = i;
  }
  return json_bound::none;
}

// `text` with null in the place of NaN, Infinity and -Infinity: Python's json writes them for numbers
// that are not finite, and they are no JSON.
inline std::string standard_json(std::string_view text) {
  constexpr std::array<std::string_view, 3> words = {"NaN", "Infinity", "-Infinity"};
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (std::size_t at = 0; at < text.size();) {
    const auto* const word = std::find_if(words.begin(), words.end(), [&](std::string_view each) {
      return !in_string && text.substr(at).starts_with(each);
    });
    if (word != words.end()) {
      out += "null";
      at += word->size();
      continue;
    }
    if (text[at] == '"') in_string = !in_string;
    // With what it escapes, which may be a quote.
    const std::size_t taken = in_string && text[at] == '\\' && at + 1 < text.size() ? 2 : 1;
    out += text.substr(at, taken);
    at += taken;
  }
  return out;
}

// Parses without exceptions.
inline std::optional<json> parse_json(std::string_view text, const json_bounds& bounds = {}) {
  if (bound_met(text, bounds) != json_bound::none) return std::nullopt;
  json value = json::parse(text.begin(), text.end(), nullptr, false);
  if (value.is_discarded()) return std::nullopt;
  return value;
}

// Empties a value from its leaves on: nlohmann's destructor allocates if there is something in a
// value, and ends the program if it cannot.
inline void clear_from_leaves(json& value) noexcept {
  if (!value.is_structured()) return;
  for (json& each : value) clear_from_leaves(each);
  value.clear();
}

// A stretch of a text.
struct extent {
  std::size_t begin;
  std::size_t length;
};

// Behind the JSON value that begins at `at` in a text that is known to parse.
inline std::size_t json_value_end(std::string_view text, std::size_t at) {
  std::size_t depth = 0;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '"') {
      for (++at; at < text.size() && text[at] != '"'; ++at)
        if (text[at] == '\\') ++at;
      if (depth == 0) return std::min(at + 1, text.size());
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return at;  // of what holds a bare value
      if (--depth == 0) return at + 1;
    } else if (depth == 0 &&
               (c == ',' || c == ':' || " \t\r\n"sv.find(c) != std::string_view::npos)) {
      return at;
    }
  }
  return at;
}

// Where the value of a member stands in the object that `text` is known to be; of the last one,
// which is the one that counts, if there are several.
inline std::optional<extent> find_json_member(std::string_view text, std::string_view wanted) {
  constexpr std::string_view blank = " \t\r\n";
  std::optional<extent> found;
  std::size_t at = text.find('{') + 1;
  for (;;) {
    at = text.find_first_not_of(" \t\r\n,", at);
    if (at == std::string_view::npos || text[at] != '"') return found;
    const std::size_t name_end = json_value_end(text, at);
    const std::optional<json> name = parse_json(text.substr(at, name_end - at));
    const std::size_t colon = text.find_first_not_of(blank, name_end);
    const std::size_t value = text.find_first_not_of(blank, std::min(colon + 1, text.size()));
    if (value == std::string_view::npos) return found;
    at = json_value_end(text, value);
    if (name && name->get_ref<const std::string&>() == wanted) found = extent{value, at - value};
  }
}

// What a text begins with behind blanks and a byte order mark; NUL if there is nothing.
inline char first_of(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  return first == std::string_view::npos ? '\0' : text[first];
}

// Whether a reply is a JSON object. This and the two below take no room but the text's, however
// many values it holds, and leave nothing behind that has to be freed with memory at hand.
inline bool is_object(std::string_view text) {
  return first_of(text) == '{' && bound_met(text, reply_bounds) == json_bound::none &&
         json::accept(text.begin(), text.end());
}

// A member as it is written; "" if it is missing or null, or if `text` is no object but still
// JSON.
inline std::string_view member_text(std::string_view text, std::string_view name) {
  const auto found = first_of(text) == '{' ? find_json_member(text, name) : std::nullopt;
  if (!found) return {};
  const std::string_view value = text.substr(found->begin, found->length);
  return value == "null" ? std::string_view() : value;
}

// The same if the member is a string, else "".
inline std::string member_string(std::string_view text, std::string_view name) {
  const std::string_view value = member_text(text, name);
  const std::optional<json> read = value.starts_with('"') ? parse_json(value) : std::nullopt;
  return read ? read->get<std::string>() : std::string();
}

// Typed getters. None throws; a member of another type counts as missing.
inline const json* get_member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

inline std::string get_string(const json& object, const char* key) {
  const json* member = get_member(object, key);
  return member && member->is_string() ? member->get<std::string>() : std::string();
}

inline std::optional<double> get_number(const json& object, const char* key) {
  const json* member = get_member(object, key);
  if (!member || !member->is_number()) return std::nullopt;
  const auto number = member->get<double>();
  return is_finite(number) ? std::optional(number) : std::nullopt;
}

inline std::optional<int> as_int(const json* value) {
  constexpr double low = std::numeric_limits<int>::min();
  constexpr double high = std::numeric_limits<int>::max();
  if (!value || !value->is_number()) return std::nullopt;
  const auto number = value->get<double>();
  if (!is_finite(number) || number < low || number > high || number != std::trunc(number))
    return std::nullopt;
  return static_cast<int>(number);
}

inline std::optional<int> get_int(const json& object, const char* key) {
  return as_int(get_member(object, key));
}

inline std::uint64_t get_unsigned(const json& object, const char* key) {
  const json* member = get_member(object, key);
  return member && member->is_number_unsigned() ? member->get<std::uint64_t>() : 0;
}

inline bool get_flag(const json& object, const char* key) {
  const json* member = get_member(object, key);
  return member && member->is_boolean() && member->get<bool>();
}

// ---- addresses ---------------------------------------------------------------------------------

inline std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    const char* const digits = text.data() + i + 1;
    const bool escape = text[i] == '%' && i + 2 < text.size() &&
                        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2;
    out += escape ? static_cast<char>(byte) : text[i];
    if (escape) i += 2;
  }
  return out;
}

inline std::string base64(std::string_view bytes) {
  constexpr std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::string_view group = bytes.substr(i, 3);
    std::uint32_t bits = 0;
    for (std::size_t at = 0; at < 3; ++at)
      bits = bits << 8 | (at < group.size() ? static_cast<unsigned char>(group[at]) : 0u);
    for (std::size_t at = 0; at < 4; ++at)
      out += at <= group.size() ? alphabet[bits >> (18 - 6 * at) & 63] : '=';
  }
  return out;
}

// The value of a header that carries "user:password".
inline std::string basic_authorization(std::string_view login) { return "Basic " + base64(login); }

struct url {
  bool tls = true;
  std::string host = {};  // without the brackets of an IPv6 address
  int port = 443;
  std::string path = {};  // "" or "/..." without a trailing slash

  // What stands between "//" and the path. The port is left out if the scheme says it.
  std::string authority() const { return port == (tls ? 443 : 80) ? bracketed_host() : place(); }
  std::string place() const { return bracketed_host() + ':' + std::to_string(port); }
  std::string origin() const { return (tls ? "https://" : "http://") + authority(); }
  std::string text() const { return origin() + path; }

 private:
  std::string bracketed_host() const {
    return host.find(':') == std::string::npos ? host : '[' + host + ']';
  }
};

inline error bad_url(std::string_view why) {
  return {errc::invalid_endpoint, "This address cannot be used: " + std::string(why) +
                                      ". Give it as http(s)://host[:port][/path]."};
}

inline std::optional<int> parse_port(std::string_view text) {
  const auto port = whole_number<int>(text);
  return port && *port >= 1 && *port <= 65535 ? port : std::nullopt;
}

inline bool is_host(std::string_view host, bool bracketed) {
  if (host.empty() || host.size() > 253) return false;
  if (!bracketed)
    return all_of(host,
                  [](char c) { return is_alphanumeric(c) || c == '.' || c == '-' || c == '_'; });
  const auto of_address = [](char c) {
    return "0123456789abcdefABCDEF:."sv.find(c) != std::string_view::npos;
  };
  return host.find(':') != std::string_view::npos && all_of(host, of_address);
}

// Reads http(s)://host[:port] and takes what stands behind it as it is. Stricter than httplib, which
// takes what it cannot read for a plain-HTTP host name. What is wrong with it, "" if nothing is.
inline std::string_view read_origin(std::string_view text, url& out) {
  const std::size_t scheme_end = text.find("://");
  const std::string scheme = lowered(text.substr(0, scheme_end));
  if (scheme_end == std::string_view::npos || (scheme != "http" && scheme != "https"))
    return "it does not begin with http:// or https://";
  out.tls = scheme == "https";
  out.port = out.tls ? 443 : 80;
  text.remove_prefix(scheme.size() + 3);

  const std::size_t slash = std::min(text.find('/'), text.size());
  std::string_view authority = text.substr(0, slash);
  std::string_view path = text.substr(slash);
  if (authority.find('@') != std::string_view::npos) return "it holds a user name or password";

  const bool bracketed = authority.starts_with('[');
  const std::size_t host_end =
      bracketed ? authority.find(']') : std::min(authority.find(':'), authority.size());
  if (host_end == std::string_view::npos) return "the bracket of its IPv6 address is not closed";
  const std::string_view host = authority.substr(bracketed ? 1 : 0, host_end - (bracketed ? 1 : 0));
  if (!all_of(host, is_visible))
    return "its host name has a blank or a letter beyond ASCII; the latter are written as xn--";
  if (!is_host(host, bracketed)) return "its host name is missing or not valid";
  std::string_view rest = authority.substr(host_end + (bracketed ? 1 : 0));
  if (!rest.empty()) {
    const auto port = rest.starts_with(':') ? parse_port(rest.substr(1)) : std::nullopt;
    if (!port) return "its port is not a number from 1 to 65535";
    out.port = *port;
  }
  out.host = host;
  out.path = path;
  return {};
}

inline result<url> parse_origin(std::string_view text) {
  url out;
  const std::string_view fault = read_origin(text, out);
  if (!fault.empty()) return bad_url(fault);
  return out;
}

// Reads a HUB address: http(s)://host[:port][/path].
inline result<url> parse_url(std::string_view text) {
  auto out = parse_origin(text);
  if (!out) return out;
  if (!all_of(out->path, [](char c) {
        return is_visible(c) && c != '?' && c != '#' && c != '\\' && c != '%';
      }))
    return bad_url("its path holds a query, a fragment, a space or an escape");
  while (out->path.ends_with('/')) out->path.pop_back();
  return out;
}

// Reads the address of a request, which may end in a query; it is sent as it is, escapes and all.
inline std::string_view read_target(std::string_view text, url& out) {
  const std::string_view fault = read_origin(text, out);
  if (!fault.empty()) return fault;
  const auto fits = [](char c) { return is_visible(c) && c != '#' && c != '\\'; };
  return all_of(out.path, fits) ? "" : "its path holds a fragment or a space";
}

inline result<url> parse_target(std::string_view text) {
  url out;
  const std::string_view fault = read_target(text, out);
  if (!fault.empty()) return bad_url(fault);
  return out;
}

// A URL as clients ask for it: without its fragment, and with what no URL may hold in escapes. Those
// that are there stay as they are. Host and port stay too, as no escape helps them.
inline std::string escaped_url(std::string_view url) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  url = trimmed(url);
  url = url.substr(0, url.find('#'));
  const std::size_t host = std::min(url.find("://"), url.size());
  const std::size_t path = std::min(url.find_first_of("/?", host + 3), url.size());
  std::string out(url.substr(0, path));
  if (path < url.size() && url[path] == '?') out += '/';
  for (char c : url.substr(path)) {
    const auto byte = static_cast<unsigned char>(c);
    if (is_visible(c) && "\"<>\\^`{|}"sv.find(c) == std::string_view::npos)
      out += c;
    else
      ((out += '%') += digits[byte >> 4]) += digits[byte & 15];
  }
  return out;
}

// A path without its "." and ".." (RFC 3986, section 5.2.4).
inline std::string without_dots(std::string_view path) {
  std::vector<std::string_view> kept;
  bool ends_in_slash = false;
  for (std::size_t at = 1; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view segment = path.substr(at, end - at);
    ends_in_slash = segment.empty() || segment == "." || segment == "..";
    if (segment == ".." && !kept.empty()) kept.pop_back();
    if (!ends_in_slash || (segment.empty() && end < path.size())) kept.push_back(segment);
    at = end + 1;
  }
  std::string out;
  for (std::string_view each : kept) out += '/' + std::string(each);
  return ends_in_slash || out.empty() ? out + '/' : out;
}

// The URL that a reference in a reply to `base` means (RFC 3986, section 5.2).
inline std::string resolved_url(const url& base, std::string_view reference) {
  const std::string_view before_colon = reference.substr(0, reference.find_first_of(":/?#"));
  if (before_colon.size() < reference.size() && reference[before_colon.size()] == ':')
    return std::string(reference);
  if (reference.empty() || reference.starts_with('#')) return base.text() + std::string(reference);
  const std::string scheme = base.tls ? "https:" : "http:";
  if (reference.starts_with("//")) return scheme + std::string(reference);
  const std::string path = base.path.empty() ? "/" : base.path.substr(0, base.path.find('?'));
  if (reference.starts_with('?')) return base.origin() + path + std::string(reference);
  const std::size_t end = std::min(reference.find_first_of("?#"), reference.size());
  const std::string folder = reference.starts_with('/') ? "" : path.substr(0, path.rfind('/') + 1);
  return base.origin() + without_dots(folder + std::string(reference.substr(0, end))) +
         std::string(reference.substr(end));
}

// An IPv6 address in whatever form as one: its groups in full. Other text stays as it is.
inline std::string full_ipv6(std::string_view text) {
  std::vector<unsigned> groups;
  std::optional<std::size_t> gap;  // where "::" stands
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(':', at), text.size());
    unsigned group = 0;
    const auto read = std::from_chars(text.data() + at, text.data() + end, group, 16);
    const bool whole = read.ec == std::errc() && read.ptr == text.data() + end && group <= 0xFFFF;
    const bool edge = end == at && (at == 0 || end == text.size());
    if (whole)
      groups.push_back(group);
    else if (end != at)
      return std::string(text);
    else if (!edge || text == "::")
      gap = groups.size();
    at = end + 1;
  }
  if (groups.size() > 8 || (groups.size() < 8 && !gap)) return std::string(text);
  if (gap) groups.insert(groups.begin() + static_cast<std::ptrdiff_t>(*gap), 8 - groups.size(), 0);
  std::string out;
  for (unsigned group : groups) out += (out.empty() ? "" : ":") + std::to_string(group);
  return out;
}

// Whether two addresses name one server: letter case, a dot at the end of a name, a port that is the
// scheme's own and the forms of an IPv6 address make no difference.
inline bool is_same_server(const url& a, const url& b) {
  const auto name = [](const url& of) {
    std::string host = lowered(of.host);
    if (host.ends_with('.')) host.pop_back();
    return host.find(':') == std::string::npos ? host : full_ipv6(host);
  };
  return a.tls == b.tls && a.port == b.port && name(a) == name(b);
}

// The value of a name in the query of a URL, "" if there is none.
inline std::string query_value(std::string_view url, std::string_view name) {
  url = url.substr(0, url.find('#'));
  std::string_view query = url.substr(std::min(url.find('?'), url.size()));
  while (!query.empty()) {
    query.remove_prefix(1);
    const std::string_view field = query.substr(0, query.find('&'));
    const std::size_t equals = field.find('=');
    if (equals != std::string_view::npos && field.substr(0, equals) == name)
      return percent_decoded(field.substr(equals + 1));
    query.remove_prefix(field.size());
  }
  return {};
}

// What of a URL may be shown and kept: all but the query, which may hold a signature.
inline std::string without_query(std::string_view url) {
  return std::string(url.substr(0, url.find('?')));
}

// `value` with every URL in it cut off at its query, which is short-lived and a secret if the URL
// is signed.
inline json without_queries(json value) {
  if (value.is_string()) {
    auto& text = value.get_ref<std::string&>();
    if (text.find("://") != std::string::npos) text.resize(std::min(text.find('?'), text.size()));
  } else if (value.is_structured()) {
    for (json& each : value) each = without_queries(std::move(each));
  }
  return value;
}

// Whether what should be JSON is a page of HTML.
inline bool is_page(std::string_view body) { return first_of(body) == '<'; }

// ---- dates and sizes ---------------------------------------------------------------------------

inline constexpr std::string_view month_names = "JanFebMarAprMayJunJulAugSepOctNovDec";

// Days since 1970-01-01 of a date in the Gregorian calendar.
inline std::optional<std::chrono::sys_days> calendar_day(int year, std::string_view month,
                                                         int day) {
  const std::size_t at = month.size() == 3 ? month_names.find(month) : std::string_view::npos;
  if (at == std::string_view::npos || at % 3 != 0) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(at / 3 + 1)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return std::nullopt;
  return std::chrono::sys_days(date);
}

// Reads Retry-After: seconds, or a date such as "Wed, 21 Oct 2026 07:28:00 GMT". A date in the past
// is zero; anything else is nothing. The header comes percent-decoded, so it is never shown.
inline std::optional<duration> parse_retry_after(std::string_view text,
                                                 std::chrono::system_clock::time_point wall_now) {
  constexpr std::chrono::seconds most = 24h;  // beyond this, only that it is long matters
  if (!text.empty() && all_of(text, is_digit)) {
    std::int64_t seconds = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), seconds);
    return read.ec == std::errc() ? std::min(std::chrono::seconds(seconds), most) : most;
  }
  constexpr std::string_view shape = "aaa, 00 aaa 0000 00:00:00 GMT";
  if (text.size() != shape.size()) return std::nullopt;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const bool fits = shape[i] == '0'   ? is_digit(text[i])
                      : shape[i] == 'a' ? is_alphanumeric(text[i])
                                        : shape[i] == text[i];
    if (!fits) return std::nullopt;
  }
  const auto field = [&](std::size_t at, std::size_t length) {
    int value = 0;
    std::from_chars(text.data() + at, text.data() + at + length, value);
    return value;
  };
  const auto day = calendar_day(field(12, 4), text.substr(8, 3), field(5, 2));
  if (!day || field(17, 2) > 23 || field(20, 2) > 59 || field(23, 2) > 60) return std::nullopt;
  // In whole seconds: nanoseconds end in the year 2262.
  const std::chrono::sys_seconds when = *day + std::chrono::hours(field(17, 2)) +
                                        std::chrono::minutes(field(20, 2)) +
                                        std::chrono::seconds(field(23, 2));
  const auto wait = when - std::chrono::floor<std::chrono::seconds>(wall_now);
  return std::clamp<std::chrono::seconds>(wait, 0s, most);
}

inline std::optional<std::uint64_t> parse_size(std::string_view text) {
  return whole_number<std::uint64_t>(text);
}

// ---- lines of a terminal ------------------------------------------------------------------------

struct console_rules {
  std::size_t line_bytes_max = 4 * kibibyte;  // a longer line goes on in the next one
  duration progress_interval = 1s;            // between two states of a line that is drawn anew
  duration repeat_window = 100ms;             // a line that repeats the last one is dropped within
};

// Turns what a program writes to its terminal, in pieces cut anywhere, into the lines that
// a page shows.
class console_lines {
 public:
  explicit console_lines(const console_rules& rules = {}) : rules_(rules) {}

  // Takes the next piece and returns the lines that it finishes. `wall` is the local time, which
  // stands in front of them.
  std::vector<std::string> add(std::string_view piece, time_point now,
                               std::chrono::local_seconds wall) {
    begin(now, wall);
    for (const char c : piece) {
      if (c == '\n')
        end_line();
      else if (c == '\r')
        returned_ = true;
      else
        add(c);
    }
    stood_ = !line_.empty();
    return std::move(lines_);
  }

  // Ends the line that is not finished.
  std::vector<std::string> finish(time_point now, std::chrono::local_seconds wall) {
    begin(now, wall);
    end_line();
    return std::move(lines_);
  }

 private:
  void begin(time_point now, std::chrono::local_seconds wall) {
    now_ = now;
    wall_ = wall;
    lines_.clear();
  }

  void add(char c) {
    if (returned_) draw_anew();
    line_ += c;
    if (line_.size() >= std::max<std::size_t>(rules_.line_bytes_max, 8)) break_line();
  }

  // A state that was never seen, as it was drawn over within one piece, is none.
  void draw_anew() {
    if (stood_ && (!progress_at_ || now_ - *progress_at_ >= rules_.progress_interval)) {
      put(line_);
      progress_at_ = now_;
    }
    start_line();
  }

  void end_line() {
    put(line_);
    start_line();
  }

  void start_line() {
    line_.clear();
    returned_ = stood_ = broken_ = false;
  }

  // Never within a character.
  void break_line() {
    std::size_t end = line_.size();
    while (end > line_.size() - 3 && (static_cast<unsigned char>(line_[end - 1]) & 0xC0) == 0x80)
      --end;
    if (static_cast<unsigned char>(line_[end - 1]) >= 0xC0) --end;
    std::string rest = line_.substr(end);
    line_.resize(end);
    broken_ = true;
    put(std::exchange(line_, std::move(rest)));
  }

  void put(std::string line) {
    constexpr std::string_view clear_to_end = "\x1b[K";
    for (std::size_t at = 0; (at = line.find(clear_to_end, at)) != std::string::npos;
         at -= std::min(at, clear_to_end.size() - 1))
      line.erase(at, clear_to_end.size());
    if (all_of(line, is_blank)) return;
    if (!broken_ && line == last_ && now_ - last_at_ < rules_.repeat_window) return;
    last_ = line;
    last_at_ = now_;
    lines_.push_back(line.starts_with("[20") ? line : stamp() + line);
  }

  std::string stamp() const {
    const auto day = std::chrono::floor<std::chrono::days>(wall_);
    const std::chrono::year_month_day date(day);
    const std::chrono::hh_mm_ss time(wall_ - day);
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "[%04d-%02u-%02u %02d:%02d:%02d] ",
                  static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                  static_cast<unsigned>(date.day()), static_cast<int>(time.hours().count()),
                  static_cast<int>(time.minutes().count()),
                  static_cast<int>(time.seconds().count()));
    return text.data();
  }

  console_rules rules_;
  std::string line_;       // not finished yet
  bool returned_ = false;  // behind a carriage return, which a line feed makes an end of line
  bool stood_ = false;     // the line was seen: a piece ended with it
  bool broken_ = false;    // the line is a part of a longer one
  std::optional<time_point> progress_at_;
  std::string last_;
  time_point last_at_ = {};
  time_point now_ = {};
  std::chrono::local_seconds wall_ = {};
  std::vector<std::string> lines_;
};

}  // namespace text

// =================================================================================================
// protocols
//
// Rules: pure functions, no clock, no I/O, no thread. All knowledge of a wire is here and nowhere else:
// what each protocol sends and reads in a namespace of its own, which names no other protocol, and what
// they share before them. Whatever comes from outside is checked here once: nothing in this room throws
// on bad input, and no error text holds a key or the query of a URL.
// =================================================================================================

namespace protocols {

using namespace text;

// Why `secret` may not go into a header, if so. CR, LF and NUL would reach the wire unchecked.
inline std::optional<error> check_secret(std::string_view secret, std::string_view subject) {
  if (all_of(secret, is_visible)) return std::nullopt;
  return error{errc::invalid_credentials,
               "The " + std::string(subject) +
                   " holds a space, a line break or another byte that no header may carry. Copy it "
                   "again from the HUB's settings page."};
}

// ---- requests ----------------------------------------------------------------------------------

// A request that says who is asking only by the name of this library.
inline request plain_request(std::string method, std::string url) {
  request out;
  out.method = std::move(method);
  out.url = std::move(url);
  out.headers.emplace_back("user-agent", "hub_session/" HUB_SESSION_VERSION);
  return out;
}

// What a gateway in front of the server wants with every request to it. A request to the server is one
// that may show the client certificate.
inline void add_for_gateway(const endpoint_options& at, request& message) {
  if (!message.show_client_certificate) return;
  for (const auto& [name, value] : at.headers) message.headers.emplace_back(name, value);
  if (!at.login.empty())
    message.headers.emplace_back("authorization", basic_authorization(at.login));
}

// Why that cannot be sent, if so. `own` is a request with the headers that the session sends itself.
inline std::optional<error> check_for_gateway(const endpoint_options& at, const request& own) {
  const auto refuse = [](std::string why) {
    return error{errc::invalid_credentials, std::move(why)};
  };
  const auto is_taken = [&](std::string_view name) {
    constexpr std::array<std::string_view, 8> others = {
        "connection",          "content-length", "content-type",      "host",
        "proxy-authorization", "range",          "transfer-encoding", "user-agent"};
    const auto same = [&](const auto& header) { return lowered(header.first) == lowered(name); };
    return std::any_of(own.headers.begin(), own.headers.end(), same) ||
           std::any_of(others.begin(), others.end(),
                       [&](std::string_view each) { return each == lowered(name); });
  };
  for (const auto& [name, value] : at.headers) {
    const bool sound = !name.empty() && all_of(name, [](char c) {
      return is_alphanumeric(c) || "!#$%&'*+-.^_`|~"sv.find(c) != std::string_view::npos;
    }) && all_of(value, [](char c) { return c == ' ' || is_visible(c); });
    if (!sound)
      return refuse(
          "A header in endpoints.headers has a name or a value that no header may have. "
          "Look for line breaks and colons.");
    if (is_taken(name))
      return refuse("The header " + printable(name) +
                    " in endpoints.headers is one that the session sends itself. Leave it out.");
  }
  if (at.login.empty()) return std::nullopt;
  if (at.login.find(':') == std::string::npos)
    return refuse("endpoints.login has no colon. Give it as user:password.");
  if (is_taken("authorization"))
    return refuse(
        "endpoints.login and the session's own token or key would be in the same header, "
        "Authorization. Have the gateway take another header, and give that in endpoints.headers.");
  return std::nullopt;
}

// `who` is the server's name at the beginning of a sentence, here and below.
inline error unreadable(std::string_view subject, std::string_view body, std::string_view who) {
  const auto because = [&](std::string_view why) {
    return error{errc::bad_reply, std::string(who) + "'s reply to " + std::string(subject) +
                                      " cannot be read" + std::string(why) + "."};
  };
  if (is_page(body))
    return because(
        ": it is an HTML page, so something stands in front of it. Check the server's address");
  switch (bound_met(body, reply_bounds)) {
    case json_bound::depth: return because(": it is nested deeper than text::json_depth_max");
    case json_bound::memory:
      return because(
          ": it holds so many values that they would take more than text::reply_memory_max. Make "
          "what the server tells of the model shorter");
    case json_bound::token_bytes:
      return because(
          ": it holds a text longer than text::reply_token_bytes_max. Make what the server tells "
          "of the model shorter");
    case json_bound::nul_byte:
    case json_bound::none: break;
  }
  return because(". Check the server's address");
}

// ---- replies -----------------------------------------------------------------------------------

// The server's own words in an error reply, if it has any that can be shown.
inline std::string server_message(std::string_view body) {
  const std::string plain = standard_json(body);
  if (!is_object(plain)) return {};
  std::string text = member_string(plain, "message");
  if (text.empty()) text = member_string(plain, "error");
  return text.empty() ? std::string() : " (\"" + printable(text) + "\")";
}

// What a status means, whoever sends it: HUB, the storage host, or what stands in front of them. It is
// tried again, soon, exactly where the code is server_error or rate_limited.
struct status_meaning {
  hub::verdict verdict;
  errc code;
  std::string_view advice;
  bool of_expired_url = false;  // storage hosts refuse a signed URL with it once its time is over
};

namespace statuses {

using enum verdict;

inline constexpr status_meaning fine = {delivered, errc::internal_error, ""};
inline constexpr status_meaning passes = {
    retry, errc::server_error, "The fault is on its side or in between; it is tried again."};
inline constexpr status_meaning unreached = {
    retry, errc::server_error,
    "What stands in front of it gets no answer from it; it is tried again."};
inline constexpr status_meaning is_full = {
    retry, errc::server_error,
    "There is no room left where it stores; free some. It is tried again."};
inline constexpr status_meaning captive = {
    retry, errc::server_error,
    "The network wants somebody to sign in on a page of its own; it is tried again."};
inline constexpr status_meaning too_fast = {retry, errc::rate_limited,
                                            "It wants fewer requests; they go on more slowly."};
inline constexpr status_meaning content = {rejected, errc::rejected,
                                           "It does not take this content; it is not sent again."};
inline constexpr status_meaning content_or_url = {content.verdict, content.code, content.advice,
                                                  true};
inline constexpr status_meaning no_key = {denied, errc::not_authenticated,
                                          "Check the API key; the server's settings page shows it.",
                                          true};
inline constexpr status_meaning forbidden = {
    denied, errc::access_denied, "This key may not write to this model; use the key of its owner.",
    true};
inline constexpr status_meaning gone = {
    denied, errc::unexpected_status,
    "Check the model's id, the server's address, and that the model was not deleted.", true};
inline constexpr status_meaning proxy_login = {
    denied, errc::access_denied,
    "A proxy on the way wants a login; give it in https_proxy or the transport's proxy option."};
inline constexpr status_meaning redirect = {
    denied, errc::unexpected_status,
    "Redirects are not followed, as they would carry the key elsewhere; give the server's final "
    "address."};
inline constexpr status_meaning other = {denied, errc::unexpected_status,
                                         "Check the server's address."};

struct row {
  int first;
  int last;
  status_meaning meaning;
};

// The first row that fits counts. What is missing here means `other`.
// clang-format off
inline constexpr std::array<row, 23> table = {{
    {200, 299, fine},
    {300, 399, redirect},
    {400, 400, content_or_url},
    {401, 401, no_key},
    {403, 403, forbidden},
    {404, 404, gone},
    {407, 407, proxy_login},
    {408, 408, passes},
    {410, 410, gone},
    {413, 413, content},
    {421, 421, passes},     // it came over the wrong connection
    {422, 422, content},
    {425, 425, passes},     // too early
    {429, 429, too_fast},
    {499, 499, passes},     // nginx: its client was gone
    {502, 502, unreached},
    {504, 504, unreached},
    {507, 507, is_full},
    {511, 511, captive},
    {520, 527, unreached},  // Cloudflare's, as is 530
    {530, 530, unreached},
    {598, 599, unreached},  // of proxies whose time was over
    {500, 599, passes},
}};
// clang-format on

}  // namespace statuses

constexpr status_meaning meaning_of(int status) noexcept {
  for (const statuses::row& each : statuses::table)
    if (status >= each.first && status <= each.last) return each.meaning;
  return statuses::other;
}

inline error status_error(int status, std::string_view body, std::string_view subject,
                          std::string_view who) {
  const status_meaning meaning = meaning_of(status);
  return {meaning.code,
          std::string(who) + " answered " + std::to_string(status) + " to " + std::string(subject) +
              server_message(body) + ". " + std::string(meaning.advice),
          status};
}

// Who speaks in a reply. In the clear, a proxy's own words look like anybody's, but for JSON.
inline std::string speaker_of(const reply& answer, std::string_view who) {
  const bool own = answer.proxy.empty() || is_object(answer.body);
  return std::string(who) + (own ? "" : ", or the proxy " + answer.proxy + " on the way,");
}

// What `subject`, such as "a heartbeat", came to.
inline outcome judge(const reply& answer, std::string_view subject,
                     std::chrono::system_clock::time_point wall_now, std::string_view who) {
  outcome out;
  if (answer.failure) {
    const errc code = answer.failure->code;
    out.why = *answer.failure;
    if (out.why.message.empty())
      out.why.message = "No request could be made: out of memory, or the transport threw.";
    // A proxy or certificate that cannot be used stays so until somebody mends it.
    const bool set_up_wrong = code == errc::invalid_endpoint || code == errc::invalid_credentials ||
                              code == errc::access_denied;
    out.verdict = code == errc::file_changed ? verdict::restart
                  : code == errc::file_error ? verdict::rejected
                  : set_up_wrong             ? verdict::denied
                                             : verdict::retry;
    return out;
  }
  out.verdict = meaning_of(answer.status).verdict;
  if (out.verdict == verdict::delivered) {
    if (is_page(answer.body)) {  // a captive portal says 200 to everything
      out.verdict = verdict::retry;
      out.why = unreadable(subject, answer.body, who);
    }
    return out;
  }
  out.why = status_error(answer.status, answer.body, subject, speaker_of(answer, who));
  out.retry_after = parse_retry_after(answer.retry_after, wall_now);
  return out;
}

}  // namespace protocols

// ---- what a protocol is ------------------------------------------------------------------------
//
// A protocol is a type without state whose static functions are pure: the session hands them its run,
// the engine's order and the reply, and they say what goes out and what came of it. To write one for a
// server of your own, take the archetype in tests/policies.cpp, which has what the concept asks for and
// nothing else, and fill it in:
//
//   identity, run, news         what the constructor takes; whom the session speaks to and as what run,
//                               a value that is copied with each order; what a reply taught of it
//   name, traits                in a spool and for the engine
//   identify(identity, endpoints, variable)   result<run>, before anything is sent; variable(name)
//                               reads the environment
//   credentials(run)            the key that the run has, "" if it has none
//   accept(run, credential)     takes the key or token to use, or says why it cannot be one
//   no_key(run), key_page(run)  the error if there is none; the place that has one
//   opening(run, progress), judge_opening(run, progress, reply, wall_now)   the requests that the
//                               constructor sends and waits for, one after another, if any
//   make(run, order, progress, sending), judge(run, order, progress, reply, wall_now, news)   one
//                               order's request, and what became of it; overloads, one an order
//   adopt(run, news)            cheap, as it runs under the session's mutex
//   page(run)                   where a person sees the run; "" while that is not known
//   sends_file(progress)        whether this request of an upload has the file in it
//   upload_name(fields)         the name under which an upload's progress is told
//   spool_file, folder(run, number), resumes(run), remember(run), recall(run, text)
//                               for the spool: the names of its file and folder, all but the secrets as
//                               text, and what an earlier session remembered
//   is_registered(run)          whether the server knows the run; only if the traits say `registers`
//
// What it may have, and what a session does without:
//
//   disclosure(identity), describe(run, facts)   what may be told of the machine; nothing is
//   encode_figures(figures)     the machine's figures as JSON; none are read
//   encode_results(results), results_problem(results)   for the ending; it has no results
//   advice(run)                 what to add to the error of a start that failed; nothing
//   assume(run, train_args)     a first start offline, on what the program says; refused
//   warning(news)               what of a reply is worth a line in the log; nothing
//   query_file(run, address, is_dataset)   see names_files; nothing can be fetched
//   run.agent_id, run.spool_number   for status(); which of several runs of a name is meant

using wall_time = std::chrono::system_clock::time_point;

// Reads a variable of the environment, "" if it is not set.
using variable_reader = std::function<std::string(const char* name)>;

// Who the session is, and how that came to be known.
struct credential {
  std::string key = {};
  std::string token = {};  // wins over a key, if the protocol knows tokens
  std::string from = {};   // " from" and the place of the key, for messages
  bool is_saved = false;   // the key is the one in the settings file
};

// What the session adds to an order.
struct sending {
  std::shared_ptr<body_source> file = {};  // of an upload
  std::string boundary = {};               // 128 random bits, for a form
  std::string agent = {};                  // what runs here, for a heartbeat
  std::string system = {};                 // the machine's figures as JSON, "" if there are none
};

template <class P>
concept has_identity = requires {
  typename P::identity;
  typename P::run;
  typename P::news;
}
&&std::copyable<typename P::run>;
template <class P>
concept has_traits = requires {
  { P::name } -> std::convertible_to<std::string_view>;
  { P::traits } -> std::convertible_to<protocol_traits>;
};
template <class P>
concept tells_registration = !P::traits.registers || requires(const typename P::run& run) {
  { P::is_registered(run) } -> std::same_as<bool>;
};
template <class P>
concept has_identify = requires(const typename P::identity& who, const endpoint_options& at,
                                const variable_reader& variable) {
  { P::identify(who, at, variable) } -> std::same_as<result<typename P::run>>;
};
template <class P>
concept has_credentials = requires(typename P::run& run, credential given) {
  { P::credentials(std::as_const(run)) } -> std::same_as<std::string>;
  { P::accept(run, std::move(given)) } -> std::same_as<std::optional<error>>;
  { P::no_key(std::as_const(run)) } -> std::same_as<error>;
  { P::key_page(std::as_const(run)) } -> std::same_as<std::string>;
};
template <class P>
concept has_opening = requires(typename P::run& run, const progress& at, const reply& answer) {
  { P::opening(std::as_const(run), at) } -> std::same_as<std::optional<request>>;
  { P::judge_opening(run, at, answer, wall_time()) } -> std::same_as<outcome>;
};
template <class P, class Order>
concept takes_order = requires(const typename P::run& run, const Order& order, const progress& at,
                               const sending& with, const reply& answer, typename P::news& news) {
  { P::make(run, order, at, with) } -> std::same_as<request>;
  { P::judge(run, order, at, answer, wall_time(), news) } -> std::same_as<outcome>;
};
template <class P>
concept has_orders = takes_order<P, life_order> && takes_order<P, registration_order> &&
    takes_order<P, epochs_order> && takes_order<P, completion_order> &&
    takes_order<P, upload_order> && takes_order<P, console_order>;
template <class P>
concept has_memory = requires(typename P::run& run, typename P::news news, std::string_view text) {
  P::adopt(run, std::move(news));
  { P::page(std::as_const(run)) } -> std::same_as<std::string>;
  { P::sends_file(progress()) } -> std::same_as<bool>;
  { P::upload_name(upload_fields()) } -> std::convertible_to<std::string>;
  { P::spool_file } -> std::convertible_to<std::string_view>;
  { P::folder(std::as_const(run), 1u) } -> std::same_as<std::string>;
  { P::resumes(std::as_const(run)) } -> std::same_as<bool>;
  { P::remember(std::as_const(run)) } -> std::same_as<std::string>;
  { P::recall(run, text) } -> std::same_as<bool>;
};
template <class P>
concept session_protocol = has_identity<P> && has_traits<P> && tells_registration<P> &&
    has_identify<P> && has_credentials<P> && has_opening<P> && has_orders<P> && has_memory<P>;

// How a server is asked for the signed URL of a file, in as many requests as that takes.
struct file_query {
  std::string name = {};  // of the file, for messages
  std::function<request(const progress&)> ask = {};
  // Delivered: `url` is a fresh one, in place of the one that is not valid any more, "" for none yet.
  std::function<outcome(const progress&, const reply&, wall_time, std::string& url)> judge = {};
};

// A protocol whose server has files by address.
template <class P>
concept names_files = requires(const typename P::run& run, std::string_view address) {
  { P::query_file(run, address, true) } -> std::same_as<result<file_query>>;
};

// For a protocol that has no such thing: the engine makes no order of it.
template <class Order>
struct without {
  static request make(const auto&, const Order&, const progress&, const sending&) {
    HUB_SESSION_ASSERT(false);  // the engine gives such an order only if the traits ask for it
    return {};
  }
  static outcome judge(const auto&, const Order&, const progress&, const reply&, wall_time, auto&) {
    return {};
  }
};

// ---- the storage host --------------------------------------------------------------------------
//
// Files that HUB names lie on a storage host, which is none of HUB's: it is never sent the key, as
// the URL's own signature is what lets the download in.

namespace storage_host {

using namespace text;
using namespace protocols;

// How much there is of a file, and of which version of it.
struct partial_download {
  std::string address = {};       // the URL it comes from, without the query
  std::string etag = {};          // of the version; "" if none can be told from another
  std::uint64_t bytes_total = 0;  // 0 if that shows only at the end
  std::uint64_t bytes = 0;        // from the beginning on
};

// Its name at the beginning of a sentence.
inline std::string named(std::string_view host) { return "The storage host " + std::string(host); }

// The address of a download if a server names `url`, for a session with the server at `api_root`.
inline result<std::string> download_address(std::string_view url, std::string_view subject,
                                            std::string_view api_root, std::string_view who) {
  if (url.find("://") == std::string_view::npos)
    return error{errc::not_downloadable,
                 std::string(who) + " names " +
                     (url.empty() ? "no " + std::string(subject)
                                  : "the " + std::string(subject) + " '" +
                                        printable(without_query(url)) + "', which is no URL") +
                     ", so there is nothing to download. Take it from where you have it."};
  const auto refuse = [&](std::string_view why) {
    return error{errc::invalid_endpoint, std::string(who) + "'s URL of the " +
                                             std::string(subject) + " " + std::string(why) +
                                             ". Tell whoever runs the server."};
  };
  std::string address = escaped_url(url);
  text::url to;
  if (const std::string_view fault = read_target(address, to); !fault.empty())
    return refuse("cannot be used: " + std::string(fault));
  if (!to.tls && api_root.starts_with("https:"))
    return refuse("is not https as the server's own is, so the file could be changed on its way");
  return address;
}

constexpr bool is_redirect(int status) noexcept {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// Where a redirect in reply to a download from `from` leads.
inline result<std::string> redirected_address(std::string_view from, const reply& answer) {
  const auto base = parse_target(from);
  if (!base) return base.error();
  const auto refuse = [&](std::string_view why) {
    return error{errc::unexpected_status,
                 named(base->host) + " redirects the download, but " + std::string(why) +
                     ". Tell whoever runs the server.",
                 answer.status};
  };
  if (answer.location.empty()) return refuse("does not say where to");
  std::string address = escaped_url(resolved_url(*base, answer.location));
  url to;
  if (const std::string_view fault = read_target(address, to); !fault.empty())
    return refuse("to an address that cannot be used: " + std::string(fault));
  if (base->tls && !to.tls)
    return refuse("from https to http, where the file could be changed on its way");
  return address;
}

// Asks for the whole file, or for the rest of the version that `have` is the beginning of.
inline request download_request(std::string_view url, const partial_download& have) {
  request out = plain_request("GET", std::string(url));
  if (have.bytes > 0) {
    out.headers.emplace_back("range", "bytes=" + std::to_string(have.bytes) + "-");
    out.headers.emplace_back("if-range", have.etag);
  }
  return out;
}

// Whether an ETag tells one version from every other, byte for byte, and may go into a header.
inline bool is_strong_etag(std::string_view text) {
  constexpr std::size_t bytes_max = 256;
  return text.size() > 2 && text.size() <= bytes_max && text.starts_with('"') &&
         text.find('"', 1) == text.size() - 1 && all_of(text, is_visible);
}

// What is kept of a download beside its file, with the hash of what came, so that a later run can go on.
struct download_record {
  partial_download have;
  std::uint64_t hash = 0;
};

inline std::string record_text(const download_record& record) {
  json out;
  out["address"] = record.have.address;
  out["etag"] = record.have.etag;
  out["bytes_total"] = record.have.bytes_total;
  out["bytes"] = record.have.bytes;
  out["fnv1a64"] = record.hash;
  return out.dump();
}

// Nothing if it is not sound, or not of a download that can be gone on with.
inline std::optional<download_record> parse_record(const std::string& text) {
  const auto record = parse_json(text);
  if (!record) return std::nullopt;
  download_record out{{get_string(*record, "address"), get_string(*record, "etag"),
                       get_unsigned(*record, "bytes_total"), get_unsigned(*record, "bytes")},
                      get_unsigned(*record, "fnv1a64")};
  const bool can_go_on =
      is_strong_etag(out.have.etag) && out.have.bytes > 0 && out.have.bytes < out.have.bytes_total;
  return can_go_on ? std::optional(std::move(out)) : std::nullopt;
}

// Reads the head of a 2xx to download_request(have): what is there once its body begins. That is
// `have` if the rest follows, or nothing of the version that the host has now.
inline result<partial_download> parse_download_head(const reply& head,
                                                    const partial_download& have) {
  const auto refuse = [](std::string_view why) {
    return error{errc::bad_reply, "The storage host's reply to the download " + std::string(why) +
                                      ". It is asked again."};
  };
  const auto length = parse_size(head.content_length);
  if (lowered(head.content_type).starts_with("text/html"))
    return refuse("is an HTML page, so something stands in front of it");
  if (head.status == 206) {
    // Without If-Range and its ETag, two versions could be put together.
    const std::string rest = "bytes " + std::to_string(have.bytes) + "-" +
                             std::to_string(have.bytes_total - 1) + "/" +
                             std::to_string(have.bytes_total);
    if (have.bytes == 0 || head.content_range != rest || head.etag != have.etag ||
        length.value_or(have.bytes_total - have.bytes) != have.bytes_total - have.bytes)
      return refuse("is another part of the file, or of another version, than was asked for");
    return have;
  }
  if (head.status != 200) return refuse("is of a status that no download has");
  // Without its length, nothing could be added to what is there after a break.
  if (head.is_chunked && !length) return partial_download{have.address, "", 0, 0};
  if (head.content_length.empty())
    return error{
        errc::not_downloadable,
        "The storage host says neither how long the file is nor where it ends, so that nothing "
        "would show that it is whole. Tell whoever runs the server."};
  if (!length || *length == 0)
    return refuse("does not say how long the file is, or that it is empty");
  return partial_download{have.address, is_strong_etag(head.etag) ? head.etag : "", *length, 0};
}

// What a reply to download_request comes to, if the file is not whole with it: `denied` wants a
// fresh URL from HUB, `restart` wants the file from its beginning.
inline outcome judge_download(const reply& answer, std::string_view host,
                              std::chrono::system_clock::time_point wall_now) {
  if (answer.failure) {
    outcome out = judge(answer, "a download", wall_now, named(host));
    if (answer.failure->code == errc::not_downloadable) out.verdict = verdict::rejected;
    return out;
  }
  const int status = answer.status;
  const std::string said = speaker_of(answer, named(host)) + " answered " + std::to_string(status);
  const auto came_to = [&](verdict reached, errc code, std::string_view why) {
    return outcome{reached, {code, said + " to the download. " + std::string(why), status}};
  };
  using enum verdict;
  if (status >= 200 && status < 300)
    return came_to(retry, errc::bad_reply, "It sent less than the file; the rest is asked for.");
  if (is_redirect(status))
    return came_to(rejected, errc::unexpected_status,
                   "It leads on to another address more than limits.download_redirects_max times. "
                   "Tell whoever runs the server.");
  if (status == 416)
    return came_to(restart, errc::unexpected_status,
                   "It has no such rest of the file, which begins anew.");
  const status_meaning meaning = meaning_of(status);
  if (meaning.of_expired_url)
    return came_to(
        denied, errc::access_denied,
        "The URL is not valid, or not any more, or the file is gone. Look at the model's "
        "page.");
  if (meaning.verdict != retry)
    return came_to(rejected, errc::unexpected_status, "Tell whoever runs the server.");
  outcome out = came_to(retry, meaning.code, meaning.advice);
  out.retry_after = parse_retry_after(answer.retry_after, wall_now);
  return out;
}

// Puts a whole file where a signed URL says.
inline request put_request(std::string_view url, std::shared_ptr<body_source> file) {
  request out = plain_request("PUT", std::string(url));
  out.headers.emplace_back("content-type", "application/octet-stream");
  out.content = std::move(file);
  return out;
}

// What a reply to put_request comes to: `restart` wants a fresh URL, as this one is not valid any
// more.
inline outcome judge_put(const reply& answer, std::string_view host,
                         std::chrono::system_clock::time_point wall_now) {
  outcome out = judge(answer, "the upload of a file", wall_now, named(host));
  if (answer.failure || (answer.status >= 200 && answer.status < 300)) return out;
  const std::string said = speaker_of(answer, named(host)) + " answered " +
                           std::to_string(answer.status) + " to the upload. ";
  if (meaning_of(answer.status).of_expired_url) {
    out.verdict = verdict::restart;
    out.why.message = said + "Its URL is not valid, or not any more; a fresh one is asked for.";
  } else {
    out.why.message = said + (out.verdict == verdict::retry      ? "It is tried again."
                              : out.verdict == verdict::rejected ? "It does not take this file."
                                                                 : "Tell whoever runs the server.");
  }
  return out;
}

}  // namespace storage_host

// ---- HUB v1 ------------------------------------------------------------------------------------

namespace hub_v1_wire {

using namespace text;
using namespace protocols;

inline constexpr std::string_view server = "HUB";  // its name at the beginning of a sentence
inline constexpr std::string_view default_api_root = "https://api.ultralytics.com";
inline constexpr std::string_view default_web_root = "https://hub.ultralytics.com";

// Where the pages of the server at `api_root` are, as far as nobody said: a server that is not
// Ultralytics' has both in one place, and the API under /api there, if anywhere.
inline std::string web_root_beside(std::string_view api_root) {
  constexpr std::string_view api_folder = "/api";
  if (api_root == default_api_root) return std::string(default_web_root);
  if (api_root.ends_with(api_folder)) api_root.remove_suffix(api_folder.size());
  return std::string(api_root);
}

inline constexpr std::size_t api_key_length = 42;
inline constexpr std::size_t model_id_length = 20;

inline bool is_model_id(std::string_view text) {
  return text.size() == model_id_length && all_of(text, is_alphanumeric);
}

struct identifier {
  std::string api_key = {};  // "" if the identifier names only the model
  std::string model_id = {};
};

// What of an identifier may be shown: a model id, but nothing that could be a key.
inline std::string redacted_id(std::string_view text) {
  const std::size_t mark = text.rfind('_');
  const std::string_view tail = mark == std::string_view::npos ? text : text.substr(mark + 1);
  const bool harmless = tail.size() <= model_id_length && all_of(tail, is_alphanumeric);
  return (mark == std::string_view::npos ? "" : "***_") + (harmless ? std::string(tail) : "***");
}

// The same of an address: its server, unless a key was pasted into that, and the path as far as the
// pages of all models have it in common.
inline std::string redacted_page(const result<url>& page) {
  if (!page) return "***";
  std::size_t longest = 0;
  for (std::size_t at = 0, end = 0; end < page->host.size(); at = end + 1) {
    end = std::min(page->host.find_first_of(".-:", at), page->host.size());
    longest = std::max(longest, end - at);
  }
  if (longest > model_id_length) return "***";
  url shown = *page;
  const std::size_t models = shown.path.find("/models/");
  shown.path = models <= model_id_length ? shown.path.substr(0, models) + "/models/***" : "/***";
  return printable(shown.text());
}

// Reads `{web}/models/ID`, `KEY_ID` or `ID`; a URL may end in a slash, a query or a fragment, and its
// query may hold the key as api_key.
inline result<identifier> parse_identifier(std::string_view text, std::string_view web_root) {
  const std::string root(web_root);
  const auto refuse = [&](const std::string& shown) {
    return error{errc::invalid_identifier,
                 "'" + shown + "' does not name a model of the HUB at " + root +
                     ". Give a model's page (" + root +
                     "/models/MODEL), a model id of 20 letters and digits, or KEY_MODEL with a key "
                     "of 42 letters and digits; endpoints.web and ULTRALYTICS_HUB_WEB say where "
                     "the HUB's pages are."};
  };
  identifier out;
  text = trimmed(text);
  std::string rest(text);
  if (text.find("://") != std::string_view::npos) {
    const auto page = parse_origin(percent_decoded(text.substr(0, text.find_first_of("?#"))));
    const auto home = parse_url(web_root);
    if (!page || !home || !is_same_server(*page, *home)) return refuse(redacted_page(page));
    const std::string prefix = home->path + "/models/";
    if (!page->path.starts_with(prefix)) return refuse(redacted_page(page));
    rest = page->path.substr(prefix.size());
    if (rest.ends_with('/')) rest.pop_back();
    out.api_key = trimmed(query_value(text, "api_key"));
  }
  if (rest.size() == api_key_length + 1 + model_id_length && rest[api_key_length] == '_') {
    out.api_key = rest.substr(0, api_key_length);
    if (!all_of(out.api_key, is_alphanumeric)) return refuse(redacted_id(rest));
    rest.erase(0, api_key_length + 1);
  }
  out.model_id = rest;
  if (!is_model_id(out.model_id)) return refuse(redacted_id(rest));
  return out;
}

// ---- the model ---------------------------------------------------------------------------------

// The name under which today's weights of a YOLOv3 or YOLOv5 model are published: yolov5n.pt is
// yolov5nu.pt. Only the file name counts, not the folder or host in front of it.
inline std::string rename_yolov5(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  const std::string_view folder =
      slash == std::string_view::npos ? ""sv : path.substr(0, slash + 1);
  const std::string_view name = path.substr(folder.size());
  const auto renamed = [&] {
    return std::string(folder) + std::string(name.substr(0, name.size() - 3)) + "u.pt";
  };
  if (!name.ends_with(".pt") || name.find('u') != std::string_view::npos) return std::string(path);
  const std::string_view stem = name.substr(0, name.size() - 3);
  for (std::string_view base : {"yolov3", "yolov3-tiny", "yolov3-spp"})
    if (stem.ends_with(base)) return renamed();
  const std::size_t v5 = stem.rfind("yolov5");
  if (v5 == std::string_view::npos) return std::string(path);
  std::string_view size = stem.substr(v5 + 6);
  if (size.ends_with('6')) size.remove_suffix(1);
  const bool known = size.size() == 1 && "nsmlx"sv.find(size) != std::string_view::npos;
  return known ? renamed() : std::string(path);
}

// HUB sends a device as text, a number, a list of either, or null.
inline std::string parse_device(const json* device) {
  if (!device) return {};
  if (device->is_string()) return device->get<std::string>();
  if (device->is_number_integer()) return device->dump();
  std::string out;
  if (device->is_array())
    for (const json& entry : *device)
      if (const std::string one = parse_device(&entry); !one.empty())
        out += (out.empty() ? "" : ",") + one;
  return out;
}

inline std::string parse_cache(const json* cache) {
  if (!cache) return {};
  if (cache->is_boolean()) return cache->get<bool>() ? "ram" : "";
  return cache->is_string() ? cache->get<std::string>() : std::string();
}

inline train_args parse_train_args(const json& fields) {
  train_args out;
  out.data = get_string(fields, "data");
  out.batch = get_number(fields, "batch");
  if (!out.batch) out.batch = get_number(fields, "batch_size");
  out.epochs = get_int(fields, "epochs");
  out.imgsz = get_int(fields, "imgsz");
  out.patience = get_int(fields, "patience");
  out.time_hours = get_number(fields, "time");
  out.device = parse_device(get_member(fields, "device"));
  out.cache = parse_cache(get_member(fields, "cache"));
  return out;
}

// Reads the reply to GET /v1/models/{id}, in its first shape (fields beside each other) and its
// second (a member train_args, and has_last_weights for a training that can go on).
inline result<model_info> parse_model(std::string_view body, std::string_view model_id) {
  std::optional<json> whole = parse_json(standard_json(body), reply_bounds);
  const json* found = whole ? get_member(*whole, "data") : nullptr;
  if (!found || !found->is_object()) return unreadable("the model request", body, server);

  model_info out;
  out.id = model_id;
  out.raw = std::move((*whole)["data"]);
  const json& data = out.raw;
  const std::string status = get_string(data, "status");
  if (status == "trained")
    return error{
        errc::already_trained,
        "Model " + out.id +
            " is trained already. Make a new model on HUB, or reset this one, and use its id."};
  const json* second_shape = get_member(data, "train_args");
  const bool nested = second_shape && second_shape->is_object();
  const json& fields = nested ? *second_shape : data;
  const bool resumes = nested ? get_flag(data, "has_last_weights") : status == "training";
  out.state = resumes ? model_state::training : model_state::fresh;

  out.train_args = parse_train_args(fields);
  if (out.train_args.data.empty())
    return error{errc::dataset_not_ready, "The dataset of model " + out.id +
                                              " is missing or still being processed. Look at it on "
                                              "HUB and start again when it is ready."};
  if (resumes) {
    out.train_args.resume = true;
    out.model_file = get_string(data, "resume");
    out.last_epoch = get_int(data, "last_epoch");
  } else {
    const bool from_weights =
        nested ? get_flag(data, "is_pretrained") : get_string(data, "cfg").empty();
    out.model_file = get_string(data, from_weights ? "weights" : "cfg");
  }
  out.train_args.raw = fields;
  out.model_file = rename_yolov5(out.model_file);
  return out;
}

// What parse_model reads as the same model later, from its `raw`.
inline std::string model_text(const json& raw) {
  json whole;
  whole["data"] = without_queries(raw);
  return whole.dump(2, ' ', false, json::error_handler_t::replace);
}

// Reads the reply to POST /v1/auth: whether HUB accepts the key.
inline result<bool> parse_auth(std::string_view body) {
  const std::string plain = standard_json(body);
  const std::string_view success = is_object(plain) ? member_text(plain, "success") : ""sv;
  if (success != "true" && success != "false") return unreadable("the sign-in", body, server);
  return success == "true";
}

// Reads the reply to POST /v1/models: the new model's id.
inline result<std::string> parse_created(std::string_view body) {
  const std::string plain = standard_json(body);
  const std::string_view data = is_object(plain) ? member_text(plain, "data") : ""sv;
  std::string id = member_string(data, "id");
  if (!is_model_id(id)) return unreadable("the making of a model", body, server);
  return id;
}

// Reads the reply to a heartbeat: the agent id to send from now on, "" if HUB names none.
inline result<std::string> parse_heartbeat(std::string_view body) {
  const std::string plain = standard_json(body);
  if (!is_object(plain)) return unreadable("a heartbeat", body, server);
  const std::string_view data = member_text(plain, "data");
  const std::string_view agent = member_text(data, "agentId");
  const bool odd = !data.empty() && !data.starts_with('{');
  if (odd || (!agent.empty() && !agent.starts_with('"')))
    return unreadable("a heartbeat", body, server);
  return member_string(data, "agentId");
}

// ---- requests ----------------------------------------------------------------------------------

// Who asks, whom, and about which model.
struct caller {
  std::string api_root = {};
  std::string api_key = {};
  std::string id_token = {};
  std::string model_id = {};
};

inline request base_request(const caller& who, std::string method, std::string_view path) {
  request out = plain_request(std::move(method), who.api_root + std::string(path));
  out.show_client_certificate = true;
  if (!who.id_token.empty())
    out.headers.emplace_back("authorization", "Bearer " + who.id_token);
  else if (!who.api_key.empty())
    out.headers.emplace_back("x-api-key", who.api_key);
  return out;
}

inline request json_request(const caller& who, std::string_view path, std::string body) {
  request out = base_request(who, "POST", path);
  out.headers.emplace_back("content-type", "application/json");
  out.body = std::move(body);
  return out;
}

inline request auth_request(const caller& who) { return base_request(who, "POST", "/v1/auth"); }

inline request model_request(const caller& who) {
  return base_request(who, "GET", "/v1/models/" + who.model_id);
}

inline request heartbeat_request(const caller& who, std::string_view agent,
                                 std::string_view agent_id) {
  std::string body = "{\"agent\": ";
  append_json_string(body, agent);
  body += ", \"agentId\": ";
  if (agent_id.empty())
    body += "null";
  else
    append_json_string(body, agent_id);
  return json_request(who, "/v1/agent/heartbeat/models/" + who.model_id, body + "}");
}

inline request create_model_request(const caller& who, const new_model& wanted) {
  std::string_view name = wanted.architecture;
  const bool pretrained = name.ends_with(".pt");
  for (std::string_view ending : {".pt", ".yaml"})
    if (name.ends_with(ending)) name.remove_suffix(ending.size());
  // Member by member: an initializer list of nlohmann's is many times as much to compile.
  json body;
  json& config = body["config"];
  config["batchSize"] = is_finite(wanted.batch) ? json(wanted.batch) : json();
  config["epochs"] = wanted.epochs;
  config["imageSize"] = wanted.imgsz;
  config["patience"] = wanted.patience;
  config["device"] = wanted.device;
  config["cache"] = wanted.cache;
  body["dataset"]["name"] = wanted.dataset;
  json& lineage = body["lineage"];
  lineage["architecture"]["name"] = name;
  if (pretrained) lineage["parent"]["name"] = wanted.architecture;
  body["meta"]["name"] = wanted.name;
  return json_request(who, "/v1/models", body.dump(-1, ' ', false, json::error_handler_t::replace));
}

// One epoch's metrics as the text of a JSON object; NaN and infinities become null.
inline std::string encode_metrics(const epoch_record& values) {
  std::string out;
  out.reserve(values.json_bytes());
  out = '{';
  values.for_each([&](std::string_view name, double value) {
    if (out.size() > 1) out += ", ";
    append_json_string(out, name);
    out += ": ";
    append_number(out, value);
  });
  return out += '}';
}

// HUB wants each epoch's object encoded once more, as a string.
inline request metrics_request(const caller& who, std::span<const queued_epoch> batch) {
  std::string body = "{\"metrics\": {";
  for (const auto& entry : batch) {
    if (&entry != batch.data()) body += ", ";
    body += '"' + std::to_string(entry.first) + "\": ";
    append_json_string(body, encode_metrics(*entry.second));
  }
  body += "}, \"type\": \"metrics\"}";
  return json_request(who, "/v1/models/" + who.model_id, std::move(body));
}

// HUB tells checkpoints and final models apart by the part's name, whatever the file's own name is.
inline std::string_view upload_file_name(const upload_fields& fields) {
  return fields.is_final ? "best.pt" : "last.pt";
}

// A multipart/form-data body: text fields first, then one file, as the original frames it.
class multipart_body final : public body_source {
 public:
  using field = std::pair<std::string_view, std::string>;

  multipart_body(std::string_view boundary, std::span<const field> fields,
                 std::string_view file_name, std::shared_ptr<body_source> file)
      : file_(std::move(file)) {
    const std::string delimiter = "--" + std::string(boundary);
    for (const auto& [name, value] : fields) {
      head_ += delimiter + "\r\nContent-Disposition: form-data; name=\"";
      head_ += std::string(name) + "\"\r\n\r\n" + value + "\r\n";
    }
    head_ += delimiter + "\r\nContent-Disposition: form-data; name=\"" + std::string(file_name);
    head_ += "\"; filename=\"" + std::string(file_name) + "\"\r\n\r\n";
    tail_ = "\r\n" + delimiter + "--\r\n";
  }

  std::uint64_t size_bytes() const override {
    return head_.size() + file_->size_bytes() + tail_.size();
  }

  result<std::size_t> read(std::uint64_t offset, std::span<char> out) override {
    const std::uint64_t file_end = head_.size() + file_->size_bytes();
    if (offset < head_.size()) return copy(head_, offset, out);
    if (offset < file_end) {
      const auto left =
          static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), file_end - offset));
      return file_->read(offset - head_.size(), out.first(left));
    }
    return copy(tail_, offset - file_end, out);
  }

 private:
  static std::size_t copy(std::string_view from, std::uint64_t offset, std::span<char> out) {
    const auto at = static_cast<std::size_t>(std::min<std::uint64_t>(offset, from.size()));
    return from.copy(out.data(), out.size(), at);
  }

  std::string head_;
  std::shared_ptr<body_source> file_;
  std::string tail_;
};

inline request upload_request(const caller& who, const upload_fields& fields,
                              std::shared_ptr<body_source> file, std::string_view boundary) {
  std::vector<multipart_body::field> form = {{"epoch", std::to_string(fields.epoch)}};
  if (fields.is_final) {
    form.emplace_back("type", "final");
    form.emplace_back("map", form_number(fields.map));
  } else {
    form.emplace_back("type", "epoch");
    form.emplace_back("isBest", fields.is_best ? "True" : "False");
  }
  request out = base_request(who, "POST", "/v1/models/" + who.model_id + "/upload");
  out.headers.emplace_back("content-type",
                           "multipart/form-data; boundary=" + std::string(boundary));
  out.content =
      std::make_shared<multipart_body>(boundary, form, upload_file_name(fields), std::move(file));
  return out;
}

// The same for a heartbeat, whose reply also has content: without it, the beat counts as failed.
inline outcome judge_heartbeat(const reply& answer, std::chrono::system_clock::time_point wall_now,
                               std::string& agent_id) {
  outcome out = judge(answer, "a heartbeat", wall_now, server);
  if (out.verdict != verdict::delivered) return out;
  if (auto said = parse_heartbeat(answer.body)) {
    agent_id = *std::move(said);
  } else {
    out.verdict = verdict::retry;
    out.why = said.error();
  }
  return out;
}

}  // namespace hub_v1_wire

// HUB v1, as Ultralytics' hosted HUB spoke it until July 2026 and servers like it still do.
struct hub_v1 : without<registration_order>, without<completion_order>, without<console_order> {
  // A model's page, a model id, or KEY_MODEL.
  struct identity {
    identity(std::string_view given) : text(given) {}
    identity(std::string given) : text(std::move(given)) {}
    identity(const char* given) : text(given) {}
    std::string text;
  };
  struct run {
    hub_v1_wire::caller who = {};
    std::string web_root = {};
    std::string agent_id = {};                     // as HUB assigned it
    std::shared_ptr<const model_info> model = {};  // as HUB described it last
    std::string key_from = {};                     // " from" and its place, for messages
    bool key_is_known = false;  // HUB need not be asked whether it accepts the key
  };
  struct news {
    std::string agent_id = {};
  };
  static constexpr std::string_view name = "hub-v1";
  static constexpr std::string_view spool_file = "model.json";
  static constexpr protocol_traits traits = {.service = "Ultralytics HUB"};

  // ---- the start -----------------------------------------------------------------------------------

  static result<run> identify(const identity& who, const endpoint_options& at,
                              const variable_reader& variable) {
    auto out = find_roots(at, variable);
    if (!out) return out;
    auto named = hub_v1_wire::parse_identifier(who.text, out->web_root);
    if (!named) return named.error();
    out->who.api_key = std::move(named->api_key);
    out->who.model_id = std::move(named->model_id);
    return out;
  }

  // A run without a model, to make one.
  static result<run> find_roots(const endpoint_options& at, const variable_reader& variable) {
    run out;
    const auto read = [&](std::string given, const char* name, std::string_view otherwise) {
      given = text::trimmed(given);
      if (given.empty()) given = text::trimmed(variable(name));
      return text::parse_url(given.empty() ? otherwise : std::string_view(given));
    };
    const auto api = read(at.api, "ULTRALYTICS_HUB_API", hub_v1_wire::default_api_root);
    if (!api) return api.error();
    out.who.api_root = api->text();
    const auto web =
        read(at.web, "ULTRALYTICS_HUB_WEB", hub_v1_wire::web_root_beside(out.who.api_root));
    if (!web) return web.error();
    out.web_root = web->text();
    return out;
  }

  // What there is to say if the server does not answer.
  static std::string advice(const run& of) {
    if (of.who.api_root != hub_v1_wire::default_api_root) return {};
    return " The hosted HUB was retired on 31 July 2026. Report to Ultralytics Platform with "
           "hub::platform_session, or name a server that speaks HUB v1 in ULTRALYTICS_HUB_API or "
           "endpoints.api.";
  }

  static std::string credentials(const run& of) { return of.who.api_key; }

  // A token wins over a key.
  static std::optional<error> accept(run& of, credential given) {
    if (auto why = protocols::check_secret(given.token, "id token")) return why;
    if (auto why = protocols::check_secret(given.key, "API key" + given.from)) return why;
    of.who.id_token = std::move(given.token);
    of.who.api_key = of.who.id_token.empty() ? std::move(given.key) : "";
    of.key_from = std::move(given.from);
    of.key_is_known = given.is_saved;
    return std::nullopt;
  }

  static std::string key_page(const run& of) { return of.web_root + "/settings"; }
  static error no_key(const run& of) { return key_error(of, "There is no API key. Get one from "); }

  // The sign-in, if HUB has not accepted this key before, and then the model.
  static std::optional<request> opening(const run& of, const progress& at) {
    if (at.step == 0 && of.who.id_token.empty() && !of.key_is_known)
      return hub_v1_wire::auth_request(of.who);
    if (at.step <= 1 && !of.who.model_id.empty()) return hub_v1_wire::model_request(of.who);
    return std::nullopt;
  }

  static outcome judge_opening(run& of, const progress& at, const reply& answer,
                               wall_time wall_now) {
    const bool signs_in = at.step == 0 && of.who.id_token.empty() && !of.key_is_known;
    if (signs_in) return judge_sign_in(of, answer, wall_now);
    outcome out =
        fitting(of, protocols::judge(answer, "the model request", wall_now, hub_v1_wire::server));
    if (out.verdict != verdict::delivered) return out;
    auto model = hub_v1_wire::parse_model(answer.body, of.who.model_id);
    if (!model) return {.verdict = verdict::rejected, .why = model.error()};
    of.model = held(*std::move(model));
    return {.verdict = verdict::advanced, .so_far = {.step = 2}};
  }

  // ---- orders --------------------------------------------------------------------------------------

  using without<registration_order>::make;
  using without<registration_order>::judge;
  using without<completion_order>::make;
  using without<completion_order>::judge;
  using without<console_order>::make;
  using without<console_order>::judge;

  static request make(const run& of, const life_order&, const progress&, const sending& with) {
    return hub_v1_wire::heartbeat_request(of.who, with.agent, of.agent_id);
  }
  static request make(const run& of, const epochs_order& order, const progress&, const sending&) {
    return hub_v1_wire::metrics_request(of.who, order.batch);
  }
  static request make(const run& of, const upload_order& order, const progress&,
                      const sending& with) {
    return hub_v1_wire::upload_request(of.who, order.file.fields, with.file, with.boundary);
  }

  static outcome judge(const run& of, const life_order&, const progress&, const reply& answer,
                       wall_time wall_now, news& learned) {
    return fitting(of, hub_v1_wire::judge_heartbeat(answer, wall_now, learned.agent_id));
  }
  static outcome judge(const run& of, const epochs_order&, const progress&, const reply& answer,
                       wall_time wall_now, news&) {
    return fitting(of, protocols::judge(answer, "metrics", wall_now, hub_v1_wire::server));
  }
  static outcome judge(const run& of, const upload_order&, const progress&, const reply& answer,
                       wall_time wall_now, news&) {
    return fitting(of, protocols::judge(answer, "an upload", wall_now, hub_v1_wire::server));
  }

  // ---- what is known of the run --------------------------------------------------------------------

  static void adopt(run& of, news&& learned) {
    if (!learned.agent_id.empty()) of.agent_id = std::move(learned.agent_id);
  }
  static std::string page(const run& of) { return of.web_root + "/models/" + of.who.model_id; }
  static bool sends_file(const progress&) { return true; }
  static std::string upload_name(const upload_fields& fields) {
    return std::string(hub_v1_wire::upload_file_name(fields));
  }
  static std::string folder(const run& of, unsigned) { return of.who.model_id; }
  static bool resumes(const run&) { return true; }
  static std::string remember(const run& of) {
    return of.model ? hub_v1_wire::model_text(of.model->raw) : std::string();
  }
  static bool recall(run& of, std::string_view remembered) {
    auto model = hub_v1_wire::parse_model(remembered, of.who.model_id);
    if (model) of.model = held(*std::move(model));
    return of.model != nullptr;
  }
  // If HUB has never been asked: what the program says of the model.
  static void assume(run& of, const train_args& args) {
    of.model =
        std::make_shared<const model_info>(model_info{.id = of.who.model_id, .train_args = args});
  }

  // ---- a new model ---------------------------------------------------------------------------------

  static outcome judge_created(const reply& answer, wall_time wall_now, std::string& id) {
    outcome out = protocols::judge(answer, "the making of a model", wall_now, hub_v1_wire::server);
    if (out.verdict != verdict::delivered) return out;
    auto made = hub_v1_wire::parse_created(answer.body);
    if (!made) return {.verdict = verdict::rejected, .why = made.error()};
    id = *std::move(made);
    return out;
  }

  // ---- files ---------------------------------------------------------------------------------------

  // A file of the model: where a description of that has its URL, and whether that names another file
  // once the training has begun.
  struct model_part {
    std::string_view name;
    std::string (*url_of)(const model_info&);
    bool depends_on_state;
  };
  static constexpr model_part model_file = {
      "model file", [](const model_info& model) { return model.model_file; }, true};
  static constexpr model_part dataset = {
      "dataset", [](const model_info& model) { return model.train_args.data; }, false};

  static result<std::string> url_of(const run& of, const model_info& model,
                                    const model_part& part) {
    return storage_host::download_address(part.url_of(model), part.name, of.who.api_root,
                                          hub_v1_wire::server);
  }

  // Asks HUB for the model once more. `current` is the run at that moment, whose token may be another
  // by then; what the first URL was from is what it is now.
  static file_query query_file(const std::function<run()>& current, const model_part& part) {
    return {std::string(part.name),
            [current](const progress&) { return hub_v1_wire::model_request(current().who); },
            [of = current(), part](const progress&, const reply& answer, wall_time wall_now,
                                   std::string& url) {
              return judge_file(of, part, answer, wall_now, url);
            }};
  }

 private:
  static outcome judge_file(const run& of, const model_part& part, const reply& answer,
                            wall_time wall_now, std::string& url) {
    using enum verdict;
    outcome came = protocols::judge(answer, "the model request", wall_now, hub_v1_wire::server);
    if (came.verdict != delivered) return came;
    const auto model = hub_v1_wire::parse_model(answer.body, of.who.model_id);
    if (!model) return {model.error().code == errc::bad_reply ? retry : rejected, model.error()};
    auto fresh = url_of(of, *model, part);
    if (!fresh) return {rejected, fresh.error()};
    const bool another = part.depends_on_state && of.model && model->state != of.model->state;
    if (another || *fresh == url)
      return {rejected,
              {errc::access_denied,
               "The storage host does not accept HUB's URL of the " + std::string(part.name) +
                   (another ? ", and HUB names another since the training began"
                            : ", and HUB has no other") +
                   ". Look at the model on HUB, or begin a new session."}};
    url = *std::move(fresh);
    return came;
  }

  // JSON is emptied by hand when the last holder goes: its own destructor needs memory.
  static std::shared_ptr<const model_info> held(model_info model) {
    const auto release = [](model_info* last) {
      for (nlohmann::json* each : {&last->raw, &last->train_args.raw})
        text::clear_from_leaves(*each);
      delete last;
    };
    return {new model_info(std::move(model)), release};
  }

  // If a token is refused, there is no key to check.
  static outcome fitting(const run& of, outcome out) {
    constexpr std::string_view of_keys = protocols::statuses::no_key.advice;
    std::string& words = out.why.message;
    if (out.why.http_status == 401 && !of.who.id_token.empty() && words.ends_with(of_keys))
      words.replace(words.size() - of_keys.size(), of_keys.size(),
                    "The id token is not accepted; one ends after an hour. Give a function that "
                    "returns a fresh one in credentials.renew_id_token, or an API key.");
    return out;
  }

  static outcome judge_sign_in(const run& of, const reply& answer, wall_time wall_now) {
    outcome refused{.verdict = verdict::rejected,
                    .why = key_error(of, "HUB does not accept the API key" + of.key_from +
                                             ". Get a valid one from ")};
    if (answer.status == 401 || answer.status == 403) return refused;
    outcome out = protocols::judge(answer, "the sign-in", wall_now, hub_v1_wire::server);
    if (out.verdict != verdict::delivered) return out;
    const auto success = hub_v1_wire::parse_auth(answer.body);
    if (!success) return {.verdict = verdict::rejected, .why = success.error()};
    return *success ? outcome{.verdict = verdict::advanced, .so_far = {.step = 1}} : refused;
  }

  static error key_error(const run& of, std::string_view subject) {
    return {errc::not_authenticated,
            std::string(subject) + key_page(of) +
                " and pass it in session_options::credentials, in ULTRALYTICS_API_KEY or as "
                "KEY_MODEL."};
  }
};

// ---- Platform ----------------------------------------------------------------------------------

namespace platform_wire {

using namespace text;
using namespace protocols;

inline constexpr std::string_view who = "The Platform";
inline constexpr std::string_view default_web_root = "https://platform.ultralytics.com";
inline constexpr std::size_t api_key_digits = 40;
inline constexpr std::size_t slug_length_max = 128;
inline constexpr std::size_t id_length_max = 128;
inline constexpr std::size_t curve_points_max = 101;
inline constexpr std::size_t validation_rows_max = 5000;
inline constexpr std::size_t validation_extremes_max = 100;

// ---- addresses, keys and names ----

struct roots {
  std::string web = {};       // of pages and of the API
  std::string webhooks = {};  // where a training reports to
};

// Reads the two addresses. Of one that is "" the place is taken that it has beside the other, and the
// Platform's own if that says nothing.
inline result<roots> parse_roots(std::string_view web, std::string_view webhooks) {
  constexpr std::string_view folder = "/api/webhooks";
  roots out;
  if (!webhooks.empty()) {
    const auto hooks = parse_url(webhooks);
    if (!hooks) return hooks.error();
    out.webhooks = hooks->text();
  }
  std::string beside(default_web_root);
  if (out.webhooks.ends_with(folder))
    beside = out.webhooks.substr(0, out.webhooks.size() - folder.size());
  const auto pages = parse_url(web.empty() ? beside : web);
  if (!pages) return pages.error();
  out.web = pages->text();
  if (out.webhooks.empty()) out.webhooks = out.web + std::string(folder);
  return out;
}

// Why `key` cannot be a key of the Platform, if so: that is said before anything is sent.
inline std::optional<error> check_key(std::string_view key) {
  constexpr std::string_view lead = "ul_";
  constexpr std::size_t hub_v1_length = 42;
  const auto is_hex = [](char c) {
    return is_digit(c) || (to_lower(c) >= 'a' && to_lower(c) <= 'f');
  };
  if (key.size() == lead.size() + api_key_digits && key.starts_with(lead) &&
      all_of(key.substr(lead.size()), is_hex))
    return std::nullopt;
  const bool of_hub = key.size() == hub_v1_length && all_of(key, is_alphanumeric);
  const std::string_view fault =
      key.empty() ? "There is no API key for Ultralytics Platform."
      : of_hub    ? "This is a key of the old HUB, which the Platform does not know."
                  : "This is no key of Ultralytics Platform.";
  return error{key.empty() ? errc::not_authenticated : errc::invalid_credentials,
               std::string(fault) +
                   " Give one that begins with 'ul_' and ends in 40 hexadecimal digits, from the "
                   "Platform's settings page, in ULTRALYTICS_API_KEY or credentials.api_key."};
}

// Foreign text for a message, without what could be a key in it.
inline std::string in_quotes(std::string_view text) {
  std::string out = "'" + printable(text) + "'";
  for (std::size_t at = 0; (at = out.find("ul_", at)) != std::string::npos; at += 6) {
    const auto key = out.begin() + static_cast<std::ptrdiff_t>(at) + 3;
    out.replace(key, std::find_if_not(key, out.end(), is_alphanumeric), "***");
  }
  return out;
}

// A name as it stands in the address of a page: "My Helmets" is my-helmets.
inline std::string slug(std::string_view name) {
  std::string out;
  for (char c : name) {
    c = is_blank(c) ? '-' : to_lower(c);
    const bool doubled = c == '-' && (out.empty() || out.back() == '-');
    if ((is_alphanumeric(c) || c == '-') && !doubled) out += c;
  }
  out.resize(std::min(out.size(), slug_length_max));
  if (out.ends_with('-')) out.pop_back();
  return out;
}

// Names are shown to others, and a key that was taken for one must not be.
inline bool holds_key(std::string_view name) {
  const std::size_t at = name.find("ul_");
  return at != std::string_view::npos && !check_key(name.substr(at, 3 + api_key_digits));
}

inline result<std::string> slug_or_error(std::string_view name, std::string_view subject) {
  std::string out = slug(name);
  if (!out.empty() && !holds_key(name)) return out;
  if (holds_key(name))
    return error{errc::invalid_identifier,
                 "The " + std::string(subject) +
                     " holds an API key. Give that in ULTRALYTICS_API_KEY or credentials.api_key, "
                     "and a name here."};
  return error{errc::invalid_identifier,
               "Nothing is left of the " + std::string(subject) + " " + in_quotes(name) +
                   " in an address, which has a to z, 0 to 9 and '-' alone. Give it another name."};
}

// Whether this can be a part of a page's address: a user's, a project's or a model's.
inline bool is_segment(std::string_view text) {
  return !text.empty() && text.size() <= slug_length_max && text != "." && text != ".." &&
         all_of(text,
                [](char c) { return is_alphanumeric(c) || c == '-' || c == '_' || c == '.'; });
}

// "helmets", or "lab/helmets": the owner stays as it is.
inline result<std::string> parse_project(std::string_view project) {
  const std::size_t slash = project.find('/');
  if (slash == std::string_view::npos || holds_key(project))
    return slug_or_error(project, "project");
  const std::string_view owner = project.substr(0, slash);
  if (!is_segment(owner))
    return error{errc::invalid_identifier,
                 "The project " + in_quotes(project) +
                     " has no owner in front of its '/'. Give it as PROJECT or OWNER/PROJECT."};
  auto rest = slug_or_error(project.substr(slash + 1), "project");
  if (rest) rest->insert(0, std::string(owner) + "/");
  return rest;
}

// ---- the run ----

// A run as its requests name it. All but the key may be kept for a later session; the ids are empty
// until a reply has brought them.
struct run {
  roots at = {};
  std::string api_key = {};
  std::string project = {};       // "lab/my-helmets" or "my-helmets"
  std::string name = {};          // "yolo11n-640"
  std::string registration = {};  // the data of training_started, but for the environment
  std::string environment = {};   // the text of a JSON object, "" if it is not told
  std::string model_id = {};
  std::string run_id = {};
  std::string page = {};
};

// The environment of training_started, "" if nothing may be told.
inline std::string encode_environment(const machine_facts& facts) {
  if (facts.system.empty()) return {};
  object_writer out;
  out.string("ultralyticsVersion", "hub_session-" HUB_SESSION_VERSION);
  out.string("os", facts.system).string("environment", facts.system);
  out.integer("cpuCount", facts.processors);
  if (facts.more) {
    out.string("hostname", facts.more->host).string("command", facts.more->command_line);
    out.string("cwd", facts.more->working_folder);
  }
  return out.text();
}

// The data of training_started. The program's own arguments win over what the run says; Python's
// are all text, as it prints them.
inline std::string encode_start(const platform_run& wanted) {
  object_writer arguments;
  const auto add = [&](std::string_view name, std::string_view value) {
    const auto named = [&](const auto& argument) { return argument.first == name; };
    if (std::none_of(wanted.arguments.begin(), wanted.arguments.end(), named))
      arguments.string(name, value);
  };
  add("project", wanted.project);
  if (!wanted.name.empty()) add("name", wanted.name);
  if (wanted.epochs > 0) add("epochs", std::to_string(wanted.epochs));
  add("resume", wanted.resume ? "True" : "False");
  for (const auto& [name, value] : wanted.arguments) arguments.string(name, value);
  object_writer data;
  data.raw("trainArgs", arguments.text());
  if (wanted.epochs > 0) data.integer("epochs", wanted.epochs);
  if (!wanted.device.empty()) data.string("device", wanted.device);
  return data.text();
}

// The run that `wanted` describes, without a key.
inline result<run> make_run(const platform_run& wanted, roots at) {
  auto project = parse_project(wanted.project);
  if (!project) return project.error();
  auto name = slug_or_error(wanted.name.empty() ? "train" : wanted.name, "name");
  if (!name) return name.error();
  return run{.at = std::move(at),
             .project = *std::move(project),
             .name = *std::move(name),
             .registration = encode_start(wanted)};
}

// A run for the spool: all but the key.
inline std::string encode_run(const run& of) {
  object_writer out;
  out.string("web", of.at.web).string("webhooks", of.at.webhooks);
  out.string("project", of.project).string("name", of.name);
  out.raw("registration", of.registration.empty() ? "{}" : of.registration);
  if (!of.environment.empty()) out.raw("environment", of.environment);
  out.string("modelId", of.model_id).string("runId", of.run_id).string("page", of.page);
  return out.text();
}

inline bool is_id(std::string_view text) {
  return !text.empty() && text.size() <= id_length_max && all_of(text, is_visible);
}

inline std::optional<run> parse_run(std::string_view text) {
  if (!is_object(text)) return std::nullopt;
  const auto at = parse_roots(member_string(text, "web"), member_string(text, "webhooks"));
  run out{.project = member_string(text, "project"),
          .name = member_string(text, "name"),
          .registration = std::string(member_text(text, "registration")),
          .environment = std::string(member_text(text, "environment")),
          .model_id = member_string(text, "modelId"),
          .run_id = member_string(text, "runId"),
          .page = member_string(text, "page")};
  if (!at || out.name.empty() || !out.registration.starts_with('{')) return std::nullopt;
  const auto project = parse_project(out.project);
  if (!project || *project != out.project || slug(out.name) != out.name) return std::nullopt;
  out.at = *at;
  return out;
}

// ---- what the events say ----

// The names by which HUB v1 knows a model's size and speed, and the Platform's.
inline std::string_view model_fact(std::string_view metric) {
  if (metric == "model/parameters") return "parameters";
  if (metric == "model/GFLOPs") return "gflops";
  if (metric == "model/speed_PyTorch(ms)") return "speedMs";
  return {};
}

// The data of epoch_end. `system` is the text of a JSON object, or "".
inline std::string encode_epoch(const queued_epoch& epoch, std::string_view system) {
  object_writer metrics, fitness, model, data;
  epoch.second->for_each([&](std::string_view name, double value) {
    if (name == "fitness" || name == "best_fitness")
      fitness.number(name, value);
    else if (const std::string_view fact = model_fact(name); !fact.empty())
      model.number(fact, value);
    else
      metrics.number(name, value);
  });
  data.integer("epoch", epoch.first).raw("metrics", metrics.text());
  if (!system.empty()) data.raw("system", system);
  data.members_of(fitness);
  if (!model.empty()) data.raw("modelInfo", model.text());
  return data.text();
}

// The data of console_output. Chunks are numbered from 1; `content` has a line feed between lines.
inline std::string encode_console(std::uint64_t chunk, std::string_view content,
                                  std::size_t lines) {
  object_writer data;
  data.integer("chunkId", chunk).string("content", content).integer("lineCount", lines);
  return data.text();
}

// The figures that go with an epoch, as the text of a JSON object; "" if there are none.
inline std::string encode_figures(const system_figures& of) {
  const auto rounded = [](double value) { return std::round(value * 1000) / 1000; };
  const auto add = [&](object_writer& to, std::string_view name, std::optional<double> value) {
    if (value) to.number(name, rounded(*value));
  };
  const auto add_traffic = [&](object_writer& to, std::string_view name,
                               const std::optional<system_figures::traffic>& traffic,
                               std::string_view in, std::string_view out) {
    if (!traffic) return;
    object_writer inner;
    add(inner, in, traffic->in_mbs);
    add(inner, out, traffic->out_mbs);
    to.raw(name, inner.text());
  };
  object_writer all, gpus;
  add(all, "cpu", of.cpu_percent);
  add(all, "ram", of.memory_percent);
  std::string disks;
  for (const system_figures::disk& each : of.disks) {
    object_writer disk;
    disk.string("mount", each.mount);
    add(disk, "used_gb", each.used_gb);
    add(disk, "total_gb", each.total_gb);
    disks += (disks.empty() ? "[" : ", ") + disk.text();
  }
  if (!disks.empty()) all.raw("disk", disks + ']');
  add_traffic(all, "disk_io", of.disk_io, "read_mbs", "write_mbs");
  add_traffic(all, "network", of.network, "recv_mbs", "sent_mbs");
  for (std::size_t i = 0; i < of.gpus.size(); ++i) {
    object_writer gpu;
    add(gpu, "usage", of.gpus[i].usage_percent);
    add(gpu, "memory", of.gpus[i].memory_percent);
    add(gpu, "temp", of.gpus[i].celsius);
    add(gpu, "power", of.gpus[i].watts);
    gpus.raw(std::to_string(i), gpu.text());
  }
  if (!gpus.empty()) all.raw("gpus", gpus.text());
  return all.empty() ? std::string() : all.text();
}

// The data of system_metrics, from the figures that go with an epoch: it has other names for some.
inline std::string encode_system(std::string_view system) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> names = {
      {{"cpu", "cpu"},
       {"memory", "ram"},
       {"disk", "disk"},
       {"diskIo", "disk_io"},
       {"network", "network"},
       {"gpus", "gpus"}}};
  object_writer data;
  for (const auto& [name, with_epoch] : names)
    if (const std::string_view value = member_text(system, with_epoch); !value.empty())
      data.raw(name, value);
  return data.text();
}

// The data of training_failed.
inline std::string encode_failure(std::string_view why) {
  object_writer data;
  data.string("error", why);
  return data.text();
}

// ---- what the end says ----

inline void append_row(std::string& out, std::span<const double> row) {
  out += '[';
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (i > 0) out += ", ";
    append_number(out, row[i]);
  }
  out += ']';
}

inline std::string encode_rows(const std::vector<std::vector<double>>& rows) {
  std::string out = "[";
  for (const std::vector<double>& row : rows) {
    if (out.size() > 1) out += ", ";
    append_row(out, row);
  }
  return out += ']';
}

// As many of the values as the Platform takes, evenly spaced from the first to the last, on the
// straight lines between them.
inline std::vector<double> resample(const std::vector<double>& values) {
  if (values.size() <= curve_points_max) return values;
  std::vector<double> out;
  for (std::size_t i = 0; i < curve_points_max; ++i) {
    const std::size_t scaled = i * (values.size() - 1);
    const std::size_t at = scaled / (curve_points_max - 1);
    const std::size_t beyond = scaled % (curve_points_max - 1);
    const double share = static_cast<double>(beyond) / (curve_points_max - 1);
    out.push_back(beyond == 0 ? values[at] : values[at] + share * (values[at + 1] - values[at]));
  }
  return out;
}

// Why a curve cannot be drawn, "" if it can or is not given.
inline std::string curve_problem(const plot_curve& curve) {
  if (curve.x.empty() && curve.y.empty()) return {};
  for (std::size_t i = 0; i < curve.y.size(); ++i)
    if (curve.y[i].size() != curve.x.size())
      return "row " + std::to_string(i) + " has " + std::to_string(curve.y[i].size()) +
             " points over the " + std::to_string(curve.x.size()) + " of x";
  return curve.x.empty() || curve.y.empty() ? "it has no points" : "";
}

using named_curve = std::pair<std::string_view, const plot_curve*>;

inline std::array<named_curve, 4> curves_of(const training_plots& plots) {
  return {{{"pr_curve", &plots.pr_curve},
           {"f1_curve", &plots.f1_curve},
           {"precision_curve", &plots.precision_curve},
           {"recall_curve", &plots.recall_curve}}};
}

// What of the results is left out, and why, for the log; "" if all of it is sent.
inline std::string results_problem(const training_results& results) {
  std::string out;
  for (const auto& [name, curve] : curves_of(results.plots))
    if (const std::string why = curve_problem(*curve); !why.empty())
      out += (out.empty() ? "" : "; ") + std::string(name) + ": " + why;
  return out;
}

inline std::string encode_curve(std::string_view type, const plot_curve& curve) {
  std::string x;
  append_row(x, resample(curve.x));
  std::vector<std::vector<double>> y;
  for (const std::vector<double>& row : curve.y) y.push_back(resample(row));
  object_writer out;
  out.string("type", type).raw("x", x).raw("y", encode_rows(y));
  if (!curve.ap.empty()) out.raw("ap", encode_rows(curve.ap));
  return out.text();
}

inline std::string encode_plots(const training_plots& plots) {
  std::string out = "[";
  const auto add = [&](const std::string& plot) { out += (out.size() > 1 ? ", " : "") + plot; };
  if (!plots.confusion_matrix.empty()) {
    object_writer matrix;
    matrix.string("type", "confusion_matrix").raw("matrix", encode_rows(plots.confusion_matrix));
    add(matrix.text());
  }
  for (const auto& [name, curve] : curves_of(plots))
    if (!curve->x.empty() && curve_problem(*curve).empty()) add(encode_curve(name, *curve));
  return out += ']';
}

// F1 of one image; 1 if there was nothing to find and nothing was found.
inline double f1_of(const validation_row& row) {
  const double hits = 2.0 * row.true_positives;
  const double all = hits + row.false_positives + row.false_negatives;
  return all == 0 ? 1 : hits / all;
}

using ranked_rows = std::vector<const validation_row*>;

inline std::string encode_validation_rows(std::span<const validation_row* const> rows) {
  std::string out = "[";
  for (const validation_row* row : rows) {
    if (out.size() > 1) out += ", ";
    out += '[';
    append_json_string(out, row->image);
    for (const unsigned count : {row->true_positives, row->false_positives, row->false_negatives})
      out += ", " + std::to_string(count);
    out += ']';
  }
  return out += ']';
}

// Ranks the images by F1, the worst first, and takes as many as the Platform does, evenly spaced.
inline std::string encode_validation(const std::vector<validation_row>& all) {
  ranked_rows ranked;
  for (const validation_row& row : all) ranked.push_back(&row);
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto* a, const auto* b) { return f1_of(*a) < f1_of(*b); });
  ranked_rows sample;
  const std::size_t count = std::min(ranked.size(), validation_rows_max);
  for (std::size_t i = 0; i < count; ++i)
    sample.push_back(ranked[count < 2 ? 0 : i * (ranked.size() - 1) / (count - 1)]);
  const std::size_t extremes = std::min(ranked.size(), validation_extremes_max);
  const ranked_rows best(ranked.rbegin(), ranked.rbegin() + static_cast<std::ptrdiff_t>(extremes));
  object_writer ends, out;
  ends.raw("worst", encode_validation_rows(std::span(ranked).first(extremes)));
  ends.raw("best", encode_validation_rows(best));
  out.integer("population", ranked.size()).string("sampling", "f1_rank");
  out.raw("rows", encode_validation_rows(sample)).raw("extremes", ends.text());
  return out.text();
}

// What the end of a training adds to its results.
struct ending_facts {
  int epoch = 0;                  // the last one
  double map = 0;                 // as on_train_end was given it
  std::string model_path = {};    // of the final model, if one was uploaded
  std::uint64_t model_bytes = 0;  //
};

inline std::string encode_names(const std::vector<std::string>& names) {
  if (names.empty()) return "null";
  std::string out = "[";
  for (const std::string& name : names) {
    if (out.size() > 1) out += ", ";
    append_json_string(out, name);
  }
  return out += ']';
}

// What the program says of its results, as the text of an object: a part of training_complete that
// keeps in a spool.
inline std::string encode_results(const training_results& results) {
  object_writer metrics, out;
  for (const auto& [name, value] : results.metrics) metrics.number(name, value);
  out.raw("metrics", metrics.text());
  if (results.best_epoch) out.integer("bestEpoch", *results.best_epoch);
  if (results.best_fitness) out.number("bestFitness", *results.best_fitness);
  if (!results.validation.empty()) out.raw("validation", encode_validation(results.validation));
  out.raw("classNames", encode_names(results.class_names));
  return out.raw("plots", encode_plots(results.plots)).text();
}

// The data of training_complete. `results` is what encode_results made, "" if the program said none.
inline std::string encode_completion(const run& of, std::string_view results,
                                     const ending_facts& facts) {
  const auto said = [&](std::string_view name, std::string_view otherwise) {
    const auto at = find_json_member(results, name);
    return at ? results.substr(at->begin, at->length) : otherwise;
  };
  std::string map;
  append_number(map, facts.map);
  const std::string_view fitness = said("bestFitness", map);
  std::string metrics(said("metrics", "{}"));
  if (!find_json_member(metrics, "fitness")) {
    metrics.pop_back();
    metrics += (metrics.size() > 1 ? ", " : "") + ("\"fitness\": " + std::string(fitness)) + '}';
  }
  object_writer inner, data;
  inner.raw("metrics", metrics);
  inner.raw("bestEpoch", said("bestEpoch", std::to_string(facts.epoch)));
  inner.raw("bestFitness", fitness);
  if (const auto rows = said("validation", ""); !rows.empty()) inner.raw("validation", rows);
  if (!facts.model_path.empty())
    inner.string("modelPath", facts.model_path).integer("modelSize", facts.model_bytes);
  data.raw("results", inner.text()).raw("classNames", said("classNames", "null"));
  data.raw("plots", said("plots", "[]"));
  if (!of.run_id.empty()) data.string("runId", of.run_id);
  return data.text();
}

// ---- requests ----

inline request authorized_request(const run& of, std::string method, std::string url) {
  request out = plain_request(std::move(method), std::move(url));
  out.show_client_certificate = true;
  out.headers.emplace_back("authorization", "Bearer " + of.api_key);
  return out;
}

inline request json_request(const run& of, std::string_view path, std::string body) {
  request out = authorized_request(of, "POST", of.at.webhooks + std::string(path));
  out.headers.emplace_back("content-type", "application/json");
  out.body = std::move(body);
  return out;
}

// Which run a request is about: by its id once that is known, and by its names until then.
inline void add_names(object_writer& out, const run& of) {
  if (!of.model_id.empty())
    out.string("modelId", of.model_id);
  else
    out.string("project", of.project).string("name", of.name);
}

// `data` is the text of a JSON object.
inline request event_request(const run& of, std::string_view event, std::string_view data) {
  object_writer body;
  body.string("event", event).raw("data", data);
  add_names(body, of);
  return json_request(of, "/training/metrics", body.text());
}

inline request start_request(const run& of) {
  if (of.environment.empty()) return event_request(of, "training_started", of.registration);
  std::string data = of.registration.substr(0, of.registration.size() - 1);
  return event_request(of, "training_started", data + ", \"environment\": " + of.environment + "}");
}

// The Platform keeps one best.pt, which a checkpoint that is not the best must not replace.
inline std::string_view upload_file_name(const upload_fields& fields) {
  return fields.is_final || fields.is_best ? "best.pt" : "last.pt";
}

// Asks where to put a file.
inline request upload_request(const run& of, const upload_fields& fields) {
  object_writer body;
  body.string("filename", upload_file_name(fields));
  add_names(body, of);
  if (!of.run_id.empty()) body.string("runId", of.run_id);
  return json_request(of, "/models/upload", body.text());
}

// Where a file goes, and how it is called once it is there.
struct upload_place {
  std::string url = {};   // signed: a secret
  std::string path = {};  // "gs://..."
  std::string upload_path = {};
  std::uint64_t bytes = 0;  // of the file
};

inline request saved_request(const run& of, const upload_place& place) {
  object_writer data;
  data.string("modelPath", place.path).string("runId", of.run_id);
  if (!place.upload_path.empty()) data.string("uploadPath", place.upload_path);
  return event_request(of, "checkpoint_saved", data.text());
}

inline request account_request(const run& of) {
  return authorized_request(of, "GET", of.at.web + "/api/account/summary");
}

// ---- replies ----

// What the reply to an event taught. Members that are missing or of another type are empty.
struct event_reply {
  bool received = true;
  bool cancelled = false;  // the owner wants the training to stop
  std::string model_id = {};
  std::string run_id = {};
  std::string slug = {};  // of the model
  std::string page = {};  // its URL
  std::string warning = {};
};

// An id that could not go into a request is none.
inline std::string member_id(std::string_view body, std::string_view name) {
  std::string id = member_string(body, name);
  return is_id(id) ? id : std::string();
}

// Warnings as one text. How a server calls and shapes them is not known.
inline std::string warnings_of(std::string_view body) {
  const std::string one = member_string(body, "warning");
  const auto several = parse_json(member_text(body, "warnings"), reply_bounds);
  std::string out = one;
  if (several && several->is_array())
    for (const json& each : *several)
      if (each.is_string()) out += (out.empty() ? "" : "; ") + each.get<std::string>();
  return out.empty() ? member_string(body, "warnings") : out;
}

inline event_reply parse_event_reply(std::string_view body) {
  event_reply out;
  if (!is_object(body)) return out;
  out.received = member_text(body, "received") != "false";
  out.cancelled = member_text(body, "cancelled") == "true";
  out.model_id = member_id(body, "modelId");
  out.run_id = member_id(body, "runId");
  if (const std::string name = member_string(body, "modelSlug"); is_segment(name)) out.slug = name;
  const std::string page = without_query(member_string(body, "modelUrl"));
  if (parse_url(page)) out.page = page;
  out.warning = printable(warnings_of(body));
  return out;
}

// A model's page: the one that the reply names, else what its names make.
inline std::string page_of(const run& of, const event_reply& told) {
  if (!told.page.empty()) return told.page;
  return of.at.web + "/" + of.project + "/" + (told.slug.empty() ? of.name : told.slug);
}

// How long a refusal asks to wait: the header, else the body's own member.
inline std::optional<duration> retry_after_of(const reply& answer,
                                              std::chrono::system_clock::time_point wall_now) {
  if (auto wait = parse_retry_after(answer.retry_after, wall_now)) return wait;
  if (!is_object(answer.body)) return std::nullopt;
  const std::string_view seconds = member_text(answer.body, "retryAfter");
  const std::string_view whole = seconds.substr(0, seconds.find('.'));
  return seconds.starts_with('"')
             ? parse_retry_after(member_string(answer.body, "retryAfter"), wall_now)
             : parse_retry_after(whole, wall_now);
}

// Reads the reply to upload_request.
inline result<upload_place> parse_upload_place(std::string_view body, const run& of) {
  upload_place out;
  if (is_object(body))
    out = {.url = member_string(body, "uploadUrl"),
           .path = member_string(body, "gcsPath"),
           .upload_path = member_string(body, "uploadPath")};
  const auto to = parse_target(out.url);
  if (!to) return unreadable("the request to upload", body, who);
  if (!to->tls && of.at.webhooks.starts_with("https:"))
    return error{errc::invalid_endpoint,
                 "The Platform's URL to upload to is not https as its own is, so the file could be "
                 "read and changed on its way. It is asked again; tell whoever runs the server."};
  return out;
}

// An upload's place for the order that carries it, without the URL if that has been used.
inline std::string encode_place(const upload_place& place, bool with_url) {
  object_writer out;
  if (with_url) out.string("url", place.url);
  out.string("path", place.path).string("uploadPath", place.upload_path);
  return out.integer("bytes", place.bytes).text();
}

inline upload_place parse_place(std::string_view memo) {
  if (!is_object(memo)) return {};
  return {member_string(memo, "url"), member_string(memo, "path"),
          member_string(memo, "uploadPath"), parse_size(member_text(memo, "bytes")).value_or(0)};
}

// What a reply came to, but for what it says.
inline outcome judge_call(const reply& answer, std::string_view subject,
                          std::chrono::system_clock::time_point wall_now) {
  outcome out = judge(answer, subject, wall_now, who);
  if (!answer.failure && out.verdict != verdict::delivered)
    out.retry_after = retry_after_of(answer, wall_now);
  return out;
}

// What the reply to an event came to, and what it taught. Any reply may say that the run was
// cancelled.
inline outcome judge_event(const reply& answer, std::string_view subject,
                           std::chrono::system_clock::time_point wall_now, event_reply& told) {
  outcome out = judge_call(answer, subject, wall_now);
  if (answer.failure) return out;
  told = parse_event_reply(answer.body);
  out.cancelled = told.cancelled;
  if (out.verdict == verdict::delivered && !told.received && !told.cancelled)
    out = {.verdict = verdict::retry,
           .why = {errc::bad_reply, std::string(who) + " says that it has not received " +
                                        std::string(subject) + ". It is sent again."}};
  return out;
}

// The same for training_started, without whose ids no event could name its run.
inline outcome judge_start(const reply& answer, std::chrono::system_clock::time_point wall_now,
                           event_reply& told) {
  constexpr std::string_view subject = "the registration of the run";
  outcome out = judge_event(answer, subject, wall_now, told);
  if (out.verdict == verdict::delivered && told.model_id.empty())
    return {.verdict = verdict::retry, .why = unreadable(subject, answer.body, who)};
  return out;
}

// Reads the reply to account_request: whose key this is.
inline result<std::string> parse_account(std::string_view body) {
  std::string user = is_object(body) ? member_string(body, "username") : std::string();
  if (user.empty()) return unreadable("the account", body, who);
  return user;
}

// ---- ul:// addresses ----

// A model or a dataset on the Platform.
struct resource {
  bool is_dataset = false;
  std::string owner = {};
  std::string project = {};  // of a model
  std::string name = {};
};

// Reads ul://USER/PROJECT/MODEL, ul://USER/datasets/NAME, or the page of either, which may end in a
// slash, a query or a fragment.
inline result<resource> parse_resource(std::string_view text, std::string_view web_root) {
  const auto refuse = [&] {
    return error{errc::invalid_identifier,
                 in_quotes(without_query(text)) +
                     " names no model or dataset of the Platform. Give ul://USER/PROJECT/MODEL, "
                     "ul://USER/datasets/NAME, or its page below " +
                     std::string(web_root) + "."};
  };
  const std::string pages = std::string(web_root) + "/";
  std::string_view rest = text;
  if (rest.starts_with("ul://"))
    rest.remove_prefix(5);
  else if (rest.starts_with(pages))
    rest.remove_prefix(pages.size());
  else
    return refuse();
  rest = rest.substr(0, rest.find_first_of("?#"));
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const std::size_t first = rest.find('/');
  const std::size_t second = first == std::string_view::npos ? first : rest.find('/', first + 1);
  if (second == std::string_view::npos) return refuse();
  resource out{.owner = std::string(rest.substr(0, first)),
               .project = std::string(rest.substr(first + 1, second - first - 1)),
               .name = std::string(rest.substr(second + 1))};
  if (!is_segment(out.owner) || !is_segment(out.project) || !is_segment(out.name)) return refuse();
  out.is_dataset = out.project == "datasets";
  if (out.is_dataset) out.project.clear();
  return out;
}

// Asks for a model's files or a dataset's export.
inline request resource_request(const run& of, const resource& wanted) {
  const std::string path =
      wanted.is_dataset
          ? "/api/datasets/" + wanted.owner + "/" + wanted.name + "/export"
          : "/api/models/" + wanted.owner + "/" + wanted.project + "/" + wanted.name + "/files";
  return authorized_request(of, "GET", of.at.web + path);
}

// The same as servers knew it until September 2026: the reply is a redirect to the signed URL.
inline request older_resource_request(const run& of, const resource& wanted) {
  const std::string path =
      wanted.is_dataset
          ? "/datasets/" + wanted.owner + "/" + wanted.name + "/export"
          : "/models/" + wanted.owner + "/" + wanted.project + "/" + wanted.name + "/download";
  return authorized_request(of, "HEAD", of.at.webhooks + path);
}

// Of a model's files the best weights, else the last ones, else any.
inline std::string pick_weights(const json& files) {
  std::string best, last, other;
  for (const json& file : files) {
    const std::string name = get_string(file, "name");
    const std::string url = get_string(file, "downloadUrl");
    if (url.empty() || !name.ends_with(".pt")) continue;
    std::string& place = name == "best.pt" ? best : name == "last.pt" ? last : other;
    if (place.empty()) place = url;
  }
  return !best.empty() ? best : !last.empty() ? last : other;
}

// Reads the reply to resource_request: the signed URL, "" if the model has no weights yet.
inline result<std::string> parse_resource_reply(std::string_view body, const resource& wanted) {
  if (wanted.is_dataset) {
    std::string url = is_object(body) ? member_string(body, "downloadUrl") : std::string();
    if (url.empty()) return unreadable("the request for the dataset", body, who);
    return url;
  }
  const auto files = is_object(body) ? parse_json(member_text(body, "files")) : std::nullopt;
  if (!files || !files->is_array())
    return unreadable("the request for the model's files", body, who);
  return pick_weights(*files);
}

// Reads the reply to older_resource_request.
inline result<std::string> parse_older_resource_reply(const reply& answer) {
  if (answer.status < 300 || answer.status >= 400 || answer.location.empty())
    return unreadable("the request for the file", answer.body, who);
  return answer.location;
}

// What the reply to resource_request (step 0) or older_resource_request (step 1) came to. Delivered:
// `url` leads to the file.
inline outcome judge_resource(const run& of, const resource& wanted, const progress& at,
                              const reply& answer, std::chrono::system_clock::time_point wall_now,
                              std::string& url) {
  using enum verdict;
  const std::string name = wanted.is_dataset ? "dataset" : "model file";
  const bool older = at.step > 0;
  // Only an older server does not know the newer call; of one that does, the older call says the same.
  if (!older && !answer.failure && (answer.status == 404 || answer.status == 405))
    return {.verdict = advanced, .so_far = {1, {}}};
  if (!answer.failure && answer.status == 409)
    return {rejected,
            {errc::dataset_not_ready,
             "The Platform is still processing the " + name + ". Try again later.", 409}};
  outcome out = judge_call(answer, "the request for the " + name, wall_now);
  const bool redirects = older && storage_host::is_redirect(answer.status);
  if (out.verdict != delivered && !redirects) return out;
  const auto found =
      older ? parse_older_resource_reply(answer) : parse_resource_reply(answer.body, wanted);
  if (!found) return {older ? rejected : retry, found.error()};
  auto address = storage_host::download_address(*found, name, of.at.web, who);
  if (!address) return {rejected, address.error()};
  url = *std::move(address);
  return {};
}

}  // namespace platform_wire

// ---- Ultralytics Platform as a policy -----------------------------------------------------------

// Ultralytics Platform, which took HUB's place in 2026.
struct platform {
  using identity = platform_run;
  struct run {
    platform_wire::run of = {};
    bool resumes = false;
    unsigned spool_number = 0;
  };
  // What a reply taught; a member is empty if it said nothing new.
  struct news {
    platform_wire::event_reply told = {};
  };
  static constexpr std::string_view name = "platform";
  static constexpr std::string_view spool_file = "platform.json";
  static constexpr protocol_traits traits = {.service = "Ultralytics Platform",
                                             .registers = true,
                                             .completes = true,
                                             .takes_console = true,
                                             .shows_system = true,
                                             .life_in_silence_only = true,
                                             .life_is_optional = true,
                                             .epochs_per_request_max = 1,
                                             .requests_per_minute_max = 100};

  // ---- the start -----------------------------------------------------------------------------------

  static result<run> identify(const identity& who, const endpoint_options& at,
                              const variable_reader& variable) {
    const auto given_or = [&](const std::string& given, const char* name) {
      const std::string own(text::trimmed(given));
      return own.empty() ? std::string(text::trimmed(variable(name))) : own;
    };
    auto roots = platform_wire::parse_roots(given_or(at.web, "ULTRALYTICS_PLATFORM_URL"),
                                            given_or(at.api, "PLATFORM_API_URL"));
    if (!roots) return roots.error();
    auto of = platform_wire::make_run(who, *std::move(roots));
    if (!of) return of.error();
    return run{.of = *std::move(of), .resumes = who.resume, .spool_number = who.spool_number};
  }

  static std::string credentials(const run& of) { return of.of.api_key; }
  static std::optional<error> accept(run& of, credential given) {
    if (auto why = platform_wire::check_key(given.key)) return why;
    of.of.api_key = std::move(given.key);
    return std::nullopt;
  }
  // What the program lets be told of the machine; and that, as the text of a JSON object.
  static environment_disclosure disclosure(const identity& who) { return who.environment; }
  static void describe(run& of, const machine_facts& facts) {
    of.of.environment = platform_wire::encode_environment(facts);
  }
  static std::string key_page(const run& of) { return of.of.at.web + "/settings"; }
  static error no_key(const run&) { return *platform_wire::check_key(""); }

  // The run is made by an order of its own, so that a training begins also while the Platform is away.
  static std::optional<request> opening(const run&, const progress&) { return std::nullopt; }
  static outcome judge_opening(run&, const progress&, const reply&, wall_time) { return {}; }

  // ---- orders --------------------------------------------------------------------------------------

  static request make(const run& of, const registration_order&, const progress&, const sending&) {
    return platform_wire::start_request(of.of);
  }
  static request make(const run& of, const life_order&, const progress&, const sending& with) {
    return platform_wire::event_request(of.of, "system_metrics",
                                        platform_wire::encode_system(with.system));
  }
  static request make(const run& of, const epochs_order& order, const progress&,
                      const sending& with) {
    return platform_wire::event_request(
        of.of, "epoch_end", platform_wire::encode_epoch(order.batch.front(), with.system));
  }
  static request make(const run& of, const console_order& order, const progress&, const sending&) {
    std::string content;
    for (const std::string& line : *order.lines) content += (content.empty() ? "" : "\n") + line;
    return platform_wire::event_request(
        of.of, "console_output",
        platform_wire::encode_console(order.chunk, content, order.lines->size()));
  }
  // The end, with what the final upload's last step left in the order.
  static request make(const run& of, const completion_order& order, const progress& at,
                      const sending&) {
    if (order.how->failure)
      return platform_wire::event_request(of.of, "training_failed",
                                          platform_wire::encode_failure(*order.how->failure));
    const platform_wire::upload_place model = platform_wire::parse_place(at.memo);
    return platform_wire::event_request(
        of.of, "training_complete",
        platform_wire::encode_completion(of.of, order.how->results,
                                         {.epoch = order.how->epoch,
                                          .map = order.how->map,
                                          .model_path = model.path,
                                          .model_bytes = model.bytes}));
  }
  // An upload's three steps: where to, the file itself, and that it is there.
  static request make(const run& of, const upload_order& order, const progress& at,
                      const sending& with) {
    if (at.step == 0) return platform_wire::upload_request(of.of, order.file.fields);
    const platform_wire::upload_place place = platform_wire::parse_place(at.memo);
    if (at.step == 1) return storage_host::put_request(place.url, with.file);
    return platform_wire::saved_request(of.of, place);
  }
  static bool sends_file(const progress& at) { return at.step == 1; }

  static outcome judge(const run&, const registration_order&, const progress&, const reply& answer,
                       wall_time wall_now, news& learned) {
    return platform_wire::judge_start(answer, wall_now, learned.told);
  }
  static outcome judge(const run&, const life_order&, const progress&, const reply& answer,
                       wall_time wall_now, news& learned) {
    // No client of the Platform's sends these, so a server that does not know them says so for good.
    outcome out = judge_event(answer, "a sign of life", wall_now, learned);
    if (answer.status == 404 || answer.status == 405) out.verdict = verdict::rejected;
    return out;
  }
  static outcome judge(const run&, const epochs_order&, const progress&, const reply& answer,
                       wall_time wall_now, news& learned) {
    return judge_event(answer, "metrics", wall_now, learned);
  }
  static outcome judge(const run&, const console_order&, const progress&, const reply& answer,
                       wall_time wall_now, news& learned) {
    outcome out = judge_event(answer, "console lines", wall_now, learned);
    if (answer.status == 409) out.verdict = verdict::restart;  // another chunk has this number
    return out;
  }
  static outcome judge(const run&, const completion_order&, const progress&, const reply& answer,
                       wall_time wall_now, news& learned) {
    return judge_event(answer, "the end of the training", wall_now, learned);
  }
  static outcome judge(const run& of, const upload_order& order, const progress& at,
                       const reply& answer, wall_time wall_now, news& learned) {
    if (at.step == 0) return judge_place(of, answer, wall_now);
    platform_wire::upload_place place = platform_wire::parse_place(at.memo);
    outcome out;
    if (at.step == 1) {
      const auto to = text::parse_target(place.url);
      out = storage_host::judge_put(answer, to ? to->host : "", wall_now);
      // Older servers name no run, and so want to hear no more of the file.
      const bool is_announced = !of.of.run_id.empty() && !place.path.empty();
      if (out.verdict == verdict::delivered && is_announced) out.verdict = verdict::advanced;
      place.bytes = order.file.bytes;
    } else {
      out = judge_event(answer, "a checkpoint's arrival", wall_now, learned);
    }
    if (out.verdict == verdict::advanced || out.verdict == verdict::delivered)
      out.so_far = {at.step + 1, platform_wire::encode_place(place, false)};
    return out;
  }

  // ---- what is known of the run --------------------------------------------------------------------

  static void adopt(run& of, news&& learned) {
    platform_wire::event_reply& told = learned.told;
    if (told.model_id.empty() || is_registered(of)) return;
    of.of.page = platform_wire::page_of(of.of, told);
    of.of.model_id = std::move(told.model_id);
    if (!told.run_id.empty()) of.of.run_id = std::move(told.run_id);
  }
  static std::string warning(const news& learned) { return learned.told.warning; }
  static std::string page(const run& of) { return of.of.page; }
  static std::string upload_name(const upload_fields& fields) {
    return std::string(platform_wire::upload_file_name(fields));
  }
  static std::string folder(const run& of, unsigned number) {
    std::string out = "platform-" + of.of.project + "-" + of.of.name;
    std::replace(out.begin(), out.end(), '/', '-');
    return number == 1 ? out : out + "-" + std::to_string(number);
  }
  static bool resumes(const run& of) { return of.resumes; }
  static std::string remember(const run& of) { return platform_wire::encode_run(of.of); }
  static bool recall(run& of, std::string_view remembered) {
    auto known = platform_wire::parse_run(remembered);
    // Two names can share a folder, where '-' stands for '/'.
    if (!known || known->at.web != of.of.at.web || known->project != of.of.project ||
        known->name != of.of.name)
      return false;
    known->at = std::move(of.of.at);
    known->api_key = std::move(of.of.api_key);
    of.of = *std::move(known);
    return true;
  }
  static bool is_registered(const run& of) { return !of.of.model_id.empty(); }
  // A model's weights or a dataset by its ul:// address or its page, in the newest way that the server
  // knows.
  static result<file_query> query_file(const run& of, std::string_view address, bool is_dataset) {
    const auto wanted = platform_wire::parse_resource(address, of.of.at.web);
    if (!wanted) return wanted.error();
    if (wanted->is_dataset != is_dataset)
      return error{errc::invalid_identifier,
                   platform_wire::in_quotes(address) + " is a " +
                       (wanted->is_dataset ? "dataset. Call fetch_dataset."
                                           : "model. Call fetch_model_file.")};
    return file_query{is_dataset ? "dataset" : "model file",
                      [of = of.of, wanted = *wanted](const progress& at) {
                        return at.step == 0 ? platform_wire::resource_request(of, wanted)
                                            : platform_wire::older_resource_request(of, wanted);
                      },
                      [of = of.of, wanted = *wanted](const progress& at, const reply& answer,
                                                     wall_time wall_now, std::string& url) {
                        return platform_wire::judge_resource(of, wanted, at, answer, wall_now, url);
                      }};
  }

  static std::string encode_figures(const system_figures& figures) {
    return platform_wire::encode_figures(figures);
  }
  static std::string encode_results(const training_results& results) {
    return platform_wire::encode_results(results);
  }
  static std::string results_problem(const training_results& results) {
    return platform_wire::results_problem(results);
  }

 private:
  static outcome judge_event(const reply& answer, std::string_view subject, wall_time wall_now,
                             news& learned) {
    return platform_wire::judge_event(answer, subject, wall_now, learned.told);
  }
  static outcome judge_place(const run& of, const reply& answer, wall_time wall_now) {
    outcome out = platform_wire::judge_call(answer, "the request to upload", wall_now);
    if (out.verdict != verdict::delivered) return out;
    const auto place = platform_wire::parse_upload_place(answer.body, of.of);
    if (!place) return {.verdict = verdict::retry, .why = place.error()};
    return {.verdict = verdict::advanced, .so_far = {1, platform_wire::encode_place(*place, true)}};
  }
};

// ---- folders in a spool ------------------------------------------------------------------------

// Whose folder this is, and what its run file says of that; nothing if it is no protocol's from
// here. `read` returns the text of a file in it, "" for none.
inline std::optional<spooled_model> owner_of_folder(
    const std::string& folder, const std::function<std::string(std::string_view file)>& read) {
  const auto run = platform_wire::parse_run(read(platform::spool_file));
  if (!run) {
    if (!hub_v1_wire::is_model_id(folder)) return std::nullopt;
    return spooled_model{.model_id = folder, .protocol = std::string(hub_v1::name)};
  }
  spooled_model out{.model_id = run->model_id,
                    .protocol = std::string(platform::name),
                    .project = run->project,
                    .name = run->name};
  const std::string lead = platform::folder({.of = *run}, 1) + "-";
  if (folder.starts_with(lead))
    out.number =
        static_cast<unsigned>(text::parse_size(folder.substr(lead.size())).value_or(out.number));
  return out;
}

// =================================================================================================
// machine
//
// Rules: the files, the environment, the terminal and the signals of the machine it runs on, and nothing
// of what is sent. Operating system calls stand in this room and among the default policies only, each
// beside a branch in standard C++ or for Windows.
// =================================================================================================

namespace machine {

namespace fs = std::filesystem;

// ---- what is needed of a POSIX system -----------------------------------------------------------

#if defined(HUB_SESSION_POSIX)

// Functions of the system's that stand in headers full of macros, each under a name of ours and bound
// to the system's symbol, so that no declaration of the user's is in the way. What the system keeps in a
// struct of its own goes into an `opaque`, so that its layout need not be known. The numbers are the
// same on all systems; tests/machine.cpp compares them with what this one's headers say.
namespace posix {

#define HUB_SESSION_TEXT_OF(word) #word
#define HUB_SESSION_TEXT(word) HUB_SESSION_TEXT_OF(word)
#define HUB_SESSION_SYMBOL(name) __asm__(HUB_SESSION_TEXT(__USER_LABEL_PREFIX__) #name)

// Room for a sigset_t, a struct sigaction or a termios: more than any of them takes.
struct alignas(16) opaque {
  std::array<unsigned char, 512> bytes = {};
};

inline constexpr int standard_in = 0, standard_error = 2;
int own_id() noexcept HUB_SESSION_SYMBOL(getpid);
unsigned own_user() noexcept HUB_SESSION_SYMBOL(getuid);
int host_name(char* out, std::size_t bytes) noexcept HUB_SESSION_SYMBOL(gethostname);
int is_terminal(int descriptor) noexcept HUB_SESSION_SYMBOL(isatty);
int close(int descriptor) HUB_SESSION_SYMBOL(close);
int make_pipe(int* ends) noexcept HUB_SESSION_SYMBOL(pipe);
std::ptrdiff_t read(int descriptor, void* out, std::size_t bytes) HUB_SESSION_SYMBOL(read);
std::ptrdiff_t write(int descriptor, const void* from, std::size_t bytes) HUB_SESSION_SYMBOL(write);
int force_to_disk(int descriptor) HUB_SESSION_SYMBOL(fsync);

inline constexpr int set_flags = 2, close_on_exec = 1;
#if defined(__APPLE__)
inline constexpr int force_to_platter = 51;  // F_FULLFSYNC
#endif
int control(int descriptor, int command, ...) HUB_SESSION_SYMBOL(fcntl);

inline constexpr int exclusive = 2, without_waiting = 4;
int lock(int descriptor, int how) noexcept HUB_SESSION_SYMBOL(flock);

#if defined(__linux__)
// Weak, as with C libraries before glibc 2.34 a program need not be linked with what has them.
void* open_library(const char* name, int how) HUB_SESSION_SYMBOL(dlopen) __attribute__((weak));
void* symbol_of(void* library, const char* name) noexcept HUB_SESSION_SYMBOL(dlsym)
    __attribute__((weak));
inline constexpr int resolve_now = 2;

// Weak, as older C libraries do not have it. Copies by reference if the file system can.
std::ptrdiff_t copy_range(int from, std::int64_t* from_at, int to, std::int64_t* to_at,
                          std::size_t bytes, unsigned flags) HUB_SESSION_SYMBOL(copy_file_range)
    __attribute__((weak));
#endif

#if defined(__linux__) || defined(__APPLE__)
// A struct passwd: the layout is that of Linux, and that of macOS.
struct person {
  char* name;
  char* password;
  unsigned user;
  unsigned group;
#if defined(__APPLE__)
  std::time_t changes;
  char* kind;
#endif
  char* full_name;
  char* home;
  char* shell;
#if defined(__APPLE__)
  std::time_t ends;
#endif
};
int find_person(unsigned user, person* out, char* texts, std::size_t bytes, person** found)
    HUB_SESSION_SYMBOL(getpwuid_r);
#endif

// All systems have the same layout of this one.
struct polled {
  int descriptor;
  short events;
  short revents;
};
inline constexpr short readable = 1, writable = 4;
int poll(polled* those, unsigned long count, int milliseconds) HUB_SESSION_SYMBOL(poll);

inline constexpr int hang_up = 1, interrupt = 2, quit = 3, broken_pipe = 13, terminate = 15;
#if defined(__linux__) && !defined(__mips__) && !defined(__alpha__)
inline constexpr int add_to_mask = 0, replace_mask = 2;
#else
inline constexpr int add_to_mask = 1, replace_mask = 3;
#endif
using handler = void (*)(int);
inline handler ignored() noexcept { return reinterpret_cast<handler>(1); }  // SIG_IGN
int send_signal(int process, int number) noexcept HUB_SESSION_SYMBOL(kill);
int all_signals(opaque* set) noexcept HUB_SESSION_SYMBOL(sigfillset);
int no_signals(opaque* set) noexcept HUB_SESSION_SYMBOL(sigemptyset);
int add_signal(opaque* set, int number) noexcept HUB_SESSION_SYMBOL(sigaddset);
int has_signal(const opaque* set, int number) noexcept HUB_SESSION_SYMBOL(sigismember);
int pending_signals(opaque* set) noexcept HUB_SESSION_SYMBOL(sigpending);
int take_signal(const opaque* set, int* taken) HUB_SESSION_SYMBOL(sigwait);
int mask_signals(int how, const opaque* set, opaque* before) noexcept
    HUB_SESSION_SYMBOL(pthread_sigmask);
int signal_action(int number, const opaque* action, opaque* before) noexcept
    HUB_SESSION_SYMBOL(sigaction);
handler handle_signal(int number, handler action) noexcept HUB_SESSION_SYMBOL(signal);

inline constexpr int after_output = 2;  // and what was typed before is thrown away
int terminal_modes(int descriptor, opaque* modes) noexcept HUB_SESSION_SYMBOL(tcgetattr);
int set_terminal_modes(int descriptor, int when, const opaque* modes) HUB_SESSION_SYMBOL(tcsetattr);
void make_raw(opaque* modes) noexcept HUB_SESSION_SYMBOL(cfmakeraw);
int foreground_group(int descriptor) noexcept HUB_SESSION_SYMBOL(tcgetpgrp);
int own_group() noexcept HUB_SESSION_SYMBOL(getpgrp);

#undef HUB_SESSION_SYMBOL
#undef HUB_SESSION_TEXT
#undef HUB_SESSION_TEXT_OF

}  // namespace posix

#endif

// ---- what is needed of Windows ------------------------------------------------------------------

#if defined(HUB_SESSION_WINDOWS)

// <windows.h> has thousands of macros, and many a program has its own wish of what it leaves out. So
// only the two functions that find all others are declared, beside the includes, and the structs that
// the others take have names of ours here; tests/windows.cpp compares them with the system's.
namespace windows {

// A function of the system's, by its name in one of its libraries.
template <class Signature>
class call;
template <class Out, class... In>
class call<Out(In...)> {
 public:
  call(const wchar_t* library, const char* name) noexcept
      : function_(reinterpret_cast<pointer>(
            reinterpret_cast<void*>(::GetProcAddress(::LoadLibraryW(library), name)))) {}
  Out operator()(In... in) const noexcept { return function_(in...); }

 private:
  using pointer = Out(__stdcall*)(In...);
  pointer function_;
};

using handle = void*;
inline handle no_handle() noexcept { return reinterpret_cast<handle>(std::intptr_t{-1}); }
inline constexpr int yes = 1, no = 0;

inline constexpr const wchar_t* kernel = L"kernel32.dll";
inline constexpr const wchar_t* rights = L"advapi32.dll";

inline const call<unsigned long()> last_error{kernel, "GetLastError"};
inline constexpr int lock_violation = 33;
inline const call<int(handle)> close{kernel, "CloseHandle"};

struct access {
  unsigned long bytes = sizeof(access);
  void* descriptor = nullptr;
  int inherited = no;
};
inline const call<handle(const wchar_t* name, unsigned long rights, unsigned long sharing, access*,
                         unsigned long how, unsigned long flags, handle like)>
    create_file{kernel, "CreateFileW"};
inline constexpr unsigned long read_attributes = 0x80, rename_or_remove = 0x110000,
                               write_data = 0x40000000, read_data = 0x80000000;
inline constexpr unsigned long share_all = 7;  // reading, writing, and renaming or removing
inline constexpr unsigned long create_new = 1, create_anew = 2, open_existing = 3,
                               open_or_create = 4;
inline constexpr unsigned long also_folders = 0x2000000, not_what_it_links_to = 0x200000;
inline const call<int(const wchar_t* name, access*)> create_folder{kernel, "CreateDirectoryW"};

struct file_facts {
  unsigned long attributes = 0;
  std::array<unsigned long, 2> created = {}, accessed = {}, written = {};
  unsigned long volume = 0, size_high = 0, size_low = 0, links = 0, index_high = 0, index_low = 0;
};
inline const call<int(handle, file_facts*)> look_at{kernel, "GetFileInformationByHandle"};

inline const call<int(const wchar_t* from, const wchar_t* to, unsigned long how)> move_file{
    kernel, "MoveFileExW"};
inline const call<int(const wchar_t* name)> delete_file{kernel, "DeleteFileW"};
inline constexpr unsigned long take_its_place = 1, wait_for_disk = 8;
struct renaming {
  unsigned long how = 3;  // take its place, also where it is open
  handle folder = nullptr;
  unsigned long name_bytes = 0;
  std::array<wchar_t, 1024> name = {};
};
inline const call<int(handle, int which, void*, unsigned long bytes)> change_file{
    kernel, "SetFileInformationByHandle"};
inline constexpr int rename_whoever_has_it = 22;

struct place {
  std::array<std::uintptr_t, 2> reserved = {};
  unsigned long at_low = 0, at_high = 0;
  handle event = nullptr;
};
inline const call<int(handle, unsigned long how, unsigned long, unsigned long bytes_low,
                      unsigned long bytes_high, place*)>
    lock{kernel, "LockFileEx"};
inline constexpr unsigned long without_waiting = 1, exclusive = 2;
inline const call<int(handle)> force_to_disk{kernel, "FlushFileBuffers"};

struct user {
  void* id;
  unsigned long attributes;
};
inline const call<int(handle process, unsigned long rights, handle* token)> open_token{
    rights, "OpenProcessToken"};
inline const call<int(handle token, int which, void* out, unsigned long bytes, unsigned long* used)>
    token_facts{rights, "GetTokenInformation"};
inline constexpr unsigned long may_query = 8;
inline constexpr int of_user = 1;
inline const call<int(void* id, wchar_t** text)> text_of_id{rights, "ConvertSidToStringSidW"};
inline const call<int(const wchar_t* text, unsigned long revision, void** descriptor,
                      unsigned long* bytes)>
    read_descriptor{rights, "ConvertStringSecurityDescriptorToSecurityDescriptorW"};
inline const call<void*(void*)> free{kernel, "LocalFree"};

inline const call<int(unsigned code_page, unsigned long flags, const wchar_t*, int count, char* out,
                      int bytes, const char* unknown, int* any_unknown)>
    narrow{kernel, "WideCharToMultiByte"};
inline const call<int(unsigned code_page, unsigned long flags, const char*, int bytes, wchar_t* out,
                      int count)>
    widen{kernel, "MultiByteToWideChar"};
inline constexpr unsigned utf8 = 65001;
inline const call<wchar_t*()> command_line{kernel, "GetCommandLineW"};

inline const call<handle(unsigned long which)> standard_handle{kernel, "GetStdHandle"};
inline constexpr unsigned long standard_error = static_cast<unsigned long>(-12);
inline const call<int(handle, unsigned long* modes)> console_modes{kernel, "GetConsoleMode"};
inline const call<int(handle, unsigned long modes)> set_console_modes{kernel, "SetConsoleMode"};
inline constexpr unsigned long with_escapes = 4;
inline const call<int(handle, const wchar_t*, unsigned long count, unsigned long* written, void*)>
    write_console{kernel, "WriteConsoleW"};
using console_handler = int(__stdcall*)(unsigned long event);
inline const call<int(console_handler, int add)> handle_console{kernel, "SetConsoleCtrlHandler"};
inline constexpr unsigned long ctrl_c = 0, ctrl_break = 1;
// A console that is closed, the end of a user's session and of the system end the program, too.
constexpr int signal_of(unsigned long event) noexcept {
  return event == ctrl_c ? SIGINT : event == ctrl_break ? SIGBREAK : SIGTERM;
}

inline std::error_code why() noexcept {
  return {static_cast<int>(last_error()), std::system_category()};
}

// A name may hold half a character, which becomes U+FFFD; std::filesystem would throw.
inline std::string to_utf8(std::wstring_view text) {
  const int count = static_cast<int>(text.size());
  std::string out(3 * text.size(), '\0');  // no wide character takes more
  const int bytes = narrow(utf8, 0, text.data(), count, out.data(), static_cast<int>(out.size()),
                           nullptr, nullptr);
  out.resize(static_cast<std::size_t>(bytes));
  return out;
}
inline std::wstring from_utf8(std::string_view text) {
  std::wstring out(text.size(), L'\0');
  const int bytes = static_cast<int>(text.size());
  const int count = widen(utf8, 0, text.data(), bytes, out.data(), bytes);
  out.resize(static_cast<std::size_t>(count));
  return out;
}

// An access list for this user alone, which what is made in a folder inherits. Null where the system
// makes none: then what should be private is not made.
inline void* private_descriptor() {
  static void* const known = [] {
    void* out = nullptr;
    handle token = nullptr;
    const handle this_process = no_handle();
    if (!open_token(this_process, may_query, &token)) return out;
    alignas(user) std::array<char, 256> facts = {};
    unsigned long used = 0;
    wchar_t* id = nullptr;
    if (token_facts(token, of_user, facts.data(), static_cast<unsigned long>(facts.size()),
                    &used) &&
        text_of_id(reinterpret_cast<user*>(facts.data())->id, &id)) {
      const std::wstring list = L"D:P(A;OICI;FA;;;" + std::wstring(id) + L")";
      read_descriptor(list.c_str(), 1, &out, nullptr);
      free(id);
    }
    close(token);
    return out;
  }();
  return known;
}

}  // namespace windows

#endif

// ---- the process --------------------------------------------------------------------------------

// For dice that shall fall otherwise in each process.
inline std::uint64_t random_seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

// For constructors alone, on the thread that calls them: beside another thread's setenv() it would read
// what is freed.
inline std::string env(const char* name) {
#if defined(HUB_SESSION_WINDOWS)
  const wchar_t* value = ::_wgetenv(windows::from_utf8(name).c_str());
  return value ? windows::to_utf8(value) : "";
#else
  const char* value = std::getenv(name);
  return value ? value : "";
#endif
}

// This process's number, to tell a forked child from its parent. A callback asks for it each time,
// so it is looked up again only after a fork.
inline int process_id() noexcept {
#if defined(HUB_SESSION_POSIX)
  static std::atomic<int> known = [] {
    ::pthread_atfork(nullptr, nullptr, [] { known = posix::own_id(); });
    return posix::own_id();
  }();
  return known.load(std::memory_order_relaxed);
#elif defined(HUB_SESSION_WINDOWS)
  return ::_getpid();
#else
  return 0;
#endif
}

enum class stream { standard_in, standard_error };

inline bool is_terminal(stream which) noexcept {
#if defined(HUB_SESSION_POSIX)
  return posix::is_terminal(which == stream::standard_in ? posix::standard_in
                                                         : posix::standard_error) == 1;
#elif defined(HUB_SESSION_WINDOWS)
  return ::_isatty(::_fileno(which == stream::standard_in ? stdin : stderr)) != 0;
#else
  static_cast<void>(which);
  return false;
#endif
}

// Whether what is written to standard error may carry colours and move the cursor.
inline bool takes_escapes() noexcept {
#if defined(HUB_SESSION_WINDOWS)
  const windows::handle console = windows::standard_handle(windows::standard_error);
  unsigned long modes = 0;
  return windows::console_modes(console, &modes) &&
         windows::set_console_modes(console, modes | windows::with_escapes);
#else
  return is_terminal(stream::standard_error);
#endif
}

// A thread that takes none of the program's signals, so that they interrupt the threads that they
// would interrupt without us. SIGPIPE is among them.
template <class Work>
std::thread quiet_thread(Work work) {
#if defined(HUB_SESSION_POSIX)
  posix::opaque all, before;
  posix::all_signals(&all);
  posix::mask_signals(posix::replace_mask, &all, &before);
  struct restore {
    const posix::opaque& mask;
    ~restore() { posix::mask_signals(posix::replace_mask, &mask, nullptr); }
  } restored{before};
#endif
  return std::thread(std::move(work));
}

#if defined(HUB_SESSION_POSIX)
// Keeps SIGPIPE from the program while this thread writes to a socket or a pipe, and drains one that
// came, so that the process's own disposition is neither needed nor changed.
class sigpipe_guard {
 public:
  sigpipe_guard() {
    posix::no_signals(&sigpipe_);
    posix::add_signal(&sigpipe_, posix::broken_pipe);
    posix::mask_signals(posix::add_to_mask, &sigpipe_, &before_);
    was_pending_ = pending();
  }
  sigpipe_guard(const sigpipe_guard&) = delete;
  sigpipe_guard& operator=(const sigpipe_guard&) = delete;
  ~sigpipe_guard() {
    if (!was_pending_ && pending()) {
      int taken = 0;
      posix::take_signal(&sigpipe_, &taken);
    }
    posix::mask_signals(posix::replace_mask, &before_, nullptr);
  }

 private:
  static bool pending() {
    posix::opaque now;
    posix::pending_signals(&now);
    return posix::has_signal(&now, posix::broken_pipe) == 1;
  }
  posix::opaque sigpipe_;
  posix::opaque before_;
  bool was_pending_ = false;
};
#else
struct sigpipe_guard {
  sigpipe_guard() {}  // there is no such signal
};
#endif

// Writes to standard error, past the program's buffers and their locks. Whether somebody reads there is
// looked at first, again and again until `given_up` says that it has been long enough.
template <class GivenUp>
void write_to_standard_error(std::string_view text, [[maybe_unused]] const GivenUp& given_up) {
#if defined(HUB_SESSION_POSIX)
  constexpr int look_again_ms = 20;
  constexpr std::size_t piece_bytes = 512;  // what every pipe that takes anything takes at once
  const sigpipe_guard no_sigpipe;
  while (!text.empty()) {
    posix::polled out = {posix::standard_error, posix::writable, 0};
    if (posix::poll(&out, 1, look_again_ms) <= 0) {
      if (given_up()) return;
      continue;
    }
    const auto written =
        posix::write(posix::standard_error, text.data(), std::min(text.size(), piece_bytes));
    if (written < 0 && errno != EINTR && errno != EAGAIN) return;  // nobody reads there any more
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
#else
#if defined(HUB_SESSION_WINDOWS)
  // A console would take the bytes for those of its own code page.
  const windows::handle console = windows::standard_handle(windows::standard_error);
  const std::wstring wide = windows::from_utf8(text);
  unsigned long any = 0;
  if (windows::console_modes(console, &any) &&
      windows::write_console(console, wide.data(), static_cast<unsigned long>(wide.size()), &any,
                             nullptr))
    return;
#endif
  std::fwrite(text.data(), 1, text.size(), stderr);
#endif
}

// The calendar's time where this machine stands, in whole seconds.
inline std::chrono::local_seconds local_time(std::chrono::system_clock::time_point when) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(when);
  std::tm fields{};
#if defined(HUB_SESSION_WINDOWS)
  ::localtime_s(&fields, &seconds);
#else
  ::localtime_r(&seconds, &fields);
#endif
  using namespace std::chrono;
  const local_days day(year(fields.tm_year + 1900) / (fields.tm_mon + 1) / fields.tm_mday);
  return day + hours(fields.tm_hour) + minutes(fields.tm_min) + std::chrono::seconds(fields.tm_sec);
}

// ---- what this machine is ----------------------------------------------------------------------

inline std::string host_name() {
#if defined(HUB_SESSION_POSIX)
  std::array<char, 256> name{};
  return posix::host_name(name.data(), name.size() - 1) == 0 ? name.data() : "";
#else
  return env("COMPUTERNAME");
#endif
}

// A path's name in UTF-8, whatever it is in the system.
inline std::string utf8_of(const fs::path& file) {
#if defined(HUB_SESSION_WINDOWS)
  return windows::to_utf8(file.native());
#else
  return file.native();
#endif
}

// The words that started this program.
inline std::string command_line() {
#if defined(HUB_SESSION_WINDOWS)
  return windows::to_utf8(windows::command_line());
#else
  std::ifstream command("/proc/self/cmdline", std::ios::binary);  // there is none on other systems
  std::string words(std::istreambuf_iterator<char>(command), {});
  std::replace(words.begin(), words.end(), '\0', ' ');
  return words;
#endif
}

// What of the machine and the program may be told, as far as the program lets it.
inline machine_facts describe(environment_disclosure disclosure) {
  machine_facts out;
  if (disclosure == environment_disclosure::none) return out;
#if defined(HUB_SESSION_WINDOWS)
  out.system = "Windows";
#elif defined(__APPLE__)
  out.system = "macOS";
#else
  out.system = "Linux";
#endif
  out.processors = std::thread::hardware_concurrency();
  if (disclosure == environment_disclosure::machine) return out;
  std::error_code ignored;
  out.more = {host_name(), command_line(), utf8_of(fs::current_path(ignored))};
  return out;
}

// ---- files -------------------------------------------------------------------------------------

// A path in a message.
inline std::string shown(const fs::path& file) { return text::shown(utf8_of(file)); }

inline error file_error(const fs::path& file, std::string_view problem) {
  return {errc::file_error, "The file " + shown(file) + " " + std::string(problem) +
                                ", so it is not uploaded. Check the path given to the session."};
}

// If the program changes its working directory, the file is still found.
inline fs::path full_path(const fs::path& file) {
  std::error_code failed;
  fs::path full = fs::absolute(file, failed);
  return failed ? file : full;
}

// Where a name leads over symbolic links, also to what is not there yet: what replaces a file goes
// there, so that the link stays.
inline fs::path followed(fs::path file) {
  constexpr int links_max = 40;
  std::error_code failed;
  for (int i = 0; i < links_max && fs::is_symlink(fs::symlink_status(file, failed)); ++i) {
    const fs::path to = fs::read_symlink(file, failed);
    if (failed) break;
    file = file.parent_path() / to;
  }
  return file;
}

struct file_closer {
  void operator()(std::FILE* file) const noexcept { static_cast<void>(std::fclose(file)); }
};
using open_file = std::unique_ptr<std::FILE, file_closer>;

#if defined(HUB_SESSION_WINDOWS)
// A file's handle, in std::fopen's words for how. While it is open others may do with it what they may
// on other systems: rename it, put another in its place, remove it.
inline windows::handle open_handle(const fs::path& file, std::string_view mode,
                                   windows::access* access) {
  const bool both = mode.find('+') != mode.npos, reads = mode[0] == 'r';
  const unsigned long may =
      (reads || both ? windows::read_data : 0) | (!reads || both ? windows::write_data : 0);
  const unsigned long how = mode.find('x') != mode.npos ? windows::create_new
                            : reads                     ? windows::open_existing
                            : mode[0] == 'w'            ? windows::create_anew
                                                        : windows::open_or_create;
  return windows::create_file(file.c_str(), may, windows::share_all, access, how, 0, nullptr);
}

inline open_file file_of(windows::handle handle, std::string mode) {
  if (handle == windows::no_handle()) {
    const auto why = windows::why().default_error_condition();
    errno = why.category() == std::generic_category() ? why.value() : EIO;
    return nullptr;
  }
  std::erase(mode, 'x');
  constexpr int binary = 0x8000, append = 8, not_inherited = 0x80;
  const int descriptor = ::_open_osfhandle(reinterpret_cast<std::intptr_t>(handle),
                                           binary | not_inherited | (mode[0] == 'a' ? append : 0));
  open_file out(descriptor < 0 ? nullptr : ::_fdopen(descriptor, mode.c_str()));
  if (descriptor < 0) windows::close(handle);
  if (descriptor >= 0 && !out) ::_close(descriptor);
  return out;
}

inline windows::handle handle_of(std::FILE* file) {
  return reinterpret_cast<windows::handle>(::_get_osfhandle(::_fileno(file)));
}
#endif

// Opens as std::fopen does, but without a buffer, so that what was written is the system's at once, and
// for this process alone. Null if that fails, and errno says why.
inline open_file open(const fs::path& file, std::string mode) {
#if defined(HUB_SESSION_WINDOWS)
  open_file out = file_of(open_handle(file, mode, nullptr), mode);
#else
#if defined(HUB_SESSION_POSIX)
  mode += 'e';
#endif
  open_file out(std::fopen(file.c_str(), mode.c_str()));
#endif
  if (out) std::setvbuf(out.get(), nullptr, _IONBF, 0);
  return out;
}

// A name by which std::filesystem finds a file that is open here, whatever became of its own name.
// If the system has no such names, that is `name`.
inline fs::path name_of_open([[maybe_unused]] std::FILE* file, const fs::path& name) {
#if defined(HUB_SESSION_POSIX)
  std::error_code none;
  fs::path out = "/dev/fd/" + std::to_string(fileno(file));
  if (fs::exists(out, none)) return out;
#endif
  return name;
}

// Whether `name` still leads to the file that is open here.
inline bool is_named(std::FILE* file, const fs::path& name) {
#if defined(HUB_SESSION_WINDOWS)
  const windows::handle there = windows::create_file(
      name.c_str(), windows::read_attributes, windows::share_all, nullptr, windows::open_existing,
      windows::also_folders | windows::not_what_it_links_to, nullptr);
  windows::file_facts ours, theirs;
  const bool known = windows::look_at(handle_of(file), &ours) && windows::look_at(there, &theirs);
  windows::close(there);
  return known && ours.volume == theirs.volume && ours.index_high == theirs.index_high &&
         ours.index_low == theirs.index_low;
#else
  std::error_code none;
  return fs::is_regular_file(fs::symlink_status(name, none)) &&
         fs::equivalent(name_of_open(file, name), name, none);
#endif
}

// Whether the file that was opened here by that name was removed.
inline bool is_removed(std::FILE* file, const fs::path& name) {
#if defined(HUB_SESSION_WINDOWS)
  return !is_named(file, name);
#else
  std::error_code failed;
  return fs::hard_link_count(name_of_open(file, name), failed) == 0 || failed;
#endif
}

// How the system counts in a file. On 32 bits that ends at 2 GiB, unless the program is compiled with
// -D_FILE_OFFSET_BITS=64.
#if defined(HUB_SESSION_POSIX)
using file_offset = off_t;
#elif defined(HUB_SESSION_WINDOWS)
using file_offset = std::int64_t;
#else
using file_offset = long;
#endif
inline constexpr std::uint64_t file_bytes_max = std::numeric_limits<file_offset>::max();

inline bool seek(std::FILE* file, std::uint64_t offset) {
  if (offset > file_bytes_max) return false;
  const auto to = static_cast<file_offset>(offset);
#if defined(HUB_SESSION_POSIX)
  return fseeko(file, to, SEEK_SET) == 0;
#elif defined(HUB_SESSION_WINDOWS)
  return ::_fseeki64(file, to, SEEK_SET) == 0;
#else
  return std::fseek(file, to, SEEK_SET) == 0;
#endif
}

// What shows that a file was written to.
struct fingerprint {
  std::uint64_t size_bytes = 0;
  std::int64_t modified = 0;
  friend bool operator==(const fingerprint&, const fingerprint&) = default;
};

inline std::optional<fingerprint> fingerprint_of(const fs::path& file) {
  std::error_code failed;
  fingerprint out;
  out.size_bytes = fs::file_size(file, failed);
  if (failed) return std::nullopt;
  const auto modified = fs::last_write_time(file, failed).time_since_epoch();
  out.modified = std::chrono::duration_cast<std::chrono::nanoseconds>(modified).count();
  if (failed) return std::nullopt;
  return out;
}

// The same of a file that is open here by that name, whatever became of the name.
inline std::optional<fingerprint> fingerprint_of([[maybe_unused]] std::FILE* file,
                                                 [[maybe_unused]] const fs::path& name) {
#if defined(HUB_SESSION_WINDOWS)
  windows::file_facts facts;
  if (!windows::look_at(handle_of(file), &facts)) return std::nullopt;
  const auto joined = [](std::uint64_t high, unsigned long low) { return high << 32 | low; };
  return fingerprint{joined(facts.size_high, facts.size_low),
                     static_cast<std::int64_t>(joined(facts.written[1], facts.written[0]))};
#else
  return fingerprint_of(name_of_open(file, name));
#endif
}

// Why `file` cannot be uploaded, if so. Looks before opening, as opening a FIFO would block.
inline std::optional<error> check_regular(const fs::path& file) {
  std::error_code failed;
  const fs::file_status status = fs::status(file, failed);
  if (status.type() == fs::file_type::not_found) return file_error(file, "does not exist");
  if (failed) return file_error(file, "cannot be looked at (" + failed.message() + ")");
  if (!fs::is_regular_file(status)) return file_error(file, "is not a regular file");
  if (const std::uintmax_t bytes = fs::file_size(file, failed); !failed && bytes > file_bytes_max)
    return error{errc::file_error,
                 "The file " + shown(file) +
                     " is larger than this program can read, so it is not "
                     "uploaded. Compile the program with -D_FILE_OFFSET_BITS=64."};
  return std::nullopt;
}

// An open file as a request body. A file that is renamed over stays readable here as it was; one
// that is written to in place fails with errc::file_changed before its last piece is handed out.
class file_source final : public body_source {
 public:
  static result<std::shared_ptr<body_source>> open(const fs::path& file) {
    if (auto why = check_regular(file)) return *why;
    return of(machine::open(file, "rb"), file);
  }

  // Of a file that is open, by the name that errors give it.
  static result<std::shared_ptr<body_source>> of(std::shared_ptr<std::FILE> file,
                                                 const fs::path& name) {
    if (!file) return file_error(name, "cannot be opened for reading");
    auto source = std::make_shared<file_source>(std::move(file), name);
    const auto now = source->look();
    if (!now) return file_error(name, "cannot be looked at");
    if (now->size_bytes == 0) return file_error(name, "is empty");
    source->at_open_ = *now;
    return std::shared_ptr<body_source>(std::move(source));
  }

  file_source(std::shared_ptr<std::FILE> file, fs::path name)
      : file_(std::move(file)), name_(std::move(name)) {}

  std::uint64_t size_bytes() const override { return at_open_.size_bytes; }

  result<std::size_t> read(std::uint64_t offset, std::span<char> out) override {
    const std::size_t wanted = static_cast<std::size_t>(
        std::min<std::uint64_t>(out.size(), size_bytes() - std::min(offset, size_bytes())));
    if (!seek(file_.get(), offset) || std::fread(out.data(), 1, wanted, file_.get()) != wanted)
      return changed("became shorter or unreadable");
    if (offset + wanted == size_bytes() && look() != at_open_) return changed("was overwritten");
    return wanted;
  }

 private:
  std::optional<fingerprint> look() const { return fingerprint_of(file_.get(), name_); }

  error changed(std::string_view how) const {
    return {errc::file_changed,
            "The file " + shown(name_) + " " + std::string(how) +
                " while it was uploaded; the upload begins again. Write checkpoints to a new name "
                "and rename them, or use snapshot::copy."};
  }

  std::shared_ptr<std::FILE> file_;
  fs::path name_;
  fingerprint at_open_ = {};
};

// A body that tells how far it has been read, which is how far it has been sent.
class metered_body final : public body_source {
 public:
  using meter = std::function<void(std::uint64_t sent, std::uint64_t total)>;
  metered_body(std::shared_ptr<body_source> body, meter tell)
      : body_(std::move(body)), tell_(std::move(tell)) {}

  std::uint64_t size_bytes() const override { return body_->size_bytes(); }
  result<std::size_t> read(std::uint64_t offset, std::span<char> out) override {
    auto got = body_->read(offset, out);
    if (got) tell_(offset + *got, size_bytes());
    return got;
  }

 private:
  std::shared_ptr<body_source> body_;
  meter tell_;
};

#if defined(HUB_SESSION_WINDOWS)
// Of a byte far behind what is in the file: Windows keeps everybody else off what is locked, and others
// are to read which process has it.
inline std::error_code lock_open(std::FILE* file) {
  windows::place far_behind;
  far_behind.at_high = 0x40000000;
  if (windows::lock(handle_of(file), windows::exclusive | windows::without_waiting, 0, 1, 0,
                    &far_behind))
    return {};
  const std::error_code why = windows::why();
  return why.value() == windows::lock_violation
             ? std::make_error_code(std::errc::operation_would_block)
             : why;
}
#endif

// Keeps a file for this holder alone, among all threads and processes, for as long as it lives. If
// the system cannot do that, everybody is let in.
class file_lock {
 public:
  explicit file_lock(const fs::path& file) : why_not_(take(file)) {}

  bool held() const noexcept { return !why_not_; }
  // Whether another has it. Any other reason is a fault of the file or of its file system.
  bool taken() const noexcept { return why_not_ == std::errc::operation_would_block; }
  std::error_code why_not() const noexcept { return why_not_; }

 private:
  std::error_code take([[maybe_unused]] const fs::path& file) {
#if defined(HUB_SESSION_POSIX)
    std::error_code none;
    if (fs::is_symlink(fs::symlink_status(file, none)))
      return std::make_error_code(std::errc::too_many_symbolic_link_levels);
    // For writing, too: a network file system locks nothing that is open for reading alone.
    file_ = open(file, "r+b");
    if (!file_ || posix::lock(fileno(file_.get()), posix::exclusive | posix::without_waiting) != 0)
      return {errno, std::generic_category()};
    // Whoever had it may have renamed or removed the file before this one got the lock.
    if (!is_named(file_.get(), file)) return std::make_error_code(std::errc::operation_would_block);
#elif defined(HUB_SESSION_WINDOWS)
    file_ = open(file, "r+b");
    if (!file_) return {errno, std::generic_category()};
    if (const auto why = lock_open(file_.get())) return why;
    if (!is_named(file_.get(), file)) return std::make_error_code(std::errc::operation_would_block);
#endif
    return {};
  }

  open_file file_;
  std::error_code why_not_;
};

#if defined(HUB_SESSION_WINDOWS)
// Since 2017 Windows does it in one step, as other systems do. Before, it does so only while nobody has
// the file open; where somebody has, the old file makes room first.
inline std::error_code replace_on_windows(const fs::path& from, const fs::path& to) {
  windows::renaming wanted;
  const std::wstring name = full_path(to).native();
  wanted.name_bytes = static_cast<unsigned long>(name.size() * sizeof(wchar_t));
  const windows::handle file =
      windows::create_file(from.c_str(), windows::rename_or_remove, windows::share_all, nullptr,
                           windows::open_existing, windows::not_what_it_links_to, nullptr);
  if (file == windows::no_handle()) return windows::why();
  bool done = name.size() < wanted.name.size();
  if (done) std::copy(name.begin(), name.end(), wanted.name.begin());
  done =
      done && windows::change_file(file, windows::rename_whoever_has_it, &wanted, sizeof(wanted));
  windows::close(file);
  constexpr unsigned long replaces = windows::take_its_place | windows::wait_for_disk;
  if (done || windows::move_file(from.c_str(), to.c_str(), replaces)) return {};
  const std::error_code why = windows::why();
  const fs::path aside = fs::path(to) += ".new-" + std::to_string(std::random_device{}());
  if (!windows::move_file(to.c_str(), aside.c_str(), 0)) return why;
  done = windows::move_file(from.c_str(), to.c_str(), windows::wait_for_disk);
  if (done)
    windows::delete_file(aside.c_str());
  else
    windows::move_file(aside.c_str(), to.c_str(), 0);
  return done ? std::error_code() : why;
}
#endif

// Gives a file the name of another, which is no more afterwards, also where somebody has it open.
inline std::error_code replace(const fs::path& from, const fs::path& to) {
#if defined(HUB_SESSION_WINDOWS)
  return replace_on_windows(from, to);
#else
  std::error_code failed;
  fs::rename(from, to, failed);
  return failed;
#endif
}

// A new file for this user alone, beside `like` and named after it. It is locked while it is open,
// which tells it from what a process left that is no more.
struct fresh_file {
  open_file file = {};
  fs::path name = {};

  static constexpr std::string_view mark = ".new-";

  static std::optional<fresh_file> make(const fs::path& like) {
    fresh_file out;
#if defined(HUB_SESSION_POSIX)
    std::string name = like.string() + std::string(mark) + "XXXXXX";
    const int descriptor = mkstemp(name.data());
    if (descriptor < 0) return std::nullopt;
    posix::control(descriptor, posix::set_flags, posix::close_on_exec);
    posix::lock(descriptor, posix::exclusive | posix::without_waiting);
    out.file.reset(fdopen(descriptor, "w+b"));
    if (out.file) std::setvbuf(out.file.get(), nullptr, _IONBF, 0);
    out.name = name;
#else
    out.name = like;
    out.name += std::string(mark) + std::to_string(std::random_device{}());
#if defined(HUB_SESSION_WINDOWS)
    windows::access ours;
    ours.descriptor = windows::private_descriptor();
    if (!ours.descriptor) return std::nullopt;
    out.file = file_of(open_handle(out.name, "w+bx", &ours), "w+b");
    if (out.file) std::setvbuf(out.file.get(), nullptr, _IONBF, 0);
    if (out.file) lock_open(out.file.get());
#else
    out.file = open(out.name, "w+bx");
#endif
#endif
    return out.file ? std::optional(std::move(out)) : std::nullopt;
  }

  bool rename_to(const fs::path& place) {
    file.reset();
    return !replace(name, place);
  }
  void discard() {
    file.reset();
    std::error_code ignored;
    fs::remove(name, ignored);
  }

  // Removes those that were made like this by processes that are no more.
  static void sweep(const fs::path& like) {
    const std::string beginning = utf8_of(like.filename()) + std::string(mark);
    std::error_code failed;
    for (fs::directory_iterator at(like.parent_path(), failed), end; !failed && at != end;
         at.increment(failed)) {
      if (!utf8_of(at->path().filename()).starts_with(beginning)) continue;
      // Without locks, the system keeps what is open from removal.
      const file_lock ours(at->path());
      std::error_code ignored;
      if (ours.held()) fs::remove(at->path(), ignored);
    }
  }
};

// Makes `file` for this user alone, unless it is there.
inline void make_private(const fs::path& file) {
  std::error_code failed;
  if (fs::exists(fs::symlink_status(file, failed))) return;
  auto fresh = fresh_file::make(file);
  if (!fresh) return;
  fs::create_hard_link(fresh->name, file, failed);  // which never takes another's place
  if (failed && !fs::exists(file, failed) && fresh->rename_to(file)) return;
  fresh->discard();
}

// Makes a folder for this user alone, unless it is there.
inline void make_private_folder(const fs::path& folder) {
#if defined(HUB_SESSION_WINDOWS)
  windows::access ours;
  ours.descriptor = windows::private_descriptor();
  if (ours.descriptor) windows::create_folder(folder.c_str(), &ours);
#else
  std::error_code failed;
  if (fs::create_directory(folder, failed)) fs::permissions(folder, fs::perms::owner_all, failed);
#endif
}

// Copies what is left of `from` behind what is in `to`: in a moment and without room if the file
// system can share the blocks.
inline bool copy_rest(std::FILE* from, std::FILE* to) {
#if defined(__linux__)
  constexpr std::size_t at_once = std::size_t{1} << 30;
  if (posix::copy_range)
    while (posix::copy_range(fileno(from), nullptr, fileno(to), nullptr, at_once, 0) > 0) {
    }
#endif
  std::vector<char> piece(mebibyte);
  while (const std::size_t got = std::fread(piece.data(), 1, piece.size(), from))
    if (std::fwrite(piece.data(), 1, got, to) != got) return false;
  return std::ferror(from) == 0;
}

// A copy of `from` for this user alone, beside `like` and named after it. A file that is written to
// meanwhile is copied again.
inline result<fresh_file> copy_steady(const fs::path& from, const fs::path& like) {
  constexpr int tries = 3;
  if (auto why = check_regular(from)) return *why;
  for (int i = 0; i < tries; ++i) {
    const auto before = fingerprint_of(from);
    if (!before) return file_error(from, "cannot be looked at");
    if (before->size_bytes == 0) return file_error(from, "is empty");
    const open_file original = open(from, "rb");
    if (!original) return file_error(from, "cannot be opened for reading");
    auto copy = fresh_file::make(like);
    if (!copy)
      return file_error(from, "cannot be copied to the folder for snapshots; its disk may be full");
    const bool whole = copy_rest(original.get(), copy->file.get());
    const std::string why = std::generic_category().message(errno);
    if (whole && fingerprint_of(from) == before) return *std::move(copy);
    copy->discard();
    if (!whole) return file_error(from, "cannot be copied for the upload (" + why + ")");
  }
  return file_error(from, "is being overwritten while it is copied");
}

// A private copy of a file for as long as somebody holds it. If the system can do without, it has
// no name, so that nothing of it is left whatever ends the process.
class snapshot_file final : public upload_copy {
 public:
  // Takes one in `folder`.
  static result<std::shared_ptr<snapshot_file>> take(const fs::path& from, const fs::path& folder) {
    auto copy = copy_steady(from, folder / stem);
    if (!copy) return copy.error();
    return std::make_shared<snapshot_file>(*std::move(copy), from);
  }
  // Removes what sessions that are no more have left of theirs in `folder`.
  static void sweep(const fs::path& folder) { fresh_file::sweep(folder / stem); }

  snapshot_file(fresh_file copy, fs::path original)
      : file_(std::move(copy.file)), name_(std::move(copy.name)), original_(std::move(original)) {
#if defined(HUB_SESSION_POSIX) || defined(HUB_SESSION_WINDOWS)
    remove();
#endif
  }
  snapshot_file(const snapshot_file&) = delete;
  snapshot_file& operator=(const snapshot_file&) = delete;
#if !defined(HUB_SESSION_POSIX) && !defined(HUB_SESSION_WINDOWS)
  ~snapshot_file() override {
    file_.reset();
    remove();
  }
#endif

  // One reader at a time.
  result<std::shared_ptr<body_source>> open() const override {
    return file_source::of(file_, original_);
  }

 private:
  static constexpr const char* stem = "hub_session";

  void remove() const {
    std::error_code ignored;
    fs::remove(name_, ignored);
  }

  std::shared_ptr<std::FILE> file_;
  fs::path name_;
  fs::path original_;
};

// Where snapshots are taken.
class snapshot_folder {
 public:
  explicit snapshot_folder(fs::path where) : where_(std::move(where)) {
    std::error_code none;
    if (where_.empty()) where_ = fs::temp_directory_path(none);
  }

  // The folder, made if it is missing and swept on first use. From any thread.
  result<fs::path> get() {
    const std::lock_guard lock(mutex_);
    std::error_code failed;
    fs::create_directories(where_, failed);
    if (!fs::is_directory(where_, failed))
      return error{errc::file_error,
                   "There is no folder for snapshots: " + shown(where_) +
                       " is none and cannot be made. Set session_options::temp_folder, or use "
                       "snapshot::none."};
    if (!std::exchange(swept_, true)) snapshot_file::sweep(where_);
    return where_;
  }

 private:
  std::mutex mutex_;
  fs::path where_;
  bool swept_ = false;
};

inline std::string read_text_file(const fs::path& file) {
  constexpr std::size_t bytes_max = mebibyte;  // a settings file has a few hundred
  const open_file in = open(file, "rb");
  if (!in) return {};
  std::string text(bytes_max, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), in.get()));
  return text;
}

// Waits until what is open here for writing is safe from a power failure. The C++ standard has no such
// thing, so elsewhere that is left to the system.
inline bool sync_to_disk([[maybe_unused]] std::FILE* file) {
#if defined(HUB_SESSION_POSIX)
#if defined(__APPLE__)
  if (posix::control(fileno(file), posix::force_to_platter) == 0) return true;
#endif
  // EINVAL: a file system on which folders need no such thing.
  return posix::force_to_disk(fileno(file)) == 0 || errno == EINVAL;
#elif defined(HUB_SESSION_WINDOWS)
  return windows::force_to_disk(handle_of(file)) != windows::no;
#else
  return true;
#endif
}

// The same of a file, or of the names in a folder, which Windows keeps in a journal of its own.
inline bool sync_to_disk([[maybe_unused]] const fs::path& name) {
#if defined(HUB_SESSION_POSIX)
  const open_file file = open(name, "rb");
  return file && sync_to_disk(file.get());
#elif defined(HUB_SESSION_WINDOWS)
  std::error_code none;
  if (fs::is_directory(name, none)) return true;
  const open_file file = open(name, "r+b");
  return file && sync_to_disk(file.get());
#else
  return true;
#endif
}

// Replaces `file` in one step, readable for this user alone: after any crash there is the old or the
// new one.
inline bool write_text_file(const fs::path& file, std::string_view text) {
  std::error_code failed;
  if (file.has_parent_path()) fs::create_directories(file.parent_path(), failed);
  auto fresh = fresh_file::make(file);
  if (!fresh) return false;
  const bool whole = std::fwrite(text.data(), 1, text.size(), fresh->file.get()) == text.size() &&
                     sync_to_disk(fresh->file.get());
  if (whole && fresh->rename_to(file)) return true;
  fresh->discard();
  return false;
}

// The hash of a file's first bytes; nothing if it has fewer.
inline std::optional<std::uint64_t> hash_of_beginning(const fs::path& file, std::uint64_t bytes) {
  const open_file in = open(file, "rb");
  std::string piece(mebibyte, '\0');
  std::uint64_t hash = text::content_hash("");
  while (bytes > 0) {
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, piece.size()));
    if (!in || std::fread(piece.data(), 1, wanted, in.get()) != wanted) return std::nullopt;
    hash = text::content_hash(std::string_view(piece).substr(0, wanted), hash);
    bytes -= wanted;
  }
  return hash;
}

// ---- settings files ----------------------------------------------------------------------------

using namespace text;

enum class settings_format { json_text, yaml_text };

// Reads a settings file as a YAML parser does, as far as such a file goes: one mapping in block or in
// flow style, with a scalar of any style for the key. What is nested is passed over.
class yaml_reader {
 public:
  struct scalar {
    extent where = {};
    std::string value = {};  // "" for null, and for what is no scalar
  };

  explicit yaml_reader(std::string_view text)
      : text_(text), begin_(text.starts_with("\xEF\xBB\xBF") ? 3 : 0), at_(begin_) {
    while (next_content() && column() == 0 && now() == '%') skip_line();
    if (next_content() && is_marker("---")) at_ += 3;
    if (!next_content() || is_marker("...")) return;
    if (now() == '{')
      read_flow();
    else
      read_block();
  }

  // Why it cannot be read; "" if it can.
  const std::string& problem() const noexcept { return problem_; }
  // The last one, which is the one that counts.
  const std::optional<scalar>& api_key() const noexcept { return api_key_; }

  // Where a pair can be put in, and what has to stand around it there.
  std::size_t room() const noexcept { return flow_begin_ ? *flow_begin_ + 1 : text_.size(); }
  std::string with_room(const std::string& pair) const {
    if (flow_begin_) return pair + (pairs_ > 0 ? ", " : "");
    const bool begins_line = text_.empty() || is_break(text_.back());
    return (begins_line ? "" : "\n") + std::string(indent_, ' ') + pair + '\n';
  }

 private:
  static constexpr std::string_view needs_quotes =
      "has a value that begins with a character that has to be in quotes";

  static bool is_break(char c) noexcept { return c == '\n' || c == '\r'; }
  // Among them the mark of an alias, which stands for what an anchor names; nobody writes a key so.
  static bool begins_no_scalar(char c) noexcept {
    return c == '*' || c == '@' || c == '`' || c == '%';
  }
  static bool is_blank(char c) noexcept { return c == ' ' || c == '\t'; }

  // NUL at the end, which stands nowhere else.
  char at(std::size_t where) const noexcept { return where < text_.size() ? text_[where] : '\0'; }
  char now() const noexcept { return at(at_); }
  bool ends_word(std::size_t where) const noexcept {
    return at(where) == '\0' || is_blank(at(where)) || is_break(at(where));
  }
  bool is_comment(std::size_t where) const noexcept {
    return at(where) == '#' && (where == begin_ || ends_word(where - 1));
  }
  bool at_line_end() const noexcept { return now() == '\0' || is_break(now()) || is_comment(at_); }
  std::size_t column() const noexcept {
    std::size_t line = at_;
    while (line > begin_ && !is_break(text_[line - 1])) --line;
    return at_ - line;
  }
  bool is_marker(std::string_view marker) const noexcept {
    return column() == 0 && text_.substr(at_).starts_with(marker) && ends_word(at_ + marker.size());
  }

  void skip_blanks() noexcept {
    while (is_blank(now())) ++at_;
  }
  void skip_line() noexcept {
    while (now() != '\0' && !is_break(now())) ++at_;
  }
  // To what is no blank and no comment, over any number of lines. False at the end.
  bool next_content() noexcept {
    for (; now() != '\0'; ++at_) {
      if (is_comment(at_)) skip_line();
      if (now() != '\0' && !is_blank(now()) && !is_break(now())) return true;
      if (now() == '\0') break;
    }
    return false;
  }
  // Tags and anchors.
  void skip_properties() noexcept {
    while (now() == '!' || now() == '&') {
      while (!ends_word(at_)) ++at_;
      skip_blanks();
    }
  }

  void fail(std::string_view why) {
    if (!problem_.empty()) return;
    const auto lines =
        std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    problem_ = "line " + std::to_string(lines + 1) + " " + std::string(why);
    at_ = text_.size();
  }

  // ---- block style ---------------------------------------------------------------------------------

  void read_block() {
    indent_ = column();
    while (next_content()) {
      if (is_marker("---") || is_marker("...")) return;
      if (column() > indent_ || (now() == '-' && ends_word(at_ + 1)))
        skip_line();  // of a value that is nested
      else if (column() < indent_)
        fail("stands further to the left than those before it");
      else
        read_pair();
    }
  }

  void read_pair() {
    skip_properties();
    const std::optional<std::string> name = is_quote(now()) ? quoted() : plain_name();
    skip_blanks();
    if (!name || now() != ':' || !ends_word(at_ + 1)) return fail("is no 'name: value'");
    ++at_;
    ++pairs_;
    skip_blanks();
    skip_properties();
    if (*name == "api_key") {
      api_key_ = value();
    } else if (is_quote(now())) {
      static_cast<void>(quoted());
      end_line();
    } else if (now() == '{' || now() == '[') {
      skip_nested();
    } else {
      skip_line();
    }
  }

  std::optional<std::string> plain_name() {
    const std::size_t first = at_;
    for (; !(now() == ':' && ends_word(at_ + 1)); ++at_)
      if (at_line_end()) return std::nullopt;
    return std::string(trimmed(text_.substr(first, at_ - first)));
  }

  // From the first character of the value on, or from behind the colon where it stands on a later line.
  scalar value() {
    scalar out = {{at_, 0}, ""};
    const bool is_below = at_line_end();
    if (is_below && (!next_content() || column() <= indent_)) {
      at_ = out.where.begin;
      return out;
    }
    out.where.begin = at_;
    if (now() == '|' || now() == '>') return block_scalar(out);
    if (is_quote(now())) {
      out.value = quoted().value_or("");
    } else if (now() == '{' || now() == '[') {
      skip_nested();
    } else if (begins_no_scalar(now()) || ",]}"sv.find(now()) != std::string_view::npos) {
      fail(needs_quotes);
    } else {
      return plain_scalar(out, is_below);
    }
    out.where.length = at_ - out.where.begin;
    end_line();
    return out;
  }

  scalar plain_scalar(scalar out, bool is_below) {
    std::size_t end = at_;
    for (bool goes_on = true; goes_on;) {
      const std::size_t first = at_;
      for (; !at_line_end(); ++at_)
        if (now() == ':' && ends_word(at_ + 1)) {  // a mapping
          if (!is_below) fail("has a second ': '");
          out.value.clear();
          skip_line();
          return out;
        }
      const std::string_view piece = trimmed(text_.substr(first, at_ - first));
      out.value.append(out.value.empty() ? "" : " ").append(piece);
      end = first + piece.size();
      const std::size_t behind = at_;
      goes_on = !is_comment(at_) && next_content() && column() > indent_;
      if (!goes_on) at_ = behind;
    }
    out.where.length = end - out.where.begin;
    if (out.value == "~" || out.value == "null" || out.value == "Null" || out.value == "NULL")
      out.value.clear();
    return out;
  }

  scalar block_scalar(scalar out) {
    skip_line();
    std::size_t end = at_;
    while (now() != '\0') {
      ++at_;
      const std::size_t line = at_;
      skip_line();
      const std::string_view content = text_.substr(line, at_ - line);
      const std::size_t first = content.find_first_not_of(' ');
      if (first == std::string_view::npos) continue;
      if (first <= indent_) {
        at_ = line;
        break;
      }
      out.value.append(out.value.empty() ? "" : "\n").append(trimmed(content));
      end = at_;
    }
    out.where.length = end - out.where.begin;
    return out;
  }

  void end_line() {
    skip_blanks();
    if (!at_line_end()) fail("has something behind a value");
  }

  // ---- flow style ----------------------------------------------------------------------------------

  void read_flow() {
    flow_begin_ = at_++;
    while (next_content() && now() != '}') {
      if (now() == ',') {
        ++at_;
        continue;
      }
      ++pairs_;
      skip_properties();
      const bool in_quotes = is_quote(now());
      const std::optional<std::string> name = in_quotes ? quoted() : plain_in_flow();
      if (!name || !next_content()) break;
      if (now() != ':') continue;
      ++at_;
      scalar found = value_in_flow();
      if (*name == "api_key") api_key_ = std::move(found);
    }
    if (now() != '}') fail("ends before the mapping does");
  }

  scalar value_in_flow() {
    const std::size_t behind = at_;
    if (!next_content()) return {{behind, 0}, ""};
    skip_properties();
    scalar out = {{at_, 0}, ""};
    if (is_quote(now()))
      out.value = quoted().value_or("");
    else if (now() == '{' || now() == '[')
      skip_nested();
    else if (begins_no_scalar(now()))
      fail(needs_quotes);
    else
      out.value = plain_in_flow().value_or("");
    out.where.length = at_ - out.where.begin;
    if (out.where.length == 0) out.where.begin = behind;
    if (text_.substr(out.where.begin, out.where.length) == "null" || out.value == "~")
      out.value.clear();
    return out;
  }

  // Nothing if there is none, which never comes to an end by itself.
  std::optional<std::string> plain_in_flow() {
    const std::size_t first = at_;
    while (!at_line_end() && ",{}[]"sv.find(now()) == std::string_view::npos &&
           !(now() == ':' &&
             (ends_word(at_ + 1) || ",{}[]"sv.find(at(at_ + 1)) != std::string_view::npos)))
      ++at_;
    const std::string_view out = trimmed(text_.substr(first, at_ - first));
    at_ = first + out.size();
    if (out.empty() && now() != ',' && now() != '}') fail("cannot be read");
    return std::string(out);
  }

  void skip_nested() {
    std::size_t depth = 0;
    while (next_content()) {
      if (is_quote(now())) {
        static_cast<void>(quoted());
        continue;
      }
      const char c = text_[at_++];
      if (c == '{' || c == '[') ++depth;
      if ((c == '}' || c == ']') && --depth == 0) return;
    }
    fail("ends before a bracket is closed");
  }

  // ---- quotes --------------------------------------------------------------------------------------

  static bool is_quote(char c) noexcept { return c == '"' || c == '\''; }

  // What is in quotes from here on; nothing if they are not closed.
  std::optional<std::string> quoted() {
    const char quote = text_[at_++];
    std::string out;
    for (; now() != '\0'; ++at_) {
      if (now() == quote && quote == '\'' && at(at_ + 1) == quote) {
        ++at_;
        out += quote;
      } else if (now() == quote) {
        ++at_;
        return out;
      } else if (now() == '\\' && quote == '"') {
        ++at_;
        if (!escape(out)) break;
      } else if (is_break(now())) {  // a line break and the blanks around it are one space
        while (!out.empty() && is_blank(out.back())) out.pop_back();
        while (is_blank(at(at_ + 1)) || is_break(at(at_ + 1))) ++at_;
        out += ' ';
      } else {
        out += now();
      }
    }
    fail("has quotes that are not closed, or a '\\' that means nothing");
    return std::nullopt;
  }

  // What follows a backslash; stays on its last character.
  bool escape(std::string& out) {
    constexpr std::string_view names = "0abtnvfre \"/\\", mean = "\0\a\b\t\n\v\f\r\x1b \"/\\"sv;
    if (const std::size_t known = names.find(now()); known != std::string_view::npos) {
      out += mean[known];
      return true;
    }
    constexpr std::pair<char, std::string_view> further[] = {
        {'N', "\xC2\x85"}, {'_', "\xC2\xA0"}, {'L', "\xE2\x80\xA8"}, {'P', "\xE2\x80\xA9"}};
    for (const auto& [name, bytes] : further) {
      if (now() != name) continue;
      out += bytes;
      return true;
    }
    if (is_break(now())) {  // a line that goes on
      while (is_blank(at(at_ + 1)) || is_break(at(at_ + 1))) ++at_;
      return true;
    }
    const std::size_t digits = now() == 'x' ? 2 : now() == 'u' ? 4 : now() == 'U' ? 8 : 0;
    const std::string_view hexadecimal = text_.substr(std::min(at_ + 1, text_.size()), digits);
    std::uint32_t code = 0;
    const auto read =
        std::from_chars(hexadecimal.data(), hexadecimal.data() + hexadecimal.size(), code, 16);
    if (digits == 0 || hexadecimal.size() != digits || read.ptr != hexadecimal.data() + digits)
      return false;
    at_ += digits;
    if (code < 0x80)
      out += static_cast<char>(code);
    else
      out += "\xEF\xBF\xBD";  // no key has that, so that none is made of it
    return true;
  }

  std::string_view text_;
  std::size_t begin_;  // behind a byte order mark
  std::size_t at_;
  std::size_t indent_ = 0;  // of the mapping, in block style
  std::optional<std::size_t> flow_begin_;
  std::size_t pairs_ = 0;
  std::optional<scalar> api_key_;
  std::string problem_;
};

// The key in the text of an Ultralytics settings file, "" if there is none. An error says why the
// text cannot be read.
inline result<std::string> read_api_key(std::string_view text, settings_format format) {
  const auto unreadable = [](std::string why) { return error{errc::file_error, std::move(why)}; };
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    return unreadable("it is in UTF-16; save it in UTF-8");
  if (text.find('\0') != std::string_view::npos) return unreadable("it holds NUL bytes");
  if (format == settings_format::yaml_text) {
    const yaml_reader settings(text);
    if (!settings.problem().empty()) return unreadable("as YAML, " + settings.problem());
    return settings.api_key() ? settings.api_key()->value : std::string();
  }
  if (first_of(text) == '\0') return std::string();
  const std::optional<json> settings = parse_json(text);
  if (!settings || !settings->is_object()) return unreadable("it is no JSON object");
  return get_string(*settings, "api_key");
}

inline std::string find_api_key(std::string_view text, settings_format format) {
  const auto found = read_api_key(text, format);
  return found ? *found : std::string();
}

// The same text with the key in it and nothing else changed; nothing if `text` cannot be read, or has
// no place for the key.
inline std::optional<std::string> replace_api_key(std::string_view text, std::string_view api_key,
                                                  settings_format format) {
  std::string value;
  append_json_string(value, api_key);  // which YAML reads as well
  std::string out(text);
  if (!read_api_key(text, format)) return std::nullopt;
  if (format == settings_format::yaml_text) {
    const yaml_reader settings(text);
    if (settings.api_key()) {
      const auto [begin, length] = settings.api_key()->where;
      // "api_key:" alone, with no space after it.
      const bool glued = begin > 0 && out[begin - 1] == ':';
      const bool before_comment = length == 0 && out.substr(begin).starts_with('#');
      out.replace(begin, length, (glued ? " " : "") + value + (before_comment ? " " : ""));
    } else {
      out.insert(settings.room(), settings.with_room("api_key: " + value));
    }
    return find_api_key(out, format) == api_key ? std::optional(out) : std::nullopt;
  }
  if (first_of(text) == '\0') return "{\n  \"api_key\": " + value + "\n}\n";
  const std::optional<json> settings = parse_json(text);
  if (const auto found = find_json_member(text, "api_key"))
    return out.replace(found->begin, found->length, value);
  return out.insert(out.find('{') + 1,
                    "\n  \"api_key\": " + value + (settings->empty() ? "\n" : ","));
}

// ---- keys --------------------------------------------------------------------------------------

// A folder that a variable names; "" if it names none. A relative one would be another one wherever
// the program is started, so that it is none, as the XDG specification has it.
inline fs::path folder_of(const char* variable) {
#if defined(HUB_SESSION_WINDOWS)
  fs::path folder = windows::from_utf8(env(variable));
#else
  fs::path folder = env(variable);
#endif
  return folder.is_absolute() ? folder : fs::path();
}

// The home folder that the system's list of users has for this one; "" if it has none.
inline fs::path listed_home() {
  fs::path home;
#if defined(__linux__) || defined(__APPLE__)
  constexpr std::size_t bytes = 64 * kibibyte;  // of the entry's texts, which take a few hundred
  std::vector<char> texts(bytes);
  posix::person entry = {};
  posix::person* found = nullptr;
  const int failed =
      posix::find_person(posix::own_user(), &entry, texts.data(), texts.size(), &found);
  if (failed == 0 && found && found->home) home = found->home;
#endif
  return home.is_absolute() ? home : fs::path();
}

inline fs::path home_folder() {
#if defined(HUB_SESSION_WINDOWS)
  return folder_of("USERPROFILE");
#else
  const fs::path named = folder_of("HOME");
  return named.empty() ? listed_home() : named;
#endif
}

// Where Ultralytics keeps its settings on this system; "" if this user has no folder at all. Never
// in the folder for temporary files: there anybody could have put a file with another key.
inline fs::path settings_folder() {
#if defined(HUB_SESSION_WINDOWS)
  const fs::path named = folder_of("APPDATA"), below = fs::path("AppData") / "Roaming";
#elif defined(__APPLE__)
  const fs::path named, below = fs::path("Library") / "Application Support";
#else
  const fs::path named = folder_of("XDG_CONFIG_HOME"), below = ".config";
#endif
  if (!named.empty()) return named / "Ultralytics";
  const fs::path home = home_folder();
  return home.empty() ? home : home / below / "Ultralytics";
}

// The settings file to read and write: settings.json, else settings.yaml, else a new settings.json; ""
// if there is no folder for one.
inline fs::path find_settings_file(const fs::path& given) {
  if (!given.empty()) return full_path(given);
  fs::path folder = settings_folder();
  std::vector<fs::path> folders = {folder};
  if (const fs::path named = folder_of("YOLO_CONFIG_DIR"); !named.empty()) {
    folder = named;
    folders = {named / "Ultralytics", named};
  }
  if (folder.empty()) return {};
  std::error_code ignored;
  for (const fs::path& each : folders)
    for (const char* name : {"settings.json", "settings.yaml"})
      if (fs::is_regular_file(each / name, ignored)) return each / name;
  return folder / "settings.json";
}

inline machine::settings_format settings_format_of(const fs::path& file) {
  return file.extension() == ".json" ? machine::settings_format::json_text
                                     : machine::settings_format::yaml_text;
}

// The key that a settings file holds, "" if there is no file or no key in it. An error says why the
// file cannot be read.
inline result<std::string> find_saved_key(const fs::path& file) {
  std::error_code failed;
  const fs::file_status status = fs::status(file, failed);
  if (status.type() == fs::file_type::not_found) return std::string();
  const auto unreadable = [&](const std::string& why) {
    return error{errc::file_error, "The settings file " + shown(file) + " cannot be read: " + why +
                                       ". No API key is taken from it."};
  };
  if (failed) return unreadable(failed.message());
  if (!fs::is_regular_file(status)) return unreadable("it is not a regular file");
  if (!open(file, "rb")) return unreadable(std::generic_category().message(errno));
  auto found = read_api_key(read_text_file(file), settings_format_of(file));
  return found ? found : unreadable(found.error().message);
}

inline std::string read_saved_key(const fs::path& file) {
  const auto found = find_saved_key(file);
  return found ? *found : std::string();
}

inline bool save_key(const fs::path& file, std::string_view api_key) {
  const auto text =
      machine::replace_api_key(read_text_file(file), api_key, settings_format_of(file));
  if (!text) return false;
  // A process that was killed here may have left the key beside it.
  fresh_file::sweep(followed(file));
  return write_text_file(followed(file), *text);
}

// ---- the prompt --------------------------------------------------------------------------------

// What is typed at a prompt, key by key, as no line is put together by a terminal without echo.
struct typed_line {
  enum class end { none, entered, closed, interrupted };
  std::string text = {};

  // Takes one more key, and says whether the line ends with it.
  end take(char key) {
    constexpr char interrupts = 3, closes = 4, backspace = 8, erases_line = 21, erases = 127;
    if (key == '\n' || key == '\r') return end::entered;
    if (key == interrupts) return end::interrupted;
    if (key == closes) return end::closed;
    if (key == erases_line) text.clear();
    if ((key == erases || key == backspace) && !text.empty()) text.pop_back();
    if (is_control(key)) return end::none;
    text += key;
    return end::none;
  }
};

#if defined(HUB_SESSION_POSIX)
// The terminal at standard input without echo, for as long as this lives. A signal that would end the
// program waits that long, so that it leaves the terminal as it was.
class silent_terminal {
 public:
  silent_terminal() {
    caught_ = 0;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      posix::signal_action(numbers[i], nullptr, &actions_[i]);
      if (posix::handle_signal(numbers[i], [](int number) { caught_ = number; }) ==
          posix::ignored())
        posix::signal_action(numbers[i], &actions_[i], nullptr);
    }
    posix::terminal_modes(posix::standard_in, &modes_);
    posix::opaque silent = modes_;
    posix::make_raw(&silent);
    posix::set_terminal_modes(posix::standard_in, posix::after_output, &silent);
  }
  silent_terminal(const silent_terminal&) = delete;
  silent_terminal& operator=(const silent_terminal&) = delete;
  ~silent_terminal() {
    posix::set_terminal_modes(posix::standard_in, posix::after_output, &modes_);
    for (std::size_t i = 0; i < numbers.size(); ++i)
      posix::signal_action(numbers[i], &actions_[i], nullptr);
    if (interrupted_)
      posix::send_signal(own_group, posix::interrupt);  // as the terminal would have
    if (caught_ != 0) posix::send_signal(posix::own_id(), caught_);
  }

  // What is typed until the line ends, the time is over or a signal comes.
  typed_line::end read(typed_line& line, std::chrono::steady_clock::time_point until) {
    for (auto end = typed_line::end::none;
         caught_ == 0 && std::chrono::steady_clock::now() < until;) {
      fd_set keyboard;
      FD_ZERO(&keyboard);
      FD_SET(posix::standard_in, &keyboard);
      timeval look_again = {0, 50'000};  // another thread may have taken the signal
      if (::select(posix::standard_in + 1, &keyboard, nullptr, nullptr, &look_again) <= 0) continue;
      char key = 0;
      if (posix::read(posix::standard_in, &key, 1) != 1) return typed_line::end::closed;
      end = line.take(key);
      interrupted_ = end == typed_line::end::interrupted;
      if (end != typed_line::end::none) return end;
    }
    return typed_line::end::closed;
  }

 private:
  static constexpr int own_group = 0;  // all that were started together, for kill()
  static constexpr std::array<int, 4> numbers = {posix::hang_up, posix::interrupt, posix::quit,
                                                 posix::terminate};
  static inline std::atomic<int> caught_ = 0;

  posix::opaque modes_;
  std::array<posix::opaque, numbers.size()> actions_ = {};
  bool interrupted_ = false;
};
#endif

// Whether somebody may be asked: there is a terminal, and it is this program's turn at it. One that
// asked in the background would be stopped by the system.
inline bool may_ask() noexcept {
  if (!is_terminal(stream::standard_in) || !is_terminal(stream::standard_error)) return false;
#if defined(HUB_SESSION_POSIX)
  const int foreground = posix::foreground_group(posix::standard_in);
  return foreground < 0 || foreground == posix::own_group();  // below 0: it gives no turns
#else
  return true;
#endif
}

// Asks on the terminal without echo. Empty if nobody may be asked or nothing was typed in time.
inline std::string ask_for_key(std::string_view service, std::string_view where, duration timeout) {
  if (!may_ask()) return {};
  const time_point until = later(std::chrono::steady_clock::now(), timeout);
  const auto show = [&](std::string_view words) {
    write_to_standard_error(words, [&] { return std::chrono::steady_clock::now() >= until; });
  };
  const std::string question =
      std::string(service) + ": API key, from " + std::string(where) + " (it is not shown): ";
  typed_line line;
  auto end = typed_line::end::closed;
#if defined(HUB_SESSION_POSIX)
  {
    silent_terminal silent;
    show(question);  // only now: what is typed before would be shown, and then thrown away
    end = silent.read(line, until);
    show("\r\n");
  }
#elif defined(HUB_SESSION_WINDOWS)
  show(question);
  for (end = typed_line::end::none;
       end == typed_line::end::none && std::chrono::steady_clock::now() < until;) {
    if (::_kbhit())
      end = line.take(static_cast<char>(::_getch()));
    else
      std::this_thread::sleep_for(50ms);
  }
  show("\n");
#endif
  return end == typed_line::end::entered ? line.text : std::string();
}

// ---- ranks and places --------------------------------------------------------------------------

// A launcher's variables: the process's rank among all of the training, never that on its node, and how
// many there are. Innermost launcher first: mpirun within a job of Slurm's inherits the job's.
struct rank_variable {
  const char* rank;
  std::array<const char*, 2> sizes;
};
inline constexpr std::array<rank_variable, 9> rank_variables = {{
    {"RANK", {"WORLD_SIZE"}},                                    // torchrun
    {"OMPI_COMM_WORLD_RANK", {"OMPI_COMM_WORLD_SIZE"}},          // Open MPI
    {"MV2_COMM_WORLD_RANK", {"MV2_COMM_WORLD_SIZE"}},            // MVAPICH 2
    {"MVP_COMM_WORLD_RANK", {"MVP_COMM_WORLD_SIZE"}},            // MVAPICH 3
    {"PMI_RANK", {"PMI_SIZE"}},                                  // MPICH, Intel MPI, srun
    {"PMIX_RANK", {"SLURM_STEP_NUM_TASKS"}},                     // whatever has PMIx
    {"PALS_RANKID", {"PMI_SIZE"}},                               // HPE's mpiexec
    {"FLUX_TASK_RANK", {"FLUX_JOB_SIZE"}},                       // Flux
    {"SLURM_PROCID", {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}},  // srun
}};

// The whole number, 0 or more, that a variable holds and nothing else.
inline std::optional<int> env_number(const char* name) {
  const auto number = text::whole_number<int>(env(name));
  return number && *number >= 0 ? number : std::nullopt;
}

// A rank, and what a person has to know of how it was found; `words` is empty for a process that trains
// alone.
struct found_rank {
  process_rank place = {};
  log_level level = log_level::info;
  std::string words = {};
};

inline std::string rank_text(const process_rank& place) {
  return "rank " + std::to_string(place.rank) +
         (place.size > 0 ? " of " + std::to_string(place.size) : "") + " by " + place.source;
}

// Independent programs in one step of a scheduler look like the ranks of one training, which is why a
// silence that no option asks for is a warning.
inline found_rank find_rank(const session_options& options) {
  if (options.rank) {
    const process_rank place{*options.rank, 0, "session_options::rank"};
    if (place.rank <= 0) return {place};
    return {place, log_level::info,
            "This is " + rank_text(place) + ": it reports nothing, rank 0 does."};
  }
  found_rank out;
  for (const rank_variable& each : rank_variables) {
    const auto rank = env_number(each.rank);
    if (!rank) continue;
    std::optional<int> size;
    for (const char* name : each.sizes)
      if (name && !size) size = env_number(name);
    const process_rank place{*rank, size.value_or(0), each.rank};
    if (!size || *rank < *size) {
      out.place = place;
      break;
    }
    out = {{},
           log_level::warning,
           "This cannot be " + rank_text(place) + ", so that does not count. "};
  }
  if (out.place.rank > 0) {
    out.level = log_level::warning;
    out.words += "This is " + rank_text(out.place) +
                 ": it reports nothing, rank 0 does. If it is a training of its own, set "
                 "session_options::rank to 0, or start it without " +
                 out.place.source + ".";
  } else if (out.place.size > 1) {
    out.words += "This is " + rank_text(out.place) + ": it reports for all.";
  }
  return out;
}

// ---- what is said ------------------------------------------------------------------------------

// The default log and progress: colour and a bar on a terminal, plain lines elsewhere.
class console {
 public:
  using writer = std::function<void(std::string_view)>;
  console(writer out, bool terminal, std::string_view service)
      : out_(std::move(out)), terminal_(terminal), lead_(std::string(service) + ": ") {}

  void log(log_level level, std::string_view text) {
    constexpr std::array<const char*, 3> colours = {"\033[34m\033[1m", "\033[33m\033[1m",
                                                    "\033[31m\033[1m"};
    std::string line = terminal_ ? colours[static_cast<std::size_t>(level)] : "";
    line += lead_;
    if (terminal_) line += "\033[0m";
    line.append(text) += '\n';
    end_bar();
    out_(line);
  }

  // A one-line bar on a terminal; elsewhere a line every ten percent, and one in all for a small file.
  void progress(const transfer_progress& now) {
    if (now.bytes_done > now.bytes_total) return;  // nobody knows how much is left
    const int percent =
        now.bytes_total == 0 ? 100 : static_cast<int>(now.bytes_done * 100 / now.bytes_total);
    if (percent < percent_) percent_ = 0;  // a new attempt or another file
    const int step = percent_step(now.bytes_total);
    if (percent / step == percent_ / step) return;
    percent_ = percent == 100 ? 0 : percent;  // what comes next is another transfer
    const double seconds = std::max(std::chrono::duration<double>(now.elapsed).count(), 1e-3);
    const double rate = static_cast<double>(now.bytes_done - now.bytes_before) / seconds;
    const double left = rate > 0 ? static_cast<double>(now.bytes_total - now.bytes_done) / rate : 0;
    std::array<char, 128> figures{};
    std::snprintf(figures.data(), figures.size(), " %3d%% of %s, %s/s, %.0f s left", percent,
                  amount(static_cast<double>(now.bytes_total)).c_str(), amount(rate).c_str(), left);
    std::string line = terminal_ ? "\r\033[K" : "";
    (line += lead_).append(now.file) += figures.data();
    out_(terminal_ ? line : line + '\n');
    bar_open_ = terminal_;
    if (percent == 100) end_bar();
  }

 private:
  int percent_step(std::uint64_t bytes_total) const {
    constexpr std::uint64_t small_bytes_max = mebibyte;
    if (terminal_) return 1;
    return bytes_total <= small_bytes_max ? 100 : 10;
  }

  // Bytes for people: in the largest unit of which there is at least one.
  static std::string amount(double bytes) {
    constexpr std::array<const char*, 4> units = {"B", "KiB", "MiB", "GiB"};
    std::size_t unit = 0;
    for (; bytes >= kibibyte && unit + 1 < units.size(); ++unit) bytes /= kibibyte;
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.1f %s", bytes, units[unit]);
    return text.data();
  }

  void end_bar() {
    if (std::exchange(bar_open_, false)) out_("\n");
  }

  writer out_;
  bool terminal_;
  std::string lead_;
  bool bar_open_ = false;
  int percent_ = 0;  // last shown
};

// Says one thing after the other, on a thread of its own: nobody waits for a log function that is slow,
// nor for a standard error that nobody reads. If a session runs nothing on threads, whoever has
// something to say says it at once.
class speaker : public std::enable_shared_from_this<speaker> {
 public:
  speaker(const session_options& options, bool by_thread, std::string_view service)
      : by_thread_(by_thread),
        queue_bytes_max_(options.limits.log_queue_bytes_max),
        deadline_(options.limits.log_deadline),
        is_own_(options.log || options.progress),
        log_(options.log),
        progress_(options.progress),
        console_(
            [this](std::string_view text) {
              const time_point until = later(std::chrono::steady_clock::now(), deadline_);
              write_to_standard_error(text, [&] {
                return given_up_ || (!by_thread_ && std::chrono::steady_clock::now() >= until);
              });
            },
            takes_escapes(), service) {}

  // Whether this thread is in the log function: what that prints is no print of the training.
  static bool is_speaking() noexcept { return speaking(); }

  void log(log_level level, std::string text) noexcept {
    add({.level = level, .text = std::move(text)});
  }

  // Of one transfer the newest state waits, and none before it.
  void progress(const transfer_progress& now) noexcept {
    try {
      add({.text = std::string(now.file), .state = now});
    } catch (...) {  // the next one follows
    }
  }

  // What memory ran out for, or the queue had no room for.
  void leave_one_out() noexcept {
    const std::lock_guard lock(mutex_);
    ++left_out_;
  }

  // Until all is said, or the time is over.
  void wait(duration timeout) noexcept {
    std::unique_lock lock(mutex_);
    if (thread_.joinable())
      changed_.wait_until(lock, later(std::chrono::steady_clock::now(), timeout),
                          [&] { return nothing_to_say() && !busy_; });
  }

  // Waits in the same way, and no function is called afterwards. One that does not return, or a system
  // that does not, keeps the thread; that keeps nobody, and holds nothing but what is here.
  void close() noexcept {
    constexpr duration until_it_looks = 100ms;
    std::unique_lock lock(mutex_);
    closing_ = true;
    changed_.notify_all();
    if (!thread_.joinable()) return;
    const auto has_ended = [&] { return ended_; };
    if (!changed_.wait_until(lock, later(std::chrono::steady_clock::now(), deadline_), has_ended)) {
      given_up_ = true;
      changed_.wait_for(lock, until_it_looks, has_ended);
    }
    std::thread last = std::move(thread_);
    const bool ended = ended_;
    lock.unlock();
    if (ended)
      last.join();
    else
      last.detach();
  }

  // In a forked child, where the thread is not there, and where no lock may be taken: it may have been
  // held. So may be one of the program's, where its function was running.
  void say_after_fork(log_level level, std::string_view text) noexcept {
    if (busy_ && is_own_) return;
    given_up_ = true;  // who does not read now is not waited for
    say({.level = level, .text = std::string(text)});
  }

 private:
  struct message {
    log_level level = log_level::warning;
    std::string text = {};                        // of the log, or the name of a transfer
    std::optional<transfer_progress> state = {};  // of the transfer
    std::size_t left_out = 0;                     // messages, just before this one
  };

  static bool& speaking() noexcept {
    thread_local bool now = false;
    return now;
  }

  static std::size_t bytes(const message& words) { return sizeof words + words.text.size(); }
  bool nothing_to_say() const noexcept { return waiting_.empty() && left_out_ == 0; }

  void add(message words) noexcept {
    try {
      const std::lock_guard lock(mutex_);
      if (closing_) return;
      if (!by_thread_) {
        words.left_out = std::exchange(left_out_, 0);
        return say(words);
      }
      if (words.state && replace(words)) return;
      if (waiting_bytes_ + bytes(words) <= queue_bytes_max_) {
        if (!thread_.joinable())
          thread_ = quiet_thread([self = shared_from_this()] { self->run(); });
        words.left_out = left_out_;
        const std::size_t more = bytes(words);
        waiting_.push_back(std::move(words));
        waiting_bytes_ += more;
        left_out_ = 0;
      } else if (!words.state) {
        ++left_out_;
      }
      changed_.notify_all();
    } catch (...) {
      if (!words.state) leave_one_out();
    }
  }

  bool replace(const message& newer) noexcept {
    for (message& each : waiting_) {
      if (!each.state || each.text != newer.text || each.state->kind != newer.state->kind) continue;
      each.state = newer.state;
      return true;
    }
    return false;
  }

  void run() noexcept {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return !nothing_to_say() || closing_; });
      if (nothing_to_say() || given_up_) break;
      const message next = take();
      busy_ = true;
      lock.unlock();
      say(next);
      lock.lock();
      busy_ = false;
      changed_.notify_all();
    }
    ended_ = true;
    changed_.notify_all();
  }

  message take() noexcept {
    if (waiting_.empty()) return {.left_out = std::exchange(left_out_, 0)};
    message out = std::move(waiting_.front());
    waiting_bytes_ -= bytes(out);
    waiting_.pop_front();
    return out;
  }

  void say(const message& words) noexcept {
    struct mark {
      mark() { speaking() = true; }
      ~mark() { speaking() = false; }
    } const speaks;
    if (words.left_out > 0)
      call_log(log_level::warning,
               [&] { return std::to_string(words.left_out) + " messages were left out here."; });
    if (words.state)
      call_progress(words);
    else if (!words.text.empty())
      call_log(words.level, [&]() -> const std::string& { return words.text; });
  }

  // A function that fails must not end the training.
  template <class Text>
  void call_log(log_level level, Text text) noexcept {
    try {
      log_ ? log_(level, text()) : console_.log(level, text());
    } catch (...) {
    }
  }
  void call_progress(const message& words) noexcept {
    try {
      transfer_progress now = *words.state;
      now.file = words.text;
      progress_ ? progress_(now) : console_.progress(now);
    } catch (...) {
    }
  }

  const bool by_thread_;
  const std::size_t queue_bytes_max_;
  const duration deadline_;
  const bool is_own_;
  const std::function<void(log_level, std::string_view)> log_;
  const std::function<void(const transfer_progress&)> progress_;
  console console_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<message> waiting_;
  std::size_t waiting_bytes_ = 0;
  std::size_t left_out_ = 0;
  bool closing_ = false;
  bool ended_ = false;
  std::atomic<bool> busy_ = false;  // with a message
  std::atomic<bool> given_up_ = false;
  std::thread thread_;
};

// The one way out for words: redacts, never throws, never waits but at an end, and then for
// limits.log_deadline at most.
class reporter {
 public:
  // Whether there is a thread to say it: if a session has others.
  reporter(const session_options& options, bool by_thread, std::string_view service)
      : deadline_(options.limits.log_deadline),
        speaker_(std::make_shared<speaker>(options, by_thread, service)) {}
  reporter(const reporter&) = delete;
  reporter& operator=(const reporter&) = delete;
  // In a forked child the thread that is not there holds the speaker for good.
  ~reporter() { close(); }

  // What must never be shown.
  void add_secret(const std::string& secret) {
    const std::lock_guard lock(secrets_mutex_);
    if (!secret.empty()) secrets_.push_back(secret);
  }

  error redacted(error why) const {
    why.message = harmless(std::move(why.message));
    return why;
  }

  // A refusal may quote the key, and its words are shortened later: a key cut in two is not found.
  reply redacted(reply answer) const {
    if (answer.status >= 300) answer.body = harmless(std::move(answer.body));
    return answer;
  }

  void log(log_level level, std::string_view text, std::string_view why = {}) noexcept {
    try {
      speaker_->log(level, harmless(std::string(text).append(why)));
    } catch (...) {
      speaker_->leave_one_out();
    }
  }

  void log_after_fork(log_level level, std::string_view text) noexcept {
    speaker_->say_after_fork(level, text);
  }

  void progress(const transfer_progress& now) noexcept { speaker_->progress(now); }

  // If an order of words matters: until all is said that was handed in before.
  void wait() noexcept { speaker_->wait(deadline_); }

  // Nothing is said afterwards.
  void close() noexcept {
    if (process_ == process_id()) speaker_->close();
  }

 private:
  std::string harmless(std::string text) const {
    const std::lock_guard lock(secrets_mutex_);
    return text::redact(std::move(text), secrets_);
  }

  duration deadline_;
  std::shared_ptr<speaker> speaker_;
  std::vector<std::string> secrets_;  // a renewed token is one more
  mutable std::mutex secrets_mutex_;
  int process_ = process_id();
};

// ---- what this machine does ----------------------------------------------------------------------
//
// Read from /proc, and of GPUs from the NVIDIA driver's library if it is there. Each thing that is
// missing is left out, and costs nothing else.

inline std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> out;
  for (std::size_t at = 0; (at = line.find_first_not_of(" \t", at)) != line.npos;) {
    const std::size_t end = std::min(line.find_first_of(" \t", at), line.size());
    out.push_back(line.substr(at, end - at));
    at = end;
  }
  return out;
}

// Calls `take` with the words of each line that has at least so many.
template <class Take>
void for_each_line(std::string_view text, std::size_t words_min, Take take) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::vector<std::string_view> words = words_of(text.substr(0, end));
    if (words.size() >= words_min) take(words);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

inline std::uint64_t count_in(std::string_view word) { return text::parse_size(word).value_or(0); }

struct cpu_ticks {
  std::uint64_t busy = 0;
  std::uint64_t all = 0;
};

// Reads /proc/stat: all processors together, since the machine started.
inline std::optional<cpu_ticks> parse_cpu(std::string_view stat) {
  std::optional<cpu_ticks> out;
  for_each_line(stat, 6, [&](const auto& words) {
    if (words[0] != "cpu" || out) return;
    out.emplace();
    // Of ten columns the last two, of guests, are in the first two already.
    for (std::size_t i = 1; i < std::min<std::size_t>(words.size(), 9); ++i) {
      const bool idles = i == 4 || i == 5;  // the latter waits for a disk
      out->all += count_in(words[i]);
      out->busy += idles ? 0 : count_in(words[i]);
    }
  });
  return out;
}

// Reads /proc/meminfo: how much of the memory is in use.
inline std::optional<double> parse_memory(std::string_view meminfo) {
  double total = 0;
  std::optional<double> available;
  for_each_line(meminfo, 2, [&](const auto& words) {
    if (words[0] == "MemTotal:") total = static_cast<double>(count_in(words[1]));
    if (words[0] == "MemAvailable:") available = static_cast<double>(count_in(words[1]));
  });
  if (total <= 0 || !available) return std::nullopt;
  return 100 * (1 - std::min(*available / total, 1.0));
}

struct byte_counts {
  std::uint64_t in = 0;
  std::uint64_t out = 0;
};

// Reads /proc/net/dev: what all interfaces but the loopback have received and sent.
inline std::optional<byte_counts> parse_network(std::string_view dev) {
  std::optional<byte_counts> out;
  std::string spaced(dev);  // "eth0:123" is there without a blank
  std::replace(spaced.begin(), spaced.end(), ':', ' ');
  for_each_line(spaced, 17, [&](const auto& words) {
    if (words[0] == "lo" || !text::parse_size(words[1])) return;
    if (!out) out.emplace();
    out->in += count_in(words[1]);
    out->out += count_in(words[9]);
  });
  return out;
}

// Reads /proc/diskstats: what all disks have read and written. A part of a disk, and what lies over one
// or in memory, would count twice.
inline std::optional<byte_counts> parse_disk_io(std::string_view diskstats) {
  constexpr std::uint64_t sector_bytes = 512;
  const auto lies_over = [](std::string_view name) {
    for (std::string_view lead : {"loop", "ram", "zram", "dm-", "md", "sr", "fd"})
      if (name.starts_with(lead)) return true;
    return false;
  };
  std::optional<byte_counts> out;
  std::string_view disk;  // whose parts follow it
  for_each_line(diskstats, 10, [&](const auto& words) {
    const std::string_view name = words[2];
    std::string_view rest = name.substr(std::min(disk.size(), name.size()));
    if (rest.starts_with('p')) rest.remove_prefix(1);
    if (lies_over(name) || (!disk.empty() && name.starts_with(disk) && text::parse_size(rest)))
      return;
    disk = name;
    if (!out) out.emplace();
    out->in += count_in(words[5]) * sector_bytes;
    out->out += count_in(words[9]) * sector_bytes;
  });
  return out;
}

// Reads /proc/self/mounts: where disks are mounted, each once; the root is among them, whatever it is.
// What comes over a network is not asked: a server that is gone would hold up whoever asks.
inline std::vector<std::string> parse_mounts(std::string_view mounts) {
  constexpr std::size_t mounts_max = 16;
  std::vector<std::string> out = {"/"};
  std::set<std::string, std::less<>> seen;
  for_each_line(mounts, 3, [&](const auto& words) {
    if (words[1] == "/") seen.emplace(words[0]);
  });
  for_each_line(mounts, 3, [&](const auto& words) {
    const std::string_view mount = words[1];
    if (!words[0].starts_with("/dev/") || words[0].starts_with("/dev/loop") ||
        mount.find('\\') != mount.npos || out.size() >= mounts_max)
      return;
    std::error_code failed;
    if (seen.emplace(words[0]).second && fs::is_directory(mount, failed)) out.emplace_back(mount);
  });
  return out;
}

inline std::vector<system_figures::disk> read_disks(const std::vector<std::string>& mounts) {
  constexpr double gb = 1e9;
  std::vector<system_figures::disk> out;
  for (const std::string& mount : mounts) {
    std::error_code failed;
    const fs::space_info space = fs::space(mount, failed);
    if (failed || space.capacity == 0) continue;
    out.push_back({mount, static_cast<double>(space.capacity - space.free) / gb,
                   static_cast<double>(space.capacity) / gb});
  }
  return out;
}

// The NVIDIA driver's library, as far as it is used. A function that an older one lacks is null.
struct gpu_library {
  using device = void*;
  struct load {
    unsigned gpu;
    unsigned memory;
  };
  struct memory {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
  };
  int (*begin)() = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*at)(unsigned, device*) = nullptr;
  int (*load_of)(device, load*) = nullptr;
  int (*memory_of)(device, memory*) = nullptr;
  int (*temperature_of)(device, int sensor, unsigned* celsius) = nullptr;
  int (*power_of)(device, unsigned* milliwatts) = nullptr;

  // Blocks until the driver is ready, which may take seconds. Nothing if there is none.
  static std::optional<gpu_library> open() {
#if defined(HUB_SESSION_POSIX) && defined(__linux__)
    if (!posix::open_library || !posix::symbol_of) return std::nullopt;
    void* const library = posix::open_library("libnvidia-ml.so.1", posix::resolve_now);
    if (!library) return std::nullopt;
    const auto find = [&](const char* name, auto& function) {
      using pointer = std::remove_reference_t<decltype(function)>;
      function = reinterpret_cast<pointer>(posix::symbol_of(library, name));
    };
    gpu_library out;
    find("nvmlInit_v2", out.begin);
    find("nvmlDeviceGetCount_v2", out.count);
    find("nvmlDeviceGetHandleByIndex_v2", out.at);
    find("nvmlDeviceGetUtilizationRates", out.load_of);
    find("nvmlDeviceGetMemoryInfo", out.memory_of);
    find("nvmlDeviceGetTemperature", out.temperature_of);
    find("nvmlDeviceGetPowerUsage", out.power_of);
    if (out.begin && out.count && out.at && out.begin() == 0) return out;
#endif
    return std::nullopt;
  }

  std::vector<system_figures::gpu> read() const {
    constexpr unsigned gpus_max = 64;
    std::vector<system_figures::gpu> out;
    unsigned devices = 0;
    if (count(&devices) != 0) return out;
    for (unsigned i = 0; i < std::min(devices, gpus_max); ++i) {
      device one = nullptr;
      out.push_back(at(i, &one) == 0 ? read(one) : system_figures::gpu());
    }
    return out;
  }

 private:
  system_figures::gpu read(device one) const {
    system_figures::gpu out;
    load busy{};
    memory bytes{};
    unsigned celsius = 0, milliwatts = 0;
    if (load_of && load_of(one, &busy) == 0) out.usage_percent = busy.gpu;
    if (memory_of && memory_of(one, &bytes) == 0 && bytes.total > 0)
      out.memory_percent = 100 * static_cast<double>(bytes.used) / static_cast<double>(bytes.total);
    if (temperature_of && temperature_of(one, 0, &celsius) == 0) out.celsius = celsius;
    if (power_of && power_of(one, &milliwatts) == 0) out.watts = milliwatts / 1000.0;
    return out;
  }
};

// Reads the machine's figures. What is counted since the start of the machine is told for the time
// since the reading before, and not at the first one.
class figure_reader {
 public:
  explicit figure_reader(fs::path proc = "/proc",
                         std::optional<gpu_library> gpus = gpu_library::open())
      : proc_(std::move(proc)), gpus_(gpus) {}

  system_figures read(time_point now) {
    system_figures out;
    out.memory_percent = parse_memory(read_text_file(proc_ / "meminfo"));
    out.disks = read_disks(parse_mounts(read_text_file(proc_ / "self/mounts")));
    const counts fresh{parse_cpu(read_text_file(proc_ / "stat")),
                       parse_disk_io(read_text_file(proc_ / "diskstats")),
                       parse_network(read_text_file(proc_ / "net/dev"))};
    const double seconds = std::chrono::duration<double>(now - at_).count();
    if (fresh.cpu && before_.cpu && fresh.cpu->all > before_.cpu->all)
      out.cpu_percent =
          100 * since(fresh.cpu->busy, before_.cpu->busy) / since(fresh.cpu->all, before_.cpu->all);
    if (seconds > 0) {
      out.disk_io = traffic(fresh.disks, before_.disks, seconds);
      out.network = traffic(fresh.network, before_.network, seconds);
    }
    before_ = fresh;
    at_ = now;
    if (gpus_) out.gpus = gpus_->read();
    return out;
  }

 private:
  struct counts {
    std::optional<cpu_ticks> cpu = {};
    std::optional<byte_counts> disks = {};
    std::optional<byte_counts> network = {};
  };

  // A count that went back, as a device has gone, is none.
  static double since(std::uint64_t now, std::uint64_t before) {
    return now > before ? static_cast<double>(now - before) : 0;
  }
  static std::optional<system_figures::traffic> traffic(const std::optional<byte_counts>& now,
                                                        const std::optional<byte_counts>& before,
                                                        double seconds) {
    constexpr double mb = 1e6;
    if (!now || !before) return std::nullopt;
    return system_figures::traffic{since(now->in, before->in) / mb / seconds,
                                   since(now->out, before->out) / mb / seconds};
  }

  fs::path proc_;
  std::optional<gpu_library> gpus_;
  counts before_;
  time_point at_ = {};
};

// ---- signals -----------------------------------------------------------------------------------

// Lets every session flush on SIGINT, on SIGTERM, and on SIGHUP if that would end the program, and
// then hands the signal to whoever had it before us, so that the program ends, or goes on, exactly as it
// would have without us. Launchers and terminals send several together, which are one; a later signal
// goes through at once. An ignored signal stays ignored; a forked child is left alone.
#if defined(HUB_SESSION_POSIX)
class signal_relay {
 public:
  using flush = std::function<void(int signal_number)>;

  // Lives as long as the process: a handler may run at any moment.
  static signal_relay& instance() {
    static auto* const relay = new signal_relay;
    return *relay;
  }

  // `moment`: how long after the first a signal belongs to it; among sessions the longest counts.
  std::size_t subscribe(flush callback, duration moment) {
    const std::lock_guard one_at_a_time(install_mutex_);
    if (subscribers_.empty()) install();
    moment_ms = std::max(moment_ms.load(), to_ms(moment));
    const std::lock_guard lock(mutex_);
    subscribers_.emplace_back(++last_id_, std::move(callback));
    return last_id_;
  }

  // Whether nobody had the signal before us, so that it ends the program once it is handed on.
  static bool ends_program(int number) {
    const auto at = std::find(numbers.begin(), numbers.end(), number) - numbers.begin();
    return handler_before[static_cast<std::size_t>(at)] == nullptr;  // SIG_DFL
  }

  // Waits for a flush that is under way; the callback is not called afterwards.
  void unsubscribe(std::size_t id) noexcept {
    if (process_id() != owner.load()) return;
    const std::lock_guard one_at_a_time(install_mutex_);
    {
      std::unique_lock lock(mutex_);
      flushed_.wait(lock, [&] { return !flushing_; });
      std::erase_if(subscribers_, [&](const auto& entry) { return entry.first == id; });
      if (!subscribers_.empty()) return;
    }
    restore_handlers();
    send_to_watcher(quit);
    watcher_.join();
    for (int end : pipe_) posix::close(end);
  }

 private:
  static constexpr unsigned char quit = 0;
  static constexpr std::array<int, 3> numbers = {posix::hang_up, posix::interrupt,
                                                 posix::terminate};

  // What the handler may touch.
  static inline std::atomic<int> write_end = -1;
  static inline std::atomic<int> owner = 0;
  static inline std::atomic<long> moment_ms = 0;
  static inline std::atomic<bool> is_passed_on = false;
  static inline std::atomic<long> first_at = 0;  // in the clock's milliseconds; 0: none came yet
  static inline std::array<posix::opaque, numbers.size()> before = {};
  static inline std::array<std::atomic<posix::handler>, numbers.size()> handler_before = {};

  static void on_signal(int number) {
    const int saved = errno;
    long first = 0;
    const long now = to_ms(std::chrono::steady_clock::now().time_since_epoch()) | 1;  // never 0
    const bool is_ours = process_id() == owner.load();
    if (is_ours && first_at.compare_exchange_strong(first, now))
      send_to_watcher(static_cast<unsigned char>(number));
    else if (!is_ours || is_passed_on || now - first >= moment_ms.load())
      pass_on(number);
    errno = saved;
  }

  static long to_ms(duration time) noexcept {
    return std::chrono::duration_cast<std::chrono::duration<long, std::milli>>(time).count();
  }

  static void send_to_watcher(unsigned char number) {
    [[maybe_unused]] const auto written = posix::write(write_end.load(), &number, 1);
  }

  // To the process, not to this thread: the watcher blocks every signal. There is nothing left that
  // another signal could cut, so the moment is over; and this one may come by our handler once more.
  static void pass_on(int number) {
    is_passed_on = true;
    const auto at = std::find(numbers.begin(), numbers.end(), number) - numbers.begin();
    posix::signal_action(number, &before[static_cast<std::size_t>(at)], nullptr);
    posix::send_signal(posix::own_id(), number);
  }

  void install() {
    if (posix::make_pipe(pipe_.data()) != 0)
      throw session_error({errc::internal_error,
                           "No pipe for signals can be made; too many files are open. Set "
                           "session_options::handle_signals to false to do without."});
    for (int end : pipe_) posix::control(end, posix::set_flags, posix::close_on_exec);
    write_end = pipe_[1];
    owner = process_id();
    first_at = 0;
    is_passed_on = false;
    moment_ms = 0;
    watcher_ = quiet_thread([this] { watch(); });
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      posix::signal_action(numbers[i], nullptr, &before[i]);
      const posix::handler was = posix::handle_signal(numbers[i], &on_signal);
      handler_before[i] = was;
      // Programs reload on a SIGHUP that they handle; they end on the others.
      const bool is_theirs = numbers[i] == posix::hang_up && was != nullptr;
      if (was == posix::ignored() || is_theirs)
        posix::signal_action(numbers[i], &before[i], nullptr);
    }
  }

  // Only what is still ours: the program may have installed its own handler meanwhile. Which it is, only
  // putting ours in its place tells. The handler from before is there if a signal is handed on
  // meanwhile; what was read is then ours still, and must not come back without a watcher.
  static void restore_handlers() {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      posix::opaque now;
      posix::signal_action(numbers[i], nullptr, &now);
      const posix::handler was = posix::handle_signal(numbers[i], &on_signal);
      const bool theirs = was != &on_signal && was != handler_before[i];
      posix::signal_action(numbers[i], theirs ? &now : &before[i], nullptr);
    }
  }

  void watch() {
    for (;;) {
      unsigned char number = quit;
      const auto got = posix::read(pipe_[0], &number, 1);
      if (got < 0 && errno == EINTR) continue;
      if (got != 1 || number == quit) return;
      flush_all(number);
      pass_on(number);
    }
  }

  // Nobody flushes if memory runs out: a signal is handed on all the same.
  void flush_all(int number) noexcept {
    std::vector<std::pair<std::size_t, flush>> now;
    std::unique_lock lock(mutex_);
    try {
      now = subscribers_;
    } catch (const std::bad_alloc&) {
    }
    flushing_ = true;
    lock.unlock();
    for (const auto& entry : now) entry.second(number);
    lock.lock();
    flushing_ = false;
    flushed_.notify_all();
  }

  std::mutex install_mutex_;  // held while the watcher starts or is joined
  std::mutex mutex_;          // of what it shares with the watcher
  std::condition_variable flushed_;
  bool flushing_ = false;
  std::size_t last_id_ = 0;
  std::vector<std::pair<std::size_t, flush>> subscribers_;
  std::array<int, 2> pipe_ = {-1, -1};
  std::thread watcher_;
};
#elif defined(HUB_SESSION_WINDOWS)
// Windows tells of Ctrl-C, of Ctrl-Break and of a console that closes on a thread of its own, and waits
// until that returns before it ends the program: five seconds, where the console closes. So the flush is
// on that thread.
class signal_relay {
 public:
  using flush = std::function<void(int signal_number)>;

  // Lives as long as the process: a handler may run at any moment.
  static signal_relay& instance() {
    static auto* const relay = new signal_relay;
    return *relay;
  }

  std::size_t subscribe(flush callback, duration moment) {
    const std::lock_guard one_at_a_time(install_mutex_);
    if (subscribers_.empty()) windows::handle_console(&on_event, windows::yes);
    const std::lock_guard lock(mutex_);
    if (subscribers_.empty()) first_at_.reset();
    moment_ = subscribers_.empty() ? moment : std::max(moment_, moment);
    subscribers_.emplace_back(++last_id_, std::move(callback));
    return last_id_;
  }

  // Only C's handlers can be asked for; what else was told to the system is the program's own business.
  static bool ends_program(int number) { return std::signal(number, SIG_GET) == SIG_DFL; }

  // Waits for a flush that is under way; the callback is not called afterwards. The system may have
  // locked its list of handlers while one is called, so this is not held while ours is taken out.
  void unsubscribe(std::size_t id) noexcept {
    const std::lock_guard one_at_a_time(install_mutex_);
    {
      std::unique_lock lock(mutex_);
      flushed_.wait(lock, [&] { return !flushing_; });
      std::erase_if(subscribers_, [&](const auto& entry) { return entry.first == id; });
      if (!subscribers_.empty()) return;
    }
    windows::handle_console(&on_event, windows::no);
  }

 private:
  static int __stdcall on_event(unsigned long event) {
    return instance().take(windows::signal_of(event));
  }

  // Whether it goes no further: to who had it before us, or to the system, which ends the program.
  int take(int number) {
    const time_point now = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    if (first_at_) return flushing_ && now - *first_at_ < moment_ ? windows::yes : windows::no;
    first_at_ = now;
    std::vector<std::pair<std::size_t, flush>> those;
    try {
      those = subscribers_;
    } catch (const std::bad_alloc&) {  // nobody flushes, and the event goes on all the same
    }
    flushing_ = true;
    lock.unlock();
    for (const auto& entry : those) entry.second(number);
    lock.lock();
    flushing_ = false;
    flushed_.notify_all();
    return windows::no;
  }

  std::mutex install_mutex_;  // held while the handler is put in and taken out
  std::mutex mutex_;
  std::condition_variable flushed_;
  bool flushing_ = false;
  std::optional<time_point> first_at_;
  duration moment_ = {};
  std::size_t last_id_ = 0;
  std::vector<std::pair<std::size_t, flush>> subscribers_;
};
#else
// Without signals the program flushes through the session's destructor alone.
class signal_relay {
 public:
  using flush = std::function<void(int signal_number)>;
  static signal_relay& instance() {
    static signal_relay relay;
    return relay;
  }
  std::size_t subscribe(const flush&, duration) { return 0; }
  static bool ends_program(int) { return true; }
  void unsubscribe(std::size_t) noexcept {}
};
#endif

}  // namespace machine

// =================================================================================================
// spool
//
// Rules: keeps on the disk what is not confirmed yet, whatever the process or the power do. It knows no
// request: what it holds is epochs, uploads and what was last said of the model.
// =================================================================================================

// A model's folder in a spool:
//   journal-N.jsonl   what was accepted and what was struck out again, in segments, N going up
//   checkpoint-N.pt   the checkpoint or final model that waits
//   model.json        what HUB last said of the model, for a start without HUB; on the Platform
//                     platform.json, the run with its ids, for a session that goes on with it
//   lock              held while a session uses the folder; names its process
//
// The journal is text that is only added to, one JSON object a line. The first member of each is a
// checksum over the rest of its line, so a torn or flipped line is known without trusting it, and
// costs nothing but itself. Every epoch, upload, printed line and ending has a number, going up over all
// sessions. A later number for the same epoch supersedes the earlier, and "done" strikes out a number
// and all before it, so the order of the lines does not matter and a line may be there twice. Printed
// lines are written down once more as the chunk that they are sent in, before that is sent: whoever
// sends it again sends the same.
//
// What is dead goes when the journal is rewritten: a new segment is begun, and the older ones are
// replaced by one that holds what is alive and says that it is the base, so that what a crash left
// below it is not read any more. The training thread never waits for that.

namespace spool {

using namespace machine;

namespace journal {

using text::json;

inline constexpr int format = 1;

// The lines. A header stands first in each segment.
struct head_line {
  int format = journal::format;
  bool base = false;  // nothing before this segment counts
};
struct epoch_line {
  int epoch = 0;
  std::uint64_t number = 0;
  std::shared_ptr<const epoch_record> values = {};
};
struct done_line {
  std::vector<std::pair<int, std::uint64_t>> epochs = {};
};
struct upload_line {
  std::uint64_t number = 0;
  upload_fields fields = {};
  std::uintmax_t bytes = 0;
  std::uint64_t sample = 0;  // sample_hash of the file
};
struct upload_done_line {
  std::uint64_t number = 0;
  std::string memo = {};  // what it left for the ending
};
using console_line = printed_lines;
struct chunk_line {
  std::uint64_t chunk = 0;
  std::uint64_t through = 0;  // the number of its last line
  std::vector<std::string> lines = {};
};
struct chunk_done_line {
  std::uint64_t chunk = 0;
  std::uint64_t through = 0;
};
struct ending_line {
  std::uint64_t number = 0;
  std::shared_ptr<const run_ending> how = {};
};
struct ending_done_line {
  std::uint64_t number = 0;
};
struct unknown_line {};  // whole, but of a kind that this version does not know
using line =
    std::variant<unknown_line, head_line, epoch_line, done_line, upload_line, upload_done_line,
                 console_line, chunk_line, chunk_done_line, ending_line, ending_done_line>;

inline constexpr std::string_view lead = "{\"sum\":\"";
inline constexpr std::size_t sum_digits = 16;
inline constexpr std::size_t lead_bytes = lead.size() + sum_digits + 2;  // with the quote and comma

inline std::array<char, sum_digits> sum_of(std::string_view rest) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::array<char, sum_digits> out;
  std::uint64_t sum = text::content_hash(rest);
  for (auto at = out.rbegin(); at != out.rend(); ++at, sum >>= 4) *at = digits[sum & 15];
  return out;
}

// Appends one line whose members but the first are what `write` appends.
template <class Write>
void append_line(std::string& out, Write write) {
  out += lead;
  const std::size_t sum = out.size();
  out.append(sum_digits, '0');
  out += "\",";
  const std::size_t rest = out.size();
  write();
  out += '}';
  const auto digits = sum_of(std::string_view(out).substr(rest));
  std::copy(digits.begin(), digits.end(), out.begin() + static_cast<std::ptrdiff_t>(sum));
  out += '\n';
}

// Without a temporary text: this is on the training thread's way.
template <class Integer>
void append_integer(std::string& out, Integer value) {
  std::array<char, 24> digits;
  out.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
}

inline void append(std::string& out, const head_line& entry) {
  append_line(out, [&] {
    out += "\"format\":";
    append_integer(out, entry.format);
    out += entry.base ? ",\"base\":true" : ",\"base\":false";
  });
}

inline void append_epoch(std::string& out, int epoch, std::uint64_t number,
                         const epoch_record& values) {
  append_line(out, [&] {
    out += "\"epoch\":";
    append_integer(out, epoch);
    out += ",\"number\":";
    append_integer(out, number);
    out += ",\"metrics\":[";
    const std::size_t first = out.size();
    values.for_each([&](std::string_view name, double value) {
      out += out.size() == first ? "[" : ",[";
      text::append_json_string(out, name);
      out += ',';
      text::append_number(out, value);
      out += ']';
    });
    out += ']';
  });
}

inline void append(std::string& out, const done_line& entry) {
  append_line(out, [&] {
    out += "\"done\":[";
    for (const auto& [epoch, number] : entry.epochs) {
      out += out.ends_with('[') ? "[" : ",[";
      append_integer(out, epoch);
      out += ',';
      append_integer(out, number);
      out += ']';
    }
    out += ']';
  });
}

inline void append_map(std::string& out, double map) {
  out += ",\"map\":";
  if (is_finite(map))
    text::append_number(out, map);
  else
    text::append_json_string(out, text::form_number(map));
}

inline void append(std::string& out, const upload_line& entry) {
  append_line(out, [&] {
    out += "\"upload\":";
    append_integer(out, entry.number);
    out += ",\"epoch\":";
    append_integer(out, entry.fields.epoch);
    out += entry.fields.is_final ? ",\"final\":true" : ",\"final\":false";
    out += entry.fields.is_best ? ",\"best\":true" : ",\"best\":false";
    append_map(out, entry.fields.map);
    out += ",\"bytes\":";
    append_integer(out, entry.bytes);
    out += ",\"sample\":";
    append_integer(out, entry.sample);
  });
}

inline void append(std::string& out, const upload_done_line& entry) {
  append_line(out, [&] {
    out += "\"upload_done\":";
    append_integer(out, entry.number);
    if (entry.memo.empty()) return;
    out += ",\"memo\":";
    text::append_json_string(out, entry.memo);
  });
}

inline void append_lines(std::string& out, const std::vector<std::string>& lines) {
  out += ",\"lines\":[";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += ',';
    text::append_json_string(out, lines[i]);
  }
  out += ']';
}

inline void append(std::string& out, const console_line& entry) {
  append_line(out, [&] {
    out += "\"console\":";
    append_integer(out, entry.number);
    append_lines(out, entry.lines);
  });
}

inline void append_chunk(std::string& out, std::uint64_t chunk, std::uint64_t through,
                         const std::vector<std::string>& lines) {
  append_line(out, [&] {
    out += "\"chunk\":";
    append_integer(out, chunk);
    out += ",\"through\":";
    append_integer(out, through);
    append_lines(out, lines);
  });
}

inline void append(std::string& out, const chunk_done_line& entry) {
  append_line(out, [&] {
    out += "\"chunk_done\":";
    append_integer(out, entry.chunk);
    out += ",\"through\":";
    append_integer(out, entry.through);
  });
}

inline void append_ending(std::string& out, std::uint64_t number, const run_ending& how) {
  append_line(out, [&] {
    out += "\"ending\":";
    append_integer(out, number);
    out += ",\"epoch\":";
    append_integer(out, how.epoch);
    append_map(out, how.map);
    out += ",\"results\":";
    text::append_json_string(out, how.results);
    if (!how.failure) return;
    out += ",\"failure\":";
    text::append_json_string(out, *how.failure);
  });
}

inline void append(std::string& out, const ending_done_line& entry) {
  append_line(out, [&] {
    out += "\"ending_done\":";
    append_integer(out, entry.number);
  });
}

inline std::optional<std::uint64_t> get_count(const json* value) {
  if (!value || !value->is_number_unsigned()) return std::nullopt;
  return value->get<std::uint64_t>();
}

inline std::optional<line> read_epoch(const json& fields) {
  const auto epoch = text::get_int(fields, "epoch");
  const auto number = get_count(text::get_member(fields, "number"));
  const json* metrics = text::get_member(fields, "metrics");
  if (!epoch || !number || !metrics || !metrics->is_array()) return std::nullopt;
  std::vector<std::pair<std::string, double>> values;
  for (const json& each : *metrics) {
    const bool fits = each.is_array() && each.size() == 2 && each[0].is_string() &&
                      (each[1].is_number() || each[1].is_null());
    if (!fits) return std::nullopt;
    values.emplace_back(each[0].get<std::string>(), each[1].is_null()
                                                        ? std::numeric_limits<double>::quiet_NaN()
                                                        : each[1].get<double>());
  }
  return epoch_line{*epoch, *number, std::make_shared<const epoch_record>(values)};
}

inline std::optional<line> read_done(const json& pairs) {
  done_line out;
  if (!pairs.is_array()) return std::nullopt;
  for (const json& each : pairs) {
    if (!each.is_array() || each.size() != 2) return std::nullopt;
    const auto epoch = text::as_int(&each[0]);
    const auto number = get_count(&each[1]);
    if (!epoch || !number) return std::nullopt;
    out.epochs.emplace_back(*epoch, *number);
  }
  return out;
}

// Earlier versions wrote null for every map that is not finite.
inline double read_map(const json& fields) {
  if (const auto number = text::get_number(fields, "map")) return *number;
  return text::parse_not_finite(text::get_string(fields, "map"))
      .value_or(std::numeric_limits<double>::quiet_NaN());
}

inline std::optional<line> read_upload(const json& fields) {
  const auto number = get_count(text::get_member(fields, "upload"));
  const auto epoch = text::get_int(fields, "epoch");
  const auto bytes = get_count(text::get_member(fields, "bytes"));
  const auto sample = get_count(text::get_member(fields, "sample"));
  if (!number || !epoch || !bytes || !sample) return std::nullopt;
  return upload_line{*number,
                     {.epoch = *epoch,
                      .is_final = text::get_flag(fields, "final"),
                      .is_best = text::get_flag(fields, "best"),
                      .map = read_map(fields)},
                     *bytes,
                     *sample};
}

inline std::optional<std::vector<std::string>> read_lines(const json& fields) {
  const json* lines = text::get_member(fields, "lines");
  if (!lines || !lines->is_array()) return std::nullopt;
  std::vector<std::string> out;
  for (const json& each : *lines) {
    if (!each.is_string()) return std::nullopt;
    out.push_back(each.get<std::string>());
  }
  return out;
}

inline std::optional<line> read_console(const json& fields) {
  const auto number = get_count(text::get_member(fields, "console"));
  auto lines = read_lines(fields);
  if (!number || !lines) return std::nullopt;
  return console_line{*number, *std::move(lines)};
}

inline std::optional<line> read_chunk(const json& fields) {
  const auto chunk = get_count(text::get_member(fields, "chunk"));
  const auto through = get_count(text::get_member(fields, "through"));
  auto lines = read_lines(fields);
  if (!chunk || !through || !lines) return std::nullopt;
  return chunk_line{*chunk, *through, *std::move(lines)};
}

inline std::optional<line> read_chunk_done(const json& fields) {
  const auto chunk = get_count(text::get_member(fields, "chunk_done"));
  const auto through = get_count(text::get_member(fields, "through"));
  if (!chunk || !through) return std::nullopt;
  return chunk_done_line{*chunk, *through};
}

inline std::optional<line> read_ending(const json& fields) {
  const auto number = get_count(text::get_member(fields, "ending"));
  const auto epoch = text::get_int(fields, "epoch");
  if (!number || !epoch) return std::nullopt;
  run_ending how{
      .epoch = *epoch, .map = read_map(fields), .results = text::get_string(fields, "results")};
  if (fields.contains("failure")) how.failure = text::get_string(fields, "failure");
  return ending_line{*number, std::make_shared<const run_ending>(std::move(how))};
}

// Of what is over, and has a number alone.
template <class Line>
std::optional<line> read_number(const json& fields, const char* name) {
  const auto number = get_count(text::get_member(fields, name));
  if (!number) return std::nullopt;
  Line out;
  out.number = *number;
  return out;
}

// Reads a line without its line break; nothing if it is not as it was written.
inline std::optional<line> read_line(std::string_view text) {
  if (text.size() <= lead_bytes || !text.starts_with(lead)) return std::nullopt;
  const std::string_view rest = text.substr(lead_bytes);
  const auto sum = sum_of(rest);
  if (text.substr(lead.size(), sum_digits) != std::string_view(sum.data(), sum.size()) ||
      text.substr(lead_bytes - 2, 2) != "\",")
    return std::nullopt;
  const std::optional<json> fields = text::parse_json('{' + std::string(rest));
  if (!fields || !fields->is_object()) return std::nullopt;
  if (fields->contains("metrics")) return read_epoch(*fields);
  if (const json* pairs = text::get_member(*fields, "done")) return read_done(*pairs);
  if (fields->contains("upload")) return read_upload(*fields);
  if (fields->contains("upload_done")) {
    auto done = read_number<upload_done_line>(*fields, "upload_done");
    if (done) std::get<upload_done_line>(*done).memo = text::get_string(*fields, "memo");
    return done;
  }
  if (fields->contains("console")) return read_console(*fields);
  if (fields->contains("chunk")) return read_chunk(*fields);
  if (fields->contains("chunk_done")) return read_chunk_done(*fields);
  if (fields->contains("ending")) return read_ending(*fields);
  if (fields->contains("ending_done")) return read_number<ending_done_line>(*fields, "ending_done");
  if (const auto version = text::get_int(*fields, "format"))
    return head_line{*version, text::get_flag(*fields, "base")};
  return unknown_line{};
}

// What a journal comes to: what is alive, and the highest number that it names.
class contents {
 public:
  std::map<int, epoch_line> epochs = {};
  std::optional<upload_line> upload = {};
  std::optional<std::pair<int, std::uint64_t>> last_done = {};  // the highest epoch struck out
  std::string memo = {};                            // what the final upload left for the ending
  std::map<std::uint64_t, std::string> lines = {};  // printed, by number
  std::optional<chunk_line> chunk = {};             // made of those before, and perhaps sent
  chunk_done_line chunk_done = {};                  // the last one that was delivered
  std::optional<ending_line> ending = {};
  std::uint64_t last_number = 0;
  std::size_t damaged = 0;  // lines that were not as they had been written
  int format = journal::format;

  // Takes in a segment. Segments come in order.
  void read(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      if (end > at) take(read_line(text.substr(at, end - at)));
      at = end + 1;
    }
  }

  // What is alive as a segment of its own, which may stand for all before it.
  std::string text() const {
    std::string out;
    append(out, head_line{.base = true});
    if (last_done) append(out, done_line{{*last_done}});
    for (const auto& [epoch, each] : epochs) append_epoch(out, epoch, each.number, *each.values);
    if (upload) append(out, *upload);
    if (!memo.empty()) append(out, upload_done_line{upload_done_, memo});
    if (chunk_done.chunk > 0) append(out, chunk_done);
    if (chunk) append_chunk(out, chunk->chunk, chunk->through, chunk->lines);
    for (const auto& [number, text] : lines) append(out, console_line{number, {text}});
    if (ending) append_ending(out, ending->number, *ending->how);
    return out;
  }

  // How many printed lines wait.
  std::size_t line_count() const { return lines.size() + (chunk ? chunk->lines.size() : 0); }
  bool empty() const { return epochs.empty() && !upload && line_count() == 0 && !ending; }

 private:
  void take(std::optional<line> parsed) {
    if (!parsed)
      ++damaged;
    else
      std::visit([this](auto& each) { take(each); }, *parsed);
  }
  void take(const unknown_line&) {}
  void take(const head_line& entry) {
    format = std::max(format, entry.format);
    if (!entry.base) return;
    epochs.clear();
    epochs_done_.clear();
    last_done.reset();
    upload.reset();
    upload_done_ = 0;
    memo.clear();
    lines.clear();
    chunk.reset();
    chunk_done = {};
    through_ = 0;
    ending.reset();
    ending_done_ = 0;
  }
  void take(epoch_line& entry) {
    last_number = std::max(last_number, entry.number);
    const auto done = epochs_done_.find(entry.epoch);
    if (done != epochs_done_.end() && entry.number <= done->second) return;
    epoch_line& newest = epochs[entry.epoch];
    if (entry.number > newest.number) newest = std::move(entry);
  }
  void take(const done_line& entry) {
    for (const auto& [epoch, number] : entry.epochs) {
      last_number = std::max(last_number, number);
      std::uint64_t& done = epochs_done_[epoch];
      done = std::max(done, number);
      if (!last_done || epoch >= last_done->first) last_done.emplace(epoch, done);
      const auto at = epochs.find(epoch);
      if (at != epochs.end() && at->second.number <= done) epochs.erase(at);
    }
  }
  void take(const upload_line& entry) {
    last_number = std::max(last_number, entry.number);
    if (entry.number > upload_done_ && (!upload || entry.number > upload->number)) upload = entry;
  }
  void take(upload_done_line& entry) {
    last_number = std::max(last_number, entry.number);
    if (!entry.memo.empty()) memo = std::move(entry.memo);
    upload_done_ = std::max(upload_done_, entry.number);
    if (upload && upload->number <= upload_done_) upload.reset();
  }
  void take(console_line& entry) {
    for (std::string& text : entry.lines) {
      last_number = std::max(last_number, entry.number);
      if (entry.number > through_) lines[entry.number] = std::move(text);
      ++entry.number;
    }
  }
  void take(chunk_line& entry) {
    take_through(entry.through);
    if (entry.chunk > chunk_done.chunk && (!chunk || entry.chunk >= chunk->chunk))
      chunk = std::move(entry);
  }
  void take(const chunk_done_line& entry) {
    take_through(entry.through);
    if (entry.chunk >= chunk_done.chunk) chunk_done = entry;
    if (chunk && chunk->chunk <= chunk_done.chunk) chunk.reset();
  }
  void take_through(std::uint64_t number) {
    last_number = std::max(last_number, number);
    through_ = std::max(through_, number);
    lines.erase(lines.begin(), lines.upper_bound(through_));
  }
  void take(const ending_line& entry) {
    last_number = std::max(last_number, entry.number);
    if (entry.number > ending_done_ && (!ending || entry.number > ending->number)) ending = entry;
  }
  void take(const ending_done_line& entry) {
    last_number = std::max(last_number, entry.number);
    ending_done_ = std::max(ending_done_, entry.number);
    if (ending && ending->number <= ending_done_) ending.reset();
  }

  std::map<int, std::uint64_t> epochs_done_ = {};
  std::uint64_t upload_done_ = 0;
  std::uint64_t through_ = 0;  // the last line that is in a chunk
  std::uint64_t ending_done_ = 0;
};

// A number for what a file holds, taken from pieces all over it. It is there to notice what a power
// failure kept from the disk, at a cost that does not grow with the file; 0 if it cannot be read.
inline std::uint64_t sample_hash(body_source& file) {
  constexpr std::uint64_t pieces = 16;
  std::array<char, 4096> piece;
  const std::uint64_t size = file.size_bytes();
  const std::uint64_t step =
      size <= pieces * piece.size() ? piece.size() : (size - piece.size()) / (pieces - 1);
  std::uint64_t hash = text::content_hash({});
  for (std::uint64_t i = 0; i < pieces && i * step < size; ++i) {
    const auto got = file.read(i + 1 == pieces ? size - piece.size() : i * step, piece);
    if (!got) return 0;
    hash = text::content_hash({piece.data(), *got}, hash);
  }
  return hash;
}

inline std::string segment_name(std::uint64_t index) {
  return "journal-" + std::to_string(index) + ".jsonl";
}
inline std::string upload_name(std::uint64_t number) {
  return "checkpoint-" + std::to_string(number) + ".pt";
}

// The N of a segment's name, if it is one.
inline std::optional<std::uint64_t> segment_index(std::string_view name) {
  constexpr std::string_view before = "journal-";
  std::uint64_t index = 0;
  if (!name.starts_with(before)) return std::nullopt;
  const char* first = name.data() + before.size();
  std::from_chars(first, name.data() + name.size(), index);
  return name == segment_name(index) ? std::optional(index) : std::nullopt;
}

inline std::vector<std::uint64_t> segments(const spool_folder& folder) {
  std::vector<std::uint64_t> out;
  for (const spool_folder::entry& each : folder.list())
    if (const auto index = segment_index(each.name)) out.push_back(*index);
  std::sort(out.begin(), out.end());
  return out;
}

// The journal's segments up to `last`.
inline result<contents> read(const spool_folder& folder,
                             std::uint64_t last = std::numeric_limits<std::uint64_t>::max()) {
  contents out;
  for (std::uint64_t index : segments(folder)) {
    if (index > last) break;
    const auto text = folder.read(segment_name(index));
    if (!text) return text.error();
    out.read(*text);
  }
  return out;
}

}  // namespace journal

// A spool's folder on the disk.
class disk_folder final : public spool_folder {
 public:
  explicit disk_folder(fs::path folder) : folder_(std::move(folder)) {}

  // Makes the folder where it is missing, and keeps every other process and session off it.
  std::optional<error> lock() {
    std::error_code failed;
    fs::create_directories(folder_.parent_path(), failed);
    make_private_folder(folder_);
    lock_.reset();
    const fs::path file = folder_ / "lock";
    make_private(file);
    if (!fs::exists(file, failed)) return failure("cannot be used", errno);
    if (lock_.emplace(file).taken()) return taken();
    if (!lock_->held()) return failure("cannot be locked", lock_->why_not().value());
    std::ofstream(file) << process_id() << '\n';
    return std::nullopt;
  }

  std::vector<entry> list() const override {
    std::vector<entry> out;
    std::error_code failed;
    for (fs::directory_iterator at(folder_, failed), end; !failed && at != end;
         at.increment(failed)) {
      std::error_code gone;
      const std::uintmax_t bytes = at->file_size(gone);
      if (!gone) out.push_back({utf8_of(at->path().filename()), bytes});
    }
    return out;
  }

  result<std::string> read(std::string_view name) const override {
    std::error_code failed;
    const std::uintmax_t bytes = fs::file_size(folder_ / name, failed);
    if (failed) return failure("cannot be read from", failed.value());
    std::string text;
    if (bytes > text.max_size()) return failure("cannot be read from", EFBIG);
    text.resize(static_cast<std::size_t>(bytes));
    const open_file in = machine::open(folder_ / name, "rb");
    if (!in) return failure("cannot be read from", errno);
    text.resize(std::fread(text.data(), 1, text.size(), in.get()));
    return text;
  }

  std::optional<error> append(std::string_view name, std::string_view bytes) override {
    if (!journal_ || name != journal_name_ || is_gone())
      if (auto why = open_journal(name)) return why;
    if (std::fwrite(bytes.data(), 1, bytes.size(), journal_.get()) != bytes.size())
      return failure("cannot be written to", errno);
    return std::nullopt;
  }

  std::optional<error> sync(std::string_view name) override {
    std::error_code gone;  // what was removed again needs no disk
    const bool synced = !fs::exists(folder_ / name, gone) || sync_to_disk(folder_ / name);
    if (synced && sync_to_disk(folder_)) return std::nullopt;
    return failure("cannot be forced to the disk", 0);
  }

  std::optional<error> replace(std::string_view name, std::string_view bytes) override {
    if (write_text_file(folder_ / name, bytes) && sync_to_disk(folder_)) return std::nullopt;
    return failure("cannot be written to", 0);
  }

  result<std::uintmax_t> adopt(const fs::path& from, std::string_view name,
                               bool may_link) override {
    const fs::path to = folder_ / name;
    std::error_code failed;
    if (may_link) fs::create_hard_link(fs::canonical(from, failed), to, failed);
    if (!may_link || failed) {
      auto copy = copy_steady(from, to);
      if (!copy) return copy.error();
      if (!copy->rename_to(to)) return copy->discard(), failure("cannot be written to", errno);
    }
    const std::uintmax_t bytes = fs::file_size(to, failed);
    if (failed) return file_error(from, "cannot be looked at");
    return bytes;
  }

  void remove(std::string_view name) override {
    std::error_code ignored;
    fs::remove(folder_ / name, ignored);
  }

  result<std::shared_ptr<body_source>> open(std::string_view name) const override {
    return file_source::open(folder_ / name);
  }

 private:
  error failure(std::string_view subject, int number) const {
    const std::string why =
        number != 0 ? " (" + std::error_code(number, std::generic_category()).message() + ")" : "";
    return {errc::file_error, "The spool's folder " + machine::shown(folder_) + " " +
                                  std::string(subject) + why +
                                  ". Check session_options::spool and the disk."};
  }

  error taken() const {
    std::string owner = read_text_file(folder_ / "lock");
    owner = owner.substr(0, owner.find('\n'));
    return {errc::spool_locked,
            "The spool's folder " + machine::shown(folder_) + " is in use by another session" +
                (owner.empty() ? "" : " (process " + text::printable(owner) + ")") +
                ". Wait until that has ended, or use another spool.directory."};
  }

  // Whether the file that append() keeps open was deleted, and its folder perhaps with it.
  bool is_gone() const { return machine::is_removed(journal_.get(), folder_ / journal_name_); }

  std::optional<error> open_journal(std::string_view name) {
    std::error_code gone;
    const bool lost = journal_ && is_gone();
    journal_.reset();
    if (lost || !fs::is_directory(folder_, gone))
      if (auto why = lock()) return why;
    make_private(folder_ / name);
    journal_ = machine::open(folder_ / name, "ab");
    if (!journal_) return failure("cannot be written to", errno);
    journal_name_ = name;
    return std::nullopt;
  }

  open_file journal_;  // which append() keeps open
  std::string journal_name_;
  fs::path folder_;
  std::optional<file_lock> lock_;
};

class disk_storage final : public spool_storage {
 public:
  result<std::unique_ptr<spool_folder>> open(const fs::path& folder) override {
    auto out = std::make_unique<disk_folder>(folder);
    if (auto why = out->lock()) return *why;
    return std::unique_ptr<spool_folder>(std::move(out));
  }
};

// A session's hold on its model's folder. Its callbacks may come from any thread.
class store {
 public:
  // Takes the folder and reads what was left in it. Null if no spool is wanted or if it cannot
  // be used, which is said. Throws session_error if another session has it.
  static std::unique_ptr<store> open(const spool_options& options, const std::string& run_folder,
                                     std::string_view run_file, reporter& report) {
    if (options.directory.empty()) return nullptr;
    disk_storage disk;
    spool_storage& storage = options.storage ? *options.storage : disk;
    auto folder = storage.open(full_path(options.directory) / run_folder);
    std::optional<error> why;
    if (folder) {
      auto out = std::make_unique<store>(options, run_file, report, *std::move(folder));
      why = out->load();
      if (!why) return out;
    } else {
      why = folder.error();
    }
    if (why->code == errc::spool_locked) throw session_error(*why);
    report.log(log_level::error, why->message + " The training goes on in memory alone.");
    return nullptr;
  }

  store(spool_options options, std::string_view run_file, reporter& report,
        std::unique_ptr<spool_folder> folder)
      : options_(std::move(options)),
        run_file_(run_file),
        report_(report),
        folder_(std::move(folder)) {}

  // What the session before left. Empty the second time.
  journal::contents take_left() { return std::exchange(left_, {}); }
  // The highest epoch that the server had confirmed, or refused for good, when this was opened.
  std::optional<int> last_done_epoch() const noexcept { return last_done_; }
  bool has_left() const { return !left_.empty(); }
  // Something to begin with where nothing waits, too.
  bool has_chunks() const { return left_.chunk_done.chunk > 0; }

  // For a run that begins anew in a folder that a finished one has left: nothing of that counts. Why
  // that is not possible, if so; then the folder cannot be used.
  std::optional<error> begin_anew() {
    if (left_.empty() && !has_chunks() && !last_done_) return std::nullopt;
    std::string head;
    journal::append(head, journal::head_line{.base = true});
    if (auto why = folder_->replace(segment_name_, head)) return why;
    if (!left_.empty())
      report_.log(log_level::warning,
                  "The spool's folder holds what belongs to no run any more; it is left out.");
    for (const auto& [number, bytes] : uploads_) folder_->remove(journal::upload_name(number));
    uploads_.clear();
    left_ = {};
    last_done_.reset();
    fresh_ = false;
    totals_.records = 0;
    totals_.bytes += head.size();
    return std::nullopt;
  }

  // For when HUB has the final model, which no checkpoint may follow.
  void drop_left_checkpoint(time_point now) {
    if (!left_.upload || left_.upload->fields.is_final) return;
    strike({.uploads = {left_.upload->number}}, now);
    left_.upload.reset();
  }

  // From now on `wake` is called when maintain() has something to do.
  void on_work(std::function<void()> wake) { wake_ = std::move(wake); }

  std::size_t dropped() const {
    const std::lock_guard lock(mutex_);
    return dropped_;
  }

  // ---- what the protocol remembers of the run ------------------------------------------------------

  void keep_run(const std::string& text) {
    const auto before = folder_->read(run_file_);
    // Whoever wrote it may have died before it was safe from a power failure.
    const bool is_there = before && *before == text;
    const auto why = is_there ? folder_->sync(run_file_) : folder_->replace(run_file_, text);
    if (why) report_.log(log_level::warning, why->message);
  }
  // For a run that has ended, which nobody resumes.
  void forget_run() { folder_->remove(run_file_); }
  std::optional<std::string> kept_run() const {
    auto text = folder_->read(run_file_);
    return text ? std::optional(*std::move(text)) : std::nullopt;
  }

  // ---- what is accepted --------------------------------------------------------------------------

  // Writes an epoch down and returns its number, also if it could not be written: then the number
  // still supersedes what the journal has of this epoch.
  std::uint64_t add_epoch(int epoch, const epoch_record& values, time_point now) {
    const std::lock_guard lock(mutex_);
    const std::uint64_t number = ++last_number_;
    buffer_.clear();
    journal::append_epoch(buffer_, epoch, number, values);
    if (make_room(buffer_.size()) && write(buffer_, now) && settle({}))
      ++totals_.records;
    else
      ++dropped_;
    return number;
  }

  // Writes printed lines down and returns the first one's number, or 0 if that could not be. They may
  // take half of the room, so that epochs have the other.
  std::uint64_t add_console(const std::vector<std::string>& lines, time_point now) {
    const std::lock_guard lock(mutex_);
    printed_lines printed{last_number_ + 1, lines};
    last_number_ += lines.size();
    buffer_.clear();
    journal::append(buffer_, printed);
    const bool fits = totals_.bytes + buffer_.size() <= options_.bytes_max / 2;
    if (fits && make_room(buffer_.size()) && write(buffer_, now) && settle({}))
      return printed.number;
    dropped_ += lines.size();
    return 0;
  }

  // Writes down what a chunk is made of, before it is sent the first time.
  void add_chunk(std::uint64_t chunk, std::uint64_t through, const std::vector<std::string>& lines,
                 time_point now) {
    const std::lock_guard lock(mutex_);
    if (chunk <= last_chunk_) return;
    buffer_.clear();
    journal::append_chunk(buffer_, chunk, through, lines);
    last_chunk_ = chunk;
    if (write(buffer_, now)) settle({});
  }

  // Writes down how the training ended, and returns the number of that, or 0 if it could not be.
  std::uint64_t add_ending(const run_ending& how, time_point now) {
    const std::lock_guard lock(mutex_);
    const std::uint64_t number = ++last_number_;
    buffer_.clear();
    journal::append_ending(buffer_, number, how);
    return make_room(buffer_.size()) && write(buffer_, now) && settle({}) ? number : 0;
  }

  // Takes a checkpoint's file in and returns its number, or 0 if it has to stay where it is.
  // Blocks for one file copy at most, and with spool_sync::each for the disk.
  std::uint64_t add_upload(const upload_fields& fields, const fs::path& file, bool may_link,
                           time_point now) {
    const auto source = fingerprint_of(file);
    if (!source || source->size_bytes == 0) return 0;  // whoever looks next says so
    std::unique_lock lock(mutex_);
    const std::uint64_t number = ++last_number_;
    const std::string name = journal::upload_name(number);
    if (!make_room(source->size_bytes)) {
      ++dropped_;
      return 0;
    }
    uploads_[number] = source->size_bytes;
    lock.unlock();
    const auto bytes = folder_->adopt(file, name, may_link);
    const std::uint64_t sample = bytes ? sample_of(name) : 0;
    lock.lock();
    if (!bytes) complain(bytes.error());
    buffer_.clear();
    if (bytes) journal::append(buffer_, journal::upload_line{number, fields, *bytes, sample});
    // If metrics needed the room meanwhile, it is gone already.
    if (bytes && uploads_.contains(number) && write(buffer_, now) && settle(name)) {
      uploads_[number] = *bytes;
      return number;
    }
    uploads_.erase(number);
    folder_->remove(name);
    ++dropped_;
    return 0;
  }

  result<std::shared_ptr<body_source>> open_upload(std::uint64_t number) const {
    {
      const std::lock_guard lock(mutex_);
      if (!uploads_.contains(number))
        return error{errc::file_error,
                     "A checkpoint was given up, because the spool needed its room for metrics. "
                     "Raise spool.bytes_max to keep both."};
    }
    return folder_->open(journal::upload_name(number));
  }

  // ---- what is over ------------------------------------------------------------------------------

  void strike(const struck_out& struck, time_point now) {
    if (struck.empty()) return;
    const std::lock_guard lock(mutex_);
    buffer_.clear();
    if (!struck.epochs.empty()) journal::append(buffer_, journal::done_line{struck.epochs});
    for (std::uint64_t number : struck.uploads)
      journal::append(buffer_, journal::upload_done_line{number, struck.memo});
    if (struck.chunk > 0)
      journal::append(buffer_, journal::chunk_done_line{struck.chunk, struck.lines_through});
    if (struck.ending > 0) journal::append(buffer_, journal::ending_done_line{struck.ending});
    totals_.struck += struck.epochs.size();
    if (totals_.struck * 2 >= totals_.records)
      rewrite_at_ = std::min(rewrite_at_, rewrite_bytes_min());
    if (!write(buffer_, now)) backlog_ += buffer_;
    for (std::uint64_t number : struck.uploads)
      if (uploads_.erase(number) > 0) folder_->remove(journal::upload_name(number));
  }

  // ---- in the background -------------------------------------------------------------------------

  // Forces to the disk what is due, rewrites the journal if that is due, and returns when to be
  // called again. Never two at a time.
  time_point maintain(time_point now) {
    bool rewrite_now = false;
    {
      const std::lock_guard lock(mutex_);
      rewrite_now = rewrite_is_due();
      if (!rewrite_now && now < sync_due_) return sync_due_;
    }
    sync();
    if (rewrite_now) rewrite();
    const std::lock_guard lock(mutex_);
    return sync_due_;
  }

  // The last words, when nothing else runs any more.
  void close(time_point now) {
    {
      const std::lock_guard lock(mutex_);
      if (!backlog_.empty()) write({}, now);
    }
    if (options_.sync != spool_sync::none) sync();
  }

 private:
  static constexpr std::size_t strike_bytes = 96;  // the most that striking out one epoch takes

  // ---- the start ---------------------------------------------------------------------------------

  std::optional<error> load() {
    auto found = journal::read(*folder_);
    if (!found) return found.error();
    if (found->format > journal::format)
      return error{
          errc::file_error,
          "The spool was written by a newer version of hub_session, and is left alone. Use "
          "that version, or another spool.directory."};
    left_ = *std::move(found);
    if (left_.last_done) last_done_ = left_.last_done->first;
    last_number_ = left_.last_number;
    last_chunk_ = left_.chunk ? left_.chunk->chunk : left_.chunk_done.chunk;
    if (left_.damaged > 0)
      report_.log(log_level::warning, std::to_string(left_.damaged) +
                                          " damaged lines of the spool's journal are left out.");
    tidy();
    const std::vector<std::uint64_t> segments = journal::segments(*folder_);
    if (!segments.empty()) {
      segment_ = segments.back();
      rewrite();
    }
    return std::nullopt;
  }

  // Removes what a crash left of checkpoints and of files that were being replaced, and finds the
  // checkpoint that waits.
  void tidy() {
    const std::string wanted = left_.upload ? journal::upload_name(left_.upload->number) : "";
    bool found = false;
    for (const spool_folder::entry& each : folder_->list()) {
      totals_.bytes += journal::segment_index(each.name) ? each.bytes : 0;
      found = found || (each.name == wanted && each.bytes == left_.upload->bytes &&
                        sample_of(wanted) == left_.upload->sample);
      if ((each.name.starts_with("checkpoint-") && each.name != wanted) ||
          each.name.find(fresh_file::mark) != std::string::npos)
        folder_->remove(each.name);
    }
    if (found) {
      uploads_[left_.upload->number] = left_.upload->bytes;
    } else if (left_.upload) {
      report_.log(log_level::warning,
                  "The checkpoint that the spool should hold is not whole, and is not sent.");
      ++dropped_;
      folder_->remove(wanted);
      left_.upload.reset();
    }
  }

  std::uint64_t sample_of(const std::string& name) const {
    const auto file = folder_->open(name);
    return file ? journal::sample_hash(**file) : 0;
  }

  // ---- the journal, under the mutex --------------------------------------------------------------

  // Appends whole lines, and first what could not be written before.
  bool write(std::string_view lines, time_point now) {
    if (torn_ || !backlog_.empty() || fresh_) {
      std::string before = torn_ ? "\n" : "";
      if (fresh_) journal::append(before, journal::head_line{});
      before += backlog_;
      if (!write_some(before)) return false;
      fresh_ = false;
      backlog_.clear();
    }
    if (!write_some(lines)) return false;
    if (std::exchange(failing_, false))
      report_.log(log_level::info, "The spool can be written to again.");
    if (options_.sync == spool_sync::interval && sync_due_ == never) {
      sync_due_ = later(now, options_.sync_interval);
      wake();
    } else if (rewrite_is_due()) {
      wake();
    }
    return true;
  }

  bool write_some(std::string_view lines) {
    const auto why = folder_->append(segment_name_, lines);
    torn_ = why.has_value();
    if (why)
      complain(*why);
    else
      totals_.bytes += lines.size();
    return !why;
  }

  // What spool_sync::each promises: the file, if there is one, and then the journal that names it.
  bool settle(std::string_view file) {
    if (!file.empty() && options_.sync == spool_sync::interval) unsynced_.emplace(file);
    if (options_.sync != spool_sync::each) return true;
    std::optional<error> why;
    if (!file.empty()) why = folder_->sync(file);
    if (!why) why = folder_->sync(segment_name_);
    if (why) complain(*why);
    return !why;
  }

  void wake() const {
    if (wake_) wake_();
  }

  // Once for each row of failures.
  void complain(const error& why) {
    if (std::exchange(failing_, true)) return;
    report_.log(log_level::error,
                why.message +
                    " Until it works again, what the server has not confirmed is in memory alone.");
  }

  // ---- the bound, under the mutex ----------------------------------------------------------------

  // Whether so much more may be written, with room left to strike out all that is there. Checkpoints
  // make way if that helps, the oldest first.
  bool make_room(std::uintmax_t bytes) {
    std::uintmax_t needed =
        totals_.bytes + bytes + backlog_.size() +
        (totals_.records + 1 - std::min(totals_.struck, totals_.records)) * strike_bytes;
    if (needed > options_.bytes_max) {
      say_full();
      return false;
    }
    for (const auto& [number, size] : uploads_) needed += size;
    while (needed > options_.bytes_max) {
      const auto [number, size] = *uploads_.begin();
      say_full();
      ++dropped_;
      needed -= size;
      uploads_.erase(number);
      folder_->remove(journal::upload_name(number));
      journal::append(backlog_, journal::upload_done_line{number});
    }
    return true;
  }

  void say_full() {
    if (std::exchange(full_said_, true)) return;
    report_.log(
        log_level::error,
        "HUB has not confirmed anything for so long that the spool is full; checkpoints are "
        "given up first, then new metrics are in memory alone. Raise spool.bytes_max to "
        "keep more.");
  }

  // ---- forcing and rewriting, without the mutex --------------------------------------------------

  void sync() {
    std::set<std::string> names;
    {
      const std::lock_guard lock(mutex_);
      if (!fresh_) unsynced_.insert(segment_name_);
      names = std::exchange(unsynced_, {});
      sync_due_ = never;
    }
    for (const std::string& each : names)
      if (auto why = folder_->sync(each)) {
        const std::lock_guard lock(mutex_);
        complain(*why);
        unsynced_.insert(each);  // the next time, which the next write brings
      }
  }

  // When the journal has doubled since it was rewritten last, or half of it is dead.
  bool rewrite_is_due() const { return totals_.bytes >= rewrite_at_; }
  std::uintmax_t rewrite_bytes_min() const {
    return std::min(options_.rewrite_bytes_min, options_.bytes_max / 2);
  }

  // Begins a new segment and puts what is alive of the older ones into one.
  void rewrite() {
    std::uint64_t last = 0;
    totals before;
    {
      const std::lock_guard lock(mutex_);
      last = segment_++;
      segment_name_ = journal::segment_name(segment_);
      fresh_ = true;
      before = totals_;
    }
    auto alive = journal::read(*folder_, last);
    if (alive && alive->upload) {
      const std::lock_guard lock(mutex_);
      if (!uploads_.contains(alive->upload->number)) alive->upload.reset();  // its file is gone
    }
    const std::string text = alive ? alive->text() : std::string();
    const auto why = alive ? folder_->replace(journal::segment_name(last), text) : alive.error();
    const std::vector<std::uint64_t> there = journal::segments(*folder_);
    if (!why)
      for (std::uint64_t index : there)
        if (index < last) folder_->remove(journal::segment_name(index));
    const std::lock_guard lock(mutex_);
    if (why) {
      complain(*why);
      for (std::uint64_t index : there)
        if (index <= last) unsynced_.insert(journal::segment_name(index));
      rewrite_at_ = std::max(rewrite_bytes_min(), totals_.bytes * 2);
      return;
    }
    totals_.bytes = text.size() + (totals_.bytes - before.bytes);
    totals_.records = alive->epochs.size() + (totals_.records - before.records);
    totals_.struck -= before.struck;
    rewrite_at_ = std::max(rewrite_bytes_min(), totals_.bytes * 2);
  }

  struct totals {  // of the journal
    std::uintmax_t bytes = 0;
    std::size_t records = 0;  // epochs,
    std::size_t struck = 0;   // and how many of them were struck out
  };

  spool_options options_;
  std::string run_file_;  // where the protocol's text of the run is
  reporter& report_;
  std::unique_ptr<spool_folder> folder_;
  std::function<void()> wake_;
  journal::contents left_;
  std::optional<int> last_done_ = {};

  mutable std::mutex mutex_;
  std::uint64_t last_number_ = 0;
  std::uint64_t last_chunk_ = 0;
  std::uint64_t segment_ = 1;  // which is appended to
  std::string segment_name_ = journal::segment_name(1);
  bool fresh_ = true;    // nothing is in that segment yet
  bool torn_ = false;    // it may end in the middle of a line
  std::string backlog_;  // lines that have to be written yet
  std::string buffer_;   // kept, so that its memory is
  totals totals_;
  std::map<std::uint64_t, std::uintmax_t> uploads_;  // the files by number, with their bytes
  std::set<std::string> unsynced_;                   // files beside the current segment
  time_point sync_due_ = never;
  std::uintmax_t rewrite_at_ = rewrite_bytes_min();
  std::size_t dropped_ = 0;
  bool failing_ = false;
  bool full_said_ = false;
};

}  // namespace spool

// =================================================================================================
// session
//
// Rules: acts and decides nothing. Every decision is the engine's, every byte's meaning the protocol's.
// One mutex guards the engine; nothing blocks while it is held.
// =================================================================================================

// What the folders in a spool hold that the server has not confirmed, without taking their locks.
// Blocks: reads the journals. Empty if there is no such folder.
inline std::vector<spooled_model> list_spool(const std::filesystem::path& directory) {
  namespace journal = spool::journal;
  std::vector<spooled_model> out;
  std::error_code failed;
  for (std::filesystem::directory_iterator at(directory, failed), end; !failed && at != end;
       at.increment(failed)) {
    const spool::disk_folder folder(at->path());
    auto whose =
        owner_of_folder(machine::utf8_of(at->path().filename()), [&](std::string_view file) {
          const auto text = folder.read(file);
          return text ? *text : std::string();
        });
    if (!whose) continue;
    spooled_model& model = out.emplace_back(*std::move(whose));
    for (const spool_folder::entry& file : folder.list())
      if (journal::segment_index(file.name)) model.journal_bytes += file.bytes;
    const auto left = journal::read(folder);
    if (!left) continue;
    model.epochs = left->epochs.size();
    model.console_lines = left->line_count();
    model.has_ending = left->ending.has_value();
    if (!left->upload) continue;
    model.checkpoint_epoch = left->upload->fields.epoch;
    model.is_final = left->upload->fields.is_final;
    model.checkpoint_bytes = left->upload->bytes;
  }
  return out;
}

namespace detail {

using namespace machine;

inline std::string agent_name() {
  const bool colab = !env("COLAB_RELEASE_TAG").empty() || !env("COLAB_BACKEND_VERSION").empty();
  return std::string("cpp-" HUB_SESSION_VERSION) + (colab ? "-colab" : "-local");
}

inline std::uint64_t seed_of(const retry_options& retry) {
  return retry.seed != 0 ? retry.seed : random_seed();
}

// What every request of a session has in common.
inline void apply_options(const session_options& options, request& message) {
  message.connect_timeout = options.limits.connect_timeout;
  message.stall_timeout = options.limits.stall_timeout;
  message.reply_bytes_max = options.limits.reply_bytes_max;
  protocols::add_for_gateway(options.endpoints, message);
}

// ---- on the caller's thread --------------------------------------------------------------------

template <class Clock, class Sleeper>
void sleep_until(time_point when, const Clock& clock, Sleeper& sleeper) {
  if (when > clock.now()) sleeper.wait_until(when, [] { return false; });
}

// Sends, and returns when the reply is there. A transport that throws is one that failed.
template <class Transport, class Clock, class Sleeper>
reply send_and_wait(const request& message, Transport& transport, const Clock& clock,
                    Sleeper& sleeper) {
  reply answer = [&]() noexcept -> reply {
    try {
      return transport.send(message);
    } catch (...) {
      return {.failure = error{}};
    }
  }();
  sleep_until(later(clock.now(), answer.latency), clock, sleeper);
  return answer;
}

// ---- signing in --------------------------------------------------------------------------------

// Whether HUB may answer later what it did not answer now: it was not reached, or is not well, as the
// table of statuses has it. Not if it answered and refused.
constexpr bool may_pass(errc code) noexcept {
  using enum errc;
  return code == not_reachable || code == tls_failed || code == timed_out || code == rate_limited ||
         code == server_error;
}

// The program's function that returns a fresh id token, if it has one.
class token_source {
 public:
  token_source(std::function<std::string()> renew, reporter& report)
      : renew_(std::move(renew)), report_(report) {}

  bool can_renew() const noexcept { return renew_ != nullptr; }

  // Never shown from here on.
  result<std::string> fresh() {
    std::string why = "returned no token";
    try {
      std::string token(trimmed(renew_()));
      report_.add_secret(token);
      if (!token.empty()) return token;
    } catch (const std::exception& problem) {
      why = "threw: " + text::printable(problem.what());
    } catch (...) {
      why = "threw";
    }
    return error{errc::not_authenticated,
                 "The id token cannot be renewed, as the function in "
                 "credentials.renew_id_token " +
                     why + "."};
  }

 private:
  std::function<std::string()> renew_;
  reporter& report_;
};

// What a session does before training starts: blocks, retries, and throws session_error.
template <class Protocol, class Transport, class Clock, class Sleeper>
class startup {
 public:
  using run = typename Protocol::run;

  startup(const session_options& options, reporter& report, Transport& transport, Clock& clock,
          Sleeper& sleeper)
      : options_(options),
        tokens_(options.credentials.renew_id_token, report),
        report_(report),
        transport_(transport),
        clock_(clock),
        sleeper_(sleeper),
        settings_(find_settings_file(options.credentials.settings_file)),
        random_(seed_of(options.retry)),
        deadline_(later(clock.now(), options.limits.start_deadline)) {}

  run identify(const typename Protocol::identity& who) {
    return checked(Protocol::identify(who, options_.endpoints, env));
  }

  // Gives the run the token or the key of the first place that has one.
  void find_credentials(run& who) {
    const auto saved = find_saved_key(settings_);
    const std::array<std::pair<std::string, std::string>, 4> places = {
        {{Protocol::credentials(who), "the identifier"},
         {options_.credentials.api_key, "session_options::credentials"},
         {env("ULTRALYTICS_API_KEY"), "ULTRALYTICS_API_KEY"},
         {saved ? *saved : "", shown(settings_)}}};
    credential found{.token = std::string(trimmed(options_.credentials.id_token))};
    if (found.token.empty() && tokens_.can_renew()) {
      found.token = checked(tokens_.fresh());
      is_renewed_ = true;
    }
    for (const auto& [key, place] : places) {
      found.key = trimmed(key);
      found.from = found.key.empty() ? "" : " from " + place;
      if (!found.key.empty()) break;
    }
    if (!saved && found.key.empty() && found.token.empty())
      report_.log(log_level::warning, saved.error().message);
    if (found.key.empty() && found.token.empty()) return;
    if (auto why = accept(who, std::move(found))) fail(*why);
  }

  // Sends what the protocol wants answered first. If a key is missing or not accepted, another is
  // asked for on a terminal.
  void open(run& who) {
    std::optional<error> refused = has_credentials(who) ? opened(who) : Protocol::no_key(who);
    if (refused && refused->http_status == 401 && may_renew()) {
      is_renewed_ = true;
      refused = tried(who, {.token = checked(tokens_.fresh())});
    }
    for (int asked = 0; refused; ++asked) {
      std::string key = asked < prompt_tries ? ask(who, *refused) : "";
      if (key.empty()) fail(*refused);
      refused = tried(who, {.key = std::move(key), .from = " from the prompt"});
    }
    save(Protocol::credentials(who));
  }

  bool has_credentials(const run& who) const {
    return has_token() || !Protocol::credentials(who).empty();
  }

  // Sends until the reply is one to go on with, with retries; throws what else it came to.
  template <class Judge>
  outcome exchange(request message, Judge&& judge) {
    start_plan plan(options_.retry, deadline_);
    for (;;) {
      message.deadline = std::min(options_.limits.request_deadline, deadline_ - clock_.now());
      apply_options(options_, message);
      outcome came = judge(report_.redacted(send_and_wait(message, transport_, clock_, sleeper_)));
      switch (plan.what_next(came, clock_.now(), random_)) {
        case start_plan::step::go_on: return came;
        case start_plan::step::wait: sleep_until(plan.again_at(), clock_, sleeper_); break;
        case start_plan::step::give_up: fail(came.why);
      }
    }
  }

  [[noreturn]] void fail(error why) const {
    throw session_error(report_.redacted(named(std::move(why))));
  }

  template <class T>
  T checked(result<T> given) const {
    if (!given) fail(given.error());
    return *std::move(given);
  }

 private:
  static constexpr int prompt_tries = 3;

  bool has_token() const { return is_renewed_ || !options_.credentials.id_token.empty(); }
  bool may_renew() const { return has_token() && tokens_.can_renew() && !is_renewed_; }

  // Why they are not accepted, if so.
  std::optional<error> tried(run& who, credential given) {
    auto why = accept(who, std::move(given));
    return why ? why : opened(who);
  }

  // Why they cannot be a key or a token, if so.
  std::optional<error> accept(run& who, credential given) {
    report_.add_secret(given.token);
    report_.add_secret(given.key);
    given.is_saved = !given.key.empty() && given.key == read_saved_key(settings_);
    key_from_ = given.token.empty() ? given.from : "";
    if (auto why = Protocol::accept(who, std::move(given))) return why;
    check_gateway(who);
    return std::nullopt;
  }

  // What is for a gateway in front of the server is as secret, and must fit into what is sent.
  void check_gateway(const run& who) const {
    const endpoint_options& at = options_.endpoints;
    for (const auto& [name, value] : at.headers) hide(value);
    hide(at.login);
    hide(text::base64(at.login));
    hide(at.login.substr(at.login.find(':') + 1));
    if (auto why = protocols::check_for_gateway(at, Protocol::make(who, life_order{}, {}, {})))
      fail(*why);
  }

  // What is shorter stands in many a word that may be shown.
  void hide(const std::string& secret) const {
    constexpr std::size_t bytes_min = 6;
    if (secret.size() >= bytes_min) report_.add_secret(secret);
  }

  // Another key, if a person is there to be asked and may be; says first what was wrong with this.
  std::string ask(const run& who, const error& refused) {
    if (!options_.credentials.prompt || !may_ask()) return {};
    if (!key_from_.empty()) report_.log(log_level::warning, named(refused).message);
    report_.wait();
    return std::string(trimmed(
        ask_for_key(Protocol::traits.service, Protocol::key_page(who), deadline_ - clock_.now())));
  }

  // A refusal names the place of the key that was refused.
  error named(error why) const {
    const bool of_the_key = why.http_status == 401 || why.code == errc::invalid_credentials;
    if (of_the_key && why.message.find(key_from_) == std::string::npos)
      why.message += " It is the one" + key_from_ + ".";
    return why;
  }

  // Why the key is not accepted, if so.
  std::optional<error> opened(run& who) {
    progress at;
    while (auto next = Protocol::opening(who, at)) {
      outcome came = exchange(*std::move(next), [&](const reply& answer) {
        outcome out = Protocol::judge_opening(who, at, answer, clock_.wall_now());
        if (out.why.http_status == 401 && may_renew()) out.verdict = verdict::rejected;
        return out;
      });
      if (came.verdict == verdict::rejected) return came.why;
      at = std::move(came.so_far);
    }
    return std::nullopt;
  }

  void save(const std::string& key) const {
    if (!options_.credentials.save || key.empty() || key == read_saved_key(settings_)) return;
    if (settings_.empty())
      report_.log(
          log_level::warning,
          "The API key is not saved: this user has no home folder. Set HOME, YOLO_CONFIG_DIR "
          "or credentials.settings_file.");
    else if (!save_key(settings_, key))
      report_.log(log_level::warning,
                  "The API key cannot be saved to " + shown(settings_) +
                      "; check that it can be read as settings and written to.");
  }

  const session_options& options_;
  token_source tokens_;
  bool is_renewed_ = false;  // the token that is used comes from there
  reporter& report_;
  Transport& transport_;
  Clock& clock_;
  Sleeper& sleeper_;
  fs::path settings_;
  std::string key_from_;  // " from" and the place, for messages
  std::mt19937_64 random_;
  time_point deadline_;
};

// ---- fetching files ----------------------------------------------------------------------------

// A download on its way to the disk: FILE.part, and beside it FILE.part.json, which says of what it
// is the beginning, so that a later run can go on. It goes on only if the bytes that are there have the
// hash that was written down for them: whatever a crash left, no file is put together from two versions.
// Who may read the file is as of any file that this user makes.
class part_file final : public body_sink {
 public:
  using meter = std::function<void(std::uint64_t done, std::uint64_t total, std::uint64_t before)>;

  part_file(fs::path target, std::uint64_t bytes_max, meter tell)
      : target_(std::move(target)),
        part_(with_ending(target_, ".part")),
        record_(with_ending(target_, ".part.json")),
        bytes_max_(bytes_max),
        tell_(std::move(tell)) {}
  part_file(const part_file&) = delete;
  part_file& operator=(const part_file&) = delete;
  // What no later run can go on with is not left behind.
  ~part_file() override {
    if (!lock_ || !lock_->held() || recorded_ > 0) return;
    out_.close();
    remove(part_);
    remove(record_);
  }

  // Before anything else. An error if this is no place for the file, or another download's.
  std::optional<error> open() {
    std::error_code failed;
    if (fs::is_directory(target_, failed)) return problem("is a folder");
    machine::open(part_, "wbx");  // if it is there already, this fails and changes nothing
    if (!fs::is_regular_file(fs::symlink_status(part_, failed)))
      return problem("cannot be made: " + shown(part_.filename()) + " cannot be written there");
    lock_.emplace(part_);
    if (lock_->taken()) return problem("is being downloaded by another session or program");
    if (!lock_->held()) return problem("cannot be locked (" + lock_->why_not().message() + ")");
    machine::fresh_file::sweep(record_);
    return std::nullopt;
  }

  // Where the bytes will come from. What is there of another address is of no use.
  void use_address(const std::string& address) {
    if (address == have_.address) return;
    begin_anew({.address = address});
    recall();
  }

  const storage_host::partial_download& have() const { return have_; }
  bool whole() const { return have_.bytes > 0 && have_.bytes == have_.bytes_total; }

  void discard() {
    begin_anew({.address = have_.address});
    remove(record_);
  }

  std::optional<error> begin(const reply& head) override {
    auto next = storage_host::parse_download_head(head, have_);
    if (!next) {
      if (head.status == 206) discard();
      return next.error();
    }
    if (next->bytes_total > bytes_max_) return too_long();
    if (next->bytes == 0) {
      remove(record_);
      begin_anew(*std::move(next));
    }
    began_with_ = have_.bytes;
    std::error_code failed;
    out_.close();
    out_.clear();
    fs::resize_file(part_, have_.bytes, failed);  // an attempt that failed may have left more
    out_.open(part_, std::ios::binary | std::ios::app);
    if (failed || !out_) return problem(cannot_be_written);
    return std::nullopt;
  }

  std::optional<error> write(std::string_view piece) override {
    const std::uint64_t there = have_.bytes + waiting_.size();
    if (have_.bytes_total == 0 && piece.size() > bytes_max_ - there) return too_long();
    if (have_.bytes_total > 0 && piece.size() > have_.bytes_total - there) {
      discard();
      return error{errc::bad_reply,
                   "The storage host sent more than it said. The download begins anew."};
    }
    waiting_ += piece;
    return waiting_.size() < piece_bytes ? std::nullopt : flush();
  }

  // After a reply that came whole: what is there is all, if nobody said before how much that is.
  std::optional<error> end() {
    auto why = flush();
    if (why || have_.bytes_total > 0) return why;
    have_.bytes_total = have_.bytes;
    if (whole()) tell_(have_.bytes, have_.bytes_total, began_with_);
    return std::nullopt;
  }

  // Between two attempts: what came is kept if it can be gone on with.
  std::optional<error> pause() {
    auto why = flush();
    if (whole()) return why;
    if (have_.etag.empty()) discard();
    keep_record();
    return why;
  }

  // The whole file gets its name.
  std::optional<error> publish() {
    out_.close();
    if (!out_ || !sync_to_disk(part_)) return problem(cannot_be_written);
    if (const auto failed = machine::replace(part_, target_))
      return problem("cannot be replaced (" + failed.message() + ")");
    remove(record_);
    lock_.reset();
    sync_to_disk(target_.parent_path());
    return std::nullopt;
  }

 private:
  static constexpr std::size_t piece_bytes = mebibyte;         // written, hashed and told at once
  static constexpr std::uint64_t record_bytes = 8 * mebibyte;  // what a kill may cost
  static constexpr std::string_view cannot_be_written = "cannot be written; its disk may be full";

  static fs::path with_ending(fs::path file, const char* ending) { return file += ending; }
  static void remove(const fs::path& file) {
    std::error_code ignored;
    fs::remove(file, ignored);
  }

  error too_long() const {
    return problem("has more bytes than limits.download_bytes_max, which are " +
                   std::to_string(bytes_max_));
  }

  error problem(std::string_view subject) const {
    return {errc::file_error,
            "The file " + shown(target_) + " " + std::string(subject) +
                ", so it is not downloaded. Check the path given to the session."};
  }

  void begin_anew(storage_host::partial_download from) {
    have_ = std::move(from);
    hash_ = text::content_hash("");
    waiting_.clear();
    recorded_ = 0;
  }

  std::optional<error> flush() {
    if (waiting_.empty()) return std::nullopt;
    out_ << waiting_ << std::flush;
    if (!out_) return problem(cannot_be_written);
    hash_ = text::content_hash(waiting_, hash_);
    have_.bytes += waiting_.size();
    waiting_.clear();
    const bool due = have_.bytes - recorded_ >= record_bytes;
    if (due && !have_.etag.empty() && !whole()) keep_record();
    tell_(have_.bytes, have_.bytes_total, began_with_);
    return std::nullopt;
  }

  void keep_record() {
    if (have_.bytes == recorded_) return;
    recorded_ = have_.bytes;
    // If that fails, a later run begins anew.
    write_text_file(record_, storage_host::record_text({have_, hash_}));
  }

  // What an earlier run left, if it is sound and of this address.
  void recall() {
    auto record = storage_host::parse_record(read_text_file(record_));
    if (!record || record->have.address != have_.address) return;
    const auto hash = hash_of_beginning(part_, record->have.bytes);
    if (!hash || *hash != record->hash) return;
    have_ = std::move(record->have);
    hash_ = *hash;
    recorded_ = have_.bytes;
  }

  fs::path target_;
  fs::path part_;
  fs::path record_;
  std::uint64_t bytes_max_;
  meter tell_;
  std::optional<file_lock> lock_;
  std::ofstream out_;
  storage_host::partial_download have_;  // what is in the file
  std::string waiting_;                  // what is not there yet
  std::uint64_t hash_ = 0;               // of have_
  std::uint64_t recorded_ = 0;           // bytes of which there is a record
  std::uint64_t began_with_ = 0;         // bytes when this attempt began
};

// Downloads one file that a server names, on the caller's thread, and goes on after every break until
// it is whole or a bound is met.
template <class Transport, class Clock, class Sleeper>
class downloader {
 public:
  downloader(const session_options& options, reporter& report, Transport transport,
             const Clock& clock, Sleeper& sleeper, std::uint64_t seed)
      : options_(options),
        report_(report),
        transport_(std::move(transport)),
        clock_(clock),
        sleeper_(sleeper),
        random_(seed),
        deadline_(later(clock.now(), options.limits.download_deadline)) {}

  // `url`: where the file is as far as is known, "" if that has to be asked first.
  result<fetched_file> fetch(std::string url, const file_query& query, const fs::path& target) {
    const auto part = std::make_shared<part_file>(
        followed(full_path(target)), options_.limits.download_bytes_max,
        [this, name = shown(target.filename())](std::uint64_t done, std::uint64_t total,
                                                std::uint64_t before) {
          report_.progress({name, done, total, clock_.now() - began_, transfer::download, before});
        });
    if (auto why = part->open()) return *why;
    if (auto why = complete(url, query, part)) return report_.redacted(*std::move(why));
    return fetched_file{target, part->have().bytes};
  }

 private:
  using body = std::shared_ptr<part_file>;

  // Why the file is not there in the end, if so.
  std::optional<error> complete(std::string& url, const file_query& query, const body& part) {
    download_plan plan(options_.retry, deadline_, !url.empty());
    for (;;) {
      if (!url.empty()) part->use_address(text::without_query(url));
      const std::uint64_t before = part->have().bytes;
      const outcome came = plan.wants_url() ? renew(url, query) : receive(url, part);
      if (part->whole()) return part->publish();
      if (came.verdict == verdict::restart) part->discard();
      const auto again = plan.again_at(came, before, part->have().bytes, clock_.now(), random_);
      if (!again) return came.why;
      sleep_until(*again, clock_, sleeper_);
    }
  }

  // As much of the file as comes in one exchange, and in those that redirects lead to before.
  outcome receive(std::string url, const body& part) {
    for (unsigned redirects = 0;; ++redirects) {
      request message = storage_host::download_request(url, part->have());
      message.sink = part;
      began_ = clock_.now();
      const reply answer = send(std::move(message), options_.limits.download_attempt_deadline);
      if (storage_host::is_redirect(answer.status) &&
          redirects < options_.limits.download_redirects_max) {
        auto next = storage_host::redirected_address(url, answer);
        if (!next) return {verdict::rejected, next.error()};
        url = *std::move(next);
        continue;
      }
      const bool came_whole = !answer.failure && answer.status == 200;
      const auto on_disk = came_whole ? part->end() : std::nullopt;
      const auto disk = part->pause();
      outcome came =
          storage_host::judge_download(answer, text::parse_target(url)->host, clock_.wall_now());
      if (on_disk || disk) came = {verdict::rejected, on_disk ? *on_disk : *disk};
      return came;
    }
  }

  // There is no URL yet, or the storage host does not accept it: the server is asked for a fresh one.
  outcome renew(std::string& url, const file_query& query) {
    progress at;
    for (;;) {
      const reply answer = report_.redacted(send(query.ask(at), options_.limits.request_deadline));
      outcome came = query.judge(at, answer, clock_.wall_now(), url);
      if (came.verdict != verdict::advanced) return came;
      at = std::move(came.so_far);
    }
  }

  reply send(request message, duration deadline) {
    message.deadline = std::min(deadline, deadline_ - clock_.now());
    apply_options(options_, message);
    return send_and_wait(message, transport_, clock_, sleeper_);
  }

  const session_options& options_;
  reporter& report_;
  Transport transport_;
  const Clock& clock_;
  Sleeper& sleeper_;
  std::mt19937_64 random_;
  time_point deadline_;
  time_point began_ = {};
};

// ---- at std::exit ------------------------------------------------------------------------------

// The sessions that are still there when a program calls std::exit, which destroys none that lies on a
// stack: each has its words said. They are said on a thread of their own, and not waited for without
// end: std::exit may have been called amid anything, with any lock held.
class last_words {
 public:
  using words = std::function<void()>;

  // Its words are said as long as this is there.
  class speech {
   public:
    explicit speech(words say) : id_(instance().add(std::move(say))) {}
    speech(const speech&) = delete;
    speech& operator=(const speech&) = delete;
    ~speech() { instance().remove(id_); }

   private:
    std::size_t id_;
  };

 private:
  static constexpr duration wait_max = 1s;

  // Lives as long as the process.
  static last_words& instance() {
    static auto* const all = new last_words;
    return *all;
  }

  std::size_t add(words say) {
    const std::lock_guard lock(mutex_);
    [[maybe_unused]] static const int registered = std::atexit(&say_all);
    if (process_.exchange(process_id()) != process_id()) sessions_.clear();  // the parent's
    sessions_.emplace(++last_id_, std::move(say));
    return last_id_;
  }

  // In a forked child nothing is touched: a lock may be held for ever there.
  void remove(std::size_t id) noexcept {
    if (process_ != process_id()) return;
    const std::lock_guard lock(mutex_);
    sessions_.erase(id);
  }

  static void say_all() noexcept { instance().say(); }

  void say() noexcept {
    if (process_ != process_id()) return;
    try {
      std::thread speaks = quiet_thread([this] { say_each(); });
      std::unique_lock lock(said_mutex_);
      const bool all_said = said_.wait_for(lock, wait_max, [&] { return is_said_; });
      lock.unlock();
      all_said ? speaks.join() : speaks.detach();
    } catch (...) {  // no thread, no words
    }
  }

  void say_each() {
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [id, say] : sessions_) say();
    }
    const std::lock_guard lock(said_mutex_);
    is_said_ = true;
    said_.notify_all();
  }

  std::mutex mutex_;
  std::map<std::size_t, words> sessions_;
  std::size_t last_id_ = 0;
  std::atomic<int> process_ = process_id();
  std::mutex said_mutex_;
  std::condition_variable said_;
  bool is_said_ = false;
};

}  // namespace detail

// What a session is whatever its policies are: the engine and its mutex, the log, the spool and the
// copies of checkpoints. It is no template, so that it is compiled once for all sessions of a file. What
// needs a policy is asked of the class that derives from it.
//
// The constructor blocks and throws; on_train_end, flush and the fetches block up to their deadline;
// nothing else blocks on the network, and nothing but the constructor and create_model throws. Any
// thread may call any member function. On a rank above 0 and in a forked child every call does
// nothing.
class session_base : public training_callbacks {
 public:
  session_base(const session_base&) = delete;
  session_base& operator=(const session_base&) = delete;

  // Where a person sees the run. "" on a rank above 0, in a forked child, and where the server has not
  // named it yet.
  std::string model_url() const {
    if (!live()) return {};
    const std::lock_guard lock(mutex_);
    return model_url_;
  }

  // ---- trainer callbacks: see training_callbacks -----------------------------------------------

  void on_pretrain_routine_end() noexcept override {
    guarded([&] {
      tell([](engine& decide, time_point now) { decide.handle_train_start(now); });
      const std::string page = model_url();
      if (!page.empty()) report_.log(log_level::info, "Training is reported to " + page);
    });
  }

  void on_fit_epoch_end(int epoch, metrics_view values) noexcept override {
    was_told_ = true;
    const auto report = [&] {
      auto record = std::make_shared<const epoch_record>(values);
      const std::uint64_t number =
          spool_ ? spool_->add_epoch(epoch, *record, now()) : std::uint64_t{0};
      tell([&](engine& decide, time_point now) {
        decide.handle_epoch(epoch, std::move(record), now, number);
      });
    };
    guarded(report, &engine::handle_lost_epoch);
  }

  void on_model_save(int epoch, const std::filesystem::path& file, bool is_best) noexcept override {
    const auto report = [&] {
      bool wanted = false;
      tell([&](engine& decide, time_point now) { wanted = decide.wants_checkpoint(now); });
      if (wanted) take_checkpoint({.epoch = epoch, .is_best = is_best}, file);
    };
    guarded(report, &engine::handle_lost_checkpoint);
  }

  hub::delivery on_train_end(int epoch, const std::filesystem::path& best,
                             double map) noexcept override {
    if (!best.empty()) was_told_ = true;
    return guarded([&] {
      if (auto over = answer_when_over(best)) return *std::move(over);
      const time_point deadline = later(now(), options_.limits.train_end_deadline);
      ending_said_ = true;
      finish_console();
      std::optional<checkpoint> final_model;
      if (!best.empty())
        final_model =
            spooled({.epoch = epoch, .is_final = true, .map = map}, machine::full_path(best));
      end_run({.epoch = epoch, .map = map, .results = results()}, std::move(final_model));
      finish_replaced_upload(deadline);
      wait_until(deadline, [](const engine& decide) { return decide.done(); });
      return end_training();
    });
  }

  bool stop_requested() const noexcept override { return stop_requested_; }

  // ---- more ------------------------------------------------------------------------------------

  // What the training came to, for protocols that show it: on_train_end sends it with the end. A curve
  // that cannot be drawn is left out, which the log says with the reason.
  void set_results(training_results results) noexcept {
    guarded([&] {
      if (const std::string why = results_problem(results); !why.empty())
        report_.log(log_level::warning, "Not all of the results are sent: " + why +
                                            ". Give each row as many points as x has.");
      std::string text = encode_results(results);
      const std::lock_guard lock(mutex_);
      results_ = std::move(text);
    });
  }

  // Takes what the training prints, in pieces cut anywhere, for a page that shows it; see console_tee.
  // Whole lines wait for rate_limits.console at most; beyond limits.console_queue_bytes_max the oldest
  // are left out, which is said in their place. Does nothing on HUB v1. Protocol: Platform
  // console_output.
  void console(std::string_view piece) noexcept {
    if (!traits_.takes_console) return;
    if (machine::speaker::is_speaking()) return;  // our own log would feed on itself
    guarded([&] {
      const std::lock_guard one_at_a_time(console_mutex_);
      hand_lines(console_.add(piece, now(), local_now()));
    });
  }

  // Sends the queued metrics now instead of when their rate limit has it. Does not wait for it.
  void upload_metrics() noexcept {
    guarded([&] {
      tell([](engine& decide, time_point now) { decide.handle_flush(lane::epochs, now); });
    });
  }

  // Uploads a checkpoint now, in the background, whatever the rate limit. Else as on_model_save.
  void upload_model(int epoch, const std::filesystem::path& file, bool is_best) noexcept {
    was_told_ = true;
    const auto report = [&] {
      if (take_checkpoint({.epoch = epoch, .is_best = is_best}, file))
        tell([](engine& decide, time_point now) { decide.handle_flush(lane::uploads, now); });
    };
    guarded(report, &engine::handle_lost_checkpoint);
  }

  // Sends everything that is queued now and waits for it, up to `timeout`, and where the server
  // refuses it up to limits.denied_deadline. Returns what the server has confirmed; what is missing
  // stays queued.
  hub::delivery flush(duration timeout) noexcept {
    return guarded([&] {
      const time_point deadline = later(now(), timeout);
      tell([](engine& decide, time_point now) {
        for (lane which : all_lanes) decide.handle_flush(which, now);
      });
      wait_until(deadline, [](const engine& decide) { return decide.done(); });
      const std::lock_guard lock(mutex_);
      return engine_.delivery();
    });
  }

  // No further signs of life: the server will show the training as disconnected.
  void stop_heartbeat() noexcept {
    guarded([&] { tell([](engine& decide, time_point) { decide.handle_stop_heartbeat(); }); });
  }

  // Counters, the agent id, and since when and why the server has not answered as it should.
  session_status status() const noexcept {
    try {
      if (!live()) return {.silent = silence(), .rank = rank_};
      const std::size_t dropped = spool_ ? spool_->dropped() : 0;
      const std::lock_guard lock(mutex_);
      session_status out = engine_.status();
      out.spool_dropped = dropped;
      out.rank = rank_;
      out.agent_id = agent_id();
      return out;
    } catch (...) {
      return {.unanswered_why = error{}};  // memory ran out: nothing here is known
    }
  }

 protected:
  session_base(session_options options, const protocol_traits& traits, bool has_threads)
      : options_(std::move(options)),
        report_(options_, has_threads, traits.service),
        traits_(traits),
        engine_(options_.rate_limits, options_.retry, options_.limits, seed(), traits) {}
  ~session_base() override = default;

  // ---- what the policies do ----------------------------------------------------------------------

  virtual time_point now() const = 0;
  virtual std::chrono::local_seconds local_now() const = 0;
  virtual void wake(std::size_t task) noexcept = 0;
  virtual bool wait(time_point until, const std::function<bool()>& done) = 0;
  // Gives up what the lane has in flight. The next three are called under the mutex.
  virtual void cancel_request(lane which) noexcept = 0;
  // Whether what the lane has in flight is a file.
  virtual bool sends_file(lane which) const noexcept = 0;
  virtual std::string agent_id() const = 0;
  // What the protocol makes of the machine's figures, "" for nothing.
  virtual std::string encode_figures(const system_figures& figures) const = 0;
  // What the protocol makes of the results, "" for nothing.
  virtual std::string encode_results(const training_results& results) const = 0;
  // What of the results the protocol leaves out, and why; "" if it is all sent, or none is.
  virtual std::string results_problem(const training_results& results) const = 0;

  // ---- the engine --------------------------------------------------------------------------------

  std::uint64_t seed() const { return detail::seed_of(options_.retry); }

  // Finds this process's rank and says what there is to say of it. True if it reports.
  bool find_rank() {
    machine::found_rank found = machine::find_rank(options_);
    if (!found.words.empty()) report_.log(found.level, found.words);
    rank_ = std::move(found.place);
    return rank_.rank <= 0;
  }

  // Whether this process and rank report at all.
  bool live() const noexcept { return started_ && process_ == machine::process_id(); }
  hub::silence silence() const noexcept {
    return live() ? silence::none : started_ ? silence::by_fork : silence::by_rank;
  }

  // What a call comes to if this session is silent. No lock may be taken in a forked child: a thread
  // that is not there may hold it.
  template <class Answer>
  Answer silent_answer() noexcept {
    if (silence() == silence::by_fork && !fork_said_.exchange(true))
      report_.log_after_fork(log_level::error, forked);
    if constexpr (std::is_same_v<Answer, hub::delivery>) {
      hub::delivery out;
      out.silent = silence();
      if (out.silent == silence::by_fork && was_told_) out.why = error{errc::cancelled, forked};
      return out;
    } else {
      return Answer();
    }
  }

  // Runs `work` for a callback that must not throw, and not at all if this session is silent.
  // If it throws, the engine hears by `lost` what is missing now.
  template <class Work>
  std::invoke_result_t<Work> guarded(Work&& work, void (engine::*lost)() = nullptr) noexcept {
    using answer = std::invoke_result_t<Work>;
    if (!live()) return silent_answer<answer>();
    try {
      return work();
    } catch (const std::exception& problem) {
      report_.log(log_level::error, given_up, problem.what());
    } catch (...) {
      report_.log(log_level::error, given_up, "a policy or one of the program's functions threw");
    }
    if (lost) tell([&](engine& decide, time_point) { (decide.*lost)(); });
    if constexpr (std::is_same_v<answer, hub::delivery>)
      return {.why = error{}};  // not complete, and said without allocating
    else
      return answer();
  }

  // What the engine wants done once the mutex is free again.
  struct published {
    std::array<bool, lane_count> earlier = {};
    std::vector<note> notes = {};
    struck_out struck = {};
  };

  // Tells the engine something, wakes the lanes whose next deadline that brought forward, and says
  // what the engine wants said.
  template <class Verb>
  void tell(Verb&& verb) {
    published news;
    {
      const std::lock_guard lock(mutex_);
      verb(engine_, now());
      news = publish();
    }
    act_on(news);
  }

  template <class Done>
  bool wait_until(time_point deadline, Done done) {
    return wait(deadline, [&] {
      const std::lock_guard lock(mutex_);
      return done(std::as_const(engine_));
    });
  }

  void hand_lines(std::vector<std::string> lines) {
    if (lines.empty()) return;
    printed_lines printed{spool_ ? spool_->add_console(lines, now()) : std::uint64_t{0},
                          std::move(lines)};
    tell([&](engine& decide, time_point now) { decide.handle_console(std::move(printed), now); });
  }

  std::string results() const {
    const std::lock_guard lock(mutex_);
    return results_;
  }

  void end_run(run_ending how, std::optional<checkpoint> final_model) {
    const std::uint64_t number =
        spool_ && traits_.completes ? spool_->add_ending(how, now()) : std::uint64_t{0};
    auto ending = std::make_shared<const run_ending>(std::move(how));
    tell([&](engine& decide, time_point now) {
      decide.handle_train_end(std::move(final_model), now, std::move(ending), number);
    });
  }

  // What was printed last need not have ended in a line feed.
  void finish_console() {
    if (!traits_.takes_console) return;
    const std::lock_guard one_at_a_time(console_mutex_);
    hand_lines(console_.finish(now(), local_now()));
  }

  void ending_is_said() noexcept { ending_said_ = true; }

  // A training whose end waits for another file has ended all the same, with or without one.
  void tell_ending_without_model(time_point deadline) {
    bool waits = false;
    tell([&](engine& decide, time_point now) { waits = decide.handle_last_word(now); });
    if (!waits) return;
    wait_until(deadline, [](const engine& decide) { return decide.done(); });
    tell([](engine& decide, time_point) { decide.handle_stop(); });
  }

  // Says that the training did not end as it should, if the protocol has a word for that. A file on its
  // way is cut. Anything else the server may have, and take up after the last word if nobody waits for
  // its answer: so it is waited for, up to half of the time.
  void fail_training(std::string why, time_point deadline) {
    if (!traits_.completes || ending_said_.exchange(true)) return;
    finish_console();
    end_run({.failure = std::move(why)}, std::nullopt);
    const auto is_cut = [](lane each) { return !role_of(each).outlasts_failure; };
    {
      const std::lock_guard lock(mutex_);
      for (const lane each : all_lanes)
        if (is_cut(each) && engine_.in_flight(each) && sends_file(each)) cancel_request(each);
    }
    wait_until(later(now(), (deadline - now()) / 2), [&](const engine& decide) {
      return std::none_of(all_lanes.begin(), all_lanes.end(),
                          [&](lane each) { return is_cut(each) && decide.in_flight(each); });
    });
    for (const lane each : all_lanes)
      if (is_cut(each)) cancel(each);
  }

  // When a lane is called again, as far as is known outside it.
  time_point& scheduled(lane which) { return scheduled_[static_cast<std::size_t>(which)]; }

  // ---- the start and the end ---------------------------------------------------------------------

  // Hands the engine what the last session left in the spool, before anything else is sent.
  void send_left() {
    if (!spool_ || !(spool_->has_left() || spool_->has_chunks())) return;
    const spool::journal::contents left = spool_->take_left();
    send_left_lines(left);
    if (left.empty()) return;
    std::size_t later = 0;
    for (const auto& [epoch, line] : left.epochs)
      if (!engine_.handle_left_epoch(epoch, line.values, line.number)) ++later;
    if (left.upload)
      engine_.handle_left_upload({.fields = left.upload->fields,
                                  .number = left.upload->number,
                                  .bytes = left.upload->bytes},
                                 now());
    if (left.ending) engine_.handle_left_ending(left.ending->how, left.ending->number, left.memo);
    std::string more = !left.upload                   ? ""
                       : left.upload->fields.is_final ? " and the final model"
                                                      : " and a checkpoint";
    if (left.line_count() > 0) more += " and " + std::to_string(left.line_count()) + " lines";
    if (left.ending) more += " and the end of the training";
    report_.log(log_level::info,
                "The last session left " + std::to_string(left.epochs.size()) + " epochs" + more +
                    " in the spool; they are sent now." +
                    (later > 0 ? " " + std::to_string(later) +
                                     " of them do not fit in the queue and wait for the next one."
                               : ""));
  }

  void send_left_lines(const spool::journal::contents& left) {
    std::shared_ptr<const std::vector<std::string>> sent;
    if (left.chunk) sent = std::make_shared<const std::vector<std::string>>(left.chunk->lines);
    const std::uint64_t done = left.chunk_done.chunk;
    const std::uint64_t through = left.chunk ? left.chunk->through : left.chunk_done.through;
    engine_.handle_left_chunk(left.chunk ? left.chunk->chunk : done + 1, through, std::move(sent));
    for (const auto& [number, line] : left.lines) engine_.handle_console({number, {line}}, now());
  }

  // What the server warns of, each once; a server that says something else each time is heard so often.
  void say_warning(const std::string& text) {
    if (text.empty()) return;
    {
      const std::lock_guard lock(mutex_);
      if (warnings_.size() >= warnings_max || !warnings_.insert(text).second) return;
    }
    report_.log(log_level::warning, "The server warns: ", text);
  }

  // What a session has going on beside its lanes.
  void add_tasks(std::vector<background_task>& tasks) {
    if (spool_) {
      spool_->on_work([this, task = tasks.size()] { wake(task); });
      tasks.push_back({"spool", [this] { return spool_->maintain(now()); }});
    }
    if (traits_.shows_system) tasks.push_back({"system", [this] { return read_system(); }});
  }

  // If nothing can be read, that is not tried again.
  time_point read_system() {
    std::string text;
    try {
      if (options_.read_system) {
        text = encode_figures(options_.read_system());
      } else {
        if (!figures_) figures_.emplace();
        text = encode_figures(figures_->read(now()));
      }
    } catch (const std::exception& problem) {
      report_.log(log_level::warning, no_figures, problem.what());
    } catch (...) {
      report_.log(log_level::warning, no_figures, "session_options::read_system threw");
    }
    const bool goes_on = !text.empty();
    const std::lock_guard lock(mutex_);
    system_ = std::move(text);
    return goes_on ? later(now(), std::max<duration>(options_.rate_limits.system, 1s)) : never;
  }

  void cancel(lane which) noexcept {
    const std::lock_guard lock(mutex_);
    if (engine_.in_flight(which)) cancel_request(which);
  }

  // Says in one line what has not arrived, and where it can be found again, unless that was said.
  void say_missing() {
    hub::delivery left;
    std::string counts;
    bool anything_waits = false;
    tell([&](engine& decide, time_point) {
      left = decide.delivery();
      const session_status now = decide.status();
      counts = counts_of_missing(left, now.console_lines_queued);
      anything_waits =
          left.epochs_queued > 0 || now.checkpoint_waiting || now.console_lines_queued > 0;
      if (std::exchange(said_missing_, counts) == counts) counts.clear();
    });
    if (counts.empty()) return;
    report_.log(log_level::error, "Not everything arrived. Missing: " + counts + "." +
                                      (left.why ? " " + left.why->message : "") +
                                      (anything_waits ? where_it_waits() : ""));
  }

  // On the relay's thread; the signal goes to the program's own handler afterwards.
  void flush_on_signal(int number) {
    guarded([&] {
      report_.log(log_level::warning,
                  "Signal " + std::to_string(number) + ": sending the last metrics.");
      const time_point deadline = later(now(), options_.limits.shutdown_deadline);
      // A program that has a handler of its own may go on, and end its training by itself.
      const bool ends_program = machine::signal_relay::ends_program(number);
      if (ends_program) tell_ending_without_model(deadline);
      if (traits_.completes && !goes_on_ && ends_program) {
        fail_training("Signal " + std::to_string(number) + " ended the training.", deadline);
        wait_until(deadline, [](const engine& decide) { return decide.done(); });
        return;
      }
      tell([](engine& decide, time_point now) { decide.handle_flush(lane::epochs, now); });
      wait_until(deadline, [](const engine& decide) { return decide.epochs_done(); });
      say_missing();
      report_.wait();
    });
  }

  // An upload's body, which tells how far it has been read.
  result<std::shared_ptr<body_source>> open_upload(const checkpoint& accepted, std::string name) {
    auto file = accepted.number != 0 ? spool_->open_upload(accepted.number)
                : accepted.keep      ? accepted.keep->open()
                                     : machine::file_source::open(accepted.file);
    if (!file) return file;
    return std::shared_ptr<body_source>(std::make_shared<machine::metered_body>(
        *std::move(file),
        [this, name = std::move(name), began = now()](std::uint64_t sent, std::uint64_t total) {
          report_.progress({name, sent, total, now() - began});
        }));
  }

  // 128 random bits, so that no file holds it by accident.
  std::string boundary() {
    std::array<char, 33> text{};
    std::snprintf(text.data(), text.size(), "%016llx%016llx",
                  static_cast<unsigned long long>(boundary_random_()),
                  static_cast<unsigned long long>(boundary_random_()));
    return text.data();
  }

  session_options options_;
  machine::reporter report_;
  protocol_traits traits_;
  std::unique_ptr<spool::store> spool_;
  process_rank rank_;
  int process_ = 0;
  bool started_ = false;
  bool goes_on_ = false;  // whatever ends this session, another one takes the run up again

  mutable std::mutex mutex_;
  engine engine_;
  std::string model_url_;
  std::string said_missing_;  // under the mutex
  std::string system_;        // the machine's figures, in the protocol's words

 private:
  static constexpr const char* forked =
      "This process was forked from the one that began the session, and reports nothing. Begin the "
      "session after the fork, in the process that trains.";
  static constexpr std::size_t warnings_max = 20;
  static constexpr std::string_view given_up =
      "A call was given up, and what it was to report may be missing: ";
  static constexpr std::string_view no_figures = "The machine's figures are not told any more: ";

  // Under the mutex.
  published publish() {
    published out;
    for (lane which : all_lanes) {
      const time_point next = engine_.deadline(which);
      out.earlier[static_cast<std::size_t>(which)] = next < scheduled(which);
      scheduled(which) = std::min(scheduled(which), next);
    }
    out.notes = engine_.take_notes();
    out.struck = engine_.take_struck();
    stop_requested_ = engine_.stop_requested();
    return out;
  }

  // The engine has been told, and whoever told it must not take it that it has not. If memory runs out,
  // the spool keeps what is over, and the next session sends that once more.
  void act_on(const published& news) noexcept {
    for (std::size_t i = 0; i < lane_count; ++i)
      if (news.earlier[i]) wake(i);
    try {
      if (spool_) spool_->strike(news.struck, now());
    } catch (...) {
    }
    for (const note& said : news.notes) report_.log(said.level, said.text);
  }

  // ---- what is missing ---------------------------------------------------------------------------

  static std::string counts_of_missing(const hub::delivery& left, std::size_t lines) {
    std::vector<std::string> parts;
    if (const std::size_t epochs = left.epochs_queued + left.epochs_set_aside; epochs > 0)
      parts.push_back(std::to_string(epochs) + (epochs == 1 ? " epoch" : " epochs"));
    if (left.checkpoint_missing) parts.emplace_back("1 checkpoint");
    if (left.final_model_wanted && !left.final_model_delivered)
      parts.emplace_back("the final model");
    if (left.ending_wanted && !left.ending_delivered)
      parts.emplace_back("the word that it has ended");
    if (lines > 0) parts.push_back(count_of_lines(lines));
    if (parts.empty()) return {};
    std::string out = parts.front();
    for (std::size_t i = 1; i < parts.size(); ++i)
      out += (i + 1 == parts.size() ? " and " : ", ") + parts[i];
    return out;
  }

  static std::string count_of_lines(std::size_t lines) {
    return std::to_string(lines) + (lines == 1 ? " printed line" : " printed lines");
  }

  std::string where_it_waits() const {
    if (!spool_)
      return " There is no spool, so what has not arrived is lost with this process; "
             "session_options::spool keeps it.";
    const std::size_t dropped = spool_->dropped();
    return " What waits is in the spool " +
           machine::shown(machine::full_path(options_.spool.directory)) +
           (dropped > 0 ? ", but for " + std::to_string(dropped) + " that it could not keep" : "") +
           (traits_.registers ? ": the next session on this run, with .resume = true, sends it."
                              : ": the next session on this model sends it, and so does sync.");
  }

  // ---- checkpoints and endings -----------------------------------------------------------------

  // A file to upload, in the spool if there is one that can take it.
  checkpoint spooled(const upload_fields& fields, std::filesystem::path file) {
    const std::uint64_t number =
        spool_ ? spool_->add_upload(fields, file, options_.snapshot == snapshot::none, now())
               : std::uint64_t{0};
    const auto now_there = machine::fingerprint_of(file);
    return {.fields = fields,
            .file = std::move(file),
            .number = number,
            .bytes = now_there ? now_there->size_bytes : 0};
  }

  // A checkpoint that nobody can change any more, if that is wanted.
  result<checkpoint> prepared(const upload_fields& fields, const std::filesystem::path& file) {
    if (auto why = machine::check_regular(file)) return *std::move(why);
    checkpoint out = spooled(fields, machine::full_path(file));
    if (out.number != 0) return out;
    switch (options_.snapshot) {
      case snapshot::none: return out;
      case snapshot::copy: break;
    }
    const auto folder = snapshots_.get();
    if (!folder) return folder.error();
    auto copy = machine::snapshot_file::take(out.file, *folder);
    if (!copy) return copy.error();
    out.keep = *std::move(copy);
    return out;
  }

  // Hands a checkpoint to the engine. False if there is none.
  bool take_checkpoint(const upload_fields& fields, const std::filesystem::path& file) {
    auto checkpoint = prepared(fields, file);
    tell([&](engine& decide, time_point now) {
      if (checkpoint)
        decide.handle_checkpoint(*std::move(checkpoint), now);
      else
        decide.handle_checkpoint_failure(report_.redacted(checkpoint.error()));
    });
    return static_cast<bool>(checkpoint);
  }

  // The final model never travels beside a checkpoint: that one may finish, or is cut.
  void finish_replaced_upload(time_point deadline) {
    const time_point until = std::min(deadline, later(now(), options_.limits.checkpoint_grace));
    const auto finished = [](const engine& decide) { return !decide.replaced_upload_in_flight(); };
    if (wait_until(until, finished)) return;
    const std::lock_guard lock(mutex_);
    if (!finished(engine_)) cancel_request(lane::uploads);
  }

  // What a further ending comes to once the server has the first one, which nothing may follow.
  std::optional<hub::delivery> answer_when_over(const std::filesystem::path& best) {
    if (!has_ended_) return std::nullopt;
    hub::delivery out;
    tell([&](engine& decide, time_point) { out = decide.delivery(); });
    if (!out.final_model_delivered && !out.ending_delivered) return std::nullopt;
    if (best.empty()) return out;
    out.why = report_.redacted(
        error{errc::already_trained,
              "The session is over: the server has the end of this training, so the file " +
                  machine::shown(best) +
                  " is not sent. Give the first on_train_end what is to be sent, or begin a new "
                  "session."});
    report_.log(log_level::error, out.why->message);
    return out;
  }

  hub::delivery end_training() {
    hub::delivery delivered;
    std::size_t lines = 0;  // that nobody will see
    tell([&](engine& decide, time_point) {
      decide.handle_stop();
      delivered = decide.delivery();
      lines = decide.status().console_lines_queued;
      said_missing_ = delivered.complete() ? counts_of_missing(delivered, lines) : "";
    });
    has_ended_ = true;
    for (lane which : all_lanes)
      if (which != lane::life) cancel(which);
    if (delivered.complete())
      report_.log(log_level::info,
                  "Done: all " + std::to_string(delivered.epochs_delivered) + " epochs " +
                      (delivered.final_model_delivered ? "and the final model " : "") + "are on " +
                      model_url() +
                      (lines > 0 ? ", but " + count_of_lines(lines) + " could not be sent" : ""));
    else
      say_missing();
    report_.wait();
    return delivered;
  }

  std::array<time_point, 4> scheduled_ = {never, never, never, never};
  static_assert(lane_count == 4);
  std::atomic<bool> stop_requested_ = false;
  std::atomic<bool> ending_said_ = false;
  std::atomic<bool> has_ended_ = false;  // by on_train_end
  std::atomic<bool> was_told_ = false;   // anything that has to arrive
  std::atomic<bool> fork_said_ = false;
  std::string results_;                            // in the protocol's words
  std::set<std::string> warnings_;                 // that were said
  std::optional<machine::figure_reader> figures_;  // of the task that reads them
  std::mutex console_mutex_;
  text::console_lines console_;
  std::mt19937_64 boundary_random_{seed()};
  machine::snapshot_folder snapshots_{options_.temp_folder};
};

// Shows what the program prints to std::cout, std::cerr and std::clog on the run's page as well, from
// its construction to its destruction, which must come before the session's. What is printed goes where
// it went before, whatever becomes of the page. Not for printf, which goes around these streams.
class console_tee {
 public:
  explicit console_tee(session_base& session)
      : out_(std::cout, session), error_(std::cerr, session), log_(std::clog, session) {}
  console_tee(const console_tee&) = delete;
  console_tee& operator=(const console_tee&) = delete;

 private:
  class branch final : public std::streambuf {
   public:
    branch(std::ostream& stream, session_base& session)
        : stream_(stream), session_(session), before_(stream.rdbuf(this)) {}
    ~branch() override {
      if (stream_.rdbuf() == this) stream_.rdbuf(before_);
    }

   private:
    int_type overflow(int_type c) override {
      if (traits_type::eq_int_type(c, traits_type::eof())) return traits_type::not_eof(c);
      const char one = traits_type::to_char_type(c);
      return xsputn(&one, 1) == 1 ? c : traits_type::eof();
    }
    std::streamsize xsputn(const char* text, std::streamsize count) override {
      const std::streamsize written = before_->sputn(text, count);
      session_.console({text, static_cast<std::size_t>(count)});
      return written;
    }
    int sync() override { return before_->pubsync(); }

    std::ostream& stream_;
    session_base& session_;
    std::streambuf* before_;
  };

  branch out_, error_, log_;
};

// Reports one training. See the top of this file for an example, and session_base for what all sessions
// have in common.
template <class Transport, class Clock, class Sleeper, class Protocol = hub_v1>
class basic_training_session final : public session_base {
  static_assert(std::copy_constructible<Transport>,
                "hub_session: the transport cannot be copied; each lane sends on a copy, see "
                "http_transport among the policies");
  static_assert(has_send<Transport>,
                "hub_session: the transport lacks 'hub::reply send(const hub::request&)', see "
                "http_transport among the policies");
  static_assert(has_cancel<Transport>,
                "hub_session: the transport lacks 'void cancel() noexcept', see http_transport "
                "among the policies");
  static_assert(std::copy_constructible<Clock>,
                "hub_session: the clock cannot be copied, see monotonic_clock among the policies");
  static_assert(has_now<Clock>,
                "hub_session: the clock lacks 'hub::time_point now() const', see monotonic_clock "
                "among the policies");
  static_assert(has_wall_now<Clock>,
                "hub_session: the clock lacks 'std::chrono::system_clock::time_point wall_now() "
                "const', see monotonic_clock among the policies");
  static_assert(std::move_constructible<Sleeper>,
                "hub_session: the sleeper cannot be moved, see sleeper among the policies");
  static_assert(has_start<Sleeper>,
                "hub_session: the sleeper lacks 'void start(std::vector<hub::background_task>)', "
                "see sleeper among the policies");
  static_assert(has_wake<Sleeper>,
                "hub_session: the sleeper lacks 'void wake(std::size_t) noexcept', see sleeper "
                "among the policies");
  static_assert(has_wait_until<Sleeper>,
                "hub_session: the sleeper lacks 'bool wait_until(hub::time_point, "
                "std::function<bool()>)', see sleeper among the policies");
  static_assert(has_stop<Sleeper>,
                "hub_session: the sleeper lacks 'void stop()', see sleeper among the policies");
  static_assert(has_concurrent<Sleeper>,
                "hub_session: the sleeper lacks 'static constexpr bool concurrent', see sleeper "
                "among the policies");

  static_assert(
      has_identity<Protocol>,
      "hub_session: the protocol lacks identity, run or news, or its run cannot be copied, see "
      "'what a protocol is' among the protocols");
  static_assert(
      has_traits<Protocol>,
      "hub_session: the protocol lacks name or traits, see 'what a protocol is' among the "
      "protocols");
  static_assert(
      tells_registration<Protocol>,
      "hub_session: the protocol's traits say that it registers, and it lacks 'is_registered', see "
      "'what a protocol is' among the protocols");
  static_assert(has_identify<Protocol>,
                "hub_session: the protocol lacks 'identify', see 'what a protocol is' among the "
                "protocols");
  static_assert(has_credentials<Protocol>,
                "hub_session: the protocol lacks 'credentials', 'accept' or 'no_key', see 'what a "
                "protocol is' among the protocols");
  static_assert(
      has_opening<Protocol>,
      "hub_session: the protocol lacks 'opening' or 'judge_opening', see 'what a protocol is' "
      "among the protocols");
  static_assert(
      has_orders<Protocol>,
      "hub_session: the protocol lacks 'make' or 'judge' for one of the engine's orders, see "
      "'what a protocol is' among the protocols");
  static_assert(
      has_memory<Protocol>,
      "hub_session: the protocol lacks 'adopt', 'page', 'folder', 'remember' or 'recall', see "
      "'what a protocol is' among the protocols");

 public:
  // HUB v1: signs in, fetches the model and starts the heartbeat. With a spool, what the last session
  // on this model left is sent first, also if HUB refuses a further training; and with
  // spool.offline the session may start while HUB cannot be reached, on what HUB said last or on
  // spool.train_args.
  // Platform: makes the run. If the Platform cannot be reached the training begins all the same, and
  // making the run is tried for as long as the session lives.
  // Blocks: up to limits.start_deadline, with retry.start_retries_max retries of each request.
  // Throws: session_error with invalid_identifier, invalid_endpoint, invalid_credentials,
  //   not_authenticated, access_denied, already_trained, dataset_not_ready, bad_reply,
  //   unexpected_status, spool_locked, or what kept the server from answering.
  // Protocol: HUB v1 POST /v1/auth for a key that is not the saved one, GET /v1/models/{id}; Platform
  //   training_started.
  explicit basic_training_session(const typename Protocol::identity& identity,
                                  session_options options = {}, Transport transport = Transport(),
                                  Clock clock = Clock(), Sleeper sleeper = Sleeper())
      : session_base(std::move(options), Protocol::traits, Sleeper::concurrent),
        prototype_(std::move(transport)),
        clock_(std::move(clock)),
        sleeper_(std::move(sleeper)) {
    if (!find_rank()) {
      report_.close();
      return;
    }
    // On the epochs lane's transport, so that the connection is warm when the first epoch leaves.
    Transport& first = driver_of(lane::epochs).transport.emplace(prototype_);
    startup begin(options_, report_, first, clock_, sleeper_);
    run_ = begin.identify(identity);
    if constexpr (requires { Protocol::disclosure(identity); }) {
      Protocol::describe(run_, machine::describe(Protocol::disclosure(identity)));
      if (Protocol::disclosure(identity) == environment_disclosure::none)
        traits_.shows_system = false;
    }
    open_spool();
    begin.find_credentials(run_);
    open(begin);
    local_now();  // reads the zone from the environment: here, and not while others may change that
    model_url_ = Protocol::page(run_);
    goes_on_ = spool_ && Protocol::resumes(run_);
    start_reporting();
  }

  // Flushes what it can within limits.shutdown_deadline, cuts what still hangs, ends every thread.
  // If the protocol has a word for a training that ended without on_train_end, that is said, and the
  // end that waited for a final model is told without one.
  ~basic_training_session() override {
    if (!live()) return;
    const time_point deadline = later(now(), options_.limits.shutdown_deadline);
    guarded([&] {
      tell_ending_without_model(deadline);
      if (goes_on_) return;
      fail_training(std::uncaught_exceptions() > exceptions_before_
                        ? "An exception ended the training."
                        : "The program ended before the training did.",
                    deadline);
    });
    shut_down(std::max(deadline - now(), duration::zero()));
  }

  // Makes a model for a run that HUB does not know yet, and returns its id for the constructor.
  // Blocks and throws as the constructor does. Protocol: HUB v1 POST /v1/models.
  static std::string create_model(
      const new_model& wanted, const session_options& options = {},
      Transport transport = Transport(), Clock clock = Clock(),
      Sleeper sleeper = Sleeper()) requires std::same_as<Protocol, hub_v1> {
    machine::reporter report(options, Sleeper::concurrent, Protocol::traits.service);
    startup begin(options, report, transport, clock, sleeper);
    hub_v1::run who = begin.checked(hub_v1::find_roots(options.endpoints, machine::env));
    begin.find_credentials(who);
    begin.open(who);
    std::string id;
    begin.exchange(hub_v1_wire::create_model_request(who.who, wanted), [&](const reply& answer) {
      return hub_v1::judge_created(answer, clock.wall_now(), id);
    });
    return id;
  }

  // What HUB said of the model when the session began. Empty on a rank above 0.
  const model_info& model() const noexcept requires std::same_as<Protocol, hub_v1> {
    static const model_info none;
    return run_.model ? *run_.model : none;
  }
  const hub::train_args& train_args() const noexcept requires std::same_as<Protocol, hub_v1> {
    return model().train_args;
  }
  const std::string& model_file() const noexcept requires std::same_as<Protocol, hub_v1> {
    return model().model_file;
  }

  // The epoch to begin with: the one after the last that the server has, as far as the spool or the
  // server says so, if a training is to go on; else 0. What the training goes on from, such as the
  // checkpoint that fetch_model_file brings, may be older: an epoch that is reported again takes the
  // place of what was there.
  int next_epoch() const noexcept {
    std::optional<int> last;
    if (spool_ && Protocol::resumes(run_)) last = spool_->last_done_epoch();
    if constexpr (std::same_as<Protocol, hub_v1>) {
      if (!train_args().resume) return 0;
      last = std::max(last, model().last_epoch);
    }
    return last && *last >= 0 && *last < std::numeric_limits<int>::max() ? *last + 1 : 0;
  }

  // Downloads model_file() to `file`, in its place when whole; FILE.part and FILE.part.json hold
  // what has come so far. Goes on after a break, also of an earlier run, if the storage host's
  // ETag shows that it still has the same version, and asks HUB for a fresh URL if this one has
  // expired. If `file` is a symbolic link, all that is where it leads.
  // Blocks: up to limits.download_deadline, while the lanes go on; gives up after
  //   retry.download_retries_max failures in a row. Returns a path of "" on a rank above 0.
  // Errors: not_downloadable if HUB names no URL, file_error, or what kept the file from coming.
  // Protocol: GET of the URL, without the key; GET /v1/models/{id} for a fresh one.
  result<fetched_file> fetch_model_file(
      const std::filesystem::path& file) noexcept requires std::same_as<Protocol, hub_v1> {
    return fetch(Protocol::model_file, file);
  }

  // The same for the dataset, train_args().data.
  result<fetched_file> fetch_dataset(
      const std::filesystem::path& file) noexcept requires std::same_as<Protocol, hub_v1> {
    return fetch(Protocol::dataset, file);
  }

  // The same for the weights of a model, or a dataset, that the server has by address; on the Platform
  // ul://USER/PROJECT/MODEL, ul://USER/datasets/NAME or the page of either.
  // Errors: also invalid_identifier for what is no such address, and dataset_not_ready.
  // Protocol: Platform GET /api/models/.../files or /api/datasets/.../export, and where the server does
  //   not know that, HEAD of the older call; then GET of the URL, without the key.
  result<fetched_file> fetch_model_file(std::string_view address,
                                        const std::filesystem::path& file) noexcept requires
      names_files<Protocol> {
    return fetch_from(address, false, file);
  }
  result<fetched_file> fetch_dataset(std::string_view address,
                                     const std::filesystem::path& file) noexcept requires
      names_files<Protocol> {
    return fetch_from(address, true, file);
  }

 private:
  using startup = detail::startup<Protocol, Transport, Clock, Sleeper>;
  static constexpr unsigned runs_of_a_name_max = 100;  // that are not finished, in one spool

  // What goes on in a lane. `transport`, `sent`, `pending` and `due` are the lane's own; `cancelled` and
  // `sends_file` are guarded by mutex_.
  struct driver {
    std::optional<Transport> transport = {};
    std::optional<order> sent = {};  // and not answered yet
    std::optional<reply> pending = {};
    time_point due = {};
    std::uint64_t token_number = 0;  // of the token that it was sent with
    bool cancelled = false;
    bool sends_file = false;  // what was sent last
  };

  driver& driver_of(lane which) { return drivers_[static_cast<std::size_t>(which)]; }

  // ---- what the policies do ----------------------------------------------------------------------

  time_point now() const override { return clock_.now(); }
  std::chrono::local_seconds local_now() const override {
    return machine::local_time(clock_.wall_now());
  }
  void wake(std::size_t task) noexcept override { sleeper_.wake(task); }
  bool wait(time_point until, const std::function<bool()>& done) override {
    return sleeper_.wait_until(until, done);
  }
  void cancel_request(lane which) noexcept override {
    driver_of(which).cancelled = true;
    driver_of(which).transport->cancel();
    sleeper_.wake(static_cast<std::size_t>(which));
  }
  bool sends_file(lane which) const noexcept override {
    return drivers_[static_cast<std::size_t>(which)].sends_file;
  }
  std::string agent_id() const override {
    if constexpr (requires { run_.agent_id; })
      return run_.agent_id;
    else
      return {};
  }
  std::string encode_figures([[maybe_unused]] const system_figures& figures) const override {
    if constexpr (requires { Protocol::encode_figures(figures); })
      return Protocol::encode_figures(figures);
    else
      return {};
  }
  std::string encode_results([[maybe_unused]] const training_results& results) const override {
    if constexpr (requires { Protocol::encode_results(results); })
      return Protocol::encode_results(results);
    else
      return {};
  }
  std::string results_problem([[maybe_unused]] const training_results& results) const override {
    if constexpr (requires { Protocol::results_problem(results); })
      return Protocol::results_problem(results);
    else
      return {};
  }

  // ---- the start and the end ---------------------------------------------------------------------

  // A model's folder is one for all its trainings. A run that has to be made has a folder of its own:
  // a new one takes the first that no unfinished run has, a resumed one the first that one has.
  void open_spool() {
    unsigned first = 1;
    if constexpr (requires { run_.spool_number; }) first = std::max(run_.spool_number, 1u);
    const unsigned end = traits_.registers ? first - 1 + runs_of_a_name_max : 1;
    for (unsigned number = first; number <= end; ++number) {
      try {
        spool_ = spool::store::open(options_.spool, Protocol::folder(run_, number),
                                    Protocol::spool_file, report_);
      } catch (const session_error& problem) {
        if (number == end || problem.code() != errc::spool_locked) throw;
        continue;
      }
      if (!spool_ || !traits_.registers) return;
      const auto kept = spool_->kept_run();
      if (!kept) return begin_anew();
      if (Protocol::resumes(run_) && Protocol::recall(run_, *kept)) return;
    }
    spool_.reset();
    report_.log(
        log_level::error,
        "The spool holds " + std::to_string(runs_of_a_name_max) +
            " unfinished runs of this name, and takes no further one. Send them with sync, or "
            "name the run otherwise. The training goes on in memory alone.");
  }

  // In a folder that no unfinished run has.
  void begin_anew() {
    if (Protocol::resumes(run_))
      report_.log(log_level::info,
                  "The spool holds no unfinished run of this name, so a new one begins.");
    const auto why = spool_->begin_anew();
    if (!why) return;
    report_.log(log_level::error, why->message + " The training goes on in memory alone.");
    spool_.reset();
  }

  // Asks the server what has to be known first, or does without if that is allowed and it cannot be
  // reached.
  void open(startup& begin) {
    const bool knows_key = begin.has_credentials(run_);
    try {
      begin.open(run_);
      if (spool_) spool_->keep_run(Protocol::remember(run_));
    } catch (const session_error& problem) {
      // HUB takes what belongs to a training that has ended, but no further one.
      if (problem.code() == errc::already_trained && spool_) finish_left();
      error why = with_advice(problem.error());
      if (!detail::may_pass(why.code)) throw session_error(std::move(why));
      if (!knows_key || !spool_ || options_.spool.offline != offline_start::allow || !recall()) {
        why.message +=
            " A session with a spool can start without the server: set spool.offline to allow, and "
            "spool.train_args for the first start.";
        throw session_error(std::move(why));
      }
      report_.log(log_level::warning,
                  why.message +
                      " The session starts without the server, on what it knows of the "
                      "model, and keeps trying.");
    }
  }

  // What the protocol has to say of a server that does not answer, or not as one.
  error with_advice(error why) const {
    if constexpr (requires { Protocol::advice(run_); })
      if (detail::may_pass(why.code) || why.code == errc::bad_reply ||
          why.code == errc::unexpected_status)
        why.message += Protocol::advice(run_);
    return why;
  }

  // The run as the server last described it, else as the program does.
  bool recall() {
    const auto kept = spool_->kept_run();
    if (kept && Protocol::recall(run_, *kept)) return true;
    if constexpr (requires { Protocol::assume(run_, *options_.spool.train_args); }) {
      if (!options_.spool.train_args) return false;
      Protocol::assume(run_, *options_.spool.train_args);
      return true;
    }
    return false;
  }

  // From here on the lanes work. A run that has to be made is made at once if the server answers;
  // if it does not, that goes on beside the training.
  void start_reporting() {
    run_is_kept_ = is_registered();
    engine_.handle_signed_in(clock_.now(), run_is_kept_);
    send_left();
    start_lanes();
    if (!traits_.registers) return;
    const auto tried = [](const engine& decide) {
      return decide.registered() || decide.registration_failure();
    };
    wait_until(later(clock_.now(), options_.limits.start_deadline), tried);
    std::optional<error> why;
    tell([&](engine& decide, time_point) { why = decide.registration_failure(); });
    const bool refused =
        why && (why->code == errc::not_authenticated || why->code == errc::access_denied);
    if (!refused || spool_) return;
    ending_is_said();  // nothing began that could have failed
    shut_down(duration::zero());
    throw session_error(*why);
  }

  bool is_registered() const {
    if constexpr (Protocol::traits.registers)
      return Protocol::is_registered(run_);
    else
      return true;
  }

  // A session that lasts only as long as it takes to send what was left.
  void finish_left() {
    spool_->drop_left_checkpoint(clock_.now());
    if (!spool_->has_left()) return;
    send_left();
    start_lanes();
    shut_down(options_.limits.start_deadline);
  }

  void start_lanes() {
    std::vector<background_task> tasks;
    tasks.reserve(lane_count + 2);  // the spool's and the figures'
    // Its task may be missing, and the others keep their places.
    static_assert(all_lanes.back() == lane::console);
    for (lane which : all_lanes) {
      if (which == lane::console && !traits_.takes_console) continue;
      tasks.push_back({to_string(which), [this, which] { return step(which); }});
    }
    add_tasks(tasks);
    process_ = machine::process_id();
    started_ = true;
    try {
      sleeper_.start(std::move(tasks));
    } catch (const std::system_error& problem) {
      throw session_error(
          {errc::internal_error,
           std::string("The threads of the session cannot be started: ") + problem.what()});
    }
    if constexpr (Sleeper::concurrent)
      last_words_.emplace([this] {
        guarded([&] {
          say_missing();
          report_.wait();
        });
      });
    if constexpr (Sleeper::concurrent)
      if (options_.handle_signals)
        signal_subscription_ = machine::signal_relay::instance().subscribe(
            [this](int number) { flush_on_signal(number); }, options_.limits.signal_moment);
  }

  // Flushes what it can in that time, cuts what still hangs, ends every thread.
  void shut_down(duration timeout) noexcept {
    last_words_.reset();
    if constexpr (Sleeper::concurrent)
      if (signal_subscription_)
        machine::signal_relay::instance().unsubscribe(*signal_subscription_);
    guarded([&] {
      flush(timeout);
      tell([](engine& decide, time_point) { decide.handle_stop(); });
      say_missing();
    });
    for (lane which : all_lanes) cancel(which);
    sleeper_.stop();
    guarded([&] {
      if (spool_) spool_->close(clock_.now());
    });
  }

  // ---- lanes -----------------------------------------------------------------------------------

  // The driver, the same for every lane: hands over the reply that is due, else sends what the
  // engine wants sent. Returns when to be called again.
  time_point step(lane which) {
    driver& at = driver_of(which);
    if (at.pending) {
      if (clock_.now() < at.due) {
        if (!is_cancelled(which)) return at.due;
        at.pending = reply{.failure = error{errc::cancelled, "The request was given up."}};
      }
      hand_over(which, *at.pending);
      at.pending.reset();  // only now: if memory ran out, the same reply is handed over again
      at.sent.reset();     // and with it the hold on its file
    }
    if (spool_ && which == lane::epochs) note_run();
    std::optional<order> next;
    typename Protocol::run run;
    std::string system;
    {
      const std::lock_guard lock(mutex_);
      if (!at.transport) at.transport.emplace(prototype_);
      run = run_;  // before the engine counts on the order: here memory may run out
      at.token_number = token_number_;
      system = system_;
      next = engine_.poll(which, clock_.now());
      scheduled(which) = next ? time_point::min() : engine_.deadline(which);
      if (!next) return scheduled(which);
      at.sends_file =
          std::holds_alternative<upload_order>(next->content) && Protocol::sends_file(next->so_far);
    }
    at.sent = std::move(next);
    at.pending = perform(which, run, *at.sent, std::move(system));
    at.due = later(clock_.now(), at.pending->latency);
    return at.due;
  }

  // Whether the reply that is still on its way was given up. On a real transport none ever is on its way
  // here: send() waited for it.
  bool is_cancelled(lane which) {
    const std::lock_guard lock(mutex_);
    return driver_of(which).cancelled;
  }

  void hand_over(lane which, const reply& answer) {
    typename Protocol::run run;
    {
      const std::lock_guard lock(mutex_);
      run = run_;
    }
    typename Protocol::news news;
    const order& sent = *driver_of(which).sent;
    outcome came = std::visit(
        [&](const auto& each) {
          return Protocol::judge(run, each, sent.so_far, answer, clock_.wall_now(), news);
        },
        sent.content);
    came.why = report_.redacted(std::move(came.why));
    renew_token(which, came);
    if constexpr (requires { Protocol::warning(news); }) say_warning(Protocol::warning(news));
    tell([&](engine& decide, time_point now) {
      if (std::exchange(driver_of(which).cancelled, false)) driver_of(which).transport.reset();
      Protocol::adopt(run_, std::move(news));
      model_url_ = Protocol::page(run_);
      decide.handle_outcome(which, came, now);
    });
  }

  // What the spool has to know of the run: its ids once it is made, and that it is no more once it has
  // ended. If memory runs out, the lane's next step does it.
  void note_run() {
    bool has_ended = false;
    std::string remembered;
    {
      const std::lock_guard lock(mutex_);
      has_ended = engine_.ending_delivered();
      if (has_ended ? run_is_forgotten_ : run_is_kept_ || !engine_.registered()) return;
      if (!has_ended) remembered = Protocol::remember(run_);
    }
    if (has_ended)
      spool_->forget_run();
    else
      spool_->keep_run(remembered);
    (has_ended ? run_is_forgotten_ : run_is_kept_) = true;
  }

  // If the server does not accept the token any more, one lane has it renewed, and each lane that was
  // refused with the old one goes on with the new one. A new one that is refused before anything was
  // accepted with it is as good as none.
  void renew_token(lane which, outcome& came) {
    if (!tokens_.can_renew()) return;
    const std::uint64_t sent_with = driver_of(which).token_number;
    if (came.accepted()) note_accepted_token(sent_with);
    if (!came.unauthorized()) return;
    const std::lock_guard one_at_a_time(renewal_mutex_);
    const bool was_accepted = accepted_token_ >= sent_with;
    if (sent_with == token_number_) {
      auto fresh = tokens_.fresh();
      const std::lock_guard lock(mutex_);
      auto why = fresh ? Protocol::accept(run_, {.token = *std::move(fresh)}) : fresh.error();
      if (why) {
        came.why = report_.redacted(*std::move(why));
        return;
      }
      ++token_number_;
    }
    if (was_accepted) came = once_more(driver_of(which).sent->so_far);
  }

  // Takes no lock: a sign of life that was answered does not wait for the renewal on another lane.
  void note_accepted_token(std::uint64_t number) noexcept {
    std::uint64_t newest = accepted_token_;
    while (newest < number && !accepted_token_.compare_exchange_weak(newest, number)) {
    }
  }

  // If memory runs out or the transport throws, that is the reply.
  reply perform(lane which, const typename Protocol::run& run, order& wanted,
                std::string system) noexcept {
    try {
      if (const auto* lines = std::get_if<console_order>(&wanted.content); lines && spool_)
        spool_->add_chunk(lines->chunk, lines->through, *lines->lines, clock_.now());
      sending with{.agent = agent_, .system = std::move(system)};
      if (auto* const upload = std::get_if<upload_order>(&wanted.content);
          upload && Protocol::sends_file(wanted.so_far)) {
        auto file = open_upload(upload->file, Protocol::upload_name(upload->file.fields));
        if (!file) return {.failure = file.error()};
        with.file = *std::move(file);
        upload->file.bytes = with.file->size_bytes();  // as it is now
        with.boundary = boundary();
      }
      request out = std::visit(
          [&](const auto& each) { return Protocol::make(run, each, wanted.so_far, with); },
          wanted.content);
      return send(which, std::move(out));
    } catch (...) {
      return {.failure = error{}};
    }
  }

  reply send(lane which, request message) {
    const limit_options& limits = options_.limits;
    message.deadline = message.content ? limits.upload_deadline : limits.request_deadline;
    detail::apply_options(options_, message);
    return report_.redacted(driver_of(which).transport->send(message));
  }

  // ---- downloads -------------------------------------------------------------------------------

  using downloader = detail::downloader<Transport, Clock, Sleeper>;

  template <class Part>
  result<fetched_file> fetch(const Part& part, const std::filesystem::path& file) noexcept {
    return guarded_fetch([&]() -> result<fetched_file> {
      const auto current = [this] {
        const std::lock_guard lock(mutex_);
        return run_;
      };
      auto url = Protocol::url_of(current(), model(), part);
      if (!url) return url.error();
      return downloader(options_, report_, prototype_, clock_, sleeper_, seed())
          .fetch(*std::move(url), Protocol::query_file(current, part), file);
    });
  }

  // No constraint, but a branch: clang 14 makes the code of constrained members too, if it is told to
  // make a whole class.
  result<fetched_file> fetch_from([[maybe_unused]] std::string_view address,
                                  [[maybe_unused]] bool is_dataset,
                                  [[maybe_unused]] const std::filesystem::path& file) noexcept {
    return guarded_fetch([&]() -> result<fetched_file> {
      if constexpr (names_files<Protocol>) {
        typename Protocol::run run;
        {
          const std::lock_guard lock(mutex_);
          run = run_;
        }
        const auto query = Protocol::query_file(run, address, is_dataset);
        if (!query) return query.error();
        return downloader(options_, report_, prototype_, clock_, sleeper_, seed())
            .fetch({}, *query, file);
      } else {
        return error{};
      }
    });
  }

  // Beside guarded(): a forked child gets nothing here, and no word of it, and what is given up must not
  // read as a file.
  template <class Work>
  result<fetched_file> guarded_fetch(Work&& work) noexcept {
    if (!live()) return fetched_file{};
    try {
      return work();
    } catch (const std::exception& problem) {
      report_.log(log_level::error, problem.what());
    } catch (...) {
      report_.log(log_level::error,
                  "A download is given up: one of the program's functions threw.");
    }
    return error{};
  }

  Transport prototype_;
  Clock clock_;
  std::string agent_ = detail::agent_name();
  typename Protocol::run run_;  // from the start of the lanes on under the mutex
  detail::token_source tokens_{options_.credentials.renew_id_token, report_};
  std::mutex renewal_mutex_;
  std::uint64_t token_number_ = 0;  // how often it was renewed; changed under both mutexes
  std::atomic<std::uint64_t> accepted_token_ = 0;  // the newest with which anything was accepted
  std::array<driver, lane_count> drivers_;
  // Whether the spool knows of the run what note_run() has it know. The epochs lane's own.
  bool run_is_kept_ = !Protocol::traits.registers;
  bool run_is_forgotten_ = false;
  std::optional<std::size_t> signal_subscription_;
  std::optional<detail::last_words::speech> last_words_;
  int exceptions_before_ = std::uncaught_exceptions();
  Sleeper sleeper_;
};

// =================================================================================================
// default policies
//
// Rules: what a real training uses. Whatever the dependencies do to a program is kept inside here:
// no signal, no thread and no byte of a hostile reply gets out.
// =================================================================================================

class steady_clock {
 public:
  time_point now() const noexcept { return std::chrono::steady_clock::now(); }
  std::chrono::system_clock::time_point wall_now() const noexcept {
    return std::chrono::system_clock::now();
  }
};

// Runs each task on a thread of its own. Goes with hub::steady_clock.
class thread_sleeper {
 public:
  static constexpr bool concurrent = true;

  thread_sleeper() = default;
  thread_sleeper(thread_sleeper&&) noexcept = default;
  thread_sleeper& operator=(thread_sleeper&&) = delete;
  ~thread_sleeper() { stop(); }

  void start(std::vector<background_task> tasks) {
    shared& all = *shared_;
    all.workers = std::vector<worker>(tasks.size());
    all.threads.reserve(tasks.size());  // a thread that finds no room would end the program
    for (std::size_t i = 0; i < tasks.size(); ++i)
      all.threads.push_back(
          machine::quiet_thread([&all, i, task = std::move(tasks[i])] { run(all, i, task); }));
  }

  void wake(std::size_t task) noexcept {
    const std::lock_guard lock(shared_->mutex);
    shared_->workers[task].woken = true;
    shared_->workers[task].changed.notify_one();
  }

  bool wait_until(time_point when, const std::function<bool()>& done) {
    for (;;) {
      std::unique_lock lock(shared_->mutex);
      const std::uint64_t seen = shared_->runs;
      lock.unlock();  // done() may take the session's mutex, under which wake() takes ours
      if (done()) return true;
      lock.lock();
      const auto ran = [&] { return shared_->runs != seen; };
      if (!shared_->ran.wait_until(lock, when, ran)) return lock.unlock(), done();
    }
  }

  void stop() {
    if (!shared_) return;
    if (shared_->process != machine::process_id()) {
      static_cast<void>(shared_.release());  // a forked child has none of these threads to join
      return;
    }
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->stopping = true;
      for (worker& each : shared_->workers) each.changed.notify_one();
    }
    for (std::thread& each : shared_->threads) each.join();
    shared_->threads.clear();
  }

 private:
  struct worker {
    std::condition_variable changed;
    bool woken = false;
  };
  struct shared {
    std::mutex mutex;
    std::condition_variable ran;
    std::uint64_t runs = 0;  // of any task, so that a waiter can tell that something happened
    bool stopping = false;
    std::vector<worker> workers;
    std::vector<std::thread> threads;
    int process = machine::process_id();
  };

  static void run(shared& all, std::size_t index, const background_task& task) noexcept {
    for (;;) {
      const time_point next = run_once(task);
      std::unique_lock lock(all.mutex);
      ++all.runs;
      all.ran.notify_all();
      worker& mine = all.workers[index];
      const auto due = [&] { return all.stopping || mine.woken; };
      if (next == never)
        mine.changed.wait(lock, due);
      else
        mine.changed.wait_until(lock, next, due);
      if (all.stopping) return;
      mine.woken = false;
    }
  }

  // A task that throws has run out of memory; it is tried again after a pause.
  static time_point run_once(const background_task& task) noexcept {
    try {
      return task.run();
    } catch (...) {
      return std::chrono::steady_clock::now() + 1s;
    }
  }

  std::unique_ptr<shared> shared_ = std::make_unique<shared>();
};

#endif  // HUB_SESSION_ADDS_SESSION

#if defined(HUB_SESSION_ADDS_HTTPLIB)

namespace detail {

// ---- sockets -----------------------------------------------------------------------------------

#if defined(HUB_SESSION_POSIX)
inline void close_socket(socket_t socket) noexcept { ::close(socket); }
inline void cut_socket(socket_t socket) noexcept { ::shutdown(socket, SHUT_RDWR); }
inline std::ptrdiff_t send_some(socket_t socket, const char* data, std::size_t size) noexcept {
  return ::send(socket, data, size, 0);
}
// One that does not block, and that no program started from here inherits.
inline socket_t open_socket(int family) noexcept {
#if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)
  return ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
#else
  const socket_t socket = ::socket(family, SOCK_STREAM, 0);
  ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
  ::fcntl(socket, F_SETFD, FD_CLOEXEC);
  return socket;
#endif
}
inline int last_socket_error() noexcept { return errno; }
inline bool is_passing(int code) noexcept {
  return code == EINTR || code == EAGAIN || code == EWOULDBLOCK || code == EINPROGRESS;
}
using polled_socket = machine::posix::polled;
inline constexpr short readable = machine::posix::readable, writable = machine::posix::writable;
inline int poll_sockets(std::span<polled_socket> sockets, int milliseconds) noexcept {
  return machine::posix::poll(sockets.data(), sockets.size(), milliseconds);
}
// What cuts a socket also wakes whoever polls it.
inline bool is_cut_unheard(socket_t) noexcept { return false; }
inline constexpr hub::duration poll_max = hub::duration::max();
#else
inline void close_socket(socket_t socket) noexcept { ::closesocket(socket); }
inline void cut_socket(socket_t socket) noexcept { ::shutdown(socket, SD_BOTH); }
inline std::ptrdiff_t send_some(socket_t socket, const char* data, std::size_t size) noexcept {
  const std::size_t most = std::min<std::size_t>(size, std::numeric_limits<int>::max());
  return ::send(socket, data, static_cast<int>(most), 0);
}
inline socket_t open_socket(int family) noexcept {
  const socket_t socket = ::WSASocketW(family, SOCK_STREAM, 0, nullptr, 0,
                                       WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
  u_long on = 1;
  ::ioctlsocket(socket, static_cast<long>(FIONBIO), &on);
  return socket;
}
inline int last_socket_error() noexcept { return ::WSAGetLastError(); }
inline bool is_passing(int code) noexcept {
  return code == WSAEINTR || code == WSAEWOULDBLOCK || code == WSAEINPROGRESS;
}
using polled_socket = WSAPOLLFD;
inline constexpr short readable = POLLIN, writable = POLLOUT;
inline int poll_sockets(std::span<polled_socket> sockets, int milliseconds) noexcept {
  return ::WSAPoll(sockets.data(), static_cast<ULONG>(sockets.size()), milliseconds);
}
// Whoever polls a socket is not told that this program has cut it, and has to look again and again.
inline bool is_cut_unheard(socket_t socket) noexcept {
  char next = 0;
  return ::recv(socket, &next, 1, MSG_PEEK) < 0 && ::WSAGetLastError() == WSAESHUTDOWN;
}
inline constexpr hub::duration poll_max = 5ms;
#endif

inline constexpr socket_t no_socket = INVALID_SOCKET;

// Closes its socket.
class owned_socket {
 public:
  explicit owned_socket(socket_t socket) noexcept : socket_(socket) {}
  owned_socket(owned_socket&& other) noexcept : socket_(std::exchange(other.socket_, no_socket)) {}
  owned_socket& operator=(owned_socket&& other) noexcept {
    std::swap(socket_, other.socket_);
    return *this;
  }
  ~owned_socket() {
    if (socket_ != no_socket) close_socket(socket_);
  }
  socket_t get() const noexcept { return socket_; }

 private:
  socket_t socket_;
};

// For poll_sockets, which never waits less than `wait`.
inline int milliseconds_of(hub::duration wait) noexcept {
  const auto whole = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
  return static_cast<int>(std::clamp<std::int64_t>(whole, 0, std::numeric_limits<int>::max()));
}

inline std::string system_text(int code) {
  return std::error_code(code, std::system_category()).message();
}

// One exchange under watch. All members are guarded by the watchdog's mutex.
struct watched {
  time_point deadline = never;
  bool cancelled = false;       // for good
  bool cut = false;             // this exchange was ended by the watchdog
  socket_t socket = no_socket;  // taken away before it is closed
};

class watchdog;

// Ends every exchange when the program calls std::exit while sessions are alive, and lets none begin
// afterwards: OpenSSL takes itself apart then, and a thread that still spoke TLS would crash.
class exit_watch {
 public:
  // Lives as long as the process.
  static exit_watch& instance() {
    static auto* const watch = new exit_watch;
    return *watch;
  }
  static bool over() noexcept { return over_.load(); }

  void add(watchdog& dog) {
    const std::lock_guard lock(mutex_);
    [[maybe_unused]] static const int registered = std::atexit(&end_all_exchanges);
    if (std::exchange(process_, process_id()) != process_id()) dogs_.clear();  // the parent's
    dogs_.push_back(&dog);
  }
  void remove(watchdog& dog) {
    const std::lock_guard lock(mutex_);
    std::erase(dogs_, &dog);
  }

  // Whatever is made later goes before what was registered earlier, and httplib makes things of its
  // own, such as regular expressions, during the first exchange. So after that, once more.
  static void after_exchange() {
    [[maybe_unused]] static const int registered = std::atexit(&end_all_exchanges);
  }

 private:
  // The time that exchanges have to notice that they are cut, which takes milliseconds. It passes in
  // full only if a signal handler called std::exit in the middle of something of ours.
  static constexpr duration end_max = 1s;

  static void end_all_exchanges() { instance().end_all(); }
  void end_all();

  static inline std::atomic<bool> over_ = false;
  std::mutex mutex_;
  int process_ = process_id();
  std::vector<watchdog*> dogs_;
};

// Cuts the socket of an exchange that is past its deadline or cancelled, and goes on cutting until
// the exchange has ended: it may be about to get its socket when that begins.
class watchdog {
 public:
  watchdog() { exit_watch::instance().add(*this); }
  watchdog(const watchdog&) = delete;
  watchdog& operator=(const watchdog&) = delete;
  ~watchdog() {
    exit_watch::instance().remove(*this);
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      changed_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
  }

  // False if the watched transport was cancelled before, or the program is ending.
  bool begin(watched& exchange, time_point deadline) {
    const std::lock_guard lock(mutex_);
    if (exchange.cancelled || exit_watch::over()) return false;
    if (!thread_.joinable()) thread_ = quiet_thread([this] { watch(); });
    watched_.push_back(&exchange);
    exchange.deadline = deadline;
    exchange.cut = false;
    changed_.notify_one();
    return true;
  }

  void end(watched& exchange) {
    const std::lock_guard lock(mutex_);
    std::erase(watched_, &exchange);
  }

  void adopt(watched& exchange, socket_t socket) {
    const std::lock_guard lock(mutex_);
    exchange.socket = socket;
  }

  void release(watched& exchange) {
    const std::lock_guard lock(mutex_);
    exchange.socket = no_socket;
  }

  void cancel(watched& exchange) {
    const std::lock_guard lock(mutex_);
    exchange.cancelled = true;
    changed_.notify_one();
  }

  // Cancels whatever is in flight; true if nothing is. Waits for no lock.
  bool try_cancel_all() {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return false;
    for (watched* each : watched_) each->cancelled = true;
    changed_.notify_one();
    return watched_.empty();
  }

  // Which of the two ended the exchange, if any.
  std::optional<errc> reason(const watched& exchange) {
    const std::lock_guard lock(mutex_);
    if (exchange.cancelled) return errc::cancelled;
    if (exchange.cut) return errc::timed_out;
    return std::nullopt;
  }

 private:
  static constexpr duration cut_again = 5ms;

  void watch() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      const time_point now = std::chrono::steady_clock::now();
      time_point next = never;
      for (watched* each : watched_) {
        if (each->cancelled || each->deadline <= now) {
          each->cut = true;
          if (each->socket != no_socket) cut_socket(each->socket);
          next = std::min(next, now + cut_again);
        } else {
          next = std::min(next, each->deadline);
        }
      }
      if (next == never)
        changed_.wait(lock);
      else
        changed_.wait_until(lock, next);
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::vector<watched*> watched_;
  std::thread thread_;
};

inline void exit_watch::end_all() {
  if (process_ != process_id()) return;  // the exchanges are the parent's
  over_ = true;
  const time_point until = std::chrono::steady_clock::now() + end_max;
  const auto ended = [this] {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    return lock && std::count_if(dogs_.begin(), dogs_.end(),
                                 [](watchdog* dog) { return !dog->try_cancel_all(); }) == 0;
  };
  while (!ended() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(1ms);
}

// ---- names and addresses -----------------------------------------------------------------------

// How often what waits for a name or a connection looks whether it was given up.
inline constexpr std::chrono::milliseconds look_again = 5ms;

// Where a socket can connect to.
struct address {
  sockaddr_storage at = {};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&at); }
  std::string text() const {
    std::array<char, NI_MAXHOST> out{};
    ::getnameinfo(get(), size, out.data(), static_cast<socklen_t>(out.size()), nullptr, 0,
                  NI_NUMERICHOST);
    return out.data();
  }
};

inline std::vector<address> addresses_in(const addrinfo* found) {
  std::vector<address> out;
  for (; found; found = found->ai_next) {
    if (found->ai_addrlen > sizeof(sockaddr_storage)) continue;
    address& next = out.emplace_back();
    next.size = static_cast<socklen_t>(found->ai_addrlen);
    std::memcpy(&next.at, found->ai_addr, found->ai_addrlen);
  }
  return out;
}

// An address as bytes, 4 or 16 of them; nothing if `text` is a name.
inline std::vector<unsigned char> parse_ip(const std::string& text) {
  for (const auto& [family, size] : {std::pair{AF_INET, 4}, std::pair{AF_INET6, 16}}) {
    std::vector<unsigned char> out(static_cast<std::size_t>(size));
    if (::inet_pton(family, text.c_str(), out.data()) == 1) return out;
  }
  return {};
}

inline error no_such_name(const std::string& host, int code) {
#if defined(HUB_SESSION_WINDOWS)
  const std::string why = system_text(code);  // gai_strerror is wide where UNICODE is defined
#else
  const std::string why = ::gai_strerror(code);
#endif
  return {errc::not_reachable, "The name " + host + " cannot be found (" + why +
                                   "). Check the address and the network."};
}

#if defined(__GLIBC__)
struct name_lookup {
  std::string host;
  std::string port;
  addrinfo hints = {};
  gaicb query = {};
  name_lookup* next = nullptr;  // of those that were given up
  ~name_lookup() {
    if (query.ar_result) ::freeaddrinfo(query.ar_result);
  }
};

// Takes over a look-up that was given up. The resolver may still write to it, and does not say when
// it is done, so that the next one to come here looks; the last ones stay as long as the process.
inline void keep_until_done(name_lookup* given_up) {
  static std::mutex mutex;
  static name_lookup* kept = nullptr;
  const std::lock_guard lock(mutex);
  for (name_lookup** at = &kept; *at;) {
    if (::gai_error(&(*at)->query) == EAI_INPROGRESS)
      at = &(*at)->next;
    else
      delete std::exchange(*at, (*at)->next);
  }
  given_up->next = std::exchange(kept, given_up);
}

// Looks a name up without getting stuck in it: `given_up` is asked every few milliseconds.
inline result<std::vector<address>> look_up_name(const std::string& host, int port,
                                                 const std::function<bool()>& given_up) {
  auto asked = std::make_unique<name_lookup>();
  asked->host = host;
  asked->port = std::to_string(port);
  asked->hints.ai_socktype = SOCK_STREAM;
  asked->query.ar_name = asked->host.c_str();
  asked->query.ar_service = asked->port.c_str();
  asked->query.ar_request = &asked->hints;
  std::array<gaicb*, 1> queries = {&asked->query};
  if (const int failed = ::getaddrinfo_a(GAI_NOWAIT, queries.data(), 1, nullptr); failed != 0)
    return no_such_name(host, failed);
  while (::gai_error(&asked->query) == EAI_INPROGRESS) {
    if (given_up()) {
      if (::gai_cancel(&asked->query) != EAI_CANCELED) keep_until_done(asked.release());
      return error{errc::timed_out,
                   "The name " + host + " was not found in time. Check the network."};
    }
    const std::array<const gaicb*, 1> waiting = {&asked->query};
    const timespec pause = {0, std::chrono::nanoseconds(look_again).count()};
    ::gai_suspend(waiting.data(), 1, &pause);
  }
  if (const int failed = ::gai_error(&asked->query); failed != 0) return no_such_name(host, failed);
  return addresses_in(asked->query.ar_result);
}
#else
// Here nothing can cut a look-up short.
inline result<std::vector<address>> look_up_name(const std::string& host, int port,
                                                 const std::function<bool()>&) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failed != 0) return no_such_name(host, failed);
  auto out = addresses_in(found);
  ::freeaddrinfo(found);
  return out;
}
#endif

// The addresses of a name, or the one that `host` is.
inline result<std::vector<address>> look_up(const std::string& host, int port,
                                            const std::function<bool()>& given_up) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0)
    return look_up_name(host, port, given_up);
  auto out = addresses_in(found);
  ::freeaddrinfo(found);
  return out;
}

// The order in which to try a host's addresses: first the one that `worked`, then the families in
// turn, each in the system's order (RFC 8305, section 4).
inline std::vector<address> racing_order(std::vector<address> found, const std::string& worked) {
  std::vector<address> out;
  const auto take = [&](auto which) {
    out.push_back(*which);
    found.erase(which);
  };
  const auto known = std::find_if(found.begin(), found.end(),
                                  [&](const address& each) { return each.text() == worked; });
  if (known != found.end()) take(known);
  while (!found.empty()) {
    const auto other = std::find_if(found.begin(), found.end(), [&](const address& each) {
      return !out.empty() && each.at.ss_family != out.back().at.ss_family;
    });
    take(other == found.end() ? found.begin() : other);
  }
  return out;
}

// Connects to whichever of a host's addresses answers first (RFC 8305, "Happy Eyeballs"): if one
// says nothing for `stagger`, or refuses, the next is tried beside it.
class connection_race {
 public:
  connection_race(std::vector<address> order, duration stagger, duration each_max)
      : order_(std::move(order)), stagger_(stagger), each_max_(each_max) {}
  connection_race(const connection_race&) = delete;
  connection_race& operator=(const connection_race&) = delete;

  struct winner {
    owned_socket socket;  // connected, and does not block
    address at;
  };

  // Nothing if no address answers, or `given_up` says so; it is asked every few milliseconds.
  std::optional<winner> run(const std::function<bool()>& given_up) {
    while (!given_up()) {
      const time_point now = std::chrono::steady_clock::now();
      if (next_ < order_.size() && (runners_.empty() || now >= next_start_)) {
        start(order_[next_++], now);
      } else if (runners_.empty()) {
        return std::nullopt;
      } else if (auto first = look(now)) {
        return first;
      }
    }
    return std::nullopt;
  }

  // What the addresses said: "10.0.0.1 (Connection refused), ::1 (no answer in time)".
  const std::string& said() const { return said_; }
  // Whether there was one that said nothing at all.
  bool timed_out() const { return timed_out_; }

 private:
  struct runner {
    owned_socket socket;
    address at;
    time_point until;
  };

  void start(const address& at, time_point now) {
    owned_socket socket(open_socket(at.at.ss_family));
    if (socket.get() == no_socket) return note(at, system_text(last_socket_error()));
    next_start_ = later(now, stagger_);
    runners_.push_back({std::move(socket), at, later(now, each_max_)});
    if (::connect(runners_.back().socket.get(), at.get(), at.size) != 0 &&
        !is_passing(last_socket_error()))
      fail(runners_.size() - 1, system_text(last_socket_error()));
  }

  // Waits a moment, and tells the first that is connected.
  std::optional<winner> look(time_point now) {
    std::vector<polled_socket> polled;
    for (const runner& each : runners_) polled.push_back({each.socket.get(), writable, 0});
    const duration wait = next_ < order_.size() ? next_start_ - now : look_again;
    poll_sockets(polled, milliseconds_of(std::min<duration>(wait, look_again)));
    for (std::size_t i = runners_.size(); i-- > 0;) {
      // Asked of each: before Windows 10 of 2020, WSAPoll says nothing of a connection that failed.
      if (const int code = outcome_of(runners_[i].socket.get()); code != 0) {
        fail(i, system_text(code));
      } else if (polled[i].revents != 0) {
        winner first{std::move(runners_[i].socket), runners_[i].at};
        runners_.erase(runners_.begin() + static_cast<std::ptrdiff_t>(i));
        return first;
      } else if (now >= runners_[i].until) {
        timed_out_ = true;
        fail(i, "no answer in time");
      }
    }
    return std::nullopt;
  }

  static int outcome_of(socket_t socket) {
    int code = 0;
    socklen_t size = sizeof code;
    // Windows has the value as characters.
    ::getsockopt(socket, SOL_SOCKET, SO_ERROR, reinterpret_cast<char*>(&code), &size);
    return code;
  }

  // It has lost, so that nothing is gained by waiting before the next one starts.
  void fail(std::size_t which, const std::string& why) {
    note(runners_[which].at, why);
    runners_.erase(runners_.begin() + static_cast<std::ptrdiff_t>(which));
    next_start_ = time_point{};
  }

  void note(const address& at, const std::string& why) {
    said_ += (said_.empty() ? "" : ", ") + at.text() + " (" + why + ")";
  }

  std::vector<address> order_;
  duration stagger_;
  duration each_max_;
  std::size_t next_ = 0;  // of order_
  time_point next_start_ = {};
  std::vector<runner> runners_;
  std::string said_;
  bool timed_out_ = false;
};

// ---- proxies -----------------------------------------------------------------------------------

// Whether `to` is in `entry`: an address, or a network such as 10.0.0.0/8 or fd00::/8. No more than
// the address itself is in a network of 0 bits, as curl has it.
inline bool is_in_network(std::span<const unsigned char> to, std::string_view entry) {
  const std::size_t slash = std::min(entry.find('/'), entry.size());
  std::string network(entry.substr(0, slash));
  if (network.starts_with('[') && network.ends_with(']'))
    network = network.substr(1, network.size() - 2);
  const std::vector<unsigned char> at = parse_ip(network);
  if (at.size() != to.size()) return false;
  std::uint64_t bits = 8 * at.size();
  if (slash < entry.size()) {
    const auto given = text::parse_size(entry.substr(slash + 1));
    if (!given || *given > bits) return false;
    if (*given > 0) bits = *given;
  }
  for (std::size_t i = 0; i < at.size() && bits > 0; ++i) {
    const std::uint64_t here = std::min<std::uint64_t>(bits, 8);
    if (((at[i] ^ to[i]) >> (8 - here)) != 0) return false;
    bits -= here;
  }
  return true;
}

// Whether `host` is `entry` or in that domain; a dot in front of the entry and behind either counts
// for nothing.
inline bool is_in_domain(std::string_view host, std::string_view entry) {
  if (host.ends_with('.')) host.remove_suffix(1);
  if (entry.ends_with('.')) entry.remove_suffix(1);
  while (entry.starts_with('.')) entry.remove_prefix(1);
  if (entry.empty() || !host.ends_with(entry)) return false;
  return host.size() == entry.size() || host[host.size() - entry.size() - 1] == '.';
}

// Takes the port off an entry such as host:443 or [::1]:443; 0 if there is none.
inline int take_port(std::string_view& entry) {
  const std::size_t colon = entry.rfind(':');
  if (colon == std::string_view::npos) return 0;
  const bool of_name = entry.find(':') == colon;
  const bool bracketed = colon > 0 && entry[colon - 1] == ']';
  const auto port = of_name || bracketed ? text::parse_port(entry.substr(colon + 1)) : std::nullopt;
  if (port) entry = entry.substr(0, colon);
  return port.value_or(0);
}

// Whether NO_PROXY names the address: "*" alone, or a list of hosts, domains, addresses and networks,
// each with a port or without, between commas and blanks. What curl or Python takes is taken here.
inline bool bypasses_proxy(const text::url& to, std::string_view no_proxy) {
  if (no_proxy == "*") return true;
  const std::string list = text::lowered(no_proxy);
  const std::string host = text::lowered(to.host);
  const std::vector<unsigned char> ip = parse_ip(host);
  for (std::size_t begin = 0; begin < list.size();) {
    const std::size_t end = std::min(list.find_first_of(", \t", begin), list.size());
    std::string_view entry = std::string_view(list).substr(begin, end - begin);
    begin = end + 1;
    const int port = take_port(entry);
    if (port != 0 && port != to.port) continue;
    if (ip.empty() ? is_in_domain(host, entry) : is_in_network(ip, entry)) return true;
  }
  return false;
}

// http://[user:password@]host:port
struct proxy_address {
  text::url at = {};
  std::string login = {};  // "user:password", "" if none is given
  std::string named_by = {};

  std::string place() const { return at.authority(); }
  // For messages: what it is, and where it was named.
  std::string description() const { return "The proxy " + place() + " (from " + named_by + ")"; }
};

// Reads a proxy's address as curl does. `named_by` is the variable or option that holds it.
inline result<proxy_address> parse_proxy(std::string_view text, std::string_view named_by) {
  const auto refuse = [&](std::string_view why) {
    return error{errc::invalid_endpoint, "The proxy in " + std::string(named_by) +
                                             " cannot be used: " + std::string(why) +
                                             ". Give it as http://[user:password@]host:port, or "
                                             "exempt the host in no_proxy."};
  };
  proxy_address out;
  out.named_by = named_by;
  if (const std::size_t mark = text.find("://"); mark != std::string_view::npos) {
    const std::string scheme = text::lowered(text.substr(0, mark));
    if (scheme != "http")
      return refuse("'" + text::printable(scheme) + "://' is not supported, only http:// is");
    text.remove_prefix(mark + 3);
  }
  text = text.substr(0, text.find_first_of("/?#"));
  if (const std::size_t mark = text.rfind('@'); mark != std::string_view::npos) {
    const std::string_view login = text.substr(0, mark);
    const std::size_t colon = std::min(login.find(':'), login.size());
    out.login = text::percent_decoded(login.substr(0, colon)) + ':' +
                text::percent_decoded(login.substr(std::min(colon + 1, login.size())));
    text.remove_prefix(mark + 1);
  }
  auto at = text::parse_url("http://" + std::string(text));
  if (!at) return refuse("its host or port is missing or not valid");
  out.at = *std::move(at);
  return out;
}

// The proxies that the environment names, under the names that curl reads. HTTP_PROXY in capitals is
// not among them: a web server sets it from a request's header.
class proxies_of_environment {
 public:
  // Which of them is for this address; none where its value is empty.
  result<std::optional<proxy_address>> find(const text::url& to) const {
    const variable& own = to.tls ? https_ : http_;
    const variable& named = own.value.empty() ? all_ : own;
    if (named.value.empty() || bypasses_proxy(to, except_.value))
      return std::optional<proxy_address>();
    auto read = parse_proxy(named.value, named.name);
    if (!read) return read.error();
    return std::optional(*std::move(read));
  }

 private:
  struct variable {
    std::string name;
    std::string value;
  };
  static variable first_of(std::initializer_list<const char*> names) {
    for (const char* name : names)
      if (std::string value = machine::env(name); !value.empty()) return {name, std::move(value)};
    return {};
  }

  variable http_ = first_of({"http_proxy"});
  variable https_ = first_of({"https_proxy", "HTTPS_PROXY"});
  variable all_ = first_of({"all_proxy", "ALL_PROXY"});
  variable except_ = first_of({"no_proxy", "NO_PROXY"});
};

}  // namespace detail

struct httplib_options {
  // PEM. As curl's --cacert, it takes the place of the certificates that the system trusts, for every
  // host: if downloads come from a public storage host, it has to vouch for that one too.
  std::string ca_file = {};
  // PEM files of a certificate that is shown to HUB alone, if it asks for one, never to a storage
  // host. Without a file for the key, it is in the certificate's.
  std::string client_certificate_file = {};
  std::string client_key_file = {};
  std::string client_key_password = {};
  // http://[user:password@]host:port; "" for none; else what https_proxy, http_proxy, all_proxy and
  // no_proxy said when the transport was made.
  std::optional<std::string> proxy = {};
  duration idle_max = 4s;    // a connection unused for longer is closed, not used again
  duration stagger = 250ms;  // until a host's next address is tried beside one that is silent
  std::size_t piece_bytes = mebibyte;                // of a body that is read piece by piece
  std::size_t reply_head_bytes_max = 64 * kibibyte;  // a reply with longer headers fails
};

namespace detail {

// ---- connections -------------------------------------------------------------------------------

#if !defined(HUB_SESSION_NO_OPENSSL)
struct free_tls {
  void operator()(SSL* connection) const { SSL_free(connection); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};

// What OpenSSL says of the last failure on this thread.
inline std::string tls_text() {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = ERR_reason_error_string(code);
  return reason ? reason : "the connection was closed";
}

// Where the system has the certificates that it trusts. OpenSSL would look the variables up by itself,
// on the thread that connects first.
struct trusted_places {
  std::string file = variable_or(X509_get_default_cert_file_env(), X509_get_default_cert_file());
  std::string folder = variable_or(X509_get_default_cert_dir_env(), X509_get_default_cert_dir());

 private:
  static std::string variable_or(const char* name, const char* usual) {
    std::string value = machine::env(name);
    return value.empty() ? usual : value;
  }
};

// What all TLS connections of a transport have in common: TLS 1.2 at least, and whom to trust.
inline result<std::shared_ptr<SSL_CTX>> make_tls_context(const httplib_options& options,
                                                         const trusted_places& of_system) {
  ERR_clear_error();
  std::shared_ptr<SSL_CTX> out(SSL_CTX_new(TLS_client_method()), free_tls());
  if (!out) return error{errc::internal_error, "OpenSSL cannot be used: " + tls_text() + "."};
  SSL_CTX_set_min_proto_version(out.get(), TLS1_2_VERSION);
  SSL_CTX_set_verify(out.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(out.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (!options.ca_file.empty()) {
    if (SSL_CTX_load_verify_locations(out.get(), options.ca_file.c_str(), nullptr) != 1)
      return error{errc::tls_failed, "The file " + text::shown(options.ca_file) +
                                         " of httplib_options::ca_file holds no certificates that "
                                         "can be read (" +
                                         tls_text() + "). Name a PEM file."};
    return out;
  }
#if defined(HUB_SESSION_WINDOWS) && OPENSSL_VERSION_NUMBER >= 0x30200000L
  SSL_CTX_load_verify_store(out.get(), "org.openssl.winstore://");
#endif
  // One of the two is missing on many a system.
  SSL_CTX_load_verify_locations(out.get(), of_system.file.c_str(), nullptr);
  SSL_CTX_load_verify_locations(out.get(), nullptr, of_system.folder.c_str());
  ERR_clear_error();
  return out;
}

// Lets a connection show the client certificate of the options, if there is one.
inline std::optional<error> use_client_certificate(SSL* tls, const httplib_options& options) {
  const std::string& certificate = options.client_certificate_file;
  if (certificate.empty()) return std::nullopt;
  const std::string& key = options.client_key_file.empty() ? certificate : options.client_key_file;
  const auto refuse = [](const std::string& file, std::string_view missing) {
    return error{errc::invalid_credentials,
                 "The file " + text::shown(file) + " of httplib_options holds no " +
                     std::string(missing) + " that can be used (" + tls_text() + ")."};
  };
  // OpenSSL's own function would ask for the password on the terminal.
  const auto password = [](char* out, int size, int, void* given) {
    const auto& text = *static_cast<const std::string*>(given);
    if (text.size() > static_cast<std::size_t>(size)) return -1;
    return static_cast<int>(text.copy(out, text.size()));
  };
  SSL_set_default_passwd_cb(tls, password);
  SSL_set_default_passwd_cb_userdata(tls, const_cast<std::string*>(&options.client_key_password));
  if (SSL_use_certificate_chain_file(tls, certificate.c_str()) != 1)
    return refuse(certificate, "client certificate");
  if (SSL_use_PrivateKey_file(tls, key.c_str(), SSL_FILETYPE_PEM) != 1)
    return refuse(key, "key of the client certificate");
  return std::nullopt;
}

#endif

// One connection, and what httplib reads and writes through. Nothing in it blocks for longer than it
// was told, and a reply that comes before the whole request is sent is heard.
class connection final : public httplib::Stream {
 public:
  connection(owned_socket socket, std::size_t head_bytes_max)
      : socket_(std::move(socket)), head_bytes_max_(head_bytes_max) {
    const int at_once = 1;
    ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, reinterpret_cast<const char*>(&at_once),
                 sizeof at_once);
  }
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
#if !defined(HUB_SESSION_NO_OPENSSL)
  ~connection() {  // NOLINT(modernize-use-override): as what httplib calls below
    if (tls_ && fault_.empty()) SSL_shutdown(tls_.get());  // says goodbye, and waits for no answer
    ERR_clear_error();
  }
#endif

  // Before each exchange: how long it may go without a byte going out or coming in.
  void begin(hub::duration stall_max) {
    stall_max_ = stall_max;
    hears_ = true;
    head_whole_ = cut_short_ = body_failed_ = false;
    location_.clear();
    last_bytes_.clear();
  }

#if !defined(HUB_SESSION_NO_OPENSSL)
  // Speaks TLS from here on, to whoever has a certificate for `host`. False if that fails.
  bool begin_tls(std::unique_ptr<SSL, free_tls> tls, const std::string& host) {
    ERR_clear_error();
    tls_ = std::move(tls);
    at_ = end_ = 0;
    // The dot at the end of a full name is in no certificate.
    const std::string name = host.ends_with('.') ? host.substr(0, host.size() - 1) : host;
    X509_VERIFY_PARAM* const wanted = SSL_get0_param(tls_.get());
    if (!parse_ip(name).empty()) {
      X509_VERIFY_PARAM_set1_ip_asc(wanted, name.c_str());
    } else {
      X509_VERIFY_PARAM_set1_host(wanted, name.c_str(), name.size());
      SSL_set_tlsext_host_name(tls_.get(), name.c_str());
    }
    SSL_set_fd(tls_.get(), socket_.get());
    for (;;) {
      const int done = SSL_connect(tls_.get());
      if (done == 1) return true;
      const bool goes_on = would_block(done);
      if (!goes_on) note_fault(tls_text());
      if (!goes_on || !wait(wanted_)) return false;
    }
  }

  // What was wrong with the certificate; X509_V_OK if that was not the trouble.
  long verified() const { return SSL_get_verify_result(tls_.get()); }
#endif

  // Whether another request may go out: nothing was closed, and nothing came that nobody asked for.
  bool is_idle() { return !take_more() && !ended_ && fault_.empty() && waiting().empty(); }

  // Reads up to the end of a reply's head, and tells its status; 0 if it does not come.
  int receive_head() {
    while (head_end() == 0 && !ended_ && !in_failed_ && waiting().size() <= head_bytes_max_)
      if (!take_more() && !ended_ && !in_failed_ && !wait(wanted_)) break;
    head_whole_ = true;  // or as much of it as there is
    head_too_long_ = head_end() == 0 && waiting().size() > head_bytes_max_;
    shorten_first_line();
    find_location();
    return head_end() == 0 ? 0 : status_of(waiting());
  }

  // The rest of the request cannot be sent, so that no reply is waited for, as httplib 0.53 would.
  void give_body_up() { body_failed_ = true; }

  bool head_is_too_long() const { return head_too_long_; }
  // Whether the rest of the request was not sent: the host answered before, or is gone.
  bool was_cut_short() const { return cut_short_; }
  // The header as it came: httplib 0.11.4 undoes its escapes.
  const std::string& location() const { return location_; }
  // Whether a body in chunks ended as it has to; httplib also takes some that break off.
  bool chunks_ended() const { return last_bytes_ == "\n\r\n"; }
  bool stalled() const { return stalled_; }
  const std::string& fault() const { return fault_; }  // "" if the connection did not break

  // What httplib calls. What is virtual differs between its versions.
  // NOLINTBEGIN(modernize-use-override)
  bool is_readable() const { return true; }
  bool is_writable() const { return true; }
  bool wait_readable() const { return true; }
  bool wait_writable() const { return true; }
  time_t duration() const { return 0; }
  void get_remote_ip_and_port(std::string&, int&) const {}
  void get_local_ip_and_port(std::string&, int&) const {}
  socket_t socket() const { return socket_.get(); }

  ssize_t read(char* out, std::size_t room) {
    if (body_failed_) return -1;
    if (!head_whole_) receive_head();
    if (head_too_long_) return -1;
    while (waiting().empty()) {
      if (ended_) return 0;
      if (in_failed_ || (!take_more() && !ended_ && !in_failed_ && !wait(wanted_))) return -1;
    }
    const std::string_view piece = waiting().substr(0, room);
    piece.copy(out, piece.size());
    at_ += piece.size();
    last_bytes_ += piece.substr(piece.size() - std::min<std::size_t>(piece.size(), 3));
    if (last_bytes_.size() > 3) last_bytes_.erase(0, last_bytes_.size() - 3);
    return static_cast<ssize_t>(piece.size());
  }

  // If the host answers meanwhile, or is gone, the rest counts as written, so that httplib goes on
  // to the reply: only that can say why.
  ssize_t write(const char* data, std::size_t size) {
    listen();
    for (std::size_t done = 0; done < size && !cut_short_;) {
      const std::size_t count = put(data + done, size - done);
      done += count;
      if (count == 0 && !out_failed_) {
        if (!wait(hears_ ? wanted_ | readable : wanted_)) return -1;
        listen();
      }
      if (ended_ || in_failed_ || out_failed_) cut_short_ = true;
    }
    return static_cast<ssize_t>(size);
  }
  // NOLINTEND(modernize-use-override)

 private:
  static constexpr std::size_t piece_bytes = 64 * kibibyte;
  static constexpr std::size_t line_bytes_max = 200;

  std::string_view waiting() const { return {room_.data() + at_, end_ - at_}; }

  void note_fault(std::string fault) {
    if (fault_.empty()) fault_ = std::move(fault);
  }
  // What came in says why; that nothing more goes out, which may be noticed before, does not.
  void note_last_word(std::string fault) { fault_ = std::move(fault); }

  // Waits for what the last try wanted. False if nothing came for too long.
  bool wait(int events) {
    std::array<polled_socket, 1> polled = {{{socket_.get(), static_cast<short>(events), 0}}};
    const time_point until = later(std::chrono::steady_clock::now(), stall_max_);
    for (;;) {
      const hub::duration left = until - std::chrono::steady_clock::now();
      const int ready = poll_sockets(polled, milliseconds_of(std::min(left, poll_max)));
      if (ready > 0 || is_cut_unheard(socket_.get())) return true;
      if (ready < 0 && !is_passing(last_socket_error())) return false;
      stalled_ = stalled_ || (ready == 0 && left <= poll_max);
      if (stalled_) return false;
    }
  }

#if !defined(HUB_SESSION_NO_OPENSSL)
  // Whether an operation of OpenSSL that did not succeed is to be tried again, and when.
  bool would_block(int returned) {
    const int code = SSL_get_error(tls_.get(), returned);
    wanted_ = code == SSL_ERROR_WANT_WRITE ? writable : readable;
    return code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE;
  }

  std::ptrdiff_t take_secured(char* to) {
    ERR_clear_error();
    const int got = SSL_read(tls_.get(), to, static_cast<int>(piece_bytes));
    ended_ = got <= 0 && SSL_get_error(tls_.get(), got) == SSL_ERROR_ZERO_RETURN;
    in_failed_ = got <= 0 && !ended_ && !would_block(got);
    if (in_failed_) note_last_word(tls_text());
    return got;
  }

  std::size_t put_secured(const char* data, std::size_t size) {
    ERR_clear_error();
    const std::size_t most = std::min<std::size_t>(size, std::numeric_limits<int>::max());
    const int sent = SSL_write(tls_.get(), data, static_cast<int>(most));
    if (sent > 0) return static_cast<std::size_t>(sent);
    out_failed_ = !would_block(sent);
    if (out_failed_) note_fault(tls_text());
    return 0;
  }
#endif

  std::ptrdiff_t take_plain(char* to) {
    const std::ptrdiff_t got = ::recv(socket_.get(), to, piece_bytes, 0);
    ended_ = got == 0;
    in_failed_ = got < 0 && !is_passing(last_socket_error());
    if (in_failed_) note_last_word(system_text(last_socket_error()));
    wanted_ = readable;
    return got;
  }

  std::size_t put_plain(const char* data, std::size_t size) {
    const auto sent = send_some(socket_.get(), data, size);
    if (sent > 0) return static_cast<std::size_t>(sent);
    out_failed_ = !is_passing(last_socket_error());
    if (out_failed_) note_fault(system_text(last_socket_error()));
    wanted_ = writable;
    return 0;
  }

  // Takes what has come, without waiting for it. True if there was something.
  bool take_more() {
    if (ended_ || in_failed_) return false;
    if (at_ == end_) at_ = end_ = 0;
    if (room_.size() < end_ + piece_bytes) room_.resize(end_ + piece_bytes);
    char* const to = room_.data() + end_;
#if defined(HUB_SESSION_NO_OPENSSL)
    const std::ptrdiff_t got = take_plain(to);
#else
    const std::ptrdiff_t got = tls_ ? take_secured(to) : take_plain(to);
#endif
    if (got > 0) end_ += static_cast<std::size_t>(got);
    return got > 0;
  }

  // Sends what goes out without waiting, and tells how much.
  std::size_t put(const char* data, std::size_t size) {
#if !defined(HUB_SESSION_NO_OPENSSL)
    if (tls_) return put_secured(data, size);
#endif
    return put_plain(data, size);
  }

  // Hears a reply that comes while the request still goes out. A refusal ends it; anything else, such
  // as an interim reply or the success of a server that is ahead of itself, does not.
  void listen() {
    while (hears_ && take_more()) {
      const bool whole = head_end() != 0;
      if (whole && status_of(waiting()) >= 300) cut_short_ = true;
      hears_ = !whole && waiting().size() <= head_bytes_max_;
    }
  }

  static int status_of(std::string_view head) {
    constexpr std::string_view version = "HTTP/1.1 ";
    int status = 0;
    if (head.starts_with("HTTP/") && head.size() > version.size() + 3)
      std::from_chars(head.data() + version.size(), head.data() + version.size() + 3, status);
    return status;
  }

  // Behind the head of the final reply, counted from what is waiting; 0 if it is not whole yet.
  // Interim replies are dropped: httplib knows but one of them.
  std::size_t head_end() {
    for (;;) {
      const std::size_t line = waiting().find("\n\r\n");
      if (line == std::string_view::npos) return 0;
      const int status = status_of(waiting());
      if (status < 100 || status >= 200 || status == 101) return line + 3;
      at_ += line + 3;
    }
  }

  // httplib 0.11.4 reads the status line with std::regex, whose stack a long one overflows. What
  // stands behind the status has no meaning.
  void shorten_first_line() {
    const std::size_t line = std::min(waiting().find_first_of("\r\n"), waiting().size());
    if (line <= line_bytes_max) return;
    const auto begin = room_.begin() + static_cast<std::ptrdiff_t>(at_);
    const auto rest = begin + static_cast<std::ptrdiff_t>(line);
    const auto end = room_.begin() + static_cast<std::ptrdiff_t>(end_);
    std::move(rest, end, begin + static_cast<std::ptrdiff_t>(line_bytes_max));
    end_ -= line - line_bytes_max;
  }

  void find_location() {
    constexpr std::string_view name = "location:";
    std::string_view head = waiting().substr(0, head_end());
    while (!head.empty() && location_.empty()) {
      const std::string_view line = head.substr(0, head.find('\n'));
      if (text::lowered(line.substr(0, name.size())) == name)
        location_ = text::trimmed(line.substr(name.size()));
      head.remove_prefix(std::min(line.size() + 1, head.size()));
    }
  }

  owned_socket socket_;
  std::size_t head_bytes_max_;
#if !defined(HUB_SESSION_NO_OPENSSL)
  std::unique_ptr<SSL, free_tls> tls_;
#endif
  hub::duration stall_max_ = 2min;
  int wanted_ = readable;  // by the last try that would have had to wait

  std::vector<char> room_;  // what came and was not read yet is in [at_, end_)
  std::size_t at_ = 0;
  std::size_t end_ = 0;
  std::string last_bytes_;  // that were read
  std::string location_;

  bool hears_ = true;  // whether what comes while the request goes out is of interest
  bool cut_short_ = false;
  bool body_failed_ = false;
  bool head_whole_ = false;
  bool head_too_long_ = false;
  bool ended_ = false;  // the host says that no more will come
  bool in_failed_ = false;
  bool out_failed_ = false;
  bool stalled_ = false;
  std::string fault_;
};

}  // namespace detail

// Sends over cpp-httplib and OpenSSL: 0.11.4 as Debian splits it, or upstream's single header. What
// goes over a connection is httplib's; the connections are our own, so that a host's addresses are
// raced, a refusal is heard in the middle of an upload, and no exchange outlives its deadline.
//
// Certificates and host names are always checked, TLS is 1.2 at least, redirects are never followed,
// a reply is never decompressed and never longer than asked for. Plain HTTP is spoken only to an
// http:// address. Once the program has called std::exit, exchanges are cut and none begins.
//
// What the environment says of proxies and of certificates is read when a transport is made, and kept by
// its copies.
class httplib_transport {
 public:
  explicit httplib_transport(httplib_options options = {})
      : shared_(std::make_shared<shared>(std::move(options))) {}
  httplib_transport(const httplib_transport& other) : shared_(other.shared_) {}
  httplib_transport& operator=(const httplib_transport&) = delete;
  ~httplib_transport() {
    if (shared_->process == machine::process_id()) {
      const detail::sigpipe_guard no_sigpipe;  // TLS says goodbye
      disconnect();
      return;
    }
    // A forked child must neither close the parent's TLS session nor join its threads.
    static_cast<void>(link_.release());
    static_cast<void>(new (std::nothrow) std::shared_ptr<shared>(std::move(shared_)));
  }

  // Blocks until the reply is whole, has failed, or is past the request's deadline. One at a time.
  reply send(const request& message) {
    const time_point deadline = later(now(), message.deadline);
    const auto to = text::parse_target(message.url);
    if (!to) return {.failure = to.error()};
#if defined(HUB_SESSION_NO_OPENSSL)
    if (auto why = needs_tls(*to)) return {.failure = *std::move(why)};
#endif
    if (message.deadline <= duration::zero()) return {.failure = timed_out_error(*to)};
    if (!shared_->dog.begin(watched_, deadline))
      return {.failure = error{errc::cancelled, "The request was given up."}};
    const detail::sigpipe_guard no_sigpipe;
    struct ending {
      httplib_transport& self;
      bool is_whole = false;
      // Also where memory ran out: what is left on this connection then belongs to nobody.
      ~ending() {
        if (!is_whole) self.disconnect();
        self.shared_->dog.end(self.watched_);
      }
    } ending{*this};
    reply answer = exchange(message, *to, deadline);
    ending.is_whole = !answer.failure;
    return answer;
  }

  // The request in flight and every later one on this copy fail within milliseconds.
  void cancel() noexcept { shared_->dog.cancel(watched_); }

 private:
  // What the copies share: options, the one thread that cuts sockets, and what connections learnt.
  struct shared {
    explicit shared(httplib_options given) : options(std::move(given)) {
#if !defined(HUB_SESSION_NO_OPENSSL)
      OPENSSL_init_ssl(0, nullptr);  // which reads the environment as well
#endif
    }

    const httplib_options options;
    const detail::proxies_of_environment proxies;
#if !defined(HUB_SESSION_NO_OPENSSL)
    const detail::trusted_places trusted;
    std::shared_ptr<SSL_CTX> tls;  // guarded by the mutex below
#endif
    detail::watchdog dog;
    const int process = machine::process_id();
    std::mutex mutex;                           // of what follows
    std::map<std::string, std::string> worked;  // the address that answered last, by host and port
  };

  // httplib's own code for one request and its reply, on a connection that it need not make.
  struct messages : httplib::ClientImpl {
    messages() : ClientImpl("localhost") {
      set_decompress(false);
      leave_paths_alone(*this);
    }
    using ClientImpl::process_request;
  };

  // A body on its way to a sink.
  struct sink_progress {
    bool wanted = false;  // it is a 2xx's, and there is a sink
    std::optional<error> failure;
  };

  static constexpr std::size_t hosts_remembered_max = 64;

  static time_point now() { return std::chrono::steady_clock::now(); }
  const httplib_options& options() const { return shared_->options; }

  reply exchange(const request& message, const text::url& to, time_point deadline) {
    if (auto why = connect_to(to, message)) return {.failure = explained(*why, to, deadline)};
    link_->begin(message.stall_timeout);
    reply answer;
    std::optional<error> unsent;
    sink_progress sinking;
    httplib::Request sent = to_httplib(message, to, unsent);
    receive_into(answer, sent, message, sinking);
    httplib::Response received;
    httplib::Error failed = httplib::Error::Success;
    const bool whole = messages_.process_request(*link_, sent, received, false, failed) &&
                       !shared_->dog.reason(watched_);  // a cut looks like the end of a body
    last_used_ = now();
    if (whole) detail::exit_watch::after_exchange();
    take_head(answer, received, link_->location());
    if (auto why = failure_of(message, to, whole, failed, answer))
      return {.failure = unsent            ? *unsent
                         : sinking.failure ? *sinking.failure
                                           : explained(*why, to, deadline)};
    if (proxy_ && !to.tls) answer.proxy = proxy_->place();
    if (link_->was_cut_short() || !is_kept(received)) disconnect();
    return answer;
  }

  // A connection of its own for each host, one that idled only if it still stands.
  std::optional<error> connect_to(const text::url& to, const request& message) {
    const std::string wanted =
        to.origin() + (message.show_client_certificate ? " with certificate" : "");
    const bool usable = link_ && wanted == connected_to_ && now() - last_used_ < options().idle_max;
    if (usable && link_->is_idle()) return std::nullopt;
    disconnect();
    auto proxy = find_proxy(to);
    if (!proxy) return proxy.error();
    proxy_ = *std::move(proxy);
    if (auto why = open_link(proxy_ ? proxy_->at : to, message)) return why;
    if (proxy_ && to.tls)
      if (auto why = tunnel_to(to, message)) return why;
#if !defined(HUB_SESSION_NO_OPENSSL)
    if (to.tls)
      if (auto why = begin_tls(to, message)) return why;
#endif
    connected_to_ = wanted;
    return std::nullopt;
  }

  result<std::optional<detail::proxy_address>> find_proxy(const text::url& to) const {
    if (!options().proxy) return shared_->proxies.find(to);
    if (options().proxy->empty()) return std::optional<detail::proxy_address>();
    auto read = detail::parse_proxy(*options().proxy, "httplib_options::proxy");
    if (!read) return read.error();
    return std::optional(*std::move(read));
  }

  std::optional<error> open_link(const text::url& to, const request& message) {
    const auto given_up = [this] { return shared_->dog.reason(watched_).has_value(); };
    const time_point until = later(now(), message.connect_timeout);
    auto found = detail::look_up(to.host, to.port, [&] { return now() >= until || given_up(); });
    if (!found) return found.error();
    detail::connection_race race(detail::racing_order(*std::move(found), known_address(to)),
                                 options().stagger, message.connect_timeout);
    auto first = race.run(given_up);
    if (!first)
      return error{race.timed_out() ? errc::timed_out : errc::not_reachable,
                   whom(to) + " cannot be reached: " + race.said() + check_address};
    remember(to, first->at.text());
    const socket_t socket = first->socket.get();
    link_ = std::make_unique<detail::connection>(std::move(first->socket),
                                                 options().reply_head_bytes_max);
    shared_->dog.adopt(watched_, socket);
    return std::nullopt;
  }

  std::string known_address(const text::url& to) const {
    const std::lock_guard lock(shared_->mutex);
    const auto found = shared_->worked.find(to.place());
    return found == shared_->worked.end() ? std::string() : found->second;
  }

  void remember(const text::url& to, std::string address) const {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->worked.size() >= hosts_remembered_max) shared_->worked.clear();
    shared_->worked.insert_or_assign(to.place(), std::move(address));
  }

  // Asks the proxy for a connection to the host, through which TLS then goes.
  std::optional<error> tunnel_to(const text::url& to, const request& message) {
    std::string head = "CONNECT " + to.place() + " HTTP/1.1\r\nHost: " + to.place() + "\r\n";
    if (!proxy_->login.empty())
      head += "Proxy-Authorization: " + text::basic_authorization(proxy_->login) + "\r\n";
    head += "\r\n";
    link_->begin(message.connect_timeout);
    link_->write(head.data(), head.size());
    const int status = link_->receive_head();
    if (status >= 200 && status < 300) return std::nullopt;
    return refusal_of_proxy(status, to);
  }

  error refusal_of_proxy(int status, const text::url& to) const {
    const std::string who = proxy_->description();
    const std::string answer = who + " answered " + std::to_string(status) + " for " + to.place();
    if (status == 0)
      return {link_->stalled() ? errc::timed_out : errc::not_reachable,
              who + " did not answer as a proxy does. Check the proxy and its address."};
    if (status == 407)
      return {
          errc::access_denied,
          answer +
              (proxy_->login.empty() ? ": it wants a user name and a password"
                                     : ": it does not accept the user name and password") +
              ". Give them as http://user:password@host:port, with %XX for what is no letter or "
              "digit."};
    if (status == 429) return {errc::rate_limited, answer + ". It wants fewer requests."};
    if (status >= 500)
      return {errc::not_reachable,
              answer + ": it cannot reach it. Check the proxy, the address and the network."};
    return {errc::access_denied,
            answer +
                ": it does not let this through. Ask whoever runs the proxy, or exempt the host "
                "in no_proxy."};
  }

#if defined(HUB_SESSION_NO_OPENSSL)
  // What cannot be done without TLS, if this request asks for it.
  std::optional<error> needs_tls(const text::url& to) const {
    constexpr const char* why =
        ", which this program does not speak: it was compiled with HUB_SESSION_NO_OPENSSL. ";
    if (to.tls)
      return error{errc::invalid_endpoint, "The address " + to.origin() + " asks for TLS" + why +
                                               "Use an http:// address, or compile without it."};
    for (const auto& [name, value] :
         {std::pair("ca_file", &options().ca_file),
          std::pair("client_certificate_file", &options().client_certificate_file),
          std::pair("client_key_file", &options().client_key_file)})
      if (!value->empty())
        return error{errc::invalid_credentials, "httplib_options::" + std::string(name) +
                                                    " is for TLS" + why +
                                                    "Leave it empty, or compile without it."};
    return std::nullopt;
  }
#else
  std::optional<error> begin_tls(const text::url& to, const request& message) {
    std::shared_ptr<SSL_CTX> context;
    {
      const std::lock_guard lock(shared_->mutex);
      if (!shared_->tls) {
        auto made = detail::make_tls_context(options(), shared_->trusted);
        if (!made) return made.error();
        shared_->tls = *std::move(made);
      }
      context = shared_->tls;
    }
    std::unique_ptr<SSL, detail::free_tls> tls(SSL_new(context.get()));
    if (!tls) return error{errc::internal_error, "OpenSSL is out of memory."};
    if (message.show_client_certificate)
      if (auto why = detail::use_client_certificate(tls.get(), options())) return why;
    link_->begin(message.connect_timeout);
    if (link_->begin_tls(std::move(tls), to.host)) return std::nullopt;
    return tls_failure(to);
  }

  error tls_failure(const text::url& to) const {
    if (link_->stalled())
      return {errc::timed_out,
              whom(to) + " did not finish the TLS handshake in time" + check_address};
    const long verified = link_->verified();
    if (verified == X509_V_OK)
      return {errc::tls_failed, "No TLS connection to " + whom(to) + " (" + link_->fault() +
                                    "). Check the address, and that TLS is spoken there."};
    const std::string own = options().ca_file;
    return {
        errc::tls_failed,
        "The certificate of " + whom(to) + " cannot be trusted (" +
            X509_verify_cert_error_string(verified) + "). " +
            (own.empty() ? "Check the address; where an authority of your own vouches for it, name "
                           "its file in httplib_options::ca_file."
                         : "Check the address. Only what " + text::shown(own) +
                               ", the file of httplib_options::ca_file, vouches for is trusted, in "
                               "place of the system's certificates.")};
  }
#endif

  void disconnect() {
    shared_->dog.release(watched_);
    link_.reset();
  }

  // A signed URL is valid only byte for byte. Newer versions of httplib have another name for it.
  template <class Client>
  static void leave_paths_alone(Client& client) {
    if constexpr (requires { client.set_path_encode(false); })
      client.set_path_encode(false);
    else
      client.set_url_encode(false);
  }

  httplib::Request to_httplib(const request& message, const text::url& to,
                              std::optional<error>& unsent) const {
    httplib::Request out;
    out.method = message.method;
    out.path = to.path.empty() ? "/" : to.path;
    out.headers.emplace("host", to.authority());
    out.headers.emplace("accept-encoding", "identity");
    for (const auto& [name, value] : message.headers) out.headers.emplace(name, value);
    if (proxy_ && !to.tls) {
      out.path = to.origin() + out.path;
      if (!proxy_->login.empty())
        out.headers.emplace("proxy-authorization", text::basic_authorization(proxy_->login));
    }
    if (!message.content) {
      out.body = message.body;
      return out;
    }
    // httplib calls the provider until so much is written. One byte is enough for it to call once.
    const std::uint64_t size = message.content->size_bytes();
    out.headers.emplace("content-length", std::to_string(size));
    out.content_length_ = size > 0 ? 1 : 0;
    out.content_provider_ = [this, &message, &unsent, size](std::size_t, std::size_t,
                                                            httplib::DataSink& sink) {
      unsent = send_content(*message.content, size, sink);
      if (unsent) link_->give_body_up();
      return !unsent;
    };
    return out;
  }

  // The whole body, or as much of it as the host wants. Why it could not be read, if so.
  std::optional<error> send_content(body_source& source, std::uint64_t size,
                                    httplib::DataSink& sink) const {
    try {
      std::vector<char> piece(options().piece_bytes);
      for (std::uint64_t sent = 0; sent < size && !link_->was_cut_short();) {
        const auto room =
            static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), size - sent));
        const auto got = source.read(sent, std::span(piece).first(room));
        if (!got) return got.error();
        if (*got == 0) return error{errc::internal_error, "A request body ended too early."};
        if (!sink.write(piece.data(), *got)) return std::nullopt;  // httplib sees that, too
        sent += *got;
      }
      // httplib asks again until something was written. A link that was cut short sends nothing more.
      if (link_->was_cut_short()) sink.write("", 1);
      return std::nullopt;
    } catch (const std::exception&) {
      return error{errc::internal_error, "A request body could not be read: out of memory."};
    }
  }

  static void take_head(reply& answer, const httplib::Response& received,
                        const std::string& location) {
    answer.status = received.status;
    answer.retry_after = received.get_header_value("Retry-After");
    answer.content_length = received.get_header_value("Content-Length");
    answer.content_range = received.get_header_value("Content-Range");
    answer.content_type = received.get_header_value("Content-Type");
    answer.etag = received.get_header_value("ETag");
    answer.location = location;
    answer.is_chunked = is_chunked(received);
  }

  static bool is_chunked(const httplib::Response& received) {
    return text::lowered(received.get_header_value("Transfer-Encoding")) == "chunked";
  }

  // Whether the connection may carry another exchange, by what the host said.
  static bool is_kept(const httplib::Response& received) {
    const std::string said = text::lowered(received.get_header_value("Connection"));
    return received.version == "HTTP/1.1" && said.find("close") == std::string::npos;
  }

  // Collects the reply's body up to one byte more than is allowed, which shows that it is too long;
  // that of a 2xx goes to the sink if there is one.
  void receive_into(reply& answer, httplib::Request& sent, const request& message,
                    sink_progress& sinking) const {
    if (message.sink)
      sent.response_handler = [this, &message, &sinking](const httplib::Response& received) {
        reply head;
        take_head(head, received, link_->location());
        sinking.wanted = head.status >= 200 && head.status < 300;
        return !sinking.wanted || sink_takes(sinking, [&] { return message.sink->begin(head); });
      };
    sent.content_receiver = [&answer, &message, &sinking, bytes_max = message.reply_bytes_max](
                                const char* data, std::size_t length, std::uint64_t,
                                std::uint64_t) {
      if (sinking.wanted)
        return sink_takes(sinking, [&] { return message.sink->write({data, length}); });
      const std::size_t taken = std::min(length, bytes_max + 1 - answer.body.size());
      const std::size_t size = answer.body.size() + taken;
      // Room is doubled, but last it is the cap: doubling beyond that would take thrice the cap.
      if (size > answer.body.capacity())
        answer.body.reserve(size > bytes_max / 4 ? bytes_max + 1 : 2 * size);
      answer.body.append(data, taken);
      return answer.body.size() <= bytes_max;
    };
  }

  // A sink that throws has run out of memory.
  template <class Take>
  static bool sink_takes(sink_progress& sinking, Take take) {
    try {
      sinking.failure = take();
    } catch (const std::exception&) {
      sinking.failure =
          error{errc::internal_error, "A reply's body could not be kept: out of memory."};
    }
    return !sinking.failure;
  }

  // Why the exchange came to nothing, if so. A refusal counts as soon as its head is there: a host
  // that does not read on may well cut off its own words.
  std::optional<error> failure_of(const request& message, const text::url& to, bool whole,
                                  httplib::Error failed, const reply& answer) const {
    const bool success = answer.status >= 200 && answer.status < 300;
    if (answer.body.size() > message.reply_bytes_max)
      return error{errc::bad_reply, "The reply of " + whom(to) +
                                        " is longer than limits.reply_bytes_max" + check_address};
    if (link_->head_is_too_long())
      return error{errc::bad_reply, "The headers of " + whom(to) +
                                        " are longer than httplib_options::reply_head_bytes_max" +
                                        check_address};
    if (answer.status == 407 && proxy_ && !to.tls) return refusal_of_proxy(407, to);
    if (link_->was_cut_short() && answer.status >= 300) return std::nullopt;
    if (whole && !link_->was_cut_short() && (!answer.is_chunked || link_->chunks_ended()))
      return std::nullopt;
    if (link_->stalled())
      return error{errc::timed_out,
                   whom(to) + " let the connection stall for limits.stall_timeout" + check_address};
    const std::string why = !link_->fault().empty() ? link_->fault()
                            : success               ? "it ended in the middle"
                                                    : httplib::to_string(failed);
    return error{errc::not_reachable, whom(to) +
                                          " closed the connection, or did not answer in HTTP (" +
                                          why + ")" + check_address};
  }

  static constexpr const char* check_address = ". Check the network and the server's address.";

  // The host, and the proxy on the way to it.
  std::string whom(const text::url& to) const {
    if (!proxy_) return to.place();
    if (to.place() == proxy_->place()) return proxy_->description();
    return to.place() + ", through the proxy " + proxy_->place() + ",";
  }

  error timed_out_error(const text::url& to) const {
    return {errc::timed_out,
            whom(to) + " did not answer in time. Check the network and the server."};
  }

  // What the watchdog ended, it ended for a reason, whatever it looked like from here.
  error explained(const error& why, const text::url& to, time_point deadline) const {
    const std::optional<errc> ended = shared_->dog.reason(watched_);
    if (ended == errc::cancelled)
      return {errc::cancelled, "The request to " + to.host + " was given up."};
    return ended || now() >= deadline ? timed_out_error(to) : why;
  }

  std::shared_ptr<shared> shared_;
  detail::watched watched_;
  messages messages_;
  std::unique_ptr<detail::connection> link_;
  std::string connected_to_;                    // scheme, host and port
  std::optional<detail::proxy_address> proxy_;  // on the way there
  time_point last_used_ = {};
};

using training_session = basic_training_session<httplib_transport, steady_clock, thread_sleeper>;
using platform_session =
    basic_training_session<httplib_transport, steady_clock, thread_sleeper, platform>;

#endif  // HUB_SESSION_ADDS_HTTPLIB

#if defined(HUB_SESSION_ADDS_SESSION)

// =================================================================================================
// test kit
//
// Rules: no network, no thread, no sleeping, no OpenSSL. Time is a number that advance() moves, and
// every step runs on the caller's thread, so a test of a ten-hour training is exact, repeatable and
// takes microseconds. hub_logic is the HUB; fake_hub puts it behind a transport that can fail, and
// examples/local_hub.cpp puts the same one behind real sockets.
// =================================================================================================

namespace testing {

using nlohmann::json;
using text::content_hash;

// ---- virtual time ------------------------------------------------------------------------------

// Virtual time and the tasks that wait in it. Due steps run in the order of their deadlines, ties
// in the order in which the tasks were added.
class timeline {
 public:
  // A task that takes more steps than this is said to spin, and ends the run with std::logic_error:
  // at one moment, and in one run, which is an advance() or a session's blocking call.
  std::size_t steps_at_once_max = 10'000;
  std::size_t steps_per_run_max = 1'000'000;

  time_point now() const noexcept { return now_; }
  std::chrono::system_clock::time_point wall_now() const noexcept { return wall_now_; }
  std::uint64_t steps() const noexcept { return steps_; }

  // The calendar jumps; nothing but a date in Retry-After may notice.
  void jump_wall_clock(duration by) {
    wall_now_ += std::chrono::duration_cast<std::chrono::system_clock::duration>(by);
  }

  std::size_t add(background_task lane) {
    const std::size_t id = ++last_id_;
    tasks_.emplace(id, task{std::move(lane), now_});
    due_.emplace(now_, id);
    return id;
  }

  void remove(std::size_t id) {
    const auto found = tasks_.find(id);
    if (found == tasks_.end()) return;
    due_.erase({found->second.due, id});
    tasks_.erase(found);
  }

  void wake(std::size_t id) noexcept {
    const auto found = tasks_.find(id);
    if (found == tasks_.end()) return;
    if (found->second.running)
      found->second.woken = true;
    else if (found->second.due > now_)
      reschedule(id, found->second, now_);
  }

  // Runs everything that falls due, then lets the rest of the time pass.
  void advance(duration by) {
    advance_until(now_ + by, [] { return false; });
  }

  // The same, but no further than done(), which is asked between steps. Returns its last answer.
  template <class Done>
  bool advance_until(time_point until, Done&& done) {
    ++runs_;
    for (;;) {
      if (done()) return true;
      if (run_next(until)) continue;
      move_to(until);
      return done();
    }
  }

 private:
  struct task {
    background_task lane;
    time_point due = {};
    bool running = false;
    bool woken = false;
    std::uint64_t last_run = 0;  // of advance_until
    time_point last_step = {};
    std::size_t steps_in_run = 0;
    std::size_t steps_at_once = 0;
  };

  // Runs the earliest step that is due by `until`; false if there is none.
  bool run_next(time_point until) {
    if (due_.empty() || due_.begin()->first > until || due_.begin()->first == never) return false;
    const auto [when, id] = *due_.begin();
    move_to(when);
    run(id);
    return true;
  }

  void move_to(time_point when) {
    if (when <= now_) return;
    jump_wall_clock(when - now_);
    now_ = when;
  }

  // A step that throws stays due.
  void run(std::size_t id) {
    task& at = tasks_.at(id);
    count_step(at);
    at.running = true;
    at.woken = false;
    struct ending {
      task& at;
      ~ending() { at.running = false; }
    } const ended{at};
    const time_point next = run_once(at.lane);
    reschedule(id, at, at.woken ? now_ : next);
  }

  // As thread_sleeper has it: a task that has run out of memory is tried again after a pause.
  time_point run_once(const background_task& lane) const {
    try {
      return lane.run();
    } catch (const std::bad_alloc&) {
      return now_ + 1s;
    }
  }

  void count_step(task& at) {
    ++steps_;
    if (std::exchange(at.last_run, runs_) != runs_) at.steps_in_run = at.steps_at_once = 0;
    if (std::exchange(at.last_step, now_) != now_) at.steps_at_once = 0;
    if (++at.steps_at_once > steps_at_once_max)
      spins(at, std::to_string(steps_at_once_max) +
                    " steps without time going on. If it should, raise steps_at_once_max.");
    if (++at.steps_in_run > steps_per_run_max)
      spins(at, std::to_string(steps_per_run_max) +
                    " steps in one run. If it should, raise steps_per_run_max.");
  }

  [[noreturn]] static void spins(const task& at, const std::string& how) {
    throw std::logic_error("hub_session: the lane '" + std::string(at.lane.name) +
                           "' spins: it took " + how);
  }

  // Moves the entry instead of making one, as wake() must not throw.
  void reschedule(std::size_t id, task& at, time_point when) noexcept {
    auto entry = due_.extract({at.due, id});
    at.due = when;
    entry.value().first = when;
    due_.insert(std::move(entry));
  }

  time_point now_{24h};
  std::chrono::system_clock::time_point wall_now_ =
      std::chrono::sys_days(std::chrono::year(2026) / 1 / 1);
  std::uint64_t steps_ = 0;
  std::uint64_t runs_ = 0;
  std::size_t last_id_ = 0;
  std::map<std::size_t, task> tasks_;
  std::set<std::pair<time_point, std::size_t>> due_;  // of every task; at `never` if it only waits
};

class virtual_clock {
 public:
  explicit virtual_clock(const timeline& time) : time_(&time) {}
  time_point now() const noexcept { return time_->now(); }
  std::chrono::system_clock::time_point wall_now() const noexcept { return time_->wall_now(); }

 private:
  const timeline* time_;
};

// Runs a session's steps inside advance(), and inside the session's own blocking calls, which let
// time pass until they are done or past their deadline.
class virtual_sleeper {
 public:
  static constexpr bool concurrent = false;

  explicit virtual_sleeper(timeline& time) : time_(&time) {}
  virtual_sleeper(virtual_sleeper&&) noexcept = default;
  virtual_sleeper& operator=(virtual_sleeper&&) = delete;
  ~virtual_sleeper() { stop(); }

  void start(std::vector<background_task> tasks) {
    ids_.reserve(tasks.size());
    for (background_task& each : tasks) ids_.push_back(time_->add(std::move(each)));
  }
  void wake(std::size_t task) noexcept { time_->wake(ids_[task]); }
  bool wait_until(time_point when, const std::function<bool()>& done) {
    return time_->advance_until(when, done);
  }
  void stop() {
    for (std::size_t id : ids_) time_->remove(id);
    ids_.clear();
  }

 private:
  timeline* time_;
  std::vector<std::size_t> ids_;
};

// ---- a HUB -------------------------------------------------------------------------------------

// What a request is for: HUB's calls, the storage host, and the Platform's events and calls.
enum class endpoint {
  auth,
  model,
  create_model,
  heartbeat,
  metrics,
  upload,   // of a file to HUB, or the Platform's call that says where to put it
  storage,  // a file put to or taken from its signed URL
  training_started,
  epoch_end,
  console_output,
  checkpoint_saved,
  training_complete,
  training_failed,
  system_metrics,
  account,
  files,  // of a model or a dataset, in the newer way or in the older one
  stop,
};

constexpr std::string_view to_string(endpoint which) noexcept {
  constexpr std::array names = {"auth"sv,
                                "model"sv,
                                "create_model"sv,
                                "heartbeat"sv,
                                "metrics"sv,
                                "upload"sv,
                                "storage"sv,
                                "training_started"sv,
                                "epoch_end"sv,
                                "console_output"sv,
                                "checkpoint_saved"sv,
                                "training_complete"sv,
                                "training_failed"sv,
                                "system_metrics"sv,
                                "account"sv,
                                "files"sv,
                                "stop"sv};
  static_assert(names.size() == static_cast<std::size_t>(endpoint::stop) + 1);
  return names[static_cast<std::size_t>(which)];
}

// One part of a multipart form. A file's content may have gone elsewhere, such as to disk.
struct form_part {
  std::string name = {};
  std::string file_name = {};  // "" for a field
  std::string content = {};
  std::uint64_t size_bytes = 0;
  std::uint64_t hash = 0;   // content_hash of the bytes
  std::string sha256 = {};  // in hexadecimal, if the server takes it
};

struct server_request {
  std::string method = {};
  std::string path = {};           // as it came, query included
  std::string api_key = {};        // of x-api-key
  std::string authorization = {};  // such as "Bearer TOKEN"
  std::string body = {};           // of what is no form
  std::vector<form_part> form = {};
  std::string root = {};  // http(s)://host[:port] as the client knows it, if URLs must lead back
};

struct server_reply {
  int status = 200;
  std::string body = "{}";
  std::string retry_after = {};
  std::string location = {};  // of a redirect
};

// A model as GET /v1/models/{id} describes it.
enum class reply_shape {
  flat,    // the fields beside each other
  nested,  // train_args, has_last_weights, has_best_weights, is_pretrained, is_custom
};

struct model_options {
  std::string id = {};  // "" makes one up
  std::string name = "model";
  model_state state = model_state::fresh;
  reply_shape shape = reply_shape::flat;
  std::string data =
      "https://storage.example/dataset.zip?X-Goog-Signature=secret";  // "": not ready
  std::string cfg = "yolov8n.yaml";
  std::string weights = {};
  int epochs = 100;
  int imgsz = 640;  // pixels
  double batch = 16;
  int patience = 100;
  json device = "";
  json cache = "ram";
};

struct heartbeat_record {
  time_point at;
  std::string agent;
  std::string agent_id;
};

struct checkpoint_record {
  time_point at;
  int epoch;
  bool is_final;
  bool is_best;
  double map;
  std::uint64_t size_bytes;
  std::uint64_t hash;
  std::string content;      // if hub_logic::keep_contents is on
  std::string sha256 = {};  // as in form_part
};

struct hub_model {
  model_options about = {};
  std::map<int, json> metrics = {};  // epoch -> {name: value}
  std::vector<heartbeat_record> heartbeats = {};
  std::vector<checkpoint_record> checkpoints = {};  // as they arrived, the final one among them

  // HUB shows a training as disconnected after this much silence.
  static constexpr duration silence_max = 15min;
  bool connected(time_point now, duration silence = silence_max) const {
    return !heartbeats.empty() && now - heartbeats.back().at <= silence;
  }
  // How often it was shown as disconnected until now: once for each silence.
  std::size_t disconnections(time_point now, duration silence = silence_max) const {
    std::size_t count = 0;
    for (std::size_t i = 0; i < heartbeats.size(); ++i) {
      const time_point next = i + 1 < heartbeats.size() ? heartbeats[i + 1].at : now;
      if (next - heartbeats[i].at > silence) ++count;
    }
    return count;
  }
  const checkpoint_record* final_model() const {
    for (const checkpoint_record& each : checkpoints)
      if (each.is_final) return &each;
    return nullptr;
  }
  const checkpoint_record* last_checkpoint() const {
    for (std::size_t i = checkpoints.size(); i-- > 0;)
      if (!checkpoints[i].is_final) return &checkpoints[i];
    return nullptr;
  }
};

// What a HUB does, without sockets, files or a clock: models and keys in, requests in, replies out.
// Strict where a real one is: what it refuses is refused here, with the reason in the reply.
class hub_logic {
 public:
  bool keep_contents = false;                 // of uploads, in checkpoint_record::content
  std::function<std::string()> make_id = {};  // for new models; else their ids count up from 1
  // Keys beside those of add_key(), for servers that keep no key that they could add.
  std::function<bool(const std::string& api_key)> is_key = {};
  // What clients are told of a model's data, its weights and its "last.pt", such as a signed URL;
  // else they are told the name itself.
  std::function<std::string(const hub_model&, const std::string& name, time_point now)> url_of = {};

  void add_key(std::string api_key) { keys_.insert(std::move(api_key)); }
  void add_token(const std::string& id_token) { tokens_.insert("Bearer " + id_token); }

  // Adds a model and returns its id.
  std::string add_model(model_options about = {}) {
    if (about.id.empty()) about.id = new_id();
    std::string id = about.id;
    models_[id].about = std::move(about);
    return id;
  }

  // Later requests for it are refused with 404.
  void remove_model(const std::string& id) { models_.erase(id); }

  // Back to a new one, with nothing arrived.
  void reset_model(const std::string& id) {
    hub_model& at = models_.at(id);
    at = {.about = std::move(at.about)};
    at.about.state = model_state::fresh;
  }

  hub_model& model(const std::string& id) { return models_.at(id); }
  const std::map<std::string, hub_model>& models() const { return models_; }

  // How many of the agents that have sent a heartbeat are shown as disconnected.
  std::size_t agents_disconnected(time_point now, duration silence = hub_model::silence_max) const {
    std::map<std::string_view, time_point> last_heard;
    for (const auto& [id, model] : models_)
      for (const heartbeat_record& each : model.heartbeats) last_heard[each.agent_id] = each.at;
    return static_cast<std::size_t>(
        std::count_if(last_heard.begin(), last_heard.end(),
                      [&](const auto& agent) { return now - agent.second > silence; }));
  }

  // Which call this is and which model it names, if it is one of HUB's.
  static std::optional<std::pair<endpoint, std::string>> route(std::string_view method,
                                                               std::string_view path) {
    const auto named = [&](std::string_view prefix,
                           std::string_view suffix) -> std::optional<std::string> {
      if (path.size() <= prefix.size() + suffix.size() || !path.starts_with(prefix) ||
          !path.ends_with(suffix))
        return std::nullopt;
      const std::string_view id =
          path.substr(prefix.size(), path.size() - prefix.size() - suffix.size());
      if (!text::all_of(id, text::is_alphanumeric)) return std::nullopt;
      return std::string(id);
    };
    const bool post = method == "POST";
    if (post && path == "/v1/auth") return std::pair(endpoint::auth, std::string());
    if (post && path == "/v1/models") return std::pair(endpoint::create_model, std::string());
    if (auto id = named("/v1/models/", ""); id && (post || method == "GET"))
      return std::pair(post ? endpoint::metrics : endpoint::model, *std::move(id));
    if (auto id = named("/v1/models/", "/upload"); id && post)
      return std::pair(endpoint::upload, *std::move(id));
    if (auto id = named("/v1/agent/heartbeat/models/", ""); id && post)
      return std::pair(endpoint::heartbeat, *std::move(id));
    return std::nullopt;
  }

  // Why a request is refused whatever its body says, if it is: no such call, key or model. For
  // servers that want to know before they receive the body.
  std::optional<server_reply> refusal(const server_request& request) const {
    return refusal(request, route(request.method, request.path));
  }

  server_reply handle(const server_request& request, time_point now) {
    const auto to = route(request.method, request.path);
    if (auto refused = refusal(request, to)) return *std::move(refused);
    if (to->first == endpoint::auth)
      return {200, knows(request) ? "{\"success\": true}" : "{\"success\": false}"};
    if (to->first == endpoint::create_model) return create(request.body);
    hub_model& model = models_.at(to->second);
    if (to->first == endpoint::heartbeat) return beat(model, request.body, now);
    if (to->first == endpoint::metrics) return take_metrics(model, request.body);
    if (to->first == endpoint::upload) return take_upload(model, request.form, now);
    return tell("data", describe(model, now));
  }

  // The body of GET /v1/models/{id}, its member "data".
  json describe(const hub_model& model, time_point now) const {
    const auto told = [&](const std::string& name) {
      return url_of && !name.empty() ? url_of(model, name, now) : name;
    };
    const model_options& about = model.about;
    const bool training = about.state == model_state::training;
    const std::string resume = told(training ? "last.pt" : "");
    const json data = about.data.empty() ? json() : json(told(about.data));
    json out;
    out["id"] = about.id;
    out["status"] = state_name(about.state);
    out["cfg"] = about.cfg;
    out["weights"] = told(about.weights);
    out["resume"] = resume;
    if (training && !model.metrics.empty()) out["last_epoch"] = model.metrics.rbegin()->first;
    const bool flat = about.shape == reply_shape::flat;
    json& fields = flat ? out : out["train_args"];
    fields["data"] = data;
    fields["batch"] = about.batch;
    fields["epochs"] = about.epochs;
    fields["imgsz"] = about.imgsz;
    fields["patience"] = about.patience;
    fields["device"] = about.device;
    fields["cache"] = about.cache;
    if (!flat) {
      fields["time"] = nullptr;
      out["has_last_weights"] = training;
      out["has_best_weights"] = model.final_model() != nullptr;
      out["is_pretrained"] = !about.weights.empty();
      out["is_custom"] = false;
    }
    return out;
  }

  static std::string_view state_name(model_state state) {
    constexpr std::array<std::string_view, 3> names = {"new", "training", "trained"};
    return names[static_cast<std::size_t>(state)];
  }

 private:
  using destination = std::optional<std::pair<endpoint, std::string>>;

  std::optional<server_reply> refusal(const server_request& request, const destination& to) const {
    if (!to) return refuse(404, "no such call: " + request.method + " " + request.path);
    if (to->first == endpoint::auth) return std::nullopt;
    if (!knows(request)) return refuse(401, "unknown API key");
    if (to->first != endpoint::create_model && !models_.contains(to->second))
      return refuse(404, "no model " + to->second);
    return std::nullopt;
  }

  // A reply with one member.
  static server_reply tell(const char* name, json value, int status = 200) {
    json body;
    body[name] = std::move(value);
    return {status, body.dump(-1, ' ', false, json::error_handler_t::replace)};
  }

  static server_reply refuse(int status, const std::string& why) {
    return tell("message", why, status);
  }

  bool knows(const server_request& request) const {
    if (request.authorization.starts_with("Bearer "))
      return tokens_.contains(request.authorization);
    return keys_.contains(request.api_key) || (is_key && is_key(request.api_key));
  }

  std::string new_id() {
    if (make_id) return make_id();
    std::string digits = std::to_string(++made_);
    return "model" + std::string(hub_v1_wire::model_id_length - 5 - digits.size(), '0') + digits;
  }

  server_reply create(const std::string& body) {
    const auto wanted = text::parse_json(body);
    const json* config = wanted ? text::get_member(*wanted, "config") : nullptr;
    const json* dataset = wanted ? text::get_member(*wanted, "dataset") : nullptr;
    const json* meta = wanted ? text::get_member(*wanted, "meta") : nullptr;
    const json* lineage = wanted ? text::get_member(*wanted, "lineage") : nullptr;
    const json* architecture = lineage ? text::get_member(*lineage, "architecture") : nullptr;
    if (!config || !config->is_object() || !dataset || !meta || !architecture)
      return refuse(400, "config, dataset, lineage.architecture and meta are needed");
    const json* parent = text::get_member(*lineage, "parent");
    model_options about;
    about.name = text::get_string(*meta, "name");
    about.data = text::get_string(*dataset, "name");
    about.cfg = parent ? "" : text::get_string(*architecture, "name") + ".yaml";
    about.weights = parent ? text::get_string(*parent, "name") : "";
    about.epochs = text::get_int(*config, "epochs").value_or(about.epochs);
    about.imgsz = text::get_int(*config, "imageSize").value_or(about.imgsz);
    about.batch = text::get_number(*config, "batchSize").value_or(about.batch);
    about.patience = text::get_int(*config, "patience").value_or(about.patience);
    about.device = config->value("device", json(""));
    about.cache = config->value("cache", json("ram"));
    json made;
    made["id"] = add_model(std::move(about));
    return tell("data", std::move(made));
  }

  server_reply beat(hub_model& model, const std::string& body, time_point now) {
    const auto said = text::parse_json(body);
    if (!said || text::get_string(*said, "agent").empty() || !said->contains("agentId"))
      return refuse(400, "agent and agentId are needed");
    std::string id = text::get_string(*said, "agentId");
    if (id.empty()) id = "agent-" + std::to_string(++agents_);
    std::string answer = "{\"data\": {\"agentId\": ";
    text::append_json_string(answer, id);
    model.heartbeats.push_back({now, text::get_string(*said, "agent"), std::move(id)});
    return {200, answer + "}}"};
  }

  // Takes all epochs of a request or none.
  static server_reply take_metrics(hub_model& model, const std::string& body) {
    const auto said = text::parse_json(body);
    const json* epochs = said ? text::get_member(*said, "metrics") : nullptr;
    if (!epochs || !epochs->is_object() || text::get_string(*said, "type") != "metrics")
      return refuse(400, "metrics and type are needed");
    std::vector<std::pair<int, json>> taken;
    for (const auto& [key, text] : epochs->items()) {
      const std::optional<int> epoch = text::whole_number<int>(key);
      std::optional<json> values =
          text.is_string() ? text::parse_json(text.get_ref<const std::string&>()) : std::nullopt;
      if (!epoch || !values || !values->is_object())
        return refuse(400, "epoch " + key + " is no JSON object encoded as a string");
      taken.emplace_back(*epoch, *std::move(values));
    }
    for (auto& [epoch, values] : taken) model.metrics[epoch] = std::move(values);
    return {};
  }

  // A number, or what Python writes into a form if it has none.
  static std::optional<double> map_of(std::string_view text) {
    const auto number = text::parse_json(text);
    if (!number || !number->is_number()) return text::parse_not_finite(text);
    return number->get<double>();
  }

  server_reply take_upload(hub_model& model, const std::vector<form_part>& form, time_point now) {
    const auto field = [&](std::string_view name) -> const form_part* {
      for (const form_part& each : form)
        if (each.name == name) return &each;
      return nullptr;
    };
    const form_part* epoch = field("epoch");
    const auto epoch_number = epoch ? text::whole_number<int>(epoch->content) : std::nullopt;
    const form_part* type = field("type");
    const bool is_final = type && type->content == "final";
    const form_part* file = field(is_final ? "best.pt" : "last.pt");
    const form_part* best = field("isBest");
    const form_part* map = field("map");
    const auto map_value = map ? map_of(map->content) : std::nullopt;
    if (!epoch_number || !type || (!is_final && type->content != "epoch"))
      return refuse(400, "epoch and type are needed");
    if (is_final ? !map_value : !best || (best->content != "True" && best->content != "False"))
      return refuse(400, "map or isBest is needed");
    if (!file || file->file_name != file->name || file != &form.back())
      return refuse(400, "the file is missing, misnamed or not the last part");
    if (file->size_bytes == 0) return refuse(400, "the file is empty");
    model.about.state = is_final ? model_state::trained : model_state::training;
    model.checkpoints.push_back({now, *epoch_number, is_final, best && best->content == "True",
                                 map_value.value_or(0), file->size_bytes, file->hash,
                                 keep_contents ? file->content : std::string(), file->sha256});
    return {};
  }

  std::set<std::string> keys_;
  std::set<std::string> tokens_;
  std::map<std::string, hub_model> models_;
  std::size_t made_ = 0;
  std::size_t agents_ = 0;
};

// Takes a multipart/form-data body apart, strictly: nothing where its framing is not as it must be.
inline std::optional<std::vector<form_part>> parse_form(std::string_view body,
                                                        std::string_view boundary) {
  const std::string delimiter = "--" + std::string(boundary);
  std::vector<form_part> parts;
  if (!body.starts_with(delimiter)) return std::nullopt;
  body.remove_prefix(delimiter.size());
  const auto attribute = [](std::string_view head,
                            std::string_view name) -> std::optional<std::string> {
    const std::string lead = "; " + std::string(name) + "=\"";
    const std::size_t at = head.find(lead);
    if (at == std::string_view::npos) return std::nullopt;
    const std::string_view rest = head.substr(at + lead.size());
    return std::string(rest.substr(0, rest.find('"')));
  };
  while (body != "--\r\n") {
    const std::size_t head_end = body.find("\r\n\r\n");
    const std::size_t end = body.find("\r\n" + delimiter);
    if (!body.starts_with("\r\n") || head_end == std::string_view::npos ||
        end == std::string_view::npos || end < head_end + 2)
      return std::nullopt;
    const std::string_view head = body.substr(2, head_end - 2);
    const auto name = attribute(head, "name");
    if (!head.starts_with("Content-Disposition: form-data;") || !name) return std::nullopt;
    const std::string_view content = body.substr(head_end + 4, end - head_end - 4);
    parts.push_back({*name, attribute(head, "filename").value_or(""), std::string(content),
                     content.size(), content_hash(content)});
    body.remove_prefix(end + 2 + delimiter.size());
  }
  return parts;
}

// ---- a Platform --------------------------------------------------------------------------------

// The Platform's calls, but for those to its storage host.
enum class platform_call {
  event,          // POST /api/webhooks/training/metrics
  upload,         // POST /api/webhooks/models/upload
  account,        // GET /api/account/summary
  files,          // GET /api/models/OWNER/PROJECT/NAME/files
  dataset,        // GET /api/datasets/OWNER/NAME/export
  older_files,    // HEAD /api/webhooks/models/OWNER/PROJECT/NAME/download
  older_dataset,  // HEAD /api/webhooks/datasets/OWNER/NAME/export
  stop,           // DELETE /api/models/OWNER/PROJECT/NAME/training
};

struct platform_route {
  platform_call call = platform_call::event;
  std::string owner = {};
  std::string project = {};
  std::string name = {};
};

// What an accepted request changes, and nothing else does. A server that keeps its state writes these
// down, and applies them again when it starts.
struct platform_change {
  time_point at = {};
  std::string model_id = {};
  std::string kind = {};  // an event's name, "place" (for a file), "file" (in its place), "cancel"
  json data = {};         // of an event, or what the kind is made of
  std::string content = {};  // of a file, if platform_logic::keep_contents is on
};

struct platform_upload {
  std::string file_name = {};
  std::string path = {};         // "gs://..."
  std::string upload_path = {};  // which names it to the storage host
  std::string run_id = {};
  bool arrived = false;
  bool saved = false;  // checkpoint_saved came
  time_point at = {};  // of its arrival
  std::uint64_t size_bytes = 0;
  std::uint64_t hash = 0;
  std::string sha256 = {};  // as in form_part
  std::string content = {};
};

enum class platform_state { training, completed, failed };

struct platform_model {
  std::string id = {};
  std::string owner = {};
  std::string project = {};
  std::string name = {};   // counted up if the one that was asked for is taken
  std::string asked = {};  //
  std::string run_id = {};
  json started = {};  // the data of training_started
  time_point started_at = {};
  time_point heard_at = {};
  std::map<int, json> epochs = {};             // the data of each epoch_end, the latest
  std::map<std::uint64_t, json> console = {};  // the data of each console_output
  std::vector<json> system = {};               // the data of each system_metrics
  std::vector<platform_upload> uploads = {};   // in the order in which they were announced
  platform_state state = platform_state::training;
  json ending = {};               // the data of training_complete or training_failed
  bool cancelled = false;         // by its owner
  std::size_t after_the_end = 0;  // events that came when it was complete

  const platform_upload* latest_file() const {
    for (std::size_t i = uploads.size(); i-- > 0;)
      if (uploads[i].arrived) return &uploads[i];
    return nullptr;
  }
};

struct platform_dataset {
  std::string owner = {};
  std::string name = {};
  std::string file = {};  // what url_of_dataset makes a URL of; "": still being processed
};

// What a Platform does, without sockets, files or a clock. Strict where the contract is: what it does
// not have is refused here, with the reason in the reply.
class platform_logic {
 public:
  bool keep_contents = false;                 // of uploads
  bool is_strict = true;                      // else what the contract does not have is let through
  std::string warning = {};                   // stands in each reply to an event
  bool has_newer_calls = true;                // files and dataset
  bool has_older_calls = true;                // older_files and older_dataset
  std::function<std::string()> make_id = {};  // of models and runs; else they count up
  // Whose key this is, beside those of add_key(); nothing if nobody's.
  std::function<std::optional<std::string>(const std::string& api_key)> user_of = {};
  // Signed URLs: where to put a file, where to take it from, and where a dataset lies.
  std::function<std::string(const platform_upload&, time_point now)> url_to_put = {};
  std::function<std::string(const platform_upload&, time_point now)> url_of_file = {};
  std::function<std::string(const platform_dataset&, time_point now)> url_of_dataset = {};

  void add_key(std::string api_key, std::string user) {
    keys_[std::move(api_key)] = std::move(user);
  }
  void add_dataset(platform_dataset dataset) { datasets_.push_back(std::move(dataset)); }
  void remove_model(const std::string& id) { models_.erase(id); }

  platform_model& model(const std::string& id) { return models_.at(id); }
  const std::map<std::string, platform_model>& models() const { return models_; }

  // The model of this name, the way a page's address has it.
  const platform_model* find(std::string_view owner, std::string_view project,
                             std::string_view name) const {
    for (const auto& [id, model] : models_)
      if (model.owner == owner && model.project == project && model.name == name) return &model;
    return nullptr;
  }

  // Which call this is, if it is one of the Platform's.
  static std::optional<platform_route> route(std::string_view method, std::string_view path) {
    using enum platform_call;
    path = path.substr(0, path.find('?'));
    if (method == "POST" && path == "/api/webhooks/training/metrics") return platform_route{event};
    if (method == "POST" && path == "/api/webhooks/models/upload") return platform_route{upload};
    if (method == "GET" && path == "/api/account/summary") return platform_route{account};
    if (method == "GET")
      return first_of({named(files, path, "/api/models/", 3, "/files"),
                       named(dataset, path, "/api/datasets/", 2, "/export")});
    if (method == "HEAD")
      return first_of({named(older_files, path, "/api/webhooks/models/", 3, "/download"),
                       named(older_dataset, path, "/api/webhooks/datasets/", 2, "/export")});
    if (method == "DELETE") return named(stop, path, "/api/models/", 3, "/training");
    return std::nullopt;
  }

  // Why a request is refused whatever its body says, if it is: no such call or key.
  std::optional<server_reply> refusal(const server_request& request) const {
    const auto to = route(request.method, request.path);
    const bool newer =
        to && (to->call == platform_call::files || to->call == platform_call::dataset);
    const bool older =
        to && (to->call == platform_call::older_files || to->call == platform_call::older_dataset);
    if (!to || (newer && !has_newer_calls) || (older && !has_older_calls))
      return refuse(404,
                    "no such call: " + request.method + " " + text::without_query(request.path));
    if (!user(request)) return refuse(401, "unknown API key");
    return std::nullopt;
  }

  // What a request comes to: the reply, and where that is a 2xx of one that changes something, what
  // it changes once it is applied.
  struct decision {
    server_reply reply = {};
    std::optional<platform_change> change = {};
  };
  decision decide(const server_request& request, time_point now) {
    if (auto refused = refusal(request)) return {*std::move(refused)};
    const auto to = route(request.method, request.path);
    if (to->call == platform_call::event) return take_event(request, now);
    if (to->call == platform_call::upload) return give_place(request, now);
    if (to->call == platform_call::account) return {tell("username", *user(request))};
    if (to->call == platform_call::stop) return stop(*to, now);
    return {hand_out(*to, now)};
  }

  // A file that came to where url_to_put led.
  decision decide_file(std::string_view upload_path, const form_part& file, time_point now) const {
    const auto [model, upload] = place_of(upload_path);
    if (!upload) return {refuse(404, "no such place")};
    if (file.size_bytes == 0) return {refuse(400, "the file is empty")};
    platform_change out{now, model->id, "file"};
    out.data["uploadPath"] = upload->upload_path;
    out.data["bytes"] = file.size_bytes;
    out.data["hash"] = file.hash;
    out.data["sha256"] = file.sha256;
    if (keep_contents) out.content = file.content;
    return {{200, ""}, std::move(out)};
  }

  void apply(platform_change change) {
    if (change.kind == "training_started") return start(std::move(change));
    const auto found = models_.find(change.model_id);
    if (found == models_.end()) return;
    platform_model& model = found->second;
    if (change.kind == "place") return add_place(model, change.data);
    if (change.kind == "file") return add_file(model, std::move(change));
    if (change.kind == "cancel")
      model.cancelled = true;
    else
      take(model, std::move(change));
  }

  server_reply handle(const server_request& request, time_point now) {
    decision out = decide(request, now);
    if (out.change) apply(*std::move(out.change));
    return out.reply;
  }

  // The owner's wish, as the call `stop` brings it. False if nothing is trained.
  bool cancel(const std::string& id) {
    const auto found = models_.find(id);
    if (found == models_.end() || found->second.state != platform_state::training) return false;
    return found->second.cancelled = true;
  }

 private:
  // ---- calls ----

  static std::optional<platform_route> first_of(
      std::initializer_list<std::optional<platform_route>> all) {
    for (const auto& each : all)
      if (each) return each;
    return std::nullopt;
  }

  // A path of so many names between a prefix and a suffix.
  static std::optional<platform_route> named(platform_call call, std::string_view path,
                                             std::string_view prefix, std::size_t count,
                                             std::string_view suffix) {
    if (path.size() <= prefix.size() + suffix.size() || !path.starts_with(prefix) ||
        !path.ends_with(suffix))
      return std::nullopt;
    std::vector<std::string> names(1);
    for (char c : path.substr(prefix.size(), path.size() - prefix.size() - suffix.size()))
      if (c == '/')
        names.emplace_back();
      else
        names.back() += c;
    if (names.size() != count ||
        !std::all_of(names.begin(), names.end(), platform_wire::is_segment))
      return std::nullopt;
    return platform_route{call, names.front(), count == 3 ? names[1] : "", names.back()};
  }

  static server_reply tell(const char* name, json value, int status = 200) {
    json body;
    body[name] = std::move(value);
    return {status, body.dump(-1, ' ', false, json::error_handler_t::replace)};
  }
  static server_reply refuse(int status, const std::string& why) {
    return tell("error", why, status);
  }

  std::optional<std::string> user(const server_request& request) const {
    constexpr std::string_view bearer = "Bearer ";
    if (!request.authorization.starts_with(bearer)) return std::nullopt;
    const std::string key = request.authorization.substr(bearer.size());
    if (const auto found = keys_.find(key); found != keys_.end()) return found->second;
    return user_of ? user_of(key) : std::nullopt;
  }

  // ---- events ----

  // Which model a request is about: by its id, else by its names, the newest of them.
  result<std::string> find_model(const json& said, const std::string& user) const {
    const std::string id = text::get_string(said, "modelId");
    const auto [owner, project] = names_of(text::get_string(said, "project"), user);
    const std::string name = text::get_string(said, "name");
    if (!id.empty() && models_.contains(id)) return id;
    const platform_model* newest = nullptr;
    for (const auto& [each_id, model] : models_)
      if (id.empty() && model.owner == owner && model.project == project && model.asked == name &&
          (!newest || model.started_at >= newest->started_at))
        newest = &model;
    if (newest) return newest->id;
    return error{errc::unexpected_status, "no such model"};
  }

  static std::pair<std::string, std::string> names_of(const std::string& project,
                                                      const std::string& user) {
    const std::size_t slash = project.find('/');
    if (slash == std::string::npos) return {user, project};
    return {project.substr(0, slash), project.substr(slash + 1)};
  }

  // What is wrong with the members that name a model, "" if nothing is.
  static std::string names_problem(const json& said) {
    const std::string project = text::get_string(said, "project");
    const std::string name = text::get_string(said, "name");
    const bool has_id = !text::get_string(said, "modelId").empty();
    if (has_id && project.empty() && name.empty()) return {};
    const auto read = platform_wire::parse_project(project);
    if (!read || *read != project) return "project is needed, as a page's address has it";
    if (name.empty() || platform_wire::slug(name) != name)
      return "name is needed, as a page's address has it";
    return {};
  }

  decision take_event(const server_request& request, time_point now) {
    const auto said = text::parse_json(request.body);
    const json* data = said ? text::get_member(*said, "data") : nullptr;
    const std::string event = said ? text::get_string(*said, "event") : std::string();
    if (event.empty() || !data || !data->is_object())
      return {refuse(400, "event and data are needed")};
    std::string why = names_problem(*said);
    if (why.empty() && is_strict)
      why = stray(*said, {"event", "data", "modelId", "project", "name"});
    if (why.empty() && is_strict) why = event_problem(event, *data);
    if (!why.empty()) return {refuse(400, event + ": " + why)};
    if (event == "training_started") return register_run(*said, *user(request), now);
    const auto id = find_model(*said, *user(request));
    if (!id) return {refuse(404, id.error().message)};
    const platform_model& model = models_.at(*id);
    if (auto refused = conflict(model, event, *data)) return {*std::move(refused)};
    json reply;
    reply["received"] = true;
    reply["cancelled"] = model.cancelled && event == "epoch_end";
    if (!warning.empty()) reply["warning"] = warning;
    return {{200, reply.dump()}, platform_change{now, *id, event, *data}};
  }

  decision register_run(const json& said, const std::string& user, time_point now) {
    platform_change out{now, new_id("65f0c0ffee"), "training_started"};
    const auto [owner, project] = names_of(text::get_string(said, "project"), user);
    const std::string asked = text::get_string(said, "name");
    std::string name = asked;
    for (int i = 2; find(owner, project, name); ++i) name = asked + '-' + std::to_string(i);
    out.data["owner"] = owner;
    out.data["project"] = project;
    out.data["name"] = name;
    out.data["asked"] = asked;
    out.data["runId"] = new_id("run-");
    out.data["started"] = said.at("data");
    json reply;
    reply["received"] = true;
    reply["cancelled"] = false;
    reply["modelId"] = out.model_id;
    reply["runId"] = out.data["runId"];
    reply["modelSlug"] = name;
    return {{200, reply.dump()}, std::move(out)};
  }

  std::string new_id(std::string_view lead) {
    constexpr std::size_t id_length = 24;
    if (make_id) return make_id();
    const std::string digits = std::to_string(++made_);
    return std::string(lead) + std::string(id_length - lead.size() - digits.size(), '0') + digits;
  }

  // Why an event that is right by itself does not fit what is there.
  static std::optional<server_reply> conflict(const platform_model& model, const std::string& event,
                                              const json& data) {
    if (event == "console_output") {
      const auto found = model.console.find(text::get_unsigned(data, "chunkId"));
      if (found != model.console.end() && found->second != data)
        return refuse(409, "another chunk has this number");
    }
    if (event == "checkpoint_saved") {
      if (text::get_string(data, "runId") != model.run_id) return refuse(409, "no such run");
      if (!arrived(model, text::get_string(data, "modelPath")))
        return refuse(409, "no such file has arrived");
    }
    if (event == "training_complete") {
      const std::string run = text::get_string(data, "runId");
      const std::string file = text::get_string(data.at("results"), "modelPath");
      if (!run.empty() && run != model.run_id) return refuse(409, "no such run");
      if (!file.empty() && !arrived(model, file)) return refuse(409, "no such file has arrived");
    }
    return std::nullopt;
  }

  static bool arrived(const platform_model& model, const std::string& path) {
    return std::any_of(model.uploads.begin(), model.uploads.end(),
                       [&](const auto& upload) { return upload.arrived && upload.path == path; });
  }

  // ---- what the contract has ----

  using names = std::initializer_list<std::string_view>;

  // What is in an object beside `known`, "" if nothing is.
  static std::string stray(const json& object, names known) {
    for (const auto& member : object.items())
      if (std::find(known.begin(), known.end(), member.key()) == known.end())
        return "there is no '" + text::printable(member.key()) + "'";
    return {};
  }

  static bool is_number(const json& value) { return value.is_number() || value.is_null(); }
  static bool all_numbers(const json& values) {
    return std::all_of(values.begin(), values.end(), is_number);
  }
  static bool is_count(const json& object, const char* name, int least) {
    return text::get_int(object, name).value_or(least - 1) >= least;
  }
  static bool has_object(const json& object, const char* name) {
    const json* member = text::get_member(object, name);
    return member && member->is_object();
  }

  // What is wrong with an event's data, "" if nothing is.
  static std::string event_problem(const std::string& event, const json& data) {
    if (event == "training_started") return start_problem(data);
    if (event == "epoch_end") return epoch_problem(data);
    if (event == "console_output") return console_problem(data);
    if (event == "training_complete") return completion_problem(data);
    if (event == "system_metrics")
      return stray(data, {"cpu", "memory", "disk", "diskIo", "network", "gpus"});
    if (event == "training_progress") return {};
    if (event == "checkpoint_saved") {
      if (text::get_string(data, "modelPath").empty() || text::get_string(data, "runId").empty())
        return "modelPath and runId are needed";
      return stray(data, {"modelPath", "runId", "uploadPath"});
    }
    if (event == "training_failed") {
      if (text::get_string(data, "error").empty()) return "error is needed";
      return stray(data, {"error", "code", "instanceId"});
    }
    return "there is no such event";
  }

  static std::string start_problem(const json& data) {
    if (!has_object(data, "trainArgs")) return "trainArgs is needed";
    for (const json& argument : data.at("trainArgs"))
      if (!argument.is_string()) return "an argument is no text";
    if (data.contains("epochs") && !is_count(data, "epochs", 1)) return "epochs is no count";
    if (data.contains("environment") && !has_object(data, "environment"))
      return "environment is no object";
    return stray(data, {"trainArgs", "epochs", "device", "environment"});
  }

  static std::string epoch_problem(const json& data) {
    if (!is_count(data, "epoch", 0)) return "epoch is no count";
    if (!has_object(data, "metrics") || !all_numbers(data.at("metrics")))
      return "metrics are no numbers";
    if (data.contains("system") && !has_object(data, "system")) return "system is no object";
    for (const char* name : {"fitness", "best_fitness"})
      if (data.contains(name) && !is_number(data.at(name)))
        return std::string(name) + " is no number";
    if (const json* model = text::get_member(data, "modelInfo")) {
      if (!model->is_object() || !all_numbers(*model)) return "modelInfo is no numbers";
      if (auto why = stray(*model, {"parameters", "gflops", "speedMs"}); !why.empty()) return why;
    }
    return stray(data, {"epoch", "metrics", "system", "fitness", "best_fitness", "modelInfo",
                        "total_epochs"});
  }

  static std::string console_problem(const json& data) {
    const json* content = text::get_member(data, "content");
    if (!is_count(data, "chunkId", 1)) return "chunkId is no count from 1";
    if (!content || !content->is_string()) return "content is needed";
    const auto& lines = content->get_ref<const std::string&>();
    const auto count = 1 + std::count(lines.begin(), lines.end(), '\n');
    if (text::get_int(data, "lineCount") != static_cast<int>(count)) return "lineCount is wrong";
    return stray(data, {"chunkId", "content", "lineCount"});
  }

  static std::string completion_problem(const json& data) {
    if (!has_object(data, "results")) return "results is needed";
    const json& results = data.at("results");
    if (!has_object(results, "metrics") || !all_numbers(results.at("metrics")))
      return "metrics are no numbers";
    if (!results.contains("bestEpoch") || !is_number(results.at("bestEpoch")))
      return "bestEpoch is no number";
    if (!results.contains("bestFitness") || !is_number(results.at("bestFitness")))
      return "bestFitness is no number";
    if (auto why = stray(results, {"metrics", "bestEpoch", "bestFitness", "validation", "modelPath",
                                   "modelSize"});
        !why.empty())
      return why;
    if (!data.contains("classNames") || !data.contains("plots") || !data.at("plots").is_array())
      return "classNames and plots are needed";
    for (const json& plot : data.at("plots"))
      if (auto why = plot_problem(plot); !why.empty()) return why;
    return stray(data, {"results", "classNames", "plots", "runId"});
  }

  static std::string plot_problem(const json& plot) {
    const std::string type = text::get_string(plot, "type");
    if (type == "confusion_matrix") return stray(plot, {"type", "matrix"});
    for (std::string_view known : {"pr_curve", "f1_curve", "precision_curve", "recall_curve"}) {
      if (type != known) continue;
      const json* x = text::get_member(plot, "x");
      const json* y = text::get_member(plot, "y");
      if (!x || !y || x->size() > platform_wire::curve_points_max)
        return type + " has no such points";
      for (const json& row : *y)
        if (row.size() != x->size()) return type + " has a row of another length";
      return stray(plot, {"type", "x", "y", "ap"});
    }
    return "there is no such plot";
  }

  // ---- files ----

  decision give_place(const server_request& request, time_point now) {
    const auto said = text::parse_json(request.body);
    const std::string file_name = said ? text::get_string(*said, "filename") : std::string();
    if (!platform_wire::is_segment(file_name)) return {refuse(400, "filename is needed")};
    std::string why = names_problem(*said);
    if (why.empty() && is_strict)
      why = stray(*said, {"filename", "modelId", "project", "name", "runId"});
    if (!why.empty()) return {refuse(400, why)};
    const auto id = find_model(*said, *user(request));
    if (!id) return {refuse(404, id.error().message)};
    const std::string run = text::get_string(*said, "runId");
    if (!run.empty() && run != models_.at(*id).run_id) return {refuse(409, "no such run")};
    const platform_upload upload = new_place(*id, file_name);
    json reply;
    reply["uploadUrl"] = url_to_put ? url_to_put(upload, now) : upload.upload_path;
    reply["gcsPath"] = upload.path;
    reply["uploadPath"] = upload.upload_path;
    reply["modelId"] = *id;
    platform_change change{now, *id, "place"};
    change.data["filename"] = file_name;
    change.data["path"] = upload.path;
    change.data["uploadPath"] = upload.upload_path;
    return {{200, reply.dump()}, std::move(change)};
  }

  platform_upload new_place(const std::string& id, const std::string& file_name) {
    platform_upload out{.file_name = file_name};
    const std::string number = std::to_string(models_.at(id).uploads.size() + 1);
    out.upload_path = id + "/" + number + "/" + file_name;
    out.path = "gs://bucket/" + out.upload_path;
    return out;
  }

  std::pair<const platform_model*, const platform_upload*> place_of(
      std::string_view upload_path) const {
    for (const auto& [id, model] : models_)
      for (const platform_upload& upload : model.uploads)
        if (upload.upload_path == upload_path) return {&model, &upload};
    return {};
  }

  decision stop(const platform_route& to, time_point now) const {
    const platform_model* model = find(to.owner, to.project, to.name);
    if (!model) return {refuse(404, "no such model")};
    if (model->state != platform_state::training) return {refuse(409, "nothing is trained here")};
    return {tell("cancelled", true), platform_change{now, model->id, "cancel"}};
  }

  server_reply hand_out(const platform_route& to, time_point now) const {
    using enum platform_call;
    if (to.call == dataset || to.call == older_dataset) {
      for (const platform_dataset& each : datasets_)
        if (each.owner == to.owner && each.name == to.name) return hand_out(each, to.call, now);
      return refuse(404, "no such dataset");
    }
    const platform_model* model = find(to.owner, to.project, to.name);
    if (!model) return refuse(404, "no such model");
    const platform_upload* file = model->latest_file();
    if (to.call == older_files) {
      if (!file) return refuse(404, "the model has no file yet");
      return {.status = 302,
              .body = "",
              .location = url_of_file ? url_of_file(*file, now) : file->path};
    }
    json list = json::array();
    if (file) {
      json& entry = list.emplace_back();
      entry["name"] = file->file_name;
      entry["size"] = file->size_bytes;
      entry["downloadUrl"] = url_of_file ? url_of_file(*file, now) : file->path;
    }
    return tell("files", std::move(list));
  }

  server_reply hand_out(const platform_dataset& dataset, platform_call call, time_point now) const {
    if (dataset.file.empty()) return refuse(409, "the dataset is still being processed");
    const std::string url = url_of_dataset ? url_of_dataset(dataset, now) : dataset.file;
    if (call == platform_call::dataset) return tell("downloadUrl", url);
    return {.status = 302, .body = "", .location = url};
  }

  // ---- changes ----

  void start(platform_change change) {
    platform_model& model = models_[change.model_id];
    model.id = change.model_id;
    model.owner = text::get_string(change.data, "owner");
    model.project = text::get_string(change.data, "project");
    model.name = text::get_string(change.data, "name");
    model.asked = text::get_string(change.data, "asked");
    model.run_id = text::get_string(change.data, "runId");
    model.started = std::move(change.data["started"]);
    model.started_at = model.heard_at = change.at;
  }

  static void add_place(platform_model& model, const json& data) {
    model.uploads.push_back({.file_name = text::get_string(data, "filename"),
                             .path = text::get_string(data, "path"),
                             .upload_path = text::get_string(data, "uploadPath"),
                             .run_id = model.run_id});
  }

  static void add_file(platform_model& model, platform_change change) {
    const std::string place = text::get_string(change.data, "uploadPath");
    for (platform_upload& upload : model.uploads) {
      if (upload.upload_path != place) continue;
      upload.arrived = true;
      upload.at = change.at;
      upload.size_bytes = text::get_unsigned(change.data, "bytes");
      upload.hash = text::get_unsigned(change.data, "hash");
      upload.sha256 = text::get_string(change.data, "sha256");
      upload.content = std::move(change.content);
    }
  }

  static void take(platform_model& model, platform_change change) {
    const bool ends = change.kind == "training_complete" || change.kind == "training_failed";
    const bool repeats = ends && model.ending == change.data;
    if (model.state == platform_state::completed && !repeats) ++model.after_the_end;
    // A run that failed, or was silent for so long that it seemed so, may be taken up again.
    if (model.state == platform_state::failed) model.state = platform_state::training;
    model.heard_at = change.at;
    const int epoch = text::get_int(change.data, "epoch").value_or(0);
    const std::uint64_t chunk = text::get_unsigned(change.data, "chunkId");
    if (change.kind == "epoch_end") model.epochs[epoch] = std::move(change.data);
    if (change.kind == "console_output") model.console[chunk] = std::move(change.data);
    if (change.kind == "system_metrics") model.system.push_back(std::move(change.data));
    if (change.kind == "checkpoint_saved")
      set_saved(model, text::get_string(change.data, "modelPath"));
    if (!ends) return;
    model.state =
        change.kind == "training_failed" ? platform_state::failed : platform_state::completed;
    model.ending = std::move(change.data);
  }

  static void set_saved(platform_model& model, const std::string& path) {
    for (platform_upload& upload : model.uploads)
      if (upload.path == path) upload.saved = true;
  }

  std::map<std::string, std::string> keys_;  // key -> user
  std::map<std::string, platform_model> models_;
  std::vector<platform_dataset> datasets_;
  std::size_t made_ = 0;
};

// ---- faults ------------------------------------------------------------------------------------

enum class fault_kind {
  none,
  refused,            // no connection
  reset_before_body,  // the connection breaks when the head was sent
  reset_in_body,      // ... when half of the body was sent, or of a download received
  reset_after_body,   // ... when all was sent, before HUB acted
  reply_lost,         // HUB acted, but its reply does not arrive
  timed_out,          // nothing comes back until the deadline, or a download's stall time-out
  drips,              // HUB acted; its reply trickles in, and is not whole by the deadline
  status,             // `status` with `retry_after` and HUB's error body; HUB did not act
  html,               // 200 with a captive portal's page; HUB did not act
  truncated,          // HUB acted; its JSON is cut, or a download ends in its middle
  wrong_types,        // HUB acted; each value of its JSON or a download's head has another type
  file_missing,       // when half of an upload was sent, `file` is removed
  file_replaced,      // ... another file is renamed over it
  file_truncated,     // ... it is cut to half its length
  file_growing,       // ... something is appended to it
  file_overwritten,   // ... something is written over its beginning
};
inline constexpr std::array<fault_kind, 11> all_faults = {
    fault_kind::refused,       fault_kind::reset_before_body,
    fault_kind::reset_in_body, fault_kind::reset_after_body,
    fault_kind::reply_lost,    fault_kind::timed_out,
    fault_kind::drips,         fault_kind::status,
    fault_kind::html,          fault_kind::truncated,
    fault_kind::wrong_types};
inline constexpr std::array<fault_kind, 5> all_file_faults = {
    fault_kind::file_missing, fault_kind::file_replaced, fault_kind::file_truncated,
    fault_kind::file_growing, fault_kind::file_overwritten};

struct fault {
  fault_kind kind = fault_kind::none;
  int status = 503;
  std::string retry_after = {};
  duration latency = {};            // of this reply, on top of the HUB's; may be all that is wrong
  std::filesystem::path file = {};  // of the kinds that change one
  bool wait_in_body = false;        // retry_after stands in the body alone, as "retryAfter"
};

// A moment as Retry-After writes it, such as "Thu, 01 Jan 2026 00:00:30 GMT".
inline std::string http_date(std::chrono::system_clock::time_point when) {
  constexpr std::string_view weekdays = "SunMonTueWedThuFriSat";
  const auto day = std::chrono::floor<std::chrono::days>(when);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss time(std::chrono::floor<std::chrono::seconds>(when - day));
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.3s, %02u %.3s %04d %02d:%02d:%02d GMT",
                weekdays.data() + std::size_t{3} * std::chrono::weekday(day).c_encoding(),
                static_cast<unsigned>(date.day()),
                text::month_names.data() + std::size_t{3} * (unsigned{date.month()} - 1),
                static_cast<int>(date.year()), static_cast<int>(time.hours().count()),
                static_cast<int>(time.minutes().count()), static_cast<int>(time.seconds().count()));
  return text.data();
}

// Does to a checkpoint what a trainer or a clean-up job might do to it during its upload.
inline void spoil(const std::filesystem::path& file, fault_kind how) {
  constexpr std::string_view other = "another checkpoint";
  std::error_code failed;
  const auto before = std::filesystem::last_write_time(file, failed);
  if (failed) return;  // there is none
  using enum fault_kind;
  if (how == file_missing) {
    std::filesystem::remove(file, failed);
    return;
  }
  if (how == file_replaced) {
    std::filesystem::path fresh = file;
    fresh += ".new";
    std::ofstream(fresh, std::ios::binary) << other;
    machine::replace(fresh, file);
  } else if (how == file_truncated) {
    std::filesystem::resize_file(file, std::filesystem::file_size(file, failed) / 2, failed);
  } else if (how == file_growing) {
    std::ofstream(file, std::ios::binary | std::ios::app) << other;
  } else if (how == file_overwritten) {
    std::fstream(file, std::ios::binary | std::ios::in | std::ios::out) << other;
  } else {
    return;
  }
  // The clock of a file system stands still for milliseconds; this shall show all the same.
  std::filesystem::last_write_time(file, before + 1s, failed);
}

// One request as a fake server saw it.
struct seen_request {
  time_point at;
  std::optional<endpoint> to;  // nothing if it is no call of the server's
  std::string method;
  std::string path;
  std::uint64_t body_bytes;
  int status;        // 0 if no reply arrived
  fault_kind fault;  // what was done to it
};

// What the fakes have in common: requests come through fake_transport, meet faults by script or by
// seed, and are held to expectations; and a storage host. What a real server would refuse, and what
// an expectation did not foresee, is a problem; problems that nobody looks at end the test.
class fake_server {
 public:
  static constexpr std::string_view storage_root = "https://storage.test";

  fake_server(const fake_server&) = delete;
  fake_server& operator=(const fake_server&) = delete;
  virtual ~fake_server() {
    if (problems_seen_ || std::uncaught_exceptions() > 0) return;  // the latter says enough
    const std::vector<std::string> all = problems();
    if (all.empty()) return;
    for (const std::string& each : all) std::fprintf(stderr, "%s: %s\n", name_, each.c_str());
    std::fprintf(stderr, "%s: nobody asked for problems(), so this ends the test\n", name_);
    std::abort();
  }

  // The next `times` requests, or the next to one endpoint, meet this fault.
  void fail_next(fault planned, std::size_t times = 1) {
    planned_.push_back({std::nullopt, std::move(planned), times});
  }
  void fail_next(endpoint which, fault planned, std::size_t times = 1) {
    planned_.push_back({which, std::move(planned), times});
  }
  // Request number `index` from now on (0 is the next) meets this fault.
  void fail_at(std::size_t index, fault planned) { numbered_[count_ + index] = std::move(planned); }
  // No connection between these two moments, counted from now.
  void outage(duration from, duration to) {
    outages_.emplace_back(time_->now() + from, time_->now() + to);
  }
  // Each request meets one of the faults, or a reply that is late, with this probability; if a
  // file is named, uploads also meet what may happen to that.
  void fail_randomly(double probability, std::uint64_t seed, std::filesystem::path file = {}) {
    probability_ = probability;
    random_.seed(seed);
    random_file_ = std::move(file);
  }
  void no_more_faults() {
    planned_.clear();
    numbered_.clear();
    outages_.clear();
    probability_ = 0;
  }

  // Puts a file on the storage host, or another version of it, and returns its address, which a
  // model or a dataset may name; who asks for that gets it signed.
  std::string put_file(std::string_view path, std::string content) {
    std::string address = std::string(storage_root) + "/" + std::string(path);
    files_[address] = std::move(content);
    return address;
  }

  duration url_life = 900s;  // of a signed URL
  // No URL that was signed until now is valid any more.
  void expire_urls() { ++signing_key_; }

  // While this is set there is no connection, whatever the script says.
  bool unreachable = false;

  // How long a reply takes, and how long an upload or a download takes on top for each byte.
  duration latency = {};
  duration latency_per_upload_byte = {};
  duration latency_per_download_byte = {};

  // Says what is wrong with a request's body, "" if nothing is.
  using body_check = std::function<std::string(std::string_view body)>;
  // From the first expectation on, requests must come as expected and in this order. `check` looks at
  // the body, if all of it arrives under the fault that is the answer.
  void expect(endpoint which, fault answer = {}, body_check check = {}) {
    strict_ = true;
    expected_.push_back({which, std::move(answer), std::move(check)});
  }
  // Called before each request is answered, for tests that change the world meanwhile.
  std::function<void(const seen_request&)> on_request = {};
  // Called when half of an upload's body has been read.
  std::function<void()> on_half_upload = {};

  const std::vector<seen_request>& requests() const { return requests_; }
  std::size_t count(endpoint which) const {
    return static_cast<std::size_t>(
        std::count_if(requests_.begin(), requests_.end(),
                      [&](const seen_request& each) { return each.to == which; }));
  }
  bool keep_requests = true;  // in requests()

  bool refusals_are_problems = true;  // of the server itself; scripted faults never are

  // What went wrong, leftover expectations included. Looking at them takes the duty to end the test
  // from the destructor.
  std::vector<std::string> problems() {
    problems_seen_ = true;
    std::vector<std::string> all = problems_;
    for (const auto& left : expected_)
      all.push_back("expected but not seen: " + std::string(to_string(left.which)));
    return all;
  }

  reply answer(const request& message) {
    seen_request seen = look_at(message);
    const fault meets = next_fault(message, seen);
    seen.fault = meets.kind;
    ++count_;
    if (on_request) on_request(seen);
    reply out = play(message, seen, meets);
    if (meets.kind != fault_kind::timed_out && meets.kind != fault_kind::drips)
      out.latency += latency_of(message) + meets.latency;
    if (out.latency > message.deadline) out = nothing_in_time(message.deadline);
    seen.status = out.status;
    if (keep_requests) requests_.push_back(std::move(seen));
    return out;
  }

 protected:
  fake_server(const char* name, const timeline& time, std::string_view root)
      : name_(name), time_(&time), root_(root) {}

  // Which call a request is, its path being behind the root, if it is one.
  virtual std::optional<endpoint> endpoint_of(const request& message,
                                              std::string_view path) const = 0;
  virtual server_reply act(const server_request& request) = 0;
  // What comes to an address of the storage host.
  virtual server_reply take_file(std::string_view address, const form_part& file) = 0;

  time_point now() const { return time_->now(); }
  void add_problem(std::string text) { problems_.push_back(std::move(text)); }

  std::string sign(const std::string& address) const {
    return signed_until(address, (time_->now() + url_life).time_since_epoch().count());
  }

 private:
  struct plan {
    std::optional<endpoint> which;
    fault planned;
    std::size_t times;
  };
  struct expectation {
    endpoint which;
    fault answer;
    body_check check;
  };

  static reply nothing_in_time(duration time) {
    return {.failure = error{errc::timed_out, "no answer in time"}, .latency = time};
  }

  duration latency_of(const request& message) const {
    if (!message.content) return latency;
    return latency +
           latency_per_upload_byte * static_cast<duration::rep>(message.content->size_bytes());
  }

  seen_request look_at(const request& message) const {
    seen_request seen{time_->now(),
                      std::nullopt,
                      message.method,
                      message.url,
                      message.content ? message.content->size_bytes() : message.body.size(),
                      0,
                      fault_kind::none};
    if (seen.path.starts_with(storage_root)) {
      seen.to = endpoint::storage;
      return seen;
    }
    if (seen.path.starts_with(root_)) seen.path.erase(0, root_.size());
    seen.to = endpoint_of(message, seen.path);
    return seen;
  }

  fault next_fault(const request& message, const seen_request& seen) {
    if (unreachable) return {fault_kind::refused};
    if (strict_) return next_expected(seen);
    if (const auto at = numbered_.find(count_); at != numbered_.end()) return at->second;
    for (const auto& [from, to] : outages_)
      if (seen.at >= from && seen.at < to) return {fault_kind::refused};
    for (auto at = planned_.begin(); at != planned_.end(); ++at) {
      if (at->which && at->which != seen.to) continue;
      fault found = at->planned;
      if (--at->times == 0) planned_.erase(at);
      return found;
    }
    if (probability_ > 0 && static_cast<double>(random_() % 1'000'000) < probability_ * 1e6)
      return random_fault(message.content != nullptr);
    return {};
  }

  fault next_expected(const seen_request& seen) {
    check_ = {};
    if (expected_.empty() || expected_.front().which != seen.to) {
      problems_.push_back("not expected: " + seen.method + " " + seen.path);
      return {};
    }
    expectation next = std::move(expected_.front());
    expected_.erase(expected_.begin());
    check_ = std::move(next.check);
    return std::move(next.answer);
  }

  void check_body(const seen_request& seen, std::string_view body) {
    const std::string wrong = check_ ? check_(body) : "";
    if (!wrong.empty())
      problems_.push_back("not as expected: " + seen.method + " " + seen.path + ": " + wrong);
  }

  std::size_t random_below(std::size_t choices) {
    const std::uint64_t roll = random_() % choices;
    return static_cast<std::size_t>(roll);
  }

  // No status that refuses a content for good: what meets these faults still arrives.
  fault random_fault(bool brings_file) {
    constexpr std::array<int, 8> statuses = {401, 403, 408, 429, 500, 502, 503, 504};
    constexpr std::array<duration, 4> latencies = {10ms, 1s, 10s, 1min};
    const bool spoils = brings_file && !random_file_.empty();
    std::vector<fault_kind> kinds(all_faults.begin(), all_faults.end());
    if (spoils) kinds.insert(kinds.end(), all_file_faults.begin(), all_file_faults.end());
    kinds.push_back(fault_kind::none);
    fault out{kinds[random_below(kinds.size())]};
    out.status = statuses[random_below(statuses.size())];
    out.retry_after = random_retry_after();
    if (out.kind == fault_kind::none) out.latency = latencies[random_below(latencies.size())];
    out.file = random_file_;
    return out;
  }

  // Every kind: seconds, dates to come and gone, none, and what a HUB should not send.
  std::string random_retry_after() {
    constexpr std::array<const char*, 9> others = {"",
                                                   "0",
                                                   "7",
                                                   "100000",
                                                   "99999999999999999999",
                                                   "-1",
                                                   "1.5",
                                                   "soon\x7f",
                                                   "Thursday, 01-Jan-26 00:00:30 GMT"};
    const std::size_t pick = random_below(others.size() + 2);
    if (pick < others.size()) return others[pick];
    return http_date(time_->wall_now() + (pick == others.size() ? 30s : -1h));
  }

  reply play(const request& message, const seen_request& seen, const fault& meets) {
    const auto broken = [](const char* how) {
      return reply{.failure = error{errc::not_reachable, how}};
    };
    using enum fault_kind;
    if (meets.kind == refused) return broken("connection refused");
    if (meets.kind == reset_before_body) return broken("connection reset before the body");
    if (meets.kind == timed_out)
      return nothing_in_time(message.sink ? std::min(message.deadline, message.stall_timeout)
                                          : message.deadline);
    std::string body;
    if (auto failed = read_body(message, meets, body)) return {.failure = *failed};
    const bool downloads = seen.to == endpoint::storage && message.method != "PUT";
    if (meets.kind == reset_in_body && !downloads) return broken("connection reset in the body");
    check_body(seen, body);
    if (meets.kind == reset_after_body) return broken("connection reset after the body");
    if (meets.kind == status) return scripted(meets);
    if (meets.kind == html)
      return hand_out(message, {.status = 200, .content_type = "text/html"},
                      "<!doctype html><title>Sign in to the airport</title>");
    if (downloads) return play_download(message, meets.kind);
    server_reply done = seen.to == endpoint::storage ? play_put(message, std::move(body))
                                                     : serve(message, seen, std::move(body));
    if (meets.kind == reply_lost) return broken("connection reset before the reply");
    if (meets.kind == drips) return nothing_in_time(message.deadline);
    if (meets.kind == truncated) done.body.resize(done.body.size() / 2);
    if (meets.kind == wrong_types)
      done.body =
          R"({"success": "yes", "data": [1, 2], "received": "yes", "cancelled": "no", "modelId": 7,
              "runId": [], "uploadUrl": {}})";
    return {.status = done.status,
            .body = done.body,
            .retry_after = done.retry_after,
            .location = done.location};
  }

  // HUB's error body and the Platform's in one.
  static reply scripted(const fault& meets) {
    text::object_writer body;
    body.string("message", "scripted").string("error", "scripted");
    if (meets.wait_in_body)
      body.integer("retryAfter", text::parse_size(meets.retry_after).value_or(0));
    return {.status = meets.status,
            .body = body.text(),
            .retry_after = meets.wait_in_body ? "" : meets.retry_after};
  }

  // ---- the storage host ----

  std::string signed_until(const std::string& address, duration::rep end) const {
    const std::string text = address + "?X-Goog-Expires=" + std::to_string(end);
    const std::string secret = "secret" + std::to_string(signing_key_);
    return text + "&X-Goog-Signature=" + std::to_string(content_hash(text + secret));
  }

  // Whether the signature is this host's and has not expired.
  bool lets_in(const std::string& url) const {
    const std::string address = text::without_query(url);
    const std::size_t at = url.find('=');
    const auto end = at == std::string::npos ? 0 : std::atoll(url.c_str() + at + 1);
    return url == signed_until(address, end) && end > time_->now().time_since_epoch().count();
  }

  void check_no_key(const request& message) {
    for (const auto& [name, value] : message.headers)
      if (name == "x-api-key" || name == "authorization")
        add_problem("a key was sent to the storage host");
  }

  server_reply play_put(const request& message, std::string body) {
    check_no_key(message);
    if (!lets_in(message.url)) return {403, "<Error><Code>ExpiredToken</Code></Error>"};
    const std::uint64_t size = body.size();
    const std::uint64_t hash = content_hash(body);
    return take_file(text::without_query(message.url),
                     {.content = std::move(body), .size_bytes = size, .hash = hash});
  }

  reply play_download(const request& message, fault_kind meets) {
    check_no_key(message);
    if (meets == fault_kind::reply_lost)
      return {.failure = error{errc::not_reachable, "connection reset before the reply"}};
    if (!lets_in(message.url))
      return {.status = 403, .body = "<Error><Code>ExpiredToken</Code></Error>"};
    const auto file = files_.find(text::without_query(message.url));
    if (file == files_.end())
      return {.status = 404, .body = "<Error><Code>NoSuchKey</Code></Error>"};

    std::string_view content = file->second;
    reply head = download_head(message, content);
    if (meets == fault_kind::wrong_types) head.content_length = head.content_range = "yes";
    const std::size_t there = content.size();
    if (meets == fault_kind::truncated || meets == fault_kind::reset_in_body ||
        meets == fault_kind::drips)
      content = content.substr(0, there / 2);
    if (latency_per_download_byte > duration::zero())
      content = content.substr(0, bytes_within(message.deadline, content.size()));
    const bool breaks = content.size() < there && meets != fault_kind::truncated;
    reply out = hand_out(message, std::move(head), content);
    if (meets == fault_kind::drips && !out.failure) return nothing_in_time(message.deadline);
    if (breaks && !out.failure)
      out = {.failure = error{errc::not_reachable, "connection reset in the body"}};
    out.latency = latency_per_download_byte * static_cast<duration::rep>(content.size());
    return out;
  }

  // How many of these bytes come in time.
  std::size_t bytes_within(duration time, std::size_t bytes) const {
    const duration left = std::max(time - latency, duration::zero());
    const auto most = static_cast<std::uint64_t>(left / latency_per_download_byte);
    return static_cast<std::size_t>(std::min<std::uint64_t>(most, bytes));
  }

  // Cuts `content` to what was asked for and is of the version that was asked for.
  static reply download_head(const request& message, std::string_view& content) {
    std::string range, version;
    for (const auto& [name, value] : message.headers) {
      if (name == "range") range = value;
      if (name == "if-range") version = value;
    }
    reply head{.status = 200};
    head.etag = '"' + std::to_string(content_hash(content)) + '"';
    if (range.starts_with("bytes=") && (version.empty() || version == head.etag)) {
      const std::uint64_t begin = text::parse_size(range.substr(6, range.size() - 7)).value_or(0);
      const std::string total = '/' + std::to_string(content.size());
      if (begin >= content.size()) return {.status = 416, .content_range = "bytes *" + total};
      head.status = 206;
      head.content_range =
          "bytes " + std::to_string(begin) + '-' + std::to_string(content.size() - 1) + total;
      content.remove_prefix(static_cast<std::size_t>(begin));
    }
    head.content_length = std::to_string(content.size());
    return head;
  }

  // As a transport does: a 2xx's body goes to the sink, if there is one.
  static reply hand_out(const request& message, reply head, std::string_view body) {
    if (!message.sink || head.status >= 300) {
      head.body = body;
      return head;
    }
    if (auto why = message.sink->begin(head)) return {.failure = *std::move(why)};
    const std::size_t piece = body.size() / 4 + 1;
    for (; !body.empty(); body.remove_prefix(std::min(piece, body.size())))
      if (auto why = message.sink->write(body.substr(0, piece)))
        return {.failure = *std::move(why)};
    return head;
  }

  // Reads the body as a server would, or half of it if the connection breaks there.
  std::optional<error> read_body(const request& message, const fault& meets,
                                 std::string& body) const {
    const unsigned share = meets.kind == fault_kind::reset_in_body ? 2 : 1;
    if (!message.content) {
      body = message.body.substr(0, message.body.size() / share);
      return std::nullopt;
    }
    const std::uint64_t size = message.content->size_bytes();
    const std::uint64_t end = size / share;
    bool halved = false;
    body.resize(static_cast<std::size_t>(end));
    for (std::size_t at = 0; at < body.size();) {
      if (!halved && at >= size / 2) {
        halved = true;
        spoil(meets.file, meets.kind);
        if (on_half_upload) on_half_upload();
      }
      const auto piece = static_cast<std::size_t>(std::clamp<std::uint64_t>(size / 4, 1, end - at));
      const auto got = message.content->read(at, std::span(body).subspan(at, piece));
      if (!got) return got.error();
      at += *got;
    }
    return std::nullopt;
  }

  server_reply serve(const request& message, const seen_request& seen, std::string body) {
    server_request at_server{message.method, seen.path};
    std::string type;
    for (const auto& [name, value] : message.headers) {
      if (name == "x-api-key") at_server.api_key = value;
      if (name == "authorization") at_server.authorization = value;
      if (name == "content-type") type = value;
    }
    constexpr std::string_view multipart = "multipart/form-data; boundary=";
    if (type.starts_with(multipart)) {
      auto form = parse_form(body, type.substr(multipart.size()));
      if (!form) add_problem("a multipart body that cannot be read: " + seen.path);
      at_server.form = std::move(form).value_or(std::vector<form_part>());
    } else {
      at_server.body = std::move(body);
    }
    server_reply out = act(at_server);
    if (out.status >= 400 && refusals_are_problems)
      problems_.push_back(std::to_string(out.status) + " to " + seen.method + " " + seen.path +
                          ": " + out.body);
    return out;
  }

  const char* name_;
  const timeline* time_;
  std::string_view root_;
  unsigned signing_key_ = 0;
  std::map<std::string, std::string> files_;  // on the storage host: address -> content
  std::vector<plan> planned_;
  std::map<std::size_t, fault> numbered_;
  std::vector<std::pair<time_point, time_point>> outages_;
  double probability_ = 0;
  std::mt19937_64 random_;
  std::filesystem::path random_file_;
  bool strict_ = false;
  std::vector<expectation> expected_;
  body_check check_;  // of the request that is being answered
  std::size_t count_ = 0;
  std::vector<seen_request> requests_;
  std::vector<std::string> problems_;
  bool problems_seen_ = false;
};

// A whole HUB in memory.
class fake_hub : public hub_logic, public fake_server {
 public:
  static constexpr std::string_view api_root = "https://api.hub.test";
  static constexpr std::string_view web_root = "https://hub.test";
  static inline const std::string api_key = std::string(hub_v1_wire::api_key_length, 'k');

  explicit fake_hub(const timeline& time) : fake_server("fake_hub", time, api_root) {
    add_key(api_key);
    url_of = [this](const hub_model& model, const std::string& name, time_point) {
      return address_of(model, name);
    };
  }

 private:
  std::optional<endpoint> endpoint_of(const request& message,
                                      std::string_view path) const override {
    const auto to = route(message.method, path);
    return to ? std::optional(to->first) : std::nullopt;
  }
  server_reply act(const server_request& request) override { return handle(request, now()); }
  server_reply take_file(std::string_view, const form_part&) override { return {405, ""}; }

  // What clients are told of a file: a signed URL if it lies on the storage host.
  std::string address_of(const hub_model& model, const std::string& name) {
    const checkpoint_record* last = model.last_checkpoint();
    if (name == "last.pt" && last && !last->content.empty())
      return sign(put_file("models/" + model.about.id + "/last.pt", last->content));
    return name.starts_with(storage_root) ? sign(name) : name;
  }
};

// A whole Platform in memory. One request too many within a minute is answered 429.
class fake_platform : public platform_logic, public fake_server {
 public:
  static constexpr std::string_view web_root = "https://platform.test";
  static inline const std::string api_key = "ul_" + std::string(platform_wire::api_key_digits, '0');
  static inline const std::string owner = "lab";  // whose key it is

  std::size_t requests_per_minute_max = 100;

  explicit fake_platform(const timeline& time) : fake_server("fake_platform", time, web_root) {
    add_key(api_key, owner);
    keep_contents = true;
    url_to_put = [this](const platform_upload& upload, time_point) {
      return sign(std::string(storage_root) + "/" + upload.upload_path);
    };
    url_of_file = [this](const platform_upload& upload, time_point) {
      return sign(put_file(upload.upload_path, upload.content));
    };
    url_of_dataset = [this](const platform_dataset& dataset, time_point) {
      return sign(dataset.file);
    };
  }

 private:
  std::optional<endpoint> endpoint_of(const request& message,
                                      std::string_view path) const override {
    const auto to = route(message.method, path);
    if (!to) return std::nullopt;
    if (to->call == platform_call::event) return event_of(message.body);
    if (to->call == platform_call::upload) return endpoint::upload;
    if (to->call == platform_call::account) return endpoint::account;
    if (to->call == platform_call::stop) return endpoint::stop;
    return endpoint::files;
  }

  static std::optional<endpoint> event_of(std::string_view body) {
    const auto said = text::parse_json(body);
    const std::string name = said ? text::get_string(*said, "event") : std::string();
    using enum endpoint;
    for (const endpoint each : {training_started, epoch_end, console_output, checkpoint_saved,
                                training_complete, training_failed, system_metrics})
      if (to_string(each) == name) return each;
    return name == "training_progress" ? std::optional(system_metrics) : std::nullopt;
  }

  server_reply act(const server_request& request) override {
    std::erase_if(last_minute_, [&](time_point at) { return at <= now() - 1min; });
    if (last_minute_.size() >= requests_per_minute_max)
      return {429, R"({"error": "too many requests", "retryAfter": 60})", "60"};
    last_minute_.push_back(now());
    const std::size_t before = after_the_end();
    server_reply out = handle(request, now());
    if (after_the_end() > before) add_problem("an event came after training_complete");
    return out;
  }

  std::size_t after_the_end() const {
    std::size_t out = 0;
    for (const auto& [id, model] : models()) out += model.after_the_end;
    return out;
  }

  server_reply take_file(std::string_view address, const form_part& file) override {
    decision out = decide_file(address.substr(storage_root.size() + 1), file, now());
    if (out.change) apply(*std::move(out.change));
    return out.reply;
  }

  std::vector<time_point> last_minute_;
};

class fake_transport {
 public:
  explicit fake_transport(fake_server& to) : server_(&to) {}
  fake_transport(const fake_transport& other) : server_(other.server_) {}
  fake_transport& operator=(const fake_transport&) = delete;

  reply send(const request& message) {
    if (cancelled_) return {.failure = error{errc::cancelled, "The request was given up."}};
    return server_->answer(message);
  }
  void cancel() noexcept { cancelled_ = true; }

 private:
  fake_server* server_;
  bool cancelled_ = false;
};

// ---- a disk ------------------------------------------------------------------------------------

// What a crash takes with it.
enum class crash_kind {
  process,  // nothing that was written
  power,    // of what was not synced, all, or what the seed says: a part, nothing, a removal undone
};

// A disk in memory for a session's spool, on which everything can go wrong: it is full or broken, its
// content is altered, and whoever uses it dies at any operation. A write counts as two, so that
// death can tear it, and so does a replacement.
class crash_disk final : public spool_storage {
 public:
  using files = std::map<std::string, std::string>;

  std::uintmax_t bytes_max = std::numeric_limits<std::uintmax_t>::max();  // then it is full
  bool broken = false;                                                    // no write succeeds

  // Whoever uses the disk dies at operation `index` from now on (0 is the next): neither that one
  // nor any later one has an effect. Calls `then` at that moment.
  void die_at(std::uint64_t index, std::function<void()> then = {}) {
    dies_at_ = operations_ + index;
    then_ = std::move(then);
  }
  bool dead() const noexcept { return dead_; }
  std::uint64_t operations() const noexcept { return operations_; }

  // The disk as the next process finds it. Sessions from before must be gone.
  void restart(crash_kind kind, std::uint64_t seed = 0) {
    dead_ = false;
    dies_at_ = std::numeric_limits<std::uint64_t>::max();
    std::mt19937_64 random(seed);
    if (kind == crash_kind::power)
      for (auto& [path, folder] : folders_) lose_unsynced(folder, seed == 0 ? nullptr : &random);
  }

  // What a folder holds, to look at and to alter.
  files& folder(const std::filesystem::path& path) { return at(path).seen; }
  std::uintmax_t bytes() const {
    std::uintmax_t out = 0;
    for (const auto& [path, folder] : folders_)
      for (const auto& [name, content] : folder.seen) out += content.size();
    return out;
  }

  result<std::unique_ptr<spool_folder>> open(const std::filesystem::path& path) override {
    if (!act()) return failure();
    tree& folder = at(path);
    if (folder.locked) return error{errc::spool_locked, "The folder is in use by another session."};
    return std::unique_ptr<spool_folder>(std::make_unique<held_folder>(*this, folder));
  }

 private:
  struct tree {
    files seen = {};                     // by processes
    files safe = {};                     // from a power failure
    std::set<std::string> renamed = {};  // synced before it got this name: there is old or new
    bool locked = false;
  };

  class held_file final : public body_source {
   public:
    explicit held_file(std::string content) : content_(std::move(content)) {}
    std::uint64_t size_bytes() const override { return content_.size(); }
    result<std::size_t> read(std::uint64_t offset, std::span<char> out) override {
      const auto at = static_cast<std::size_t>(std::min<std::uint64_t>(offset, content_.size()));
      return content_.copy(out.data(), out.size(), at);
    }

   private:
    std::string content_;
  };

  class held_folder final : public spool_folder {
   public:
    held_folder(crash_disk& disk, tree& folder) : disk_(disk), folder_(folder) {
      folder_.locked = true;
    }
    held_folder(const held_folder&) = delete;
    held_folder& operator=(const held_folder&) = delete;
    ~held_folder() override { folder_.locked = false; }

    std::vector<entry> list() const override {
      std::vector<entry> out;
      for (const auto& [name, content] : folder_.seen) out.push_back({name, content.size()});
      return out;
    }

    result<std::string> read(std::string_view name) const override {
      const auto found = folder_.seen.find(std::string(name));
      if (found == folder_.seen.end()) return failure();
      return found->second;
    }

    std::optional<error> append(std::string_view name, std::string_view bytes) override {
      const std::size_t half = bytes.size() / 2;
      std::string& file = folder_.seen[std::string(name)];
      if (!disk_.write(file, bytes.substr(0, half)) || !disk_.write(file, bytes.substr(half)))
        return failure();
      return std::nullopt;
    }

    std::optional<error> sync(std::string_view name) override {
      if (!disk_.act() || disk_.broken) return failure();
      make_safe(std::string(name));
      return std::nullopt;
    }

    std::optional<error> replace(std::string_view name, std::string_view bytes) override {
      const std::string file(name);
      const std::string fresh = file + std::string(machine::fresh_file::mark) + "0";
      folder_.seen.erase(fresh);
      if (auto why = append(fresh, bytes)) return why;
      if (auto why = sync(fresh)) return why;
      if (!disk_.act()) return failure();
      folder_.seen[file] = std::move(folder_.seen[fresh]);
      folder_.seen.erase(fresh);
      folder_.renamed.insert(file);
      return sync(file);
    }

    result<std::uintmax_t> adopt(const std::filesystem::path& from, std::string_view name,
                                 bool) override {
      remove(name);  // what a dead session left and a disk that failed could not let go
      if (folder_.seen.contains(std::string(name))) return failure();
      std::ifstream in(from, std::ios::binary);
      const std::string content{std::istreambuf_iterator<char>(in), {}};
      if (auto why = append(name, content)) return *why;
      return content.size();
    }

    void remove(std::string_view name) override {
      if (disk_.act() && !disk_.broken) folder_.seen.erase(std::string(name));
    }

    result<std::shared_ptr<body_source>> open(std::string_view name) const override {
      auto content = read(name);
      if (!content) return content.error();
      return std::shared_ptr<body_source>(std::make_shared<held_file>(*std::move(content)));
    }

   private:
    void make_safe(const std::string& name) {
      std::erase_if(folder_.safe,
                    [&](const auto& file) { return !folder_.seen.contains(file.first); });
      folder_.renamed.erase(name);
      if (const auto file = folder_.seen.find(name); file != folder_.seen.end())
        folder_.safe[name] = file->second;
    }

    crash_disk& disk_;
    tree& folder_;
  };

  static error failure() { return {errc::file_error, "The disk of this test does not do that."}; }

  tree& at(const std::filesystem::path& path) { return folders_[path.lexically_normal().string()]; }

  // Counts an operation. False where its process is dead, or dies of it.
  bool act() {
    if (dead_ || operations_++ != dies_at_) return !dead_;
    dead_ = true;
    if (then_) then_();
    return false;
  }

  bool write(std::string& file, std::string_view bytes) {
    if (!act() || broken) return false;
    const std::uintmax_t room = bytes_max - std::min(bytes_max, this->bytes());
    file += bytes.substr(0, static_cast<std::size_t>(std::min<std::uintmax_t>(room, bytes.size())));
    return room >= bytes.size();
  }

  static void lose_unsynced(tree& folder, std::mt19937_64* random) {
    files found;
    const auto pick = [&](std::size_t choices) {
      const std::uint64_t roll = random ? (*random)() % choices : 0;
      return static_cast<std::size_t>(roll);
    };
    for (const auto& [name, safe] : folder.safe)
      if (folder.seen.contains(name) || pick(2) == 0) found[name] = safe;
    for (const auto& [name, seen] : folder.seen) {
      std::string& content = found[name];
      const std::size_t synced = seen.starts_with(content) ? content.size() : 0;
      switch (folder.renamed.contains(name) ? pick(2) : pick(4)) {
        case 1: content = seen; break;
        case 2: content = seen.substr(0, synced + pick(seen.size() - synced + 1)); break;
        case 3:  // the length has arrived, but not all of the blocks
          content = seen.substr(0, synced + pick(seen.size() - synced + 1));
          content.resize(seen.size(), '\0');
          break;
        default:
          if (!folder.safe.contains(name)) found.erase(name);
      }
    }
    folder.renamed.clear();
    folder.seen = found;
    folder.safe = std::move(found);
  }

  std::map<std::string, tree> folders_;
  std::uint64_t operations_ = 0;
  std::uint64_t dies_at_ = std::numeric_limits<std::uint64_t>::max();
  bool dead_ = false;
  std::function<void()> then_;
};

// ---- simulation --------------------------------------------------------------------------------

using training_session = basic_training_session<fake_transport, virtual_clock, virtual_sleeper>;
using platform_session =
    basic_training_session<fake_transport, virtual_clock, virtual_sleeper, platform>;

// Virtual time and a HUB in it. Sessions that it starts must end before it does.
class simulation {
 public:
  simulation() = default;
  simulation(const simulation&) = delete;
  simulation& operator=(const simulation&) = delete;

  timeline time;
  fake_hub hub{time};
  fake_platform platform{time};
  std::vector<std::string> log;  // what the sessions said

  void advance(duration by) { time.advance(by); }

  // Ends a session as the death of its process would: nothing more that it does reaches a server or
  // its spool's disk, which is then as the next process finds it.
  template <class Session>
  void crash(std::unique_ptr<Session>& session, crash_disk& disk,
             crash_kind kind = crash_kind::process, std::uint64_t seed = 0) {
    if (!disk.dead()) disk.die_at(0);
    const bool hub_before = std::exchange(hub.unreachable, true);
    const bool platform_before = std::exchange(platform.unreachable, true);
    session.reset();
    hub.unreachable = hub_before;
    platform.unreachable = platform_before;
    disk.restart(kind, seed);
  }

  // Options that reach nothing outside: no environment, settings file, terminal or signal.
  session_options options() {
    session_options out;
    out.endpoints = {.api = std::string(fake_hub::api_root),
                     .web = std::string(fake_hub::web_root)};
    out.credentials.api_key = fake_hub::api_key;
    out.credentials.prompt = false;
    out.credentials.settings_file = "no-settings.json";
    out.retry.seed = 1;
    out.log = [this](log_level, std::string_view text) { log.emplace_back(text); };
    out.progress = [](const transfer_progress&) {};
    out.read_system = [] { return system_figures(); };
    out.handle_signals = false;
    out.rank = 0;
    return out;
  }

  // Templates, so that only who starts a session here waits for the compiler to make its code.
  template <class Session = training_session>
  Session start(std::string_view identifier) {
    return start<Session>(identifier, options());
  }
  template <class Session = training_session>
  Session start(std::string_view identifier, session_options with) {
    return Session(identifier, std::move(with), fake_transport(hub), virtual_clock(time),
                   virtual_sleeper(time));
  }

  // The same for a run on the Platform.
  session_options platform_options() {
    session_options out = options();
    out.endpoints = {.web = std::string(fake_platform::web_root)};
    out.credentials.api_key = fake_platform::api_key;
    return out;
  }
  template <class Session = platform_session>
  Session start(const platform_run& run) {
    return start<Session>(run, platform_options());
  }
  template <class Session = platform_session>
  Session start(const platform_run& run, session_options with) {
    return Session(run, std::move(with), fake_transport(platform), virtual_clock(time),
                   virtual_sleeper(time));
  }
};

}  // namespace testing

#endif  // HUB_SESSION_ADDS_SESSION

}  // namespace v0_1
}  // namespace hub

// =================================================================================================
// hygiene
//
// Rules: what is left defined is HUB_SESSION_VERSION*, the include guard and the user's switches.
// =================================================================================================

#if defined(HUB_SESSION_ASSERTS_NOTHING)
#undef HUB_SESSION_ASSERTS_NOTHING
#undef HUB_SESSION_ASSERT
#endif
#undef HUB_SESSION_POSIX
#undef HUB_SESSION_WINDOWS
#undef HUB_SESSION_ADDS_INTERFACE
#undef HUB_SESSION_ADDS_SESSION
#undef HUB_SESSION_ADDS_HTTPLIB
#pragma pop_macro("check")
#pragma pop_macro("max")
#pragma pop_macro("min")
