// Matrix products C = A B or C += A B for any strides, on the CPU.
//
// Cost: 2 m n k operations; every tile of C packs its strips of A and B into contiguous blocks that
// fit the caches, so the strides of A and B do not matter for speed and transposes are free.
#pragma once

#include "kernels/operator.h"

namespace graphscale {

// Element (i, j) is data[i * row + j * column].
template <typename T>
struct MatrixView {
  T* data;
  int64_t row;
  int64_t column;

  MatrixView transposed() const { return {data, column, row}; }
};

// T is float or double. Columns of C are one element apart. Parallel over tiles of C.
template <typename T>
void matmul(const Context& context, int64_t m, int64_t n, int64_t k, MatrixView<const T> a,
            MatrixView<const T> b, T* c, int64_t c_row, bool accumulate);

}  // namespace graphscale
