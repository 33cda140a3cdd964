"""Cases of OneBitQuantize and OneBitDequantize, against numpy's packbits and torch's shifts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphscale.layers import OneBitDequantize
from graphscale.layers.one_bit import one_bit_quantize

from .case import Alternative, Function, make_case


def one_bit_numpy(gradient: Tensor, residual: Tensor):
    """Scales, words and the new residual, by numpy."""
    v = gradient.numpy() + residual.numpy()
    columns = v.shape[1]
    bits = v >= 0
    words = np.packbits(bits, axis=1, bitorder="little").view(np.uint32)
    positive = np.maximum(v, 0)
    count = np.count_nonzero(bits, axis=1)
    upper = positive.sum(1) / np.maximum(count, 1)
    lower = np.minimum(v, 0).sum(1) / np.maximum(columns - count, 1)
    scales = np.stack([upper, lower], 1)
    return scales, words, v - np.where(bits, scales[:, :1], scales[:, 1:])


def one_bit_torch(gradient: Tensor, residual: Tensor):
    """The same by torch's operators."""
    v = gradient + residual
    bits = v >= 0
    powers = torch.bitwise_left_shift(torch.tensor(1), torch.arange(32))
    words = (bits.reshape(len(v), -1, 32) * powers).sum(2)
    count = bits.sum(1)
    upper = v.clamp(min=0).sum(1) / count.clamp(min=1)
    lower = v.clamp(max=0).sum(1) / (v.shape[1] - count).clamp(min=1)
    scales = torch.stack([upper, lower], 1)
    return scales, words, v - torch.where(bits, scales[:, :1], scales[:, 1:])


def _ours_one_bit(gradient: Tensor, residual: Tensor):
    words, scales, left = one_bit_quantize(gradient, residual)
    return scales, words, left


def one_bit_quantization(rows, columns):
    return (
        Function(_ours_one_bit),
        (torch.randn(rows, columns), torch.randn(rows, columns)),
        {
            "numpy, packbits": Alternative(Function(one_bit_numpy)),
            "torch, shifted sums": Alternative(Function(one_bit_torch)),
        },
    )


def one_bit_dequantization(rows, columns):
    words, scales, _ = one_bit_quantize(torch.randn(rows, columns), torch.zeros(rows, columns))

    def by_numpy(words, scales):
        bits = np.unpackbits(words.numpy().view(np.uint8), axis=1, bitorder="little")
        pair = scales.numpy()
        return np.where(bits, pair[:, :1], pair[:, 1:])

    return (
        OneBitDequantize(columns),
        (words, scales),
        {"numpy, unpackbits": Alternative(Function(by_numpy))},
    )


CASES = [
    make_case("OneBitQuantize", one_bit_quantization, "1024 x 1024", 1024, 1024, gradient=False),
    make_case(
        "OneBitDequantize", one_bit_dequantization, "1024 x 1024", 1024, 1024, gradient=False
    ),
]
