// Prices every method and size of tile: bytes over the memory's rate, operations over the
// arithmetic units' rates, and a few microseconds per kernel launch.
#include "kernels/cuda/fft/algorithm.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/matmul.h"

namespace graphscale::cuda {
namespace {

// Rates that these kernels should reach on one H200 (docs/cuda_predictions.md); only their ratios
// matter.
constexpr double kBytesPerSecond = 4.0e12;
constexpr double kTransformFlops = 25e12;     // counted as 5 n log2 n
constexpr double kProductFlops = 180e12;      // of tensor cores, tf32
constexpr double kSplitProductFlops = 60e12;  // three tf32 products for one
constexpr double kHalfProductFlops = 360e12;
constexpr double kDirectFlops = 2e12;  // of the direct kernels here
constexpr double kLaunchSeconds = 4e-6;
constexpr size_t kMaxOfMethod = 4;                   // candidates
constexpr int64_t kMaxPositions = int64_t{1} << 30;  // positions and tiles are counted in int
constexpr int kMaxSummed =
    64;  // inputs per output for per_channel, which transforms them anew for each output

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The largest shared memory of a block on this GPU.
int64_t shared_limit() {
#ifdef __CUDACC__
  int device = 0;
  int bytes = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) ==
          cudaSuccess) {
    return bytes;
  }
  return 48 * 1024;
#else
  return kMaxSharedBytes;
#endif
}

// The shared memory that the kernels of an algorithm take at most, with all columns.
int64_t shared_bytes(const TiledCore& c, Pass pass, const Algorithm& algorithm, Type type) {
  // Bytes: S^2 / 2 complex numbers of a spectrum; a tile has S + 1 columns of about S / 2 numbers
  // and some padding.
  const int64_t spectrum = int64_t{4} * algorithm.size * algorithm.size;
  const int64_t tile = spectrum + 8 * algorithm.size + 128;
  if (algorithm.method == Method::kPerChannel && pass == Pass::kGradientWeight) {
    const int64_t sums = summed_tiles_per_block(algorithm.size) * (tile + 2 * spectrum);
    return std::max(sums, tiles_per_block(algorithm.size) * tile);
  }
  if (algorithm.method == Method::kDense) {
    return dense_tiles_per_block(algorithm.size, has_half_spectra(algorithm, type)) * tile;
  }
  const bool added_up = c.ins() > 1;
  return tiles_per_block(algorithm.size) * (tile + (added_up ? spectrum : 0));
}

bool is_line(const fft_conv::Axis& y) {
  return y.kernel == 1 && y.outputs == 1 && y.in.extent == 1 && y.out.extent == 1 &&
         y.batch_phases == 1 && y.in_phases == 1 && y.out_phases == 1;
}

void fold(TiledCore& c, int size) {
  // Rows of S numbers that overlap by half: a line of n numbers becomes 2 n / S rows, and its
  // kernel as many rows as it has halves.
  const int64_t width = size / 2;
  const int64_t rows = ceil_div(c.core.x.kernel, width);
  c.fold = static_cast<int>(width);
  c.parts = static_cast<int>(ceil_div(rows, width));
  fft_conv::Axis& y = c.core.y;
  y.kernel = ceil_div(rows, c.parts);
  y.outputs = ceil_div(c.core.x.outputs, width);
  y.tile = size;
  y.tiles = ceil_div(y.outputs, size - y.kernel + 1);
  y.tile_outputs = ceil_div(y.outputs, y.tiles);
  fft_conv::Axis& x = c.core.x;
  x.tile = size;
  x.tiles = 1;
  x.tile_outputs = width;
}

bool known_size(const Algorithm& algorithm) {
  const auto among = [&](const auto& sizes) {
    return std::find(std::begin(sizes), std::end(sizes), algorithm.size) != std::end(sizes);
  };
  switch (algorithm.method) {
    case Method::kDirect: return true;
    case Method::kPerChannel: return among(PerChannelSizes::kAll);
    default: return among(DenseSizes::kAll);
  }
}

std::string join(const std::vector<Algorithm>& algorithms) {
  std::string text;
  for (const Algorithm& algorithm : algorithms)
    text += (text.empty() ? "" : ", ") + to_string(algorithm);
  return text;
}

double product_flops(const Algorithm& algorithm, Type type) {
  if (has_half_spectra(algorithm, type)) return kHalfProductFlops;
  return algorithm.tf32 || type != Type::kFloat32 ? kProductFlops : kSplitProductFlops;
}

// tf32 is a choice where it is not all there is.
bool has_tf32(Type type) { return type == Type::kFloat32 || type == Type::kBFloat16; }

}  // namespace

std::string to_string(const Algorithm& algorithm) {
  if (algorithm.method == Method::kDirect) return "direct";
  const std::string side = std::to_string(algorithm.size);
  return (algorithm.method == Method::kDense ? "dense " : "per_channel ") + side + "x" + side +
         (algorithm.tf32 ? " tf32" : "");
}

std::optional<Algorithm> parse_algorithm(const std::string& text) {
  std::vector<Algorithm> algorithms = {Algorithm{}};
  for (const int size : PerChannelSizes::kAll)
    algorithms.push_back({Method::kPerChannel, size, false});
  for (const int size : DenseSizes::kAll) {
    algorithms.push_back({Method::kDense, size, false});
    algorithms.push_back({Method::kDense, size, true});
  }
  for (const Algorithm& algorithm : algorithms) {
    if (to_string(algorithm) == text) return algorithm;
  }
  return std::nullopt;
}

bool has_half_spectra(const Algorithm& algorithm, Type type) {
  return algorithm.method == Method::kDense && type == Type::kBFloat16 && !algorithm.tf32;
}

std::optional<TiledCore> cut_core(const Problem& p, Pass pass, const Algorithm& algorithm,
                                  Type type) {
  if (algorithm.method == Method::kDirect || !known_size(algorithm) || type == Type::kFloat64 ||
      fft_conv::is_empty(p) || (algorithm.tf32 && !has_tf32(type))) {
    return std::nullopt;
  }
  const int64_t width = p.width + p.pad_left + p.pad_right;
  // The kernels count positions in int.
  for (const int64_t size :
       {p.height + p.pad_top + p.pad_bottom, width, p.kernel_height * p.dilation_y,
        p.kernel_width * p.dilation_x, std::max(p.stride_y, p.dilation_y) * width}) {
    if (size > kMaxPositions) return std::nullopt;
  }
  TiledCore c;
  c.core = fft_conv::make_core(p, pass);
  if (is_line(c.core.y)) {
    fold(c, algorithm.size);
  } else if (!fft_conv::cut(c.core.y, algorithm.size) || !fft_conv::cut(c.core.x, algorithm.size)) {
    return std::nullopt;
  }
  const int64_t ins = c.ins();
  const int64_t kernels = c.core.groups * c.core.outs() * ins;
  if (c.core.tiles() > kMaxPositions || kernels > kMaxPositions) return std::nullopt;
  if (algorithm.method == Method::kPerChannel && ins > kMaxSummed) return std::nullopt;
  if (shared_bytes(c, pass, algorithm, type) > shared_limit()) return std::nullopt;
  return c;
}

double predicted_seconds(const Problem& p, Pass pass, const Algorithm& algorithm, Type type) {
  const double ins = static_cast<double>(p.in_channels);
  const double outs = static_cast<double>(p.out_channels);
  const double batch = static_cast<double>(p.batch);
  const double y_size = static_cast<double>(p.out_height() * p.out_width());
  if (algorithm.method == Method::kDirect) {
    const double taps =
        static_cast<double>(p.kernel_height * p.kernel_width) * ins / static_cast<double>(p.groups);
    return kLaunchSeconds + 2 * batch * outs * y_size * taps / kDirectFlops;
  }
  const std::optional<TiledCore> cut = cut_core(p, pass, algorithm, type);
  if (!cut) return INFINITY;
  const fft_conv::Core& core = cut->core;
  const double size = algorithm.size;
  const double tiles = static_cast<double>(core.tiles());
  // Seconds of one real S x S transform, and bytes of what is read and written in any case.
  const double transform = 5 * size * size * std::log2(size) / kTransformFlops;
  const double groups = static_cast<double>(core.groups);
  const double core_ins = groups * static_cast<double>(cut->ins());
  const double core_outs = groups * static_cast<double>(core.outs());
  const double each_bytes = static_cast<double>(type_size(type)) * batch;
  const double x_bytes = each_bytes * ins * static_cast<double>(p.height * p.width);
  const double y_bytes = each_bytes * outs * y_size;
  const double plane_bytes = (x_bytes + y_bytes) / kBytesPerSecond;
  // One fused kernel: memory accesses and transforms overlap, so the slower of them counts.
  if (algorithm.method == Method::kPerChannel) {
    const double each = pass == Pass::kGradientWeight ? 2 * static_cast<double>(cut->ins())
                                                      : 1 + static_cast<double>(cut->ins());
    return kLaunchSeconds + std::max(plane_bytes, tiles * core_outs * each * transform);
  }
  // Three kernels: tiles to spectra, products, spectra to tiles. Spectra are written and read once
  // each.
  const double frequencies = size * size / 2 + 2;
  const bool halves = has_half_spectra(algorithm, type);
  const double number = halves ? 4 : 8;
  const double spectra =
      2 * number * frequencies * tiles * (core_ins + core_outs) / kBytesPerSecond;
  const double products =
      8 * frequencies * tiles * core_ins * core_outs / groups / product_flops(algorithm, type);
  // Halves need the largest number of the input first.
  const double read_bytes = pass == Pass::kForward         ? x_bytes
                            : pass == Pass::kGradientInput ? y_bytes
                                                           : x_bytes + y_bytes;
  const double scales = halves ? 2 * kLaunchSeconds + read_bytes / kBytesPerSecond : 0;
  return 3 * kLaunchSeconds + scales +
         std::max(tiles * (core_ins + core_outs) * transform, plane_bytes + spectra) + products;
}

std::vector<Algorithm> candidates(const Problem& p, Pass pass, Type type) {
  struct Priced {
    Algorithm algorithm;
    double seconds;
  };
  const auto cheaper = [](const Priced& a, const Priced& b) { return a.seconds < b.seconds; };
  std::vector<Priced> all = {{Algorithm{}, predicted_seconds(p, pass, Algorithm{}, type)}};
  // The best of each method: the model compares sizes of one method better than methods.
  const auto consider = [&](Method method, const auto& sizes, bool tf32) {
    std::vector<Priced> priced;
    for (const int size : sizes) {
      const double seconds = predicted_seconds(p, pass, {method, size, tf32}, type);
      if (std::isfinite(seconds)) priced.push_back({{method, size, tf32}, seconds});
    }
    std::sort(priced.begin(), priced.end(), cheaper);
    if (priced.size() > kMaxOfMethod) priced.resize(kMaxOfMethod);
    all.insert(all.end(), priced.begin(), priced.end());
  };
  consider(Method::kPerChannel, PerChannelSizes::kAll, false);
  consider(Method::kDense, DenseSizes::kAll, type == Type::kFloat32 && allow_tf32());
  std::stable_sort(all.begin(), all.end(), cheaper);
  std::vector<Algorithm> algorithms;
  for (const Priced& each : all) algorithms.push_back(each.algorithm);
  return algorithms;
}

Algorithm choose(const Problem& p, Pass pass, Type type, const std::string& wish) {
  const auto fits = [&](const Algorithm& algorithm) {
    return algorithm.method == Method::kDirect || cut_core(p, pass, algorithm, type).has_value();
  };
  if (const char* const forced = std::getenv("GRAPHSCALE_CUDA_ALGORITHM");
      forced && *forced != '\0') {
    const std::optional<Algorithm> algorithm = parse_algorithm(forced);
    if (algorithm && (fits(*algorithm) || fft_conv::is_empty(p))) return *algorithm;
    fail("GRAPHSCALE_CUDA_ALGORITHM is '" + std::string(forced) +
         "', which does not compute this " + "convolution; its algorithms are " +
         join(candidates(p, pass, type)));
  }
  if (const std::optional<Algorithm> algorithm = parse_algorithm(wish);
      algorithm && fits(*algorithm))
    return *algorithm;
  return candidates(p, pass, type).front();
}

}  // namespace graphscale::cuda
