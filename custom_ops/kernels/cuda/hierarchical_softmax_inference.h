// The log-probabilities of the clusters on CUDA, shared by those of all classes and of the k best.
#pragma once

#include "kernels/cuda/hierarchical_softmax.h"

namespace graphscale::cuda {

constexpr size_t kFirstParameter = 1;  // position of cluster_weight, after x
constexpr int64_t kScratchBytes = int64_t{1} << 28;

// How many samples' rows of scratch there may be at once.
inline int64_t samples_at_once(int64_t samples, int64_t row_bytes) {
  const int64_t fitting = kScratchBytes / std::max<int64_t>(1, row_bytes);
  const int64_t tiles = fitting / kTile * kTile;
  return std::max<int64_t>(1, std::min(samples, tiles > 0 ? tiles : fitting));
}

// result[samples, rows] <- x weight' + bias.
template <typename T, bool kSplit>
struct Logits {
  using Wide = typename Accumulator<T>::type;
  using Product = ProductTile<Wide, kSplit>;
  static constexpr int kThreads = Product::kThreads;
  const T* x;
  const T* weight;
  const T* bias;
  Wide* result;
  int64_t samples, rows, width;

  int64_t blocks() const { return divide_up(samples, kTile) * divide_up(rows, kTile); }

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int64_t sample_tiles = divide_up(samples, kTile);  // neighbours share rows of weight
    const int64_t first = block.index() % sample_tiles * kTile;
    const int64_t row0 = block.index() / sample_tiles * kTile;
    for_each_logit<Product>(
        block, block.shared<Wide>(), min(kTile, rows - row0), min(kTile, samples - first), width,
        weight + row0 * width, bias + row0, [&](int j) { return x + (first + j) * width; },
        [&](int r, int j, Wide value) { result[(first + j) * rows + row0 + r] = value; });
  }
};

template <typename T>
void make_logits(const Context& context, const T* x, int64_t samples, const Tensor& weight,
                 const Tensor& bias, typename Accumulator<T>::type* result) {
  with_accuracy<T>([&](auto split) {
    using Body = Logits<T, decltype(split)::value>;
    const Body body{x,       weight.data<T>(), bias.data<T>(), result,
                    samples, weight.shape[0],  weight.shape[1]};
    launch_blocks(context, body.blocks(), Body::Product::kRoom * sizeof(typename Body::Wide), body);
  });
}

// result[sample, column of each row] <- outer + log softmax(logits) within each group. One block
// per sample and group.
template <typename Out, int kBlockThreads>
struct Normalize {
  using Wide = typename Accumulator<Out>::type;
  static constexpr int kThreads = kBlockThreads;
  static constexpr size_t kSharedBytes = kThreads / kWarp * sizeof(Wide);
  const Wide* logits;
  const Wide* outer;      // [samples, groups], or null: 0
  const int64_t* column;  // or null: the row itself
  Groups groups;
  Out* result;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    Wide* const room = block.shared<Wide>();
    const int64_t sample = block.index() / groups.count;
    const int64_t group = block.index() % groups.count;
    const int64_t size = groups.size(group);
    const int64_t first = groups.first_row(group);
    const Wide* const from = logits + sample * groups.rows + first;
    // Three rounds over the logits of a group: maximum, sum of exp, result; they come from the
    // cache.
    Wide largest = -std::numeric_limits<Wide>::infinity();
    for (int64_t i = block.thread(); i < size; i += kThreads) largest = max(largest, from[i]);
    largest = max_over_block<kThreads>(block, largest, room);
    Wide sum = 0;
    for (int64_t i = block.thread(); i < size; i += kThreads) sum += std::exp(from[i] - largest);
    sum = sum_over_block<kThreads>(block, sum, room);
    const Wide total = largest + std::log(sum);
    const Wide shift = outer == nullptr ? Wide(0) : outer[block.index()];
    for (int64_t i = block.thread(); i < size; i += kThreads) {
      const int64_t at = column == nullptr ? first + i : column[first + i];
      if (at < 0 || at >= groups.rows) continue;
      result[sample * groups.rows + at] = narrow<Out>(shift + (from[i] - total));
    }
  }
};

template <typename Out>
void normalize(const Context& context, int64_t samples, const typename Accumulator<Out>::type* from,
               const typename Accumulator<Out>::type* outer, const int64_t* column,
               const Groups& groups, Out* result) {
  const auto launch = [&](const auto& body) {
    launch_blocks(context, samples * groups.count, body.kSharedBytes, body);
  };
  if (groups.rows / std::max<int64_t>(1, groups.count) < 256) {
    launch(Normalize<Out, 32>{from, outer, column, groups, result});
  } else {
    launch(Normalize<Out, 256>{from, outer, column, groups, result});
  }
}

// The first steps of both operators: the tree, its check and the clusters' log-probabilities.
template <typename T>
struct Inference {
  using Wide = typename Accumulator<T>::type;
  const Tensor* parameters;
  const T* x;
  int64_t samples, width;
  Groups clusters;
  const int64_t* row_class;
  ScratchArray<int> broken;
  ScratchArray<Wide> outer;

  explicit Inference(const Call& call)
      : parameters(&call.inputs[kFirstParameter]),
        x(call.inputs[0].data<T>()),
        samples(call.inputs[0].shape[0]),
        width(call.inputs[0].shape[1]),
        clusters(cluster_groups(parameters)),
        row_class(parameters[kMap].data<int64_t>()),
        broken(call.context, 1),
        outer(call.context, samples * clusters.count) {
    check_start(call.context, clusters, broken.get());
    make_logits(call.context, x, samples, parameters[kClusterWeight], parameters[kClusterBias],
                outer.get());
    normalize<Wide>(call.context, samples, outer.get(), nullptr, nullptr,
                    Groups{nullptr, 1, clusters.count}, outer.get());
  }
};

}  // namespace graphscale::cuda
