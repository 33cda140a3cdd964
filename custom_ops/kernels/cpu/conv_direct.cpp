// Direct convolution for any type, number of dimensions and stride. Every pass unfolds a tile of
// output positions into a matrix with one row per (channel, kernel position) and multiplies: y = W
// U, grad U = W' grad, grad W = grad U'. Cost: 2 N F C/g K O operations; the unfolded tile is
// written and read once. One, two or three spatial dimensions are seen as three.
#include "kernels/cpu/conv_direct.h"

#include <algorithm>
#include <array>

#include "kernels/cpu/matmul.h"

namespace graphscale {
namespace {

constexpr int64_t kTileElements = 1 << 18;  // of an unfolded tile

using Triple = std::array<int64_t, 3>;

Triple triple(const Shape& shape, int64_t filler) {
  Triple result = {filler, filler, filler};
  std::copy(shape.begin(), shape.end(), result.begin() + (3 - shape.size()));
  return result;
}

// Rounded up; a may be negative, b is positive.
int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

class Unfolding {
 public:
  explicit Unfolding(const ConvGeometry& g)
      : in_(triple(g.in, 1)),
        kernel_(triple(g.kernel, 1)),
        out_(triple(g.out, 1)),
        stride_(triple(g.stride, 1)),
        dilation_(triple(g.dilation, 1)),
        pad_(triple(g.pad_begin, 0)),
        rows_(g.group_inputs() * g.kernel_size()),
        outputs_(g.out_size()),
        tile_(std::max<int64_t>(1,
                                std::min(outputs_, kTileElements / std::max<int64_t>(rows_, 1)))) {}

  int64_t rows() const { return rows_; }
  int64_t tile() const { return tile_; }
  int64_t tiles() const { return (outputs_ + tile_ - 1) / tile_; }
  int64_t begin(int64_t tile) const { return tile * tile_; }
  int64_t width(int64_t tile) const { return std::min(tile_, outputs_ - begin(tile)); }

  // visit(unfolded position, image position, count, step) for every run of elements inside the
  // image: neighbours in the unfolded tile lie `step` apart in the image. Positions in the unfolded
  // tile are row * width + column.
  template <typename F>
  void for_each(int64_t tile, const F& visit) const {
    const int64_t first = begin(tile);
    const int64_t columns = width(tile);
    int64_t row = 0;
    for (int64_t channel = 0; row < rows_; ++channel) {
      for (int64_t z = 0; z < kernel_[0]; ++z) {
        for (int64_t y = 0; y < kernel_[1]; ++y) {
          for (int64_t x = 0; x < kernel_[2]; ++x, ++row) {
            visit_row(channel, {z, y, x}, row * columns, first, columns, visit);
          }
        }
      }
    }
  }

 private:
  template <typename F>
  void visit_row(int64_t channel, const Triple& at, int64_t target, int64_t first, int64_t columns,
                 const F& visit) const {
    // The image position under output 0 at this kernel position.
    Triple offset;
    for (size_t d = 0; d < 3; ++d) offset[d] = at[d] * dilation_[d] - pad_[d];
    for (int64_t column = 0; column < columns;) {
      // One line of outputs, or what of it lies in the tile.
      const int64_t output = first + column;
      const int64_t ox = output % out_[2];
      const int64_t line = std::min(columns - column, out_[2] - ox);
      const int64_t iy = output / out_[2] % out_[1] * stride_[1] + offset[1];
      const int64_t iz = output / out_[2] / out_[1] * stride_[0] + offset[0];
      if (iy >= 0 && iy < in_[1] && iz >= 0 && iz < in_[0]) {
        const int64_t base = ((channel * in_[0] + iz) * in_[1] + iy) * in_[2];
        // Outputs begin <= ox + i < end of the line meet the image.
        const int64_t begin = std::max(ox, ceil_div(-offset[2], stride_[2]));
        const int64_t end = std::min(ox + line, ceil_div(in_[2] - offset[2], stride_[2]));
        if (begin < end) {
          visit(target + column + begin - ox, base + begin * stride_[2] + offset[2], end - begin,
                stride_[2]);
        }
      }
      column += line;
    }
  }

  Triple in_, kernel_, out_, stride_, dilation_, pad_;
  int64_t rows_, outputs_, tile_;
};

template <typename T>
void unfold(const Unfolding& unfolding, int64_t tile, const T* image, T* unfolded) {
  std::fill_n(unfolded, unfolding.rows() * unfolding.width(tile), T(0));
  unfolding.for_each(tile, [&](int64_t to, int64_t from, int64_t count, int64_t step) {
    if (step == 1) {
      std::copy_n(image + from, count, unfolded + to);
    } else {
      for (int64_t i = 0; i < count; ++i) unfolded[to + i] = image[from + i * step];
    }
  });
}

}  // namespace

template <typename T>
void conv_direct(const Context& context, const ConvGeometry& g, const T* x, const T* weight,
                 const T* bias, const Bounds& bounds, T* y) {
  const Unfolding unfolding(g);
  const int64_t tiles = unfolding.tiles();
  const int64_t outputs = g.out_size();
  const Context inner = one_thread(context);
  parallel_for(context, g.batch * g.groups * tiles, [&](int64_t task) {
    // A task: one tile of outputs of one group and image. Its unfolded inputs stay in the cache
    // while all filters of the group multiply them.
    const int64_t tile = task % tiles;
    const int64_t group = task / tiles % g.groups;
    const int64_t sample = task / tiles / g.groups;
    const int64_t width = unfolding.width(tile);
    const ScratchArray<T> unfolded(context, unfolding.rows() * width);
    unfold(unfolding, tile, x + (sample * g.groups + group) * g.group_inputs() * g.in_size(),
           unfolded.get());
    const int64_t filter = group * g.group_outputs();
    T* const to = y + (sample * g.out_channels + filter) * outputs + unfolding.begin(tile);
    for (int64_t f = 0; f < g.group_outputs(); ++f) {
      // The product adds to the bias.
      std::fill_n(to + f * outputs, width, bias == nullptr ? T(0) : bias[filter + f]);
    }
    matmul<T>(inner, g.group_outputs(), width, unfolding.rows(),
              {weight + filter * unfolding.rows(), unfolding.rows(), 1}, {unfolded.get(), width, 1},
              to, outputs, true);
    for (int64_t f = 0; are_finite(bounds) && f < g.group_outputs(); ++f) {
      for (int64_t i = 0; i < width; ++i) {
        T& value = to[f * outputs + i];  // NaN stays
        if (value < T(bounds.minimum)) value = T(bounds.minimum);
        if (value > T(bounds.maximum)) value = T(bounds.maximum);
      }
    }
  });
}

template <typename T>
void conv_direct_grad_input(const Context& context, const ConvGeometry& g, const T* grad,
                            const T* weight, T* grad_x) {
  const Unfolding unfolding(g);
  const int64_t outputs = g.out_size();
  const int64_t image = g.group_inputs() * g.in_size();
  const Context inner = one_thread(context);
  parallel_for(context, g.batch * g.groups, [&](int64_t task) {
    T* const to = grad_x + task * image;
    std::fill_n(to, image, T(0));
    const int64_t filter = task % g.groups * g.group_outputs();
    const T* const from = grad + (task / g.groups * g.out_channels + filter) * outputs;
    const ScratchArray<T> unfolded(context, unfolding.rows() * unfolding.tile());
    // Tiles one after another, since their parts of grad_x overlap.
    for (int64_t tile = 0; tile < unfolding.tiles(); ++tile) {
      const int64_t width = unfolding.width(tile);
      matmul<T>(inner, unfolding.rows(), width, g.group_outputs(),
                {weight + filter * unfolding.rows(), 1, unfolding.rows()},
                {from + unfolding.begin(tile), outputs, 1}, unfolded.get(), width, false);
      unfolding.for_each(tile, [&](int64_t from, int64_t at, int64_t count, int64_t step) {
        for (int64_t i = 0; i < count; ++i) to[at + i * step] += unfolded[from + i];
      });
    }
  });
}

template <typename T>
void conv_direct_grad_weight(const Context& context, const ConvGeometry& g, const T* grad,
                             const T* x, T* grad_weight) {
  const Unfolding unfolding(g);
  const int64_t outputs = g.out_size();
  const int64_t kernel = g.group_outputs() * unfolding.rows();
  const Context inner = g.groups >= context.threads ? one_thread(context) : context;
  // With as many groups as threads, a task owns a group; else the product itself is parallel.
  const auto group_gradient = [&](int64_t group) {
    T* const to = grad_weight + group * kernel;
    std::fill_n(to, kernel, T(0));
    const ScratchArray<T> unfolded(context, unfolding.rows() * unfolding.tile());
    for (int64_t sample = 0; sample < g.batch; ++sample) {
      const int64_t part = sample * g.groups + group;
      for (int64_t tile = 0; tile < unfolding.tiles(); ++tile) {
        const int64_t width = unfolding.width(tile);
        unfold(unfolding, tile, x + part * g.group_inputs() * g.in_size(), unfolded.get());
        matmul<T>(inner, g.group_outputs(), unfolding.rows(), width,
                  {grad + part * g.group_outputs() * outputs + unfolding.begin(tile), outputs, 1},
                  {unfolded.get(), 1, width}, to, unfolding.rows(), true);
      }
    }
  };
  if (g.groups >= context.threads) return parallel_for(context, g.groups, group_gradient);
  for (int64_t group = 0; group < g.groups; ++group) group_gradient(group);
}

#define GRAPHSCALE_INSTANTIATE(T)                                                                  \
  template void conv_direct<T>(const Context&, const ConvGeometry&, const T*, const T*, const T*,  \
                               const Bounds&, T*);                                                 \
  template void conv_direct_grad_input<T>(const Context&, const ConvGeometry&, const T*, const T*, \
                                          T*);                                                     \
  template void conv_direct_grad_weight<T>(const Context&, const ConvGeometry&, const T*,          \
                                           const T*, T*);
GRAPHSCALE_INSTANTIATE(float)
GRAPHSCALE_INSTANTIATE(double)

}  // namespace graphscale
