// The complex matrix products per frequency, out[m][o] = sum over r of a[m][r] * b[r][o], with L of
// o to a vector: a is read one value at a time (broadcast), b and out as vectors [re L | im L].
//
// M x B vectors of results stay in registers (2 M B of them; 6 x 2 fills the 32 of AVX-512 with the
// 4 of b and 2 broadcasts). One r costs 4 M B fused multiply-adds for 2 M + 2 B loads: at 6 x 2, 48
// for 16, so two loads and two multiply-adds a cycle never wait for the first-level cache. Gauss's
// complex product of three multiplications would save a quarter of the multiply-adds, but spectra
// would take 1.5 times the memory, which limits the larger tiles.
#pragma once

#include "kernels/cpu/simd/vector-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// Strides in floats. r = outer * inner_count + inner, up to r_count in all.
struct Operands {
  const float* a;
  ptrdiff_t a_m, a_inner, a_outer;
  int64_t r_count, inner_count;
  const float* b;
  ptrdiff_t b_r, b_block;
  float* out;
  ptrdiff_t out_m, out_block;
  bool accumulate;
};

// kConjugate multiplies by the conjugate of b.
template <int L, int M, int B, bool kConjugate>
__attribute__((flatten)) void product_block(const Operands& p) {
  // The sums stay in registers from here to the end.
  Vector<L> re[M][B], im[M][B];
  unroll<M>([&](auto m) {
    unroll<B>([&](auto b) {
      float* const out = p.out + m * p.out_m + b * p.out_block;
      re[m][b] = p.accumulate ? load<L>(out) : Vector<L>{};
      im[m][b] = p.accumulate ? load<L>(out + L) : Vector<L>{};
    });
  });
  const float* vectors = p.b;
  const float* outer = p.a;
  // The inputs r lie in blocks of inner_count values (the lanes of a vector); the outer loop walks
  // blocks.
  for (int64_t left = p.r_count; left > 0; left -= p.inner_count, outer += p.a_outer) {
    const float* inner = outer;
    for (int64_t i = left < p.inner_count ? left : p.inner_count; i > 0; --i) {
      // One r: B complex vectors of b meet M broadcast values of a. The multiply-adds with the real
      // part of b come first, so that those with the imaginary part do not wait for them.
      Vector<L> br[B], bi[B];
      unroll<B>([&](auto b) {
        br[b] = load<L>(vectors + b * p.b_block);
        bi[b] = load<L>(vectors + b * p.b_block + L);
      });
      unroll<M>([&](auto m) {
        const float ar = inner[m * p.a_m], ai = inner[m * p.a_m + L];
        unroll<B>([&](auto b) {
          re[m][b] += ar * br[b];
          im[m][b] += ai * br[b];
        });
        unroll<B>([&](auto b) {
          if constexpr (kConjugate) {
            re[m][b] += ai * bi[b];
            im[m][b] -= ar * bi[b];
          } else {
            re[m][b] -= ai * bi[b];
            im[m][b] += ar * bi[b];
          }
        });
      });
      inner += p.a_inner;
      vectors += p.b_r;
    }
  }
  unroll<M>([&](auto m) {
    unroll<B>([&](auto b) {
      float* const out = p.out + m * p.out_m + b * p.out_block;
      store<L>(out, re[m][b]);
      store<L>(out + L, im[m][b]);
    });
  });
}

template <int L, int M, int B, bool kConjugate>
void product_up_to(int64_t m, const Operands& p) {
  if (m == M) {
    product_block<L, M, B, kConjugate>(p);
  } else if constexpr (M > 1) {
    product_up_to<L, M - 1, B, kConjugate>(m, p);
  }
}

// All of m < m_count, in equal pieces of at most M.
template <int L, int M, int B, bool kConjugate>
void product_rows(int64_t m_count, Operands p) {
  // Equal pieces: a remainder of one row would leave most registers idle.
  for (int64_t pieces = (m_count + M - 1) / M; pieces > 0; --pieces) {
    const int64_t m = (m_count + pieces - 1) / pieces;
    product_up_to<L, M, B, kConjugate>(m, p);
    p.a += m * p.a_m;
    p.out += m * p.out_m;
    m_count -= m;
  }
}

// All of m < m_count and of the blocks of L values of o.
template <int L, bool kConjugate>
void product(int64_t m_count, int64_t blocks, Operands p) {
  constexpr bool kManyRegisters = L == 16;
  constexpr int M2 = kManyRegisters ? 6 : 2, M1 = kManyRegisters ? 8 : 4;
  // Two blocks at a time share each broadcast of a; a last odd block takes more rows instead.
  for (; blocks >= 2; blocks -= 2) {
    product_rows<L, M2, 2, kConjugate>(m_count, p);
    p.b += 2 * p.b_block;
    p.out += 2 * p.out_block;
  }
  if (blocks == 1) product_rows<L, M1, 1, kConjugate>(m_count, p);
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
