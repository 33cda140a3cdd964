// The direct convolution: for short kernels, whose products are cheaper than any transform.
//
// Output channels in the lanes (groups of more than half a vector of them): M pixels x 2 blocks of channels
// stay in registers (14 x 2 with AVX-512's 32). One tap of one input costs 2 M fused multiply-adds for 2 loads
// of weights and M broadcasts of pixels, so that two multiply-adds a cycle wait neither for the first-level
// cache nor, at 128 bytes in M cycles, for the second. Sums lie as [pixel][channel] until all inputs
// are through and are transposed on their way out.
//
// Pixels in the lanes (depthwise, and groups of few outputs): F outputs x R rows x V vectors in registers, a
// load from the copied rows for every F multiply-adds; nothing is transposed.
#pragma once

#include "kernels/fft_conv/direct_layout.h"
#include "kernels/fft_conv/planes.h"
#include "kernels/fft_conv/simd.h"
#include "kernels/fft_conv/workers.h"

namespace graphscale::fft_conv {

// A task's place: the first output of its tile and how many rows and columns there are.
struct DirectTile {
  int64_t image, group, part, first_row, first_column, rows, columns;
};

FFT_CONV_INLINE DirectTile tile_of(const DirectLayout& d, int64_t task) {
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
FFT_CONV_INLINE Vector<L> load_columns(const DirectLayout& d, const float* row, int64_t column) {
  const int begin = clamp_lane(-column, L), end = clamp_lane(d.in_width - column, L);
  return begin < end ? load_range<L>(row + column, begin, end) : Vector<L>{};
}

template <int L, int... J>
FFT_CONV_INLINE Vector<L> even_lanes(const Vector<L>& a, const Vector<L>& b,
                                     std::integer_sequence<int, J...>) {
  return __builtin_shufflevector(a, b, 2 * J...);
}

// A row of an image, null for one of zeros, to its phases. Writes whole vectors: the places behind are
// those of later rows.
template <int L>
__attribute__((flatten)) void copy_row(const DirectLayout& d, const float* row, int64_t first, float* to) {
  using Loose = typename VectorOf<L>::unaligned;
  for (int64_t phase = 0; phase < d.phases; ++phase, to += d.phase_pitch) {
    for (int64_t i = 0; i < d.copied_columns; i += L) {
      const int64_t column = first + phase + i * d.stride_x;
      Vector<L> values{};
      if (row == nullptr) {
      } else if (d.stride_x == 1) {
        values = load_columns<L>(d, row, column);
      } else if (d.stride_x == 2) {
        values = even_lanes<L>(load_columns<L>(d, row, column), load_columns<L>(d, row, column + L),
                               std::make_integer_sequence<int, L>());
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

// The weight of a tap from input `in` to output `out` of a group, of w as ONNX has it.
FFT_CONV_INLINE float weight_of(const DirectLayout& d, const float* w, int64_t group, int64_t out,
                                int64_t in, int64_t tap) {
  const int64_t taps = d.kernel_height * d.kernel_width;
  if (d.turned) return w[((group * d.ins + in) * d.outs + out) * taps + taps - 1 - tap];
  return w[((group * d.outs + out) * d.ins + in) * taps + tap];
}

// [group][pair][input][tap][2 L], zeros beyond the last output; or [group][output][input][tap].
template <int L>
void prepare_direct(const DirectLayout& d, const float* w, float* prepared, const Context& context) {
  const int64_t taps = d.kernel_height * d.kernel_width;
  const int64_t wide = d.channel_lanes ? 2 * L : 1;
  const int64_t sets = d.channel_lanes ? d.pairs : d.outs;
  deal(context, d.groups * sets * d.ins, [&](int64_t, int64_t task) {
    const int64_t in = task % d.ins, first = task / d.ins % sets * wide, group = task / d.ins / sets;
    float* to = prepared + task * taps * wide;
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t o = first; o < first + wide; ++o) {
        *to++ = o < d.outs ? weight_of(d, w, group, o, in, tap) : 0.0f;
      }
    }
  });
}

// sums[r][m][b] (+)= over channels and taps of x[channel][tap][r][m] * w[channel][tap][b], for R rows of M
// pixels and B blocks of L channels.
template <int L, int R, int M, int B>
__attribute__((flatten)) void multiply_pixels(const DirectLayout& d, const ptrdiff_t* offsets,
                                              int64_t taps, int64_t channels, const float* x,
                                              const float* w, float* sums, bool first) {
  const int64_t row = d.stride_y * d.row_pitch, sums_row = d.columns * 2 * L;
  Vector<L> sum[R][M][B] = {};  // from zero: sums of sums round less than one long sum
  for (int64_t c = 0; c < channels; ++c, x += d.channel_pitch) {
    for (int64_t tap = 0; tap < taps; ++tap, w += 2 * L) {
      const float* const at = x + offsets[tap];
      Vector<L> weights[B];
      unroll<B>([&](auto b) { weights[b] = load<L>(w + b * L); });
      unroll<R>([&](auto r) {
        unroll<M>([&](auto m) {
          const float pixel = at[r * row + m];
          unroll<B>([&](auto b) { sum[r][m][b] += pixel * weights[b]; });
        });
      });
    }
  }
  unroll<R>([&](auto r) {
    unroll<M>([&](auto m) {
      unroll<B>([&](auto b) {
        float* const to = sums + r * sums_row + m * 2 * L + b * L;
        store<L>(to, first ? sum[r][m][b] : load<L>(to) + sum[r][m][b]);
      });
    });
  });
}

template <int L, int R, int M, int B>
void multiply_pixels_up_to(int64_t m, const DirectLayout& d, const ptrdiff_t* offsets, int64_t taps,
                           int64_t channels, const float* x, const float* w, float* sums, bool first) {
  if (m == M) {
    multiply_pixels<L, R, M, B>(d, offsets, taps, channels, x, w, sums, first);
  } else if constexpr (M > 1) {
    multiply_pixels_up_to<L, R, M - 1, B>(m, d, offsets, taps, channels, x, w, sums, first);
  }
}

// R rows of a tile, in equal pieces.
template <int L, int R, int B>
void multiply_rows(const DirectLayout& d, int64_t columns, int64_t channels, const float* x,
                   const float* w, float* sums, bool first) {
  constexpr int M = (L == 16 ? 14 : 6) / R;
  const int64_t taps = d.kernel_height * d.kernel_width;
  const ptrdiff_t* const offsets = d.tap_offsets();
  for (int64_t pieces = (columns + M - 1) / M; pieces > 0; --pieces) {
    const int64_t m = (columns + pieces - 1) / pieces;
    multiply_pixels_up_to<L, R, M, B>(m, d, offsets, taps, channels, x, w, sums, first);
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
                                         float* y, int64_t plane, int channels) {
  for (int64_t q = 0; q < columns; q += L) {
    const int last = columns - q < L ? static_cast<int>(columns - q) : L;
    Vector<L> square[L];
    unroll<L>([&](auto j) {
      square[j] = j < last ? load<L>(sums + (q + j) * 2 * L) + bias : Vector<L>{};
    });
    transpose<L>(square);
    unroll<L>([&](auto i) {
      if (i < channels) store_first<L>(y + i * plane + q, square[i], last);
    });
  }
}

template <int L>
bool convolve_channel_lanes(const DirectLayout& d, const float* x, const float* prepared,
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
    for (int64_t channel = 0; channel < d.ins; channel += d.channels) {
      const int64_t count = d.ins - channel < d.channels ? d.ins - channel : d.channels;
      copy_inputs<L>(d, tile, x, channel, count, inputs);
      for (int64_t pair = begin; pair < end; ++pair) {
        const float* const w =
            prepared + ((tile.group * d.pairs + pair) * d.ins + channel) * per_input;
        float* const to = sums + (pair - begin) * per_pair;
        if (d.outs - pair * 2 * L > L) {
          multiply_tile<L, 2>(d, tile, count, inputs, w, to, channel == 0);
        } else {
          multiply_tile<L, 1>(d, tile, count, inputs, w, to, channel == 0);
        }
      }
    }
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
        store_sums<L>(from + r * d.columns * 2 * L, tile.columns, bias_values, to, out_plane, channels);
      }
    }
  });
  return true;
}

// F outputs of R rows and V vectors of columns, at most `columns` of which exist.
template <int L, int F, int R, int V>
__attribute__((flatten)) void convolve_pixels(const DirectLayout& d, const float* x, const float* w,
                                              const float* bias, float* y, int64_t columns) {
  using Loose = typename VectorOf<L>::unaligned;
  const int64_t taps = d.kernel_height * d.kernel_width;
  const int64_t per_output = d.ins * taps;
  const int64_t row_step = d.stride_y * d.row_pitch;
  const ptrdiff_t* const offsets = d.tap_offsets();
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
          store_first<L>(y + f * plane + r * d.out_width + v * L, sum[f][r][v],
                         left < L ? static_cast<int>(left) : L);
        }
      });
    });
  });
}

template <int L, int F, int R>
void convolve_rows(const DirectLayout& d, const float* x, const float* w, const float* bias, float* y,
                   int64_t columns) {
  for (int64_t q = 0; q < columns; q += 2 * L) {
    if (columns - q > L) {
      convolve_pixels<L, F, R, 2>(d, x + q, w, bias, y + q, columns - q);
    } else {
      convolve_pixels<L, F, R, 1>(d, x + q, w, bias, y + q, columns - q);
    }
  }
}

// One output of R rows and V vectors of columns under a kernel of K rows without strides or dilations from
// row to row: every vector of pixels is loaded once for all the rows that need it.
template <int L, int K, int R, int V>
__attribute__((flatten)) void convolve_columns(const DirectLayout& d, const float* x, const float* w,
                                               float bias, float* y, int64_t columns) {
  using Loose = typename VectorOf<L>::unaligned;
  const ptrdiff_t* const offsets = d.tap_offsets();
  Vector<L> sum[R][V];
  unroll<R>([&](auto r) { unroll<V>([&](auto v) { sum[r][v] = bias - Vector<L>{}; }); });
  for (int64_t kx = 0; kx < d.kernel_width; ++kx) {
    const float* const at = x + offsets[kx];
    const float* const column = w + kx;
    unroll<R + K - 1>([&](auto i) {
      unroll<V>([&](auto v) {
        const Vector<L> pixels = *reinterpret_cast<const Loose*>(at + i * d.row_pitch + v * L);
        unroll<R>([&](auto r) {
          if constexpr (i - r >= 0 && i - r < K) {
            sum[r][v] += column[(i - r) * d.kernel_width] * pixels;
          }
        });
      });
    });
  }
  unroll<R>([&](auto r) {
    unroll<V>([&](auto v) {
      const int64_t left = columns - v * L;
      if (left > 0) {
        store_first<L>(y + r * d.out_width + v * L, sum[r][v], left < L ? static_cast<int>(left) : L);
      }
    });
  });
}

// One output of a tile, of one input; what is left of rows goes the general way.
template <int L, int K>
int64_t convolve_depthwise(const DirectLayout& d, int64_t rows, int64_t columns, const float* inputs,
                           const float* w, float bias, float* y) {
  constexpr int R = 4;
  int64_t r = 0;
  for (; r + R <= rows; r += R) {
    const float* const x = inputs + r * d.row_pitch;
    for (int64_t q = 0; q < columns; q += 2 * L) {
      float* const to = y + r * d.out_width + q;
      if (columns - q > L) {
        convolve_columns<L, K, R, 2>(d, x + q, w, bias, to, columns - q);
      } else {
        convolve_columns<L, K, R, 1>(d, x + q, w, bias, to, columns - q);
      }
    }
  }
  return r;
}

// F outputs of a tile.
template <int L, int F>
void convolve_outputs(const DirectLayout& d, const DirectTile& tile, const float* inputs, int64_t out,
                      const float* prepared, const float* bias, float* y) {
  constexpr int R = F == 1 ? 4 : 2;
  const int64_t filter = tile.group * d.outs + out;
  const float* const w = prepared + filter * d.ins * d.kernel_height * d.kernel_width;
  const float* const b = bias == nullptr ? nullptr : bias + filter;
  float* const plane =
      y + (tile.image * d.groups * d.outs + filter) * d.out_height * d.out_width + tile.first_column;
  int64_t r = 0;
  if constexpr (F == 1) {
    if (d.ins * d.stride_y * d.dilation_y == 1) {
      const float start = b == nullptr ? 0.0f : *b;
      float* const to = plane + tile.first_row * d.out_width;
      if (d.kernel_height == 3) {
        r = convolve_depthwise<L, 3>(d, tile.rows, tile.columns, inputs, w, start, to);
      } else if (d.kernel_height == 5) {
        r = convolve_depthwise<L, 5>(d, tile.rows, tile.columns, inputs, w, start, to);
      }
    }
  }
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
bool convolve_pixel_lanes(const DirectLayout& d, const float* x, const float* prepared,
                          const float* bias, float* y, const Context& context) {
  const int64_t work = d.worker_floats(Pass::kForward, L);
  const Scratch scratch(context, static_cast<size_t>(context.threads * work) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return false;
  deal(context, d.tasks(), [&](int64_t worker, int64_t task) {
    const DirectTile tile = tile_of(d, task);
    float* const inputs = memory + worker * work;
    copy_inputs<L>(d, tile, x, 0, d.ins, inputs);
    for (int64_t out = 0; out < d.outs;) {
      switch (d.outs - out) {
        case 1: convolve_outputs<L, 1>(d, tile, inputs, out, prepared, bias, y); out += 1; break;
        case 2: convolve_outputs<L, 2>(d, tile, inputs, out, prepared, bias, y); out += 2; break;
        case 3: convolve_outputs<L, 3>(d, tile, inputs, out, prepared, bias, y); out += 3; break;
        default: convolve_outputs<L, 4>(d, tile, inputs, out, prepared, bias, y); out += 4; break;
      }
    }
  });
  return true;
}

template <int L>
bool convolve_direct(const DirectLayout& d, const float* x, const float* prepared, const float* bias,
                     float* y, const Context& context) {
  return d.channel_lanes ? convolve_channel_lanes<L>(d, x, prepared, bias, y, context)
                         : convolve_pixel_lanes<L>(d, x, prepared, bias, y, context);
}

}  // namespace graphscale::fft_conv
