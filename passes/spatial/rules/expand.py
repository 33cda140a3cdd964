"""Expand and Tile: dimensions of one pixel are repeated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphscale.core.plan import Grid
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import Dim, Dims, fixed, moves, target_size
from graphscale.passes.spatial.mapping import Change, Option, Parameters
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter


@dataclass(frozen=True)
class OnePixel(Parameters):
    """One pixel that is spread over a map, whose pixels stand at equal parts of it."""

    def grid(self, grid: Grid, size: int) -> Grid:
        shift = (1 / size - 1) / 2
        return Grid(grid.origin + grid.pitch * shift, grid.pitch / size, size)

    def grid_over(self, whole: int, size: int) -> Grid:
        return Grid((whole / size - 1) / 2, whole / size, size)

    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        for out in wanted:
            yield Option(out, self, 0.0)


@register("Expand", "Tile")
class _Expand(Rule):
    """A dimension that is repeated as often as another tensor's is long is one of that tensor's."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs
        dims = analyzer.of(node.inputs[0])
        shape = analyzer.shape(output)
        dims = (*(fixed(1) for _ in range(len(shape) - len(dims))), *dims)
        like = _like(node, analyzer)
        # Heights and widths come last, behind the batch, the channels and groups of channels.
        axes = max(len(analyzer.shape(value)) for value in graph_inputs(analyzer.model)) - 2
        # A number may be spread over a map without channels.
        number = analyzer.spread_numbers and not analyzer.shape(node.inputs[0])
        first = max(1 if number else 2, len(shape) - axes)
        result: list[Dim] = []
        for position, (dim, size) in enumerate(zip(dims, shape, strict=True)):
            if target_size(dim) == size:
                result.append(dim)
            elif like is not None and target_size(dim) == 1:
                result.append(like[position])
            elif moves(dim):
                raise unfollowed(node, "repeats a height or width")
            elif position >= first and target_size(dim) == 1:
                result.append(analyzer.spread(node, position, position - first, size, OnePixel()))
            else:
                result.append(fixed(size))
        analyzer.dims[output] = tuple(result)

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        dims = rewriter.analysis.of(node.outputs[0])
        numbers = rewriter.analysis.constant(node, 1, "repeats")
        if numbers is None or not any(moves(dim) for dim in dims):
            return
        aligned = dims[len(dims) - len(numbers) :]
        wanted = [
            rewriter.size(dim) if number > 1 and moves(dim) else number
            for number, dim in zip(numbers, aligned, strict=True)
        ]
        rewriter.constants.demand(node, 1, np.asarray(wanted))


def _like(node: ir.Node, analyzer: Analyzer) -> Dims | None:
    """The dimensions of a tensor that gives an Expand its shape, or that its output is joined with.

    None for any other node.
    """
    shape = node.inputs[1].producer()
    others = [] if shape is None or shape.op_type != "Shape" else [shape.inputs[0]]
    for usage in node.outputs[0].uses():
        if usage.node.op_type in ("Add", "Div", "Mul", "Sub"):
            others += [value for value in usage.node.inputs if value is not node.outputs[0]]
    wanted = tuple(analyzer.shape(node.outputs[0]))
    for value in others if node.op_type == "Expand" else ():
        dims = analyzer.dims.get(value, ())
        if tuple(map(target_size, dims)) == wanted:
            return dims
    return None
