// Which planes of a problem's tensors go side by side in the lanes.
#pragma once

#include "kernels/cpu/fft_conv/planes-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// Tile number t of a core: image (with its batch phases) and place.
struct Place {
  int64_t image, phase_y, phase_x, tile_y, tile_x;
};

GRAPHSCALE_INLINE Place place_of(const Core& core, int64_t tile) {
  Place p;
  p.tile_x = tile % core.x.tiles;
  tile /= core.x.tiles;
  p.tile_y = tile % core.y.tiles;
  tile /= core.y.tiles;
  p.phase_x = tile % core.x.batch_phases;
  tile /= core.x.batch_phases;
  p.phase_y = tile % core.y.batch_phases;
  p.image = tile / core.y.batch_phases;
  return p;
}

// A channel of a group with its phases: number v = (channel * phases_y + py) * phases_x + px.
struct Channel {
  int64_t channel, phase_y, phase_x;
};

GRAPHSCALE_INLINE Channel channel_of(int64_t v, int64_t phases_y, int64_t phases_x) {
  return {v / (phases_y * phases_x), v / phases_x % phases_y, v % phases_x};
}

GRAPHSCALE_INLINE Channel in_channel(const Core& core, int64_t v) {
  return channel_of(v, core.y.in_phases, core.x.in_phases);
}

GRAPHSCALE_INLINE Channel out_channel(const Core& core, int64_t v) {
  return channel_of(v, core.y.out_phases, core.x.out_phases);
}

// Starts a set of planes at a tile; its lanes follow by set_lane.
template <int L>
GRAPHSCALE_INLINE Planes<L> planes_at(const Map& rows, const Map& columns, const Core& core,
                                      const Place& place) {
  Planes<L> planes;
  planes.rows = rows;
  planes.columns = columns;
  planes.rows.origin += rows.step * place.tile_y * core.y.tile_outputs + place.phase_y;
  planes.columns.origin += columns.step * place.tile_x * core.x.tile_outputs + place.phase_x;
  return planes;
}

template <int L>
GRAPHSCALE_INLINE void add_lane(Planes<L>& planes, const float* data, int64_t plane,
                                const Channel& channel) {
  const int i = planes.count++;
  planes.base[i] = const_cast<float*>(data) + plane * planes.rows.extent * planes.columns.extent;
  planes.row_phase[i] = channel.phase_y;
  planes.column_phase[i] = channel.phase_x;
  if (channel.phase_y != planes.row_phase[0] || channel.phase_x != planes.column_phase[0]) {
    planes.aligned_lanes = false;
  }
}

template <int L>
GRAPHSCALE_INLINE void fill_lanes(Planes<L>& planes) {
  for (int i = planes.count; i < L; ++i) {
    planes.base[i] = planes.base[0];
    planes.row_phase[i] = planes.row_phase[0];
    planes.column_phase[i] = planes.column_phase[0];
  }
}

// L inputs of a group from number `first` on.
template <int L>
Planes<L> input_planes(const Core& core, const float* x, int64_t group, int64_t first,
                       const Place& place) {
  Planes<L> planes = planes_at<L>(core.y.in, core.x.in, core, place);
  for (int64_t v = first; v < first + L && v < core.ins(); ++v) {
    const Channel c = in_channel(core, v);
    add_lane<L>(planes, x, (place.image * core.groups + group) * core.in_channels + c.channel, c);
  }
  fill_lanes<L>(planes);
  return planes;
}

// L outputs from number `first` on, counted over all groups when the group is -1.
template <int L>
Planes<L> output_planes(const Core& core, const float* y, int64_t group, int64_t first,
                        const Place& place, const float* bias, Vector<L>* bias_values) {
  Planes<L> planes = planes_at<L>(core.y.out, core.x.out, core, place);
  const int64_t end = group < 0 ? core.outs() * core.groups : core.outs();
  planes.bounds = core.bounds;
  *bias_values = Vector<L>{};
  for (int64_t v = first; v < first + L && v < end; ++v) {
    const Channel c = out_channel(core, v);
    const int64_t plane = (group < 0 ? 0 : group * core.out_channels) + c.channel;
    if (bias != nullptr) (*bias_values)[planes.count] = bias[plane];
    add_lane<L>(planes, y, place.image * core.groups * core.out_channels + plane, c);
  }
  fill_lanes<L>(planes);
  return planes;
}

// Input `in` of the groups of L outputs (over all groups) from number `first` on.
template <int L>
Planes<L> inputs_of_outputs(const Core& core, const float* x, int64_t first, int64_t in,
                            const Place& place) {
  Planes<L> planes = planes_at<L>(core.y.in, core.x.in, core, place);
  const Channel c = in_channel(core, in);
  for (int64_t v = first; v < first + L && v < core.outs() * core.groups; ++v) {
    const int64_t group = v / core.outs();
    add_lane<L>(planes, x, (place.image * core.groups + group) * core.in_channels + c.channel, c);
  }
  fill_lanes<L>(planes);
  return planes;
}

// The taps from input `in` to L outputs from number `first` on (see output_planes).
template <int L>
Planes<L> tap_planes(const Core& core, const float* w, int64_t group, int64_t first, int64_t in) {
  Planes<L> planes = planes_at<L>(core.y.taps, core.x.taps, core, Place{0, 0, 0, 0, 0});
  if (core.y.flip) planes.last_row = core.y.kernel - 1;
  if (core.x.flip) planes.last_column = core.x.kernel - 1;
  const Channel from = in_channel(core, in);
  const int64_t end = group < 0 ? core.outs() * core.groups : core.outs();
  for (int64_t v = first; v < first + L && v < end; ++v) {
    const int64_t g = group < 0 ? v / core.outs() : group;
    const Channel to = out_channel(core, v % core.outs());
    add_lane<L>(planes, w,
                g * core.tap_planes_group + to.channel * core.tap_planes_out +
                    from.channel * core.tap_planes_in,
                Channel{0, from.phase_y + to.phase_y, from.phase_x + to.phase_x});
  }
  fill_lanes<L>(planes);
  return planes;
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
