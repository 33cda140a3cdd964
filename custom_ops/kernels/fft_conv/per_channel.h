// The per-channel method, for depthwise convolutions and groups of a few channels: L output channels in the
// lanes; load tile, transform, multiply, inverse, store without leaving the second-level cache. With one
// input per output the middle is one pass: column in, transform, multiply, inverse, column out.
//
// Cost per output channel and tile: (inputs + 1) transforms of about 2.5 T^2 log2(T^2) operations and
// 4 T^2 inputs for the products. A 31 x 31 'same' layer over 56 x 56 is one tile of 72 x 72 (the padding may
// wrap around): 0.32 + 0.02 million operations, against 6.0 of the direct convolution.
#pragma once

#include "kernels/fft_conv/lanes.h"
#include "kernels/fft_conv/layout.h"
#include "kernels/fft_conv/tile.h"
#include "kernels/fft_conv/workers.h"

namespace graphscale::fft_conv {

template <int L>
bool prepare_per_channel(const Core& core, const float* w, float* prepared, const Context& context) {
  const int64_t work = Tile<L>::floats(core.y.tile, core.x.tile);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return false;
  const float scale = static_cast<float>(1 / (kForwardScale * kForwardScale * core.y.tile * core.x.tile));
  const int64_t size = core.columns() * core.y.tile * 2 * L;
  const int64_t out_blocks = blocks(core.groups * core.outs(), L);
  deal(context, out_blocks * core.ins(), [&](int64_t worker, int64_t task) {
    const Tile<L> tile(core, memory + worker * work);
    tile.forward_rows(tap_planes<L>(core, w, -1, task / core.ins() * L, task % core.ins()),
                      core.y.kernel, core.x.kernel);
    float* const out = prepared + task * size;
    for (int64_t kx = 0; kx < core.columns(); ++kx) {
      tile.forward_column(kx, out + kx * core.y.tile * 2 * L, 2 * L);
    }
    for (int64_t i = 0; i < size; i += 2 * L) {
      store<L>(out + i, load<L>(out + i) * scale);
      store<L>(out + i + L, load<L>(out + i + L) * -scale);
    }
  });
  return true;
}

// out = a * b, or out += a * conj(b), for `count` complex vectors.
template <int L, bool kConjugateAndAdd>
FFT_CONV_INLINE void multiply(const float* a, const float* b, float* out, int64_t count) {
  for (int64_t i = 0; i < count * 2 * L; i += 2 * L) {
    const Vector<L> ar = load<L>(a + i), ai = load<L>(a + i + L);
    const Vector<L> br = load<L>(b + i), bi = load<L>(b + i + L);
    if constexpr (kConjugateAndAdd) {
      store<L>(out + i, load<L>(out + i) + ar * br + ai * bi);
      store<L>(out + i + L, load<L>(out + i + L) + ai * br - ar * bi);
    } else {
      store<L>(out + i, ar * br - ai * bi);
      store<L>(out + i + L, ar * bi + ai * br);
    }
  }
}

template <int L>
FFT_CONV_INLINE void multiply_add(const float* a, const float* b, float* out, int64_t count) {
  for (int64_t i = 0; i < count * 2 * L; i += 2 * L) {
    const Vector<L> ar = load<L>(a + i), ai = load<L>(a + i + L);
    const Vector<L> br = load<L>(b + i), bi = load<L>(b + i + L);
    store<L>(out + i, load<L>(out + i) + ar * br - ai * bi);
    store<L>(out + i + L, load<L>(out + i + L) + ar * bi + ai * br);
  }
}

template <int L>
bool convolve_per_channel(const Core& core, const float* x, const float* prepared, const float* bias,
                          float* y, const Context& context) {
  const int64_t height = core.y.tile, columns = core.columns(), ins = core.ins();
  const int64_t size = columns * height * 2 * L;
  const int64_t tile_work = Tile<L>::floats(core.y.tile, core.x.tile);
  const int64_t work = tile_work + (ins > 1 ? size : 0);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return false;
  deal(context, blocks(core.groups * core.outs(), L) * core.tiles(), [&](int64_t worker, int64_t task) {
    const Tile<L> tile(core, memory + worker * work);
    float* const sum = memory + worker * work + tile_work;
    const int64_t first = task / core.tiles() * L;
    const Place place = place_of(core, task % core.tiles());
    const float* const weights = prepared + first / L * ins * size;
    for (int64_t in = 0; in < ins; ++in) {
      tile.forward_rows(inputs_of_outputs<L>(core, x, first, in, place), height, core.x.tile);
      for (int64_t kx = 0; kx < columns; ++kx) {
        float* const column = tile.column();
        const float* const w = weights + in * size + kx * height * 2 * L;
        tile.forward_column(kx, column, 2 * L);
        if (ins == 1) {
          multiply<L, false>(column, w, column, height);
          tile.inverse_column(kx, column, 2 * L);
        } else if (in == 0) {
          multiply<L, false>(column, w, sum + kx * height * 2 * L, height);
        } else {
          multiply_add<L>(column, w, sum + kx * height * 2 * L, height);
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
  return true;
}

}  // namespace graphscale::fft_conv
