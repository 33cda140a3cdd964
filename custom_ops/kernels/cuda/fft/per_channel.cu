#include "kernels/cuda/fft/per_channel.h"

namespace graphscale::cuda {
namespace {

// spectra[channel][frequency k][column j] of the kernels.
template <int S>
struct ChannelSpectra {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr size_t kSharedBytes = Shape::kTiles * Shape::kFloats * sizeof(float);
  Plane taps;
  Complex* spectra;
  int64_t channels;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::line_of(block.thread());
    float* const tiles = block.shared<float>();
    const int64_t first = block.index() * Shape::kTiles;
    for (int i = 0; i < Shape::kTiles && first + i < channels; ++i) {
      taps.load<Shape, S>(block, taps.place(0, first + i), tiles + i * Shape::kFloats);
    }
    Line<S> line;
    Shape::forward(block, tiles + g * Shape::kFloats, j, line);
    if (first + g >= channels) return;
    constexpr float kScale =
        0.25f / (S * S);  // both operands come out doubled, and the inverse is S^2 times
    Complex* const to = spectra + (first + g) * Shape::kElements + j;
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int at = position<S>(k);
      constexpr int mirror = position<S>((S - k) % S);
      // The conjugates of two spectra that share a column are those at minus the frequency.
      to[k * Shape::kHalf] = j == 0 ? Complex{kScale * line.re[mirror], kScale * line.im[mirror]}
                                    : Complex{kScale * line.re[at], -kScale * line.im[at]};
    });
  }
};

// out (in order of frequency) <- line (as transformed) times factor(k); factors of shared columns
// alike.
template <int S, bool kConjugate, typename Factor>
GRAPHSCALE_DEVICE void multiply_column(const Line<S>& line, int j, const Factor& factor,
                                       Line<S>& out) {
  if (j != 0) {
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      constexpr int at = position<S>(k);
      const Complex f = factor(k);
      const float im = kConjugate ? -f.im : f.im;
      out.re[k] = line.re[at] * f.re - line.im[at] * im;
      out.im[k] = line.re[at] * im + line.im[at] * f.re;
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
      pack<S, k>(multiply<kConjugate>(left, right), out);
    });
  }
}

template <int S>
struct PerChannel {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr size_t kSharedBytes = Shape::kTiles * Shape::kFloats * sizeof(float);
  Plane in, out, bias;
  const Complex* spectra;
  int64_t tiles, multiplier;
  bool has_bias;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::line_of(block.thread());
    float* const room = block.shared<float>();
    const int64_t blocks = divide_up(tiles, Shape::kTiles);
    const int64_t channel = block.index() / blocks;
    const int64_t first = block.index() % blocks * Shape::kTiles;
    for (int i = 0; i < Shape::kTiles && first + i < tiles; ++i) {
      in.load<Shape, S>(block, in.place(first + i, channel / multiplier),
                        room + i * Shape::kFloats);
    }
    Line<S> line;
    Line<S> product;
    Shape::forward(block, room + g * Shape::kFloats, j, line);
    const Complex* const from = spectra + channel * Shape::kElements + j;
    multiply_column<S, false>(line, j, [&](int k) { return from[k * Shape::kHalf]; }, product);
    Shape::inverse(block, room + g * Shape::kFloats, j, product);
    const float addend = has_bias ? bias.read(channel) : 0.0f;
    for (int i = 0; i < Shape::kTiles && first + i < tiles; ++i) {
      out.store<Shape, S>(block, out.place(first + i, channel), room + i * Shape::kFloats, addend);
    }
  }
};

// Sums of products of spectra, in shared memory beside the tiles; one sum per tile of the block.
template <int S>
struct PerChannelSums {
  using Shape = Tile < S, S<72 ? tiles_per_block(S) / 2 : 1>;  // within 99 KiB up to S = 72
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kSpectrum =
      2 * S * Shape::kThreads;  // floats; a thread's lie kThreads apart
  static constexpr size_t kSharedBytes =
      (Shape::kTiles * Shape::kFloats + 2 * kSpectrum) * sizeof(float);
  Plane in, grad;
  Complex* sums;  // [channel][chunk][tile of the block][frequency][column]
  int64_t tiles, multiplier, chunks, chunk_tiles;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int thread = block.thread();
    const int g = Shape::tile_of(thread);
    const int j = Shape::line_of(thread);
    float* const room = block.shared<float>();
    float* const tile = room + g * Shape::kFloats;
    float* const spectrum = room + Shape::kTiles * Shape::kFloats + thread;
    float* const sum = spectrum + kSpectrum;
    const int64_t channel = block.index() / chunks;
    const int64_t begin = block.index() % chunks * chunk_tiles;
    const int64_t end = least(begin + chunk_tiles, tiles);
    for (int i = 0; i < 2 * S; ++i) sum[i * kThreads] = 0;
    Line<S> line;
    Line<S> product;
    for (int64_t first = begin; first < end; first += Shape::kTiles) {
      load(block, grad, channel, first, end, room);
      Shape::forward(block, tile, j, line);
      unrolled<S>([&](auto i) {
        constexpr int k = decltype(i)::value;
        spectrum[2 * k * kThreads] = line.re[position<S>(k)];
        spectrum[(2 * k + 1) * kThreads] = line.im[position<S>(k)];
      });
      block.sync();
      load(block, in, channel / multiplier, first, end, room);
      Shape::forward(block, tile, j, line);
      const auto factor = [&](int k) {
        return Complex{spectrum[2 * k * kThreads], spectrum[(2 * k + 1) * kThreads]};
      };
      multiply_column<S, true>(line, j, factor, product);
      unrolled<S>([&](auto i) {
        constexpr int k = decltype(i)::value;
        sum[2 * k * kThreads] += product.re[k];
        sum[(2 * k + 1) * kThreads] += product.im[k];
      });
      block.sync();
    }
    Complex* const to = sums + (block.index() * Shape::kTiles + g) * Shape::kElements + j;
    for (int k = 0; k < S; ++k) {
      to[k * Shape::kHalf] = {sum[2 * k * kThreads], sum[(2 * k + 1) * kThreads]};
    }
  }

  // Tiles behind the last one are zero.
  GRAPHSCALE_DEVICE void load(const Block& block, const Plane& from, int64_t channel, int64_t first,
                              int64_t end, float* room) const {
    for (int i = 0; i < Shape::kTiles; ++i) {
      float* const tile = room + i * Shape::kFloats;
      if (first + i < end) {
        from.load<Shape, S>(block, from.place(first + i, channel), tile);
      } else {
        for (int e = block.thread(); e < Shape::kFloats; e += kThreads) tile[e] = 0;
      }
    }
  }
};

// taps <- the inverse of the sum of a channel's sums.
template <int S>
struct SumsToTaps {
  using Shape = Tile<S, tiles_per_block(S)>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr size_t kSharedBytes = Shape::kTiles * Shape::kFloats * sizeof(float);
  Plane taps;
  const Complex* sums;
  int64_t channels, parts;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const int g = Shape::tile_of(block.thread());
    const int j = Shape::line_of(block.thread());
    float* const room = block.shared<float>();
    const int64_t first = block.index() * Shape::kTiles;
    const int64_t channel = least(first + g, channels - 1);
    constexpr float kScale = 0.25f / (S * S);
    Line<S> line;
    unrolled<S>([&](auto i) {
      constexpr int k = decltype(i)::value;
      line.re[k] = 0;
      line.im[k] = 0;
    });
    for (int64_t part = 0; part < parts; ++part) {
      const Complex* const from = sums + (channel * parts + part) * Shape::kElements + j;
      unrolled<S>([&](auto i) {
        constexpr int k = decltype(i)::value;
        const Complex value = from[k * Shape::kHalf];
        line.re[k] += kScale * value.re;
        line.im[k] += kScale * value.im;
      });
    }
    Shape::inverse(block, room + g * Shape::kFloats, j, line);
    for (int i = 0; i < Shape::kTiles && first + i < channels; ++i) {
      taps.store<Shape, S>(block, taps.place(0, first + i), room + i * Shape::kFloats, 0.0f);
    }
  }
};

constexpr int64_t kBlocksWanted = 132 * 4;  // to fill the largest GPU

}  // namespace

int64_t channel_spectra_count(const ConvGeometry& g, int size) {
  return g.out_channels * size * size / 2;
}

void make_channel_spectra(const Context& context, const ConvGeometry& g, int size,
                          const Plane& taps, Complex* spectra) {
  with_size(size, [&](auto s) {
    using Kernel = ChannelSpectra<decltype(s)::value>;
    launch_blocks(context, divide_up(g.out_channels, Kernel::Shape::kTiles), Kernel::kSharedBytes,
                  Kernel{taps, spectra, g.out_channels});
  });
}

void convolve_per_channel(const Context& context, int64_t channels, int64_t multiplier, int size,
                          const Layout& layout, const Complex* spectra, const Plane* bias) {
  with_size(size, [&](auto s) {
    using Kernel = PerChannel<decltype(s)::value>;
    launch_blocks(context, channels * divide_up(layout.tiles, Kernel::Shape::kTiles),
                  Kernel::kSharedBytes,
                  Kernel{layout.in, layout.out, bias == nullptr ? Plane{} : *bias, spectra,
                         layout.tiles, multiplier, bias != nullptr});
  });
}

void correlate_per_channel(const Context& context, int64_t channels, int64_t multiplier, int size,
                           const Layout& layout) {
  with_size(size, [&](auto s) {
    using Sums = PerChannelSums<decltype(s)::value>;
    using Taps = SumsToTaps<decltype(s)::value>;
    const int64_t rounds = divide_up(layout.tiles, Sums::Shape::kTiles);
    const int64_t chunks = std::clamp<int64_t>(divide_up(kBlocksWanted, channels), 1, rounds);
    const int64_t chunk_tiles = divide_up(rounds, chunks) * Sums::Shape::kTiles;
    const int64_t parts = chunks * Sums::Shape::kTiles;
    const ScratchArray<Complex> sums(context, channels * parts * Sums::Shape::kElements);
    launch_blocks(
        context, channels * chunks, Sums::kSharedBytes,
        Sums{layout.in, layout.out, sums.get(), layout.tiles, multiplier, chunks, chunk_tiles});
    launch_blocks(context, divide_up(channels, Taps::Shape::kTiles), Taps::kSharedBytes,
                  Taps{layout.taps, sums.get(), channels, parts});
  });
}

}  // namespace graphscale::cuda
