// The per-channel method, for depthwise convolutions and groups of a few channels: L output
// channels in the lanes; load tile, transform, multiply, inverse, store without leaving the
// second-level cache. With one input per output the middle is one pass: column in, transform,
// multiply, inverse, column out.
//
// Cost per output channel and tile: (inputs + 1) transforms of about 2.5 T^2 log2(T^2) operations
// and 4 T^2 inputs for the products. A 31 x 31 'same' layer over 56 x 56 is one tile of 72 x 72
// (the padding may wrap around): 0.32 + 0.02 million operations, against 6.0 of the direct
// convolution.
#pragma once

#include "kernels/cpu/fft_conv/lanes-inl.h"
#include "kernels/cpu/fft_conv/tile-inl.h"
#include "kernels/cpu/fft_conv/workers-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

template <int L>
Outcome prepack_per_channel(const Core& core, const float* w, float* prepacked,
                            const Context& context) {
  const int64_t work = tile_floats(core, L);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return Outcome::kNoMemory;
  const int64_t size = core.columns() * core.y.tile * 2 * L;
  const int64_t out_blocks = blocks(core.groups * core.outs(), L);
  Spread spread;
  deal_reading<L>(context, out_blocks * core.ins(), spread,
                  [&](int64_t worker, int64_t task, Magnitudes<L>& read) {
                    const Tile<L> tile(core, memory + worker * work);
                    tile.forward_rows(
                        tap_planes<L>(core, w, -1, task / core.ins() * L, task % core.ins()),
                        core.y.kernel, core.x.kernel, read);
                    float* const out = prepacked + task * size;
                    // Spectra lie as [kx][ky]: column after column, as they are multiplied.
                    for (int64_t kx = 0; kx < core.columns(); ++kx) {
                      tile.forward_column(kx, out + kx * core.y.tile * 2 * L, 2 * L);
                    }
                    for (int64_t i = L; i < size; i += 2 * L)
                      store<L>(out + i, -load<L>(out + i));  // correlation
                  });
  return spread.outcome();
}

enum class Product { kSet, kAdd, kAddConjugate };

// out = a b, out += a b or out += a conj(b), for `count` complex vectors.
template <int L, Product kProduct>
void multiply(const float* a, const float* b, float* out, int64_t count) {
  constexpr float kSign = kProduct == Product::kAddConjugate ? -1.0f : 1.0f;
  for (int64_t i = 0; i < count * 2 * L; i += 2 * L) {
    const Vector<L> ar = load<L>(a + i), ai = load<L>(a + i + L);
    const Vector<L> br = load<L>(b + i), bi = load<L>(b + i + L) * kSign;
    Vector<L> re = ar * br - ai * bi, im = ar * bi + ai * br;
    if constexpr (kProduct != Product::kSet) {
      re += load<L>(out + i);
      im += load<L>(out + i + L);
    }
    store<L>(out + i, re);
    store<L>(out + i + L, im);
  }
}

template <int L>
Outcome convolve_per_channel(const Core& core, const float* x, const float* prepacked,
                             const float* bias, float* y, const Context& context) {
  const int64_t height = core.y.tile, columns = core.columns(), ins = core.ins();
  const int64_t size = columns * height * 2 * L;
  const int64_t tile_work = tile_floats(core, L);
  const int64_t work = tile_work + (ins > 1 ? size : 0);
  const int64_t floats =
      scratch_floats(core, Pass::kForward, Method::kPerChannel, L, context.threads);
  const Scratch scratch(context, static_cast<size_t>(floats) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return Outcome::kNoMemory;
  Spread spread;
  deal_reading<L>(
      context, blocks(core.groups * core.outs(), L) * core.tiles(), spread,
      [&](int64_t worker, int64_t task, Magnitudes<L>& read) {
        const Tile<L> tile(core, memory + worker * work);
        float* const sum = memory + worker * work + tile_work;
        const int64_t first = task / core.tiles() * L;
        const Place place = place_of(core, task % core.tiles());
        const float* const weights = prepacked + first / L * ins * size;
        // Rows of the input tile first; then, column by column, transform, multiply by the weights
        // and, with one input, transform back at once: a column stays in the first-level cache.
        // With more inputs the products are summed in `sum` and transformed back at the end.
        for (int64_t in = 0; in < ins; ++in) {
          tile.forward_rows(inputs_of_outputs<L>(core, x, first, in, place), height, core.x.tile,
                            read);
          for (int64_t kx = 0; kx < columns; ++kx) {
            float* const column = tile.column();
            const float* const w = weights + in * size + kx * height * 2 * L;
            tile.forward_column(kx, column, 2 * L);
            if (ins == 1) {
              multiply<L, Product::kSet>(column, w, column, height);
              tile.inverse_column(kx, column, 2 * L);
            } else if (in == 0) {
              multiply<L, Product::kSet>(column, w, sum + kx * height * 2 * L, height);
            } else {
              multiply<L, Product::kAdd>(column, w, sum + kx * height * 2 * L, height);
            }
          }
        }
        if (ins > 1) {
          for (int64_t kx = 0; kx < columns; ++kx) {
            tile.inverse_column(kx, sum + kx * height * 2 * L, 2 * L);
          }
        }
        Vector<L> bias_values;
        const Planes<L> planes = output_planes<L>(core, y, -1, first, place, bias, &bias_values);
        tile.inverse_rows(planes, core.y.tile_outputs, core.x.tile_outputs, bias_values);
      });
  return spread.outcome();
}

// dw = sum over tiles of x times the conjugate of dy. Where there are fewer sets of lanes than
// threads, the tiles are shared out too, in `parts`.
template <int L>
Outcome correlate_per_channel(const Core& core, const float* x, const float* dy, float* dw,
                              const Context& context) {
  const int64_t height = core.y.tile, columns = core.columns(), ins = core.ins();
  const int64_t size = columns * height * 2 * L;
  const int64_t tile_work = tile_floats(core, L);
  const int64_t work = 2 * tile_work;
  const int64_t sets = blocks(core.groups * core.outs(), L) * ins;
  const int64_t parts = correlation_parts(core, sets, context.threads);
  const int64_t floats =
      scratch_floats(core, Pass::kGradientWeight, Method::kPerChannel, L, context.threads);
  const Scratch scratch(context, static_cast<size_t>(floats) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return Outcome::kNoMemory;
  float* const sums = memory + context.threads * work;
  // A task sums x * conj(dy) over its share of the tiles, for L outputs and one of their inputs.
  Spread inputs, gradients;
  deal_reading<L>(
      context, sets * parts, inputs, gradients,
      [&](int64_t worker, int64_t task, Magnitudes<L>& x_read, Magnitudes<L>& dy_read) {
        const Tile<L> tile(core, memory + worker * work);
        const Tile<L> gradient(core, memory + worker * work + tile_work);
        const int64_t first = task / parts / ins * L, in = task / parts % ins, part = task % parts;
        float* const sum = sums + task * size;
        for (int64_t i = 0; i < size; i += L) store<L>(sum + i, Vector<L>{});
        for (int64_t t = core.tiles() * part / parts; t < core.tiles() * (part + 1) / parts; ++t) {
          const Place place = place_of(core, t);
          Vector<L> no_bias;
          tile.forward_rows(inputs_of_outputs<L>(core, x, first, in, place), height, core.x.tile,
                            x_read);
          gradient.forward_rows(output_planes<L>(core, dy, -1, first, place, nullptr, &no_bias),
                                core.y.tile_outputs, core.x.tile_outputs, dy_read);
          for (int64_t kx = 0; kx < columns; ++kx) {
            tile.forward_column(kx, tile.column(), 2 * L);
            gradient.forward_column(kx, gradient.column(), 2 * L);
            multiply<L, Product::kAddConjugate>(tile.column(), gradient.column(),
                                                sum + kx * height * 2 * L, height);
          }
        }
      });
  // The parts of a set are added, transformed back and stored as taps.
  deal(context, sets, [&](int64_t worker, int64_t set) {
    const Tile<L> tile(core, memory + worker * work);
    float* const sum = sums + set * parts * size;
    for (int64_t part = 1; part < parts; ++part) {
      for (int64_t i = 0; i < size; i += L) {
        store<L>(sum + i, load<L>(sum + i) + load<L>(sum + part * size + i));
      }
    }
    for (int64_t kx = 0; kx < columns; ++kx) {
      tile.inverse_column(kx, sum + kx * height * 2 * L, 2 * L);
    }
    tile.inverse_rows(tap_planes<L>(core, dw, -1, set / ins * L, set % ins), core.y.kernel,
                      core.x.kernel, Vector<L>{});
  });
  return inputs.far_apart() ? inputs.outcome() : gradients.outcome();
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
