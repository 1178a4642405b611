// SPDX-License-Identifier: MIT
//
// Rules: the checkpoints that a simulated trainer writes are real files, small and few. Every
// content that was written whole is known by its hash, and no two of them agree in any eight bytes,
// so that a mixture of two is neither. Each write gets a modification time of its own: within one
// tick of the kernel's clock two would look like one, and virtual time is faster than that.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>

#include "../../hub_session.hpp"
#include "dice.hpp"

namespace simulate {

namespace fs = std::filesystem;

enum class change {
  overwrite,  // in place
  replace,    // written beside it and renamed over it
  truncate,   // in the middle of being written again: shorter than it will be, until finish()
  grow,       // ... longer than it was, until finish()
  remove,
};

class trainer_files {
 public:
  // What was there is of another run.
  explicit trainer_files(fs::path folder) : folder_(std::move(folder)) {
    for (const char* name : {"last.pt", "best.pt"}) remove(name);
  }

  const fs::path& folder() const { return folder_; }
  fs::path path(std::string_view name) const { return folder_ / name; }
  bool exists(const std::string& name) { return files_[name].exists; }
  std::uint64_t hash(const std::string& name) { return files_[name].hash; }
  bool was_written_whole(const std::string& name, std::uint64_t hash) {
    return files_[name].whole.contains(hash);
  }

  void apply(const std::string& name, change how, std::uint64_t bytes_max, dice& rolls) {
    entry& at = files_[name];
    const std::uint64_t fresh_size = 1 + rolls.below(bytes_max);
    const bool same_size = at.exists && rolls.percent(70);
    switch (how) {
      case change::overwrite:
        return put(name, bytes(same_size ? at.size : fresh_size, rolls), path(name));
      case change::replace:
        put(name, bytes(fresh_size, rolls), path("new.pt"));
        return fs::rename(path("new.pt"), path(name));
      case change::truncate: return begin(name, bytes(at.size / 2, rolls));
      case change::grow: return begin(name, bytes(at.size + fresh_size, rolls));
      case change::remove: return remove(name);
    }
  }

  // The trainer ends the write that it was in the middle of.
  void finish(std::uint64_t bytes_max, dice& rolls) {
    if (!begun_.empty()) apply(std::exchange(begun_, {}), change::overwrite, bytes_max, rolls);
  }

  // Copies of checkpoints that sessions have left behind.
  std::size_t leftovers() const {
    std::size_t count = 0;
    for (const auto& each : fs::directory_iterator(folder_))
      count += each.path().filename().string().starts_with("hub_session-") ? 1 : 0;
    return count;
  }

 private:
  struct entry {
    bool exists = false;
    std::uint64_t size = 0;
    std::uint64_t hash = 0;
    std::set<std::uint64_t> whole = {};
  };

  static std::string bytes(std::uint64_t count, dice& rolls) {
    std::string out;
    out.reserve(count + sizeof count);
    while (out.size() < count) {
      const std::uint64_t word = rolls.next();
      // Byte by byte, so that it is the same on a machine of the other byte order.
      for (unsigned i = 0; i < sizeof word; ++i) out += static_cast<char>(word >> (8 * i));
    }
    out.resize(count);
    return out;
  }

  void put(const std::string& name, const std::string& content, const fs::path& file) {
    write(file, content);
    entry& at = files_[name];
    at.exists = true;
    at.size = content.size();
    at.hash = hub::testing::content_hash(content);
    at.whole.insert(at.hash);
  }

  void begin(const std::string& name, const std::string& content) {
    write(path(name), content);
    files_[name].exists = true;
    begun_ = name;
  }

  void remove(const std::string& name) {
    std::error_code ignored;
    fs::remove(path(name), ignored);
    files_[name].exists = false;
  }

  // Into the file that is there, which stays the same one for whoever has it open.
  void write(const fs::path& file, const std::string& content) {
    std::ofstream out(file, std::ios::binary);
    out << content << std::flush;
    if (!out) throw std::runtime_error("cannot write " + file.string());
    out.close();
    fs::last_write_time(file, began_ + std::chrono::seconds(++writes_));
  }

  fs::path folder_;
  std::map<std::string, entry> files_;
  std::string begun_;
  fs::file_time_type began_ = fs::file_time_type::clock::now() - std::chrono::hours(10'000);
  std::int64_t writes_ = 0;
};

}  // namespace simulate
