// The passes over a core problem as function pointers; each instruction set has its own
// (engine-inl.h).
#pragma once

#include "kernels/cpu/fft_conv/geometry.h"

namespace graphscale::fft_conv {

struct DirectLayout;

enum class Outcome {
  kDone,
  kNoMemory,     // the context has none left
  kTooFarApart,  // transforms would lose numbers beside the largest one (magnitudes-inl.h)
};

struct Engine {
  int lanes;
  // Weights to spectra, for convolve() with the same core and method.
  Outcome (*prepack)(const Core& core, Method method, const float* w, float* prepacked,
                     const Context& context);
  Outcome (*convolve)(const Core& core, Method method, const float* x, const float* prepacked,
                      const float* bias, float* y, const Context& context);
  Outcome (*correlate)(const Core& core, Method method, const float* x, const float* dy, float* dw,
                       const Context& context);
  // The direct convolution; false where the context has no memory left.
  void (*prepack_direct)(const DirectLayout& layout, const float* w, float* prepacked,
                         const Context& context);
  bool (*convolve_direct)(const DirectLayout& layout, const float* x, const float* prepacked,
                          const float* bias, float* y, const Context& context);
  bool (*correlate_direct)(const DirectLayout& layout, const float* x, const float* dy, float* dw,
                           const Context& context);
};

const Engine& this_machines_engine();

}  // namespace graphscale::fft_conv
