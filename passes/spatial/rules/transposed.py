"""Transposed convolution: each pixel is spread by a kernel over a larger map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from graphscale.core.kernel_sizes import KernelTable
from graphscale.core.plan import Grid
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.analyzer import Analyzer
from graphscale.passes.spatial.dimensions import Dims, fixed, target_size
from graphscale.passes.spatial.mapping import (
    ASYMMETRY_COST,
    PADDING_COST,
    Change,
    KernelParameters,
    Option,
)
from graphscale.passes.spatial.registry import ConvolutionRule, register
from graphscale.passes.spatial.rewriter import Rewriter

_OUTPUT_PADDING_COST = 0.2  # per pixel away from the target's


@dataclass(frozen=True)
class TransposedWindow(KernelParameters):
    """`begin` and `end` are cut from the output, `output_padding` is added at its end."""

    output_padding: int = 0

    def grid(self, grid: Grid, size: int) -> Grid:
        pitch = grid.pitch / self.stride
        return Grid(grid.origin - pitch * ((self.span - 1) / 2 - self.begin), pitch, size)

    def smaller_kernel(self, table: KernelTable | None) -> int:
        chosen = super().smaller_kernel(table)
        # With a kernel smaller than the stride some output pixels would get nothing.
        return self.kernel if chosen < self.stride else chosen

    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        """Every output_padding below the stride, with the rest of the size cut evenly or nearly."""
        given = target.parameters
        # A kernel that spans less needs less to be cut: the target's cut times `scale` is ideal.
        scale = (self.span - 1) / (given.span - 1) if given.span > 1 else 1.0
        for out in wanted:
            uncut = self.stride * (size - 1) + self.span
            # Of every output_padding those by which neither side is cut by more than the span.
            first, last = max(0, out - uncut), min(self.stride - 1, out - uncut + 2 * self.span)
            for extra in range(first, max(first, last) + 1):
                total = uncut + extra - out
                for begin in {total // 2, total - total // 2, total // 2 - 1, total // 2 + 1}:
                    end = total - begin
                    if min(begin, end) < 0 or max(begin, end) > self.span:
                        continue
                    cost = PADDING_COST * (
                        abs(begin - given.begin * scale) + abs(end - given.end * scale)
                    )
                    cost += ASYMMETRY_COST * (begin != end)
                    cost += _OUTPUT_PADDING_COST * abs(extra - given.output_padding)
                    yield Option(
                        out, replace(self, begin=begin, end=end, output_padding=extra), cost
                    )


@register("ConvTranspose")
class _TransposedConvolution(ConvolutionRule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        analyzer.read_map(dims)
        analyzer.read_channels(node, dims[1])
        shape = analyzer.shape(node.outputs[0])
        kernel = analyzer.shape(node.inputs[1])[2:]
        result = [dims[0], fixed(shape[1])]
        for dimension in range(2, len(dims)):
            dim, size = dims[dimension], shape[dimension]
            window = _window(node, kernel, dimension - 2, target_size(dim), size)
            result.append(analyzer.resize(node, dimension, dim, size, window))
        analyzer.dims[node.outputs[0]] = tuple(result)

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        windows = rewriter.parameters(node)
        if not windows:
            return
        kernel = list(rewriter.analysis.shape(node.inputs[1])[2:])
        rank = len(kernel)
        pads = list(node.attributes.get_ints("pads", [0] * 2 * rank))
        dilations = list(node.attributes.get_ints("dilations", [1] * rank))
        extra = list(node.attributes.get_ints("output_padding", [0] * rank))
        # Numbers replace auto_pad and output_shape, also on dimensions that keep their size.
        for dimension, window in (rewriter.analysis.unmoved.get(node, {}) | windows).items():
            at = dimension - 2
            kernel[at], dilations[at] = window.kernel, window.dilation
            pads[at], pads[at + rank] = window.begin, window.end
            extra[at] = window.output_padding
        if "kernel_shape" in node.attributes:
            node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel)
        if "auto_pad" in node.attributes:
            node.attributes["auto_pad"] = ir.AttrString("auto_pad", "NOTSET")
        node.attributes.pop("output_shape", None)
        rewriter.set_ints(node, "pads", pads, [0] * 2 * rank)
        rewriter.set_ints(node, "dilations", dilations, [1] * rank)
        rewriter.set_ints(node, "output_padding", extra, [0] * rank)

    def visited(self, node: ir.Node, analysis: SpatialAnalysis) -> Dims:
        return analysis.of(node.inputs[0])

    def fan_in(self, node: ir.Node, index: int, shape: list[int]) -> int:
        return max(1, shape[0] * prod(shape[2:]) // node.attributes.get_int("group", 1))


def _window(
    node: ir.Node, kernel: tuple[int, ...], index: int, before: int, size: int
) -> TransposedWindow:
    """The window on one spatial dimension, from `before` to `size` pixels."""
    rank = len(kernel)
    stride = node.attributes.get_ints("strides", [1] * rank)[index]
    dilation = node.attributes.get_ints("dilations", [1] * rank)[index]
    pads = node.attributes.get_ints("pads", [0] * 2 * rank)
    extra = node.attributes.get_ints("output_padding", [0] * rank)[index]
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    begin, end = pads[index], pads[index + rank]
    if auto.startswith("SAME") or "output_shape" in node.attributes:
        span = (kernel[index] - 1) * dilation + 1
        total = stride * (before - 1) + extra + span - size
        begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
        end = total - begin
    return TransposedWindow(kernel[index], stride, dilation, begin, end, extra)
