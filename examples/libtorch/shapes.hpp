// SPDX-License-Identifier: MIT
//
// Pictures to learn from, drawn as they are needed: one shape each, of any size, place, angle and
// brightness, on noise. A seed stands for the same pictures on every machine.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <random>
#include <string_view>
#include <vector>

namespace shapes {

inline constexpr int side = 24;  // of a picture, in pixels

enum class shape : std::int64_t { disc, ring, square, triangle, cross };
inline constexpr std::array<std::string_view, 5> names = {"disc", "ring", "square", "triangle",
                                                          "cross"};

struct pictures {
  std::vector<float> pixels;         // side × side for each, row by row
  std::vector<std::int64_t> labels;  // a shape for each
};

// Whether a shape of radius 1 around the origin covers this point.
inline bool covers(shape what, double x, double y) {
  const double distance = std::hypot(x, y);
  const double nearer = std::min(std::abs(x), std::abs(y));
  const double farther = std::max(std::abs(x), std::abs(y));
  switch (what) {
    case shape::disc: return distance < 0.9;
    case shape::ring: return distance < 1 && distance > 0.55;
    case shape::square: return farther < 0.8;
    case shape::triangle: return y > -0.5 && y < 1 - std::numbers::sqrt3 * std::abs(x);
    case shape::cross: return nearer < 0.3 && farther < 1;
  }
  return false;
}

class artist {
 public:
  explicit artist(std::uint32_t seed) : engine_(seed) {}

  // As many of one shape as of any other, within one.
  pictures draw(std::size_t count) {
    pictures out;
    out.pixels.reserve(count * side * side);
    for (std::size_t i = 0; i < count; ++i) {
      const auto what = static_cast<shape>(i % names.size());
      out.labels.push_back(static_cast<std::int64_t>(what));
      draw_one(what, out.pixels);
    }
    return out;
  }

 private:
  // The standard fixes the numbers of std::mt19937, but not what its distributions make of them.
  double uniform(double low, double high) {
    return low + (high - low) * (static_cast<double>(engine_()) / 4294967296.0);
  }

  void draw_one(shape what, std::vector<float>& pixels) {
    constexpr double noise = 0.5;
    const double radius = uniform(5, 9);
    const double center_x = uniform(radius, side - radius);
    const double center_y = uniform(radius, side - radius);
    const double angle = uniform(0, 2 * std::numbers::pi);
    const double brightness = uniform(0.4, 1.2);
    for (int row = 0; row < side; ++row) {
      for (int column = 0; column < side; ++column) {
        const double x = (column + 0.5 - center_x) / radius;
        const double y = (row + 0.5 - center_y) / radius;
        const bool covered = covers(what, std::cos(angle) * x + std::sin(angle) * y,
                                    std::cos(angle) * y - std::sin(angle) * x);
        const double value = (covered ? brightness : 0) + uniform(-noise, noise);
        pixels.push_back(static_cast<float>(value));
      }
    }
  }

  std::mt19937 engine_;
};

}  // namespace shapes
