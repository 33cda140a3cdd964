// L image planes side by side, one per lane: reading their rows into vectors and writing them back.
// Planes whose rows line up (the usual case) are read a square of L x L at a time and transposed in
// registers; those with strides or different phases one value at a time.
#pragma once

#include "kernels/cpu/fft_conv/geometry.h"
#include "kernels/cpu/fft_conv/magnitudes-inl.h"
#include "kernels/cpu/simd/vector-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// Rows are prefetched so many steps ahead: processors do not follow L streams of short rows by
// themselves.
constexpr int64_t kRowsAhead = 6;

template <int L>
struct Planes {
  float* base[L];  // lanes from `count` on repeat a valid plane
  int count = 0;
  Map rows, columns;  // without the lane's phase
  int64_t row_phase[L], column_phase[L];
  bool aligned_lanes = true;                // all lanes have the phases of lane 0
  Bounds bounds;                            // of what is written
  int64_t last_row = -1, last_column = -1;  // >= 0: position u stands for position last - u
};

// The place of core position u, or -1 where there is none.
GRAPHSCALE_INLINE int64_t locate(const Map& map, int64_t phase, int64_t last, int64_t u) {
  const int64_t at = map.step * (last >= 0 ? last - u : u) + map.origin + phase;
  if (at < 0) return -1;
  if (map.divisor == 1) return at < map.extent ? at : -1;
  return at % map.divisor == 0 && at / map.divisor < map.extent ? at / map.divisor : -1;
}

GRAPHSCALE_INLINE int clamp_lane(int64_t value, int lanes) {
  return value < 0 ? 0 : value > lanes ? lanes : static_cast<int>(value);
}

// Row `row`, core columns [0, length), to out[u * stride]; false, and nothing written, where it is
// all zero. May write up to a multiple of L columns. What was read is added to `read`.
template <int L>
__attribute__((flatten)) bool load_row(const Planes<L>& planes, int64_t row, int64_t length,
                                       float* out, int64_t stride, Magnitudes<L>& read) {
  const int64_t pitch = planes.columns.extent;
  if (planes.aligned_lanes && planes.columns.step == 1 && planes.columns.divisor == 1) {
    const int64_t at = locate(planes.rows, planes.row_phase[0], planes.last_row, row);
    if (at < 0) return false;
    const int64_t origin = planes.columns.origin + planes.column_phase[0];
    const int64_t last = planes.last_column;
    // Fast path: L columns of L planes are loaded as L rows of a square; the transposition makes
    // one vector per column of it, with the planes in its lanes. Columns beyond the image are zeros
    // by the mask.
    for (int64_t u = 0; u < length; u += L) {
      const int64_t c = origin + u;
      const int64_t room = length - u < pitch - c ? length - u : pitch - c;
      const int begin = clamp_lane(-c, L), end = clamp_lane(room, L);
      Vector<L> square[L];
      if (begin >= end) {
        unroll<L>([&](auto i) { square[i] = Vector<L>{}; });
      } else {
        unroll<L>([&](auto i) {
          const float* const from = planes.base[i] + at * pitch + c;
          fetch<false>(from + kRowsAhead * pitch, 1);
          square[i] = load_range<L>(from, begin, end);
        });
        read.add(square);
        transpose<L>(square);
      }
      // A flipped kernel is stored from its end.
      if (last < 0) {
        unroll<L>([&](auto j) { store<L>(out + (u + j) * stride, square[j]); });
      } else {
        unroll<L>([&](auto j) {
          if (u + j <= last) store<L>(out + (last - u - j) * stride, square[j]);
        });
      }
    }
    return true;
  }
  // Slow path, one value at a time: strides, or planes of different phases.
  bool any = false;
  int64_t at[L];
  for (int i = 0; i < L; ++i) {
    at[i] = locate(planes.rows, planes.row_phase[i], planes.last_row, row);
    any = any || at[i] >= 0;
  }
  if (!any) return false;
  for (int i = 0; i < L; ++i) {
    const float* const source = at[i] < 0 ? nullptr : planes.base[i] + at[i] * pitch;
    for (int64_t u = 0; u < length; ++u) {
      const int64_t c = locate(planes.columns, planes.column_phase[i], planes.last_column, u);
      out[u * stride + i] = source != nullptr && c >= 0 ? source[c] : 0.0f;
    }
  }
  for (int64_t u = 0; u < length; ++u) read.add(load<L>(out + u * stride));
  return true;
}

// scale * in[u * stride] + bias, within bounds, to row `row`, core columns [0, length); values
// outside of the plane are dropped.
template <int L>
__attribute__((flatten)) void store_row(const Planes<L>& planes, int64_t row, int64_t length,
                                        const float* in, int64_t stride, float scale,
                                        const Vector<L>& bias) {
  const int64_t pitch = planes.columns.extent;
  if (planes.aligned_lanes && planes.columns.step == 1 && planes.columns.divisor == 1 &&
      planes.columns.origin + planes.column_phase[0] >= 0) {
    const int64_t at = locate(planes.rows, planes.row_phase[0], -1, row);
    if (at < 0) return;
    const int64_t origin = planes.columns.origin + planes.column_phase[0];
    // Fast path: scale, add the bias and clip in registers, transpose, write each plane its L
    // columns.
    for (int64_t u = 0; u < length; u += L) {
      const int64_t room = length - u < pitch - origin - u ? length - u : pitch - origin - u;
      const int end = clamp_lane(room, L);
      if (end == 0) return;
      Vector<L> square[L];
      unroll<L>([&](auto j) {
        square[j] = clip<L>(scale * load<L>(in + (u + j) * stride) + bias, planes.bounds);
      });
      transpose<L>(square);
      unroll<L>([&](auto i) {
        float* const to = planes.base[i] + at * pitch + origin + u;
        fetch<true>(to + kRowsAhead * pitch, 1);
        if (i < planes.count) store_first<L>(to, square[i], end);
      });
    }
    return;
  }
  // Slow path, one value at a time.
  int64_t at[L];
  for (int i = 0; i < planes.count; ++i) at[i] = locate(planes.rows, planes.row_phase[i], -1, row);
  for (int64_t u = 0; u < length; ++u) {
    const Vector<L> values = clip<L>(scale * load<L>(in + u * stride) + bias, planes.bounds);
    for (int i = 0; i < planes.count; ++i) {
      const int64_t c = locate(planes.columns, planes.column_phase[i], -1, u);
      if (at[i] >= 0 && c >= 0) planes.base[i][at[i] * pitch + c] = values[i];
    }
  }
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
