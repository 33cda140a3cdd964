// Moves the columns of a block's tiles between memory and shared memory. Each thread moves two
// columns of one tile, neighbouring threads neighbouring columns.
#pragma once

#include <algorithm>

#include "kernels/cuda/fft/plane.h"

namespace graphscale::cuda {

// Which tile and pair of columns are a thread's, for kTiles tiles; tile >= kTiles: none.
struct ColumnPair {
  int tile, a, b;
  GRAPHSCALE_DEVICE ColumnPair(int thread, const Columns& columns)
      : tile(thread / columns.pairs), a(thread % columns.pairs), b(a + columns.pairs) {}
};

// Half spectra of the columns of the block's tiles, to shared memory; place(tile) gives a tile's
// place where has(tile). Other threads may read them after a barrier only.
template <typename Shape, int S, typename Block, typename Has, typename FindPlace>
GRAPHSCALE_DEVICE void load_columns(const Block& block, const Plane& from, const Columns& columns,
                                    int room, const Has& has, const FindPlace& place,
                                    Complex* tiles) {
  const ColumnPair pair(block.thread(), columns);
  if (pair.tile >= Shape::kTiles || !has(pair.tile)) return;
  const Place p = place(pair.tile);
  const Column<S> a = from.template column<S>(p, columns.begin + pair.a);
  const Column<S> b = from.template column<S>(p, columns.begin + pair.b);
  Line<S> line;
  // Two columns, one transform, two half spectra.
  from.template load<S>(a, b, line);
  transform<S>(line.re, line.im);
  Complex* const tile = tiles + pair.tile * room;
  Shape::split_columns(line, tile + pair.a * Shape::kPitch, tile + pair.b * Shape::kPitch);
}

// The inverse: from shared memory to the columns in memory, + addend(tile).
template <typename Shape, int S, typename Block, typename Has, typename FindPlace, typename Addend>
GRAPHSCALE_DEVICE void store_columns(const Block& block, const Plane& to, const Columns& columns,
                                     int room, const Has& has, const FindPlace& place,
                                     const Addend& addend, const Complex* tiles) {
  const ColumnPair pair(block.thread(), columns);
  if (pair.tile >= Shape::kTiles || !has(pair.tile)) return;
  // Two half spectra, one transform, two columns.
  const Complex* const tile = tiles + pair.tile * room;
  Line<S> line;
  Shape::join_columns(tile + pair.a * Shape::kPitch, tile + pair.b * Shape::kPitch,
                      addend(pair.tile), line);
  transform<S>(line.re, line.im);
  const Place p = place(pair.tile);
  to.template store<S>(to.template column<S>(p, pair.a), to.template column<S>(p, pair.b), line);
}

// Likewise for kernels; shared memory must have room for S numbers of each thread, and must not be
// in use (a barrier after its last use).
template <typename Shape, int S, typename Block, typename Has, typename FindPlace>
GRAPHSCALE_DEVICE void load_kernel_columns(const Block& block, const Taps& from,
                                           const Columns& columns, int room, const Has& has,
                                           const FindPlace& place, Complex* tiles) {
  const ColumnPair pair(block.thread(), columns);
  const bool active = pair.tile < Shape::kTiles && has(pair.tile);
  Line<S> line;
  // Kernels are small and turned or strided: they go through shared memory, in a loop that is not
  // unrolled.
  if (active) {
    from.template load<S, Shape::kThreads>(place(pair.tile), pair.a, pair.b, tiles + block.thread(),
                                           line);
  }
  block.sync();
  if (!active) return;
  transform<S>(line.re, line.im);
  Complex* const tile = tiles + pair.tile * room;
  Shape::split_columns(line, tile + pair.a * Shape::kPitch, tile + pair.b * Shape::kPitch);
}

template <typename Shape, int S, typename Block, typename Has, typename FindPlace>
GRAPHSCALE_DEVICE void store_kernel_columns(const Block& block, const Taps& to,
                                            const Columns& columns, int room, const Has& has,
                                            const FindPlace& place, Complex* tiles) {
  const ColumnPair pair(block.thread(), columns);
  const bool active = pair.tile < Shape::kTiles && has(pair.tile);
  Line<S> line;
  if (active) {
    const Complex* const tile = tiles + pair.tile * room;
    Shape::join_columns(tile + pair.a * Shape::kPitch, tile + pair.b * Shape::kPitch, 0.0f, line);
    transform<S>(line.re, line.im);
  }
  block.sync();
  if (!active) return;
  to.template store<S, Shape::kThreads>(place(pair.tile), pair.a, pair.b, tiles + block.thread(),
                                        line);
}

// Shared memory of a tile that holds either of two sets of columns in turn.
template <typename Shape>
int room_for(const Columns& a, const Columns& b) {
  return Shape::room(std::max(a.count(), b.count()));
}

// Columns of kernels: all that they have.
inline Columns kernel_columns(const Taps& taps) { return {0, (taps.plane.x.limit + 1) / 2}; }

// Bytes of shared memory through which the columns of kernels go.
template <typename Shape, int S>
size_t kernel_columns_bytes(const Columns& columns) {
  const int tiles = Shape::kTiles * Shape::room(columns.count());
  const int lines = S * Shape::kThreads;
  return static_cast<size_t>(tiles > lines ? tiles : lines) * sizeof(Complex);
}

}  // namespace graphscale::cuda
