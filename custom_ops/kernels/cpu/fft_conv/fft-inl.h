// Complex FFTs of the tile sizes, one transform per lane: N = R1 * R2 in two passes (or one, for
// the smallest), each a loop of register-held transforms:
//   pass 1: for j < R2:  t[k][j] = w_N^(j k) * sum over i of x[j + R2 i] w_R1^(i k)
//   pass 2: for k < R1:  X[k + R1 m] = sum over j of t[k][j] w_R2^(j m)
// A transform moves every value twice through the first-level cache (2 N loads and stores of pairs)
// and does about 4 N log2 N / 1.3 vector operations: on a machine with one store and two arithmetic
// instructions a cycle the two are near balance. The inverse is the same with re and im exchanged.
#pragma once

#include "kernels/cpu/fft_conv/dft-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// The radix of the first pass; N itself where one pass will do. R1 and R2 near the square root of N
// need the fewest registers.
constexpr int first_radix(int n) {
  switch (n) {
    case 20: return 4;
    case 24: return 4;
    case 28: return 4;
    case 32: return 4;
    case 36: return 6;
    case 40: return 5;
    case 48: return 6;
    case 56: return 7;
    case 60: return 6;
    case 64: return 8;
    case 72: return 8;
    case 80: return 8;
    case 96: return 8;
    case 112: return 8;
    case 128: return 8;
    case 144: return 12;
    case 160: return 10;
    case 192: return 12;
    case 256: return 16;
    default: return n;
  }
}

// w_N^(j k) as cos and sin, computed by the compiler.
template <int N>
struct Twiddles {
  static constexpr int kR1 = first_radix(N), kR2 = N / kR1;
  struct Values {
    float cosine[kR2][kR1], sine[kR2][kR1];
  };
  static constexpr Values make() {
    Values v{};
    for (int j = 0; j < kR2; ++j) {
      for (int k = 0; k < kR1; ++k) {
        v.cosine[j][k] = static_cast<float>(cosine_of_turn(j * k, N));
        v.sine[j][k] = static_cast<float>(sine_of_turn(j * k, N));
      }
    }
    return v;
  }
  static constexpr Values kValues = make();
};

// `stride` floats lie between successive points, each a vector at re and one at im.
template <int N, int L>
__attribute__((flatten)) void fft(const float* re, const float* im, ptrdiff_t stride, float* out_re,
                                  float* out_im, ptrdiff_t out_stride) {
  constexpr int R1 = first_radix(N), R2 = N / R1;
  if constexpr (R2 == 1) {
    // One pass: all points in registers.
    Complex<L> x[N];
    unroll<N>([&](auto i) { x[i] = {load<L>(re + i * stride), load<L>(im + i * stride)}; });
    dft<N, L>(x);
    unroll<N>([&](auto i) {
      store<L>(out_re + i * out_stride, x[i].re);
      store<L>(out_im + i * out_stride, x[i].im);
    });
  } else {
    // Pass 1: R1 points that lie R2 apart, in registers; results times twiddle factors go to
    // `between`, turned so that pass 2 reads neighbours.
    alignas(64) float between[N * 2 * L];
    for (int j = 0; j < R2; ++j) {
      Complex<L> x[R1];
      unroll<R1>([&](auto i) {
        const ptrdiff_t at = (j + R2 * i) * stride;
        x[i] = {load<L>(re + at), load<L>(im + at)};
      });
      dft<R1, L>(x);
      unroll<R1>([&](auto k) {
        Complex<L> z = x[k];
        if constexpr (k > 0) {
          const float c = Twiddles<N>::kValues.cosine[j][k], s = Twiddles<N>::kValues.sine[j][k];
          z = {x[k].re * c + x[k].im * s, x[k].im * c - x[k].re * s};
        }
        float* const t = between + (k * R2 + j) * 2 * L;
        store<L>(t, z.re);
        store<L>(t + L, z.im);
      });
    }
    for (int k = 0; k < R1; ++k) {
      Complex<L> x[R2];
      unroll<R2>([&](auto j) {
        const float* const t = between + (k * R2 + j) * 2 * L;
        x[j] = {load<L>(t), load<L>(t + L)};
      });
      dft<R2, L>(x);
      unroll<R2>([&](auto m) {
        const ptrdiff_t at = (k + R1 * m) * out_stride;
        store<L>(out_re + at, x[m].re);
        store<L>(out_im + at, x[m].im);
      });
    }
  }
}

using FftFunction = void (*)(const float* re, const float* im, ptrdiff_t stride, float* out_re,
                             float* out_im, ptrdiff_t out_stride);

// The transform of n points, one of fft_sizes() (geometry.h).
template <int L>
FftFunction find_fft(int n) {
  switch (n) {
    case 1: return fft<1, L>;
    case 8: return fft<8, L>;
    case 12: return fft<12, L>;
    case 16: return fft<16, L>;
    case 20: return fft<20, L>;
    case 24: return fft<24, L>;
    case 28: return fft<28, L>;
    case 32: return fft<32, L>;
    case 36: return fft<36, L>;
    case 40: return fft<40, L>;
    case 48: return fft<48, L>;
    case 56: return fft<56, L>;
    case 60: return fft<60, L>;
    case 64: return fft<64, L>;
    case 72: return fft<72, L>;
    case 80: return fft<80, L>;
    case 96: return fft<96, L>;
    case 112: return fft<112, L>;
    case 128: return fft<128, L>;
    case 144: return fft<144, L>;
    case 160: return fft<160, L>;
    case 192: return fft<192, L>;
    case 256: return fft<256, L>;
    default: return nullptr;
  }
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
