"""Measure the sequence operators that torch's dynamo exporter writes for split and chunk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

Shape = tuple[int, ...]
Record = Callable[[ir.Value, int, Shape], None]


def infer_sequence(node: ir.Node, measured, types, record: Record) -> bool:
    """Record what a sequence operator gives; False for any other operator.

    Sequences are kept in `measured.sequences` as the shapes of their tensors.
    """
    rule = _RULES.get(node.op_type) if node.domain == "" else None
    if rule is None:
        return False
    rule(node, measured, types, record)
    return True


def split_sizes(node: ir.Node, measured) -> list[int]:
    """Sizes along the axis of the tensors that a SplitToSequence gives."""
    shape = measured.shapes[node.inputs[0]]
    size = shape[node.attributes.get_int("axis", 0) % len(shape)]
    split = measured.constants.get(node.inputs[1]) if len(node.inputs) > 1 else np.asarray(1)
    if split is None:
        return []
    if split.ndim:
        return split.tolist()
    step = int(split)
    return [min(step, size - start) for start in range(0, size, step)]


def _split(node: ir.Node, measured, types, record: Record) -> None:
    shape = measured.shapes[node.inputs[0]]
    axis = node.attributes.get_int("axis", 0) % len(shape)
    measured.sequences[node.outputs[0]] = [
        (*shape[:axis], size, *shape[axis + 1 :]) for size in split_sizes(node, measured)
    ]
    types[node.outputs[0]] = types[node.inputs[0]]


def _construct(node: ir.Node, measured, types, record: Record) -> None:
    measured.sequences[node.outputs[0]] = [measured.shapes[value] for value in node.inputs]
    types[node.outputs[0]] = types[node.inputs[0]]


def _at(node: ir.Node, measured, types, record: Record) -> None:
    shapes = measured.sequences[node.inputs[0]]
    shape = shapes[int(measured.constants[node.inputs[1]])]
    record(node.outputs[0], types[node.inputs[0]].tensor_type.elem_type, shape)


def _concat(node: ir.Node, measured, types, record: Record) -> None:
    shapes = measured.sequences[node.inputs[0]]
    shape = list(shapes[0])
    axis = node.attributes.get_int("axis")
    if node.attributes.get_int("new_axis", 0):
        shape.insert(axis % (len(shape) + 1), len(shapes))
    else:
        shape[axis] = sum(each[axis] for each in shapes)
    record(node.outputs[0], types[node.inputs[0]].tensor_type.elem_type, tuple(shape))


_RULES = {
    "SplitToSequence": _split,
    "SequenceConstruct": _construct,
    "SequenceAt": _at,
    "ConcatFromSequence": _concat,
}
