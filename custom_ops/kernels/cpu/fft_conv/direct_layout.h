// The direct convolution cut into tasks: sizes, blocking and where each tap finds its input.
//
// A task computes a tile of outputs of one image and group. It copies the inputs of the tile, some
// channels at a time, to rows of their own: padding becomes zeros there, and a stride along x
// becomes phases (columns q, q + s, q + 2 s ... side by side), so that the kernels in direct-inl.h
// meet neither. A task of the gradient to the weights computes those between some inputs and
// outputs of a group, over all tiles of all images.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/cpu/fft_conv/fft_conv.h"

namespace graphscale::fft_conv {

struct DirectLayout {
  // The forward pass, or the gradient to the input of a convolution without strides (the same with
  // inputs and outputs exchanged and the kernel turned), or the gradient to the weights.
  DirectLayout(const Problem& problem, Pass pass, int lanes, int threads);

  int64_t batch, groups, ins, outs;  // channels of a group
  int64_t in_height, in_width, out_height, out_width;
  int64_t kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x;
  int64_t origin_y, origin_x;  // where tap 0 of output 0 meets the input; negative in the padding
  Bounds bounds;               // of the outputs
  bool turned;                 // the weights are those of the gradient to the input

  bool channel_lanes;  // output channels in the lanes, else pixels
  bool depthwise;      // these straight from the image, see direct_depthwise-inl.h
  int64_t rows, columns, tiles_y, tiles_x;  // of a tile, and how many
  int64_t channels;                         // inputs copied at a time, or of a task of the gradient
  int64_t pairs, parts;                     // pairs of blocks of outputs; the tasks that share them
  int64_t phase_pitch, row_pitch, channel_pitch, copied_rows, copied_columns, phases;
  std::vector<ptrdiff_t> taps;  // from the first input of an output, in the copied rows

  // Functions are only declared here, for the reason that layout.h gives.
  int64_t tasks() const;
  int64_t gradient_tasks() const;
  int64_t copied_floats() const;              // of a worker: inputs, and room for a vector more
  int64_t sum_floats(int lanes) const;        // of a worker: sums, where channels are in the lanes
  int64_t prepacked_floats(int lanes) const;  // of the weights
  int64_t turned_floats(int lanes) const;     // of a worker: a tile's gradient, where they are
  int64_t gradient_floats(int lanes) const;   // of a worker: sums of the gradient to the weights
  int64_t worker_floats(Pass pass, int lanes) const;  // all of these that a pass needs
  const ptrdiff_t* tap_offsets() const;
};

// Whether the direct convolution of the engines computes that pass.
bool direct_computes(const Problem& p, Pass pass);

}  // namespace graphscale::fft_conv
