"""Infer the shapes of sequences, which torch's dynamo exporter writes for split and chunk.

In goes a node that makes or reads a sequence. The shapes of a sequence's tensors are recorded in
`InferredShapes.sequences`, those of single tensors in `InferredShapes.shapes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError

if TYPE_CHECKING:
    from graphscale.passes.graph.infer_shapes import InferredShapes, ShapeInference


def infer_sequence(node: ir.Node, inference: ShapeInference) -> bool:
    """Record the outputs of a sequence operator; returns False for any other operator.

    Raises:
        GraphScaleError: the node's inputs do not fit it, or its numbers depend on the data.
    """
    rule = _RULES.get(node.op_type) if node.domain == "" else None
    if rule is None:
        return False
    try:
        rule(node, inference)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        raise GraphScaleError(
            f"node {node.name!r} ({node.op_type}): its inputs do not fit it, or its numbers depend "
            "on the data that the network is fed; leave this node out of the model"
        ) from None
    return True


def split_sizes(node: ir.Node, found: InferredShapes) -> list[int]:
    """Sizes along the axis of the tensors that a SplitToSequence gives."""
    shape = found.shapes[node.inputs[0]]
    size = shape[node.attributes.get_int("axis", 0) % len(shape)]
    split = found.constants.get(node.inputs[1]) if len(node.inputs) > 1 else np.asarray(1)
    if split is None:
        return []
    if split.ndim:
        return split.tolist()
    step = int(split)
    return [min(step, size - start) for start in range(0, size, step)]


def _split(node: ir.Node, inference: ShapeInference) -> None:
    found = inference.found
    shape = found.shapes[node.inputs[0]]
    axis = node.attributes.get_int("axis", 0) % len(shape)
    found.sequences[node.outputs[0]] = [
        (*shape[:axis], size, *shape[axis + 1 :]) for size in split_sizes(node, found)
    ]
    inference.types[node.outputs[0]] = inference.types[node.inputs[0]]


def _construct(node: ir.Node, inference: ShapeInference) -> None:
    found = inference.found
    found.sequences[node.outputs[0]] = [found.shapes[value] for value in node.inputs]
    inference.types[node.outputs[0]] = inference.types[node.inputs[0]]


def _at(node: ir.Node, inference: ShapeInference) -> None:
    found = inference.found
    shape = found.sequences[node.inputs[0]][int(found.constants[node.inputs[1]])]
    inference.record(node.outputs[0], _element_type(node, inference), shape)


def _concat(node: ir.Node, inference: ShapeInference) -> None:
    shapes = inference.found.sequences[node.inputs[0]]
    shape = list(shapes[0])
    axis = node.attributes.get_int("axis")
    if node.attributes.get_int("new_axis", 0):
        shape.insert(axis % (len(shape) + 1), len(shapes))
    else:
        shape[axis] = sum(each[axis] for each in shapes)
    inference.record(node.outputs[0], _element_type(node, inference), tuple(shape))


def _element_type(node: ir.Node, inference: ShapeInference) -> int:
    """Element type of the tensors in the sequence that `node` reads."""
    return inference.types[node.inputs[0]].tensor_type.elem_type


_RULES = {
    "SplitToSequence": _split,
    "SequenceConstruct": _construct,
    "SequenceAt": _at,
    "ConcatFromSequence": _concat,
}
