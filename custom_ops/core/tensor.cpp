// Names and sizes of element types, and the rounding of 16-bit floats.
#include "core/tensor.h"

#include <cmath>

namespace graphscale {

const char* type_name(Type type) {
  switch (type) {
    case Type::kFloat32: return "float32";
    case Type::kInt32: return "int32";
    case Type::kInt64: return "int64";
    case Type::kFloat16: return "float16";
    case Type::kFloat64: return "float64";
    case Type::kUint32: return "uint32";
    case Type::kBFloat16: return "bfloat16";
  }
  return "unknown";
}

int64_t type_size(Type type) {
  switch (type) {
    case Type::kFloat16:
    case Type::kBFloat16: return 2;
    case Type::kInt64:
    case Type::kFloat64: return 8;
    default: return 4;
  }
}

// Float16 has 5 bits of exponent (bias 15) and 10 of fraction; below 2^-14 it is a multiple of
// 2^-24.
Float16::Float16(float value) {
  uint32_t word;
  std::memcpy(&word, &value, 4);
  const uint32_t sign = (word >> 16) & 0x8000u;
  const uint32_t magnitude = word & 0x7fffffffu;
  uint32_t result;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u;  // not a number
  } else if (magnitude >= 0x477ff000u) {
    result = 0x7c00u;  // rounds to infinity
  } else if (magnitude < 0x38800000u) {
    float absolute;
    std::memcpy(&absolute, &magnitude, 4);
    result = static_cast<uint32_t>(std::nearbyint(absolute * 16777216.0f));
  } else {
    const uint32_t shifted = magnitude - (112u << 23);
    result = (shifted + 0xfffu + ((shifted >> 13) & 1u)) >> 13;
  }
  bits = static_cast<uint16_t>(sign | result);
}

Float16::operator float() const {
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t fraction = bits & 0x3ffu;
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  if (exponent == 0) {
    const float value = static_cast<float>(fraction) / 16777216.0f;
    return sign != 0 ? -value : value;
  }
  const uint32_t word = sign | ((exponent == 31 ? 255u : exponent + 112u) << 23) | (fraction << 13);
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace graphscale
