// The per-channel method, fused: a block transforms some tiles of one output channel, multiplies
// and transforms back. Cost per output channel and tile: (inputs + 1) transforms of about 5 S^2
// log2 S operations and 4 S^2 of products; x is read once per output of its group, y is written
// once, the kernels' spectra (4 S^2 bytes each) come from the cache.
#include "kernels/cuda/fft/per_channel.h"

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

// Columns in, rows, products, rows, columns out: one loop whose rounds share the transform's code,
// because a multiprocessor's instruction cache is small.
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
    // Rounds 2 i and 2 i + 1 bring input i: its columns are read and transformed, then its rows
    // are, and multiplied by the kernel's spectrum; products are summed in shared memory. The last
    // two rounds transform back: rows, then columns, which go to the result.
    for (int round = 0; round < rounds + 2; ++round) {
      const bool back = round >= rounds;
      const bool by_column = (round % 2 == 1) == back;
      const ColumnPair pair(block.thread(), back ? out_columns : in_columns);
      Complex* const column = memory + pair.tile * room;
      Complex* const a = column + pair.a * Shape::kPitch;
      Complex* const b = column + pair.b * Shape::kPitch;
      const bool active = !by_column || (pair.tile < Shape::kTiles && first + pair.tile < tiles);
      // Before the transform: where this round's line comes from.
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
        // After the transform: where it goes.
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

}  // namespace

int64_t channel_spectra_count(const Layout& layout, int size) {
  return layout.kernels() * size * size / 2;
}

void make_channel_spectra(const Context& context, int size, const Layout& layout,
                          Complex* spectra) {
  const Columns columns = kernel_columns(layout.taps);
  PerChannelSizes::choose(size, [&](auto s) {
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
  PerChannelSizes::choose(size, [&](auto s) {
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

}  // namespace graphscale::cuda
