// Dynamic k-max pooling over time (fbcunn TemporalKMaxPooling; Kalchbrenner et al. 2014): of every
// feature the k largest values, in their original order.
//
// As many features as a vector has elements are searched together, for the k-th largest value, bit
// by bit: for any k this takes 32 comparisons of each number (64 in double). For a small k a bound
// excludes most numbers before. Cost: about 32 N T D comparisons in float; x is read once, y and
// the index [N, k, D] are written once.
#include <algorithm>
#include <cmath>

#include "core/operator.h"
#include "kernels/cpu/vector_loops.h"

namespace graphscale {
namespace {

// max(k, ceil(k_dynamic T)); 1e-4 is subtracted so that rounding errors add no frame.
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
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  const int64_t lanes = loops.lanes;
  const int64_t across = (features + lanes - 1) / lanes;
  const int64_t grain = std::max<int64_t>(1, (1 << 10) / std::max<int64_t>(frames * lanes, 1));
  parallel_ranges(call.context, shape[0] * across, grain, [&](int64_t begin, int64_t end) {
    // Per worker: [frames, lanes] of values and of their keys; what the lanes beyond the last
    // feature hold is not read.
    const ScratchArray<Wide> values(call.context, frames * lanes);
    const ScratchArray<typename VectorLoops<Wide>::Key> keys(call.context, frames * lanes);
    const ScratchArray<int64_t> row_of(call.context, frames);
    const ScratchArray<int64_t> places(call.context, kept * lanes);
    std::fill_n(values.get(), frames * lanes, Wide(0));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t sample = task / across;
      const int64_t feature = task % across * lanes;
      const int64_t width = std::min(lanes, features - feature);
      const T* const from = x + sample * frames * features + feature;
      // One vector of features is copied out of rows `features` apart, searched, and its places
      // looked up.
      for (int64_t t = 0; t < frames; ++t) {
        for (int64_t l = 0; l < width; ++l) {
          values[t * lanes + l] = static_cast<Wide>(from[t * features + l]);
        }
      }
      loops.select_largest(frames, kept, values.get(), keys.get(), row_of.get(), places.get());
      for (int64_t i = 0; i < kept; ++i) {
        const int64_t to = (sample * kept + i) * features + feature;
        for (int64_t l = 0; l < width; ++l) {
          const int64_t place = places[i * lanes + l];
          index[to + l] = place;
          y[to + l] = from[place * features + l];
        }
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
        const Dim kept =
            compute_dim([&](int64_t frames) { return kept_frames(call.attributes, frames); }, x[1]);
        call.outputs[0] = call.outputs[1] = {x[0], kept, x[2]};
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { k_max<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
