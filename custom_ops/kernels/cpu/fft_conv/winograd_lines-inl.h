// Winograd's short correlations of one line, for L lines at once (Lavin and Gray, arXiv
// 1509.09308). A tile of T inputs d and R taps g give M = T - R + 1 outputs by T products, one per
// point of interpolation:
//   y = gather( evaluate(g) * scale * divide(d) )
// where evaluate() takes a polynomial's values at the points, divide() multiplies by what remains
// of the polynomial with all points as its roots when one is left out, and gather() is evaluate()
// transposed. The last point is infinity.
//
// Points: 0, 1, -1 for T = 4; 0, 1/sqrt(2), -1/sqrt(2), sqrt(2), -sqrt(2) for T = 6. These keep
// numbers of one size (with the usual 0, 1, -1, 2, -2 rounding errors are twice as large), and
// their squares are exact.
#pragma once

#include "kernels/cpu/simd/vector-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// The finite points other than 0 are pairs +-root.
struct WinogradPair {
  float root, square, other;  // and the square of the other pair's root
};

template <int T>
constexpr int kWinogradPairs = (T - 2) / 2;

template <int T, int P>
constexpr WinogradPair winograd_pair() {
  if (T == 4) return {1.0f, 1.0f, 0.0f};
  if (P == 0) return {0.70710678118654752f, 0.5f, 2.0f};
  return {1.41421356237309505f, 2.0f, 0.5f};
}

// One over the product of a point's distances from the others, by which one factor of each product
// is scaled.
template <int T>
GRAPHSCALE_INLINE constexpr float winograd_scale_of(int point) {
  if (T == 4) return point == 0 ? -1.0f : point == 3 ? 1.0f : 0.5f;
  return point == 0 || point == 5 ? 1.0f : point <= 2 ? -2.0f / 3 : 1.0f / 6;
}

GRAPHSCALE_INLINE float winograd_scale(int tile, int point) {
  return tile == 4 ? winograd_scale_of<4>(point) : tile == 6 ? winograd_scale_of<6>(point) : 1.0f;
}

enum class WinogradStep {
  kDivide,    // T inputs to T values
  kEvaluate,  // N taps (or gradients to outputs) to T values
  kGather     // T values to N outputs (or gradients to taps)
};

template <int L, int T>
GRAPHSCALE_INLINE void divide(const Vector<L> (&d)[T], Vector<L> (&v)[T]) {
  if constexpr (T == 1) {
    v[0] = d[0];
  } else if constexpr (T == 4) {
    v[0] = d[2] - d[0];
    v[1] = d[2] + d[1];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  } else {
    static_assert(T == 6);
    constexpr float kSum = 2.5f;  // of the two squares; their product is 1
    v[0] = d[4] - kSum * d[2] + d[0];
    unroll<2>([&](auto p) {
      constexpr WinogradPair pair = winograd_pair<T, p>();
      // Of a pair of points +-r the even and the odd powers are shared: one sum, one difference.
      const Vector<L> even = d[4] - pair.other * d[2], odd = d[3] - pair.other * d[1];
      v[1 + 2 * p] = even + pair.root * odd;
      v[2 + 2 * p] = even - pair.root * odd;
    });
    v[5] = d[5] - kSum * d[3] + d[1];
  }
}

// root^I, as square^(I / 2) and perhaps a root.
template <int T, int P, int I>
constexpr float winograd_power() {
  float power = I % 2 ? winograd_pair<T, P>().root : 1.0f;
  for (int i = 0; i < I / 2; ++i) power *= winograd_pair<T, P>().square;
  return power;
}

template <int L, int T, int N>
GRAPHSCALE_INLINE void evaluate(const Vector<L> (&g)[N], Vector<L> (&v)[T]) {
  if constexpr (T == 1) {
    v[0] = g[0];
  } else {
    v[0] = g[0];
    unroll<kWinogradPairs<T>>([&](auto p) {
      // g(r) = even(r^2) + r odd(r^2) and g(-r) = even(r^2) - r odd(r^2).
      Vector<L> even = g[0], odd = {};
      unroll<N>([&](auto i) {
        constexpr float kPower = winograd_power<T, p, i>();
        if constexpr (i % 2 == 1) odd += kPower * g[i];
        if constexpr (i > 0 && i % 2 == 0) even += kPower * g[i];
      });
      v[1 + 2 * p] = even + odd;
      v[2 + 2 * p] = even - odd;
    });
    v[T - 1] = g[N - 1];
  }
}

template <int L, int T, int N>
GRAPHSCALE_INLINE void gather(const Vector<L> (&v)[T], Vector<L> (&y)[N]) {
  if constexpr (T == 1) {
    y[0] = v[0];
  } else {
    // Output i is sum over points of r^i v: pairs give sums for even i and differences for odd i.
    Vector<L> sum[kWinogradPairs<T>], difference[kWinogradPairs<T>];
    unroll<kWinogradPairs<T>>([&](auto p) {
      sum[p] = v[1 + 2 * p] + v[2 + 2 * p];
      difference[p] = v[1 + 2 * p] - v[2 + 2 * p];
    });
    unroll<N>([&](auto i) {
      y[i] = i == 0 ? v[0] : Vector<L>{};
      if constexpr (i == N - 1) y[i] += v[T - 1];
      unroll<kWinogradPairs<T>>([&](auto p) {
        constexpr float kPower = winograd_power<T, p, i>();
        y[i] += kPower * (i % 2 ? difference[p] : sum[p]);
      });
    });
  }
}

// Elements of a line are `step` floats apart, lines `next`. A step in place reads a line before it
// writes it.
struct WinogradLines {
  int64_t count;
  const float* in;
  ptrdiff_t in_step, in_next;
  float* out;
  ptrdiff_t out_step, out_next;
};

template <int L, WinogradStep kStep, int T, int N>
__attribute__((flatten)) void step_lines(const WinogradLines& lines) {
  constexpr int kIn = kStep == WinogradStep::kEvaluate ? N : T;
  constexpr int kOut = kStep == WinogradStep::kGather ? N : T;
  const float* in = lines.in;
  float* out = lines.out;
  for (int64_t i = 0; i < lines.count; ++i, in += lines.in_next, out += lines.out_next) {
    // One line of L lanes, in registers from load to store.
    Vector<L> from[kIn], to[kOut];
    unroll<kIn>([&](auto k) { from[k] = load<L>(in + k * lines.in_step); });
    if constexpr (kStep == WinogradStep::kDivide) {
      divide<L, T>(from, to);
    } else if constexpr (kStep == WinogradStep::kEvaluate) {
      evaluate<L, T, N>(from, to);
    } else {
      gather<L, T, N>(from, to);
    }
    unroll<kOut>([&](auto k) { store<L>(out + k * lines.out_step, to[k]); });
  }
}

using WinogradFunction = void (*)(const WinogradLines& lines);

template <int L, WinogradStep kStep, int T, int N>
GRAPHSCALE_INLINE WinogradFunction find_step_of(int64_t n) {
  if (n == N || kStep == WinogradStep::kDivide) return step_lines<L, kStep, T, N>;
  if constexpr (N > 2 && kStep != WinogradStep::kDivide) {
    return find_step_of<L, kStep, T, N - 1>(n);
  }
  return nullptr;
}

// The step for tiles of `tile` values; n is its taps or outputs.
template <int L, WinogradStep kStep>
WinogradFunction find_step(int tile, int64_t n) {
  if (tile == 1) return step_lines<L, kStep, 1, 1>;
  if (tile == 4) return find_step_of<L, kStep, 4, 3>(n);
  return find_step_of<L, kStep, 6, 5>(n);
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
