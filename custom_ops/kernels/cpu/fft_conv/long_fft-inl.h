// Real FFTs of one long row per lane, for one-dimensional kernels of hundreds to tens of thousands
// of taps: N real values as N/2 complex ones (even and odd positions), which go through M1 x M2 =
// N/2 points in two passes of the short transforms, and a last pass that takes even and odd apart:
//   X[k] = E[k] + w^k O[k],   2 E[k] = Z[k] + conj Z[N/2 - k],   2 i O[k] = Z[k] - conj Z[N/2 - k].
// Three passes over N floats per lane (6 N L bytes each way beyond the second-level cache from N =
// 8192 on) and 2.5 N log2 N operations: with 4096 taps in tiles of 16384, 93 operations an output
// and channel each way, against 8192 of the direct convolution.
#pragma once

#include "kernels/cpu/fft_conv/fft-inl.h"
#include "kernels/cpu/fft_conv/layout.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

template <int L>
class LongFft {
 public:
  // work: size / 2 pairs of vectors.
  LongFft(int size, float* work)
      : half_(size / 2),
        m1_(long_fft_factor(size)),
        m2_(half_ / m1_),
        turns_(turns(size)),
        fft1_(find_fft<L>(m1_)),
        fft2_(find_fft<L>(m2_)),
        work_(work) {}

  // row[u * L]: the real values, overwritten. out: half + 1 pairs, the spectrum times 2.
  void forward(float* row, float* out) const {
    transform(row, row + L, out, out + L);
    store<L>(out + half_ * 2 * L, load<L>(out));
    store<L>(out + half_ * 2 * L + L, load<L>(out + L));
    // Even and odd positions apart, X[k] and X[N/2 - k] together: both need the same two values. q
    // stands for 2 O, and w = q * exp(-2 pi i k / N).
    for (int64_t k = 0; k <= half_ / 2; ++k) {
      float* const a = out + k * 2 * L;
      float* const b = out + (half_ - k) * 2 * L;
      const float c = turns_[2 * k], s = turns_[2 * k + 1];
      const Vector<L> ar = load<L>(a), ai = load<L>(a + L), br = load<L>(b), bi = load<L>(b + L);
      const Vector<L> er = ar + br, ei = ai - bi;  // 2 E
      const Vector<L> qr = ai + bi, qi = br - ar;  // 2 O
      const Vector<L> wr = qr * c + qi * s, wi = qi * c - qr * s;
      store<L>(b, er - wr);
      store<L>(b + L, wi - ei);
      store<L>(a, er + wr);
      store<L>(a + L, ei + wi);
    }
  }

  // in: half + 1 pairs, overwritten. row[u * L]: the real values, times the size.
  void inverse(float* in, float* row) const {
    // The same steps backwards: E and O from X[k] and X[N/2 - k], joined as E + i O.
    for (int64_t k = 0; k <= half_ / 2; ++k) {
      float* const a = in + k * 2 * L;
      float* const b = in + (half_ - k) * 2 * L;
      const float c = turns_[2 * k], s = turns_[2 * k + 1];
      const Vector<L> ar = load<L>(a), ai = load<L>(a + L), br = load<L>(b), bi = load<L>(b + L);
      const Vector<L> er = ar + br, ei = ai - bi;
      const Vector<L> dr = ar - br, di = ai + bi;
      const Vector<L> qr = dr * c - di * s, qi = di * c + dr * s;
      store<L>(b, er + qi);
      store<L>(b + L, qr - ei);
      store<L>(a, er - qi);
      store<L>(a + L, ei + qr);
    }
    transform(in + L, in, row + L, row);
  }

 private:
  // The complex transform of half_ points; in is overwritten, out must be another place.
  void transform(const float* re, const float* im, float* out_re, float* out_im) const {
    // Pass 1: transforms of m1 points that lie m2 apart, each result times its twiddle factor, to
    // work_.
    alignas(64) float column[kMaxFft * 2 * L];
    for (int64_t j = 0; j < m2_; ++j) {
      fft1_(re + j * 2 * L, im + j * 2 * L, m2_ * 2 * L, column, column + L, 2 * L);
      for (int64_t k = 0; k < m1_; ++k) {
        const float c = turns_[4 * j * k], s = turns_[4 * j * k + 1];
        const Vector<L> zr = load<L>(column + k * 2 * L), zi = load<L>(column + k * 2 * L + L);
        float* const to = work_ + (k * m2_ + j) * 2 * L;
        store<L>(to, zr * c + zi * s);
        store<L>(to + L, zi * c - zr * s);
      }
    }
    // Pass 2: transforms of m2 neighbouring points; result k + m1 m goes to its natural place.
    for (int64_t k = 0; k < m1_; ++k) {
      const float* const from = work_ + k * m2_ * 2 * L;
      fft2_(from, from + L, 2 * L, out_re + k * 2 * L, out_im + k * 2 * L, m1_ * 2 * L);
    }
  }

  int64_t half_, m1_, m2_;
  const float* turns_;  // cos and sin of 2 pi k / size
  FftFunction fft1_, fft2_;
  float* work_;
};

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
