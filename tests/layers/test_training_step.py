"""A training step as one ONNX graph follows torch's loss curve in onnxruntime."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

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
from graphscale.layers.training_step import export_training_step

from .conftest import run


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
