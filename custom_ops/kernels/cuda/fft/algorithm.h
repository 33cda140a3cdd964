// How a pass of a convolution is computed on CUDA: the method, the size of its tiles and the
// precision of its products, chosen by counting bytes and operations. Host code without CUDA.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/tensor.h"
#include "kernels/cpu/fft_conv/geometry.h"

namespace graphscale::cuda {

using fft_conv::Method;
using fft_conv::Pass;
using fft_conv::Problem;

struct Algorithm {
  Method method = Method::kDirect;
  int size = 0;       // of a tile's sides
  bool tf32 = false;  // dense: float32 spectra, products of single tf32 numbers

  bool operator<(const Algorithm& other) const {
    if (method != other.method) return method < other.method;
    return size != other.size ? size < other.size : tf32 < other.tf32;
  }
  bool operator==(const Algorithm& other) const { return !(*this < other) && !(other < *this); }
};

// "direct", "dense 32x32", "dense 32x32 tf32", "per_channel 64x64"; parse_algorithm() accepts these
// texts and returns nullopt for others.
std::string to_string(const Algorithm& algorithm);
std::optional<Algorithm> parse_algorithm(const std::string& text);

// The tile sizes that have kernels.
template <int... kSizes>
struct Sizes {
  static constexpr int kAll[sizeof...(kSizes)] = {kSizes...};

  // Calls function(std::integral_constant<int, S>()) with an algorithm's size S.
  template <typename F>
  static void choose(int size, const F& function) {
    ((size == kSizes ? function(std::integral_constant<int, kSizes>()) : void()), ...);
  }
};
using PerChannelSizes = Sizes<16, 24, 32, 40, 48, 64, 72, 84, 96>;
using DenseSizes = Sizes<16, 24, 32, 40, 48, 64>;

// Tiles of one block: 72 to 160 threads.
constexpr int tiles_per_block(int size) {
  if (size <= 40) return size <= 16 ? 16 : 8;
  return size <= 72 ? 4 : size == 84 ? 3 : 2;
}
// A block of the dense method writes the numbers of its tiles side by side: at least 32 bytes.
constexpr int dense_tiles_per_block(int size, bool halves) {
  const int tiles = tiles_per_block(size);
  return halves && tiles < 8 ? 8 : tiles;
}
// The gradient to the weight keeps two spectra in shared memory beside its tiles.
constexpr int summed_tiles_per_block(int size) { return size < 72 ? tiles_per_block(size) / 2 : 1; }

// The core of a pass cut into tiles. Lines (images of height 1) are folded: with B = S / 2, core
// position B r + c is row r, column c, for c in [0, 2 B) of what is read and in [0, B) of kernels
// and results. Kernels of too many rows are `parts` kernels of core.y.kernel rows, added up.
struct TiledCore {
  fft_conv::Core core;
  int fold = 0;   // B; 0 where nothing is folded
  int parts = 1;  // of the kernel

  int64_t ins() const { return core.ins() * parts; }  // of a group, with phases and parts
};

// Whether the dense method's spectra are float16, scaled: of bfloat16 tensors, unless the algorithm
// says tf32.
bool has_half_spectra(const Algorithm& algorithm, Type type);

// Nothing where the algorithm is direct or does not fit the problem, its type or this GPU.
std::optional<TiledCore> cut_core(const Problem& p, Pass pass, const Algorithm& algorithm,
                                  Type type);

// Predicted seconds on one H200, without the time for the spectra of the kernels.
double predicted_seconds(const Problem& p, Pass pass, const Algorithm& algorithm, Type type);

// Algorithms worth measuring, the cost model's best first; direct is always among them.
std::vector<Algorithm> candidates(const Problem& p, Pass pass, Type type);

// The algorithm of a call: `wish` (the operator's attribute) where it names an algorithm that fits,
// else the cheapest by the model. The environment variable GRAPHSCALE_CUDA_ALGORITHM overrules
// both, for tests and benchmarks: then an algorithm that does not fit is an error.
Algorithm choose(const Problem& p, Pass pass, Type type, const std::string& wish);

}  // namespace graphscale::cuda
