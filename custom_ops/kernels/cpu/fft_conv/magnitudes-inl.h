// How large the numbers are that transforms read. One value spreads over its whole tile by its
// rounding errors (about 1e-7 times the value), NaN and infinities entirely, where a direct
// convolution keeps them within the kernel's reach; so the caller takes that one where the largest
// number stands out. The numbers are looked at while they are in registers, L vectors at a time:
// two operations per vector, and four for what L numbers, a block, add to the sums.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/cpu/fft_conv/engine.h"
#include "kernels/cpu/fft_conv/workers-inl.h"
#include "kernels/cpu/simd/vector-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// A float's bits without its sign rise with its size: those of infinities and NaN are the largest.
constexpr int kFractionBits = 23;
constexpr int32_t kWithoutSign = 0x7fffffff;
constexpr int32_t kBias = 127;
constexpr int64_t kLargestExponent = kBias + 64;  // sums of products of such numbers may overflow
constexpr int64_t kLeastExponent = kBias - 24;    // what is smaller, as in dead channels, counts so
constexpr int64_t kSpread = 16;                   // from most blocks' exponents to the largest one

// What one worker has read: lane by lane, the largest number, and the sum of the exponents of the
// blocks' largest numbers. Blocks of zeros are left out.
template <int L>
class Magnitudes {
 public:
  using Integers = typename VectorOf<L, int32_t>::type;

  // The largest of each lane of `vectors`, L blocks.
  GRAPHSCALE_INLINE void add(const Vector<L> (&vectors)[L]) {
    Integers block{};
    unroll<L>([&](auto i) { block = larger(block, bits_of(vectors[i])); });
    add_blocks(block);
  }

  GRAPHSCALE_INLINE void add(const Vector<L>& vector) { add_blocks(bits_of(vector)); }

  int32_t largest() const {
    int32_t largest = 0;
    for (int i = 0; i < L; ++i) largest = std::max(largest, largest_[i]);
    return largest;
  }
  int64_t exponents() const { return sum(exponents_); }
  int64_t blocks() const { return sum(blocks_); }

 private:
  static GRAPHSCALE_INLINE Integers bits_of(const Vector<L>& v) {
    return reinterpret_cast<Integers>(v) & kWithoutSign;
  }
  static GRAPHSCALE_INLINE Integers larger(const Integers& a, const Integers& b) {
    return a > b ? a : b;
  }
  static int64_t sum(const Integers& v) {
    int64_t sum = 0;
    for (int i = 0; i < L; ++i) sum += v[i];
    return sum;
  }

  GRAPHSCALE_INLINE void add_blocks(const Integers& block) {
    largest_ = larger(largest_, block);
    const Integers present = block > 0;  // -1 where it is
    const Integers least = static_cast<int32_t>(kLeastExponent) - Integers{};
    exponents_ += larger(block >> kFractionBits, least) & present;
    blocks_ -= present;
  }

  Integers largest_{}, exponents_{}, blocks_{};
};

// What all workers have read of one tensor.
class Spread {
 public:
  template <int L>
  void add(const Magnitudes<L>& read) {
    int32_t before = largest_.load();
    while (before < read.largest() && !largest_.compare_exchange_weak(before, read.largest())) {
    }
    exponents_ += read.exponents();
    blocks_ += read.blocks();
  }

  // Whether one of its numbers stands out.
  bool far_apart() const {
    const int64_t largest = largest_ >> kFractionBits;
    return largest >= kLargestExponent || (largest - kSpread) * blocks_ > exponents_;
  }
  Outcome outcome() const { return far_apart() ? Outcome::kTooFarApart : Outcome::kDone; }

 private:
  std::atomic<int32_t> largest_{0};
  std::atomic<int64_t> exponents_{0}, blocks_{0};
};

// deal() for tasks that read tensors: body(worker, task, read), and what they read to the spread.
template <int L, typename Body>
void deal_reading(const Context& context, int64_t tasks, Spread& spread, const Body& body) {
  deal_runs(context, tasks, [&](int64_t worker, int64_t first, int64_t end) {
    Magnitudes<L> read;
    for (int64_t task = first; task < end; ++task) body(worker, task, read);
    spread.add(read);
  });
}

// The same for tasks that read two tensors: body(worker, task, first_read, second_read).
template <int L, typename Body>
void deal_reading(const Context& context, int64_t tasks, Spread& first_spread,
                  Spread& second_spread, const Body& body) {
  deal_runs(context, tasks, [&](int64_t worker, int64_t first, int64_t end) {
    Magnitudes<L> first_read, second_read;
    for (int64_t task = first; task < end; ++task) body(worker, task, first_read, second_read);
    first_spread.add(first_read);
    second_spread.add(second_read);
  });
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
