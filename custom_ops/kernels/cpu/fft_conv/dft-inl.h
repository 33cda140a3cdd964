// Discrete Fourier transforms of a few points, held in registers, one transform per lane:
//   X[k] = sum over n of x[n] exp(-2 pi i k n / R), in natural order, in place.
// Odd R by the symmetric formulas; composite R = A * B by one Cooley-Tukey step, whose twiddles are
// constants (those by multiples of a quarter turn cost nothing, of an eighth two multiplications).
#pragma once

#include "kernels/cpu/simd/vector-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

template <int L>
struct Complex {
  Vector<L> re, im;
};

// cos and sin of 2 pi n / d, exact to double precision, at compile time.
constexpr long double kTurn = 6.283185307179586476925286766559005768L;

constexpr double series(long double x, bool sine) {
  long double term = sine ? x : 1.0L;
  long double sum = term;
  for (int k = sine ? 2 : 1; k < 40; k += 2) {
    term *= -x * x / (static_cast<long double>(k) * (k + 1));
    sum += term;
  }
  return static_cast<double>(sum);
}

constexpr double cosine_of_turn(long n, long d) {
  n %= d;
  if (2 * n > d) n = d - n;                                           // cos(2 pi - x) = cos x
  if (4 * n > d) return -cosine_of_turn(d - 2 * n, 2 * d);            // cos(pi - x) = -cos x
  if (8 * n > d) return series(kTurn * (d - 4 * n) / (4 * d), true);  // cos(pi/2 - x) = sin x
  return series(kTurn * n / d, false);
}

constexpr double sine_of_turn(long n, long d) { return cosine_of_turn(4 * (n % d) + 3 * d, 4 * d); }

// z * exp(-2 pi i N / D)
template <int N, int D, int L>
GRAPHSCALE_INLINE Complex<L> twiddle(const Complex<L>& z) {
  constexpr int n = N % D;
  if constexpr (n == 0) {
    return z;
  } else if constexpr (4 * n == D) {
    return {z.im, -z.re};
  } else if constexpr (2 * n == D) {
    return {-z.re, -z.im};
  } else if constexpr (4 * n == 3 * D) {
    return {-z.im, z.re};
  } else if constexpr (8 * n == D) {
    constexpr float h = static_cast<float>(cosine_of_turn(1, 8));
    return {(z.re + z.im) * h, (z.im - z.re) * h};
  } else if constexpr (8 * n == 3 * D) {
    constexpr float h = static_cast<float>(cosine_of_turn(1, 8));
    return {(z.im - z.re) * h, (z.re + z.im) * -h};
  } else {
    constexpr float c = static_cast<float>(cosine_of_turn(n, D));
    constexpr float s = static_cast<float>(sine_of_turn(n, D));
    return {z.re * c + z.im * s, z.im * c - z.re * s};
  }
}

// The factor A of a composite R; 1 where R is done by a formula.
constexpr int first_factor(int r) {
  return r % 4 == 0 && r > 4 ? 4 : r % 2 == 0 && r > 2 ? 2 : r == 9 || r == 15 ? 3 : 1;
}

template <int R, int L>
GRAPHSCALE_INLINE void dft(Complex<L> (&x)[R]) {
  constexpr int A = first_factor(R);
  if constexpr (R == 1) {
  } else if constexpr (R == 2) {
    const Complex<L> a = x[0], b = x[1];
    x[0] = {a.re + b.re, a.im + b.im};
    x[1] = {a.re - b.re, a.im - b.im};
  } else if constexpr (R == 4) {
    // Two butterflies of two and two of their results; the factor -i only exchanges re and im.
    const Vector<L> ar = x[0].re + x[2].re, ai = x[0].im + x[2].im;
    const Vector<L> br = x[0].re - x[2].re, bi = x[0].im - x[2].im;
    const Vector<L> cr = x[1].re + x[3].re, ci = x[1].im + x[3].im;
    const Vector<L> dr = x[1].re - x[3].re, di = x[1].im - x[3].im;
    x[0] = {ar + cr, ai + ci};
    x[1] = {br + di, bi - dr};
    x[2] = {ar - cr, ai - ci};
    x[3] = {br - di, bi + dr};
  } else if constexpr (A > 1) {
    // Cooley-Tukey: B transforms of A points, constant twiddles, A transforms of B points.
    constexpr int B = R / A;
    Complex<L> t[B][A];
    unroll<B>([&](auto b) {
      unroll<A>([&](auto a) { t[b][a] = x[B * a + b]; });
      dft<A, L>(t[b]);
    });
    unroll<A>([&](auto k) {
      Complex<L> u[B];
      unroll<B>([&](auto b) { u[b] = twiddle<b * k, R>(t[b][k]); });
      dft<B, L>(u);
      unroll<B>([&](auto m) { x[k + A * m] = u[m]; });
    });
  } else {  // odd: sums and differences of x[j] and x[R - j], j = 1 ... H
    // cos is even and sin odd in j: sums meet cosines only, differences sines only, and X[k] and
    // X[R - k] share both. 2 H^2 multiplications of complex by real numbers, a quarter of the
    // definition's.
    constexpr int H = (R - 1) / 2;
    Complex<L> sum[H], difference[H];
    Complex<L> zero = x[0];
    unroll<H>([&](auto j) {
      const Complex<L> a = x[j + 1], b = x[R - 1 - j];
      sum[j] = {a.re + b.re, a.im + b.im};
      difference[j] = {a.re - b.re, a.im - b.im};
      zero.re += sum[j].re;
      zero.im += sum[j].im;
    });
    unroll<H>([&](auto k) {
      Complex<L> even = x[0];
      Complex<L> odd = {};
      unroll<H>([&](auto j) {
        constexpr float c = static_cast<float>(cosine_of_turn((j + 1) * (k + 1), R));
        constexpr float s = static_cast<float>(sine_of_turn((j + 1) * (k + 1), R));
        even.re += sum[j].re * c;
        even.im += sum[j].im * c;
        if constexpr (j == 0) {
          odd = {difference[j].re * s, difference[j].im * s};
        } else {
          odd.re += difference[j].re * s;
          odd.im += difference[j].im * s;
        }
      });
      x[k + 1] = {even.re + odd.im, even.im - odd.re};
      x[R - 1 - k] = {even.re - odd.im, even.im + odd.re};
    });
    x[0] = zero;
  }
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
