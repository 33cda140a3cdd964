// Lookup tables (fbcunn LookupTableGPU and WeightedLookupTable): rows of a table, by index.
//
// The gradient sorts the indices and sums the rows of equal index one after another: every row of
// the result is written once, whatever the frequency of its word, and the sums do not depend on
// threads. Cost: the bytes of the rows read and written; the sort, digit by digit, costs little in
// comparison.
#include <algorithm>
#include <type_traits>
#include <utility>

#include "core/operator.h"

namespace graphscale {
namespace {

constexpr int64_t kNoPadding = -1;

// Rows are anywhere in the table. Where that is larger than a cache, memory is asked for the
// beginning of a row, kEarly bytes, when the row kAhead places before it is copied.
constexpr int64_t kEarly = 512;
constexpr int64_t kAhead = 4;
constexpr int64_t kCache = 1 << 20;

template <typename T>
int64_t early_bytes(int64_t rows, int64_t width) {
  const int64_t row_bytes = width * static_cast<int64_t>(sizeof(T));
  return rows * row_bytes > kCache ? std::min(row_bytes, kEarly) : 0;
}

template <typename T>
void ask_for(const T* row, int64_t bytes) {
  const char* const begin = reinterpret_cast<const char*>(row);
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(begin + at);
}

bool is_padding(int64_t index, int64_t padding) {
  return padding != kNoPadding && index == padding;
}

void check_indices(const int64_t* indices, int64_t count, int64_t rows, int64_t padding) {
  // The highest bit shows a number below 0.
  const uint64_t last = static_cast<uint64_t>(rows) - 1;
  uint64_t signs = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t index = static_cast<uint64_t>(indices[i]);
    signs |= index | (last - index);
  }
  if (static_cast<int64_t>(signs) >= 0) return;
  for (int64_t i = 0; i < count; ++i) {
    if ((indices[i] < 0 || indices[i] >= rows) && !is_padding(indices[i], padding)) {
      fail("index " + std::to_string(indices[i]) + " at position " + std::to_string(i) +
           " is not in the table, whose indices are 0 to " + std::to_string(rows - 1));
    }
  }
}

// sum += factor * row
template <typename T, typename Wide>
void add_scaled(int64_t width, T factor, const T* row, Wide* sum) {
  const Wide wide = static_cast<Wide>(factor);
  for (int64_t d = 0; d < width; ++d) sum[d] += wide * static_cast<Wide>(row[d]);
}

void require_row_weights(ShapeCall& call, size_t indices, size_t row_weights) {
  const Dims& shape = call.inputs[indices];
  call.require_rank(row_weights, shape.size());
  for (size_t d = 0; d < shape.size(); ++d) {
    call.require_equal(shape[d], call.inputs[row_weights][d],
                       "the shapes of indices and row_weights");
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
  const int64_t early = early_bytes<T>(weight.shape[0], width);
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(width, 1));
  parallel_ranges(call.context, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (early > 0 && i + kAhead < end && !is_padding(indices[i + kAhead], padding)) {
        ask_for(table + indices[i + kAhead] * width, early);
      }
      // A row is zeros, a copy, or a copy times its factor.
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
  call.require_equal(call.inputs[0].back(), call.inputs[weight][1],
                     "the widths of grad and weight");
  if (weight == 3) require_row_weights(call, 1, 2);
  call.outputs[0] = call.inputs[weight];
}

// The positions of all indices but the padding's, sorted by index, equal ones in their order.
class SortedPositions {
 public:
  SortedPositions(const Context& context, const int64_t* indices, int64_t count, int64_t rows,
                  int64_t padding)
      : indices_(indices), order_(context, count), other_(context, count) {
    for (int64_t i = 0; i < count; ++i) {
      if (!is_padding(indices[i], padding)) order_[count_++] = i;
    }
    int64_t* from = order_.get();
    int64_t* to = other_.get();
    for (int shift = 0; ((rows - 1) >> shift) > 0; shift += kDigit) {
      sort_by_digit(shift, from, to);
      std::swap(from, to);
    }
    sorted_ = from;
  }

  int64_t count() const { return count_; }
  int64_t position(int64_t i) const { return sorted_[i]; }
  int64_t index(int64_t i) const { return indices_[sorted_[i]]; }
  // How many indices are below that row.
  int64_t below(int64_t row) const {
    return std::lower_bound(sorted_, sorted_ + count_, row,
                            [this](int64_t at, int64_t wanted) { return indices_[at] < wanted; }) -
           sorted_;
  }

 private:
  static constexpr int kDigit = 8;  // bits

  void sort_by_digit(int shift, const int64_t* from, int64_t* to) const {
    constexpr int64_t kDigits = int64_t{1} << kDigit;
    const auto digit = [&](int64_t at) { return (indices_[at] >> shift) & (kDigits - 1); };
    // Counting sort of one digit: how many have each, where each digit begins, then every position
    // to its place. It keeps the order of equal digits, so the last pass leaves all digits sorted.
    int64_t start[kDigits + 1] = {};
    for (int64_t i = 0; i < count_; ++i) ++start[digit(from[i]) + 1];
    for (int64_t d = 0; d < kDigits; ++d) start[d + 1] += start[d];
    for (int64_t i = 0; i < count_; ++i) to[start[digit(from[i])]++] = from[i];
  }

  const int64_t* indices_;
  ScratchArray<int64_t> order_, other_;
  const int64_t* sorted_;
  int64_t count_ = 0;
};

// The table's first row of a piece of the work, which is rows to write and positions to read.
int64_t first_row(const SortedPositions& sorted, int64_t rows, int64_t work) {
  int64_t low = 0;
  for (int64_t high = rows; low < high;) {
    const int64_t row = low + (high - low) / 2;
    if (row + sorted.below(row) < work) {
      low = row + 1;
    } else {
      high = row;
    }
  }
  return low;
}

template <typename T>
void grad(const Call& call, const T* factors) {
  using Wide = typename Accumulator<T>::type;
  constexpr bool kSame = std::is_same_v<T, Wide>;
  const T* const from = call.inputs[0].data<T>();
  const int64_t* const indices = call.inputs[1].data<int64_t>();
  const int64_t count = call.inputs[1].size();
  const Tensor& result = call.outputs[0];
  const int64_t rows = result.shape[0];
  const int64_t width = result.shape[1];
  const int64_t padding = call.attributes.integer("padding_idx");
  check_indices(indices, count, rows, padding);
  const SortedPositions sorted(call.context, indices, count, rows, padding);
  T* const out = result.data<T>();
  const int64_t early = early_bytes<T>(count, width);
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(width, 1));
  parallel_ranges(call.context, rows + sorted.count(), grain, [&](int64_t begin, int64_t end) {
    // Work is rows to write plus positions to read: tasks are equal however the words are
    // distributed.
    const int64_t last = first_row(sorted, rows, end);
    int64_t row = first_row(sorted, rows, begin);
    const ScratchArray<Wide> wide_sum(call.context, kSame ? 0 : width);
    for (int64_t i = sorted.below(row); row < last; ++row) {
      const int64_t next = i < sorted.count() ? std::min(sorted.index(i), last) : last;
      // Zeros up to the next row that has an index, then the sum of all rows of grad with that
      // index.
      std::fill(out + row * width, out + next * width, T(0));
      row = next;
      if (row == last) break;
      T* const to = out + row * width;
      Wide* sum;
      if constexpr (kSame) {
        sum = to;
      } else {
        sum = wide_sum.get();
      }
      std::fill_n(sum, width, Wide(0));
      for (; i < sorted.count() && sorted.index(i) == row; ++i) {
        if (early > 0 && i + kAhead < sorted.count()) {
          ask_for(from + sorted.position(i + kAhead) * width, early);
        }
        const int64_t position = sorted.position(i);
        add_scaled(width, factors == nullptr ? T(1) : factors[position], from + position * width,
                   sum);
      }
      if constexpr (!kSame) {
        for (int64_t d = 0; d < width; ++d) to[d] = T(sum[d]);
      }
    }
  });
}

constexpr const char* kPaddingMeaning =
    "Index whose row is zero and gets no gradient; it need not be in the table. -1: none.";

constexpr const char* kIndicesMeaning =
    "Any shape; from 0 to V - 1, or padding_idx. Another index is an error; on a GPU, where "
    "nothing "
    "waits for the kernel to complain, its row is not-a-number.";

std::string given_indices(const std::string& op) {
  return "What " + op +
         " was given. An index that is not in the table is an error; on a GPU it gives "
         "no gradient.";
}

}  // namespace

Operator lookup_table() {
  return Operator("LookupTable", "Rows of a table: y[..., :] = weight[indices[...], :].")
      .weight("weight", "Table [V, D].")
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
      .weight("weight", "Table [V, D].")
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
