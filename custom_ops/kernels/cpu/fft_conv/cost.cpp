// The cost model: counts of vector operations and bytes times measured seconds each. It ranks
// algorithms; it does not predict how long they take on another machine.
#include "kernels/cpu/fft_conv/cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/fft_conv/direct_layout.h"
#include "kernels/cpu/fft_conv/engine.h"
#include "kernels/cpu/fft_conv/layout.h"
#include "kernels/cpu/fft_conv/winograd_layout.h"

namespace graphscale::fft_conv {
namespace {

// Fitted by least squares to 500 calls on one thread; half of the predictions are within 19 %, nine
// in ten within 60 %.
constexpr double kTransformSeconds = 7.3e-11;  // per vector operation
constexpr double kSquareSeconds = 3.2e-8;
constexpr double kTileSeconds = 1e-7;
constexpr double kProductSeconds = 9.1e-11;
constexpr double kSpectraByteSeconds = 4e-11;
constexpr double kWeightByteSeconds = 2.4e-11;
constexpr double kGradientByteSeconds = 5.6e-11;
constexpr double kSectionSeconds = 3e-6;
// direct*-inl.h, over 1200 calls; half of the predictions are within 15 %.
constexpr double kChannelSeconds = 1.45e-10;  // per multiply-add, channels in the lanes
constexpr double kPixelSeconds = 1.75e-10;    // with pixels in the lanes, for several outputs
constexpr double kOnePixelSeconds = 4.3e-10;  // for one output, and for the gradient to the weights
constexpr double kDepthwiseSeconds = 1.5e-10;  // straight from the image
constexpr double kDepthwiseGradientSeconds = 2.5e-10;
constexpr double kDepthwiseVectorSeconds = 3e-9;  // per vector of outputs, however few its taps
constexpr double kTurnSeconds = 1.9e-8;           // per vector of pixels turned to channels
constexpr double kCopySeconds = 3.1e-9;           // per vector of inputs
constexpr double kUnfoldSeconds = 1e-9;  // per input and tap, where nothing but unfolding is left
// winograd-inl.h, from the times of its parts on one thread.
constexpr double kWinogradProductSeconds = 1.3e-10;  // per multiply-add of vectors
constexpr double kWinogradSumSeconds = 8e-10;  // per vector of sums, each of so many terms at most:
constexpr double kWinogradTerms = 32;
constexpr double kWinogradValueSeconds = 1.15e-9;  // per vector of a tile's values, one way
// Per byte of weights, or of their gradients, that the last-level cache keeps or does not keep.
constexpr double kNearByteSeconds = 2e-11;
constexpr double kFarByteSeconds = 6e-11;
constexpr double kWinogradGatherSeconds = 4e-11;  // per byte of weight gradients, at the end

double fft_operations(double n) { return n > 1 ? 5 * n * std::log2(n) : 0; }

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
    const double taps = static_cast<double>(p.batch * p.in_channels * p.out_height() *
                                            p.out_width() * p.kernel_height * p.kernel_width);
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
  double seconds =
      images * static_cast<double>(d.ins * d.in_height * blocks(d.in_width, lanes)) * kCopySeconds;
  if (d.channel_lanes) {
    const double pixels = rows * static_cast<double>(d.out_width);
    const double sets = static_cast<double>(blocks(d.outs, lanes));
    seconds += pixels * sets * (products * kChannelSeconds + kTurnSeconds / lanes);
  } else {
    seconds += vectors * products * (d.outs == 1 || gradient ? kOnePixelSeconds : kPixelSeconds);
  }
  return seconds / threads + kSectionSeconds;
}

// Squares that a strip's rows are read or written in: `tiles` tiles, each columns apart, of `size`
// columns.
double squares_of(const Core& core, double tiles, int64_t size, int64_t rows, int lanes) {
  const int64_t strip = std::min(strip_tiles(core), core.x.tiles);
  const int64_t columns = (strip - 1) * core.x.tile_outputs + size;
  return tiles / static_cast<double>(strip) * static_cast<double>(rows * blocks(columns, lanes));
}

double winograd_seconds(const Core& core, Pass pass, int lanes, int threads) {
  const double groups = static_cast<double>(core.groups), tiles = static_cast<double>(core.tiles());
  const double values = core.y.tile * core.x.tile, ins = static_cast<double>(core.ins());
  const double in_blocks = static_cast<double>(blocks(core.ins(), lanes));
  const double out_blocks = static_cast<double>(blocks(core.outs(), lanes));
  const double weight_bytes = values * ins * out_blocks * lanes * 4;
  // One block of inputs, and one of outputs, between planes and values.
  const double read = squares_of(core, tiles, core.x.tile, core.y.tile, lanes) * kSquareSeconds +
                      tiles * values * kWinogradValueSeconds;
  const double outputs =
      squares_of(core, tiles, core.x.tile_outputs, core.y.tile_outputs, lanes) * kSquareSeconds +
      tiles * values * kWinogradValueSeconds;
  const double terms =
      ins * kWinogradProductSeconds + std::ceil(ins / kWinogradTerms) * kWinogradSumSeconds;
  const double products = groups * values * tiles * out_blocks * terms / threads;
  const bool far = weight_bytes * groups > kLastLevelBytes;
  const double byte = far ? kFarByteSeconds : kNearByteSeconds;
  if (pass == Pass::kGradientWeight) {
    const WinogradGradientLayout layout(core, lanes);
    const double chunks = std::ceil(tiles / static_cast<double>(layout.chunk));
    // Transforms of both sides, and the sums of all values read and written once per chunk.
    const double shared = in_blocks * read + out_blocks * outputs +
                          weight_bytes * (2 * chunks * byte + kWinogradGatherSeconds);
    return groups * shared / threads + products + groups * (2 * chunks + 1) * kSectionSeconds;
  }
  const WinogradLayout layout(core, lanes, threads);
  const double chunks = static_cast<double>(layout.chunks),
               parts = static_cast<double>(layout.parts);
  const double tasks = static_cast<double>(layout.tasks);
  const double rounds =
      std::ceil(tasks / threads) * threads / tasks;  // some threads wait for the last
  const double transforms = groups * (parts * in_blocks * read + out_blocks * outputs) / threads;
  // The first reading comes from memory: since the last call, other layers have filled the caches.
  const double weights = groups * weight_bytes * (kFarByteSeconds + (chunks - 1) * byte);
  return (transforms + std::max(products, weights)) * rounds + kSectionSeconds;
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
  // Per channel: each set of lanes transforms its inputs anew.
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

double predicted_seconds(const Problem& p, Pass pass, const Algorithm& algorithm, int threads) {
  const int lanes = this_machines_engine().lanes;
  if (algorithm.method == Method::kDirect) return direct_seconds(p, pass, lanes, threads);
  Core core;
  if (!cut_core(p, pass, algorithm, &core)) return std::numeric_limits<double>::infinity();
  if (algorithm.method == Method::kWinograd) return winograd_seconds(core, pass, lanes, threads);
  return seconds(count_work(core, pass, algorithm.method, lanes, threads), threads);
}

}  // namespace graphscale::fft_conv
