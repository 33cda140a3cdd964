// The direct convolution: for short kernels, whose products are cheaper than any transform.
#pragma once

#include "kernels/cpu/fft_conv/direct_channels-inl.h"
#include "kernels/cpu/fft_conv/direct_depthwise-inl.h"
#include "kernels/cpu/fft_conv/direct_pixels-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// The weight of a tap from input `in` to output `out` of a group, of w as ONNX has it.
GRAPHSCALE_INLINE float weight_of(const DirectLayout& d, const float* w, int64_t group, int64_t out,
                                  int64_t in, int64_t tap) {
  const int64_t taps = d.kernel_height * d.kernel_width;
  if (d.turned) return w[((group * d.ins + in) * d.outs + out) * taps + taps - 1 - tap];
  return w[((group * d.outs + out) * d.ins + in) * taps + tap];
}

// [group][pair][input][tap][2 L], zeros beyond the last output; or [group][output][input][tap].
template <int L>
void prepack_direct(const DirectLayout& d, const float* w, float* prepacked,
                    const Context& context) {
  const int64_t taps = d.kernel_height * d.kernel_width;
  const int64_t wide = d.channel_lanes ? 2 * L : 1;
  const int64_t sets = d.channel_lanes ? d.pairs : d.outs;
  deal(context, d.groups * sets * d.ins, [&](int64_t, int64_t task) {
    const int64_t in = task % d.ins, first = task / d.ins % sets * wide,
                  group = task / d.ins / sets;
    float* to = prepacked + task * taps * wide;
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t o = first; o < first + wide; ++o) {
        *to++ = o < d.outs ? weight_of(d, w, group, o, in, tap) : 0.0f;
      }
    }
  });
}

template <int L>
bool convolve_direct(const DirectLayout& d, const float* x, const float* prepacked,
                     const float* bias, float* y, const Context& context) {
  if (d.channel_lanes) return convolve_channel_lanes<L>(d, x, prepacked, bias, y, context);
  if (d.depthwise) return convolve_depthwise<L>(d, x, prepacked, bias, y, context);
  return convolve_pixel_lanes<L>(d, x, prepacked, bias, y, context);
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
