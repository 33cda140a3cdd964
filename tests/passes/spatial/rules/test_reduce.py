"""Reductions over heights and widths."""

from __future__ import annotations

import numpy as np
import pytest

import graphscale
from graphscale.passes.spatial.dimensions import moves
from tests.passes.small_graphs import analyzed, graph, run, value

CONV = "c = Conv <pads=[1,1,1,1]> (x, w)"


@pytest.mark.parametrize(
    ("nodes", "moving"),
    [
        ("y = ReduceMean (c, axes)", [False, False, False, False]),
        ("y = ReduceMax <keepdims=0> (c, axes)", [False, False]),
        ("y = ArgMax <axis=1, keepdims=0> (c)", [False, True, True]),
        ("y = GlobalMaxPool (c)", [False, False, False, False]),
    ],
)
def test_what_is_left(nodes: str, moving: list[bool]) -> None:
    weights = {"axes": np.array([2, 3])} if "axes" in nodes else {}
    analysis = analyzed(graph(CONV + nodes, w=(4, 3, 3, 3), **weights))
    assert [moves(dim) for dim in analysis.of(value(analysis, "y"))] == moving


def best(count: int):
    nodes = CONV + "f = Reshape (c, flat) y, z = TopK <axis=2> (f, k)"
    numbers = {"flat": np.array([0, 0, -1]), "k": np.array([count])}
    return graph(nodes, w=(4, 3, 3, 3), **numbers)


def test_the_best_positions_of_a_map() -> None:
    pretrain = graphscale.shrink(best(100), init="resize", input_size=12)
    assert run(pretrain)["y"].shape == (1, 4, 100)


def test_more_best_positions_than_there_are() -> None:
    with pytest.raises(graphscale.GraphScaleError, match=r"topk_2.*best 500.*larger --input-size"):
        graphscale.shrink(best(500), init="resize", input_size=12)
