// SPDX-License-Identifier: MIT
//
// Files above 4 GiB, which have no size and no place that fits into 32 bits: they are read right, or
// refused by a program that cannot, and never cut. The file is sparse and takes no room.

#if !defined(HUB_SESSION_NO_HTTPLIB)
#define HUB_SESSION_NO_HTTPLIB
#endif
#include "../hub_session.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace large_files_tests {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t four_gibibytes = std::uint64_t{1} << 32;
constexpr std::uint64_t file_bytes = four_gibibytes + 5;

// Holds "abcde" behind 4 GiB of nothing, and an "x" at its beginning, where a place that was cut to 32
// bits would lead.
fs::path large_file(const scratch_folder& folder) {
  const fs::path file = folder.write("large.pt", "x");
  fs::resize_file(file, four_gibibytes);
  std::ofstream(file, std::ios::binary | std::ios::app) << "abcde";
  REQUIRE(fs::file_size(file) == file_bytes);
  return file;
}

std::string read_at(hub::body_source& body, std::uint64_t offset, std::size_t bytes) {
  std::string out(bytes, '\0');
  const auto got = body.read(offset, std::span(out));
  REQUIRE(got);
  out.resize(*got);
  return out;
}

}  // namespace

#if defined(_WIN32)
constexpr bool reads_large_files = true;
#else
constexpr bool reads_large_files = sizeof(off_t) == 8;
#endif

TEST_CASE("a file above 4 GiB is read as it is, or refused with what to do about it") {
  const scratch_folder folder;
  const fs::path file = large_file(folder);
  const auto body = hub::machine::file_source::open(file);
  REQUIRE(static_cast<bool>(body) == reads_large_files);
  if (!body) {
    CHECK(body.error().code == hub::errc::file_error);
    CHECK(body.error().message.find("-D_FILE_OFFSET_BITS=64") != std::string::npos);
    return;
  }
  CHECK((*body)->size_bytes() == file_bytes);
  CHECK(read_at(**body, four_gibibytes - 1, 3) == std::string("\0ab", 3));
  CHECK(read_at(**body, four_gibibytes, 100) == "abcde");
  CHECK(read_at(**body, file_bytes, 100).empty());
}

TEST_CASE("a form around a file above 4 GiB has its size, and all of its bytes in their places") {
  if (!reads_large_files) return;
  const scratch_folder folder;
  auto file = hub::machine::file_source::open(large_file(folder));
  REQUIRE(file);
  using hub::hub_v1_wire::multipart_body;
  const std::array<multipart_body::field, 1> fields = {{{"epoch", "3"}}};
  multipart_body form("edge", fields, "last.pt", *file);
  const std::string tail = "abcde\r\n--edge--\r\n";
  REQUIRE(form.size_bytes() > file_bytes + tail.size());
  std::uint64_t at = form.size_bytes() - tail.size();
  std::string end;
  while (at < form.size_bytes()) {
    end += read_at(form, at, 100);
    at = form.size_bytes() - tail.size() + end.size();
  }
  CHECK(end == tail);
  const std::uint64_t head_bytes = form.size_bytes() - tail.size() - four_gibibytes;
  const std::string head = read_at(form, 0, 1000);
  CHECK(head.size() == head_bytes);
  CHECK(head.ends_with("filename=\"last.pt\"\r\n\r\n"));
  CHECK(read_at(form, head_bytes, 1) == "x");
}

// Where it can be read, the copy would take 4 GiB of the disk.
TEST_CASE("no copy is begun of a file above what the program can read") {
  if (reads_large_files) return;
  const scratch_folder folder;
  const auto copy = hub::machine::copy_steady(large_file(folder), folder / "copy");
  REQUIRE(!copy);
  CHECK(copy.error().message.find("-D_FILE_OFFSET_BITS=64") != std::string::npos);
}

TEST_CASE("a place in a file that the program cannot name is refused, and not cut to another") {
  const scratch_folder folder;
  const auto file = hub::machine::open(folder.write("small.pt", "x"), "rb");
  REQUIRE(file);
  CHECK(hub::machine::seek(file.get(), four_gibibytes) == reads_large_files);
  CHECK(!hub::machine::seek(file.get(), std::uint64_t{1} << 63));
}

}  // namespace large_files_tests
