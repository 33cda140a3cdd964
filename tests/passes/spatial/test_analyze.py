"""Sizes are followed or refused by the node's name, and images are told from other inputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphscale
from graphscale.passes.spatial.dimensions import moves
from tests.passes.small_graphs import analyzed, graph, node, pretrain_shape, run, solved, value


def moving(analysis, name: str) -> list[bool]:
    return [moves(dim) for dim in analysis.of(value(analysis, name))]


def test_sizes_from_the_input_to_a_classifier() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        r = Relu (c)
        p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r)
        f = Flatten (p)
        y = Gemm <transB=1> (f, v)
    """
    analysis = analyzed(graph(nodes, w=(8, 3, 3, 3), v=(5, 512)))
    assert moving(analysis, "r") == [False, False, True, True]
    height, width = (analysis.of(value(analysis, "c"))[d][0].spatial_size for d in (2, 3))
    assert (height.axis, height.target, width.axis, width.target) == (0, 16, 1, 16)
    assert analysis.of(value(analysis, "r"))[2][0].spatial_size is height
    assert [factor.size for factor in analysis.of(value(analysis, "f"))[1]] == [8, 8, 8]
    (interface,) = analysis.weights
    assert interface.summed
    assert interface.node is node(analysis, "Gemm")
    assert analysis.interfaces <= analysis.anchored
    assert len(analysis.mappings[node(analysis, "Conv")]) == 2
    geometry = solved(analysis, 20)
    assert pretrain_shape(analysis, geometry, "f") == [1, 8 * 5 * 5]


def test_joined_maps_are_one_size() -> None:
    nodes = """
        a = Conv <pads=[1,1,1,1]> (x, w)
        b = Conv <pads=[2,2,2,2]> (x, v)
        y = Add (a, b)
    """
    analysis = analyzed(graph(nodes, w=(8, 3, 3, 3), v=(8, 3, 5, 5)))
    (a,), (b,), (y,) = (analysis.of(value(analysis, name))[2] for name in "aby")
    assert a.spatial_size is b.spatial_size is y.spatial_size
    assert len(analysis.producers[a.spatial_size]) == 2
    assert a.spatial_size in analysis.anchored  # it is an output


@pytest.mark.parametrize(
    ("nodes", "operator"),
    [
        ("c = Conv <pads=[1,1,1,1]> (x, w) y = Det (c)", "Det"),
        ("c = Conv <pads=[1,1,1,1]> (x, w) y = ReverseSequence (c, j)", "ReverseSequence"),
        ("c = Conv <pads=[1,1,1,1]> (x, w) y = CenterCropPad <axes=[1]> (c, j)", "CenterCropPad"),
    ],
)
def test_an_operator_without_a_rule_is_refused_by_name(nodes: str, operator: str) -> None:
    """An operator without a rule is refused even where its output has its input's shape."""
    model = graph(nodes, w=(8, 3, 3, 3), j=np.array([8]))
    message = (
        rf"node '{operator.lower()}_1': the operator {operator} has no rule for heights and "
        r"widths; cut the model before it, replace the node, or add a rule \(CONTRIBUTING.md\)"
    )
    with pytest.raises(graphscale.GraphScaleError, match=message):
        analyzed(model)


def test_an_operator_without_a_rule_passes_where_nothing_moves() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        g = GlobalAveragePool (c)
        f = Flatten (g)
        y = GatherElements <axis=1> (f, i)
    """
    analysis = analyzed(graph(nodes, w=(8, 3, 3, 3), i=np.array([[1, 0]])))
    assert moving(analysis, "y") == [False, False]


def test_a_branch_that_reads_a_map_is_refused() -> None:
    """An If has the condition as its only input; its branches read the map all the same."""
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        y = If (flag) <
            then_branch = one () => (float[1,8,32,32] a) { a = Relu (c) },
            else_branch = two () => (float[1,8,32,32] b) { b = Neg (c) }
        >
    """
    with pytest.raises(graphscale.GraphScaleError, match=r"'if_1': the operator If has no rule"):
        analyzed(graph(nodes, "float[1,3,32,32] x, bool flag", w=(8, 3, 3, 3)))


RECURRENT = """
    c = Conv <pads=[1,1,1,1], strides=[2,1]> (x, k)
    t = Transpose <perm=[3,0,1,2]> (c)
    s = Reshape (t, shape)
    y, h, e = LSTM <hidden_size=6> (s, w, r, , , h0, c0)
"""


def recurrent() -> onnx.ModelProto:
    """Columns of a map are the steps of an LSTM whose first state is an input, too."""
    return graph(
        RECURRENT,
        "float[1,1,16,32] x, float[1,1,6] h0, float[1,1,6] c0",
        "y",
        k=(4, 1, 3, 3),
        shape=np.array([0, 0, -1]),
        w=(1, 24, 32),
        r=(1, 24, 6),
    )


def test_only_what_a_convolution_reads_is_an_image() -> None:
    analysis = analyzed(recurrent())
    assert moving(analysis, "x") == [False, False, True, True]
    assert moving(analysis, "h0") == [False, False, False]
    assert moving(analysis, "y") == [True, False, False, False]
    pretrain = graphscale.shrink(recurrent(), init="resize")
    shapes = {entry.name: entry for entry in pretrain.graph.input}
    state = [dim.dim_value for dim in shapes["h0"].type.tensor_type.shape.dim]
    assert state == [1, 1, 6]
    assert np.isfinite(run(pretrain)["y"]).all()


def test_a_mask_that_meets_a_map_is_an_image() -> None:
    """No convolution reads the mask, but it is multiplied with a map."""
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        y = Mul (c, mask)
    """
    analysis = analyzed(graph(nodes, "float[1,3,32,32] x, float[1,1,32,32] mask", w=(8, 3, 3, 3)))
    assert moving(analysis, "mask") == [False, False, True, True]


def test_a_state_spread_from_one_pixel_keeps_its_size() -> None:
    """Expand makes a state of 6 features from one number: that is no map."""
    nodes = RECURRENT.replace(", , , h0, c0", ", , , h0, c0")
    nodes = "h0 = Expand (z, n) c0 = Expand (z, n)" + nodes
    model = graph(
        nodes,
        "float[1,1,16,32] x, float[1,1,1] z",
        "y",
        k=(4, 1, 3, 3),
        shape=np.array([0, 0, -1]),
        n=np.array([1, 1, 6]),
        w=(1, 24, 32),
        r=(1, 24, 6),
    )
    assert moving(analyzed(model), "h0") == [False, False, False]
    assert np.isfinite(run(graphscale.shrink(model, init="resize"))["y"]).all()


@pytest.mark.parametrize(
    ("shape", "nodes", "expected"),
    [
        # Channels last, behind arithmetic and a border.
        (
            "1,32,32,3",
            "a = Sub (x, m) p = Pad (a, border) t = Transpose <perm=[0,3,1,2]> (p) y = Conv (t, w)",
            [1, 20, 20, 3],
        ),
        # Frames before the channels.
        (
            "1,4,3,32,32",
            "f = Gather <axis=1> (x, two) y = Conv <pads=[1,1,1,1]> (f, w)",
            [1, 4, 3, 20, 20],
        ),
        (
            "1,4,3,32,32",
            "f = Reshape (x, frames) y = Conv <pads=[1,1,1,1]> (f, w)",
            [1, 4, 3, 20, 20],
        ),
    ],
)
def test_what_a_convolution_sums_over_is_no_height(shape: str, nodes: str, expected: list) -> None:
    numbers = {
        "m": np.float32(0.5),
        "border": np.array([0, 1, 1, 0, 0, 1, 1, 0]),
        "two": np.array(2),
        "frames": np.array([-1, 3, 32, 32]),
    }
    used = {name: number for name, number in numbers.items() if name in nodes.split("y =")[0]}
    target = graph(nodes, f"float[{shape}] x", w=(4, 3, 5, 5), **used)
    pretrain = graphscale.shrink(target, input_size=20)
    dims = pretrain.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == expected
    assert run(pretrain)["y"].shape[1] == 4


def test_pixels_are_no_channels() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        p = Reshape (c, flat)
        t = Transpose <perm=[0,2,1]> (p)
        y = Conv (t, mix)
    """
    target = graph(nodes, w=(2, 3, 3, 3), mix=(1024, 1024, 1), flat=np.array([1, 2, -1]))
    with pytest.raises(graphscale.GraphScaleError, match="reads heights or widths as its channels"):
        analyzed(target)
