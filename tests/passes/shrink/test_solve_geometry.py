"""The geometry of the paper's networks, and of graphs where little choice is left."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import graphscale
from tests.passes.test_random_networks import run
from tests.zoo import export
from tests.zoo.handmade import Graph


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def asymmetric(model: onnx.ModelProto) -> list[str]:
    """Windows that pad one side more than the other, and Pad nodes."""
    found = []
    for node in model.graph.node:
        pads = attributes(node).get("pads", [])
        half = len(pads) // 2
        if node.op_type == "Pad" or list(pads[:half]) != list(pads[half:]):
            found.append(node.name)
    return found


@pytest.fixture(scope="module")
def overfeat() -> onnx.ModelProto:
    with torch.device("cpu"):
        return export("overfeat_fast", "torchscript", width=1.0)


def test_overfeat_as_in_the_paper(overfeat: onnx.ModelProto) -> None:
    plan = graphscale.plan(overfeat)
    assert plan.inputs[0].target[2:] == [231, 231]
    assert plan.inputs[0].pretrain[2:] == [147, 147]
    convolutions = [layer for layer in plan.layers if layer.op == "Conv"]
    kernels = [(layer.target_kernel[0], layer.pretrain_kernel[0]) for layer in convolutions]
    assert kernels == [(11, 7), (5, 3), (3, 2), (3, 2), (3, 2)]
    assert [layer.target_size[0] for layer in convolutions] == [56, 24, 12, 12, 12]
    assert [layer.pretrain_size[0] for layer in convolutions][:2] == [36, 16]
    sizes = {
        int(grid.target.size): int(grid.pretrain.size)
        for name, grids in plan.grids.items()
        for grid in grids
        if "MaxPool" in name
    }
    assert sizes == {28: 18, 12: 8, 6: 4}
    (interface,) = [weight for weight in plan.weights if weight.kind == "interface"]
    assert interface.factors[1][1:] == [(6, 4), (6, 4)]
    counted = plan.multiplications(["Conv"])
    assert counted["target"] == pytest.approx(2.671e9, rel=2e-4)
    # The paper pads more, so that its maps of 12 become 8, 9 and 10: 4.0 for the convolutions.
    assert 4.0 <= counted["ratio"] <= 4.8


def test_resnet_34_as_in_the_paper() -> None:
    plan = graphscale.plan(export("resnet34", "torchscript", width=1.0))
    assert plan.inputs[0].pretrain[2:] == [160, 160]
    joined = {
        grid.target.size: grid.pretrain.size
        for name, grids in plan.grids.items()
        for grid in grids
        if "Add" in name
    }
    first = plan.layers[0]
    assert (first.target_size, first.pretrain_size) == ([112, 112], [80, 80])
    assert joined.items() <= {56: 40, 28: 20, 14: 10, 7: 5}.items()
    assert 4.2 <= plan.multiplications(["Conv"])["ratio"] <= 4.8


@pytest.mark.parametrize("name", ["overfeat_fast", "vgg16", "resnet18", "resnet34"])
def test_no_padding_is_asymmetric_where_even_kernels_can_alternate(name: str) -> None:
    pretrain = graphscale.shrink(export(name, "torchscript", width=0.25), init="fresh")
    assert asymmetric(pretrain) == []


def test_phases_do_not_drift_with_depth() -> None:
    g = Graph()
    x, channels = "image", 3
    for _ in range(40):
        x, channels = g.op("Relu", g.conv(x, channels, 4, 3, 3, pads=[1] * 4)), 4
    model = g.model(["n", 3, 48, 48], x, ["n", 4, 48, 48])
    plan = graphscale.plan(model)
    for grids in plan.grids.values():
        for grid in grids:
            assert abs(grid.phase) <= 0.5
            assert abs(grid.pretrain.size - plan.inputs[0].pretrain[2]) <= 2


def one_convolution(size: int, kernel: int, stride: int, pads: int) -> onnx.ModelProto:
    g = Graph()
    x = g.conv("image", 2, 3, kernel, kernel, strides=[stride] * 2, pads=[pads] * 4)
    out = (size + 2 * pads - kernel) // stride + 1
    return g.model(["n", 2, size, size], x, ["n", 3, out, out])


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
def test_tiny_pictures(size: int, kernel: int) -> None:
    """One to eleven pixels, with kernels up to the padded picture and every stride."""
    for stride in (1, 2, 3):
        for pads in {0, kernel // 2, max(0, kernel - 1)}:
            if size + 2 * pads < kernel:
                continue
            target = one_convolution(size, kernel, stride, pads)
            pretrain = graphscale.shrink(target, init="resize")
            assert np.isfinite(run(pretrain, 2)["conv_0_out"]).all()
            assert graphscale.grow(pretrain).graph.node == target.graph.node


@pytest.mark.parametrize("size", [33, 47, 64])
@pytest.mark.parametrize("given", [1, 2, 3, 5, 8, 15, 20, 31, 32, 33])
def test_input_sizes_far_from_the_default(size: int, given: int) -> None:
    g = Graph()
    x = g.op("Relu", g.conv("image", 3, 4, 5, 5, strides=[2, 2], pads=[2] * 4))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = g.conv(g.op("Relu", g.conv(x, 4, 4, 3, 3, pads=[1] * 4)), 4, 4, 3, 3, pads=[1] * 4)
    x = g.op("Relu", g.op("Add", x, y))
    x = g.conv(x, 4, 4, 3, 3, strides=[2, 2], pads=[1] * 4)
    side = size
    for _ in range(3):
        side = (side + 1) // 2
    x = g.gemm(g.op("Flatten", x), 4 * side * side, 5)
    target = g.model(["n", 3, size, size], x, ["n", 5])
    pretrain = graphscale.shrink(target, input_size=given, init="resize")
    assert run(pretrain, 3)[x].shape == (3, 5)
    assert graphscale.grow(pretrain).graph.node == target.graph.node
