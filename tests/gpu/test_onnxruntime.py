"""Every CUDA kernel in onnxruntime's CUDA provider against the CPU provider."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

import graphscale
from graphscale.layers.operator import DOMAIN, OPERATORS, VERSION
from tests.gpu.cases import CASES, NAMES, TOLERANCE, cast

TYPES = {torch.float32: ir.DataType.FLOAT, torch.int64: ir.DataType.INT64}
pytestmark = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime with its CUDA provider",
)


def model(name, inputs, attributes, constant=()):
    """One node; the inputs at positions ``constant`` are initializers."""
    values = []
    for i, tensor in enumerate(inputs):
        value = ir.Value(
            name=f"input_{i}", type=ir.TensorType(TYPES[tensor.dtype]), shape=ir.Shape(tensor.shape)
        )
        if i in constant:
            value.const_value = ir.tensor(tensor.numpy(), name=value.name)
        values.append(value)
    count = len(OPERATORS[name].outputs)
    node = ir.node(name, values, attributes, domain=DOMAIN, num_outputs=count)
    graph = ir.Graph(
        [value for i, value in enumerate(values) if i not in constant],
        node.outputs,
        nodes=[node],
        initializers=[value for i, value in enumerate(values) if i in constant],
        opset_imports={"": 20, DOMAIN: VERSION},
        name="graph",
    )
    for i, value in enumerate(node.outputs):
        value.name = f"output_{i}"
    return ir.serde.serialize_model(ir.Model(graph, ir_version=10)).SerializeToString()


def run(data, feed, provider):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(graphscale.get_library_path())
    session = onnxruntime.InferenceSession(data, options, providers=[provider])
    assert session.get_providers()[0] == provider
    return [session.run(None, feed) for _ in range(3)][-1]


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("name", "inputs", "attributes"), CASES, ids=NAMES)
def test_equals_the_cpu(name, inputs, attributes, constant):
    inputs = cast(inputs, torch.float32)
    chosen = (1,) if constant and len(inputs) > 1 else ()
    data = model(name, inputs, attributes, chosen)
    feed = {f"input_{i}": t.numpy() for i, t in enumerate(inputs) if i not in chosen}
    wanted = run(data, feed, "CPUExecutionProvider")
    for got, want in zip(run(data, feed, "CUDAExecutionProvider"), wanted):
        scale = np.abs(want).max(initial=1)
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[torch.float32] * scale)
