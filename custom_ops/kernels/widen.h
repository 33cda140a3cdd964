// 16-bit floats in and out of kernels that compute in float: a widened copy of an input, and an output
// that is rounded when its scope ends. For float and double both are the tensor itself.
#pragma once

#include <type_traits>

#include "kernels/operator.h"

namespace graphscale {

template <typename T>
class WideInput {
 public:
  using Wide = typename Accumulator<T>::type;

  // Of an optional input that was left out nothing is read.
  WideInput(const Context& context, const Tensor& tensor)
      : copy_(context, kSame || !tensor.present ? 0 : tensor.size()) {
    if constexpr (!kSame) {
      if (!tensor.present) return;
      const T* const from = tensor.data<T>();
      parallel_ranges(context, tensor.size(), 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) copy_[i] = static_cast<Wide>(from[i]);
      });
    }
    data_ = kSame ? tensor.data<Wide>() : copy_.get();
  }
  const Wide* get() const { return data_; }

 private:
  static constexpr bool kSame = std::is_same_v<T, Wide>;
  ScratchArray<Wide> copy_;
  const Wide* data_ = nullptr;
};

template <typename T>
class WideOutput {
 public:
  using Wide = typename Accumulator<T>::type;

  WideOutput(const Context& context, const Tensor& tensor)
      : context_(context),
        tensor_(tensor),
        copy_(context, kSame ? 0 : tensor.size()),
        data_(kSame ? tensor.data<Wide>() : copy_.get()) {}
  ~WideOutput() {
    if constexpr (!kSame) {
      T* const to = tensor_.data<T>();
      parallel_ranges(context_, tensor_.size(), 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] = T(copy_[i]);
      });
    }
  }
  WideOutput(const WideOutput&) = delete;
  WideOutput& operator=(const WideOutput&) = delete;
  Wide* get() const { return data_; }

 private:
  static constexpr bool kSame = std::is_same_v<T, Wide>;
  const Context& context_;
  const Tensor& tensor_;
  ScratchArray<Wide> copy_;
  Wide* data_;
};

}  // namespace graphscale
