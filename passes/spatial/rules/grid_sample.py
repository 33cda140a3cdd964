"""GridSample and AffineGrid: a map is read at the places that another tensor, the grid, holds.

Places are relative to the map (-1 to 1), so that they need no rescaling. The output is as large as
the grid; the map that is read may have any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphscale.core.plan import Grid
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.analyzer import Analyzer
from graphscale.passes.spatial.dimensions import fixed, moves
from graphscale.passes.spatial.mapping import Change, Option, Parameters
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter


@dataclass(frozen=True)
class FreeGrid(Parameters):
    """A grid of places that is not computed from a map: it can have any size."""

    def grid(self, grid: Grid, size: int) -> Grid:
        return Grid(grid.origin, grid.pitch, size)

    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        for out in wanted:
            yield Option(out, self, 0.0)


@register("GridSample")
class _GridSample(Rule):
    """X is N×C×H×W (or with depth), the grid N×H'×W'×2, the output N×C×H'×W'."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        image, grid = node.inputs
        dims, places = analyzer.of(image), analyzer.of(grid)
        sizes = list(places[1:-1])
        if weight_source(grid) is not None and any(map(moves, dims)):
            # A constant grid is a table with one place per output pixel. It is interpolated.
            for axis, pixels in enumerate(analyzer.shape(grid)[1:-1]):
                sizes[axis] = analyzer.spread(node, axis + 2, axis, pixels, FreeGrid())
            analyzer.add_table(node, grid, (places[0], *sizes, places[-1]))
        analyzer.dims[node.outputs[0]] = (dims[0], dims[1], *sizes)


@register("AffineGrid")
class _AffineGrid(Rule):
    """From one affine map per image and a size N×C×H×W, the grid N×H×W×2."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs
        shape = analyzer.shape(output)
        dims = list(analyzer.of(node.inputs[0])[:1])
        for axis, pixels in enumerate(shape[1:-1]):
            dims.append(analyzer.spread(node, axis + 1, axis, pixels, FreeGrid()))
        dims.append(fixed(shape[-1]))
        analyzer.dims[output] = tuple(dims)

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        wanted = rewriter.analysis.constant(node, 1, "size")
        if wanted is None or not rewriter.resizes(node):
            return
        wanted[2:] = rewriter.shape(node.outputs[0])[1:-1]
        rewriter.constants.demand(node, 1, np.asarray(wanted))
