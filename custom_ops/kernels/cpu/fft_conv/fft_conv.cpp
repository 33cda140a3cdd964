// The entry points of fft_conv.h: checks, then the engine's function for the pass and the method.
#include "kernels/cpu/fft_conv/fft_conv.h"

#include <algorithm>

#include "core/operator.h"
#include "kernels/cpu/fft_conv/direct_layout.h"
#include "kernels/cpu/fft_conv/engine.h"
#include "kernels/cpu/fft_conv/layout.h"

namespace graphscale::fft_conv {
namespace {

const char* pass_name(Pass pass) {
  switch (pass) {
    case Pass::kForward: return "forward";
    case Pass::kGradientInput: return "the gradient to the input";
    default: return "the gradient to the weight";
  }
}

[[noreturn]] void refuse(Pass pass, const Algorithm& algorithm) {
  fail("the algorithm '" + to_string(algorithm) + "' does not compute " + pass_name(pass) +
       " of this convolution; take one of candidates()");
}

DirectLayout direct_layout(const Problem& p, Pass pass, int threads) {
  if (!direct_computes(p, pass)) refuse(pass, Algorithm{});
  return DirectLayout(p, pass, this_machines_engine().lanes, threads);
}

Core algorithm_core(const Problem& p, Pass pass, const Algorithm& algorithm) {
  Core core;
  if (!supports(p, pass, algorithm) || !cut_core(p, pass, algorithm, &core))
    refuse(pass, algorithm);
  return core;
}

// Of a call that may run out of memory; false where its numbers are too far apart.
bool finish(Outcome outcome) {
  if (outcome == Outcome::kNoMemory) {
    fail("no memory left for the convolution's scratch; lower the batch");
  }
  return outcome == Outcome::kDone;
}

bool check_memory(bool enough) { return finish(enough ? Outcome::kDone : Outcome::kNoMemory); }

bool convolve(const Problem& p, Pass pass, const Algorithm& algorithm, const float* from,
              const void* prepacked, const float* bias, float* to, const Context& context) {
  const Engine& engine = this_machines_engine();
  const auto* const weights = static_cast<const float*>(prepacked);
  if (algorithm.method == Method::kDirect) {
    return check_memory(engine.convolve_direct(direct_layout(p, pass, context.threads), from,
                                               weights, bias, to, context));
  }
  return finish(engine.convolve(algorithm_core(p, pass, algorithm), algorithm.method, from, weights,
                                bias, to, context));
}

}  // namespace

void check(const Problem& p) {
  const auto require = [](bool good, const char* sentence) {
    if (!good) fail(sentence);
  };
  require(
      p.batch >= 0 && p.in_channels >= 1 && p.out_channels >= 1 && p.height >= 1 && p.width >= 1,
      "a convolution needs at least one channel, row and column");
  require(p.groups >= 1 && p.in_channels % p.groups == 0 && p.out_channels % p.groups == 0,
          "the groups of a convolution must divide its input and output channels");
  require(p.kernel_height >= 1 && p.kernel_width >= 1,
          "a convolution's kernel needs at least one tap");
  require(p.stride_y >= 1 && p.stride_x >= 1, "strides must be at least 1");
  require(p.dilation_y >= 1 && p.dilation_x >= 1, "dilations must be at least 1");
  require(p.pad_top >= 0 && p.pad_left >= 0 && p.pad_bottom >= 0 && p.pad_right >= 0,
          "pads must be at least 0");
  require(
      p.out_height() >= 1 && p.out_width() >= 1,
      "the (dilated) kernel is larger than the padded input; pad more or take a smaller kernel");
}

bool supports(const Problem& p, Pass pass, const Algorithm& algorithm) {
  if (is_empty(p)) return true;
  if (algorithm.method == Method::kDirect) return direct_computes(p, pass);
  bool height = algorithm.method == Method::kWinograd, width = height;
  for (const int size : fft_sizes()) {
    height = height || size == algorithm.tile_height;
    width = width || (size == algorithm.tile_width && size % 2 == 0);
  }
  Core core;
  return height && width && cut_core(p, pass, algorithm, &core);
}

size_t prepacked_bytes(const Problem& p, Pass pass, const Algorithm& algorithm) {
  if (pass == Pass::kGradientWeight || is_empty(p)) return 0;
  const int lanes = this_machines_engine().lanes;
  if (algorithm.method == Method::kDirect) {
    return static_cast<size_t>(direct_layout(p, pass, 1).prepacked_floats(lanes)) * 4;
  }
  const Core core = algorithm_core(p, pass, algorithm);
  return static_cast<size_t>(prepacked_floats(core, algorithm.method, lanes)) * 4;
}

bool prepack(const Problem& p, Pass pass, const Algorithm& algorithm, const float* w, void* memory,
             const Context& context) {
  if (prepacked_bytes(p, pass, algorithm) == 0) return true;
  if (algorithm.method == Method::kDirect) {
    this_machines_engine().prepack_direct(direct_layout(p, pass, context.threads), w,
                                          static_cast<float*>(memory), context);
    return true;
  }
  return finish(this_machines_engine().prepack(algorithm_core(p, pass, algorithm), algorithm.method,
                                               w, static_cast<float*>(memory), context));
}

bool forward(const Problem& p, const Algorithm& algorithm, const float* x, const void* prepacked,
             const float* bias, float* y, const Context& context) {
  if (is_empty(p)) return true;
  return convolve(p, Pass::kForward, algorithm, x, prepacked, bias, y, context);
}

bool gradient_input(const Problem& p, const Algorithm& algorithm, const float* dy,
                    const void* prepacked, float* dx, const Context& context) {
  if (p.batch * p.in_channels * p.height * p.width == 0) return true;
  if (is_empty(p)) {
    std::fill(dx, dx + p.batch * p.in_channels * p.height * p.width, 0.0f);
    return true;
  }
  return convolve(p, Pass::kGradientInput, algorithm, dy, prepacked, nullptr, dx, context);
}

bool gradient_weight(const Problem& p, const Algorithm& algorithm, const float* x, const float* dy,
                     float* dw, const Context& context) {
  if (is_empty(p)) {
    std::fill(dw,
              dw + p.out_channels * (p.in_channels / p.groups) * p.kernel_height * p.kernel_width,
              0.0f);
    return true;
  }
  constexpr Pass kPass = Pass::kGradientWeight;
  const Engine& engine = this_machines_engine();
  if (algorithm.method == Method::kDirect) {
    return check_memory(
        engine.correlate_direct(direct_layout(p, kPass, context.threads), x, dy, dw, context));
  }
  return finish(
      engine.correlate(algorithm_core(p, kPass, algorithm), algorithm.method, x, dy, dw, context));
}

}  // namespace graphscale::fft_conv
