// Sizes of spectra and of scratch memory, from the cache sizes of common processors.
#include "kernels/cpu/fft_conv/layout.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <vector>

#include "core/fork.h"
#include "kernels/cpu/fft_conv/winograd_layout.h"

namespace graphscale::fft_conv {
namespace {

// Room for the dense method's activation spectra: enough tiles for each weight that is read to
// meet, few enough for the last-level cache of a small machine. Measured: 8 to 16 MiB are alike, 6
// and 24 slower.
constexpr int64_t kSpectraBytes = 12 << 20;
// Of the spectra of weight gradients; measured likewise.
constexpr int64_t kGradientBytes = 16 << 20;
constexpr int64_t kMinTiles = 4;

// Floats between frequencies: an odd number of vector pairs, so that the strided stores of the
// transforms do not fall into the same sets of the caches.
int64_t frequency_pitch(int64_t pairs, int lanes) { return (pairs | 1) * 2 * lanes; }

int64_t tiles_at_a_time(const Core& core, int64_t blocks, int lanes) {
  const int64_t per_tile = core.frequencies() * blocks * 2 * lanes * 4;
  return even_share(core.tiles(), std::max(kSpectraBytes / per_tile, kMinTiles));
}

}  // namespace

int64_t blocks(int64_t channels, int lanes) { return (channels + lanes - 1) / lanes; }

int64_t even_share(int64_t count, int64_t limit) {
  const int64_t pieces = std::max<int64_t>((count + limit - 1) / limit, 1);
  return (count + pieces - 1) / pieces;
}

DenseLayout::DenseLayout(const Core& core, int lanes)
    : in_blocks(blocks(core.ins(), lanes)),
      out_blocks(blocks(core.outs(), lanes)),
      chunk(tiles_at_a_time(core, in_blocks + out_blocks, lanes)),
      in_pitch(frequency_pitch(chunk * in_blocks, lanes)),
      out_pitch(frequency_pitch(chunk * out_blocks, lanes)),
      weight_pitch(out_blocks * core.ins() * 2 * lanes),
      weights(core.frequencies() * weight_pitch) {}

GradientLayout::GradientLayout(const Core& core, int lanes) : in_blocks(blocks(core.ins(), lanes)) {
  const int64_t per_block = core.frequencies() * core.ins() * 2 * lanes * 4;
  out_blocks =
      even_share(blocks(core.outs(), lanes), std::max<int64_t>(kGradientBytes / per_block, 1));
  chunk = tiles_at_a_time(core, in_blocks + out_blocks, lanes);
  in_pitch = frequency_pitch(chunk * in_blocks, lanes);
  out_pitch = frequency_pitch(chunk * out_blocks, lanes);
  weight_pitch = frequency_pitch(out_blocks * core.ins(), lanes);
}

int64_t correlation_parts(const Core& core, int64_t sets, int64_t threads) {
  return std::min((threads + sets - 1) / sets, core.tiles());
}

int long_fft_factor(int size) {
  int factor = 16;
  while (factor * factor < size / 2) factor *= 2;
  return factor;
}

namespace {

std::mutex mutex;
std::map<int, std::vector<float>>& tables =
    *new std::map<int, std::vector<float>>;  // never destroyed
[[maybe_unused]] const bool forks =
    at_fork(ForkOrder::kInnermost, [] { mutex.lock(); }, [] { mutex.unlock(); });

}  // namespace

const float* turns(int size) {
  const std::lock_guard<std::mutex> lock(mutex);
  std::vector<float>& table = tables[size];
  if (table.empty()) {
    // In double precision; rounded to float once.
    const double turn = 2 * std::acos(-1.0) / size;
    for (int k = 0; k < size; ++k) {
      table.push_back(static_cast<float>(std::cos(turn * k)));
      table.push_back(static_cast<float>(std::sin(turn * k)));
    }
  }
  return table.data();
}

int64_t tile_floats(const Core& core, int lanes) {
  const int64_t long_row = core.x.tile > kMaxFft ? core.x.tile / 2 : 0;
  return ((core.y.tile + 1) * core.columns() + 2 * kMaxFft + lanes + long_row) * 2 * lanes;
}

int64_t prepacked_floats(const Core& core, Method method, int lanes) {
  if (method == Method::kDense) return core.groups * DenseLayout(core, lanes).weights;
  if (method == Method::kWinograd) return core.groups * WinogradLayout(core, lanes, 1).weights;
  return blocks(core.groups * core.outs(), lanes) * core.ins() * core.columns() * core.y.tile * 2 *
         lanes;
}

int64_t scratch_floats(const Core& core, Pass pass, Method method, int lanes, int64_t threads) {
  if (method == Method::kWinograd) return winograd_scratch_floats(core, pass, lanes, threads);
  const int64_t tile = tile_floats(core, lanes);
  const int64_t spectrum = core.columns() * core.y.tile * 2 * lanes;
  if (method == Method::kDense && pass == Pass::kGradientWeight) {
    const GradientLayout layout(core, lanes);
    return threads * tile +
           core.frequencies() * (layout.in_pitch + layout.out_pitch + layout.weight_pitch);
  }
  if (method == Method::kDense) {
    const DenseLayout layout(core, lanes);
    return threads * tile + core.frequencies() * (layout.in_pitch + layout.out_pitch);
  }
  if (pass == Pass::kGradientWeight) {
    const int64_t sets = blocks(core.groups * core.outs(), lanes) * core.ins();
    return threads * 2 * tile + sets * correlation_parts(core, sets, threads) * spectrum;
  }
  return threads * (tile + (core.ins() > 1 ? spectrum : 0));
}

}  // namespace graphscale::fft_conv
