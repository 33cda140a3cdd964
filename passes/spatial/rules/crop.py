"""Slice: a crop, or every n-th row, along a height or width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphscale.core.plan import Grid
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import Dim, fixed, moves, section, target_size
from graphscale.passes.spatial.mapping import Change, Option, Parameters
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter

_BACKWARDS = (-1, -(1 << 31))  # from the last pixel to before the first, of any size
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
            if size == before and steps[index] == -1 and not any(each.parts for each in dims[axis]):
                continue  # mirrored as a whole
            if not moves(dims[axis]):
                dims[axis] = fixed(size)
                continue
            if steps[index] < 1:
                raise unfollowed(node, "reverses a part of a height or width")
            start, stop = _place(starts[index], before), _place(ends[index], before)
            joined = section(dims[axis], start, stop) if steps[index] == 1 else None
            if joined is not None:
                dims[axis] = joined
                continue
            crop = Crop(start, stop, steps[index])
            dims[axis] = analyzer.resize(node, axis, dims[axis], size, crop)
        analyzer.dims[output] = tuple(dims)

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        crops = rewriter.parameters(node)
        dims = rewriter.analysis.of(node.inputs[0])
        starts = rewriter.analysis.constant(node, 1, "starts")
        ends = rewriter.analysis.constant(node, 2, "ends")
        if not any(map(moves, dims)) or starts is None or ends is None:
            return
        axes = rewriter.analysis.constant(node, 3, "axes") or list(range(len(starts)))
        steps = rewriter.analysis.constant(node, 4, "steps") or [1] * len(axes)
        for index, axis in enumerate(axes):
            axis %= len(dims)
            if steps[index] < 0:
                starts[index], ends[index] = _BACKWARDS
                continue
            before, size = target_size(dims[axis]), rewriter.size(dims[axis])
            if axis in crops:
                start, stop = crops[axis].start, crops[axis].stop
            elif moves(dims[axis]):
                places = _place(starts[index], before), _place(ends[index], before)
                start, stop = (_pretrain_place(dims[axis], place, rewriter) for place in places)
            else:
                continue
            # Numbers that mean the right place already ('to the end', 'from the end') stay.
            if _place(starts[index], size) != start:
                starts[index] = start
            if _place(ends[index], size) != stop:
                ends[index] = stop
        for name, index, numbers in (("starts", 1, starts), ("ends", 2, ends)):
            if name in node.attributes:
                node.attributes[name] = ir.AttrInt64s(name, numbers)
            else:
                rewriter.constants.demand(node, index, np.asarray(numbers), freeze=True)


def _pretrain_place(dim: Dim, place: int, rewriter: Rewriter) -> int:
    """The place in the pre-train network where `place` of a sum of dimensions is."""
    if place in (0, target_size(dim)):
        return rewriter.size(dim) if place else 0
    return rewriter.size(section(dim, 0, place))


def _place(number: int, size: int) -> int:
    """The pixel that a Slice's start or end means on a dimension of `size`."""
    return min(max(number + size * (number < 0), 0), size)
