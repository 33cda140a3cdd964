// The operands of the products of spectra in shared memory: words of 32 bits, in the form that the
// tensor cores take.
#pragma once

#include <cstring>

#include "kernels/cuda/fft/number.h"

namespace graphscale::cuda {

GRAPHSCALE_DEVICE uint32_t to_bits(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
#endif
}

// One part, real or imaginary, of kNumbers complex numbers of the depth; rests are the differences
// between the numbers and their words.
struct Words {
  uint32_t high, low;
};

template <bool kHasRests>
struct Tf32 {
  using Number = Complex;
  using Raw = Complex;
  static constexpr int kNumbers = 1;
  static constexpr bool kSplit = kHasRests;
  static constexpr int kBlocks = kSplit ? 2 : 3;
  static constexpr uint32_t kSigns = 0x80000000u;

  // sign * part as tf32 (the tensor cores do not look at the lower 13 bits; a little more than the
  // number makes that nearly the nearest), and the rest.
  GRAPHSCALE_DEVICE static Words words(const Raw (&numbers)[kNumbers], bool real, float sign) {
    constexpr float kMore = 1 + 1.5f / 4096;
    const float value = real ? numbers[0].re : numbers[0].im;
    const uint32_t high = to_bits(value * (sign * kMore));
    if constexpr (!kSplit) return {high, 0};
    const uint32_t kept = high & 0xffffe000u;
    return {kept, to_bits((sign * value - from_bits(kept)) * kMore)};
  }
  GRAPHSCALE_DEVICE static void multiply_add(const Block& block, float (&sum)[4],
                                             const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    block.multiply_add(sum, a, b);
  }
};

struct Halves {
  using Number = HalfComplex;
  using Raw = uint32_t;  // the imaginary part above the real one
  static constexpr int kNumbers = 2;
  static constexpr bool kSplit = false;
  static constexpr int kBlocks = 3;
  static constexpr uint32_t kSigns = 0x80008000u;

  GRAPHSCALE_DEVICE static Words words(const Raw (&numbers)[kNumbers], bool real, float sign) {
    const uint32_t both = real ? (numbers[0] & 0xffffu) | numbers[1] << 16
                               : numbers[0] >> 16 | (numbers[1] & 0xffff0000u);
    return {sign < 0 ? both ^ kSigns : both, 0};
  }
  GRAPHSCALE_DEVICE static void multiply_add(const Block& block, float (&sum)[4],
                                             const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    block.multiply_add_halves(sum, a, b);
  }
};

}  // namespace graphscale::cuda
