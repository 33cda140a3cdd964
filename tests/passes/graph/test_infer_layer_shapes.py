"""Shapes and types of graphscale's own operators are those of their kernels in onnxruntime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphscale
from graphscale.core.c_api import describe
from graphscale.core.model_files import load_model
from graphscale.passes.graph.infer_shapes import ShapeInference, infer_shapes
from tests.passes.parsed_graphs import normal

CASES = {
    "FeatureLPPooling": ([normal(2, 6, 3, 3)], {"width": 2, "stride": 2, "power": 2.0}),
    "Maxout": ([normal(2, 6, 3, 3)], {"width": 3, "stride": 3}),
    "CrossMapNormalization": ([normal(2, 6, 3, 3)], {"size": 3}),
    "TemporalKMaxPool": ([normal(2, 9, 4)], {"k": 3}),
    "TemporalConv": ([normal(2, 9, 4), normal(5, 3, 4), normal(5)], {"stride": 2}),
    "LookupTable": ([normal(7, 4), np.int64([[1, 2, 3]])], {}),
    "WeightedLookupTable": ([normal(7, 4), np.int64([[1, 2, 3]]), normal(1, 3)], {}),
    "FFTConv": ([normal(2, 4, 9, 8), normal(6, 2, 3, 2)], {"group": 2, "auto_pad": "SAME_UPPER"}),
    "OneBitQuantize": ([normal(3, 71), normal(3, 71)], {}),
    "LocallyConnected": ([normal(2, 3, 6, 6), normal(4, 5, 5, 3, 2, 2)], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_as_the_kernel(name):
    arrays, attributes = CASES[name]
    names = [f"i{index}" for index in range(len(arrays))]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for n, array in zip(names, arrays)
    ]
    description = next(each for each in describe() if each["name"] == name)["outputs"]
    node = helper.make_node(
        name, names, [each["name"] for each in description], domain="graphscale", **attributes
    )
    proto = model_of(node, inputs, [each["name"] for each in description])
    arrays_out = graphscale.session(proto, providers=["CPUExecutionProvider"]).run(
        None, dict(zip(names, arrays))
    )
    model = load_model(proto)
    inference = ShapeInference(model, {n: array.shape for n, array in zip(names, arrays)})
    inference.visit(model.graph.node(0))
    for output, expected in zip(model.graph.outputs, arrays_out, strict=True):
        assert inference.found.shapes[output] == expected.shape
        elem_type = inference.types[output].tensor_type.elem_type
        assert elem_type == helper.np_dtype_to_tensor_dtype(expected.dtype)


def model_of(node, inputs, outputs) -> onnx.ModelProto:
    values = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "layer", inputs, values)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("graphscale", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_inputs_that_do_not_fit_are_named():
    node = helper.make_node("Maxout", ["x"], ["y"], "pool", domain="graphscale", width=7, stride=1)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 2])
    model = load_model(model_of(node, [x], ["y"]))
    with pytest.raises(graphscale.GraphScaleError, match=r"^node 'pool': Maxout: .*; check the"):
        infer_shapes(model, {"x": [1, 4, 2]})


def test_an_operator_that_the_library_does_not_have_is_named():
    node = helper.make_node("Unheard", ["x"], ["y"], "odd", domain="graphscale")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 2])
    model = load_model(model_of(node, [x], ["y"]))
    with pytest.raises(graphscale.GraphScaleError, match=r"'odd' has the operator graphscale\.Unh"):
        infer_shapes(model, {"x": [1, 4, 2]})


def test_other_models_need_no_library(monkeypatch):
    def refuse():
        raise AssertionError("the library was opened")

    monkeypatch.setattr("graphscale.core.c_api.open_library", refuse)
    monkeypatch.setattr("graphscale.core.c_api.operator_names", refuse)
    node = helper.make_node("Relu", ["x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    model = load_model(model_of(node, [x], ["y"]))
    assert infer_shapes(model, {"x": [1, 4]}).shapes[model.graph.outputs[0]] == (1, 4)
