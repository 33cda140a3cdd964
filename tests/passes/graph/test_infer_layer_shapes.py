"""Shapes of graphscale's own operators are those of their kernels in onnxruntime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphscale
from graphscale.core.model_files import load_model
from graphscale.passes.graph.infer_shapes import infer_shapes
from tests.passes.parsed_graphs import normal

CASES = {
    "FeatureLPPooling": ([normal(2, 6, 3, 3)], {"width": 2, "stride": 2, "power": 2.0}),
    "Maxout": ([normal(2, 6, 3, 3)], {"width": 3, "stride": 3}),
    "CrossMapNormalization": ([normal(2, 6, 3, 3)], {"size": 3}),
    "TemporalKMaxPool": ([normal(2, 9, 4)], {"k": 3}),
    "TemporalConv": ([normal(2, 9, 4), normal(5, 3, 4), normal(5)], {"stride": 2}),
    "LookupTable": ([normal(7, 4), np.int64([[1, 2, 3]])], {}),
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
    outputs = ["y", "index"] if name == "TemporalKMaxPool" else ["y"]
    node = helper.make_node(name, names, outputs, domain="graphscale", **attributes)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "layer", inputs, [output])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("graphscale", 1)]
    proto: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    (expected,) = graphscale.session(proto, providers=["CPUExecutionProvider"]).run(
        None, dict(zip(names, arrays))
    )
    model = load_model(proto)
    found = infer_shapes(model, {n: array.shape for n, array in zip(names, arrays)})
    assert found.shapes[model.graph.outputs[0]] == expected.shape
