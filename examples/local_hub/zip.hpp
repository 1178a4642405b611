// SPDX-License-Identifier: MIT
//
// A folder as a zip archive, written while it is sent: nothing is kept in memory but one piece and
// the table of contents. Files are stored as they are, because weights do not compress. Each is as
// long as it was when the archive was begun; one that got shorter or vanished ends the archive early
// rather than filling it with something else.
//
// The format is PKWARE's APPNOTE 6.3: a local header, the bytes and a descriptor for each file, then
// the central directory; with the 64-bit fields for every file, so that there is one shape and not
// two.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace local_hub {

class crc32 {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes)
      value_ = table()[(value_ ^ static_cast<unsigned char>(c)) & 255] ^ (value_ >> 8);
  }
  std::uint32_t value() const { return ~value_; }

 private:
  static const std::array<std::uint32_t, 256>& table() {
    static const auto made = [] {
      std::array<std::uint32_t, 256> out{};
      for (std::uint32_t i = 0; i < 256; ++i) {
        out[i] = i;
        for (int bit = 0; bit < 8; ++bit) out[i] = (out[i] >> 1) ^ (out[i] & 1 ? 0xEDB88320u : 0);
      }
      return out;
    }();
    return made;
  }
  std::uint32_t value_ = 0xFFFFFFFFu;
};

class zip_stream {
 public:
  // Every file below the folder but those that are still being received. What is behind a link is
  // no part of the model, and maybe nobody's to take away.
  explicit zip_stream(const std::filesystem::path& folder, std::string name_in_archive) {
    for (const auto& each : std::filesystem::recursive_directory_iterator(folder)) {
      if (!std::filesystem::is_regular_file(each.symlink_status())) continue;
      if (each.path().extension() == ".part") continue;
      const std::string name = each.path().lexically_relative(folder).generic_string();
      entries_.push_back({each.path(), name_in_archive + '/' + name, each.file_size()});
    }
    std::sort(entries_.begin(), entries_.end(),
              [](const entry& a, const entry& b) { return a.name < b.name; });
  }

  // How long all of it will be.
  std::uint64_t size_bytes() const {
    std::uint64_t size = end_bytes;
    for (const entry& each : entries_)
      size += each.size + 2 * each.name.size() + local_bytes + descriptor_bytes + central_bytes;
    return size;
  }

  std::uint64_t sent_bytes() const { return sent_; }

  // The next piece, empty when nothing is left; false where a file is not what it was.
  bool next(std::string& piece) {
    piece.clear();
    if (at_ == entries_.size()) {
      if (!std::exchange(ended_, true)) piece = central_directory();
    } else if (!file_.is_open()) {
      entry& each = entries_[at_];
      each.offset = sent_;
      file_.open(each.path, std::ios::binary);
      if (!file_) return false;
      left_ = each.size;
      checksum_ = {};
      piece = local_header(each);
    } else if (left_ > 0) {
      piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(left_, piece_bytes_max)));
      file_.read(piece.data(), static_cast<std::streamsize>(piece.size()));
      if (static_cast<std::size_t>(file_.gcount()) != piece.size()) return false;
      checksum_.add(piece);
      left_ -= piece.size();
    } else {
      entries_[at_].checksum = checksum_.value();
      piece = descriptor(entries_[at_++]);
      file_.close();
    }
    sent_ += piece.size();
    return true;
  }

 private:
  static constexpr std::size_t piece_bytes_max = std::size_t{256} * 1024;
  static constexpr std::uint64_t local_bytes = 30 + 20;
  static constexpr std::uint64_t descriptor_bytes = 24;
  static constexpr std::uint64_t central_bytes = 46 + 28;
  static constexpr std::uint64_t end_bytes = 56 + 20 + 22;
  static constexpr std::uint16_t version = 45;            // the one that knows 64-bit sizes
  static constexpr std::uint16_t flags = 0x0808;          // a descriptor follows; names are UTF-8
  static constexpr std::uint32_t midnight = 0x21u << 16;  // of 1 January 1980, the format's zero

  struct entry {
    std::filesystem::path path;
    std::string name;
    std::uint64_t size;
    std::uint64_t offset = 0;
    std::uint32_t checksum = 0;
  };

  // Little-endian numbers, one after the other.
  struct bytes {
    std::string text = {};
    bytes& put(std::uint64_t value, int count) {
      for (int i = 0; i < count; ++i) text += static_cast<char>(value >> (8 * i) & 255);
      return *this;
    }
    bytes& two(std::uint64_t value) { return put(value, 2); }
    bytes& four(std::uint64_t value) { return put(value, 4); }
    bytes& eight(std::uint64_t value) { return put(value, 8); }
  };

  static std::string local_header(const entry& each) {
    bytes out;
    out.four(0x04034b50).two(version).two(flags).two(0).four(midnight);
    out.four(0).four(0xFFFFFFFF).four(0xFFFFFFFF).two(each.name.size()).two(20);
    out.text += each.name;
    out.two(1).two(16).eight(0).eight(0);
    return out.text;
  }

  static std::string descriptor(const entry& each) {
    return bytes().four(0x08074b50).four(each.checksum).eight(each.size).eight(each.size).text;
  }

  std::string central_directory() const {
    bytes out;
    for (const entry& each : entries_) {
      out.four(0x02014b50).two(version).two(version).two(flags).two(0).four(midnight);
      out.four(each.checksum).four(0xFFFFFFFF).four(0xFFFFFFFF).two(each.name.size()).two(28);
      out.two(0).two(0).two(0).four(0).four(0xFFFFFFFF);
      out.text += each.name;
      out.two(1).two(24).eight(each.size).eight(each.size).eight(each.offset);
    }
    const std::uint64_t size = out.text.size();
    const std::uint64_t count = entries_.size();
    out.four(0x06064b50).eight(44).two(version).two(version).four(0).four(0);
    out.eight(count).eight(count).eight(size).eight(sent_);
    out.four(0x07064b50).four(0).eight(sent_ + size).four(1);
    out.four(0x06054b50).two(0).two(0).two(0xFFFF).two(0xFFFF);
    out.four(0xFFFFFFFF).four(0xFFFFFFFF).two(0);
    return out.text;
  }

  std::vector<entry> entries_;
  std::size_t at_ = 0;
  std::ifstream file_;
  std::uint64_t left_ = 0;
  std::uint64_t sent_ = 0;
  crc32 checksum_;
  bool ended_ = false;
};

}  // namespace local_hub
