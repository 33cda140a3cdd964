#include "kernels/matmul.h"

#include <algorithm>
#include <atomic>

namespace graphscale {
namespace {

// One innermost product per instruction set; the best one that the processor has is taken.
template <typename T>
struct Block {
  void (*multiply)(int64_t depth, const T* a, const T* b, T* c, int64_t c_row);
  int rows;
  int columns;
};

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx2,fma")
namespace avx512_float {
#define GRAPHSCALE_REAL float
#define GRAPHSCALE_LANES 16
#define GRAPHSCALE_ROWS 12
#include "kernels/matmul_block.h"
}  // namespace avx512_float
namespace avx512_double {
#define GRAPHSCALE_REAL double
#define GRAPHSCALE_LANES 8
#define GRAPHSCALE_ROWS 12
#include "kernels/matmul_block.h"
}  // namespace avx512_double
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2_float {
#define GRAPHSCALE_REAL float
#define GRAPHSCALE_LANES 8
#define GRAPHSCALE_ROWS 6
#include "kernels/matmul_block.h"
}  // namespace avx2_float
namespace avx2_double {
#define GRAPHSCALE_REAL double
#define GRAPHSCALE_LANES 4
#define GRAPHSCALE_ROWS 6
#include "kernels/matmul_block.h"
}  // namespace avx2_double
#pragma GCC pop_options
#endif
// What every 64-bit processor has: 128-bit vectors.
namespace plain_float {
#define GRAPHSCALE_REAL float
#define GRAPHSCALE_LANES 4
#define GRAPHSCALE_ROWS 6
#include "kernels/matmul_block.h"
}  // namespace plain_float
namespace plain_double {
#define GRAPHSCALE_REAL double
#define GRAPHSCALE_LANES 2
#define GRAPHSCALE_ROWS 6
#include "kernels/matmul_block.h"
}  // namespace plain_double

#define GRAPHSCALE_BLOCK(set) {set::multiply, set::kRows, set::kColumns}

template <typename T>
Block<T> best_block();

template <>
Block<float> best_block() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) {
    return GRAPHSCALE_BLOCK(avx512_float);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return GRAPHSCALE_BLOCK(avx2_float);
  }
#endif
  return GRAPHSCALE_BLOCK(plain_float);
}

template <>
Block<double> best_block() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) {
    return GRAPHSCALE_BLOCK(avx512_double);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return GRAPHSCALE_BLOCK(avx2_double);
  }
#endif
  return GRAPHSCALE_BLOCK(plain_double);
}

constexpr int64_t kDepth = 256;         // of a packed strip
constexpr int64_t kTileRows = 144;      // a multiple of every Block::rows
constexpr int64_t kTileColumns = 384;   // and of every Block::columns
constexpr int kMostRows = 12;
constexpr int kMostColumns = 32;

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Strips of `width` rows of `from`, each stored column after column, the last one filled with zeros.
template <typename T>
void pack(MatrixView<const T> from, int64_t rows, int64_t depth, int width, T* to) {
  for (int64_t start = 0; start < rows; start += width, to += width * depth) {
    const int64_t used = std::min<int64_t>(width, rows - start);
    const T* source = from.data + start * from.row;
    if (used < width) std::fill_n(to, width * depth, T(0));
    if (from.row == 1) {
      for (int64_t p = 0; p < depth; ++p) {
        std::copy_n(source + p * from.column, used, to + p * width);
      }
    } else {
      for (int64_t i = 0; i < used; ++i) {
        for (int64_t p = 0; p < depth; ++p) {
          to[p * width + i] = source[i * from.row + p * from.column];
        }
      }
    }
  }
}

// A tile of C, at most kTileRows x kTileColumns, from A and B that begin at its first row and column.
template <typename T>
void tile(const Block<T>& block, int64_t m, int64_t n, int64_t k, MatrixView<const T> a,
          MatrixView<const T> b, T* c, int64_t c_row, bool accumulate, T* packed_a, T* packed_b) {
  if (!accumulate) {
    for (int64_t i = 0; i < m; ++i) std::fill_n(c + i * c_row, n, T(0));
  }
  T edge[kMostRows * kMostColumns];
  for (int64_t p = 0; p < k; p += kDepth) {
    const int64_t depth = std::min(kDepth, k - p);
    pack<T>({a.data + p * a.column, a.row, a.column}, m, depth, block.rows, packed_a);
    pack<T>({b.data + p * b.row, b.column, b.row}, n, depth, block.columns, packed_b);
    for (int64_t j = 0; j < n; j += block.columns) {
      const int64_t columns = std::min<int64_t>(block.columns, n - j);
      for (int64_t i = 0; i < m; i += block.rows) {
        const int64_t rows = std::min<int64_t>(block.rows, m - i);
        T* const target = c + i * c_row + j;
        const T* const left = packed_a + i * depth;
        const T* const right = packed_b + j * depth;
        if (rows == block.rows && columns == block.columns) {
          block.multiply(depth, left, right, target, c_row);
          continue;
        }
        std::fill_n(edge, block.rows * block.columns, T(0));
        block.multiply(depth, left, right, edge, block.columns);
        for (int64_t y = 0; y < rows; ++y) {
          for (int64_t x = 0; x < columns; ++x) target[y * c_row + x] += edge[y * block.columns + x];
        }
      }
    }
  }
}

// For one or two rows packing costs more than it saves: every row of A goes once over B.
template <typename T>
void few_rows(int64_t m, int64_t n, int64_t k, MatrixView<const T> a, MatrixView<const T> b, T* c,
              int64_t c_row, bool accumulate) {
  constexpr int kSums = 16;
  for (int64_t i = 0; i < m; ++i) {
    const T* const row = a.data + i * a.row;
    T* const out = c + i * c_row;
    if (!accumulate) std::fill_n(out, n, T(0));
    if (b.row == 1 && a.column == 1) {
      for (int64_t j = 0; j < n; ++j) {
        const T* const other = b.data + j * b.column;
        T sums[kSums] = {};
        int64_t p = 0;
        for (; p + kSums <= k; p += kSums) {
          for (int s = 0; s < kSums; ++s) sums[s] += row[p + s] * other[p + s];
        }
        T sum = 0;
        for (const T part : sums) sum += part;
        for (; p < k; ++p) sum += row[p] * other[p];
        out[j] += sum;
      }
    } else {
      for (int64_t p = 0; p < k; ++p) {
        const T factor = row[p * a.column];
        const T* const other = b.data + p * b.row;
        for (int64_t j = 0; j < n; ++j) out[j] += factor * other[j * b.column];
      }
    }
  }
}

}  // namespace

template <typename T>
void matmul(const Context& context, int64_t m, int64_t n, int64_t k, MatrixView<const T> a,
            MatrixView<const T> b, T* c, int64_t c_row, bool accumulate) {
  if (m <= 0 || n <= 0) return;
  if (m <= 2) return few_rows(m, n, k, a, b, c, c_row, accumulate);
  static const Block<T> block = best_block<T>();
  const int64_t tile_columns = std::min(kTileColumns, round_up(n, block.columns));
  const int64_t tile_rows = std::min(kTileRows, round_up(m, block.rows));
  const int64_t across = (n + tile_columns - 1) / tile_columns;
  const int64_t tiles = across * ((m + tile_rows - 1) / tile_rows);
  const int64_t depth = std::min(kDepth, std::max<int64_t>(k, 1));
  const int64_t workers = std::min<int64_t>(context.threads, tiles);
  const int64_t size_a = tile_rows * depth;
  const int64_t size = size_a + tile_columns * depth;
  const ScratchArray<T> packed(context, workers * size);
  std::atomic<int64_t> next{0};
  parallel_for(context, workers, [&](int64_t worker) {
    T* const packed_a = packed.get() + worker * size;
    for (int64_t t = next++; t < tiles; t = next++) {
      const int64_t i = t / across * tile_rows;
      const int64_t j = t % across * tile_columns;
      tile<T>(block, std::min(tile_rows, m - i), std::min(tile_columns, n - j), k,
              {a.data + i * a.row, a.row, a.column}, {b.data + j * b.column, b.row, b.column},
              c + i * c_row + j, c_row, accumulate, packed_a, packed_a + size_a);
    }
  });
}

template void matmul<float>(const Context&, int64_t, int64_t, int64_t, MatrixView<const float>,
                            MatrixView<const float>, float*, int64_t, bool);
template void matmul<double>(const Context&, int64_t, int64_t, int64_t, MatrixView<const double>,
                             MatrixView<const double>, double*, int64_t, bool);

}  // namespace graphscale
