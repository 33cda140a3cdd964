// The direct convolution of groups of one input without steps between rows or columns (depthwise),
// and its gradient to the weights: pixels in the lanes, straight from the image. R rows of outputs
// stay in registers while R + K - 1 rows of pixels go by for each column of the kernel, each loaded
// once for K rows of it. Masks make the padding at the left and right, a row of zeros that above
// and below. The memory of the next task is prefetched meanwhile: planes are too short for the
// processor's own prefetching, and waiting for them took up to three quarters of the time.
#pragma once

#include <algorithm>

#include "kernels/cpu/fft_conv/direct_tile-inl.h"
#include "kernels/cpu/fft_conv/workers-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

constexpr int kDepthwiseRows = 8;  // at most, of sums

// Without masks (no AVX2, no AVX-512) parts of vectors cost more than a padded copy of the image.
template <int L>
constexpr bool kCopiesImage = L < 8;

// What the outputs of a tile read: output (r, q) and tap (ky, kx) meet at row r + ky + row and
// column q + kx * dilation + column, zeros beyond the edges.
struct DepthwiseInput {
  const float* image;
  int64_t height, width, pitch, row, column;
  const float* zeros;  // a row, as far as the tile reads it
};

// R rows of outputs, L of their columns from `column` on: y[r] (+)= the sum over K rows of the
// kernel, and its columns, of rows[r + k] * w[k]; where `start` is null, onto what y holds.
template <int L, int R, int K>
__attribute__((flatten)) void convolve_strip(const DirectLayout& d, const DepthwiseInput& in,
                                             const float* const* rows, int64_t column,
                                             const float* w, const float* start,
                                             const Bounds& bounds, float* y, int last) {
  Vector<L> sum[R];
  unroll<R>([&](auto r) {
    sum[r] = start == nullptr ? load_range<L>(y + r * d.out_width, 0, last) : *start - Vector<L>{};
  });
  // Per column of the kernel: R + K - 1 rows of pixels, each loaded once (masked at the edges) and
  // used for up to K rows of outputs.
  for (int64_t kx = 0; kx < d.kernel_width; ++kx) {
    const int64_t at = column + in.column + kx * d.dilation_x;
    const LaneRange<L> inside(clamp_lane(-at, L), clamp_lane(in.width - at, L));
    float weights[K];
    unroll<K>([&](auto k) { weights[k] = w[k * d.kernel_width + kx]; });
    unroll<R + K - 1>([&](auto i) {
      const Vector<L> pixels = load_range<L>(rows[i] + at, inside);
      unroll<R>([&](auto r) {
        if constexpr (i - r >= 0 && i - r < K) sum[r] += weights[i - r] * pixels;
      });
    });
  }
  unroll<R>([&](auto r) { store_first<L>(y + r * d.out_width, clip<L>(sum[r], bounds), last); });
}

// The sums of K rows of the kernel, [K][kernel's columns][L]: += gradient[r] * rows[r + k] of R
// rows of the gradient to the outputs, L of their columns from `column` on, of which `last` exist.
template <int L, int R, int K>
__attribute__((flatten)) void correlate_strip(const DirectLayout& d, const DepthwiseInput& in,
                                              const float* const* rows, int64_t column,
                                              const float* dy, int last, float* sums) {
  Vector<L> gradient[R];
  unroll<R>([&](auto r) { gradient[r] = load_range<L>(dy + r * d.out_width, 0, last); });
  // Per column of the kernel the K sums come into registers, take the R rows of the gradient, and
  // go back.
  for (int64_t kx = 0; kx < d.kernel_width; ++kx, sums += L) {
    const int64_t at = column + in.column + kx * d.dilation_x;
    const LaneRange<L> inside(clamp_lane(-at, L), clamp_lane(in.width - at, last));
    Vector<L> sum[K];
    unroll<K>([&](auto k) { sum[k] = load<L>(sums + k * d.kernel_width * L); });
    unroll<R + K - 1>([&](auto i) {
      const Vector<L> pixels = load_range<L>(rows[i] + at, inside);
      unroll<K>([&](auto k) {
        if constexpr (i - k >= 0 && i - k < R) sum[k] += gradient[i - k] * pixels;
      });
    });
    unroll<K>([&](auto k) { store<L>(sums + k * d.kernel_width * L, sum[k]); });
  }
}

// run(Index<R>(), Index<K>(), rows, first, row, column, last) for all outputs of a tile: R of its
// rows from `row` on under K rows of the kernel from `first` on, which read `rows`, and `last`
// columns from `column` on.
template <int L, typename Run>
void walk_strips(const DirectLayout& d, const DirectTile& tile, const DepthwiseInput& in,
                 const Run& run) {
  const auto walk_columns = [&](auto r, auto k, int64_t row, int64_t first) {
    // The rows that R outputs under K rows of the kernel read; outside of the image, the row of
    // zeros.
    const float* rows[r + k - 1];
    for (int i = 0; i < r + k - 1; ++i) {
      const int64_t at = row + first + i + in.row;
      rows[i] = at >= 0 && at < in.height ? in.image + at * in.pitch : in.zeros;
    }
    const int64_t end = tile.first_column + tile.columns;
    for (int64_t column = tile.first_column; column < end; column += L) {
      run(r, k, static_cast<const float* const*>(rows), first, row, column,
          clamp_lane(end - column, L));
    }
  };
  const int64_t strips = (tile.rows + kDepthwiseRows - 1) / kDepthwiseRows;
  // Strips of at most kDepthwiseRows rows, of equal height; the kernel goes by in pieces of 7, 5, 3
  // and 1 rows, for which the registers suffice.
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t row = tile.first_row + tile.rows * strip / strips;
    const int64_t count = tile.first_row + tile.rows * (strip + 1) / strips - row;
    with_count<kDepthwiseRows>(count, [&](auto r) {
      for (int64_t first = 0; first < d.kernel_height;) {
        const int64_t left = d.kernel_height - first;
        if (left >= 7) {
          walk_columns(r, Index<7>(), row, first);
          first += 7;
        } else if (left >= 5) {
          walk_columns(r, Index<5>(), row, first);
          first += 5;
        } else if (left >= 3) {
          walk_columns(r, Index<3>(), row, first);
          first += 3;
        } else {
          walk_columns(r, Index<1>(), row, first);
          first += 1;
        }
      }
    });
  }
}

// Memory of all workers begins with a row of zeros, or has room for a tile's input.
template <int L>
float* begin_workers(const DirectLayout& d, const Scratch& scratch, int64_t work, int threads) {
  float* const memory = scratch.get<float>();
  for (int worker = 0; memory != nullptr && !kCopiesImage<L> && worker < threads; ++worker) {
    std::fill_n(memory + worker * work, d.row_pitch, 0.0f);
  }
  return memory;
}

// A tile's input; memory: of the worker.
template <int L>
DepthwiseInput find_input(const DirectLayout& d, const DirectTile& tile, const float* x,
                          float* memory) {
  const float* const plane = x + (tile.image * d.groups + tile.group) * d.in_height * d.in_width;
  if constexpr (kCopiesImage<L>) {
    copy_inputs<L>(d, tile, x, 0, 1, memory);
    return {memory,          d.copied_rows,      d.row_pitch, d.row_pitch,
            -tile.first_row, -tile.first_column, nullptr};
  }
  return {plane,
          d.in_height,
          d.in_width,
          d.in_width,
          d.origin_y,
          d.origin_x,
          memory - (tile.first_column + d.origin_x)};
}

template <int L>
bool convolve_depthwise(const DirectLayout& d, const float* x, const float* prepacked,
                        const float* bias, float* y, const Context& context) {
  const int64_t work = d.worker_floats(Pass::kForward, L);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = begin_workers<L>(d, scratch, work, context.threads);
  if (memory == nullptr) return false;
  const int64_t in_plane = d.in_height * d.in_width, out_plane = d.out_height * d.out_width;
  const int64_t next_in = d.tiles_y == 1 ? in_plane : d.rows * d.in_width;
  const int64_t next_out = d.tiles_y == 1 ? d.outs * out_plane : d.rows * d.out_width;
  deal(context, d.tasks(), [&](int64_t worker, int64_t task) {
    const DirectTile tile = tile_of(d, task);
    const float* const image = x + (tile.image * d.groups + tile.group) * in_plane;
    const DepthwiseInput in = find_input<L>(d, tile, x, memory + worker * work);
    for (int64_t out = 0; out < d.outs; ++out) {
      const int64_t filter = tile.group * d.outs + out;
      const float* const weights = prepacked + filter * d.kernel_height * d.kernel_width;
      const float start = bias == nullptr ? 0.0f : bias[filter];
      float* const plane = y + (tile.image * d.groups * d.outs + filter) * out_plane;
      walk_strips<L>(d, tile, in,
                     [&](auto r, auto k, const float* const* rows, int64_t first, int64_t row,
                         int64_t column, int last) {
                       // Once per strip: what the next task will read and write is fetched into the
                       // second-level cache.
                       if (first == 0 && column == tile.first_column) {
                         if (out == 0)
                           fetch<false>(image + next_in + row * d.in_width, r * d.in_width);
                         fetch<true>(plane + next_out + row * d.out_width, r * d.out_width);
                       }
                       convolve_strip<L, r, k>(d, in, rows, column,
                                               weights + first * d.kernel_width,
                                               first == 0 ? &start : nullptr,
                                               first + k == d.kernel_height ? d.bounds : Bounds{},
                                               plane + row * d.out_width + column, last);
                     });
    }
  });
  return true;
}

template <int L>
bool correlate_depthwise(const DirectLayout& d, const float* x, const float* dy, float* dw,
                         const Context& context) {
  const int64_t work = d.worker_floats(Pass::kGradientWeight, L);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = begin_workers<L>(d, scratch, work, context.threads);
  if (memory == nullptr) return false;
  const int64_t taps = d.kernel_height * d.kernel_width, tiles = d.tiles_y * d.tiles_x;
  const int64_t in_plane = d.in_height * d.in_width, out_plane = d.out_height * d.out_width;
  const int64_t next_in = tiles == 1 ? d.groups * in_plane : d.rows * d.in_width;
  const int64_t next_out = tiles == 1 ? d.groups * d.outs * out_plane : d.rows * d.out_width;
  deal(context, d.groups, [&](int64_t worker, int64_t group) {
    float* const input = memory + worker * work;
    float* const sums = input + d.copied_floats();
    std::fill_n(sums, d.outs * taps * L, 0.0f);
    // A task owns a group: its sums run over all images, lane by lane, and are added up once at the
    // end.
    for (int64_t t = 0; t < d.batch * tiles; ++t) {
      const DirectTile tile = tile_of(d, (t / tiles * d.groups + group) * tiles + t % tiles);
      const DepthwiseInput in = find_input<L>(d, tile, x, input);
      const float* const image = x + (tile.image * d.groups + group) * in_plane;
      for (int64_t out = 0; out < d.outs; ++out) {
        const int64_t plane = (tile.image * d.groups + group) * d.outs + out;
        const float* const gradient = dy + plane * out_plane;
        float* const to = sums + out * taps * L;
        walk_strips<L>(d, tile, in,
                       [&](auto r, auto k, const float* const* rows, int64_t first, int64_t row,
                           int64_t column, int last) {
                         if (first == 0 && column == tile.first_column) {
                           if (out == 0)
                             fetch<false>(image + next_in + row * d.in_width, r * d.in_width);
                           fetch<false>(gradient + next_out + row * d.out_width, r * d.out_width);
                         }
                         correlate_strip<L, r, k>(d, in, rows, column,
                                                  gradient + row * d.out_width + column, last,
                                                  to + first * d.kernel_width * L);
                       });
      }
    }
    for (int64_t i = 0; i < d.outs * taps; ++i) {
      dw[group * d.outs * taps + i] = sum_of_lanes<L>(load<L>(sums + i * L));
    }
  });
  return true;
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
