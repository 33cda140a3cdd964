// Winograd's convolution, for short kernels: tiles of 4 or 6 inputs a side to as many values; per
// value one real product [tiles x inputs] * [inputs x outputs]; back to tiles of outputs. A tile of
// T a side and a kernel of K cost T^2 / (T - K + 1)^2 multiplications per output and input instead
// of K^2:
//
//   K    T    multiplications        a worker's task at 64 -> 64 channels, T = 6: 32 tiles
//   3    6    2.25 instead of 9      transforms 32 * 4 * 2 * about 130 operations   0.03 million
//   3    4    4    instead of 9      products   36 * 32 * 64 * 4                    0.29 million
//   5    6    9    instead of 25     all in the second-level cache, but for the weights
//
// A tile's values differ more in size than the inputs do, so rounding errors are two to four times
// those of a direct convolution with tiles of 6, and alike with tiles of 4.
#pragma once

#include "kernels/cpu/fft_conv/lanes-inl.h"
#include "kernels/cpu/fft_conv/layout.h"
#include "kernels/cpu/fft_conv/winograd_layout.h"
#include "kernels/cpu/fft_conv/winograd_lines-inl.h"
#include "kernels/cpu/fft_conv/winograd_products-inl.h"
#include "kernels/cpu/fft_conv/workers-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// A step along both axes, between values [tile_y * tile_x] that lie `pitch` apart and rows of a
// strip.
template <int L, WinogradStep kStep>
class WinogradTransform {
 public:
  // rows, columns: of the taps or outputs from which, or to which, a tile's values are transformed.
  WinogradTransform(const Core& core, int64_t rows, int64_t columns)
      : height_(core.y.tile),
        width_(core.x.tile),
        columns_(columns),
        pitch_(strip_pitch(L)),
        along_y_(find_step<L, kStep>(height_, rows)),
        along_x_(find_step<L, kStep>(width_, columns)) {}

  // `read` columns of a strip, to the values of `tiles` that begin `columns` apart in it.
  void to_values(float* strip, int64_t read, int64_t tiles, float* values, ptrdiff_t value_pitch,
                 ptrdiff_t tile_pitch) const {
    // Along y in place, all columns of the strip at once: neighbouring tiles share the K - 1
    // columns that they both read, so these are transformed once.
    along_y_({read, strip, pitch_, L, strip, pitch_, L});
    for (int y = 0; y < height_; ++y) {
      along_x_({tiles, strip + y * pitch_, L, columns_ * L, values + y * width_ * value_pitch,
                value_pitch, tile_pitch});
    }
  }

  void from_values(const float* values, ptrdiff_t value_pitch, ptrdiff_t tile_pitch, int64_t tiles,
                   float* strip) const {
    for (int y = 0; y < height_; ++y) {
      along_x_({tiles, values + y * width_ * value_pitch, value_pitch, tile_pitch,
                strip + y * pitch_, L, columns_ * L});
    }
    // Along y last, in place, for the columns of all tiles.
    along_y_({tiles * columns_, strip, pitch_, L, strip, pitch_, L});
  }

 private:
  int height_, width_;
  int64_t columns_, pitch_;
  WinogradFunction along_y_, along_x_;
};

// rows x columns of the planes to a strip; zeros where there are none.
template <int L>
void load_strip(const Planes<L>& planes, int64_t rows, int64_t columns, float* strip,
                Magnitudes<L>& read) {
  for (int64_t y = 0; y < rows; ++y) {
    float* const row = strip + y * strip_pitch(L);
    if (load_row<L>(planes, y, columns, row, L, read)) continue;
    for (int64_t u = 0; u < columns; ++u) store<L>(row + u * L, Vector<L>{});
  }
}

template <int L>
void store_strip(const Planes<L>& planes, int64_t rows, int64_t columns, const float* strip,
                 const Vector<L>& bias) {
  for (int64_t y = 0; y < rows; ++y) {
    store_row<L>(planes, y, columns, strip + y * strip_pitch(L), L, 1.0f, bias);
  }
}

constexpr int64_t kTilesPerTask = 16;  // of the gradient to the weights

// body(first, count) for the tiles [begin, end) in pieces of one row of tiles and one strip.
template <typename Body>
GRAPHSCALE_INLINE void for_strips(const Core& core, int64_t begin, int64_t end, const Body& body) {
  const int64_t limit = strip_tiles(core);
  while (begin < end) {
    int64_t count = core.x.tiles - begin % core.x.tiles;
    if (count > limit) count = limit;
    if (count > end - begin) count = end - begin;
    body(begin, count);
    begin += count;
  }
}

constexpr int64_t kInputsPerTask =
    8;  // of prepacked weights and their gradients: side by side in memory

// `count` vectors of every value times what one factor of each product is scaled by.
template <int L>
void scale_values(const Core& core, float* values, ptrdiff_t value_pitch, int64_t count) {
  for (int y = 0; y < core.y.tile; ++y) {
    for (int x = 0; x < core.x.tile; ++x, values += value_pitch) {
      const float scale = winograd_scale(core.y.tile, y) * winograd_scale(core.x.tile, x);
      for (int64_t i = 0; i < count; ++i) store<L>(values + i * L, scale * load<L>(values + i * L));
    }
  }
}

template <int L>
Outcome prepack_winograd(const Core& core, const float* w, float* prepacked,
                         const Context& context) {
  const WinogradLayout layout(core, L, context.threads);
  const Scratch scratch(context, static_cast<size_t>(context.threads * layout.strip) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return Outcome::kNoMemory;
  const WinogradTransform<L, WinogradStep::kEvaluate> evaluate(core, core.y.kernel, core.x.kernel);
  const int64_t ins = core.ins(), runs = (ins + kInputsPerTask - 1) / kInputsPerTask;
  Spread spread;
  deal_reading<L>(
      context, core.groups * layout.out_blocks * runs, spread,
      [&](int64_t worker, int64_t task, Magnitudes<L>& read) {
        const int64_t group = task / runs / layout.out_blocks,
                      block = task / runs % layout.out_blocks;
        const int64_t first = task % runs * kInputsPerTask;
        const int64_t count = ins - first < kInputsPerTask ? ins - first : kInputsPerTask;
        float* const strip = memory + worker * layout.strip;
        for (int64_t i = 0; i < count; ++i) {
          load_strip<L>(tap_planes<L>(core, w, group, block * L, first + i), core.y.kernel,
                        core.x.kernel, strip + i * core.x.kernel * L, read);
        }
        float* const out = prepacked + group * layout.weights + (block * ins + first) * L;
        evaluate.to_values(strip, count * core.x.kernel, count, out, layout.weight_pitch, L);
        scale_values<L>(core, out, layout.weight_pitch, count);
      });
  return spread.outcome();
}

template <int L>
Outcome convolve_winograd(const Core& core, const float* x, const float* prepacked,
                          const float* bias, float* y, const Context& context) {
  const WinogradLayout layout(core, L, context.threads);
  const Scratch scratch(context, static_cast<size_t>(layout.workers * layout.worker) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return Outcome::kNoMemory;
  const WinogradTransform<L, WinogradStep::kDivide> divide(core, core.y.tile_outputs,
                                                           core.x.tile_outputs);
  const WinogradTransform<L, WinogradStep::kGather> gather(core, core.y.tile_outputs,
                                                           core.x.tile_outputs);
  const int64_t pairs = (layout.out_blocks + 1) / 2;
  Spread spread;
  deal_reading<L>(
      context, layout.tasks, spread, [&](int64_t worker, int64_t task, Magnitudes<L>& read) {
        const int64_t part = task % layout.parts, group = task / layout.parts / layout.chunks;
        const int64_t first = task / layout.parts % layout.chunks * layout.chunk;
        const int64_t left = core.tiles() - first;
        const int64_t end = first + (left < layout.chunk ? left : layout.chunk);
        const int64_t first_block = pairs * part / layout.parts * 2;
        const int64_t last_block = pairs * (part + 1) / layout.parts * 2;
        const int64_t out_blocks =
            (last_block < layout.out_blocks ? last_block : layout.out_blocks) - first_block;
        float* const strip = memory + worker * layout.worker;
        float* const in = strip + layout.strip;
        float* const out = in + layout.values * layout.in_pitch;
        // Step 1: inputs of the task's tiles to values, [value][tile][channel block][L].
        for_strips(core, first, end, [&](int64_t tile, int64_t count) {
          const Place place = place_of(core, tile);
          const int64_t columns = (count - 1) * core.x.tile_outputs + core.x.tile;
          for (int64_t block = 0; block < layout.in_blocks; ++block) {
            load_strip<L>(input_planes<L>(core, x, group, block * L, place), core.y.tile, columns,
                          strip, read);
            divide.to_values(strip, columns, count,
                             in + ((tile - first) * layout.in_blocks + block) * L, layout.in_pitch,
                             layout.in_blocks * L);
          }
        });
        // Step 2: per value the product [tiles x inputs] * [inputs x outputs], all of it in the
        // second-level cache but for the weights.
        for (int64_t value = 0; value < layout.values; ++value) {
          RealOperands p;
          p.a = in + value * layout.in_pitch;
          p.a_m = layout.in_blocks * L;
          p.a_r = 1;
          p.r_count = core.ins();
          p.b = prepacked + group * layout.weights + value * layout.weight_pitch +
                first_block * core.ins() * L;
          p.b_r = L;
          p.b_block = core.ins() * L;
          p.out = out + value * layout.out_pitch;
          p.out_m = out_blocks * L;
          p.out_block = L;
          p.accumulate = false;
          real_product<L>(end - first, out_blocks, p);
        }
        // Step 3: values to tiles of outputs, bias and bounds, and into y.
        for_strips(core, first, end, [&](int64_t tile, int64_t count) {
          const Place place = place_of(core, tile);
          for (int64_t block = 0; block < out_blocks; ++block) {
            gather.from_values(out + ((tile - first) * out_blocks + block) * L, layout.out_pitch,
                               out_blocks * L, count, strip);
            Vector<L> bias_values;
            const Planes<L> planes = output_planes<L>(core, y, group, (first_block + block) * L,
                                                      place, bias, &bias_values);
            store_strip<L>(planes, core.y.tile_outputs, count * core.x.tile_outputs, strip,
                           bias_values);
          }
        });
      });
  return spread.outcome();
}

// dw = gather(sum over tiles of divide(x) * evaluate(dy)), by the transpose of what convolve
// computes.
template <int L>
Outcome correlate_winograd(const Core& core, const float* x, const float* dy, float* dw,
                           const Context& context) {
  const WinogradGradientLayout layout(core, L);
  const int64_t floats = winograd_scratch_floats(core, Pass::kGradientWeight, L, context.threads);
  const Scratch scratch(context, static_cast<size_t>(floats) * 4);
  float* const memory = scratch.get<float>();
  if (memory == nullptr) return Outcome::kNoMemory;
  float* const in = memory + context.threads * layout.strip;
  float* const out = in + layout.values * layout.in_pitch;
  float* const weights = out + layout.values * layout.out_pitch;
  const int64_t ins = core.ins(), in_blocks = layout.in_blocks, out_blocks = layout.out_blocks;
  const int64_t rows = core.y.tile_outputs, columns = core.x.tile_outputs;
  const WinogradTransform<L, WinogradStep::kDivide> divide(core, rows, columns);
  const WinogradTransform<L, WinogradStep::kEvaluate> evaluate(core, rows, columns);
  const WinogradTransform<L, WinogradStep::kGather> gather(core, core.y.kernel, core.x.kernel);
  Spread inputs, gradients;
  for (int64_t group = 0; group < core.groups; ++group) {
    for (int64_t first = 0; first < core.tiles(); first += layout.chunk) {
      const int64_t left = core.tiles() - first;
      const int64_t count = left < layout.chunk ? left : layout.chunk;
      // Values of the inputs and of the gradients to the outputs, for the tiles of the chunk.
      const int64_t tasks = (count + kTilesPerTask - 1) / kTilesPerTask;
      deal_reading<L>(
          context, tasks, inputs, gradients,
          [&](int64_t worker, int64_t task, Magnitudes<L>& x_read, Magnitudes<L>& dy_read) {
            float* const strip = memory + worker * layout.strip;
            const int64_t begin = first + task * kTilesPerTask;
            const int64_t rest = first + count - begin;
            const int64_t end = begin + (rest < kTilesPerTask ? rest : kTilesPerTask);
            for_strips(core, begin, end, [&](int64_t tile, int64_t tiles) {
              const Place place = place_of(core, tile);
              const int64_t read = (tiles - 1) * columns + core.x.tile, at = tile - first;
              for (int64_t block = 0; block < in_blocks; ++block) {
                load_strip<L>(input_planes<L>(core, x, group, block * L, place), core.y.tile, read,
                              strip, x_read);
                divide.to_values(strip, read, tiles, in + (at * in_blocks + block) * L,
                                 layout.in_pitch, in_blocks * L);
              }
              for (int64_t block = 0; block < out_blocks; ++block) {
                Vector<L> no_bias;
                load_strip<L>(
                    output_planes<L>(core, dy, group, block * L, place, nullptr, &no_bias), rows,
                    tiles * columns, strip, dy_read);
                evaluate.to_values(strip, tiles * columns, tiles,
                                   out + (at * out_blocks + block) * L, layout.out_pitch,
                                   out_blocks * L);
              }
            });
          });
      const int64_t pairs = (out_blocks + 1) / 2;
      // Per value the product [inputs x tiles] * [tiles x outputs], added to what earlier chunks
      // gave.
      deal(context, layout.values * pairs, [&](int64_t, int64_t task) {
        const int64_t value = task / pairs, block = task % pairs * 2;
        RealOperands p;
        p.a = in + value * layout.in_pitch;
        p.a_m = 1;
        p.a_r = in_blocks * L;
        p.r_count = count;
        p.b = out + value * layout.out_pitch + block * L;
        p.b_r = out_blocks * L;
        p.b_block = L;
        p.out = weights + value * layout.weight_pitch + block * ins * L;
        p.out_m = L;
        p.out_block = ins * L;
        p.accumulate = first > 0;
        real_product<L>(ins, out_blocks - block < 2 ? 1 : 2, p);
      });
    }
    const int64_t runs = (ins + kInputsPerTask - 1) / kInputsPerTask;
    // The sums are scaled, gathered to taps and stored, eight inputs of a block at a time.
    deal(context, out_blocks * runs, [&](int64_t worker, int64_t task) {
      const int64_t block = task / runs, begin = task % runs * kInputsPerTask;
      const int64_t count = ins - begin < kInputsPerTask ? ins - begin : kInputsPerTask;
      float* const strip = memory + worker * layout.strip;
      float* const values = weights + (block * ins + begin) * L;
      scale_values<L>(core, values, layout.weight_pitch, count);
      gather.from_values(values, layout.weight_pitch, L, count, strip);
      for (int64_t i = 0; i < count; ++i) {
        store_strip<L>(tap_planes<L>(core, dw, group, block * L, begin + i), core.y.kernel,
                       core.x.kernel, strip + i * core.x.kernel * L, Vector<L>{});
      }
    });
  }
  return inputs.far_apart() ? inputs.outcome() : gradients.outcome();
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
