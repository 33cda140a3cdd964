// Shared by the CUDA kernels of the two-level softmax: the tree and its checks, and the samples in
// the order of their targets' clusters. The host reads nothing back: numbers that depend on the
// data are in tables that earlier kernels wrote. Where the CPU kernels raise an error (a target
// that is no class, a cluster_start that does not rise), results are not-a-number and gradients 0,
// and no memory outside of the tensors is accessed.
#pragma once

#include "kernels/cpu/hierarchical_softmax.h"
#include "kernels/cuda/product_tile.h"
#include "kernels/cuda/sort_pairs.h"

namespace graphscale::cuda {

using hierarchical_softmax::kBias;
using hierarchical_softmax::kClusterBias;
using hierarchical_softmax::kClusterStart;
using hierarchical_softmax::kClusterWeight;
using hierarchical_softmax::kMap;
using hierarchical_softmax::kWeight;

// Softmaxes over neighbouring rows of a weight.
struct Groups {
  const int64_t* start;  // [count + 1]; null: one group of all rows
  int64_t count, rows;

  GRAPHSCALE_DEVICE int64_t first_row(int64_t group) const {
    return start == nullptr ? 0 : max<int64_t>(0, min(start[group], rows));
  }
  GRAPHSCALE_DEVICE int64_t size(int64_t group) const {
    return start == nullptr ? rows : max<int64_t>(0, first_row(group + 1) - first_row(group));
  }
};

inline Groups cluster_groups(const Tensor* parameters) {
  return {parameters[kClusterStart].data<int64_t>(), parameters[kClusterWeight].shape[0],
          parameters[kWeight].shape[0]};
}

// The last of `count` rising values that is at most `value`.
GRAPHSCALE_DEVICE int64_t last_at_most(const int64_t* values, int64_t count, int64_t value) {
  int64_t low = 0;
  while (count > 1) {
    const int64_t half = count / 2;
    if (values[low + half] <= value) low += half;
    count -= half;
  }
  return low;
}

// *broken: whether start does not rise from 0 to all rows. One block.
struct CheckStart {
  static constexpr int kThreads = 256;
  static constexpr size_t kSharedBytes = kThreads / kWarp * sizeof(int);
  Groups clusters;
  int* broken;
  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    int wrong = clusters.start[0] != 0 || clusters.start[clusters.count] != clusters.rows ? 1 : 0;
    for (int64_t k = block.thread(); k < clusters.count; k += kThreads) {
      if (clusters.start[k] > clusters.start[k + 1]) wrong = 1;
    }
    wrong = max_over_block<kThreads>(block, wrong, block.shared<int>());
    if (block.thread() == 0) *broken = wrong;
  }
};

inline void check_start(const Context& context, const Groups& clusters, int* broken) {
  launch_blocks(context, 1, CheckStart::kSharedBytes, CheckStart{clusters, broken});
}

// Sets all results to value where *broken, with enough threads to fill the GPU.
template <typename T>
struct FillIfBroken {
  static constexpr int64_t kThreads = 1 << 16;
  const int* broken;
  T* result;
  int64_t count;
  T value;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    if (*broken == 0) return;
    for (; i < count; i += kThreads) result[i] = value;
  }
};

template <typename T>
void fill_if_broken(const Context& context, const int* broken, const Tensor& result, T value) {
  const int64_t count = result.size();
  for_each_index(context, std::min(count, FillIfBroken<T>::kThreads),
                 FillIfBroken<T>{broken, result.data<T>(), count, value});
}

template <typename T>
void nan_if_broken(const Context& context, const int* broken, const Tensor& result) {
  using Wide = typename Accumulator<T>::type;
  fill_if_broken(context, broken, result, narrow<T>(std::numeric_limits<Wide>::quiet_NaN()));
}

// visit(row, sample, logit) for up to 64 rows of a weight and 64 samples; input(sample) is its row
// of x.
template <typename Product, typename T, typename Input, typename Visit>
GRAPHSCALE_DEVICE void for_each_logit(const Block& block, typename Accumulator<T>::type* room,
                                      int64_t rows, int64_t samples, int64_t width, const T* weight,
                                      const T* bias, const Input& input, const Visit& visit) {
  using Wide = typename Accumulator<T>::type;
  typename Product::Sums sums;
  Product::template multiply<Along::kDepth, Along::kDepth>(
      block, room, rows, samples, width,
      [&](int r, int64_t k) { return widen(weight[r * width + k]); },
      [&](int j, int64_t k) { return widen(input(j)[k]); }, sums);
  Product::for_each(block.thread(), rows, samples, sums,
                    [&](int r, int j, Wide sum) { visit(r, j, sum + widen(bias[r])); });
}

// The sum of exp of values that come in pieces, as a factor of exp(largest), which cannot overflow.
template <typename Wide>
struct RunningSumExp {
  Wide largest = -std::numeric_limits<Wide>::infinity();
  Wide sum = 0;

  // Before the values of a piece are added: the largest of them and of all before.
  GRAPHSCALE_DEVICE void raise(Wide value) {
    if (value > largest) sum *= std::exp(largest - value);
    largest = value;
  }
  GRAPHSCALE_DEVICE void add(Wide value) { sum += std::exp(value - largest); }
};

// The sum of the values of this thread and those before it; `room`: kThreads values.
template <int kThreads, typename Block>
GRAPHSCALE_DEVICE int64_t running_sum(const Block& block, int64_t value, int64_t* room) {
  // log2(kThreads) rounds: each adds the sum of the `distance` values before.
  for (int distance = 1; distance < kThreads; distance *= 2) {
    block.sync();
    room[block.thread()] = value;
    block.sync();
    if (block.thread() >= distance) value += room[block.thread() - distance];
  }
  block.sync();
  room[block.thread()] = value;  // the caller finds the whole sum in the last one
  block.sync();
  return value;
}

// A sample's row of `weight`, where it has none:
constexpr int64_t kLeftOut = -1;
constexpr int64_t kNoClass = -2;

struct FindTargets {
  const int64_t* target;
  const int64_t* class_row;
  const int* broken;
  Groups clusters;
  uint64_t* pairs;  // (cluster, sample)
  int64_t* row;
  int64_t samples, ignored;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    pairs[i] = kNoPair;
    if (i >= samples) return;
    const int64_t wanted = target[i];
    row[i] = wanted == ignored ? kLeftOut : kNoClass;
    if (wanted == ignored || wanted < 0 || wanted >= clusters.rows || *broken != 0) return;
    const int64_t at = class_row[wanted];
    if (at < 0 || at >= clusters.rows) return;
    row[i] = at;
    pairs[i] = make_pair(last_at_most(clusters.start, clusters.count + 1, at), i);
  }
};

// first[g]: how many samples belong to the clusters before g.
struct CountSamples {
  const uint64_t* pairs;
  int64_t padded;
  int64_t* first;
  GRAPHSCALE_DEVICE void operator()(int64_t g) const {
    // Binary search for the first pair of cluster g or later.
    int64_t low = 0;
    int64_t high = padded;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (pairs[middle] < make_pair(g, 0)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    first[g] = low;
  }
};

// Tables of a softmax over groups; each has one entry per group and one more with the whole count.
struct Tables {
  int64_t* first_sample;  // in the order of the samples
  int64_t* sample_tiles;  // how many tiles the samples of the groups before have
  int64_t* row_tiles;     // likewise the rows, of groups that have samples
};

constexpr int64_t kTile = 64;  // samples or rows that a block takes at once

// One block.
struct CountTiles {
  static constexpr int kThreads = 512;
  static constexpr size_t kSharedBytes = kThreads * sizeof(int64_t);
  Groups groups;
  Tables tables;
  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    int64_t* const room = block.shared<int64_t>();
    int64_t samples_before = 0;
    int64_t rows_before = 0;
    // kThreads groups at a time; running sums give each group the place of its first tile.
    for (int64_t begin = 0; begin < groups.count; begin += kThreads) {
      const int64_t g = begin + block.thread();
      const bool inside = g < groups.count;
      const int64_t count =
          inside ? tables.first_sample[g + 1] - tables.first_sample[g] : int64_t{0};
      const int64_t samples = divide_up(count, kTile);
      const int64_t rows = count > 0 ? divide_up(groups.size(g), kTile) : 0;
      const int64_t to_samples = running_sum<kThreads>(block, samples, room);
      if (inside) tables.sample_tiles[g] = samples_before + to_samples - samples;
      samples_before += room[kThreads - 1];
      const int64_t to_rows = running_sum<kThreads>(block, rows, room);
      if (inside) tables.row_tiles[g] = rows_before + to_rows - rows;
      rows_before += room[kThreads - 1];
    }
    if (block.thread() != 0) return;
    tables.sample_tiles[groups.count] = samples_before;
    tables.row_tiles[groups.count] = rows_before;
  }
};

// The one group of the softmax over clusters has all samples that the clusters have.
struct CountAll {
  Tables from, to;
  int64_t clusters;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    to.first_sample[i] = i == 0 ? 0 : from.first_sample[clusters];
  }
};

// The targets of a call, sorted by cluster: samples that count come first.
class Targets {
 public:
  Targets(const Call& call, const Tensor& target, const Tensor* parameters)
      : samples(target.size()),
        clusters(cluster_groups(parameters)),
        whole{nullptr, 1, clusters.count},
        padded_(padded_pairs(samples)),
        pairs_(call.context, padded_),
        row_(call.context, samples),
        broken_(call.context, 1),
        tables_(call.context, 3 * (clusters.count + 1) + 6) {
    if (samples > 0x7fffffff || clusters.count > 0x7fffffff) {
      fail("more than 2^31 samples or clusters; split the batch");
    }
    const Context& context = call.context;
    check_start(context, clusters, broken_.get());
    // Pairs (cluster, sample), sorted: the samples of a cluster are neighbours, those that do not
    // count come last.
    for_each_index(context, padded_,
                   FindTargets{target.data<int64_t>(), parameters[kMap].data<int64_t>(),
                               broken_.get(), clusters, pairs_.get(), row_.get(), samples,
                               call.attributes.integer("ignore_index")});
    sort_pairs(context, pairs_.get(), padded_);
    const Tables inner = of_classes();
    const Tables outer = of_clusters();
    for_each_index(context, clusters.count + 1,
                   CountSamples{pairs_.get(), padded_, inner.first_sample});
    for_each_index(context, 2, CountAll{inner, outer, clusters.count});
    launch_blocks(context, 1, CountTiles::kSharedBytes, CountTiles{clusters, inner});
    launch_blocks(context, 1, CountTiles::kSharedBytes, CountTiles{whole, outer});
  }

  const uint64_t* pairs() const { return pairs_.get(); }
  const int64_t* row() const { return row_.get(); }
  Tables of_classes() const { return split(tables_.get() + 6, clusters.count + 1); }
  Tables of_clusters() const { return split(tables_.get(), 2); }

  const int64_t samples;
  const Groups clusters;  // softmaxes over the classes of each cluster
  const Groups whole;     // the softmax over clusters

 private:
  static Tables split(int64_t* from, int64_t count) {
    return {from, from + count, from + 2 * count};
  }

  int64_t padded_;
  ScratchArray<uint64_t> pairs_;
  ScratchArray<int64_t> row_;
  ScratchArray<int> broken_;
  ScratchArray<int64_t> tables_;
};

}  // namespace graphscale::cuda
