"""Heights and widths of inputs are told by the convolutions that read them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

import graphscale
from graphscale.passes.spatial.image_positions import spatial_positions
from tests.passes.small_graphs import graph, run

NUMBERS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "last": np.array([-1]),
    "image": np.array([-1, 1, 32, 24]),
    "flat": np.array([-1, 768]),
    "mean": np.float32(0.5),
}


@pytest.mark.parametrize(
    ("shape", "nodes", "expected"),
    [
        ("1,3,32,24", "y = Conv (x, w)", (2, 3)),
        ("1,32,24,3", "t = Transpose <perm=[0,3,1,2]> (x) y = Conv (t, w)", (1, 2)),
        # Channels last is what a Transpose says, even where no convolution is near.
        ("1,32,24,3", "t = Transpose <perm=[0,3,1,2]> (x) y = Reshape (t, flat)", (1, 2)),
        # There and back again.
        (
            "1,3,32,24",
            "a = Transpose <perm=[0,2,3,1]> (x) b = Sub (a, mean) "
            "t = Transpose <perm=[0,3,1,2]> (b) y = Conv (t, w)",
            (2, 3),
        ),
        # A spectrogram without channels, one image without a batch, a signal without channels.
        ("1,32,24", "u = Unsqueeze (x, one) y = Conv (u, w)", (1, 2)),
        (
            "1,32,24",
            "u = Unsqueeze (x, last) t = Transpose <perm=[0,3,1,2]> (u) y = Conv (t, w)",
            (1, 2),
        ),
        ("3,32,24", "u = Unsqueeze (x, zero) y = Conv (u, w)", (1, 2)),
        (
            "32,24,3",
            "t = Transpose <perm=[2,0,1]> (x) u = Unsqueeze (t, zero) y = Conv (u, w)",
            (0, 1),
        ),
        ("1,32", "a = Mul (x, mean) u = Unsqueeze (a, one) y = Conv (u, v)", (1,)),
        # A single channel at the end is moved by a Reshape.
        ("1,32,24,1", "r = Reshape (x, image) y = Conv (r, w)", (1, 2)),
        ("1,32,24", "r = Reshape (x, image) y = Conv (r, w)", (1, 2)),
        # Nobody tells, or two readers differ.
        ("1,3,32,24", "y = Reshape (x, flat)", (2, 3)),
        (
            "1,32,24,32",
            "t = Transpose <perm=[0,3,1,2]> (x) y = Conv (t, w) z = Conv (x, w)",
            (2, 3),
        ),
    ],
)
def test_positions(shape: str, nodes: str, expected: tuple[int, ...]) -> None:
    used = {name: number for name, number in NUMBERS.items() if f" {name})" in nodes}
    channels = 32 if "32,24,32" in shape else 3 if "3" in shape.split(",") else 1
    weights = {"w": (2, channels, 3, 3), "v": (2, 1, 3)}
    used |= {name: size for name, size in weights.items() if f" {name})" in nodes}
    model = ir.from_proto(graph(nodes, f"float[{shape}] x", "y", **used))
    (x,) = (value for value in model.graph.inputs if value.name == "x")
    assert spatial_positions(x, len(x.shape)) == expected


def test_a_spectrogram_without_channels_shrinks_as_one_with_a_channel() -> None:
    conv = "y = Conv <pads=[1,1,1,1]> (u, w)"
    bare = graph(
        f"u = Unsqueeze (x, one) {conv}", "float[1,60,40] x", w=(2, 1, 3, 3), one=np.array([1])
    )
    usual = graph(f"u = Identity (x) {conv}", "float[1,1,60,40] x", w=(2, 1, 3, 3))
    first, second = (graphscale.shrink(each, init="resize") for each in (bare, usual))
    sizes = [
        [
            dim.dim_value
            for dim in each.graph.input[0].type.tensor_type.shape.dim
            if dim.dim_value > 1
        ]
        for each in (first, second)
    ]
    assert sizes[0] == sizes[1] != [60, 40]
    kernels = [
        {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}["w"]
        for model in (first, second)
    ]
    np.testing.assert_array_equal(*kernels)


def test_one_image_of_open_size_without_a_batch() -> None:
    """Its height stands first, where other inputs have the batch."""
    nodes = "t = Transpose <perm=[2,0,1]> (x) u = Unsqueeze (t, zero) y = Conv (u, w)"
    target = graph(nodes, "float[h,w,3] x", w=(2, 3, 5, 5), zero=np.array([0]))
    pretrain = graphscale.shrink(target, input_size="40x60", init="resize")
    assert graphscale.Plan.of(pretrain).image_size == (24, 36)
    image = np.random.default_rng(0).standard_normal((40, 60, 3)).astype(np.float32)
    network = graphscale.load(target, input_size=(40, 60))
    expected = run(target, x=image)["y"]
    np.testing.assert_allclose(network(torch.from_numpy(image)).detach(), expected, atol=1e-5)


def test_a_long_chain_of_nodes_is_no_fault() -> None:
    steps = [f"v{at + 1} = Abs (v{at})" for at in range(2000)]
    nodes = f"v0 = Abs (x) {' '.join(steps)} y = Conv (v2000, w)"
    (x,) = (v for v in ir.from_proto(graph(nodes, w=(2, 3, 3, 3))).graph.inputs if v.name == "x")
    assert spatial_positions(x, 4) == (2, 3)
