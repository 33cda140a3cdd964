// Two-dimensional real Fourier transforms of S x S tiles in shared memory, S / 2 threads to a tile,
// each with one line at a time in its registers.
//
// Rows j and j + S/2 go through one complex transform as its real and imaginary part. Of the
// columns of the result 0 ... S/2 are kept (the others are their conjugates); columns 0 and S/2,
// being transforms of real numbers, share one complex column as well. So S/2 threads do S/2 lines,
// along both axes. A tile takes S (S + 1) floats: real element (r, c) at r (S + 1) + c; real parts
// of column c at c (S + 1) + r, its imaginary parts S/2 columns behind. No bank of shared memory is
// hit twice at once.
//
// The spectra are 2 times, the inverse S^2 times the usual ones: whoever multiplies puts that
// right.
#pragma once

#include "kernels/cuda/fft/line.h"

namespace graphscale::cuda {

template <int S, int kTilesOfBlock>
struct Tile {
  static constexpr int kHalf = S / 2;
  static constexpr int kPitch = S + 1;
  static constexpr int kTiles = kTilesOfBlock;  // a power of two
  static constexpr int kThreads = kTiles * kHalf;
  // Tiles begin in different banks, for neighbouring threads work on neighbouring tiles.
  static constexpr int kShift = 32 / kTiles;
  static constexpr int kFloats = S * kPitch + ((kShift - S * kPitch) % 32 + 32) % 32;
  static constexpr int kElements = S * kHalf;  // complex numbers of a spectrum

  // Which tile and which line of it are a thread's.
  static constexpr GRAPHSCALE_BOTH int tile_of(int thread) { return thread % kTiles; }
  static constexpr GRAPHSCALE_BOTH int line_of(int thread) { return thread / kTiles; }

  // From the real tile to column j: frequency k is at position<S>(k) of the line.
  template <typename Block>
  static GRAPHSCALE_DEVICE void forward(const Block& block, float* tile, int j, Line<S>& line) {
    block.sync();
    unrolled<S>([&](auto i) {
      constexpr int c = decltype(i)::value;
      line.re[c] = tile[j * kPitch + c];
      line.im[c] = tile[(j + kHalf) * kPitch + c];
    });
    block.sync();
    transform<S>(line.re, line.im);
    unrolled<kHalf>([&](auto i) {
      constexpr int c = decltype(i)::value;
      float* const re = tile + c * kPitch + j;
      float* const im = re + kHalf * kPitch;
      if constexpr (c == 0) {
        constexpr int first = position<S>(0);
        constexpr int middle = position<S>(kHalf);
        re[0] = 2 * line.re[first];
        im[0] = 2 * line.re[middle];
        re[kHalf] = 2 * line.im[first];
        im[kHalf] = 2 * line.im[middle];
      } else {
        constexpr int at = position<S>(c);
        constexpr int mirror = position<S>(S - c);
        re[0] = line.re[at] + line.re[mirror];
        im[0] = line.im[at] - line.im[mirror];
        re[kHalf] = line.im[at] + line.im[mirror];
        im[kHalf] = line.re[mirror] - line.re[at];
      }
    });
    block.sync();
    unrolled<S>([&](auto i) {
      constexpr int r = decltype(i)::value;
      line.re[r] = tile[j * kPitch + r];
      line.im[r] = tile[(j + kHalf) * kPitch + r];
    });
    transform<S>(line.re, line.im);
  }

  // From column j, in order of frequency, to the real tile.
  template <typename Block>
  static GRAPHSCALE_DEVICE void inverse(const Block& block, float* tile, int j, Line<S>& line) {
    transform<S>(line.im, line.re);
    unrolled<S>([&](auto i) {
      constexpr int r = decltype(i)::value;
      constexpr int at = position<S>(r);
      tile[j * kPitch + r] = line.re[at];
      tile[(j + kHalf) * kPitch + r] = line.im[at];
    });
    block.sync();
    unrolled<kHalf>([&](auto i) {
      constexpr int c = decltype(i)::value;
      const float* const re = tile + c * kPitch + j;
      const float* const im = re + kHalf * kPitch;
      if constexpr (c == 0) {
        line.re[0] = re[0];
        line.im[0] = re[kHalf];
        line.re[kHalf] = im[0];
        line.im[kHalf] = im[kHalf];
      } else {
        line.re[c] = re[0] - im[kHalf];
        line.im[c] = im[0] + re[kHalf];
        line.re[S - c] = re[0] + im[kHalf];
        line.im[S - c] = re[kHalf] - im[0];
      }
    });
    block.sync();
    transform<S>(line.im, line.re);
    unrolled<S>([&](auto i) {
      constexpr int c = decltype(i)::value;
      constexpr int at = position<S>(c);
      tile[j * kPitch + c] = line.re[at];
      tile[(j + kHalf) * kPitch + c] = line.im[at];
    });
    block.sync();
  }
};

// The two spectra A and B that share column 0, from Z = A + iB at frequency k (z) and S - k
// (mirror).
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

// A product of two shared columns, spectrum by spectrum; of conjugates of the right one on request.
template <bool kConjugate>
GRAPHSCALE_DEVICE Pair multiply(const Pair& left, const Pair& right) {
  constexpr float kSign = kConjugate ? -1.0f : 1.0f;
  return {left.a_re * right.a_re - kSign * left.a_im * right.a_im,
          kSign * left.a_re * right.a_im + left.a_im * right.a_re,
          left.b_re * right.b_re - kSign * left.b_im * right.b_im,
          kSign * left.b_re * right.b_im + left.b_im * right.b_re};
}

}  // namespace graphscale::cuda
