// One operator for one element type and one execution provider, in the form that onnxruntime
// registers.
#pragma once

#include "onnxruntime/api.h"
#include "onnxruntime/node_context.h"

namespace graphscale::onnxruntime {

struct CustomOp : OrtCustomOp {
  CustomOp(const Operator& op, Type type, Device device, Kernel kernel, PrepackFunction prepack);

  const Operator& op;
  Type type;  // what the type variable T stands for
  Device device;
  Kernel kernel;
  PrepackFunction prepack;
};

}  // namespace graphscale::onnxruntime
