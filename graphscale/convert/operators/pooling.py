"""Translations of pooling, with every stride, dilation, padding and ceil_mode.

torch's own function is used where it takes the padding. Elsewhere the input is padded first, and
averages are sums over each window divided by the number of elements that count.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from graphscale.convert.operators.padding import pad_spatial, window_pads
from graphscale.convert.operators.registry import translates

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class _Pooling:
    """The windows of a pooling node over x (N, C, ...): sizes, places, number along each axis."""

    def __init__(self, node, x) -> None:
        self.sizes = x.shape[2:]
        self.kernel = node.attribute("kernel_shape")
        rank = len(self.kernel)
        self.strides = node.attribute("strides", [1] * rank)
        self.dilations = node.attribute("dilations", [1] * rank)
        self.begin, self.end = window_pads(
            node, self.sizes, self.kernel, self.strides, self.dilations
        )
        self.ceil = bool(node.attribute("ceil_mode", 0))
        self.spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations)]

    @property
    def torch_can(self) -> bool:
        """Whether torch's own pooling takes this padding: equal, and at most half the kernel."""
        return self.begin == self.end and all(
            0 <= b <= k // 2 for b, k in zip(self.begin, self.kernel)
        )

    @property
    def counts(self) -> list[int]:
        """Number of windows along each axis; no window begins in the padding behind the input."""
        result = []
        for n, b, e, span, stride in zip(
            self.sizes, self.begin, self.end, self.spans, self.strides
        ):
            room = n + b + e - span
            count = (-(-room // stride) if self.ceil else room // stride) + 1
            if self.ceil and (count - 1) * stride >= n + b:
                count -= 1
            result.append(count)
        return result

    def padded(self, x, value: float):
        """x padded, or cropped, to the length that `counts` windows cover."""
        end = [
            (count - 1) * stride + span - n - b
            for count, stride, span, n, b in zip(
                self.counts, self.strides, self.spans, self.sizes, self.begin
            )
        ]
        return pad_spatial(x, self.begin, end, value)

    def sums(self, x):
        """Sum over each window of `padded` x."""
        rank = len(self.kernel)
        if all(d == 1 for d in self.dilations):
            return _AVERAGE[rank](x, self.kernel, self.strides) * math.prod(self.kernel)
        for axis, (span, stride, dilation) in enumerate(
            zip(self.spans, self.strides, self.dilations), start=2
        ):
            x = x.unfold(axis, span, stride)[..., ::dilation].sum(-1)
        return x

    def elements(self, include_pads: bool) -> torch.Tensor:
        """Number of elements that count in each window; one axis per spatial axis.

        Windows are boxes, so the number is a product of the numbers along each axis.
        """
        result = torch.ones(())
        for n, b, e, k, stride, dilation, count in zip(
            self.sizes,
            self.begin,
            self.end,
            self.kernel,
            self.strides,
            self.dilations,
            self.counts,
        ):
            low, high = (-b, n + e) if include_pads else (0, n)
            places = torch.arange(count)[:, None] * stride - b + torch.arange(k) * dilation
            inside = ((places >= low) & (places < high)).sum(1)
            result = result[..., None] * inside
        return result


@translates("MaxPool")
def _max_pool(node, x):
    if node.uses_output(1):
        node.fail("the indices of MaxPool are not supported; remove MaxUnpool")
    windows = _Pooling(node, x)
    pool = _MAX[len(windows.kernel)]
    kernel, strides, dilations = windows.kernel, windows.strides, windows.dilations
    if windows.torch_can:
        return pool(x, kernel, strides, windows.begin, dilations, ceil_mode=windows.ceil)
    return pool(windows.padded(x, -math.inf), kernel, strides, 0, dilations)


@translates("AveragePool")
def _average_pool(node, x):
    windows = _Pooling(node, x)
    include = bool(node.attribute("count_include_pad", 0))
    if windows.torch_can and all(d == 1 for d in windows.dilations):
        pool = _AVERAGE[len(windows.kernel)]
        return pool(x, windows.kernel, windows.strides, windows.begin, windows.ceil, include)
    elements = windows.elements(include)
    sums = windows.sums(windows.padded(x, 0.0))
    if bool((elements == elements.max()).all()):
        return sums / float(elements.max())
    return sums * (1.0 / elements).to(x.dtype)


@translates("LpPool")
def _lp_pool(node, x):
    p = node.attribute("p", 2)
    windows = _Pooling(node, x)
    return windows.sums(windows.padded(x.abs() ** p, 0.0)) ** (1.0 / p)


def _spatial(x):
    return list(range(2, x.ndim))


translates("GlobalAveragePool")(lambda node, x: x.mean(_spatial(x), keepdim=True))
translates("GlobalMaxPool")(lambda node, x: x.amax(_spatial(x), keepdim=True))
translates("GlobalLpPool")(
    lambda node, x: torch.linalg.vector_norm(x, node.attribute("p", 2), _spatial(x), keepdim=True)
)
