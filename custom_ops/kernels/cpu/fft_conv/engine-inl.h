// The engine of one instruction set: for each pass, the function of the method that the algorithm
// names.
#pragma once

#include "kernels/cpu/fft_conv/dense-inl.h"
#include "kernels/cpu/fft_conv/direct-inl.h"
#include "kernels/cpu/fft_conv/direct_gradient-inl.h"
#include "kernels/cpu/fft_conv/engine.h"
#include "kernels/cpu/fft_conv/per_channel-inl.h"
#include "kernels/cpu/fft_conv/winograd-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

template <int L>
Outcome prepack_with(const Core& core, Method method, const float* w, float* prepacked,
                     const Context& context) {
  switch (method) {
    case Method::kWinograd: return prepack_winograd<L>(core, w, prepacked, context);
    case Method::kDense: return prepack_dense<L>(core, w, prepacked, context);
    default: return prepack_per_channel<L>(core, w, prepacked, context);
  }
}

template <int L>
Outcome convolve_with(const Core& core, Method method, const float* x, const float* prepacked,
                      const float* bias, float* y, const Context& context) {
  switch (method) {
    case Method::kWinograd: return convolve_winograd<L>(core, x, prepacked, bias, y, context);
    case Method::kDense: return convolve_dense<L>(core, x, prepacked, bias, y, context);
    default: return convolve_per_channel<L>(core, x, prepacked, bias, y, context);
  }
}

template <int L>
Outcome correlate_with(const Core& core, Method method, const float* x, const float* dy, float* dw,
                       const Context& context) {
  switch (method) {
    case Method::kWinograd: return correlate_winograd<L>(core, x, dy, dw, context);
    case Method::kDense: return correlate_dense<L>(core, x, dy, dw, context);
    default: return correlate_per_channel<L>(core, x, dy, dw, context);
  }
}

inline constexpr Engine kEngine = {kFloatLanes,
                                   prepack_with<kFloatLanes>,
                                   convolve_with<kFloatLanes>,
                                   correlate_with<kFloatLanes>,
                                   prepack_direct<kFloatLanes>,
                                   convolve_direct<kFloatLanes>,
                                   correlate_direct<kFloatLanes>};

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
