// The body of engine<L>(), included by the engine_*.cpp, each compiled for its instruction set.
#pragma once

#include "kernels/cpu/fft_conv/dense.h"
#include "kernels/cpu/fft_conv/direct.h"
#include "kernels/cpu/fft_conv/direct_gradient.h"
#include "kernels/cpu/fft_conv/engine.h"
#include "kernels/cpu/fft_conv/per_channel.h"
#include "kernels/cpu/fft_conv/winograd.h"

namespace graphscale::fft_conv {

template <int L>
bool prepack_with(const Core& core, Method method, const float* w, float* prepacked,
                  const Context& context) {
  switch (method) {
    case Method::kWinograd: return prepack_winograd<L>(core, w, prepacked, context);
    case Method::kDense: return prepack_dense<L>(core, w, prepacked, context);
    default: return prepack_per_channel<L>(core, w, prepacked, context);
  }
}

template <int L>
bool convolve_with(const Core& core, Method method, const float* x, const float* prepacked,
                   const float* bias, float* y, const Context& context) {
  switch (method) {
    case Method::kWinograd: return convolve_winograd<L>(core, x, prepacked, bias, y, context);
    case Method::kDense: return convolve_dense<L>(core, x, prepacked, bias, y, context);
    default: return convolve_per_channel<L>(core, x, prepacked, bias, y, context);
  }
}

template <int L>
bool correlate_with(const Core& core, Method method, const float* x, const float* dy, float* dw,
                    const Context& context) {
  switch (method) {
    case Method::kWinograd: return correlate_winograd<L>(core, x, dy, dw, context);
    case Method::kDense: return correlate_dense<L>(core, x, dy, dw, context);
    default: return correlate_per_channel<L>(core, x, dy, dw, context);
  }
}

template <int L>
const Engine& engine() {
  static constexpr Engine kEngine = {L,
                                     prepack_with<L>,
                                     convolve_with<L>,
                                     correlate_with<L>,
                                     prepack_direct<L>,
                                     convolve_direct<L>,
                                     correlate_direct<L>};
  return kEngine;
}

}  // namespace graphscale::fft_conv
