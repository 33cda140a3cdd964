"""Translations of convolutions, transposed convolutions and matrix products.

torch pads both ends of an axis alike. Where ONNX's padding is unequal or negative, `padding.py`
splits it into a part that torch's function takes and a part that F.pad does before (Conv) or after
(ConvTranspose).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from graphscale.convert.operators.padding import pad_spatial, split_pads, window_pads
from graphscale.convert.operators.registry import translates

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@translates("Conv", weights=(1, 2))
def _conv(node, x, w, b=None):
    rank = w.ndim - 2
    strides = node.attribute("strides", [1] * rank)
    dilations = node.attribute("dilations", [1] * rank)
    begin, end = window_pads(node, x.shape[2:], w.shape[2:], strides, dilations)
    padding, begin, end = split_pads(begin, end)
    x = pad_spatial(x, begin, end)
    return _CONV[rank](x, w, b, strides, padding, dilations, node.attribute("group", 1))


@translates("ConvTranspose", weights=(1, 2))
def _conv_transpose(node, x, w, b=None):
    rank = w.ndim - 2
    strides = node.attribute("strides", [1] * rank)
    dilations = node.attribute("dilations", [1] * rank)
    extra = node.attribute("output_padding", [0] * rank)
    # The output's size without any padding; pads then cut it at both ends.
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, stride, k, dilation in zip(x.shape[2:], strides, w.shape[2:], dilations)
    ]
    begin, end, extra = _transposed_pads(node, x.shape[2:], strides, full, extra)
    # torch cuts both ends alike (own), and its output_padding (inside) adds less than a stride at
    # the far end. F.pad cuts or adds the rest (first, last).
    own = [max(min(b_, e), 0) for b_, e in zip(begin, end)]
    kept = [o - e + more for o, e, more in zip(own, end, extra)]
    limits = [max(stride, dilation) for stride, dilation in zip(strides, dilations)]
    inside = [k if 0 <= k < limit else 0 for k, limit in zip(kept, limits)]
    first = [o - b_ for o, b_ in zip(own, begin)]
    last = [k - i for k, i in zip(kept, inside)]
    # Pixels that F.pad adds need the bias too, so the bias is added after it.
    late = b is not None and max(*first, *last) > 0
    y = _CONV_TRANSPOSE[rank](
        x, w, None if late else b, strides, own, inside, node.attribute("group", 1), dilations
    )
    y = pad_spatial(y, first, last)
    return y + b.reshape(-1, *[1] * rank) if late else y


def _transposed_pads(node, sizes, strides, full, extra):
    """Padding at both ends and output_padding, from pads, output_shape or auto_pad."""
    rank = len(full)
    output_shape = node.attribute("output_shape")
    auto_pad = node.attribute("auto_pad", "NOTSET")
    if output_shape is None and auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        pads = node.attribute("pads", [0] * 2 * rank)
        return pads[:rank], pads[rank:], extra
    if output_shape is None:
        wanted = [size * stride for size, stride in zip(sizes, strides)]
        output_shape = [min(size, f + more) for size, f, more in zip(wanted, full, extra)]
    surplus = [f + more - size for f, more, size in zip(full, extra, output_shape[-rank:])]
    totals = [max(amount, 0) for amount in surplus]
    extra = [more + max(-amount, 0) for more, amount in zip(extra, surplus)]
    half, rest = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (half, rest, extra) if auto_pad == "SAME_UPPER" else (rest, half, extra)


@translates("Gemm", weights=(0, 1, 2))
def _gemm(node, a, b, c=None):
    a = a.t() if node.attribute("transA", 0) else a
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    c = c if beta else None
    bias = c if c is not None and c.ndim == 1 and c.shape[0] == _columns(node, b) else None
    if alpha == 1.0 and beta == 1.0 and (c is None or bias is not None):
        return F.linear(a, b if node.attribute("transB", 0) else b.t(), bias)
    product = a @ (b.t() if node.attribute("transB", 0) else b)
    product = product if alpha == 1.0 else product * alpha
    if c is None:
        return product
    return product + (c if beta == 1.0 else c * beta)


def _columns(node, b):
    return b.shape[0] if node.attribute("transB", 0) else b.shape[1]


@translates("MatMul", weights=(0, 1))
def _matmul(node, a, b):
    return torch.matmul(a, b)


@translates("Einsum", weights=range(8))
def _einsum(node, *operands):
    return torch.einsum(node.attribute("equation"), *operands)
