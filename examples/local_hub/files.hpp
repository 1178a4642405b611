// SPDX-License-Identifier: MIT
//
// Files that survive a crash. Whatever has its final name is whole: it was written under another
// name, brought to the disk, and only then renamed. Lists grow by whole lines; a line that a crash
// cut short is dropped when the list is read.
//
// Every function throws file_error, which names the file, where the disk does not do its part.

#pragma once

#include "hub_session.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <openssl/evp.h>

#if defined(__unix__) || defined(__APPLE__)
#define LOCAL_HUB_POSIX 1
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace local_hub {

// Writes to standard error as a session does: on a thread of its own, so that no request waits if
// nobody reads there any more, or a terminal is stopped. What does not fit meanwhile is left out and
// counted.
class narrator {
 public:
  static narrator& instance() {
    static narrator it;
    return it;
  }
  narrator(const narrator&) = delete;
  narrator& operator=(const narrator&) = delete;

  // A line of the log.
  void write(std::string line) { speaker_->log(hub::log_level::info, std::move(line)); }
  // What the person at the terminal is to know.
  void tell(std::string text) { speaker_->log(hub::log_level::warning, std::move(text)); }

 private:
  narrator() = default;
  ~narrator() {
    *ends_ = true;
    speaker_->close();
  }

  std::shared_ptr<hub::machine::speaker> make_speaker() const {
    hub::session_options options;
    options.log = [ends = ends_](hub::log_level level, std::string_view text) {
      std::string line = level == hub::log_level::info ? "" : "local_hub: ";
      (line += text) += '\n';
      hub::machine::write_to_standard_error(line, [&] { return ends->load(); });
    };
    return std::make_shared<hub::machine::speaker>(options, true, "local_hub");
  }

  const std::shared_ptr<std::atomic<bool>> ends_ = std::make_shared<std::atomic<bool>>(false);
  const std::shared_ptr<hub::machine::speaker> speaker_ = make_speaker();
};

// Tells the person at the terminal; requests are logged elsewhere.
inline void say(std::string text) { narrator::instance().tell(std::move(text)); }

struct file_error : std::runtime_error {
  file_error(const char* doing, const std::filesystem::path& what, int number)
      : std::runtime_error(std::string("cannot ") + doing + ' ' + what.string() + ": " +
                           std::generic_category().message(number)),
        number_(number) {}

  // Nothing is broken: there is no room, or one is not given any.
  bool disk_is_full() const {
    return number_ == ENOSPC || number_ == EFBIG
#if defined(EDQUOT)
           || number_ == EDQUOT
#endif
        ;
  }

 private:
  int number_;
};

// ---- to the disk --------------------------------------------------------------------------------

enum class access { normal, owner_only };

// Standard C++ can neither create a file that only its owner may read, nor wait for the disk.
#if LOCAL_HUB_POSIX
inline std::FILE* create(const std::filesystem::path& path, access who) {
  const mode_t mode = who == access::owner_only ? 0600 : 0666;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  return file < 0 ? nullptr : ::fdopen(file, "wb");
}
inline bool sync(std::FILE* file) { return std::fflush(file) == 0 && ::fsync(fileno(file)) == 0; }

// A new name is on the disk only when its folder is.
inline void sync_folder(const std::filesystem::path& folder) {
  const int opened = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = opened >= 0 && ::fsync(opened) == 0;
  const int problem = errno;
  if (opened >= 0) ::close(opened);
  if (!synced) throw file_error("write", folder, problem);
}
#else
inline std::FILE* create(const std::filesystem::path& path, access) {
  return std::fopen(path.string().c_str(), "wb");
}
inline bool sync(std::FILE* file) { return std::fflush(file) == 0; }
inline void sync_folder(const std::filesystem::path&) {}
#endif

inline void make_folder(const std::filesystem::path& folder) {
  std::error_code problem;
  if (std::filesystem::create_directories(folder, problem))
    sync_folder(std::filesystem::absolute(folder).parent_path());
  if (problem) throw file_error("create", folder, problem.value());
}

inline void rename_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::error_code problem;
  std::filesystem::rename(from, to, problem);
  if (problem) throw file_error("create", to, problem.value());
}

// A file that is still being written, under a name that says so. Unless rename_to() gives it its
// own, it goes away.
class unfinished_file {
 public:
  explicit unfinished_file(std::filesystem::path path, access who = access::normal)
      : path_(std::move(path)), file_(create(path_, who)) {
    if (!file_) throw file_error("create", path_, errno);
    constexpr std::size_t buffer_bytes = std::size_t{256} * 1024;
    std::setvbuf(file_, nullptr, _IOFBF, buffer_bytes);
  }
  unfinished_file(const unfinished_file&) = delete;
  unfinished_file& operator=(const unfinished_file&) = delete;
  ~unfinished_file() {
    if (file_) std::fclose(file_);
    std::error_code ignored;  // after rename_to() there is nothing to remove
    if (!renamed_) std::filesystem::remove(path_, ignored);
  }

  void write(std::string_view bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size())
      throw file_error("write", path_, errno);
  }

  // Returns when everything is on the disk.
  void finish() {
    const bool synced = sync(file_);
    const int problem = errno;
    const bool closed = std::fclose(std::exchange(file_, nullptr)) == 0;
    if (!synced || !closed) throw file_error("write", path_, synced ? errno : problem);
  }

  // Only after finish(). The new name is on the disk after sync_folder().
  void rename_to(const std::filesystem::path& name) {
    rename_file(path_, name);
    renamed_ = true;
  }

 private:
  std::filesystem::path path_;
  std::FILE* file_;
  bool renamed_ = false;
};

// Replaces the file as a whole: whoever reads it finds the old text or the new one.
inline void write_file(const std::filesystem::path& path, std::string_view text,
                       access who = access::normal) {
  unfinished_file file(path.string() + ".part", who);
  file.write(text);
  file.finish();
  file.rename_to(path);
  sync_folder(path.parent_path());
}

enum class durability { at_some_time, before_return };

// Appends whole lines or nothing.
inline void append_lines(const std::filesystem::path& path, std::string_view lines,
                         durability when) {
  std::error_code missing;
  const std::uintmax_t size = std::filesystem::file_size(path, missing);
  std::FILE* file = std::fopen(path.string().c_str(), "ab");
  if (!file) throw file_error("open", path, errno);
  bool done = std::fwrite(lines.data(), 1, lines.size(), file) == lines.size();
  done = done && (when == durability::before_return ? sync(file) : std::fflush(file) == 0);
  const int problem = errno;
  if (std::fclose(file) != 0 || !done) {
    // Half a line would spoil the next one.
    std::error_code ignored;
    std::filesystem::resize_file(path, missing ? 0 : size, ignored);
    throw file_error("write", path, problem);
  }
  if (missing && when == durability::before_return) sync_folder(path.parent_path());
}

// ---- from the disk ------------------------------------------------------------------------------

// The whole text; nothing where there is no such file.
inline std::optional<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// What http::response sends of an open file.
inline std::function<bool(std::uint64_t, std::size_t, std::string&)> source_of(
    std::shared_ptr<std::ifstream> file) {
  return [file = std::move(file)](std::uint64_t offset, std::size_t bytes_max, std::string& piece) {
    piece.resize(bytes_max);
    file->seekg(static_cast<std::streamoff>(offset));
    file->read(piece.data(), static_cast<std::streamsize>(piece.size()));
    piece.resize(static_cast<std::size_t>(file->gcount()));
    return !piece.empty();
  };
}

// The JSON value of each line; none where there is no such file. A line that ends nowhere was cut
// short by a crash and goes, so that the next one begins on a line of its own.
inline std::vector<nlohmann::json> read_lines(const std::filesystem::path& path) {
  std::vector<nlohmann::json> values;
  const std::string text = read_file(path).value_or("");
  std::size_t begin = 0;
  for (std::size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    auto value = hub::text::parse_json(std::string_view(text).substr(begin, end - begin));
    if (value)
      values.push_back(*std::move(value));
    else
      say("skipping a line of " + path.string() + " that is no JSON");
  }
  if (begin < text.size()) std::filesystem::resize_file(path, begin);
  return values;
}

// Bytes that may still be written where `folder` is; without an answer, there is room.
inline std::uint64_t free_bytes(const std::filesystem::path& folder) {
  std::error_code problem;
  const std::filesystem::space_info space = std::filesystem::space(folder, problem);
  return problem ? std::numeric_limits<std::uint64_t>::max() : space.available;
}

// ---- digests and chance -------------------------------------------------------------------------

// SHA-256 over bytes that come piece by piece.
class sha256 {
 public:
  sha256() : context_(EVP_MD_CTX_new()) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1)
      throw std::runtime_error("OpenSSL has no SHA-256");
  }

  sha256& add(std::string_view bytes) {
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
    return *this;
  }

  // Once, at the end.
  std::string hexadecimal() {
    std::array<unsigned char, 32> digest{};
    EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr);
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (const unsigned char byte : digest) text.append({digits[byte >> 4], digits[byte & 15]});
    return text;
  }

 private:
  struct free_context {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, free_context> context_;
};

inline std::string sha256_of_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string piece(std::size_t{1024} * 1024, '\0');
  sha256 hash;
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())), in.gcount() > 0)
    hash.add(std::string_view(piece).substr(0, static_cast<std::size_t>(in.gcount())));
  return hash.hexadecimal();
}

inline std::string random_text_of(std::string_view letters, std::size_t length) {
  std::random_device source;
  std::uniform_int_distribution<std::size_t> pick(0, letters.size() - 1);
  std::string text;
  while (text.size() < length) text += letters[pick(source)];
  return text;
}

// Letters and digits that nobody can guess.
inline std::string random_text(std::size_t length) {
  return random_text_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", length);
}
inline std::string random_hexadecimal(std::size_t length) {
  return random_text_of("0123456789abcdef", length);
}

// ---- one process at a time ----------------------------------------------------------------------

// Held by one process at a time. The system lets go of it when that process ends, however it ends.
class file_lock {
 public:
  enum class when_taken { wait, fail };

#if LOCAL_HUB_POSIX
  file_lock(const std::filesystem::path& path, when_taken then) {
    file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file_ < 0) throw file_error("create", path, errno);
    if (::flock(file_, then == when_taken::wait ? LOCK_EX : LOCK_EX | LOCK_NB) == 0) return;
    ::close(file_);
    throw std::runtime_error("another local_hub is using " + path.parent_path().string());
  }
  ~file_lock() { ::close(file_); }
#else
  file_lock(const std::filesystem::path&, when_taken) {}
#endif
  file_lock(const file_lock&) = delete;
  file_lock& operator=(const file_lock&) = delete;

 private:
  [[maybe_unused]] int file_ = -1;
};

// ---- dates --------------------------------------------------------------------------------------

using wall_time = std::chrono::system_clock::time_point;

// Such as 2026-07-31T12:00:00Z.
inline std::string to_text(wall_time when) {
  const auto day = std::chrono::floor<std::chrono::days>(when);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss time(std::chrono::floor<std::chrono::seconds>(when - day));
  char text[40];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(time.hours().count()), static_cast<int>(time.minutes().count()),
                static_cast<int>(time.seconds().count()));
  return text;
}

inline std::optional<wall_time> parse_time(const std::string& text) {
  int year = 0, hour = 0, minute = 0, second = 0;
  unsigned month = 0, day = 0;
  if (std::sscanf(text.c_str(), "%4d-%2u-%2uT%2d:%2d:%2dZ", &year, &month, &day, &hour, &minute,
                  &second) != 6)
    return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  if (!date.ok()) return std::nullopt;
  return std::chrono::sys_days(date) + std::chrono::hours(hour) + std::chrono::minutes(minute) +
         std::chrono::seconds(second);
}

}  // namespace local_hub
