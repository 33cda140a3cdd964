"""Merged constant fills are separated; weights shared on purpose stay shared."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

from graphscale.core.model_files import load_model
from graphscale.passes.normalize.untie_weights import UntieWeights

ONES, ZEROS = np.ones(4, np.float32), np.zeros(4, np.float32)


def build(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4, 5, 5])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4, 5, 5])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "merged", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def kernel(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 4, 1, 1), dtype=np.float32)


def separated(model: onnx.ModelProto) -> tuple[list[str], onnx.ModelProto]:
    loaded = load_model(model)
    added = UntieWeights()(loaded).names
    written = ir.to_proto(loaded)
    onnx.checker.check_model(written, full_check=True)
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 5), dtype=np.float32)
    before, after = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (model, written)
    )
    np.testing.assert_array_equal(after, before)
    return added, written


def test_equal_tensors_of_two_normalisations():
    model = build(
        [
            helper.make_node(
                "BatchNormalization", ["x", "n.weight", "n.bias", "n.bias", "n.weight"], ["a"]
            ),
            helper.make_node("Conv", ["a", "c.weight", "n.bias"], ["b"]),
            helper.make_node(
                "BatchNormalization",
                ["b", "n.weight", "n.bias", "n.bias", "n.weight"],
                ["y"],
                name="last",
            ),
        ],
        {"n.weight": ONES, "n.bias": ZEROS, "c.weight": kernel(0)},
    )
    _, written = separated(model)
    assert [list(node.input)[1:] for node in written.graph.node] == [
        ["n.weight", "n.bias", "n.running_mean", "n.running_var"],
        ["c.weight", "c.bias"],
        ["last.weight", "last.bias", "last.running_mean", "last.running_var"],
    ]


def test_identities_give_their_names():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 4, 5, 5] x) => (float[N, 4, 5, 5] y)
        <float[4, 1, 1, 1] k = {1.0, 2.0, 3.0, 4.0}, float[4] zeros = {0.0, 0.0, 0.0, 0.0}>
        {
            bias = Identity(zeros)
            a = Conv <group = 4> (x, k, zeros)
            y = Conv <group = 4> (a, k, bias)
        }
    """)
    added, written = separated(model)
    assert added == ["bias"]
    assert [node.op_type for node in written.graph.node] == ["Conv", "Conv"]
    assert [node.input[2] for node in written.graph.node] == ["zeros", "bias"]


@pytest.mark.parametrize("bias", [ZEROS, kernel(1)[0, :, 0, 0]])
def test_a_layer_applied_twice_keeps_its_bias(bias):
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["a"]),
        helper.make_node("Conv", ["a", "k", "b"], ["y"]),
    ]
    added, _ = separated(build(nodes, {"k": kernel(0), "b": bias}))
    assert added == []


def test_weights_that_are_no_fills_stay_shared():
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["a"]),
        helper.make_node("Conv", ["a", "l", "b"], ["y"]),
    ]
    weights = {"k": kernel(0), "l": kernel(1), "b": kernel(2)[0, :, 0, 0]}
    added, _ = separated(build(nodes, weights))
    assert added == []


def test_names_that_are_taken_get_a_number():
    nodes = [
        helper.make_node("Conv", ["x", "c.weight", "b"], ["a"]),
        helper.make_node("Conv", ["a", "d.weight", "b"], ["d.bias"]),
        helper.make_node("Relu", ["d.bias"], ["y"]),
    ]
    _, written = separated(build(nodes, {"c.weight": kernel(0), "d.weight": kernel(1), "b": ZEROS}))
    names = [t.name for t in written.graph.initializer] + [
        name for node in written.graph.node for name in node.output
    ]
    assert len(names) == len(set(names))
