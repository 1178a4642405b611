// SPDX-License-Identifier: MIT
//
// The keys that a HUB accepts, in DATA/keys.json: a name, a digest and a date for each. Keys are "ul"
// and 40 random hexadecimal digits, which nobody can try out, so a plain SHA-256 hides them as well as
// a slow hash would. The key itself is shown once, when it is made, and kept nowhere.
//
// A key has two forms. HUB's clients take it as it is, 42 characters; the Platform's have an
// underscore behind "ul". A key that was made for a model is good for that model alone, and goes with
// it.
//
// A running HUB and `local_hub keys` share the file: the HUB looks at it again whenever it has
// changed, so a key that is revoked is refused from the next request on.

#pragma once

#include "files.hpp"
#include "hub_session.hpp"
#include "records.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace local_hub {

struct key_record {
  std::string name;
  std::string sha256;
  std::string made;   // a date
  std::string model;  // "" where it is for all of them

  // Tells it from others, and nothing of the key.
  std::string id() const { return sha256.substr(0, 16); }
};

// The form that the Platform's clients take.
inline std::string platform_form(const std::string& key) {
  return key.starts_with("ul") ? "ul_" + key.substr(2) : key;
}

// All members may be called from any thread.
class key_ring {
 public:
  static constexpr std::size_t name_bytes_max = 100;

  explicit key_ring(const std::filesystem::path& data) : file_(data / "keys.json") {}

  // Of a key in either form.
  static std::string digest(std::string_view key) {
    constexpr std::string_view lead = "ul_";
    if (!key.starts_with(lead)) return sha256().add(key).hexadecimal();
    return sha256().add("ul").add(key.substr(lead.size())).hexadecimal();
  }

  // A key that is in no file, before anything is served.
  void add_given(std::string_view key) { given_ = key_record{"--api-key", digest(key), "", ""}; }

  std::vector<key_record> list() {
    const std::lock_guard lock(mutex_);
    refresh();
    return keys_;
  }

  // Nothing where no key has this digest.
  std::optional<key_record> find(const std::string& wanted) {
    const std::lock_guard lock(mutex_);
    if (given_ && given_->sha256 == wanted) return given_;
    refresh();
    for (const key_record& each : keys_)
      if (each.sha256 == wanted) return each;
    return std::nullopt;
  }

  // Returns the new key, in the form that HUB's clients take.
  std::string make(std::string name) { return make(std::move(name), ""); }

  // The one key of a model; one that it had before is not good any more.
  std::string make_for_model(const std::string& model) { return make("model " + model, model); }

  // Returns how many keys had this name.
  std::size_t revoke(const std::string& name) {
    return remove([&](const key_record& each) { return each.name == name; });
  }
  // False where no key has this id.
  bool revoke_id(const std::string& id) {
    return remove([&](const key_record& each) { return each.id() == id; }) > 0;
  }
  void revoke_of_model(const std::string& model) {
    remove([&](const key_record& each) { return each.model == model; });
  }

 private:
  std::string make(std::string name, const std::string& model) {
    const std::string key = "ul" + random_hexadecimal(40);
    change([&] {
      name.resize(std::min(name.size(), name_bytes_max));
      if (!model.empty())
        std::erase_if(keys_, [&](const key_record& each) { return each.model == model; });
      keys_.push_back(
          {std::move(name), digest(key), to_text(std::chrono::system_clock::now()), model});
      return true;
    });
    return key;
  }

  template <class Which>
  std::size_t remove(Which which) {
    std::size_t gone = 0;
    change([&] { return (gone = std::erase_if(keys_, which)) > 0; });
    return gone;
  }

  struct file_state {
    std::filesystem::file_time_type time = {};
    std::uintmax_t size = 0;
    bool operator==(const file_state&) const = default;
  };

  // `what` returns whether it changed anything.
  template <class Change>
  void change(Change what) {
    const std::lock_guard lock(mutex_);
    const file_lock one_at_a_time(file_.string() + ".lock", file_lock::when_taken::wait);
    seen_.reset();
    refresh();
    if (!what()) return;
    ordered_json all = ordered_json::array();
    for (const key_record& each : keys_) {
      all.push_back({{"name", each.name}, {"sha256", each.sha256}, {"made", each.made}});
      if (!each.model.empty()) all.back()["model"] = each.model;
    }
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
                       hub::text::get_string(each, "made"), hub::text::get_string(each, "model")});
    seen_ = now;
  }

  std::filesystem::path file_;
  std::mutex mutex_;
  std::optional<key_record> given_;
  std::vector<key_record> keys_;
  std::optional<file_state> seen_;
};

// ---- guesses ------------------------------------------------------------------------------------

// Slows down whoever tries keys: an address may show a few wrong ones, and then one a second. Keys
// that were right from an address go on being looked at, so that nobody stops another's training.
// All members may be called from any thread.
class guess_limit {
 public:
  static constexpr double wrong_at_once_max = 10;
  static constexpr std::size_t addresses_max = 10'000;
  static constexpr std::size_t keys_max = 1000;  // of one address

  // Whether a key of this digest is looked at, where it comes from this address.
  bool may_try(const std::string& address, const std::string& digest) {
    const std::lock_guard lock(mutex_);
    const auto found = all_.find(address);
    if (found == all_.end()) return true;
    visitor& who = found->second;
    const auto now = std::chrono::steady_clock::now();
    who.wrong = std::max(0.0, who.wrong - std::chrono::duration<double>(now - who.seen).count());
    who.seen = now;
    return who.wrong < wrong_at_once_max || who.right.contains(digest);
  }

  void tried(const std::string& address, const std::string& digest, bool right) {
    const std::lock_guard lock(mutex_);
    if (all_.size() >= addresses_max) all_.clear();
    visitor& who = all_[address];
    if (right && who.right.size() < keys_max) who.right.insert(digest);
    if (right || ++who.wrong < wrong_at_once_max || who.wrong - 1 >= wrong_at_once_max) return;
    say("wrong keys come from " + address + "; they are looked at once a second from now on");
  }

 private:
  struct visitor {
    double wrong = 0;
    std::chrono::steady_clock::time_point seen = std::chrono::steady_clock::now();
    std::set<std::string> right = {};
  };
  std::mutex mutex_;
  std::map<std::string, visitor> all_;
};

// What a key that came with a request is good for.
struct key_check {
  std::optional<key_record> who;
  bool is_slowed = false;
};

// All members may be called from any thread.
class gate {
 public:
  explicit gate(key_ring& keys) : keys_(keys) {}

  key_check check(std::string_view key, const std::string& address) {
    if (key.empty()) return {};
    const std::string digest = key_ring::digest(key);
    if (!guesses_.may_try(address, digest)) return {{}, true};
    auto who = keys_.find(digest);
    guesses_.tried(address, digest, who.has_value());
    return {std::move(who)};
  }

 private:
  key_ring& keys_;
  guess_limit guesses_;
};

}  // namespace local_hub
