// The sizes of a temporal convolution, as the kernels of both devices use them. Functions are
// constexpr so that a GPU's code may call them, too.
#pragma once

#include "core/operator.h"

namespace graphscale {

struct TemporalConvSizes {
  int64_t batch, frames, in_features, out_features, kernel, stride, out_frames;

  // How many products each output sums up.
  constexpr int64_t depth() const { return kernel * in_features; }
};

// Of x [N, T, C_in] and weight [C_out, kernel, C_in].
inline TemporalConvSizes temporal_conv_sizes(const Call& call, const Tensor& x,
                                             const Tensor& weight) {
  const int64_t stride = call.attributes.integer("stride");
  return {x.shape[0],
          x.shape[1],
          x.shape[2],
          weight.shape[0],
          weight.shape[1],
          stride,
          (x.shape[1] - weight.shape[1]) / stride + 1};
}

}  // namespace graphscale
