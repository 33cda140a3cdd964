"""CUDA kernels of the locally connected layer, emulated on the host, against float64 references."""

import pytest
import torch

from graphscale.layers.operator import OPERATORS
from tests.custom_ops.test_cuda_emulation import FLOATS, assert_close, gradient, random


def reference(x, weight, strides):
    """The layer as a sum over unfolded windows."""
    windows = x.unfold(2, weight.shape[4], strides[0]).unfold(3, weight.shape[5], strides[1])
    return torch.einsum("ncijkl,fijckl->nfij", windows, weight)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("x", "filters", "kernel", "strides"),
    [
        ((1, 1, 1, 1), 1, (1, 1), (1, 1)),
        ((2, 3, 7, 6), 4, (3, 2), (2, 1)),
        ((70, 2, 4, 5), 66, (2, 3), (1, 2)),
        ((3, 8, 5, 5), 5, (3, 3), (1, 1)),
        ((2, 2, 6, 6), 3, (2, 2), (3, 4)),
        ((0, 2, 4, 4), 3, (2, 2), (1, 1)),
    ],
)
def test_locally_connected(on_cuda, dtype, x, filters, kernel, strides):
    x = random(*x, dtype=dtype)
    out = [(size - span) // step + 1 for size, span, step in zip(x.shape[2:], kernel, strides)]
    weight = random(filters, *out, x.shape[1], *kernel, dtype=dtype, seed=1)
    attributes = {"strides": list(strides)}
    y = on_cuda(OPERATORS["LocallyConnected"], x, weight, **attributes)
    assert_close(y, reference(x.double(), weight.double(), strides))
    grad = random(*y.shape, dtype=dtype, seed=2)
    got = on_cuda(OPERATORS["LocallyConnectedGradInput"], grad, weight, x, **attributes)
    assert_close(got, gradient(lambda x: reference(x, weight.double(), strides), x, grad))
    got = on_cuda(OPERATORS["LocallyConnectedGradWeight"], grad, x, weight, **attributes)
    assert_close(got, gradient(lambda w: reference(x.double(), w, strides), weight, grad))


def test_strides_are_one_when_left_out(on_cuda):
    x, weight = random(2, 3, 5, 4), random(2, 4, 2, 3, 2, 3, seed=1)
    y = on_cuda(OPERATORS["LocallyConnected"], x, weight)
    assert_close(y, reference(x.double(), weight.double(), (1, 1)))


def test_tf32_is_less_accurate_and_only_on_request(on_cuda, monkeypatch):
    x, weight = random(3, 8, 5, 5), random(5, 3, 3, 8, 3, 3, seed=1)
    monkeypatch.setenv("GRAPHSCALE_TF32", "1")
    y = on_cuda(OPERATORS["LocallyConnected"], x, weight)
    wanted = reference(x.double(), weight.double(), (1, 1))
    assert 1e-5 < (y - wanted).norm() / wanted.norm() < 1e-3
