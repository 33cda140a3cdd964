// Loss and gradients of the two-level softmax on CUDA: see hierarchical_softmax.cpp for what they
// compute.
//
// Cost for K clusters of n classes: 2 N D (K + n) operations in the loss and five times that in the
// gradients, where the logits are made three times rather than kept. With few samples per cluster
// it is the reading of the touched rows of weight, D sizeof(T) bytes each: once in the loss, three
// times and their gradient's writing in the gradients. Where one cluster has most samples, its rows
// (for sums over rows) or its samples (for sums over samples) are shared by several blocks; their
// parts are added afterwards, in a fixed order.
#include "kernels/cuda/hierarchical_softmax_level.h"
#include "kernels/cuda/kernels.h"

namespace graphscale::cuda {
namespace {

template <typename T>
struct Loss {
  using Wide = typename Accumulator<T>::type;
  const uint64_t* pairs;
  const int64_t* row;
  const Wide* values;  // [4][samples]: totals and targets' logits of clusters and of classes
  T* loss;
  int64_t samples;
  // The sample i if it does not count, and the one at position i of those that do.
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    if (row[i] == kLeftOut) loss[i] = narrow<T>(0);
    if (row[i] == kNoClass) loss[i] = narrow<T>(std::numeric_limits<Wide>::quiet_NaN());
    if (pairs[i] == kNoPair) return;
    loss[position_of(pairs[i])] = narrow<T>((values[i] - values[samples + i]) +
                                            (values[2 * samples + i] - values[3 * samples + i]));
  }
};

// parts[split][position] (+)= the gradient to x from a part of the rows.
template <typename T, bool kSplit>
struct GradInput {
  using Tile = LogitTile<T, kSplit>;
  using Wide = typename Tile::Wide;
  using Product = typename Tile::Product;
  static constexpr int kThreads = Tile::kThreads;
  Level<T> level;
  const T* grad;
  const Wide* totals;
  Wide* parts;
  int64_t splits;
  bool accumulate;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    Tile& tile = *block.shared<Tile>();
    const int64_t split = block.index() % splits;
    const Part part = Part::of_samples(level, block.index() / splits, split, splits);
    if (part.count == 0) return;
    const int64_t width = level.width;
    Wide* const to = parts + (split * level.samples + part.first) * width;
    if (part.begin == part.end && !accumulate) {
      for (int64_t i = block.thread(); i < part.count * width; i += kThreads) to[i] = 0;
    }
    tile.load_samples(block, level, part.first, part.count, grad, totals);
    const int64_t row0 = level.groups.first_row(part.group);
    const int64_t size = level.groups.size(part.group);
    // 64 rows of the softmax at a time: errors in shared memory, then their product with the same
    // rows of weight, 64 columns at a time.
    for (int64_t t = part.begin; t < part.end; ++t) {
      const int64_t rows = min(kTile, size - t * kTile);
      tile.make_errors(block, level, part.group, t * kTile, rows, part.count);
      const bool add = accumulate || t > part.begin;
      for (int64_t d0 = 0; d0 < width; d0 += kTile) {
        const T* const from = level.weight + (row0 + t * kTile) * width + d0;
        const int64_t columns = min(kTile, width - d0);
        typename Product::Sums sums;
        Product::template multiply<Along::kOutside, Along::kOutside>(
            block, tile.room, columns, part.count, rows,
            [&](int d, int64_t r) { return widen(from[r * width + d]); },
            [&](int j, int64_t r) { return tile.values[r * Tile::kPitch + j]; }, sums);
        Product::for_each(block.thread(), columns, part.count, sums, [&](int d, int j, Wide sum) {
          Wide& result = to[j * width + d0 + d];
          result = add ? result + sum : sum;
        });
      }
    }
  }
};

template <typename T>
struct JoinGradInput {
  using Wide = typename Accumulator<T>::type;
  const uint64_t* pairs;
  const int64_t* row;
  const Wide* parts;
  T* out;
  int64_t samples, width, splits;
  // As Loss.
  GRAPHSCALE_DEVICE void operator()(int64_t index) const {
    const int64_t i = index / width;
    const int64_t d = index % width;
    if (row[i] < 0) out[index] = narrow<T>(0);
    if (pairs[i] == kNoPair) return;
    Wide sum = 0;
    for (int64_t s = 0; s < splits; ++s) sum += parts[(s * samples + i) * width + d];
    out[position_of(pairs[i]) * width + d] = narrow<T>(sum);
  }
};

// The gradients to 64 rows of weight and bias. Where that gives fewer than half of the blocks work,
// several share the samples of the same rows, and each leaves its sums in its slot; else a block
// sums in its slot, takes one piece of work after another, and writes each result itself.
template <typename T>
struct RowGradients {
  using Wide = typename Accumulator<T>::type;
  Level<T> level;
  const int64_t* result_row;  // of each group, or -1; null: the rows of weight
  Wide* slots;                // [blocks][64][width + 1]; the last column is bias
  T* grad_weight;
  T* grad_bias;
  int64_t blocks, result_rows;

  GRAPHSCALE_DEVICE int64_t tiles() const { return level.tables.row_tiles[level.groups.count]; }
  GRAPHSCALE_DEVICE int64_t splits() const {
    return max<int64_t>(1, min(kMaxSplits, blocks / max<int64_t>(1, tiles())));
  }
  GRAPHSCALE_DEVICE int64_t group(int64_t tile) const {
    return last_at_most(level.tables.row_tiles, level.groups.count + 1, tile);
  }
  GRAPHSCALE_DEVICE int64_t slot_size() const { return kTile * (level.width + 1); }
  GRAPHSCALE_DEVICE void write(int64_t group, int64_t row_of_group, int64_t d, Wide value) const {
    const int64_t first = result_row == nullptr ? level.groups.first_row(group) : result_row[group];
    const int64_t to = first + row_of_group;
    if (first < 0 || to >= result_rows) return;
    (d < level.width ? grad_weight[to * level.width + d] : grad_bias[to]) = narrow<T>(value);
  }
};

template <typename T, bool kSplit>
struct GradWeight {
  using Tile = LogitTile<T, kSplit>;
  using Wide = typename Tile::Wide;
  using Product = typename Tile::Product;
  static constexpr int kThreads = Tile::kThreads;
  RowGradients<T> result;
  const T* grad;
  const Wide* totals;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    Tile& tile = *block.shared<Tile>();
    const int64_t splits = result.splits();
    const int64_t units = result.tiles() * splits;
    // Units of work: 64 rows of weight and a share of the samples that touch them.
    for (int64_t unit = block.index(); unit < units; unit += result.blocks) {
      add_samples(block, tile, unit / splits, unit % splits, splits);
    }
  }

  GRAPHSCALE_DEVICE void add_samples(const Block& block, Tile& tile, int64_t row_tile,
                                     int64_t split, int64_t splits) const {
    const Level<T>& level = result.level;
    const int64_t width = level.width;
    const int64_t group = result.group(row_tile);
    const int64_t at = (row_tile - level.tables.row_tiles[group]) * kTile;
    const int64_t rows = min(kTile, level.groups.size(group) - at);
    const int64_t* const samples = level.tables.first_sample + group;
    const int64_t tiles = divide_up(samples[1] - samples[0], kTile);
    const int64_t begin = tiles * split / splits;
    const int64_t end = tiles * (split + 1) / splits;
    Wide* const slot = result.slots + block.index() * result.slot_size();
    if (begin == end) {
      for (int64_t i = block.thread(); i < result.slot_size(); i += kThreads) slot[i] = 0;
    }
    // 64 samples at a time: errors in shared memory, then their product with the samples' x; column
    // `width` is the bias, whose input is 1.
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = samples[0] + t * kTile;
      const int64_t count = min(kTile, samples[1] - first);
      const bool add = t > begin;
      const bool write = splits == 1 && t + 1 == end;
      tile.load_samples(block, level, first, count, grad, totals);
      tile.make_errors(block, level, group, at, rows, count);
      for (int64_t d0 = 0; d0 <= width; d0 += kTile) {
        const int64_t columns = min(kTile, width + 1 - d0);
        typename Product::Sums sums;
        Product::template multiply<Along::kDepth, Along::kOutside>(
            block, tile.room, rows, columns, count,
            [&](int r, int64_t j) { return tile.values[r * Tile::kPitch + j]; },
            [&](int d, int64_t j) {
              const T* const from = level.x + tile.sample[j] * width;
              return d0 + d < width ? widen(from[d0 + d]) : Wide(1);
            },
            sums);
        Product::for_each(block.thread(), rows, columns, sums, [&](int r, int d, Wide sum) {
          Wide& kept = slot[r * (width + 1) + d0 + d];
          if (add) sum += kept;
          if (write) {
            result.write(group, at + r, d0 + d, sum);
          } else {
            kept = sum;
          }
        });
      }
    }
  }
};

// Adds the slots of the blocks that shared rows.
template <typename T>
struct JoinGradWeight {
  RowGradients<T> result;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t splits = result.splits();
    const int64_t row_tile = i / result.slot_size();
    if (splits == 1 || row_tile >= result.tiles()) return;
    const int64_t d = i % (result.level.width + 1);
    const int64_t group = result.group(row_tile);
    const int64_t r = i % result.slot_size() / (result.level.width + 1) +
                      (row_tile - result.level.tables.row_tiles[group]) * kTile;
    if (r >= result.level.groups.size(group)) return;
    typename RowGradients<T>::Wide sum = 0;
    for (int64_t s = 0; s < splits; ++s) {
      sum += result.slots[(row_tile * splits + s) * result.slot_size() + i % result.slot_size()];
    }
    result.write(group, r, d, sum);
  }
};

// result_row[cluster]: the rows of the clusters that the caller wants, one after another. One
// block.
struct PlaceClusters {
  static constexpr int kThreads = 512;
  static constexpr size_t kSharedBytes = kThreads * sizeof(int64_t);
  const int64_t* wanted;
  int64_t count;
  Groups clusters;
  int64_t* result_row;
  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    int64_t* const room = block.shared<int64_t>();
    for (int64_t k = block.thread(); k < clusters.count; k += kThreads) result_row[k] = -1;
    int64_t before = 0;
    // Rows of the wanted clusters follow each other: running sums of their sizes.
    for (int64_t begin = 0; begin < count; begin += kThreads) {
      const int64_t i = begin + block.thread();
      const int64_t cluster = i < count ? wanted[i] : -1;
      const bool known = cluster >= 0 && cluster < clusters.count;
      const int64_t size = known ? clusters.size(cluster) : 0;
      const int64_t to = running_sum<kThreads>(block, size, room);
      if (known) result_row[cluster] = before + to - size;
      before += room[kThreads - 1];
    }
  }
};

template <typename T>
void loss(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Tensor* const parameters = &call.inputs[2];
  const Targets targets(call, call.inputs[1], parameters);
  const Levels<T> levels(targets, call.inputs[0], parameters);
  const ScratchArray<Wide> values(call.context, 4 * targets.samples);
  sum_exp(call.context, levels.outer, values.get());
  sum_exp(call.context, levels.inner, values.get() + 2 * targets.samples);
  for_each_index(call.context, targets.samples,
                 Loss<T>{targets.pairs(), targets.row(), values.get(), call.outputs[0].data<T>(),
                         targets.samples});
}

// The rows of one level's gradients, and what they add to the parts of the gradient to x.
template <typename T>
void level_grad(const Context& context, const Level<T>& level, const T* grad,
                const int64_t* result_row, const Tensor& grad_weight, const Tensor& grad_bias,
                typename Accumulator<T>::type* parts, bool accumulate) {
  using Wide = typename Accumulator<T>::type;
  clear(context, grad_weight.data<T>(), grad_weight.size());
  clear(context, grad_bias.data<T>(), grad_bias.size());
  const ScratchArray<Wide> values(context, 2 * level.samples);
  sum_exp(context, level, values.get());
  const int64_t splits = row_splits(level.samples);
  const int64_t row_tiles =
      divide_up(level.groups.rows, kTile) + std::min(level.samples, level.groups.count);
  const int64_t blocks = std::min(kBlocks, row_tiles * kMaxSplits);
  const int64_t slot = kTile * (level.width + 1);
  const ScratchArray<Wide> slots(context, blocks * slot);
  const RowGradients<T> rows{
      level,  result_row,      slots.get(), grad_weight.data<T>(), grad_bias.data<T>(),
      blocks, grad_bias.size()};
  with_accuracy<T>([&](auto split) {
    constexpr bool kSplit = decltype(split)::value;
    const size_t bytes = sizeof(LogitTile<T, kSplit>);
    launch_blocks(context, sample_tiles(level.samples, level.groups.count) * splits, bytes,
                  GradInput<T, kSplit>{level, grad, values.get(), parts, splits, accumulate});
    launch_blocks(context, blocks, bytes, GradWeight<T, kSplit>{rows, grad, values.get()});
  });
  for_each_index(context, blocks / 2 * slot, JoinGradWeight<T>{rows});
}

template <typename T>
void loss_grad(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Tensor* const parameters = &call.inputs[3];
  const Tensor& wanted = call.inputs[3 + kClusterStart + 1];
  const Targets targets(call, call.inputs[2], parameters);
  const Levels<T> levels(targets, call.inputs[1], parameters);
  const T* const grad = call.inputs[0].data<T>();
  const int64_t samples = targets.samples;
  const int64_t width = levels.inner.width;
  const int64_t splits = row_splits(samples);
  const ScratchArray<int64_t> result_row(call.context, targets.clusters.count);
  if (wanted.present) {
    launch_blocks(
        call.context, 1, PlaceClusters::kSharedBytes,
        PlaceClusters{wanted.data<int64_t>(), wanted.size(), targets.clusters, result_row.get()});
  }
  const ScratchArray<Wide> parts(call.context, splits * samples * width);
  level_grad(call.context, levels.outer, grad, nullptr, call.outputs[1], call.outputs[2],
             parts.get(), false);
  level_grad(call.context, levels.inner, grad, wanted.present ? result_row.get() : nullptr,
             call.outputs[3], call.outputs[4], parts.get(), true);
  for_each_index(call.context, samples * width,
                 JoinGradInput<T>{targets.pairs(), targets.row(), parts.get(),
                                  call.outputs[0].data<T>(), samples, width, splits});
}

}  // namespace

void hierarchical_softmax_loss(const Call& call) {
  dispatch(call.type, [&](auto zero) { loss<decltype(zero)>(call); });
}

void hierarchical_softmax_loss_grad(const Call& call) {
  dispatch(call.type, [&](auto zero) { loss_grad<decltype(zero)>(call); });
}

}  // namespace graphscale::cuda
