"""Models are brought into the normal form; in what is written the nodes' names are undone."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphscale
from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model
from graphscale.core.node_names import forget_given_names
from graphscale.passes.normalize.normalize import normalize
from tests.passes.parsed_graphs import normal, operators, parse, run

FLOAT = TensorProto.FLOAT


def network(batch: object = "N", weight: np.ndarray | None = None) -> onnx.ModelProto:
    """A function that holds a convolution of unnamed nodes, then a global mean."""
    model = parse(
        """
        <ir_version: 8, opset_import: ["ai.onnx" : 17, "my" : 1]>
        g (float[N, 3, 32, 32] x) => (float[N, 8] y)
        {
            r = my.Block (x, k)
            p = GlobalAveragePool (r)
            y = Flatten (p)
        }
        <domain: "my", opset_import: ["" : 17]>
        Block (a, w) => (o) { t = Conv <pads = [2, 2, 2, 2]> (a, w)  o = Relu (t) }
        """,
        k=normal(8, 3, 5, 5) if weight is None else weight,
    )
    for info in (*model.graph.input, *model.graph.output):
        dim = info.type.tensor_type.shape.dim[0]
        dim.Clear()
        if isinstance(batch, int):
            dim.dim_value = batch
        else:
            dim.dim_param = batch
    return model


def test_what_is_changed_is_said():
    model = load_model(network(-1))
    form = normalize(model)
    assert form.inlined == ("my.Block",)
    assert form.opened == ("x", "y")
    assert form.named == ("t", "r", "p", "y")
    assert operators(model) == ["Conv", "Relu", "GlobalAveragePool", "Flatten"]
    assert [node.name for node in model.graph] == ["t", "r", "p", "y"]
    assert normalize(model).inlined == ()
    forget_given_names(model)
    assert not any(node.name for node in model.graph)


def test_a_batch_of_minus_one_shrinks_grows_and_loads():
    import torch

    target = network(-1)
    pretrain = graphscale.shrink(target, init="resize")
    grown = graphscale.grow(pretrain)
    assert [node.op_type for node in grown.graph.node] == [
        "Conv",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
    ]
    assert not any(node.name for node in (*pretrain.graph.node, *grown.graph.node))
    x = normal(2, 3, 32, 32)
    (y,) = run(grown, x=x)
    assert y.shape == (2, 8)
    side = pretrain.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    assert run(pretrain, x=normal(3, 3, side, side))[0].shape == (3, 8)
    expected = run(network(), x=x)[0]
    loaded = graphscale.load(network(-1)).eval()
    found = loaded(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [graphscale.shrink, graphscale.plan, graphscale.load])
def test_a_batch_of_0_is_refused_in_one_sentence(function):
    with pytest.raises(GraphScaleError, match="input 'x' has a size of 0 at place 0"):
        function(network(0))


def test_a_constant_that_is_start_and_axis_shrinks():
    """x[:, :, 2:-2, 2:-2] beside two convolutions that take two pixels off each side."""

    def build(axis: str) -> onnx.ModelProto:
        return parse(
            f"""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N, 3, 32, 32] x) => (float[N, 8] y)
            <int64[1] two = {{2}}, int64[1] end = {{-2}}, int64[1] three = {{3}},
             int64[1] axis = {{2}}>
            {{
                a = Conv <pads = [2, 2, 2, 2]> (x, k)
                b = Conv (a, l)
                c = Conv (b, m)
                rows = Slice (a, two, end, {axis})
                cut = Slice (rows, two, end, three)
                s = Add (c, cut)
                p = GlobalAveragePool (s)
                y = Flatten (p)
            }}
            """,
            k=normal(8, 3, 5, 5),
            l=normal(8, 8, 3, 3),
            m=normal(8, 8, 3, 3),
        )

    shared, own = (graphscale.shrink(build(axis), init="resize") for axis in ("two", "axis"))
    side = own.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    x = normal(2, 3, side, side)
    np.testing.assert_array_equal(run(shared, x=x), run(own, x=x))
    grown = graphscale.grow(shared)
    target = ir.to_proto(load_model(build("two")))
    assert list(grown.graph.node) == list(target.graph.node)
    names = {each.name for each in grown.graph.initializer}
    assert names == {each.name for each in target.graph.initializer}


def test_sparse_weights_are_the_numbers_that_onnxruntime_computes_with():
    import torch

    bias = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([2, -3]), "b"),
        numpy_helper.from_array(np.int64([1, 3]), "b.places"),
        [4],
    )
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "k", "b"], ["y"], name="conv", pads=[1] * 4)],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", FLOAT, [1, 4, 16, 16])],
        [numpy_helper.from_array(normal(4, 3, 3, 3), "k")],
        sparse_initializer=[bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    before = model.SerializeToString()
    x = np.zeros((1, 3, 16, 16), np.float32)
    (expected,) = run(model, x=x)
    assert expected[0, :, 0, 0].tolist() == [0, 2, 0, -3]
    found = graphscale.load(model)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_array_equal(found, expected)
    grown = graphscale.grow(graphscale.shrink(model, init="resize"))
    np.testing.assert_array_equal(run(grown, x=x)[0], expected)
    assert model.SerializeToString() == before


def test_models_in_memory_keep_what_was_normalized():
    model = ir.from_proto(network(-1))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    result = graphscale.shrink(model, init="resize")
    assert isinstance(result, ir.Model)
    assert not any(node.name for node in result.graph)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
