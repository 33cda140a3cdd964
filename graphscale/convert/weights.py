"""Which of a graph's constants are trained.

The rule: a floating-point constant is a weight where it feeds an input that the operator's
`Translation` names as `weights` (Conv, Gemm, MatMul, BatchNormalization …), directly or through
nodes that compute on constants alone (Transpose, Cast, Identity …). An operand of Add or Mul
(`terms`) is a weight if it has more than one element and stands behind the first layer: a bias, a
layer scale. A single number is a weight only as the bias that an Add puts on a MatMul's or a
convolution's result. All else is a constant: 0.5 in a GELU, bounds of a Clip, the mean that is
subtracted from images.
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
        names: The values that stand in the file itself; constants of functions are not trained.

    Raises:
        GraphScaleError: one tensor is a weight and a running statistic at once.
    """
    fixed = _computed_from_constants(graph)
    layered = _behind_a_layer(graph, fixed)
    trained: dict[ir.Value, None] = {}
    statistics: dict[ir.Value, None] = {}
    for node in graph:
        entry = _entry(node)
        if all(output in fixed for output in node.outputs):
            continue
        for index, value in enumerate(node.inputs):
            if value not in fixed:
                continue
            if index in entry.weights or (
                index in entry.terms and _is_term(node, index, fixed, layered)
            ):
                trained[value] = None
            elif index in entry.statistics:
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
                pending.extend(v for v in reversed(value.producer().inputs) if v is not None)
    return found


def _entry(node: ir.Node) -> Translation:
    return TRANSLATIONS["" if node.domain == "ai.onnx" else node.domain, node.op_type]


def _computed_from_constants(graph: ir.Graph) -> set[ir.Value]:
    fixed = set(graph.initializers.values())
    for node in graph:
        if all(value is None or value in fixed for value in node.inputs):
            fixed.update(node.outputs)
    return fixed


def _behind_a_layer(graph: ir.Graph, fixed: set[ir.Value]) -> set[ir.Value]:
    """The values that some layer with weights has worked on."""
    found: set[ir.Value] = set()
    for node in graph:
        entry = _entry(node)
        layer = any(i in entry.weights and v in fixed for i, v in enumerate(node.inputs))
        if layer or node.op_type == "If" or any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _is_term(node: ir.Node, index: int, fixed: set[ir.Value], layered: set[ir.Value]) -> bool:
    others = [value for i, value in enumerate(node.inputs) if i != index]
    if any(value in fixed for value in others) or not any(value in layered for value in others):
        return False
    value = node.inputs[index]
    tensor = constant_tensor(value)
    if tensor is None or tensor.size != 1:
        return True  # what is computed from constants is judged by the constants at its root
    producer = others[0].producer()
    return (
        node.op_type == "Add"
        and len(tensor.shape) > 0
        and producer is not None
        and bool(_entry(producer).weights)
    )
