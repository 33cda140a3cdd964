// Two kernels: the largest magnitude of each part of an image, then of all parts, and its exponent.
// Cost: every number is read once, 16 bytes to an access; nothing is read back by the host.
#include "kernels/cuda/fft/exponents.h"

#include <algorithm>

namespace graphscale::cuda {
namespace {

constexpr int kGranule = 8;                 // numbers of one access, 16 bytes
constexpr int64_t kBlocksWanted = 132 * 8;  // to fill the largest GPU
constexpr int64_t kMinNumbers = 8 * 1024;   // of a block
constexpr int kLargestHalf = 15;            // log2 of what spectra may reach

// The largest magnitude, as bits, of the finite numbers of a part of an image: bits of positive
// floats are in the floats' order.
struct LargestOfPart {
  static constexpr int kThreads = 256;
  const BFloat16* numbers;
  uint32_t* largest;  // [image][part]
  int64_t count, parts, part;

  GRAPHSCALE_DEVICE static uint32_t magnitude(uint32_t bits) {
    bits &= 0x7fff;
    return bits < 0x7f80 ? bits : 0;
  }

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    struct alignas(16) Granule {
      uint32_t pairs[kGranule / 2];
    };
    const int thread = block.thread();
    // A block reads `part` numbers: up to the first aligned granule one by one, then granules of 16
    // bytes, then the tail.
    const int64_t image = block.index() / parts;
    const int64_t begin = block.index() % parts * part;
    const int64_t length = min(begin + part, count) - begin;
    const BFloat16* const from = numbers + image * count + begin;
    const uint32_t before = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(from) / 2) % kGranule;
    const int64_t head = min<int64_t>((kGranule - before) % kGranule, length);
    const int64_t granules = (length - head) / kGranule;
    const Granule* const whole = reinterpret_cast<const Granule*>(from + head);
    uint32_t result = 0;
#pragma unroll 4
    for (int64_t i = thread; i < granules; i += kThreads) {
      const Granule granule = whole[i];
#pragma unroll
      for (int pair = 0; pair < kGranule / 2; ++pair) {
        result = max(result, magnitude(granule.pairs[pair]));
        result = max(result, magnitude(granule.pairs[pair] >> 16));
      }
    }
    if (thread < head) result = max(result, magnitude(from[thread].bits));
    const int64_t tail = head + granules * kGranule + thread;
    if (tail < length) result = max(result, magnitude(from[tail].bits));
    result = max_over_block<kThreads>(block, result, block.shared<uint32_t>());
    if (thread == 0) largest[block.index()] = result;
  }
};

struct ExponentOfImage {
  static constexpr int kThreads = 128;
  const uint32_t* largest;
  int* exponents;
  int64_t parts;
  int growth;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    // The parts of an image, then the exponent that brings the largest number below 2^(15 -
    // growth).
    uint32_t result = 0;
    for (int64_t i = block.thread(); i < parts; i += kThreads) {
      result = max(result, largest[block.index() * parts + i]);
    }
    result = max_over_block<kThreads>(block, result, block.shared<uint32_t>());
    const int above = static_cast<int>(result >> 7) - 126;  // all numbers are below 2^above
    if (block.thread() == 0) {
      exponents[block.index()] = min(126, kLargestHalf - growth - above);
    }
  }
};

}  // namespace

void find_exponents(const Context& context, const BFloat16* numbers, int64_t images, int64_t count,
                    int growth, int* exponents) {
  if (images <= 0 || count <= 0) return;
  const int64_t wanted = std::min(divide_up(kBlocksWanted, images), divide_up(count, kMinNumbers));
  const int64_t part = divide_up(divide_up(count, wanted), kGranule) * kGranule;
  const int64_t parts = divide_up(count, part);
  const ScratchArray<uint32_t> largest(context, images * parts);
  launch_blocks(context, images * parts, LargestOfPart::kThreads / kWarp * sizeof(uint32_t),
                LargestOfPart{numbers, largest.get(), count, parts, part});
  launch_blocks(context, images, ExponentOfImage::kThreads / kWarp * sizeof(uint32_t),
                ExponentOfImage{largest.get(), exponents, parts, growth});
}

}  // namespace graphscale::cuda
