// FFTConv and its gradients on CUDA: the plan, the kernels' spectra (made once where the weight is
// a constant of a session), and the kernels of fft/ or conv_direct.h.
#include <map>
#include <mutex>

#include "kernels/cuda/conv_direct.h"
#include "kernels/cuda/fft/dense.h"
#include "kernels/cuda/fft/per_channel.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/session_memory.h"

namespace graphscale::cuda {
namespace {

int64_t spectra_count(const ConvGeometry& g, const Plan& plan) {
  return plan.method == Method::kDense ? dense_spectra_count(g, plan.size)
                                       : channel_spectra_count(g, plan.size);
}

void make_spectra(const Context& context, const ConvGeometry& g, const Plan& plan,
                  const Plane& taps, Complex* spectra) {
  if (plan.method == Method::kDense)
    return make_dense_spectra(context, g, plan.size, taps, spectra);
  make_channel_spectra(context, g, plan.size, taps, spectra);
}

// The spectra of a constant weight, for each plan that calls came with. They are made by the first
// such call, which alone waits for the GPU; while a CUDA graph records, or where memory is short,
// calls make their own.
struct ConstantWeight : Prepared {
  const Complex* find(const Context& context, const ConvGeometry& g, const Plan& plan,
                      const Plane& taps) const {
    const std::lock_guard<std::mutex> lock(mutex);
    std::unique_ptr<SessionMemory>& memory = spectra[{plan.method, plan.size}];
    if (memory == nullptr) {
      if (is_recording(context)) return nullptr;
      const size_t bytes = static_cast<size_t>(spectra_count(g, plan)) * sizeof(Complex);
      memory.reset(SessionMemory::allocate(bytes));
      if (memory == nullptr) return nullptr;
      make_spectra(context, g, plan, taps, static_cast<Complex*>(memory->get()));
      wait_for(context);
    }
    return static_cast<const Complex*>(memory->get());
  }

  mutable std::mutex mutex;
  mutable std::map<std::pair<Method, int>, std::unique_ptr<SessionMemory>> spectra;
};

// y or grad_x by FFT.
void convolve(const Call& call, const ConvGeometry& g, Pass pass, const Plan& plan,
              const Tensor& in, const Tensor& weight, const Tensor& out, const Tensor* bias) {
  const Layout planes = layout(g, pass, plan.size, in, weight, out);
  const Complex* spectra = nullptr;
  if (const auto* constant = static_cast<const ConstantWeight*>(call.prepared)) {
    spectra = constant->find(call.context, g, plan, planes.taps);
  }
  const ScratchArray<Complex> room(call.context, spectra == nullptr ? spectra_count(g, plan) : 0);
  if (spectra == nullptr) {
    make_spectra(call.context, g, plan, planes.taps, room.get());
    spectra = room.get();
  }
  const Plane bias_plane =
      bias == nullptr ? Plane{} : Plane{bias->memory, bias->type, 0, 0, {}, {}};
  const Plane* const given = bias == nullptr ? nullptr : &bias_plane;
  if (plan.method == Method::kDense) {
    convolve_dense(call.context, g, pass, plan.size, planes, spectra, given);
  } else {
    convolve_per_channel(call.context, g.out_channels, g.group_outputs(), plan.size, planes,
                         spectra, given);
  }
}

}  // namespace

void fft_conv(const Call& call) {
  const Tensor& x = call.inputs[0];
  const Tensor& weight = call.inputs[1];
  const Tensor& bias = call.inputs[2];
  const ConvGeometry g = conv_geometry(call.attributes, x.shape, weight.shape);
  const Tensor& y = call.outputs[0];
  if (y.size() == 0) return;
  const Plan plan = choose(g, Pass::kForward, call.type);
  if (plan.method != Method::kDirect) {
    return convolve(call, g, Pass::kForward, plan, x, weight, y, bias.present ? &bias : nullptr);
  }
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(
        call.context, y.size(),
        ConvForward<T>{x.data<T>(), weight.data<T>(), bias.present ? bias.data<T>() : nullptr,
                       y.data<T>(), ConvSizes(g)});
  });
}

void fft_conv_grad_input(const Call& call) {
  const Tensor& grad = call.inputs[0];
  const Tensor& weight = call.inputs[1];
  const Tensor& grad_x = call.outputs[0];
  const ConvGeometry g = conv_geometry(call.attributes, call.inputs[2].shape, weight.shape);
  if (grad_x.size() == 0) return;
  const Plan plan = choose(g, Pass::kGradientInput, call.type);
  if (plan.method != Method::kDirect) {
    return convolve(call, g, Pass::kGradientInput, plan, grad, weight, grad_x, nullptr);
  }
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(
        call.context, grad_x.size(),
        ConvGradInput<T>{grad.data<T>(), weight.data<T>(), grad_x.data<T>(), ConvSizes(g)});
  });
}

void fft_conv_grad_weight(const Call& call) {
  const Tensor& grad = call.inputs[0];
  const Tensor& x = call.inputs[1];
  const Tensor& grad_weight = call.outputs[0];
  const ConvGeometry g = conv_geometry(call.attributes, x.shape, call.inputs[2].shape);
  if (grad_weight.size() == 0) return;
  const Plan plan = choose(g, Pass::kGradientWeight, call.type);
  if (plan.method != Method::kDirect) {
    const Layout planes = layout(g, Pass::kGradientWeight, plan.size, x, grad_weight, grad);
    if (plan.method == Method::kDense) return correlate_dense(call.context, g, plan.size, planes);
    return correlate_per_channel(call.context, g.out_channels, g.group_outputs(), plan.size,
                                 planes);
  }
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(
        call.context, grad_weight.size(),
        ConvGradWeight<T>{grad.data<T>(), x.data<T>(), grad_weight.data<T>(), ConvSizes(g)});
  });
}

std::unique_ptr<Prepared> prepare_conv(const Context&, const Attributes&, Type,
                                       const std::vector<Tensor>& inputs) {
  if (!inputs[1].present) return nullptr;  // the weight
  return std::make_unique<ConstantWeight>();
}

}  // namespace graphscale::cuda
