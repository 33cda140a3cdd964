// Loops over neighbouring numbers, compiled for each instruction set; this_machines_loops() returns
// those for this processor.
#pragma once

#include <cstdint>
#include <type_traits>

namespace graphscale {

// T is float or double. Results may take the place of an argument.
template <typename T>
struct VectorLoops {
  using Key = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

  // out = |x|^power, for a positive power; 0 where x is.
  void (*absolute_power)(int64_t count, const T* x, T power, T* out);
  // out = x^power for x >= 0 and any power but 0; NaN where x < 0.
  void (*power)(int64_t count, const T* x, T power, T* out);
  // out[i] = sum over j < terms of x[i + j * step].
  void (*sum)(int64_t count, int64_t terms, int64_t step, const T* x, T* out);
  // The maximum of x, not-a-numbers left out; -infinity of none.
  T (*maximum)(int64_t count, const T* x);
  // out = exp(x - shift), and their sum; out may be null.
  T (*exponentials)(int64_t count, const T* x, T shift, T* out);
  // out += grad * sign(x) * (|x| / norm)^power, 0 where x or norm is.
  void (*add_norm_gradient)(int64_t count, const T* grad, const T* x, const T* norm, T power,
                            T* out);
  // The same of windows side by side: out[i * terms + j] = grad[i] * sign(x[i * terms + j]) ... For
  // 2, 4 and 8 terms; others are left undone, and the answer is false.
  bool (*norm_gradient_of_windows)(int64_t count, int64_t terms, const T* grad, const T* x,
                                   const T* norm, T power, T* out);
  // out[i] = the largest of x[i * apart + j * step], j < terms, place[i] = the first such j (place
  // may be null); not-a-number is larger than all numbers.
  void (*largest)(int64_t count, int64_t terms, int64_t apart, int64_t step, const T* x, T* out,
                  int64_t* place);
  // out[i * apart + j * step] += grad[i] for the first j < terms where that element of x is the
  // largest.
  void (*add_to_largest)(int64_t count, int64_t terms, int64_t apart, int64_t step, const T* x,
                         const T* grad, T* out);
  // x is [rows, lanes], keys and row_of scratch of [rows, lanes] and [rows]; places [kept, lanes]:
  // the rows of the `kept` largest numbers of every column, rising; of equal numbers the first
  // ones, not-a-number above all.
  void (*select_largest)(int64_t rows, int64_t kept, const T* x, Key* keys, int64_t* row_of,
                         int64_t* places);
  // v = gradient + residual; bit i % 32 of bits[i / 32] is v[i] >= 0, unused bits are 0; the sums of
  // v with a set bit and without one are added to sums[0] and sums[1]. Returns how many are set. For
  // up to kSigns numbers: sums of more in T would lose digits.
  int64_t (*split_signs)(int64_t count, const T* gradient, const T* residual, T* v, uint32_t* bits,
                         double* sums);
  // out = v - (v >= 0 ? set : unset).
  void (*subtract_by_sign)(int64_t count, const T* v, T set, T unset, T* out);
  // out[i] = bit i % 32 of bits[i / 32] ? set : unset.
  void (*choose_by_bit)(int64_t count, const uint32_t* bits, T set, T unset, T* out);
  int lanes;
  static constexpr int64_t kSigns = 512;
};

template <typename T>
const VectorLoops<T>& this_machines_loops();

}  // namespace graphscale
