// The two softmaxes of a loss, over clusters and over the classes of each cluster, in one form: a
// softmax over groups of rows of a weight, for the samples whose targets are in the group. The
// first has one group and all samples. A block takes 64 x 64 logits at once into shared memory,
// where they become errors and go into the next product: neither logits nor errors are ever
// written, so memory is bounded by N D and not by N V, whatever the clusters' sizes, which the host
// does not know.
#pragma once

#include "kernels/cuda/hierarchical_softmax.h"

namespace graphscale::cuda {

constexpr int64_t kBlocks = 396;  // three for each multiprocessor of the largest GPU
constexpr int64_t kMaxSplits = 16;

// A softmax over groups of rows and the samples that take part.
template <typename T>
struct Level {
  Groups groups;
  Tables tables;
  const T* weight;
  const T* bias;
  const T* x;
  const uint64_t* pairs;
  const int64_t* row;  // of weight, by sample: for the classes
  int64_t samples, width;

  // Which row of its group's softmax is the target of a pair.
  GRAPHSCALE_DEVICE int64_t target(uint64_t pair) const {
    if (groups.start == nullptr) return key_of(pair);
    return row[position_of(pair)] - groups.first_row(key_of(pair));
  }
};

// The shared memory of a block: up to 64 rows of one group's softmax for up to 64 samples.
template <typename T, bool kSplit>
struct LogitTile {
  using Wide = typename Accumulator<T>::type;
  using Product = ProductTile<Wide, kSplit>;
  static constexpr int kThreads = Product::kThreads;
  static constexpr int kSize = Product::kSize;
  static constexpr int kPitch = kSize + 1;
  static_assert(kSize == kTile && kThreads == 2 * kSize);

  int64_t sample[kSize];
  int64_t target[kSize];
  Wide total[kSize];   // log of the sum of exp
  Wide factor[kSize];  // gradient to the loss
  Wide values[kSize * kPitch];
  Wide room[Product::kRoom];

  // The samples at positions [first, first + count) of the order, and what their errors need.
  GRAPHSCALE_DEVICE void load_samples(const Block& block, const Level<T>& level, int64_t first,
                                      int64_t count, const T* grad, const Wide* totals) {
    block.sync();
    if (block.thread() < count) {
      const int j = block.thread();
      const uint64_t pair = level.pairs[first + j];
      sample[j] = position_of(pair);
      target[j] = level.target(pair);
      if (grad != nullptr) {
        factor[j] = widen(grad[sample[j]]);
        total[j] = totals[first + j];
      }
    }
    block.sync();
  }

  // values <- logits of `rows` rows from `row0` on of weight.
  GRAPHSCALE_DEVICE void make_logits(const Block& block, const Level<T>& level, int64_t row0,
                                     int64_t rows, int64_t count) {
    for_each_logit<Product>(
        block, room, rows, count, level.width, level.weight + row0 * level.width, level.bias + row0,
        [&](int j) { return level.x + sample[j] * level.width; },
        [&](int r, int j, Wide value) { values[r * kPitch + j] = value; });
    block.sync();
  }

  // Calls visit(row, sample, value) for all values of this thread: half the rows of one sample.
  template <typename Visit>
  GRAPHSCALE_DEVICE void for_each(const Block& block, int64_t rows, int64_t count,
                                  const Visit& visit) {
    // A thread has half the rows of one sample: neighbouring threads read neighbouring banks.
    const int j = block.thread() % kSize;
    if (j >= count) return;
    const int64_t end = min<int64_t>(rows, (block.thread() / kSize + 1) * (kSize / 2));
    for (int64_t r = block.thread() / kSize * (kSize / 2); r < end; ++r) {
      visit(r, j, values[r * kPitch + j]);
    }
  }

  // values <- factor * (softmax - onehot), row 0 being row `at` of the group.
  GRAPHSCALE_DEVICE void make_errors(const Block& block, const Level<T>& level, int64_t group,
                                     int64_t at, int64_t rows, int64_t count) {
    make_logits(block, level, level.groups.first_row(group) + at, rows, count);
    for_each(block, rows, count, [&](int64_t r, int j, Wide& value) {
      value = factor[j] * (std::exp(value - total[j]) - (at + r == target[j] ? Wide(1) : Wide(0)));
    });
    block.sync();
  }
};

// Which samples and rows a block has.
struct Part {
  int64_t group = 0;
  int64_t first = 0;  // sample, in the order
  int64_t count = 0;  // of samples; 0: there is nothing to do
  int64_t begin = 0;  // tile of the group's rows
  int64_t end = 0;

  template <typename T>
  GRAPHSCALE_DEVICE static Part of_samples(const Level<T>& level, int64_t tile, int64_t split,
                                           int64_t splits) {
    const Groups& groups = level.groups;
    const int64_t* const tiles = level.tables.sample_tiles;
    if (tile >= tiles[groups.count]) return Part();
    Part part;
    part.group = last_at_most(tiles, groups.count + 1, tile);
    const int64_t* const samples = level.tables.first_sample + part.group;
    part.first = samples[0] + (tile - tiles[part.group]) * kTile;
    part.count = min(kTile, samples[1] - part.first);
    const int64_t row_tiles = divide_up(groups.size(part.group), kTile);
    part.begin = row_tiles * split / splits;
    part.end = row_tiles * (split + 1) / splits;
    return part;
  }
};

// log of the sum of exp over a part of the rows: totals[split][position], and the target's logit.
template <typename T, bool kSplit>
struct SumExp {
  using Tile = LogitTile<T, kSplit>;
  using Wide = typename Tile::Wide;
  static constexpr int kThreads = Tile::kThreads;
  Level<T> level;
  Wide* totals;
  Wide* target_logit;
  int64_t splits;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    Tile& tile = *block.shared<Tile>();
    const int64_t split = block.index() % splits;
    const Part part = Part::of_samples(level, block.index() / splits, split, splits);
    if (part.count == 0) return;
    const int64_t size = level.groups.size(part.group);
    tile.load_samples(block, level, part.first, part.count, nullptr, nullptr);
    RunningSumExp<Wide> all;
    for (int64_t t = part.begin; t < part.end; ++t) {
      const int64_t rows = min(kTile, size - t * kTile);
      tile.make_logits(block, level, level.groups.first_row(part.group) + t * kTile, rows,
                       part.count);
      Wide here = all.largest;
      tile.for_each(block, rows, part.count, [&](int64_t r, int j, Wide value) {
        here = max(here, value);
        if (t * kTile + r == tile.target[j]) target_logit[part.first + j] = value;
      });
      all.raise(here);
      tile.for_each(block, rows, part.count, [&](int64_t, int, Wide value) { all.add(value); });
      block.sync();
    }
    // The two halves of every sample's rows.
    tile.values[block.thread()] = all.sum > 0    ? all.largest + std::log(all.sum)
                                  : all.sum == 0 ? all.largest
                                                 : all.sum;
    block.sync();
    if (block.thread() < part.count) {
      const Wide both[2] = {tile.values[block.thread()], tile.values[block.thread() + kTile]};
      totals[split * level.samples + part.first + block.thread()] = join(both, 2, 1);
    }
  }

  // log of the sum of exp of `count` values.
  GRAPHSCALE_DEVICE static Wide join(const Wide* values, int64_t count, int64_t step) {
    Wide largest = values[0];
    for (int64_t i = 1; i < count; ++i) largest = max(largest, values[i * step]);
    if (largest == -std::numeric_limits<Wide>::infinity()) return largest;
    Wide sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += std::exp(values[i * step] - largest);
    return largest + std::log(sum);
  }
};

// Adds up the splits.
template <typename T>
struct JoinTotals {
  using Wide = typename Accumulator<T>::type;
  const uint64_t* pairs;
  const Wide* totals;
  Wide* result;
  int64_t samples, splits;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    if (pairs[i] != kNoPair) result[i] = SumExp<T, false>::join(totals + i, splits, samples);
  }
};

// How many blocks share the rows of a group for the same samples.
inline int64_t row_splits(int64_t samples) {
  return std::clamp<int64_t>(kBlocks / std::max<int64_t>(1, divide_up(samples, kTile)), 1,
                             kMaxSplits);
}

// Blocks for all tiles of samples that a softmax over these groups may have.
inline int64_t sample_tiles(int64_t samples, int64_t groups) {
  return divide_up(samples, kTile) + std::min(samples, groups);
}

// Both softmaxes of a call: over the clusters and over the classes of the targets' clusters.
template <typename T>
struct Levels {
  Level<T> outer, inner;
  Levels(const Targets& targets, const Tensor& x, const Tensor* parameters) {
    const auto level = [&](const Groups& groups, const Tables& tables, const Tensor& weight,
                           const Tensor& bias) {
      return Level<T>{groups,          tables,        weight.data<T>(), bias.data<T>(), x.data<T>(),
                      targets.pairs(), targets.row(), targets.samples,  x.shape[1]};
    };
    outer = level(targets.whole, targets.of_clusters(), parameters[kClusterWeight],
                  parameters[kClusterBias]);
    inner = level(targets.clusters, targets.of_classes(), parameters[kWeight], parameters[kBias]);
  }
};

// result[2][samples] <- the logs of the sums of exp, and the targets' logits.
template <typename T>
void sum_exp(const Context& context, const Level<T>& level, typename Accumulator<T>::type* result) {
  using Wide = typename Accumulator<T>::type;
  const int64_t splits = row_splits(level.samples);
  const ScratchArray<Wide> totals(context, splits * level.samples);
  with_accuracy<T>([&](auto split) {
    using Body = SumExp<T, decltype(split)::value>;
    launch_blocks(context, sample_tiles(level.samples, level.groups.count) * splits,
                  sizeof(typename Body::Tile),
                  Body{level, totals.get(), result + level.samples, splits});
  });
  for_each_index(context, level.samples,
                 JoinTotals<T>{level.pairs, totals.get(), result, level.samples, splits});
}

}  // namespace graphscale::cuda
