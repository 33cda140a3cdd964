// The k most probable classes of a two-level softmax on CUDA: see
// hierarchical_softmax_inference.cpp for what they are.
//
// A block per sample opens clusters in the order of their probability until no class of the next
// can be among the best. A warp multiplies four rows at once; the logits of clusters of up to 4096
// classes stay in shared memory, larger ones are read twice. Pieces of 1024 candidates are sorted
// and merged with the k best so far, unless none of them is among those. Cost: the bytes of the
// clusters and of the opened clusters' rows.
#include "kernels/cuda/hierarchical_softmax_inference.h"
#include "kernels/cuda/kernels.h"

namespace graphscale::cuda {
namespace {

template <typename Wide>
struct Candidate {
  Wide value;
  int64_t index;

  // As on the CPU: of equals the one with the smaller index is better, not-a-number is worst.
  GRAPHSCALE_DEVICE bool better_than(const Candidate& other) const {
    const Wide left = value != value ? -std::numeric_limits<Wide>::infinity() : value;
    const Wide right =
        other.value != other.value ? -std::numeric_limits<Wide>::infinity() : other.value;
    return left != right ? left > right : index < other.index;
  }
  GRAPHSCALE_DEVICE static Candidate none() {
    return {-std::numeric_limits<Wide>::infinity(), std::numeric_limits<int64_t>::max()};
  }
};

// How many of `count` sorted candidates come before `one`; of equals those do if equals_first.
template <typename Wide>
GRAPHSCALE_DEVICE int64_t count_before(const Candidate<Wide>* sorted, int64_t count,
                                       const Candidate<Wide>& one, bool equals_first) {
  int64_t low = 0;
  while (low < count) {
    const int64_t middle = (low + count) / 2;
    const bool before =
        equals_first ? !one.better_than(sorted[middle]) : sorted[middle].better_than(one);
    if (before) {
      low = middle + 1;
    } else {
      count = middle;
    }
  }
  return low;
}

template <typename T>
struct TopK {
  using Wide = typename Accumulator<T>::type;
  using Entry = Candidate<Wide>;
  static constexpr int kThreads = 512;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kRows = 4;  // that a warp multiplies at once
  static constexpr int kPiece = 2 * kThreads;
  static constexpr int kKept = 4;  // pieces whose logits stay
  struct Shared {
    Entry piece[kPiece];
    Entry room[kWarps];
    Wide logits[kKept][kPiece];
    Wide sums[kWarps];
  };

  const T* x;
  const T* weight;
  const T* bias;
  const Wide* outer;  // log-probabilities of the clusters [samples, clusters]
  const int64_t* row_class;
  const int* broken;
  Groups clusters;
  Entry* lists;  // [samples][2][k]: the best so far, and room for the next
  T* log_prob;
  int64_t* index;
  int64_t width, k;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    if (*broken != 0) return;
    Shared& shared = *block.shared<Shared>();
    const int64_t sample = block.index();
    Entry* best = lists + sample * 2 * k;
    Entry* other = best + k;
    int64_t found = 0;
    Entry cluster = Entry::none();
    // Clusters by falling probability, until none of the next one's classes can be among the k
    // best.
    for (int64_t opened = 0; opened < clusters.count; ++opened) {
      cluster = next_cluster(block, shared, sample, cluster, opened == 0);
      if (found == k && !(cluster.value > best[k - 1].value)) break;
      const int64_t first = clusters.first_row(cluster.index);
      const int64_t size = clusters.size(cluster.index);
      const int64_t pieces = divide_up(size, kPiece);
      const Wide total = log_sum_exp(block, shared, sample, first, size);
      for (int64_t p = 0; p < pieces; ++p) {
        const int64_t row0 = first + p * kPiece;
        const int64_t count = min<int64_t>(kPiece, size - p * kPiece);
        Wide* const logits = shared.logits[pieces > kKept ? 0 : p];
        if (pieces > kKept) make_logits(block, sample, row0, count, logits);
        // Candidates of a piece; where none of them beats the worst of the best, sorting is
        // skipped.
        int promising = 0;
        for (int i = block.thread(); i < kPiece; i += kThreads) {
          shared.piece[i] =
              i < count ? entry(cluster.value + (logits[i] - total), row0 + i) : Entry::none();
          if (i < count && (found < k || shared.piece[i].better_than(best[k - 1]))) promising = 1;
        }
        block.sync();
        if (max_over_block<kThreads>(block, static_cast<Wide>(promising), shared.sums) == 0) {
          continue;
        }
        sort(block, shared.piece, count);
        merge(block, best, found, shared.piece, count, other);
        found = min(k, found + count);
        Entry* const swap = best;
        best = other;
        other = swap;
      }
    }
    for (int64_t i = block.thread(); i < k; i += kThreads) {
      log_prob[sample * k + i] =
          narrow<T>(i < found ? best[i].value : std::numeric_limits<Wide>::quiet_NaN());
      index[sample * k + i] = i < found ? best[i].index : -1;
    }
  }

  // A row_class that is no class gets the lowest probability.
  GRAPHSCALE_DEVICE Entry entry(Wide value, int64_t row) const {
    const int64_t of_row = row_class[row];
    const bool known = of_row >= 0 && of_row < clusters.rows;
    return {known ? value : std::numeric_limits<Wide>::quiet_NaN(), of_row};
  }

  // The most probable cluster, or the next after `last`.
  GRAPHSCALE_DEVICE Entry next_cluster(const Block& block, Shared& shared, int64_t sample,
                                       const Entry& last, bool is_first) const {
    Entry best = Entry::none();
    for (int64_t c = block.thread(); c < clusters.count; c += kThreads) {
      const Entry one{outer[sample * clusters.count + c], c};
      if ((is_first || last.better_than(one)) && one.better_than(best)) best = one;
    }
    for (int mask = kWarp / 2; mask > 0; mask /= 2) {
      const Entry one{block.shuffle_xor(best.value, mask), block.shuffle_xor(best.index, mask)};
      if (one.better_than(best)) best = one;
    }
    block.sync();
    if (block.thread() % kWarp == 0) shared.room[block.thread() / kWarp] = best;
    block.sync();
    for (int warp = 0; warp < kWarps; ++warp) {
      if (shared.room[warp].better_than(best)) best = shared.room[warp];
    }
    return best;
  }

  // to[i] <- the logit of row0 + i.
  GRAPHSCALE_DEVICE void make_logits(const Block& block, int64_t sample, int64_t row0,
                                     int64_t count, Wide* to) const {
    const int lane = block.thread() % kWarp;
    const T* const input = x + sample * width;
    block.sync();
    for (int64_t i = block.thread() / kWarp * kRows; i < count; i += kWarps * kRows) {
      const T* rows[kRows];
      Wide sums[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        rows[r] = weight + (row0 + min(i + r, count - 1)) * width;
        sums[r] = 0;
      }
      // A warp reads kRows rows at once: that many loads are on their way for each of x.
      for (int64_t d = lane; d < width; d += kWarp) {
        const Wide factor = widen(input[d]);
#pragma unroll
        for (int r = 0; r < kRows; ++r) sums[r] += factor * widen(rows[r][d]);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        for (int mask = kWarp / 2; mask > 0; mask /= 2) {
          sums[r] += block.shuffle_xor(sums[r], mask);
        }
        if (lane == 0 && i + r < count) {
          to[i + r] = sums[r] + widen(bias[row0 + i + r]);
        }
      }
    }
    block.sync();
  }

  // Of the logits of a cluster; they are left in shared memory where they fit.
  GRAPHSCALE_DEVICE Wide log_sum_exp(const Block& block, Shared& shared, int64_t sample,
                                     int64_t first, int64_t size) const {
    RunningSumExp<Wide> all;
    for (int64_t p = 0; p * kPiece < size; ++p) {
      const int64_t count = min<int64_t>(kPiece, size - p * kPiece);
      Wide* const logits = shared.logits[size > kKept * kPiece ? 0 : p];
      make_logits(block, sample, first + p * kPiece, count, logits);
      // The maximum first, so that no exp overflows.
      Wide here = all.largest;
      for (int64_t i = block.thread(); i < count; i += kThreads) here = max(here, logits[i]);
      here = max_over_block<kThreads>(block, here, shared.sums);
      all.raise(here);
      for (int64_t i = block.thread(); i < count; i += kThreads) all.add(logits[i]);
    }
    return all.largest + std::log(sum_over_block<kThreads>(block, all.sum, shared.sums));
  }

  // The best first. Entries beyond `count` are none().
  GRAPHSCALE_DEVICE void sort(const Block& block, Entry* piece, int64_t count) const {
    int size = 2;
    while (size < count) size *= 2;
    // Bitonic sort in shared memory; the best come first.
    for (int run = 2; run <= size; run *= 2) {
      for (int distance = run / 2; distance > 0; distance /= 2) {
        block.sync();
        const int low = block.thread() / distance * 2 * distance + block.thread() % distance;
        if (low + distance >= size) continue;
        const Entry left = piece[low];
        const Entry right = piece[low + distance];
        if (right.better_than(left) != ((low & run) == 0)) continue;
        piece[low] = right;
        piece[low + distance] = left;
      }
    }
    block.sync();
  }

  // to[k] <- the best of both.
  GRAPHSCALE_DEVICE void merge(const Block& block, const Entry* best, int64_t found,
                               const Entry* piece, int64_t count, Entry* to) const {
    for (int64_t i = block.thread(); i < count; i += kThreads) {
      // The rank among both lists: the own place, and how many of the other list come before.
      const int64_t rank = i + count_before(best, found, piece[i], true);
      if (rank < k) to[rank] = piece[i];
    }
    for (int64_t i = block.thread(); i < found; i += kThreads) {
      const int64_t rank = i + count_before(piece, count, best[i], false);
      if (rank < k) to[rank] = best[i];
    }
    block.sync();
  }
};

template <typename T>
void top_k(const Call& call) {
  const Context& context = call.context;
  const Inference<T> given(call);
  const int64_t k = call.outputs[0].shape[1];
  using Entry = typename TopK<T>::Entry;
  const int64_t chunk = samples_at_once(given.samples, 2 * k * static_cast<int64_t>(sizeof(Entry)));
  const ScratchArray<Entry> lists(context, chunk * 2 * k);
  for (int64_t begin = 0; begin < given.samples; begin += chunk) {
    launch_blocks(
        context, std::min(chunk, given.samples - begin), sizeof(typename TopK<T>::Shared),
        TopK<T>{given.x + begin * given.width, call.inputs[kFirstParameter + kWeight].data<T>(),
                call.inputs[kFirstParameter + kBias].data<T>(),
                given.outer.get() + begin * given.clusters.count, given.row_class,
                given.broken.get(), given.clusters, lists.get(),
                call.outputs[0].data<T>() + begin * k, call.outputs[1].data<int64_t>() + begin * k,
                given.width, k});
  }
  nan_if_broken<T>(context, given.broken.get(), call.outputs[0]);
  fill_if_broken(context, given.broken.get(), call.outputs[1], int64_t{-1});
}

}  // namespace

void hierarchical_softmax_top_k(const Call& call) {
  dispatch(call.type, [&](auto zero) { top_k<decltype(zero)>(call); });
}

}  // namespace graphscale::cuda
