// The gradient to the weights without transforms: dw[tap][output] = sum over pixels of x[pixel +
// tap] dy[pixel].
//
// Output channels in the lanes: dy of a tile is turned to [pixel][channel], then M taps x 2 blocks
// of channels stay in registers while the pixels go by: 2 M fused multiply-adds for 2 loads and M
// broadcasts, as in direct-inl.h. Pixels in the lanes: M taps of one output, whose lanes are summed
// at the end; depthwise convolutions are computed by direct_depthwise-inl.h.
#pragma once

#include "kernels/cpu/fft_conv/direct-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

template <int L>
constexpr int kTapsInRegisters = L == 16 ? 14 : 6;

// The first pixels of M taps in the copied inputs: taps of all channels, one channel after the
// other.
template <int M>
GRAPHSCALE_INLINE void find_taps(const DirectLayout& d, const float* inputs, int64_t first,
                                 const float* (&taps)[M]) {
  const int64_t per_channel = d.kernel_height * d.kernel_width;
  const ptrdiff_t* const offsets = d.tap_offsets();
  for (int m = 0; m < M; ++m) {
    taps[m] =
        inputs + (first + m) / per_channel * d.channel_pitch + offsets[(first + m) % per_channel];
  }
}

// dy of a tile and 2 L outputs from `out` on as [row][column][2 L], zeros beyond the last output.
template <int L>
__attribute__((flatten)) void turn_gradient(const DirectLayout& d, const DirectTile& tile,
                                            const float* dy, int64_t out, float* turned) {
  const int64_t plane = d.out_height * d.out_width;
  const float* const from = dy + ((tile.image * d.groups + tile.group) * d.outs + out) * plane +
                            tile.first_row * d.out_width + tile.first_column;
  // Two blocks of L outputs; L pixels of a block at a time, turned in registers.
  for (int64_t b = 0; b < 2; ++b) {
    const int count = clamp_lane(d.outs - out - b * L, L);
    for (int64_t r = 0; r < tile.rows; ++r) {
      // L pixels at a time; a last part of a row is masked.
      for (int64_t q = 0; q < tile.columns; q += L) {
        const int last = clamp_lane(tile.columns - q, L);
        const float* const row = from + b * L * plane + r * d.out_width + q;
        Vector<L> square[L];
        unroll<L>([&](auto i) {
          square[i] = i < count ? load_range<L>(row + i * plane, 0, last) : Vector<L>{};
        });
        transpose<L>(square);
        float* const to = turned + (r * d.columns + q) * 2 * L + b * L;
        unroll<L>([&](auto j) {
          if (j < last) store<L>(to + j * 2 * L, square[j]);
        });
      }
    }
  }
}

// sums[m][2 L] += over the tile's pixels, for M taps from `first` on.
template <int L, int M>
__attribute__((flatten)) void correlate_channels(const DirectLayout& d, const DirectTile& tile,
                                                 const float* inputs, int64_t first,
                                                 const float* turned, float* sums) {
  const float* taps[M];
  find_taps<M>(d, inputs, first, taps);
  Vector<L> sum[M][2] = {};
  // Each pixel of a tap, broadcast, meets the gradients of 2 L outputs; 2 M sums stay in registers.
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t row = r * d.stride_y * d.row_pitch;
    const float* gradient = turned + r * d.columns * 2 * L;
    for (int64_t q = row; q < row + tile.columns; ++q, gradient += 2 * L) {
      const Vector<L> a = load<L>(gradient), b = load<L>(gradient + L);
      unroll<M>([&](auto m) {
        const float pixel = taps[m][q];
        sum[m][0] += pixel * a;
        sum[m][1] += pixel * b;
      });
    }
  }
  unroll<M>([&](auto m) {
    store<L>(sums + m * 2 * L, load<L>(sums + m * 2 * L) + sum[m][0]);
    store<L>(sums + m * 2 * L + L, load<L>(sums + m * 2 * L + L) + sum[m][1]);
  });
}

// sums[m][L] += over the tile's pixels for one output, whose gradient begins at dy.
template <int L, int M>
__attribute__((flatten)) void correlate_pixels(const DirectLayout& d, const DirectTile& tile,
                                               const float* inputs, int64_t first, const float* dy,
                                               float* sums) {
  using Loose = typename VectorOf<L>::unaligned;
  const float* taps[M];
  find_taps<M>(d, inputs, first, taps);
  Vector<L> sum[M];
  unroll<M>([&](auto m) { sum[m] = load<L>(sums + m * L); });
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t row = r * d.stride_y * d.row_pitch;
    const float* const gradient = dy + r * d.out_width;
    int64_t q = 0;
    for (; q + L <= tile.columns; q += L) {
      const Vector<L> g = *reinterpret_cast<const Loose*>(gradient + q);
      unroll<M>([&](auto m) { sum[m] += g * *reinterpret_cast<const Loose*>(taps[m] + row + q); });
    }
    if (q < tile.columns) {
      const int last = static_cast<int>(tile.columns - q);
      const Vector<L> g = load_range<L>(gradient + q, 0, last);
      unroll<M>([&](auto m) { sum[m] += g * load_range<L>(taps[m] + row + q, 0, last); });
    }
  }
  unroll<M>([&](auto m) { store<L>(sums + m * L, sum[m]); });
}

// run(Index<m>(), first) over `count` taps in equal pieces of at most M.
template <int M, typename Run>
void all_in_pieces(int64_t count, const Run& run) {
  int64_t first = 0;
  for (int64_t pieces = (count + M - 1) / M; pieces > 0; --pieces) {
    const int64_t size = (count - first + pieces - 1) / pieces;
    with_count<M>(size, [&](auto m) { run(m, first); });
    first += size;
  }
}

template <int L>
bool correlate_direct(const DirectLayout& d, const float* x, const float* dy, float* dw,
                      const Context& context) {
  if (d.depthwise) return correlate_depthwise<L>(d, x, dy, dw, context);
  const int64_t copied = d.copied_floats(), turned_size = d.turned_floats(L);
  const int64_t work = d.worker_floats(Pass::kGradientWeight, L);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return false;
  const int64_t taps = d.kernel_height * d.kernel_width;
  const int64_t sets = d.channel_lanes ? d.pairs : 1;
  const int64_t parts = (d.ins + d.channels - 1) / d.channels;
  deal(context, d.gradient_tasks(), [&](int64_t worker, int64_t task) {
    float* const inputs = memory + worker * work;
    float* const turned = inputs + copied;
    float* const sums = turned + turned_size;
    const int64_t channel = task % parts * d.channels, out = task / parts % sets * 2 * L;
    const int64_t group = task / parts / sets;
    const int64_t count = d.ins - channel < d.channels ? d.ins - channel : d.channels;
    const int64_t outs = d.channel_lanes ? 1 : d.outs;  // sets of sums
    const int64_t wide = d.channel_lanes ? 2 * L : L;
    for (int64_t i = 0; i < outs * count * taps * wide; i += L) store<L>(sums + i, Vector<L>{});
    const int64_t tiles = d.tiles_y * d.tiles_x;
    // A task owns some inputs and one set of outputs and walks all tiles of all images: no two
    // tasks write the same sums.
    for (int64_t t = 0; t < d.batch * tiles; ++t) {
      const DirectTile tile =
          tile_of(d, ((t / tiles * d.groups + group) * tiles + t % tiles) * d.parts);
      copy_inputs<L>(d, tile, x, channel, count, inputs);
      if (d.channel_lanes) {
        turn_gradient<L>(d, tile, dy, out, turned);
        all_in_pieces<kTapsInRegisters<L>>(count * taps, [&](auto m, int64_t first) {
          correlate_channels<L, m>(d, tile, inputs, first, turned, sums + first * wide);
        });
        continue;
      }
      for (int64_t o = 0; o < d.outs; ++o) {
        const int64_t plane = (tile.image * d.groups + group) * d.outs + o;
        const float* const gradient =
            dy + (plane * d.out_height + tile.first_row) * d.out_width + tile.first_column;
        float* const to = sums + o * count * taps * L;
        all_in_pieces<kTapsInRegisters<L>>(count * taps, [&](auto m, int64_t first) {
          correlate_pixels<L, m>(d, tile, inputs, first, gradient, to + first * L);
        });
      }
    }
    // Sums lie as [tap of input][output]; dw wants [output][input][tap]. With pixels in the lanes,
    // the lanes are added up here.
    const int64_t last = d.channel_lanes ? (d.outs - out < 2 * L ? d.outs - out : 2 * L) : d.outs;
    for (int64_t o = 0; o < last; ++o) {
      float* const to = dw + ((group * d.outs + out + o) * d.ins + channel) * taps;
      for (int64_t i = 0; i < count * taps; ++i) {
        to[i] = d.channel_lanes ? sums[i * wide + o]
                                : sum_of_lanes<L>(load<L>(sums + (o * count * taps + i) * L));
      }
    }
  });
  return true;
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
