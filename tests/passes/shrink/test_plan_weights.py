"""The plan lists the weights that are resized, with their factors."""

from __future__ import annotations

import pytest

import graphscale
from graphscale.core.plan import JoinedFactor
from graphscale.passes.shrink.choose_kernels import choose_kernels
from graphscale.passes.shrink.plan_weights import plan_weights
from tests.passes.small_graphs import analyzed, graph, solved


def planned(nodes: str, **weights: object) -> dict[str, tuple]:
    analysis = analyzed(graph(nodes, **weights))
    plans = plan_weights(analysis, choose_kernels(analysis), solved(analysis, 20))
    assert all(value.name == plan.name for value, plan in plans.items())
    return {plan.name: (plan.kind, plan.factors) for plan in plans.values()}


def test_kernels_interfaces_and_tables() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        d = Conv (c, one)
        a = Add (d, t)
        f = Flatten (a)
        y = Gemm (f, v)
    """
    shapes = {"w": (4, 3, 3, 3), "one": (2, 4, 1, 1), "t": (1, 2, 16, 16), "v": (512, 5)}
    map_ = [(16, 10), (16, 10)]
    assert planned(nodes, **shapes) == {
        "w": ("kernel", [[(4, 4)], [(3, 3)], [(3, 2)], [(3, 2)]]),
        "t": ("table", [[(1, 1)], [(2, 2)], *([each] for each in map_)]),
        "v": ("interface", [[(2, 2), *map_], [(5, 5)]]),
    }


def test_a_kernel_behind_a_transpose_is_planned_where_it_is_stored() -> None:
    nodes = "t = Transpose <perm=[3,2,0,1]> (w) y = Conv <pads=[1,1,1,1]> (x, t)"
    assert planned(nodes, w=(3, 3, 3, 4)) == {
        "w": ("kernel", [[(3, 2)], [(3, 2)], [(3, 3)], [(4, 4)]])
    }


def test_joined_maps_are_parts_of_one_factor() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        a = Flatten (x)
        b = Flatten (c)
        j = Concat <axis=1> (a, b)
        y = MatMul (j, v)
    """
    found = planned(nodes, w=(4, 3, 3, 3), v=(3 * 1024 + 4 * 256, 5))
    parts = [[(3, 3), (32, 20), (32, 20)], [(4, 4), (16, 10), (16, 10)]]
    assert found["v"] == ("interface", [[JoinedFactor(parts)], [(5, 5)]])


def test_a_weight_that_two_layers_need_in_two_sizes() -> None:
    """Two layers share a weight but read their maps in different orders."""
    nodes = """
        a = Conv <pads=[1,1,1,1]> (x, w)
        b = Flatten (a)
        c = Transpose <perm=[0,2,3,1]> (a)
        d = Flatten (c)
        m = MatMul (b, k)
        n = MatMul (d, k)
        y = Add (m, n)
    """
    with pytest.raises(graphscale.GraphScaleError, match=r"weight 'k' is shared by 'matmul_4' and"):
        planned(nodes, w=(4, 3, 3, 3), k=(4096, 5))
