"""Element-wise operators: sizes that must be equal, tables of positions, normalisation."""

from __future__ import annotations

import numpy as np
import pytest

import graphscale
from graphscale.core.resampling import interpolation_matrix
from tests.passes.small_graphs import analyzed, constant, graph, plan_in, run, value

CONV = "c = Conv <pads=[1,1,1,1]> (x, w)"


@pytest.mark.parametrize("operator", ["Relu", "Erf", "Softmax", "LpNormalization", "CumSum"])
def test_one_input(operator: str) -> None:
    axis = ", axis" if operator == "CumSum" else ""
    weights = {"axis": np.array(1)} if axis else {}
    analysis = analyzed(graph(CONV + f"y = {operator} (c{axis})", w=(4, 3, 3, 3), **weights))
    assert analysis.of(value(analysis, "y")) == analysis.of(value(analysis, "c"))


def test_softmax_over_positions() -> None:
    """Attention over a map: its sum stays one whatever the map's size is."""
    nodes = CONV + "f = Reshape (c, flat) y = Softmax <axis=2> (f)"
    target = graph(nodes, w=(4, 3, 3, 3), flat=np.array([0, 0, -1]))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    np.testing.assert_allclose(run(pretrain)["y"].sum(2), 1, atol=1e-5)


def test_numbers_at_positions_are_a_table() -> None:
    nodes = CONV + "y = Add (c, table)"
    target = graph(nodes, w=(4, 3, 3, 3), table=(4, 32, 1))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    (table,) = [each for each in plan_in(pretrain).weights if each.kind == "table"]
    assert table.factors[1] == [(32, run(pretrain)["y"].shape[2])]
    assert table.factors[2] == [(1, 1)]


def test_maps_of_different_origin_are_refused() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        f = Reshape (c, flat)
        s = Transpose <perm=[0,2,1]> (f)
        y = Add (s, t)
    """
    inputs = "float[1,3,4,8] x, float[1,32,4] t"
    with pytest.raises(graphscale.GraphScaleError, match=r"add_3.*different origins"):
        analyzed(graph(nodes, inputs, w=(4, 3, 3, 3), flat=np.array([0, 0, -1])))


def test_normalisation_of_a_flattened_map() -> None:
    """The four vectors have a number for each position, and are interpolated."""
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        f = Flatten (c)
        n = BatchNormalization (f, scale, bias, mean, var)
        y = Gemm (n, v)
    """
    random = np.random.default_rng(0)
    vectors = {
        name: (1 + random.random(4 * 256)).astype(np.float32)
        for name in ("scale", "bias", "mean", "var")
    }
    target = graph(nodes, w=(4, 3, 3, 3), v=(4 * 256, 5), **vectors)
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    kinds = {each.name: each.kind for each in plan_in(pretrain).weights}
    assert kinds == {"w": "kernel", "v": "interface", **dict.fromkeys(vectors, "table")}
    assert np.isfinite(run(pretrain)["y"]).all()
    grow = interpolation_matrix(10, 16)
    small = constant(pretrain, "var").reshape(4, 10, 10)
    expected = np.einsum("hs,wt,cst->chw", grow, grow, small).reshape(-1)
    np.testing.assert_allclose(constant(graphscale.grow(pretrain), "var"), expected, atol=1e-5)


def test_layer_normalisation_over_positions() -> None:
    nodes = CONV + "y = LayerNormalization <axis=2> (c, scale, bias)"
    target = graph(nodes, w=(4, 3, 3, 3), scale=(32, 32), bias=(32, 32))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    size = list(run(pretrain)["y"].shape[2:])
    assert [list(constant(pretrain, name).shape) for name in ("scale", "bias")] == [size, size]
