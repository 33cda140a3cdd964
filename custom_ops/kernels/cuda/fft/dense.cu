// Host side of the dense method: scratch memory, scales of halves, and the order of the kernels.
// Cost of convolve(): S^2/2 + 2 frequencies of products [tiles x ins] * [ins x outs]; spectra of
// all inputs and outputs are written and read once.
#include "kernels/cuda/fft/dense.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "kernels/cuda/fft/dense_kernels.h"
#include "kernels/cuda/fft/exponents.h"
#include "kernels/cuda/fft/product.h"

namespace graphscale::cuda {
namespace {

constexpr int64_t frequencies(int size) { return static_cast<int64_t>(size) * size / 2 + 2; }

template <typename Shape>
size_t tile_bytes(const Columns& columns) {
  return static_cast<size_t>(Shape::kTiles * Shape::room(columns.count())) * sizeof(Complex);
}

template <typename Number>
void tiles_to_spectra(const Context& context, int size, const Plane& from, const Columns& columns,
                      int64_t first, int64_t tiles, int64_t channels, const Scale& scale,
                      Number* spectra) {
  DenseSizes::choose(size, [&](auto s) {
    using Kernel = TilesToSpectra<decltype(s)::value, Number>;
    using Shape = typename Kernel::Shape;
    launch_blocks(context, tiles * divide_up(channels, Shape::kTiles), tile_bytes<Shape>(columns),
                  Kernel{from, spectra, first, tiles, channels, scale, columns,
                         Shape::room(columns.count())});
  });
}

template <typename Number>
void spectra_to_tiles(const Context& context, int size, const Number* spectra, int64_t first,
                      int64_t tiles, const Layout& layout, const ScaleBack<Number>& scale,
                      const Plane* bias) {
  const Columns& columns = layout.out_columns;
  DenseSizes::choose(size, [&](auto s) {
    using Kernel = SpectraToTiles<decltype(s)::value, Number>;
    using Shape = typename Kernel::Shape;
    const int64_t channels = layout.all_outs();
    launch_blocks(context, tiles * divide_up(channels, Shape::kTiles), tile_bytes<Shape>(columns),
                  Kernel{layout.out, bias == nullptr ? Plane{} : *bias, spectra, first, tiles,
                         channels, scale, bias != nullptr, columns, Shape::room(columns.count())});
  });
}

// Kernel<S, Number> for kernels, a block for some outputs of one input.
template <template <int, typename> class Kernel, typename Number, typename Spectra, typename Factor>
void launch_kernels(const Context& context, int size, const Layout& layout, Spectra* spectra,
                    const Factor& scale) {
  const Columns columns = kernel_columns(layout.taps);
  DenseSizes::choose(size, [&](auto s) {
    constexpr int S = decltype(s)::value;
    using Shape = typename Kernel<S, Number>::Shape;
    launch_blocks(context, layout.ins * divide_up(layout.all_outs(), Shape::kTiles),
                  kernel_columns_bytes<Shape, S>(columns),
                  Kernel<S, Number>{layout.taps, spectra, layout.ins, layout.all_outs(), scale,
                                    columns, Shape::room(columns.count())});
  });
}

// The factor of one operand's spectra, or of their products.
float product_scale(int size) {
  return 0.25f / (static_cast<float>(size) * static_cast<float>(size));
}

// The smallest e with 2^e >= count.
int exponent_above(int64_t count) {
  int exponent = 0;
  while (int64_t{1} << exponent < count) ++exponent;
  return exponent;
}

// log2 of how often larger than the largest number of a tile, or of a kernel, its spectrum may be:
// all of them added up, and doubled (tile.h).
int tile_growth(int size) { return exponent_above(int64_t{2} * size * size); }
int kernel_growth(const Taps& taps) {
  return exponent_above(int64_t{2} * taps.plane.y.limit * taps.plane.x.limit);
}

const BFloat16* bfloat16_numbers(const Plane& plane) {
  return static_cast<const BFloat16*>(plane.data);
}

// Sizes and results of the products of a pass.
template <typename In, typename Out>
SpectraProduct<In, Out> make_product(const Algorithm& algorithm, const Layout& layout) {
  SpectraProduct<In, Out> product{};
  product.frequencies = frequencies(algorithm.size);
  product.groups = layout.groups;
  product.columns = layout.outs;
  product.out_group = layout.outs;
  product.out_row = layout.all_outs();
  product.scale = 1;
  return product;
}

// Runs the products in the algorithm's precision; for 16-bit tensors tf32 is enough.
void multiply(const Context& context, const Algorithm& algorithm, const Layout& layout,
              const SpectraProduct<Complex, Complex>& product) {
  multiply_spectra(context, product, algorithm.tf32 || layout.in.type != Type::kFloat32);
}
template <typename Out>
void multiply(const Context& context, const Algorithm&, const Layout&,
              const SpectraProduct<HalfComplex, Out>& product) {
  multiply_spectra(context, product);
}

// Bytes for the spectra of the images that are computed at once; the environment variable
// GRAPHSCALE_CUDA_SPECTRA_MB changes it (small enough, they stay in the GPU's cache).
int64_t spectra_bytes() {
  const char* const megabytes = std::getenv("GRAPHSCALE_CUDA_SPECTRA_MB");
  const int64_t count = megabytes == nullptr ? 0 : std::atoll(megabytes);
  return (count > 0 ? count : 256) << 20;
}

// The number of tiles whose spectra are in memory at once.
template <typename Number>
int64_t tiles_at_once(int size, const Layout& layout) {
  const int64_t bytes = frequencies(size) * (layout.all_ins() + layout.all_outs()) *
                        static_cast<int64_t>(sizeof(Number));
  return std::clamp<int64_t>(spectra_bytes() / bytes, 1, layout.tiles);
}

int64_t spectra_count(const Layout& layout, int size) {
  return frequencies(size) * layout.kernels();
}

// Spectra of kernels, [frequency][input of its group][output]; behind those of halves their
// exponent.
const int* exponent_behind(const HalfComplex* spectra, const Layout& layout, int size) {
  return reinterpret_cast<const int*>(spectra + spectra_count(layout, size));
}

template <typename Number>
void convolve(const Context& context, const Algorithm& algorithm, const Layout& layout,
              const Number* spectra, const Plane* bias) {
  const int size = algorithm.size;
  const int64_t ins = layout.all_ins();
  const int64_t outs = layout.all_outs();
  const int64_t chunk = tiles_at_once<Number>(size, layout);
  const ScratchArray<Number> in_spectra(context, frequencies(size) * chunk * ins);
  const ScratchArray<Number> out_spectra(context, frequencies(size) * chunk * outs);
  const int64_t image_tiles = layout.image_tiles();
  const ScratchArray<int> exponents(context, kHalves<Number> ? layout.tiles / image_tiles : 0);
  Scale scale{1.0f, {}};
  ScaleBack<Number> back{};
  float product_factor = 1;
  if constexpr (kHalves<Number>) {
    // Sums of `ins` products of numbers up to 2^15 are to be no larger than these.
    const int lost = 15 + exponent_above(layout.ins);
    product_factor = std::ldexp(1.0f, -lost);
    scale.exponents = {exponents.get(), image_tiles};
    back = {product_scale(size), scale.exponents, exponent_behind(spectra, layout, size), lost};
  }
  // Some tiles at a time, as many as have spectra of spectra_bytes(): tiles to spectra, one product
  // per frequency, spectra to tiles.
  for (int64_t first = 0; first < layout.tiles; first += chunk) {
    const int64_t tiles = std::min(chunk, layout.tiles - first);
    if constexpr (kHalves<Number>) {
      // Exponents of these tiles' images only: their numbers are then still in the cache when they
      // are read again.
      const int64_t image = first / image_tiles;
      find_exponents(context, bfloat16_numbers(layout.in) + image * layout.in.image,
                     (first + tiles - 1) / image_tiles + 1 - image, layout.in.image,
                     tile_growth(size), exponents.get() + image);
    }
    tiles_to_spectra(context, size, layout.in, layout.in_columns, first, tiles, ins, scale,
                     in_spectra.get());
    auto product = make_product<Number, Number>(algorithm, layout);
    product.left = {in_spectra.get(), tiles * ins, layout.ins, ins, 1};
    product.right = {spectra, layout.kernels(), layout.outs, 1, outs};
    product.out = out_spectra.get();
    product.out_frequency = tiles * outs;
    product.rows = tiles;
    product.depth = layout.ins;
    product.scale = product_factor;
    multiply(context, algorithm, layout, product);
    spectra_to_tiles(context, size, out_spectra.get(), first, tiles, layout, back, bias);
  }
}

template <typename Number>
void correlate(const Context& context, const Algorithm& algorithm, const Layout& layout) {
  const int size = algorithm.size;
  const int64_t ins = layout.all_ins();
  const int64_t outs = layout.all_outs();
  const int64_t chunk = tiles_at_once<Number>(size, layout);
  const ScratchArray<Number> in_spectra(context, frequencies(size) * chunk * ins);
  const ScratchArray<Number> grad_spectra(context, frequencies(size) * chunk * outs);
  const ScratchArray<Complex> sums(context, spectra_count(layout, size));
  const ScratchArray<int> exponents(context, kHalves<Number> ? 2 : 0);
  Scale in_scale{product_scale(size), {}};
  Scale grad_scale{1.0f, {}};
  ScaleBack<Number> back{};
  if constexpr (kHalves<Number>) {
    // The results of all images are added up, so all images have the same exponent.
    const int64_t images = layout.tiles / layout.image_tiles();
    int* const in = exponents.get();
    int* const grad = in + 1;
    const int growth = tile_growth(size);
    find_exponents(context, bfloat16_numbers(layout.in), 1, images * layout.in.image, growth, in);
    find_exponents(context, bfloat16_numbers(layout.out), 1, images * layout.out.image, growth,
                   grad);
    in_scale = {1.0f, {in, layout.tiles}};
    grad_scale = {1.0f, {grad, layout.tiles}};
    back = {product_scale(size), in_scale.exponents, grad, 0};
  }
  // Spectra of both sides; per frequency the product [ins x tiles] * [tiles x outs] is added to the
  // sums of all kernels.
  for (int64_t first = 0; first < layout.tiles; first += chunk) {
    const int64_t tiles = std::min(chunk, layout.tiles - first);
    tiles_to_spectra(context, size, layout.in, layout.in_columns, first, tiles, ins, in_scale,
                     in_spectra.get());
    tiles_to_spectra(context, size, layout.out, layout.out_columns, first, tiles, outs, grad_scale,
                     grad_spectra.get());
    auto product = make_product<Number, Complex>(algorithm, layout);
    product.left = {in_spectra.get(), tiles * ins, layout.ins, 1, ins};
    product.right = {grad_spectra.get(), tiles * outs, layout.outs, 1, outs};
    product.out = sums.get();
    product.out_frequency = layout.kernels();
    product.rows = layout.ins;
    product.depth = tiles;
    product.accumulate = first > 0;
    product.conjugate_right = true;
    multiply(context, algorithm, layout, product);
  }
  launch_kernels<SpectraToKernels, Number>(context, size, layout,
                                           static_cast<const Complex*>(sums.get()), back);
}

// Calls function(Number()) with the type of the numbers in an algorithm's spectra.
template <typename F>
void with_numbers(const Algorithm& algorithm, const Layout& layout, const F& function) {
  if (has_half_spectra(algorithm, layout.in.type)) {
    function(HalfComplex());
  } else {
    function(Complex());
  }
}

}  // namespace

size_t dense_spectra_bytes(const Algorithm& algorithm, const Layout& layout) {
  const size_t count = static_cast<size_t>(spectra_count(layout, algorithm.size));
  return has_half_spectra(algorithm, layout.in.type) ? count * sizeof(HalfComplex) + sizeof(int)
                                                     : count * sizeof(Complex);
}

void make_dense_spectra(const Context& context, const Algorithm& algorithm, const Layout& layout,
                        void* memory) {
  with_numbers(algorithm, layout, [&](auto number) {
    using Number = decltype(number);
    Number* const spectra = static_cast<Number*>(memory);
    Scale scale{product_scale(algorithm.size), {}};
    if constexpr (kHalves<Number>) {
      int* const exponent = const_cast<int*>(exponent_behind(spectra, layout, algorithm.size));
      find_exponents(context, bfloat16_numbers(layout.taps.plane), 1,
                     layout.groups * layout.taps.group, kernel_growth(layout.taps), exponent);
      scale = {1.0f, {exponent, 1}};
    }
    launch_kernels<KernelsToSpectra, Number>(context, algorithm.size, layout, spectra, scale);
  });
}

void convolve_dense(const Context& context, const Algorithm& algorithm, const Layout& layout,
                    const void* spectra, const Plane* bias) {
  with_numbers(algorithm, layout, [&](auto number) {
    convolve(context, algorithm, layout, static_cast<const decltype(number)*>(spectra), bias);
  });
}

void correlate_dense(const Context& context, const Algorithm& algorithm, const Layout& layout) {
  with_numbers(algorithm, layout,
               [&](auto number) { correlate<decltype(number)>(context, algorithm, layout); });
}

}  // namespace graphscale::cuda
