// Vectors for the kernels that are compiled once per instruction set (kernel_table.h): L numbers
// side by side, written with the compilers' vector extensions, and with intrinsics for what these
// cannot express (masked loads and stores). L floats are 16 with AVX-512, 8 with AVX2 and 4
// elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/bounds.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#define GRAPHSCALE_INLINE inline __attribute__((always_inline))
// For a lambda in a lambda that uses variables in registers: clang's `flatten` inlines what the
// function calls, and not what that calls; one call that stays keeps the variables in memory.
#define GRAPHSCALE_INLINE_LAMBDA __attribute__((always_inline))

namespace graphscale::GRAPHSCALE_INSTRUCTION_SET {

constexpr int kVectorBytes = GRAPHSCALE_VECTOR_BYTES;
constexpr int kFloatLanes = kVectorBytes / 4;

// `type` lies in memory at multiples of its size, `unaligned` anywhere.
template <int L, typename T = float>
struct VectorOf {
  typedef T type __attribute__((vector_size(L * sizeof(T))));
  typedef T unaligned __attribute__((vector_size(L * sizeof(T)), aligned(sizeof(T)), may_alias));
};

template <int L>
using Vector = typename VectorOf<L>::type;

template <int I>
using Index = std::integral_constant<int, I>;

template <typename F, int... I>
GRAPHSCALE_INLINE void unroll_over(const F& f, std::integer_sequence<int, I...>) {
  (f(Index<I>()), ...);
}

// f(Index<0>()), ..., f(Index<N - 1>()): a loop whose index is a compile-time constant.
template <int N, typename F>
GRAPHSCALE_INLINE void unroll(const F& f) {
  unroll_over(f, std::make_integer_sequence<int, N>());
}

// f(Index<n>()) for an n of 1 ... N.
template <int N, typename F>
GRAPHSCALE_INLINE void with_count(int64_t n, const F& f) {
  if (n == N) {
    f(Index<N>());
  } else if constexpr (N > 1) {
    with_count<N - 1>(n, f);
  }
}

template <int L>
GRAPHSCALE_INLINE Vector<L> load(const float* p) {  // p aligned to the vector
  return *reinterpret_cast<const Vector<L>*>(p);
}

template <int L>
GRAPHSCALE_INLINE void store(float* p, const Vector<L>& v) {
  *reinterpret_cast<Vector<L>*>(p) = v;
}

// Lanes [first, last) of a vector, in the form in which the instruction set takes them.
template <int L>
struct LaneRange {
  GRAPHSCALE_INLINE LaneRange(int first, int last) : first(first), last(last) {}
  int first, last;
};

#if defined(__AVX512F__)
template <>
struct LaneRange<16> {
  GRAPHSCALE_INLINE LaneRange(int first, int last)
      : mask(static_cast<__mmask16>((0xffffu >> (16 - last)) & (0xffffu << first))) {}
  __mmask16 mask;
};
#elif defined(__AVX2__)
template <>
struct LaneRange<8> {
  GRAPHSCALE_INLINE LaneRange(int first, int last) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    mask = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(first), lane),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(last), lane));
  }
  __m256i mask;
};
#endif

// These lanes of the vector at p (any alignment), zero in the others, which are not read.
template <int L>
GRAPHSCALE_INLINE Vector<L> load_range(const float* p, const LaneRange<L>& lanes) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(lanes.mask, p);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(p, lanes.mask);
#else
  if (lanes.first == 0 && lanes.last == L) {
    return *reinterpret_cast<const typename VectorOf<L>::unaligned*>(p);
  }
  Vector<L> v{};
  for (int j = lanes.first; j < lanes.last; ++j) v[j] = p[j];
  return v;
#endif
}

template <int L>
GRAPHSCALE_INLINE Vector<L> load_range(const float* p, int first, int last) {
  return load_range<L>(p, LaneRange<L>(first, last));
}

// Prefetches `count` floats that will be read or (kWrite) written; the addresses need not be valid.
template <bool kWrite>
GRAPHSCALE_INLINE void fetch(const float* p, int64_t count) {
  constexpr int64_t kCacheLine = 16;
  constexpr int kSecondLevel = 2;
  for (int64_t i = 0; i < count; i += kCacheLine) __builtin_prefetch(p + i, kWrite, kSecondLevel);
}

// Writes lanes 0 <= j < last.
template <int L>
GRAPHSCALE_INLINE void store_first(float* p, const Vector<L>& v, int last) {
#if defined(__AVX512F__)
  if constexpr (L == 16) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(0xffffu >> (16 - last)), v);
    return;
  }
#endif
  if (last == L) {
    *reinterpret_cast<typename VectorOf<L>::unaligned*>(p) = v;
    return;
  }
  for (int j = 0; j < last; ++j) p[j] = v[j];
}

// NaN stays.
template <int L>
GRAPHSCALE_INLINE Vector<L> clip(const Vector<L>& v, const Bounds& bounds) {
  const Vector<L> minimum = bounds.minimum - Vector<L>{}, maximum = bounds.maximum - Vector<L>{};
  const Vector<L> raised = v < minimum ? minimum : v;
  return raised > maximum ? maximum : raised;
}

template <int L>
GRAPHSCALE_INLINE float sum_of_lanes(const Vector<L>& v) {
  float sum = 0;
  for (int i = 0; i < L; ++i) sum += v[i];
  return sum;
}

template <typename V, int... J>
GRAPHSCALE_INLINE void deal_lanes(V& a, V& b, std::integer_sequence<int, J...>) {
  const V even = __builtin_shufflevector(a, b, 2 * J...);
  b = __builtin_shufflevector(a, b, (2 * J + 1)...);
  a = even;
}

// Of the lanes of a and b, one behind the other, the even ones to a and the odd ones to b.
template <int L, typename V>
GRAPHSCALE_INLINE void deal_lanes(V& a, V& b) {
  deal_lanes(a, b, std::make_integer_sequence<int, L>());
}

template <int L, typename V, int... J>
GRAPHSCALE_INLINE void interleave_lanes(V& a, V& b, std::integer_sequence<int, J...>) {
  const V first = __builtin_shufflevector(a, b, (J / 2 + J % 2 * L)...);
  b = __builtin_shufflevector(a, b, (J / 2 + L / 2 + J % 2 * L)...);
  a = first;
}

// The inverse of deal_lanes: a0 b0 a1 b1 ..., the first half to a, the second to b.
template <int L, typename V>
GRAPHSCALE_INLINE void interleave_lanes(V& a, V& b) {
  interleave_lanes<L>(a, b, std::make_integer_sequence<int, L>());
}

// One step of a transposition: exchanges the blocks of D lanes off the diagonal of a pair of rows.
template <int L, int D, int... J>
GRAPHSCALE_INLINE void exchange(Vector<L>& a, Vector<L>& b, std::integer_sequence<int, J...>) {
  const Vector<L> low = __builtin_shufflevector(a, b, ((J & D) ? L + J - D : J)...);
  const Vector<L> high = __builtin_shufflevector(a, b, ((J & D) ? L + J : J + D)...);
  a = low;
  b = high;
}

template <int L, int D>
GRAPHSCALE_INLINE void transpose_step(Vector<L> (&rows)[L]) {
  unroll<L>([&](auto i) {
    if constexpr ((i & D) == 0) {
      exchange<L, D>(rows[i], rows[i + D], std::make_integer_sequence<int, L>());
    }
  });
  if constexpr (D > 1) transpose_step<L, D / 2>(rows);
}

// rows[i][j] <-> rows[j][i], in registers: L log2(L) shuffles.
template <int L>
GRAPHSCALE_INLINE void transpose(Vector<L> (&rows)[L]) {
  transpose_step<L, L / 2>(rows);
}

}  // namespace graphscale::GRAPHSCALE_INSTRUCTION_SET

// The files of fft_conv/ see the vectors without a prefix.
namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {
using namespace graphscale::GRAPHSCALE_INSTRUCTION_SET;
}
