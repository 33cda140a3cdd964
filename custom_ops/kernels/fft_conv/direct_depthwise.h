// The direct convolution of groups of one input without steps between rows or columns (depthwise): pixels in
// the lanes, straight from the image. R rows of sums stay in registers while R + K - 1 rows of pixels go by
// for each column of the kernel, each loaded once for the sums of K rows. A mask stands for the padding at
// the left and right, a row of zeros for that above and below; nothing is copied.
#pragma once

#include <algorithm>

#include "kernels/fft_conv/direct_tile.h"
#include "kernels/fft_conv/workers.h"

namespace graphscale::fft_conv {

constexpr int kDepthwiseRows = 8;  // at most, of sums

// Without masks (no AVX2, no AVX-512) parts of vectors cost more than a padded copy of the image.
template <int L>
constexpr bool kCopiesImage = L < 8;

// What the outputs of a tile read: output (r, q) and tap (ky, kx) meet at row r + ky + row and column
// q + kx * dilation + column, zeros beyond the edges.
struct DepthwiseInput {
  const float* image;
  int64_t height, width, pitch, row, column;
  const float* zeros;  // a row, as far as the tile reads it
};

// R rows of outputs, L of their columns from `column` on: y[r] (+)= the sum over K rows of the kernel, and
// its columns, of rows[r + k] * w[k]; where `start` is null, onto what y holds.
template <int L, int R, int K>
__attribute__((flatten)) void convolve_strip(const DirectLayout& d, const DepthwiseInput& in,
                                             const float* const* rows, int64_t column, const float* w,
                                             const float* start, float* y, int last) {
  Vector<L> sum[R];
  unroll<R>([&](auto r) {
    sum[r] = start == nullptr ? load_range<L>(y + r * d.out_width, 0, last) : *start - Vector<L>{};
  });
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
  unroll<R>([&](auto r) { store_first<L>(y + r * d.out_width, sum[r], last); });
}

// `count` (at most R) rows of outputs from `row` on, all columns of the tile, under K rows of the kernel from
// row `first` on.
template <int L, int R, int K>
void convolve_strips(int64_t count, const DirectLayout& d, const DirectTile& tile,
                     const DepthwiseInput& in, int64_t row, int64_t first, const float* w,
                     const float* start, float* y) {
  if (count < R) {
    if constexpr (R > 1) convolve_strips<L, R - 1, K>(count, d, tile, in, row, first, w, start, y);
    return;
  }
  const float* rows[R + K - 1];
  for (int i = 0; i < R + K - 1; ++i) {
    const int64_t at = row + first + i + in.row;
    rows[i] = at >= 0 && at < in.height ? in.image + at * in.pitch : in.zeros;
  }
  const int64_t end = tile.first_column + tile.columns;
  for (int64_t column = tile.first_column; column < end; column += L) {
    convolve_strip<L, R, K>(d, in, rows, column, w + first * d.kernel_width, start,
                            y + row * d.out_width + column, clamp_lane(end - column, L));
  }
}

// One output of a tile.
template <int L>
void convolve_plane(const DirectLayout& d, const DirectTile& tile, const DepthwiseInput& in,
                    const float* w, float bias, float* y) {
  const int64_t strips = (tile.rows + kDepthwiseRows - 1) / kDepthwiseRows;
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t row = tile.first_row + tile.rows * strip / strips;
    const int64_t count = tile.first_row + tile.rows * (strip + 1) / strips - row;
    const float* start = &bias;
    for (int64_t first = 0; first < d.kernel_height; start = nullptr) {
      const auto add = [&](auto k) {
        convolve_strips<L, kDepthwiseRows, k>(count, d, tile, in, row, first, w, start, y);
        first += k;
      };
      const int64_t left = d.kernel_height - first;
      if (left >= 7) {
        add(Index<7>());
      } else if (left >= 5) {
        add(Index<5>());
      } else if (left >= 3) {
        add(Index<3>());
      } else {
        add(Index<1>());
      }
    }
  }
}

template <int L>
bool convolve_depthwise(const DirectLayout& d, const float* x, const float* prepared, const float* bias,
                        float* y, const Context& context) {
  const int64_t work = d.worker_floats(Pass::kForward, L);
  const int64_t size = kCopiesImage<L> ? context.threads * work : d.row_pitch;
  const Scratch scratch(context, static_cast<size_t>(size) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return false;
  if (!kCopiesImage<L>) std::fill_n(memory, size, 0.0f);  // a row of zeros
  const int64_t in_plane = d.in_height * d.in_width, out_plane = d.out_height * d.out_width;
  deal(context, d.tasks(), [&]([[maybe_unused]] int64_t worker, int64_t task) {
    const DirectTile tile = tile_of(d, task);
    const int64_t channel = tile.image * d.groups + tile.group;
    DepthwiseInput in;
    if constexpr (kCopiesImage<L>) {
      float* const copy = memory + worker * work;
      copy_inputs<L>(d, tile, x, 0, 1, copy);
      in = {copy, d.copied_rows, d.row_pitch, d.row_pitch, -tile.first_row, -tile.first_column, nullptr};
    } else {
      const float* const zeros = memory - (tile.first_column + d.origin_x);
      in = {x + channel * in_plane, d.in_height, d.in_width, d.in_width, d.origin_y, d.origin_x, zeros};
    }
    for (int64_t out = 0; out < d.outs; ++out) {
      const int64_t filter = tile.group * d.outs + out;
      convolve_plane<L>(d, tile, in, prepared + filter * d.kernel_height * d.kernel_width,
                        bias == nullptr ? 0.0f : bias[filter], y + (channel * d.outs + out) * out_plane);
    }
  });
  return true;
}

}  // namespace graphscale::fft_conv
