"""Helpers for tests of shrunk modules: shrink one, feed it, compare it."""

import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn

import graphscale


def shrink(module: nn.Module, example: object, **options: object) -> nn.Module:
    """The shrunk module; it must have the class of the target."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return graphscale.shrink(module, example, **options)


def run_onnxruntime(model: onnx.ModelProto, x: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def assert_close(actual: torch.Tensor, expected: object, tolerance: float = 1e-4) -> None:
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= tolerance * expected.norm()


def assert_weights(module: nn.Module, model: onnx.ModelProto) -> None:
    """Every weight of the module equals the initializer of its name."""
    tensors = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(tensor.numpy(), tensors[name], rtol=1e-5, atol=1e-7)


def images(module: nn.Module, batch: int = 2) -> torch.Tensor:
    """Random images of the pre-train size."""
    _, *shape = module.graphscale_plan.inputs[0].pretrain
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))
