// One bit per gradient element with error feedback (Seide et al. 2014; fbcunn OneBitQuantization).
//
// Per row: v = gradient + residual; its bits are v >= 0, its two scales the means of v where the
// bit is set and where it is not (0 where there is none), its new residual the difference between v
// and the scales that the bits choose. Bit i of word j is column 32 j + i; the last word is filled
// up with zeros. Cost: gradient and residual are read once, the new residual is written, and read
// and written once more from the cache; the bits are 1/32 of that. Loops over a word's columns have
// no branches, so that the compiler turns them into vector instructions; memory is what limits them.
#include <algorithm>
#include <type_traits>

#include "kernels/cpu/widen.h"

namespace graphscale {
namespace {

constexpr int64_t kBits = 32;
constexpr int64_t kWordsOfSum = 16;  // after so many words, sums go into double: no digits are lost

int64_t words_of(int64_t columns) { return (columns + kBits - 1) / kBits; }

// Sums of the values of either kind, one for each bit of a word.
template <typename Wide>
struct Sums {
  Wide upper[kBits] = {};
  Wide lower[kBits] = {};

  // In two loops, which gcc 12 turns into vector instructions, as it does not with one.
  void add(const Wide* v, int64_t count) {
    for (int64_t i = 0; i < count; ++i) upper[i] += v[i] >= 0 ? v[i] : Wide(0);
    for (int64_t i = 0; i < count; ++i) lower[i] += v[i] >= 0 ? Wide(0) : v[i];
  }

  // Adds the sums to `total`, [0] those of set bits.
  void move_to(double* total) {
    for (int64_t i = 0; i < kBits; ++i) {
      total[0] += static_cast<double>(upper[i]);
      total[1] += static_cast<double>(lower[i]);
    }
    *this = Sums();
  }
};

template <typename Wide>
uint32_t signs(const Wide* v, int64_t count) {
  // A shift by i would be no vector instruction on every machine.
  static constexpr uint32_t kBit[kBits] = {
      1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
      1u << 8,  1u << 9,  1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15,
      1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21, 1u << 22, 1u << 23,
      1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};
  uint32_t word = 0;
  for (int64_t i = 0; i < count; ++i) word |= v[i] >= 0 ? kBit[i] : 0u;
  return word;
}

template <typename T>
void quantize(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  constexpr bool kSame = std::is_same_v<T, Wide>;
  const int64_t rows = call.inputs[0].shape[0];
  const int64_t columns = call.inputs[0].shape[1];
  const int64_t words = words_of(columns);
  const T* const gradient = call.inputs[0].data<T>();
  const T* const residual = call.inputs[1].data<T>();
  const int64_t grain = std::max<int64_t>(1, (1 << 13) / std::max<int64_t>(columns, 1));
  parallel_ranges(call.context, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* const g = gradient + row * columns;
      const T* const e = residual + row * columns;
      uint32_t* const bits = call.outputs[0].data<uint32_t>() + row * words;
      T* const scales = call.outputs[1].data<T>() + row * 2;
      T* const left = call.outputs[2].data<T>() + row * columns;
      // First pass: bits, and the sum and the count of either kind. If T is wide, v waits in `left`
      // for the second pass.
      Sums<Wide> sums;
      double total[2] = {0, 0};
      int64_t upper = 0;
      for (int64_t word = 0; word < words; ++word) {
        const int64_t first = word * kBits;
        const int64_t count = std::min(kBits, columns - first);
        Wide v[kBits];
        for (int64_t i = 0; i < count; ++i) {
          v[i] = static_cast<Wide>(g[first + i]) + static_cast<Wide>(e[first + i]);
        }
        if (count == kBits) {  // loops of known length
          bits[word] = signs(v, kBits);
          sums.add(v, kBits);
        } else {
          bits[word] = signs(v, count);
          sums.add(v, count);
        }
        if constexpr (kSame) std::copy_n(v, count, left + first);
        upper += __builtin_popcount(bits[word]);
        if ((word + 1) % kWordsOfSum == 0) sums.move_to(total);
      }
      sums.move_to(total);
      // scales[0] stands for a set bit, scales[1] for an unset one.
      const int64_t counts[2] = {upper, columns - upper};
      for (int kind = 0; kind < 2; ++kind) {
        const double mean = counts[kind] > 0 ? total[kind] / static_cast<double>(counts[kind]) : 0;
        scales[kind] = T(static_cast<Wide>(mean));
      }
      // Second pass: the difference between v and the scale of its bit.
      const Wide set = static_cast<Wide>(scales[0]), unset = static_cast<Wide>(scales[1]);
      for (int64_t i = 0; i < columns; ++i) {
        Wide v;
        if constexpr (kSame) {
          v = left[i];
        } else {
          v = static_cast<Wide>(g[i]) + static_cast<Wide>(e[i]);
        }
        left[i] = T(v - (v >= 0 ? set : unset));
      }
    }
  });
}

template <typename T>
void dequantize(const Call& call) {
  const int64_t rows = call.outputs[0].shape[0];
  const int64_t columns = call.outputs[0].shape[1];
  const int64_t words = words_of(columns);
  const uint32_t* const bits = call.inputs[0].data<uint32_t>();
  const T* const scales = call.inputs[1].data<T>();
  T* const out = call.outputs[0].data<T>();
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(columns, 1));
  parallel_ranges(call.context, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T set = scales[row * 2], unset = scales[row * 2 + 1];
      T* const to = out + row * columns;
      for (int64_t word = 0; word < words; ++word) {
        const uint32_t each = bits[row * words + word];
        const int64_t first = word * kBits;
        if (first + kBits <= columns) {
          for (int64_t i = 0; i < kBits; ++i) {
            to[first + i] = (each & (1u << i)) != 0 ? set : unset;
          }
        } else {
          for (int64_t i = 0; first + i < columns; ++i) {
            to[first + i] = (each & (1u << i)) != 0 ? set : unset;
          }
        }
      }
    }
  });
}

void dequantize_shape(ShapeCall& call) {
  const int64_t columns = call.attributes.bounded("columns", 0);
  call.require_rank(0, 2);
  call.require_rank(1, 2);
  call.require_equal(call.inputs[0][0], call.inputs[1][0], "the rows of words and scales");
  call.require_equal(call.inputs[0][1], words_of(columns), "the words of a row and columns / 32");
  call.require_equal(call.inputs[1][1], 2, "the second dimension of scales and 2");
  call.outputs[0] = {call.inputs[0][0], columns};
}

}  // namespace

Operator one_bit_quantize() {
  return Operator(
             "OneBitQuantize",
             "One bit per element with error feedback: bits of v = gradient + residual are v >= "
             "0; a row's scales are the means of v where the bit is set and where it is not.")
      .input("gradient", "[R, C].")
      .input("residual", "What the bits left out last time [R, C]; zero at first.")
      .output("words", Type::kUint32,
              "[R, ceil(C / 32)]; bit i of word j is column 32 j + i, unused bits are 0.")
      .output("scales", "[R, 2]: the value of a set bit, the value of an unset bit.")
      .output("new_residual", "[R, C]: v minus what the bits stand for.")
      .shape([](ShapeCall& call) {
        call.require_rank(0, 2);
        call.require_rank(1, 2);
        const Dims& shape = call.inputs[0];
        for (size_t d = 0; d < 2; ++d) {
          call.require_equal(shape[d], call.inputs[1][d], "the shapes of gradient and residual");
        }
        call.outputs[0] = {shape[0], compute_dim(words_of, shape[1])};
        call.outputs[1] = {shape[0], 2};
        call.outputs[2] = shape;
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { quantize<decltype(zero)>(call); });
      });
}

Operator one_bit_dequantize() {
  return Operator("OneBitDequantize", "What the bits and scales of OneBitQuantize stand for.")
      .input("words", Type::kUint32, "[R, ceil(columns / 32)].")
      .input("scales", "[R, 2].")
      .output("gradient", "[R, columns].")
      .required_attribute("columns", int64_t{0}, "Elements of a row.")
      .shape(dequantize_shape)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { dequantize<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
