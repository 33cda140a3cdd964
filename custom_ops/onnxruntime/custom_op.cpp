// The callbacks through which onnxruntime uses a custom operator: names and types from the
// description, shape inference, and kernels that call the operator's own.
#include "onnxruntime/custom_op.h"

#include <atomic>

#include "onnxruntime/attributes.h"

namespace graphscale::onnxruntime {
namespace {

const CustomOp& self(const OrtCustomOp* op) { return *static_cast<const CustomOp*>(op); }

// The shape of an input as far as the session knows it; empty for one that was left out.
Shape known_shape(const OrtKernelInfo* info, size_t index) {
  OrtTypeInfo* handle = nullptr;
  if (!succeeded(api->KernelInfo_GetInputTypeInfo(info, index, &handle))) return {};
  const std::unique_ptr<OrtTypeInfo, void (*)(OrtTypeInfo*)> type(
      handle, [](OrtTypeInfo* each) { api->ReleaseTypeInfo(each); });
  const OrtTensorTypeAndShapeInfo* shape = nullptr;
  if (!succeeded(api->CastTypeInfoToTensorInfo(type.get(), &shape)) || shape == nullptr) return {};
  return dimensions(shape);
}

// The kernel of one node. Several threads may be inside run() at once, so run() changes no member.
struct Node {
  const CustomOp& custom_op;
  Attributes attributes;
  NodeMemory memory;
  std::unique_ptr<Prepacked> prepacked;

  Node(const CustomOp& op, const OrtKernelInfo* info)
      : custom_op(op), attributes(read_attributes(op.op, info)), memory(info) {
    if (op.prepack == nullptr) return;
    // Constant weights are prepacked when the session is made; of other inputs the shapes are
    // passed on.
    std::vector<Tensor> constants(op.op.inputs.size());
    for (size_t i = 0; i < constants.size(); ++i) {
      int is_constant = 0;
      const OrtValue* value = nullptr;
      if (i == op.op.prepacked_input &&
          succeeded(api->KernelInfoGetConstantInput_tensor(info, i, &is_constant, &value)) &&
          is_constant != 0) {
        constants[i] = view(value);
      } else {
        constants[i].shape = known_shape(info, i);
      }
    }
    prepacked = op.prepack(session_context(), attributes, op.type, constants);
  }

  void run(OrtKernelContext* session) const {
    const Operator& op = custom_op.op;
    const NodeContext context(session, custom_op.device, memory);
    Call call{context.get(), attributes, custom_op.type, {}, {}, prepacked.get()};
    size_t given = 0;
    check(api->KernelContext_GetInputCount(session, &given));
    call.inputs.resize(op.inputs.size());
    for (size_t i = 0; i < given && i < op.inputs.size(); ++i) {
      const OrtValue* value = nullptr;
      check(api->KernelContext_GetInput(session, i, &value));
      call.inputs[i] = view(value);
    }
    // Output shapes follow from the inputs of this call; a wrong one is an error that names the
    // node.
    const std::vector<Shape> shapes =
        infer_shapes(op, attributes, call.inputs, custom_op.device == Device::kCpu);
    size_t wanted = 0;
    check(api->KernelContext_GetOutputCount(session, &wanted));
    for (size_t i = 0; i < shapes.size(); ++i) {
      OrtValue* value = nullptr;  // stays null for an optional output that the node lacks
      if (i < wanted) {
        check(api->KernelContext_GetOutput(session, i, shapes[i].data(), shapes[i].size(), &value));
      }
      call.outputs.push_back(view(value));
    }
    custom_op.kernel(call);
  }
};

std::string node_name(const OrtKernelInfo* info) {
  size_t size = 0;
  if (!succeeded(api->KernelInfo_GetNodeName(info, nullptr, &size))) return "";
  std::string name(size, '\0');
  if (!succeeded(api->KernelInfo_GetNodeName(info, name.data(), &size))) return "";
  return name.c_str();
}

OrtStatus* ORT_API_CALL create_kernel(const OrtCustomOp* op, const OrtApi*,
                                      const OrtKernelInfo* info, void** kernel) {
  const std::string subject = self(op).op.name + " node '" + node_name(info) + "': ";
  return guarded(subject, [&] { *kernel = new Node(self(op), info); });
}

// onnxruntime itself puts the operator and the node's name before the message.
OrtStatus* ORT_API_CALL compute(void* kernel, OrtKernelContext* session) {
  return guarded("", [&] { static_cast<const Node*>(kernel)->run(session); });
}

ONNXTensorElementDataType element_type(const CustomOp& op, const Parameter& parameter) {
  return static_cast<ONNXTensorElementDataType>(parameter.is_variable ? op.type : parameter.fixed);
}

// It belongs to the context; null for an input that was left out.
const OrtTensorTypeAndShapeInfo* input_info(const OrtShapeInferContext* context, size_t index) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  if (!succeeded(api->ShapeInferContext_GetInputTypeShape(context, index, &info))) return nullptr;
  return info;
}

// An unknown dimension needs a name of its own: onnxruntime takes equal names for equal sizes.
std::string fresh_symbol() {
  static std::atomic<int64_t> count{0};
  return "graphscale_" + std::to_string(count++);
}

void set_output(OrtShapeInferContext* context, size_t index, ONNXTensorElementDataType type,
                Dims dims) {
  OrtTensorTypeAndShapeInfo* handle = nullptr;
  check(api->CreateTensorTypeAndShapeInfo(&handle));
  const ShapeInfo info(handle);
  check(api->SetTensorElementType(handle, type));
  Shape values;
  std::vector<const char*> symbols;
  for (Dim& dim : dims) {
    if (!dim.known() && dim.symbol.empty()) dim.symbol = fresh_symbol();
    values.push_back(dim.known() ? dim.value : -1);
    symbols.push_back(dim.symbol.c_str());
  }
  check(api->SetDimensions(handle, values.data(), values.size()));
  check(api->SetSymbolicDimensions(handle, symbols.data(), symbols.size()));
  check(api->ShapeInferContext_SetOutputTypeShape(context, index, handle));
}

// onnxruntime asks the first overload of a name for all of them: T is what the node's inputs say.
void infer(const CustomOp& op, OrtShapeInferContext* context) {
  ONNXTensorElementDataType variable = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  const Attributes attributes = read_attributes(op.op, context);
  const std::vector<std::string> names = op.op.input_names();
  ShapeCall call{attributes, {}, {}, {}, std::vector<Dims>(op.op.outputs.size()), names};
  size_t given = 0;
  check(api->ShapeInferContext_GetInputCount(context, &given));
  for (size_t i = 0; i < op.op.inputs.size(); ++i) {
    Dims& dims = call.inputs.emplace_back();
    call.memory.push_back(nullptr);
    const OrtTensorTypeAndShapeInfo* const info = i < given ? input_info(context, i) : nullptr;
    call.present.push_back(info != nullptr);
    if (info == nullptr) continue;
    if (op.op.inputs[i].is_variable) check(api->GetTensorElementType(info, &variable));
    const Shape values = dimensions(info);
    if (values.empty())
      return;  // the API gives no dimensions for scalars and for unknown ranks alike
    std::vector<const char*> symbols(values.size(), nullptr);
    check(api->GetSymbolicDimensions(info, symbols.data(), symbols.size()));
    for (size_t d = 0; d < values.size(); ++d) {
      Dim& dim = dims.emplace_back(values[d]);
      if (!dim.known() && symbols[d] != nullptr) dim.symbol = symbols[d];
    }
  }
  op.op.shape_function(call);
  for (size_t i = 0; i < call.outputs.size(); ++i) {
    const Parameter& output = op.op.outputs[i];
    // The context does not say which outputs the node has, and onnxruntime before 1.28 aborts the
    // process when a type is set for one that it lacks. The type of an optional output follows from
    // the operator's registration; its shape stays unknown until the node runs.
    if (output.optional) continue;
    const auto fixed = static_cast<ONNXTensorElementDataType>(output.fixed);
    set_output(context, i, output.is_variable ? variable : fixed, call.outputs[i]);
  }
}

// onnxruntime ignores (and leaks) a status returned here; errors are reported when the node runs.
OrtStatus* ORT_API_CALL infer_shape(const OrtCustomOp* op, OrtShapeInferContext* context) {
  succeeded(guarded("", [&] { infer(self(op), context); }));
  return nullptr;
}

OrtCustomOpInputOutputCharacteristic characteristic(const Parameter& parameter) {
  return parameter.optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
}

}  // namespace

CustomOp::CustomOp(const Operator& op, Type type, Device device, Kernel kernel,
                   PrepackFunction prepack)
    : OrtCustomOp{}, op(op), type(type), device(device), kernel(kernel), prepack(prepack) {
  version = kApiVersion;
  GetName = [](const OrtCustomOp* op) { return self(op).op.name.c_str(); };
  GetExecutionProviderType = [](const OrtCustomOp* op) -> const char* {
    return self(op).device == Device::kCpu ? "CPUExecutionProvider" : "CUDAExecutionProvider";
  };
  GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).op.inputs.size(); };
  GetOutputTypeCount = [](const OrtCustomOp* op) { return self(op).op.outputs.size(); };
  GetInputType = [](const OrtCustomOp* op, size_t i) {
    return element_type(self(op), self(op).op.inputs[i]);
  };
  GetOutputType = [](const OrtCustomOp* op, size_t i) {
    return element_type(self(op), self(op).op.outputs[i]);
  };
  GetInputCharacteristic = [](const OrtCustomOp* op, size_t i) {
    return characteristic(self(op).op.inputs[i]);
  };
  GetOutputCharacteristic = [](const OrtCustomOp* op, size_t i) {
    return characteristic(self(op).op.outputs[i]);
  };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  CreateKernelV2 = create_kernel;
  KernelComputeV2 = compute;
  KernelDestroy = [](void* kernel) { delete static_cast<Node*>(kernel); };
  InferOutputShapeFn = infer_shape;
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return 1; };
}

}  // namespace graphscale::onnxruntime
