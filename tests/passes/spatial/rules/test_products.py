"""Matrix products: interfaces, products of two maps, Einsum."""

from __future__ import annotations

import numpy as np
import pytest

import graphscale
from tests.passes.small_graphs import analyzed, graph, plan_in, run, value

CONV = "c = Conv <pads=[1,1,1,1]> (x, w) f = Reshape (c, flat)"
FLAT = {"w": (4, 3, 3, 3), "flat": np.array([0, 4, -1])}


@pytest.mark.parametrize(
    ("nodes", "weight"),
    [
        ("y = MatMul (f, v)", (1024, 5)),
        ('y = Einsum <equation="ncp,pk->nck"> (f, v)', (1024, 5)),
        ('y = Einsum <equation="ncp,kp->nck"> (f, v)', (5, 1024)),
        ("g = Flatten (f) y = Gemm <transB=1> (g, v)", (5, 4096)),
        ("g = Transpose <perm=[0,2,1]> (f) y = MatMul (v, g)", (5, 1024)),
    ],
)
def test_a_weight_over_positions_is_an_interface(nodes: str, weight: tuple[int, int]) -> None:
    pretrain = graphscale.shrink(
        graph(CONV + nodes, v=weight, **FLAT), init="resize", input_size=20
    )
    (found,) = [each for each in plan_in(pretrain).weights if each.name == "v"]
    assert found.kind == "interface"
    assert 5 in found.pretrain_shape
    assert np.isfinite(run(pretrain)["y"]).all()


def test_two_maps_are_tied_where_they_are_summed_over() -> None:
    nodes = """
        d = Conv <pads=[2,2,2,2]> (x, u)
        g = Reshape (d, flat)
        t = Transpose <perm=[0,2,1]> (g)
        y = MatMul (f, t)
    """
    analysis = analyzed(graph(CONV + nodes, u=(4, 3, 5, 5), **FLAT))
    assert analysis.of(value(analysis, "c"))[2:] == analysis.of(value(analysis, "d"))[2:]


def test_a_product_with_a_vector_of_positions_is_refused() -> None:
    with pytest.raises(graphscale.GraphScaleError, match=r"matmul_2.*multiplies by a vector"):
        analyzed(graph(CONV + "y = MatMul (f, v)", v=(1024,), **FLAT))
