// SPDX-License-Identifier: MIT
//
// The command lines of the examples: --name VALUE, --name=VALUE, --switch, and what is left over.
// Every error names the flag, what was given, and what is accepted.

#pragma once

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace examples {

struct usage_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class flags {
 public:
  using names = std::vector<std::string_view>;

  // Names are given with their dashes. Where a flag is repeated, the last one counts, but for all().
  flags(int argc, char** argv, const names& with_value, const names& switches) {
    bool only_operands = false;
    for (int i = 1; i < argc; ++i) {
      const std::string_view word = argv[i];
      if (only_operands || !is_flag(word)) {
        operands_.emplace_back(word);
      } else if (word == "--") {
        only_operands = true;
      } else if (const std::size_t equals = word.find('='); equals != word.npos) {
        const std::string_view name = word.substr(0, equals);
        if (contains(switches, name)) fail(name, "takes no value");
        if (!contains(with_value, name)) fail(name, "unknown flag");
        values_[std::string(name)].emplace_back(word.substr(equals + 1));
      } else if (contains(switches, word)) {
        values_[std::string(word)].emplace_back();
      } else {
        if (!contains(with_value, word)) fail(word, "unknown flag");
        if (i + 1 == argc || std::string_view(argv[i + 1]).starts_with("--"))
          fail(word, "a value is missing");
        values_[std::string(word)].emplace_back(argv[++i]);
      }
    }
  }

  const std::vector<std::string>& operands() const { return operands_; }

  bool has(std::string_view name) const { return values_.contains(name); }

  std::optional<std::string> text(std::string_view name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) return std::nullopt;
    return found->second.back();
  }

  // Of a flag that is repeated.
  std::vector<std::string> all(std::string_view name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? std::vector<std::string>() : found->second;
  }

  std::optional<int> whole_number(std::string_view name, int least, int most) const {
    const auto given = text(name);
    if (!given) return std::nullopt;
    int value = 0;
    const char* end = given->data() + given->size();
    const auto [stop, problem] = std::from_chars(given->data(), end, value);
    if (problem != std::errc{} || stop != end || value < least || value > most)
      reject(name, *given, "a whole number", least, most);
    return value;
  }

  std::optional<double> number(std::string_view name, double least, double most) const {
    const auto given = text(name);
    if (!given) return std::nullopt;
    // strtod also takes blanks, hexadecimal digits, "nan" and "inf", which nobody means here.
    const bool decimal = given->find_first_not_of("0123456789.+-eE") == std::string::npos;
    char* stop = nullptr;
    const double value = std::strtod(given->c_str(), &stop);
    const bool whole = !given->empty() && stop == given->c_str() + given->size();
    if (!decimal || !whole || !(value >= least && value <= most))
      reject(name, *given, "a number", least, most);
    return value;
  }

  std::optional<std::chrono::nanoseconds> seconds(std::string_view name, double least) const {
    constexpr double most = 1e8;  // three years, far from where nanoseconds overflow
    const auto value = number(name, least, most);
    if (!value) return std::nullopt;
    return std::chrono::nanoseconds(std::llround(*value * 1e9));
  }

 private:
  static bool is_flag(std::string_view word) { return word.size() > 1 && word[0] == '-'; }

  static bool contains(const names& list, std::string_view name) {
    return std::find(list.begin(), list.end(), name) != list.end();
  }

  [[noreturn]] static void fail(std::string_view name, std::string_view why) {
    throw usage_error(std::string(name) + ": " + std::string(why));
  }

  template <class Number>
  [[noreturn]] static void reject(std::string_view name, std::string_view given,
                                  std::string_view kind, Number least, Number most) {
    std::ostringstream why;
    why << '"' << given << "\" is not " << kind << " from " << least << " to " << most;
    fail(name, why.str());
  }

  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::vector<std::string> operands_;
};

}  // namespace examples
