"""Weights resized as their plans say, against products with Eq. 5's matrices written out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import JoinedFactor, WeightPlan
from graphscale.core.resampling import growth_matrix, interpolation_matrix
from graphscale.core.resize_weights import grow_tensor, shrink_tensor

RANDOM = np.random.default_rng(0)


def grown(plan: WeightPlan, small: np.ndarray) -> np.ndarray:
    return grow_tensor(ir.Tensor(small), plan, "bilinear").numpy()


def test_a_kernel() -> None:
    plan = WeightPlan("w", "kernel", [[(4, 4)], [(3, 3)], [(3, 2)], [(5, 3)]])
    small = RANDOM.standard_normal((4, 3, 2, 3))
    expected = np.einsum("hs,wt,oist->oihw", growth_matrix(2, 3), growth_matrix(3, 5), small)
    np.testing.assert_allclose(grown(plan, small), expected)


def test_a_table_keeps_its_values() -> None:
    plan = WeightPlan("t", "table", [[(1, 1)], [(8, 5)]])
    np.testing.assert_allclose(grown(plan, np.ones((1, 5))), np.ones((1, 8)))


def joined() -> WeightPlan:
    """Rows on a map of 2×8×6 positions, on 3 numbers, and on 4 positions; 5 columns."""
    parts = [[(2, 2), (8, 5), (6, 4)], [(3, 3)], [(4, 3)]]
    return WeightPlan("v", "interface", [[JoinedFactor(parts)], [(5, 5)]])


def test_joined_rows_are_a_block_diagonal() -> None:
    plan = joined()
    assert (plan.target_shape, plan.pretrain_shape) == ([103, 5], [46, 5])
    map_ = np.kron(np.eye(2), np.kron(growth_matrix(5, 8), growth_matrix(4, 6)))
    matrix = np.zeros((103, 46))
    matrix[:96, :40], matrix[96:99, 40:43], matrix[99:, 43:] = map_, np.eye(3), growth_matrix(3, 4)
    small = RANDOM.standard_normal((46, 5))
    np.testing.assert_allclose(grown(plan, small), matrix @ small)


def test_joined_factors_inside_a_dimension() -> None:
    """Maps joined along their height, then flattened: channels · (8 + 4 rows) · 6 columns."""
    rows = JoinedFactor([[(8, 5)], [(4, 3)]])
    plan = WeightPlan("v", "interface", [[(2, 2), rows, (6, 4)], [(5, 5)]])
    height = np.zeros((12, 8))
    height[:8, :5], height[8:, 5:] = growth_matrix(5, 8), growth_matrix(3, 4)
    small = RANDOM.standard_normal((2 * 8 * 4, 5))
    expected = np.kron(np.eye(2), np.kron(height, growth_matrix(4, 6))) @ small
    np.testing.assert_allclose(grown(plan, small), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shrinking_undoes_growing(dtype: type) -> None:
    plan = joined()
    small = RANDOM.standard_normal((46, 5)).astype(dtype)
    back = shrink_tensor(ir.Tensor(grown(plan, small)), plan, "bilinear")
    assert back.dtype == ir.DataType.from_numpy(np.dtype(dtype))
    np.testing.assert_allclose(back.numpy(), small, atol=1e-5 if dtype == np.float32 else 1e-12)


def test_squares_of_the_matrices_for_variances() -> None:
    plan = WeightPlan("w", "kernel", [[(3, 2)]])
    found = grow_tensor(ir.Tensor(np.ones(2)), plan, "bilinear", squared=True).numpy()
    np.testing.assert_allclose(found, (growth_matrix(2, 3) ** 2).sum(1))


def test_interpolation_of_a_table_is_not_scaled() -> None:
    assert interpolation_matrix(5, 8).sum(1) == pytest.approx(np.ones(8))


def test_sums_beyond_float32_whose_result_is_not() -> None:
    plan = WeightPlan("w", "kernel", [[(2, 2)], [(3, 2)]])
    large = np.array(
        [[2.6e38, 1e38, 1.5e38], [1.5e38, 1e38, 2.6e38]], np.float32
    )  # for either order
    back = np.linalg.pinv(growth_matrix(2, 3))
    expected = large.astype(np.float64) @ back.T
    assert (large[0, :2].astype(np.float64) @ back[0, :2]) > np.finfo(np.float32).max
    found = shrink_tensor(ir.Tensor(large), plan, "bilinear").numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([1, np.inf, 1], np.float32), "infinity, which cannot be resized"),
        (np.full(3, 3e38, np.float32), "numbers that, resized, are too large for float32"),
        (np.full(3, 6e4, np.float16), "numbers that, resized, are too large for float16"),
    ],
)
def test_infinity_and_results_beyond_the_type_are_refused(array: np.ndarray, reason: str) -> None:
    lazy = shrink_tensor(ir.Tensor(array), WeightPlan("w", "kernel", [[(3, 2)]]), "bilinear")
    with pytest.raises(GraphScaleError, match=f"weight 'w' holds {reason}"):
        lazy.numpy()
