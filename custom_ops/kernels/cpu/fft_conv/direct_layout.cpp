// Tile sizes of the direct convolution, from the cache sizes of common processors: the copied
// inputs, the sums and the weights of some taps each have a share.
#include "kernels/cpu/fft_conv/direct_layout.h"

#include <algorithm>

namespace graphscale::fft_conv {
namespace {

constexpr int64_t kCopiedBytes =
    128 << 10;  // a task's inputs: half of a second-level cache, with its sums
constexpr int64_t kSumBytes = 384 << 10;
constexpr int64_t kTapsAtATime = 256;  // whose weights stay in the first-level cache (32 KiB)
constexpr int64_t kWidestTile = 512;
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kGradientTasksPerThread = 2;  // each turns the gradient to the outputs over anew
constexpr int64_t kGradientTaps = 288;          // of a task: 36 KiB of sums
constexpr int64_t kTurnedBytes = 128 << 10;
constexpr int64_t kMaxLanes = 16;
constexpr int64_t kWeightBytes = 256 << 10;  // more are not read again for every row
constexpr int64_t kFewProducts =
    96;  // of an output: not worth the transposition of channels to pixels

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t even_share(int64_t count, int64_t limit) {
  return ceil_div(count, ceil_div(count, std::max<int64_t>(std::min(count, limit), 1)));
}

}  // namespace

bool direct_computes(const Problem& p, Pass pass) {
  return pass != Pass::kGradientInput || (p.stride_y == 1 && p.stride_x == 1);
}

DirectLayout::DirectLayout(const Problem& p, Pass pass, int lanes, int threads)
    : batch(p.batch),
      groups(p.groups),
      kernel_height(p.kernel_height),
      kernel_width(p.kernel_width),
      stride_y(p.stride_y),
      stride_x(p.stride_x),
      dilation_y(p.dilation_y),
      dilation_x(p.dilation_x),
      turned(pass == Pass::kGradientInput) {
  if (pass == Pass::kForward) bounds = p.bounds;
  ins = p.in_channels / p.groups;
  outs = p.out_channels / p.groups;
  in_height = p.height;
  in_width = p.width;
  out_height = p.out_height();
  out_width = p.out_width();
  origin_y = -p.pad_top;
  origin_x = -p.pad_left;
  const int64_t span_y = dilation_y * (kernel_height - 1), span_x = dilation_x * (kernel_width - 1);
  // The gradient to the input is a convolution of dy: inputs and outputs change places.
  if (turned) {
    std::swap(ins, outs);
    std::swap(in_height, out_height);
    std::swap(in_width, out_width);
    origin_y = p.pad_top - span_y;
    origin_x = p.pad_left - span_x;
  }
  if (kernel_height * kernel_width * stride_y * stride_x == 1 && origin_y == 0 && origin_x == 0 &&
      in_height == out_height && in_width == out_width) {  // one long row has fewer ends
    in_width = out_width *= out_height;
    in_height = out_height = 1;
  }
  // Channels in the lanes need outputs to fill half a vector, and enough products per output to pay
  // for turning the sums to planes.
  const int64_t products = ins * kernel_height * kernel_width;
  channel_lanes = 2 * outs > lanes && products >= kFewProducts;  // for any size of image
  pairs = ceil_div(outs, 2 * lanes);
  const bool gradient = pass == Pass::kGradientWeight;
  const int64_t taps_at_a_time = gradient ? kGradientTaps : kTapsAtATime;
  channels = channel_lanes || gradient
                 ? even_share(ins, taps_at_a_time / (kernel_height * kernel_width))
                 : ins;
  if (gradient) {
    channel_lanes = 2 * outs > lanes;
    const int64_t sets = groups * (channel_lanes ? pairs : 1);
    channels = even_share(
        ins, std::min(channels, ceil_div(ins * sets, kGradientTasksPerThread * threads)));
  }
  depthwise = !channel_lanes && ins * stride_y * stride_x * dilation_y == 1;

  // Tiles: columns first, then as many rows as the copied inputs, and the sums, fit the cache.
  columns = even_share(out_width, kWidestTile);
  tiles_x = ceil_div(out_width, columns);
  phases = std::min(stride_x, span_x + 1);
  copied_columns = columns + span_x / stride_x;
  phase_pitch = copied_columns + (channel_lanes ? 0 : 2 * lanes);  // whole vectors are read
  row_pitch = phases * phase_pitch;
  const int64_t max_copied = kCopiedBytes / 4 / (channels * row_pitch);
  int64_t max_rows = std::max<int64_t>((max_copied - span_y - 1) / stride_y + 1, 1);
  if (channel_lanes) {
    max_rows = std::min(max_rows, gradient ? kTurnedBytes / 4 / (columns * 2 * lanes)
                                           : kSumBytes / 4 / (columns * pairs * 2 * lanes));
  }
  // Tasks for all threads: parts of the outputs copy the same inputs, rows read the same weights.
  const int64_t others =
      batch * groups * tiles_x * ceil_div(out_height, std::max<int64_t>(max_rows, 1));
  const int64_t wanted = gradient ? 1 : ceil_div(kTasksPerThread * threads, others);
  const bool many_weights = products * pairs * 2 * lanes * 4 > kWeightBytes;
  parts = 1;
  if (channel_lanes && many_weights) parts = std::min(pairs, wanted);
  rows = even_share(ceil_div(out_height, ceil_div(wanted, parts)), std::max<int64_t>(max_rows, 1));
  tiles_y = ceil_div(out_height, rows);
  copied_rows = (rows - 1) * stride_y + span_y + 1;
  channel_pitch = copied_rows * row_pitch;

  // Where each tap finds its input, relative to the first input of an output, in the copied rows.
  for (int64_t ky = 0; ky < kernel_height; ++ky) {
    for (int64_t kx = 0; kx < kernel_width; ++kx) {
      const int64_t column = kx * dilation_x;
      taps.push_back(ky * dilation_y * row_pitch + column % stride_x * phase_pitch +
                     column / stride_x);
    }
  }
}

int64_t DirectLayout::tasks() const { return batch * groups * tiles_y * tiles_x * parts; }

int64_t DirectLayout::copied_floats() const {
  return ceil_div(channels * channel_pitch, kMaxLanes) * kMaxLanes +
         kMaxLanes;  // a last whole vector
}

int64_t DirectLayout::sum_floats(int lanes) const {
  return channel_lanes ? ceil_div(pairs, parts) * rows * columns * 2 * lanes : 0;
}

int64_t DirectLayout::gradient_tasks() const {
  return groups * (channel_lanes ? pairs : 1) * ceil_div(ins, channels);
}

int64_t DirectLayout::turned_floats(int lanes) const {
  return channel_lanes ? rows * columns * 2 * lanes : 0;
}

int64_t DirectLayout::gradient_floats(int lanes) const {
  return channels * kernel_height * kernel_width * (channel_lanes ? 2 : outs) * lanes;
}

int64_t DirectLayout::worker_floats(Pass pass, int lanes) const {
  return copied_floats() + (pass == Pass::kGradientWeight
                                ? turned_floats(lanes) + gradient_floats(lanes)
                                : sum_floats(lanes));
}

int64_t DirectLayout::prepacked_floats(int lanes) const {
  const int64_t filters = channel_lanes ? pairs * 2 * lanes : outs;
  return groups * filters * ins * kernel_height * kernel_width;
}

const ptrdiff_t* DirectLayout::tap_offsets() const { return taps.data(); }

}  // namespace graphscale::fft_conv
