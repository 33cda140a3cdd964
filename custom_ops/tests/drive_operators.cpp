// Runs every operator through the C interface, on memory that ends where the tensors end: on sizes
// that are right, in every type, on one thread and on several, without the optional inputs, on
// other sizes (often an empty batch), and on sizes that are wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>

#include "core/operator.h"
#include "tests/guarded_memory.h"
#include "torch/c_api.h"

namespace graphscale {
namespace {

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

const std::vector<Case>& cases() {
  static const Integers classes = {3, 0, 2, 4, 1};
  static const Integers starts = {0, 2, 2, 5};
  static const std::vector<Case> all = {
      {"FFTConv",
       {{{2, 4, 9, 8}}, {{6, 2, 3, 2}}, {{6}}},
       {{"group", int64_t{2}},
        {"pads", Integers{1, 0, 2, 3}},
        {"strides", Integers{2, 1}},
        {"dilations", Integers{1, 2}}}},
      {"FFTConv", {{{3, 2, 700}}, {{5, 2, 31}}}, {{"auto_pad", std::string("SAME_LOWER")}}},
      {"FFTConv", {{{1, 1, 4, 3, 5}}, {{2, 1, 4, 3, 5}}, {{2}}}},
      {"FFTConv", {{{0, 2, 7}}, {{3, 2, 2}}}},
      {"FFTConvGradInput",
       {{{2, 6, 5, 9}}, {{6, 2, 3, 2}}, {{2, 4, 9, 8}}},
       {{"group", int64_t{2}},
        {"pads", Integers{1, 0, 2, 3}},
        {"strides", Integers{2, 1}},
        {"dilations", Integers{1, 2}}}},
      {"FFTConvGradWeight",
       {{{2, 6, 5, 9}}, {{2, 4, 9, 8}}, {{6, 2, 3, 2}}},
       {{"group", int64_t{2}},
        {"pads", Integers{1, 0, 2, 3}},
        {"strides", Integers{2, 1}},
        {"dilations", Integers{1, 2}}}},
      {"LocallyConnected", {{{2, 3, 6, 7}}, {{4, 2, 6, 3, 3, 2}}}, {{"strides", Integers{2, 1}}}},
      {"LocallyConnectedGradInput",
       {{{2, 4, 2, 6}}, {{4, 2, 6, 3, 3, 2}}, {{2, 3, 6, 7}}},
       {{"strides", Integers{2, 1}}}},
      {"LocallyConnectedGradWeight",
       {{{2, 4, 2, 6}}, {{2, 3, 6, 7}}, {{4, 2, 6, 3, 3, 2}}},
       {{"strides", Integers{2, 1}}}},
      {"TemporalConv", {{{3, 40, 17}}, {{33, 5, 17}}, {{33}}}, {{"stride", int64_t{3}}}},
      {"TemporalConv", {{{1, 300, 40}}, {{100, 9, 40}}}},
      {"TemporalConvGradInput",
       {{{3, 12, 33}}, {{33, 5, 17}}, {{3, 40, 17}}},
       {{"stride", int64_t{3}}}},
      {"TemporalConvGradWeight",
       {{{3, 12, 33}}, {{3, 40, 17}}, {{33, 5, 17}}},
       {{"stride", int64_t{3}}}},
      {"LookupTable", {{{5, 3}}, {{2, 4}, {4, 0, 7, 1}}}, {{"padding_idx", int64_t{7}}}},
      {"LookupTableGrad",
       {{{2, 300, 3}}, {{2, 300}, {4, 0, 7, 1}}, {{5, 3}}},
       {{"padding_idx", int64_t{7}}}},
      {"WeightedLookupTable", {{{5, 3}}, {{2, 4}, {4, 0}}, {{2, 4}}}},
      {"WeightedLookupTableGrad", {{{2, 4, 3}}, {{2, 4}, {4, 0}}, {{2, 4}}, {{5, 3}}}},
      {"HierarchicalSoftmaxLoss",
       {{{6, 4}},
        {{6}, {1, 3, -100}},
        {{3, 4}},
        {{3}},
        {{5, 4}},
        {{5}},
        {{5}, classes},
        {{4}, starts}}},
      {"HierarchicalSoftmaxLossGrad",
       {{{6}},
        {{6, 4}},
        {{6}, {1, 3, -100}},
        {{3, 4}},
        {{3}},
        {{5, 4}},
        {{5}},
        {{5}, classes},
        {{4}, starts}}},
      {"HierarchicalSoftmaxLossGrad",
       {{{6}},
        {{6, 4}},
        {{6}, {1}},
        {{3, 4}},
        {{3}},
        {{5, 4}},
        {{5}},
        {{5}, classes},
        {{4}, starts},
        {{1}, {0}}},
       {{"rows", int64_t{2}}}},
      {"HierarchicalSoftmaxLogProb",
       {{{6, 4}}, {{3, 4}}, {{3}}, {{5, 4}}, {{5}}, {{5}, classes}, {{4}, starts}}},
      {"HierarchicalSoftmaxTopK",
       {{{6, 4}}, {{3, 4}}, {{3}}, {{5, 4}}, {{5}}, {{5}, classes}, {{4}, starts}},
       {{"k", int64_t{4}}}},
      {"FeatureLPPooling", {{{2, 13, 3, 5}}}, {{"width", int64_t{4}}, {"stride", int64_t{2}}}},
      {"FeatureLPPoolingGrad",
       {{{2, 5, 7}}, {{2, 13, 7}}, {{2, 5, 7}, {}, false, true}},
       {{"width", int64_t{4}}, {"stride", int64_t{2}}, {"power", 2.5}}},
      {"Maxout", {{{2, 13, 7}}}, {{"width", int64_t{4}}, {"stride", int64_t{3}}}},
      {"Maxout", {{{2, 13, 70}}}, {{"width", int64_t{2}}, {"stride", int64_t{2}}}, true},
      {"MaxoutGrad", {{{2, 4, 7}}, {{2, 13, 7}}}, {{"width", int64_t{4}}, {"stride", int64_t{3}}}},
      {"MaxoutGrad",
       {{{2, 11, 70}}, {{2, 13, 70}}},
       {{"width", int64_t{3}}, {"stride", int64_t{1}}}},
      {"CrossMapNormalization", {{{2, 6, 90}}}, {{"size", int64_t{5}}}},
      {"CrossMapNormalizationGrad", {{{2, 6, 90}}, {{2, 6, 90}}}, {{"size", int64_t{5}}}},
      {"TemporalKMaxPool", {{{2, 9, 5}}}, {{"k", int64_t{2}}, {"k_dynamic", 0.4}}},
      {"OneBitQuantize", {{{3, 71}}, {{3, 71}}}},
      {"OneBitDequantize", {{{3, 3}, {5, 0, 77}}, {{3, 2}}}, {{"columns", int64_t{71}}}},
  };
  return all;
}

std::mt19937& generator() {
  static std::mt19937 made(1);
  return made;
}

int64_t random_below(int64_t limit) {
  return static_cast<int64_t>(generator()() % static_cast<uint64_t>(limit));
}

template <typename T>
void put(unsigned char* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

void store(Type type, unsigned char* at, int64_t integer, float number) {
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

void fill(Type type, const Input& input, void* memory) {
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
bool any_nan(const Tensor& tensor) {
  for (int64_t i = 0; i < tensor.size(); ++i) {
    T value;
    std::memcpy(&value, static_cast<const unsigned char*>(tensor.memory) + i * sizeof(T),
                sizeof(T));
    if (std::isnan(static_cast<double>(value))) return true;
  }
  return false;
}

bool has_nan(const Tensor& tensor) {
  switch (tensor.type) {
    case Type::kFloat64: return any_nan<double>(tensor);
    case Type::kFloat16: return any_nan<Float16>(tensor);
    case Type::kBFloat16: return any_nan<BFloat16>(tensor);
    case Type::kFloat32: return any_nan<float>(tensor);
    default: return false;
  }
}

// In the form of torch/c_api.h.
void append(const Tensor& tensor, std::vector<int64_t>& numbers) {
  numbers.push_back(reinterpret_cast<intptr_t>(tensor.memory));
  numbers.push_back(tensor.present ? static_cast<int64_t>(tensor.type) : 0);
  numbers.push_back(tensor.rank());
  numbers.insert(numbers.end(), tensor.shape.begin(), tensor.shape.end());
}

const char* const kNan = "NaN in an output";

// Runs a case; returns the error, or nothing.
std::string run(const Case& one, Type variable, int threads, Guard guard) {
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
  return "";
}

// The case with one thing made wrong (or, by chance, still right).
Case spoiled(Case one) {
  Input& input =
      one.inputs[static_cast<size_t>(random_below(static_cast<int64_t>(one.inputs.size())))];
  static const Integers odd_values = {
      -1, 0, 1, 2, 3, 64, -100, int64_t{1} << 62, std::numeric_limits<int64_t>::min()};
  const auto odd = [&] { return odd_values[static_cast<size_t>(random_below(9))]; };
  switch (random_below(5)) {
    case 0: input.shape.push_back(1); break;
    case 1:
      if (!input.shape.empty()) input.shape.pop_back();
      break;
    case 2:
      if (!input.shape.empty()) {
        input.shape[static_cast<size_t>(random_below(static_cast<int64_t>(input.shape.size())))] =
            random_below(5);
      }
      break;
    case 3:
      if (!input.integers.empty()) input.integers[0] = odd();
      break;
    default:
      if (one.attributes.empty()) break;
      AttributeValue& value = one.attributes[static_cast<size_t>(random_below(
                                                 static_cast<int64_t>(one.attributes.size())))]
                                  .second;
      if (auto* integer = std::get_if<int64_t>(&value)) *integer = odd();
      if (auto* list = std::get_if<Integers>(&value)) list->front() = odd();
      if (auto* number = std::get_if<double>(&value)) *number = -1;
  }
  return one;
}

// The case with all dimensions of one size made another size: often still right, or an empty batch.
Case resized(Case one) {
  const Shape& shape = one.inputs[0].shape;
  if (shape.empty()) return one;
  const int64_t old = shape[static_cast<size_t>(random_below(static_cast<int64_t>(shape.size())))];
  const int64_t size = random_below(4) == 0 ? 0 : random_below(3 * old + 2);
  for (Input& input : one.inputs) std::replace(input.shape.begin(), input.shape.end(), old, size);
  return one;
}

// The case without its optional inputs.
Case shortened(Case one) {
  const Operator& op = *find_operator(one.name);
  for (size_t i = 0; i < one.inputs.size(); ++i) one.inputs[i].left_out = op.inputs[i].optional;
  return one;
}

const Case& random_case() {
  return cases()[static_cast<size_t>(random_below(static_cast<int64_t>(cases().size())))];
}

Guard random_guard() { return random_below(2) == 0 ? Guard::kBefore : Guard::kAfter; }

}  // namespace
}  // namespace graphscale

int main() {
  using namespace graphscale;
  int failures = 0;
  const auto report = [&](const Case& one, Type type, const std::string& what) {
    std::printf("%s, %s, first input %s: %s\n", one.name, type_name(type),
                to_string(one.inputs[0].shape).c_str(), what.c_str());
    ++failures;
  };
  for (const Case& one : cases()) {
    for (const Type type : find_operator(one.name)->variable_types) {
      for (const Guard guard : {Guard::kBefore, Guard::kAfter}) {
        for (const int threads : {1, 3}) {
          const std::string error = run(one, type, threads, guard);
          if (!error.empty()) report(one, type, error);
        }
        if (run(shortened(one), type, 1, guard) == kNan) report(one, type, kNan);
      }
    }
  }
  int refused_sizes = 0, refused = 0;
  constexpr int kResized = 4000, kSpoiled = 4000;
  for (int i = 0; i < kResized; ++i) {
    const Case one = resized(random_case());
    const auto& types = find_operator(one.name)->variable_types;
    const Type type = types[static_cast<size_t>(random_below(static_cast<int64_t>(types.size())))];
    const std::string error = run(one, type, 1 + i % 3, random_guard());
    if (!error.empty()) ++refused_sizes;
    if (error == kNan) report(one, type, error);
  }
  for (int i = 0; i < kSpoiled; ++i) {
    if (!run(spoiled(random_case()), Type::kFloat32, 1, random_guard()).empty()) ++refused;
  }
  for (const Operator& op : operators()) {
    bool driven = false;
    for (const Case& one : cases()) driven = driven || op.name == one.name;
    if (!driven) std::printf("%s: no case\n", op.name.c_str());
    failures += driven ? 0 : 1;
  }
  std::printf("%zu cases, %d failures; refused: %d of %d resized and %d of %d spoiled\n",
              cases().size(), failures, refused_sizes, kResized, refused, kSpoiled);
  return failures == 0 ? 0 : 1;
}
