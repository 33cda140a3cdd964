// One bit per gradient element with error feedback (Seide et al. 2014; fbcunn OneBitQuantization).
//
// Per row: v = gradient + residual; its bits are v >= 0, its two scales the means of v where the
// bit is set and where it is not (0 where there is none), its new residual the difference between v
// and the scales that the bits choose. Bit i of word j is column 32 j + i; the last word is filled
// up with zeros. Cost: gradient and residual are read once, the new residual is written, and read
// and written once more from the cache; the bits are 1/32 of that. Memory is what limits it.
#include <algorithm>
#include <type_traits>

#include "kernels/cpu/vector_loops.h"
#include "kernels/cpu/widen.h"

namespace graphscale {
namespace {

constexpr int64_t kBits = 32;

int64_t words_of(int64_t columns) { return (columns + kBits - 1) / kBits; }

// `count` numbers of T at `from` as Wide: where they are, or copied to `copy`.
template <typename T, typename Wide>
const Wide* widened(const T* from, int64_t count, Wide* copy) {
  if constexpr (std::is_same_v<T, Wide>) {
    return from;
  } else {
    for (int64_t i = 0; i < count; ++i) copy[i] = static_cast<Wide>(from[i]);
    return copy;
  }
}

// body(first column, columns) for parts of a row of at most VectorLoops::kSigns columns.
template <typename F>
void for_each_part(int64_t columns, const F& body) {
  constexpr int64_t kPart = VectorLoops<float>::kSigns;
  for (int64_t i = 0; i < columns; i += kPart) body(i, std::min(kPart, columns - i));
}

template <typename T>
void quantize(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  constexpr bool kSame = std::is_same_v<T, Wide>;
  constexpr int64_t kPart = VectorLoops<Wide>::kSigns;
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  const int64_t rows = call.inputs[0].shape[0];
  const int64_t columns = call.inputs[0].shape[1];
  const int64_t words = words_of(columns);
  const T* const gradient = call.inputs[0].data<T>();
  const T* const residual = call.inputs[1].data<T>();
  const int64_t grain = std::max<int64_t>(1, (1 << 13) / std::max<int64_t>(columns, 1));
  parallel_ranges(call.context, rows, grain, [&](int64_t begin, int64_t end) {
    Wide wide_g[kSame ? 1 : kPart], wide_e[kSame ? 1 : kPart], wide_v[kSame ? 1 : kPart];
    for (int64_t row = begin; row < end; ++row) {
      const T* const g = gradient + row * columns;
      const T* const e = residual + row * columns;
      uint32_t* const bits = call.outputs[0].data<uint32_t>() + row * words;
      T* const scales = call.outputs[1].data<T>() + row * 2;
      T* const left = call.outputs[2].data<T>() + row * columns;
      // Bits, sums and counts of both kinds. If T is wide, v waits in `left` for the second pass.
      double total[2] = {0, 0};
      int64_t upper = 0;
      for_each_part(columns, [&](int64_t i, int64_t count) {
        Wide* v = wide_v;
        if constexpr (kSame) v = left + i;
        upper += loops.split_signs(count, widened(g + i, count, wide_g),
                                   widened(e + i, count, wide_e), v, bits + i / kBits, total);
      });
      // scales[0] stands for a set bit, scales[1] for an unset one.
      const int64_t counts[2] = {upper, columns - upper};
      for (int kind = 0; kind < 2; ++kind) {
        const double mean = counts[kind] > 0 ? total[kind] / static_cast<double>(counts[kind]) : 0;
        scales[kind] = T(static_cast<Wide>(mean));
      }
      // The difference between v and the scale of its bit.
      const Wide set = static_cast<Wide>(scales[0]), unset = static_cast<Wide>(scales[1]);
      if constexpr (kSame) {
        loops.subtract_by_sign(columns, left, set, unset, left);
      } else {
        for (int64_t i = 0; i < columns; ++i) {
          const Wide v = static_cast<Wide>(g[i]) + static_cast<Wide>(e[i]);
          left[i] = T(v - (v >= 0 ? set : unset));
        }
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
      const uint32_t* const from = bits + row * words;
      T* const to = out + row * columns;
      if constexpr (std::is_floating_point_v<T>) {
        this_machines_loops<T>().choose_by_bit(columns, from, set, unset, to);
      } else {
        for (int64_t i = 0; i < columns; i += kBits) {
          const uint32_t word = from[i / kBits];
          const int64_t count = std::min(kBits, columns - i);
          for (int64_t j = 0; j < count; ++j) to[i + j] = (word & (1u << j)) != 0 ? set : unset;
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
