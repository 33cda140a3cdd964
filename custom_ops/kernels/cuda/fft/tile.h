// Two-dimensional real Fourier transforms of S x S tiles, S / 2 threads to a tile, each with one
// line at a time in its registers; shared memory is needed only to turn columns into rows.
//
// Two columns go through one complex transform as its real and imaginary part. Of the rows of the
// result 0 ... S/2 are kept (the others are their conjugates); rows 0 and S/2, being transforms of
// real numbers, share one complex row. So S/2 threads have S/2 rows; columns of zeros, and columns
// that the output does not need, are left out. In shared memory column c, row j is at c * kPitch +
// j.
//
// The spectra are 2 times, the inverse S^2 times the usual ones; the factors of the products
// correct this. The inverse of a spectrum is the transform of its conjugate; so products are made
// conjugated, and there is one transform for all purposes.
#pragma once

#include "kernels/cuda/fft/line.h"
#include "kernels/cuda/fft/number.h"

namespace graphscale::cuda {

// A set of numbers below N.
template <int N>
struct Bits {
  uint32_t words[(N + 31) / 32];

  GRAPHSCALE_DEVICE Bits(int begin, int end) {
    for (int i = 0; i < (N + 31) / 32; ++i) {
      words[i] = below(end - i * 32) & ~below(begin - i * 32);
    }
  }
  GRAPHSCALE_DEVICE uint32_t bit(int i) const { return words[i / 32] & 1u << i % 32; }
  GRAPHSCALE_DEVICE bool has(int i) const { return bit(i) != 0; }

 private:
  static GRAPHSCALE_DEVICE uint32_t below(int n) {
    return n <= 0 ? 0u : n >= 32 ? 0xffffffffu : (1u << n) - 1;
  }
};

// Columns [begin, begin + 2 pairs) of a tile; columns i and i + pairs share a transform.
struct Columns {
  int begin, pairs;
  GRAPHSCALE_BOTH int count() const { return 2 * pairs; }
};

template <int S, int kTilesOfBlock>
struct Tile {
  static constexpr int kHalf = S / 2;
  static constexpr int kTiles = kTilesOfBlock;
  static constexpr int kThreads = kTiles * kHalf;
  static constexpr int kPitch = kHalf | 1;     // neighbouring columns in different banks
  static constexpr int kElements = S * kHalf;  // complex numbers of a spectrum

  // Room of a tile with so many columns, so that the same places of a block's tiles are in
  // different banks.
  static constexpr GRAPHSCALE_BOTH int room(int columns) {
    const int minimum = columns * kPitch;
    return kTiles > 16 ? minimum : minimum + ((16 / kTiles - minimum) % 16 + 16) % 16;
  }

  // Which tile and row are a thread's: neighbours share a row's factors.
  static constexpr GRAPHSCALE_BOTH int tile_of(int thread) { return thread % kTiles; }
  static constexpr GRAPHSCALE_BOTH int row_of(int thread) { return thread / kTiles; }

  // From the transform of two columns to the half spectra of both.
  static GRAPHSCALE_DEVICE void split_columns(const Line<S>& line, Complex* a, Complex* b) {
    // 2 A[k] = Z[k] + conj Z[-k], 2 i B[k] = Z[k] - conj Z[-k]. Rows 0 and S/2 are real: they share
    // one number.
    constexpr int first = position<S>(0);
    constexpr int middle = position<S>(kHalf);
    a[0] = {2 * line.re[first], 2 * line.re[middle]};
    b[0] = {2 * line.im[first], 2 * line.im[middle]};
    unrolled<kHalf - 1>([&](auto i) {
      constexpr int k = decltype(i)::value + 1;
      constexpr int at = position<S>(k);
      constexpr int mirror = position<S>(S - k);
      a[k] = {line.re[at] + line.re[mirror], line.im[at] - line.im[mirror]};
      b[k] = {line.im[at] + line.im[mirror], line.re[mirror] - line.re[at]};
    });
  }

  // From two half spectra, conjugated, to a line whose transform has the columns, + addend, as its
  // real and imaginary part.
  static GRAPHSCALE_DEVICE void join_columns(const Complex* a, const Complex* b, float addend,
                                             Line<S>& line) {
    // Z[k] = A[k] + i B[k], of conjugates; the other half by the symmetry of real columns. An
    // addend to frequency 0 is one to every number of the column.
    line.re[0] = a[0].re + addend;
    line.im[0] = b[0].re + addend;
    line.re[kHalf] = a[0].im;
    line.im[kHalf] = b[0].im;
    unrolled<kHalf - 1>([&](auto i) {
      constexpr int k = decltype(i)::value + 1;
      const Complex of_a = a[k];
      const Complex of_b = b[k];
      line.re[k] = of_a.re - of_b.im;
      line.im[k] = of_a.im + of_b.re;
      line.re[S - k] = of_a.re + of_b.im;
      line.im[S - k] = of_b.re - of_a.im;
    });
  }

  // Row j of the columns.
  static GRAPHSCALE_DEVICE void read_row(const Complex* tile, int j, const Columns& columns,
                                         Line<S>& line) {
    const Bits<S> there(columns.begin, columns.begin + columns.count());
    const Complex* const from = tile + j - columns.begin * kPitch;
    unrolled<S>([&](auto i) {
      constexpr int c = decltype(i)::value;
      const Complex value = there.has(c) ? from[c * kPitch] : Complex{0, 0};
      line.re[c] = value.re;
      line.im[c] = value.im;
    });
  }

  // The transform of row j, to the columns from 0 on; no other row's place is used.
  static GRAPHSCALE_DEVICE void write_row(const Line<S>& line, int j, const Columns& columns,
                                          Complex* tile) {
    const Bits<S> wanted(0, columns.count());
    unrolled<S>([&](auto i) {
      constexpr int c = decltype(i)::value;
      constexpr int at = position<S>(c);
      if (wanted.has(c)) tile[c * kPitch + j] = {line.re[at], line.im[at]};
    });
  }
};

// The two spectra A and B that share row 0, from Z = A + iB at frequency k (z) and S - k (mirror).
struct Pair {
  float a_re, a_im, b_re, b_im;
};
GRAPHSCALE_DEVICE Pair unpack(float z_re, float z_im, float mirror_re, float mirror_im) {
  return {0.5f * (z_re + mirror_re), 0.5f * (z_im - mirror_im), 0.5f * (z_im + mirror_im),
          0.5f * (mirror_re - z_re)};
}

// Z at k and at S - k.
template <int S, int k>
GRAPHSCALE_DEVICE void pack(const Pair& pair, Line<S>& line) {
  line.re[k] = pair.a_re - pair.b_im;
  line.im[k] = pair.a_im + pair.b_re;
  if constexpr (k > 0 && k < S / 2) {
    line.re[S - k] = pair.a_re + pair.b_im;
    line.im[S - k] = pair.b_re - pair.a_im;
  }
}

// The conjugate of a number, or pair, times another.
GRAPHSCALE_DEVICE Complex multiply(const Complex& left, const Complex& right) {
  return {left.re * right.re + left.im * right.im, left.re * right.im - left.im * right.re};
}
GRAPHSCALE_DEVICE Pair multiply(const Pair& left, const Pair& right) {
  const Complex a = multiply(Complex{left.a_re, left.a_im}, Complex{right.a_re, right.a_im});
  const Complex b = multiply(Complex{left.b_re, left.b_im}, Complex{right.b_re, right.b_im});
  return {a.re, a.im, b.re, b.im};
}

// line, as transformed, <- its conjugate times factor(k), in order of frequency; of a row that two
// spectra share, spectrum by spectrum.
template <int S, typename Factor>
GRAPHSCALE_DEVICE void multiply_row(int j, const Factor& factor, Line<S>& line) {
  // Other rows number by number; row 0, which two spectra share, taken apart, multiplied and
  // joined.
  Line<S> out;
  if (j != 0) {
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int at = position<S>(k);
      const Complex value = multiply(Complex{line.re[at], line.im[at]}, factor(k));
      out.re[k] = value.re;
      out.im[k] = value.im;
    });
  } else {
    unrolled<S / 2 + 1>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int mirror = (S - k) % S;
      constexpr int at = position<S>(k);
      constexpr int mirror_at = position<S>(mirror);
      const Complex f = factor(k);
      const Complex f_mirror = factor(mirror);
      const Pair left = unpack(line.re[at], line.im[at], line.re[mirror_at], line.im[mirror_at]);
      const Pair right = unpack(f.re, f.im, f_mirror.re, f_mirror.im);
      pack<S, k>(multiply(left, right), out);
    });
  }
  line = out;
}

// line <- sum <- line + sum where there is one: a thread's own S numbers, kApart from each other.
template <int S, int kApart>
GRAPHSCALE_DEVICE void add_up(bool has_sum, Complex* sum, Line<S>& line) {
  unrolled<S>([&](auto i) {
    constexpr int k = decltype(i)::value;
    const Complex before = has_sum ? sum[k * kApart] : Complex{0, 0};
    line.re[k] += before.re;
    line.im[k] += before.im;
    sum[k * kApart] = {line.re[k], line.im[k]};
  });
}

}  // namespace graphscale::cuda
