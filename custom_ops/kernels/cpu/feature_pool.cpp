// Pooling over features (fbcunn FeatureLPPooling; maxout of Goodfellow et al. 2013): windows of
// `width` features, `stride` apart, of x [N, C, ...].
//
// x is seen as [N, C, M]; inner loops run over the M contiguous numbers, and over all features
// where no window is involved. Cost: N * C_out * width * M operations, and for the norm N * C * M
// powers; x and y go through memory once, in blocks of kBlock numbers that stay in the first-level
// cache between the steps.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/vector_loops.h"
#include "kernels/cpu/widen.h"

namespace graphscale {
namespace {

struct Windows {
  int64_t batch, features, inner, width, stride, outputs;
};

Windows windows(const Tensor& x, const Attributes& attributes) {
  const int64_t width = attributes.integer("width");
  const int64_t stride = attributes.integer("stride");
  const int64_t features = x.shape[1];
  int64_t inner = 1;
  for (size_t d = 2; d < x.shape.size(); ++d) inner *= x.shape[d];
  return {x.shape[0], features, inner, width, stride, (features - width) / stride + 1};
}

// The shape of x with its features pooled.
Dims pooled(ShapeCall& call, size_t x) {
  const int64_t width = call.attributes.bounded("width", 1);
  const int64_t stride = call.attributes.bounded("stride", 1);
  call.require_rank_at_least(x, 2);
  Dims shape = call.inputs[x];
  shape[1] = compute_dim(
      [&](int64_t features) {
        if (features < width) {
          fail("x has " + std::to_string(features) + " features, fewer than the width " +
               std::to_string(width));
        }
        return (features - width) / stride + 1;
      },
      shape[1]);
  return shape;
}

double positive_power(const Attributes& attributes) {
  const double power = attributes.number("power");
  if (!(power > 0) || std::isinf(power)) {
    fail("power is " + std::to_string(power) + "; it must be positive and finite");
  }
  return power;
}

constexpr int64_t kBlock = 4096;  // numbers that stay in the first cache
constexpr int64_t kShort = 8;     // shorter inner loops do not pay for a call

// body(sample, first feature out, last + 1, first column, last + 1) for blocks of the output, in
// parallel; whole_columns: a block has all features of its columns.
template <typename F>
void for_each_block(const Context& context, const Windows& w, bool whole_columns, const F& body) {
  if (w.inner == 0) return;
  // A block is about kBlock numbers: as many columns as that, then as many windows.
  const int64_t columns =
      std::min(w.inner, whole_columns ? std::max(kShort, kBlock / w.features) : kBlock);
  const int64_t rows =
      whole_columns ? w.outputs
                    : std::min(w.outputs, std::max<int64_t>(1, kBlock / (columns * w.stride)));
  const int64_t across = (w.inner + columns - 1) / columns;
  const int64_t down = (w.outputs + rows - 1) / rows;
  parallel_ranges(context, w.batch * down * across, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t column = block % across * columns;
      const int64_t row = block / across % down * rows;
      body(block / across / down, row, std::min(w.outputs, row + rows), column,
           std::min(w.inner, column + columns));
    }
  });
}

// One member of every window: to[j, :] = from[j * stride, :], for j < outputs.
template <typename Wide>
void gather_members(const Windows& w, const Wide* from, int64_t outputs, Wide* to) {
  for (int64_t j = 0; j < outputs; ++j) {
    for (int64_t m = 0; m < w.inner; ++m) to[j * w.inner + m] = from[j * w.stride * w.inner + m];
  }
}

// Its adjoint: to[j * stride, :] += from[j, :].
template <typename Wide>
void add_members(const Windows& w, const Wide* from, int64_t outputs, Wide* to) {
  for (int64_t j = 0; j < outputs; ++j) {
    for (int64_t m = 0; m < w.inner; ++m) to[j * w.stride * w.inner + m] += from[j * w.inner + m];
  }
}

template <typename T>
void lp_pool(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Windows w = windows(call.inputs[0], call.attributes);
  const Wide power = static_cast<Wide>(call.attributes.number("power"));
  const WideInput<T> x(call.context, call.inputs[0]);
  const WideOutput<T> y(call.context, call.outputs[0]);
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  for_each_block(
      call.context, w, false,
      [&](int64_t sample, int64_t row, int64_t row_end, int64_t column, int64_t column_end) {
        // |x|^p once per feature of the block, although windows overlap, then sums of `width` rows
        // of powers and their roots. With few columns the roots of the whole block are taken
        // together, so that vectors are full.
        const int64_t columns = column_end - column;
        const int64_t features = (row_end - 1 - row) * w.stride + w.width;
        const ScratchArray<Wide> powers(call.context, features * columns);
        const Wide* const from =
            x.get() + (sample * w.features + row * w.stride) * w.inner + column;
        if (columns == w.inner) {
          loops.absolute_power(features * columns, from, power, powers.get());
        } else {
          for (int64_t i = 0; i < features; ++i) {
            loops.absolute_power(columns, from + i * w.inner, power, powers.get() + i * columns);
          }
        }
        for (int64_t j = row; j < row_end; ++j) {
          const Wide* const window = powers.get() + (j - row) * w.stride * columns;
          Wide* const to = y.get() + (sample * w.outputs + j) * w.inner + column;
          if (columns >= kShort) {
            loops.sum(columns, w.width, columns, window, to);
            loops.power(columns, to, 1 / power, to);
            continue;
          }
          for (int64_t m = 0; m < columns; ++m) {
            Wide sum = 0;
            for (int64_t i = 0; i < w.width; ++i) sum += window[i * columns + m];
            to[m] = sum;
          }
        }
        if (columns < kShort) {
          Wide* const to = y.get() + (sample * w.outputs + row) * w.inner;
          loops.power((row_end - row) * columns, to, 1 / power, to);
        }
      });
}

// The gradient to x has the shape of x, the second input; all others have that of the pooled x.
void grad_shape(ShapeCall& call) {
  const Dims shape = pooled(call, 1);
  for (size_t input = 0; input < call.inputs.size(); ++input) {
    if (input == 1) continue;
    call.require_rank(input, shape.size());
    for (size_t d = 0; d < shape.size(); ++d) {
      call.require_equal(call.inputs[input][d], shape[d],
                         "the shapes of " + call.input_names[input] + " and of the pooled x");
    }
  }
  call.outputs[0] = call.inputs[1];
}

// With few columns the first members of all windows are taken together, then all second ones, ...
template <typename Wide>
void lp_grad_of_few_columns(const Context& context, const Windows& w, Wide power, const Wide* grad,
                            const Wide* x, const Wide* y, Wide* result) {
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  const int64_t count = w.outputs * w.inner;
  parallel_ranges(context, w.batch, 1, [&](int64_t begin, int64_t end) {
    const ScratchArray<Wide> members(context, count);
    const ScratchArray<Wide> parts(context, count);
    for (int64_t sample = begin; sample < end; ++sample) {
      const int64_t first = sample * w.features * w.inner;
      // Windows side by side of 2, 4 or 8 numbers are dealt to vectors by shuffles.
      if (w.inner == 1 && w.stride == w.width &&
          loops.norm_gradient_of_windows(count, w.width, grad + sample * count, x + first,
                                         y + sample * count, power - 1, result + first)) {
        std::fill(result + first + count * w.width, result + first + w.features, Wide(0));
        continue;
      }
      std::fill_n(result + first, w.features * w.inner, Wide(0));
      for (int64_t i = 0; i < w.width; ++i) {
        gather_members(w, x + first + i * w.inner, w.outputs, members.get());
        std::fill_n(parts.get(), count, Wide(0));
        loops.add_norm_gradient(count, grad + sample * count, members.get(), y + sample * count,
                                power - 1, parts.get());
        add_members(w, parts.get(), w.outputs, result + first + i * w.inner);
      }
    }
  });
}

// grad_x_i = sum over the windows j around i of grad_j sign(x_i) (|x_i| / y_j)^(power - 1), zero
// where x_i or y_j is.
template <typename T>
void lp_pool_grad(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Windows w = windows(call.inputs[1], call.attributes);
  const Wide power = static_cast<Wide>(call.attributes.number("power"));
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> x(call.context, call.inputs[1]);
  const WideInput<T> y(call.context, call.inputs[2]);
  const WideOutput<T> result(call.context, call.outputs[0]);
  if (w.inner < kShort) {
    return lp_grad_of_few_columns(call.context, w, power, grad.get(), x.get(), y.get(),
                                  result.get());
  }
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  const int64_t grain = std::max<int64_t>(1, (1 << 12) / w.inner);
  parallel_ranges(call.context, w.batch * w.features, grain, [&](int64_t begin, int64_t end) {
    std::fill(result.get() + begin * w.inner, result.get() + end * w.inner, Wide(0));
    for (int64_t row = begin; row < end; ++row) {
      // A task owns rows of grad_x and walks the windows around each: no two tasks add to one
      // number.
      const int64_t feature = row % w.features;
      const int64_t first = feature < w.width ? 0 : (feature - w.width) / w.stride + 1;
      const int64_t last = std::min(feature / w.stride, w.outputs - 1);
      for (int64_t j = first; j <= last; ++j) {
        const int64_t at = (row / w.features * w.outputs + j) * w.inner;
        loops.add_norm_gradient(w.inner, grad.get() + at, x.get() + row * w.inner, y.get() + at,
                                power - 1, result.get() + row * w.inner);
      }
    }
  });
}

// All members of some neighbouring windows, [width, windows, inner].
template <typename Wide>
void gather_windows(const Windows& w, const Wide* from, int64_t outputs, Wide* to) {
  // Else the i-th members of all windows are gathered into one long row, which fills vectors, and
  // their gradients are scattered back.
  for (int64_t i = 0; i < w.width; ++i) {
    gather_members(w, from + i * w.inner, outputs, to + i * outputs * w.inner);
  }
}

template <typename T>
void maxout_kernel(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Windows w = windows(call.inputs[0], call.attributes);
  const WideInput<T> x(call.context, call.inputs[0]);
  const WideOutput<T> y(call.context, call.outputs[0]);
  int64_t* const index = call.outputs[1].data<int64_t>();  // null where it is not wanted
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  for_each_block(
      call.context, w, false,
      [&](int64_t sample, int64_t row, int64_t row_end, int64_t column, int64_t column_end) {
        const Wide* const from =
            x.get() + (sample * w.features + row * w.stride) * w.inner + column;
        const int64_t to = (sample * w.outputs + row) * w.inner + column;
        const int64_t count = (row_end - row) * w.inner;
        int64_t* const places = index == nullptr ? nullptr : index + to;
        // Three ways to fill vectors: windows of a single column side by side; few columns,
        // gathered by member; many columns, vectors along them.
        if (w.inner == 1) {
          loops.largest(count, w.width, w.stride, 1, from, y.get() + to, places);
        } else if (w.inner < kShort) {
          const ScratchArray<Wide> members(call.context, w.width * count);
          gather_windows(w, from, row_end - row, members.get());
          loops.largest(count, w.width, 1, count, members.get(), y.get() + to, places);
        } else {
          for (int64_t at = 0; at < count; at += w.inner) {
            loops.largest(column_end - column, w.width, 1, w.inner, from + at * w.stride,
                          y.get() + to + at, places == nullptr ? nullptr : places + at);
          }
        }
        // The loops count within a window; the index counts features of x.
        if (places == nullptr) return;
        for (int64_t j = row; j < row_end; ++j) {
          int64_t* const place = places + (j - row) * w.inner;
          for (int64_t m = 0; m < column_end - column; ++m) place[m] += j * w.stride;
        }
      });
}

// The place of each window's maximum is searched again: reading x costs no more than reading an
// index, which would have to be written and stored. Where windows overlap, a block has all windows
// of its columns.
template <typename T>
void maxout_grad_kernel(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Windows w = windows(call.inputs[1], call.attributes);
  const WideInput<T> grad(call.context, call.inputs[0]);
  const WideInput<T> x(call.context, call.inputs[1]);
  const WideOutput<T> result(call.context, call.outputs[0]);
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  for_each_block(
      call.context, w, w.stride < w.width,
      [&](int64_t sample, int64_t row, int64_t row_end, int64_t column, int64_t column_end) {
        const int64_t first = (sample * w.features + row * w.stride) * w.inner + column;
        const Wide* const from = x.get() + first;
        const Wide* const slopes = grad.get() + (sample * w.outputs + row) * w.inner + column;
        Wide* const to = result.get() + first;
        // Features behind the last window belong to the last block; they get zeros.
        const int64_t end = row_end == w.outputs ? w.features : row_end * w.stride;
        for (int64_t i = 0; i < end - row * w.stride; ++i) {
          std::fill_n(to + i * w.inner, column_end - column, Wide(0));
        }
        const int64_t count = (row_end - row) * w.inner;
        if (w.inner == 1)
          return loops.add_to_largest(count, w.width, w.stride, 1, from, slopes, to);
        if (w.inner >= kShort) {
          for (int64_t at = 0; at < count; at += w.inner) {
            loops.add_to_largest(column_end - column, w.width, 1, w.inner, from + at * w.stride,
                                 slopes + at, to + at * w.stride);
          }
          return;
        }
        // Few columns: gathered by member, searched, and the gradients scattered back.
        const ScratchArray<Wide> members(call.context, w.width * count);
        const ScratchArray<Wide> parts(call.context, w.width * count);
        gather_windows(w, from, row_end - row, members.get());
        std::fill_n(parts.get(), w.width * count, Wide(0));
        loops.add_to_largest(count, w.width, 1, count, members.get(), slopes, parts.get());
        for (int64_t i = 0; i < w.width; ++i) {
          add_members(w, parts.get() + i * count, row_end - row, to + i * w.inner);
        }
      });
}

}  // namespace

Operator feature_lp_pooling() {
  return Operator(
             "FeatureLPPooling",
             "The p-norm of windows of features: y_j = (sum over the window j of |x_i|^power)^(1 "
             "/ power).")
      .input("x", "[N, C, ...].")
      .output("y", "[N, floor((C - width) / stride) + 1, ...].")
      .required_attribute("width", int64_t{0}, "Features of one window.")
      .attribute("stride", int64_t{1}, "Features between two windows.")
      .attribute("power", 2.0, "p of the norm; positive.")
      .shape([](ShapeCall& call) {
        positive_power(call.attributes);
        call.outputs[0] = pooled(call, 0);
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { lp_pool<decltype(zero)>(call); });
      });
}

Operator feature_lp_pooling_grad() {
  return Operator("FeatureLPPoolingGrad", "Gradient of FeatureLPPooling to x.")
      .input("grad", "Gradient to y.")
      .input("x", "What FeatureLPPooling was given.")
      .input("y", "What FeatureLPPooling gave.")
      .output("grad_x", "The shape of x.")
      .required_attribute("width", int64_t{0}, "Features of one window.")
      .attribute("stride", int64_t{1}, "Features between two windows.")
      .attribute("power", 2.0, "p of the norm; positive.")
      .shape([](ShapeCall& call) {
        positive_power(call.attributes);
        grad_shape(call);
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { lp_pool_grad<decltype(zero)>(call); });
      });
}

Operator maxout() {
  return Operator("Maxout", "The largest value of windows of features, and its index.")
      .input("x", "[N, C, ...].")
      .output("y", "[N, floor((C - width) / stride) + 1, ...].")
      .optional_output("index", Type::kInt64, "Which feature of x it was; the first one of equals.")
      .required_attribute("width", int64_t{0}, "Features of one window.")
      .required_attribute("stride", int64_t{0}, "Features between two windows.")
      .shape([](ShapeCall& call) { call.outputs[0] = call.outputs[1] = pooled(call, 0); })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { maxout_kernel<decltype(zero)>(call); });
      });
}

Operator maxout_grad() {
  return Operator(
             "MaxoutGrad",
             "Gradient of Maxout to x: that of y goes to the first of the largest values of its "
             "window.")
      .input("grad", "Gradient to y.")
      .input("x", "What Maxout was given.")
      .output("grad_x", "The shape of x.")
      .required_attribute("width", int64_t{0}, "Features of one window.")
      .required_attribute("stride", int64_t{0}, "Features between two windows.")
      .shape(grad_shape)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { maxout_grad_kernel<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
