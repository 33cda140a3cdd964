"""Slice: crops and strides along a map, and the starts and ends that are written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphscale
from graphscale.core.plan import Grid
from graphscale.passes.spatial.mapping import Change
from graphscale.passes.spatial.rules.crop import Crop
from tests.passes.small_graphs import analyzed, constant, graph, node, run

LAST = np.iinfo(np.int64).max


@pytest.mark.parametrize(("start", "stop", "step"), [(0, 9, 1), (2, 7, 1), (0, 9, 2), (1, 9, 3)])
def test_output_and_grid_are_numpys(start: int, stop: int, step: int) -> None:
    kept = np.arange(9)[start:stop:step]
    crop = Crop(start, stop, step)
    assert crop.output(9) == len(kept)
    assert crop.grid(Grid(0.0, 1.0, 9), len(kept)) == Grid(kept[0], kept[1] - kept[0], len(kept))


def test_a_strided_slice_needs_a_multiple_and_keeps_its_phase() -> None:
    crop = Crop(1, 32, 2)
    assert (crop.downsampling, crop.divisor(32), crop.divisor(33)) == (2, 2, 1)
    (option,) = crop.options(Change(crop, 32, 16), 20, frozenset({10}))
    assert (option.parameters.start, option.parameters.step) == (1, 2)


def test_a_crop_cuts_off_as_much_as_in_the_target() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        s = Slice (c, starts, ends, axes)
        y = Conv <pads=[1,1,1,1]> (s, v)
    """
    numbers = {"starts": [2, -30], "ends": [-2, LAST], "axes": [2, 3]}
    target = graph(
        nodes, w=(4, 3, 3, 3), v=(2, 4, 3, 3), **{k: np.array(v) for k, v in numbers.items()}
    )
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    # 'To the end' stays as it is written.
    assert constant(pretrain, "ends")[1] == LAST
    assert run(pretrain)["y"].shape[:2] == (1, 2)
    assert graphscale.grow(pretrain).graph.node == target.graph.node


def test_channels_may_be_sliced_at_will() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        y = Slice (c, starts, ends, axes)
    """
    ints = {"starts": np.array([1]), "ends": np.array([3]), "axes": np.array([1])}
    analysis = analyzed(graph(nodes, w=(4, 3, 3, 3), **ints))
    assert node(analysis, "Slice") not in analysis.mappings


@pytest.mark.parametrize("end", [-LAST, -33])
def test_a_map_is_mirrored(end: int) -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        y = Slice (c, starts, ends, axes, steps)
    """
    numbers = {"starts": [-1], "ends": [end], "axes": [3], "steps": [-1]}
    target = graph(nodes, w=(4, 3, 3, 3), **{k: np.array(v) for k, v in numbers.items()})
    pretrain = graphscale.shrink(target, input_size=20)
    inner = onnx.ModelProto.FromString(pretrain.SerializeToString())
    inner.graph.output.add(name="c")
    outputs = run(inner)
    np.testing.assert_array_equal(outputs["y"], outputs["c"][..., ::-1])
    assert graphscale.grow(pretrain).graph.node == target.graph.node
    numbers["ends"] = [-9]
    part = graph(nodes, w=(4, 3, 3, 3), **{k: np.array(v) for k, v in numbers.items()})
    with pytest.raises(graphscale.GraphScaleError, match=r"slice_1.*reverses a part of a height"):
        graphscale.shrink(part, input_size=20)


@pytest.mark.parametrize(("start", "end", "kept"), [(1, LAST, "pixels"), (0, 1, "mean")])
def test_a_class_token_is_cut_from_the_pixels(start: int, end: int, kept: str) -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        pixels = Reshape (c, flat)
        mean = ReduceMean <keepdims=1> (pixels, last)
        tokens = Concat <axis=2> (mean, pixels)
        y = Slice (tokens, starts, ends, last)
    """
    numbers = {"flat": [1, 2, -1], "last": [2], "starts": [start], "ends": [end]}
    target = graph(nodes, w=(2, 3, 3, 3), **{k: np.array(v) for k, v in numbers.items()})
    pretrain = graphscale.shrink(target, input_size=20)
    pretrain.graph.output.add(name=kept)
    outputs = run(pretrain)
    assert outputs["pixels" if kept == "pixels" else "y"].shape[2] == (400 if start else 1)
    np.testing.assert_array_equal(outputs["y"], outputs[kept])


def test_the_first_of_two_joined_maps_is_cut_off() -> None:
    """Its end is a number of the target's map, which is written anew."""
    nodes = """
        a = Conv <pads=[1,1,1,1]> (x, w)
        b = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a)
        p = Reshape (a, flat)
        q = Reshape (b, flat)
        both = Concat <axis=2> (p, q)
        y = Slice (both, starts, ends, axes)
    """
    numbers = {"flat": [1, 2, -1], "starts": [1024], "ends": [1280], "axes": [-1]}
    target = graph(nodes, w=(2, 3, 3, 3), **{k: np.array(v) for k, v in numbers.items()})
    pretrain = graphscale.shrink(target, input_size=20)
    pretrain.graph.output.add(name="q")
    outputs = run(pretrain)
    np.testing.assert_array_equal(outputs["y"], outputs["q"])
    assert graphscale.grow(pretrain).graph.node == target.graph.node


def test_a_cut_inside_a_joined_map_is_refused() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        p = Reshape (c, flat)
        both = Concat <axis=2> (p, p)
        y = Slice (both, starts, ends, axes)
    """
    numbers = {"flat": [1, 2, -1], "starts": [1000], "ends": [2048], "axes": [2]}
    target = graph(nodes, w=(2, 3, 3, 3), **{k: np.array(v) for k, v in numbers.items()})
    with pytest.raises(graphscale.GraphScaleError, match=r"slice_3.*slides over flattened maps"):
        analyzed(target)
