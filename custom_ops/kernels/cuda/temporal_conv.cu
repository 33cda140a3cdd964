// Temporal convolution on CUDA: see kernels/cpu/temporal_conv.cpp for what it computes. Each pass
// is one or a few batched matrix products on overlapping views of the frames; float64 takes one
// thread per result. Cost: 2 N T_out C_out kernel C_in operations in each pass; operands are read
// once per 64 rows or columns of the result.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/matmul.h"
#include "kernels/temporal_conv_sizes.h"

namespace graphscale::cuda {
namespace {

using Sizes = TemporalConvSizes;

struct Forward64 {
  const double* x;
  const double* weight;
  const double* bias;
  double* y;
  Sizes s;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t o = i % s.out_features;
    const int64_t row = i / s.out_features;
    const int64_t n = row / s.out_frames;
    const double* const from = x + (n * s.frames + row % s.out_frames * s.stride) * s.in_features;
    double sum = bias == nullptr ? 0 : bias[o];
    for (int64_t d = 0; d < s.depth(); ++d) sum += weight[o * s.depth() + d] * from[d];
    y[i] = sum;
  }
};

struct GradInput64 {
  const double* grad;
  const double* weight;
  double* out;
  Sizes s;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t feature = i % s.in_features;
    const int64_t frame = i / s.in_features % s.frames;
    const int64_t n = i / s.in_features / s.frames;
    double sum = 0;
    for (int64_t k = frame % s.stride; k < s.kernel && k <= frame; k += s.stride) {
      const int64_t t = (frame - k) / s.stride;
      if (t >= s.out_frames) continue;
      for (int64_t o = 0; o < s.out_features; ++o) {
        sum += grad[(n * s.out_frames + t) * s.out_features + o] *
               weight[(o * s.kernel + k) * s.in_features + feature];
      }
    }
    out[i] = sum;
  }
};

struct GradWeight64 {
  const double* grad;
  const double* x;
  double* out;
  Sizes s;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t d = i % s.depth();
    const int64_t o = i / s.depth();
    double sum = 0;
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t t = 0; t < s.out_frames; ++t) {
        sum += grad[(n * s.out_frames + t) * s.out_features + o] *
               x[(n * s.frames + t * s.stride) * s.in_features + d];
      }
    }
    out[i] = sum;
  }
};

template <typename T>
struct Narrow {
  const float* from;
  T* to;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const { to[i] = narrow<T>(from[i]); }
};

template <typename T>
void forward(const Call& call) {
  const Sizes s = temporal_conv_sizes(call, call.inputs[0], call.inputs[1]);
  const T* const x = call.inputs[0].data<T>();
  const T* const weight = call.inputs[1].data<T>();
  const T* const bias = call.inputs[2].present ? call.inputs[2].data<T>() : nullptr;
  T* const y = call.outputs[0].data<T>();
  if constexpr (std::is_same_v<T, double>) {
    for_each_index(call.context, call.outputs[0].size(), Forward64{x, weight, bias, y, s});
  } else {
    Matmul<T, false> product{};
    // Row t of x begins at frame t * stride and is kernel * features long: rows overlap, nothing is
    // copied.
    product.left = {x, s.frames * s.in_features, 0, s.stride * s.in_features, 1};
    product.right = {weight, 0, 0, s.depth(), 1};
    product.out = y;
    product.out_batch = s.out_frames * s.out_features;
    product.out_row = s.out_features;
    product.bias = bias;
    product.batches = s.batch;
    product.groups = 1;
    product.rows = s.out_frames;
    product.columns = s.out_features;
    product.depth = s.depth();
    matmul(call.context, product);
  }
}

// One product per group of kernel positions whose frames do not overlap, added up in float32.
template <typename T>
void grad_input(const Call& call) {
  const Sizes s = temporal_conv_sizes(call, call.inputs[2], call.inputs[1]);
  const T* const grad = call.inputs[0].data<T>();
  const T* const weight = call.inputs[1].data<T>();
  const int64_t count = call.outputs[0].size();
  if constexpr (std::is_same_v<T, double>) {
    for_each_index(call.context, count, GradInput64{grad, weight, call.outputs[0].data<T>(), s});
  } else {
    constexpr bool kWide = std::is_same_v<T, float>;
    const ScratchArray<float> room(call.context, kWide ? 0 : count);
    float* const sums = kWide ? call.outputs[0].data<float>() : room.get();
    clear(call.context, sums, count);
    // `step` kernel positions whose frames do not overlap are one product.
    const int64_t step = std::min(s.stride, s.kernel);
    for (int64_t k = 0; k < s.kernel; k += step) {
      Matmul<T, false> product{};
      product.left = {grad, s.out_frames * s.out_features, 0, s.out_features, 1};
      product.right = {weight + k * s.in_features, 0, 0, 1, s.depth()};
      product.out = sums + k * s.in_features;
      product.out_batch = s.frames * s.in_features;
      product.out_row = s.stride * s.in_features;
      product.batches = s.batch;
      product.groups = 1;
      product.rows = s.out_frames;
      product.columns = std::min(step, s.kernel - k) * s.in_features;
      product.depth = s.out_features;
      product.accumulate = true;
      product.wide_out = true;
      matmul(call.context, product);
    }
    if (!kWide) for_each_index(call.context, count, Narrow<T>{sums, call.outputs[0].data<T>()});
  }
}

template <typename T>
void grad_weight(const Call& call) {
  const Sizes s = temporal_conv_sizes(call, call.inputs[1], call.inputs[2]);
  const T* const grad = call.inputs[0].data<T>();
  const T* const x = call.inputs[1].data<T>();
  T* const out = call.outputs[0].data<T>();
  if constexpr (std::is_same_v<T, double>) {
    for_each_index(call.context, call.outputs[0].size(), GradWeight64{grad, x, out, s});
  } else {
    Matmul<T, false> product{};
    product.left = {grad, 0, 0, 1, s.out_features};
    // The depth runs over samples and frames: two digits, since a sample is longer than its
    // windows.
    product.right = {x, 0, 0, 1, s.stride * s.in_features, s.out_frames, s.frames * s.in_features};
    product.out = out;
    product.out_row = s.depth();
    product.batches = 1;
    product.groups = 1;
    product.rows = s.out_features;
    product.columns = s.depth();
    product.depth = s.batch * s.out_frames;
    if (product.depth > 0x7fffffff) fail("more than 2^31 frames; split the batch");
    matmul(call.context, product);
  }
}

}  // namespace

void temporal_conv(const Call& call) {
  dispatch(call.type, [&](auto zero) { forward<decltype(zero)>(call); });
}

void temporal_conv_grad_input(const Call& call) {
  dispatch(call.type, [&](auto zero) { grad_input<decltype(zero)>(call); });
}

void temporal_conv_grad_weight(const Call& call) {
  dispatch(call.type, [&](auto zero) { grad_weight<decltype(zero)>(call); });
}

}  // namespace graphscale::cuda
