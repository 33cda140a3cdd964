// One-bit quantisation on CUDA: see kernels/cpu/one_bit.cpp for what it computes.
//
// One block per row, two passes over it: the first makes the words (a warp's ballot is one word)
// and sums both sides, the second writes the residual. Cost: the bytes of gradient and residual,
// twice.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace graphscale::cuda {
namespace {

template <typename T>
struct Quantize {
  static constexpr int kThreads = 256;
  static constexpr size_t kSharedBytes = kThreads / kWarp * sizeof(double);
  using Wide = typename Accumulator<T>::type;
  const T* gradient;
  const T* residual;
  uint32_t* words;
  T* scales;
  T* left;
  int64_t columns;

  GRAPHSCALE_DEVICE Wide value(int64_t at) const {
    return static_cast<Wide>(widen(gradient[at])) + static_cast<Wide>(widen(residual[at]));
  }

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    double* const room = block.shared<double>();
    const int64_t row = block.index();
    const int64_t row_words = divide_up(columns, kWarp);
    double above = 0;
    double below = 0;
    int set = 0;  // counted once per warp
    // First pass: 32 columns are one warp and one word; sums are kept per thread and added up
    // behind the loop.
    for (int64_t begin = 0; begin < columns; begin += kThreads) {
      const int64_t i = begin + block.thread();
      const bool inside = i < columns;
      const Wide v = inside ? value(row * columns + i) : Wide(0);
      const bool bit = inside && v >= 0;
      const uint32_t word = block.ballot(bit);
      (bit ? above : below) += static_cast<double>(v);
      if (block.thread() % kWarp == 0 && inside) {
        words[row * row_words + i / kWarp] = word;
        set += count_bits(word);
      }
    }
    above = sum_over_block<kThreads>(block, above, room);
    below = sum_over_block<kThreads>(block, below, room);
    const double count = sum_over_block<kThreads>(block, static_cast<double>(set), room);
    const double rest = static_cast<double>(columns) - count;
    const T mean_above = narrow<T>(static_cast<Wide>(count > 0 ? above / count : 0));
    const T mean_below = narrow<T>(static_cast<Wide>(rest > 0 ? below / rest : 0));
    if (block.thread() == 0) {
      scales[row * 2] = mean_above;
      scales[row * 2 + 1] = mean_below;
    }
    // Second pass: the residual, from gradient and residual once more (they come from the cache
    // where a row fits).
    for (int64_t i = block.thread(); i < columns; i += kThreads) {
      const Wide v = value(row * columns + i);
      left[row * columns + i] =
          narrow<T>(v - static_cast<Wide>(widen(v >= 0 ? mean_above : mean_below)));
    }
  }
};

template <typename T>
struct Dequantize {
  const uint32_t* words;
  const T* scales;
  T* out;
  int64_t columns;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t row = i / columns;
    const int64_t column = i % columns;
    const uint32_t word = words[row * divide_up(columns, kWarp) + column / kWarp];
    out[i] = scales[row * 2 + ((word >> (column % kWarp) & 1u) != 0 ? 0 : 1)];
  }
};

}  // namespace

void one_bit_quantize(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    launch_blocks(call.context, call.inputs[0].shape[0], Quantize<T>::kSharedBytes,
                  Quantize<T>{call.inputs[0].data<T>(), call.inputs[1].data<T>(),
                              call.outputs[0].data<uint32_t>(), call.outputs[1].data<T>(),
                              call.outputs[2].data<T>(), call.inputs[0].shape[1]});
  });
}

void one_bit_dequantize(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(call.context, call.outputs[0].size(),
                   Dequantize<T>{call.inputs[0].data<uint32_t>(), call.inputs[1].data<T>(),
                                 call.outputs[0].data<T>(), call.outputs[0].shape[1]});
  });
}

}  // namespace graphscale::cuda
