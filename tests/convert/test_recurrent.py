"""RNN, GRU and LSTM against onnxruntime: values, trained weights, gradients."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import graphscale

from .compare import assert_matches, random, run_onnxruntime

STEPS, INPUT, HIDDEN = 5, 4, 3
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def recurrent(
    kind: str, direction: str = "forward", states: bool = False, bias: bool = True, **options
) -> onnx.ModelProto:
    count, gates = 1 + (direction == "bidirectional"), GATES[kind]
    weights = {
        "w": random(count, gates * HIDDEN, INPUT),
        "r": random(count, gates * HIDDEN, HIDDEN, seed=1),
    }
    inputs = ["steps", "w", "r", ""]
    nodes = [helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2])]
    if bias:
        weights["b"], inputs[3] = random(count, 2 * gates * HIDDEN, seed=2), "b"
    graph_inputs = [("x", ("N", STEPS, INPUT))]
    if states:
        inputs.append("")
        for name in ("h", "c") if kind == "LSTM" else ("h",):
            nodes.append(helper.make_node("Transpose", [name], [f"{name}_0"], perm=[1, 0, 2]))
            inputs.append(f"{name}_0")
            graph_inputs.append((name, ("N", count, HIDDEN)))
    outputs = ["y", "y_h", *(["y_c"] if kind == "LSTM" else [])]
    nodes.append(
        helper.make_node(kind, inputs, outputs, direction=direction, hidden_size=HIDDEN, **options)
    )
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in graph_inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


KINDS = [
    ("RNN", {}),
    ("RNN", {"activations": ["Relu"]}),
    ("LSTM", {}),
    ("GRU", {"linear_before_reset": 1}),
    ("GRU", {"linear_before_reset": 0}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_directions_and_states(kind, options, direction):
    count = 1 + (direction == "bidirectional")
    options = dict(options)
    if "activations" in options:
        options["activations"] = options["activations"] * count
    x = random(2, STEPS, INPUT)
    assert_matches(recurrent(kind, direction, **options), x)
    assert_matches(recurrent(kind, direction, bias=False, **options), x)
    states = [random(2, count, HIDDEN, seed=i) for i in range(1 + (kind == "LSTM"))]
    assert_matches(recurrent(kind, direction, states=True, **options), x, *states)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_weights_are_trained(kind, options):
    """Gradients reach W, R and B, and equal differences of onnxruntime's outputs."""
    model = recurrent(kind, **options)
    network = graphscale.load(model, dtype=torch.float64)
    weights = dict(network.named_parameters())
    assert set(weights) == {"w", "r", "b"}
    x = random(2, STEPS, INPUT)
    network(torch.from_numpy(x).double())[0].sum().backward()
    for name, weight in weights.items():
        place = tuple(np.argwhere(weight.grad.abs().numpy() == weight.grad.abs().max().item())[0])
        sums = []
        for step in (1e-2, -1e-2):
            moved = onnx.ModelProto.FromString(model.SerializeToString())
            for tensor in moved.graph.initializer:
                if tensor.name == name:
                    array = numpy_helper.to_array(tensor).copy()
                    array[place] += step
                    tensor.CopyFrom(numpy_helper.from_array(array, name))
            sums.append(run_onnxruntime(moved, x)[0].astype(np.float64).sum())
        assert abs((sums[0] - sums[1]) / 2e-2 - weight.grad[place].item()) < 0.02 * abs(
            weight.grad[place].item()
        )


def test_what_is_not_supported_is_named():
    with pytest.raises(graphscale.GraphScaleError, match="activations"):
        graphscale.load(recurrent("LSTM", activations=["Sigmoid", "Tanh", "Relu"]))
    with pytest.raises(graphscale.GraphScaleError, match="clip"):
        graphscale.load(recurrent("GRU", clip=1.0))
