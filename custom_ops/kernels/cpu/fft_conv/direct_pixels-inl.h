// The direct convolution with pixels in the lanes, for groups of few outputs: F outputs x R rows x
// V vectors in registers, a load from the copied rows for every F multiply-adds; nothing is
// transposed.
#pragma once

#include "kernels/cpu/fft_conv/direct_tile-inl.h"
#include "kernels/cpu/fft_conv/workers-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// F outputs of R rows and V vectors of columns, at most `columns` of which exist.
template <int L, int F, int R, int V>
__attribute__((flatten)) void convolve_pixels(const DirectLayout& d, const float* x, const float* w,
                                              const float* bias, float* y, int64_t columns) {
  using Loose = typename VectorOf<L>::unaligned;
  const int64_t taps = d.kernel_height * d.kernel_width;
  const int64_t per_output = d.ins * taps;
  const int64_t row_step = d.stride_y * d.row_pitch;
  const ptrdiff_t* const offsets = d.tap_offsets();
  // F outputs x R rows x V vectors of sums stay in registers; each load of pixels serves F of them.
  Vector<L> sum[F][R][V];
  unroll<F>([&](auto f) {
    const float start = bias == nullptr ? 0.0f : bias[f];
    unroll<R>([&](auto r) { unroll<V>([&](auto v) { sum[f][r][v] = start - Vector<L>{}; }); });
  });
  for (int64_t c = 0; c < d.ins; ++c, x += d.channel_pitch) {
    for (int64_t tap = 0; tap < taps; ++tap, ++w) {
      const float* const at = x + offsets[tap];
      unroll<R>([&](auto r) {
        unroll<V>([&](auto v) {
          const Vector<L> pixels = *reinterpret_cast<const Loose*>(at + r * row_step + v * L);
          unroll<F>([&](auto f) { sum[f][r][v] += w[f * per_output] * pixels; });
        });
      });
    }
  }
  const int64_t plane = d.out_height * d.out_width;
  unroll<F>([&](auto f) {
    unroll<R>([&](auto r) {
      unroll<V>([&](auto v) {
        const int64_t left = columns - v * L;
        if (left > 0) {
          store_first<L>(y + f * plane + r * d.out_width + v * L, clip<L>(sum[f][r][v], d.bounds),
                         left < L ? static_cast<int>(left) : L);
        }
      });
    });
  });
}

template <int L, int F, int R>
void convolve_rows(const DirectLayout& d, const float* x, const float* w, const float* bias,
                   float* y, int64_t columns) {
  // Two vectors of columns at a time share each weight; a last short piece takes one.
  for (int64_t q = 0; q < columns; q += 2 * L) {
    if (columns - q > L) {
      convolve_pixels<L, F, R, 2>(d, x + q, w, bias, y + q, columns - q);
    } else {
      convolve_pixels<L, F, R, 1>(d, x + q, w, bias, y + q, columns - q);
    }
  }
}

// F outputs of a tile.
template <int L, int F>
void convolve_outputs(const DirectLayout& d, const DirectTile& tile, const float* inputs,
                      int64_t out, const float* prepacked, const float* bias, float* y) {
  constexpr int R = F == 1 ? 4 : 2;
  const int64_t filter = tile.group * d.outs + out;
  const float* const w = prepacked + filter * d.ins * d.kernel_height * d.kernel_width;
  const float* const b = bias == nullptr ? nullptr : bias + filter;
  float* const plane = y + (tile.image * d.groups * d.outs + filter) * d.out_height * d.out_width +
                       tile.first_column;
  int64_t r = 0;
  for (; r + R <= tile.rows; r += R) {
    convolve_rows<L, F, R>(d, inputs + r * d.stride_y * d.row_pitch, w, b,
                           plane + (tile.first_row + r) * d.out_width, tile.columns);
  }
  for (; r < tile.rows; ++r) {
    convolve_rows<L, F, 1>(d, inputs + r * d.stride_y * d.row_pitch, w, b,
                           plane + (tile.first_row + r) * d.out_width, tile.columns);
  }
}

template <int L>
bool convolve_pixel_lanes(const DirectLayout& d, const float* x, const float* prepacked,
                          const float* bias, float* y, const Context& context) {
  const int64_t work = d.worker_floats(Pass::kForward, L);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return false;
  deal(context, d.tasks(), [&](int64_t worker, int64_t task) {
    const DirectTile tile = tile_of(d, task);
    float* const inputs = memory + worker * work;
    copy_inputs<L>(d, tile, x, 0, d.ins, inputs);
    // Up to four outputs at a time over the same copied inputs.
    for (int64_t out = 0; out < d.outs;) {
      switch (d.outs - out) {
        case 1:
          convolve_outputs<L, 1>(d, tile, inputs, out, prepacked, bias, y);
          out += 1;
          break;
        case 2:
          convolve_outputs<L, 2>(d, tile, inputs, out, prepacked, bias, y);
          out += 2;
          break;
        case 3:
          convolve_outputs<L, 3>(d, tile, inputs, out, prepacked, bias, y);
          out += 3;
          break;
        default:
          convolve_outputs<L, 4>(d, tile, inputs, out, prepacked, bias, y);
          out += 4;
          break;
      }
    }
  });
  return true;
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
