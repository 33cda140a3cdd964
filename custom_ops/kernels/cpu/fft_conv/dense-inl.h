// The dense method: all tiles of a chunk to spectra; per frequency one complex product [tiles x
// inputs] * [inputs x outputs]; back to tiles. Per tile of T x T and frequency there are 8 C_in
// C_out operations in T^2/2 + 2 frequencies, against 2 K^2 C_in C_out (T - K + 1)^2 of the direct
// convolution; the transforms add about 2.5 T^2 log2(T^2) (C_in + C_out). For 64 -> 64 channels:
//
//   K    T    products  transforms  direct    (millions of operations per tile; factor per output)
//   9    32     16.8        3.3       382       24 x 24 outputs: 19 x fewer
//   13   32     16.8        3.3       554       20 x 20 outputs: 28 x fewer
//   31   64     67.3       15.7      9101       34 x 34 outputs: 110 x fewer
//
// The rest is memory: weights are T^2/K^2 times larger than before and are read once per chunk,
// spectra of activations are written and read once each and stay in the last-level cache
// (layout.h).
#pragma once

#include "kernels/cpu/fft_conv/lanes-inl.h"
#include "kernels/cpu/fft_conv/products-inl.h"
#include "kernels/cpu/fft_conv/tile-inl.h"
#include "kernels/cpu/fft_conv/workers-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// The frequencies kept of column kx: all ky, but half of them in the two columns that mirror
// themselves.
struct Column {
  int64_t first, count;
  bool mirrored;
};

GRAPHSCALE_INLINE Column column_of(const Core& core, int64_t kx) {
  const int64_t half = core.y.tile / 2 + 1;
  if (kx == 0) return {0, half, true};
  const int64_t first = half + (kx - 1) * core.y.tile;
  if (kx == core.x.tile / 2) return {first, half, true};
  return {first, core.y.tile, false};
}

// The columns of a tile whose rows are transformed, to out[frequency * pitch].
template <int L>
void spread_columns(const Core& core, const Tile<L>& tile, float* out, int64_t pitch) {
  // A column goes straight to its place among the frequencies, `pitch` apart. Columns 0 and T/2
  // mirror themselves: of their T values, T/2 + 1 are kept.
  for (int64_t kx = 0; kx < core.columns(); ++kx) {
    const Column column = column_of(core, kx);
    float* const to = out + column.first * pitch;
    if (!column.mirrored) {
      tile.forward_column(kx, to, pitch);
      continue;
    }
    const float* const from = tile.column();
    tile.forward_column(kx, tile.column(), 2 * L);
    for (int64_t ky = 0; ky < column.count; ++ky) {
      store<L>(to + ky * pitch, load<L>(from + ky * 2 * L));
      store<L>(to + ky * pitch + L, load<L>(from + ky * 2 * L + L));
    }
  }
}

// The way back: inverse columns into the tile.
template <int L>
void gather_columns(const Core& core, const Tile<L>& tile, const float* in, int64_t pitch) {
  // The values of the mirrored columns that were not kept are the conjugates of those that were.
  for (int64_t kx = 0; kx < core.columns(); ++kx) {
    const Column column = column_of(core, kx);
    const float* const from = in + column.first * pitch;
    if (!column.mirrored) {
      tile.inverse_column(kx, from, pitch);
      continue;
    }
    float* const to = tile.column();
    for (int64_t ky = 0; ky < core.y.tile; ++ky) {
      const bool kept = ky < column.count;
      const float* const value = from + (kept ? ky : core.y.tile - ky) * pitch;
      const Vector<L> im = load<L>(value + L);
      store<L>(to + ky * 2 * L, load<L>(value));
      store<L>(to + ky * 2 * L + L, kept ? im : -im);
    }
    tile.inverse_column(kx, to, 2 * L);
  }
}

template <int L>
Outcome prepack_dense(const Core& core, const float* w, float* prepacked, const Context& context) {
  const DenseLayout layout(core, L);
  const int64_t work = tile_floats(core, L);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return Outcome::kNoMemory;
  const int64_t per_group = core.ins() * layout.out_blocks;
  Spread spread;
  deal_reading<L>(
      context, core.groups * per_group, spread,
      [&](int64_t worker, int64_t task, Magnitudes<L>& read) {
        const Tile<L> tile(core, memory + worker * work);
        const int64_t group = task / per_group, block = task % per_group / core.ins();
        const int64_t in = task % core.ins();
        tile.forward_rows(tap_planes<L>(core, w, group, block * L, in), core.y.kernel,
                          core.x.kernel, read);
        float* const out = prepacked + group * layout.weights + (block * core.ins() + in) * 2 * L;
        spread_columns<L>(core, tile, out, layout.weight_pitch);
        for (int64_t f = 0; f < core.frequencies(); ++f) {  // correlation: the conjugate
          float* const im = out + f * layout.weight_pitch + L;
          store<L>(im, -load<L>(im));
        }
      });
  return spread.outcome();
}

// Spectra of `count` tiles of one side of a group; planes(tile, block) finds them.
template <int L, typename FindPlanes>
void transform_tiles(const Core& core, const Context& context, int64_t count,
                     int64_t channel_blocks, int64_t rows, int64_t columns, float* memory,
                     float* spectra, int64_t pitch, Spread& spread, const FindPlanes& planes) {
  const int64_t work = tile_floats(core, L);
  // A task transforms one tile of L channels.
  deal_reading<L>(context, count * channel_blocks, spread,
                  [&](int64_t worker, int64_t task, Magnitudes<L>& read) {
                    const Tile<L> tile(core, memory + worker * work);
                    tile.forward_rows(planes(task / channel_blocks, task % channel_blocks), rows,
                                      columns, read);
                    spread_columns<L>(core, tile, spectra + task * 2 * L, pitch);
                  });
}

constexpr int64_t kFrequenciesPerTask = 4;

template <int L>
Outcome convolve_dense(const Core& core, const float* x, const float* prepacked, const float* bias,
                       float* y, const Context& context) {
  const DenseLayout layout(core, L);
  const int64_t work = tile_floats(core, L);
  const int64_t frequencies = core.frequencies();
  const int64_t floats = scratch_floats(core, Pass::kForward, Method::kDense, L, context.threads);
  const Scratch scratch(context, static_cast<size_t>(floats) * 4);
  if (scratch.get<float>() == nullptr) return Outcome::kNoMemory;
  float* const memory = scratch.get<float>();
  float* const in = memory + context.threads * work;
  float* const out = in + frequencies * layout.in_pitch;
  Spread inputs;
  // Three parallel loops per chunk of tiles: transform the inputs, multiply per frequency,
  // transform back. The chunk is as large as its spectra fit the last-level cache (layout.h), so
  // each weight that is read meets as many tiles as possible.
  for (int64_t group = 0; group < core.groups; ++group) {
    for (int64_t first = 0; first < core.tiles(); first += layout.chunk) {
      const int64_t left = core.tiles() - first;
      const int64_t count = left < layout.chunk ? left : layout.chunk;
      transform_tiles<L>(core, context, count, layout.in_blocks, core.y.tile, core.x.tile, memory,
                         in, layout.in_pitch, inputs, [&](int64_t t, int64_t block) {
                           return input_planes<L>(core, x, group, block * L,
                                                  place_of(core, first + t));
                         });
      // Per frequency: [count tiles x ins] * [ins x outs]. Neighbouring frequencies go to one task:
      // they lie side by side in memory.
      const int64_t tasks = (frequencies + kFrequenciesPerTask - 1) / kFrequenciesPerTask;
      deal(context, tasks, [&](int64_t, int64_t task) {
        const int64_t begin = task * kFrequenciesPerTask;
        const int64_t end = begin + kFrequenciesPerTask;
        for (int64_t f = begin; f < end && f < frequencies; ++f) {
          Operands p;
          p.a = in + f * layout.in_pitch;
          p.a_m = layout.in_blocks * 2 * L;
          p.a_inner = 1;
          p.a_outer = 2 * L;
          p.r_count = core.ins();
          p.inner_count = L;
          p.b = prepacked + group * layout.weights + f * layout.weight_pitch;
          p.b_r = 2 * L;
          p.b_block = core.ins() * 2 * L;
          p.out = out + f * layout.out_pitch;
          p.out_m = layout.out_blocks * 2 * L;
          p.out_block = 2 * L;
          p.accumulate = false;
          product<L, false>(count, layout.out_blocks, p);
        }
      });
      // Back to tiles: inverse columns, inverse rows, bias and bounds, and into y.
      deal(context, count * layout.out_blocks, [&](int64_t worker, int64_t task) {
        const Tile<L> tile(core, memory + worker * work);
        gather_columns<L>(core, tile, out + task * 2 * L, layout.out_pitch);
        Vector<L> bias_values;
        const Planes<L> planes =
            output_planes<L>(core, y, group, task % layout.out_blocks * L,
                             place_of(core, first + task / layout.out_blocks), bias, &bias_values);
        tile.inverse_rows(planes, core.y.tile_outputs, core.x.tile_outputs, bias_values);
      });
    }
  }
  return inputs.outcome();
}

// dw = sum over tiles of x times the conjugate of dy, for a few blocks of outputs at a time.
template <int L>
Outcome correlate_dense(const Core& core, const float* x, const float* dy, float* dw,
                        const Context& context) {
  const GradientLayout layout(core, L);
  const int64_t work = tile_floats(core, L);
  const int64_t frequencies = core.frequencies(), ins = core.ins();
  const int64_t floats =
      scratch_floats(core, Pass::kGradientWeight, Method::kDense, L, context.threads);
  const Scratch scratch(context, static_cast<size_t>(floats) * 4);
  if (scratch.get<float>() == nullptr) return Outcome::kNoMemory;
  float* const memory = scratch.get<float>();
  float* const in = memory + context.threads * work;
  float* const out = in + frequencies * layout.in_pitch;
  float* const weights = out + frequencies * layout.out_pitch;
  const int64_t all_blocks = blocks(core.outs(), L);
  const int64_t parts = (all_blocks + layout.out_blocks - 1) / layout.out_blocks;
  Spread inputs, gradients;
  // Some blocks of outputs at a time, as many as have spectra of weight gradients that fit the
  // cache; these are summed over all chunks of tiles before they are transformed back once.
  for (int64_t part = 0; part < core.groups * parts; ++part) {
    const int64_t group = part / parts, first_block = part % parts * layout.out_blocks;
    const int64_t out_blocks =
        all_blocks - first_block < layout.out_blocks ? all_blocks - first_block : layout.out_blocks;
    for (int64_t first = 0; first < core.tiles(); first += layout.chunk) {
      const int64_t left = core.tiles() - first;
      const int64_t count = left < layout.chunk ? left : layout.chunk;
      transform_tiles<L>(core, context, count, layout.in_blocks, core.y.tile, core.x.tile, memory,
                         in, layout.in_pitch, inputs, [&](int64_t t, int64_t block) {
                           return input_planes<L>(core, x, group, block * L,
                                                  place_of(core, first + t));
                         });
      transform_tiles<L>(core, context, count, out_blocks, core.y.tile_outputs, core.x.tile_outputs,
                         memory, out, layout.out_pitch, gradients, [&](int64_t t, int64_t block) {
                           Vector<L> no_bias;
                           return output_planes<L>(core, dy, group, (first_block + block) * L,
                                                   place_of(core, first + t), nullptr, &no_bias);
                         });
      // Per frequency: dw[in][out] += sum over tiles of x[tile][in] * conj(dy[tile][out]), L inputs
      // at a time.
      deal(context, frequencies, [&](int64_t, int64_t f) {
        for (int64_t c = 0; c < ins; c += L) {
          Operands p;
          p.a = in + f * layout.in_pitch + c * 2;
          p.a_m = 1;
          p.a_inner = layout.in_blocks * 2 * L;
          p.a_outer = 0;
          p.r_count = p.inner_count = count;
          p.b = out + f * layout.out_pitch;
          p.b_r = out_blocks * 2 * L;
          p.b_block = 2 * L;
          p.out = weights + f * layout.weight_pitch + c * 2 * L;
          p.out_m = 2 * L;
          p.out_block = ins * 2 * L;
          p.accumulate = first > 0;
          product<L, true>(ins - c < L ? ins - c : L, out_blocks, p);
        }
      });
    }
    // The sums back to kernels, of which only the taps are stored.
    deal(context, ins * out_blocks, [&](int64_t worker, int64_t task) {
      const Tile<L> tile(core, memory + worker * work);
      gather_columns<L>(core, tile, weights + task * 2 * L, layout.weight_pitch);
      tile.inverse_rows(tap_planes<L>(core, dw, group, (first_block + task / ins) * L, task % ins),
                        core.y.kernel, core.x.kernel, Vector<L>{});
    });
  }
  return inputs.far_apart() ? inputs.outcome() : gradients.outcome();
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
