"""Names that ONNX allows and Python does not, of inputs and of weights, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import graphscale
from graphscale import GraphScaleError


def model(image: str = "x", weight: str = "w") -> onnx.ModelProto:
    kernel = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", [image, weight], ["y"], name="conv", pads=[1] * 4)],
        "g",
        [helper.make_tensor_value_info(image, TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(kernel, weight)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("name", ["in", "class", "torch", "self", "device", "0", "²", "ｘ", "a b"])
def test_input(name: str) -> None:
    agrees_with_onnxruntime(model(image=name), name)


@pytest.mark.parametrize("name", ["training", "a.training", "graph", "forward", "a\rb", "ｗ", "in"])
def test_weight(name: str) -> None:
    network = agrees_with_onnxruntime(model(weight=name), "x")
    assert list(network.state_dict()) == [name]
    assert network.train().training
    assert not network.eval().training


def agrees_with_onnxruntime(proto: onnx.ModelProto, image: str) -> torch.nn.Module:
    given = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (wanted,) = session.run(None, {image: given})
    network = graphscale.load(proto)
    got = network(torch.from_numpy(given)).detach().numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    return network


def test_inputs_that_would_have_one_name() -> None:
    proto = model()
    names = ("a.b", "a_b")
    graph = helper.make_graph(
        [helper.make_node("Sub", list(names), ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    proto.graph.CopyFrom(graph)
    got = graphscale.load(proto)(torch.tensor([5.0, 6.0]), torch.tensor([1.0, 2.0]))
    assert got.tolist() == [4.0, 4.0]


def test_a_weight_type_that_torch_does_not_have() -> None:
    proto = model()
    proto.graph.initializer[0].data_type = TensorProto.INT4
    with pytest.raises(GraphScaleError, match=r"tensor .w.: .*INT4"):
        graphscale.load(proto)
