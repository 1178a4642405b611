// SPDX-License-Identifier: MIT
//
// What was taken for what: the matrix that validation fills, and the scores that follow from it.

#pragma once

#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

class confusion_matrix {
 public:
  explicit confusion_matrix(std::size_t classes) : classes_(classes), counts_(classes * classes) {}

  void add(std::size_t truth, std::size_t taken_for) { ++counts_[truth * classes_ + taken_for]; }

  std::size_t at(std::size_t truth, std::size_t taken_for) const {
    return counts_[truth * classes_ + taken_for];
  }

  // Of what was taken for this class, the part that is of it; 0 where nothing was.
  double precision(std::size_t which) const {
    std::size_t taken = 0;
    for (std::size_t truth = 0; truth < classes_; ++truth) taken += at(truth, which);
    return part(at(which, which), taken);
  }

  // Of what is of this class, the part that was taken for it; 0 where nothing is.
  double recall(std::size_t which) const {
    std::size_t present = 0;
    for (std::size_t taken = 0; taken < classes_; ++taken) present += at(which, taken);
    return part(at(which, which), present);
  }

  double accuracy() const {
    std::size_t right = 0;
    std::size_t all = 0;
    for (std::size_t truth = 0; truth < classes_; ++truth) {
      right += at(truth, truth);
      for (std::size_t taken = 0; taken < classes_; ++taken) all += at(truth, taken);
    }
    return part(right, all);
  }

  // A row for each class that was there, a column for each that it was taken for.
  void print(std::span<const std::string_view> names) const {
    std::printf("%-10s", "");
    for (const std::string_view name : names) std::printf("%10s", std::string(name).c_str());
    std::printf("%10s%10s\n", "precision", "recall");
    for (std::size_t truth = 0; truth < classes_; ++truth) {
      std::printf("%-10s", std::string(names[truth]).c_str());
      for (std::size_t taken = 0; taken < classes_; ++taken) std::printf("%10zu", at(truth, taken));
      std::printf("%10.3f%10.3f\n", precision(truth), recall(truth));
    }
  }

 private:
  static double part(std::size_t some, std::size_t all) {
    return all == 0 ? 0 : static_cast<double>(some) / static_cast<double>(all);
  }

  std::size_t classes_;
  std::vector<std::size_t> counts_;
};
