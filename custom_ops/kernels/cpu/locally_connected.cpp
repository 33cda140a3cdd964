// A convolution whose kernel is not shared over positions (fbcunn LocallyConnected):
//   y[n, f, i, j] = sum over c, k, l of weight[f, i, j, c, k, l] x[n, c, i sy + k, j sx + l].
//
// Every output position is one small matrix product of the batch's patches [N, Q], Q = C kH kW,
// with the position's weights [F, Q]. Cost: 2 N F Q H_out W_out operations in each pass; with small
// batches it is the reading of the weights, once.
#include <algorithm>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/widen.h"
#include "kernels/locally_connected_sizes.h"

namespace graphscale {
namespace {

using Sizes = LocallyConnectedSizes;

// visit(offset in the patch [c0, c1), offset in x's sample) for one output position.
template <typename F>
void for_each_patch_row(const Sizes& s, int64_t position, int64_t c0, int64_t c1, const F& visit) {
  const int64_t corner = s.corner(position);
  int64_t at = 0;
  for (int64_t c = c0; c < c1; ++c) {
    for (int64_t k = 0; k < s.kernel_height; ++k, at += s.kernel_width) {
      visit(at, (c * s.height + k) * s.width + corner);
    }
  }
}

template <typename Wide>
void gather_patches(const Sizes& s, int64_t position, const Wide* x, Wide* patches) {
  for (int64_t n = 0; n < s.batch; ++n) {
    const Wide* const sample = x + n * s.channels * s.height * s.width;
    Wide* const patch = patches + n * s.patch();
    for_each_patch_row(s, position, 0, s.channels, [&](int64_t to, int64_t from) {
      std::copy_n(sample + from, s.kernel_width, patch + to);
    });
  }
}

// body(context, position, patches [N, Q], room for [N, F] numbers) for all positions, in parallel.
template <typename Wide, typename F>
void for_each_position(const Context& context, const Sizes& s, const Wide* x, const F& body) {
  const Context inner = one_thread(context);
  parallel_ranges(context, s.positions(), 1, [&](int64_t begin, int64_t end) {
    const ScratchArray<Wide> patches(context, s.batch * s.patch());
    const ScratchArray<Wide> room(context, s.batch * s.filters);
    for (int64_t p = begin; p < end; ++p) {
      gather_patches(s, p, x, patches.get());
      body(inner, p, patches.get(), room.get());
    }
  });
}

template <typename T>
void forward(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Sizes s = locally_connected_sizes(call, call.inputs[0], call.inputs[1]);
  const WideInput<T> x(call.context, call.inputs[0]);
  const WideInput<T> weight(call.context, call.inputs[1]);
  const WideOutput<T> y(call.context, call.outputs[0]);
  for_each_position(call.context, s, x.get(),
                    [&](const Context& inner, int64_t p, const Wide* patches, Wide* result) {
                      // [N, Q] * [Q, F]; the weights of a position lie in rows of Q, positions * Q
                      // apart. Results are one number per plane: they go through `result`.
                      matmul<Wide>(inner, s.batch, s.filters, s.patch(), {patches, s.patch(), 1},
                                   {weight.get() + p * s.patch(), 1, s.positions() * s.patch()},
                                   result, s.filters, false);
                      for (int64_t i = 0; i < s.batch * s.filters; ++i)
                        y.get()[i * s.positions() + p] = result[i];
                    });
}

// grad of one position [N, F].
template <typename Wide>
void gather_grad(const Sizes& s, int64_t position, const Wide* grad, Wide* result) {
  for (int64_t i = 0; i < s.batch * s.filters; ++i) result[i] = grad[i * s.positions() + position];
}

// Positions share parts of x: a task has some of its channels for itself.
template <typename T>
void grad_input(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Sizes s = locally_connected_sizes(call, call.inputs[2], call.inputs[1]);
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> weight(call.context, call.inputs[1]);
  const WideOutput<T> result(call.context, call.outputs[0]);
  const Context inner = one_thread(call.context);
  const int64_t image = s.height * s.width;
  std::fill_n(result.get(), s.batch * s.channels * image, Wide(0));
  parallel_ranges(call.context, s.channels, 1, [&](int64_t begin, int64_t end) {
    const int64_t columns = (end - begin) * s.kernel();
    const ScratchArray<Wide> errors(call.context, s.batch * s.filters);
    const ScratchArray<Wide> patches(call.context, s.batch * columns);
    // Position after position: gradients of its patches, added to grad_x where patches overlap.
    for (int64_t p = 0; p < s.positions(); ++p) {
      gather_grad(s, p, grad.get(), errors.get());
      matmul<Wide>(
          inner, s.batch, columns, s.filters, {errors.get(), s.filters, 1},
          {weight.get() + p * s.patch() + begin * s.kernel(), s.positions() * s.patch(), 1},
          patches.get(), columns, false);
      for (int64_t n = 0; n < s.batch; ++n) {
        Wide* const sample = result.get() + n * s.channels * image;
        const Wide* const patch = patches.get() + n * columns;
        for_each_patch_row(s, p, begin, end, [&](int64_t from, int64_t to) {
          for (int64_t l = 0; l < s.kernel_width; ++l) sample[to + l] += patch[from + l];
        });
      }
    }
  });
}

template <typename T>
void grad_weight(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Sizes s = locally_connected_sizes(call, call.inputs[1], call.inputs[2]);
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> x(call.context, call.inputs[1]);
  const WideOutput<T> result(call.context, call.outputs[0]);
  for_each_position(call.context, s, x.get(),
                    [&](const Context& inner, int64_t p, const Wide* patches, Wide* errors) {
                      gather_grad(s, p, grad.get(), errors);
                      // [F, N] * [N, Q], straight to the position's rows of the result.
                      matmul<Wide>(inner, s.filters, s.patch(), s.batch, {errors, 1, s.filters},
                                   {patches, s.patch(), 1}, result.get() + p * s.patch(),
                                   s.positions() * s.patch(), false);
                    });
}

// The shape of y; checks x against weight.
Dims output_dims(ShapeCall& call, size_t x, size_t weight) {
  call.require_rank(x, 4);
  call.require_rank(weight, 6);
  const Dims& image = call.inputs[x];
  const Dims& kernel = call.inputs[weight];
  const std::vector<int64_t>& strides = call.attributes.integers("strides");
  const auto wrong = [](int64_t stride) { return stride < 1 || stride > kMaxAttribute; };
  if (!strides.empty() && (strides.size() != 2 || wrong(strides[0]) || wrong(strides[1]))) {
    fail("strides is " + to_string(strides) + "; it must be two positive numbers");
  }
  call.require_equal(image[1], kernel[3], "the channels of x and weight");
  for (size_t d = 0; d < 2; ++d) {
    const int64_t stride = strides.empty() ? 1 : strides[d];
    const Dim fitting = compute_dim(
        [&](int64_t size, int64_t span) {
          if (span < 1 || size < span) fail("the kernel is larger than x");
          return (size - span) / stride + 1;
        },
        image[2 + d], kernel[4 + d]);
    call.require_equal(fitting, kernel[1 + d], "the output positions of x and weight");
  }
  return {image[0], kernel[0], kernel[1], kernel[2]};
}

// Of both gradients: the last input lends its shape.
void grad_shape(ShapeCall& call, size_t x, size_t weight) {
  const Dims y = output_dims(call, x, weight);
  call.require_rank(0, 4);
  for (size_t d = 0; d < 4; ++d) {
    call.require_equal(call.inputs[0][d], y[d], "the shapes of grad and of the output");
  }
  call.outputs[0] = call.inputs[2];
}

constexpr const char* kWeight = "[F, H_out, W_out, C, kH, kW].";
constexpr const char* kStrides = "Two; 1 when left out.";

}  // namespace

Operator locally_connected() {
  return Operator(
             "LocallyConnected",
             "Convolution without padding whose kernel is another one at every position: y[n, f, "
             "i, j] = sum over c, k, l of weight[f, i, j, c, k, l] x[n, c, i strides[0] + k, j "
             "strides[1] + l].")
      .input("x", "[N, C, H, W].")
      .weight("weight", kWeight)
      .output("y", "[N, F, H_out, W_out].")
      .attribute("strides", std::vector<int64_t>(), kStrides)
      .shape([](ShapeCall& call) { call.outputs[0] = output_dims(call, 0, 1); })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { forward<decltype(zero)>(call); });
      });
}

Operator locally_connected_grad_input() {
  return Operator("LocallyConnectedGradInput", "Gradient of LocallyConnected to x.")
      .input("grad", "Gradient to y.")
      .input("weight", kWeight)
      .input("x", "[N, C, H, W]; only its shape is used.")
      .output("grad_x", "The shape of x.")
      .attribute("strides", std::vector<int64_t>(), kStrides)
      .shape([](ShapeCall& call) { grad_shape(call, 2, 1); })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { grad_input<decltype(zero)>(call); });
      });
}

Operator locally_connected_grad_weight() {
  return Operator("LocallyConnectedGradWeight", "Gradient of LocallyConnected to weight.")
      .input("grad", "Gradient to y.")
      .input("x", "[N, C, H, W].")
      .input("weight", "[F, H_out, W_out, C, kH, kW]; only its shape is used.")
      .output("grad_weight", "The shape of weight.")
      .attribute("strides", std::vector<int64_t>(), kStrides)
      .shape([](ShapeCall& call) { grad_shape(call, 1, 2); })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { grad_weight<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
