"""GridSample and RoiAlign against onnxruntime, DeformConv against ONNX's reference."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import graphscale

from .compare import assert_matches, random, run_torch


def model_of(node: onnx.NodeProto, weights: dict, opset: int, **inputs: tuple) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "test",
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name == "batch" else TensorProto.FLOAT, shape
            )
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize(
    ("opset", "mode"),
    [(16, "bilinear"), (16, "nearest"), (16, "bicubic"), (20, "linear"), (20, "cubic")],
)
def test_grid_sample(opset, mode, align_corners, padding_mode):
    options = {"mode": mode, "align_corners": align_corners, "padding_mode": padding_mode}
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], **options)
    model = model_of(node, {}, opset, x=("N", 3, 6, 7), grid=("N", 4, 5, 2))
    assert_matches(model, random(2, 3, 6, 7), 0.8 * random(2, 4, 5, 2))


def test_grid_sample_in_three_axes():
    node = helper.make_node("GridSample", ["x", "grid"], ["y"])
    model = model_of(node, {}, 20, x=("N", 3, 4, 5, 6), grid=("N", 2, 3, 4, 3))
    assert_matches(model, random(2, 3, 4, 5, 6), 0.8 * random(2, 2, 3, 4, 3))


@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
def test_roi_align(samples, transform):
    boxes = np.float32([[1, 2, 9, 7], [0, 0, 31, 19], [5.5, 3.25, 6, 3.5], [-9, -7, 60, 40]])
    options = {"output_height": 3, "output_width": 4, "spatial_scale": 0.5}
    node = helper.make_node(
        "RoiAlign",
        ["x", "boxes", "batch"],
        ["y"],
        sampling_ratio=samples,
        coordinate_transformation_mode=transform,
        **options,
    )
    shapes = {"x": (2, 3, 10, 16), "boxes": (4, 4), "batch": (4,)}
    model = model_of(node, {}, 16, **shapes)
    assert_matches(model, random(2, 3, 10, 16), boxes, np.array([0, 1, 1, 0]))


def test_gradients_of_roi_align():
    boxes = np.float32([[1, 2, 9, 7], [0, 0, 31, 19]])
    node = helper.make_node(
        "RoiAlign", ["x", "boxes", "batch"], ["y"], output_height=2, output_width=2
    )
    model = model_of(node, {}, 16, x=(1, 3, 10, 16), boxes=(2, 4), batch=(2,))
    network = graphscale.load(model, dtype=torch.float64)
    x = torch.from_numpy(random(1, 3, 10, 16)).double().requires_grad_()
    fixed = (torch.from_numpy(boxes).double(), torch.zeros(2, dtype=torch.int64))
    torch.autograd.gradcheck(lambda each: network(each, *fixed), x)


@pytest.mark.parametrize(
    ("options", "groups", "masked", "bias"),
    [
        ({}, (1, 1), False, False),
        ({"pads": [1, 1, 1, 1], "strides": [2, 1]}, (2, 1), True, True),
        ({"pads": [2, 1, 2, 1], "dilations": [2, 1]}, (1, 2), True, False),
    ],
)
def test_deform_conv(options, groups, masked, bias):
    """Against ONNX's reference implementation, because some onnxruntimes have no kernel of it."""
    group, parts = groups
    weights = {"w": random(6, 4 // group, 3, 2)} | ({"b": random(6)} if bias else {})
    pads, strides = options.get("pads", [0] * 4), options.get("strides", [1, 1])
    dilations = options.get("dilations", [1, 1])
    size = [
        (n + pads[i] + pads[i + 2] - (k - 1) * dilations[i] - 1) // strides[i] + 1
        for i, (n, k) in enumerate(zip((7, 8), (3, 2)))
    ]
    given = {"offset": random(2, parts * 12, *size)}
    if masked:
        given["mask"] = np.abs(random(2, parts * 6, *size))
    inputs = ["x", "w", "offset", "b" if bias else "", "mask" if masked else ""]
    node = helper.make_node("DeformConv", inputs, ["y"], group=group, offset_group=parts, **options)
    shapes = {name: ("N", *array.shape[1:]) for name, array in given.items()}
    model = model_of(node, weights, 19, x=("N", 4, 7, 8), **shapes)
    x = random(2, 4, 7, 8)
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x, **given})
    (actual,) = run_torch(graphscale.load(model), x, *given.values())
    np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-4)
    assert set(dict(graphscale.load(model).named_parameters())) == set(weights)
