// SPDX-License-Identifier: MIT
//
// What a test borrows from the machine and gives back: a folder, and environment variables.

#pragma once

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>

// A folder of the test's own, for nobody else's eyes and gone with it.
class scratch_folder {
 public:
  scratch_folder() : scratch_folder(std::filesystem::temp_directory_path()) {}
  explicit scratch_folder(const std::filesystem::path& where)
      : path_(where / ("hub_session-test-" + std::to_string(std::random_device{}()))) {
    std::filesystem::create_directories(path_);
    std::filesystem::permissions(path_, std::filesystem::perms::owner_all);
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const noexcept { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

  // Writes a file that seems an hour old, and each a second younger than the one before. A file
  // system's clock stands still for milliseconds, so one that was written just now could be
  // overwritten without a trace. The name is in UTF-8.
  std::filesystem::path write(std::string_view name, std::string_view content) const {
    const std::filesystem::path file = path_ / std::u8string(name.begin(), name.end());
    std::ofstream(file, std::ios::binary) << content;
    std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now() -
                                               std::chrono::hours(1) +
                                               std::chrono::seconds(++writes_));
    return file;
  }

 private:
  std::filesystem::path path_;
  mutable int writes_ = 0;
};

// Null removes it.
inline void set_variable_of_environment(const char* name, const char* value) {
#if defined(_WIN32)
  ::_putenv_s(name, value ? value : "");
#else
  if (value)
    ::setenv(name, value, 1);
  else
    ::unsetenv(name);
#endif
}

// Sets an environment variable, or removes it, until the end of the scope.
class environment {
 public:
  environment(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    set_variable_of_environment(name, value);
  }
  environment(const environment&) = delete;
  environment& operator=(const environment&) = delete;
  ~environment() { set_variable_of_environment(name_, before_ ? before_->c_str() : nullptr); }

 private:
  const char* name_;
  std::optional<std::string> before_;
};
