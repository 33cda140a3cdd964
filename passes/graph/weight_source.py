"""Which initializer, or Constant node, a value comes from, through nodes that only rearrange it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

# Operators that hand a weight on without computing anything from it.
_REARRANGING = {"Identity", "Cast", "Transpose", "Squeeze", "Unsqueeze"}


def weight_source(value: ir.Value | None) -> ir.Value | None:
    """The initializer or Constant output behind `value`; None where it is computed or fed."""
    while value is not None:
        if value.is_initializer() and value.const_value is not None:
            return value
        node = value.producer()
        if node is None:
            return None
        if node.op_type == "Constant" and node.domain == "":
            return value if "value" in node.attributes else None
        if node.op_type not in _REARRANGING or node.domain != "":
            return None
        value = node.inputs[0]
    return None


def tensor_of(value: ir.Value) -> ir.TensorProtocol:
    """The tensor of an initializer or of a Constant node's output."""
    if value.const_value is not None and value.is_initializer():
        return value.const_value
    return value.producer().attributes["value"].as_tensor()


def set_tensor(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Replace the tensor of an initializer or of a Constant node's output."""
    if value.is_initializer():
        value.const_value = tensor
        value.shape = ir.Shape(tensor.shape)
    else:
        value.producer().attributes["value"] = ir.AttrTensor("value", tensor)
        value.shape = ir.Shape(tensor.shape)


def dims_at_source(value: ir.Value, dims: Sequence, constants: dict[ir.Value, np.ndarray]) -> tuple:
    """The per-dimension entries `dims` of `value`, carried back to the dimensions of its source."""
    dims = tuple(dims)
    while not value.is_initializer() and value.producer().op_type in _REARRANGING:
        node = value.producer()
        source = node.inputs[0]
        if node.op_type == "Transpose":
            order = node.attributes.get_ints("perm", list(range(len(dims)))[::-1])
            back = [()] * len(dims)
            for position, axis in enumerate(order):
                back[axis] = dims[position]
            dims = tuple(back)
        elif node.op_type in ("Squeeze", "Unsqueeze"):
            axes = node.attributes.get_ints("axes", None)
            if axes is None and len(node.inputs) > 1:
                axes = constants[node.inputs[1]].tolist()
            rank = len(source.shape)
            longer = max(rank, len(dims))
            axes = [axis % longer for axis in axes or []]
            if node.op_type == "Unsqueeze":
                dims = tuple(dim for i, dim in enumerate(dims) if i not in axes)
            else:
                rest = iter(dims)
                dims = tuple(() if i in axes else next(rest) for i in range(rank))
        value = source
    return dims
