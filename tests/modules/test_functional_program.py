"""A functional program gives the graph that torch.onnx's decompositions give, or there is none."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphscale.modules.example import Example
from graphscale.modules.functional_program import functional_program
from graphscale.modules.trace_module import trace_module
from tests.zoo import NETWORKS, build

from .rescaled import assert_close, run_onnxruntime


class InPlace(nn.Module):
    """In-place operators on computed tensors, which other operators read before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        before = y * 2
        y.relu_()
        y += 1
        y.mul_(before)
        return F.hardtanh_(y - before, -1, 1) + y


class OfInput(InPlace):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.mul_(2))


class OfView(InPlace):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y[:, :2].relu_()
        return y


class BehindView(InPlace):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        flat = y.flatten(1)
        y.relu_()
        return flat


class ThroughDropout(InPlace):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        F.dropout(y, 0.5, False).relu_()
        return y


def run(module: nn.Module, x: torch.Tensor, quick: bool) -> np.ndarray:
    return run_onnxruntime(ir.to_proto(trace_module(module, Example(x), quick=quick)), x)


@pytest.mark.parametrize("kind", [InPlace, OfInput, OfView, BehindView, ThroughDropout])
def test_in_place_operators(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module, x = kind().eval(), torch.randn(3, 3, 8, 8)
    assert (functional_program(module, Example(x)) is not None) == (kind is InPlace)
    if kind is ThroughDropout:
        return  # torch.onnx itself takes the result of dropout for another tensor
    with torch.no_grad():
        assert_close(torch.as_tensor(run(module, x, quick=True)), module(x.clone()))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_networks(name: str) -> None:
    module, size = build(name, 0.25, 10).eval(), NETWORKS[name].input_size
    x = torch.randn(3, 3, size, size)
    assert functional_program(module, Example(x)) is not None
    quick, whole = run(module, x, quick=True), run(module, x, quick=False)
    np.testing.assert_allclose(quick, whole, rtol=1e-4, atol=1e-5)


class TwoImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)])

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.convs[0](x) + self.convs[1](y)


@pytest.mark.parametrize("by_name", [False, True])
def test_the_first_axis_of_every_input_is_called_batch(by_name):
    images = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    example = Example(dict(zip("xy", images)) if by_name else images)
    assert functional_program(TwoImages().eval(), example.batched()) is not None
    model = trace_module(TwoImages().eval(), example)
    assert [value.shape[0] for value in model.graph.inputs] == ["batch", "batch"]
    assert [value.shape[0] for value in model.graph.outputs] == ["batch"]
