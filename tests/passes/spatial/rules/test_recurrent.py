"""LSTM, GRU and RNN behind convolutions: the input weight is an interface to the map's rows."""

from __future__ import annotations

import numpy as np
import pytest

import graphscale
from graphscale.core.resampling import growth_matrix
from tests.passes.small_graphs import constant, graph, plan_in, run

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("operator", GATES)
def test_the_rows_of_a_map_are_features(operator: str) -> None:
    nodes = f"""
        c = Conv <pads=[1,1,1,1], strides=[2,1]> (x, k)
        t = Transpose <perm=[3,0,1,2]> (c)
        s = Reshape (t, shape)
        y, h = {operator} <hidden_size=6> (s, w, r)
    """
    gates = GATES[operator] * 6
    target = graph(
        nodes,
        "float[1,1,16,32] x",
        k=(4, 1, 3, 3),
        shape=np.array([0, 0, -1]),
        w=(1, gates, 32),
        r=(1, gates, 6),
    )
    pretrain = graphscale.shrink(target, init="resize", input_size=(12, 20))
    (weight,) = [each for each in plan_in(pretrain).weights if each.name == "w"]
    assert weight.kind == "interface"
    assert weight.factors[2] == [(4, 4), (8, 6)]
    assert run(pretrain)["y"].shape == (20, 1, 1, 6)
    grown = graphscale.grow(pretrain)
    small = constant(pretrain, "w").reshape(gates, 4, 6)
    expected = np.einsum("hs,gcs->gch", growth_matrix(6, 8), small).reshape(1, gates, 32)
    np.testing.assert_allclose(constant(grown, "w"), expected, atol=1e-6)
    np.testing.assert_array_equal(constant(grown, "r"), constant(target, "r"))
    assert run(grown)["y"].shape == (32, 1, 1, 6)
