// Tensors as the kernels see them: element types (numbered as in ONNX), shapes whose dimensions may
// still be unknown when a model is loaded, and a view of memory that the caller owns.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace graphscale {

enum class Type : int32_t {
  kFloat32 = 1,
  kInt32 = 6,
  kInt64 = 7,
  kFloat16 = 10,
  kFloat64 = 11,
  kUint32 = 12,
  kBFloat16 = 16,
};

const char* type_name(Type type);  // "float32", ...
int64_t type_size(Type type);      // bytes of one element

// 16-bit floats are storage only: kernels convert, compute in float and round to nearest even back.
struct Float16 {
  uint16_t bits;
  Float16() = default;
  explicit Float16(float value);
  operator float() const;
};

struct BFloat16 {
  uint16_t bits;
  BFloat16() = default;
  explicit BFloat16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, 4);
    const bool is_nan = (word & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<uint16_t>(is_nan ? (word >> 16) | 0x40u
                                        : (word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
  operator float() const {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
  }
};

// The type that sums of T are kept in.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};

// A dimension. While a model is loaded it may be unknown (value -1), with or without a name.
struct Dim {
  int64_t value = -1;
  std::string symbol;

  Dim() = default;
  Dim(int64_t known) : value(known) {}  // NOLINT: a number is a dimension
  bool known() const { return value >= 0; }
};
using Dims = std::vector<Dim>;

// f of dimensions, unknown where one of them is.
template <typename F, typename... D>
Dim compute_dim(const F& f, const D&... dims) {
  return (dims.known() && ...) ? Dim(f(dims.value...)) : Dim();
}

using Shape = std::vector<int64_t>;

int64_t element_count(const Shape& shape);
std::string to_string(const Shape& shape);  // "[2, 3]"

struct Tensor {
  Type type = Type::kFloat32;
  Shape shape;
  void* memory = nullptr;  // row-major, without gaps
  bool present = false;    // false for an optional input or output that was left out

  int64_t size() const { return element_count(shape); }
  int64_t rank() const { return static_cast<int64_t>(shape.size()); }
  template <typename T>
  T* data() const {
    return static_cast<T*>(memory);
  }
};

}  // namespace graphscale
