"""Pad: a border around a map, or a crop where it is negative."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from graphscale.core.plan import Grid
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import fixed, moves, single_size, total
from graphscale.passes.spatial.mapping import PADDING_COST, Change, Option, Parameters
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter


@dataclass(frozen=True)
class Border(Parameters):
    """Pixels before and behind a map; negative numbers crop.

    `reflects` says that the border mirrors the map, and must then be smaller than the map.
    """

    begin: int
    end: int
    reflects: bool = False

    def grid(self, grid: Grid, size: int) -> Grid:
        return Grid(grid.origin - grid.pitch * self.begin, grid.pitch, size)

    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        for out in wanted:
            total = out - size
            for begin in {total // 2, total - total // 2, self.begin, total - self.end}:
                end = total - begin
                if self.reflects and max(begin, end) >= size:
                    continue
                cost = PADDING_COST * (abs(begin - self.begin) + abs(end - self.end))
                yield Option(out, replace(self, begin=begin, end=end), cost)


@register("Pad")
class _Pad(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs
        dims = list(analyzer.of(node.inputs[0]))
        reflects = node.attributes.get_string("mode", "constant") == "reflect"
        pads = analyzer.constant(node, 1, "pads")
        axes = analyzer.constant(node, 3, "axes") or list(range(len(dims)))
        if pads is None:
            raise unfollowed(node, "pads by numbers that depend on the data")
        for index, axis in enumerate(axes):
            axis %= len(dims)
            begin, end = pads[index], pads[index + len(axes)]
            size = analyzer.shape(output)[axis]
            if begin == end == 0:
                continue
            if not moves(dims[axis]):
                dims[axis] = fixed(size)
                continue
            if single_size(dims[axis]) is None and min(begin, end) >= 0:
                # Further places before or behind flattened maps, as for a class token.
                around = [fixed(begin)] * (begin > 0), [fixed(end)] * (end > 0)
                dims[axis] = total(*around[0], dims[axis], *around[1])
                continue
            border = Border(begin, end, reflects)
            dims[axis] = analyzer.resize(node, axis, dims[axis], size, border)
        analyzer.dims[output] = tuple(dims)

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        borders = rewriter.parameters(node)
        if not borders:
            return
        pads = rewriter.analysis.constant(node, 1, "pads")
        rank = len(rewriter.analysis.of(node.inputs[0]))
        axes = rewriter.analysis.constant(node, 3, "axes") or list(range(rank))
        for index, axis in enumerate(axes):
            border = borders.get(axis % rank)
            if border is not None:
                pads[index], pads[index + len(axes)] = border.begin, border.end
        if "pads" in node.attributes:
            node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        else:
            rewriter.constants.demand(node, 1, np.asarray(pads), freeze=True)
