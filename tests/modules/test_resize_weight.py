"""A tensor grows as one matrix per axis says, and keeps its type, memory format and device."""

import numpy as np
import pytest
import torch

from graphscale import GraphScaleError
from graphscale.core.plan import WeightPlan
from graphscale.core.resampling import growth_matrix
from graphscale.modules.resize_weight import grow_weight, shrink_weight

KERNEL = WeightPlan("w", "kernel", [[(4, 4)], [(3, 3)], [(7, 5)], [(5, 3)]])


def kernel(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(4, 3, 5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "nearest", "align-corners"])
def test_one_matrix_per_axis(method: str) -> None:
    down, across = growth_matrix(5, 7, method), growth_matrix(3, 5, method)
    expected = np.einsum("ocij,yi,xj->ocyx", kernel().numpy(), down, across)
    found = grow_weight(kernel(), KERNEL, method)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)


def test_growing_what_was_grown_and_shrunk_changes_nothing() -> None:
    grown = grow_weight(kernel(), KERNEL)
    shrunk = shrink_weight(grown, KERNEL)
    torch.testing.assert_close(shrunk, kernel(), rtol=1e-10, atol=1e-12)


def test_shrinking_gives_the_nearest_kernel() -> None:
    """The rest is at right angles to all grown kernels: least squares, written out by numpy."""
    target = torch.randn(1, 1, 7, 5, dtype=torch.float64)
    plan = WeightPlan("w", "kernel", [[(1, 1)], [(1, 1)], [(7, 5)], [(5, 3)]])
    matrix = np.kron(growth_matrix(5, 7), growth_matrix(3, 5))
    expected = np.linalg.lstsq(matrix, target.numpy().ravel(), rcond=None)[0]
    found = shrink_weight(target, plan).numpy().ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_growth_is_linear() -> None:
    one, other = kernel(), kernel().flip(2)
    together = grow_weight(2 * one - other, KERNEL)
    torch.testing.assert_close(together, 2 * grow_weight(one, KERNEL) - grow_weight(other, KERNEL))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_types(dtype: torch.dtype) -> None:
    """16-bit types are computed in float32 and rounded once."""
    found = grow_weight(kernel(dtype), KERNEL)
    assert found.dtype == dtype
    expected = grow_weight(kernel(dtype).double(), KERNEL)
    tolerance = torch.finfo(dtype).eps
    assert (found.double() - expected).abs().max() <= tolerance * expected.abs().max()


def test_memory_format_gradient_and_shape() -> None:
    given = kernel().to(memory_format=torch.channels_last).requires_grad_()
    found = grow_weight(given, KERNEL)
    assert found.shape == (4, 3, 7, 5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not found.requires_grad
    assert grow_weight(kernel(), KERNEL).is_contiguous()


def test_tensors_without_data() -> None:
    assert grow_weight(kernel().to("meta"), KERNEL).shape == (4, 3, 7, 5)
    found = shrink_weight(torch.empty(4, 3, 7, 5, dtype=torch.float16, device="meta"), KERNEL)
    assert (found.shape, found.dtype, found.is_meta) == ((4, 3, 5, 3), torch.float16, True)


def test_an_unknown_method_is_an_error() -> None:
    with pytest.raises(GraphScaleError, match="cubic spline"):
        grow_weight(kernel(), KERNEL, "cubic spline")
