"""Tables of coordinates stay on their line in the pre-train network, computed by formula here."""

import numpy as np
import onnx
import pytest

import graphscale
from graphscale.core.errors import GraphScaleError
from tests.passes.small_graphs import graph, plan_in

FLOAT = np.float32


def centres(size: int, stride: float = 1.0) -> np.ndarray:
    """x and y of every pixel's centre [1, 2, size · size], in the map's pixels times `stride`."""
    y, x = np.meshgrid(*[np.arange(size) + 0.5] * 2, indexing="ij")
    return (np.stack([x, y]).reshape(1, 2, -1) * stride).astype(FLOAT)


def head(points: np.ndarray, strides: np.ndarray | None = None):
    """Boxes of a map of 16×16 and one of 8×8 pixels around anchor points."""
    nodes = """
        p = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, k)
        q = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (p, l)
        two = Constant <value_ints = [0, 2, -1]> ()
        a = Reshape(p, two)
        b = Reshape(q, two)
        offsets = Concat <axis = 2> (a, b)
        boxes = Add(offsets, points)
    """
    weights = {"k": (2, 3, 3, 3), "l": (2, 2, 3, 3), "points": points}
    if strides is None:
        return graph(f"{nodes} y = Relu(boxes)", **weights)
    return graph(f"{nodes} y = Mul(boxes, strides)", **weights, strides=strides)


def numbers(model, name: str) -> np.ndarray:
    (found,) = [each for each in model.graph.initializer if each.name == name]
    return onnx.numpy_helper.to_array(found)


def kinds(model) -> dict[str, str]:
    return {weight.name: weight.kind for weight in plan_in(model).weights}


def test_anchor_points_and_strides_of_two_levels():
    points = np.concatenate([centres(16), centres(8)], 2)
    strides = np.repeat([[2, 4]], [256, 64], axis=1).astype(FLOAT)
    target = head(points, strides)
    small = graphscale.shrink(target, input_size=24)
    sizes = 12, 6
    np.testing.assert_array_equal(
        numbers(small, "points"), np.concatenate([centres(size) for size in sizes], 2)
    )
    np.testing.assert_allclose(
        numbers(small, "strides"), np.repeat([[2, 4]], [144, 36], axis=1), rtol=1e-6
    )
    assert kinds(small)["points"] == "pixels"
    grown = graphscale.grow(small)
    np.testing.assert_array_equal(numbers(grown, "points"), points)
    np.testing.assert_allclose(numbers(grown, "strides"), strides, rtol=1e-6)


def test_anchor_points_in_pixels_of_the_image():
    points = np.concatenate([centres(16, 2), centres(8, 4)], 2)
    small = graphscale.shrink(head(points), input_size=24)
    np.testing.assert_array_equal(
        numbers(small, "points"), np.concatenate([centres(12, 2), centres(6, 4)], 2)
    )
    np.testing.assert_array_equal(numbers(graphscale.grow(small), "points"), points)


def test_anchor_points_relative_to_the_image():
    points = np.concatenate([centres(16, 1 / 16), centres(8, 1 / 8)], 2)
    small = graphscale.shrink(head(points), input_size=24)
    assert kinds(small)["points"] == "centres"
    wanted = np.concatenate([centres(12, 1 / 12), centres(6, 1 / 6)], 2)
    np.testing.assert_allclose(numbers(small, "points"), wanted, atol=1e-6)
    np.testing.assert_allclose(numbers(graphscale.grow(small), "points"), points, atol=1e-6)


def test_coordinate_channels_from_minus_one_to_one():
    def coordinates(size: int) -> np.ndarray:
        return np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij"))[None]

    target = graph(
        "both = Concat <axis = 1> (x, yx) y = Conv <pads = [2, 2, 2, 2]> (both, k)",
        k=(4, 5, 5, 5),
        yx=coordinates(32).astype(FLOAT),
    )
    small = graphscale.shrink(target, input_size=20)
    assert kinds(small)["yx"] == "centres"
    # The numbers belong to places in the image: those in the middle of 20 parts of it.
    line = (np.arange(20) - 9.5) * 32 / 20 * 2 / 31
    wanted = np.stack(np.meshgrid(line, line, indexing="ij"))[None]
    np.testing.assert_allclose(numbers(small, "yx"), wanted, atol=1e-6)
    np.testing.assert_allclose(numbers(graphscale.grow(small), "yx"), coordinates(32), atol=1e-6)


@pytest.mark.parametrize("learned", ["random", "constant"])
def test_learned_tables_are_interpolated(learned):
    points = np.full((1, 2, 320), 0.25, FLOAT)
    if learned == "random":
        points = np.random.default_rng(0).standard_normal((1, 2, 320)).astype(FLOAT)
    small = graphscale.shrink(head(points), input_size=24)
    assert kinds(small)["points"] == "table"


def test_coordinates_of_a_single_pixel_are_refused():
    points = np.concatenate([centres(16), centres(8)], 2)
    with pytest.raises(GraphScaleError, match=r"'points' .* single pixel .* larger --input-size"):
        graphscale.shrink(head(points), input_size=4)


def test_anchor_points_are_not_trained():
    points = np.concatenate([centres(16), centres(8)], 2)
    strides = np.repeat([[2, 4]], [256, 64], axis=1).astype(FLOAT)
    trained = {name for name, _ in graphscale.load(head(points, strides)).named_parameters()}
    assert trained == {"k", "l"}
    table = np.random.default_rng(0).standard_normal((1, 2, 320)).astype(FLOAT)
    trained = {name for name, _ in graphscale.load(head(table)).named_parameters()}
    assert trained == {"k", "l", "points"}
