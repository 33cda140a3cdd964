// Real matrix products, out[m][o] = sum over r of a[m][r] * b[r][o], with L of o to a vector: a is
// read one value at a time (broadcast). M x B vectors of results stay in registers: 14 x 2 of
// AVX-512's 32 ask for 16 loads in 14 cycles of two multiply-adds each.
#pragma once

#include "kernels/cpu/simd/vector-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

constexpr int64_t kTermsAtATime = 32;

// Strides in floats.
struct RealOperands {
  const float* a;
  ptrdiff_t a_m, a_r;
  int64_t r_count;
  const float* b;
  ptrdiff_t b_r, b_block;
  float* out;
  ptrdiff_t out_m, out_block;
  bool accumulate;
};

template <int L, int M, int B>
__attribute__((flatten)) void real_product_block(const RealOperands& p) {
  // The sums stay in registers over all r; each r costs B loads and M broadcasts for M B
  // multiply-adds.
  Vector<L> sum[M][B] = {};
  const float* a = p.a;
  const float* b = p.b;
  for (int64_t r = p.r_count; r > 0; --r, a += p.a_r, b += p.b_r) {
    Vector<L> vectors[B];
    unroll<B>([&](auto j) { vectors[j] = load<L>(b + j * p.b_block); });
    unroll<M>([&](auto m) {
      const float value = a[m * p.a_m];
      unroll<B>([&](auto j) { sum[m][j] += value * vectors[j]; });
    });
  }
  unroll<M>([&](auto m) {
    unroll<B>([&](auto j) {
      float* const to = p.out + m * p.out_m + j * p.out_block;
      store<L>(to, p.accumulate ? load<L>(to) + sum[m][j] : sum[m][j]);
    });
  });
}

// All of m < m_count, in equal pieces of at most M.
template <int L, int M, int B>
void real_product_rows(int64_t m_count, RealOperands p) {
  for (int64_t pieces = (m_count + M - 1) / M; pieces > 0; --pieces) {
    const int64_t m = (m_count + pieces - 1) / pieces;
    with_count<M>(m, [&](auto count) { real_product_block<L, count, B>(p); });
    p.a += m * p.a_m;
    p.out += m * p.out_m;
    m_count -= m;
  }
}

template <int L>
void real_product_blocks(int64_t m_count, int64_t blocks, RealOperands p) {
  constexpr int M = L == 16 ? 14 : 6;
  for (; blocks >= 2; blocks -= 2) {
    real_product_rows<L, M, 2>(m_count, p);
    p.b += 2 * p.b_block;
    p.out += 2 * p.out_block;
  }
  if (blocks == 1) real_product_rows<L, M, 1>(m_count, p);
}

// All of m < m_count and of the blocks of L values of o. Sums of sums round less than one long sum.
template <int L>
void real_product(int64_t m_count, int64_t blocks, RealOperands p) {
  // Sums of at most kTermsAtATime terms, added to each other in memory.
  const int64_t pieces = (p.r_count + kTermsAtATime - 1) / kTermsAtATime;
  for (int64_t left = p.r_count, piece = pieces; piece > 0; --piece) {
    p.r_count = (left + piece - 1) / piece;
    real_product_blocks<L>(m_count, blocks, p);
    p.a += p.r_count * p.a_r;
    p.b += p.r_count * p.b_r;
    left -= p.r_count;
    p.accumulate = true;
  }
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
