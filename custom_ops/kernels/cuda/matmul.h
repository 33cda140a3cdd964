// Batched matrix products on tensor cores of operands with any strides:
//   out[b, i, j] = sum over k of left[b, i, k] right[b, k, j]  (+ bias[j], + out where it
//   accumulates)
//
// A block makes 64 x 64 numbers, its four warps 32 x 32 each; 16 of the depth are in shared memory
// while the next 16 are on their way to registers. Numbers go through the tensor cores as tf32 (10
// bits of fraction: exact for float16 and bfloat16). With kSplit a float is the sum of two such
// numbers and three products replace one, which is as accurate as float32 arithmetic.
//
// Cost: 2 rows columns depth operations per batch (three times that with kSplit); left is read once
// per 64 columns, right once per 64 rows, the result is written once.
#pragma once

#include <cstdlib>
#include <type_traits>

#include "kernels/cuda/launch.h"

namespace graphscale::cuda {

// Element (i, k) of batch b of group g lies at b * batch + g * group + i * row + k * depth, where k
// has two digits if inner is above 0: (k / inner) * outer + (k % inner) * depth. Counted in
// elements.
template <typename T>
struct Operand {
  const T* data;
  int64_t batch, group, row, depth;
  int64_t inner = 0, outer = 0;

  GRAPHSCALE_DEVICE int64_t at(int64_t i, int64_t k) const {
    if (inner == 0) return i * row + k * depth;
    const uint32_t high = static_cast<uint32_t>(k) / static_cast<uint32_t>(inner);
    return i * row + high * outer + (k - high * inner) * depth;
  }
};

template <typename T, bool kSplit>
struct Matmul {
  static constexpr int kThreads = 128;
  static constexpr int kTile = 64;
  static constexpr int kDepth = 16;
  static constexpr int kLeftPitch = kDepth + 4;  // no two lanes of a fragment in one bank
  static constexpr int kRightPitch = kTile + 8;
  static constexpr int kLeftPlane = kTile * kLeftPitch;
  static constexpr int kRightPlane = kDepth * kRightPitch;
  static constexpr size_t kSharedBytes = (kLeftPlane + kRightPlane) * sizeof(float);
  static constexpr int kLoads = kTile * kDepth / kThreads;

  Operand<T> left;   // row = i
  Operand<T> right;  // row = j
  void* out;         // T, or float where wide_out; neighbouring columns are neighbours
  int64_t out_batch, out_group, out_row;
  const T* bias;  // or null
  int64_t batches, groups, rows, columns, depth;
  bool accumulate, wide_out;

  int64_t blocks() const {
    return batches * groups * divide_up(rows, kTile) * divide_up(columns, kTile);
  }

  // Numbers on their way from memory to shared memory.
  struct Staged {
    float values[kLoads];
  };

  // Which element of a tile a thread brings: neighbours in memory go to neighbouring threads.
  struct Place {
    int i, k;
  };
  GRAPHSCALE_DEVICE static Place place(int thread, int load, bool along_depth) {
    const int element = thread + load * kThreads;
    return along_depth ? Place{element / kDepth, element % kDepth}
                       : Place{element % kTile, element / kTile};
  }

  GRAPHSCALE_DEVICE void fetch(const Operand<T>& from, const T* base, int64_t first, int64_t count,
                               int64_t k0, int thread, Staged& staged) const {
#pragma unroll
    for (int load = 0; load < kLoads; ++load) {
      const Place p = place(thread, load, from.depth == 1);
      const int64_t i = first + p.i;
      const int64_t k = k0 + p.k;
      const bool inside = i < count && k < depth;
      staged.values[load] = inside ? widen(base[from.at(i, k)]) : 0.0f;
    }
  }

  // The tf32 numbers that stand for a float: the nearest one and, with kSplit, the nearest one to
  // the rest.
  struct Parts {
    uint32_t high, low;
  };
  GRAPHSCALE_DEVICE static Parts parts(float value) {
    const uint32_t high = to_tf32(value);
    if constexpr (!kSplit) return {high, 0};
    return {high, to_tf32(value - from_bits(high))};
  }

  struct Left {
    uint32_t high[4], low[4];
  };
  struct Right {
    uint32_t high[2], low[2];
  };

  GRAPHSCALE_DEVICE static Left left_fragment(const float* tile, int row, int k, int lane) {
    Left fragment;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = (row + lane / 4 + i % 2 * 8) * kLeftPitch + k + lane % 4 + i / 2 * 4;
      const Parts p = parts(tile[at]);
      fragment.high[i] = p.high;
      fragment.low[i] = p.low;
    }
    return fragment;
  }

  GRAPHSCALE_DEVICE static Right right_fragment(const float* tile, int k, int column, int lane) {
    Right fragment;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Parts p = parts(tile[(k + lane % 4 + i * 4) * kRightPitch + column + lane / 4]);
      fragment.high[i] = p.high;
      fragment.low[i] = p.low;
    }
    return fragment;
  }

  template <typename Block>
  GRAPHSCALE_DEVICE static void multiply_add(const Block& block, float (&sum)[4], const Left& a,
                                             const Right& b) {
    if constexpr (kSplit) {
      block.multiply_add(sum, a.low, b.high);
      block.multiply_add(sum, a.high, b.low);
    }
    block.multiply_add(sum, a.high, b.high);
  }

  template <typename Block>
  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    float* const left_tile = block.template shared<float>();
    float* const right_tile = left_tile + kLeftPlane;
    const int64_t column_tiles = divide_up(columns, kTile);
    const int64_t tiles = divide_up(rows, kTile) * column_tiles;
    const int64_t matrix = block.index() / tiles;
    const int64_t tile = block.index() % tiles;
    const int64_t batch = matrix / groups;
    const int64_t group = matrix % groups;
    const int64_t row0 = tile / column_tiles * kTile;
    const int64_t column0 = tile % column_tiles * kTile;
    const T* const a = left.data + batch * left.batch + group * left.group;
    const T* const b = right.data + batch * right.batch + group * right.group;
    const int thread = block.thread();
    const int lane = thread % kWarp;
    const int warp_row = thread / kWarp / 2 * 32;
    const int warp_column = thread / kWarp % 2 * 32;

    // Parts of the tile that lie outside of the result; the same for all lanes of a warp.
    const int64_t warp_rows = rows - row0 - warp_row;
    const int64_t warp_columns = columns - column0 - warp_column;

    // Registers of the next 16 of the depth are filled while the tensor cores work on these: two
    // barriers per step.
    float sums[2][4][4] = {};
    Staged next_left;
    Staged next_right;
    fetch(left, a, row0, rows, 0, thread, next_left);
    fetch(right, b, column0, columns, 0, thread, next_right);
    for (int64_t k0 = 0; k0 < depth; k0 += kDepth) {
      block.sync();
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const Place l = place(thread, load, left.depth == 1);
        const Place r = place(thread, load, right.depth == 1);
        left_tile[l.i * kLeftPitch + l.k] = next_left.values[load];
        right_tile[r.k * kRightPitch + r.i] = next_right.values[load];
      }
      block.sync();
      if (k0 + kDepth < depth) {
        fetch(left, a, row0, rows, k0 + kDepth, thread, next_left);
        fetch(right, b, column0, columns, k0 + kDepth, thread, next_right);
      }
      if (warp_rows <= 0 || warp_columns <= 0) continue;
#pragma unroll
      // A warp: 2 x 4 fragments of 16 x 8; each fragment of right serves two of left.
      for (int k = 0; k < kDepth; k += 8) {
        Left lefts[2];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          lefts[m] = left_fragment(left_tile, warp_row + m * 16, k, lane);
        }
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          if (n * 8 >= warp_columns) break;
          const Right b_part = right_fragment(right_tile, k, warp_column + n * 8, lane);
#pragma unroll
          for (int m = 0; m < 2; ++m) multiply_add(block, sums[m][n], lefts[m], b_part);
        }
      }
    }

    const int64_t base = batch * out_batch + group * out_group;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          // Where PTX puts the numbers of a fragment.
          const int64_t row = row0 + warp_row + m * 16 + lane / 4 + i / 2 * 8;
          const int64_t column = column0 + warp_column + n * 8 + lane % 4 * 2 + i % 2;
          if (row < rows && column < columns) {
            store(base + row * out_row + column, column, sums[m][n][i]);
          }
        }
      }
    }
  }

  GRAPHSCALE_DEVICE void store(int64_t at, int64_t column, float value) const {
    if (bias != nullptr) value += widen(bias[column]);
    if (wide_out) {
      float* const to = static_cast<float*>(out) + at;
      *to = accumulate ? *to + value : value;
    } else {
      T* const to = static_cast<T*>(out) + at;
      *to = narrow<T>(accumulate ? widen(*to) + value : value);
    }
  }
};

// Whether float32 products may go through the tensor cores as single tf32 numbers: the environment
// variable GRAPHSCALE_TF32 is 1.
inline bool allow_tf32() {
  const char* const value = std::getenv("GRAPHSCALE_TF32");
  return value != nullptr && value[0] == '1';
}

template <typename T, bool kSplit>
void launch_matmul(const Context& context, const Matmul<T, kSplit>& product) {
  launch_blocks(context, product.blocks(), Matmul<T, kSplit>::kSharedBytes, product);
}

// The product with the accuracy that its type and allow_tf32() ask for.
template <typename T>
void matmul(const Context& context, const Matmul<T, false>& product) {
  constexpr bool kExact = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;
  if constexpr (kExact) {
    launch_matmul(context, product);
  } else if (allow_tf32()) {
    launch_matmul(context, product);
  } else {
    launch_matmul(context,
                  Matmul<T, true>{product.left, product.right, product.out, product.out_batch,
                                  product.out_group, product.out_row, product.bias, product.batches,
                                  product.groups, product.rows, product.columns, product.depth,
                                  product.accumulate, product.wide_out});
  }
}

}  // namespace graphscale::cuda
