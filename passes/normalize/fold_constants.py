"""Turn weights that nodes compute from constants into initializers of the same name.

Some exporters and test models write a weight as ConstantOfShape, or as arithmetic on initializers.
Such a weight cannot be resized where it stands. Nodes that only rearrange a weight (Transpose,
Identity, Cast …) are left alone: resizing reaches through them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.graph.evaluate_node import evaluate_node
from graphscale.passes.graph.weight_source import weight_source

# Where operators read a kernel, which is folded however it is computed.
_PRODUCTS = {
    **dict.fromkeys(["Conv", "FFTConv", "FusedConv", "ConvTranspose", "Gemm"], (1,)),
    **dict.fromkeys(["MatMul", "Einsum"], (0, 1)),
}
# Operators whose constant operands are folded, too, where they are mere fills; in all others they
# are sizes, bounds and scales.
_SCALING = {
    *("Add", "Mul", "Sub", "Div", "PRelu", "BatchNormalization", "InstanceNormalization"),
    *("LayerNormalization", "GroupNormalization", "RMSNormalization"),
}


def fold_constants(model: ir.Model) -> list[str]:
    """Fold the computed floating-point weights of `model`; returns their names.

    Raises:
        GraphScaleError: a weight cannot be computed; names the node.
    """
    constant: set[ir.Value] = set()
    folded: list[str] = []
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            constant.add(value)
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        computed = node.op_type.startswith("Random") or any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        )
        source = inputs or node.op_type == "Constant"
        if source and not computed and all(value in constant for value in inputs):
            constant.update(node.outputs)
            continue
        for value in inputs:
            if value in constant and _is_weight(node, value):
                folded.append(value.name)
                _fold(model, value)
    if folded:
        _remove_unused(model)
    return folded


def _is_weight(node: ir.Node, value: ir.Value) -> bool:
    """Whether a constant is a weight that nodes compute, as `node` reads it."""
    if weight_source(value) is not None or value.producer() is None:
        return False
    multiplied = node.inputs.index(value) in _PRODUCTS.get(node.op_type, ())
    scales = node.op_type in _SCALING or node.op_type in _PRODUCTS
    if not multiplied and not (scales and _from_fill(value)):
        return False
    dtype = _dtype(value)
    return dtype is None or dtype.is_floating_point()


def _from_fill(value: ir.Value) -> bool:
    """Whether a constant comes from a ConstantOfShape: a weight left out, no arithmetic."""
    node = value.producer()
    return node is not None and (
        node.op_type == "ConstantOfShape"
        or any(_from_fill(each) for each in node.inputs[:1] if each is not None)
    )


def _dtype(value: ir.Value) -> ir.DataType | None:
    """The element type of a constant, as far as its producers tell."""
    if value.dtype is not None:
        return value.dtype
    node = value.producer()
    if node is None:
        return value.const_value.dtype
    if node.op_type == "Cast":
        return ir.DataType(node.attributes.get_int("to"))
    if node.op_type in ("Shape", "Size"):
        return ir.DataType.INT64
    if node.op_type in ("Constant", "ConstantOfShape"):
        tensor = node.attributes.get("value")
        if tensor is not None:
            return tensor.as_tensor().dtype
        return None if node.op_type == "Constant" else ir.DataType.FLOAT
    return _dtype(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None


def _fold(model: ir.Model, value: ir.Value) -> None:
    array = _compute(model, value)
    name, node = value.name, value.producer()
    value.name = f"{name}_unfolded"  # the initializer bears the name from now on
    initializer = add_initializer(model, name, array)
    value.replace_all_uses_with(initializer, replace_graph_outputs=True)
    if not any(output.uses() for output in node.outputs):
        model.graph.remove(node, safe=True)


def _compute(model: ir.Model, value: ir.Value) -> np.ndarray:
    """The value of a constant, without spending memory on a constant fill."""
    node = value.producer()
    if node is None:
        return value.const_value.numpy()
    inputs = [None if each is None else _compute(model, each) for each in node.inputs]
    if node.op_type == "ConstantOfShape" and node.domain == "":
        tensor = node.attributes.get("value")
        fill = tensor.as_tensor().numpy().reshape(()) if tensor is not None else np.float32(0)
        return np.broadcast_to(fill, inputs[0].tolist())
    return evaluate_node(model, node, inputs)[list(node.outputs).index(value)]


def _remove_unused(model: ir.Model) -> None:
    """Remove the nodes, and initializers, whose only purpose was a folded weight."""
    outputs = set(model.graph.outputs)
    for node in reversed(list(model.graph)):
        if not any(value.uses() or value in outputs for value in node.outputs):
            model.graph.remove(node, safe=True)
