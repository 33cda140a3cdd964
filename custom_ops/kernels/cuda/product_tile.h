// One block's 64 x 64 tile of a matrix product whose operands are given as functions of their
// indices, for products whose operands are gathered or exist in shared memory only:
//   sums(i, j) += sum over k of left(i, k) right(j, k)
//
// float goes through the tensor cores as in matmul.h (kSplit: with float32's accuracy), double
// through plain arithmetic. 16 of the depth are in shared memory while the next 16 are on their way
// to registers. Few columns are cheap: what lies outside of the result is not multiplied.
#pragma once

#include "kernels/cuda/matmul.h"

namespace graphscale::cuda {

// Which index of an operand is the one along which its memory runs: neighbouring threads fetch it.
enum class Along { kOutside, kDepth };

template <typename Wide, bool kSplit>
class ProductTile {
 public:
  static constexpr int kThreads = 128;
  static constexpr int kSize = 64;
  static constexpr int kDepth = 16;
  static constexpr int kSums = kSize * kSize / kThreads;  // that each thread has
  static constexpr int kLeftPitch = kDepth + 4;           // no two lanes of a fragment in one bank
  static constexpr int kRightPitch = kSize + 8;
  static constexpr int kRoom = kSize * kLeftPitch + kDepth * kRightPitch;  // in shared memory

  struct Sums {
    Wide values[kSums / 4][4] = {};
  };

  // Adds the product of `rows` x depth by depth x `columns` numbers; rows and columns are at most
  // kSize. `room`: kRoom numbers that no thread of the block uses any more.
  template <Along kLeft, Along kRight, typename Block, typename Left, typename Right>
  GRAPHSCALE_DEVICE static void multiply(const Block& block, Wide* room, int64_t rows,
                                         int64_t columns, int64_t depth, const Left& left,
                                         const Right& right, Sums& sums) {
    Wide* const left_tile = room;
    Wide* const right_tile = room + kSize * kLeftPitch;
    const int thread = block.thread();
    // As in matmul.h: the next 16 of the depth are on their way while these are multiplied.
    Staged next_left;
    Staged next_right;
    fetch<kLeft>(thread, rows, depth, 0, left, next_left);
    fetch<kRight>(thread, columns, depth, 0, right, next_right);
    for (int64_t k0 = 0; k0 < depth; k0 += kDepth) {
      block.sync();
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const Place l = staged_place<kLeft>(thread, load);
        const Place r = staged_place<kRight>(thread, load);
        left_tile[l.i * kLeftPitch + l.k] = next_left.values[load];
        right_tile[r.k * kRightPitch + r.i] = next_right.values[load];
      }
      block.sync();
      if (k0 + kDepth < depth) {
        fetch<kLeft>(thread, rows, depth, k0 + kDepth, left, next_left);
        fetch<kRight>(thread, columns, depth, k0 + kDepth, right, next_right);
      }
      add(block, left_tile, right_tile, static_cast<int>(rows), static_cast<int>(columns), sums);
    }
    block.sync();
  }

  // visit(row, column, sum) for all that a thread has of the result.
  template <typename Visit>
  GRAPHSCALE_DEVICE static void for_each(int thread, int64_t rows, int64_t columns,
                                         const Sums& sums, const Visit& visit) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const int row = sum_row(thread, i);
      const int column = sum_column(thread, i);
      if (row < rows && column < columns) visit(row, column, sums.values[i / 4][i % 4]);
    }
  }

 private:
  static constexpr int kLoads = kSize * kDepth / kThreads;
  static constexpr bool kTensorCores = std::is_same_v<Wide, float>;

  struct Staged {
    Wide values[kLoads];
  };
  struct Place {
    int i, k;
  };
  template <Along kAlong>
  GRAPHSCALE_DEVICE static Place staged_place(int thread, int load) {
    const int element = thread + load * kThreads;
    return kAlong == Along::kDepth ? Place{element / kDepth, element % kDepth}
                                   : Place{element % kSize, element / kSize};
  }

  template <Along kAlong, typename Operand>
  GRAPHSCALE_DEVICE static void fetch(int thread, int64_t count, int64_t depth, int64_t k0,
                                      const Operand& operand, Staged& staged) {
#pragma unroll
    for (int load = 0; load < kLoads; ++load) {
      const Place p = staged_place<kAlong>(thread, load);
      const int64_t k = k0 + p.k;
      staged.values[load] = p.i < count && k < depth ? operand(p.i, k) : Wide(0);
    }
  }

  // Tensor cores: four warps have 32 x 32 numbers each, in fragments of 16 x 8. Else: a thread has
  // eight neighbouring rows and four columns that are 16 apart.
  GRAPHSCALE_DEVICE static int warp_row(int thread) { return thread / kWarp / 2 * 32; }
  GRAPHSCALE_DEVICE static int warp_column(int thread) { return thread / kWarp % 2 * 32; }
  GRAPHSCALE_DEVICE static int sum_row(int thread, int i) {
    if constexpr (kTensorCores) {
      return warp_row(thread) + i / 16 * 16 + thread % kWarp / 4 + i % 4 / 2 * 8;
    }
    return thread / 16 * 8 + i / 4;
  }
  GRAPHSCALE_DEVICE static int sum_column(int thread, int i) {
    if constexpr (kTensorCores) {
      return warp_column(thread) + i / 4 % 4 * 8 + thread % 4 * 2 + i % 2;
    }
    return thread % 16 + i % 4 * 16;
  }

  template <typename Block>
  GRAPHSCALE_DEVICE static void add(const Block& block, const Wide* left_tile,
                                    const Wide* right_tile, int rows, int columns, Sums& sums) {
    const int thread = block.thread();
    if constexpr (kTensorCores) {
      using Fragments = Matmul<float, kSplit>;
      const int lane = thread % kWarp;
      const int row = warp_row(thread);
      const int column = warp_column(thread);
      if (row >= rows || column >= columns) return;  // the same for all lanes
#pragma unroll
      for (int k = 0; k < kDepth; k += 8) {
        typename Fragments::Left left[2];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          left[m] = Fragments::left_fragment(left_tile, row + m * 16, k, lane);
        }
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          if (column + n * 8 >= columns) break;
          const auto right = Fragments::right_fragment(right_tile, k, column + n * 8, lane);
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            Fragments::multiply_add(block, sums.values[m * 4 + n], left[m], right);
          }
        }
      }
    } else {
      const int row = thread / 16 * 8;
      const int column = thread % 16;
      if (row >= rows) return;
      for (int k = 0; k < kDepth; ++k) {
        // double: 8 x 4 sums in registers for 12 loads from shared memory.
        Wide right[4];
#pragma unroll
        for (int n = 0; n < 4; ++n) right[n] = right_tile[k * kRightPitch + column + n * 16];
#pragma unroll
        for (int m = 0; m < 8; ++m) {
          const Wide left = left_tile[(row + m) * kLeftPitch + k];
#pragma unroll
          for (int n = 0; n < 4; ++n) sums.values[m][n] += left * right[n];
        }
      }
    }
  }
};

// function(std::bool_constant<kSplit>()) with the accuracy that T and allow_tf32() ask for.
template <typename T, typename F>
void with_accuracy(const F& function) {
  if constexpr (std::is_same_v<T, float>) {
    if (!allow_tf32()) return function(std::true_type());
  }
  function(std::false_type());
}

}  // namespace graphscale::cuda
