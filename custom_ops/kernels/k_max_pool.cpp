// Dynamic k-max pooling over time (fbcunn TemporalKMaxPooling; Kalchbrenner et al. 2014): of every
// feature the k largest values, in their original order.
//
// Cost: expected T operations per feature to select, k log k to put in order.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/operator.h"

namespace graphscale {
namespace {

// max(k, ceil(k_dynamic T)); a ten-thousandth of a frame is a rounding error, not a frame.
int64_t kept_frames(const Attributes& attributes, int64_t frames) {
  const int64_t k = attributes.bounded("k", 1);
  const double share = attributes.number("k_dynamic");
  if (!(share >= 0 && share <= 1)) {
    fail("k_dynamic is " + std::to_string(share) + "; it must be between 0 and 1");
  }
  const int64_t kept =
      std::max(k, static_cast<int64_t>(std::ceil(share * static_cast<double>(frames) - 1e-4)));
  if (kept > frames) {
    fail("x has " + std::to_string(frames) + " frames; " + std::to_string(kept) +
         " of them cannot be kept");
  }
  return kept;
}

template <typename T>
void k_max(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Shape& shape = call.inputs[0].shape;
  const int64_t frames = shape[1];
  const int64_t features = shape[2];
  const int64_t kept = call.outputs[0].shape[1];
  const T* const x = call.inputs[0].data<T>();
  T* const y = call.outputs[0].data<T>();
  int64_t* const index = call.outputs[1].data<int64_t>();
  const int64_t grain = std::max<int64_t>(1, (1 << 12) / std::max<int64_t>(frames, 1));
  parallel_ranges(call.context, shape[0] * features, grain, [&](int64_t begin, int64_t end) {
    const ScratchArray<Wide> values(call.context, frames);
    const ScratchArray<int64_t> order(call.context, frames);
    for (int64_t column = begin; column < end; ++column) {
      const int64_t sample = column / features;
      const int64_t feature = column % features;
      const T* const from = x + sample * frames * features + feature;
      for (int64_t t = 0; t < frames; ++t) values[t] = static_cast<Wide>(from[t * features]);
      std::iota(order.get(), order.get() + frames, int64_t{0});
      // Not-a-number counts as the largest value, as in torch.topk; the first one of equals is kept.
      const auto larger = [&](int64_t left, int64_t right) {
        const Wide a = values[left];
        const Wide b = values[right];
        if (std::isnan(a) != std::isnan(b)) return std::isnan(a);
        return a > b || (!(b > a) && left < right);
      };
      std::nth_element(order.get(), order.get() + kept - 1, order.get() + frames, larger);
      std::sort(order.get(), order.get() + kept);
      const int64_t to = sample * kept * features + feature;
      for (int64_t i = 0; i < kept; ++i) {
        y[to + i * features] = from[order[i] * features];
        index[to + i * features] = order[i];
      }
    }
  });
}

}  // namespace

Operator temporal_k_max_pool() {
  return Operator("TemporalKMaxPool",
                  "Of every feature the k largest values over time, in their original order.")
      .input("x", "Sequences [N, T, D].")
      .output("y", "[N, max(k, ceil(k_dynamic T)), D].")
      .output("index", Type::kInt64, "The frame of each value; the first one of equals.")
      .required_attribute("k", int64_t{0}, "How many frames are kept at least.")
      .attribute("k_dynamic", 0.0, "Share of the frames that are kept at least, from 0 to 1.")
      .shape([](ShapeCall& call) {
        call.require_rank(0, 3);
        const Dims& x = call.inputs[0];
        const Dim kept = compute_dim(
            [&](int64_t frames) { return kept_frames(call.attributes, frames); }, x[1]);
        call.outputs[0] = call.outputs[1] = {x[0], kept, x[2]};
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { k_max<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
