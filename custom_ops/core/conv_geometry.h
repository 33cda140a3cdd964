// Sizes and attributes of a convolution, as ONNX Conv defines them, checked and with auto_pad
// resolved.
#pragma once

#include "core/bounds.h"
#include "core/operator.h"

namespace graphscale {

// Spatial lists have one entry per spatial dimension (1 to 3).
struct ConvGeometry {
  int64_t batch, in_channels, out_channels, groups;
  Shape in, kernel, out, stride, dilation, pad_begin, pad_end;

  int64_t in_size() const { return element_count(in); }
  int64_t kernel_size() const { return element_count(kernel); }
  int64_t out_size() const { return element_count(out); }
  int64_t group_inputs() const { return in_channels / groups; }
  int64_t group_outputs() const { return out_channels / groups; }
};

// x [N, C, ...], weight [F, C / group, ...]; both shapes known.
ConvGeometry conv_geometry(const Attributes& attributes, const Shape& x, const Shape& weight);

// The attributes `minimum` and `maximum` of FFTConv, to which y is clipped. The defaults are those
// of ONNX Clip; with them infinities stay.
constexpr double kNoMinimum = std::numeric_limits<float>::lowest();
constexpr double kNoMaximum = std::numeric_limits<float>::max();
Bounds conv_bounds(const Attributes& attributes);

// The shape of y in a shape function; x and weight are positions of inputs.
Dims conv_output_dims(const ShapeCall& call, size_t x, size_t weight);

// Adds the attributes of ONNX Conv to an operator, except auto_pad, which the gradients lack.
Operator&& with_conv_attributes(Operator&& op);

}  // namespace graphscale
