"""Reshape, Transpose, Concat, Split, Gather and Scatter; fully-connected layers on joined maps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphscale
from graphscale.core.plan import JoinedFactor
from graphscale.core.resampling import growth_matrix
from graphscale.passes.spatial.dimensions import moves
from tests.passes.small_graphs import analyzed, constant, graph, plan_in, run, value

INPUTS = "float[1,3,32,32] x, float[1,4,1024] s"
CONV = "c = Conv <pads=[1,1,1,1]> (x, w)"


def test_a_reshape_target_is_written_where_it_holds_numbers() -> None:
    nodes = CONV + "f = Reshape (c, shape) y = Gemm (f, v)"
    target = graph(nodes, w=(4, 3, 3, 3), v=(4096, 5), shape=np.array([0, 4096]))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    rows = constant(pretrain, "shape")[1]
    assert rows == constant(pretrain, "v").shape[0] == 4 * 20 * 20
    assert run(pretrain)["y"].shape == (1, 5)


def test_transposed_dimensions() -> None:
    analysis = analyzed(graph(CONV + "y = Transpose <perm=[0,2,3,1]> (c)", w=(4, 3, 3, 3)))
    assert [moves(dim) for dim in analysis.of(value(analysis, "y"))] == [False, True, True, False]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            "p = AveragePool <kernel_shape=[3,3]> (c) y = Reshape (p, parts)",
            "reshape_2.*cuts a height or width into pieces",
        ),
        ("y = Gather <axis=2> (c, one)", "gather_1.*picks single rows or columns"),
        ("y, z = Split <axis=3, num_outputs=2> (c)", "split_1.*splits a height or width"),
        ("y = ScatterElements <axis=2> (c, i, u)", "scatterelements_1.*writes into single places"),
        ("f = Reshape (c, flat) b = Concat <axis=1> (f, s) y = Relu (b)", "concat_2.*different"),
    ],
)
def test_what_is_refused(nodes: str, message: str) -> None:
    weights = {
        "parts": np.array([1, 4, 18, 50]),  # of 30×30
        "one": np.array(3),
        "i": np.zeros((1, 4, 1, 32), np.int64),
        "u": np.zeros((1, 4, 1, 32), np.float32),
        "flat": np.array([0, 0, -1]),
    }
    used = {name: each for name, each in weights.items() if f" {name}" in nodes.replace("(", ", ")}
    with pytest.raises(graphscale.GraphScaleError, match=message):
        analyzed(graph(CONV + nodes, INPUTS, w=(4, 3, 3, 3), **used))


def test_scattered_channels_pass() -> None:
    nodes = CONV + "y = ScatterElements <axis=1> (c, i, c)"
    analysis = analyzed(graph(nodes, w=(1, 3, 3, 3), i=np.zeros((1, 1, 32, 32), np.int64)))
    assert moves(analysis.of(value(analysis, "y"))[2])


def test_a_split_of_joined_maps_gives_them_back() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        d = Conv <pads=[1,1,1,1], strides=[2,2]> (c, v)
        a = Reshape (c, flat)
        b = Reshape (d, flat)
        j = Concat <axis=2> (a, b)
        p, q = Split <axis=2> (j, sizes)
        y = Add (q, b)
    """
    analysis = analyzed(
        graph(
            nodes,
            w=(4, 3, 3, 3),
            v=(4, 4, 3, 3),
            flat=np.array([0, 4, -1]),
            sizes=np.array([1024, 256]),
        )
    )
    assert analysis.of(value(analysis, "q")) == analysis.of(value(analysis, "b"))


def resized(rows: np.ndarray, channels: int, small: int, large: int) -> np.ndarray:
    """Rows of a fully-connected layer on channels × small × small positions, grown by Eq. 5."""
    grow = growth_matrix(small, large)
    kernel = rows.reshape(channels, small, small, -1)
    return np.einsum("hs,wt,cstn->chwn", grow, grow, kernel).reshape(channels * large**2, -1)


def test_a_fully_connected_layer_on_two_maps() -> None:
    """The rows on each map are resized by themselves."""
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        d = Conv <pads=[1,1,1,1], strides=[2,2]> (c, v)
        a = Flatten (c)
        b = Flatten (d)
        j = Concat <axis=1> (a, b)
        y = Gemm (j, u)
    """
    target = graph(nodes, w=(4, 3, 3, 3), v=(2, 4, 3, 3), u=(4 * 256 + 2 * 64, 5))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    (weight,) = [each for each in plan_in(pretrain).weights if each.name == "u"]
    assert weight.factors[0] == [
        JoinedFactor([[(4, 4), (16, 10), (16, 10)], [(2, 2), (8, 5), (8, 5)]])
    ]
    assert run(pretrain)["y"].shape == (1, 5)
    small = constant(pretrain, "u").astype(float)
    expected = np.concatenate([resized(small[:400], 4, 10, 16), resized(small[400:], 2, 5, 8)])
    grown = graphscale.grow(pretrain)
    np.testing.assert_allclose(constant(grown, "u"), expected, atol=1e-5)
    again = graphscale.shrink(grown, init="resize", input_size=20)
    np.testing.assert_allclose(constant(again, "u"), small, atol=1e-4)


def test_a_fully_connected_layer_on_a_map_and_a_vector() -> None:
    """The rows of the vector are copied."""
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        a = Flatten (c)
        j = Concat <axis=1> (a, state)
        y = Gemm <transB=1> (j, u)
    """
    inputs = "float[1,3,32,32] x, float[1,6] state"
    target = graph(nodes, inputs, w=(4, 3, 3, 3), u=(5, 4 * 256 + 6))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    assert run(pretrain)["y"].shape == (1, 5)
    small = constant(pretrain, "u").astype(float)
    large = constant(graphscale.grow(pretrain), "u")
    np.testing.assert_array_equal(large[:, -6:], small[:, -6:])
    np.testing.assert_allclose(large[:, :-6].T, resized(small[:, :-6].T, 4, 10, 16), atol=1e-5)


def test_coordinates_beside_a_map_are_a_table() -> None:
    """CoordConv with its coordinates as a constant."""
    lines = np.linspace(-1, 1, 32, dtype=np.float32)
    places = np.stack(np.meshgrid(lines, lines, indexing="ij"))[None]
    nodes = "j = Concat <axis=1> (x, places) y = Conv <pads=[1,1,1,1]> (j, w)"
    target = graph(nodes, w=(4, 5, 3, 3), places=places)
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    (table,) = [each for each in plan_in(pretrain).weights if each.kind == "centres"]
    assert table.pretrain_shape == [1, 2, 20, 20]
    # 20 lines over the same range, which stand in the middle of their pixels.
    expected = (np.arange(20) - 9.5) * 1.6 * 2 / 31
    found = constant(pretrain, "places")[0, 0, 1:-1, 5]
    np.testing.assert_allclose(found, expected[1:-1], atol=0.01)
    assert np.isfinite(run(pretrain)["y"]).all()


STEM = """
    cut = Reshape (x, blocks)
    moved = Transpose <perm=[0,3,5,1,2,4]> (cut)
    s = Reshape (moved, stacked)
"""


@pytest.mark.parametrize("batch", ["1", "N"])
def test_a_stem_of_reshapes_equals_space_to_depth(batch: str) -> None:
    """The pre-train network of each form computes the same as that of the other."""
    tail = "c = Conv <pads=[1,1,1,1]> (s, w) p = GlobalAveragePool (c) y = Flatten (p)"
    inputs = f"float[{batch},3,64,64] x"
    numbers = {"blocks": np.array([-1, 3, 16, 4, 16, 4]), "stacked": np.array([-1, 48, 16, 16])}
    w = np.random.default_rng(3).standard_normal((5, 48, 3, 3)).astype(np.float32)
    forms = [
        graphscale.shrink(graph(nodes + tail, inputs, w=w, **constants), input_size=44)
        for nodes, constants in (
            (STEM, numbers),
            ("s = SpaceToDepth <blocksize=4> (x)", {}),
        )
    ]
    x = np.random.default_rng(4).standard_normal((1, 3, 44, 44)).astype(np.float32)
    first, second = (run(form, x=x)["y"] for form in forms)
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
    assert constant(forms[0], "blocks").tolist() == [-1, 3, 11, 4, 11, 4]
    grown = graphscale.grow(forms[0])
    assert constant(grown, "blocks").tolist() == numbers["blocks"].tolist()


def windowed(x: np.ndarray, side: int) -> np.ndarray:
    """Each window's mean subtracted from its pixels; x is [1, C, H, W]."""
    result = x.copy()
    for top in range(0, x.shape[2], side):
        for left in range(0, x.shape[3], side):
            window = result[:, :, top : top + side, left : left + side]
            window -= window.mean((2, 3), keepdims=True)
    return result


def dilated(x: np.ndarray, side: int) -> np.ndarray:
    """The same, where the pixels of a window are spread over the whole map."""
    result = x.copy()
    steps = x.shape[2] // side, x.shape[3] // side
    for top in range(steps[0]):
        for left in range(steps[1]):
            window = result[:, :, top :: steps[0], left :: steps[1]]
            window -= window.mean((2, 3), keepdims=True)
    return result


def test_windows_keep_their_size_and_are_put_together_again() -> None:
    """The windows of 4×4 of a map of 32×32 pixels, first in blocks and then in a grid."""
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        a = Reshape (c, blocks)
        b = Transpose <perm=[0,2,4,1,3,5]> (a)
        tokens = Reshape (b, windows)
        mean = ReduceMean <keepdims=1> (tokens, last)
        centred = Sub (tokens, mean)
        d = Reshape (centred, parts)
        e = Transpose <perm=[0,3,1,4,2,5]> (d)
        f = Reshape (e, map)
        g = Add (f, c)
        h = Reshape (g, grid)
        i = Transpose <perm=[0,3,5,1,2,4]> (h)
        spread = Reshape (i, windows)
        average = ReduceMean <keepdims=1> (spread, last)
        left = Sub (spread, average)
        k = Reshape (left, parts)
        l = Transpose <perm=[0,3,4,1,5,2]> (k)
        y = Reshape (l, map)
    """
    target = graph(
        nodes,
        w=(2, 3, 3, 3),
        blocks=np.array([1, 2, 8, 4, 8, 4]),
        windows=np.array([64, 2, 16]),
        last=np.array([2]),
        parts=np.array([1, 8, 8, 2, 4, 4]),
        map=np.array([1, 2, 32, 32]),
        grid=np.array([1, 2, 4, 8, 4, 8]),
    )
    pretrain = graphscale.shrink(target, input_size=20)
    assert constant(pretrain, "blocks").tolist() == [1, 2, 5, 4, 5, 4]
    assert constant(pretrain, "grid").tolist() == [1, 2, 4, 5, 4, 5]
    for model in (target, pretrain):
        inner = onnx.ModelProto.FromString(model.SerializeToString())
        inner.graph.output.add(name="c")
        outputs = run(inner)
        first = windowed(outputs["c"], 4) + outputs["c"]
        np.testing.assert_allclose(outputs["y"], dilated(first, 4), rtol=1e-4, atol=1e-4)


def test_joined_maps_are_split_at_their_new_places() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        d = MaxPool <kernel_shape=[2,2], strides=[2,2]> (c)
        p = Reshape (c, flat)
        q = Reshape (d, flat)
        e = Concat <axis=2> (p, q, p)
        a, y = Split <axis=2> (e, sizes)
    """
    sizes = {"flat": np.array([1, 2, -1]), "sizes": np.array([1280, 1024])}
    target = graph(nodes, w=(2, 3, 3, 3), **sizes)
    pretrain = graphscale.shrink(target, input_size=20)
    pretrain.graph.output.add(name="p")
    outputs = run(pretrain)
    np.testing.assert_array_equal(outputs["y"], outputs["p"])
    assert constant(pretrain, "sizes").tolist() == [500, 400]


def test_coordinates_of_a_maps_own_shape_are_joined_to_it() -> None:
    nodes = """
        s = Shape (x)
        height = Gather (s, two)
        rows = Range (zero, height, one)
        numbers = Cast <to=1> (rows)
        column = Reshape (numbers, upright)
        sizes = Slice (s, from, to)
        shape = Concat <axis=0> (batch, single, sizes)
        grid = Expand (column, shape)
        both = Concat <axis=1> (x, grid)
        y = Conv <pads=[2,2,2,2]> (both, w)
    """
    numbers = {"two": 2, "zero": 0, "one": 1, "upright": [1, 1, -1, 1], "from": [2], "to": [4]}
    numbers |= {"batch": [1], "single": [1]}
    target = graph(nodes, w=(2, 4, 5, 5), **{k: np.array(v) for k, v in numbers.items()})
    pretrain = graphscale.shrink(target, input_size=20)
    pretrain.graph.output.add(name="both")
    found = run(pretrain)["both"]
    expected = np.broadcast_to(np.arange(20.0)[:, None], (20, 20))
    np.testing.assert_array_equal(found[0, 3], expected)
