"""Convolution and pooling: windows that slide over a map.

`Window` holds the parameters on one axis and lists the paddings that lead to a wanted size; the
rules read it from a node's attributes and write the pre-train network's back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, floor, prod

import onnx_ir as ir

from graphscale.core.plan import Grid
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import (
    Dim,
    DimensionFactor,
    Dims,
    fixed,
    moves,
    single_size,
    target_size,
    tie_dims,
)
from graphscale.passes.spatial.mapping import (
    ASYMMETRY_COST,
    PADDING_COST,
    Change,
    KernelParameters,
    Option,
)
from graphscale.passes.spatial.registry import ConvolutionRule, Rule, register
from graphscale.passes.spatial.rewriter import Rewriter

# A window that covers the whole map leaves one pixel, in which all positions are mixed. Where the
# target has several pixels, that costs more than a size of a pixel more than is due.
_COVER_COST = 0.5
_CROP_COST = 50.0  # per pixel: negative padding needs a Pad before the operator
_MAX_REACH = 1024  # totals of padding that are tried on each side of the exact one


@dataclass(frozen=True)
class Window(KernelParameters):
    """A sliding window; with `ceil_mode` a last window that is not full counts, too."""

    ceil_mode: bool = False

    @property
    def keeps_size(self) -> bool:
        return self == Window(1, 1, 1, 0, 0, self.ceil_mode)

    @property
    def downsampling(self) -> int:
        return self.stride

    def output(self, size: int) -> int:
        """How many windows fit into `size` pixels."""
        steps = (size + self.begin + self.end - self.span) / self.stride
        if not self.ceil_mode:
            return floor(steps) + 1
        return ceil(steps) + 1 - self.last_starts_in_padding(size)

    def last_starts_in_padding(self, size: int) -> bool:
        """Whether ceil_mode would add a window that starts in the end padding.

        Runtimes leave such a window out, but ONNX's shape inference counts it before opset 22.
        `options` therefore avoids these cases.
        """
        last = ceil((size + self.begin + self.end - self.span) / self.stride) * self.stride
        return self.ceil_mode and last >= size + self.begin

    def grid(self, grid: Grid, size: int) -> Grid:
        shift = (self.span - 1) / 2 - self.begin
        return Grid(grid.origin + grid.pitch * shift, grid.pitch * self.stride, size)

    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        """Every total of padding that gives a wanted size, split evenly or nearly so."""
        given = target.parameters
        # A kernel that spans less needs less padding: the target's padding times `scale` is ideal.
        scale = (self.span - 1) / (given.span - 1) if given.span > 1 else 1.0
        natural = (given.begin - given.end) // 2  # the target's own inequality
        # A window must not lie in the padding alone, unless it does in the target.
        most = max(self.span, given.begin + 1, given.end + 1) - 1
        # Strides larger than a padded map are all alike.
        reach = min(self.stride, size + 2 * most, _MAX_REACH)
        seen = set()
        for out in wanted:
            # With `exact` padding the last window ends at the last pixel. With a stride, up to
            # stride - 1 pixels more, or with ceil_mode less, give the same size.
            exact = (out - 1) * self.stride + self.span - size
            for total in range(exact - reach + 1, exact + reach):
                half = total // 2
                for begin in {half, total - half, half + natural, half - 1, half + 1}:
                    window = replace(self, begin=begin, end=total - begin)
                    if window in seen:
                        continue
                    seen.add(window)
                    if max(begin, total - begin) > most:
                        continue
                    if window.last_starts_in_padding(size):
                        continue
                    found = window.output(size)
                    if found in wanted:
                        covers = found == 1 < target.result and window.span == size
                        cost = window._cost(given, scale) + _COVER_COST * covers
                        yield Option(found, window, cost)

    def _cost(self, target: Window, scale: float) -> float:
        """What this padding costs, compared with the target's."""
        sides = ((self.begin, target.begin), (self.end, target.end))
        cost = sum(PADDING_COST * abs(pad - wanted * scale) for pad, wanted in sides)
        cost += sum(_CROP_COST * -pad for pad, _ in sides if pad < 0)
        if self.begin != self.end and self != target:
            cost += ASYMMETRY_COST
        return cost


class _Windows(Rule):
    """The rule of sliding windows.

    Attributes hold a number for each spatial dimension; that of dimension d has the index d - 2.
    """

    summed = False  # whether a weight sums over the window

    def kernel(self, node: ir.Node, analysis: Analyzer | SpatialAnalysis) -> list[int]:
        """Taps per spatial dimension in the target."""
        return list(node.attributes.get_ints("kernel_shape", []))

    def channels(self, node: ir.Node, analyzer: Analyzer) -> Dim:
        """The output's channels."""
        return analyzer.of(node.inputs[0])[1]

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        analyzer.read_map(dims)
        shape = analyzer.shape(node.outputs[0])
        kernel = self.kernel(node, analyzer)
        result: list[Dim] = [dims[0], self.channels(node, analyzer)]
        for dimension in range(2, len(dims)):
            dim, size = dims[dimension], shape[dimension]
            before = target_size(dim)
            window = _window(node, kernel, dimension - 2, before, size)
            source = single_size(dim)
            if source is not None and size == 1 and self._covers(window, before):
                analyzer.cover(node, dimension, source, window, self.summed)
                result.append(())
            elif moves(dim) and self._pools_pixels(dim, window):
                result.append((DimensionFactor(size, parts=(dim,), pooled=window.stride),))
            else:
                result.append(analyzer.resize(node, dimension, dim, size, window))
        for output in node.outputs:
            analyzer.dims[output] = tuple(result)

    def _pools_pixels(self, dim: Dim, window: Window) -> bool:
        """Whether flattened maps are pooled by as many pixels in both networks, as in Next-ViT."""
        apart = Window(window.stride, window.stride, 1, 0, 0)
        return single_size(dim) is None and not self.summed and window == apart

    def _covers(self, window: Window, size: int) -> bool:
        """Whether one window takes in the whole map: a classifier, or an average over all."""
        if window.dilation > 1 or window.span < size:
            return False
        exact = window.span == size and window.begin == window.end == 0
        return exact or not self.summed

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        if not rewriter.resizes(node):
            return
        windows = rewriter.parameters(node)
        covered = rewriter.analysis.covering.get(node, {})
        kernel = self.kernel(node, rewriter.analysis)
        rank = len(kernel)
        pads = list(node.attributes.get_ints("pads", [0] * 2 * rank))
        dilations = list(node.attributes.get_ints("dilations", [1] * rank))
        crop = [0] * 2 * rank
        # auto_pad is replaced by numbers, also on dimensions that keep their size.
        for dimension, window in rewriter.analysis.unmoved.get(node, {}).items():
            pads[dimension - 2], pads[dimension - 2 + rank] = window.begin, window.end
        for dimension, size in covered.items():
            kernel[dimension - 2] += rewriter.geometry.sizes[size] - size.target
        for dimension, window in windows.items():
            at = dimension - 2
            kernel[at], dilations[at] = window.kernel, window.dilation
            pads[at], pads[at + rank] = max(window.begin, 0), max(window.end, 0)
            crop[at], crop[at + rank] = min(window.begin, 0), min(window.end, 0)
        if "kernel_shape" in node.attributes:
            node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel)
        if "auto_pad" in node.attributes:
            node.attributes["auto_pad"] = ir.AttrString("auto_pad", "NOTSET")
        rewriter.set_ints(node, "pads", pads, [0] * 2 * rank)
        rewriter.set_ints(node, "dilations", dilations, [1] * rank)
        if any(crop):
            # Operators with windows do not take negative padding.
            rewriter.insert_pad(node, [0, 0, *crop[:rank], 0, 0, *crop[rank:]])


@register("AveragePool", "LpPool", "MaxPool")
class _Pooling(_Windows):
    pass


@register("Conv")
@register("FusedConv", domain="com.microsoft")
class _Convolution(_Windows, ConvolutionRule):
    summed = True

    def kernel(self, node: ir.Node, analysis: Analyzer | SpatialAnalysis) -> list[int]:
        return list(analysis.shape(node.inputs[1])[2:])

    def channels(self, node: ir.Node, analyzer: Analyzer) -> Dim:
        return fixed(analyzer.shape(node.inputs[1])[0])

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        analyzer.read_map(dims)
        analyzer.read_channels(node, dims[1])
        if any(map(moves, analyzer.of(node.inputs[1]))):
            raise unfollowed(node, "takes its kernel from a map whose size follows the input")
        super().analyze(node, analyzer)

    def visited(self, node: ir.Node, analysis: SpatialAnalysis) -> Dims:
        return analysis.of(node.outputs[0])

    def fan_in(self, node: ir.Node, index: int, shape: list[int]) -> int:
        return prod(shape[1:])


@register("DeformConv")
class _DeformableConvolution(_Convolution):
    """Each tap of the kernel reads the map at a place that a third input shifts.

    The shifts have channels for each tap, so that the kernel stays. They, and the factors of the
    taps (input 4), have the output's height and width.
    """

    why_kept = "each of its taps has channels of the offsets"
    bias_input = 3

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        super().analyze(node, analyzer)
        result = analyzer.dims[node.outputs[0]]
        for value in (*node.inputs[2:3], *node.inputs[4:5]):
            if value is None:
                continue
            sizes = zip(result[2:], analyzer.of(value)[2:], strict=True)
            if not all(tie_dims(mine, theirs) for mine, theirs in sizes):
                raise unfollowed(node, "reads offsets from a map whose sizes have another origin")

    def _covers(self, window: Window, size: int) -> bool:
        return False


@register("FFTConv", domain="graphscale")
class _FFTConvolution(_Convolution):
    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        if rewriter.resizes(node):
            node.attributes.pop("algorithm", None)  # it was measured at the target's sizes
        super().write(node, rewriter)


def _window(node: ir.Node, kernel: list[int], index: int, before: int, size: int) -> Window:
    """The window on one spatial dimension, from `before` to `size` pixels."""
    rank = len(kernel)
    stride = node.attributes.get_ints("strides", [1] * rank)[index]
    dilation = node.attributes.get_ints("dilations", [1] * rank)[index]
    pads = node.attributes.get_ints("pads", [0] * 2 * rank)
    begin, end = pads[index], pads[index + rank]
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        span = (kernel[index] - 1) * dilation + 1
        total = max(0, (size - 1) * stride + span - before)
        begin = (total + (auto == "SAME_LOWER")) // 2
        end = total - begin
    elif auto == "VALID":
        begin = end = 0
    ceil_mode = bool(node.attributes.get_int("ceil_mode", 0))
    return Window(kernel[index], stride, dilation, begin, end, ceil_mode)
