// The sizes of a locally connected layer, as the kernels of both devices use them. Functions are
// constexpr so that a GPU's code may call them, too.
#pragma once

#include <vector>

#include "core/operator.h"

namespace graphscale {

struct LocallyConnectedSizes {
  int64_t batch, channels, height, width;
  int64_t filters, out_height, out_width, kernel_height, kernel_width;
  int64_t stride_y, stride_x;

  constexpr int64_t positions() const { return out_height * out_width; }
  constexpr int64_t kernel() const { return kernel_height * kernel_width; }
  constexpr int64_t patch() const { return channels * kernel(); }
  constexpr int64_t image() const { return channels * height * width; }
  constexpr int64_t results() const { return batch * filters; }
  // Where in an image the first element of a position's patch is.
  constexpr int64_t corner(int64_t position) const {
    return position / out_width * stride_y * width + position % out_width * stride_x;
  }
};

// Of x [N, C, H, W] and weight [F, H_out, W_out, C, kH, kW].
inline LocallyConnectedSizes locally_connected_sizes(const Call& call, const Tensor& x,
                                                     const Tensor& weight) {
  const Shape& w = weight.shape;
  const std::vector<int64_t>& strides = call.attributes.integers("strides");
  return {x.shape[0],
          x.shape[1],
          x.shape[2],
          x.shape[3],
          w[0],
          w[1],
          w[2],
          w[4],
          w[5],
          strides.empty() ? 1 : strides[0],
          strides.empty() ? 1 : strides[1]};
}

}  // namespace graphscale
