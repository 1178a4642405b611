// SPDX-License-Identifier: MIT
//
// Tests of the machine room: files, locks, the terminal, the log and what the system's headers
// say of what is declared by hand there.

#if !defined(HUB_SESSION_NO_HTTPLIB)
#define HUB_SESSION_NO_HTTPLIB
#endif
#include "../hub_session.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "support/world.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#endif

namespace machine_tests {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {

#if defined(__unix__) || defined(__APPLE__)

namespace posix = hub::machine::posix;

// ---- what is declared by hand --------------------------------------------------------------------

template <class T>
constexpr bool has_room = sizeof(T) <= sizeof(posix::opaque) &&
                          alignof(T) <= alignof(posix::opaque);

static_assert(has_room<sigset_t>);
static_assert(has_room<struct sigaction>);
static_assert(has_room<termios>);
static_assert(posix::standard_in == STDIN_FILENO && posix::standard_error == STDERR_FILENO);
static_assert(posix::set_flags == F_SETFD && posix::close_on_exec == FD_CLOEXEC);
#if defined(F_FULLFSYNC)
static_assert(posix::force_to_platter == F_FULLFSYNC);
#endif
static_assert(posix::exclusive == LOCK_EX && posix::without_waiting == LOCK_NB);
static_assert(posix::readable == POLLIN && posix::writable == POLLOUT);
static_assert(sizeof(posix::polled) == sizeof(pollfd) &&
              offsetof(posix::polled, descriptor) == offsetof(pollfd, fd) &&
              offsetof(posix::polled, events) == offsetof(pollfd, events) &&
              offsetof(posix::polled, revents) == offsetof(pollfd, revents));
#if defined(__linux__) || defined(__APPLE__)
static_assert(sizeof(posix::person) == sizeof(passwd) &&
              offsetof(posix::person, user) == offsetof(passwd, pw_uid) &&
              offsetof(posix::person, home) == offsetof(passwd, pw_dir));
#endif
static_assert(posix::hang_up == SIGHUP && posix::interrupt == SIGINT && posix::quit == SIGQUIT &&
              posix::terminate == SIGTERM);
static_assert(posix::broken_pipe == SIGPIPE);
static_assert(posix::add_to_mask == SIG_BLOCK && posix::replace_mask == SIG_SETMASK);
static_assert(posix::after_output == TCSAFLUSH);
static_assert(std::is_same_v<std::ptrdiff_t, ssize_t> || sizeof(std::ptrdiff_t) == sizeof(ssize_t));
static_assert(std::is_same_v<pid_t, int>);

TEST_CASE("what ignores a signal is told from handlers") {
  CHECK(posix::ignored() == SIG_IGN);
  CHECK(posix::ignored() != SIG_DFL);
}

TEST_CASE("an action that was put aside is put back as it was, flags and mask and all") {
  struct sigaction wanted {};
  wanted.sa_flags = static_cast<int>(SA_SIGINFO | SA_ONSTACK | SA_RESETHAND);  // unsigned, the last
  wanted.sa_sigaction = [](int, siginfo_t*, void*) {};
  sigaddset(&wanted.sa_mask, SIGUSR1);
  struct sigaction original {};
  REQUIRE(::sigaction(SIGUSR2, &wanted, &original) == 0);

  posix::opaque before;
  CHECK(posix::signal_action(SIGUSR2, nullptr, &before) == 0);
  CHECK(posix::handle_signal(SIGUSR2, [](int) {}) != SIG_ERR);
  CHECK(posix::signal_action(SIGUSR2, &before, nullptr) == 0);
  struct sigaction now {};
  ::sigaction(SIGUSR2, &original, &now);
  CHECK(now.sa_sigaction == wanted.sa_sigaction);
  CHECK((now.sa_flags & wanted.sa_flags) == wanted.sa_flags);
  CHECK(sigismember(&now.sa_mask, SIGUSR1) == 1);
}

TEST_CASE("a quiet thread takes no signal, and its maker's are what they were") {
  sigset_t here, there;
  sigemptyset(&there);
  hub::machine::quiet_thread([&there] { ::pthread_sigmask(SIG_SETMASK, nullptr, &there); }).join();
  ::pthread_sigmask(SIG_SETMASK, nullptr, &here);
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGALRM, SIGUSR1}) {
    CHECK(sigismember(&there, number) == 1);
    CHECK(sigismember(&here, number) == 0);
  }
}

// ---- files ---------------------------------------------------------------------------------------

TEST_CASE("what is opened is closed in a child that is started") {
  const scratch_folder folder;
  const auto file = hub::machine::open(folder.write("file", "content"), "rb");
  REQUIRE(file);
  CHECK((::fcntl(fileno(file.get()), F_GETFD) & FD_CLOEXEC) != 0);
  const auto fresh = hub::machine::fresh_file::make(folder / "other");
  REQUIRE(fresh);
  CHECK((::fcntl(fileno(fresh->file.get()), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("a file that is open is found whatever became of its name") {
  const scratch_folder folder;
  const fs::path name = folder.write("file", "content");
  const auto file = hub::machine::open(name, "rb");
  REQUIRE(file);
  CHECK(hub::machine::is_named(file.get(), name));
  const auto before = hub::machine::fingerprint_of(name);
  fs::rename(name, folder / "elsewhere");
  CHECK_FALSE(hub::machine::is_named(file.get(), name));
  folder.write("file", "another");
  CHECK_FALSE(hub::machine::is_named(file.get(), name));
  fs::remove(folder / "elsewhere");
  CHECK(hub::machine::fingerprint_of(hub::machine::name_of_open(file.get(), name)) == before);
}

TEST_CASE("a new file beside another is for this user alone, from the start") {
  const scratch_folder folder;
  const mode_t before = ::umask(0);
  const auto fresh = hub::machine::fresh_file::make(folder / "file");
  hub::machine::make_private(folder / "private");
  ::umask(before);
  REQUIRE(fresh);
  for (const fs::path& each : {fresh->name, folder / "private"})
    CHECK(fs::status(each).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
}

#endif

TEST_CASE("making a private file leaves what is there alone") {
  const scratch_folder folder;
  hub::machine::make_private(folder.write("file", "content"));
  CHECK(hub::machine::read_text_file(folder / "file") == "content");
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
}

#if defined(__unix__) || defined(__APPLE__)
TEST_CASE("what replaces a file goes where its name leads, and the link stays") {
  const scratch_folder folder;
  fs::create_directory(folder / "real");
  folder.write("real/settings.yaml", "a: 1\n");
  fs::create_symlink(fs::path("real") / "settings.yaml", folder / "link.yaml");
  fs::create_symlink(folder / "link.yaml", folder / "settings.yaml");
  CHECK(hub::machine::save_key(folder / "settings.yaml", "KEY"));
  CHECK(fs::is_symlink(folder / "settings.yaml"));
  CHECK(fs::is_symlink(folder / "link.yaml"));
  CHECK(hub::machine::read_text_file(folder / "real" / "settings.yaml") ==
        "a: 1\napi_key: \"KEY\"\n");
  fs::create_symlink(fs::path("real") / "new.json", folder / "dangling.json");
  CHECK(hub::machine::followed(folder / "dangling.json") == folder / "real" / "new.json");
  fs::create_symlink("circle", folder / "circle");
  CHECK(hub::machine::followed(folder / "circle") == folder / "circle");
}
#endif

TEST_CASE("what a dead process left is swept, and what a living one holds stays") {
  const scratch_folder folder;
  auto held = hub::machine::fresh_file::make(folder / "file");
  auto left = hub::machine::fresh_file::make(folder / "file");
  REQUIRE((held && left));
  left->file.reset();  // its lock goes with it, as with a process
  folder.write("file", "another's");
  hub::machine::fresh_file::sweep(folder / "file");
  CHECK(fs::exists(held->name));
  CHECK_FALSE(fs::exists(left->name));
  CHECK(fs::exists(folder / "file"));
}

TEST_CASE("a lock that another has is told from one that cannot be had") {
  const scratch_folder folder;
  const fs::path file = folder.write("file", "content");
  const hub::machine::file_lock first(file), second(file), missing(folder / "missing");
  CHECK(first.held());
  CHECK_FALSE(second.held());
  CHECK(second.taken());
  CHECK_FALSE(missing.held());
  CHECK_FALSE(missing.taken());
  CHECK(missing.why_not() == std::errc::no_such_file_or_directory);
}

TEST_CASE("a file is copied whole, in pieces where the system does not do it") {
  const scratch_folder folder;
  std::string content;
  for (int i = 0; content.size() < 3 * hub::mebibyte; ++i) content += std::to_string(i);
  const fs::path original = folder.write("file", content);
  const auto from = hub::machine::open(original, "rb");
  const auto to = hub::machine::open(folder / "copy", "wb");
  REQUIRE(hub::machine::seek(from.get(), 7));
  CHECK(hub::machine::copy_rest(from.get(), to.get()));
  std::ifstream copy(folder / "copy", std::ios::binary);
  CHECK(std::string(std::istreambuf_iterator<char>(copy), {}) == content.substr(7));
}

// ---- settings ------------------------------------------------------------------------------------

using hub::machine::settings_format;

// As PyYAML 6.0 reads them.
constexpr std::pair<std::string_view, std::string_view> yaml_forms[] = {
    {"api_key: KEY\n", "KEY"},
    {"api_key:   KEY   \n", "KEY"},
    {"api_key : KEY\n", "KEY"},
    {"\"api_key\": KEY\n", "KEY"},
    {"'api_key': 'KEY'\n", "KEY"},
    {"  a: 1\n  api_key: KEY\n", "KEY"},
    {"%YAML 1.1\n---\napi_key: KEY\n", "KEY"},
    {"--- # settings\napi_key: KEY\n...\n", "KEY"},
    {"api_key: !!str KEY\n", "KEY"},
    {"api_key: &a KEY\n", "KEY"},
    {"api_key:\n  KEY\nb: 1\n", "KEY"},
    {"api_key: # below\n  'KEY'\n", "KEY"},
    {"api_key: |\n  KEY\nb: 1\n", "KEY"},
    {"api_key: >-\n  KEY\n", "KEY"},
    {"api_key: |-\n    KEY # no comment", "KEY # no comment"},
    {"api_key: one\nb: 1\napi_key: KEY\n", "KEY"},
    {"api_key: 'it''s'\n", "it's"},
    {"api_key: \"\\x4B\\u0045\\U00000059\"\n", "KEY"},
    {"api_key: \"K\\\n  EY\"\n", "KEY"},
    {"api_key: \"a\n  b\"\n", "a b"},
    {"api_key: KEY # comment\n", "KEY"},
    {"api_key: K#EY\n", "K#EY"},
    {"api_key: K:EY\n", "K:EY"},
    {"api_key: Null\n", ""},
    {"api_key: NULL\n", ""},
    {"a:\n- x\n- api_key: no\napi_key: KEY\n", "KEY"},
    {"a: [1,\n  {api_key: no}]\napi_key: KEY\n", "KEY"},
    {"a: 'api_key: no\n\n  api_key: no'\napi_key: KEY\n", "KEY"},
    {"a: |\n  api_key: no\napi_key: KEY\n", "KEY"},
    {"a:\n  b: 1\n\n  api_key: no\n# api_key: no\napi_key: KEY\n", "KEY"},
    {"{api_key: KEY, a: 1}\n", "KEY"},
    {"{'a': 1, \"api_key\":\"KEY\"}", "KEY"},
    {"--- {a: {api_key: no}, api_key: KEY}\n", "KEY"},
    {"{\n  a: 1, # api_key: no\n  api_key: KEY,\n}\n", "KEY"},
    {"{a: [x, 'api_key: no', {b: c}],\n api_key: 'KEY'\n}", "KEY"},
    {"{api_key: one, api_key: KEY}", "KEY"},
    {"{}\n", ""},
    {"{a: 1}", ""},
    {"{api_key: }", ""},
    {"a: 1\r\napi_key: KEY\r\nb: 2\r\n", "KEY"},
    {"a: 1\rapi_key: KEY\rb: 2\r", "KEY"},
    {"", ""},
    {"# nothing\n", ""},
    {"---\n", ""},
    {"api_key: ''\n", ""},
    {"api_key: [KEY]\n", ""},
    {"path: C:\\dir\\\napi_key: KEY\n", "KEY"},
    {"url: https://x # 'quote\napi_key: KEY\n", "KEY"},
    {"a: it's\napi_key: KEY\n", "KEY"},
    {"<<: {b: 1}\napi_key: KEY\n", "KEY"},
    {"\xEF\xBB\xBF"
     "api_key: KEY\n",
     "KEY"},
    {"{a: http://x, api_key: KEY}", "KEY"},
    {"a: \"\\_\\N\\L\\P\"\napi_key: \"KEY\"\n", "KEY"},
    {"&k api_key: KEY\n", "KEY"},
    {"!!str api_key: !!str 'KEY'\n", "KEY"},
    {"{!!str api_key: !!str KEY}", "KEY"},
};

TEST_CASE("settings in YAML are read as a parser reads them, whoever wrote them") {
  for (const auto& [text, key] : yaml_forms) {
    CAPTURE(text);
    const auto found = hub::machine::read_api_key(text, settings_format::yaml_text);
    CHECK(found);
    if (found) CHECK(*found == key);
  }
}

TEST_CASE("a key is put into settings in YAML of every form, and what is read back is that key") {
  for (const auto& [text, key] : yaml_forms) {
    CAPTURE(text);
    const auto replaced =
        hub::machine::replace_api_key(text, "NEW", settings_format::yaml_text).value_or("refused");
    CAPTURE(replaced);
    CHECK(hub::machine::find_api_key(replaced, settings_format::yaml_text) == "NEW");
    const bool has_another = text.find("a: ") != std::string_view::npos;
    if (has_another) CHECK(replaced.find("a: ") != std::string::npos);
  }
}

TEST_CASE("a key is saved without what a killed process left of one") {
  const scratch_folder folder;
  const fs::path left = folder.write("settings.json.new-aBcDeF", "{\"api_key\": \"OLD\"}");
  CHECK(hub::machine::save_key(folder / "settings.json", "NEW"));
  CHECK(hub::machine::read_saved_key(folder / "settings.json") == "NEW");
  CHECK_FALSE(fs::exists(left));
}

TEST_CASE("a key that holds more settings is none, and nothing is put in its place") {
  const std::string_view text = "api_key:\n  KEY: x\n";
  CHECK(hub::machine::find_api_key(text, settings_format::yaml_text) == "");
  CHECK_FALSE(hub::machine::replace_api_key(text, "NEW", settings_format::yaml_text));
}

TEST_CASE("settings that no YAML parser takes for a mapping are said, and left alone") {
  for (const std::string_view text : {
           "api_key KEY\n",
           "api_key: 'KEY\n",
           "api_key: \"KEY\n",
           "api_key: \"\\q\"\n",
           "api_key: a: b\n",
           "{api_key: KEY\n",
           "api_key: @KEY\n",
           "api_key: *x\n",
           "{a: &x KEY, api_key: *x}",
           "api_key: 'KEY' more\n",
           "  a: 1\napi_key: KEY\n",
           "a: [1\napi_key: KEY\n",
           "api_key: `KEY`\n",
           "api_key:KEY\n",
       }) {
    CAPTURE(text);
    const auto found = hub::machine::read_api_key(text, settings_format::yaml_text);
    CHECK_FALSE(found);
    if (!found) CHECK(found.error().message.starts_with("as YAML, line "));
    CHECK_FALSE(hub::machine::replace_api_key(text, "NEW", settings_format::yaml_text));
  }
}

TEST_CASE("settings that cannot be read are said with the file's name and the reason") {
  const scratch_folder folder;
  const auto why = [&](std::string_view name, std::string_view content) {
    const auto found = hub::machine::find_saved_key(folder.write(name, content));
    return found ? "the key " + *found : found.error().message;
  };
  using namespace std::string_view_literals;
  CHECK(contains(why("a.yaml",
                     "\xFF\xFE"
                     "a\0:\0"sv),
                 "a.yaml cannot be read: it is in UTF-16"));
  CHECK(contains(why("b.json", "\xFE\xFF\0{\0}"sv), "b.json cannot be read: it is in UTF-16"));
  CHECK(contains(why("c.json", "{"), "c.json cannot be read: it is no JSON object"));
  CHECK(contains(why("d.yaml", "a: 1\nb\n"), "d.yaml cannot be read: as YAML, line 2"));
  CHECK(why("e.json", "") == "the key ");
  fs::create_directory(folder / "f.json");
  const auto of_folder = hub::machine::find_saved_key(folder / "f.json");
  REQUIRE_FALSE(of_folder);
  CHECK(contains(of_folder.error().message, "not a regular file"));
  CHECK(hub::machine::find_saved_key(folder / "missing.json"));
}

#if defined(__linux__)
TEST_CASE("settings are where Ultralytics has them, and never in the working folder") {
  const scratch_folder folder;
  const environment none("YOLO_CONFIG_DIR", nullptr);
  const auto in = [](const fs::path& base) { return base / "Ultralytics" / "settings.json"; };
  const auto found = [] { return hub::machine::find_settings_file({}); };
  const environment home("HOME", (folder / "home").string().c_str());
  {
    const environment xdg("XDG_CONFIG_HOME", (folder / "xdg").string().c_str());
    CHECK(found() == in(folder / "xdg"));
    const environment yolo("YOLO_CONFIG_DIR", folder.path().string().c_str());
    CHECK(found() == folder / "settings.json");
    fs::create_directories(folder / "Ultralytics");
    folder.write("Ultralytics/settings.yaml", "a: 1\n");
    CHECK(found() == folder / "Ultralytics" / "settings.yaml");
    folder.write("settings.json", "{}");  // of an older version of the package
    CHECK(found() == folder / "Ultralytics" / "settings.yaml");
    fs::remove_all(folder / "Ultralytics");
    CHECK(found() == folder / "settings.json");
  }
  const passwd* const user = ::getpwuid(::getuid());
  for (const char* nowhere : {static_cast<const char*>(nullptr), "", "relative"}) {
    const environment xdg("XDG_CONFIG_HOME", nowhere);
    const environment yolo("YOLO_CONFIG_DIR", nowhere);
    CHECK(found() == in(folder / "home" / ".config"));
    const environment no_home("HOME", nowhere);
    const fs::path listed = user ? user->pw_dir : "";
    CHECK(found().parent_path() == (user ? in(listed / ".config").parent_path() : fs::path()));
  }
}
#endif

// ---- what is said ---------------------------------------------------------------------------------

// A log function that stays in its first call until it is let go.
struct slow_log {
  std::promise<void> called, let_go;
  std::shared_future<void> goes_on{let_go.get_future()};
  std::vector<std::string> heard;
  std::mutex mutex;

  void operator()(std::string_view text) {
    const bool first = [&] {
      const std::lock_guard lock(mutex);
      heard.emplace_back(text);
      return heard.size() == 1;
    }();
    if (!first) return;
    called.set_value();
    goes_on.wait();
  }
};

hub::session_options options_with(const std::shared_ptr<slow_log>& log) {
  hub::session_options out;
  out.log = [log](hub::log_level, std::string_view text) { (*log)(text); };
  return out;
}

TEST_CASE("what the log has no room for is counted, and said where it is missing") {
  const auto slow = std::make_shared<slow_log>();
  hub::session_options options = options_with(slow);
  options.limits.log_queue_bytes_max = 3000;
  options.limits.log_deadline = 1h;
  hub::machine::reporter report(options, true, "a service");
  report.log(hub::log_level::info, "first");
  slow->called.get_future().wait();
  for (char c : {'a', 'b', 'c', 'd', 'e'}) report.log(hub::log_level::info, std::string(1000, c));
  slow->let_go.set_value();
  report.wait();
  report.log(hub::log_level::info, "last");
  report.close();
  CHECK(slow->heard == std::vector<std::string>{"first", std::string(1000, 'a'),
                                                std::string(1000, 'b'),
                                                "3 messages were left out here.", "last"});
}

TEST_CASE("a log function that does not return is waited for a while, and not called again") {
  const auto slow = std::make_shared<slow_log>();
  {
    hub::session_options options = options_with(slow);
    options.limits.log_deadline = 1ms;
    hub::machine::reporter report(options, true, "a service");
    report.log(hub::log_level::info, "first");
    report.log(hub::log_level::info, "second");
    slow->called.get_future().wait();
  }
  slow->let_go.set_value();
  while (slow.use_count() > 1) std::this_thread::yield();  // until its thread has gone
  CHECK(slow->heard == std::vector<std::string>{"first"});
}

#if defined(__unix__) || defined(__APPLE__)
TEST_CASE("a standard error without a reader raises no SIGPIPE, and keeps nobody") {
  struct sigaction before {
  }, standard{};
  standard.sa_handler = SIG_DFL;
  ::sigaction(SIGPIPE, &standard, &before);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const int original = ::dup(STDERR_FILENO);
  ::dup2(ends[1], STDERR_FILENO);
  ::close(ends[0]);
  hub::machine::write_to_standard_error("words", [] { return false; });
  ::dup2(original, STDERR_FILENO);
  for (int each : {ends[1], original}) ::close(each);
  sigset_t pending, blocked;
  ::sigpending(&pending);
  ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  ::sigaction(SIGPIPE, &before, nullptr);
  CHECK(sigismember(&pending, SIGPIPE) == 0);
  CHECK(sigismember(&blocked, SIGPIPE) == 0);
}
#endif

TEST_CASE("of each transfer the newest state waits for a slow function") {
  const auto slow = std::make_shared<slow_log>();
  hub::session_options options = options_with(slow);
  std::vector<std::pair<std::string, std::uint64_t>> seen;
  options.progress = [&](const hub::transfer_progress& now) {
    seen.emplace_back(now.file, now.bytes_done);
  };
  options.limits.log_deadline = 1h;
  hub::machine::reporter report(options, true, "a service");
  report.log(hub::log_level::info, "first");
  slow->called.get_future().wait();
  for (const std::uint64_t done : {1U, 2U, 3U}) {
    report.progress({"a.pt", done, 9, 1s});
    report.progress({"b.pt", done * 10, 90, 1s});
  }
  slow->let_go.set_value();
  report.close();
  CHECK(seen == std::vector<std::pair<std::string, std::uint64_t>>{{"a.pt", 3}, {"b.pt", 30}});
}

TEST_CASE("one's own words are shown in their script, and nothing in them controls a terminal") {
  using hub::text::shown;
  for (const char* text : {"weights.pt", "Gewichte \xC3\xA4\xC3\xB6.pt", "\xE6\xA8\xA1\xE5\x9E\x8B",
                           "\xF0\x9F\x98\x80"})
    CHECK(shown(text) == text);
  CHECK(shown(std::string(5000, 'x')).size() == 5000);
  CHECK(shown("a\033[31m\nb\x7F") == "a?[31m?b?");
  CHECK(shown("\xC2\x9B"
              "31m") == "?31m");
  CHECK(shown("\xE2\x80\xAE"
              "tp.exe\xE2\x81\xA6") == "?tp.exe?");
  CHECK(shown("\xFF\xC3(\xC0\x80\xED\xA0\x80\xF4\x90\x80\x80\xE6\xA8") ==
        std::string(2, '?') + "(" + std::string(11, '?'));
}

// ---- the prompt ----------------------------------------------------------------------------------

using hub::machine::typed_line;

std::string typed(std::string_view keys, typed_line::end wanted = typed_line::end::entered) {
  typed_line line;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const typed_line::end end = line.take(keys[i]);
    CHECK((end == wanted) == (i + 1 == keys.size()));
  }
  return line.text;
}

TEST_CASE("what is typed at the prompt is put together as a terminal would") {
  CHECK(typed("key\n") == "key");
  CHECK(typed("key\r") == "key");
  CHECK(typed("kez\177y\n") == "key");
  CHECK(typed("kez\by\n") == "key");
  CHECK(typed("\177\177key\n") == "key");
  CHECK(typed("another\025key\n") == "key");
  CHECK(typed("k\tey\n") == "key");
  CHECK(typed("ke\003", typed_line::end::interrupted) == "ke");
  CHECK(typed("ke\004", typed_line::end::closed) == "ke");
}

}  // namespace

// ---- figures of the machine ----------------------------------------------------------------------

TEST_CASE("the load of all processors is read, and what waits for a disk is idle") {
  const auto ticks = hub::machine::parse_cpu(
      "cpu  100 20 30 800 50 1 2 3 4 5\ncpu0 1 2 3 4 5 6 7 8 9 10\nctxt 12\n");
  REQUIRE(ticks);
  CHECK(ticks->busy == 156);
  CHECK(ticks->all == 1006);
  CHECK_FALSE(hub::machine::parse_cpu(""));
  CHECK_FALSE(hub::machine::parse_cpu("cpu 1 2"));
}

TEST_CASE("memory in use is what is not available") {
  CHECK(hub::machine::parse_memory("MemTotal: 2000 kB\nMemFree: 10 kB\nMemAvailable: 500 kB\n") ==
        75.0);
  CHECK_FALSE(hub::machine::parse_memory("MemTotal: 2000 kB\n"));
  CHECK_FALSE(hub::machine::parse_memory("MemTotal: 0 kB\nMemAvailable: 0 kB\n"));
}

TEST_CASE("traffic is that of all interfaces but the loopback") {
  const auto bytes = hub::machine::parse_network(
      "Inter-|   Receive   |  Transmit\n"
      " face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo "
      "colls carrier compressed\n"
      "    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n"
      "  eth0:1000 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n"
      "  eth1: 500 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n");
  REQUIRE(bytes);
  CHECK(bytes->in == 1500);
  CHECK(bytes->out == 230);
  CHECK_FALSE(hub::machine::parse_network("nothing"));
}

TEST_CASE("a disk's parts, and what lies over disks, do not count twice") {
  const auto bytes = hub::machine::parse_disk_io(
      " 7 0 loop0 1 0 999 0 1 0 999 0 0 0 0\n"
      " 259 0 nvme0n1 10 0 100 0 10 0 50 0 0 0 0\n"
      " 259 1 nvme0n1p1 10 0 60 0 10 0 50 0 0 0 0\n"
      " 8 0 sda 10 0 8 0 10 0 4 0 0 0 0\n"
      " 8 1 sda1 10 0 8 0 10 0 4 0 0 0 0\n"
      " 253 0 dm-0 10 0 8 0 10 0 4 0 0 0 0\n");
  REQUIRE(bytes);
  CHECK(bytes->in == 108 * 512);
  CHECK(bytes->out == 54 * 512);
}

TEST_CASE("disks are asked where they are mounted, and never what comes over a network") {
  const auto mounts = hub::machine::parse_mounts(
      "/dev/sda1 / ext4 rw 0 0\n/dev/sda1 /tmp ext4 rw 0 0\nserver:/home /home nfs rw 0 0\n"
      "/dev/loop3 /usr ext4 rw 0 0\n/dev/sdb1 /usr ext4 rw 0 0\n/dev/sdc1 /a\\040b ext4 rw 0 0\n");
  CHECK(mounts == std::vector<std::string>{"/", "/usr"});
}

TEST_CASE("figures are of the time since the reading before; what is missing is left out") {
  using namespace std::chrono_literals;
  const scratch_folder proc;
  std::filesystem::create_directories(proc / "net");
  proc.write("stat", "cpu 100 0 0 100 0 0 0 0\n");
  proc.write("net/dev", "eth0: 1000000 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0\n");
  hub::machine::figure_reader reader(proc.path(), std::nullopt);
  const hub::system_figures first = reader.read(hub::time_point(1s));
  CHECK_FALSE(first.cpu_percent);
  CHECK_FALSE(first.network);
  CHECK_FALSE(first.memory_percent);
  proc.write("stat", "cpu 130 0 0 170 0 0 0 0\n");
  proc.write("net/dev", "eth0: 5000000 1 0 0 0 0 0 0 2000000 1 0 0 0 0 0 0\n");
  const hub::system_figures second = reader.read(hub::time_point(3s));
  CHECK(second.cpu_percent == 30.0);
  REQUIRE(second.network);
  CHECK(second.network->in_mbs == 2);
  CHECK(second.network->out_mbs == 1);
  CHECK_FALSE(second.disk_io);
  CHECK(second.gpus.empty());
}

TEST_CASE("of each GPU what its driver tells is told, and nothing else") {
  hub::machine::gpu_library driver;
  driver.begin = [] { return 0; };
  driver.count = [](unsigned* count) { return *count = 2, 0; };
  driver.at = [](unsigned index, void** device) {
    static std::array<int, 2> devices;
    return *device = &devices[index], index == 0 ? 0 : 15;  // the second one has fallen off the bus
  };
  driver.load_of = [](void*, hub::machine::gpu_library::load* out) { return out->gpu = 87, 0; };
  driver.memory_of = [](void*, hub::machine::gpu_library::memory* out) {
    return *out = {1000, 750, 250}, 0;
  };
  driver.temperature_of = [](void*, int, unsigned*) { return 3; };  // it does not know that
  const auto gpus = driver.read();
  REQUIRE(gpus.size() == 2);
  CHECK(gpus[0].usage_percent == 87.0);
  CHECK(gpus[0].memory_percent == 25.0);
  CHECK_FALSE(gpus[0].celsius);
  CHECK_FALSE(gpus[0].watts);
  CHECK_FALSE(gpus[1].usage_percent);
}

}  // namespace machine_tests
