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
bool prepare_with(const Core& core, Method method, const float* w, float* prepared,
                  const Context& context) {
  switch (method) {
    case Method::kWinograd: return prepare_winograd<L>(core, w, prepared, context);
    case Method::kDense: return prepare_dense<L>(core, w, prepared, context);
    default: return prepare_per_channel<L>(core, w, prepared, context);
  }
}

template <int L>
bool convolve_with(const Core& core, Method method, const float* x, const float* prepared,
                   const float* bias, float* y, const Context& context) {
  switch (method) {
    case Method::kWinograd: return convolve_winograd<L>(core, x, prepared, bias, y, context);
    case Method::kDense: return convolve_dense<L>(core, x, prepared, bias, y, context);
    default: return convolve_per_channel<L>(core, x, prepared, bias, y, context);
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
                                     prepare_with<L>,
                                     convolve_with<L>,
                                     correlate_with<L>,
                                     prepare_direct<L>,
                                     convolve_direct<L>,
                                     correlate_direct<L>};
  return kEngine;
}

}  // namespace graphscale::fft_conv
