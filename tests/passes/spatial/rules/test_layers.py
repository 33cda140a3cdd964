"""graphscale's own layers."""

from __future__ import annotations

import pytest

import graphscale
from graphscale.passes.spatial.dimensions import moves
from tests.passes.small_graphs import analyzed, graph, value

CONV = "c = Conv <pads=[1,1,1,1]> (x, w)"


def test_channels_are_pooled() -> None:
    nodes = CONV + "y = graphscale.FeatureLPPooling <width=2, stride=2, power=2.0> (c)"
    analysis = analyzed(graph(nodes, w=(4, 3, 3, 3)))
    dims = analysis.of(value(analysis, "y"))
    assert [moves(dim) for dim in dims] == [False, False, True, True]
    assert dims[1][0].size == 2


def test_a_kernel_per_position_is_refused() -> None:
    nodes = CONV + "y = graphscale.LocallyConnected (c, v)"
    with pytest.raises(graphscale.GraphScaleError, match=r"another kernel at every position"):
        analyzed(graph(nodes, w=(4, 3, 3, 3), v=(2, 32, 32, 4, 1, 1)))
