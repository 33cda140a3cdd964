"""Expand and Tile: one pixel is repeated over a map."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphscale
from graphscale.core.plan import Grid
from graphscale.passes.spatial.rules.expand import OnePixel
from tests.passes.small_graphs import constant, graph, run


def test_grids() -> None:
    """One pixel of width 8 at 3.5; and a pixel made from no map, over an image of 8 pixels."""
    assert OnePixel().grid(Grid(3.5, 8.0, 1), 4) == Grid(0.5, 2.0, 4)
    assert OnePixel().grid_over(8, 4) == Grid(0.5, 2.0, 4)


@pytest.mark.parametrize("operator", ["Expand", "Tile"])
def test_a_gate_is_repeated_as_often_as_the_map_has_pixels(operator: str) -> None:
    nodes = f"""
        c = Conv <pads=[1,1,1,1]> (x, w)
        g = GlobalAveragePool (c)
        e = {operator} (g, times)
        y = Mul (c, e)
    """
    first = [1, 4] if operator == "Expand" else [1, 1]
    target = graph(nodes, w=(4, 3, 3, 3), times=np.array([*first, 32, 32]))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    assert constant(pretrain, "times").tolist()[:2] == first
    assert run(pretrain)["y"].shape[2] == constant(pretrain, "times")[2] in (19, 20, 21)


def test_a_repeated_map_is_refused() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        y = Tile (c, times)
    """
    target = graph(nodes, w=(4, 3, 3, 3), times=np.array([1, 1, 2, 1]))
    with pytest.raises(graphscale.GraphScaleError, match=r"tile_1.*repeats a height or width"):
        graphscale.shrink(target)


@pytest.mark.parametrize("shape", ["size = Shape (tokens)", "size = Identity (times)"])
def test_a_number_for_each_channel_is_repeated_for_all_tokens(shape: str) -> None:
    """Tokens of 32·32 pixels are multiplied by one number for each channel, in both networks."""
    nodes = f"""
        c = Conv <pads=[1,1,1,1]> (x, w)
        tokens = Reshape (c, flat)
        mean = ReduceMean <keepdims=1> (tokens, last)
        {shape}
        spread = Expand (mean, size)
        y = Mul (tokens, spread)
    """
    target = graph(
        nodes,
        w=(4, 3, 3, 3),
        flat=np.array([1, 4, -1]),
        last=np.array([2]),
        times=np.array([1, 4, 1024]),
    )
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    inner = onnx.ModelProto.FromString(pretrain.SerializeToString())
    inner.graph.output.add(name="tokens")
    outputs = run(inner)
    tokens = outputs["tokens"]
    assert tokens.shape[2] < 1024
    np.testing.assert_allclose(outputs["y"], tokens * tokens.mean(2, keepdims=True), rtol=1e-5)
