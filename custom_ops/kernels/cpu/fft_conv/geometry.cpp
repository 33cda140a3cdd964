// Axis by axis from strides, dilations and pads to phases and tiles; see geometry.h for the
// identities.
#include "kernels/cpu/fft_conv/geometry.h"

#include <algorithm>

namespace graphscale::fft_conv {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t out_extent(int64_t extent, int64_t kernel, int64_t stride, int64_t dilation, int64_t pads) {
  const int64_t room = extent + pads - (dilation * (kernel - 1) + 1);
  return room < 0 ? 0 : room / stride + 1;
}

Axis forward_axis(int64_t extent, int64_t out, int64_t kernel, int64_t stride, int64_t dilation,
                  int64_t pad) {
  Axis a;
  if (stride == 1) {
    // Dilation d: d independent images, each of every d-th position.
    a.batch_phases = std::min(dilation, out);
    a.kernel = kernel;
    a.outputs = ceil_div(out, dilation);
    a.in = {dilation, -pad, extent, 1};
    a.out = {dilation, 0, out, 1};
    a.taps = {1, 0, kernel, 1};
  } else {
    // Stride s: s times the channels, each of every s-th position of image and kernel.
    const int64_t dilated = dilation * (kernel - 1) + 1;
    a.in_phases = std::min(stride, dilated);
    a.kernel = ceil_div(dilated, stride);
    a.outputs = out;
    a.in = {stride, -pad, extent, 1};
    a.out = {1, 0, out, 1};
    a.taps = {stride, 0, kernel, dilation};
  }
  return a;
}

// x[u - pad] gathers y[i] w[k] with u = stride i + dilation k; u = phase + (stride or dilation) *
// a.
Axis gradient_axis(int64_t extent, int64_t out, int64_t kernel, int64_t stride, int64_t dilation,
                   int64_t pad) {
  Axis a;
  const int64_t step = stride == 1 ? dilation : stride;
  const int64_t first = pad / step;
  a.outputs = (extent - 1 + pad) / step - first + 1;
  a.out = {step, step * first - pad, extent, 1};
  a.flip = true;
  if (stride == 1) {
    a.batch_phases = dilation;
    a.kernel = kernel;
    a.in = {dilation, dilation * (first - (kernel - 1)), out, 1};
    a.taps = {1, 0, kernel, 1};
  } else {
    const int64_t dilated = dilation * (kernel - 1) + 1;
    a.out_phases = stride;
    a.kernel = ceil_div(dilated, stride);
    a.in = {1, first - (a.kernel - 1), out, 1};
    a.taps = {stride, 0, kernel, dilation};
  }
  return a;
}

// Whether one cyclic tile computes the whole axis: what wraps around must be zeros of the padding,
// on both sides ('same' padding lets a tile of extent + pad do for extent + 2 pad inputs).
bool one_tile_will_do(const Axis& a, int64_t tile) {
  const int64_t wrapped = a.outputs + a.kernel - 1 - tile;
  if (wrapped <= 0) return true;
  const int64_t phases = std::max(a.batch_phases, a.in_phases);
  return a.outputs <= tile && a.in.step * tile + a.in.origin >= a.in.extent &&
         a.in.step * (wrapped - 1) + a.in.origin + phases - 1 < 0;
}

// Its products compute a tile's outputs whether all are wanted or not, and nothing wraps around.
bool cut_winograd(Axis& axis, int tile) {
  const bool fits = tile == 1   ? axis.kernel == 1
                    : tile == 4 ? axis.kernel >= 2 && axis.kernel <= 3
                                : tile == 6 && axis.kernel >= 2 && axis.kernel <= 5;
  if (!fits) return false;
  axis.tile = tile;
  axis.tile_outputs = tile - axis.kernel + 1;
  axis.tiles = ceil_div(axis.outputs, axis.tile_outputs);
  return true;
}

}  // namespace

int64_t Problem::out_height() const {
  return out_extent(height, kernel_height, stride_y, dilation_y, pad_top + pad_bottom);
}

int64_t Problem::out_width() const {
  return out_extent(width, kernel_width, stride_x, dilation_x, pad_left + pad_right);
}

int64_t Core::tiles() const { return batch * y.batch_phases * x.batch_phases * y.tiles * x.tiles; }
int64_t Core::ins() const { return in_channels * y.in_phases * x.in_phases; }
int64_t Core::outs() const { return out_channels * y.out_phases * x.out_phases; }
int64_t Core::columns() const { return x.tile / 2 + 1; }
int64_t Core::frequencies() const { return (x.tile / 2 - 1) * y.tile + 2 * (y.tile / 2 + 1); }

const std::vector<int>& fft_sizes() {
  static const std::vector<int> sizes = {
      1,  8,   12,  16,  20,  24,  28,  32,  36,   40,   48,   56,   60,    64,    72,    80,
      96, 112, 128, 144, 160, 192, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
  return sizes;
}

const std::vector<int>& winograd_sizes() {
  static const std::vector<int> sizes = {1, 4, 6};
  return sizes;
}

Core make_core(const Problem& p, Pass pass) {
  const auto axis = pass == Pass::kGradientInput ? gradient_axis : forward_axis;
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  Core core;
  core.y = axis(p.height, p.out_height(), p.kernel_height, p.stride_y, p.dilation_y, p.pad_top);
  core.x = axis(p.width, p.out_width(), p.kernel_width, p.stride_x, p.dilation_x, p.pad_left);
  core.batch = p.batch;
  core.groups = p.groups;
  // Where the kernel from an input to an output lies in w: the gradient to x exchanges the two.
  core.tap_planes_group = in * out;
  if (pass == Pass::kForward) core.bounds = p.bounds;
  if (pass == Pass::kGradientInput) {
    core.in_channels = out;
    core.out_channels = in;
    core.tap_planes_in = in;
    core.tap_planes_out = 1;
  } else {
    core.in_channels = in;
    core.out_channels = out;
    core.tap_planes_in = 1;
    core.tap_planes_out = in;
  }
  return core;
}

bool cut(Axis& axis, int tile) {
  if (tile < axis.kernel) return false;
  axis.tile = tile;
  // What wraps around in a cyclic tile must be padding; else tiles overlap by kernel - 1 inputs
  // (overlap-save), in equal sizes.
  if (one_tile_will_do(axis, tile)) {
    axis.tiles = 1;
    axis.tile_outputs = axis.outputs;
    return true;
  }
  axis.tile_outputs = tile - axis.kernel + 1;
  axis.tiles = ceil_div(axis.outputs, axis.tile_outputs);
  axis.tile_outputs = ceil_div(axis.outputs, axis.tiles);
  return true;
}

bool cut_core(const Problem& p, Pass pass, const Algorithm& algorithm, Core* core) {
  *core = make_core(p, pass);
  if (algorithm.method == Method::kWinograd) {
    return (algorithm.tile_height > 1 || algorithm.tile_width > 1) &&
           cut_winograd(core->y, algorithm.tile_height) &&
           cut_winograd(core->x, algorithm.tile_width);
  }
  if (algorithm.tile_height > kMaxFft ||
      (algorithm.tile_width > kMaxFft && algorithm.tile_height > 1))
    return false;
  return algorithm.method != Method::kDirect && cut(core->y, algorithm.tile_height) &&
         cut(core->x, algorithm.tile_width);
}

bool is_empty(const Problem& p) {
  return p.batch == 0 || p.out_channels == 0 || p.out_height() == 0 || p.out_width() == 0;
}

}  // namespace graphscale::fft_conv
