// How many tiles a task takes, and how many tasks share them: the activations of a task fit the
// second-level cache, and each weight that is read is used for enough tiles.
#include "kernels/cpu/fft_conv/winograd_layout.h"

#include <algorithm>

#include "kernels/cpu/fft_conv/layout.h"

namespace graphscale::fft_conv {
namespace {

constexpr int64_t kTaskBytes = 640 << 10;  // of a task's activations: most of a second-level cache
constexpr int64_t kMinTiles = 28;          // for each weight that is read to meet
constexpr int64_t kMinTilesOfFarWeights = 128;
constexpr int64_t kTasksPerThread = 3;
// Of all workers' activations: in the last-level cache.
constexpr int64_t kGradientChunkBytes = 12 << 20;
constexpr int64_t kStripColumns = 64;

// An odd number of vectors, so that a tile's values do not fall into the same sets of the caches.
int64_t value_pitch(int64_t vectors, int lanes) { return (vectors | 1) * lanes; }

int64_t strip_floats(const Core& core, int lanes) {
  return std::max<int64_t>(core.y.tile, core.y.kernel) * strip_pitch(lanes);
}

}  // namespace

int64_t strip_pitch(int lanes) { return (kStripColumns + 1) * lanes; }

int64_t strip_tiles(const Core& core) {
  return std::max<int64_t>((kStripColumns - core.x.tile) / core.x.tile_outputs + 1, 1);
}

WinogradLayout::WinogradLayout(const Core& core, int lanes, int64_t threads)
    : values(core.y.tile * core.x.tile),
      in_blocks(blocks(core.ins(), lanes)),
      out_blocks(blocks(core.outs(), lanes)) {
  weight_pitch = out_blocks * core.ins() * lanes;
  weights = values * weight_pitch;
  const int64_t tiles = std::max<int64_t>(core.tiles(), 1), wanted = kTasksPerThread * threads;
  const int64_t min_chunk = weights * 4 > kLastLevelBytes ? kMinTilesOfFarWeights : kMinTiles;
  const int64_t per_tile = values * (in_blocks + out_blocks) * lanes * 4;
  // Tiles of a task: as many as fit the cache and leave every thread some tasks, but not so few
  // that reading the weights costs more than multiplying them.
  const int64_t even = core.groups * tiles / wanted;  // at a time, for all threads to have some
  const int64_t max_chunk = std::max(std::min(kTaskBytes / per_tile, even), min_chunk);
  int64_t pieces = (tiles + max_chunk - 1) / max_chunk;
  if (core.groups == 1 && pieces >= threads) pieces = (pieces + threads - 1) / threads * threads;
  chunk = (tiles + pieces - 1) / pieces;
  chunks = (tiles + chunk - 1) / chunk;
  tasks = core.groups * chunks;
  const int64_t pairs = (out_blocks + 1) / 2;
  // With few tasks, threads share a chunk: each transforms the inputs anew and takes some of the
  // outputs.
  const bool uneven = tasks < wanted && tasks % threads != 0;
  parts = uneven ? std::min(threads, pairs) : 1;
  tasks *= parts;
  workers = std::min(threads, tasks);
  in_pitch = value_pitch(chunk * in_blocks, lanes);
  out_pitch = value_pitch(chunk * (pairs + parts - 1) / parts * 2, lanes);
  strip = strip_floats(core, lanes);
  worker = strip + values * (in_pitch + out_pitch);
}

WinogradGradientLayout::WinogradGradientLayout(const Core& core, int lanes)
    : values(core.y.tile * core.x.tile),
      in_blocks(blocks(core.ins(), lanes)),
      out_blocks(blocks(core.outs(), lanes)) {
  const int64_t per_tile = values * (in_blocks + out_blocks) * lanes * 4;
  chunk = even_share(core.tiles(), std::max(kGradientChunkBytes / per_tile, kMinTiles));
  in_pitch = value_pitch(chunk * in_blocks, lanes);
  out_pitch = value_pitch(chunk * out_blocks, lanes);
  weight_pitch = value_pitch(out_blocks * core.ins(), lanes);
  strip = strip_floats(core, lanes);
}

int64_t winograd_scratch_floats(const Core& core, Pass pass, int lanes, int64_t threads) {
  if (pass == Pass::kGradientWeight) {
    const WinogradGradientLayout layout(core, lanes);
    return threads * layout.strip +
           layout.values * (layout.in_pitch + layout.out_pitch + layout.weight_pitch);
  }
  const WinogradLayout layout(core, lanes, threads);
  return layout.workers * layout.worker;
}

}  // namespace graphscale::fft_conv
