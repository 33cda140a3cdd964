// The complex numbers of spectra, as they lie in memory.
#pragma once

#include "kernels/cuda/device.h"

namespace graphscale::cuda {

struct alignas(8) Complex {  // one access of 8 bytes
  float re, im;
};

// A complex number of two float16 parts, of 11 bits each. Its values are scaled so that no part
// exceeds 2^15.
struct alignas(4) HalfComplex {
  Float16 re, im;
};

GRAPHSCALE_DEVICE Complex widen(const Complex& value) { return value; }
GRAPHSCALE_DEVICE Complex widen(const HalfComplex& value) {
  return {widen(value.re), widen(value.im)};
}

template <typename Number>
GRAPHSCALE_DEVICE Number make_number(float re, float im) {
  if constexpr (std::is_same_v<Number, HalfComplex>) {
    return {narrow<Float16>(re), narrow<Float16>(im)};
  } else {
    return {re, im};
  }
}

// 2^exponent, for exponents from -126 to 127.
GRAPHSCALE_DEVICE float power_of_two(int exponent) {
  return from_bits(static_cast<uint32_t>(exponent + 127) << 23);
}

}  // namespace graphscale::cuda
