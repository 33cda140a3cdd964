"""The solver finds the paper's sizes, and the expected paddings in graphs of a few nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import graphscale
from graphscale.passes.shrink import solve_geometry
from graphscale.passes.spatial.geometry import phase
from tests.passes.small_graphs import analyzed, pretrain_shape, solved, value
from tests.passes.small_graphs import graph as small_graph
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
def test_tiny_images(size: int, kernel: int) -> None:
    """One to eleven pixels, with kernels up to the padded image's size and every stride."""
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


# --- graphs of a few nodes ------------------------------------------------------------------------


def parameters(nodes: str, pixels: int, **weights: object) -> dict[str, tuple[int, int]]:
    """(begin, end) of the padding along the height, by the names of the nodes' outputs."""
    analysis = analyzed(small_graph(nodes, **weights))
    geometry = solved(analysis, pixels)
    return {
        mapping.node.outputs[0].name: (found.begin, found.end)
        for mapping, found in geometry.parameters.items()
        if mapping.axis == 0
    }


def test_two_even_kernels_take_padding_in_turn() -> None:
    """The first pads nothing, the second one pixel on both sides: no padding is unequal."""
    nodes = """
        a = Conv <pads=[1,1,1,1]> (x, v)
        b = Conv <pads=[1,1,1,1]> (a, v)
        y = Add (b, x)
    """
    assert parameters(nodes, 20, v=(3, 3, 3, 3)) == {"a": (0, 0), "b": (1, 1)}


def test_a_lone_even_kernel_between_joins_alternates() -> None:
    """The first pads one side, the second the other side, so that the phases cancel."""
    nodes = """
        a = Conv <pads=[1,1,1,1]> (x, v)
        b = Add (a, x)
        c = Conv <pads=[1,1,1,1]> (b, v)
        y = Add (c, b)
    """
    found = parameters(nodes, 20, v=(3, 3, 3, 3))
    assert {found["a"], found["c"]} == {(0, 1), (1, 0)}


def test_equal_sizes_stay_equal() -> None:
    """Two branches to one size, one by a stride and one by a pool; a third is never joined."""
    nodes = """
        a = Conv <pads=[1,1,1,1], strides=[2,2]> (x, v)
        b = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)
        y = Add (a, b)
        z = Conv <pads=[2,2,2,2], strides=[2,2]> (x, w)
    """
    analysis = analyzed(small_graph(nodes, outputs="y, z", v=(3, 3, 3, 3), w=(3, 3, 5, 5)))
    geometry = solved(analysis, 20)
    assert [pretrain_shape(analysis, geometry, name)[2] for name in "abyz"] == [10] * 4


def test_grids_follow_the_mappings() -> None:
    """Stride 2 from pixel 0 in the target; in the pre-train network a 2-tap window from pixel 0."""
    nodes = "y = Conv <pads=[1,1,1,1], strides=[2,2]> (x, v)"
    analysis = analyzed(small_graph(nodes, v=(3, 3, 3, 3)))
    geometry = solved(analysis, 20)
    target, pretrain = geometry.grids[value(analysis, "y")][2]
    assert (target.origin, target.pitch, target.size) == (0.0, 2.0, 16)
    assert (pretrain.origin, pretrain.pitch, pretrain.size) == (0.5, 2.0, 10)
    # Middles: 15 of 32 pixels (15.5 is the image's) and 9.5 of 20 (which is the image's).
    off = phase((target, pretrain), (32, 20))
    assert off == pytest.approx((0 / 20 + 0.5 / 32) * 20 / 2)


def test_a_covering_kernel_is_as_large_as_its_map() -> None:
    analysis = analyzed(small_graph("y = Conv (x, v)", v=(5, 3, 32, 32)))
    geometry = solved(analysis, 20)
    assert list(geometry.kernels.values()) == [(20, 20)]


def test_the_analysis_is_left_as_it_is() -> None:
    """Solving for one size and then for another gives what solving for the other gives."""
    nodes = """
        a = Conv <pads=[2,2,2,2], strides=[2,2]> (x, w)
        y = Conv <pads=[1,1,1,1]> (a, v)
    """
    analysis = analyzed(small_graph(nodes, w=(4, 3, 5, 5), v=(4, 4, 3, 3)))
    solved(analysis, 20)
    twice = solved(analysis, 24)
    fresh = analyzed(small_graph(nodes, w=(4, 3, 5, 5), v=(4, 4, 3, 3)))
    once = solved(fresh, 24)
    assert list(twice.parameters.values()) == list(once.parameters.values())
    assert list(twice.sizes.values()) == list(once.sizes.values())


def test_the_beam_cuts_off_nothing_that_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of twelve kernels, whose states are far more than the beam holds."""
    nodes = "c0 = Conv <pads=[1,1,1,1]> (x, v)"
    for i in range(11):
        stride = 2 if i % 4 == 3 else 1
        nodes += f"c{i + 1} = Conv <pads=[1,1,1,1], strides=[{stride},{stride}]> (c{i}, v)"
    analysis = analyzed(small_graph(nodes, "float[1,3,224,224] x", outputs="c11", v=(3, 3, 3, 3)))
    found = solved(analysis, 160)
    monkeypatch.setattr(solve_geometry, "_BEAM", 1_000_000)
    assert list(solved(analysis, 160).parameters.values()) == list(found.parameters.values())


def test_a_size_that_cannot_be_reached_names_the_node() -> None:
    """Three pixels cannot be cut into blocks of two."""
    nodes = "s = SpaceToDepth <blocksize=2> (x) y = Conv <pads=[1,1,1,1]> (s, v)"
    model = small_graph(nodes, v=(3, 12, 3, 3))
    with pytest.raises(graphscale.GraphScaleError, match=r"node '\w+'.*another --input-size"):
        graphscale.shrink(model, input_size=3)


def test_forty_blocks_of_branches_over_tokens_are_searched_once() -> None:
    """Every block doubles the ways from the map to its end; searching all 2⁴⁰ would not end."""
    blocks = "t0 = Reshape (c, flat)"
    for number in range(40):
        blocks += f"""
            a{number} = Relu (t{number})
            b{number} = Neg (t{number})
            t{number + 1} = Add (a{number}, b{number})
        """
    nodes = f"c = Conv <pads=[1,1,1,1]> (x, w) {blocks} y = ReduceMean <keepdims=0> (t40, last)"
    target = small_graph(nodes, w=(4, 3, 3, 3), flat=np.array([0, 0, -1]), last=np.array([2]))
    pretrain = graphscale.shrink(target, input_size=20)
    assert run(pretrain, 1)["y"].shape == (1, 4)
