// The loops of vector_loops.h for one instruction set: polynomials and bit operations on whole
// vectors, without calls and branches, so that a power or an exponential costs some 20 to 40 vector
// instructions. Rows end with a partial vector, whose missing elements are ones.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/cpu/simd/vector-inl.h"
#include "kernels/cpu/vector_loops.h"

namespace graphscale::GRAPHSCALE_INSTRUCTION_SET {
namespace {

// Real is float or double.
template <typename Real>
struct Loops {
  static constexpr int kLanes = kVectorBytes / sizeof(Real);
  static constexpr bool kSingle = sizeof(Real) == 4;
  using Bits = std::conditional_t<kSingle, uint32_t, uint64_t>;
  using Signed = std::make_signed_t<Bits>;
  using Vector = typename VectorOf<kLanes, Real>::type;
  using Words = typename VectorOf<kLanes, Bits>::type;
  using Places = typename VectorOf<kLanes, Signed>::type;

  static constexpr int kFraction = kSingle ? 23 : 52;
  static constexpr Bits kBias = kSingle ? 127 : 1023;
  static constexpr Bits kSign = Bits(1) << (8 * sizeof(Bits) - 1);
  static constexpr Real kInfinity = std::numeric_limits<Real>::infinity();
  // Added to a small number it rounds it to an integer, which is then in its lowest bits.
  static constexpr Real kRounder = Real(3) * static_cast<Real>(Bits(1) << (kFraction - 1));

  static constexpr Real kOverFactorial[] = {Real(1),
                                            Real(1),
                                            Real(1.L / 2),
                                            Real(1.L / 6),
                                            Real(1.L / 24),
                                            Real(1.L / 120),
                                            Real(1.L / 720),
                                            Real(1.L / 5040),
                                            Real(1.L / 40320),
                                            Real(1.L / 362880),
                                            Real(1.L / 3628800),
                                            Real(1.L / 39916800),
                                            Real(1.L / 479001600),
                                            Real(1.L / 6227020800)};

  static Vector load(const Real* from) {
    Vector value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }

  static void store(Vector value, Real* to) { std::memcpy(to, &value, sizeof(value)); }

  static Vector every(Real value) { return value - Vector{}; }

  static Words bits_of(Vector value) { return reinterpret_cast<Words>(value); }

  static Vector vector_of(Words bits) { return reinterpret_cast<Vector>(bits); }

  static Vector absolute(Vector x) { return vector_of(bits_of(x) & ~kSign); }

  static Vector bound(Vector x, Real limit) {
    x = x < -limit ? every(-limit) : x;
    return x > limit ? every(limit) : x;
  }

  // The first `count` elements, and ones.
  static Vector load_some(const Real* from, int64_t count) {
    Vector value = every(1);
    std::memcpy(&value, from, static_cast<size_t>(count) * sizeof(Real));
    return value;
  }

  static void store_some(Vector value, int64_t count, Real* to) {
    std::memcpy(to, &value, static_cast<size_t>(count) * sizeof(Real));
  }

  // out = operation(x), vector by vector.
  template <typename Operation>
  static void map(int64_t count, const Operation& operation, const Real* x, Real* out) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(operation(load(x + i)), out + i);
    if (i < count) store_some(operation(load_some(x + i, count - i)), count - i, out + i);
  }

  // 2^(n + r) for integers n, |n| <= 250 in float and 2040 in double, and |r| <= 1/2.
  static Vector two_to(Vector n, Vector r) {
    constexpr Bits kOffset = kBias + 1;
    r *= Real(0.693147180559945309417232121458L);  // 2^r = e^(r log 2)
    constexpr int kTerms = kSingle ? 7 : 13;
    Vector result = every(kOverFactorial[kTerms]);
#pragma GCC unroll 16
    // Taylor series of e^r by Horner's scheme.
    for (int i = kTerms - 1; i >= 0; --i) result = result * r + kOverFactorial[i];
    // 2^n in two factors, either of which is a normal number.
    const Words whole = bits_of(n + kRounder) - bits_of(every(kRounder)) + 2 * kOffset;
    const Words half = whole >> 1;
    result *= vector_of((half - kOffset + kBias) << kFraction);
    result *= vector_of((whole - half - kOffset + kBias) << kFraction);
    return result;
  }

  // e^x: relative error about 1e-7 in float and 1e-15 in double.
  static Vector exponential(Vector x) {
    constexpr Real kMax = kSingle ? 170 : 1400;
    constexpr Real kOverLog2 = Real(1.442695040888963407359924681L);
    // log 2 in two parts, the first of few digits: products of it and an integer are exact.
    constexpr Real kHigh = kSingle ? Real(0.693359375L) : Real(0.69314575195312500000L);
    constexpr Real kLow =
        Real(0.693147180559945309417232121458L - (kSingle ? 0.693359375L : 0.693145751953125L));
    x = bound(x, kMax);
    // x = n log 2 + a rest of at most log 2 / 2.
    const Vector n = (x * kOverLog2 + kRounder) - kRounder;
    return two_to(n, ((x - n * kHigh) - n * kLow) * kOverLog2);
  }

  // x^power = 2^(power log2 x), the integer part of power * exponent apart, so that nothing is lost
  // of the fraction: relative error about 1e-7 in float and 1e-15 in double.
  struct Exponent {
    Real high, low;  // their sum is the power; high times an exponent of x is exact
    Real of_zero, of_infinity;

    explicit Exponent(Real power)
        : of_zero(power > 0 ? 0 : kInfinity), of_infinity(power > 0 ? kInfinity : 0) {
      Bits bits;
      std::memcpy(&bits, &power, sizeof(bits));
      bits = bits >> (kFraction / 2 + 1) << (kFraction / 2 + 1);
      std::memcpy(&high, &bits, sizeof(bits));
      low = power - high;
    }
  };

  static Vector raise(Vector x, const Exponent& power) {
    // x = m 2^e with m from sqrt(1/2) to sqrt(2); subnormal numbers are scaled first.
    constexpr Bits kRootHalf = kSingle ? Bits(0x3f3504f3) : Bits(0x3fe6a09e667f3bcd);
    constexpr Bits kOffset = kBias + 1;
    const auto tiny = x < std::numeric_limits<Real>::min();
    const Vector scaled = tiny ? x * static_cast<Real>(Bits(1) << kFraction) : x;
    const Words steps = (bits_of(scaled) - kRootHalf + (kOffset << kFraction)) >> kFraction;
    const Vector m = vector_of(bits_of(scaled) - ((steps - kOffset) << kFraction));
    const Vector e = vector_of(bits_of(every(kRounder)) + steps) -
                     (tiny ? every(kRounder + static_cast<Real>(kOffset + kFraction))
                           : every(kRounder + static_cast<Real>(kOffset)));
    // log m = 2 (s + s^3 / 3 + s^5 / 5 + ...), s = (m - 1) / (m + 1), |s| < 0.172
    const Vector s = (m - 1) / (m + 1);
    const Vector q = s * s;
    Vector series = every(0);
#pragma GCC unroll 16
    for (int i = kSingle ? 9 : 21; i > 1; i -= 2)
      series = series * q + Real(1) / static_cast<Real>(i);
    constexpr Real kTwoOverLog2 = Real(2.885390081777926814719849362L);
    const Vector log2_m = kTwoOverLog2 * s + (kTwoOverLog2 * s) * (q * series);
    // The exponent of the result, an integer and a rest; both are bounded by what can be seen of
    // them.
    constexpr Real kMax = kSingle ? 250 : 2040;
    const Vector coarse = bound(power.high * e, kMax);
    const Vector near = (coarse + kRounder) - kRounder;
    const Vector rest =
        bound((coarse - near) + (power.low * e + (power.high + power.low) * log2_m), kMax);
    const Vector near_rest = (rest + kRounder) - kRounder;
    const Vector n = bound(near + near_rest, kMax);
    Vector result = two_to(n, rest - near_rest);
    result = x == 0 ? every(power.of_zero) : result;
    result = x == kInfinity ? every(power.of_infinity) : result;
    return x >= 0 ? result : every(std::numeric_limits<Real>::quiet_NaN());
  }

  struct Same {
    Vector operator()(Vector x) const { return x; }
  };
  struct One {
    Vector operator()(Vector) const { return every(1); }
  };
  struct Absolute {
    Vector operator()(Vector x) const { return absolute(x); }
  };
  struct Square {
    Vector operator()(Vector x) const { return x * x; }
  };
  struct Cube {
    Vector operator()(Vector x) const { return absolute(x * x * x); }
  };
  struct Reciprocal {
    Vector operator()(Vector x) const { return 1 / x; }
  };
  struct Root {
    Vector operator()(Vector x) const {
      for (int l = 0; l < kLanes; ++l) x[l] = std::sqrt(x[l]);
      return x;
    }
  };
  struct Raise {
    Exponent exponent;
    Vector operator()(Vector x) const { return raise(x, exponent); }
  };
  struct RaiseAbsolute {
    Exponent exponent;
    Vector operator()(Vector x) const { return raise(absolute(x), exponent); }
  };

  static void absolute_power(int64_t count, const Real* x, Real power, Real* out) {
    if (power == 1) return map(count, Absolute(), x, out);
    if (power == 2) return map(count, Square(), x, out);
    if (power == 3) return map(count, Cube(), x, out);
    map(count, RaiseAbsolute{Exponent(power)}, x, out);
  }

  static void power(int64_t count, const Real* x, Real power, Real* out) {
    if (power == 1) return map(count, Same(), x, out);
    if (power == Real(0.5)) return map(count, Root(), x, out);
    if (power == -1) return map(count, Reciprocal(), x, out);
    if (power == 0) return map(count, One(), x, out);
    map(count, Raise{Exponent(power)}, x, out);
  }

  static void sum(int64_t count, int64_t terms, int64_t step, const Real* x, Real* out) {
    constexpr int64_t kBlock = 64;  // stays in registers
    int64_t i = 0;
    for (; i + kBlock <= count; i += kBlock) {
      // kBlock sums at a time: the compiler keeps them in registers over all terms.
      Real sums[kBlock] = {};
      for (int64_t j = 0; j < terms; ++j) {
        for (int64_t l = 0; l < kBlock; ++l) sums[l] += x[i + j * step + l];
      }
      std::copy_n(sums, kBlock, out + i);
    }
    for (; i < count; ++i) {
      Real value = 0;
      for (int64_t j = 0; j < terms; ++j) value += x[i + j * step];
      out[i] = value;
    }
  }

  template <typename Slope>
  static Vector norm_gradient(const Slope& slope, Vector grad, Vector x, Vector norm) {
    // Where norm is 0, divide by 1 instead; the result is dropped below.
    const Vector size = slope(absolute(x) / (norm == 0 ? every(1) : norm));
    const Vector part = grad * vector_of(bits_of(size) | (bits_of(x) & kSign));
    return norm == 0 ? every(0) : x == 0 ? every(0) : part;
  }

  template <typename Slope>
  static void add_gradient(int64_t count, const Slope& slope, const Real* grad, const Real* x,
                           const Real* norm, Real* out) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Vector part = norm_gradient(slope, load(grad + i), load(x + i), load(norm + i));
      store(load(out + i) + part, out + i);
    }
    if (i == count) return;
    const int64_t rest = count - i;
    const Vector part = norm_gradient(slope, load_some(grad + i, rest), load_some(x + i, rest),
                                      load_some(norm + i, rest));
    store_some(load_some(out + i, rest) + part, rest, out + i);
  }

  static void add_norm_gradient(int64_t count, const Real* grad, const Real* x, const Real* norm,
                                Real power, Real* out) {
    if (power == 0) return add_gradient(count, One(), grad, x, norm, out);
    if (power == 1) return add_gradient(count, Same(), grad, x, norm, out);
    if (power == 2) return add_gradient(count, Square(), grad, x, norm, out);
    add_gradient(count, Raise{Exponent(power)}, grad, x, norm, out);
  }

  // The largest number, without those that are none; of no numbers -infinity.
  static Real maximum(int64_t count, const Real* x) {
    // A comparison with not-a-number is false, so those never replace `all`.
    Vector all = every(-kInfinity);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Vector next = load(x + i);
      all = next > all ? next : all;
    }
    Real result = -kInfinity;
    for (int l = 0; l < kLanes; ++l) result = std::max(result, all[l]);
    for (; i < count; ++i) result = std::max(result, x[i]);
    return result;
  }

  static Real exponentials(int64_t count, const Real* x, Real shift, Real* out) {
    // One partial sum per lane; the rest behind the last whole vector is added number by number.
    Vector all = every(0);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Vector next = exponential(load(x + i) - shift);
      all += next;
      if (out != nullptr) store(next, out + i);
    }
    Real sum = 0;
    for (int l = 0; l < kLanes; ++l) sum += all[l];
    if (i == count) return sum;
    const Vector last = exponential(load_some(x + i, count - i) - shift);
    for (int64_t l = 0; l < count - i; ++l) sum += last[l];
    if (out != nullptr) store_some(last, count - i, out + i);
    return sum;
  }

  // Whether the number found before stays: a not-a-number stays and is never replaced.
  static Places keeps(Vector before, Vector next) { return (next <= before) | (before != before); }

  static Vector larger(Vector before, Vector next) {
    const Vector maximum = next > before ? next : before;  // a not-a-number stays
    return next != next ? next : maximum;
  }

  // Numbers that are `apart` from each other; what is beyond the first `count` is one.
  static Vector load_apart(const Real* from, int64_t apart, int64_t count) {
    if (apart == 1) return count == kLanes ? load(from) : load_some(from, count);
    Vector value = every(1);
    for (int64_t l = 0; l < count; ++l) value[l] = from[l * apart];
    return value;
  }

  static void add_apart(Vector value, int64_t apart, int64_t count, Real* to) {
    if (apart == 1 && count == kLanes) return store(load(to) + value, to);
    for (int64_t l = 0; l < count; ++l) to[l * apart] += value[l];
  }

  // The elements of kCount vectors in turn, kCount being a power of two: members[j][i] is what was
  // at place i * kCount + j. Even and odd places are taken apart, then each half in the same way:
  // log2(kCount) rounds of kCount shuffles.
  template <int kCount>
  static void deal(Vector (&members)[kCount]) {
    if constexpr (kCount > 1) {
      Vector evens[kCount / 2], odds[kCount / 2];
      for (int k = 0; k < kCount / 2; ++k) {
        evens[k] = members[2 * k];
        odds[k] = members[2 * k + 1];
        deal_lanes<kLanes>(evens[k], odds[k]);
      }
      deal(evens);
      deal(odds);
      for (int k = 0; k < kCount / 2; ++k) {
        members[2 * k] = evens[k];
        members[2 * k + 1] = odds[k];
      }
    }
  }

  // Undoes deal.
  template <int kCount>
  static void collect(Vector (&members)[kCount]) {
    if constexpr (kCount > 1) {
      Vector evens[kCount / 2], odds[kCount / 2];
      for (int k = 0; k < kCount / 2; ++k) {
        evens[k] = members[2 * k];
        odds[k] = members[2 * k + 1];
      }
      collect(evens);
      collect(odds);
      for (int k = 0; k < kCount / 2; ++k) {
        interleave_lanes<kLanes>(evens[k], odds[k]);
        members[2 * k] = evens[k];
        members[2 * k + 1] = odds[k];
      }
    }
  }

  // Windows side by side, a power of two long: members[j] is the j-th of each of kLanes windows.
  template <int kTerms>
  static void load_windows(const Real* x, Vector (&members)[kTerms]) {
    for (int j = 0; j < kTerms; ++j) members[j] = load(x + j * kLanes);
    deal(members);
  }

  template <int kTerms, typename Slope>
  static void gradient_of_windows(const Slope& slope, const Real* grad, const Real* x,
                                  const Real* norm, Real* out) {
    Vector members[kTerms];
    load_windows(x, members);
    for (int j = 0; j < kTerms; ++j) {
      members[j] = norm_gradient(slope, load(grad), members[j], load(norm));
    }
    collect(members);
    for (int j = 0; j < kTerms; ++j) store(members[j], out + j * kLanes);
  }

  template <int kTerms, typename Slope>
  static void gradients_of_windows(int64_t count, const Slope& slope, const Real* grad,
                                   const Real* x, const Real* norm, Real* out) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      gradient_of_windows<kTerms>(slope, grad + i, x + i * kTerms, norm + i, out + i * kTerms);
    }
    const int64_t rest = count - i;
    if (rest == 0) return;
    // A last incomplete set of windows goes through whole vectors in scratch.
    Real some_grad[kLanes] = {}, some_norm[kLanes] = {}, some[kTerms * kLanes] = {};
    std::copy_n(grad + i, rest, some_grad);
    std::copy_n(norm + i, rest, some_norm);
    std::copy_n(x + i * kTerms, rest * kTerms, some);
    gradient_of_windows<kTerms>(slope, some_grad, some, some_norm, some);
    std::copy_n(some, rest * kTerms, out + i * kTerms);
  }

  template <int kTerms>
  static void gradients_of_windows(int64_t count, const Real* grad, const Real* x, const Real* norm,
                                   Real power, Real* out) {
    if (power == 1) return gradients_of_windows<kTerms>(count, Same(), grad, x, norm, out);
    if (power == 2) return gradients_of_windows<kTerms>(count, Square(), grad, x, norm, out);
    if (power == 0) return gradients_of_windows<kTerms>(count, One(), grad, x, norm, out);
    gradients_of_windows<kTerms>(count, Raise{Exponent(power)}, grad, x, norm, out);
  }

  static bool norm_gradient_of_windows(int64_t count, int64_t terms, const Real* grad,
                                       const Real* x, const Real* norm, Real power, Real* out) {
    if (terms == 2) gradients_of_windows<2>(count, grad, x, norm, power, out);
    if (terms == 4) gradients_of_windows<4>(count, grad, x, norm, power, out);
    if (terms == 8) gradients_of_windows<8>(count, grad, x, norm, power, out);
    return terms == 2 || terms == 4 || terms == 8;
  }

  // Of windows side by side, as many as fill vectors; returns how many.
  template <int kTerms>
  static int64_t largest_of_windows(int64_t count, const Real* x, Real* out) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      Vector members[kTerms];
      load_windows(x + i * kTerms, members);
      Vector maximum = members[0];
      for (int j = 1; j < kTerms; ++j) maximum = larger(maximum, members[j]);
      store(maximum, out + i);
    }
    return i;
  }

  // kVectors at a time stay in registers; from the i-th number on, as many as fill them. Returns
  // where it ended.
  template <int kVectors>
  static int64_t largest_of_rows(int64_t i, int64_t count, int64_t terms, int64_t step,
                                 const Real* x, Real* out) {
    for (; i + kVectors * kLanes <= count; i += kVectors * kLanes) {
      Vector maximum[kVectors];
      for (int v = 0; v < kVectors; ++v) maximum[v] = load(x + i + v * kLanes);
      for (int64_t j = 1; j < terms; ++j) {
        const Real* const row = x + i + j * step;
        for (int v = 0; v < kVectors; ++v) maximum[v] = larger(maximum[v], load(row + v * kLanes));
      }
      for (int v = 0; v < kVectors; ++v) store(maximum[v], out + i + v * kLanes);
    }
    return i;
  }

  struct Largest {
    Vector value;
    Places place;

    void meet(Vector next, int64_t at) {
      const Places stays = keeps(value, next);
      value = stays ? value : next;
      place = stays ? place : static_cast<Signed>(at) - Places{};
    }
    // `numbers` where the largest was at that place, else 0.
    Vector only_at(int64_t at, Vector numbers) const {
      return place == static_cast<Signed>(at) ? numbers : every(0);
    }
  };

  static Largest find_largest(int64_t count, int64_t terms, int64_t apart, int64_t step,
                              const Real* x) {
    Largest maximum = {load_apart(x, apart, count), {}};
    for (int64_t j = 1; j < terms; ++j) maximum.meet(load_apart(x + j * step, apart, count), j);
    return maximum;
  }

  static void largest(int64_t count, int64_t terms, int64_t apart, int64_t step, const Real* x,
                      Real* out, int64_t* place) {
    int64_t i = 0;
    if (place == nullptr) {
      const bool side_by_side = apart == terms && step == 1;
      if (side_by_side && terms == 2) i = largest_of_windows<2>(count, x, out);
      if (side_by_side && terms == 4) i = largest_of_windows<4>(count, x, out);
      if (side_by_side && terms == 8) i = largest_of_windows<8>(count, x, out);
      if (apart == 1) i = largest_of_rows<4>(0, count, terms, step, x, out);
      if (apart == 1) i = largest_of_rows<1>(i, count, terms, step, x, out);
    }
    for (; i < count; i += kLanes) {
      const int64_t width = std::min<int64_t>(kLanes, count - i);
      const Largest maximum = find_largest(width, terms, apart, step, x + i * apart);
      store_some(maximum.value, width, out + i);
      if (place == nullptr) continue;
      for (int64_t l = 0; l < width; ++l) place[i + l] = maximum.place[l];
    }
  }

  template <int kTerms>
  static int64_t add_to_largest_of_windows(int64_t count, const Real* x, const Real* grad,
                                           Real* out) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      Vector members[kTerms];
      load_windows(x + i * kTerms, members);
      Largest maximum = {members[0], {}};
      for (int j = 1; j < kTerms; ++j) maximum.meet(members[j], j);
      for (int j = 0; j < kTerms; ++j) members[j] = maximum.only_at(j, load(grad + i));
      collect(members);
      for (int j = 0; j < kTerms; ++j)
        add_apart(members[j], 1, kLanes, out + i * kTerms + j * kLanes);
    }
    return i;
  }

  static void add_to_largest(int64_t count, int64_t terms, int64_t apart, int64_t step,
                             const Real* x, const Real* grad, Real* out) {
    int64_t i = 0;
    const bool side_by_side = apart == terms && step == 1;
    if (side_by_side && terms == 2) i = add_to_largest_of_windows<2>(count, x, grad, out);
    if (side_by_side && terms == 4) i = add_to_largest_of_windows<4>(count, x, grad, out);
    if (side_by_side && terms == 8) i = add_to_largest_of_windows<8>(count, x, grad, out);
    for (; i < count; i += kLanes) {
      const int64_t width = std::min<int64_t>(kLanes, count - i);
      const Largest maximum = find_largest(width, terms, apart, step, x + i * apart);
      const Vector slope = load_apart(grad + i, 1, width);
      for (int64_t j = 0; j < terms; ++j) {
        add_apart(maximum.only_at(j, slope), apart, width, out + i * apart + j * step);
      }
    }
  }

  // Keys that order as the numbers do, not-a-number above all, and 0 and -0 one.
  static void order_keys(const Real* x, Bits* keys) {
    const Vector value = load(x);
    const Words bits = bits_of(value + 0);
    const Words key = (bits & kSign) != 0 ? ~bits : bits | kSign;
    const Words result = value == value ? key : ~Words{};
    std::memcpy(keys, &result, sizeof(result));
  }

  static Words load_key(const Bits* from) {
    Words key;
    std::memcpy(&key, from, sizeof(key));
    return key;
  }

  // The rows are divided into `kept` parts; the smallest of the parts' maxima is a lower bound of
  // the kept numbers.
  static Words lower_bound(int64_t rows, int64_t kept, const Bits* keys) {
    Words minimum = ~Words{};
    for (int64_t part = 0; part < kept; ++part) {
      Words maximum = {};
      for (int64_t t = rows * part / kept; t < rows * (part + 1) / kept; ++t) {
        const Words key = load_key(keys + t * kLanes);
        maximum = key > maximum ? key : maximum;
      }
      minimum = maximum < minimum ? maximum : minimum;
    }
    return minimum;
  }

  // Moves the rows in which any column reaches the bound to the front; returns their number, and in
  // row_of where they were.
  static int64_t keep_reaching(int64_t rows, Words bound, Bits* keys, int64_t* row_of) {
    int64_t count = 0;
    for (int64_t t = 0; t < rows; ++t) {
      const Words key = load_key(keys + t * kLanes);
      const Words reaches = reinterpret_cast<Words>(key >= bound);
      Bits any = 0;
      for (int l = 0; l < kLanes; ++l) any |= reaches[l];
      std::memcpy(keys + count * kLanes, &key, sizeof(key));
      row_of[count] = t;
      count += any != 0 ? 1 : 0;
    }
    return count;
  }

  static void select_largest(int64_t rows, int64_t kept, const Real* x, Bits* keys, int64_t* row_of,
                             int64_t* places) {
    for (int64_t t = 0; t < rows; ++t) order_keys(x + t * kLanes, keys + t * kLanes);
    const Words bound = rows >= 8 * kept ? lower_bound(rows, kept, keys) : Words{};
    rows = keep_reaching(rows, bound, keys, row_of);
    // Bit by bit the largest key that at least `kept` keys are not below.
    Words threshold = {};
    for (Bits bit = kSign; bit != 0; bit >>= 1) {
      // A bit of the threshold stays set where at least `kept` keys reach the candidate.
      const Words candidate = threshold | bit;
      Words count = {};
      for (int64_t t = 0; t < rows; ++t) {
        count -= reinterpret_cast<Words>(load_key(keys + t * kLanes) >= candidate);
      }
      threshold = count >= static_cast<Bits>(kept) ? candidate : threshold;
    }
    // Of those that equal it the first ones are kept.
    Words above = {};
    for (int64_t t = 0; t < rows; ++t) {
      above -= reinterpret_cast<Words>(load_key(keys + t * kLanes) > threshold);
    }
    int64_t found[kLanes] = {};
    int64_t equals[kLanes];
    for (int l = 0; l < kLanes; ++l) equals[l] = kept - static_cast<int64_t>(above[l]);
    for (int64_t t = 0; t < rows; ++t) {
      const Words key = load_key(keys + t * kLanes);
      const auto chosen = key >= threshold;
      for (int l = 0; l < kLanes; ++l) {
        if (chosen[l] == 0 || (key[l] == threshold[l] && equals[l]-- <= 0)) continue;
        places[found[l]++ * kLanes + l] = row_of[t];
      }
    }
  }

  static constexpr int kWord = 32;  // bits of a word, which hold kWord / kLanes vectors

  // Bit l is v[l] >= 0.
  static uint32_t signs(Vector v) {
#if defined(__AVX512F__)
    if constexpr (kSingle) {
      return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GE_OQ);
    } else {
      return _mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_GE_OQ);
    }
#elif defined(__AVX2__)
    if constexpr (kSingle) {
      return _mm256_movemask_ps(reinterpret_cast<__m256>(v >= 0));
    } else {
      return _mm256_movemask_pd(reinterpret_cast<__m256d>(v >= 0));
    }
#elif defined(__SSE2__)
    if constexpr (kSingle) {
      return _mm_movemask_ps(reinterpret_cast<__m128>(v >= 0));
    } else {
      return _mm_movemask_pd(reinterpret_cast<__m128d>(v >= 0));
    }
#else
    uint32_t bits = 0;
    for (int l = 0; l < kLanes; ++l) bits |= v[l] >= 0 ? uint32_t(1) << l : 0;
    return bits;
#endif
  }

  static int64_t split_signs(int64_t count, const Real* gradient, const Real* residual, Real* v,
                             uint32_t* bits, double* sums) {
    Vector upper = every(0), lower = every(0);
    int64_t set = 0, i = 0;
    for (; i + kWord <= count; i += kWord) {
      uint32_t word = 0;
#pragma GCC unroll 16
      for (int j = 0; j < kWord; j += kLanes) {
        const Vector each = load(gradient + i + j) + load(residual + i + j);
        upper += each >= 0 ? each : every(0);
        lower += each >= 0 ? every(0) : each;
        word |= signs(each) << j;
        store(each, v + i + j);
      }
      bits[i / kWord] = word;
      set += __builtin_popcount(word);
    }
    for (int l = 0; l < kLanes; ++l) {
      sums[0] += static_cast<double>(upper[l]);
      sums[1] += static_cast<double>(lower[l]);
    }
    if (i == count) return set;
    uint32_t word = 0;
    for (int64_t j = i; j < count; ++j) {
      v[j] = gradient[j] + residual[j];
      if (v[j] >= 0) word |= uint32_t(1) << (j - i);
      sums[v[j] >= 0 ? 0 : 1] += static_cast<double>(v[j]);
    }
    bits[i / kWord] = word;
    return set + __builtin_popcount(word);
  }

  static void subtract_by_sign(int64_t count, const Real* v, Real set, Real unset, Real* out) {
    const auto subtract = [&](Vector each) {
      return each - (each >= 0 ? every(set) : every(unset));
    };
    map(count, subtract, v, out);
  }

  static void choose_by_bit(int64_t count, const uint32_t* bits, Real set, Real unset, Real* out) {
    Words lane;
    for (int l = 0; l < kLanes; ++l) lane[l] = Bits(1) << l;
    int64_t i = 0;
    for (; i + kWord <= count; i += kWord) {
#pragma GCC unroll 16
      for (int j = 0; j < kWord; j += kLanes) {
        const Words word = Words{} + static_cast<Bits>(bits[i / kWord] >> j);
        store((word & lane) != 0 ? every(set) : every(unset), out + i + j);
      }
    }
    for (; i < count; ++i) out[i] = (bits[i / kWord] >> (i % kWord) & 1) != 0 ? set : unset;
  }
};

template <typename Real>
constexpr VectorLoops<Real> vector_loops() {
  using L = Loops<Real>;
  return {L::absolute_power,
          L::power,
          L::sum,
          L::maximum,
          L::exponentials,
          L::add_norm_gradient,
          L::norm_gradient_of_windows,
          L::largest,
          L::add_to_largest,
          L::select_largest,
          L::split_signs,
          L::subtract_by_sign,
          L::choose_by_bit,
          L::kLanes};
}

}  // namespace
}  // namespace graphscale::GRAPHSCALE_INSTRUCTION_SET
