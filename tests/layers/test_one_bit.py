import numpy as np
import pytest
import torch

from graphscale import GraphScaleError
from graphscale.layers import OneBitDequantize, OneBitQuantize
from graphscale.layers.one_bit import one_bit_dequantize, one_bit_quantize


def reference(v):
    """Bits, scales and what they stand for, written out in numpy."""
    upper = v >= 0
    mean = [
        [row[bits].mean() if bits.any() else 0.0, row[~bits].mean() if (~bits).any() else 0.0]
        for row, bits in zip(v, upper)
    ]
    scales = np.array(mean).reshape(len(v), 2)
    columns = v.shape[1]
    padded = np.zeros((len(v), -(-columns // 32) * 32), np.uint8)
    padded[:, :columns] = upper
    words = np.packbits(padded, axis=1, bitorder="little").view(np.uint32)
    return words, scales, np.where(upper, scales[:, :1], scales[:, 1:])


@pytest.mark.parametrize("shape", [(3, 32), (5, 33), (1, 1), (4, 31), (2, 200), (0, 7)])
def test_quantize(shape):
    gradient = torch.randn(shape, dtype=torch.float64)
    residual = torch.randn(shape, dtype=torch.float64)
    words, scales, left = one_bit_quantize(gradient, residual)
    v = (gradient + residual).numpy()
    wanted_words, wanted_scales, meaning = reference(v)
    np.testing.assert_array_equal(words.numpy(), wanted_words)
    np.testing.assert_allclose(scales.numpy(), wanted_scales, atol=1e-15)
    np.testing.assert_allclose(left.numpy(), v - meaning, atol=1e-15)
    np.testing.assert_allclose(
        one_bit_dequantize(words, scales, shape[1]).numpy(), meaning, atol=1e-15
    )


def test_rows_of_one_sign():
    words, scales, left = one_bit_quantize(torch.full((1, 5), -2.0), torch.zeros(1, 5))
    assert words.tolist() == [[0]]
    assert scales.tolist() == [[0.0, -2.0]]
    assert torch.equal(left, torch.zeros(1, 5))


def test_error_feedback_loses_nothing():
    layer, total, sent = OneBitQuantize(), 0, 0
    for _ in range(50):
        gradient = torch.randn(6, 70)
        total = total + gradient
        sent = sent + OneBitDequantize(70)(*layer(gradient))
    torch.testing.assert_close(sent + layer.residual, total, rtol=1e-4, atol=1e-4)


def test_half_precision():
    gradient = torch.randn(4, 65, dtype=torch.float16)
    words, scales, left = one_bit_quantize(gradient, torch.zeros_like(gradient))
    wanted = reference(gradient.double().numpy())
    np.testing.assert_array_equal(words.numpy(), wanted[0])
    np.testing.assert_allclose(scales.double().numpy(), wanted[1], rtol=1e-3)
    assert left.dtype == torch.float16


def test_wrong_arguments():
    with pytest.raises(GraphScaleError, match="shapes of gradient and residual"):
        one_bit_quantize(torch.randn(2, 3), torch.randn(2, 4))
    words, scales, _ = one_bit_quantize(torch.randn(2, 40), torch.zeros(2, 40))
    with pytest.raises(GraphScaleError, match="words of a row"):
        one_bit_dequantize(words, scales, 65)
    with pytest.raises(GraphScaleError, match="'words' is int32"):
        one_bit_dequantize(words.view(torch.int32), scales, 40)
    layer = OneBitQuantize()
    layer(torch.randn(2, 3))
    with pytest.raises(GraphScaleError, match="one module per parameter"):
        layer(torch.randn(3, 3))


@pytest.mark.parametrize("columns", [1, 32, 45])
def test_operators_and_bodies(check_operator, columns):
    gradient, residual = torch.randn(3, columns), torch.randn(3, columns)
    words, scales, _ = one_bit_quantize(gradient, residual)
    check_operator("OneBitQuantize", gradient, residual)
    check_operator("OneBitDequantize", words, scales, columns=columns)
