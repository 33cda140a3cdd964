// Shared by the operators of the two-level softmax (fbcunn HSM): classes are rows of one weight,
// stored cluster after cluster, and log p(class) = log p(cluster) + log p(class | cluster).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vector_loops.h"
#include "kernels/cpu/widen.h"

namespace graphscale::hierarchical_softmax {

// Positions of the inputs that all operators have, relative to the first of them, cluster_weight.
enum Parameters : size_t { kClusterWeight, kClusterBias, kWeight, kBias, kMap, kClusterStart };

// Adds these inputs to an operator: weights and biases (trainable in a layer, not in its gradient),
// then `map`, which is class_row or row_class, then cluster_start.
enum class Trainable { kYes, kNo };
Operator&& with_parameters(Operator&& op, const std::string& map, const std::string& meaning,
                           Trainable trainable = Trainable::kYes);

// Checks their shapes; `first` is the position of cluster_weight, `x` that of x.
void require_parameters(ShapeCall& call, size_t x, size_t first);

// The tree and its sizes.
struct Tree {
  int64_t clusters, classes, width;
  const int64_t* start;  // of each cluster, and the end of the last

  Tree(const Call& call, size_t first);  // checks the starts
  int64_t size(int64_t cluster) const { return start[cluster + 1] - start[cluster]; }
  int64_t cluster_of_row(int64_t row) const {
    return std::upper_bound(start, start + clusters + 1, row) - start - 1;
  }
};

// `count` rows of a tensor of T from `first` on; 16-bit types are widened into `room`.
template <typename T>
const typename Accumulator<T>::type* wide_rows(const Tensor& tensor, int64_t first, int64_t count,
                                               int64_t width,
                                               ScratchArray<typename Accumulator<T>::type>& room) {
  using Wide = typename Accumulator<T>::type;
  const T* const from = tensor.data<T>() + first * width;
  if constexpr (std::is_same_v<T, Wide>) {
    return from;
  } else {
    for (int64_t i = 0; i < count * width; ++i) room[i] = static_cast<Wide>(from[i]);
    return room.get();
  }
}

// Scratch for wide_rows of at most `count` rows; none where T needs no widening.
template <typename T>
ScratchArray<typename Accumulator<T>::type> room_for_rows(const Context& context, int64_t count,
                                                          int64_t width) {
  using Wide = typename Accumulator<T>::type;
  return ScratchArray<Wide>(context, std::is_same_v<T, Wide> ? 0 : count * width);
}

// logits[samples, outputs] = x weight' + bias.
template <typename T, typename Wide>
void logits(const Context& context, int64_t samples, int64_t outputs, int64_t width, const Wide* x,
            const Wide* weight, const T* bias, Wide* result) {
  for (int64_t n = 0; n < samples; ++n) {
    for (int64_t k = 0; k < outputs; ++k) result[n * outputs + k] = static_cast<Wide>(bias[k]);
  }
  matmul<Wide>(context, samples, outputs, width, {x, width, 1}, {weight, 1, width}, result, outputs,
               true);
}

// log of the sum of exp.
template <typename Wide>
Wide log_sum_exp(const Wide* values, int64_t count) {
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  const Wide largest = loops.maximum(count, values);
  if (std::isinf(largest)) return largest;
  return largest + std::log(loops.exponentials(count, values, largest, nullptr));
}

// Samples of a cluster that are computed at once, which bounds the memory of their logits.
inline int64_t samples_at_once(int64_t cluster_size) {
  return std::max<int64_t>(1, (int64_t{1} << 18) / std::max<int64_t>(cluster_size, 1));
}

}  // namespace graphscale::hierarchical_softmax
