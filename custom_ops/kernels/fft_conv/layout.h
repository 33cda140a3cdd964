// How spectra lie in memory and how many tiles are worked on at once. All sizes in floats.
//
//   kDense:      activations [frequency][tile][channel block][re L | im L]
//                weights     [group][frequency][output block][input][re L | im L]
//   kPerChannel: weights     [output block][input][kx][ky][re L | im L], a lane being an output channel
//                            of any group
#pragma once

#include "kernels/fft_conv/geometry.h"

namespace graphscale::fft_conv {

inline int64_t blocks(int64_t channels, int lanes) { return (channels + lanes - 1) / lanes; }

// Floats between frequencies: an odd number of vector pairs, so that the strided stores of the transforms
// do not fall into the same sets of the caches.
inline int64_t frequency_pitch(int64_t pairs, int lanes) { return (pairs | 1) * 2 * lanes; }

// Room for the dense method's activation spectra, in bytes: large enough for each weight that is read to
// meet many tiles, small enough for the last-level cache of a small machine.
constexpr int64_t kSpectraBytes = 24 << 20;

struct DenseLayout {
  DenseLayout(const Core& core, int lanes)
      : in_blocks(blocks(core.ins(), lanes)), out_blocks(blocks(core.outs(), lanes)) {
    const int64_t per_tile = core.frequencies() * (in_blocks + out_blocks) * 2 * lanes * 4;
    const int64_t fitting = kSpectraBytes / per_tile > 4 ? kSpectraBytes / per_tile : 4;
    const int64_t chunks = (core.tiles() + fitting - 1) / fitting;
    chunk = chunks > 0 ? (core.tiles() + chunks - 1) / chunks : 0;
    in_pitch = frequency_pitch(chunk * in_blocks, lanes);
    out_pitch = frequency_pitch(chunk * out_blocks, lanes);
    weight_pitch = out_blocks * core.ins() * 2 * lanes;
    weights = core.frequencies() * weight_pitch;
  }
  int64_t in_blocks, out_blocks;
  int64_t chunk;                // tiles at a time
  int64_t in_pitch, out_pitch;  // between frequencies
  int64_t weight_pitch, weights;  // of a group
};

// The gradient to the weights, kDense: some blocks of outputs at a time, so that their spectra
//   [frequency][output block][input][re L | im L]
// stay within kGradientBytes.
constexpr int64_t kGradientBytes = 32 << 20;

struct GradientLayout {
  GradientLayout(const Core& core, int lanes) : in_blocks(blocks(core.ins(), lanes)) {
    const int64_t per_block = core.frequencies() * core.ins() * 2 * lanes * 4;
    const int64_t all_blocks = blocks(core.outs(), lanes);
    const int64_t fitting = kGradientBytes / per_block > 1 ? kGradientBytes / per_block : 1;
    const int64_t parts = (all_blocks + fitting - 1) / fitting;
    out_blocks = (all_blocks + parts - 1) / parts;
    const int64_t per_tile = core.frequencies() * (in_blocks + out_blocks) * 2 * lanes * 4;
    const int64_t tiles = kSpectraBytes / per_tile > 4 ? kSpectraBytes / per_tile : 4;
    const int64_t chunks = (core.tiles() + tiles - 1) / tiles;
    chunk = (core.tiles() + chunks - 1) / chunks;
    in_pitch = frequency_pitch(chunk * in_blocks, lanes);
    out_pitch = frequency_pitch(chunk * out_blocks, lanes);
    weight_pitch = frequency_pitch(out_blocks * core.ins(), lanes);
  }
  int64_t in_blocks, out_blocks;  // out_blocks: at a time
  int64_t chunk;
  int64_t in_pitch, out_pitch, weight_pitch;
};

// In how many parts kPerChannel sums its gradient to the weights.
inline int64_t correlation_parts(const Core& core, int64_t sets, int64_t threads) {
  const int64_t wanted = (threads + sets - 1) / sets;
  return wanted < core.tiles() ? wanted : core.tiles();
}

}  // namespace graphscale::fft_conv
