// How Winograd's convolution is cut into tasks, and how its numbers lie in memory. All sizes in
// floats.
//
//   activations [value of a tile][tile][channel block][L], of the tiles of one task
//   weights     [group][value][output block][input][L]
//
// Functions are only declared here, for the reason that layout.h gives.
#pragma once

#include "kernels/cpu/fft_conv/geometry.h"

namespace graphscale::fft_conv {

constexpr int64_t kLastLevelBytes = 16 << 20;  // of weights that the last-level cache keeps

// Forward and gradient to the input: a task takes some tiles of a group to some of the outputs,
// alone.
struct WinogradLayout {
  WinogradLayout(const Core& core, int lanes, int64_t threads);
  int64_t values;  // of a tile
  int64_t in_blocks, out_blocks;
  int64_t chunk, chunks;          // tiles of a task, and how many times that
  int64_t parts;                  // tasks that share a chunk, each with its output blocks
  int64_t in_pitch, out_pitch;    // between values
  int64_t weight_pitch, weights;  // between values, and of a group
  int64_t tasks, workers;         // and how many of them run at once
  int64_t strip, worker;          // memory of a worker's strip, and all of a worker's
};

// The gradient to the weights: all workers together transform tiles, then multiply.
//   weight gradients [value][output block][input][L]
struct WinogradGradientLayout {
  WinogradGradientLayout(const Core& core, int lanes);
  int64_t values, in_blocks, out_blocks;
  int64_t chunk, in_pitch, out_pitch, weight_pitch, strip;
};

// How many tiles of a row are transformed together, a strip, and the floats between its rows.
int64_t strip_tiles(const Core& core);
int64_t strip_pitch(int lanes);

int64_t winograd_scratch_floats(const Core& core, Pass pass, int lanes, int64_t threads);

}  // namespace graphscale::fft_conv
