// The direct convolution with output channels in the lanes (groups of more than half a vector of
// them): M pixels x 2 blocks of channels stay in registers (14 x 2 with AVX-512's 32). One tap of
// one input costs 2 M fused multiply-adds for 2 loads of weights and M broadcasts of pixels, so
// that two multiply-adds a cycle wait neither for the first-level cache nor, at 128 bytes in M
// cycles, for the second. Sums lie as [pixel][channel] until all inputs are through and are
// transposed on their way out.
#pragma once

#include "kernels/cpu/fft_conv/direct_tile-inl.h"
#include "kernels/cpu/fft_conv/workers-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// sums[r][m][b] (+)= over channels and taps of x[channel][tap][r][m] * w[channel][tap][b], for R
// rows of M pixels and B blocks of L channels.
template <int L, int R, int M, int B>
__attribute__((flatten)) void multiply_pixels(const DirectLayout& d, const ptrdiff_t* offsets,
                                              int64_t taps, int64_t channels, const float* x,
                                              const float* w, float* sums, bool first) {
  const int64_t row = d.stride_y * d.row_pitch, sums_row = d.columns * 2 * L;
  Vector<L> sum[R][M][B] = {};  // from zero: sums of sums round less than one long sum
  // One tap of one channel: B vectors of weights meet R M broadcast pixels.
  for (int64_t c = 0; c < channels; ++c, x += d.channel_pitch) {
    for (int64_t tap = 0; tap < taps; ++tap, w += 2 * L) {
      const float* const at = x + offsets[tap];
      Vector<L> weights[B];
      unroll<B>([&](auto b) { weights[b] = load<L>(w + b * L); });
      unroll<R>([&](auto r) GRAPHSCALE_INLINE_LAMBDA {
        unroll<M>([&](auto m) GRAPHSCALE_INLINE_LAMBDA {
          const float pixel = at[r * row + m];
          unroll<B>([&](auto b) GRAPHSCALE_INLINE_LAMBDA { sum[r][m][b] += pixel * weights[b]; });
        });
      });
    }
  }
  // First inputs set the sums in memory, later ones add to them.
  unroll<R>([&](auto r) GRAPHSCALE_INLINE_LAMBDA {
    unroll<M>([&](auto m) GRAPHSCALE_INLINE_LAMBDA {
      unroll<B>([&](auto b) GRAPHSCALE_INLINE_LAMBDA {
        float* const to = sums + r * sums_row + m * 2 * L + b * L;
        store<L>(to, first ? sum[r][m][b] : load<L>(to) + sum[r][m][b]);
      });
    });
  });
}

// R rows of a tile, in equal pieces.
template <int L, int R, int B>
void multiply_rows(const DirectLayout& d, int64_t columns, int64_t channels, const float* x,
                   const float* w, float* sums, bool first) {
  // R M B sums, B weights and a pixel fill the registers: 32 with AVX-512, else 16.
  constexpr int M = (L == 16 ? 14 : 6) / R;
  const int64_t taps = d.kernel_height * d.kernel_width;
  const ptrdiff_t* const offsets = d.tap_offsets();
  for (int64_t pieces = (columns + M - 1) / M; pieces > 0; --pieces) {
    const int64_t m = (columns + pieces - 1) / pieces;
    with_count<M>(m, [&](auto count) {
      multiply_pixels<L, R, count, B>(d, offsets, taps, channels, x, w, sums, first);
    });
    x += m;
    sums += m * 2 * L;
    columns -= m;
  }
}

// All rows of a tile; those of small images two at a time.
template <int L, int B>
void multiply_tile(const DirectLayout& d, const DirectTile& tile, int64_t channels, const float* x,
                   const float* w, float* sums, bool first) {
  constexpr int kShort = L == 16 ? 7 : 3;
  const int64_t row = d.stride_y * d.row_pitch, sums_row = d.columns * 2 * L;
  int64_t r = 0;
  // A row shorter than half of M would leave registers idle: two rows fill them.
  if (tile.columns <= kShort) {
    for (; r + 2 <= tile.rows; r += 2) {
      multiply_rows<L, 2, B>(d, tile.columns, channels, x + r * row, w, sums + r * sums_row, first);
    }
  }
  for (; r < tile.rows; ++r) {
    multiply_rows<L, 1, B>(d, tile.columns, channels, x + r * row, w, sums + r * sums_row, first);
  }
}

// Sums [pixel][2 L] of one row, the block's L channels, to the planes of y.
template <int L>
__attribute__((flatten)) void store_sums(const float* sums, int64_t columns, const Vector<L>& bias,
                                         const Bounds& bounds, float* y, int64_t plane,
                                         int channels) {
  for (int64_t q = 0; q < columns; q += L) {
    const int last = columns - q < L ? static_cast<int>(columns - q) : L;
    // L pixels of L channels, turned in registers to L rows of planes.
    Vector<L> square[L];
    unroll<L>([&](auto j) {
      square[j] = j < last ? clip<L>(load<L>(sums + (q + j) * 2 * L) + bias, bounds) : Vector<L>{};
    });
    transpose<L>(square);
    unroll<L>([&](auto i) {
      if (i < channels) store_first<L>(y + i * plane + q, square[i], last);
    });
  }
}

template <int L>
bool convolve_channel_lanes(const DirectLayout& d, const float* x, const float* prepacked,
                            const float* bias, float* y, const Context& context) {
  const int64_t copied = d.copied_floats();
  const int64_t work = d.worker_floats(Pass::kForward, L);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return false;
  const int64_t per_input = d.kernel_height * d.kernel_width * 2 * L;
  const int64_t out_plane = d.out_height * d.out_width;
  deal(context, d.tasks(), [&](int64_t worker, int64_t task) {
    const DirectTile tile = tile_of(d, task);
    float* const inputs = memory + worker * work;
    float* const sums = inputs + copied;
    const int64_t begin = d.pairs * tile.part / d.parts, end = d.pairs * (tile.part + 1) / d.parts;
    const int64_t per_pair = d.rows * d.columns * 2 * L;
    // Some channels at a time: their copied rows stay in the second-level cache while all outputs
    // of the task read them, and the weights of a pair stay in the first-level cache for all
    // pixels.
    for (int64_t channel = 0; channel < d.ins; channel += d.channels) {
      const int64_t count = d.ins - channel < d.channels ? d.ins - channel : d.channels;
      copy_inputs<L>(d, tile, x, channel, count, inputs);
      for (int64_t pair = begin; pair < end; ++pair) {
        const float* const w =
            prepacked + ((tile.group * d.pairs + pair) * d.ins + channel) * per_input;
        float* const to = sums + (pair - begin) * per_pair;
        if (d.outs - pair * 2 * L > L) {
          multiply_tile<L, 2>(d, tile, count, inputs, w, to, channel == 0);
        } else {
          multiply_tile<L, 1>(d, tile, count, inputs, w, to, channel == 0);
        }
      }
    }
    // All inputs are through: bias, bounds, transposition, and into y, L channels at a time.
    for (int64_t first = begin * 2 * L; first < end * 2 * L && first < d.outs; first += L) {
      const int channels = d.outs - first < L ? static_cast<int>(d.outs - first) : L;
      const int64_t filter = tile.group * d.outs + first;
      Vector<L> bias_values{};
      for (int i = 0; bias != nullptr && i < channels; ++i) bias_values[i] = bias[filter + i];
      const int64_t plane = tile.image * d.groups * d.outs + filter;
      const float* const from = sums + (first / (2 * L) - begin) * per_pair + first % (2 * L);
      for (int64_t r = 0; r < tile.rows; ++r) {
        float* const to =
            y + plane * out_plane + (tile.first_row + r) * d.out_width + tile.first_column;
        store_sums<L>(from + r * d.columns * 2 * L, tile.columns, bias_values, d.bounds, to,
                      out_plane, channels);
      }
    }
  });
  return true;
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
