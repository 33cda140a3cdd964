// FFTConv and its gradients on CUDA: the algorithm, the kernels' spectra (made once where the
// weight is a constant of a session), and the kernels of fft/ or conv_direct.h. Tensors are dense,
// [N, C, ...] and [F, C / group, ...]; the headers of the methods give their cost.
#include <map>
#include <mutex>
#include <utility>

#include "kernels/cpu/fft_conv/problem.h"
#include "kernels/cuda/conv_direct.h"
#include "kernels/cuda/fft/dense.h"
#include "kernels/cuda/fft/per_channel.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/session_memory.h"

namespace graphscale::cuda {
namespace {

size_t spectra_bytes(const Algorithm& algorithm, const Layout& layout) {
  if (algorithm.method == Method::kDense) return dense_spectra_bytes(algorithm, layout);
  return static_cast<size_t>(channel_spectra_count(layout, algorithm.size)) * sizeof(Complex);
}

void make_spectra(const Context& context, const Algorithm& algorithm, const Layout& layout,
                  void* spectra) {
  if (algorithm.method == Method::kDense)
    return make_dense_spectra(context, algorithm, layout, spectra);
  make_channel_spectra(context, algorithm.size, layout, static_cast<Complex*>(spectra));
}

// The spectra of a constant weight, for each algorithm that calls came with, and for folded lines
// (one session may see images of height 1 and higher ones). The first such call makes them, and
// only this call waits for the GPU. While a CUDA graph is recorded, or where memory is short, each
// call makes spectra of its own.
struct ConstantWeight : Prepacked {
  const void* find(const Context& context, const Algorithm& algorithm, const Layout& layout) const {
    // The first call makes them; later calls, of any thread, find them.
    const std::lock_guard<std::mutex> lock(mutex);
    std::unique_ptr<SessionMemory>& memory = spectra[{algorithm, layout.in.fold}];
    if (memory == nullptr) {
      if (is_recording(context)) return nullptr;
      const size_t bytes = spectra_bytes(algorithm, layout);
      std::unique_ptr<SessionMemory> made(SessionMemory::allocate(bytes));
      if (made == nullptr) return nullptr;
      make_spectra(context, algorithm, layout, made->get());
      wait_for(context);
      memory = std::move(made);
      kept += bytes;
    }
    return memory->get();
  }

  size_t bytes() const override {
    const std::lock_guard<std::mutex> lock(mutex);
    return kept;
  }

  mutable std::mutex mutex;
  mutable std::map<std::pair<Algorithm, int>, std::unique_ptr<SessionMemory>> spectra;
  mutable size_t kept = 0;
};

// y or grad_x by FFT.
void convolve(const Call& call, const Algorithm& algorithm, const Layout& planes,
              const Tensor* bias) {
  const void* spectra = nullptr;
  if (const auto* constant = static_cast<const ConstantWeight*>(call.prepacked)) {
    spectra = constant->find(call.context, algorithm, planes);
  }
  const size_t bytes = spectra == nullptr ? spectra_bytes(algorithm, planes) : 0;
  const ScratchArray<unsigned char> room(call.context, static_cast<int64_t>(bytes));
  if (spectra == nullptr) {
    make_spectra(call.context, algorithm, planes, room.get());
    spectra = room.get();
  }
  // The bias is a plane of one number per output.
  Plane bias_plane{};
  if (bias != nullptr) {
    bias_plane.data = bias->memory;
    bias_plane.type = bias->type;
  }
  const Plane* const given = bias == nullptr ? nullptr : &bias_plane;
  if (algorithm.method == Method::kDense) {
    convolve_dense(call.context, algorithm, planes, spectra, given);
  } else {
    convolve_per_channel(call.context, algorithm.size, planes, static_cast<const Complex*>(spectra),
                         given);
  }
}

// Three spatial dimensions and float64 have the direct method only.
bool has_ffts(const Call& call, const ConvGeometry& g) {
  return g.in.size() <= 2 && call.type != Type::kFloat64;
}

// The planes of a pass that is not direct; `algorithm` is what was chosen.
std::optional<Layout> choose_planes(const Call& call, const ConvGeometry& g, Pass pass,
                                    const Tensor& in, const Tensor& taps, const Tensor& out,
                                    Algorithm* algorithm) {
  if (!has_ffts(call, g)) return std::nullopt;
  const Problem p = fft_conv::problem_of(g);
  const bool wished = call.attributes.has("algorithm");
  *algorithm = choose(p, pass, call.type, wished ? call.attributes.text("algorithm") : "auto");
  const std::optional<TiledCore> cut = cut_core(p, pass, *algorithm, call.type);
  if (!cut) return std::nullopt;
  return make_layout(*cut, in, taps, out);
}

template <size_t kX, size_t kWeight, Pass kPass>
std::vector<std::string> list_algorithms(const Call& call) {
  const ConvGeometry g =
      conv_geometry(call.attributes, call.inputs[kX].shape, call.inputs[kWeight].shape);
  if (!has_ffts(call, g)) return {to_string(Algorithm{})};
  std::vector<std::string> algorithms;
  for (const Algorithm& algorithm : candidates(fft_conv::problem_of(g), kPass, call.type)) {
    algorithms.push_back(to_string(algorithm));
  }
  return algorithms;
}

template <typename T>
struct Clip {
  T* y;
  Bounds bounds;
  GRAPHSCALE_DEVICE void operator()(int64_t index) const {
    const auto value = widen(y[index]);  // NaN stays
    if (value < bounds.minimum) y[index] = narrow<T>(bounds.minimum);
    if (value > bounds.maximum) y[index] = narrow<T>(bounds.maximum);
  }
};

void clip(const Call& call) {
  const Bounds bounds = conv_bounds(call.attributes);
  if (!are_finite(bounds)) return;
  const Tensor& y = call.outputs[0];
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(call.context, y.size(), Clip<T>{y.data<T>(), bounds});
  });
}

}  // namespace

void fft_conv(const Call& call) {
  const Tensor& x = call.inputs[0];
  const Tensor& weight = call.inputs[1];
  const Tensor& bias = call.inputs[2];
  const ConvGeometry g = conv_geometry(call.attributes, x.shape, weight.shape);
  const Tensor& y = call.outputs[0];
  if (y.size() == 0) return;
  Algorithm algorithm;
  if (const auto planes = choose_planes(call, g, Pass::kForward, x, weight, y, &algorithm)) {
    convolve(call, algorithm, *planes, bias.present ? &bias : nullptr);
    return clip(call);
  }
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(
        call.context, y.size(),
        ConvForward<T>{x.data<T>(), weight.data<T>(), bias.present ? bias.data<T>() : nullptr,
                       y.data<T>(), ConvSizes(g)});
  });
  clip(call);
}

void fft_conv_grad_input(const Call& call) {
  const Tensor& grad = call.inputs[0];
  const Tensor& weight = call.inputs[1];
  const Tensor& grad_x = call.outputs[0];
  const ConvGeometry g = conv_geometry(call.attributes, call.inputs[2].shape, weight.shape);
  if (grad_x.size() == 0) return;
  Algorithm algorithm;
  if (const auto planes =
          choose_planes(call, g, Pass::kGradientInput, grad, weight, grad_x, &algorithm)) {
    return convolve(call, algorithm, *planes, nullptr);
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
  Algorithm algorithm;
  if (const auto planes =
          choose_planes(call, g, Pass::kGradientWeight, x, grad_weight, grad, &algorithm)) {
    if (algorithm.method == Method::kDense)
      return correlate_dense(call.context, algorithm, *planes);
    return correlate_per_channel(call.context, algorithm.size, *planes);
  }
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(
        call.context, grad_weight.size(),
        ConvGradWeight<T>{grad.data<T>(), x.data<T>(), grad_weight.data<T>(), ConvSizes(g)});
  });
}

std::vector<std::string> fft_conv_algorithms(const Call& call) {
  return list_algorithms<0, 1, Pass::kForward>(call);
}
std::vector<std::string> fft_conv_grad_input_algorithms(const Call& call) {
  return list_algorithms<2, 1, Pass::kGradientInput>(call);
}
std::vector<std::string> fft_conv_grad_weight_algorithms(const Call& call) {
  return list_algorithms<1, 2, Pass::kGradientWeight>(call);
}

std::unique_ptr<Prepacked> prepack_conv(const Context&, const Attributes&, Type,
                                        const std::vector<Tensor>& inputs) {
  if (!inputs[1].present) return nullptr;  // the weight
  return std::make_unique<ConstantWeight>();
}

}  // namespace graphscale::cuda
