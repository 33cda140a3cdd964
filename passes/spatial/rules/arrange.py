"""Operators that rearrange, join and split dimensions: Reshape, Transpose, Concat, Split, Gather.

Where a Reshape's target is a constant, its numbers are written anew for the pre-train network.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import (
    DimensionFactor,
    fixed,
    moves,
    regroup,
    target_size,
    tie_dims,
)
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter


@register("Flatten", "Reshape", "Squeeze", "Unsqueeze")
class _Regroup(Rule):
    """The factors of all dimensions keep their order and are grouped into other dimensions."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs
        before = analyzer.of(node.inputs[0])
        dims = regroup(before, analyzer.shape(output))
        if dims is None:
            if any(moves(dim) for dim in before):
                raise unfollowed(node, "cuts a height or width into pieces")
            dims = tuple(fixed(size) for size in analyzer.shape(output))
        analyzer.dims[output] = dims

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        dims = rewriter.analysis.of(node.outputs[0])
        if node.op_type != "Reshape" or not any(moves(dim) for dim in dims):
            return
        current = rewriter.analysis.constant(node, 1, "shape")
        if current is None or "shape" in node.attributes:
            return
        # 0 (the input's size) and -1 (what is left) are right in both networks.
        wanted = [
            rewriter.size(dim) if number > 0 and moves(dim) else number
            for number, dim in zip(current, dims, strict=True)
        ]
        rewriter.constants.demand(node, 1, np.asarray(wanted))


@register("Transpose")
class _Transpose(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        order = node.attributes.get_ints("perm", list(range(len(dims)))[::-1])
        analyzer.dims[node.outputs[0]] = tuple(dims[axis] for axis in order)


@register("Concat")
class _Concat(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs
        shape = analyzer.shape(output)
        axis = node.attributes.get_int("axis", 1) % len(shape)
        inputs = [analyzer.of(value) for value in node.inputs]
        result = list(max(inputs, key=lambda dims: sum(moves(dim) for dim in dims)))
        for value, dims in zip(node.inputs, inputs):
            if weight_source(value) is not None:
                # A constant map, such as one of coordinates, that becomes further channels.
                analyzer.add_table(node, value, (*result[:axis], dims[axis], *result[axis + 1 :]))
                continue
            for position, dim in enumerate(dims):
                if position != axis and not tie_dims(result[position], dim):
                    raise unfollowed(node, "joins maps whose sizes have different origins")
        parts = tuple(dims[axis] for dims in inputs)
        if any(moves(part) for part in parts):
            result[axis] = (DimensionFactor(shape[axis], parts=parts),)
        else:
            result[axis] = fixed(shape[axis])
        analyzer.dims[output] = tuple(result)


@register("Split")
class _Split(Rule):
    """Channels are split at will; a joined dimension only into what it was joined from."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = list(analyzer.of(node.inputs[0]))
        axis = node.attributes.get_int("axis", 0) % len(dims)
        sizes = [analyzer.shape(output)[axis] for output in node.outputs]
        if moves(dims[axis]):
            pieces = list(dims[axis][0].parts) if len(dims[axis]) == 1 else []
            if [target_size(part) for part in pieces] != sizes:
                raise unfollowed(node, "splits a height or width")
        else:
            pieces = [fixed(size) for size in sizes]
        for output, piece in zip(node.outputs, pieces, strict=True):
            analyzer.dims[output] = (*dims[:axis], piece, *dims[axis + 1 :])


@register("Gather")
class _Gather(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        axis = node.attributes.get_int("axis", 0) % len(dims)
        if moves(dims[axis]):
            raise unfollowed(node, "picks single rows or columns of a map")
        indices = analyzer.of(node.inputs[1])
        analyzer.dims[node.outputs[0]] = (*dims[:axis], *indices, *dims[axis + 1 :])


@register("Scatter", "ScatterElements", "ScatterND")
class _Scatter(Rule):
    """Writes into a copy of the first input, at places along dimensions that must stay."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        if node.op_type == "ScatterND":
            addressed = dims[: analyzer.shape(node.inputs[1])[-1]]
        else:
            addressed = (dims[node.attributes.get_int("axis", 0)],)
        if any(moves(dim) for dim in addressed):
            raise unfollowed(node, "writes into single places of a map")
        analyzer.keep(node)
