// Lookup tables (fbcunn LookupTableGPU and WeightedLookupTable): rows of a table, by index.
//
// The gradient sorts the indices and sums the rows of equal index one after another: every row of the
// result is written once, whatever the frequency of its word, and the sums do not depend on threads.
// Cost: the bytes of the rows read and written, and n log n for the sort.
#include <algorithm>
#include <numeric>

#include "kernels/widen.h"

namespace graphscale {
namespace {

constexpr int64_t kNoPadding = -1;

bool is_padding(int64_t index, int64_t padding) { return padding != kNoPadding && index == padding; }

void check_indices(const int64_t* indices, int64_t count, int64_t rows, int64_t padding) {
  for (int64_t i = 0; i < count; ++i) {
    if ((indices[i] < 0 || indices[i] >= rows) && !is_padding(indices[i], padding)) {
      fail("index " + std::to_string(indices[i]) + " at position " + std::to_string(i) +
           " is not in the table, whose indices are 0 to " + std::to_string(rows - 1));
    }
  }
}

void require_row_weights(ShapeCall& call, size_t indices, size_t row_weights) {
  const Dims& shape = call.inputs[indices];
  call.require_rank(row_weights, shape.size());
  for (size_t d = 0; d < shape.size(); ++d) {
    call.require_equal(shape[d], call.inputs[row_weights][d], "the shapes of indices and row_weights");
  }
}

void lookup_shape(ShapeCall& call) {
  call.require_rank(0, 2);
  call.outputs[0] = call.inputs[1];
  call.outputs[0].push_back(call.inputs[0][1]);
}

// factors: one per index, or null.
template <typename T>
void lookup(const Call& call, const T* factors) {
  using Wide = typename Accumulator<T>::type;
  const Tensor& weight = call.inputs[0];
  const int64_t* const indices = call.inputs[1].data<int64_t>();
  const int64_t count = call.inputs[1].size();
  const int64_t width = weight.shape[1];
  const int64_t padding = call.attributes.integer("padding_idx");
  check_indices(indices, count, weight.shape[0], padding);
  const T* const table = weight.data<T>();
  T* const out = call.outputs[0].data<T>();
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(width, 1));
  parallel_ranges(call.context, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* const row = out + i * width;
      if (is_padding(indices[i], padding)) {
        std::fill_n(row, width, T(0));
      } else if (factors == nullptr) {
        std::copy_n(table + indices[i] * width, width, row);
      } else {
        const T* const from = table + indices[i] * width;
        const Wide factor = static_cast<Wide>(factors[i]);
        for (int64_t d = 0; d < width; ++d) row[d] = T(factor * static_cast<Wide>(from[d]));
      }
    }
  });
}

// Inputs: grad [..., D], then indices and perhaps row_weights, then weight.
void grad_shape(ShapeCall& call) {
  const size_t weight = call.inputs.size() - 1;
  const Dims& indices = call.inputs[1];
  call.require_rank(weight, 2);
  call.require_rank(0, indices.size() + 1);
  for (size_t d = 0; d < indices.size(); ++d) {
    call.require_equal(call.inputs[0][d], indices[d], "the shapes of grad and indices");
  }
  call.require_equal(call.inputs[0].back(), call.inputs[weight][1], "the widths of grad and weight");
  if (weight == 3) require_row_weights(call, 1, 2);
  call.outputs[0] = call.inputs[weight];
}

template <typename T>
void grad(const Call& call, const T* factors) {
  using Wide = typename Accumulator<T>::type;
  const T* const from = call.inputs[0].data<T>();
  const int64_t* const indices = call.inputs[1].data<int64_t>();
  const int64_t count = call.inputs[1].size();
  const Tensor& result = call.outputs[0];
  const int64_t rows = result.shape[0];
  const int64_t width = result.shape[1];
  const int64_t padding = call.attributes.integer("padding_idx");
  check_indices(indices, count, rows, padding);

  const ScratchArray<int64_t> order(call.context, count);
  std::iota(order.get(), order.get() + count, int64_t{0});
  std::sort(order.get(), order.get() + count, [&](int64_t left, int64_t right) {
    return indices[left] != indices[right] ? indices[left] < indices[right] : left < right;
  });
  T* const out = result.data<T>();
  parallel_ranges(call.context, rows * width, 1 << 16, [&](int64_t begin, int64_t end) {
    std::fill(out + begin, out + end, T(0));
  });
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(width, 1));
  parallel_ranges(call.context, count, grain, [&](int64_t begin, int64_t end) {
    // A piece begins with its first new index and goes on to the end of its last one.
    while (begin > 0 && begin < end && indices[order[begin]] == indices[order[begin - 1]]) ++begin;
    if (begin >= end) return;
    const ScratchArray<Wide> sum(call.context, width);
    for (int64_t i = begin; i < end;) {
      const int64_t index = indices[order[i]];
      std::fill_n(sum.get(), width, Wide(0));
      for (; i < count && indices[order[i]] == index; ++i) {
        const T* const row = from + order[i] * width;
        const Wide factor = factors == nullptr ? Wide(1) : static_cast<Wide>(factors[order[i]]);
        for (int64_t d = 0; d < width; ++d) sum[d] += factor * static_cast<Wide>(row[d]);
      }
      if (is_padding(index, padding)) continue;
      for (int64_t d = 0; d < width; ++d) out[index * width + d] = T(sum[d]);
    }
  });
}

constexpr const char* kPaddingMeaning =
    "Index whose row is zero and gets no gradient; it need not be in the table. -1: none.";

constexpr const char* kIndicesMeaning =
    "Any shape; from 0 to V - 1, or padding_idx. Another index is an error; on a GPU, where nothing "
    "waits for the kernel to complain, its row is not-a-number.";

std::string given_indices(const std::string& op) {
  return "What " + op + " was given. An index that is not in the table is an error; on a GPU it gives "
         "no gradient.";
}

}  // namespace

Operator lookup_table() {
  return Operator("LookupTable", "Rows of a table: y[..., :] = weight[indices[...], :].")
      .input("weight", "Table [V, D].")
      .input("indices", Type::kInt64, kIndicesMeaning)
      .output("y", "The shape of indices, and D.")
      .attribute("padding_idx", kNoPadding, kPaddingMeaning)
      .shape(lookup_shape)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { lookup<decltype(zero)>(call, nullptr); });
      });
}

Operator lookup_table_grad() {
  return Operator("LookupTableGrad", "Gradient of LookupTable to weight, all rows of it.")
      .input("grad", "Gradient to y.")
      .input("indices", Type::kInt64, given_indices("LookupTable"))
      .input("weight", "Table [V, D]; only its shape is used.")
      .output("grad_weight", "[V, D].")
      .attribute("padding_idx", kNoPadding, kPaddingMeaning)
      .shape(grad_shape)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { grad<decltype(zero)>(call, nullptr); });
      });
}

Operator weighted_lookup_table() {
  return Operator("WeightedLookupTable",
                  "Weighted rows of a table: y[..., :] = row_weights[...] weight[indices[...], :].")
      .input("weight", "Table [V, D].")
      .input("indices", Type::kInt64, kIndicesMeaning)
      .input("row_weights", "The shape of indices.")
      .output("y", "The shape of indices, and D.")
      .attribute("padding_idx", kNoPadding, kPaddingMeaning)
      .shape([](ShapeCall& call) {
        lookup_shape(call);
        require_row_weights(call, 1, 2);
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) {
          using T = decltype(zero);
          lookup<T>(call, call.inputs[2].data<T>());
        });
      });
}

Operator weighted_lookup_table_grad() {
  return Operator("WeightedLookupTableGrad",
                  "Gradient of WeightedLookupTable to weight, all rows of it.")
      .input("grad", "Gradient to y.")
      .input("indices", Type::kInt64, given_indices("WeightedLookupTable"))
      .input("row_weights", "What WeightedLookupTable was given.")
      .input("weight", "Table [V, D]; only its shape is used.")
      .output("grad_weight", "[V, D].")
      .attribute("padding_idx", kNoPadding, kPaddingMeaning)
      .shape(grad_shape)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) {
          using T = decltype(zero);
          grad<T>(call, call.inputs[2].data<T>());
        });
      });
}

}  // namespace graphscale
