"""Ifs that hold convolutions: shrunk, grown and imported models select as onnxruntime does."""

import numpy as np
import onnx
import pytest
import torch

import graphscale
from graphscale.passes.normalize.select_branches import SelectBranches
from tests.passes.parsed_graphs import normal, operators, parse, read, run


def text(weights_inside: str = "") -> str:
    return f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 3, 32, 32] x, bool flag) => (float[1, 4] y) {{
        c = Conv <pads = [2, 2, 2, 2]> (x, k)
        r = If <
            then_branch = a () => (float[1, 4, 32, 32] o) {weights_inside} {{
                p = Conv <pads = [1, 1, 1, 1]> (c, ka)
                o = Relu(p)
            }},
            else_branch = b () => (float[1, 4, 32, 32] o) {{
                p = Conv <pads = [1, 1, 1, 1]> (c, kb)
                o = Neg(p)
            }}
        > (flag)
        q = GlobalAveragePool(r)
        y = Flatten(q)
    }}"""


WEIGHTS = {"k": normal(4, 3, 5, 5), "ka": normal(4, 4, 3, 3), "kb": normal(4, 4, 3, 3, seed=1)}
X = normal(1, 3, 32, 32)


@pytest.mark.parametrize("flag", [True, False])
def test_both_branches_are_computed_and_one_is_selected(flag):
    model = read(text(), **WEIGHTS)
    expected = run(model, x=X, flag=np.array(flag))
    assert len(SelectBranches()(model).names) == 1
    assert sorted(operators(model))[:3] == ["Conv", "Conv", "Conv"]
    assert "If" not in operators(model)
    np.testing.assert_allclose(run(model, x=X, flag=np.array(flag)), expected, rtol=1e-5)


def test_an_if_that_depends_on_shapes_or_holds_no_layer_stays():
    plain = read("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[3] x, bool flag) => (float[3] y) {
            y = If <
                then_branch = a () => (float[3] o) { o = Relu(x) },
                else_branch = b () => (float[3] o) { o = Neg(x) }
            > (flag)
        }""")
    assert not SelectBranches()(plain).modified
    old = read(text().replace('"" : 17', '"" : 8'), **WEIGHTS)
    assert not SelectBranches()(old).modified


@pytest.mark.parametrize("flag", [True, False])
def test_the_pretrain_network_selects_and_the_grown_one_has_its_if_again(flag):
    target = parse(text(), **WEIGHTS)
    small = graphscale.shrink(target, input_size=21)
    kernels = {each.name: tuple(each.dims) for each in small.graph.initializer}
    assert kernels["ka"] == kernels["kb"] == (4, 4, 2, 2)
    # The branch that is not selected has no influence: its weights may be anything.
    other = "kb" if flag else "ka"
    x = normal(1, 3, 21, 21)
    before = run(small, x=x, flag=np.array(flag))[0]
    for each in small.graph.initializer:
        if each.name == other:
            each.CopyFrom(onnx.numpy_helper.from_array(normal(4, 4, 2, 2, seed=7), other))
    np.testing.assert_array_equal(run(small, x=x, flag=np.array(flag))[0], before)
    grown = graphscale.grow(graphscale.shrink(target, input_size=21))
    assert [node.op_type for node in grown.graph.node] == [n.op_type for n in target.graph.node]
    shapes = {each.name: list(each.dims) for each in grown.graph.initializer}
    assert shapes == {name: list(array.shape) for name, array in WEIGHTS.items()}
    assert np.isfinite(run(grown, x=X, flag=np.array(flag))[0]).all()


@pytest.mark.parametrize("flag", [True, False])
def test_load_trains_the_branch_that_is_selected(flag):
    model = parse(text(), **WEIGHTS)
    network = graphscale.load(model)
    y = network(torch.from_numpy(X), torch.tensor(flag))
    np.testing.assert_allclose(
        y.detach().numpy(), run(model, x=X, flag=np.array(flag))[0], rtol=1e-4, atol=1e-5
    )
    y.square().sum().backward()
    moved = {name: bool(each.grad.abs().sum() > 0) for name, each in network.named_parameters()}
    assert moved == {"k": True, "ka": flag, "kb": not flag}


def test_weights_inside_a_branch_are_trained_and_grown():
    inside = "<float[4, 4, 3, 3] ka = {" + ", ".join(["0.5"] * 144) + "}>"
    model = parse(text(inside), k=WEIGHTS["k"], kb=WEIGHTS["kb"])
    network = graphscale.load(model)
    assert {name for name, _ in network.named_parameters()} == {"k", "ka", "kb"}
    grown = graphscale.grow(graphscale.shrink(model, input_size=21))
    (ka,) = [each for each in grown.graph.initializer if each.name == "ka"]
    # A constant kernel stays constant when it is resized (Eq. 5), and its sum is kept both ways.
    np.testing.assert_allclose(onnx.numpy_helper.to_array(ka), 0.5, rtol=1e-4)


def test_a_branch_with_a_layer_of_this_library_is_shrunk():
    convolution = "p = Conv <pads = [1, 1, 1, 1]> (c, ka)"
    assert convolution in text()
    fft = text().replace(convolution, convolution.replace("Conv", "graphscale.FFTConv"))
    other = fft.replace("p = Conv <pads = [1, 1, 1, 1]> (c, kb)", "p = Sigmoid(c)")
    model = parse(other.replace('"" : 17', '"" : 17, "graphscale" : 1'), **WEIGHTS)
    small = graphscale.shrink(model, input_size=21)
    kernels = {each.name: tuple(each.dims) for each in small.graph.initializer}
    assert kernels["ka"] == (4, 4, 2, 2)
    assert "If" in [node.op_type for node in graphscale.grow(small).graph.node]
