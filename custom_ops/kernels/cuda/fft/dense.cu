// Layout of spectra: [frequency][tile][channel], so that a matrix product finds its operands as
// they are and a block, which works on neighbouring channels of one tile, reads and writes whole
// sectors. Frequencies: the rows 1 ... S/2 - 1 of S each, then columns 0 ... S/2 of row 0 and of
// row S/2. Nothing is transposed. Spectra of tiles are conjugated, those of kernels are not.
#include "kernels/cuda/fft/dense.h"

#include <algorithm>
#include <cstdlib>

#include "kernels/cuda/fft/block_tiles.h"

namespace graphscale::cuda {
namespace {

constexpr int64_t frequencies(int size) { return static_cast<int64_t>(size) * size / 2 + 2; }

// Row j of a tile, to its frequencies `step` numbers apart.
template <int S>
GRAPHSCALE_DEVICE void write_row(const Line<S>& line, int j, float scale, float im_scale,
                                 int64_t step, Complex* to) {
  constexpr int kHalf = S / 2;
  if (j != 0) {
    Complex* const row = to + static_cast<int64_t>(j - 1) * S * step;
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int at = position<S>(k);
      row[k * step] = {scale * line.re[at], im_scale * line.im[at]};
    });
  } else {
    Complex* const zero = to + (kHalf - 1) * S * step;
    Complex* const half = zero + (kHalf + 1) * step;
    unrolled<kHalf + 1>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int at = position<S>(k);
      constexpr int mirror = position<S>((S - k) % S);
      const Pair pair = unpack(line.re[at], line.im[at], line.re[mirror], line.im[mirror]);
      zero[k * step] = {scale * pair.a_re, im_scale * pair.a_im};
      half[k * step] = {scale * pair.b_re, im_scale * pair.b_im};
    });
  }
}

template <int S>
GRAPHSCALE_DEVICE void read_row(const Complex* from, int j, int64_t step, Line<S>& line) {
  constexpr int kHalf = S / 2;
  if (j != 0) {
    const Complex* const row = from + static_cast<int64_t>(j - 1) * S * step;
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      const Complex value = row[k * step];
      line.re[k] = value.re;
      line.im[k] = value.im;
    });
  } else {
    const Complex* const zero = from + (kHalf - 1) * S * step;
    const Complex* const half = zero + (kHalf + 1) * step;
    unrolled<kHalf + 1>([&](auto i) {
      constexpr int k = decltype(i)::value;
      const Complex a = zero[k * step];
      const Complex b = half[k * step];
      pack<S, k>(Pair{a.re, a.im, b.re, b.im}, line);
    });
  }
}

template <int S>
struct TilesToSpectra {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  Plane from;
  Complex* spectra;
  int64_t first, tiles, channels;  // tiles [first, first + tiles)
  float scale;
  Columns columns;
  int room;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    Complex* const memory = block.shared<Complex>();
    const int64_t blocks = divide_up(channels, Shape::kTiles);
    const int64_t m = block.index() / blocks;
    const int64_t channel = block.index() % blocks * Shape::kTiles;
    load_columns<Shape, S>(
        block, from, columns, room, [&](int t) { return channel + t < channels; },
        [&](int t) { return from.place(first + m, channel + t); }, memory);
    block.sync();
    if (channel + g >= channels) return;
    Line<S> line;
    const int j = Shape::row_of(block.thread());
    Shape::read_row(memory + g * room, j, columns, line);
    transform<S>(line.re, line.im);
    write_row<S>(line, j, scale, -scale, tiles * channels, spectra + m * channels + channel + g);
  }
};

// "Tile" i is an input of a group, channels are the outputs of all groups.
template <int S>
struct KernelsToSpectra {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  Taps taps;
  Complex* spectra;
  int64_t ins, outs;
  float scale;
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
    write_row<S>(line, j, scale, scale, ins * outs, spectra + in * outs + out + g);
  }
};

template <int S>
struct SpectraToTiles {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  Plane to, bias;
  const Complex* spectra;
  int64_t first, tiles, channels;
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
    read_row<S>(spectra + m * channels + least(channel + g, channels - 1), j, tiles * channels,
                line);
    transform<S>(line.re, line.im);
    Shape::write_row(line, j, columns, memory + g * room);
    block.sync();
    store_columns<Shape, S>(
        block, to, columns, room, [&](int t) { return channel + t < channels; },
        [&](int t) { return to.place(first + m, channel + t); },
        [&](int t) { return has_bias ? bias.read(channel + t) : 0.0f; }, memory);
  }
};

template <int S>
struct SpectraToKernels {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  Taps taps;
  const Complex* spectra;
  int64_t ins, outs;
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
    read_row<S>(spectra + in * outs + least(out + g, outs - 1), j, ins * outs, line);
    transform<S>(line.re, line.im);
    Shape::write_row(line, j, columns, memory + g * room);
    block.sync();
    store_kernel_columns<Shape, S>(
        block, taps, columns, room, [&](int t) { return out + t < outs; },
        [&](int t) { return taps.place(out + t, in); }, memory);
  }
};

template <typename Shape>
size_t tile_bytes(const Columns& columns) {
  return static_cast<size_t>(Shape::kTiles * Shape::room(columns.count())) * sizeof(Complex);
}

void tiles_to_spectra(const Context& context, int size, const Plane& from, const Columns& columns,
                      int64_t first, int64_t tiles, int64_t channels, float scale,
                      Complex* spectra) {
  DenseSizes::choose(size, [&](auto s) {
    using Kernel = TilesToSpectra<decltype(s)::value>;
    using Shape = typename Kernel::Shape;
    launch_blocks(context, tiles * divide_up(channels, Shape::kTiles), tile_bytes<Shape>(columns),
                  Kernel{from, spectra, first, tiles, channels, scale, columns,
                         Shape::room(columns.count())});
  });
}

void spectra_to_tiles(const Context& context, int size, const Complex* spectra, int64_t first,
                      int64_t tiles, const Layout& layout, const Plane* bias) {
  const Columns& columns = layout.out_columns;
  DenseSizes::choose(size, [&](auto s) {
    using Kernel = SpectraToTiles<decltype(s)::value>;
    using Shape = typename Kernel::Shape;
    const int64_t channels = layout.all_outs();
    launch_blocks(context, tiles * divide_up(channels, Shape::kTiles), tile_bytes<Shape>(columns),
                  Kernel{layout.out, bias == nullptr ? Plane{} : *bias, spectra, first, tiles,
                         channels, bias != nullptr, columns, Shape::room(columns.count())});
  });
}

// launch(Kernel type's shape ...) for kernels, a block for some outputs of one input.
template <template <int> class Kernel, typename Spectra, typename... Scale>
void launch_kernels(const Context& context, int size, const Layout& layout, Spectra* spectra,
                    Scale... scale) {
  const Columns columns = kernel_columns(layout.taps);
  DenseSizes::choose(size, [&](auto s) {
    constexpr int S = decltype(s)::value;
    using Shape = typename Kernel<S>::Shape;
    launch_blocks(context, layout.ins * divide_up(layout.all_outs(), Shape::kTiles),
                  kernel_columns_bytes<Shape, S>(columns),
                  Kernel<S>{layout.taps, spectra, layout.ins, layout.all_outs(), scale..., columns,
                            Shape::room(columns.count())});
  });
}

float product_scale(int size) {
  return 0.25f / (static_cast<float>(size) * static_cast<float>(size));
}

// Sizes and results of the products of a pass, in the plan's precision; 16-bit tensors need no more
// than tf32.
void multiply(const Context& context, const Plan& plan, const Layout& layout,
              SpectraProduct product) {
  product.frequencies = frequencies(plan.size);
  product.groups = layout.groups;
  product.columns = layout.outs;
  product.out_group = layout.outs;
  product.out_row = layout.all_outs();
  multiply_spectra(context, product, plan.tf32 || layout.in.type != Type::kFloat32);
}

// Memory for the spectra of the images that go through it at once; the environment variable
// GRAPHSCALE_CUDA_SPECTRA_MB changes it (small enough, they stay in the GPU's cache).
int64_t spectra_bytes() {
  const char* const megabytes = std::getenv("GRAPHSCALE_CUDA_SPECTRA_MB");
  const int64_t count = megabytes == nullptr ? 0 : std::atoll(megabytes);
  return (count > 0 ? count : 256) << 20;
}

// Tiles whose spectra go through memory at once.
int64_t tiles_at_once(int size, const Layout& layout) {
  const int64_t bytes = frequencies(size) * (layout.all_ins() + layout.all_outs()) *
                        static_cast<int64_t>(sizeof(Complex));
  return std::clamp<int64_t>(spectra_bytes() / bytes, 1, layout.tiles);
}

}  // namespace

int64_t dense_spectra_count(const Layout& layout, int size) {
  return frequencies(size) * layout.kernels();
}

// [frequency][input of its group][output].
void make_dense_spectra(const Context& context, int size, const Layout& layout, Complex* spectra) {
  launch_kernels<KernelsToSpectra>(context, size, layout, spectra, product_scale(size));
}

void convolve_dense(const Context& context, const Plan& plan, const Layout& layout,
                    const Complex* spectra, const Plane* bias) {
  const int size = plan.size;
  const int64_t ins = layout.all_ins();
  const int64_t outs = layout.all_outs();
  const int64_t most = tiles_at_once(size, layout);
  const ScratchArray<Complex> in_spectra(context, frequencies(size) * most * ins);
  const ScratchArray<Complex> out_spectra(context, frequencies(size) * most * outs);
  for (int64_t first = 0; first < layout.tiles; first += most) {
    const int64_t tiles = std::min(most, layout.tiles - first);
    tiles_to_spectra(context, size, layout.in, layout.in_columns, first, tiles, ins, 1.0f,
                     in_spectra.get());
    SpectraProduct product{};
    product.left = {in_spectra.get(), tiles * ins, layout.ins, ins, 1};
    product.right = {spectra, layout.kernels(), layout.outs, 1, outs};
    product.out = out_spectra.get();
    product.out_frequency = tiles * outs;
    product.rows = tiles;
    product.depth = layout.ins;
    multiply(context, plan, layout, product);
    spectra_to_tiles(context, size, out_spectra.get(), first, tiles, layout, bias);
  }
}

void correlate_dense(const Context& context, const Plan& plan, const Layout& layout) {
  const int size = plan.size;
  const int64_t ins = layout.all_ins();
  const int64_t outs = layout.all_outs();
  const int64_t most = tiles_at_once(size, layout);
  const ScratchArray<Complex> in_spectra(context, frequencies(size) * most * ins);
  const ScratchArray<Complex> grad_spectra(context, frequencies(size) * most * outs);
  const ScratchArray<Complex> sums(context, dense_spectra_count(layout, size));
  for (int64_t first = 0; first < layout.tiles; first += most) {
    const int64_t tiles = std::min(most, layout.tiles - first);
    tiles_to_spectra(context, size, layout.in, layout.in_columns, first, tiles, ins,
                     product_scale(size), in_spectra.get());
    tiles_to_spectra(context, size, layout.out, layout.out_columns, first, tiles, outs, 1.0f,
                     grad_spectra.get());
    SpectraProduct product{};
    product.left = {in_spectra.get(), tiles * ins, layout.ins, 1, ins};
    product.right = {grad_spectra.get(), tiles * outs, layout.outs, 1, outs};
    product.out = sums.get();
    product.out_frequency = layout.kernels();
    product.rows = layout.ins;
    product.depth = tiles;
    product.accumulate = first > 0;
    product.conjugate_right = true;
    multiply(context, plan, layout, product);
  }
  launch_kernels<SpectraToKernels>(context, size, layout, static_cast<const Complex*>(sums.get()));
}

}  // namespace graphscale::cuda
