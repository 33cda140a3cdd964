"""The resize maps against torch's interpolation in float64, and the algebra they must obey."""

import numpy as np
import pytest
import torch

from graphscale.core.errors import GraphScaleError
from graphscale.core.resampling import (
    METHODS,
    adaptive_averages,
    growth_matrix,
    interpolation_matrix,
    shrink_matrix,
)

SIZES = [(1, 1), (1, 3), (2, 3), (3, 5), (5, 7), (7, 11), (4, 6), (6, 36), (7, 7), (9, 4), (31, 5)]
PAIRS = pytest.mark.parametrize(("source", "target"), SIZES)
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)
# Ours -> torch's. torch's 'nearest' keeps a corner of each pixel, 'nearest-exact' its centre.
TORCH = {
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "bicubic": {"mode": "bicubic", "align_corners": False},
    "align-corners": {"mode": "bilinear", "align_corners": True},
    "nearest": {"mode": "nearest-exact"},
}


@EVERY_METHOD
@PAIRS
def test_interpolation_is_torchs(source: int, target: int, method: str) -> None:
    kernels = np.random.default_rng(source).standard_normal((2, 3, source, source))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(kernels), (target, target), **TORCH[method]
    ).numpy()
    matrix = interpolation_matrix(source, target, method)
    np.testing.assert_allclose(matrix @ kernels @ matrix.T, expected, rtol=0, atol=1e-12)


@EVERY_METHOD
@PAIRS
def test_rows_sum_to_one(source: int, target: int, method: str) -> None:
    np.testing.assert_allclose(interpolation_matrix(source, target, method).sum(1), 1, atol=1e-12)


@EVERY_METHOD
@PAIRS
def test_growth_keeps_the_sum_of_a_constant_kernel(source: int, target: int, method: str) -> None:
    """Eq. 5's direction: growing multiplies by k̃/k, below one, so that the response is kept."""
    grown = growth_matrix(source, target, method) @ np.full(source, 0.7)
    np.testing.assert_allclose(grown, 0.7 * source / target, atol=1e-12)
    assert grown.sum() == pytest.approx(0.7 * source)


def test_two_by_two_grown_to_three_by_three_by_hand() -> None:
    """Half-pixel places of three taps over two: -1/6, 1/2, 7/6, the outer ones clamped."""
    matrix = growth_matrix(2, 3)
    np.testing.assert_allclose(matrix, np.array([[1, 0], [0.5, 0.5], [0, 1]]) * 2 / 3)
    kernel = np.array([[1.0, 2.0], [3.0, 4.0]])
    expected = np.array([[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]]) * 4 / 9
    np.testing.assert_allclose(matrix @ kernel @ matrix.T, expected)


@EVERY_METHOD
@pytest.mark.parametrize(("pretrain", "target"), [(s, t) for s, t in SIZES if s <= t])
def test_shrinking_what_was_grown_changes_nothing(pretrain: int, target: int, method: str) -> None:
    product = shrink_matrix(target, pretrain, method) @ growth_matrix(pretrain, target, method)
    np.testing.assert_allclose(product, np.eye(pretrain), atol=1e-10)


@EVERY_METHOD
@PAIRS
def test_shrink_is_the_pseudo_inverse(source: int, target: int, method: str) -> None:
    """The four conditions of Penrose (1955)."""
    grow, shrink = growth_matrix(source, target, method), shrink_matrix(target, source, method)
    np.testing.assert_allclose(grow @ shrink @ grow, grow, atol=1e-10)
    np.testing.assert_allclose(shrink @ grow @ shrink, shrink, atol=1e-10)
    np.testing.assert_allclose((grow @ shrink).T, grow @ shrink, atol=1e-10)
    np.testing.assert_allclose((shrink @ grow).T, shrink @ grow, atol=1e-10)


def test_of_all_pretrain_kernels_shrink_finds_the_nearest() -> None:
    random = np.random.default_rng(0)
    kernel, grow = random.standard_normal(7), growth_matrix(5, 7)
    best = shrink_matrix(7, 5) @ kernel
    distance = np.linalg.norm(grow @ best - kernel)
    for _ in range(50):
        other = best + 0.1 * random.standard_normal(5)
        assert np.linalg.norm(grow @ other - kernel) >= distance


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "align-corners"])
@PAIRS
def test_mirrored_kernels_grow_into_mirrored_kernels(source: int, target: int, method: str) -> None:
    """'nearest' is not symmetric: a place half-way between two taps takes one of them."""
    matrix = interpolation_matrix(source, target, method)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)


def test_matrices_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError):
        interpolation_matrix(2, 3)[0, 0] = 5


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    with pytest.raises(GraphScaleError, match=r"'lanczos'.*bilinear, bicubic"):
        interpolation_matrix(2, 3, "lanczos")


def test_adaptive_averages_by_hand() -> None:
    """Of five pixels, three windows take pixels 0 and 1, 1 to 3, and 3 and 4."""
    third = 1 / 3
    wanted = [[0.5, 0.5, 0, 0, 0], [0, third, third, third, 0], [0, 0, 0, 0.5, 0.5]]
    np.testing.assert_allclose(adaptive_averages(5, 3), wanted)
    np.testing.assert_array_equal(adaptive_averages(1, 3), np.ones((3, 1)))
