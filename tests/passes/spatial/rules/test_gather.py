"""Gathers that roll a map or cut it into windows that may overlap."""

import numpy as np
import onnx
import pytest

import graphscale

from ...small_graphs import graph, run


def pretrain_outputs(target: onnx.ModelProto, pixels: int) -> dict[str, np.ndarray]:
    """What the pre-train network of a model gives, with its map `c`."""
    inner = onnx.ModelProto.FromString(
        graphscale.shrink(target, input_size=pixels).SerializeToString()
    )
    inner.graph.output.add(name="c")
    return run(inner)


@pytest.mark.parametrize("first", [1, 5, 31])
def test_a_map_is_rolled_by_as_many_pixels(first: int) -> None:
    target = graph(
        "c = Conv <pads=[1,1,1,1]> (x, w)  y = Gather <axis=2> (c, order)",
        w=(2, 3, 3, 3),
        order=(np.arange(32) + first) % 32,
    )
    outputs = pretrain_outputs(target, 20)
    shift = first if first < 16 else first - 32
    np.testing.assert_array_equal(outputs["y"], np.roll(outputs["c"], -shift, 2))


@pytest.mark.parametrize(
    ("pixels", "step", "pixels_first"),
    [
        *((4, 4, False), (6, 2, False), (8, 4, False)),
        # As torch.nn.functional.unfold is exported, which has a row of places for each tap.
        *((3, 1, True), (4, 4, True), (5, 2, True)),
    ],
)
def test_windows_keep_their_size_and_distance(pixels: int, step: int, pixels_first: bool) -> None:
    places = np.arange(0, 32 - pixels + 1, step)[:, None] + np.arange(pixels)
    target = graph(
        """
        c = Conv <pads=[1,1,1,1]> (x, w)
        windows = Gather <axis=3> (c, places)
        y = ReduceMax <keepdims=0> (windows, axis)
        """,
        w=(2, 3, 3, 3),
        places=places.T if pixels_first else places,
        axis=np.array([3 if pixels_first else 4]),
    )
    outputs = pretrain_outputs(target, 20)
    assert outputs["c"].shape[3] < 32
    windows = np.lib.stride_tricks.sliding_window_view(outputs["c"], pixels, 3)[:, :, :, ::step]
    np.testing.assert_array_equal(outputs["y"], windows.max(-1))


@pytest.mark.parametrize("places", [[[0, 1], [2, 4]], [[3, 4], [1, 2]], [1, 0, 3, 2]])
def test_other_rows_are_refused(places: list) -> None:
    target = graph(
        "c = Conv <pads=[1,1,1,1]> (x, w)  y = Gather <axis=2> (c, places)",
        w=(2, 3, 3, 3),
        places=np.array(places),
    )
    with pytest.raises(graphscale.GraphScaleError, match="picks single rows or columns"):
        graphscale.shrink(target, input_size=20)


def test_a_class_token_before_the_pixels_is_picked() -> None:
    target = graph(
        """
        c = Conv <pads=[1,1,1,1]> (x, w)
        pixels = Reshape (c, flat)
        mean = ReduceMean <keepdims=1> (pixels, last)
        tokens = Concat <axis=2> (mean, pixels)
        y = Gather <axis=2> (tokens, first)
        """,
        w=(2, 3, 3, 3),
        flat=np.array([1, 2, -1]),
        last=np.array([2]),
        first=np.array(0),
    )
    outputs = pretrain_outputs(target, 20)
    np.testing.assert_allclose(outputs["y"], outputs["c"].mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_gather_nd_picks_channels() -> None:
    target = graph(
        """
        c = Conv <pads=[1,1,1,1]> (x, w)
        first = Transpose <perm=[1,0,2,3]> (c)
        y = GatherND (first, places)
        """,
        w=(4, 3, 3, 3),
        places=np.array([[2], [0]]),
    )
    outputs = pretrain_outputs(target, 20)
    np.testing.assert_array_equal(outputs["y"], outputs["c"].transpose(1, 0, 2, 3)[[2, 0]])
    refused = graph(
        "c = Conv <pads=[1,1,1,1]> (x, w)  y = GatherND (c, places)",
        w=(4, 3, 3, 3),
        places=np.array([[0, 1, 2]]),
    )
    with pytest.raises(graphscale.GraphScaleError, match="picks single places of a map"):
        graphscale.shrink(refused, input_size=20)


@pytest.mark.parametrize("place", [0, -1, 31])
def test_the_first_and_the_last_column(place: int) -> None:
    target = graph(
        "c = Conv <pads=[1,1,1,1]> (x, w)  y = Gather <axis=3> (c, place)",
        w=(2, 3, 3, 3),
        place=np.array(place),
    )
    outputs = pretrain_outputs(target, 20)
    np.testing.assert_array_equal(outputs["y"], outputs["c"][..., 0 if place == 0 else -1])
    assert graphscale.grow(graphscale.shrink(target)).graph.node == target.graph.node


def test_gather_elements_picks_channels() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        best = ArgMax <axis=1, keepdims=1> (c)
        y = GatherElements <axis=1> (c, best)
    """
    outputs = pretrain_outputs(graph(nodes, w=(4, 3, 3, 3)), 20)
    np.testing.assert_array_equal(outputs["y"], outputs["c"].max(1, keepdims=True))
    places = np.zeros((1, 1, 32, 32), np.int64)
    refused = graph(
        "c = Conv <pads=[1,1,1,1]> (x, w) y = GatherElements <axis=2> (c, at)",
        w=(4, 3, 3, 3),
        at=places,
    )
    with pytest.raises(graphscale.GraphScaleError, match="picks single places of a map"):
        graphscale.shrink(refused)


@pytest.mark.parametrize("operator", ["Gather", "GatherElements", "GatherND"])
def test_the_best_places_of_a_map_are_picked(operator: str) -> None:
    """As detectors without non-maximum suppression do: the places are computed in the map."""
    picks = {
        "Gather": "one = Squeeze (at, start) y = Gather <axis=1> (scores, one)",
        "GatherElements": "y = GatherElements <axis=1> (scores, at)",
        "GatherND": "y = GatherND <batch_dims=1> (scores, at3)",
    }
    nodes = (
        "c = Conv <pads=[1,1,1,1]> (x, w) scores = Reshape (c, flat) best, at = TopK (scores, k)"
    )
    at3 = "at3 = Unsqueeze (at, last) " if operator == "GatherND" else ""
    target = graph(
        f"{nodes} {at3}{picks[operator]}",
        w=(1, 3, 3, 3),
        flat=np.array([1, -1]),
        k=np.array([5]),
        **({"start": np.array([0])} if operator == "Gather" else {}),
        **({"last": np.array([-1])} if at3 else {}),
    )
    outputs = pretrain_outputs(target, 20)
    best = np.sort(outputs["c"].ravel())[:-6:-1]
    np.testing.assert_array_equal(outputs["y"].ravel(), best)
