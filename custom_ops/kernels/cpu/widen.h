// Lets kernels that compute in float read and write 16-bit floats: a widened copy of an input, and
// outputs that are rounded when their scope ends. For float and double all are the tensor itself.
#pragma once

#include <algorithm>
#include <type_traits>

#include "core/operator.h"

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

// A sum that takes the place of `count` numbers at `to` when its scope ends, rounded once.
template <typename T>
class WideSum {
 public:
  using Wide = typename Accumulator<T>::type;

  WideSum(const Context& context, T* to, int64_t count)
      : to_(to), count_(count), sum_(context, kSame ? 0 : count) {}
  ~WideSum() {
    if constexpr (!kSame) {
      for (int64_t i = 0; i < count_; ++i) to_[i] = T(sum_[i]);
    }
  }
  WideSum(const WideSum&) = delete;
  WideSum& operator=(const WideSum&) = delete;
  Wide* get() const {
    if constexpr (kSame) {
      return to_;
    } else {
      return sum_.get();
    }
  }

 private:
  static constexpr bool kSame = std::is_same_v<T, Wide>;
  T* to_;
  int64_t count_;
  ScratchArray<Wide> sum_;
};

}  // namespace graphscale
