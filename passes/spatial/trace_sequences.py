"""Tracing of the sequence operators that torch's dynamo exporter writes for split and chunk."""

from __future__ import annotations

import onnx_ir as ir

from graphscale.passes.graph.infer_sequences import split_sizes
from graphscale.passes.spatial.dimensions import Dims, fixed, moves
from graphscale.passes.spatial.traced import Traced, unfollowed


def split_to_sequence(node: ir.Node, traced: Traced) -> None:
    dims = traced.of(node.inputs[0])
    axis = node.attributes.get_int("axis", 0) % len(dims)
    if moves(dims[axis]):
        raise unfollowed(node, "splits a height or width")
    _record(
        node,
        traced,
        [
            (*dims[:axis], fixed(size), *dims[axis + 1 :])
            for size in split_sizes(node, traced.measured)
        ],
    )


def sequence_construct(node: ir.Node, traced: Traced) -> None:
    _record(node, traced, [traced.of(value) for value in node.inputs])


def _record(node: ir.Node, traced: Traced, tensors: list[Dims]) -> None:
    """A sequence stands where its first tensor does: so its sampling grid is carried on."""
    traced.sequences[node.outputs[0]] = tensors
    traced.dims[node.outputs[0]] = tensors[0]


def sequence_at(node: ir.Node, traced: Traced) -> None:
    index = int(traced.measured.constants[node.inputs[1]])
    traced.dims[node.outputs[0]] = traced.sequences[node.inputs[0]][index]


def concat_from_sequence(node: ir.Node, traced: Traced) -> None:
    dims = traced.sequences[node.inputs[0]]
    axis = node.attributes.get_int("axis")
    if any(len(each) > axis and moves(each[axis]) for each in dims):
        raise unfollowed(node, "joins a sequence of maps along a height or width")
    shape = traced.shape(node.outputs[0])
    kept = list(dims[0])
    if node.attributes.get_int("new_axis", 0):
        kept.insert(axis % len(shape), fixed(shape[axis]))
    else:
        kept[axis] = fixed(shape[axis])
    traced.dims[node.outputs[0]] = tuple(kept)
