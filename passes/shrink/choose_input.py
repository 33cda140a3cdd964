"""Choose the pre-train input size: the target's divided by the first convolution's ratio."""

from __future__ import annotations

from math import gcd

from graphscale.passes.shrink.choose_kernels import Kernels
from graphscale.passes.spatial.dimensions import Extent
from graphscale.passes.spatial.links import Blocks, Crop, Window, divisor
from graphscale.passes.spatial.traced import Traced

_USUAL_RATIO = 1.5  # where no kernel says another
_TOLERANCE = 0.075  # how far a size that divides well may be from the ideal one


def choose_input(traced: Traced, kernels: Kernels, extent: Extent) -> int:
    """Pre-train pixels of an input extent.

    The first scaled convolution's ratio decides (231·7/11 = 147, 224·5/7 = 160). Where that is no
    whole number, the nearest multiple of as much of the network's total stride as divides the
    target's size, if one lies within 7.5 %: 224 with 3×3 kernels becomes 160, which halves five
    times without a remainder, rather than 149.
    """
    needed = divisor(extent)
    size = _choose(traced, kernels, extent)
    return max(1, round(size / needed)) * needed


def _choose(traced: Traced, kernels: Kernels, extent: Extent) -> int:
    target, pretrain = _first_kernel(traced, kernels, extent.axis)
    exact = extent.target * pretrain
    if exact % target == 0:
        return max(1, exact // target)
    ideal = exact / target
    unit = gcd(extent.target, _total_stride(traced, extent.axis))
    while unit > 1:
        size = max(1, round(ideal / unit)) * unit
        if abs(size - ideal) <= _TOLERANCE * ideal and size <= extent.target:
            return size
        unit //= 2 if unit % 2 == 0 else unit
    return max(1, round(ideal))


def _first_kernel(traced: Traced, kernels: Kernels, axis: int) -> tuple[int, int]:
    """(target, pre-train) taps of the first convolution that is scaled along `axis`."""
    for node in kernels.target:
        for link in traced.links.get(node, []):
            before, after = link.target.kernel, link.goal.kernel
            if link.axis == axis and after < before:
                return before, after
    return round(_USUAL_RATIO * 2), 2


def _total_stride(traced: Traced, axis: int) -> int:
    """The largest product of strides on a way from the input."""
    reached: dict[Extent, int] = {}
    for links in traced.links.values():
        for link in links:
            if link.axis != axis or link.source is None:
                continue
            stride = reached.get(link.source.root, 1)
            if isinstance(link.target, Window):
                stride *= link.target.stride
            elif isinstance(link.target, Blocks):
                stride *= link.target.down
            elif isinstance(link.target, Crop):
                stride *= link.target.step
            result = link.result.root
            if result is not link.source.root:
                reached[result] = max(reached.get(result, 1), stride)
    return max(reached.values(), default=1)
