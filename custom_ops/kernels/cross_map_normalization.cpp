// Local response normalisation across maps (fbcunn CrossMapNormalization; Krizhevsky et al. 2012,
// section 3.3, with 1 as its constant): y_c = x_c d_c^-power, d_c = 1 + scale * sum of x_j^2 over
// |j - c| <= (size - 1) / 2, zero beyond the ends. Scale is not divided by size, as ONNX LRN's alpha is.
//
// x is seen as [N, C, M]; one task is a block of columns of one sample. Cost: N * C * M * size.
#include <algorithm>
#include <cmath>

#include "kernels/widen.h"

namespace graphscale {
namespace {

constexpr int64_t kColumns = 64;

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

// window(c, first, last): the maps around map c.
template <typename F>
void for_each_map(int64_t maps, int64_t radius, const F& window) {
  for (int64_t c = 0; c < maps; ++c) {
    window(c, std::max<int64_t>(0, c - radius), std::min(maps - 1, c + radius));
  }
}

template <typename T>
void normalize(const Call& call, const Tensor& input, const T* grad_values, T* out) {
  using Wide = typename Accumulator<T>::type;
  const Wide scale = static_cast<Wide>(call.attributes.number("scale"));
  const Wide power = static_cast<Wide>(call.attributes.number("power"));
  const int64_t radius = call.attributes.integer("size") / 2;
  const int64_t batch = input.shape[0];
  const int64_t maps = input.shape[1];
  if (input.size() == 0) return;
  const int64_t inner = input.size() / (batch * maps);
  const int64_t blocks = (inner + kColumns - 1) / kColumns;
  const T* const x = input.data<T>();
  parallel_for(call.context, batch * blocks, [&](int64_t task) {
    const int64_t column = task % blocks * kColumns;
    const int64_t width = std::min(kColumns, inner - column);
    const int64_t base = task / blocks * maps * inner + column;
    // share[c] = grad_j x_j d_j^(-power - 1), what map c passes to its neighbours' gradients.
    const ScratchArray<Wide> share(call.context, grad_values == nullptr ? 0 : maps * width);
    for_each_map(maps, radius, [&](int64_t c, int64_t first, int64_t last) {
      for (int64_t m = 0; m < width; ++m) {
        Wide sum = 0;
        for (int64_t j = first; j <= last; ++j) {
          const Wide value = static_cast<Wide>(x[base + j * inner + m]);
          sum += value * value;
        }
        const int64_t at = base + c * inner + m;
        const Wide divisor = 1 + scale * sum;
        const Wide factor = std::pow(divisor, -power);
        const Wide value = static_cast<Wide>(x[at]);
        if (grad_values == nullptr) {
          out[at] = T(value * factor);
        } else {
          share[c * width + m] = static_cast<Wide>(grad_values[at]) * value * factor / divisor;
        }
      }
    });
    if (grad_values == nullptr) return;
    for_each_map(maps, radius, [&](int64_t c, int64_t first, int64_t last) {
      for (int64_t m = 0; m < width; ++m) {
        const int64_t at = base + c * inner + m;
        Wide squares = 0;
        Wide shares = 0;
        for (int64_t j = first; j <= last; ++j) {
          const Wide value = static_cast<Wide>(x[base + j * inner + m]);
          squares += value * value;
          shares += share[j * width + m];
        }
        const Wide factor = std::pow(1 + scale * squares, -power);
        out[at] = T(static_cast<Wide>(grad_values[at]) * factor -
                    2 * scale * power * static_cast<Wide>(x[at]) * shares);
      }
    });
  });
}

}  // namespace

Operator cross_map_normalization() {
  return Operator("CrossMapNormalization",
                  "Normalisation by neighbouring maps: y_c = x_c (1 + scale * sum of x_j^2 over |j - "
                  "c| <= (size - 1) / 2)^-power.")
      .input("x", "[N, C, ...].")
      .output("y", "The shape of x.")
      .required_attribute("size", int64_t{0}, "Maps that are summed over; odd.")
      .attribute("scale", 1e-4, "Factor of the sum; not divided by size.")
      .attribute("power", 0.75, "Exponent.")
      .shape(same_shape)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) {
          using T = decltype(zero);
          normalize<T>(call, call.inputs[0], nullptr, call.outputs[0].data<T>());
        });
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
        dispatch(call.type, [&](auto zero) {
          using T = decltype(zero);
          normalize<T>(call, call.inputs[1], call.inputs[0].data<T>(), call.outputs[0].data<T>());
        });
      });
}

}  // namespace graphscale
