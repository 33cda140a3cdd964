#include "kernels/cuda/fft/per_channel.h"

#include <algorithm>

#include "kernels/cuda/fft/block_tiles.h"

namespace graphscale::cuda {
namespace {

template <int S>
struct ChannelSpectra {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  Taps taps;
  Complex* spectra;
  int64_t kernels, ins;
  Columns columns;
  int room;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::row_of(block.thread());
    Complex* const tiles = block.shared<Complex>();
    const int64_t first = block.index() * Shape::kTiles;
    load_kernel_columns<Shape, S>(
        block, taps, columns, room, [&](int tile) { return first + tile < kernels; },
        [&](int tile) { return taps.place((first + tile) / ins, (first + tile) % ins); }, tiles);
    block.sync();
    if (first + g >= kernels) return;
    Line<S> line;
    Shape::read_row(tiles + g * room, j, columns, line);
    transform<S>(line.re, line.im);
    constexpr float kScale =
        0.25f / (S * S);  // both operands come out doubled, and the inverse is S^2 times
    Complex* const to = spectra + (first + g) * Shape::kElements + j;
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int at = position<S>(k);
      to[k * Shape::kHalf] = {kScale * line.re[at], kScale * line.im[at]};
    });
  }
};

// line, as transformed, <- its conjugate times factor(k), in order of frequency; of a row that two
// spectra share, spectrum by spectrum.
template <int S, typename Factor>
GRAPHSCALE_DEVICE void multiply_row(int j, const Factor& factor, Line<S>& line) {
  Line<S> out;
  if (j != 0) {
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int at = position<S>(k);
      const Complex value = multiply(Complex{line.re[at], line.im[at]}, factor(k));
      out.re[k] = value.re;
      out.im[k] = value.im;
    });
  } else {
    unrolled<S / 2 + 1>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int mirror = (S - k) % S;
      constexpr int at = position<S>(k);
      constexpr int mirror_at = position<S>(mirror);
      const Complex f = factor(k);
      const Complex f_mirror = factor(mirror);
      const Pair left = unpack(line.re[at], line.im[at], line.re[mirror_at], line.im[mirror_at]);
      const Pair right = unpack(f.re, f.im, f_mirror.re, f_mirror.im);
      pack<S, k>(multiply(left, right), out);
    });
  }
  line = out;
}

// line <- sum <- line + sum where there is one: a thread's own S numbers, kApart from each other.
template <int S, int kApart>
GRAPHSCALE_DEVICE void add_up(bool has_sum, Complex* sum, Line<S>& line) {
  unrolled<S>([&](auto i) {
    constexpr int k = decltype(i)::value;
    const Complex before = has_sum ? sum[k * kApart] : Complex{0, 0};
    line.re[k] += before.re;
    line.im[k] += before.im;
    sum[k * kApart] = {line.re[k], line.im[k]};
  });
}

// Columns in, rows, products, rows, columns out: one loop whose rounds share the transform's code,
// for there is little room for instructions close to a multiprocessor.
template <int S>
struct PerChannel {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kBlocks = S < 64 ? 0 : S == 64 ? 3 : 2;  // 12 warps; 8 and 6 for 84 and 96
  Plane in, out, bias;
  const Complex* spectra;
  int64_t tiles, ins, outs;
  Columns in_columns, out_columns;
  int room;
  bool has_bias;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::row_of(block.thread());
    Complex* const memory = block.shared<Complex>();
    Complex* const sum = memory + Shape::kTiles * room + block.thread();
    const int64_t blocks = divide_up(tiles, Shape::kTiles);
    const int64_t channel = block.index() / blocks;
    const int64_t first = block.index() % blocks * Shape::kTiles;
    const int64_t first_in = channel / outs * ins;
    const int rounds = static_cast<int>(ins) * 2;  // before the products are complete
    Line<S> line;
#pragma unroll 1
    for (int round = 0; round < rounds + 2; ++round) {
      const bool back = round >= rounds;
      const bool by_column = (round % 2 == 1) == back;
      const ColumnPair pair(block.thread(), back ? out_columns : in_columns);
      Complex* const column = memory + pair.tile * room;
      Complex* const a = column + pair.a * Shape::kPitch;
      Complex* const b = column + pair.b * Shape::kPitch;
      const bool active = !by_column || (pair.tile < Shape::kTiles && first + pair.tile < tiles);
      if (active) {
        if (by_column && !back) {
          const Place p = in.place(first + pair.tile, first_in + round / 2);
          in.load<S>(in.column<S>(p, in_columns.begin + pair.a),
                     in.column<S>(p, in_columns.begin + pair.b), line);
        } else if (by_column) {
          Shape::join_columns(a, b, has_bias ? bias.read(channel) : 0.0f, line);
        } else if (!back) {
          Shape::read_row(memory + g * room, j, in_columns, line);
        }
        transform<S>(line.re, line.im);
        if (by_column && !back) {
          Shape::split_columns(line, a, b);
        } else if (by_column) {
          const Place p = out.place(first + pair.tile, channel);
          out.store<S>(out.column<S>(p, pair.a), out.column<S>(p, pair.b), line);
        } else if (back) {
          Shape::write_row(line, j, out_columns, memory + g * room);
        } else {
          const Complex* const from = spectra + (channel * ins + round / 2) * Shape::kElements + j;
          multiply_row<S>(j, [&](int k) { return from[k * Shape::kHalf]; }, line);
          if (ins > 1) add_up<S, kThreads>(round > 1, sum, line);
        }
      }
      block.sync();
    }
  }
};

// Sums of products of spectra, in shared memory beside the tiles; one sum per tile of the block.
template <int S>
struct PerChannelSums {
  using Shape = Tile<S, summed_tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kSpectrum = S * kThreads;  // a thread's numbers lie kThreads apart
  Plane in, grad;
  Complex* sums;  // [kernel][chunk][tile of the block][column][row]
  int64_t tiles, ins, outs, chunks, chunk_tiles;
  Columns in_columns, grad_columns;
  int room;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int thread = block.thread();
    const int g = Shape::tile_of(thread);
    const int j = Shape::row_of(thread);
    Complex* const memory = block.shared<Complex>();
    Complex* const tile = memory + g * room;
    Complex* const spectrum = memory + Shape::kTiles * room + thread;
    Complex* const sum = spectrum + kSpectrum;
    const int64_t kernel = block.index() / chunks;
    const int64_t out = kernel / ins;
    const int64_t from = out / outs * ins + kernel % ins;
    const int64_t begin = block.index() % chunks * chunk_tiles;
    const int64_t end = least(begin + chunk_tiles, tiles);
    for (int i = 0; i < S; ++i) sum[i * kThreads] = {0, 0};
    Line<S> line;
    // The gradient's columns and rows, the image's columns and rows.
    const int64_t rounds = divide_up(end - begin, Shape::kTiles) * 4;
#pragma unroll 1
    for (int64_t round = 0; round < rounds; ++round) {
      const int64_t first = begin + round / 4 * Shape::kTiles;
      const bool by_column = round % 2 == 0;
      const bool of_grad = round % 4 < 2;
      const Columns& columns = of_grad ? grad_columns : in_columns;
      const ColumnPair pair(thread, columns);
      const bool active =
          by_column ? pair.tile < Shape::kTiles && first + pair.tile < end : first + g < end;
      if (active) {
        if (by_column) {
          const Plane& plane = of_grad ? grad : in;
          const Place p = plane.place(first + pair.tile, of_grad ? out : from);
          plane.load<S>(plane.column<S>(p, columns.begin + pair.a),
                        plane.column<S>(p, columns.begin + pair.b), line);
        } else {
          Shape::read_row(tile, j, columns, line);
        }
        transform<S>(line.re, line.im);
        if (by_column) {
          Complex* const column = memory + pair.tile * room;
          Shape::split_columns(line, column + pair.a * Shape::kPitch,
                               column + pair.b * Shape::kPitch);
        } else if (of_grad) {
          unrolled<S>([&](auto i) {
            constexpr int k = decltype(i)::value;
            constexpr int at = position<S>(k);
            spectrum[k * kThreads] = {line.re[at], line.im[at]};
          });
        } else {
          multiply_row<S>(j, [&](int k) { return spectrum[k * kThreads]; }, line);
          add_up<S, kThreads>(true, sum, line);
        }
      }
      block.sync();
    }
    Complex* const to = sums + (block.index() * Shape::kTiles + g) * Shape::kElements + j;
    for (int k = 0; k < S; ++k) to[k * Shape::kHalf] = sum[k * kThreads];
  }
};

// taps <- the inverse of the sum of a kernel's sums.
template <int S>
struct SumsToTaps {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  Taps taps;
  const Complex* sums;
  int64_t kernels, ins, parts;
  Columns columns;
  int room;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::row_of(block.thread());
    Complex* const memory = block.shared<Complex>();
    const int64_t first = block.index() * Shape::kTiles;
    const int64_t kernel = least(first + g, kernels - 1);
    constexpr float kScale = 0.25f / (S * S);
    Line<S> line;
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      line.re[k] = 0;
      line.im[k] = 0;
    });
    for (int64_t part = 0; part < parts; ++part) {
      const Complex* const from = sums + (kernel * parts + part) * Shape::kElements + j;
      unrolled<S>([&](auto i) {
        constexpr int k = decltype(i)::value;
        const Complex value = from[k * Shape::kHalf];
        line.re[k] += kScale * value.re;
        line.im[k] += kScale * value.im;
      });
    }
    transform<S>(line.re, line.im);
    Shape::write_row(line, j, columns, memory + g * room);
    block.sync();
    store_kernel_columns<Shape, S>(
        block, taps, columns, room, [&](int tile) { return first + tile < kernels; },
        [&](int tile) { return taps.place((first + tile) / ins, (first + tile) % ins); }, memory);
  }
};

constexpr int64_t kBlocksWanted = 132 * 4;  // to fill the largest GPU

template <typename Shape>
int room_for(const Columns& a, const Columns& b) {
  return Shape::room(std::max(a.count(), b.count()));
}

}  // namespace

int64_t channel_spectra_count(const Layout& layout, int size) {
  return layout.kernels() * size * size / 2;
}

void make_channel_spectra(const Context& context, int size, const Layout& layout,
                          Complex* spectra) {
  const Columns columns = kernel_columns(layout.taps);
  with_size(size, [&](auto s) {
    constexpr int S = decltype(s)::value;
    using Kernel = ChannelSpectra<S>;
    using Shape = typename Kernel::Shape;
    launch_blocks(context, divide_up(layout.kernels(), Shape::kTiles),
                  kernel_columns_bytes<Shape, S>(columns),
                  Kernel{layout.taps, spectra, layout.kernels(), layout.ins, columns,
                         Shape::room(columns.count())});
  });
}

void convolve_per_channel(const Context& context, int size, const Layout& layout,
                          const Complex* spectra, const Plane* bias) {
  with_size(size, [&](auto s) {
    constexpr int S = decltype(s)::value;
    using Kernel = PerChannel<S>;
    using Shape = typename Kernel::Shape;
    const int room = room_for<Shape>(layout.in_columns, layout.out_columns);
    const int sums = layout.ins > 1 ? S * Shape::kThreads : 0;
    launch_blocks(context, layout.all_outs() * divide_up(layout.tiles, Shape::kTiles),
                  static_cast<size_t>(Shape::kTiles * room + sums) * sizeof(Complex),
                  Kernel{layout.in, layout.out, bias == nullptr ? Plane{} : *bias, spectra,
                         layout.tiles, layout.ins, layout.outs, layout.in_columns,
                         layout.out_columns, room, bias != nullptr});
  });
}

void correlate_per_channel(const Context& context, int size, const Layout& layout) {
  with_size(size, [&](auto s) {
    constexpr int S = decltype(s)::value;
    using Sums = PerChannelSums<S>;
    using Shape = typename Sums::Shape;
    const int64_t kernels = layout.kernels();
    const int64_t rounds = divide_up(layout.tiles, Shape::kTiles);
    const int64_t chunks = std::clamp<int64_t>(divide_up(kBlocksWanted, kernels), 1, rounds);
    const int64_t chunk_tiles = divide_up(rounds, chunks) * Shape::kTiles;
    const int64_t parts = chunks * Shape::kTiles;
    const ScratchArray<Complex> sums(context, kernels * parts * Shape::kElements);
    const int room = room_for<Shape>(layout.in_columns, layout.out_columns);
    launch_blocks(context, kernels * chunks,
                  static_cast<size_t>(Shape::kTiles * room + 2 * Sums::kSpectrum) * sizeof(Complex),
                  Sums{layout.in, layout.out, sums.get(), layout.tiles, layout.ins, layout.outs,
                       chunks, chunk_tiles, layout.in_columns, layout.out_columns, room});
    using ToTaps = SumsToTaps<S>;
    const Columns columns = kernel_columns(layout.taps);
    launch_blocks(context, divide_up(kernels, ToTaps::Shape::kTiles),
                  kernel_columns_bytes<typename ToTaps::Shape, S>(columns),
                  ToTaps{layout.taps, sums.get(), kernels, layout.ins, parts, columns,
                         ToTaps::Shape::room(columns.count())});
  });
}

}  // namespace graphscale::cuda
