"""Choices of layers in a model: rewriting some convolutions alone."""

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from graphscale.acceleration.choose_layers import rewrite_model


def test_rewrite_model_changes_these_convolutions_alone():
    weight = numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], "first"),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w"], ["y"], "second"),
        ],
        "graph",
        [value("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("y", TensorProto.FLOAT, None)],
        [weight],
    )
    model = ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    )
    assert rewrite_model(model, {1: "direct"}) is model
    operators = [node.op_type for node in model.graph]
    assert operators == ["Conv", "Relu", "FFTConv"]
    assert [name for _, name, _ in model.functions] == ["FFTConv"]
    rewrite_model(model, {1: None})
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Conv"]
