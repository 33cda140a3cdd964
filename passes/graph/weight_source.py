"""Find the weight that a node reads, behind nodes that only rearrange it.

Exporters put a Transpose, a Cast or an Unsqueeze between an initializer and its reader. In goes the
value that is read; out comes the value that holds the weight, an initializer or the output of a
Constant node. `dims_at_source` carries what is known about the dimensions of the one back to the
dimensions of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError

# Operators that only rearrange or convert the numbers of a weight.
_REARRANGING = {"Identity", "Cast", "Transpose", "Squeeze", "Unsqueeze"}


def weight_source(value: ir.Value | None) -> ir.Value | None:
    """The initializer or Constant output behind `value`.

    None where the value is computed from others, or fed by the caller.
    """
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
    else:
        value.producer().attributes["value"] = ir.AttrTensor("value", tensor)
    value.shape = ir.Shape(tensor.shape)
    value.type = ir.TensorType(tensor.dtype)  # without a type, a shape cannot be written


def dims_at_source(
    value: ir.Value, dims: Sequence, constants: Mapping[ir.Value, np.ndarray]
) -> tuple:
    """Carry `dims`, an entry for each dimension of `value`, back to its source's dimensions.

    Args:
        value: A value whose source is a weight.
        dims: An entry for each of its dimensions.
        constants: Numbers of the model's constants, among them the axes of Squeeze and Unsqueeze.

    Returns:
        An entry for each dimension of the source. A dimension of one element that a Squeeze has
        dropped has the entry ().
    """
    dims = tuple(dims)
    while not value.is_initializer() and value.producer().op_type in _REARRANGING:
        node = value.producer()
        # Undo what the node does to the dimensions, and go on at its input.
        if node.op_type == "Transpose":
            order = node.attributes.get_ints("perm", list(range(len(dims)))[::-1])
            back = [()] * len(dims)
            for position, axis in enumerate(order):
                back[axis] = dims[position]
            dims = tuple(back)
        elif node.op_type == "Unsqueeze":
            axes = [axis % len(dims) for axis in _axes(node, constants)]
            dims = tuple(dim for position, dim in enumerate(dims) if position not in axes)
        elif node.op_type == "Squeeze":
            axes = _axes(node, constants)
            rank = len(dims) + len(axes)
            dropped = [axis % rank for axis in axes]
            rest = iter(dims)
            dims = tuple(() if position in dropped else next(rest) for position in range(rank))
        value = node.inputs[0]
    return dims


def shape_as_read(value: ir.Value) -> list[int]:
    """The shape that `value` has, whose source is a weight."""
    nodes = []
    while not value.is_initializer() and value.producer().op_type in _REARRANGING:
        nodes.append(value.producer())
        value = nodes[-1].inputs[0]
    shape = list(tensor_of(value).shape.numpy())
    for node in reversed(nodes):
        if node.op_type == "Transpose":
            order = node.attributes.get_ints("perm", list(range(len(shape)))[::-1])
            shape = [shape[axis] for axis in order]
        elif node.op_type in ("Squeeze", "Unsqueeze"):
            held = [weight_source(axes) for axes in node.inputs[1:2]]
            numbers = {axes: tensor_of(each).numpy() for axes, each in zip(node.inputs[1:], held)}
            axes = _axes(node, numbers)
            if node.op_type == "Squeeze":
                dropped = [axis % len(shape) for axis in axes]
                shape = [size for axis, size in enumerate(shape) if axis not in dropped]
            else:
                for axis in sorted(axis % (len(shape) + len(axes)) for axis in axes):
                    shape.insert(axis, 1)
    return shape


def _axes(node: ir.Node, constants: Mapping[ir.Value, np.ndarray]) -> list[int]:
    """The axes of a Squeeze or Unsqueeze."""
    axes = node.attributes.get_ints("axes", None)
    if axes is not None:
        return list(axes)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return constants[node.inputs[1]].tolist()
    shape = node.inputs[0].shape  # without axes, a Squeeze drops every dimension of one element
    if shape is None:
        raise GraphScaleError(
            f"node {node.name!r} ({node.op_type}) names no axes; export the model again with them"
        )
    return [axis for axis, size in enumerate(shape) if size == 1]
