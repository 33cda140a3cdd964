"""Convolutions and matrix products."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .padding import pad_spatial, split_pads, window_pads
from .registry import operator

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("Conv", weights=(1, 2))
def _conv(node, x, w, b=None):
    rank = w.ndim - 2
    strides = node.attribute("strides", [1] * rank)
    dilations = node.attribute("dilations", [1] * rank)
    begin, end = window_pads(node, x.shape[2:], w.shape[2:], strides, dilations)
    padding, begin, end = split_pads(begin, end)
    x = pad_spatial(x, begin, end)
    return _CONV[rank](x, w, b, strides, padding, dilations, node.attribute("group", 1))


@operator("ConvTranspose", weights=(1, 2))
def _conv_transpose(node, x, w, b=None):
    rank = w.ndim - 2
    strides = node.attribute("strides", [1] * rank)
    dilations = node.attribute("dilations", [1] * rank)
    extra = node.attribute("output_padding", [0] * rank)
    # The extent without any padding; pads then cut it at both ends.
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, stride, k, dilation in zip(x.shape[2:], strides, w.shape[2:], dilations)
    ]
    begin, end = _transposed_pads(node, rank, full, extra, x.shape[2:], strides)
    # torch cuts both ends alike; what the far end keeps beyond that is its output_padding.
    own = [max(min(b, e), 0) for b, e in zip(begin, end)]
    grow = [max(o - e + extra_, 0) for o, e, extra_ in zip(own, end, extra)]
    limit = [max(s, d) for s, d in zip(strides, dilations)]
    inside = [g if g < most else 0 for g, most in zip(grow, limit)]
    y = _CONV_TRANSPOSE[rank](x, w, b, strides, own, inside, node.attribute("group", 1), dilations)
    wanted = [f + a - b_ - e for f, a, b_, e in zip(full, extra, begin, end)]
    made = [f - 2 * o + i for f, o, i in zip(full, own, inside)]
    first = [o - b_ for o, b_ in zip(own, begin)]
    last = [want - have - f for want, have, f in zip(wanted, made, first)]
    if b is not None and any(amount > 0 for amount in (*first, *last)):
        node.fail("its output is larger than what its kernel covers")
    return pad_spatial(y, first, last)


def _transposed_pads(node, rank, full, extra, sizes, strides):
    output_shape = node.attribute("output_shape")
    auto_pad = node.attribute("auto_pad", "NOTSET")
    if output_shape is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        output_shape = [size * stride for size, stride in zip(sizes, strides)]
    if output_shape is None:
        pads = node.attribute("pads", [0] * 2 * rank)
        return pads[:rank], pads[rank:]
    totals = [f + a - size for f, a, size in zip(full, extra, output_shape[-rank:])]
    half, rest = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (half, rest) if auto_pad == "SAME_UPPER" else (rest, half)


@operator("Gemm", weights=(0, 1, 2))
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


@operator("MatMul", weights=(0, 1))
def _matmul(node, a, b):
    return torch.matmul(a, b)


@operator("Einsum", weights=range(8))
def _einsum(node, *operands):
    return torch.einsum(node.attribute("equation"), *operands)
