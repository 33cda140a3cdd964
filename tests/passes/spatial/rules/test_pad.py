"""Pad: borders and crops."""

from __future__ import annotations

import numpy as np

import graphscale
from graphscale.core.plan import Grid
from graphscale.passes.spatial.mapping import Change
from graphscale.passes.spatial.rules.pad import Border
from tests.passes.small_graphs import constant, graph, run


def test_grid() -> None:
    assert Border(2, 1).grid(Grid(0.5, 2.0, 10), 13) == Grid(-3.5, 2.0, 13)


def test_a_reflection_ends_inside_the_map() -> None:
    border = Border(3, 3, reflects=True)
    options = list(border.options(Change(border, 32, 38), 3, frozenset({9})))
    assert options == []
    (best, *_) = sorted(
        border.options(Change(border, 32, 38), 4, frozenset({10})), key=lambda o: o.cost
    )
    assert best.parameters == border


def test_the_border_stays_where_the_size_allows() -> None:
    nodes = """
        p = Pad (x, pads)
        y = Conv (p, w)
    """
    target = graph(nodes, w=(2, 3, 5, 5), pads=np.array([0, 0, 2, 2, 0, 0, 2, 2]))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    pads = constant(pretrain, "pads")
    assert pads[[0, 1, 4, 5]].tolist() == [0] * 4
    height, width = 20 + pads[2] + pads[6], 20 + pads[3] + pads[7]
    assert constant(pretrain, "w").shape == (2, 3, 3, 3)
    # The convolution has no padding in the target, and needs none.
    assert run(pretrain)["y"].shape == (1, 2, height - 2, width - 2)


def test_a_token_is_put_before_flattened_pixels() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        p = Reshape (c, flat)
        t = Concat <axis=2> (token, p)
        b = Pad (p, pads)
        y = Sub (t, b)
    """
    numbers = {"flat": np.array([1, 2, -1]), "pads": np.array([0, 0, 1, 0, 0, 0])}
    token = np.array([[[5.0], [7.0]]], np.float32)
    target = graph(nodes, w=(2, 3, 3, 3), token=token, **numbers)
    pretrain = graphscale.shrink(target, input_size=20)
    expected = np.concatenate([token, np.zeros((1, 2, 400))], 2)
    np.testing.assert_allclose(run(pretrain)["y"], expected)
