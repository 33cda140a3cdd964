// Every pass of every convolution as one core problem: images of stride 1 and dilation 1,
// correlated with a short kernel, in tiles. Strides and dilations become phases, along each axis on
// its own:
//
//   dilation d (stride 1): outputs i = q mod d read inputs of the same phase only: d independent
//     images (batch phases), each with the undilated kernel.
//   stride s (dilation 1): tap k = s b + p reads input s (i + b) + p: s times the input channels,
//     each holding one phase of the image and of the kernel; the gradient to x has them on its
//     output side.
//   both on one axis: the kernel is dilated with zeros, then treated as strided.
//
// So no multiplication is wasted, except where both are above 1.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/fft_conv/fft_conv.h"

namespace graphscale::fft_conv {

// Core position u of phase p lies at step * u + origin + p of a plane with `extent` positions;
// where divisor > 1, at that over divisor, if it divides.
struct Map {
  int64_t step = 1, origin = 0, extent = 1, divisor = 1;
};

struct Axis {
  int64_t kernel = 1, outputs = 1;  // core sizes
  int64_t batch_phases = 1, in_phases = 1, out_phases = 1;
  Map in, out, taps;
  bool flip = false;  // tap b sits at core position kernel - 1 - b

  // Overlap-save: tile t computes outputs [t * tile_outputs, ...) from inputs [t * tile_outputs, +
  // tile).
  int tile = 1;
  int64_t tile_outputs = 1, tiles = 1;
};

struct Core {
  Axis y, x;
  int64_t batch = 1, groups = 1;
  int64_t in_channels = 1, out_channels = 1;  // of a group, without phases
  Bounds bounds;                              // of the outputs
  int64_t tap_planes_in = 1, tap_planes_out = 1, tap_planes_group = 1;  // strides in w, in planes

  int64_t tiles() const;  // over all images
  int64_t ins() const;    // with their phases
  int64_t outs() const;
  int64_t columns() const;      // of the half spectrum
  int64_t frequencies() const;  // of a real tile, without those that Hermitian symmetry repeats
};

constexpr int kMaxFft = 256;

// The transform sizes there are, ascending to kMaxFft, and powers of two beyond it for tiles of one
// row. Those along x must be even.
const std::vector<int>& fft_sizes();

// The sizes of Winograd's tiles: 1 for kernels of 1, 4 for 2 and 3, 6 for 2 to 5.
const std::vector<int>& winograd_sizes();

// The core of a pass, not yet cut into tiles. kGradientWeight has the core of kForward.
Core make_core(const Problem& p, Pass pass);

// Cuts an axis into tiles of a size; false where that size is too short.
bool cut(Axis& axis, int tile);

// The core of a pass cut into the algorithm's tiles; false where they do not fit, or the algorithm
// is direct.
bool cut_core(const Problem& p, Pass pass, const Algorithm& algorithm, Core* core);

// Nothing to compute: no batch, no outputs.
bool is_empty(const Problem& p);

}  // namespace graphscale::fft_conv
