// SPDX-License-Identifier: MIT
//
// The keys that a HUB accepts, in DATA/keys.json: a name, a digest and a date for each. Keys are 42
// random characters, which nobody can try out, so a plain SHA-256 hides them as well as a slow hash
// would. The key itself is shown once, when it is made, and kept nowhere.
//
// A running HUB and `local_hub keys` share the file: the HUB looks at it again whenever it has
// changed, so a key that is revoked is refused from the next request on.

#pragma once

#include "files.hpp"
#include "hub_session.hpp"
#include "records.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace local_hub {

struct key_record {
  std::string name;
  std::string sha256;
  std::string made;  // a date
};

// All members may be called from any thread.
class key_ring {
 public:
  static constexpr std::size_t name_bytes_max = 100;

  explicit key_ring(const std::filesystem::path& data) : file_(data / "keys.json") {}

  static std::string digest(std::string_view key) { return sha256().add(key).hexadecimal(); }

  std::vector<key_record> list() {
    const std::lock_guard lock(mutex_);
    refresh();
    return keys_;
  }

  bool has_digest(const std::string& wanted) {
    const std::lock_guard lock(mutex_);
    refresh();
    return std::any_of(keys_.begin(), keys_.end(),
                       [&](const key_record& each) { return each.sha256 == wanted; });
  }

  // Returns the new key.
  std::string make(std::string name) {
    // As long as HUB's own keys are, so that KEY_MODEL names both.
    const std::string key = random_text(hub::hub_v1::api_key_length);
    change([&] {
      name.resize(std::min(name.size(), name_bytes_max));
      keys_.push_back({std::move(name), digest(key), to_text(std::chrono::system_clock::now())});
    });
    return key;
  }

  // Returns how many keys had this name.
  std::size_t revoke(const std::string& name) {
    std::size_t gone = 0;
    change([&] {
      gone = std::erase_if(keys_, [&](const key_record& each) { return each.name == name; });
    });
    return gone;
  }

 private:
  struct file_state {
    std::filesystem::file_time_type time = {};
    std::uintmax_t size = 0;
    bool operator==(const file_state&) const = default;
  };

  template <class Change>
  void change(Change what) {
    const std::lock_guard lock(mutex_);
    const file_lock one_at_a_time(file_.string() + ".lock", file_lock::when_taken::wait);
    seen_.reset();
    refresh();
    what();
    ordered_json all = ordered_json::array();
    for (const key_record& each : keys_)
      all.push_back({{"name", each.name}, {"sha256", each.sha256}, {"made", each.made}});
    write_file(file_, to_page({{"keys", all}}), access::owner_only);
  }

  void refresh() {
    std::error_code missing;
    file_state now{std::filesystem::last_write_time(file_, missing), 0};
    if (!missing) now.size = std::filesystem::file_size(file_, missing);
    if (missing) {
      keys_.clear();
      seen_.reset();
      return;
    }
    if (seen_ == now) return;
    const auto written = hub::text::parse_json(read_file(file_).value_or(""));
    const json* all = written ? hub::text::get_member(*written, "keys") : nullptr;
    // Nobody gets in by a file that cannot be read, and nobody's keys are overwritten.
    if (!all || !all->is_array())
      throw std::runtime_error(file_.string() + " is not as it should be");
    keys_.clear();
    for (const json& each : *all)
      keys_.push_back({hub::text::get_string(each, "name"), hub::text::get_string(each, "sha256"),
                       hub::text::get_string(each, "made")});
    seen_ = now;
  }

  std::filesystem::path file_;
  std::mutex mutex_;
  std::vector<key_record> keys_;
  std::optional<file_state> seen_;
};

}  // namespace local_hub
