// Local response normalisation across maps (fbcunn CrossMapNormalization; Krizhevsky et al. 2012,
// section 3.3, with 1 as its constant): y_c = x_c d_c^-power, d_c = 1 + scale * sum of x_j^2 over
// |j - c| <= (size - 1) / 2, zero beyond the ends. Scale is not divided by size, as ONNX LRN's
// alpha is.
//
// x is seen as [N, C, M]; one task is a block of columns of one sample, copied between maps of
// zeros. Cost: N * C * M * size additions and N * C * M powers, twice the additions for the
// gradient; x (and grad) and the result go through memory once.
#include <algorithm>

#include "kernels/cpu/vector_loops.h"
#include "kernels/cpu/widen.h"

namespace graphscale {
namespace {

constexpr int64_t kBlock = 1 << 14;  // numbers of a block
constexpr int64_t kMinColumns = 64;  // columns, unless there are fewer

void same_shape(ShapeCall& call) {
  const int64_t size = call.attributes.bounded("size", 1);
  if (size % 2 == 0) fail("size is " + std::to_string(size) + "; it must be odd");
  call.require_rank_at_least(0, 2);
  for (size_t i = 1; i < call.inputs.size(); ++i) {
    call.require_rank(i, call.inputs[0].size());
    for (size_t d = 0; d < call.inputs[0].size(); ++d) {
      call.require_equal(call.inputs[0][d], call.inputs[i][d], "the shapes of grad and x");
    }
  }
  call.outputs[0] = call.inputs[0];
}

// grad null: out is y. Else out is the gradient: with the factors f_c = d_c^-power and the shares
// s_c = grad_c x_c f_c / d_c it is grad_c f_c - 2 scale power x_c (sum of s_j over |j - c| <=
// radius).
template <typename Wide>
void normalize(const Context& context, const Attributes& attributes, const Shape& shape,
               const Wide* x, const Wide* grad, Wide* out) {
  const Wide scale = static_cast<Wide>(attributes.number("scale"));
  const Wide power = static_cast<Wide>(attributes.number("power"));
  const int64_t maps = shape[1];
  if (element_count(shape) == 0) return;
  const int64_t radius = std::min(attributes.integer("size") / 2, maps - 1);
  const int64_t size = 2 * radius + 1;
  const int64_t inner = element_count(shape) / (shape[0] * maps);
  const int64_t max_columns = std::min(inner, std::max(kMinColumns, kBlock / maps));
  const int64_t blocks = (inner + max_columns - 1) / max_columns;
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  parallel_ranges(context, shape[0] * blocks, 1, [&](int64_t begin, int64_t end) {
    const int64_t margin = radius * max_columns;
    const ScratchArray<Wide> padded(context, maps * max_columns + 2 * margin);
    const ScratchArray<Wide> divisors(context, maps * max_columns);
    const ScratchArray<Wide> factors(context, maps * max_columns);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t column = task % blocks * max_columns;
      const int64_t width = std::min(max_columns, inner - column);
      const int64_t base = task / blocks * maps * inner + column;
      const int64_t count = maps * width;
      // The block [maps, width] lies between `radius` maps of zeros: sums need no special case at
      // the ends.
      Wide* const middle = padded.get() + radius * width;
      std::fill(padded.get(), middle, Wide(0));
      std::fill_n(middle + count, radius * width, Wide(0));
      // visit(place in the block, place in x, how many) for every map.
      const auto for_each_map = [&](const auto& visit) {
        if (width == inner) return visit(0, base, count);
        for (int64_t c = 0; c < maps; ++c) visit(c * width, base + c * inner, width);
      };
      // 1. Squares of the block, 2. sums over `size` maps, 3. divisors d, 4. factors d^-power.
      for_each_map([&](int64_t at, int64_t place, int64_t length) {
        for (int64_t i = 0; i < length; ++i) middle[at + i] = x[place + i] * x[place + i];
      });
      loops.sum(count, size, width, padded.get(), divisors.get());
      for (int64_t i = 0; i < count; ++i) divisors[i] = 1 + scale * divisors[i];
      loops.power(count, divisors.get(), -power, factors.get());
      if (grad == nullptr) {
        for_each_map([&](int64_t at, int64_t place, int64_t length) {
          for (int64_t i = 0; i < length; ++i) out[place + i] = x[place + i] * factors[at + i];
        });
        continue;
      }
      // The gradient: grad f to factors, the shares s to the padded block, whose sums are the rest
      // of the formula.
      for_each_map([&](int64_t at, int64_t place, int64_t length) {
        for (int64_t i = 0; i < length; ++i) {
          factors[at + i] *= grad[place + i];
          middle[at + i] = factors[at + i] * x[place + i] / divisors[at + i];
        }
      });
      loops.sum(count, size, width, padded.get(), divisors.get());
      for_each_map([&](int64_t at, int64_t place, int64_t length) {
        for (int64_t i = 0; i < length; ++i) {
          out[place + i] = factors[at + i] - 2 * scale * power * x[place + i] * divisors[at + i];
        }
      });
    }
  });
}

template <typename T>
void run(const Call& call, const Tensor& x_tensor, const Tensor* grad_tensor) {
  using Wide = typename Accumulator<T>::type;
  const WideInput<T> x(call.context, x_tensor);
  const WideInput<T> grad(call.context, grad_tensor == nullptr ? Tensor() : *grad_tensor);
  const WideOutput<T> out(call.context, call.outputs[0]);
  normalize<Wide>(call.context, call.attributes, x_tensor.shape, x.get(),
                  grad_tensor == nullptr ? nullptr : grad.get(), out.get());
}

}  // namespace

Operator cross_map_normalization() {
  return Operator(
             "CrossMapNormalization",
             "Normalisation by neighbouring maps: y_c = x_c (1 + scale * sum of x_j^2 over |j - "
             "c| <= (size - 1) / 2)^-power.")
      .input("x", "[N, C, ...].")
      .output("y", "The shape of x.")
      .required_attribute("size", int64_t{0}, "Maps that are summed over; odd.")
      .attribute("scale", 1e-4, "Factor of the sum; not divided by size.")
      .attribute("power", 0.75, "Exponent.")
      .shape(same_shape)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { run<decltype(zero)>(call, call.inputs[0], nullptr); });
      });
}

Operator cross_map_normalization_grad() {
  return Operator("CrossMapNormalizationGrad", "Gradient of CrossMapNormalization to x.")
      .input("grad", "Gradient to y.")
      .input("x", "What CrossMapNormalization was given.")
      .output("grad_x", "The shape of x.")
      .required_attribute("size", int64_t{0}, "Maps that are summed over; odd.")
      .attribute("scale", 1e-4, "Factor of the sum; not divided by size.")
      .attribute("power", 0.75, "Exponent.")
      .shape(same_shape)
      .kernel([](const Call& call) {
        dispatch(call.type,
                 [&](auto zero) { run<decltype(zero)>(call, call.inputs[1], &call.inputs[0]); });
      });
}

}  // namespace graphscale
