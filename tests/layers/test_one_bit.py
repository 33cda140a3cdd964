"""1-bit quantisation against numpy's packbits, and its error feedback over many steps."""

import numpy as np
import pytest
import torch

from graphscale import GraphScaleError
from graphscale.layers import OneBitDequantize, OneBitQuantize
from graphscale.layers.one_bit import one_bit_dequantize, one_bit_quantize


def reference(v):
    """Words, scales and the dequantised matrix of v, by numpy."""
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


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_a_row_recovers_from_what_is_not_finite(bad):
    torch.manual_seed(0)
    layer, twin = OneBitQuantize(), OneBitQuantize()
    first, later = torch.randn(2, 3, 40)
    layer(first), twin(first)
    gradient = torch.randn(3, 40)
    gradient[1, :2] = bad
    residual = layer.residual.clone()
    _, scales = layer(gradient)
    assert not torch.isfinite(scales[1]).all()
    assert torch.isfinite(scales[[0, 2]]).all()
    assert torch.equal(layer.residual[1], residual[1])
    rest = [0, 2]
    twin(torch.where(torch.isfinite(gradient), gradient, 0.0))
    assert torch.equal(layer.residual[rest], twin.residual[rest])
    _, scales = layer(later)
    assert torch.isfinite(scales).all()
    assert torch.isfinite(layer.residual).all()


def test_infinite_sums_of_finite_halves_are_left_out():
    layer = OneBitQuantize()
    layer(torch.tensor([[60000.0, 0.0]], dtype=torch.float16))  # leaves 30000 and -30000
    layer(torch.tensor([[60000.0, 0.0]], dtype=torch.float16))
    assert torch.isfinite(layer.residual).all()


def test_no_history_of_autograd_is_kept():
    layer, weight = OneBitQuantize(), torch.randn(2, 40, requires_grad=True)
    for _ in range(3):
        _, scales = layer(weight * 2)
        assert not scales.requires_grad
        assert layer.residual.grad_fn is None
        assert not layer.residual.requires_grad


def test_resumes_from_a_checkpoint():
    layer, gradient = OneBitQuantize(), torch.randn(3, 40)
    untouched = layer.state_dict()
    layer(gradient)
    resumed = torch.nn.Sequential(OneBitQuantize())
    resumed.load_state_dict({f"0.{key}": value for key, value in layer.state_dict().items()})
    for one, other in zip(layer(gradient), resumed(gradient), strict=True):
        assert torch.equal(one, other)
    resumed[0].load_state_dict(untouched)  # of before the first call
    assert resumed[0].residual is None


@pytest.mark.parametrize("shape", [(), (7,), (4, 3, 2, 2), (2, 0, 3), (0,)])
def test_any_shape(shape):
    torch.manual_seed(0)
    gradient = torch.randn(shape, dtype=torch.float64)
    layer, inverse = OneBitQuantize(), OneBitDequantize(shape)
    words, scales = layer(gradient)
    rows = gradient.reshape(1, -1) if len(shape) < 2 else gradient.flatten(1)
    wanted_words, wanted_scales, meaning = reference(rows.numpy())
    np.testing.assert_array_equal(words.numpy(), wanted_words)
    np.testing.assert_allclose(scales.numpy(), wanted_scales, atol=1e-15)
    sent = inverse(words, scales)
    np.testing.assert_allclose(sent.numpy(), meaning.reshape(shape), atol=1e-15)
    assert layer.residual.shape == gradient.shape
    torch.testing.assert_close(sent + layer.residual, gradient)


def test_compiled_recovers_too():
    layer, gradient = OneBitQuantize(), torch.randn(2, 40)
    layer(gradient)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    gradient[0, 0] = torch.inf
    compiled(gradient)
    assert torch.isfinite(layer.residual).all()
