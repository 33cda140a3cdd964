// Blocked matrix products after Goto and van de Geijn (2008): B in panels and A in strips are
// packed so that the innermost loop (matmul_block.h) reads both in order and keeps its sums in
// registers.
//
// Cost: 2 m n k operations. Packing reads and writes B once per kMaxDepth x kMaxColumns block and A
// once per tile of C: O(n k + m k n / kMaxColumns) moves, few in comparison with the products
// unless m or n is small.
#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <atomic>

#include "kernels/cpu/matmul_block.h"

namespace graphscale {
namespace {

// A panel of B, kDepth deep, stays in the first cache while a block of A, kTileRows high, is read
// from the second; all of a packed B, kMaxDepth x kMaxColumns at a time, lies in the last.
constexpr int64_t kDepth = 256;
constexpr int64_t kTileRows = 144;  // a multiple of every MatmulBlock::rows
constexpr int64_t kMaxDepth = 8 * kDepth;
constexpr int64_t kMaxColumns = 1024;  // a multiple of every MatmulBlock::columns
constexpr int kWidest = 32;  // MatmulBlock::rows and MatmulBlock::columns are at most that

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// B's columns with those that fill up the last panel, or half panel.
template <typename T>
int64_t padded_columns(int64_t n) {
  return round_up(n, this_machines_matmul<T>().columns / 2);
}

// Packed: depth block after depth block, in each panel after panel.
template <typename T>
void pack_b(const Context& context, int64_t n, int64_t k, const MatrixView<const T>& b, T* packed) {
  const MatmulBlock<T>& block = this_machines_matmul<T>();
  const int64_t padded = padded_columns<T>(n);
  const int64_t panels = (n + block.columns - 1) / block.columns;
  const int64_t depths = (k + kDepth - 1) / kDepth;
  const int64_t each = block.columns * std::clamp<int64_t>(k, 1, kDepth);
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / each);
  parallel_ranges(context, panels * depths, grain, [&](int64_t begin, int64_t end) {
    const T* from[kWidest];
    for (int64_t task = begin; task < end; ++task) {
      // A task packs one panel of one depth block.
      const int64_t j = task % panels * block.columns;
      const int64_t p = task / panels * kDepth;
      const int64_t depth = std::min(kDepth, k - p);
      const int width = static_cast<int>(std::min<int64_t>(block.columns, padded - j));
      const int used = static_cast<int>(std::min<int64_t>(width, n - j));
      T* to = packed + p * padded + j * depth;
      // Neighbouring rows of one group lie at a constant distance.
      for (int64_t first = 0; first < depth;) {
        const int64_t rows = std::min(depth - first, b.group - (b.first + p + first) % b.group);
        for (int i = 0; i < used; ++i) from[i] = b.at(p + first) + (j + i) * b.column;
        block.pack(from, b.row, used, width, rows, to);
        to += rows * width;
        first += rows;
      }
    }
  });
}

// Rows [row, row + m) and columns [column, column + n) of C, at most kTileRows high.
template <typename T>
void tile(const MatmulBlock<T>& block, int64_t row, int64_t m, int64_t column, int64_t n, int64_t k,
          int64_t padded, const MatrixView<const T>& a, const T* packed_b, const MatrixView<T>& c,
          bool accumulate, const T* bias, T* packed_a) {
  T edge[kWidest * kWidest];
  T* c_rows[kTileRows];
  for (int64_t i = 0; i < m; ++i) {
    // C begins with the bias, to which all depth blocks add.
    c_rows[i] = c.at(row + i) + column;
    if (bias != nullptr) std::copy_n(bias + column, n, c_rows[i]);
  }
  for (int64_t p = 0; p < k; p += kDepth) {
    const int64_t depth = std::min(kDepth, k - p);
    const bool add = accumulate || bias != nullptr || p > 0;
    const T* from[kWidest];
    // All strips of A at this depth are packed once and meet every panel of B.
    for (int64_t i = 0; i < m; i += block.rows) {
      const int used = static_cast<int>(std::min<int64_t>(block.rows, m - i));
      for (int r = 0; r < used; ++r) from[r] = a.at(row + i + r) + p * a.column;
      block.pack(from, a.column, used, block.rows, depth, packed_a + i * depth);
    }
    // Panel after panel: one panel stays in the first-level cache for all strips. Whole blocks go
    // straight to C; those at the edges go through a small buffer, of which only the existing part
    // is added.
    for (int64_t j = 0; j < n; j += block.columns) {
      const int64_t width = std::min<int64_t>(block.columns, padded - column - j);
      const int64_t columns = std::min(width, n - j);
      const T* const right = packed_b + p * padded + (column + j) * depth;
      for (int64_t i = 0; i < m; i += block.rows) {
        const int64_t rows = std::min<int64_t>(block.rows, m - i);
        T* targets[kWidest];
        if (rows == block.rows && columns == width) {
          for (int64_t y = 0; y < rows; ++y) targets[y] = c_rows[i + y] + j;
          block.multiply(depth, width, packed_a + i * depth, right, targets, add);
          continue;
        }
        for (int y = 0; y < block.rows; ++y) targets[y] = edge + y * kWidest;
        block.multiply(depth, width, packed_a + i * depth, right, targets, false);
        for (int64_t y = 0; y < rows; ++y) {
          T* const to = c_rows[i + y] + j;
          for (int64_t x = 0; x < columns; ++x) to[x] = (add ? to[x] : 0) + targets[y][x];
        }
      }
    }
  }
}

// For few rows, or for few products in every sum, packing costs more than it saves.
template <typename T>
void few_rows(int64_t m, int64_t n, int64_t k, const MatrixView<const T>& a,
              const MatrixView<const T>& b, const MatrixView<T>& c, bool accumulate,
              const T* bias) {
  for (int64_t i = 0; i < m; ++i) {
    if (bias != nullptr) std::copy_n(bias, n, c.at(i));
    this_machines_matmul<T>().one_row(n, k, a.at(i), a.column, b, c.at(i),
                                      accumulate || bias != nullptr);
  }
}

template <typename T>
MatrixView<const T> beginning_at(MatrixView<const T> view, int64_t column) {
  view.data += column * view.column;
  return view;
}

template <typename T>
MatrixView<const T> without_rows(MatrixView<const T> view, int64_t rows) {
  view.first += rows;
  return view;
}

}  // namespace

template <typename T>
int64_t packed_size(int64_t n, int64_t k) {
  return padded_columns<T>(n) * k;
}

template <typename T>
void pack_matrix(const Context& context, int64_t n, int64_t k, MatrixView<const T> b, T* packed) {
  pack_b(context, n, k, b, packed);
}

template <typename T>
void matmul_packed(const Context& context, int64_t m, int64_t n, int64_t k, MatrixView<const T> a,
                   const T* packed, MatrixView<T> c, bool accumulate, const T* bias) {
  if (m <= 0 || n <= 0) return;
  if (k <= 0) return few_rows<T>(m, n, 0, a, {packed, 1, 1}, c, accumulate, bias);
  const MatmulBlock<T>& block = this_machines_matmul<T>();
  // Tiles as large as leave every thread a few of them.
  const int64_t wanted = context.threads > 1 ? 4 * context.threads : 1;
  int64_t rows = std::min(kTileRows, round_up(m, block.rows));
  int64_t columns = std::min(kMaxColumns, round_up(n, block.columns));
  const auto tiles_of = [&] { return ((m + rows - 1) / rows) * ((n + columns - 1) / columns); };
  while (tiles_of() < wanted && rows > 4 * block.rows) rows = round_up(rows / 2, block.rows);
  while (tiles_of() < wanted && columns > 4 * block.columns) {
    columns = round_up(columns / 2, block.columns);
  }
  const int64_t across = (n + columns - 1) / columns;
  const int64_t tiles = tiles_of();
  const int64_t workers = std::min<int64_t>(context.threads, tiles);
  const int64_t size = rows * std::min(kDepth, std::max<int64_t>(k, 1));
  const ScratchArray<T> packed_a(context, workers * size);
  // Workers take tiles from one counter: a thread that is delayed leaves its tiles to the others.
  std::atomic<int64_t> next{0};
  parallel_for(context, workers, [&](int64_t worker) {
    for (int64_t t = next++; t < tiles; t = next++) {
      const int64_t i = t / across * rows;
      const int64_t j = t % across * columns;
      tile<T>(block, i, std::min(rows, m - i), j, std::min(columns, n - j), k, padded_columns<T>(n),
              a, packed, c, accumulate, bias, packed_a.get() + worker * size);
    }
  });
}

template <typename T>
void matmul(const Context& context, int64_t m, int64_t n, int64_t k, MatrixView<const T> a,
            MatrixView<const T> b, MatrixView<T> c, bool accumulate, const T* bias) {
  if (m <= 0 || n <= 0) return;
  if (k <= 2 || m <= 2) return few_rows(m, n, std::max<int64_t>(k, 0), a, b, c, accumulate, bias);
  const int64_t columns = std::min(kMaxColumns, n);
  const ScratchArray<T> packed(context, packed_size<T>(columns, std::min(kMaxDepth, k)));
  // Blocks of B, as much as the last-level cache keeps, are packed and used one after another.
  for (int64_t j = 0; j < n; j += columns) {
    const int64_t width = std::min(columns, n - j);
    for (int64_t p = 0; p < k; p += kMaxDepth) {
      const int64_t depth = std::min(kMaxDepth, k - p);
      pack_b(context, width, depth, without_rows(beginning_at(b, j), p), packed.get());
      MatrixView<T> part = c;
      part.data += j;
      matmul_packed<T>(context, m, width, depth, beginning_at(a, p), packed.get(), part,
                       accumulate || p > 0, bias == nullptr || p > 0 ? nullptr : bias + j);
    }
  }
}

#define GRAPHSCALE_INSTANTIATE(T)                                                                \
  template int64_t packed_size<T>(int64_t, int64_t);                                             \
  template void pack_matrix<T>(const Context&, int64_t, int64_t, MatrixView<const T>, T*);       \
  template void matmul_packed<T>(const Context&, int64_t, int64_t, int64_t, MatrixView<const T>, \
                                 const T*, MatrixView<T>, bool, const T*);                       \
  template void matmul<T>(const Context&, int64_t, int64_t, int64_t, MatrixView<const T>,        \
                          MatrixView<const T>, MatrixView<T>, bool, const T*);
GRAPHSCALE_INSTANTIATE(float)
GRAPHSCALE_INSTANTIATE(double)

}  // namespace graphscale
