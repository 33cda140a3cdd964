// Complex Fourier transforms of one line, held in a thread's registers: mixed radix 2, 3, 4, 5 and
// 8, every index and twiddle factor known to the compiler. The result lies in digit-reversed order,
// which costs nothing: position<N>(f) tells, at compile time, where frequency f is.
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
  } else if constexpr (P == 3) {
    constexpr float kSine = Turn<1, 3>::kSine;
    const float sum_re = re[1] + re[2];
    const float sum_im = im[1] + im[2];
    const float turned_re = kSine * (im[1] - im[2]);
    const float turned_im = kSine * (re[2] - re[1]);
    const float middle_re = re[0] - 0.5f * sum_re;
    const float middle_im = im[0] - 0.5f * sum_im;
    re[0] += sum_re;
    im[0] += sum_im;
    re[1] = middle_re + turned_re;
    im[1] = middle_im + turned_im;
    re[2] = middle_re - turned_re;
    im[2] = middle_im - turned_im;
  } else if constexpr (P == 4) {
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
  } else if constexpr (P == 5) {
    constexpr float kCosine1 = Turn<1, 5>::kCosine;
    constexpr float kCosine2 = Turn<2, 5>::kCosine;
    constexpr float kSine1 = Turn<1, 5>::kSine;
    constexpr float kSine2 = Turn<2, 5>::kSine;
    const float outer_re = re[1] + re[4];
    const float outer_im = im[1] + im[4];
    const float inner_re = re[2] + re[3];
    const float inner_im = im[2] + im[3];
    const float outer_minus_re = re[1] - re[4];
    const float outer_minus_im = im[1] - im[4];
    const float inner_minus_re = re[2] - re[3];
    const float inner_minus_im = im[2] - im[3];
    const float a_re = re[0] + kCosine1 * outer_re + kCosine2 * inner_re;
    const float a_im = im[0] + kCosine1 * outer_im + kCosine2 * inner_im;
    const float b_re = re[0] + kCosine2 * outer_re + kCosine1 * inner_re;
    const float b_im = im[0] + kCosine2 * outer_im + kCosine1 * inner_im;
    const float u_re = kSine1 * outer_minus_re + kSine2 * inner_minus_re;
    const float u_im = kSine1 * outer_minus_im + kSine2 * inner_minus_im;
    const float v_re = kSine2 * outer_minus_re - kSine1 * inner_minus_re;
    const float v_im = kSine2 * outer_minus_im - kSine1 * inner_minus_im;
    re[0] += outer_re + inner_re;
    im[0] += outer_im + inner_im;
    re[1] = a_re + u_im;
    im[1] = a_im - u_re;
    re[4] = a_re - u_im;
    im[4] = a_im + u_re;
    re[2] = b_re + v_im;
    im[2] = b_im - v_re;
    re[3] = b_re - v_im;
    im[3] = b_im + v_re;
  } else {
    static_assert(P == 8, "no such radix");
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

// The radix that the transform of N values begins with.
constexpr int first_radix(int n) {
  if (n <= 5 || n == 8) return n;
  if (n == 16) return 4;
  for (const int radix : {8, 4, 5, 3, 2}) {
    if (n % radix == 0) return radix;
  }
  return n;
}

template <int N>
constexpr int position(int frequency) {
  constexpr int kRadix = first_radix(N);
  if constexpr (kRadix == N) {
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

// The N values from `kAt` on; forward (exp(-2 pi i / N)). With re and im exchanged: its inverse
// times N.
template <int N, int kAt = 0, int M>
GRAPHSCALE_DEVICE void transform(float (&re)[M], float (&im)[M]) {
  constexpr int kRadix = first_radix(N);
  constexpr int kRest = N / kRadix;
  unrolled<kRest>([&](auto i) {
    constexpr int q = decltype(i)::value;
    float part_re[kRadix];
    float part_im[kRadix];
    unrolled<kRadix>([&](auto j) {
      constexpr int p = decltype(j)::value;
      part_re[p] = re[kAt + q + kRest * p];
      part_im[p] = im[kAt + q + kRest * p];
    });
    butterfly(part_re, part_im);
    unrolled<kRadix>([&](auto j) {
      constexpr int k = decltype(j)::value;
      constexpr int to = kAt + k * kRest + q;
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
    unrolled<kRadix>([&](auto i) {
      constexpr int k = decltype(i)::value;
      transform<kRest, kAt + k * kRest>(re, im);
    });
  }
}

}  // namespace graphscale::cuda
