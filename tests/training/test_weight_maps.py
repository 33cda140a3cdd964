"""The maps of weights between stages, against matrices written out by hand."""

import numpy as np
import pytest
import torch

import graphscale
from graphscale.core.plan import JoinedFactor, Plan, WeightPlan
from graphscale.core.resampling import growth_matrix
from graphscale.training.weight_maps import growth_maps


def plan(*weights: WeightPlan) -> Plan:
    return Plan(weights=list(weights))


def test_rows_on_joined_maps_between_stages() -> None:
    """Two maps of 4 and 6 pixels joined before a layer of 2 neurons, at three sizes."""

    def rows(first: int, second: int) -> WeightPlan:
        joined = JoinedFactor([[(4, first)], [(6, second)]])
        return WeightPlan("rows", "interface", [[(2, 2)], [joined]])

    (weight_map,) = growth_maps(plan(rows(2, 3)), "bilinear", plan(rows(3, 5))).values()
    weight = torch.randn(2, 5, dtype=torch.float64)
    expected = [weight[:, :2].numpy() @ growth_matrix(2, 3).T]
    expected += [weight[:, 2:].numpy() @ growth_matrix(3, 5).T]
    np.testing.assert_allclose(weight_map(weight), np.concatenate(expected, 1))


def test_a_stage_that_leaves_a_kernel_alone() -> None:
    kernel = WeightPlan("kernel", "kernel", [[(2, 2)], [(3, 3)], [(5, 3)], [(5, 3)]])
    (weight_map,) = growth_maps(plan(kernel), "bilinear", plan()).values()
    assert (weight_map.before, weight_map.after) == ((2, 3, 3, 3), (2, 3, 5, 5))
    assert growth_maps(plan(kernel), "bilinear", plan(kernel)) == {}
    with pytest.raises(graphscale.GraphScaleError, match="would become smaller"):
        growth_maps(plan(), "bilinear", plan(kernel))


def test_plans_of_two_targets() -> None:
    plans = [
        plan(WeightPlan("kernel", "kernel", [[(2, 2)], [(3, 3)], [(size, 3)], [(5, 3)]]))
        for size in (5, 7)
    ]
    with pytest.raises(graphscale.GraphScaleError, match="not of the same target"):
        growth_maps(plans[0], "bilinear", plans[1])


def test_a_table_has_no_amplitude() -> None:
    table = WeightPlan("places", "table", [[(4, 2)]])
    (weight_map,) = growth_maps(plan(table), "bilinear").values()
    torch.testing.assert_close(weight_map(torch.ones(2)), torch.ones(4))
