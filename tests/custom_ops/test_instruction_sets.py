"""Kernels compiled per instruction set, run with each that this machine has, against float64."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from graphscale.layers.cross_map_normalization import cross_map_normalization
from graphscale.layers.feature_pooling import feature_lp_pooling, maxout
from graphscale.layers.hierarchical_softmax import HierarchicalSoftmax
from graphscale.layers.k_max_pool import temporal_k_max_pool
from graphscale.layers.temporal_conv import temporal_conv


def assert_same(got, wanted, dtype):
    tolerance = 2e-6 if dtype == torch.float32 else 1e-14
    assert (got.double() - wanted).norm() <= tolerance * wanted.norm()


def check_products(dtype):
    # Sizes just below and above those of the register tiles and of the packed panels.
    for frames, inner, outer, kernel, stride in [
        (40, 3, 5, 4, 1), (31, 16, 16, 1, 1), (64, 33, 31, 2, 3), (300, 130, 47, 3, 2),
        (9, 700, 1100, 4, 1), (3, 5, 70, 2, 1), (7, 1, 9, 1, 1), (200, 33, 20, 5, 1),
    ]:  # fmt: skip
        x = torch.randn(3, frames, inner, dtype=dtype, requires_grad=True)
        weight = torch.randn(outer, kernel, inner, dtype=dtype, requires_grad=True)
        bias = torch.randn(outer, dtype=dtype, requires_grad=True)
        wide = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
        wanted = functional.conv1d(wide[0].mT, wide[1].mT, wide[2], stride).mT
        got = temporal_conv(x, weight, bias, stride)
        assert_same(got, wanted, dtype)
        grad = torch.randn_like(wanted)
        for one, other in zip(
            torch.autograd.grad(got, [x, weight, bias], grad.to(dtype)),
            torch.autograd.grad(wanted, wide, grad.to(dtype).double()),
        ):
            assert_same(one, other, dtype)


def check_pooling(dtype):
    for shape in [(2, 13), (2, 150), (3, 9, 5), (2, 7, 70), (1, 5, 3, 1500)]:
        x = torch.randn(shape, dtype=dtype, requires_grad=True)
        wide = x.detach().double().requires_grad_()
        for power in (0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 9.5):
            for width, stride in [(4, 2), (2, 2), (4, 4)]:
                wanted = torch.linalg.vector_norm(wide.unfold(1, width, stride), power, dim=-1)
                got = feature_lp_pooling(x, width, stride, power)
                assert_same(got, wanted, dtype)
                grad = torch.rand_like(wanted)
                assert_same(
                    torch.autograd.grad(got, x, grad.to(dtype))[0],
                    torch.autograd.grad(wanted, wide, grad.to(dtype).double())[0],
                    dtype,
                )
        for width, stride in [(3, 1), (2, 2), (4, 4)]:
            wanted = wide.unfold(1, width, stride).amax(-1)
            got = maxout(x, width, stride)
            assert torch.equal(got.double(), wanted)
            grad = torch.rand_like(wanted)
            assert_same(
                torch.autograd.grad(got, x, grad.to(dtype))[0],
                torch.autograd.grad(wanted, wide, grad.to(dtype).double())[0],
                dtype,
            )
        flat = wide if wide.dim() > 2 else wide[..., None]
        for power in (-0.5, 0.0, 0.5, 0.75, 1.0):
            wanted = functional.local_response_norm(flat, 5, 0.3 * 5, power).reshape(shape)
            assert_same(cross_map_normalization(x, 5, 0.3, power), wanted, dtype)


def check_extremes(dtype):
    """Powers of zeros, infinities, not-a-numbers and subnormal numbers."""
    info = torch.finfo(dtype)
    x = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, info.tiny / 8, info.max, 1.0])
    x = x.to(dtype).reshape(1, 1, -1).repeat(1, 1, 3)
    for power in (0.5, 1.5, 2.5):
        got, wanted = feature_lp_pooling(x, 1, 1, power), x.abs().double()
        got = torch.where(wanted == info.max, wanted, got.double())  # its power overflows
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-30, equal_nan=True)


def check_largest(dtype):
    x = torch.randint(-4, 5, (2, 50, 37)).to(dtype) * 0.37
    x[0, 3], x[1, 7, 2], x[0, 9, 1:3] = -0.0, torch.nan, -torch.inf
    for k in (1, 4, 7, 50):
        rank = torch.where(x.isnan(), torch.inf, x.double())
        wanted = rank.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
        values, index = temporal_k_max_pool(x, k)
        assert torch.equal(index, wanted)
        torch.testing.assert_close(values, x.gather(1, wanted), equal_nan=True, rtol=0, atol=0)


def check_softmax(dtype):
    # Logits near each other, and so far apart that most probabilities are 0.
    for classes, size in [(1, 1.0), (7, 1.0), (61, 30.0), (200, 200.0)]:
        layer = HierarchicalSoftmax(3, classes, num_clusters=1, reduction="sum").to(dtype)
        with torch.no_grad():
            layer.bias.copy_(torch.randn(classes, dtype=dtype) * size)
        x = torch.randn(9, 3, dtype=dtype, requires_grad=True)
        wide = [v.detach().double().requires_grad_() for v in (x, layer.weight, layer.bias)]
        target = torch.randint(0, classes, (9,))
        logits = functional.linear(*wide)[:, layer.class_row]
        wanted = functional.cross_entropy(logits, target, reduction="sum")
        got = layer(x, target)
        assert_same(got, wanted, dtype)
        for one, other in zip(
            torch.autograd.grad(got, [x, layer.weight, layer.bias]),
            torch.autograd.grad(wanted, wide),
        ):
            torch.testing.assert_close(
                one.double(), other, rtol=0, atol=1e3 * torch.finfo(dtype).eps
            )


def check_everything():
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        check_products(dtype)
        check_pooling(dtype)
        check_extremes(dtype)
        check_largest(dtype)
        check_softmax(dtype)


@pytest.mark.parametrize("vectors", ["widest", "avx2", "portable"])
def test_every_instruction_set(vectors):
    environment = {**os.environ, "GRAPHSCALE_SIMD": vectors}
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    check_everything()
