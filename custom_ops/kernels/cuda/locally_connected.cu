// The locally connected layer on CUDA: see kernels/cpu/locally_connected.cpp for what it computes.
//
// Every output position is one small product of the position's weights [F, Q], Q = C kH kW, with
// the batch's patches [N, Q]; a block makes 64 x 64 numbers of one position. Images and results are
// transposed first and last, so that a block reads and writes at least 64 neighbouring numbers at
// once (where there are as many), and weights in runs of Q. Cost: 2 N F Q H_out W_out operations in
// each pass; below about 100 samples it is the reading (or writing) of the weights, once. The
// gradient to x writes the patches' gradients, N Q H_out W_out, for as many channels as 256 MiB
// hold, and gathers them, so that no two blocks add to one number.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/product_tile.h"
#include "kernels/locally_connected_sizes.h"

namespace graphscale::cuda {
namespace {

constexpr int64_t kScratchBytes = int64_t{1} << 28;

using Sizes = LocallyConnectedSizes;

// to[columns, rows] <- from[rows, columns], 32 x 32 numbers at once.
template <typename T>
struct Transpose {
  static constexpr int kThreads = 256;
  static constexpr int kSize = kWarp;
  static constexpr int kPitch = kSize + 1;
  static constexpr size_t kSharedBytes = kSize * kPitch * sizeof(T);
  const T* from;
  T* to;
  int64_t rows, columns;
  int64_t blocks() const { return divide_up(rows, kSize) * divide_up(columns, kSize); }
  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    T* const tile = block.shared<T>();
    // Rows are read and columns are written as runs of 32 numbers; the odd pitch keeps the turned
    // reads free of bank conflicts.
    const int64_t across = divide_up(columns, kSize);
    const int64_t row0 = block.index() / across * kSize;
    const int64_t column0 = block.index() % across * kSize;
    const int lane = block.thread() % kWarp;
    for (int i = block.thread() / kWarp; i < kSize; i += kThreads / kWarp) {
      if (row0 + i < rows && column0 + lane < columns) {
        tile[i * kPitch + lane] = from[(row0 + i) * columns + column0 + lane];
      }
    }
    block.sync();
    for (int i = block.thread() / kWarp; i < kSize; i += kThreads / kWarp) {
      if (column0 + i < columns && row0 + lane < rows) {
        to[(column0 + i) * rows + row0 + lane] = tile[lane * kPitch + i];
      }
    }
  }
};

template <typename T>
void transpose(const Context& context, const T* from, T* to, int64_t rows, int64_t columns) {
  const Transpose<T> body{from, to, rows, columns};
  launch_blocks(context, body.blocks(), Transpose<T>::kSharedBytes, body);
}

// A transposed copy.
template <typename T>
class Turned {
 public:
  Turned(const Context& context, const Tensor& from, int64_t rows, int64_t columns)
      : memory_(context, rows * columns) {
    transpose(context, from.data<T>(), memory_.get(), rows, columns);
  }
  const T* get() const { return memory_.get(); }

 private:
  ScratchArray<T> memory_;
};

// offset[q]: where in an image element q of a patch is, counted from the patch's first.
struct PatchOffsets {
  Sizes s;
  int64_t* offset;
  GRAPHSCALE_DEVICE void operator()(int64_t q) const {
    const int64_t tap = q % s.kernel();
    offset[q] = (q / s.kernel() * s.height + tap / s.kernel_width) * s.width + tap % s.kernel_width;
  }
};

// The batch's images, element by element [elements, batch], and where a patch's elements are in
// them.
template <typename T>
struct Images {
  ScratchArray<int64_t> offset;
  Turned<T> images;

  Images(const Context& context, const Sizes& s, const Tensor& x)
      : offset(context, s.patch()), images(context, x, s.batch, s.image()) {
    for_each_index(context, s.patch(), PatchOffsets{s, offset.get()});
  }
};

// A block's tile of one position's product [rows, columns].
template <typename T, bool kSplit>
struct PositionProduct {
  using Wide = typename Accumulator<T>::type;
  using Product = ProductTile<Wide, kSplit>;
  static constexpr int kThreads = Product::kThreads;
  static constexpr size_t kSharedBytes = Product::kRoom * sizeof(Wide);

  int64_t position, row0, column0, rows, columns;

  static int64_t blocks(int64_t positions, int64_t rows, int64_t columns) {
    return positions * divide_up(rows, Product::kSize) * divide_up(columns, Product::kSize);
  }
  // Neighbouring blocks have neighbouring positions, whose patches overlap.
  GRAPHSCALE_DEVICE PositionProduct(int64_t index, int64_t positions, int64_t all_rows,
                                    int64_t all_columns) {
    const int64_t across = divide_up(all_columns, Product::kSize);
    position = index % positions;
    row0 = index / positions / across * Product::kSize;
    column0 = index / positions % across * Product::kSize;
    rows = min<int64_t>(Product::kSize, all_rows - row0);
    columns = min<int64_t>(Product::kSize, all_columns - column0);
  }

  // write(row, column, sum) for all of it; left(row, k) and right(column, k) count from the tile's
  // first ones.
  template <Along kLeft, Along kRight, typename Left, typename Right, typename Write>
  GRAPHSCALE_DEVICE void run(const Block& block, int64_t depth, const Left& left,
                             const Right& right, const Write& write) const {
    typename Product::Sums sums;
    Product::template multiply<kLeft, kRight>(block, block.shared<Wide>(), rows, columns, depth,
                                              left, right, sums);
    Product::for_each(block.thread(), rows, columns, sums, write);
  }
};

// y [positions, batch, filters] from images [elements, batch].
template <typename T, bool kSplit>
struct Forward {
  using Product = PositionProduct<T, kSplit>;
  using Wide = typename Product::Wide;
  static constexpr int kThreads = Product::kThreads;
  Sizes s;
  const T* images;
  const T* weight;
  const int64_t* offset;
  T* y;
  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const Product p(block.index(), s.positions(), s.filters, s.batch);
    const T* const kernel = weight + (p.row0 * s.positions() + p.position) * s.patch();
    const T* const from = images + s.corner(p.position) * s.batch + p.column0;
    T* const to = y + (p.position * s.batch + p.column0) * s.filters + p.row0;
    p.template run<Along::kDepth, Along::kOutside>(
        block, s.patch(),
        [&](int f, int64_t q) {
          return static_cast<Wide>(widen(kernel[f * s.positions() * s.patch() + q]));
        },
        [&](int n, int64_t q) { return static_cast<Wide>(widen(from[offset[q] * s.batch + n])); },
        [&](int f, int n, Wide sum) { to[n * s.filters + f] = narrow<T>(sum); });
  }
};

// patches [positions, elements, batch] of some channels from grad [positions, batch, filters].
template <typename T, bool kSplit>
struct PatchGradients {
  using Product = PositionProduct<T, kSplit>;
  using Wide = typename Product::Wide;
  static constexpr int kThreads = Product::kThreads;
  Sizes s;
  const T* grad;
  const T* weight;  // from the first of the channels on
  Wide* patches;
  int64_t elements;  // of a patch, in these channels
  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const Product p(block.index(), s.positions(), elements, s.batch);
    const T* const kernel = weight + p.position * s.patch() + p.row0;
    const T* const from = grad + (p.position * s.batch + p.column0) * s.filters;
    Wide* const to = patches + (p.position * elements + p.row0) * s.batch + p.column0;
    p.template run<Along::kOutside, Along::kDepth>(
        block, s.filters,
        [&](int q, int64_t f) {
          return static_cast<Wide>(widen(kernel[f * s.positions() * s.patch() + q]));
        },
        [&](int n, int64_t f) { return static_cast<Wide>(widen(from[n * s.filters + f])); },
        [&](int q, int n, Wide sum) { to[q * s.batch + n] = sum; });
  }
};

// One element of the images' gradients [elements, batch], of some channels.
template <typename T>
struct GatherPatches {
  using Wide = typename Accumulator<T>::type;
  Sizes s;
  const Wide* patches;
  T* images;  // from the first of the channels on
  int64_t elements;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t n = i % s.batch;
    const int64_t column = i / s.batch % s.width;
    const int64_t row = i / s.batch / s.width % s.height;
    const int64_t channel = i / s.batch / s.width / s.height;
    Wide sum = 0;
    // All output positions whose patch holds this element.
    for (int64_t k = row % s.stride_y; k < s.kernel_height && k <= row; k += s.stride_y) {
      const int64_t y = (row - k) / s.stride_y;
      if (y >= s.out_height) continue;
      for (int64_t l = column % s.stride_x; l < s.kernel_width && l <= column; l += s.stride_x) {
        const int64_t x = (column - l) / s.stride_x;
        if (x >= s.out_width) continue;
        const int64_t element = channel * s.kernel() + k * s.kernel_width + l;
        sum += patches[((y * s.out_width + x) * elements + element) * s.batch + n];
      }
    }
    images[i] = narrow<T>(sum);
  }
};

// The gradient to weight [filters, positions, patch] from images [elements, batch] and grad
// [positions, batch, filters].
template <typename T, bool kSplit>
struct GradWeight {
  using Product = PositionProduct<T, kSplit>;
  using Wide = typename Product::Wide;
  static constexpr int kThreads = Product::kThreads;
  Sizes s;
  const T* grad;
  const T* images;
  const int64_t* offset;
  T* out;
  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    const Product p(block.index(), s.positions(), s.filters, s.patch());
    const T* const slopes = grad + p.position * s.results() + p.row0;
    const T* const from = images + s.corner(p.position) * s.batch;
    const int64_t* const places = offset + p.column0;
    T* const to = out + (p.row0 * s.positions() + p.position) * s.patch() + p.column0;
    p.template run<Along::kOutside, Along::kDepth>(
        block, s.batch,
        [&](int f, int64_t n) { return static_cast<Wide>(widen(slopes[n * s.filters + f])); },
        [&](int q, int64_t n) { return static_cast<Wide>(widen(from[places[q] * s.batch + n])); },
        [&](int f, int q, Wide sum) { to[f * s.positions() * s.patch() + q] = narrow<T>(sum); });
  }
};

template <typename T, template <typename, bool> class Pass, typename... Arguments>
void launch(const Context& context, int64_t positions, int64_t rows, int64_t columns,
            const Arguments&... arguments) {
  with_accuracy<T>([&](auto split) {
    using Body = Pass<T, decltype(split)::value>;
    launch_blocks(context, Body::Product::blocks(positions, rows, columns),
                  Body::Product::kSharedBytes, Body{arguments...});
  });
}

template <typename T>
void forward(const Call& call) {
  const Context& context = call.context;
  const Sizes s = locally_connected_sizes(call, call.inputs[0], call.inputs[1]);
  const Images<T> x(context, s, call.inputs[0]);
  const ScratchArray<T> y(context, s.positions() * s.results());
  launch<T, Forward>(context, s.positions(), s.filters, s.batch, s, x.images.get(),
                     call.inputs[1].data<T>(), x.offset.get(), y.get());
  transpose(context, y.get(), call.outputs[0].data<T>(), s.positions(), s.results());
}

template <typename T>
void grad_input(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Context& context = call.context;
  const Sizes s = locally_connected_sizes(call, call.inputs[2], call.inputs[1]);
  const Turned<T> grad(context, call.inputs[0], s.results(), s.positions());
  const ScratchArray<T> images(context, s.batch * s.image());
  const int64_t channel_bytes =
      s.positions() * s.kernel() * s.batch * static_cast<int64_t>(sizeof(Wide));
  const int64_t chunk = std::clamp<int64_t>(kScratchBytes / std::max<int64_t>(1, channel_bytes), 1,
                                            std::max<int64_t>(1, s.channels));
  const ScratchArray<Wide> patches(context, chunk * s.positions() * s.kernel() * s.batch);
  // Some channels at a time: gradients of their patches, then gathered to images.
  for (int64_t first = 0; first < s.channels; first += chunk) {
    const int64_t count = std::min(chunk, s.channels - first);
    const int64_t elements = count * s.kernel();
    launch<T, PatchGradients>(context, s.positions(), elements, s.batch, s, grad.get(),
                              call.inputs[1].data<T>() + first * s.kernel(), patches.get(),
                              elements);
    const int64_t channel = s.height * s.width * s.batch;
    for_each_index(context, count * channel,
                   GatherPatches<T>{s, patches.get(), images.get() + first * channel, elements});
  }
  transpose(context, images.get(), call.outputs[0].data<T>(), s.image(), s.batch);
}

template <typename T>
void grad_weight(const Call& call) {
  const Context& context = call.context;
  const Sizes s = locally_connected_sizes(call, call.inputs[1], call.inputs[2]);
  const Images<T> x(context, s, call.inputs[1]);
  const Turned<T> grad(context, call.inputs[0], s.results(), s.positions());
  launch<T, GradWeight>(context, s.positions(), s.filters, s.patch(), s, grad.get(), x.images.get(),
                        x.offset.get(), call.outputs[0].data<T>());
}

}  // namespace

void locally_connected(const Call& call) {
  dispatch(call.type, [&](auto zero) { forward<decltype(zero)>(call); });
}

void locally_connected_grad_input(const Call& call) {
  dispatch(call.type, [&](auto zero) { grad_input<decltype(zero)>(call); });
}

void locally_connected_grad_weight(const Call& call) {
  dispatch(call.type, [&](auto zero) { grad_weight<decltype(zero)>(call); });
}

}  // namespace graphscale::cuda
