"""Translations of QuantizeLinear and DequantizeLinear, so that quantised networks can be trained.

Rounding has a gradient of zero almost everywhere. Training takes the gradient of the unrounded
number instead (the straight-through estimator of arXiv 1308.3432), and zero for numbers that are
clipped to the ends of the integer type.
"""

from __future__ import annotations

import torch

from graphscale.convert.operators.registry import translates
from graphscale.convert.tensors import torch_dtype
from graphscale.convert.tracing import is_program_value


@translates("QuantizeLinear", fixed=(1, 2))
def _quantize_linear(node, x, scale, zero_point=None):
    """Integers; as floating-point numbers, which have gradients, where they are dequantised."""
    if is_program_value(zero_point):
        dtype = zero_point.samples[0].dtype
    elif zero_point is not None:
        dtype = zero_point.dtype
    else:
        dtype = torch_dtype(node.attribute("output_dtype", 0) or 2)  # 2 is ONNX's uint8
    if dtype.is_floating_point:
        node.fail(f"it quantises to {dtype}, of which only integer types are supported")
    limits = torch.iinfo(dtype)
    scaled = x.to(scale.dtype) / _aligned(node, scale, x)
    rounded = scaled + (scaled.round() - scaled).detach()
    if zero_point is not None:
        rounded = rounded + _aligned(node, zero_point.to(scale.dtype), x)
    clipped = rounded.clamp(limits.min, limits.max)
    return clipped if node.only_read_by("DequantizeLinear") else clipped.to(dtype)


@translates("DequantizeLinear", fixed=(1, 2))
def _dequantize_linear(node, x, scale, zero_point=None):
    numbers = x.to(scale.dtype)
    if zero_point is not None:
        numbers = numbers - _aligned(node, zero_point.to(scale.dtype), x)
    return numbers * _aligned(node, scale, x)


def _aligned(node, values, x):
    """Scales or zero points in a shape that broadcasts to x.

    There is one for all of x, one per slice along an axis, or one per block of a slice.
    """
    if values.ndim == 0 or (values.ndim == 1 and values.shape[0] == 1):
        return values.reshape(())
    axis = node.attribute("axis", 1) % x.ndim
    if values.ndim == 1:
        return values.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    block = node.attribute("block_size", 0)
    return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
