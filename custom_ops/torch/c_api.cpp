// Runs a call: reads attributes and tensors into the kernels' types, checks inputs and outputs, and
// runs the kernel of the tensors' device. Exceptions become the error text of the C API.
#include "torch/c_api.h"

#include <algorithm>
#include <cstdio>

#include "core/cuda_library.h"
#include "core/fork.h"
#include "torch/huge_pages.h"
#include "torch/prepacked_cache.h"
#include "torch/scratch_cache.h"
#include "torch/thread_pool.h"

namespace graphscale::torch {
namespace {

// The next tensor of a list; moves on behind it.
Tensor read_tensor(const int64_t*& at) {
  Tensor tensor;
  tensor.memory = reinterpret_cast<void*>(static_cast<intptr_t>(at[0]));
  tensor.type = static_cast<Type>(at[1]);
  tensor.present = at[1] != 0;
  const int64_t* const shape = at + 3;
  tensor.shape.assign(shape, shape + at[2]);
  at = shape + at[2];
  return tensor;
}

AttributeValue value_of(const GraphScaleAttribute& given) {
  switch (given.kind) {
    case 0: return given.integer;
    case 1: return given.number;
    case 2: return std::string(given.text);
    default: return std::vector<int64_t>(given.integers, given.integers + given.count);
  }
}

Attributes read_attributes(const Operator& op, const GraphScaleAttribute* given, int32_t count) {
  Attributes attributes;
  for (const AttributeDescription& known : op.attributes) {
    const auto found = std::find_if(given, given + count, [&](const GraphScaleAttribute& one) {
      return known.name == one.name;
    });
    if (found == given + count) {
      if (known.required) fail("attribute '" + known.name + "' is missing; give it");
      attributes.set(known.name, known.value);
      continue;
    }
    AttributeValue value = value_of(*found);
    if (value.index() != known.value.index()) {
      fail("attribute '" + known.name + "' has the wrong type");
    }
    attributes.set(known.name, std::move(value));
  }
  return attributes;
}

// The type that T stands for: that of the first input of type T, else of the first output.
Type variable_type(const Operator& op, const Call& call) {
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    if (op.inputs[i].is_variable && call.inputs[i].present) return call.inputs[i].type;
  }
  for (size_t i = 0; i < call.outputs.size(); ++i) {
    if (op.outputs[i].is_variable) return call.outputs[i].type;
  }
  return op.variable_types.front();
}

void require_type(const std::string& what, Type type, Type wanted) {
  if (type != wanted) {
    fail(what + " is " + type_name(type) + "; it must be " + type_name(wanted));
  }
}

Context make_context(const GraphScalePlace& place) {
  Context context;
  context.owner = const_cast<GraphScalePlace*>(&place);
  context.threads = std::max(1, place.threads);
  context.stream = place.stream;
  context.run_tasks = [](void* owner, int64_t tasks, void (*body)(void*, int64_t), void* argument) {
    run_on_threads(static_cast<GraphScalePlace*>(owner)->threads, tasks, body, argument);
  };
  context.allocate = [](void* owner, size_t bytes) -> void* {
    const auto* place = static_cast<GraphScalePlace*>(owner);
    return place->on_gpu != 0 ? place->allocate(bytes) : take_scratch(bytes);
  };
  context.release = [](void* owner, void* memory) {
    const auto* place = static_cast<GraphScalePlace*>(owner);
    place->on_gpu != 0 ? place->release(memory) : return_scratch(memory);
  };
  return context;
}

const Operator& known_operator(const char* name) {
  const Operator* op = find_operator(name);
  if (op == nullptr) fail("there is no such operator");
  return *op;
}

// The call, checked up to the inputs' types; algorithms are asked for without outputs.
Call make_call(const Operator& op, const Context& context, const Attributes& attributes,
               const int64_t* tensors, int32_t input_count, int32_t output_count) {
  if (static_cast<size_t>(input_count) > op.inputs.size()) fail("too many inputs");
  if (static_cast<size_t>(output_count) > op.outputs.size()) fail("too many outputs");
  Call call{context, attributes, Type::kFloat32, {}, {}, nullptr};
  call.inputs.resize(op.inputs.size());
  for (int32_t i = 0; i < input_count; ++i) call.inputs[i] = read_tensor(tensors);
  call.outputs.reserve(op.outputs.size());
  for (int32_t i = 0; i < output_count; ++i) call.outputs.push_back(read_tensor(tensors));
  call.type = variable_type(op, call);
  if (std::find(op.variable_types.begin(), op.variable_types.end(), call.type) ==
      op.variable_types.end()) {
    fail(std::string("there is no kernel for ") + type_name(call.type));
  }
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const Parameter& known = op.inputs[i];
    if (!call.inputs[i].present) {
      if (!known.optional) fail("input '" + known.name + "' is missing");
      continue;
    }
    require_type("input '" + known.name + "'", call.inputs[i].type,
                 known.is_variable ? call.type : known.fixed);
  }
  return call;
}

void run(const char* name, const int64_t* tensors, int32_t input_count, int32_t output_count,
         const GraphScaleAttribute* attributes, int32_t attribute_count,
         const GraphScalePlace& place) {
  const Operator& op = known_operator(name);
  const Attributes read = read_attributes(op, attributes, attribute_count);
  const Context context = make_context(place);
  Call call = make_call(op, context, read, tensors, input_count, output_count);
  // The caller made the outputs: their shapes and types must be those that follow from the inputs.
  const std::vector<Shape> shapes = infer_shapes(op, read, call.inputs, place.on_gpu == 0);
  call.outputs.resize(op.outputs.size());
  for (size_t i = 0; i < shapes.size(); ++i) {
    const Parameter& known = op.outputs[i];
    const Tensor& output = call.outputs[i];
    if (!output.present) {
      if (!known.optional) fail("output '" + known.name + "' is missing");
      continue;
    }
    require_type("output '" + known.name + "'", output.type,
                 known.is_variable ? call.type : known.fixed);
    if (output.shape != shapes[i]) {
      fail("output '" + known.name + "' has shape " + to_string(output.shape) + "; it must be " +
           to_string(shapes[i]));
    }
  }
  if (place.on_gpu == 0) {
    for (const Tensor& output : call.outputs) {
      const int64_t bytes = output.present ? output.size() * type_size(output.type) : 0;
      prefer_huge_pages(output.memory, static_cast<size_t>(bytes));
    }
    const std::shared_ptr<const Prepacked> kept = keep_prepacked(op, call);
    call.prepacked = kept.get();
    return op.cpu_kernel(call);
  }
  // GPU tensors: the kernel of libgraphscale_cuda.so, or a sentence that says what to do.
  const CudaKernel* kernel = find_cuda_kernel(op.name, call.type);
  if (kernel == nullptr) {
    fail(cuda_library_error().empty()
             ? std::string("there is no CUDA kernel for ") + type_name(call.type) +
                   "; move the tensors to the CPU"
             : "the CUDA kernels are not there (" + cuda_library_error() + ")");
  }
  kernel->run(call);
}

// Joined by ';'; nothing where there is nothing to choose.
std::string algorithms(const char* name, const int64_t* inputs, int32_t input_count,
                       const GraphScaleAttribute* attributes, int32_t attribute_count,
                       const GraphScalePlace& place) {
  const Operator& op = known_operator(name);
  const Attributes read = read_attributes(op, attributes, attribute_count);
  const Context context = make_context(place);
  const Call call = make_call(op, context, read, inputs, input_count, 0);
  infer_shapes(op, read, call.inputs, false);  // throws where the inputs do not fit each other
  AlgorithmsFunction list = op.algorithms_function;
  if (place.on_gpu != 0) {
    const CudaKernel* const kernel = find_cuda_kernel(op.name, call.type);
    list = kernel == nullptr ? nullptr : kernel->algorithms;
  }
  std::string text;
  if (list == nullptr) return text;
  for (const std::string& algorithm : list(call)) text += (text.empty() ? "" : ";") + algorithm;
  return text;
}

// Types and shapes of the outputs as numbers, in the layout of c_api.h.
std::vector<int64_t> output_shapes(const char* name, const int64_t* inputs, int32_t input_count,
                                   const GraphScaleAttribute* attributes, int32_t attribute_count) {
  const Operator& op = known_operator(name);
  const Attributes read = read_attributes(op, attributes, attribute_count);
  const Context nowhere{};  // nothing runs
  const Call call = make_call(op, nowhere, read, inputs, input_count, 0);
  const std::vector<Shape> shapes = infer_shapes(op, read, call.inputs, false);
  std::vector<int64_t> numbers;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const Parameter& known = op.outputs[i];
    numbers.push_back(static_cast<int64_t>(known.is_variable ? call.type : known.fixed));
    numbers.push_back(static_cast<int64_t>(shapes[i].size()));
    numbers.insert(numbers.end(), shapes[i].begin(), shapes[i].end());
  }
  return numbers;
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result + "\"";
}

std::string json(const AttributeValue& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return std::to_string(*integer);
  if (const auto* text = std::get_if<std::string>(&value)) return quoted(*text);
  if (const auto* number = std::get_if<double>(&value)) {
    char buffer[32];
    std::snprintf(buffer, sizeof(buffer), "%.9g", *number);
    const std::string text(buffer);
    return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
  }
  return to_string(std::get<std::vector<int64_t>>(value));
}

std::string json(const Parameter& parameter) {
  return "{\"name\": " + quoted(parameter.name) +
         ", \"type\": " + quoted(parameter.is_variable ? "T" : type_name(parameter.fixed)) +
         ", \"optional\": " + (parameter.optional ? "true" : "false") +
         ", \"trainable\": " + (parameter.trainable ? "true" : "false") +
         ", \"meaning\": " + quoted(parameter.meaning) + "}";
}

std::string json(const AttributeDescription& attribute) {
  constexpr const char* kKinds[] = {"int", "float", "string", "list of ints"};
  return "{\"name\": " + quoted(attribute.name) +
         ", \"type\": " + quoted(kKinds[attribute.value.index()]) +
         ", \"default\": " + (attribute.required ? "null" : json(attribute.value)) +
         ", \"meaning\": " + quoted(attribute.meaning) + "}";
}

std::string json(Type type) { return quoted(type_name(type)); }

std::string json(const Operator& op);

template <typename T>
std::string json(const std::vector<T>& all) {
  std::string text = "[";
  for (const T& one : all) text += (text.size() == 1 ? "" : ", ") + json(one);
  return text + "]";
}

std::string json(const Operator& op) {
  return "{\"name\": " + quoted(op.name) + ", \"summary\": " + quoted(op.summary) +
         ", \"inputs\": " + json(op.inputs) + ", \"outputs\": " + json(op.outputs) +
         ", \"attributes\": " + json(op.attributes) + ", \"types\": " + json(op.variable_types) +
         "}";
}

}  // namespace
}  // namespace graphscale::torch

int graphscale_run(const char* name, const int64_t* tensors, int32_t input_count,
                   int32_t output_count, const GraphScaleAttribute* attributes,
                   int32_t attribute_count, const GraphScalePlace* place, char* error,
                   size_t error_size) {
  try {
    graphscale::torch::run(name, tensors, input_count, output_count, attributes, attribute_count,
                           *place);
    return 0;
  } catch (const std::exception& reason) {
    std::snprintf(error, error_size, "%s", reason.what());
    return 1;
  }
}

int graphscale_algorithms(const char* name, const int64_t* inputs, int32_t input_count,
                          const GraphScaleAttribute* attributes, int32_t attribute_count,
                          const GraphScalePlace* place, char* answer, size_t answer_size) {
  try {
    const std::string text = graphscale::torch::algorithms(name, inputs, input_count, attributes,
                                                           attribute_count, *place);
    std::snprintf(answer, answer_size, "%s", text.c_str());
    return 0;
  } catch (const std::exception& reason) {
    std::snprintf(answer, answer_size, "%s", reason.what());
    return 1;
  }
}

int graphscale_infer_shapes(const char* name, const int64_t* inputs, int32_t input_count,
                            const GraphScaleAttribute* attributes, int32_t attribute_count,
                            int64_t* outputs, int32_t capacity, char* error, size_t error_size) {
  try {
    const std::vector<int64_t> numbers =
        graphscale::torch::output_shapes(name, inputs, input_count, attributes, attribute_count);
    if (numbers.size() > static_cast<size_t>(capacity)) graphscale::fail("too many dimensions");
    std::copy(numbers.begin(), numbers.end(), outputs);
    return 0;
  } catch (const std::exception& reason) {
    std::snprintf(error, error_size, "%s", reason.what());
    return 1;
  }
}

const char* graphscale_describe() {
  static const std::string text = graphscale::torch::json(graphscale::operators());
  return text.c_str();
}

const char* graphscale_cuda_error() { return graphscale::cuda_library_error().c_str(); }

// Written before a fork, or a child could find another thread's text half written.
[[maybe_unused]] static const bool forks =
    graphscale::at_fork(graphscale::ForkOrder::kInnermost, [] { graphscale_describe(); }, [] {});
