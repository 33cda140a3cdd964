"""Helpers that compare an imported model with onnxruntime: build a model, run it in both."""

import numpy as np
import onnx
import onnxruntime
import torch

import graphscale


def run_onnxruntime(model: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs)})


def run_torch(module: torch.nn.Module, *inputs: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        outputs = module.eval()(*[torch.from_numpy(x) for x in inputs])
    return [y.numpy() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]


def assert_matches(model: onnx.ModelProto, *inputs: np.ndarray, tolerance: float = 1e-4) -> None:
    """The outputs of the imported model equal onnxruntime's, relative to the largest element."""
    expected = run_onnxruntime(model, *inputs)
    actual = run_torch(graphscale.load(model), *inputs)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        scale = max(float(np.abs(theirs.astype(np.float64)).max(initial=0)), 1e-6)
        np.testing.assert_allclose(
            ours.astype(np.float64), theirs.astype(np.float64), rtol=0, atol=tolerance * scale
        )


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def build(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    shape: tuple = ("N", 4, 8, 8),
    opset: int = 18,
    outputs: tuple[str, ...] = ("y",),
    elem_type: int = onnx.TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model with input 'x'."""
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [onnx.helper.make_tensor_value_info("x", elem_type, shape)],
        [onnx.helper.make_tensor_value_info(name, elem_type, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8
    )
