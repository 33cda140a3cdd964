// Sorting (key, position) pairs on the GPU: bitonic, stages of up to 2048 pairs in shared memory.
// Cost: log2(n) (log2(n) + 1) / 2 steps of n / 2 comparisons; those beyond 2048 pairs go through
// memory. The number of steps depends on the number of pairs alone, so the host reads nothing back.
#pragma once

#include "kernels/cuda/launch.h"

namespace graphscale::cuda {

// A pair: the key above, the position below; both below 2^31. Positions without a key come last.
constexpr uint64_t kNoPair = ~uint64_t{0};

GRAPHSCALE_BOTH uint64_t make_pair(int64_t key, int64_t position) {
  return static_cast<uint64_t>(key) << 32 | static_cast<uint64_t>(position);
}
GRAPHSCALE_BOTH int64_t key_of(uint64_t pair) { return static_cast<int64_t>(pair >> 32); }
GRAPHSCALE_BOTH int64_t position_of(uint64_t pair) {
  return static_cast<int64_t>(pair & 0xffffffffu);
}

GRAPHSCALE_DEVICE void order(uint64_t& low, uint64_t& high, bool ascending) {
  if ((low > high) != ascending) return;
  const uint64_t swap = low;
  low = high;
  high = swap;
}

// One step of a bitonic stage: pairs that are `distance` apart, in runs of `run`.
struct SortStep {
  uint64_t* pairs;
  int64_t distance, run;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t low = i / distance * 2 * distance + i % distance;
    order(pairs[low], pairs[low + distance], (low & run) == 0);
  }
};

// All steps within kSize pairs: of the stages from first_run to last_run.
struct SortBlock {
  static constexpr int kThreads = 512;
  static constexpr int kSize = 2048;
  uint64_t* pairs;
  int64_t first_run, last_run;
  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    uint64_t* const room = block.shared<uint64_t>();
    const int64_t base = block.index() * kSize;
    // In, all stages in shared memory, out: one barrier per step, each thread exchanges two pairs
    // of a step.
    for (int i = block.thread(); i < kSize; i += kThreads) room[i] = pairs[base + i];
    for (int64_t run = first_run; run <= last_run; run *= 2) {
      for (int64_t distance = min<int64_t>(run, kSize) / 2; distance > 0; distance /= 2) {
        block.sync();
        for (int64_t i = block.thread(); i < kSize / 2; i += kThreads) {
          const int64_t low = i / distance * 2 * distance + i % distance;
          order(room[low], room[low + distance], ((base + low) & run) == 0);
        }
      }
    }
    block.sync();
    for (int i = block.thread(); i < kSize; i += kThreads) pairs[base + i] = room[i];
  }
};

// `count` is a power of two and at least SortBlock::kSize.
inline void sort_pairs(const Context& context, uint64_t* pairs, int64_t count) {
  constexpr int64_t kSize = SortBlock::kSize;
  const size_t bytes = kSize * sizeof(uint64_t);
  launch_blocks(context, count / kSize, bytes, SortBlock{pairs, 2, kSize});
  // Longer runs: steps beyond kSize through memory, one kernel each, the rest of the stage in
  // shared memory.
  for (int64_t run = 2 * kSize; run <= count; run *= 2) {
    for (int64_t distance = run / 2; distance >= kSize; distance /= 2) {
      for_each_index(context, count / 2, SortStep{pairs, distance, run});
    }
    launch_blocks(context, count / kSize, bytes, SortBlock{pairs, run, run});
  }
}

// The number of pairs that memory must hold to sort `count` of them.
inline int64_t padded_pairs(int64_t count) {
  int64_t padded = SortBlock::kSize;
  while (padded < count) padded *= 2;
  return padded;
}

}  // namespace graphscale::cuda
