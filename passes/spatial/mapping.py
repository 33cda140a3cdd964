"""How one axis of one operator maps spatial sizes and sampling grids.

A mapping leads from the size of a node's input to the size of its output. Its `Parameters` (the
kernel, stride and padding of a convolution, the start and stop of a Slice ...) are known for the
target network. Those of the pre-train network are searched for: `options` lists the ways to get
from one size to another, each with a cost, and `grid` moves a sampling grid through the operator.
The parameters of an operator family stand in the file of its rule, in `rules/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import onnx_ir as ir

from graphscale.core.kernel_sizes import KernelTable, pretrain_dilation, pretrain_size
from graphscale.core.plan import Grid
from graphscale.passes.spatial.dimensions import SpatialSize

# Costs that the solver compares (see passes/shrink/solve_geometry.py); their unit is arbitrary.
PADDING_COST = 0.3  # per pixel of padding away from the target's, scaled with the kernel
ASYMMETRY_COST = 1.0  # unequal padding: torch and cuDNN need a separate Pad


@dataclass(frozen=True)
class Option:
    """One way to set an operator's parameters on one axis: the output size that it gives."""

    size: int
    parameters: Parameters
    cost: float


@dataclass(frozen=True)
class Change:
    """What the target network does on an axis: parameters, input size and output size."""

    parameters: Parameters
    source: int
    result: int


class Parameters(ABC):
    """An operator's parameters on one axis, in one network. Subclasses are frozen dataclasses."""

    @abstractmethod
    def grid(self, grid: Grid, size: int) -> Grid:
        """Where the `size` pixels of the output stand, for the input's grid."""

    @abstractmethod
    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        """The ways to get from an input of `size` pixels to one of the `wanted` output sizes.

        `self` holds what is decided already (the pre-train kernel); `target` is what the options
        are compared with for their cost.
        """

    @property
    def keeps_size(self) -> bool:
        """Whether the output is the input on this axis, pixel for pixel."""
        return False

    @property
    def downsampling(self) -> float:
        """The factor by which the map becomes smaller; `choose_input` multiplies all of them."""
        return 1

    def divisor(self, size: int) -> int:
        """The number that the input, of `size` pixels in the target, must be a multiple of."""
        return 1

    def grid_over(self, whole: int, size: int) -> Grid | None:
        """The output's grid where the operator has no input map and `whole` is the image's size.

        None where the operator does not say where its pixels stand.
        """
        return None


@dataclass(frozen=True)
class KernelParameters(Parameters):
    """The parameters of convolutions, transposed convolutions and pooling on one axis."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def span(self) -> int:
        """Pixels from the first to the last tap: the effective size of a dilated kernel."""
        return (self.kernel - 1) * self.dilation + 1

    def smaller_kernel(self, table: KernelTable | None) -> int:
        """Taps in the pre-train network, by `table` and the paper's."""
        chosen = pretrain_size(self.kernel, table)
        if self.kernel <= self.stride:
            return self.kernel  # nothing overlaps: a smaller kernel would skip pixels
        return chosen

    def with_kernel(self, kernel: int, table: KernelTable | None) -> KernelParameters:
        """These parameters with another kernel; its dilation follows the effective size."""
        dilation = pretrain_dilation(self.kernel, self.dilation, kernel, table)
        return replace(self, kernel=kernel, dilation=dilation)


@dataclass(frozen=True, eq=False)
class SpatialMapping:
    """One axis of one operator between two spatial sizes.

    Attributes:
        node: The operator.
        dimension: Position in the shape of the node's output, and of its first input.
        source: Size of the first input; None where the output's is made from nothing that moves.
        result: Size of the output.
        target: The operator's parameters in the target network.
    """

    node: ir.Node
    dimension: int
    source: SpatialSize | None
    result: SpatialSize
    target: Parameters

    @property
    def axis(self) -> int:
        """The spatial axis."""
        return self.result.axis

    def options(self, parameters: Parameters, size: int, wanted: Iterable[int]) -> tuple:
        """Options from an input of `size` pixels to one of the `wanted` output sizes.

        `parameters` hold what is decided already of those in the pre-train network.
        """
        source = self.source.target if self.source else 1
        change = Change(self.target, source, self.result.target)
        return _options(parameters, change, size, frozenset(wanted))


@lru_cache(maxsize=1 << 14)
def _options(parameters: Parameters, *arguments) -> tuple[Option, ...]:
    """The options of equal mappings at equal sizes, which deep networks have many of."""
    return tuple(parameters.options(*arguments))
