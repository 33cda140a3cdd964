"""How one axis of one operator maps extents and sampling grids.

A link knows its operator's numbers in the target network (`target`) and finds those of the
pre-train network: `options` lists the ways to get from one extent to another, each with a cost,
`grid` moves a sampling grid through the operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil, floor, lcm

import onnx_ir as ir

from graphscale.passes.spatial.dimensions import Extent

ASYMMETRY_COST = 1.0  # unequal padding: torch and cuDNN need a separate Pad
_PADDING_COST = 0.3  # per pixel of padding away from the target's, scaled with the kernel
_CROP_COST = 50.0  # per pixel: negative padding needs a Pad before the operator
_RATIO_COST = 5.0  # a resize whose ratio changes: its map is off more and more towards the ends


@dataclass(frozen=True)
class Grid:
    """Where a tensor's pixels stand on one axis, in pixels of the network's input.

    Pixel i stands at origin + pitch · i; input pixel i stands at i.
    """

    origin: float
    pitch: float
    extent: int

    def centre(self, input_extent: int) -> float:
        """The middle of the grid relative to the middle of the input, as a part of the input."""
        middle = self.origin + self.pitch * (self.extent - 1) / 2
        return (middle - (input_extent - 1) / 2) / input_extent


@dataclass(frozen=True)
class Option:
    """One way to set an operator's numbers on one axis."""

    extent: int
    numbers: object
    cost: float


@dataclass(eq=False)
class Link:
    """One axis of one operator between two extents.

    Attributes:
        node: The operator.
        axis: The spatial axis.
        position: Which of the operator's spatial dimensions (index into pads, strides …).
        source: Extent of the input; None where the input's is fixed (one pixel).
        result: Extent of the output.
        target: The operator's numbers in the target network.
        pretrain: The numbers in the pre-train network, once solved.
    """

    node: ir.Node
    axis: int
    position: int
    source: Extent | None
    result: Extent
    target: Numbers
    goal: Numbers = field(init=False)
    pretrain: Numbers | None = None

    def __post_init__(self) -> None:
        self.goal = self.target  # choose_kernels replaces the kernel and dilation in it
        if self.source is not None:
            self.source.consumers.append(self)
        self.result.producers.append(self)

    def options(self, extent: int, wanted: Iterable[int]) -> tuple[Option, ...]:
        """Ways from input `extent` to one of the `wanted` output extents."""
        source = self.source.target if self.source else 1
        return _options(
            self.goal, self.target, source, self.result.target, extent, tuple(sorted(wanted))
        )


def divisor(extent: Extent) -> int:
    """What an extent must be a multiple of: its readers cut it into blocks or strided slices."""
    needed = 1
    for link in extent.root.consumers:
        if isinstance(link.target, Blocks):
            needed = lcm(needed, link.target.down)
        elif isinstance(link.target, Crop) and extent.target % link.target.step == 0:
            needed = lcm(needed, link.target.step)
    return needed


@dataclass(frozen=True)
class Window:
    """Convolution and pooling."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    ceil_mode: bool = False

    @property
    def span(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    def output(self, extent: int) -> int:
        steps = (extent + self.begin + self.end - self.span) / self.stride
        if not self.ceil_mode:
            return floor(steps) + 1
        return ceil(steps) + 1 - self.last_starts_in_padding(extent)

    def last_starts_in_padding(self, extent: int) -> bool:
        """Whether ceil_mode would add a window that sees nothing: it is left out.

        Not by ONNX's own shape inference, however, before opset 22: better avoided.
        """
        last = ceil((extent + self.begin + self.end - self.span) / self.stride) * self.stride
        return self.ceil_mode and last >= extent + self.begin

    def grid(self, grid: Grid, extent: int) -> Grid:
        shift = (self.span - 1) / 2 - self.begin
        return Grid(grid.origin + grid.pitch * shift, grid.pitch * self.stride, extent)

    def options(self, target: Window, source: int, result: int, extent: int, wanted) -> Iterator:
        wanted = set(wanted)
        scale = (self.span - 1) / (target.span - 1) if target.span > 1 else 1.0
        seen = set()
        for out in wanted:
            least = (out - 1) * self.stride + self.span - extent
            for total in range(least - self.stride + 1, least + self.stride):
                half = total // 2
                natural = (target.begin - target.end) // 2
                for begin in {half, total - half, half + natural, half - 1, half + 1}:
                    numbers = replace(self, begin=begin, end=total - begin)
                    if numbers in seen:
                        continue
                    seen.add(numbers)
                    if max(begin, total - begin) >= max(
                        self.span, target.begin + 1, target.end + 1
                    ):
                        continue
                    if numbers.last_starts_in_padding(extent):
                        continue
                    if numbers.output(extent) in wanted:
                        cost = self._cost(numbers, target, scale)
                        yield Option(numbers.output(extent), numbers, cost)

    @staticmethod
    def _cost(numbers: Window, target: Window, scale: float) -> float:
        sides = ((numbers.begin, target.begin), (numbers.end, target.end))
        cost = sum(_PADDING_COST * abs(pad - wanted * scale) for pad, wanted in sides)
        cost += sum(_CROP_COST * -pad for pad, _ in sides if pad < 0)
        if numbers.begin != numbers.end and numbers != target:
            cost += ASYMMETRY_COST
        return cost


@dataclass(frozen=True)
class Transposed:
    """Transposed convolution."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    output_padding: int = 0

    @property
    def span(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    def output(self, extent: int) -> int:
        full = self.stride * (extent - 1) + self.output_padding + self.span
        return full - self.begin - self.end

    def grid(self, grid: Grid, extent: int) -> Grid:
        pitch = grid.pitch / self.stride
        return Grid(grid.origin - pitch * ((self.span - 1) / 2 - self.begin), pitch, extent)

    def options(self, target, source: int, result: int, extent: int, wanted) -> Iterator[Option]:
        scale = (self.span - 1) / (target.span - 1) if target.span > 1 else 1.0
        for out in set(wanted):
            for extra in range(max(self.stride, 1)):
                total = self.stride * (extent - 1) + extra + self.span - out
                for begin in {total // 2, total - total // 2, total // 2 - 1, total // 2 + 1}:
                    end = total - begin
                    if min(begin, end) < 0 or max(begin, end) > self.span:
                        continue
                    cost = _PADDING_COST * (
                        abs(begin - target.begin * scale) + abs(end - target.end * scale)
                    )
                    cost += ASYMMETRY_COST * (begin != end)
                    cost += 0.2 * abs(extra - target.output_padding)
                    numbers = replace(self, begin=begin, end=end, output_padding=extra)
                    yield Option(out, numbers, cost)


@dataclass(frozen=True)
class Resampled:
    """Resize and Upsample: any extent is reached exactly.

    Attributes:
        size: Output extent.
        before: Input extent.
        mode: ONNX's coordinate_transformation_mode.
    """

    size: int
    before: int
    mode: str

    def output(self, extent: int) -> int:
        return self.size

    def grid(self, grid: Grid, extent: int) -> Grid:
        if self.before == 1:
            # One pixel spread over the map, whatever the mode: its parts stand around its middle.
            shift = (1 / self.size - 1) / 2
            return Grid(grid.origin + grid.pitch * shift, grid.pitch / self.size, extent)
        ratio = self.before / self.size
        if self.mode == "align_corners":
            ratio = (self.before - 1) / max(self.size - 1, 1)
        shift = ratio / 2 - 0.5 if self.mode.endswith("half_pixel") else 0.0
        if self.mode == "half_pixel_symmetric":
            shift = ratio / 2 - 0.5
        return Grid(grid.origin + grid.pitch * shift, grid.pitch * ratio, extent)

    def options(self, target, source: int, result: int, extent: int, wanted) -> Iterator[Option]:
        for out in set(wanted):
            same = out * source == extent * result
            yield Option(out, Resampled(out, extent, self.mode), 0.0 if same else _RATIO_COST)


@dataclass(frozen=True)
class Crop:
    """Slice along a spatial axis."""

    start: int
    stop: int
    step: int

    def output(self, extent: int) -> int:
        return max(0, -(-(min(self.stop, extent) - self.start) // self.step))

    def grid(self, grid: Grid, extent: int) -> Grid:
        return Grid(grid.origin + grid.pitch * self.start, grid.pitch * self.step, extent)

    def options(self, target, source: int, result: int, extent: int, wanted) -> Iterator[Option]:
        cut_begin, cut_end = self.start, source - self.stop
        for out in set(wanted):
            span = (out - 1) * self.step + 1
            for start in range(max(0, extent - span + 1)):
                end = extent - start - span
                cost = 0.05 * (abs(start - cut_begin) + abs(end - cut_end))
                # A stride-only slice (x[::2]) keeps its phase.
                if self.step > 1 and start != cut_begin:
                    continue
                stop = extent - cut_end if self.step > 1 else start + span
                numbers = Crop(start, stop, self.step)
                if numbers.output(extent) == out:
                    yield Option(out, numbers, cost)


@dataclass(frozen=True)
class Border:
    """Pad along a spatial axis; negative numbers crop. Reflections must end inside the map."""

    begin: int
    end: int
    reflects: bool = False

    def output(self, extent: int) -> int:
        return extent + self.begin + self.end

    def grid(self, grid: Grid, extent: int) -> Grid:
        return Grid(grid.origin - grid.pitch * self.begin, grid.pitch, extent)

    def options(self, target, source: int, result: int, extent: int, wanted) -> Iterator[Option]:
        for out in set(wanted):
            total = out - extent
            for begin in {total // 2, total - total // 2, self.begin, total - self.end}:
                end = total - begin
                if self.reflects and max(begin, end) >= extent:
                    continue
                cost = _PADDING_COST * (abs(begin - self.begin) + abs(end - self.end))
                yield Option(out, replace(self, begin=begin, end=end), cost)


@dataclass(frozen=True)
class Blocks:
    """SpaceToDepth (factor above one) and DepthToSpace (below one)."""

    down: int = 1
    up: int = 1

    def output(self, extent: int) -> int:
        return extent // self.down * self.up

    def grid(self, grid: Grid, extent: int) -> Grid:
        ratio = self.down / self.up
        return Grid(grid.origin + grid.pitch * (ratio - 1) / 2, grid.pitch * ratio, extent)

    def options(self, target, source: int, result: int, extent: int, wanted) -> Iterator[Option]:
        if extent % self.down == 0 and self.output(extent) in set(wanted):
            yield Option(self.output(extent), self, 0.0)


Numbers = Window | Transposed | Resampled | Crop | Border | Blocks


@lru_cache(maxsize=1 << 14)
def _options(goal: Numbers, *arguments) -> tuple[Option, ...]:
    """The options of equal links at equal extents, which deep networks have many of."""
    return tuple(goal.options(*arguments))
