// Complex Fourier transforms of one line, held in a thread's registers: radix 2, 3, 4, 5, 7 and 8,
// every index and twiddle factor known to the compiler. The result lies in an order of its own,
// which costs nothing: position<N>(f) tells, at compile time, where frequency f is.
//
// Cost: about 5 N log2 N operations and 2 N registers; nothing goes through memory.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cuda/device.h"

namespace graphscale::cuda {

// body(std::integral_constant<int, i>) for i in [0, N), unrolled.
template <typename Body, int... I>
GRAPHSCALE_DEVICE void unrolled(const Body& body, std::integer_sequence<int, I...>) {
  (body(std::integral_constant<int, I>()), ...);
}
template <int N, typename Body>
GRAPHSCALE_DEVICE void unrolled(const Body& body) {
  unrolled(body, std::make_integer_sequence<int, N>());
}

// cos and sin of x in [0, pi / 4], by their series.
constexpr double small_cosine(double x) {
  double term = 1;
  double sum = 1;
  for (int i = 1; i < 12; ++i) sum += term *= -x * x / ((2 * i - 1) * (2 * i));
  return sum;
}
constexpr double small_sine(double x) {
  double term = x;
  double sum = x;
  for (int i = 1; i < 12; ++i) sum += term *= -x * x / ((2 * i) * (2 * i + 1));
  return sum;
}

// cos of k of n parts of a full turn.
constexpr double turn_cosine(int k, int n) {
  k = (k % n + n) % n;
  if (2 * k > n) k = n - k;
  if (4 * k > n) return -turn_cosine(n - 2 * k, 2 * n);
  const double angle = 2 * 3.14159265358979323846 * k / n;
  return 8 * k <= n ? small_cosine(angle) : small_sine(3.14159265358979323846 / 2 - angle);
}
constexpr double turn_sine(int k, int n) { return turn_cosine(4 * k - n, 4 * n); }

template <int K, int N>
struct Turn {
  static constexpr float kCosine = static_cast<float>(turn_cosine(K, N));
  static constexpr float kSine = static_cast<float>(turn_sine(K, N));
};

// The transform of P values, in place and in order.
template <int P>
GRAPHSCALE_DEVICE void butterfly(float (&re)[P], float (&im)[P]) {
  if constexpr (P == 2) {
    const float r = re[1];
    const float i = im[1];
    re[1] = re[0] - r;
    im[1] = im[0] - i;
    re[0] += r;
    im[0] += i;
  } else if constexpr (P == 4) {
    // Two butterflies of two and two of their results; the factor -i only exchanges re and im.
    const float even_re = re[0] + re[2];
    const float even_im = im[0] + im[2];
    const float even_minus_re = re[0] - re[2];
    const float even_minus_im = im[0] - im[2];
    const float odd_re = re[1] + re[3];
    const float odd_im = im[1] + im[3];
    const float odd_minus_re = re[1] - re[3];
    const float odd_minus_im = im[1] - im[3];
    re[0] = even_re + odd_re;
    im[0] = even_im + odd_im;
    re[1] = even_minus_re + odd_minus_im;
    im[1] = even_minus_im - odd_minus_re;
    re[2] = even_re - odd_re;
    im[2] = even_im - odd_im;
    re[3] = even_minus_re - odd_minus_im;
    im[3] = even_minus_im + odd_minus_re;
  } else if constexpr (P % 2 == 1) {
    // Odd: sums meet cosines only, differences sines only, and results k and P - k share both.
    constexpr int kHalf = P / 2;
    float sum_re[kHalf], sum_im[kHalf], less_re[kHalf], less_im[kHalf];
    const float first_re = re[0];
    const float first_im = im[0];
    unrolled<kHalf>([&](auto i) {
      constexpr int p = decltype(i)::value;
      sum_re[p] = re[p + 1] + re[P - 1 - p];
      sum_im[p] = im[p + 1] + im[P - 1 - p];
      less_re[p] = re[p + 1] - re[P - 1 - p];
      less_im[p] = im[p + 1] - im[P - 1 - p];
      re[0] += sum_re[p];
      im[0] += sum_im[p];
    });
    unrolled<kHalf>([&](auto j) {
      constexpr int k = decltype(j)::value + 1;
      float even_re = first_re;
      float even_im = first_im;
      float odd_re = 0;
      float odd_im = 0;
      unrolled<kHalf>([&](auto i) {
        constexpr int p = decltype(i)::value;
        even_re += Turn<k*(p + 1), P>::kCosine * sum_re[p];
        even_im += Turn<k*(p + 1), P>::kCosine * sum_im[p];
        odd_re += Turn<k*(p + 1), P>::kSine * less_re[p];
        odd_im += Turn<k*(p + 1), P>::kSine * less_im[p];
      });
      re[k] = even_re + odd_im;
      im[k] = even_im - odd_re;
      re[P - k] = even_re - odd_im;
      im[P - k] = even_im + odd_re;
    });
  } else {
    static_assert(P == 8, "no such radix");
    // Eight: two transforms of four, and three multiplications by eighths of a turn.
    float even_re[4] = {re[0], re[2], re[4], re[6]};
    float even_im[4] = {im[0], im[2], im[4], im[6]};
    float odd_re[4] = {re[1], re[3], re[5], re[7]};
    float odd_im[4] = {im[1], im[3], im[5], im[7]};
    butterfly(even_re, even_im);
    butterfly(odd_re, odd_im);
    constexpr float kHalf = Turn<1, 8>::kCosine;
    const float turned_re[4] = {odd_re[0], kHalf * (odd_re[1] + odd_im[1]), odd_im[2],
                                kHalf * (odd_im[3] - odd_re[3])};
    const float turned_im[4] = {odd_im[0], kHalf * (odd_im[1] - odd_re[1]), -odd_re[2],
                                -kHalf * (odd_re[3] + odd_im[3])};
    unrolled<4>([&](auto i) {
      constexpr int k = decltype(i)::value;
      re[k] = even_re[k] + turned_re[k];
      im[k] = even_im[k] + turned_im[k];
      re[k + 4] = even_re[k] - turned_re[k];
      im[k + 4] = even_im[k] - turned_im[k];
    });
  }
}

// The largest power of n's smallest prime factor that divides n.
constexpr int prime_power(int n) {
  int prime = 2;
  while (n % prime != 0) ++prime;
  int power = 1;
  for (; n % prime == 0; n /= prime) power *= prime;
  return power;
}

// The radix that the transform of a prime power begins with.
constexpr int first_radix(int n) {
  if (n <= 5 || n == 7 || n == 8) return n;
  if (n % 2 == 0) return n == 16 ? 4 : 8;
  return n % 3 == 0 ? 3 : n % 5 == 0 ? 5 : 7;
}

// Factors without a common divisor need no twiddle factors between them (Good and Thomas): value
// n = B a + A b goes in, frequency f with remainders f mod A and f mod B comes out.
template <int N>
constexpr int position(int frequency) {
  constexpr int kPower = prime_power(N);
  constexpr int kRadix = first_radix(N);
  if constexpr (kPower != N) {
    constexpr int kRest = N / kPower;
    return (kRest * position<kPower>(frequency % kPower) +
            kPower * position<kRest>(frequency % kRest)) %
           N;
  } else if constexpr (kRadix == N) {
    return frequency;
  } else {
    return frequency % kRadix * (N / kRadix) + position<N / kRadix>(frequency / kRadix);
  }
}

template <int N>
struct Line {
  float re[N];
  float im[N];
};

// Which slots of a line the values of a part of its transform are in.
struct InOrder {
  static constexpr int at(int i) { return i; }
};
template <typename Whole, int N, int kStep, int kOffset>
struct Every {
  static constexpr int at(int i) { return Whole::at((kOffset + kStep * i) % N); }
};

// Forward (exp(-2 pi i / N)), in place.
template <int N, typename Slots = InOrder, int M>
GRAPHSCALE_DEVICE void transform(float (&re)[M], float (&im)[M]) {
  constexpr int kPower = prime_power(N);
  if constexpr (kPower != N) {
    // Good-Thomas: kRest transforms of kPower values, then kPower of kRest, without factors
    // between.
    constexpr int kRest = N / kPower;
    unrolled<kRest>([&](auto i) {
      transform<kPower, Every<Slots, N, kRest, kPower* decltype(i)::value>>(re, im);
    });
    unrolled<kPower>([&](auto i) {
      transform<kRest, Every<Slots, N, kPower, kRest* decltype(i)::value>>(re, im);
    });
    return;
  }
  constexpr int kRadix = first_radix(N);
  constexpr int kRest = N / kRadix;
  // Cooley-Tukey within a prime power: butterflies, constant twiddle factors, then the rest.
  unrolled<kRest>([&](auto i) {
    constexpr int q = decltype(i)::value;
    float part_re[kRadix];
    float part_im[kRadix];
    unrolled<kRadix>([&](auto j) {
      constexpr int p = decltype(j)::value;
      part_re[p] = re[Slots::at(q + kRest * p)];
      part_im[p] = im[Slots::at(q + kRest * p)];
    });
    butterfly(part_re, part_im);
    unrolled<kRadix>([&](auto j) {
      constexpr int k = decltype(j)::value;
      constexpr int to = Slots::at(k * kRest + q);
      if constexpr (k * q == 0) {
        re[to] = part_re[k];
        im[to] = part_im[k];
      } else {
        constexpr float kCosine = Turn<k * q, N>::kCosine;
        constexpr float kSine = Turn<k * q, N>::kSine;
        re[to] = part_re[k] * kCosine + part_im[k] * kSine;
        im[to] = part_im[k] * kCosine - part_re[k] * kSine;
      }
    });
  });
  if constexpr (kRest > 1) {
    unrolled<kRadix>(
        [&](auto i) { transform<kRest, Every<Slots, N, 1, decltype(i)::value * kRest>>(re, im); });
  }
}

}  // namespace graphscale::cuda
