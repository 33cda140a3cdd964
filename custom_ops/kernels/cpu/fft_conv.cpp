// FFTConv: everything that ONNX Conv computes, and its two gradients. In float (and the 16-bit
// types) and in one or two dimensions by the kernels of fft_conv/, whose headers give the cost of
// each algorithm; the rest is computed directly (conv_direct.h), and so is a call with infinities,
// NaN or a number far larger than most, which transforms would spread over their tiles. Tensors are
// dense, [N, C, ...] and [F, C / group, ...].
#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "core/fork.h"
#include "core/wait.h"
#include "kernels/cpu/conv_direct.h"
#include "kernels/cpu/fft_conv/fft_conv.h"
#include "kernels/cpu/fft_conv/problem.h"
#include "kernels/cpu/widen.h"

namespace graphscale {
namespace {

void require_grad(ShapeCall& call, size_t x, size_t weight) {
  const Dims y = conv_output_dims(call, x, weight);
  call.require_rank(0, y.size());
  for (size_t d = 0; d < y.size(); ++d) {
    call.require_equal(call.inputs[0][d], y[d], "the shapes of grad and of the output");
  }
}

// Whether kernels/cpu/fft_conv computes such convolutions by any algorithm; it does not where there
// is nothing to compute.
bool has_algorithms(const ConvGeometry& g) {
  return g.in.size() <= 2 &&
         std::min({g.batch, g.in_channels, g.out_channels, g.in_size(), g.out_size()}) > 0;
}

// The algorithm by which kernels/cpu/fft_conv computes a pass; nullopt where it does not.
std::optional<std::pair<fft_conv::Problem, fft_conv::Algorithm>> algorithm_of(const Call& call,
                                                                              const ConvGeometry& g,
                                                                              fft_conv::Pass pass) {
  if (!has_algorithms(g)) return std::nullopt;
  // The attribute's algorithm where it fits, else the choice of the cost model.
  const fft_conv::Problem p = fft_conv::problem_of(g);
  // The attribute may have been measured for another size or on another device.
  const auto wish = fft_conv::parse_algorithm(call.attributes.text("algorithm"));
  const bool direct = wish && wish->method == fft_conv::Method::kDirect;
  const fft_conv::Algorithm algorithm = wish && (direct || fft_conv::supports(p, pass, *wish))
                                            ? *wish
                                            : fft_conv::choose(p, pass, call.context.threads);
  if (!fft_conv::supports(p, pass, algorithm)) return std::nullopt;
  return std::pair(p, algorithm);
}

template <size_t kX, size_t kWeight, fft_conv::Pass kPass>
std::vector<std::string> list_algorithms(const Call& call) {
  const ConvGeometry g =
      conv_geometry(call.attributes, call.inputs[kX].shape, call.inputs[kWeight].shape);
  if (call.type == Type::kFloat64 || !has_algorithms(g)) return {"direct"};
  std::vector<std::string> algorithms;
  for (const fft_conv::Algorithm& algorithm :
       fft_conv::candidates(fft_conv::problem_of(g), kPass, call.context.threads)) {
    algorithms.push_back(fft_conv::to_string(algorithm));
  }
  return algorithms;
}

Operator&& with_algorithm(Operator&& op, AlgorithmsFunction list) {
  return std::move(op)
      .attribute(
          "algorithm", std::string("auto"),
          "How to compute it, as measured before: 'direct', 'winograd 6x6', 'dense 32x32' or "
          "'per_channel 72x72' (method and tile). A hint: an algorithm that does not fit the "
          "device or "
          "the sizes is ignored, and 'auto' leaves the choice to a cost model.")
      .algorithms(list);
}

// A room for threads that hold the lock of any ConstantWeights; fork() waits until it is empty.
// (Not std::shared_mutex: a child cannot unlock what its parent locked.)
class Room {
 public:
  Room() {
    const std::lock_guard<std::mutex> entering(entrance);
    const std::lock_guard<std::mutex> counting(counter);
    ++inside;
  }
  ~Room() {
    const std::lock_guard<std::mutex> counting(counter);
    if (--inside == 0) empty.notify_all();
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

  static void lock() {
    entrance.lock();
    std::unique_lock<std::mutex> counting(counter);
    wait(empty, counting, [] { return inside == 0; });
  }
  static void unlock() { entrance.unlock(); }

 private:
  static inline std::mutex entrance;  // held by fork(), before which others wait
  static inline std::mutex counter;
  static inline std::condition_variable empty;
  static inline int64_t inside = 0;
};

[[maybe_unused]] const bool forks = at_fork(ForkOrder::kPrepackedWeights, Room::lock, Room::unlock);

// The prepacked form of a model's constant weights, one for each algorithm. It does not depend on
// the image.
class ConstantWeights : public Prepacked {
 public:
  // Null where the weights are too far apart for the algorithm.
  const void* prepacked(const Context& context, const fft_conv::Problem& p, fft_conv::Pass pass,
                        const fft_conv::Algorithm& algorithm, const float* weight) const {
    const Room room;
    const std::lock_guard<std::mutex> lock(mutex_);
    // Made at the first call with this algorithm, under the lock; later calls only look it up.
    const auto key = std::tuple(algorithm.method, algorithm.tile_height, algorithm.tile_width);
    if (const auto kept = kept_.find(key); kept != kept_.end()) return kept->second.get();
    const size_t bytes = fft_conv::prepacked_bytes(p, pass, algorithm);
    std::unique_ptr<void, Free> memory(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
    if (memory == nullptr) fail("no memory for the spectra of W");
    if (fft_conv::prepack(p, pass, algorithm, weight, memory.get(), context)) {
      bytes_ += bytes;
    } else {
      memory.reset();
    }
    return (kept_[key] = std::move(memory)).get();
  }

  size_t bytes() const override {
    const Room room;
    const std::lock_guard<std::mutex> lock(mutex_);
    return bytes_;
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  mutable std::mutex mutex_;
  mutable size_t bytes_ = 0;
  mutable std::map<std::tuple<fft_conv::Method, int, int>, std::unique_ptr<void, Free>> kept_;
};

// A shape for x where the session does not know it: as large as the kernel, which is enough to
// prepack for a given algorithm.
Shape smallest_image(const Attributes& attributes, const Shape& weight) {
  Shape x = {1, weight[1] * attributes.integer("group")};
  for (size_t d = 2; d < weight.size(); ++d) {
    const auto& dilations = attributes.integers("dilations");
    x.push_back((dilations.empty() ? 1 : dilations[d - 2]) * (weight[d] - 1) + 1);
  }
  return x;
}

// Prepacks the weights for the algorithm of the node's attribute, or for the one that will be
// chosen where the size of the image is known; else the first run prepacks them.
template <size_t kX, fft_conv::Pass kPass>
std::unique_ptr<Prepacked> prepack_weights(const Context& context, const Attributes& attributes,
                                           Type type, const std::vector<Tensor>& inputs) {
  if (!inputs[1].present) return nullptr;
  auto weights = std::make_unique<ConstantWeights>();
  const Shape& weight = inputs[1].shape;
  Shape x = inputs[kX].shape;
  const bool known = !x.empty() && *std::min_element(x.begin(), x.end()) > 0;
  if (type == Type::kFloat64 ||
      (!known && !fft_conv::parse_algorithm(attributes.text("algorithm")))) {
    return weights;
  }
  if (!known) x = smallest_image(attributes, weight);
  const Call call{context, attributes, type, {}, {}, nullptr};
  try {
    if (const auto chosen = algorithm_of(call, conv_geometry(attributes, x, weight), kPass)) {
      dispatch(type, [&](auto zero) {
        using T = decltype(zero);
        if constexpr (!std::is_same_v<T, double>) {
          const WideInput<T> wide(context, inputs[1]);
          weights->prepacked(context, chosen->first, kPass, chosen->second, wide.get());
        }
      });
    }
  } catch (const Error&) {  // the run itself will report the error
  }
  return weights;
}

// use(spectra) with the spectra of the weights, prepacked or computed for this call; false where the
// weights are too far apart for that.
template <typename Use>
bool with_spectra(const Call& call, const fft_conv::Problem& p, fft_conv::Pass pass,
                  const fft_conv::Algorithm& algorithm, const float* weight, const Use& use) {
  if (const auto* constant = static_cast<const ConstantWeights*>(call.prepacked)) {
    const void* const spectra = constant->prepacked(call.context, p, pass, algorithm, weight);
    return spectra != nullptr && use(spectra);
  }
  const auto bytes = static_cast<int64_t>(fft_conv::prepacked_bytes(p, pass, algorithm));
  const ScratchArray<char> spectra(call.context, bytes);
  return fft_conv::prepack(p, pass, algorithm, weight, spectra.get(), call.context) &&
         use(spectra.get());
}

// run(algorithm), and run(direct) where the numbers of the call are too far apart for the
// algorithm; false where kernels/cpu/fft_conv does not compute that pass directly.
template <typename Run>
bool run_or_direct(const fft_conv::Problem& p, fft_conv::Pass pass,
                   const fft_conv::Algorithm& algorithm, const Run& run) {
  const fft_conv::Algorithm direct;
  return run(algorithm) || (fft_conv::supports(p, pass, direct) && run(direct));
}

template <typename T>
void forward(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const ConvGeometry g = conv_geometry(call.attributes, call.inputs[0].shape, call.inputs[1].shape);
  const WideInput<T> x(call.context, call.inputs[0]);
  const WideInput<T> weight(call.context, call.inputs[1]);
  const WideInput<T> bias(call.context, call.inputs[2]);
  const WideOutput<T> y(call.context, call.outputs[0]);
  const Bounds bounds = conv_bounds(call.attributes);
  constexpr auto kPass = fft_conv::Pass::kForward;
  // float, and 16-bit types widened to float, go to the kernels of fft_conv/; double is computed
  // directly.
  if constexpr (std::is_same_v<Wide, float>) {
    if (const auto chosen = algorithm_of(call, g, kPass)) {
      fft_conv::Problem p = chosen->first;
      p.bounds = bounds;
      const auto run = [&](const fft_conv::Algorithm& algorithm) {
        return with_spectra(call, p, kPass, algorithm, weight.get(), [&](const void* spectra) {
          return fft_conv::forward(p, algorithm, x.get(), spectra, bias.get(), y.get(),
                                   call.context);
        });
      };
      if (run_or_direct(p, kPass, chosen->second, run)) return;
    }
  }
  conv_direct<Wide>(call.context, g, x.get(), weight.get(), bias.get(), bounds, y.get());
}

template <typename T>
void grad_input(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const ConvGeometry g = conv_geometry(call.attributes, call.inputs[2].shape, call.inputs[1].shape);
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> weight(call.context, call.inputs[1]);
  const WideOutput<T> grad_x(call.context, call.outputs[0]);
  constexpr auto kPass = fft_conv::Pass::kGradientInput;
  if constexpr (std::is_same_v<Wide, float>) {
    if (const auto chosen = algorithm_of(call, g, kPass)) {
      const fft_conv::Problem& p = chosen->first;
      const auto run = [&](const fft_conv::Algorithm& algorithm) {
        return with_spectra(call, p, kPass, algorithm, weight.get(), [&](const void* spectra) {
          return fft_conv::gradient_input(p, algorithm, grad.get(), spectra, grad_x.get(),
                                          call.context);
        });
      };
      if (run_or_direct(p, kPass, chosen->second, run)) return;
    }
  }
  conv_direct_grad_input<Wide>(call.context, g, grad.get(), weight.get(), grad_x.get());
}

template <typename T>
void grad_weight(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const ConvGeometry g = conv_geometry(call.attributes, call.inputs[1].shape, call.inputs[2].shape);
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> x(call.context, call.inputs[1]);
  const WideOutput<T> result(call.context, call.outputs[0]);
  constexpr auto kPass = fft_conv::Pass::kGradientWeight;
  if constexpr (std::is_same_v<Wide, float>) {
    if (const auto chosen = algorithm_of(call, g, kPass)) {
      const fft_conv::Problem& p = chosen->first;
      const auto run = [&](const fft_conv::Algorithm& algorithm) {
        return fft_conv::gradient_weight(p, algorithm, x.get(), grad.get(), result.get(),
                                         call.context);
      };
      if (run_or_direct(p, kPass, chosen->second, run)) return;
    }
  }
  conv_direct_grad_weight<Wide>(call.context, g, grad.get(), x.get(), result.get());
}

}  // namespace

Operator fft_convolution() {
  return with_algorithm(
             with_conv_attributes(
                 Operator(
                     "FFTConv",
                     "Convolution with all that ONNX Conv has, by FFT or Winograd's method where "
                     "that is faster.")
                     .input("X", "[N, C, ...], one to three spatial dimensions.")
                     .weight("W", "Kernels [F, C / group, ...].")
                     .optional_weight("B", "[F].")
                     .output("Y", "[N, F, ...].")),
             list_algorithms<0, 1, fft_conv::Pass::kForward>)
      .attribute("auto_pad", std::string("NOTSET"),
                 "As Conv's: NOTSET, VALID, SAME_UPPER or SAME_LOWER.")
      .attribute("minimum", kNoMinimum,
                 "Y is at least this: 0 stands for a Relu behind the convolution.")
      .attribute("maximum", kNoMaximum, "Y is at most this.")
      .shape([](ShapeCall& call) {
        call.outputs[0] = conv_output_dims(call, 0, 1);
        if (call.present[2]) {
          call.require_rank(2, 1);
          call.require_equal(call.inputs[2][0], call.inputs[1][0], "the lengths of B and W");
        }
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { forward<decltype(zero)>(call); });
      })
      .prepack(1, prepack_weights<0, fft_conv::Pass::kForward>);
}

Operator fft_convolution_grad_input() {
  return with_algorithm(
             with_conv_attributes(Operator("FFTConvGradInput", "Gradient of FFTConv to X.")
                                      .input("grad", "Gradient to Y.")
                                      .input("W", "What FFTConv was given.")
                                      .input("X", "What FFTConv was given; only its shape is used.")
                                      .output("grad_X", "The shape of X.")),
             list_algorithms<2, 1, fft_conv::Pass::kGradientInput>)
      .shape([](ShapeCall& call) {
        require_grad(call, 2, 1);
        call.outputs[0] = call.inputs[2];
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { grad_input<decltype(zero)>(call); });
      })
      .prepack(1, prepack_weights<2, fft_conv::Pass::kGradientInput>);
}

Operator fft_convolution_grad_weight() {
  return with_algorithm(
             with_conv_attributes(Operator("FFTConvGradWeight", "Gradient of FFTConv to W.")
                                      .input("grad", "Gradient to Y.")
                                      .input("X", "What FFTConv was given.")
                                      .input("W", "What FFTConv was given; only its shape is used.")
                                      .output("grad_W", "The shape of W.")),
             list_algorithms<1, 2, fft_conv::Pass::kGradientWeight>)
      .shape([](ShapeCall& call) {
        require_grad(call, 1, 2);
        call.outputs[0] = call.inputs[2];
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { grad_weight<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
