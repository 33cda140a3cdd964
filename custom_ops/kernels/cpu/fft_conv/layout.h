// How spectra lie in memory and how many tiles are worked on at once. All sizes in floats.
//
//   kDense:      activations [frequency][tile][channel block][re L | im L]
//                weights     [group][frequency][output block][input][re L | im L]
//   kPerChannel: weights     [output block][input][kx][ky][re L | im L], a lane being an output
//                            channel of any group
//
// Functions are only declared here: the files of simd/ include this header, and a function defined
// in it would be compiled for one instruction set and might be linked for all.
#pragma once

#include "kernels/cpu/fft_conv/geometry.h"

namespace graphscale::fft_conv {

int64_t blocks(int64_t channels, int lanes);

// The largest of equal shares of `count`, each at most `most`.
int64_t even_share(int64_t count, int64_t limit);

// The dense method, forward and gradient to the input.
struct DenseLayout {
  DenseLayout(const Core& core, int lanes);
  int64_t in_blocks, out_blocks;
  int64_t chunk;                  // tiles at a time
  int64_t in_pitch, out_pitch;    // between frequencies
  int64_t weight_pitch, weights;  // of a group
};

// The dense gradient to the weights: some blocks of outputs at a time, as
//   [frequency][output block][input][re L | im L]
struct GradientLayout {
  GradientLayout(const Core& core, int lanes);
  int64_t in_blocks, out_blocks;  // out_blocks: at a time
  int64_t chunk;
  int64_t in_pitch, out_pitch, weight_pitch;
};

// In how many parts kPerChannel sums its gradient to the weights.
int64_t correlation_parts(const Core& core, int64_t sets, int64_t threads);

// Weights as spectra.
int64_t prepacked_floats(const Core& core, Method method, int lanes);

// Transforms of more than kMaxFft points (long_fft-inl.h): the first of the two factors of size /
// 2, and cos, sin of 2 pi k / size for k < size, made once per process.
int long_fft_factor(int size);
const float* turns(int size);

// Work memory of one worker that transforms tiles: the half spectrum and rows or columns on their
// way.
int64_t tile_floats(const Core& core, int lanes);

// All scratch memory of a call, and of prepack().
int64_t scratch_floats(const Core& core, Pass pass, Method method, int lanes, int64_t threads);

}  // namespace graphscale::fft_conv
