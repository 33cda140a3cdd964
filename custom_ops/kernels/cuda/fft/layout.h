// The tensors of a pass as planes of tiles, for the kernels.
#pragma once

#include "kernels/cuda/fft/algorithm.h"
#include "kernels/cuda/fft/plane.h"

namespace graphscale::cuda {

struct Layout {
  Plane in, out;  // out: y or grad_x; for the gradient to w the gradient to y
  Taps taps;
  int64_t tiles;   // of all images and their phases
  int64_t images;  // with their phases
  int64_t groups;
  int64_t ins, outs;    // of a group, with phases and parts
  Columns in_columns;   // of a tile, those that may hold other numbers than zero
  Columns out_columns;  // those that the output needs

  int64_t image_tiles() const {
    return int64_t{in.y.tiles} * in.x.tiles * in.y.batch_phases * in.x.batch_phases;
  }
  int64_t all_ins() const { return groups * ins; }
  int64_t all_outs() const { return groups * outs; }
  int64_t kernels() const { return all_outs() * ins; }
};

// x or, for the gradient to x, the gradient to y; w or its gradient; y, grad_x or grad_y.
Layout make_layout(const TiledCore& cut, const Tensor& in, const Tensor& taps, const Tensor& out);

}  // namespace graphscale::cuda
