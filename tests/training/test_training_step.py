"""A training step as one ONNX graph follows torch's loss curve in onnxruntime."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from graphscale.core.errors import GraphScaleError
from graphscale.layers import (
    CrossMapNormalization,
    FeatureLPPooling,
    FFTConv2d,
    HierarchicalSoftmax,
    LocallyConnected,
    LookupTable,
    Maxout,
    TemporalConv,
    TemporalKMaxPool,
)
from graphscale.training.training_step import export_training_step

from ..layers.conftest import run


def images():
    network = nn.Sequential(
        FFTConv2d(2, 8, 3, padding=1),
        FeatureLPPooling(2, 2),
        CrossMapNormalization(3, 0.1),
        FFTConv2d(4, 6, 3, stride=2, groups=2),
        nn.ReLU(),
        LocallyConnected(6, 8, (4, 4), 2),
        Maxout(2),
        nn.Flatten(),
    )
    return network, HierarchicalSoftmax(36, 12), torch.randn(8, 2, 10, 10)


def words():
    network = nn.Sequential(
        LookupTable(30, 6, padding_idx=0), TemporalConv(6, 10, 3), TemporalKMaxPool(2), nn.Flatten()
    )
    return network, HierarchicalSoftmax(20, 12), torch.randint(0, 30, (8, 9))


@pytest.mark.parametrize("make", [images, words])
@pytest.mark.parametrize("library", [True, False])
def test_loss_curve(tmp_path, make, library):
    torch.manual_seed(0)
    network, loss, x = make()
    target = torch.randint(0, 12, (8,))
    path = tmp_path / "step.onnx"
    both = nn.ModuleDict({"module": network, "loss": loss})
    names = export_training_step(network, loss, (x, target), path, 0.2)
    operators = {node.op_type for node in ir.load(path).graph if node.domain == "graphscale"}
    assert {"HierarchicalSoftmaxLoss", "HierarchicalSoftmaxLossGrad"} < operators
    values = [both.get_parameter(name).detach().clone() for name in names]
    optimizer = torch.optim.SGD(both.parameters(), 0.2)
    curve, wanted = [], []
    for _ in range(12):
        value, *updated = run(path, [x, target, *values], library)
        curve.append(value.item())
        values = [torch.from_numpy(one) for one in updated]
        optimizer.zero_grad()
        value = loss(network(x), target)
        value.backward()
        optimizer.step()
        wanted.append(value.item())
    np.testing.assert_allclose(curve, wanted, rtol=1e-4)
    assert curve[-1] < 0.8 * curve[0]
    for name, value in zip(names, values):
        torch.testing.assert_close(value, both.get_parameter(name), rtol=1e-3, atol=1e-4)


TORCHS_OWN = {
    "batch normalisation": (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, groups=2, padding=1),
            nn.BatchNorm2d(4),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 5),
        ),
        nn.CrossEntropyLoss(),
        torch.randint(0, 5, (6,)),
    ),
    "pixels": (
        nn.Conv2d(2, 5, (3, 5), padding=(1, 4), dilation=(1, 2)),
        nn.CrossEntropyLoss(weight=torch.rand(5) + 0.1, ignore_index=2),
        torch.randint(0, 5, (6, 8, 8)),
    ),
    "negative log likelihood": (
        nn.Sequential(nn.Flatten(), nn.Linear(128, 5), nn.LogSoftmax(1)),
        nn.NLLLoss(),
        torch.randint(0, 5, (6,)),
    ),
}


@pytest.mark.parametrize("case", TORCHS_OWN)
def test_layers_and_losses_of_torchs_own(tmp_path, case):
    torch.manual_seed(0)
    network, loss, target = TORCHS_OWN[case]
    x = torch.randn(6, 2, 8, 8)
    both = nn.ModuleDict({"module": network, "loss": loss})
    before = {name: value.clone() for name, value in both.state_dict().items()}
    names = export_training_step(network, loss, (x, target), tmp_path / "step.onnx", 0.1)
    for name, value in both.state_dict().items():
        assert torch.equal(value, before[name])
    values = [both.get_parameter(name).detach().clone() for name in names]
    optimizer = torch.optim.SGD(both.parameters(), 0.1)
    for _ in range(4):
        value, *updated = run(tmp_path / "step.onnx", [x, target, *values], True)
        values = [torch.from_numpy(one) for one in updated]
        optimizer.zero_grad()
        wanted = loss(network(x), target)
        wanted.backward()
        optimizer.step()
        assert value.item() == pytest.approx(wanted.item(), rel=1e-4)
    for name, value in zip(names, values):
        torch.testing.assert_close(value, both.get_parameter(name), rtol=1e-3, atol=1e-4)


def test_sparse_gradients_are_one_sentence(tmp_path):
    network = nn.Sequential(LookupTable(9, 4, sparse=True), nn.Flatten())
    example = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(GraphScaleError, match=r"gradient of 'module.0.weight' is sparse"):
        export_training_step(network, nn.CrossEntropyLoss(), example, tmp_path / "s.onnx", 0.1)
    assert not list(tmp_path.iterdir())
