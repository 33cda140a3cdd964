// How a pass of a convolution is computed on CUDA: the method and the size of its tiles, by
// counting bytes and operations. Host code without CUDA.
//
// All passes are correlations of an image with a kernel, in tiles of S x S:
//   forward           y = x with w
//   gradient to x     grad (zeros between, where strides are above 1) with w turned round
//   gradient to w     x with grad; the tiles' spectra are added up before the only inverse
// Dilated kernels have zeros between their taps.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "kernels/conv_geometry.h"
#include "kernels/cuda/fft/plane.h"

namespace graphscale::cuda {

enum class Pass { kForward, kGradientInput, kGradientWeight };
enum class Method { kDirect, kPerChannel, kDense };

struct Plan {
  Method method = Method::kDirect;
  int size = 0;  // S
};

constexpr int kPerChannelSizes[] = {16, 32, 48, 64, 72, 96};
constexpr int kDenseSizes[] = {16, 32, 48, 64};

// The correlation along one spatial dimension: out[i] = sum over k of in[i + k - pad] taps[k].
struct Extent {
  int64_t in, out, kernel, pad;
};

inline Extent extent(const ConvGeometry& g, Pass pass, size_t d) {
  const int64_t kernel = (g.kernel[d] - 1) * g.dilation[d] + 1;
  const int64_t out = (g.out[d] - 1) * g.stride[d] + 1;
  if (pass == Pass::kGradientInput) return {out, g.in[d], kernel, kernel - 1 - g.pad_begin[d]};
  return {g.in[d], out, kernel, g.pad_begin[d]};
}

// Outputs of one tile; 0 where the tile is too small. A tile holds the whole of an image whose
// transform of S values wraps only zeros around: S >= in + the larger pad is enough.
inline int64_t tile_outputs(const Extent& e, int64_t size) {
  const int64_t reach = e.out + e.kernel - 1;
  const bool holds_all = e.pad + e.in <= size || reach <= size;
  if (e.out <= size && e.kernel <= size && holds_all &&
      reach - size <= std::max<int64_t>(e.pad, 0)) {
    return e.out;
  }
  return std::max<int64_t>(0, std::min(e.out, size - e.kernel + 1));
}

struct Tiling {
  int64_t outputs, tiles;
};

inline Tiling cut(const Extent& e, int64_t size) {
  const int64_t outputs = tile_outputs(e, size);
  return {outputs, outputs > 0 ? divide_up(e.out, outputs) : 0};
}

// Rates that a good kernel reaches on one H200; only their ratios matter.
constexpr double kBytesPerSecond = 4.0e12;
constexpr double kFlopsPerSecond = 20e12;         // of transforms, float32
constexpr double kProductFlopsPerSecond = 80e12;  // of tensor cores, three tf32 products for one
constexpr double kDirectFlopsPerSecond = 2e12;    // of the direct kernels here
constexpr double kLaunchSeconds = 4e-6;

inline double transform_flops(double size) { return 5 * size * size * std::log2(size); }

inline double predict_seconds(const ConvGeometry& g, Pass pass, const Plan& plan) {
  const double batch = static_cast<double>(g.batch);
  const double ins = static_cast<double>(g.in_channels);
  const double outs = static_cast<double>(g.out_channels);
  if (plan.method == Method::kDirect) {
    const double taps = static_cast<double>(g.kernel_size() * g.group_inputs());
    return kLaunchSeconds +
           2 * batch * outs * static_cast<double>(g.out_size()) * taps / kDirectFlopsPerSecond;
  }
  const double size = plan.size;
  const double tiles = batch * static_cast<double>(cut(extent(g, pass, 0), plan.size).tiles *
                                                   cut(extent(g, pass, 1), plan.size).tiles);
  const double plane_bytes =
      4 * batch *
      (ins * static_cast<double>(g.in_size()) + outs * static_cast<double>(g.out_size()));
  if (plan.method == Method::kPerChannel) {
    return kLaunchSeconds + std::max(plane_bytes / kBytesPerSecond,
                                     2 * tiles * outs * transform_flops(size) / kFlopsPerSecond);
  }
  const double frequencies = size * size / 2 + 2;
  const double spectra_bytes = 8 * frequencies * tiles * (ins + outs);
  const double product_flops = 8 * frequencies * tiles * ins * outs / static_cast<double>(g.groups);
  const double transforms = tiles * (ins + outs) * transform_flops(size) / kFlopsPerSecond;
  const double memory = (plane_bytes + 2 * spectra_bytes) / kBytesPerSecond;
  return 3 * kLaunchSeconds + std::max(transforms, memory) + product_flops / kProductFlopsPerSecond;
}

// The environment variable GRAPHSCALE_CUDA_PLAN ("direct", "per_channel 64", "dense 32") decides
// for benchmarks and tests.
inline bool forced(const char* method, int size) {
  const char* const wanted = std::getenv("GRAPHSCALE_CUDA_PLAN");
  if (wanted == nullptr || *wanted == '\0') return true;
  const std::string name = size == 0 ? method : method + (" " + std::to_string(size));
  return name == wanted;
}

// The cheapest plan. Float64 and other than two dimensions have the direct method only.
inline Plan choose(const ConvGeometry& g, Pass pass, Type type) {
  Plan best;
  if (g.in.size() != 2 || type == Type::kFloat64 || g.batch == 0) return best;
  const int64_t largest = int64_t{1} << 30;  // positions are counted in int
  for (size_t d = 0; d < 2; ++d) {
    const Extent e = extent(g, pass, d);
    if (std::max({e.in, e.out, e.kernel, std::abs(e.pad)}) > largest) return best;
  }
  double least_seconds = forced("direct", 0) ? predict_seconds(g, pass, best) : INFINITY;
  const auto consider = [&](Method method, const char* name, int size) {
    const bool fits =
        tile_outputs(extent(g, pass, 0), size) > 0 && tile_outputs(extent(g, pass, 1), size) > 0;
    if (!fits || !forced(name, size)) return;
    const double seconds = predict_seconds(g, pass, {method, size});
    if (seconds < least_seconds) {
      least_seconds = seconds;
      best = {method, size};
    }
  };
  const bool one_filter = g.out_channels == g.groups;  // of each input channel
  if (g.group_inputs() == 1 && (pass != Pass::kGradientInput || one_filter)) {
    for (const int size : kPerChannelSizes) consider(Method::kPerChannel, "per_channel", size);
  }
  for (const int size : kDenseSizes) consider(Method::kDense, "dense", size);
  return best;
}

// What the kernels of a plan read and write.
struct Layout {
  Plane in, taps, out;  // out: y or grad_x; for the gradient to w the gradient to y
  int64_t tiles;        // of all images
};

inline Plane plane(const Tensor& tensor, int64_t image, int64_t channel, Axis y, Axis x) {
  return {tensor.memory, tensor.type, image, channel, y, x};
}

// Tensors: x or, for the gradient to x, the gradient to y; w or its gradient; y, grad_x or grad_y.
inline Layout layout(const ConvGeometry& g, Pass pass, int size, const Tensor& in,
                     const Tensor& taps, const Tensor& out) {
  const bool to_input = pass == Pass::kGradientInput;
  Axis in_axes[2];
  Axis tap_axes[2];
  Axis out_axes[2];
  int64_t tiles = g.batch;
  for (size_t d = 0; d < 2; ++d) {
    const Extent e = extent(g, pass, d);
    const Tiling tiling = cut(e, size);
    const int outputs = static_cast<int>(tiling.outputs);
    const int count = static_cast<int>(tiling.tiles);
    const int stride = static_cast<int>(g.stride[d]);
    const int x_size = static_cast<int>(g.in[d]);
    const int y_size = static_cast<int>(g.out[d]);
    const int kernel = static_cast<int>(g.kernel[d]);
    const int span = static_cast<int>(e.kernel);
    in_axes[d] = {to_input ? y_size : x_size,
                  static_cast<int>(e.pad),
                  to_input ? stride : 1,
                  outputs,
                  size,
                  count,
                  false};
    out_axes[d] = {
        to_input ? x_size : y_size, 0, to_input ? 1 : stride, outputs, outputs, count, false};
    tap_axes[d] = {kernel, 0, static_cast<int>(g.dilation[d]), span, span, 1, to_input};
    tiles *= tiling.tiles;
  }
  const int64_t in_size = element_count(to_input ? g.out : g.in);
  const int64_t out_size = element_count(to_input ? g.in : g.out);
  const int64_t in_channels = to_input ? g.out_channels : g.in_channels;
  const int64_t out_channels = to_input ? g.in_channels : g.out_channels;
  return {
      plane(in, in_channels * in_size, in_size, in_axes[0], in_axes[1]),
      plane(taps, g.kernel_size(), g.group_inputs() * g.kernel_size(), tap_axes[0], tap_axes[1]),
      plane(out, out_channels * out_size, out_size, out_axes[0], out_axes[1]), tiles};
}

// function(std::integral_constant<int, S>) for the size that a plan has.
template <typename F>
void with_size(int size, const F& function) {
  switch (size) {
    case 16: return function(std::integral_constant<int, 16>());
    case 32: return function(std::integral_constant<int, 32>());
    case 48: return function(std::integral_constant<int, 48>());
    case 64: return function(std::integral_constant<int, 64>());
    case 72: return function(std::integral_constant<int, 72>());
    default: return function(std::integral_constant<int, 96>());
  }
}

template <typename F>
void with_dense_size(int size, const F& function) {
  switch (size) {
    case 16: return function(std::integral_constant<int, 16>());
    case 32: return function(std::integral_constant<int, 32>());
    case 48: return function(std::integral_constant<int, 48>());
    default: return function(std::integral_constant<int, 64>());
  }
}

// Memory for the spectra of the images that go through it at once; the environment variable
// GRAPHSCALE_CUDA_SPECTRA_MB changes it (small enough, they stay in the GPU's cache).
inline int64_t spectra_bytes() {
  const char* const megabytes = std::getenv("GRAPHSCALE_CUDA_SPECTRA_MB");
  const int64_t count = megabytes == nullptr ? 0 : std::atoll(megabytes);
  return (count > 0 ? count : 256) << 20;
}

// Tiles of one block: about 128 threads.
constexpr int tiles_per_block(int size) {
  return size <= 16 ? 16 : size <= 32 ? 8 : size <= 72 ? 4 : 2;
}

}  // namespace graphscale::cuda
