"""Which of a graph's constants are trained.

In: an ONNX graph. Out: `Weights`, the constants that become parameters and running statistics.

A floating-point constant is a weight where it feeds an input that the operator's `Translation`
names in `weights` (Conv, Gemm, MatMul, BatchNormalization …), directly or through nodes that
compute on constants alone (Transpose, Cast, Identity …). An operand of Add or Mul (`terms`) is a
weight if it has more than one element and stands behind the first layer: a bias, a layer scale. A
single number is a weight only as the bias that an Add puts on a MatMul's or a convolution's result.
Every other constant stays one: 0.5 in a GELU, the bounds of a Clip, the mean that is subtracted
from images, the anchor points and strides of a detection head (numbers that count pixels).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphscale.convert.operators import TRANSLATIONS, Translation
from graphscale.core.errors import GraphScaleError

_FLOATING = (
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
)


@dataclass
class Weights:
    """The constants that training changes, in the order in which the graph reads them.

    Attributes:
        parameters: Trained by gradients.
        statistics: Running statistics of BatchNormalization.
    """

    parameters: dict[ir.Value, ir.TensorProtocol] = field(default_factory=dict)
    statistics: dict[ir.Value, ir.TensorProtocol] = field(default_factory=dict)


def constant_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer, a Constant node or a ConstantOfShape of a known shape."""
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Constant" and "value" in node.attributes:
        return node.attributes["value"].value
    if node.op_type == "ConstantOfShape" and node.inputs[0] is not None:
        shape = constant_tensor(node.inputs[0])
        return None if shape is None else _filled(node, shape.numpy())
    return None


def _filled(node: ir.Node, shape: np.ndarray) -> ir.TensorProtocol:
    fill = node.attributes.get("value")
    element = np.zeros(1, np.float32) if fill is None else fill.value.numpy()
    array = np.broadcast_to(element.reshape(()), tuple(shape))
    return ir.Tensor(array, ir.DataType.FLOAT if fill is None else fill.value.dtype)


def find_weights(graph: ir.Graph, source: str, names: Container[str]) -> Weights:
    """The weights and running statistics of `graph`, by the rule above.

    Args:
        graph: The graph, functions inlined.
        source: Name of its file, for errors.
        names: Names of the values in the file's own graph. Constants that come from inlined
            functions have other names, and are not trained.

    Raises:
        GraphScaleError: one tensor is a weight and a running statistic at once.
    """
    fixed = _computed_from_constants(graph)
    layered = _behind_a_layer(graph, fixed)
    trained: dict[ir.Value, None] = {}
    statistics: dict[ir.Value, None] = {}
    for node in graph:
        translation = _translation(node)
        if all(output in fixed for output in node.outputs):
            continue
        for index, value in enumerate(node.inputs):
            if value not in fixed:
                continue
            if index in translation.weights or (
                index in translation.terms and _is_term(node, index, fixed, layered)
            ):
                trained[value] = None
            elif index in translation.statistics:
                statistics[value] = None
    found = _leaves(trained, statistics, fixed, names)
    for value in found.parameters.keys() & found.statistics.keys():
        raise GraphScaleError(
            f"{source}: tensor {value.name!r} is a weight and a running statistic at once; "
            "give each its own tensor"
        )
    return found


def _leaves(
    trained: dict[ir.Value, None],
    statistics: dict[ir.Value, None],
    fixed: set[ir.Value],
    names: Container[str],
) -> Weights:
    """The constants from which the values in `trained` and `statistics` are computed."""
    found = Weights()
    for values, tensors in ((trained, found.parameters), (statistics, found.statistics)):
        pending = list(reversed(values))
        direct = set(pending)
        seen: set[ir.Value] = set()
        while pending:
            value = pending.pop()
            if value in seen or value not in fixed:
                continue
            seen.add(value)
            tensor = constant_tensor(value)
            if tensor is not None:
                single = tensor.size == 1 and value not in direct
                if tensor.dtype in _FLOATING and not single and value.name in names:
                    tensors[value] = tensor
            else:
                node = value.producer()
                kept = _translation(node).fixed
                learned = [v for i, v in enumerate(node.inputs) if i not in kept]
                pending.extend(v for v in reversed(learned) if v is not None)
    return found


def _translation(node: ir.Node) -> Translation:
    return TRANSLATIONS["" if node.domain == "ai.onnx" else node.domain, node.op_type]


def _computed_from_constants(graph: ir.Graph) -> set[ir.Value]:
    """The initializers, and the values that nodes compute from them alone."""
    fixed = set(graph.initializers.values())
    for node in graph:
        if all(value is None or value in fixed for value in node.inputs):
            fixed.update(node.outputs)
    return fixed


def _behind_a_layer(graph: ir.Graph, fixed: set[ir.Value]) -> set[ir.Value]:
    """The values that depend on the output of a layer with weights."""
    found: set[ir.Value] = set()
    for node in graph:
        translation = _translation(node)
        layer = any(i in translation.weights and v in fixed for i, v in enumerate(node.inputs))
        if layer or node.op_type == "If" or any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _is_term(node: ir.Node, index: int, fixed: set[ir.Value], layered: set[ir.Value]) -> bool:
    """Whether input `index` of an Add or Mul is a weight; see the rule above."""
    others = [value for i, value in enumerate(node.inputs) if i != index]
    if any(value in fixed for value in others) or not any(value in layered for value in others):
        return False
    value = node.inputs[index]
    tensor = constant_tensor(value)
    if tensor is None:
        return True  # computed from constants: `_leaves` checks each of those constants
    if tensor.size != 1:
        return not _counts_pixels(tensor)
    producer = others[0].producer()
    return (
        node.op_type == "Add"
        and len(tensor.shape) > 0
        and producer is not None
        and bool(_translation(producer).weights)
    )


def _counts_pixels(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor holds whole and half numbers of pixels, as anchor points and strides do.

    Numbers that were trained hardly ever are multiples of a half. Those that training starts from
    are, but are one number repeated, or zeros and ones. Two numbers are too few to tell.
    """
    if not tensor.dtype.is_floating_point() or tensor.size < 3:
        return False
    numbers = tensor.numpy().astype(np.float64)
    first = numbers.flat[:64]  # enough to tell nearly every weight without reading it whole
    if (first % 0.5).any() or (numbers % 0.5).any():
        return False
    return bool((numbers != numbers.flat[0]).any() and np.abs(numbers).max() >= 2)
