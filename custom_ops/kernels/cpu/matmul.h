// Matrix products C = A B or C += A B for any strides, on the CPU.
//
// Cost: 2 m n k operations. B is packed once into panels that the innermost product reads in order,
// and A block by block as it is used: strides do not matter for speed and transposes are free.
#pragma once

#include <limits>

#include "core/operator.h"

namespace graphscale {

// Element (i, j) is data[i * row + j * column]. Rows may come in groups of `group`, whose first
// rows are group_stride apart: the overlapping rows of many sequences are one matrix.
template <typename T>
struct MatrixView {
  T* data;
  int64_t row;
  int64_t column;
  int64_t group = std::numeric_limits<int64_t>::max();
  int64_t group_stride = 0;
  int64_t first = 0;  // row of the groups that is row 0 of the matrix

  T* at(int64_t i) const {
    return data + (first + i) / group * group_stride + (first + i) % group * row;
  }
};

// T is float or double. Columns of C are one element apart. Parallel over tiles of C. Where bias is
// not null, its n values are added to every row; then C is not accumulated to.
template <typename T>
void matmul(const Context& context, int64_t m, int64_t n, int64_t k, MatrixView<const T> a,
            MatrixView<const T> b, MatrixView<T> c, bool accumulate, const T* bias = nullptr);

// B can be packed once for many products, into packed_size(n, k) elements.
template <typename T>
int64_t packed_size(int64_t n, int64_t k);
template <typename T>
void pack_matrix(const Context& context, int64_t n, int64_t k, MatrixView<const T> b, T* packed);
template <typename T>
void matmul_packed(const Context& context, int64_t m, int64_t n, int64_t k, MatrixView<const T> a,
                   const T* packed, MatrixView<T> c, bool accumulate, const T* bias = nullptr);

template <typename T>
void matmul(const Context& context, int64_t m, int64_t n, int64_t k, MatrixView<const T> a,
            MatrixView<const T> b, T* c, int64_t c_row, bool accumulate) {
  matmul<T>(context, m, n, k, a, b, MatrixView<T>{c, c_row, 1}, accumulate);
}

}  // namespace graphscale
