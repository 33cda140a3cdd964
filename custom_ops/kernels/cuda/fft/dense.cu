// Layout of spectra: [frequency][tile][channel], so that a matrix product finds its operands as
// they are and a block, which works on neighbouring channels of one tile, reads and writes whole
// sectors. Frequencies: the columns 1 ... S/2 - 1 of S each, then rows 0 ... S/2 of column 0 and of
// column S/2. Nothing is transposed.
#include "kernels/cuda/fft/dense.h"

namespace graphscale::cuda {
namespace {

constexpr int64_t frequencies(int size) { return static_cast<int64_t>(size) * size / 2 + 2; }

template <int S>
struct TilesToSpectra {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr size_t kSharedBytes = Shape::kTiles * Shape::kFloats * sizeof(float);
  Plane from;
  Complex* spectra;
  int64_t first, tiles, channels;  // tiles [first, first + tiles)
  float scale, sign;               // of the imaginary part: -1 for conjugates

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::line_of(block.thread());
    float* const room = block.shared<float>();
    const int64_t blocks = divide_up(channels, Shape::kTiles);
    const int64_t m = block.index() / blocks;
    const int64_t channel = block.index() % blocks * Shape::kTiles;
    for (int i = 0; i < Shape::kTiles && channel + i < channels; ++i) {
      from.load<Shape, S>(block, from.place(first + m, channel + i), room + i * Shape::kFloats);
    }
    Line<S> line;
    Shape::forward(block, room + g * Shape::kFloats, j, line);
    if (channel + g >= channels) return;
    const int64_t step = tiles * channels;
    const float im_scale = scale * sign;
    Complex* const to = spectra + m * channels + channel + g;
    if (j != 0) {
      Complex* const column = to + (j - 1) * S * step;
      unrolled<S>([&](auto i) {
        constexpr int k = decltype(i)::value;
        constexpr int at = position<S>(k);
        column[k * step] = {scale * line.re[at], im_scale * line.im[at]};
      });
    } else {
      Complex* const zero = to + (Shape::kHalf - 1) * S * step;
      Complex* const half = zero + (Shape::kHalf + 1) * step;
      unrolled<Shape::kHalf + 1>([&](auto i) {
        constexpr int k = decltype(i)::value;
        constexpr int at = position<S>(k);
        constexpr int mirror = position<S>((S - k) % S);
        const Pair pair = unpack(line.re[at], line.im[at], line.re[mirror], line.im[mirror]);
        zero[k * step] = {scale * pair.a_re, im_scale * pair.a_im};
        half[k * step] = {scale * pair.b_re, im_scale * pair.b_im};
      });
    }
  }
};

template <int S>
struct SpectraToTiles {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr size_t kSharedBytes = Shape::kTiles * Shape::kFloats * sizeof(float);
  Plane to, bias;
  const Complex* spectra;
  int64_t first, tiles, channels;
  bool has_bias;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::line_of(block.thread());
    float* const room = block.shared<float>();
    const int64_t blocks = divide_up(channels, Shape::kTiles);
    const int64_t m = block.index() / blocks;
    const int64_t channel = block.index() % blocks * Shape::kTiles;
    const int64_t step = tiles * channels;
    const Complex* const from = spectra + m * channels + least(channel + g, channels - 1);
    Line<S> line;
    if (j != 0) {
      const Complex* const column = from + (j - 1) * S * step;
      unrolled<S>([&](auto i) {
        constexpr int k = decltype(i)::value;
        const Complex value = column[k * step];
        line.re[k] = value.re;
        line.im[k] = value.im;
      });
    } else {
      const Complex* const zero = from + (Shape::kHalf - 1) * S * step;
      const Complex* const half = zero + (Shape::kHalf + 1) * step;
      unrolled<Shape::kHalf + 1>([&](auto i) {
        constexpr int k = decltype(i)::value;
        const Complex a = zero[k * step];
        const Complex b = half[k * step];
        pack<S, k>(Pair{a.re, a.im, b.re, b.im}, line);
      });
    }
    Shape::inverse(block, room + g * Shape::kFloats, j, line);
    for (int i = 0; i < Shape::kTiles && channel + i < channels; ++i) {
      const float addend = has_bias ? bias.read(channel + i) : 0.0f;
      to.store<Shape, S>(block, to.place(first + m, channel + i), room + i * Shape::kFloats,
                         addend);
    }
  }
};

void tiles_to_spectra(const Context& context, int size, const Plane& from, int64_t first,
                      int64_t tiles, int64_t channels, Complex* spectra, float scale = 1,
                      float sign = 1) {
  with_dense_size(size, [&](auto s) {
    using Kernel = TilesToSpectra<decltype(s)::value>;
    launch_blocks(context, tiles * divide_up(channels, Kernel::Shape::kTiles), Kernel::kSharedBytes,
                  Kernel{from, spectra, first, tiles, channels, scale, sign});
  });
}

void spectra_to_tiles(const Context& context, int size, const Complex* spectra, int64_t first,
                      int64_t tiles, int64_t channels, const Plane& to, const Plane* bias) {
  with_dense_size(size, [&](auto s) {
    using Kernel = SpectraToTiles<decltype(s)::value>;
    launch_blocks(context, tiles * divide_up(channels, Kernel::Shape::kTiles), Kernel::kSharedBytes,
                  Kernel{to, bias == nullptr ? Plane{} : *bias, spectra, first, tiles, channels,
                         bias != nullptr});
  });
}

// Images whose spectra go through memory at once.
int64_t images_at_once(const ConvGeometry& g, int size, const Layout& layout) {
  const int64_t tiles = layout.tiles / std::max<int64_t>(g.batch, 1);
  const int64_t bytes = frequencies(size) * tiles * (g.in_channels + g.out_channels) *
                        static_cast<int64_t>(sizeof(Complex));
  return std::clamp<int64_t>(spectra_bytes() / std::max<int64_t>(bytes, 1), 1,
                             std::max<int64_t>(g.batch, 1));
}

}  // namespace

int64_t dense_spectra_count(const ConvGeometry& g, int size) {
  return frequencies(size) * g.out_channels * g.group_inputs();
}

// [frequency][c of its group][o]: "tile" m of the taps' plane is c, channels are o. The gradient to
// x reads the same memory with its strides exchanged.
void make_dense_spectra(const Context& context, const ConvGeometry& g, int size, const Plane& taps,
                        Complex* spectra) {
  const float scale = 0.25f / (static_cast<float>(size) * static_cast<float>(size));
  tiles_to_spectra(context, size, taps, 0, g.group_inputs(), g.out_channels, spectra, scale, -1);
}

void convolve_dense(const Context& context, const ConvGeometry& g, Pass pass, int size,
                    const Layout& layout, const Complex* spectra, const Plane* bias) {
  const bool to_input = pass == Pass::kGradientInput;
  const int64_t ins = to_input ? g.out_channels : g.in_channels;
  const int64_t outs = to_input ? g.in_channels : g.out_channels;
  const int64_t tiles_per_image = layout.tiles / g.batch;
  const int64_t most = images_at_once(g, size, layout) * tiles_per_image;
  const ScratchArray<Complex> in_spectra(context, frequencies(size) * most * ins);
  const ScratchArray<Complex> out_spectra(context, frequencies(size) * most * outs);
  for (int64_t first = 0; first < layout.tiles; first += most) {
    const int64_t tiles = std::min(most, layout.tiles - first);
    tiles_to_spectra(context, size, layout.in, first, tiles, ins, in_spectra.get());
    Matmul<Complex, false> product{};
    product.left = {in_spectra.get(), tiles * ins, ins / g.groups, ins, 1};
    const int64_t kernels = g.group_inputs() * g.out_channels;
    product.right = to_input
                        ? Operand<Complex>{spectra, kernels, g.group_outputs(), g.out_channels, 1}
                        : Operand<Complex>{spectra, kernels, g.group_outputs(), 1, g.out_channels};
    product.out = out_spectra.get();
    product.out_batch = tiles * outs;
    product.out_group = outs / g.groups;
    product.out_row = outs;
    product.batches = frequencies(size);
    product.groups = g.groups;
    product.rows = tiles;
    product.columns = outs / g.groups;
    product.depth = ins / g.groups;
    matmul(context, product);
    spectra_to_tiles(context, size, out_spectra.get(), first, tiles, outs, layout.out, bias);
  }
}

void correlate_dense(const Context& context, const ConvGeometry& g, int size,
                     const Layout& layout) {
  const int64_t tiles_per_image = layout.tiles / g.batch;
  const int64_t most = images_at_once(g, size, layout) * tiles_per_image;
  const ScratchArray<Complex> x_spectra(context, frequencies(size) * most * g.in_channels);
  const ScratchArray<Complex> grad_spectra(context, frequencies(size) * most * g.out_channels);
  const ScratchArray<Complex> sums(context, dense_spectra_count(g, size));
  const float scale = 0.25f / (static_cast<float>(size) * static_cast<float>(size));
  for (int64_t first = 0; first < layout.tiles; first += most) {
    const int64_t tiles = std::min(most, layout.tiles - first);
    tiles_to_spectra(context, size, layout.in, first, tiles, g.in_channels, x_spectra.get(), scale);
    tiles_to_spectra(context, size, layout.out, first, tiles, g.out_channels, grad_spectra.get());
    Matmul<Complex, false> product{};
    product.left = {x_spectra.get(), tiles * g.in_channels, g.group_inputs(), 1, g.in_channels};
    product.right = {grad_spectra.get(), tiles * g.out_channels, g.group_outputs(), 1,
                     g.out_channels};
    product.out = sums.get();
    product.out_batch = g.group_inputs() * g.out_channels;
    product.out_group = g.group_outputs();
    product.out_row = g.out_channels;
    product.batches = frequencies(size);
    product.groups = g.groups;
    product.rows = g.group_inputs();
    product.columns = g.group_outputs();
    product.depth = tiles;
    product.accumulate = first > 0;
    product.conjugate_right = true;
    matmul(context, product);
  }
  spectra_to_tiles(context, size, sums.get(), 0, g.group_inputs(), g.out_channels, layout.taps,
                   nullptr);
}

}  // namespace graphscale::cuda
