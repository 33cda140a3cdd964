"""The solved geometry: the sizes, parameters and sampling grids of the pre-train network.

`solve_geometry` makes it; the rewriter and the plan are made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from graphscale.core.plan import Grid
from graphscale.passes.spatial.dimensions import Dim, SpatialSize, pretrain_size
from graphscale.passes.spatial.mapping import Parameters, SpatialMapping


@dataclass(frozen=True)
class Geometry:
    """The solved geometry.

    Attributes:
        inputs: Pre-train pixels of each size of the inputs, as given.
        sizes: Pre-train pixels of every spatial size.
        parameters: Each mapping's parameters in the pre-train network.
        kernels: Each convolution's taps per spatial dimension in the pre-train network.
        grids: (target, pre-train) sampling grid of each tensor's dimensions that follow the input.
    """

    inputs: Mapping[SpatialSize, int]
    sizes: Mapping[SpatialSize, int]
    parameters: Mapping[SpatialMapping, Parameters]
    kernels: Mapping[ir.Node, tuple[int, ...]]
    grids: Mapping[ir.Value, Mapping[int, tuple[Grid, Grid]]]

    def shape(self, dims: Iterable[Dim]) -> list[int]:
        """Shape of a tensor of these dimensions in the pre-train network."""
        return [pretrain_size(dim, self.sizes) for dim in dims]


def frames(inputs: Mapping[SpatialSize, int]) -> dict[int, tuple[int, int]]:
    """(target, pre-train) pixels of the image on each axis: those of the first input there."""
    found: dict[int, tuple[int, int]] = {}
    for size, pixels in inputs.items():
        found.setdefault(size.axis, (size.target, pixels))
    return found


def phase(grids: tuple[Grid, Grid], frame: tuple[int, int]) -> float:
    """How far the pre-train grid is off the target's, in pixels of the pre-train tensor.

    `frame` holds the image's (target, pre-train) pixels.
    """
    target, pretrain = grids
    offset = pretrain.centre(frame[1]) - target.centre(frame[0])
    return offset * frame[1] / pretrain.pitch
