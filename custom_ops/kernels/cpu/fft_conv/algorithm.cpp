// The names of algorithms, and the choice among them: every method and tile size that computes a
// pass is priced by the cost model (cost.h).
#include "kernels/cpu/fft_conv/fft_conv.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/fork.h"
#include "kernels/cpu/fft_conv/direct_layout.h"
#include "kernels/cpu/fft_conv/engine.h"
#include "kernels/cpu/fft_conv/layout.h"

namespace graphscale::fft_conv {
namespace {

constexpr double kMargin =
    1.1;  // an algorithm must be so many times cheaper than direct, by the model
constexpr double kMemoryFactor = 4;
constexpr double kFreeBytes =
    4 << 20;  // any problem may take this much more memory than a direct convolution
constexpr double kWorthAnyMemory =
    30;  // how much faster than direct an algorithm is that may take more
constexpr size_t kMaxRemembered = 4096;
constexpr size_t kMaxCandidates = 5;

const char* method_name(Method method) {
  switch (method) {
    case Method::kWinograd: return "winograd";
    case Method::kDense: return "dense";
    default: return "per_channel";
  }
}

// Whether tensors, prepacked weights and scratch stay within kMemoryFactor times what a direct
// convolution holds (it keeps a second copy of the weights in its own order).
bool fits_memory(const Problem& p, Pass pass, const Algorithm& algorithm, int threads) {
  const double x = static_cast<double>(p.batch * p.in_channels * p.height * p.width);
  const double y = static_cast<double>(p.batch * p.out_channels * p.out_height() * p.out_width());
  const double w = static_cast<double>(p.out_channels * (p.in_channels / p.groups) *
                                       p.kernel_height * p.kernel_width);
  const double spectra = static_cast<double>(prepacked_bytes(p, pass, algorithm)) +
                         static_cast<double>(scratch_bytes(p, pass, algorithm, threads));
  return 4 * (x + y + w) + spectra <= kMemoryFactor * 4 * (x + y + 2 * w) + kFreeBytes;
}

}  // namespace

std::string to_string(const Algorithm& algorithm) {
  if (algorithm.method == Method::kDirect) return "direct";
  return std::string(method_name(algorithm.method)) + " " + std::to_string(algorithm.tile_height) +
         "x" + std::to_string(algorithm.tile_width);
}

std::optional<Algorithm> parse_algorithm(const std::string& text) {
  if (text == "direct") return Algorithm{};
  for (const Method method : {Method::kWinograd, Method::kDense, Method::kPerChannel}) {
    const std::string name = method_name(method);
    Algorithm algorithm{method, 0, 0};
    int end = 0;
    if (text.compare(0, name.size(), name) == 0 &&
        std::sscanf(text.c_str() + name.size(), " %9dx%9d%n", &algorithm.tile_height,
                    &algorithm.tile_width, &end) == 2 &&
        name.size() + static_cast<size_t>(end) == text.size()) {
      return algorithm;
    }
  }
  return std::nullopt;
}

size_t scratch_bytes(const Problem& p, Pass pass, const Algorithm& algorithm, int threads) {
  const int lanes = this_machines_engine().lanes;
  if (algorithm.method == Method::kDirect) {
    if (is_empty(p) || !direct_computes(p, pass)) return 0;
    const DirectLayout layout(p, pass, lanes, threads);
    return static_cast<size_t>(threads * layout.worker_floats(pass, lanes)) * 4;
  }
  Core core;
  if (!cut_core(p, pass, algorithm, &core)) return 0;
  return static_cast<size_t>(scratch_floats(core, pass, algorithm.method, lanes, threads)) * 4;
}

std::vector<Algorithm> candidates(const Problem& p, Pass pass, int threads) {
  struct Priced {
    Algorithm algorithm;
    double seconds;
  };
  // A tie goes to direct, since the model is not more accurate than kMargin.
  const double direct = predicted_seconds(p, pass, Algorithm{}, threads);
  std::vector<Priced> all = {{Algorithm{}, direct / kMargin}};
  if (!is_empty(p)) {
    std::vector<Priced> priced;
    // Every size of tile that computes this pass is priced; what takes much more memory than a
    // direct convolution must be very much faster.
    const auto consider = [&](Method method, const std::vector<int>& sizes) {
      for (const int height : sizes) {
        for (const int width : sizes) {
          const Algorithm algorithm{method, height, width};
          if (!supports(p, pass, algorithm)) continue;
          const double cost = predicted_seconds(p, pass, algorithm, threads);
          if (cost * kWorthAnyMemory > direct && !fits_memory(p, pass, algorithm, threads))
            continue;
          priced.push_back({algorithm, cost});
        }
      }
    };
    consider(Method::kWinograd, winograd_sizes());
    consider(Method::kDense, fft_sizes());
    consider(Method::kPerChannel, fft_sizes());
    const auto cheaper = [](const Priced& a, const Priced& b) { return a.seconds < b.seconds; };
    // The kMaxCandidates cheapest ones, and direct among them where its cost puts it.
    std::sort(priced.begin(), priced.end(), cheaper);
    if (priced.size() > kMaxCandidates) priced.resize(kMaxCandidates);
    all.insert(all.end(), priced.begin(), priced.end());
    std::stable_sort(all.begin(), all.end(), cheaper);
  }
  std::vector<Algorithm> algorithms;
  for (const Priced& each : all) algorithms.push_back(each.algorithm);
  return algorithms;
}

namespace {

// The choices that were made, by problem, pass and number of threads.
using Key = std::array<int64_t, 18>;
std::mutex mutex;
std::map<Key, Algorithm>& chosen = *new std::map<Key, Algorithm>;  // never destroyed

void lock_for_fork() {
  fft_sizes();  // both lists are made at their first use
  winograd_sizes();
  mutex.lock();
}

[[maybe_unused]] const bool forks =
    at_fork(ForkOrder::kInnermost, lock_for_fork, [] { mutex.unlock(); });

}  // namespace

Algorithm choose(const Problem& p, Pass pass, int threads) {
  // Pricing some thousand algorithms takes a few tenths of a millisecond: once per problem, not per
  // call.
  const Key key = {p.batch,
                   p.in_channels,
                   p.out_channels,
                   p.groups,
                   p.height,
                   p.width,
                   p.kernel_height,
                   p.kernel_width,
                   p.stride_y,
                   p.stride_x,
                   p.dilation_y,
                   p.dilation_x,
                   p.pad_top,
                   p.pad_left,
                   p.pad_bottom,
                   p.pad_right,
                   static_cast<int64_t>(pass),
                   threads};
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto known = chosen.find(key); known != chosen.end()) return known->second;
  if (chosen.size() >= kMaxRemembered) chosen.clear();  // many shapes, which may not come back
  return chosen[key] = candidates(p, pass, threads).front();
}

}  // namespace graphscale::fft_conv
