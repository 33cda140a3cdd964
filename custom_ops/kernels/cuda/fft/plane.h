// Where the numbers of tiles come from and go to: images [N, C, H, W], kernels and gradients of
// kernels, cut into tiles, with pads, zeros between the numbers (dilations, gradients of strides)
// and turned round where asked for. Loads and stores are done by all threads of a block, neighbours
// side by side.
#pragma once

#include "kernels/cuda/fft/tile.h"

namespace graphscale::cuda {

// Position u of tile t is number (t * advance + u - origin) / step, where that is one, and zero
// elsewhere and from `limit` on.
struct Axis {
  int size, origin, step, advance, limit, tiles;
  bool turned;

  // -1 where there is none.
  GRAPHSCALE_BOTH int find(int tile, int u) const {
    int at = tile * advance + u - origin;
    if (u >= limit || at < 0) return -1;
    if (step > 1) {
      if (at % step != 0) return -1;
      at /= step;
    }
    if (at >= size) return -1;
    return turned ? size - 1 - at : at;
  }
};

struct Plane {
  void* data;
  Type type;               // float32, float16 or bfloat16
  int64_t image, channel;  // distances, in numbers
  Axis y, x;

  GRAPHSCALE_BOTH int64_t tiles() const { return static_cast<int64_t>(y.tiles) * x.tiles; }

  GRAPHSCALE_DEVICE float read(int64_t at) const {
    if (type == Type::kFloat32) return static_cast<const float*>(data)[at];
    if (type == Type::kFloat16) return widen(static_cast<const Float16*>(data)[at]);
    return widen(static_cast<const BFloat16*>(data)[at]);
  }
  GRAPHSCALE_DEVICE void write(int64_t at, float value) const {
    if (type == Type::kFloat32) {
      static_cast<float*>(data)[at] = value;
    } else if (type == Type::kFloat16) {
      static_cast<Float16*>(data)[at] = narrow<Float16>(value);
    } else {
      static_cast<BFloat16*>(data)[at] = narrow<BFloat16>(value);
    }
  }

  // Tile number m of all images' tiles, in one channel.
  struct Place {
    int64_t base;
    int tile_y, tile_x;
  };
  GRAPHSCALE_DEVICE Place place(int64_t m, int64_t of_channel) const {
    const int64_t n = m / tiles();
    const int within = static_cast<int>(m - n * tiles());
    return {n * image + of_channel * channel, within / x.tiles, within % x.tiles};
  }

  // tile <- the tile at a place, by all threads of a block.
  template <typename Shape, int S, typename Block>
  GRAPHSCALE_DEVICE void load(const Block& block, const Place& p, float* tile) const {
#pragma unroll 4
    for (int e = block.thread(); e < S * S; e += Shape::kThreads) {
      const int row = y.find(p.tile_y, e / S);
      const int column = x.find(p.tile_x, e % S);
      const bool inside = row >= 0 && column >= 0;
      tile[e / S * Shape::kPitch + e % S] =
          inside ? read(p.base + static_cast<int64_t>(row) * x.size + column) : 0.0f;
    }
  }

  // The place in memory <- tile + addend.
  template <typename Shape, int S, typename Block>
  GRAPHSCALE_DEVICE void store(const Block& block, const Place& p, const float* tile,
                               float addend) const {
    for (int e = block.thread(); e < S * S; e += Shape::kThreads) {
      const int row = y.find(p.tile_y, e / S);
      const int column = x.find(p.tile_x, e % S);
      if (row < 0 || column < 0) continue;
      write(p.base + static_cast<int64_t>(row) * x.size + column,
            tile[e / S * Shape::kPitch + e % S] + addend);
    }
  }
};

}  // namespace graphscale::cuda
