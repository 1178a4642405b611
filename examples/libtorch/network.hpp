// SPDX-License-Identifier: MIT
//
// A small convolutional network: three convolutions, of which each but the last halves the picture,
// the mean over what is left, and one layer that makes a score for each class of it.

#pragma once

#include <cstdint>

#include <torch/torch.h>

class shape_network_impl : public torch::nn::Module {
 public:
  explicit shape_network_impl(std::int64_t classes)
      : first_(register_module("first", block(1, 8))),
        second_(register_module("second", block(8, 16))),
        third_(register_module("third", block(16, 32))),
        scores_(register_module("scores", torch::nn::Linear(32, classes))) {}

  // From N × 1 × height × width to N × classes.
  torch::Tensor forward(const torch::Tensor& pictures) {
    torch::Tensor x = torch::max_pool2d(first_->forward(pictures), 2);
    x = torch::max_pool2d(second_->forward(x), 2);
    return scores_(third_->forward(x).mean({2, 3}));
  }

 private:
  static torch::nn::Sequential block(std::int64_t from, std::int64_t to) {
    return torch::nn::Sequential(
        torch::nn::Conv2d(torch::nn::Conv2dOptions(from, to, 3).padding(1).bias(false)),
        torch::nn::BatchNorm2d(to), torch::nn::ReLU());
  }

  torch::nn::Sequential first_;
  torch::nn::Sequential second_;
  torch::nn::Sequential third_;
  torch::nn::Linear scores_;
};
TORCH_MODULE_IMPL(shape_network, shape_network_impl);
