// SPDX-License-Identifier: MIT
//
// Tests of the machine room on Windows: files that others have open, locks, access lists, names of any
// language, the settings' folder, the clock and the console; and what the system's headers say of what
// is declared by hand there. tests/matrix.sh builds them in its cell windows.

#include "../hub_session.hpp"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/scratch.hpp"

#include <aclapi.h>
#include <windows.h>

namespace windows_tests {

namespace fs = std::filesystem;
namespace machine = hub::machine;
namespace windows = hub::machine::windows;

// ---- what is declared by hand --------------------------------------------------------------------

static_assert(sizeof(windows::access) == sizeof(SECURITY_ATTRIBUTES) &&
              offsetof(windows::access, descriptor) ==
                  offsetof(SECURITY_ATTRIBUTES, lpSecurityDescriptor));
static_assert(sizeof(windows::file_facts) == sizeof(BY_HANDLE_FILE_INFORMATION) &&
              offsetof(windows::file_facts, written) ==
                  offsetof(BY_HANDLE_FILE_INFORMATION, ftLastWriteTime) &&
              offsetof(windows::file_facts, volume) ==
                  offsetof(BY_HANDLE_FILE_INFORMATION, dwVolumeSerialNumber) &&
              offsetof(windows::file_facts, size_high) ==
                  offsetof(BY_HANDLE_FILE_INFORMATION, nFileSizeHigh) &&
              offsetof(windows::file_facts, index_low) ==
                  offsetof(BY_HANDLE_FILE_INFORMATION, nFileIndexLow));
static_assert(offsetof(windows::renaming, folder) == offsetof(FILE_RENAME_INFO, RootDirectory) &&
              offsetof(windows::renaming, name_bytes) ==
                  offsetof(FILE_RENAME_INFO, FileNameLength) &&
              offsetof(windows::renaming, name) == offsetof(FILE_RENAME_INFO, FileName));
static_assert(sizeof(windows::place) == sizeof(OVERLAPPED) &&
              offsetof(windows::place, at_high) == offsetof(OVERLAPPED, OffsetHigh));
static_assert(sizeof(windows::user) == sizeof(TOKEN_USER));
static_assert(windows::read_attributes == FILE_READ_ATTRIBUTES &&
              windows::rename_or_remove == (DELETE | SYNCHRONIZE) &&
              windows::write_data == GENERIC_WRITE && windows::read_data == GENERIC_READ);
static_assert(windows::share_all == (FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE));
static_assert(windows::create_new == CREATE_NEW && windows::create_anew == CREATE_ALWAYS &&
              windows::open_existing == OPEN_EXISTING && windows::open_or_create == OPEN_ALWAYS);
static_assert(windows::also_folders == FILE_FLAG_BACKUP_SEMANTICS &&
              windows::not_what_it_links_to == FILE_FLAG_OPEN_REPARSE_POINT);
static_assert(windows::take_its_place == MOVEFILE_REPLACE_EXISTING &&
              windows::wait_for_disk == MOVEFILE_WRITE_THROUGH);
static_assert(windows::without_waiting == LOCKFILE_FAIL_IMMEDIATELY &&
              windows::exclusive == LOCKFILE_EXCLUSIVE_LOCK &&
              windows::lock_violation == ERROR_LOCK_VIOLATION);
static_assert(windows::may_query == TOKEN_QUERY && windows::of_user == TokenUser);
static_assert(windows::utf8 == CP_UTF8 && windows::standard_error == STD_ERROR_HANDLE);
static_assert(windows::ctrl_c == CTRL_C_EVENT && windows::ctrl_break == CTRL_BREAK_EVENT);

// ---- files ---------------------------------------------------------------------------------------

namespace {

std::string rest_of(std::FILE* file) {
  std::string out(100, '\0');
  out.resize(std::fread(out.data(), 1, out.size(), file));
  return out;
}

std::ptrdiff_t files_in(const scratch_folder& folder) {
  return std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator());
}

// The users and groups that an access list names, "Everyone" among them as S-1-1-0.
bool lets_everyone_in(const fs::path& what) {
  PACL list = nullptr;
  PSECURITY_DESCRIPTOR descriptor = nullptr;
  REQUIRE(::GetNamedSecurityInfoW(const_cast<wchar_t*>(what.c_str()), SE_FILE_OBJECT,
                                  DACL_SECURITY_INFORMATION, nullptr, nullptr, &list, nullptr,
                                  &descriptor) == ERROR_SUCCESS);
  SID everyone = {SID_REVISION, 1, SECURITY_WORLD_SID_AUTHORITY, {SECURITY_WORLD_RID}};
  bool found = list == nullptr;
  for (DWORD i = 0; list && i < list->AceCount; ++i) {
    void* entry = nullptr;
    if (::GetAce(list, i, &entry) && static_cast<ACE_HEADER*>(entry)->AceType == 0)
      found = found || ::EqualSid(&everyone, &static_cast<ACCESS_ALLOWED_ACE*>(entry)->SidStart);
  }
  ::LocalFree(descriptor);
  return found;
}

}  // namespace

TEST_CASE("a file is replaced while others have it open, and they go on with the old one") {
  const scratch_folder folder;
  auto reader = machine::open(folder.write("file", "old"), "rb");
  REQUIRE(reader);
  CHECK(machine::write_text_file(folder / "file", "new"));
  CHECK(machine::read_text_file(folder / "file") == "new");
  CHECK(rest_of(reader.get()) == "old");
  reader.reset();
  CHECK(files_in(folder) == 1);
}

TEST_CASE("where nobody has it open, a replaced file leaves nothing beside the new one") {
  const scratch_folder folder;
  folder.write("file", "old");
  CHECK(machine::write_text_file(folder / "file", "new"));
  CHECK(machine::read_text_file(folder / "file") == "new");
  CHECK(files_in(folder) == 1);
}

TEST_CASE("a file that is open here may be renamed and removed, and is read as it was") {
  const scratch_folder folder;
  const fs::path name = folder.write("file", "content");
  const auto file = machine::open(name, "rb");
  const auto before = machine::fingerprint_of(file.get(), name);
  REQUIRE(before);
  CHECK(machine::is_named(file.get(), name));
  fs::rename(name, folder / "elsewhere");
  CHECK_FALSE(machine::is_named(file.get(), name));
  folder.write("file", "another");
  CHECK_FALSE(machine::is_named(file.get(), name));
  CHECK(machine::is_removed(file.get(), name));
  fs::remove(folder / "elsewhere");
  CHECK(machine::fingerprint_of(file.get(), name) == before);
  CHECK(rest_of(file.get()) == "content");
}

TEST_CASE("a trainer overwrites, renames and removes its checkpoint while it is uploaded") {
  const scratch_folder folder;
  const fs::path checkpoint = folder.write("last.pt", "weights");
  const auto upload = machine::file_source::open(checkpoint);
  REQUIRE(upload);
  std::string piece(3, '\0');
  REQUIRE((*upload)->read(0, piece));
  fs::rename(checkpoint, folder / "epoch1.pt");
  folder.write("last.pt", "other weights");
  REQUIRE((*upload)->read(3, piece));
  CHECK(piece == "ght");
  CHECK(std::ofstream(folder / "epoch1.pt", std::ios::binary) << "in place");
  CHECK(fs::remove(folder / "epoch1.pt"));
  CHECK((*upload)->read(6, piece).error().code == hub::errc::file_changed);
}

// Windows opens them where its settings and the program's manifest say so; wine always does.
TEST_CASE("names longer than what Windows once took are read, replaced, locked and removed") {
  const scratch_folder folder;
  const fs::path deep = folder / std::string(140, 'a') / std::string(140, 'b');
  CHECK(machine::write_text_file(deep / "file", "old"));
  const auto reader = machine::open(deep / "file", "rb");
  REQUIRE(reader);
  CHECK(machine::write_text_file(deep / "file", "new"));
  CHECK(machine::read_text_file(deep / "file") == "new");
  CHECK(rest_of(reader.get()) == "old");
  CHECK(machine::file_lock(deep / "file").held());
  machine::make_private_folder(deep / "folder");
  CHECK(fs::is_directory(deep / "folder"));
  CHECK_FALSE(lets_everyone_in(deep / "file"));
}

TEST_CASE("who has a lock keeps others from it, and from nothing that is in the file") {
  const scratch_folder folder;
  const fs::path file = folder.write("file", "content");
  std::optional<machine::file_lock> first(file);
  CHECK(first->held());
  CHECK(machine::file_lock(file).taken());
  CHECK(machine::read_text_file(file) == "content");
  first.reset();
  CHECK(machine::file_lock(file).held());
  CHECK(machine::file_lock(folder / "missing").why_not() == std::errc::no_such_file_or_directory);
}

// A file that is open for reading alone cannot be forced to the disk, which shows that it is asked.
TEST_CASE("what is forced to the disk is forced by the system") {
  const scratch_folder folder;
  const fs::path file = folder.write("file", "content");
  CHECK(machine::sync_to_disk(file));
  CHECK(machine::sync_to_disk(folder.path()));
  CHECK_FALSE(machine::sync_to_disk(machine::open(file, "rb").get()));
  CHECK_FALSE(machine::sync_to_disk(folder / "missing"));
}

TEST_CASE("private files and folders have an access list without everyone") {
  const scratch_folder folder;
  REQUIRE(lets_everyone_in(folder.write("public", "content")));
  machine::make_private(folder / "file");
  CHECK_FALSE(lets_everyone_in(folder / "file"));
  machine::make_private_folder(folder / "folder");
  CHECK_FALSE(lets_everyone_in(folder / "folder"));
  CHECK(machine::write_text_file(folder / "settings.json", "{}"));
  CHECK_FALSE(lets_everyone_in(folder / "settings.json"));
}

TEST_CASE("a spool's folder and all files in it have an access list without everyone") {
  const scratch_folder folder;
  hub::spool::disk_storage storage;
  const auto spool = storage.open(folder / "spool" / "model");
  REQUIRE(spool);
  const fs::path checkpoint = folder.write("last.pt", "weights");
  CHECK_FALSE((*spool)->append("journal-1.jsonl", "line\n"));
  CHECK_FALSE((*spool)->replace("model.json", "{}"));
  CHECK((*spool)->adopt(checkpoint, "checkpoint-1.pt", false));
  CHECK_FALSE(lets_everyone_in(folder / "spool" / "model"));
  std::size_t files = 0;
  for (const auto& each : fs::directory_iterator(folder / "spool" / "model")) {
    INFO(machine::shown(each.path()));
    CHECK_FALSE(lets_everyone_in(each.path()));
    ++files;
  }
  CHECK(files == 4);
}

TEST_CASE("names of every language are opened, and half a character is shown and not thrown over") {
  const scratch_folder folder;
  const fs::path name = folder / L"gr\u00F6\u00DFer \u6A21\u578B.pt";
  CHECK(machine::write_text_file(name, "content"));
  CHECK(machine::read_text_file(name) == "content");
  CHECK(machine::shown(name.filename()) ==
        "gr\xC3\xB6\xC3\x9F"
        "er \xE6\xA8\xA1\xE5\x9E\x8B.pt");
  const std::wstring half = {L'a', static_cast<wchar_t>(0xD83D), L'b'};
  CHECK(machine::shown(half) ==
        "a\xEF\xBF\xBD"
        "b");
}

// ---- places --------------------------------------------------------------------------------------

TEST_CASE("settings are below APPDATA, in whatever language the user's name is") {
  const environment none("YOLO_CONFIG_DIR", nullptr);
  const environment home("USERPROFILE", "C:\\users\\me");
  const fs::path appdata = L"C:\\users\\J\u00F6rg\\Roaming";
  REQUIRE(::_wputenv_s(L"APPDATA", appdata.c_str()) == 0);
  CHECK(machine::find_settings_file({}) == appdata / "Ultralytics" / "settings.json");
  REQUIRE(::_wputenv_s(L"APPDATA", L"") == 0);
  CHECK(machine::find_settings_file({}) ==
        fs::path("C:\\users\\me\\AppData\\Roaming\\Ultralytics\\settings.json"));
}

// ---- the clock -----------------------------------------------------------------------------------

// Which goes on while the machine sleeps, says its maker.
TEST_CASE("the session's clock is the system's performance counter") {
  const auto now = [] {
    LARGE_INTEGER ticks, ticks_a_second;
    ::QueryPerformanceCounter(&ticks);
    ::QueryPerformanceFrequency(&ticks_a_second);
    const auto whole = ticks.QuadPart / ticks_a_second.QuadPart;
    const auto rest = ticks.QuadPart % ticks_a_second.QuadPart;
    return std::chrono::seconds(whole) +
           std::chrono::nanoseconds(rest * 1'000'000'000 / ticks_a_second.QuadPart);
  };
  const auto before = now();
  const auto ours = hub::steady_clock{}.now().time_since_epoch();
  const auto after = now();
  CHECK(before <= ours);
  CHECK(ours <= after);
}

// ---- the console ---------------------------------------------------------------------------------

namespace {

// What comes after the session's own handler, where the system would end the program.
std::atomic<int> handed_on = 0;
BOOL WINAPI of_program(DWORD) { return ++handed_on; }

struct program_that_goes_on {
  program_that_goes_on() {
    handed_on = 0;
    REQUIRE(::SetConsoleCtrlHandler(&of_program, TRUE));
  }
  program_that_goes_on(const program_that_goes_on&) = delete;
  program_that_goes_on& operator=(const program_that_goes_on&) = delete;
  ~program_that_goes_on() { ::SetConsoleCtrlHandler(&of_program, FALSE); }
};

// As the system tells of it: on a thread of its own that begins in this function. Wine's server sends
// Ctrl-C alone.
void arrive(DWORD event) {
  const auto routine = reinterpret_cast<LPTHREAD_START_ROUTINE>(reinterpret_cast<void*>(
      ::GetProcAddress(::GetModuleHandleW(L"kernel32.dll"), "CtrlRoutine")));
  REQUIRE(routine);
  const auto argument = reinterpret_cast<void*>(std::uintptr_t{event});
  const HANDLE thread = ::CreateThread(nullptr, 0, routine, argument, 0, nullptr);
  REQUIRE(thread);
  ::WaitForSingleObject(thread, INFINITE);
  ::CloseHandle(thread);
}

std::string console_line(HANDLE console, std::size_t characters) {
  std::wstring out(characters, L'\0');
  DWORD got = 0;
  REQUIRE(::ReadConsoleOutputCharacterW(console, out.data(), static_cast<DWORD>(out.size()),
                                        COORD{0, 0}, &got));
  out.resize(got);
  return windows::to_utf8(out);
}

}  // namespace

TEST_CASE("Ctrl-Break, a closed console and the end of a user's session are flushed as well") {
  const program_that_goes_on program;
  const std::vector<std::pair<DWORD, int>> events = {{CTRL_BREAK_EVENT, SIGBREAK},
                                                     {CTRL_CLOSE_EVENT, SIGTERM},
                                                     {CTRL_LOGOFF_EVENT, SIGTERM},
                                                     {CTRL_SHUTDOWN_EVENT, SIGTERM}};
  for (const auto& [event, number] : events) {
    INFO("event " << event);
    handed_on = 0;
    std::vector<int> flushed;
    const auto id = machine::signal_relay::instance().subscribe(
        [&](int got) { flushed.push_back(got); }, std::chrono::hours(1));
    arrive(event);
    machine::signal_relay::instance().unsubscribe(id);
    CHECK(flushed == std::vector<int>{number});
    CHECK(handed_on == 1);
  }
}

TEST_CASE("where standard error is a file, it takes no colours") {
  const scratch_folder folder;
  const auto file = machine::open(folder / "log", "wb");
  const HANDLE before = ::GetStdHandle(STD_ERROR_HANDLE);
  REQUIRE(::SetStdHandle(STD_ERROR_HANDLE, machine::handle_of(file.get())));
  CHECK_FALSE(machine::takes_escapes());
  ::SetStdHandle(STD_ERROR_HANDLE, before);
}

// The following are hidden, as they take a console, which tests/windows.sh gives them.

TEST_CASE("Ctrl-C is flushed once, and handed on", "[.][console]") {
  const program_that_goes_on program;
  std::vector<int> flushed;
  const auto id = machine::signal_relay::instance().subscribe(
      [&](int number) { flushed.push_back(number); }, std::chrono::hours(1));
  for (int sent = 1; sent <= 2; ++sent) {
    REQUIRE(::GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0));
    while (handed_on < sent) std::this_thread::yield();
  }
  machine::signal_relay::instance().unsubscribe(id);
  CHECK(flushed == std::vector<int>{SIGINT});
}

TEST_CASE("a console takes colours once it has been told to", "[.][console]") {
  const HANDLE console = ::GetStdHandle(STD_ERROR_HANDLE);
  DWORD modes = 0;
  REQUIRE(::GetConsoleMode(console, &modes));
  REQUIRE(::SetConsoleMode(console, modes & ~DWORD{ENABLE_VIRTUAL_TERMINAL_PROCESSING}));
  CHECK(machine::takes_escapes());
  REQUIRE(::GetConsoleMode(console, &modes));
  CHECK((modes & ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0);
}

TEST_CASE("a console shows words of every language, whatever its code page", "[.][console]") {
  const HANDLE console = ::GetStdHandle(STD_ERROR_HANDLE);
  REQUIRE(::SetConsoleOutputCP(437));
  REQUIRE(::SetConsoleCursorPosition(console, COORD{0, 0}));
  const std::string words = "gr\xC3\xB6\xC3\x9F\x65r";
  machine::write_to_standard_error(words, [] { return false; });
  CHECK(console_line(console, 6) == words);
}

}  // namespace windows_tests
