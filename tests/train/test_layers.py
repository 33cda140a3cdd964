"""`load` turns models with graphscale's own operators into modules that train and save."""

import numpy as np
import pytest
import torch
from torch import nn

import graphscale
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
    TopClasses,
)


class Words(nn.Sequential):
    def __init__(self):
        super().__init__(LookupTable(20, 6), TemporalConv(6, 8, 3), TemporalKMaxPool(2))


class Image(nn.Sequential):
    def __init__(self):
        super().__init__(
            FFTConv2d(3, 8, 5, stride=2, padding=1),
            FeatureLPPooling(2, 2),
            CrossMapNormalization(3),
            FFTConv2d(4, 6, 3, groups=2, padding="same", bias=False),
            LocallyConnected(6, 6, (7, 7), 3),
            Maxout(3),
        )


@pytest.mark.parametrize("function_bodies", [True, False])
@pytest.mark.parametrize(
    ("module", "example"),
    [
        (Words(), torch.randint(0, 20, (2, 9))),
        (Image(), torch.randn(2, 3, 16, 16)),
        (TopClasses(HierarchicalSoftmax(5, 12), 3), torch.randn(2, 5)),
    ],
)
def test_load_train_save(tmp_path, module, example, function_bodies):
    path, saved = tmp_path / "model.onnx", tmp_path / "saved.onnx"
    dynamic = [{0: torch.export.Dim("N")}]
    graphscale.export(
        module.eval(), (example,), path, dynamic_shapes=dynamic, function_bodies=function_bodies
    )
    network = graphscale.load(path)
    assert len(list(network.parameters())) == len(list(module.parameters()))
    wanted, got = module(example), network(example)
    for one, other in zip(
        wanted if isinstance(wanted, tuple) else [wanted], got if isinstance(got, tuple) else [got]
    ):
        torch.testing.assert_close(other, one)
    if isinstance(got, tuple):
        return
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    got.square().mean().backward()
    optimizer.step()
    graphscale.save(network, saved)
    trained = network(example).detach().numpy()
    assert np.abs(trained - got.detach().numpy()).max() > 1e-6
    session = graphscale.session(saved)
    result = session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]
    np.testing.assert_allclose(result, trained, rtol=1e-4, atol=1e-5)
