// ONNX Conv's rules: output sizes, pads of auto_pad, and the checks of attributes and shapes.
#include "core/conv_geometry.h"

#include <algorithm>

namespace graphscale {
namespace {

Shape spatial_attribute(const Attributes& attributes, const char* name, size_t count,
                        int64_t standard, int64_t smallest) {
  Shape values = attributes.integers(name);
  if (values.empty()) values.assign(count, standard);
  if (values.size() != count) {
    fail(std::string(name) + " has " + std::to_string(values.size()) + " entries; it must have " +
         std::to_string(count));
  }
  for (const int64_t value : values) {
    if (value < smallest || value > kMaxAttribute) {
      fail(std::string(name) + " is " + to_string(values) + "; every entry must be at least " +
           std::to_string(smallest) + " and at most " + std::to_string(kMaxAttribute));
    }
  }
  return values;
}

// Checks of the attributes alone.
struct Window {
  Shape stride, dilation, pads;
  std::string auto_pad;
};

Window window(const Attributes& attributes, size_t spatial) {
  Window result{spatial_attribute(attributes, "strides", spatial, 1, 1),
                spatial_attribute(attributes, "dilations", spatial, 1, 1),
                spatial_attribute(attributes, "pads", 2 * spatial, 0, 0),
                attributes.has("auto_pad") ? attributes.text("auto_pad") : "NOTSET"};
  for (const char* known : {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"}) {
    if (result.auto_pad == known) return result;
  }
  fail("auto_pad is '" + result.auto_pad + "'; it must be NOTSET, VALID, SAME_UPPER or SAME_LOWER");
}

// The number of outputs and the pads for `in` positions along spatial dimension d.
struct AxisOutput {
  int64_t size, pad_begin, pad_end;
};

AxisOutput axis_output(const Window& window, size_t d, int64_t in, int64_t kernel) {
  if (kernel < 1) {
    fail("weight has no taps along spatial dimension " + std::to_string(d) +
         "; a kernel needs at least one");
  }
  const int64_t span = (kernel - 1) * window.dilation[d] + 1;
  const int64_t stride = window.stride[d];
  const size_t spatial = window.stride.size();
  if (window.auto_pad == "SAME_UPPER" || window.auto_pad == "SAME_LOWER") {
    // SAME: as many outputs as strides fit x; an odd pad goes to the end (UPPER) or the beginning.
    const int64_t out = (in + stride - 1) / stride;
    const int64_t total = std::max<int64_t>(0, (out - 1) * stride + span - in);
    const int64_t smaller = total / 2;
    const bool upper = window.auto_pad == "SAME_UPPER";
    return {out, upper ? smaller : total - smaller, upper ? total - smaller : smaller};
  }
  const bool explicit_pads = window.auto_pad == "NOTSET";
  const int64_t begin = explicit_pads ? window.pads[d] : 0;
  const int64_t end = explicit_pads ? window.pads[spatial + d] : 0;
  if (in + begin + end < span) {
    fail("x has " + std::to_string(in + begin + end) + " positions along spatial dimension " +
         std::to_string(d) + " with its pads; the kernel needs " + std::to_string(span));
  }
  return {(in + begin + end - span) / stride + 1, begin, end};
}

}  // namespace

Dims conv_output_dims(const ShapeCall& call, size_t x, size_t weight) {
  call.require_rank_at_least(x, 3);
  const Dims& from = call.inputs[x];
  const Dims& kernel = call.inputs[weight];
  call.require_rank(weight, from.size());
  if (from.size() > 5) fail("x has more than 3 spatial dimensions");
  const int64_t groups = call.attributes.bounded("group", 1);
  const Dim expected = compute_dim([&](int64_t inputs) { return inputs * groups; }, kernel[1]);
  call.require_equal(from[1], expected,
                     "the channels of x and the second dimension of weight x group");
  if (kernel[0].known() && kernel[0].value % groups != 0) {
    fail("weight has " + std::to_string(kernel[0].value) + " filters; they must be a multiple of " +
         std::to_string(groups) + " groups");
  }
  const size_t spatial = from.size() - 2;
  const Window attributes = window(call.attributes, spatial);
  const Shape& stated = call.attributes.integers("kernel_shape");
  if (!stated.empty() && stated.size() != spatial) {
    fail("kernel_shape has " + std::to_string(stated.size()) + " entries; it must have " +
         std::to_string(spatial));
  }
  Dims out = {from[0], kernel[0]};
  for (size_t d = 0; d < spatial; ++d) {
    if (!stated.empty()) {
      call.require_equal(stated[d], kernel[2 + d], "kernel_shape and the kernel of weight");
    }
    out.push_back(compute_dim(
        [&](int64_t in, int64_t size) { return axis_output(attributes, d, in, size).size; },
        from[2 + d], kernel[2 + d]));
  }
  return out;
}

ConvGeometry conv_geometry(const Attributes& attributes, const Shape& x, const Shape& weight) {
  const size_t spatial = x.size() - 2;
  Window found = window(attributes, spatial);
  ConvGeometry g{x[0],
                 x[1],
                 weight[0],
                 attributes.integer("group"),
                 Shape(x.begin() + 2, x.end()),
                 Shape(weight.begin() + 2, weight.end()),
                 {},
                 found.stride,
                 found.dilation,
                 {},
                 {}};
  for (size_t d = 0; d < spatial; ++d) {
    const AxisOutput e = axis_output(found, d, g.in[d], g.kernel[d]);
    g.out.push_back(e.size);
    g.pad_begin.push_back(e.pad_begin);
    g.pad_end.push_back(e.pad_end);
  }
  return g;
}

Bounds conv_bounds(const Attributes& attributes) {
  const double minimum = attributes.number("minimum"), maximum = attributes.number("maximum");
  Bounds bounds;
  if (minimum > kNoMinimum) bounds.minimum = static_cast<float>(minimum);
  if (maximum < kNoMaximum) bounds.maximum = static_cast<float>(maximum);
  return bounds;
}

Operator&& with_conv_attributes(Operator&& op) {
  const std::vector<int64_t> none;
  return std::move(op)
      .attribute("dilations", none, "One per spatial dimension; 1 when left out.")
      .attribute("group", int64_t{1}, "Groups that channels and filters are divided into.")
      .attribute("kernel_shape", none, "The kernel's spatial size; that of weight when left out.")
      .attribute("pads", none, "All beginnings, then all ends; 0 when left out.")
      .attribute("strides", none, "One per spatial dimension; 1 when left out.");
}

}  // namespace graphscale
