#include "kernels/fft_conv/fft_conv.h"

#include <algorithm>

#include "kernels/fft_conv/engine.h"
#include "kernels/fft_conv/layout.h"
#include "kernels/operator.h"

namespace graphscale::fft_conv {
namespace {

int64_t out_extent(int64_t extent, int64_t kernel, int64_t stride, int64_t dilation, int64_t pads) {
  const int64_t room = extent + pads - (dilation * (kernel - 1) + 1);
  return room < 0 ? 0 : room / stride + 1;
}

const char* pass_name(Pass pass) {
  switch (pass) {
    case Pass::kForward: return "forward";
    case Pass::kGradientInput: return "the gradient to the input";
    default: return "the gradient to the weight";
  }
}

// The core of a pass cut into the plan's tiles; an error where the plan does not fit.
bool cut_core(const Problem& p, Pass pass, const Plan& plan, Core* core) {
  *core = make_core(p, pass);
  return plan.method != Method::kDirect && cut(core->y, plan.tile_height) &&
         cut(core->x, plan.tile_width);
}

Core planned_core(const Problem& p, Pass pass, const Plan& plan) {
  Core core;
  if (!supports(p, pass, plan) || !cut_core(p, pass, plan, &core)) {
    fail("the plan '" + to_string(plan) + "' does not compute " + pass_name(pass) +
         " of this convolution; take one of candidates()");
  }
  return core;
}

void check_memory(bool enough) {
  if (!enough) fail("no memory for the spectra of an FFT convolution; use the direct one here");
}

bool is_empty(const Problem& p) {
  return p.batch == 0 || p.out_channels == 0 || p.out_height() == 0 || p.out_width() == 0;
}

}  // namespace

int64_t Problem::out_height() const {
  return out_extent(height, kernel_height, stride_y, dilation_y, pad_top + pad_bottom);
}

int64_t Problem::out_width() const {
  return out_extent(width, kernel_width, stride_x, dilation_x, pad_left + pad_right);
}

std::string to_string(const Plan& plan) {
  if (plan.method == Method::kDirect) return "direct";
  return std::string(plan.method == Method::kDense ? "dense " : "per_channel ") +
         std::to_string(plan.tile_height) + "x" + std::to_string(plan.tile_width);
}

bool supports(const Problem& p, Pass pass, const Plan& plan) {
  if (plan.method == Method::kDirect || is_empty(p)) return true;
  bool height = false, width = false;
  for (const int size : fft_sizes()) {
    height = height || size == plan.tile_height;
    width = width || (size == plan.tile_width && size % 2 == 0);
  }
  Core core;
  return height && width && cut_core(p, pass, plan, &core);
}

size_t prepared_bytes(const Problem& p, Pass pass, const Plan& plan) {
  if (plan.method == Method::kDirect || pass == Pass::kGradientWeight || is_empty(p)) return 0;
  const Core core = planned_core(p, pass, plan);
  const int lanes = this_machines_engine().lanes;
  if (plan.method == Method::kDense) {
    return static_cast<size_t>(core.groups * DenseLayout(core, lanes).weights) * 4;
  }
  return static_cast<size_t>(blocks(core.groups * core.outs(), lanes) * core.ins() * core.columns() *
                             core.y.tile * 2 * lanes) * 4;
}

void prepare(const Problem& p, Pass pass, const Plan& plan, const float* w, void* memory,
             const Context& context) {
  if (prepared_bytes(p, pass, plan) == 0) return;
  check_memory(this_machines_engine().prepare(planned_core(p, pass, plan), plan.method, w,
                                              static_cast<float*>(memory), context));
}

void forward(const Problem& p, const Plan& plan, const float* x, const void* prepared,
             const float* bias, float* y, const Context& context) {
  if (is_empty(p)) return;
  check_memory(this_machines_engine().convolve(planned_core(p, Pass::kForward, plan), plan.method, x,
                                               static_cast<const float*>(prepared), bias, y, context));
}

void gradient_input(const Problem& p, const Plan& plan, const float* dy, const void* prepared,
                    float* dx, const Context& context) {
  if (p.batch * p.in_channels * p.height * p.width == 0) return;
  if (is_empty(p)) {
    std::fill(dx, dx + p.batch * p.in_channels * p.height * p.width, 0.0f);
    return;
  }
  check_memory(this_machines_engine().convolve(planned_core(p, Pass::kGradientInput, plan), plan.method,
                                               dy, static_cast<const float*>(prepared), nullptr, dx,
                                               context));
}

void gradient_weight(const Problem& p, const Plan& plan, const float* x, const float* dy, float* dw,
                     const Context& context) {
  if (is_empty(p)) {
    std::fill(dw, dw + p.out_channels * (p.in_channels / p.groups) * p.kernel_height * p.kernel_width,
              0.0f);
    return;
  }
  check_memory(this_machines_engine().correlate(planned_core(p, Pass::kGradientWeight, plan),
                                                plan.method, x, dy, dw, context));
}

}  // namespace graphscale::fft_conv
