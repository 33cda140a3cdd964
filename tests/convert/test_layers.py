"""`load` turns models with graphscale's own operators into modules that train and save."""

import numpy as np
import onnx
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
from tests.layers.conftest import run


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


class Pooled(nn.Sequential):
    def __init__(self):
        super().__init__(
            FFTConv2d(3, 16, 9, stride=2, padding=4),
            FeatureLPPooling(2, 2),
            nn.MaxPool2d(2),
            CrossMapNormalization(5, 0.1),
            FFTConv2d(8, 12, 5, padding=2),
            Maxout(2),
            FFTConv2d(6, 6, 7, padding=3, groups=6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )


def test_shrink_train_grow(tmp_path):
    """FFTConv is shrunk and grown like a Conv, with graphscale's other layers in between."""
    path, small_path, trained = (tmp_path / f"{name}.onnx" for name in ("target", "small", "ckpt"))
    module, x = Pooled().eval(), torch.randn(2, 3, 64, 64)
    graphscale.export(module, (x,), path, dynamic_shapes=[{0: torch.export.Dim("N")}])
    onnx.save(graphscale.shrink(path), small_path)
    network = graphscale.load(small_path)
    kernels = [tuple(p.shape[2:]) for p in network.parameters() if p.dim() == 4]
    assert kernels == [(7, 7), (3, 3), (5, 5)]
    shape = graphscale.session(small_path).get_inputs()[0].shape[1:]
    small_x = torch.randn(2, *shape)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network(small_x).square().mean().backward()
    optimizer.step()
    graphscale.save(network, trained)
    grown = graphscale.grow(trained)
    assert [node.op_type for node in grown.graph.node] == [
        node.op_type for node in onnx.load(path).graph.node
    ]
    for model, inputs in ((onnx.load(trained), small_x), (grown, x)):
        wanted = graphscale.load(model)(inputs).detach().numpy()
        for library in (True, False):
            (got,) = run(model.SerializeToString(), [inputs], library)
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_shrink_and_grow_a_module():
    module, x = Pooled().eval(), torch.randn(2, 3, 64, 64)
    small = graphscale.shrink(module, x)
    assert small[0].weight.shape == (16, 3, 7, 7)
    assert isinstance(small[4], FFTConv2d)
    grown = graphscale.grow(small)
    again = graphscale.shrink(grown, x)
    for one, other in zip(small.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert grown(x).shape == module(x).shape


def test_locally_connected_layers_are_not_shrunk():
    module = nn.Sequential(FFTConv2d(3, 4, 5, padding=2), LocallyConnected(4, 4, (32, 32), 3))
    with pytest.raises(graphscale.GraphScaleError, match=r"LocallyConnected.* at every position"):
        graphscale.shrink(module.eval(), torch.randn(1, 3, 32, 32))
