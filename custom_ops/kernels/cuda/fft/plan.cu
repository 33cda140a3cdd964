#include "kernels/cuda/fft/plan.h"

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
constexpr double kTransformFlops = 25e12;       // counted as 5 n log2 n
constexpr double kProductFlops = 180e12;        // of tensor cores, tf32
constexpr double kSplitProductFlops = 60e12;    // three tf32 products for one
constexpr double kHalfProductFlops = 360e12;
constexpr double kDirectFlops = 2e12;           // of the direct kernels here
constexpr double kLaunchSeconds = 4e-6;
constexpr size_t kMostOfMethod = 4;  // candidates
constexpr int64_t kMostPositions = int64_t{1} << 30;  // positions and tiles are counted in int
constexpr int kMostSummed = 64;  // inputs of an output that per_channel transforms again and again

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Shared memory that a block can have.
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
  return kMostSharedBytes;
#endif
}

// The most that the kernels of a plan take, with all columns.
int64_t shared_bytes(const TiledCore& c, Pass pass, const Plan& plan, Type type) {
  const int64_t spectrum = int64_t{4} * plan.size * plan.size;
  const int64_t tile = spectrum + 8 * plan.size + 128;
  if (plan.method == Method::kPerChannel && pass == Pass::kGradientWeight) {
    const int64_t sums = summed_tiles_per_block(plan.size) * (tile + 2 * spectrum);
    return std::max(sums, tiles_per_block(plan.size) * tile);
  }
  if (plan.method == Method::kDense) {
    return dense_tiles_per_block(plan.size, has_half_spectra(plan, type)) * tile;
  }
  const bool added_up = c.ins() > 1;
  return tiles_per_block(plan.size) * (tile + (added_up ? spectrum : 0));
}

bool is_line(const fft_conv::Axis& y) {
  return y.kernel == 1 && y.outputs == 1 && y.in.extent == 1 && y.out.extent == 1 &&
         y.batch_phases == 1 && y.in_phases == 1 && y.out_phases == 1;
}

void fold(TiledCore& c, int size) {
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

bool known_size(const Plan& plan) {
  const auto among = [&](const auto& sizes) {
    return std::find(std::begin(sizes), std::end(sizes), plan.size) != std::end(sizes);
  };
  switch (plan.method) {
    case Method::kDirect: return true;
    case Method::kPerChannel: return among(PerChannelSizes::kAll);
    default: return among(DenseSizes::kAll);
  }
}

std::string join(const std::vector<Plan>& plans) {
  std::string text;
  for (const Plan& plan : plans) text += (text.empty() ? "" : ", ") + to_string(plan);
  return text;
}

double product_flops(const Plan& plan, Type type) {
  if (has_half_spectra(plan, type)) return kHalfProductFlops;
  return plan.tf32 || type != Type::kFloat32 ? kProductFlops : kSplitProductFlops;
}

// tf32 is a choice where it is not all there is.
bool has_tf32(Type type) { return type == Type::kFloat32 || type == Type::kBFloat16; }

}  // namespace

std::string to_string(const Plan& plan) {
  if (plan.method == Method::kDirect) return "direct";
  const std::string side = std::to_string(plan.size);
  return (plan.method == Method::kDense ? "dense " : "per_channel ") + side + "x" + side +
         (plan.tf32 ? " tf32" : "");
}

std::optional<Plan> parse_plan(const std::string& text) {
  std::vector<Plan> plans = {Plan{}};
  for (const int size : PerChannelSizes::kAll) plans.push_back({Method::kPerChannel, size, false});
  for (const int size : DenseSizes::kAll) {
    plans.push_back({Method::kDense, size, false});
    plans.push_back({Method::kDense, size, true});
  }
  for (const Plan& plan : plans) {
    if (to_string(plan) == text) return plan;
  }
  return std::nullopt;
}

bool has_half_spectra(const Plan& plan, Type type) {
  return plan.method == Method::kDense && type == Type::kBFloat16 && !plan.tf32;
}

std::optional<TiledCore> cut_core(const Problem& p, Pass pass, const Plan& plan, Type type) {
  if (plan.method == Method::kDirect || !known_size(plan) || type == Type::kFloat64 ||
      fft_conv::is_empty(p) || (plan.tf32 && !has_tf32(type))) {
    return std::nullopt;
  }
  const int64_t width = p.width + p.pad_left + p.pad_right;
  for (const int64_t size : {p.height + p.pad_top + p.pad_bottom, width,
                             p.kernel_height * p.dilation_y, p.kernel_width * p.dilation_x,
                             std::max(p.stride_y, p.dilation_y) * width}) {
    if (size > kMostPositions) return std::nullopt;
  }
  TiledCore c;
  c.core = fft_conv::make_core(p, pass);
  if (is_line(c.core.y)) {
    fold(c, plan.size);
  } else if (!fft_conv::cut(c.core.y, plan.size) || !fft_conv::cut(c.core.x, plan.size)) {
    return std::nullopt;
  }
  const int64_t ins = c.ins();
  const int64_t kernels = c.core.groups * c.core.outs() * ins;
  if (c.core.tiles() > kMostPositions || kernels > kMostPositions) return std::nullopt;
  if (plan.method == Method::kPerChannel && ins > kMostSummed) return std::nullopt;
  if (shared_bytes(c, pass, plan, type) > shared_limit()) return std::nullopt;
  return c;
}

double predicted_seconds(const Problem& p, Pass pass, const Plan& plan, Type type) {
  const double ins = static_cast<double>(p.in_channels);
  const double outs = static_cast<double>(p.out_channels);
  const double batch = static_cast<double>(p.batch);
  const double y_size = static_cast<double>(p.out_height() * p.out_width());
  if (plan.method == Method::kDirect) {
    const double taps = static_cast<double>(p.kernel_height * p.kernel_width) * ins /
                        static_cast<double>(p.groups);
    return kLaunchSeconds + 2 * batch * outs * y_size * taps / kDirectFlops;
  }
  const std::optional<TiledCore> cut = cut_core(p, pass, plan, type);
  if (!cut) return INFINITY;
  const fft_conv::Core& core = cut->core;
  const double size = plan.size;
  const double tiles = static_cast<double>(core.tiles());
  const double transform = 5 * size * size * std::log2(size) / kTransformFlops;
  const double groups = static_cast<double>(core.groups);
  const double core_ins = groups * static_cast<double>(cut->ins());
  const double core_outs = groups * static_cast<double>(core.outs());
  const double each_bytes = static_cast<double>(type_size(type)) * batch;
  const double x_bytes = each_bytes * ins * static_cast<double>(p.height * p.width);
  const double y_bytes = each_bytes * outs * y_size;
  const double plane_bytes = (x_bytes + y_bytes) / kBytesPerSecond;
  if (plan.method == Method::kPerChannel) {
    const double each = pass == Pass::kGradientWeight
                            ? 2 * static_cast<double>(cut->ins())
                            : 1 + static_cast<double>(cut->ins());
    return kLaunchSeconds + std::max(plane_bytes, tiles * core_outs * each * transform);
  }
  const double frequencies = size * size / 2 + 2;
  const bool halves = has_half_spectra(plan, type);
  const double number = halves ? 4 : 8;
  const double spectra =
      2 * number * frequencies * tiles * (core_ins + core_outs) / kBytesPerSecond;
  const double products =
      8 * frequencies * tiles * core_ins * core_outs / groups / product_flops(plan, type);
  // Halves need the largest number of what is read first.
  const double read_bytes = pass == Pass::kForward         ? x_bytes
                            : pass == Pass::kGradientInput ? y_bytes
                                                           : x_bytes + y_bytes;
  const double scales = halves ? 2 * kLaunchSeconds + read_bytes / kBytesPerSecond : 0;
  return 3 * kLaunchSeconds + scales +
         std::max(tiles * (core_ins + core_outs) * transform, plane_bytes + spectra) + products;
}

std::vector<Plan> candidates(const Problem& p, Pass pass, Type type) {
  struct Priced {
    Plan plan;
    double seconds;
  };
  const auto cheaper = [](const Priced& a, const Priced& b) { return a.seconds < b.seconds; };
  std::vector<Priced> all = {{Plan{}, predicted_seconds(p, pass, Plan{}, type)}};
  // The best of each method: the model is surer of sizes than of methods.
  const auto consider = [&](Method method, const auto& sizes, bool tf32) {
    std::vector<Priced> priced;
    for (const int size : sizes) {
      const double seconds = predicted_seconds(p, pass, {method, size, tf32}, type);
      if (std::isfinite(seconds)) priced.push_back({{method, size, tf32}, seconds});
    }
    std::sort(priced.begin(), priced.end(), cheaper);
    if (priced.size() > kMostOfMethod) priced.resize(kMostOfMethod);
    all.insert(all.end(), priced.begin(), priced.end());
  };
  consider(Method::kPerChannel, PerChannelSizes::kAll, false);
  consider(Method::kDense, DenseSizes::kAll, type == Type::kFloat32 && allow_tf32());
  std::stable_sort(all.begin(), all.end(), cheaper);
  std::vector<Plan> plans;
  for (const Priced& each : all) plans.push_back(each.plan);
  return plans;
}

Plan choose(const Problem& p, Pass pass, Type type, const std::string& wish) {
  const auto fits = [&](const Plan& plan) {
    return plan.method == Method::kDirect || cut_core(p, pass, plan, type).has_value();
  };
  if (const char* const forced = std::getenv("GRAPHSCALE_CUDA_PLAN"); forced && *forced != '\0') {
    const std::optional<Plan> plan = parse_plan(forced);
    if (plan && (fits(*plan) || fft_conv::is_empty(p))) return *plan;
    fail("GRAPHSCALE_CUDA_PLAN is '" + std::string(forced) + "', which does not compute this " +
         "convolution; its plans are " + join(candidates(p, pass, type)));
  }
  if (const std::optional<Plan> plan = parse_plan(wish); plan && fits(*plan)) return *plan;
  return candidates(p, pass, type).front();
}

}  // namespace graphscale::cuda
