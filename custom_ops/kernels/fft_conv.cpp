// FFTConv: everything that ONNX Conv computes, and its two gradients.
#include "kernels/conv_direct.h"
#include "kernels/widen.h"

namespace graphscale {
namespace {

void require_grad(ShapeCall& call, size_t x, size_t weight) {
  const Dims y = conv_output_dims(call, x, weight);
  call.require_rank(0, y.size());
  for (size_t d = 0; d < y.size(); ++d) {
    call.require_equal(call.inputs[0][d], y[d], "the shapes of grad and of the output");
  }
}

template <typename T>
void forward(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const ConvGeometry g = conv_geometry(call.attributes, call.inputs[0].shape, call.inputs[1].shape);
  const WideInput<T> x(call.context, call.inputs[0]);
  const WideInput<T> weight(call.context, call.inputs[1]);
  const WideInput<T> bias(call.context, call.inputs[2]);
  const WideOutput<T> y(call.context, call.outputs[0]);
  conv_direct<Wide>(call.context, g, x.get(), weight.get(),
                    call.inputs[2].present ? bias.get() : nullptr, y.get());
}

template <typename T>
void grad_input(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const ConvGeometry g = conv_geometry(call.attributes, call.inputs[2].shape, call.inputs[1].shape);
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> weight(call.context, call.inputs[1]);
  const WideOutput<T> grad_x(call.context, call.outputs[0]);
  conv_direct_grad_input<Wide>(call.context, g, grad.get(), weight.get(), grad_x.get());
}

template <typename T>
void grad_weight(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const ConvGeometry g = conv_geometry(call.attributes, call.inputs[1].shape, call.inputs[2].shape);
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> x(call.context, call.inputs[1]);
  const WideOutput<T> result(call.context, call.outputs[0]);
  conv_direct_grad_weight<Wide>(call.context, g, grad.get(), x.get(), result.get());
}

}  // namespace

Operator fft_conv() {
  return with_conv_attributes(
             Operator("FFTConv", "Convolution with all that ONNX Conv has, by FFT where it is faster.")
                 .input("X", "[N, C, ...], one to three spatial dimensions.")
                 .input("W", "Kernels [F, C / group, ...].")
                 .optional_input("B", "[F].")
                 .output("Y", "[N, F, ...]."))
      .attribute("auto_pad", std::string("NOTSET"),
                 "As Conv's: NOTSET, VALID, SAME_UPPER or SAME_LOWER.")
      .shape([](ShapeCall& call) {
        call.outputs[0] = conv_output_dims(call, 0, 1);
        if (call.present[2]) {
          call.require_rank(2, 1);
          call.require_equal(call.inputs[2][0], call.inputs[1][0], "the lengths of B and W");
        }
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { forward<decltype(zero)>(call); });
      });
}

Operator fft_conv_grad_input() {
  return with_conv_attributes(Operator("FFTConvGradInput", "Gradient of FFTConv to X.")
                                  .input("grad", "Gradient to Y.")
                                  .input("W", "What FFTConv was given.")
                                  .input("X", "What FFTConv was given; only its shape is used.")
                                  .output("grad_X", "The shape of X."))
      .shape([](ShapeCall& call) {
        require_grad(call, 2, 1);
        call.outputs[0] = call.inputs[2];
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { grad_input<decltype(zero)>(call); });
      });
}

Operator fft_conv_grad_weight() {
  return with_conv_attributes(Operator("FFTConvGradWeight", "Gradient of FFTConv to W.")
                                  .input("grad", "Gradient to Y.")
                                  .input("X", "What FFTConv was given.")
                                  .input("W", "What FFTConv was given; only its shape is used.")
                                  .output("grad_W", "The shape of W."))
      .shape([](ShapeCall& call) {
        require_grad(call, 1, 2);
        call.outputs[0] = call.inputs[2];
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { grad_weight<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
