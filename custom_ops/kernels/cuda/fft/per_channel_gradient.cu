// The gradient to the weight of the per-channel method: PerChannelSums adds up the products of
// spectra of x and of the gradient to y over a chunk of tiles, SumsToTaps adds the chunks and
// transforms them back to kernels.
//
// Cost per kernel and tile: two transforms of 5 S^2 log2 S operations and 4 S^2 of products; x is
// read once per output of its group, the gradient once per input. Sums: 4 S^2 bytes per kernel and
// chunk.
#include <algorithm>

#include "kernels/cuda/fft/block_tiles.h"
#include "kernels/cuda/fft/per_channel.h"

namespace graphscale::cuda {
namespace {

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
    const int64_t end = min(begin + chunk_tiles, tiles);
    for (int i = 0; i < S; ++i) sum[i * kThreads] = {0, 0};
    Line<S> line;
    // The gradient's columns and rows, the image's columns and rows.
    const int64_t rounds = divide_up(end - begin, Shape::kTiles) * 4;
#pragma unroll 1
    // Four rounds per set of tiles: columns and rows of the gradient, whose spectrum waits in
    // shared memory; columns and rows of the image, whose products with it are added to the sum.
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
    // One sum per tile of the block goes to memory; SumsToTaps adds them.
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
    const int64_t kernel = min(first + g, kernels - 1);
    constexpr float kScale = 0.25f / (S * S);
    Line<S> line;
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      line.re[k] = 0;
      line.im[k] = 0;
    });
    // A thread adds up its row of all parts, then the way back: rows, columns, taps.
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

}  // namespace

void correlate_per_channel(const Context& context, int size, const Layout& layout) {
  PerChannelSizes::choose(size, [&](auto s) {
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
