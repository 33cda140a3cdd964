// Convolution through small real FFTs on a CPU, float32: what ONNX Conv computes in two dimensions,
//   y[n, o, i, j] = bias[o] + sum over c, k, l of
//                   w[o, c, k, l] * x[n, c', i*stride_y + k*dilation_y - pad_top,
//                                            j*stride_x + l*dilation_x - pad_left],
// (c' = c plus the offset of o's group; x is zero outside), and its two gradients. One-dimensional
// convolutions are height 1, kernel_height 1.
//
// How it is used (all pointers are dense row-major NCHW / OIHW float32):
//   Problem p = {...};
//   check(p);                                              // throws graphscale::Error
//   Algorithm algorithm = choose(p, Pass::kForward, threads);  // or one of candidates(), measured
//   if (!supports(p, pass, algorithm)) the caller convolves on its own: the algorithm is direct,
//     and the pass the gradient to the input with strides;
//   else, once per weight: memory = aligned to 64, prepacked_bytes(p, pass, algorithm);
//        prepack(p, pass, algorithm, w, memory, context);
//        forward(p, algorithm, x, memory, bias, y, context);
// `memory` may be shared by concurrent calls. It depends on the machine: never store it in a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/bounds.h"
#include "core/context.h"

namespace graphscale::fft_conv {

struct Problem {
  int64_t batch = 1, in_channels = 1, out_channels = 1, groups = 1;
  int64_t height = 1, width = 1;  // of x
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t stride_y = 1, stride_x = 1;
  int64_t dilation_y = 1, dilation_x = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;  // at least 0
  Bounds bounds = {};                                                // of y

  int64_t out_height() const;  // 0 where the kernel does not fit
  int64_t out_width() const;
};

enum class Pass { kForward, kGradientInput, kGradientWeight };

enum class Method {
  kDirect,      // no transforms: for short kernels
  kWinograd,    // tiles of 4 or 6 by Winograd's short correlations: for kernels of 2 to 5
  kDense,       // tiles -> spectra in memory -> one matrix product per frequency -> tiles
  kPerChannel,  // fused per tile; for depthwise and for groups of a few channels
};

// How a pass is computed: the method and the size of the tiles.
struct Algorithm {
  Method method = Method::kDirect;
  int tile_height = 0, tile_width = 0;  // 0 for kDirect
};

// "direct", "winograd 6x6", "dense 32x32", "per_channel 72x72"; parse_algorithm() accepts these
// texts only.
std::string to_string(const Algorithm& algorithm);
std::optional<Algorithm> parse_algorithm(const std::string& text);

// Throws graphscale::Error where p is no valid convolution (sizes, groups, pads, overflow).
void check(const Problem& p);

// Whether the algorithm computes that pass of p.
bool supports(const Problem& p, Pass pass, const Algorithm& algorithm);

// Algorithms worth measuring, cheapest by the cost model first; kDirect is always among them.
std::vector<Algorithm> candidates(const Problem& p, Pass pass, int threads);

// The cheapest algorithm by the cost model.
Algorithm choose(const Problem& p, Pass pass, int threads);

// The cost model: predicted seconds with the weights prepacked.
double predicted_seconds(const Problem& p, Pass pass, const Algorithm& algorithm, int threads);

// The most scratch memory that a call takes from its context, in bytes.
size_t scratch_bytes(const Problem& p, Pass pass, const Algorithm& algorithm, int threads);

// The four functions below return false, with no useful result, where one number of their tensors
// stands out so far that transforms would lose others beside it, or is infinite or NaN
// (magnitudes-inl.h): then call them with the direct algorithm, which never does.

// Weights as spectra, for kForward or kGradientInput. w: out_channels x in_channels/groups x
// kernel_height x kernel_width. memory: aligned to 64 bytes. 0 bytes for kGradientWeight.
size_t prepacked_bytes(const Problem& p, Pass pass, const Algorithm& algorithm);
bool prepack(const Problem& p, Pass pass, const Algorithm& algorithm, const float* w, void* memory,
             const Context& context);

// y: batch x out_channels x out_height x out_width. bias: out_channels values or null.
// prepacked: what prepack(p, kForward, algorithm, ...) filled.
bool forward(const Problem& p, const Algorithm& algorithm, const float* x, const void* prepacked,
             const float* bias, float* y, const Context& context);

// dx (as x) from dy (as y). prepacked: what prepack(p, kGradientInput, algorithm, ...) filled.
bool gradient_input(const Problem& p, const Algorithm& algorithm, const float* dy,
                    const void* prepacked, float* dx, const Context& context);

// dw (as w) from x and dy; dw is overwritten. (The gradient of bias is a plain sum of dy.)
bool gradient_weight(const Problem& p, const Algorithm& algorithm, const float* x, const float* dy,
                     float* dw, const Context& context);

}  // namespace graphscale::fft_conv
