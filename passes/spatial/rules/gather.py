"""Gather, GatherElements and GatherND: picking places along dimensions.

Three ways to pick places of a map are followed: a roll around the map's border (torch.roll),
windows that may overlap (torch.unfold), and places that the network computes from its maps, such as
those of the best detections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from graphscale.core.lookups import offset_places
from graphscale.core.plan import Grid
from graphscale.passes.graph.depends_on_data import depends_on_data
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import (
    Dim,
    SpatialSize,
    fixed,
    moves,
    single_size,
    target_size,
    tie_dims,
)
from graphscale.passes.spatial.mapping import Change, Option, Parameters
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter
from graphscale.passes.spatial.rules.blocks import ScaledWindows

T = TypeVar("T")


@dataclass(frozen=True)
class Unfolded(Parameters):
    """Windows of `pixels` at distances of `step`; the output's size is their number.

    The output has a dimension for the windows and one for the pixels of each, which comes first
    where `pixels_first`.
    """

    pixels: int
    step: int
    pixels_first: bool = False

    @property
    def downsampling(self) -> int:
        return self.step

    def number(self, size: int) -> int:
        """How many windows `size` pixels have room for."""
        return (size - self.pixels) // self.step + 1

    def indices(self, size: int) -> np.ndarray:
        """The pixels of each window, a row for each, or a column where `pixels_first`."""
        starts, pixels = np.arange(self.number(size)) * self.step, np.arange(self.pixels)
        return np.add.outer(*self.arranged(starts, pixels))

    def arranged(self, windows: T, pixels: T) -> tuple[T, T]:
        """What belongs to the windows and to the pixels of each, in the order of dimensions."""
        return (pixels, windows) if self.pixels_first else (windows, pixels)

    def grid(self, grid: Grid, size: int) -> Grid:
        middle = (self.pixels - 1) / 2
        return Grid(grid.origin + grid.pitch * middle, grid.pitch * self.step, size)

    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        if size >= self.pixels and self.number(size) in wanted:
            yield Option(self.number(size), self, 0.0)


@register("Gather")
class _Gather(Rule):
    """A map is rolled by as many pixels in both networks, and windows keep their size and distance.

    A roll by half a window follows the windows that Swin cuts the map into, if they are scaled.
    """

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        axis = node.attributes.get_int("axis", 0) % len(dims)
        picked = analyzer.of(node.inputs[1])
        if moves(dims[axis]):
            indices = analyzer.inferred.constants.get(node.inputs[1])
            windows = _windows(indices)
            if depends_on_data(node.inputs[1]):
                pass  # the pre-train network computes places in its own map
            elif _first(indices, dims[axis]) is not None:
                picked = (dims[axis],)
            elif windows is not None:
                count = windows.number(target_size(dims[axis]))
                number = analyzer.resize(node, axis, dims[axis], count, windows)
                picked = windows.arranged(number, fixed(windows.pixels))
            elif _is_before_maps(indices, dims[axis]) or _is_at_an_end(indices, dims[axis]):
                picked = ()
            else:
                raise unfollowed(node, "picks single rows or columns of a map")
        analyzer.dims[node.outputs[0]] = (*dims[:axis], *picked, *dims[axis + 1 :])

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        dims = rewriter.analysis.of(node.inputs[0])
        axis = node.attributes.get_int("axis", 0) % len(dims)
        if not moves(dims[axis]) or depends_on_data(node.inputs[1]):
            return
        size = rewriter.size(dims[axis])
        if not rewriter.analysis.shape(node.inputs[1]):
            index = int(rewriter.analysis.inferred.constants[node.inputs[1]])
            if index > 0 and _is_at_an_end(np.asarray(index), dims[axis]):
                rewriter.constants.demand(node, 1, np.asarray(size - 1), freeze=True)
            return
        windows = rewriter.parameters(node).get(axis)
        indices = rewriter.analysis.inferred.constants.get(node.inputs[1])
        if windows is None and _first(indices, dims[axis]) is None:
            return  # what is looked up by relative positions; the plan has their indices
        if windows is None:
            wanted = _rolled(node, dims[axis], size, rewriter)
        else:
            wanted = windows.indices(size)
        if not np.array_equal(rewriter.constants.computed(node.inputs[1], rewriter.shape), wanted):
            rewriter.constants.replace(node, 1, wanted)


@register("GatherND")
class _GatherND(Rule):
    """Picks places along dimensions that must stay, such as the coefficients of a transform.

    The places of the offsets between the pixels of a row follow the row.
    """

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims, indices = (analyzer.of(value) for value in node.inputs)
        if _offsets_of(node, analyzer) is not None and analyzer.look_up_row(node):
            dims = analyzer.of(node.inputs[0])
            analyzer.dims[node.outputs[0]] = (dims[0], dims[0], *dims[2:])
            return
        batch = node.attributes.get_int("batch_dims", 0)
        last = batch + analyzer.shape(node.inputs[1])[-1]
        if any(map(moves, dims[:last])) and not depends_on_data(node.inputs[1]):
            raise unfollowed(node, "picks single places of a map")
        analyzer.dims[node.outputs[0]] = (*indices[:-1], *dims[last:])

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        row = _offsets_of(node, rewriter.analysis)
        if row is not None:
            rewriter.constants.replace(node, 1, offset_places(rewriter.geometry.sizes[row]))


@register("GatherElements")
class _GatherElements(Rule):
    """Picks along one dimension for each place of the others."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims, indices = (analyzer.of(value) for value in node.inputs)
        axis = node.attributes.get_int("axis", 0) % len(dims)
        if moves(dims[axis]) and not depends_on_data(node.inputs[1]):
            raise unfollowed(node, "picks single places of a map")
        result = []
        for at, (dim, index) in enumerate(zip(dims, indices, strict=True)):
            if at != axis and target_size(dim) == target_size(index) and not tie_dims(dim, index):
                raise unfollowed(node, "picks from a map whose sizes have another origin")
            result.append(index)
        analyzer.dims[node.outputs[0]] = tuple(result)


def _offsets_of(node: ir.Node, facts: Analyzer | SpatialAnalysis) -> SpatialSize | None:
    """The row of pixels of whose offsets a GatherND picks the places; None if it picks others."""
    places = facts.inferred.constants.get(node.inputs[1])
    row = single_size(facts.of(node.inputs[0])[0])
    if row is None or places is None or node.attributes.get_int("batch_dims", 0):
        return None
    return row if np.array_equal(places, offset_places(row.target)) else None


def _first(indices: np.ndarray | None, dim: Dim) -> int | None:
    """The pixel that comes first after a roll; None where the indices are no roll."""
    if single_size(dim) is None or indices is None or indices.ndim != 1 or not indices.size:
        return None
    first = int(indices[0])
    rolled = (np.arange(target_size(dim)) + first) % target_size(dim)
    return first if np.array_equal(indices, rolled) else None


def _is_before_maps(indices: np.ndarray | None, dim: Dim) -> bool:
    """Whether one place is picked that lies before all maps that were joined, as a class token."""
    if indices is None or indices.ndim or len(dim) != 1:
        return False
    end = 0
    for part in dim[0].parts:
        if moves(part):
            break
        end += target_size(part)
    return 0 <= int(indices) < end


def _is_at_an_end(indices: np.ndarray | None, dim: Dim) -> bool:
    """Whether the first or last row, column or step of a sequence is picked."""
    if indices is None or indices.ndim or single_size(dim) is None:
        return False
    return int(indices) % target_size(dim) in (0, target_size(dim) - 1)


def _windows(indices: np.ndarray | None) -> Unfolded | None:
    """The windows that indices pick; None where they pick others.

    The pixels of a window are neighbours. Where windows are, too, there are more of them.
    """
    if indices is None or indices.ndim != 2 or 0 in indices.shape:
        return None
    rows, columns = indices.shape
    next_row = int(indices[1, 0] - indices[0, 0]) if rows > 1 else columns
    next_column = int(indices[0, 1] - indices[0, 0]) if columns > 1 else 1
    pixels_first = next_row == 1 and (next_column > 1 or rows < columns)
    pixels, step = (rows, next_column) if pixels_first else (columns, next_row)
    windows = Unfolded(pixels, step, pixels_first)
    last = int(indices[-1, -1]) + 1
    return windows if step > 0 and np.array_equal(indices, windows.indices(last)) else None


def _rolled(node: ir.Node, dim: Dim, size: int, rewriter: Rewriter) -> np.ndarray:
    """The indices of a roll of `size` pixels."""
    target = target_size(dim)
    first = _first(rewriter.analysis.inferred.constants[node.inputs[1]], dim)
    if first <= target // 2:
        first = _distance(first, dim, rewriter)
    else:  # the last pixels come first
        first = size - _distance(target - first, dim, rewriter)
    return (np.arange(size) + first) % size


def _distance(pixels: int, dim: Dim, rewriter: Rewriter) -> int:
    """By how many pixels the pre-train map is rolled where the target's is by `pixels`."""
    for mapping in rewriter.analysis.consumers.get(single_size(dim), ()):
        window = mapping.result
        if isinstance(mapping.target, ScaledWindows) and pixels == window.target // 2:
            return rewriter.geometry.sizes[window] // 2
    return pixels
