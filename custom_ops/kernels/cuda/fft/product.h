// Complex matrix products of spectra, one for each frequency and group, on tensor cores:
//   out[f, g, i, j] = scale * sum over k of left[f, g, i, k] right[f, g, k, j]
// (+ out where it accumulates).
#pragma once

#include "kernels/cuda/fft/number.h"
#include "kernels/cuda/launch.h"

namespace graphscale::cuda {

// Distances in numbers. Number (i, k) of left and (k, j) of right are at i * row + k * depth and
// j + k * depth; out has neighbours along j, rows `row` apart.
template <typename Number>
struct SpectraOperand {
  const Number* data;
  int64_t frequency, group, row, depth;
};

template <typename In, typename Out>
struct SpectraProduct {
  SpectraOperand<In> left;   // row or depth is 1
  SpectraOperand<In> right;  // row is 1
  Out* out;
  int64_t out_frequency, out_group, out_row;
  int64_t frequencies, groups, rows, columns, depth;
  float scale;
  bool accumulate, conjugate_right;
};

// With single tf32 numbers (10 bits of fraction), or with pairs of them, which is as accurate as
// float32 arithmetic.
void multiply_spectra(const Context& context, const SpectraProduct<Complex, Complex>& product,
                      bool single);

// Sums are float32. Of the first left.depth is 1, of the second left.row.
void multiply_spectra(const Context& context,
                      const SpectraProduct<HalfComplex, HalfComplex>& product);
void multiply_spectra(const Context& context, const SpectraProduct<HalfComplex, Complex>& product);

}  // namespace graphscale::cuda
