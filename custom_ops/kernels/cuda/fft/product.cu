// A block makes 64 x 64 numbers, its four warps 32 x 32 each; 16 of the depth are in shared memory
// while the next 16 are on their way to registers. Real and imaginary parts lie in planes of their
// own, [row or column][16 of the depth], already as tf32, so that ldmatrix brings whole fragments.
#include "kernels/cuda/fft/product.h"

#include <cstring>

namespace graphscale::cuda {
namespace {

GRAPHSCALE_DEVICE uint32_t to_bits(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
#endif
}

template <bool kSplit, bool kLeftByDepth>
struct Multiply {
  static constexpr int kThreads = 128;
  static constexpr int kTile = 64;
  static constexpr int kDepth = 16;
  static constexpr int kPlane = kTile * kDepth;
  static constexpr int kParts = kSplit ? 2 : 1;
  static constexpr int kOperand = 2 * kParts * kPlane;  // re, im, and their rests
  static constexpr size_t kSharedBytes = 2 * kOperand * sizeof(uint32_t);
  static constexpr int kBlocks = kSplit ? 2 : 3;
  SpectraProduct p;
  bool paired;  // every other number of the result is aligned to 16 bytes

  int64_t blocks() const {
    return p.frequencies * p.groups * divide_up(p.rows, kTile) * divide_up(p.columns, kTile);
  }

  // Where in a plane number k of the depth of a line (a row or column) is. The four pieces of 16
  // bytes of a line change places every two lines, so that one piece of eight lines, or all of two,
  // is in different banks.
  GRAPHSCALE_DEVICE static int place(int line, int k) {
    return line * kDepth + (k / 4 ^ (line / 2 & 3)) * 4 + k % 4;
  }

  // Numbers on their way, and which they are: neighbours in memory belong to neighbouring threads.
  static constexpr int kLoads = kTile * kDepth / kThreads;
  struct Staged {
    Complex values[kLoads];
  };
  template <bool kByDepth>
  GRAPHSCALE_DEVICE static int line_of(int thread, int load) {
    return kByDepth ? thread / kDepth + load * (kThreads / kDepth) : thread % kTile;
  }
  template <bool kByDepth>
  GRAPHSCALE_DEVICE static int depth_of(int thread, int load) {
    return kByDepth ? thread % kDepth : (thread / kTile + load / 4 * 2) * 4 + load % 4;
  }

  // from: number (0, 0) of the tile; `stride`: from line to line, or along the depth. Lines behind
  // the last one repeat it: nobody stores what comes of them.
  template <bool kByDepth>
  GRAPHSCALE_DEVICE static void fetch(const Complex* from, int64_t stride, int lines,
                                      int64_t depth_left, int thread, Staged& staged) {
    const int depth = static_cast<int>(least<int64_t>(depth_left, kDepth));
#pragma unroll
    for (int load = 0; load < kLoads; ++load) {
      const int line = least(line_of<kByDepth>(thread, load), lines - 1);
      const int k = depth_of<kByDepth>(thread, load);
      const Complex* const at = kByDepth ? from + line * stride + k : from + k * stride + line;
      staged.values[load] = k < depth ? *at : Complex{0, 0};
    }
  }

  // sign * value as tf32 (the tensor cores do not look at the lower 13 bits; a little more than the
  // number makes that nearly the nearest), and the rest.
  struct Parts {
    uint32_t high, low;
  };
  GRAPHSCALE_DEVICE static Parts parts(float value, float sign) {
    constexpr float kMore = 1 + 1.5f / 4096;
    const uint32_t high = to_bits(value * (sign * kMore));
    if constexpr (!kSplit) return {high, 0};
    const uint32_t kept = high & 0xffffe000u;
    return {kept, to_bits((sign * value - from_bits(kept)) * kMore)};
  }

  template <bool kByDepth>
  GRAPHSCALE_DEVICE static void put(const Staged& staged, int thread, float im_sign,
                                    uint32_t* operand) {
    struct alignas(16) Four {
      uint32_t bits[4];
    };
    constexpr int kTogether = kByDepth ? 1 : 4;
#pragma unroll
    for (int load = 0; load < kLoads; load += kTogether) {
      uint32_t* const to =
          operand + place(line_of<kByDepth>(thread, load), depth_of<kByDepth>(thread, load));
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        Four high, low;
#pragma unroll
        for (int e = 0; e < kTogether; ++e) {
          const Complex value = staged.values[load + e];
          const Parts p = part == 0 ? parts(value.re, 1.0f) : parts(value.im, im_sign);
          high.bits[e] = p.high;
          low.bits[e] = p.low;
        }
        uint32_t* const plane = to + part * kPlane;
        if constexpr (kByDepth) {
          *plane = high.bits[0];
          if constexpr (kSplit) plane[2 * kPlane] = low.bits[0];
        } else {
          *reinterpret_cast<Four*>(plane) = high;
          if constexpr (kSplit) *reinterpret_cast<Four*>(plane + 2 * kPlane) = low;
        }
      }
    }
  }

  struct Left {
    uint32_t high[4], low[4];
  };
  GRAPHSCALE_DEVICE static Left negative(const Left& a) {
    Left result;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      result.high[i] = a.high[i] ^ 0x80000000u;
      if constexpr (kSplit) result.low[i] = a.low[i] ^ 0x80000000u;
    }
    return result;
  }
  GRAPHSCALE_DEVICE static Left left_fragment(const Block& block, const uint32_t* plane, int row,
                                              int k) {
    const int lane = block.thread() % kWarp;
    const uint32_t* const at = plane + place(row + lane % 16, k + lane / 16 * 4);
    Left fragment;
    block.load_matrices(at, fragment.high);
    if constexpr (kSplit) block.load_matrices(at + 2 * kPlane, fragment.low);
    return fragment;
  }
  // Of 16 columns: numbers 0 and 1 are the first eight's fragment, 2 and 3 the others'.
  GRAPHSCALE_DEVICE static Left right_fragments(const Block& block, const uint32_t* plane,
                                                int column, int k) {
    const int lane = block.thread() % kWarp;
    const uint32_t* const at =
        plane + place(column + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 4);
    Left fragment;
    block.load_matrices(at, fragment.high);
    if constexpr (kSplit) block.load_matrices(at + 2 * kPlane, fragment.low);
    return fragment;
  }
  GRAPHSCALE_DEVICE static void multiply_add(const Block& block, float (&sum)[4], const Left& a,
                                             const Left& b, int half) {
    const uint32_t high[2] = {b.high[2 * half], b.high[2 * half + 1]};
    if constexpr (kSplit) {
      const uint32_t low[2] = {b.low[2 * half], b.low[2 * half + 1]};
      block.multiply_add(sum, a.low, high);
      block.multiply_add(sum, a.high, low);
    }
    block.multiply_add(sum, a.high, high);
  }

  // sums (re, im of 2 x 4 fragments) += the tiles in shared memory.
  GRAPHSCALE_DEVICE static void multiply_tiles(const Block& block, const uint32_t* left,
                                               const uint32_t* right, int warp_row, int warp_column,
                                               int warp_columns, float (&sums)[2][4][2][4]) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      Left re[2];
      Left im[2];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        re[m] = left_fragment(block, left, warp_row + m * 16, k);
        im[m] = left_fragment(block, left + kPlane, warp_row + m * 16, k);
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        if (n * 16 >= warp_columns) break;  // alike in all lanes of a warp
        const Left b_re = right_fragments(block, right, warp_column + n * 16, k);
        const Left b_im = right_fragments(block, right + kPlane, warp_column + n * 16, k);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            float(&sum)[2][4] = sums[m][2 * n + half];
            multiply_add(block, sum[0], re[m], b_re, half);
            multiply_add(block, sum[1], re[m], b_im, half);
            multiply_add(block, sum[0], negative(im[m]), b_im, half);
            multiply_add(block, sum[1], im[m], b_re, half);
          }
        }
      }
    }
  }

  // Two neighbours of the result, of which `left` are there, in one access of 16 bytes if possible.
  struct alignas(16) Two {
    Complex values[2];
  };
  GRAPHSCALE_DEVICE void store(Two sum, int left, Complex* to) const {
    if (paired && left > 1) {
      Two* const both = reinterpret_cast<Two*>(to);
      if (p.accumulate) {
        const Two before = *both;
        sum = {{add(sum.values[0], before.values[0]), add(sum.values[1], before.values[1])}};
      }
      *both = sum;
      return;
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (e < left) to[e] = p.accumulate ? add(sum.values[e], to[e]) : sum.values[e];
    }
  }
  GRAPHSCALE_DEVICE static Complex add(const Complex& a, const Complex& b) {
    return {a.re + b.re, a.im + b.im};
  }

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    uint32_t* const left = block.shared<uint32_t>();
    uint32_t* const right = left + kOperand;
    const int64_t column_tiles = divide_up(p.columns, kTile);
    const int64_t tiles = divide_up(p.rows, kTile) * column_tiles;
    const int64_t matrix = block.index() / tiles;
    const int64_t tile = block.index() % tiles;
    const int64_t frequency = matrix / p.groups;
    const int64_t group = matrix % p.groups;
    const int64_t row0 = tile / column_tiles * kTile;
    const int64_t column0 = tile % column_tiles * kTile;
    const Complex* a = p.left.data + frequency * p.left.frequency + group * p.left.group;
    const Complex* b = p.right.data + frequency * p.right.frequency + group * p.right.group;
    const int64_t left_stride = kLeftByDepth ? p.left.row : p.left.depth;
    a += row0 * p.left.row;
    b += column0;
    const int rows = static_cast<int>(least<int64_t>(p.rows - row0, kTile));
    const int columns = static_cast<int>(least<int64_t>(p.columns - column0, kTile));
    const int thread = block.thread();
    const int warp_row = thread / kWarp / 2 * 32;
    const int warp_column = thread / kWarp % 2 * 32;
    const int warp_columns = columns - warp_column;
    const bool busy = warp_row < rows && warp_columns > 0;
    const float right_sign = p.conjugate_right ? -1.0f : 1.0f;

    float sums[2][4][2][4] = {};
    Staged next_left;
    Staged next_right;
    fetch<kLeftByDepth>(a, left_stride, rows, p.depth, thread, next_left);
    fetch<false>(b, p.right.depth, columns, p.depth, thread, next_right);
    for (int64_t k0 = 0; k0 < p.depth; k0 += kDepth) {
      block.sync();
      put<kLeftByDepth>(next_left, thread, 1.0f, left);
      put<false>(next_right, thread, right_sign, right);
      block.sync();
      a += kDepth * p.left.depth;
      b += kDepth * p.right.depth;
      const int64_t depth_left = p.depth - k0 - kDepth;
      if (depth_left > 0) {
        fetch<kLeftByDepth>(a, left_stride, rows, depth_left, thread, next_left);
        fetch<false>(b, p.right.depth, columns, depth_left, thread, next_right);
      }
      if (busy) multiply_tiles(block, left, right, warp_row, warp_column, warp_columns, sums);
    }

    const int lane = thread % kWarp;
    Complex* const out = p.out + frequency * p.out_frequency + group * p.out_group +
                         row0 * p.out_row + column0;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
          const int row = warp_row + m * 16 + lane / 4 + i / 2 * 8;
          const int column = warp_column + n * 8 + lane % 4 * 2;
          if (row >= rows || column >= columns) continue;
          const float(&sum)[2][4] = sums[m][n];
          store({{{sum[0][i], sum[1][i]}, {sum[0][i + 1], sum[1][i + 1]}}}, columns - column,
                out + row * p.out_row + column);
        }
      }
    }
  }
};

template <bool kSplit, bool kLeftByDepth>
void launch(const Context& context, const SpectraProduct& product) {
  const bool even = (product.out_row | product.out_frequency | product.out_group) % 2 == 0;
  const bool aligned = reinterpret_cast<uintptr_t>(product.out) % (2 * sizeof(Complex)) == 0;
  const Multiply<kSplit, kLeftByDepth> kernel{product, even && aligned};
  launch_blocks(context, kernel.blocks(), kernel.kSharedBytes, kernel);
}

}  // namespace

void multiply_spectra(const Context& context, const SpectraProduct& product, bool single) {
  const bool by_depth = product.left.depth == 1;
  if (single) {
    by_depth ? launch<false, true>(context, product) : launch<false, false>(context, product);
  } else {
    by_depth ? launch<true, true>(context, product) : launch<true, false>(context, product);
  }
}

}  // namespace graphscale::cuda
