"""Slice: a crop, or every n-th row, along a height or width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphscale.core.plan import Grid
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import fixed, moves, target_size
from graphscale.passes.spatial.mapping import Change, Option, Parameters
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter

_CUT_COST = 0.05  # per pixel that is cut off more, or less, than in the target


@dataclass(frozen=True)
class Crop(Parameters):
    """The pixels from `start` to before `stop`, every `step`-th of them."""

    start: int
    stop: int
    step: int

    @property
    def downsampling(self) -> int:
        return self.step

    def divisor(self, size: int) -> int:
        return self.step if size % self.step == 0 else 1

    def output(self, size: int) -> int:
        """How many pixels of `size` are left."""
        return max(0, -((self.start - min(self.stop, size)) // self.step))

    def grid(self, grid: Grid, size: int) -> Grid:
        return Grid(grid.origin + grid.pitch * self.start, grid.pitch * self.step, size)

    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        cut_begin, cut_end = self.start, target.source - self.stop
        for out in wanted:
            span = (out - 1) * self.step + 1  # pixels from the first to the last that is taken
            for start in range(max(0, size - span + 1)):
                if self.step > 1 and start != cut_begin:
                    continue  # a slice with a step (x[::2]) keeps its phase
                end = size - start - span
                stop = size - cut_end if self.step > 1 else start + span
                crop = Crop(start, stop, self.step)
                if crop.output(size) == out:
                    cost = _CUT_COST * (abs(start - cut_begin) + abs(end - cut_end))
                    yield Option(out, crop, cost)


@register("Slice")
class _Slice(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs
        dims = list(analyzer.of(node.inputs[0]))
        starts = analyzer.constant(node, 1, "starts")
        ends = analyzer.constant(node, 2, "ends")
        axes = analyzer.constant(node, 3, "axes") or list(range(len(starts or [])))
        steps = analyzer.constant(node, 4, "steps") or [1] * len(axes)
        if starts is None or ends is None:
            if any(map(moves, dims)):
                raise unfollowed(node, "cuts at places that depend on the data")
            axes = []
        for index, axis in enumerate(axes):
            axis %= len(dims)
            size, before = analyzer.shape(output)[axis], target_size(dims[axis])
            if size == before and steps[index] == 1:
                continue
            if not moves(dims[axis]):
                dims[axis] = fixed(size)
                continue
            if steps[index] < 1:
                raise unfollowed(node, "reverses a height or width")
            crop = Crop(_place(starts[index], before), _place(ends[index], before), steps[index])
            dims[axis] = analyzer.resize(node, axis, dims[axis], size, crop)
        analyzer.dims[output] = tuple(dims)

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        crops = rewriter.parameters(node)
        if not crops:
            return
        starts = rewriter.analysis.constant(node, 1, "starts")
        ends = rewriter.analysis.constant(node, 2, "ends")
        axes = rewriter.analysis.constant(node, 3, "axes") or list(range(len(starts)))
        sizes = rewriter.shape(node.inputs[0])
        for index, axis in enumerate(axes):
            axis %= len(sizes)
            if axis not in crops:
                continue
            # Numbers that mean the right place already ('to the end', 'from the end') stay.
            if _place(starts[index], sizes[axis]) != crops[axis].start:
                starts[index] = crops[axis].start
            if _place(ends[index], sizes[axis]) != crops[axis].stop:
                ends[index] = crops[axis].stop
        for name, index, numbers in (("starts", 1, starts), ("ends", 2, ends)):
            if name in node.attributes:
                node.attributes[name] = ir.AttrInt64s(name, numbers)
            else:
                rewriter.constants.demand(node, index, np.asarray(numbers), freeze=True)


def _place(number: int, size: int) -> int:
    """The pixel that a Slice's start or end means on a dimension of `size`."""
    return min(max(number + size * (number < 0), 0), size)
