"""Choose the pre-train input size: the target's divided by the first convolution's ratio.

In go the analysis, the chosen kernels and one size of an input; out come its pre-train pixels.
"""

from __future__ import annotations

from math import gcd, lcm

from graphscale.passes.shrink.choose_kernels import ChosenKernels
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.dimensions import SpatialSize
from graphscale.passes.spatial.mapping import KernelParameters

_USUAL_RATIO = 1.5  # where no kernel is scaled; the ratios of the paper's kernels are near it
_TOLERANCE = 0.075  # how far a size that divides well may be from the ideal one


def choose_input(
    analysis: SpatialAnalysis, kernels: ChosenKernels, size: SpatialSize, divides: bool = False
) -> int:
    """Pre-train pixels of an input's size.

    The first scaled convolution's ratio decides (231·7/11 = 147, 224·5/7 = 160). Where the result
    is no whole number, a size is preferred that the network's strides divide without a remainder:
    the nearest multiple, within 7.5 %, of the greatest common divisor of the total stride and the
    target's size, or else of a half of it, and so on. 224 with 3×3 kernels becomes 160, which can
    be halved five times, rather than 149.

    Where the first convolution cuts the image into patches, these fill the pre-train image, too.

    With `divides`, the total stride divides the size without a remainder, however far that is from
    the ratio: 256 with five strides and blocks of two pixels behind them becomes 192, not 160.
    """
    patches = _patches(analysis, size)
    needed = lcm(analysis.divisor(size), patches)
    pixels = _choose(analysis, kernels, size)
    if divides:
        needed = lcm(needed, gcd(size.target, _total_stride(analysis, size.axis)))
    if divides or pixels % patches:
        target, pretrain = _first_kernel(analysis, kernels, size.axis)
        pixels = size.target * pretrain / target
    return max(1, round(pixels / needed)) * needed


def _patches(analysis: SpatialAnalysis, size: SpatialSize) -> int:
    """The number that a size must be a multiple of for readers that cut it into whole patches.

    A convolution whose kernel is its stride would leave the pixels of a last part of a patch out.
    """
    windows = [mapping.target for mapping in analysis.consumers.get(size, ())]
    strides = [
        each.stride
        for each in windows
        if isinstance(each, KernelParameters) and each.kernel == each.stride
    ]
    return lcm(*(stride for stride in strides if size.target % stride == 0))


def _choose(analysis: SpatialAnalysis, kernels: ChosenKernels, size: SpatialSize) -> int:
    target, pretrain = _first_kernel(analysis, kernels, size.axis)
    exact = size.target * pretrain
    if exact % target == 0:
        return max(1, exact // target)
    ideal = exact / target
    unit = gcd(size.target, _total_stride(analysis, size.axis))
    while unit > 1:
        pixels = max(1, round(ideal / unit)) * unit
        if abs(pixels - ideal) <= _TOLERANCE * ideal and pixels <= size.target:
            return pixels
        unit //= 2 if unit % 2 == 0 else unit
    return max(1, round(ideal))


def _first_kernel(analysis: SpatialAnalysis, kernels: ChosenKernels, axis: int) -> tuple[int, int]:
    """(target, pre-train) taps of the first convolution that is scaled along `axis`."""
    for node, target in kernels.target.items():
        for mapping in analysis.mappings.get(node, ()):
            at = mapping.dimension - 2
            before, after = target[at], kernels.pretrain[node][at]
            if mapping.axis == axis and after < before:
                return before, after
    return round(_USUAL_RATIO * 2), 2


def _total_stride(analysis: SpatialAnalysis, axis: int) -> int:
    """The largest product of strides on any path from the input."""
    reached: dict[SpatialSize, float] = {}
    for mappings in analysis.mappings.values():
        for mapping in mappings:
            if mapping.axis != axis or mapping.source is None:
                continue
            stride = reached.get(mapping.source, 1) * mapping.target.downsampling
            if mapping.result is not mapping.source:
                reached[mapping.result] = max(reached.get(mapping.result, 1), stride)
    return round(max(reached.values(), default=1))
