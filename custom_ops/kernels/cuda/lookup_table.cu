// Lookup tables on CUDA: see kernels/cpu/lookup_table.cpp for what they compute. Cost: the bytes of
// the rows read and written; the gradient sorts 8 bytes per index besides, in log2(n)^2 / 2 steps.
//
// Rows are copied 16 bytes per thread where they are aligned. The gradient sorts (index, position)
// pairs, so that equal indices are neighbours; pieces of 64 of them are summed side by side, and
// sums that cross the border of a piece are joined afterwards. There are no atomics: sums are in
// the order of the positions on every GPU. An index outside of the table gives a row of
// not-a-number and no gradient, because a call that does not wait for the GPU cannot report an
// error.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sort_pairs.h"

namespace graphscale::cuda {
namespace {

struct Words {
  uint32_t values[4];
};
static_assert(sizeof(Words) == 16);

// 16 bytes of the result, of rows of `width` such pieces.
struct CopyRows {
  const Words* table;
  const int64_t* indices;
  Words* out;
  int64_t rows, width, padding;
  uint32_t nan;  // of the element type, filling a word
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t index = indices[i / width];
    if (padding != -1 && index == padding) {
      out[i] = Words{{0, 0, 0, 0}};
    } else if (index >= 0 && index < rows) {
      out[i] = table[index * width + i % width];
    } else {
      out[i] = Words{{nan, nan, nan, nan}};
    }
  }
};

template <typename T>
struct Lookup {
  using Wide = typename Accumulator<T>::type;
  const T* table;
  const int64_t* indices;
  const T* factors;  // or null
  T* out;
  int64_t rows, width, padding;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t at = i / width;
    const int64_t index = indices[at];
    if (padding != -1 && index == padding) {
      out[i] = narrow<T>(0);
    } else if (index < 0 || index >= rows) {
      out[i] = narrow<T>(std::numeric_limits<Wide>::quiet_NaN());
    } else {
      const T value = table[index * width + i % width];
      out[i] = factors == nullptr ? value : narrow<T>(widen(factors[at]) * widen(value));
    }
  }
};

bool aligned(const void* memory) {
  return reinterpret_cast<uintptr_t>(memory) % sizeof(Words) == 0;
}

template <typename T>
void lookup(const Call& call, const T* factors) {
  const Tensor& weight = call.inputs[0];
  const int64_t padding = call.attributes.integer("padding_idx");
  const int64_t* const indices = call.inputs[1].data<int64_t>();
  const int64_t rows = weight.shape[0];
  const int64_t width = weight.shape[1];
  const int64_t bytes = width * static_cast<int64_t>(sizeof(T));
  if (factors == nullptr && sizeof(T) <= 4 && bytes % 16 == 0 && aligned(weight.memory) &&
      aligned(call.outputs[0].memory)) {
    const uint32_t nan = sizeof(T) == 4 ? 0x7fc00000u : 0x7fff7fffu;
    for_each_index(call.context, call.inputs[1].size() * bytes / 16,
                   CopyRows{weight.data<Words>(), indices, call.outputs[0].data<Words>(), rows,
                            bytes / 16, padding, nan});
    return;
  }
  for_each_index(call.context, call.outputs[0].size(),
                 Lookup<T>{weight.data<T>(), indices, factors, call.outputs[0].data<T>(), rows,
                           width, padding});
}

struct MakePairs {
  const int64_t* indices;
  uint64_t* pairs;
  int64_t count, rows, padding;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t index = i < count ? indices[i] : -1;
    const bool none = index < 0 || index >= rows || (padding != -1 && index == padding);
    pairs[i] = none ? kNoPair : make_pair(index, i);
  }
};

constexpr int64_t kPiece = 64;  // sorted pairs that one thread sums

// Column d of the sums of one piece. A run of equal indices that lies inside goes to the result,
// the others to border[piece][0] (it began before) or border[piece][1] (it begins here and goes
// on).
template <typename T>
struct SumPieces {
  using Wide = typename Accumulator<T>::type;
  const T* grad;
  const T* factors;  // or null
  const uint64_t* pairs;
  Wide* border;
  T* out;
  int64_t count, width;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t piece = i / width;
    const int64_t d = i % width;
    const int64_t begin = piece * kPiece;
    const int64_t end = min(begin + kPiece, count);
    // A thread sums one column over kPiece sorted positions. A run that crosses a border of the
    // piece leaves its part in `border`; JoinPieces adds those.
    bool began_before = begin > 0 && key_of(pairs[begin - 1]) == key_of(pairs[begin]);
    Wide sum = 0;
    for (int64_t at = begin; at < end; ++at) {
      const uint64_t pair = pairs[at];
      if (pair == kNoPair) return;
      const int64_t position = position_of(pair);
      const Wide value = widen(grad[position * width + d]);
      sum += factors == nullptr ? value : static_cast<Wide>(widen(factors[position])) * value;
      const bool goes_on = at + 1 < count && key_of(pairs[at + 1]) == key_of(pair);
      if (goes_on && at + 1 < end) continue;
      if (began_before || goes_on) {
        border[(piece * 2 + (began_before ? 0 : 1)) * width + d] = sum;
      } else {
        out[key_of(pair) * width + d] = narrow<T>(sum);
      }
      began_before = false;
      sum = 0;
    }
  }
};

// The runs that go over borders, each by the piece it begins in.
template <typename T>
struct JoinPieces {
  using Wide = typename Accumulator<T>::type;
  const uint64_t* pairs;
  const Wide* border;
  T* out;
  int64_t count, width;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t piece = i / width;
    const int64_t d = i % width;
    const int64_t begin = piece * kPiece;
    const int64_t last = begin + kPiece - 1;
    if (last + 1 >= count || pairs[last] == kNoPair) return;
    const int64_t index = key_of(pairs[last]);
    if (key_of(pairs[last + 1]) != index) return;
    if (begin > 0 && key_of(pairs[begin - 1]) == index) return;  // it began before this piece
    Wide sum = border[(piece * 2 + 1) * width + d];
    for (int64_t next = piece + 1; next * kPiece < count && key_of(pairs[next * kPiece]) == index;
         ++next) {
      sum += border[next * 2 * width + d];
    }
    out[index * width + d] = narrow<T>(sum);
  }
};

template <typename T>
void grad(const Call& call, const T* factors) {
  using Wide = typename Accumulator<T>::type;
  const Tensor& result = call.outputs[0];
  const int64_t count = call.inputs[1].size();
  const int64_t rows = result.shape[0];
  const int64_t width = result.shape[1];
  clear(call.context, result.data<T>(), result.size());
  if (count == 0 || width == 0) return;
  if (count > 0x7fffffff || rows > 0x7fffffff) fail("more than 2^31 indices or rows; split them");
  // Sort, sum the pieces, join what crosses their borders.
  const int64_t padded = padded_pairs(count);
  const ScratchArray<uint64_t> pairs(call.context, padded);
  for_each_index(call.context, padded,
                 MakePairs{call.inputs[1].data<int64_t>(), pairs.get(), count, rows,
                           call.attributes.integer("padding_idx")});
  sort_pairs(call.context, pairs.get(), padded);
  const int64_t pieces = divide_up(count, kPiece);
  const ScratchArray<Wide> border(call.context, pieces * 2 * width);
  T* const out = result.data<T>();
  for_each_index(call.context, pieces * width,
                 SumPieces<T>{call.inputs[0].data<T>(), factors, pairs.get(), border.get(), out,
                              count, width});
  for_each_index(call.context, pieces * width,
                 JoinPieces<T>{pairs.get(), border.get(), out, count, width});
}

}  // namespace

void lookup_table(const Call& call) {
  dispatch(call.type, [&](auto zero) { lookup<decltype(zero)>(call, nullptr); });
}

void lookup_table_grad(const Call& call) {
  dispatch(call.type, [&](auto zero) { grad<decltype(zero)>(call, nullptr); });
}

void weighted_lookup_table(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    lookup<T>(call, call.inputs[2].data<T>());
  });
}

void weighted_lookup_table_grad(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    grad<T>(call, call.inputs[2].data<T>());
  });
}

}  // namespace graphscale::cuda
