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
  static constexpr int kPitch = kDepth + 4;  // eight rows of 16 bytes in different banks
  static constexpr int kPlane = kTile * kPitch;
  static constexpr int kParts = kSplit ? 2 : 1;
  static constexpr int kOperand = 2 * kParts * kPlane;  // re, im, and their rests
  static constexpr size_t kSharedBytes = 2 * kOperand * sizeof(uint32_t);
  static constexpr int kBlocks = kSplit ? 2 : 3;
  SpectraProduct p;

  int64_t blocks() const {
    return p.frequencies * p.groups * divide_up(p.rows, kTile) * divide_up(p.columns, kTile);
  }

  // Numbers on their way: two lines (rows or columns), or halves of one, with 4 of the depth each.
  struct Staged {
    Complex values[2][4];
  };
  // A thread's lines of a tile: along the depth four threads share one.
  template <bool kByDepth>
  GRAPHSCALE_DEVICE static int line(int thread, int load) {
    return kByDepth ? thread / 4 + load * 32 : thread % kTile;
  }
  template <bool kByDepth>
  GRAPHSCALE_DEVICE static int depth_of(int thread, int load) {
    return kByDepth ? thread % 4 * 4 : (thread / kTile + load * 2) * 4;
  }

  // from: number (0, k0) of the operand. Lines behind the last one repeat it: nobody stores what
  // comes of them.
  template <bool kByDepth>
  GRAPHSCALE_DEVICE void fetch(const Complex* from, int64_t stride, int64_t first, int64_t count,
                               int64_t depth_left, int thread, Staged& staged) const {
#pragma unroll
    for (int load = 0; load < 2; ++load) {
      const int64_t at = least(first + line<kByDepth>(thread, load), count - 1);
      const int k = depth_of<kByDepth>(thread, load);
      const Complex* const values = from + (kByDepth ? at * stride + k : at + k * stride);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const bool inside = k + e < depth_left;
        staged.values[load][e] = inside ? values[kByDepth ? e : e * stride] : Complex{0, 0};
      }
    }
  }

  // sign * value to four numbers of a plane, as tf32 (the tensor cores do not look at the lower 13
  // bits; a little more than value makes that nearly the nearest), and the rest.
  GRAPHSCALE_DEVICE static void keep(const float (&values)[4], float sign, uint32_t* plane) {
    constexpr float kMore = 1 + 1.5f / 4096;
    struct alignas(16) Four {
      uint32_t bits[4];
    } high, low;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      high.bits[e] = to_bits(values[e] * (sign * kMore));
      if constexpr (kSplit) {
        high.bits[e] &= 0xffffe000u;
        low.bits[e] = to_bits((sign * values[e] - from_bits(high.bits[e])) * kMore);
      }
    }
    *reinterpret_cast<Four*>(plane) = high;
    if constexpr (kSplit) *reinterpret_cast<Four*>(plane + 2 * kPlane) = low;
  }
  template <bool kByDepth>
  GRAPHSCALE_DEVICE static void put(const Staged& staged, int thread, float im_sign,
                                    uint32_t* operand) {
#pragma unroll
    for (int load = 0; load < 2; ++load) {
      uint32_t* const to =
          operand + line<kByDepth>(thread, load) * kPitch + depth_of<kByDepth>(thread, load);
      const Complex(&v)[4] = staged.values[load];
      keep({v[0].re, v[1].re, v[2].re, v[3].re}, 1.0f, to);
      keep({v[0].im, v[1].im, v[2].im, v[3].im}, im_sign, to + kPlane);
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
    const uint32_t* const at = plane + (row + lane % 16) * kPitch + k + lane / 16 * 4;
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
        plane + (column + lane % 8 + lane / 16 * 8) * kPitch + k + lane / 8 % 2 * 4;
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
                                               int64_t warp_columns, float (&sums)[2][4][2][4]) {
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
    const int thread = block.thread();
    const int warp_row = thread / kWarp / 2 * 32;
    const int warp_column = thread / kWarp % 2 * 32;
    const int64_t warp_columns = p.columns - column0 - warp_column;
    const bool busy = p.rows - row0 - warp_row > 0 && warp_columns > 0;
    const float right_sign = p.conjugate_right ? -1.0f : 1.0f;

    float sums[2][4][2][4] = {};
    Staged next_left;
    Staged next_right;
    fetch<kLeftByDepth>(a, left_stride, row0, p.rows, p.depth, thread, next_left);
    fetch<false>(b, p.right.depth, column0, p.columns, p.depth, thread, next_right);
    for (int64_t k0 = 0; k0 < p.depth; k0 += kDepth) {
      block.sync();
      put<kLeftByDepth>(next_left, thread, 1.0f, left);
      put<false>(next_right, thread, right_sign, right);
      block.sync();
      a += kDepth * p.left.depth;
      b += kDepth * p.right.depth;
      const int64_t depth_left = p.depth - k0 - kDepth;
      if (depth_left > 0) {
        fetch<kLeftByDepth>(a, left_stride, row0, p.rows, depth_left, thread, next_left);
        fetch<false>(b, p.right.depth, column0, p.columns, depth_left, thread, next_right);
      }
      if (busy) multiply_tiles(block, left, right, warp_row, warp_column, warp_columns, sums);
    }

    const int lane = thread % kWarp;
    Complex* const out = p.out + frequency * p.out_frequency + group * p.out_group;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int64_t row = row0 + warp_row + m * 16 + lane / 4 + i / 2 * 8;
          const int64_t column = column0 + warp_column + n * 8 + lane % 4 * 2 + i % 2;
          if (row >= p.rows || column >= p.columns) continue;
          Complex* const to = out + row * p.out_row + column;
          Complex value{sums[m][n][0][i], sums[m][n][1][i]};
          if (p.accumulate) value = {value.re + to->re, value.im + to->im};
          *to = value;
        }
      }
    }
  }
};

template <bool kSplit, bool kLeftByDepth>
void launch(const Context& context, const SpectraProduct& product) {
  const Multiply<kSplit, kLeftByDepth> kernel{product};
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
