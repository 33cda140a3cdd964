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

}  // namespace graphscale::fft_conv
