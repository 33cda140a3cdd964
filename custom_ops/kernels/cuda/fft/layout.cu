// Turns the core problem of a pass (kernels/cpu/fft_conv/geometry.h), which counts in int64_t, into
// what the kernels read: planes with their steps, phases and limits in int.
#include "kernels/cuda/fft/layout.h"

#include <algorithm>

namespace graphscale::cuda {
namespace {

int to_int(int64_t value) { return static_cast<int>(value); }

Axis make_axis(const fft_conv::Map& map, int64_t limit, int64_t batch_phases,
               int64_t channel_phases) {
  Axis a{};
  a.step = to_int(map.step);
  a.origin = to_int(map.origin);
  a.extent = to_int(map.extent);
  a.divisor = to_int(map.divisor);
  a.last = -1;
  a.limit = to_int(limit);
  a.tiles = 1;
  a.batch_phases = to_int(batch_phases);
  a.channel_phases = to_int(channel_phases);
  a.phase_offset = 1;
  return a;
}

struct Side {  // of an axis: the positions read, or those written
  Axis in, out, taps;
};

Side make_side(const fft_conv::Axis& axis) {
  Side side{make_axis(axis.in, axis.tile, axis.batch_phases, axis.in_phases),
            make_axis(axis.out, axis.tile_outputs, axis.batch_phases, axis.out_phases),
            make_axis(axis.taps, axis.kernel, 1, 1)};
  for (Axis* const a : {&side.in, &side.out}) {
    a->tiles = to_int(axis.tiles);
    a->advance = to_int(axis.tile_outputs);
  }
  if (axis.flip) side.taps.last = to_int(axis.kernel - 1);
  return side;
}

// Rows of a folded line: their step is that of `fold` numbers, kernels are in parts.
void fold_rows(const TiledCore& cut, Side& y, Side& x) {
  y.in.step = x.in.step * cut.fold;
  y.out.step = x.out.step * cut.fold;
  y.in.origin = y.out.origin = 0;
  y.in.channel_phases = cut.parts;
  y.in.phase_offset = y.taps.phase_offset = 0;
  y.in.phase_advance = y.taps.phase_advance = to_int(cut.core.y.kernel);
  x.in.advance = x.out.advance = 0;
  x.taps.limit = cut.fold;
}

// The columns of a tile that lie in the plane, in any of its phases.
Columns used_columns(const Axis& a) {
  int begin = 0;
  int end = a.limit;
  if (a.tiles == 1 && a.advance > 0) {
    const int phases = std::max(a.batch_phases, a.channel_phases);
    // With one tile, columns that lie in the padding in every phase are zeros and are not
    // transformed.
    const int lowest = a.origin + phases - 1;
    if (lowest < 0) begin = std::min((-lowest + a.step - 1) / a.step, a.limit - 1);
    end = a.extent <= a.origin ? begin : std::min(end, (a.extent - 1 - a.origin) / a.step + 1);
  }
  return {begin, std::max(1, (end - begin + 1) / 2)};
}

Plane make_plane(const Tensor& tensor, int64_t channels, int fold, const Axis& y, const Axis& x) {
  const int64_t rows = fold > 0 ? 1 : y.extent;
  const int64_t channel = rows * x.extent;
  return {
      tensor.memory, tensor.type, channels * channel, channel, fold > 0 ? 1 : x.extent, fold, y, x};
}

}  // namespace

Layout make_layout(const TiledCore& cut, const Tensor& in, const Tensor& taps, const Tensor& out) {
  const fft_conv::Core& core = cut.core;
  Side y = make_side(core.y);
  Side x = make_side(core.x);
  if (cut.fold > 0) fold_rows(cut, y, x);
  Layout layout{};
  layout.in = make_plane(in, core.groups * core.in_channels, cut.fold, y.in, x.in);
  layout.out = make_plane(out, core.groups * core.out_channels, cut.fold, y.out, x.out);
  const Plane kernels = make_plane(taps, 1, cut.fold, y.taps, x.taps);
  layout.taps = {kernels,
                 core.tap_planes_group * kernels.channel,
                 core.tap_planes_out * kernels.channel,
                 core.tap_planes_in * kernels.channel,
                 to_int(core.outs()),
                 y.out.channel_phases,
                 x.out.channel_phases,
                 y.in.channel_phases,
                 x.in.channel_phases};
  layout.tiles = core.tiles();
  layout.images = layout.tiles / (core.y.tiles * core.x.tiles);
  layout.groups = core.groups;
  layout.ins = cut.ins();
  layout.outs = core.outs();
  layout.in_columns = used_columns(x.in);
  layout.out_columns = {0, (x.out.limit + 1) / 2};
  return layout;
}

}  // namespace graphscale::cuda
