// A convolution's sizes as the FFT convolutions of CPU and CUDA take them.
#pragma once

#include "core/conv_geometry.h"
#include "kernels/cpu/fft_conv/fft_conv.h"

namespace graphscale::fft_conv {

// One or two spatial dimensions; one-dimensional images have one line.
inline Problem problem_of(const ConvGeometry& g) {
  const size_t x = g.in.size() - 1;
  Problem p;
  p.batch = g.batch;
  p.in_channels = g.in_channels;
  p.out_channels = g.out_channels;
  p.groups = g.groups;
  p.width = g.in[x];
  p.kernel_width = g.kernel[x];
  p.stride_x = g.stride[x];
  p.dilation_x = g.dilation[x];
  p.pad_left = g.pad_begin[x];
  p.pad_right = g.pad_end[x];
  if (x == 1) {
    p.height = g.in[0];
    p.kernel_height = g.kernel[0];
    p.stride_y = g.stride[0];
    p.dilation_y = g.dilation[0];
    p.pad_top = g.pad_begin[0];
    p.pad_bottom = g.pad_end[0];
  }
  return p;
}

}  // namespace graphscale::fft_conv
