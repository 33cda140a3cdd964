"""SpaceToDepth and DepthToSpace: blocks of pixels become channels, or channels become blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from graphscale.core.plan import Grid
from graphscale.passes.spatial.analyzer import Analyzer
from graphscale.passes.spatial.dimensions import fixed
from graphscale.passes.spatial.mapping import Change, Option, Parameters
from graphscale.passes.spatial.registry import Rule, register


@dataclass(frozen=True)
class Blocks(Parameters):
    """A map that becomes `down` times smaller and `up` times larger."""

    down: int = 1
    up: int = 1

    @property
    def downsampling(self) -> float:
        return self.down / self.up

    def divisor(self, size: int) -> int:
        return self.down

    def grid(self, grid: Grid, size: int) -> Grid:
        ratio = self.down / self.up
        return Grid(grid.origin + grid.pitch * (ratio - 1) / 2, grid.pitch * ratio, size)

    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        out = size // self.down * self.up
        if size % self.down == 0 and out in wanted:
            yield Option(out, self, 0.0)


@dataclass(frozen=True)
class ScaledWindows(Blocks):
    """A map cut into `down` windows: their number stays, and their size follows the map's."""


@register("DepthToSpace", "SpaceToDepth")
class _Blocks(Rule):
    """The block size stays; the channels are what they are in the target."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        size = node.attributes.get_int("blocksize", 1)
        blocks = Blocks(down=size) if node.op_type == "SpaceToDepth" else Blocks(up=size)
        dims = analyzer.of(node.inputs[0])
        shape = analyzer.shape(node.outputs[0])
        result = [dims[0], fixed(shape[1])]
        for dimension in range(2, len(dims)):
            result.append(
                analyzer.resize(node, dimension, dims[dimension], shape[dimension], blocks)
            )
        analyzer.dims[node.outputs[0]] = tuple(result)
