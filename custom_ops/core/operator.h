// What an operator is: names, types and documentation of its inputs, outputs and attributes, how
// the output shapes follow, and its kernel. onnxruntime's glue, torch's C API and docs/operators.md
// are all made from this one description, which stands at the end of each kernel file;
// core/operators.cpp lists them all.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "core/context.h"
#include "core/tensor.h"

namespace graphscale {

// Thrown by shape functions and kernels for inputs that an operator cannot use, never inside a task
// of parallel_for. onnxruntime/ and torch/ add the name of the node or operator.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail(const std::string& message) { throw Error(message); }

using AttributeValue = std::variant<int64_t, double, std::string, std::vector<int64_t>>;

constexpr int64_t kMaxAttribute = int64_t{1} << 31;

class Attributes {
 public:
  void set(const std::string& name, AttributeValue value);
  bool has(const std::string& name) const;
  int64_t integer(const std::string& name) const;
  // Throws outside of [minimum, 2^31]; products of two such numbers do not overflow.
  int64_t bounded(const std::string& name, int64_t minimum) const;
  double number(const std::string& name) const;
  const std::string& text(const std::string& name) const;
  const std::vector<int64_t>& integers(const std::string& name) const;

 private:
  const AttributeValue& find(const std::string& name) const;
  std::vector<std::pair<std::string, AttributeValue>> values_;
};

// The arguments of a shape function. Ranks are always known; dimensions may be unknown while a
// model is loaded, and are known when a kernel runs. memory is null where values cannot be read.
struct ShapeCall {
  const Attributes& attributes;
  std::vector<Dims> inputs;         // empty for an input that was left out
  std::vector<bool> present;        // which inputs were given
  std::vector<const void*> memory;  // null while a model is loaded and on a GPU
  std::vector<Dims> outputs;        // to be filled

  // Checks that name the input; they pass where a dimension is not known yet.
  void require_rank(size_t input, size_t rank) const;
  void require_rank_at_least(size_t input, size_t rank) const;
  void require_equal(const Dim& left, const Dim& right, const std::string& what) const;
  const std::vector<std::string>& input_names;
};

// The result of prepacking the constant weights of an operator once.
struct Prepacked {
  virtual ~Prepacked() = default;
  virtual size_t bytes() const = 0;
};

// One call of a kernel; shapes and types are checked.
struct Call {
  const Context& context;
  const Attributes& attributes;
  Type type;  // of the operator's type variable T
  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;
  const Prepacked* prepacked;  // null where there is nothing
};

using ShapeFunction = void (*)(ShapeCall&);
using Kernel = void (*)(const Call&);
// Of the inputs only prepacked_input is present, and only where it is constant; of the others the
// shape is there when the caller knows it (a dimension it does not know is -1, an unknown rank 0).
// Returns null when nothing can be prepacked.
using PrepackFunction = std::unique_ptr<Prepacked> (*)(const Context&, const Attributes&, Type type,
                                                       const std::vector<Tensor>& inputs);

// Values of the attribute `algorithm` that are worth measuring, the cost model's best first. The
// tensors of this call have types and shapes, but no memory.
using AlgorithmsFunction = std::vector<std::string> (*)(const Call&);

struct Parameter {
  std::string name;
  bool is_variable;  // of type T (one of Operator::types), else of the type `fixed`
  Type fixed;
  bool optional;
  std::string meaning;
  bool trainable = false;  // an input that training changes; a parameter in torch
};

struct AttributeDescription {
  std::string name;
  AttributeValue value;  // the default; gives the kind, too
  bool required;
  std::string meaning;
};

// Built by chained calls, one per input, output and attribute: see the end of any kernel file.
class Operator {
 public:
  Operator(std::string name, std::string summary);
  Operator&& input(std::string name, std::string meaning) &&;
  Operator&& input(std::string name, Type type, std::string meaning) &&;
  Operator&& optional_input(std::string name, std::string meaning) &&;
  Operator&& optional_input(std::string name, Type type, std::string meaning) &&;
  // An input of type T that training changes: a weight or a bias of a layer.
  Operator&& weight(std::string name, std::string meaning) &&;
  Operator&& optional_weight(std::string name, std::string meaning) &&;
  Operator&& output(std::string name, std::string meaning) &&;
  Operator&& output(std::string name, Type type, std::string meaning) &&;
  // After all required outputs; absent from calls that do not ask for it.
  Operator&& optional_output(std::string name, Type type, std::string meaning) &&;
  Operator&& attribute(std::string name, AttributeValue value, std::string meaning) &&;
  Operator&& required_attribute(std::string name, AttributeValue kind, std::string meaning) &&;
  Operator&& types(std::vector<Type> types) &&;
  Operator&& shape(ShapeFunction function) &&;
  Operator&& kernel(Kernel function) &&;
  Operator&& prepack(size_t input, PrepackFunction function) &&;
  Operator&& algorithms(AlgorithmsFunction function) &&;

  std::vector<std::string> input_names() const;

  std::string name;
  std::string summary;
  std::vector<Parameter> inputs;
  std::vector<Parameter> outputs;
  std::vector<AttributeDescription> attributes;
  std::vector<Type> variable_types = {Type::kFloat32, Type::kFloat64, Type::kFloat16,
                                      Type::kBFloat16};
  ShapeFunction shape_function = nullptr;
  Kernel cpu_kernel = nullptr;
  PrepackFunction prepack_function = nullptr;
  size_t prepacked_input = 0;
  AlgorithmsFunction algorithms_function = nullptr;
};

// Every operator of the library, in the order of docs/operators.md.
const std::vector<Operator>& operators();
const Operator* find_operator(const std::string& name);

// The output shapes of a call whose inputs are all known.
std::vector<Shape> infer_shapes(const Operator& op, const Attributes& attributes,
                                const std::vector<Tensor>& inputs, bool values_readable);

// function(T()) for the floating type that T stands for.
template <typename F>
void dispatch(Type type, const F& function) {
  switch (type) {
    case Type::kFloat32: return function(float());
    case Type::kFloat64: return function(double());
    case Type::kFloat16: return function(Float16());
    case Type::kBFloat16: return function(BFloat16());
    default: fail(std::string("no kernel for ") + type_name(type));
  }
}

// Scratch for `count` values of T, or an error that says how much was missing.
template <typename T>
class ScratchArray {
 public:
  ScratchArray(const Context& context, int64_t count)
      : scratch_(context, static_cast<size_t>(count > 0 ? count : 1) * sizeof(T)) {
    if (scratch_.template get<T>() == nullptr) {
      fail("no memory for " + std::to_string(static_cast<size_t>(count) * sizeof(T)) + " bytes");
    }
  }
  T* get() const { return scratch_.template get<T>(); }
  T& operator[](int64_t i) const { return get()[i]; }

 private:
  Scratch scratch_;
};

}  // namespace graphscale
