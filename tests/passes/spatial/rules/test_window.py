"""Windows: sizes, grids, what options cost, and what is written into convolutions and pools."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch.nn import functional

import graphscale
from graphscale.core.plan import Grid
from graphscale.passes.spatial.mapping import Change
from graphscale.passes.spatial.rules.window import Window
from tests.passes.small_graphs import (
    analyzed,
    attribute,
    constant,
    graph,
    node,
    plan_in,
    pretrain_shape,
    run,
    solved,
)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pads", [(0, 0), (1, 1), (0, 2)])
def test_output_is_torchs(kernel: int, stride: int, pads: tuple[int, int]) -> None:
    x = functional.pad(torch.zeros(1, 1, 11), pads)
    expected = functional.conv1d(x, torch.zeros(1, 1, kernel), stride=stride).shape[2]
    assert Window(kernel, stride, 1, *pads).output(11) == expected


def test_a_dilated_kernel_spans_its_holes() -> None:
    assert Window(3, 1, 4, 0, 0).span == 9
    assert Window(3, 1, 4, 4, 4).output(20) == 20


def test_a_window_that_would_start_in_the_padding_is_left_out() -> None:
    """5 pixels in windows of 2 with stride 2 and one pixel of padding: at -1, 1 and 3, not at 5."""
    assert Window(2, 2, 1, 1, 1, ceil_mode=True).output(5) == 3
    found = functional.max_pool1d(torch.zeros(1, 1, 5), 2, 2, 1, ceil_mode=True)
    assert found.shape[2] == 3


def test_grid() -> None:
    """The first window of 7 taps is centred on pixel 0, the first of 2 between two pixels."""
    grid = Grid(0.0, 1.0, 224)
    assert Window(7, 2, 1, 3, 3).grid(grid, 112) == Grid(0.0, 2.0, 112)
    assert Window(2, 2, 1, 0, 0).grid(Grid(0.0, 2.0, 112), 56) == Grid(1.0, 4.0, 56)


def test_options_of_a_kernel_of_two_taps() -> None:
    """Padding 0 loses a pixel, padding 1 gains one; to keep the size one side must be padded."""
    target = Change(Window(3, 1, 1, 1, 1), 32, 32)
    options = Window(2, 1, 1, 1, 1).options(target, 20, frozenset({19, 20, 21}))
    cheapest: dict[int, tuple] = {}
    for option in sorted(options, key=lambda option: -option.cost):
        cheapest[option.size] = option.parameters.begin, option.parameters.end, option.cost
    # Half of the target's padding is due: each side that is half a pixel off costs 0.15.
    assert cheapest[19][:2] == (0, 0)
    assert cheapest[21][:2] == (1, 1)
    assert cheapest[19][2] == cheapest[21][2] == pytest.approx(0.3)
    assert cheapest[20][2] == pytest.approx(0.3 + 1.0)


def test_a_stride_beyond_every_map_takes_no_time() -> None:
    target = Change(Window(5, 2**62, 1, 2, 2), 64, 1)
    options = list(Window(3, 2**62, 1, 2, 2).options(target, 46, frozenset({1})))
    cheapest = min(options, key=lambda option: option.cost)
    assert (cheapest.parameters.begin, cheapest.parameters.end) == (1, 1)
    assert Window(3, 2**62, 1, 1, 1).output(46) == 1


def test_a_dilated_convolution_keeps_the_ratio_of_what_it_spans() -> None:
    nodes = "y = Conv <pads=[4,4,4,4], dilations=[4,4]> (x, w)"
    pretrain = graphscale.shrink(graph(nodes, w=(2, 3, 3, 3)), init="resize")
    # It spans 9 pixels, which become 7: 2 taps 6 apart.
    assert constant(pretrain, "w").shape == (2, 3, 2, 2)
    assert attribute(pretrain, "Conv", "dilations") == [6, 6]


def test_auto_pad_is_written_out() -> None:
    nodes = 'y = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w)'
    pretrain = graphscale.shrink(graph(nodes, w=(2, 3, 3, 3)), init="resize", input_size=20)
    assert attribute(pretrain, "Conv", "auto_pad") == b"NOTSET"
    assert attribute(pretrain, "Conv", "pads") in (None, [0, 0, 0, 0])
    assert run(pretrain)["y"].shape == (1, 2, 10, 10)


def test_a_covering_convolution_is_an_interface() -> None:
    nodes = """
        p = MaxPool <kernel_shape=[4,4], strides=[4,4]> (x)
        y = Conv (p, w)
    """
    target = graph(nodes, w=(5, 3, 8, 8))
    analysis = analyzed(target)
    assert set(analysis.covering[node(analysis, "Conv")]) == {2, 3}
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    (weight,) = plan_in(pretrain).weights
    assert (weight.kind, weight.pretrain_shape) == ("interface", [5, 3, 5, 5])
    assert run(pretrain)["y"].shape == (1, 5, 1, 1)


def test_a_covering_pool_covers_the_smaller_map() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        y = AveragePool <kernel_shape=[16,16]> (c)
    """
    pretrain = graphscale.shrink(graph(nodes, w=(5, 3, 3, 3)), init="resize", input_size=20)
    assert attribute(pretrain, "AveragePool", "kernel_shape") == [10, 10]


def test_negative_padding_is_a_pad_node() -> None:
    """A 1×1 kernel with stride 1 on 32 pixels that must fit another map of 30."""
    nodes = """
        a = Conv (x, w)
        b = Conv <pads=[1,1,1,1]> (a, v)
        s = Slice (x, start, end, axes)
        y = Concat <axis=1> (b, s)
    """
    ints = {"start": np.array([1, 1]), "end": np.array([31, 31]), "axes": np.array([2, 3])}
    target = graph(nodes, w=(4, 3, 3, 3), v=(4, 4, 3, 3), **ints)
    pretrain = graphscale.shrink(target, init="resize")
    onnx.checker.check_model(pretrain, full_check=True)
    assert run(pretrain)["y"].shape[1] == 7


# --- three spatial axes ---------------------------------------------------------------------------

VOLUME = "float[1,2,12,20,20] x"


def check_volume(nodes: str, **weights: object) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Shrink, run and grow a network on volumes; what nothing shrinks computes the same."""
    target = graph(nodes, VOLUME, **weights)
    pretrain = graphscale.shrink(target, init="resize", input_size=(8, 14, 14))
    onnx.checker.check_model(pretrain, full_check=True)
    assert np.isfinite(run(pretrain)["y"]).all()
    grown = graphscale.grow(pretrain)
    assert grown.graph.node == target.graph.node
    assert run(grown)["y"].shape == run(target)["y"].shape
    again = graphscale.shrink(grown, init="resize", input_size=(8, 14, 14))
    same = graphscale.shrink(target, init="resize", input_size=(12, 20, 20), keep=["*"])
    for found, expected in ((again, pretrain), (same, target)):
        expected = run(expected)["y"]
        allowed = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(run(found)["y"], expected, rtol=0, atol=allowed)
    return pretrain, grown


def test_depth_is_an_axis_like_the_others() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1,1,1], strides=[1,2,2]> (x, w)
        y = Conv <pads=[1,1,1,1,1,1]> (c, v)
    """
    pretrain, grown = check_volume(nodes, w=(4, 2, 3, 3, 3), v=(4, 4, 3, 3, 3))
    small, large = (constant(model, "w").astype(float) for model in (pretrain, grown))
    assert small.shape == (4, 2, 2, 2, 2)
    expected = functional.interpolate(
        torch.from_numpy(small), (3, 3, 3), mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(large, expected.numpy() * (2 / 3) ** 3, atol=1e-6)
    assert run(pretrain)["y"].shape == (1, 4, 8, 7, 7)


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool", "LpPool"])
def test_pools_of_volumes(pool: str) -> None:
    nodes = f"""
        c = Conv <pads=[1,1,1,1,1,1]> (x, w)
        p = {pool} <kernel_shape=[2,2,2], strides=[2,2,2]> (c)
        f = Flatten (p)
        y = Gemm <transB=1> (f, v)
    """
    pretrain, _ = check_volume(nodes, w=(3, 2, 3, 3, 3), v=(5, 3 * 6 * 10 * 10))
    (interface,) = [each for each in plan_in(pretrain).weights if each.kind == "interface"]
    assert interface.factors[1] == [(3, 3), (6, 4), (10, 7), (10, 7)]


def test_global_pool_of_volumes() -> None:
    nodes = """
        c = Conv <pads=[2,2,2,2,2,2]> (x, w)
        y = GlobalAveragePool (c)
    """
    pretrain, _ = check_volume(nodes, w=(3, 2, 5, 5, 5))
    assert constant(pretrain, "w").shape == (3, 2, 3, 3, 3)


def test_up_and_down_again_in_volumes() -> None:
    """A U-Net of one level: a strided convolution, a transposed one and a Resize, joined."""
    nodes = """
        a = Conv <pads=[1,1,1,1,1,1]> (x, w)
        d = Conv <pads=[1,1,1,1,1,1], strides=[2,2,2]> (a, v)
        t = ConvTranspose <strides=[2,2,2]> (d, u)
        r = Resize <mode="linear"> (d, , scales)
        y = Concat <axis=1> (a, t, r)
    """
    scales = np.array([1, 1, 2, 2, 2], np.float32)
    weights = {"w": (3, 2, 3, 3, 3), "v": (3, 3, 3, 3, 3), "u": (3, 2, 2, 2, 2)}
    pretrain, _ = check_volume(nodes, scales=scales, **weights)
    assert run(pretrain)["y"].shape == (1, 8, 8, 14, 14)


def test_the_stride_of_depth_decides_the_depth() -> None:
    analysis = analyzed(graph("y = Conv <strides=[2,1,1]> (x, w)", VOLUME, w=(3, 2, 2, 1, 1)))
    geometry = solved(analysis, 8)
    assert pretrain_shape(analysis, geometry, "y") == [1, 3, 4, 8, 8]


def test_flattened_pixels_are_pooled_by_as_many() -> None:
    """Keys and values from the means of 16 pixels each, as in Next-ViT."""
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        p = Reshape (c, flat)
        k = AveragePool <kernel_shape=[16], strides=[16]> (p)
        q = Transpose <perm=[0,2,1]> (p)
        s = MatMul (q, k)
        a = Softmax <axis=-1> (s)
        v = Transpose <perm=[0,2,1]> (k)
        y = MatMul (a, v)
    """
    target = graph(nodes, w=(2, 3, 3, 3), flat=np.array([1, 2, -1]))
    pretrain = graphscale.shrink(target, input_size=21)
    pretrain.graph.output.add(name="p")
    outputs = run(pretrain)
    pixels = torch.from_numpy(outputs["p"]).double()
    means = functional.avg_pool1d(pixels, 16)
    assert means.shape[2] == 21 * 21 // 16
    expected = functional.scaled_dot_product_attention(
        pixels.mT, means.mT, means.mT, scale=1.0
    ).numpy()
    np.testing.assert_allclose(outputs["y"], expected, rtol=1e-4, atol=1e-5)
    assert graphscale.grow(pretrain).graph.node == target.graph.node


def test_a_deformable_convolution_keeps_its_kernel() -> None:
    nodes = """
        c = Conv <pads=[2,2,2,2]> (x, w)
        o = Conv <pads=[1,1,1,1], strides=[2,2]> (c, u)
        y = DeformConv <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (c, v, o)
    """
    target = graph(nodes, w=(4, 3, 5, 5), u=np.zeros((18, 4, 3, 3), np.float32), v=(2, 4, 3, 3))
    pretrain = graphscale.shrink(target, input_size=20)
    kept = {each.name: each.left_unscaled for each in plan_in(pretrain).layers}
    assert kept["deformconv_2"] == "each of its taps has channels of the offsets"
    assert [constant(pretrain, name).shape[2] for name in "wuv"] == [3, 2, 3]
    inner = onnx.ModelProto.FromString(pretrain.SerializeToString())
    inner.graph.output.add(name="c")
    # Without offsets it is a convolution.
    x = np.random.default_rng(0).standard_normal((1, 3, 20, 20)).astype(np.float32)
    y, c = ReferenceEvaluator(inner).run(None, {"x": x})
    pads = attribute(pretrain, "DeformConv", "pads")
    padded = functional.pad(torch.from_numpy(c), (pads[1], pads[3], pads[0], pads[2]))
    expected = functional.conv2d(padded, torch.tensor(constant(pretrain, "v")), stride=2)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-4, atol=1e-4)
    grown = graphscale.grow(pretrain)
    assert grown.graph.node == target.graph.node
    np.testing.assert_array_equal(constant(grown, "v"), constant(pretrain, "v"))


def test_a_kernel_that_is_a_map_is_refused() -> None:
    """The template of a tracking network is correlated with the image."""
    inputs = "float[1,3,32,32] x, float[1,3,16,16] z"
    target = graph("a = Conv (x, w)  k = Conv (z, w)  y = Conv (a, k)", inputs, w=(4, 3, 5, 5))
    with pytest.raises(graphscale.GraphScaleError, match=r"conv_2.*takes its kernel from a map"):
        graphscale.shrink(target)
