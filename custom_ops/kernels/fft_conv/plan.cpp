#include "kernels/fft_conv/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/fft_conv/direct_layout.h"
#include "kernels/fft_conv/engine.h"
#include "kernels/fft_conv/layout.h"
#include "kernels/operator.h"

namespace graphscale::fft_conv {
namespace {

// Least squares over 500 calls on one thread; half of them are met within 19 %, nine in ten within 60 %.
constexpr double kTransformSeconds = 7.3e-11;  // per vector operation
constexpr double kSquareSeconds = 3.2e-8;
constexpr double kTileSeconds = 1e-7;
constexpr double kProductSeconds = 9.1e-11;
constexpr double kSpectraByteSeconds = 4e-11;
constexpr double kWeightByteSeconds = 2.4e-11;
constexpr double kGradientByteSeconds = 5.6e-11;
constexpr double kSectionSeconds = 3e-6;
// direct*.h, over 1200 calls: half of them are met within 15 %.
constexpr double kChannelSeconds = 1.45e-10;  // per multiply-add of vectors with channels in the lanes
constexpr double kPixelSeconds = 1.75e-10;    // with pixels in the lanes, for several outputs
constexpr double kOnePixelSeconds = 4.3e-10;  // for one output, and for the gradient to the weights
constexpr double kDepthwiseSeconds = 1.5e-10; // straight from the image
constexpr double kDepthwiseGradientSeconds = 2.5e-10;
constexpr double kDepthwiseVectorSeconds = 3e-9;  // per vector of outputs, however few its taps
constexpr double kTurnSeconds = 1.9e-8;       // per vector of pixels turned to channels
constexpr double kCopySeconds = 3.1e-9;       // per vector of inputs
constexpr double kUnfoldSeconds = 1e-9;       // per input and tap, where nothing but unfolding is left

constexpr double kMargin = 1.1;        // how much cheaper than direct a plan must look
constexpr double kMemoryFactor = 4;
constexpr double kFreeBytes = 4 << 20; // small problems may always take this much more
constexpr double kWorthAnyMemory = 30; // how much faster than direct a plan is that may take more
constexpr size_t kMostRemembered = 4096;
constexpr size_t kMostCandidates = 8;

double fft_operations(double n) { return n > 1 ? 5 * n * std::log2(n) : 0; }

const char* method_name(Method method) {
  return method == Method::kDense ? "dense" : "per_channel";
}

// `count` transforms of sets of tiles, of which `rows` x `columns` values are read or written.
void add_transforms(const Core& core, int lanes, double count, int64_t rows, int64_t columns,
                    Work* work) {
  const int64_t used = std::min<int64_t>(rows, core.y.tile);
  work->transforms += count * (static_cast<double>((used + 1) / 2) * fft_operations(core.x.tile) +
                               static_cast<double>(core.columns()) * fft_operations(core.y.tile));
  if (core.x.tile > kMaxFft) {  // half of that by the packing of real values, but out of the caches
    work->transforms += count * fft_operations(core.x.tile);
  }
  work->squares += count * static_cast<double>(used * blocks(columns, lanes));
  work->tiles += count;
}

// The direct convolution, as fft_conv.cpp of the operators computes it.
double direct_seconds(const Problem& p, Pass pass, int lanes, int threads) {
  if (is_empty(p)) return 0;
  if (!direct_computes(p, pass)) {
    const double taps = static_cast<double>(p.batch * p.in_channels * p.out_height() * p.out_width() *
                                            p.kernel_height * p.kernel_width);
    const double outs = static_cast<double>(blocks(p.out_channels / p.groups, lanes));
    return taps * (outs * kChannelSeconds + kUnfoldSeconds) / threads + kSectionSeconds;
  }
  const DirectLayout d(p, pass, lanes, threads);
  const double images = static_cast<double>(d.batch * d.groups);
  const double products = static_cast<double>(d.ins * d.kernel_height * d.kernel_width);
  const double rows = images * static_cast<double>(d.out_height);
  const double vectors = rows * static_cast<double>(blocks(d.out_width, lanes) * d.outs);
  const bool gradient = pass == Pass::kGradientWeight;
  if (d.depthwise) {
    const double product = gradient ? kDepthwiseGradientSeconds : kDepthwiseSeconds;
    return vectors * (products * product + kDepthwiseVectorSeconds) / threads + kSectionSeconds;
  }
  double seconds = images * static_cast<double>(d.ins * d.in_height * blocks(d.in_width, lanes)) *
                   kCopySeconds;
  if (d.channel_lanes) {
    const double pixels = rows * static_cast<double>(d.out_width);
    const double sets = static_cast<double>(blocks(d.outs, lanes));
    seconds += pixels * sets * (products * kChannelSeconds + kTurnSeconds / lanes);
  } else {
    seconds += vectors * products * (d.outs == 1 || gradient ? kOnePixelSeconds : kPixelSeconds);
  }
  return seconds / threads + kSectionSeconds;
}

// Whether tensors, prepared weights and scratch stay within kMemoryFactor times what a direct
// convolution holds (it keeps a second copy of the weights in its own order).
bool fits_memory(const Problem& p, Pass pass, const Plan& plan, int threads) {
  const double x = static_cast<double>(p.batch * p.in_channels * p.height * p.width);
  const double y = static_cast<double>(p.batch * p.out_channels * p.out_height() * p.out_width());
  const double w = static_cast<double>(p.out_channels * (p.in_channels / p.groups) * p.kernel_height *
                                       p.kernel_width);
  const double spectra = static_cast<double>(prepared_bytes(p, pass, plan)) +
                         static_cast<double>(scratch_bytes(p, pass, plan, threads));
  return 4 * (x + y + w) + spectra <= kMemoryFactor * 4 * (x + y + 2 * w) + kFreeBytes;
}

}  // namespace

Work count_work(const Core& core, Pass pass, Method method, int lanes, int threads) {
  Work work;
  const double tiles = static_cast<double>(core.tiles()), ins = static_cast<double>(core.ins());
  const int64_t in_rows = std::min<int64_t>(core.y.tile, core.y.in.extent / core.y.in.step + 1);
  const double pair = 8.0 * lanes;  // bytes of a complex vector
  const auto add_inputs = [&](double count) {
    add_transforms(core, lanes, count, in_rows, core.x.tile, &work);
  };
  const auto add_outputs = [&](double count) {
    add_transforms(core, lanes, count, core.y.tile_outputs, core.x.tile_outputs, &work);
  };
  const auto add_kernels = [&](double count) {
    add_transforms(core, lanes, count, core.y.kernel, core.x.kernel, &work);
  };
  if (method == Method::kPerChannel) {
    const double sets = static_cast<double>(blocks(core.groups * core.outs(), lanes));
    const double frequencies = static_cast<double>(core.columns() * core.y.tile);
    add_inputs(sets * tiles * ins);
    work.products = 8 * sets * tiles * ins * frequencies;
    if (pass == Pass::kGradientWeight) {
      add_outputs(sets * tiles * ins);
      add_kernels(sets * ins);
      const int64_t parts = correlation_parts(core, static_cast<int64_t>(sets * ins), threads);
      work.gradient_bytes = 2 * static_cast<double>(parts) * sets * ins * frequencies * pair;
      work.sections = 2;
    } else {
      add_outputs(sets * tiles);
      work.weight_bytes = sets * ins * frequencies * pair;
      work.sections = 1;
    }
    return work;
  }
  const double groups = static_cast<double>(core.groups);
  const double frequencies = static_cast<double>(core.frequencies());
  const double in_blocks = static_cast<double>(blocks(core.ins(), lanes));
  const double out_blocks = static_cast<double>(blocks(core.outs(), lanes));
  double parts = 1;
  work.products = 8 * groups * tiles * ins * out_blocks * frequencies;
  if (pass == Pass::kGradientWeight) {
    const GradientLayout layout(core, lanes);
    const double chunks = std::ceil(tiles / static_cast<double>(layout.chunk));
    parts = std::ceil(out_blocks / static_cast<double>(layout.out_blocks));
    add_kernels(groups * ins * out_blocks);
    work.gradient_bytes = 2 * groups * chunks * frequencies * ins * out_blocks * pair;
    work.sections = groups * parts * (3 * chunks + 1);
  } else {
    const DenseLayout layout(core, lanes);
    const double chunks = std::ceil(tiles / static_cast<double>(layout.chunk));
    work.weight_bytes = groups * chunks * static_cast<double>(layout.weights) * 4;
    work.sections = 3 * groups * chunks;
  }
  add_inputs(groups * parts * tiles * in_blocks);
  add_outputs(groups * tiles * out_blocks);
  work.spectra_bytes = 2 * groups * tiles * frequencies * (parts * in_blocks + out_blocks) * pair;
  return work;
}

double seconds(const Work& w, int threads) {
  const double shared = w.transforms * kTransformSeconds + w.squares * kSquareSeconds +
                        w.tiles * kTileSeconds + w.products * kProductSeconds +
                        w.spectra_bytes * kSpectraByteSeconds +
                        w.gradient_bytes * kGradientByteSeconds;
  return shared / threads + w.weight_bytes * kWeightByteSeconds + w.sections * kSectionSeconds;
}

std::string to_string(const Plan& plan) {
  if (plan.method == Method::kDirect) return "direct";
  return std::string(method_name(plan.method)) + " " + std::to_string(plan.tile_height) + "x" +
         std::to_string(plan.tile_width);
}

std::optional<Plan> parse_plan(const std::string& text) {
  if (text == "direct") return Plan{};
  for (const Method method : {Method::kDense, Method::kPerChannel}) {
    const std::string name = method_name(method);
    Plan plan{method, 0, 0};
    int end = 0;
    if (text.compare(0, name.size(), name) == 0 &&
        std::sscanf(text.c_str() + name.size(), " %9dx%9d%n", &plan.tile_height, &plan.tile_width,
                    &end) == 2 &&
        name.size() + static_cast<size_t>(end) == text.size()) {
      return plan;
    }
  }
  return std::nullopt;
}

size_t scratch_bytes(const Problem& p, Pass pass, const Plan& plan, int threads) {
  const int lanes = this_machines_engine().lanes;
  if (plan.method == Method::kDirect) {
    if (is_empty(p) || !direct_computes(p, pass)) return 0;
    const DirectLayout layout(p, pass, lanes, threads);
    return static_cast<size_t>(threads * layout.worker_floats(pass, lanes)) * 4;
  }
  Core core;
  if (!cut_core(p, pass, plan, &core)) return 0;
  return static_cast<size_t>(scratch_floats(core, pass, plan.method, lanes, threads)) * 4;
}

double predicted_seconds(const Problem& p, Pass pass, const Plan& plan, int threads) {
  const int lanes = this_machines_engine().lanes;
  if (plan.method == Method::kDirect) return direct_seconds(p, pass, lanes, threads);
  Core core;
  if (!cut_core(p, pass, plan, &core)) return std::numeric_limits<double>::infinity();
  return seconds(count_work(core, pass, plan.method, lanes, threads), threads);
}

std::vector<Plan> candidates(const Problem& p, Pass pass, int threads) {
  struct Priced {
    Plan plan;
    double seconds;
  };
  // A tie goes to direct: the model is no better than that.
  const double direct = predicted_seconds(p, pass, Plan{}, threads);
  std::vector<Priced> all = {{Plan{}, direct / kMargin}};
  if (!is_empty(p)) {
    std::vector<Priced> priced;
    for (const Method method : {Method::kDense, Method::kPerChannel}) {
      for (const int height : fft_sizes()) {
        for (const int width : fft_sizes()) {
          const Plan plan{method, height, width};
          if (!supports(p, pass, plan)) continue;
          const double cost = predicted_seconds(p, pass, plan, threads);
          if (cost * kWorthAnyMemory > direct && !fits_memory(p, pass, plan, threads)) continue;
          priced.push_back({plan, cost});
        }
      }
    }
    const auto cheaper = [](const Priced& a, const Priced& b) { return a.seconds < b.seconds; };
    std::sort(priced.begin(), priced.end(), cheaper);
    if (priced.size() > kMostCandidates) priced.resize(kMostCandidates);
    all.insert(all.end(), priced.begin(), priced.end());
    std::stable_sort(all.begin(), all.end(), cheaper);
  }
  std::vector<Plan> plans;
  for (const Priced& each : all) plans.push_back(each.plan);
  return plans;
}

Plan choose(const Problem& p, Pass pass, int threads) {
  // Pricing some thousand plans takes a few tenths of a millisecond: once per problem, not per call.
  using Key = std::array<int64_t, 18>;
  static std::mutex mutex;
  static std::map<Key, Plan> chosen;
  const Key key = {p.batch, p.in_channels, p.out_channels, p.groups, p.height, p.width,
                   p.kernel_height, p.kernel_width, p.stride_y, p.stride_x, p.dilation_y,
                   p.dilation_x, p.pad_top, p.pad_left, p.pad_bottom, p.pad_right,
                   static_cast<int64_t>(pass), threads};
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto known = chosen.find(key); known != chosen.end()) return known->second;
  if (chosen.size() >= kMostRemembered) chosen.clear();  // shapes that never come back
  return chosen[key] = candidates(p, pass, threads).front();
}

}  // namespace graphscale::fft_conv
