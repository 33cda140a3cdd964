// Reads a node's attributes; those that were left out get the operator's defaults.
#pragma once

#include "onnxruntime/api.h"

namespace graphscale::onnxruntime {

// When a session creates the kernel. Throws for a missing required or a wrongly typed attribute.
Attributes read_attributes(const Operator& op, const OrtKernelInfo* info);

// While shapes are inferred.
Attributes read_attributes(const Operator& op, const OrtShapeInferContext* context);

}  // namespace graphscale::onnxruntime
