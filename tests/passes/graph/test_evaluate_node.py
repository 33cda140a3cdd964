"""The outputs of one node are those that ONNX defines."""

import warnings

import numpy as np
import onnx_ir as ir
import pytest

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.evaluate_node import constant_of, evaluate_node, shape_of
from tests.passes.parsed_graphs import read

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[M] y)'


def test_inputs_left_out_and_several_outputs():
    model = read(f"{HEAD} {{ a, y = Split(x)  b = Clip(x, , high) }}", high=np.float32(1))
    split, clip = model.graph
    first, second = evaluate_node(model, split, [np.float32([1, 2, 3, 4])])
    assert (first.tolist(), second.tolist()) == ([1, 2], [3, 4])
    (clipped,) = evaluate_node(model, clip, [np.float32([0, 5]), None, np.float32(1)])
    assert clipped.tolist() == [0, 1]


def test_infinity_is_computed_in_silence():
    model = read(f"{HEAD} {{ y = Mul(x, x) }}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = evaluate_node(model, model.graph[0], [np.float32([3e38])] * 2)
    assert found.tolist() == [np.inf]


@pytest.mark.parametrize("opset", [10, 13, 17, 19, 21])
def test_quantized_weights_of_every_opset(opset):
    model = read(
        f"""<ir_version: 7, opset_import: ["" : {opset}]> g (float[N] x) => (float[M] y) {{
            w = DequantizeLinear(q, scale, zero)
            y = Mul(x, w)
        }}""",
        q=np.int8([-3, 5]),
        scale=np.float32(0.5),
        zero=np.int8(1),
    )
    node = model.graph[0]
    arrays = [value.const_value.numpy() for value in node.inputs]
    (found,) = evaluate_node(model, node, arrays)
    assert found.tolist() == [-2, 2]


def test_a_node_that_does_not_take_the_values_is_named():
    model = read(f"{HEAD} {{ y = Reshape(x, shape) }}", shape=np.int64([7]))
    (node,) = model.graph
    node.name = "bad"
    with pytest.raises(GraphScaleError, match=r"node 'bad' \(Reshape\) cannot be computed.*check"):
        evaluate_node(model, node, [np.zeros(3, np.float32), np.int64([7])])


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("value = float[2] {1.0, 2.0}", np.float32([1, 2])),
        ("value_int = 3", np.int64(3)),
        ("value_ints = [3, 4]", np.int64([3, 4])),
        ("value_float = 0.5", np.float32(0.5)),
        ("value_floats = [0.5]", np.float32([0.5])),
    ],
)
def test_constants(attribute, value):
    (node,) = read(f"{HEAD} {{ y = Constant <{attribute}> () }}").graph
    found = constant_of(node)
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize(
    ("node", "value"),
    [("Shape(x)", [2, 3, 4]), ("Shape <start = 1, end = -1> (x)", [3]), ("Size(x)", 24)],
)
def test_shapes(node, value):
    (node,) = read(f"{HEAD} {{ y = {node} }}").graph
    assert shape_of(node, (2, 3, 4)).tolist() == value


@pytest.mark.parametrize(
    "attributes",
    [
        [],
        [ir.AttrFloat32("value", 1.0)],
        [ir.AttrInt64("value_float", 1)],
        [ir.AttrInt64("alpha", 1)],
        [ir.AttrInt64("value_int", 1), ir.AttrFloat32("value_float", 1.0)],
    ],
)
def test_damaged_constants_are_named(attributes):
    node = ir.Node("", "Constant", [], attributes, name="c")
    with pytest.raises(GraphScaleError, match=r"node 'c' .*damaged"):
        constant_of(node)
