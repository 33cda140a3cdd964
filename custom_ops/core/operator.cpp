// The chained calls that build an operator's description, its attributes, and the checks of shape
// functions.
#include "core/operator.h"

#include <utility>

namespace graphscale {

void Attributes::set(const std::string& name, AttributeValue value) {
  values_.emplace_back(name, std::move(value));
}

bool Attributes::has(const std::string& name) const {
  for (const auto& [key, value] : values_) {
    if (key == name) return true;
  }
  return false;
}

const AttributeValue& Attributes::find(const std::string& name) const {
  for (const auto& [key, value] : values_) {
    if (key == name) return value;
  }
  fail("attribute '" + name + "' is missing; give it");
}

int64_t Attributes::integer(const std::string& name) const { return std::get<int64_t>(find(name)); }
int64_t Attributes::bounded(const std::string& name, int64_t minimum) const {
  const int64_t value = integer(name);
  if (value < minimum || value > kMaxAttribute) {
    fail(name + " is " + std::to_string(value) + "; it must be at least " +
         std::to_string(minimum) + " and at most " + std::to_string(kMaxAttribute));
  }
  return value;
}
double Attributes::number(const std::string& name) const { return std::get<double>(find(name)); }
const std::string& Attributes::text(const std::string& name) const {
  return std::get<std::string>(find(name));
}
const std::vector<int64_t>& Attributes::integers(const std::string& name) const {
  return std::get<std::vector<int64_t>>(find(name));
}

void ShapeCall::require_rank(size_t input, size_t rank) const {
  if (inputs[input].size() != rank) {
    fail("input '" + input_names[input] + "' has " + std::to_string(inputs[input].size()) +
         " dimensions; it must have " + std::to_string(rank));
  }
}

void ShapeCall::require_rank_at_least(size_t input, size_t rank) const {
  if (inputs[input].size() < rank) {
    fail("input '" + input_names[input] + "' has " + std::to_string(inputs[input].size()) +
         " dimensions; it must have at least " + std::to_string(rank));
  }
}

void ShapeCall::require_equal(const Dim& left, const Dim& right, const std::string& what) const {
  if (left.known() && right.known() && left.value != right.value) {
    fail(what + " must be equal, but they are " + std::to_string(left.value) + " and " +
         std::to_string(right.value));
  }
}

Operator::Operator(std::string name, std::string summary)
    : name(std::move(name)), summary(std::move(summary)) {}

Operator&& Operator::input(std::string name, std::string meaning) && {
  inputs.push_back({std::move(name), true, Type::kFloat32, false, std::move(meaning)});
  return std::move(*this);
}
Operator&& Operator::input(std::string name, Type type, std::string meaning) && {
  inputs.push_back({std::move(name), false, type, false, std::move(meaning)});
  return std::move(*this);
}
Operator&& Operator::optional_input(std::string name, std::string meaning) && {
  inputs.push_back({std::move(name), true, Type::kFloat32, true, std::move(meaning)});
  return std::move(*this);
}
Operator&& Operator::optional_input(std::string name, Type type, std::string meaning) && {
  inputs.push_back({std::move(name), false, type, true, std::move(meaning)});
  return std::move(*this);
}
Operator&& Operator::weight(std::string name, std::string meaning) && {
  inputs.push_back({std::move(name), true, Type::kFloat32, false, std::move(meaning), true});
  return std::move(*this);
}
Operator&& Operator::optional_weight(std::string name, std::string meaning) && {
  inputs.push_back({std::move(name), true, Type::kFloat32, true, std::move(meaning), true});
  return std::move(*this);
}
Operator&& Operator::output(std::string name, std::string meaning) && {
  outputs.push_back({std::move(name), true, Type::kFloat32, false, std::move(meaning)});
  return std::move(*this);
}
Operator&& Operator::output(std::string name, Type type, std::string meaning) && {
  outputs.push_back({std::move(name), false, type, false, std::move(meaning)});
  return std::move(*this);
}
Operator&& Operator::optional_output(std::string name, Type type, std::string meaning) && {
  outputs.push_back({std::move(name), false, type, true, std::move(meaning)});
  return std::move(*this);
}
Operator&& Operator::attribute(std::string name, AttributeValue value, std::string meaning) && {
  attributes.push_back({std::move(name), std::move(value), false, std::move(meaning)});
  return std::move(*this);
}
Operator&& Operator::required_attribute(std::string name, AttributeValue kind,
                                        std::string meaning) && {
  attributes.push_back({std::move(name), std::move(kind), true, std::move(meaning)});
  return std::move(*this);
}
Operator&& Operator::types(std::vector<Type> types) && {
  variable_types = std::move(types);
  return std::move(*this);
}
Operator&& Operator::shape(ShapeFunction function) && {
  shape_function = function;
  return std::move(*this);
}
Operator&& Operator::kernel(Kernel function) && {
  cpu_kernel = function;
  return std::move(*this);
}
Operator&& Operator::prepack(size_t input, PrepackFunction function) && {
  prepacked_input = input;
  prepack_function = function;
  return std::move(*this);
}

Operator&& Operator::algorithms(AlgorithmsFunction function) && {
  algorithms_function = function;
  return std::move(*this);
}

std::vector<std::string> Operator::input_names() const {
  std::vector<std::string> names;
  for (const Parameter& input : inputs) names.push_back(input.name);
  return names;
}

std::vector<Shape> infer_shapes(const Operator& op, const Attributes& attributes,
                                const std::vector<Tensor>& inputs, bool values_readable) {
  const std::vector<std::string> names = op.input_names();
  ShapeCall call{attributes, {}, {}, {}, std::vector<Dims>(op.outputs.size()), names};
  for (const Tensor& input : inputs) {
    call.inputs.emplace_back(input.shape.begin(), input.shape.end());
    call.present.push_back(input.present);
    call.memory.push_back(values_readable ? input.memory : nullptr);
  }
  op.shape_function(call);
  std::vector<Shape> shapes;
  for (const Dims& dims : call.outputs) {
    Shape& shape = shapes.emplace_back();
    for (const Dim& dim : dims) shape.push_back(dim.value);
  }
  return shapes;
}

}  // namespace graphscale
