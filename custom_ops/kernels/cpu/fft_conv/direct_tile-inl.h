// A task's tile of outputs and its inputs, copied to rows of their own (see direct_layout.h).
#pragma once

#include "kernels/cpu/fft_conv/direct_layout.h"
#include "kernels/cpu/fft_conv/planes-inl.h"
#include "kernels/cpu/simd/vector-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// A task's place: the first output of its tile and how many rows and columns there are.
struct DirectTile {
  int64_t image, group, part, first_row, first_column, rows, columns;
};

GRAPHSCALE_INLINE DirectTile tile_of(const DirectLayout& d, int64_t task) {
  DirectTile tile;
  tile.part = task % d.parts;
  task /= d.parts;
  tile.first_column = task % d.tiles_x * d.columns;
  task /= d.tiles_x;
  tile.first_row = task % d.tiles_y * d.rows;
  task /= d.tiles_y;
  tile.group = task % d.groups;
  tile.image = task / d.groups;
  tile.rows = d.out_height - tile.first_row < d.rows ? d.out_height - tile.first_row : d.rows;
  tile.columns =
      d.out_width - tile.first_column < d.columns ? d.out_width - tile.first_column : d.columns;
  return tile;
}

// L columns of a row from `column` on; zeros beyond the image.
template <int L>
GRAPHSCALE_INLINE Vector<L> load_columns(const DirectLayout& d, const float* row, int64_t column) {
  const int begin = clamp_lane(-column, L), end = clamp_lane(d.in_width - column, L);
  return begin < end ? load_range<L>(row + column, begin, end) : Vector<L>{};
}

// Copies a row of an image (null for a row of zeros) to its phases. It writes whole vectors; the
// excess is overwritten by later rows.
template <int L>
__attribute__((flatten)) void copy_row(const DirectLayout& d, const float* row, int64_t first,
                                       float* to) {
  using Loose = typename VectorOf<L>::unaligned;
  // Phase p holds columns p, p + stride, p + 2 stride ...: side by side there, so a stride costs
  // the kernels nothing. Strides 1 and 2 copy whole vectors, larger ones value by value.
  for (int64_t phase = 0; phase < d.phases; ++phase, to += d.phase_pitch) {
    for (int64_t i = 0; i < d.copied_columns; i += L) {
      const int64_t column = first + phase + i * d.stride_x;
      Vector<L> values{};
      if (row == nullptr) {
      } else if (d.stride_x == 1) {
        values = load_columns<L>(d, row, column);
      } else if (d.stride_x == 2) {
        values = load_columns<L>(d, row, column);
        Vector<L> next = load_columns<L>(d, row, column + L);
        deal_lanes<L>(values, next);
      } else {
        for (int j = 0; j < L; ++j) {
          const int64_t at = column + j * d.stride_x;
          if (at >= 0 && at < d.in_width) values[j] = row[at];
        }
      }
      *reinterpret_cast<Loose*>(to + i) = values;
    }
  }
}

// Inputs [channel, + count) of a tile.
template <int L>
void copy_inputs(const DirectLayout& d, const DirectTile& tile, const float* x, int64_t channel,
                 int64_t count, float* to) {
  const int64_t first_row = tile.first_row * d.stride_y + d.origin_y;
  const int64_t first_column = tile.first_column * d.stride_x + d.origin_x;
  const int64_t plane = d.in_height * d.in_width;
  const float* image = x + ((tile.image * d.groups + tile.group) * d.ins + channel) * plane;
  const int64_t rows = (tile.rows - 1) * d.stride_y + d.dilation_y * (d.kernel_height - 1) + 1;
  for (int64_t c = 0; c < count; ++c, image += plane, to += d.channel_pitch) {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = first_row + r;
      copy_row<L>(d, at >= 0 && at < d.in_height ? image + at * d.in_width : nullptr, first_column,
                  to + r * d.row_pitch);
    }
  }
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
