// Runs one call of an operator through the C interface, on memory that ends where its tensors end.
//
// In goes a `Case`: an operator, its inputs' shapes and its attributes. Out comes the error's text,
// which is empty for a call that succeeds. Values are random.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>

#include "core/operator.h"
#include "tests/guarded_memory.h"
#include "torch/c_api.h"

namespace graphscale {

// A tensor's shape and, for integers, its values (repeated).
struct Input {
  Shape shape;
  std::vector<int64_t> integers = {};
  bool left_out = false;
  bool positive = false;
};

struct Case {
  const char* name;
  std::vector<Input> inputs;
  std::vector<std::pair<std::string, AttributeValue>> attributes = {};
  bool without_optional_outputs = false;
};

using Integers = std::vector<int64_t>;

inline std::mt19937& generator() {
  static std::mt19937 made(1);
  return made;
}

inline int64_t random_below(int64_t limit) {
  return static_cast<int64_t>(generator()() % static_cast<uint64_t>(limit));
}

template <typename T>
inline void put(unsigned char* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

inline void store(Type type, unsigned char* at, int64_t integer, float number) {
  switch (type) {
    case Type::kInt64: return put(at, integer);
    case Type::kInt32:
    case Type::kUint32: return put(at, static_cast<uint32_t>(integer));
    case Type::kFloat64: return put(at, static_cast<double>(number));
    case Type::kFloat16: return put(at, Float16(number));
    case Type::kBFloat16: return put(at, BFloat16(number));
    case Type::kFloat32: return put(at, number);
  }
}

inline void fill(Type type, const Input& input, void* memory) {
  const Integers& integers = input.integers;
  auto* const bytes = static_cast<unsigned char*>(memory);
  for (int64_t i = 0; i < element_count(input.shape); ++i) {
    const int64_t integer =
        integers.empty() ? 0 : integers[static_cast<size_t>(i) % integers.size()];
    const float number =
        static_cast<float>(random_below(2001) - (input.positive ? -1 : 1000)) / 500;
    store(type, bytes + i * type_size(type), integer, number);
  }
}

template <typename T>
inline bool any_nan(const Tensor& tensor) {
  for (int64_t i = 0; i < tensor.size(); ++i) {
    T value;
    std::memcpy(&value, static_cast<const unsigned char*>(tensor.memory) + i * sizeof(T),
                sizeof(T));
    if (std::isnan(static_cast<double>(value))) return true;
  }
  return false;
}

inline bool has_nan(const Tensor& tensor) {
  switch (tensor.type) {
    case Type::kFloat64: return any_nan<double>(tensor);
    case Type::kFloat16: return any_nan<Float16>(tensor);
    case Type::kBFloat16: return any_nan<BFloat16>(tensor);
    case Type::kFloat32: return any_nan<float>(tensor);
    default: return false;
  }
}

// In the form of torch/c_api.h.
inline void append(const Tensor& tensor, std::vector<int64_t>& numbers) {
  numbers.push_back(reinterpret_cast<intptr_t>(tensor.memory));
  numbers.push_back(tensor.present ? static_cast<int64_t>(tensor.type) : 0);
  numbers.push_back(tensor.rank());
  numbers.insert(numbers.end(), tensor.shape.begin(), tensor.shape.end());
}

inline const char* const kNan = "NaN in an output";
constexpr double kMaxOutputBytes = 1 << 26;

// Says what is wrong with the outputs of a call, or nothing.
using Check = std::function<std::string(const std::vector<Tensor>& inputs,
                                        const std::vector<Tensor>& outputs)>;

// Runs a case; returns the error, or what `check` says, or nothing.
inline std::string run(const Case& one, Type variable, int threads, Guard guard,
                       const Check& check = nullptr) {
  const Operator& op = *find_operator(one.name);
  GuardedMemory memory;
  const auto make = [&](const Parameter& parameter, const Shape& shape) {
    const Type type = parameter.is_variable ? variable : parameter.fixed;
    const size_t bytes = static_cast<size_t>(element_count(shape) * type_size(type));
    return Tensor{type, shape, memory.make(bytes, guard), true};
  };
  std::vector<int64_t> numbers;
  std::vector<Tensor> inputs(op.inputs.size());
  for (size_t i = 0; i < one.inputs.size(); ++i) {
    const Input& input = one.inputs[i];
    if (!input.left_out) {
      inputs[i] = make(op.inputs[i], input.shape);
      fill(inputs[i].type, input, inputs[i].memory);
    }
    append(inputs[i], numbers);
  }
  Attributes attributes;
  std::vector<GraphScaleAttribute> given;
  for (const auto& [name, value] : one.attributes) {
    GraphScaleAttribute attribute{
        name.c_str(), static_cast<int32_t>(value.index()), 0, 0, 0, nullptr, nullptr};
    if (const auto* integer = std::get_if<int64_t>(&value)) attribute.integer = *integer;
    if (const auto* number = std::get_if<double>(&value)) attribute.number = *number;
    if (const auto* text = std::get_if<std::string>(&value)) attribute.text = text->c_str();
    if (const auto* list = std::get_if<Integers>(&value)) {
      attribute.integers = list->data();
      attribute.count = static_cast<int32_t>(list->size());
    }
    given.push_back(attribute);
    attributes.set(name, value);
  }
  for (const AttributeDescription& known : op.attributes) {
    if (!attributes.has(known.name)) attributes.set(known.name, known.value);
  }
  std::vector<Shape> shapes;
  try {
    shapes = infer_shapes(op, attributes, inputs, true);
  } catch (const Error& error) {
    return error.what();
  }
  // What the C API infers without values: the same shapes.
  std::vector<int64_t> inferred(64);
  char error[512] = "";
  if (graphscale_infer_shapes(one.name, numbers.data(), static_cast<int32_t>(one.inputs.size()),
                              given.data(), static_cast<int32_t>(given.size()), inferred.data(),
                              static_cast<int32_t>(inferred.size()), error, sizeof(error)) != 0) {
    return error;
  }
  const int64_t* at = inferred.data();
  for (const Shape& shape : shapes) {
    if (at[1] != static_cast<int64_t>(shape.size())) return "another rank was inferred";
    if (!std::equal(shape.begin(), shape.end(), at + 2)) return "another shape was inferred";
    at += 2 + shape.size();
  }
  double output_bytes = 0;
  for (const Shape& shape : shapes) {
    double bytes = 8;
    for (const int64_t size : shape) bytes *= static_cast<double>(size);
    output_bytes += bytes;
  }
  if (output_bytes > kMaxOutputBytes) return "the outputs take too much memory for a test";
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (op.outputs[i].optional && one.without_optional_outputs) continue;
    outputs.push_back(make(op.outputs[i], shapes[i]));
    append(outputs.back(), numbers);
  }
  const GraphScalePlace place{0, threads, nullptr, nullptr, nullptr};
  graphscale_run(one.name, numbers.data(), static_cast<int32_t>(one.inputs.size()),
                 static_cast<int32_t>(outputs.size()), given.data(),
                 static_cast<int32_t>(given.size()), &place, error, sizeof(error));
  if (error[0] != '\0') return error;
  for (const Tensor& output : outputs) {
    if (has_nan(output)) return kNan;
  }
  return check ? check(inputs, outputs) : "";
}

}  // namespace graphscale
