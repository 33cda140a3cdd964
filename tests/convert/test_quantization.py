"""Quantised models in torch: outputs against onnxruntime, gradients against a case by hand."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import graphscale

from .compare import assert_matches, build, random, run_onnxruntime

NODES = [
    helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["codes"]),
    helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["coarse"]),
    helper.make_node("DequantizeLinear", ["integers", "scales", "zeros"], ["kernel"], axis=0),
    helper.make_node("DequantizeLinear", ["bias_integers", "step"], ["bias"]),
    helper.make_node("Conv", ["coarse", "kernel", "bias"], ["y"], pads=[1] * 4),
]


def weights(kind: type = np.int8) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "integers": generator.integers(0, 100, (6, 4, 3, 3)).astype(kind),
        "scales": generator.uniform(0.01, 0.05, 6).astype(np.float32),
        "zeros": np.arange(6).astype(kind),
        "bias_integers": generator.integers(-99, 99, 6).astype(np.int32),
        "step": np.float32(0.05),
        "zero": kind(3),
    }


@pytest.mark.parametrize(("opset", "kind"), [(13, np.int8), (19, np.uint8), (21, np.uint16)])
def test_a_quantised_convolution_equals_onnxruntime(opset, kind):
    assert_matches(build(NODES, weights(kind), opset=opset), 3 * random(2, 4, 8, 8))


def test_a_quantised_convolution_is_trained_saved_and_run():
    network = graphscale.load(build(NODES, weights()))
    assert [name for name, _ in network.named_parameters()] == ["kernel", "bias"]
    x = random(2, 4, 8, 8)
    network(torch.from_numpy(x)).square().mean().backward()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    optimizer.step()
    saved = onnx.ModelProto.FromString(
        graphscale.core.model_files.ir.to_proto(graphscale.save(network)).SerializeToString()
    )
    with torch.no_grad():
        ours = network.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, run_onnxruntime(saved, x)[0], rtol=1e-4, atol=1e-4)


def test_gradients_pass_through_rounding_but_not_through_clipping():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["y"]),
    ]
    constants = {"step": np.float32(0.5), "zero": np.int8(0)}
    network = graphscale.load(build(nodes, constants, shape=("N", 3)))
    x = torch.tensor([[0.3, -1.1, 100.0]], requires_grad=True)
    y = network(x)
    assert y.tolist() == [[0.5, -1.0, 63.5]]  # 127 · 0.5 is the largest number
    y.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_a_weight_that_is_quantised_while_it_is_trained():
    """As quantisation-aware training exports it; the scales are no parameters."""
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "scales", "zeros"], ["codes"], axis=0),
        helper.make_node("DequantizeLinear", ["codes", "scales", "zeros"], ["kernel"], axis=0),
        helper.make_node("Conv", ["x", "kernel"], ["y"]),
    ]
    constants = {
        "w": random(6, 4, 3, 3),
        "scales": weights()["scales"],
        "zeros": np.zeros(6, np.int8),
    }
    model = build(nodes, constants)
    assert_matches(model, random(2, 4, 8, 8))
    assert [name for name, _ in graphscale.load(model).named_parameters()] == ["w"]


def test_integers_that_leave_the_network_have_their_type():
    nodes = [helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["y"])]
    model = build(
        nodes, {"step": np.float32(0.05), "zero": np.uint8(9)}, elem_type=TensorProto.FLOAT
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert_matches(model, random(2, 4, 8, 8))


def test_a_shrunk_quantised_network_trains_and_grows():
    kernel = {**weights(), "integers": np.ones((6, 4, 5, 5), np.int8)}
    nodes = [
        *NODES[:-1],
        helper.make_node("Conv", ["coarse", "kernel", "bias"], ["y"], pads=[2] * 4),
    ]
    target = build(nodes, kernel, shape=("N", 4, 24, 24))
    small = graphscale.shrink(target)
    network = graphscale.load(small)
    network(torch.zeros(1, 4, 16, 16)).sum().backward()
    grown = graphscale.grow(graphscale.save(network))
    numbers = {name: value.const_value.numpy() for name, value in grown.graph.initializers.items()}
    assert numbers["kernel"].shape == (6, 4, 5, 5)
    # A constant kernel stays one when it is resized; its sum of taps is kept both ways (Eq. 5).
    by_hand = (1 - kernel["zeros"].astype(np.float32)) * kernel["scales"]
    np.testing.assert_allclose(numbers["kernel"][:, 1, 2, 3], by_hand, rtol=1e-4)
