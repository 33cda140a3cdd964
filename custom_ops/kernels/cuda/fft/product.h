// Complex matrix products of spectra, one for each frequency and group, on tensor cores:
//   out[f, g, i, j] = sum over k of left[f, g, i, k] right[f, g, k, j]
// (+ out where it accumulates).
#pragma once

#include "kernels/cuda/launch.h"

namespace graphscale::cuda {

struct alignas(8) Complex {  // one access of 8 bytes
  float re, im;
};

// Distances in numbers. Number (i, k) of left and (k, j) of right are at i * row + k * depth and
// j + k * depth; out has neighbours along j, rows `row` apart.
struct SpectraOperand {
  const Complex* data;
  int64_t frequency, group, row, depth;
};

struct SpectraProduct {
  SpectraOperand left;   // row or depth is 1
  SpectraOperand right;  // row is 1
  Complex* out;
  int64_t out_frequency, out_group, out_row;
  int64_t frequencies, groups, rows, columns, depth;
  bool accumulate, conjugate_right;
};

// With single tf32 numbers (10 bits of fraction), or with pairs of them, which is as accurate as
// float32 arithmetic.
void multiply_spectra(const Context& context, const SpectraProduct& product, bool single);

}  // namespace graphscale::cuda
