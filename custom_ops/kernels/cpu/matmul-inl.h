// The innermost loops of matmul.cpp for one instruction set (see matmul_block.h).
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/matmul_block.h"
#include "kernels/cpu/simd/vector-inl.h"

namespace graphscale::GRAPHSCALE_INSTRUCTION_SET {
namespace {

// Real is float or double.
template <typename Real>
struct MatmulLoops {
  static constexpr int kLanes = kVectorBytes / sizeof(Real);
  // The sums of kRows x kColumns take 24 of AVX-512's 32 registers, else 12 of 16.
  static constexpr int kRows = kVectorBytes == 64 ? 12 : 6;
  static constexpr int kColumns = 2 * kLanes;
  using Vector = typename VectorOf<kLanes, Real>::type;
  using Loose = typename VectorOf<kLanes, Real>::unaligned;
  using Four = typename VectorOf<4, Real>::unaligned;

  // c[i][j] (+)= sum over p of a[p][i] * b[p][j], for kRows rows and `vectors` vectors of columns.
  // The sums stay in registers. rows[i] is where row i of c begins.
  template <int vectors>
  static void product(int64_t depth, const Real* a, const Real* b, Real* const* rows, bool add) {
    Vector sum[kRows][vectors] = {};
    for (int64_t p = 0; p < depth; ++p) {
      // One p: two vectors of b meet kRows broadcast values of a.
      Vector right[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) right[v] = *reinterpret_cast<const Loose*>(b + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sum[i][v] += a[i] * right[v];
      }
      a += kRows;
      b += vectors * kLanes;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        // The sums go to c once per depth block.
        Loose* const to = reinterpret_cast<Loose*>(rows[i] + v * kLanes);
        *to = add ? *to + sum[i][v] : sum[i][v];
      }
    }
  }

  static void multiply(int64_t depth, int64_t columns, const Real* a, const Real* b,
                       Real* const* rows, bool add) {
    if (columns <= kLanes) {
      product<1>(depth, a, b, rows, add);
    } else {
      product<2>(depth, a, b, rows, add);
    }
  }

  // to[p * width + i] = from[i][p * step] for `used` rows; the others become zeros. Rows of
  // neighbouring elements are turned four by four, rows that are neighbours themselves are copied.
  static void pack(const Real* const* from, int64_t step, int used, int width, int64_t depth,
                   Real* to) {
    if (used < width) std::fill_n(to, width * depth, Real(0));
    int i = 0;
    if (step == 1) {
      for (; i + 4 <= used; i += 4) {
        int64_t p = 0;
        for (; p + 4 <= depth; p += 4) {
          // Four rows of four columns are turned in registers: 8 shuffles for 16 numbers.
          const Four r0 = *reinterpret_cast<const Four*>(from[i] + p);
          const Four r1 = *reinterpret_cast<const Four*>(from[i + 1] + p);
          const Four r2 = *reinterpret_cast<const Four*>(from[i + 2] + p);
          const Four r3 = *reinterpret_cast<const Four*>(from[i + 3] + p);
          const Four low01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
          const Four high01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
          const Four low23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
          const Four high23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
          Real* const at = to + p * width + i;
          *reinterpret_cast<Four*>(at) = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
          *reinterpret_cast<Four*>(at + width) = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
          *reinterpret_cast<Four*>(at + 2 * width) =
              __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
          *reinterpret_cast<Four*>(at + 3 * width) =
              __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
        }
        for (; p < depth; ++p) {
          for (int r = i; r < i + 4; ++r) to[p * width + r] = from[r][p];
        }
      }
    } else if (used == width && from[width - 1] - from[0] == width - 1) {
      for (int64_t p = 0; p < depth; ++p) {
        const Real* const source = from[0] + p * step;
        for (int r = 0; r < width; ++r) to[p * width + r] = source[r];
      }
      return;
    }
    for (; i < used; ++i) {
      for (int64_t p = 0; p < depth; ++p) to[p * width + i] = from[i][p * step];
    }
  }

  // One row of the result, without packing: row[p * step] times B, whose row p is at(p).
  static void one_row(int64_t n, int64_t k, const Real* row, int64_t step, MatrixView<const Real> b,
                      Real* out, bool add) {
    if (!add) std::fill_n(out, n, Real(0));
    if (b.row == 1 && step == 1 && b.group >= k) {
      // Dot products with rows of B': four independent sums hide the latency of a multiply-add.
      constexpr int kSums = 4;
      for (int64_t j = 0; j < n; ++j) {
        const Real* const other = b.data + j * b.column;
        Vector sums[kSums] = {};
        int64_t p = 0;
        for (; p + kSums * kLanes <= k; p += kSums * kLanes) {
#pragma GCC unroll 4
          for (int s = 0; s < kSums; ++s) {
            sums[s] += *reinterpret_cast<const Loose*>(row + p + s * kLanes) *
                       *reinterpret_cast<const Loose*>(other + p + s * kLanes);
          }
        }
        const Vector all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        Real sum = 0;
        for (int l = 0; l < kLanes; ++l) sum += all[l];
        for (; p < k; ++p) sum += row[p] * other[p];
        out[j] += sum;
      }
      return;
    }
    for (int64_t p = 0; p < k; ++p) {
      const Real factor = row[p * step];
      const Real* const other = b.at(p);
      if (b.column == 1) {
        for (int64_t j = 0; j < n; ++j) out[j] += factor * other[j];
      } else {
        for (int64_t j = 0; j < n; ++j) out[j] += factor * other[j * b.column];
      }
    }
  }
};

template <typename Real>
constexpr MatmulBlock<Real> matmul_block() {
  using Loops = MatmulLoops<Real>;
  return {Loops::multiply, Loops::pack, Loops::one_row, Loops::kRows, Loops::kColumns};
}

}  // namespace
}  // namespace graphscale::GRAPHSCALE_INSTRUCTION_SET
