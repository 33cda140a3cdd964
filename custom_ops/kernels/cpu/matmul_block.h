// The innermost loops of matmul.cpp as function pointers; each instruction set has its own
// (matmul-inl.h).
//
// A is packed into strips of `rows` rows, stored column after column, and B into panels of
// `columns` columns, stored row after row, so that the product reads both in order.
#pragma once

#include <cstdint>

#include "kernels/cpu/matmul.h"

namespace graphscale {

// T is float or double.
template <typename T>
struct MatmulBlock {
  // c[i][j] (+)= sum over p < depth of a[p][i] * b[p][j], i < rows, j < columns: one strip times
  // one panel. c_rows[i] is where row i of c begins. `columns` is this->columns or half of it.
  void (*multiply)(int64_t depth, int64_t columns, const T* a, const T* b, T* const* c_rows,
                   bool add);
  // to[p * width + i] = from[i][p * step] for i < used and p < depth; zeros for used <= i < width.
  void (*pack)(const T* const* from, int64_t step, int used, int width, int64_t depth, T* to);
  // out[j] (+)= sum over p < k of row[p * step] * b[p][j], without packing.
  void (*one_row)(int64_t n, int64_t k, const T* row, int64_t step, MatrixView<const T> b, T* out,
                  bool add);
  int rows;     // of a strip of A
  int columns;  // of a panel of B: two vectors
};

template <typename T>
const MatmulBlock<T>& this_machines_matmul();

}  // namespace graphscale
