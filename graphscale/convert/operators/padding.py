"""Padding of convolution and pooling: from ONNX's attributes to what torch's functions take.

torch pads an axis by the same amount at both ends; ONNX allows unequal and negative padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.nn import functional as F

from graphscale.convert.node import NodeView


def window_pads(
    node: NodeView,
    sizes: Sequence[Any],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[list[Any], list[Any]]:
    """Padding before and after each spatial axis, from the node's `pads` or `auto_pad`.

    Args:
        node: A convolution or pooling node.
        sizes: Spatial sizes of its input.
        kernel, strides, dilations: Of its window, one number per axis.
    """
    auto_pad = node.attribute("auto_pad", "NOTSET")
    rank = len(kernel)
    if auto_pad == "VALID":
        return [0] * rank, [0] * rank
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            for size, k, stride, dilation in zip(sizes, kernel, strides, dilations)
        ]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    pads = node.attribute("pads", [0] * 2 * rank)
    return pads[:rank], pads[rank:]


def pad_spatial(x: Any, begin: Sequence[Any], end: Sequence[Any], value: float = 0.0) -> Any:
    """`x` (N, C, ...) with its spatial axes padded by `value`, or cropped by negative padding."""
    pairs = [amount for pair in zip(reversed(begin), reversed(end)) for amount in pair]
    return F.pad(x, pairs, value=value) if any(pairs) else x


def split_pads(begin: Sequence[int], end: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Split padding into (both ends, begin, end).

    The first part is equal at both ends, for torch's own functions; the other two are left for
    `pad_spatial`. Per axis either the first part or the others are zero.
    """
    equal = [b == e and b >= 0 for b, e in zip(begin, end)]
    own = [b if same else 0 for b, same in zip(begin, equal)]
    return (
        own,
        [0 if same else b for b, same in zip(begin, equal)],
        [0 if same else e for e, same in zip(end, equal)],
    )
