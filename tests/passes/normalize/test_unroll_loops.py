"""Loops that hold convolutions: shrunk, grown and imported models compute what the Loop does."""

import numpy as np
import onnx
import pytest
import torch

import graphscale
from graphscale.passes.normalize.unroll_loops import UnrollLoops
from tests.passes.parsed_graphs import normal, operators, parse, read, run


def text(count: str = "count", keep: str = "more") -> str:
    return f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 3, 32, 32] x, int64 given) => (float[1, 4] y, float[r, 1, 4, 1, 1] each) {{
        c = Conv <pads = [2, 2, 2, 2]> (x, k)
        r, each = Loop <body = b (int64 round, bool more, float[1, 4, 32, 32] h)
            => (bool {keep}_on, float[1, 4, 32, 32] next, float[1, 4, 1, 1] mean) {{
                {keep}_on = Identity({keep})
                p = Conv <pads = [1, 1, 1, 1]> (h, kb)
                step = Cast <to = 1> (round)
                s = Add(p, step)
                next = Tanh(s)
                mean = GlobalAveragePool(next)
            }}
        > ({count}, yes, c)
        q = GlobalAveragePool(r)
        y = Flatten(q)
    }}"""


WEIGHTS = {"k": normal(4, 3, 5, 5), "kb": normal(4, 4, 3, 3) / 3}
NUMBERS = {"count": np.array(3), "yes": np.array(True)}
X = normal(1, 3, 32, 32)
FED = {"x": X, "given": np.array(3)}


def test_each_round_has_nodes_of_its_own():
    model = read(text(), **WEIGHTS, **NUMBERS)
    expected = run(model, **FED)
    assert len(UnrollLoops()(model).names) == 1
    assert operators(model).count("Conv") == 4
    for one, other in zip(run(model, **FED), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", ["given", "many", "counts"])
def test_a_loop_of_unknown_or_many_rounds_stays(wrong: str):
    source = text("given") if wrong == "given" else text()
    numbers = dict(NUMBERS)
    if wrong == "many":
        numbers["count"] = np.array(1000)
    if wrong == "counts":
        numbers["count"] = np.array([3, 3])
    model = read(source, **WEIGHTS, **numbers)
    assert not UnrollLoops()(model).modified


def test_the_pretrain_network_is_the_loop_on_smaller_kernels_and_the_grown_one_has_it_again():
    target = parse(text(), **WEIGHTS, **NUMBERS)
    small = graphscale.shrink(target, input_size=21, init="resize")
    kernels = {each.name: onnx.numpy_helper.to_array(each) for each in small.graph.initializer}
    assert kernels["k"].shape == (4, 3, 3, 3)
    assert kernels["kb"].shape == (4, 4, 2, 2)
    assert sum(node.op_type == "Conv" for node in small.graph.node) == 4
    means = run(small, x=normal(1, 3, 21, 21), given=np.array(3))[1]
    assert means.shape == (3, 1, 4, 1, 1)
    grown = graphscale.grow(small)
    assert [node.op_type for node in grown.graph.node] == [n.op_type for n in target.graph.node]
    shapes = {each.name: list(each.dims) for each in grown.graph.initializer}
    assert {name: shapes[name] for name in WEIGHTS} == {
        name: list(array.shape) for name, array in WEIGHTS.items()
    }
    assert np.isfinite(run(grown, **FED)[0]).all()


def test_load_trains_the_weights_of_all_rounds():
    model = parse(text(), **WEIGHTS, **NUMBERS)
    network = graphscale.load(model)
    y, _ = network(torch.from_numpy(X), torch.tensor(3))
    np.testing.assert_allclose(y.detach().numpy(), run(model, **FED)[0], rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    assert {name for name, each in network.named_parameters() if each.grad.abs().sum() > 0} == {
        "k",
        "kb",
    }
