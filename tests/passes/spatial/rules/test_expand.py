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


def test_a_number_for_each_group_of_channels_is_repeated_for_its_pixels() -> None:
    """As in EvoNorm: a map is divided by the largest number of each of two groups of channels."""
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        groups = Reshape (c, grouped)
        largest = ReduceMax <keepdims=1> (groups, inside)
        spread = Expand (largest, sizes)
        map = Reshape (spread, whole)
        y = Sub (c, map)
    """
    target = graph(
        nodes,
        w=(4, 3, 3, 3),
        grouped=np.array([1, 2, 2, 32, 32]),
        inside=np.array([2, 3, 4]),
        sizes=np.array([1, 2, 2, 32, 32]),
        whole=np.array([1, 4, 32, 32]),
    )
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    inner = onnx.ModelProto.FromString(pretrain.SerializeToString())
    inner.graph.output.add(name="c")
    outputs = run(inner)
    assert outputs["c"].shape[2] < 32
    groups = outputs["c"].reshape(1, 2, -1)
    wanted = groups - groups.max(2, keepdims=True)
    np.testing.assert_allclose(outputs["y"].reshape(1, 2, -1), wanted, rtol=1e-5, atol=1e-6)


def test_a_map_made_of_a_number_follows_the_map_that_it_is_added_to() -> None:
    """As in EdgeNeXt: rows and columns are counted, divided by their number, and go to a layer."""
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        ones = Expand (one, sizes)
        rows = CumSum (ones, down)
        last = Slice (rows, end, past, first)
        part = Div (rows, last)
        columns = CumSum (ones, across)
        one_map = Reshape (part, single)
        other_map = Reshape (columns, single)
        table = Concat <axis=1> (one_map, other_map)
        projected = Conv (table, v)
        y = Add (c, projected)
    """
    target = graph(
        nodes,
        w=(4, 3, 3, 3),
        v=(4, 2, 1, 1),
        one=np.float32(1),
        sizes=np.array([1, 32, 32]),
        first=np.array([1]),
        down=np.int64(1),
        across=np.int64(2),
        end=np.array([-1]),
        past=np.array([2**63 - 1]),
        single=np.array([1, 1, 32, 32]),
    )
    pretrain = graphscale.shrink(target, input_size=20)
    inner = onnx.ModelProto.FromString(pretrain.SerializeToString())
    inner.graph.output.add(name="c")
    outputs = run(inner)
    height, width = outputs["y"].shape[2:]
    assert (height, width) == (20, 20)
    line = np.arange(1, height + 1)
    made = np.stack(np.meshgrid(line / height, line, indexing="ij"))
    wanted = np.einsum("oc,chw->ohw", constant(pretrain, "v")[:, :, 0, 0].astype(float), made)
    np.testing.assert_allclose((outputs["y"] - outputs["c"])[0], wanted, rtol=1e-4, atol=1e-4)
    weight = constant(graphscale.grow(pretrain), "v")
    np.testing.assert_array_equal(weight, constant(pretrain, "v"))
