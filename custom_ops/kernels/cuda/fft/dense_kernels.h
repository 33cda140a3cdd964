// The kernels of the dense method, between tiles (or kernels) and spectra.
//
// Layout of spectra: [frequency][tile][channel], so that a matrix product finds its operands as
// they are and a block, which works on neighbouring channels of one tile, reads and writes whole
// sectors. Frequencies: the rows 1 ... S/2 - 1 of S each, then columns 0 ... S/2 of row 0 and of
// row S/2. Nothing is transposed. Cost per tile: S^2/2 + 2 complex numbers of 8 (halves: 4) bytes,
// written or read once, and about 5 S^2 log2 S operations. Spectra of tiles are conjugated, those
// of kernels are not.
#pragma once

#include "kernels/cuda/fft/algorithm.h"
#include "kernels/cuda/fft/block_tiles.h"

namespace graphscale::cuda {

template <typename Number>
constexpr bool kHalves = std::is_same_v<Number, HalfComplex>;

template <int S, typename Number>
using DenseTile = Tile<S, dense_tiles_per_block(S, kHalves<Number>)>;

// Exponents of the powers of two by which the images of a tensor were multiplied to fit halves; an
// image has `tiles` tiles.
struct Exponents {
  const int* values;
  int64_t tiles;
  GRAPHSCALE_DEVICE int of(int64_t tile) const { return values[tile / tiles]; }
};

// The factors of spectra before they are written.
struct Scale {
  float factor;
  Exponents exponents;  // without values, the factor is the whole scale
  GRAPHSCALE_DEVICE float of(int64_t tile) const {
    return exponents.values == nullptr ? factor : factor * power_of_two(exponents.of(tile));
  }
};

// One factor, and two, since a power of two may be out of a float's range.
struct NoFactor {
  friend GRAPHSCALE_DEVICE Complex operator*(const NoFactor&, const Complex& value) {
    return value;
  }
};
struct TwoFactors {
  float first, second;
  friend GRAPHSCALE_DEVICE Complex operator*(const TwoFactors& f, const Complex& value) {
    return {value.re * f.first * f.second, value.im * f.first * f.second};
  }
};

// The factors of products of spectra after they are read: 1, or the powers of two that undo the
// exponents of both operands and of the product.
template <typename Number>
struct ScaleBack {
  GRAPHSCALE_DEVICE NoFactor of(int64_t) const { return {}; }
};
template <>
struct ScaleBack<HalfComplex> {
  float factor;
  Exponents tiles;
  const int* other;
  int lost;
  GRAPHSCALE_DEVICE TwoFactors of(int64_t tile) const {
    const int exponent = lost - tiles.of(tile) - *other;
    const int half = min(exponent / 2, 127);
    return {power_of_two(half), factor * power_of_two(min(exponent - half, 127))};
  }
};

// Row j of a tile, to its frequencies `step` numbers apart.
template <int S, typename Number>
GRAPHSCALE_DEVICE void write_row(const Line<S>& line, int j, float scale, float im_scale,
                                 int64_t step, Number* to) {
  constexpr int kHalf = S / 2;
  if (j != 0) {
    // A thread writes its row one frequency at a time; neighbouring threads have neighbouring
    // channels, so that each store of a warp covers whole sectors.
    Number* const row = to + static_cast<int64_t>(j - 1) * S * step;
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int at = position<S>(k);
      row[k * step] = make_number<Number>(scale * line.re[at], im_scale * line.im[at]);
    });
  } else {
    // Row 0 holds two real rows' spectra; they are taken apart and written as S/2 + 1 values each.
    Number* const zero = to + (kHalf - 1) * S * step;
    Number* const half = zero + (kHalf + 1) * step;
    unrolled<kHalf + 1>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int at = position<S>(k);
      constexpr int mirror = position<S>((S - k) % S);
      const Pair pair = unpack(line.re[at], line.im[at], line.re[mirror], line.im[mirror]);
      zero[k * step] = make_number<Number>(scale * pair.a_re, im_scale * pair.a_im);
      half[k * step] = make_number<Number>(scale * pair.b_re, im_scale * pair.b_im);
    });
  }
}

// The way back, times `factor`.
template <int S, typename Number, typename Factor>
GRAPHSCALE_DEVICE void read_row(const Number* from, int j, int64_t step, const Factor& factor,
                                Line<S>& line) {
  constexpr int kHalf = S / 2;
  if (j != 0) {
    const Number* const row = from + static_cast<int64_t>(j - 1) * S * step;
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      const Complex value = factor * widen(row[k * step]);
      line.re[k] = value.re;
      line.im[k] = value.im;
    });
  } else {
    const Number* const zero = from + (kHalf - 1) * S * step;
    const Number* const half = zero + (kHalf + 1) * step;
    unrolled<kHalf + 1>([&](auto i) {
      constexpr int k = decltype(i)::value;
      const Complex a = factor * widen(zero[k * step]);
      const Complex b = factor * widen(half[k * step]);
      pack<S, k>(Pair{a.re, a.im, b.re, b.im}, line);
    });
  }
}

template <int S, typename Number>
struct TilesToSpectra {
  using Shape = DenseTile<S, Number>;
  static constexpr int kThreads = Shape::kThreads;
  Plane from;
  Number* spectra;
  int64_t first, tiles, channels;  // tiles [first, first + tiles)
  Scale scale;
  Columns columns;
  int room;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    Complex* const memory = block.shared<Complex>();
    const int64_t blocks = divide_up(channels, Shape::kTiles);
    const int64_t m = block.index() / blocks;
    const int64_t channel = block.index() % blocks * Shape::kTiles;
    // Columns are read and transformed; behind the barrier each thread transforms its row and
    // writes it.
    load_columns<Shape, S>(
        block, from, columns, room, [&](int t) { return channel + t < channels; },
        [&](int t) { return from.place(first + m, channel + t); }, memory);
    block.sync();
    if (channel + g >= channels) return;
    Line<S> line;
    const int j = Shape::row_of(block.thread());
    Shape::read_row(memory + g * room, j, columns, line);
    transform<S>(line.re, line.im);
    const float factor = scale.of(first + m);
    write_row<S>(line, j, factor, -factor, tiles * channels, spectra + m * channels + channel + g);
  }
};

// "Tile" i is an input of a group, channels are the outputs of all groups.
template <int S, typename Number>
struct KernelsToSpectra {
  using Shape = DenseTile<S, Number>;
  static constexpr int kThreads = Shape::kThreads;
  Taps taps;
  Number* spectra;
  int64_t ins, outs;
  Scale scale;
  Columns columns;
  int room;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    Complex* const memory = block.shared<Complex>();
    const int64_t blocks = divide_up(outs, Shape::kTiles);
    const int64_t in = block.index() / blocks;
    const int64_t out = block.index() % blocks * Shape::kTiles;
    load_kernel_columns<Shape, S>(
        block, taps, columns, room, [&](int t) { return out + t < outs; },
        [&](int t) { return taps.place(out + t, in); }, memory);
    block.sync();
    if (out + g >= outs) return;
    Line<S> line;
    const int j = Shape::row_of(block.thread());
    Shape::read_row(memory + g * room, j, columns, line);
    transform<S>(line.re, line.im);
    const float factor = scale.of(0);
    write_row<S>(line, j, factor, factor, ins * outs, spectra + in * outs + out + g);
  }
};

template <int S, typename Number>
struct SpectraToTiles {
  using Shape = DenseTile<S, Number>;
  static constexpr int kThreads = Shape::kThreads;
  Plane to, bias;
  const Number* spectra;
  int64_t first, tiles, channels;
  ScaleBack<Number> scale;
  bool has_bias;
  Columns columns;
  int room;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::row_of(block.thread());
    Complex* const memory = block.shared<Complex>();
    const int64_t blocks = divide_up(channels, Shape::kTiles);
    const int64_t m = block.index() / blocks;
    const int64_t channel = block.index() % blocks * Shape::kTiles;
    Line<S> line;
    // Rows first, then columns: the inverse is the transform of the conjugate, which the product
    // has made.
    read_row<S>(spectra + m * channels + min(channel + g, channels - 1), j, tiles * channels,
                scale.of(first + m), line);
    transform<S>(line.re, line.im);
    Shape::write_row(line, j, columns, memory + g * room);
    block.sync();
    store_columns<Shape, S>(
        block, to, columns, room, [&](int t) { return channel + t < channels; },
        [&](int t) { return to.place(first + m, channel + t); },
        [&](int t) { return has_bias ? bias.read(channel + t) : 0.0f; }, memory);
  }
};

template <int S, typename Number>
struct SpectraToKernels {
  using Shape = DenseTile<S, Complex>;
  static constexpr int kThreads = Shape::kThreads;
  Taps taps;
  const Complex* spectra;  // products of Numbers
  int64_t ins, outs;
  ScaleBack<Number> scale;
  Columns columns;
  int room;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::row_of(block.thread());
    Complex* const memory = block.shared<Complex>();
    const int64_t blocks = divide_up(outs, Shape::kTiles);
    const int64_t in = block.index() / blocks;
    const int64_t out = block.index() % blocks * Shape::kTiles;
    Line<S> line;
    read_row<S>(spectra + in * outs + min(out + g, outs - 1), j, ins * outs, scale.of(0), line);
    transform<S>(line.re, line.im);
    Shape::write_row(line, j, columns, memory + g * room);
    block.sync();
    store_kernel_columns<Shape, S>(
        block, taps, columns, room, [&](int t) { return out + t < outs; },
        [&](int t) { return taps.place(out + t, in); }, memory);
  }
};

}  // namespace graphscale::cuda
