// Convolution over time, frames x features (fbcunn TemporalConvolutionFB):
//   y[n, t, o] = bias[o] + sum over k, i of weight[o, k, i] * x[n, t * stride + k, i]
//
// The frames under one output are one row of kernel * features numbers, and rows are stride *
// features apart: all outputs are one matrix product with an overlapping view of x, without im2col.
// A weight that never changes is packed for it once. Cost: 2 N T_out C_out kernel C_in operations
// in each of the three passes; every tensor is read or written about once, since the products are
// blocked for the caches (matmul.cpp).
#include <algorithm>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/widen.h"
#include "kernels/temporal_conv_sizes.h"

namespace graphscale {
namespace {

using Sizes = TemporalConvSizes;

Dim out_frames(const Dim& frames, const Dim& kernel, int64_t stride) {
  return compute_dim(
      [stride](int64_t frames, int64_t kernel) {
        if (frames < kernel) {
          fail("x has " + std::to_string(frames) + " frames; the kernel needs at least " +
               std::to_string(kernel));
        }
        return (frames - kernel) / stride + 1;
      },
      frames, kernel);
}

// The frames under each output: [N * T_out, kernel * features], overlapping in memory.
template <typename Wide>
MatrixView<const Wide> windows(const Sizes& s, const Wide* x) {
  return {x, s.stride * s.in_features, 1, s.out_frames, s.frames * s.in_features};
}

template <typename Wide>
struct PackedWeight : Prepacked {
  std::vector<Wide> values;
  size_t bytes() const override { return values.size() * sizeof(Wide); }
};

void forward_shape(ShapeCall& call) {
  const int64_t stride = call.attributes.bounded("stride", 1);
  call.require_rank(0, 3);
  call.require_rank(1, 3);
  const Dims& x = call.inputs[0];
  const Dims& weight = call.inputs[1];
  call.require_equal(x[2], weight[2], "the features of x and the last dimension of weight");
  if (call.present[2]) {
    call.require_rank(2, 1);
    call.require_equal(call.inputs[2][0], weight[0], "the lengths of bias and weight");
  }
  call.outputs[0] = {x[0], out_frames(x[1], weight[1], stride), weight[0]};
}

template <typename T>
void forward(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Sizes s = temporal_conv_sizes(call, call.inputs[0], call.inputs[1]);
  const WideInput<T> x(call.context, call.inputs[0]);
  const WideOutput<T> y(call.context, call.outputs[0]);
  const WideInput<T> bias(call.context, call.inputs[2]);
  const int64_t rows = s.batch * s.out_frames;
  const int64_t depth = s.depth();
  const MatrixView<Wide> result{y.get(), s.out_features, 1};
  if (const auto* packed = static_cast<const PackedWeight<Wide>*>(call.prepacked)) {
    return matmul_packed<Wide>(call.context, rows, s.out_features, depth, windows(s, x.get()),
                               packed->values.data(), result, false, bias.get());
  }
  const WideInput<T> weight(call.context, call.inputs[1]);
  matmul<Wide>(call.context, rows, s.out_features, depth, windows(s, x.get()),
               {weight.get(), 1, depth}, result, false, bias.get());
}

template <typename T>
std::unique_ptr<Prepacked> pack_weight(const Context& context, const Tensor& weight) {
  using Wide = typename Accumulator<T>::type;
  const int64_t outputs = weight.shape[0];
  const int64_t depth = weight.shape[1] * weight.shape[2];
  const WideInput<T> values(context, weight);
  auto packed = std::make_unique<PackedWeight<Wide>>();
  packed->values.resize(static_cast<size_t>(packed_size<Wide>(outputs, depth)));
  pack_matrix<Wide>(context, outputs, depth, {values.get(), 1, depth}, packed->values.data());
  return packed;
}

std::unique_ptr<Prepacked> prepack(const Context& context, const Attributes&, Type type,
                                   const std::vector<Tensor>& inputs) {
  if (!inputs[1].present || inputs[1].rank() != 3) return nullptr;
  std::unique_ptr<Prepacked> packed;
  dispatch(type, [&](auto zero) { packed = pack_weight<decltype(zero)>(context, inputs[1]); });
  return packed;
}

// Of both gradients: the last input lends its shape.
void grad_shape(ShapeCall& call, size_t x, size_t weight) {
  const int64_t stride = call.attributes.bounded("stride", 1);
  for (size_t i = 0; i < 3; ++i) call.require_rank(i, 3);
  const Dims& grad = call.inputs[0];
  call.require_equal(grad[0], call.inputs[x][0], "the batch sizes of grad and x");
  call.require_equal(grad[2], call.inputs[weight][0], "the features of grad and weight");
  call.require_equal(call.inputs[x][2], call.inputs[weight][2], "the features of x and weight");
  call.require_equal(grad[1], out_frames(call.inputs[x][1], call.inputs[weight][1], stride),
                     "the frames of grad and of the output");
  call.outputs[0] = call.inputs[2];
}

// A convolution again, of grad between kernel - 1 zero frames on either side with the kernel turned
// round: one product for all of grad_x, for stride 1.
template <typename Wide>
void grad_input_at_once(const Context& context, const Sizes& s, const Wide* grad,
                        const Wide* weight, Wide* grad_x) {
  const int64_t margin = (s.kernel - 1) * s.out_features;
  const int64_t length = s.out_frames * s.out_features;
  const int64_t padded = length + 2 * margin;
  const ScratchArray<Wide> frames(context, s.batch * padded);
  parallel_ranges(context, s.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      Wide* const to = frames.get() + n * padded;
      std::fill_n(to, margin, Wide(0));
      std::copy_n(grad + n * length, length, to + margin);
      std::fill_n(to + margin + length, margin, Wide(0));
    }
  });
  // Row t of grad_x sees `kernel` frames of the padded grad; stepping through weight by
  // -in_features turns the kernel round without a copy.
  matmul<Wide>(
      context, s.batch * s.frames, s.in_features, s.kernel * s.out_features,
      {frames.get(), s.out_features, 1, s.frames, padded},
      {weight + (s.kernel - 1) * s.in_features, s.depth(), 1, s.out_features, -s.in_features},
      grad_x, s.in_features, false);
}

// grad_x[n, t * stride + k, :] += grad[n, t, :] weight[:, k, :]: one product per group of kernel
// positions whose frames do not overlap, that is, ceil(kernel / stride) of them.
template <typename T>
void grad_input(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Sizes s = temporal_conv_sizes(call, call.inputs[2], call.inputs[1]);
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> weight(call.context, call.inputs[1]);
  const WideOutput<T> grad_x(call.context, call.outputs[0]);
  // The products with zeros are few.
  if (s.stride == 1 && s.frames <= s.out_frames + s.out_frames / 16) {
    return grad_input_at_once<Wide>(call.context, s, grad.get(), weight.get(), grad_x.get());
  }
  parallel_ranges(call.context, s.batch * s.frames * s.in_features, 1 << 16,
                  [&](int64_t begin, int64_t end) {
                    std::fill(grad_x.get() + begin, grad_x.get() + end, Wide(0));
                  });
  // `step` kernel positions at a time: the frames they write do not overlap, so each group is one
  // product that adds to grad_x.
  const int64_t step = std::min(s.stride, s.kernel);
  for (int64_t k = 0; k < s.kernel; k += step) {
    const int64_t width = std::min(step, s.kernel - k) * s.in_features;
    matmul<Wide>(call.context, s.batch * s.out_frames, width, s.out_features,
                 {grad.get(), s.out_features, 1}, {weight.get() + k * s.in_features, s.depth(), 1},
                 {grad_x.get() + k * s.in_features, s.stride * s.in_features, 1, s.out_frames,
                  s.frames * s.in_features},
                 true);
  }
}

// grad_weight[o, :] = sum over n, t of grad[n, t, o] * (the row of x under output t).
template <typename T>
void grad_weight(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Sizes s = temporal_conv_sizes(call, call.inputs[1], call.inputs[2]);
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> x(call.context, call.inputs[1]);
  const WideOutput<T> result(call.context, call.outputs[0]);
  const int64_t depth = s.depth();
  matmul<Wide>(call.context, s.out_features, depth, s.batch * s.out_frames,
               {grad.get(), 1, s.out_features}, windows(s, x.get()), {result.get(), depth, 1},
               false);
}

}  // namespace

Operator temporal_conv() {
  return Operator(
             "TemporalConv",
             "Convolution over time of sequences that are stored frame after frame, without "
             "padding: y[n, t, o] = bias[o] + sum over k, i of weight[o, k, i] x[n, t stride + "
             "k, i].")
      .input("x", "Sequences [N, T, C_in].")
      .weight("weight", "Kernels [C_out, K, C_in].")
      .optional_weight("bias", "[C_out].")
      .output("y", "[N, floor((T - K) / stride) + 1, C_out].")
      .attribute("stride", int64_t{1}, "Frames between two outputs.")
      .shape(forward_shape)
      .prepack(1, prepack)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { forward<decltype(zero)>(call); });
      });
}

Operator temporal_conv_grad_input() {
  return Operator("TemporalConvGradInput", "Gradient of TemporalConv to x.")
      .input("grad", "Gradient to y [N, T_out, C_out].")
      .input("weight", "Kernels [C_out, K, C_in].")
      .input("x", "What TemporalConv was given [N, T, C_in]; only its shape is used.")
      .output("grad_x", "[N, T, C_in].")
      .attribute("stride", int64_t{1}, "Frames between two outputs.")
      .shape([](ShapeCall& call) { grad_shape(call, 2, 1); })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { grad_input<decltype(zero)>(call); });
      });
}

Operator temporal_conv_grad_weight() {
  return Operator("TemporalConvGradWeight", "Gradient of TemporalConv to weight.")
      .input("grad", "Gradient to y [N, T_out, C_out].")
      .input("x", "What TemporalConv was given [N, T, C_in].")
      .input("weight", "Kernels [C_out, K, C_in]; only their shape is used.")
      .output("grad_weight", "[C_out, K, C_in].")
      .attribute("stride", int64_t{1}, "Frames between two outputs.")
      .shape([](ShapeCall& call) { grad_shape(call, 1, 2); })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { grad_weight<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
