"""Every CUDA kernel in onnxruntime's CUDA provider against the CPU provider."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch.nn import functional

import graphscale
from graphscale.layers.operator import DOMAIN, OPERATORS, VERSION
from tests.gpu.cases import CASES, NAMES, TOLERANCE, cast

TYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.int64: ir.DataType.INT64,
    torch.uint32: ir.DataType.UINT32,
}
pytestmark = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime with its CUDA provider",
)


def model(name, inputs, attributes, constant=(), any_shape=False):
    """One node; the inputs at positions ``constant`` are initializers."""
    values = []
    for i, tensor in enumerate(inputs):
        known = i in constant or not any_shape
        shape = tensor.shape if known else [f"dim_{d}" for d in range(tensor.ndim)]
        value = ir.Value(
            name=f"input_{i}", type=ir.TensorType(TYPES[tensor.dtype]), shape=ir.Shape(shape)
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


def open_session(data, provider, **settings):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(graphscale.get_library_path())
    session = onnxruntime.InferenceSession(data, options, providers=[(provider, settings)])
    assert session.get_providers()[0] == provider
    return session


def run(data, feed, provider, **settings):
    session = open_session(data, provider, **settings)
    return [session.run(None, feed) for _ in range(3)][-1]


def assert_close(found, wanted):
    for got, want in zip(found, wanted):
        scale = np.abs(want).max(initial=1)
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[torch.float32] * scale)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("name", "inputs", "attributes"), CASES, ids=NAMES)
def test_equals_the_cpu(name, inputs, attributes, constant):
    inputs = cast(inputs, torch.float32)
    chosen = (1,) if constant and len(inputs) > 1 else ()
    data = model(name, inputs, attributes, chosen)
    feed = {f"input_{i}": t.numpy() for i, t in enumerate(inputs) if i not in chosen}
    wanted = run(data, feed, "CPUExecutionProvider")
    assert_close(run(data, feed, "CUDAExecutionProvider"), wanted)


@pytest.mark.parametrize(("name", "inputs", "attributes"), CASES, ids=NAMES)
def test_a_cuda_graph_can_record_a_session(name, inputs, attributes):
    """The first runs record; the last replays, on another first input."""
    inputs = cast(inputs, torch.float32)
    data = model(name, inputs, attributes, (1,) if len(inputs) > 1 else ())
    feed = {f"input_{i}": t.numpy() for i, t in enumerate(inputs) if i != 1}
    other = feed | {"input_0": np.roll(feed["input_0"], 1, axis=0)}
    wanted = run(data, other, "CPUExecutionProvider")
    session = open_session(data, "CUDAExecutionProvider", enable_cuda_graph="1")
    binding = session.io_binding()
    on_gpu = onnxruntime.OrtValue.ortvalue_from_numpy
    given = {key: on_gpu(array, "cuda", 0) for key, array in feed.items()}
    found = [on_gpu(np.zeros_like(array), "cuda", 0) for array in wanted]
    for key, value in given.items():
        binding.bind_ortvalue_input(key, value)
    for output, value in zip(session.get_outputs(), found):
        binding.bind_ortvalue_output(output.name, value)
    for _ in range(3):
        session.run_with_iobinding(binding)
    given["input_0"].update_inplace(other["input_0"])
    session.run_with_iobinding(binding)
    assert_close([value.numpy() for value in found], wanted)


def test_a_constant_weight_serves_images_of_any_height(monkeypatch):
    """Lines are folded into tiles, higher images are not."""
    monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", "per_channel 32x32")
    torch.manual_seed(0)
    images = [torch.randn(1, 2, height, 300) for height in (1, 3, 1)]
    weight = torch.randn(2, 1, 1, 21)
    data = model("FFTConv", [images[0], weight], {"group": 2}, (1,), any_shape=True)
    session = open_session(data, "CUDAExecutionProvider")
    for x in images:
        wanted = functional.conv2d(x.double(), weight.double(), groups=2).numpy()
        assert_close(session.run(None, {"input_0": x.numpy()}), [wanted])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_scratch_memory_is_on_the_sessions_gpu():
    name, inputs, attributes = next(case for case in CASES if case[0] == "LookupTableGrad")
    inputs = cast(inputs, torch.float32)
    data = model(name, inputs, attributes)
    feed = {f"input_{i}": t.numpy() for i, t in enumerate(inputs)}
    used = [torch.cuda.mem_get_info(gpu)[0] for gpu in (0, 1)]
    [got] = run(data, feed, "CUDAExecutionProvider", device_id=1)
    left = [torch.cuda.mem_get_info(gpu)[0] for gpu in (0, 1)]
    [wanted] = run(data, feed, "CPUExecutionProvider")
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)
    assert left[0] == used[0]
