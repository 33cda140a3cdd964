// A block makes 64 x 64 numbers, its four warps 32 x 32 each; 16 of the depth (32 of halves) are in
// shared memory while the next are on their way to registers. Real and imaginary parts lie in
// planes of their own, [row or column][16 words], so that ldmatrix brings whole fragments.
//
// Cost per frequency and group: 8 rows columns depth operations (three times that for pairs of tf32
// numbers); left is read once per 64 columns, right once per 64 rows, the result is written once.
#include "kernels/cuda/fft/product.h"

#include "kernels/cuda/fft/product_words.h"

namespace graphscale::cuda {
namespace {

// The order of an operand in memory: neighbouring lines, or neighbouring depths, the latter as
// aligned words or not.
enum class Order { kByLine, kByDepth, kByWords };

template <typename Format, Order kLeftOrder, typename Out>
struct Multiply {
  using Number = typename Format::Number;
  using Raw = typename Format::Raw;
  static_assert(sizeof(Raw) == sizeof(Number));
  static constexpr bool kSplit = Format::kSplit;
  static constexpr int kNumbers = Format::kNumbers;
  static constexpr int kThreads = 128;
  static constexpr int kTile = 64;
  static constexpr int kWords = 16;  // of a line, in shared memory at once
  static constexpr int kDepth = kWords * kNumbers;
  static constexpr int kPlane = kTile * kWords;
  static constexpr int kParts = kSplit ? 2 : 1;
  static constexpr int kOperand = 2 * kParts * kPlane;  // re, im, and their rests
  static constexpr size_t kSharedBytes = 2 * kOperand * sizeof(uint32_t);
  static constexpr int kBlocks = Format::kBlocks;
  SpectraProduct<Number, Out> p;
  bool out_even;  // pairs of neighbouring results are aligned

  int64_t blocks() const {
    return p.frequencies * p.groups * divide_up(p.rows, kTile) * divide_up(p.columns, kTile);
  }

  // Where in a plane a word of a line (a row or column) is. The four pieces of 16 bytes of a line
  // change places every two lines, so that one piece of eight lines, or all of two, is in different
  // banks.
  GRAPHSCALE_DEVICE static int place(int line, int word) {
    return line * kWords + (word / 4 ^ (line / 2 & 3)) * 4 + word % 4;
  }

  // Numbers on their way, and which they are: neighbours in memory belong to neighbouring threads.
  static constexpr int kLoads = kTile * kWords / kThreads;
  struct alignas(kNumbers * sizeof(Raw)) Load {
    Raw numbers[kNumbers];
  };
  struct Staged {
    Load loads[kLoads];
  };
  template <Order kOrder>
  GRAPHSCALE_DEVICE static int line_of(int thread, int load) {
    return kOrder != Order::kByLine ? thread / kWords + load * (kThreads / kWords) : thread % kTile;
  }
  template <Order kOrder>
  GRAPHSCALE_DEVICE static int word_of(int thread, int load) {
    return kOrder != Order::kByLine ? thread % kWords
                                    : (thread / kTile + load / 4 * 2) * 4 + load % 4;
  }

  // from: number (0, 0) of the tile; `stride`: from line to line, or along the depth. Lines behind
  // the last one repeat it; their results are not stored.
  template <Order kOrder>
  GRAPHSCALE_DEVICE static void fetch(const Number* from, int64_t stride, int lines,
                                      int64_t depth_left, int thread, Staged& staged) {
    const int depth = static_cast<int>(min<int64_t>(depth_left, kDepth));
    const int first_k = word_of<kOrder>(thread, 0) * kNumbers;
    if constexpr (kOrder == Order::kByLine) {
      const int line = min(line_of<kOrder>(thread, 0), lines - 1);
      const Raw* at = raw(from + first_k * stride + line);
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const int k = word_of<kOrder>(0, load) * kNumbers;
#pragma unroll
        for (int e = 0; e < kNumbers; ++e, at += stride) {
          staged.loads[load].numbers[e] = k + e < depth - first_k ? *at : Raw{};
        }
        if (load % 4 == 3) at += (word_of<kOrder>(0, load + 1) * kNumbers - k - kNumbers) * stride;
      }
    } else {
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const int line = min(line_of<kOrder>(thread, load), lines - 1);
        const Raw* const at = raw(from + line * stride + first_k);
        Load& to = staged.loads[load];
        if constexpr (kOrder == Order::kByWords) {  // then the depth is even
          to = first_k < depth ? *reinterpret_cast<const Load*>(at) : Load{};
        } else {
#pragma unroll
          for (int e = 0; e < kNumbers; ++e) to.numbers[e] = first_k + e < depth ? at[e] : Raw{};
        }
      }
    }
  }
  GRAPHSCALE_DEVICE static const Raw* raw(const Number* numbers) {
    return reinterpret_cast<const Raw*>(numbers);
  }

  template <Order kOrder>
  GRAPHSCALE_DEVICE static void put(const Staged& staged, int thread, float im_sign,
                                    uint32_t* operand) {
    // Numbers become words: real and imaginary parts to planes of their own, four words to an
    // access where a thread has four neighbours.
    struct alignas(16) Four {
      uint32_t bits[4];
    };
    constexpr int kTogether = kOrder == Order::kByLine ? 4 : 1;
#pragma unroll
    for (int load = 0; load < kLoads; load += kTogether) {
      uint32_t* const to =
          operand + place(line_of<kOrder>(thread, load), word_of<kOrder>(thread, load));
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        Four high, low;
#pragma unroll
        for (int e = 0; e < kTogether; ++e) {
          const Words words =
              Format::words(staged.loads[load + e].numbers, part == 0, part == 0 ? 1.0f : im_sign);
          high.bits[e] = words.high;
          low.bits[e] = words.low;
        }
        uint32_t* const plane = to + part * kPlane;
        if constexpr (kTogether == 1) {
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
      result.high[i] = a.high[i] ^ Format::kSigns;
      if constexpr (kSplit) result.low[i] = a.low[i] ^ Format::kSigns;
    }
    return result;
  }
  GRAPHSCALE_DEVICE static Left left_fragment(const Block& block, const uint32_t* plane, int row,
                                              int word) {
    const int lane = block.thread() % kWarp;
    const uint32_t* const at = plane + place(row + lane % 16, word + lane / 16 * 4);
    Left fragment;
    block.load_matrices(at, fragment.high);
    if constexpr (kSplit) block.load_matrices(at + 2 * kPlane, fragment.low);
    return fragment;
  }
  // Of 16 columns: numbers 0 and 1 are the first eight's fragment, 2 and 3 the others'.
  GRAPHSCALE_DEVICE static Left right_fragments(const Block& block, const uint32_t* plane,
                                                int column, int word) {
    const int lane = block.thread() % kWarp;
    const uint32_t* const at =
        plane + place(column + lane % 8 + lane / 16 * 8, word + lane / 8 % 2 * 4);
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
      Format::multiply_add(block, sum, a.low, high);
      Format::multiply_add(block, sum, a.high, low);
    }
    Format::multiply_add(block, sum, a.high, high);
  }

  // sums (re, im of 2 x 4 fragments) += the tiles in shared memory.
  GRAPHSCALE_DEVICE static void multiply_tiles(const Block& block, const uint32_t* left,
                                               const uint32_t* right, int warp_row, int warp_column,
                                               int warp_columns, float (&sums)[2][4][2][4]) {
#pragma unroll
    // (a + i b)(c + i d) as four real products on the tensor cores; the minus of b d is a flip of
    // sign bits. Each pair of fragments from shared memory serves 2 x 2 products of either part.
    for (int word = 0; word < kWords; word += 8) {
      Left re[2];
      Left im[2];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        re[m] = left_fragment(block, left, warp_row + m * 16, word);
        im[m] = left_fragment(block, left + kPlane, warp_row + m * 16, word);
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        if (n * 16 >= warp_columns) break;  // alike in all lanes of a warp
        const Left b_re = right_fragments(block, right, warp_column + n * 16, word);
        const Left b_im = right_fragments(block, right + kPlane, warp_column + n * 16, word);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            float (&sum)[2][4] = sums[m][2 * n + half];
            multiply_add(block, sum[0], re[m], b_re, half);
            multiply_add(block, sum[1], re[m], b_im, half);
            multiply_add(block, sum[0], negative(im[m]), b_im, half);
            multiply_add(block, sum[1], im[m], b_re, half);
          }
        }
      }
    }
  }

  // Two neighbours of the result, of which `left` are there, in one access if possible.
  struct alignas(2 * sizeof(Out)) Two {
    Out numbers[2];
  };
  GRAPHSCALE_DEVICE void store(const Complex (&sums)[2], int left, Out* to) const {
    if (out_even && left > 1) {
      Two* const both = reinterpret_cast<Two*>(to);
      const Two before = p.accumulate ? *both : Two{};
      *both = {{result(sums[0], before.numbers[0]), result(sums[1], before.numbers[1])}};
      return;
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (e < left) to[e] = result(sums[e], p.accumulate ? to[e] : Out{});
    }
  }
  GRAPHSCALE_DEVICE Out result(const Complex& sum, const Out& before) const {
    const Complex base = widen(before);
    return make_number<Out>(base.re + p.scale * sum.re, base.im + p.scale * sum.im);
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
    const Number* a = p.left.data + frequency * p.left.frequency + group * p.left.group;
    const Number* b = p.right.data + frequency * p.right.frequency + group * p.right.group;
    const int64_t left_stride = kLeftOrder == Order::kByLine ? p.left.depth : p.left.row;
    a += row0 * p.left.row;
    b += column0;
    const int rows = static_cast<int>(min<int64_t>(p.rows - row0, kTile));
    const int columns = static_cast<int>(min<int64_t>(p.columns - column0, kTile));
    const int thread = block.thread();
    const int warp_row = thread / kWarp / 2 * 32;
    const int warp_column = thread / kWarp % 2 * 32;
    const int warp_columns = columns - warp_column;
    const bool busy = warp_row < rows && warp_columns > 0;
    const float right_sign = p.conjugate_right ? -1.0f : 1.0f;

    // Registers of the next depth are filled while the tensor cores work on this one: two barriers
    // per step.
    float sums[2][4][2][4] = {};
    Staged next_left;
    Staged next_right;
    fetch<kLeftOrder>(a, left_stride, rows, p.depth, thread, next_left);
    fetch<Order::kByLine>(b, p.right.depth, columns, p.depth, thread, next_right);
    for (int64_t k0 = 0; k0 < p.depth; k0 += kDepth) {
      block.sync();
      put<kLeftOrder>(next_left, thread, 1.0f, left);
      put<Order::kByLine>(next_right, thread, right_sign, right);
      block.sync();
      a += kDepth * p.left.depth;
      b += kDepth * p.right.depth;
      const int64_t depth_left = p.depth - k0 - kDepth;
      if (depth_left > 0) {
        fetch<kLeftOrder>(a, left_stride, rows, depth_left, thread, next_left);
        fetch<Order::kByLine>(b, p.right.depth, columns, depth_left, thread, next_right);
      }
      if (busy) multiply_tiles(block, left, right, warp_row, warp_column, warp_columns, sums);
    }

    const int lane = thread % kWarp;
    Out* const out =
        p.out + frequency * p.out_frequency + group * p.out_group + row0 * p.out_row + column0;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
          // Where PTX puts the numbers of a fragment: pairs of neighbouring columns, which go out
          // in one access.
          const int row = warp_row + m * 16 + lane / 4 + i / 2 * 8;
          const int column = warp_column + n * 8 + lane % 4 * 2;
          if (row >= rows || column >= columns) continue;
          const float (&sum)[2][4] = sums[m][n];
          store({{sum[0][i], sum[1][i]}, {sum[0][i + 1], sum[1][i + 1]}}, columns - column,
                out + row * p.out_row + column);
        }
      }
    }
  }
};

// Whether pairs of numbers that lie at even distances from data are aligned.
template <typename Number, typename... Distance>
bool pairs_are_aligned(const Number* data, Distance... distances) {
  return (distances | ...) % 2 == 0 &&
         reinterpret_cast<uintptr_t>(data) % (2 * sizeof(Number)) == 0;
}

template <typename Format, Order kLeftOrder, typename Out>
void launch(const Context& context, const SpectraProduct<typename Format::Number, Out>& product) {
  const Multiply<Format, kLeftOrder, Out> kernel{
      product,
      pairs_are_aligned(product.out, product.out_frequency, product.out_group, product.out_row)};
  launch_blocks(context, kernel.blocks(), kernel.kSharedBytes, kernel);
}

template <bool kSplit>
void launch_tf32(const Context& context, const SpectraProduct<Complex, Complex>& product) {
  if (product.left.depth == 1) {
    launch<Tf32<kSplit>, Order::kByDepth>(context, product);
  } else {
    launch<Tf32<kSplit>, Order::kByLine>(context, product);
  }
}

}  // namespace

void multiply_spectra(const Context& context, const SpectraProduct<Complex, Complex>& product,
                      bool single) {
  single ? launch_tf32<false>(context, product) : launch_tf32<true>(context, product);
}

void multiply_spectra(const Context& context,
                      const SpectraProduct<HalfComplex, HalfComplex>& product) {
  const auto& left = product.left;
  if (pairs_are_aligned(left.data, left.frequency, left.group, left.row, product.depth)) {
    launch<Halves, Order::kByWords>(context, product);
  } else {
    launch<Halves, Order::kByDepth>(context, product);
  }
}

void multiply_spectra(const Context& context, const SpectraProduct<HalfComplex, Complex>& product) {
  launch<Halves, Order::kByLine>(context, product);
}

}  // namespace graphscale::cuda
