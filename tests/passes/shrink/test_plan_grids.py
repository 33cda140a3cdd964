"""The grids of mappings and joins are recorded, with the phase between the two networks."""

from __future__ import annotations

import pytest

from graphscale.passes.shrink.plan_grids import plan_grids
from tests.passes.small_graphs import analyzed, graph, solved


def test_grids_of_mappings_and_joins() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        r = Relu (c)
        p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)
        y = Add (r, p)
    """
    analysis = analyzed(graph(nodes, w=(3, 3, 3, 3)))
    grids = plan_grids(analysis, solved(analysis, 20))
    assert grids.keys() == {"c", "p", "y"}
    (height, width) = grids["p"]
    assert (height.dimension, width.dimension) == (2, 3)
    # Windows of two pixels stand half a pixel to the right in both networks.
    assert (height.target.origin, height.target.pitch, height.target.size) == (0.5, 2.0, 16)
    assert (height.pretrain.origin, height.pretrain.pitch, height.pretrain.size) == (0.5, 2.0, 10)
    assert height.phase == 0
    # A join stands in the middle of what it joins.
    assert grids["y"][0].target.origin == pytest.approx((0.0 + 0.5) / 2)
